/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots for unit tests; see the header. */
#include "tests/snapshot_rig.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cow_format.h"
#include "base/io.h"
#include "trial/snapshot_internal.h"

#define STATE_BYTES 3000u

static void fill(uint8_t *buf, size_t len, uint32_t value)
{
    uint32_t x = value * 2654435761u;

    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        buf[i] = value == 0 ? 0 : (uint8_t)(x >> 24);
    }
}

static void put(int fd, uint64_t offset, size_t len, uint32_t value)
{
    uint8_t *buf = malloc(len);

    ck_assert_ptr_nonnull(buf);
    fill(buf, len, value);
    ck_assert_int_eq(io_pwrite_full(fd, buf, len, offset), 0);
    free(buf);
}

static int new_file(const struct snapshot_rig *rig, const char *name,
                    uint64_t bytes)
{
    int fd = open(snapshot_rig_path(rig, name),
                  O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

static struct cow_format scratch_format(void)
{
    struct cow_format format;

    ck_assert_int_eq(cow_format_init(&format, RIG_SCRATCH_BYTES), 0);
    return format;
}

static void make_cow(struct snapshot_rig *rig)
{
    struct cow_format format = scratch_format();
    uint8_t page[COW_FORMAT_HEADER_SIZE];

    rig->cow_fd = new_file(rig, "cow", format.file_len);
    cow_format_header(&format, page);
    ck_assert_int_eq(io_pwrite_full(rig->cow_fd, page, sizeof(page), 0), 0);
}

void snapshot_rig_open(struct snapshot_rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    /* In memory, where nothing waits for a disk. */
    snprintf(rig->dir, sizeof(rig->dir), "%s/microsbx-rig-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(rig->dir));
    ck_assert_int_eq(
        setenv("XDG_CACHE_HOME", snapshot_rig_path(rig, "cache"), 1), 0);
    ck_assert_int_eq(mkdir(snapshot_rig_path(rig, "s"), 0700), 0);
    rig->memory_fd = new_file(rig, "guest", RIG_MEMORY);
    rig->root_fd = new_file(rig, "root", RIG_ROOT_BYTES);
    put(rig->root_fd, 0, RIG_ROOT_BYTES, 77);
    rig->scratch_fd = new_file(rig, "scratch", RIG_SCRATCH_BYTES);
    put(rig->scratch_fd, 0, RIG_SCRATCH_DATA, 78);
    make_cow(rig);
    rig->state_seed = 5;
    for (uint32_t i = 1; i < 20; i++)
        snapshot_rig_page(rig, i * 97, i);
    snapshot_rig_cluster(rig, 0, 1);
    snapshot_rig_cluster(rig, 3, 2);
    snapshot_rig_cluster(rig, 144, 3); /* the last, which is short */
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void snapshot_rig_close(struct snapshot_rig *rig)
{
    io_close(&rig->memory_fd);
    io_close(&rig->cow_fd);
    io_close(&rig->root_fd);
    io_close(&rig->scratch_fd);
    ck_assert_int_eq(nftw(rig->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *snapshot_rig_path(const struct snapshot_rig *rig, const char *name)
{
    static char paths[4][256];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(paths[next], sizeof(paths[next]), "%s/%s", rig->dir, name);
    return paths[next];
}

void snapshot_rig_page(struct snapshot_rig *rig, uint64_t page, uint32_t value)
{
    put(rig->memory_fd, page * SNAPSHOT_PAGE, SNAPSHOT_PAGE, value);
}

static void set_bit(struct snapshot_rig *rig, uint64_t cluster, bool present)
{
    uint64_t at = COW_FORMAT_HEADER_SIZE + cluster / 8;
    uint8_t byte, mask = (uint8_t)(1u << (cluster % 8));

    ck_assert_int_eq(io_pread_full(rig->cow_fd, &byte, 1, at), 1);
    byte = present ? byte | mask : byte & (uint8_t)~mask;
    ck_assert_int_eq(io_pwrite_full(rig->cow_fd, &byte, 1, at), 0);
}

static void put_cluster(struct snapshot_rig *rig, uint64_t cluster,
                        uint32_t value)
{
    struct cow_format format = scratch_format();
    uint64_t at = cluster * COW_FORMAT_CLUSTER;
    uint64_t len = format.disk_size - at;

    put(rig->cow_fd, format.data_start + at,
        len < COW_FORMAT_CLUSTER ? (size_t)len : COW_FORMAT_CLUSTER, value);
}

void snapshot_rig_cluster(struct snapshot_rig *rig, uint64_t cluster,
                          uint32_t value)
{
    put_cluster(rig, cluster, value);
    set_bit(rig, cluster, true);
}

void snapshot_rig_drop_cluster(struct snapshot_rig *rig, uint64_t cluster)
{
    put_cluster(rig, cluster, 0);
    set_bit(rig, cluster, false);
}

void snapshot_rig_manifest(struct snapshot_manifest *m)
{
    static const char *const needed[] = {"KVM_CAP_IRQCHIP", "KVM_CAP_XSAVE",
                                         NULL};
    static const char *const env[] = {"LANG=C.UTF-8", "PATH=/usr/bin:/bin",
                                      NULL};
    static const char *const warmup[] = {"python3", "-c", "import numpy", NULL};

    snapshot_manifest_init(m);
    m->memory_bytes = RIG_MEMORY;
    m->cpus = 1;
    m->platform = VM_PLATFORM_DEVICE_TREE;
    strcpy(m->cmdline, "console=ttyS0");
    m->hide_rdrand = true;
    m->vsock = true;
    m->guest_cid = 3;
    strcpy(m->cpu_vendor, "AuthenticAMD");
    strcpy(m->cpu_model, "AMD EPYC");
    for (uint32_t i = 0; i < SNAPSHOT_CPUID_WORDS; i++)
        m->cpuid[i] = 0x00f00001u << (i % 8);
    ck_assert_int_eq(snapshot_manifest_set_list(&m->kvm_needed, needed), 0);
    memset(m->kernel_sha256, '1', 64);
    ck_assert_int_eq(snapshot_manifest_set(&m->kernel_release, "6.1.0"), 0);
    m->has_image = true;
    ck_assert_int_eq(snapshot_manifest_set(&m->image_name, "base"), 0);
    memset(m->image_sha256, '2', 64);
    ck_assert_int_eq(snapshot_manifest_set(&m->user, "sandbox"), 0);
    ck_assert_int_eq(snapshot_manifest_set_list(&m->env, env), 0);
    m->agent = true;
    m->has_warmup = true;
    ck_assert_int_eq(snapshot_manifest_set_list(&m->warmup, warmup), 0);
    m->pinned = true;
    m->window_ms = 1234;
    m->memory_pages = 19;
    m->memory_used = 19 * SNAPSHOT_PAGE;
}

/* What the monitor does at SAVE: the machine into the writer's files. */
static void save(struct snapshot_rig *rig, struct snapshot_writer *w,
                 int cow_fd)
{
    uint8_t state[STATE_BYTES];

    fill(state, sizeof(state), rig->state_seed);
    if (io_pwrite_full(snapshot_writer_state_fd(w), state, sizeof(state), 0) ||
        ftruncate(snapshot_writer_memory_fd(w), (off_t)RIG_MEMORY) != 0 ||
        ftruncate(cow_fd, (off_t)scratch_format().file_len) != 0)
        return; /* no room: finish will say so */
    (void)!sparse_copy(rig->memory_fd, snapshot_writer_memory_fd(w), RIG_MEMORY,
                       NULL);
    (void)!sparse_copy(rig->cow_fd, cow_fd, scratch_format().file_len, NULL);
}

static int write_all(struct snapshot_rig *rig, struct snapshot_writer *w,
                     struct snapshot_manifest *m, struct failure *f)
{
    char id[DIGEST_HEX_SIZE];
    int cow_fd = -1;
    int ret =
        snapshot_writer_add_base(w, "root", rig->root_fd, 0, &m->disks[0], f);

    m->disks[0].mode = VM_DISK_RO;
    m->disks[1].mode = VM_DISK_COW;
    m->disks[1].limit = 1 << 30;
    m->disk_count = 2;
    if (ret == 0)
        ret = snapshot_writer_add_base(w, "scratch", rig->scratch_fd,
                                       RIG_SCRATCH_DATA, &m->disks[1], f);
    if (ret == 0)
        ret = snapshot_writer_add_cow(w, "scratch", &cow_fd, f);
    if (ret != 0)
        return ret;
    save(rig, w, cow_fd);
    return snapshot_writer_finish(w, m, id, f);
}

int snapshot_rig_try(struct snapshot_rig *rig, const char *name,
                     const struct snapshot_writer_options *options,
                     struct failure *f)
{
    static const struct snapshot_writer_options none = {.parent = NULL};
    struct snapshot_writer *w = NULL;
    struct snapshot_manifest m;
    int ret = snapshot_writer_begin(snapshot_rig_path(rig, name),
                                    options ? options : &none, &w, f);

    if (ret != 0)
        return ret;
    snapshot_rig_manifest(&m);
    ret = write_all(rig, w, &m, f);
    snapshot_manifest_fini(&m);
    snapshot_writer_free(w);
    return ret;
}

void snapshot_rig_make(struct snapshot_rig *rig, const char *name,
                       const struct snapshot_writer_options *options)
{
    struct failure f = {.code = ""};
    int ret = snapshot_rig_try(rig, name, options, &f);

    ck_assert_msg(ret == 0, "%d %s: %s", ret, f.code, f.message);
}

int snapshot_rig_try_open(const struct snapshot_rig *rig, const char *name,
                          enum snapshot_check check,
                          struct snapshot **ret_snapshot, struct failure *f)
{
    const struct snapshot_open_options options = {.check = check};

    return snapshot_open(snapshot_rig_path(rig, name), &options, ret_snapshot,
                         f);
}

struct snapshot *snapshot_rig_must_open(const struct snapshot_rig *rig,
                                        const char *name,
                                        enum snapshot_check check)
{
    struct snapshot *snapshot = NULL;
    struct failure f = {.code = ""};
    int ret = snapshot_rig_try_open(rig, name, check, &snapshot, &f);

    ck_assert_msg(ret == 0, "%d %s: %s", ret, f.code, f.message);
    return snapshot;
}

uint8_t *snapshot_rig_read(const char *path, size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    uint8_t *bytes;

    ck_assert_msg(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", path,
                  strerror(errno));
    bytes = malloc((size_t)st.st_size + 1);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_int_eq(io_pread_full(fd, bytes, (size_t)st.st_size, 0),
                     st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return bytes;
}

void snapshot_rig_write(const char *path, const void *bytes, size_t len)
{
    int fd;

    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(io_write_full(fd, bytes, len), 0);
    close(fd);
}

void snapshot_rig_poke(const char *path, uint64_t offset, const void *bytes,
                       size_t len)
{
    int fd;

    ck_assert_int_eq(chmod(path, 0644), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(io_pwrite_full(fd, bytes, len, offset), 0);
    close(fd);
}

/* ---- all digests anew --------------------------------------------------- */

static int put_leaf(void *ctx, uint64_t chunk, const uint8_t leaf[DIGEST_SIZE])
{
    uint8_t *leaves = ctx;

    memcpy(leaves + chunk * DIGEST_SIZE, leaf, DIGEST_SIZE);
    return 0;
}

/* `leaves` and the root, of a snapshot that holds all bases. */
static void reseal_leaves(const char *dir, struct snapshot_manifest *m)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(m, regions);
    uint64_t len = snapshot_leaf_count(m) * DIGEST_SIZE;
    uint8_t *leaves = malloc(len), root[DIGEST_SIZE];
    struct merkle tree;

    for (unsigned i = 0; i < count; i++) {
        struct snapshot_path path =
            snapshot_path(dir, snapshot_region_name(m, &regions[i]).text);
        const struct snapshot_walk walk = {
            .fd = open(path.text, O_RDONLY | O_CLOEXEC),
            .bytes = regions[i].bytes,
            .leaf = put_leaf,
            .ctx = leaves + regions[i].first * DIGEST_SIZE,
        };

        ck_assert_int_eq(snapshot_walk(&walk), 0);
        close(walk.fd);
    }
    merkle_init(&tree);
    for (uint64_t i = 0; i < len; i += DIGEST_SIZE)
        merkle_add(&tree, leaves + i);
    merkle_root(&tree, root);
    digest_to_hex(root, m->root);
    snapshot_rig_write(snapshot_path(dir, "leaves").text, leaves, len);
    free(leaves);
}

static void reseal_file(const char *dir, struct snapshot_file *file)
{
    int fd = open(snapshot_path(dir, file->name).text, O_RDONLY | O_CLOEXEC);
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    file->bytes = (uint64_t)st.st_size;
    if (file->tree)
        ck_assert_int_eq(snapshot_tree(fd, file->bytes, NULL, file->digest), 0);
    else
        ck_assert_int_eq(digest_file(fd, file->digest), 0);
    close(fd);
}

void snapshot_rig_reseal(const char *dir)
{
    char err[SNAPSHOT_ERR_MAX], id[SNAPSHOT_ID_LEN + 1];
    struct snapshot_manifest m;
    uint8_t sum[DIGEST_SIZE];
    size_t len = 0;
    char *text = (char *)snapshot_rig_read(
        snapshot_path(dir, "manifest.json").text, &len);

    ck_assert_int_eq(snapshot_manifest_parse(text, len, &m, err), 0);
    free(text);
    if (!m.has_parent)
        reseal_leaves(dir, &m);
    for (uint32_t i = 0; i < m.file_count; i++)
        reseal_file(dir, &m.files[i]);
    ck_assert_msg(snapshot_manifest_encode(&m, &text, &len, err) == 0, "%s",
                  err);
    digest_sum(text, len, sum);
    digest_to_hex(sum, id);
    strcat(id, "\n");
    snapshot_rig_write(snapshot_path(dir, "manifest.json").text, text, len);
    snapshot_rig_write(snapshot_path(dir, "manifest.sha256").text, id,
                       SNAPSHOT_ID_LEN);
    free(text);
    snapshot_manifest_fini(&m);
}

/* ------------------------------------------------------------------------- */

bool snapshot_rig_same(int a, int b)
{
    enum { CHUNK = 1 << 20 };
    uint8_t *p = malloc(CHUNK), *q = malloc(CHUNK);
    uint64_t at = 0;
    bool same = true;
    ssize_t n = 1;

    ck_assert(p && q);
    while (same && n > 0) {
        n = io_pread_full(a, p, CHUNK, at);
        ck_assert_int_ge(n, 0);
        same =
            io_pread_full(b, q, CHUNK, at) == n && memcmp(p, q, (size_t)n) == 0;
        at += CHUNK;
    }
    free(p);
    free(q);
    return same;
}

unsigned snapshot_rig_entries(const char *dir)
{
    DIR *d = opendir(dir);
    unsigned count = 0;

    ck_assert_ptr_nonnull(d);
    while (readdir(d))
        count++;
    closedir(d);
    return count - 2;
}
