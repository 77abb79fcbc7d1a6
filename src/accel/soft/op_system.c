/* SPDX-License-Identifier: MIT */
/* Handlers of system instructions that fit nowhere else: CPUID, time, MSRs, waiting, random numbers,
 * fences, hypercalls (SDM volume 2, by instruction). */
#include <sched.h>

#include "accel/lapic.h"
#include "accel/soft/event.h"
#include "accel/soft/mailbox.h"
#include "accel/soft/mmu.h"
#include "accel/soft/msr.h"
#include "accel/soft/op_system.h"
#include "accel/soft/system.h"

/* ---- leaving the guest -------------------------------------------------------------------------- */

void soft_leave_guest(struct soft_cpu *cpu, enum vcpu_exit_reason reason)
{
    cpu->vcpu->exit.reason = reason;
    cpu->leave = true;
    /* Ends the chain of blocks. */
    atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
}

void soft_lapic_written(struct soft_cpu *cpu)
{
    struct vcpu *vcpu = cpu->vcpu;
    uint32_t requests = atomic_load_explicit(&vcpu->requests, memory_order_relaxed);
    bool interrupts = requests & VCPU_REQUEST_EXTINT || (vcpu->lapic && lapic_sync(vcpu->lapic));

    /* What a vCPU sends to itself does not kick it. The loop knows already of an interrupt that waits
     * for its window. */
    if (requests & ~(uint32_t)VCPU_REQUEST_EXTINT || (interrupts && !cpu->window_requested)) {
        soft_leave_guest(cpu, VCPU_EXIT_SET_TPR);
    }
}

void soft_op_hlt(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_require_cpl0(cpu);
    soft_leave_guest(cpu, VCPU_EXIT_HLT);
}

/* A loop that waits for another vCPU lets it run. */
void soft_op_pause(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (vcpu_count() > 1) {
        sched_yield();
    }
}

void soft_op_rsm(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (!cpu->smm) {
        soft_raise_no_error(cpu, EXC_UD);
    }
    soft_rsm(cpu);
}

/* ---- CPUID, time ------------------------------------------------------------------------------- */

void soft_op_cpuid(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t regs[4];

    if (cpu->msrs->misc_features & SOFT_CPUID_FAULTS) {
        soft_require_cpl0(cpu);
    }
    soft_cpuid(cpu, (uint32_t)cpu->gpr[X86_RAX], (uint32_t)cpu->gpr[X86_RCX], regs);
    cpu->gpr[X86_RAX] = regs[0];
    cpu->gpr[X86_RBX] = regs[1];
    cpu->gpr[X86_RCX] = regs[2];
    cpu->gpr[X86_RDX] = regs[3];
}

static void check_tsd(struct soft_cpu *cpu)
{
    if (cpu->cr4 & X86_CR4_TSD) {
        soft_require_cpl0(cpu);
    }
}

static void set_edx_eax(struct soft_cpu *cpu, uint64_t value)
{
    cpu->gpr[X86_RAX] = (uint32_t)value;
    cpu->gpr[X86_RDX] = value >> 32;
}

void soft_op_rdtsc(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_tsd(cpu);
    set_edx_eax(cpu, soft_rdtsc(cpu));
}

void soft_op_rdtscp(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_op_rdtsc(cpu, op);
    cpu->gpr[X86_RCX] = (uint32_t)cpu->tsc_aux;
}

void soft_op_rdpid(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_set_reg64(cpu, op->dst, (uint32_t)cpu->tsc_aux);
}

/* There are no performance counters. */
void soft_op_rdpmc(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_raise(cpu, EXC_GP, 0);
}

/* ---- MSRs -------------------------------------------------------------------------------------- */

void soft_op_rdmsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value;

    soft_require_cpl0(cpu);
    if (!soft_read_msr(cpu, (uint32_t)cpu->gpr[X86_RCX], &value)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    set_edx_eax(cpu, value);
}

void soft_op_wrmsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = cpu->gpr[X86_RDX] << 32 | (uint32_t)cpu->gpr[X86_RAX];

    soft_require_cpl0(cpu);
    if (!soft_write_msr(cpu, (uint32_t)cpu->gpr[X86_RCX], value)) {
        soft_raise(cpu, EXC_GP, 0);
    }
}

/* ---- random numbers: the host's ----------------------------------------------------------------- */

#define RANDOM_TRIES 10

/* CF tells whether there is a number; the other five flags are zero. */
static void set_random(struct soft_cpu *cpu, const struct soft_op *op, uint64_t value, bool ok)
{
    if (!ok) {
        value = 0;
    }
    if (op->aux == 2) {
        soft_set_reg16(cpu, op->dst, (uint16_t)value);
    } else {
        soft_set_reg64(cpu, op->dst, op->aux == 4 ? (uint32_t)value : value);
    }
    cpu->status = ok ? SOFT_CF | 0x200 : 0x200;
}

void soft_op_rdrand(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = 0;
    uint8_t ok = 0;

    for (unsigned i = 0; i < RANDOM_TRIES && !ok; i++) {
        __asm__ volatile("rdrand %0\n\tsetc %1" : "=r"(value), "=qm"(ok) : : "cc");
    }
    set_random(cpu, op, value, ok);
}

void soft_op_rdseed(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = 0;
    uint8_t ok = 0;

    for (unsigned i = 0; i < RANDOM_TRIES && !ok; i++) {
        __asm__ volatile("rdseed %0\n\tsetc %1" : "=r"(value), "=qm"(ok) : : "cc");
    }
    set_random(cpu, op, value, ok);
}

/* ---- caches, order ------------------------------------------------------------------------------ */

/* CLFLUSH, CLFLUSHOPT, CLWB fault as a load of a byte does, but load nothing. */
void soft_flush_line(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = soft_linear(cpu, op, 1, SOFT_READ);
    struct soft_piece piece[2];
    unsigned flags = (op->info & SOFT_OP_SEGMENT) == X86_SS ? SOFT_ACCESS_STACK : 0;

    soft_pieces(cpu, cpu->tlb->data_mmu, flags, linear, 1, SOFT_PF_READ, piece);
}

/* Guest accesses are the host's, in order; what the host may reorder, a guest's fence holds up. */
const struct soft_op *soft_op_mfence(struct soft_cpu *cpu, const struct soft_op *op)
{
    __asm__ volatile("mfence" : : : "memory");
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_op_sfence(struct soft_cpu *cpu, const struct soft_op *op)
{
    __asm__ volatile("sfence" : : : "memory");
    SOFT_NEXT(cpu, op);
}

/* PREFETCH, LFENCE: nothing to be seen. */
const struct soft_op *soft_op_hint(struct soft_cpu *cpu, const struct soft_op *op)
{
    SOFT_NEXT(cpu, op);
}

/* ---- SMAP -------------------------------------------------------------------------------------- */

const struct soft_op *soft_op_stac(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (cpu->cpl != 0) {
        soft_op_raise_no_error(cpu, op, EXC_UD);
    }
    cpu->rflags |= X86_RFLAGS_AC;
    soft_update_tlb(cpu);
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_op_clac(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (cpu->cpl != 0) {
        soft_op_raise_no_error(cpu, op, EXC_UD);
    }
    cpu->rflags &= ~X86_RFLAGS_AC;
    soft_update_tlb(cpu);
    SOFT_NEXT(cpu, op);
}

/* ---- hypercalls --------------------------------------------------------------------------------- */

/*
 * KVM's (Linux, Documentation/virt/kvm/x86/hypercalls.rst): the number in RAX, the result in RAX. No
 * feature that ferry offers has one but the first, which has long done nothing.
 */
void soft_hypercall(struct soft_cpu *cpu, const struct soft_op *op)
{
    enum { HC_VAPIC_POLL_IRQ = 1 };
    const int64_t eperm = -1, enosys = -1000;
    uint64_t number = soft_is_64(cpu) ? cpu->gpr[X86_RAX] : (uint32_t)cpu->gpr[X86_RAX];
    int64_t result = enosys;

    if (!cpu->features->kvm_leaves) {
        soft_raise_no_error(cpu, EXC_UD);
    }
    if (cpu->cpl != 0) {
        result = eperm;
    } else if (number == HC_VAPIC_POLL_IRQ) {
        result = 0;
    }
    soft_set_reg64(cpu, X86_RAX * 8,
                   soft_is_64(cpu) ? (uint64_t)result : (uint32_t)(int32_t)result);
}
