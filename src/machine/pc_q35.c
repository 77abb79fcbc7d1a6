/* SPDX-License-Identifier: MIT */
/* The q35 machine: Q35 MCH with ECAM, ICH9 LPC bridge. */
#include "base/range.h"
#include "hw/gsi.h"
#include "hw/ich9.h"
#include "hw/pm.h"
#include "hw/q35.h"
#include "machine/pc.h"
#include "mem/address_space.h"
#include "pci/pci.h"

#include "machine/dsdt_q35.hex"

#define ECAM_BASE 0xb0000000
#define ECAM_SIZE (256 * MiB)
#define RCBA_BASE 0xfed1c000

/* What firmware routes PIRQ A-D and E-H to, for guests without an IOAPIC driver. */
static const uint8_t pirq_irq[8] = {10, 10, 11, 11, 10, 10, 11, 11};

static bool q35_init(struct machine *machine, struct error **errp)
{
    struct q35_config config;
    struct pci_device *lpc;

    machine->ecam_base = ECAM_BASE;
    machine->ecam_size = ECAM_SIZE;
    machine->pci_hole = ECAM_BASE + ECAM_SIZE;
    if (!pc_init_memory(machine, ECAM_BASE, 0x80000000, errp)) {
        return false;
    }
    config = (struct q35_config){
        .memory = mem_root(),
        .io = io_root(),
        .ram = &machine->ram,
        .pci_memory = &machine->pci_memory,
        .smm = machine->smm ? mem_smram() : NULL,
        .ram_below_4g = machine->ram_below_4g,
    };
    machine->gsi = gsi_new(machine->pit, errp);
    if (!machine->gsi) {
        return false;
    }
    machine->host_bridge = (struct device *)q35_new(&config, &machine->root_bus, errp);
    if (!machine->host_bridge) {
        return false;
    }
    lpc = ich9_lpc_new(machine->root_bus, mem_root(), machine->gsi, machine->smm, errp);
    if (!lpc) {
        return false;
    }
    machine->isa_bridge = &lpc->dev;
    machine->pm = &lpc->dev;
    if (!machine->acpi) {
        acpi_pm_remove_power_button();
    }
    machine->isa_bus = ich9_isa_bus(lpc);
    machine->sci_gsi = ICH9_SCI_IRQ;
    return pc_init_isa(machine, errp);
}

static void q35_setup(struct machine *machine)
{
    struct pci_device *host = pci_device(machine->host_bridge);
    struct pci_device *lpc = pci_device(machine->isa_bridge);

    pc_open_shadow_ram(host, Q35_PAM);
    pci_config_write(host, Q35_PCIEXBAR + 4, 0, 4);
    pci_config_write(host, Q35_PCIEXBAR, ECAM_BASE | 1, 4);
    for (unsigned i = 0; i < 4; i++) {
        pci_config_write(lpc, ICH9_PIRQA_ROUTE + i, pirq_irq[i], 1);
        pci_config_write(lpc, ICH9_PIRQE_ROUTE + i, pirq_irq[4 + i], 1);
    }
    pci_config_write(lpc, ICH9_RCBA, RCBA_BASE | 1, 4);
    if (machine->acpi) {
        pci_config_write(lpc, ICH9_PMBASE, PC_PM_BASE | 1, 4);
        pci_config_write(lpc, ICH9_ACPI_CNTL, 0x80, 1);
    }
}

static uint8_t q35_interrupt_line(void *machine, struct pci_device *pci, unsigned pin)
{
    return pirq_irq[ich9_pirq_of(PCI_SLOT(pci->devfn), pin - 1)];
}

const struct pc_chipset pc_q35_chipset = {
    .pm =
        {
            .acpi_enable = ICH9_ACPI_ENABLE,
            .acpi_disable = ICH9_ACPI_DISABLE,
            .event_block = PC_PM_BASE + ACPI_PM1_EVENT_OFFSET,
            .control_block = PC_PM_BASE + ACPI_PM1_CONTROL_OFFSET,
            .timer_block = PC_PM_BASE + ACPI_PM_TIMER_OFFSET,
            .gpe0_block = PC_PM_BASE + ICH9_GPE0_OFFSET,
            .gpe0_length = ICH9_GPE0_LENGTH,
        },
    .dsdt = dsdt_q35_aml_code,
    .dsdt_size = sizeof(dsdt_q35_aml_code),
    .setup = q35_setup,
    .level_irqs = BIT(5) | BIT(10) | BIT(11),
};

const struct machine_type q35_machine_type = {
    .name = "pc-q35-7.2",
    .alias = "q35",
    .description = "Standard PC (Q35 + ICH9, 2009)",
    .max_cpus = 288,
    .hole64_min = 32 * GiB,
    .init = q35_init,
    .interrupt_line = q35_interrupt_line,
};
