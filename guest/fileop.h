/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file operation as the host sees it: a helper process (filejob.h), a pipe
 * for its data, and FILE_DONE as the last frame.
 */
#ifndef MICROSBX_GUEST_FILEOP_H
#define MICROSBX_GUEST_FILEOP_H

#include "guest/handle.h"

/* FILE_*: makes a free handle one. Failure is reported by fileop_step. */
void fileop_open(struct handle *h, struct agent *agent, uint32_t id,
                 uint16_t type, const struct proto_file_open *request);

/* Ends it; FILE_DONE says ECANCELED unless it was through already. */
void fileop_cancel(struct handle *h);

/* As exec_step. Nothing here is a matter of time. */
bool fileop_step(struct handle *h, struct conn *conn);

#endif
