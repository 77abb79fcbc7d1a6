/* SPDX-License-Identifier: MIT */
/*
 * Blocks of decoded code, and how they stay true to guest memory.
 *
 * Each vCPU has its own blocks. A block is keyed by the host address of its first byte (thus by
 * physical page) and the mode, and lies in one page; an instruction that crosses into the next page
 * is a block of its own and carries both pages.
 *
 * For each page of RAM there is a mask of the vCPUs that have blocks from it. A vCPU that decodes
 * from a page sets its bit first, then has every vCPU's TLB entries for writes to that page
 * flagged, then reads the bytes. Thus every write goes the slow way, to soft_code_written(), by the
 * page's mask: own blocks are dropped at once, other vCPUs' through their mailboxes, which they read
 * before the next block. Writes by DMA come by mem/'s code hook, which does the same.
 *
 *   vCPU A                                vCPU B
 *   set bit of A in the page's mask
 *   post PROTECT(page) to B ------------> flags its entry; had it one: treats it as a write, since
 *   read the bytes, decode, run           it may have written before it saw the message
 *   drops blocks <----------------------- post WRITTEN(page, range)
 */
#ifndef FERRY_ACCEL_SOFT_CODE_H
#define FERRY_ACCEL_SOFT_CODE_H

#include "accel/soft/op.h"
#include "mem/ram.h"

/* A RAM block's pages, for the soft CPU. */
struct soft_ram {
    struct ram_block *block; /* may be gone while messages and blocks still name this: use host */
    uint8_t *host;           /* of block */
    uint64_t pages;
    _Atomic(uint64_t) *owners; /* per page: bit i: vCPU i has blocks from it */
};

/* Behind the last operation: where the block goes on, if that is known and in the same page of the host.
 * Who drops a block looks for links to it in the blocks of its page alone. */
struct soft_links {
    const struct soft_op *to[2];   /* [0]: next instruction, [1]: branch taken */
    const struct soft_block *from; /* whose links these are */
    uint64_t unused;
};
_Static_assert(sizeof(struct soft_links) == sizeof(struct soft_op), "takes the place of one");

/* What the instruction of a block of one does to the flow: for DEBUGCTL.BTF. */
enum soft_branch { SOFT_BRANCH_NONE, SOFT_BRANCH_CONDITIONAL, SOFT_BRANCH_ALWAYS };

struct soft_block {
    const uint8_t *host;  /* key: first byte */
    const uint8_t *host2; /* first byte of the second page, or NULL */
    uint32_t mode;        /* key: enum soft_mode */
    uint16_t first, last; /* offsets in the page: bytes [first, last) */
    uint16_t last2;       /* bytes [0, last2) of the second page */
    uint16_t op_count, instruction_count;
    bool dropped;
    uint8_t branch; /* enum soft_branch, if it is of SOFT_MODE_SINGLE */
    struct soft_block *hash_next;
    /* [0]: the page's list, [1]: the second page's; or of those to be freed */
    struct soft_block *page_next[2];
    struct soft_page *page[2];
    struct soft_op op[]; /* and the links */
};

static inline struct soft_links *soft_block_links(struct soft_block *block)
{
    return (struct soft_links *)(void *)&block->op[block->op_count];
}
static inline const struct soft_block *soft_block_of(const struct soft_op *first)
{
    return (const struct soft_block *)((const uint8_t *)first - offsetof(struct soft_block, op));
}

/* Direct-mapped, in front of the hash: what soft_dispatch() looks at. */
#define SOFT_FAST_BLOCKS 16384u

struct soft_code {
    struct soft_block *fast[SOFT_FAST_BLOCKS];
    struct soft_block **hash; /* SOFT_HASH_BLOCKS chains */
    struct soft_page *pages;  /* uthash by host address */
    struct soft_block *dead;  /* dropped, to be freed between blocks */
    uint64_t bytes;           /* of all blocks */
    uint64_t writes;          /* to pages with blocks: to see whether there was one meanwhile */
    uint64_t decoded, drops;  /* counts for -d and tests */
};

static inline unsigned soft_fast_index(const uint8_t *host, uint32_t mode)
{
    uintptr_t h = (uintptr_t)host;

    return (unsigned)((h ^ h >> 12 ^ mode << 4) % SOFT_FAST_BLOCKS);
}

/* The linear address of cpu->rip. */
static inline uint64_t soft_code_linear(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_CODE64 ? cpu->rip : (uint32_t)(cpu->seg_base[X86_CS] + cpu->rip);
}
static inline uint64_t soft_next_page(const struct soft_cpu *cpu, uint64_t linear)
{
    uint64_t next = (linear & SOFT_PAGE_MASK) + 4096;

    return cpu->mode & SOFT_MODE_CODE64 ? next : (uint32_t)next;
}

/* Somebody wants the vCPU between blocks. */
static inline bool soft_is_asked(struct soft_cpu *cpu)
{
    return __builtin_expect(atomic_load_explicit(&cpu->exit_request, memory_order_relaxed) != 0, 0);
}

/* The block at cpu->rip lies within the code segment. */
static inline bool soft_is_within_limit(const struct soft_cpu *cpu, const struct soft_block *b)
{
    return cpu->rip + (uint64_t)(b->last - b->first) + b->last2 - 1 <= cpu->seg[X86_CS].limit;
}

/* The first operation at cpu->rip, if its block is at hand and nobody asks; counts its instructions. */
static inline const struct soft_op *soft_lookup(struct soft_cpu *cpu)
{
    uint64_t linear = soft_code_linear(cpu);
    const struct soft_tlb *tlb = cpu->tlb;
    const struct soft_tlb_entry *e = &tlb->entry[tlb->code_mmu][(linear >> 12) % SOFT_TLB_SIZE];
    const struct soft_block *b;
    const uint8_t *host;

    if (__builtin_expect(e->exec != (linear & SOFT_PAGE_MASK), 0) || soft_is_asked(cpu)) {
        return NULL;
    }
    host = (const uint8_t *)(uintptr_t)(linear + e->addend);
    b = cpu->code->fast[soft_fast_index(host, cpu->mode)];
    if (__builtin_expect(!b || b->host != host || b->mode != cpu->mode, 0)) {
        return NULL;
    }
    if (!(b->mode & (SOFT_MODE_CODE64 | SOFT_MODE_FLAT)) && !soft_is_within_limit(cpu, b)) {
        return NULL;
    }
    cpu->page_ip = cpu->rip - (linear & 4095);
    cpu->instructions += b->instruction_count;
    return b->op;
}

void soft_code_init(struct soft_cpu *cpu);
void soft_code_destroy(struct soft_cpu *cpu);

/* The block at cpu->rip, decoded if need be. mode: cpu->mode, perhaps with SOFT_MODE_SINGLE. May fault
 * (fetch). Between blocks only. */
struct soft_block *soft_code_find(struct soft_cpu *cpu, uint32_t mode);

/* Something wrote [offset, offset + size) of a page that has code: own blocks that overlap are
 * dropped, other owners get a message. Any thread; cpu: the writing vCPU, or NULL (DMA). */
void soft_code_written(struct soft_cpu *cpu, struct soft_ram *ram, uint64_t ram_page,
                       unsigned offset, unsigned size);
/* vCPU thread, from the mailbox. */
void soft_code_drop(struct soft_cpu *cpu, struct soft_ram *ram, uint64_t ram_page, unsigned offset,
                    unsigned size);
void soft_code_drop_all(struct soft_cpu *cpu);

/* decode.c, before it reads the bytes of a second page: no write to it goes unseen from here on. */
void soft_code_claim(struct soft_cpu *cpu, const uint8_t *host, struct soft_ram *ram,
                     uint64_t ram_page);

/* Frees dropped blocks. Only between blocks. */
void soft_code_reap(struct soft_cpu *cpu);

/* decode.c: a new block of the bytes at a linear address whose host address is host (NULL: not memory;
 * the bytes come by soft_fetch_bytes()). Its last instruction may reach into the next page, whose info
 * and host address are filled in then. May fault. */
struct soft_block *soft_decode(struct soft_cpu *cpu, uint64_t linear, const uint8_t *host,
                               uint32_t mode, struct soft_tlb_info *second);
/* The last operation of a block that does not end with a branch. */
soft_op_fn soft_op_continue;

/* log.c: -d in_asm and exec. */
void soft_log_block(struct soft_cpu *cpu, uint64_t linear, const uint8_t *bytes,
                    const struct soft_block *block);
void soft_log_exec(struct soft_cpu *cpu, const struct soft_block *block);

/* ram.c: the VM's view of RAM; listens to the memory map. */
struct soft_ram *soft_ram_find(struct ram_block *block);
void soft_ram_init(struct soft_accel *soft);
/* Every vCPU has dropped its translations and blocks before it runs on. Machine lock held. */
void soft_flush_everybody(void);
void soft_ram_cleanup(struct soft_accel *soft);
/* A vCPU's bit in a page's mask, in step with mem/'s code bitmap. own: the mask as it was. */
uint64_t soft_ram_own(struct soft_ram *ram, uint64_t ram_page, unsigned index);
void soft_ram_disown(struct soft_ram *ram, uint64_t ram_page, unsigned index);

#endif
