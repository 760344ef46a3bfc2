/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The long-lived machines of this user, as folders:
 *
 *     $XDG_RUNTIME_DIR/microsbx/machines/NAME/
 *         lock          flock'd by the machine's keeper for as long as it lives
 *         socket        the keeper listens there (keeper_proto.h)
 *         busy          flock'd by it while it can answer nobody
 *         machine.json  what the machine is, and how it ended
 * (machine_record.h) stdout        output of the machine's own command, bounded
 *         stderr
 *         result.json   its result, one line
 *
 * Without XDG_RUNTIME_DIR they are in /run/user/UID, and without that in
 * /tmp/microsbx-UID. All folders are the user's alone (0700); one that is not
 * is refused. A machine appears with its lock held, by one rename, and stays,
 * ended, until it is removed. Names with a leading dot are ours while a folder
 * comes or goes; those that nobody holds any more are swept away.
 */
#ifndef MICROSBX_TRIAL_REGISTRY_H
#define MICROSBX_TRIAL_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"

#define REGISTRY_NAME_MAX 64u
#define REGISTRY_MACHINES_MAX 1024u /* that are listed */

struct registry_entry {
    char name[REGISTRY_NAME_MAX + 1];
    int dir_fd;  /* owned; -1: none */
    int lock_fd; /* owned by the keeper's side only; -1 */
};

/* Letters, digits, '.', '_' and '-', 1 to 64, no leading dot. */
bool registry_name_is_valid(const char *name);

/* "vm-" and eight random hex digits. */
void registry_make_name(char ret_name[REGISTRY_NAME_MAX + 1]);

/*
 * A folder for a new machine, its lock held, not to be seen yet. 0, or a
 * negative errno with *f filled.
 */
int registry_create(const char *name, struct registry_entry *ret_entry,
                    struct failure *f) __attribute__((warn_unused_result));

/* Makes it appear under its name: 0; -EEXIST and others with *f filled. */
int registry_publish(struct registry_entry *entry, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * The folder of a machine there is. -ENOENT with *f naming the nearest, or
 * another negative errno.
 */
int registry_find(const char *name, struct registry_entry *ret_entry,
                  struct failure *f) __attribute__((warn_unused_result));

/* True while its keeper lives. */
bool registry_is_alive(const struct registry_entry *entry);

/*
 * Held by a keeper while it can answer nobody, because its machine is being
 * made or stands still to be saved. A descriptor whose closing ends it, or a
 * negative errno.
 */
int registry_hold_busy(const struct registry_entry *entry)
    __attribute__((warn_unused_result));
bool registry_is_busy(const struct registry_entry *entry);

/* Takes the lock of a machine whose keeper is gone: 0, -EBUSY or another. */
int registry_adopt(struct registry_entry *entry)
    __attribute__((warn_unused_result));

/* Waits for its keeper's end: true if it came within ms milliseconds. */
bool registry_wait_end(const struct registry_entry *entry, int ms);

/*
 * Removes the folder and all in it; the entry is closed in any case. Pre: it
 * is the caller's own, or nobody lives in it (-EBUSY otherwise).
 */
int registry_remove(struct registry_entry *entry)
    __attribute__((warn_unused_result));

/* Closes; also releases the lock. Fine on a closed one. */
void registry_close(struct registry_entry *entry);

/*
 * All names in order, for registry_names_free; sweeps leftovers away. 0, or a
 * negative errno with *f filled.
 */
int registry_names(char ***ret_names, size_t *ret_count, struct failure *f)
    __attribute__((warn_unused_result));
void registry_names_free(char **names, size_t count);

/*
 * A listening, or a connected, SEQPACKET socket at `socket` in the folder,
 * which does not block: the descriptor, or a negative errno (-ECONNREFUSED: its
 * keeper is gone; -EAGAIN: it accepts nobody). However long the path is.
 */
int registry_listen(const struct registry_entry *entry)
    __attribute__((warn_unused_result));
int registry_connect(const struct registry_entry *entry)
    __attribute__((warn_unused_result));
/* As registry_connect, but without waiting for room among those who wait. */
int registry_try_connect(const struct registry_entry *entry)
    __attribute__((warn_unused_result));

#endif
