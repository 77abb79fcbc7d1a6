/* SPDX-License-Identifier: MIT */
/*
 * Fast system calls (SDM volume 2; AMD APM volume 3, by instruction) and the bases of FS and GS.
 *
 *                  64-bit mode      compatibility mode    legacy mode
 *   SYSCALL        both             AMD (by CSTAR)        AMD (by STAR)
 *   SYSENTER       Intel            Intel                 both
 */
#include "accel/soft/event_internal.h"
#include "accel/soft/op_system.h"
#include "accel/soft/system.h"

/* ---- segments with fixed contents ---------------------------------------------------------------- */

#define ATTRIBUTES_CODE 0x9bu /* execute, read, accessed; S, P */
#define ATTRIBUTES_DATA 0x93u /* read, write, accessed; S, P */

enum code_width { CODE_32, CODE_64 };

static struct x86_segment flat_segment(uint16_t selector, uint32_t attributes, unsigned dpl)
{
    return (struct x86_segment){
        .base = 0,
        .limit = UINT32_MAX,
        .attributes = attributes | dpl << 5 | X86_SEGMENT_G,
        .selector = (uint16_t)((selector & ~3u) | dpl),
    };
}

static struct x86_segment flat_code(uint16_t selector, enum code_width width, unsigned dpl)
{
    return flat_segment(selector,
                        ATTRIBUTES_CODE | (width == CODE_64 ? X86_SEGMENT_L : X86_SEGMENT_D), dpl);
}

static struct x86_segment flat_stack(uint16_t selector, unsigned dpl)
{
    return flat_segment(selector, ATTRIBUTES_DATA | X86_SEGMENT_D, dpl);
}

/* ---- SYSCALL, SYSRET ------------------------------------------------------------------------------ */

/* Selectors of STAR. */
static uint16_t call_selector(const struct soft_cpu *cpu)
{
    return (uint16_t)(cpu->star >> 32);
}
static uint16_t return_selector(const struct soft_cpu *cpu)
{
    return (uint16_t)(cpu->star >> 48);
}

static void check_sce(struct soft_cpu *cpu)
{
    if (!(cpu->efer & X86_EFER_SCE) || (cpu->features->is_intel && !soft_is_64(cpu))) {
        soft_raise_no_error(cpu, EXC_UD);
    }
}

void soft_syscall(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t rflags = soft_get_rflags(cpu), next = cpu->next_ip;
    bool is_long = soft_is_long(cpu);
    struct x86_segment cs, ss;

    check_sce(cpu);
    cs = flat_code(call_selector(cpu), is_long ? CODE_64 : CODE_32, 0);
    ss = flat_stack((uint16_t)(call_selector(cpu) + 8), 0);
    ss.selector = (uint16_t)(call_selector(cpu) + 8); /* with STAR's RPL */
    cpu->gpr[X86_RCX] = next;
    if (is_long) {
        cpu->gpr[X86_R11] = rflags & ~X86_RFLAGS_RF;
        cpu->next_ip = soft_is_64(cpu) ? cpu->lstar : cpu->cstar;
        rflags &= ~(cpu->fmask | X86_RFLAGS_RF);
    } else {
        cpu->next_ip = (uint32_t)cpu->star;
        rflags &= ~(X86_RFLAGS_IF | X86_RFLAGS_VM | X86_RFLAGS_RF);
    }
    /* A single step that the mask takes away does not happen any more. */
    cpu->stepped_over = !(rflags & X86_RFLAGS_TF);
    soft_set_context(cpu, &cs, &ss, 0, rflags);
}

/* AMD's processors load no more of SS than the selector; what CPL is, is in the DPL here. */
static struct x86_segment sysret_stack(const struct soft_cpu *cpu, uint16_t selector)
{
    struct x86_segment ss = flat_stack(selector, 3);

    if (!cpu->features->is_intel) {
        const struct x86_segment *old = &cpu->seg[X86_SS];

        ss.base = old->base;
        ss.limit = old->limit;
        ss.attributes = old->attributes | 3u << 5;
    }
    return ss;
}

void soft_sysret(struct soft_cpu *cpu, const struct soft_op *op)
{
    bool to_64 = op->aux == 8, is_long = soft_is_long(cpu);
    uint64_t ip = to_64 ? cpu->gpr[X86_RCX] : (uint32_t)cpu->gpr[X86_RCX];
    uint64_t rflags;
    struct x86_segment cs, ss;

    check_sce(cpu);
    if (!soft_is_protected(cpu)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    soft_require_cpl0(cpu);
    if (cpu->features->is_intel && to_64 && !soft_is_canonical(cpu, ip)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    cs = to_64 ? flat_code((uint16_t)(return_selector(cpu) + 16), CODE_64, 3)
               : flat_code(return_selector(cpu), CODE_32, 3);
    ss = sysret_stack(cpu, (uint16_t)(return_selector(cpu) + 8));
    rflags = is_long ? cpu->gpr[X86_R11] & ~(X86_RFLAGS_RF | X86_RFLAGS_VM)
                     : soft_get_rflags(cpu) | X86_RFLAGS_IF;
    cpu->next_ip = ip;
    soft_set_context(cpu, &cs, &ss, 3, rflags);
    /* TF that is loaded traps right behind SYSRET, not after one more instruction as with IRET. */
    cpu->stepped_over = true;
    if (rflags & X86_RFLAGS_TF) {
        cpu->pending_dr6 |= DR6_BS;
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
    if (rflags & X86_RFLAGS_IF && (cpu->window_requested || cpu->interrupt_pending)) {
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
}

/* ---- SYSENTER, SYSEXIT ----------------------------------------------------------------------------- */

/* AMD's processors have them in legacy mode only. */
static void check_sysenter(struct soft_cpu *cpu)
{
    if (!cpu->features->is_intel && soft_is_long(cpu)) {
        soft_raise_no_error(cpu, EXC_UD);
    }
    if (soft_is_real(cpu) || !(cpu->sysenter_cs & 0xfffc)) {
        soft_raise(cpu, EXC_GP, 0);
    }
}

void soft_sysenter(struct soft_cpu *cpu, const struct soft_op *op)
{
    bool is_long = soft_is_long(cpu);
    uint16_t selector = (uint16_t)cpu->sysenter_cs;
    uint64_t rflags = soft_get_rflags(cpu);
    struct x86_segment cs, ss;

    check_sysenter(cpu);
    cs = flat_code(selector, is_long ? CODE_64 : CODE_32, 0);
    ss = flat_stack((uint16_t)((selector & ~3u) + 8), 0);
    cpu->next_ip = is_long ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip;
    cpu->gpr[X86_RSP] = is_long ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    soft_set_context(cpu, &cs, &ss, 0, rflags & ~(X86_RFLAGS_VM | X86_RFLAGS_IF | X86_RFLAGS_RF));
}

void soft_sysexit(struct soft_cpu *cpu, const struct soft_op *op)
{
    bool to_64 = op->aux == 8;
    uint16_t selector = (uint16_t)(cpu->sysenter_cs & ~3u);
    uint64_t ip = cpu->gpr[X86_RDX], sp = cpu->gpr[X86_RCX];
    struct x86_segment cs, ss;

    if (!soft_is_real(cpu)) {
        soft_require_cpl0(cpu);
    }
    check_sysenter(cpu);
    if (to_64 && (!soft_is_canonical(cpu, ip) || !soft_is_canonical(cpu, sp))) {
        soft_raise(cpu, EXC_GP, 0);
    }
    cs = flat_code((uint16_t)(selector + (to_64 ? 32 : 16)), to_64 ? CODE_64 : CODE_32, 3);
    ss = flat_stack((uint16_t)(selector + (to_64 ? 40 : 24)), 3);
    cpu->next_ip = to_64 ? ip : (uint32_t)ip;
    cpu->gpr[X86_RSP] = to_64 ? sp : (uint32_t)sp;
    soft_set_context(cpu, &cs, &ss, 3, soft_get_rflags(cpu));
}

/* ---- bases of FS and GS ------------------------------------------------------------------------- */

static void set_base(struct soft_cpu *cpu, enum x86_segment_register reg, uint64_t base)
{
    cpu->seg[reg].base = base;
    cpu->seg_base[reg] = base;
}

void soft_swapgs(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t base = cpu->seg[X86_GS].base;

    soft_require_cpl0(cpu);
    set_base(cpu, X86_GS, cpu->kernel_gs_base);
    cpu->kernel_gs_base = base;
}

static void check_fsgsbase(struct soft_cpu *cpu)
{
    if (!(cpu->cr4 & X86_CR4_FSGSBASE)) {
        soft_raise_no_error(cpu, EXC_UD);
    }
}

void soft_read_base(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t base = cpu->seg[op->src].base;

    check_fsgsbase(cpu);
    soft_set_reg64(cpu, op->dst, op->aux == 8 ? base : (uint32_t)base);
}

void soft_write_base(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t base = op->aux == 8 ? soft_reg64(cpu, op->dst) : soft_reg32(cpu, op->dst);

    check_fsgsbase(cpu);
    if (!soft_is_canonical(cpu, base)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    set_base(cpu, op->src, base);
}
