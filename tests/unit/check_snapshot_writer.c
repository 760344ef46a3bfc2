/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a snapshot: killed and out of space at every step, with a hostile
 * monitor, and beside other writers; on hosts of all kinds.
 *
 * The functions below stand in front of libc's (the linker takes the program's
 * own definition first). They do the real thing, until a test says that the
 * n-th change of the file system is the last: then the process is killed there,
 * or that call writes only half, and all later ones find the disk full.
 */
#include "trial/snapshot_writer.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/snapshot_rig.h"
#include "trial/snapshot_archive.h"
#include "trial/snapshot_internal.h"

/* ---- the host ----------------------------------------------------------- */

/* How files can be made: without names, or not for want of one of the two. */
enum kind { KIND_NAMELESS, KIND_NO_TMPFILE, KIND_NO_PROC, KINDS };

static struct {
    enum kind kind;
    bool on;
    bool kill; /* else: no space */
    long at;   /* the last change that happens; 0: all do */
    long changes;
} host;

/* 0: happens; 1: half of it; -1: not at all. */
static int host_change(void)
{
    if (!host.on)
        return 0;
    host.changes++;
    if (host.at == 0 || host.changes < host.at)
        return 0;
    if (host.kill)
        (void)kill(getpid(), SIGKILL);
    return host.changes == host.at ? 1 : -1;
}

static int no_space(void)
{
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    int how = host_change();

    if (how < 0 || (how > 0 && len < 2))
        return no_space();
    return syscall(SYS_pwrite64, fd, buf, how > 0 ? len / 2 : len, offset);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    int how = host_change();

    if (how < 0 || (how > 0 && len < 2))
        return no_space();
    return syscall(SYS_write, fd, buf, how > 0 ? len / 2 : len);
}

int ftruncate(int fd, off_t len)
{
    return host_change() == 0 ? (int)syscall(SYS_ftruncate, fd, len)
                              : no_space();
}

int fsync(int fd)
{
    return host_change() == 0 ? (int)syscall(SYS_fsync, fd) : no_space();
}

int fchmod(int fd, mode_t mode)
{
    return host_change() == 0 ? (int)syscall(SYS_fchmod, fd, mode) : no_space();
}

int mkdirat(int dir_fd, const char *path, mode_t mode)
{
    return host_change() == 0 ? (int)syscall(SYS_mkdirat, dir_fd, path, mode)
                              : no_space();
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to,
              unsigned flags)
{
    return host_change() == 0
               ? (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags)
               : no_space();
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    return host_change() == 0
               ? (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags)
               : no_space();
}

static int open_as_host(int dir_fd, const char *path, int flags, mode_t mode)
{
    bool nameless = (flags & O_TMPFILE) == O_TMPFILE;

    if (nameless && host.kind == KIND_NO_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    if (host.kind == KIND_NO_PROC && strncmp(path, "/proc/", 6) == 0) {
        errno = ENOENT;
        return -1;
    }
    if (((flags & O_CREAT) != 0 || nameless) && host_change() != 0)
        return no_space();
    return (int)syscall(SYS_openat, dir_fd, path, flags, mode);
}

int openat(int dir_fd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
        mode = va_arg(args, mode_t);
    va_end(args);
    return open_as_host(dir_fd, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
        mode = va_arg(args, mode_t);
    va_end(args);
    return open_as_host(AT_FDCWD, path, flags, mode);
}

/* ---- what is written ---------------------------------------------------- */

static struct snapshot_rig rig;

static void setup(void)
{
    snapshot_rig_open(&rig);
}

static void teardown(void)
{
    host.on = false;
    host.kind = KIND_NAMELESS;
    snapshot_rig_close(&rig);
}

static const char *path_of(const char *name)
{
    return snapshot_rig_path(&rig, name);
}

/* The ways to write one: "s/b", which is a diff to "parent" or not. */
enum job { JOB_WHOLE, JOB_DIFF, JOB_IMPORT, JOBS };

static struct snapshot *parent;

static void prepare(enum job job)
{
    static const struct snapshot_archive_options none = {.cancelled = NULL};
    const struct snapshot_open_options look = {.check = SNAPSHOT_CHECK_NONE};
    struct failure f = {.code = ""};

    if (job != JOB_DIFF && job != JOB_IMPORT)
        return;
    snapshot_rig_make(&rig, "parent", NULL);
    ck_assert_int_eq(snapshot_open(path_of("parent"), &look, &parent, &f), 0);
    if (job == JOB_IMPORT) {
        char dir[128], archive[128];

        snprintf(dir, sizeof(dir), "%s/parent", rig.dir);
        snprintf(archive, sizeof(archive), "%s/archive", rig.dir);
        ck_assert_int_eq(snapshot_export(dir, archive, &none, &f), 0);
    }
    snapshot_rig_page(&rig, 20, 4);
    snapshot_rig_cluster(&rig, 20, 4);
}

static int do_job(enum job job, const char *name, struct failure *f)
{
    static const struct snapshot_archive_options none = {.cancelled = NULL};
    struct snapshot_writer_options options = {.parent = NULL};
    char archive[128], id[DIGEST_HEX_SIZE];

    if (job == JOB_IMPORT) {
        snprintf(archive, sizeof(archive), "%s/archive", rig.dir);
        return snapshot_import(archive, path_of(name), &none, id, f);
    }
    if (job == JOB_DIFF)
        options.parent = parent;
    return snapshot_rig_try(&rig, name, &options, f);
}

static bool is_there(const char *name)
{
    struct stat st;

    return lstat(path_of(name), &st) == 0;
}

static void must_be_complete(const char *name)
{
    const char *const places[] = {path_of("parent"), NULL};
    const struct snapshot_open_options options = {.check = SNAPSHOT_CHECK_FULL,
                                                  .parents = places};
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};
    int ret = snapshot_open(path_of(name), &options, &s, &f);

    ck_assert_msg(ret == 0, "%s", f.message);
    snapshot_close(s);
}

static void remove_dir(const char *name)
{
    char command[200];

    snprintf(command, sizeof(command), "rm -r %s/%s", rig.dir, name);
    ck_assert_int_eq(system(command), 0);
}

/* The process is gone at the n-th change: true if there was one. */
static bool run_killed(enum job job, long n)
{
    int status;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct failure f = {.code = ""};
        int ret;

        host.on = host.kill = true;
        host.at = n;
        host.changes = 0;
        ret = do_job(job, "s/b", &f);
        host.on = false;
        _exit(ret == 0 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        return true;
    ck_assert_int_eq(status, 0);
    return false;
}

/* Each way of writing on each kind of host. */
static enum job choose(int i)
{
    host.kind = (enum kind)(i % KINDS);
    return (enum job)(i / KINDS);
}

/* Without /proc no diff can be read, so none is written. */
static bool is_possible(enum job job)
{
    return job != JOB_DIFF || host.kind != KIND_NO_PROC;
}

/*
 * What is left by kills: the folder, if files have names from the start; else
 * it is there only while they get theirs, which takes two steps a file (link,
 * sync), one for the folder's sync and one for its name.
 */
static void must_be_left(long steps, long left)
{
    long files = (long)snapshot_rig_entries(path_of("s/b"));

    if (host.kind == KIND_NAMELESS)
        ck_assert_int_eq(left, 2 * files + 2);
    else
        ck_assert_int_gt(left, steps / 2);
}

/*
 * Killed at every step: nothing of that name is there, or all of it; and the
 * next writer leaves nothing but its own.
 */
START_TEST(killed_at_every_step)
{
    const struct snapshot_writer_options none = {.parent = NULL};
    enum job job = choose(_i);
    struct snapshot_writer *w = NULL;
    struct failure f = {.code = ""};
    long steps = 0, left = 0;

    if (!is_possible(job))
        return;
    prepare(job);
    for (long n = 1; run_killed(job, n); n++) {
        bool published = is_there("s/b");

        if (published) {
            must_be_complete("s/b");
            remove_dir("s/b");
        }
        left += snapshot_rig_entries(path_of("s"));
        ck_assert_int_eq(snapshot_writer_begin(path_of("s/c"), &none, &w, &f),
                         0);
        ck_assert_uint_eq(snapshot_rig_entries(path_of("s")),
                          host.kind == KIND_NAMELESS ? 0 : 1); /* its own */
        snapshot_writer_free(w);
        ck_assert_uint_eq(snapshot_rig_entries(path_of("s")), 0);
        steps = n;
    }
    must_be_complete("s/b");
    must_be_left(steps, left);
    ck_assert_int_gt(steps, 20);
    snapshot_close(parent);
}
END_TEST

/* Behind the name: the sync of the folder it is in; the stamp is made, written
 * and named; that it was made here is remembered. */
#define LATE_STEPS_MAX 5

/* Out of space at every step: a sentence, and nothing is there. */
START_TEST(no_space_at_every_step)
{
    enum job job = choose(_i);
    long n = 1, late = 0;

    if (!is_possible(job))
        return;
    prepare(job);
    for (;; n++) {
        struct failure f = {.code = ""};
        int ret;

        host.on = true;
        host.kill = false;
        host.at = n;
        host.changes = 0;
        ret = do_job(job, "s/b", &f);
        host.on = false;
        if (host.changes < n)
            break;
        if (ret == 0) {
            /* All is said and done. */
            ck_assert_int_le(++late, LATE_STEPS_MAX);
            must_be_complete("s/b");
            remove_dir("s/b");
            continue;
        }
        ck_assert_int_eq(late, 0);
        ck_assert_msg(f.message[0] && f.remedy[0], "step %ld: %d", n, ret);
        ck_assert_uint_eq(snapshot_rig_entries(path_of("s")), 0);
    }
    ck_assert_int_gt(late, 0);
    must_be_complete("s/b");
    ck_assert_int_gt(n, 20);
    snapshot_close(parent);
}
END_TEST

/* A limit of the kernel's own. */
START_TEST(file_size_limit_is_told)
{
    const struct rlimit limit = {1 << 20, RLIM_INFINITY};
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    struct failure f = {.code = ""};

    (void)signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_lt(snapshot_rig_try(&rig, "s/b", NULL, &f), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
    ck_assert_str_eq(f.code, "snapshot_write");
    ck_assert_uint_eq(snapshot_rig_entries(path_of("s")), 0);
}
END_TEST

static bool after_some(void *ctx)
{
    int *left = ctx;

    return --*left < 0;
}

START_TEST(interrupted_anywhere_leaves_nothing)
{
    int asked = 0;

    for (int n = 0;; n += 7) {
        int left = n;
        const struct snapshot_writer_options options = {.cancelled = after_some,
                                                        .ctx = &left};
        struct failure f = {.code = ""};
        int ret = snapshot_rig_try(&rig, "s/b", &options, &f);

        asked = n;
        if (ret == 0)
            break;
        ck_assert_int_eq(ret, -ECANCELED);
        ck_assert_str_eq(f.code, "cancelled");
        ck_assert_uint_eq(snapshot_rig_entries(path_of("s")), 0);
    }
    ck_assert_int_gt(asked, 20);
}
END_TEST

/* ---- where it is written ------------------------------------------------ */

static const struct {
    const char *name, *code;
} bad_outputs[] = {
    {"root", "snapshot_exists"}, /* a file */
    {"s", "snapshot_exists"},    /* a directory */
    {"s/", "snapshot_exists"},
    {"link", "snapshot_exists"}, /* to nowhere */
    {"nowhere/b", "snapshot_write"},
    {"root/b", "snapshot_write"},
    {"s/.", "snapshot_write"},
    {"s/..", "snapshot_write"},
};

START_TEST(bad_outputs_are_refused)
{
    const struct snapshot_writer_options none = {.parent = NULL};
    struct snapshot_writer *w = NULL;
    struct failure f = {.code = ""};

    ck_assert_int_eq(symlink("/nowhere", path_of("link")), 0);
    ck_assert_int_lt(
        snapshot_writer_begin(path_of(bad_outputs[_i].name), &none, &w, &f), 0);
    ck_assert_str_eq(f.code, bad_outputs[_i].code);
    ck_assert_ptr_null(w);
    ck_assert_uint_eq(snapshot_rig_entries(path_of("s")), 0);
}
END_TEST

START_TEST(name_lengths)
{
    const struct snapshot_writer_options none = {.parent = NULL};
    struct snapshot_writer *w = NULL;
    struct failure f = {.code = ""};
    char name[210];

    ck_assert_int_eq(chdir(path_of("s")), 0);
    memset(name, 'x', sizeof(name));
    name[201] = '\0';
    ck_assert_int_lt(snapshot_writer_begin(name, &none, &w, &f), 0);
    ck_assert_int_lt(snapshot_writer_begin("", &none, &w, &f), 0);
    name[200] = '\0';
    ck_assert_int_eq(snapshot_writer_begin(name, &none, &w, &f), 0);
    snapshot_writer_free(w);
    snapshot_writer_free(NULL);
    ck_assert_uint_eq(snapshot_rig_entries("."), 0);
    ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

START_TEST(trailing_slash_does_not_matter)
{
    snapshot_rig_make(&rig, "s/b/", NULL);
    must_be_complete("s/b");
}
END_TEST

/* The name is taken while it is being written. */
START_TEST(late_comer_loses)
{
    const struct snapshot_writer_options none = {.parent = NULL};
    struct snapshot_writer *w = NULL;
    struct failure f = {.code = ""};

    host.kind = (enum kind)_i;
    ck_assert_int_eq(snapshot_writer_begin(path_of("s/b"), &none, &w, &f), 0);
    /* The other one does not take it for abandoned. */
    snapshot_rig_make(&rig, "s/c", NULL);
    ck_assert_uint_eq(snapshot_rig_entries(path_of("s")),
                      host.kind == KIND_NAMELESS ? 1 : 2);
    ck_assert_int_ge(snapshot_writer_state_fd(w), 0);
    snapshot_rig_make(&rig, "s/b", NULL);
    snapshot_writer_free(w);
    ck_assert_uint_eq(snapshot_rig_entries(path_of("s")), 2);
    must_be_complete("s/b");
    ck_assert_int_lt(snapshot_rig_try(&rig, "s/b", NULL, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_exists");
}
END_TEST

/* ---- a hostile monitor -------------------------------------------------- */

/* A writer with its disks, and the monitor's files as they should be. */
static struct snapshot_writer *begin(struct snapshot_manifest *m,
                                     int *ret_cow_fd)
{
    const struct snapshot_writer_options options = {.parent = NULL};
    struct snapshot_writer *w = NULL;
    struct failure f = {.code = ""};
    struct stat st;

    snapshot_rig_manifest(m);
    ck_assert_int_eq(snapshot_writer_begin(path_of("s/b"), &options, &w, &f),
                     0);
    ck_assert_int_eq(
        snapshot_writer_add_base(w, "root", rig.root_fd, 0, &m->disks[0], &f),
        0);
    ck_assert_int_eq(snapshot_writer_add_base(w, "scratch", rig.scratch_fd,
                                              RIG_SCRATCH_DATA, &m->disks[1],
                                              &f),
                     0);
    m->disks[0].mode = VM_DISK_RO;
    m->disks[1].mode = VM_DISK_COW;
    m->disk_count = 2;
    ck_assert_int_eq(snapshot_writer_add_cow(w, "scratch", ret_cow_fd, &f), 0);
    ck_assert_int_eq(io_pwrite_full(snapshot_writer_state_fd(w), "state", 5, 0),
                     0);
    ck_assert_int_eq(sparse_copy(rig.memory_fd, snapshot_writer_memory_fd(w),
                                 RIG_MEMORY, NULL),
                     0);
    ck_assert_int_eq(fstat(rig.cow_fd, &st), 0);
    ck_assert_int_eq(
        sparse_copy(rig.cow_fd, *ret_cow_fd, (uint64_t)st.st_size, NULL), 0);
    return w;
}

static void finish_fails(struct snapshot_writer *w, struct snapshot_manifest *m,
                         const char *says)
{
    char id[DIGEST_HEX_SIZE];
    struct failure f = {.code = ""};

    ck_assert_int_lt(snapshot_writer_finish(w, m, id, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_write");
    ck_assert_msg(strstr(f.message, says) != NULL, "%s", f.message);
    snapshot_writer_free(w);
    snapshot_manifest_fini(m);
    ck_assert_uint_eq(snapshot_rig_entries(path_of("s")), 0);
}

static void spoil(struct snapshot_writer *w, int cow_fd, int how)
{
    uint8_t byte = 0xff;

    switch (how) {
    case 0: /* memory of another size */
        ck_assert_int_eq(ftruncate(snapshot_writer_memory_fd(w), 4096), 0);
        break;
    case 1: /* no state, or far too much */
        ck_assert_int_eq(ftruncate(snapshot_writer_state_fd(w), 0), 0);
        break;
    case 2:
        ck_assert_int_eq(ftruncate(snapshot_writer_state_fd(w), 8 << 20), 0);
        break;
    case 3: /* a cow file that is none */
        ck_assert_int_eq(pwrite(cow_fd, &byte, 1, 3), 1);
        break;
    case 4:
        ck_assert_int_eq(ftruncate(cow_fd, 4096), 0);
        break;
    case 5: /* a cluster beyond the end */
        ck_assert_int_eq(pwrite(cow_fd, &byte, 1, 4096 + 18), 1);
        break;
    default: /* data where no cluster is */
        ck_assert_int_eq(pwrite(cow_fd, &byte, 1, 65536 + 50 * 65536), 1);
        break;
    }
}

static const char *const spoilt[] = {"memory", "state", "state", "disk",
                                     "disk",   "disk",  "disk"};

START_TEST(bad_saves_are_refused)
{
    struct snapshot_manifest m;
    int cow_fd = -1;
    struct snapshot_writer *w = begin(&m, &cow_fd);

    spoil(w, cow_fd, _i);
    finish_fails(w, &m, spoilt[_i]);
}
END_TEST

/* What it says of its disks must be what was added. */
START_TEST(other_disks_are_refused)
{
    struct snapshot_manifest m;
    int cow_fd = -1;
    struct snapshot_writer *w = begin(&m, &cow_fd);

    m.disk_count = 1;
    finish_fails(w, &m, "disks");
    w = begin(&m, &cow_fd);
    strcpy(m.disks[0].id, "boot");
    finish_fails(w, &m, "disks");
    w = begin(&m, &cow_fd);
    m.disks[1].mode = VM_DISK_RO;
    finish_fails(w, &m, "disks");
}
END_TEST

/* A manifest that no reader would take is not written, either. */
START_TEST(bad_manifests_are_refused)
{
    struct snapshot_manifest m;
    int cow_fd = -1;
    struct snapshot_writer *w = begin(&m, &cow_fd);

    m.cpus = 0;
    finish_fails(w, &m, "CPUs");
}
END_TEST

/*
 * The monitor lives on, and writes again what it once saved: through its
 * descriptors, and through a mapping whose pages were dirty all along, which
 * leaves no trace.
 */
START_TEST(saved_files_are_out_of_reach)
{
    struct snapshot_manifest m;
    char id[DIGEST_HEX_SIZE];
    struct failure f = {.code = ""};
    int cow_fd = -1, fds[3];
    uint8_t *map;
    struct snapshot_writer *w = begin(&m, &cow_fd);

    fds[0] = dup(snapshot_writer_memory_fd(w));
    fds[1] = dup(snapshot_writer_state_fd(w));
    fds[2] = dup(cow_fd);
    map = mmap(NULL, RIG_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    ck_assert_ptr_ne(map, MAP_FAILED);
    map[97 * 4096] ^= 0;
    ck_assert_int_eq(snapshot_writer_finish(w, &m, id, &f), 0);
    map[97 * 4096] ^= 1;
    must_be_complete("s/b");
    ck_assert_int_eq(munmap(map, RIG_MEMORY), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pwrite(fds[i], "evil", 4, 0), 4);
        close(fds[i]);
    }
    snapshot_writer_free(w);
    snapshot_manifest_fini(&m);
    must_be_complete("s/b");
}
END_TEST

START_TEST(base_must_be_zero_behind_its_data)
{
    const struct snapshot_writer_options none = {.parent = NULL};
    struct snapshot_disk disk = {.mode = VM_DISK_COW};
    struct snapshot_writer *w = NULL;
    struct failure f = {.code = ""};

    ck_assert_int_eq(snapshot_writer_begin(path_of("s/b"), &none, &w, &f), 0);
    ck_assert_int_lt(snapshot_writer_add_base(w, "scratch", rig.scratch_fd,
                                              RIG_SCRATCH_DATA - 1, &disk, &f),
                     0);
    ck_assert_str_eq(f.code, "snapshot_disk");
    snapshot_writer_free(w);
    /* Not a file at all. */
    ck_assert_int_eq(snapshot_writer_begin(path_of("s/b"), &none, &w, &f), 0);
    int dir = open(rig.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_lt(snapshot_writer_add_base(w, "root", dir, 0, &disk, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_disk");
    close(dir);
    snapshot_writer_free(w);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, killed_at_every_step, 0, JOBS * KINDS);
    tcase_add_loop_test(tc, no_space_at_every_step, 0, JOBS * KINDS);
    tcase_add_test(tc, file_size_limit_is_told);
    tcase_add_test(tc, interrupted_anywhere_leaves_nothing);
    tcase_add_loop_test(tc, bad_outputs_are_refused, 0,
                        (int)ARRAY_SIZE(bad_outputs));
    tcase_add_test(tc, name_lengths);
    tcase_add_test(tc, trailing_slash_does_not_matter);
    tcase_add_loop_test(tc, late_comer_loses, 0, KINDS);
    tcase_add_loop_test(tc, bad_saves_are_refused, 0, (int)ARRAY_SIZE(spoilt));
    tcase_add_test(tc, other_disks_are_refused);
    tcase_add_test(tc, bad_manifests_are_refused);
    tcase_add_test(tc, saved_files_are_out_of_reach);
    tcase_add_test(tc, base_must_be_zero_behind_its_data);
}

int main(void)
{
    Suite *suite = suite_create("snapshot_writer");
    TCase *tc = tcase_create("write");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 300);
    tcase_add_checked_fixture(tc, setup, teardown);
    add_tests(tc);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
