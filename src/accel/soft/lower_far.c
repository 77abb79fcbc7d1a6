/* SPDX-License-Identifier: MIT */
/*
 * Instructions on segments and descriptors, far branches, INT and IRET, CLI and STI.
 *
 * All but CLI, STI and reads of segment registers are slow handlers. A load of DS, ES, FS or GS in
 * 64-bit mode does not change the mode, so the block goes on; so does one of FS or GS anywhere.
 */
#include <string.h>

#include "accel/soft/code.h"
#include "accel/soft/event_internal.h"
#include "accel/soft/lower_selector.h"

/* ---- MOV, PUSH, POP with a segment register ------------------------------------------------------ */

static const struct soft_op *soft_op_mov_r16_seg(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_set_reg16(cpu, op->dst, cpu->seg[op->src].selector);
    SOFT_NEXT(cpu, op);
}

static const struct soft_op *soft_op_mov_r32_seg(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_set_reg32(cpu, op->dst, cpu->seg[op->src].selector);
    SOFT_NEXT(cpu, op);
}

static const struct soft_op *soft_op_mov_mem_seg(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_store16(cpu, op, soft_linear(cpu, op, 2, SOFT_WRITE), cpu->seg[op->src].selector);
    SOFT_NEXT(cpu, op);
}

/* No interrupt and no debug trap comes between this and the next instruction, which is to load
 * ESP (SDM volume 3, 6.8.3). The run loop runs that one alone, and the shadow is gone. */
static void shade(struct soft_cpu *cpu)
{
    cpu->shadow = 1;
    atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
}

static void mov_seg(struct soft_cpu *cpu, const struct soft_op *op, bool is_memory)
{
    enum x86_segment_register reg = op->dst;

    soft_load_segment(cpu, reg, soft_read_selector(cpu, op, is_memory));
    if (reg == X86_SS) {
        shade(cpu);
    }
}

static void slow_mov_seg_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    mov_seg(cpu, op, false);
}

static void slow_mov_seg_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    mov_seg(cpu, op, true);
}

static void slow_push_seg(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned width = op->aux;
    /* Intel's processors write 16 bits of the 32 (SDM volume 2, PUSH). */
    unsigned size = width == 4 && cpu->features->is_intel ? 2 : width;

    soft_stack_write(cpu, -(int64_t)width, cpu->seg[op->src].selector, size);
    soft_stack_adjust(cpu, -(int64_t)width);
}

static void slow_pop_seg(struct soft_cpu *cpu, const struct soft_op *op)
{
    enum x86_segment_register reg = op->dst;
    uint64_t rsp = cpu->gpr[X86_RSP];
    uint64_t mask = soft_stack_mask(cpu);
    uint16_t selector = soft_stack_selector(cpu, 0, op->aux);

    soft_load_segment(cpu, reg, selector);
    /* By the stack that it was popped from, not by a new SS. */
    cpu->gpr[X86_RSP] = (rsp & ~mask) | ((rsp + op->aux) & mask);
    if (reg == X86_SS) {
        shade(cpu);
    }
}

/* A slow handler that loads a segment register. */
static void lower_load(struct soft_lower *l, unsigned reg, soft_slow_fn *fn)
{
    l->op->dst = (uint8_t)reg;
    if (reg == X86_SS || (reg < X86_FS && !(l->mode & SOFT_MODE_CODE64))) {
        soft_lower_call_end(l, fn);
    } else {
        soft_lower_call(l, fn);
    }
}

static bool is_segment(const ZydisDecodedOperand *operand)
{
    return soft_is_register(operand) &&
           ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static void lower_mov(struct soft_lower *l)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0), *from = soft_operand(l, 1);

    if (is_segment(to)) {
        unsigned reg = soft_reg_number(to->reg.value);

        if (reg == X86_CS || reg > X86_GS) {
            return; /* #UD */
        }
        if (soft_is_memory(from)) {
            lower_load(l, reg, slow_mov_seg_mem);
        } else {
            l->op->src = soft_gpr_offset(from->reg.value);
            lower_load(l, reg, slow_mov_seg_reg);
        }
        return;
    }
    l->op->src = soft_reg_number(from->reg.value);
    if (soft_is_memory(to)) {
        l->op->fn = soft_op_mov_mem_seg;
    } else {
        l->op->dst = soft_gpr_offset(to->reg.value);
        l->op->fn = to->size == 16 ? soft_op_mov_r16_seg : soft_op_mov_r32_seg;
    }
}

void soft_lower_mov_segment(struct soft_lower *l)
{
    unsigned reg;

    if (l->insn->mnemonic == ZYDIS_MNEMONIC_MOV) {
        lower_mov(l);
        return;
    }
    reg = soft_reg_number(soft_operand(l, 0)->reg.value);
    l->op->aux = (uint16_t)l->width;
    if (l->insn->mnemonic == ZYDIS_MNEMONIC_POP) {
        lower_load(l, reg, slow_pop_seg);
    } else {
        l->op->src = (uint8_t)reg;
        soft_lower_call(l, slow_push_seg);
    }
}

/* ---- LDS, LES, LFS, LGS, LSS --------------------------------------------------------------------- */

/* AMD's processors have no far pointers with 64-bit offsets: REX.W changes nothing (APM volume 3). */
static unsigned pointer_width(const struct soft_lower *l)
{
    return l->width == 8 && !l->features->is_intel ? 4 : l->width;
}

struct far_pointer {
    uint64_t offset;
    uint16_t selector;
};

static struct far_pointer read_pointer(struct soft_cpu *cpu, const struct soft_op *op,
                                       unsigned width)
{
    uint64_t linear = soft_linear(cpu, op, width + 2, SOFT_READ);
    uint8_t bytes[10];
    struct far_pointer p = {0};

    if (width == 2) { /* aligned as words are, not as a doubleword (SDM volume 3, table 6-7) */
        p.offset = soft_load16(cpu, op, linear);
        p.selector = soft_load16(cpu, op, linear + 2);
        return p;
    }
    soft_load_bytes(cpu, op, linear, bytes, width + 2);
    memcpy(&p.offset, bytes, width);
    memcpy(&p.selector, bytes + width, 2);
    return p;
}

static void slow_load_pointer(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct far_pointer p = read_pointer(cpu, op, op->aux);

    soft_load_segment(cpu, op->dst, p.selector);
    if (op->aux == 2) {
        soft_set_reg16(cpu, op->src, (uint16_t)p.offset);
    } else {
        soft_set_reg64(cpu, op->src, p.offset);
    }
}

static void lower_load_pointer(struct soft_lower *l, uintptr_t reg)
{
    if (!l->has_memory) {
        return; /* #UD */
    }
    l->op->src = soft_gpr_offset(soft_operand(l, 0)->reg.value);
    l->op->aux = (uint16_t)pointer_width(l);
    lower_load(l, (unsigned)reg, slow_load_pointer);
}

/* ---- far branches -------------------------------------------------------------------------------- */

static void slow_jump_pointer(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_far_jump(cpu, op->aux, (uint32_t)op->disp, op->dst);
}

static void slow_call_pointer(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_far_call(cpu, op->aux, (uint32_t)op->disp, op->dst);
}

static void slow_jump_memory(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct far_pointer p = read_pointer(cpu, op, op->aux);

    soft_far_jump(cpu, p.selector, p.offset, op->aux);
}

static void slow_call_memory(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct far_pointer p = read_pointer(cpu, op, op->aux);

    soft_far_call(cpu, p.selector, p.offset, op->aux);
}

static void slow_return(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_far_return(cpu, op->dst, op->aux);
}

void soft_lower_far_branch(struct soft_lower *l)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0);
    bool is_call = l->insn->mnemonic == ZYDIS_MNEMONIC_CALL;

    l->op->dst = (uint8_t)l->width;
    if (l->insn->mnemonic == ZYDIS_MNEMONIC_RET) {
        bool has_count = l->insn->operand_count_visible > 0 && soft_is_immediate(to);

        l->op->aux = has_count ? (uint16_t)to->imm.value.u : 0;
        soft_lower_call_end(l, slow_return);
    } else if (to->type == ZYDIS_OPERAND_TYPE_POINTER) {
        l->op->aux = to->ptr.segment;
        l->op->disp = (int32_t)to->ptr.offset;
        soft_lower_call_end(l, is_call ? slow_call_pointer : slow_jump_pointer);
    } else if (l->has_memory) {
        l->op->aux = (uint16_t)pointer_width(l);
        soft_lower_call_end(l, is_call ? slow_call_memory : slow_jump_memory);
    }
}

/* ---- INT, IRET ----------------------------------------------------------------------------------- */

static void slow_int(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_software_interrupt(cpu, (uint8_t)op->aux, false);
}

static void slow_int3(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_software_interrupt(cpu, EXC_BP, true);
}

static void slow_into(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (cpu->status & SOFT_OF) {
        soft_software_interrupt(cpu, EXC_OF, true);
    }
}

static void slow_int1(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_int1(cpu);
}

static void slow_iret(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_iret(cpu, op->aux);
}

static void lower_int(struct soft_lower *l, uintptr_t arg)
{
    l->op->aux = (uint8_t)soft_operand(l, 0)->imm.value.u;
    soft_lower_call_end(l, slow_int);
}

static void lower_iret(struct soft_lower *l, uintptr_t width)
{
    l->op->aux = (uint16_t)width;
    soft_lower_call_end(l, slow_iret);
}

/* ---- CLI, STI ------------------------------------------------------------------------------------ */

/* Does VIF stand for IF? (SDM volume 3, 20.2.9; volume 2, CLI) Else #GP(0). */
static void require_virtual_if(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t needed = soft_is_v86(cpu) ? X86_CR4_VME : X86_CR4_PVI;

    if (cpu->cpl != 3 || !(cpu->cr4 & needed)) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
}

static const struct soft_op *soft_op_cli(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (__builtin_expect(cpu->cpl <= iopl(cpu), 1)) {
        cpu->rflags &= ~X86_RFLAGS_IF;
    } else {
        require_virtual_if(cpu, op);
        cpu->rflags &= ~X86_RFLAGS_VIF;
    }
    SOFT_NEXT(cpu, op);
}

/*
 * Interrupts stay out until the next instruction is done (SDM volume 2, STI). They come in between
 * blocks only, so if that instruction is in this block and nothing waits, there is nothing to do.
 */
static const struct soft_op *soft_op_sti(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (__builtin_expect(cpu->cpl <= iopl(cpu), 1)) {
        if (!(cpu->rflags & X86_RFLAGS_IF)) {
            cpu->rflags |= X86_RFLAGS_IF;
            if (soft_has_event(cpu) || op[1].fn == soft_op_continue) {
                cpu->shadow = 2;
                atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
                cpu->rip = soft_next_ip(cpu, op);
                SOFT_DISPATCH(cpu);
            }
        }
    } else {
        require_virtual_if(cpu, op);
        if (cpu->rflags & X86_RFLAGS_VIP) {
            soft_op_raise(cpu, op, EXC_GP, 0);
        }
        cpu->rflags |= X86_RFLAGS_VIF;
    }
    SOFT_NEXT(cpu, op);
}

static void lower_cli(struct soft_lower *l, uintptr_t arg)
{
    l->op->fn = soft_op_cli;
}

static void lower_sti(struct soft_lower *l, uintptr_t arg)
{
    l->op->fn = soft_op_sti;
}

/* ---- the table ---------------------------------------------------------------------------------- */

static void lower_slow_end(struct soft_lower *l, uintptr_t fn)
{
    soft_lower_call_end(l, (soft_slow_fn *)fn);
}

const struct soft_lowering soft_lowering_far[] = {
    {ZYDIS_MNEMONIC_LDS, SOFT_ALWAYS, lower_load_pointer, X86_DS},
    {ZYDIS_MNEMONIC_LES, SOFT_ALWAYS, lower_load_pointer, X86_ES},
    {ZYDIS_MNEMONIC_LFS, SOFT_ALWAYS, lower_load_pointer, X86_FS},
    {ZYDIS_MNEMONIC_LGS, SOFT_ALWAYS, lower_load_pointer, X86_GS},
    {ZYDIS_MNEMONIC_LSS, SOFT_ALWAYS, lower_load_pointer, X86_SS},
    {ZYDIS_MNEMONIC_INT, SOFT_ALWAYS, lower_int, 0},
    {ZYDIS_MNEMONIC_INT1, SOFT_ALWAYS, lower_slow_end, (uintptr_t)slow_int1},
    {ZYDIS_MNEMONIC_INT3, SOFT_ALWAYS, lower_slow_end, (uintptr_t)slow_int3},
    {ZYDIS_MNEMONIC_INTO, SOFT_ALWAYS, lower_slow_end, (uintptr_t)slow_into},
    {ZYDIS_MNEMONIC_IRET, SOFT_ALWAYS, lower_iret, 2},
    {ZYDIS_MNEMONIC_IRETD, SOFT_ALWAYS, lower_iret, 4},
    {ZYDIS_MNEMONIC_IRETQ, SOFT_ALWAYS, lower_iret, 8},
    {ZYDIS_MNEMONIC_CLI, SOFT_ALWAYS, lower_cli, 0},
    {ZYDIS_MNEMONIC_STI, SOFT_ALWAYS, lower_sti, 0},
    {ZYDIS_MNEMONIC_LAR, SOFT_ALWAYS, soft_lower_selector, SOFT_LAR},
    {ZYDIS_MNEMONIC_LSL, SOFT_ALWAYS, soft_lower_selector, SOFT_LSL},
    {ZYDIS_MNEMONIC_VERR, SOFT_ALWAYS, soft_lower_selector, SOFT_VERR},
    {ZYDIS_MNEMONIC_VERW, SOFT_ALWAYS, soft_lower_selector, SOFT_VERW},
    {ZYDIS_MNEMONIC_LLDT, SOFT_ALWAYS, soft_lower_selector, SOFT_LLDT},
    {ZYDIS_MNEMONIC_LTR, SOFT_ALWAYS, soft_lower_selector, SOFT_LTR},
    {ZYDIS_MNEMONIC_ARPL, SOFT_ALWAYS, soft_lower_arpl, 0},
    {ZYDIS_MNEMONIC_SLDT, SOFT_ALWAYS, soft_lower_store_selector, X86_LDTR},
    {ZYDIS_MNEMONIC_STR, SOFT_ALWAYS, soft_lower_store_selector, X86_TR},
    {0},
};
