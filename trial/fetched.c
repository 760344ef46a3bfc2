/* SPDX-License-Identifier: Apache-2.0 */
/* Files that a trial fetches; see the header. */
#include "trial/fetched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder a file is to be put into can take it: 0 or a negative errno. */
static int check_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int ret = folder ? 0 : -ENOMEM;

    if (ret == 0 && access(folder, W_OK | X_OK) != 0)
        ret = -errno;
    free(folder);
    return ret;
}

/* 0 or a negative errno. */
static int forget(const char *path)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? check_folder(path) : -errno;
    if (S_ISLNK(st.st_mode))
        return -ELOOP; /* what it points to is not ours to remove */
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (!S_ISREG(st.st_mode))
        return 0;
    return unlink(path) != 0 && errno != ENOENT ? -errno : check_folder(path);
}

static const char *remedy_for(int error)
{
    switch (error) {
    case EISDIR:
        return "end DST with / to fetch into a folder";
    case ELOOP:
        return "DST must not be a symbolic link; name the file itself";
    case ENOENT:
    case ENOTDIR:
        return "make its folder first";
    default:
        return failure_remedy(error, "remove it, or fetch to another place");
    }
}

int fetched_forget(const struct trial_file *files, size_t count,
                   struct failure *f)
{
    int ret = 0;

    for (size_t i = 0; i < count; i++) {
        int one = files[i].get ? forget(files[i].dst) : 0;

        if (one != 0 && ret == 0)
            failure_set(f, "get_failed", files[i].dst, remedy_for(-one),
                        "cannot fetch %s to %s: %s", files[i].src, files[i].dst,
                        strerror(-one));
        ret = ret == 0 ? one : ret;
    }
    return ret;
}

mode_t fetched_mode(uint32_t guest_mode)
{
    mode_t mask = umask(0);

    umask(mask);
    return ((mode_t)guest_mode & 0777 & ~mask) | S_IRUSR;
}

bool fetched_is_missing(const struct trial_file *file,
                        const struct trial_file_result *result)
{
    if (!file->get || result->status == TRIAL_FILE_OK)
        return false;
    return !file->optional || result->status != TRIAL_FILE_ERROR ||
           result->error_here || result->error != ENOENT;
}

void fetched_explain(const struct trial_file *file,
                     const struct trial_file_result *result,
                     struct failure *ret_failure)
{
    bool absent = result->error == ENOENT && !result->error_here;
    const char *remedy = failure_remedy(
        result->error, "look at the permissions there on this host");

    if (result->status != TRIAL_FILE_ERROR) {
        failure_set(ret_failure, "get_failed", file->src, NULL,
                    "cannot fetch %s to %s: the trial ended before", file->src,
                    file->dst);
        return;
    }
    if (absent)
        remedy = "write --get SRC:DST,optional where it may be missing";
    else if (!result->error_here)
        remedy = result->error == EFBIG ? "at most 100 MiB are fetched"
                                        : "only files that the user may read "
                                          "are fetched";
    failure_set(ret_failure, "get_failed", file->src, remedy,
                "cannot fetch %s to %s: %s: %s", file->src, file->dst,
                result->error_here ? "on this host" : "in the guest",
                strerror(result->error));
}

void fetched_count(const struct trial_spec *spec, struct trial_result *result)
{
    for (size_t i = 0; i < spec->file_count && result->facts.workload_may_run;
         i++) {
        const struct trial_file *file = &spec->files[i];

        if (!fetched_is_missing(file, &result->files[i]))
            continue;
        if (result->missing++ == 0)
            fetched_explain(file, &result->files[i], &result->missing_why);
    }
}
