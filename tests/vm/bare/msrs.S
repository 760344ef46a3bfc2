/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that tries every MSR: by the character that it reads from the
 * console. Like guests.S, after snapshot.S.
 *
 *   'r'  reads all of them into a table
 *   'f'  flips every bit of all that can be read, one after the other, and
 *        leaves what was taken; writes 1 to the others
 *   'c'  makes every hypercall and keeps what it answers
 *   's'  sets a TSC deadline that is hours away, and takes interrupts: 'X'
 *   'n'  sets one that is near, over and over, and takes no more orders
 *   'w'  has KVM write the time of day; answers 'v' if it may not
 *   'e'  nothing
 *
 * It answers with the same character. tests/vm/vm_msrs.c reads the tables.
 */
    .set MSR_TABLE, 0x400000   /* 16 bytes each: value, flags, writes taken */
    .set CALL_TABLE, 0x600000  /* 8 bytes each */
    .set CALLS, 32
    .set PAIRING, 0x700000     /* where a hypercall would write the time */
    .set FAULT, 0x13800        /* 1: the last instruction did not work */

    /* An interrupt gate in the table at rdi. */
    .macro SET_GATE vector, label
    leaq \label(%rip), %rax
    movw %ax, \vector * 16(%rdi)
    movw $0x10, \vector * 16 + 2(%rdi)
    movw $0x8e00, \vector * 16 + 4(%rdi)
    shrq $16, %rax
    movw %ax, \vector * 16 + 6(%rdi)
    shrq $16, %rax
    movl %eax, \vector * 16 + 8(%rdi)
    movl $0, \vector * 16 + 12(%rdi)
    .endm

    /* One that is refused: the instruction is skipped. */
    .macro SKIP_INSTRUCTION length
    pushq %rax
    movl $FAULT, %eax
    movl $1, (%rax)
    popq %rax
    addq $\length, (%rsp)
    iretq
    .endm

    /* Microseconds, or hours: a deadline at this distance. */
    .macro SET_DEADLINE high, low
    rdtsc
    addl $\low, %eax
    adcl $\high, %edx
    movl $0x6e0, %ecx
    wrmsr
    .endm

    .macro CLEAR_FAULT
    movl $FAULT, %ebp
    movl $0, (%rbp)
    .endm

GUEST msrs
    movl $IDT, %edi
    SET_GATE 6, bad_opcode
    SET_GATE 13, bad_access
    pushq $IDT
    subq $2, %rsp
    movw $0xfff, (%rsp)
    lidt (%rsp)
    movl $(SERIAL + 4), %edx
    movb $2, %al /* ready to receive */
    outb %al, (%dx)
    PUT '.'
next_order:
    movl $(SERIAL + 5), %edx
    inb (%dx), %al
    testb $1, %al
    jz next_order
    movl $SERIAL, %edx
    inb (%dx), %al
    movzbl %al, %r15d
    cmpb $'c', %al
    je hypercalls
    cmpb $'s', %al
    je far_deadline
    cmpb $'n', %al
    je near_deadline
    cmpb $'w', %al
    je wall_clock
    cmpb $'e', %al
    je done
    movl $MSR_TABLE, %esi
    leaq ranges(%rip), %rbx
next_range:
    movl (%rbx), %r12d  /* index */
    movl 4(%rbx), %r13d /* how many */
    addq $8, %rbx
    testl %r13d, %r13d
    jz done
next_msr:
    cmpb $'f', %r15b
    je flip
    CLEAR_FAULT
    movl %r12d, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    rdmsr
    movl %eax, (%rsi)
    movl %edx, 4(%rsi)
    movl (%rbp), %eax
    xorl $1, %eax
    movl %eax, 8(%rsi)
    jmp msr_done

/* r8: its value, r9: the bit, r10: the bits to be tried, r14: writes taken. */
flip:
    xorl %r14d, %r14d
    CLEAR_FAULT
    movl %r12d, %ecx
    rdmsr
    cmpl $0, (%rbp)
    jne no_read
    shlq $32, %rdx
    orq %rax, %rdx
    movq %rdx, %r8
    leaq masks(%rip), %rdi
1:  movq 8(%rdi), %r10
    movl (%rdi), %eax
    addq $16, %rdi
    cmpl $-1, %eax
    je 2f
    cmpl %r12d, %eax
    jne 1b
2:  movl $1, %r9d
3:  testq %r10, %r9
    jz 4f
    CLEAR_FAULT
    movq %r8, %rax
    xorq %r9, %rax
    movq %rax, %r11
    movq %rax, %rdx
    shrq $32, %rdx
    wrmsr
    cmpl $0, (%rbp)
    jne 4f
    movq %r11, %r8
    incl %r14d
4:  shlq $1, %r9
    jnz 3b
    jmp flipped
no_read:
    movl $1, %eax
    xorl %edx, %edx
    CLEAR_FAULT
    wrmsr
    cmpl $0, (%rbp)
    jne flipped
    incl %r14d
flipped:
    movl %r14d, 12(%rsi)

msr_done:
    addq $16, %rsi
    incl %r12d
    decl %r13d
    jnz next_msr
    jmp next_range

/* Arguments that would do something: this CPU, a page for an answer. */
hypercalls:
    xorl %r12d, %r12d
    movl $CALL_TABLE, %r13d
1:  CLEAR_FAULT
    movl %r12d, %eax
    movl $PAIRING, %ebx
    xorl %ecx, %ecx
    xorl %edx, %edx
    xorl %esi, %esi
    vmcall
    movq %rax, (%r13)
    cmpl $0, (%rbp)
    je 2f
    movq $-1, (%r13)
2:  addq $8, %r13
    incl %r12d
    cmpl $CALLS, %r12d
    jne 1b
done:
    movl %r15d, %eax
    movl $SERIAL, %edx
    outb %al, (%dx)
    jmp next_order

far_deadline:
    movl $IDT, %edi
    SET_GATE VECTOR, interrupted
    movl $LAPIC, %edi
    movl $0x1ff, 0xf0(%rdi)
    movl $0x40000 + VECTOR, 0x320(%rdi)
    SET_DEADLINE 0x10000, 0
    sti
    jmp done

near_deadline:
    cli
    movl $SERIAL, %edx
    outb %al, (%dx)
1:  SET_DEADLINE 0, 0x1000000
    jmp 1b

wall_clock:
    CLEAR_FAULT
    movl $0x4b564d00, %ecx
    movl $PAIRING, %eax
    xorl %edx, %edx
    wrmsr
    subl (%rbp), %r15d
    jmp done

interrupted:
    PUT 'X'
    POWER_OFF

bad_access:
    addq $8, %rsp
    SKIP_INSTRUCTION 2
bad_opcode:
    SKIP_INSTRUCTION 3

    .balign 8
ranges:
    .long 0, 0x2000
    .long 0x40000000, 0x100
    .long 0x4b564d00, 0x100
    .long 0xc0000000, 0x2000
    .long 0xc0010000, 0x2000
    .long 0, 0

/*
 * Which bits to flip, for those of which not all: the timers, so that none
 * goes off later; orders to KVM to write to an address, so that it is one in
 * the first bytes of memory or where there is none; EFER but for LMSLE, which
 * KVM takes and an emulated CPU does not; SYSENTER's, which on AMD's CPUs are
 * half as long, as an emulated one does not know.
 */
    .balign 8
masks:
    .quad 0x6e0, 0
    .quad 0xc0000080, ~(1 << 13)
    .quad 0x175, 0xffffffff
    .quad 0x176, 0xffffffff
    .quad 0x832, 0
    .quad 0x838, 0
    .quad 0x11, 0xfffffffffc00003f
    .quad 0x12, 0xfffffffffc00003f
    .irp index, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .quad 0x4b564d00 + \index, 0xfffffffffc00003f
    .endr
    .quad 0xffffffff, -1
END_GUEST msrs
