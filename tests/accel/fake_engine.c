/* SPDX-License-Identifier: MIT */
#include "fake_engine.h"

#include <sched.h>
#include <time.h>

#include "accel/lapic.h"

struct fake_cpu fake_cpus[FAKE_CPUS];
void (*fake_guest)(struct vcpu *vcpu, struct fake_cpu *cpu);
int fake_init_fails_at = -1;

static struct fake_cpu *cpu_of(struct vcpu *vcpu)
{
    return &fake_cpus[vcpu->index];
}

static bool fake_init(struct vcpu *vcpu, struct error **errp)
{
    if ((int)vcpu->index == fake_init_fails_at) {
        error_set(errp, "vCPU %u does not want to", vcpu->index);
        return false;
    }
    return true;
}

static void fake_destroy(struct vcpu *vcpu)
{
}

static void fake_run(struct vcpu *vcpu)
{
    struct fake_cpu *cpu = cpu_of(vcpu);

    atomic_fetch_add(&cpu->entries, 1);
    cpu->completions += vcpu->exit.reason == VCPU_EXIT_IO;
    if (atomic_exchange(&cpu->kicked, false)) {
        vcpu->exit.reason = VCPU_EXIT_INTR;
    } else {
        fake_guest(vcpu, cpu);
    }
}

static void fake_kick(struct vcpu *vcpu)
{
    atomic_store(&cpu_of(vcpu)->kicked, true);
}

static void fake_complete_io(struct vcpu *vcpu)
{
    cpu_of(vcpu)->completions++;
    vcpu->exit.reason = VCPU_EXIT_INTR;
}

static bool fake_get_state(struct vcpu *vcpu, struct x86_state *state, struct error **errp)
{
    *state = cpu_of(vcpu)->state;
    if (vcpu->lapic) {
        lapic_get_state(vcpu->lapic, &state->lapic);
        state->mp_state = vcpu->halted ? X86_MP_HALTED : vcpu->mp_state;
    }
    return true;
}

static bool fake_set_state(struct vcpu *vcpu, const struct x86_state *state, struct error **errp)
{
    cpu_of(vcpu)->state = *state;
    if (vcpu->lapic) {
        lapic_set_state(vcpu->lapic, &state->lapic);
        vcpu->halted = state->mp_state == X86_MP_HALTED;
        vcpu->mp_state = vcpu->halted ? X86_MP_RUNNABLE : state->mp_state;
    }
    return true;
}

static bool fake_interrupt_ready(struct vcpu *vcpu)
{
    return cpu_of(vcpu)->ready;
}

static void fake_inject(struct vcpu *vcpu, uint8_t vector)
{
    atomic_store(&cpu_of(vcpu)->last_vector, vector);
    atomic_fetch_add(&cpu_of(vcpu)->injected, 1);
}

static void fake_request_window(struct vcpu *vcpu, bool on)
{
    cpu_of(vcpu)->window = on;
}

static void fake_inject_nmi(struct vcpu *vcpu)
{
    atomic_fetch_add(&cpu_of(vcpu)->nmis, 1);
}

const struct accel_ops fake_ops = {
    .name = "fake",
    .has_vcpus = true,
    .vcpu_init = fake_init,
    .vcpu_destroy = fake_destroy,
    .vcpu_run = fake_run,
    .vcpu_kick = fake_kick,
    .vcpu_complete_io = fake_complete_io,
    .vcpu_get_state = fake_get_state,
    .vcpu_set_state = fake_set_state,
    .vcpu_interrupt_ready = fake_interrupt_ready,
    .vcpu_inject = fake_inject,
    .vcpu_request_window = fake_request_window,
    .vcpu_inject_nmi = fake_inject_nmi,
};

void fake_setup(struct accel *accel, enum irqchip_mode irqchip)
{
    memset(fake_cpus, 0, sizeof(fake_cpus));
    for (unsigned i = 0; i < FAKE_CPUS; i++) {
        atomic_store(&fake_cpus[i].last_vector, -1);
        x86_state_reset(&fake_cpus[i].state, i == 0, i);
    }
    *accel = (struct accel){.ops = &fake_ops, .irqchip = irqchip};
    fake_guest = fake_guest_spin;
    fake_init_fails_at = -1;
    system_record_clear();
}

void fake_guest_spin(struct vcpu *vcpu, struct fake_cpu *cpu)
{
    while (!atomic_exchange(&cpu->kicked, false)) {
        sched_yield();
    }
    vcpu->exit.reason = VCPU_EXIT_INTR;
}

void fake_guest_halt(struct vcpu *vcpu, struct fake_cpu *cpu)
{
    vcpu->exit.reason = VCPU_EXIT_HLT;
}

void wait_for(_Atomic(unsigned) *counter, unsigned value)
{
    const struct timespec ms = {.tv_nsec = 1000000};

    for (unsigned i = 0; i < 20000 && atomic_load(counter) < value; i++) {
        nanosleep(&ms, NULL);
    }
    assert_true(atomic_load(counter) >= value);
}
