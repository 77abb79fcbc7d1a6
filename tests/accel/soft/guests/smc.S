/* SPDX-License-Identifier: MIT */
/* Code that changes itself: the next instruction, an earlier one, another page's, one that lies across
 * pages, through another linear address; REP MOVS and REP STOS that fault or write code. */
#define GUEST_SYMBOL(x) guest_smc_##x
#define GUEST_LONG
#include "guest.inc"

#define PAGE_A FREE
#define PAGE_B (FREE + 0x1000)

        bits    64
function:
        movl    $0x11111111, %eax       /* 5 bytes */
        ret
function_end:

main64:
        cld
        /* The very next instruction's immediate. */
        movb    $0x55, A(1f) + 1
1:      movl    $0, %eax
        EXPECT(0x55)
        /* In a loop: each turn changes what the next one runs. */
        xorl    %ebx, %ebx
        movl    $100, %ecx
2:      movb    %cl, A(3f) + 1
3:      movl    $0, %eax
        addl    %eax, %ebx
        loop    2b
        movl    %ebx, %eax
        EXPECT(5050)
        /* By REP STOSB over the instruction behind it. */
        movb    $0x90, %al
        movl    $A(4f), %edi
        movl    $2, %ecx
        xorl    %ebx, %ebx
        rep stosb
4:      .byte   0xff, 0xc3              /* incl %ebx */
        movl    %ebx, %eax
        EXPECT(0)

        /* A function in another page, copied, run, changed, run. */
        movl    $A(function), %esi
        movl    $PAGE_A, %edi
        movl    $function_end - function, %ecx
        rep movsb
        movl    $PAGE_A, %ebp
        call    *%rbp
        EXPECT(0x11111111)
        movl    $0x22222222, PAGE_A + 1
        call    *%rbp
        EXPECT(0x22222222)
        /* Across a page boundary: opcode and one byte in A, the rest in B. */
        movl    $A(function), %esi
        movl    $PAGE_B - 2, %edi
        movl    $function_end - function, %ecx
        rep movsb
        movl    $PAGE_B - 2, %ebp
        call    *%rbp
        EXPECT(0x11111111)
        movb    $0x33, PAGE_B
        call    *%rbp
        EXPECT(0x11113311)
        movb    $0x44, PAGE_B - 1
        call    *%rbp
        EXPECT(0x11113344)
        /* By an unaligned write across both pages. */
        movl    $0x55667788, PAGE_B - 1
        call    *%rbp
        EXPECT(0x55667788)
        /* Its second page becomes another one: PT entry of PAGE_B. */
        movl    $0x00c39999, FREE + 0x2000      /* 99 99 C3 */
        movb    $0x99, FREE + 0x2002
        movb    $0xc3, FREE + 0x2003
        movl    $TABLES + 0x3000 + (PAGE_B >> 12) * 8, %ebx
        movq    (%rbx), %rdx
        movq    $FREE + 0x2003, (%rbx)
        invlpg  PAGE_B
        call    *%rbp
        EXPECT(0x99999988)
        movq    %rdx, (%rbx)
        invlpg  PAGE_B
        call    *%rbp
        EXPECT(0x55667788)
        /* Through an alias: PAGE_A is also at FREE + 0x3000. */
        movl    $TABLES + 0x3000 + ((FREE + 0x3000) >> 12) * 8, %ebx
        movq    $PAGE_A + 3, (%rbx)
        invlpg  FREE + 0x3000
        movl    $PAGE_A, %ebp
        call    *%rbp
        EXPECT(0x22222222)
        movl    $0x77777777, FREE + 0x3000 + 1
        call    *%rbp
        EXPECT(0x77777777)
        /* A locked operation and a push write code, too. */
        lock incl PAGE_A + 1
        call    *%rbp
        EXPECT(0x77777778)
        movq    %rsp, %rbx
        movl    $PAGE_A + 9, %esp
        movabsq $0xc3cccccccccccc01, %rax
        movq    PAGE_A + 1, %rax
        movb    $0xaa, %al
        pushq   %rax
        movq    %rbx, %rsp
        call    *%rbp
        EXPECT(0x777777aa)

        /* REP MOVSB into a page that is not there: the registers say how far it came. */
        movl    $TABLES + 0x3000 + ((FREE + 0x5000) >> 12) * 8, %ebx
        movq    $0, (%rbx)
        invlpg  FREE + 0x5000
        movl    $FREE + 0x6000, %esi
        movl    $FREE + 0x4ff0, %edi
        movl    $64, %ecx
        try     1f
20:     rep movsb
1:      movq    %rdi, %rbp
        movq    %rcx, %r12
        FAULT(14, 2)
        movq    A(last_cr2), %rax
        EXPECT(FREE + 0x5000)
        movq    A(last_ip), %rax
        EXPECT(A(20b))
        movq    %rbp, %rax
        EXPECT(FREE + 0x5000)
        movq    %r12, %rax
        EXPECT(48)
        /* The same backwards, in quadwords. */
        movl    $FREE + 0x7000, %esi
        movl    $FREE + 0x6010, %edi
        movl    $64, %ecx
        std
        try     1f
        rep movsq
1:      cld
        movq    %rdi, %rbp
        movq    %rcx, %r12
        FAULT(14, 2)
        movq    %rbp, %rax
        EXPECT(FREE + 0x5ff8)
        movq    %r12, %rax
        EXPECT(61)
        /* The handler maps it, and it goes on: 8 bytes in the middle of the fault's page. */
        movl    $FREE + 0x6000, %esi
        movl    $FREE + 0x4ff0, %edi
        movl    $64, %ecx
        movb    $0xd7, FREE + 0x6000 + 63
        movq    $A(map_it), A(hook)
        rep movsb
        movq    $0, A(hook)
        movl    %ecx, %eax
        EXPECT(0)
        movzbl  FREE + 0x502f, %eax
        EXPECT(0xd7)
        DONE

map_it: pushq   %rbx
        movl    $TABLES + 0x3000 + ((FREE + 0x5000) >> 12) * 8, %ebx
        movq    $FREE + 0x5003, (%rbx)
        popq    %rbx
        addq    $16, %rsp
        iretq
#include "guest_end.inc"
