/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx-vmm: the monitor. Takes no arguments and prints nothing; it serves
 * the socket it was given and ends with it. See vmm/monitor_proto.h.
 */
#include <stdlib.h>

#include "vmm/control_loop.h"
#include "vmm/monitor_proto.h"
#include "vmm/process.h"

int main(void)
{
    if (process_confine() < 0)
        return EXIT_FAILURE;
    return control_loop_main(MONITOR_SOCKET_FD) < 0 ? EXIT_FAILURE
                                                    : EXIT_SUCCESS;
}
