/* SPDX-License-Identifier: MIT */
/* XCR0; XSAVE, XSAVEC and XRSTOR of x87, SSE and AVX state. */
#define GUEST_SYMBOL(x) guest_xsave_##x
#define GUEST_LONG
#include "guest.inc"

#define AREA FREE
#define BAD_XCR0(value) try 1f; xorl %ecx, %ecx; xorl %edx, %edx; movl $value, %eax; xsetbv; 1: FAULT(13, 0)

        bits    64
        .balign 8
three:  .quad   0x4008000000000000
one:    .quad   0x3ff0000000000000
infinity: .quad 0x7ff0000000000000

main64:
        movsd   A(infinity), %xmm1
        /* XSAVE: without CR4.OSXSAVE #UD. */
        movl    $1, %eax
        cpuid
        btl     $26, %ecx
        jnc     no_xsave
        try     1f
        xorl    %ecx, %ecx
        xgetbv
1:      FAULT(6, 0)
        movl    $1, %eax
        cpuid
        shrl    $27, %ecx
        movl    %ecx, %eax
        andl    $1, %eax
        EXPECT(0)
        movq    %cr4, %rax
        btsq    $18, %rax
        movq    %rax, %cr4
        movl    $1, %eax
        cpuid
        shrl    $27, %ecx
        movl    %ecx, %eax
        andl    $1, %eax
        EXPECT(1)
        xorl    %ecx, %ecx
        xgetbv
        EXPECT(1)
        BAD_XCR0(2)                     /* not without x87 */
        BAD_XCR0(5)                     /* AVX without SSE */
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $3, %eax
        xsetbv
        /*
         * XCR0 outlives an exit. Not under QEMU 7.2's SVM, which does not let a nested guest's
         * XSETBV exit: L1 never learns of it, and restores the old value at the next entry. What
         * follows then depends on when the next exit comes: not checked there.
         */
        outb    %al, $0x80
        xorl    %ecx, %ecx
        xgetbv
        EXPECT_HW(3)
        cmpl    $3, %eax
        jne     no_xsave
        /* What is asked for and not in use is not saved, its bit is clear. */
        movl    $AREA, %edi
        movl    $64, %ecx
        xorl    %eax, %eax
        rep stosq
        movl    $AREA, %edi
        movl    $2, %eax
        xorl    %edx, %edx
        xsave   (%rdi)
        movq    512(%rdi), %rax
        EXPECT(2)
        movq    176(%rdi), %rax
        EXPECT(0x7ff0000000000000)
        movl    32(%rdi), %eax          /* x87: not asked for */
        EXPECT(0)
        /* XGETBV 1: what XCR0 has and is in use. */
        movl    $0xd, %eax
        movl    $1, %ecx
        cpuid
        btl     $2, %eax
        jnc     no_xgetbv_1
        movl    $1, %ecx
        xgetbv
        andl    $0xfffffffe, %eax       /* x87 may be in use or not */
        EXPECT(2)
        movl    %edx, %eax
        EXPECT(0)
no_xgetbv_1:
        /* XRSTOR brings a component whose bit is clear to its initial state. */
        movq    $0, 512(%rdi)
        movl    $2, %eax
        xrstor  (%rdi)
        movq    %xmm1, %rax
        EXPECT(0)
        movl    $0xd, %eax
        movl    $1, %ecx
        cpuid
        btl     $2, %eax
        jnc     2f
        movl    $1, %ecx
        xgetbv
        andl    $2, %eax                /* XMM0 to XMM15 are all 0, MXCSR is not asked for */
        EXPECT(0)
        xorl    %edx, %edx
2:      movq    $8, 512(%rdi)           /* a bit that XCR0 lacks */
        movl    $3, %eax
        try     1f
        xrstor  (%rdi)
1:      FAULT(13, 0)
        movq    $1, 520(%rdi)           /* reserved in the header */
        movq    $0, 512(%rdi)
        movl    $3, %eax
        try     1f
        xrstor  (%rdi)
1:      FAULT(13, 0)
        movq    $0, 520(%rdi)
        try     1f
        xsave   8(%rdi)
1:      FAULT(13, 0)

        /* AVX state, and VZEROUPPER, where there is AVX. */
        movl    $1, %eax
        cpuid
        btl     $28, %ecx
        jnc     no_avx
        try     1f
        vxorps  %ymm0, %ymm0, %ymm0
1:      FAULT(6, 0)                     /* XCR0 lacks it */
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $7, %eax
        xsetbv
        movsd   A(three), %xmm1
        vbroadcastsd A(one), %ymm3
        movl    $AREA, %edi
        movl    $7, %eax
        xorl    %edx, %edx
        xsave   (%rdi)
        movq    576 + 48(%rdi), %rax    /* upper half of YMM3 */
        EXPECT(0x3ff0000000000000)
        movq    512(%rdi), %rax
        andl    $4, %eax
        EXPECT(4)
        vzeroupper
        movl    $4, %eax
        xorl    %edx, %edx
        xrstor  (%rdi)
        vextractf128 $1, %ymm3, %xmm4
        movq    %xmm4, %rax
        EXPECT(0x3ff0000000000000)
        vxorps  %xmm3, %xmm3, %xmm3     /* VEX.128 clears the upper half */
        vextractf128 $1, %ymm3, %xmm4
        movq    %xmm4, %rax
        EXPECT(0)
        /* XSAVEC: compact form. */
        movl    $0xd, %eax
        movl    $1, %ecx
        cpuid
        btl     $1, %eax
        jnc     no_avx
        vbroadcastsd A(one), %ymm3
        movl    $AREA, %edi
        movl    $4, %eax
        xorl    %edx, %edx
        xsavec  (%rdi)
        movq    520(%rdi), %rax
        EXPECT(0x8000000000000004)
        movq    576 + 48(%rdi), %rax
        EXPECT(0x3ff0000000000000)
        vzeroupper
        movl    $4, %eax
        xrstor  (%rdi)
        vextractf128 $1, %ymm3, %xmm4
        movq    %xmm4, %rax
        EXPECT(0x3ff0000000000000)
no_avx:
no_xsave:
        DONE
#include "guest_end.inc"
