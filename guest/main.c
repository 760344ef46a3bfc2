/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's init and agent: PID 1 of the initrd. Sets the guest up, serves
 * the host over vsock until told to power off, and never exits: a PID 1 that
 * ends is a kernel panic, which the host sees as what it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "guest/boot.h"
#include "guest/cmdline.h"
#include "guest/compare.h"
#include "guest/identity.h"
#include "guest/server.h"
#include "guest/shell.h"
#include "guest/sysfile.h"

/* The kernel may start init without a console: 0 to 2 must be something. */
static void open_stdio(void)
{
    int fd;

    do {
        fd = open("/dev/console", O_RDWR | O_NOCTTY);
        if (fd < 0)
            fd = open("/", O_RDONLY | O_DIRECTORY);
    } while (fd >= 0 && fd < 2);
    if (fd > 2)
        close(fd);
}

static void read_options(struct cmdline *ret_options)
{
    char text[4096];

    if (sysfile_read(AT_FDCWD, "/proc/cmdline", text, sizeof(text)) < 0)
        text[0] = '\0';
    cmdline_parse(text, ret_options);
}

/* The agent is the last process the kernel may kill or anybody trace. */
static void protect_self(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    (void)!sysfile_write(AT_FDCWD, "/proc/self/oom_score_adj", "-1000");
    reboot(RB_DISABLE_CAD);
}

/* Without it a machine runs; it only cannot be restored. */
static void set_up_identity(struct agent *agent, struct sandbox_config *config)
{
    int ret = identity_init(BOOT_ID);

    agent->kernel = &kernel_ops;
    if (ret) {
        boot_say("no boot id: %s", strerror(-ret));
        return;
    }
    agent->boot_id = config->boot_id = BOOT_ID;
}

/* Root, cgroups, sandbox: what execs need. Says what is missing. */
static void set_up_agent(struct agent *agent, struct sandbox_config *config,
                         const struct cmdline *options)
{
    int ret;

    agent->scratch.fd = -1;
    agent->memory_total = boot_memory("MemTotal");
    sandbox_init(&agent->sandbox, NULL);
    ret = boot_mount_root(config, options->scratch_limit, &agent->scratch);
    if (ret == -ENODEV) {
        boot_say("no disk with the serial \"root\": nothing to run in");
        boot_say_modules();
        return;
    }
    if (ret) {
        boot_say("cannot mount the root file system: %s", strerror(-ret));
        return;
    }
    ret = cgroup_tree_open(&agent->cgroups, BOOT_CGROUP,
                           boot_memory("MemAvailable"));
    if (ret) {
        boot_say("cannot set up cgroups: %s", strerror(-ret));
        return;
    }
    sandbox_init(&agent->sandbox, config);
    ret = sandbox_ensure(&agent->sandbox);
    if (ret) {
        boot_say("cannot build the sandbox: %s", strerror(-ret));
        return;
    }
    agent->features |= PROTO_FEATURE_ROOT;
    if (agent->scratch.fd >= 0)
        agent->features |= PROTO_FEATURE_SCRATCH;
    if (agent->cgroups.has_memory)
        agent->features |= PROTO_FEATURE_MEMORY;
    if (agent->cgroups.has_pids)
        agent->features |= PROTO_FEATURE_PIDS;
}

static void serve(struct agent *agent, const struct cmdline *options)
{
    static struct server server;
    pid_t shell = 0;
    int listen_fd = server_listen();
    int ret;

    if (listen_fd < 0)
        boot_say("no control connection: vsock: %s", strerror(-listen_fd));
    ret = server_init(&server, agent, listen_fd < 0 ? -1 : listen_fd);
    if (ret) {
        boot_say("cannot serve: %s", strerror(-ret));
        return;
    }
    if (options->shell) {
        shell = shell_start(agent, options);
        if (shell < 0) {
            boot_say("cannot start a shell: %s", strerror(-shell));
            return;
        }
        server.watch_pid = shell;
    } else if (listen_fd < 0) {
        boot_say("neither a control connection nor a shell: powering off");
        return;
    }
    ret = server_run(&server);
    if (ret < 0)
        boot_say("cannot go on serving: %s", strerror(-ret));
    server_fini(&server);
}

int main(void)
{
    static struct sandbox_config config;
    static struct agent agent;
    struct cmdline options;
    int ret;

    if (getpid() != 1) {
        fputs("agent: this program is the init of a microsbx guest\n", stderr);
        return 1;
    }
    open_stdio();
    ret = boot_mount_proc();
    read_options(&options);
    if (options.init_line)
        boot_say("agent up");
    if (ret == 0)
        ret = boot_mount_kernel();
    if (ret)
        boot_say("cannot mount the kernel's file systems: %s", strerror(-ret));
    protect_self();
    boot_load_modules();
    if (options.compare) {
        compare_on_console();
        boot_power_off();
    }
    boot_lift_process_limits();
    boot_loopback_up();
    set_up_identity(&agent, &config);
    set_up_agent(&agent, &config, &options);
    serve(&agent, &options);
    boot_power_off();
}
