/* SPDX-License-Identifier: MIT */
/*
 * A thread pool: a queue under one lock. Workers are made when there is more work than idle
 * workers, and end when they have been idle for a while.
 *
 * Jobs live on the stacks of the coroutines that wait for them. A loop gathers those of one round
 * and hands them over under one lock; completions come back through the loop's inbox, so that many
 * of them end one wait of the loop.
 */
#include "aio/thread_pool.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/alloc.h"

struct thread_pool {
    /* constant */
    unsigned min, max; /* workers */
    pthread_mutex_t lock;
    pthread_cond_t cond; /* there is a job, or is_ending */
    pthread_cond_t gone; /* is_ending, and the last worker has gone */
    /* under lock */
    bool is_ready; /* cond is initialised */
    bool is_ending;
    struct pool_job *first, **last;
    unsigned queued; /* jobs in the list */
    unsigned workers;
    unsigned idle; /* of them, waiting for cond */
    int64_t idle_ns;
};

static struct thread_pool shared = {
    .max = POOL_MAX_WORKERS,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .last = &shared.first,
    .idle_ns = POOL_IDLE_NS,
};

/* ---- workers -------------------------------------------------------------------------------- */

static struct pool_job *take_locked(struct thread_pool *pool)
{
    struct pool_job *job = pool->first;
    pool->first = job->next;
    if (!pool->first) {
        pool->last = &pool->first;
    }
    pool->queued--;
    return job;
}

static void run_job(struct pool_job *job)
{
    job->result = job->fn(job->opaque);
    loop_push(job->loop, &job->work); /* job may be gone from now on */
}

/* False if the worker is to end: no job came for a long time, and there are others enough. */
static bool wait_for_job_locked(struct thread_pool *pool)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + pool->idle_ns;
    until.tv_sec += ns / NS_PER_SEC;
    until.tv_nsec = ns % NS_PER_SEC;

    int ret = 0;
    pool->idle++;
    while (!pool->first && !pool->is_ending && (ret != ETIMEDOUT || pool->workers <= pool->min)) {
        ret = pool->workers <= pool->min ? pthread_cond_wait(&pool->cond, &pool->lock)
                                         : pthread_cond_timedwait(&pool->cond, &pool->lock, &until);
    }
    pool->idle--;
    return pool->first != NULL;
}

static void *worker(void *opaque)
{
    struct thread_pool *pool = opaque;

    pthread_mutex_lock(&pool->lock);
    while (pool->first || wait_for_job_locked(pool)) {
        struct pool_job *job = take_locked(pool);
        pthread_mutex_unlock(&pool->lock);

        run_job(job);

        pthread_mutex_lock(&pool->lock);
    }
    if (--pool->workers == 0 && pool->is_ending) {
        pthread_cond_signal(&pool->gone);
    }
    pthread_mutex_unlock(&pool->lock); /* a pool of a loop may be gone from now on */
    return NULL;
}

/* False if the host gives no more threads. */
static bool start_worker(struct thread_pool *pool)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Signals are for the threads that expect them. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int ret = pthread_create(&thread, &attr, worker, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (ret == 0) {
        pthread_setname_np(thread, "worker");
    }
    return ret == 0;
}

static void init_locked(struct thread_pool *pool)
{
    if (!pool->is_ready) {
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&pool->cond, &attr);
        pthread_condattr_destroy(&attr);
        pthread_cond_init(&pool->gone, NULL);
        pool->is_ready = true;
    }
}

/* ---- a loop's own --------------------------------------------------------------------------- */

bool aio_loop_set_thread_pool(struct aio_loop *loop, unsigned min, unsigned max,
                              struct error **errp)
{
    assert(!loop->pool && !atomic_load(&loop->is_bound) && max > 0 && min <= max);

    struct thread_pool *pool = xnew(struct thread_pool);
    *pool = (struct thread_pool){
        .min = min,
        .max = max,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .last = &pool->first,
    };
    pthread_mutex_lock(&shared.lock);
    pool->idle_ns = shared.idle_ns;
    pthread_mutex_unlock(&shared.lock);
    init_locked(pool);
    for (unsigned i = 0; i < min; i++) {
        pthread_mutex_lock(&pool->lock);
        pool->workers++;
        pthread_mutex_unlock(&pool->lock);
        if (!start_worker(pool)) {
            pthread_mutex_lock(&pool->lock);
            pool->workers--;
            pthread_mutex_unlock(&pool->lock);
            error_set(errp, "the host gives event loop '%s' only %u of %u threads for its pool",
                      loop->name, i, min);
            thread_pool_free(pool);
            return false;
        }
    }
    loop->pool = pool;
    return true;
}

void thread_pool_free(struct thread_pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    assert(!pool->first);
    pool->is_ending = true;
    pthread_cond_broadcast(&pool->cond);
    while (pool->workers > 0) {
        pthread_cond_wait(&pool->gone, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_destroy(&pool->gone);
    pthread_cond_destroy(&pool->cond);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* ---- loops ---------------------------------------------------------------------------------- */

/* The only job: the loop has nothing else to do meanwhile. */
static void run_here(struct aio_loop *loop)
{
    struct pool_job *job = loop->jobs_first;

    loop->jobs_first = NULL;
    loop->jobs_last = &loop->jobs_first;
    loop->jobs_count = 0;
    loop->jobs_running++;
    run_job(job);
}

void thread_pool_flush(struct aio_loop *loop)
{
    struct thread_pool *pool = loop->pool ? loop->pool : &shared;

    if (!loop->jobs_first) {
        return;
    }
    if (loop->only_requests && loop->jobs_count == 1 && !loop->jobs_running &&
        loop->jobs_first->is_short) {
        run_here(loop);
        return;
    }
    loop->jobs_running += loop->jobs_count;
    pthread_mutex_lock(&pool->lock);
    init_locked(pool);
    *pool->last = loop->jobs_first;
    pool->last = loop->jobs_last;
    unsigned added = loop->jobs_count;
    pool->queued += added;
    loop->jobs_first = NULL;
    loop->jobs_last = &loop->jobs_first;
    loop->jobs_count = 0;

    /* An idle worker that was signalled counts as idle until it has the lock, so compare with all
     * that is queued. */
    unsigned wake = MIN(pool->idle, pool->queued);
    unsigned start = MIN(pool->queued - wake, pool->max - pool->workers);
    pool->workers += start;
    pthread_mutex_unlock(&pool->lock);

    /* Without the lock, so that who wakes up finds it free. */
    for (unsigned i = 0; i < MIN(wake, added); i++) {
        pthread_cond_signal(&pool->cond);
    }
    for (unsigned i = 0; i < start; i++) {
        if (start_worker(pool)) {
            continue;
        }
        pthread_mutex_lock(&pool->lock);
        pool->workers -= start - i;
        while (pool->workers == 0 && pool->first) {
            /* Nobody else will do it. */
            struct pool_job *job = take_locked(pool);
            pthread_mutex_unlock(&pool->lock);
            run_job(job);
            pthread_mutex_lock(&pool->lock);
        }
        pthread_mutex_unlock(&pool->lock);
        break;
    }
}

static void job_done(struct aio_loop *loop, struct aio_work *work)
{
    struct pool_job *job = container_of(work, struct pool_job, work);

    loop->jobs_running--;
    coroutine_enter(job->co);
}

int64_t co_pool_run(int64_t (*fn)(void *opaque), void *opaque, bool is_short)
{
    struct coroutine *self = coroutine_self();
    struct aio_loop *loop = coroutine_loop(self);
    struct pool_job job = {
        .work.run = job_done,
        .fn = fn,
        .opaque = opaque,
        .loop = loop,
        .co = self,
        .is_short = is_short,
    };
    *loop->jobs_last = &job;
    loop->jobs_last = &job.next;
    if (++loop->jobs_count == loop->max_batch) {
        thread_pool_flush(loop);
    }
    coroutine_yield();
    return job.result;
}

unsigned thread_pool_workers(struct thread_pool *pool)
{
    pool = pool ? pool : &shared;
    pthread_mutex_lock(&pool->lock);
    unsigned workers = pool->workers;
    pthread_mutex_unlock(&pool->lock);
    return workers;
}

void thread_pool_set_idle_ns(int64_t ns)
{
    pthread_mutex_lock(&shared.lock);
    shared.idle_ns = ns;
    pthread_mutex_unlock(&shared.lock);
}
