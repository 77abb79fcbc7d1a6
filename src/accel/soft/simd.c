/* SPDX-License-Identifier: MIT */
/* The host's MXCSR while a guest runs, and exceptions that a guest has unmasked; simd.h. */
#include "accel/soft/simd.h"

#include "accel/soft/system.h"

/* The vCPU whose control bits this thread's MXCSR has, and the value of before. */
static _Thread_local struct {
    struct soft_cpu *cpu;
    uint32_t host;
} entered;

/* The guest's control bits with everything masked. The flags go along, so that operations which
 * raise them again change nothing. */
static uint32_t masked(const struct soft_cpu *cpu)
{
    return (cpu->mxcsr & SOFT_MXCSR_VALID) | SOFT_MXCSR_MASKS;
}

void soft_simd_enter(struct soft_cpu *cpu)
{
    entered.cpu = cpu;
    entered.host = soft_host_mxcsr();
    soft_set_host_mxcsr(masked(cpu));
}

void soft_simd_leave(struct soft_cpu *cpu)
{
    soft_simd_sync(cpu);
    entered.cpu = NULL;
    soft_set_host_mxcsr(entered.host);
}

void soft_simd_sync(struct soft_cpu *cpu)
{
    if (entered.cpu == cpu) {
        cpu->mxcsr |= soft_host_mxcsr() & SOFT_MXCSR_FLAGS;
    }
}

uint32_t soft_get_mxcsr(struct soft_cpu *cpu)
{
    soft_simd_sync(cpu);
    return cpu->mxcsr;
}

void soft_set_mxcsr(struct soft_cpu *cpu, uint32_t value)
{
    cpu->mxcsr = value;
    cpu->simd_unmasked = (value & SOFT_MXCSR_MASKS) != SOFT_MXCSR_MASKS;
    if (entered.cpu == cpu) {
        soft_set_host_mxcsr(masked(cpu));
    }
}

/* Ends a checked operation: its flags become the guest's, and trap if they have to. */
static void conclude(struct soft_cpu *cpu, const struct soft_op *op, uint32_t flags,
                     uint32_t unmasked)
{
    cpu->mxcsr |= flags;
    soft_set_host_mxcsr(masked(cpu));
    if (flags & unmasked) {
        soft_op_raise_no_error(cpu, op, cpu->cr4 & X86_CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
    }
}

/*
 * First pass: with flags clear and everything masked. Exceptions of the operands (invalid, denormal,
 * divide by zero) come before those of the result: if one of them is unmasked, there is no result
 * (SDM volume 1, 11.5.2 and 11.5.3).
 *
 * Second pass: a masked underflow asks for a tiny result that is inexact too, an unmasked one for a
 * tiny result only (4.9.1.5). With FZ every tiny result sets UE (10.2.3.3), so that flag answers. A
 * guest's own FZ counts only while underflow is masked.
 *
 * What this cannot see is in which of two ways a result was inexact. Beside an unmasked overflow or
 * underflow a processor sets PE only if the result were inexact with an unbounded exponent, too; here
 * PE is that of the masked response. And DPPS and DPPD are checked as a whole, not product by product
 * and sum by sum. Whether #XM is raised is right in any case.
 */
bool soft_simd_again(struct soft_cpu *cpu, const struct soft_op *op, struct soft_simd_check *check)
{
    uint32_t unmasked = ~(cpu->mxcsr >> SOFT_MXCSR_MASK_SHIFT) & SOFT_MXCSR_FLAGS;
    uint32_t flags, control;

    if (check->passes++ == 0) {
        soft_simd_sync(cpu);
        control = masked(cpu) & ~SOFT_MXCSR_FLAGS;
        if (unmasked & SOFT_MXCSR_UE) {
            control &= ~SOFT_MXCSR_FZ;
        }
        soft_set_host_mxcsr(control);
        return true;
    }
    flags = soft_host_mxcsr() & SOFT_MXCSR_FLAGS;
    if (check->passes == 2) {
        uint32_t early = flags & (SOFT_MXCSR_IE | SOFT_MXCSR_DE | SOFT_MXCSR_ZE);

        if (early & unmasked) {
            flags = early;
        } else if (unmasked & ~flags & SOFT_MXCSR_UE) {
            check->flags = flags;
            soft_set_host_mxcsr((masked(cpu) & ~SOFT_MXCSR_FLAGS) | SOFT_MXCSR_FZ);
            return true;
        }
    } else {
        flags = check->flags | (flags & SOFT_MXCSR_UE);
    }
    conclude(cpu, op, flags, unmasked);
    return false;
}
