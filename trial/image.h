/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image directories: what a virtual machine is started from.
 *
 * An image is a directory, published by one rename and never changed after:
 *
 *   image.json    this file's business: what the parts are
 *   kernel        bzImage or ELF vmlinux
 *   initrd        cpio with the agent as /init and the kernel's modules
 *   rootfs.erofs  root file system, opened read-only, first disk
 *   scratch.ext4  base of a copy-on-write overlay, second disk: one hole, on
 *                 which the guest's agent makes an ext4 of the disk limit's
 *                 size (before that was so: an empty ext4)
 *   packages      one line per Debian package inside (informative)
 *   modules       one line per module of the kernel in the initrd (informative)
 *
 * image.json, format "microsbx.image/1" (* may be left out):
 *
 *   { "schema": "microsbx.image/1", "name": "python",
 *     "kernel":  {"file", "sha256", "bytes", "release"},
 *     "initrd":  {"file", "sha256", "bytes"},
 *     "rootfs":  {"file", "sha256", "bytes", "type": "erofs"},
 *     "scratch": {"file", "sha256", "bytes", "type": "ext4",
 *                 "data"},
 *     "cmdline": "console=ttyS0 ...",
 *     "recipe":  {"sha256"},
 *     "packages"*: {"file", "sha256"},
 *     "user"*: "sandbox", "workdir"*: "/home/sandbox",
 *     "env"*: {"NAME": "value", ...} }
 *
 * The scratch disk is sparse: beyond its first "data" bytes it holds zeros
 * only, and its digest covers only those first bytes.
 *
 * The reader is strict: an unknown or repeated key, a wrong type, a file name
 * with a slash or a missing part is refused with a sentence for the user. It
 * checks that each part is there as a regular file of the recorded size; it
 * does not compute digests (`microsbx image inspect --verify` does).
 */
#ifndef MICROSBX_TRIAL_IMAGE_H
#define MICROSBX_TRIAL_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_SCHEMA "microsbx.image/1"
#define IMAGE_JSON_MAX (256u * 1024u) /* bytes of image.json */
#define IMAGE_NAME_MAX 64u            /* an image's name, without the NUL */
#define IMAGE_FILE_MAX 255u           /* a part's file name */
#define IMAGE_CMDLINE_MAX 1024u       /* kernel arguments */
#define IMAGE_VALUE_MAX 4096u         /* any other string */
#define IMAGE_ENV_MAX 64u             /* environment variables */
#define IMAGE_ERR_MAX 1024u           /* room that no message exceeds */

/* One file of an image. */
struct image_part {
    char *path;      /* absolute after image_open; the bare name after parse */
    char sha256[65]; /* lower-case hex as recorded, not verified */
    uint64_t bytes;  /* as recorded; image_open has compared it */
};

#define IMAGE_SCRATCH_ID "scratch" /* of the second disk */

/* All strings are owned by the struct; image_fini frees them. */
struct image {
    char *dir; /* absolute; NULL after image_parse */
    char *name;
    struct image_part kernel;
    struct image_part initrd;
    struct image_part rootfs;
    struct image_part scratch;
    char *kernel_release;  /* as uname -r prints it in the guest */
    char *rootfs_type;     /* "erofs" */
    char *scratch_type;    /* "ext4" */
    uint64_t scratch_data; /* bytes that the digest covers; zeros follow */
    char *cmdline;         /* default kernel arguments, never NULL */
    char recipe_sha256[65];
    char *packages_file; /* bare file name, NULL if there is none */
    char packages_sha256[65];
    char *user;    /* default user, NULL if not given (then: uid 1000) */
    char *workdir; /* default working directory, NULL if not given */
    char **env;    /* NULL-terminated list of NAME=value, never NULL */
    size_t env_count;
};

/*
 * Finds the directory of an image. With a slash in it, or ".", the argument
 * is a directory; else it is a name below
 * ${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/images, and if there is none of
 * that name, a directory below the current one that holds image.json.
 * On success *ret_dir is an absolute path, which the caller frees.
 * Returns 0, or a negative errno with a sentence in err (what was attempted,
 * on which object, why it failed, what to do; one line, no newline, safe to
 * print).
 */
int image_find(const char *name_or_dir, char **ret_dir, char *err,
               size_t err_size) __attribute__((warn_unused_result));

/*
 * Reads DIR/image.json and looks at each part. On success the caller owns
 * *ret_image and releases it with image_fini; on failure it is untouched.
 * Returns 0, or a negative errno (-ENOENT, -EACCES, -EBADMSG for a malformed
 * file, ...) with a sentence in err, as above.
 */
int image_open(const char *dir, struct image *ret_image, char *err,
               size_t err_size) __attribute__((warn_unused_result));

/*
 * The parser alone: the bytes of an image.json, which need no NUL and may be
 * anything. Touches no file. Same results as image_open, with bare file names
 * in the parts' paths and dir NULL.
 */
int image_parse(const char *text, size_t len, struct image *ret_image,
                char *err, size_t err_size) __attribute__((warn_unused_result));

/*
 * ${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/images as a string the caller
 * frees; NULL if neither variable is an absolute path or memory is short.
 */
char *image_cache_dir(void);

/* Releases what an image owns and zeroes it. A zeroed struct is fine. */
void image_fini(struct image *image);

#endif
