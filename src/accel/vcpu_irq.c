/* SPDX-License-Identifier: MIT */
/*
 * Before each entry: what others sent to the vCPU, and the interrupts of chips that are ferry's
 * own. With irqchip=on there is only NMI; with split the PIC's vector; with off all of it.
 *
 *      lapic_sync()  IRR has a vector above TPR  --\
 *      EXTINT bit    the PIC asks, LINT0 lets it --+-> guest ready?  yes: inject it
 *                                                      no: exit when it is (interrupt window)
 */
#include <stdatomic.h>
#include <string.h>

#include "accel/lapic.h"
#include "accel/vcpu_internal.h"
#include "accel/x86_regs.h"
#include "base/alloc.h"
#include "mem/machine_lock.h"
#include "trace/trace.h"

/* ---- INIT and SIPI (SDM 8.4.3, 9.1) ---------------------------------------------------------- */

/* Unlike RESET, INIT leaves alone what belongs to the whole package or is large: caches, FPU and
 * vector registers, MSRs. */
static void state_after_init(const struct vcpu *vcpu, struct x86_state *state)
{
    const uint64_t cache_bits = X86_CR0_CD | X86_CR0_NW;
    autofree struct x86_state *old = xmemdup(state, sizeof(*state));
    bool is_bsp = old->apic_base & X86_APIC_BASE_BSP;

    x86_state_reset(state, is_bsp, vcpu->apic_id);
    state->cr0 = (state->cr0 & ~cache_bits) | (old->cr0 & cache_bits);
    state->gpr[X86_RDX] = old->gpr[X86_RDX];
    state->apic_base = old->apic_base;
    state->xcr0 = old->xcr0;
    state->xsave_size = old->xsave_size;
    memcpy(state->xsave, old->xsave, sizeof(state->xsave));
    state->msr_count = old->msr_count;
    memcpy(state->msr, old->msr, sizeof(state->msr));
    state->mp_state = is_bsp ? X86_MP_RUNNABLE : X86_MP_INIT_RECEIVED;
}

static void state_after_sipi(const struct vcpu *vcpu, struct x86_state *state)
{
    uint8_t vector = atomic_load(&vcpu->sipi_vector);

    state->segment[X86_CS].selector = (uint16_t)(vector << 8);
    state->segment[X86_CS].base = (uint64_t)vector << 12;
    state->rip = 0;
    state->mp_state = X86_MP_RUNNABLE;
}

static void take_init_sipi(struct vcpu *vcpu)
{
    const uint32_t both = VCPU_REQUEST_INIT | VCPU_REQUEST_SIPI;
    const struct accel_ops *ops = vcpu->accel->ops;
    struct error *err = NULL;
    uint32_t requests;

    if (!(atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & both) ||
        (ops->vcpu_in_smm && ops->vcpu_in_smm(vcpu))) {
        return;
    }
    requests = atomic_fetch_and(&vcpu->requests, ~both);
    if (!(requests & VCPU_REQUEST_INIT) && vcpu->mp_state != X86_MP_INIT_RECEIVED) {
        return; /* a SIPI counts only after INIT */
    }
    autofree struct x86_state *state = xnew(struct x86_state);
    if (!ops->vcpu_get_state(vcpu, state, &err)) {
        error_report(err);
        return;
    }
    if (requests & VCPU_REQUEST_INIT) {
        state_after_init(vcpu, state);
        lapic_reset(vcpu->lapic, state->apic_base & X86_APIC_BASE_BSP);
        lapic_get_state(vcpu->lapic, &state->lapic);
        vcpu->halted = false;
    }
    if (requests & VCPU_REQUEST_SIPI && state->mp_state == X86_MP_INIT_RECEIVED) {
        state_after_sipi(vcpu, state);
    }
    if (!ops->vcpu_set_state(vcpu, state, &err)) {
        error_report(err);
    }
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static bool runnable(const struct vcpu *vcpu)
{
    return !vcpu->lapic || vcpu->mp_state == X86_MP_RUNNABLE;
}

static bool extint_pending(const struct vcpu *vcpu)
{
    return atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & VCPU_REQUEST_EXTINT &&
           (!vcpu->lapic || lapic_accepts_extint(vcpu->lapic));
}

static bool lapic_pending(struct vcpu *vcpu)
{
    if (!vcpu->lapic) {
        return false;
    }
    /* Cleared first: what is sent from here on sets it again. */
    if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & VCPU_REQUEST_APIC) {
        atomic_fetch_and(&vcpu->requests, ~VCPU_REQUEST_APIC);
    }
    return lapic_sync(vcpu->lapic);
}

/* The INTA cycle; -1: the PIC has changed its mind. */
static int ack_pic(struct vcpu *vcpu)
{
    int vector = -1;

    machine_lock();
    if (vcpu->accel->extint_ack && extint_pending(vcpu)) {
        vector = vcpu->accel->extint_ack(vcpu->accel->extint_opaque);
    }
    machine_unlock();
    return vector;
}

static void deliver_interrupt(struct vcpu *vcpu)
{
    const struct accel_ops *ops = vcpu->accel->ops;
    bool from_lapic = lapic_pending(vcpu);
    bool pending = from_lapic || extint_pending(vcpu);
    int vector;

    if (pending && ops->vcpu_interrupt_ready(vcpu)) {
        vector = from_lapic ? lapic_ack(vcpu->lapic) : ack_pic(vcpu);
        if (vector >= 0) {
            TRACE(vcpu_inject, vcpu->index, vector);
            ops->vcpu_inject(vcpu, (uint8_t)vector);
            vcpu->halted = false;
        }
        pending = lapic_pending(vcpu) || extint_pending(vcpu);
    }
    ops->vcpu_request_window(vcpu, pending);
}

bool vcpu_deliver(struct vcpu *vcpu)
{
    const struct accel_ops *ops = vcpu->accel->ops;

    if (vcpu->lapic) {
        take_init_sipi(vcpu);
    }
    if (!runnable(vcpu)) {
        return false;
    }
    if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & VCPU_REQUEST_NMI) {
        atomic_fetch_and(&vcpu->requests, ~VCPU_REQUEST_NMI);
        ops->vcpu_inject_nmi(vcpu);
        vcpu->halted = false;
    }
    if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & VCPU_REQUEST_SMI) {
        atomic_fetch_and(&vcpu->requests, ~VCPU_REQUEST_SMI);
        ops->vcpu_inject_smi(vcpu);
    }
    if (vcpu->accel->irqchip != IRQCHIP_ON) {
        deliver_interrupt(vcpu);
    }
    return !vcpu->halted || (ops->vcpu_has_event && ops->vcpu_has_event(vcpu));
}
