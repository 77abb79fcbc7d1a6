/* SPDX-License-Identifier: MIT */
/* The thread pool. pthread_create() is wrapped, so that it can be made to fail. */
#include "kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "aio/thread_pool.h"
#include "aio/uring.h"
#include "base/alloc.h"

static atomic_int creations_left; /* negative: any number */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg)
{
    if (atomic_load(&creations_left) == 0) {
        return EAGAIN;
    }
    atomic_fetch_sub(&creations_left, 1);
    return __real_pthread_create(thread, attr, fn, arg);
}

static void wait_for_workers(unsigned count)
{
    while (thread_pool_workers(NULL) > count) {
        kit_sleep_ms(1);
    }
}

static int pool_setup(void **state)
{
    atomic_store(&creations_left, -1);
    thread_pool_set_idle_ns(20 * NS_PER_MS);
    wait_for_workers(0);
    return kit_setup(state);
}

#define POOL_TEST(test)                                                                            \
    {#test "/io_uring", test, pool_setup, kit_teardown, (void *)(uintptr_t)AIO_LOOP_URING},        \
    {                                                                                              \
#test "/epoll", test, pool_setup, kit_teardown, (void *)(uintptr_t)AIO_LOOP_EPOLL          \
    }

struct job {
    struct crowd *crowd;
    int number;
};

struct crowd {
    atomic_int inside, most; /* workers in the function now; at once */
    int wanted;              /* how many are to be inside together */
    int done;                /* loop */
    bool ok;
};

static int job_number(void *opaque)
{
    struct job *job = opaque;
    KIT_CHECK(!aio_loop_current());
    return job->number - 5;
}

static void co_result(void *opaque)
{
    struct job *job = opaque;
    struct aio_loop *loop = aio_loop_current();
    job->crowd->ok &= co_thread_pool(job_number, job) == job->number - 5;
    job->crowd->ok &= aio_loop_current() == loop;
    job->crowd->done++;
}

static void test_results(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.ok = true};
    static struct job jobs[500];
    for (int i = 0; i < 500; i++) {
        jobs[i] = (struct job){&crowd, i};
        coroutine_enter(coroutine_new(co_result, &jobs[i]));
    }
    kit_poll_until(kit->loop, &crowd.done, 500);
    assert_true(crowd.ok);
}

static int meet(void *opaque)
{
    struct job *job = opaque;
    struct crowd *crowd = job->crowd;
    int inside = atomic_fetch_add(&crowd->inside, 1) + 1;
    int most = atomic_load(&crowd->most);
    while (inside > most && !atomic_compare_exchange_weak(&crowd->most, &most, inside)) {
    }
    while (atomic_load(&crowd->most) < crowd->wanted) {
        sched_yield(); /* until enough have come */
    }
    kit_sleep_ms(1);
    atomic_fetch_sub(&crowd->inside, 1);
    return 0;
}

static void co_meets(void *opaque)
{
    struct job *job = opaque;
    co_thread_pool(meet, job);
    job->crowd->done++;
}

/* As many blocking calls at once as the pool has workers, and not more. */
static void test_workers_are_many_and_bounded(void **state)
{
    struct kit *kit = kit_of(state);
    thread_pool_set_idle_ns(NS_PER_SEC);
    struct crowd crowd = {.wanted = POOL_MAX_WORKERS};
    static struct job jobs[200];
    struct crowd first = {.ok = true};
    struct job job = {&first, 1};

    /* One is idle already. */
    coroutine_enter(coroutine_new(co_result, &job));
    kit_poll_until(kit->loop, &first.done, 1);

    for (int i = 0; i < 200; i++) {
        jobs[i] = (struct job){&crowd, i};
        coroutine_enter(coroutine_new(co_meets, &jobs[i]));
    }
    kit_poll_until(kit->loop, &crowd.done, 200);
    assert_int_equal(atomic_load(&crowd.most), POOL_MAX_WORKERS);
    assert_in_range(thread_pool_workers(NULL), 0, POOL_MAX_WORKERS);
    thread_pool_set_idle_ns(20 * NS_PER_MS);
}

/* Idle workers end; the next job finds or makes one. */
static void test_idle_workers_end(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.ok = true};
    struct job job = {&crowd, 1};
    for (int i = 1; i <= 5; i++) {
        coroutine_enter(coroutine_new(co_result, &job));
        kit_poll_until(kit->loop, &crowd.done, i);
        if (i % 2) {
            wait_for_workers(0);
        }
    }
    /* Around the very moment. */
    thread_pool_set_idle_ns(100 * NS_PER_US);
    for (int i = 6; i < 300; i++) {
        coroutine_enter(coroutine_new(co_result, &job));
        kit_poll_until(kit->loop, &crowd.done, i);
        nanosleep(&(struct timespec){.tv_nsec = 50000 + i * 300}, NULL);
    }
    assert_true(crowd.ok);
}

static int unchecked(void *opaque)
{
    return *(int *)opaque;
}

static void co_unchecked(void *opaque)
{
    struct job *job = opaque;
    job->crowd->ok &= co_thread_pool(unchecked, &job->number) == job->number;
    job->crowd->done++;
}

/* The host gives no thread, or too few: the work is done all the same. */
static void test_without_threads(void **state)
{
    struct kit *kit = kit_of(state);
    static struct job jobs[100];
    for (int threads = 0; threads < 3; threads++) {
        struct crowd crowd = {.ok = true};
        wait_for_workers(0);
        atomic_store(&creations_left, threads);
        for (int i = 0; i < 100; i++) {
            jobs[i] = (struct job){&crowd, i};
            coroutine_enter(coroutine_new(co_unchecked, &jobs[i]));
        }
        kit_poll_until(kit->loop, &crowd.done, 100);
        assert_true(crowd.ok);
        assert_in_range(thread_pool_workers(NULL), 0, threads);
    }
    atomic_store(&creations_left, -1);
}

static void co_loops_share(void *opaque)
{
    struct job *job = opaque;
    for (int i = 0; i < 200; i++) {
        KIT_CHECK(co_thread_pool(unchecked, &job->number) == job->number);
    }
    atomic_fetch_add(&job->crowd->inside, 1);
}

static void test_loops_share_the_pool(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread loops[3];
    struct crowd crowd = {.ok = true};
    struct job jobs[30];
    for (int i = 0; i < 3; i++) {
        kit_thread_start(&loops[i], kit->engine);
    }
    for (int i = 0; i < 30; i++) {
        jobs[i] = (struct job){&crowd, i};
        aio_call_co(loops[i % 3].loop, co_loops_share, &jobs[i]);
    }
    while (atomic_load(&crowd.inside) < 30) {
        kit_sleep_ms(1);
    }
    for (int i = 0; i < 3; i++) {
        kit_thread_stop(&loops[i]);
    }
}

/* ---- a loop's own pool ---------------------------------------------------------------------- */

static void use_own_pool(struct kit *kit, unsigned min, unsigned max)
{
    aio_loop_unbind(kit->loop);
    assert_true(aio_loop_set_thread_pool(kit->loop, min, max, NULL));
    aio_loop_bind(kit->loop);
}

static unsigned threads_of_process(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/task");
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

static void test_own_pool(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.wanted = 4};
    static struct job jobs[50];
    unsigned before = threads_of_process();

    use_own_pool(kit, 2, 4);
    struct thread_pool *own = kit->loop->pool;
    assert_int_equal(thread_pool_workers(own), 2);
    for (int i = 0; i < 50; i++) {
        jobs[i] = (struct job){&crowd, i};
        coroutine_enter(coroutine_new(co_meets, &jobs[i]));
    }
    kit_poll_until(kit->loop, &crowd.done, 50);
    assert_int_equal(atomic_load(&crowd.most), 4);
    assert_int_equal(thread_pool_workers(NULL), 0);
    /* The two that are too many end, the others stay. */
    while (thread_pool_workers(own) > 2) {
        kit_sleep_ms(1);
    }
    kit_sleep_ms(60);
    assert_int_equal(thread_pool_workers(own), 2);
    crowd = (struct crowd){.ok = true};
    coroutine_enter(coroutine_new(co_result, &jobs[0]));
    kit_poll_until(kit->loop, &crowd.done, 1);

    /* All go with the loop. */
    aio_loop_unbind(kit->loop);
    aio_loop_free(kit->loop);
    kit->loop = NULL;
    for (int i = 0; i < 5000 && threads_of_process() > before; i++) {
        kit_sleep_ms(1); /* the kernel's part of their end */
    }
    assert_true(threads_of_process() <= before);
}

static void test_own_pool_without_threads(void **state)
{
    struct kit *kit = kit_of(state);
    struct error *err = NULL;

    atomic_store(&creations_left, 2);
    aio_loop_unbind(kit->loop);
    assert_false(aio_loop_set_thread_pool(kit->loop, 3, 3, &err));
    assert_string_equal(error_message(err),
                        "the host gives event loop 'test' only 2 of 3 threads for its pool");
    error_free(err);
    aio_loop_bind(kit->loop);
    /* None at the beginning is no error, nor later. */
    atomic_store(&creations_left, 0);
    use_own_pool(kit, 0, 2);
    struct crowd crowd = {.ok = true};
    struct job job = {&crowd, 7};
    coroutine_enter(coroutine_new(co_unchecked, &job));
    kit_poll_until(kit->loop, &crowd.done, 1);
    assert_true(crowd.ok);
    atomic_store(&creations_left, -1);
}

/* ---- batches -------------------------------------------------------------------------------- */

static int note_inside(void *opaque)
{
    struct job *job = opaque;
    atomic_fetch_add(&job->crowd->inside, 1);
    return 0;
}

static void co_notes(void *opaque)
{
    struct job *job = opaque;
    co_thread_pool(note_inside, job);
    job->crowd->done++;
}

/* Full batches go to the workers at once, the rest at the end of the round. */
static void test_batch(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {0};
    struct job job = {&crowd, 0};

    aio_loop_set_batch(kit->loop, 4);
    for (int i = 0; i < 10; i++) {
        coroutine_enter(coroutine_new(co_notes, &job));
    }
    while (atomic_load(&crowd.inside) < 8) {
        kit_sleep_ms(1);
    }
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&crowd.inside), 8);
    assert_int_equal(crowd.done, 0);
    kit_poll_until(kit->loop, &crowd.done, 10);
}

static void co_read_by(struct job *job, enum aio_io_engine engine, size_t size)
{
    char *buffer = xmalloc(size);
    struct iovec iov = {.iov_base = buffer, .iov_len = size};
    struct aio_request request = {.op = AIO_OP_READ, .fd = job->number, .iov = &iov, .niov = 1};
    job->crowd->ok &= co_aio_submit(engine, &request) == (int64_t)size;
    job->crowd->done++;
    free(buffer);
}

static void co_read(void *opaque)
{
    co_read_by(opaque, AIO_IO_URING, 1);
}

static void co_read_in_pool(void *opaque)
{
    co_read_by(opaque, AIO_IO_THREADS, 65536);
}

static void co_read_long(void *opaque)
{
    co_read_by(opaque, AIO_IO_THREADS, 65537);
}

/* In a loop that has nothing but requests, one that is short and alone needs no worker. */
static void test_only_requests(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.ok = true};
    struct job job = {&crowd, open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};

    coroutine_enter(coroutine_new(co_read_in_pool, &job));
    kit_poll_until(kit->loop, &crowd.done, 1);
    assert_int_equal(thread_pool_workers(NULL), 1);
    wait_for_workers(0);
    aio_loop_set_only_requests(kit->loop);
    for (int i = 2; i <= 10; i++) {
        coroutine_enter(coroutine_new(co_read_in_pool, &job));
        kit_poll_until(kit->loop, &crowd.done, i);
        assert_int_equal(thread_pool_workers(NULL), 0);
    }
    coroutine_enter(coroutine_new(co_read_long, &job));
    kit_poll_until(kit->loop, &crowd.done, 11);
    assert_int_equal(thread_pool_workers(NULL), 1);
    wait_for_workers(0);
    coroutine_enter(coroutine_new(co_read_in_pool, &job));
    coroutine_enter(coroutine_new(co_read_in_pool, &job));
    kit_poll_until(kit->loop, &crowd.done, 13);
    assert_int_equal(thread_pool_workers(NULL), 2);
    assert_true(crowd.ok);
    close(job.number);
}

static void test_uring_batch(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.ok = true};
    struct job job = {&crowd, open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};

    if (!loop_get_uring(kit->loop)) {
        print_message("no io_uring on this machine\n");
        skip();
    }
    kit_poll_all(kit->loop);
    aio_loop_set_batch(kit->loop, 4);
    for (unsigned i = 1; i <= 10; i++) {
        coroutine_enter(coroutine_new(co_read, &job));
        assert_int_equal(io_uring_sq_ready(&kit->loop->uring->ring), i % 4);
    }
    kit_poll_until(kit->loop, &crowd.done, 10);
    assert_true(crowd.ok);
    close(job.number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(test_results),
        POOL_TEST(test_workers_are_many_and_bounded),
        POOL_TEST(test_idle_workers_end),
        POOL_TEST(test_without_threads),
        POOL_TEST(test_loops_share_the_pool),
        POOL_TEST(test_own_pool),
        POOL_TEST(test_own_pool_without_threads),
        POOL_TEST(test_batch),
        POOL_TEST(test_only_requests),
        POOL_TEST(test_uring_batch),
    };
    return KIT_MAIN("pool", tests);
}
