/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets whose other end may be hostile. Descriptors that it sends are nothing
 * that we want, and to close the last of one may take as long as the sender
 * likes: a TCP socket that lingers, or a Unix socket with one in its queue.
 */
#ifndef MICROSBX_BASE_WARY_H
#define MICROSBX_BASE_WARY_H

#include <stddef.h>

#include "base/msg.h"

/* Nobody can send descriptors to sock from now on, if the kernel can do that
 * (Linux 6.16); else nothing. */
void wary_refuse_fds(int sock);

/*
 * Closes them and sets them to -1, without waiting: they end with a process
 * made for it, since no socket lingers for one that exits. If none can be made,
 * they stay open till we end.
 */
void wary_close(int *fds, size_t count);

/* The same for a socket of which nothing more is read: what lies unread in it
 * may hold descriptors. Pre: the other end is gone. */
void wary_close_socket(int *sock);

/* As msg_receive; a message with descriptors is -EBADMSG. */
int msg_receive_wary(int sock, struct msg *ret_msg)
    __attribute__((warn_unused_result));

#endif
