/* SPDX-License-Identifier: MIT */
/*
 * Adaptive polling: how long a loop with nothing to do looks around before it waits.
 *
 *   spin            asks the notifiers' poll functions, looks at the completion ring and the inbox
 *   doorbells off   from the first spin (poll_begin) until the loop is about to wait (poll_end);
 *                   then the notifiers are asked once more, for what came without a doorbell
 *
 * The time to spin (poll_ns) follows how long the loop had nothing to do:
 *
 *   an event within poll_ns      it was worth it, poll_ns stays
 *   one within poll_max_ns       poll_ns grows: 4 us, then times poll_grow
 *   a later one, a miss          after a few in a row, poll_ns shrinks to 0; with poll_shrink, it is
 *                                divided by that at once
 *
 * A loop that waited knows when it woke, not when the event came, and to wake a thread can take
 * longer than the request: there the misses look like a disk that is too slow to poll for, and are
 * not. So a loop that does not spin tries it after 1, 2, 4 ... 64 misses, for poll_max_ns. If that
 * finds something, the loop stays with it; else all it has cost is one spin in so many waits.
 */
#include "aio/internal.h"
#include "aio/notifier.h"
#include "base/cpu.h"
#include "base/range.h"

#define FIRST_NS  4000 /* where the time to spin starts to grow from */
#define MISSES    4    /* in a row; then a loop stops to spin */
#define TRIAL_MAX 64   /* misses from one trial to the next */
/* While polling finds work, the engine is asked for other work every so many rounds. */
#define SKIP_ROUNDS 16

void aio_loop_set_poll(struct aio_loop *loop, int64_t max_ns, int64_t grow, int64_t shrink)
{
    loop->poll_max_ns = MAX(max_ns, 0);
    loop->poll_grow = MAX(grow, 0);
    loop->poll_shrink = MAX(shrink, 0);
    loop->poll_ns = 0;
    loop->poll_misses = loop->poll_untried = 0;
    loop->poll_trial = 1;
    loop_kick(loop);
}

/* ---- the notifiers -------------------------------------------------------------------------- */

bool polling_ask(struct aio_loop *loop)
{
    bool progress = false;
    for (struct aio_handler *h = loop->pollers; h; h = h->poll_next) {
        if (!h->is_removed && h->poll(h->opaque)) {
            progress = true;
            if (!h->is_removed) {
                h->read(h->opaque);
            }
        }
    }
    return progress;
}

static void doorbells_off(struct aio_loop *loop)
{
    if (loop->is_polling) {
        return;
    }
    loop->is_polling = true;
    for (struct aio_handler *h = loop->pollers; h; h = h->poll_next) {
        if (h->poll_begin) {
            h->poll_begin(h->opaque);
        }
    }
}

bool polling_end(struct aio_loop *loop)
{
    if (!loop->is_polling) {
        return false;
    }
    loop->is_polling = false;
    for (struct aio_handler *h = loop->pollers; h; h = h->poll_next) {
        if (h->poll_end && !h->is_removed) {
            h->poll_end(h->opaque);
        }
    }
    return polling_ask(loop);
}

void polling_leave(struct aio_loop *loop)
{
    if (!loop->is_polling) {
        return;
    }
    loop->is_polling = false;
    for (struct aio_handler *h = loop->pollers; h; h = h->poll_next) {
        if (h->poll_end) {
            h->poll_end(h->opaque);
        }
        if (h->poll(h->opaque)) {
            event_notifier_set(&(struct event_notifier){.fd = h->fd});
        }
    }
}

/* ---- the time to spin ----------------------------------------------------------------------- */

static void adapt_to_hit(struct aio_loop *loop, int64_t idle_ns)
{
    /* What comes almost at once says nothing about spinning for long. */
    if (idle_ns > FIRST_NS) {
        loop->poll_misses = loop->poll_untried = 0;
        loop->poll_trial = 1;
    }
}

static void grow(struct aio_loop *loop)
{
    int64_t factor = loop->poll_grow ? loop->poll_grow : 2;
    int64_t ns = FIRST_NS;

    if (loop->poll_ns > 0 && __builtin_mul_overflow(loop->poll_ns, factor, &ns)) {
        ns = loop->poll_max_ns;
    }
    loop->poll_ns = MIN(ns, loop->poll_max_ns);
}

static void adapt_to_miss(struct aio_loop *loop)
{
    loop->poll_misses++;
    if (++loop->poll_untried >= loop->poll_trial && loop->poll_ns < loop->poll_max_ns) {
        loop->poll_ns = loop->poll_max_ns;
        loop->poll_untried = 0;
        loop->poll_trial = MIN(2 * loop->poll_trial, TRIAL_MAX);
        loop->poll_misses = MISSES - 1; /* one more ends it */
    } else if (loop->poll_shrink > 0) {
        loop->poll_ns /= loop->poll_shrink;
    } else if (loop->poll_misses >= MISSES) {
        loop->poll_ns = 0;
    }
}

void polling_adapt(struct aio_loop *loop, int64_t idle_ns)
{
    if (idle_ns <= loop->poll_ns) {
        adapt_to_hit(loop, idle_ns);
    } else if (idle_ns <= loop->poll_max_ns) {
        grow(loop);
    } else {
        adapt_to_miss(loop);
    }
}

/* ---- the spin ------------------------------------------------------------------------------- */

bool polling_spin(struct aio_loop *loop, int64_t start, int64_t ns)
{
    loop->engine->submit(loop);
    doorbells_off(loop);
    do {
        if (polling_ask(loop)) {
            return true;
        }
        if (loop->ready_first || loop->engine->is_ready(loop) ||
            atomic_load_explicit(&loop->inbox, memory_order_relaxed)) {
            return false;
        }
        cpu_relax();
    } while (clock_get_ns(AIO_CLOCK_RT) - start < ns);
    return false;
}

bool polling_skips_engine(struct aio_loop *loop)
{
    return ++loop->rounds_skipped < SKIP_ROUNDS;
}
