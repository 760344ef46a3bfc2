/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory as a whole: saved and digested as the guest sees it, from zeros and
 * from a file, without touching what nobody touched. (Rolling back needs KVM:
 * tests/vm/vm_snapshot.c.)
 */
#include "vmm/memory_image.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/io.h"
#include "base/num.h"
#include "vmm/x86/map.h"

#define PAGE 4096u
#define SIZE (64 * MIB)

static struct memory memory;

static int new_file(void)
{
    int fd = memfd_create("file", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

static uint8_t *at(uint64_t linear)
{
    return memory.guest.regions[0].host + linear;
}

static uint64_t blocks_of(int fd)
{
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Pages of the first region that have a mapping or a page in the cache. */
static unsigned resident(void)
{
    size_t count = memory.guest.regions[0].size / PAGE;
    unsigned char *vec = malloc(count);
    unsigned sum = 0;

    ck_assert_int_eq(mincore(memory.guest.regions[0].host,
                             memory.guest.regions[0].size, vec),
                     0);
    for (size_t i = 0; i < count; i++)
        sum += vec[i] & 1;
    free(vec);
    return sum;
}

static bool has_swap(void)
{
    struct sysinfo info;

    return sysinfo(&info) != 0 || info.totalswap > 0;
}

/* The file has exactly what the memory has. */
static void check_same(int fd)
{
    static uint8_t page[PAGE];

    for (uint64_t i = 0; i < SIZE; i += PAGE) {
        ck_assert_int_eq(io_pread_full(fd, page, PAGE, i), PAGE);
        ck_assert_msg(memcmp(page, at(i), PAGE) == 0, "page at %lu",
                      (unsigned long)i);
    }
}

static void check_leaves(void)
{
    int fd = new_file();
    struct stat st;

    ck_assert_int_eq(memory_image_digest(&memory, fd), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, SIZE / MONITOR_CHUNK * DIGEST_SIZE);
    for (uint64_t i = 0; i < SIZE / MONITOR_CHUNK; i++) {
        uint8_t leaf[DIGEST_SIZE], sum[DIGEST_SIZE];

        ck_assert_int_eq(io_pread_full(fd, leaf, DIGEST_SIZE, i * DIGEST_SIZE),
                         DIGEST_SIZE);
        digest_sum(at(i * MONITOR_CHUNK), MONITOR_CHUNK, sum);
        ck_assert_msg(memcmp(leaf, sum, DIGEST_SIZE) == 0, "leaf %lu",
                      (unsigned long)i);
    }
    close(fd);
}

/* A few pages here and there: at both ends, a run, one with a last byte. */
static void scribble(void)
{
    *at(0) = 1;
    *at(SIZE - 1) = 2;
    memset(at(5 * MIB), 3, 3 * PAGE);
    *at(MONITOR_CHUNK * 9 - 1) = 4;
    *at(20 * MIB) = 0; /* touched, but zero */
    *at(21 * MIB + PAGE - 1) = 5;
}
#define SCRIBBLED 7u

START_TEST(zeros_are_holes)
{
    uint64_t pages = 0;
    int fd = new_file();
    unsigned before;

    ck_assert_int_eq(memory_init(&memory, SIZE, -1), 0);
    /* Small pages, so that untouched ones can be told apart. */
    (void)madvise(at(0), SIZE, MADV_NOHUGEPAGE);
    scribble();
    before = resident();
    check_leaves();
    ck_assert_int_eq(memory_image_save(&memory, fd, &pages), 0);
    ck_assert_uint_eq(pages, SCRIBBLED);
    ck_assert_uint_eq(blocks_of(fd), SCRIBBLED * PAGE);
    if (!has_swap()) /* (check_leaves touches all, afterwards) */
        ck_assert_uint_ge(resident(), before);
    check_same(fd);
    close(fd);
    memory_fini(&memory);
}
END_TEST

START_TEST(nothing_is_touched)
{
    uint64_t pages = 0;
    int image = new_file(), leaves = new_file();
    unsigned before;

    ck_assert_int_eq(memory_init(&memory, SIZE, -1), 0);
    (void)madvise(at(0), SIZE, MADV_NOHUGEPAGE);
    scribble();
    before = resident();
    ck_assert_int_eq(memory_image_save(&memory, image, &pages), 0);
    ck_assert_int_eq(memory_image_digest(&memory, leaves), 0);
    if (!has_swap())
        ck_assert_uint_eq(resident(), before);
    close(image);
    close(leaves);
    memory_fini(&memory);
}
END_TEST

/* Private pages over a file's data and holes: the guest's are what counts. */
START_TEST(private_pages_count)
{
    uint64_t pages = 0;
    int base = new_file(), image = new_file();
    char bytes[4];

    ck_assert_int_eq(ftruncate(base, (off_t)SIZE), 0);
    ck_assert_int_eq(io_pwrite_full(base, "base", 4, 30 * MIB), 0);
    ck_assert_int_eq(io_pwrite_full(base, "base", 4, 31 * MIB), 0);
    ck_assert_int_eq(io_pwrite_full(base, "base", 4, 32 * MIB), 0);
    ck_assert_int_eq(memory_init(&memory, SIZE, base), 0);
    scribble();
    memcpy(at(31 * MIB), "mine", 4);
    memset(at(32 * MIB), 0, 4); /* zero again */
    ck_assert_int_eq(memory_image_save(&memory, image, &pages), 0);
    ck_assert_uint_eq(pages, SCRIBBLED + 2);
    ck_assert_uint_eq(blocks_of(image), (SCRIBBLED + 2) * PAGE);
    /* Nothing of it went into the file beneath. */
    ck_assert_int_eq(io_pread_full(base, bytes, 4, 31 * MIB), 4);
    ck_assert_mem_eq(bytes, "base", 4);
    ck_assert_int_eq(io_pread_full(base, bytes, 4, 0), 4);
    ck_assert_mem_eq(bytes, "\0\0\0\0", 4);
    check_leaves();
    check_same(image);
    close(base);
    close(image);
    memory_fini(&memory);
}
END_TEST

START_TEST(untouched_file_is_not_read)
{
    uint64_t pages = 0;
    int base = new_file(), image = new_file(), leaves = new_file();

    ck_assert_int_eq(ftruncate(base, (off_t)SIZE), 0);
    ck_assert_int_eq(io_pwrite_full(base, "base", 4, 30 * MIB), 0);
    ck_assert_int_eq(memory_init(&memory, SIZE, base), 0);
    ck_assert_int_eq(memory_image_save(&memory, image, &pages), 0);
    ck_assert_uint_eq(pages, 1);
    ck_assert_int_eq(memory_image_digest(&memory, leaves), 0);
    /* A page of a memory file that is looked at exists. */
    if (!has_swap())
        ck_assert_uint_eq(blocks_of(base), PAGE);
    close(base);
    close(image);
    close(leaves);
    memory_fini(&memory);
}
END_TEST

/* RAM above the hole follows that below it without a gap. */
START_TEST(the_hole_is_left_out)
{
    const uint64_t size = MAP_RAM_HOLE_START + 2 * MIB;
    uint64_t pages = 0;
    int image = new_file(), leaves = new_file();
    struct stat st;
    char byte;

    if (has_swap()) { /* all 3 GiB would be read */
        close(image);
        close(leaves);
        return;
    }
    ck_assert_int_eq(memory_init(&memory, size, -1), 0);
    ck_assert_int_eq(
        guest_mem_write(&memory.guest, MAP_RAM_HOLE_END + 5, "h", 1), 0);
    ck_assert_int_eq(memory_image_save(&memory, image, &pages), 0);
    ck_assert_uint_ge(pages, 1);
    ck_assert_int_eq(fstat(image, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, size);
    ck_assert_int_eq(io_pread_full(image, &byte, 1, MAP_RAM_HOLE_START + 5), 1);
    ck_assert_int_eq(byte, 'h');
    memory_fini(&memory);
    /* And back. */
    ck_assert_int_eq(memory_init(&memory, size, image), 0);
    ck_assert_int_eq(
        guest_mem_read(&memory.guest, MAP_RAM_HOLE_END + 5, &byte, 1), 0);
    ck_assert_int_eq(byte, 'h');
    memory_fini(&memory);
    close(image);
    close(leaves);
}
END_TEST

START_TEST(files_must_fit)
{
    int fd = new_file(), pipe_fds[2];
    uint64_t pages;

    ck_assert_int_eq(pipe(pipe_fds), 0);
    ck_assert_int_eq(memory_init(&memory, SIZE, pipe_fds[0]), -EBADMSG);
    ck_assert_int_eq(memory_init(&memory, SIZE, fd), -EBADMSG);
    ck_assert_int_eq(ftruncate(fd, (off_t)(SIZE + 1)), 0);
    ck_assert_int_eq(memory_init(&memory, SIZE, fd), -EBADMSG);
    memory_fini(&memory); /* nothing was left */
    ck_assert_int_eq(memory_init(&memory, SIZE, -1), 0);
    ck_assert_int_eq(memory_image_save(&memory, fd, &pages), -EINVAL);
    ck_assert_int_eq(memory_image_digest(&memory, fd), -EINVAL);
    ck_assert_int_eq(memory_image_save(&memory, pipe_fds[1], &pages), -EINVAL);
    memory_fini(&memory);
    close(fd);
}
END_TEST

START_TEST(no_room_is_told)
{
    const struct rlimit little = {.rlim_cur = 30 * MIB, .rlim_max = 30 * MIB};
    uint64_t pages;
    int fd = new_file();

    ck_assert_int_eq(memory_init(&memory, SIZE, -1), 0);
    scribble();
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &little), 0);
    ck_assert_int_eq(memory_image_save(&memory, fd, &pages), -EFBIG);
    memory_fini(&memory);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory_image");
    TCase *tc = tcase_create("memory_image");
    SRunner *sr;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, zeros_are_holes);
    tcase_add_test(tc, nothing_is_touched);
    tcase_add_test(tc, private_pages_count);
    tcase_add_test(tc, untouched_file_is_not_read);
    tcase_add_test(tc, the_hole_is_left_out);
    tcase_add_test(tc, files_must_fit);
    tcase_add_test(tc, no_room_is_told);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
