/* SPDX-License-Identifier: MIT */
/*
 * Timers: a binary heap per loop and clock, under the loop's timer lock, with the first expiry
 * published in an atomic so that a loop without due timers takes no lock. Also the list of all
 * loops, for questions that go to each of them.
 *
 * Lock order: loops_lock, then a loop's timer_lock. No function of a timer runs under either.
 */
#include <assert.h>

#include "aio/internal.h"
#include "base/alloc.h"

/* The host's wall clock may be set while a loop waits for a timer on it: look again that often. */
#define HOST_CLOCK_RECHECK_NS NS_PER_SEC

static pthread_mutex_t loops_lock = PTHREAD_MUTEX_INITIALIZER;
static struct aio_loop *loops; /* under loops_lock */

/* ---- heap: the parent of i is (i - 1) / 2; a parent expires no later than its children -------- */

static void heap_put(struct timer_heap *heap, unsigned index, struct aio_timer *timer)
{
    heap->timers[index] = timer;
    timer->heap_index = index;
}

static void heap_sift_up(struct timer_heap *heap, unsigned index, struct aio_timer *timer)
{
    while (index > 0) {
        unsigned parent = (index - 1) / 2;
        if (heap->timers[parent]->expires_ns <= timer->expires_ns) {
            break;
        }
        heap_put(heap, index, heap->timers[parent]);
        index = parent;
    }
    heap_put(heap, index, timer);
}

static void heap_sift_down(struct timer_heap *heap, unsigned index, struct aio_timer *timer)
{
    for (;;) {
        unsigned child = 2 * index + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count &&
            heap->timers[child + 1]->expires_ns < heap->timers[child]->expires_ns) {
            child++;
        }
        if (timer->expires_ns <= heap->timers[child]->expires_ns) {
            break;
        }
        heap_put(heap, index, heap->timers[child]);
        index = child;
    }
    heap_put(heap, index, timer);
}

static void heap_insert(struct timer_heap *heap, struct aio_timer *timer)
{
    if (heap->count == heap->size) {
        heap->size = heap->size ? 2 * heap->size : 16;
        heap->timers = xreallocarray(heap->timers, heap->size, sizeof(heap->timers[0]));
    }
    heap->count++;
    heap_sift_up(heap, heap->count - 1, timer);
}

static void heap_remove(struct timer_heap *heap, struct aio_timer *timer)
{
    unsigned index = timer->heap_index;
    assert(index < heap->count && heap->timers[index] == timer);
    struct aio_timer *last = heap->timers[--heap->count];
    if (last == timer) {
        return;
    }
    if (index > 0 && last->expires_ns < heap->timers[(index - 1) / 2]->expires_ns) {
        heap_sift_up(heap, index, last);
    } else {
        heap_sift_down(heap, index, last);
    }
}

/* ---- one timer ------------------------------------------------------------------------------ */

static void publish_next_locked(struct aio_loop *loop, enum aio_clock clock)
{
    struct timer_heap *heap = &loop->heaps[clock];
    atomic_store_explicit(&loop->next_expiry[clock],
                          heap->count ? heap->timers[0]->expires_ns : NEVER, memory_order_release);
}

static void cancel_locked(struct aio_timer *timer)
{
    if (timer->expires_ns >= 0) {
        heap_remove(&timer->loop->heaps[timer->clock], timer);
        timer->expires_ns = -1;
    }
}

void timer_init(struct aio_timer *timer, struct aio_loop *loop, enum aio_clock clock, aio_fn *fn,
                void *opaque)
{
    *timer = (struct aio_timer){
        .loop = loop,
        .clock = clock,
        .fn = fn,
        .opaque = opaque,
        .expires_ns = -1,
    };
}

void timer_set(struct aio_timer *timer, int64_t expires_ns)
{
    struct aio_loop *loop = timer->loop;
    struct timer_heap *heap = &loop->heaps[timer->clock];

    pthread_mutex_lock(&loop->timer_lock);
    cancel_locked(timer);
    timer->expires_ns = MAX(expires_ns, 0);
    heap_insert(heap, timer);
    bool is_first = heap->timers[0] == timer;
    publish_next_locked(loop, timer->clock);
    pthread_mutex_unlock(&loop->timer_lock);

    /* timer may be gone now: it has perhaps run already, in the loop's thread. */
    if (is_first && loop != loop_of_thread) {
        loop_kick(loop);
    }
}

void timer_cancel(struct aio_timer *timer)
{
    struct aio_loop *loop = timer->loop;
    pthread_mutex_lock(&loop->timer_lock);
    cancel_locked(timer);
    publish_next_locked(loop, timer->clock);
    pthread_mutex_unlock(&loop->timer_lock);
}

int64_t timer_expires(const struct aio_timer *timer)
{
    pthread_mutex_lock(&timer->loop->timer_lock);
    int64_t expires_ns = timer->expires_ns;
    pthread_mutex_unlock(&timer->loop->timer_lock);
    return expires_ns;
}

bool timer_is_set(const struct aio_timer *timer)
{
    return timer_expires(timer) >= 0;
}

/* ---- the timers of a loop ------------------------------------------------------------------- */

static int64_t next_expiry(const struct aio_loop *loop, enum aio_clock clock)
{
    return atomic_load_explicit(&loop->next_expiry[clock], memory_order_acquire);
}

bool timers_run(struct aio_loop *loop, enum aio_clock clock)
{
    if (next_expiry(loop, clock) == NEVER || clock_get_mode(clock) == CLOCK_STOPPED) {
        return false;
    }
    int64_t now = clock_get_ns(clock);
    if (next_expiry(loop, clock) > now) {
        return false;
    }

    struct timer_heap *heap = &loop->heaps[clock];
    bool ran = false;
    pthread_mutex_lock(&loop->timer_lock);
    /* At most as many as there are now: a timer that sets itself again in the past must not keep
     * the loop from its other work. */
    for (unsigned left = heap->count; left > 0 && heap->count > 0; left--) {
        struct aio_timer *timer = heap->timers[0];
        if (timer->expires_ns > now) {
            break;
        }
        aio_fn *fn = timer->fn;
        void *opaque = timer->opaque;
        cancel_locked(timer);
        publish_next_locked(loop, clock);
        pthread_mutex_unlock(&loop->timer_lock);
        fn(opaque); /* timer may be freed by it */
        ran = true;
        pthread_mutex_lock(&loop->timer_lock);
    }
    pthread_mutex_unlock(&loop->timer_lock);
    return ran;
}

bool loop_timers_run(struct aio_loop *loop)
{
    bool ran = false;
    for (unsigned clock = 0; clock < AIO_CLOCK_COUNT; clock++) {
        ran |= timers_run(loop, (enum aio_clock)clock);
    }
    return ran;
}

int64_t loop_timers_timeout(const struct aio_loop *loop)
{
    int64_t timeout = NEVER;
    for (unsigned i = 0; i < AIO_CLOCK_COUNT; i++) {
        enum aio_clock clock = (enum aio_clock)i;
        int64_t next = next_expiry(loop, clock);
        enum clock_mode mode = next == NEVER ? CLOCK_STOPPED : clock_get_mode(clock);
        if (mode == CLOCK_STOPPED) {
            continue;
        }
        int64_t left = MAX(next - clock_get_ns(clock), 0);
        if (left > 0 && mode == CLOCK_STEPPED) {
            continue;
        }
        if (clock == AIO_CLOCK_HOST) {
            left = MIN(left, HOST_CLOCK_RECHECK_NS);
        }
        timeout = MIN(timeout, left);
    }
    return timeout;
}

void loop_timers_init(struct aio_loop *loop)
{
    pthread_mutex_init(&loop->timer_lock, NULL);
    for (unsigned clock = 0; clock < AIO_CLOCK_COUNT; clock++) {
        atomic_init(&loop->next_expiry[clock], NEVER);
    }
    pthread_mutex_lock(&loops_lock);
    loop->next_loop = loops;
    loop->prev_loop = &loops;
    if (loops) {
        loops->prev_loop = &loop->next_loop;
    }
    loops = loop;
    pthread_mutex_unlock(&loops_lock);
}

void loop_timers_destroy(struct aio_loop *loop)
{
    pthread_mutex_lock(&loops_lock);
    *loop->prev_loop = loop->next_loop;
    if (loop->next_loop) {
        loop->next_loop->prev_loop = loop->prev_loop;
    }
    pthread_mutex_unlock(&loops_lock);

    for (unsigned clock = 0; clock < AIO_CLOCK_COUNT; clock++) {
        assert(loop->heaps[clock].count == 0);
        free(loop->heaps[clock].timers);
    }
    pthread_mutex_destroy(&loop->timer_lock);
}

/* ---- all loops ------------------------------------------------------------------------------ */

int64_t timers_next_expiry(enum aio_clock clock)
{
    int64_t next = NEVER;
    pthread_mutex_lock(&loops_lock);
    for (struct aio_loop *loop = loops; loop; loop = loop->next_loop) {
        next = MIN(next, next_expiry(loop, clock));
    }
    pthread_mutex_unlock(&loops_lock);
    return next == NEVER ? -1 : next;
}

void timers_clock_changed(enum aio_clock clock)
{
    (void)clock; /* a loop that wakes up looks at all its timers */
    pthread_mutex_lock(&loops_lock);
    for (struct aio_loop *loop = loops; loop; loop = loop->next_loop) {
        if (loop != loop_of_thread) {
            loop_kick(loop);
        }
    }
    pthread_mutex_unlock(&loops_lock);
}
