/* SPDX-License-Identifier: MIT */
/*
 * ferry's own local APIC (SDM chapter 10), for engines or modes that have none: xAPIC and x2APIC,
 * timer one-shot, periodic and TSC-deadline, LVTs, self and other IPIs, logical destinations flat
 * and cluster, lowest priority.
 *
 * A LAPIC is vCPU state: its registers are touched by the vCPU's thread only. Others deliver
 * through the mailbox: pending vectors (and which are level-triggered) are atomic bits that the
 * vCPU moves into IRR before each entry; NMI, INIT, SIPI and EXTINT are request bits of the vCPU.
 * So sending an MSI takes no lock.
 */
#ifndef FERRY_ACCEL_LAPIC_H
#define FERRY_ACCEL_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "accel/vcpu.h"

struct lapic;

struct lapic *lapic_new(struct vcpu *vcpu);
void lapic_free(struct lapic *lapic);
void lapic_reset(struct lapic *lapic, bool is_bsp); /* vCPU thread or paused */
/* INIT (SDM 10.4.7.3): as RESET, but IA32_APIC_BASE stays. vCPU thread. */
void lapic_init(struct lapic *lapic);
/* Where the engine has a TSC of its own: the virtual time in ns at which the vCPU's TSC will be
 * `tsc`. Without it the timer has no TSC-deadline mode. Before the vCPU runs. */
void lapic_set_tsc_clock(struct lapic *lapic, int64_t (*ns_at)(struct vcpu *vcpu, uint64_t tsc));

/* Sends an MSI-format message (SDM 10.11) to every LAPIC it addresses. Any thread. */
void lapic_send_msi(const struct msi_message *msg);

/* ---- vCPU thread ---- */
/* Takes the mailbox into IRR; true if an interrupt is deliverable at the present TPR. */
bool lapic_sync(struct lapic *lapic);
/* Highest deliverable vector, moved from IRR to ISR; -1: none (then spurious is the caller's). */
int lapic_ack(struct lapic *lapic);
/* LVT LINT0 accepts ExtINT (virtual wire), or the LAPIC is off: the PIC's vector may be taken. */
bool lapic_accepts_extint(const struct lapic *lapic);
uint8_t lapic_tpr(const struct lapic *lapic); /* CR8 is bits 7:4 */
void lapic_set_tpr(struct lapic *lapic, uint8_t tpr);
uint64_t lapic_base(const struct lapic *lapic);           /* IA32_APIC_BASE */
bool lapic_set_base(struct lapic *lapic, uint64_t value); /* false: #GP */
/* x2APIC MSRs 0x800-0x8ff and IA32_TSC_DEADLINE. */
bool lapic_read_msr(struct lapic *lapic, uint32_t index, uint64_t *value);
bool lapic_write_msr(struct lapic *lapic, uint32_t index, uint64_t value);

/* The MMIO page at 0xfee00000 serves the LAPIC of the accessing vCPU; added to system memory once
 * if the engine has no LAPIC. Writes from outside a vCPU are MSIs. */
void lapic_mmio_init(void);
void lapic_mmio_cleanup(void); /* nothing happens without lapic_mmio_init() */

void lapic_get_state(const struct lapic *lapic, struct x86_lapic *state);
void lapic_set_state(struct lapic *lapic, const struct x86_lapic *state);
/* As lapic_set_base() with whatever mode changes: loading a state is no guest's write. */
void lapic_load_base(struct lapic *lapic, uint64_t value);

#endif
