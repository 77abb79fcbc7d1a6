/* SPDX-License-Identifier: MIT */
/*
 * What the files of the memory path share: walk.c (the guest's tables), tlb.c (entries), access.c
 * (the slow ways of loads and stores), memory.c (operands).
 *
 *      linear --tlb.c--> entry --miss--> walk.c --> soft_translation --> soft_host_page --> entry
 *
 * All of it: vCPU thread, in the guest.
 */
#ifndef FERRY_ACCEL_SOFT_MMU_H
#define FERRY_ACCEL_SOFT_MMU_H

#include "accel/soft/code.h"
#include "accel/soft/tlb.h"

/* Error code of page faults (SDM volume 3, 4.7). WRITE, FETCH or neither also name an access. */
enum soft_page_fault {
    SOFT_PF_PRESENT = 1 << 0,
    SOFT_PF_WRITE = 1 << 1,
    SOFT_PF_USER = 1 << 2,
    SOFT_PF_RESERVED = 1 << 3,
    SOFT_PF_FETCH = 1 << 4,
    SOFT_PF_READ = 0,
};

/* ---- walk.c ---------------------------------------------------------------------------------- */

/* What the tables say of a page, and what that means for a kind of privilege. */
struct soft_translation {
    uint64_t phys;            /* of the 4 KiB page */
    uint8_t shift;            /* of the guest's page */
    bool user, write, fetch;  /* of all levels together */
    bool dirty;               /* its dirty bit is set: later writes need not walk */
    bool reads, writes, runs; /* what the privilege may do, by soft_set_rights() */
};

/* SDM volume 3, 4.6.1. */
static inline void soft_set_rights(const struct soft_cpu *cpu, enum soft_mmu mmu,
                                   struct soft_translation *t)
{
    if (mmu == SOFT_MMU_USER) {
        t->reads = t->user;
        t->writes = t->user && t->write;
        t->runs = t->user && t->fetch;
    } else {
        t->reads = !(t->user && mmu == SOFT_MMU_KERNEL_SMAP);
        t->writes = t->reads && (t->write || !(cpu->cr0 & X86_CR0_WP));
        t->runs = t->fetch && !(t->user && cpu->cr4 & X86_CR4_SMEP);
    }
}
static inline bool soft_allows(const struct soft_translation *t, uint32_t access)
{
    return access == SOFT_PF_WRITE ? t->writes : access == SOFT_PF_FETCH ? t->runs : t->reads;
}

/* Walks for an access that is about to happen; sets accessed and dirty bits. False: page fault with
 * *error. linear is canonical, or of 32 bits. */
bool soft_walk(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear, uint32_t access,
               struct soft_translation *t, uint32_t *error);

/* ---- tlb.c ----------------------------------------------------------------------------------- */

/* The host's side of a physical page. */
struct soft_host_page {
    uint8_t *host; /* NULL: not RAM or ROM, or only partly */
    struct soft_ram *ram;
    uint64_t ram_page;
    bool readonly, dirty_log;
};
/* Looks into the memory map; the range it finds takes the place of another in tlb->ranges. */
struct soft_host_page soft_host_page_miss(struct soft_cpu *cpu, uint64_t phys);

static inline struct soft_host_page soft_host_page_in(const struct soft_host_range *range,
                                                      uint64_t phys)
{
    uint64_t offset = (phys & SOFT_PAGE_MASK) - range->first;

    return (struct soft_host_page){range->host + offset, range->ram,
                                   range->ram_page + (offset >> 12), range->readonly,
                                   range->dirty_log};
}
static inline struct soft_host_page soft_host_page(struct soft_cpu *cpu, uint64_t phys)
{
    const struct soft_host_range *range = cpu->tlb->ranges;

    phys &= cpu->tlb->phys_mask;
    for (unsigned i = 0; i < SOFT_HOST_RANGES; i++, range++) {
        if (phys - range->first < range->size) {
            return soft_host_page_in(range, phys);
        }
    }
    return soft_host_page_miss(cpu, phys);
}

/* The entry for an access, filled if need be. Raises #PF. Its tag for the access is valid, maybe with
 * flags that ask for the slow way. */
const struct soft_tlb_entry *soft_tlb_get(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear,
                                          uint32_t access);

static inline const struct soft_tlb_info *soft_tlb_info_of(const struct soft_cpu *cpu,
                                                           enum soft_mmu mmu, uint64_t linear)
{
    return &cpu->tlb->info[mmu][(linear >> 12) % SOFT_TLB_SIZE];
}

/* Bytes of RAM were written without a fast write tag that a PROTECT message would find: marks them
 * dirty and tells who has code there. */
void soft_after_write(struct soft_cpu *cpu, struct soft_ram *ram, uint64_t ram_page,
                      unsigned offset, unsigned size, bool dirty_log);

/* ---- access.c -------------------------------------------------------------------------------- */

/* Where an access goes: bytes of one page. */
struct soft_piece {
    uint64_t phys;
    uint8_t *host; /* of the first byte; NULL: not memory, or not to be written directly */
    struct soft_ram *ram;
    uint64_t ram_page;
    unsigned size;
    bool dirty_log;
    bool fast; /* host may be used as it is, nothing has to follow */
};

enum soft_access_flags {
    SOFT_ACCESS_STACK = 1 << 0, /* an address that is none is #SS(0), not #GP(0) */
    SOFT_ACCESS_IMPLICIT =
        1 << 1, /* by the CPU itself: no alignment check, no 32-bit wrap in IA-32e */
};

/* Checks and translates; the host pointer, if that is all there is to it. */
uint8_t *soft_direct(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                     unsigned size, uint32_t access);
/* The one or two pieces of an access, after all checks; the number of them. Raises. */
unsigned soft_pieces(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                     unsigned size, uint32_t access, struct soft_piece piece[2]);
/* A piece of physical memory, once an exit may have changed the map; access as in soft_pieces(). */
struct soft_piece soft_piece_at(struct soft_cpu *cpu, uint64_t phys, unsigned size,
                                uint32_t access);
/* These do not fault. True: the guest was left in between; pieces found before may be stale. */
bool soft_piece_load(struct soft_cpu *cpu, const struct soft_piece *piece, void *buf);
bool soft_piece_store(struct soft_cpu *cpu, const struct soft_piece *piece, const void *buf);

void soft_load_at(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                  void *buf, unsigned size);
void soft_store_at(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                   const void *buf, unsigned size);

/* Records data breakpoints that an access has hit (SDM volume 3, 17.2.4), to be reported after the
 * instruction. */
void soft_watch(struct soft_cpu *cpu, uint64_t linear, unsigned size, bool is_write);

/* The same for ports (CR4.DE). */
void soft_watch_io(struct soft_cpu *cpu, uint16_t port, unsigned size);

/* ---- copies to and from guest memory: as few moves as can be, in order ------------------------- */

static inline void soft_host_load128(void *to, const void *p)
{
    typedef struct {
        uint8_t b[16];
    } bytes;
    long long v __attribute__((vector_size(16)));

    __asm__ volatile("movdqu %1, %0" : "=x"(v) : "m"(*(const bytes *)p));
    __builtin_memcpy(to, &v, 16);
}
static inline void soft_host_store128(void *p, const void *from)
{
    typedef struct {
        uint8_t b[16];
    } bytes;
    long long v __attribute__((vector_size(16)));

    __builtin_memcpy(&v, from, 16);
    __asm__ volatile("movdqu %1, %0" : "=m"(*(bytes *)p) : "x"(v));
}

#define SOFT_COPY_STEP(bits)                                                                       \
    if (size & (bits / 8)) {                                                                       \
        uint##bits##_t v = soft_host_load##bits(from);                                             \
        __builtin_memcpy(to, &v, bits / 8);                                                        \
        from += bits / 8;                                                                          \
        to += bits / 8;                                                                            \
    }
static inline void soft_copy_from_guest(void *buf, const void *host, unsigned size)
{
    const uint8_t *from = host;
    uint8_t *to = buf;

    for (; size >= 16; size -= 16, from += 16, to += 16) {
        soft_host_load128(to, from);
    }
    SOFT_COPY_STEP(64)
    SOFT_COPY_STEP(32)
    SOFT_COPY_STEP(16)
    SOFT_COPY_STEP(8)
}
#undef SOFT_COPY_STEP

#define SOFT_COPY_STEP(bits)                                                                       \
    if (size & (bits / 8)) {                                                                       \
        uint##bits##_t v;                                                                          \
        __builtin_memcpy(&v, from, bits / 8);                                                      \
        soft_host_store##bits(to, v);                                                              \
        from += bits / 8;                                                                          \
        to += bits / 8;                                                                            \
    }
static inline void soft_copy_to_guest(void *host, const void *buf, unsigned size)
{
    const uint8_t *from = buf;
    uint8_t *to = host;

    for (; size >= 16; size -= 16, from += 16, to += 16) {
        soft_host_store128(to, from);
    }
    SOFT_COPY_STEP(64)
    SOFT_COPY_STEP(32)
    SOFT_COPY_STEP(16)
    SOFT_COPY_STEP(8)
}
#undef SOFT_COPY_STEP

#endif
