/* SPDX-License-Identifier: Apache-2.0 */
/* Files named for output; see the header. */
#include "cli/outputs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "trial/image.h"

#define LINKS_MAX 8

/* The options of run and exec that name files to write. */
static const char *const OUTPUT_OPTIONS[] = {"json", "stdout", "stderr",
                                             "events", "get"};

/* FNV-1a, never 0. */
static uint64_t hash(const char *text)
{
    uint64_t value = 0xcbf29ce484222325u;

    for (; *text; text++)
        value = (value ^ (uint8_t)*text) * 0x100000001b3u;
    return value ? value : 1;
}

static struct file_id id_of_stat(const struct stat *st)
{
    bool block = S_ISBLK(st->st_mode);

    return (struct file_id){
        .known = block || S_ISREG(st->st_mode),
        .device = block ? st->st_rdev : st->st_dev,
        .inode = block ? 0 : st->st_ino,
    };
}

/* The folder of a path, for the caller to free; *ret_name is behind it. */
static char *folder_of(const char *path, const char **ret_name)
{
    const char *slash = strrchr(path, '/');

    *ret_name = slash ? slash + 1 : path;
    return slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
}

/* A name in a folder, where nothing is yet. */
static struct file_id id_of_place(const char *path)
{
    struct file_id id = {.known = false};
    const char *name;
    char *folder = folder_of(path, &name);
    struct stat st;

    if (folder && stat(folder, &st) == 0) {
        id = (struct file_id){
            .known = true, .device = st.st_dev, .inode = st.st_ino};
        id.name = hash(name);
    }
    free(folder);
    return id;
}

/* Where a link to nothing points: a file made there is that one. */
static struct file_id id_of_link(const char *path)
{
    struct file_id id = {.known = false};
    char target[PATH_MAX], *joined = NULL, *at = strdup(path);

    for (int i = 0; at && i < LINKS_MAX; i++) {
        ssize_t n = readlink(at, target, sizeof(target) - 1);
        const char *name;
        char *folder;

        if (n < 0) {
            id = id_of_place(at);
            break;
        }
        target[n] = '\0';
        folder = folder_of(at, &name);
        joined = NULL;
        if (target[0] == '/')
            joined = strdup(target);
        else if (!folder || asprintf(&joined, "%s/%s", folder, target) < 0)
            joined = NULL;
        free(folder);
        free(at);
        at = joined;
    }
    free(at);
    return id;
}

struct file_id file_id_of(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? id_of_stat(&st) : id_of_link(path);
}

bool file_id_same(const struct file_id *a, const struct file_id *b)
{
    return a->known && b->known && a->device == b->device &&
           a->inode == b->inode && a->name == b->name;
}

static void note(struct outputs *o, const char *label, struct file_id id)
{
    if (!id.known || o->count == OUTPUT_FILES_MAX)
        return;
    o->files[o->count].label = label;
    o->files[o->count].id = id;
    o->count++;
}

void outputs_add_input(struct outputs *o, const char *label, const char *path)
{
    struct stat st;

    if (path && stat(path, &st) == 0)
        note(o, label, id_of_stat(&st));
}

void outputs_add_folder(struct outputs *o, const char *label, const char *path)
{
    DIR *dir = path ? opendir(path) : NULL;
    struct stat st;

    for (struct dirent *e; dir && (e = readdir(dir));)
        if (fstatat(dirfd(dir), e->d_name, &st, 0) == 0)
            note(o, label, id_of_stat(&st));
    if (dir)
        closedir(dir);
}

void outputs_add_fd(struct outputs *o, const char *label, int fd)
{
    struct stat st;

    if (fstat(fd, &st) == 0)
        note(o, label, id_of_stat(&st));
}

/* The part of text before the first of these characters names a file. */
static void add_part(struct outputs *o, const char *label, const char *text,
                     const char *ends)
{
    char *part = strndup(text, strcspn(text, ends));

    outputs_add_input(o, label, part);
    free(part);
}

/* label: the option, with its dashes. */
static void add_each(struct outputs *o, const struct options *options,
                     const char *label, const char *ends)
{
    const char *value;

    for (size_t i = 0; (value = options_get_nth(options, label + 2, i)); i++)
        add_part(o, label, value, ends);
}

static void add_image(struct outputs *o, const char *name)
{
    char err[IMAGE_ERR_MAX];
    char *dir = NULL;

    if (name && image_find(name, &dir, err, sizeof(err)) == 0)
        outputs_add_folder(o, "--image", dir);
    free(dir);
}

void outputs_add_options(struct outputs *o, const struct options *options,
                         const struct machine_spec *machine)
{
    const char *send = options_get(options, "send");
    bool input = options_has(options, "interactive") ||
                 options_has(options, "tty") || (send && !strcmp(send, "-"));

    outputs_add_input(o, "--send", send);
    outputs_add_input(o, "--env-file", options_get(options, "env-file"));
    outputs_add_input(o, "--config", options_get(options, "config"));
    outputs_add_folder(o, "--snapshot", options_get(options, "snapshot"));
    add_each(o, options, "--put", ":");
    add_each(o, options, "--base", "");
    if (input)
        outputs_add_fd(o, "--interactive", STDIN_FILENO);
    if (!machine)
        return;
    add_image(o, machine->image);
    outputs_add_input(o, "--kernel", machine->kernel);
    outputs_add_input(o, "--initrd", machine->initrd);
    for (unsigned i = 0; i < machine->disk_count; i++)
        outputs_add_input(o, "--disk", machine->disks[i].path);
}

/* True if the word is, or holds, the value of an option for output. */
static bool is_output_word(const char *word, const struct options *options)
{
    const char *end = word + strlen(word);

    for (size_t i = 0; i < options->count; i++) {
        const struct option_value *v = &options->values[i];

        for (size_t k = 0; v->value && k < ARRAY_SIZE(OUTPUT_OPTIONS); k++)
            if (!strcmp(v->spec->name, OUTPUT_OPTIONS[k]) && v->value >= word &&
                v->value <= end)
                return true;
    }
    return false;
}

void outputs_add_words(struct outputs *o, int argc, char **argv,
                       const struct options *options)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *equals = strchr(argv[i], '=');
        const char *values[] = {argv[i], equals ? equals + 1 : NULL};

        if (is_output_word(argv[i], options))
            continue;
        for (size_t k = 0; k < ARRAY_SIZE(values) && values[k]; k++) {
            add_part(o, argv[i], values[k], "");
            add_part(o, argv[i], values[k], ",");
            add_part(o, argv[i], values[k], ":");
        }
    }
}

/* A file that is there, in a folder whose files belong together. */
static const char *kind_of_folder(const char *path)
{
    const char *name, *kind = NULL;
    char *folder = folder_of(path, &name);
    int dir = -1;

    if (access(path, F_OK) == 0 && folder)
        dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0 && faccessat(dir, "manifest.sha256", F_OK, 0) == 0)
        kind = "a snapshot";
    else if (dir >= 0 && faccessat(dir, "image.json", F_OK, 0) == 0)
        kind = "an image";
    if (dir >= 0)
        close(dir);
    free(folder);
    return kind;
}

int outputs_add(struct outputs *o, const char *label, const char *path,
                struct failure *f)
{
    struct file_id id = file_id_of(path);
    const char *kind = id.known ? kind_of_folder(path) : NULL;

    for (size_t i = 0; i < o->count; i++) {
        if (!file_id_same(&id, &o->files[i].id))
            continue;
        failure_set(f, "usage", path, "name another file",
                    "option %s: %s is the same file as that of %s", label, path,
                    o->files[i].label);
        return -EINVAL;
    }
    if (kind) {
        failure_set(f, "usage", path, "name a file elsewhere",
                    "option %s: %s belongs to %s", label, path, kind);
        return -EINVAL;
    }
    note(o, label, id);
    return 0;
}

void outputs_add_place(struct outputs *o, const char *label, const char *path)
{
    note(o, label, file_id_of(path));
}
