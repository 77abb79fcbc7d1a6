/* SPDX-License-Identifier: MIT */
#include "accel/x86_walk.h"

#include "accel/x86_regs.h"
#include "base/bytes.h"
#include "base/range.h"
#include "mem/address_space.h"

#define PTE_PRESENT UINT64_C(1)
#define PTE_LARGE   (UINT64_C(1) << 7)
#define PTE_ADDRESS UINT64_C(0x000ffffffffff000)

static bool read_entry(uint64_t address, unsigned size, uint64_t *entry)
{
    uint8_t bytes[8] = {0};

    if (address_space_read(address_space_memory, address, bytes, size) != MEM_OK) {
        return false;
    }
    *entry = load_le(bytes, size);
    return *entry & PTE_PRESENT;
}

/* Two levels of 1024 entries of 4 bytes. */
static bool walk_32bit(const struct x86_state *state, uint32_t linear, uint64_t *physical)
{
    uint64_t entry;

    if (!read_entry((state->cr3 & 0xfffff000) + (linear >> 22) * 4, 4, &entry)) {
        return false;
    }
    if ((entry & PTE_LARGE) && (state->cr4 & X86_CR4_PSE)) {
        /* PSE-36: bits 20:13 of the entry are bits 39:32 of the address. */
        *physical = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (linear & 0x3fffff);
        return true;
    }
    if (!read_entry((entry & 0xfffff000) + (linear >> 12 & 0x3ff) * 4, 4, &entry)) {
        return false;
    }
    *physical = (entry & 0xfffff000) | (linear & 0xfff);
    return true;
}

/* Levels of 512 entries of 8 bytes; PAE's highest has 4. */
static bool walk_64bit(uint64_t table, unsigned levels, uint64_t linear, uint64_t *physical)
{
    for (unsigned level = levels; level > 0; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        uint64_t mask = BIT64(shift) - 1;
        uint64_t entry;

        if (!read_entry(table + (linear >> shift & 0x1ff) * 8, 8, &entry)) {
            return false;
        }
        if (level == 1 || (level <= 3 && (entry & PTE_LARGE))) {
            *physical = (entry & PTE_ADDRESS & ~mask) | (linear & mask);
            return true;
        }
        table = entry & PTE_ADDRESS;
    }
    return false;
}

bool x86_translate(const struct x86_state *state, uint64_t linear, uint64_t *physical)
{
    if (!(state->cr0 & X86_CR0_PG)) {
        *physical = (uint32_t)linear;
        return true;
    }
    if (state->efer & X86_EFER_LMA) {
        return walk_64bit(state->cr3 & PTE_ADDRESS, state->cr4 & X86_CR4_LA57 ? 5 : 4, linear,
                          physical);
    }
    if (state->cr4 & X86_CR4_PAE) {
        return walk_64bit(state->cr3 & 0xffffffe0, 3, (uint32_t)linear, physical);
    }
    return walk_32bit(state, (uint32_t)linear, physical);
}

unsigned x86_read_linear(const struct x86_state *state, uint64_t linear, void *buf, unsigned size)
{
    unsigned done = 0;

    while (done < size) {
        uint64_t at = linear + done, physical;
        unsigned piece = MIN(size - done, (unsigned)(GUEST_PAGE_SIZE - at % GUEST_PAGE_SIZE));

        if (!x86_translate(state, at, &physical) ||
            address_space_read(address_space_memory, physical, (uint8_t *)buf + done, piece) !=
                MEM_OK) {
            break;
        }
        done += piece;
    }
    return done;
}
