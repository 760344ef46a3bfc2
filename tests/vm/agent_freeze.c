/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as PID 1 of a real guest around a freeze that does not come: what
 * it does to the guest's own kernel. The machine goes on after each QUIESCE,
 * and is restored as another one all the same.
 *
 *   agent_freeze IMAGE [KERNEL]
 *
 * One line per test; status 0 if all passed, 77 if the machine cannot start.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/guest_rig.h"

#define MIB (1ull << 20)
#define MEMORY (256 * MIB)
#define PAGE 4096u
#define READ_BOOT_ID "cat /proc/sys/kernel/random/boot_id"
#define TEXT 64u         /* kept of what a command printed */
#define CLOCK_SLACK_S 20 /* an emulated guest takes its time */

static struct guest_rig t;

static void sh(const char *user, const char *script)
{
    guest_rig_sh(&t, user, script);
}

static bool said(const char *text)
{
    return guest_rig_exited(&t, 0) && strcmp(t.text, text) == 0;
}

static void keep_text(char ret_text[TEXT])
{
    memcpy(ret_text, t.text, TEXT);
    ret_text[TEXT - 1] = '\0';
}

static void result(const char *name, bool good)
{
    guest_rig_result(&t, name, good);
}

/* ---- quiesce and restore ------------------------------------------------ */

static uint32_t quiesce(uint32_t flags)
{
    t.quiesced = false;
    if (agent_client_quiesce(t.client, flags))
        guest_rig_give_up(&t, "cannot ask to quiesce");
    guest_rig_wait(&t, &t.quiesced, "no QUIESCED");
    return t.quiesced_frame.err;
}

static uint32_t restore(const struct proto_restore *request)
{
    t.restored = false;
    if (agent_client_restore(t.client, request))
        guest_rig_give_up(&t, "cannot ask to restore");
    guest_rig_wait(&t, &t.restored, "no RESTORED");
    if (t.restored_frame.err)
        printf("# RESTORE failed at step %u: %s\n", t.restored_frame.step,
               strerror((int)t.restored_frame.err));
    return t.restored_frame.err;
}

static struct proto_restore fresh(int64_t realtime_ns)
{
    struct proto_restore m;

    memset(&m, 0, sizeof(m));
    m.flags = PROTO_RESTORE_FRESH;
    m.realtime_ns = realtime_ns;
    if (getrandom(m.entropy, sizeof(m.entropy), 0) !=
        (ssize_t)sizeof(m.entropy))
        guest_rig_give_up(&t, "no entropy here");
    return m;
}

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- memory ------------------------------------------------------------- */

/* The monitor's mapping of the guest's memory: the one of that size. */
static uint64_t find_memory(void)
{
    char path[64], line[512];
    uint64_t found = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)monitor_pid(t.monitor));
    f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof(line), f)) {
        char *end;
        uint64_t from = strtoull(line, &end, 16);
        uint64_t to = *end == '-' ? strtoull(end + 1, NULL, 16) : from;

        if (to - from >= MEMORY && to - from < MEMORY + MIB)
            found = from;
    }
    if (f)
        fclose(f);
    return found;
}

/* Pages of the guest that are not all zero; 0: they cannot be read. */
static uint64_t count_pages(void)
{
    static uint8_t buf[MIB];
    static const uint8_t zero[PAGE];
    uint64_t from = find_memory(), pages = 0;
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/mem", (int)monitor_pid(t.monitor));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    for (uint64_t at = 0; from && fd >= 0 && at < MEMORY; at += sizeof(buf)) {
        if (pread(fd, buf, sizeof(buf), (off_t)(from + at)) !=
            (ssize_t)sizeof(buf)) {
            pages = 0;
            break;
        }
        for (size_t i = 0; i < sizeof(buf); i += PAGE)
            pages += memcmp(buf + i, zero, PAGE) != 0;
    }
    if (fd >= 0)
        close(fd);
    return pages;
}

/* Fills memory with what is not zero, twice: free pages and caches. */
static void test_memory(void)
{
    uint64_t before, after, used, began;

    sh("root", "dd if=/dev/urandom of=/dev/shm/x bs=1M count=64 2>/dev/null; "
               "dd if=/dev/urandom of=/y bs=1M count=48 2>/dev/null; "
               "cat /y >/dev/null; rm /dev/shm/x");
    result("memory is filled", guest_rig_exited(&t, 0));
    before = count_pages();
    began = io_now_ns();
    result("QUIESCE", quiesce(PROTO_QUIESCE_FREE_MEMORY) == 0);
    printf("# it took %llu ms\n",
           (unsigned long long)(io_now_ns() - began) / 1000000);
    after = count_pages();
    used = (MEMORY - t.quiesced_frame.memory_free) / PAGE;
    printf("# pages with data: %llu before, %llu after; %llu in use\n",
           (unsigned long long)before, (unsigned long long)after,
           (unsigned long long)used);
    result("most of what was freed is zero",
           before > 100 * MIB / PAGE && after > 0 && after < before / 2);
    result("pages with data are at most 1.1 times those in use",
           after > 0 && after * 10 <= used * 11);
}

/* ---- identity ----------------------------------------------------------- */

static void test_refusal(void)
{
    sh(NULL, "true");
    result("a parked agent runs nothing",
           t.failure.reason == PROTO_FAIL_PARKED);
    guest_rig_connect(&t);
    result("and says so to whom it meets next",
           t.hello.features & PROTO_FEATURE_PARKED);
    sh(NULL, "true");
    result("whom it refuses, too", t.failure.reason == PROTO_FAIL_PARKED);
}

static void test_fresh(const char *boot_id_before)
{
    /* A day ahead: what the clock says then was set. */
    const int64_t tomorrow = now_ns() + 86400ll * 1000000000;
    struct proto_restore request = fresh(tomorrow);
    char expected[128];
    long long seconds;

    strcpy(request.hostname, "trial-1");
    result("RESTORE", restore(&request) == 0);
    sh(NULL, "date +%s");
    seconds = atoll(t.text);
    printf("# the guest's clock is %lld s behind ours\n",
           now_ns() / 1000000000 + 86400 - seconds);
    result("sets the clock",
           guest_rig_exited(&t, 0) && seconds >= tomorrow / 1000000000 &&
               seconds <= tomorrow / 1000000000 + CLOCK_SLACK_S);
    sh(NULL, "hostname");
    result("sets the host name", said("trial-1\n"));
    sh(NULL, READ_BOOT_ID);
    snprintf(expected, sizeof(expected), "%s\n", t.restored_frame.boot_id);
    result("gives the boot id it told", said(expected));
    result("which is another one", strcmp(boot_id_before, t.text) != 0);
    sh("root", "cd /proc/sys/kernel/random; (echo x >boot_id) 2>/dev/null; "
               "umount boot_id 2>/dev/null; cat boot_id");
    result("and stays for root", said(expected));
}

/* Two restores with a seed: but for the stream, all of it is seen here. */
static void test_pinned(void)
{
    struct proto_restore request;
    char first[TEXT];

    result("QUIESCE for pinned trials", quiesce(PROTO_QUIESCE_PINNED) == 0);
    printf("# window %llu ms at an uptime of %llu ms\n",
           (unsigned long long)t.quiesced_frame.pin_window_ms,
           (unsigned long long)t.quiesced_frame.uptime_ms);
    result("knows a window", t.quiesced_frame.pin_window_ms >= 1000 &&
                                 t.quiesced_frame.pin_window_ms <= 60000);
    memset(&request, 0, sizeof(request));
    request.flags = PROTO_RESTORE_PINNED;
    request.seed = 12345;
    request.realtime_ns = 1000000000000000000; /* in 2001 */
    guest_rig_connect(&t);
    result("RESTORE pinned", restore(&request) == 0);
    sh(NULL, READ_BOOT_ID "; date +%Y");
    keep_text(first);
    result("the clock starts where it was told",
           guest_rig_exited(&t, 0) && strstr(t.text, "\n2001\n"));
    result("QUIESCE again", quiesce(PROTO_QUIESCE_PINNED) == 0);
    guest_rig_connect(&t);
    result("RESTORE again", restore(&request) == 0);
    sh(NULL, READ_BOOT_ID "; date +%Y");
    result("the same seed gives the same boot id", said(first));
}

/* ---- processes ---------------------------------------------------------- */

static void start(const char *script, bool warm)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct agent_exec_request request = {.argv = argv, .warm = warm};

    guest_rig_send(&t, &request);
    guest_rig_wait(&t, &t.started, "start");
}

static void test_warm(void)
{
    const struct agent_attach_request limits = {.timeout_ms = 60000};
    const struct proto_restore request = fresh(now_ns());
    bool ready = false;
    uint32_t id;

    start("n=1; echo ready; while read x; do n=$((n + 1)); "
          "echo $n $x $(hostname); done; exit 5",
          true);
    while (!ready) {
        guest_rig_turn(&t, 100);
        ready = strchr(t.text, '\n');
    }
    result("a warm process is ready", strcmp(t.text, "ready\n") == 0);
    result("QUIESCE beside it", quiesce(PROTO_QUIESCE_FREE_MEMORY) == 0);
    guest_rig_connect(&t);
    result("RESTORE around it", restore(&request) == 0);
    guest_rig_reset(&t);
    if (agent_client_attach(t.client, &limits, &id))
        guest_rig_give_up(&t, "cannot attach");
    guest_rig_wait(&t, &t.started, "attach");
    (void)!agent_client_stdin_write(t.client, id, "input\n", 6);
    agent_client_stdin_close(t.client, id);
    guest_rig_wait(&t, &t.over, "the warm process");
    printf("# it said: %s", t.text);
    result("it answers, with the machine's new name",
           guest_rig_exited(&t, 5) &&
               strncmp(t.text, "2 input microsbx-", 17) == 0);
}

static void test_keep(void)
{
    const struct proto_restore request = fresh(now_ns());

    start("sleep 5; echo done >/tmp/done; sleep 1000", false);
    result("QUIESCE of a machine that runs", quiesce(PROTO_QUIESCE_KEEP) == 0);
    sh(NULL, "echo served");
    result("which serves on", said("served\n"));
    guest_rig_connect(&t);
    sh(NULL, "true");
    result("but a new connection has to restore first",
           t.failure.reason == PROTO_FAIL_PARKED);
    result("RESTORE", restore(&request) == 0);
    sh(NULL, "sleep 8; cat /tmp/done");
    result("what ran goes on", said("done\n"));
}

int main(int argc, char **argv)
{
    struct machine_spec spec;
    char boot_id[TEXT];

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: agent_freeze IMAGE [KERNEL]\n");
        return 2;
    }
    machine_spec_init(&spec);
    spec.memory_bytes = MEMORY;
    if (machine_spec_set(&spec.image, argv[1]) ||
        (argc > 2 && machine_spec_set(&spec.kernel, argv[2])) ||
        guest_rig_start(&t, &spec))
        return GUEST_RIG_SKIPPED;
    guest_rig_connect(&t);
    sh(NULL, READ_BOOT_ID);
    keep_text(boot_id);
    test_memory();
    test_refusal();
    test_fresh(boot_id);
    test_pinned();
    test_warm();
    test_keep();
    return guest_rig_end(&t);
}
