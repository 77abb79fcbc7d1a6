/* SPDX-License-Identifier: MIT */
/*
 * Switching stacks. One of stack_switch_x86_64.S, stack_switch_aarch64.S and
 * stack_switch_ucontext.c implements it; meson picks.
 */
#ifndef FERRY_AIO_STACK_SWITCH_H
#define FERRY_AIO_STACK_SWITCH_H

/*
 * Leaves the present stack, storing where it is to be resumed in *save, and resumes the one whose
 * such value is `to`. Returns when another switch resumes the present one. What the ABI says a
 * function preserves is preserved, but for the floating-point control words: they stay the
 * thread's.
 */
void stack_switch(void **save, void *to);

/* The value to switch to for calling fn(opaque) on a fresh stack that ends at top. fn does not
 * return. */
void *stack_prepare(void *top, void (*fn)(void *opaque), void *opaque);

/* Where a stack that was prepared by stack_prepare() begins to run (in assembly). */
void stack_start(void);

#endif
