/* SPDX-License-Identifier: MIT */
/*
 * Stack switch for AArch64, AAPCS64 6.1: x19 to x28, x29, x30, sp and the low halves of v8 to v15
 * belong to the caller.
 *
 * A suspended stack, from the value that stack_switch() saves:
 *
 *      +0 x19 x20 ... +64 x27 x28  +80 x29 x30  +96 d8 ... +152 d15
 */
        .text
        .p2align 4
        .globl  stack_switch
        .hidden stack_switch
        .type   stack_switch, %function
/* void stack_switch(void **save, void *to) */
stack_switch:
        .cfi_startproc
        hint    #34                     /* bti c */
        sub     sp, sp, #160
        .cfi_adjust_cfa_offset 160
        stp     x19, x20, [sp, #0]
        stp     x21, x22, [sp, #16]
        stp     x23, x24, [sp, #32]
        stp     x25, x26, [sp, #48]
        stp     x27, x28, [sp, #64]
        stp     x29, x30, [sp, #80]
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        mov     x2, sp
        str     x2, [x0]
        mov     sp, x1
        ldp     x19, x20, [sp, #0]
        ldp     x21, x22, [sp, #16]
        ldp     x23, x24, [sp, #32]
        ldp     x25, x26, [sp, #48]
        ldp     x27, x28, [sp, #64]
        ldp     x29, x30, [sp, #80]
        ldp     d8, d9, [sp, #96]
        ldp     d10, d11, [sp, #112]
        ldp     d12, d13, [sp, #128]
        ldp     d14, d15, [sp, #144]
        add     sp, sp, #160
        .cfi_adjust_cfa_offset -160
        ret
        .cfi_endproc
        .size   stack_switch, . - stack_switch

        .p2align 4
        .globl  stack_start
        .hidden stack_start
        .type   stack_start, %function
/* x19: opaque, x20: fn (stack_prepare). Nobody called: the end of every backtrace. */
stack_start:
        .cfi_startproc
        .cfi_undefined x30
        hint    #34                     /* bti c */
        mov     x29, xzr
        mov     x0, x19
        blr     x20
        brk     #1
        .cfi_endproc
        .size   stack_start, . - stack_start

        .section .note.GNU-stack, "", %progbits
