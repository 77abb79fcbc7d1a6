/* SPDX-License-Identifier: MIT */
/*
 * The vCPU's blocks: finding, adding, dropping (code.h).
 *
 * A block that is dropped leaves every table at once, and its operations are overwritten with
 * soft_op_stale: if it is the one that runs, it ends before its next instruction. It is freed
 * between blocks.
 */
#include "accel/soft/code.h"

#include <stdlib.h>
#include <string.h>

/* Keys are pages' host addresses. */
static inline unsigned page_hash(const void *key)
{
    uintptr_t host;

    memcpy(&host, key, sizeof(host));
    return (unsigned)((uint64_t)host * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}
#define HASH_FUNCTION(key, length, value) ((value) = page_hash(key))
#include <uthash.h>

#include "accel/soft/mailbox.h"
#include "base/alloc.h"

#define SOFT_HASH_BLOCKS 32768u

/* Most blocks of a page. Code has fewer; a guest that runs a page from every offset in every mode would
 * make each write to it slow. */
#define SOFT_PAGE_BLOCKS 2048u

struct soft_page {
    const uint8_t *host; /* key */
    struct soft_ram *ram;
    uint64_t ram_page;
    struct soft_block *blocks; /* by page_next[0] or [1] */
    unsigned block_count;
    uint64_t granules; /* bit i: bytes [64 i, 64 i + 64) may have code */
    UT_hash_handle hh;
};

void soft_code_init(struct soft_cpu *cpu)
{
    cpu->code = xnew(struct soft_code);
    cpu->code->hash = xcalloc(SOFT_HASH_BLOCKS, sizeof(*cpu->code->hash));
}

void soft_code_destroy(struct soft_cpu *cpu)
{
    if (cpu->code) {
        soft_code_drop_all(cpu);
        soft_code_reap(cpu);
        free(cpu->code->hash);
        free(cpu->code);
        cpu->code = NULL;
    }
}

/* ---- tables ---------------------------------------------------------------------------------- */

static unsigned hash_index(const uint8_t *host, uint32_t mode)
{
    uint64_t h = ((uint64_t)(uintptr_t)host ^ (uint64_t)mode << 40) * UINT64_C(0x9e3779b97f4a7c15);

    return (unsigned)(h >> 49) % SOFT_HASH_BLOCKS;
}

static struct soft_block *lookup(const struct soft_code *code, const uint8_t *host, uint32_t mode)
{
    struct soft_block *b = code->hash[hash_index(host, mode)];

    while (b && (b->host != host || b->mode != mode)) {
        b = b->hash_next;
    }
    return b;
}

static unsigned which_page(const struct soft_block *b, const struct soft_page *page)
{
    return b->page[0] == page ? 0 : 1;
}

static uint64_t granules_of(unsigned first, unsigned end)
{
    unsigned low = first / 64, high = (end - 1) / 64;

    return (UINT64_MAX >> (63 - high)) & (UINT64_MAX << low);
}

/* Bytes of the block in one of its pages. */
static void extent(const struct soft_block *b, unsigned which, unsigned *first, unsigned *end)
{
    *first = which ? 0 : b->first;
    *end = which ? b->last2 : b->last;
}

static void add_to_page(struct soft_block *b, unsigned which, struct soft_page *page)
{
    unsigned first, end;

    extent(b, which, &first, &end);
    b->page[which] = page;
    b->page_next[which] = page->blocks;
    page->blocks = b;
    page->block_count++;
    page->granules |= granules_of(first, end);
}

static void remove_from_page(struct soft_block *b, unsigned which)
{
    struct soft_page *page = b->page[which];
    struct soft_block **link = &page->blocks;

    while (*link != b) {
        link = &(*link)->page_next[which_page(*link, page)];
    }
    *link = b->page_next[which];
    page->block_count--;
    b->page[which] = NULL;
}

/* ---- pages ----------------------------------------------------------------------------------- */

/* The page is about to have code of ours: no write to it goes unseen from here on. */
static struct soft_page *claim_page(struct soft_cpu *cpu, const uint8_t *host, struct soft_ram *ram,
                                    uint64_t ram_page)
{
    struct soft_code *code = cpu->code;
    struct soft_page *page;
    uint64_t old;

    HASH_FIND_PTR(code->pages, &host, page);
    if (page) {
        return page;
    }
    page = xnew(struct soft_page);
    page->host = host;
    page->ram = ram;
    page->ram_page = ram_page;
    HASH_ADD_PTR(code->pages, host, page);
    old = soft_ram_own(ram, ram_page, cpu->index);
    /* Whoever was first has told the others; but not this vCPU about itself. */
    soft_tlb_protect(cpu, ram, ram_page);
    if (!old) {
        soft_post_protect(cpu, ram, ram_page);
    }
    return page;
}

void soft_code_claim(struct soft_cpu *cpu, const uint8_t *host, struct soft_ram *ram,
                     uint64_t ram_page)
{
    claim_page(cpu, host, ram, ram_page);
}

static void release_page(struct soft_cpu *cpu, struct soft_page *page)
{
    soft_ram_disown(page->ram, page->ram_page, cpu->index);
    HASH_DEL(cpu->code->pages, page);
    free(page);
}

/* ---- dropping -------------------------------------------------------------------------------- */

/* The block that runs was dropped: on to the run loop, at this instruction. */
static const struct soft_op *soft_op_stale(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_sync(cpu, op);
    return NULL;
}

static void unlink_chains(const struct soft_page *page, const struct soft_block *to)
{
    for (struct soft_block *b = page->blocks; b; b = b->page_next[which_page(b, page)]) {
        struct soft_links *links = soft_block_links(b);

        for (unsigned i = 0; i < 2; i++) {
            if (links->to[i] == to->op) {
                links->to[i] = NULL;
            }
        }
    }
}

/* It is in no table any more. */
static void retire(struct soft_code *code, struct soft_block *b)
{
    struct soft_links *links = soft_block_links(b);

    for (unsigned i = 0; i < b->op_count; i++) {
        b->op[i].fn = soft_op_stale;
    }
    links->to[0] = links->to[1] = NULL;
    b->page[0] = b->page[1] = NULL;
    b->dropped = true;
    b->page_next[0] = code->dead;
    code->dead = b;
    code->drops++;
}

static void drop(struct soft_cpu *cpu, struct soft_block *b)
{
    struct soft_code *code = cpu->code;
    struct soft_block **link = &code->hash[hash_index(b->host, b->mode)];
    unsigned fast = soft_fast_index(b->host, b->mode);

    while (*link != b) {
        link = &(*link)->hash_next;
    }
    *link = b->hash_next;
    if (code->fast[fast] == b) {
        code->fast[fast] = NULL;
    }
    unlink_chains(b->page[0], b);
    for (unsigned i = 0; i < 2; i++) {
        if (b->page[i]) {
            remove_from_page(b, i);
        }
    }
    retire(code, b);
}

void soft_code_drop(struct soft_cpu *cpu, struct soft_ram *ram, uint64_t ram_page, unsigned offset,
                    unsigned size)
{
    const uint8_t *host = ram->host + ram_page * 4096;
    unsigned end = offset + size, first, last;
    struct soft_page *page;
    struct soft_block *next;

    HASH_FIND_PTR(cpu->code->pages, &host, page);
    cpu->code->writes += page != NULL;
    if (!page || (page->blocks && !(page->granules & granules_of(offset, end)))) {
        return;
    }
    page->granules = 0;
    for (struct soft_block *b = page->blocks; b; b = next) {
        unsigned which = which_page(b, page);

        next = b->page_next[which];
        extent(b, which, &first, &last);
        if (first < end && offset < last) {
            struct soft_page *other = b->page[!which];
            drop(cpu, b);
            if (other && !other->blocks) {
                release_page(cpu, other);
            }
        } else {
            page->granules |= granules_of(first, last);
        }
    }
    if (!page->blocks) {
        release_page(cpu, page);
    }
}

/* There may be very many: each is looked at once. */
void soft_code_drop_all(struct soft_cpu *cpu)
{
    struct soft_code *code = cpu->code;
    struct soft_page *page;
    struct soft_block *next;

    if (!code->pages) {
        return;
    }
    memset(code->fast, 0, sizeof(code->fast));
    memset(code->hash, 0, SOFT_HASH_BLOCKS * sizeof(*code->hash));
    for (page = code->pages; page; page = page->hh.next) {
        for (struct soft_block *b = page->blocks; b; b = next) {
            unsigned which = which_page(b, page);

            next = b->page_next[which];
            if (which == 0) { /* once, from its first page */
                retire(code, b);
            }
        }
    }
    while ((page = code->pages) != NULL) {
        release_page(cpu, page);
    }
}

void soft_code_written(struct soft_cpu *cpu, struct soft_ram *ram, uint64_t ram_page,
                       unsigned offset, unsigned size)
{
    uint64_t owners = atomic_load(&ram->owners[ram_page]);

    if (cpu) {
        uint64_t own = UINT64_C(1) << cpu->index;

        if (owners & own) {
            soft_code_drop(cpu, ram, ram_page, offset, size);
        }
        owners &= ~own;
    }
    if (owners) {
        soft_post_written(owners, ram, ram_page, offset, size);
    }
}

static void release(struct soft_code *code, struct soft_block *b)
{
    code->bytes -= sizeof(*b) + (b->op_count + 1u) * sizeof(struct soft_op);
    free(b);
}

void soft_code_reap(struct soft_cpu *cpu)
{
    struct soft_block *next;

    for (struct soft_block *b = cpu->code->dead; b; b = next) {
        next = b->page_next[0];
        release(cpu->code, b);
    }
    cpu->code->dead = NULL;
}

/* ---- finding --------------------------------------------------------------------------------- */

/* Runs once. */
static struct soft_block *transient(struct soft_cpu *cpu, struct soft_block *b)
{
    b->dropped = true;
    b->page_next[0] = cpu->code->dead;
    cpu->code->dead = b;
    return b;
}

/* The block reaches into a second page that can have it, too. */
static bool can_have_second(const struct soft_cpu *cpu, const struct soft_block *b,
                            const uint8_t *first)
{
    struct soft_page *page;

    HASH_FIND_PTR(cpu->code->pages, &b->host2, page); /* fetched, so claimed, if it is memory */
    return page && b->host2 != first && page->block_count < SOFT_PAGE_BLOCKS;
}

static void add(struct soft_cpu *cpu, struct soft_block *b, struct soft_page *page,
                const struct soft_tlb_info *second)
{
    struct soft_code *code = cpu->code;
    struct soft_block **chain = &code->hash[hash_index(b->host, b->mode)];

    add_to_page(b, 0, page);
    if (b->host2) {
        add_to_page(b, 1, claim_page(cpu, b->host2, second->ram, second->ram_page));
    }
    b->hash_next = *chain;
    *chain = b;
}

/* SDM volume 3, 6.15: fetches beyond the code segment's limit, and at addresses that are none. */
static void check_ip(struct soft_cpu *cpu, uint64_t linear)
{
    const struct x86_segment *cs = &cpu->seg[X86_CS];

    if (cpu->mode & SOFT_MODE_CODE64 ? !soft_is_canonical(cpu, linear) : cpu->rip > cs->limit) {
        soft_raise(cpu, EXC_GP, 0);
    }
}

/* A block that would run beyond the limit is run by single instructions, and the one that does is
 * refused. */
static struct soft_block *within_limit(struct soft_cpu *cpu, struct soft_block *b, uint32_t mode)
{
    if (mode & SOFT_MODE_CODE64 || soft_is_within_limit(cpu, b)) {
        return b;
    }
    if (b->instruction_count > 1) {
        return soft_code_find(cpu, mode | SOFT_MODE_SINGLE);
    }
    soft_raise(cpu, EXC_GP, 0);
}

struct soft_block *soft_code_find(struct soft_cpu *cpu, uint32_t mode)
{
    struct soft_code *code = cpu->code;
    struct soft_tlb_info info = {0}, second = {0};
    uint64_t linear = soft_code_linear(cpu);
    unsigned offset = linear & 4095;
    const uint8_t *host, *page_host;
    struct soft_block *b;

    check_ip(cpu, linear);
    cpu->page_ip = cpu->rip - offset;
    host = soft_fetch_pointer(cpu, linear, &info);
    if (!host || !info.ram) {
        b = soft_decode(cpu, linear, NULL, mode, &second);
        return within_limit(cpu, transient(cpu, b), mode);
    }
    page_host = host - offset;
    b = lookup(code, host, mode);
    if (b && b->host2 &&
        soft_fetch_pointer(cpu, soft_next_page(cpu, linear), &second) != b->host2) {
        /* The second page is another now. */
        soft_code_drop(cpu, info.ram, info.ram_page, offset, 1);
        b = NULL;
    }
    if (!b) {
        if (code->bytes > cpu->soft->code_bytes) {
            soft_code_drop_all(cpu);
            soft_code_reap(cpu);
        }
        struct soft_page *page = claim_page(cpu, page_host, info.ram, info.ram_page);
        if (page->block_count >= SOFT_PAGE_BLOCKS) {
            soft_code_drop(cpu, info.ram, info.ram_page, 0, 4096);
            page = claim_page(cpu, page_host, info.ram, info.ram_page);
        }
        uint64_t writes = code->writes;
        b = soft_decode(cpu, linear, host, mode, &second);
        code->decoded++;
        /* The walk for the second page may have set a bit in one of the two, which are tables, too:
         * what was read may not be what is there now, and the page may be released. */
        if (code->writes != writes || (b->last2 && !can_have_second(cpu, b, page_host))) {
            return within_limit(cpu, transient(cpu, b), mode);
        }
        add(cpu, b, page, &second);
    }
    if (!b->host2) {
        code->fast[soft_fast_index(host, mode)] = b;
    }
    return within_limit(cpu, b, mode);
}
