/* SPDX-License-Identifier: MIT */
/*
 * Segment registers: descriptors from memory, the checks of a load, and the hidden part (Intel SDM
 * volume 3, chapters 3 and 5; volume 2, MOV).
 */
#include "accel/soft/event_internal.h"
#include "accel/soft/mmu.h"

_Noreturn void soft_fault(struct soft_cpu *cpu, uint8_t vector)
{
    soft_raise(cpu, vector, cpu->delivering_ext);
}

_Noreturn void soft_fault_selector(struct soft_cpu *cpu, uint8_t vector, uint16_t selector)
{
    soft_raise(cpu, vector, (selector & ~3u) | cpu->delivering_ext);
}

/* ---- the registers --------------------------------------------------------------------------- */

static bool is_flat(const struct x86_segment *s)
{
    return s->base == 0 && s->limit == UINT32_MAX;
}

/* Does what soft_update_mode() makes of a register differ? */
static bool differs(enum x86_segment_register reg, const struct x86_segment *a,
                    const struct x86_segment *b)
{
    uint32_t bits = a->attributes ^ b->attributes;

    if ((reg == X86_CS || reg == X86_SS) && bits & (X86_SEGMENT_L | X86_SEGMENT_D)) {
        return true;
    }
    if (is_flat(a) != is_flat(b)) {
        return true;
    }
    /* Type, S, P, unusable; not the accessed bit. */
    return is_flat(a) && bits & (X86_SEGMENT_UNUSABLE | X86_SEGMENT_P | X86_SEGMENT_S | 0xeu);
}

/* In 64-bit mode only CS decides. */
static inline bool decides(const struct soft_cpu *cpu, enum x86_segment_register reg)
{
    return reg < X86_FS && (reg == X86_CS || !soft_is_64(cpu));
}

void soft_set_segment(struct soft_cpu *cpu, enum x86_segment_register reg,
                      const struct x86_segment *segment)
{
    bool is_new = decides(cpu, reg) && differs(reg, &cpu->seg[reg], segment);

    cpu->seg[reg] = *segment;
    if (reg < X86_LDTR) {
        cpu->seg_base[reg] = segment->base;
    }
    if (is_new) {
        soft_update_mode(cpu);
    }
}

void soft_set_cpl(struct soft_cpu *cpu, unsigned cpl)
{
    if (cpu->cpl != cpl) {
        cpu->cpl = cpl;
        soft_update_mode(cpu);
    }
}

void soft_set_context(struct soft_cpu *cpu, const struct x86_segment *cs,
                      const struct x86_segment *ss, unsigned cpl, uint64_t rflags)
{
    uint64_t system = (rflags & FLAG_ALL & ~X86_RFLAGS_STATUS) | X86_RFLAGS_FIXED;
    bool is_new = cpu->cpl != cpl ||
                  (cpu->rflags ^ system) & (X86_RFLAGS_TF | X86_RFLAGS_VM | X86_RFLAGS_AC) ||
                  differs(X86_CS, &cpu->seg[X86_CS], cs);

    cpu->seg[X86_CS] = *cs;
    cpu->seg_base[X86_CS] = cs->base;
    if (ss) {
        is_new = is_new || (!soft_is_64(cpu) && differs(X86_SS, &cpu->seg[X86_SS], ss));
        cpu->seg[X86_SS] = *ss;
        cpu->seg_base[X86_SS] = ss->base;
    }
    cpu->cpl = cpl;
    cpu->rflags = system;
    /* As lahf; seto leave them. */
    cpu->status =
        (uint32_t)((rflags & (X86_RFLAGS_STATUS & 0xff)) << 8 | 0x200 | (rflags >> 11 & 1));
    if (is_new) {
        soft_update_mode(cpu);
    }
}

/* ---- descriptors in memory --------------------------------------------------------------------- */

struct x86_segment soft_segment_of(uint16_t selector, uint64_t descriptor)
{
    struct x86_segment s = {
        .base = (descriptor >> 16 & 0xffffff) | (descriptor >> 32 & 0xff000000),
        .limit = (uint32_t)((descriptor & 0xffff) | (descriptor >> 32 & 0xf0000)),
        .attributes = descriptor >> 40 & 0xf0ff,
        .selector = selector,
    };

    if (s.attributes & X86_SEGMENT_G) {
        s.limit = s.limit << 12 | 0xfff;
    }
    return s;
}

static uint64_t descriptor_linear(const struct soft_cpu *cpu, uint16_t selector)
{
    uint64_t base = selector & 4 ? cpu->seg[X86_LDTR].base : cpu->gdt.base;
    uint64_t linear = base + (selector & ~7u);

    return soft_is_long(cpu) ? linear : (uint32_t)linear;
}

bool soft_find_descriptor(struct soft_cpu *cpu, uint16_t selector, uint64_t *low, uint64_t *high)
{
    const struct x86_segment *ldt = &cpu->seg[X86_LDTR];
    uint64_t limit = selector & 4 ? ldt->limit : cpu->gdt.limit;
    unsigned at = selector & ~7u;

    if ((selector & 4 && ldt->attributes & X86_SEGMENT_UNUSABLE) || at + 7 > limit) {
        return false;
    }
    soft_system_load(cpu, descriptor_linear(cpu, selector), low, sizeof(*low), false);
    if (high) {
        *high = 0;
        if (soft_is_long(cpu) && descriptor_is_system(*low)) {
            if (at + 15 > limit) {
                return false;
            }
            soft_system_load(cpu, descriptor_linear(cpu, selector) + 8, high, sizeof(*high), false);
        }
    }
    return true;
}

void soft_read_descriptor(struct soft_cpu *cpu, uint16_t selector, uint8_t vector, uint64_t *low,
                          uint64_t *high)
{
    if (!soft_find_descriptor(cpu, selector, low, high)) {
        soft_fault_selector(cpu, vector, selector);
    }
}

/*
 * Atomic in memory (8.1.2.1). Elsewhere (descriptors in ROM, whose writes go nowhere, or in a device)
 * a load and a store.
 */
uint8_t soft_mark_descriptor(struct soft_cpu *cpu, uint16_t selector, uint8_t set, uint8_t clear)
{
    enum soft_mmu mmu = cpu->cr4 & X86_CR4_SMAP ? SOFT_MMU_KERNEL_SMAP : SOFT_MMU_KERNEL;
    uint64_t linear = descriptor_linear(cpu, selector) + 5;
    struct soft_piece piece[2];
    uint8_t old, new;

    soft_system_load(cpu, linear, &old, 1, false);
    new = (uint8_t)((old | set) & ~clear);
    if (new == old) {
        return old;
    }
    soft_pieces(cpu, mmu, SOFT_ACCESS_IMPLICIT, linear, 1, SOFT_PF_WRITE, piece);
    if (!piece[0].host) {
        soft_system_store(cpu, linear, &new, 1, false);
        return old;
    }
    while (!__atomic_compare_exchange_n(piece[0].host, &old, new, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
        new = (uint8_t)((old | set) & ~clear);
    }
    if (!piece[0].fast) {
        soft_after_write(cpu, piece[0].ram, piece[0].ram_page, linear & 4095, 1,
                         piece[0].dirty_log);
    }
    return old;
}

void soft_mark_accessed(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor)
{
    if (!(descriptor >> 40 & ACCESS_ACCESSED)) {
        soft_mark_descriptor(cpu, selector, ACCESS_ACCESSED, 0);
    }
}

/* ---- segments that checks have passed ---------------------------------------------------------- */

struct x86_segment soft_code_segment(uint16_t selector, uint64_t descriptor, unsigned rpl)
{
    struct x86_segment s = soft_segment_of((uint16_t)((selector & ~3u) | rpl), descriptor);

    s.attributes |= ACCESS_ACCESSED;
    return s;
}

struct x86_segment soft_null_stack(unsigned cpl)
{
    return (struct x86_segment){
        .limit = UINT32_MAX,
        .attributes = X86_SEGMENT_UNUSABLE | cpl << 5,
        .selector = (uint16_t)cpl,
    };
}

struct x86_segment soft_v86_segment(uint16_t selector)
{
    /* Type 3, S, P, DPL 3 */
    return (struct x86_segment){
        .base = selector * 16u, .limit = 0xffff, .attributes = 0xf3, .selector = selector};
}

/*
 * Real mode changes the base alone: limit and D stay what they were in protected mode (9.9.2).
 * A register that was null gets what reset gives.
 */
static struct x86_segment real_segment(const struct soft_cpu *cpu, enum x86_segment_register reg,
                                       uint16_t selector)
{
    struct x86_segment s = cpu->seg[reg];

    if (soft_is_v86(cpu)) {
        return soft_v86_segment(selector);
    }
    s.base = selector * 16u;
    s.selector = selector;
    if (s.attributes & X86_SEGMENT_UNUSABLE) {
        s.attributes = 0;
        s.limit = 0xffff;
    }
    s.attributes &= ~(0xffu | X86_SEGMENT_L);
    s.attributes |= reg == X86_CS ? 0x9b : 0x93;
    return s;
}

struct x86_segment soft_real_code_segment(const struct soft_cpu *cpu, uint16_t selector)
{
    return real_segment(cpu, X86_CS, selector);
}

void soft_load_segment_real(struct soft_cpu *cpu, enum x86_segment_register reg, uint16_t selector)
{
    struct x86_segment s = real_segment(cpu, reg, selector);

    soft_set_segment(cpu, reg, &s);
}

struct x86_segment soft_null_segment(const struct soft_cpu *cpu, enum x86_segment_register reg,
                                     uint16_t selector)
{
    struct x86_segment s = {.attributes = X86_SEGMENT_UNUSABLE, .selector = selector};

    if (reg == X86_SS) {
        return soft_null_stack(cpu->cpl);
    }
    /* Base and limit are cleared, on AMD's processors since CPUID's NullSelectClearsBase, too. */
    return s;
}

struct x86_segment soft_stack_segment(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                                      uint8_t vector)
{
    struct x86_segment s;
    uint64_t d;

    if (selector_is_null(selector)) {
        soft_fault(cpu, vector);
    }
    soft_read_descriptor(cpu, selector, vector, &d, NULL);
    /* Data, writable. */
    if ((selector & 3u) != cpl || descriptor_dpl(d) != cpl || descriptor_is_system(d) ||
        (d >> 40 & (ACCESS_CODE | ACCESS_RW)) != ACCESS_RW) {
        soft_fault_selector(cpu, vector, selector);
    }
    if (!descriptor_is_present(d)) {
        soft_fault_selector(cpu, EXC_SS, selector);
    }
    soft_mark_accessed(cpu, selector, d);
    s = soft_segment_of(selector, d);
    s.attributes |= ACCESS_ACCESSED;
    return s;
}

struct x86_segment soft_data_segment(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                                     uint8_t vector)
{
    struct x86_segment s;
    bool is_conforming;
    uint64_t d;

    soft_read_descriptor(cpu, selector, vector, &d, NULL);
    /* Data, or code that can be read. */
    if (descriptor_is_system(d) || (d >> 40 & (ACCESS_CODE | ACCESS_RW)) == ACCESS_CODE) {
        soft_fault_selector(cpu, vector, selector);
    }
    is_conforming = descriptor_is_code(d) && descriptor_is_conforming(d);
    if (!is_conforming && (descriptor_dpl(d) < cpl || descriptor_dpl(d) < (selector & 3u))) {
        soft_fault_selector(cpu, vector, selector);
    }
    if (!descriptor_is_present(d)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
    soft_mark_accessed(cpu, selector, d);
    s = soft_segment_of(selector, d);
    s.attributes |= ACCESS_ACCESSED;
    return s;
}

void soft_check_ip(struct soft_cpu *cpu, const struct x86_segment *cs, uint64_t ip)
{
    bool is_64 = soft_is_long(cpu) && cs->attributes & X86_SEGMENT_L;

    if (is_64 ? !soft_is_canonical(cpu, ip) : ip > cs->limit) {
        soft_fault(cpu, EXC_GP);
    }
}

/* ---- loads ----------------------------------------------------------------------------------- */

void soft_load_segment(struct soft_cpu *cpu, enum x86_segment_register reg, uint16_t selector)
{
    struct x86_segment s;

    if (!soft_is_protected(cpu)) {
        soft_load_segment_real(cpu, reg, selector);
        return;
    }
    if (selector_is_null(selector)) {
        /* SS may be null in 64-bit mode's inner privileges only. */
        if (reg == X86_SS && (!soft_is_64(cpu) || cpu->cpl == 3 || selector != cpu->cpl)) {
            soft_fault(cpu, EXC_GP);
        }
        s = soft_null_segment(cpu, reg, selector);
    } else if (reg == X86_SS) {
        s = soft_stack_segment(cpu, selector, cpu->cpl, EXC_GP);
    } else {
        s = soft_data_segment(cpu, selector, cpu->cpl, EXC_GP);
    }
    soft_set_segment(cpu, reg, &s);
}

/* Base of a system segment: 64 bits of it in IA-32e mode (figure 8-4). */
static void add_high(struct soft_cpu *cpu, struct x86_segment *s, uint64_t high, uint8_t vector)
{
    if (soft_is_long(cpu)) {
        s->base |= high << 32;
        /* The type field of the second half must be 0. */
        if (high >> 40 & 31 || !soft_is_canonical(cpu, s->base)) {
            soft_fault_selector(cpu, vector, s->selector);
        }
    }
}

struct x86_segment soft_ldt_segment(struct soft_cpu *cpu, uint16_t selector, uint8_t vector)
{
    struct x86_segment s = {.attributes = X86_SEGMENT_UNUSABLE, .selector = selector};
    uint64_t low, high;

    if (selector_is_null(selector)) {
        return s;
    }
    if (selector & 4) {
        soft_fault_selector(cpu, vector, selector);
    }
    soft_read_descriptor(cpu, selector, vector, &low, &high);
    if (!descriptor_is_system(low) || descriptor_type(low) != TYPE_LDT) {
        soft_fault_selector(cpu, vector, selector);
    }
    if (!descriptor_is_present(low)) {
        /* In a task switch it is #TS, too (7.3, table 7-1). */
        soft_fault_selector(cpu, vector == EXC_TS ? EXC_TS : EXC_NP, selector);
    }
    s = soft_segment_of(selector, low);
    add_high(cpu, &s, high, vector);
    return s;
}

void soft_load_ldt(struct soft_cpu *cpu, uint16_t selector)
{
    struct x86_segment s = soft_ldt_segment(cpu, selector, EXC_GP);

    soft_set_segment(cpu, X86_LDTR, &s);
}

void soft_load_tr(struct soft_cpu *cpu, uint16_t selector)
{
    struct x86_segment s;
    uint64_t low, high;
    unsigned type;

    if (selector_is_null(selector)) {
        soft_fault(cpu, EXC_GP);
    }
    if (selector & 4) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    soft_read_descriptor(cpu, selector, EXC_GP, &low, &high);
    type = descriptor_type(low);
    if (!descriptor_is_system(low) ||
        (type != TYPE_TSS && (type != TYPE_TSS16 || soft_is_long(cpu)))) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    if (!descriptor_is_present(low)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
    s = soft_segment_of(selector, low);
    add_high(cpu, &s, high, EXC_GP);
    if (soft_mark_descriptor(cpu, selector, ACCESS_BUSY, 0) & ACCESS_BUSY) {
        soft_fault_selector(cpu, EXC_GP, selector); /* another processor was faster */
    }
    s.attributes |= ACCESS_BUSY;
    soft_set_segment(cpu, X86_TR, &s);
}
