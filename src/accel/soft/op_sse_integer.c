/* SPDX-License-Identifier: MIT */
/* Vector instructions that raise no SIMD floating-point exceptions: integers, logic, shuffles, AES,
 * SHA, and their MMX forms. */
#include "accel/soft/sse.h"
#include "accel/soft/sse_list.h"

/* ---- MMX forms: shapes ------------------------------------------------------------------------ */

static inline soft_v128 low_half(const void *p)
{
    return (soft_v128){*(const long long __attribute__((may_alias)) *)p, 0};
}
static inline void set_low_half(void *p, soft_v128 v)
{
    *(long long __attribute__((may_alias)) *)p = v[0];
}

/* The low half of the XMM instruction. */
#define MMX_PLAIN(name)                                                                            \
    static void mmx_##name(void *dst, const void *src, const void *xmm0)                           \
    {                                                                                              \
        soft_v128 d = low_half(dst);                                                               \
                                                                                                   \
        __asm__(#name " %1, %0" : "+x"(d) : "x"(low_half(src)));                                   \
        set_low_half(dst, d);                                                                      \
    }
/* Elements of the destination make the result's lower half, those of the source the upper one: both
 * operands in one register, and the low half of what becomes of that. */
#define MMX_JOINED(name)                                                                           \
    static void mmx_##name(void *dst, const void *src, const void *xmm0)                           \
    {                                                                                              \
        soft_v128 d = {low_half(dst)[0], low_half(src)[0]};                                        \
                                                                                                   \
        __asm__(#name " %0, %0" : "+x"(d));                                                        \
        set_low_half(dst, d);                                                                      \
    }
/* Interleaves upper halves: these are moved to where the XMM instruction finds them. */
#define MMX_HIGH(name)                                                                             \
    static void mmx_##name(void *dst, const void *src, const void *xmm0)                           \
    {                                                                                              \
        soft_v128 d = {0, (long long)((uint64_t)low_half(dst)[0] >> 32)};                          \
        soft_v128 s = {0, (long long)((uint64_t)low_half(src)[0] >> 32)};                          \
                                                                                                   \
        __asm__(#name " %1, %0" : "+x"(d) : "x"(s));                                               \
        set_low_half(dst, d);                                                                      \
    }
/* Bytes chosen by three bits of an index, not four. */
#define MMX_INDEXED(name)                                                                          \
    static void mmx_##name(void *dst, const void *src, const void *xmm0)                           \
    {                                                                                              \
        soft_v128 d = low_half(dst);                                                               \
        soft_v128 s = {low_half(src)[0] & (long long)UINT64_C(0x8787878787878787), 0};             \
                                                                                                   \
        __asm__(#name " %1, %0" : "+x"(d) : "x"(s));                                               \
        set_low_half(dst, d);                                                                      \
    }

/* ---- instructions ---------------------------------------------------------------------------- */

#define MMX(shape, name) MMX_##shape(name)
#define DUAL(name, mnemonic, sse_feature, mmx_feature_, shape, bytes)                              \
    SSE_FN(name, #name, 16)                                                                        \
    SSE_HANDLERS(name, 16, true, false)                                                            \
    MMX(shape, name)                                                                               \
    const struct soft_sse_insn soft_insn_##name = {                                                \
        .rr = rr_##name,                                                                           \
        .rm = rm_##name,                                                                           \
        .fn = fn_##name,                                                                           \
        .mmx = mmx_##name,                                                                         \
        .operands = 16 | SSE_ALIGNED,                                                              \
        .mmx_operands = bytes | SSE_DST_MMX | SSE_SRC_MMX,                                         \
        .feature = SOFT_IF(sse_feature),                                                           \
        .mmx_feature = SOFT_IF(mmx_feature_),                                                      \
    };
SSE_LIST_DUAL(DUAL)

/* The count of an immediate form is in op->src; it counts as a whole (SDM volume 2, PSLLW). */
#define SHIFT(name, mnemonic)                                                                      \
    DUAL(name, mnemonic, sse2, mmx, PLAIN, 8)                                                      \
    const struct soft_op *soft_sse_##name##_ri(struct soft_cpu *cpu, const struct soft_op *op)     \
    {                                                                                              \
        soft_v128 *d = (soft_v128 *)&cpu->vec[op->dst], v = *d;                                    \
                                                                                                   \
        __asm__(#name " %1, %0" : "+x"(v) : "x"((soft_v128){op->src, 0}));                         \
        *d = v;                                                                                    \
        SOFT_NEXT(cpu, op);                                                                        \
    }
SSE_LIST_SHIFT(SHIFT)

#define INTEGER(name, mnemonic, feature_, bytes)                                                   \
    SSE_FN(name, #name, bytes)                                                                     \
    SSE_HANDLERS(name, bytes, (bytes == 16), false)                                                \
    const struct soft_sse_insn soft_insn_##name = {                                                \
        .rr = rr_##name,                                                                           \
        .rm = rm_##name,                                                                           \
        .fn = fn_##name,                                                                           \
        .operands = bytes | (bytes == 16 ? SSE_ALIGNED : 0),                                       \
        .feature = SOFT_IF(feature_),                                                              \
    };
SSE_LIST_INTEGER(INTEGER)

/* The third operand of these is XMM0 for the host, too. */
#undef SSE_FN
#define SSE_FN(name, insn, bytes)                                                                  \
    static inline void fn_##name(void *dst, const void *src, const void *xmm0)                     \
    {                                                                                              \
        register soft_v128 third __asm__("xmm0") = *(const soft_v128 *)xmm0;                       \
        soft_v128 d = *(soft_v128 *)dst;                                                           \
                                                                                                   \
        __asm__ volatile(insn " %1, %0"                                                            \
                         : "+x"(d)                                                                 \
                         : "m"(*(const uint8_t(*)[bytes])src), "x"(third));                        \
        *(soft_v128 *)dst = d;                                                                     \
    }
SSE_LIST_XMM0(INTEGER)
