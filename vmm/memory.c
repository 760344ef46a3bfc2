/* SPDX-License-Identifier: Apache-2.0 */
/* Mapping guest memory; see the header. */
#include "vmm/memory.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/num.h"
#include "vmm/kvm.h"
#include "vmm/x86/map.h"

/*
 * Guards are as large as a huge page, and regions start on one: guest and host
 * addresses are then congruent, without which KVM cannot use huge pages.
 * Address space costs nothing.
 */
#define HUGE_PAGE ((uint64_t)2 << 20)
#define GUARD HUGE_PAGE

/*
 * Opens [host, host + bytes) of the reservation and names it to the guest.
 * offset is its place in linear memory.
 */
static int add_region(struct memory *memory, uint8_t *host, gpa_t base,
                      uint64_t bytes, uint64_t offset)
{
    if (memory->fd >= 0) {
        if (mmap(host, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, memory->fd,
                 (off_t)offset) == MAP_FAILED)
            return -errno;
        return guest_mem_add(&memory->guest, base, bytes, host);
    }
    if (mprotect(host, bytes, PROT_READ | PROT_WRITE) < 0)
        return -errno;
    /*
     * Huge pages where the host lets us choose: a guest touches most of its
     * memory within its first second, and it is the faults that cost. Refusal
     * changes nothing but speed.
     */
    (void)madvise(host, bytes, MADV_HUGEPAGE);
    return guest_mem_add(&memory->guest, base, bytes, host);
}

/* A page beyond the file's end would be a SIGBUS at its first touch. */
static int check_file(int fd, uint64_t bytes)
{
    struct stat st;

    if (fd < 0)
        return 0;
    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes ? 0 : -EBADMSG;
}

int memory_init(struct memory *memory, uint64_t bytes, int fd)
{
    uint64_t low = num_min(bytes, MAP_RAM_HOLE_START);
    uint64_t high = bytes - low;
    uint8_t *start;
    int ret = check_file(fd, bytes);

    *memory = (struct memory){.fd = -1};
    if (ret < 0)
        return ret;
    memory->reserved = bytes + 4 * GUARD;
    memory->reservation =
        mmap(NULL, memory->reserved, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory->reservation == MAP_FAILED) {
        *memory = (struct memory){.fd = -1};
        return -errno;
    }
    memory->fd = fd;
    start = (uint8_t *)num_align_up((uintptr_t)memory->reservation, HUGE_PAGE);
    ret = add_region(memory, start + GUARD, 0, low, 0);
    if (ret == 0 && high > 0)
        ret = add_region(memory, start + GUARD + low + GUARD, MAP_RAM_HOLE_END,
                         high, low);
    if (ret < 0)
        memory_fini(memory);
    return ret;
}

/* Of the file that it is mapped from. */
static size_t file_size(const struct memory *memory)
{
    return guest_mem_pages(&memory->guest) * GUEST_MEM_PAGE;
}

int memory_track(struct memory *memory)
{
    uint64_t words = (guest_mem_pages(&memory->guest) + 63) / 64;

    void *pristine;

    memory->guest.dirty = calloc(words, sizeof(uint64_t));
    if (!memory->guest.dirty)
        return -ENOMEM;
    pristine = mmap(NULL, file_size(memory), PROT_READ,
                    MAP_PRIVATE | MAP_NORESERVE, memory->fd, 0);
    if (pristine == MAP_FAILED)
        return -errno;
    memory->pristine = pristine;
    return 0;
}

void memory_fini(struct memory *memory)
{
    if (memory->pristine)
        munmap((void *)(uintptr_t)memory->pristine, file_size(memory));
    free(memory->guest.dirty);
    if (memory->reservation)
        munmap(memory->reservation, memory->reserved);
    *memory = (struct memory){.fd = -1};
}

int memory_add_slots(const struct memory *memory, int vm_fd)
{
    for (unsigned i = 0; i < memory->guest.region_count; i++) {
        const struct guest_mem_region *region = &memory->guest.regions[i];
        struct kvm_userspace_memory_region slot = {
            .slot = i,
            .flags = memory->guest.dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0,
            .guest_phys_addr = region->base,
            .memory_size = region->size,
            .userspace_addr = (uintptr_t)region->host,
        };
        int ret = kvm_ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);

        if (ret < 0)
            return ret;
    }
    return 0;
}
