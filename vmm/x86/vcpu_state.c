/* SPDX-License-Identifier: Apache-2.0 */
/* The registers of one vCPU; see the header. */
#include "vmm/x86/vcpu_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/state_field.h"
#include "vmm/kvm.h"
#include "vmm/segments.h"
#include "vmm/state_file.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/vcpu_events.h"

/* Frequencies this close are one (KVM's own measure): parts per million. */
#define TSC_TOLERANCE_PPM 250u

/* In-service registers of the LAPIC's page. */
#define LAPIC_ISR 0x100u
#define LAPIC_ISR_END 0x180u

/* A save or load in progress. */
struct context {
    const struct vcpu_place *vcpu;
    struct vcpu_shape *shape;
    char *why; /* a clause of STATE_WHY_MAX, once something failed */
};

static int fail(const struct context *c, int error, const char *what)
{
    snprintf(c->why, STATE_WHY_MAX + 1, "%s: %s", what, strerror(-error));
    return error;
}

/* ---- registers that KVM hands out as one struct ---- */

static const struct state_field regs_fields[] = {
    STATE_FIELD(struct kvm_regs, rax), STATE_FIELD(struct kvm_regs, rbx),
    STATE_FIELD(struct kvm_regs, rcx), STATE_FIELD(struct kvm_regs, rdx),
    STATE_FIELD(struct kvm_regs, rsi), STATE_FIELD(struct kvm_regs, rdi),
    STATE_FIELD(struct kvm_regs, rsp), STATE_FIELD(struct kvm_regs, rbp),
    STATE_FIELD(struct kvm_regs, r8),  STATE_FIELD(struct kvm_regs, r9),
    STATE_FIELD(struct kvm_regs, r10), STATE_FIELD(struct kvm_regs, r11),
    STATE_FIELD(struct kvm_regs, r12), STATE_FIELD(struct kvm_regs, r13),
    STATE_FIELD(struct kvm_regs, r14), STATE_FIELD(struct kvm_regs, r15),
    STATE_FIELD(struct kvm_regs, rip), STATE_FIELD(struct kvm_regs, rflags),
};

#define SEGMENT_FIELDS(name)                                                   \
    STATE_FIELD(struct kvm_sregs, name.base),                                  \
        STATE_FIELD(struct kvm_sregs, name.limit),                             \
        STATE_FIELD(struct kvm_sregs, name.selector),                          \
        STATE_FIELD(struct kvm_sregs, name.type),                              \
        STATE_FIELD(struct kvm_sregs, name.present),                           \
        STATE_FIELD(struct kvm_sregs, name.dpl),                               \
        STATE_FIELD(struct kvm_sregs, name.db),                                \
        STATE_FIELD(struct kvm_sregs, name.s),                                 \
        STATE_FIELD(struct kvm_sregs, name.l),                                 \
        STATE_FIELD(struct kvm_sregs, name.g),                                 \
        STATE_FIELD(struct kvm_sregs, name.avl),                               \
        STATE_FIELD(struct kvm_sregs, name.unusable)

static const struct state_field sregs_fields[] = {
    SEGMENT_FIELDS(cs),
    SEGMENT_FIELDS(ds),
    SEGMENT_FIELDS(es),
    SEGMENT_FIELDS(fs),
    SEGMENT_FIELDS(gs),
    SEGMENT_FIELDS(ss),
    SEGMENT_FIELDS(tr),
    SEGMENT_FIELDS(ldt),
    STATE_FIELD(struct kvm_sregs, gdt.base),
    STATE_FIELD(struct kvm_sregs, gdt.limit),
    STATE_FIELD(struct kvm_sregs, idt.base),
    STATE_FIELD(struct kvm_sregs, idt.limit),
    STATE_FIELD(struct kvm_sregs, cr0),
    STATE_FIELD(struct kvm_sregs, cr2),
    STATE_FIELD(struct kvm_sregs, cr3),
    STATE_FIELD(struct kvm_sregs, cr4),
    STATE_FIELD(struct kvm_sregs, cr8),
    STATE_FIELD(struct kvm_sregs, efer),
    STATE_FIELD(struct kvm_sregs, apic_base),
    STATE_FIELD_ARRAY(struct kvm_sregs, interrupt_bitmap),
};

static const struct state_field debugregs_fields[] = {
    STATE_FIELD_ARRAY(struct kvm_debugregs, db),
    STATE_FIELD(struct kvm_debugregs, dr6),
    STATE_FIELD(struct kvm_debugregs, dr7),
};

static const struct state_field lapic_fields[] = {
    STATE_FIELD_ARRAY(struct kvm_lapic_state, regs),
};

/* ---- what is more than a struct ---- */

static bool is_same_frequency(uint32_t a, uint32_t b)
{
    uint64_t distance = a > b ? a - b : b - a;

    return distance * 1000000u <= (uint64_t)a * TSC_TOLERANCE_PPM;
}

static int save_tsc_khz(const struct context *c, struct state_writer *w)
{
    int khz = kvm_ioctl_value(c->vcpu->vcpu_fd, KVM_GET_TSC_KHZ, 0);

    if (khz < 0)
        return fail(c, khz, "KVM_GET_TSC_KHZ");
    /* A machine keeps its own number for what is the same frequency. */
    if (c->shape->tsc_khz &&
        is_same_frequency(c->shape->tsc_khz, (uint32_t)khz))
        khz = (int)c->shape->tsc_khz;
    state_put_u32(w, (uint32_t)khz);
    return 0;
}

static int load_tsc_khz(const struct context *c, struct state_reader *r)
{
    uint32_t wanted = state_get_u32(r);
    int khz = kvm_ioctl_value(c->vcpu->vcpu_fd, KVM_GET_TSC_KHZ, 0);
    int ret = 0;

    if (r->error != 0)
        return 0; /* the caller looks */
    if (khz < 0)
        return fail(c, khz, "KVM_GET_TSC_KHZ");
    if (wanted == 0 || !is_same_frequency(wanted, (uint32_t)khz))
        ret = kvm_ioctl_value(c->vcpu->vcpu_fd, KVM_SET_TSC_KHZ, wanted);
    if (ret < 0) {
        snprintf(c->why, STATE_WHY_MAX + 1,
                 "its time stamp counter runs at %u kHz, this host's at %d "
                 "kHz, which KVM cannot change",
                 wanted, khz);
        return -EOPNOTSUPP;
    }
    c->shape->tsc_khz = wanted;
    return 0;
}

static const struct state_field cpuid_fields[] = {
    STATE_FIELD(struct kvm_cpuid_entry2, function),
    STATE_FIELD(struct kvm_cpuid_entry2, index),
    STATE_FIELD(struct kvm_cpuid_entry2, flags),
    STATE_FIELD(struct kvm_cpuid_entry2, eax),
    STATE_FIELD(struct kvm_cpuid_entry2, ebx),
    STATE_FIELD(struct kvm_cpuid_entry2, ecx),
    STATE_FIELD(struct kvm_cpuid_entry2, edx),
};

static int save_cpuid(const struct context *c, struct state_writer *w)
{
    struct kvm_cpuid2 *cpuid = c->shape->cpuid;

    cpuid_set_vcpu(cpuid, c->vcpu->id);
    for (uint32_t i = 0; i < cpuid->nent; i++)
        state_put_fields(w, &cpuid->entries[i], cpuid_fields,
                         ARRAY_SIZE(cpuid_fields));
    c->shape->xcrs = cpuid_offers_xsave(cpuid);
    return 0;
}

/* All of *r is a table: 0, -EBADMSG or -ENOMEM. */
static int read_cpuid(struct state_reader *r, struct kvm_cpuid2 **ret_cpuid)
{
    struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) +
                      CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));

    if (!cpuid)
        return -ENOMEM;
    while (r->error == 0 && r->used < r->size &&
           cpuid->nent < CPUID_ENTRIES_MAX)
        state_get_fields(r, &cpuid->entries[cpuid->nent++], cpuid_fields,
                         ARRAY_SIZE(cpuid_fields));
    if (cpuid->nent == 0 || state_reader_finish(r) < 0) {
        free(cpuid);
        return -EBADMSG;
    }
    *ret_cpuid = cpuid;
    return 0;
}

/* The machine's table was taken from vCPU 0's state: all are the same. */
static int load_cpuid(const struct context *c, struct state_reader *r)
{
    struct kvm_cpuid2 *cpuid = c->shape->cpuid;
    int ret;

    cpuid_set_vcpu(cpuid, c->vcpu->id);
    for (uint32_t i = 0; r->error == 0 && i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 e = {0};

        state_get_fields(r, &e, cpuid_fields, ARRAY_SIZE(cpuid_fields));
        if (memcmp(&e, &cpuid->entries[i], sizeof(e)) != 0)
            r->error = -EBADMSG;
    }
    if (state_reader_finish(r) < 0) {
        snprintf(c->why, STATE_WHY_MAX + 1,
                 "its CPUID table is not that of the machine's vCPU %u",
                 c->vcpu->id);
        return -EBADMSG;
    }
    ret = kvm_ioctl(c->vcpu->vcpu_fd, KVM_SET_CPUID2, cpuid);
    if (ret < 0)
        return fail(c, ret, "KVM_SET_CPUID2");
    c->shape->xcrs = cpuid_offers_xsave(cpuid);
    return 0;
}

/* The size of KVM's area, which only grows beyond struct kvm_xsave for what
 * guests are not offered. */
static uint32_t xsave_size(const struct context *c)
{
    int size = kvm_extension(c->vcpu->vm_fd, KVM_CAP_XSAVE2);

    return size > (int)sizeof(struct kvm_xsave)
               ? (uint32_t)size
               : (uint32_t)sizeof(struct kvm_xsave);
}

static int save_xsave(const struct context *c, struct state_writer *w)
{
    bool sized = kvm_extension(c->vcpu->vm_fd, KVM_CAP_XSAVE2) > 0;
    uint8_t *area;
    int ret;

    if (c->shape->xsave_size == 0)
        c->shape->xsave_size = xsave_size(c);
    area = calloc(1, c->shape->xsave_size);
    if (!area)
        return fail(c, -ENOMEM, "KVM_GET_XSAVE");
    ret = kvm_ioctl(c->vcpu->vcpu_fd, sized ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
                    area);
    if (ret < 0)
        fail(c, ret, "KVM_GET_XSAVE");
    else
        state_put_bytes(w, area, c->shape->xsave_size);
    free(area);
    return ret;
}

static int load_xsave(const struct context *c, struct state_reader *r)
{
    _Alignas(64) uint8_t area[sizeof(struct kvm_xsave)];
    int ret;

    if (c->shape->xsave_size == 0)
        c->shape->xsave_size = xsave_size(c);
    if (r->size != c->shape->xsave_size || r->size > sizeof(area)) {
        snprintf(c->why, STATE_WHY_MAX + 1,
                 "its XSAVE area has %zu bytes, this KVM's %u", r->size,
                 c->shape->xsave_size);
        return -EOPNOTSUPP;
    }
    state_get_bytes(r, area, sizeof(area));
    ret = kvm_ioctl(c->vcpu->vcpu_fd, KVM_SET_XSAVE, area);
    return ret < 0 ? fail(c, ret, "KVM_SET_XSAVE") : 0;
}

static int save_xcrs(const struct context *c, struct state_writer *w)
{
    struct kvm_xcrs xcrs = {0};
    int ret;

    if (!c->shape->xcrs)
        return 0;
    ret = kvm_ioctl(c->vcpu->vcpu_fd, KVM_GET_XCRS, &xcrs);
    if (ret < 0)
        return fail(c, ret, "KVM_GET_XCRS");
    for (uint32_t i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++) {
        state_put_u32(w, xcrs.xcrs[i].xcr);
        state_put_u64(w, xcrs.xcrs[i].value);
    }
    return 0;
}

static int load_xcrs(const struct context *c, struct state_reader *r)
{
    struct kvm_xcrs xcrs = {0};
    int ret;

    while (r->error == 0 && r->used < r->size && xcrs.nr_xcrs < KVM_MAX_XCRS) {
        xcrs.xcrs[xcrs.nr_xcrs].xcr = state_get_u32(r);
        xcrs.xcrs[xcrs.nr_xcrs++].value = state_get_u64(r);
    }
    /* XCR0 is the only one there is; a state without it would leave it. */
    if (r->error != 0 || xcrs.nr_xcrs != c->shape->xcrs ||
        xcrs.xcrs[0].xcr != 0) {
        snprintf(c->why, STATE_WHY_MAX + 1,
                 "its extended control registers do not fit its CPUID");
        return -EBADMSG;
    }
    if (xcrs.nr_xcrs == 0)
        return 0;
    ret = kvm_ioctl(c->vcpu->vcpu_fd, KVM_SET_XCRS, &xcrs);
    return ret < 0 ? fail(c, ret, "KVM_SET_XCRS") : 0;
}

/*
 * KVM computes the processor priority of a LAPIC that is loaded before it
 * counts the interrupts in service, so from those it had before: loaded twice
 * it is right. (It would be the next time it is looked at, too; but the state
 * is to be the same.)
 */
static int set_lapic(const struct context *c, struct kvm_lapic_state *lapic)
{
    bool in_service = false;
    int ret = kvm_ioctl(c->vcpu->vcpu_fd, KVM_SET_LAPIC, lapic);

    for (unsigned at = LAPIC_ISR; at < LAPIC_ISR_END; at++)
        in_service |= lapic->regs[at] != 0;
    if (ret == 0 && in_service)
        ret = kvm_ioctl(c->vcpu->vcpu_fd, KVM_SET_LAPIC, lapic);
    return ret;
}

static int load_lapic(const struct context *c, struct state_reader *r)
{
    struct kvm_lapic_state lapic;
    int ret;

    state_get_fields(r, &lapic, lapic_fields, ARRAY_SIZE(lapic_fields));
    if (state_reader_finish(r) < 0)
        return -EBADMSG;
    ret = set_lapic(c, &lapic);
    return ret < 0 ? fail(c, ret, "KVM_SET_LAPIC") : 0;
}

static int save_lapic(const struct context *c, struct state_writer *w)
{
    struct kvm_lapic_state lapic;
    int ret = kvm_ioctl(c->vcpu->vcpu_fd, KVM_GET_LAPIC, &lapic);

    if (ret < 0)
        return fail(c, ret, "KVM_GET_LAPIC");
    state_put_fields(w, &lapic, lapic_fields, ARRAY_SIZE(lapic_fields));
    return 0;
}

static int save_msrs(const struct context *c, struct state_writer *w)
{
    int ret = 0;

    if (c->shape->msrs.count == 0)
        ret = msr_list_probe(c->vcpu->vcpu_fd, &c->shape->msrs);
    if (ret == 0)
        ret = msr_state_save(c->vcpu->vcpu_fd, &c->shape->msrs, w);
    return ret < 0 ? fail(c, ret, "KVM_GET_MSRS") : 0;
}

static int save_mp_state(const struct context *c, struct state_writer *w)
{
    return vcpu_mp_state_save(c->vcpu, w, c->why);
}

static int load_mp_state(const struct context *c, struct state_reader *r)
{
    return vcpu_mp_state_load(c->vcpu, r, c->why);
}

static int save_events(const struct context *c, struct state_writer *w)
{
    return vcpu_events_save(c->vcpu, w, c->why);
}

static int load_events(const struct context *c, struct state_reader *r)
{
    return vcpu_events_load(c->vcpu, r, c->why);
}

static int load_msrs(const struct context *c, struct state_reader *r)
{
    return msr_state_load(c->vcpu->vcpu_fd, &c->shape->msrs, r, c->why);
}

/* ---- the table ---- */

/*
 * In the order of loading: MP_STATE takes INIT and SIPI along, which may change
 * the LAPIC; REGS clears pending exceptions; SREGS says where the LAPIC is;
 * LAPIC before the MSRs, whose TSC deadline needs it; events last. Saving in
 * this order is right, too.
 */
struct step {
    const char *tag;
    bool once; /* only into a new vCPU */
    /* either a struct, by its fields and two ioctls ... */
    unsigned long get, set;
    const struct state_field *fields;
    size_t field_count;
    const char *name;
    void (*settle)(uint8_t *bytes, size_t len); /* what was saved; or NULL */
    /* ... or these */
    int (*save)(const struct context *c, struct state_writer *w);
    int (*load)(const struct context *c, struct state_reader *r);
};

#define STRUCT_STEP(tag, get, set, fields, name)                               \
    {                                                                          \
        tag, false, get, set, fields, ARRAY_SIZE(fields), name, NULL, NULL,    \
            NULL                                                               \
    }
#define OWN_STEP(tag, once, save, load)                                        \
    {                                                                          \
        tag, once, 0, 0, NULL, 0, NULL, NULL, save, load                       \
    }

#define GROUP_CPUID "cpid"

static const struct step steps[] = {
    OWN_STEP("tsck", true, save_tsc_khz, load_tsc_khz),
    OWN_STEP(GROUP_CPUID, true, save_cpuid, load_cpuid),
    OWN_STEP("mpst", false, save_mp_state, load_mp_state),
    STRUCT_STEP("regs", KVM_GET_REGS, KVM_SET_REGS, regs_fields, "REGS"),
    {STATE_GROUP_SREGS, false, KVM_GET_SREGS, KVM_SET_SREGS, sregs_fields,
     ARRAY_SIZE(sregs_fields), "SREGS", segments_settle, NULL, NULL},
    OWN_STEP("xsav", false, save_xsave, load_xsave),
    OWN_STEP("xcrs", false, save_xcrs, load_xcrs),
    STRUCT_STEP("dbgr", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, debugregs_fields,
                "DEBUGREGS"),
    OWN_STEP(STATE_GROUP_LAPIC, false, save_lapic, load_lapic),
    OWN_STEP(STATE_GROUP_MSRS, false, save_msrs, load_msrs),
    OWN_STEP("evnt", false, save_events, load_events),
};

/* Any of the structs. */
union registers {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debugregs;
};

/* The name of the ioctl that failed. */
static int fail_step(const struct context *c, int error, const char *direction,
                     const char *name)
{
    char what[32];

    snprintf(what, sizeof(what), "KVM_%s_%s", direction, name);
    return fail(c, error, what);
}

static int save_step(const struct context *c, const struct step *s,
                     struct state_writer *w)
{
    union registers regs = {0};
    size_t begun = state_group_begin(w, s->tag), at = w->used;
    int ret;

    if (s->save) {
        ret = s->save(c, w);
    } else {
        ret = kvm_ioctl(c->vcpu->vcpu_fd, s->get, &regs);
        if (ret < 0)
            fail_step(c, ret, "GET", s->name);
        else
            state_put_fields(w, &regs, s->fields, s->field_count);
        if (s->settle && w->error == 0)
            s->settle(w->buf + at, w->used - at);
    }
    state_group_end(w, begun);
    return ret < 0 ? ret : 0;
}

void vcpu_shape_fini(struct vcpu_shape *shape)
{
    free(shape->cpuid);
    *shape = (struct vcpu_shape){0};
}

int vcpu_state_save(const struct vcpu_place *vcpu, struct vcpu_shape *shape,
                    struct state_writer *w, char ret_why[STATE_WHY_MAX + 1])
{
    const struct context c = {vcpu, shape, ret_why};
    struct kvm_vcpu_events events;
    /* Asked for its events KVM puts a pending page fault's address into CR2
     * and a debug exception's bits into DR6: before those are read. */
    int ret = kvm_ioctl(vcpu->vcpu_fd, KVM_GET_VCPU_EVENTS, &events);

    if (ret < 0)
        return fail_step(&c, ret, "GET", "VCPU_EVENTS");
    for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(steps); i++)
        ret = save_step(&c, &steps[i], w);
    return ret;
}

static int load_step(const struct context *c, const struct step *s,
                     struct state_reader *r, bool skip)
{
    struct state_reader group = state_get_group(r, s->tag);
    union registers regs = {0};
    int ret = 0;

    if (skip)
        return group.error;
    if (s->load) {
        ret = group.error ? group.error : s->load(c, &group);
    } else {
        state_get_fields(&group, &regs, s->fields, s->field_count);
        if (state_reader_finish(&group) == 0)
            ret = kvm_ioctl(c->vcpu->vcpu_fd, s->set, &regs);
        if (ret < 0)
            fail_step(c, ret, "SET", s->name);
    }
    return ret < 0 ? ret : state_reader_finish(&group);
}

int vcpu_state_load(const struct vcpu_place *vcpu, enum vcpu_age age,
                    struct vcpu_shape *shape, struct state_reader *r,
                    char ret_why[STATE_WHY_MAX + 1])
{
    const struct context c = {vcpu, shape, ret_why};
    struct kvm_mp_state mp_state;
    int ret = 0;

    ret_why[0] = '\0';
    /* An INIT or SIPI on its way to a vCPU that ran arrives now or never. */
    if (age == VCPU_RAN) {
        (void)kvm_ioctl(vcpu->vcpu_fd, KVM_GET_MP_STATE, &mp_state);
        ret = msr_state_clear_deadline(vcpu->vcpu_fd);
        if (ret < 0)
            return fail(&c, ret, "KVM_SET_MSRS");
    }
    for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(steps); i++) {
        ret = load_step(&c, &steps[i], r, age == VCPU_RAN && steps[i].once);
        if (ret < 0 && !ret_why[0])
            snprintf(ret_why, STATE_WHY_MAX + 1, "its group %s is malformed",
                     steps[i].tag);
    }
    if (ret == 0 && state_reader_finish(r) < 0) {
        snprintf(ret_why, STATE_WHY_MAX + 1, "bytes are left over");
        ret = -EBADMSG;
    }
    return ret;
}

int vcpu_state_cpuid(struct state_reader r, struct kvm_cpuid2 **ret_cpuid)
{
    struct state_reader group = {.error = -EBADMSG};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        group = state_get_group(&r, steps[i].tag);
        if (strcmp(steps[i].tag, GROUP_CPUID) == 0)
            break;
    }
    return group.error ? group.error : read_cpuid(&group, ret_cpuid);
}
