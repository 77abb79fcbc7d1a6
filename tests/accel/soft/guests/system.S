/* SPDX-License-Identifier: MIT */
/* MSRs, time, random numbers, UMIP, control registers' reserved bits, hypercalls. */
#define GUEST_SYMBOL(x) guest_system_##x
#define GUEST_LONG
#include "guest.inc"

        bits    64
user_sgdt:
        sgdt    STACK_USR - 32
        int3
user_sidt:
        sidt    STACK_USR - 32
        int3
user_sldt:
        sldt    %rax
        int3
user_str:
        str     %rax
        int3
user_smsw:
        smsw    %rax
        int3
user_rdtsc:
        rdtsc
        int3
user_vmcall:
        xorl    %eax, %eax
        vmmcall
        int3
.macro user label
        try     77f
        movl    $U(\label), %eax
        jmp     enter_user64
77:
.endm
.macro cr4_bit how, bit
        movq    %cr4, %rax
        \how    $\bit, %rax
        movq    %rax, %cr4
.endm

main64:
        /* Time goes on; RDTSC at CPL 3 hangs on CR4.TSD. */
        rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        movq    %rax, %rbx
        rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        cmpq    %rbx, %rax
        seta    %al
        movzbl  %al, %eax
        EXPECT(1)
        user    user_rdtsc
        FAULT(3, 0)
        cr4_bit btsq, 2
        user    user_rdtsc
        FAULT(13, 0)
        rdtsc                           /* CPL 0 may */
        cr4_bit btrq, 2
        /* RDTSCP, RDPID: TSC_AUX. */
        movl    $0x80000001, %eax
        cpuid
        btl     $27, %edx
        jnc     1f
        movl    $0xc0000103, %ecx
        movl    $0x1234, %eax
        xorl    %edx, %edx
        wrmsr
        rdtscp
        movl    %ecx, %eax
        EXPECT(0x1234)
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        btl     $22, %ecx
        jnc     1f
        rdpid   %rax
        EXPECT(0x1234)
1:
        /* MSRs that do not exist; the PAT's reserved types. */
        try     1f
        movl    $0x12345678, %ecx
        rdmsr
1:      FAULT(13, 0)
        try     1f
        movl    $0x12345678, %ecx
        wrmsr
1:      FAULT(13, 0)
        movl    $0x277, %ecx
        rdmsr
        EXPECT(0x00070406)
        movl    %edx, %eax
        EXPECT(0x00070406)
        try     1f
        movl    $0x277, %ecx
        movl    $0x00070402, %eax
        wrmsr
1:      FAULT(13, 0)
        movl    $0xfe, %ecx             /* MTRRCAP is read-only */
        try     1f
        rdmsr
        wrmsr
1:      FAULT(13, 0)

        /* Machine checks: banks that can be counted, none reported. */
        movl    $0x179, %ecx            /* MCG_CAP */
        try     1f
        rdmsr
        andl    $0xff, %eax
        setnz   %bl
1:      NO_FAULT
        movzbl  %bl, %eax
        EXPECT(1)
        movl    $0x401, %ecx            /* MC0_STATUS */
        rdmsr
        EXPECT(0)
        /* TSC_ADJUST: writing the TSC moves it by as much (SDM volume 3, 17.17.3). */
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        btl     $1, %ebx
        jnc     1f
        movl    $0x3b, %ecx
        rdmsr
        movl    %eax, %esi
        movl    $0x10, %ecx
        rdmsr
        addl    $16, %edx               /* 2^36 further */
        wrmsr
        movl    $0x3b, %ecx
        rdmsr
        movl    %edx, %eax
        addl    $1, %eax                /* time has passed in between */
        andl    $~1, %eax
        EXPECT(16)
1:
        /* x2APIC: the registers are MSRs; the id is CPUID 0BH's; a deadline that has passed. */
        movl    $1, %eax
        cpuid
        btl     $21, %ecx
        jnc     1f
        movl    $0x1b, %ecx
        rdmsr
        orl     $0x400, %eax
        wrmsr
        movl    $0x802, %ecx
        rdmsr
        EXPECT(0)
        movl    $0x80f, %ecx
        movl    $0x1ff, %eax
        xorl    %edx, %edx
        wrmsr
        rdmsr
        EXPECT(0x1ff)
        try     2f
        movl    $0x80e, %ecx            /* no DFR in this mode */
        rdmsr
2:      FAULT(13, 0)
        movl    $1, %eax
        cpuid
        btl     $24, %ecx
        jnc     1f
        movl    $0x832, %ecx
        movl    $0x40000 + 45, %eax     /* deadline, vector 45 */
        xorl    %edx, %edx
        wrmsr
        try     2f
        rdtsc
        addl    $10000, %eax
        movl    $0x6e0, %ecx
        wrmsr
        sti
3:      hlt
        jmp     3b
2:      cli
        FAULT(45, 0)
        movl    $0x6e0, %ecx            /* it has gone off: zero */
        rdmsr
        EXPECT(0)
        movl    $0x80b, %ecx
        xorl    %eax, %eax
        xorl    %edx, %edx
        wrmsr
1:
        /* RDRAND, RDSEED: CF, other flags clear. */
        movl    $1, %eax
        cpuid
        btl     $30, %ecx
        jnc     1f
        rdrand  %rbx
        pushfq
        popq    %rax
        andl    $0x8d5, %eax
        EXPECT(1)
        rdrand  %rcx
        cmpq    %rbx, %rcx
        setne   %al
        movzbl  %al, %eax
        EXPECT(1)
1:
        /* UMIP. */
        user    user_sgdt
        FAULT(3, 0)
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        btl     $2, %ecx
        jnc     1f
        cr4_bit btsq, 11
        user    user_sgdt
        FAULT(13, 0)
        user    user_sidt
        FAULT(13, 0)
        user    user_sldt
        FAULT(13, 0)
        user    user_str
        FAULT(13, 0)
        user    user_smsw
        FAULT(13, 0)
        sgdt    FREE
        movzwl  FREE, %eax
        EXPECT(gdt_end - gdt - 1)
        cr4_bit btrq, 11
1:      str     %rax
        EXPECT(TSS_SEL)
        smsw    %eax
        andl    $0xffff, %eax
        EXPECT(0x33)

        /* KVM's hypercalls (Linux, Documentation/virt/kvm/x86/hypercalls.rst): not from CPL 3, and an
         * unknown one. VMMCALL is AMD's spelling; the other is VMCALL. */
        user    user_vmcall
        movq    %rax, %rbx
        FAULT(3, 0)
        movq    %rbx, %rax
        EXPECT(-1)
        movl    $0x7fff, %eax
        vmmcall
        EXPECT(-1000)

        /* Control registers. */
        try     1f
        movq    %cr0, %rax
        btrq    $0, %rax                /* PG without PE */
        movq    %rax, %cr0
1:      FAULT(13, 0)
        try     1f
        movq    %cr0, %rax
        btsq    $29, %rax               /* NW without CD */
        movq    %rax, %cr0
1:      FAULT(13, 0)
        try     1f
        movq    %cr0, %rax
        btsq    $32, %rax
        movq    %rax, %cr0
1:      FAULT_HW(13, 0)
        try     1f
        cr4_bit btrq, 5                 /* PAE off in long mode */
1:      FAULT(13, 0)
        try     1f
        cr4_bit btsq, 31
1:      FAULT(13, 0)
        try     1f
        .byte   0x0f, 0x20, 0xc8        /* MOV from CR1 */
1:      FAULT(6, 0)
        movl    $5, %eax
        movq    %rax, %cr8
        movq    %cr8, %rax
        EXPECT(5)
        try     1f
        movl    $16, %eax
        movq    %rax, %cr8
1:      FAULT_HW(13, 0)
        xorl    %eax, %eax
        movq    %rax, %cr8
        /* LMSW sets PE and never clears it. */
        movl    $0xfff2, %eax
        andl    $0xfff0 + 2, %eax
        lmsw    %ax
        smsw    %eax
        andl    $1, %eax
        EXPECT(1)
        clts
        /* LTR of a busy TSS; LLDT of what is no LDT, of null. */
        try     1f
        movl    $TSS_SEL, %eax
        ltr     %ax
1:      FAULT(13, TSS_SEL)
        try     1f
        movl    $DATA32, %eax
        lldt    %ax
1:      FAULT(13, DATA32)
        try     1f
        xorl    %eax, %eax
        lldt    %ax
1:      NO_FAULT
        /* FSGSBASE. */
        try     1f
        rdfsbase %rax
1:      FAULT(6, 0)
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        btl     $0, %ebx
        jnc     1f
        cr4_bit btsq, 16
        movl    $0x12345678, %ebx
        wrfsbase %rbx
        rdfsbase %rax
        EXPECT(0x12345678)
        movl    $0xc0000100, %ecx
        rdmsr
        EXPECT(0x12345678)
1:
        DONE
#include "guest_end.inc"
