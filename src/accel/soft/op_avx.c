/* SPDX-License-Identifier: MIT */
/* Handlers of VEX-encoded vector instructions whose work a function of avx_stubs.S does, and moves. */
#include "accel/soft/avx.h"

#include <string.h>

#include "accel/soft/system.h"

/* The compiler may keep nothing in the registers' upper halves across a VZEROUPPER. */
#define CLOBBERS                                                                                   \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

typedef uint8_t bytes16[16], bytes32[32];

static inline soft_avx_fn *function(const struct soft_op *op)
{
    return (soft_avx_fn *)(uintptr_t)op->imm;
}

/* ---- any form --------------------------------------------------------------------------------- */

/* Runs the function with a copy of the result's register, as a checked operation if need be. */
static uint32_t compute(struct soft_cpu *cpu, const struct soft_op *op, struct soft_vec *result,
                        const void *b)
{
    const struct soft_vec *a = &cpu->vec[AVX_A(op->aux)], *c = &cpu->vec[AVX_C(op->aux)];
    const struct soft_vec *dst = &cpu->vec[op->dst & 15];
    struct soft_simd_check check = {0};
    uint32_t flags = 0;

    if (!(op->aux & AVX_FLOAT) || !cpu->simd_unmasked) {
        *result = *dst;
        return function(op)(result, a, b, c);
    }
    while (soft_simd_again(cpu, op, &check)) {
        *result = *dst;
        flags = function(op)(result, a, b, c);
    }
    return flags;
}

static __attribute__((noinline)) void any(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned size = AVX_SIZE(op->aux), to = op->aux & AVX_RESULT;
    const void *b = &cpu->vec[op->src & 15];
    struct soft_vec result, operand;
    uint64_t linear = 0;
    uint32_t flags;

    if (op->aux & AVX_SRC_MEMORY) {
        soft_load_bytes(cpu, op, soft_linear(cpu, op, size, SOFT_READ), &operand, size);
        b = &operand;
    } else if (op->aux & AVX_SRC_GPR) {
        b = (const uint8_t *)cpu + op->src;
    }
    if (to == AVX_TO_MEMORY) {
        linear = soft_linear(cpu, op, size, SOFT_WRITE);
        if (cpu->simd_unmasked && op->aux & AVX_FLOAT && cpu->features->is_intel) {
            uint32_t mxcsr = soft_get_mxcsr(cpu);

            compute(cpu, op, &result,
                    b); /* #XM comes before faults of the store, except on AMD's */
            soft_set_mxcsr(cpu, mxcsr);
        }
        /* A fault comes before flags of MXCSR. */
        if (!soft_write_pointer(cpu, linear, size)) {
            soft_sync(cpu, op);
            soft_probe_write(cpu, linear, size);
        }
    }
    flags = compute(cpu, op, &result, b);
    switch (to) {
    case AVX_TO_VECTOR:
        cpu->vec[op->dst] = result;
        break;
    case AVX_TO_GPR:
        soft_set_reg64(cpu, op->dst, result.q[0]);
        break;
    case AVX_TO_FLAGS:
        cpu->status = flags;
        break;
    default:
        soft_store_bytes(cpu, op, linear, &result, size);
    }
}

const struct soft_op *soft_avx_any(struct soft_cpu *cpu, const struct soft_op *op)
{
    any(cpu, op);
    SOFT_NEXT(cpu, op);
}

/* Instructions of exception type 11 that do not report #AC (SDM volume 2, VCVTPH2PS, VCVTPS2PH). A fault
 * ends in another privilege or mode, where the check is decided anew. */
const struct soft_op *soft_avx_unchecked(struct soft_cpu *cpu, const struct soft_op *op)
{
    bool check_alignment = cpu->tlb->check_alignment;

    cpu->tlb->check_alignment = false;
    any(cpu, op);
    cpu->tlb->check_alignment = check_alignment;
    SOFT_NEXT(cpu, op);
}

/* ---- vector results --------------------------------------------------------------------------- */

const struct soft_op *soft_avx_rr(struct soft_cpu *cpu, const struct soft_op *op)
{
    function(op)(&cpu->vec[op->dst], &cpu->vec[AVX_A(op->aux)], &cpu->vec[op->src],
                 &cpu->vec[AVX_C(op->aux)]);
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_avx_rr_float(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (__builtin_expect(cpu->simd_unmasked, 0)) {
        return soft_avx_any(cpu, op);
    }
    return soft_avx_rr(cpu, op);
}

/* 64-bit addresses (soft_linear_64). */
const struct soft_op *soft_avx_rm(struct soft_cpu *cpu, const struct soft_op *op)
{
    const void *b = soft_read_pointer(cpu, soft_linear_64(cpu, op), AVX_SIZE(op->aux));

    if (__builtin_expect(!b, 0)) {
        return soft_avx_any(cpu, op);
    }
    function(op)(&cpu->vec[op->dst], &cpu->vec[AVX_A(op->aux)], b, &cpu->vec[AVX_C(op->aux)]);
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_avx_rm_float(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (__builtin_expect(cpu->simd_unmasked, 0)) {
        return soft_avx_any(cpu, op);
    }
    return soft_avx_rm(cpu, op);
}

/* ---- moves ------------------------------------------------------------------------------------ */

/* Single accesses of the host, so that a guest's vector move is one. */
static inline void copy32(void *to, const void *from)
{
    __asm__ volatile("vmovdqu %1, %%ymm0\n\t"
                     "vmovdqu %%ymm0, %0\n\t"
                     "vzeroupper"
                     : "=m"(*(bytes32 *)to)
                     : "m"(*(const bytes32 *)from)
                     : CLOBBERS);
}
static inline void copy16(void *to, const void *from)
{
    __asm__ volatile("vmovdqu %1, %%xmm0\n\t"
                     "vmovdqu %%xmm0, %0"
                     : "=m"(*(bytes16 *)to)
                     : "m"(*(const bytes16 *)from)
                     : "xmm0");
}
/* 16 bytes, and zeroes in the upper half. */
static inline void extend16(struct soft_vec *to, const void *from)
{
    __asm__ volatile("vmovdqu %1, %%xmm0\n\t"
                     "vmovdqu %%ymm0, %0"
                     : "=m"(*to)
                     : "m"(*(const bytes16 *)from)
                     : "xmm0");
}

const struct soft_op *soft_avx_move16(struct soft_cpu *cpu, const struct soft_op *op)
{
    extend16(&cpu->vec[op->dst], &cpu->vec[op->src]);
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_avx_move32(struct soft_cpu *cpu, const struct soft_op *op)
{
    copy32(&cpu->vec[op->dst], &cpu->vec[op->src]);
    SOFT_NEXT(cpu, op);
}

/* Linear address of a move. */
static inline uint64_t move_linear(struct soft_cpu *cpu, const struct soft_op *op, unsigned size,
                                   enum soft_access access)
{
    uint64_t linear = soft_linear(cpu, op, size, access);

    if (__builtin_expect((linear & op->aux) != 0, 0)) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    return linear;
}

static __attribute__((noinline)) void load_slowly(struct soft_cpu *cpu, const struct soft_op *op,
                                                  uint64_t linear, unsigned size)
{
    struct soft_vec v = {.q = {0}};

    soft_load_bytes(cpu, op, linear, &v, size);
    cpu->vec[op->dst] = v;
}

const struct soft_op *soft_avx_load16(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = move_linear(cpu, op, 16, SOFT_READ);
    const void *p = soft_read_pointer(cpu, linear, 16);

    if (__builtin_expect(p != NULL, 1)) {
        extend16(&cpu->vec[op->dst], p);
    } else {
        load_slowly(cpu, op, linear, 16);
    }
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_avx_load32(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = move_linear(cpu, op, 32, SOFT_READ);
    const void *p = soft_read_pointer(cpu, linear, 32);

    if (__builtin_expect(p != NULL, 1)) {
        copy32(&cpu->vec[op->dst], p);
    } else {
        load_slowly(cpu, op, linear, 32);
    }
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_avx_store16(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = move_linear(cpu, op, 16, SOFT_WRITE);
    void *p = soft_write_pointer(cpu, linear, 16);

    if (__builtin_expect(p != NULL, 1)) {
        copy16(p, &cpu->vec[op->src]);
    } else {
        soft_store_bytes(cpu, op, linear, &cpu->vec[op->src], 16);
    }
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_avx_store32(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = move_linear(cpu, op, 32, SOFT_WRITE);
    void *p = soft_write_pointer(cpu, linear, 32);

    if (__builtin_expect(p != NULL, 1)) {
        copy32(p, &cpu->vec[op->src]);
    } else {
        soft_store_bytes(cpu, op, linear, &cpu->vec[op->src], 32);
    }
    SOFT_NEXT(cpu, op);
}

/* Outside of 64-bit mode, registers 8 to 15 stay (SDM volume 2). */
const struct soft_op *soft_avx_vzeroall(struct soft_cpu *cpu, const struct soft_op *op)
{
    memset(cpu->vec, 0, (soft_is_64(cpu) ? 16 : 8) * sizeof(cpu->vec[0]));
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_avx_vzeroupper(struct soft_cpu *cpu, const struct soft_op *op)
{
    for (unsigned i = 0; i < (soft_is_64(cpu) ? 16 : 8); i++) {
        memset(cpu->vec[i].b + 16, 0, 16);
    }
    SOFT_NEXT(cpu, op);
}
