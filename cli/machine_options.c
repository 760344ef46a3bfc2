/* SPDX-License-Identifier: Apache-2.0 */
/* Machine options; see the header. */
#include "cli/machine_options.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "trial/vm_json.h"

static const struct option_spec SPECS[] = {
    {"image", 0, "NAME|DIR", false,
     "Image to start: a name that microsbx image ls lists, or a directory."},
    {"kernel", 0, "FILE", false,
     "Kernel: x86-64 vmlinux or bzImage. In place of the image's, if both."},
    {"initrd", 0, "FILE", false, "Initial RAM disk. In place of the image's."},
    {"append", 0, "STR", false,
     "Words to add behind the kernel's command line."},
    {"disk", 0, "FILE[,cow|ro|rw][,id=ID]", true,
     "A disk. cow (default): the file is never changed; ro: read-only; rw: "
     "the file is written and locked."},
    {"memory", 'm', "SIZE", false,
     "Memory, an even number of MiB from 32M. Default 256M."},
    {"cpus", 0, "N", false, "Virtual CPUs. Default 1."},
    {"vsock", 0, "UDS", false,
     "Unix socket to reach guest ports by (CONNECT <port>); a guest's own "
     "connections to host port P go to UDS_P."},
    {"platform", 0, "auto|acpi|devicetree", false,
     "How the machine is described to the kernel. Default auto: acpi for a "
     "bzImage; for a vmlinux acpi if it reads that, else devicetree."},
    {"overlay", 0, "file|memory", false,
     "Where changes to cow disks lie: an unlinked file in $TMPDIR (default "
     "/var/tmp), or memory. Default file."},
    {"disk-limit", 0, "SIZE", false,
     "How much a guest may change on each cow disk. Default 1G."},
    {"jail", 0, "none", false,
     "Confinement of the monitor process. This version has none yet."},
    {"network", 0, "none", false,
     "A machine has no network: only none is possible."},
    {"config", 0, "FILE", false,
     "Machine as JSON with Firecracker's keys: boot-source, drives, "
     "machine-config, vsock, entropy. Other options win over it."},
    {NULL, 0, NULL, false, NULL},
};

const struct option_group MACHINE_OPTIONS = {"Machine options", SPECS};

static int fail_word(const char *name, const char *value,
                     const char *const *words, struct failure *f)
{
    char remedy[128] = "";
    const char *near = text_nearest(value, words);

    strcat(remedy, "use ");
    for (size_t i = 0; words[i]; i++) {
        strcat(remedy, i > 0 ? " or " : "");
        strcat(remedy, words[i]);
    }
    failure_set(f, "usage", name, remedy, "option --%s: '%s' is not known%s%s",
                name, value, near ? "; did you mean " : "", near ? near : "");
    return -EINVAL;
}

/* Index of an option's value in words; 0 if it is not given; -EINVAL. */
static int read_word(const struct options *options, const char *name,
                     const char *const *words, struct failure *f)
{
    const char *value = options_get(options, name);

    if (!value)
        return 0;
    for (int i = 0; words[i]; i++) {
        if (!strcmp(value, words[i]))
            return i;
    }
    return fail_word(name, value, words, f);
}

static int read_strings(const struct options *options,
                        struct machine_spec *spec, struct failure *f)
{
    const struct {
        const char *name;
        char **field;
    } strings[] = {
        {"image", &spec->image},      {"kernel", &spec->kernel},
        {"initrd", &spec->initrd},    {"append", &spec->append},
        {"vsock", &spec->vsock_path},
    };

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        const char *value = options_get(options, strings[i].name);

        if (!value)
            continue;
        if (machine_spec_set(strings[i].field, value) != 0) {
            failure_set(f, "host", "memory", NULL, "out of memory");
            return -EINVAL;
        }
    }
    return 0;
}

static int read_numbers(const struct options *options,
                        struct machine_spec *spec, struct failure *f)
{
    unsigned long long memory = spec->memory_bytes;
    unsigned long long cpus = spec->cpu_count;
    unsigned long long limit = spec->disk_limit;
    int ret = options_get_size(options, "memory", &memory, f);

    if (ret == 0)
        ret = options_get_number(options, "cpus", 1, VM_CPUS_MAX, &cpus, f);
    if (ret == 0)
        ret = options_get_size(options, "disk-limit", &limit, f);
    if (ret == 0 && limit == 0) {
        failure_set(f, "usage", "disk-limit", "give a size",
                    "option --disk-limit: 0 would leave no room at all");
        ret = -EINVAL;
    }
    if (ret != 0)
        return ret;
    spec->memory_bytes = memory;
    spec->cpu_count = cpus;
    spec->disk_limit = limit;
    return 0;
}

static int read_words(const struct options *options, struct machine_spec *spec,
                      struct failure *f)
{
    static const char *const PLATFORMS[] = {"auto", "acpi", "devicetree", NULL};
    static const char *const OVERLAYS[] = {"file", "memory", NULL};
    const char *jail = options_get(options, "jail");
    const char *network = options_get(options, "network");
    int platform = read_word(options, "platform", PLATFORMS, f);
    int overlay =
        platform < 0 ? platform : read_word(options, "overlay", OVERLAYS, f);

    if (overlay < 0)
        return overlay;
    if (jail && strcmp(jail, "none") != 0) {
        failure_set(f, "usage", "jail", "give --jail none, or leave it out",
                    "option --jail: '%s' is not available in this version, "
                    "which cannot confine its monitor yet",
                    jail);
        return -EINVAL;
    }
    if (network && strcmp(network, "none") != 0) {
        failure_set(f, "usage", "network",
                    "leave it out; reach the machine by --vsock, microsbx exec "
                    "and microsbx cp",
                    "option --network: '%s' is not available: a machine has no "
                    "network",
                    network);
        return -EINVAL;
    }
    if (options_has(options, "platform"))
        spec->platform = (enum machine_platform)platform;
    if (options_has(options, "overlay"))
        spec->overlay_in_memory = overlay == 1;
    return 0;
}

int machine_options_read(const struct options *options,
                         struct machine_spec *spec, struct failure *f)
{
    const char *config = options_get(options, "config");
    const char *disk;
    int ret = 0;

    if (config)
        ret = vm_json_read(config, spec, f);
    if (ret == 0)
        ret = read_strings(options, spec, f);
    if (ret == 0)
        ret = read_numbers(options, spec, f);
    if (ret == 0)
        ret = read_words(options, spec, f);
    for (size_t i = 0; ret == 0 && (disk = options_get_nth(options, "disk", i));
         i++)
        ret = machine_spec_add_disk(spec, disk, f);
    return ret;
}
