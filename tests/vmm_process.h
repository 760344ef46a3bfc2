/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor process for tests: started directly, spoken to by base/msg, with
 * nothing of the harness in between. Used by the tests of the monitor itself
 * and by measurements.
 */
#ifndef MICROSBX_TESTS_VMM_PROCESS_H
#define MICROSBX_TESTS_VMM_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/msg.h"
#include "vmm/monitor_proto.h"
#include "vmm/vm_config.h"

struct vmm_process {
    pid_t pid; /* -1 once reaped */
    int sock;  /* -1 once closed */
};

/*
 * Starts build/microsbx-vmm (found from /proc/self/exe, two folders up; or
 * $MICROSBX_VMM). 0 or -errno.
 */
int vmm_process_start(struct vmm_process *p)
    __attribute__((warn_unused_result));

int vmm_process_send(struct vmm_process *p, enum monitor_msg type)
    __attribute__((warn_unused_result));
/* Sends CONFIG; the descriptors stay the caller's. */
int vmm_process_send_config(struct vmm_process *p,
                            const struct vm_config *config)
    __attribute__((warn_unused_result));

/* Waits for a message: 1, 0 (closed), -ETIMEDOUT or another -errno. */
int vmm_process_receive(struct vmm_process *p, struct msg *ret_msg,
                        int timeout_ms) __attribute__((warn_unused_result));

/* Waits for the process to end: its wait status, or -1 after timeout_ms. */
int vmm_process_wait(struct vmm_process *p, int timeout_ms);

/* Closes the socket, kills and reaps what is left. */
void vmm_process_end(struct vmm_process *p);

#endif
