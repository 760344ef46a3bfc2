/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads an x86-64 Linux vmlinux (or any bare ELF64 guest) by its program
 * headers. Not a general ELF loader: no relocation, no symbols, no sections.
 *
 * The file is untrusted. Everything is checked before the first byte is
 * loaded, so a refused file leaves guest memory as it was; segment bytes then
 * go straight from the file into guest memory.
 */
#include "vmm/x86/boot.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/num.h"
#include "vmm/x86/boot_file.h"
#include "vmm/x86/map.h"

/* vmlinux has five; more than this is no kernel. */
#define ELF_PHDRS_MAX 64u

struct elf_segment {
    gpa_t start;
    gpa_t end;          /* start + memsz */
    uint64_t file_size; /* the rest of memsz is bss */
    uint64_t file_offset;
};

/* The PT_LOADs with something in them. */
struct elf_layout {
    struct elf_segment segments[ELF_PHDRS_MAX];
    unsigned count;
    gpa_t highest; /* where the last ends */
};

static const char *elf_machine_name(unsigned machine)
{
    switch (machine) {
    case EM_386:
        return "32-bit x86";
    case EM_AARCH64:
        return "arm64";
    case EM_ARM:
        return "32-bit Arm";
    case EM_RISCV:
        return "RISC-V";
    case EM_PPC64:
        return "POWER";
    case EM_S390:
        return "IBM Z";
    default:
        return "another processor";
    }
}

static int elf_refuse(struct monitor_error *ret_error, const char *why)
{
    return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC, "%s", why);
}

/* What kind of ELF file it is: only from e_ident, e_type and e_machine. */
static int elf_check_kind(const Elf64_Ehdr *header,
                          struct monitor_error *ret_error)
{
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return elf_refuse(ret_error, "it is not an ELF file");
    if (header->e_ident[EI_CLASS] == ELFCLASS32)
        return elf_refuse(ret_error,
                          "it is a 32-bit ELF file, not a 64-bit kernel");
    if (header->e_ident[EI_CLASS] != ELFCLASS64)
        return elf_refuse(ret_error, "its ELF class is not 64-bit");
    if (header->e_ident[EI_DATA] != ELFDATA2LSB)
        return elf_refuse(ret_error, "it is a big-endian ELF file");
    if (header->e_machine != EM_X86_64)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "it is an ELF file for %s, not for x86-64",
                          elf_machine_name(header->e_machine));
    if (header->e_type == ET_REL)
        return elf_refuse(ret_error,
                          "it is an ELF object file or kernel module");
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return elf_refuse(ret_error, "it is not an executable ELF file");
    return 0;
}

/*
 * Sections do not matter for loading, but their table is the last thing in a
 * kernel file: one that lies beyond the end betrays a truncated download.
 */
static int elf_check_tables(const Elf64_Ehdr *header, uint64_t size,
                            struct monitor_error *ret_error)
{
    uint64_t sections = header->e_shnum ? header->e_shnum : 1;

    if (header->e_phnum == 0)
        return elf_refuse(ret_error, "its ELF header lists no segments");
    if (header->e_phentsize != sizeof(Elf64_Phdr))
        return elf_refuse(ret_error,
                          "its ELF program headers have a wrong size");
    if (header->e_phnum > ELF_PHDRS_MAX)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "it has %u ELF program headers, more than %u",
                          header->e_phnum, ELF_PHDRS_MAX);
    if (!num_range_within(header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr),
                          0, size))
        return elf_refuse(ret_error, "the file is truncated: its program "
                                     "headers lie beyond its end");
    if (header->e_shoff != 0 &&
        !num_range_within(header->e_shoff, sections * header->e_shentsize, 0,
                          size))
        return elf_refuse(ret_error, "the file is truncated: its section "
                                     "table lies beyond its end");
    return 0;
}

static int elf_check_segment(const Elf64_Phdr *phdr, unsigned index,
                             uint64_t size, struct monitor_error *ret_error)
{
    if (phdr->p_filesz > phdr->p_memsz)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "its segment %u is larger in the file than in "
                          "memory",
                          index);
    if (!num_range_within(phdr->p_offset, phdr->p_filesz, 0, size))
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "the file is truncated: its segment %u ends beyond "
                          "it",
                          index);
    return 0;
}

static int elf_add_segment(struct elf_layout *layout, const Elf64_Phdr *phdr,
                           unsigned index, const struct guest_mem *mem,
                           struct monitor_error *ret_error)
{
    uint64_t end;
    int ret;

    if (num_add_overflow(phdr->p_paddr, phdr->p_memsz, &end))
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "its segment %u ends beyond the address space",
                          index);
    /* Too little memory is told once all segments are known. */
    ret = boot_check_kernel_range(mem, phdr->p_paddr, end, ret_error);
    if (ret < 0 && ret_error->memory_needed == 0)
        return ret;
    if (end > layout->highest)
        layout->highest = end;
    for (unsigned i = 0; i < layout->count; i++) {
        const struct elf_segment *other = &layout->segments[i];

        if (phdr->p_paddr < other->end && other->start < end)
            return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                              "its segment %u overlaps another", index);
    }
    layout->segments[layout->count++] = (struct elf_segment){
        .start = phdr->p_paddr,
        .end = end,
        .file_size = phdr->p_filesz,
        .file_offset = phdr->p_offset,
    };
    return 0;
}

static int elf_read_layout(int fd, uint64_t size, const Elf64_Ehdr *header,
                           const struct guest_mem *mem,
                           struct elf_layout *ret_layout,
                           struct monitor_error *ret_error)
{
    for (unsigned i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr phdr;
        int ret = boot_file_read(fd, MONITOR_ERROR_KERNEL, &phdr, sizeof(phdr),
                                 header->e_phoff + i * sizeof(phdr), ret_error);

        if (ret < 0)
            return ret;
        if (phdr.p_type == PT_INTERP)
            return elf_refuse(ret_error,
                              "it is an ordinary program, not a kernel");
        if (phdr.p_type != PT_LOAD || phdr.p_memsz == 0)
            continue;
        ret = elf_check_segment(&phdr, i, size, ret_error);
        if (ret == 0)
            ret = elf_add_segment(ret_layout, &phdr, i, mem, ret_error);
        if (ret < 0)
            return ret;
    }
    return ret_layout->highest == 0
               ? 0
               : boot_check_kernel_range(mem, MAP_KERNEL_MIN,
                                         ret_layout->highest, ret_error);
}

/*
 * The entry of vmlinux is a physical address already. It must lie in bytes
 * that the file brings along: bss is no code.
 */
static int elf_check_entry(const struct elf_layout *layout, gpa_t entry,
                           gpa_t *ret_load_end, struct monitor_error *ret_error)
{
    gpa_t load_end = 0;
    int found = 0;

    for (unsigned i = 0; i < layout->count; i++) {
        const struct elf_segment *s = &layout->segments[i];

        if (num_range_within(entry, 1, s->start, s->file_size))
            found = 1;
        if (s->end > load_end)
            load_end = s->end;
    }
    if (layout->count == 0)
        return elf_refuse(ret_error, "it has nothing to load");
    if (!found)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "its entry point 0x%" PRIx64
                          " lies in none of its segments",
                          entry);
    *ret_load_end = load_end;
    return 0;
}

static int elf_load_segments(int fd, const struct elf_layout *layout,
                             const struct guest_mem *mem,
                             struct monitor_error *ret_error)
{
    for (unsigned i = 0; i < layout->count; i++) {
        const struct elf_segment *s = &layout->segments[i];
        void *to = guest_mem_ptr(mem, s->start, s->file_size);
        int ret;

        if (s->file_size == 0)
            continue;
        if (!to)
            return boot_error(ret_error, MONITOR_ERROR_KERNEL, -EFAULT,
                              "its segment at 0x%" PRIx64
                              " lies outside guest memory",
                              s->start);
        ret = boot_file_read(fd, MONITOR_ERROR_KERNEL, to, s->file_size,
                             s->file_offset, ret_error);
        if (ret < 0)
            return ret;
    }
    return 0;
}

int elf_load(int fd, const struct guest_mem *mem, struct kernel_image *ret,
             struct monitor_error *ret_error)
{
    struct elf_layout layout = {.count = 0};
    struct kernel_image image = {.entry = 0};
    Elf64_Ehdr header;
    uint64_t size;
    int error;

    error = boot_file_size(fd, MONITOR_ERROR_KERNEL, &size, ret_error);
    if (error < 0)
        return error;
    if (size < sizeof(header))
        return elf_refuse(ret_error, "the file is truncated: it ends within "
                                     "its ELF header");
    error = boot_file_read(fd, MONITOR_ERROR_KERNEL, &header, sizeof(header), 0,
                           ret_error);
    if (error == 0)
        error = elf_check_kind(&header, ret_error);
    if (error == 0)
        error = elf_check_tables(&header, size, ret_error);
    if (error == 0)
        error = elf_read_layout(fd, size, &header, mem, &layout, ret_error);
    if (error == 0)
        error = elf_check_entry(&layout, header.e_entry, &image.load_end,
                                ret_error);
    if (error == 0)
        error = elf_load_segments(fd, &layout, mem, ret_error);
    if (error < 0)
        return error;
    image.entry = header.e_entry;
    *ret = image;
    return 0;
}
