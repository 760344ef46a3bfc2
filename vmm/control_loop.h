/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's side of vmm/monitor_proto.h: one conversation with the harness,
 * from CONFIG (or PROBE) to EXIT. While the machine runs, the socket is one
 * more descriptor of the device thread's event loop.
 */
#ifndef MICROSBX_VMM_CONTROL_LOOP_H
#define MICROSBX_VMM_CONTROL_LOOP_H

/*
 * Serves sock until the machine has ended or the harness has gone. Returns 0,
 * or a negative errno if the harness broke the protocol or could not be told.
 */
int control_loop_main(int sock);

#endif
