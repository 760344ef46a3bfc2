/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots that are damaged or hostile: every one is refused with a sentence,
 * or harmless, or found out by the proof; none crashes the monitor. Needs
 * /dev/kvm, but no host that runs Linux guests.
 *
 * One line per test; status 0 if all passed, 77 without a usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/machine_rig.h"
#include "vmm/machine_internal.h"
#include "vmm/state_file.h"

#define STATUS_SKIPPED 77
#define MEMORY_MIB 32u
#define PAGE 4096u

/* One snapshot for all: of a guest that drives the entropy device. */
static struct rig_files good;
static uint8_t *state;
static size_t state_len;

static bool make_snapshot(struct machine_rig *rig)
{
    struct vm_config config;
    bool ok;

    rig_files_open(&good, 0);
    rig_config(&config, 1, MEMORY_MIB);
    ok = rig_config_guest(&config, "rng_queue") && rig_build(rig, &config) &&
         rig_start(rig) && rig_hear(rig, '.', 3) && rig_pause(rig) &&
         rig_save(rig, &good) && rig_stop(rig);
    rig_end(rig);
    if (ok)
        state = rig_read_file(good.state, &state_len);
    return ok && state;
}

/* The machine of the snapshot, from this state and memory (owned here). */
static void config_from(struct vm_config *config, int state_fd, int memory_fd)
{
    rig_config(config, 1, MEMORY_MIB);
    config->state_fd = state_fd;
    config->memory_fd = memory_fd;
}

/* Restores and proves against the good one: true if it is found out. */
static bool is_found_out(struct machine_rig *rig, int state_fd, int memory_fd,
                         const char *place)
{
    struct vm_config config;
    bool found;

    config_from(&config, state_fd, memory_fd);
    if (!rig_build(rig, &config))
        return false;
    found = !rig_proof_holds(rig, &good) && strstr(rig->why, place) != NULL;
    if (found)
        rig->why[0] = '\0';
    else if (!rig->why[0])
        snprintf(rig->why, sizeof(rig->why), "the proof holds");
    return found;
}

/* ---- places in the state ---- */

/* Where the section with this tag and index starts; 0 = none. */
static size_t find_section(const uint8_t *bytes, const char *tag,
                           uint16_t index)
{
    size_t at = 16;

    while (at + 16 <= state_len) {
        if (memcmp(bytes + at, tag, 4) == 0 &&
            num_get_le16(bytes + at + 6) == index)
            return at;
        at += 16 + num_get_le32(bytes + at + 8);
    }
    return 0;
}

/* The fields of a group of the first vCPU. */
static uint8_t *find_group(uint8_t *bytes, const char *tag)
{
    uint8_t *at = bytes + find_section(bytes, STATE_TAG_CPU, 0) + 16;

    while (memcmp(at, tag, 4) != 0)
        at += 8 + num_get_le32(at + 4);
    return at + 8;
}

static uint8_t *copy_state(void)
{
    uint8_t *copy = malloc(state_len);

    if (copy)
        memcpy(copy, state, state_len);
    return copy;
}

/* A file of this copy (freed here), with right checksums. */
static int file_of(uint8_t *copy)
{
    int fd;

    rig_mend_state(copy, state_len);
    fd = rig_make_file(copy, state_len);
    free(copy);
    return fd;
}

/* A copy of the good memory, with its holes. */
static int copy_memory(void)
{
    static const uint8_t zeros[PAGE];
    size_t len;
    uint8_t *bytes = rig_read_file(good.memory, &len);
    int fd = rig_make_file("", 0);

    if (!bytes || ftruncate(fd, (off_t)len) != 0)
        io_close(&fd);
    for (size_t at = 0; bytes && fd >= 0 && at < len; at += PAGE)
        if (memcmp(bytes + at, zeros, PAGE) != 0 &&
            io_pwrite_full(fd, bytes + at, PAGE, at) != 0)
            io_close(&fd);
    free(bytes);
    return fd;
}

/* ---- the proof ---- */

static bool proof_holds(struct machine_rig *rig)
{
    struct vm_config config;

    config_from(&config, dup(good.state), dup(good.memory));
    return rig_build(rig, &config) && rig_proof_holds(rig, &good) &&
           rig_stop(rig);
}

/*
 * A state of a host whose KVM has no TSC deadline: with a PIT, which the
 * machine then gets although this host's would not.
 */
static int state_with_pit(uint32_t flags)
{
    enum { CHANNEL = 16, FIELDS = 3 * CHANNEL + 4, GROUP = 8 + FIELDS };
    size_t vm = find_section(state, STATE_TAG_VM, 0);
    uint32_t vm_len = num_get_le32(state + vm + 8);
    size_t clock = vm + 16 + vm_len - 16; /* the last group, of 8 bytes */
    uint8_t *copy = calloc(1, state_len + GROUP), *pit = copy + clock;
    int fd;

    memcpy(copy, state, clock);
    memcpy(copy + clock + GROUP, state + clock, state_len - clock);
    memcpy(pit, "pit2", 4);
    num_put_le32(pit + 4, FIELDS);
    for (unsigned i = 0; i < 3; i++) {
        num_put_le32(pit + 8 + i * CHANNEL, 0x1234 + i); /* count */
        pit[8 + i * CHANNEL + 12] = 3;                   /* both bytes */
        /* Not one that starts a timer: its interrupts would change the rest. */
        pit[8 + i * CHANNEL + 13] = i == 2 ? 3 : 5; /* mode */
        pit[8 + i * CHANNEL + 15] = 1;              /* gate */
    }
    num_put_le32(pit + 8 + 3 * CHANNEL, flags);
    num_put_le32(copy + vm + 8, vm_len + GROUP);
    rig_mend_state(copy, state_len + GROUP);
    fd = rig_make_file(copy, state_len + GROUP);
    free(copy);
    return fd;
}

static bool with_a_pit(struct machine_rig *rig)
{
    struct rig_files f = {.state = state_with_pit(0), .memory = good.memory};
    struct vm_config config;
    bool ok;

    config_from(&config, dup(f.state), dup(good.memory));
    ok = rig_build(rig, &config) && rig_proof_holds(rig, &f) &&
         rig_start(rig) && rig_hear(rig, '.', 1) && rig_stop(rig);
    io_close(&f.state);
    return ok;
}

static bool register_changed(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();

    find_group(copy, "regs")[3 * 8] ^= 1; /* RDX */
    return is_found_out(rig, file_of(copy), dup(good.memory),
                        "section cpu 0, group regs differs at byte 24");
}

static bool msr_changed(struct machine_rig *rig)
{
    uint8_t *copy = copy_state(), *msrs = find_group(copy, STATE_GROUP_MSRS);

    while (num_get_le32(msrs) != 0xc0000081u) /* STAR */
        msrs += 12;
    msrs[4] ^= 0x10;
    return is_found_out(rig, file_of(copy), dup(good.memory),
                        "section cpu 0, group msrs");
}

static bool interrupt_line_changed(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();

    copy[find_section(copy, STATE_TAG_VM, 0) + 16 + 2 * (8 + 16) + 8 + 20] ^=
        0x40; /* a redirection entry of the I/O APIC */
    return is_found_out(rig, file_of(copy), dup(good.memory),
                        "section vm 0, group ioap");
}

/* The device in slot 0 has taken and returned one request more. */
static bool queue_index_changed(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();
    uint8_t *queue = copy + find_section(copy, STATE_TAG_SLOT, 0) + 16;

    while (memcmp(queue, "que0", 4) != 0)
        queue += 8 + num_get_le32(queue + 4);
    for (unsigned at = 29; at <= 33; at += 2) /* taken, seen, returned */
        num_put_le16(queue + 8 + at,
                     (uint16_t)(num_get_le16(queue + 8 + at) + 1));
    return is_found_out(rig, file_of(copy), dup(good.memory),
                        "section slot 0, group que0 differs at byte 29");
}

static bool memory_byte_changed(struct machine_rig *rig)
{
    int memory = copy_memory();
    uint8_t byte;

    /* In the ring of the guest's queue. */
    if (pread(memory, &byte, 1, 0x21002) != 1)
        return false;
    byte ^= 1;
    if (pwrite(memory, &byte, 1, 0x21002) != 1)
        return false;
    return is_found_out(rig, dup(good.state), memory, "chunk 0 differs");
}

static bool untouched_page_changed(struct machine_rig *rig)
{
    int memory = copy_memory();

    if (pwrite(memory, "x", 1, (off_t)(MEMORY_MIB * MIB - 1)) != 1)
        return false;
    return is_found_out(rig, dup(good.state), memory, "chunk 31 differs");
}

/* The first private writable mapping of the memory file in that process. */
static off_t find_mapping(pid_t pid)
{
    unsigned long long start = 0, end;
    char path[64], line[512], flags[8];
    FILE *maps;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    maps = fopen(path, "re");
    while (maps && fgets(line, sizeof(line), maps)) {
        if (strstr(line, "memfd:file") &&
            sscanf(line, "%llx-%llx %7s", &start, &end, flags) == 3 &&
            strcmp(flags, "rw-p") == 0)
            break;
        start = 0;
    }
    if (maps)
        fclose(maps);
    return (off_t)start;
}

/*
 * The guest's mapping differs from the file beneath: a proof that looked at the
 * file would hold.
 */
static bool mapping_changed(struct machine_rig *rig)
{
    struct vm_config config;
    char path[64];
    off_t at;
    bool ok;
    int fd;

    config_from(&config, dup(good.state), dup(good.memory));
    if (!rig_build(rig, &config))
        return false;
    at = find_mapping(rig->vmm.pid);
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)rig->vmm.pid);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (at == 0 || fd < 0 || pwrite(fd, "y", 1, at + 0x500000) != 1) {
        snprintf(rig->why, sizeof(rig->why), "skip");
        close(fd);
        return false;
    }
    close(fd);
    ok = !rig_proof_holds(rig, &good) && strstr(rig->why, "chunk 5 differs");
    if (ok)
        rig->why[0] = '\0';
    return ok;
}

/* ---- refusals ---- */

static bool refuse_files(struct machine_rig *rig, int state_fd, int memory_fd,
                         const char *text)
{
    struct vm_config config;

    config_from(&config, state_fd, memory_fd);
    return rig_refused(rig, &config, MONITOR_ERROR_STATE, text);
}

static bool state_empty(struct machine_rig *rig)
{
    return refuse_files(rig, rig_make_file("", 0), dup(good.memory),
                        "it is empty");
}

static bool state_cut(struct machine_rig *rig)
{
    return refuse_files(rig, rig_make_file(state, state_len - 1),
                        dup(good.memory), "is longer than the file");
}

static bool state_is_no_file(struct machine_rig *rig)
{
    return refuse_files(rig, open("/dev/null", O_RDONLY | O_CLOEXEC),
                        dup(good.memory), "no file");
}

static bool state_checksum(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();
    int fd;

    copy[find_section(copy, STATE_TAG_SERIAL, 0) + 17] ^= 1;
    fd = rig_make_file(copy, state_len);
    free(copy);
    return refuse_files(rig, fd, dup(good.memory), "its checksum is wrong");
}

static bool memory_short(struct machine_rig *rig)
{
    int memory = copy_memory();

    return ftruncate(memory, (off_t)(MEMORY_MIB * MIB - PAGE)) == 0 &&
           refuse_files(rig, dup(good.state), memory, "not as long");
}

static bool memory_long(struct machine_rig *rig)
{
    int memory = copy_memory();

    return ftruncate(memory, (off_t)(MEMORY_MIB * MIB + PAGE)) == 0 &&
           refuse_files(rig, dup(good.state), memory, "not as long");
}

static bool more_cpus(struct machine_rig *rig)
{
    struct vm_config config;

    config_from(&config, dup(good.state), dup(good.memory));
    config.cpu_count = 2;
    return rig_refused(rig, &config, MONITOR_ERROR_STATE,
                       "section seri 0 is where cpu 1 should be");
}

/* Of a machine with four, restored as one with one. */
static bool fewer_cpus(struct machine_rig *rig)
{
    struct vm_config config;
    struct rig_files f;
    bool ok;

    rig_files_open(&f, 0);
    rig_config(&config, 4, MEMORY_MIB);
    ok = rig_config_guest(&config, "tick") && rig_build(rig, &config) &&
         rig_start(rig) && rig_hear(rig, '.', 1) && rig_pause(rig) &&
         rig_save(rig, &f) && rig_stop(rig);
    rig_end(rig);
    config_from(&config, dup(f.state), dup(f.memory));
    ok = ok && rig_refused(rig, &config, MONITOR_ERROR_STATE,
                           "it has more than 1 CPUs");
    rig_files_close(&f);
    return ok;
}

static bool more_devices(struct machine_rig *rig)
{
    struct vm_config config;

    config_from(&config, dup(good.state), dup(good.memory));
    config.vsock = true;
    config.guest_cid = 3;
    return rig_refused(rig, &config, MONITOR_ERROR_STATE,
                       "section slot 0: it is not the state of this machine's");
}

/* Features that neither this host nor this monitor gives to a guest. */
static bool cpuid_offers(struct machine_rig *rig, uint32_t function, int reg,
                         uint32_t bit, const char *text)
{
    uint8_t *copy = copy_state(), *e = find_group(copy, "cpid");

    while (num_get_le32(e) != function)
        e += 28;
    e += 12 + 4 * reg;
    num_put_le32(e, num_get_le32(e) | bit);
    return refuse_files(rig, file_of(copy), dup(good.memory), text);
}

static bool cpuid_offers_vmx(struct machine_rig *rig)
{
    return cpuid_offers(rig, 1, 2, 1u << 5, "CPUID leaf 0x1");
}

static bool cpuid_offers_counters(struct machine_rig *rig)
{
    return cpuid_offers(rig, 0xa, 0, 2, "CPUID leaf 0xa");
}

static bool cpuid_is_another_vendors(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();

    find_group(copy, "cpid")[16] ^= 1;
    return refuse_files(rig, file_of(copy), dup(good.memory), "its CPU");
}

/* Asynchronous page faults: KVM would write into guest memory by itself. */
static bool cpuid_offers_page_faults(struct machine_rig *rig)
{
    return cpuid_offers(rig, 0x40000001, 0, 1u << 4, "CPUID leaf 0x40000001");
}

static bool rdrand_is_to_be_hidden(struct machine_rig *rig)
{
    struct vm_config config;
    bool offered = num_get_le32(find_group(state, "cpid") + 28 + 20) >> 30 & 1;

    config_from(&config, dup(good.state), dup(good.memory));
    config.hide_rdrand = true;
    if (!offered)
        return rig_build(rig, &config) && rig_stop(rig);
    return rig_refused(rig, &config, MONITOR_ERROR_STATE, "CPUID leaf 0x1");
}

/* An MSR that is no state of a guest: here the one by which those of SEV-ES
 * talk to their host. */
static bool msr_is_foreign(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();

    num_put_le32(find_group(copy, STATE_GROUP_MSRS) + 12, 0xc0010130u);
    return refuse_files(rig, file_of(copy), dup(good.memory),
                        "section cpu 0: MSR 0xc0010130 is not a machine's");
}

/* One that is left out would stay as a trial leaves it: no matter for a machine
 * that is used once, but none is put back that way. */
static bool msr_is_left_out(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();
    uint8_t *msrs = find_group(copy, STATE_GROUP_MSRS);
    struct vm_config config;
    char why[64];
    int fd;

    snprintf(why, sizeof(why), "it has no MSR 0x%x", num_get_le32(msrs + 12));
    memcpy(msrs + 12, msrs + 24, 12);
    fd = file_of(copy);
    config_from(&config, dup(fd), dup(good.memory));
    if (!rig_build(rig, &config) || !rig_stop(rig))
        return false;
    rig_end(rig);
    config_from(&config, fd, dup(good.memory));
    config.track_dirty = true;
    return rig_refused(rig, &config, MONITOR_ERROR_STATE, why);
}

/* ---- values that KVM would take, and this machine's guests have not ---- */

/* Offsets of one byte in the groups' fields, as vcpu_events.c lists them. */
enum { EVENT_FLAGS = 19, EVENT_SMM = 23, EVENT_SMI = 24, EVENT_TRIPLE = 27 };

static const struct {
    const char *group; /* of the CPU; of the VM if there is none such */
    size_t at;
    uint8_t value;
    const char *text;
} values[] = {
    {"evnt", EVENT_SMM, 1, "in system management mode"},
    {"evnt", EVENT_SMI, 1, "in system management mode"},
    {"evnt", EVENT_FLAGS, 0x05, "its events have flags 0x5"},
    {"evnt", EVENT_FLAGS, 0x1d, "its events have flags 0x1d"},
    {"evnt", EVENT_FLAGS, 0x2d, "its events have flags 0x2d"},
    {"mpst", 0, 9, "its CPU waits in a way that this machine has not (9)"},
    {"ioap", 3, 0xfd, "its I/O APIC lies at 0xfdc00000"},
};

static uint8_t *find_anywhere(uint8_t *bytes, const char *tag)
{
    uint8_t *at = memmem(bytes, state_len, tag, 4);

    return at ? at + 8 : NULL;
}

static bool values_refused(struct machine_rig *rig)
{
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        uint8_t *copy = copy_state();
        uint8_t *group = find_anywhere(copy, values[i].group);

        if (!group)
            return false;
        group[values[i].at] = values[i].value;
        if (!refuse_files(rig, file_of(copy), dup(good.memory), values[i].text))
            return false;
        rig_end(rig);
    }
    return true;
}

static bool pit_flags_refused(struct machine_rig *rig)
{
    return refuse_files(rig, state_with_pit(1), dup(good.memory),
                        "its PIT has flags 0x1");
}

/* A state where the MSR that is its last but one is another. */
static int state_with_msr(uint32_t index, uint64_t value)
{
    uint8_t *copy = copy_state(), *msrs = find_group(copy, STATE_GROUP_MSRS);
    uint8_t *entry = msrs + num_get_le32(msrs - 4) - 24;

    for (uint8_t *at = msrs; at < entry; at += 12)
        if (num_get_le32(at) == index)
            entry = at;
    num_put_le32(entry, index);
    num_put_le64(entry + 4, value);
    return file_of(copy);
}

static const struct {
    uint32_t index;
    uint64_t value;
    const char *text;
} msr_values[] = {
    {0x12, 0x200001, "no such paravirtualisation"},       /* old clock */
    {0x4b564d02, 0x200001, "no such paravirtualisation"}, /* page faults */
    {0x4b564d03, 0x200001, "no such paravirtualisation"}, /* steal time */
    {0x4b564d05, 0, "no such paravirtualisation"},        /* no polling */
    {0x4b564d06, 0x30, "no such paravirtualisation"},
    {0x4b564d08, 1, "no such paravirtualisation"}, /* migration control */
    {0x9e, 0x31000, "no system management mode"},
    {0x10a, 1ull << 59, "MSR 0x10a, bits 0x800000000000000"},
    {0xce, 1ull << 59, "MSR 0xce, bits 0x800000000000000"},
    {0x11, 0, "MSR 0x11 is not a machine's state"}, /* an order to write */
    {0x4b564d00, 0, "MSR 0x4b564d00 is not a machine's state"},
};

static bool msr_values_refused(struct machine_rig *rig)
{
    for (size_t i = 0; i < ARRAY_SIZE(msr_values); i++) {
        int fd = state_with_msr(msr_values[i].index, msr_values[i].value);

        if (!refuse_files(rig, fd, dup(good.memory), msr_values[i].text))
            return false;
        rig_end(rig);
    }
    return true;
}

/* Of machines of before, which had all of KVM's MSRs, unused: they are loaded,
 * proven and saved as ever. */
static bool unused_msrs_taken(struct machine_rig *rig)
{
    static const uint32_t unused[] = {0x12,       0x4b564d02, 0x4b564d03,
                                      0x4b564d05, 0x4b564d06, 0x4b564d07,
                                      0x4b564d08};

    for (size_t i = 0; i < ARRAY_SIZE(unused); i++) {
        struct rig_files f = {.memory = good.memory};
        struct vm_config config;
        bool ok;

        f.state = state_with_msr(unused[i], unused[i] == 0x4b564d05);
        config_from(&config, dup(f.state), dup(good.memory));
        ok = rig_build(rig, &config) && rig_proof_holds(rig, &f) &&
             rig_start(rig) && rig_hear(rig, '.', 1) && rig_stop(rig);
        io_close(&f.state);
        if (!ok)
            return false;
        rig_end(rig);
    }
    return true;
}

/* One that is on its way is part of the state: it comes, and only then. */
static bool triple_fault_kept(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();
    struct rig_files f = {.memory = good.memory};
    struct vm_config config;
    bool ok;

    find_group(copy, "evnt")[EVENT_TRIPLE] = 1;
    f.state = file_of(copy);
    config_from(&config, dup(f.state), dup(good.memory));
    if (!rig_build(rig, &config) &&
        strstr(rig->why, "of which this KVM knows nothing"))
        snprintf(rig->why, sizeof(rig->why), "skip");
    ok = rig->why[0] == '\0' && rig_proof_holds(rig, &f) && rig_start(rig) &&
         !rig_hear(rig, '.', 1000) &&
         rig->exit.reason == MONITOR_EXIT_TRIPLE_FAULT;
    if (ok)
        rig->why[0] = '\0';
    io_close(&f.state);
    return ok;
}

/* A second snapshot's section in the place of the first's. */
static bool section_moved(struct machine_rig *rig)
{
    uint8_t *copy = copy_state();

    memcpy(copy + find_section(copy, STATE_TAG_SERIAL, 0), "slot", 4);
    return refuse_files(rig, file_of(copy), dup(good.memory),
                        "section slot 0 is where seri 0 should be");
}

/* ---- every byte ---- */

/*
 * In this process, so that it takes seconds: a machine whose state is loaded
 * again and again, each time with one bit changed somewhere. A crash would end
 * the test; what loads is harmless to KVM, or KVM would have said so.
 */
static bool load_changed(struct machine *m, size_t at, unsigned *refused)
{
    struct monitor_error error;
    int ret;

    m->origin.bytes[at] ^= (uint8_t)(1u << (at * 7 % 8));
    rig_mend_state(m->origin.bytes, m->origin.len);
    error.text[0] = '\0';
    ret = machine_load_origin(m, VCPU_NEW, &error);
    memcpy(m->origin.bytes, state, state_len);
    if (ret == 0)
        return true;
    ++*refused;
    return error.text[0] != '\0';
}

static bool build_here(struct machine **ret_machine, char *why, size_t size)
{
    const struct vsock_dialer none = {0};
    struct monitor_error error;
    struct vm_config config;
    int ret;

    config_from(&config, dup(good.state), dup(good.memory));
    config.track_dirty = true; /* keeps the state's bytes */
    ret = machine_build(&config, none, ret_machine, &error);
    if (ret == 0)
        ret = machine_load(*ret_machine, &error);
    if (ret < 0)
        snprintf(why, size, "%s", error.text);
    return ret == 0;
}

/* One that is left of a trial is not the next one's. */
static bool triple_fault_undone(struct machine_rig *rig)
{
    struct kvm_vcpu_events events = {0};
    struct machine *m = NULL;
    struct monitor_error error;
    bool ok = build_here(&m, rig->why, sizeof(rig->why));
    int fd = ok ? m->vcpus[0].kvm.fd : -1;

    ok = ok && kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &events) == 0;
    if (ok && !(events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)) {
        snprintf(rig->why, sizeof(rig->why), "it cannot be seen");
        if (kvm_extension(m->vm_fd, KVM_CAP_X86_TRIPLE_FAULT_EVENT) == 0)
            snprintf(rig->why, sizeof(rig->why), "skip");
        ok = false;
    }
    events.triple_fault.pending = 1;
    ok = ok && kvm_ioctl(fd, KVM_SET_VCPU_EVENTS, &events) == 0 &&
         kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &events) == 0 &&
         events.triple_fault.pending &&
         machine_load_origin(m, VCPU_RAN, &error) == 0 &&
         kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &events) == 0;
    if (ok && events.triple_fault.pending) {
        snprintf(rig->why, sizeof(rig->why), "it is there");
        ok = false;
    }
    machine_free(m);
    return ok;
}

static bool every_byte(struct machine_rig *rig)
{
    struct machine *m = NULL;
    struct monitor_error error;
    unsigned refused = 0;
    bool ok = build_here(&m, rig->why, sizeof(rig->why));

    for (size_t at = 0; ok && at < state_len; at++) {
        ok = load_changed(m, at, &refused);
        if (!ok)
            snprintf(rig->why, sizeof(rig->why),
                     "byte %zu is refused without a reason", at);
    }
    /* None of that has spoiled the machine. */
    if (ok && machine_load_origin(m, VCPU_NEW, &error) < 0) {
        snprintf(rig->why, sizeof(rig->why), "%s", error.text);
        ok = false;
    }
    machine_free(m);
    if (ok && (refused < state_len / 8 || refused >= state_len)) {
        snprintf(rig->why, sizeof(rig->why), "%u of %zu refused", refused,
                 state_len);
        ok = false;
    }
    return ok;
}

static bool every_length(struct machine_rig *rig)
{
    char why[STATE_WHY_MAX + 1];
    struct state_file f;

    for (size_t len = 0; len < state_len; len++)
        if (state_file_open(&f, state, len, why) == 0) {
            snprintf(rig->why, sizeof(rig->why), "%zu bytes are enough", len);
            return false;
        }
    return true;
}

/* Bits changed anywhere, and the guest runs with it: the monitor ends well. */
static bool guests_run_changed(struct machine_rig *rig)
{
    unsigned ran = 0;

    srandom(1);
    for (unsigned i = 0; i < 150; i++) {
        uint8_t *copy = copy_state();
        size_t at = (size_t)random() % state_len;
        uint8_t bit = (uint8_t)(1u << random() % 8);
        struct vm_config config;
        bool built;

        copy[at] ^= bit;
        config_from(&config, file_of(copy), dup(good.memory));
        built = rig_build(rig, &config);
        if (built && rig_start(rig)) {
            usleep(10000);
            /* It stops, or has ended by itself, with a reason. */
            if (!rig_stop(rig) && rig->exit.reason == 0) {
                printf("# byte %zu, bit 0x%x\n", at, bit);
                return false;
            }
            ran++;
        } else if (rig->msg.type != MONITOR_ERROR && rig->exit.reason == 0) {
            /* no refusal, and no end */
            printf("# byte %zu, bit 0x%x\n", at, bit);
            return false;
        }
        rig_end(rig);
    }
    rig->why[0] = '\0';
    return ran > 10;
}

static const struct {
    const char *name;
    bool (*run)(struct machine_rig *rig);
} tests[] = {
    {"the proof holds", proof_holds},
    {"a PIT", with_a_pit},
    {"proof: a register", register_changed},
    {"proof: an MSR", msr_changed},
    {"proof: the I/O APIC", interrupt_line_changed},
    {"proof: a queue index", queue_index_changed},
    {"proof: a byte of memory", memory_byte_changed},
    {"proof: a page nobody touched", untouched_page_changed},
    {"proof: the mapping, not the file", mapping_changed},
    {"empty state", state_empty},
    {"state cut short", state_cut},
    {"state that is no file", state_is_no_file},
    {"checksum", state_checksum},
    {"memory too short", memory_short},
    {"memory too long", memory_long},
    {"more CPUs", more_cpus},
    {"fewer CPUs", fewer_cpus},
    {"more devices", more_devices},
    {"CPUID with VMX", cpuid_offers_vmx},
    {"CPUID of another vendor", cpuid_is_another_vendors},
    {"CPUID with performance counters", cpuid_offers_counters},
    {"CPUID with asynchronous page faults", cpuid_offers_page_faults},
    {"RDRAND to be hidden", rdrand_is_to_be_hidden},
    {"foreign MSR", msr_is_foreign},
    {"an MSR left out", msr_is_left_out},
    {"values that KVM takes", values_refused},
    {"flags of a PIT", pit_flags_refused},
    {"MSR values that KVM takes", msr_values_refused},
    {"MSRs that are not used", unused_msrs_taken},
    {"a triple fault on its way", triple_fault_kept},
    {"a triple fault rolled back", triple_fault_undone},
    {"section of another kind", section_moved},
    {"one bit of every byte", every_byte},
    {"every length", every_length},
    {"guests run with a changed bit", guests_run_changed},
};

int main(void)
{
    static struct machine_rig rig;
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    if (!make_snapshot(&rig)) {
        printf("not ok - bad state: no snapshot: %s\n", rig.why);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        bool ok;

        rig =
            (struct machine_rig){.vmm = {.pid = -1, .sock = -1}, .console = -1};
        ok = tests[i].run(&rig);
        if (!ok && strcmp(rig.why, "skip") == 0)
            printf("skip - bad state: %s: needs the right to write to another "
                   "process, or another KVM\n",
                   tests[i].name);
        else
            printf("%s - bad state: %s%s%s\n", ok ? "ok" : "not ok",
                   tests[i].name, ok ? "" : ": ", ok ? "" : rig.why);
        fflush(stdout);
        failed += !ok && strcmp(rig.why, "skip") != 0;
        rig_end(&rig);
    }
    return failed > 0;
}
