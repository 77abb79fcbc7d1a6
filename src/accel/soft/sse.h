/* SPDX-License-Identifier: MIT */
/*
 * MMX and SSE instructions (legacy encodings): how their handlers are made. Included by op_sse_*.c and
 * lower_sse.c only.
 *
 * The host computes. What an instruction does to its operands is a function, soft_sse_fn, around that
 * very instruction; op->imm of every operation points to its function:
 *
 *      fast handlers   PXOR xmm, xmm ...   one per instruction, the function inlined; give up, and
 *           |                              go on with a general handler, when the address is not in
 *           v                              the TLB or an exception is unmasked
 *      general handlers                    soft_sse_rr, _rm, _mr: any operands, as op->aux says;
 *                                          call op->imm
 *
 * Instructions with an immediate byte have a function for each of its values (sse_immediate.S).
 * Functions of instructions that came after SSE2 are reached only when the CPU offers them, which
 * it does only when the host has them.
 *
 * MMX instructions run on the host's XMM registers: the host's x87 registers stay alone, and no host
 * EMMS is needed. Integer vector instructions do the same to the low half of an XMM register; where
 * they do not (packs, horizontal sums, unpacks of high halves), operands are arranged so that they do.
 *
 * A legacy SSE instruction leaves the upper half of the YMM register alone. Registers are always
 * written as 16 bytes: a later load of 16 bytes is then forwarded from the host's store buffer.
 */
#ifndef FERRY_ACCEL_SOFT_SSE_H
#define FERRY_ACCEL_SOFT_SSE_H

#include "accel/soft/lower.h"
#include "accel/soft/simd.h"
#include "accel/soft/x87.h"

/* dst: in and out, 16 bytes (XMM, aligned) or 8 (MMX, GPR: all 8 are written). src: as many bytes as
 * the instruction reads; aligned if these are 16. xmm0: the guest's XMM0, for those that have it as
 * an implicit operand. */
typedef void soft_sse_fn(void *dst, const void *src, const void *xmm0);

/* op->aux: the operands, for the general handlers. Default: XMM registers, op->dst and op->src. */
#define SSE_BYTES   0x001fu /* of the memory operand: 1, 2, 4, 8, 16 */
#define SSE_ALIGNED 0x0020u /* and it must be aligned to 16 (SDM volume 1, 4.1.1): else #GP(0) */
#define SSE_FLOAT   0x0040u /* can have SIMD floating-point exceptions */
#define SSE_DST_GPR 0x0080u
#define SSE_DST_MMX 0x0100u
#define SSE_SRC_GPR 0x0200u
#define SSE_SRC_MMX 0x0400u
#define SSE_MMX     (SSE_DST_MMX | SSE_SRC_MMX) /* enters MMX state, faults for pending x87 */

/* What an XMM register holds, as an operand of asm. */
typedef long long soft_v128 __attribute__((vector_size(16), may_alias));

/* Of guest memory, or of a register: one access. */
static inline soft_v128 soft_sse_load16(const void *p)
{
    soft_v128 v;

    __asm__ volatile("movups %1, %0" : "=x"(v) : "m"(*(const uint8_t(*)[16])p));
    return v;
}

/* What an instruction is, for lowering. */
struct soft_sse_insn {
    soft_op_fn *rr, *rm;   /* fast handlers, or NULL: the general ones */
    soft_sse_fn *fn, *mmx; /* or NULL: table; no such form */
    const uint8_t *table;  /* functions by immediate, SSE_STUB bytes apart */
    const uint8_t *mmx_table;
    uint8_t imm_mask, imm_max; /* index = min(imm & mask, max) */
    uint8_t mmx_imm_mask, mmx_imm_max;
    uint16_t operands; /* op->aux of the XMM form */
    uint16_t mmx_operands;
    uint16_t feature, mmx_feature; /* SOFT_IF() */
};
#define SSE_STUB 32

/* Those that write only status flags: handlers for any addressing. */
struct soft_sse_pair {
    soft_op_fn *rr, *rm;
    uint16_t feature;
};

/* Moves: handlers by direction, which may be NULL for the general ones, and their functions. No
 * function: no such form. */
struct soft_sse_move {
    struct {
        soft_op_fn *fast;
        soft_sse_fn *fn;
    } rr, load, store;
    uint16_t operands;
    uint16_t feature;
};

/* ---- general handlers (op_sse_general.c) ------------------------------------------------------- */

soft_op_fn soft_sse_rr;
soft_op_fn soft_sse_rm; /* source in memory */
soft_op_fn soft_sse_mr; /* destination in memory: the function writes a buffer */
/* XMM operands, no exceptions, a function of op->imm: most instructions with an immediate. */
soft_op_fn soft_sse_call_rr;
soft_op_fn soft_sse_call_rm16; /* 64-bit address, aligned */

/* MMX shifts with an immediate count, which is op->src. */
soft_op_fn soft_mmx_shift;

/* Where the 16 bytes of a memory operand that must be aligned are: guest memory, or a copy in
 * cpu->temp. Raises. */
const void *soft_sse_fetch16(struct soft_cpu *cpu, const struct soft_op *op);

/* The functions of moves: to 16 bytes; to 8 bytes, zero-extended; to an XMM register, zero-extended. */
soft_sse_fn soft_sse_copy16;
soft_sse_fn soft_sse_copy8, soft_sse_copy4;
soft_sse_fn soft_sse_zero_extend8, soft_sse_zero_extend4;

/* ---- fast handlers ----------------------------------------------------------------------------- */

#define SSE_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* The function of "insn xmm, xmm/m": reads bytes at src. */
#define SSE_FN(name, insn, bytes)                                                                  \
    static inline void fn_##name(void *dst, const void *src, const void *xmm0)                     \
    {                                                                                              \
        soft_v128 d = *(soft_v128 *)dst;                                                           \
                                                                                                   \
        __asm__ volatile(insn " %1, %0" : "+x"(d) : "m"(*(const uint8_t(*)[bytes])src));           \
        *(soft_v128 *)dst = d;                                                                     \
    }

/* Handlers of an instruction with XMM operands from its function. Masked exceptions only. */
#define SSE_HANDLERS(name, bytes, is_aligned, is_float)                                            \
    static const struct soft_op *rr_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        if (is_float && SSE_UNLIKELY(cpu->simd_unmasked)) {                                        \
            return soft_sse_rr(cpu, op);                                                           \
        }                                                                                          \
        fn_##name(&cpu->vec[op->dst], &cpu->vec[op->src], &cpu->vec[0]);                           \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    static const struct soft_op *rm_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        const void *p = soft_read_pointer(cpu, soft_linear_64(cpu, op), bytes);                    \
                                                                                                   \
        if (SSE_UNLIKELY(!p || (is_aligned && (uintptr_t)p % 16) ||                                \
                         (is_float && cpu->simd_unmasked))) {                                      \
            return soft_sse_rm(cpu, op);                                                           \
        }                                                                                          \
        fn_##name(&cpu->vec[op->dst], p, &cpu->vec[0]);                                            \
        SOFT_NEXT(cpu, op);                                                                        \
    }

/* ---- MMX --------------------------------------------------------------------------------------- */

/* Every MMX instruction but EMMS: TOP = 0, all registers valid (SDM volume 3, 12.2, table 12-1). */
static inline void soft_mmx_enter_state(struct soft_cpu *cpu)
{
    cpu->x87.top = 0;
    cpu->x87.used = 0xff;
}
/* A written register's exponent and sign are ones (the same table). */
static inline void soft_mmx_written(struct soft_cpu *cpu, unsigned reg)
{
    cpu->x87.reg[reg].q[1] = 0xffff;
}

/* ---- instructions that lower_sse.c names ---------------------------------------------------------- */

/* op_sse_float.c */
extern const struct soft_sse_pair soft_pair_comiss, soft_pair_comisd, soft_pair_ucomiss,
    soft_pair_ucomisd, soft_pair_ptest;

/* op_sse_move.c */
extern const struct soft_sse_move soft_move_aligned[3], soft_move_unaligned[3], soft_move_lddqu,
    soft_move_movntdqa, soft_move_nontemporal[2], soft_move_movss, soft_move_movsd, soft_move_movq,
    soft_move_movd, soft_move_movlps[2], soft_move_movhps[2], soft_move_movhlps, soft_move_movlhps;

/* op_sse_convert.c; arrays: GPR of 32 and 64 bits */
extern const struct soft_sse_insn soft_insn_movd_from_gpr[2], soft_insn_movd_to_gpr[2],
    soft_insn_cvtsi2ss[2], soft_insn_cvtsi2sd[2], soft_insn_cvtss2si[2], soft_insn_cvtsd2si[2],
    soft_insn_cvttss2si[2], soft_insn_cvttsd2si[2], soft_insn_movmskps, soft_insn_movmskpd,
    soft_insn_pmovmskb;
/* with MMX registers */
extern const struct soft_sse_insn soft_insn_cvtpi2ps, soft_insn_cvtpi2pd, soft_insn_cvtps2pi,
    soft_insn_cvttps2pi, soft_insn_cvtpd2pi, soft_insn_cvttpd2pi, soft_insn_movq2dq,
    soft_insn_movdq2q;

/* op_sse_string.c */
soft_lower_fn soft_lower_sse_text;
soft_lower_fn soft_lower_masked_move;
soft_op_fn soft_mmx_emms;

#endif
