/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders of long-lived machines and their records: names, locks, what is in
 * use, what is left behind, and whose folders are trusted.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/json_memory.h"
#include "trial/json_make.h"
#include "trial/machine_record.h"
#include "trial/registry.h"

static char dir[] = "/tmp/check_registry.XXXXXX";
static struct failure f;

static void set_up(void)
{
    memset(&f, 0, sizeof(f));
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("XDG_RUNTIME_DIR", dir, 1);
}

static void tear_down(void)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static bool exists(const char *name)
{
    char path[200];

    snprintf(path, sizeof(path), "%s/microsbx/machines/%s", dir, name);
    return access(path, F_OK) == 0;
}

static struct registry_entry make(const char *name)
{
    struct registry_entry e;

    ck_assert_int_eq(registry_create(name, &e, &f), 0);
    ck_assert_int_eq(registry_publish(&e, &f), 0);
    return e;
}

static const struct {
    const char *name;
    bool valid;
} names[] = {
    {"a", true},
    {"A.b_c-9", true},
    {"1234567890123456789012345678901234567890123456789012345678901234", true},
    {"12345678901234567890123456789012345678901234567890123456789012345",
     false},
    {"", false},
    {".", false},
    {"..", false},
    {".a", false},
    {"a/b", false},
    {"a b", false},
    {"a\nb", false},
    {"\xc3\xa9", false},
};

START_TEST(test_names)
{
    ck_assert_int_eq(registry_name_is_valid(names[_i].name), names[_i].valid);
}
END_TEST

START_TEST(test_made_name)
{
    char a[REGISTRY_NAME_MAX + 1], b[REGISTRY_NAME_MAX + 1];

    registry_make_name(a);
    registry_make_name(b);
    ck_assert(registry_name_is_valid(a));
    ck_assert_str_ne(a, b);
}
END_TEST

/* Not to be seen before it is published; then found, alive, and gone. */
START_TEST(test_life)
{
    struct registry_entry e, found;

    ck_assert_int_eq(registry_create("box", &e, &f), 0);
    ck_assert(!exists("box"));
    ck_assert_int_eq(registry_publish(&e, &f), 0);
    ck_assert(exists("box"));
    ck_assert_int_eq(registry_find("box", &found, &f), 0);
    ck_assert(registry_is_alive(&found));
    ck_assert(!registry_wait_end(&found, 50));
    ck_assert_int_eq(registry_remove(&found), -EBUSY);
    ck_assert_int_eq(registry_remove(&e), 0);
    ck_assert(!exists("box"));
    ck_assert_int_eq(registry_find("box", &found, &f), -ENOENT);
    ck_assert_str_eq(f.message, "there is no machine named box");
    ck_assert_int_eq(registry_find("", &found, &f), -ENOENT);
    ck_assert_str_eq(f.message, "the name of the machine is empty");
}
END_TEST

START_TEST(test_name_in_use)
{
    struct registry_entry e = make("box"), other;
    char **list;
    size_t count;

    ck_assert_int_eq(registry_create("box", &other, &f), 0);
    ck_assert_int_eq(registry_publish(&other, &f), -EEXIST);
    ck_assert_ptr_nonnull(strstr(f.message, "named box already"));
    ck_assert_int_eq(registry_remove(&other), 0);
    /* Also when its keeper is gone. */
    registry_close(&e);
    ck_assert_int_eq(registry_create("box", &other, &f), 0);
    ck_assert_int_eq(registry_publish(&other, &f), -EEXIST);
    ck_assert_int_eq(registry_remove(&other), 0);
    ck_assert_int_eq(registry_names(&list, &count, &f), 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(list[0], "box");
    registry_names_free(list, count);
}
END_TEST

START_TEST(test_nearest)
{
    struct registry_entry e = make("training"), found;

    ck_assert_int_eq(registry_find("trainig", &found, &f), -ENOENT);
    ck_assert_str_eq(f.remedy, "did you mean training?");
    ck_assert_int_eq(registry_find("../training", &found, &f), -ENOENT);
    ck_assert_int_eq(registry_find("\x1b[2J", &found, &f), -ENOENT);
    ck_assert_ptr_null(strchr(f.message, '\x1b'));
    registry_close(&e);
}
END_TEST

/* The lock dies with the process that holds it, however it ends. */
START_TEST(test_killed)
{
    struct registry_entry found;
    int ready[2];
    char byte;
    pid_t pid;

    ck_assert_int_eq(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        struct registry_entry e = make("box");

        ck_assert_int_eq(write(ready[1], "", 1), 1);
        for (;;)
            pause();
        registry_close(&e);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(registry_find("box", &found, &f), 0);
    ck_assert(registry_is_alive(&found));
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert(!registry_is_alive(&found));
    ck_assert_int_eq(registry_remove(&found), 0);
    ck_assert(!exists("box"));
}
END_TEST

/* What was never published goes when nobody holds it; not while one does. */
START_TEST(test_sweep)
{
    struct registry_entry held, left;
    char path[200], command[300];
    char **list;
    size_t count;

    ck_assert_int_eq(registry_create("held", &held, &f), 0);
    ck_assert_int_eq(registry_create("left", &left, &f), 0);
    registry_close(&left);
    snprintf(path, sizeof(path), "%s/microsbx/machines", dir);
    /* Young ones are let be: their lock may be on its way. */
    ck_assert_int_eq(registry_names(&list, &count, &f), 0);
    registry_names_free(list, count);
    snprintf(command, sizeof(command), "test $(ls -A %s | wc -l) = 2", path);
    ck_assert_int_eq(system(command), 0);
    sleep(4);
    ck_assert_int_eq(registry_names(&list, &count, &f), 0);
    registry_names_free(list, count);
    snprintf(command, sizeof(command), "test $(ls -A %s | wc -l) = 1", path);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(registry_publish(&held, &f), 0);
    ck_assert_int_eq(registry_remove(&held), 0);
}
END_TEST

/* Long paths need no long address; nobody listening is told at once. */
START_TEST(test_socket)
{
    struct registry_entry e, found;
    char deep[400];
    int listener, client, server;

    snprintf(deep, sizeof(deep), "%s/%0120d", dir, 7);
    ck_assert_int_eq(mkdir(deep, 0700), 0);
    setenv("XDG_RUNTIME_DIR", deep, 1);
    ck_assert_int_eq(registry_create("box", &e, &f), 0);
    ck_assert_int_ge(listener = registry_listen(&e), 0);
    ck_assert_int_eq(registry_publish(&e, &f), 0);
    ck_assert_int_eq(registry_find("box", &found, &f), 0);
    ck_assert_int_ge(client = registry_connect(&found), 0);
    ck_assert_int_ge(server = accept(listener, NULL, NULL), 0);
    ck_assert_int_eq(send(client, "x", 1, 0), 1);
    close(client);
    close(server);
    close(listener);
    ck_assert_int_eq(registry_connect(&found), -ECONNREFUSED);
    unlinkat(e.dir_fd, "socket", 0);
    ck_assert_int_eq(registry_connect(&found), -ECONNREFUSED);
    registry_close(&found);
    ck_assert_int_eq(registry_remove(&e), 0);
}
END_TEST

/* A folder that others can write to, or that is a link, is not used. */
START_TEST(test_foreign_folders)
{
    char path[200], target[200];
    char **list;
    size_t count;

    ck_assert_int_eq(chmod(dir, 0777), 0);
    ck_assert_int_eq(registry_names(&list, &count, &f), -EPERM);
    ck_assert_ptr_nonnull(strstr(f.message, "others have access"));
    ck_assert_int_eq(chmod(dir, 0700), 0);
    snprintf(path, sizeof(path), "%s/microsbx", dir);
    snprintf(target, sizeof(target), "%s/elsewhere", dir);
    ck_assert_int_eq(mkdir(target, 0700), 0);
    ck_assert_int_eq(symlink(target, path), 0);
    ck_assert_int_lt(registry_names(&list, &count, &f), 0);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0755), 0);
    ck_assert_int_eq(registry_names(&list, &count, &f), -EPERM);
    ck_assert_int_eq(chmod(path, 0700), 0);
    ck_assert_int_eq(registry_names(&list, &count, &f), 0);
    registry_names_free(list, count);
    setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
    ck_assert_int_eq(registry_names(&list, &count, &f), -ENOENT);
    if (geteuid() == 0) {
        setenv("XDG_RUNTIME_DIR", dir, 1);
        ck_assert_int_eq(chown(path, 12345, 12345), 0);
        ck_assert_int_eq(registry_names(&list, &count, &f), -EPERM);
    }
}
END_TEST

/* ---- records ---- */

static struct machine_record some_record(void)
{
    struct machine_record r = {
        .name = "box",
        .protocol = 1,
        .state = MACHINE_RUNNING,
        .created_at = 1800000000,
        .ttl_ms = 86400000,
        .keeper = 4711,
        .image = "python",
        .kernel = "6.1.0",
        .memory_bytes = 1ull << 40,
        .disk_limit = INT64_MAX,
        .cpu_count = 64,
        .exit_status = 137,
        .outcome = "guest_panic",
        .message = "a \"sentence\"\n",
    };
    const char *const argv[] = {"sh", "-c", "echo \x1b[31m", NULL};

    machine_record_command(r.command, argv);
    return r;
}

static bool same(const struct machine_record *a, const struct machine_record *b)
{
    json_t *x = machine_record_to_json(a), *y = machine_record_to_json(b);
    bool equal = x && json_equal(x, y);

    json_decref(x);
    json_decref(y);
    return equal;
}

START_TEST(test_record_round_trip)
{
    struct registry_entry e = make("box");
    struct machine_record r = some_record(), got;

    ck_assert_str_eq(r.command, "sh -c echo \\x1b[31m");
    ck_assert_int_eq(machine_record_write(&e, &r), 0);
    ck_assert_int_eq(machine_record_read(&e, &got, &f), 0);
    ck_assert(same(&got, &r));
    /* Its keeper is gone, and it does not say that it ended. */
    close(e.lock_fd);
    e.lock_fd = -1;
    ck_assert_int_eq(machine_record_read(&e, &got, &f), 0);
    ck_assert_int_eq(got.state, MACHINE_DEAD);
    r.ended_at = r.created_at + 1;
    r.state = MACHINE_EXITED;
    ck_assert_int_eq(machine_record_write(&e, &r), 0);
    ck_assert_int_eq(machine_record_read(&e, &got, &f), 0);
    ck_assert_int_eq(got.state, MACHINE_EXITED);
    ck_assert_int_eq(registry_remove(&e), 0);
}
END_TEST

START_TEST(test_long_command)
{
    static char word[5000];
    const char *const argv[] = {"first", word, "never", NULL};
    struct machine_record r = {0};

    memset(word, 'w', sizeof(word) - 1);
    machine_record_command(r.command, argv);
    ck_assert_uint_eq(strlen(r.command), MACHINE_COMMAND_MAX);
    ck_assert_int_eq(strncmp(r.command, "first www", 9), 0);
}
END_TEST

/* Replaces the first `from` of a good record: it must not be read any more. */
static const struct {
    const char *from, *to;
} damages[] = {
    {"\"box\"", "\".box\""},
    {"\"box\"", "7"},
    {"\"running\"", "\"runing\""},
    {"\"running\"", "\"dead\""},
    {"\"running\"", "null"},
    {"\"protocol\":1", "\"protocol\":-1"},
    {"\"protocol\":1", "\"protocol\":65536"},
    {"\"protocol\":1", "\"protocol\":1.0"},
    {"\"protocol\":1", "\"protocol\":1,\"protocol\":1"},
    {"\"protocol\":1", "\"protocol\":1,\"extra\":1"},
    {"\"protocol\":1,", ""},
    {"\"exit_status\":137", "\"exit_status\":256"},
    {"{", "["},
    {"}", ""},
};

static char *write_record(const void *object)
{
    json_t *o = machine_record_to_json(object);
    char *text = json_write(o, JSON_COMPACT);

    json_decref(o);
    return text;
}

START_TEST(test_memory)
{
    struct machine_record r = some_record();
    const char *said = json_memory_check(write_record, &r);

    ck_assert_msg(!said, "%s", said);
}
END_TEST

START_TEST(test_damaged_record)
{
    struct machine_record r = some_record(), got;
    json_t *o = machine_record_to_json(&r);
    char *text = json_dumps(o, JSON_COMPACT);
    char *at = strstr(text, damages[_i].from);
    char buf[8192];

    ck_assert_int_eq(machine_record_from_json(text, strlen(text), &got), 0);
    ck_assert_ptr_nonnull(at);
    snprintf(buf, sizeof(buf), "%.*s%s%s", (int)(at - text), text,
             damages[_i].to, at + strlen(damages[_i].from));
    ck_assert_int_eq(machine_record_from_json(buf, strlen(buf), &got),
                     -EBADMSG);
    free(text);
    json_decref(o);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("registry");
    TCase *t = tcase_create("registry");

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, test_names, 0,
                        (int)(sizeof(names) / sizeof(names[0])));
    tcase_add_test(t, test_made_name);
    tcase_add_test(t, test_life);
    tcase_add_test(t, test_name_in_use);
    tcase_add_test(t, test_nearest);
    tcase_add_test(t, test_killed);
    tcase_add_test(t, test_sweep);
    tcase_add_test(t, test_socket);
    tcase_add_test(t, test_foreign_folders);
    tcase_add_test(t, test_record_round_trip);
    tcase_add_test(t, test_long_command);
    tcase_add_test(t, test_memory);
    tcase_add_loop_test(t, test_damaged_record, 0,
                        (int)(sizeof(damages) / sizeof(damages[0])));
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
