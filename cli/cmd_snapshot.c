/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx snapshot: its second word is a verb of its own, with options and
 * --help of its own. create is in cmd_snapshot_create.c, diff in
 * cmd_snapshot_diff.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/snapshot_verbs.h"
#include "trial/snapshot_archive.h"

#define PAGE_SIZE 4096u

static const struct verb *const VERBS[] = {
    &VERB_SNAPSHOT_CREATE,
    &VERB_SNAPSHOT_INSPECT,
    &VERB_SNAPSHOT_VERIFY,
    &VERB_SNAPSHOT_DIFF,
    &VERB_SNAPSHOT_EXPORT,
    &VERB_SNAPSHOT_IMPORT,
    NULL,
};

/* ---- places ---- */

static const struct option_spec PLACES[] = {
    {"parents", 0, "DIR", true,
     "Where else to look for the parent of a diff: a snapshot, or a folder of "
     "snapshots."},
    {"base", 0, "FILE", true,
     "A file that may be a base disk which the snapshot does not store."},
    {NULL, 0, NULL, false, NULL},
};

const struct option_group SNAPSHOT_PLACES = {"Places", PLACES};

static void read_list(const struct options *options, const char *name,
                      const char **list)
{
    size_t n = 0;

    while ((list[n] = options_get_nth(options, name, n)))
        n++;
}

void snapshot_places_read(const struct options *options,
                          struct snapshot_places *places,
                          struct snapshot_open_options *ret_open)
{
    read_list(options, "parents", places->parents);
    read_list(options, "base", places->bases);
    ret_open->parents = places->parents;
    ret_open->bases = places->bases;
}

int snapshot_check_read(const struct options *options,
                        enum snapshot_check *ret_check, struct failure *f)
{
    static const struct {
        const char *word;
        enum snapshot_check check;
    } WORDS[] = {
        {"full", SNAPSHOT_CHECK_FULL},
        {"sampled", SNAPSHOT_CHECK_SAMPLED},
        {"none", SNAPSHOT_CHECK_NONE},
    };
    const char *value = options_get(options, "check");

    *ret_check = SNAPSHOT_CHECK_DEFAULT;
    if (!value)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(WORDS); i++) {
        if (!strcmp(value, WORDS[i].word)) {
            *ret_check = WORDS[i].check;
            return 0;
        }
    }
    failure_set(f, "usage", "check", "use full, sampled or none",
                "option --check: '%s' is not known", value);
    return -EINVAL;
}

/* ---- what the small verbs share ---- */

int snapshot_parse(const struct verb *verb, int argc, char **argv, int count,
                   struct options *ret_options)
{
    int status = cli_parse(verb, argc, argv, ret_options);
    struct failure f = {0};

    if (status >= 0 || ret_options->positional_count == count)
        return status;
    failure_set(&f, "usage", verb->name, verb->example, "it takes %s",
                verb->synopsis);
    return cli_fail(verb, &f);
}

int snapshot_flushed(const struct verb *verb, int status)
{
    struct failure f = {0};

    if (fflush(stdout) == 0)
        return status;
    failure_set(&f, "output", "standard output", NULL,
                "cannot write the answer: %s", strerror(errno));
    return cli_fail(verb, &f);
}

static void print_text(const char *name, const char *value)
{
    char shown[512];

    text_escape(value, strlen(value), shown, sizeof(shown));
    printf("%-10s %s\n", name, shown);
}

int snapshot_fail_verb(const struct verb *verb, int ret,
                       const struct failure *f)
{
    int status = cli_fail(verb, f);

    return ret == -ECANCELED ? EXIT_CANCELLED : status;
}

/* ---- inspect ---- */

static void print_disk(const struct snapshot_disk *disk)
{
    char size[32];

    units_format_size(disk->bytes, size, sizeof(size));
    printf("disk       %s: %s, %s, base %.16s (%s)\n", disk->id, size,
           disk->mode == VM_DISK_COW ? "copy on write" : "read-only",
           disk->sha256, disk->stored ? "stored" : "not stored");
}

static void print_warmup(const struct snapshot_manifest *m)
{
    char shown[512];

    if (!m->warmup) {
        puts("warm-up    none");
        return;
    }
    fputs("warm-up   ", stdout);
    for (char **word = m->warmup; *word; word++) {
        text_escape(*word, strlen(*word), shown, sizeof(shown));
        printf("%s %s", word == m->warmup ? "" : ", then", shown);
    }
    puts(m->warmup_waiting ? " (waiting for input)" : "");
}

static void print_snapshot(const struct snapshot *s)
{
    const struct snapshot_manifest *m = &s->manifest;
    char memory[32], data[32], used[32];

    units_format_size(m->memory_bytes, memory, sizeof(memory));
    units_format_size(m->memory_pages * PAGE_SIZE, data, sizeof(data));
    units_format_size(m->memory_used, used, sizeof(used));
    printf("id         %s\n", s->id);
    print_text("image", m->has_image ? m->image_name : "none");
    printf("machine    %s of memory, %u CPU%s\n", memory, m->cpus,
           m->cpus == 1 ? "" : "s");
    printf("memory     %s of data; the guest was using %s\n", data, used);
    for (uint32_t i = 0; i < m->disk_count; i++)
        print_disk(&m->disks[i]);
    print_text("kernel", m->kernel_release ? m->kernel_release : "not known");
    print_warmup(m);
    if (m->pinned)
        printf("pinned     for %" PRIu64 " s after each restore\n",
               m->window_ms / 1000);
    if (!m->agent)
        puts("agent      none: the guest is the trial");
    print_text("cpu", m->cpu_model);
    printf("parent     %s\n", m->has_parent ? m->parent_id : "none");
    printf("root       %s\n", m->root);
}

static int inspect_main(const struct verb *verb, int argc, char **argv)
{
    const struct snapshot_open_options open_options = {
        .check = SNAPSHOT_CHECK_NONE,
        .no_bases = true,
        .no_flatten = true,
    };
    char err[SNAPSHOT_ERR_MAX] = "";
    struct snapshot *snapshot = NULL;
    struct options options;
    struct failure f = {0};
    char *text = NULL;
    size_t len;
    int status = snapshot_parse(verb, argc, argv, 1, &options);

    if (status >= 0)
        return status;
    if (snapshot_open(options.positional[0], &open_options, &snapshot, &f) != 0)
        return cli_fail(verb, &f);
    if (!options_has(&options, "json")) {
        print_snapshot(snapshot);
    } else if (snapshot_manifest_encode(&snapshot->manifest, &text, &len,
                                        err) == 0) {
        (void)fwrite(text, 1, len, stdout);
    } else {
        failure_set(&f, "snapshot_damaged", options.positional[0], NULL,
                    "cannot show the manifest: %s", err);
    }
    free(text);
    snapshot_close(snapshot);
    return failure_is_set(&f) ? cli_fail(verb, &f) : snapshot_flushed(verb, 0);
}

static const struct option_spec INSPECT_OPTIONS[] = {
    {"json", 0, NULL, false, "Print the manifest itself."},
    {NULL, 0, NULL, false, NULL},
};
static const struct option_group INSPECT_GROUP = {"Options", INSPECT_OPTIONS};

const struct verb VERB_SNAPSHOT_INSPECT = {
    .name = "snapshot inspect",
    .synopsis = "[--json] DIR",
    .summary = "Say what a snapshot holds and what made it.",
    .description =
        "Reads the manifest and compares it with its digest, which is the "
        "snapshot's id. It does not read memory and disks: verify does.",
    .example = "  microsbx snapshot inspect ./warm\n",
    .groups = {&INSPECT_GROUP, NULL},
    .main = inspect_main,
};

/* ---- verify ---- */

static void report_file(void *ctx, const struct snapshot_verdict *v)
{
    bool *bad = ctx;

    if (v->failure) {
        *bad = true;
        printf("BAD  %s: %s\n", v->file, v->failure->message);
    } else {
        printf("ok   %s (%" PRIu64 " bytes)\n", v->file, v->bytes);
    }
}

static int verify_main(const struct verb *verb, int argc, char **argv)
{
    struct snapshot_open_options open_options = {.check = SNAPSHOT_CHECK_FULL};
    struct snapshot_places places;
    struct options options;
    struct failure f = {0};
    bool bad = false;
    int status = snapshot_parse(verb, argc, argv, 1, &options);
    int ret;

    if (status >= 0)
        return status;
    snapshot_places_read(&options, &places, &open_options);
    ret = snapshot_verify(options.positional[0], &open_options, report_file,
                          &bad, &f);
    if (ret != 0)
        status = cli_fail(verb, &f);
    return snapshot_flushed(verb, ret == 0 ? 0
                                  : bad    ? SNAPSHOT_EXIT_NO
                                           : status);
}

const struct verb VERB_SNAPSHOT_VERIFY = {
    .name = "snapshot verify",
    .synopsis = "[OPTIONS] DIR",
    .summary = "Read every byte of a snapshot and compare the digests.",
    .description =
        "Says of each file whether it is as recorded. Exit status 0: all are; "
        "1: one is not; 125: it could not be told. A snapshot that was found "
        "good is not read again by the next run until a file changes.",
    .example = "  microsbx snapshot verify ./warm\n",
    .groups = {&SNAPSHOT_PLACES, NULL},
    .main = verify_main,
};

/* ---- export and import ---- */

/* Ctrl-C and the like, asked for now and then. */
struct watch {
    int fd;
};

static bool was_cancelled(void *ctx)
{
    const struct watch *watch = ctx;

    return cli_signal_pending(watch->fd);
}

static int export_main(const struct verb *verb, int argc, char **argv)
{
    struct watch watch = {.fd = -1};
    const struct snapshot_archive_options archive = {.cancelled = was_cancelled,
                                                     .ctx = &watch};
    struct options options;
    struct failure f = {0};
    int status = snapshot_parse(verb, argc, argv, 2, &options);
    int ret;

    if (status >= 0)
        return status;
    ret = cli_watch_signals(0, &watch.fd, &f);
    if (ret == 0)
        ret = snapshot_export(options.positional[0], options.positional[1],
                              &archive, &f);
    if (ret != 0)
        return snapshot_fail_verb(verb, ret, &f);
    fputs("the archive holds the guest's memory: all that the warm-up has "
          "seen is in it\n",
          stderr);
    return 0;
}

const struct verb VERB_SNAPSHOT_EXPORT = {
    .name = "snapshot export",
    .synopsis = "DIR FILE",
    .summary = "Pack a snapshot into one compressed file.",
    .description =
        "Checks the snapshot on the way. The archive holds the guest's memory, "
        "and with it all that the warm-up has seen: give it only to those who "
        "may see that. A diff is packed without its parent.",
    .example = "  microsbx snapshot export ./warm warm.msbx\n",
    .groups = {NULL},
    .main = export_main,
};

static const struct option_spec IMPORT_OPTIONS[] = {
    {"size-limit", 0, "SIZE", false,
     "The most that the snapshot may take of the disk: an archive can unpack "
     "to hundreds of times its size. Default: nine tenths of what is free."},
    {NULL, 0, NULL, false, NULL},
};
static const struct option_group IMPORT_GROUP = {"Options", IMPORT_OPTIONS};

static int read_size_limit(const struct options *options, uint64_t *ret_limit,
                           struct failure *f)
{
    unsigned long long limit = 0;
    int ret = options_get_size(options, "size-limit", &limit, f);

    if (ret == 0 && limit == 0 && options_has(options, "size-limit")) {
        failure_set(f, "usage", "size-limit", "give a size",
                    "option --size-limit: 0 would leave no room at all");
        ret = -EINVAL;
    }
    if (ret == 0)
        *ret_limit = limit;
    return ret;
}

static int import_main(const struct verb *verb, int argc, char **argv)
{
    struct watch watch = {.fd = -1};
    struct snapshot_archive_options archive = {.cancelled = was_cancelled,
                                               .ctx = &watch};
    char id[DIGEST_HEX_SIZE];
    struct options options;
    struct failure f = {0};
    int status = snapshot_parse(verb, argc, argv, 2, &options);
    int ret;

    if (status >= 0)
        return status;
    ret = read_size_limit(&options, &archive.size_limit, &f);
    if (ret == 0)
        ret = cli_watch_signals(0, &watch.fd, &f);
    if (ret == 0)
        ret = snapshot_import(options.positional[0], options.positional[1],
                              &archive, id, &f);
    if (ret != 0)
        return snapshot_fail_verb(verb, ret, &f);
    printf("%s\n", id);
    return snapshot_flushed(verb, 0);
}

const struct verb VERB_SNAPSHOT_IMPORT = {
    .name = "snapshot import",
    .synopsis = "[--size-limit SIZE] FILE DIR",
    .summary = "Unpack such a file into a new snapshot, and print its id.",
    .description =
        "Every file is checked against the manifest before the snapshot "
        "appears. Compare the id with the one you were told: it covers all.",
    .example = "  microsbx snapshot import warm.msbx ./warm\n",
    .groups = {&IMPORT_GROUP, NULL},
    .main = import_main,
};

/* ---- the verb ---- */

/* The second word of a name like "snapshot create". */
static const char *second_word(const struct verb *verb)
{
    return strchr(verb->name, ' ') + 1;
}

static int fail_word(const struct verb *verb, const char *word)
{
    const char *names[ARRAY_SIZE(VERBS)];
    struct failure f = {0};
    const char *near;
    size_t n = 0;

    for (; VERBS[n]; n++)
        names[n] = second_word(VERBS[n]);
    names[n] = NULL;
    near = word ? text_nearest(word, names) : NULL;
    failure_set(&f, "usage", word ? word : "",
                "one of: create, inspect, verify, diff, export, import",
                word ? "there is no 'snapshot %s'%s%s%s"
                     : "what is to be done with snapshots?",
                word, near ? "; did you mean " : "", near ? near : "",
                near ? "?" : "");
    return cli_fail(verb, &f);
}

static int snapshot_main(const struct verb *verb, int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;

    if (word && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
        cli_print_help(stdout, verb);
        return 0;
    }
    for (size_t i = 0; word && VERBS[i]; i++) {
        if (!strcmp(word, second_word(VERBS[i])))
            return VERBS[i]->main(VERBS[i], argc - 1, argv + 1);
    }
    return fail_word(verb, word);
}

const struct verb VERB_SNAPSHOT = {
    .name = "snapshot",
    .synopsis = "create|inspect|verify|diff|export|import ...",
    .summary = "Freeze a warm machine, from which trials start.",
    .description =
        "A snapshot is a directory with the memory, the devices and the disks "
        "of one machine at one moment. microsbx run --snapshot DIR starts a "
        "trial from it. Each of the words has its own --help.",
    .example =
        "  microsbx snapshot create --image python \\\n"
        "      --warmup 'python3 -c \"import numpy\"' -o ./warm\n"
        "  microsbx run --snapshot ./warm -- python3 -c 'print(6 * 7)'\n",
    .groups = {NULL},
    .verbs = VERBS,
    .main = snapshot_main,
};
