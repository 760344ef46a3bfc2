/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's description as bytes: round trip, and what is refused. */
#include "vmm/vm_config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/msg.h"
#include "base/num.h"

/* Descriptors of the tests are only numbers: nothing opens or closes them. */
#define FD_KVM 100
#define FD_KERNEL 101
#define FD_DISK 110
#define FD_OVERLAY 120
#define FD_LAYER 130

struct wire {
    uint8_t bytes[MSG_PAYLOAD_MAX];
    size_t len;
    int fds[MSG_FDS_MAX];
    size_t fd_count;
};

static struct vm_config smallest(void)
{
    struct vm_config c;

    vm_config_init(&c);
    c.memory_bytes = VM_MEMORY_MIN;
    c.cpu_count = 1;
    c.kvm_fd = FD_KVM;
    c.kernel_fd = FD_KERNEL;
    return c;
}

/* The smallest that is restored instead of booted. */
static struct vm_config restored(void)
{
    struct vm_config c = smallest();

    c.kernel_fd = -1;
    c.state_fd = 106;
    c.memory_fd = 107;
    return c;
}

static struct vm_config fullest(void)
{
    struct vm_config c = smallest();

    c.memory_bytes = 5 * GIB;
    c.cpu_count = VM_CPUS_MAX;
    c.platform = VM_PLATFORM_DEVICE_TREE;
    memset(c.cmdline, 'x', VM_CMDLINE_MAX);
    c.initrd_fd = 102;
    c.console_in_fd = 103;
    c.console_out_fd = 104;
    c.vsock = true;
    c.guest_cid = 3;
    c.vsock_listen_fd = 105;
    c.vsock_dial = true;
    c.disk_count = VM_DISKS_MAX;
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        struct vm_disk *disk = &c.disks[i];

        memset(disk->id, 'a' + (int)i, VM_DISK_ID_MAX);
        disk->mode = (enum vm_disk_mode)(i % 3);
        disk->fd = FD_DISK + (int)i;
        if (disk->mode == VM_DISK_COW) {
            disk->overlay_fd = FD_OVERLAY + (int)i;
            disk->overlay_limit = i * GIB;
            disk->layer_fd = FD_LAYER + (int)i;
        }
    }
    c.hide_rdrand = true;
    c.debug_exit = true;
    return c;
}

/* As many descriptors as a message can carry. */
static struct vm_config fullest_restored(void)
{
    struct vm_config c = fullest();

    c.kernel_fd = c.initrd_fd = -1;
    c.state_fd = 106;
    c.memory_fd = 107;
    c.track_dirty = true;
    c.renew_generation = true;
    c.cpu_compared = true;
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        c.disks[i].mode = VM_DISK_COW;
        c.disks[i].overlay_fd = FD_OVERLAY + (int)i;
        c.disks[i].layer_fd = FD_LAYER + (int)i;
    }
    return c;
}

static void encode(const struct vm_config *c, struct wire *w)
{
    ck_assert_int_eq(vm_config_encode(c, w->bytes, sizeof(w->bytes), &w->len,
                                      w->fds, &w->fd_count),
                     0);
}

static int decode(struct wire *w, struct vm_config *ret)
{
    return vm_config_decode(w->bytes, w->len, w->fds, w->fd_count, ret);
}

/* Encodes c and expects that it decodes, or not, taking all or nothing. */
static void expect(const struct vm_config *c, int expected)
{
    struct wire w;
    struct vm_config out;
    size_t taken = 0;

    encode(c, &w);
    ck_assert_int_eq(decode(&w, &out), expected);
    for (size_t i = 0; i < w.fd_count; i++)
        taken += w.fds[i] < 0;
    ck_assert_uint_eq(taken, expected == 0 ? w.fd_count : 0);
}

static void check_round_trip(const struct vm_config *c)
{
    struct wire w;
    struct vm_config out;

    encode(c, &w);
    memset(&out, 0x5a, sizeof(out));
    ck_assert_int_eq(decode(&w, &out), 0);
    ck_assert_uint_eq(out.memory_bytes, c->memory_bytes);
    ck_assert_uint_eq(out.cpu_count, c->cpu_count);
    ck_assert_int_eq(out.platform, c->platform);
    ck_assert_str_eq(out.cmdline, c->cmdline);
    ck_assert_int_eq(out.kvm_fd, c->kvm_fd);
    ck_assert_int_eq(out.kernel_fd, c->kernel_fd);
    ck_assert_int_eq(out.initrd_fd, c->initrd_fd);
    ck_assert_int_eq(out.state_fd, c->state_fd);
    ck_assert_int_eq(out.memory_fd, c->memory_fd);
    ck_assert_int_eq(out.hide_rdrand, c->hide_rdrand);
    ck_assert_int_eq(out.renew_generation, c->renew_generation);
    ck_assert_int_eq(out.track_dirty, c->track_dirty);
    ck_assert_int_eq(out.debug_exit, c->debug_exit);
    ck_assert_int_eq(out.cpu_compared, c->cpu_compared);
    ck_assert_int_eq(out.console_in_fd, c->console_in_fd);
    ck_assert_int_eq(out.console_out_fd, c->console_out_fd);
    ck_assert_int_eq(out.vsock, c->vsock);
    ck_assert_uint_eq(out.guest_cid, c->guest_cid);
    ck_assert_int_eq(out.vsock_listen_fd, c->vsock_listen_fd);
    ck_assert_int_eq(out.vsock_dial, c->vsock_dial);
    ck_assert_uint_eq(out.disk_count, c->disk_count);
    for (unsigned i = 0; i < c->disk_count; i++) {
        ck_assert_str_eq(out.disks[i].id, c->disks[i].id);
        ck_assert_int_eq(out.disks[i].mode, c->disks[i].mode);
        ck_assert_int_eq(out.disks[i].fd, c->disks[i].fd);
        ck_assert_int_eq(out.disks[i].overlay_fd, c->disks[i].overlay_fd);
        ck_assert_int_eq(out.disks[i].layer_fd, c->disks[i].layer_fd);
        ck_assert_uint_eq(out.disks[i].overlay_limit,
                          c->disks[i].overlay_limit);
    }
}

START_TEST(round_trip_of_the_smallest)
{
    struct vm_config c = smallest();

    check_round_trip(&c);
}
END_TEST

START_TEST(round_trip_of_the_fullest)
{
    struct vm_config c = fullest();

    check_round_trip(&c);
    c = restored();
    check_round_trip(&c);
    c = fullest_restored();
    check_round_trip(&c);
}
END_TEST

START_TEST(encoding_needs_room)
{
    struct vm_config c = fullest();
    struct wire w;
    size_t len, fd_count;

    encode(&c, &w);
    for (size_t size = 0; size < w.len; size++)
        ck_assert_int_eq(
            vm_config_encode(&c, w.bytes, size, &len, w.fds, &fd_count),
            -ENOSPC);
}
END_TEST

/* Truncated anywhere, or longer than itself: refused. */
START_TEST(length_must_be_exact)
{
    struct vm_config c = fullest();
    struct vm_config out;
    struct wire w;
    size_t len;

    encode(&c, &w);
    for (len = 0; len < w.len; len++)
        ck_assert_int_eq(
            vm_config_decode(w.bytes, len, w.fds, w.fd_count, &out), -EBADMSG);
    ck_assert_int_eq(
        vm_config_decode(w.bytes, len + 1, w.fds, w.fd_count, &out), -EBADMSG);
}
END_TEST

START_TEST(descriptors_must_be_exact)
{
    struct vm_config c = fullest();
    struct vm_config out;
    struct wire w;

    encode(&c, &w);
    w.fds[w.fd_count] = 200;
    w.fd_count++; /* one too many */
    ck_assert_int_eq(decode(&w, &out), -EBADMSG);
    w.fd_count -= 2; /* one too few */
    ck_assert_int_eq(decode(&w, &out), -EBADMSG);
    w.fd_count++;
    w.fds[3] = -1; /* one that is none */
    ck_assert_int_eq(decode(&w, &out), -EBADMSG);
}
END_TEST

/* Each case spoils one field of a good configuration. */
static void spoil(struct vm_config *c, int how)
{
    switch (how) {
    case 0:
        c->memory_bytes = VM_MEMORY_MIN - VM_MEMORY_ALIGN;
        break;
    case 1:
        c->memory_bytes = VM_MEMORY_MAX + VM_MEMORY_ALIGN;
        break;
    case 2:
        c->memory_bytes = VM_MEMORY_MIN + 4096;
        break;
    case 3:
        c->cpu_count = 0;
        break;
    case 4:
        c->cpu_count = VM_CPUS_MAX + 1;
        break;
    case 5:
        c->platform = (enum vm_platform)2;
        break;
    case 6:
        c->kvm_fd = -1;
        break;
    case 7:
        c->kernel_fd = -1;
        break;
    case 8:
        c->guest_cid = 2;
        break;
    case 9:
        c->guest_cid = 0xffffffff;
        break;
    case 10:
        c->guest_cid = (uint64_t)1 << 32;
        break;
    case 11:
        c->vsock = false;
        break;
    case 12:
        c->disks[0].fd = -1;
        break;
    case 13:
        c->disks[0].mode = (enum vm_disk_mode)3;
        break;
    case 14:
        c->disks[0].overlay_fd = 150;
        break;
    case 15:
        c->disks[1].overlay_limit = 1;
        break;
    case 16:
        c->disks[2].overlay_fd = -1;
        break;
    case 17:
        c->disks[1].layer_fd = 150;
        break;
    case 18:
        c->memory_fd = 150;
        break;
    case 19:
        c->track_dirty = true;
        break;
    case 20:
        c->renew_generation = true;
        break;
    case 21: /* kernel and state */
        c->state_fd = 150;
        c->memory_fd = 151;
        break;
    default:
        ck_abort();
    }
}

START_TEST(nonsense_is_refused)
{
    struct vm_config c = fullest();

    expect(&c, 0);
    spoil(&c, _i);
    expect(&c, -EBADMSG);
}
END_TEST

/* What a restored machine must have, and must not. */
START_TEST(restoring_needs_state_and_memory)
{
    struct vm_config c = restored();

    expect(&c, 0);
    c.track_dirty = true;
    expect(&c, 0);
    c.memory_fd = -1;
    expect(&c, -EBADMSG);
    c = restored();
    c.state_fd = -1;
    expect(&c, -EBADMSG);
    c = restored();
    c.initrd_fd = 150;
    expect(&c, -EBADMSG);
}
END_TEST

/* No vsock device: none of its parts may be there. */
START_TEST(vsock_parts_need_vsock)
{
    struct vm_config c = smallest();

    c.guest_cid = 3;
    expect(&c, -EBADMSG);
    c = smallest();
    c.vsock_listen_fd = 105;
    expect(&c, -EBADMSG);
    c = smallest();
    c.vsock_dial = true;
    expect(&c, -EBADMSG);
}
END_TEST

/* One flipped bit anywhere never crashes and never takes half of the fds. */
START_TEST(flipped_bits)
{
    struct vm_config c = fullest();
    struct wire good;

    encode(&c, &good);
    for (size_t bit = 0; bit < good.len * 8; bit++) {
        struct wire w = good;
        struct vm_config out;
        size_t taken = 0;
        int ret;

        w.bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        ret = decode(&w, &out);
        for (size_t i = 0; i < w.fd_count; i++)
            taken += w.fds[i] < 0;
        ck_assert(ret == 0 || ret == -EBADMSG);
        ck_assert_uint_eq(taken, ret == 0 ? w.fd_count : 0);
    }
}
END_TEST

START_TEST(fini_closes_everything)
{
    struct vm_config c;
    int fds[3];

    vm_config_init(&c);
    for (int i = 0; i < 3; i++) {
        fds[i] = open("/dev/null", O_RDONLY);
        ck_assert_int_ge(fds[i], 0);
    }
    c.kvm_fd = fds[0];
    c.disk_count = 1;
    c.disks[0].fd = fds[1];
    c.disks[VM_DISKS_MAX - 1].overlay_fd = fds[2]; /* beyond disk_count */
    vm_config_fini(&c);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(fcntl(fds[i], F_GETFD), -1);
    ck_assert_int_eq(c.kvm_fd, -1);
    ck_assert_int_eq(c.disks[0].fd, -1);
    ck_assert_uint_eq(c.disk_count, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vm_config");
    TCase *tc = tcase_create("vm_config");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, round_trip_of_the_smallest);
    tcase_add_test(tc, round_trip_of_the_fullest);
    tcase_add_test(tc, encoding_needs_room);
    tcase_add_test(tc, length_must_be_exact);
    tcase_add_test(tc, descriptors_must_be_exact);
    tcase_add_loop_test(tc, nonsense_is_refused, 0, 22);
    tcase_add_test(tc, restoring_needs_state_and_memory);
    tcase_add_test(tc, vsock_parts_need_vsock);
    tcase_add_test(tc, flipped_bits);
    tcase_add_test(tc, fini_closes_everything);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
