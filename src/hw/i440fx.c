/* SPDX-License-Identifier: MIT */
#include "hw/i440fx.h"

#include "base/range.h"
#include "device/vmstate.h"
#include "hw/pam.h"
#include "hw/pci_host.h"

#define PCI_LINES 4 /* PIRQ A..D */

struct i440fx {
    struct pci_device pci;
    /* machine state */
    struct pam pam;
    uint8_t smram;
};

/* ---- the bus -------------------------------------------------------------------------------- */

static bool pcihost_realize(struct device *dev, struct error **errp)
{
    pci_host_init_bus((struct pci_host *)dev, "pci.0", false, PCI_LINES);
    return true;
}

const struct device_type i440fx_pcihost_type = {
    .name = "i440FX-pcihost",
    .parent = &pci_host_type,
    .description = "i440FX root bus",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct pci_host),
    .internal = true,
    .realize = pcihost_realize,
    .unrealize = pci_host_destroy_bus,
};

/* ---- function 0:0.0 ------------------------------------------------------------------------- */

static void config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    struct i440fx *d = (struct i440fx *)pci;

    if (range_overlaps(offset, size, I440FX_PAM, PAM_REGISTERS)) {
        pam_update(&d->pam, &pci->config[I440FX_PAM]);
    }
    if (range_overlaps(offset, size, I440FX_SMRAM, 1)) {
        d->smram = pam_update_smram(&d->pam, d->smram, pci->config[I440FX_SMRAM]);
        pci->config[I440FX_SMRAM] = d->smram;
    }
}

static bool i440fx_realize(struct device *dev, struct error **errp)
{
    struct pci_device *pci = pci_device(dev);
    struct pci_host *host = pci_host_of(pci->bus);

    pam_init(&((struct i440fx *)pci)->pam, host->memory, host->ram, host->pci_memory, host->smm);
    for (unsigned i = 0; i < PAM_REGISTERS; i++) {
        pci->writable[I440FX_PAM + i] = i ? 0x33 : 0x30;
    }
    pci->writable[I440FX_SMRAM] = 0xff;
    return true;
}

static void i440fx_unrealize(struct device *dev)
{
    pam_destroy(&((struct i440fx *)dev)->pam);
}

static void i440fx_reset(struct device *dev)
{
    struct i440fx *d = (struct i440fx *)dev;
    uint8_t *config = d->pci.config;

    for (unsigned i = 0; i < PAM_REGISTERS; i++) {
        config[I440FX_PAM + i] = 0;
    }
    pam_update(&d->pam, &config[I440FX_PAM]);
    d->smram = config[I440FX_SMRAM] = pam_update_smram(&d->pam, 0, 0);
}

/* The configuration space has been loaded by the parent type. */
static bool i440fx_post_load(void *device, unsigned version)
{
    struct i440fx *d = device;

    d->smram = pam_update_smram(&d->pam, 0, d->smram);
    d->pci.config[I440FX_SMRAM] = d->smram;
    pam_update(&d->pam, &d->pci.config[I440FX_PAM]);
    return true;
}

static const struct vmstate_field i440fx_fields[] = {
    VMSTATE_SUB(struct i440fx, pci, pci_device_vmstate, 1),
    VMSTATE_UINT(struct i440fx, smram),
    VMSTATE_END,
};

static const struct vmstate i440fx_vmstate = {
    .name = "i440FX",
    .version = 1,
    .minimum_version = 1,
    .fields = i440fx_fields,
    .post_load = i440fx_post_load,
};

static const struct pci_device_class i440fx_class = {
    .vendor_id = 0x8086,
    .device_id = 0x1237,
    .revision = 2,
    .class_code = 0x060000,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .is_host_bridge = true,
    .config_written = config_written,
};

const struct device_type i440fx_type = {
    .name = "i440FX",
    .parent = &pci_device_type,
    .description = "Host bridge",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct i440fx),
    .internal = true,
    .class = &i440fx_class,
    .realize = i440fx_realize,
    .unrealize = i440fx_unrealize,
    .reset = i440fx_reset,
    .vmstate = &i440fx_vmstate,
};

struct pci_device *i440fx_new(const struct i440fx_config *config, struct pci_bus **bus,
                              struct error **errp)
{
    struct pci_host *host = (struct pci_host *)device_new(&i440fx_pcihost_type);

    host->memory = config->memory;
    host->io = config->io;
    host->ram = config->ram;
    host->pci_memory = config->pci_memory;
    host->smm = config->smm;
    if (!device_realize(&host->dev, system_bus(), errp)) {
        device_free(&host->dev);
        return NULL;
    }
    struct pci_device *pci = pci_device(device_new(&i440fx_type));
    pci->addr = PCI_DEVFN(0, 0);
    if (!device_realize(&pci->dev, &host->bus.bus, errp)) {
        device_free(&pci->dev);
        return NULL;
    }
    *bus = &host->bus;
    return pci;
}
