/* SPDX-License-Identifier: MIT */
/*
 * Virtio over PCI, modern (virtio 1.2, 4.1).
 *
 *   BAR 1  MSI-X table and pending bits
 *   BAR 4  64-bit, prefetchable:  0x0000 common configuration
 *                                 0x1000 ISR status
 *                                 0x2000 device configuration
 *                                 0x3000 doorbells, 4 bytes a queue (page-per-vq: 4096)
 *
 * Doorbells: with ioeventfd=on a write sets the queue's eventfd, in the kernel if the engine can;
 * else the write exits to notify_write(), which sets it. Either way the loop does the work.
 *
 * Interrupts: with MSI-X and an engine that has irqfds, the loop sets the queue's guest notifier.
 * Without irqfds it calls msix_notify(). Without MSI-X it sets the ISR bit and posts the change of
 * the INTx line to the main loop.
 *
 * A type embeds struct virtio_pci first, and calls virtio_pci_plug() from its realize.
 */
#ifndef FERRY_HW_VIRTIO_VIRTIO_PCI_H
#define FERRY_HW_VIRTIO_VIRTIO_PCI_H

#include "device/vmstate.h"
#include "hw/virtio/virtio.h"
#include "pci/msix.h"
#include "pci/pci.h"

#define VIRTIO_PCI_VECTORS_AUTO UINT32_MAX

struct virtio_pci {
    struct pci_device pci;
    /* properties */
    bool ioeventfd, page_per_vq, disable_modern, iommu_platform, packed, ats, modern_pio_notify;
    int disable_legacy; /* enum on_off_auto */
    uint32_t vectors;
    uint64_t ring_features; /* event_idx, indirect_desc */
    /* constant after virtio_pci_plug() */
    struct virtio_device *vdev;
    struct mem_region bar, common, isr, device_config, doorbells;
    uint32_t doorbell_stride; /* bytes */
    uint8_t window;           /* offset of the PCI configuration access capability */
    struct aio_bh *intx_bh;
    /* machine state */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    bool doorbells_on;     /* eventfds are registered */
    bool msix_was_enabled; /* at the last config write */
    uint8_t msix_table[(VIRTIO_QUEUE_MAX + 1) * 16], msix_pending[16]; /* for state tables only */
    /* machine state, also read by the loop */
    _Atomic(bool) irqfds_on; /* interrupts go through the guest notifiers */
};

extern const struct device_type virtio_pci_type; /* abstract */

/* Fields of state tables that every virtio-pci type has. */
#define VMSTATE_VIRTIO_PCI(s, f)                                                                   \
    VMSTATE_SUB(s, f.pci, pci_device_vmstate, 1), VMSTATE_UINT(s, f.device_feature_select),        \
        VMSTATE_UINT(s, f.driver_feature_select), VMSTATE_UINT(s, f.queue_select),                 \
        VMSTATE_BYTES(s, f.msix_table), VMSTATE_BYTES(s, f.msix_pending)
void virtio_pci_pre_save(struct virtio_pci *vpci);
bool virtio_pci_post_load(struct virtio_pci *vpci);

extern const struct virtio_transport_ops virtio_pci_transport;

/* In the type's realize, before virtio_init(): properties that make no sense are refused. */
bool virtio_pci_check(struct virtio_pci *vpci, struct error **errp);
/* After virtio_init(): capabilities, BARs, MSI-X. */
bool virtio_pci_plug(struct virtio_pci *vpci, struct virtio_device *vdev, struct error **errp);
/* In the type's unrealize: after it the virtio device is stopped and nobody reaches it. */
void virtio_pci_unplug(struct virtio_pci *vpci);

#endif
