/* SPDX-License-Identifier: MIT */
/*
 * Registers of virtio-pci: common configuration (virtio 1.2, 4.1.4.3), ISR (4.1.4.5), device
 * configuration (4.1.4.6), doorbells (4.1.4.4), and the window from PCI configuration space into
 * the BAR (4.1.4.9). Machine state, but for the doorbells, which take no lock.
 *
 *   vcpu: address_space_write -> mem_region_call_write -> common_write -> virtio_set_status
 *                                                      \-> doorbell_write -> virtio_queue_kick
 */
#include <linux/virtio_pci.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/range.h"
#include "hw/virtio/virtio_pci_internal.h"
#include "trace/trace.h"

/* ---- common configuration ------------------------------------------------------------------- */

static struct virtio_queue *selected(struct virtio_pci *vpci)
{
    struct virtio_device *vdev = vpci->vdev;

    return vpci->queue_select < vdev->queue_count ? &vdev->queues[vpci->queue_select] : NULL;
}

static uint32_t half(uint64_t value, uint32_t select)
{
    return select == 0 ? (uint32_t)value : select == 1 ? (uint32_t)(value >> 32) : 0;
}

static uint32_t queue_read(const struct virtio_queue *queue, uint64_t offset)
{
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        return queue->size;
    case VIRTIO_PCI_COMMON_Q_MSIX:
        return atomic_load(&queue->vector);
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        return queue->enabled;
    case VIRTIO_PCI_COMMON_Q_NOFF:
        return queue->index;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
        return (uint32_t)queue->desc;
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        return (uint32_t)(queue->desc >> 32);
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
        return (uint32_t)queue->avail;
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        return (uint32_t)(queue->avail >> 32);
    case VIRTIO_PCI_COMMON_Q_USEDLO:
        return (uint32_t)queue->used;
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        return (uint32_t)(queue->used >> 32);
    default:
        return 0;
    }
}

static uint64_t common_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *vpci = opaque;
    struct virtio_device *vdev = vpci->vdev;
    struct virtio_queue *queue = selected(vpci);

    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        return vpci->device_feature_select;
    case VIRTIO_PCI_COMMON_DF:
        return half(vdev->host_features, vpci->device_feature_select);
    case VIRTIO_PCI_COMMON_GFSELECT:
        return vpci->driver_feature_select;
    case VIRTIO_PCI_COMMON_GF:
        return half(vdev->guest_features, vpci->driver_feature_select);
    case VIRTIO_PCI_COMMON_MSIX:
        return atomic_load(&vdev->config_vector);
    case VIRTIO_PCI_COMMON_NUMQ:
        return vdev->queue_count;
    case VIRTIO_PCI_COMMON_STATUS:
        return virtio_status(vdev);
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        return vdev->config_generation;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        return vpci->queue_select;
    default:
        /* 4.1.4.3.1: a queue that does not exist has size 0. */
        return queue ? queue_read(queue, offset) : 0;
    }
}

static uint16_t valid_vector(const struct virtio_pci *vpci, uint32_t value)
{
    return value < msix_vectors(&vpci->pci) ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void set_driver_features(struct virtio_pci *vpci, uint32_t value)
{
    uint64_t features = vpci->vdev->guest_features;

    if (vpci->driver_feature_select == 0) {
        features = (features & ~(uint64_t)UINT32_MAX) | value;
    } else if (vpci->driver_feature_select == 1) {
        features = (features & UINT32_MAX) | (uint64_t)value << 32;
    }
    virtio_set_features(vpci->vdev, features);
}

static void set_queue_vector(struct virtio_pci *vpci, struct virtio_queue *queue, uint32_t value)
{
    uint16_t vector = valid_vector(vpci, value);

    if (atomic_exchange(&queue->vector, vector) != vector) {
        virtio_pci_renew_irqfds(vpci);
    }
}

static void queue_write(struct virtio_pci *vpci, struct virtio_queue *queue, uint64_t offset,
                        uint32_t value)
{
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        virtio_queue_set_size(queue, (uint16_t)value);
        break;
    case VIRTIO_PCI_COMMON_Q_MSIX:
        set_queue_vector(vpci, queue, value);
        break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (value == 1) {
            virtio_queue_enable(queue);
        }
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        virtio_queue_set_address(queue, VIRTIO_RING_DESC, offset == VIRTIO_PCI_COMMON_Q_DESCHI,
                                 value);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        virtio_queue_set_address(queue, VIRTIO_RING_AVAIL, offset == VIRTIO_PCI_COMMON_Q_AVAILHI,
                                 value);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        virtio_queue_set_address(queue, VIRTIO_RING_USED, offset == VIRTIO_PCI_COMMON_Q_USEDHI,
                                 value);
        break;
    default:
        break;
    }
}

static void common_write(void *opaque, uint64_t offset, uint64_t wide, unsigned size)
{
    struct virtio_pci *vpci = opaque;
    struct virtio_queue *queue = selected(vpci);
    uint32_t value = (uint32_t)wide;

    TRACE(virtio_pci_common_write, vpci->vdev, offset, value, size);
    if (virtio_is_resetting(vpci->vdev)) {
        return;
    }
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        vpci->device_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        vpci->driver_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GF:
        set_driver_features(vpci, value);
        break;
    case VIRTIO_PCI_COMMON_MSIX:
        atomic_store(&vpci->vdev->config_vector, valid_vector(vpci, value));
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        virtio_set_status(vpci->vdev, (uint8_t)value);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        vpci->queue_select = (uint16_t)value;
        break;
    default:
        if (queue) {
            queue_write(vpci, queue, offset, value);
        }
        break;
    }
}

/*
 * 4.1.3.1: fields are accessed at their own width. An access of another width is carried out as one
 * of the field at its offset, cut or zero-extended: it hurts nobody but the driver.
 */
const struct mem_region_ops virtio_pci_common_ops = {
    .read = common_read,
    .write = common_write,
    .valid = {.min = 1, .max = 4},
};

/* ---- ISR ------------------------------------------------------------------------------------ */

static uint64_t isr_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *vpci = opaque;

    if (offset != 0) {
        return 0;
    }
    uint8_t isr = atomic_exchange(&vpci->vdev->isr, 0);
    virtio_pci_update_intx(vpci);
    return isr;
}

const struct mem_region_ops virtio_pci_isr_ops = {
    .read = isr_read,
    .write = NULL, /* read-only */
    .valid = {.min = 1, .max = 4},
};

/* ---- device configuration ------------------------------------------------------------------- */

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *vpci = opaque;
    uint8_t bytes[8];

    virtio_config_read(vpci->vdev, (uint32_t)offset, bytes, size);
    return load_le(bytes, size);
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *vpci = opaque;
    uint8_t bytes[8];

    store_le(bytes, size, value);
    virtio_config_write(vpci->vdev, (uint32_t)offset, bytes, size);
}

const struct mem_region_ops virtio_pci_device_ops = {
    .read = device_read,
    .write = device_write,
    .valid = {.min = 1, .max = 4},
};

/* ---- doorbells: any thread, no lock --------------------------------------------------------- */

static uint64_t doorbell_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void doorbell_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *vpci = opaque;
    uint64_t index = offset / vpci->doorbell_stride;

    TRACE(virtio_pci_doorbell, vpci->vdev, index, value);
    if (index < vpci->vdev->queue_count) {
        virtio_queue_kick(&vpci->vdev->queues[index]);
    }
}

const struct mem_region_ops virtio_pci_doorbell_ops = {
    .read = doorbell_read,
    .write = doorbell_write,
    .valid = {.min = 1, .max = 4},
    .lockless = true,
};

/* ---- PCI configuration space ---------------------------------------------------------------- */

/* The access that the window's registers describe, or NULL if they describe none. */
static struct mem_region *window_target(struct virtio_pci *vpci, uint32_t *offset, unsigned *size)
{
    const uint8_t *cap = vpci->pci.config + vpci->window;

    *offset = load_le32(cap + VIRTIO_PCI_CAP_OFFSET);
    *size = load_le32(cap + VIRTIO_PCI_CAP_LENGTH);
    if (cap[VIRTIO_PCI_CAP_BAR] != 4 || (*size != 1 && *size != 2 && *size != 4) ||
        *offset % *size) {
        return NULL;
    }
    return virtio_pci_part(vpci, offset, *size);
}

#define WINDOW_DATA offsetof(struct virtio_pci_cfg_cap, pci_cfg_data)

void virtio_pci_config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    struct virtio_pci *vpci = (struct virtio_pci *)pci;
    uint32_t at;
    unsigned length;

    if (vpci->vdev && range_overlaps(offset, size, vpci->window + WINDOW_DATA, 4)) {
        struct mem_region *part = window_target(vpci, &at, &length);
        if (part) {
            mem_region_dispatch_write(
                part, at, load_le(pci->config + vpci->window + WINDOW_DATA, length), length);
        }
    }
    bool msix = msix_enabled(pci);
    if (vpci->vdev && msix != vpci->msix_was_enabled) {
        vpci->msix_was_enabled = msix;
        virtio_pci_renew_irqfds(vpci);
    }
}

void virtio_pci_config_read(struct pci_device *pci, uint32_t offset, unsigned size)
{
    struct virtio_pci *vpci = (struct virtio_pci *)pci;
    uint32_t at;
    unsigned length;
    uint64_t value;

    if (vpci->vdev && range_overlaps(offset, size, vpci->window + WINDOW_DATA, 4)) {
        struct mem_region *part = window_target(vpci, &at, &length);
        if (part) {
            mem_region_dispatch_read(part, at, &value, length);
            store_le(pci->config + vpci->window + WINDOW_DATA, length, value);
        }
    }
}
