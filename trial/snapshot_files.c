/* SPDX-License-Identifier: Apache-2.0 */
/* The machine that compares two snapshots' disks; see the header. */
#include "trial/snapshot_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "trial/fitness.h"
#include "trial/image.h"
#include "trial/machine_parts.h"
#include "trial/snapshot_describe.h"
#include "trial/snapshot_internal.h"
#include "trial/trial.h"

/* The disks that an image's machine has; see machine_open.c. */
#define ROOT_ID "root"
#define IMAGE_SCRATCH_ID "scratch"
/* It mounts them read-only: next to nothing is written. */
#define OVERLAY_LIMIT ((uint64_t)64 << 20)

static int fail_host(int error, struct failure *f)
{
    failure_set(f, "host", "descriptors", failure_remedy(error, NULL),
                "cannot prepare a machine to look at the disks: %s",
                strerror(-error));
    return error;
}

/* ---- the image ---------------------------------------------------------- */

/* 1 if the directory is no image, or another one. */
static int try_image(const char *dir, const char *sha256,
                     struct image *ret_image)
{
    char digest[DIGEST_HEX_SIZE];
    char err[IMAGE_ERR_MAX];

    if (image_open(dir, ret_image, err, sizeof(err)) != 0)
        return 1;
    if (snapshot_image_digest(ret_image, digest) == 0 &&
        strcmp(digest, sha256) == 0)
        return 0;
    image_fini(ret_image);
    return 1;
}

static int find_image(const struct snapshot_manifest *m,
                      struct image *ret_image, struct failure *f)
{
    char *folder = image_cache_dir();
    DIR *dir = folder ? opendir(folder) : NULL;
    const struct dirent *entry;
    int ret = 1;

    while (dir && ret == 1 && (entry = readdir(dir)) != NULL) {
        char *path = NULL;

        if (entry->d_name[0] == '.' ||
            asprintf(&path, "%s/%s", folder, entry->d_name) < 0)
            continue;
        ret = try_image(path, m->image_sha256, ret_image);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
    if (ret == 0)
        return 0;
    failure_set(f, "image", m->image_name,
                "give --image NAME: any image built by this version will do",
                "cannot look at the disks: the image that the snapshots were "
                "made of (%s, %.16s...) is not in the image folder",
                m->image_name, m->image_sha256);
    return -ENOENT;
}

static int named_image(const char *name, struct image *ret_image,
                       struct failure *f)
{
    char err[IMAGE_ERR_MAX];
    char *dir = NULL;
    int ret = image_find(name, &dir, err, sizeof(err));

    if (ret == 0)
        ret = image_open(dir, ret_image, err, sizeof(err));
    free(dir);
    if (ret != 0)
        failure_set(f, "image", name, "microsbx image ls lists images", "%s",
                    err);
    return ret;
}

/* ---- the machine -------------------------------------------------------- */

static int fill_spec(const struct image *image, const char *kernel,
                     struct machine_spec *spec)
{
    int ret =
        machine_spec_set(&spec->kernel, kernel ? kernel : image->kernel.path);

    if (ret == 0)
        ret = machine_spec_set(&spec->initrd, image->initrd.path);
    if (ret == 0)
        ret = machine_spec_set(&spec->cmdline, image->cmdline);
    if (ret == 0)
        ret = machine_spec_set(&spec->append, PROTO_COMPARE_WORD);
    return ret;
}

/* A disk of a snapshot becomes one of the machine, under another name. */
static int add_disk(struct machine *m, const struct snapshot *s,
                    const char *disk_id, const char *id, struct failure *f)
{
    const struct snapshot_disk *disk =
        snapshot_manifest_disk(&s->manifest, disk_id);
    const struct snapshot_open_disk *files =
        &s->disks[disk - s->manifest.disks];
    uint32_t index = m->config.disk_count;
    struct vm_disk *ret = &m->config.disks[index];

    ret->mode = disk->mode;
    snprintf(ret->id, sizeof(ret->id), "%s", id);
    ret->fd = fcntl(files->base_fd, F_DUPFD_CLOEXEC, 0);
    m->config.disk_count++;
    m->disk_paths[index] = strdup(disk_id);
    if (ret->fd < 0 || !m->disk_paths[index])
        return fail_host(ret->fd < 0 ? -errno : -ENOMEM, f);
    if (disk->mode != VM_DISK_COW)
        return 0;
    ret->overlay_limit = OVERLAY_LIMIT;
    ret->layer_fd = fcntl(files->cow_fd, F_DUPFD_CLOEXEC, 0);
    if (ret->layer_fd < 0)
        return fail_host(-errno, f);
    return machine_open_overlay(true, &ret->overlay_fd, f);
}

static int open_machine(const struct snapshot *a, const struct snapshot *b,
                        const struct machine_spec *spec,
                        struct machine *ret_machine, struct failure *f)
{
    int ret = machine_open(spec, ret_machine, f);

    if (ret != 0)
        return ret;
    ret = fitness_require(ret_machine->config.kvm_fd, f);
    if (ret == 0)
        ret = add_disk(ret_machine, a, ROOT_ID, PROTO_COMPARE_ROOT, f);
    if (ret == 0)
        ret = add_disk(ret_machine, a, IMAGE_SCRATCH_ID, PROTO_COMPARE_A, f);
    if (ret == 0)
        ret = add_disk(ret_machine, b, IMAGE_SCRATCH_ID, PROTO_COMPARE_B, f);
    if (ret != 0)
        machine_close(ret_machine);
    return ret;
}

/* The machine with the image's kernel and initrd; the image is not kept. */
static int prepare(const struct snapshot *a, const struct snapshot *b,
                   const struct snapshot_files_options *options,
                   struct machine *ret_machine, struct failure *f)
{
    struct machine_spec spec;
    struct image image = {.dir = NULL};
    int ret = options->image ? named_image(options->image, &image, f)
                             : find_image(&a->manifest, &image, f);

    if (ret != 0)
        return ret;
    machine_spec_init(&spec);
    ret = fill_spec(&image, options->kernel, &spec);
    ret = ret != 0 ? fail_host(ret, f)
                   : open_machine(a, b, &spec, ret_machine, f);
    machine_spec_fini(&spec);
    image_fini(&image);
    return ret;
}

/* ---- its answer --------------------------------------------------------- */

static int fail_unknown(const char *remedy, const char *why, struct failure *f)
{
    failure_set(f, "files_unknown", "disks", remedy,
                "cannot tell which files differ: %s", why);
    return -EIO;
}

/* The machine did not power itself off, or spoke without end. */
static int explain_end(const struct trial_result *r, struct failure *f)
{
    char why[128];

    if (r->facts.cancelled) {
        *f = r->failure;
        return -ECANCELED;
    }
    if (failure_is_set(&r->failure)) {
        *f = r->failure;
        return -EIO;
    }
    snprintf(why, sizeof(why),
             "the machine that looks at the disks ended by %s",
             outcome_name(r->outcome.kind));
    return fail_unknown("look into the snapshots with microsbx run", why, f);
}

static int explain_answer(int ret, struct failure *f)
{
    char why[160];

    if (ret == -EBADMSG)
        return fail_unknown("give --image NAME with an image built by this "
                            "version",
                            "the machine that looks at the disks gave no "
                            "whole answer",
                            f);
    if (ret < 0)
        return fail_host(ret, f);
    if (ret == E2BIG)
        return fail_unknown("look into the snapshots with microsbx run",
                            "there are too many of them to list", f);
    snprintf(why, sizeof(why),
             "the machine that looks at the disks gave up: %s", strerror(ret));
    return fail_unknown("the disks may be damaged; look into the snapshots "
                        "with microsbx run",
                        why, f);
}

/* Runs the machine; what it says on its console goes to the file. */
static int run(struct machine *machine, int answer_fd, int signal_fd,
               struct failure *f)
{
    const struct trial_spec spec = {
        .no_agent = true,
        .stdin_fd = -1,
        .timeout_ms = SNAPSHOT_FILES_TIMEOUT_MS,
        .output_limit = SNAPSHOT_FILES_ANSWER_MAX,
        .output_ends = true,
        .out = {.fd = answer_fd, .file = "the answer"},
        .err = {.fd = -1},
        .signal_fd = signal_fd,
    };
    struct trial_result *result = calloc(1, sizeof(*result));
    int ret = 0;

    if (!result)
        return fail_host(-ENOMEM, f);
    trial_run(&spec, machine, result);
    if (result->outcome.kind != OUTCOME_OK)
        ret = explain_end(result, f);
    else if (result->out.dropped > 0)
        ret = explain_answer(-EBADMSG, f);
    free(result);
    return ret;
}

static int read_answer(int fd, const struct snapshot_files_options *options,
                       uint32_t *ret_count, struct failure *f)
{
    /* All of it is read before any of it is believed. */
    int ret = snapshot_files_read(fd, NULL, NULL, ret_count);

    if (ret == 0)
        ret = snapshot_files_read(fd, options->report, options->ctx, ret_count);
    return ret == 0 ? 0 : explain_answer(ret, f);
}

/* ------------------------------------------------------------------------- */

static int check_disks(const struct snapshot *s, struct failure *f)
{
    const struct snapshot_disk *root =
        snapshot_manifest_disk(&s->manifest, ROOT_ID);
    const struct snapshot_disk *scratch =
        snapshot_manifest_disk(&s->manifest, IMAGE_SCRATCH_ID);

    if (s->manifest.has_image && root && root->mode == VM_DISK_RO && scratch &&
        scratch->mode == VM_DISK_COW)
        return 0;
    failure_set(f, "files_unknown", s->dir, "leave out --files",
                "cannot tell which files differ: the machine of %s was not "
                "made from an image",
                s->dir);
    return -EINVAL;
}

int snapshot_files(const struct snapshot *a, const struct snapshot *b,
                   const struct snapshot_files_options *options,
                   uint32_t *ret_count, struct failure *f)
{
    struct machine machine;
    int answer_fd;
    int ret = check_disks(a, f);

    if (ret == 0)
        ret = check_disks(b, f);
    if (ret != 0)
        return ret;
    answer_fd = snapshot_temporary();
    if (answer_fd < 0)
        return fail_host(answer_fd, f);
    ret = prepare(a, b, options, &machine, f);
    if (ret == 0) {
        ret = run(&machine, answer_fd, options->signal_fd, f);
        machine_close(&machine);
    }
    if (ret == 0)
        ret = read_answer(answer_fd, options, ret_count, f);
    io_close(&answer_fd);
    return ret;
}
