/* SPDX-License-Identifier: MIT */
/* The pc machine: i440FX, PIIX3, PIIX4 power management. */
#include "base/range.h"
#include "hw/gsi.h"
#include "hw/i440fx.h"
#include "hw/piix.h"
#include "hw/pm.h"
#include "machine/pc.h"
#include "mem/address_space.h"
#include "pci/pci.h"

#include "machine/dsdt_pc.hex"

/* What firmware routes PIRQ A-D to. */
static const uint8_t pirq_irq[4] = {10, 10, 11, 11};

static bool pc_init(struct machine *machine, struct error **errp)
{
    struct i440fx_config config;
    struct pci_device *piix3, *pm;

    if (!pc_init_memory(machine, 0xe0000000, 0xc0000000, errp)) {
        return false;
    }
    config = (struct i440fx_config){
        .memory = mem_root(),
        .io = io_root(),
        .ram = &machine->ram,
        .pci_memory = &machine->pci_memory,
        .smm = machine->smm ? mem_smram() : NULL,
    };
    machine->gsi = gsi_new(machine->pit, errp);
    if (!machine->gsi) {
        return false;
    }
    machine->host_bridge = (struct device *)i440fx_new(&config, &machine->root_bus, errp);
    if (!machine->host_bridge) {
        return false;
    }
    piix3 = piix3_new(machine->root_bus, machine->gsi, errp);
    if (!piix3) {
        return false;
    }
    machine->isa_bridge = &piix3->dev;
    machine->isa_bus = piix3_isa_bus(piix3);
    if (!pc_init_isa(machine, errp)) {
        return false;
    }
    machine->sci_gsi = PIIX4_SCI_IRQ;
    if (machine->acpi) {
        pm = piix4_pm_new(machine->root_bus, machine->gsi, machine->smm, errp);
        if (!pm) {
            return false;
        }
        machine->pm = &pm->dev;
    }
    return true;
}

static void pc_setup(struct machine *machine)
{
    struct pci_device *host = pci_device(machine->host_bridge);
    struct pci_device *isa = pci_device(machine->isa_bridge);

    pc_open_shadow_ram(host, I440FX_PAM);
    for (unsigned i = 0; i < 4; i++) {
        pci_config_write(isa, PIIX3_PIRQ_ROUTE + i, pirq_irq[i], 1);
    }
    if (machine->pm) {
        struct pci_device *pm = pci_device(machine->pm);
        pci_config_write(pm, PIIX4_PMBASE, PC_PM_BASE | 1, 4);
        pci_config_write(pm, PIIX4_PMREGMISC, 1, 1);
    }
}

static uint8_t pc_interrupt_line(void *machine, struct pci_device *pci, unsigned pin)
{
    return pirq_irq[piix3_pirq_of(PCI_SLOT(pci->devfn), pin - 1)];
}

const struct pc_chipset pc_i440fx_chipset = {
    .pm =
        {
            .acpi_enable = PIIX4_ACPI_ENABLE,
            .acpi_disable = PIIX4_ACPI_DISABLE,
            .event_block = PC_PM_BASE + ACPI_PM1_EVENT_OFFSET,
            .control_block = PC_PM_BASE + ACPI_PM1_CONTROL_OFFSET,
            .timer_block = PC_PM_BASE + ACPI_PM_TIMER_OFFSET,
            .gpe0_block = PIIX4_GPE0_BASE,
            .gpe0_length = PIIX4_GPE0_LENGTH,
        },
    .dsdt = dsdt_pc_aml_code,
    .dsdt_size = sizeof(dsdt_pc_aml_code),
    .setup = pc_setup,
    .level_irqs = BIT(5) | BIT(10) | BIT(11),
};

const struct machine_type pc_machine_type = {
    .name = "pc-i440fx-7.2",
    .alias = "pc",
    .description = "Standard PC (i440FX + PIIX, 1996)",
    .is_default = true,
    .max_cpus = 255,
    .hole64_min = 2 * GiB,
    .init = pc_init,
    .interrupt_line = pc_interrupt_line,
};
