/* SPDX-License-Identifier: Apache-2.0 */
/* The trial options of `run`; see the header. */
#include "cli/run_options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"

#define ENV_FILE_MAX (256u * 1024u)

static const struct option_spec COMMAND_SPECS[] = {
    {"env", 'e', "NAME=VALUE", true,
     "Environment variable; NAME alone passes this process's value on."},
    {"env-file", 0, "FILE", false,
     "Variables from a file, one NAME=VALUE a line; # begins a comment line."},
    {"workdir", 'w', "DIR", false,
     "Working directory in the guest. Default: the user's home."},
    {"user", 'u', "NAME|UID[:GID]", false,
     "User in the guest. Default: sandbox (uid 1000), for whom no program "
     "gains "
     "rights: sudo, su and set-id bits do not work there. What needs root is "
     "run "
     "with -u root, or belongs in the image's recipe."},
    {"interactive", 'i', NULL, false,
     "Pass standard input on. Without it the command's input is empty."},
    {"tty", 't', NULL, false, "Give the command a terminal; implies -i."},
    {"output-limit", 0, "SIZE", false,
     "Bytes kept of each output stream; the rest is counted. Default 10M."},
    {"pids-limit", 0, "N", false, "Processes in the guest. Default 512."},
    {"json", 0, "FILE|-", false,
     "Write the result as one line of JSON; - is standard output and needs "
     "--stdout."},
    {"stdout", 0, "FILE|none", false, "Where the command's output goes."},
    {"stderr", 0, "FILE|none", false,
     "Where its errors go. The file of --stdout will do: then both are in it, "
     "in "
     "the order in which they come."},
    {"exit-code", 0, "json", false,
     "Exit with 0 once the JSON is written, whatever the command did."},
    {NULL, 0, NULL, false, NULL},
};

const struct option_group COMMAND_OPTIONS = {"Command options", COMMAND_SPECS};

static const struct option_spec TRIAL_SPECS[] = {
    {"timeout", 0, "DURATION", false,
     "Wall-clock limit of the command, by the host's clock, which goes on "
     "while "
     "the host sleeps or microsbx is stopped (Ctrl-Z is refused): an end that "
     "is found after it is a timeout. Default 10m, and none with -d."},
    {"ready-timeout", 0, "DURATION", false,
     "How long the machine may take to boot. Default 180s."},
    {"cpu-time", 0, "DURATION", false,
     "Limit of the CPU time of all virtual CPUs together. Default none."},
    {"put", 0, "SRC:DST", true,
     "Copy a file of this host into the guest before the command runs. A colon "
     "in a name is written \\:, also for --get."},
    {"get", 0, "SRC:DST[,optional]", true,
     "Copy a file of the guest to this host after the command ended. A file "
     "that is at DST goes before the trial: one that could not be fetched is "
     "not there, is named, and the status is 123 where the command's was 0. "
     "optional: the guest may have no such file."},
    {"on-limit", 0, "KIND=note|end", true,
     "What happens when a limit is touched. KIND: output or disk (default "
     "note), pids or memory (default end)."},
    {"repeat", 0, "N", false,
     "Run the trial N times, one result a line, and say how many gave the same "
     "output. The exit status is the first that is not 0, or 130 if the "
     "series was cancelled."},
    {"rm", 0, NULL, false,
     "Nothing: a run leaves nothing behind that could be removed."},
    {"events", 0, "FILE", false,
     "Write what happens, as it happens, one JSON object a line."},
    {"no-agent", 0, NULL, false,
     "The guest itself (a test kernel, a unikernel: --kernel) is the trial, "
     "without COMMAND. Its console is the output; power-off is status 0; a "
     "value written to port 0xf4 (1, 2 or 4 bytes) is the status, above 255 "
     "as 255. That is QEMU's isa-debug-exit, but for QEMU's (value << 1) | 1. "
     "Any KVM will do: this host need not be fit for Linux guests."},
    {NULL, 0, NULL, false, NULL},
};

const struct option_group TRIAL_OPTIONS = {"Trial options", TRIAL_SPECS};

static int fail_usage(const char *option, const char *value, const char *why,
                      const char *remedy, struct failure *f)
{
    failure_set(f, "usage", option, remedy, "option --%s: '%s' %s", option,
                value, why);
    return -EINVAL;
}

/* ---- environment ---- */

/* The index of a variable of the same name, or env_count. */
static size_t find_env(const struct run_options *run, const char *entry)
{
    size_t len = strcspn(entry, "=");
    size_t i = 0;

    while (i < run->env_count &&
           (strncmp(run->env[i], entry, len) != 0 || run->env[i][len] != '='))
        i++;
    return i;
}

/* An entry that is wrong, without its value: that may be a secret. */
static int fail_env(const char *entry, const char *file, unsigned line,
                    const char *why, struct failure *f)
{
    int len = (int)strcspn(entry, "=");
    const char *rest = entry[len] ? "=..." : "";

    if (file)
        failure_set(f, "usage", file, "write NAME=VALUE on each line",
                    "cannot use the environment file %s: line %u: '%.*s%s' %s",
                    file, line, len, entry, rest, why);
    else
        failure_set(f, "usage", "env", "give --env NAME=VALUE",
                    "option --env: '%.*s%s' %s", len, entry, rest, why);
    return -EINVAL;
}

/*
 * A line of the file, or a value of -e (no file), in place of an earlier one of
 * that name. NUL-terminated, stays alive.
 */
static int add_env(struct run_options *run, const char *entry, const char *file,
                   unsigned line, struct failure *f)
{
    size_t i;

    if (entry[0] == '=' || !strchr(entry, '='))
        return fail_env(entry, file, line, "is not NAME=VALUE", f);
    i = find_env(run, entry);
    if (i == RUN_ENV_MAX)
        return fail_env(entry, file, line,
                        "is one variable too many: there may be 1024", f);
    run->env[i] = entry;
    if (i == run->env_count)
        run->env_count++;
    return 0;
}

/* The file's lines, which stay in run->env_text. */
static int add_env_lines(struct run_options *run, const char *path, size_t len,
                         struct failure *f)
{
    char *at = run->env_text, *end = at + len;
    int ret = 0;

    for (unsigned line = 1; at < end && ret == 0; line++) {
        size_t size =
            (size_t)((char *)memchr(at, '\n', (size_t)(end - at) + 1) - at);

        at[size] = '\0';
        if (strlen(at) != size)
            ret = fail_env(at, path, line, "holds a zero byte", f);
        else if (at[0] != '#' && at[0] != '\0')
            ret = add_env(run, at, path, line, f);
        at += size + 1;
    }
    return ret;
}

static int read_env_file(struct run_options *run, const char *path,
                         struct failure *f)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t n = fd < 0 ? -errno : 0;

    run->env_text = malloc(ENV_FILE_MAX + 2);
    if (!run->env_text)
        n = -ENOMEM;
    else if (fd >= 0)
        n = io_read_full(fd, run->env_text, ENV_FILE_MAX + 1);
    io_close(&fd);
    if (n < 0 || n > (ssize_t)ENV_FILE_MAX) {
        failure_set(f, "usage", path,
                    failure_remedy(n < 0 ? (int)n : 0, "check the path given"),
                    "cannot read the environment file %s: %s", path,
                    n < 0 ? strerror((int)-n) : "it is larger than 256 KiB");
        return -EINVAL;
    }
    run->env_text[n] = '\n'; /* the last line, too, has an end */
    return add_env_lines(run, path, (size_t)n, f);
}

static int read_env(const struct options *options, struct run_options *run,
                    struct failure *f)
{
    const char *file = options_get(options, "env-file");
    const char *value;
    int ret = file ? read_env_file(run, file, f) : 0;

    for (size_t i = 0; ret == 0 && (value = options_get_nth(options, "env", i));
         i++) {
        const char *here = strchr(value, '=') ? value : NULL;

        /* NAME alone: environ's own string, if it is set there. */
        for (char **e = environ; !here && *e; e++) {
            size_t len = strlen(value);

            if (!strncmp(*e, value, len) && (*e)[len] == '=')
                here = *e;
        }
        if (here)
            ret = add_env(run, here, NULL, 0, f);
    }
    return ret;
}

/* ---- files ---- */

/* True if the text ends with it, which is cut off then. */
static bool cut_end(char *text, const char *end)
{
    size_t len = strlen(text), cut = strlen(end);

    if (len <= cut || strcmp(text + len - cut, end) != 0)
        return false;
    text[len - cut] = '\0';
    return true;
}

static int add_file(struct run_options *run, bool get, const char *value,
                    struct failure *f)
{
    const char *option = get ? "get" : "put";
    size_t count = run->spec.file_count;
    const char *base;
    char *name, *dst;
    bool optional;

    if (count == TRIAL_FILES_MAX)
        return fail_usage(option, value, "is one file too many",
                          "give at most 256", f);
    /* Room to append SRC's last name to a DST that is a folder. */
    name = malloc(2 * strlen(value) + 2);
    if (!name)
        return fail_usage(option, value, "does not fit into memory", NULL, f);
    strcpy(name, value);
    dst = options_cut_pair(name);
    if (!dst) {
        free(name);
        return fail_usage(option, value, "is not SRC:DST",
                          "name both files, with a colon between; a colon in "
                          "a name is written \\:",
                          f);
    }
    run->file_names[count] = name;
    optional = get && cut_end(dst, ",optional");
    base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    if (dst[strlen(dst) - 1] == '/')
        strcat(dst, base);
    run->files[count] = (struct trial_file){
        .get = get, .optional = optional, .src = name, .dst = dst};
    run->spec.file_count++;
    return 0;
}

/* A file that cannot be read is refused before a machine is started. */
static int check_put(const struct trial_file *file, struct failure *f)
{
    struct stat st;
    const char *why = NULL;

    if (stat(file->src, &st) != 0 || access(file->src, R_OK) != 0)
        why = strerror(errno);
    else if (S_ISDIR(st.st_mode))
        why = "it is a directory (put its files one by one, or a tar)";
    else if (!S_ISREG(st.st_mode))
        why = "it is not a regular file";
    if (!why)
        return 0;
    failure_set(f, "put_failed", file->src, "check the path given",
                "cannot put %s into the guest: %s", file->src, why);
    return -EINVAL;
}

/* All of them, whatever is wrong with one: what is fetched replaces a file. */
int run_options_read_files(const struct options *options,
                           struct run_options *run, struct failure *f)
{
    struct failure other;
    const char *value;
    int ret = 0, one;

    if (run->spec.file_count > 0)
        return 0; /* that was done */
    for (size_t i = 0; (value = options_get_nth(options, "put", i)); i++) {
        one = add_file(run, false, value, ret == 0 ? f : &other);
        ret = ret == 0 ? one : ret;
    }
    for (size_t i = 0; (value = options_get_nth(options, "get", i)); i++) {
        one = add_file(run, true, value, ret == 0 ? f : &other);
        ret = ret == 0 ? one : ret;
    }
    for (size_t i = 0; ret == 0 && i < run->spec.file_count; i++)
        if (!run->files[i].get)
            ret = check_put(&run->files[i], f);
    return ret;
}

/* ---- limits ---- */

static int read_on_limit(struct trial_spec *s, const char *value,
                         struct failure *f)
{
    const char *equals = strchr(value, '=');
    size_t len = equals ? (size_t)(equals - value) : 0;
    bool end = equals && !strcmp(equals + 1, "end");

    if (!equals || (!end && strcmp(equals + 1, "note") != 0))
        return fail_usage("on-limit", value, "is not KIND=note or KIND=end",
                          NULL, f);
    if (len == 6 && !strncmp(value, "output", 6))
        s->output_ends = end;
    else if (len == 4 && !strncmp(value, "disk", 4))
        s->disk_ends = end;
    else if (len == 4 && !strncmp(value, "pids", 4))
        s->pids_notes = !end;
    else if (len == 6 && !strncmp(value, "memory", 6))
        s->memory_notes = !end;
    else
        return fail_usage("on-limit", value, "names no such limit",
                          "use output, disk, pids or memory", f);
    return 0;
}

static int read_limits(const struct options *options, struct trial_spec *s,
                       struct failure *f)
{
    unsigned long long timeout = s->timeout_ms;
    unsigned long long ready = TRIAL_READY_TIMEOUT_MS;
    unsigned long long cpu = 0, output = TRIAL_OUTPUT_LIMIT_DEFAULT;
    unsigned long long pids = TRIAL_PIDS_LIMIT_DEFAULT;
    const char *value;
    bool zero;
    int ret = options_get_duration_ms(options, "timeout", &timeout, f);

    if (ret == 0)
        ret = options_get_duration_ms(options, "ready-timeout", &ready, f);
    if (ret == 0)
        ret = options_get_duration_ms(options, "cpu-time", &cpu, f);
    if (ret == 0)
        ret = options_get_size(options, "output-limit", &output, f);
    if (ret == 0)
        ret = options_get_number(options, "pids-limit", 1, 1000000, &pids, f);
    zero = options_has(options, "timeout") && timeout == 0;
    if (ret == 0 && (zero || ready == 0))
        ret = fail_usage(zero ? "timeout" : "ready-timeout", "0",
                         "would end every trial at once",
                         "give a longer duration", f);
    for (size_t i = 0;
         ret == 0 && (value = options_get_nth(options, "on-limit", i)); i++)
        ret = read_on_limit(s, value, f);
    s->timeout_ms = timeout;
    s->ready_ms = ready;
    s->cpu_time_ms = cpu;
    s->output_limit = output;
    s->pids_limit = (uint32_t)pids;
    return ret;
}

static int read_command(const struct options *options, struct run_options *run,
                        struct failure *f)
{
    size_t count = (size_t)options->positional_count;

    run->argv = calloc(count + 1, sizeof(*run->argv));
    if (!run->argv)
        return fail_usage("", "COMMAND", "does not fit into memory", NULL, f);
    for (size_t i = 0; i < count; i++)
        run->argv[i] = options->positional[i];
    run->spec.argv = run->argv;
    return 0;
}

/* Without an agent nobody would do what these ask for. */
static int check_no_agent(const struct options *options, struct failure *f)
{
    static const char *const AGENTS[] = {
        "image", "env",         "env-file",      "workdir",
        "user",  "interactive", "tty",           "put",
        "get",   "pids-limit",  "ready-timeout",
    };

    for (size_t i = 0; i < ARRAY_SIZE(AGENTS); i++) {
        if (!options_has(options, AGENTS[i]))
            continue;
        failure_set(f, "usage", AGENTS[i], "leave out one of the two",
                    "option --%s needs the guest's agent, and --no-agent is "
                    "given",
                    AGENTS[i]);
        return -EINVAL;
    }
    if (options->positional_count == 0)
        return 0;
    failure_set(f, "usage", options->positional[0],
                "leave out the command, or --no-agent",
                "with --no-agent the guest itself is what runs, but there is "
                "a command: '%s'",
                options->positional[0]);
    return -EINVAL;
}

void run_options_init(struct run_options *run)
{
    struct trial_spec *s = &run->spec;

    memset(run, 0, sizeof(*run));
    s->stdin_fd = -1;
    s->out = (struct trial_sink){.fd = -1};
    s->err = (struct trial_sink){.fd = -1};
    s->signal_fd = -1;
    s->output_limit = TRIAL_OUTPUT_LIMIT_DEFAULT;
    s->pids_limit = TRIAL_PIDS_LIMIT_DEFAULT;
    s->env = run->env;
    s->files = run->files;
}

int run_options_read_inputs(const struct options *options,
                            struct run_options *ret, struct failure *f)
{
    struct trial_spec *s = &ret->spec;
    unsigned long long ready = TRIAL_READY_TIMEOUT_MS;
    int error = read_env(options, ret, f);

    if (error == 0)
        error = run_options_read_files(options, ret, f);
    if (error == 0)
        error = options_get_duration_ms(options, "ready-timeout", &ready, f);
    if (error == 0 && ready == 0)
        error = fail_usage("ready-timeout", "0", "would end it at once",
                           "give a longer duration", f);
    s->ready_ms = ready;
    s->workdir = options_get(options, "workdir");
    s->user = options_get(options, "user");
    return error;
}

int run_options_read(const struct options *options, struct run_options *ret,
                     struct failure *f)
{
    struct trial_spec *s = &ret->spec;
    int error = 0;

    s->no_agent = options_has(options, "no-agent");
    if (s->no_agent)
        error = check_no_agent(options, f);
    else if (options->positional_count > 0)
        error = read_command(options, ret, f);
    if (error == 0)
        error = run_options_read_inputs(options, ret, f);
    if (error == 0)
        error = read_limits(options, s, f);
    s->tty = options_has(options, "tty");
    if (s->tty || options_has(options, "interactive"))
        s->stdin_fd = STDIN_FILENO;
    return error;
}

/* *at, where nothing was given: a copy of the text (NULL: stays nothing). */
static int add_default(struct run_options *run, const char **at,
                       const char *text, struct failure *f)
{
    char *copy;

    if (*at || !text)
        return 0;
    copy = strdup(text);
    if (!copy) {
        failure_set(f, "host", "memory", NULL, "out of memory");
        return -ENOMEM;
    }
    run->defaults[run->default_count++] = copy;
    *at = copy;
    return 0;
}

static int add_default_env(struct run_options *run, const char *entry,
                           struct failure *f)
{
    const char *copy = NULL;
    size_t i = find_env(run, entry);
    int ret = 0;

    if (i < run->env_count)
        return 0;
    if (i < RUN_ENV_MAX)
        ret = add_default(run, &copy, entry, f);
    return ret == 0 ? add_env(run, copy ? copy : entry, NULL, 0, f) : ret;
}

static int add_defaults(struct run_options *run, char *const *env,
                        const char *user, const char *workdir,
                        struct failure *f)
{
    int ret = 0;

    for (; env && *env && ret == 0; env++)
        ret = add_default_env(run, *env, f);
    if (ret == 0)
        ret = add_default(run, &run->spec.user, user, f);
    if (ret == 0)
        ret = add_default(run, &run->spec.workdir, workdir, f);
    return ret;
}

int run_options_add_image(struct run_options *run, const struct image *image,
                          struct failure *f)
{
    return add_defaults(run, image->env, image->user, image->workdir, f);
}

int run_options_add_manifest(struct run_options *run,
                             const struct snapshot_manifest *m,
                             struct failure *f)
{
    return add_defaults(run, m->env, m->user, m->workdir, f);
}

int run_options_need_command(const struct run_options *run, const char *example,
                             struct failure *f)
{
    if (run->spec.argv)
        return 0;
    failure_set(f, "usage", "COMMAND", example, "there is no command to run");
    return -EINVAL;
}

void run_options_fini(struct run_options *run)
{
    for (size_t i = 0; i < TRIAL_FILES_MAX; i++)
        free(run->file_names[i]);
    for (size_t i = 0; i < run->default_count; i++)
        free(run->defaults[i]);
    free(run->env_text);
    free(run->argv);
}
