/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine of this host has, one fact a line, out of the state of one
 * that was saved here: how its state is made up, extended state, MSRs, CPUID.
 * For comparing hosts (scripts/check-host). Needs /dev/kvm, but no host that
 * runs Linux guests.
 *
 * Status 0; 1 and the reason on stderr; 77 without a usable /dev/kvm.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "tests/machine_rig.h"
#include "vmm/state_file.h"

#define STATUS_SKIPPED 77
#define MEMORY_MIB 32u
#define GROUP_HEADER 8u
#define MSR_ENTRY 12u
#define XCR_ENTRY 12u
#define CPUID_ENTRY 28u

/* A group of the first vCPU's section; NULL if there is none. */
struct group {
    char tag[5];
    const uint8_t *bytes;
    uint32_t len;
};

static bool next_group(struct state_reader *r, struct group *ret)
{
    const uint8_t *at = r->buf + r->used;

    if (r->size - r->used < GROUP_HEADER)
        return false;
    *ret =
        (struct group){.bytes = at + GROUP_HEADER, .len = num_get_le32(at + 4)};
    memcpy(ret->tag, at, 4);
    if (ret->len > r->size - r->used - GROUP_HEADER)
        return false;
    r->used += GROUP_HEADER + ret->len;
    return true;
}

static void print_msrs(const struct group *g)
{
    printf("msrs: %u:", g->len / MSR_ENTRY);
    for (uint32_t at = 0; at + MSR_ENTRY <= g->len; at += MSR_ENTRY)
        printf(" %x", num_get_le32(g->bytes + at));
    printf("\n");
}

static void print_xcrs(const struct group *g)
{
    if (g->len == 0)
        printf("xcr0: none, the guest has no XSAVE\n");
    for (uint32_t at = 0; at + XCR_ENTRY <= g->len; at += XCR_ENTRY)
        printf("xcr%u: 0x%" PRIx64 "\n", num_get_le32(g->bytes + at),
               num_get_le64(g->bytes + at + 4));
}

static void print_cpuid(const struct group *g)
{
    static const uint8_t nothing[16];

    for (uint32_t at = 0; at + CPUID_ENTRY <= g->len; at += CPUID_ENTRY) {
        const uint8_t *e = g->bytes + at;

        /* 3 is a processor's serial number, where it has one. */
        if (memcmp(e + 12, nothing, sizeof(nothing)) == 0 ||
            num_get_le32(e) == 3)
            continue;
        printf("cpuid: %x.%x %08x %08x %08x %08x\n", num_get_le32(e),
               num_get_le32(e + 4), num_get_le32(e + 12), num_get_le32(e + 16),
               num_get_le32(e + 20), num_get_le32(e + 24));
    }
}

static void print_cpu(struct state_reader r)
{
    struct state_reader again = r;
    struct group g;

    printf("groups:");
    while (next_group(&again, &g))
        printf(" %s %u", g.tag, g.len);
    printf("\n");
    while (next_group(&r, &g)) {
        if (strcmp(g.tag, "tsck") == 0 && g.len == 4)
            printf("tsc_khz: %u\n", num_get_le32(g.bytes));
        else if (strcmp(g.tag, "xsav") == 0)
            printf("xsave_bytes: %u\n", g.len);
        else if (strcmp(g.tag, "xcrs") == 0)
            print_xcrs(&g);
        else if (strcmp(g.tag, STATE_GROUP_MSRS) == 0)
            print_msrs(&g);
        else if (strcmp(g.tag, "cpid") == 0)
            print_cpuid(&g);
    }
}

static bool print_state(struct machine_rig *rig, int state_fd)
{
    size_t len = 0;
    uint8_t *state = rig_read_file(state_fd, &len);
    struct state_section s;
    struct state_file f;
    struct state_reader r;
    bool found = false;

    if (state && state_file_open(&f, state, len, rig->why) == 0)
        while (!found && state_file_next(&f, &s))
            found = strcmp(s.tag, STATE_TAG_CPU) == 0;
    if (found) {
        state_reader_init(&r, s.payload, s.len);
        print_cpu(r);
    }
    free(state);
    return found;
}

int main(void)
{
    static struct machine_rig rig = {.vmm = {.pid = -1, .sock = -1},
                                     .console = -1};
    struct vm_config config;
    struct rig_files files;
    bool ok;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    rig_files_open(&files, 0);
    rig_config(&config, 1, MEMORY_MIB);
    ok = rig_config_guest(&config, "tick") && rig_build(&rig, &config) &&
         rig_start(&rig) && rig_hear(&rig, '.', 1) && rig_pause(&rig) &&
         rig_save(&rig, &files) && print_state(&rig, files.state);
    if (!ok)
        fprintf(stderr, "vm_facts: %s\n", rig.why);
    rig_end(&rig);
    rig_files_close(&files);
    return ok ? 0 : 1;
}
