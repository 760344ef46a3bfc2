/* SPDX-License-Identifier: Apache-2.0 */
/* Folders of long-lived machines; see the header. */
#include "trial/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"

#define BACKLOG 64
#define CONNECT_MS 5000 /* for a keeper that does not accept */
#define LOCK_TRIES 100
#define SWEEP_AGE_S 2 /* a lock is made in the same moment as its folder */
#define NEW_PREFIX ".new-"
#define OLD_PREFIX ".old-"

static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

bool registry_name_is_valid(const char *name)
{
    size_t len = strlen(name);

    return len >= 1 && len <= REGISTRY_NAME_MAX && name[0] != '.' &&
           strspn(name, LETTERS) == len;
}

/* Hex digits that nobody else has. */
static void random_word(char ret_word[9])
{
    uint32_t number = 0;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        number = (uint32_t)io_now_ns() ^ (uint32_t)getpid() << 16;
    snprintf(ret_word, 9, "%08x", number);
}

void registry_make_name(char ret_name[REGISTRY_NAME_MAX + 1])
{
    char word[9];

    random_word(word);
    snprintf(ret_name, REGISTRY_NAME_MAX + 1, "vm-%s", word);
}

/* ---- the folder of folders ---- */

static int fail_folder(const char *path, const char *why, int error,
                       struct failure *f)
{
    failure_set(f, "runtime_dir", path,
                "set XDG_RUNTIME_DIR to a folder that is yours alone",
                "cannot keep machines in %s: %s", path, why);
    return error;
}

/* Opens a folder that must be this user's: the descriptor or an error. */
static int open_own(int parent, const char *name, bool made_here,
                    const char *path, struct failure *f)
{
    int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    int fd = openat(parent, name, made_here ? flags | O_NOFOLLOW : flags);
    const char *why = NULL;
    struct stat st;

    if (fd < 0)
        return fail_folder(path, strerror(errno), -errno, f);
    if (fstat(fd, &st) != 0)
        why = strerror(errno);
    else if (st.st_uid != geteuid())
        why = "the folder belongs to another user";
    else if (st.st_mode & (made_here ? 0077 : 0022))
        why = "others have access to the folder";
    if (!why)
        return fd;
    io_close(&fd);
    return fail_folder(path, why, -EPERM, f);
}

/* As open_own, and made 0700 if it is missing; closes parent. */
static int open_made(int parent, const char *name, const char *path,
                     struct failure *f)
{
    int fd = -1;

    if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        fd = fail_folder(path, strerror(errno), -errno, f);
    else
        fd = open_own(parent, name, true, path, f);
    close(parent);
    return fd;
}

/* microsbx's folder below the runtime folder, or the one in /tmp. */
static int open_ours(char *ret_path, size_t size, struct failure *f)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    char base[4000], name[40] = "microsbx";
    bool shared = false;
    int fd;

    snprintf(base, sizeof(base), "/run/user/%u", (unsigned)geteuid());
    if (dir && dir[0] == '/') {
        snprintf(base, sizeof(base), "%s", dir);
    } else if (access(base, F_OK) != 0) {
        strcpy(base, "/tmp");
        snprintf(name, sizeof(name), "microsbx-%u", (unsigned)geteuid());
        shared = true;
    }
    snprintf(ret_path, size, "%s/%s", base, name);
    if (shared)
        fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    else
        fd = open_own(AT_FDCWD, base, false, base, f);
    if (shared && fd < 0)
        return fail_folder(base, strerror(errno), -errno, f);
    return fd < 0 ? fd : open_made(fd, name, ret_path, f);
}

/* machines/ as a descriptor, or a negative errno with *f filled. */
static int open_machines(struct failure *f)
{
    char path[4200];
    int fd = open_ours(path, sizeof(path) - sizeof("/machines"), f);

    if (fd < 0)
        return fd;
    strcat(path, "/machines");
    return open_made(fd, "machines", path, f);
}

/* ---- locks ---- */

/* Its descriptor, or a negative errno (-EBUSY: somebody else holds it). */
static int take_lock(int dir_fd, const char *name)
{
    int fd =
        openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int ret = fd < 0 ? -errno : fd;

    /* Who only looks holds it for a moment, too. */
    for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
        if (ret != -EBUSY || i == LOCK_TRIES) {
            close(fd);
            return ret;
        }
        usleep(1000);
    }
    return fd >= 0 ? fd : ret;
}

static bool is_locked(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool locked;

    if (fd < 0)
        return false;
    locked = flock(fd, LOCK_SH | LOCK_NB) != 0;
    close(fd);
    return locked;
}

bool registry_is_alive(const struct registry_entry *entry)
{
    return is_locked(entry->dir_fd, "lock");
}

int registry_hold_busy(const struct registry_entry *entry)
{
    return take_lock(entry->dir_fd, "busy");
}

bool registry_is_busy(const struct registry_entry *entry)
{
    return is_locked(entry->dir_fd, "busy");
}

int registry_adopt(struct registry_entry *entry)
{
    int fd = take_lock(entry->dir_fd, "lock");

    if (fd < 0)
        return fd;
    entry->lock_fd = fd;
    return 0;
}

bool registry_wait_end(const struct registry_entry *entry, int ms)
{
    uint64_t deadline = io_now_ns() + (uint64_t)ms * 1000000u;

    while (registry_is_alive(entry)) {
        if (io_now_ns() >= deadline)
            return false;
        usleep(5000);
    }
    return true;
}

/* ---- coming and going ---- */

static int open_entry(int machines, const char *folder)
{
    int fd = openat(machines, folder,
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    return fd < 0 ? -errno : fd;
}

/* Files only: there are no folders in it. */
static int empty_folder(int dir_fd)
{
    int copy = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    const struct dirent *e;
    int ret = 0;

    if (!dir) {
        ret = -errno;
        io_close(&copy);
        return ret;
    }
    rewinddir(dir);
    while ((e = readdir(dir))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if (unlinkat(dir_fd, e->d_name, 0) != 0 && errno != ENOENT)
            ret = -errno;
    }
    closedir(dir);
    return ret;
}

static int remove_folder(int machines, const char *folder, int dir_fd)
{
    int ret = empty_folder(dir_fd);

    if (ret == 0 && unlinkat(machines, folder, AT_REMOVEDIR) != 0 &&
        errno != ENOENT)
        ret = -errno;
    return ret;
}

int registry_create(const char *name, struct registry_entry *ret_entry,
                    struct failure *f)
{
    struct registry_entry e = {.dir_fd = -1, .lock_fd = -1};
    int machines = open_machines(f);
    char folder[32], word[9];
    int ret;

    if (machines < 0)
        return machines;
    random_word(word);
    snprintf(folder, sizeof(folder), NEW_PREFIX "%s", word);
    snprintf(e.name, sizeof(e.name), "%s", name);
    ret = mkdirat(machines, folder, 0700) != 0 ? -errno : 0;
    if (ret == 0)
        ret = e.dir_fd = open_entry(machines, folder);
    if (ret >= 0)
        ret = e.lock_fd = take_lock(e.dir_fd, "lock");
    if (ret < 0) {
        fail_folder("machines", strerror(-ret), ret, f);
        if (e.dir_fd >= 0)
            (void)!remove_folder(machines, folder, e.dir_fd);
        registry_close(&e);
    } else {
        ret = 0;
        *ret_entry = e;
    }
    close(machines);
    return ret;
}

/* The folder's present name: it may be one of ours. */
static int current_folder(const struct registry_entry *entry, char *ret_name,
                          size_t size)
{
    char link[64], path[4300];
    const char *slash;
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", entry->dir_fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0)
        return -ENOENT;
    path[n] = '\0';
    slash = strrchr(path, '/');
    if (!slash || strlen(slash + 1) >= size)
        return -ENOENT;
    strcpy(ret_name, slash + 1);
    return 0;
}

int registry_publish(struct registry_entry *entry, struct failure *f)
{
    int machines = open_machines(f);
    char folder[REGISTRY_NAME_MAX + 32];
    int ret;

    if (machines < 0)
        return machines;
    ret = current_folder(entry, folder, sizeof(folder));
    /* A folder that has a lock in it is never renamed over: rename(2). */
    if (ret == 0 && renameat(machines, folder, machines, entry->name) != 0)
        ret = errno == ENOTEMPTY ? -EEXIST : -errno;
    close(machines);
    if (ret == -EEXIST)
        failure_set(f, "name_in_use", entry->name,
                    "choose another --name; microsbx ps lists the machines, "
                    "microsbx rm removes one that has ended",
                    "there is a machine named %s already", entry->name);
    else if (ret != 0)
        fail_folder(entry->name, strerror(-ret), ret, f);
    return ret;
}

static int fail_unknown(const char *name, struct failure *f)
{
    char **names = NULL;
    const char *near = NULL;
    char remedy[160] = "microsbx ps lists the machines";
    char shown[80];
    struct failure ignored = {0};
    size_t count = 0;

    if (name[0] == '\0') {
        failure_set(f, "no_machine", "NAME", remedy,
                    "the name of the machine is empty");
        return -ENOENT;
    }
    if (registry_names(&names, &count, &ignored) == 0)
        near = text_nearest(name, (const char *const *)names);
    if (near)
        snprintf(remedy, sizeof(remedy), "did you mean %s?", near);
    text_escape(name, strlen(name), shown, sizeof(shown));
    failure_set(f, "no_machine", shown, remedy, "there is no machine named %s",
                shown);
    registry_names_free(names, count);
    return -ENOENT;
}

int registry_find(const char *name, struct registry_entry *ret_entry,
                  struct failure *f)
{
    struct registry_entry e = {.dir_fd = -1, .lock_fd = -1};
    int machines;

    if (!registry_name_is_valid(name))
        return fail_unknown(name, f);
    machines = open_machines(f);
    if (machines < 0)
        return machines;
    e.dir_fd = open_entry(machines, name);
    close(machines);
    if (e.dir_fd < 0)
        return fail_unknown(name, f);
    snprintf(e.name, sizeof(e.name), "%s", name);
    *ret_entry = e;
    return 0;
}

/* A name of ours first: from then on nobody finds it any more. */
int registry_remove(struct registry_entry *entry)
{
    struct failure ignored = {0};
    char folder[REGISTRY_NAME_MAX + 32], old[32], word[9];
    int machines, ret;

    if (entry->lock_fd < 0 && registry_is_alive(entry)) {
        registry_close(entry);
        return -EBUSY;
    }
    machines = open_machines(&ignored);
    ret = machines < 0 ? machines : 0;
    if (ret == 0)
        ret = current_folder(entry, folder, sizeof(folder));
    random_word(word);
    snprintf(old, sizeof(old), OLD_PREFIX "%s", word);
    if (ret == 0 && renameat(machines, folder, machines, old) != 0)
        ret = -errno;
    if (ret == 0)
        ret = remove_folder(machines, old, entry->dir_fd);
    io_close(&machines);
    registry_close(entry);
    return ret;
}

void registry_close(struct registry_entry *entry)
{
    io_close(&entry->dir_fd);
    io_close(&entry->lock_fd);
}

/* ---- all of them ---- */

/* What a keeper or a remover that was killed left behind. */
static void sweep(int machines, const char *folder)
{
    struct registry_entry e = {.dir_fd = open_entry(machines, folder),
                               .lock_fd = -1};
    struct stat st;

    if (e.dir_fd < 0)
        return;
    /* One that is this very moment being made has no lock yet: it is young. */
    if (fstat(e.dir_fd, &st) == 0 && time(NULL) - st.st_ctime > SWEEP_AGE_S &&
        !registry_is_alive(&e))
        (void)!remove_folder(machines, folder, e.dir_fd);
    registry_close(&e);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int registry_names(char ***ret_names, size_t *ret_count, struct failure *f)
{
    int machines = open_machines(f);
    char **names = calloc(REGISTRY_MACHINES_MAX + 1, sizeof(*names));
    DIR *dir = machines < 0 || !names ? NULL : fdopendir(machines);
    const struct dirent *e;
    size_t count = 0;

    if (!dir) {
        free(names);
        if (machines < 0)
            return machines;
        close(machines);
        return fail_folder("machines", strerror(ENOMEM), -ENOMEM, f);
    }
    while ((e = readdir(dir))) {
        if (!strncmp(e->d_name, NEW_PREFIX, strlen(NEW_PREFIX)) ||
            !strncmp(e->d_name, OLD_PREFIX, strlen(OLD_PREFIX)))
            sweep(machines, e->d_name);
        else if (registry_name_is_valid(e->d_name) &&
                 count < REGISTRY_MACHINES_MAX &&
                 (names[count] = strdup(e->d_name)))
            count++;
    }
    closedir(dir);
    qsort(names, count, sizeof(*names), by_name);
    *ret_names = names;
    *ret_count = count;
    return 0;
}

void registry_names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

/* ---- the socket ---- */

/* A short path to it, whatever the folder's own is. */
static struct sockaddr_un socket_address(const struct registry_entry *entry)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/socket",
             entry->dir_fd);
    return a;
}

int registry_listen(const struct registry_entry *entry)
{
    struct sockaddr_un a = socket_address(entry);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int ret;

    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    ret = -errno;
    close(fd);
    return ret;
}

int registry_try_connect(const struct registry_entry *entry)
{
    struct sockaddr_un a = socket_address(entry);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int ret;

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    ret = errno == ENOENT ? -ECONNREFUSED : -errno;
    close(fd);
    return ret;
}

int registry_connect(const struct registry_entry *entry)
{
    uint64_t deadline = io_now_ns() + (uint64_t)CONNECT_MS * 1000000u;
    int ret = registry_try_connect(entry);

    /* EAGAIN: as many wait already as it lets wait. */
    while (ret == -EAGAIN && io_now_ns() < deadline) {
        usleep(20000);
        ret = registry_try_connect(entry);
    }
    return ret;
}
