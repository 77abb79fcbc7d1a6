/* SPDX-License-Identifier: MIT */
#include "vdriver.h"

#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/range.h"
#include "fake_accel.h"
#include "hw/virtio/virtio.h"
#include "mem/dma.h"

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "vdriver: %s\n", what);
        abort();
    }
}

/* ---- discovery ------------------------------------------------------------------------------ */

void vdriver_probe(struct vdriver *d, uint8_t devfn)
{
    memset(d, 0, sizeof(*d));
    d->devfn = devfn;
    check(guest_config_read(devfn, PCI_VENDOR_ID, 2) == 0x1af4, "no virtio device in this slot");
    for (unsigned at = 0; (at = guest_find_capability(devfn, PCI_CAP_ID_VNDR, at));) {
        uint8_t bar = (uint8_t)guest_config_read(devfn, at + VIRTIO_PCI_CAP_BAR, 1);
        uint64_t address = guest_config_read(devfn, at + VIRTIO_PCI_CAP_OFFSET, 4);
        unsigned type = guest_config_read(devfn, at + VIRTIO_PCI_CAP_CFG_TYPE, 1);
        if (type == VIRTIO_PCI_CAP_PCI_CFG) {
            d->window = at;
            continue;
        }
        address += guest_bar(devfn, bar);
        switch (type) {
        case VIRTIO_PCI_CAP_COMMON_CFG:
            d->common = address;
            break;
        case VIRTIO_PCI_CAP_ISR_CFG:
            d->isr = address;
            break;
        case VIRTIO_PCI_CAP_DEVICE_CFG:
            d->device = address;
            break;
        case VIRTIO_PCI_CAP_NOTIFY_CFG:
            d->notify = address;
            d->notify_multiplier = guest_config_read(devfn, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
            break;
        default:
            check(false, "an unknown virtio capability");
        }
    }
    check(d->common && d->isr && d->device && d->notify && d->window, "a capability is missing");
    d->msix_capability = guest_find_capability(devfn, PCI_CAP_ID_MSIX, 0);
    if (d->msix_capability) {
        unsigned at = d->msix_capability;
        uint32_t table = guest_config_read(devfn, at + PCI_MSIX_TABLE, 4);
        uint32_t pba = guest_config_read(devfn, at + PCI_MSIX_PBA, 4);
        d->msix_table = guest_bar(devfn, table & 7) + (table & ~7u);
        d->msix_pba = guest_bar(devfn, pba & 7) + (pba & ~7u);
        d->msix_vectors =
            (guest_config_read(devfn, at + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
    }
    guest_config_write(devfn, PCI_COMMAND,
                       guest_config_read(devfn, PCI_COMMAND, 2) | PCI_COMMAND_MASTER, 2);
}

/* ---- registers ------------------------------------------------------------------------------ */

uint64_t common_read(struct vdriver *d, unsigned offset, unsigned size)
{
    return guest_read(d->common + offset, size);
}

void common_write(struct vdriver *d, unsigned offset, uint64_t value, unsigned size)
{
    guest_write(d->common + offset, value, size);
}

uint8_t vdriver_status(struct vdriver *d)
{
    return (uint8_t)common_read(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void vdriver_set_status(struct vdriver *d, uint8_t status)
{
    common_write(d, VIRTIO_PCI_COMMON_STATUS, status, 1);
}

static bool is_reset(void *opaque)
{
    return vdriver_status(opaque) == 0;
}

bool vdriver_reset(struct vdriver *d)
{
    vdriver_set_status(d, 0);
    return rig_wait(is_reset, d);
}

uint64_t vdriver_host_features(struct vdriver *d)
{
    common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
    uint64_t features = common_read(d, VIRTIO_PCI_COMMON_DF, 4);
    common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
    return features | common_read(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

void vdriver_set_features(struct vdriver *d, uint64_t features)
{
    common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
    common_write(d, VIRTIO_PCI_COMMON_GF, (uint32_t)features, 4);
    common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
    common_write(d, VIRTIO_PCI_COMMON_GF, features >> 32, 4);
    d->features = features;
}

void vdriver_set_vector(struct vdriver *d, unsigned vector, uint64_t address, uint32_t data,
                        bool masked)
{
    uint64_t entry = d->msix_table + vector * 16;

    guest_write(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 1, 4);
    guest_write(entry + PCI_MSIX_ENTRY_LOWER_ADDR, (uint32_t)address, 4);
    guest_write(entry + PCI_MSIX_ENTRY_UPPER_ADDR, address >> 32, 4);
    guest_write(entry + PCI_MSIX_ENTRY_DATA, data, 4);
    guest_write(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, masked, 4);
}

void vdriver_mask_vector(struct vdriver *d, unsigned vector, bool masked)
{
    guest_write(d->msix_table + vector * 16 + PCI_MSIX_ENTRY_VECTOR_CTRL, masked, 4);
}

void vdriver_enable_msix(struct vdriver *d)
{
    unsigned flags = d->msix_capability + PCI_MSIX_FLAGS;

    guest_config_write(d->devfn, flags, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, 2);
    vdriver_set_vector(d, 0, 0xfee00000, VDRIVER_CONFIG_DATA, false);
    vdriver_set_vector(d, 1, 0xfee01000, VDRIVER_QUEUE_DATA, false);
    guest_config_write(d->devfn, flags, PCI_MSIX_FLAGS_ENABLE, 2);
}

static void write_address(struct vdriver *d, unsigned low, uint64_t address)
{
    common_write(d, low, (uint32_t)address, 4);
    common_write(d, low + 4, address >> 32, 4);
}

void vdriver_setup_queue(struct vdriver *d, unsigned size, bool msix)
{
    common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
    if (!size) {
        size = (unsigned)common_read(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
    }
    vqueue_alloc(&d->queue, size);
    d->queue.event_idx = d->features >> VIRTIO_F_RING_EVENT_IDX & 1;
    common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
    write_address(d, VIRTIO_PCI_COMMON_Q_DESCLO, d->queue.at.desc);
    write_address(d, VIRTIO_PCI_COMMON_Q_AVAILLO, d->queue.at.avail);
    write_address(d, VIRTIO_PCI_COMMON_Q_USEDLO, d->queue.at.used);
    if (msix) {
        common_write(d, VIRTIO_PCI_COMMON_Q_MSIX, 1, 2);
        check(common_read(d, VIRTIO_PCI_COMMON_Q_MSIX, 2) == 1, "the queue takes no vector");
    }
    d->doorbell = d->notify + common_read(d, VIRTIO_PCI_COMMON_Q_NOFF, 2) * d->notify_multiplier;
    common_write(d, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
    check(common_read(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2) == 1, "the queue cannot be enabled");
}

void vdriver_start(struct vdriver *d, uint64_t wanted, unsigned queue_size, bool msix)
{
    uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE;

    check(vdriver_reset(d), "no reset");
    vdriver_set_status(d, status);
    vdriver_set_status(d, status |= VIRTIO_STATUS_DRIVER);
    vdriver_set_features(d, vdriver_host_features(d) & (wanted | BIT64(VIRTIO_F_VERSION_1)));
    vdriver_set_status(d, status |= VIRTIO_STATUS_FEATURES_OK);
    check(vdriver_status(d) & VIRTIO_STATUS_FEATURES_OK, "features are refused");
    if (msix) {
        vdriver_enable_msix(d);
        common_write(d, VIRTIO_PCI_COMMON_MSIX, 0, 2);
        check(common_read(d, VIRTIO_PCI_COMMON_MSIX, 2) == 0, "no vector for the config");
    }
    vdriver_setup_queue(d, queue_size, msix);
    vdriver_set_status(d, status | VIRTIO_STATUS_DRIVER_OK);
}

/* ---- the ring ------------------------------------------------------------------------------- */

void vqueue_alloc(struct vqueue *q, unsigned size)
{
    memset(q, 0, sizeof(*q));
    q->size = size;
    q->at.desc = guest_alloc(16 * size, 4096);
    q->at.avail = guest_alloc(6 + 2 * size, 2);
    q->at.used = guest_alloc(6 + 8 * size, 4);
}

void vqueue_set_desc(struct vqueue *q, unsigned index, uint64_t address, uint32_t length,
                     uint16_t flags, uint16_t next)
{
    uint8_t *desc = guest_ram(q->at.desc + index * 16);

    guest_store64(desc, address);
    guest_store64(desc + 8, length | (uint64_t)flags << 32 | (uint64_t)next << 48);
}

void vqueue_set_chain(struct vqueue *q, unsigned head, const struct buffer *buffers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (buffers[i].is_write ? VRING_DESC_F_WRITE : 0) |
                         (i + 1 < count ? VRING_DESC_F_NEXT : 0);
        vqueue_set_desc(q, head + i, buffers[i].address, buffers[i].length, flags,
                        (uint16_t)(head + i + 1));
    }
}

void vqueue_set_indirect(struct vqueue *q, unsigned head, const struct buffer *buffers,
                         unsigned count)
{
    struct vqueue table = {.size = count, .at.desc = guest_alloc(16 * count, 16)};

    vqueue_set_chain(&table, 0, buffers, count);
    vqueue_set_desc(q, head, table.at.desc, 16 * count, VRING_DESC_F_INDIRECT, 0);
}

/* 2.7.13: the ring entry, a write barrier, the index. */
void vqueue_set_avail_index(struct vqueue *q, uint16_t index)
{
    __atomic_store_n((uint16_t *)guest_ram(q->at.avail + 2), index, __ATOMIC_SEQ_CST);
}

void vqueue_publish(struct vqueue *q, uint16_t head)
{
    guest_store16(guest_ram(q->at.avail + 4 + 2 * (q->avail_index % q->size)), head);
    vqueue_set_avail_index(q, ++q->avail_index);
}

void vqueue_set_avail_flags(struct vqueue *q, uint16_t flags)
{
    __atomic_store_n((uint16_t *)guest_ram(q->at.avail), flags, __ATOMIC_SEQ_CST);
}

uint16_t vqueue_used_index(const struct vqueue *q)
{
    return __atomic_load_n((uint16_t *)guest_ram(q->at.used + 2), __ATOMIC_SEQ_CST);
}

uint16_t vqueue_used_flags(const struct vqueue *q)
{
    return __atomic_load_n((uint16_t *)guest_ram(q->at.used), __ATOMIC_SEQ_CST);
}

uint16_t vqueue_avail_event(const struct vqueue *q)
{
    return __atomic_load_n((uint16_t *)guest_ram(q->at.used + 4 + 8 * q->size), __ATOMIC_SEQ_CST);
}

void vqueue_set_used_event(struct vqueue *q, uint16_t index)
{
    __atomic_store_n((uint16_t *)guest_ram(q->at.avail + 4 + 2 * q->size), index, __ATOMIC_SEQ_CST);
}

bool vqueue_take_used(struct vqueue *q, uint32_t *head, uint32_t *length)
{
    if (vqueue_used_index(q) == q->seen_used) {
        return false;
    }
    const uint8_t *entry = guest_ram(q->at.used + 4 + 8 * (q->seen_used % q->size));
    *head = guest_load32(entry);
    *length = guest_load32(entry + 4);
    q->seen_used++;
    if (q->event_idx && !q->keeps_used_event) {
        vqueue_set_used_event(q, q->seen_used);
    }
    return true;
}

/* 2.7.13.4. */
bool vqueue_wants_kick(const struct vqueue *q)
{
    if (!q->event_idx) {
        return !(vqueue_used_flags(q) & VRING_USED_F_NO_NOTIFY);
    }
    return vring_need_event(vqueue_avail_event(q), q->avail_index, q->kicked);
}

void vdriver_kick(struct vdriver *d)
{
    d->queue.kicked = d->queue.avail_index;
    guest_write(d->doorbell, 0, 2);
}

void vdriver_kick_if_wanted(struct vdriver *d)
{
    if (vqueue_wants_kick(&d->queue)) {
        vdriver_kick(d);
    }
    d->queue.kicked = d->queue.avail_index;
}

/* ---- waiting -------------------------------------------------------------------------------- */

static bool has_used(void *opaque)
{
    const struct vqueue *q = opaque;

    return vqueue_used_index(q) != q->seen_used;
}

bool vdriver_wait_used(struct vdriver *d, uint32_t *head, uint32_t *length)
{
    return rig_wait(has_used, &d->queue) && vqueue_take_used(&d->queue, head, length);
}

struct status_wait {
    struct vdriver *d;
    uint8_t bits;
};

static bool has_status(void *opaque)
{
    const struct status_wait *w = opaque;

    return (vdriver_status(w->d) & w->bits) == w->bits;
}

bool vdriver_wait_status(struct vdriver *d, uint8_t bits)
{
    return rig_wait(has_status, &(struct status_wait){d, bits});
}

struct interrupt_wait {
    unsigned data, count;
};

static bool has_interrupts(void *opaque)
{
    const struct interrupt_wait *w = opaque;

    return fake_interrupts(w->data) >= w->count;
}

bool vdriver_wait_interrupts(unsigned data, unsigned count)
{
    return rig_wait(has_interrupts, &(struct interrupt_wait){data, count});
}
