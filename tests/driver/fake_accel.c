/* SPDX-License-Identifier: MIT */
#include "fake_accel.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aio/notifier.h"
#include "mem/machine_lock.h"

#define ROUTES    64
#define FIRST_GSI ACCEL_GSI_PINS

struct fake_accel fake_accel;

static struct {
    bool used;
    struct msi_message msg, committed;
    bool is_committed;
} routes[ROUTES];

static struct {
    struct event_notifier *trigger;
    int gsi;
} irqfds[ROUTES];

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "fake engine: misused: %s\n", #condition);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void count(_Atomic(unsigned) *counters, const struct msi_message *msg)
{
    if (msg->address >> 20 == 0xfee && msg->data < FAKE_DATA_MAX) {
        atomic_fetch_add(&counters[msg->data], 1);
    } else {
        atomic_fetch_add(&fake_accel.other, 1);
    }
}

static int route_add(struct accel *accel, const struct msi_message *msg)
{
    CHECK(machine_lock_held());
    for (int i = 0; i < ROUTES; i++) {
        if (!routes[i].used) {
            routes[i].used = true;
            routes[i].msg = *msg;
            return FIRST_GSI + i;
        }
    }
    return -ENOSPC;
}

static int index_of(int gsi)
{
    CHECK(gsi >= FIRST_GSI && gsi < FIRST_GSI + ROUTES && routes[gsi - FIRST_GSI].used);
    return gsi - FIRST_GSI;
}

static void route_update(struct accel *accel, int gsi, const struct msi_message *msg)
{
    CHECK(machine_lock_held());
    routes[index_of(gsi)].msg = *msg;
    fake_accel.route_updates++;
}

static void route_remove(struct accel *accel, int gsi)
{
    CHECK(machine_lock_held());
    for (int i = 0; i < ROUTES; i++) {
        CHECK(!irqfds[i].trigger || irqfds[i].gsi != gsi);
    }
    routes[index_of(gsi)].used = false;
}

static void routes_commit(struct accel *accel)
{
    bool changed = false;

    CHECK(machine_lock_held());
    for (int i = 0; i < ROUTES; i++) {
        if (routes[i].used &&
            (!routes[i].is_committed ||
             memcmp(&routes[i].msg, &routes[i].committed, sizeof(routes[i].msg)))) {
            routes[i].committed = routes[i].msg;
            routes[i].is_committed = true;
            changed = true;
        }
    }
    fake_accel.commits += changed;
}

static int irqfd_add(struct accel *accel, int gsi, struct event_notifier *trigger,
                     struct event_notifier *resample)
{
    CHECK(machine_lock_held());
    if (fake_accel.refuse_irqfd) {
        return -EMFILE;
    }
    CHECK(routes[index_of(gsi)].is_committed);
    for (int i = 0; i < ROUTES; i++) {
        CHECK(irqfds[i].trigger != trigger);
    }
    for (int i = 0; i < ROUTES; i++) {
        if (!irqfds[i].trigger) {
            irqfds[i].trigger = trigger;
            irqfds[i].gsi = gsi;
            fake_accel.attached++;
            return 0;
        }
    }
    return -ENOSPC;
}

static void poll_irqfd(int i)
{
    if (irqfds[i].trigger && event_notifier_test_and_clear(irqfds[i].trigger)) {
        count(fake_accel.injected, &routes[irqfds[i].gsi - FIRST_GSI].committed);
    }
}

static void irqfd_remove(struct accel *accel, int gsi, struct event_notifier *trigger)
{
    CHECK(machine_lock_held());
    for (int i = 0; i < ROUTES; i++) {
        if (irqfds[i].trigger == trigger) {
            CHECK(irqfds[i].gsi == gsi);
            poll_irqfd(i); /* KVM would have injected it at the write */
            irqfds[i].trigger = NULL;
            fake_accel.attached--;
            if (fake_accel.on_removed) {
                fake_accel.on_removed(trigger);
            }
            return;
        }
    }
    CHECK(!"irqfd that is there");
}

static void msi_send(struct accel *accel, const struct msi_message *msg)
{
    count(fake_accel.sent, msg);
}

static const struct accel_ops fake_ops = {
    .name = "fake",
    .msi_send = msi_send,
    .route_add = route_add,
    .route_update = route_update,
    .route_remove = route_remove,
    .routes_commit = routes_commit,
    .irqfd_add = irqfd_add,
    .irqfd_remove = irqfd_remove,
};

void fake_accel_reset(bool has_irqfd)
{
    memset(&fake_accel, 0, sizeof(fake_accel));
    memset(routes, 0, sizeof(routes));
    memset(irqfds, 0, sizeof(irqfds));
    fake_accel.accel.ops = &fake_ops;
    fake_accel.accel.has_irqfd = has_irqfd;
}

void fake_accel_poll(void)
{
    machine_lock();
    for (int i = 0; i < ROUTES; i++) {
        poll_irqfd(i);
    }
    machine_unlock();
}

unsigned fake_interrupts(unsigned data)
{
    return atomic_load(&fake_accel.sent[data]) + atomic_load(&fake_accel.injected[data]);
}

/* ---- in place of accel.c -------------------------------------------------------------------- */

struct accel *accel_current(void)
{
    return &fake_accel.accel;
}

bool accel_has_irqfd(void)
{
    return fake_accel.accel.has_irqfd;
}

void accel_msi_send(const struct msi_message *msg)
{
    msi_send(&fake_accel.accel, msg);
}
