/* SPDX-License-Identifier: MIT */
/*
 * What pc and q35 share: RAM and ROM in the memory map, the ISA devices, and firmware's work when
 * there is no firmware.
 *
 *   0          1M                 ram_below_4g   pci_hole        fec00000  fee00000  4G
 *   | ram_low (PAM at c0000) ... |  (ECAM, q35) | BARs ......... | IOAPIC | LAPIC .. ROM | ram_high …
 */
#ifndef FERRY_MACHINE_PC_H
#define FERRY_MACHINE_PC_H

#include "machine/machine.h"
#include "pci/pci.h"

/* Where firmware puts the ACPI registers. */
#define PC_PM_BASE 0x600

struct pc_pm_info {
    uint8_t acpi_enable, acpi_disable;
    uint16_t event_block, control_block, timer_block, gpe0_block;
    uint8_t gpe0_length;
};

/* Splits RAM around the PCI hole: up to limit below 4 GiB, or `reduced` if RAM does not fit. */
bool pc_init_memory(struct machine *machine, uint64_t limit, uint64_t reduced, struct error **errp);
/* After the south bridge: RTC, i8042, serial ports, ports 0x61, 0x80, 0x92, PIT. */
bool pc_init_isa(struct machine *machine, struct error **errp);

const struct pc_pm_info *pc_pm_info(const struct machine *machine);
/* ISA interrupts that PCI uses, level-triggered. */
unsigned pc_level_irqs(const struct machine *machine);
bool pc_has_serial(const struct machine *machine, uint32_t port);

/* What each chipset's firmware step writes, and its tables. */
struct pc_chipset {
    struct pc_pm_info pm;
    const uint8_t *dsdt;
    size_t dsdt_size;
    void (*setup)(struct machine *machine); /* configuration registers; machine lock held */
    unsigned level_irqs;
};
const struct pc_chipset *pc_chipset(const struct machine *machine);
extern const struct pc_chipset pc_i440fx_chipset, pc_q35_chipset;

/* For setup(): the host bridge's PAM registers, from `pam` on, so that c0000 to fffff is RAM to read
 * and to write. */
void pc_open_shadow_ram(struct pci_device *host, unsigned pam);

/* Each reset without firmware: registers, BARs, PIRQs, decode bits. Machine lock held. */
bool pc_firmware_setup(struct machine *machine, struct error **errp);
/* MTRRs as firmware leaves them: write-back, but for the PCI hole. */
void pc_set_mtrrs(const struct machine *machine, struct x86_state *state, unsigned phys_bits);

extern const struct machine_type pc_machine_type, q35_machine_type;

#endif
