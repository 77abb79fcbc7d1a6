/* SPDX-License-Identifier: MIT */
/* What virtio_pci.c and virtio_pci_regs.c share. */
#ifndef FERRY_HW_VIRTIO_VIRTIO_PCI_INTERNAL_H
#define FERRY_HW_VIRTIO_VIRTIO_PCI_INTERNAL_H

#include "hw/virtio/virtio_pci.h"

extern const struct mem_region_ops virtio_pci_common_ops, virtio_pci_isr_ops, virtio_pci_device_ops,
    virtio_pci_doorbell_ops;

/* Machine lock held. */
void virtio_pci_update_intx(struct virtio_pci *vpci);
void virtio_pci_renew_irqfds(struct virtio_pci *vpci);
/* The region of the modern BAR that holds [*offset, *offset + size); *offset becomes that in the
 * region. NULL: none does. */
struct mem_region *virtio_pci_part(struct virtio_pci *vpci, uint32_t *offset, unsigned size);

/* For the pci_device_class of a type. */
void virtio_pci_config_written(struct pci_device *pci, uint32_t offset, unsigned size);
void virtio_pci_config_read(struct pci_device *pci, uint32_t offset, unsigned size);

#endif
