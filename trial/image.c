/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding an image's directory and looking at its files. What stands in
 * image.json is image_json.c's business.
 */
#include "trial/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"

__attribute__((format(printf, 4, 5))) static int
fail(int error, char *err, size_t err_size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(err, err_size, format, args);
    va_end(args);
    /* A path of a stranger's choosing must not drive the terminal. */
    for (char *c = err; err_size > 0 && *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return error;
}

char *image_cache_dir(void)
{
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char *dir = NULL;

    /* The XDG rule: a relative path there is to be ignored. */
    if (cache != NULL && cache[0] == '/') {
        if (asprintf(&dir, "%s/microsbx/images", cache) < 0)
            return NULL;
    } else if (home != NULL && home[0] == '/') {
        if (asprintf(&dir, "%s/.cache/microsbx/images", home) < 0)
            return NULL;
    }
    return dir;
}

static bool has_image_json(const char *dir)
{
    struct stat st;
    char *path;
    bool found;

    if (asprintf(&path, "%s/image.json", dir) < 0)
        return false;
    found = stat(path, &st) == 0;
    free(path);
    return found;
}

static int resolve_dir(const char *dir, char **ret_dir, char *err,
                       size_t err_size)
{
    char *path = realpath(dir, NULL);

    if (path == NULL) {
        int error = errno > 0 ? -errno : -EIO;

        (void)fail(error, err, err_size, "cannot open image directory '%s': %s",
                   dir, strerror(-error));
        return error;
    }
    *ret_dir = path;
    return 0;
}

static int find_by_name(const char *name, char **ret_dir, char *err,
                        size_t err_size)
{
    char *cache = image_cache_dir();
    char *dir = NULL;
    int ret = -ENOMEM;

    if (cache == NULL)
        return fail(-ENOENT, err, err_size,
                    "cannot look for image '%s': "
                    "neither XDG_CACHE_HOME nor HOME is an absolute path; "
                    "set HOME, or name a directory",
                    name);
    if (asprintf(&dir, "%s/%s", cache, name) < 0) {
        dir = NULL;
        (void)fail(ret, err, err_size, "cannot look for image: no memory");
    } else if (has_image_json(dir)) {
        ret = resolve_dir(dir, ret_dir, err, err_size);
    } else if (has_image_json(name)) {
        ret = resolve_dir(name, ret_dir, err, err_size);
    } else {
        ret = fail(-ENOENT, err, err_size,
                   "there is no image '%s' in %s; "
                   "build it with: microsbx image build %s",
                   name, cache, name);
    }
    free(dir);
    free(cache);
    return ret;
}

int image_find(const char *name_or_dir, char **ret_dir, char *err,
               size_t err_size)
{
    if (name_or_dir[0] == '\0')
        return fail(-EINVAL, err, err_size,
                    "an image needs a name or a "
                    "directory; 'microsbx image ls' lists names");
    if (name_or_dir[0] == '.' || strchr(name_or_dir, '/') != NULL)
        return resolve_dir(name_or_dir, ret_dir, err, err_size);
    if (strlen(name_or_dir) > IMAGE_NAME_MAX)
        return fail(-ENAMETOOLONG, err, err_size,
                    "'%.32s...' is too long for "
                    "the name of an image; at most %u characters",
                    name_or_dir, IMAGE_NAME_MAX);
    return find_by_name(name_or_dir, ret_dir, err, err_size);
}

/* Reads image.json; the caller frees *ret_text. */
static int read_json(int dir_fd, const char *dir, char **ret_text,
                     size_t *ret_len, char *err, size_t err_size)
{
    /* Not blocking: a FIFO of that name must not hang us. */
    int fd = openat(dir_fd, "image.json",
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int ret = -errno;
    char *text = NULL;
    struct stat st;
    ssize_t n;

    if (fd < 0)
        return fail(ret, err, err_size,
                    "cannot read '%s/image.json': %s; is "
                    "this an image directory?",
                    dir, strerror(-ret));
    ret = -EBADMSG;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        (void)fail(ret, err, err_size,
                   "'%s/image.json' is not a regular "
                   "file; build the image anew",
                   dir);
        goto out_close;
    }
    text = malloc(IMAGE_JSON_MAX + 1);
    /* One byte more than allowed, so that the parser can tell. */
    n = text == NULL ? -ENOMEM : io_read_full(fd, text, IMAGE_JSON_MAX + 1);
    if (n < 0) {
        ret = fail((int)n, err, err_size, "cannot read '%s/image.json': %s",
                   dir, strerror((int)-n));
        goto out_free;
    }
    *ret_text = text;
    *ret_len = (size_t)n;
    text = NULL;
    ret = 0;
out_free:
    free(text);
out_close:
    io_close(&fd);
    return ret;
}

/* Compares a part with the record of it and makes its path absolute. */
static int check_part(int dir_fd, const char *dir, const char *which,
                      struct image_part *part, char *err, size_t err_size)
{
    struct stat st;
    char *path;

    if (fstatat(dir_fd, part->path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        int error = -errno;

        return fail(error, err, err_size,
                    "the image in %s lacks its %s: "
                    "'%s': %s; build the image anew",
                    dir, which, part->path, strerror(-error));
    }
    if (!S_ISREG(st.st_mode))
        return fail(-EBADMSG, err, err_size,
                    "the %s of the image in %s, "
                    "'%s', is not a regular file; build the image anew",
                    which, dir, part->path);
    if ((uint64_t)st.st_size != part->bytes)
        return fail(-EBADMSG, err, err_size,
                    "the %s of the image in %s, "
                    "'%s', has %jd bytes instead of %" PRIu64 "; it was "
                    "damaged or replaced: build the image anew",
                    which, dir, part->path, (intmax_t)st.st_size, part->bytes);
    if (asprintf(&path, "%s/%s", dir, part->path) < 0)
        return fail(-ENOMEM, err, err_size, "cannot open image: no memory");
    free(part->path);
    part->path = path;
    return 0;
}

static int check_parts(int dir_fd, struct image *image, char *err,
                       size_t err_size)
{
    struct {
        const char *which;
        struct image_part *part;
    } parts[] = {
        {"kernel", &image->kernel},
        {"initrd", &image->initrd},
        {"root file system", &image->rootfs},
        {"scratch disk", &image->scratch},
    };
    int ret = 0;

    for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(parts); i++)
        ret = check_part(dir_fd, image->dir, parts[i].which, parts[i].part, err,
                         err_size);
    return ret;
}

/* Reads and checks what lies in an already open directory. */
static int load(int dir_fd, const char *dir, struct image *image, char *err,
                size_t err_size)
{
    char inner[IMAGE_ERR_MAX];
    char *text = NULL;
    size_t len = 0;
    int ret = read_json(dir_fd, dir, &text, &len, err, err_size);

    if (ret != 0)
        return ret;
    ret = image_parse(text, len, image, inner, sizeof(inner));
    free(text);
    if (ret != 0)
        return fail(ret, err, err_size, "cannot use the image in %.512s: %s",
                    dir, inner);
    image->dir = strdup(dir);
    if (image->dir == NULL)
        ret = fail(-ENOMEM, err, err_size, "cannot open image: no memory");
    else
        ret = check_parts(dir_fd, image, err, err_size);
    if (ret != 0)
        image_fini(image);
    return ret;
}

int image_open(const char *dir, struct image *ret_image, char *err,
               size_t err_size)
{
    struct image image = {.dir = NULL};
    char *path = NULL;
    int dir_fd;
    int ret = resolve_dir(dir, &path, err, err_size);

    if (ret != 0 || path == NULL)
        return ret;
    dir_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        ret = fail(-errno, err, err_size,
                   "cannot open image directory "
                   "'%s': %s",
                   path, strerror(errno));
    else
        ret = load(dir_fd, path, &image, err, err_size);
    io_close(&dir_fd);
    free(path);
    if (ret == 0)
        *ret_image = image;
    return ret;
}
