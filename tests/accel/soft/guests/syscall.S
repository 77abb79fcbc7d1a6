/* SPDX-License-Identifier: MIT */
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS in 64-bit mode. */
#define GUEST_SYMBOL(x) guest_syscall_##x
#define GUEST_LONG
#include "guest.inc"

#define STAR   0xc0000081
#define LSTAR  0xc0000082
#define FMASK  0xc0000084
#define EFER   0xc0000080
#define GSBASE 0xc0000101
#define KGSBASE 0xc0000102

        bits    64
user_syscall:
        syscall
behind_syscall:
        int3
user_sysret:
        sysretq
user_swapgs:
        swapgs
        .balign 8
seen_rcx: .quad 0
seen_r11: .quad 0
seen_cs:  .long 0
seen_ss:  .long 0
seen_flags: .quad 0
turns:    .long 0

entry:
        movq    %rcx, A(seen_rcx)
        movq    %r11, A(seen_r11)
        movw    %cs, A(seen_cs)
        movw    %ss, A(seen_ss)
        movq    %rsp, %r8
        movq    $STACK_TSS, %rsp
        pushfq
        popq    A(seen_flags)
        movq    %r8, %rsp
        incl    A(turns)
        sysretq

.macro write_msr number, low, high
        movl    $\number, %ecx
        movl    $\low, %eax
        movl    $\high, %edx
        wrmsr
.endm
.macro read_gs_base
        movl    $GSBASE, %ecx
        rdmsr
        shlq    $32, %rdx
        orq     %rdx, %rax
.endm

main64:
        write_msr STAR, 0, (USER32 - 0) << 16 | CODE64
        write_msr LSTAR, A(entry), 0
        write_msr FMASK, 0x40400, 0     /* AC, DF */

        /* CS and SS by STAR, not by descriptors: CODE64, then + 8; back USER32 + 16, + 8. */
        try     1f
        std
        movl    $U(user_syscall), %eax
        pushq   $USERDATA
        pushq   $STACK_USR
        pushq   $0x602                  /* DF, IF */
        pushq   $USER64
        pushq   %rax
        iretq
1:      cld
        FAULT(3, 0)
        movl    A(turns), %eax
        EXPECT(1)
        movq    A(seen_rcx), %rax
        EXPECT(U(behind_syscall))
        movq    A(seen_r11), %rax
        EXPECT(0x602)
        movl    A(seen_cs), %eax
        EXPECT(CODE64)
        movl    A(seen_ss), %eax
        EXPECT(CODE64 + 8)
        movq    A(seen_flags), %rax
        EXPECT(0x202)
        movq    A(last_flags), %rax
        andl    $0x600, %eax
        EXPECT(0x600)
        movl    A(last_cs), %eax
        EXPECT(USER64)
        movl    A(last_ss), %eax
        EXPECT(USERDATA)
        movq    A(last_ip), %rax
        EXPECT(U(behind_syscall) + 1)

        try     1f
        movl    $U(user_sysret), %eax
        jmp     enter_user64
1:      FAULT(13, 0)
        try     1f
        movl    $U(user_swapgs), %eax
        jmp     enter_user64
1:      FAULT(13, 0)

        /* Without EFER.SCE: #UD. */
        movl    $EFER, %ecx
        rdmsr
        andl    $~1, %eax
        wrmsr
        try     1f
        syscall
1:      FAULT(6, 0)
        movl    $EFER, %ecx
        rdmsr
        orl     $1, %eax
        wrmsr

        write_msr GSBASE, 0x1000, 0x10
        write_msr KGSBASE, 0x2000, 0x20
        swapgs
        read_gs_base
        EXPECT(0x2000002000)
        swapgs
        read_gs_base
        EXPECT(0x1000001000)
        try     1f
        write_msr GSBASE, 0, 0x8000     /* not canonical */
1:      FAULT_HW(13, 0)
        try     1f
        write_msr LSTAR, 0, 0x8000
1:      FAULT_HW(13, 0)
        try     1f
        write_msr EFER, 0x901, 1        /* reserved */
1:      FAULT(13, 0)
        try     1f
        write_msr EFER, 0x801, 0        /* LME off while paging */
1:      FAULT(13, 0)

        /* SYSENTER in 64-bit mode: Intel's only. CPUID says whose this is. */
        xorl    %eax, %eax
        cpuid
        cmpl    $0x756e6547, %ebx
        jne     2f
        write_msr 0x174, CODE64, 0
        write_msr 0x175, STACK_TSS, 0
        write_msr 0x176, A(sysenter_entry), 0
        try     1f
        movl    $U(user_sysenter), %eax
        jmp     enter_user64
1:      FAULT(3, 0)
        movl    A(last_cs), %eax        /* SYSEXIT with REX.W: SYSENTER_CS + 32 | 3 */
        EXPECT(CODE64 + 32 + 3)
        movl    A(seen_cs), %eax
        EXPECT(CODE64)
        write_msr 0x174, 0, 0
        try     1f
        movl    $U(user_sysenter), %eax
        jmp     enter_user64
1:      FAULT(13, 0)
2:
        DONE

user_sysenter:
        sysenter
        int3
sysenter_entry:
        movw    %cs, A(seen_cs)
        movl    $U(user_sysenter) + 2, %edx
        movl    $STACK_USR, %ecx
        .byte   0x48, 0x0f, 0x35        /* SYSEXIT with REX.W */
#include "guest_end.inc"
