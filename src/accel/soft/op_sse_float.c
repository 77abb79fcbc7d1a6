/* SPDX-License-Identifier: MIT */
/* Vector instructions with SIMD floating-point exceptions; comparisons that set status flags. */
#include "accel/soft/sse.h"
#include "accel/soft/sse_list.h"

#define FLOAT(name, mnemonic, feature_, bytes)                                                     \
    SSE_FN(name, #name, bytes)                                                                     \
    SSE_HANDLERS(name, bytes, (bytes == 16), true)                                                 \
    const struct soft_sse_insn soft_insn_##name = {                                                \
        .rr = rr_##name,                                                                           \
        .rm = rm_##name,                                                                           \
        .fn = fn_##name,                                                                           \
        .operands = bytes | (bytes == 16 ? SSE_ALIGNED : 0) | SSE_FLOAT,                           \
        .feature = SOFT_IF(feature_),                                                              \
    };
SSE_LIST_FLOAT(FLOAT)

/* ---- COMISS, COMISD, UCOMISS, UCOMISD --------------------------------------------------------- */

/* flags: of comparing *a with *b. checked: the same with an exception unmasked; not inlined, because
 * handlers have no locals with an address (op.h). The slow handlers do any addressing. */
#define COMPARE(name, bits)                                                                        \
    static inline uint16_t flags_##name(const struct soft_vec *a, const void *b)                   \
    {                                                                                              \
        uint16_t status;                                                                           \
                                                                                                   \
        __asm__ volatile(#name " %2, %1\n\t"                                                       \
                               "lahf\n\t"                                                          \
                               "seto %%al"                                                         \
                         : "=a"(status)                                                            \
                         : "x"(*(const soft_v128 *)a), "m"(*(const uint8_t(*)[bits / 8]) b)        \
                         : "cc");                                                                  \
        return status;                                                                             \
    }                                                                                              \
    static __attribute__((noinline)) void checked_##name(struct soft_cpu *cpu,                     \
                                                         const struct soft_op *op, const void *b)  \
    {                                                                                              \
        struct soft_simd_check check = {0};                                                        \
        uint16_t status = 0;                                                                       \
                                                                                                   \
        while (soft_simd_again(cpu, op, &check)) {                                                 \
            status = flags_##name(&cpu->vec[op->dst], b);                                          \
        }                                                                                          \
        cpu->status = status;                                                                      \
    }                                                                                              \
    static __attribute__((noinline))                                                               \
    const struct soft_op *slow_rr_##name(struct soft_cpu *cpu, const struct soft_op *op)           \
    {                                                                                              \
        checked_##name(cpu, op, &cpu->vec[op->src]);                                               \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    static __attribute__((noinline))                                                               \
    const struct soft_op *slow_rm_##name(struct soft_cpu *cpu, const struct soft_op *op)           \
    {                                                                                              \
        cpu->temp[0] = soft_load##bits(cpu, op, soft_linear(cpu, op, bits / 8, SOFT_READ));        \
        if (cpu->simd_unmasked) {                                                                  \
            checked_##name(cpu, op, cpu->temp);                                                    \
        } else {                                                                                   \
            cpu->status = flags_##name(&cpu->vec[op->dst], cpu->temp);                             \
        }                                                                                          \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    static const struct soft_op *rr_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        if (SSE_UNLIKELY(cpu->simd_unmasked)) {                                                    \
            return slow_rr_##name(cpu, op);                                                        \
        }                                                                                          \
        cpu->status = flags_##name(&cpu->vec[op->dst], &cpu->vec[op->src]);                        \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    static const struct soft_op *rm_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        const void *p = op->info & SOFT_OP_GENERAL                                                 \
                            ? NULL                                                                 \
                            : soft_read_pointer(cpu, soft_linear_64(cpu, op), bits / 8);           \
                                                                                                   \
        if (SSE_UNLIKELY(!p || cpu->simd_unmasked)) {                                              \
            return slow_rm_##name(cpu, op);                                                        \
        }                                                                                          \
        cpu->status = flags_##name(&cpu->vec[op->dst], p);                                         \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    const struct soft_sse_pair soft_pair_##name = {                                                \
        rr_##name,                                                                                 \
        rm_##name,                                                                                 \
        bits == 32 ? SOFT_IF(sse) : SOFT_IF(sse2),                                                 \
    };

COMPARE(comiss, 32)
COMPARE(comisd, 64)
COMPARE(ucomiss, 32)
COMPARE(ucomisd, 64)

/* PTEST sets ZF and CF and clears the others. */
static inline uint16_t test_bits(const void *a, const void *b)
{
    uint16_t status;

    __asm__ volatile("ptest %2, %1\n\t"
                     "lahf\n\t"
                     "seto %%al"
                     : "=a"(status)
                     : "x"(*(const soft_v128 *)a), "m"(*(const uint8_t(*)[16])b)
                     : "cc");
    return status;
}

static const struct soft_op *rr_ptest(struct soft_cpu *cpu, const struct soft_op *op)
{
    cpu->status = test_bits(&cpu->vec[op->dst], &cpu->vec[op->src]);
    SOFT_NEXT(cpu, op);
}

static const struct soft_op *rm_ptest(struct soft_cpu *cpu, const struct soft_op *op)
{
    cpu->status = test_bits(&cpu->vec[op->dst], soft_sse_fetch16(cpu, op));
    SOFT_NEXT(cpu, op);
}

const struct soft_sse_pair soft_pair_ptest = {rr_ptest, rm_ptest, SOFT_IF(sse4_1)};
