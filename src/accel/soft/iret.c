/* SPDX-License-Identifier: MIT */
/*
 * IRET (Intel SDM volume 2, IRET/IRETD; volume 3, 6.12, 6.14.3, 7.3, 20.2.2).
 *
 *   real mode        pops IP, CS, FLAGS
 *   virtual-8086     the same, if IOPL is 3; else by CR4.VME, else #GP(0)
 *   NT = 1           back to the task that the present TSS names (not in IA-32e mode)
 *   64-bit mode      pops RIP, CS, RFLAGS, RSP, SS, always
 *   VM = 1 popped    to virtual-8086 mode: CPL 0, not in IA-32e mode
 *   other            same privilege: EIP, CS, EFLAGS; outer: ESP, SS, too
 */
#include "accel/soft/event_internal.h"

/* NMIs come again, even if the IRET faults (6.7.1). */
static void unmask_nmi(struct soft_cpu *cpu)
{
    if (__builtin_expect(cpu->nmi_masked, 0)) {
        cpu->nmi_masked = false;
        soft_look_for_events(cpu);
    }
}

/* RFLAGS of those popped, as far as this privilege may change them. */
static uint64_t merge_flags(const struct soft_cpu *cpu, uint64_t popped, unsigned width)
{
    uint64_t may = X86_RFLAGS_STATUS | X86_RFLAGS_TF | X86_RFLAGS_DF | X86_RFLAGS_NT;

    if (width > 2) {
        may |= X86_RFLAGS_RF | X86_RFLAGS_AC | X86_RFLAGS_ID;
    }
    if (cpu->cpl <= iopl(cpu)) {
        may |= X86_RFLAGS_IF;
    }
    if (cpu->cpl == 0) {
        may |= X86_RFLAGS_IOPL;
        if (width > 2) {
            may |= X86_RFLAGS_VIF | X86_RFLAGS_VIP;
        }
    }
    /* RF matters to breakpoints only; without any, nobody would clear it after the instruction. */
    if (!(cpu->dr7 & DR7_ENABLED)) {
        popped &= ~X86_RFLAGS_RF;
    }
    return (soft_get_rflags(cpu) & ~may & ~X86_RFLAGS_RF) | (popped & may);
}

static void finish(struct soft_cpu *cpu)
{
    if (cpu->rflags & X86_RFLAGS_IF) {
        soft_look_for_events(cpu);
    }
}

/* ---- real and virtual-8086 mode ---------------------------------------------------------------- */

struct frame {
    uint64_t ip, flags;
    uint16_t cs;
};

static struct frame pop_frame(struct soft_cpu *cpu, unsigned width)
{
    struct frame f;

    f.ip = soft_stack_read(cpu, 0, width);
    f.cs = soft_stack_selector(cpu, width, width);
    f.flags = soft_stack_read(cpu, (int64_t)(2 * width), width);
    return f;
}

static void real_go(struct soft_cpu *cpu, const struct frame *f, unsigned width, uint64_t flags)
{
    struct x86_segment cs = soft_real_code_segment(cpu, f->cs);

    soft_check_ip(cpu, &cs, f->ip);
    soft_stack_adjust(cpu, (int64_t)(3 * width));
    soft_set_context(cpu, &cs, NULL, cpu->cpl, flags);
    cpu->next_ip = f->ip;
    finish(cpu);
}

static void iret_real(struct soft_cpu *cpu, unsigned width)
{
    uint64_t keep = X86_RFLAGS_VIF | X86_RFLAGS_VIP;
    struct frame f = pop_frame(cpu, width);
    uint64_t flags = merge_flags(cpu, f.flags, width);

    unmask_nmi(cpu);
    real_go(cpu, &f, width, (flags & ~keep) | (cpu->rflags & keep));
}

static void iret_v86(struct soft_cpu *cpu, unsigned width)
{
    uint64_t flags;
    struct frame f;

    if (iopl(cpu) == 3) {
        f = pop_frame(cpu, width);
        unmask_nmi(cpu);
        real_go(cpu, &f, width, merge_flags(cpu, f.flags, width));
        return;
    }
    if (!(cpu->cr4 & X86_CR4_VME) || width != 2) {
        soft_fault(cpu, EXC_GP);
    }
    /* 20.2.9, table 20-2, with VME: the program's IF is VIF. */
    f = pop_frame(cpu, width);
    if (f.flags & X86_RFLAGS_TF || (f.flags & X86_RFLAGS_IF && cpu->rflags & X86_RFLAGS_VIP)) {
        soft_fault(cpu, EXC_GP);
    }
    unmask_nmi(cpu);
    flags = merge_flags(cpu, f.flags, width) & ~X86_RFLAGS_VIF;
    if (f.flags & X86_RFLAGS_IF) {
        flags |= X86_RFLAGS_VIF;
    }
    real_go(cpu, &f, width, flags);
}

/* ---- protected mode ---------------------------------------------------------------------------- */

/* Back link of the present TSS (7.4). */
static void iret_task(struct soft_cpu *cpu)
{
    const struct x86_segment *tr = &cpu->seg[X86_TR];
    uint64_t low, high;
    uint16_t link;
    unsigned type;

    soft_system_load(cpu, (uint32_t)tr->base, &link, sizeof(link), false);
    if (link & 4) {
        soft_fault_selector(cpu, EXC_TS, link);
    }
    soft_read_descriptor(cpu, link, EXC_TS, &low, &high);
    type = descriptor_type(low);
    if (!descriptor_is_system(low) || (type != TYPE_TSS_BUSY && type != TYPE_TSS16_BUSY)) {
        soft_fault_selector(cpu, EXC_TS, link);
    }
    if (!descriptor_is_present(low)) {
        soft_fault_selector(cpu, EXC_NP, link);
    }
    soft_task_switch(cpu, link, SOFT_TASK_IRET, false, 0);
    finish(cpu);
}

static void iret_to_v86(struct soft_cpu *cpu, const struct frame *f)
{
    static const enum x86_segment_register regs[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    struct x86_segment cs = soft_v86_segment(f->cs), ss, data[4];
    uint64_t sp = soft_stack_read(cpu, 12, 4);

    ss = soft_v86_segment((uint16_t)soft_stack_read(cpu, 16, 4));
    for (unsigned i = 0; i < 4; i++) {
        data[i] = soft_v86_segment((uint16_t)soft_stack_read(cpu, 20 + 4 * (int64_t)i, 4));
    }
    soft_check_ip(cpu, &cs, f->ip);
    for (unsigned i = 0; i < 4; i++) {
        soft_set_segment(cpu, regs[i], &data[i]);
    }
    /* RF: as in merge_flags() */
    soft_set_context(cpu, &cs, &ss, 3, f->flags & ~(cpu->dr7 & DR7_ENABLED ? 0 : X86_RFLAGS_RF));
    cpu->gpr[X86_RSP] = (uint32_t)sp;
    cpu->next_ip = f->ip;
    finish(cpu);
}

static void to_outer(struct soft_cpu *cpu, const struct x86_segment *cs, const struct frame *f,
                     uint16_t ss_selector, uint64_t sp, unsigned width)
{
    unsigned cpl = cs->selector & 3u;
    struct x86_segment ss = soft_return_stack(cpu, ss_selector, cs, cpl);
    uint64_t flags = merge_flags(cpu, f->flags, width);

    soft_check_ip(cpu, cs, f->ip);
    sp = soft_stack_pointer(cpu, cs, &ss, sp);
    if (cpl != cpu->cpl) {
        soft_return_data(cpu, cpl);
    }
    soft_set_context(cpu, cs, &ss, cpl, flags);
    cpu->gpr[X86_RSP] = sp;
    cpu->next_ip = f->ip;
    finish(cpu);
}

static void iret_legacy(struct soft_cpu *cpu, unsigned width)
{
    struct frame f = pop_frame(cpu, width);
    struct x86_segment cs;

    if (f.flags & X86_RFLAGS_VM && cpu->cpl == 0 && width == 4 && !soft_is_long(cpu)) {
        iret_to_v86(cpu, &f);
        return;
    }
    cs = soft_return_code(cpu, f.cs);
    if ((cs.selector & 3u) != cpu->cpl) {
        uint64_t sp = soft_stack_read(cpu, (int64_t)(3 * width), width);
        uint16_t ss = soft_stack_selector(cpu, (int64_t)(4 * width), width);
        to_outer(cpu, &cs, &f, ss, sp, width);
        return;
    }
    soft_check_ip(cpu, &cs, f.ip);
    soft_stack_adjust(cpu, (int64_t)(3 * width));
    soft_set_context(cpu, &cs, NULL, cpu->cpl, merge_flags(cpu, f.flags, width));
    cpu->next_ip = f.ip;
    finish(cpu);
}

static void iret_64(struct soft_cpu *cpu, unsigned width)
{
    const uint64_t *p = width == 8 ? soft_read_pointer(cpu, cpu->gpr[X86_RSP], 40) : NULL;
    struct x86_segment cs;
    struct frame f;
    uint64_t sp;
    uint16_t ss;

    if (__builtin_expect(p != NULL, 1)) {
        f.ip = soft_host_load64(p);
        f.cs = (uint16_t)soft_host_load64(p + 1);
        f.flags = soft_host_load64(p + 2);
        sp = soft_host_load64(p + 3);
        ss = (uint16_t)soft_host_load64(p + 4);
        cs = soft_return_code(cpu, f.cs);
    } else { /* CS is checked before the rest is read */
        f = pop_frame(cpu, width);
        cs = soft_return_code(cpu, f.cs);
        sp = soft_stack_read(cpu, (int64_t)(3 * width), width);
        ss = soft_stack_selector(cpu, (int64_t)(4 * width), width);
    }
    to_outer(cpu, &cs, &f, ss, sp, width);
}

void soft_iret(struct soft_cpu *cpu, unsigned width)
{
    if (soft_is_real(cpu)) {
        iret_real(cpu, width);
    } else if (soft_is_v86(cpu)) {
        iret_v86(cpu, width);
    } else {
        unmask_nmi(cpu);
        if (cpu->rflags & X86_RFLAGS_NT) {
            if (soft_is_long(cpu)) {
                soft_fault(cpu, EXC_GP);
            }
            iret_task(cpu);
        } else if (soft_is_64(cpu)) {
            iret_64(cpu, width);
        } else {
            iret_legacy(cpu, width);
        }
    }
}
