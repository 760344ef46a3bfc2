/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How it is found that a keeper is not well, and what is done to a process by
 * its number. The keeper is a child of the test with the machine's lock and
 * socket; the watch's own times are moved, so that nothing is waited for.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/msg.h"
#include "trial/keeper_proto.h"
#include "trial/live_watch.h"
#include "trial/process_look.h"

#define MS 1000000ull

static char dir[] = "/tmp/check_live_watch.XXXXXX";
static struct registry_entry entry;
static struct machine_record record;
static struct live_watch watch;
static struct failure f;
static int listener = -1;
static pid_t child = -1;

/* ---- the keeper ---- */

static void set_up(void)
{
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("XDG_RUNTIME_DIR", dir, 1);
    ck_assert_int_eq(registry_create("box", &entry, &f), 0);
    ck_assert_int_eq(registry_publish(&entry, &f), 0);
    listener = registry_listen(&entry);
    ck_assert_int_ge(listener, 0);
    child = fork();
    if (child == 0) {
        registry_close(&entry); /* a copy of the lock is the lock */
        for (;;)
            pause();
    }
    record = (struct machine_record){
        .name = "box",
        .keeper = child,
        .keeper_start = process_start_ticks(child),
    };
    ck_assert_uint_gt(record.keeper_start, 0);
    live_watch_init(&watch);
}

static void tear_down(void)
{
    char command[100];

    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    live_watch_fini(&watch);
    io_close(&listener);
    registry_close(&entry);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

/* The state has come that was asked for by a signal. */
static void await(enum process_look wanted)
{
    for (int i = 0; process_look(child, record.keeper_start) != wanted; i++) {
        ck_assert_int_lt(i, 20000);
        usleep(1000);
    }
}

/* As if the last look were one look's time ago. */
static int look_again(void)
{
    watch.look_ns -= LIVE_LOOK_MS * MS;
    return live_watch_look(&watch, &entry, &record, &f);
}

/* As if it had been heard last longer ago than it may be silent. */
static void be_silent(void)
{
    watch.heard_ns -= live_answer_ns();
}

/* ---- keepers that are not well ---- */

START_TEST(test_silent)
{
    ck_assert_int_eq(look_again(), 0);
    be_silent();
    /* Not before it is time for another look. */
    ck_assert_int_eq(live_watch_look(&watch, &entry, &record, &f), 0);
    ck_assert_int_eq(look_again(), -EHOSTDOWN);
    ck_assert_str_eq(f.code, "keeper_hangs");
    ck_assert_str_eq(f.object, "box");
}
END_TEST

/* The question is asked once, and its answer, whatever it is, is life. */
START_TEST(test_answers)
{
    static struct msg m;
    int sock;

    ck_assert_int_eq(look_again(), 0);
    ck_assert_int_eq(look_again(), 0);
    sock = accept(listener, NULL, NULL);
    ck_assert_int_ge(sock, 0);
    ck_assert_int_eq(msg_receive(sock, &m), 1);
    ck_assert_uint_eq(m.type, KEEPER_STATUS);
    ck_assert_int_lt(accept(listener, NULL, NULL), 0);
    be_silent();
    ck_assert_int_eq(msg_send(sock, KEEPER_REFUSED, NULL, 0, NULL, 0), 0);
    ck_assert_int_eq(look_again(), 0);
    ck_assert_int_eq(look_again(), 0); /* asks anew */
    close(sock);
    sock = accept(listener, NULL, NULL);
    ck_assert_int_ge(sock, 0);
    be_silent();
    ck_assert_int_eq(look_again(), -EHOSTDOWN);
    close(sock);
}
END_TEST

START_TEST(test_busy)
{
    int busy = registry_hold_busy(&entry);

    ck_assert_int_ge(busy, 0);
    ck_assert(registry_is_busy(&entry));
    ck_assert_int_eq(registry_hold_busy(&entry), -EBUSY);
    be_silent();
    ck_assert_int_eq(look_again(), 0);
    close(busy);
    ck_assert(!registry_is_busy(&entry));
    be_silent();
    ck_assert_int_eq(look_again(), -EHOSTDOWN);
}
END_TEST

/* To be busy for ever is to hang. */
START_TEST(test_busy_for_ever)
{
    int busy = registry_hold_busy(&entry);

    ck_assert_int_eq(look_again(), 0);
    watch.busy_ns -= LIVE_BUSY_MS * MS;
    ck_assert_int_eq(look_again(), 0); /* it was heard just before */
    be_silent();
    ck_assert_int_eq(look_again(), -EHOSTDOWN);
    close(busy);
    ck_assert_int_eq(look_again(), -EHOSTDOWN);
    busy = registry_hold_busy(&entry);
    ck_assert_int_eq(look_again(), 0); /* anew */
    close(busy);
}
END_TEST

START_TEST(test_stopped)
{
    char remedy[40];

    kill(child, SIGSTOP);
    await(PROCESS_STOPPED);
    ck_assert_int_eq(look_again(), 0); /* it may be for a moment */
    watch.stopped_ns -= LIVE_STOPPED_MS * MS;
    kill(child, SIGCONT);
    await(PROCESS_THERE);
    ck_assert_int_eq(look_again(), 0);
    kill(child, SIGSTOP);
    await(PROCESS_STOPPED);
    ck_assert_int_eq(look_again(), 0); /* the moment begins anew */
    watch.stopped_ns -= LIVE_STOPPED_MS * MS;
    ck_assert_int_eq(look_again(), -EHOSTDOWN);
    ck_assert_str_eq(f.code, "keeper_stopped");
    snprintf(remedy, sizeof(remedy), "kill -CONT %d", (int)child);
    ck_assert_ptr_nonnull(strstr(f.remedy, remedy));
}
END_TEST

/* Who was asleep itself cannot say how long the other was silent. */
START_TEST(test_own_sleep)
{
    watch.look_ns -= 2 * live_answer_ns();
    watch.heard_ns -= 2 * live_answer_ns();
    ck_assert_int_eq(live_watch_look(&watch, &entry, &record, &f), 0);
    kill(child, SIGSTOP);
    await(PROCESS_STOPPED);
    ck_assert_int_eq(look_again(), 0);
    watch.look_ns -= 10000 * MS;
    watch.stopped_ns -= 10000 * MS;
    ck_assert_int_eq(live_watch_look(&watch, &entry, &record, &f), 0);
}
END_TEST

/* ---- a process by its number ---- */

START_TEST(test_look)
{
    ck_assert_int_eq(process_look(child, 0), PROCESS_THERE);
    ck_assert_int_eq(process_look(child, record.keeper_start), PROCESS_THERE);
    ck_assert_int_eq(process_look(child, record.keeper_start + 1),
                     PROCESS_GONE);
    ck_assert_int_eq(process_look(0, 0), PROCESS_GONE);
    ck_assert_int_eq(process_look(-1, 0), PROCESS_GONE);
    kill(child, SIGKILL);
    await(PROCESS_GONE); /* a zombie by now */
    waitpid(child, NULL, 0);
    ck_assert_int_eq(process_look(child, 0), PROCESS_GONE);
    ck_assert_uint_eq(process_start_ticks(child), 0);
}
END_TEST

START_TEST(test_kill)
{
    /* Another one by now, as its start tells: not met. */
    ck_assert_int_eq(process_kill(child, record.keeper_start + 1), -ESRCH);
    ck_assert_int_eq(process_look(child, record.keeper_start), PROCESS_THERE);
    ck_assert_int_eq(process_kill(0, 0), -ESRCH);
    ck_assert_int_eq(process_kill(1, 0), -ESRCH);
    kill(child, SIGSTOP);
    await(PROCESS_STOPPED);
    ck_assert_int_eq(process_kill(child, record.keeper_start), 0);
    await(PROCESS_GONE);
    ck_assert_int_eq(process_kill(child, record.keeper_start), -ESRCH);
}
END_TEST

/* A machine whose keeper is gone has one who writes how it ended. */
START_TEST(test_adopt)
{
    struct registry_entry other = {.dir_fd = -1, .lock_fd = -1};

    ck_assert_int_eq(registry_find("box", &other, &f), 0);
    ck_assert_int_eq(registry_adopt(&other), -EBUSY);
    io_close(&entry.lock_fd);
    ck_assert(!registry_is_alive(&other));
    ck_assert_int_eq(registry_adopt(&other), 0);
    ck_assert(registry_is_alive(&entry));
    registry_close(&other);
    ck_assert(!registry_is_alive(&entry));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("live_watch");
    TCase *t = tcase_create("live_watch");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, test_silent);
    tcase_add_test(t, test_answers);
    tcase_add_test(t, test_busy);
    tcase_add_test(t, test_busy_for_ever);
    tcase_add_test(t, test_stopped);
    tcase_add_test(t, test_own_sleep);
    tcase_add_test(t, test_look);
    tcase_add_test(t, test_kill);
    tcase_add_test(t, test_adopt);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
