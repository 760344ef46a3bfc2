/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx: a table of verbs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

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
    names[count] = NULL;
    near = text_nearest(word, names);
    fprintf(stderr, "microsbx: unknown verb '%s'", word);
    if (near)
        fprintf(stderr, "; did you mean %s?\n", near);
    else
        fprintf(stderr, "; microsbx --help lists them\n");
    return EXIT_INFRA;
}

static int run_verb(int argc, char **argv)
{
    if (argc < 2) {
        cli_print_usage(stderr);
        return EXIT_INFRA;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("microsbx " MICROSBX_VERSION);
        return 0;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help")) {
        if (argc > 2 && !strcmp(argv[2], "--man"))
            cli_print_manual(stdout);
        else
            cli_print_usage(stdout);
        return 0;
    }
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
    return finish_output(run_verb(argc, argv));
}
