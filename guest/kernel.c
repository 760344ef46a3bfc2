/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's kernel around a freeze; see the header. random(4), proc(5). */
#include "guest/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "guest/boot.h"
#include "guest/proto.h"
#include "guest/sysfile.h"

#define RANDOM_DEVICE "/dev/random"
#define DRAW_SIZE 32u /* one read up to this size is one step of the key */

#define ZONEINFO_MAX (256u << 10)
#define ZERO_FREE_LEAVE (1u << 20) /* of free memory, beyond the reserve */
#define ZERO_FREE_PORTION (8u << 20)

/* crng_reseed_interval(), in milliseconds. */
#define RESEED_MS 60000u
#define RESEED_START_MS 1000u
#define RESEED_EARLY_MS (2u * RESEED_MS)

/* ---- memory ------------------------------------------------------------- */

static int kernel_sync(void)
{
    sync();
    return 0;
}

static int kernel_drop_caches(void)
{
    return sysfile_write(AT_FDCWD, "/proc/sys/vm/drop_caches", "3");
}

/* "protection: (0, 201, 201)": the most that a zone keeps from others. */
static uint64_t most_of(const char *list)
{
    uint64_t most = 0;

    while (*(list += strcspn(list, "0123456789"))) {
        char *end;
        uint64_t value = strtoull(list, &end, 10);

        if (value > most)
            most = value;
        list = end;
    }
    return most;
}

uint64_t kernel_reserve(char *zoneinfo)
{
    uint64_t high = 0, managed = 0, pages = 0;
    char *line;

    /* Each zone says in this order; "high:" of a CPU's list is not meant. */
    while ((line = strsep(&zoneinfo, "\n"))) {
        line += strspn(line, " ");
        if (strncmp(line, "high ", 5) == 0) {
            high = strtoull(line + 5, NULL, 10);
        } else if (strncmp(line, "managed ", 8) == 0) {
            managed = strtoull(line + 8, NULL, 10);
        } else if (strncmp(line, "protection:", 11) == 0) {
            uint64_t keeps = high + most_of(line + 11);

            pages += keeps < managed ? keeps : managed;
            high = managed = 0;
        }
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What zero_free has to leave; in the helper, which does not live long. */
static uint64_t free_to_leave(void)
{
    char *text = malloc(ZONEINFO_MAX);
    uint64_t reserve = 0;

    if (text &&
        sysfile_read(AT_FDCWD, "/proc/zoneinfo", text, ZONEINFO_MAX) > 0)
        reserve = kernel_reserve(text);
    free(text);
    return reserve + ZERO_FREE_LEAVE;
}

static int kernel_zero_free(void)
{
    int ret = sysfile_write(AT_FDCWD, "/proc/self/oom_score_adj", "1000");
    uint64_t leave = free_to_leave();

    if (ret)
        return ret;
    for (;;) {
        uint64_t available = boot_memory("MemFree");
        size_t len = ZERO_FREE_PORTION;
        void *p;

        if (available <= leave)
            return 0;
        if (len > available - leave)
            len = (size_t)(available - leave);
        p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0);
        /* What does not go by now is not needed that badly. */
        if (p == MAP_FAILED || madvise(p, len, MADV_POPULATE_WRITE) < 0)
            return errno == ENOMEM || errno == EAGAIN ? 0 : -errno;
    }
}

/* ---- random ------------------------------------------------------------- */

static int random_ioctl(unsigned long request, void *arg)
{
    int ret = 0;
    int fd = open(RANDOM_DEVICE, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (ioctl(fd, request, arg) < 0)
        ret = -errno;
    close(fd);
    return ret;
}

static int kernel_add_entropy(const uint8_t *bytes, size_t len)
{
    union {
        struct rand_pool_info info;
        uint8_t room[sizeof(struct rand_pool_info) + PROTO_ENTROPY_SIZE];
    } pool;
    int ret;

    if (len > PROTO_ENTROPY_SIZE)
        return -EINVAL;
    memset(&pool, 0, sizeof(pool));
    pool.info.entropy_count = (int)(8 * len);
    pool.info.buf_size = (int)len;
    memcpy(pool.room + sizeof(pool.info), bytes, len);
    ret = random_ioctl(RNDADDENTROPY, &pool);
    explicit_bzero(&pool, sizeof(pool));
    return ret;
}

static int kernel_reseed(void)
{
    return random_ioctl(RNDRESEEDCRNG, NULL);
}

static int kernel_draw(size_t count)
{
    uint8_t bytes[DRAW_SIZE];

    for (size_t i = 0; i < count; i++) {
        /* Never less than asked for, nor EINTR, up to 256 bytes. */
        if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
            return errno ? -errno : -EIO;
    }
    explicit_bzero(bytes, sizeof(bytes));
    return 0;
}

/* The numbers of "6.1.0-49-cloud-amd64" as 601. */
static unsigned int release_number(const char *release)
{
    unsigned int major, minor;

    if (sscanf(release, "%u.%u", &major, &minor) != 2 || minor > 99)
        return 0;
    return 100 * major + minor;
}

uint64_t kernel_pin_window_ms(const char *release, uint64_t uptime_ms)
{
    unsigned int number = release_number(release);

    /* Later ones re-key in a work item that RNDRESEEDCRNG does not put off. */
    if (number < 518 || number > 601)
        return 0;
    /*
     * A key of uptime u is too old at t once t - u > t / 2, in whole seconds
     * rounded down: at 2u - 2 it never is. From 62 s on, that is beyond the
     * two minutes after which the interval is a minute.
     */
    if (uptime_ms >= RESEED_EARLY_MS / 2 + 2000)
        return RESEED_MS;
    return uptime_ms > 2000 + RESEED_START_MS ? uptime_ms - 2000
                                              : RESEED_START_MS;
}

/* ---- identity ----------------------------------------------------------- */

static int kernel_set_clock(int64_t realtime_ns)
{
    const struct timespec ts = {
        .tv_sec = (time_t)(realtime_ns / 1000000000),
        .tv_nsec = (long)(realtime_ns % 1000000000),
    };

    return clock_settime(CLOCK_REALTIME, &ts) < 0 ? -errno : 0;
}

static int kernel_set_hostname(const char *name)
{
    return sethostname(name, strlen(name)) < 0 ? -errno : 0;
}

const struct kernel_ops kernel_ops = {
    .sync = kernel_sync,
    .drop_caches = kernel_drop_caches,
    .zero_free = kernel_zero_free,
    .add_entropy = kernel_add_entropy,
    .reseed = kernel_reseed,
    .draw = kernel_draw,
    .set_clock = kernel_set_clock,
    .set_hostname = kernel_set_hostname,
};
