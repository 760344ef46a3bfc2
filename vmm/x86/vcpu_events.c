/* SPDX-License-Identifier: Apache-2.0 */
/* MP_STATE and VCPU_EVENTS; see the header. */
#include "vmm/x86/vcpu_events.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/state_field.h"
#include "vmm/kvm.h"
#include "vmm/x86/vcpu_state.h"

static int fail(char why[STATE_WHY_MAX + 1], int error, const char *what)
{
    snprintf(why, STATE_WHY_MAX + 1, "%s: %s", what, strerror(-error));
    return error;
}

/* ---- waiting ---- */

static const struct state_field mp_state_fields[] = {
    STATE_FIELD(struct kvm_mp_state, mp_state),
};

static int check_mp_state(const struct kvm_mp_state *mp_state,
                          char why[STATE_WHY_MAX + 1])
{
    switch (mp_state->mp_state) {
    case KVM_MP_STATE_RUNNABLE:
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
    case KVM_MP_STATE_HALTED:
    case KVM_MP_STATE_SIPI_RECEIVED:
        return 0;
    default:
        snprintf(why, STATE_WHY_MAX + 1,
                 "its CPU waits in a way that this machine has not (%u)",
                 mp_state->mp_state);
        return -EBADMSG;
    }
}

int vcpu_mp_state_save(const struct vcpu_place *vcpu, struct state_writer *w,
                       char ret_why[STATE_WHY_MAX + 1])
{
    struct kvm_mp_state mp_state;
    int ret = kvm_ioctl(vcpu->vcpu_fd, KVM_GET_MP_STATE, &mp_state);

    if (ret < 0)
        return fail(ret_why, ret, "KVM_GET_MP_STATE");
    state_put_fields(w, &mp_state, mp_state_fields,
                     ARRAY_SIZE(mp_state_fields));
    return check_mp_state(&mp_state, ret_why);
}

int vcpu_mp_state_load(const struct vcpu_place *vcpu, struct state_reader *r,
                       char ret_why[STATE_WHY_MAX + 1])
{
    struct kvm_mp_state mp_state = {0};
    int ret;

    state_get_fields(r, &mp_state, mp_state_fields,
                     ARRAY_SIZE(mp_state_fields));
    ret = state_reader_finish(r);
    if (ret == 0)
        ret = check_mp_state(&mp_state, ret_why);
    if (ret < 0)
        return ret;
    ret = kvm_ioctl(vcpu->vcpu_fd, KVM_SET_MP_STATE, &mp_state);
    return ret < 0 ? fail(ret_why, ret, "KVM_SET_MP_STATE") : 0;
}

/* ---- on its way ---- */

/* Which events are there: the same in every state. That of a triple fault is
 * not one of these: whether KVM has it is this host's matter. */
#define FLAGS                                                                  \
    (KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |            \
     KVM_VCPUEVENT_VALID_SMM)

static const struct state_field events_fields[] = {
    STATE_FIELD(struct kvm_vcpu_events, exception.injected),
    STATE_FIELD(struct kvm_vcpu_events, exception.nr),
    STATE_FIELD(struct kvm_vcpu_events, exception.has_error_code),
    STATE_FIELD(struct kvm_vcpu_events, exception.pending),
    STATE_FIELD(struct kvm_vcpu_events, exception.error_code),
    STATE_FIELD(struct kvm_vcpu_events, interrupt.injected),
    STATE_FIELD(struct kvm_vcpu_events, interrupt.nr),
    STATE_FIELD(struct kvm_vcpu_events, interrupt.soft),
    STATE_FIELD(struct kvm_vcpu_events, interrupt.shadow),
    STATE_FIELD(struct kvm_vcpu_events, nmi.injected),
    STATE_FIELD(struct kvm_vcpu_events, nmi.pending),
    STATE_FIELD(struct kvm_vcpu_events, nmi.masked),
    STATE_FIELD(struct kvm_vcpu_events, sipi_vector),
    STATE_FIELD(struct kvm_vcpu_events, flags),
    STATE_FIELD(struct kvm_vcpu_events, smi.smm),
    STATE_FIELD(struct kvm_vcpu_events, smi.pending),
    STATE_FIELD(struct kvm_vcpu_events, smi.smm_inside_nmi),
    STATE_FIELD(struct kvm_vcpu_events, smi.latched_init),
    STATE_FIELD(struct kvm_vcpu_events, triple_fault.pending),
    STATE_FIELD(struct kvm_vcpu_events, exception_has_payload),
    STATE_FIELD(struct kvm_vcpu_events, exception_payload),
};

static int check_events(const struct kvm_vcpu_events *events,
                        char why[STATE_WHY_MAX + 1])
{
    if (events->smi.smm || events->smi.pending || events->smi.smm_inside_nmi) {
        snprintf(why, STATE_WHY_MAX + 1,
                 "its CPU is in system management mode, for which this machine "
                 "has no memory");
        return -EBADMSG;
    }
    if (events->flags != FLAGS) {
        snprintf(why, STATE_WHY_MAX + 1,
                 "its events have flags 0x%x, those of this machine 0x%x",
                 events->flags, FLAGS);
        return -EBADMSG;
    }
    return 0;
}

int vcpu_events_save(const struct vcpu_place *vcpu, struct state_writer *w,
                     char ret_why[STATE_WHY_MAX + 1])
{
    struct kvm_vcpu_events events;
    int ret = kvm_ioctl(vcpu->vcpu_fd, KVM_GET_VCPU_EVENTS, &events);

    if (ret < 0)
        return fail(ret_why, ret, "KVM_GET_VCPU_EVENTS");
    events.flags &= ~(uint32_t)KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
    state_put_fields(w, &events, events_fields, ARRAY_SIZE(events_fields));
    return check_events(&events, ret_why);
}

int vcpu_events_load(const struct vcpu_place *vcpu, struct state_reader *r,
                     char ret_why[STATE_WHY_MAX + 1])
{
    bool triple_faults =
        kvm_extension(vcpu->vm_fd, KVM_CAP_X86_TRIPLE_FAULT_EVENT) > 0;
    struct kvm_vcpu_events events = {0};
    int ret;

    state_get_fields(r, &events, events_fields, ARRAY_SIZE(events_fields));
    ret = state_reader_finish(r);
    if (ret == 0)
        ret = check_events(&events, ret_why);
    if (ret < 0)
        return ret;
    if (triple_faults) {
        events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
    } else if (events.triple_fault.pending) {
        snprintf(ret_why, STATE_WHY_MAX + 1,
                 "a triple fault is on its way to its CPU, of which this KVM "
                 "knows nothing");
        return -EOPNOTSUPP;
    }
    ret = kvm_ioctl(vcpu->vcpu_fd, KVM_SET_VCPU_EVENTS, &events);
    return ret < 0 ? fail(ret_why, ret, "KVM_SET_VCPU_EVENTS") : 0;
}
