/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds the zero page. The kernel's own setup header comes first (a bzImage
 * brings one, for an ELF image we make one up), then the loader's fields.
 *
 * Everything not set stays zero, above all the byte "sentinel": Linux would
 * take a non-zero one for a careless loader and wipe fields that we do set.
 */
#include "vmm/x86/zero_page.h"

#include <asm/bootparam.h>
#include <stddef.h>
#include <string.h>

#include "base/num.h"
#include "vmm/vm_config.h"
#include "vmm/x86/e820.h"
#include "vmm/x86/map.h"

#define HEADER_BOOT_FLAG 0xaa55u
#define HEADER_MAGIC 0x53726448u /* "HdrS" */
#define HEADER_VERSION 0x020fu
#define LOADER_UNDEFINED 0xffu /* "some loader without a number" */
#define INITRD_ADDR_MAX_DEFAULT 0x7fffffffu
#define CMDLINE_SIZE_DEFAULT 255u /* what a 0 means */

_Static_assert(sizeof(struct boot_params) == 0x1000, "it is one page");
_Static_assert(E820_RANGES_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "e820 fits");
_Static_assert(VM_CMDLINE_MAX < MAP_SETUP_DATA - MAP_CMDLINE, "cmdline fits");

static struct setup_header header_of(const struct kernel_image *image)
{
    struct setup_header header = {
        .boot_flag = HEADER_BOOT_FLAG,
        .header = HEADER_MAGIC,
        .version = HEADER_VERSION,
        .initrd_addr_max = INITRD_ADDR_MAX_DEFAULT,
        .cmdline_size = VM_CMDLINE_MAX,
        .kernel_alignment = 0x1000000,
        .xloadflags = XLF_KERNEL_64,
    };

    if (image->setup_header_len > 0)
        memcpy(&header, image->setup_header,
               num_min(sizeof(header), image->setup_header_len));
    return header;
}

struct zero_page_limits zero_page_limits(const struct kernel_image *image)
{
    struct setup_header header = header_of(image);

    return (struct zero_page_limits){
        .cmdline_max =
            header.cmdline_size ? header.cmdline_size : CMDLINE_SIZE_DEFAULT,
        .initrd_addr_max = header.initrd_addr_max ? header.initrd_addr_max
                                                  : INITRD_ADDR_MAX_DEFAULT,
    };
}

static void fill_header(struct boot_params *params,
                        const struct kernel_image *image,
                        const struct zero_page_facts *facts)
{
    struct setup_header *header = &params->hdr;

    *header = header_of(image);
    header->type_of_loader = LOADER_UNDEFINED;
    header->loadflags |= LOADED_HIGH;
    header->loadflags &= (uint8_t)~CAN_USE_HEAP;
    header->cmd_line_ptr = (uint32_t)facts->cmdline;
    header->ramdisk_image = (uint32_t)facts->initrd;
    header->ramdisk_size = facts->initrd_size;
    header->setup_data = facts->setup_data;
}

static void fill_e820(struct boot_params *params, uint64_t memory_bytes)
{
    struct e820_range ranges[E820_RANGES_MAX];
    unsigned count = e820_build(memory_bytes, ranges);

    for (unsigned i = 0; i < count; i++) {
        params->e820_table[i].addr = ranges[i].start;
        params->e820_table[i].size = ranges[i].size;
        params->e820_table[i].type = ranges[i].type;
    }
    params->e820_entries = (uint8_t)count;
}

int zero_page_write(const struct guest_mem *mem,
                    const struct kernel_image *image,
                    const struct zero_page_facts *facts)
{
    struct boot_params params;

    memset(&params, 0, sizeof(params));
    fill_header(&params, image, facts);
    fill_e820(&params, facts->memory_bytes);
    params.acpi_rsdp_addr = facts->rsdp;
    return guest_mem_write(mem, MAP_ZERO_PAGE, &params, sizeof(params));
}
