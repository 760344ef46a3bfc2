/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file operation of the host, done by a forked helper of the agent: inside
 * the sandbox's root and with the user's rights, so that no symbolic link and
 * no mode leads where the user could not go; in a process of its own, so that
 * nothing a file does (a slow disk, a full one) holds up the agent.
 *
 * The helper is not in the sandbox's pid namespace: workloads can neither see
 * nor signal it.
 */
#ifndef MICROSBX_GUEST_FILEJOB_H
#define MICROSBX_GUEST_FILEJOB_H

#include <stdint.h>
#include <sys/types.h>

#include "guest/proto.h"
#include "guest/sandbox.h"

/*
 * Forks the helper. type is PROTO_FILE_WRITE (contents come through data_fd,
 * to its end), PROTO_FILE_READ (contents go out), PROTO_FILE_STAT or
 * PROTO_FILE_MKDIR (data_fd -1). The helper's last act is one struct
 * proto_file_done into the report pipe; without one it was killed. Returns
 * its pid and the reading end (non-blocking, the caller's), or a negative
 * errno. data_fd stays the caller's.
 */
pid_t filejob_spawn(struct sandbox *sandbox, uint16_t type,
                    const struct proto_file_open *request, int data_fd,
                    int procs_fd, int *ret_report_fd)
    __attribute__((warn_unused_result));

#endif
