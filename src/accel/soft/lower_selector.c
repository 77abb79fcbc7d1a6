/* SPDX-License-Identifier: MIT */
/*
 * LAR, LSL, VERR, VERW, ARPL, SLDT, STR, LLDT, LTR (Intel SDM volume 2; volume 3, 5.10). All of them
 * are slow handlers, and exist in protected mode only.
 */
#include "accel/soft/lower_selector.h"

static void require_cpl0(struct soft_cpu *cpu)
{
    if (cpu->cpl != 0) {
        soft_fault(cpu, EXC_GP);
    }
}

/* ---- LAR, LSL, VERR, VERW, ARPL ------------------------------------------------------------------ */

static void set_zf(struct soft_cpu *cpu, bool zf)
{
    cpu->status = zf ? cpu->status | SOFT_ZF : cpu->status & ~SOFT_ZF;
}

/* Conforming code is for everybody; anything else for those whose CPL and RPL reach it. */
static bool is_visible(const struct soft_cpu *cpu, uint16_t selector, uint64_t d)
{
    return (descriptor_is_code(d) && descriptor_is_conforming(d)) ||
           (descriptor_dpl(d) >= cpu->cpl && descriptor_dpl(d) >= (selector & 3u));
}

/* All of it lies within the table: 16 bytes of a system descriptor in IA-32e mode. */
static bool find_visible(struct soft_cpu *cpu, uint16_t selector, uint64_t *d)
{
    uint64_t high;

    return !selector_is_null(selector) && soft_find_descriptor(cpu, selector, d, &high) &&
           is_visible(cpu, selector, *d);
}

/* System descriptors that LAR and LSL know, a bit per type (SDM volume 2, tables 3-53 and 3-54). */
#define LAR_TYPES      0x1a3eu /* 1 to 5, 9, 11, 12 */
#define LAR_TYPES_LONG 0x1a04u /* 2, 9, 11, 12 */
#define LSL_TYPES      0x0a0eu /* 1, 2, 3, 9, 11 */
#define LSL_TYPES_LONG 0x0a04u /* 2, 9, 11 */

static bool is_known(const struct soft_cpu *cpu, uint64_t d, unsigned types, unsigned types_long)
{
    return !descriptor_is_system(d) ||
           (soft_is_long(cpu) ? types_long : types) >> descriptor_type(d) & 1;
}

static void look_up(struct soft_cpu *cpu, const struct soft_op *op, bool is_memory, bool is_limit)
{
    uint16_t selector = soft_read_selector(cpu, op, is_memory);
    bool found;
    uint32_t value;
    uint64_t d;

    found =
        find_visible(cpu, selector, &d) && (is_limit ? is_known(cpu, d, LSL_TYPES, LSL_TYPES_LONG)
                                                     : is_known(cpu, d, LAR_TYPES, LAR_TYPES_LONG));
    if (found) {
        value = is_limit ? soft_segment_of(selector, d).limit : d >> 32 & 0x00f0ff00;
        if (op->aux == 2) {
            soft_set_reg16(cpu, op->dst, (uint16_t)value);
        } else {
            soft_set_reg32(cpu, op->dst, value);
        }
    }
    set_zf(cpu, found);
}

static void slow_lar_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    look_up(cpu, op, false, false);
}
static void slow_lar_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    look_up(cpu, op, true, false);
}
static void slow_lsl_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    look_up(cpu, op, false, true);
}
static void slow_lsl_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    look_up(cpu, op, true, true);
}

static void verify(struct soft_cpu *cpu, const struct soft_op *op, bool is_memory, bool is_write)
{
    uint16_t selector = soft_read_selector(cpu, op, is_memory);
    bool ok;
    uint64_t d;

    ok = find_visible(cpu, selector, &d) && !descriptor_is_system(d);
    if (ok) {
        unsigned type = descriptor_type(d);

        ok = is_write ? (type & (ACCESS_CODE | ACCESS_RW)) == ACCESS_RW
                      : (type & (ACCESS_CODE | ACCESS_RW)) != ACCESS_CODE;
    }
    set_zf(cpu, ok);
}

static void slow_verr_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    verify(cpu, op, false, false);
}
static void slow_verr_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    verify(cpu, op, true, false);
}
static void slow_verw_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    verify(cpu, op, false, true);
}
static void slow_verw_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    verify(cpu, op, true, true);
}

static void slow_arpl_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t to = soft_reg16(cpu, op->dst), rpl = soft_reg16(cpu, op->src) & 3;

    if ((to & 3) < rpl) {
        soft_set_reg16(cpu, op->dst, (uint16_t)((to & ~3u) | rpl));
    }
    set_zf(cpu, (to & 3) < rpl);
}

/* The segment has to be writable, the page only if something is written. */
static void slow_arpl_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = soft_linear(cpu, op, 2, SOFT_WRITE);
    uint16_t to = soft_load16(cpu, op, linear), rpl = soft_reg16(cpu, op->src) & 3;

    if ((to & 3) < rpl) {
        soft_store16(cpu, op, linear, (uint16_t)((to & ~3u) | rpl));
    }
    set_zf(cpu, (to & 3) < rpl);
}

/* ---- SLDT, STR, LLDT, LTR ------------------------------------------------------------------------ */

static void check_umip(struct soft_cpu *cpu)
{
    if (cpu->cr4 & X86_CR4_UMIP) {
        require_cpl0(cpu);
    }
}

static void slow_store_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_umip(cpu);
    if (op->aux == 2) {
        soft_set_reg16(cpu, op->dst, cpu->seg[op->src].selector);
    } else {
        soft_set_reg32(cpu, op->dst, cpu->seg[op->src].selector);
    }
}

static void slow_store_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_umip(cpu);
    soft_store16(cpu, op, soft_linear(cpu, op, 2, SOFT_WRITE), cpu->seg[op->src].selector);
}

static void slow_lldt_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    require_cpl0(cpu);
    soft_load_ldt(cpu, soft_read_selector(cpu, op, false));
}
static void slow_lldt_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    require_cpl0(cpu);
    soft_load_ldt(cpu, soft_read_selector(cpu, op, true));
}
static void slow_ltr_reg(struct soft_cpu *cpu, const struct soft_op *op)
{
    require_cpl0(cpu);
    soft_load_tr(cpu, soft_read_selector(cpu, op, false));
}
static void slow_ltr_mem(struct soft_cpu *cpu, const struct soft_op *op)
{
    require_cpl0(cpu);
    soft_load_tr(cpu, soft_read_selector(cpu, op, true));
}

/* ---- lowering: not in real and virtual-8086 mode ----------------------------- */

void soft_lower_selector(struct soft_lower *l, uintptr_t which)
{
    static soft_slow_fn *const functions[][2] = {
        [SOFT_LAR] = {slow_lar_reg, slow_lar_mem},    [SOFT_LSL] = {slow_lsl_reg, slow_lsl_mem},
        [SOFT_VERR] = {slow_verr_reg, slow_verr_mem}, [SOFT_VERW] = {slow_verw_reg, slow_verw_mem},
        [SOFT_LLDT] = {slow_lldt_reg, slow_lldt_mem}, [SOFT_LTR] = {slow_ltr_reg, slow_ltr_mem},
    };
    bool has_result = which <= SOFT_LSL;
    const ZydisDecodedOperand *from = soft_operand(l, has_result);

    if (!(l->mode & SOFT_MODE_PROTECTED)) {
        return; /* #UD */
    }
    if (has_result) {
        l->op->dst = soft_gpr_offset(soft_operand(l, 0)->reg.value);
        l->op->aux = (uint16_t)l->width;
    }
    if (!soft_is_memory(from)) {
        l->op->src = soft_gpr_offset(from->reg.value);
    }
    soft_lower_call(l, functions[which][soft_is_memory(from)]);
}

/* SLDT, STR */
void soft_lower_store_selector(struct soft_lower *l, uintptr_t reg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0);

    if (!(l->mode & SOFT_MODE_PROTECTED)) {
        return; /* #UD */
    }
    l->op->src = (uint8_t)reg;
    if (soft_is_memory(to)) {
        soft_lower_call(l, slow_store_mem);
    } else {
        l->op->dst = soft_gpr_offset(to->reg.value);
        l->op->aux = (uint16_t)(to->size / 8);
        soft_lower_call(l, slow_store_reg);
    }
}

void soft_lower_arpl(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0);

    if (!(l->mode & SOFT_MODE_PROTECTED)) {
        return; /* #UD */
    }
    l->op->src = soft_gpr_offset(soft_operand(l, 1)->reg.value);
    if (soft_is_memory(to)) {
        soft_lower_call(l, slow_arpl_mem);
    } else {
        l->op->dst = soft_gpr_offset(to->reg.value);
        soft_lower_call(l, slow_arpl_reg);
    }
}
