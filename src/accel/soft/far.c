/* SPDX-License-Identifier: MIT */
/*
 * JMP and CALL far: to code, through call gates, to tasks (Intel SDM volume 3, 5.8; volume 2, CALL
 * and JMP). Checks come in the order of volume 2's pseudo-code.
 */
#include "accel/soft/event_internal.h"

static uint64_t width_mask(unsigned width)
{
    return width == 8 ? UINT64_MAX : width == 4 ? UINT32_MAX : UINT16_MAX;
}

/* ---- real and virtual-8086 mode ---------------------------------------------------------------- */

static void real_transfer(struct soft_cpu *cpu, uint16_t selector, uint64_t offset, bool is_call,
                          unsigned width)
{
    struct x86_segment cs = soft_real_code_segment(cpu, selector);

    if (is_call) {
        struct soft_push p = soft_push_here(cpu, width);

        soft_push(&p, cpu->seg[X86_CS].selector);
        soft_push(&p, cpu->next_ip);
        soft_push_check(cpu, &p, 0);
        soft_check_ip(cpu, &cs, offset);
        cpu->gpr[X86_RSP] = soft_push_write(cpu, &p);
    } else {
        soft_check_ip(cpu, &cs, offset);
    }
    soft_set_segment(cpu, X86_CS, &cs);
    cpu->next_ip = offset;
}

/* ---- code segments ----------------------------------------------------------------------------- */

/* A code segment named by the instruction itself (5.8.1). */
static struct x86_segment direct_target(struct soft_cpu *cpu, uint16_t selector,
                                        uint64_t descriptor)
{
    unsigned dpl = descriptor_dpl(descriptor);
    bool is_allowed = descriptor_is_conforming(descriptor)
                          ? dpl <= cpu->cpl
                          : dpl == cpu->cpl && (selector & 3u) <= cpu->cpl;
    struct x86_segment cs = soft_code_segment(selector, descriptor, cpu->cpl);
    uint32_t both = X86_SEGMENT_L | X86_SEGMENT_D;

    if (!is_allowed || (soft_is_long(cpu) && (cs.attributes & both) == both)) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    if (!descriptor_is_present(descriptor)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
    return cs;
}

/* CS and return address on the present stack; ip is checked between. */
static void call_here(struct soft_cpu *cpu, const struct x86_segment *cs, uint64_t ip,
                      unsigned size)
{
    struct soft_push p = soft_push_here(cpu, size);

    soft_push(&p, cpu->seg[X86_CS].selector);
    soft_push(&p, cpu->next_ip);
    soft_push_check(cpu, &p, 0);
    soft_check_ip(cpu, cs, ip);
    cpu->gpr[X86_RSP] = soft_push_write(cpu, &p);
}

static void go_to(struct soft_cpu *cpu, const struct x86_segment *cs, uint64_t ip)
{
    soft_set_segment(cpu, X86_CS, cs);
    cpu->next_ip = ip;
}

/* ---- call gates (5.8.3) ------------------------------------------------------------------------ */

struct gate {
    uint16_t selector;
    uint64_t offset;
    unsigned parameters; /* to be copied */
    unsigned size;       /* of what is pushed */
};

static struct gate read_gate(struct soft_cpu *cpu, uint16_t selector, uint64_t low, uint64_t high)
{
    struct gate gate = {.selector = low >> 16 & 0xffff, .offset = low & 0xffff};

    if (descriptor_dpl(low) < cpu->cpl || descriptor_dpl(low) < (selector & 3u)) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    if (soft_is_long(cpu) && high >> 40 & 31) {
        soft_fault_selector(cpu, EXC_GP, selector); /* 5.8.3.1: the second half's type is not 0 */
    }
    if (!descriptor_is_present(low)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
    if (soft_is_long(cpu)) {
        gate.offset |= (low >> 32 & 0xffff0000) | high << 32;
        gate.size = 8;
    } else {
        gate.parameters = low >> 32 & 31;
        gate.size = 2;
        if (descriptor_type(low) == TYPE_CALL) {
            gate.offset |= low >> 32 & 0xffff0000;
            gate.size = 4;
        }
    }
    return gate;
}

/* The gate's code segment: its descriptor. */
static uint64_t gate_target(struct soft_cpu *cpu, const struct gate *gate, bool is_call)
{
    uint64_t d;
    unsigned dpl;

    if (selector_is_null(gate->selector)) {
        soft_fault(cpu, EXC_GP);
    }
    soft_read_descriptor(cpu, gate->selector, EXC_GP, &d, NULL);
    dpl = descriptor_dpl(d);
    /* Only CALL goes to more privilege. */
    if (!descriptor_is_code(d) || dpl > cpu->cpl ||
        (!is_call && !descriptor_is_conforming(d) && dpl != cpu->cpl) ||
        (soft_is_long(cpu) && !descriptor_is_code64(d))) {
        soft_fault_selector(cpu, EXC_GP, gate->selector);
    }
    if (!descriptor_is_present(d)) {
        soft_fault_selector(cpu, EXC_NP, gate->selector);
    }
    return d;
}

static void call_inwards(struct soft_cpu *cpu, const struct gate *gate, uint64_t descriptor)
{
    unsigned cpl = descriptor_dpl(descriptor);
    struct x86_segment cs = soft_code_segment(gate->selector, descriptor, cpl), ss;
    uint16_t ss_selector;
    struct soft_push p;
    uint64_t sp;

    soft_tss_stack(cpu, cpl, &ss_selector, &sp);
    ss = soft_is_long(cpu) ? soft_null_stack(cpl)
                           : soft_stack_segment(cpu, ss_selector, cpl, EXC_TS);
    p = soft_push_to(soft_is_long(cpu) ? NULL : &ss, sp, gate->size, false);
    soft_push(&p, cpu->seg[X86_SS].selector);
    soft_push(&p, cpu->gpr[X86_RSP]);
    for (unsigned i = gate->parameters; i > 0; i--) {
        soft_push(&p, soft_stack_read(cpu, (int64_t)(i - 1) * gate->size, gate->size));
    }
    soft_push(&p, cpu->seg[X86_CS].selector);
    soft_push(&p, cpu->next_ip);
    soft_push_check(cpu, &p, ss.selector);
    soft_check_ip(cpu, &cs, gate->offset);
    soft_mark_accessed(cpu, gate->selector, descriptor);
    sp = soft_push_write(cpu, &p);
    soft_set_context(cpu, &cs, &ss, cpl, soft_get_rflags(cpu));
    cpu->gpr[X86_RSP] = sp;
    cpu->next_ip = gate->offset;
}

static void through_gate(struct soft_cpu *cpu, uint16_t selector, uint64_t low, uint64_t high,
                         bool is_call)
{
    struct gate gate = read_gate(cpu, selector, low, high);
    uint64_t d = gate_target(cpu, &gate, is_call);
    struct x86_segment cs;

    if (is_call && !descriptor_is_conforming(d) && descriptor_dpl(d) < cpu->cpl) {
        call_inwards(cpu, &gate, d);
        return;
    }
    cs = soft_code_segment(gate.selector, d, cpu->cpl);
    soft_mark_accessed(cpu, gate.selector, d);
    if (is_call) {
        call_here(cpu, &cs, gate.offset, gate.size);
    } else {
        soft_check_ip(cpu, &cs, gate.offset);
    }
    go_to(cpu, &cs, gate.offset);
}

/* ---- tasks (7.3) ------------------------------------------------------------------------------- */

static void to_task(struct soft_cpu *cpu, uint16_t selector, uint64_t low, bool is_call)
{
    if (descriptor_dpl(low) < cpu->cpl || descriptor_dpl(low) < (selector & 3u)) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    if (descriptor_type(low) == TYPE_TASK_GATE) {
        if (!descriptor_is_present(low)) {
            soft_fault_selector(cpu, EXC_NP, selector);
        }
        selector = low >> 16 & 0xffff;
        soft_check_gate_tss(cpu, selector);
    } else {
        if (selector & 4) {
            soft_fault_selector(cpu, EXC_GP, selector); /* a TSS is in the GDT */
        }
        if (!descriptor_is_present(low)) {
            soft_fault_selector(cpu, EXC_NP, selector);
        }
    }
    soft_task_switch(cpu, selector, is_call ? SOFT_TASK_CALL : SOFT_TASK_JUMP, false, 0);
}

/* ---- both ------------------------------------------------------------------------------------ */

static void transfer(struct soft_cpu *cpu, uint16_t selector, uint64_t offset, unsigned width,
                     bool is_call)
{
    struct x86_segment cs;
    uint64_t low, high;

    offset &= width_mask(width);
    if (!soft_is_protected(cpu)) {
        real_transfer(cpu, selector, offset, is_call, width);
        return;
    }
    if (selector_is_null(selector)) {
        soft_fault(cpu, EXC_GP);
    }
    soft_read_descriptor(cpu, selector, EXC_GP, &low, &high);
    if (descriptor_is_code(low)) {
        cs = direct_target(cpu, selector, low);
        soft_mark_accessed(cpu, selector, low);
        if (is_call) {
            call_here(cpu, &cs, offset, width);
        } else {
            soft_check_ip(cpu, &cs, offset);
        }
        go_to(cpu, &cs, offset);
        return;
    }
    if (descriptor_is_system(low)) {
        switch (descriptor_type(low)) {
        case TYPE_CALL:
            through_gate(cpu, selector, low, high, is_call);
            return;
        case TYPE_CALL16:
            if (!soft_is_long(cpu)) {
                through_gate(cpu, selector, low, high, is_call);
                return;
            }
            break;
        case TYPE_TSS16:
        case TYPE_TSS:
        case TYPE_TASK_GATE: /* IA-32e mode has no task switches (7.7) */
            if (!soft_is_long(cpu)) {
                to_task(cpu, selector, low, is_call);
                return;
            }
            break;
        default: /* a busy TSS, too */
            break;
        }
    }
    soft_fault_selector(cpu, EXC_GP, selector);
}

void soft_far_jump(struct soft_cpu *cpu, uint16_t selector, uint64_t offset, unsigned width)
{
    transfer(cpu, selector, offset, width, false);
}

void soft_far_call(struct soft_cpu *cpu, uint16_t selector, uint64_t offset, unsigned width)
{
    transfer(cpu, selector, offset, width, true);
}
