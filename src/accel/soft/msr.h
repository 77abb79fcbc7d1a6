/* SPDX-License-Identifier: MIT */
/* What a vCPU keeps beside struct soft_cpu: MSRs without a field there, and its CPUID leaves. */
#ifndef FERRY_ACCEL_SOFT_MSR_H
#define FERRY_ACCEL_SOFT_MSR_H

#include "accel/cpu_model.h"
#include "accel/soft/soft.h"

#define SOFT_MTRR_FIXED_COUNT 11

struct soft_msrs {
    uint64_t tsc_adjust;
    uint64_t misc_enable, misc_features, feature_control, power_ctl, debugctl;
    uint64_t pat, mtrr_def_type;
    uint64_t mtrr_fixed[SOFT_MTRR_FIXED_COUNT];
    uint64_t mtrr_variable[2 * X86_MTRR_VARIABLE_COUNT]; /* base, mask, base, … */
    uint64_t mcg_status, mcg_ctl;
    uint64_t mce_bank[4 * X86_MCE_BANKS]; /* CTL, STATUS, ADDR, MISC, CTL, … */
    uint64_t amd_hwcr;
    uint64_t kvm_wall_clock, kvm_system_time, kvm_poll_control;
    uint32_t pvclock_version;

    /* The TSC that soft_get_state() gave last, and the offset that it had then (time.c). */
    uint64_t tsc_given;
    int64_t tsc_given_offset;

    /* Leaves of the CPU model, made with the first CPUID (cpuid.c). */
    struct cpuid_entry leaves[CPUID_MAX];
    unsigned leaf_count;
};

/* IA32_DEBUGCTL: TF traps behind branches; cleared by every #DB. */
#define SOFT_DEBUGCTL_BTF UINT64_C(2)

/* MISC_FEATURES_ENABLES: CPUID faults outside CPL 0 (SDM volume 2, CPUID). */
#define SOFT_CPUID_FAULTS UINT64_C(1)

#endif
