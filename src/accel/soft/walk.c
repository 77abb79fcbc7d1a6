/* SPDX-License-Identifier: MIT */
/*
 * Page walks (SDM volume 3, chapter 4): the guest's tables, read in host memory, with their accessed
 * and dirty bits.
 *
 *      4-level  CR3 -> PML4E -> PDPTE -> PDE -> PTE     512 entries of 8 bytes; 1 GiB, 2 MiB, 4 KiB
 *      PAE      PDPTE registers ------> PDE -> PTE     the same; 2 MiB, 4 KiB
 *      32-bit   CR3 ------------------> PDE -> PTE     1024 entries of 4 bytes; 4 MiB, 4 KiB
 *
 * An entry that is not in RAM reads as all ones: present, with reserved bits set. Other vCPUs change
 * the tables at any time: bits are set by compare-and-exchange, and if the entry is not what was read
 * any more, the walk starts again.
 */
#include "accel/soft/mmu.h"

#define PTE_PRESENT  UINT64_C(1)
#define PTE_WRITE    (UINT64_C(1) << 1)
#define PTE_USER     (UINT64_C(1) << 2)
#define PTE_ACCESSED (UINT64_C(1) << 5)
#define PTE_DIRTY    (UINT64_C(1) << 6)
#define PTE_LARGE    (UINT64_C(1) << 7)
#define PTE_NX       (UINT64_C(1) << 63)
#define PTE_ADDRESS  UINT64_C(0x000ffffffffff000)

/* A walk begins again when another vCPU changed an entry under it. Whoever loses this often is told
 * that the page is not present, as it may have been at some moment. */
#define WALK_TRIES 1000

enum outcome { WALK_DONE, WALK_FAULT, WALK_AGAIN };

/* ---- entries --------------------------------------------------------------------------------- */

struct slot {
    struct soft_host_page page;
    unsigned offset; /* in the page */
    unsigned size;   /* 4 or 8 bytes */
    uint64_t value;
};

static struct slot read_slot(struct soft_cpu *cpu, uint64_t phys, unsigned size)
{
    struct slot slot = {.page = soft_host_page(cpu, phys), .offset = phys & 4095, .size = size};
    const void *host;

    if (!slot.page.host) {
        slot.value = UINT64_MAX >> (64 - size * 8);
        return slot;
    }
    host = slot.page.host + slot.offset;
    slot.value = size == 8 ? __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED)
                           : __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
    return slot;
}

/* Sets bits in the entry; false: it has changed. Tables in ROM stay as they are. */
static bool mark(struct soft_cpu *cpu, const struct slot *slot, uint64_t bits)
{
    const struct soft_host_page *page = &slot->page;
    void *host;
    bool done;

    if (!page->host || page->readonly) {
        return true;
    }
    host = page->host + slot->offset;
    if (slot->size == 8) {
        uint64_t old = slot->value;
        done = __atomic_compare_exchange_n((uint64_t *)host, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    } else {
        uint32_t old = (uint32_t)slot->value;
        done = __atomic_compare_exchange_n((uint32_t *)host, &old, old | (uint32_t)bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    if (done) {
        soft_after_write(cpu, page->ram, page->ram_page, slot->offset, slot->size, page->dirty_log);
    }
    return done;
}

/* ---- formats --------------------------------------------------------------------------------- */

struct format {
    uint64_t table;      /* of the highest level */
    uint64_t reserved;   /* bits of entries of all levels */
    unsigned shift;      /* of an entry there */
    unsigned index_bits; /* of each level */
    bool is_long, is_pae;
};

/* Of 8-byte entries (tables 4-8 to 4-20): address bits that the CPU does not have; XD, if it is off;
 * in PAE paging everything above the address but XD. */
static uint64_t reserved_always(const struct soft_cpu *cpu, bool is_long)
{
    uint64_t reserved = PTE_ADDRESS & ~(BIT64(cpu->features->phys_bits) - 1);

    if (!(cpu->efer & X86_EFER_NXE)) {
        reserved |= PTE_NX;
    }
    return is_long ? reserved : reserved | (BIT64(63) - BIT64(52));
}

/* False: the PDPTE register is not present. */
static bool format_of(const struct soft_cpu *cpu, uint64_t linear, struct format *f)
{
    if (cpu->efer & X86_EFER_LMA) {
        *f = (struct format){
            .table = cpu->cr3 & PTE_ADDRESS,
            .reserved = reserved_always(cpu, true),
            .shift = cpu->cr4 & X86_CR4_LA57 ? 48 : 39,
            .index_bits = 9,
            .is_long = true,
            .is_pae = true,
        };
        return true;
    }
    if (cpu->cr4 & X86_CR4_PAE) {
        uint64_t pdpte = cpu->pdpte[linear >> 30 & 3];
        *f = (struct format){
            .table = pdpte & PTE_ADDRESS,
            .reserved = reserved_always(cpu, false),
            .shift = 21,
            .index_bits = 9,
            .is_pae = true,
        };
        return pdpte & PTE_PRESENT;
    }
    *f = (struct format){.table = cpu->cr3 & 0xfffff000, .shift = 22, .index_bits = 10};
    return true;
}

static bool is_large(const struct soft_cpu *cpu, const struct format *f, unsigned shift,
                     uint64_t entry)
{
    if (shift == 12 || !(entry & PTE_LARGE)) {
        return false;
    }
    return f->is_pae ? shift <= 30 : (cpu->cr4 & X86_CR4_PSE) != 0;
}

/* In entries above the lowest level that have the PS bit set. */
static uint64_t reserved_in_large(const struct soft_cpu *cpu, const struct format *f,
                                  unsigned shift, bool large)
{
    if (!f->is_pae) {
        /* PSE-36 (table 4-4): bits 20:13 are bits 39:32 of the address; those beyond its width are
         * reserved, and so is bit 21. */
        unsigned bits = cpu->features->phys_bits;
        unsigned high = bits <= 32 ? 0 : MIN(bits, 40) - 32;
        return large ? BIT64(22) - BIT64(13 + high) : 0;
    }
    if (!large || (shift == 30 && !cpu->features->pdpe1gb)) {
        return PTE_LARGE;
    }
    return BIT64(shift) - BIT64(13);
}

static uint64_t page_address(const struct format *f, unsigned shift, uint64_t entry)
{
    if (!f->is_pae && shift == 22) {
        return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
    }
    return entry & PTE_ADDRESS & ~(BIT64(shift) - 1);
}

/* ---- walking --------------------------------------------------------------------------------- */

static enum outcome fault(uint32_t why, uint32_t *error)
{
    *error = why;
    return WALK_FAULT;
}

/*
 * The walk caches: level 0 has tables whose entries map 4 KiB pages, level 1 the tables of those, and so on. What
 * they know was true when it was put in, with accessed bits set; a fault is never theirs.
 */

static struct soft_walk_cache *cache_slot(struct soft_tlb *tlb, const struct format *f,
                                          unsigned level, uint64_t linear, uint64_t *key)
{
    uint64_t region = linear >> (12 + (level + 1) * f->index_bits);

    *key = region + 1;
    return &tlb->walks[level][region % SOFT_WALK_CACHE];
}

/* The lowest table that is known; false: none. */
static bool walk_from_cache(struct soft_tlb *tlb, const struct format *f, uint64_t linear,
                            struct soft_translation *t, unsigned *shift, uint64_t *table)
{
    for (unsigned level = 0; level < SOFT_WALK_LEVELS; level++) {
        uint64_t key;
        const struct soft_walk_cache *c = cache_slot(tlb, f, level, linear, &key);

        if (c->key == key && c->epoch == tlb->epoch) {
            t->user = c->user;
            t->write = c->write;
            t->fetch = c->fetch;
            *shift = 12 + level * f->index_bits;
            *table = c->table;
            return true;
        }
    }
    return false;
}

/* The entry at shift leads to a table. */
static void walk_to_cache(struct soft_cpu *cpu, const struct format *f, uint64_t linear,
                          const struct soft_translation *t, unsigned shift, uint64_t table)
{
    struct soft_tlb *tlb = cpu->tlb;
    unsigned level = (shift - 12) / f->index_bits - 1;
    uint64_t key;

    if (level < SOFT_WALK_LEVELS) {
        struct soft_walk_cache *c = cache_slot(tlb, f, level, linear, &key);
        *c = (struct soft_walk_cache){
            .key = key,
            .epoch = tlb->epoch,
            .table = table,
            .host = soft_host_page(cpu, table).host,
            .reserved = f->reserved,
            .user = t->user,
            .write = t->write,
            .fetch = t->fetch,
        };
    }
}

/* *error gets P and RSVD. */
static enum outcome walk_once(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear,
                              uint32_t access, bool use_cache, struct soft_translation *t,
                              uint32_t *error)
{
    struct format f;
    struct slot slot;
    unsigned shift;
    uint64_t table;

    if (!format_of(cpu, linear, &f)) {
        return fault(0, error);
    }
    *t = (struct soft_translation){.user = true, .write = true, .fetch = true};
    if (!use_cache || !walk_from_cache(cpu->tlb, &f, linear, t, &shift, &table)) {
        shift = f.shift;
        table = f.table;
    }
    for (;; shift -= f.index_bits) {
        unsigned size = f.is_pae ? 8 : 4;
        uint64_t index = linear >> shift & (BIT64(f.index_bits) - 1);

        slot = read_slot(cpu, table + index * size, size);
        if (!(slot.value & PTE_PRESENT)) {
            return fault(0, error);
        }
        bool large = is_large(cpu, &f, shift, slot.value);
        uint64_t reserved = f.reserved;
        if (shift > 12 && slot.value & PTE_LARGE) {
            reserved |= reserved_in_large(cpu, &f, shift, large);
        }
        if (slot.value & reserved) {
            return fault(SOFT_PF_PRESENT | SOFT_PF_RESERVED, error);
        }
        t->user &= (slot.value & PTE_USER) != 0;
        t->write &= (slot.value & PTE_WRITE) != 0;
        t->fetch &= !(slot.value & PTE_NX);
        if (shift == 12 || large) {
            break;
        }
        if (!(slot.value & PTE_ACCESSED) && !mark(cpu, &slot, PTE_ACCESSED)) {
            return WALK_AGAIN;
        }
        table = slot.value & PTE_ADDRESS;
        walk_to_cache(cpu, &f, linear, t, shift, table);
    }
    soft_set_rights(cpu, mmu, t);
    if (!soft_allows(t, access)) {
        return fault(SOFT_PF_PRESENT, error);
    }
    uint64_t wanted = PTE_ACCESSED | (access == SOFT_PF_WRITE ? PTE_DIRTY : 0);
    if ((slot.value & wanted) != wanted && !mark(cpu, &slot, wanted)) {
        return WALK_AGAIN;
    }
    t->dirty = (slot.value | wanted) & PTE_DIRTY;
    t->shift = (uint8_t)shift;
    t->phys = page_address(&f, shift, slot.value) | (linear & (BIT64(shift) - 1) & SOFT_PAGE_MASK);
    return WALK_DONE;
}

/* The access's part of an error code. I/D tells of fetches only where they can be refused. */
static uint32_t access_error(const struct soft_cpu *cpu, enum soft_mmu mmu, uint32_t access)
{
    bool has_fetch =
        cpu->cr4 & X86_CR4_SMEP || (cpu->cr4 & X86_CR4_PAE && cpu->efer & X86_EFER_NXE);

    if (access == SOFT_PF_FETCH && !has_fetch) {
        access = SOFT_PF_READ;
    }
    return access | (mmu == SOFT_MMU_USER ? SOFT_PF_USER : 0);
}

/* The entry of a table that is known maps the page, and no bit has to be set in it. What this does
 * not say yes to goes the long way. */
static bool take_entry(struct soft_cpu *cpu, enum soft_mmu mmu, const struct soft_walk_cache *c,
                       unsigned shift, uint64_t linear, uint32_t access, struct soft_translation *t)
{
    uint64_t within = BIT64(shift) - 1;
    uint64_t needed = PTE_PRESENT | PTE_ACCESSED | (access == SOFT_PF_WRITE ? PTE_DIRTY : 0) |
                      (shift > 12 ? PTE_LARGE : 0);
    uint64_t reserved = c->reserved | (shift > 12 ? BIT64(shift) - BIT64(13) : 0);
    uint64_t entry = __atomic_load_n(
        (const uint64_t *)(const void *)c->host + (linear >> shift) % 512, __ATOMIC_RELAXED);

    if ((entry & (needed | reserved)) != needed) {
        return false;
    }
    t->phys = (entry & PTE_ADDRESS & ~within) | (linear & within & SOFT_PAGE_MASK);
    t->shift = (uint8_t)shift;
    t->user = c->user && entry & PTE_USER;
    t->write = c->write && entry & PTE_WRITE;
    t->fetch = c->fetch && !(entry & PTE_NX);
    t->dirty = entry & PTE_DIRTY;
    soft_set_rights(cpu, mmu, t);
    return soft_allows(t, access);
}

/* The usual case of IA-32e paging: the walk caches lead to the last table. */
static inline bool walk_quickly(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear,
                                uint32_t access, struct soft_translation *t)
{
    const struct soft_tlb *tlb = cpu->tlb;

    for (unsigned level = 0, shift = 12; level < SOFT_WALK_LEVELS; level++, shift += 9) {
        uint64_t region = linear >> (shift + 9);
        const struct soft_walk_cache *c = &tlb->walks[level][region % SOFT_WALK_CACHE];

        if (c->key == region + 1 && c->epoch == tlb->epoch) {
            return c->host && (level < 2 || cpu->features->pdpe1gb) &&
                   take_entry(cpu, mmu, c, shift, linear, access, t);
        }
    }
    return false;
}

bool soft_walk(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear, uint32_t access,
               struct soft_translation *t, uint32_t *error)
{
    enum outcome outcome = WALK_AGAIN;

    if (!(cpu->cr0 & X86_CR0_PG)) {
        *t = (struct soft_translation){
            .phys = (uint32_t)linear & SOFT_PAGE_MASK,
            .shift = 12,
            .user = mmu == SOFT_MMU_USER,
            .write = true,
            .fetch = true,
            .dirty = true,
        };
        soft_set_rights(cpu, mmu, t);
        return true;
    }
    if (cpu->efer & X86_EFER_LMA && walk_quickly(cpu, mmu, linear, access, t)) {
        return true;
    }
    if (walk_once(cpu, mmu, linear, access, true, t, error) == WALK_DONE) {
        return true;
    }
    *error = 0;
    for (unsigned i = 0; i < WALK_TRIES && outcome == WALK_AGAIN; i++) {
        outcome = walk_once(cpu, mmu, linear, access, false, t, error);
    }
    *error |= access_error(cpu, mmu, access);
    return outcome == WALK_DONE;
}
