/* SPDX-License-Identifier: MIT */
/*
 * Stack switch for x86-64, System V ABI 3.2.1: rbx, rbp, r12 to r15 and rsp belong to the caller.
 *
 * A suspended stack, from the value that stack_switch() saves:
 *
 *      +0 r15  +8 r14  +16 r13  +24 r12  +32 rbx  +40 rbp  +48 address to go on at
 *
 * The way on is a jump, not a return: the processor's return stack belongs to the other side, and
 * would always be wrong.
 */
        .text
        .p2align 4
        .globl  stack_switch
        .hidden stack_switch
        .type   stack_switch, @function
/* void stack_switch(void **save, void *to) */
stack_switch:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        popq    %r15
        .cfi_adjust_cfa_offset -8
        popq    %r14
        .cfi_adjust_cfa_offset -8
        popq    %r13
        .cfi_adjust_cfa_offset -8
        popq    %r12
        .cfi_adjust_cfa_offset -8
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        popq    %rdx
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rdx
        jmp     *%rdx
        .cfi_endproc
        .size   stack_switch, . - stack_switch

        .p2align 4
        .globl  stack_start
        .hidden stack_start
        .type   stack_start, @function
/* r12: opaque, r13: fn (stack_prepare). Nobody called: the end of every backtrace. */
stack_start:
        .cfi_startproc
        .cfi_undefined %rip
        endbr64
        xorl    %ebp, %ebp
        movq    %r12, %rdi
        callq   *%r13
        ud2
        .cfi_endproc
        .size   stack_start, . - stack_start

        .section .note.GNU-stack, "", @progbits
