/* SPDX-License-Identifier: Apache-2.0 */
/* /dev/kvm; see the header. */
#include "trial/kvm_open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KVM "/dev/kvm"
#define GROUPS_MAX 1024

static void deny(struct failure *f, const char *remedy, const char *why)
{
    failure_set(f, "kvm_not_permitted", KVM, remedy,
                "cannot open " KVM ": permission denied%s", why);
}

/* The permissions of the file, or something else, were in the way. */
static void explain_access(const struct kvm_denial *d, struct failure *f)
{
    bool group_may = (d->mode & 0060) == 0060;
    char remedy[160];

    if (d->mode == 0 || (group_may && d->member)) {
        deny(f, "look for a mount with nodev, or a security module",
             d->mode == 0 ? "" : ", although its mode permits it");
        return;
    }
    if (!group_may || d->group == 0) {
        deny(f,
             "as root: chgrp kvm " KVM "; chmod 660 " KVM "; and join that "
             "group",
             !group_may ? ": its mode permits root alone"
                        : ": it belongs to the group of root");
        return;
    }
    if (d->group_name)
        snprintf(remedy, sizeof(remedy),
                 "join the group %.32s (adduser $USER %.32s) and log in again",
                 d->group_name, d->group_name);
    else
        snprintf(remedy, sizeof(remedy),
                 "run as a member of the group with the id %u",
                 (unsigned)d->group);
    deny(f, remedy, "");
}

void kvm_explain(const struct kvm_denial *d, struct failure *f)
{
    switch (d->error) {
    case EACCES:
        explain_access(d, f);
        break;
    case EPERM:
        failure_set(f, "kvm_not_permitted", KVM,
                    "give it to the container (docker run --device " KVM ")",
                    "cannot open " KVM ": the host's rules for devices forbid "
                    "it");
        break;
    case ENOENT:
    case ENODEV:
    case ENXIO:
        failure_set(f, "kvm_missing", KVM,
                    "switch on virtualisation in the firmware and load "
                    "kvm_intel or kvm_amd; give a container the device; or "
                    "run inside scripts/kvmhost",
                    "cannot open " KVM ": %s", strerror(d->error));
        break;
    default:
        failure_set(f, "host", KVM,
                    failure_remedy(d->error, "look at the kernel's log"),
                    "cannot open " KVM ": %s", strerror(d->error));
    }
}

static bool is_member(gid_t group)
{
    gid_t groups[GROUPS_MAX];
    int count = getgroups(GROUPS_MAX, groups);

    for (int i = 0; i < count; i++)
        if (groups[i] == group)
            return true;
    return getegid() == group;
}

/* From /etc/group: a static program has no other sources. */
static const char *name_of(gid_t group, char *buf, size_t size)
{
    FILE *file = fopen("/etc/group", "re");
    const char *found = NULL;
    char *line = NULL;
    size_t room = 0;

    while (file && !found && getline(&line, &room, file) > 0) {
        unsigned id;

        if (sscanf(line, "%*[^:]:%*[^:]:%u:", &id) == 1 && id == group) {
            snprintf(buf, size, "%.*s", (int)strcspn(line, ":"), line);
            found = buf;
        }
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

int kvm_open(int *ret_fd, struct failure *f)
{
    int fd = open(KVM, O_RDWR | O_CLOEXEC);
    struct kvm_denial denial = {.error = errno};
    char name[64];
    struct stat st;

    if (fd >= 0) {
        *ret_fd = fd;
        return 0;
    }
    if (stat(KVM, &st) == 0) {
        denial.mode = st.st_mode;
        denial.group = st.st_gid;
        denial.member = is_member(st.st_gid);
        denial.group_name = name_of(st.st_gid, name, sizeof(name));
    }
    kvm_explain(&denial, f);
    return -denial.error;
}
