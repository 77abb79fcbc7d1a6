/* SPDX-License-Identifier: MIT */
#include "hw/q35.h"

#include "base/bytes.h"
#include "base/range.h"
#include "device/vmstate.h"
#include "hw/pam.h"
#include "hw/pci_host.h"

#define PCI_LINES 8 /* PIRQ A..H */

#define PCIEXBAR_ENABLE  1u
#define PCIEXBAR_LENGTH  6u
#define PCIEXBAR_ADDRESS UINT64_C(0xffc000000) /* bits 35:26 */
#define ECAM_BUSES_MAX   256

#define EXT_TSEG         0x50 /* two bytes: MiB of a TSEG of size code 3 */
#define EXT_TSEG_QUERY   0xffff
#define ESMRAMC_T_EN     0x01
#define ESMRAMC_SIZE     0x06
#define ESMRAMC_CACHE    0x38 /* SM_CACHE, SM_L1, SM_L2: always set */
#define ESMRAMC_H_SMRAME 0x80
#define LOW_SMRAM        0xa0000
#define HIGH_SMRAM       0xfeda0000
#define SMRAM_SIZE       0x20000
#define ESMRAMC_WRITABLE (ESMRAMC_T_EN | ESMRAMC_SIZE | ESMRAMC_H_SMRAME)

struct mch {
    struct pci_device pci;
    /* properties */
    uint16_t ext_tseg_mbytes;
    /* constant after realize */
    struct mem_region *memory;
    struct mem_region *smm; /* as in struct pam */
    uint64_t ram_below_4g;
    /* machine state */
    struct pam pam;
    struct pci_ecam ecam;
    struct mem_region tseg;      /* hides the top of RAM */
    struct mem_region tseg_ram;  /* shows it in SMM */
    struct mem_region high_ram;  /* 0xa0000 at 0xfeda0000, in SMM */
    struct mem_region high_open; /* and outside of it */
    uint8_t smram, esmramc;
};

/* ---- the bus -------------------------------------------------------------------------------- */

static bool pcihost_realize(struct device *dev, struct error **errp)
{
    pci_host_init_bus((struct pci_host *)dev, "pcie.0", true, PCI_LINES);
    return true;
}

const struct device_type q35_pcihost_type = {
    .name = "q35-pcihost",
    .parent = &pci_host_type,
    .description = "Q35 root bus",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct pci_host),
    .internal = true,
    .realize = pcihost_realize,
    .unrealize = pci_host_destroy_bus,
};

/* ---- ECAM ----------------------------------------------------------------------------------- */

/* Length codes 0, 1, 2: 256, 128, 64 buses; address bits below the size are not there. */
static void update_ecam(struct mch *d)
{
    uint64_t bar = load_le64(&d->pci.config[Q35_PCIEXBAR]);
    unsigned length = (unsigned)(bar & PCIEXBAR_LENGTH) >> 1;
    bool enabled = bar & PCIEXBAR_ENABLE && length != 3;
    uint64_t size = (ECAM_BUSES_MAX * MiB) >> (length % 3);
    uint64_t address = bar & PCIEXBAR_ADDRESS & ~(size - 1);

    mem_transaction_begin();
    mem_region_set_enabled(&d->ecam.region, enabled);
    mem_region_set_size(&d->ecam.region, size);
    mem_region_set_offset(&d->ecam.region, address);
    mem_transaction_commit();
}

/* ---- TSEG ----------------------------------------------------------------------------------- */

static uint64_t tseg_read(void *opaque, uint64_t offset, unsigned size)
{
    return UINT64_MAX;
}

static void tseg_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mem_region_ops tseg_ops = {
    .read = tseg_read,
    .write = tseg_write,
    .valid = {.min = 1, .max = 8, .unaligned = true},
    .impl = {.min = 1, .max = 8, .unaligned = true},
    .lockless = true,
};

static uint64_t tseg_size(const struct mch *d)
{
    switch ((d->esmramc & ESMRAMC_SIZE) >> 1) {
    case 0:
        return 1 * MiB;
    case 1:
        return 2 * MiB;
    case 2:
        return 8 * MiB;
    default:
        return d->ext_tseg_mbytes * MiB;
    }
}

static void update_tseg(struct mch *d)
{
    uint64_t size = MIN(tseg_size(d), d->ram_below_4g);
    bool enabled = d->esmramc & ESMRAMC_T_EN && d->smram & PAM_SMRAM_ENABLE && size;

    mem_transaction_begin();
    mem_region_set_enabled(&d->tseg, enabled);
    if (d->smm) {
        mem_region_set_enabled(&d->tseg_ram, enabled);
    }
    if (enabled) {
        mem_region_set_size(&d->tseg, size);
        mem_region_set_offset(&d->tseg, d->ram_below_4g - size);
        if (d->smm) {
            mem_region_set_size(&d->tseg_ram, size);
            mem_region_set_alias_offset(&d->tseg_ram, d->ram_below_4g - size);
            mem_region_set_offset(&d->tseg_ram, d->ram_below_4g - size);
        }
    }
    mem_transaction_commit();
}

/* H_SMRAME moves compatible SMRAM up: what is at 0xa0000 then is PCI in SMM, too. */
static void update_high(struct mch *d)
{
    bool is_high = d->esmramc & ESMRAMC_H_SMRAME && d->smram & PAM_SMRAM_ENABLE;

    if (!d->smm) {
        return;
    }
    mem_transaction_begin();
    mem_region_set_enabled(&d->high_ram, is_high);
    mem_region_set_enabled(&d->high_open, is_high && d->smram & PAM_SMRAM_OPEN);
    mem_region_set_enabled(&d->pam.smram_ram, !is_high && d->smram & PAM_SMRAM_ENABLE);
    mem_region_set_enabled(&d->pam.smram.container, is_high || !(d->smram & PAM_SMRAM_OPEN));
    mem_transaction_commit();
}

/* ---- function 0:0.0 ------------------------------------------------------------------------- */

static void write_smram(struct mch *d)
{
    uint8_t *config = d->pci.config;
    bool locked = d->smram & PAM_SMRAM_LOCK;

    d->smram = pam_update_smram(&d->pam, d->smram, config[Q35_SMRAM]);
    config[Q35_SMRAM] = d->smram;
    if (!locked) {
        d->esmramc = (config[Q35_ESMRAMC] & ESMRAMC_WRITABLE) | ESMRAMC_CACHE;
    }
    config[Q35_ESMRAMC] = d->esmramc;
    update_tseg(d);
    update_high(d);
}

/* Firmware writes all ones to ask for the size. */
static void write_ext_tseg(struct mch *d)
{
    uint8_t *reg = &d->pci.config[EXT_TSEG];

    if (load_le16(reg) == EXT_TSEG_QUERY) {
        store_le16(reg, d->ext_tseg_mbytes);
    }
}

static void config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    struct mch *d = (struct mch *)pci;

    if (range_overlaps(offset, size, Q35_PCIEXBAR, 8)) {
        update_ecam(d);
    }
    if (range_overlaps(offset, size, Q35_PAM, PAM_REGISTERS)) {
        pam_update(&d->pam, &pci->config[Q35_PAM]);
    }
    if (range_overlaps(offset, size, Q35_SMRAM, 2)) {
        write_smram(d);
    }
    if (range_overlaps(offset, size, EXT_TSEG, 2)) {
        write_ext_tseg(d);
    }
}

static void init_smm(struct mch *d, struct mem_region *ram)
{
    mem_region_init_alias(&d->tseg_ram, "tseg-window", ram, 0, MiB);
    mem_region_init_alias(&d->high_ram, "smram-high", ram, LOW_SMRAM, SMRAM_SIZE);
    mem_region_init_alias(&d->high_open, "smram-high-open", ram, LOW_SMRAM, SMRAM_SIZE);
    mem_region_set_enabled(&d->tseg_ram, false);
    mem_region_set_enabled(&d->high_ram, false);
    mem_region_set_enabled(&d->high_open, false);
    mem_region_add(d->smm, 0, &d->tseg_ram);
    mem_region_add(d->smm, HIGH_SMRAM, &d->high_ram);
    mem_region_add_overlap(d->memory, HIGH_SMRAM, &d->high_open, 1);
}

static void remove_smm(struct mch *d)
{
    mem_region_remove(d->smm, &d->tseg_ram);
    mem_region_remove(d->smm, &d->high_ram);
    mem_region_remove(d->memory, &d->high_open);
}

static bool mch_realize(struct device *dev, struct error **errp)
{
    struct mch *d = (struct mch *)dev;
    struct pci_host *host = pci_host_of(d->pci.bus);
    uint8_t *writable = d->pci.writable;

    d->memory = host->memory;
    d->smm = host->smm;
    store_le64(&writable[Q35_PCIEXBAR], PCIEXBAR_ADDRESS | PCIEXBAR_LENGTH | PCIEXBAR_ENABLE);
    for (unsigned i = 0; i < PAM_REGISTERS; i++) {
        writable[Q35_PAM + i] = i ? 0x33 : 0x30;
    }
    writable[Q35_SMRAM] = writable[Q35_ESMRAMC] = 0xff;
    store_le16(&writable[EXT_TSEG], d->ext_tseg_mbytes ? 0xffff : 0);
    pam_init(&d->pam, host->memory, host->ram, host->pci_memory, host->smm);
    pci_ecam_init(&d->ecam, d->pci.bus, ECAM_BUSES_MAX);
    mem_region_init_io(&d->tseg, "tseg-blackhole", MiB, &tseg_ops, d);
    mem_transaction_begin();
    mem_region_set_enabled(&d->ecam.region, false);
    mem_region_set_enabled(&d->tseg, false);
    mem_region_add_overlap(d->memory, 0, &d->ecam.region, 2);
    mem_region_add_overlap(d->memory, 0, &d->tseg, 1);
    if (d->smm) {
        init_smm(d, host->ram);
    }
    mem_transaction_commit();
    return true;
}

static void mch_unrealize(struct device *dev)
{
    struct mch *d = (struct mch *)dev;

    mem_transaction_begin();
    mem_region_remove(d->memory, &d->ecam.region);
    mem_region_remove(d->memory, &d->tseg);
    if (d->smm) {
        remove_smm(d);
    }
    mem_transaction_commit();
    if (d->smm) {
        mem_region_destroy(&d->tseg_ram);
        mem_region_destroy(&d->high_ram);
        mem_region_destroy(&d->high_open);
    }
    pci_ecam_destroy(&d->ecam);
    mem_region_destroy(&d->tseg);
    pam_destroy(&d->pam);
}

static void mch_reset(struct device *dev)
{
    struct mch *d = (struct mch *)dev;
    uint8_t *config = d->pci.config;

    store_le64(&config[Q35_PCIEXBAR], 0);
    for (unsigned i = 0; i < PAM_REGISTERS; i++) {
        config[Q35_PAM + i] = 0;
    }
    store_le16(&config[EXT_TSEG], 0);
    config[Q35_SMRAM] = config[Q35_ESMRAMC] = 0;
    d->smram = 0;
    mem_transaction_begin();
    update_ecam(d);
    pam_update(&d->pam, &config[Q35_PAM]);
    write_smram(d);
    mem_transaction_commit();
}

static bool mch_post_load(void *device, unsigned version)
{
    struct mch *d = device;
    uint8_t *config = d->pci.config;

    mem_transaction_begin();
    update_ecam(d);
    pam_update(&d->pam, &config[Q35_PAM]);
    d->smram = pam_update_smram(&d->pam, 0, d->smram);
    d->esmramc = (d->esmramc & ESMRAMC_WRITABLE) | ESMRAMC_CACHE;
    config[Q35_SMRAM] = d->smram;
    config[Q35_ESMRAMC] = d->esmramc;
    update_tseg(d);
    update_high(d);
    mem_transaction_commit();
    return true;
}

static const struct property mch_props[] = {
    PROPERTY_UINT16("extended-tseg-mbytes", struct mch, ext_tseg_mbytes, 16, 0, 0xfff,
                    "size of an extended TSEG"),
    PROPERTY_END,
};

static const struct vmstate_field mch_fields[] = {
    VMSTATE_SUB(struct mch, pci, pci_device_vmstate, 1),
    VMSTATE_UINT(struct mch, smram),
    VMSTATE_UINT(struct mch, esmramc),
    VMSTATE_END,
};

static const struct vmstate mch_vmstate = {
    .name = "mch",
    .version = 1,
    .minimum_version = 1,
    .fields = mch_fields,
    .post_load = mch_post_load,
};

static const struct pci_device_class mch_class = {
    .vendor_id = 0x8086,
    .device_id = 0x29c0,
    .class_code = 0x060000,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .is_host_bridge = true,
    .config_written = config_written,
};

const struct device_type mch_type = {
    .name = "mch",
    .parent = &pci_device_type,
    .description = "Host bridge",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct mch),
    .internal = true,
    .props = mch_props,
    .class = &mch_class,
    .realize = mch_realize,
    .unrealize = mch_unrealize,
    .reset = mch_reset,
    .vmstate = &mch_vmstate,
};

struct pci_device *q35_new(const struct q35_config *config, struct pci_bus **bus,
                           struct error **errp)
{
    struct pci_host *host = (struct pci_host *)device_new(&q35_pcihost_type);

    host->memory = config->memory;
    host->io = config->io;
    host->ram = config->ram;
    host->pci_memory = config->pci_memory;
    host->smm = config->smm;
    if (!device_realize(&host->dev, system_bus(), errp)) {
        device_free(&host->dev);
        return NULL;
    }
    struct mch *d = (struct mch *)device_new(&mch_type);
    d->ram_below_4g = config->ram_below_4g;
    d->pci.addr = PCI_DEVFN(0, 0);
    if (!device_realize(&d->pci.dev, &host->bus.bus, errp)) {
        device_free(&d->pci.dev);
        return NULL;
    }
    *bus = &host->bus;
    return &d->pci;
}
