/* SPDX-License-Identifier: MIT */
/*
 * Programmable attribute map: what the CPU sees from 0xc0000 to 0xfffff (i440FX 3.2.11,
 * Q35 MCH 5.1.21), and the window at 0xa0000 that is SMRAM or PCI. Twelve segments of 16 KiB and
 * one of 64 KiB, each with two bits:
 *
 *   WE RE   reads from   writes to
 *    0  0   PCI          PCI
 *    0  1   RAM          PCI (where firmware's ROM drops them)
 *    1  0   PCI          RAM
 *    1  1   RAM          RAM
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_PAM_H
#define FERRY_HW_PAM_H

#include "mem/address_space.h"

#define PAM_REGISTERS 7
#define PAM_SEGMENTS  13

#define PAM_SMRAM_OPEN   0x40 /* D_OPEN: RAM at 0xa0000 also outside of SMM */
#define PAM_SMRAM_CLOSED 0x20
#define PAM_SMRAM_LOCK   0x10 /* D_LCK: D_OPEN is clear for good, until RESET */
#define PAM_SMRAM_ENABLE 0x08
#define PAM_SMRAM_BASE   0x02 /* C_BASE_SEG: 0xa0000, read-only */

struct pam;

/* PCI as the CPU sees it over RAM: where no function answers, RAM must not show through. */
struct pam_window {
    struct mem_region container, alias, nobody;
};

struct pam_segment {
    struct pam_window pci;        /* neither */
    struct mem_region ram;        /* RE: read-only alias; RE and WE: alias */
    struct mem_region write_only; /* WE: reads by PCI, writes to RAM */
    struct pam *pam;
    uint64_t address;
    unsigned mode; /* RE | WE << 1 */
};

struct pam {
    /* constant */
    struct mem_region *memory;
    struct mem_region *smm; /* what is only in SMM, over `memory`; NULL: there is no SMM */
    struct address_space *ram_space, *pci_space; /* of write-only segments */
    /* machine state */
    struct pam_segment segment[PAM_SEGMENTS];
    struct pam_window smram;     /* PCI at 0xa0000 */
    struct mem_region smram_ram; /* RAM there, in SMM */
};

/* memory: the root, where the segments are laid over RAM. ram: its offset is the guest address. smm: as
 * in struct pam. */
void pam_init(struct pam *pam, struct mem_region *memory, struct mem_region *ram,
              struct mem_region *pci_memory, struct mem_region *smm);
void pam_destroy(struct pam *pam);
/* The seven registers as they are in configuration space. */
void pam_update(struct pam *pam, const uint8_t registers[PAM_REGISTERS]);
/* What a write to the SMRAM register leaves of it, old being its value before; shows or hides. */
uint8_t pam_update_smram(struct pam *pam, uint8_t old, uint8_t value);

#endif
