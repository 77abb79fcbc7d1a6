/* SPDX-License-Identifier: MIT */
#include "hw/pam.h"

#include "base/bytes.h"

#define FIRST_SEGMENT 0xc0000
#define SEGMENT_SIZE  0x4000
#define BIOS_SEGMENT  0xf0000
#define BIOS_SIZE     0x10000
#define SMRAM_ADDRESS 0xa0000
#define SMRAM_SIZE    0x20000
#define PRIORITY      1 /* over RAM */

#define MODE_RE 1
#define MODE_WE 2

/* ---- PCI over RAM ---------------------------------------------------------------------------- */

static uint64_t nobody_read(void *opaque, uint64_t offset, unsigned size)
{
    return UINT64_MAX;
}

static void nobody_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mem_region_ops nobody_ops = {
    .read = nobody_read,
    .write = nobody_write,
    .valid = {.min = 1, .max = 8, .unaligned = true},
    .impl = {.min = 1, .max = 8, .unaligned = true},
    .lockless = true,
};

static void window_init(struct pam_window *w, const char *name, struct pam *pam,
                        struct mem_region *pci_memory, uint64_t address, uint64_t size)
{
    mem_region_init_container(&w->container, name, size);
    mem_region_init_alias(&w->alias, name, pci_memory, address, size);
    mem_region_init_io(&w->nobody, name, size, &nobody_ops, NULL);
    mem_region_add_overlap(&w->container, 0, &w->alias, 0);
    mem_region_add_overlap(&w->container, 0, &w->nobody, -1);
    mem_region_add_overlap(pam->memory, address, &w->container, PRIORITY);
}

static void window_remove(struct pam_window *w, struct pam *pam)
{
    mem_region_remove(pam->memory, &w->container);
    mem_region_remove(&w->container, &w->alias);
    mem_region_remove(&w->container, &w->nobody);
}

static void window_destroy(struct pam_window *w)
{
    mem_region_destroy(&w->container);
    mem_region_destroy(&w->alias);
    mem_region_destroy(&w->nobody);
}

/* ---- reads by PCI, writes to RAM: that takes callbacks --------------------------------------- */

static uint64_t write_only_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pam_segment *segment = opaque;
    uint8_t bytes[8];

    address_space_read(segment->pam->pci_space, segment->address + offset, bytes, size);
    return load_le(bytes, size);
}

static void write_only_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    const struct pam_segment *segment = opaque;
    uint8_t bytes[8];

    store_le(bytes, size, value);
    address_space_write(segment->pam->ram_space, segment->address + offset, bytes, size);
}

static const struct mem_region_ops write_only_ops = {
    .read = write_only_read,
    .write = write_only_write,
    .valid = {.min = 1, .max = 8, .unaligned = true},
    .impl = {.min = 1, .max = 8, .unaligned = true},
};

/* ---- registers ------------------------------------------------------------------------------ */

static void set_mode(struct pam_segment *segment, unsigned mode)
{
    segment->mode = mode;
    mem_region_set_enabled(&segment->pci.container, mode == 0);
    mem_region_set_enabled(&segment->ram, mode & MODE_RE);
    mem_region_set_readonly(&segment->ram, !(mode & MODE_WE));
    mem_region_set_enabled(&segment->write_only, mode == MODE_WE);
}

/* Register 0 holds the 64 KiB segment in its upper half; the others two segments each, the lower
 * one in the lower half. */
void pam_update(struct pam *pam, const uint8_t registers[PAM_REGISTERS])
{
    mem_transaction_begin();
    for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
        unsigned mode = i == PAM_SEGMENTS - 1 ? registers[0] >> 4
                        : i % 2               ? registers[1 + i / 2] >> 4
                                              : registers[1 + i / 2];
        mode &= MODE_RE | MODE_WE;
        if (mode != pam->segment[i].mode) {
            set_mode(&pam->segment[i], mode);
        }
    }
    mem_transaction_commit();
}

uint8_t pam_update_smram(struct pam *pam, uint8_t old, uint8_t value)
{
    value &= PAM_SMRAM_OPEN | PAM_SMRAM_CLOSED | PAM_SMRAM_LOCK | PAM_SMRAM_ENABLE;
    if (old & PAM_SMRAM_LOCK) {
        value = (old & (uint8_t)~PAM_SMRAM_CLOSED) | (value & PAM_SMRAM_CLOSED);
    }
    if (value & PAM_SMRAM_LOCK) {
        value &= (uint8_t)~PAM_SMRAM_OPEN;
    }
    mem_transaction_begin();
    mem_region_set_enabled(&pam->smram.container, !(value & PAM_SMRAM_OPEN));
    if (pam->smm) {
        mem_region_set_enabled(&pam->smram_ram, value & PAM_SMRAM_ENABLE);
    }
    mem_transaction_commit();
    return value | PAM_SMRAM_BASE;
}

/* ---- life ----------------------------------------------------------------------------------- */

void pam_init(struct pam *pam, struct mem_region *memory, struct mem_region *ram,
              struct mem_region *pci_memory, struct mem_region *smm)
{
    pam->memory = memory;
    pam->smm = smm;
    pam->ram_space = address_space_new("pam-ram", ram);
    pam->pci_space = address_space_new("pam-pci", pci_memory);
    mem_transaction_begin();
    for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
        struct pam_segment *segment = &pam->segment[i];
        bool bios = i == PAM_SEGMENTS - 1;
        uint64_t address = bios ? BIOS_SEGMENT : FIRST_SEGMENT + i * SEGMENT_SIZE;
        uint64_t size = bios ? BIOS_SIZE : SEGMENT_SIZE;

        segment->pam = pam;
        segment->address = address;
        window_init(&segment->pci, "pam-pci", pam, pci_memory, address, size);
        mem_region_init_alias(&segment->ram, "pam-ram", ram, address, size);
        mem_region_init_io(&segment->write_only, "pam-write", size, &write_only_ops, segment);
        set_mode(segment, 0);
        mem_region_add_overlap(memory, address, &segment->ram, PRIORITY);
        mem_region_add_overlap(memory, address, &segment->write_only, PRIORITY);
    }
    window_init(&pam->smram, "smram-region", pam, pci_memory, SMRAM_ADDRESS, SMRAM_SIZE);
    if (smm) {
        mem_region_init_alias(&pam->smram_ram, "smram-low", ram, SMRAM_ADDRESS, SMRAM_SIZE);
        mem_region_set_enabled(&pam->smram_ram, false);
        mem_region_add(smm, SMRAM_ADDRESS, &pam->smram_ram);
    }
    mem_transaction_commit();
}

void pam_destroy(struct pam *pam)
{
    mem_transaction_begin();
    for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
        window_remove(&pam->segment[i].pci, pam);
        mem_region_remove(pam->memory, &pam->segment[i].ram);
        mem_region_remove(pam->memory, &pam->segment[i].write_only);
    }
    window_remove(&pam->smram, pam);
    if (pam->smm) {
        mem_region_remove(pam->smm, &pam->smram_ram);
    }
    mem_transaction_commit();
    for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
        window_destroy(&pam->segment[i].pci);
        mem_region_destroy(&pam->segment[i].ram);
        mem_region_destroy(&pam->segment[i].write_only);
    }
    window_destroy(&pam->smram);
    if (pam->smm) {
        mem_region_destroy(&pam->smram_ram);
    }
    address_space_free(pam->ram_space);
    address_space_free(pam->pci_space);
}
