/* SPDX-License-Identifier: MIT */
/* Real mode -> protected -> long -> compatibility -> long -> protected -> real, and unreal mode. */
#define GUEST_SYMBOL(x) guest_modes_##x
#define GUEST_LONG
#include "guest.inc"

        bits    64
main64:
        movl    $64, %eax
        EXPECT(64)
        /* Compatibility mode, CPL 0: addresses and RSP are cut to 32 bits, REX bytes are INC and DEC. */
        movq    $1, %rbx
        ljmp    *A(to_compat)
        .balign 4
to_compat:
        .long   A(compat), CODE32
to_long:
        .long   A(long_again), CODE64

        bits    32
compat:
        movl    $DATA32, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        .byte   0x48                    /* DEC EAX */
        subl    $DATA32 - 1, %eax
        EXPECT(0)
        xorl    %eax, %eax
        .byte   0x40, 0x40              /* INC EAX twice */
        EXPECT(2)
        movl    $0xfffffff0, %ebx
        movl    A(word) + 0x10(%ebx), %eax
        EXPECT(0x600df00d)
        ljmp    *A(to_long)

        bits    64
long_again:
        movl    $65, %eax
        EXPECT(65)
        /* 16-bit compatibility code. */
        pushq   $CODE16
        pushq   $A(compat16)
        lretq
        bits    16
compat16:
        movw    $0x1234, %ax
        pushw   %ax
        popw    %bx
        movzwl  %bx, %eax
        subl    $0x1234, %eax
        ljmpl   $CODE32, $A(compat32)
        bits    32
compat32:
        EXPECT(0)

        /* Out of long mode: paging off clears LMA. */
        movl    %cr0, %eax
        btrl    $31, %eax
        movl    %eax, %cr0
        movl    $0xc0000080, %ecx
        rdmsr
        andl    $0x500, %eax
        EXPECT(0x100)
        btrl    $8, %eax
        rdmsr
        btrl    $8, %eax
        wrmsr
        movl    $DATA32, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %ss
        movl    $32, %eax
        EXPECT(32)
        /* Real mode: through 16-bit code. */
        lidt    A(real_idt)
        movl    %esp, %ebp
        ljmp    $CODE16, $A(prot16)
        bits    16
prot16:
        movw    $DATA16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    %cr0, %eax
        andl    $~1, %eax
        movl    %eax, %cr0
        ljmp    $0, $A(real)
real:
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $STACK, %sp
        movl    $16, %eax
        EXPECT(16)
        /* Segment arithmetic and the wrap that is none (A20 on). */
        movw    $0xffff, %ax
        movw    %ax, %es
        movl    $0xcafe, %es:0x10 + 0x100 /* 0x100100 */
        movw    $0x1001, %ax
        movw    %ax, %es
        movb    $0x77, %es:0x20
        pushw   $0x1000
        popw    %es
        movzbl  %es:0x30, %eax
        EXPECT(0x77)
        /* Interrupts by the vector table; flags. */
        movw    $A(real_int), 0x80 * 4
        movw    $0, 0x80 * 4 + 2
        sti
        stc
        int     $0x80
        movzwl  %ax, %eax
        EXPECT(0x0003)
        pushfw
        popw    %ax
        andw    $0x200, %ax
        movzwl  %ax, %eax
        EXPECT(0x200)
        cli
        /* #DE by the table: the fault's own address is pushed. */
        movw    $A(real_de), 0
        movw    $0, 2
        xorw    %cx, %cx
20:     divw    %cx
        movzwl  %bx, %eax
        EXPECT(A(20b))
        /* A word at 0xffff: #GP (vector 13, no error code). */
        movw    $A(real_gp), 13 * 4
        movw    $0, 13 * 4 + 2
        movw    $0xffff, %bx
        movw    (%bx), %ax
        EXPECT_HW(0x1313)
        /* Unreal: FS keeps its 4 GiB limit from protected mode. */
        movl    $0x200, %ebx
        movl %fs:FREE(%ebx), %eax
        movl    $0x55aa, %eax
        movl %eax, %fs:FREE(%ebx)
        movl %fs:FREE(%ebx), %eax
        EXPECT(0x55aa)
        /* And back to protected mode. */
        lgdtl   A(gdt_pointer)
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $CODE32, $A(prot32)
real_int:
        pushw   %bp
        movw    %sp, %bp
        movw    6(%bp), %ax             /* FLAGS as pushed */
        andw    $3, %ax
        popw    %bp
        iretw
real_de:
        pushw   %bp
        movw    %sp, %bp
        movw    2(%bp), %bx
        addw    $2, 2(%bp)
        popw    %bp
        iretw
real_gp:
        pushw   %bp
        movw    %sp, %bp
        addw    $2, 2(%bp)
        movl    $0x1313, %eax
        popw    %bp
        iretw
        bits    32
prot32:
        movl    $DATA32, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $STACK, %esp
        movl    $33, %eax
        EXPECT(33)
        DONE
        .balign 4
word:   .long   0x600df00d
real_idt:
        .word   0x3ff
        .long   0
#include "guest_end.inc"
