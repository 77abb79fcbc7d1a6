/* SPDX-License-Identifier: MIT */
/*
 * The ICH9 LPC bridge (Intel ICH9 data sheet, chapter 13): PCI function 0:1f.0, 8086:2918, with the
 * ISA bus, PIRQ router, ACPI registers, RCBA and port 0xcf9.
 *
 *   pin --> PIRQ:  slots 0..24   PIRQ E..H, rotated: 4 + (slot + pin) % 4
 *                  slots 25..31  the DnnIR registers of RCBA, after reset pin 0..3 -> PIRQ A..D
 *   PIRQ -> IOAPIC pin 16 + PIRQ, always
 *        -> ISA interrupt of registers 0x60-0x63 (A..D), 0x68-0x6b (E..H) unless bit 7 is set
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_ICH9_H
#define FERRY_HW_ICH9_H

#include "hw/gsi.h"
#include "pci/pci.h"

#define ICH9_PMBASE      0x40 /* bits 15:7 the base */
#define ICH9_ACPI_CNTL   0x44 /* bit 7: ACPI enabled; 2:0: SCI interrupt, 0: 9 */
#define ICH9_PIRQA_ROUTE 0x60 /* four registers */
#define ICH9_PIRQE_ROUTE 0x68 /* four registers */
#define ICH9_RCBA        0xf0 /* bits 31:14 the base, bit 0: enabled */
#define ICH9_SCI_IRQ     9    /* after reset */
#define ICH9_GSI_PIRQ_A  16

extern const struct device_type ich9_lpc_type; /* "ICH9-LPC" */

/* At 0:1f.0, multifunction; takes over the lines of the bus. memory: where RCBA is mapped. */
struct pci_device *ich9_lpc_new(struct pci_bus *bus, struct mem_region *memory,
                                struct gsi_state *gsi, bool has_smm, struct error **errp);
struct bus *ich9_isa_bus(struct pci_device *lpc);

/* PIRQ 0..7 of pin 0..3 of a slot after reset, for _PRT. */
unsigned ich9_pirq_of(unsigned slot, unsigned pin);

#endif
