/* SPDX-License-Identifier: MIT */
/* General handlers of MMX and SSE instructions: any operands, any addressing, unmasked exceptions.
 * sse.h. */
#include <string.h>

#include "accel/soft/sse.h"

/* ---- operands -------------------------------------------------------------------------------- */

static void *general_register(struct soft_cpu *cpu, uint8_t offset)
{
    return (uint8_t *)cpu + offset;
}

static void *destination(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (op->aux & SSE_DST_GPR) {
        return general_register(cpu, op->dst);
    }
    return op->aux & SSE_DST_MMX ? cpu->x87.reg[op->dst].b : cpu->vec[op->dst].b;
}

static const void *source(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (op->aux & SSE_SRC_GPR) {
        return general_register(cpu, op->src);
    }
    return op->aux & SSE_SRC_MMX ? cpu->x87.reg[op->src].b : cpu->vec[op->src].b;
}

const void *soft_sse_fetch16(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = soft_linear(cpu, op, 16, SOFT_READ);
    const void *p;

    if (linear % 16) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    p = soft_read_pointer(cpu, linear, 16);
    if (p && (uintptr_t)p % 16 == 0) {
        return p;
    }
    soft_load_bytes(cpu, op, linear, cpu->temp, 16);
    return cpu->temp;
}

/* A copy of anything else, zero-extended to 16 bytes. */
static const void *fetch(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned bytes = op->aux & SSE_BYTES;
    uint64_t linear = soft_linear(cpu, op, bytes, SOFT_READ);
    uint64_t low;

    switch (bytes) {
    case 1:
        low = soft_load8(cpu, op, linear);
        break;
    case 2:
        low = soft_load16(cpu, op, linear);
        break;
    case 4:
        low = soft_load32(cpu, op, linear);
        break;
    case 8:
        low = soft_load64(cpu, op, linear);
        break;
    default:
        soft_load_bytes(cpu, op, linear, cpu->temp, 16);
        return cpu->temp;
    }
    cpu->temp[0] = low;
    cpu->temp[1] = 0;
    return cpu->temp;
}

static void store(struct soft_cpu *cpu, const struct soft_op *op, const uint64_t *data)
{
    unsigned bytes = op->aux & SSE_BYTES;
    uint64_t linear = soft_linear(cpu, op, bytes, SOFT_WRITE);

    switch (bytes) {
    case 1:
        soft_store8(cpu, op, linear, (uint8_t)*data);
        break;
    case 2:
        soft_store16(cpu, op, linear, (uint16_t)*data);
        break;
    case 4:
        soft_store32(cpu, op, linear, (uint32_t)*data);
        break;
    case 8:
        soft_store64(cpu, op, linear, *data);
        break;
    default:
        if (op->aux & SSE_ALIGNED && linear % 16) {
            soft_op_raise(cpu, op, EXC_GP, 0);
        }
        soft_store_bytes(cpu, op, linear, data, 16);
    }
}

/* ---- the operation --------------------------------------------------------------------------- */

static soft_sse_fn *function(const struct soft_op *op)
{
    return (soft_sse_fn *)(uintptr_t)op->imm;
}

/* With an exception unmasked: on a copy, which counts only if nothing is raised. Not inlined: handlers
 * have no locals with an address (op.h). */
static __attribute__((noinline)) void compute_checked(struct soft_cpu *cpu,
                                                      const struct soft_op *op, void *dst,
                                                      const void *src)
{
    unsigned size = op->aux & (SSE_DST_GPR | SSE_DST_MMX) ? 8 : 16;
    uint8_t copy[16] __attribute__((aligned(16)));
    struct soft_simd_check check = {0};

    while (soft_simd_again(cpu, op, &check)) {
        memcpy(copy, dst, size);
        function(op)(copy, src, &cpu->vec[0]);
    }
    memcpy(dst, copy, size);
}

static void compute(struct soft_cpu *cpu, const struct soft_op *op, const void *src)
{
    void *dst = destination(cpu, op);

    if (op->aux & SSE_FLOAT && cpu->simd_unmasked) {
        compute_checked(cpu, op, dst, src);
    } else {
        function(op)(dst, src, &cpu->vec[0]);
    }
    if (op->aux & SSE_MMX) {
        soft_mmx_enter_state(cpu);
    }
    if (op->aux & SSE_DST_MMX) {
        soft_mmx_written(cpu, op->dst);
    }
}

const struct soft_op *soft_sse_rr(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (op->aux & SSE_MMX) {
        soft_x87_wait(cpu, op);
    }
    compute(cpu, op, source(cpu, op));
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_sse_rm(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (op->aux & SSE_MMX) {
        soft_x87_wait(cpu, op);
    }
    compute(cpu, op, op->aux & SSE_ALIGNED ? soft_sse_fetch16(cpu, op) : fetch(cpu, op));
    SOFT_NEXT(cpu, op);
}

/* The source operand's bytes, or what the function makes of them; no exceptions. */
const struct soft_op *soft_sse_mr(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (op->aux & SSE_MMX) {
        soft_x87_wait(cpu, op);
    }
    function(op)(cpu->temp, source(cpu, op), &cpu->vec[0]);
    store(cpu, op, cpu->temp);
    if (op->aux & SSE_MMX) {
        soft_mmx_enter_state(cpu);
    }
    SOFT_NEXT(cpu, op);
}

/* MMX shift by an immediate: op->src is the count. */
const struct soft_op *soft_mmx_shift(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_x87_wait(cpu, op);
    cpu->temp[0] = op->src;
    compute(cpu, op, cpu->temp);
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_sse_call_rr(struct soft_cpu *cpu, const struct soft_op *op)
{
    function(op)(&cpu->vec[op->dst], &cpu->vec[op->src], &cpu->vec[0]);
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_sse_call_rm16(struct soft_cpu *cpu, const struct soft_op *op)
{
    const void *p = soft_read_pointer(cpu, soft_linear_64(cpu, op), 16);

    if (SSE_UNLIKELY(!p || (uintptr_t)p % 16)) {
        return soft_sse_rm(cpu, op);
    }
    function(op)(&cpu->vec[op->dst], p, &cpu->vec[0]);
    SOFT_NEXT(cpu, op);
}

/* ---- moves ----------------------------------------------------------------------------------- */

void soft_sse_copy16(void *dst, const void *src, const void *xmm0)
{
    *(soft_v128 *)dst = soft_sse_load16(src);
}

void soft_sse_copy8(void *dst, const void *src, const void *xmm0)
{
    memcpy(dst, src, 8);
}

void soft_sse_copy4(void *dst, const void *src, const void *xmm0)
{
    uint64_t v = 0;

    memcpy(&v, src, 4);
    memcpy(dst, &v, 8);
}

void soft_sse_zero_extend8(void *dst, const void *src, const void *xmm0)
{
    uint64_t v;

    memcpy(&v, src, 8);
    *(soft_v128 *)dst = (soft_v128){(long long)v, 0};
}

void soft_sse_zero_extend4(void *dst, const void *src, const void *xmm0)
{
    uint32_t v;

    memcpy(&v, src, 4);
    *(soft_v128 *)dst = (soft_v128){v, 0};
}
