/* SPDX-License-Identifier: MIT */
/*
 * Entry of the hand-written guest: PVH, 32-bit protected mode -> long mode -> CPL 3.
 *
 * It is made for hosts whose KVM runs code at CPL 3 natively and emulates CPL 0 slowly: ring 0 does
 * nothing but set up, take interrupts, and halt when CPL 3 asks for it by ud2.
 *
 *   selectors: 0x08 code64, 0x10 data, 0x18 user data, 0x20 user code64, 0x28 TSS
 */
    .section .note.pvh, "a"
    .align 4
    .long 4, 4, 18              /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long start32

    .text
    .code32
    .globl start32
start32:
    cld
    cli
    movl $boot_stack_top, %esp
    movl %ebx, start_info

    /* PML4[0] -> PDPT; PDPT[0..3] -> four directories of 2 MiB pages; all user-accessible. */
    movl $pdpt + 7, pml4
    movl $pd + 7, %eax
    movl $pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 1b
    movl $0x87, %eax
    movl $pd, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b

    movl %cr4, %eax
    orl $0x20, %eax             /* PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      /* EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax       /* PG, PE */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $start64

    .code64
start64:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    /* The TSS descriptor's base, then TR: the I/O bitmap of zeroes allows every port. */
    movl $tss, %eax
    movw %ax, gdt + 0x28 + 2
    shrl $16, %eax
    movb %al, gdt + 0x28 + 4
    movb %ah, gdt + 0x28 + 7
    movl $0x28, %eax
    ltr %ax
    lidt idt_pointer
    /* No interrupt before a driver asks for one: sti does not work at CPL 3 on such hosts. */
    movb $0xff, %al
    outb %al, $0x21
    outb %al, $0xa1
    pushq $0x1b                 /* SS: user data, RPL 3 */
    pushq $user_stack_top
    pushq $0x3202               /* RFLAGS: IOPL 3, interrupts on */
    pushq $0x23                 /* CS: user code, RPL 3 */
    pushq $guest_main
    iretq

/* MSI-X vector: count it, tell the LAPIC. */
    .globl irq_entry
irq_entry:
    lock incq irq_count
    pushq %rax
    movl $0xfee000b0, %eax
    movl $0, (%rax)
    popq %rax
    iretq

/* ud2 at CPL 3: halt until an interrupt, then go on behind the ud2 with interrupts on. */
    .globl ud_entry
ud_entry:
    addq $2, (%rsp)
    orq $0x200, 16(%rsp)
    sti
    hlt
    iretq

    .globl spurious_entry
spurious_entry:
    iretq

    .data
    .align 16
gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00cff2000000ffff
    .quad 0x00affa000000ffff
    .quad 0x0000890000002067    /* TSS: 0x68 bytes and 8 KiB of I/O bitmap */
    .quad 0
gdt_pointer:
    .word . - gdt - 1
    .quad gdt
idt_pointer:
    .word 256 * 16 - 1
    .quad idt

    .align 16
tss:
    .long 0
    .quad ring0_stack_top       /* RSP0 */
    .fill 0x66 - 12, 1, 0
    .word 0x68                  /* I/O bitmap */
    .fill 8192, 1, 0
    .byte 0xff

    .globl start_info, irq_count
    .align 8
start_info: .quad 0
irq_count:  .quad 0

    .bss
    .globl pml4, pdpt, idt
    .align 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pd:     .skip 4096 * 4
idt:    .skip 4096
boot_stack:
    .skip 4096
boot_stack_top:
    .skip 8192
ring0_stack_top:
    .skip 65536
user_stack_top:

    .section .note.GNU-stack, "", @progbits
