/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about this host; see the header. */
#include "trial/host.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"

#define CPUID_HYPERVISOR 0x40000000u
#define CPUID_ECX_HYPERVISOR (1u << 31)

int host_read_line(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    buf[0] = '\0';
    if (fd < 0)
        return -errno;
    n = io_read_full(fd, buf, size - 1);
    io_close(&fd);
    if (n < 0)
        return (int)n;
    buf[n] = '\0';
    buf[strcspn(buf, "\n")] = '\0';
    return 0;
}

/* The emulator says who it is in CPUID leaf 0x40000000. */
static bool is_tcg(void)
{
    uint32_t eax, ebx, ecx, edx;
    char vendor[13] = "";

    __cpuid(CPUID_HYPERVISOR, eax, ebx, ecx, edx);
    memcpy(vendor, &ebx, 4);
    memcpy(vendor + 4, &ecx, 4);
    memcpy(vendor + 8, &edx, 4);
    return strcmp(vendor, "TCGTCGTCGTCG") == 0;
}

/*
 * Bochs' CPUID is that of a real processor to the last bit, so it is told by
 * its BIOS. (QEMU's ACPI tables name Bochs, too; its SMBIOS does not.)
 */
static bool is_bochs(void)
{
    char vendor[32];

    return host_read_line("/sys/class/dmi/id/bios_vendor", vendor,
                          sizeof(vendor)) == 0 &&
           strcmp(vendor, "The Bochs Project") == 0;
}

const char *host_emulator(void)
{
    uint32_t eax, ebx, ecx, edx;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return NULL;
    if (ecx & CPUID_ECX_HYPERVISOR)
        return is_tcg() ? "QEMU TCG" : NULL;
    return is_bochs() ? "Bochs" : NULL;
}

bool host_is_emulated(void)
{
    return host_emulator() != NULL;
}

bool host_has_smt(void)
{
    char line[16];

    return host_read_line("/sys/devices/system/cpu/smt/active", line,
                          sizeof(line)) == 0 &&
           line[0] == '1';
}

void host_cpu_model(char *buf, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");

    snprintf(buf, size, "unknown");
    while (f && fgets(line, sizeof(line), f)) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        text_escape(colon + 2, strlen(colon + 2), buf, size);
        break;
    }
    if (f)
        fclose(f);
}
