/* SPDX-License-Identifier: MIT */
/*
 * Machines: pc (i440FX + PIIX3) and q35 (Q35 MCH + ICH9).
 *
 *   -machine q35,acpi=on --> machine_new() -- machine_set() --> machine_init(): RAM, chips, buses
 *      vmm: -device … -->                                       user's devices on those buses
 *      machine_ready(): what firmware would do, kernel or firmware loaded
 *      machine_reset(): every device, then the loaders' blobs, vCPU 0's entry state
 *
 * Memory: below 4 GiB up to ram_below_4g, the PCI hole, the chips' fixed ranges, and the rest of
 * RAM from 4 GiB up.
 *
 * Machine state; main thread. Only one machine exists in a process.
 */
#ifndef FERRY_MACHINE_MACHINE_H
#define FERRY_MACHINE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "accel/vcpu.h"
#include "base/error.h"
#include "device/device.h"
#include "mem/region.h"

struct gsi_state;
struct machine;
struct options;
struct pci_bus;
struct pci_device;

struct machine_type {
    const char *name;  /* "pc-q35-7.2" */
    const char *alias; /* "q35" */
    const char *description;
    bool is_default;
    unsigned max_cpus;
    uint64_t hole64_min; /* bytes of addresses for 64-bit BARs that a processor must have */
    bool (*init)(struct machine *machine, struct error **errp);
    /* The interrupt line a firmware would write for INTx pin 1..4 of a function. */
    uint8_t (*interrupt_line)(void *machine, struct pci_device *pci, unsigned pin);
};

extern const struct machine_type *const machine_types[]; /* NULL-terminated */

/* One range of guest physical memory as firmware tells it (ACPI 15.1). */
enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };
struct e820_entry {
    uint64_t address, size;
    uint32_t type;
};
#define E820_MAX 32

struct machine {
    /* the user's choice; constant after machine_init() */
    const struct machine_type *type;
    uint64_t ram_size; /* bytes */
    struct {
        unsigned cpus, max_cpus, sockets, dies, cores, threads;
    } smp;
    char *accel;                           /* -machine accel= */
    char *kernel_irqchip;                  /* -machine kernel-irqchip=, or NULL */
    char *smm_option;                      /* -machine smm=, or NULL: auto */
    char *kernel, *initrd, *append, *bios; /* or NULL */
    char *rtc_base, *rtc_clock;
    char *serial[4]; /* ids of character devices for COM1..COM4, or NULL */
    bool acpi, i8042, pit, hpet, mem_merge;
    uint64_t max_ram_below_4g; /* 0: the machine's own */

    /* constant after machine_init() */
    struct ram_block *ram_block;
    struct mem_region ram, ram_low, ram_high; /* the block, and where it shows */
    struct mem_region rom, rom_isa;           /* firmware at the top of 4 GiB and below 1 MiB */
    bool has_firmware;
    bool smm;                            /* the chipset has SMRAM and sends SMIs */
    struct mem_region pci_memory;        /* priority -1, all that RAM and chips leave */
    uint64_t ram_below_4g, ram_above_4g; /* bytes */
    uint64_t pci_hole, pci_hole_end, pci_hole64, pci_hole64_end;
    uint64_t ecam_base, ecam_size; /* 0: none */
    struct gsi_state *gsi;
    struct pci_bus *root_bus;
    struct device *rtc, *i8042_dev, *pm, *isa_bridge, *host_bridge;
    struct bus *isa_bus;
    uint16_t pm_base;
    unsigned sci_gsi;

    /* what machine_ready() made */
    struct e820_entry e820[E820_MAX];
    unsigned e820_count;
    uint64_t acpi_rsdp; /* guest address, 0: none */
    /* Entry state of vCPU 0 after its reset, when a kernel is loaded directly; or NULL. */
    void (*set_entry)(struct machine *machine, struct x86_state *state);
    uint64_t entry_address, entry_argument;
};

extern struct machine *machine_current;

const struct machine_type *machine_type_find(const char *name_or_alias);
void machine_types_print(FILE *to); /* -machine help */
struct machine *machine_new(const struct machine_type *type);
/* A property of -machine (accel, kernel-irqchip, acpi, …). */
bool machine_set(struct machine *machine, const char *name, const char *value, struct error **errp);
void machine_properties_print(const struct machine_type *type, FILE *to);
/* Needs accel_init(). Makes RAM, chips and buses. */
bool machine_init(struct machine *machine, struct error **errp);
/* Whether processors with that many bits of physical addresses (MAXPHYADDR) reach all of RAM and the
 * 64-bit window for BARs, which ends where their addresses end. After machine_init(). */
bool machine_check_phys_bits(struct machine *machine, unsigned phys_bits, struct error **errp);
/* After the user's devices: resources, ACPI tables, loaders. */
bool machine_ready(struct machine *machine, struct error **errp);
/* Resets devices, memory contents of loaders and vCPUs. vCPUs are paused. */
bool machine_reset(struct machine *machine, struct error **errp);
void machine_free(struct machine *machine);

/* e820.c */
void machine_build_e820(struct machine *machine);
void machine_e820_add(struct machine *machine, uint64_t address, uint64_t size, uint32_t type);
/* Takes size bytes from the top of low RAM for tables; 0 if there is no room. */
uint64_t machine_e820_reserve(struct machine *machine, uint64_t size, uint64_t alignment,
                              uint32_t type);

#endif
