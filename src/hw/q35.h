/* SPDX-License-Identifier: MIT */
/*
 * The Q35 memory controller hub (Intel 3 series / 82Q35 data sheet): PCI function 0:0.0, 8086:29c0,
 * with ECAM (PCIEXBAR 0x60), the programmable attribute map (0x90-0x96), SMRAM (0x9d) and TSEG
 * (0x9e). Its bus is "pcie.0".
 *
 * SMRAM and TSEG decide what the CPU sees outside of SMM: SMRAM open shows RAM at 0xa0000, closed shows
 * PCI; TSEG enabled hides the top of RAM. In SMM, where the machine has it, RAM shows at 0xa0000 if SMRAM
 * is enabled (with ESMRAMC's H_SMRAME at 0xfeda0000 instead), and the TSEG is RAM. D_CLS, which would
 * send data to PCI and code to RAM, changes nothing.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_Q35_H
#define FERRY_HW_Q35_H

#include "pci/pci.h"

#define Q35_PCIEXBAR 0x60 /* 64 bits: base, length 2:1 (0: 256, 1: 128, 2: 64 buses), enable 0 */
#define Q35_PAM      0x90 /* seven registers */
#define Q35_SMRAM    0x9d
#define Q35_ESMRAMC  0x9e

extern const struct device_type q35_pcihost_type; /* "q35-pcihost", owns the bus */
extern const struct device_type mch_type;         /* "mch", function 0:0.0 */

struct q35_config {
    struct mem_region *memory;     /* system memory: mem_root() */
    struct mem_region *io;         /* I/O ports: io_root() */
    struct mem_region *ram;        /* offset is guest address, below 4 GiB */
    struct mem_region *pci_memory; /* as in struct i440fx_config */
    uint64_t ram_below_4g;         /* bytes: TSEG is at its top */
    struct mem_region *smm;        /* as in struct pam */
};

/* As i440fx_new(). ECAM appears when PCIEXBAR is written. */
struct pci_device *q35_new(const struct q35_config *config, struct pci_bus **bus,
                           struct error **errp);

#endif
