/* SPDX-License-Identifier: MIT */
/*
 * Guest notifiers: eventfds that become MSI-X interrupts without ferry (irqfd).
 *
 *   loop: event_notifier_set() --> eventfd --irqfd--> GSI --route--> message of the vector
 *
 * The engine listens only while the vector is unmasked. What is set meanwhile stays in the eventfd
 * until a look at the pending bits, or the unmasking, finds it there. An irqfd that is attached
 * first and the eventfd read afterwards miss nothing.
 *
 * Routes: making notifiers adds one route per vector and commits once; taking them away removes
 * the routes and leaves the commit to the next change, since nothing refers to them any more. A
 * vector whose message a guest changes commits at the change if it is unmasked, else at unmask.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "aio/notifier.h"
#include "base/alloc.h"
#include "base/log.h"
#include "pci/msix_internal.h"
#include "trace/trace.h"

static bool same_message(const struct msi_message *a, const struct msi_message *b)
{
    return a->address == b->address && a->data == b->data;
}

static void detach(struct msix *msix, unsigned vector)
{
    struct accel *accel = accel_current();
    struct msix_entry *e = &msix->entry[vector];

    if (!e->attached) {
        return;
    }
    e->attached = false;
    for (unsigned i = 0; i < msix->notifier_count; i++) {
        if (msix->notifier[i].vector == vector) {
            accel->ops->irqfd_remove(accel, e->gsi, msix->notifier[i].notifier);
        }
    }
}

static bool attach(struct msix *msix, unsigned vector)
{
    struct accel *accel = accel_current();
    struct msix_entry *e = &msix->entry[vector];
    unsigned i;
    int ret = 0;

    if (e->attached) {
        return true;
    }
    for (i = 0; i < msix->notifier_count && ret >= 0; i++) {
        if (msix->notifier[i].vector == vector) {
            ret = accel->ops->irqfd_add(accel, e->gsi, msix->notifier[i].notifier, NULL);
        }
    }
    if (ret >= 0) {
        e->attached = true;
        TRACE(msix_irqfd_attach, vector, e->gsi);
        return true;
    }
    for (i--; i-- > 0;) {
        if (msix->notifier[i].vector == vector) {
            accel->ops->irqfd_remove(accel, e->gsi, msix->notifier[i].notifier);
        }
    }
    return false;
}

/* Gives the engine the message as it is now; true if that needs a commit. */
static bool update_route(struct msix_entry *e)
{
    struct accel *accel = accel_current();
    struct msi_message msg = message_cell_read(&e->message);

    if (same_message(&msg, &e->routed)) {
        return false;
    }
    e->routed = msg;
    accel->ops->route_update(accel, e->gsi, &msg);
    return true;
}

void msix_poll_notifiers(struct msix *msix, unsigned vector)
{
    if (msix->entry[vector].gsi < 0 || msix->entry[vector].attached) {
        return;
    }
    for (unsigned i = 0; i < msix->notifier_count; i++) {
        if (msix->notifier[i].vector == vector &&
            event_notifier_test_and_clear(msix->notifier[i].notifier)) {
            msix_set_pending(msix, vector);
        }
    }
}

void msix_renew_routes(struct msix *msix)
{
    struct accel *accel = accel_current();
    bool changed = false;

    for (unsigned i = 0; i < msix->notifier_count; i++) {
        unsigned vector = msix->notifier[i].vector;
        struct msix_entry *e = &msix->entry[vector];
        if (e->gsi >= 0 && !msix_is_masked(msix, vector)) {
            changed |= update_route(e);
        }
    }
    if (changed) {
        accel->ops->routes_commit(accel);
    }
}

void msix_update_notifiers(struct msix *msix, unsigned vector)
{
    struct accel *accel = accel_current();
    struct msix_entry *e = &msix->entry[vector];

    if (e->gsi < 0) {
        return;
    }
    if (msix_is_masked(msix, vector)) {
        detach(msix, vector);
        return;
    }
    if (update_route(e)) {
        accel->ops->routes_commit(accel);
    }
    /* What came before the attachment: pending, for the caller to send. Should the engine refuse
     * the irqfd (out of resources), interrupts wait for the next look at the vector. */
    msix_poll_notifiers(msix, vector);
    if (!attach(msix, vector)) {
        log_guest_error("MSI-X vector %u: the engine refuses an irqfd", vector);
    }
}

/* ---- a batch -------------------------------------------------------------------------------- */

static bool add_routes(struct msix *msix, struct accel *accel, bool *changed)
{
    for (unsigned i = 0; i < msix->notifier_count; i++) {
        struct msix_entry *e = &msix->entry[msix->notifier[i].vector];
        if (e->gsi >= 0) {
            continue;
        }
        e->routed = message_cell_read(&e->message);
        e->gsi = accel->ops->route_add(accel, &e->routed);
        if (e->gsi < 0) {
            e->gsi = -1;
            return false;
        }
        *changed = true;
    }
    return true;
}

bool msix_set_notifiers(struct pci_device *pci, struct event_notifier *const notifiers[],
                        const uint16_t vector_of[], unsigned count)
{
    struct msix *msix = pci->msix;
    struct accel *accel = accel_current();
    bool changed = false;

    if (!msix || !accel_has_irqfd() || !accel->ops->irqfd_add || !accel->ops->route_add) {
        return false;
    }
    assert(!msix->notifier_count);
    msix->notifier = xcalloc(count, sizeof(msix->notifier[0]));
    for (unsigned i = 0; i < count; i++) {
        if (vector_of[i] < msix->vectors) {
            msix->notifier[msix->notifier_count++] =
                (struct msix_notifier){notifiers[i], vector_of[i]};
        }
    }
    if (!add_routes(msix, accel, &changed)) {
        msix_clear_notifiers(pci);
        return false;
    }
    if (changed) {
        accel->ops->routes_commit(accel);
    }
    for (unsigned i = 0; i < msix->notifier_count; i++) {
        unsigned vector = msix->notifier[i].vector;
        if (!msix_is_masked(msix, vector) && !attach(msix, vector)) {
            msix_clear_notifiers(pci);
            return false;
        }
    }
    return true;
}

void msix_clear_notifiers(struct pci_device *pci)
{
    struct msix *msix = pci->msix;
    struct accel *accel = accel_current();

    if (!msix || !msix->notifier) {
        return;
    }
    for (unsigned i = 0; i < msix->notifier_count; i++) {
        struct msix_entry *e = &msix->entry[msix->notifier[i].vector];
        if (e->gsi >= 0) {
            /* Set but not seen by the engine: pending, so that no interrupt is lost. */
            detach(msix, msix->notifier[i].vector);
            if (msix_enabled(pci)) {
                msix_poll_notifiers(msix, msix->notifier[i].vector);
                msix_send_pending(msix, msix->notifier[i].vector);
            }
            accel->ops->route_remove(accel, e->gsi);
            e->gsi = -1;
        }
    }
    free(msix->notifier);
    msix->notifier = NULL;
    msix->notifier_count = 0;
}
