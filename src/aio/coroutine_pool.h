/* SPDX-License-Identifier: MIT */
/* What a coroutine is made of, for coroutine.c, and the pool that stacks come from. */
#ifndef FERRY_AIO_COROUTINE_POOL_H
#define FERRY_AIO_COROUTINE_POOL_H

#include "aio/fiber.h"
#include "aio/internal.h"

/* At the upper end of its stack. */
struct coroutine {
    struct aio_work work; /* in the loop's hands between co_wake() and the entry it leads to */
    coroutine_fn *fn;
    void *opaque;
    struct aio_loop *loop; /* constant from the first entry on */

    /* loop */
    void *sp, *caller_sp;     /* where this side and that of coroutine_enter() go on */
    struct coroutine *caller; /* who entered it, NULL: no coroutine */
    bool is_suspended;        /* may be entered */
    bool is_woken;            /* co_wake() came while it was not suspended */
    bool is_done;
    struct fiber fiber;

    /* any thread */
    atomic_bool is_wake_queued;

    /* pool; constant */
    void *stack;                 /* lowest address, above the guard page */
    size_t stack_size;           /* up to the coroutine's own fields */
    struct coroutine *pool_next; /* whoever owns the list it is in */
};

/* Only fields of the last group are set. Any thread. */
struct coroutine *coroutine_pool_get(void);
void coroutine_pool_put(struct coroutine *co);
/* Stacks in this thread's and in the shared part of the pool; for tests. */
unsigned coroutine_pool_local_count(void);
unsigned coroutine_pool_shared_count(void);

#endif
