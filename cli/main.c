/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx: a table of verbs. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/standard_fds.h"
#include "base/text.h"
#include "cli/cli.h"

static int unknown_verb(const char *word)
{
    const char *names[32];
    const char *near;
    size_t count = 0;

    for (const struct verb *const *v = cli_verbs(); *v; v++)
        names[count++] = (*v)->name;
    names[count++] = "help";
    names[count++] = "version";
    names[count] = NULL;
    near = text_nearest(word, names);
    fprintf(stderr, "microsbx: unknown verb '%s'", word);
    if (near)
        fprintf(stderr, "; did you mean %s?\n", near);
    else
        fprintf(stderr, "; microsbx --help lists them\n");
    return EXIT_INFRA;
}

/* help, help VERB, help VERB WORD: as VERB [WORD] --help. */
static int help(int argc, char **argv)
{
    const struct verb *const *v = cli_verbs();

    if (argc > 0 && !strcmp(argv[0], "--man")) {
        cli_print_manual(stdout);
        return 0;
    }
    if (argc == 0 || argv[0][0] == '-') {
        cli_print_usage(stdout);
        return 0;
    }
    while (*v && strcmp((*v)->name, argv[0]) != 0)
        v++;
    if (!*v)
        return unknown_verb(argv[0]);
    for (size_t i = 0; argc > 1 && (*v)->verbs && (*v)->verbs[i]; i++) {
        const char *name = (*v)->verbs[i]->name; /* "snapshot create" */
        const char *blank = strrchr(name, ' ');

        if (!strcmp(blank ? blank + 1 : name, argv[1])) {
            cli_print_help(stdout, (*v)->verbs[i]);
            return 0;
        }
    }
    cli_print_help(stdout, *v);
    return 0;
}

static int run_verb(int argc, char **argv)
{
    if (argc < 2) {
        cli_print_usage(stderr);
        return EXIT_INFRA;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-v") ||
        !strcmp(argv[1], "version")) {
        puts("microsbx " MICROSBX_VERSION);
        return 0;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help"))
        return help(argc - 2, argv + 2);
    for (const struct verb *const *v = cli_verbs(); *v; v++) {
        if (!strcmp(argv[1], (*v)->name))
            return (*v)->main(*v, argc - 1, argv + 1);
    }
    return unknown_verb(argv[1]);
}

/* What was printed must have got there, as with every other tool. */
static int finish_output(int status)
{
    errno = 0;
    if ((fflush(stdout) == 0 && !ferror(stdout)) || status != 0)
        return status;
    fprintf(stderr, "microsbx: cannot write to standard output: %s\n",
            strerror(errno ? errno : EIO));
    return EXIT_INFRA;
}

int main(int argc, char **argv)
{
    if (standard_fds_ensure() != 0)
        return EXIT_INFRA;
    /* Ignored, nobody could be told how a monitor ended: a false alarm. */
    signal(SIGCHLD, SIG_DFL);
    /* Clients, files and connections in passing: a soft limit is no wish. */
    (void)!io_raise_fd_limit();
    return finish_output(run_verb(argc, argv));
}
