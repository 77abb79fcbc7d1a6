/* SPDX-License-Identifier: MIT */
/*
 * The thread pool: a queue under one lock. Workers are made when there is more work than idle
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

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond; /* there is a job */
    /* under lock */
    bool is_ready; /* cond is initialised */
    struct pool_job *first, **last;
    unsigned queued; /* jobs in the list */
    unsigned workers;
    unsigned idle; /* of them, waiting for cond */
    int64_t idle_ns;
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .last = &pool.first,
    .idle_ns = POOL_IDLE_NS,
};

/* ---- workers -------------------------------------------------------------------------------- */

static struct pool_job *take_locked(void)
{
    struct pool_job *job = pool.first;
    pool.first = job->next;
    if (!pool.first) {
        pool.last = &pool.first;
    }
    pool.queued--;
    return job;
}

static void run_job(struct pool_job *job)
{
    job->result = job->fn(job->opaque);
    loop_push(job->loop, &job->work); /* job may be gone from now on */
}

/* False if no job came for a long time. */
static bool wait_for_job_locked(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + pool.idle_ns;
    until.tv_sec += ns / NS_PER_SEC;
    until.tv_nsec = ns % NS_PER_SEC;

    int ret = 0;
    pool.idle++;
    while (!pool.first && ret != ETIMEDOUT) {
        ret = pthread_cond_timedwait(&pool.cond, &pool.lock, &until);
    }
    pool.idle--;
    return pool.first != NULL;
}

static void *worker(void *opaque)
{
    pthread_mutex_lock(&pool.lock);
    while (pool.first || wait_for_job_locked()) {
        struct pool_job *job = take_locked();
        pthread_mutex_unlock(&pool.lock);

        run_job(job);

        pthread_mutex_lock(&pool.lock);
    }
    pool.workers--;
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* False if the host gives no more threads. */
static bool start_worker(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Signals are for the threads that expect them. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int ret = pthread_create(&thread, &attr, worker, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (ret == 0) {
        pthread_setname_np(thread, "worker");
    }
    return ret == 0;
}

static void init_locked(void)
{
    if (!pool.is_ready) {
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&pool.cond, &attr);
        pthread_condattr_destroy(&attr);
        pool.is_ready = true;
    }
}

/* ---- loops ---------------------------------------------------------------------------------- */

void thread_pool_flush(struct aio_loop *loop)
{
    if (!loop->jobs_first) {
        return;
    }
    pthread_mutex_lock(&pool.lock);
    init_locked();
    *pool.last = loop->jobs_first;
    pool.last = loop->jobs_last;
    unsigned added = loop->jobs_count;
    pool.queued += added;
    loop->jobs_first = NULL;
    loop->jobs_last = &loop->jobs_first;
    loop->jobs_count = 0;

    /* An idle worker that was signalled counts as idle until it has the lock, so compare with all
     * that is queued. */
    unsigned wake = MIN(pool.idle, pool.queued);
    unsigned start = MIN(pool.queued - wake, POOL_MAX_WORKERS - pool.workers);
    pool.workers += start;
    pthread_mutex_unlock(&pool.lock);

    /* Without the lock, so that who wakes up finds it free. */
    for (unsigned i = 0; i < MIN(wake, added); i++) {
        pthread_cond_signal(&pool.cond);
    }
    for (unsigned i = 0; i < start; i++) {
        if (start_worker()) {
            continue;
        }
        pthread_mutex_lock(&pool.lock);
        pool.workers -= start - i;
        while (pool.workers == 0 && pool.first) {
            /* Nobody else will do it. */
            struct pool_job *job = take_locked();
            pthread_mutex_unlock(&pool.lock);
            run_job(job);
            pthread_mutex_lock(&pool.lock);
        }
        pthread_mutex_unlock(&pool.lock);
        break;
    }
}

static void job_done(struct aio_loop *loop, struct aio_work *work)
{
    struct pool_job *job = container_of(work, struct pool_job, work);
    coroutine_enter(job->co);
}

int64_t co_pool_run(int64_t (*fn)(void *opaque), void *opaque)
{
    struct coroutine *self = coroutine_self();
    struct aio_loop *loop = coroutine_loop(self);
    struct pool_job job = {
        .work.run = job_done,
        .fn = fn,
        .opaque = opaque,
        .loop = loop,
        .co = self,
    };
    *loop->jobs_last = &job;
    loop->jobs_last = &job.next;
    loop->jobs_count++;
    coroutine_yield();
    return job.result;
}

unsigned thread_pool_workers(void)
{
    pthread_mutex_lock(&pool.lock);
    unsigned workers = pool.workers;
    pthread_mutex_unlock(&pool.lock);
    return workers;
}

void thread_pool_set_idle_ns(int64_t ns)
{
    pthread_mutex_lock(&pool.lock);
    pool.idle_ns = ns;
    pthread_mutex_unlock(&pool.lock);
}
