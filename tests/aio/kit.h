/* SPDX-License-Identifier: MIT */
/*
 * For tests of aio/: every test runs on both engines.
 *
 *   BOTH_ENGINES(test)   two entries of a cmocka test list; the test gets a struct kit in *state
 *                        with a loop bound to the test's thread
 */
#ifndef FERRY_TESTS_AIO_KIT_H
#define FERRY_TESTS_AIO_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "aio/coroutine.h"
#include "aio/io.h"
#include "aio/loop.h"
#include "aio/notifier.h"

struct kit {
    enum aio_loop_engine engine;
    struct aio_loop *loop;
};

/* cmocka's assertions are for the thread of the test; this one ends the process. */
#define KIT_CHECK(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A loop in a thread of its own. */
struct kit_thread {
    struct aio_loop *loop;
    pthread_t thread;
    atomic_bool stop;
};

static inline struct aio_loop *kit_loop_new(enum aio_loop_engine engine)
{
    struct error *err = NULL;
    struct aio_loop *loop = aio_loop_new("test", engine, &err);
    if (!loop) {
        print_message("%s\n", error_message(err));
        error_free(err);
        fail();
    }
    return loop;
}

static inline int kit_setup(void **state)
{
    struct kit *kit = calloc(1, sizeof(*kit));
    kit->engine = (enum aio_loop_engine)(uintptr_t)*state;
    /* Without io_uring the test skips itself: kit_of(). */
    kit->loop = aio_loop_new("test", kit->engine, NULL);
    if (kit->loop) {
        aio_loop_bind(kit->loop);
    }
    *state = kit;
    return 0;
}

static inline int kit_teardown(void **state)
{
    struct kit *kit = *state;
    if (kit->loop) {
        aio_loop_unbind(kit->loop);
        aio_loop_free(kit->loop);
    }
    free(kit);
    return 0;
}

static inline struct kit *kit_of(void **state)
{
    struct kit *kit = *state;
    if (!kit->loop) {
        assert_int_equal(kit->engine, AIO_LOOP_URING);
        print_message("no io_uring on this machine\n");
        skip();
    }
    return kit;
}

#define BOTH_ENGINES(test)                                                                         \
    {#test "/io_uring", test, kit_setup, kit_teardown, (void *)(uintptr_t)AIO_LOOP_URING},         \
    {                                                                                              \
#test "/epoll", test, kit_setup, kit_teardown, (void *)(uintptr_t)AIO_LOOP_EPOLL           \
    }

static inline void *kit_thread_run(void *opaque)
{
    struct kit_thread *t = opaque;
    aio_loop_bind(t->loop);
    while (!atomic_load(&t->stop)) {
        aio_loop_poll(t->loop, true);
    }
    aio_loop_unbind(t->loop);
    return NULL;
}

static inline void kit_thread_start(struct kit_thread *t, enum aio_loop_engine engine)
{
    t->loop = kit_loop_new(engine);
    atomic_init(&t->stop, false);
    assert_int_equal(pthread_create(&t->thread, NULL, kit_thread_run, t), 0);
}

static inline void kit_thread_stop(struct kit_thread *t)
{
    atomic_store(&t->stop, true);
    aio_loop_wake(t->loop);
    pthread_join(t->thread, NULL);
    aio_loop_free(t->loop);
}

static inline int64_t kit_now(void)
{
    return clock_get_ns(AIO_CLOCK_RT);
}

static inline void kit_sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

/* A function for calls, timers and bottom halves. */
static inline void kit_count(void *opaque)
{
    ++*(int *)opaque;
}

/* Blocking rounds until *count is at least n. */
static inline void kit_poll_until(struct aio_loop *loop, const int *count, int n)
{
    while (*count < n) {
        aio_loop_poll(loop, true);
    }
}

/* Rounds as long as there is something to do without waiting. */
static inline void kit_poll_all(struct aio_loop *loop)
{
    while (aio_loop_poll(loop, false)) {
    }
}

/* Runs fn in a coroutine of the kit's loop and polls until it has ended. */
struct kit_co {
    coroutine_fn *fn;
    void *opaque;
    int done;
};

static inline void kit_co_main(void *opaque)
{
    struct kit_co *co = opaque;
    co->fn(co->opaque);
    co->done = 1;
}

static inline void kit_run_co(struct aio_loop *loop, coroutine_fn *fn, void *opaque)
{
    struct kit_co co = {.fn = fn, .opaque = opaque};
    coroutine_enter(coroutine_new(kit_co_main, &co));
    kit_poll_until(loop, &co.done, 1);
}

/* A test that hangs ends here, with SIGALRM. */
static inline int kit_main(const char *name, const struct CMUnitTest *tests, size_t count)
{
    alarm(240);
    return _cmocka_run_group_tests(name, tests, count, NULL, NULL);
}

#define KIT_MAIN(name, tests) kit_main(name, tests, sizeof(tests) / sizeof((tests)[0]))

#endif
