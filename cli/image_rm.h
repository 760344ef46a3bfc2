/* SPDX-License-Identifier: Apache-2.0 */
/* Removing an image from the cache. */
#ifndef MICROSBX_CLI_IMAGE_RM_H
#define MICROSBX_CLI_IMAGE_RM_H

#include "base/failure.h"

/*
 * Removes the image of that name from the cache folder, at once for whoever
 * looks for it; machines that have it open keep it. One that is being built is
 * left alone. 0, or a negative errno with *f filled.
 */
int image_rm(const char *name, struct failure *f)
    __attribute__((warn_unused_result));

#endif
