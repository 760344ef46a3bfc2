/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One machine on the bare monitor, for tests that pause, save, restore and
 * prove: spoken to by base/msg, with nothing of the harness in between.
 *
 * Every step returns true if it went as it should; else rig.why says what went
 * wrong first.
 */
#ifndef MICROSBX_TESTS_MACHINE_RIG_H
#define MICROSBX_TESTS_MACHINE_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/vmm_process.h"

#define RIG_TIMEOUT_MS 60000 /* generous: host or guest may be emulated */

/* The files of a save; memory files that need no folder. -1 = none. */
struct rig_files {
    int state;
    int memory;
    int disks[VM_DISKS_MAX];
    unsigned disk_count;
};

void rig_files_open(struct rig_files *f, unsigned disk_count);
void rig_files_close(struct rig_files *f);
/* All bytes of a file (free() them), or NULL. */
uint8_t *rig_read_file(int fd, size_t *ret_len);
/* A new memory file with these bytes. */
int rig_make_file(const void *bytes, size_t len);
/* Makes the checksums of a state right again. */
void rig_mend_state(uint8_t *state, size_t len);

struct machine_rig {
    struct vmm_process vmm;
    int console; /* our end of the pipe; -1 at its end */
    char last;   /* what the guest printed last */
    struct msg msg;
    struct monitor_error error;
    struct monitor_exit exit;
    struct monitor_saved saved;
    struct monitor_proved proved;
    struct monitor_rolled_back rolled_back;
    char why[MONITOR_TEXT_MAX + 128];
};

/* A configuration with KVM and memory; the caller adds to it. */
void rig_config(struct vm_config *config, uint32_t cpus, uint64_t mib);
/* Names a bare guest as kernel, or files (duplicated) as origin. */
bool rig_config_guest(struct vm_config *config, const char *guest);
void rig_config_files(struct vm_config *config, const struct rig_files *f);

/* Starts a monitor and has it build the machine. Takes config's descriptors. */
bool rig_build(struct machine_rig *rig, struct vm_config *config);
/* The same, expected to be refused with code and part of a text. */
bool rig_refused(struct machine_rig *rig, struct vm_config *config,
                 enum monitor_error_code code, const char *text);
/* Kills what is left. */
void rig_end(struct machine_rig *rig);

/* An order and its answer, in rig.msg. */
bool rig_order(struct machine_rig *rig, enum monitor_msg order, const int *fds,
               size_t fd_count, enum monitor_msg answer);
bool rig_start(struct machine_rig *rig);
bool rig_pause(struct machine_rig *rig);
bool rig_resume(struct machine_rig *rig);
bool rig_save(struct machine_rig *rig, const struct rig_files *f);
bool rig_prove(struct machine_rig *rig, int state_fd, int leaves_fd);
bool rig_roll_back(struct machine_rig *rig);
/* Asks for the counters. */
bool rig_count(struct machine_rig *rig, struct monitor_stats *ret_stats);
/* STOP, EXIT, and the process's end with status 0. */
bool rig_stop(struct machine_rig *rig);

/* Waits until the guest printed c `count` times; 'X' is a guest's complaint. */
bool rig_hear(struct machine_rig *rig, char c, unsigned count);

/*
 * Proves, and compares with what was saved: state outside of the exceptions,
 * the digest of every chunk of the memory file, and that overlays are empty.
 * What differs is in why.
 */
bool rig_proof_holds(struct machine_rig *rig, const struct rig_files *saved);

#endif
