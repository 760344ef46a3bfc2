/* SPDX-License-Identifier: Apache-2.0 */
/* A machine on the bare monitor; see the header. */
#include "tests/machine_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "base/digest.h"
#include "base/io.h"
#include "base/num.h"
#include "tests/bare_guests.h"
#include "vmm/state_file.h"

static bool fail(struct machine_rig *rig, const char *what, const char *why)
{
    if (!rig->why[0])
        snprintf(rig->why, sizeof(rig->why), "%s: %s", what, why);
    return false;
}

/* ---- files ---- */

static int new_file(void)
{
    return memfd_create("file", MFD_CLOEXEC);
}

void rig_files_open(struct rig_files *f, unsigned disk_count)
{
    *f = (struct rig_files){
        .state = new_file(), .memory = new_file(), .disk_count = disk_count};
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        f->disks[i] = i < disk_count ? new_file() : -1;
}

void rig_files_close(struct rig_files *f)
{
    io_close(&f->state);
    io_close(&f->memory);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        io_close(&f->disks[i]);
}

uint8_t *rig_read_file(int fd, size_t *ret_len)
{
    struct stat st;
    uint8_t *bytes;

    if (fstat(fd, &st) < 0)
        return NULL;
    bytes = malloc((size_t)st.st_size + 1);
    if (bytes && io_pread_full(fd, bytes, (size_t)st.st_size, 0) ==
                     (ssize_t)st.st_size) {
        *ret_len = (size_t)st.st_size;
        return bytes;
    }
    free(bytes);
    return NULL;
}

int rig_make_file(const void *bytes, size_t len)
{
    int fd = new_file();

    if (io_pwrite_full(fd, bytes, len, 0) < 0)
        io_close(&fd);
    return fd;
}

void rig_mend_state(uint8_t *state, size_t len)
{
    enum { HEADER = 16 }; /* of the file, and of each section */
    size_t at = HEADER;

    while (len - at >= HEADER) {
        uint32_t size = num_get_le32(state + at + 8);

        if (size > len - at - HEADER)
            return;
        num_put_le32(state + at + 12,
                     (uint32_t)crc32(0, state + at + HEADER, size));
        at += HEADER + size;
    }
}

/* ---- building ---- */

void rig_config(struct vm_config *config, uint32_t cpus, uint64_t mib)
{
    vm_config_init(config);
    config->memory_bytes = mib * MIB;
    config->cpu_count = cpus;
    config->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

bool rig_config_guest(struct vm_config *config, const char *guest)
{
    config->kernel_fd = bare_guest_open(guest);
    return config->kernel_fd >= 0;
}

void rig_config_files(struct vm_config *config, const struct rig_files *f)
{
    config->state_fd = dup(f->state);
    config->memory_fd = dup(f->memory);
    for (unsigned i = 0; i < f->disk_count; i++)
        config->disks[i].layer_fd = dup(f->disks[i]);
}

static bool send_config(struct machine_rig *rig, struct vm_config *config)
{
    int pipe_fds[2];
    int ret;

    *rig = (struct machine_rig){.vmm = {.pid = -1, .sock = -1}};
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return fail(rig, "pipe", strerror(errno));
    rig->console = pipe_fds[0];
    config->console_out_fd = pipe_fds[1];
    ret = vmm_process_start(&rig->vmm);
    if (ret == 0)
        ret = vmm_process_send_config(&rig->vmm, config);
    vm_config_fini(config);
    if (ret < 0)
        return fail(rig, "the monitor", strerror(-ret));
    ret = vmm_process_receive(&rig->vmm, &rig->msg, RIG_TIMEOUT_MS);
    if (ret != 1)
        return fail(rig, "no answer to CONFIG",
                    ret == 0 ? "the monitor died" : strerror(-ret));
    if (rig->msg.type == MONITOR_ERROR &&
        monitor_error_decode(rig->msg.payload, rig->msg.len, &rig->error) < 0)
        return fail(rig, "the monitor", "its error does not decode");
    return true;
}

bool rig_build(struct machine_rig *rig, struct vm_config *config)
{
    if (!send_config(rig, config))
        return false;
    return rig->msg.type == MONITOR_READY ||
           fail(rig, "refused", rig->error.text);
}

bool rig_refused(struct machine_rig *rig, struct vm_config *config,
                 enum monitor_error_code code, const char *text)
{
    int status;

    if (!send_config(rig, config))
        return false;
    if (rig->msg.type != MONITOR_ERROR)
        return fail(rig, text, "not refused");
    if (rig->error.code != code || !strstr(rig->error.text, text))
        return fail(rig, "refused otherwise", rig->error.text);
    status = vmm_process_wait(&rig->vmm, RIG_TIMEOUT_MS);
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
           fail(rig, text, "the monitor crashed");
}

void rig_end(struct machine_rig *rig)
{
    vmm_process_end(&rig->vmm);
    io_close(&rig->console);
}

/* ---- orders ---- */

static bool take_exit(struct machine_rig *rig)
{
    if (monitor_exit_decode(rig->msg.payload, rig->msg.len, &rig->exit) < 0)
        return fail(rig, "EXIT", "it does not decode");
    snprintf(rig->why, sizeof(rig->why), "the machine ended: %s (%s)",
             monitor_exit_reason_name(rig->exit.reason), rig->exit.text);
    return false;
}

/* Waits for one message of this type; RUNNING may come before others. */
static bool await(struct machine_rig *rig, enum monitor_msg type)
{
    char why[64];
    int ret;

    do {
        ret = vmm_process_receive(&rig->vmm, &rig->msg, RIG_TIMEOUT_MS);
    } while (ret == 1 && rig->msg.type == MONITOR_RUNNING &&
             type != MONITOR_RUNNING);
    if (ret == 1 && rig->msg.type == type)
        return true;
    if (ret == 1 && rig->msg.type == MONITOR_EXIT)
        return take_exit(rig);
    if (ret == 1 && rig->msg.type == MONITOR_ERROR &&
        monitor_error_decode(rig->msg.payload, rig->msg.len, &rig->error) == 0)
        return fail(rig, "refused", rig->error.text);
    snprintf(why, sizeof(why), "%d, type %u instead of %u", ret, rig->msg.type,
             type);
    return fail(rig, "the monitor's answer", why);
}

bool rig_order(struct machine_rig *rig, enum monitor_msg order, const int *fds,
               size_t fd_count, enum monitor_msg answer)
{
    int ret = msg_send(rig->vmm.sock, order, NULL, 0, fds, fd_count);

    /* One that is gone has left its last word. */
    if (ret < 0 && ret != -EPIPE)
        return fail(rig, "the monitor", "it does not take orders");
    return await(rig, answer);
}

bool rig_start(struct machine_rig *rig)
{
    return rig_order(rig, MONITOR_START, NULL, 0, MONITOR_RUNNING);
}

bool rig_pause(struct machine_rig *rig)
{
    return rig_order(rig, MONITOR_PAUSE, NULL, 0, MONITOR_PAUSED);
}

bool rig_resume(struct machine_rig *rig)
{
    return rig_order(rig, MONITOR_RESUME, NULL, 0, MONITOR_RESUMED);
}

bool rig_save(struct machine_rig *rig, const struct rig_files *f)
{
    int fds[MONITOR_SAVE_FDS_MAX] = {f->state, f->memory};

    memcpy(fds + 2, f->disks, f->disk_count * sizeof(int));
    return rig_order(rig, MONITOR_SAVE, fds, 2 + f->disk_count,
                     MONITOR_SAVED) &&
           (monitor_saved_decode(rig->msg.payload, rig->msg.len, &rig->saved) ==
                0 ||
            fail(rig, "SAVED", "it does not decode"));
}

bool rig_prove(struct machine_rig *rig, int state_fd, int leaves_fd)
{
    const int fds[] = {state_fd, leaves_fd};

    return rig_order(rig, MONITOR_PROVE, fds, 2, MONITOR_PROVED) &&
           (monitor_proved_decode(rig->msg.payload, rig->msg.len,
                                  &rig->proved) == 0 ||
            fail(rig, "PROVED", "it does not decode"));
}

bool rig_roll_back(struct machine_rig *rig)
{
    return rig_order(rig, MONITOR_ROLLBACK, NULL, 0, MONITOR_ROLLED_BACK) &&
           (monitor_rolled_back_decode(rig->msg.payload, rig->msg.len,
                                       &rig->rolled_back) == 0 ||
            fail(rig, "ROLLED_BACK", "it does not decode"));
}

bool rig_count(struct machine_rig *rig, struct monitor_stats *ret_stats)
{
    return rig_order(rig, MONITOR_STATS_REQUEST, NULL, 0, MONITOR_STATS) &&
           (monitor_stats_decode(rig->msg.payload, rig->msg.len, ret_stats) ==
                0 ||
            fail(rig, "STATS", "it does not decode"));
}

bool rig_stop(struct machine_rig *rig)
{
    int status;

    if (vmm_process_send(&rig->vmm, MONITOR_STOP) < 0)
        return fail(rig, "the monitor", "it does not take orders");
    if (!await(rig, MONITOR_EXIT))
        return false;
    if (monitor_exit_decode(rig->msg.payload, rig->msg.len, &rig->exit) < 0 ||
        rig->exit.reason != MONITOR_EXIT_STOPPED)
        return take_exit(rig);
    status = vmm_process_wait(&rig->vmm, RIG_TIMEOUT_MS);
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
           fail(rig, "the monitor", "it did not end well");
}

bool rig_hear(struct machine_rig *rig, char c, unsigned count)
{
    uint64_t end = io_now_ns() + RIG_TIMEOUT_MS * 1000000ull;
    struct pollfd p = {.fd = rig->console, .events = POLLIN};

    while (count > 0) {
        if (io_now_ns() > end)
            return fail(rig, "the guest", "it says nothing more");
        if (poll(&p, 1, 100) <= 0)
            continue;
        if (read(rig->console, &rig->last, 1) != 1) {
            if (await(rig, MONITOR_EXIT))
                (void)take_exit(rig); /* says why */
            return fail(rig, "the guest", "it ended");
        }
        if (rig->last == 'X')
            return fail(rig, "the guest", "it found something changed");
        count -= rig->last == c;
    }
    return true;
}

/* ---- the proof ---- */

static bool same_state(struct machine_rig *rig, int saved_fd, int proved_fd)
{
    size_t a_len = 0, b_len = 0;
    uint8_t *a = rig_read_file(saved_fd, &a_len);
    uint8_t *b = rig_read_file(proved_fd, &b_len);
    struct state_difference d = {0};
    int ret = a && b ? state_file_compare(a, a_len, b, b_len, &d) : -EIO;

    free(a);
    free(b);
    return ret == 0 || fail(rig, "the state", d.text);
}

/*
 * Digests of the file, the plain way. (Chunks of zeros are digested once: an
 * emulated host takes a second for each.)
 */
static bool same_memory(struct machine_rig *rig, int memory_fd, int leaves_fd)
{
    size_t memory_len = 0, leaves_len = 0;
    uint8_t *memory = rig_read_file(memory_fd, &memory_len);
    uint8_t *leaves = rig_read_file(leaves_fd, &leaves_len);
    static uint8_t zeros[MONITOR_CHUNK], zero_sum[DIGEST_SIZE];
    char why[64] = "it cannot be read";
    bool same = memory && leaves &&
                leaves_len == memory_len / MONITOR_CHUNK * DIGEST_SIZE;

    digest_sum(zeros, MONITOR_CHUNK, zero_sum);
    for (size_t i = 0; same && i < memory_len / MONITOR_CHUNK; i++) {
        const uint8_t *chunk = memory + i * MONITOR_CHUNK;
        uint8_t sum[DIGEST_SIZE];

        if (memcmp(chunk, zeros, MONITOR_CHUNK) == 0)
            memcpy(sum, zero_sum, DIGEST_SIZE);
        else
            digest_sum(chunk, MONITOR_CHUNK, sum);
        same = memcmp(sum, leaves + i * DIGEST_SIZE, DIGEST_SIZE) == 0;
        snprintf(why, sizeof(why), "chunk %zu differs", i);
    }
    free(memory);
    free(leaves);
    return same || fail(rig, "the memory", why);
}

/* That no disk has anything in an overlay of its own. */
static bool no_clusters(struct machine_rig *rig)
{
    for (uint32_t i = 0; i < rig->proved.disk_count; i++)
        if (rig->proved.disks[i].clusters > 0)
            return fail(rig, "the proof", "an overlay is not empty");
    return true;
}

bool rig_proof_holds(struct machine_rig *rig, const struct rig_files *saved)
{
    int state = new_file(), leaves = new_file();
    bool holds = rig_prove(rig, state, leaves) &&
                 same_state(rig, saved->state, state) &&
                 same_memory(rig, saved->memory, leaves) && no_clusters(rig);

    io_close(&state);
    io_close(&leaves);
    return holds;
}
