/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real agent as a process of this host, for tests: no virtual machine, a
 * socketpair instead of vsock, the host's files under an overlay as the
 * image. And a client that waits: run a program or move a file, and look at
 * what came. Needs root, namespaces and a cgroup2 hierarchy.
 *
 * What the agent would ask of a guest's kernel around a freeze is only written
 * down: this host keeps its clock, its name and its memory.
 */
#ifndef MICROSBX_TESTS_AGENT_RIG_H
#define MICROSBX_TESTS_AGENT_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "trial/agent_client.h"

#define RIG_HANDLES 32u /* ids of one test are below this */

/* What one handle has said so far. */
struct rig_handle {
    bool started, failed, exited, file_done;
    struct agent_exec_failure failure;
    struct proto_exec_exit exit;
    struct proto_file_done done;
    int local_err;
    size_t bytes[2];    /* of stdout and stderr */
    uint64_t digest[2]; /* of them, see rig_digest */
    char text[2][4096]; /* their beginnings, terminated */
};

/* The kernel that the agent believes to have; shared with its process. */
struct rig_kernel {
    char calls[1024];   /* in order, each with a blank behind it */
    char fails[16];     /* the call that answers EPERM; "": none */
    bool out_of_memory; /* whoever zeroes memory is killed for it */
    int64_t realtime_ns;
    size_t draws;
    uint8_t entropy[PROTO_ENTROPY_SIZE];
    char hostname[PROTO_HOSTNAME_MAX];
};

struct agent_rig {
    pid_t agent;
    int control; /* hands it connections after the first */
    struct rig_kernel *kernel;
    struct agent_client *client;
    bool hello;
    struct proto_hello hello_frame;
    bool hold_output; /* output is not consumed: a slow reader */
    bool quiesced, restored;
    struct proto_quiesced quiesced_frame;
    struct proto_restored restored_frame;
    struct rig_handle handles[RIG_HANDLES];
};

/*
 * NULL if agents can be started on this host, with what they enforce here;
 * else why not: print it and skip. To be called before libcheck runs anything.
 */
const char *agent_rig_probe(uint32_t *ret_features);

/* Set before start: the agent has no root file system. Only for a test that
   runs in a process of its own. */
extern bool rig_without_root;

/* Starts agent and client and waits for HELLO; else the test fails. */
void agent_rig_start(struct agent_rig *rig);

/* Ends the connection, and makes the next one: handles are forgotten. */
void agent_rig_reconnect(struct agent_rig *rig);

/* Asks, and waits for the answer. */
const struct proto_quiesced *agent_rig_quiesce(struct agent_rig *rig,
                                               uint32_t flags);
const struct proto_restored *
agent_rig_restore(struct agent_rig *rig, const struct proto_restore *request);

/* Ends the connection and waits for the agent; its exit status. */
int agent_rig_stop(struct agent_rig *rig);

/* Polls once, at most ms. Fails the test if the client reports an error. */
void agent_rig_turn(struct agent_rig *rig, int ms);

/* Turns until *flag or 20 s (then the test fails). */
void agent_rig_wait(struct agent_rig *rig, const bool *flag);

/* Sends an exec; the handle to look at. */
struct rig_handle *agent_rig_send(struct agent_rig *rig,
                                  const struct agent_exec_request *request,
                                  uint32_t *ret_id);

/* Runs one to its end (exited or failed). */
struct rig_handle *agent_rig_run(struct agent_rig *rig,
                                 const struct agent_exec_request *request);

/* sh -c script as user (NULL: default) to its end. */
struct rig_handle *agent_rig_sh(struct agent_rig *rig, const char *user,
                                const char *script);

/* FNV-1a, to be continued: start with 0. */
uint64_t rig_digest(uint64_t digest, const void *bytes, size_t len);

#endif
