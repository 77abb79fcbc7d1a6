/* SPDX-License-Identifier: MIT */
/* Several loops and threads at once. What is lost makes the test hang, or a sum wrong. */
#include "kit.h"

#include <fcntl.h>
#include <sched.h>

enum { LOOPS = 3 };

/* ---- no wakeup is lost ---------------------------------------------------------------------- */

struct ping {
    struct aio_loop *loops[2];
    int left;
    atomic_bool done;
};

static void bounce(void *opaque)
{
    struct ping *p = opaque;
    if (p->left-- == 0) {
        atomic_store(&p->done, true);
        return;
    }
    aio_call(p->loops[p->left & 1], bounce, p);
}

/* One call goes to and fro; each loop has nothing else to wake it. */
static void test_ping_pong(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread threads[2];
    struct ping p = {.left = 20000};
    for (int i = 0; i < 2; i++) {
        kit_thread_start(&threads[i], kit->engine);
        p.loops[i] = threads[i].loop;
    }
    aio_call(p.loops[0], bounce, &p);
    while (!atomic_load(&p.done)) {
        kit_sleep_ms(1);
    }
    for (int i = 0; i < 2; i++) {
        kit_thread_stop(&threads[i]);
    }
}

struct producer {
    struct aio_loop *loop;
    struct aio_bh *bh;
    atomic_uint scheduled; /* before bh_schedule() */
    atomic_uint seen;      /* by the last run */
    atomic_int calls_made, calls_run;
    atomic_bool stop;
};

static void see(void *opaque)
{
    struct producer *p = opaque;
    atomic_store(&p->seen, atomic_load(&p->scheduled));
}

static void count_run(void *opaque)
{
    struct producer *p = opaque;
    atomic_fetch_add(&p->calls_run, 1);
}

static void *produce(void *opaque)
{
    struct producer *p = opaque;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < 3000; i++) {
        unsigned number = atomic_fetch_add(&p->scheduled, 1) + 1;
        bh_schedule(p->bh);
        if (rand_r(&seed) % 4 == 0) {
            atomic_fetch_add(&p->calls_made, 1);
            aio_call(p->loop, count_run, p);
        }
        if (rand_r(&seed) % 8 == 0) {
            /* Let the loop fall asleep, or nearly. */
            for (unsigned spin = rand_r(&seed) % 2000; spin > 0; spin--) {
                atomic_load(&p->seen);
            }
        }
        if (rand_r(&seed) % 64 == 0) {
            while ((int)(atomic_load(&p->seen) - number) < 0) {
                sched_yield(); /* for ever, if the schedule was lost */
            }
        }
    }
    return NULL;
}

static void test_no_schedule_is_lost(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread loop;
    struct producer p = {.scheduled = 0};
    pthread_t threads[3];
    kit_thread_start(&loop, kit->engine);
    p.loop = loop.loop;
    p.bh = bh_new(loop.loop, see, &p);
    for (int i = 0; i < 3; i++) {
        pthread_create(&threads[i], NULL, produce, &p);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    while (atomic_load(&p.seen) != atomic_load(&p.scheduled) ||
           atomic_load(&p.calls_run) != atomic_load(&p.calls_made)) {
        sched_yield();
    }
    kit_thread_stop(&loop);
    bh_delete(p.bh);
}

/* ---- short-lived loops ---------------------------------------------------------------------- */

struct brief {
    struct aio_loop *loop;
    struct coroutine *co;
    atomic_bool is_waiting;
    int done;
};

static int nothing(void *opaque)
{
    return 0;
}

static void co_brief(void *opaque)
{
    struct brief *b = opaque;
    co_thread_pool(nothing, NULL);
    b->co = coroutine_self();
    atomic_store(&b->is_waiting, true);
    coroutine_yield();
    b->done = 1;
}

static void *wake_brief(void *opaque)
{
    struct brief *b = opaque;
    while (!atomic_load(&b->is_waiting)) {
        sched_yield();
    }
    co_wake(b->co);
    return NULL;
}

/* The wake is the last that keeps the loop: it may be freed before co_wake() has returned. */
static void test_loop_ends_as_it_is_woken(void **state)
{
    struct kit *kit = kit_of(state);
    aio_loop_unbind(kit->loop);
    for (int i = 0; i < 300; i++) {
        struct brief b = {.loop = kit_loop_new(kit->engine)};
        pthread_t thread;
        aio_loop_bind(b.loop);
        pthread_create(&thread, NULL, wake_brief, &b);
        coroutine_enter(coroutine_new(co_brief, &b));
        kit_poll_until(b.loop, &b.done, 1);
        aio_loop_unbind(b.loop);
        aio_loop_free(b.loop);
        pthread_join(thread, NULL);
    }
    aio_loop_bind(kit->loop);
}

/* ---- everything at once --------------------------------------------------------------------- */

struct world {
    struct kit_thread loops[LOOPS];
    struct event_notifier bells[LOOPS];
    atomic_int rung[LOOPS];
    struct co_mutex mutex;
    uint64_t counter; /* under mutex */
    int fd;
    bool has_uring;
    atomic_int running;
};

struct citizen {
    struct world *world;
    unsigned seed;
    uint64_t additions;
};

struct bell_opaque {
    struct world *world;
    int number;
};

static void on_bell(void *opaque)
{
    struct bell_opaque *b = opaque;
    atomic_fetch_add(&b->world->rung[b->number], 1);
}

static int sleep_in_worker(void *opaque)
{
    nanosleep(&(struct timespec){.tv_nsec = *(unsigned *)opaque % 100000}, NULL);
    return 7;
}

static void co_helper(void *opaque)
{
    atomic_int *helpers = opaque;
    co_sleep(AIO_CLOCK_RT, 1000);
    atomic_fetch_sub(helpers, 1);
}

static void co_citizen(void *opaque)
{
    struct citizen *c = opaque;
    struct world *w = c->world;
    atomic_int helpers = 0;
    for (int i = 0; i < 150; i++) {
        unsigned dice = (unsigned)rand_r(&c->seed);
        switch (dice % 6) {
        case 0:
            co_sleep(AIO_CLOCK_RT, dice % 50000);
            break;
        case 1:
            co_mutex_lock(&w->mutex);
            w->counter++;
            if (dice % 4 == 0) {
                co_sleep(AIO_CLOCK_RT, 100);
            }
            co_mutex_unlock(&w->mutex);
            c->additions++;
            break;
        case 2:
            KIT_CHECK(co_thread_pool(sleep_in_worker, &dice) == 7);
            break;
        case 3:
            event_notifier_set(&w->bells[dice / 6 % LOOPS]);
            break;
        case 4:
            atomic_fetch_add(&helpers, 1);
            aio_call_co(w->loops[dice / 6 % LOOPS].loop, co_helper, &helpers);
            break;
        default: {
            char block[512];
            struct iovec iov = {.iov_base = block, .iov_len = sizeof(block)};
            struct aio_request r = {
                .op = AIO_OP_READ, .fd = w->fd, .iov = &iov, .niov = 1, .offset = dice};
            enum aio_io_engine engine = dice & 64 && w->has_uring ? AIO_IO_URING : AIO_IO_THREADS;
            KIT_CHECK(co_aio_submit(engine, &r) == sizeof(block));
            break;
        }
        }
    }
    while (atomic_load(&helpers) > 0) {
        co_sleep(AIO_CLOCK_RT, 10000);
    }
    atomic_fetch_sub(&w->running, 1);
}

static void set_bell(void *opaque)
{
    struct bell_opaque *b = opaque;
    struct aio_loop *loop = aio_loop_current();
    aio_set_notifier(loop, &b->world->bells[b->number], on_bell, NULL, b);
    /* One of the loops polls. */
    aio_loop_set_poll(loop, b->number == 0 ? 50 * NS_PER_US : 0, 0, 0);
}

static void unset_bell(void *opaque)
{
    struct bell_opaque *b = opaque;
    aio_set_notifier(aio_loop_current(), &b->world->bells[b->number], NULL, NULL, NULL);
}

static void test_everything_at_once(void **state)
{
    enum { CITIZENS = 60 };
    struct kit *kit = kit_of(state);
    static struct world w;
    static struct citizen citizens[CITIZENS];
    struct bell_opaque bells[LOOPS];
    memset(&w, 0, sizeof(w));
    w.fd = open("/dev/zero", O_RDONLY);
    w.has_uring = aio_io_available(kit->loop, AIO_IO_URING, NULL);
    co_mutex_init(&w.mutex);
    for (int i = 0; i < LOOPS; i++) {
        kit_thread_start(&w.loops[i], i == LOOPS - 1 ? AIO_LOOP_EPOLL : kit->engine);
        assert_true(event_notifier_init(&w.bells[i], NULL));
        bells[i] = (struct bell_opaque){&w, i};
        aio_call_wait(w.loops[i].loop, set_bell, &bells[i]);
    }
    atomic_store(&w.running, CITIZENS);
    for (unsigned i = 0; i < CITIZENS; i++) {
        citizens[i] = (struct citizen){.world = &w, .seed = i};
        aio_call_co(w.loops[i % LOOPS].loop, co_citizen, &citizens[i]);
    }
    while (atomic_load(&w.running) > 0) {
        kit_sleep_ms(1);
    }
    uint64_t sum = 0;
    for (int i = 0; i < CITIZENS; i++) {
        sum += citizens[i].additions;
    }
    for (int i = 0; i < LOOPS; i++) {
        int rung = atomic_load(&w.rung[i]);
        event_notifier_set(&w.bells[i]);
        while (atomic_load(&w.rung[i]) == rung) {
            sched_yield();
        }
        aio_call_wait(w.loops[i].loop, unset_bell, &bells[i]);
        kit_thread_stop(&w.loops[i]);
        event_notifier_cleanup(&w.bells[i]);
    }
    assert_int_equal(w.counter, sum);
    co_mutex_destroy(&w.mutex);
    close(w.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_ENGINES(test_ping_pong),
        BOTH_ENGINES(test_no_schedule_is_lost),
        BOTH_ENGINES(test_loop_ends_as_it_is_woken),
        BOTH_ENGINES(test_everything_at_once),
    };
    return KIT_MAIN("stress", tests);
}
