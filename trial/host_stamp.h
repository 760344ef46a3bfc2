/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was found out about this host, remembered until it boots, or its kernel,
 * its /dev/kvm or our monitor become others: so that not every trial finds it
 * out anew. In $XDG_RUNTIME_DIR/microsbx, and without that in "host" of the
 * cache folder ($XDG_CACHE_HOME/microsbx, ~/.cache/microsbx). Only a file that
 * is this user's and that nobody else can write is believed, and only in such a
 * folder.
 */
#ifndef MICROSBX_TRIAL_HOST_STAMP_H
#define MICROSBX_TRIAL_HOST_STAMP_H

#include <stddef.h>
#include <sys/types.h>

#define HOST_STAMP_MAX 8192u /* bytes that are remembered */

/*
 * What was remembered as `what` (a word without a slash), into buf: its length;
 * -ENOENT, -ESTALE (of another boot, kernel, monitor, KVM), -EPERM (not to be
 * believed), -EMSGSIZE or another negative errno.
 */
ssize_t host_stamp_read(const char *what, void *buf, size_t size);

/* Remembers it, if it can: the next one finds it out anew otherwise. */
void host_stamp_write(const char *what, const void *bytes, size_t len);

#endif
