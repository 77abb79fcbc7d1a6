/* SPDX-License-Identifier: MIT */
/* Exceptions in 64-bit mode: vectors, error codes, what is pushed; double faults (SDM table 6-5); IST. */
#define GUEST_SYMBOL(x) guest_except_##x
#define GUEST_LONG
#include "guest.inc"

        bits    64
user_int13:
        int     $13
user_int3:
        int3
user_hlt:
        hlt
user_in:
        inb     $0x80, %al
user_cli:
        cli
user_align:
        pushfq
        orl     $0x40000, (%rsp)
        popfq
        movl    U(user_align) + 1, %eax
user_cr:
        movq    %cr0, %rax

/* At CPL 3; then FAULT(). */
.macro user label
        try     77f
        movl    $U(\label), %eax
        jmp     enter_user64
77:
.endm

main64:
        try     1f
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        divl    %ecx
1:      FAULT(0, 0)
        try     1f
        movq    $0x100000000, %rdx
        movl    $1, %ecx
        idivq   %rcx
1:      FAULT(0, 0)
        try     1f
        ud2
1:      FAULT(6, 0)
        movq    A(last_flags), %rax     /* RF is set for a fault */
        andl    $0x10000, %eax
        EXPECT(0x10000)
        try     1f
2:      int3
1:      FAULT(3, 0)
        movq    A(last_ip), %rax        /* a trap: behind it */
        EXPECT(A(2b) + 1)
        movq    A(last_flags), %rax
        andl    $0x10000, %eax
        EXPECT(0)
        try     1f
        .byte   0x62, 0x01, 0x02, 0x03  /* BOUND is no instruction here (EVEX without AVX-512) */
1:      FAULT(6, 0)
        try     1f
        int     $40
1:      FAULT(40, 0)
        try     1f
        int     $200                    /* beyond the IDT's limit */
1:      FAULT_HW(13, 200 * 8 + 2)
        movw    $0, A(idt) + 41 * 16 + 4
        try     1f
        int     $41                     /* a gate of type 0 */
1:      FAULT_HW(13, 41 * 8 + 2)
        movw    $0x0e00, A(idt) + 41 * 16 + 4
        try     1f
        int     $41                     /* not present */
1:      FAULT_HW(11, 41 * 8 + 2)
        movw    $0x8e00, A(idt) + 41 * 16 + 4
        movw    $DATA32, A(idt) + 41 * 16 + 2
        try     1f
        int     $41                     /* not to a data segment */
1:      FAULT(13, DATA32)
        movw    $CODE32, A(idt) + 41 * 16 + 2
        try     1f
        int     $41                     /* nor to 32-bit code */
1:      FAULT(13, CODE32)
        movw    $CODE64, A(idt) + 41 * 16 + 2

        user    user_int13
        FAULT_HW(13, 13 * 8 + 2)
        user    user_int3
        FAULT(3, 0)
        movl    A(last_cs), %eax
        EXPECT(USER64)
        movl    A(last_ss), %eax
        EXPECT(USERDATA)
        movq    A(last_sp), %rax
        EXPECT(STACK_USR)
        user    user_hlt
        FAULT(13, 0)
        user    user_in
        FAULT(13, 0)
        user    user_cli
        FAULT(13, 0)
        user    user_cr
        FAULT(13, 0)
        movq    %cr0, %rax
        btsq    $18, %rax
        movq    %rax, %cr0
        user    user_align
        FAULT_HW(17, 0)

        /* CR0.TS: #NM for x87 and SSE; WAIT with MP only. */
        clts
        movq    %cr0, %rax
        orl     $8, %eax
        movq    %rax, %cr0
        try     1f
        fnop
1:      FAULT(7, 0)
        try     1f
        pxor    %xmm0, %xmm0
1:      FAULT(7, 0)
        try     1f
        fwait
1:      FAULT(7, 0)
        movq    %cr0, %rax
        andl    $~2, %eax
        movq    %rax, %cr0
        try     1f
        fwait
1:      NO_FAULT
        movq    %cr0, %rax
        orl     $6, %eax                /* EM */
        andl    $~8, %eax
        movq    %rax, %cr0
        try     1f
        pxor    %xmm0, %xmm0
1:      FAULT(6, 0)
        try     1f
        fnop
1:      FAULT(7, 0)
        movq    %cr0, %rax
        andl    $~4, %eax
        movq    %rax, %cr0
        movq    %cr4, %rax
        btrq    $9, %rax
        movq    %rax, %cr4
        try     1f
        pxor    %xmm0, %xmm0
1:      FAULT(6, 0)
        try     1f
        pxor    %mm0, %mm0
1:      NO_FAULT
        emms
        movq    %cr4, %rax
        btsq    $9, %rax
        movq    %rax, %cr4

        /* A fault on the way to a handler: contributory ones make a double fault, on IST 1. */
        movb    $1, A(idt) + 8 * 16 + 4
        movb    $0x0e, A(idt) + 13 * 16 + 5     /* #GP's gate not present: #NP while #GP */
        try     1f
        movabsq $0x1234567890abcdef, %rax
        movb    (%rax), %al
1:      FAULT(8, 0)
        movb    $0x8e, A(idt) + 13 * 16 + 5
        movb    $0x0e, A(idt) + 6 * 16 + 5      /* #UD is benign: the #NP is delivered */
        try     1f
        ud2
1:      FAULT_HW(11, 6 * 8 + 3)
        movb    $0x8e, A(idt) + 6 * 16 + 5
        movb    $0x0e, A(idt) + 14 * 16 + 5     /* #NP while #PF: double fault */
        try     1f
        movl    $0x600000, %eax
        movb    0x7fffffff(%rax), %al
1:      FAULT(8, 0)
        movb    $0x8e, A(idt) + 14 * 16 + 5
        /* No stack: #PF while pushing for #UD, #PF again while pushing for that: double fault. */
        try     1f
        movq    $0x70000000, %rsp
        ud2
1:      FAULT(8, 0)
        /* With an IST for #PF it is delivered: error code 2, a write by CPL 0. */
        movb    $1, A(idt) + 14 * 16 + 4
        try     1f
        movq    $0x70000000, %rsp
        ud2
1:      FAULT(14, 2)
        movq    A(last_cr2), %rax
        EXPECT(0x6ffffff8)
        movq    A(last_sp), %rax
        EXPECT(0x70000000)
        movb    $0, A(idt) + 14 * 16 + 4
        DONE
#include "guest_end.inc"
