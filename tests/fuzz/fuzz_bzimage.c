/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the bzImage loader through boot_load_linux, because its header is
 * also believed later: limits of initrd and command line, the zero page.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "tests/mini_kernel.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mini_ram ram; /* made once: only its edges matter */
    static struct vm_config config = {.initrd_fd = -1, .cmdline = "quiet"};
    struct boot_machine machine = {.memory_bytes = 32 * MIB, .cpu_count = 1};
    struct monitor_error error;
    struct boot_entry entry;
    int ret;

    if (ram.mem.region_count == 0) {
        mini_ram_init(&ram, 32 * MIB);
        config.initrd_fd = mini_file("initrd", 6);
    }
    config.kernel_fd = mini_file(data, size);
    ret = boot_load_linux(&config, &machine, &ram.mem, &entry, &error);
    close(config.kernel_fd);
    if (ret == 0 && (entry.rip < MAP_KERNEL_MIN || entry.rip >= 32 * MIB))
        abort();
    if (ret < 0 && (error.text[0] == '\0' || error.error != ret))
        abort();
    return 0;
}
