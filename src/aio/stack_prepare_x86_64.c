/* SPDX-License-Identifier: MIT */
/* The first frame of a stack, as stack_switch_x86_64.S resumes it. */
#include <stdint.h>

#include "aio/stack_switch.h"

void *stack_prepare(void *top, void (*fn)(void *opaque), void *opaque)
{
    /* stack_start is reached by a jump and calls fn, so its stack pointer is a multiple of 16. */
    uintptr_t *sp = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)15);
    *--sp = 0; /* alignment, and no return address */
    *--sp = 0;
    *--sp = (uintptr_t)stack_start;
    *--sp = 0;                 /* rbp */
    *--sp = 0;                 /* rbx */
    *--sp = (uintptr_t)opaque; /* r12 */
    *--sp = (uintptr_t)fn;     /* r13 */
    *--sp = 0;                 /* r14 */
    *--sp = 0;                 /* r15 */
    return sp;
}
