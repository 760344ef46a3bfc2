/* SPDX-License-Identifier: Apache-2.0 */
/* vm.json: any bytes. What is accepted keeps to every bound; a refusal says
 * why, in text that is harmless for a terminal. */
#include <stdlib.h>

#include "base/num.h"
#include "trial/vm_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(const struct machine_spec *spec)
{
    if (spec->disk_count > VM_DISKS_MAX || spec->cpu_count < 1 ||
        spec->cpu_count > VM_CPUS_MAX || spec->guest_cid < 3 ||
        spec->memory_bytes < VM_MEMORY_MIN ||
        spec->memory_bytes > VM_MEMORY_MAX)
        abort();
    for (unsigned i = 0; i < spec->disk_count; i++) {
        const struct disk_spec *disk = &spec->disks[i];

        if (!disk->path || (disk->id[0] && !machine_spec_id_is_valid(disk->id)))
            abort();
    }
}

static void check_refused(const struct failure *f)
{
    if (!failure_is_set(f) || !f->message[0])
        abort();
    for (const char *p = f->message; *p; p++) {
        if (*p < ' ' || *p > '~')
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine_spec spec;
    struct failure f = {0};

    machine_spec_init(&spec);
    if (vm_json_parse((const char *)data, size, "vm.json", &spec, &f) == 0)
        check_accepted(&spec);
    else
        check_refused(&f);
    machine_spec_fini(&spec);
    return 0;
}
