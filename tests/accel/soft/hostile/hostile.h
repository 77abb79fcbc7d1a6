/* SPDX-License-Identifier: MIT */
/*
 * Hostile guests for the soft CPU: a VM in this process, filled with junk that is close enough to what a
 * processor reads (code, descriptors, page tables, task states) to get far, and started in any mode.
 *
 *      0 MiB    tables, code, data, stacks: enum layout
 *      2 MiB    the same code's end at a page without anything behind it (hole)
 *      3 MiB    a region that comes and goes while vCPUs run
 *
 * Everything comes from a seed. Nothing here knows what a guest should do: what counts is that ferry comes
 * back, whole, whenever it is asked to.
 */
#ifndef FERRY_TESTS_ACCEL_HOSTILE_H
#define FERRY_TESTS_ACCEL_HOSTILE_H

#include "../../accel_fixture.h"

#define PAGE 4096u

/* Guest physical addresses. */
enum layout {
    AT_IVT = 0x0,
    AT_GDT = 0x1000,
    AT_IDT = 0x2000,
    AT_TSS = 0x3000, /* and its I/O bitmap */
    AT_LDT = 0x6000,
    AT_CODE = 0x8000,
    AT_DATA = 0x10000,
    AT_TABLES = 0x20000, /* PML4, PDPT, PD, two PTs; PAE PDPT; 32-bit PD, two PTs */
    AT_SMM = 0x30000,
    AT_MMIO = 0xc0000,
    AT_ROM = 0xd0000,
    AT_HOLE = 0x200000,    /* no RAM, one page */
    AT_OVERLAY = 0x300000, /* RAM that comes and goes */
};
#define CODE_SIZE    0x8000u
#define DATA_SIZE    0x10000u
#define OVERLAY_SIZE 0x10000u

/* ---- random numbers (splitmix64) ---- */

struct random {
    uint64_t state;
};

uint64_t random_u64(struct random *r);
/* 0 to n - 1. */
static inline unsigned random_below(struct random *r, unsigned n)
{
    return (unsigned)(random_u64(r) >> 32) % n;
}
static inline bool random_one_in(struct random *r, unsigned n)
{
    return random_below(r, n) == 0;
}
/* A number that some check or computation may get wrong. */
uint64_t random_value(struct random *r);
/* A linear address, mostly of something. */
uint64_t random_address(struct random *r);

/* ---- hostile_code.c ---- */

/* Fills `size` bytes with instructions, for code of 2, 4 or 8 bytes (16, 32, 64 bits), that lie at an
 * address. */
void hostile_code(struct random *r, uint8_t *at, unsigned size, unsigned width, uint64_t address);

/* ---- hostile_world.c ---- */

/* RAM, ROM, devices. Machine lock not held. */
bool world_init(void);
void world_cleanup(void);
/* Writes all of memory. No vCPU runs. */
void world_fill(struct random *r);
/* A vCPU's registers: a mode and what goes with it, more or less; or anything at all. */
void world_state(struct random *r, struct x86_state *state);
/* What most CPU models have (0), what every one has (1). */
void world_tame(struct x86_state *state, unsigned how);
/* One change from outside while vCPUs run: DMA into code, tables or data; the overlay comes or goes. Any
 * registered thread without the machine lock. */
void world_disturb(struct random *r);
/* The same for the memory map only. */
void world_disturb_map(struct random *r);

#endif
