/* SPDX-License-Identifier: MIT */
/*
 * Firmware that tests what only firmware sees: the A20 gate, SMIs and SMRAM. A ROM of 64 KiB at 0xf0000
 * (firmware.py). Real mode, but for the page walk.
 */
#define PM         0x600
#define SMI_PORT   0xb2
#define LAPIC      0xfee00000
#define SVR        0xf0
#define ICR        0x300
#define ICR_SMI    0x4200 /* assert; physical destination */
#define SMBASE     0x30000 /* after RESET */
#define SMRAM      0xa0000
#define AREA_BASE  0xff00 /* from SMBASE: the area's SMBASE (AMD APM volume 2, table 10-1) */
#define AREA_RAX   0xfff8
#define FIRST      0x700 /* SMIs at the old SMBASE */
#define SECOND     0x704 /* what the handler in SMRAM has counted */
#define SEEN       0x708 /* what it found in AL */

        .code16
        .text
        .globl  _start
_start:
start:
        cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7000, %sp
        jmp     a20

#include "rom.inc"

/* ---- A20 --------------------------------------------------------------------------------------- */

/* 0x500 and 0x600, and what lies 1 MiB above them by way of segment 0xffff. */
a20:
        movw    $0xffff, %ax
        movw    %ax, %es
        movw    $0x1234, 0x500
        movw    $0x5678, %es:0x510
        movw    0x500, %ax
        check   a20-open, 0x1234
        movl    $0xcb1111b8, 0x600      /* MOV AX, 0x1111; RETF */
        movl    $0xcb2222b8, %es:0x610

        lcall   $0xffff, $0x610
        check   a20-open-code, 0x2222
        movb    $0, %al
        outb    %al, $0x92
        movw    %es:0x510, %ax
        check   a20-closed-read, 0x1234
        cmpw    $0x5678, %ax
        je      a20_opened              /* KVM has no gate */
        movw    $0x9abc, %es:0x510
        movw    0x500, %ax
        check   a20-closed-write, 0x9abc
        lcall   $0xffff, $0x610
        check   a20-closed-code, 0x1111

        /* The walker: CR3 says 0x110000, where there is nothing; 0x10000 has a table. */
        movw    $0x1000, %ax
        movw    %ax, %fs
        movl    $0x83, %fs:0            /* 4 MiB, identical */
        addr32 lgdtl %cs:gdt_pointer
        movl    %cr4, %eax
        orb     $0x10, %al
        movl    %eax, %cr4
        movl    $0x110000, %eax
        movl    %eax, %cr3
        movl    %cr0, %eax
        orl     $0x80000001, %eax
        movl    %eax, %cr0
        movw    $8, %bx                 /* data, base 0, 4 GiB */
        movw    %bx, %gs
        movl    $0x100500, %ecx
        addr32 movw %gs:(%ecx), %bx
        andl    $0x7ffffffe, %eax
        movl    %eax, %cr0
        movw    %bx, %ax
        check   a20-closed-walk, 0x9abc

        movb    $0xdf, %al              /* the keyboard controller opens it */
        outb    %al, $0x64
        movw    %es:0x510, %ax
        check   a20-8042-open, 0x5678
        movb    $0xdd, %al
        outb    %al, $0x64
        movw    %es:0x510, %ax
        check   a20-8042-closed, 0x9abc
a20_opened:
        movb    $2, %al
        outb    %al, $0x92
        movw    %es:0x510, %ax
        check   a20-opened, 0x5678
        jmp     smm

/* ---- PCI ---------------------------------------------------------------------------------------- */

/* EAX: address; the configuration byte CL. */
pci_write:
        movw    $0xcf8, %dx
        pushl   %eax
        andb    $0xfc, %al
        outl    %eax, %dx
        popl    %eax
        andw    $3, %ax
        addw    $0xcfc, %ax
        movw    %ax, %dx
        movb    %cl, %al
        outb    %al, %dx
        ret
.macro pci function, offset, value
        movl    $0x80000000 | (\function) << 8 | (\offset), %eax
        movb    $\value, %cl
        call    pci_write
.endm
/* CL: the SMRAM register of the host bridge. */
set_smram:
        movl    smram_register, %eax
        jmp     pci_write
.macro smram value
        movb    $\value, %cl
        call    set_smram
.endm
smram_register = 0x710

/* ---- SMM ---------------------------------------------------------------------------------------- */

smm:
        xorw    %ax, %ax
        movw    %ax, %es
        movl    $0, FIRST
        movl    $0, SECOND
        movl    $0x80000000, %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movw    $0xcfc, %dx
        inl     %dx, %eax
        cmpl    $0x29c08086, %eax
        je      1f
        movl    $0x80000072, smram_register     /* i440FX; PIIX4 */
        pci     0x0b, 0x41, PM >> 8
        pci     0x0b, 0x40, 1
        pci     0x0b, 0x80, 1
        pci     0x0b, 0x5b, 2           /* DEVACTB: APMC_EN */
        movw    $PM + 0x28, %dx         /* GLBCTL: SMI_EN */
        movl    $1, %eax
        outl    %eax, %dx
        jmp     2f
1:      movl    $0x8000009d, smram_register     /* Q35; ICH9 */
        pci     0xf8, 0x41, PM >> 8
        pci     0xf8, 0x40, 0x80 & 0
        pci     0xf8, 0x44, 0x80
        movw    $PM + 0x30, %dx         /* SMI_EN: APMC_EN, GBL_SMI_EN */
        movl    $0x21, %eax
        outl    %eax, %dx
2:
        /* The first handler moves SMBASE. */
        movw    $SMBASE >> 4, %ax
        movw    %ax, %es
        movw    $0x8000, %di
        movw    $handler_first, %si
        movw    $handler_first_end - handler_first, %cx
        rep movsb %cs:(%si), %es:(%di)
        movb    $0x55, %al
        outb    %al, $SMI_PORT
        movw    FIRST, %ax
        check   smi-first, 1

        /* The second one is in SMRAM, while that is open. */
        smram   0x4a
        movw    $SMRAM >> 4, %ax
        movw    %ax, %es
        movw    $0x8000, %di
        movw    $handler_second, %si
        movw    $handler_second_end - handler_second, %cx
        rep movsb %cs:(%si), %es:(%di)
        movw    $0, %es:0x9000
        movw    %es:0x8000, %ax
        cmpw    %cs:handler_second, %ax
        sete    %al
        xorb    %ah, %ah
        check   smram-open, 1
        smram   0x0a
        movw    %es:0x8000, %ax
        check   smram-closed, 0xffff
        movw    $0x7777, %es:0x9000     /* to nobody */

        movw    $0x66, %ax
        outb    %al, $SMI_PORT
        check   smi-result, 0x4321      /* AX, from the area in SMRAM */
        movw    SECOND, %ax
        check   smi-second, 1
        movw    SEEN, %ax
        check   smi-saved, 0x66
        movb    $0x67, %al
        outb    %al, $SMI_PORT
        movw    SECOND, %ax
        check   smi-third, 2
        movw    FIRST, %ax
        check   smi-moved, 1
        movw    %es:0x9000, %ax
        check   smram-hidden, 0xffff

        smram   0x1a                    /* locked: cannot be opened */
        smram   0x4a
        movw    %es:0x8000, %ax
        check   smram-locked, 0xffff
        movb    $0x68, %al
        outb    %al, $SMI_PORT
        movw    SECOND, %ax
        check   smi-locked, 3

        /* By the local APIC: an IPI to itself. */
        addr32 lgdtl %cs:gdt_pointer
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        movw    $8, %bx
        movw    %bx, %gs
        andb    $0xfe, %al
        movl    %eax, %cr0
        movl    $LAPIC, %ebx
        addr32 movl $0x1ff, %gs:SVR(%ebx)
        addr32 movl $0, %gs:ICR + 0x10(%ebx)
        addr32 movl $ICR_SMI, %gs:ICR(%ebx)
        movl    $1000000, %ecx          /* if it does not come at once */
1:      pause
        cmpw    $4, SECOND
        je      1f
        decl    %ecx
        jnz     1b
1:      movw    SECOND, %ax
        check   smi-ipi, 4

        finish

/* In SMM: like real mode, DS has base 0 and 4 GiB. */
handler_first:
        addr32 incw FIRST
        addr32 movl $SMRAM, SMBASE + AREA_BASE
        rsm
handler_first_end:

handler_second:
        movl    $SMRAM, %ebx
        addr32 incw 0x9000(%ebx)
        addr32 movw 0x9000(%ebx), %ax
        addr32 movw %ax, SECOND
        addr32 movzbw AREA_RAX(%ebx), %ax
        addr32 movw %ax, SEEN
        addr32 movw $0x4321, AREA_RAX(%ebx)
        rsm
handler_second_end:

        .balign 8
gdt:
        .quad   0
        .quad   0x00cf93000000ffff
gdt_pointer:
        .word   15
        .long   0xf0000 + gdt

        reset_vector
