/* SPDX-License-Identifier: MIT */
/*
 * RET far, and the checks that it shares with IRET (Intel SDM volume 3, 5.8.6; volume 2, RET).
 */
#include "accel/soft/event_internal.h"

struct x86_segment soft_return_code(struct soft_cpu *cpu, uint16_t selector)
{
    uint32_t both = X86_SEGMENT_L | X86_SEGMENT_D;
    unsigned rpl = selector & 3u;
    struct x86_segment cs;
    unsigned dpl;
    uint64_t d;

    if (selector_is_null(selector)) {
        soft_fault(cpu, EXC_GP);
    }
    soft_read_descriptor(cpu, selector, EXC_GP, &d, NULL);
    cs = soft_code_segment(selector, d, rpl);
    dpl = descriptor_dpl(d);
    if (!descriptor_is_code(d) || rpl < cpu->cpl ||
        (descriptor_is_conforming(d) ? dpl > rpl : dpl != rpl) ||
        (soft_is_long(cpu) && (cs.attributes & both) == both)) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    if (!descriptor_is_present(d)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
    soft_mark_accessed(cpu, selector, d);
    return cs;
}

struct x86_segment soft_return_stack(struct soft_cpu *cpu, uint16_t selector,
                                     const struct x86_segment *cs, unsigned cpl)
{
    if (selector_is_null(selector)) {
        /* Back to 64-bit mode's inner privileges only. */
        if (!soft_is_long(cpu) || !(cs->attributes & X86_SEGMENT_L) || cpl == 3 ||
            selector != cpl) {
            soft_fault(cpu, EXC_GP);
        }
        return soft_null_stack(cpl);
    }
    return soft_stack_segment(cpu, selector, cpl, EXC_GP);
}

/* The base stays: FS and GS of 64-bit mode have one that no descriptor gave. */
static void nullify(struct soft_cpu *cpu, enum x86_segment_register reg)
{
    struct x86_segment s = cpu->seg[reg];

    s.selector = 0;
    s.attributes = X86_SEGMENT_UNUSABLE;
    soft_set_segment(cpu, reg, &s);
}

void soft_return_data(struct soft_cpu *cpu, unsigned cpl)
{
    static const enum x86_segment_register regs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < sizeof(regs) / sizeof(regs[0]); i++) {
        const struct x86_segment *s = &cpu->seg[regs[i]];
        uint32_t a = s->attributes;

        if (selector_is_null(s->selector)) {
            if (s->selector) {
                nullify(cpu, regs[i]);
            }
        } else if ((a >> 5 & 3) < cpl &&
                   (a & (ACCESS_CODE | ACCESS_CONFORMING)) != (ACCESS_CODE | ACCESS_CONFORMING)) {
            nullify(cpu, regs[i]);
        }
    }
}

static void real_return(struct soft_cpu *cpu, unsigned width, unsigned pop_bytes)
{
    uint64_t ip = soft_stack_read(cpu, 0, width);
    uint16_t selector = soft_stack_selector(cpu, width, width);
    struct x86_segment cs = soft_real_code_segment(cpu, selector);

    soft_check_ip(cpu, &cs, ip);
    soft_stack_adjust(cpu, (int64_t)(2 * width + pop_bytes));
    soft_set_segment(cpu, X86_CS, &cs);
    cpu->next_ip = ip;
}

void soft_far_return(struct soft_cpu *cpu, unsigned width, unsigned pop_bytes)
{
    struct x86_segment cs, ss;
    uint16_t ss_selector;
    uint64_t ip, sp;
    unsigned cpl;

    if (!soft_is_protected(cpu)) {
        real_return(cpu, width, pop_bytes);
        return;
    }
    ip = soft_stack_read(cpu, 0, width);
    cs = soft_return_code(cpu, soft_stack_selector(cpu, width, width));
    cpl = cs.selector & 3u;
    if (cpl == cpu->cpl) {
        soft_check_ip(cpu, &cs, ip);
        soft_stack_adjust(cpu, (int64_t)(2 * width + pop_bytes));
        soft_set_segment(cpu, X86_CS, &cs);
        cpu->next_ip = ip;
        return;
    }
    sp = soft_stack_read(cpu, (int64_t)(2 * width + pop_bytes), width);
    ss_selector = soft_stack_selector(cpu, (int64_t)(3 * width + pop_bytes), width);
    ss = soft_return_stack(cpu, ss_selector, &cs, cpl);
    soft_check_ip(cpu, &cs, ip);
    /* The parameters are on both stacks. */
    sp = soft_stack_pointer(cpu, &cs, &ss, sp + pop_bytes);
    soft_return_data(cpu, cpl);
    soft_set_context(cpu, &cs, &ss, cpl, soft_get_rflags(cpu));
    cpu->gpr[X86_RSP] = sp;
    cpu->next_ip = ip;
}
