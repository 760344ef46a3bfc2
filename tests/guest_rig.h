/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real guest with its agent, for tests of a machine (tests/vm): started from
 * an image, asked through the real client, one exec or file operation at a
 * time. What goes wrong outside of the thing tested ends the program.
 *
 * The owner zeroes the rig; guest_rig_end frees it.
 */
#ifndef MICROSBX_TESTS_GUEST_RIG_H
#define MICROSBX_TESTS_GUEST_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trial/agent_client.h"
#include "trial/machine_spec.h"
#include "trial/monitor.h"

#define GUEST_RIG_SKIPPED 77 /* what the program exits with */

struct guest_rig {
    struct machine machine;
    struct monitor *monitor;
    int console;
    uint64_t nudge_ns; /* when to interrupt an emulated guest next */
    struct agent_client *client;
    struct proto_hello hello;
    bool has_hello;
    /* the exec or file operation in hand */
    bool started, over;
    struct agent_exec_failure failure; /* reason 0: it ran */
    struct proto_exec_exit exit;
    struct proto_file_done done;
    size_t bytes;
    uint64_t sum;
    char text[4096];
    bool quiesced, restored;
    struct proto_quiesced quiesced_frame;
    struct proto_restored restored_frame;
    unsigned passed, failed;
};

/*
 * Starts the machine that spec describes (frees spec). 0, or a negative errno
 * after having said on stdout why there is none here.
 */
int guest_rig_start(struct guest_rig *g, struct machine_spec *spec);

/* One line about one thing tested. */
void guest_rig_result(struct guest_rig *g, const char *name, bool good);

/* One line, the console, and the end of the program. */
void guest_rig_give_up(struct guest_rig *g, const char *what)
    __attribute__((noreturn));

/* A stream to the agent, as soon as it listens, or -1. */
int guest_rig_dial(struct guest_rig *g);

/* Ends the connection if there is one, makes a new one, waits for HELLO. */
void guest_rig_connect(struct guest_rig *g);

/* Polls once; waits for a flag. */
void guest_rig_turn(struct guest_rig *g, int ms);
void guest_rig_wait(struct guest_rig *g, const bool *flag, const char *what);

/* Forgets the last exec or file operation. */
void guest_rig_reset(struct guest_rig *g);

/* After reset. The handle's id. */
uint32_t guest_rig_send(struct guest_rig *g,
                        const struct agent_exec_request *request);

/* sh -c script as user (NULL: the default one), to its end. */
void guest_rig_sh(struct guest_rig *g, const char *user, const char *script);

/* It ran and left with this code. */
bool guest_rig_exited(const struct guest_rig *g, uint32_t code);

/* To be continued with the next bytes: a sum of all so far. */
uint64_t guest_rig_sum(uint64_t sum, const uint8_t *bytes, size_t len);

/* Frees all, says how many passed; what main returns. */
int guest_rig_end(struct guest_rig *g);

#endif
