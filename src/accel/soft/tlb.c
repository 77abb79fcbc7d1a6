/* SPDX-License-Identifier: MIT */
/*
 * The software TLB: filling entries, dropping them (tlb.h).
 *
 * A page with decoded code gets no fast write tag. If another vCPU decodes from a page while this one
 * has such a tag, it posts a PROTECT message, and the tag, found when the message is read, counts as
 * a write. So a fast write tag never goes away unnoticed: whoever drops or replaces it looks at the
 * page's owners first (retire()).
 */
#include <stdlib.h>
#include <string.h>

#include "accel/soft/mmu.h"
#include "accel/soft/system.h"
#include "base/alloc.h"
#include "mem/address_space.h"

#define EMPTY UINT64_MAX /* a tag; all flags are set */

/* Tags with one of these let no write go straight to memory. */
#define NO_WRITE (SOFT_TLB_INVALID | SOFT_TLB_IO | SOFT_TLB_CODE | SOFT_TLB_ROM | SOFT_TLB_LOG)

#define DR7_ENABLES 0xffu

#define A20  BIT64(20)
#define PCID 0xfffu /* of CR3 */

static bool tag_matches(uint64_t tag, uint64_t page)
{
    return !(tag & SOFT_TLB_INVALID) && (tag & SOFT_PAGE_MASK) == page;
}

static bool entry_matches(const struct soft_tlb_entry *e, uint64_t page)
{
    return tag_matches(e->read, page) || tag_matches(e->write, page) || tag_matches(e->exec, page);
}

static bool is_empty(const struct soft_tlb_entry *e)
{
    return e->read & e->write & e->exec & SOFT_TLB_INVALID;
}

static void make_empty(struct soft_tlb_entry *e)
{
    e->read = e->write = e->exec = EMPTY;
}

/* ---- physical pages --------------------------------------------------------------------------- */

struct soft_host_page soft_host_page_miss(struct soft_cpu *cpu, uint64_t phys)
{
    struct soft_tlb *tlb = cpu->tlb;
    struct soft_host_range *range = &tlb->ranges[tlb->next_range];
    struct mem_host_page found;

    if (!address_space_find_ram(tlb->space, phys, &found)) {
        return (struct soft_host_page){0};
    }
    struct soft_ram *ram = soft_ram_find(found.ram);
    if (!ram) {
        /* A view that the listener has not heard of yet: as if it were a device's, until then. */
        return (struct soft_host_page){0};
    }
    uint64_t before = (phys & SOFT_PAGE_MASK) - found.first;
    tlb->next_range = (tlb->next_range + 1) % SOFT_HOST_RANGES;
    *range = (struct soft_host_range){
        .first = found.first,
        .size = found.last - found.first + 1,
        .host = found.host - before,
        .ram = ram,
        .ram_page = (found.offset - before) / GUEST_PAGE_SIZE,
        .readonly = found.readonly,
        .dirty_log = found.dirty_log,
    };
    return soft_host_page_in(range, phys);
}

static bool has_others(const struct soft_cpu *cpu)
{
    return cpu->soft->count_max > 1;
}

void soft_after_write(struct soft_cpu *cpu, struct soft_ram *ram, uint64_t ram_page,
                      unsigned offset, unsigned size, bool dirty_log)
{
    if (dirty_log) {
        ram_set_dirty(ram->block, ram_page * GUEST_PAGE_SIZE + offset, size);
    }
    if (has_others(cpu)) {
        /* The bytes before the look at the owners; pairs with code.c, which sets its bit before it
         * reads the bytes. */
        atomic_thread_fence(memory_order_seq_cst);
    }
    if (atomic_load_explicit(&ram->owners[ram_page], memory_order_relaxed)) {
        soft_code_written(cpu, ram, ram_page, offset, size);
    }
}

/* ---- dropping entries -------------------------------------------------------------------------- */

static bool is_fast_writable(const struct soft_tlb_entry *e)
{
    return !(e->write & NO_WRITE);
}

static void retire_fenced(struct soft_cpu *cpu, const struct soft_tlb_entry *e,
                          const struct soft_tlb_info *info)
{
    if (is_fast_writable(e) &&
        atomic_load_explicit(&info->ram->owners[info->ram_page], memory_order_relaxed)) {
        soft_code_written(cpu, info->ram, info->ram_page, 0, 4096);
    }
}

/* The entry is about to go. */
static void retire(struct soft_cpu *cpu, const struct soft_tlb_entry *e,
                   const struct soft_tlb_info *info)
{
    if (is_fast_writable(e) && has_others(cpu)) {
        /* What was written through it before the look at the owners. */
        atomic_thread_fence(memory_order_seq_cst);
        retire_fenced(cpu, e, info);
    }
}

/* The slots that may be in use: by number of the list, or all. */
static unsigned in_use(const struct soft_tlb *tlb, enum soft_mmu mmu)
{
    unsigned count = tlb->filled_count[mmu];

    return count <= SOFT_TLB_FILLED ? count : SOFT_TLB_SIZE;
}
static unsigned slot_in_use(const struct soft_tlb *tlb, enum soft_mmu mmu, unsigned i)
{
    return tlb->filled_count[mmu] <= SOFT_TLB_FILLED ? tlb->filled[mmu][i] : i;
}

static void flush_array(struct soft_cpu *cpu, struct soft_tlb *tlb, enum soft_mmu mmu)
{
    unsigned count = in_use(tlb, mmu);

    for (unsigned i = 0; has_others(cpu) && i < count; i++) {
        unsigned slot = slot_in_use(tlb, mmu, i);
        retire_fenced(cpu, &tlb->entry[mmu][slot], &tlb->info[mmu][slot]);
    }
    if (count < SOFT_TLB_SIZE) {
        for (unsigned i = 0; i < count; i++) {
            make_empty(&tlb->entry[mmu][tlb->filled[mmu][i]]);
        }
    } else {
        memset(tlb->entry[mmu], 0xff, sizeof(tlb->entry[mmu]));
    }
    tlb->filled_count[mmu] = 0;
    tlb->used[mmu] = false;
}

/* What the CPU sees now. */
static void look_at_memory(const struct soft_cpu *cpu, struct soft_tlb *tlb)
{
    struct address_space *space = cpu->smm ? address_space_smm : address_space_memory;
    uint64_t generation = address_space_generation(space);

    if (space != tlb->space || generation != tlb->generation) {
        memset(tlb->ranges, 0, sizeof(tlb->ranges));
        tlb->space = space;
        tlb->generation = generation;
    }
    /* The gate is the chipset's A20M#, which a processor in SMM ignores. */
    tlb->phys_mask = atomic_load(&cpu->soft->a20_closed) && !cpu->smm ? ~A20 : UINT64_MAX;
}

static void flush_context(struct soft_cpu *cpu, struct soft_tlb *tlb)
{
    if (has_others(cpu)) {
        atomic_thread_fence(memory_order_seq_cst); /* as in retire() */
    }
    for (unsigned mmu = 0; mmu < SOFT_MMU_COUNT; mmu++) {
        if (tlb->used[mmu]) {
            flush_array(cpu, tlb, mmu);
        }
    }
    tlb->large[0] = tlb->large[1] = 0;
    tlb->epoch++;
}

void soft_tlb_flush(struct soft_cpu *cpu)
{
    for (unsigned i = 0; i < SOFT_TLB_CONTEXTS; i++) {
        struct soft_tlb *tlb = cpu->contexts[i];

        if (tlb && tlb->live) {
            flush_context(cpu, tlb);
            tlb->live = tlb == cpu->tlb;
        }
    }
    look_at_memory(cpu, cpu->tlb);
    cpu->tlb->pcid = cpu->cr4 & X86_CR4_PCIDE ? cpu->cr3 & PCID : 0;
}

/* Of the 4 MiB, or the GiB, that an address lies in. */
static uint64_t large_bit(uint64_t linear, bool huge)
{
    uint64_t n = linear >> (huge ? 30 : 22);

    return BIT64((n ^ n >> 6 ^ n >> 12) % 64);
}

/* The page may be part of a large one, whose parts are anywhere in the arrays. */
static void flush_large(struct soft_cpu *cpu, struct soft_tlb *tlb, enum soft_mmu mmu,
                        uint64_t linear)
{
    for (unsigned i = 0, end = in_use(tlb, mmu); i < end; i++) {
        unsigned slot = slot_in_use(tlb, mmu, i);
        struct soft_tlb_entry *e = &tlb->entry[mmu][slot];
        unsigned shift = tlb->info[mmu][slot].shift;
        uint64_t within = linear & ~(BIT64(shift) - 1);
        /* Some tag is valid; the others are EMPTY, all ones. */
        uint64_t page = e->read & e->write & e->exec & SOFT_PAGE_MASK;

        if (shift > 12 && !is_empty(e) && (page & ~(BIT64(shift) - 1)) == within) {
            retire(cpu, e, &tlb->info[mmu][slot]);
            make_empty(e);
        }
    }
}

static void flush_page(struct soft_cpu *cpu, struct soft_tlb *tlb, uint64_t linear)
{
    bool large;

    tlb->epoch++; /* INVLPG: all of the walk caches (SDM volume 3, 4.10.4.1) */
    large = tlb->large[0] & large_bit(linear, false) || tlb->large[1] & large_bit(linear, true);
    for (unsigned mmu = 0; mmu < SOFT_MMU_COUNT; mmu++) {
        unsigned slot = (linear >> 12) % SOFT_TLB_SIZE;
        struct soft_tlb_entry *e = &tlb->entry[mmu][slot];

        if (!tlb->used[mmu]) {
            continue;
        }
        if (entry_matches(e, linear & SOFT_PAGE_MASK)) {
            retire(cpu, e, &tlb->info[mmu][slot]);
            make_empty(e);
        }
        if (large) {
            flush_large(cpu, tlb, mmu, linear);
        }
    }
}

/* Global pages are so in every PCID; nothing here knows which are. */
void soft_tlb_flush_page(struct soft_cpu *cpu, uint64_t linear)
{
    if (!(cpu->efer & X86_EFER_LMA)) {
        linear = (uint32_t)linear;
    }
    for (unsigned i = 0; i < SOFT_TLB_CONTEXTS; i++) {
        if (cpu->contexts[i] && cpu->contexts[i]->live) {
            flush_page(cpu, cpu->contexts[i], linear);
        }
    }
}

static bool protect(struct soft_tlb *tlb, const struct soft_ram *ram, uint64_t ram_page)
{
    bool any = false;

    for (unsigned mmu = 0; mmu < SOFT_MMU_COUNT; mmu++) {
        for (unsigned i = 0, end = in_use(tlb, mmu); i < end; i++) {
            unsigned slot = slot_in_use(tlb, mmu, i);
            const struct soft_tlb_info *info = &tlb->info[mmu][slot];
            struct soft_tlb_entry *e = &tlb->entry[mmu][slot];

            if (is_fast_writable(e) && info->ram == ram && info->ram_page == ram_page) {
                e->write |= SOFT_TLB_CODE;
                any = true;
            }
        }
    }
    return any;
}

bool soft_tlb_protect(struct soft_cpu *cpu, const struct soft_ram *ram, uint64_t ram_page)
{
    bool any = false;

    for (unsigned i = 0; i < SOFT_TLB_CONTEXTS; i++) {
        if (cpu->contexts[i] && cpu->contexts[i]->live) {
            any |= protect(cpu->contexts[i], ram, ram_page);
        }
    }
    return any;
}

/* ---- PCIDs -------------------------------------------------------------------------------------- */

static struct soft_tlb *tlb_new(void)
{
    struct soft_tlb *tlb = xaligned_alloc(64, sizeof(*tlb));

    memset(tlb, 0, sizeof(*tlb));
    memset(tlb->none, 0xff, sizeof(tlb->none));
    memset(tlb->entry, 0xff, sizeof(tlb->entry));
    return tlb;
}

void soft_tlb_create(struct soft_cpu *cpu)
{
    cpu->tlb = cpu->contexts[0] = tlb_new();
    cpu->tlb->live = true;
    cpu->data_tlb = cpu->tlb->entry[SOFT_MMU_KERNEL];
    look_at_memory(cpu, cpu->tlb);
}

void soft_tlb_destroy(struct soft_cpu *cpu)
{
    for (unsigned i = 0; i < SOFT_TLB_CONTEXTS; i++) {
        free(cpu->contexts[i]);
    }
}

static struct soft_tlb *find_pcid(const struct soft_cpu *cpu, unsigned pcid)
{
    for (unsigned i = 0; i < SOFT_TLB_CONTEXTS; i++) {
        struct soft_tlb *tlb = cpu->contexts[i];

        if (tlb && tlb->live && tlb->pcid == pcid) {
            return tlb;
        }
    }
    return NULL;
}

void soft_tlb_flush_pcid(struct soft_cpu *cpu, unsigned pcid)
{
    struct soft_tlb *tlb = find_pcid(cpu, pcid);

    if (tlb) {
        flush_context(cpu, tlb);
        look_at_memory(cpu, tlb);
    }
}

/* One without entries: new, or taken from the PCID that has not been used for longest. */
static struct soft_tlb *context_for(struct soft_cpu *cpu, unsigned pcid)
{
    struct soft_tlb *oldest = NULL;

    for (unsigned i = 0; i < SOFT_TLB_CONTEXTS; i++) {
        struct soft_tlb *tlb = cpu->contexts[i];

        if (!tlb) {
            tlb = cpu->contexts[i] = tlb_new();
        }
        if (!tlb->live) {
            oldest = tlb;
            break;
        }
        if (tlb != cpu->tlb && (!oldest || tlb->selected < oldest->selected)) {
            oldest = tlb;
        }
    }
    flush_context(cpu, oldest);
    look_at_memory(cpu, oldest);
    oldest->live = true;
    oldest->pcid = (uint16_t)pcid;
    return oldest;
}

void soft_tlb_select(struct soft_cpu *cpu, unsigned pcid)
{
    struct soft_tlb *tlb = cpu->tlb->pcid == pcid ? cpu->tlb : find_pcid(cpu, pcid);

    if (!tlb) {
        tlb = context_for(cpu, pcid);
    }
    tlb->selected = ++cpu->tlb_selections;
    cpu->tlb = tlb;
    soft_update_tlb(cpu);
}

/* ---- filling ----------------------------------------------------------------------------------- */

/* SOFT_TLB_WATCH for the tags of a page that a data breakpoint lies in (SDM volume 3, 17.2.4). */
static void watch_page(const struct soft_cpu *cpu, uint64_t page, uint64_t *read, uint64_t *write)
{
    for (unsigned i = 0; i < 4; i++) {
        unsigned type = cpu->dr7 >> (16 + 4 * i) & 3; /* 1: writes, 3: reads and writes */

        if ((cpu->dr7 >> (2 * i) & 3) && type & 1 && (cpu->dr[i] & SOFT_PAGE_MASK) == page) {
            *write |= SOFT_TLB_WATCH;
            *read |= type == 3 ? SOFT_TLB_WATCH : 0;
        }
    }
}

/* The slot is about to get an entry for a page of a size. */
static void note_filled(struct soft_tlb *tlb, enum soft_mmu mmu, unsigned slot, uint64_t linear,
                        unsigned shift)
{
    tlb->used[mmu] = true;
    if (is_empty(&tlb->entry[mmu][slot])) {
        if (tlb->filled_count[mmu] < SOFT_TLB_FILLED) {
            tlb->filled[mmu][tlb->filled_count[mmu]++] = (uint16_t)slot;
        } else {
            tlb->filled_count[mmu] = SOFT_TLB_FILLED + 1;
        }
    }
    if (shift > 12) {
        tlb->large[shift == 30] |= large_bit(linear, shift == 30);
    }
}

static void fill(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear, uint32_t access)
{
    unsigned slot = (linear >> 12) % SOFT_TLB_SIZE;
    struct soft_tlb *tlb = cpu->tlb;
    struct soft_tlb_entry *e = &tlb->entry[mmu][slot];
    struct soft_tlb_info *info = &tlb->info[mmu][slot];
    uint64_t page = linear & SOFT_PAGE_MASK;
    struct soft_translation t;
    uint32_t error;

    if (!soft_walk(cpu, mmu, linear, access, &t, &error)) {
        /* SDM volume 3, 4.10.4.1: a page fault forgets what was known of the page. */
        if (entry_matches(e, page)) {
            retire(cpu, e, info);
            make_empty(e);
        }
        soft_raise_page_fault(cpu, linear, error);
    }
    retire(cpu, e, info);

    t.phys &= tlb->phys_mask;
    struct soft_host_page host = soft_host_page(cpu, t.phys);
    uint64_t read = t.reads ? page : EMPTY;
    uint64_t write = t.dirty && t.writes ? page : EMPTY;
    uint64_t exec = t.runs ? page : EMPTY;
    if (!host.host) {
        read |= SOFT_TLB_IO;
        write |= SOFT_TLB_IO;
        exec |= SOFT_TLB_IO;
    } else {
        write |= host.readonly ? SOFT_TLB_ROM : 0;
        write |= host.dirty_log ? SOFT_TLB_LOG : 0;
        if (atomic_load_explicit(&host.ram->owners[host.ram_page], memory_order_relaxed)) {
            write |= SOFT_TLB_CODE;
        }
    }
    if (cpu->dr7 & DR7_ENABLES) {
        watch_page(cpu, page, &read, &write);
    }
    note_filled(tlb, mmu, slot, linear, t.shift);
    *e = (struct soft_tlb_entry){read, write, exec, (uint64_t)(uintptr_t)host.host - page};
    *info = (struct soft_tlb_info){t.phys, host.ram, host.ram_page, t.shift};
}

const struct soft_tlb_entry *soft_tlb_get(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear,
                                          uint32_t access)
{
    struct soft_tlb_entry *e = &cpu->tlb->entry[mmu][(linear >> 12) % SOFT_TLB_SIZE];
    const struct soft_tlb_info *info = soft_tlb_info_of(cpu, mmu, linear);
    uint64_t tag = access == SOFT_PF_WRITE ? e->write : access == SOFT_PF_FETCH ? e->exec : e->read;

    if (!tag_matches(tag, linear & SOFT_PAGE_MASK)) {
        fill(cpu, mmu, linear, access);
    } else if (access == SOFT_PF_WRITE && tag & SOFT_TLB_CODE &&
               !atomic_load_explicit(&info->ram->owners[info->ram_page], memory_order_relaxed)) {
        /* The code is gone. Who has new code there tells by PROTECT. */
        e->write &= ~SOFT_TLB_CODE;
    }
    return e;
}

/* ---- code -------------------------------------------------------------------------------------- */

const uint8_t *soft_fetch_pointer(struct soft_cpu *cpu, uint64_t linear, struct soft_tlb_info *info)
{
    enum soft_mmu mmu = cpu->tlb->code_mmu;
    const struct soft_tlb_entry *e;

    if (!soft_is_64(cpu)) {
        linear = (uint32_t)linear;
    } else if (!soft_is_canonical(cpu, linear)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    e = soft_tlb_get(cpu, mmu, linear, SOFT_PF_FETCH);
    *info = *soft_tlb_info_of(cpu, mmu, linear);
    return e->exec & SOFT_TLB_IO ? NULL : (const uint8_t *)(uintptr_t)(linear + e->addend);
}
