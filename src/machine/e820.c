/* SPDX-License-Identifier: MIT */
/*
 * The memory map that firmware would report.
 *
 *   0 - 9fc00 RAM | 9fc00 - a0000 EBDA | a0000 - c0000 VGA, not listed | f0000 - 100000 BIOS area |
 *   1 MiB - ram_below_4g RAM, its top taken for ACPI tables | ECAM reserved | 4 GiB … RAM
 */
#include <assert.h>
#include <string.h>

#include "base/range.h"
#include "machine/machine.h"

#define EBDA      0x9fc00
#define BIOS_AREA 0xf0000
/* Where an engine on VT-x keeps its identity map and TSS. */
#define ENGINE_PAGES      0xfeffc000
#define ENGINE_PAGES_SIZE 0x4000

void machine_e820_add(struct machine *machine, uint64_t address, uint64_t size, uint32_t type)
{
    unsigned i = machine->e820_count;

    assert(i < E820_MAX);
    while (i > 0 && machine->e820[i - 1].address > address) {
        machine->e820[i] = machine->e820[i - 1];
        i--;
    }
    machine->e820[i] = (struct e820_entry){.address = address, .size = size, .type = type};
    machine->e820_count++;
}

void machine_build_e820(struct machine *machine)
{
    machine->e820_count = 0;
    machine_e820_add(machine, 0, MIN(EBDA, machine->ram_below_4g), E820_RAM);
    machine_e820_add(machine, EBDA, 0xa0000 - EBDA, E820_RESERVED);
    machine_e820_add(machine, BIOS_AREA, MiB - BIOS_AREA, E820_RESERVED);
    if (machine->ram_below_4g > MiB) {
        machine_e820_add(machine, MiB, machine->ram_below_4g - MiB, E820_RAM);
    }
    if (machine->ecam_size) {
        machine_e820_add(machine, machine->ecam_base, machine->ecam_size, E820_RESERVED);
    }
    machine_e820_add(machine, ENGINE_PAGES, ENGINE_PAGES_SIZE, E820_RESERVED);
    if (machine->ram_above_4g) {
        machine_e820_add(machine, 4 * GiB, machine->ram_above_4g, E820_RAM);
    }
}

uint64_t machine_e820_reserve(struct machine *machine, uint64_t size, uint64_t alignment,
                              uint32_t type)
{
    for (unsigned i = 0; i < machine->e820_count; i++) {
        struct e820_entry *e = &machine->e820[i];
        uint64_t start;

        if (e->type != E820_RAM || e->address != MiB || e->size < size + alignment) {
            continue;
        }
        start = align_down(e->address + e->size - size, alignment);
        size = e->address + e->size - start;
        e->size -= size;
        machine_e820_add(machine, start, size, type);
        return start;
    }
    return 0;
}
