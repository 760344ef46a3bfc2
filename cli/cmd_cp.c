/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx cp: one regular file into a long-lived machine, or out of it. What
 * comes out appears under its name only when it is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/io.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/results.h"
#include "trial/fetched.h"
#include "trial/json_make.h"
#include "trial/json_text.h"
#include "trial/live.h"

#define PATH_SIZE 4200u
#define EXIT_FILE 1 /* a file could not be read or written, on either side */

static const struct option_spec SPECS[] = {
    {"user", 'u', "NAME|UID[:GID]", false,
     "Whose rights count in the guest, and who owns a new file there. Default: "
     "the machine's user."},
    {"json", 0, "FILE|-", false,
     "Write what became of the file as one line of JSON."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group OPTIONS = {"Options", SPECS};

struct copy {
    const struct verb *verb;
    bool put;
    char name[REGISTRY_NAME_MAX + 1];
    char local[PATH_SIZE];
    char temporary[PATH_SIZE]; /* GET: where it is made; "": nowhere */
    struct keeper_file request;
    const char *src, *dst; /* as the user wrote them */
    int fd;
    struct live live;
    /* what became of it */
    int error; /* errno, 0: done */
    bool in_guest;
    const char *path; /* that the error is about */
    uint64_t bytes;
    char sha256[DIGEST_HEX_SIZE];
    bool untold; /* the line that says so could not be written */
};

/* ---- arguments ---- */

/* The colon behind a machine's name, or NULL for a path of this host. */
static const char *find_colon(const char *word)
{
    const char *colon = strchr(word, ':');
    size_t len = colon ? (size_t)(colon - word) : 0;
    char name[REGISTRY_NAME_MAX + 1];

    if (len == 0 || len > REGISTRY_NAME_MAX)
        return NULL;
    memcpy(name, word, len);
    name[len] = '\0';
    return registry_name_is_valid(name) ? colon : NULL;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int fail_usage(const char *object, const char *why, struct failure *f)
{
    failure_set(f, "usage", object,
                "microsbx cp FILE NAME:PATH or microsbx cp NAME:PATH FILE",
                "cannot copy %s: %s", object, why);
    return -EINVAL;
}

/* dst, and src's last part behind it if dst names a folder. */
static int join(char *ret_path, size_t size, const char *dst, const char *src,
                struct failure *f)
{
    bool folder = dst[0] != '\0' && dst[strlen(dst) - 1] == '/';
    int n = snprintf(ret_path, size, "%s%s", dst, folder ? last_part(src) : "");

    return n < (int)size ? 0 : fail_usage(dst, "the name is too long", f);
}

static int read_words(struct copy *c, const struct options *o,
                      struct failure *f)
{
    const char *from, *to, *colon;
    struct stat st;
    int ret;

    if (o->positional_count != 2)
        return fail_usage("a file", "two names are needed, SRC and DST", f);
    c->src = o->positional[0];
    c->dst = o->positional[1];
    from = find_colon(c->src);
    to = find_colon(c->dst);
    if (!from == !to)
        return fail_usage(c->src, "exactly one side must be NAME:PATH", f);
    c->put = to != NULL;
    colon = c->put ? to : from;
    snprintf(c->name, sizeof(c->name), "%.*s",
             (int)(colon - (c->put ? c->dst : c->src)),
             c->put ? c->dst : c->src);
    if (colon[1] == '\0')
        return fail_usage(c->put ? c->dst : c->src, "the path is empty", f);
    if (c->put) {
        ret = join(c->local, sizeof(c->local), c->src, "", f);
        return ret ? ret
                   : join(c->request.path, sizeof(c->request.path), colon + 1,
                          c->src, f);
    }
    ret = join(c->request.path, sizeof(c->request.path), colon + 1, "", f);
    if (ret == 0)
        ret = join(c->local, sizeof(c->local) - 1, c->dst, colon + 1, f);
    /* Into an existing folder, as cp(1) does. */
    if (ret == 0 && stat(c->local, &st) == 0 && S_ISDIR(st.st_mode)) {
        strcat(c->local, "/");
        strncat(c->local, last_part(colon + 1),
                sizeof(c->local) - strlen(c->local) - 1);
    }
    return ret;
}

static int read_user(struct copy *c, const struct options *o, struct failure *f)
{
    const char *user = options_get(o, "user");

    if (user && strlen(user) >= sizeof(c->request.user))
        return fail_usage(user, "the user's name is too long", f);
    strcpy(c->request.user, user ? user : "");
    return 0;
}

/* ---- this host's file ---- */

static void set_error(struct copy *c, int error, bool in_guest)
{
    c->error = error;
    c->in_guest = in_guest;
    c->path = in_guest ? c->request.path : c->local;
}

static void open_source(struct copy *c)
{
    struct stat st;

    c->fd = open(c->local, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (c->fd < 0 || fstat(c->fd, &st) != 0) {
        set_error(c, errno, false);
        return;
    }
    c->request.mode = st.st_mode & 0777;
    if (!S_ISREG(st.st_mode))
        set_error(c, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, false);
    else if ((uint64_t)st.st_size > TRIAL_FILE_LIMIT)
        set_error(c, EFBIG, false);
}

/* A file beside the destination, to be renamed to it. */
static void open_destination(struct copy *c)
{
    struct stat st;
    int n;

    c->request.limit = TRIAL_FILE_LIMIT;
    if (lstat(c->local, &st) == 0 && !S_ISREG(st.st_mode)) {
        set_error(c, S_ISLNK(st.st_mode) ? ELOOP : EINVAL, false);
        return;
    }
    n = snprintf(c->temporary, sizeof(c->temporary), "%s.XXXXXX", c->local);
    if (n >= (int)sizeof(c->temporary)) {
        c->temporary[0] = '\0';
        set_error(c, ENAMETOOLONG, false);
        return;
    }
    c->fd = mkostemp(c->temporary, O_CLOEXEC);
    if (c->fd < 0) {
        c->temporary[0] = '\0';
        set_error(c, errno, false);
    }
}

/* Makes it appear, with the permissions that it has in the guest. */
static void publish(struct copy *c, uint32_t guest_mode)
{
    if (fchmod(c->fd, fetched_mode(guest_mode)) != 0 ||
        rename(c->temporary, c->local) != 0)
        set_error(c, errno, false);
    else
        c->temporary[0] = '\0';
}

/* ---- the copy ---- */

static int do_copy(struct copy *c, struct failure *f)
{
    struct keeper_file_done done;
    int ret = live_connect(&c->live, f);

    if (ret == 0)
        ret = live_copy(&c->live, c->put ? KEEPER_PUT : KEEPER_GET, &c->request,
                        c->fd, &done, f);
    if (ret != 0)
        return ret;
    c->bytes = done.bytes;
    if (done.local_err != 0)
        set_error(c, (int)done.local_err, false);
    else if (done.err != 0)
        set_error(c, (int)done.err, true);
    if (c->error == 0 && digest_file(c->fd, c->sha256) != 0)
        c->sha256[0] = '\0';
    if (c->error == 0 && !c->put)
        publish(c, done.mode);
    return 0;
}

static json_t *result_object(const struct copy *c)
{
    const char *name = c->error ? strerrorname_np(c->error) : NULL;
    const char *side = c->in_guest ? "guest" : "host";
    struct json_make o = json_make_object();

    json_put(&o, "schema", json_text("microsbx.copy/1"));
    json_put(&o, "src", json_text(c->src));
    json_put(&o, "dst", json_text(c->dst));
    json_put(&o, "status", json_text(c->error ? "error" : "ok"));
    json_put(&o, "errno", json_text(name));
    json_put(&o, "error_at", json_text(c->error ? side : NULL));
    json_put(&o, "path", json_text(c->error ? c->path : NULL));
    json_put(&o, "bytes", json_integer((json_int_t)c->bytes));
    json_put(&o, "sha256", json_text(c->sha256[0] ? c->sha256 : NULL));
    return json_made(&o);
}

static int write_line(const struct copy *c, int fd, struct failure *f)
{
    json_t *o = result_object(c);
    char *line = json_write(o, JSON_COMPACT);
    int ret = line ? io_write_full(fd, line, strlen(line)) : -ENOMEM;

    if (ret == 0)
        ret = io_write_full(fd, "\n", 1);
    free(line);
    json_decref(o);
    if (ret != 0)
        failure_set(f, "output_failed", "json", NULL,
                    "cannot write the result: %s", strerror(-ret));
    return ret;
}

static const char *remedy_for(const struct copy *c)
{
    switch (c->error) {
    case EISDIR:
        return c->put ? "only files are copied; end the destination with / to "
                        "copy into a folder"
                      : "only files are copied; make a tar of a folder first";
    case EFBIG:
        return "at most 100 MiB are copied; split the file";
    case EACCES:
    case EPERM:
        return c->in_guest ? "try -u root" : "check the permissions";
    default:
        return NULL;
    }
}

static int report(const struct copy *c)
{
    struct failure f;
    char shown[512];

    if (c->error == 0)
        return c->untold ? EXIT_UNDELIVERED : 0;
    text_escape(c->path, strlen(c->path), shown, sizeof(shown));
    failure_set(&f, "copy_failed", shown, remedy_for(c),
                "cannot copy %s to %s: %s: %s: %s (%s)", c->src, c->dst,
                c->in_guest ? "in the guest" : "on this host", shown,
                strerror(c->error), strerrorname_np(c->error));
    cli_fail(c->verb, &f);
    return EXIT_FILE;
}

/* The line must not go over the file itself. */
static int create_json(const struct copy *c, const char *path, int *ret_fd,
                       struct failure *f)
{
    struct file_id line = file_id_of(path), file = file_id_of(c->local);

    if (file_id_same(&line, &file)) {
        failure_set(f, "usage", path, "name another file",
                    "option --json: %s is the file that is copied", path);
        return -EINVAL;
    }
    return results_create("json", path, ret_fd, f);
}

static int run_copy(struct copy *c, const struct options *options,
                    struct failure *f)
{
    const char *json = options_get(options, "json");
    int json_fd = -1;
    int ret = read_words(c, options, f);

    if (ret == 0)
        ret = read_user(c, options, f);
    if (ret == 0 && json && strcmp(json, "-") != 0)
        ret = create_json(c, json, &json_fd, f);
    if (ret == 0)
        ret = live_open(c->name, &c->live, f);
    if (ret == 0) {
        if (c->put)
            open_source(c);
        else
            open_destination(c);
        if (c->error == 0)
            ret = do_copy(c, f);
    }
    if (ret == 0 && json)
        c->untold =
            write_line(c, json_fd >= 0 ? json_fd : STDOUT_FILENO, f) != 0;
    if (c->temporary[0])
        unlink(c->temporary);
    io_close(&json_fd);
    io_close(&c->fd);
    live_close(&c->live);
    return ret;
}

static int cp_main(const struct verb *verb, int argc, char **argv)
{
    struct options *options = calloc(1, sizeof(*options));
    struct copy *c = calloc(1, sizeof(*c));
    struct failure f = {0};
    int status = EXIT_INFRA;

    if (!options || !c) {
        failure_set(&f, "host", "memory", NULL, "out of memory");
        status = cli_fail(verb, &f);
        goto out_free;
    }
    c->verb = verb;
    c->fd = c->live.sock = -1;
    c->live.entry.dir_fd = c->live.entry.lock_fd = -1;
    status = cli_parse(verb, argc, argv, options);
    if (status >= 0)
        goto out_free;
    status = run_copy(c, options, &f) == 0 ? report(c) : EXIT_INFRA;
    if (failure_is_set(&f))
        cli_fail(verb, &f);
out_free:
    free(c);
    free(options);
    return status;
}

const struct verb VERB_CP = {
    .name = "cp",
    .synopsis = "[OPTIONS] SRC NAME:DST | NAME:SRC DST",
    .summary = "Copy a file into a long-lived machine, or out of it.",
    .description =
        "Copies one regular file of at most 100 MiB. In the guest folders "
        "above the file are made and an existing file is overwritten; a "
        "relative path is meant from the user's home; a DST that ends with / "
        "takes the file's name. On this host a file appears only when it is "
        "whole. Permissions are kept (less the umask). A file of this host "
        "whose name looks like NAME:PATH is written ./NAME:PATH. The exit "
        "status is 0, 1 if a file could not be read or "
        "written (the message names side, path and errno), 123 if the file was "
        "copied but the line of --json could not be written, 125 if the "
        "machine could not be asked.",
    .example = "  microsbx cp model.npz box:/tmp/\n"
               "  microsbx cp box:/tmp/scores.json .\n",
    .groups = {&OPTIONS, NULL},
    .main = cp_main,
};
