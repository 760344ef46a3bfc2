/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the ELF loader: any file, into guest memory between guard pages. */
#include <stdlib.h>
#include <unistd.h>

#include "base/num.h"
#include "tests/mini_kernel.h"
#include "vmm/x86/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mini_ram ram; /* made once: only its edges matter */
    struct kernel_image image;
    struct monitor_error error;
    int fd, ret;

    if (ram.mem.region_count == 0)
        mini_ram_init(&ram, 32 * MIB);
    fd = mini_file(data, size);
    ret = elf_load(fd, &ram.mem, &image, &error);
    close(fd);
    if (ret == 0 && (image.entry >= image.load_end ||
                     image.load_end > 32 * MIB || image.entry < MIB))
        abort();
    if (ret < 0 && (error.text[0] == '\0' || error.error != ret))
        abort();
    return 0;
}
