/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a long-lived machine is and how it ended, as machine.json in its folder:
 * written by its keeper when it starts, answers and ends, read by all the
 * verbs. JSON of one object, keys in a fixed order; ps --json shows the same.
 */
#ifndef MICROSBX_TRIAL_MACHINE_RECORD_H
#define MICROSBX_TRIAL_MACHINE_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/digest.h"
#include "base/failure.h"
#include "guest/proto.h"
#include "trial/registry.h"

#define MACHINE_RECORD_MAX 65536u /* bytes of the file */
#define MACHINE_COMMAND_MAX 256u  /* of the command that is shown */

enum machine_state {
    MACHINE_STARTING,
    MACHINE_RUNNING,
    MACHINE_EXITED,  /* its command ended, or it was stopped */
    MACHINE_EXPIRED, /* its time to live was over */
    MACHINE_FAILED,  /* panic, monitor fault, broken protocol, host failure */
    MACHINE_DEAD,    /* never in a file: the keeper is gone without a word */
};

struct machine_record {
    char name[REGISTRY_NAME_MAX + 1];
    uint32_t protocol; /* KEEPER_PROTO_VERSION of its keeper */
    enum machine_state state;
    int64_t created_at; /* seconds since 1970 */
    int64_t ended_at;   /* 0: it has not */
    uint64_t ttl_ms;    /* from the moment it answered */
    pid_t keeper;
    uint64_t keeper_start; /* as process_start_ticks tells; 0: not known */
    char image[512];       /* name, or "" */
    char image_sha256[DIGEST_HEX_SIZE]; /* of its root file system, or "" */
    char snapshot[DIGEST_HEX_SIZE];     /* the snapshot's id, or "" */
    char kernel[PROTO_RELEASE_MAX];     /* the guest's claim, printable */
    uint64_t memory_bytes;
    uint64_t disk_limit;
    uint32_t cpu_count;
    char vsock[512];                       /* its socket's path, or "" */
    char command[MACHINE_COMMAND_MAX + 1]; /* printable, cut; or "" */
    /* once it has ended */
    int exit_status;    /* what `wait` ends with */
    char outcome[32];   /* a trial's outcome, or "" */
    char cause[40];     /* a stable word, or "" */
    char message[1025]; /* a sentence, or "" */
};

const char *machine_state_name(enum machine_state state);

/* The object, or NULL if memory is short. */
json_t *machine_record_to_json(const struct machine_record *record);

/* Strict: 0, or -EBADMSG. */
int machine_record_from_json(const char *text, size_t len,
                             struct machine_record *ret_record)
    __attribute__((warn_unused_result));

/* Replaces machine.json by a rename: 0 or a negative errno. */
int machine_record_write(const struct registry_entry *entry,
                         const struct machine_record *record)
    __attribute__((warn_unused_result));

/*
 * Reads it. One whose keeper is gone without a word is MACHINE_DEAD. 0, or a
 * negative errno with *f filled.
 */
int machine_record_read(const struct registry_entry *entry,
                        struct machine_record *ret_record, struct failure *f)
    __attribute__((warn_unused_result));

/* Arguments as one printable line, cut to fit. */
void machine_record_command(char buf[MACHINE_COMMAND_MAX + 1],
                            const char *const *argv);

#endif
