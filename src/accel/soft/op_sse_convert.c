/* SPDX-License-Identifier: MIT */
/* Between XMM registers and general or MMX registers: moves, conversions, masks of signs. */
#include "accel/soft/sse.h"

static const void *gpr(const struct soft_cpu *cpu, uint8_t offset)
{
    return (const uint8_t *)cpu + offset;
}

/* ---- general registers ------------------------------------------------------------------------- */

/* XMM from GPR or memory. */
#define FROM_GPR(name, insn, bytes, is_float)                                                      \
    SSE_FN(name, insn, bytes)                                                                      \
    static const struct soft_op *rr_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        if (is_float && SSE_UNLIKELY(cpu->simd_unmasked)) {                                        \
            return soft_sse_rr(cpu, op);                                                           \
        }                                                                                          \
        fn_##name(&cpu->vec[op->dst], gpr(cpu, op->src), NULL);                                    \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    static const struct soft_op *rm_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        const void *p = soft_read_pointer(cpu, soft_linear_64(cpu, op), bytes);                    \
                                                                                                   \
        if (SSE_UNLIKELY(!p || (is_float && cpu->simd_unmasked))) {                                \
            return soft_sse_rm(cpu, op);                                                           \
        }                                                                                          \
        fn_##name(&cpu->vec[op->dst], p, NULL);                                                    \
        SOFT_NEXT(cpu, op);                                                                        \
    }
FROM_GPR(movd32, "movd", 4, false)
FROM_GPR(movd64, "movq", 8, false)
FROM_GPR(cvtsi2ss32, "cvtsi2ssl", 4, true)
FROM_GPR(cvtsi2ss64, "cvtsi2ssq", 8, true)
FROM_GPR(cvtsi2sd32, "cvtsi2sdl", 4, true)
FROM_GPR(cvtsi2sd64, "cvtsi2sdq", 8, true)

/* GPR from XMM or memory. A result of 32 bits clears the upper half. size: k or q, of the register. */
#define TO_GPR(name, insn, size, bytes)                                                            \
    static inline void fn_##name(void *dst, const void *src, const void *xmm0)                     \
    {                                                                                              \
        uint64_t v;                                                                                \
                                                                                                   \
        __asm__ volatile(insn " %1, %" size "0" : "=r"(v) : "m"(*(const uint8_t(*)[bytes])src));   \
        *(uint64_t __attribute__((may_alias)) *)dst = v;                                           \
    }                                                                                              \
    static const struct soft_op *rr_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        if (SSE_UNLIKELY(cpu->simd_unmasked)) {                                                    \
            return soft_sse_rr(cpu, op);                                                           \
        }                                                                                          \
        fn_##name((uint8_t *)cpu + op->dst, &cpu->vec[op->src], NULL);                             \
        SOFT_NEXT(cpu, op);                                                                        \
    }
TO_GPR(cvtss2si32, "cvtss2si", "k", 4)
TO_GPR(cvtss2si64, "cvtss2si", "q", 4)
TO_GPR(cvtsd2si32, "cvtsd2si", "k", 8)
TO_GPR(cvtsd2si64, "cvtsd2si", "q", 8)
TO_GPR(cvttss2si32, "cvttss2si", "k", 4)
TO_GPR(cvttss2si64, "cvttss2si", "q", 4)
TO_GPR(cvttsd2si32, "cvttsd2si", "k", 8)
TO_GPR(cvttsd2si64, "cvttsd2si", "q", 8)

#define SIGNS(name)                                                                                \
    static inline void fn_##name(void *dst, const void *src, const void *xmm0)                     \
    {                                                                                              \
        uint64_t v;                                                                                \
                                                                                                   \
        __asm__(#name " %1, %k0" : "=r"(v) : "x"(*(const soft_v128 *)src));                        \
        *(uint64_t __attribute__((may_alias)) *)dst = v;                                           \
    }                                                                                              \
    static const struct soft_op *rr_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        fn_##name((uint8_t *)cpu + op->dst, &cpu->vec[op->src], NULL);                             \
        SOFT_NEXT(cpu, op);                                                                        \
    }
SIGNS(movmskps)
SIGNS(movmskpd)
SIGNS(pmovmskb)

static void mmx_pmovmskb(void *dst, const void *src, const void *xmm0)
{
    soft_v128 v = {*(const long long __attribute__((may_alias)) *)src, 0};

    fn_pmovmskb(dst, &v, xmm0);
}

static const struct soft_op *rr_movd_to_gpr32(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_set_reg32(cpu, op->dst, cpu->vec[op->src].d[0]);
    SOFT_NEXT(cpu, op);
}

static const struct soft_op *rr_movd_to_gpr64(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_set_reg64(cpu, op->dst, cpu->vec[op->src].q[0]);
    SOFT_NEXT(cpu, op);
}

#define PAIR_FROM_GPR(name, flags, feature_)                                                       \
    {                                                                                              \
        {                                                                                          \
            .rr = rr_##name##32,                                                                   \
            .rm = rm_##name##32,                                                                   \
            .fn = fn_##name##32,                                                                   \
            .operands = 4 | SSE_SRC_GPR | flags,                                                   \
            .feature = SOFT_IF(feature_),                                                          \
        },                                                                                         \
        {                                                                                          \
            .rr = rr_##name##64, .rm = rm_##name##64, .fn = fn_##name##64,                         \
            .operands = 8 | SSE_SRC_GPR | flags, .feature = SOFT_IF(feature_),                     \
        }                                                                                          \
    }
#define PAIR_TO_GPR(name, bytes, feature_)                                                         \
    {                                                                                              \
        {                                                                                          \
            .rr = rr_##name##32,                                                                   \
            .fn = fn_##name##32,                                                                   \
            .operands = bytes | SSE_DST_GPR | SSE_FLOAT,                                           \
            .feature = SOFT_IF(feature_),                                                          \
        },                                                                                         \
        {                                                                                          \
            .rr = rr_##name##64, .fn = fn_##name##64, .operands = bytes | SSE_DST_GPR | SSE_FLOAT, \
            .feature = SOFT_IF(feature_),                                                          \
        }                                                                                          \
    }

const struct soft_sse_insn soft_insn_cvtsi2ss[2] = PAIR_FROM_GPR(cvtsi2ss, SSE_FLOAT, sse);
const struct soft_sse_insn soft_insn_cvtsi2sd[2] = PAIR_FROM_GPR(cvtsi2sd, SSE_FLOAT, sse2);
const struct soft_sse_insn soft_insn_cvtss2si[2] = PAIR_TO_GPR(cvtss2si, 4, sse);
const struct soft_sse_insn soft_insn_cvtsd2si[2] = PAIR_TO_GPR(cvtsd2si, 8, sse2);
const struct soft_sse_insn soft_insn_cvttss2si[2] = PAIR_TO_GPR(cvttss2si, 4, sse);
const struct soft_sse_insn soft_insn_cvttsd2si[2] = PAIR_TO_GPR(cvttsd2si, 8, sse2);

/* MOVD, and MOVQ with a general register: XMM and MMX. */
#define MOVD_FROM(bits, mmx_fn)                                                                    \
    {                                                                                              \
        .rr = rr_movd##bits, .rm = rm_movd##bits, .fn = fn_movd##bits, .mmx = mmx_fn,              \
        .operands = bits / 8 | SSE_SRC_GPR, .mmx_operands = bits / 8 | SSE_SRC_GPR | SSE_DST_MMX,  \
        .feature = SOFT_IF(sse2), .mmx_feature = SOFT_IF(mmx),                                     \
    }
#define MOVD_TO(bits, fast, copy)                                                                  \
    {                                                                                              \
        .rr = fast, .fn = copy, .mmx = copy, .operands = bits / 8 | SSE_DST_GPR,                   \
        .mmx_operands = bits / 8 | SSE_DST_GPR | SSE_SRC_MMX, .feature = SOFT_IF(sse2),            \
        .mmx_feature = SOFT_IF(mmx),                                                               \
    }
const struct soft_sse_insn soft_insn_movd_from_gpr[2] = {
    MOVD_FROM(32, soft_sse_copy4),
    MOVD_FROM(64, soft_sse_copy8),
};
const struct soft_sse_insn soft_insn_movd_to_gpr[2] = {
    MOVD_TO(32, rr_movd_to_gpr32, soft_sse_copy4),
    MOVD_TO(64, rr_movd_to_gpr64, soft_sse_copy8),
};

#define SIGNS_INSN(name, feature_)                                                                 \
    .rr = rr_##name, .fn = fn_##name, .operands = 16 | SSE_DST_GPR, .feature = SOFT_IF(feature_)
const struct soft_sse_insn soft_insn_movmskps = {SIGNS_INSN(movmskps, sse)};
const struct soft_sse_insn soft_insn_movmskpd = {SIGNS_INSN(movmskpd, sse2)};
const struct soft_sse_insn soft_insn_pmovmskb = {
    SIGNS_INSN(pmovmskb, sse2),
    .mmx = mmx_pmovmskb,
    .mmx_operands = 8 | SSE_DST_GPR | SSE_SRC_MMX,
    .mmx_feature = SOFT_IF(sse),
};

/* ---- MMX registers ----------------------------------------------------------------------------- */

/* Converts two elements and leaves the others alone: zeros convert without exceptions. */
static void fn_cvtpi2ps(void *dst, const void *src, const void *xmm0)
{
    soft_v128 d = *(soft_v128 *)dst;
    soft_v128 s = {*(const long long __attribute__((may_alias)) *)src, 0};

    __asm__ volatile("cvtdq2ps %1, %1\n\t"
                     "movsd %1, %0"
                     : "+x"(d), "+x"(s));
    *(soft_v128 *)dst = d;
}

SSE_FN(cvtpi2pd, "cvtdq2pd", 8)

#define TO_MMX(name, insn, value)                                                                  \
    static void fn_##name(void *dst, const void *src, const void *xmm0)                            \
    {                                                                                              \
        soft_v128 s = value, d;                                                                    \
                                                                                                   \
        __asm__ volatile(insn " %1, %0" : "=x"(d) : "x"(s));                                       \
        *(long long __attribute__((may_alias)) *)dst = d[0];                                       \
    }
#define LOW_HALF                                                                                   \
    {                                                                                              \
        *(const long long __attribute__((may_alias)) *)src, 0                                      \
    }
TO_MMX(cvtps2pi, "cvtps2dq", LOW_HALF)
TO_MMX(cvttps2pi, "cvttps2dq", LOW_HALF)
TO_MMX(cvtpd2pi, "cvtpd2dq", soft_sse_load16(src))
TO_MMX(cvttpd2pi, "cvttpd2dq", soft_sse_load16(src))

#define WITH_MMX(name, function, operands_, feature_)                                              \
    const struct soft_sse_insn soft_insn_##name = {                                                \
        .fn = function,                                                                            \
        .operands = operands_,                                                                     \
        .feature = SOFT_IF(feature_),                                                              \
    };
WITH_MMX(cvtpi2ps, fn_cvtpi2ps, 8 | SSE_SRC_MMX | SSE_FLOAT, sse)
WITH_MMX(cvtpi2pd, fn_cvtpi2pd, 8 | SSE_SRC_MMX, sse2)
WITH_MMX(cvtps2pi, fn_cvtps2pi, 8 | SSE_DST_MMX | SSE_FLOAT, sse)
WITH_MMX(cvttps2pi, fn_cvttps2pi, 8 | SSE_DST_MMX | SSE_FLOAT, sse)
WITH_MMX(cvtpd2pi, fn_cvtpd2pi, 16 | SSE_ALIGNED | SSE_DST_MMX | SSE_FLOAT, sse2)
WITH_MMX(cvttpd2pi, fn_cvttpd2pi, 16 | SSE_ALIGNED | SSE_DST_MMX | SSE_FLOAT, sse2)
WITH_MMX(movq2dq, soft_sse_zero_extend8, 8 | SSE_SRC_MMX, sse2)
WITH_MMX(movdq2q, soft_sse_copy8, 8 | SSE_DST_MMX, sse2)
