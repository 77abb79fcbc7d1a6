/* SPDX-License-Identifier: MIT */
/* Event notifiers and adaptive polling. */
#include "kit.h"

#include <sys/eventfd.h>

static void test_set_and_clear(void **state)
{
    struct event_notifier n = {.fd = -1};
    event_notifier_cleanup(&n);
    assert_true(event_notifier_init(&n, NULL));
    assert_false(event_notifier_test_and_clear(&n));
    event_notifier_set(&n);
    event_notifier_set(&n);
    assert_true(event_notifier_test_and_clear(&n));
    assert_false(event_notifier_test_and_clear(&n));
    /* A counter at its end neither blocks nor fails. */
    assert_int_equal(eventfd_write(n.fd, UINT64_MAX - 1), 0);
    event_notifier_set(&n);
    assert_true(event_notifier_test_and_clear(&n));
    event_notifier_cleanup(&n);
    assert_int_equal(n.fd, -1);
}

struct bell {
    struct event_notifier n;
    struct aio_loop *loop;
    int count;
    bool was_set; /* when the handler came */
};

static void ring_handler(void *opaque)
{
    struct bell *bell = opaque;
    bell->was_set = event_notifier_test_and_clear(&bell->n);
    bell->count++;
}

static void test_handler(void **state)
{
    struct kit *kit = kit_of(state);
    struct bell bell = {.count = 0};
    assert_true(event_notifier_init(&bell.n, NULL));
    event_notifier_set(&bell.n); /* before there is a handler */
    aio_set_notifier(kit->loop, &bell.n, ring_handler, NULL, &bell);
    for (int i = 1; i <= 100; i++) {
        kit_poll_until(kit->loop, &bell.count, i);
        assert_false(bell.was_set); /* cleared first */
        kit_poll_all(kit->loop);
        assert_int_equal(bell.count, i);
        for (int k = 0; k <= i % 3; k++) {
            event_notifier_set(&bell.n); /* several are one */
        }
    }
    kit_poll_until(kit->loop, &bell.count, 101);
    /* Removed with a set on its way: it never comes. */
    event_notifier_set(&bell.n);
    aio_set_notifier(kit->loop, &bell.n, NULL, NULL, NULL);
    kit_poll_all(kit->loop);
    assert_int_equal(bell.count, 101);
    assert_true(event_notifier_test_and_clear(&bell.n)); /* nor is it lost */
    event_notifier_cleanup(&bell.n);
}

/* From one loop to another, while a thread sets it: no set is lost. */
struct passing {
    struct event_notifier n;
    atomic_int sets, seen;
};

static void see(void *opaque)
{
    struct passing *p = opaque;
    atomic_store(&p->seen, atomic_load(&p->sets));
}

struct passing_call {
    struct aio_loop *loop;
    struct passing *passing;
};

static void take(void *opaque)
{
    struct passing_call *c = opaque;
    aio_set_notifier(c->loop, &c->passing->n, see, NULL, c->passing);
}

static void leave(void *opaque)
{
    struct passing_call *c = opaque;
    aio_set_notifier(c->loop, &c->passing->n, NULL, NULL, NULL);
}

static void test_passed_between_loops(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread loops[2];
    struct passing p = {.sets = 0};
    assert_true(event_notifier_init(&p.n, NULL));
    for (int i = 0; i < 2; i++) {
        kit_thread_start(&loops[i], kit->engine);
    }
    for (int i = 0; i < 300; i++) {
        struct passing_call c = {loops[i % 2].loop, &p};
        aio_call_wait(c.loop, take, &c);
        atomic_fetch_add(&p.sets, 1);
        event_notifier_set(&p.n);
        if (i % 3) {
            while (atomic_load(&p.seen) != atomic_load(&p.sets)) {
                sched_yield();
            }
        }
        aio_call_wait(c.loop, leave, &c);
    }
    struct passing_call c = {loops[0].loop, &p};
    aio_call_wait(c.loop, take, &c);
    while (atomic_load(&p.seen) != atomic_load(&p.sets)) {
        sched_yield();
    }
    aio_call_wait(c.loop, leave, &c);
    for (int i = 0; i < 2; i++) {
        kit_thread_stop(&loops[i]);
    }
    event_notifier_cleanup(&p.n);
}

/* ---- adaptive polling ----------------------------------------------------------------------- */

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
static void test_polling_grows_and_finds(void **state)
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
static void test_polling_shrinks(void **state)
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
static void test_polling_end_races(void **state)
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
static void test_polling_handler_comes_and_goes(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_clear),
        BOTH_ENGINES(test_handler),
        BOTH_ENGINES(test_passed_between_loops),
        BOTH_ENGINES(test_polling_grows_and_finds),
        BOTH_ENGINES(test_polling_shrinks),
        BOTH_ENGINES(test_polling_end_races),
        BOTH_ENGINES(test_polling_handler_comes_and_goes),
    };
    return KIT_MAIN("notifier", tests);
}
