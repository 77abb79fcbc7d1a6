/* SPDX-License-Identifier: MIT */
/* Single step, breakpoints, and the shadows of STI and MOV SS (SDM volume 3, chapter 17; 6.8.3). */
#define GUEST_SYMBOL(x) guest_debug_##x
#define GUEST_LONG
#include "guest.inc"

        bits    64
/* Hook of #DB: notes IP and DR6, goes on with RF set, TF as it was until `steps` is used up. */
log_debug:
        pushq   %rbx
        pushq   %rcx
        movl    A(log_count), %ebx
        movq    A(last_ip), %rcx
        movq    %rcx, A(log)(,%rbx,8)
        movq    %dr6, %rcx
        movq    %rcx, A(log_dr6)(,%rbx,8)
        incl    A(log_count)
        movl    $0xffff0ff0, %ecx
        movq    %rcx, %dr6
        popq    %rcx
        popq    %rbx
        cmpl    $1, A(last_vector)
        jne     1f
        decl    A(steps)
        jg      2f
1:      btrl    $8, 40 - 8(%rsp)        /* RFLAGS of the frame: vector, error, RIP, CS */
2:      btsl    $16, 40 - 8(%rsp)
        addq    $16, %rsp
        iretq
log_count: .long 0
steps:     .long 0
        .balign 8
log:       .fill 16, 8, 0
log_dr6:   .fill 16, 8, 0
word:      .quad 0

.macro begin_log n
        movl    $0, A(log_count)
        movl    $\n, A(steps)
        movq    $A(log_debug), A(hook)
.endm
.macro set_tf
        pushfq
        orl     $0x100, (%rsp)
        popfq
.endm
.macro set_dr7 value
        movq    $\value, %rax
        movq    %rax, %dr7
.endm

main64:
        movl    $0xffff0ff0, %eax
        movq    %rax, %dr6
        /* Three steps: traps behind each instruction, the first behind the one that follows POPF. */
        begin_log 3
        set_tf
        nop
10:     nop
11:     nop
12:     nop
        movl    A(log_count), %eax
        EXPECT(3)
        movq    A(log), %rax
        EXPECT(A(10b))
        movq    A(log) + 8, %rax
        EXPECT(A(11b))
        movq    A(log) + 16, %rax
        EXPECT(A(12b))
        movq    A(log_dr6), %rax
        EXPECT(0xffff4ff0)

        /* MOV SS holds the trap back by one instruction; the one behind it is not stepped. */
        begin_log 2
        movw    %ss, %bx
        set_tf
        movw    %bx, %ss
        nop
10:     nop
11:     nop
        movq    A(log), %rax
        EXPECT(A(10b))
        movq    A(log) + 8, %rax
        EXPECT(A(11b))

        /* REP MOVSB traps after each iteration. */
        begin_log 3
        movl    $A(word), %edi
        movl    $A(word), %esi
        movl    $3, %ecx
        cld
        set_tf
10:     rep movsb
11:     nop
        movl    A(log_count), %eax
        EXPECT(3)
        movq    A(log), %rax
        EXPECT(A(10b))
        movq    A(log) + 8, %rax
        EXPECT(A(10b))
        movq    A(log) + 16, %rax
        EXPECT(A(11b))

        /* Breakpoints on execution: before the instruction, RF lets it run. */
        begin_log 0
        movl    $A(20f), %eax
        movq    %rax, %dr0
        movl    $A(21f), %eax
        movq    %rax, %dr3
        set_dr7 0x00000482              /* G0, G3 (GE) */
        nop
20:     nop
        nop
21:     nop
        set_dr7 0x400
        movl    A(log_count), %eax
        EXPECT(2)
        movq    A(log), %rax
        EXPECT(A(20b))
        movq    A(log_dr6), %rax
        EXPECT(0xffff0ff1)
        movq    A(log) + 8, %rax
        EXPECT(A(21b))
        movq    A(log_dr6) + 8, %rax
        EXPECT(0xffff0ff8)

        /* On data: behind the access. Write, 4 bytes: a read does not, a byte within does. */
        begin_log 0
        movl    $A(word), %eax
        movq    %rax, %dr1
        set_dr7 0x00d00408              /* G1, RW1 = 1, LEN1 = 3 */
        movl    A(word), %ebx
        movb    $1, A(word) + 2
20:     movb    $1, A(word) + 4
        nop
        set_dr7 0x400
        movl    A(log_count), %eax
        EXPECT(1)
        movq    A(log), %rax
        EXPECT(A(20b))
        movq    A(log_dr6), %rax
        EXPECT(0xffff0ff2)
        /* Read or write, 1 byte. */
        begin_log 0
        set_dr7 0x00300408
        movl    A(word), %ebx
20:     movq    A(word) - 4, %rbx
21:     movb    A(word) + 1, %bl
        set_dr7 0x400
        movl    A(log_count), %eax
        EXPECT(2)
        movq    A(log), %rax
        EXPECT(A(20b))
        movq    A(log) + 8, %rax
        EXPECT(A(21b))
        /* An instruction's two hits are one trap. */
        begin_log 0
        movl    $A(word) + 4, %eax
        movq    %rax, %dr2
        set_dr7 0x03300428              /* G1, G2: reads and writes */
        movq    A(word), %rbx
20:     nop
        set_dr7 0x400
        movl    A(log_count), %eax
        EXPECT(1)
        movq    A(log_dr6), %rax
        EXPECT_HW(0xffff0ff6)

        /* ICEBP: a trap of vector 1; INT3. */
        movq    $0, A(hook)
        try     1f
20:     .byte   0xf1
1:      FAULT_HW(1, 0)
        movq    A(last_ip), %rax
        EXPECT_HW(A(20b) + 1)

        /* DR7.GD: any MOV with a debug register faults; GD is clear in the handler. */
        try     1f
        set_dr7 0x2400
20:     movq    %dr3, %rbx
1:      FAULT_HW(1, 0)
        movq    A(last_ip), %rax
        EXPECT_HW(A(20b))
        movq    %dr6, %rax
        andl    $0x6000, %eax
        EXPECT_HW(0x2000)
        movq    %dr7, %rax
        andl    $0x2000, %eax
        EXPECT_HW(0)
        movl    $0xffff0ff0, %eax
        movq    %rax, %dr6

        /* BTF: TF traps behind branches that are taken, once. */
        begin_log 1
        movl    $0x1d9, %ecx
        movl    $2, %eax
        xorl    %edx, %edx
        wrmsr
        set_tf
        nop
        cmpl    %eax, %eax
        jne     10f
        nop
        jmp     10f
        nop
10:     nop
        movl    A(log_count), %eax
        EXPECT_HW(1)
        movq    A(log), %rax
        EXPECT_HW(A(10b))
        movq    A(log_dr6), %rax
        EXPECT_HW(0xffff4ff0)
        movl    $0x1d9, %ecx
        rdmsr
        EXPECT_HW(0)
        /* A call counts, and a conditional branch that is taken. */
        begin_log 1
        movl    $2, %eax
        xorl    %edx, %edx
        wrmsr
        set_tf
        call    11f
        jmp     12f
11:     ret
12:     movl    A(log_count), %eax
        EXPECT_HW(1)
        movq    A(log), %rax
        EXPECT_HW(A(11b))
        begin_log 1
        movl    $2, %eax
        wrmsr
        cmpl    %eax, %eax
        set_tf
        testl   %edx, %edx
        je      13f
        nop
13:     nop
        movq    A(log), %rax
        EXPECT_HW(A(13b))

        /* Ports, with CR4.DE: behind the access, of the port's width. */
        movq    %cr4, %rbx
        movq    %rbx, %rax
        orl     $8, %eax
        movq    %rax, %cr4
        begin_log 0
        movl    $0x82, %eax
        movq    %rax, %dr0
        set_dr7 0x00060402              /* G0, RW0 = 2, LEN0 = 1 */
        inb     $0x81, %al
        inb     $0x83, %al
20:     movl    $0x80, %edx
        outl    %eax, (%dx)
21:     outb    %al, $0x84
        movq    $A(word), %rsi
        movl    $2, %ecx
        movl    $0x82, %edx
22:     rep outsb
23:     nop
        set_dr7 0x400
        movl    A(log_count), %eax
        EXPECT_HW(4)
        movq    A(log), %rax
        EXPECT_HW(A(20b))
        movq    A(log_dr6), %rax
        EXPECT_HW(0xffff0ff1)
        movq    A(log) + 8, %rax
        EXPECT_HW(A(21b))
        movq    A(log) + 16, %rax
        EXPECT_HW(A(22b))
        movq    A(log) + 24, %rax
        EXPECT_HW(A(23b))
        movq    %rbx, %cr4
        movq    $0, A(hook)

        /* CR4.DE: DR4 and DR5 are #UD; without they are DR6 and DR7. */
        movq    %dr4, %rax
        andl    $0xffff, %eax
        EXPECT(0x0ff0)
        movq    %cr4, %rax
        orl     $8, %eax
        movq    %rax, %cr4
        try     1f
        movq    %dr4, %rax
1:      FAULT(6, 0)
        /* The upper half of DR7 cannot be set. */
        try     1f
        movabsq $0x100000400, %rax
        movq    %rax, %dr7
1:      FAULT(13, 0)
        DONE
#include "guest_end.inc"
