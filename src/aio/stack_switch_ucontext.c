/* SPDX-License-Identifier: MIT */
/*
 * Stack switch by makecontext(3), for processors without one of ours. Slower: each switch saves
 * the signal mask by a system call. The saved value points to a ucontext_t on the stack itself.
 */
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "aio/stack_switch.h"

#define START_STACK_SIZE 16384 /* makecontext() wants a size; what lies below belongs to it too */

/* makecontext() passes ints. */
static void start(unsigned fn_high, unsigned fn_low, unsigned opaque_high, unsigned opaque_low)
{
    uintptr_t fn = (uintptr_t)((uint64_t)fn_high << 32 | fn_low);
    uintptr_t opaque = (uintptr_t)((uint64_t)opaque_high << 32 | opaque_low);
    ((void (*)(void *))fn)((void *)opaque);
}

void *stack_prepare(void *top, void (*fn)(void *opaque), void *opaque)
{
    uintptr_t end = ((uintptr_t)top - sizeof(ucontext_t)) & ~(uintptr_t)63;
    ucontext_t *context = (ucontext_t *)end;
    getcontext(context);
    context->uc_link = NULL;
    context->uc_stack.ss_sp = (void *)(end - START_STACK_SIZE);
    context->uc_stack.ss_size = START_STACK_SIZE;
    uint64_t f = (uintptr_t)fn, o = (uintptr_t)opaque;
    makecontext(context, (void (*)(void))start, 4, (unsigned)(f >> 32), (unsigned)f,
                (unsigned)(o >> 32), (unsigned)o);
    return context;
}

void stack_switch(void **save, void *to)
{
    ucontext_t here;
    *save = &here;
    swapcontext(&here, to);
}
