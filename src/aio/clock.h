/* SPDX-License-Identifier: MIT */
/*
 * Clocks. Devices use these and no other time.
 *
 *   CLOCK_VIRTUAL   guest time: nanoseconds since the machine was made, stopped while the VM is
 *                   stopped; stepped by hand under qtest
 *   CLOCK_HOST      wall time since 1970, may jump (RTC)
 *   CLOCK_RT        monotonic host time, always runs (user interfaces, time-outs)
 *
 * Reading is thread-safe and lock-free. Pausing, resuming and stepping are for the main thread.
 */
#ifndef FERRY_AIO_CLOCK_H
#define FERRY_AIO_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

enum aio_clock { AIO_CLOCK_VIRTUAL, AIO_CLOCK_HOST, AIO_CLOCK_RT, AIO_CLOCK_COUNT };

#define NS_PER_SEC INT64_C(1000000000)
#define NS_PER_MS  INT64_C(1000000)
#define NS_PER_US  INT64_C(1000)

int64_t clock_get_ns(enum aio_clock clock);

/* CLOCK_VIRTUAL starts stopped at 0. While it is stopped its timers do not run, due or not. */
void clock_virtual_resume(void);
void clock_virtual_pause(void);
/* qtest: the clock no longer follows host time (irreversible); clock_virtual_set() moves it
 * forward, never back, and does not run timers. */
void clock_virtual_set_manual(void);
void clock_virtual_set(int64_t ns);
/* Snapshots and tests: the value from which resume goes on. The clock must be stopped. */
void clock_virtual_restore(int64_t ns);

#endif
