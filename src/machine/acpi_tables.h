/* SPDX-License-Identifier: MIT */
/*
 * ACPI tables for direct boot (ACPI 6.3; MCFG: PCI Firmware 3.0).
 *
 *   RSDP (BIOS area) -> XSDT -> FADT -> FACS, DSDT (compiled from acpi/dsdt_*.asl)
 *                            -> MADT, SSDT (what only this machine knows), MCFG (q35)
 *
 * All but the RSDP stand at the top of low RAM, reported as E820_ACPI.
 */
#ifndef FERRY_MACHINE_ACPI_TABLES_H
#define FERRY_MACHINE_ACPI_TABLES_H

#include "machine/machine.h"

/* The RSDP's place: first paragraph of the BIOS area. */
#define ACPI_RSDP_ADDRESS 0xf0000

/* Builds the tables as blobs, takes their memory from the e820 map, sets machine->acpi_rsdp. */
bool acpi_tables_build(struct machine *machine, const uint8_t *dsdt, size_t dsdt_size,
                       struct error **errp);

#endif
