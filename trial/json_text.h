/* SPDX-License-Identifier: Apache-2.0 */
/* Text that may hold anything, as a JSON string. */
#ifndef MICROSBX_TRIAL_JSON_TEXT_H
#define MICROSBX_TRIAL_JSON_TEXT_H

#include <jansson.h>

/* NULL is null; what is not UTF-8 is shown escaped. NULL if memory is short. */
json_t *json_text(const char *text);

#endif
