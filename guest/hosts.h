/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /etc/hostname and /etc/hosts of the root file system: what programs ask for
 * the machine's own name, which a restore changes. They stay plain files that
 * a workload may edit or replace; the agent touches its own line and no other.
 */
#ifndef MICROSBX_GUEST_HOSTS_H
#define MICROSBX_GUEST_HOSTS_H

#include <stddef.h>

#define HOSTS_TEXT_MAX 65536u /* of /etc/hosts; a longer one is left alone */

/*
 * Has both files below the directory root_fd say `name` in place of `old` (""
 * if it had none), and makes what is missing. What is right is not written. No
 * symbolic link is followed, and nothing but a regular file is touched. 0 or a
 * negative errno: hosts(5) may then not know the name.
 */
int hosts_set_name(int root_fd, const char *old, const char *name)
    __attribute__((warn_unused_result));

/*
 * The text of /etc/hosts with that done: the line of `old` is the line of
 * `name`, or a new one is at the end; localhost is there, too. The caller's to
 * free; NULL: no memory.
 */
char *hosts_text(const char *text, const char *old, const char *name)
    __attribute__((warn_unused_result));

#endif
