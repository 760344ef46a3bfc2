/* SPDX-License-Identifier: Apache-2.0 */
/* Looking into a kernel; see the header. */
#include "trial/kernel_platform.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/num.h"

#define CHUNK ((size_t)1 << 20)

/* What is in every kernel with that part, and in no other. */
enum { LINUX, ACPI, TREE, MARKS };
static const char *const marks[MARKS] = {
    [LINUX] = "Linux version ",
    [ACPI] = "ACPI BIOS Error (bug): ", /* ACPICA's own messages */
    [TREE] = "intel,ce4100-lapic",      /* x86's reader of a tree */
};
#define MARK_MAX 32u /* no shorter than any */

static bool contains(const char *buf, size_t len, const char *mark)
{
    return memmem(buf, len, mark, strlen(mark)) != NULL;
}

/* Reads a file to its end, or until it is known to read ACPI. 0 or -errno. */
static int look_for_marks(int fd, bool found[MARKS])
{
    char *buf = malloc(MARK_MAX + CHUNK);
    size_t kept = 0; /* of the chunk before: a mark may lie across */
    uint64_t at = 0;
    ssize_t n = 1;

    if (!buf)
        return -ENOMEM;
    while (n > 0 && !found[ACPI]) {
        size_t len;

        n = io_pread_full(fd, buf + kept, CHUNK, at);
        if (n <= 0)
            break;
        len = kept + (size_t)n;
        for (size_t i = 0; i < MARKS; i++)
            found[i] = found[i] || contains(buf, len, marks[i]);
        at += (uint64_t)n;
        kept = len < MARK_MAX ? len : MARK_MAX;
        memmove(buf, buf + len - kept, kept);
    }
    free(buf);
    return n < 0 ? (int)n : 0;
}

int kernel_choose_platform(int fd, const char *path,
                           enum vm_platform *ret_platform, struct failure *f)
{
    bool found[MARKS] = {false};
    char magic[4] = {0};
    int ret = 0;

    if (io_pread_full(fd, magic, 4, 0) != 4 ||
        memcmp(magic, "\177ELF", 4) != 0) {
        *ret_platform = VM_PLATFORM_ACPI;
        return 0;
    }
    ret = look_for_marks(fd, found);
    if (ret < 0) {
        failure_set(f, "kernel", path, "check the file",
                    "cannot read the kernel %s: %s", path, strerror(-ret));
        return ret;
    }
    if (found[LINUX] && !found[ACPI] && !found[TREE]) {
        failure_set(f, "kernel", path,
                    "take one built with CONFIG_ACPI, or with CONFIG_OF for "
                    "x86; to try it all the same, say --platform acpi or "
                    "--platform devicetree",
                    "the kernel %s reads neither ACPI tables nor a device "
                    "tree: it would find no device of this machine, not even "
                    "the one that switches it off",
                    path);
        return -ENOEXEC;
    }
    *ret_platform = found[ACPI] ? VM_PLATFORM_ACPI : VM_PLATFORM_DEVICE_TREE;
    return 0;
}
