/* SPDX-License-Identifier: MIT */
/*
 * Clocks. HOST and RT are the host's; VIRTUAL is host monotonic time plus an offset while it runs
 * and a fixed value while it does not.
 *
 * The state of VIRTUAL is behind a sequence count: odd while the main thread changes it. A reader
 * that saw an odd or a changed count tries again, so that a value read never lies beyond the one
 * at which the clock was just stopped.
 */
#include "aio/clock.h"

#include <assert.h>
#include <stdatomic.h>
#include <time.h>

#include "aio/internal.h"

static struct {
    /* any thread reads, the main thread writes */
    atomic_uint sequence;
    _Atomic int mode;       /* enum clock_mode */
    _Atomic int64_t offset; /* running: to be added to CLOCK_MONOTONIC; else the value */
} virtual_clock = {.mode = CLOCK_STOPPED};

static int64_t host_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int64_t virtual_ns(void)
{
    for (;;) {
        unsigned before = atomic_load_explicit(&virtual_clock.sequence, memory_order_acquire);
        /* Acquire, so that the second look at the count comes after them; pairs with the release
         * stores in virtual_change(). */
        int mode = atomic_load_explicit(&virtual_clock.mode, memory_order_acquire);
        int64_t ns = atomic_load_explicit(&virtual_clock.offset, memory_order_acquire);
        if (mode == CLOCK_RUNNING) {
            ns += host_ns(CLOCK_MONOTONIC);
        }
        unsigned after = atomic_load_explicit(&virtual_clock.sequence, memory_order_acquire);
        if (before == after && !(before & 1)) {
            return ns;
        }
    }
}

/* Stops the clock at what it shows, or at value if that is not negative; then sets it going in
 * another mode. */
static void virtual_change(enum clock_mode mode, int64_t value)
{
    unsigned sequence = atomic_load_explicit(&virtual_clock.sequence, memory_order_relaxed);
    int old_mode = atomic_load_explicit(&virtual_clock.mode, memory_order_relaxed);
    int64_t ns = atomic_load_explicit(&virtual_clock.offset, memory_order_relaxed);

    /* An exchange, so that the host's time below is read after it. */
    atomic_exchange(&virtual_clock.sequence, sequence + 1);
    int64_t now = host_ns(CLOCK_MONOTONIC);
    if (old_mode == CLOCK_RUNNING) {
        ns += now;
    }
    if (value >= 0) {
        ns = value;
    }
    atomic_store_explicit(&virtual_clock.mode, mode, memory_order_release);
    atomic_store_explicit(&virtual_clock.offset, mode == CLOCK_RUNNING ? ns - now : ns,
                          memory_order_release);
    atomic_store_explicit(&virtual_clock.sequence, sequence + 2, memory_order_release);
    timers_clock_changed(AIO_CLOCK_VIRTUAL);
}

int64_t clock_get_ns(enum aio_clock clock)
{
    switch (clock) {
    case AIO_CLOCK_VIRTUAL:
        return virtual_ns();
    case AIO_CLOCK_HOST:
        return host_ns(CLOCK_REALTIME);
    default:
        return host_ns(CLOCK_MONOTONIC);
    }
}

enum clock_mode clock_get_mode(enum aio_clock clock)
{
    if (clock != AIO_CLOCK_VIRTUAL) {
        return CLOCK_RUNNING;
    }
    return (enum clock_mode)atomic_load_explicit(&virtual_clock.mode, memory_order_acquire);
}

void clock_virtual_resume(void)
{
    if (clock_get_mode(AIO_CLOCK_VIRTUAL) == CLOCK_STOPPED) {
        virtual_change(CLOCK_RUNNING, -1);
    }
}

void clock_virtual_pause(void)
{
    if (clock_get_mode(AIO_CLOCK_VIRTUAL) == CLOCK_RUNNING) {
        virtual_change(CLOCK_STOPPED, -1);
    }
}

void clock_virtual_set_manual(void)
{
    if (clock_get_mode(AIO_CLOCK_VIRTUAL) != CLOCK_STEPPED) {
        virtual_change(CLOCK_STEPPED, -1);
    }
}

void clock_virtual_set(int64_t ns)
{
    assert(clock_get_mode(AIO_CLOCK_VIRTUAL) == CLOCK_STEPPED);
    if (ns > virtual_ns()) {
        virtual_change(CLOCK_STEPPED, ns);
    }
}

void clock_virtual_restore(int64_t ns)
{
    assert(clock_get_mode(AIO_CLOCK_VIRTUAL) != CLOCK_RUNNING && ns >= 0);
    virtual_change(clock_get_mode(AIO_CLOCK_VIRTUAL), ns);
}
