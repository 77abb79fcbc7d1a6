/* SPDX-License-Identifier: MIT */
#include "hw/ich9.h"

#include "accel/accel.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/pci_host.h"
#include "hw/pm.h"
#include "hw/reset_control.h"

#define PIRQ_COUNT 8
#define PIRQ_E     4
#define ROUTE_OFF  0x80
#define ROUTE_IRQ  0x0f
#define ROUTE_MASK (ROUTE_OFF | ROUTE_IRQ)

#define PMBASE_MASK      0xff80
#define PM_SIZE          128
#define ACPI_CNTL_ENABLE 0x80
#define ACPI_CNTL_SCI    0x07
#define GEN_PMCON_1      0xa0
#define PMCON_SMI_LOCK   0x0010
#define PM_SMI_EN        0x30
#define PM_SMI_STS       0x34
#define SMI_EN_GLOBAL    0x01u
#define SMI_EN_EOS       0x02u /* reads as set: SMI# may be asserted */
#define SMI_EN_APMC      0x20u
#define SMI_STS_APM      0x20u

#define RCBA_MASK     0xffffc000u
#define RCBA_ENABLE   1u
#define RCBA_SIZE     0x4000
#define RCBA_D31IR    0x3140 /* D31, D30, D29, D28, D27 two bytes apart */
#define RCBA_D26IR    0x314c
#define RCBA_D25IR    0x3150
#define RCBA_GCS      0x3410
#define GCS_NO_REBOOT 0x20   /* strapped: the TCO timer does not reboot */
#define IR_RESET      0x3210 /* pins 0..3: PIRQ A..D */
#define IR_MASK       0x7777

#define FIRST_INTERNAL_SLOT 25
#define INTERNAL_SLOTS      7

/* The PM I/O block has what ACPI says, and SMI_EN and SMI_STS. */
struct ich9_lpc {
    struct pci_device pci;
    /* constant after realize */
    struct gsi_state *gsi;
    struct mem_region *memory, *io;
    bool has_smm;
    uint8_t disable_s3, disable_s4; /* properties */
    struct isa_bus isa;
    /* machine state */
    struct acpi_pm pm;
    struct mem_region pm_block, smi_registers; /* at PMBASE, and in it */
    struct mem_region rcba;
    struct reset_control reset_control;
    uint32_t smi_enable, smi_status;
    uint16_t route[INTERNAL_SLOTS]; /* DnnIR of slots 25 to 31 */
    uint8_t pirq_level;             /* bit per PIRQ */
    uint32_t gsi_level;             /* wires that PIRQs hold high */
    uint8_t sci_level, sci_gsi;
};

/* ---- interrupt router ----------------------------------------------------------------------- */

static void update_irqs(struct ich9_lpc *d)
{
    uint32_t level = (uint32_t)d->pirq_level << ICH9_GSI_PIRQ_A;

    for (unsigned i = 0; i < PIRQ_COUNT; i++) {
        unsigned reg = i < PIRQ_E ? ICH9_PIRQA_ROUTE + i : ICH9_PIRQE_ROUTE + i - PIRQ_E;
        uint8_t route = d->pci.config[reg];
        if (d->pirq_level & 1u << i && !(route & ROUTE_OFF)) {
            level |= 1u << (route & ROUTE_IRQ);
        }
    }
    uint32_t changed = level ^ d->gsi_level;
    d->gsi_level = level;
    for (unsigned i = 0; i < GSI_COUNT; i++) {
        if (changed & 1u << i) {
            irq_set(&d->gsi->pirq[i], level >> i & 1);
        }
    }
}

static void set_irq(void *opaque, unsigned line, int level)
{
    struct ich9_lpc *d = opaque;
    uint8_t bit = (uint8_t)(1u << (line % PIRQ_COUNT));

    d->pirq_level = level ? d->pirq_level | bit : (uint8_t)(d->pirq_level & ~bit);
    update_irqs(d);
}

static unsigned pirq_of(const uint16_t route[INTERNAL_SLOTS], unsigned slot, unsigned pin)
{
    if (slot < FIRST_INTERNAL_SLOT) {
        return PIRQ_E + (slot + pin) % 4;
    }
    return route[slot - FIRST_INTERNAL_SLOT] >> (pin * 4) & 7;
}

unsigned ich9_pirq_of(unsigned slot, unsigned pin)
{
    static const uint16_t after_reset[INTERNAL_SLOTS] = {
        IR_RESET, IR_RESET, IR_RESET, IR_RESET, IR_RESET, IR_RESET, IR_RESET,
    };

    return pirq_of(after_reset, slot, pin);
}

static unsigned map_irq(void *opaque, uint8_t devfn, unsigned pin)
{
    const struct ich9_lpc *d = opaque;

    return pirq_of(d->route, PCI_SLOT(devfn), pin);
}

/* ---- SCI ------------------------------------------------------------------------------------ */

static uint8_t selected_sci(const struct ich9_lpc *d)
{
    static const uint8_t gsi[8] = {9, 10, 11, 9, 20, 21, 22, 23}; /* 3 is reserved */

    return gsi[d->pci.config[ICH9_ACPI_CNTL] & ACPI_CNTL_SCI];
}

static void set_sci(void *opaque, int level)
{
    struct ich9_lpc *d = opaque;

    d->sci_level = level != 0;
    irq_set(&d->gsi->sci[d->sci_gsi], level);
}

static void update_sci_route(struct ich9_lpc *d)
{
    uint8_t gsi = selected_sci(d);

    if (gsi != d->sci_gsi) {
        irq_set(&d->gsi->sci[d->sci_gsi], 0);
        d->sci_gsi = gsi;
        irq_set(&d->gsi->sci[gsi], d->sci_level);
    }
}

/* ---- PM block ------------------------------------------------------------------------------- */

/* SMI_EN and SMI_STS (ICH9 13.8.3.9 and 13.8.3.10). Without SMM no SMI is ever sent; APMC_EN reads as set,
 * which firmware takes for "already set up". */
static uint64_t smi_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct ich9_lpc *d = opaque;

    uint32_t value = offset < 4 ? d->smi_enable | (d->has_smm ? SMI_EN_EOS : 0) : d->smi_status;

    return value >> (offset % 4 * 8);
}

static void smi_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct ich9_lpc *d = opaque;
    bool is_locked = load_le16(&d->pci.config[GEN_PMCON_1]) & PMCON_SMI_LOCK;
    unsigned shift = (unsigned)(offset % 4 * 8);
    uint32_t mask = (uint32_t)(UINT64_MAX >> (64 - size * 8) << shift);
    uint32_t bits = (uint32_t)(value << shift) & mask;

    if (offset < 4) {
        mask &= is_locked ? ~SMI_EN_GLOBAL : UINT32_MAX;
        d->smi_enable = (d->smi_enable & ~mask) | (bits & mask);
    } else {
        d->smi_status &= ~bits; /* ones clear */
    }
}

static void smi_command(void *opaque)
{
    struct ich9_lpc *d = opaque;

    if (d->has_smm && d->smi_enable & SMI_EN_APMC && d->smi_enable & SMI_EN_GLOBAL) {
        d->smi_status |= SMI_STS_APM;
        accel_raise_smi();
    }
}

static const struct mem_region_ops smi_ops = {
    .read = smi_read,
    .write = smi_write,
    .valid = {.min = 1, .max = 4},
};

static void update_pm_base(struct ich9_lpc *d)
{
    uint16_t base = load_le16(&d->pci.config[ICH9_PMBASE]) & PMBASE_MASK;

    mem_transaction_begin();
    mem_region_set_enabled(&d->pm_block, d->pci.config[ICH9_ACPI_CNTL] & ACPI_CNTL_ENABLE && base);
    mem_region_set_offset(&d->pm_block, base);
    mem_transaction_commit();
}

/* ---- RCBA ----------------------------------------------------------------------------------- */

/* The slot's DnnIR at an offset, or NULL. */
static uint16_t *route_register(struct ich9_lpc *d, uint64_t offset)
{
    switch (offset) {
    case RCBA_D31IR:
    case RCBA_D31IR + 2:
    case RCBA_D31IR + 4:
    case RCBA_D31IR + 6:
    case RCBA_D31IR + 8:
        return &d->route[31 - (offset - RCBA_D31IR) / 2 - FIRST_INTERNAL_SLOT];
    case RCBA_D26IR:
        return &d->route[26 - FIRST_INTERNAL_SLOT];
    case RCBA_D25IR:
        return &d->route[25 - FIRST_INTERNAL_SLOT];
    default:
        return NULL;
    }
}

static uint64_t rcba_read(void *opaque, uint64_t offset, unsigned size)
{
    const uint16_t *route = route_register(opaque, offset);

    return route ? *route : offset == RCBA_GCS ? GCS_NO_REBOOT : 0;
}

/* A function whose INTx is high keeps its old line until it lowers it. */
static void rcba_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    uint16_t *route = route_register(opaque, offset);

    if (route) {
        *route = value & IR_MASK;
    }
}

static const struct mem_region_ops rcba_ops = {
    .read = rcba_read,
    .write = rcba_write,
    .valid = {.min = 1, .max = 4},
    .impl = {.min = 2, .max = 2},
};

static void update_rcba(struct ich9_lpc *d)
{
    uint32_t value = load_le32(&d->pci.config[ICH9_RCBA]);

    mem_transaction_begin();
    mem_region_set_enabled(&d->rcba, value & RCBA_ENABLE);
    mem_region_set_offset(&d->rcba, value & RCBA_MASK);
    mem_transaction_commit();
}

/* ---- function 0:1f.0 ------------------------------------------------------------------------ */

/* SMI_LOCK stays set until RESET. */
static void lock_smi(struct ich9_lpc *d)
{
    uint16_t locked = load_le16(&d->pci.config[GEN_PMCON_1]) & PMCON_SMI_LOCK;

    store_le16(&d->pci.writable[GEN_PMCON_1], (uint16_t)~locked);
}

static void config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    struct ich9_lpc *d = (struct ich9_lpc *)pci;

    if (range_overlaps(offset, size, ICH9_PMBASE, 5)) {
        update_sci_route(d);
        update_pm_base(d);
    }
    if (range_overlaps(offset, size, ICH9_PIRQA_ROUTE, ICH9_PIRQE_ROUTE + 4 - ICH9_PIRQA_ROUTE)) {
        update_irqs(d);
    }
    if (range_overlaps(offset, size, ICH9_RCBA, 4)) {
        update_rcba(d);
    }
    if (range_overlaps(offset, size, GEN_PMCON_1, 2)) {
        lock_smi(d);
    }
}

static void init_config(struct ich9_lpc *d)
{
    uint8_t *writable = d->pci.writable;

    store_le16(&writable[ICH9_PMBASE], PMBASE_MASK);
    writable[ICH9_ACPI_CNTL] = ACPI_CNTL_ENABLE | ACPI_CNTL_SCI;
    for (unsigned i = 0; i < 4; i++) {
        writable[ICH9_PIRQA_ROUTE + i] = ROUTE_MASK;
        writable[ICH9_PIRQE_ROUTE + i] = ROUTE_MASK;
    }
    store_le16(&writable[GEN_PMCON_1], 0xffff);
    store_le32(&writable[ICH9_RCBA], RCBA_MASK | RCBA_ENABLE);
}

static bool lpc_realize(struct device *dev, struct error **errp)
{
    struct ich9_lpc *d = (struct ich9_lpc *)dev;
    struct pci_host *host = pci_host_of(d->pci.bus);
    struct pci_irq_router router = {map_irq, set_irq, d};
    struct acpi_pm_config config = {
        .set_sci = set_sci,
        .smi_command = smi_command,
        .opaque = d,
        .io = host->io,
        .enable_command = ICH9_ACPI_ENABLE,
        .disable_command = ICH9_ACPI_DISABLE,
        .gpe_length = ICH9_GPE0_LENGTH,
    };

    d->io = host->io;
    d->sci_gsi = ICH9_SCI_IRQ;
    init_config(d);
    mem_region_init_container(&d->pm_block, "ich9-pm", PM_SIZE);
    mem_region_init_io(&d->smi_registers, "ich9-smi", 8, &smi_ops, d);
    mem_region_init_io(&d->rcba, "lpc-rcrb-mmio", RCBA_SIZE, &rcba_ops, d);
    mem_transaction_begin();
    acpi_pm_init(&d->pm, &config);
    acpi_pm_add_registers(&d->pm, &d->pm_block);
    mem_region_add(&d->pm_block, ICH9_GPE0_OFFSET, &d->pm.gpe);
    mem_region_add(&d->pm_block, PM_SMI_EN, &d->smi_registers);
    mem_region_set_enabled(&d->pm_block, false);
    mem_region_set_enabled(&d->rcba, false);
    mem_region_add_overlap(d->io, 0, &d->pm_block, 1);
    mem_region_add_overlap(d->memory, 0, &d->rcba, 1);
    mem_transaction_commit();
    isa_bus_init(&d->isa, dev, d->memory, d->io, d->gsi->line);
    reset_control_init(&d->reset_control, d->io, &host->mechanism1.address_port);
    pci_host_set_router(d->pci.bus, &router);
    return true;
}

static void lpc_unrealize(struct device *dev)
{
    struct ich9_lpc *d = (struct ich9_lpc *)dev;
    struct pci_irq_router none = {0};

    pci_host_set_router(d->pci.bus, &none);
    reset_control_destroy(&d->reset_control);
    isa_bus_destroy(&d->isa);
    mem_transaction_begin();
    mem_region_remove(d->io, &d->pm_block);
    mem_region_remove(d->memory, &d->rcba);
    mem_region_remove(&d->pm_block, &d->pm.gpe);
    mem_region_remove(&d->pm_block, &d->smi_registers);
    mem_transaction_commit();
    acpi_pm_destroy(&d->pm, &d->pm_block);
    mem_region_destroy(&d->smi_registers);
    mem_region_destroy(&d->pm_block);
    mem_region_destroy(&d->rcba);
}

static void lpc_reset(struct device *dev)
{
    struct ich9_lpc *d = (struct ich9_lpc *)dev;
    uint8_t *config = d->pci.config;

    store_le32(&config[ICH9_PMBASE], 1); /* bit 0: it is I/O */
    config[ICH9_ACPI_CNTL] = 0;
    for (unsigned i = 0; i < 4; i++) {
        config[ICH9_PIRQA_ROUTE + i] = config[ICH9_PIRQE_ROUTE + i] = ROUTE_OFF;
    }
    store_le16(&config[GEN_PMCON_1], 0);
    store_le32(&config[ICH9_RCBA], 0);
    for (unsigned i = 0; i < INTERNAL_SLOTS; i++) {
        d->route[i] = IR_RESET;
    }
    d->smi_enable = d->has_smm ? 0 : SMI_EN_APMC;
    d->smi_status = 0;
    store_le16(&d->pci.writable[GEN_PMCON_1], 0xffff);
    d->reset_control.value = 0;
    acpi_pm_reset(&d->pm);
    update_sci_route(d);
    update_irqs(d);
    mem_transaction_begin();
    update_pm_base(d);
    update_rcba(d);
    mem_transaction_commit();
}

static bool lpc_post_load(void *device, unsigned version)
{
    struct ich9_lpc *d = device;

    if (d->sci_gsi != selected_sci(d)) {
        return false;
    }
    d->sci_level = d->sci_level != 0;
    for (unsigned i = 0; i < INTERNAL_SLOTS; i++) {
        d->route[i] &= IR_MASK;
    }
    lock_smi(d);
    mem_transaction_begin();
    update_pm_base(d);
    update_rcba(d);
    mem_transaction_commit();
    return true;
}

/* The firmware tables have neither state, so only 1 is true. */
static const struct property lpc_props[] = {
    PROPERTY_UINT8("disable_s3", struct ich9_lpc, disable_s3, 1, 1, 1, "no suspend to memory"),
    PROPERTY_UINT8("disable_s4", struct ich9_lpc, disable_s4, 1, 1, 1, "no suspend to disk"),
    PROPERTY_END,
};

static const struct vmstate_field lpc_fields[] = {
    VMSTATE_SUB(struct ich9_lpc, pci, pci_device_vmstate, 1),
    VMSTATE_SUB(struct ich9_lpc, pm, acpi_pm_vmstate, 1),
    VMSTATE_UINT(struct ich9_lpc, reset_control.value),
    VMSTATE_UINT(struct ich9_lpc, smi_enable),
    VMSTATE_UINT(struct ich9_lpc, smi_status),
    VMSTATE_ARRAY(struct ich9_lpc, route),
    VMSTATE_UINT(struct ich9_lpc, pirq_level),
    VMSTATE_UINT(struct ich9_lpc, gsi_level),
    VMSTATE_UINT(struct ich9_lpc, sci_level),
    VMSTATE_UINT(struct ich9_lpc, sci_gsi),
    VMSTATE_END,
};

static const struct vmstate lpc_vmstate = {
    .name = "ICH9-LPC",
    .version = 1,
    .minimum_version = 1,
    .fields = lpc_fields,
    .post_load = lpc_post_load,
};

static const struct pci_device_class lpc_class = {
    .vendor_id = 0x8086,
    .device_id = 0x2918,
    .revision = 2,
    .class_code = 0x060100,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .config_written = config_written,
};

const struct device_type ich9_lpc_type = {
    .name = "ICH9-LPC",
    .parent = &pci_device_type,
    .description = "ICH9 LPC bridge",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct ich9_lpc),
    .internal = true,
    .props = lpc_props,
    .class = &lpc_class,
    .realize = lpc_realize,
    .unrealize = lpc_unrealize,
    .reset = lpc_reset,
    .vmstate = &lpc_vmstate,
};

struct pci_device *ich9_lpc_new(struct pci_bus *bus, struct mem_region *memory,
                                struct gsi_state *gsi, bool has_smm, struct error **errp)
{
    struct ich9_lpc *d = (struct ich9_lpc *)device_new(&ich9_lpc_type);

    d->gsi = gsi;
    d->memory = memory;
    d->has_smm = has_smm;
    d->pci.addr = PCI_DEVFN(31, 0);
    d->pci.multifunction = true;
    if (!device_realize(&d->pci.dev, &bus->bus, errp)) {
        device_free(&d->pci.dev);
        return NULL;
    }
    return &d->pci;
}

struct bus *ich9_isa_bus(struct pci_device *lpc)
{
    return &((struct ich9_lpc *)lpc)->isa.bus;
}
