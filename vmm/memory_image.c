/* SPDX-License-Identifier: Apache-2.0 */
/* Memory as a whole; see the header. */
#include "vmm/memory_image.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/io.h"
#include "base/num.h"
#include "vmm/kvm.h"
#include "vmm/memory_drop.h"
#include "vmm/x86/page_copy.h"

#define PAGE GUEST_MEM_PAGE
#define CHUNK_PAGES ((unsigned)(MONITOR_CHUNK / PAGE))

_Static_assert(VM_MEMORY_ALIGN % MONITOR_CHUNK == 0,
               "regions are whole chunks");

/* ---- which pages must be looked at ---- */

/* What is known about the file around the place last asked about. */
struct file_holes {
    int fd; /* -1: no file, all of it is a hole */
    uint64_t start, data, end;
    /* [start, data) is a hole, [data, end) are data */
};

/* True if [offset, offset + PAGE) of the file is certainly a hole. */
static bool is_hole(struct file_holes *h, uint64_t offset)
{
    off_t at;

    if (h->fd < 0)
        return true;
    if (offset < h->start || offset + PAGE > h->end) {
        h->start = offset;
        at = lseek(h->fd, (off_t)offset, SEEK_DATA);
        if (at < 0 && errno == ENXIO) {
            h->data = h->end = UINT64_MAX; /* a hole to the end */
            return true;
        }
        h->data = at < 0 ? offset : (uint64_t)at;
        at = lseek(h->fd, (off_t)h->data, SEEK_HOLE);
        h->end = at < 0 ? h->data + PAGE : num_align_up((uint64_t)at, PAGE);
    }
    return offset + PAGE <= h->data;
}

/* A walk over all memory in chunks, in linear order. */
struct walk {
    const struct memory *memory;
    struct file_holes holes;
    bool residency_tells; /* see walk_init */
    unsigned region;
    uint64_t at;     /* in the region, of the next chunk */
    uint64_t linear; /* of the next chunk */
    /* the chunk at hand */
    const uint8_t *host;
    uint64_t offset;            /* linear */
    bool may_hold[CHUNK_PAGES]; /* false: certainly zeros */
    unsigned may_hold_count;
};

static void walk_init(struct walk *w, const struct memory *memory)
{
    struct sysinfo info;

    *w = (struct walk){
        .memory = memory,
        .holes = {.fd = memory->fd},
        /*
         * mincore() calls a page that was swapped out not resident, like one
         * that never was. Without swap no page is, and it tells the truth.
         */
        .residency_tells = sysinfo(&info) == 0 && info.totalswap == 0,
    };
}

/*
 * A page without a mapping in this process is what lies beneath: the file's, or
 * zeros. (For a file, mincore() also counts what is only in the page cache:
 * looked at in vain.)
 */
static void look_around(struct walk *w)
{
    unsigned char resident[CHUNK_PAGES];
    bool known = w->residency_tells && mincore((void *)(uintptr_t)w->host,
                                               MONITOR_CHUNK, resident) == 0;

    w->may_hold_count = 0;
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        w->may_hold[i] = !known || (resident[i] & 1) ||
                         !is_hole(&w->holes, w->offset + (uint64_t)i * PAGE);
        w->may_hold_count += w->may_hold[i];
    }
}

/* The next chunk: false at the end. */
static bool walk_next(struct walk *w)
{
    const struct guest_mem *guest = &w->memory->guest;

    if (w->region < guest->region_count &&
        w->at == guest->regions[w->region].size) {
        w->region++;
        w->at = 0;
    }
    if (w->region == guest->region_count)
        return false;
    w->host = guest->regions[w->region].host + w->at;
    w->offset = w->linear;
    look_around(w);
    w->at += MONITOR_CHUNK;
    w->linear += MONITOR_CHUNK;
    return true;
}

static uint64_t memory_bytes(const struct memory *memory)
{
    return guest_mem_pages(&memory->guest) * PAGE;
}

/* An empty regular file? 0 or -errno. */
static int check_empty(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) && st.st_size == 0 ? 0 : -EINVAL;
}

/* ---- saving ---- */

static bool is_zero_page(const uint8_t *page)
{
    const uint64_t *words = (const uint64_t *)(const void *)page;

    /* In steps that a compiler turns into vectors. */
    for (size_t i = 0; i < PAGE / sizeof(uint64_t); i += 16) {
        uint64_t any = 0;

        for (size_t n = 0; n < 16; n++)
            any |= words[i + n];
        if (any)
            return false;
    }
    return true;
}

/* Writes the chunk's pages in runs as long as they come. */
static int save_chunk(const struct walk *w, int fd, uint64_t *pages)
{
    unsigned first = 0, count = 0; /* of the run */
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i <= CHUNK_PAGES; i++) {
        if (i < CHUNK_PAGES && w->may_hold[i] &&
            !is_zero_page(w->host + (size_t)i * PAGE)) {
            first = count == 0 ? i : first;
            count++;
        } else if (count > 0) {
            ret = io_pwrite_full(fd, w->host + (size_t)first * PAGE,
                                 (size_t)count * PAGE,
                                 w->offset + (uint64_t)first * PAGE);
            *pages += count;
            count = 0;
        }
    }
    return ret;
}

int memory_image_save(const struct memory *memory, int fd, uint64_t *ret_pages)
{
    uint64_t pages = 0;
    struct walk w;
    int ret = check_empty(fd);

    if (ret == 0 && ftruncate(fd, (off_t)memory_bytes(memory)) < 0)
        ret = -errno;
    walk_init(&w, memory);
    while (ret == 0 && walk_next(&w))
        if (w.may_hold_count > 0)
            ret = save_chunk(&w, fd, &pages);
    if (ret == 0)
        *ret_pages = pages;
    return ret;
}

/* ---- digesting ---- */

static const uint8_t zero_page[PAGE];

/* The chunk as the guest sees it; untouched pages are not touched here. */
static void digest_chunk(struct digest *d, const struct walk *w,
                         uint8_t ret_sum[DIGEST_SIZE])
{
    digest_reset(d);
    if (w->may_hold_count == CHUNK_PAGES)
        digest_update(d, w->host, MONITOR_CHUNK);
    else
        for (unsigned i = 0; i < CHUNK_PAGES; i++)
            digest_update(
                d, w->may_hold[i] ? w->host + (size_t)i * PAGE : zero_page,
                PAGE);
    digest_bytes(d, ret_sum);
}

/* What many chunks are. */
static void digest_zeros(struct digest *d, uint8_t ret_sum[DIGEST_SIZE])
{
    digest_reset(d);
    for (unsigned i = 0; i < CHUNK_PAGES; i++)
        digest_update(d, zero_page, PAGE);
    digest_bytes(d, ret_sum);
}

int memory_image_digest(const struct memory *memory, int fd)
{
    size_t size = (size_t)(memory_bytes(memory) / MONITOR_CHUNK) * DIGEST_SIZE;
    struct digest *d = digest_new();
    uint8_t *sums = malloc(size);
    uint8_t zeros[DIGEST_SIZE];
    struct walk w;
    int ret = !d || !sums ? -ENOMEM : check_empty(fd);

    if (ret == 0) {
        digest_zeros(d, zeros);
        walk_init(&w, memory);
        while (walk_next(&w)) {
            uint8_t *sum = sums + w.offset / MONITOR_CHUNK * DIGEST_SIZE;

            if (w.may_hold_count == 0)
                memcpy(sum, zeros, DIGEST_SIZE);
            else
                digest_chunk(d, &w, sum);
        }
        ret = io_pwrite_full(fd, sums, size, 0);
    }
    digest_free(d);
    free(sums);
    return ret;
}

/* ---- rolling back ---- */

/*
 * From this many dirty pages on the mapping is dropped, and what is needed of
 * it arrives again. That itself takes about half as long as copying them (0.25
 * us a page against 0.5, measured on Linux 6.18, AMD EPYC), and sooner or later
 * less than a fresh process would; but it leaves the guest the faults, which
 * cost several times a copy, so that for few pages copying is better.
 */
#define DROP_FROM_PAGES 8192u

/* KVM's log of one region, into the words of `bits` from page first on. */
static int fetch_log(int vm_fd, unsigned slot, uint64_t *log)
{
    struct kvm_dirty_log request = {.slot = slot, .dirty_bitmap = log};
    int ret = kvm_ioctl(vm_fd, KVM_GET_DIRTY_LOG, &request);

    return ret < 0 ? ret : 0;
}

/* All that was written, by KVM's word or ours: into the memory's own bits.
 * Regions are multiples of 64 pages, so their words do not overlap. */
static int collect_dirty(const struct memory *memory, int vm_fd,
                         uint64_t *ret_count)
{
    const struct guest_mem *guest = &memory->guest;
    uint64_t words = guest_mem_pages(guest) / 64, count = 0;
    uint64_t *log = calloc(words, sizeof(*log));
    size_t at = 0;
    int ret = log ? 0 : -ENOMEM;

    for (unsigned i = 0; ret == 0 && i < guest->region_count; i++) {
        ret = fetch_log(vm_fd, i, log + at);
        at += guest->regions[i].size / PAGE / 64;
    }
    for (uint64_t i = 0; ret == 0 && i < words; i++) {
        guest->dirty[i] |= log[i];
        count += (uint64_t)__builtin_popcountll(guest->dirty[i]);
    }
    free(log);
    *ret_count = count;
    return ret;
}

/* The file's page over that of the guest. A hole is not read, but known. */
static void copy_page(const struct memory *memory, struct file_holes *holes,
                      uint8_t *to, uint64_t linear)
{
    page_copy(to, is_hole(holes, linear) ? NULL : memory->pristine + linear,
              PAGE);
}

/* Every page whose bit is set. */
static void copy_all(const struct memory *memory)
{
    const struct guest_mem *guest = &memory->guest;
    struct file_holes holes = {.fd = memory->fd};
    uint64_t linear = 0;

    for (unsigned i = 0; i < guest->region_count; i++) {
        const uint64_t *bits = guest->dirty + linear / PAGE / 64;
        uint64_t words = guest->regions[i].size / PAGE / 64;

        for (uint64_t w = 0; w < words; w++)
            for (uint64_t left = bits[w]; left != 0; left &= left - 1) {
                uint64_t at = (w * 64 + (uint64_t)__builtin_ctzll(left)) * PAGE;

                copy_page(memory, &holes, guest->regions[i].host + at,
                          linear + at);
            }
        linear += guest->regions[i].size;
    }
    page_copy_end();
}

int memory_image_roll_back(const struct memory *memory, int vm_fd,
                           struct monitor_rolled_back *ret_done)
{
    const struct guest_mem *guest = &memory->guest;
    struct monitor_rolled_back done = {0};
    int ret = collect_dirty(memory, vm_fd, &done.pages);

    if (ret < 0)
        return ret;
    done.by = done.pages >= DROP_FROM_PAGES ? MONITOR_ROLLBACK_DROPPED
                                            : MONITOR_ROLLBACK_COPIED;
    if (done.by == MONITOR_ROLLBACK_DROPPED)
        ret = memory_drop(&memory->guest);
    else
        copy_all(memory);
    if (ret < 0)
        return ret;
    memset(guest->dirty, 0, guest_mem_pages(guest) / 8);
    *ret_done = done;
    return 0;
}
