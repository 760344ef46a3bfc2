/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asked for, and its text form; see the header. */
#include "trial/machine_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void machine_spec_init(struct machine_spec *spec)
{
    *spec = (struct machine_spec){
        .memory_bytes = MACHINE_MEMORY_DEFAULT,
        .cpu_count = 1,
        .disk_limit = MACHINE_DISK_LIMIT_DEFAULT,
        .guest_cid = MACHINE_GUEST_CID,
    };
}

void machine_spec_fini(struct machine_spec *spec)
{
    free(spec->image);
    free(spec->kernel);
    free(spec->initrd);
    free(spec->cmdline);
    free(spec->root);
    free(spec->append);
    free(spec->vsock_path);
    for (unsigned i = 0; i < spec->disk_count; i++)
        free(spec->disks[i].path);
    machine_spec_init(spec);
}

int machine_spec_set(char **field, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

static int fail_disk(const char *text, const char *why, struct failure *f)
{
    failure_set(f, "usage", text,
                "write it FILE[,cow|ro|rw][,id=ID], at most 20 letters, "
                "digits, '-', '_' or '.' for ID",
                "cannot use --disk %s: %s", text, why);
    return -EINVAL;
}

bool machine_spec_id_is_valid(const char *id)
{
    size_t len = strlen(id);

    return len > 0 && len <= VM_DISK_ID_MAX &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                      "0123456789-_.") == len;
}

static int apply_disk_word(struct disk_spec *disk, const char *text,
                           const char *word, struct failure *f)
{
    if (!strcmp(word, "cow")) {
        disk->mode = VM_DISK_COW;
    } else if (!strcmp(word, "ro")) {
        disk->mode = VM_DISK_RO;
    } else if (!strcmp(word, "rw")) {
        disk->mode = VM_DISK_RW;
    } else if (!strncmp(word, "id=", 3)) {
        if (!machine_spec_id_is_valid(word + 3))
            return fail_disk(text, "the id is not valid", f);
        strcpy(disk->id, word + 3);
    } else {
        return fail_disk(text, "a word behind the comma is not known", f);
    }
    return 0;
}

int machine_spec_add_disk(struct machine_spec *spec, const char *text,
                          struct failure *f)
{
    struct disk_spec *disk = &spec->disks[spec->disk_count];
    char *save = NULL;
    char *word;
    int ret = 0;

    if (spec->disk_count == VM_DISKS_MAX)
        return fail_disk(text, "there are too many disks (8 at most)", f);
    *disk = (struct disk_spec){.path = strdup(text), .mode = VM_DISK_COW};
    if (!disk->path)
        return fail_disk(text, "out of memory", f);
    spec->disk_count++; /* from here machine_spec_fini frees the path */
    if (text[0] == ',' || text[0] == '\0')
        return fail_disk(text, "the file name is empty", f);
    strtok_r(disk->path, ",", &save);
    while (ret == 0 && (word = strtok_r(NULL, ",", &save)))
        ret = apply_disk_word(disk, text, word, f);
    return ret;
}
