/* SPDX-License-Identifier: MIT */
/*
 * SIMD floating-point exceptions (SDM volume 1, 11.5), for all who run vector instructions.
 *
 * While a vCPU runs its guest, the host's MXCSR has the guest's RC, FZ and DAZ, and every exception
 * masked. So an operation that the host carries out gives the guest's result and never traps, and
 * its flags stay in the host's MXCSR until soft_simd_sync(). Nobody else's floating-point
 * arithmetic may run in between: C code that computes with doubles would leave its flags there.
 *
 * A guest that unmasks an exception (cpu->simd_unmasked) must see #XM before the instruction
 * changes anything. Each instruction that can have such exceptions then goes this way:
 *
 *      struct soft_simd_check check = {0};
 *
 *      fetch memory operands
 *      while (soft_simd_again(cpu, op, &check)) {
 *          fresh copies of the operands; the operation, on copies (asm volatile)
 *      }
 *      commit the copies
 *
 * The operation runs once or twice; soft_simd_again() raises #XM instead of ending the loop.
 * Nothing within the loop may fault. asm that computes with floats must be volatile (or a call), or
 * the compiler moves it across the reading of MXCSR.
 *
 * All: vCPU thread.
 */
#ifndef FERRY_ACCEL_SOFT_SIMD_H
#define FERRY_ACCEL_SOFT_SIMD_H

#include "accel/soft/op.h"

#define SOFT_MXCSR_IE         0x0001u
#define SOFT_MXCSR_DE         0x0002u
#define SOFT_MXCSR_ZE         0x0004u
#define SOFT_MXCSR_OE         0x0008u
#define SOFT_MXCSR_UE         0x0010u
#define SOFT_MXCSR_PE         0x0020u
#define SOFT_MXCSR_FLAGS      0x003fu
#define SOFT_MXCSR_DAZ        0x0040u
#define SOFT_MXCSR_MASKS      0x1f80u /* each is a flag's bit << SOFT_MXCSR_MASK_SHIFT */
#define SOFT_MXCSR_RC         0x6000u
#define SOFT_MXCSR_FZ         0x8000u
#define SOFT_MXCSR_VALID      0xffffu /* MXCSR_MASK of FXSAVE */
#define SOFT_MXCSR_RESET      0x1f80u
#define SOFT_MXCSR_MASK_SHIFT 7

static inline uint32_t soft_host_mxcsr(void)
{
    uint32_t v;

    __asm__ volatile("stmxcsr %0" : "=m"(v) : : "memory");
    return v;
}
static inline void soft_set_host_mxcsr(uint32_t v)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(v) : "memory");
}

/* Adds the flags that the host's MXCSR has gathered to cpu->mxcsr. Between soft_simd_enter() and
 * soft_simd_leave(); elsewhere it does nothing, and cpu->mxcsr is true. */
void soft_simd_sync(struct soft_cpu *cpu);

struct soft_simd_check {
    unsigned passes;
    uint32_t flags; /* of the first pass */
};
/* See above. Only when cpu->simd_unmasked. */
bool soft_simd_again(struct soft_cpu *cpu, const struct soft_op *op, struct soft_simd_check *check);

#endif
