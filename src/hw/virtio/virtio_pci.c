/* SPDX-License-Identifier: MIT */
/*
 * The virtio-pci function: properties, capabilities, BARs, notifiers. Its registers are in
 * virtio_pci_regs.c.
 */
#include "hw/virtio/virtio_pci.h"

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <stddef.h>

#include "aio/loop.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/iothread.h"
#include "hw/virtio/virtio_pci_internal.h"
#include "mem/machine_lock.h"

#define MSIX_BAR   1
#define MODERN_BAR 4

#define PART_SIZE     0x1000
#define COMMON_OFFSET 0x0000
#define ISR_OFFSET    0x1000
#define DEVICE_OFFSET 0x2000
#define NOTIFY_OFFSET 0x3000
/* So many doorbells fit, whatever the number of queues. */
#define DOORBELL_MAX 1024

/* ---- interrupts ----------------------------------------------------------------------------- */

/* Main loop: the line follows the ISR. */
static void update_intx(void *opaque)
{
    struct virtio_pci *vpci = opaque;

    machine_lock();
    if (vpci->vdev) {
        virtio_pci_update_intx(vpci);
    }
    machine_unlock();
}

void virtio_pci_update_intx(struct virtio_pci *vpci)
{
    pci_set_irq(&vpci->pci, !msix_enabled(&vpci->pci) && atomic_load(&vpci->vdev->isr));
}

static struct virtio_pci *vpci_of(struct virtio_device *vdev)
{
    return (struct virtio_pci *)vdev->dev;
}

/* By MSI-X, or INTx. Any thread. */
static void notify_without_irqfd(struct virtio_queue *queue)
{
    struct virtio_pci *vpci = vpci_of(queue->vdev);

    if (!msix_notify(&vpci->pci, atomic_load_explicit(&queue->vector, memory_order_relaxed))) {
        atomic_fetch_or(&queue->vdev->isr, VIRTIO_ISR_QUEUE);
        bh_schedule(vpci->intx_bh);
    }
}

/*
 * In the loop, without the machine lock. It may set the notifier just when nobody hears it any more:
 *
 *      here                             virtio_pci_renew_irqfds()
 *      sets the notifier                irqfds_on = false
 *      looks at irqfds_on again         looks at the notifier
 *
 * Both looks and irqfds_on are sequentially consistent, and the notifier is in the kernel, under a lock:
 * at least one of the two sees what the other did, and who clears the notifier sends. Where irqfds_on is
 * true again or still, an irqfd was or will be attached, and that finds the notifier set.
 */
static void notify_queue(struct virtio_queue *queue)
{
    struct virtio_pci *vpci = vpci_of(queue->vdev);

    if (atomic_load_explicit(&vpci->irqfds_on, memory_order_relaxed)) {
        event_notifier_set(&queue->interrupt);
        if (atomic_load(&vpci->irqfds_on) || !event_notifier_test_and_clear(&queue->interrupt)) {
            return;
        }
    }
    notify_without_irqfd(queue);
}

static void notify_config(struct virtio_device *vdev)
{
    struct virtio_pci *vpci = vpci_of(vdev);

    if (!msix_notify(&vpci->pci, atomic_load(&vdev->config_vector))) {
        virtio_pci_update_intx(vpci);
    }
}

/* ---- notifiers ------------------------------------------------------------------------------ */

static void set_doorbells(struct virtio_pci *vpci, bool on)
{
    struct virtio_device *vdev = vpci->vdev;

    if (!vpci->ioeventfd || on == vpci->doorbells_on) {
        return;
    }
    vpci->doorbells_on = on;
    mem_transaction_begin();
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        if (!vdev->queues[i].enabled) {
            continue;
        }
        struct mem_eventfd e = {
            .offset = i * vpci->doorbell_stride,
            .size = 0, /* any length: the engine need not decode the instruction */
            .notifier = &vdev->queues[i].doorbell,
        };
        if (on) {
            mem_region_add_eventfd(&vpci->doorbells, &e);
        } else {
            mem_region_del_eventfd(&vpci->doorbells, &e);
        }
    }
    mem_transaction_commit();
}

static void set_irqfds(struct virtio_pci *vpci, bool on)
{
    struct virtio_device *vdev = vpci->vdev;
    struct event_notifier *notifiers[VIRTIO_QUEUE_MAX];
    uint16_t vectors[VIRTIO_QUEUE_MAX];

    msix_clear_notifiers(&vpci->pci);
    if (!on || !msix_enabled(&vpci->pci)) {
        atomic_store(&vpci->irqfds_on, false);
        return;
    }
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        notifiers[i] = &vdev->queues[i].interrupt;
        vectors[i] =
            vdev->queues[i].enabled ? atomic_load(&vdev->queues[i].vector) : VIRTIO_NO_VECTOR;
    }
    atomic_store(&vpci->irqfds_on,
                 msix_set_notifiers(&vpci->pci, notifiers, vectors, vdev->queue_count));
}

/* As virtio_blk_data_plane_start of QEMU: guest notifiers with their routes, then host ones. */
static void set_notifiers(struct virtio_device *vdev, bool on)
{
    struct virtio_pci *vpci = vpci_of(vdev);

    if (on) {
        set_irqfds(vpci, true);
        set_doorbells(vpci, true);
    } else {
        set_doorbells(vpci, false);
        set_irqfds(vpci, false);
    }
}

/* Vectors changed, or MSI-X went on or off, while the device runs: no driver does that. What was
 * signalled to a notifier that nobody hears any more is signalled again. */
void virtio_pci_renew_irqfds(struct virtio_pci *vpci)
{
    struct virtio_device *vdev = vpci->vdev;

    if (!vdev) {
        return;
    }
    if (vdev->run == VIRTIO_STOPPED) {
        virtio_pci_update_intx(vpci); /* with MSI-X the pin is not used */
        return;
    }
    set_irqfds(vpci, vdev->run == VIRTIO_STARTED);
    /* The partner of notify_queue(); also if the engine refused the irqfds. */
    for (unsigned i = 0; i < vdev->queue_count && !atomic_load(&vpci->irqfds_on); i++) {
        if (event_notifier_test_and_clear(&vdev->queues[i].interrupt)) {
            notify_without_irqfd(&vdev->queues[i]);
        }
    }
    virtio_pci_update_intx(vpci);
}

static void transport_reset(struct virtio_device *vdev)
{
    struct virtio_pci *vpci = vpci_of(vdev);

    vpci->device_feature_select = vpci->driver_feature_select = 0;
    vpci->queue_select = 0;
    if (vpci->vdev) {
        virtio_pci_update_intx(vpci);
    }
}

const struct virtio_transport_ops virtio_pci_transport = {
    .notify_queue = notify_queue,
    .notify_config = notify_config,
    .set_notifiers = set_notifiers,
    .reset = transport_reset,
};

/* ---- capabilities and BARs ------------------------------------------------------------------ */

static uint8_t add_capability(struct virtio_pci *vpci, uint8_t type, uint32_t offset,
                              uint32_t length, unsigned size)
{
    uint8_t at = pci_add_capability(&vpci->pci, PCI_CAP_ID_VNDR, size);
    uint8_t *cap = vpci->pci.config + at;

    cap[VIRTIO_PCI_CAP_LEN] = (uint8_t)size;
    cap[VIRTIO_PCI_CAP_CFG_TYPE] = type;
    cap[VIRTIO_PCI_CAP_BAR] = MODERN_BAR;
    store_le32(cap + VIRTIO_PCI_CAP_OFFSET, offset);
    store_le32(cap + VIRTIO_PCI_CAP_LENGTH, length);
    return at;
}

static void add_capabilities(struct virtio_pci *vpci)
{
    unsigned size = sizeof(struct virtio_pci_cap);
    uint8_t *writable;

    add_capability(vpci, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFFSET, PART_SIZE, size);
    add_capability(vpci, VIRTIO_PCI_CAP_ISR_CFG, ISR_OFFSET, PART_SIZE, size);
    add_capability(vpci, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFFSET, PART_SIZE, size);
    uint8_t notify =
        add_capability(vpci, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFFSET,
                       vpci->doorbell_stride * DOORBELL_MAX, sizeof(struct virtio_pci_notify_cap));
    store_le32(vpci->pci.config + notify + VIRTIO_PCI_NOTIFY_CAP_MULT, vpci->doorbell_stride);

    vpci->window =
        add_capability(vpci, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, sizeof(struct virtio_pci_cfg_cap));
    writable = vpci->pci.writable + vpci->window;
    vpci->pci.config[vpci->window + VIRTIO_PCI_CAP_BAR] = 0;
    writable[VIRTIO_PCI_CAP_BAR] = 0xff;
    store_le32(writable + VIRTIO_PCI_CAP_OFFSET, UINT32_MAX);
    store_le32(writable + VIRTIO_PCI_CAP_LENGTH, UINT32_MAX);
    store_le32(writable + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data), UINT32_MAX);
}

static void init_bar(struct virtio_pci *vpci)
{
    uint64_t size = 16 * KiB;
    uint64_t doorbells = (uint64_t)vpci->doorbell_stride * DOORBELL_MAX;

    while (size < NOTIFY_OFFSET + doorbells) {
        size *= 2;
    }
    mem_region_init_container(&vpci->bar, "virtio-pci", size);
    mem_region_init_io(&vpci->common, "virtio-pci-common", PART_SIZE, &virtio_pci_common_ops, vpci);
    mem_region_init_io(&vpci->isr, "virtio-pci-isr", PART_SIZE, &virtio_pci_isr_ops, vpci);
    mem_region_init_io(&vpci->device_config, "virtio-pci-device", PART_SIZE, &virtio_pci_device_ops,
                       vpci);
    mem_region_init_io(&vpci->doorbells, "virtio-pci-notify", doorbells, &virtio_pci_doorbell_ops,
                       vpci);
    mem_transaction_begin();
    mem_region_add(&vpci->bar, COMMON_OFFSET, &vpci->common);
    mem_region_add(&vpci->bar, ISR_OFFSET, &vpci->isr);
    mem_region_add(&vpci->bar, DEVICE_OFFSET, &vpci->device_config);
    mem_region_add(&vpci->bar, NOTIFY_OFFSET, &vpci->doorbells);
    mem_transaction_commit();
    pci_register_bar(&vpci->pci, MODERN_BAR, &vpci->bar, false, true, true);
}

static void destroy_bar(struct virtio_pci *vpci)
{
    mem_transaction_begin();
    mem_region_remove(&vpci->bar, &vpci->common);
    mem_region_remove(&vpci->bar, &vpci->isr);
    mem_region_remove(&vpci->bar, &vpci->device_config);
    mem_region_remove(&vpci->bar, &vpci->doorbells);
    mem_transaction_commit();
    mem_region_destroy(&vpci->common);
    mem_region_destroy(&vpci->isr);
    mem_region_destroy(&vpci->device_config);
    mem_region_destroy(&vpci->doorbells);
    mem_region_destroy(&vpci->bar);
}

struct mem_region *virtio_pci_part(struct virtio_pci *vpci, uint32_t *offset, unsigned size)
{
    struct mem_region *const parts[] = {&vpci->common, &vpci->isr, &vpci->device_config,
                                        &vpci->doorbells};

    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        if (*offset >= parts[i]->offset &&
            range_fits(*offset - parts[i]->offset, size, parts[i]->size)) {
            *offset -= (uint32_t)parts[i]->offset;
            return parts[i];
        }
    }
    return NULL;
}

/* ---- life ----------------------------------------------------------------------------------- */

bool virtio_pci_check(struct virtio_pci *vpci, struct error **errp)
{
    const char *name = vpci->pci.dev.type->name;
    static const char later[] = "; leave it out";

    if (vpci->disable_modern) {
        error_set(errp,
                  "%s: disable-modern=on is not possible: only modern virtio devices are "
                  "supported%s",
                  name, later);
    } else if (vpci->disable_legacy == ON_OFF_AUTO_OFF) {
        error_set(errp,
                  "%s: disable-legacy=off is not possible: only modern virtio devices are "
                  "supported; use disable-legacy=on or leave it out",
                  name);
    } else if (vpci->iommu_platform) {
        error_set(errp, "%s: iommu_platform=on needs an IOMMU, which this machine lacks%s", name,
                  later);
    } else if (vpci->ats) {
        error_set(errp, "%s: ats=on needs an IOMMU, which this machine lacks%s", name, later);
    } else if (vpci->packed) {
        error_set(errp, "%s: packed=on is not possible: only split virtqueues are supported%s",
                  name, later);
    } else if (vpci->modern_pio_notify) {
        error_set(errp, "%s: modern-pio-notify=on is not supported%s", name, later);
    } else {
        return true;
    }
    return false;
}

bool virtio_pci_plug(struct virtio_pci *vpci, struct virtio_device *vdev, struct error **errp)
{
    struct pci_device *pci = &vpci->pci;
    uint32_t vectors = vpci->vectors;

    if (vectors == VIRTIO_PCI_VECTORS_AUTO) {
        vectors = vdev->queue_count + 1;
    }
    if (vectors > VIRTIO_QUEUE_MAX + 1) {
        error_set(errp, "%s: vectors=%u is too much; the most is %u", pci->dev.type->name, vectors,
                  VIRTIO_QUEUE_MAX + 1);
        return false;
    }
    if (vectors && !msix_init_exclusive_bar(pci, vectors, MSIX_BAR, errp)) {
        return false;
    }
    pci_set_interrupt_pin(pci, 1);
    vpci->doorbell_stride = vpci->page_per_vq ? 4096 : 4;
    add_capabilities(vpci);
    pcie_add_capability(pci);
    init_bar(vpci);
    vpci->intx_bh = bh_new(main_loop(), update_intx, vpci);
    vpci->vectors = vectors;
    vpci->vdev = vdev;
    return true;
}

void virtio_pci_unplug(struct virtio_pci *vpci)
{
    virtio_quiesce(vpci->vdev);
    pci_unmap_bars(&vpci->pci);
    msix_uninit(&vpci->pci);
    destroy_bar(vpci);
    bh_delete(vpci->intx_bh);
    vpci->intx_bh = NULL;
    vpci->vdev = NULL;
}

static void virtio_pci_reset(struct device *dev)
{
    struct virtio_pci *vpci = (struct virtio_pci *)dev;

    /* MSI-X has been reset before. */
    vpci->msix_was_enabled = false;
    virtio_pci_renew_irqfds(vpci);
    virtio_system_reset(vpci->vdev);
}

void virtio_pci_pre_save(struct virtio_pci *vpci)
{
    if (vpci->pci.msix) {
        msix_save(&vpci->pci, vpci->msix_table, vpci->msix_pending);
    }
}

bool virtio_pci_post_load(struct virtio_pci *vpci)
{
    if (vpci->pci.msix) {
        msix_load(&vpci->pci, vpci->msix_table, vpci->msix_pending);
    }
    virtio_pci_update_intx(vpci);
    return true;
}

static const struct property virtio_pci_props[] = {
    PROPERTY_BOOL("ioeventfd", struct virtio_pci, ioeventfd, true,
                  "doorbells by eventfd rather than by a VM exit to the device"),
    PROPERTY_UINT32("vectors", struct virtio_pci, vectors, VIRTIO_PCI_VECTORS_AUTO, 0, 0,
                    "number of MSI-X vectors, 0 for none"),
    PROPERTY_ON_OFF_AUTO("disable-legacy", struct virtio_pci, disable_legacy, ON_OFF_AUTO_AUTO,
                         "no legacy interface (there is none)"),
    PROPERTY_BOOL("disable-modern", struct virtio_pci, disable_modern, false,
                  "no modern interface (refused)"),
    PROPERTY_BOOL("page-per-vq", struct virtio_pci, page_per_vq, false,
                  "each doorbell has a page of its own"),
    PROPERTY_BIT64("event_idx", struct virtio_pci, ring_features, VIRTIO_F_RING_EVENT_IDX, true,
                   "offer VIRTIO_F_EVENT_IDX"),
    PROPERTY_BIT64("indirect_desc", struct virtio_pci, ring_features, VIRTIO_F_RING_INDIRECT_DESC,
                   true, "offer VIRTIO_F_INDIRECT_DESC"),
    PROPERTY_BOOL("packed", struct virtio_pci, packed, false, "packed virtqueues (refused)"),
    PROPERTY_BOOL("iommu_platform", struct virtio_pci, iommu_platform, false,
                  "DMA through an IOMMU (refused)"),
    PROPERTY_BOOL("ats", struct virtio_pci, ats, false, "address translation services (refused)"),
    PROPERTY_BOOL("modern-pio-notify", struct virtio_pci, modern_pio_notify, false,
                  "doorbells as I/O ports (refused)"),
    PROPERTY_END,
};

const struct device_type virtio_pci_type = {
    .name = "virtio-pci",
    .parent = &pci_device_type,
    .description = "virtio device on PCI",
    .abstract = true,
    .props = virtio_pci_props,
    .reset = virtio_pci_reset,
};
