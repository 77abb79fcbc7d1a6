/* SPDX-License-Identifier: MIT */
/*
 * PIIX3's ISA bridge (Intel 82371SB; PCI function 0:1.0, 8086:7000) and PIIX4's power management
 * function (82371AB; 0:1.3, 8086:7113).
 *
 * PIRQ A..D (registers 0x60-0x63: bit 7 off, bits 3:0 the ISA interrupt) take the four lines of the
 * PCI bus: pin p of slot s is line (s + p - 1) % 4, p from 0.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_PIIX_H
#define FERRY_HW_PIIX_H

#include "hw/gsi.h"
#include "pci/pci.h"

#define PIIX3_PIRQ_ROUTE 0x60 /* four registers */

#define PIIX4_PMBASE     0x40 /* bits 15:6 the base, bit 0 says I/O */
#define PIIX4_PMREGMISC  0x80 /* bit 0: PM I/O space enabled */
#define PIIX4_SMBUS_BASE 0x90
#define PIIX4_SCI_IRQ    9

extern const struct device_type piix3_type;    /* "PIIX3" */
extern const struct device_type piix4_pm_type; /* "PIIX4_PM" */

/* At 0:1.0, multifunction; takes over the lines of the bus, owns "isa.0" and port 0xcf9. */
struct pci_device *piix3_new(struct pci_bus *bus, struct gsi_state *gsi, struct error **errp);
struct bus *piix3_isa_bus(struct pci_device *piix3);
/* At 0:1.3. GPE0 is at PIIX4_GPE0_BASE always. */
struct pci_device *piix4_pm_new(struct pci_bus *bus, struct gsi_state *gsi, bool has_smm,
                                struct error **errp);

/* The line 0..3 (PIRQ A..D) of pin 0..3 of a slot, for _PRT. */
unsigned piix3_pirq_of(unsigned slot, unsigned pin);

#endif
