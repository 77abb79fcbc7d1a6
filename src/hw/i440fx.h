/* SPDX-License-Identifier: MIT */
/*
 * The i440FX host bridge (Intel 82441FX, "PMC"): PCI function 0:0.0, 8086:1237, with the
 * programmable attribute map (0x59-0x5f) and SMRAM control (0x72). Its PCI bus is "pci.0".
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_I440FX_H
#define FERRY_HW_I440FX_H

#include "pci/pci.h"

#define I440FX_PAM   0x59 /* seven registers */
#define I440FX_SMRAM 0x72

extern const struct device_type i440fx_pcihost_type; /* "i440FX-pcihost", owns the bus */
extern const struct device_type i440fx_type;         /* "i440FX", function 0:0.0 */

struct i440fx_config {
    struct mem_region *memory;     /* system memory: mem_root() */
    struct mem_region *io;         /* I/O ports: io_root() */
    struct mem_region *ram;        /* offset is guest address, at least the first MiB */
    struct mem_region *pci_memory; /* all memory that PCI sees; the firmware's copy below 1 MiB is
                                      in here, so that PAM can choose between it and RAM */
    struct mem_region *smm;        /* as in struct pam */
};

/* PCI lines of the bus go to piix3_set_irq() once PIIX3 is there. Stored in *bus: the root bus;
 * returned: function 0:0.0, or NULL. */
struct pci_device *i440fx_new(const struct i440fx_config *config, struct pci_bus **bus,
                              struct error **errp);

#endif
