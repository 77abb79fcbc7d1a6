/* SPDX-License-Identifier: MIT */
/*
 * PIIX4's function 3 (82371AB, chapter 7): ACPI registers at PMBASE while PMREGMISC says so, and the SMI
 * of APMC writes. In a machine without SMM APMC's enable bit reads as set: firmware takes that as "SMM is
 * already set up".
 */
#include "accel/accel.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/vmstate.h"
#include "hw/pci_host.h"
#include "hw/piix.h"
#include "hw/pm.h"
#include "mem/address_space.h"

#define PM_SIZE         64
#define PMBASE_MASK     0xffc0
#define DEVACTB         0x58
#define DEVACTB_APMC_EN 0x02 /* of its highest byte */
#define GLBSTS          0x18
#define GLBSTS_APM      0x20 /* APM_STS: the SMI came from APMC */
#define GLBCTL          0x28
#define GLBCTL_SMI_EN   0x00000001u
#define GLBCTL_EOS      0x00010000u /* reads as set: SMI# may be asserted */
#define GLBCTL_KEPT     0x0000ff01u

struct piix4_pm {
    struct pci_device pci;
    /* constant after realize */
    struct gsi_state *gsi;
    struct mem_region *io;
    bool has_smm;
    uint8_t disable_s3, disable_s4; /* properties */
    /* machine state */
    struct acpi_pm pm;
    struct mem_region registers; /* at PMBASE */
    struct mem_region global_status, global_control;
    uint16_t status;
    uint32_t control;
};

static void set_sci(void *opaque, int level)
{
    struct piix4_pm *d = opaque;

    irq_set(&d->gsi->sci[PIIX4_SCI_IRQ], level);
}

/* ---- SMI: GLBSTS, GLBCTL (82371AB, 7.2) -------------------------------------------------------- */

static void smi_command(void *opaque)
{
    struct piix4_pm *d = opaque;

    if (d->has_smm && d->pci.config[DEVACTB + 3] & DEVACTB_APMC_EN && d->control & GLBCTL_SMI_EN) {
        d->status |= GLBSTS_APM;
        accel_raise_smi();
    }
}

static uint64_t status_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct piix4_pm *)opaque)->status >> (offset * 8);
}

static void status_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    ((struct piix4_pm *)opaque)->status &= (uint16_t) ~(value << (offset * 8)); /* ones clear */
}

static const struct mem_region_ops status_ops = {
    .read = status_read,
    .write = status_write,
    .valid = {.min = 1, .max = 2},
};

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct piix4_pm *)opaque)->control | GLBCTL_EOS;
}

static void control_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    ((struct piix4_pm *)opaque)->control = (uint32_t)value & GLBCTL_KEPT;
}

static const struct mem_region_ops control_ops = {
    .read = control_read,
    .write = control_write,
    .valid = {.min = 1, .max = 4},
    .impl = {.min = 4, .max = 4},
};

/* ---- function 3 -------------------------------------------------------------------------------- */

static void update_base(struct piix4_pm *d)
{
    uint16_t base = load_le16(&d->pci.config[PIIX4_PMBASE]) & PMBASE_MASK;

    mem_transaction_begin();
    mem_region_set_enabled(&d->registers, d->pci.config[PIIX4_PMREGMISC] & 1 && base);
    mem_region_set_offset(&d->registers, base);
    mem_transaction_commit();
}

static void config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    if (range_overlaps(offset, size, PIIX4_PMBASE, 4) ||
        range_overlaps(offset, size, PIIX4_PMREGMISC, 1)) {
        update_base((struct piix4_pm *)pci);
    }
}

static bool piix4_pm_realize(struct device *dev, struct error **errp)
{
    struct piix4_pm *d = (struct piix4_pm *)dev;
    struct acpi_pm_config config = {
        .set_sci = set_sci,
        .smi_command = smi_command,
        .opaque = d,
        .io = pci_host_of(d->pci.bus)->io,
        .enable_command = PIIX4_ACPI_ENABLE,
        .disable_command = PIIX4_ACPI_DISABLE,
        .gpe_length = PIIX4_GPE0_LENGTH,
    };

    d->io = config.io;
    pci_set_interrupt_pin(&d->pci, 1);
    store_le16(&d->pci.writable[PIIX4_PMBASE], PMBASE_MASK);
    d->pci.writable[PIIX4_PMREGMISC] = 0x01;
    for (unsigned i = 0; i < 4; i++) {
        d->pci.writable[DEVACTB + i] = 0xff;
    }
    store_le16(&d->pci.writable[PIIX4_SMBUS_BASE], 0xfff0);
    mem_region_init_container(&d->registers, "piix4-pm", PM_SIZE);
    acpi_pm_init(&d->pm, &config);
    acpi_pm_add_registers(&d->pm, &d->registers);
    mem_region_init_io(&d->global_status, "piix4-glbsts", 2, &status_ops, d);
    mem_region_init_io(&d->global_control, "piix4-glbctl", 4, &control_ops, d);
    mem_region_add(&d->registers, GLBSTS, &d->global_status);
    mem_region_add(&d->registers, GLBCTL, &d->global_control);
    mem_region_set_enabled(&d->registers, false);
    mem_region_add_overlap(d->io, 0, &d->registers, 1);
    mem_region_add(d->io, PIIX4_GPE0_BASE, &d->pm.gpe);
    return true;
}

static void piix4_pm_unrealize(struct device *dev)
{
    struct piix4_pm *d = (struct piix4_pm *)dev;

    mem_region_remove(d->io, &d->registers);
    mem_region_remove(d->io, &d->pm.gpe);
    mem_region_remove(&d->registers, &d->global_status);
    mem_region_remove(&d->registers, &d->global_control);
    acpi_pm_destroy(&d->pm, &d->registers);
    mem_region_destroy(&d->global_status);
    mem_region_destroy(&d->global_control);
    mem_region_destroy(&d->registers);
}

static void piix4_pm_reset(struct device *dev)
{
    struct piix4_pm *d = (struct piix4_pm *)dev;
    uint8_t *config = d->pci.config;

    store_le32(&config[PIIX4_PMBASE], 1); /* bit 0: it is I/O */
    config[PIIX4_PMREGMISC] = 0;
    store_le32(&config[DEVACTB], d->has_smm ? 0 : (uint32_t)DEVACTB_APMC_EN << 24);
    d->status = 0;
    d->control = 0;
    store_le32(&config[PIIX4_SMBUS_BASE], 1);
    update_base(d);
    acpi_pm_reset(&d->pm);
}

static bool piix4_pm_post_load(void *device, unsigned version)
{
    update_base(device);
    return true;
}

/* The firmware tables have neither state, so only 1 is true. */
static const struct property piix4_pm_props[] = {
    PROPERTY_UINT8("disable_s3", struct piix4_pm, disable_s3, 1, 1, 1, "no suspend to memory"),
    PROPERTY_UINT8("disable_s4", struct piix4_pm, disable_s4, 1, 1, 1, "no suspend to disk"),
    PROPERTY_END,
};

static const struct vmstate_field piix4_pm_fields[] = {
    VMSTATE_SUB(struct piix4_pm, pci, pci_device_vmstate, 1),
    VMSTATE_SUB(struct piix4_pm, pm, acpi_pm_vmstate, 1),
    VMSTATE_UINT(struct piix4_pm, status),
    VMSTATE_UINT(struct piix4_pm, control),
    VMSTATE_END,
};

static const struct vmstate piix4_pm_vmstate = {
    .name = "PIIX4_PM",
    .version = 1,
    .minimum_version = 1,
    .fields = piix4_pm_fields,
    .post_load = piix4_pm_post_load,
};

static const struct pci_device_class piix4_pm_class = {
    .vendor_id = 0x8086,
    .device_id = 0x7113,
    .revision = 3,
    .class_code = 0x068000,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .config_written = config_written,
};

const struct device_type piix4_pm_type = {
    .name = "PIIX4_PM",
    .parent = &pci_device_type,
    .description = "PM",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct piix4_pm),
    .internal = true,
    .props = piix4_pm_props,
    .class = &piix4_pm_class,
    .realize = piix4_pm_realize,
    .unrealize = piix4_pm_unrealize,
    .reset = piix4_pm_reset,
    .vmstate = &piix4_pm_vmstate,
};

struct pci_device *piix4_pm_new(struct pci_bus *bus, struct gsi_state *gsi, bool has_smm,
                                struct error **errp)
{
    struct piix4_pm *d = (struct piix4_pm *)device_new(&piix4_pm_type);

    d->gsi = gsi;
    d->has_smm = has_smm;
    d->pci.addr = PCI_DEVFN(1, 3);
    if (!device_realize(&d->pci.dev, &bus->bus, errp)) {
        device_free(&d->pci.dev);
        return NULL;
    }
    return &d->pci;
}
