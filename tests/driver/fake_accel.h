/* SPDX-License-Identifier: MIT */
/*
 * An engine without CPUs that records interrupts: what accel_current() is in these tests. It takes
 * the place of accel/accel.c at link time.
 *
 * An irqfd "injects" when fake_accel_poll() finds its eventfd set, with the message of its route as
 * it was at the last commit. Any thread may send; routes and irqfds change under the machine lock.
 */
#ifndef FERRY_TESTS_DRIVER_FAKE_ACCEL_H
#define FERRY_TESTS_DRIVER_FAKE_ACCEL_H

#include "accel/accel.h"

#define FAKE_DATA_MAX 256 /* messages are counted by their data below this */

struct fake_accel {
    struct accel accel;
    /* atomic */
    _Atomic(unsigned) sent[FAKE_DATA_MAX];     /* accel_msi_send(), by data */
    _Atomic(unsigned) injected[FAKE_DATA_MAX]; /* through irqfds, by data */
    _Atomic(unsigned) other;                   /* data too large, or address not 0xfeexxxxx */
    /* machine lock */
    unsigned commits, route_updates, attached;
    bool refuse_irqfd;                                  /* irqfd_add() fails */
    void (*on_removed)(struct event_notifier *trigger); /* nobody hears this one any more */
};

extern struct fake_accel fake_accel;

void fake_accel_reset(bool has_irqfd);
/* Looks at the irqfds. Any thread, without the machine lock. */
void fake_accel_poll(void);
/* Both ways. */
unsigned fake_interrupts(unsigned data);

#endif
