/* SPDX-License-Identifier: MIT */
/*
 * Thread pools: one that loops share, and those of loops that have their own
 * (aio_loop_set_thread_pool()). Workers run blocking calls and post the results to the loops the jobs
 * came from.
 */
#ifndef FERRY_AIO_THREAD_POOL_H
#define FERRY_AIO_THREAD_POOL_H

#include "aio/internal.h"

#define POOL_MAX_WORKERS 64
#define POOL_IDLE_NS     (10 * NS_PER_SEC) /* then a worker without work ends */

struct pool_job {
    struct aio_work work; /* its completion */
    /* constant */
    int64_t (*fn)(void *opaque);
    void *opaque;
    struct aio_loop *loop;
    struct coroutine *co;
    bool is_short; /* may run in the loop's thread: aio_loop_set_only_requests() */
    /* whoever has the job: loop, pool, worker, loop */
    struct pool_job *next;
    int64_t result;
};

/* Yields until fn(opaque) has run in a worker; its result. */
int64_t co_pool_run(int64_t (*fn)(void *opaque), void *opaque, bool is_short);
/* Hands the jobs that the loop's coroutines made in this round to the workers. Loop. */
void thread_pool_flush(struct aio_loop *loop);
/* Ends the workers of a loop's own pool and waits for them; NULL: nothing to do. All its jobs are
 * done. */
void thread_pool_free(struct thread_pool *pool);
/* Workers there are now, of a loop's own pool or (NULL) of the shared one. Any thread; for tests. */
unsigned thread_pool_workers(struct thread_pool *pool);
/* How long an idle worker of the shared pool, and of pools that are made later, waits for work; for
 * tests. */
void thread_pool_set_idle_ns(int64_t ns);

#endif
