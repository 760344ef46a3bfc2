/* SPDX-License-Identifier: Apache-2.0 */
/* Where results go; see the header. */
#include "cli/results.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/standard_fds.h"
#include "base/text.h"
#include "trial/fetched.h"
#include "trial/result.h"

void results_init(struct results *r, const struct verb *verb)
{
    r->verb = verb;
    r->json_fd = r->out_fd = r->err_fd = -1;
    r->outputs.count = 0;
}

int results_create(const char *option, const char *path, int *ret_fd,
                   struct failure *f)
{
    int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);

    if (fd < 0) {
        failure_set(
            f, "usage", path, failure_remedy(errno, "check the path given"),
            "cannot open %s for --%s: %s", path, option, strerror(errno));
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

/* True if the path names the regular file that is open. */
static bool is_same_file(int fd, const char *path)
{
    struct stat open_file, named;

    return fstat(fd, &open_file) == 0 && S_ISREG(open_file.st_mode) &&
           stat(path, &named) == 0 && named.st_dev == open_file.st_dev &&
           named.st_ino == open_file.st_ino;
}

/* Creates it, if it is none of the files we read or write already. */
static int create_output(struct results *r, const char *label, const char *path,
                         int *ret_fd, struct failure *f)
{
    int ret = outputs_add(&r->outputs, label, path, f);

    if (ret == 0)
        ret = results_create(label + 2, path, ret_fd, f);
    /* It may not have been there before. */
    if (ret == 0)
        outputs_add_fd(&r->outputs, label, *ret_fd);
    return ret;
}

/* --stdout or --stderr: FILE, none, or this process's own stream. */
static int open_sink(struct results *r, const struct options *options,
                     const char *label, struct trial_sink *ret_sink,
                     struct failure *f)
{
    const char *value = options_get(options, label + 2);
    bool is_err = !strcmp(label, "--stderr");
    int *owned = is_err ? &r->err_fd : &r->out_fd;
    int ret = 0;

    if (!value)
        return 0;
    ret_sink->fd = -1;
    if (!strcmp(value, "none"))
        return 0;
    if (is_err && r->out_fd >= 0 && is_same_file(r->out_fd, value)) {
        /* Both into one file, in the order in which they come. */
        *owned = fcntl(r->out_fd, F_DUPFD_CLOEXEC, 3);
        ret = *owned < 0 ? -errno : 0;
        if (ret != 0)
            failure_set(f, "host", value, failure_remedy(errno, NULL),
                        "cannot open %s twice: %s", value, strerror(errno));
    } else {
        ret = create_output(r, label, value, owned, f);
    }
    if (ret == 0)
        *ret_sink = (struct trial_sink){.fd = *owned, .file = value};
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
        return create_output(r, "--json", run->json, &r->json_fd, f);
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

static int open_events(struct results *r, const struct options *options,
                       struct run_options *run, struct failure *f)
{
    int fd = -1, ret;

    run->events = options_get(options, "events");
    if (!run->events)
        return 0;
    ret = create_output(r, "--events", run->events, &fd, f);
    if (ret != 0)
        return ret;
    run->spec.events = fdopen(fd, "w");
    if (run->spec.events)
        return 0;
    failure_set(f, "host", "memory", NULL, "out of memory");
    io_close(&fd);
    return -ENOMEM;
}

/* Files to fetch: each that is none of those we read makes room, whatever is
 * wrong with another. */
int results_clear_fetched(struct results *r, const struct trial_spec *s,
                          struct failure *f)
{
    struct failure other;
    int ret = 0;

    for (size_t i = 0; i < s->file_count; i++) {
        struct failure *why = ret == 0 ? f : &other;
        int one;

        if (!s->files[i].get)
            continue;
        one = outputs_add(&r->outputs, "--get", s->files[i].dst, why);
        if (one == 0)
            one = fetched_forget(&s->files[i], 1, why);
        if (one == 0)
            outputs_add_place(&r->outputs, "--get", s->files[i].dst);
        ret = ret == 0 ? one : ret;
    }
    return ret;
}

int results_open(struct results *r, const struct options *options,
                 struct run_options *run, struct failure *f)
{
    struct trial_spec *s = &run->spec;
    struct failure fetch = {0};
    int ret, fetch_ret;

    s->out = own_stream(STDOUT_FILENO);
    s->err = own_stream(STDERR_FILENO);
    outputs_add_fd(&r->outputs, "standard error", STDERR_FILENO);
    if (!options_has(options, "stdout"))
        outputs_add_fd(&r->outputs, "standard output", STDOUT_FILENO);
    fetch_ret = results_clear_fetched(r, s, &fetch);
    ret = open_json(r, options, run, f);
    if (ret == 0)
        ret = read_exit_code(options, run, f);
    if (ret == 0)
        ret = open_sink(r, options, "--stdout", &s->out, f);
    if (ret == 0)
        ret = open_sink(r, options, "--stderr", &s->err, f);
    if (ret == 0)
        ret = open_events(r, options, run, f);
    if (ret == 0 && fetch_ret != 0) {
        *f = fetch;
        ret = fetch_ret;
    }
    return ret;
}

void results_open_wrong(struct results *r, const struct options *options,
                        struct run_options *run)
{
    struct failure other;

    outputs_add_words(&r->outputs, r->argc, r->argv, options);
    (void)!run_options_read_files(options, run, &other);
    (void)!results_open(r, options, run, &other);
}

int results_parse(struct results *r, int argc, char **argv,
                  struct options *ret_options, struct run_options *run,
                  struct failure *f)
{
    int ret = options_parse(r->verb, argc, argv, ret_options, f);

    r->argc = argc;
    r->argv = argv;

    if (ret == 0 && ret_options->help)
        cli_print_help(stdout, r->verb);
    else if (ret != 0)
        results_open_wrong(r, ret_options, run);
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

/* Files that are missing, and events. */
static void report_undelivered(const struct results *results,
                               const struct run_options *run,
                               const struct trial_result *r)
{
    struct failure f;

    for (size_t i = 0; i < run->spec.file_count && r->missing > 0; i++) {
        if (!fetched_is_missing(&run->spec.files[i], &r->files[i]))
            continue;
        fetched_explain(&run->spec.files[i], &r->files[i], &f);
        cli_fail(results->verb, &f);
    }
    if (r->events_error == 0)
        return;
    failure_set(&f, "events", run->events,
                failure_remedy(r->events_error, NULL),
                "cannot write all events to %s: %s", run->events,
                strerror(r->events_error));
    cli_fail(results->verb, &f);
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

void results_settle(const struct run_options *run, struct trial_result *result)
{
    if (!run->spec.events || result->events_error != 0)
        return;
    errno = 0;
    if (fflush(run->spec.events) != 0 || ferror(run->spec.events))
        result->events_error = errno ? errno : EIO;
}

int results_finish(const struct results *r, const struct run_options *run,
                   const struct trial_result *result, const char *line)
{
    int status = outcome_exit_status(&result->outcome, &result->facts);
    bool written = r->json_fd < 0;

    report(r, run, result);
    report_undelivered(r, run, result);
    if (r->json_fd >= 0)
        written = write_json(r, run, result, line) == 0;
    if (written && run->exit_code_json)
        return 0;
    if (!written || result->events_error != 0 || result->missing > 0)
        return status == 0 ? EXIT_UNDELIVERED : status;
    return status;
}
