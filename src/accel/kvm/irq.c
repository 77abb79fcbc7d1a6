/* SPDX-License-Identifier: MIT */
/*
 * Interrupts into KVM: lines, messages, the GSI routing table and irqfds.
 *
 *   irqchip=on      GSI 0..23: pins of the kernel's PIC and IOAPIC (GSI 0 is IOAPIC pin 2)
 *   irqchip=split   GSI 0..23: what the pins of ferry's IOAPIC send, so that EOIs come back
 *   both            GSI 24..: MSI routes of devices, for irqfds
 *   irqchip=off     none of this: messages go to ferry's LAPICs
 *
 * KVM_SET_GSI_ROUTING replaces the whole table, and makes every vCPU look again. So the table as
 * the kernel has it is remembered per entry, and set only when a used entry differs. A route that
 * is removed stays in the kernel until then: nothing refers to it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/kvm/kvm.h"
#include "aio/notifier.h"
#include "base/alloc.h"
#include "base/range.h"

#define PIC_PINS    8
#define CASCADE_GSI 2

/* ---- chips ---------------------------------------------------------------------------------- */

static bool init_on(struct kvm_accel *kvm, struct error **errp)
{
    int ret;

    if (!kvm_check(kvm->vm_fd, KVM_CAP_IRQCHIP) || !kvm_check(kvm->vm_fd, KVM_CAP_PIT2)) {
        error_set(errp, "-accel kvm: the host's KVM has no interrupt chips; use "
                        "-accel kvm,kernel-irqchip=off");
        return false;
    }
    ret = kvm_ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0ul);
    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: KVM_CREATE_IRQCHIP");
    }
    return ret >= 0;
}

static bool init_split(struct kvm_accel *kvm, struct error **errp)
{
    int ret;

    if (!kvm_check(kvm->vm_fd, KVM_CAP_SPLIT_IRQCHIP)) {
        error_set(errp, "-accel kvm,kernel-irqchip=split: the host's KVM cannot; use on or off");
        return false;
    }
    ret = kvm_enable_cap(kvm->vm_fd, KVM_CAP_SPLIT_IRQCHIP, ACCEL_GSI_PINS);
    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: KVM_CAP_SPLIT_IRQCHIP");
    }
    return ret >= 0;
}

static int set_routing(struct kvm_accel *kvm);

bool kvm_init_irqchip(struct kvm_accel *kvm, struct error **errp)
{
    enum irqchip_mode mode = kvm->accel.irqchip;
    int ret;

    if (mode == IRQCHIP_OFF) {
        return true;
    }
    if (mode == IRQCHIP_ON ? !init_on(kvm, errp) : !init_split(kvm, errp)) {
        return false;
    }
    kvm->accel.has_irqfd = kvm->max_routes && kvm_check(kvm->vm_fd, KVM_CAP_IRQFD);
    if (!kvm->max_routes) {
        return true;
    }
    ret = set_routing(kvm);
    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: KVM_SET_GSI_ROUTING");
    }
    return ret >= 0;
}

/* ---- the routing table ----------------------------------------------------------------------- */

static void add_pin(struct kvm_irq_routing *table, uint32_t gsi, uint32_t chip, uint32_t pin)
{
    table->entries[table->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = {.irqchip = chip, .pin = pin},
    };
}

static void add_chip_pins(struct kvm_irq_routing *table)
{
    for (uint32_t gsi = 0; gsi < 2 * PIC_PINS; gsi++) {
        if (gsi != CASCADE_GSI) {
            add_pin(table, gsi, gsi < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
                    gsi % PIC_PINS);
        }
    }
    for (uint32_t gsi = 0; gsi < ACCEL_GSI_PINS; gsi++) {
        if (gsi == 0) {
            add_pin(table, gsi, KVM_IRQCHIP_IOAPIC, 2);
        } else if (gsi != CASCADE_GSI) {
            add_pin(table, gsi, KVM_IRQCHIP_IOAPIC, gsi);
        }
    }
}

static void add_route(struct kvm_irq_routing *table, uint32_t gsi, struct kvm_route *route)
{
    if (route->used) {
        table->entries[table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)route->msg.address,
                      .address_hi = route->msg.address >> 32,
                      .data = route->msg.data},
        };
    }
    route->in_kernel = route->used;
    route->kernel_msg = route->msg;
}

static int set_routing(struct kvm_accel *kvm)
{
    unsigned most = 2 * PIC_PINS + ACCEL_GSI_PINS + kvm->route_count;
    autofree struct kvm_irq_routing *table =
        xcalloc(1, sizeof(*table) + most * sizeof(table->entries[0]));

    if (kvm->accel.irqchip == IRQCHIP_ON) {
        add_chip_pins(table);
    } else {
        for (unsigned i = 0; i < ACCEL_GSI_PINS; i++) {
            add_route(table, i, &kvm->pins[i]);
        }
    }
    for (unsigned i = 0; i < kvm->route_count; i++) {
        add_route(table, ACCEL_GSI_PINS + i, &kvm->routes[i]);
    }
    KVM_COUNT(set_gsi_routing);
    return kvm_ioctl(kvm->vm_fd, KVM_SET_GSI_ROUTING, table);
}

static bool same_message(const struct msi_message *a, const struct msi_message *b)
{
    return a->address == b->address && a->data == b->data;
}

static bool differs(const struct kvm_route *route)
{
    return route->used && (!route->in_kernel || !same_message(&route->msg, &route->kernel_msg));
}

void kvm_routes_commit(struct accel *accel)
{
    struct kvm_accel *kvm = kvm_of(accel);
    bool changed = false;

    for (unsigned i = 0; i < kvm->route_count && !changed; i++) {
        changed = differs(&kvm->routes[i]);
    }
    for (unsigned i = 0; i < ACCEL_GSI_PINS && !changed; i++) {
        /* After a reset, a pin's EOIs are not wanted any more. */
        changed = differs(&kvm->pins[i]) || (kvm->pins[i].in_kernel && !kvm->pins[i].used);
    }
    if (changed) {
        set_routing(kvm);
    }
}

/* ---- routes --------------------------------------------------------------------------------- */

int kvm_route_add(struct accel *accel, const struct msi_message *msg)
{
    struct kvm_accel *kvm = kvm_of(accel);
    unsigned i = 0, best = UINT32_MAX;

    if (!accel->has_irqfd) {
        return -ENOTSUP;
    }
    /* The one that the kernel still has with this message needs no commit. */
    for (i = 0; i < kvm->route_count; i++) {
        const struct kvm_route *route = &kvm->routes[i];
        if (!route->used && route->in_kernel && same_message(&route->kernel_msg, msg)) {
            best = i;
            break;
        }
        if (!route->used && best == UINT32_MAX) {
            best = i;
        }
    }
    if (best == UINT32_MAX) {
        unsigned count = MIN(kvm->route_count ? 2 * kvm->route_count : 16, kvm->max_routes);
        if (count == kvm->route_count) {
            return -ENOSPC;
        }
        kvm->routes = xreallocarray(kvm->routes, count, sizeof(*kvm->routes));
        memset(kvm->routes + kvm->route_count, 0,
               (count - kvm->route_count) * sizeof(*kvm->routes));
        best = kvm->route_count;
        kvm->route_count = count;
    }
    kvm->routes[best].used = true;
    kvm->routes[best].msg = *msg;
    return ACCEL_GSI_PINS + best;
}

static struct kvm_route *route_of(struct kvm_accel *kvm, int gsi)
{
    unsigned i = gsi - ACCEL_GSI_PINS;

    return gsi >= ACCEL_GSI_PINS && i < kvm->route_count ? &kvm->routes[i] : NULL;
}

void kvm_route_update(struct accel *accel, int gsi, const struct msi_message *msg)
{
    struct kvm_route *route = route_of(kvm_of(accel), gsi);

    if (route) {
        route->msg = *msg;
    }
}

void kvm_route_remove(struct accel *accel, int gsi)
{
    struct kvm_route *route = route_of(kvm_of(accel), gsi);

    if (route) {
        route->used = false;
    }
}

void kvm_route_ioapic_pin(struct accel *accel, unsigned pin, const struct msi_message *msg)
{
    struct kvm_accel *kvm = kvm_of(accel);

    if (accel->irqchip != IRQCHIP_SPLIT || pin >= ACCEL_GSI_PINS || !kvm->max_routes) {
        return;
    }
    kvm->pins[pin].used = msg != NULL;
    if (msg) {
        kvm->pins[pin].msg = *msg;
    }
    kvm_routes_commit(accel);
}

/* ---- delivery ------------------------------------------------------------------------------- */

void kvm_irq_set(struct accel *accel, unsigned gsi, int level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level != 0};

    KVM_COUNT(irq_line);
    kvm_ioctl(kvm_of(accel)->vm_fd, KVM_IRQ_LINE, &line);
}

void kvm_msi_send(struct accel *accel, const struct msi_message *msg)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)msg->address,
        .address_hi = msg->address >> 32,
        .data = msg->data,
    };

    KVM_COUNT(signal_msi);
    kvm_ioctl(kvm_of(accel)->vm_fd, KVM_SIGNAL_MSI, &msi);
}

static int irqfd(struct accel *accel, int gsi, struct event_notifier *trigger,
                 struct event_notifier *resample, uint32_t flags)
{
    struct kvm_irqfd fd = {
        .fd = trigger->fd,
        .gsi = gsi,
        .flags = flags | (resample ? KVM_IRQFD_FLAG_RESAMPLE : 0),
        .resamplefd = resample ? resample->fd : 0,
    };

    KVM_COUNT(irqfd);
    return kvm_ioctl(kvm_of(accel)->vm_fd, KVM_IRQFD, &fd);
}

int kvm_irqfd_add(struct accel *accel, int gsi, struct event_notifier *trigger,
                  struct event_notifier *resample)
{
    if (!accel->has_irqfd) {
        return -ENOTSUP;
    }
    return irqfd(accel, gsi, trigger, resample, 0);
}

void kvm_irqfd_remove(struct accel *accel, int gsi, struct event_notifier *trigger)
{
    irqfd(accel, gsi, trigger, NULL, KVM_IRQFD_FLAG_DEASSIGN);
}
