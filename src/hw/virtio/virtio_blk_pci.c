/* SPDX-License-Identifier: MIT */
/* virtio-blk-pci: the block device on the PCI transport. */
#include "device/vmstate.h"
#include "hw/virtio/virtio_blk.h"
#include "hw/virtio/virtio_pci_internal.h"

static struct virtio_blk_pci *of(struct device *dev)
{
    return (struct virtio_blk_pci *)dev;
}

static bool virtio_blk_pci_realize(struct device *dev, struct error **errp)
{
    struct virtio_blk_pci *s = of(dev);
    struct virtio_init transport = {
        .transport = &virtio_pci_transport,
        .dev = dev,
        .as = s->vpci.pci.dma_space,
        .allowed_features = s->vpci.ring_features,
    };

    if (!virtio_pci_check(&s->vpci, errp) || !virtio_blk_init(&s->blk, &transport, errp)) {
        return false;
    }
    if (!virtio_pci_plug(&s->vpci, &s->blk.vdev, errp)) {
        virtio_blk_destroy(&s->blk);
        return false;
    }
    return true;
}

static void virtio_blk_pci_unrealize(struct device *dev)
{
    struct virtio_blk_pci *s = of(dev);

    virtio_pci_unplug(&s->vpci);
    virtio_blk_destroy(&s->blk);
}

static void pre_save(void *device)
{
    struct virtio_blk_pci *s = device;

    virtio_pci_pre_save(&s->vpci);
}

static bool post_load(void *device, unsigned version)
{
    struct virtio_blk_pci *s = device;

    return virtio_pci_post_load(&s->vpci);
}

static const struct vmstate_field fields[] = {
    VMSTATE_VIRTIO_PCI(struct virtio_blk_pci, vpci),
    VMSTATE_SUB(struct virtio_blk_pci, blk.vdev, virtio_device_vmstate, 1),
    VMSTATE_SUB(struct virtio_blk_pci, blk.queue, virtio_queue_vmstate, 1),
    VMSTATE_END,
};

static const struct vmstate virtio_blk_pci_vmstate = {
    .name = "virtio-blk-pci",
    .version = 1,
    .minimum_version = 1,
    .fields = fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

static const struct property virtio_blk_pci_props[] = {
    VIRTIO_BLK_PROPERTIES(struct virtio_blk_pci, blk),
    PROPERTY_END,
};

static const struct pci_device_class virtio_blk_pci_class = {
    .vendor_id = 0x1af4,
    .device_id = 0x1042,
    .revision = 1,
    .class_code = 0x010000, /* SCSI controller */
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .is_express = true,
    .config_written = virtio_pci_config_written,
    .config_read = virtio_pci_config_read,
};

#define VIRTIO_BLK_PCI_TYPE                                                                        \
    .parent = &virtio_pci_type, .description = "Virtio block device",                              \
    .backend_name = "virtio-blk-device", .category = DEVICE_CATEGORY_STORAGE,                      \
    .size = sizeof(struct virtio_blk_pci), .props = virtio_blk_pci_props,                          \
    .class = &virtio_blk_pci_class, .realize = virtio_blk_pci_realize,                             \
    .unrealize = virtio_blk_pci_unrealize, .vmstate = &virtio_blk_pci_vmstate

const struct device_type virtio_blk_pci_type = {
    .name = "virtio-blk-pci",
    .alias = "virtio-blk",
    VIRTIO_BLK_PCI_TYPE,
};

const struct device_type virtio_blk_pci_non_transitional_type = {
    .name = "virtio-blk-pci-non-transitional",
    VIRTIO_BLK_PCI_TYPE,
};
