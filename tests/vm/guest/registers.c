/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds patterns in the widest vector registers of the CPU (ymm, or zmm and
 * the mask registers) and in PKRU, and looks again and again whether they are
 * still there. In between it only counts, in user space: whenever the machine
 * is stopped, they most likely are in the registers, and nowhere else.
 *
 *   registers          says what it would hold: "ymm", "ymm pkru" ... or ""
 *   registers FILE     writes there how often it found them, a line anew each
 *                      time; ends with 1 and "bad" in it once it does not
 */
#include <cpuid.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REGISTERS 32
#define WIDEST 64 /* bytes of a zmm */
#define MASKS 8
#define TURNS 5000000u /* of the counting between two looks */
/* Key 0, which all memory has, stays open. */
#define PKRU_PATTERN 0xa5c3f0d8u

#define LOWER "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define UPPER "16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define COUNT "1: decq %[turns]\n jnz 1b\n"
#define EACH(numbers, what) ".irp n," numbers "\n" what "\n.endr\n"

struct offers {
    bool ymm, zmm, pkru;
};

struct registers {
    uint8_t vectors[REGISTERS][WIDEST];
    uint16_t masks[MASKS];
    uint32_t pkru;
};

static struct offers what_there_is(void)
{
    unsigned eax, ebx, ecx = 0, edx;
    bool leaf7 = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);

    __builtin_cpu_init();
    return (struct offers){
        .ymm = __builtin_cpu_supports("avx"),
        .zmm = __builtin_cpu_supports("avx512f"),
        .pkru = leaf7 && (ecx & (1u << 4)), /* OSPKE */
    };
}

/* No two bytes in a row alike, and none zero. */
static void fill(struct registers *r)
{
    uint32_t x = 0x1badb002;

    memset(r, 0, sizeof(*r));
    for (unsigned i = 0; i < REGISTERS; i++)
        for (unsigned j = 0; j < WIDEST; j++) {
            x = x * 1664525u + 1013904223u;
            r->vectors[i][j] = (uint8_t)(x >> 24 | 1);
        }
    for (unsigned i = 0; i < MASKS; i++)
        r->masks[i] = (uint16_t)(0x8001u + i * 0x1357u);
    r->pkru = PKRU_PATTERN;
}

static void set_pkru(uint32_t value)
{
    __asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static uint32_t get_pkru(void)
{
    uint32_t eax, edx;

    __asm__ volatile("rdpkru" : "=a"(eax), "=d"(edx) : "c"(0));
    return eax;
}

static void hold_ymm(const struct registers *from, struct registers *to)
{
    uint64_t turns = TURNS;

    __asm__ volatile(EACH(LOWER, "vmovups \\n*64(%[from]), %%ymm\\n")
                         COUNT EACH(LOWER, "vmovups %%ymm\\n, \\n*64(%[to])")
                     : [turns] "+r"(turns)
                     : [from] "r"(from->vectors), [to] "r"(to->vectors)
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
                       "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15");
}

/* What the compiler does not use it need not be told of. */
static void hold_zmm(const struct registers *from, struct registers *to)
{
    uint64_t turns = TURNS;

    __asm__ volatile(
        EACH(LOWER "," UPPER, "vmovups \\n*64(%[from]), %%zmm\\n")
            EACH("0,1,2,3,4,5,6,7", "kmovw \\n*2(%[masks]), %%k\\n")
                COUNT EACH(LOWER "," UPPER, "vmovups %%zmm\\n, \\n*64(%[to])")
                    EACH("0,1,2,3,4,5,6,7", "kmovw %%k\\n, \\n*2(%[found])")
        : [turns] "+r"(turns)
        : [from] "r"(from->vectors), [to] "r"(to->vectors),
          [masks] "r"(from->masks), [found] "r"(to->masks)
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
          "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
          "xmm14", "xmm15");
}

/* The name of what is not as it was, or NULL. */
static const char *look(const struct offers *o, const struct registers *want,
                        const struct registers *found)
{
    unsigned count = o->zmm ? REGISTERS : REGISTERS / 2;
    size_t width = o->zmm ? WIDEST : WIDEST / 2;

    for (unsigned i = 0; i < count; i++)
        if (memcmp(want->vectors[i], found->vectors[i], width) != 0)
            return o->zmm ? "zmm" : "ymm";
    if (o->zmm && memcmp(want->masks, found->masks, sizeof(want->masks)) != 0)
        return "k";
    if (o->pkru && want->pkru != found->pkru)
        return "pkru";
    return NULL;
}

static bool say(int fd, const char *word, unsigned long rounds)
{
    char line[64];
    int len = snprintf(line, sizeof(line), "%s %lu\n", word, rounds);

    return pwrite(fd, line, (size_t)len, 0) == len;
}

int main(int argc, char **argv)
{
    static struct registers want, found;
    const struct offers o = what_there_is();
    int fd;

    if (argc < 2) {
        printf("%s%s%s\n", o.ymm ? "ymm" : "", o.zmm ? " zmm k" : "",
               o.pkru ? " pkru" : "");
        return 0;
    }
    fd = open(argv[1], O_WRONLY | O_CREAT, 0644);
    if (fd < 0 || !o.ymm)
        return 2;
    fill(&want);
    for (unsigned long rounds = 1;; rounds++) {
        const char *bad;

        memset(&found, 0, sizeof(found));
        if (o.pkru)
            set_pkru(want.pkru);
        if (o.zmm)
            hold_zmm(&want, &found);
        else
            hold_ymm(&want, &found);
        if (o.pkru)
            found.pkru = get_pkru();
        bad = look(&o, &want, &found);
        if (bad)
            return say(fd, "bad", rounds) && printf("%s\n", bad) > 0 ? 1 : 3;
        if (!say(fd, "found", rounds))
            return 3;
    }
}
