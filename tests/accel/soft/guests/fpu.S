/* SPDX-License-Identifier: MIT */
/* x87 and SSE exceptions; FXSAVE. */
#define GUEST_SYMBOL(x) guest_fpu_##x
#define GUEST_LONG
#include "guest.inc"

#define AREA FREE

        bits    64
        .balign 8
three:  .quad   0x4008000000000000
tiny:   .quad   0x0000000000000001
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
        DONE
#include "guest_end.inc"
