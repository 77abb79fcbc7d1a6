/* SPDX-License-Identifier: MIT */
/* Adaptive polling: a queue whose doorbells the loop switches off, and the time that it spins. */
#include "kit.h"

#include <sys/eventfd.h>

#include "aio/internal.h"

struct virtq {
    struct event_notifier n;
    struct aio_loop *loop;
    atomic_int avail;
    int used;  /* loop */
    int begun; /* doorbells are off */
    int asked;
    int ring_at_end; /* new work at the very moment doorbells go on */
};

static bool virtq_poll(void *opaque)
{
    struct virtq *q = opaque;
    q->asked++;
    return atomic_load(&q->avail) > q->used;
}

static void virtq_handle(void *opaque)
{
    struct virtq *q = opaque;
    q->used = atomic_load(&q->avail);
}

static void virtq_begin(void *opaque)
{
    struct virtq *q = opaque;
    assert_int_equal(q->begun++, 0);
}

static void virtq_end(void *opaque)
{
    struct virtq *q = opaque;
    assert_int_equal(--q->begun, 0);
    atomic_fetch_add(&q->avail, q->ring_at_end);
    q->ring_at_end = 0;
}

static void *driver_without_bell(void *opaque)
{
    struct virtq *q = opaque;
    kit_sleep_ms(10);
    atomic_fetch_add(&q->avail, 1);
    return NULL;
}

static void virtq_start(struct virtq *q, struct aio_loop *loop)
{
    *q = (struct virtq){.loop = loop};
    assert_true(event_notifier_init(&q->n, NULL));
    aio_set_notifier_poll(loop, &q->n, virtq_handle, virtq_poll, virtq_begin, virtq_end, q);
}

static void virtq_stop(struct virtq *q)
{
    aio_set_notifier(q->loop, &q->n, NULL, NULL, NULL);
    event_notifier_cleanup(&q->n);
}

/* An event that comes soon teaches the loop to poll; then work without a doorbell is found. */
static void test_grows_and_finds(void **state)
{
    struct kit *kit = kit_of(state);
    struct virtq q;
    struct aio_timer timer;
    pthread_t thread;
    int ticks = 0;
    virtq_start(&q, kit->loop);
    timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &ticks);
    aio_loop_set_poll(kit->loop, 20 * NS_PER_SEC, 1000000, 0);
    kit_poll_all(kit->loop);
    assert_int_equal(q.asked, 0);
    for (int i = 1; i <= 5; i++) {
        timer_set(&timer, kit_now() + NS_PER_MS);
        kit_poll_until(kit->loop, &ticks, i);
    }
    assert_true(q.asked > 0);
    assert_int_equal(q.begun, 1);
    pthread_create(&thread, NULL, driver_without_bell, &q);
    while (q.used == 0) {
        aio_loop_poll(kit->loop, true);
    }
    pthread_join(thread, NULL);
    assert_int_equal(q.used, 1);

    /* While doorbells are off, a round that does not wait asks too. */
    atomic_fetch_add(&q.avail, 1);
    assert_true(aio_loop_poll(kit->loop, false));
    assert_int_equal(q.used, 2);

    /* Off: doorbells on before the loop waits, and nobody asks any more. */
    aio_loop_set_poll(kit->loop, 0, 0, 0);
    timer_set(&timer, kit_now() + 2 * NS_PER_MS);
    kit_poll_until(kit->loop, &ticks, 6);
    assert_int_equal(q.begun, 0);
    q.asked = 0;
    timer_set(&timer, kit_now() + 2 * NS_PER_MS);
    kit_poll_until(kit->loop, &ticks, 7);
    assert_int_equal(q.asked, 0);
    event_notifier_set(&q.n);
    atomic_fetch_add(&q.avail, 1);
    while (q.used != 3) {
        aio_loop_poll(kit->loop, true);
    }
    virtq_stop(&q);
}

/* Nothing comes for longer than the maximum: the loop polls no more, until it pays again. */
static void test_shrinks(void **state)
{
    struct kit *kit = kit_of(state);
    struct virtq q;
    struct aio_timer timer;
    int ticks = 0;
    virtq_start(&q, kit->loop);
    timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &ticks);
    aio_loop_set_poll(kit->loop, NS_PER_MS, 0, 0);
    kit_poll_all(kit->loop);
    for (int i = 1; i <= 20; i++) {
        timer_set(&timer, kit_now() + 100 * NS_PER_US);
        kit_poll_until(kit->loop, &ticks, i);
    }
    assert_true(q.asked > 0);
    /* Twice; again if the host ended a wait early, which looks like an event that came soon. */
    for (int tries = 0; tries == 0 || q.asked > 0; tries++) {
        assert_true(tries < 10);
        for (int i = 0; i < 2; i++) {
            q.asked = 0;
            ticks = 0;
            timer_set(&timer, kit_now() + 30 * NS_PER_MS);
            kit_poll_until(kit->loop, &ticks, 1);
        }
    }
    assert_int_equal(q.begun, 0);
    aio_loop_set_poll(kit->loop, 0, 0, 0);
    virtq_stop(&q);
}

/* Work that comes just when doorbells go on again is found without one. */
static void test_end_races(void **state)
{
    struct kit *kit = kit_of(state);
    struct virtq q;
    struct aio_timer timer;
    int ticks = 0;
    virtq_start(&q, kit->loop);
    timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &ticks);
    aio_loop_set_poll(kit->loop, NS_PER_MS, 0, 0);
    kit_poll_all(kit->loop);
    while (!q.begun) {
        ticks = 0;
        timer_set(&timer, kit_now() + 50 * NS_PER_US);
        kit_poll_until(kit->loop, &ticks, 1);
    }
    q.ring_at_end = 1;
    while (q.used == 0) {
        aio_loop_poll(kit->loop, true);
    }
    assert_int_equal(q.used, 1);
    aio_loop_set_poll(kit->loop, 0, 0, 0);
    virtq_stop(&q);
}

/* begin and end come in pairs for handlers that come and go while the loop polls. */
static void test_handler_comes_and_goes(void **state)
{
    struct kit *kit = kit_of(state);
    struct virtq a, b;
    struct aio_timer timer;
    int ticks = 0;
    virtq_start(&a, kit->loop);
    timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &ticks);
    aio_loop_set_poll(kit->loop, NS_PER_SEC, 0, 0);
    while (!a.begun) {
        ticks = 0;
        timer_set(&timer, kit_now() + 100 * NS_PER_US);
        kit_poll_until(kit->loop, &ticks, 1);
    }
    virtq_start(&b, kit->loop);
    assert_int_equal(b.begun, 1);
    virtq_stop(&a);
    assert_int_equal(a.begun, 0);
    virtq_stop(&b);
    assert_int_equal(b.begun, 0);
    aio_loop_set_poll(kit->loop, 0, 0, 0);
}

/* Without a notifier that can be asked, there is nothing to spin for. */
static void test_nobody_to_ask(void **state)
{
    struct kit *kit = kit_of(state);
    struct virtq q;
    struct aio_timer timer;
    int ticks = 0;
    timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &ticks);
    aio_loop_set_poll(kit->loop, NS_PER_SEC, 0, 0);
    kit_poll_all(kit->loop);
    for (int i = 1; i <= 5; i++) {
        timer_set(&timer, kit_now() + NS_PER_MS);
        kit_poll_until(kit->loop, &ticks, i);
    }
    assert_int_equal(kit->loop->poll_ns, 0);
    virtq_start(&q, kit->loop);
    timer_set(&timer, kit_now() + NS_PER_MS);
    kit_poll_until(kit->loop, &ticks, 6);
    assert_true(kit->loop->poll_ns > 0);
    virtq_stop(&q);
    aio_loop_set_poll(kit->loop, 0, 0, 0);
}

/* A queue that always has work does not keep the loop from its other handlers. */
static bool always(void *opaque)
{
    return true;
}

static void test_others_have_their_turn(void **state)
{
    struct kit *kit = kit_of(state);
    struct event_notifier busy, other;
    int busy_calls = 0, other_calls = 0;
    assert_true(event_notifier_init(&busy, NULL) && event_notifier_init(&other, NULL));
    aio_set_notifier(kit->loop, &busy, kit_count, always, &busy_calls);
    aio_set_notifier(kit->loop, &other, kit_count, NULL, &other_calls);
    aio_loop_set_poll(kit->loop, NS_PER_SEC, 0, 0);
    kit_poll_all(kit->loop);
    kit->loop->poll_ns = NS_PER_SEC;
    for (int i = 1; i <= 20; i++) {
        int before = busy_calls;
        int rounds = 0;
        event_notifier_set(&other);
        while (other_calls < i) {
            assert_true(rounds++ < 100);
            assert_true(aio_loop_poll(kit->loop, true));
        }
        assert_true(busy_calls > before);
    }
    aio_set_notifier(kit->loop, &busy, NULL, NULL, NULL);
    aio_set_notifier(kit->loop, &other, NULL, NULL, NULL);
    aio_loop_set_poll(kit->loop, 0, 0, 0);
    event_notifier_cleanup(&busy);
    event_notifier_cleanup(&other);
}

/* ---- a driver in another thread ------------------------------------------------------------- */

#define REQUESTS 20000

/* It rings only if the loop wants to hear it, and waits for each answer: what the loop misses, it
 * misses for ever. */
struct ring {
    struct event_notifier doorbell;
    atomic_uint avail, used;
    atomic_bool no_notify;
    unsigned bells; /* driver */
};

static bool ring_poll(void *opaque)
{
    struct ring *r = opaque;
    return atomic_load(&r->avail) != atomic_load(&r->used);
}

static void ring_handle(void *opaque)
{
    struct ring *r = opaque;
    atomic_store(&r->used, atomic_load(&r->avail));
}

static void ring_quiet(void *opaque)
{
    struct ring *r = opaque;
    atomic_store(&r->no_notify, true);
}

static void ring_loud(void *opaque)
{
    struct ring *r = opaque;
    atomic_store(&r->no_notify, false);
}

static void ring_add(void *opaque)
{
    struct ring *r = opaque;
    aio_set_notifier_poll(aio_loop_current(), &r->doorbell, ring_handle, ring_poll, ring_quiet,
                          ring_loud, r);
    aio_loop_set_poll(aio_loop_current(), 32768, 0, 0);
}

static void ring_remove(void *opaque)
{
    struct ring *r = opaque;
    aio_set_notifier(aio_loop_current(), &r->doorbell, NULL, NULL, NULL);
}

static void test_no_request_is_lost(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread thread;
    struct ring r = {.bells = 0};
    assert_true(event_notifier_init(&r.doorbell, NULL));
    kit_thread_start(&thread, kit->engine);
    aio_call_wait(thread.loop, ring_add, &r);
    for (unsigned i = 1; i <= REQUESTS; i++) {
        atomic_store(&r.avail, i);
        if (!atomic_load(&r.no_notify)) {
            r.bells++;
            event_notifier_set(&r.doorbell);
        }
        int64_t begin = kit_now();
        while (atomic_load(&r.used) != i) {
            if (kit_now() - begin > 20 * NS_PER_SEC) {
                fail_msg("request %u is lost", i);
            }
            sched_yield();
        }
        /* From a driver that is at once there again to one that is too late to be polled for. */
        for (int64_t until = kit_now() + i % 64 * NS_PER_US; kit_now() < until;) {
        }
    }
    aio_call_wait(thread.loop, ring_remove, &r);
    assert_false(atomic_load(&r.no_notify));
    kit_thread_stop(&thread);
    event_notifier_cleanup(&r.doorbell);
}

/* ---- the time to spin ----------------------------------------------------------------------- */

#define MAX_NS 32768
#define LATE   (MAX_NS + 1)

static struct aio_loop *adapting(void **state, int64_t grow, int64_t shrink)
{
    struct aio_loop *loop = kit_of(state)->loop;
    aio_loop_set_poll(loop, MAX_NS, grow, shrink);
    assert_int_equal(loop->poll_ns, 0);
    return loop;
}

static void test_time_grows(void **state)
{
    struct aio_loop *loop = adapting(state, 0, 0);
    static const int64_t doubled[] = {4000, 8000, 16000, 32000, MAX_NS, MAX_NS};
    for (unsigned i = 0; i < ARRAY_SIZE(doubled); i++) {
        polling_adapt(loop, MAX_NS);
        assert_int_equal(loop->poll_ns, doubled[i]);
    }
    loop = adapting(state, 3, 0);
    polling_adapt(loop, MAX_NS);
    polling_adapt(loop, MAX_NS);
    assert_int_equal(loop->poll_ns, 12000);
    polling_adapt(loop, 12000); /* in time */
    assert_int_equal(loop->poll_ns, 12000);
    loop = adapting(state, INT64_MAX, 0);
    polling_adapt(loop, MAX_NS);
    polling_adapt(loop, MAX_NS);
    assert_int_equal(loop->poll_ns, MAX_NS);
    /* The maximum is less than what it starts from. */
    aio_loop_set_poll(loop, 1000, 0, 0);
    polling_adapt(loop, 999);
    assert_int_equal(loop->poll_ns, 1000);
}

static void grow_to_max(struct aio_loop *loop)
{
    while (loop->poll_ns < MAX_NS) {
        polling_adapt(loop, MAX_NS);
    }
}

static void test_time_survives_single_misses(void **state)
{
    struct aio_loop *loop = adapting(state, 0, 0);
    grow_to_max(loop);
    for (int i = 0; i < 100; i++) {
        polling_adapt(loop, LATE);
        polling_adapt(loop, LATE);
        polling_adapt(loop, LATE);
        assert_int_equal(loop->poll_ns, MAX_NS);
        polling_adapt(loop, MAX_NS);
    }
    /* What comes at once does not make up for misses. */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(loop->poll_ns, MAX_NS);
        polling_adapt(loop, LATE);
        polling_adapt(loop, 100);
    }
    assert_true(loop->poll_ns < MAX_NS);
}

static void test_time_shrinks_as_told(void **state)
{
    struct aio_loop *loop = adapting(state, 0, 2);
    grow_to_max(loop);
    polling_adapt(loop, LATE);
    assert_int_equal(loop->poll_ns, MAX_NS / 2);
    loop = adapting(state, 0, 1);
    grow_to_max(loop);
    for (int i = 0; i < 100; i++) {
        polling_adapt(loop, LATE);
    }
    assert_int_equal(loop->poll_ns, MAX_NS); /* never */
}

/* Nothing but misses: seldom tried, and more and more seldom. */
static void test_trials_are_few(void **state)
{
    struct aio_loop *loop = adapting(state, 0, 0);
    unsigned spins = 0, last = 0, longest = 0;
    for (unsigned i = 1; i <= 1000; i++) {
        polling_adapt(loop, LATE);
        if (loop->poll_ns > 0) {
            assert_int_equal(loop->poll_ns, MAX_NS);
            longest = MAX(longest, i - last);
            last = i;
            spins++;
        }
    }
    assert_in_range(spins, 15, 25);
    assert_in_range(longest, 60, 70);
}

/* The loop wakes too late each time, but would have seen the event in time. */
static void test_trial_finds(void **state)
{
    struct aio_loop *loop = adapting(state, 0, 0);
    for (int i = 0; i < 1000; i++) {
        polling_adapt(loop, LATE);
    }
    for (int i = 0; loop->poll_ns == 0; i++) {
        assert_true(i < 70);
        polling_adapt(loop, LATE);
    }
    polling_adapt(loop, MAX_NS - 1);
    for (int i = 0; i < 3; i++) {
        polling_adapt(loop, LATE);
        assert_int_equal(loop->poll_ns, MAX_NS);
    }
}

/* Trials come also where every other event comes at once and makes the time grow from 0. */
static void test_trials_between_fast_events(void **state)
{
    struct aio_loop *loop = adapting(state, 0, 0);
    unsigned trials = 0;
    for (int i = 0; i < 1000; i++) {
        polling_adapt(loop, LATE);
        trials += loop->poll_ns == MAX_NS;
        polling_adapt(loop, 1000);
    }
    assert_in_range(trials, 10, 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_ENGINES(test_grows_and_finds),
        BOTH_ENGINES(test_shrinks),
        BOTH_ENGINES(test_end_races),
        BOTH_ENGINES(test_handler_comes_and_goes),
        BOTH_ENGINES(test_nobody_to_ask),
        BOTH_ENGINES(test_others_have_their_turn),
        BOTH_ENGINES(test_no_request_is_lost),
        BOTH_ENGINES(test_time_grows),
        BOTH_ENGINES(test_time_survives_single_misses),
        BOTH_ENGINES(test_time_shrinks_as_told),
        BOTH_ENGINES(test_trials_are_few),
        BOTH_ENGINES(test_trial_finds),
        BOTH_ENGINES(test_trials_between_fast_events),
    };
    return KIT_MAIN("polling", tests);
}
