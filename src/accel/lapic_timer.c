/* SPDX-License-Identifier: MIT */
/*
 * The LAPIC's timer (SDM 10.5.4), with a bus clock of 1 GHz: a count is nanoseconds divided by the
 * divide configuration.
 *
 *   vCPU thread: sets or cancels the aio timer --> main loop: posts POSTED_TIMER and kicks
 *   vCPU thread: lapic_timer_sync() looks whether it is really due, interrupts, and sets the next
 *
 * An expiry that was posted before the guest reprogrammed the timer is not due then, and dropped.
 */
#include "accel/lapic_internal.h"

#include "base/range.h"
#include "device/iothread.h"

enum { MODE_ONE_SHOT, MODE_PERIODIC, MODE_TSC_DEADLINE };

/* A guest does not make the host work more often than this. */
#define PERIOD_MIN_NS (100 * NS_PER_US)

static unsigned mode_of(const struct lapic *lapic)
{
    return (lapic_get(lapic, LAPIC_LVT_TIMER) & LVT_TIMER_MODE) >> LVT_TIMER_SHIFT;
}

/* Bits 3, 1 and 0 of DCR: 000 is by 2, …, 110 by 128, 111 by 1. */
static unsigned divide_shift(const struct lapic *lapic)
{
    uint32_t dcr = lapic_get(lapic, LAPIC_TIMER_DIVIDE);

    return (((dcr & 3) | (dcr >> 1 & 4)) + 1) & 7;
}

static int64_t count_ns(const struct lapic *lapic, uint32_t count)
{
    return (int64_t)count << divide_shift(lapic);
}

static int64_t now_ns(void)
{
    return clock_get_ns(AIO_CLOCK_VIRTUAL);
}

/* Main loop. */
static void timer_fired(void *opaque)
{
    struct lapic *lapic = opaque;

    atomic_fetch_or_explicit(&lapic->posted, POSTED_TIMER, memory_order_release);
    vcpu_request(lapic->vcpu, VCPU_REQUEST_APIC);
}

static void start(struct lapic *lapic, int64_t expires_ns)
{
    lapic->timer_expires_ns = expires_ns;
    timer_set(&lapic->timer, expires_ns);
}

void lapic_timer_init(struct lapic *lapic)
{
    timer_init(&lapic->timer, main_loop(), AIO_CLOCK_VIRTUAL, timer_fired, lapic);
    lapic->timer_expires_ns = -1;
}

void lapic_timer_stop(struct lapic *lapic)
{
    if (lapic->timer_expires_ns >= 0) {
        timer_cancel(&lapic->timer);
    }
    lapic->timer_expires_ns = -1;
    lapic->tsc_deadline = 0;
}

/* ---- one-shot and periodic ------------------------------------------------------------------- */

uint32_t lapic_timer_count(const struct lapic *lapic)
{
    int64_t left = lapic->timer_expires_ns - now_ns();

    if (lapic->timer_expires_ns < 0 || mode_of(lapic) == MODE_TSC_DEADLINE) {
        return 0;
    }
    if (left <= 0) {
        int64_t period = count_ns(lapic, lapic_get(lapic, LAPIC_TIMER_INITIAL));
        if (mode_of(lapic) != MODE_PERIODIC || period == 0) {
            return 0;
        }
        left = period - -left % period;
    }
    return (uint32_t)MIN(left >> divide_shift(lapic), (int64_t)UINT32_MAX);
}

void lapic_timer_set_count(struct lapic *lapic, uint32_t count)
{
    if (mode_of(lapic) == MODE_TSC_DEADLINE) {
        return;
    }
    *lapic_reg(lapic, LAPIC_TIMER_INITIAL) = count;
    lapic_timer_stop(lapic);
    if (count) {
        start(lapic, now_ns() + count_ns(lapic, count));
    }
}

/* The count goes on from where it is, at the new rate. */
void lapic_timer_set_divide(struct lapic *lapic, uint32_t divide)
{
    uint32_t count = lapic_timer_count(lapic);
    bool runs = lapic->timer_expires_ns >= 0 && mode_of(lapic) != MODE_TSC_DEADLINE;

    *lapic_reg(lapic, LAPIC_TIMER_DIVIDE) = divide & 0xb;
    if (runs) {
        start(lapic, now_ns() + count_ns(lapic, count));
    }
}

/* 10.5.4.1: entering or leaving TSC-deadline mode stops the timer. */
void lapic_timer_set_lvt(struct lapic *lapic, uint32_t lvt)
{
    unsigned old = mode_of(lapic);

    if (!lapic->tsc_ns_at) {
        lvt &= ~((uint32_t)MODE_TSC_DEADLINE << LVT_TIMER_SHIFT);
    }
    *lapic_reg(lapic, LAPIC_LVT_TIMER) = lvt;
    if ((old == MODE_TSC_DEADLINE) != (mode_of(lapic) == MODE_TSC_DEADLINE)) {
        lapic_timer_stop(lapic);
        *lapic_reg(lapic, LAPIC_TIMER_INITIAL) = 0;
    }
}

/* ---- TSC deadline --------------------------------------------------------------------------- */

void lapic_timer_set_deadline(struct lapic *lapic, uint64_t tsc)
{
    if (mode_of(lapic) != MODE_TSC_DEADLINE) {
        return;
    }
    lapic_timer_stop(lapic);
    if (tsc) {
        int64_t ns = lapic->tsc_ns_at(lapic->vcpu, tsc);
        lapic->tsc_deadline = tsc;
        start(lapic, MAX(ns, 0));
    }
}

/* ---- expiry --------------------------------------------------------------------------------- */

/* The next end of a period, those that are past left out. */
static int64_t next_period(const struct lapic *lapic, int64_t now)
{
    int64_t period = count_ns(lapic, lapic_get(lapic, LAPIC_TIMER_INITIAL));
    int64_t earliest = MAX(now + 1, lapic->timer_expires_ns + PERIOD_MIN_NS);
    int64_t next = lapic->timer_expires_ns + period;

    if (next < earliest) {
        next += (earliest - next + period - 1) / period * period;
    }
    return next;
}

void lapic_timer_sync(struct lapic *lapic)
{
    int64_t now = now_ns();

    if (lapic->timer_expires_ns < 0 || now < lapic->timer_expires_ns) {
        return;
    }
    if (mode_of(lapic) == MODE_PERIODIC && lapic_get(lapic, LAPIC_TIMER_INITIAL)) {
        start(lapic, next_period(lapic, now));
    } else {
        lapic->timer_expires_ns = -1;
        lapic->tsc_deadline = 0;
    }
    lapic_local(lapic, LAPIC_LVT_TIMER);
}

/* A state of an engine that keeps the timer itself has only the count. */
void lapic_timer_load(struct lapic *lapic, int64_t expires_ns, uint32_t current_count)
{
    if (expires_ns >= 0) {
        start(lapic, expires_ns);
    } else if (current_count && mode_of(lapic) != MODE_TSC_DEADLINE) {
        start(lapic, now_ns() + count_ns(lapic, current_count));
    }
}
