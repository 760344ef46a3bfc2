/* SPDX-License-Identifier: Apache-2.0 */
/* Where results go; see the header. */
#include "cli/results.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/standard_fds.h"
#include "base/text.h"
#include "trial/result.h"

void results_init(struct results *r, const struct verb *verb)
{
    *r = (struct results){
        .verb = verb, .json_fd = -1, .out_fd = -1, .err_fd = -1};
}

int results_create(const char *option, const char *path, int *ret_fd,
                   struct failure *f)
{
    int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);

    if (fd < 0) {
        failure_set(f, "usage", path, "check the path given",
                    "cannot open %s for --%s: %s", path, option,
                    strerror(errno));
        return -errno;
    }
    *ret_fd = fd;
    return 0;
}

/* One that is closed gets nothing, as --stdout none. */
static struct trial_sink own_stream(int fd)
{
    return (struct trial_sink){.fd = standard_fd_is_usable(fd) ? fd : -1};
}

/* --stdout or --stderr: FILE, none, or this process's own stream. */
static int open_sink(const struct options *options, const char *option,
                     struct trial_sink *ret_sink, int *ret_owned,
                     struct failure *f)
{
    const char *value = options_get(options, option);
    int ret = 0;

    if (!value)
        return 0;
    ret_sink->fd = -1;
    if (!strcmp(value, "none"))
        return 0;
    ret = results_create(option, value, ret_owned, f);
    if (ret == 0)
        *ret_sink = (struct trial_sink){.fd = *ret_owned, .file = value};
    return ret;
}

/* --json: FILE or -. */
static int open_json(struct results *r, const struct options *options,
                     struct run_options *run, struct failure *f)
{
    run->json = options_get(options, "json");
    if (!run->json)
        return 0;
    if (strcmp(run->json, "-") != 0)
        return results_create("json", run->json, &r->json_fd, f);
    if (options_has(options, "stdout")) {
        r->json_fd = STDOUT_FILENO;
        return 0;
    }
    failure_set(f, "usage", "json", "add --stdout FILE or --stdout none",
                "option --json: '-' would mix with the command's output");
    return -EINVAL;
}

static int read_exit_code(const struct options *options,
                          struct run_options *run, struct failure *f)
{
    const char *value = options_get(options, "exit-code");

    if (!value)
        return 0;
    run->exit_code_json = !strcmp(value, "json") && run->json;
    if (run->exit_code_json)
        return 0;
    failure_set(f, "usage", "exit-code", run->json ? "use json" : NULL,
                "option --exit-code: '%s' %s", value,
                run->json ? "is not known" : "needs --json");
    return -EINVAL;
}

int results_open(struct results *r, const struct options *options,
                 struct run_options *run, struct failure *f)
{
    struct trial_spec *s = &run->spec;
    int ret = open_json(r, options, run, f);

    s->out = own_stream(STDOUT_FILENO);
    s->err = own_stream(STDERR_FILENO);
    if (ret == 0)
        ret = read_exit_code(options, run, f);
    if (ret == 0)
        ret = open_sink(options, "stdout", &s->out, &r->out_fd, f);
    if (ret == 0)
        ret = open_sink(options, "stderr", &s->err, &r->err_fd, f);
    run->events = options_get(options, "events");
    if (ret == 0 && run->events) {
        s->events = fopen(run->events, "we");
        if (!s->events) {
            ret = -errno;
            failure_set(f, "usage", run->events, "check the path given",
                        "cannot open %s for --events: %s", run->events,
                        strerror(errno));
        }
    }
    return ret;
}

int results_parse(struct results *r, int argc, char **argv,
                  struct options *ret_options, struct run_options *run,
                  struct failure *f)
{
    int ret = options_parse(r->verb, argc, argv, ret_options, f);
    struct failure other;

    if (ret == 0 && ret_options->help)
        cli_print_help(stdout, r->verb);
    else if (ret != 0)
        (void)!results_open(r, ret_options, run, &other);
    return ret;
}

void results_close(struct results *r, struct run_options *run)
{
    if (run->spec.events)
        fclose(run->spec.events);
    run->spec.events = NULL;
    io_close(&r->out_fd);
    io_close(&r->err_fd);
    if (r->json_fd != STDOUT_FILENO)
        io_close(&r->json_fd);
}

void results_never_ran(struct trial_result *ret_result, int error,
                       const struct failure *f)
{
    struct trial_result *r = ret_result;
    struct timespec wall;

    memset(r, 0, sizeof(*r));
    clock_gettime(CLOCK_REALTIME, &wall);
    r->started_at = (double)wall.tv_sec + (double)wall.tv_nsec / 1e9;
    r->failure = *f;
    r->facts.cancelled = error == -ECANCELED;
    r->facts.cause = r->facts.cancelled ? "signal" : r->failure.code;
    r->outcome = outcome_decide(&r->facts);
}

char *results_live_line(const struct trial_result *result,
                        struct trial_spec *spec,
                        const struct machine_record *record)
{
    struct machine_spec machine;
    char *line;

    machine_spec_init(&machine);
    if (record) {
        machine.memory_bytes = record->memory_bytes;
        machine.cpu_count = record->cpu_count;
        machine.disk_limit = record->disk_limit;
        spec->live = record;
    }
    line = result_to_json(result, spec, &machine, NULL);
    machine_spec_fini(&machine);
    return line;
}

/* What a person should know that the exit status does not say. */
static void report(const struct results *results, const struct run_options *run,
                   const struct trial_result *r)
{
    const char *name = results->verb->name;
    uint64_t dropped = r->out.dropped + r->err.dropped;

    if (failure_is_set(&r->failure))
        cli_fail(results->verb, &r->failure);
    else if (r->outcome.kind != OUTCOME_OK && r->outcome.kind != OUTCOME_FAIL &&
             r->outcome.kind != OUTCOME_SIGNAL)
        fprintf(stderr, "microsbx %s: %s%s%s (decided by the %s)\n", name,
                outcome_name(r->outcome.kind), r->outcome.cause ? ": " : "",
                r->outcome.cause ? r->outcome.cause : "",
                r->outcome.by_host ? "host" : "guest");
    if (dropped > 0 && run->spec.no_agent && !r->hit_output)
        fprintf(stderr,
                "microsbx %s: the guest's console lost %" PRIu64
                " bytes: it sent them although its port was not ready\n",
                name, dropped);
    else if (dropped > 0)
        fprintf(stderr,
                "microsbx %s: output beyond --output-limit was dropped "
                "(%" PRIu64 " bytes)\n",
                name, dropped);
    /* Without an agent the console has been the output already. */
    if ((r->outcome.kind == OUTCOME_INFRA_NEVER_RAN ||
         r->outcome.kind == OUTCOME_GUEST_PANIC) &&
        !run->spec.no_agent)
        cli_show_console(r->console, r->console_len);
}

static int write_json(const struct results *results,
                      const struct run_options *run,
                      const struct trial_result *r, const char *line)
{
    int ret = -ENOMEM;

    if (line)
        ret = io_write_full(results->json_fd, line, strlen(line));
    if (ret == 0)
        ret = io_write_full(results->json_fd, "\n", 1);
    if (ret == 0 && results->json_fd != STDOUT_FILENO &&
        fsync(results->json_fd) != 0 && errno != EINVAL && errno != EROFS)
        ret = -errno;
    if (ret != 0)
        fprintf(stderr,
                "microsbx %s: cannot write the result to %s: %s\n"
                "  the trial's outcome was %s\n",
                results->verb->name, run->json, strerror(-ret),
                outcome_name(r->outcome.kind));
    return ret;
}

int results_finish(const struct results *r, const struct run_options *run,
                   const struct trial_result *result, const char *line)
{
    report(r, run, result);
    if (r->json_fd >= 0) {
        if (write_json(r, run, result, line) != 0)
            return EXIT_INFRA;
        if (run->exit_code_json)
            return 0;
    }
    return outcome_exit_status(&result->outcome, &result->facts);
}
