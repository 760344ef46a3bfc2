/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx logs: what the own command of a long-lived machine has written. It
 * comes from a guest: printable ASCII passes, the rest is shown escaped.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "cli/cli.h"
#include "trial/live.h"

#define PIECE 16384u
#define FOLLOW_MS 200 /* between looks at a file that grows */

static const struct option_spec SPECS[] = {
    {"follow", 'f', NULL, false, "Go on until the machine ends."},
    {"raw", 0, NULL, false,
     "Pass all bytes unchanged, control characters included."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group OPTIONS = {"Options", SPECS};

/* Newlines and tabs stay; returns the length of what is in out. */
static size_t make_harmless(const uint8_t *in, size_t len, char *out)
{
    static const char HEX[] = "0123456789abcdef";
    size_t used = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t b = in[i];

        if ((b >= 0x20 && b < 0x7f) || b == '\n' || b == '\t') {
            out[used++] = (char)b;
            continue;
        }
        out[used++] = '\\';
        out[used++] = 'x';
        out[used++] = HEX[b >> 4];
        out[used++] = HEX[b & 15];
    }
    return used;
}

/* All that is there now: 0 or a negative errno. */
static int pour(int from, int to, bool raw)
{
    uint8_t in[PIECE];
    char out[4 * PIECE];
    ssize_t n = from < 0 ? 0 : io_read_full(from, in, sizeof(in));

    while (n > 0) {
        int ret =
            raw ? io_write_full(to, in, (size_t)n)
                : io_write_full(to, out, make_harmless(in, (size_t)n, out));

        if (ret != 0)
            return ret;
        n = io_read_full(from, in, sizeof(in));
    }
    return (int)n;
}

static int open_file(const struct live *live, const char *name)
{
    return openat(live->entry.dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

static int pour_both(const int *files, bool raw)
{
    int ret = pour(files[0], STDOUT_FILENO, raw);

    return ret ? ret : pour(files[1], STDERR_FILENO, raw);
}

static int follow(struct live *live, const int *files, bool raw,
                  struct failure *f)
{
    int ret;

    /* One that has ended has no more to say. */
    if (live_connect(live, f) != 0)
        return pour_both(files, raw);
    do {
        ret = live_wait_end(live, FOLLOW_MS, -1, f);
        if (pour_both(files, raw) != 0)
            return -EPIPE;
    } while (ret == -ETIMEDOUT);
    return ret == -EHOSTDOWN ? ret : 0;
}

static int logs_main(const struct verb *verb, int argc, char **argv)
{
    struct options *options = calloc(1, sizeof(*options));
    struct live *live = calloc(1, sizeof(*live));
    struct failure f = {0};
    int files[2] = {-1, -1};
    int status =
        options && live ? cli_parse(verb, argc, argv, options) : EXIT_INFRA;
    bool raw = false;
    int ret = 0;

    if (status >= 0)
        goto out_free;
    raw = options_has(options, "raw");
    if (cli_need_names(options, 1, 1, &f) != 0 ||
        live_open(options->positional[0], live, &f) != 0) {
        status = cli_fail(verb, &f);
        goto out_free;
    }
    files[0] = open_file(live, "stdout");
    files[1] = open_file(live, "stderr");
    ret = options_has(options, "follow") ? follow(live, files, raw, &f)
                                         : pour_both(files, raw);
    status = 0;
    if (ret == -EHOSTDOWN) {
        status = cli_fail(verb, &f);
    } else if (ret != 0 && ret != -EPIPE) {
        failure_set(&f, "output_failed", live->record.name, NULL,
                    "cannot pass the output on: %s", strerror(-ret));
        status = cli_fail(verb, &f);
    }
    io_close(&files[0]);
    io_close(&files[1]);
    live_close(live);
out_free:
    free(live);
    free(options);
    return status;
}

const struct verb VERB_LOGS = {
    .name = "logs",
    .synopsis = "[-f] [--raw] NAME",
    .summary = "Print what a long-lived machine's own command has written.",
    .description =
        "Prints the output of the command that was given to run -d, as far as "
        "--output-limit let it: its standard output to standard output, then "
        "its errors to standard error. Bytes that are not printable ASCII, "
        "newline or tab appear as \\xNN. With -f a keeper that was stopped "
        "(SIGSTOP) or does not answer ends it with 125.",
    .example = "  microsbx logs -f box\n",
    .groups = {&OPTIONS, NULL},
    .main = logs_main,
};
