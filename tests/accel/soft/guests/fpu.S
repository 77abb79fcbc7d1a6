/* SPDX-License-Identifier: MIT */
/* x87 and SSE exceptions; XSAVE, XSAVEC, XSAVEOPT, XSAVES, FXSAVE, XGETBV. */
#define GUEST_SYMBOL(x) guest_fpu_##x
#define GUEST_LONG
#include "guest.inc"

#define AREA FREE

        bits    64
        .balign 8
three:  .quad   0x4008000000000000
tiny:   .quad   0x0000000000000001
one:    .quad   0x3ff0000000000000
control: .word  0x37b               /* ZM clear */
mxcsr:  .long   0x1d80              /* ZM clear */
mxcsr_default: .long 0x1f80
bad_mxcsr: .long 0x80000000
got:    .quad   0

main64:
        fninit
        /* #MF comes with the next waiting instruction, and shows where that is. */
        fldcw   A(control)
        fldz
        fld1
        try     2f
        fdiv    %st(1), %st             /* 1 / 0: ZE pending */
        nop
20:     fld1
2:      FAULT_HW(16, 0)
        movq    A(last_ip), %rax
        EXPECT_HW(A(20b))
        fnstsw  %ax
        andl    $0x80bf, %eax           /* B, ES, ZE */
        EXPECT(0x8084)
        try     1f
        fwait
1:      FAULT(16, 0)
        try     1f
        emms
1:      FAULT_HW(16, 0)
        fnclex
        try     1f
        fwait
1:      NO_FAULT
        fninit

        /* #XM; without CR4.OSXMMEXCPT #UD. The flag is set, the destination is not. */
        ldmxcsr A(mxcsr)
        movsd   A(three), %xmm1
        xorpd   %xmm2, %xmm2
        try     1f
        divsd   %xmm2, %xmm1
1:      FAULT_HW(19, 0)
        stmxcsr A(got)
        movl    A(got), %eax
        EXPECT(0x1d84)
        movq    %xmm1, %rax
        EXPECT_HW(0x4008000000000000)
        ldmxcsr A(mxcsr)
        movq    %cr4, %rax
        btrq    $10, %rax
        movq    %rax, %cr4
        try     1f
        divsd   %xmm2, %xmm1
1:      FAULT_HW(6, 0)
        movq    %cr4, %rax
        btsq    $10, %rax
        movq    %rax, %cr4
        ldmxcsr A(mxcsr_default)
        try     1f
        ldmxcsr A(bad_mxcsr)
1:      FAULT_HW(13, 0)
        divsd   %xmm2, %xmm1
        movq    %xmm1, %rax
        EXPECT(0x7ff0000000000000)

        /* FXSAVE and back; alignment. */
        fninit
        fldpi
        movl    $AREA, %edi
        fxsave  (%rdi)
        movzwl  (%rdi), %eax
        EXPECT(0x37f)
        movzbl  4(%rdi), %eax
        EXPECT(0x80)
        movq    32(%rdi), %rax
        EXPECT(0xc90fdaa22168c235)
        movq    176(%rdi), %rax         /* XMM1 */
        EXPECT(0x7ff0000000000000)
        try     1f
        fxsave  8(%rdi)
1:      FAULT(13, 0)
        movl    $0xffffffff, 24(%rdi)
        try     1f
        fxrstor (%rdi)
1:      FAULT_HW(13, 0)

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
        try     1f
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $2, %eax                /* not without x87 */
        xsetbv
1:      FAULT(13, 0)
        try     1f
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $5, %eax                /* AVX without SSE */
        xsetbv
1:      FAULT(13, 0)
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $3, %eax
        xsetbv
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
        /* XRSTOR brings a component whose bit is clear to its initial state. */
        movq    $0, 512(%rdi)
        movl    $2, %eax
        xrstor  (%rdi)
        movq    %xmm1, %rax
        EXPECT(0)
        movq    $8, 512(%rdi)           /* a bit that XCR0 lacks */
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
