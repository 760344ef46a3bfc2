/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bare guests that are paused, saved and restored while they run: each checks
 * for itself that it finds everything as it left it, and prints a character now
 * and then while it does, or 'X' before it ends. Like guests.S, after it.
 */
    .set LAPIC, 0xfee00000
    .set IDT, 0x12000
    .set VECTOR, 0x30
    .set COUNTERS, 0x13000
    .set RINGS, 0x20000
    .set SLOT_0, 0xd0000000
    .set WORK, 0x200000

    .macro SET_MSR index, high, low
    movl $\index, %ecx
    movl $\low, %eax
    movl $\high, %edx
    wrmsr
    .endm

    .macro BAD_UNLESS_MSR index, high, low
    movl $\index, %ecx
    rdmsr
    cmpl $\low, %eax
    jne bad_\@
    cmpl $\high, %edx
    je good_\@
bad_\@:
    PUT 'X'
    POWER_OFF
good_\@:
    .endm

/* Counts in a register and in memory, and finds that both agree. */
GUEST tick
    xorl %ebx, %ebx
    movl $WORK, %edi
    movl %ebx, (%rdi)
1:  cmpl %ebx, (%rdi)
    jne 2f
    incl %ebx
    movl %ebx, (%rdi)
    testl $0xff, %ebx
    jnz 1b
    PUT '.'
    jmp 1b
2:  PUT 'X'
    POWER_OFF
END_GUEST tick

/*
 * Every general register, every SSE register, MSRs, debug registers and CR2
 * hold a pattern. The first loop needs no register to check the registers: most
 * of the time all of them are as the table says.
 */
    .macro FOR_GPRS what
    \what %rax, 0
    \what %rbx, 1
    \what %rcx, 2
    \what %rdx, 3
    \what %rsi, 4
    \what %rdi, 5
    \what %rbp, 6
    \what %rsp, 7
    \what %r8, 8
    \what %r9, 9
    \what %r10, 10
    \what %r11, 11
    \what %r12, 12
    \what %r13, 13
    \what %r14, 14
    \what %r15, 15
    .endm

    .macro LOAD_GPR register, number
    movq 8f + \number * 8(%rip), \register
    .endm

    .macro CHECK_GPR register, number
    cmpq 8f + \number * 8(%rip), \register
    jne 9f
    .endm

    .macro LOAD_SSE number
    movups 7f + \number * 16(%rip), %xmm\number
    .endm

    .macro CHECK_SSE number
    movups %xmm\number, 6f(%rip)
    cmpl $0x10203040 + \number, 6f(%rip)
    jne 9f
    cmpl $0x50607080 + \number, 6f + 4(%rip)
    jne 9f
    cmpl $0x0badcafe + \number, 6f + 8(%rip)
    jne 9f
    cmpl $0x7eadbeef + \number, 6f + 12(%rip)
    jne 9f
    .endm

    .macro FOR_SSE what
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    \what \number
    .endr
    .endm

GUEST patterns
    movq %cr4, %rax
    orl $0x200, %eax /* OSFXSR */
    movq %rax, %cr4
    SET_MSR 0xc0000081, 0x00230010, 0x12345678
    SET_MSR 0xc0000082, 0x00007fff, 0x11111110
    SET_MSR 0xc0000083, 0x00007fff, 0x22222220
    SET_MSR 0xc0000084, 0, 0x00047700
    SET_MSR 0xc0000100, 0x00007abc, 0x33333330
    SET_MSR 0xc0000101, 0x00007abc, 0x44444440
    SET_MSR 0xc0000102, 0x00007abc, 0x55555550
    SET_MSR 0x174, 0, 0x10
    SET_MSR 0x175, 0, 0x66666660
    SET_MSR 0x176, 0, 0x77777770
    SET_MSR 0x277, 0x00070406, 0x00070106
    SET_MSR 0x200, 0, 0x80000000
    SET_MSR 0x201, 0x000000ff, 0xc0000800
    movl $0x1000, %eax
    movq %rax, %dr0
    movl $0x2000, %eax
    movq %rax, %dr1
    movl $0x3000, %eax
    movq %rax, %dr2
    movl $0x4000, %eax
    movq %rax, %dr3
    movabsq $0x0000123456789abc, %rax
    movq %rax, %cr2
    FOR_SSE LOAD_SSE
1:  FOR_GPRS LOAD_GPR
    movl $200, 5f(%rip)
2:  FOR_GPRS CHECK_GPR
    decl 5f(%rip)
    jnz 2b
    FOR_SSE CHECK_SSE
    jmp 3f
    .balign 16
5:  .long 0
    .balign 16
6:  .octa 0
7:
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .long 0x10203040 + \number, 0x50607080 + \number
    .long 0x0badcafe + \number, 0x7eadbeef + \number
    .endr
8:
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .quad 0x0123456789abcde0 + \number * 0x1111
    .endr
3:  BAD_UNLESS_MSR 0xc0000081, 0x00230010, 0x12345678
    BAD_UNLESS_MSR 0xc0000082, 0x00007fff, 0x11111110
    BAD_UNLESS_MSR 0xc0000083, 0x00007fff, 0x22222220
    BAD_UNLESS_MSR 0xc0000084, 0, 0x00047700
    BAD_UNLESS_MSR 0xc0000100, 0x00007abc, 0x33333330
    BAD_UNLESS_MSR 0xc0000101, 0x00007abc, 0x44444440
    BAD_UNLESS_MSR 0xc0000102, 0x00007abc, 0x55555550
    BAD_UNLESS_MSR 0x174, 0, 0x10
    BAD_UNLESS_MSR 0x175, 0, 0x66666660
    BAD_UNLESS_MSR 0x176, 0, 0x77777770
    BAD_UNLESS_MSR 0x277, 0x00070406, 0x00070106
    BAD_UNLESS_MSR 0x200, 0, 0x80000000
    BAD_UNLESS_MSR 0x201, 0x000000ff, 0xc0000800
    movq %dr0, %rax
    cmpq $0x1000, %rax
    jne 9f
    movq %dr1, %rax
    cmpq $0x2000, %rax
    jne 9f
    movq %dr2, %rax
    cmpq $0x3000, %rax
    jne 9f
    movq %dr3, %rax
    cmpq $0x4000, %rax
    jne 9f
    movabsq $0x0000123456789abc, %rbx
    movq %cr2, %rax
    cmpq %rbx, %rax
    jne 9f
    PUT '.'
    jmp 1b
9:  PUT 'X'
    POWER_OFF
END_GUEST patterns

/* The x87 stack, control word and MXCSR, by what FXSAVE says of them. */
GUEST fpu
    movq %cr4, %rax
    orl $0x200, %eax
    movq %rax, %cr4
    fninit
    fldpi
    fldl2e
    fldlg2
    fld1
    pushq $0x1fbf
    ldmxcsr (%rsp)
    pushq $0x0e3f
    fldcw (%rsp)
    movl $WORK, %ebx
    fxsave64 (%rbx)
1:  movl $500, %ebp
2:  decl %ebp
    jnz 2b
    fxsave64 512(%rbx)
    leaq (%rbx), %rsi
    leaq 512(%rbx), %rdi
    movl $52, %ecx /* quadwords: header, x87 and SSE registers */
    cld
    repe cmpsq
    jne 9f
    PUT '.'
    jmp 1b
9:  PUT 'X'
    POWER_OFF
END_GUEST fpu

/*
 * Extended state: the components that WANTED names (bits of XCR0) and the CPU
 * offers hold patterns, and so does XCR0. Found as they were by looking at the
 * registers themselves: what XSAVE says of them is KVM's way, too. Prints '-'
 * and ends if there is not all that NEEDED names, or nothing at all.
 */
    .set XCR0_SSE, 0x3
    .set XCR0_AVX, 0x4
    .set XCR0_AVX512, 0xe0
    .set XCR0_PKRU, 0x200
    .set PKRU_PATTERN, 0x5a96c3f0

    .macro FOR_UPPER what
    .irp number, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    \what \number
    .endr
    .endm

    .macro FOR_MASKS what
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7
    \what \number
    .endr
    .endm

    .macro LOAD_YMM number
    vmovups 7f + \number * 32(%rip), %ymm\number
    .endm

    .macro STORE_YMM number
    vmovups %ymm\number, \number * 32(%rdi)
    .endm

    .macro LOAD_ZMM number
    vmovups 7f + \number * 64(%rip), %zmm\number
    .endm

    .macro STORE_ZMM number
    vmovups %zmm\number, \number * 64(%rdi)
    .endm

    .macro LOAD_MASK number
    movl $(0xa35c + \number * 0x0b17), %eax
    kmovw %eax, %k\number
    .endm

    .macro CHECK_MASK number
    kmovw %k\number, %eax
    cmpl $(0xa35c + \number * 0x0b17), %eax
    jne 9f
    .endm

    .macro GUEST_EXTENDED name, wanted, needed
GUEST \name
    movl $1, %eax
    cpuid
    btl $26, %ecx /* XSAVE */
    jnc 8f
    movl $0xd, %eax
    xorl %ecx, %ecx
    cpuid
    andl $\wanted, %eax
    jz 8f
    movl %eax, %ecx
    andl $\needed, %ecx
    cmpl $\needed, %ecx
    jne 8f
    orl $XCR0_SSE, %eax
    movl %eax, %r8d
    movq %cr4, %rax
    orl $0x40200, %eax /* OSXSAVE, OSFXSR */
    btl $9, %r8d
    jnc 1f
    orl $0x400000, %eax /* PKE */
1:  movq %rax, %cr4
    movl %r8d, %eax
    xorl %ecx, %ecx
    xorl %edx, %edx
    xsetbv
    btl $9, %r8d
    jnc 1f
    movl $PKRU_PATTERN, %eax
    wrpkru
1:  btl $2, %r8d
    jnc 3f
    FOR_SSE LOAD_YMM
    btl $5, %r8d
    jnc 3f
    FOR_SSE LOAD_ZMM
    FOR_UPPER LOAD_ZMM
    FOR_MASKS LOAD_MASK
3:  movl $500, %ebp
2:  decl %ebp
    jnz 2b
    xorl %ecx, %ecx
    xgetbv
    cmpl %r8d, %eax
    jne 9f
    btl $9, %r8d
    jnc 1f
    rdpkru
    cmpl $PKRU_PATTERN, %eax
    jne 9f
1:  btl $2, %r8d
    jnc 4f
    movl $WORK, %edi
    leaq 7f(%rip), %rsi
    cld
    btl $5, %r8d
    jc 1f
    FOR_SSE STORE_YMM
    movl $(16 * 32 / 8), %ecx
    repe cmpsq
    jne 9f
    jmp 4f
1:  FOR_SSE STORE_ZMM
    FOR_UPPER STORE_ZMM
    movl $(32 * 64 / 8), %ecx
    repe cmpsq
    jne 9f
    FOR_MASKS CHECK_MASK
4:  PUT '.'
    jmp 3b
8:  PUT '-'
    POWER_OFF
9:  PUT 'X'
    POWER_OFF
    .balign 64
7:
    .set pattern, 0x2f6e1d85
    .rept 32 * 64 / 4
    .long pattern
    .set pattern, (pattern * 0x19660d + 0x3c6ef35f) & 0xffffffff
    .endr
END_GUEST \name
    .endm

    GUEST_EXTENDED ymm, XCR0_AVX, XCR0_AVX
    GUEST_EXTENDED zmm, (XCR0_AVX | XCR0_AVX512), (XCR0_AVX | XCR0_AVX512)
    GUEST_EXTENDED pkru, XCR0_PKRU, XCR0_PKRU
    GUEST_EXTENDED extended, (XCR0_AVX | XCR0_AVX512 | XCR0_PKRU), 0

/* An interrupt gate for VECTOR that leads to label 1, and the LAPIC on. */
    .macro SETUP_GATE
    cli
    movl $IDT, %edi
    leaq 1f(%rip), %rax
    movw %ax, VECTOR * 16(%rdi)
    movw $0x10, VECTOR * 16 + 2(%rdi)
    movw $0x8e00, VECTOR * 16 + 4(%rdi)
    shrq $16, %rax
    movw %ax, VECTOR * 16 + 6(%rdi)
    shrq $16, %rax
    movl %eax, VECTOR * 16 + 8(%rdi)
    movl $0, VECTOR * 16 + 12(%rdi)
    pushq $IDT
    subq $2, %rsp
    movw $0xfff, (%rsp)
    lidt (%rsp)
    movl $LAPIC, %edi
    movl $0x1ff, 0xf0(%rdi)
    .endm

    .macro END_OF_INTERRUPT
    movl $LAPIC, %edi
    movl $0, 0xb0(%rdi)
    .endm

/*
 * Waits for the event device's interrupt: the generation id must then be
 * another one.
 */
    .set IOAPIC, 0xfec00000
    .set EVENT_PIN, 21
    .set GENERATION, 0xef000
GUEST generation
    SETUP_GATE
    movl $IOAPIC, %edi
    movl $0x10 + 2 * EVENT_PIN, (%rdi)
    movl $VECTOR, 0x10(%rdi)
    movl $0x11 + 2 * EVENT_PIN, (%rdi)
    movl $0, 0x10(%rdi)
    movl $GENERATION, %esi
    movq (%rsi), %rbx
    movq 8(%rsi), %rbp
2:  sti
    movl $500, %ecx
3:  decl %ecx
    jnz 3b
    PUT '.'
    jmp 2b
1:  cmpq (%rsi), %rbx
    jne 4f
    cmpq 8(%rsi), %rbp
    jne 4f
    PUT 'X'
    POWER_OFF
4:  movq (%rsi), %rbx
    movq 8(%rsi), %rbp
    PUT 'g'
    END_OF_INTERRUPT
    iretq
END_GUEST generation

/* A periodic timer of the LAPIC, 20 ms; the guest sleeps in between. */
GUEST timer
    SETUP_GATE
    movl $0xb, 0x3e0(%rdi)
    movl $0x20000 + VECTOR, 0x320(%rdi)
    movl $20000000, 0x380(%rdi)
2:  sti
    hlt
    jmp 2b
1:  PUT 't'
    END_OF_INTERRUPT
    iretq
END_GUEST timer

/* The same by the TSC's deadline, set anew by every interrupt. */
GUEST deadline
    SETUP_GATE
    movl $0x40000 + VECTOR, 0x320(%rdi)
    call 3f
2:  sti
    hlt
    jmp 2b
1:  PUT 'd'
    call 3f
    END_OF_INTERRUPT
    iretq
3:  rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    addq $50000000, %rax
    movq %rax, %rdx
    shrq $32, %rdx
    movl $0x6e0, %ecx
    wrmsr
    ret
END_GUEST deadline

/*
 * All processors count, each in three registers that must stay the same number
 * in three guises; the first waits for each of the others (there are three) to
 * get on, again and again.
 */
GUEST four_cpus
    movl $TRAMPOLINE, %edi
    leaq 1f(%rip), %rsi
    movl $(2f - 1f), %ecx
    cld
    rep movsb
    movl $COUNTERS, %edi
    movl $LAPIC_ICR, %esi
    movl $0x000c4500, (%rsi)
    movl $0x000c4600 + (TRAMPOLINE >> 12), (%rsi)
3:  movl $1, %ebx
4:  movl (%rdi, %rbx, 4), %eax
5:  cmpl $0, (%rdi)
    jne 9f
    cmpl %eax, (%rdi, %rbx, 4)
    je 5b
    incl %ebx
    cmpl $4, %ebx
    jne 4b
    PUT '.'
    jmp 3b
9:  PUT 'X'
    POWER_OFF
    .code16
1:  movl $1, %eax
    cpuid
    shrl $24, %ebx
    shll $2, %ebx
    movw $COUNTERS >> 4, %ax
    movw %ax, %ds
    movl %ebx, %esi
    imull $0x01010101, %esi, %esi
    movl %esi, %edi
    notl %edi
    movl %esi, %ebp
    xorl $0x5a5a5a5a, %ebp
    sti
6:  incl %esi
    decl %edi
    movl %esi, %ebp
    xorl $0x5a5a5a5a, %ebp
    movl %edi, %eax
    notl %eax
    cmpl %eax, %esi
    jne 7f
    movl %ebp, %eax
    xorl $0x5a5a5a5a, %eax
    cmpl %eax, %esi
    jne 7f
    movl %esi, (%ebx)
    jmp 6b
7:  movl $1, 0
8:  cli
    hlt
    jmp 8b
    .code64
2:
END_GUEST four_cpus

/* Reads that leave the guest, each with a known answer. */
GUEST reads
    movl $SLOT_0, %edi
    xorl %ebx, %ebx
1:  xorl %eax, %eax
    inb $0x80, %al
    cmpl $0xff, %eax
    jne 9f
    cmpl $0x74726976, (%rdi)
    jne 9f
    movq $0, %rax
    movl 4(%rdi), %eax
    cmpq $2, %rax
    jne 9f
    movl $WORK, %esi
    movl $7, (%rsi)
    pushq %rdi
    movq %rsi, %rdi
    movl $0x80, %edx
    movl $32, %ecx
    cld
    rep insb
    popq %rdi
    cmpq $-1, 24(%rsi)
    jne 9f
    incl %ebx
    testl $0x1f, %ebx
    jnz 1b
    PUT '.'
    jmp 1b
9:  PUT 'X'
    POWER_OFF
END_GUEST reads

    .set DESC, RINGS
    .set AVAIL, RINGS + 0x1000
    .set USED, RINGS + 0x2000
    .set BUFFER, RINGS + 0x3000

    /* Takes the device in slot 0, with one queue and these of its first 32
     * features; its registers are at rdi. */
    .macro SETUP_QUEUE features=0, size=8
    movl $SLOT_0, %edi
    movl $0, 0x70(%rdi)
    movl $1, 0x70(%rdi)
    movl $3, 0x70(%rdi)
    movl $0, 0x24(%rdi)
    movl $\features, 0x20(%rdi)
    movl $1, 0x24(%rdi)
    movl $1, 0x20(%rdi)
    movl $0xb, 0x70(%rdi)
    movl $0, 0x30(%rdi)
    movl $\size, 0x38(%rdi)
    movl $DESC, 0x80(%rdi)
    movl $0, 0x84(%rdi)
    movl $AVAIL, 0x90(%rdi)
    movl $0, 0x94(%rdi)
    movl $USED, 0xa0(%rdi)
    movl $0, 0xa4(%rdi)
    movl $1, 0x44(%rdi)
    movl $0xf, 0x70(%rdi)
    .endm

/*
 * A driver of the entropy device in slot 0: one buffer at a time, waits until
 * it is used, checks index and length.
 */
GUEST rng_queue
    SETUP_QUEUE
    cmpl $0xf, 0x70(%rdi)
    jne 9f
    movl $DESC, %esi
    movq $BUFFER, (%rsi)
    movl $64, 8(%rsi)
    movw $2, 12(%rsi) /* writable */
    movl $AVAIL, %esi
    movl $USED, %ebp
    xorl %ebx, %ebx
1:  movl %ebx, %eax
    andl $7, %eax
    movw $0, 4(%rsi, %rax, 2)
    incl %ebx
    movw %bx, 2(%rsi)
    movl $0, 0x50(%rdi)
2:  cmpw %bx, 2(%rbp)
    jne 2b
    cmpl $64, 8(%rbp, %rax, 8)
    jne 9f
    cmpl $0xf, 0x70(%rdi)
    jne 9f
    testl $7, %ebx
    jnz 1b
    PUT '.'
    jmp 1b
9:  PUT 'X'
    POWER_OFF
END_GUEST rng_queue

/*
 * A driver of the disk in slot 0. For each character from the console, one step
 * of a script: a sector is written, an earlier one read, and what was read kept
 * as a sum in memory. '.' after each step, '#' after the last. What is in
 * memory and on the disk then depends on nothing but the script.
 */
    .set HEADER, BUFFER         /* of a request: type, 0, sector (64 bits) */
    .set DONE, BUFFER + 0x10    /* its status */
    .set SECTOR, BUFFER + 0x200 /* its data */
    .set STEPS, 40

    /* The descriptors of all requests. */
    .macro SETUP_REQUEST
    movl $DESC, %esi
    movq $HEADER, (%rsi)
    movl $16, 8(%rsi)
    movw $1, 12(%rsi) /* next */
    movw $1, 14(%rsi)
    movq $SECTOR, 16(%rsi)
    movl $512, 16 + 8(%rsi)
    movw $2, 16 + 14(%rsi)
    movq $DONE, 32(%rsi)
    movl $1, 32 + 8(%rsi)
    movw $2, 32 + 12(%rsi) /* writable */
    .endm

    /* One request: of a type, for the sector in edx, data writable or not. */
    .macro REQUEST type, flags
    movl $HEADER, %ecx
    movl $\type, (%rcx)
    movl %edx, 8(%rcx)
    movb $0xff, 0x10(%rcx)
    movl $DESC, %ecx
    movw $\flags, 16 + 12(%rcx)
    movl %r8d, %eax
    andl $7, %eax
    movw $0, 4(%rsi, %rax, 2)
    incl %r8d
    movw %r8w, 2(%rsi)
    movl $0, 0x50(%rdi)
1:  cmpw %r8w, 2(%rbp)
    jne 1b
    movl $DONE, %ecx
    cmpb $0, (%rcx)
    jne 9f
    .endm

GUEST disk_script
    SETUP_QUEUE
    cmpl $0xf, 0x70(%rdi)
    jne 9f
    SETUP_REQUEST
    movl $AVAIL, %esi
    movl $USED, %ebp
    xorl %ebx, %ebx
    xorl %r8d, %r8d
    movl $(SERIAL + 4), %edx
    movb $2, %al /* ready to receive */
    outb %al, (%dx)
2:  movl $(SERIAL + 5), %edx
3:  inb (%dx), %al
    testb $1, %al
    jz 3b
    movl $SERIAL, %edx
    inb (%dx), %al
    movl $SECTOR, %ecx
    imull $0x01000193, %ebx, %eax
4:  movl %eax, (%rcx)
    addl $0x9e3779b9, %eax
    addl $4, %ecx
    testl $0x1ff, %ecx
    jnz 4b
    imull $1237, %ebx, %edx
    andl $0x1fff, %edx
    REQUEST 1, 1
    movl %ebx, %edx
    shrl $1, %edx
    imull $1237, %edx, %edx
    andl $0x1fff, %edx
    REQUEST 0, 3
    movl $SECTOR, %ecx
    xorl %eax, %eax
5:  roll $5, %eax
    addl (%rcx), %eax
    addl $4, %ecx
    testl $0x1ff, %ecx
    jnz 5b
    movl $WORK, %ecx
    movl %eax, (%rcx, %rbx, 4)
    PUT '.'
    incl %ebx
    cmpl $STEPS, %ebx
    jb 2b
    PUT '#'
    jmp .
9:  PUT 'X'
    POWER_OFF
END_GUEST disk_script

/*
 * Reads of 16 MiB each, all there before the one kick: as much as the disk in
 * slot 0 takes in one round, three times. '.' for each that is done.
 */
    .set READS, 3
    .set PIECES, 64 /* of 256 KiB, one on the other */
GUEST disk_rounds
    SETUP_QUEUE size=256
    cmpl $0xf, 0x70(%rdi)
    jne 9f
    movl $DESC, %esi
    movl $AVAIL, %ebp
    xorl %ebx, %ebx /* of a descriptor, the next */
    xorl %r8d, %r8d
1:  movw %bx, 4(%rbp, %r8, 2)
    movq $HEADER, (%rsi) /* zeros: read sector 0 */
    movl $16, 8(%rsi)
    movw $1, 12(%rsi) /* next */
    movl $PIECES, %ecx
2:  incl %ebx
    movw %bx, 14(%rsi)
    addl $16, %esi
    movq $WORK, (%rsi)
    movl $0x40000, 8(%rsi)
    movw $3, 12(%rsi) /* next, writable */
    decl %ecx
    jnz 2b
    incl %ebx
    movw %bx, 14(%rsi)
    addl $16, %esi
    movq $DONE, (%rsi)
    movl $1, 8(%rsi)
    movw $2, 12(%rsi)
    addl $16, %esi
    incl %ebx
    incl %r8d
    cmpl $READS, %r8d
    jb 1b
    movw $READS, 2(%rbp)
    movl $0, 0x50(%rdi)
    movl $USED, %ebp
    xorl %ebx, %ebx
3:  cmpw %bx, 2(%rbp)
    je 3b
    incl %ebx
    PUT '.'
    cmpl $READS, %ebx
    jb 3b
    jmp .
9:  PUT 'X'
    POWER_OFF
END_GUEST disk_rounds

/* Writes to a page each, from 4 MiB on, and rests; again and again. */
    .macro DIRTY name, pages
GUEST \name
    xorl %ebx, %ebx
1:  movl $0x400000, %edi
    movl $\pages, %ecx
    incl %ebx
2:  movl %ebx, (%rdi)
    addl $4096, %edi
    decl %ecx
    jnz 2b
    PUT '.'
    movl $20000, %ecx
3:  decl %ecx
    jnz 3b
    jmp 1b
END_GUEST \name
    .endm

    DIRTY dirty_50, 50
    DIRTY dirty_1000, 1000
    DIRTY dirty_20000, 20000

/* Fills 200 pages from 4 MiB on, in runs; says so, and stays. */
GUEST ready
    movl $0x400000, %edi
    movl $200, %ecx
1:  movl %ecx, (%rdi)
    addl $4096, %edi
    testb $0x1f, %cl
    jnz 2f
    addl $65536, %edi
2:  decl %ecx
    jnz 1b
    leaq 3f(%rip), %rsi
    movl $(4f - 3f), %ecx
    movl $SERIAL, %edx
    cld
    rep outsb
    jmp .
3:  .ascii "ready\n"
4:
END_GUEST ready

    .macro SAY_READY
    leaq 7f(%rip), %rsi
    movl $6, %ecx
    movl $SERIAL, %edx
    cld
    rep outsb
    jmp 8f
7:  .ascii "ready\n"
8:
    .endm

/* Says that it is ready; then a line for each number, without end. */
GUEST ready_counts
    SAY_READY
    xorl %ebx, %ebx
1:  movl $(SERIAL + 5), %edx
    inb %dx, %al
    testb $0x20, %al
    jz 1b
    movl $SERIAL, %edx
    movl $8, %ecx
2:  roll $4, %ebx
    movb %bl, %al
    andb $15, %al
    addb $'a', %al
    outb %al, %dx
    decl %ecx
    jnz 2b
    movb $'\n', %al
    outb %al, %dx
    incl %ebx
    jmp 1b
END_GUEST ready_counts

/*
 * Says that it is ready; then, when a snapshot of it has been made, writes to
 * 15 clusters of its disk.
 */
GUEST ready_fills
    SETUP_QUEUE
    SETUP_REQUEST
    SAY_READY
    rdtsc
    movl %eax, %ebx
1:  rdtsc
    subl %ebx, %eax
    cmpl $0x60000000, %eax
    jb 1b
    movl $AVAIL, %esi
    movl $USED, %ebp
    xorl %ebx, %ebx
    xorl %r8d, %r8d
2:  movl %ebx, %edx
    REQUEST 1, 1
    addl $128, %ebx
    cmpl $(15 * 128), %ebx
    jb 2b
    jmp .
9:  POWER_OFF
END_GUEST ready_fills

/*
 * Says that it is ready; then, when a snapshot of it has been made, what lies at
 * 3 MiB, where it wrote a word before.
 */
GUEST ready_tells
    movl $0x300000, %edi
    movl $0x7470656b, (%rdi) /* "kept" */
    movb $'\n', 4(%rdi)
    SAY_READY
    rdtsc
    movl %eax, %ebx
1:  rdtsc
    subl %ebx, %eax
    cmpl $0x60000000, %eax
    jb 1b
    movl $0x300000, %esi
    movl $5, %ecx
    movl $SERIAL, %edx
    cld
    rep outsb
    POWER_OFF
END_GUEST ready_tells

/* Says so again and again, for a snapshot made of a snapshot. */
GUEST ready_again
    cld
1:  leaq 3f(%rip), %rsi
    movl $(4f - 3f), %ecx
    movl $SERIAL, %edx
    rep outsb
    movl $300000, %ecx
2:  decl %ecx
    jnz 2b
    jmp 1b
3:  .ascii "ready\n"
4:
END_GUEST ready_again

    .section .text
