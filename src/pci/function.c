/* SPDX-License-Identifier: MIT */
/*
 * The device type that all PCI functions inherit: configuration header, place on the bus, the
 * address space of its DMA.
 *
 *   bus_master (container) --- alias of system memory, enabled by the bus master bit
 *        `--> dma_space: what the function's DMA sees; nothing while it is no bus master
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "device/vmstate.h"
#include "pci/internal.h"
#include "pci/msix.h"

static const struct property pci_props[] = {
    PROPERTY_PCI_ADDRESS("addr", struct pci_device, addr,
                         "Slot and optional function number, example: 06.0 or 06"),
    PROPERTY_STRING("romfile", struct pci_device, romfile, NULL, "image of the expansion ROM"),
    PROPERTY_UINT32("rombar", struct pci_device, rombar, 1, 0, 1,
                    "whether the expansion ROM has a BAR"),
    PROPERTY_BOOL("multifunction", struct pci_device, multifunction, false, "on/off"),
    PROPERTY_END,
};

/* The class of the type nearest to the leaf that has one. */
static const struct pci_device_class *find_class(const struct device *dev)
{
    for (const struct device_type *t = dev->type; t != &pci_device_type; t = t->parent) {
        if (t->class) {
            return t->class;
        }
    }
    assert(!"a PCI device type without a pci_device_class");
    return NULL;
}

static void init_header(struct pci_device *pci)
{
    const struct pci_device_class *class = pci->class;
    uint8_t *config = pci->config;

    store_le16(config + PCI_VENDOR_ID, class->vendor_id);
    store_le16(config + PCI_DEVICE_ID, class->device_id);
    config[PCI_REVISION_ID] = class->revision;
    config[PCI_CLASS_PROG] = (uint8_t) class->class_code;
    store_le16(config + PCI_CLASS_DEVICE, (uint16_t)(class->class_code >> 8));
    config[PCI_HEADER_TYPE] = class->is_bridge ? PCI_HEADER_TYPE_BRIDGE : PCI_HEADER_TYPE_NORMAL;
    if (pci->multifunction) {
        config[PCI_HEADER_TYPE] |= 0x80;
    }
    if (!class->is_bridge) {
        store_le16(config + PCI_SUBSYSTEM_VENDOR_ID, class->subsystem_vendor_id);
        store_le16(config + PCI_SUBSYSTEM_ID, class->subsystem_id);
    }
    store_le16(pci->writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
                                                PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                                                PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
    pci->writable[PCI_CACHE_LINE_SIZE] = 0xff;
    pci->writable[PCI_INTERRUPT_LINE] = 0xff;
    store_le16(pci->clear_on_write + PCI_STATUS,
               PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT | PCI_STATUS_REC_TARGET_ABORT |
                   PCI_STATUS_REC_MASTER_ABORT | PCI_STATUS_SIG_SYSTEM_ERROR |
                   PCI_STATUS_DETECTED_PARITY);
}

static void init_dma(struct pci_device *pci)
{
    autofree char *name =
        xasprintf("%s@%02x.%x", pci->dev.type->name, PCI_SLOT(pci->devfn), PCI_FUNC(pci->devfn));

    mem_region_init_container(&pci->bus_master, "bus master", UINT64_MAX);
    mem_region_init_alias(&pci->bus_master_alias, "bus master", mem_root(), 0, UINT64_MAX);
    mem_transaction_begin();
    mem_region_set_enabled(&pci->bus_master_alias, false);
    mem_region_add(&pci->bus_master, 0, &pci->bus_master_alias);
    mem_transaction_commit();
    pci->dma_space = address_space_new(name, &pci->bus_master);
}

static void destroy_dma(struct pci_device *pci)
{
    address_space_free(pci->dma_space);
    pci->dma_space = NULL;
    mem_transaction_begin();
    mem_region_remove(&pci->bus_master, &pci->bus_master_alias);
    mem_transaction_commit();
    mem_region_destroy(&pci->bus_master_alias);
    mem_region_destroy(&pci->bus_master);
}

static bool pci_realize(struct device *dev, struct error **errp)
{
    struct pci_device *pci = pci_device(dev);
    struct pci_bus *bus = (struct pci_bus *)dev->bus;

    pci->class = find_class(dev);
    pci->config_size =
        pci->class->is_express && bus->is_express ? PCIE_CONFIG_SIZE : PCI_CONFIG_SIZE;
    pci->next_capability = PCI_STD_HEADER_SIZEOF;
    for (unsigned i = 0; i < ARRAY_SIZE(pci->bar); i++) {
        pci->bar[i].address = PCI_BAR_UNMAPPED;
    }
    if (!pci_bus_take_place(bus, pci, errp)) {
        return false;
    }
    init_header(pci);
    init_dma(pci);
    if (!pci_rom_init(pci, errp)) {
        destroy_dma(pci);
        pci_bus_leave_place(pci);
        return false;
    }
    return true;
}

static void pci_unrealize(struct device *dev)
{
    struct pci_device *pci = pci_device(dev);

    pci_set_irq(pci, 0);
    pci_unmap_bars(pci);
    pci_rom_destroy(pci);
    destroy_dma(pci);
    pci_bus_leave_place(pci);
    pci->express_capability = 0;
    pci->next_extended_capability = pci->last_extended_capability = 0;
    memset(pci->config, 0, sizeof(pci->config));
    memset(pci->writable, 0, sizeof(pci->writable));
    memset(pci->clear_on_write, 0, sizeof(pci->clear_on_write));
}

/* What the header holds after RST# (PCI 3.0, 6.2): nothing decodes, nothing masters. */
static void pci_reset(struct device *dev)
{
    struct pci_device *pci = pci_device(dev);
    static const struct {
        uint8_t offset, size;
    } fields[] = {
        {PCI_COMMAND, 2},
        {PCI_CACHE_LINE_SIZE, 1},
        {PCI_INTERRUPT_LINE, 1},
        {PCI_BASE_ADDRESS_0, 24},
    };

    pci_set_irq(pci, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        for (unsigned j = fields[i].offset; j < fields[i].offset + fields[i].size; j++) {
            pci->config[j] &= (uint8_t)~pci->writable[j];
        }
    }
    if (pci->bar[PCI_ROM_BAR].region) {
        memset(pci->config + PCI_ROM_ADDRESS, 0, 4);
    }
    if (pci->express_capability) {
        store_le16(pci->config + pci->express_capability + PCI_EXP_DEVCTL, PCIE_DEVCTL_RESET);
    }
    for (unsigned i = 0; i < 2; i++) {
        pci->config[PCI_STATUS + i] &= (uint8_t)~pci->clear_on_write[PCI_STATUS + i];
    }
    msi_reset(pci);
    if (pci->msix) {
        msix_reset(pci);
    }
    mem_transaction_begin();
    mem_region_set_enabled(&pci->bus_master_alias, false);
    pci_update_mappings(pci);
    mem_transaction_commit();
}

bool pci_bus_master_enabled(const struct pci_device *pci)
{
    return pci_command(pci) & PCI_COMMAND_MASTER;
}

/* ---- state ---------------------------------------------------------------------------------- */

static bool pci_post_load(void *device, unsigned version)
{
    struct pci_device *pci = device;

    /* What identifies the function does not come from a stream. */
    init_header(pci);
    mem_transaction_begin();
    mem_region_set_enabled(&pci->bus_master_alias, pci_bus_master_enabled(pci));
    pci_update_mappings(pci);
    mem_transaction_commit();
    msi_config_written(pci, 0, pci->config_size);
    msix_config_written(pci, 0, pci->config_size);
    pci->irq_level = pci->irq_level != 0;
    pci_update_intx(pci);
    return true;
}

static const struct vmstate_field pci_fields[] = {
    VMSTATE_BYTES(struct pci_device, config),
    VMSTATE_UINT(struct pci_device, irq_level),
    VMSTATE_END,
};

const struct vmstate pci_device_vmstate = {
    .name = "pci-device",
    .version = 1,
    .minimum_version = 1,
    .fields = pci_fields,
    .post_load = pci_post_load,
};

const struct device_type pci_device_type = {
    .name = "pci-device",
    .description = "PCI function",
    .bus = "PCI",
    .abstract = true,
    .props = pci_props,
    .realize = pci_realize,
    .unrealize = pci_unrealize,
    .reset = pci_reset,
};
