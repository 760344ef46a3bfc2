/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx snapshot diff: pages and clusters, which are compared here, and
 * files, which a throw-away machine compares.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/num.h"
#include "base/text.h"
#include "cli/snapshot_verbs.h"
#include "trial/snapshot_diff.h"
#include "trial/snapshot_files.h"

#define PAGE_SIZE 4096u
#define CLUSTER_SIZE 65536u

static void report_run(void *ctx, const struct snapshot_run *run)
{
    unsigned size = run->disk ? CLUSTER_SIZE : PAGE_SIZE;

    (void)ctx;
    if (run->disk)
        printf("disk %s", run->disk);
    else
        fputs("memory", stdout);
    printf(" 0x%" PRIx64 " %" PRIu64 "\n", run->first * size,
           run->count * size);
}

static void print_difference(const struct snapshot *a,
                             const struct snapshot_difference *d)
{
    printf("memory: %" PRIu64 " pages differ\n", d->pages);
    for (uint32_t i = 0; i < a->manifest.disk_count; i++) {
        if (a->manifest.disks[i].mode == VM_DISK_COW)
            printf("disk %s: %" PRIu64 " clusters differ\n",
                   a->manifest.disks[i].id, d->clusters[i]);
    }
}

static bool is_difference(const struct snapshot_difference *d)
{
    uint64_t sum = d->pages;

    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        sum += d->clusters[i];
    return sum > 0;
}

/* ---- files ---- */

static void report_entry(void *ctx, const struct proto_compare *entry)
{
    char *shown = ctx;

    text_escape(entry->path, entry->path_len, shown, PROTO_COMPARE_LINE_MAX);
    printf("%c %c %s\n", (char)entry->change, entry->type, shown);
}

static int check_options(const struct options *options, struct failure *f)
{
    static const char *const NEED[] = {"image", "kernel"};

    for (size_t i = 0; i < ARRAY_SIZE(NEED); i++) {
        if (options_has(options, NEED[i]) && !options_has(options, "files")) {
            failure_set(f, "usage", NEED[i], "add --files, or leave it out",
                        "option --%s needs --files", NEED[i]);
            return -EINVAL;
        }
    }
    return 0;
}

/* Without a cluster that differs there is no file that does. */
static bool may_differ(const struct snapshot *a,
                       const struct snapshot_difference *d)
{
    bool any = false;

    for (uint32_t i = 0; i < a->manifest.disk_count; i++)
        any = any || d->clusters[i] > 0;
    return any;
}

static int print_files(const struct options *options, const struct snapshot *a,
                       const struct snapshot *b, struct failure *f)
{
    char *shown = malloc(PROTO_COMPARE_LINE_MAX);
    struct snapshot_files_options files = {
        .image = options_get(options, "image"),
        .kernel = options_get(options, "kernel"),
        .signal_fd = -1,
        .report = report_entry,
        .ctx = shown,
    };
    uint32_t count = 0;
    int ret = 0;

    if (!shown) {
        failure_set(f, "host", "memory", NULL, "out of memory");
        return -ENOMEM;
    }
    ret = cli_watch_signals(0, &files.signal_fd, f);
    if (ret == 0)
        ret = snapshot_files(a, b, &files, &count, f);
    if (ret == 0)
        printf("files: %" PRIu32 " differ\n", count);
    io_close(&files.signal_fd);
    free(shown);
    return ret;
}

/* ---- the verb ---- */

/* 0 and *ret_differ, or a negative errno with *f filled. */
static int diff(const struct options *options, const struct snapshot *a,
                const struct snapshot *b, bool *ret_differ, struct failure *f)
{
    struct snapshot_difference difference;
    int ret =
        snapshot_diff(a, b, options_has(options, "runs") ? report_run : NULL,
                      NULL, &difference, f);

    if (ret != 0)
        return ret;
    *ret_differ = is_difference(&difference);
    print_difference(a, &difference);
    if (options_has(options, "files") && may_differ(a, &difference))
        return print_files(options, a, b, f);
    if (options_has(options, "files"))
        puts("files: 0 differ");
    return 0;
}

static int diff_main(const struct verb *verb, int argc, char **argv)
{
    struct snapshot_open_options open_options = {0};
    struct snapshot_places places;
    struct snapshot *a = NULL, *b = NULL;
    struct options options;
    struct failure f = {0};
    bool differ = false;
    int status = snapshot_parse(verb, argc, argv, 2, &options);
    int ret;

    if (status >= 0)
        return status;
    snapshot_places_read(&options, &places, &open_options);
    ret = check_options(&options, &f);
    if (ret == 0)
        ret = snapshot_open(options.positional[0], &open_options, &a, &f);
    if (ret == 0)
        ret = snapshot_open(options.positional[1], &open_options, &b, &f);
    if (ret == 0)
        ret = diff(&options, a, b, &differ, &f);
    if (ret == 0)
        status = differ ? SNAPSHOT_EXIT_NO : 0;
    else
        status = snapshot_fail_verb(verb, ret, &f);
    snapshot_close(a);
    snapshot_close(b);
    return snapshot_flushed(verb, status);
}

static const struct option_spec DIFF_OPTIONS[] = {
    {"runs", 0, NULL, false,
     "List each run that differs: where it is, its first byte, its bytes."},
    {"files", 0, NULL, false,
     "List each file of the root file system that differs: A added, D removed, "
     "M changed, m other permissions or owner only; its type as find's -type; "
     "its path. A throw-away machine looks at the disks."},
    {"image", 0, "NAME|DIR", false,
     "--files: the image whose kernel and initrd that machine has. Default: "
     "the one that the snapshots were made of."},
    {"kernel", 0, "FILE", false, "--files: another kernel for it."},
    {NULL, 0, NULL, false, NULL},
};
static const struct option_group DIFF_GROUP = {"Options", DIFF_OPTIONS};

const struct verb VERB_SNAPSHOT_DIFF = {
    .name = "snapshot diff",
    .synopsis = "[OPTIONS] DIR DIR",
    .summary = "Say in which pages, clusters and files two snapshots differ.",
    .description =
        "Compares memory and disks as a guest would read them, whatever chain "
        "of diffs each is stored as. What --files lists was found from inside "
        "a machine, so that no file system written by a guest is parsed on "
        "this host; a hostile disk can make that machine lie about files, "
        "never about pages and clusters. Times and extended attributes are "
        "not compared. Exit status 0: no difference; 1: some; 125: it could "
        "not be told.",
    .example = "  microsbx snapshot diff ./warm ./warmer\n"
               "  microsbx snapshot diff --files ./warm ./warmer\n",
    .groups = {&DIFF_GROUP, &SNAPSHOT_PLACES, NULL},
    .main = diff_main,
};
