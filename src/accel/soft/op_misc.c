/* SPDX-License-Identifier: MIT */
/*
 * Conversions within RAX, flag instructions, decimal adjustments, XLAT, SALC, BOUND, NOP (SDM volume
 * 2).
 */
#include "accel/soft/integer.h"

/* ---- CBW, CWDE, CDQE, CWD, CDQ, CQO ----------------------------------------------------------- */

SOFT_HANDLER(cbw)
{
    soft_set_reg16(cpu, X86_RAX * 8, (uint16_t)(int8_t)cpu->gpr[X86_RAX]);
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(cwde)
{
    cpu->gpr[X86_RAX] = (uint32_t)(int16_t)cpu->gpr[X86_RAX];
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(cdqe)
{
    cpu->gpr[X86_RAX] = (uint64_t)(int32_t)cpu->gpr[X86_RAX];
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(cwd)
{
    soft_set_reg16(cpu, X86_RDX * 8, (uint16_t)((int16_t)cpu->gpr[X86_RAX] >> 15));
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(cdq)
{
    cpu->gpr[X86_RDX] = (int32_t)cpu->gpr[X86_RAX] < 0 ? UINT32_MAX : 0;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(cqo)
{
    cpu->gpr[X86_RDX] = (int64_t)cpu->gpr[X86_RAX] < 0 ? UINT64_MAX : 0;
    SOFT_NEXT(cpu, op);
}

/* ---- flags ----------------------------------------------------------------------------------- */

SOFT_HANDLER(clc)
{
    cpu->status &= ~SOFT_CF;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(stc)
{
    cpu->status |= SOFT_CF;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(cmc)
{
    cpu->status ^= SOFT_CF;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(cld)
{
    cpu->rflags &= ~X86_RFLAGS_DF;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(std)
{
    cpu->rflags |= X86_RFLAGS_DF;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(lahf)
{
    soft_set_reg8(cpu, X86_RAX * 8 + 1, (uint8_t)(soft_status_to_rflags(cpu->status) | 2));
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(sahf)
{
    uint8_t ah = soft_reg8(cpu, X86_RAX * 8 + 1);

    cpu->status = (cpu->status & SOFT_OF) | soft_status_of_rflags(ah);
    SOFT_NEXT(cpu, op);
}

/* ---- decimal: not in 64-bit mode, so the host's are out of reach ------------------------------- */

/* SF, ZF and PF of a byte; the other three as given. */
static void set_decimal_status(struct soft_cpu *cpu, uint8_t al, uint32_t others)
{
    cpu->status = 0x200 | others | (al & 0x80 ? SOFT_SF : 0) | (al ? 0 : SOFT_ZF) |
                  (__builtin_parity(al) ? 0 : SOFT_PF);
}

static void set_ax(struct soft_cpu *cpu, uint8_t ah, uint8_t al)
{
    soft_set_reg16(cpu, X86_RAX * 8, (uint16_t)(ah << 8 | al));
}

/* DAA and DAS differ in the direction only. OF is undefined: zero. */
static void decimal_packed(struct soft_cpu *cpu, int direction)
{
    uint8_t old = (uint8_t)cpu->gpr[X86_RAX], al = old;
    bool half = (old & 15) > 9 || cpu->status & SOFT_AF;
    bool carry = old > 0x99 || cpu->status & SOFT_CF;
    /* DAS: subtracting six may borrow, too. */
    bool borrow = direction < 0 && half && old < 6;

    al = (uint8_t)(al + direction * (half ? 6 : 0) + direction * (carry ? 0x60 : 0));
    soft_set_reg8(cpu, X86_RAX * 8, al);
    set_decimal_status(cpu, al, (half ? SOFT_AF : 0) | (carry || borrow ? SOFT_CF : 0));
}
static void daa(struct soft_cpu *cpu, const struct soft_op *op)
{
    decimal_packed(cpu, 1);
}
static void das(struct soft_cpu *cpu, const struct soft_op *op)
{
    decimal_packed(cpu, -1);
}

/* AAA and AAS: AX moves by 0x106, AL keeps a digit. SF, ZF, PF, OF are undefined: AL's, and zero. */
static void decimal_unpacked(struct soft_cpu *cpu, int direction)
{
    uint16_t ax = (uint16_t)cpu->gpr[X86_RAX];
    bool adjust = (ax & 15) > 9 || cpu->status & SOFT_AF;

    if (adjust) {
        ax = (uint16_t)(ax + direction * 0x106);
    }
    set_ax(cpu, (uint8_t)(ax >> 8), ax & 15);
    set_decimal_status(cpu, ax & 15, adjust ? SOFT_AF | SOFT_CF : 0);
}
static void aaa(struct soft_cpu *cpu, const struct soft_op *op)
{
    decimal_unpacked(cpu, 1);
}
static void aas(struct soft_cpu *cpu, const struct soft_op *op)
{
    decimal_unpacked(cpu, -1);
}

/* op->aux: the base, ten as a rule. OF, AF, CF are undefined: zero. */
static void aam(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t al = (uint8_t)cpu->gpr[X86_RAX];
    unsigned base = op->aux;

    if (base != 0) {
        set_ax(cpu, (uint8_t)(al / base), (uint8_t)(al % base));
        set_decimal_status(cpu, (uint8_t)(al % base), 0);
    } else {
        soft_raise_no_error(cpu, EXC_DE);
    }
}
/* AL += AH * base: what is undefined of the flags is that addition's, as on processors. */
static void aad(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t ax = (uint16_t)cpu->gpr[X86_RAX];
    uint8_t al = (uint8_t)ax;
    uint32_t status = 0;

    __asm__("addb %[y], %[x]" SOFT_FLAGS_SAVE
            : [x] "+r"(al), "+&a"(status)
            : [y] "r"((uint8_t)((ax >> 8) * op->aux))
            : "cc");
    set_ax(cpu, 0, al);
    cpu->status = status;
}

/* AL = CF ? 0xff : 0; without a name in the SDM. */
static void salc(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_set_reg8(cpu, X86_RAX * 8, cpu->status & SOFT_CF ? 0xff : 0);
}

/* ---- lowering -------------------------------------------------------------------------------- */

SOFT_HANDLER(nop)
{
    SOFT_NEXT(cpu, op);
}

/* Hints, too: their memory operand is not accessed. */
void soft_lower_nop(struct soft_lower *l, uintptr_t arg)
{
    bool is_prefetch = l->insn->opcode_map == ZYDIS_OPCODE_MAP_0F && l->insn->opcode == 0x0d;

    /* PREFETCHW of a register: nothing on Intel's processors, refused by AMD's (APM volume 3). */
    if (is_prefetch && !l->has_memory && !l->features->is_intel) {
        soft_lower_raise(l, EXC_UD);
        return;
    }
    l->op->fn = nop;
}

/* arg: enum soft_simple. */
void soft_lower_simple(struct soft_lower *l, uintptr_t arg)
{
    static soft_op_fn *const handlers[SIMPLE_COUNT] = {
        [SIMPLE_CBW] = cbw,   [SIMPLE_CWDE] = cwde, [SIMPLE_CDQE] = cdqe, [SIMPLE_CWD] = cwd,
        [SIMPLE_CDQ] = cdq,   [SIMPLE_CQO] = cqo,   [SIMPLE_CLC] = clc,   [SIMPLE_STC] = stc,
        [SIMPLE_CMC] = cmc,   [SIMPLE_CLD] = cld,   [SIMPLE_STD] = std,   [SIMPLE_LAHF] = lahf,
        [SIMPLE_SAHF] = sahf,
    };
    static soft_slow_fn *const slow[SIMPLE_COUNT] = {
        [SIMPLE_AAA] = aaa, [SIMPLE_AAS] = aas, [SIMPLE_AAM] = aam,   [SIMPLE_AAD] = aad,
        [SIMPLE_DAA] = daa, [SIMPLE_DAS] = das, [SIMPLE_SALC] = salc,
    };

    if ((arg == SIMPLE_LAHF || arg == SIMPLE_SAHF) && l->mode & SOFT_MODE_CODE64 &&
        !l->features->lahf_lm) {
        return;
    }
    if (arg == SIMPLE_AAM || arg == SIMPLE_AAD) {
        l->op->aux = (uint8_t)soft_operand(l, 0)->imm.value.u;
    }
    if (handlers[arg]) {
        l->op->fn = handlers[arg];
    } else {
        soft_lower_call(l, slow[arg]);
    }
}

/* ---- XLAT ------------------------------------------------------------------------------------ */

/* AL = [rBX + AL]: the index is a temporary slot, where AL is put. */
SOFT_HANDLER(xlat)
{
    cpu->temp[0] = (uint8_t)cpu->gpr[X86_RAX];
    soft_set_reg8(cpu, X86_RAX * 8, soft_load8(cpu, op, soft_linear(cpu, op, 1, SOFT_READ)));
    SOFT_NEXT(cpu, op);
}

void soft_lower_xlat(struct soft_lower *l, uintptr_t arg)
{
    struct soft_op *op = l->op;

    soft_lower_implicit(l, X86_RBX);
    op->index = SOFT_SLOT_TEMP;
    op->scale = 0;
    op->fn = xlat;
}

/* ---- BOUND ----------------------------------------------------------------------------------- */

/* Both bounds are read before they are compared; as signed numbers. */
static void bound16(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = soft_linear(cpu, op, 4, SOFT_READ);
    uint32_t bounds = soft_load32(cpu, op, linear);
    int16_t index = (int16_t)soft_reg16(cpu, op->src);

    if (index < (int16_t)bounds || index > (int16_t)(bounds >> 16)) {
        soft_raise_no_error(cpu, EXC_BR);
    }
}
static void bound32(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = soft_linear(cpu, op, 8, SOFT_READ);
    uint64_t bounds = soft_load64(cpu, op, linear);
    int32_t index = (int32_t)soft_reg32(cpu, op->src);

    if (index < (int32_t)bounds || index > (int32_t)(bounds >> 32)) {
        soft_raise_no_error(cpu, EXC_BR);
    }
}

void soft_lower_bound(struct soft_lower *l, uintptr_t arg)
{
    l->op->src = soft_operand_reg(l, 0);
    soft_lower_call(l, soft_operand(l, 0)->size == 16 ? bound16 : bound32);
}
