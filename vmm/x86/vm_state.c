/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt controllers and clock; see the header. */
#include "vmm/x86/vm_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/state_field.h"
#include "vmm/kvm.h"
#include "vmm/state_file.h"
#include "vmm/x86/map.h"

static const struct state_field clock_fields[] = {
    STATE_FIELD(struct kvm_clock_data, clock),
};

#define PIC_FIELD(name) STATE_FIELD(struct kvm_irqchip, chip.pic.name)

static const struct state_field pic_fields[] = {
    PIC_FIELD(last_irr),
    PIC_FIELD(irr),
    PIC_FIELD(imr),
    PIC_FIELD(isr),
    PIC_FIELD(priority_add),
    PIC_FIELD(irq_base),
    PIC_FIELD(read_reg_select),
    PIC_FIELD(poll),
    PIC_FIELD(special_mask),
    PIC_FIELD(init_state),
    PIC_FIELD(auto_eoi),
    PIC_FIELD(rotate_on_auto_eoi),
    PIC_FIELD(special_fully_nested_mode),
    PIC_FIELD(init4),
    PIC_FIELD(elcr),
    PIC_FIELD(elcr_mask),
};

static const struct state_field ioapic_fields[] = {
    STATE_FIELD(struct kvm_irqchip, chip.ioapic.base_address),
    STATE_FIELD(struct kvm_irqchip, chip.ioapic.ioregsel),
    STATE_FIELD(struct kvm_irqchip, chip.ioapic.id),
    STATE_FIELD(struct kvm_irqchip, chip.ioapic.irr),
    {offsetof(struct kvm_irqchip, chip.ioapic.redirtbl), STATE_FIELD_U64,
     KVM_IOAPIC_NUM_PINS},
};

/* Not count_load_time: the host's clock, which KVM takes anew. */
#define PIT_FIELDS(n)                                                          \
    STATE_FIELD(struct kvm_pit_state2, channels[n].count),                     \
        STATE_FIELD(struct kvm_pit_state2, channels[n].latched_count),         \
        STATE_FIELD(struct kvm_pit_state2, channels[n].count_latched),         \
        STATE_FIELD(struct kvm_pit_state2, channels[n].status_latched),        \
        STATE_FIELD(struct kvm_pit_state2, channels[n].status),                \
        STATE_FIELD(struct kvm_pit_state2, channels[n].read_state),            \
        STATE_FIELD(struct kvm_pit_state2, channels[n].write_state),           \
        STATE_FIELD(struct kvm_pit_state2, channels[n].write_latch),           \
        STATE_FIELD(struct kvm_pit_state2, channels[n].rw_mode),               \
        STATE_FIELD(struct kvm_pit_state2, channels[n].mode),                  \
        STATE_FIELD(struct kvm_pit_state2, channels[n].bcd),                   \
        STATE_FIELD(struct kvm_pit_state2, channels[n].gate)

static const struct state_field pit_fields[] = {
    PIT_FIELDS(0),
    PIT_FIELDS(1),
    PIT_FIELDS(2),
    STATE_FIELD(struct kvm_pit_state2, flags),
};

#define GROUP_PIT "pit2"
#define PIT_SPEAKER_ON 2u /* KVM_PIT_FLAGS_SPEAKER_DATA_ON, Linux 5.19 */
#define NO_CHIP UINT32_MAX

/* In the order of loading. */
static const struct step {
    const char *tag;
    const char *name;
    uint32_t chip_id; /* of an irqchip: also tells KVM which */
    unsigned long get, set;
    const struct state_field *fields;
    size_t field_count;
} steps[] = {
    {"pic0", "IRQCHIP", KVM_IRQCHIP_PIC_MASTER, KVM_GET_IRQCHIP,
     KVM_SET_IRQCHIP, pic_fields, ARRAY_SIZE(pic_fields)},
    {"pic1", "IRQCHIP", KVM_IRQCHIP_PIC_SLAVE, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP,
     pic_fields, ARRAY_SIZE(pic_fields)},
    {"ioap", "IRQCHIP", KVM_IRQCHIP_IOAPIC, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP,
     ioapic_fields, ARRAY_SIZE(ioapic_fields)},
    {GROUP_PIT, "PIT2", NO_CHIP, KVM_GET_PIT2, KVM_SET_PIT2, pit_fields,
     ARRAY_SIZE(pit_fields)},
    {STATE_GROUP_CLOCK, "CLOCK", NO_CHIP, KVM_GET_CLOCK, KVM_SET_CLOCK,
     clock_fields, ARRAY_SIZE(clock_fields)},
};

union chip {
    struct kvm_irqchip irqchip;
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
};

static void chip_init(union chip *chip, const struct step *s)
{
    *chip = (union chip){0};
    if (s->chip_id != NO_CHIP)
        chip->irqchip.chip_id = s->chip_id;
}

int vm_state_save(int vm_fd, bool has_pit, struct state_writer *w,
                  char ret_why[STATE_WHY_MAX + 1])
{
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        const struct step *s = &steps[i];
        union chip chip;
        size_t begun;
        int ret;

        if (!has_pit && strcmp(s->tag, GROUP_PIT) == 0)
            continue;
        chip_init(&chip, s);
        ret = kvm_ioctl(vm_fd, s->get, &chip);
        if (ret < 0) {
            snprintf(ret_why, STATE_WHY_MAX + 1, "KVM_GET_%s: %s", s->name,
                     strerror(-ret));
            return ret;
        }
        begun = state_group_begin(w, s->tag);
        state_put_fields(w, &chip, s->fields, s->field_count);
        state_group_end(w, begun);
    }
    return 0;
}

/* Looks for a PIT after the three chips. *r is left before it, or after. */
bool vm_state_has_pit(struct state_reader r)
{
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        struct state_reader group = state_get_group(&r, steps[i].tag);

        if (strcmp(steps[i].tag, GROUP_PIT) == 0)
            return group.error == 0;
    }
    return false;
}

/* What KVM would take, and no guest of this machine comes to. */
static int check_chip(const struct step *s, const union chip *chip,
                      char why[STATE_WHY_MAX + 1])
{
    if (s->chip_id == KVM_IRQCHIP_IOAPIC &&
        chip->irqchip.chip.ioapic.base_address != MAP_IOAPIC) {
        snprintf(why, STATE_WHY_MAX + 1,
                 "its I/O APIC lies at 0x%llx, this machine's at 0x%llx",
                 (unsigned long long)chip->irqchip.chip.ioapic.base_address,
                 MAP_IOAPIC);
        return -EBADMSG;
    }
    if (strcmp(s->tag, GROUP_PIT) == 0 && (chip->pit.flags & ~PIT_SPEAKER_ON)) {
        snprintf(why, STATE_WHY_MAX + 1, "its PIT has flags 0x%x",
                 chip->pit.flags);
        return -EBADMSG;
    }
    return 0;
}

static int load_step(int vm_fd, const struct step *s, struct state_reader *r,
                     char why[STATE_WHY_MAX + 1])
{
    struct state_reader group = state_get_group(r, s->tag);
    union chip chip;
    int ret;

    chip_init(&chip, s);
    state_get_fields(&group, &chip, s->fields, s->field_count);
    if (state_reader_finish(&group) < 0) {
        snprintf(why, STATE_WHY_MAX + 1, "its group %s is malformed", s->tag);
        return -EBADMSG;
    }
    ret = check_chip(s, &chip, why);
    if (ret < 0)
        return ret;
    ret = kvm_ioctl(vm_fd, s->set, &chip);
    if (ret < 0)
        snprintf(why, STATE_WHY_MAX + 1, "KVM_SET_%s: %s", s->name,
                 strerror(-ret));
    return ret < 0 ? ret : 0;
}

int vm_state_load(int vm_fd, struct state_reader *r,
                  char ret_why[STATE_WHY_MAX + 1])
{
    bool has_pit = vm_state_has_pit(*r);
    int ret = 0;

    for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(steps); i++)
        if (has_pit || strcmp(steps[i].tag, GROUP_PIT) != 0)
            ret = load_step(vm_fd, &steps[i], r, ret_why);
    if (ret == 0 && state_reader_finish(r) < 0) {
        snprintf(ret_why, STATE_WHY_MAX + 1, "bytes are left over");
        ret = -EBADMSG;
    }
    return ret;
}
