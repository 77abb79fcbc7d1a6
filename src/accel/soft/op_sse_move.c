/* SPDX-License-Identifier: MIT */
/* MOVAPS, MOVUPS, MOVSS, MOVSD, MOVQ and their like: between XMM registers and memory. */
#include "accel/soft/sse.h"

/* ---- functions of merging moves ---------------------------------------------------------------- */

/* Low 4 bytes from a register. */
static inline void fn_movss(void *dst, const void *src, const void *xmm0)
{
    soft_v128 d = *(soft_v128 *)dst;

    __asm__("movss %1, %0" : "+x"(d) : "x"(*(const soft_v128 *)src));
    *(soft_v128 *)dst = d;
}

/* Low or high 8 bytes from a register's low ones, or from memory. */
SSE_FN(low, "movlps", 8)
SSE_FN(high, "movhps", 8)

/* Low 8 bytes from a register's high ones. */
static inline void fn_movhlps(void *dst, const void *src, const void *xmm0)
{
    fn_low(dst, (const uint8_t *)src + 8, xmm0);
}

/* High 8 bytes to memory. */
static void fn_store_high(void *dst, const void *src, const void *xmm0)
{
    soft_sse_copy8(dst, (const uint8_t *)src + 8, xmm0);
}

/* ---- fast handlers ---------------------------------------------------------------------------- */

#define MOVE_RR(name, fn)                                                                          \
    static const struct soft_op *rr_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        fn(&cpu->vec[op->dst], &cpu->vec[op->src], &cpu->vec[0]);                                  \
        SOFT_NEXT(cpu, op);                                                                        \
    }
MOVE_RR(movss, fn_movss)
MOVE_RR(low, fn_low)
MOVE_RR(high, fn_high)
MOVE_RR(movhlps, fn_movhlps)

static const struct soft_op *rr_copy(struct soft_cpu *cpu, const struct soft_op *op)
{
    *(soft_v128 *)&cpu->vec[op->dst] = *(const soft_v128 *)&cpu->vec[op->src];
    SOFT_NEXT(cpu, op);
}

static const struct soft_op *rr_zero_extend8(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_v128 v;

    __asm__("movq %1, %0" : "=x"(v) : "x"(*(const soft_v128 *)&cpu->vec[op->src]));
    *(soft_v128 *)&cpu->vec[op->dst] = v;
    SOFT_NEXT(cpu, op);
}

/* Whole registers, by one access of the host. */
#define LOAD(name, insn, bytes, is_aligned)                                                        \
    static const struct soft_op *load_##name(struct soft_cpu *cpu, const struct soft_op *op)       \
    {                                                                                              \
        const void *p = soft_read_pointer(cpu, soft_linear_64(cpu, op), bytes);                    \
        soft_v128 v;                                                                               \
                                                                                                   \
        if (SSE_UNLIKELY(!p || (is_aligned && (uintptr_t)p % 16))) {                               \
            return soft_sse_rm(cpu, op);                                                           \
        }                                                                                          \
        __asm__ volatile(insn " %1, %0" : "=x"(v) : "m"(*(const uint8_t(*)[bytes])p));             \
        *(soft_v128 *)&cpu->vec[op->dst] = v;                                                      \
        SOFT_NEXT(cpu, op);                                                                        \
    }
LOAD(16a, "movups", 16, true)
LOAD(16, "movups", 16, false)
LOAD(8, "movq", 8, false)
LOAD(4, "movd", 4, false)

/* A load into half of a register. */
#define LOAD_HALF(name)                                                                            \
    static const struct soft_op *load_##name(struct soft_cpu *cpu, const struct soft_op *op)       \
    {                                                                                              \
        const void *p = soft_read_pointer(cpu, soft_linear_64(cpu, op), 8);                        \
                                                                                                   \
        if (SSE_UNLIKELY(!p)) {                                                                    \
            return soft_sse_rm(cpu, op);                                                           \
        }                                                                                          \
        fn_##name(&cpu->vec[op->dst], p, NULL);                                                    \
        SOFT_NEXT(cpu, op);                                                                        \
    }
LOAD_HALF(low)
LOAD_HALF(high)

#define STORE(name, insn, bytes, is_aligned)                                                       \
    static const struct soft_op *store_##name(struct soft_cpu *cpu, const struct soft_op *op)      \
    {                                                                                              \
        void *p = soft_write_pointer(cpu, soft_linear_64(cpu, op), bytes);                         \
                                                                                                   \
        if (SSE_UNLIKELY(!p || (is_aligned && (uintptr_t)p % 16))) {                               \
            return soft_sse_mr(cpu, op);                                                           \
        }                                                                                          \
        __asm__ volatile(insn " %1, %0"                                                            \
                         : "=m"(*(uint8_t(*)[bytes])p)                                             \
                         : "x"(*(const soft_v128 *)&cpu->vec[op->src]));                           \
        SOFT_NEXT(cpu, op);                                                                        \
    }
STORE(16a, "movups", 16, true)
STORE(16, "movups", 16, false)
STORE(8, "movq", 8, false)
STORE(4, "movd", 4, false)
STORE(high, "movhps", 8, false)

/* ---- instructions ---------------------------------------------------------------------------- */

#define ALIGNED(feature_)                                                                          \
    {                                                                                              \
        .rr = {rr_copy, soft_sse_copy16}, .load = {load_16a, soft_sse_copy16},                     \
        .store = {store_16a, soft_sse_copy16}, .operands = 16 | SSE_ALIGNED,                       \
        .feature = SOFT_IF(feature_),                                                              \
    }
#define UNALIGNED(feature_)                                                                        \
    {                                                                                              \
        .rr = {rr_copy, soft_sse_copy16}, .load = {load_16, soft_sse_copy16},                      \
        .store = {store_16, soft_sse_copy16}, .operands = 16, .feature = SOFT_IF(feature_),        \
    }
const struct soft_sse_move soft_move_aligned[3] = {
    ALIGNED(sse),  /* MOVAPS */
    ALIGNED(sse2), /* MOVAPD */
    ALIGNED(sse2), /* MOVDQA */
};
const struct soft_sse_move soft_move_unaligned[3] = {
    UNALIGNED(sse),  /* MOVUPS */
    UNALIGNED(sse2), /* MOVUPD */
    UNALIGNED(sse2), /* MOVDQU */
};

const struct soft_sse_move soft_move_lddqu = {
    .load = {load_16, soft_sse_copy16},
    .operands = 16,
    .feature = SOFT_IF(sse3),
};
const struct soft_sse_move soft_move_movntdqa = {
    .load = {load_16a, soft_sse_copy16},
    .operands = 16 | SSE_ALIGNED,
    .feature = SOFT_IF(sse4_1),
};
#define NONTEMPORAL(feature_)                                                                      \
    {                                                                                              \
        .store = {store_16a, soft_sse_copy16}, .operands = 16 | SSE_ALIGNED,                       \
        .feature = SOFT_IF(feature_),                                                              \
    }
const struct soft_sse_move soft_move_nontemporal[2] = {
    NONTEMPORAL(sse),  /* MOVNTPS */
    NONTEMPORAL(sse2), /* MOVNTPD, MOVNTDQ */
};

const struct soft_sse_move soft_move_movss = {
    .rr = {rr_movss, fn_movss},
    .load = {load_4, soft_sse_zero_extend4},
    .store = {store_4, soft_sse_copy4},
    .operands = 4,
    .feature = SOFT_IF(sse),
};
const struct soft_sse_move soft_move_movsd = {
    .rr = {rr_low, fn_low},
    .load = {load_8, soft_sse_zero_extend8},
    .store = {store_8, soft_sse_copy8},
    .operands = 8,
    .feature = SOFT_IF(sse2),
};
const struct soft_sse_move soft_move_movq = {
    .rr = {rr_zero_extend8, soft_sse_zero_extend8},
    .load = {load_8, soft_sse_zero_extend8},
    .store = {store_8, soft_sse_copy8},
    .operands = 8,
    .feature = SOFT_IF(sse2),
};
/* MOVD m32, xmm */
const struct soft_sse_move soft_move_movd = {
    .store = {store_4, soft_sse_copy4},
    .operands = 4,
    .feature = SOFT_IF(sse2),
};

#define LOW(feature_)                                                                              \
    {                                                                                              \
        .load = {load_low, fn_low}, .store = {store_8, soft_sse_copy8}, .operands = 8,             \
        .feature = SOFT_IF(feature_),                                                              \
    }
#define HIGH(feature_)                                                                             \
    {                                                                                              \
        .load = {load_high, fn_high}, .store = {store_high, fn_store_high}, .operands = 8,         \
        .feature = SOFT_IF(feature_),                                                              \
    }
const struct soft_sse_move soft_move_movlps[2] = {
    LOW(sse),  /* MOVLPS */
    LOW(sse2), /* MOVLPD */
};
const struct soft_sse_move soft_move_movhps[2] = {
    HIGH(sse),  /* MOVHPS */
    HIGH(sse2), /* MOVHPD */
};
const struct soft_sse_move soft_move_movhlps = {
    .rr = {rr_movhlps, fn_movhlps},
    .operands = 8,
    .feature = SOFT_IF(sse),
};
const struct soft_sse_move soft_move_movlhps = {
    .rr = {rr_high, fn_high},
    .operands = 8,
    .feature = SOFT_IF(sse),
};
