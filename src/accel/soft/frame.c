/* SPDX-License-Identifier: MIT */
/*
 * Frames on a stack: what gates, interrupts and far calls push, as a list that is checked as a whole
 * before anything is written (Intel SDM volume 3, 6.12.1; volume 2, INT and CALL).
 */
#include <string.h>

#include "accel/soft/event_internal.h"

#define STORE_MAX 64 /* bytes that soft_system_store() takes */

struct soft_push soft_push_to(const struct x86_segment *ss, uint64_t sp, unsigned size, bool user)
{
    struct soft_push p;

    p.ss = ss;
    p.sp = sp;
    p.mask = !ss ? UINT64_MAX : ss->attributes & X86_SEGMENT_D ? UINT32_MAX : UINT16_MAX;
    p.size = size;
    p.user = user;
    p.count = 0;
    return p;
}

struct soft_push soft_push_here(const struct soft_cpu *cpu, unsigned size)
{
    return soft_push_to(soft_is_64(cpu) ? NULL : &cpu->seg[X86_SS], cpu->gpr[X86_RSP], size,
                        cpu->cpl == 3);
}

/* Where item i goes. */
static uint64_t offset_of(const struct soft_push *p, unsigned i)
{
    return (p->sp - (uint64_t)p->size * (i + 1)) & p->mask;
}

/* 5.3: the limit of data segments, which may expand down. */
static bool is_within(const struct x86_segment *ss, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;

    if (ss->attributes & X86_SEGMENT_UNUSABLE) {
        return false;
    }
    if ((ss->attributes & (X86_SEGMENT_S | ACCESS_CODE | ACCESS_DOWN)) ==
        (X86_SEGMENT_S | ACCESS_DOWN)) {
        uint64_t top = ss->attributes & X86_SEGMENT_D ? UINT32_MAX : UINT16_MAX;
        return offset > ss->limit && last <= top;
    }
    return last <= ss->limit;
}

/* Pushes by the program itself; those of an event's delivery are not checked. */
static void check_alignment(struct soft_cpu *cpu, const struct soft_push *p)
{
    uint64_t base = p->ss ? p->ss->base : 0;

    if (p->user && cpu->tlb->check_alignment && !cpu->delivering &&
        (base + offset_of(p, 0)) % p->size) {
        soft_raise(cpu, EXC_AC, 0);
    }
}

void soft_push_check(struct soft_cpu *cpu, const struct soft_push *p, uint16_t selector)
{
    if (p->ss) {
        for (unsigned i = 0; i < p->count; i++) {
            if (!is_within(p->ss, offset_of(p, i), p->size)) {
                soft_fault_selector(cpu, EXC_SS, selector);
            }
        }
    } else if (!soft_is_canonical(cpu, p->sp - 1) ||
               !soft_is_canonical(cpu, p->sp - (uint64_t)p->size * p->count)) {
        soft_fault_selector(cpu, EXC_SS, selector);
    }
    check_alignment(cpu, p);
}

uint64_t soft_push_write(struct soft_cpu *cpu, const struct soft_push *p)
{
    uint64_t base = p->ss ? p->ss->base : 0;
    unsigned i = 0;

    while (i < p->count) {
        uint8_t bytes[STORE_MAX];
        unsigned at = STORE_MAX;
        uint64_t offset, linear;

        /* As many as follow each other downwards: all, but where an address wraps. */
        do {
            at -= p->size;
            memcpy(bytes + at, &p->item[i], p->size);
            offset = offset_of(p, i++);
            linear = base + offset;
            if (p->ss) {
                linear = (uint32_t)linear;
            }
        } while (i < p->count && at >= p->size && offset >= p->size && linear >= p->size);
        soft_system_push(cpu, linear, bytes + at, STORE_MAX - at, p->size, p->user);
    }
    return p->count == 0 ? p->sp : (p->sp & ~p->mask) | offset_of(p, p->count - 1);
}

uint16_t soft_stack_selector(struct soft_cpu *cpu, int64_t offset, unsigned width)
{
    uint64_t at = (cpu->gpr[X86_RSP] + (uint64_t)offset) & soft_stack_mask(cpu);

    soft_segment_linear(cpu, X86_SS, at, width, SOFT_READ);
    /* The other bytes of the item are read by AMD's processors, and by Intel's not. */
    return (uint16_t)soft_stack_read(cpu, offset,
                                     cpu->features->is_intel ? sizeof(uint16_t) : width);
}

uint64_t soft_stack_pointer(const struct soft_cpu *cpu, const struct x86_segment *cs,
                            const struct x86_segment *ss, uint64_t sp)
{
    if (soft_is_long(cpu) && cs->attributes & X86_SEGMENT_L) {
        return sp;
    }
    if (ss->attributes & X86_SEGMENT_D) {
        return (uint32_t)sp;
    }
    return (cpu->gpr[X86_RSP] & 0xffff0000) | (sp & 0xffff);
}
