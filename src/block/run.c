/* SPDX-License-Identifier: MIT */
/* Coroutine functions for callers that are none: start-up and the monitor, on the main loop. */
#include <assert.h>

#include "aio/loop.h"
#include "block/node.h"

struct run {
    int (*fn)(void *opaque);
    void *opaque;
    int ret;
    bool done;
};

static void co_run(void *opaque)
{
    struct run *run = opaque;

    run->ret = run->fn(run->opaque);
    run->done = true;
}

int block_run(int (*fn)(void *opaque), void *opaque)
{
    struct aio_loop *loop = aio_loop_current();
    struct run run = {.fn = fn, .opaque = opaque};

    assert(loop && !coroutine_self());
    coroutine_enter(coroutine_new(co_run, &run));
    while (!run.done) {
        aio_loop_poll(loop, true);
    }
    return run.ret;
}
