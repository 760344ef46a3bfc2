/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bare guests with segments of every form. Like guests.S, after snapshot.S.
 */

    /* A store by an absolute address lands where it says: DS. */
    .macro BAD_UNLESS_STORED
    movl $WORK, %edi
    movl $0, (%rdi)
    incl %ebx
    movl %ebx, (%rdi)
    cmpl %ebx, WORK
    jne 9f
    .endm

    .macro BAD_UNLESS_SELECTOR register, selector
    movl %\register, %eax
    cmpw $\selector, %ax
    jne 9f
    .endm

/*
 * What a 64-bit task mostly has: no LDT and nothing in DS, ES, SS, FS and GS,
 * which can be used all the same; FS and GS have bases of their own.
 */
GUEST null_segments
    xorl %ebx, %ebx
    xorl %eax, %eax
    lldt %ax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    SET_MSR 0xc0000100, 0x00007abc, 0x33333330
    SET_MSR 0xc0000101, 0, WORK + 16
1:  movl $200, %ebp
2:  BAD_UNLESS_STORED
    decl %ebp
    jnz 2b
    BAD_UNLESS_SELECTOR ds, 0
    BAD_UNLESS_SELECTOR es, 0
    BAD_UNLESS_SELECTOR ss, 0
    BAD_UNLESS_SELECTOR fs, 0
    BAD_UNLESS_SELECTOR gs, 0
    sldt %eax
    testw %ax, %ax
    jnz 9f
    BAD_UNLESS_MSR 0xc0000100, 0x00007abc, 0x33333330
    BAD_UNLESS_MSR 0xc0000101, 0, WORK + 16
    movl $WORK, %edi
    movl $0x5e6, 16(%rdi)
    cmpl $0x5e6, %gs:0
    jne 9f
    PUT '.'
    jmp 1b
9:  PUT 'X'
    POWER_OFF
END_GUEST null_segments

/*
 * Segments that can be used, no two alike: type, limit, granularity, size,
 * level and the bit that is software's differ. Also an LDT and a task.
 */
GUEST odd_segments
    xorl %ebx, %ebx
    leaq 8f(%rip), %rsi
    movl $WORK, %edi
    leaq 64(%rdi), %rdi
    movl $(7f - 8f), %ecx
    cld
    rep movsb
    pushq $WORK + 64
    subq $2, %rsp
    movw $(7f - 8f - 1), (%rsp)
    lgdt (%rsp)
    movl $0x18, %eax
    movl %eax, %ds
    movl $0x20, %eax
    movl %eax, %es
    movl $0x28, %eax
    movl %eax, %fs
    movl $0x33, %eax
    movl %eax, %gs
    movl $0x38, %eax
    movl %eax, %ss
    movl $0x40, %eax
    lldt %ax
    movl $0x50, %eax
    ltr %ax
1:  movl $200, %ebp
2:  BAD_UNLESS_STORED
    decl %ebp
    jnz 2b
    BAD_UNLESS_SELECTOR ds, 0x18
    BAD_UNLESS_SELECTOR es, 0x20
    BAD_UNLESS_SELECTOR fs, 0x28
    BAD_UNLESS_SELECTOR gs, 0x33
    BAD_UNLESS_SELECTOR ss, 0x38
    sldt %eax
    cmpw $0x40, %ax
    jne 9f
    str %eax
    cmpw $0x50, %ax
    jne 9f
    cmpl %ebx, %fs:0 /* its base is WORK */
    jne 9f
    PUT '.'
    jmp 1b
9:  PUT 'X'
    POWER_OFF
    .balign 8
8:  .quad 0
    .quad 0
    .quad 0x00af9b000000ffff /* 0x10 CS: as the boot protocol has it */
    .quad 0x00129012345623ff /* 0x18 DS: may not be written, software's bit */
    .quad 0x00cf96000000fffe /* 0x20 ES: grows down, in pages */
    .quad 0x00409e200000ffff /* 0x28 FS: conforming code at WORK */
    .quad 0x0000f20000001234 /* 0x30 GS: of 16 bits, level 3 */
    .quad 0x00c096000000fff0 /* 0x38 SS: grows down */
    .quad 0x000082200800001f /* 0x40 LDT: 32 bytes at WORK + 0x800 */
    .quad 0
    .quad 0x0010892010000067 /* 0x50 TR: a task of 64 bits, software's bit */
    .quad 0
7:
END_GUEST odd_segments
