/* SPDX-License-Identifier: MIT */
/*
 * Long work in memory, in shares of a loop's time.
 *
 * All coroutines of a loop that work long draw on one account, which is filled up once in a step of the
 * loop (a call from the inbox); who finds it empty waits for that. So however many they are, the loop's
 * other work comes in between, and they take turns.
 */
#include <assert.h>

#include "aio/internal.h"

/* Some milliseconds of copying. */
#define SHARE_BYTES (16 * MiB)

static void call_later(struct aio_loop *loop)
{
    if (!loop->is_share_queued) {
        loop->is_share_queued = true;
        loop_push(loop, &loop->share_work);
    }
}

static void next_share(struct aio_loop *loop, struct aio_work *work)
{
    loop->is_share_queued = false;
    loop->share_left = SHARE_BYTES;
    while (loop->share_first && loop->share_left) {
        struct co_waiter *waiter = loop->share_first;
        loop->share_first = waiter->next;
        if (!loop->share_first) {
            loop->share_last = &loop->share_first;
        }
        coroutine_enter(waiter->co);
    }
    if (loop->share_first) {
        call_later(loop);
    }
}

void loop_share_init(struct aio_loop *loop)
{
    loop->share_left = SHARE_BYTES;
    loop->share_last = &loop->share_first;
    loop->share_work.run = next_share;
}

void co_share(uint64_t bytes)
{
    struct aio_loop *loop = loop_of_thread;

    assert(coroutine_self());
    if (loop->share_first || !loop->share_left) {
        struct co_waiter waiter = {.co = coroutine_self()};
        *loop->share_last = &waiter;
        loop->share_last = &waiter.next;
        call_later(loop);
        coroutine_yield();
    }
    loop->share_left -= MIN(bytes, loop->share_left);
}
