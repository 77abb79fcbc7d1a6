/* SPDX-License-Identifier: MIT */
/*
 * Writes that need no exit: ioeventfds (the kernel sets an eventfd) and coalesced MMIO (the kernel
 * keeps writes in a ring until the next exit for another reason).
 *
 * Where the kernel cannot take one, nothing is lost but speed: the write exits, and mem/ sets the
 * same eventfd or calls the device at once.
 */
#include <errno.h>
#include <string.h>

#include "accel/kvm/kvm.h"
#include "aio/notifier.h"
#include "base/log.h"
#include "base/range.h"
#include "mem/machine_lock.h"

static struct kvm_listener *listener_of(struct mem_listener *listener)
{
    return container_of(listener, struct kvm_listener, listener);
}

/* ---- ioeventfd ------------------------------------------------------------------------------- */

static bool can_assign(const struct kvm_accel *kvm, const struct mem_eventfd *e)
{
    return kvm->accel.has_ioeventfd && (e->size || kvm->has_any_length_ioeventfd);
}

static int assign(struct kvm_listener *l, uint64_t address, const struct mem_eventfd *e,
                  uint32_t flags)
{
    struct kvm_ioeventfd ioeventfd = {
        .datamatch = e->datamatch ? e->data : 0,
        .addr = address,
        .len = e->size,
        .fd = e->notifier->fd,
        .flags = flags | (l->is_pio ? KVM_IOEVENTFD_FLAG_PIO : 0) |
                 (e->datamatch ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0),
    };

    KVM_COUNT(ioeventfd);
    return kvm_ioctl(l->kvm->vm_fd, KVM_IOEVENTFD, &ioeventfd);
}

static void on_eventfd_add(struct mem_listener *listener, uint64_t address,
                           const struct mem_eventfd *e)
{
    struct kvm_listener *l = listener_of(listener);
    int ret;

    if (!can_assign(l->kvm, e)) {
        return;
    }
    ret = assign(l, address, e, 0);
    if (ret < 0 && !l->kvm->doorbell_warned) {
        l->kvm->doorbell_warned = true;
        log_warn("-accel kvm: the host's KVM does not take an ioeventfd (%s); such doorbells work "
                 "by exits",
                 strerror(-ret));
    }
}

static void on_eventfd_del(struct mem_listener *listener, uint64_t address,
                           const struct mem_eventfd *e)
{
    struct kvm_listener *l = listener_of(listener);

    if (can_assign(l->kvm, e)) {
        assign(l, address, e, KVM_IOEVENTFD_FLAG_DEASSIGN);
    }
}

/* ---- coalesced MMIO -------------------------------------------------------------------------- */

static void set_zone(struct kvm_listener *l, unsigned long request, uint64_t address, uint64_t size)
{
    struct kvm_coalesced_mmio_zone zone = {
        .addr = address, .size = (uint32_t)size, .pio = l->is_pio};

    if (l->kvm->coalesced_page && (!l->is_pio || l->kvm->has_coalesced_pio) && size <= UINT32_MAX) {
        kvm_ioctl(l->kvm->vm_fd, request, &zone);
    }
}

static void on_coalesced_add(struct mem_listener *listener, uint64_t address, uint64_t size)
{
    set_zone(listener_of(listener), KVM_REGISTER_COALESCED_MMIO, address, size);
}

static void on_coalesced_del(struct mem_listener *listener, uint64_t address, uint64_t size)
{
    set_zone(listener_of(listener), KVM_UNREGISTER_COALESCED_MMIO, address, size);
}

static unsigned ring_size(void)
{
    return (GUEST_PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) /
           sizeof(struct kvm_coalesced_mmio);
}

void kvm_drain_coalesced(struct kvm_accel *kvm)
{
    struct kvm_coalesced_mmio_ring *ring = atomic_load(&kvm->coalesced_ring);
    unsigned size = ring_size();

    if (!ring || __atomic_load_n(&ring->first, __ATOMIC_RELAXED) ==
                     __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
        return;
    }
    machine_lock();
    /* Bounded: other vCPUs may go on filling the ring; what they add, their own exits drain. */
    for (unsigned n = 0; n < size; n++) {
        unsigned first = ring->first;
        struct kvm_coalesced_mmio entry;

        /* Acquire: the entry was written before last moved on (kernel, coalesced_mmio_write()). */
        if (first == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
            break;
        }
        entry = ring->coalesced_mmio[first];
        KVM_COUNT(coalesced_writes);
        address_space_write(entry.pio ? address_space_io : address_space_memory, entry.phys_addr,
                            entry.data, MIN(entry.len, sizeof(entry.data)));
        /* Release: the kernel may reuse the entry. */
        __atomic_store_n(&ring->first, (first + 1) % size, __ATOMIC_RELEASE);
    }
    machine_unlock();
}

/* ---- listeners ------------------------------------------------------------------------------ */

static void start(struct kvm_listener *l, struct kvm_accel *kvm, struct address_space *as)
{
    *l = (struct kvm_listener){
        .kvm = kvm,
        .is_pio = as == address_space_io,
        .listener =
            {
                .eventfd_add = on_eventfd_add,
                .eventfd_del = on_eventfd_del,
                .coalesced_add = on_coalesced_add,
                .coalesced_del = on_coalesced_del,
                .priority = 10,
            },
    };
    address_space_add_listener(as, &l->listener);
}

void kvm_init_doorbells(struct kvm_accel *kvm)
{
    start(&kvm->mmio_listener, kvm, address_space_memory);
    start(&kvm->pio_listener, kvm, address_space_io);
}

void kvm_cleanup_doorbells(struct kvm_accel *kvm)
{
    address_space_remove_listener(address_space_memory, &kvm->mmio_listener.listener);
    address_space_remove_listener(address_space_io, &kvm->pio_listener.listener);
}
