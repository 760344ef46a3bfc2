/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests that use their disk in slot 0 without end, whatever the host's storage
 * makes of it. Included in tests/bare_guests.c behind snapshot.S, whose macros
 * they use.
 */

    .set FLUSH, 1 << 9
    .set WRITE_ZEROES, 1 << 14

/* Writes a sector, and another; 'b' before the first, '.' after each. Without
 * the feature FLUSH each is synced. */
    .macro WRITES name, features
GUEST \name
    SETUP_QUEUE \features
    SETUP_REQUEST
    PUT 'b'
    movl $AVAIL, %esi
    movl $USED, %ebp
    xorl %ebx, %ebx
    xorl %r8d, %r8d
2:  movl %ebx, %edx
    andl $0x1fff, %edx
    REQUEST 1, 1
    PUT '.'
    addl $128, %ebx
    jmp 2b
9:  PUT 'X'
    POWER_OFF
END_GUEST \name
    .endm

    WRITES disk_synced_writes, 0
    WRITES disk_writes, FLUSH

/* Computes; when a write is done, it begins the next. */
GUEST disk_write_spin
    SETUP_QUEUE
    SETUP_REQUEST
    movl $HEADER, %ecx
    movl $1, (%rcx)
    movl $AVAIL, %esi
    movl $USED, %ebp
    xorl %r8d, %r8d
    PUT 'b'
1:  cmpw %r8w, 2(%rbp)
    jne 1b
    incl %r8d
    movw %r8w, 2(%rsi)
    movl $0, 0x50(%rdi)
    jmp 1b
END_GUEST disk_write_spin

/* Zeros the first 64 MiB of its disk by one request; again and again. */
GUEST disk_zeroes
    SETUP_QUEUE FLUSH | WRITE_ZEROES
    SETUP_REQUEST
    movl $DESC, %ecx
    movl $16, 16 + 8(%rcx)
    movl $SECTOR, %ecx
    movq $0, (%rcx)
    movl $(1 << 17), 8(%rcx)
    movl $0, 12(%rcx)
    PUT 'b'
    movl $AVAIL, %esi
    movl $USED, %ebp
    xorl %r8d, %r8d
2:  xorl %edx, %edx
    REQUEST 13, 1
    PUT '.'
    jmp 2b
9:  PUT 'X'
    POWER_OFF
END_GUEST disk_zeroes
