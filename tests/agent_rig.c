/* SPDX-License-Identifier: Apache-2.0 */
/* The agent as a process of this host; see the header. */
#include "tests/agent_rig.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/identity.h"
#include "guest/server.h"
#include "guest/sysfile.h"

#define RIG_DIR "/tmp"
#define RIG_MEMORY (1ull << 30) /* what the agent believes to have */
#define WAIT_MS 20000

bool rig_without_root;

uint64_t rig_digest(uint64_t digest, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;

    if (digest == 0)
        digest = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        digest = (digest ^ p[i]) * 0x100000001b3u;
    return digest;
}

/* ---- the kernel --------------------------------------------------------- */

static struct rig_kernel *kernel; /* in the agent's process, too */

static int note(const char *call)
{
    size_t used = strlen(kernel->calls);

    snprintf(kernel->calls + used, sizeof(kernel->calls) - used, "%s ", call);
    return strcmp(kernel->fails, call) == 0 ? -EPERM : 0;
}

static int rig_sync(void)
{
    return note("sync");
}

static int rig_drop_caches(void)
{
    return note("drop_caches");
}

static int rig_zero_free(void)
{
    int ret = note("zero_free");

    if (kernel->out_of_memory)
        raise(SIGKILL);
    return ret;
}

static int rig_add_entropy(const uint8_t *bytes, size_t len)
{
    memcpy(kernel->entropy, bytes,
           len < sizeof(kernel->entropy) ? len : sizeof(kernel->entropy));
    return note("add_entropy");
}

static int rig_reseed(void)
{
    return note("reseed");
}

static int rig_draw(size_t count)
{
    kernel->draws = count;
    return note("draw");
}

static int rig_set_clock(int64_t realtime_ns)
{
    kernel->realtime_ns = realtime_ns;
    return note("set_clock");
}

static int rig_set_hostname(const char *name)
{
    snprintf(kernel->hostname, sizeof(kernel->hostname), "%s", name);
    return note("set_hostname");
}

static const struct kernel_ops rig_kernel_ops = {
    .sync = rig_sync,
    .drop_caches = rig_drop_caches,
    .zero_free = rig_zero_free,
    .add_entropy = rig_add_entropy,
    .reseed = rig_reseed,
    .draw = rig_draw,
    .set_clock = rig_set_clock,
    .set_hostname = rig_set_hostname,
};

static bool make_kernel(void)
{
    if (kernel)
        munmap(kernel, sizeof(*kernel));
    kernel = mmap(NULL, sizeof(*kernel), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (kernel == MAP_FAILED)
        kernel = NULL;
    return kernel != NULL;
}

/* ---- the agent's process ------------------------------------------------ */

/* Where cgroup2 is mounted here, or NULL. */
static const char *find_cgroup2(char *ret_path, size_t size)
{
    static char line[1024];
    FILE *f = fopen("/proc/self/mounts", "re");
    const char *found = NULL;

    while (f && !found && fgets(line, sizeof(line), f)) {
        char path[256], type[64];

        if (sscanf(line, "%*s %255s %63s", path, type) == 2 &&
            strcmp(type, "cgroup2") == 0) {
            snprintf(ret_path, size, "%s", path);
            found = ret_path;
        }
    }
    if (f)
        fclose(f);
    return found;
}

/* An overlay over this host's root, in memory, in a mount namespace of its
   own: whatever a test does to it is gone with the agent. */
static const char *make_root(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        return "no mount namespace of its own (not root?)";
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", RIG_DIR, "tmpfs", 0, "size=256m") < 0)
        return "no tmpfs";
    if (mkdir(RIG_DIR "/upper", 0755) < 0 || mkdir(RIG_DIR "/work", 0755) < 0 ||
        mkdir(RIG_DIR "/root", 0755) < 0)
        return "no directories";
    if (mount("overlay", RIG_DIR "/root", "overlay", 0,
              "lowerdir=/,upperdir=" RIG_DIR "/upper,workdir=" RIG_DIR
              "/work") < 0)
        return "no overlay over /";
    if (chmod(RIG_DIR "/root/tmp", 01777) < 0)
        return "no /tmp";
    return NULL;
}

static const char *set_up(struct agent *agent, struct sandbox_config *config,
                          char *cgroup, size_t size)
{
    char base[256];
    const char *why;

    agent->scratch.fd = -1;
    agent->kernel = &rig_kernel_ops;
    sandbox_init(&agent->sandbox, NULL);
    if (rig_without_root)
        return NULL;
    why = make_root();
    if (why)
        return why;
    if (!find_cgroup2(base, sizeof(base)))
        return "no cgroup2 hierarchy";
    /* Controllers, as far as this host gives them away. */
    snprintf(cgroup, size, "%s/cgroup.subtree_control", base);
    (void)!sysfile_write(AT_FDCWD, cgroup, "+memory");
    (void)!sysfile_write(AT_FDCWD, cgroup, "+pids");
    /* Not by our number: one that a killed test left may have it, too. */
    snprintf(cgroup, size, "%s/microsbx-test-XXXXXX", base);
    if (!mkdtemp(cgroup))
        return "no cgroup of its own";
    if (cgroup_tree_open(&agent->cgroups, cgroup, RIG_MEMORY))
        return "no cgroup tree";
    if (identity_init(RIG_DIR "/boot_id"))
        return "no boot id";
    config->root = RIG_DIR "/root";
    agent->boot_id = config->boot_id = RIG_DIR "/boot_id";
    agent->memory_total = RIG_MEMORY;
    agent->features = PROTO_FEATURE_ROOT | PROTO_FEATURE_SCRATCH;
    if (agent->cgroups.has_memory)
        agent->features |= PROTO_FEATURE_MEMORY;
    if (agent->cgroups.has_pids)
        agent->features |= PROTO_FEATURE_PIDS;
    sandbox_init(&agent->sandbox, config);
    return sandbox_ensure(&agent->sandbox) ? "no namespaces" : NULL;
}

/* The cgroups go last: this process has to leave its own first. */
static void clean_up(struct agent *agent, const char *cgroup)
{
    char path[512];
    FILE *f;

    /* What stayed is our child and in the keeper's namespace, which does not
       end before it is reaped: all together. */
    if (agent->sandbox.keeper > 0)
        kill(agent->sandbox.keeper, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    sandbox_lost(&agent->sandbox);
    snprintf(path, sizeof(path), "%s/../cgroup.procs", cgroup);
    f = fopen(path, "we");
    if (f) {
        fputs("0", f);
        fclose(f);
    }
    cgroup_tree_close(&agent->cgroups);
    /* Those of execs that stayed, too. */
    snprintf(path, sizeof(path), "find '%s' -depth -type d -exec rmdir {} ';'",
             cgroup);
    (void)!system(path);
}

/* The next connection, or -1 if there will be none. */
static int next_connection(int control)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } ancillary;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &ancillary,
        .msg_controllen = sizeof(ancillary),
    };
    int fd = -1;

    if (recvmsg(control, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
    return fd;
}

static int serve(struct server *server, int fd, int control)
{
    int end = SERVER_DISCONNECTED;

    while (fd >= 0 && end == SERVER_DISCONNECTED) {
        if (server_attach(server, fd))
            return -1;
        end = server_run(server);
        fd = next_connection(control);
    }
    return end;
}

static void __attribute__((noreturn))
agent_main(int fd, int control, int report_fd)
{
    static struct sandbox_config config;
    static struct agent agent;
    static struct server server;
    char cgroup[300] = "";
    const char *why;
    int end = -1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    why = set_up(&agent, &config, cgroup, sizeof(cgroup));
    (void)!write(report_fd, why ? why : "", why ? strlen(why) : 0);
    close(report_fd);
    if (!why && server_init(&server, &agent, -1) == 0) {
        end = serve(&server, fd, control);
        server_fini(&server);
    }
    if (cgroup[0])
        clean_up(&agent, cgroup);
    _exit(end < 0 ? 1 : end);
}

/* ---- events ------------------------------------------------------------- */

static struct rig_handle *at(struct agent_rig *rig, uint32_t id)
{
    ck_assert_uint_lt(id, RIG_HANDLES);
    return &rig->handles[id];
}

static void on_hello(void *arg, const struct proto_hello *hello)
{
    struct agent_rig *rig = arg;

    rig->hello = true;
    rig->hello_frame = *hello;
}

static void on_started(void *arg, uint32_t id)
{
    at(arg, id)->started = true;
}

static void on_failed(void *arg, uint32_t id,
                      const struct agent_exec_failure *failure)
{
    struct rig_handle *h = at(arg, id);

    h->failure = *failure;
    h->failed = true;
}

static void on_output(void *arg, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len)
{
    struct agent_rig *rig = arg;
    struct rig_handle *h = at(rig, id);
    size_t i = stream == PROTO_STDERR;
    size_t room = sizeof(h->text[i]) - 1;

    if (h->bytes[i] < room) {
        size_t part = room - h->bytes[i] < len ? room - h->bytes[i] : len;

        memcpy(h->text[i] + h->bytes[i], bytes, part);
    }
    h->bytes[i] += len;
    h->digest[i] = rig_digest(h->digest[i], bytes, len);
    if (!rig->hold_output)
        ck_assert_int_eq(agent_client_consumed(rig->client, id, stream, len),
                         0);
}

static void on_exec_exit(void *arg, uint32_t id,
                         const struct proto_exec_exit *status)
{
    struct rig_handle *h = at(arg, id);

    h->exit = *status;
    h->exited = true;
}

static void on_file_done(void *arg, uint32_t id,
                         const struct proto_file_done *done, int local_err)
{
    struct rig_handle *h = at(arg, id);

    h->done = *done;
    h->local_err = local_err;
    h->file_done = true;
}

static void on_quiesced(void *arg, const struct proto_quiesced *quiesced)
{
    struct agent_rig *rig = arg;

    rig->quiesced_frame = *quiesced;
    rig->quiesced = true;
}

static void on_restored(void *arg, const struct proto_restored *restored)
{
    struct agent_rig *rig = arg;

    rig->restored_frame = *restored;
    rig->restored = true;
}

static const struct agent_client_ops rig_ops = {
    .hello = on_hello,
    .exec_started = on_started,
    .exec_failed = on_failed,
    .output = on_output,
    .exec_exit = on_exec_exit,
    .quiesced = on_quiesced,
    .restored = on_restored,
    .file_done = on_file_done,
};

/* ---- use ---------------------------------------------------------------- */

/* Forks the agent; no libcheck in here, it also runs outside of tests. */
static const char *spawn_agent(pid_t *ret_pid, int *ret_fd, int *ret_control)
{
    static char why[128];
    int report[2], sv[2], control[2];
    ssize_t n;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
        pipe2(report, O_CLOEXEC) < 0 || !make_kernel())
        return "no descriptors";
    fflush(NULL);
    *ret_pid = fork();
    if (*ret_pid == 0) {
        close(sv[0]);
        close(control[0]);
        close(report[0]);
        agent_main(sv[1], control[1], report[1]);
    }
    close(sv[1]);
    close(control[1]);
    close(report[1]);
    n = *ret_pid < 0 ? 1 : read(report[0], why, sizeof(why) - 1);
    close(report[0]);
    if (n == 0) {
        *ret_fd = sv[0];
        *ret_control = control[0];
        return NULL;
    }
    why[n > 0 ? n : 0] = '\0';
    close(sv[0]);
    close(control[0]);
    waitpid(*ret_pid, NULL, 0);
    return why;
}

const char *agent_rig_probe(uint32_t *ret_features)
{
    uint8_t frame[PROTO_HEADER_SIZE + 256];
    struct proto_hello hello = {0};
    const char *why;
    ssize_t n;
    pid_t pid;
    int fd, control;

    why = spawn_agent(&pid, &fd, &control);
    if (why)
        return why;
    n = recv(fd, frame, sizeof(frame), 0);
    if (n <= (ssize_t)PROTO_HEADER_SIZE ||
        proto_get_hello(frame + PROTO_HEADER_SIZE,
                        (size_t)n - PROTO_HEADER_SIZE, &hello))
        why = "no HELLO";
    close(fd);
    close(control);
    waitpid(pid, NULL, 0);
    *ret_features = hello.features;
    return why;
}

void agent_rig_start(struct agent_rig *rig)
{
    const char *why;
    int fd;

    memset(rig, 0, sizeof(*rig));
    why = spawn_agent(&rig->agent, &fd, &rig->control);
    ck_assert_msg(!why, "no agent: %s", why);
    rig->kernel = kernel;
    ck_assert_int_eq(agent_client_new(fd, &rig_ops, rig, &rig->client), 0);
    agent_rig_wait(rig, &rig->hello);
}

static void send_connection(int control, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } ancillary = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                              .cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS}};
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &ancillary,
        .msg_controllen = sizeof(ancillary),
    };

    memcpy(CMSG_DATA(&ancillary.header), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(control, &m, 0), 1);
    close(fd);
}

void agent_rig_reconnect(struct agent_rig *rig)
{
    int sv[2];

    agent_client_free(rig->client);
    memset(rig->handles, 0, sizeof(rig->handles));
    rig->hello = rig->quiesced = rig->restored = false;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    send_connection(rig->control, sv[1]);
    ck_assert_int_eq(agent_client_new(sv[0], &rig_ops, rig, &rig->client), 0);
    agent_rig_wait(rig, &rig->hello);
}

const struct proto_quiesced *agent_rig_quiesce(struct agent_rig *rig,
                                               uint32_t flags)
{
    rig->quiesced = false;
    ck_assert_int_eq(agent_client_quiesce(rig->client, flags), 0);
    agent_rig_wait(rig, &rig->quiesced);
    return &rig->quiesced_frame;
}

const struct proto_restored *
agent_rig_restore(struct agent_rig *rig, const struct proto_restore *request)
{
    rig->restored = false;
    ck_assert_int_eq(agent_client_restore(rig->client, request), 0);
    agent_rig_wait(rig, &rig->restored);
    return &rig->restored_frame;
}

int agent_rig_stop(struct agent_rig *rig)
{
    int status = -1;

    agent_client_free(rig->client);
    rig->client = NULL;
    close(rig->control);
    ck_assert_int_eq(waitpid(rig->agent, &status, 0), rig->agent);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void agent_rig_turn(struct agent_rig *rig, int ms)
{
    struct pollfd fd = {agent_client_fd(rig->client),
                        agent_client_events(rig->client), 0};
    int ret;

    ck_assert_int_ge(poll(&fd, 1, ms), 0);
    ret = agent_client_process(rig->client, fd.revents);
    ck_assert_msg(ret == 0, "client: %d: %s", ret,
                  agent_client_reason(rig->client));
}

void agent_rig_wait(struct agent_rig *rig, const bool *flag)
{
    struct timespec start, now;

    clock_gettime(CLOCK_MONOTONIC, &start);
    while (!*flag) {
        agent_rig_turn(rig, 1000);
        clock_gettime(CLOCK_MONOTONIC, &now);
        ck_assert_msg((now.tv_sec - start.tv_sec) * 1000 < WAIT_MS,
                      "waited for longer than %d ms", WAIT_MS);
    }
}

struct rig_handle *agent_rig_send(struct agent_rig *rig,
                                  const struct agent_exec_request *request,
                                  uint32_t *ret_id)
{
    int ret = agent_client_exec(rig->client, request, ret_id);

    ck_assert_msg(ret == 0, "exec: %s", strerror(-ret));
    return at(rig, *ret_id);
}

struct rig_handle *agent_rig_run(struct agent_rig *rig,
                                 const struct agent_exec_request *request)
{
    uint32_t id;
    struct rig_handle *h = agent_rig_send(rig, request, &id);

    while (!h->exited && !h->failed)
        agent_rig_turn(rig, 1000);
    return h;
}

struct rig_handle *agent_rig_sh(struct agent_rig *rig, const char *user,
                                const char *script)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct agent_exec_request request = {.argv = argv, .user = user};

    return agent_rig_run(rig, &request);
}
