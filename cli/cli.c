/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs share; see the header. */
#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/text.h"

const struct verb *const *cli_verbs(void)
{
    static const struct verb *const VERBS[] = {
        &VERB_DOCTOR, &VERB_RUN,  &VERB_SNAPSHOT, &VERB_BOOT, &VERB_EXEC,
        &VERB_CP,     &VERB_LOGS, &VERB_PS,       &VERB_STOP, &VERB_KILL,
        &VERB_WAIT,   &VERB_RM,   &VERB_IMAGE,    NULL,
    };

    return VERBS;
}

int cli_parse(const struct verb *verb, int argc, char **argv,
              struct options *ret_options)
{
    struct failure failure = {0};

    if (options_parse(verb, argc, argv, ret_options, &failure) != 0)
        return cli_fail(verb, &failure);
    if (ret_options->help) {
        cli_print_help(stdout, verb);
        return 0;
    }
    return -1;
}

int cli_need_names(const struct options *options, int min, int max,
                   struct failure *f)
{
    int count = options->positional_count;

    if (count >= min && count <= max)
        return 0;
    if (count < min)
        failure_set(f, "usage", "NAME", "microsbx ps lists the machines",
                    "there is no machine named");
    else
        failure_set(f, "usage", options->positional[max], "leave it out",
                    "'%s' is one word too many", options->positional[max]);
    return -EINVAL;
}

int cli_fail(const struct verb *verb, const struct failure *failure)
{
    fprintf(stderr, "microsbx %s: %s\n", verb->name, failure->message);
    if (failure->remedy[0])
        fprintf(stderr, "  %s\n", failure->remedy);
    return EXIT_INFRA;
}

/* Blocked, it would be kept for us although nobody wants us to see it. */
static void watch(sigset_t *set, int number)
{
    struct sigaction now;

    if (sigaction(number, NULL, &now) == 0 && now.sa_handler != SIG_IGN)
        sigaddset(set, number);
}

int cli_watch_signals(unsigned also, int *ret_fd, struct failure *f)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    watch(&set, SIGINT);
    watch(&set, SIGTERM);
    watch(&set, SIGHUP);
    if (also & CLI_WATCH_WINDOW)
        watch(&set, SIGWINCH);
    if (also & CLI_WATCH_TRIAL) {
        watch(&set, SIGTSTP);
        watch(&set, SIGXCPU);
    }
    if (also & CLI_IGNORE_STOP)
        signal(SIGTSTP, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of a write */
    signal(SIGTTOU, SIG_IGN);
    fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (fd < 0) {
        failure_set(f, "host", "signalfd", NULL, "cannot watch signals: %s",
                    strerror(errno));
        return -errno;
    }
    *ret_fd = fd;
    return 0;
}

bool cli_signal_pending(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    sigset_t set;

    /* A new size of the window is no reason to end. */
    return poll(&p, 1, 0) > 0 && sigpending(&set) == 0 &&
           (sigismember(&set, SIGINT) == 1 || sigismember(&set, SIGTERM) == 1 ||
            sigismember(&set, SIGHUP) == 1);
}

void cli_show_console(const uint8_t *bytes, size_t len)
{
    const uint8_t *end = bytes + len;

    if (len == 0)
        return;
    fputs("  the end of the guest's console:\n", stderr);
    while (bytes < end) {
        const uint8_t *stop = memchr(bytes, '\n', (size_t)(end - bytes));
        size_t line = (size_t)((stop ? stop : end) - bytes);
        char shown[512];

        while (line > 0 && bytes[line - 1] == '\r')
            line--;
        text_escape(bytes, line, shown, sizeof(shown));
        fprintf(stderr, "  | %s\n", shown);
        bytes = stop ? stop + 1 : end;
    }
}

bool cli_is_terminal(FILE *stream)
{
    const char *term = getenv("TERM");

    return isatty(fileno(stream)) && !getenv("NO_COLOR") &&
           (!term || strcmp(term, "dumb") != 0);
}
