/* SPDX-License-Identifier: Apache-2.0 */
/* image.json and image directories: what is read, and each refusal's words. */
#include "trial/image.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define PART(file)                                                             \
    "{\"file\": \"" file "\", \"sha256\": \"" HEX "\", "                       \
    "\"bytes\": 4"

/* A complete image.json whose parts have four bytes each. */
static const char GOOD[] =
    "{\"schema\": \"microsbx.image/1\", \"name\": \"tiny\",\n"
    " \"kernel\": " PART(
        "kernel") ", \"release\": \"6.1.0-test\"},\n"
                  " \"initrd\": " PART(
                      "initrd") "},\n"
                                " \"rootfs\": " PART(
                                    "rootfs.erofs") ", \"type\": \"erofs\"},\n"
                                                    " \"scratch\": " PART(
                                                        "scratch.ext4") ", "
                                                                        "\"type"
                                                                        "\": "
                                                                        "\"ext4"
                                                                        "\","
                                                                        " \"dat"
                                                                        "a\": "
                                                                        "4},\n"
                                                                        " \"cmd"
                                                                        "line\""
                                                                        ": "
                                                                        "\"cons"
                                                                        "ole="
                                                                        "ttyS0 "
                                                                        "quiet"
                                                                        "\",\n"
                                                                        " \"rec"
                                                                        "ipe\":"
                                                                        " {"
                                                                        "\"sha2"
                                                                        "56\": "
                                                                        "\"" HEX
                                                                        "\"},\n"
                                                                        " \"pac"
                                                                        "kages"
                                                                        "\": "
                                                                        "{\"fil"
                                                                        "e\": "
                                                                        "\"pack"
                                                                        "ages\""
                                                                        ", "
                                                                        "\"sha2"
                                                                        "56\": "
                                                                        "\"" HEX
                                                                        "\"},\n"
                                                                        " \"use"
                                                                        "r\": "
                                                                        "\"sand"
                                                                        "box\","
                                                                        " \"wor"
                                                                        "kdir\""
                                                                        ": "
                                                                        "\"/"
                                                                        "home/"
                                                                        "sandbo"
                                                                        "x\",\n"
                                                                        " \"env"
                                                                        "\": "
                                                                        "{\"A\""
                                                                        ": "
                                                                        "\"1\","
                                                                        " \"PAT"
                                                                        "H_2\":"
                                                                        " \"x="
                                                                        "y\"}}"
                                                                        "\n";

/* GOOD with the first `from` replaced; the caller frees it. */
static char *changed(const char *from, const char *to)
{
    const char *at = strstr(GOOD, from);
    char *text;

    ck_assert_msg(at != NULL, "the good text lacks %s", from);
    ck_assert_int_gt(asprintf(&text, "%.*s%s%s", (int)(at - GOOD), GOOD, to,
                              at + strlen(from)),
                     0);
    return text;
}

START_TEST(test_good_image_is_read)
{
    char err[IMAGE_ERR_MAX];
    struct image image;

    ck_assert_int_eq(image_parse(GOOD, strlen(GOOD), &image, err, sizeof(err)),
                     0);
    ck_assert_str_eq(image.name, "tiny");
    ck_assert_str_eq(image.kernel.path, "kernel");
    ck_assert_str_eq(image.kernel.sha256, HEX);
    ck_assert_uint_eq(image.initrd.bytes, 4);
    ck_assert_str_eq(image.kernel_release, "6.1.0-test");
    ck_assert_str_eq(image.rootfs_type, "erofs");
    ck_assert_str_eq(image.scratch_type, "ext4");
    ck_assert_uint_eq(image.scratch_data, 4);
    ck_assert_str_eq(image.cmdline, "console=ttyS0 quiet");
    ck_assert_str_eq(image.packages_file, "packages");
    ck_assert_str_eq(image.user, "sandbox");
    ck_assert_str_eq(image.workdir, "/home/sandbox");
    ck_assert_uint_eq(image.env_count, 2);
    ck_assert_str_eq(image.env[0], "A=1");
    ck_assert_str_eq(image.env[1], "PATH_2=x=y");
    ck_assert_ptr_null(image.env[2]);
    ck_assert_ptr_null(image.dir);
    image_fini(&image);
    image_fini(&image); /* a zeroed struct is fine */
}
END_TEST

START_TEST(test_optional_keys_may_be_missing)
{
    static const char tail[] = ",\n \"packages\"";
    char *text = changed(tail, "}");
    char err[IMAGE_ERR_MAX];
    struct image image;
    size_t len = (size_t)(strstr(GOOD, tail) - GOOD) + 1;

    ck_assert_int_eq(image_parse(text, len, &image, err, sizeof(err)), 0);
    ck_assert_ptr_null(image.user);
    ck_assert_ptr_null(image.workdir);
    ck_assert_ptr_null(image.packages_file);
    ck_assert_ptr_nonnull(image.env);
    ck_assert_ptr_null(image.env[0]);
    image_fini(&image);
    free(text);
}
END_TEST

static const struct {
    const char *from, *to, *says;
} BAD[] = {
    {"\"initrd\":", "\"intrd\":", "unknown key 'intrd'; did you mean 'initrd'"},
    {"\"release\":", "\"relaese\":",
     "unknown key 'kernel.relaese'; did you mean 'kernel.release'"},
    {"\"cmdline\":", "\"qqqqqqqqqqqqqqqq\":", "unknown key 'qqqqqqqqqqqqqqqq'"},
    {"\"user\":", "\"us\\u001ber\":", "unknown key 'us?er'"},
    {"{\"sha256\"", "{\"sha\": 1, \"sha256\"", "unknown key 'recipe.sha'"},
    {"\"user\": \"sandbox\"", "\"name\": \"twice\"", "not JSON"},
    {"microsbx.image/1", "microsbx.image/2", "\"microsbx.image/1\", the only"},
    {"\"schema\": \"microsbx.image/1\", ", "", "'schema' is missing"},
    {"\"name\": \"tiny\",", "", "'name' is missing"},
    {"\"file\": \"kernel\", ", "", "'kernel.file' is missing"},
    {"\"tiny\"", "7", "'name' must be a string"},
    {"\"tiny\"", "\"\"", "must be a plain name"},
    {"\"tiny\"", "\"a b\"", "must be a plain name"},
    {"\"tiny\"", "\".hidden\"", "must be a plain name"},
    {"\"tiny\"", "\"" HEX HEX "\"", "is too long"},
    {"\"file\": \"kernel\"", "\"file\": \"/etc/passwd\"",
     "'kernel.file' (\"/etc/passwd\") must be a plain name"},
    {"\"file\": \"kernel\"", "\"file\": \"a/b\"", "must be a plain name"},
    {"\"file\": \"kernel\"", "\"file\": \"..\"", "must be a plain name"},
    {"\"file\": \"kernel\"", "\"file\": \"a\\u0000b\"", "not JSON"},
    {HEX, "0123", "'kernel.sha256' (\"0123\") must be 64"},
    {HEX, "G123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
     "must be 64 lower-case hex digits"},
    {"\"bytes\": 4", "\"bytes\": 0", "'kernel.bytes' must be between 1"},
    {"\"bytes\": 4", "\"bytes\": -1", "must be between 1"},
    {"\"bytes\": 4", "\"bytes\": 17592186044417", "must be between 1"},
    {"\"bytes\": 4", "\"bytes\": 99999999999999999999", "not JSON"},
    {"\"bytes\": 4", "\"bytes\": 4.0", "must be a whole number"},
    {"\"bytes\": 4", "\"bytes\": \"4\"", "must be a whole number"},
    {"\"type\": \"erofs\"", "\"type\": \"zfs\"",
     "'rootfs.type' (\"zfs\") names a type of file system"},
    {", \"data\": 4", "", "'scratch.data' is missing"},
    {"{\"sha256\": \"" HEX "\"}", "[]", "'recipe' must be an object"},
    {"ttyS0 quiet", "ttyS0\\nquiet", "'cmdline' (\"console=ttyS0?quiet\")"},
    {"\"/home/sandbox\"", "\"home\"", "'workdir' (\"home\") must be an abs"},
    {"{\"A\": \"1\"", "{\"A\": 1", "'env.A' must be a string"},
    {"{\"A\": \"1\"", "{\"1A\": \"1\"", "'env' names \"1A\""},
    {"{\"A\": \"1\"", "{\"A=B\": \"1\"", "'env' names \"A=B\""},
    {"{\"A\": \"1\"", "{\"A\": \"\\u001b[2J\"", "printable ASCII"},
    {"{\"A\": \"1\", \"PATH_2\": \"x=y\"}", "[1]", "'env' must be an object"},
};

START_TEST(test_bad_text_is_refused_with_its_reason)
{
    char *text = changed(BAD[_i].from, BAD[_i].to);
    char err[IMAGE_ERR_MAX];
    struct image image = {.dir = NULL};

    ck_assert_int_eq(image_parse(text, strlen(text), &image, err, sizeof(err)),
                     -EBADMSG);
    ck_assert_msg(strstr(err, BAD[_i].says) != NULL, "said: %s", err);
    ck_assert_ptr_null(strchr(err, '\n'));
    ck_assert_ptr_null(image.name); /* untouched */
    free(text);
}
END_TEST

START_TEST(test_every_truncation_is_refused)
{
    char err[IMAGE_ERR_MAX];
    struct image image;

    /* The last two bytes are the closing brace and a newline. */
    for (size_t len = 0; len < strlen(GOOD) - 1; len++)
        ck_assert_int_eq(image_parse(GOOD, len, &image, err, sizeof(err)),
                         -EBADMSG);
}
END_TEST

START_TEST(test_not_an_object)
{
    static const char *const TEXTS[] = {"",     "[]",       "7",  "\"x\"",
                                        "null", "\xff\xfe", "{}", "[[[[[["};
    char err[IMAGE_ERR_MAX];
    struct image image;

    for (size_t i = 0; i < ARRAY_SIZE(TEXTS); i++)
        ck_assert_int_eq(
            image_parse(TEXTS[i], strlen(TEXTS[i]), &image, err, sizeof(err)),
            -EBADMSG);
}
END_TEST

START_TEST(test_too_many_variables_and_bytes)
{
    char *big = malloc(IMAGE_JSON_MAX + 1);
    char env[4096] = "{\"A\": \"1\"";
    char err[IMAGE_ERR_MAX];
    struct image image;
    char *text;

    for (unsigned i = 0; i < IMAGE_ENV_MAX; i++)
        (void)snprintf(env + strlen(env), sizeof(env) - strlen(env),
                       ", \"V%u\": \"\"", i);
    text = changed("{\"A\": \"1\"", env);
    ck_assert_int_eq(image_parse(text, strlen(text), &image, err, sizeof(err)),
                     -EBADMSG);
    ck_assert_ptr_nonnull(strstr(err, "more than 64 variables"));
    free(text);
    ck_assert_ptr_nonnull(big);
    memset(big, ' ', IMAGE_JSON_MAX + 1);
    ck_assert_int_eq(
        image_parse(big, IMAGE_JSON_MAX + 1, &image, err, sizeof(err)),
        -EBADMSG);
    ck_assert_ptr_nonnull(strstr(err, "larger than"));
    free(big);
}
END_TEST

START_TEST(test_small_error_buffers)
{
    char err[IMAGE_ERR_MAX];
    struct image image;

    for (size_t size = 0; size < 64; size++) {
        memset(err, '#', sizeof(err));
        ck_assert_int_eq(image_parse("{\"x\": 1}", 8, &image, err, size),
                         -EBADMSG);
        ck_assert_int_eq(err[size], '#');
    }
}
END_TEST

/* ---- directories --------------------------------------------------------- */

static char folder[64]; /* one test's own; each test is a process */

static void write_file(const char *name, const char *content)
{
    char path[512];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(content, f), 0);
    ck_assert_int_eq(fclose(f), 0);
}

static void in_folder(char *path, size_t size, const char *name)
{
    (void)snprintf(path, size, "%s/%s", folder, name);
}

static void set_up(void)
{
    static const char *const PARTS[] = {"kernel", "initrd", "rootfs.erofs",
                                        "scratch.ext4"};

    (void)snprintf(folder, sizeof(folder), "/tmp/check_image.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    for (size_t i = 0; i < ARRAY_SIZE(PARTS); i++)
        write_file(PARTS[i], "abcd");
    write_file("image.json", GOOD);
}

static void tear_down(void)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Opens the folder; it must fail with the errno and these words. */
static void expect_refusal(int error, const char *says)
{
    char err[IMAGE_ERR_MAX];
    struct image image;
    int ret = image_open(folder, &image, err, sizeof(err));

    ck_assert_int_eq(ret, error);
    ck_assert_msg(strstr(err, says) != NULL, "said: %s", err);
}

START_TEST(test_open_makes_paths_absolute)
{
    char err[IMAGE_ERR_MAX];
    struct image image;
    char want[512];

    ck_assert_int_eq(chdir("/tmp"), 0);
    ck_assert_int_eq(
        image_open(folder + strlen("/tmp/"), &image, err, sizeof(err)), 0);
    ck_assert_str_eq(image.dir, folder);
    in_folder(want, sizeof(want), "rootfs.erofs");
    ck_assert_str_eq(image.rootfs.path, want);
    image_fini(&image);
}
END_TEST

START_TEST(test_open_names_what_is_missing)
{
    static const struct {
        const char *file, *says;
    } all[] = {
        {"kernel", "lacks its kernel: 'kernel': No such file"},
        {"initrd", "lacks its initrd"},
        {"rootfs.erofs", "lacks its root file system: 'rootfs.erofs'"},
        {"scratch.ext4", "lacks its scratch disk"},
        {"image.json", "is this an image directory?"},
    };
    char path[512];

    in_folder(path, sizeof(path), all[_i].file);
    ck_assert_int_eq(unlink(path), 0);
    expect_refusal(-ENOENT, all[_i].says);
}
END_TEST

START_TEST(test_open_refuses_other_than_regular_files)
{
    char path[512];

    in_folder(path, sizeof(path), "kernel");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("initrd", path), 0);
    expect_refusal(-EBADMSG, "the kernel of the image in");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    expect_refusal(-EBADMSG, "is not a regular file");
    ck_assert_int_eq(rmdir(path), 0);
    in_folder(path, sizeof(path), "image.json");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_refusal(-EBADMSG, "is not a regular file"); /* and does not hang */
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("kernel", path), 0);
    expect_refusal(-ELOOP, "cannot read");
}
END_TEST

START_TEST(test_open_refuses_a_part_of_another_size)
{
    write_file("initrd", "abc");
    expect_refusal(-EBADMSG, "has 3 bytes instead of 4");
}
END_TEST

START_TEST(test_open_passes_on_what_the_parser_says)
{
    write_file("image.json", "{");
    expect_refusal(-EBADMSG, "is not JSON: line 1");
}
END_TEST

START_TEST(test_open_of_what_is_no_directory)
{
    char err[IMAGE_ERR_MAX];
    struct image image;

    ck_assert_int_eq(image_open("/nonexistent", &image, err, sizeof(err)),
                     -ENOENT);
    ck_assert_ptr_nonnull(strstr(err, "/nonexistent"));
    ck_assert_int_eq(image_open("/dev/null", &image, err, sizeof(err)),
                     -ENOTDIR);
}
END_TEST

START_TEST(test_find_by_name_and_directory)
{
    char err[IMAGE_ERR_MAX];
    char path[512];
    char *dir;

    /* The cache is asked first for a name, a directory is taken as one. */
    in_folder(path, sizeof(path), "microsbx");
    ck_assert_int_eq(mkdir(path, 0700), 0);
    in_folder(path, sizeof(path), "microsbx/images");
    ck_assert_int_eq(mkdir(path, 0700), 0);
    in_folder(path, sizeof(path), "microsbx/images/tiny");
    ck_assert_int_eq(mkdir(path, 0700), 0);
    write_file("microsbx/images/tiny/image.json", GOOD);
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", folder, 1), 0);
    ck_assert_int_eq(image_find("tiny", &dir, err, sizeof(err)), 0);
    ck_assert_str_eq(dir, path);
    free(dir);
    ck_assert_int_eq(image_find(folder, &dir, err, sizeof(err)), 0);
    ck_assert_str_eq(dir, folder);
    free(dir);
    ck_assert_int_eq(image_find("nope", &dir, err, sizeof(err)), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err, "microsbx image build nope"));
    ck_assert_int_eq(image_find("", &dir, err, sizeof(err)), -EINVAL);
    ck_assert_int_eq(image_find(HEX HEX, &dir, err, sizeof(err)),
                     -ENAMETOOLONG);
    ck_assert_int_eq(chdir("/tmp"), 0);
    ck_assert_int_eq(
        image_find(folder + strlen("/tmp/"), &dir, err, sizeof(err)), 0);
    ck_assert_str_eq(dir, folder);
    free(dir);
}
END_TEST

START_TEST(test_cache_directory_follows_the_environment)
{
    char *dir;

    ck_assert_int_eq(setenv("HOME", "/h", 1), 0);
    ck_assert_int_eq(setenv("XDG_CACHE_HOME", "relative", 1), 0);
    dir = image_cache_dir();
    ck_assert_str_eq(dir, "/h/.cache/microsbx/images");
    free(dir);
    ck_assert_int_eq(unsetenv("XDG_CACHE_HOME"), 0);
    ck_assert_int_eq(unsetenv("HOME"), 0);
    ck_assert_ptr_null(image_cache_dir());
}
END_TEST

static Suite *image_suite(void)
{
    Suite *suite = suite_create("image");
    TCase *text = tcase_create("image.json");
    TCase *files = tcase_create("directory");

    tcase_add_test(text, test_good_image_is_read);
    tcase_add_test(text, test_optional_keys_may_be_missing);
    tcase_add_loop_test(text, test_bad_text_is_refused_with_its_reason, 0,
                        (int)ARRAY_SIZE(BAD));
    tcase_add_test(text, test_every_truncation_is_refused);
    tcase_add_test(text, test_not_an_object);
    tcase_add_test(text, test_too_many_variables_and_bytes);
    tcase_add_test(text, test_small_error_buffers);
    suite_add_tcase(suite, text);
    tcase_add_checked_fixture(files, set_up, tear_down);
    tcase_add_test(files, test_open_makes_paths_absolute);
    tcase_add_loop_test(files, test_open_names_what_is_missing, 0, 5);
    tcase_add_test(files, test_open_refuses_other_than_regular_files);
    tcase_add_test(files, test_open_refuses_a_part_of_another_size);
    tcase_add_test(files, test_open_passes_on_what_the_parser_says);
    tcase_add_test(files, test_open_of_what_is_no_directory);
    tcase_add_test(files, test_find_by_name_and_directory);
    tcase_add_test(files, test_cache_directory_follows_the_environment);
    suite_add_tcase(suite, files);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(image_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
