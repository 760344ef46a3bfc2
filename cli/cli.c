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

const struct verb *const *cli_verbs(void)
{
    static const struct verb *const VERBS[] = {
        &VERB_DOCTOR, &VERB_RUN, &VERB_SNAPSHOT, &VERB_BOOT, &VERB_IMAGE, NULL,
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

int cli_fail(const struct verb *verb, const struct failure *failure)
{
    fprintf(stderr, "microsbx %s: %s\n", verb->name, failure->message);
    if (failure->remedy[0])
        fprintf(stderr, "  %s\n", failure->remedy);
    return EXIT_INFRA;
}

int cli_watch_signals(bool window_size, int *ret_fd, struct failure *f)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    if (window_size)
        sigaddset(&set, SIGWINCH);
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

    return poll(&p, 1, 0) > 0;
}

bool cli_is_terminal(FILE *stream)
{
    const char *term = getenv("TERM");

    return isatty(fileno(stream)) && !getenv("NO_COLOR") &&
           (!term || strcmp(term, "dumb") != 0);
}
