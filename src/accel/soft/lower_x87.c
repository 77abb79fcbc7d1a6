/* SPDX-License-Identifier: MIT */
/* Lowering of x87 instructions: D8 to DF and WAIT (SDM volume 2, appendix A.5). */
#include "accel/soft/lower.h"
#include "accel/soft/x87.h"

/* Size of the memory operand of D8 to DF /0 to /7 and whether it is written, for instructions that
 * compute. The zeroes are control instructions, and DB /4 and /6, which do not exist. */
#define L(size)                                                                                    \
    {                                                                                              \
        size, X87_LOAD                                                                             \
    }
#define S(size)                                                                                    \
    {                                                                                              \
        size, X87_STORE                                                                            \
    }
static const struct {
    uint8_t size, kind;
} x87_memory[8][8] = {
    {L(4), L(4), L(4), L(4), L(4), L(4), L(4), L(4)},
    {L(4), {0}, S(4), S(4), {0}, {0}, {0}, {0}},
    {L(4), L(4), L(4), L(4), L(4), L(4), L(4), L(4)},
    {L(4), S(4), S(4), S(4), {0}, L(10), {0}, S(10)},
    {L(8), L(8), L(8), L(8), L(8), L(8), L(8), L(8)},
    {L(8), S(8), S(8), S(8), {0}, {0}, {0}, {0}},
    {L(2), L(2), L(2), L(2), L(2), L(2), L(2), L(2)},
    {L(2), S(2), S(2), S(2), L(10), L(8), S(10), S(8)},
};
#undef L
#undef S

static void lower_x87(struct soft_lower *l, uintptr_t arg)
{
    unsigned opcode = l->insn->opcode & 7;
    unsigned modrm =
        (unsigned)l->insn->raw.modrm.mod << 6 | l->insn->raw.modrm.reg << 3 | l->insn->raw.modrm.rm;
    bool is_memory = l->insn->raw.modrm.mod != 3;

    (void)arg;
    if (!soft_lower_unit(l, SOFT_MODE_FPU)) {
        return;
    }
    l->op->aux = (uint16_t)(opcode << 8 | modrm);
    if (is_memory) {
        l->op->dst = x87_memory[opcode][modrm >> 3 & 7].size;
        l->op->src = x87_memory[opcode][modrm >> 3 & 7].kind;
        if (l->op->dst == 0) {
            return; /* #UD */
        }
    } else {
        l->op->src = modrm & 7;
    }
    l->op->fn = soft_x87_fast(l->op, is_memory);
    if (!l->op->fn) {
        l->op->fn = soft_op_x87_generic;
    }
}

/* FCMOVcc, FCOMI…: CPUID's CMOV and x87 (SDM volume 2). FISTTP: SSE3. */
static void lower_x87_cmov(struct soft_lower *l, uintptr_t arg)
{
    if (l->features->cmov) {
        lower_x87(l, arg);
    }
}

static void lower_fisttp(struct soft_lower *l, uintptr_t arg)
{
    if (l->features->sse3) {
        lower_x87(l, arg);
    }
}

/* arg: a soft_slow_fn */
static void lower_x87_control(struct soft_lower *l, uintptr_t arg)
{
    if (soft_lower_unit(l, SOFT_MODE_FPU)) {
        if (l->has_memory) {
            /* FNSTENV and its like: the size tells 16-bit forms from 32-bit ones. */
            l->op->dst = (uint8_t)(soft_operand(l, 0)->size / 8);
        }
        soft_lower_call(l, (soft_slow_fn *)arg);
    }
}

static void lower_fnstsw(struct soft_lower *l, uintptr_t arg)
{
    if (l->has_memory) {
        lower_x87_control(l, arg);
    } else if (soft_lower_unit(l, SOFT_MODE_FPU)) {
        l->op->fn = soft_op_x87_fnstsw_ax;
    }
}

static void lower_fwait(struct soft_lower *l, uintptr_t arg)
{
    soft_lower_call(l, (soft_slow_fn *)arg);
}

#define X87(name)                                                                                  \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, SOFT_IF(x87), lower_x87, 0                                          \
    }
#define X87_CMOV(name)                                                                             \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, SOFT_IF(x87), lower_x87_cmov, 0                                     \
    }
#define X87_CONTROL(name, fn)                                                                      \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, SOFT_IF(x87), lower_x87_control, (uintptr_t)(fn)                    \
    }

const struct soft_lowering soft_lowering_x87[] = {
    X87(F2XM1),
    X87(FABS),
    X87(FADD),
    X87(FADDP),
    X87(FBLD),
    X87(FBSTP),
    X87(FCHS),
    X87_CMOV(FCMOVB),
    X87_CMOV(FCMOVBE),
    X87_CMOV(FCMOVE),
    X87_CMOV(FCMOVNB),
    X87_CMOV(FCMOVNBE),
    X87_CMOV(FCMOVNE),
    X87_CMOV(FCMOVNU),
    X87_CMOV(FCMOVU),
    X87(FCOM),
    X87_CMOV(FCOMI),
    X87_CMOV(FCOMIP),
    X87(FCOMP),
    X87(FCOMPP),
    X87(FCOS),
    X87(FDECSTP),
    X87(FDIV),
    X87(FDIVP),
    X87(FDIVR),
    X87(FDIVRP),
    X87(FFREE),
    X87(FFREEP),
    X87(FIADD),
    X87(FICOM),
    X87(FICOMP),
    X87(FIDIV),
    X87(FIDIVR),
    X87(FILD),
    X87(FIMUL),
    X87(FINCSTP),
    X87(FIST),
    X87(FISTP),
    {ZYDIS_MNEMONIC_FISTTP, SOFT_IF(x87), lower_fisttp, 0},
    X87(FISUB),
    X87(FISUBR),
    X87(FLD),
    X87(FLD1),
    X87(FLDL2E),
    X87(FLDL2T),
    X87(FLDLG2),
    X87(FLDLN2),
    X87(FLDPI),
    X87(FLDZ),
    X87(FMUL),
    X87(FMULP),
    X87(FNOP),
    X87(FPATAN),
    X87(FPREM),
    X87(FPREM1),
    X87(FPTAN),
    X87(FRNDINT),
    X87(FSCALE),
    X87(FSIN),
    X87(FSINCOS),
    X87(FSQRT),
    X87(FST),
    X87(FSTP),
    X87(FSTPNCE),
    X87(FSUB),
    X87(FSUBP),
    X87(FSUBR),
    X87(FSUBRP),
    X87(FTST),
    X87(FUCOM),
    X87_CMOV(FUCOMI),
    X87_CMOV(FUCOMIP),
    X87(FUCOMP),
    X87(FUCOMPP),
    X87(FXAM),
    X87(FXCH),
    X87(FXTRACT),
    X87(FYL2X),
    X87(FYL2XP1),

    X87_CONTROL(FDISI8087_NOP, soft_x87_nothing),
    X87_CONTROL(FENI8087_NOP, soft_x87_nothing),
    X87_CONTROL(FSETPM287_NOP, soft_x87_nothing),
    X87_CONTROL(FLDCW, soft_x87_fldcw),
    X87_CONTROL(FLDENV, soft_x87_fldenv),
    X87_CONTROL(FNCLEX, soft_x87_fnclex),
    X87_CONTROL(FNINIT, soft_x87_fninit),
    X87_CONTROL(FNSAVE, soft_x87_fnsave),
    X87_CONTROL(FNSTCW, soft_x87_fnstcw),
    X87_CONTROL(FNSTENV, soft_x87_fnstenv),
    X87_CONTROL(FRSTOR, soft_x87_frstor),
    {ZYDIS_MNEMONIC_FNSTSW, SOFT_IF(x87), lower_fnstsw, (uintptr_t)soft_x87_fnstsw},
    {ZYDIS_MNEMONIC_FWAIT, SOFT_IF(x87), lower_fwait, (uintptr_t)soft_x87_fwait},
    {ZYDIS_MNEMONIC_INVALID},
};
