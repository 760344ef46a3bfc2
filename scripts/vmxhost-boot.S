/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The boot sector of scripts/vmxhost's disk: reads an unpacked kernel and its
 * initrd from the same disk and enters the kernel by the way that Linux calls
 * PVH, as QEMU does for scripts/kvmhost. Bochs itself loads no kernel, and
 * boot loaders load only packed ones: to unpack itself takes Debian's kernel
 * longer there than all the rest of its start.
 *
 * The sector is followed by the command line (one chunk), the kernel and the
 * initrd, each padded to chunks. Sizes and addresses are defined by
 * whoever assembles this: KERNEL_CHUNKS, KERNEL, PVH_ENTRY, INITRD_CHUNKS,
 * INITRD, INITRD_SIZE. For Bochs only: its disks are always ready in time.
 */
    .equ COMMAND_LINE, 0x20000
    .equ MEMORY_MAP, 0x8000
    .equ MEMORY_MAP_ENTRY_SIZE, 24
    .equ CHUNK_SECTORS, 256 /* what one command reads: 128 KiB */

    .equ ATA_DATA, 0x1f0
    .equ ATA_SECTORS, 0x1f2
    .equ ATA_LBA, 0x1f3 /* and the next three */
    .equ ATA_STATUS, 0x1f7
    .equ ATA_READ, 0x20
    .equ ATA_BUSY, 0x80
    .equ ATA_DATA_REQUEST, 0x08

    .code16
    .globl _start
_start:
    ljmp $0, $1f
1:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $_start, %sp

    /* The memory map, from the BIOS. */
    movw $MEMORY_MAP, %di
    xorl %ebx, %ebx
2:  movl $0xe820, %eax
    movl $0x534d4150, %edx
    movl $20, %ecx
    int $0x15
    jc 3f
    addw $MEMORY_MAP_ENTRY_SIZE, %di
    incl map_entries
    testl %ebx, %ebx
    jnz 2b

    /* Protected mode, with all address lines. */
3:  cli
    inb $0x92, %al
    orb $2, %al
    outb %al, $0x92
    lgdtl gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $4f
    .code32
4:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss

    movl $1, %ebp /* the next sector */
    movl $COMMAND_LINE, %edi
    movl $1, %esi
    call read_chunks
    movl $KERNEL, %edi
    movl $KERNEL_CHUNKS, %esi
    call read_chunks
    movl $INITRD, %edi
    movl $INITRD_CHUNKS, %esi
    call read_chunks
    movl $start_info, %ebx
    movl $PVH_ENTRY, %eax
    jmp *%eax

/* ESI chunks from sector EBP on to EDI. */
read_chunks:
    movl $ATA_SECTORS, %edx
    xorl %eax, %eax /* 256 */
    outb %al, %dx
    movl %ebp, %eax
    orl $0xe0000000, %eax /* the first disk, by sector numbers */
    movl $4, %ecx
1:  incl %edx
    outb %al, %dx
    shrl $8, %eax
    loop 1b
    movl $ATA_STATUS, %edx
    movb $ATA_READ, %al
    outb %al, %dx
    movl $CHUNK_SECTORS, %ebx
2:  movl $ATA_STATUS, %edx
    inb %dx, %al
    andb $ATA_BUSY | ATA_DATA_REQUEST, %al
    cmpb $ATA_DATA_REQUEST, %al
    jne 2b
    movl $ATA_DATA, %edx
    movl $256, %ecx
    rep insw
    decl %ebx
    jnz 2b
    addl $CHUNK_SECTORS, %ebp
    decl %esi
    jnz read_chunks
    ret

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* code */
    .quad 0x00cf93000000ffff /* data */
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    /* struct hvm_start_info and hvm_modlist_entry of Xen's public headers. */
    .balign 8
start_info:
    .long 0x336ec578, 1, 0, 1
    .long initrd, 0, COMMAND_LINE, 0
    .long 0, 0 /* the kernel looks for the ACPI tables itself */
    .long MEMORY_MAP, 0
map_entries:
    .long 0, 0
initrd:
    .long INITRD, 0, INITRD_SIZE, 0, 0, 0, 0, 0

    .org 510
    .word 0xaa55
