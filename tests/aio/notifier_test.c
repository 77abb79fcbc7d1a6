/* SPDX-License-Identifier: MIT */
/* Event notifiers. */
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
    int count;
    bool rings_again; /* from within the handler */
};

static void ring_handler(void *opaque)
{
    struct bell *bell = opaque;
    bell->count++;
    if (bell->rings_again) {
        bell->rings_again = false;
        event_notifier_set(&bell->n);
    }
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
        kit_poll_all(kit->loop);
        assert_int_equal(bell.count, i); /* set as it still is, that was all */
        for (int k = 0; k <= i % 3; k++) {
            event_notifier_set(&bell.n); /* several are one */
        }
    }
    kit_poll_until(kit->loop, &bell.count, 101);
    bell.rings_again = true;
    event_notifier_set(&bell.n);
    kit_poll_until(kit->loop, &bell.count, 103);
    kit_poll_all(kit->loop);
    assert_int_equal(bell.count, 103);
    /* Removed with a set on its way: it never comes. */
    event_notifier_set(&bell.n);
    aio_set_notifier(kit->loop, &bell.n, NULL, NULL, NULL);
    kit_poll_all(kit->loop);
    assert_int_equal(bell.count, 103);
    /* Nor is it lost: who has the notifier next is called. */
    aio_set_notifier(kit->loop, &bell.n, ring_handler, NULL, &bell);
    kit_poll_until(kit->loop, &bell.count, 104);
    kit_poll_all(kit->loop);
    assert_int_equal(bell.count, 104);
    aio_set_notifier(kit->loop, &bell.n, NULL, NULL, NULL);
    assert_true(event_notifier_test_and_clear(&bell.n));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_clear),
        BOTH_ENGINES(test_handler),
        BOTH_ENGINES(test_passed_between_loops),
    };
    return KIT_MAIN("notifier", tests);
}
