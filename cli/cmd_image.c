/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx image: builds, lists and describes images. Building is a script's
 * work (images/build in the source tree, or in share/microsbx): it calls
 * Debian's tools, and this verb becomes it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/io.h"
#include "base/num.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/image_rm.h"
#include "trial/image.h"

#define PATH_SIZE 4096u
#define MODULES_MAX 200 /* that are shown */
#define READ_SIZE ((size_t)1 << 16)

static int image_main(const struct verb *verb, int argc, char **argv);

static const struct option_spec IMAGE_OPTIONS[] = {
    {"output", 'o', "DIR", false,
     "build: write the image directory there, instead of into "
     "$XDG_CACHE_HOME/microsbx/images."},
    {"force", 0, NULL, false,
     "build: build even if nothing has changed since the last time."},
    {"json", 0, NULL, false, "inspect: print the image's image.json."},
    {"verify", 0, NULL, false,
     "inspect: read every part and compare it with its recorded digest."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group IMAGE_GROUP = {"Options", IMAGE_OPTIONS};

const struct verb VERB_IMAGE = {
    .name = "image",
    .synopsis = "build NAME|DIR | ls | inspect NAME|DIR | rm NAME",
    .summary = "Build, list and describe guest images",
    .description =
        "An image is a directory with a kernel, an initrd, a read-only root "
        "file system and an empty scratch disk. build makes one from a "
        "recipe: a folder with a file \"recipe\" of a few lines (from, "
        "packages, copy, run, env, user, workdir, kernel, cmdline; "
        "images/recipe.sh describes them). \"from debian\" brings the time "
        "zones that TZ names (elsewhere: packages tzdata); \"copy SRC DST "
        "OWNER\" gives a file to sandbox, root or UID[:GID]; \"kernel "
        "generic\" or \"kernel backports\" takes another of Debian's "
        "kernels. An initrd has modules for its own kernel only: inspect shows "
        "which. NAME is a recipe that comes with microsbx: base "
        "(busybox) or python (Debian's Python with numpy). Building the same "
        "recipe again does nothing unless something it uses has changed. rm "
        "removes an image from the cache.",
    .example =
        "microsbx image build python\n"
        "microsbx image build ./my-model && microsbx run --image my-model -- "
        "python3 /opt/model/evaluate.py\n",
    .groups = {&IMAGE_GROUP, NULL},
    .main = image_main,
};

static int fail(const struct verb *verb, const char *code, const char *remedy,
                const char *message)
{
    struct failure failure = {0};

    failure_set(&failure, code, "", remedy, "%s", message);
    return cli_fail(verb, &failure);
}

/* ---- build ------------------------------------------------------------- */

/* The first of these places, below `base`, that has `file`; or false. */
static bool find_below(const char *base, const char *const *places,
                       const char *file, char *ret_path, size_t size)
{
    for (; *places != NULL; places++) {
        int n = snprintf(ret_path, size, "%s%s/%s", base, *places, file);

        if (n > 0 && (size_t)n < size && access(ret_path, R_OK) == 0)
            return true;
    }
    return false;
}

/* The builder's script and the guest's agent, near our own program. */
static bool find_builder(char *ret_path, size_t size)
{
    /* In a source tree (build/, build/asan/), or installed (bin/). */
    static const char *const DATA[] = {"/..", "/../..", "/../share/microsbx",
                                       NULL};
    static const char *const AGENT[] = {"", "/../lib/microsbx", NULL};
    static const char *const HERE[] = {"", NULL};
    const char *data = getenv("MICROSBX_DATA");
    char program[PATH_SIZE];
    char agent[PATH_SIZE + 64];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    char *slash;

    if (n <= 0)
        return false;
    program[n] = '\0';
    slash = strrchr(program, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    if (getenv("MICROSBX_AGENT") == NULL &&
        find_below(program, AGENT, "agent", agent, sizeof(agent)))
        (void)setenv("MICROSBX_AGENT", agent, 1);
    if (data != NULL)
        return find_below(data, HERE, "images/build", ret_path, size);
    return find_below(program, DATA, "images/build", ret_path, size);
}

static int image_build(const struct verb *verb, const struct options *options)
{
    const char *output = options_get(options, "output");
    static char output_flag[] = "-o";
    static char force_flag[] = "--force";
    char builder[PATH_SIZE + 64];
    char *argv[6] = {NULL};
    size_t argc = 0;

    if (!find_builder(builder, sizeof(builder)))
        return fail(verb, "builder_missing",
                    "set MICROSBX_DATA to the folder that has images/build",
                    "cannot build an image: the script images/build is not "
                    "near this program");
    argv[argc++] = builder;
    if (output != NULL) {
        argv[argc++] = output_flag;
        argv[argc++] = (char *)(uintptr_t)output;
    }
    if (options_has(options, "force"))
        argv[argc++] = force_flag;
    argv[argc++] = options->positional[1];
    (void)execv(builder, argv);
    fprintf(stderr, "microsbx image: cannot start %s: %s\n", builder,
            strerror(errno));
    return EXIT_INFRA;
}

/* ---- ls ---------------------------------------------------------------- */

static int is_candidate(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void list_one(const char *cache, const char *name)
{
    char err[IMAGE_ERR_MAX];
    struct image image;
    char size[32];
    char *dir;

    if (asprintf(&dir, "%s/%s", cache, name) < 0)
        return;
    if (image_open(dir, &image, err, sizeof(err)) == 0) {
        units_format_size(image.rootfs.bytes, size, sizeof(size));
        printf("%-20s %-12s %-28s %.12s\n", name, size, image.kernel_release,
               image.recipe_sha256);
        image_fini(&image);
    } else {
        printf("%-20s unusable: %s\n", name, err);
    }
    free(dir);
}

static int image_ls(const struct verb *verb)
{
    char *cache = image_cache_dir();
    struct dirent **entries = NULL;
    int count;

    if (cache == NULL)
        return fail(verb, "no_cache", "set HOME to your home directory",
                    "cannot list images: neither XDG_CACHE_HOME nor HOME is "
                    "an absolute path");
    count = scandir(cache, &entries, is_candidate, alphasort);
    if (count < 0 && errno != ENOENT) {
        fprintf(stderr, "microsbx image: cannot list %s: %s\n", cache,
                strerror(errno));
        free(cache);
        return EXIT_INFRA;
    }
    if (count <= 0)
        fprintf(stderr,
                "no images in %s yet; microsbx image build python "
                "makes one\n",
                cache);
    else
        printf("%-20s %-12s %-28s %s\n", "NAME", "ROOT", "KERNEL", "INPUTS");
    for (int i = 0; i < count; i++) {
        list_one(cache, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    free(cache);
    return 0;
}

/* ---- inspect ----------------------------------------------------------- */

/* 0 if everything from `from` on is zero, -EBADMSG, or another errno. */
static int check_zeros(int fd, uint64_t from, char *buf)
{
    for (;;) {
        /* Where holes are not known, all of it is data, and read. */
        off_t data = lseek(fd, (off_t)from, SEEK_DATA);
        ssize_t n;

        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        n = io_pread_full(fd, buf, READ_SIZE, (uint64_t)data);
        if (n <= 0)
            return (int)n;
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != 0)
                return -EBADMSG;
        from = (uint64_t)data + (uint64_t)n;
    }
}

/* Digest of the first `limit` bytes; what follows must be zeros. */
static int digest_part(int fd, uint64_t limit, char ret_hex[DIGEST_HEX_SIZE])
{
    struct digest *digest = digest_new();
    char *buf = malloc(READ_SIZE);
    uint64_t done = 0;
    int ret = digest == NULL || buf == NULL ? -ENOMEM : 0;

    while (ret == 0 && done < limit) {
        size_t want = (size_t)num_min(READ_SIZE, limit - done);
        ssize_t n = io_pread_full(fd, buf, want, done);

        if (n <= 0) {
            ret = n < 0 ? (int)n : -EBADMSG;
            break;
        }
        digest_update(digest, buf, (size_t)n);
        done += (uint64_t)n;
    }
    if (ret == 0)
        ret = check_zeros(fd, limit, buf);
    if (ret == 0)
        digest_hex(digest, ret_hex);
    free(buf);
    digest_free(digest);
    return ret;
}

static bool verify_part(const char *which, const struct image_part *part,
                        uint64_t limit)
{
    int fd = open(part->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char hex[DIGEST_HEX_SIZE] = "";
    int ret = fd < 0 ? -errno : digest_part(fd, limit, hex);
    bool good = ret == 0 && strcmp(hex, part->sha256) == 0;

    io_close(&fd);
    if (ret < 0 && ret != -EBADMSG)
        fprintf(stderr, "microsbx image: cannot read the %s, %s: %s\n", which,
                part->path, strerror(-ret));
    else if (!good)
        fprintf(stderr,
                "microsbx image: the %s, %s, is not what image.json "
                "records: build the image anew\n",
                which, part->path);
    return good;
}

static bool verify_parts(const struct image *image)
{
    bool good = verify_part("kernel", &image->kernel, image->kernel.bytes);

    good &= verify_part("initrd", &image->initrd, image->initrd.bytes);
    good &=
        verify_part("root file system", &image->rootfs, image->rootfs.bytes);
    good &= verify_part("scratch disk", &image->scratch, image->scratch_data);
    if (good)
        fprintf(stderr, "every part is as recorded\n");
    return good;
}

static void print_part(const char *which, const struct image_part *part)
{
    char size[32];

    units_format_size(part->bytes, size, sizeof(size));
    printf("  %-10s %10s  sha256 %.16s  %s\n", which, size, part->sha256,
           part->path);
}

/* Those of its kernel that the initrd has, by their names; also whether there
   is a list at all depends on who built the image. */
static void print_modules(const struct image *image)
{
    char path[PATH_SIZE + 16];
    char name[128], shown[160];
    FILE *in;

    (void)snprintf(path, sizeof(path), "%s/modules", image->dir);
    in = fopen(path, "re");
    if (in == NULL)
        return;
    printf("  modules   ");
    for (int i = 0; i < MODULES_MAX && fgets(name, sizeof(name), in); i++) {
        text_escape(name, strcspn(name, "\n"), shown, sizeof(shown));
        printf(" %s", shown);
    }
    printf("\n");
    (void)fclose(in);
}

static void print_image(const struct image *image)
{
    printf("image %s\n", image->name);
    print_part("kernel", &image->kernel);
    print_part("initrd", &image->initrd);
    print_part("rootfs", &image->rootfs);
    print_part("scratch", &image->scratch);
    printf("  release    %s\n", image->kernel_release);
    print_modules(image);
    printf("  cmdline    %s\n", image->cmdline);
    printf("  user       %s\n", image->user ? image->user : "(uid 1000)");
    printf("  workdir    %s\n", image->workdir ? image->workdir : "(home)");
    for (size_t i = 0; i < image->env_count; i++)
        printf("  env        %s\n", image->env[i]);
    printf("  inputs     %s\n", image->recipe_sha256);
    if (image->packages_file != NULL)
        printf("  packages   %s/%s\n", image->dir, image->packages_file);
}

static int print_json(const struct image *image)
{
    char path[PATH_SIZE + 16];
    char buf[4096];
    size_t n;
    FILE *in;

    (void)snprintf(path, sizeof(path), "%s/image.json", image->dir);
    in = fopen(path, "re");
    if (in == NULL)
        return EXIT_INFRA;
    while ((n = fread(buf, 1, sizeof(buf), in)) > 0)
        (void)fwrite(buf, 1, n, stdout);
    (void)fclose(in);
    return 0;
}

static int image_inspect(const struct verb *verb, const struct options *options)
{
    char err[IMAGE_ERR_MAX];
    struct image image;
    char *dir = NULL;
    int status = 0;
    int ret = image_find(options->positional[1], &dir, err, sizeof(err));

    if (ret == 0)
        ret = image_open(dir, &image, err, sizeof(err));
    free(dir);
    if (ret != 0)
        return fail(verb, "image", NULL, err);
    if (options_has(options, "json"))
        status = print_json(&image);
    else
        print_image(&image);
    if (status == 0 && options_has(options, "verify") && !verify_parts(&image))
        status = EXIT_INFRA;
    image_fini(&image);
    return status;
}

/* ---- the verb ---------------------------------------------------------- */

static const struct action {
    const char *name;
    int operands;
    const char *options[4]; /* that it knows */
} ACTIONS[] = {
    {"build", 1, {"output", "force", NULL}},
    {"ls", 0, {NULL}},
    {"inspect", 1, {"json", "verify", NULL}},
    {"rm", 1, {NULL}},
};

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(ACTIONS); i++)
        if (strcmp(ACTIONS[i].name, name) == 0)
            return &ACTIONS[i];
    return NULL;
}

/* The first option given that the action does not know, or NULL. */
static const char *stray_option(const struct action *action,
                                const struct options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        const char *name = options->values[i].spec->name;
        bool known = false;

        for (const char *const *o = action->options; *o != NULL; o++)
            known = known || strcmp(*o, name) == 0;
        if (!known)
            return name;
    }
    return NULL;
}

/* The action asked for, or NULL after saying what is wrong. */
static const struct action *check_usage(const struct verb *verb,
                                        const struct options *options)
{
    const char *word =
        options->positional_count > 0 ? options->positional[0] : "";
    const struct action *action = find_action(word);
    const char *wrong = NULL;
    const char *stray;

    if (action == NULL)
        wrong = "what is to be done with images? One of: build NAME|DIR, ls, "
                "inspect NAME|DIR, rm NAME";
    else if (options->positional_count != 1 + action->operands)
        wrong = action->operands == 0
                    ? "ls takes no name"
                    : "build, inspect and rm take exactly one name";
    if (wrong != NULL) {
        (void)fail(verb, "usage", "microsbx image --help shows examples",
                   wrong);
        return NULL;
    }
    stray = stray_option(action, options);
    if (stray != NULL) {
        fprintf(stderr, "microsbx image: %s does not take --%s\n", action->name,
                stray);
        return NULL;
    }
    return action;
}

static int image_main(const struct verb *verb, int argc, char **argv)
{
    const struct action *action;
    struct failure failure = {0};
    struct options options;
    int status = cli_parse(verb, argc, argv, &options);

    if (status >= 0)
        return status;
    action = check_usage(verb, &options);
    if (action == NULL)
        return EXIT_INFRA;
    if (strcmp(action->name, "build") == 0)
        return image_build(verb, &options);
    if (strcmp(action->name, "rm") == 0) {
        if (image_rm(options.positional[1], &failure) != 0)
            return cli_fail(verb, &failure);
        return puts(options.positional[1]) < 0 || fflush(stdout) != 0
                   ? EXIT_INFRA
                   : 0;
    }
    status = strcmp(action->name, "ls") == 0 ? image_ls(verb)
                                             : image_inspect(verb, &options);
    if (fflush(stdout) != 0 && status == 0) {
        fprintf(stderr, "microsbx image: cannot write the answer: %s\n",
                strerror(errno));
        status = EXIT_INFRA;
    }
    return status;
}
