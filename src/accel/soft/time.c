/* SPDX-License-Identifier: MIT */
/*
 * The time stamp counter (SDM volume 3, 17.17): virtual time in nanoseconds plus an offset, so 1 GHz,
 * the same on every vCPU, and stopped while the VM is.
 *
 * All vCPUs start from the same instant at RESET, although their states are set one after the other;
 * and a state that is got, changed and set again (INIT, a debugger) loses no time on the way. So guests
 * find their TSCs synchronous, which is what they test before they trust them.
 */
#include <stdatomic.h>

#include "accel/lapic.h"
#include "accel/soft/mailbox.h"
#include "accel/soft/msr.h"
#include "accel/soft/system.h"
#include "aio/clock.h"
#include "base/range.h"

/* The latest that a timer can be set to. */
#define NS_MAX (INT64_MAX / 2)
/* The RESET of all vCPUs takes less. */
#define RESET_NS NS_PER_SEC

static uint64_t now_ns(void)
{
    return (uint64_t)clock_get_ns(AIO_CLOCK_VIRTUAL);
}

uint64_t soft_rdtsc(const struct soft_cpu *cpu)
{
    return now_ns() + (uint64_t)cpu->tsc_offset;
}

int64_t soft_tsc_ns_at(struct vcpu *vcpu, uint64_t tsc)
{
    const struct soft_cpu *cpu = soft_cpu_of(vcpu);
    uint64_t now = now_ns(), counter = now + (uint64_t)cpu->tsc_offset;

    if (tsc <= counter) {
        return (int64_t)now; /* due */
    }
    return (int64_t)(now + MIN(tsc - counter, (uint64_t)NS_MAX - MIN(now, (uint64_t)NS_MAX)));
}

/* ---- by the guest ------------------------------------------------------------------------------ */

/* What the TSCs' agreement promised to guests that read each other's clocks holds no more. */
static void tell_that_tscs_differ(struct soft_cpu *cpu)
{
    if (atomic_exchange(&cpu->soft->tsc_differs, true)) {
        return;
    }
    soft_exclusive_begin(cpu);
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *other = vcpu_get(i);

        if (other && other != cpu->vcpu && other->engine) {
            soft_pvclock_update(soft_cpu_of(other));
        }
    }
    soft_exclusive_end(cpu);
}

void soft_shift_tsc(struct soft_cpu *cpu, uint64_t change)
{
    uint64_t deadline;

    if (!change) {
        return;
    }
    /* 17.17.3: a write to one of the two is an addition to both. */
    cpu->msrs->tsc_adjust += change;
    cpu->tsc_offset = (int64_t)((uint64_t)cpu->tsc_offset + change);
    tell_that_tscs_differ(cpu);
    soft_pvclock_update(cpu);
    /* A deadline is a value of the TSC: it comes at another time now. */
    if (cpu->vcpu->lapic && lapic_read_msr(cpu->vcpu->lapic, X86_MSR_TSC_DEADLINE, &deadline) &&
        deadline) {
        lapic_write_msr(cpu->vcpu->lapic, X86_MSR_TSC_DEADLINE, deadline);
    }
}

void soft_write_tsc(struct soft_cpu *cpu, uint64_t value)
{
    soft_shift_tsc(cpu, value - soft_rdtsc(cpu));
}

/* ---- by a state that is loaded ----------------------------------------------------------------- */

/* RESET: the first vCPU decides from when all count. A vCPU that had the present start already begins
 * the next one. */
static int64_t offset_from_reset(struct soft_cpu *cpu)
{
    struct soft_accel *soft = cpu->soft;
    int64_t offset = atomic_load(&soft->tsc_offset);
    uint64_t now = now_ns();
    bool had_it = atomic_fetch_or(&soft->tsc_reset, BIT64(cpu->index)) & BIT64(cpu->index);

    if (had_it || now + (uint64_t)offset > (uint64_t)RESET_NS) {
        offset = (int64_t)(0 - now);
        atomic_store(&soft->tsc_offset, offset);
        atomic_store(&soft->tsc_reset, BIT64(cpu->index));
        atomic_store(&soft->tsc_differs, false);
    }
    return offset;
}

void soft_load_tsc(struct soft_cpu *cpu, uint64_t value)
{
    struct soft_accel *soft = cpu->soft;

    if (value == 0) {
        cpu->tsc_offset = offset_from_reset(cpu);
        return;
    }
    if (value == cpu->msrs->tsc_given) {
        cpu->tsc_offset = cpu->msrs->tsc_given_offset;
        return;
    }
    cpu->tsc_offset = (int64_t)(value - now_ns());
    if (cpu->index == 0) {
        atomic_store(&soft->tsc_offset, cpu->tsc_offset);
        atomic_store(&soft->tsc_differs, false);
    } else if (cpu->tsc_offset != atomic_load(&soft->tsc_offset)) {
        atomic_store(&soft->tsc_differs, true);
    }
}
