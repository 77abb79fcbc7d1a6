/* SPDX-License-Identifier: MIT */
/*
 * The soft CPU's run loop: from block to block, and what happens between blocks.
 *
 *   soft_vcpu_run()
 *     exception raised?    deliver it (it may raise another)
 *     somebody asks?       kick: return; mail: read it; exclusive: step out of the guest
 *     something pending?   debug trap, SMI, NMI, interrupt, window
 *     find the block       soft_code_find(): look up, else decode
 *     run it               handlers call each other, block after block (soft_dispatch(), links),
 *                          until one returns NULL
 *
 * soft_raise() comes back by longjmp to the setjmp of soft_vcpu_run().
 */
#include <assert.h>
#include <string.h>

#include "accel/soft/code.h"
#include "accel/soft/event.h"
#include "accel/soft/mailbox.h"
#include "accel/soft/msr.h"
#include "accel/soft/system.h"
#include "base/log.h"
#include "mem/machine_lock.h"
#include "trace/trace.h"

#define DR6_BS      (UINT64_C(1) << 14)
#define DR7_ENABLES 0xffu

/* ---- raising --------------------------------------------------------------------------------- */

static _Noreturn void give_up(struct soft_cpu *cpu, struct soft_exception exception)
{
    exception.pending = true;
    cpu->exception = exception;
    cpu->pending_dr6 &= DR6_BS; /* what an access hit is forgotten with the instruction */
    longjmp(cpu->env, 1);
}

void soft_raise(struct soft_cpu *cpu, uint8_t vector, uint32_t error)
{
    give_up(cpu, (struct soft_exception){.vector = vector, .has_error = true, .error = error});
}

void soft_raise_no_error(struct soft_cpu *cpu, uint8_t vector)
{
    give_up(cpu, (struct soft_exception){.vector = vector});
}

void soft_raise_page_fault(struct soft_cpu *cpu, uint64_t linear, uint32_t error)
{
    give_up(cpu, (struct soft_exception){
                     .vector = EXC_PF, .has_error = true, .error = error, .cr2 = linear});
}

void soft_raise_debug(struct soft_cpu *cpu, uint64_t dr6)
{
    give_up(cpu, (struct soft_exception){.vector = EXC_DB, .dr6 = dr6});
}

void soft_op_raise(struct soft_cpu *cpu, const struct soft_op *op, uint8_t vector, uint32_t error)
{
    soft_sync(cpu, op);
    soft_raise(cpu, vector, error);
}

void soft_op_raise_no_error(struct soft_cpu *cpu, const struct soft_op *op, uint8_t vector)
{
    soft_sync(cpu, op);
    soft_raise_no_error(cpu, vector);
}

/* ---- slow instructions and blocks' ends -------------------------------------------------------- */

static void call(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_slow_fn *fn = (soft_slow_fn *)(uintptr_t)op->imm;

    soft_sync(cpu, op);
    cpu->next_ip = soft_next_ip(cpu, op);
    fn(cpu, op);
}

const struct soft_op *soft_op_call(struct soft_cpu *cpu, const struct soft_op *op)
{
    call(cpu, op);
    SOFT_NEXT(cpu, op);
}

const struct soft_op *soft_op_call_end(struct soft_cpu *cpu, const struct soft_op *op)
{
    call(cpu, op);
    cpu->rip = cpu->next_ip;
    SOFT_DISPATCH(cpu);
}

const struct soft_op *soft_dispatch(struct soft_cpu *cpu)
{
    const struct soft_op *to = soft_lookup(cpu);

    if (__builtin_expect(!to, 0)) {
        return NULL;
    }
    SOFT_GO(cpu, to);
}

/* ---- leaving for a device ---------------------------------------------------------------------- */

void soft_exit_inline(struct soft_cpu *cpu)
{
    soft_simd_leave(cpu);
    soft_guest_leave(cpu);
    vcpu_inline_exit(cpu->vcpu);
    /* It may have interrupted itself: EOI, TPR, an IPI to self; nobody kicks it for that. */
    soft_lapic_written(cpu);
    soft_guest_enter(cpu);
    soft_simd_enter(cpu);
}

/* ---- between blocks ---------------------------------------------------------------------------- */

/* False: vcpu_run returns. */
static bool answer(struct soft_cpu *cpu, uint32_t asked)
{
    if (asked & SOFT_EXIT_EVENT) {
        atomic_fetch_and(&cpu->exit_request, ~(uint32_t)SOFT_EXIT_EVENT);
    }
    if (asked & SOFT_EXIT_EXCLUSIVE) {
        atomic_fetch_and(&cpu->exit_request, ~(uint32_t)SOFT_EXIT_EXCLUSIVE);
        soft_guest_leave(cpu);
        soft_guest_enter(cpu);
    }
    if (atomic_load(&cpu->exit_request) & SOFT_EXIT_MAIL) {
        soft_mailbox_read(cpu);
    }
    if (asked & SOFT_EXIT_KICK) {
        atomic_fetch_and(&cpu->exit_request, ~(uint32_t)SOFT_EXIT_KICK);
        return false;
    }
    return true;
}

static bool can_interrupt(const struct soft_cpu *cpu)
{
    return cpu->rflags & X86_RFLAGS_IF && !cpu->shadow;
}

/* SDM volume 3, table 6-2: the order of what waits at an instruction boundary. */
static void take_events(struct soft_cpu *cpu)
{
    /* MOV SS holds back debug traps, too. */
    if (cpu->pending_dr6 && cpu->shadow != 1) {
        uint64_t dr6 = cpu->pending_dr6;

        cpu->pending_dr6 = 0;
        soft_raise_debug(cpu, dr6);
    }
    if (cpu->smi_pending && !cpu->smm) {
        cpu->smi_pending = false;
        soft_enter_smm(cpu);
    }
    if (cpu->nmi_pending && !cpu->nmi_masked && !cpu->shadow) {
        cpu->nmi_pending = false;
        soft_deliver_nmi(cpu);
    }
    if (cpu->interrupt_pending && can_interrupt(cpu)) {
        cpu->interrupt_pending = false;
        soft_deliver_interrupt(cpu, cpu->interrupt_vector);
    }
    if (cpu->window_requested && can_interrupt(cpu) && !cpu->interrupt_pending) {
        cpu->vcpu->exit.reason = VCPU_EXIT_IRQ_WINDOW_OPEN;
        cpu->leave = true;
    }
}

static void run_from(struct soft_cpu *cpu, const struct soft_block *b)
{
    const struct soft_op *op = b->op;

    cpu->instructions += b->instruction_count;
    while (op) {
        op = op->fn(cpu, op);
    }
}

/* DR7 breakpoints on instructions (SDM volume 3, 17.2): faults, unless RF says that this one was
 * taken already. */
static void check_breakpoints(struct soft_cpu *cpu)
{
    uint64_t linear = soft_code_linear(cpu), hit = 0;
    bool is_enabled = false;

    for (unsigned i = 0; i < 4; i++) {
        unsigned type = cpu->dr7 >> (16 + 4 * i) & 3;

        if (type == 0 && cpu->dr[i] == linear) {
            hit |= UINT64_C(1) << i;
            is_enabled |= cpu->dr7 >> (2 * i) & 3;
        }
    }
    if (is_enabled && !(cpu->rflags & X86_RFLAGS_RF)) {
        soft_raise_debug(cpu, hit);
    }
}

/* With DEBUGCTL.BTF, TF traps behind branches that were taken only (SDM volume 3, 17.4.3). One that jumps
 * to the instruction behind it looks like one that was not, unless it always jumps. */
static bool is_step(const struct soft_cpu *cpu, enum soft_branch branch, uint64_t next)
{
    if (!(cpu->msrs->debugctl & SOFT_DEBUGCTL_BTF)) {
        return true;
    }
    return branch == SOFT_BRANCH_ALWAYS || (branch == SOFT_BRANCH_CONDITIONAL && cpu->rip != next);
}

/* One instruction: TF, an interrupt shadow, breakpoints, -d exec. */
static void run_single(struct soft_cpu *cpu)
{
    bool steps = cpu->rflags & X86_RFLAGS_TF;

    if (cpu->dr7 & DR7_ENABLES) {
        check_breakpoints(cpu);
    }
    /* Keeps the chain from going on. */
    atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    cpu->stepped_over = false;
    const struct soft_block *b = soft_code_find(cpu, cpu->mode | SOFT_MODE_SINGLE);
    if (log_mask & LOG_EXEC) {
        soft_log_exec(cpu, b);
    }
    cpu->shadow = 0; /* the instruction may set it again */
    cpu->rflags &= ~X86_RFLAGS_RF;
    uint64_t next = (cpu->rip + b->op[0].length) & soft_ip_mask(cpu);
    run_from(cpu, b);
    if (steps && !cpu->stepped_over && is_step(cpu, b->branch, next)) {
        cpu->pending_dr6 |= DR6_BS;
    }
}

static void run_blocks(struct soft_cpu *cpu)
{
    while (!cpu->leave) {
        uint32_t asked = atomic_load(&cpu->exit_request);

        if (cpu->exception.pending) {
            soft_deliver_exception(cpu);
            continue;
        }
        if (cpu->code->dead) {
            soft_code_reap(cpu);
        }
        if (asked && !answer(cpu, asked)) {
            return;
        }
        take_events(cpu);
        if (cpu->leave) {
            return;
        }
        if (cpu->shadow || cpu->mode & SOFT_MODE_SINGLE) {
            run_single(cpu);
        } else {
            cpu->rflags &= ~X86_RFLAGS_RF; /* matters to breakpoints only */
            run_from(cpu, soft_code_find(cpu, cpu->mode));
        }
    }
}

void soft_vcpu_run(struct vcpu *vcpu)
{
    struct soft_cpu *cpu = soft_cpu_of(vcpu);

    vcpu->exit.reason = VCPU_EXIT_INTR;
    cpu->leave = false;
    soft_guest_enter(cpu);
    soft_simd_enter(cpu);
    if (_setjmp(cpu->env)) {
        cpu->shadow = 0; /* what was given up stood in it, if there was one */
    }
    run_blocks(cpu);
    soft_simd_leave(cpu);
    soft_guest_leave(cpu);
}
