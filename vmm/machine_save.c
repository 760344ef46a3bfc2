/* SPDX-License-Identifier: Apache-2.0 */
/* How a machine's state goes out; see machine.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "vmm/machine_internal.h"
#include "vmm/memory_image.h"
#include "vmm/state_file.h"
#include "vmm/x86/vm_state.h"

static int fail_state(struct monitor_error *error, int ret, const char *what,
                      const char *why)
{
    return machine_fail(error, MONITOR_ERROR_STATE, ret, "%s: %s", what, why);
}

/* One section of KVM's. */
static int put_vm(struct machine *m, struct state_file_writer *f,
                  struct monitor_error *ret_error)
{
    char why[STATE_WHY_MAX + 1] = "";
    int ret;

    state_file_begin(f, STATE_TAG_VM, VM_STATE_VERSION, 0);
    ret = vm_state_save(m->vm_fd, m->has_pit, &f->w, why);
    state_file_end(f);
    return ret < 0 ? fail_state(ret_error, ret, "section vm 0", why) : 0;
}

static int put_vcpu(struct machine *m, unsigned id, struct state_file_writer *f,
                    struct monitor_error *ret_error)
{
    const struct vcpu_place place = {m->vm_fd, m->vcpus[id].kvm.fd, id};
    char why[STATE_WHY_MAX + 1] = "";
    int ret;

    state_file_begin(f, STATE_TAG_CPU, VCPU_STATE_VERSION, (uint16_t)id);
    ret = vcpu_state_save(&place, &m->shape, &f->w, why);
    state_file_end(f);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_STATE, ret,
                            "section cpu %u: %s", id, why);
    return 0;
}

/* All sections, in the order of state_file.h. */
static int put_state(struct machine *m, struct state_file_writer *f,
                     struct monitor_error *ret_error)
{
    int ret = put_vm(m, f, ret_error);

    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++)
        ret = put_vcpu(m, i, f, ret_error);
    if (ret == 0)
        device_set_save(&m->devices, f);
    return ret;
}

/* The state of the machine as it stands, into an empty regular file. */
static int write_state(struct machine *m, int fd,
                       struct monitor_error *ret_error)
{
    uint8_t *buf = malloc(STATE_FILE_MAX);
    struct state_file_writer f;
    struct stat st;
    size_t len;
    int ret;

    if (!buf)
        return machine_fail(ret_error, MONITOR_ERROR_HOST, -ENOMEM,
                            "out of memory");
    state_file_writer_init(&f, buf, STATE_FILE_MAX);
    ret = put_state(m, &f, ret_error);
    if (ret < 0)
        goto out_free;
    ret = state_file_finish(&f, &len);
    if (ret == 0 && fstat(fd, &st) < 0)
        ret = -errno;
    if (ret == 0 && (!S_ISREG(st.st_mode) || st.st_size != 0))
        ret = -EINVAL;
    if (ret == 0)
        ret = io_pwrite_full(fd, buf, len, 0);
    if (ret < 0)
        fail_state(ret_error, ret, "the state cannot be written",
                   strerror(-ret));
out_free:
    free(buf);
    return ret;
}

int machine_save(struct machine *m, const int *fds, unsigned fd_count,
                 struct monitor_saved *ret_saved,
                 struct monitor_error *ret_error)
{
    struct device_set_disks disks;
    int ret;

    if (fd_count < 2)
        return fail_state(ret_error, -EBADMSG, "the save", "files are missing");
    /* Something may have come in from outside since the pause. */
    device_set_quiesce(&m->devices);
    ret = write_state(m, fds[0], ret_error);
    if (ret < 0)
        return ret;
    ret = device_set_save_disks(&m->devices, &m->config, fds + 2, fd_count - 2,
                                &disks);
    if (ret < 0) {
        fail_state(ret_error, ret, "a disk cannot be written", strerror(-ret));
        ret_error->disk = disks.disk;
        return ret;
    }
    ret = memory_image_save(&m->memory, fds[1], &ret_saved->pages);
    if (ret < 0)
        return fail_state(ret_error, ret, "the memory cannot be written",
                          strerror(-ret));
    ret_saved->clusters = disks.clusters;
    return 0;
}

int machine_prove(struct machine *m, int state_fd, int leaves_fd,
                  struct monitor_proved *ret_proved,
                  struct monitor_error *ret_error)
{
    int ret = write_state(m, state_fd, ret_error);

    if (ret < 0)
        return ret;
    device_set_prove_disks(&m->devices, &m->config, ret_proved);
    ret = memory_image_digest(&m->memory, leaves_fd);
    return ret < 0 ? fail_state(ret_error, ret, "the memory cannot be digested",
                                strerror(-ret))
                   : 0;
}
