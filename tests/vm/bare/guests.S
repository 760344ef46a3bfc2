/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiny guests without a kernel: one behaviour each, a few instructions long, so
 * that they run even where guest kernel code is interpreted.
 *
 * Each starts like a Linux kernel (64-bit mode, low 4 GiB identity mapped, RSI =
 * zero page, interrupts off) at 1 MiB and is position independent. GUEST name
 * ... END_GUEST enters it into the table in tests/bare_guests.c. Included there
 * as a whole, so there is no preprocessor here: plain assembler only.
 */
    .section .rodata
    .code64

    .set SERIAL, 0x3f8
    .set CONTROL, 0xd0010000
    .set PANIC, CONTROL + 0x1000
    .set DEBUG_EXIT, 0xf4
    .set SLOT_15, 0xd000f000
    .set NOTIFY, 0x50
    .set NOWHERE, 0xd1000000
    .set LAPIC_ICR, 0xfee00300
    .set TRAMPOLINE, 0x10000
    .set MAILBOX, 0x11000

    /*
     * With interrupts on, though there are none: Bochs' VT-x never takes the
     * processor from a guest that has them off and does not exit.
     */
    .macro GUEST name
    .balign 16
    .globl bare_\name
bare_\name:
    sti
    .endm

    .macro END_GUEST name
    .globl bare_\name\()_end
bare_\name\()_end:
    .endm

    /* One character to the console. */
    .macro PUT character
    movb $\character, %al
    movw $SERIAL, %dx
    outb %al, %dx
    .endm

    .macro POWER_OFF
    movl $CONTROL, %edi
    movb $0x34, (%rdi)
    jmp .
    .endm

/* ---- the ways to end ---- */

/* A whole string by one instruction, then power-off. */
GUEST hello
    leaq 1f(%rip), %rsi
    movl $(2f - 1f), %ecx
    movl $SERIAL, %edx
    cld
    rep outsb
    POWER_OFF
1:  .ascii "hello from a bare guest\n"
2:
END_GUEST hello

GUEST reset_page
    movl $CONTROL, %edi
    movb $1, 2(%rdi)
    jmp .
END_GUEST reset_page

GUEST reset_port
    movb $0xfe, %al
    outb %al, $0x64
    jmp .
END_GUEST reset_port

/* An exception without a table to handle it. */
GUEST triple_fault
    pushq $0
    pushq $0
    lidt (%rsp)
    ud2
END_GUEST triple_fault

GUEST panic
    PUT 'P'
    movl $PANIC, %edi
    movb $1, (%rdi)
    jmp .
END_GUEST panic

/* A crash kernel takes over: not the end. */
GUEST crash_loaded
    movl $PANIC, %edi
    movb $2, (%rdi)
    PUT 'c'
    POWER_OFF
END_GUEST crash_loaded

/* The debug-exit port, if the machine has it; else power-off. */
GUEST exit_zero
    PUT 'z'
    xorl %eax, %eax
    outb %al, $DEBUG_EXIT
    POWER_OFF
END_GUEST exit_zero

GUEST exit_seven
    PUT '7'
    movb $7, %al
    outb %al, $DEBUG_EXIT
    POWER_OFF
END_GUEST exit_seven

/* All 32 bits; first a write that is no status: not to the first port. */
GUEST exit_large
    PUT 'l'
    movb $1, %al
    outb %al, $(DEBUG_EXIT + 1)
    movl $0x12345600, %eax
    outl %eax, $DEBUG_EXIT
    POWER_OFF
END_GUEST exit_large

/* Instructions fetched from where there is no memory. */
GUEST fetch_nowhere
    movl $NOWHERE, %eax
    jmp *%rax
END_GUEST fetch_nowhere

/* ---- the ways not to end ---- */

GUEST spin
    PUT 's'
    jmp .
END_GUEST spin

/* Power-off some seconds later: after 2^33 ticks of the time stamp counter. */
GUEST ends_later
    PUT 's'
    rdtsc
    leal 2(%rdx), %ebx
    movl %eax, %ecx
1:  rdtsc
    cmpl %ebx, %edx
    jb 1b
    ja 2f
    cmpl %ecx, %eax
    jb 1b
2:  POWER_OFF
END_GUEST ends_later

GUEST halt
    PUT 'h'
    cli
    hlt
    jmp .
END_GUEST halt

/* Exits to the monitor as fast as it can. */
GUEST port_storm
    PUT 'p'
1:  inb $0x80, %al
    jmp 1b
END_GUEST port_storm

/* Kicks a queue of a device that has no driver, and an empty slot. */
GUEST notify_storm
    PUT 'n'
    movl $0xd0000000, %edi
    movl $SLOT_15, %esi
1:  movl $0, NOTIFY(%rdi)
    movl $0, NOTIFY(%rsi)
    jmp 1b
END_GUEST notify_storm

/* Console output without end. */
GUEST console_storm
    movl $SERIAL, %edx
    movb $'x', %al
1:  outb %al, %dx
    jmp 1b
END_GUEST console_storm

/* Lines to the console, 16 bytes whenever its port is ready, then the end. */
    .macro PUT_LINES count
    movl $\count, %ebx
    cld
1:  movl $(SERIAL + 5), %edx
    inb %dx, %al
    testb $0x20, %al
    jz 1b
    movl $SERIAL, %edx
    leaq 2f(%rip), %rsi
    movl $16, %ecx
    rep outsb
    decl %ebx
    jnz 1b
    POWER_OFF
2:  .ascii "a line of bytes\n"
    .endm

GUEST console_lines
    PUT_LINES 6250
END_GUEST console_lines

/* More than socket, pipe and buffers hold when nobody reads. */
GUEST console_flood
    PUT_LINES 37500
END_GUEST console_flood

/*
 * Empty lines without end, by nothing but OUTs (but for one jump in 512): what
 * is restored anywhere in it begins with an OUT. Its first OUT is 7 bytes in.
 */
GUEST out_storm
    movl $SERIAL, %edx
    movb $10, %al
1:  .rept 512
    outb %al, %dx
    .endr
    jmp 1b
END_GUEST out_storm

/* One byte of the console's input to %al. */
    .macro GET
9:  movl $(SERIAL + 5), %edx
    inb %dx, %al
    testb $1, %al
    jz 9b
    movl $SERIAL, %edx
    inb %dx, %al
    .endm

/*
 * Says it is there; then, for each number of four bytes that it reads, writes
 * into as many pages from 16 MiB on and says so.
 */
GUEST dirty_pages
    movl $(SERIAL + 4), %edx /* MCR: DTR and RTS, "send me something" */
    movb $3, %al
    outb %al, %dx
    PUT 10
1:  xorl %ebx, %ebx
    movl $4, %ecx
2:  GET
    shll $24, %eax
    shrl $8, %ebx
    orl %eax, %ebx
    decl %ecx
    jnz 2b
    movl $0x1000000, %edi
3:  testl %ebx, %ebx
    jz 4f
    incl (%rdi)
    addl $0x1000, %edi
    decl %ebx
    jmp 3b
4:  PUT 10
    jmp 1b
END_GUEST dirty_pages

/* ---- devices ---- */

/* An empty slot has the magic value, version 2 and device id 0. */
GUEST empty_slot
    movl $SLOT_15, %edi
    cmpl $0x74726976, (%rdi)
    jne 1f
    cmpl $2, 4(%rdi)
    jne 1f
    cmpl $0, 8(%rdi)
    jne 1f
    PUT 'e'
1:  POWER_OFF
END_GUEST empty_slot

/* Slot 0 is the entropy device when there is nothing else. */
GUEST first_slot
    movl $0xd0000000, %edi
    cmpl $4, 8(%rdi)
    jne 1f
    PUT 'r'
1:  POWER_OFF
END_GUEST first_slot

/* What nobody claims reads as all ones; writes to it vanish. */
GUEST nowhere
    movl $NOWHERE, %edi
    movq $0, (%rdi)
    cmpq $-1, (%rdi)
    jne 1f
    movl $0x1234, %edx
    outl %eax, %dx
    inl %dx, %eax
    cmpl $-1, %eax
    jne 1f
    PUT 'u'
1:  POWER_OFF
END_GUEST nowhere

/* Sizes and offsets no driver uses, at a slot and the control page. */
GUEST odd_accesses
    movl $0xd0000000, %edi
    movb 1(%rdi), %al
    movw 3(%rdi), %ax
    movq (%rdi), %rax
    movq 0xffd(%rdi), %rax
    movb $0, NOTIFY(%rdi)
    movw $0, NOTIFY(%rdi)
    movq $0, NOTIFY(%rdi)
    movl $0x1000, NOTIFY(%rdi)
    movl $0, NOTIFY + 1(%rdi)
    movq $-1, 0x70(%rdi)
    movl $CONTROL, %edi
    movq (%rdi), %rax
    movq $-1, 0x800(%rdi)
    PUT 'o'
    POWER_OFF
END_GUEST odd_accesses

/* ---- processors ---- */

/* CPUID: no VMX, no SVM; a hypervisor, KVM; TSC deadline or not. */
GUEST cpuid
    movl $1, %eax
    cpuid
    btl $5, %ecx
    jc 1f
    btl $31, %ecx
    jnc 1f
    btl $21, %ecx
    jnc 1f
    movl $0x80000001, %eax
    cpuid
    btl $2, %ecx
    jc 1f
    movl $0x40000000, %eax
    cpuid
    cmpl $0x40000001, %eax
    jne 1f
    cmpl $0x4b4d564b, %ebx
    jne 1f
    movl $0xa, %eax
    cpuid
    testl %eax, %eax
    jnz 1f
    PUT 'i'
1:  POWER_OFF
END_GUEST cpuid

/*
 * Starts the second processor by INIT and SIPI; it writes its APIC id (from
 * CPUID, so that one is checked too) and both meet in memory.
 */
GUEST two_cpus
    movl $TRAMPOLINE, %edi
    leaq 1f(%rip), %rsi
    movl $(2f - 1f), %ecx
    cld
    rep movsb
    movl $LAPIC_ICR, %edi
    movl $0x01000000, 0x10(%rdi)
    movl $0x00004500, (%rdi)
    movl $0x01000000, 0x10(%rdi)
    movl $0x00004600 + (TRAMPOLINE >> 12), (%rdi)
    movl $MAILBOX, %edi
3:  cmpb $0, (%rdi)
    je 3b
    movb (%rdi), %al
    movl $SERIAL, %edx
    outb %al, %dx
    POWER_OFF
    .code16
1:  movl $1, %eax
    cpuid
    shrl $24, %ebx
    addb $'0', %bl
    movw $TRAMPOLINE >> 4, %ax
    movw %ax, %ds
    movb %bl, MAILBOX - TRAMPOLINE
4:  cli
    hlt
    jmp 4b
    .code64
2:
END_GUEST two_cpus

    .section .text
