/* SPDX-License-Identifier: Apache-2.0 */
/* Parked between a freeze and a restore; see the header. */
#include "guest/park.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/boot.h"
#include "guest/identity.h"
#include "guest/sysfile.h"

void park_init(struct park *park)
{
    *park = (struct park){.state = PARK_AWAKE, .report_fd = -1};
}

/* Not waited for: a disk may hold it up. */
static void stop_helper(struct park *park)
{
    if (park->helper > 0)
        kill(park->helper, SIGKILL);
    park->quiescing = false;
    sysfile_close(&park->report_fd);
}

void park_fini(struct park *park)
{
    stop_helper(park);
}

/* ---- the helper --------------------------------------------------------- */

/* Zeroing comes after the report: a kernel out of memory kills who does it. */
static void __attribute__((noreturn))
helper_main(const struct kernel_ops *kernel, uint32_t flags, int report_fd)
{
    int ret;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "quiesce");
    ret = kernel->sync();
    if (ret == 0 && (flags & PROTO_QUIESCE_FREE_MEMORY))
        ret = kernel->drop_caches();
    (void)!write(report_fd, &ret, sizeof(ret));
    if (ret == 0 && (flags & PROTO_QUIESCE_FREE_MEMORY))
        ret = kernel->zero_free();
    _exit(-ret & 0xff);
}

int park_begin(struct park *park, const struct kernel_ops *kernel,
               uint32_t flags)
{
    int report[2];
    pid_t pid;

    if (park->quiescing || park->helper > 0)
        return -EBUSY;
    if (pipe2(report, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    pid = fork();
    if (pid == 0)
        helper_main(kernel, flags, report[1]);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return -EAGAIN;
    }
    park->quiescing = true;
    park->flags = flags;
    park->helper = pid;
    park->report_fd = report[0];
    return 0;
}

void park_reaped(struct park *park, pid_t pid, int status)
{
    if (park->helper != pid)
        return;
    park->helper = 0;
    park->status = status;
}

bool park_is_due(const struct park *park)
{
    return park->quiescing && park->helper == 0;
}

/* One that was killed before it could say anything has not synced. */
static int helper_result(struct park *park)
{
    int result;
    ssize_t n = read(park->report_fd, &result, sizeof(result));

    sysfile_close(&park->report_fd);
    if (n != (ssize_t)sizeof(result))
        return -EIO;
    if (WIFEXITED(park->status) && WEXITSTATUS(park->status))
        return -WEXITSTATUS(park->status);
    return result;
}

/* ---- quiesce ------------------------------------------------------------ */

/*
 * The draw lets the kernel notice how long it has been up: its early intervals
 * between re-keyings are over then, also for the key made right after.
 */
static int pin(const struct kernel_ops *kernel)
{
    int ret = kernel->draw(1);

    return ret ? ret : kernel->reseed();
}

void park_end(struct park *park, const struct kernel_ops *kernel, int err,
              struct proto_quiesced *ret_quiesced)
{
    struct proto_quiesced m = {0};
    struct utsname name;
    int ret = helper_result(park);

    park->quiescing = false;
    if (err)
        ret = err;
    if (ret == 0 && uname(&name) < 0)
        ret = -errno;
    if (ret == 0)
        m.memory_free = boot_memory("MemFree");
    if (ret == 0 && (park->flags & PROTO_QUIESCE_PINNED))
        ret = pin(kernel);
    if (ret) {
        *ret_quiesced = (struct proto_quiesced){.err = (uint32_t)-ret};
        return;
    }
    m.uptime_ms = sysfile_now_ms();
    if (park->flags & PROTO_QUIESCE_PINNED)
        m.pin_window_ms = kernel_pin_window_ms(name.release, m.uptime_ms);
    /* Nothing loosens by asking once more. */
    if (!(park->flags & PROTO_QUIESCE_KEEP))
        park->state = PARK_PARKED;
    else if (park->state == PARK_AWAKE)
        park->state = PARK_KEPT;
    *ret_quiesced = m;
}

/* ---- restore ------------------------------------------------------------ */

void park_restore(struct park *park, struct agent *agent,
                  const struct proto_restore *request,
                  struct proto_restored *ret_restored)
{
    if (park->state == PARK_AWAKE || park->quiescing) {
        *ret_restored = (struct proto_restored){
            .err = park->quiescing ? EBUSY : EALREADY,
            .step = PROTO_STEP_STATE,
        };
        return;
    }
    identity_restore(agent, request, ret_restored);
    if (ret_restored->err == 0)
        park->state = PARK_AWAKE;
}

bool park_refuses(const struct park *park)
{
    return park->state == PARK_PARKED ||
           (park->quiescing && !(park->flags & PROTO_QUIESCE_KEEP));
}

void park_disconnect(struct park *park)
{
    stop_helper(park);
    if (park->state == PARK_KEPT)
        park->state = PARK_PARKED;
}
