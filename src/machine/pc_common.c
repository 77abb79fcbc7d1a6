/* SPDX-License-Identifier: MIT */
#include "machine/pc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "hw/gsi.h"
#include "hw/i8042.h"
#include "hw/isa_misc.h"
#include "hw/pam.h"
#include "hw/pit.h"
#include "hw/rtc.h"
#include "hw/serial.h"
#include "machine/loader.h"
#include "mem/machine_lock.h"
#include "pci/pci.h"

#define IO_BARS      0xc000 /* first port of BARs */
#define IO_BARS_END  0x10000
#define HOLE_END     0xfec00000 /* the IOAPIC */
#define HOLE64_SIZE  (32 * GiB)
#define ROM_MAX      (16 * MiB)
#define ROM_ISA_SIZE (128 * KiB)
#define ROM_UNIT     (64 * KiB)

/* Variable-range MTRRs and their default, SDM 11.11.2. */
#define MSR_MTRR_PHYSBASE0 0x200
#define MSR_MTRR_PHYSMASK0 0x201
#define MSR_MTRR_DEF_TYPE  0x2ff
#define MSR_MTRR_FIX64K    0x250
#define MTRR_UC            0
#define MTRR_WB            6
#define MTRR_ENABLE        BIT64(11)
#define MTRR_FIXED_ENABLE  BIT64(10)

static bool init_rom(struct machine *machine, struct error **errp)
{
    struct file_data file;
    uint64_t size, isa_size;
    bool ok;

    if (!machine->bios) {
        return true;
    }
    if (!file_data_open(&file, machine->bios, "-bios", ROM_MAX, errp)) {
        return false;
    }
    size = file.size;
    if (size % ROM_UNIT) {
        error_set(errp, "-bios '%s' has %" PRIu64 " bytes; firmware images are multiples of 64 KiB",
                  machine->bios, size);
        file_data_close(&file);
        return false;
    }
    if (!mem_region_init_rom(&machine->rom, "pc.bios", size, errp)) {
        file_data_close(&file);
        return false;
    }
    isa_size = MIN(size, ROM_ISA_SIZE);
    mem_region_init_alias(&machine->rom_isa, "isa-bios", &machine->rom, size - isa_size, isa_size);
    mem_region_add_overlap(&machine->pci_memory, MiB - isa_size, &machine->rom_isa, 1);
    mem_region_add_overlap(mem_root(), 4 * GiB - size, &machine->rom, 1);
    machine->has_firmware = true;
    ok = loader_add_file("firmware", 4 * GiB - size, &file, 0, size, errp);
    file_data_close(&file);
    return ok;
}

bool pc_init_memory(struct machine *machine, uint64_t limit, uint64_t reduced, struct error **errp)
{
    uint64_t size = machine->ram_size, below = size > limit ? reduced : limit;

    if (machine->max_ram_below_4g) {
        below = MIN(below, machine->max_ram_below_4g);
    }
    machine->ram_below_4g = MIN(size, below);
    machine->ram_above_4g = size - machine->ram_below_4g;
    if (!machine->pci_hole) {
        machine->pci_hole = limit > reduced && size > limit ? reduced : limit;
    }
    machine->pci_hole_end = HOLE_END;
    machine->pci_hole64 = align_up(4 * GiB + machine->ram_above_4g, GiB);
    machine->pci_hole64_end = machine->pci_hole64 + HOLE64_SIZE;

    if (!mem_region_init_ram(&machine->ram, "pc.ram", size, false, errp)) {
        return false;
    }
    machine->ram_block = machine->ram.ram;
    mem_region_init_alias(&machine->ram_low, "ram-below-4g", &machine->ram, 0,
                          machine->ram_below_4g);
    mem_region_add(mem_root(), 0, &machine->ram_low);
    if (machine->ram_above_4g) {
        mem_region_init_alias(&machine->ram_high, "ram-above-4g", &machine->ram,
                              machine->ram_below_4g, machine->ram_above_4g);
        mem_region_add(mem_root(), 4 * GiB, &machine->ram_high);
    }
    mem_region_init_container(&machine->pci_memory, "pci", UINT64_MAX);
    mem_region_add_overlap(mem_root(), 0, &machine->pci_memory, -1);
    return init_rom(machine, errp);
}

bool machine_check_phys_bits(struct machine *machine, unsigned phys_bits, struct error **errp)
{
    uint64_t limit = BIT64(phys_bits);
    uint64_t end = machine->ram_above_4g ? 4 * GiB + machine->ram_above_4g : machine->ram_below_4g;

    /* Without addresses above 4 GiB there is no such window, as in QEMU. */
    if (phys_bits > 32) {
        end = machine->pci_hole64 + machine->type->hole64_min;
    }
    if (end > limit) {
        error_set(errp, "Address space limit 0x%" PRIx64 " < 0x%" PRIx64 " phys-bits too low (%u)",
                  limit - 1, end - 1, phys_bits);
        error_add_hint(errp, "Give a CPU model with more phys-bits=, or less RAM.");
        return false;
    }
    machine->pci_hole64 = MIN(machine->pci_hole64, limit);
    machine->pci_hole64_end = MIN(machine->pci_hole64_end, limit);
    return true;
}

static bool init_pit(struct machine *machine, struct error **errp)
{
    struct accel *accel = accel_current();
    struct device *pit = NULL;

    if (machine->pit && accel->irqchip == IRQCHIP_ON) {
        /* The engine's, and port 0x61 with it. */
        return !accel->ops->create_pit || accel->ops->create_pit(accel, errp);
    }
    if (machine->pit) {
        pit = pit_new(&machine->gsi->line[0], errp);
        if (!pit) {
            return false;
        }
    }
    return pcspk_new(machine->isa_bus, pit, errp) != NULL;
}

static void set_a20(void *opaque, unsigned n, int level)
{
    accel_set_a20(level);
}

bool pc_init_isa(struct machine *machine, struct error **errp)
{
    struct bus *isa = machine->isa_bus;
    struct device *port92;

    machine->rtc = rtc_new(isa, machine->rtc_base, machine->rtc_clock, errp);
    if (!machine->rtc || !init_pit(machine, errp) || !port80_new(isa, errp)) {
        return false;
    }
    port92 = port92_new(isa, errp);
    if (!port92) {
        return false;
    }
    port92->gpio_out[0] = irq_make(set_a20, NULL, 0);
    if (machine->i8042) {
        machine->i8042_dev = i8042_new(isa, errp);
        if (!machine->i8042_dev) {
            return false;
        }
        machine->i8042_dev->gpio_out[0] = irq_make(set_a20, NULL, 0);
    }
    for (unsigned i = 0; i < SERIAL_ISA_MAX; i++) {
        if (machine->serial[i] && !isa_serial_new(isa, i, machine->serial[i], errp)) {
            return false;
        }
    }
    rtc_set_memory(machine->rtc, machine->ram_below_4g, machine->ram_above_4g);
    rtc_set_cmos(machine->rtc, RTC_CMOS_CPU_COUNT, machine->smp.cpus - 1);
    return true;
}

const struct pc_chipset *pc_chipset(const struct machine *machine)
{
    return machine->type == &q35_machine_type ? &pc_q35_chipset : &pc_i440fx_chipset;
}

const struct pc_pm_info *pc_pm_info(const struct machine *machine)
{
    return &pc_chipset(machine)->pm;
}

unsigned pc_level_irqs(const struct machine *machine)
{
    return pc_chipset(machine)->level_irqs;
}

bool pc_has_serial(const struct machine *machine, uint32_t port)
{
    for (struct device *dev = device_first(); dev; dev = dev->next) {
        autofree char *text = NULL;
        uint64_t base;

        if (dev->state != DEVICE_REALIZED || !device_is_a(dev, &isa_serial_type)) {
            continue;
        }
        text = device_get(dev, "iobase");
        if (text && parse_uint(text, &base) && base == port) {
            return true;
        }
    }
    return false;
}

static uint8_t interrupt_line(void *opaque, struct pci_device *pci, unsigned pin)
{
    struct machine *machine = opaque;

    return machine->type->interrupt_line(machine, pci, pin);
}

void pc_open_shadow_ram(struct pci_device *host, unsigned pam)
{
    /* RE and WE of the one segment in the first register and the two in each of the others (i440FX
     * 3.2.11, Q35 MCH 5.1.21). */
    pci_config_write(host, pam, 0x30, 1);
    for (unsigned i = 1; i < PAM_REGISTERS; i++) {
        pci_config_write(host, pam + i, 0x33, 1);
    }
}

bool pc_firmware_setup(struct machine *machine, struct error **errp)
{
    const struct pci_assignment assignment = {
        .io_base = IO_BARS,
        .io_end = IO_BARS_END,
        .mem_base = machine->pci_hole,
        .mem_end = machine->pci_hole_end,
        .mem64_base = machine->pci_hole64,
        .mem64_end = machine->pci_hole64_end,
        .interrupt_line = interrupt_line,
        .opaque = machine,
    };

    pc_chipset(machine)->setup(machine);
    gsi_set_elcr(machine->gsi, pc_level_irqs(machine));
    if (machine->i8042_dev) {
        i8042_firmware_setup(machine->i8042_dev);
    }
    return pci_assign_resources(machine->root_bus, &assignment, errp);
}

void pc_set_mtrrs(const struct machine *machine, struct x86_state *state, unsigned phys_bits)
{
    uint64_t hole = machine->pci_hole >= 0xe0000000 ? 0xe0000000 : 0xc0000000;
    uint64_t mask = (BIT64(phys_bits) - 1) & ~(4 * GiB - hole - 1);
    struct {
        uint32_t index;
        uint64_t value;
    } const msrs[] = {
        {MSR_MTRR_PHYSBASE0, hole | MTRR_UC},
        {MSR_MTRR_PHYSMASK0, mask | MTRR_ENABLE},
        {MSR_MTRR_FIX64K, UINT64_C(0x0606060606060606)},
        {0x258, UINT64_C(0x0606060606060606)}, /* 80000-9ffff */
        {0x259, 0},                            /* a0000-bffff: VGA */
        {0x268, UINT64_C(0x0606060606060606)}, /* c0000-fffff, 4 KiB units */
        {0x269, UINT64_C(0x0606060606060606)},
        {0x26a, UINT64_C(0x0606060606060606)},
        {0x26b, UINT64_C(0x0606060606060606)},
        {0x26c, UINT64_C(0x0606060606060606)},
        {0x26d, UINT64_C(0x0606060606060606)},
        {0x26e, UINT64_C(0x0606060606060606)},
        {0x26f, UINT64_C(0x0606060606060606)},
        {MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_FIXED_ENABLE | MTRR_WB},
    };

    for (size_t i = 0; i < ARRAY_SIZE(msrs); i++) {
        uint64_t *msr = x86_state_msr(state, msrs[i].index);
        if (msr) {
            *msr = msrs[i].value;
        }
    }
}
