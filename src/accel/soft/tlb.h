/* SPDX-License-Identifier: MIT */
/*
 * The soft CPU's memory accesses: linear address -> host pointer.
 *
 *      entry = tlb[(linear >> 12) % size]
 *      (linear + size - 1) & ~4095 == entry->read ?   yes: host = linear + entry->addend
 *                                                     no:  soft_*_slow(): walk, cross pages, MMIO
 *
 * An entry's tags are page addresses; a low bit set in a tag makes every comparison fail and sends
 * the access the slow way: MMIO, pages with decoded code (writes), watched pages, ROM (writes). The
 * last byte's page is compared: an access that crosses into the next page never matches, because
 * two neighbouring pages have different entries.
 *
 * One array per kind of privilege, so that a change of CPL flushes nothing. x86 guests expect that
 * loads and stores stay in order (SDM 8.2.2): guest accesses are volatile, and the host is an x86.
 *
 * Each PCID that the guest has used lately has a struct soft_tlb of its own (CR4.PCIDE; else there is
 * one): a load of CR3 that keeps translations takes the other PCID's. What changes memory or modes empties
 * all of them.
 *
 * All of it: vCPU thread.
 */
#ifndef FERRY_ACCEL_SOFT_TLB_H
#define FERRY_ACCEL_SOFT_TLB_H

#include "accel/soft/soft.h"
#include "base/range.h"

#define SOFT_TLB_BITS   11
#define SOFT_TLB_SIZE   (1u << SOFT_TLB_BITS)
#define SOFT_TLB_FILLED 256u /* slots that a flush empties one by one; more: the whole array */
#define SOFT_PAGE_MASK  (~UINT64_C(4095))

/* Low bits of tags. INVALID alone matches no page either. */
#define SOFT_TLB_INVALID UINT64_C(1)  /* no translation known */
#define SOFT_TLB_IO      UINT64_C(2)  /* not RAM: soft_tlb_info.phys says where */
#define SOFT_TLB_CODE    UINT64_C(4)  /* write tag: some vCPU has decoded code there */
#define SOFT_TLB_WATCH   UINT64_C(8)  /* a data breakpoint in this page */
#define SOFT_TLB_ROM     UINT64_C(16) /* write tag: writes do not go to memory */
#define SOFT_TLB_LOG     UINT64_C(32) /* write tag: writes are to be marked dirty */

struct soft_tlb_entry {
    uint64_t read, write, exec; /* page address | low bits */
    uint64_t addend;            /* host = linear + addend, if not IO */
};

/* Beside each entry, for the slow paths. */
struct soft_tlb_info {
    uint64_t phys;        /* guest physical page */
    struct soft_ram *ram; /* code.h; NULL: IO */
    uint64_t ram_page;    /* page number within it */
    uint8_t shift;        /* size of the guest's page: 12, 21, 22, 30 */
};

/* A piece of the memory map that is RAM or ROM, of whole pages (mmu.h). */
struct soft_host_range {
    uint64_t first, size; /* bytes; 0: nothing */
    uint8_t *host;        /* of first */
    struct soft_ram *ram;
    uint64_t ram_page; /* of first */
    bool readonly, dirty_log;
};
#define SOFT_HOST_RANGES 4u

/* A table that a walk has come to, and the rights so far (SDM volume 3, 4.10.3). */
struct soft_walk_cache {
    uint64_t key; /* linear address / what the table maps, plus 1; 0: nothing */
    uint64_t epoch;
    uint64_t table;      /* physical address */
    const uint8_t *host; /* of the table, or NULL */
    uint64_t reserved;   /* bits of its entries */
    bool user, write, fetch;
};
#define SOFT_WALK_CACHE  32u
#define SOFT_WALK_LEVELS 3u

/* Where the read-modify-write in hand goes: physical pieces, one per page (memory.c). */
struct soft_rmw {
    uint64_t phys[2];
    unsigned size[2]; /* bytes; the second is 0 unless it crosses pages */
    bool exclusive;   /* all other vCPUs are held */
    /* Then: the memory itself, of which nothing goes away meanwhile. The memory map may say otherwise
     * already. */
    struct {
        uint8_t *host;
        struct soft_ram *ram;
        uint64_t ram_page;
        bool dirty_log;
    } memory[2];
};

/* Privileges, and thus arrays. */
enum soft_mmu {
    SOFT_MMU_KERNEL, /* CPL 0 to 2, and implicit accesses; SMAP off or EFLAGS.AC = 1 */
    SOFT_MMU_KERNEL_SMAP, /* explicit accesses at CPL 0 to 2 with SMAP, AC = 0; implicit ones with SMAP */
    SOFT_MMU_USER,        /* CPL 3 */
    SOFT_MMU_COUNT,
};

struct soft_tlb {
    struct soft_tlb_entry entry[SOFT_MMU_COUNT][SOFT_TLB_SIZE];
    struct soft_tlb_info info[SOFT_MMU_COUNT][SOFT_TLB_SIZE];
    /* Always empty: data_tlb while alignment is checked (CR0.AM, AC, CPL 3), so that every access
     * takes the slow way, which checks. */
    struct soft_tlb_entry none[SOFT_TLB_SIZE];
    bool used[SOFT_MMU_COUNT]; /* something was put in since the last flush */
    enum soft_mmu data_mmu, code_mmu;
    bool check_alignment;
    /* As of the last flush: what the CPU sees, which is other memory in SMM; its generation, when
     * `ranges` was last known to be true; and bits of physical addresses, less A20 if the gate is
     * closed. */
    struct address_space *space;
    uint64_t generation;
    uint64_t phys_mask;
    /* tlb.c: the slots that are in use, unless there are more of them */
    uint16_t filled[SOFT_MMU_COUNT][SOFT_TLB_FILLED];
    unsigned filled_count[SOFT_MMU_COUNT];
    /* Where large pages may have entries: bit of a hash of the address / 4 MiB, and / 1 GiB. */
    uint64_t large[2];
    struct soft_host_range ranges[SOFT_HOST_RANGES];
    unsigned next_range; /* to be replaced */
    /* [0]: tables of pages, [1]: tables of those, [2]: of those. Entries of another epoch count as
     * empty. */
    struct soft_walk_cache walks[SOFT_WALK_LEVELS][SOFT_WALK_CACHE];
    uint64_t epoch;
    struct soft_rmw rmw;
    /* of cpu->contexts: */
    uint16_t pcid;
    bool live;         /* may have entries of this PCID */
    uint64_t selected; /* when it last was cpu->tlb, in selections */
};

/* The TLB of a vCPU that begins. */
void soft_tlb_create(struct soft_cpu *cpu);
void soft_tlb_destroy(struct soft_cpu *cpu);

/* ---- guest memory, once there is a host pointer ---------------------------------------------- */

/* Single moves on x86 whatever the alignment; in program order. ThreadSanitizer is not told: the
 * guest's races are its own. */
#define SOFT_HOST_ACCESS(bits, suffix)                                                             \
    static inline uint##bits##_t soft_host_load##bits(const void *p)                               \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        __asm__ volatile("mov %1, %0" : "=q"(v) : "m"(*(const uint8_t(*)[bits / 8]) p));           \
        return v;                                                                                  \
    }                                                                                              \
    static inline void soft_host_store##bits(void *p, uint##bits##_t v)                            \
    {                                                                                              \
        __asm__ volatile("mov" suffix " %1, %0" : "=m"(*(uint8_t(*)[bits / 8]) p) : "q"(v));       \
    }
SOFT_HOST_ACCESS(8, "b")
SOFT_HOST_ACCESS(16, "w")
SOFT_HOST_ACCESS(32, "l")
SOFT_HOST_ACCESS(64, "q")

/* ---- slow paths (tlb.c); fault by soft_raise() ------------------------------------------------ */

/* cpu->rip is that of the instruction. size 1 to 64 bytes; any alignment, across pages, any memory. */
void soft_load_slow(struct soft_cpu *cpu, uint64_t linear, void *buf, unsigned size);
/* Nothing is written if any byte cannot be. */
void soft_store_slow(struct soft_cpu *cpu, uint64_t linear, const void *buf, unsigned size);
/* Faults as a write would, without one. */
void soft_probe_write(struct soft_cpu *cpu, uint64_t linear, unsigned size);
/*
 * Host pointer for a read-modify-write, or NULL if it has to be done by soft_load_slow() and
 * soft_store_slow() (MMIO, page crossing, code). Faults as a write.
 */
void *soft_rmw_pointer(struct soft_cpu *cpu, uint64_t linear, unsigned size);

/*
 * Implicit supervisor accesses (descriptor tables, TSS, stacks of a new privilege): whatever the CPL,
 * as supervisor unless user is set. Not for data of instructions.
 */
void soft_system_load(struct soft_cpu *cpu, uint64_t linear, void *buf, unsigned size, bool user);
void soft_system_store(struct soft_cpu *cpu, uint64_t linear, const void *buf, unsigned size,
                       bool user);

/* Pushes of items of a size, the first at the top: what it cannot write is where the fault is. */
void soft_system_push(struct soft_cpu *cpu, uint64_t linear, const void *buf, unsigned size,
                      unsigned item, bool user);

/* Host address of code at a linear address, and how many bytes follow in its page; faults as a fetch.
 * NULL: not RAM or ROM (then the bytes come by soft_fetch_bytes()). */
const uint8_t *soft_fetch_pointer(struct soft_cpu *cpu, uint64_t linear,
                                  struct soft_tlb_info *info);
void soft_fetch_bytes(struct soft_cpu *cpu, uint64_t linear, uint8_t *buf, unsigned size);

/* ---- flushes --------------------------------------------------------------------------------- */

void soft_tlb_flush(struct soft_cpu *cpu); /* everything; cr3, cr4 and smm as they are to be */
void soft_tlb_flush_pcid(struct soft_cpu *cpu, unsigned pcid);
void soft_tlb_flush_page(struct soft_cpu *cpu, uint64_t linear); /* in every array, of any PCID */
/* cpu->tlb is that of a PCID from now on, as it was left if it is known yet. */
void soft_tlb_select(struct soft_cpu *cpu, unsigned pcid);
/* A page of RAM gets decoded code: writes to it go the slow way from now on. True if there was an
 * entry that let them go the fast way. */
bool soft_tlb_protect(struct soft_cpu *cpu, const struct soft_ram *ram, uint64_t ram_page);

/* ---- fast paths ------------------------------------------------------------------------------ */

static inline struct soft_tlb_entry *soft_tlb_slot(struct soft_cpu *cpu, uint64_t linear)
{
    return &cpu->data_tlb[(linear >> 12) % SOFT_TLB_SIZE];
}

static inline void *soft_tlb_host(const struct soft_tlb_entry *e, uint64_t linear)
{
    void *host = (void *)(uintptr_t)(linear + e->addend);

    if (!host) {
        __builtin_unreachable(); /* spares the caller's test for NULL */
    }
    return host;
}

/* Host pointers, or NULL: take the slow path. size: constant, at most 64. */
static inline void *soft_read_pointer(struct soft_cpu *cpu, uint64_t linear, unsigned size)
{
    const struct soft_tlb_entry *e = soft_tlb_slot(cpu, linear);

    if (__builtin_expect(((linear + size - 1) & SOFT_PAGE_MASK) == e->read, 1)) {
        return soft_tlb_host(e, linear);
    }
    return NULL;
}
static inline void *soft_write_pointer(struct soft_cpu *cpu, uint64_t linear, unsigned size)
{
    const struct soft_tlb_entry *e = soft_tlb_slot(cpu, linear);

    if (__builtin_expect(((linear + size - 1) & SOFT_PAGE_MASK) == e->write, 1)) {
        return soft_tlb_host(e, linear);
    }
    return NULL;
}

#endif
