/* SPDX-License-Identifier: MIT */
/* Control registers, MSRs, CPUID, time: what system instructions and state transfer share. vCPU
 * thread; may raise. */
#ifndef FERRY_ACCEL_SOFT_SYSTEM_H
#define FERRY_ACCEL_SOFT_SYSTEM_H

#include "accel/soft/soft.h"

/* ---- control.c: checks and effects of writes (SDM volume 3, 2.5); #GP(0) for what is not allowed */
void soft_write_cr0(struct soft_cpu *cpu, uint64_t value);
void soft_write_cr3(struct soft_cpu *cpu, uint64_t value);
void soft_write_cr4(struct soft_cpu *cpu, uint64_t value);
void soft_write_efer(struct soft_cpu *cpu, uint64_t value);
void soft_write_xcr0(struct soft_cpu *cpu, uint64_t value);
void soft_write_dr(struct soft_cpu *cpu, unsigned reg, uint64_t value);
uint64_t soft_read_dr(struct soft_cpu *cpu, unsigned reg);

/* ---- msr.c ---- */
struct soft_msrs *soft_msrs_new(void);
/* False: #GP(0). By a guest: read-only and reserved bits refused. */
bool soft_read_msr(struct soft_cpu *cpu, uint32_t index, uint64_t *value);
bool soft_write_msr(struct soft_cpu *cpu, uint32_t index, uint64_t value);
/* By soft_get_state() and soft_set_state(): everything, whatever a guest may do. */
void soft_msrs_get(struct soft_cpu *cpu, struct x86_state *state);
void soft_msrs_set(struct soft_cpu *cpu, const struct x86_state *state);

/* ---- cpuid.c ---- */
/* What the engine offers (accel_ops.supported_cpuid). */
bool soft_supported_cpuid(struct accel *accel, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
/* What this vCPU says, with the bits that follow its state (OSXSAVE, APIC, XSAVE sizes). */
void soft_cpuid(struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
struct soft_features *soft_features_new(const struct cpu_model *model);

/* ---- time.c ---- */
uint64_t soft_rdtsc(const struct soft_cpu *cpu);
/* A write of IA32_TSC, and one of IA32_TSC_ADJUST, which adds: each changes both. */
void soft_write_tsc(struct soft_cpu *cpu, uint64_t value);
void soft_shift_tsc(struct soft_cpu *cpu, uint64_t change);
/* Virtual time at which the vCPU's TSC is `tsc`: for lapic_set_tsc_clock(). */
int64_t soft_tsc_ns_at(struct vcpu *vcpu, uint64_t tsc);
/* KVM's paravirtual clock MSRs: the structure in guest memory is written when the MSR is, and again
 * when time jumps. */
void soft_pvclock_write(struct soft_cpu *cpu, uint32_t msr, uint64_t value);
void soft_pvclock_update(struct soft_cpu *cpu);

/* ---- simd.c: the host's MXCSR ------------------------------------------------------------------ */
/* In the guest the host's MXCSR has the guest's rounding, FZ and DAZ with all exceptions masked; flags
 * gather there. enter sets it, leave takes the flags and restores the host's. */
void soft_simd_enter(struct soft_cpu *cpu);
void soft_simd_leave(struct soft_cpu *cpu);
uint32_t soft_get_mxcsr(struct soft_cpu *cpu);
void soft_set_mxcsr(struct soft_cpu *cpu, uint32_t value); /* reserved bits: the caller's #GP */

/* ---- xsave.c: FXSAVE and XSAVE areas in the neutral, standard form ------------------------------ */
void soft_save_area(struct soft_cpu *cpu, uint8_t *area, uint32_t size);
void soft_load_area(struct soft_cpu *cpu, const uint8_t *area, uint32_t size);

/* ---- shared by the files of control registers, MSRs, time and state ---------------------------- */
/* Do these values go together, and does the CPU model have their bits? NULL, or what does not fit. */
const char *soft_check_control(const struct soft_cpu *cpu, uint64_t cr0, uint64_t cr4,
                               uint64_t efer, uint64_t xcr0);
/* PAE paging's four entries at CR3 (SDM 4.4.1). False: a reserved bit is set, nothing changed. */
bool soft_load_pdptes(struct soft_cpu *cpu, uint64_t cr3);
/* Bytes of an XSAVE area with these components (SDM volume 1, 13.4). */
uint32_t soft_xsave_size(uint64_t components, bool is_compacted);
/* The TSC of a loaded state. */
void soft_load_tsc(struct soft_cpu *cpu, uint64_t value);
/* data_tlb alone, after a change of RFLAGS.AC. */
void soft_update_tlb(struct soft_cpu *cpu);
/* vcpu_run returns before the next block. */
void soft_leave_guest(struct soft_cpu *cpu, enum vcpu_exit_reason reason);
/* After a write to the LAPIC: what it can deliver now, or has sent to this vCPU, is for the vCPU's
 * loop. */
void soft_lapic_written(struct soft_cpu *cpu);

#endif
