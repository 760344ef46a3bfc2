/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmhost-pty SIZES COMMAND [ARG...]: a terminal in the emulated host.
 *
 * scripts/kvmhost -i runs this inside. COMMAND leads a session of its own
 * whose terminal is a new pseudo-terminal; stdin is what is typed there, stdout
 * gets what it shows, both unchanged. Lines "ROWS COLUMNS" on descriptor SIZES
 * are its window's size, of which the first is awaited before COMMAND starts;
 * dots between them mean nothing.
 *
 * Ends with COMMAND's status (128 and the signal's number if one ended it), or
 * 125, 126, 127 as env(1) does. The end of stdin is a terminal that is gone:
 * COMMAND gets SIGHUP.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* After COMMAND's end, who keeps its terminal open is waited for this long. */
#define LINGER_MS 1000

/* Bytes on their way. A descriptor that has ended is -1. */
struct flow {
    int from;
    int to;
    size_t begin; /* bytes[begin..end) wait to be written */
    size_t end;
    char bytes[16384];
};

struct sizes {
    int fd;
    size_t length;
    char line[32];
};

static int fail(const char *what)
{
    fprintf(stderr, "kvmhost-pty: %s: %s\n", what, strerror(errno));
    return 125;
}

static bool is_lasting(ssize_t n)
{
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* Reads only if nothing waits, so that a reader that is slow slows the writer,
 * and neither direction waits for the other. */
static void flow_prepare(const struct flow *f, struct pollfd fds[2])
{
    bool empty = f->begin == f->end;

    fds[0] = (struct pollfd){empty && f->to >= 0 ? f->from : -1, POLLIN, 0};
    fds[1] = (struct pollfd){empty ? -1 : f->to, POLLOUT, 0};
}

static void flow_turn(struct flow *f, const struct pollfd fds[2])
{
    ssize_t n;

    if (fds[0].fd >= 0 && fds[0].revents) {
        n = read(f->from, f->bytes, sizeof(f->bytes));
        f->begin = 0;
        f->end = n > 0 ? (size_t)n : 0;
        if (is_lasting(n))
            f->from = -1;
    }
    if (fds[1].fd >= 0 && fds[1].revents) {
        n = write(f->to, f->bytes + f->begin, f->end - f->begin);
        if (n > 0)
            f->begin += (size_t)n;
        else if (is_lasting(n))
            f->to = -1;
    }
}

/* Takes what has come, and gives the terminal the size of each whole line.
 * Returns whether there was one. */
static bool sizes_read(struct sizes *s, int master)
{
    struct winsize size = {0};
    char bytes[256];
    ssize_t n = read(s->fd, bytes, sizeof(bytes));
    bool found = false;

    if (is_lasting(n))
        s->fd = -1;
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] == '.')
            continue;
        if (bytes[i] != '\n') {
            if (s->length < sizeof(s->line) - 1)
                s->line[s->length++] = bytes[i];
            continue;
        }
        s->line[s->length] = '\0';
        s->length = 0;
        if (sscanf(s->line, "%hu %hu", &size.ws_row, &size.ws_col) == 2) {
            (void)ioctl(master, TIOCSWINSZ, &size);
            found = true;
        }
    }
    return found;
}

static int run_child(int slave, int sizes, char **command)
{
    int status;

    setsid();
    if (ioctl(slave, TIOCSCTTY, 0) != 0)
        return fail("no controlling terminal");
    for (int fd = 0; fd < 3; fd++)
        dup2(slave, fd);
    close(slave);
    close(sizes);
    execvp(command[0], command);
    status = errno == ENOENT ? 127 : 126;
    (void)fail(command[0]);
    return status;
}

static long long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Carries bytes and sizes until the command has ended and all that it wrote is
 * out, or its terminal is of no more use. */
static void carry(struct flow *in, struct flow *out, struct sizes *sizes,
                  int pidfd)
{
    struct pollfd fds[6];
    long long end = 0;

    while (out->from >= 0 || out->begin < out->end) {
        long long left = end ? end - now_ms() : -1;

        if ((end && left <= 0) || out->to < 0 || in->from < 0)
            return;
        flow_prepare(in, fds);
        flow_prepare(out, fds + 2);
        fds[4] = (struct pollfd){sizes->fd, POLLIN, 0};
        fds[5] = (struct pollfd){end ? -1 : pidfd, POLLIN, 0};
        if (poll(fds, 6, (int)left) < 0 && errno != EINTR)
            return;
        flow_turn(in, fds);
        flow_turn(out, fds + 2);
        if (fds[4].revents)
            (void)sizes_read(sizes, in->to >= 0 ? in->to : out->from);
        if (fds[5].revents)
            end = now_ms() + LINGER_MS;
    }
}

/* Starts the command and serves it; its terminal ends with our descriptor. */
static int serve(int master, int slave, struct sizes *sizes, char **command)
{
    struct flow in = {.from = STDIN_FILENO, .to = master};
    struct flow out = {.from = master, .to = STDOUT_FILENO};
    int pidfd, status;
    pid_t child = fork();

    if (child < 0)
        return fail("fork");
    if (child == 0) {
        close(master);
        _exit(run_child(slave, sizes->fd, command));
    }
    close(slave);
    pidfd = pidfd_open(child, 0);
    if (pidfd < 0)
        return fail("pidfd_open");
    signal(SIGPIPE, SIG_IGN);
    carry(&in, &out, sizes, pidfd);
    close(master);
    if (waitpid(child, &status, 0) < 0)
        return fail("waitpid");
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    struct sizes sizes = {.fd = -1};
    int master, slave;

    if (argc < 3) {
        fputs("usage: kvmhost-pty SIZES COMMAND [ARG...]\n", stderr);
        return 125;
    }
    sizes.fd = atoi(argv[1]);
    if (openpty(&master, &slave, NULL, NULL, NULL) != 0)
        return fail("openpty");
    while (sizes.fd >= 0 && !sizes_read(&sizes, master))
        continue;
    if (fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK) != 0 ||
        fcntl(STDIN_FILENO, F_SETFL, O_RDONLY | O_NONBLOCK) != 0 ||
        fcntl(STDOUT_FILENO, F_SETFL, O_WRONLY | O_NONBLOCK) != 0)
        return fail("fcntl");
    return serve(master, slave, &sizes, argv + 2);
}
