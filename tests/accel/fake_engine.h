/* SPDX-License-Identifier: MIT */
/*
 * An engine whose guest is a C function: fake_guest is called for each entry and fills vcpu->exit.
 * It has the registers that were set, takes an interrupt when `ready`, and notes what it was asked.
 */
#ifndef FERRY_TESTS_ACCEL_FAKE_ENGINE_H
#define FERRY_TESTS_ACCEL_FAKE_ENGINE_H

#include "accel_fixture.h"

#define FAKE_CPUS 8

struct fake_cpu {
    /* vCPU thread */
    struct x86_state state;
    bool ready, window;
    unsigned completions;
    /* atomic */
    _Atomic(bool) kicked;
    _Atomic(unsigned) entries, injected, nmis;
    _Atomic(int) last_vector; /* -1: none yet */
};

extern struct fake_cpu fake_cpus[FAKE_CPUS];
extern const struct accel_ops fake_ops;
/* Runs the guest once. vCPU thread. */
extern void (*fake_guest)(struct vcpu *vcpu, struct fake_cpu *cpu);
/* A vcpu_init that fails with this message for the vCPU of this index. */
extern int fake_init_fails_at;

/* Fresh CPUs, and an accel of that mode. */
void fake_setup(struct accel *accel, enum irqchip_mode irqchip);

/* Guests. Spins until kicked. */
void fake_guest_spin(struct vcpu *vcpu, struct fake_cpu *cpu);
/* HLT each time. */
void fake_guest_halt(struct vcpu *vcpu, struct fake_cpu *cpu);

/* Waits up to some seconds for a counter to reach a value; fails the test if it does not. */
void wait_for(_Atomic(unsigned) *counter, unsigned value);

#endif
