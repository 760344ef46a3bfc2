/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stamp is a line that names the host as it is, compared and never parsed,
 * and the bytes behind it; see the header.
 */
#include "trial/host_stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/io.h"
#include "base/whole_file.h"
#include "trial/host.h"
#include "trial/image.h"

#define KEY_MAX 1024u
#define PATH_SIZE 4200u

/* ---- where ---- */

/* This user's, and nobody else can put anything there. */
static bool is_ours(const struct stat *st, mode_t type)
{
    return (st->st_mode & S_IFMT) == type && st->st_uid == geteuid() &&
           !(st->st_mode & 0022);
}

/* .../microsbx, and the cache folder around it if that is missing, too. */
static void make_cache(char *path)
{
    char *slash = strrchr(path, '/');

    *slash = '\0';
    (void)mkdir(path, 0700);
    *slash = '/';
    (void)mkdir(path, 0700);
}

/* The folder of stamps, made if it is missing: its descriptor, or -errno. */
static int open_folder(char *ret_path, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char *images = NULL;
    struct stat st;
    int fd, n;

    if (runtime && runtime[0] == '/') {
        n = snprintf(ret_path, size, "%s/microsbx", runtime);
    } else {
        images = image_cache_dir(); /* .../microsbx/images */
        if (!images)
            return -ENOENT;
        *strrchr(images, '/') = '\0';
        make_cache(images);
        n = snprintf(ret_path, size, "%s/host", images);
        free(images);
    }
    if (n < 0 || (size_t)n >= size)
        return -ENAMETOOLONG;
    (void)mkdir(ret_path, 0700);
    fd = open(ret_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && is_ours(&st, S_IFDIR))
        return fd;
    close(fd);
    return -EPERM;
}

/* ---- of which host ---- */

/* The monitor program lies beside this one. */
static int monitor_path(char *ret_path, size_t size)
{
    static const char NAME[] = "/microsbx-vmm";
    ssize_t n = readlink("/proc/self/exe", ret_path, size - sizeof(NAME));
    char *slash;

    if (n <= 0)
        return -ENOENT;
    ret_path[n] = '\0';
    slash = strrchr(ret_path, '/');
    if (!slash)
        return -ENOENT;
    strcpy(slash, NAME);
    return 0;
}

static void describe_file(FILE *out, const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        fputs(" none", out);
        return;
    }
    fprintf(out, " %llx:%llx:%llx:%lld:%lld.%09ld",
            (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
            (unsigned long long)st.st_rdev, (long long)st.st_size,
            (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

/* One line; its length, or a negative errno. */
static int make_key(char ret_key[KEY_MAX])
{
    char boot_id[40], monitor[PATH_SIZE];
    struct utsname host;
    FILE *out;
    long len;

    if (host_read_line("/proc/sys/kernel/random/boot_id", boot_id,
                       sizeof(boot_id)) != 0 ||
        strlen(boot_id) != 36 || uname(&host) != 0 ||
        monitor_path(monitor, sizeof(monitor)) != 0)
        return -ENOENT;
    out = fmemopen(ret_key, KEY_MAX, "w");
    if (!out)
        return -ENOMEM;
    fprintf(out, "microsbx.host/1 %s %s %s", boot_id, host.release,
            host.version);
    describe_file(out, monitor);
    describe_file(out, "/dev/kvm");
    fputc('\n', out);
    len = ftell(out);
    if (fclose(out) != 0 || len <= 0 || len >= (long)KEY_MAX)
        return -EMSGSIZE;
    return (int)len;
}

/* ---- reading and writing ---- */

/* All of a file that is to be believed: its length, or a negative errno. */
static ssize_t read_believed(int folder, const char *what, void *buf,
                             size_t size)
{
    int fd =
        openat(folder, what, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = fd < 0 ? -errno : 0;
    struct stat st;

    if (n == 0 && (fstat(fd, &st) != 0 || !is_ours(&st, S_IFREG)))
        n = -EPERM;
    if (n == 0)
        n = io_read_full(fd, buf, size);
    io_close(&fd);
    return n;
}

ssize_t host_stamp_read(const char *what, void *buf, size_t size)
{
    char key[KEY_MAX], path[PATH_SIZE];
    uint8_t all[KEY_MAX + HOST_STAMP_MAX];
    int folder = open_folder(path, sizeof(path));
    int key_len = folder < 0 ? folder : make_key(key);
    ssize_t n =
        key_len < 0 ? key_len : read_believed(folder, what, all, sizeof(all));

    io_close(&folder);
    if (n < 0)
        return n;
    if (n < key_len || memcmp(all, key, (size_t)key_len) != 0)
        return -ESTALE;
    n -= key_len;
    if ((size_t)n > size)
        return -EMSGSIZE;
    memcpy(buf, all + key_len, (size_t)n);
    return n;
}

void host_stamp_write(const char *what, const void *bytes, size_t len)
{
    uint8_t all[KEY_MAX + HOST_STAMP_MAX];
    char path[PATH_SIZE];
    int folder = open_folder(path, sizeof(path) - strlen(what) - 1);
    int key_len = folder < 0 ? folder : make_key((char *)all);

    io_close(&folder);
    if (key_len < 0 || len > HOST_STAMP_MAX)
        return;
    memcpy(all + key_len, bytes, len);
    strcat(path, "/");
    strcat(path, what);
    (void)!whole_file_write(path, all, (size_t)key_len + len);
}
