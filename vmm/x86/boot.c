/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts together what a Linux guest needs before its first instruction: kernel,
 * initrd, command line, description of the machine, zero page, page tables.
 * Each of these has a file of its own; this one decides order and places.
 */
#include "vmm/x86/boot.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/num.h"
#include "devices/control/control_page.h"
#include "vmm/x86/boot_file.h"
#include "vmm/x86/map.h"
#include "vmm/x86/page_tables.h"
#include "vmm/x86/zero_page.h"

#define PAGE_SIZE_4K 0x1000u
#define DEVICE_TREE_MAX (64u * 1024u)

/* Guest memory that is not there where the map says it is. */
static int boot_no_memory(struct monitor_error *ret_error, const char *what)
{
    return boot_error(ret_error, MONITOR_ERROR_MEMORY, -EFAULT,
                      "there is no guest memory for the %s", what);
}

static int boot_load_kernel(int fd, const struct guest_mem *mem,
                            struct kernel_image *ret_image,
                            struct monitor_error *ret_error)
{
    uint8_t magic[SELFMAG] = {0};
    uint64_t size;
    int ret;

    ret = boot_file_size(fd, MONITOR_ERROR_KERNEL, &size, ret_error);
    if (ret == 0)
        ret =
            boot_file_read(fd, MONITOR_ERROR_KERNEL, magic,
                           (size_t)num_min(size, sizeof(magic)), 0, ret_error);
    if (ret < 0)
        return ret;
    if (memcmp(magic, ELFMAG, SELFMAG) == 0)
        return elf_load(fd, mem, ret_image, ret_error);
    return bzimage_load(fd, mem, ret_image, ret_error);
}

/*
 * As high as the kernel allows, so that it never meets the kernel's own
 * growth; never over what the kernel needs to unpack itself.
 */
static int boot_load_initrd(int fd, const struct guest_mem *mem,
                            const struct kernel_image *image,
                            struct zero_page_facts *facts,
                            struct monitor_error *ret_error)
{
    gpa_t highest = num_min(zero_page_limits(image).initrd_addr_max + 1,
                            MAP_RAM_HOLE_START);
    gpa_t limit = num_min(highest, boot_ram_end(mem));
    gpa_t floor = num_align_up(image->load_end, PAGE_SIZE_4K);
    uint64_t size, room;
    gpa_t start;
    void *to;
    int ret;

    ret = boot_file_size(fd, MONITOR_ERROR_INITRD, &size, ret_error);
    if (ret < 0)
        return ret;
    limit &= ~(gpa_t)(PAGE_SIZE_4K - 1);
    room = limit > floor ? limit - floor : 0;
    if (size > room) {
        (void)boot_error(ret_error, MONITOR_ERROR_INITRD, -ENOSPC,
                         "it has %" PRIu64 " KiB, but beside the kernel "
                         "the guest's memory has room for %" PRIu64 " KiB",
                         num_align_up(size, KIB) / KIB, room / KIB);
        if (size <= highest && floor <= highest - size)
            ret_error->memory_needed = floor + size;
        return -ENOSPC;
    }
    start = (limit - size) & ~(gpa_t)(PAGE_SIZE_4K - 1);
    to = guest_mem_ptr(mem, start, size);
    if (!to)
        return boot_no_memory(ret_error, "initrd");
    ret = boot_file_read(fd, MONITOR_ERROR_INITRD, to, size, 0, ret_error);
    if (ret < 0)
        return ret;
    facts->initrd = start;
    facts->initrd_size = (uint32_t)size; /* fits: room is below 3 GiB */
    return 0;
}

/* What did not fit alone does not fit with an initrd: both are needed. */
static void boot_need_initrd(int fd, struct monitor_error *error)
{
    struct monitor_error ignored;
    uint64_t size;

    if (error->memory_needed > 0 &&
        boot_file_size(fd, MONITOR_ERROR_INITRD, &size, &ignored) == 0 &&
        size < MAP_RAM_HOLE_START)
        error->memory_needed =
            num_align_up(error->memory_needed, PAGE_SIZE_4K) + size;
}

static int boot_write_cmdline(const char *cmdline, const struct guest_mem *mem,
                              const struct kernel_image *image,
                              struct zero_page_facts *facts,
                              struct monitor_error *ret_error)
{
    size_t len = strlen(cmdline);
    uint32_t max = zero_page_limits(image).cmdline_max;

    if (len > max)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -E2BIG,
                          "its command line is limited to %" PRIu32
                          " bytes, and %zu are given",
                          max, len);
    if (guest_mem_write(mem, MAP_CMDLINE, cmdline, len + 1) < 0)
        return boot_no_memory(ret_error, "command line");
    facts->cmdline = MAP_CMDLINE;
    return 0;
}

static int boot_write_acpi(const struct boot_machine *machine,
                           const struct guest_mem *mem,
                           struct zero_page_facts *facts,
                           struct monitor_error *ret_error)
{
    int ret = acpi_write_tables(machine, mem, &facts->rsdp);

    if (ret < 0)
        return boot_error(ret_error, MONITOR_ERROR_HOST, ret,
                          "the ACPI tables cannot be written: %s",
                          strerror(-ret));
    return 0;
}

/* One node in the setup_data list; the tree is built in place behind it. */
static int boot_write_device_tree(const struct boot_machine *machine,
                                  const char *cmdline,
                                  const struct guest_mem *mem,
                                  struct zero_page_facts *facts,
                                  struct monitor_error *ret_error)
{
    struct setup_data head = {.type = SETUP_DTB};
    uint8_t *node = guest_mem_ptr(mem, MAP_SETUP_DATA, DEVICE_TREE_MAX);
    uint32_t len;
    int ret;

    if (!node)
        return boot_no_memory(ret_error, "device tree");
    ret = device_tree_build(machine, cmdline, node + sizeof(head),
                            (uint32_t)(DEVICE_TREE_MAX - sizeof(head)), &len);
    if (ret < 0)
        return boot_error(ret_error, MONITOR_ERROR_HOST, ret,
                          "the device tree cannot be built: %s",
                          strerror(-ret));
    head.len = len;
    memcpy(node, &head, sizeof(head));
    facts->setup_data = MAP_SETUP_DATA;
    return 0;
}

static int boot_describe_machine(const struct vm_config *config,
                                 const struct boot_machine *machine,
                                 const struct guest_mem *mem,
                                 struct zero_page_facts *facts,
                                 struct monitor_error *ret_error)
{
    if (config->platform == VM_PLATFORM_DEVICE_TREE)
        return boot_write_device_tree(machine, config->cmdline, mem, facts,
                                      ret_error);
    return boot_write_acpi(machine, mem, facts, ret_error);
}

/*
 * The one piece of firmware there is. Linux reboots a reduced-hardware machine
 * by EFI, whether or not it has one, and then tries the BIOS next: it goes to
 * real mode and jumps to the old reset vector. Without code there it would
 * hang.
 */
static int boot_write_reset_vector(const struct guest_mem *mem)
{
    static const uint8_t code[] = {
        0xb0, KEYBOARD_COMMAND_RESET, /* mov al, reset */
        0xe6, KEYBOARD_PORT_COMMAND,  /* out command port, al */
        0xf4,                         /* hlt */
        0xeb, 0xfd,                   /* jmp to the hlt */
    };

    return guest_mem_write(mem, MAP_RESET_VECTOR, code, sizeof(code));
}

static int boot_write_start(const struct guest_mem *mem,
                            const struct kernel_image *image,
                            const struct zero_page_facts *facts,
                            struct boot_entry *ret_entry,
                            struct monitor_error *ret_error)
{
    struct boot_entry entry = {
        .rip = image->entry,
        .rsi = MAP_ZERO_PAGE,
        .rsp = MAP_BOOT_STACK,
        .gdt = MAP_GDT,
    };

    if (boot_write_reset_vector(mem) < 0)
        return boot_no_memory(ret_error, "reset vector");
    if (zero_page_write(mem, image, facts) < 0)
        return boot_no_memory(ret_error, "zero page");
    if (page_tables_write(mem, &entry.cr3) < 0)
        return boot_no_memory(ret_error, "page tables");
    if (page_tables_write_gdt(mem, &entry.gdt_limit) < 0)
        return boot_no_memory(ret_error, "GDT");
    *ret_entry = entry;
    return 0;
}

int boot_load_linux(const struct vm_config *config,
                    const struct boot_machine *machine,
                    const struct guest_mem *mem, struct boot_entry *ret_entry,
                    struct monitor_error *ret_error)
{
    struct zero_page_facts facts = {.memory_bytes = machine->memory_bytes};
    struct kernel_image image;
    int ret;

    ret = boot_load_kernel(config->kernel_fd, mem, &image, ret_error);
    if (ret < 0 && config->initrd_fd >= 0)
        boot_need_initrd(config->initrd_fd, ret_error);
    if (ret == 0 && config->initrd_fd >= 0)
        ret =
            boot_load_initrd(config->initrd_fd, mem, &image, &facts, ret_error);
    if (ret == 0)
        ret =
            boot_write_cmdline(config->cmdline, mem, &image, &facts, ret_error);
    if (ret == 0)
        ret = boot_describe_machine(config, machine, mem, &facts, ret_error);
    if (ret < 0)
        return ret;
    return boot_write_start(mem, &image, &facts, ret_entry, ret_error);
}
