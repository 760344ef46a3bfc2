/* SPDX-License-Identifier: Apache-2.0 */
/* Images out of the cache; see the header. */
#include "cli/image_rm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "trial/image.h"
#include "trial/registry.h"

#define NAMES_MAX 256

static int fail(const char *name, int error, struct failure *f)
{
    failure_set(f, "image", name, NULL, "cannot remove the image %s: %s", name,
                strerror(-error));
    return error;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int fail_unknown(const char *cache, const char *name, struct failure *f)
{
    struct dirent **entries = NULL;
    const char *names[NAMES_MAX + 1];
    char shown[80], remedy[120] = "microsbx image ls lists the images";
    int found = scandir(cache, &entries, is_visible, alphasort);
    int count = found < 0 ? 0 : found;
    const char *near;

    for (int i = 0; i < count && i < NAMES_MAX; i++)
        names[i] = entries[i]->d_name;
    names[count < NAMES_MAX ? count : NAMES_MAX] = NULL;
    near = text_nearest(name, names);
    if (near)
        snprintf(remedy, sizeof(remedy), "did you mean %.64s?", near);
    text_escape(name, strlen(name), shown, sizeof(shown));
    failure_set(f, "image", shown, remedy, "there is no image named %s", shown);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    return -ENOENT;
}

/* Whoever builds it holds this: its descriptor, or a negative errno. */
static int take_build_lock(int cache_fd, const char *name, struct failure *f)
{
    char lock[REGISTRY_NAME_MAX + 16];
    int fd;

    snprintf(lock, sizeof(lock), ".%s.lock", name);
    fd =
        openat(cache_fd, lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail(name, -errno, f);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    close(fd);
    failure_set(f, "image", name, "wait until that is over",
                "cannot remove the image %s: it is being built", name);
    return -EBUSY;
}

/* A folder of files: 0 or a negative errno. */
static int remove_folder(int cache_fd, const char *folder)
{
    int fd = openat(cache_fd, folder,
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    int ret = 0;

    if (!dir) {
        ret = -errno;
        io_close(&fd);
        return ret;
    }
    while ((e = readdir(dir))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            unlinkat(fd, e->d_name, 0) != 0)
            ret = -errno;
    }
    closedir(dir);
    if (ret == 0 && unlinkat(cache_fd, folder, AT_REMOVEDIR) != 0)
        ret = -errno;
    return ret;
}

static int remove_image(int cache_fd, const char *name)
{
    char old[REGISTRY_NAME_MAX + 32], versions[REGISTRY_NAME_MAX + 32];

    snprintf(old, sizeof(old), ".%s.removed-%d", name, (int)getpid());
    snprintf(versions, sizeof(versions), ".%s.versions", name);
    if (renameat(cache_fd, name, cache_fd, old) != 0)
        return -errno;
    (void)unlinkat(cache_fd, versions, 0);
    return remove_folder(cache_fd, old);
}

int image_rm(const char *name, struct failure *f)
{
    char *cache = image_cache_dir();
    int cache_fd = cache ? open(cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int lock_fd = -1;
    int ret;

    /* Names of images are made as those of machines. */
    if (!registry_name_is_valid(name) || cache_fd < 0 ||
        faccessat(cache_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
        ret = fail_unknown(cache ? cache : "", name, f);
    } else {
        ret = lock_fd = take_build_lock(cache_fd, name, f);
        if (ret >= 0) {
            ret = remove_image(cache_fd, name);
            if (ret != 0)
                fail(name, ret, f);
        }
    }
    io_close(&lock_fd);
    io_close(&cache_fd);
    free(cache);
    return ret;
}
