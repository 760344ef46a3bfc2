/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two trees side by side, as the guest walks them, on ordinary directories:
 * "view" is what a guest saw, "upper" has a name for all that was written.
 */
#include "guest/compare.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static char dir[64];
static struct compare_side sides[2];
static char said[1u << 20]; /* the lines that were reported */
static size_t said_len;
static uint32_t count;
static unsigned stop_at; /* reports until one fails; 0: never */

static int open_at(const char *name)
{
    int fd;

    ck_assert_int_eq(mkdir(name, 0755), 0);
    fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void set_up(void)
{
    strcpy(dir, "/tmp/check_compare.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    umask(022);
    sides[0].view = open_at("a");
    sides[1].view = open_at("b");
    sides[0].upper = open_at("ua");
    sides[1].upper = open_at("ub");
    stop_at = 0;
}

static void tear_down(void)
{
    char command[128];

    for (unsigned i = 0; i < 2; i++) {
        close(sides[i].view);
        close(sides[i].upper);
    }
    ck_assert_int_eq(chdir("/"), 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

    ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void make_dir(const char *path)
{
    ck_assert_msg(mkdir(path, 0755) == 0, "%s: %s", path, strerror(errno));
}

/* What was written on either side, as far as the walk asks. */
static void touch(const char *name)
{
    char path[300];

    snprintf(path, sizeof(path), "ua/%s", name);
    put(path, "");
}

static int note(void *ctx, const struct proto_compare *entry)
{
    ck_assert_ptr_eq(ctx, said);
    ck_assert_uint_lt(said_len + PROTO_COMPARE_LINE_MAX, sizeof(said));
    said_len += proto_compare_format(entry, said + said_len);
    said[said_len] = '\0';
    return stop_at > 0 && --stop_at == 0 ? -EPIPE : 0;
}

static int walk(void)
{
    said_len = 0;
    said[0] = '\0';
    count = UINT32_MAX;
    return compare_trees(sides, note, said, &count);
}

static void must_say(const char *lines)
{
    uint32_t n = 0;

    ck_assert_int_eq(walk(), 0);
    ck_assert_str_eq(said, lines);
    for (; *lines; lines++)
        n += *lines == '\n';
    ck_assert_uint_eq(count, n);
}

START_TEST(test_nothing)
{
    must_say("");
}
END_TEST

START_TEST(test_files)
{
    put("a/changed", "one");
    put("b/changed", "two");
    put("a/gone", "");
    put("b/new", "");
    put("a/longer", "one");
    put("b/longer", "one and more");
    put("a/same", "s");
    put("b/same", "s");
    ck_assert_int_eq(
        utimensat(AT_FDCWD, "b/same", (struct timespec[2]){{1, 0}, {1, 0}}, 0),
        0);
    put("a/mode", "m");
    put("b/mode", "m");
    ck_assert_int_eq(chmod("b/mode", 04755), 0);
    touch("changed");
    touch("longer");
    touch("same");
    touch("mode");
    must_say("M f /changed\n"
             "D f /gone\n"
             "M f /longer\n"
             "m f /mode\n"
             "A f /new\n");
}
END_TEST

/* What neither layer has a name for is the root's on both sides. */
START_TEST(test_untouched)
{
    put("a/x", "one");
    put("b/x", "two");
    must_say("");
    put("ub/x", "");
    must_say("M f /x\n");
}
END_TEST

/* A difference in the last byte of a piece, and in the first of the next. */
START_TEST(test_large)
{
    static char text[3 * 65536 + 1];
    const size_t places[] = {0, 65535, 65536, sizeof(text) - 2};

    memset(text, 'x', sizeof(text) - 1);
    put("a/large", text);
    put("b/large", text);
    touch("large");
    must_say("");
    for (int i = 0; i < COUNT(places); i++) {
        text[places[i]] = 'y';
        put("b/large", text);
        text[places[i]] = 'x';
        must_say("M f /large\n");
    }
}
END_TEST

START_TEST(test_directories)
{
    make_dir("a/kept");
    make_dir("b/kept");
    make_dir("ua/kept");
    make_dir("b/kept/new");
    put("b/kept/new/file", "");
    make_dir("b/kept/new/deep");
    put("b/kept/new/deep/file", "");
    make_dir("a/kept/old");
    put("a/kept/old/file", "");
    put("a/kept/x", "1");
    put("b/kept/x", "2");
    put("ua/kept/x", "");
    put("a/kept/y", "1"); /* not written */
    put("b/kept/y", "2");
    ck_assert_int_eq(chmod("b/kept", 0700), 0);
    ck_assert_int_eq(chmod("b", 0711), 0);
    must_say("m d /\n"
             "m d /kept\n"
             "A d /kept/new\n"
             "A d /kept/new/deep\n"
             "A f /kept/new/deep/file\n"
             "A f /kept/new/file\n"
             "D d /kept/old\n"
             "D f /kept/old/file\n"
             "M f /kept/x\n");
}
END_TEST

/* "a.b" sorts before "a/b" by bytes, but directories are walked whole. */
START_TEST(test_order)
{
    make_dir("b/a");
    put("b/a/b", "");
    put("b/a.b", "");
    put("b/a b", "");
    must_say("A d /a\n"
             "A f /a/b\n"
             "A f /a b\n"
             "A f /a.b\n");
}
END_TEST

/* An opaque directory has no names for what it hides. */
START_TEST(test_opaque)
{
    make_dir("a/d");
    make_dir("b/d");
    make_dir("ub/d");
    put("a/d/hidden", "");
    must_say("D f /d/hidden\n");
}
END_TEST

/* A layer has a whiteout, a file or a link where the view has a directory. */
START_TEST(test_layer_differs)
{
    make_dir("a/d");
    make_dir("b/d");
    put("ua/d", "");
    ck_assert_int_eq(symlink("/", "ub/d"), 0);
    put("a/d/x", "1");
    put("b/d/y", "2");
    must_say("D f /d/x\n"
             "A f /d/y\n");
}
END_TEST

/*
 * A folder that was renamed has names of its own in no layer: all of it is
 * looked at, and only there.
 */
START_TEST(test_moved)
{
    make_dir("a/dir");
    make_dir("b/dir");
    make_dir("a/dir/sub");
    make_dir("b/dir/sub");
    put("a/dir/sub/file", "one");
    put("b/dir/sub/file", "two");
    put("a/other", "one");
    put("b/other", "two");
    make_dir("ub/dir");
    must_say("");
    if (setxattr("ub/dir", "trusted.overlay.redirect", "/was", 4, 0) < 0) {
        puts("skip - folders that were renamed: only root can mark one");
        return;
    }
    must_say("M f /dir/sub/file\n");
}
END_TEST

START_TEST(test_types)
{
    make_dir("a/was-dir");
    put("a/was-dir/x", "");
    put("b/was-dir", "");
    touch("was-dir");
    put("a/was-file", "");
    make_dir("b/was-file");
    put("b/was-file/y", "");
    touch("was-file");
    ck_assert_int_eq(mkfifo("b/pipe", 0600), 0);
    must_say("A p /pipe\n"
             "D d /was-dir\n"
             "D f /was-dir/x\n"
             "A f /was-dir\n"
             "D f /was-file\n"
             "A d /was-file\n"
             "A f /was-file/y\n");
}
END_TEST

/* A FIFO on both sides is not opened: nobody would ever write. */
START_TEST(test_special)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "a/sock"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(mkfifo("a/pipe", 0600), 0);
    ck_assert_int_eq(mkfifo("b/pipe", 0600), 0);
    touch("pipe");
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    must_say("D s /sock\n");
}
END_TEST

START_TEST(test_devices)
{
    if (mknod("a/dev", S_IFCHR | 0600, makedev(1, 3)) != 0) {
        puts("skip - device nodes that differ: only root can make one");
        return;
    }
    ck_assert_int_eq(mknod("b/dev", S_IFCHR | 0600, makedev(1, 5)), 0);
    ck_assert_int_eq(mknod("b/disk", S_IFBLK | 0600, makedev(8, 0)), 0);
    touch("dev");
    must_say("M c /dev\n"
             "A b /disk\n");
}
END_TEST

/* Links are compared, never followed. */
START_TEST(test_links)
{
    make_dir("outside");
    put("outside/secret", "");
    ck_assert_int_eq(symlink("../outside", "a/same"), 0);
    ck_assert_int_eq(symlink("../outside", "b/same"), 0);
    ck_assert_int_eq(symlink("../outside", "a/other"), 0);
    ck_assert_int_eq(symlink("../outsidE", "b/other"), 0);
    ck_assert_int_eq(symlink("../outside", "b/new"), 0);
    touch("same");
    touch("other");
    must_say("A l /new\n"
             "M l /other\n");
}
END_TEST

START_TEST(test_hostile_names)
{
    make_dir("b/a\nD f ");
    put("b/a\nD f /etc", "");
    put("b/\x1b[2J", "");
    put("b/\\x41", "");
    put("b/ ", "");
    put("b/\xff\x80", "");
    put("b/end 1", "");
    must_say("A f /\\x1b[2J\n"
             "A f / \n"
             "A f /\\x5cx41\n"
             "A d /a\\x0aD f \n"
             "A f /a\\x0aD f /etc\n"
             "A f /end 1\n"
             "A f /\\xff\\x80\n");
}
END_TEST

/* Deeper than the walk goes, and longer than a path may be. */
START_TEST(test_deep)
{
    int fd = dup(sides[1].view), next;

    for (unsigned i = 0; i <= COMPARE_DEPTH_MAX; i++) {
        ck_assert_int_eq(mkdirat(fd, "d", 0755), 0);
        next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(walk(), i < COMPARE_DEPTH_MAX ? 0 : -ELOOP);
    }
    close(fd);
    ck_assert_uint_eq(count, UINT32_MAX);
}
END_TEST

START_TEST(test_long_path)
{
    int fd = dup(sides[1].view), next;
    char name[256];

    memset(name, 'n', 255);
    name[255] = '\0';
    for (unsigned i = 0; i < 16; i++) {
        /* 15 * 256 bytes fit; the 16th ends at 4096, without its NUL. */
        ck_assert_int_eq(walk(), 0);
        ck_assert_int_eq(mkdirat(fd, name, 0755), 0);
        next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
        ck_assert_int_ge(fd, 0);
    }
    close(fd);
    ck_assert_int_eq(walk(), -ENAMETOOLONG);
}
END_TEST

/* What cannot be read makes the whole fail, and so does the reader. */
START_TEST(test_errors)
{
    struct compare_side side = sides[0];

    put("b/one", "");
    put("b/two", "");
    stop_at = 2;
    ck_assert_int_eq(walk(), -EPIPE);
    ck_assert_uint_eq(count, UINT32_MAX);
    ck_assert_str_eq(said, "A f /one\nA f /two\n");
    sides[0].view = open("b/one", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(walk(), -ENOTDIR);
    close(sides[0].view);
    sides[0] = side;
}
END_TEST

int main(void)
{
    Suite *s = suite_create("compare");
    TCase *tc = tcase_create("compare");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, test_nothing);
    tcase_add_test(tc, test_files);
    tcase_add_test(tc, test_untouched);
    tcase_add_test(tc, test_large);
    tcase_add_test(tc, test_directories);
    tcase_add_test(tc, test_order);
    tcase_add_test(tc, test_opaque);
    tcase_add_test(tc, test_layer_differs);
    tcase_add_test(tc, test_moved);
    tcase_add_test(tc, test_types);
    tcase_add_test(tc, test_special);
    tcase_add_test(tc, test_devices);
    tcase_add_test(tc, test_links);
    tcase_add_test(tc, test_hostile_names);
    tcase_add_test(tc, test_deep);
    tcase_add_test(tc, test_long_path);
    tcase_add_test(tc, test_errors);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
