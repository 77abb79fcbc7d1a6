/* SPDX-License-Identifier: MIT */
/*
 * VEX-encoded vector instructions (SDM volume 1, chapter 14): how their handlers are made. Included by
 * op_avx*.c and lower_avx.c only.
 *
 * The host computes: op->imm points to a function around the very instruction (avx_stubs.S), which
 * is given places to read operands from and to write the result to. Registers are passed where they
 * are in struct soft_cpu, memory operands where they are in guest memory.
 *
 *      soft_avx_rr, _rm            vector result; registers, or the last operand in memory
 *      soft_avx_rr_float, ..       the same for instructions with SIMD floating-point exceptions
 *      soft_avx_any                every form: results in general registers, flags, memory; unmasked
 *                                  exceptions; addresses that are not in the TLB
 *      op_avx_memory.c             masked moves, gathers, and what else is written in C
 *
 * No vector operand needs alignment but those of the aligned and non-temporal moves. A VEX-encoded
 * instruction with 128 bits clears the upper half of its destination.
 */
#ifndef FERRY_ACCEL_SOFT_AVX_H
#define FERRY_ACCEL_SOFT_AVX_H

#include "accel/soft/lower.h"
#include "accel/soft/simd.h"

/* result: 32 bytes for a vector, 8 for a general register or a part; FMA reads it, too. a, c: vectors.
 * b: as many bytes as the instruction reads. Returns status flags (soft.h) if that is the result. */
typedef uint32_t soft_avx_fn(void *result, const void *a, const void *b, const void *c);

#define AVX_STUB 32 /* bytes from function to function of a table */

/* op->aux; op->dst and op->src are numbers of vector registers or offsets of general ones. */
#define AVX_A(aux)     ((aux)&15)
#define AVX_C(aux)     ((aux) >> 4 & 15)
#define AVX_SIZE(aux)  (1u << ((aux) >> 8 & 7)) /* bytes of the memory operand */
#define AVX_C_SHIFT    4
#define AVX_SIZE_SHIFT 8
#define AVX_FLOAT      0x0800u
#define AVX_SRC_MEMORY 0x1000u /* operand b; else a vector register, or */
#define AVX_SRC_GPR    0x2000u
#define AVX_RESULT     0xc000u
#define AVX_TO_VECTOR  0x0000u
#define AVX_TO_GPR     0x4000u
#define AVX_TO_FLAGS   0x8000u
#define AVX_TO_MEMORY  0xc000u

/* ---- op_avx.c ---- */
soft_op_fn soft_avx_rr, soft_avx_rr_float, soft_avx_rm, soft_avx_rm_float, soft_avx_any,
    soft_avx_unchecked;
/* Moves of whole registers. op->aux: the alignment less one, else #GP(0). */
soft_op_fn soft_avx_move16, soft_avx_move32, soft_avx_load16, soft_avx_load32, soft_avx_store16,
    soft_avx_store32;
soft_op_fn soft_avx_vzeroall, soft_avx_vzeroupper;

/* ---- op_avx_memory.c: functions of the table ---- */
soft_lower_fn soft_lower_avx_masked_move, soft_lower_avx_maskmovdqu, soft_lower_avx_gather,
    soft_lower_avx_text;

/* ---- lower_avx.c ---- */
/* Is it VEX-encoded, does the CPU offer it, does the mode let it run? If not, it is lowered to what it
 * raises. */
bool soft_avx_is_available(struct soft_lower *l);

static inline bool soft_avx_is_256(const struct soft_lower *l)
{
    return l->insn->raw.vex.L;
}

#endif
