/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a workload runs as. Reads the image's own passwd and group files (which
 * a workload may have rewritten) with bounds; a static glibc has no getpwnam,
 * and calling the image's NSS modules would run its code in the agent.
 */
#ifndef MICROSBX_GUEST_USERS_H
#define MICROSBX_GUEST_USERS_H

#include <stddef.h>
#include <sys/types.h>

#define USERS_DEFAULT_ID 1000u
#define USERS_DEFAULT_NAME "sandbox"
#define USERS_DEFAULT_HOME "/home/sandbox"
#define USERS_GROUPS_MAX 32u
#define USERS_HOME_MAX 1024u
#define USERS_NAME_MAX 256u
#define USERS_FILE_MAX                                                         \
    262144u /* bytes of passwd or group that are looked at                     \
             */

struct user {
    uid_t uid;
    gid_t gid;
    size_t group_count; /* supplementary groups */
    gid_t groups[USERS_GROUPS_MAX];
    char name[USERS_NAME_MAX]; /* "" if the number has no name */
    char home[USERS_HOME_MAX];
};

/*
 * Resolves "", "name", "uid" or "uid:gid" against the text of passwd and
 * group files (either may be empty). "" is the default user, without a look
 * at any file. 0; -ENOENT: no such name; -EINVAL: not a user at all.
 */
int users_resolve(const char *who, const char *passwd, const char *group,
                  struct user *ret_user) __attribute__((warn_unused_result));

/*
 * The same with /etc/passwd and /etc/group below the directory `root_fd`.
 * Called in a child that is to become the user.
 */
int users_resolve_at(int root_fd, const char *who, struct user *ret_user)
    __attribute__((warn_unused_result));

#endif
