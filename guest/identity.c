/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's own identity; see the header. random(4), uuid(7): version 4. */
#include "guest/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "guest/sysfile.h"

/* ---- boot ids ----------------------------------------------------------- */

static void format_boot_id(uint8_t bytes[16],
                           char ret_boot_id[PROTO_BOOT_ID_MAX])
{
    static const char digits[] = "0123456789abcdef";
    char *p = ret_boot_id;

    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40); /* version 4 */
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80); /* of RFC 4122 */
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = digits[bytes[i] >> 4];
        *p++ = digits[bytes[i] & 0xf];
    }
    *p = '\0';
}

static int random_boot_id(char ret_boot_id[PROTO_BOOT_ID_MAX])
{
    uint8_t bytes[16];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return -EIO;
    format_boot_id(bytes, ret_boot_id);
    return 0;
}

/* SplitMix64: neighbouring seeds give numbers that have nothing in common. */
static uint64_t mix(uint64_t seed, uint64_t turn)
{
    uint64_t z = seed + turn * 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t identity_seed_draws(uint64_t seed)
{
    return (uint32_t)(mix(seed, 1) & 0xffff);
}

void identity_seed_boot_id(uint64_t seed, char ret_boot_id[PROTO_BOOT_ID_MAX])
{
    uint8_t bytes[16];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(mix(seed, 2 + i / 8) >> (8 * (i % 8)));
    format_boot_id(bytes, ret_boot_id);
}

/*
 * In place: the file is mounted elsewhere, and all of it has the same length.
 * As the kernel's, it ends in a newline.
 */
static int write_boot_id(const char *path, int flags, const char *boot_id)
{
    char line[PROTO_BOOT_ID_MAX + 1];
    int len = snprintf(line, sizeof(line), "%s\n", boot_id);
    int ret = 0;
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0444);

    if (fd < 0)
        return -errno;
    if (pwrite(fd, line, (size_t)len, 0) != len)
        ret = -EIO;
    close(fd);
    return ret;
}

static int read_boot_id(const char *path, char ret_boot_id[PROTO_BOOT_ID_MAX])
{
    ssize_t n = sysfile_read(AT_FDCWD, path, ret_boot_id, PROTO_BOOT_ID_MAX);

    if (n < 0)
        return (int)n;
    return n == PROTO_BOOT_ID_MAX - 1 ? 0 : -EIO;
}

int identity_init(const char *path)
{
    char boot_id[PROTO_BOOT_ID_MAX];
    int ret = read_boot_id(IDENTITY_KERNEL_BOOT_ID, boot_id);

    return ret ? ret : write_boot_id(path, O_CREAT | O_EXCL, boot_id);
}

/* ---- restore ------------------------------------------------------------ */

/* Entropy alone changes nothing before the next re-keying: both, in order. */
static int restore_random(const struct kernel_ops *kernel,
                          const struct proto_restore *request)
{
    int ret;

    if (request->flags & PROTO_RESTORE_PINNED)
        return kernel->draw(identity_seed_draws(request->seed));
    ret = kernel->add_entropy(request->entropy, sizeof(request->entropy));
    return ret ? ret : kernel->reseed();
}

static int restore_boot_id(const char *path,
                           const struct proto_restore *request,
                           char ret_boot_id[PROTO_BOOT_ID_MAX])
{
    int ret = 0;

    if (!path)
        return -ENODEV;
    if (request->flags & PROTO_RESTORE_PINNED)
        identity_seed_boot_id(request->seed, ret_boot_id);
    else
        ret = random_boot_id(ret_boot_id);
    return ret ? ret : write_boot_id(path, 0, ret_boot_id);
}

static int restore_hostname(struct agent *agent,
                            const struct proto_restore *request,
                            const char *boot_id)
{
    char name[PROTO_HOSTNAME_MAX];
    int ret;

    if (request->hostname[0])
        memcpy(name, request->hostname, sizeof(name));
    else
        snprintf(name, sizeof(name), "microsbx-%.8s", boot_id);
    ret = agent->kernel->set_hostname(name);
    return ret ? ret : sandbox_set_hostname(&agent->sandbox, name);
}

/* The first step that fails, with its errno in *ret_err. */
static enum proto_restore_step take_steps(struct agent *agent,
                                          const struct proto_restore *request,
                                          char ret_boot_id[PROTO_BOOT_ID_MAX],
                                          int *ret_err)
{
    if (request->flags == PROTO_RESTORE_SAME) {
        *ret_err = agent->boot_id ? read_boot_id(agent->boot_id, ret_boot_id)
                                  : -ENODEV;
        return PROTO_STEP_BOOT_ID;
    }
    *ret_err = restore_random(agent->kernel, request);
    if (*ret_err)
        return PROTO_STEP_RANDOM;
    *ret_err = agent->kernel->set_clock(request->realtime_ns);
    if (*ret_err)
        return PROTO_STEP_CLOCK;
    *ret_err = restore_boot_id(agent->boot_id, request, ret_boot_id);
    if (*ret_err)
        return PROTO_STEP_BOOT_ID;
    *ret_err = restore_hostname(agent, request, ret_boot_id);
    if (*ret_err)
        return PROTO_STEP_HOSTNAME;
    if (request->flags & PROTO_RESTORE_LIMIT)
        *ret_err = scratch_limit(&agent->scratch, request->scratch_limit);
    return PROTO_STEP_DISK;
}

void identity_restore(struct agent *agent, const struct proto_restore *request,
                      struct proto_restored *ret_restored)
{
    struct proto_restored m = {0};
    int err = 0;
    enum proto_restore_step step = take_steps(agent, request, m.boot_id, &err);

    if (err) {
        m = (struct proto_restored){
            .err = (uint32_t)-err,
            .step = step,
        };
    }
    *ret_restored = m;
}
