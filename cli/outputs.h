/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that a command line names for output, looked at before the first of
 * them is made empty: none may be one that is read, nor one that is written
 * already. Told by device and inode, whatever the paths are. Character devices,
 * pipes and sockets are no files in this sense.
 */
#ifndef MICROSBX_CLI_OUTPUTS_H
#define MICROSBX_CLI_OUTPUTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/failure.h"
#include "cli/options.h"
#include "trial/machine_spec.h"

#define OUTPUT_FILES_MAX 1024u

/* A file, or the place of one that is not there yet. */
struct file_id {
    bool known;
    dev_t device;
    ino_t inode;   /* its own, or that of its folder */
    uint64_t name; /* hash of the name in that folder; 0 if it is there */
};

struct outputs {
    struct {
        const char *label; /* borrowed: "--kernel" */
        struct file_id id;
    } files[OUTPUT_FILES_MAX];
    size_t count;
};

/* Which file a path names, symbolic links followed. */
struct file_id file_id_of(const char *path);
bool file_id_same(const struct file_id *a, const struct file_id *b);

/* A file that is read. What is not there, or no more fits, is not noted. */
void outputs_add_input(struct outputs *o, const char *label, const char *path);
/* All files right in that folder: a snapshot, an image. */
void outputs_add_folder(struct outputs *o, const char *label, const char *path);
/* An open descriptor: standard input, output, errors. */
void outputs_add_fd(struct outputs *o, const char *label, int fd);

/* What `run` and `exec` read: options, and the machine as far as it is known.
 */
void outputs_add_options(struct outputs *o, const struct options *options,
                         const struct machine_spec *machine);

/*
 * Any word of a command line that is wrong may name a file to be read: all but
 * the values of those options that name outputs.
 */
void outputs_add_words(struct outputs *o, int argc, char **argv,
                       const struct options *options);

/*
 * Notes path as the output of an option. 0; or -EINVAL with *f filled: it is
 * one of the files noted before, or belongs to a snapshot or an image.
 */
int outputs_add(struct outputs *o, const char *label, const char *path,
                struct failure *f) __attribute__((warn_unused_result));

/* One that was added is removed since: what is made in its place is the same.
 */
void outputs_add_place(struct outputs *o, const char *label, const char *path);

#endif
