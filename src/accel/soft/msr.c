/* SPDX-License-Identifier: MIT */
/*
 * Model-specific registers (SDM volume 4; AMD APM volume 2, appendix A; Linux,
 * Documentation/virt/kvm/x86/msr.rst for KVM's).
 *
 * Four groups: those of struct soft_cpu and the LAPIC, those that only hold what was written (banks),
 * those that guests look at although a virtual machine has nothing behind them (constants), KVM's.
 * A guest's write is checked as the processor does it; a state that is loaded may set everything.
 */
#include <stdlib.h>
#include <string.h>

#include "accel/lapic.h"
#include "accel/soft/msr.h"
#include "accel/soft/op.h"
#include "accel/soft/system.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"

/* Numbers beside those of x86_regs.h. */
enum {
    P5_MC_ADDR = 0x0,
    P5_MC_TYPE = 0x1,
    PLATFORM_ID = 0x17,
    EBL_CR_POWERON = 0x2a,
    EBC_FREQUENCY_ID = 0x2c,
    UCODE_WRITE = 0x79,
    UCODE_REVISION = 0x8b, /* BIOS_SIGN_ID, and AMD's PATCH_LEVEL */
    PERFCTR0 = 0xc1,
    PERFCTR1 = 0xc2,
    FSB_FREQ = 0xcd,
    PLATFORM_INFO = 0xce,
    MTRR_CAP = 0xfe,
    BBL_CR_CTL3 = 0x11e,
    MCG_CAP = 0x179,
    EVNTSEL0 = 0x186,
    EVNTSEL1 = 0x187,
    PERF_STATUS = 0x198,
    PERF_CTL = 0x199,
    LAST_BRANCH_FROM = 0x1db,
    LAST_INT_TO = 0x1de,
    POWER_CTL = 0x1fc,
    X2APIC_EOI = 0x80b,
};
#define K7_EVNTSEL0      0xc0010000u
#define K7_PERFCTR3      0xc0010007u
#define AMD_SYSCFG       0xc0010010u
#define AMD_HWCR         0xc0010015u
#define K7_CLK_CTL       0xc001001bu
#define AMD_NB_CFG       0xc001001fu
#define AMD_PATCH_LOADER 0xc0010020u
#define K8_INT_PENDING   0xc0010055u
#define AMD_MMIO_CONF    0xc0010058u
#define K8_TSEG_ADDR     0xc0010112u
#define K8_TSEG_MASK     0xc0010113u
#define AMD_VM_HSAVE_PA  0xc0010117u
#define AMD_IC_CFG       0xc0011021u
#define AMD_DC_CFG       0xc0011022u
#define AMD_TW_CFG       0xc0011023u
#define AMD_DE_CFG       0xc0011029u
#define AMD_BU_CFG2      0xc001102au
#define AMD_EX_CFG       0xc001102cu

#define FEATURE_CONTROL_LOCK UINT64_C(1)
#define MCG_CAP_VALUE        (X86_MCE_BANKS | UINT64_C(1) << 8 /* MCG_CTL */ | UINT64_C(1) << 24 /* SER */)
#define MTRR_CAP_VALUE       (X86_MTRR_VARIABLE_COUNT | 1u << 8 /* fixed */ | 1u << 10 /* WC */)
#define MTRR_DEF_VALID       UINT64_C(0xcff)
#define MTRR_MASK_VALID      (UINT64_C(1) << 11)
#define MISC_ENABLE_RESET    UINT64_C(1) /* fast strings */
#define PAT_RESET            UINT64_C(0x0007040600070406)
#define HWCR_MC_STATUS_WRITE (UINT64_C(1) << 18)
/* Bits of HWCR that systems set: TLB cache off, INVD as WBINVD, flush filter off, IGNNE, machine check
 * status, TSC at P0's frequency. */
#define HWCR_KEPT      UINT64_C(0x1040158)
#define DE_CFG_LFENCE  UINT64_C(2) /* LFENCE serialises */
#define KVM_POLL_RESET UINT64_C(1)
#define SMBASE_RESET   0x30000u
#define DEBUGCTL_LBR   UINT64_C(1)

#define KVM_CLOCKSOURCE  0
#define KVM_CLOCKSOURCE2 3
#define KVM_POLL_CONTROL 12

struct soft_msrs *soft_msrs_new(void)
{
    struct soft_msrs *m = xnew(struct soft_msrs);

    m->misc_enable = MISC_ENABLE_RESET;
    m->pat = PAT_RESET;
    m->kvm_poll_control = KVM_POLL_RESET;
    for (unsigned i = 0; i < X86_MCE_BANKS; i++) {
        m->mce_bank[4 * i] = UINT64_MAX;
    }
    return m;
}

/* ---- memory types ------------------------------------------------------------------------------ */

/* SDM 11.11.1 and table 11-10: UC, WC, WT, WP, WB; for PAT also UC-. */
static bool is_memory_type(unsigned type, bool is_pat)
{
    return type <= 1 || (type >= 4 && type <= 6) || (is_pat && type == 7);
}

static bool are_memory_types(uint64_t bytes, bool is_pat)
{
    for (unsigned i = 0; i < 8; i++) {
        if (!is_memory_type(bytes >> 8 * i & 0xff, is_pat)) {
            return false;
        }
    }
    return true;
}

static uint64_t *fixed_mtrr(struct soft_msrs *m, uint32_t index)
{
    if (index == X86_MSR_MTRR_FIX64K_00000) {
        return &m->mtrr_fixed[0];
    }
    if (index == X86_MSR_MTRR_FIX16K_80000 || index == X86_MSR_MTRR_FIX16K_A0000) {
        return &m->mtrr_fixed[1 + index - X86_MSR_MTRR_FIX16K_80000];
    }
    if (index >= X86_MSR_MTRR_FIX4K_C0000 && index < X86_MSR_MTRR_FIX4K_C0000 + 8) {
        return &m->mtrr_fixed[3 + index - X86_MSR_MTRR_FIX4K_C0000];
    }
    return NULL;
}

static bool is_variable_mtrr(uint32_t index)
{
    return index >= X86_MSR_MTRR_PHYS_BASE0 &&
           index < X86_MSR_MTRR_PHYS_BASE0 + 2 * X86_MTRR_VARIABLE_COUNT;
}

static bool variable_mtrr_fits(const struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    if (value >> cpu->features->phys_bits) {
        return false;
    }
    if (index & 1) { /* mask */
        return !(value & 0xfff & ~MTRR_MASK_VALID);
    }
    return !(value & 0xf00) && is_memory_type(value & 0xff, false);
}

/* ---- registers that hold what was written ------------------------------------------------------- */

static bool is_mce_bank(uint32_t index)
{
    return index >= X86_MSR_MC0_CTL && index < X86_MSR_MC0_CTL + 4 * X86_MCE_BANKS;
}

/* Where a register of this kind is kept, if the CPU model has it; NULL: it is none of them. */
static uint64_t *place_of(struct soft_cpu *cpu, uint32_t index)
{
    const struct soft_features *f = cpu->features;
    struct soft_msrs *m = cpu->msrs;
    uint64_t *fixed;

    switch (index) {
    case X86_MSR_MISC_ENABLE:
        return &m->misc_enable;
    case X86_MSR_MISC_FEATURES:
        return &m->misc_features;
    case X86_MSR_FEATURE_CONTROL:
        return f->is_intel ? &m->feature_control : NULL;
    case POWER_CTL:
        return &m->power_ctl;
    case X86_MSR_DEBUGCTL:
        return &m->debugctl;
    case X86_MSR_PAT:
        return f->pat ? &m->pat : NULL;
    case X86_MSR_MTRR_DEF_TYPE:
        return f->mtrr ? &m->mtrr_def_type : NULL;
    case X86_MSR_MCG_STATUS:
        return f->mca ? &m->mcg_status : NULL;
    case X86_MSR_MCG_CTL:
        return f->mca ? &m->mcg_ctl : NULL;
    case AMD_HWCR:
        return &m->amd_hwcr;
    case X86_MSR_SYSENTER_CS:
        return f->sep ? &cpu->sysenter_cs : NULL;
    case X86_MSR_SYSENTER_ESP:
        return f->sep ? &cpu->sysenter_esp : NULL;
    case X86_MSR_SYSENTER_EIP:
        return f->sep ? &cpu->sysenter_eip : NULL;
    case X86_MSR_STAR:
        return f->syscall ? &cpu->star : NULL;
    case X86_MSR_LSTAR:
        return f->long_mode ? &cpu->lstar : NULL;
    case X86_MSR_CSTAR:
        return f->long_mode ? &cpu->cstar : NULL;
    case X86_MSR_FMASK:
        return f->long_mode ? &cpu->fmask : NULL;
    case X86_MSR_FS_BASE:
        return f->long_mode ? &cpu->seg[X86_FS].base : NULL;
    case X86_MSR_GS_BASE:
        return f->long_mode ? &cpu->seg[X86_GS].base : NULL;
    case X86_MSR_KERNEL_GS_BASE:
        return f->long_mode ? &cpu->kernel_gs_base : NULL;
    case X86_MSR_TSC_AUX:
        return f->rdtscp || f->rdpid ? &cpu->tsc_aux : NULL;
    case X86_MSR_XSS:
        return f->xsaves ? &cpu->xss : NULL;
    case X86_MSR_KVM_POLL_CONTROL:
        return f->kvm >> KVM_POLL_CONTROL & 1 ? &m->kvm_poll_control : NULL;
    default:
        break;
    }
    if (is_mce_bank(index)) {
        return f->mca ? &m->mce_bank[index - X86_MSR_MC0_CTL] : NULL;
    }
    if (is_variable_mtrr(index)) {
        return f->mtrr ? &m->mtrr_variable[index - X86_MSR_MTRR_PHYS_BASE0] : NULL;
    }
    fixed = fixed_mtrr(m, index);
    return fixed && f->mtrr ? fixed : NULL;
}

/* A guest's write to one of them: may it, and what stays of the value? */
static bool accept(const struct soft_cpu *cpu, uint32_t index, uint64_t *value)
{
    const struct soft_msrs *m = cpu->msrs;
    bool is_intel = cpu->features->is_intel;

    switch (index) {
    case X86_MSR_MISC_FEATURES:
        return !(*value & ~SOFT_CPUID_FAULTS);
    case X86_MSR_FEATURE_CONTROL:
        return !(m->feature_control & FEATURE_CONTROL_LOCK) && !(*value & ~FEATURE_CONTROL_LOCK);
    case X86_MSR_DEBUGCTL:
        if (*value & DEBUGCTL_LBR) {
            log_item(LOG_UNIMP, "vCPU %u: branch records (DEBUGCTL)", cpu->vcpu->index);
        }
        *value &= ~DEBUGCTL_LBR;
        return !(*value & ~SOFT_DEBUGCTL_BTF);
    case X86_MSR_PAT:
        return are_memory_types(*value, true);
    case X86_MSR_MTRR_DEF_TYPE:
        return !(*value & ~MTRR_DEF_VALID) && is_memory_type(*value & 0xff, false);
    case X86_MSR_MCG_STATUS:
        return !is_intel || !*value; /* 15.3.1.2 */
    case AMD_HWCR:
        *value &= HWCR_KEPT;
        return true;
    case X86_MSR_SYSENTER_ESP:
    case X86_MSR_SYSENTER_EIP:
        if (!is_intel) {
            *value = (uint32_t)*value; /* legacy mode only */
        }
        return soft_is_canonical(cpu, *value);
    case X86_MSR_SYSENTER_CS:
        *value = (uint32_t)*value;
        return true;
    case X86_MSR_LSTAR:
    case X86_MSR_CSTAR:
    case X86_MSR_FS_BASE:
    case X86_MSR_GS_BASE:
    case X86_MSR_KERNEL_GS_BASE:
        return soft_is_canonical(cpu, *value);
    case X86_MSR_FMASK:
        *value = (uint32_t)*value;
        return true;
    case X86_MSR_TSC_AUX:
        if (is_intel && *value >> 32) {
            return false;
        }
        *value = (uint32_t)*value;
        return true;
    case X86_MSR_XSS:
        return !*value; /* no supervisor component */
    case X86_MSR_KVM_POLL_CONTROL:
        return *value <= 1;
    default:
        break;
    }
    if (is_mce_bank(index) && index % 4 == 1) { /* STATUS: 15.3.2.2 */
        return !*value || (!is_intel && m->amd_hwcr & HWCR_MC_STATUS_WRITE);
    }
    if (is_variable_mtrr(index)) {
        return variable_mtrr_fits(cpu, index, *value);
    }
    return !fixed_mtrr(cpu->msrs, index) || are_memory_types(*value, false);
}

/* Keeps the copies of segment bases. */
static void store(struct soft_cpu *cpu, uint32_t index, uint64_t *place, uint64_t value)
{
    *place = value;
    if (index == X86_MSR_FS_BASE || index == X86_MSR_GS_BASE) {
        cpu->seg_base[index == X86_MSR_FS_BASE ? X86_FS : X86_GS] = value;
    }
}

/* ---- registers with nothing behind them ---------------------------------------------------------- */

/* What KVM lets guests read; most are 0. */
static bool read_constant(const struct soft_cpu *cpu, uint32_t index, uint64_t *value)
{
    bool is_intel = cpu->features->is_intel;

    *value = 0;
    switch (index) {
    case UCODE_REVISION: /* one that no guest wants to replace; Intel has it in the upper half */
        *value = is_intel ? UINT64_C(1) << 32 : 0x01000065;
        return true;
    case MTRR_CAP:
        *value = MTRR_CAP_VALUE;
        return cpu->features->mtrr;
    case MCG_CAP:
        *value = MCG_CAP_VALUE;
        return cpu->features->mca;
    case PLATFORM_INFO:
        *value = UINT64_C(1) << 31; /* MISC_FEATURES has CPUID faulting */
        return true;
    case EBC_FREQUENCY_ID:
        *value = 1 << 24;
        return true;
    case FSB_FREQ:
        *value = 3;
        return true;
    case PERF_STATUS:
        *value = 1000 | UINT64_C(4) << 40;
        return true;
    case BBL_CR_CTL3:
        *value = 0xbe702111;
        return is_intel;
    case K7_CLK_CTL:
        *value = 0x20000000;
        return true;
    case AMD_DE_CFG:
        *value = is_intel ? 0 : DE_CFG_LFENCE;
        return !is_intel;
    case P5_MC_ADDR:
    case P5_MC_TYPE:
    case PLATFORM_ID:
    case EBL_CR_POWERON:
    case UCODE_WRITE:
    case PERFCTR0:
    case PERFCTR1:
    case EVNTSEL0:
    case EVNTSEL1:
    case PERF_CTL:
    case LAST_BRANCH_FROM ... LAST_INT_TO:
    case K7_EVNTSEL0 ... K7_PERFCTR3:
    case AMD_SYSCFG:
    case AMD_NB_CFG:
    case K8_INT_PENDING:
    case AMD_MMIO_CONF:
    case K8_TSEG_ADDR:
    case K8_TSEG_MASK:
    case AMD_VM_HSAVE_PA:
    case AMD_DC_CFG:
    case AMD_IC_CFG:
    case AMD_TW_CFG:
    case AMD_BU_CFG2:
    case AMD_EX_CFG:
        return true;
    default:
        return false;
    }
}

/* Writes that change nothing. */
static bool ignore_write(const struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    uint64_t old;

    switch (index) {
    case UCODE_WRITE:
    case UCODE_REVISION:
    case AMD_PATCH_LOADER:
    case AMD_NB_CFG:
    case AMD_VM_HSAVE_PA:
    case AMD_DC_CFG:
    case AMD_IC_CFG:
    case AMD_TW_CFG:
    case AMD_BU_CFG2:
    case AMD_EX_CFG:
    case PERF_CTL:
    case PERFCTR0:
    case PERFCTR1:
    case EVNTSEL0:
    case EVNTSEL1:
    case BBL_CR_CTL3:
    case K7_EVNTSEL0 ... K7_PERFCTR3:
        break;
    case P5_MC_ADDR:
    case P5_MC_TYPE:
    case AMD_SYSCFG:
    case AMD_MMIO_CONF:
    case K8_INT_PENDING:
    case AMD_DE_CFG:
        /* Read, changed nothing, and written back. */
        return read_constant(cpu, index, &old) && value == old;
    default:
        return false;
    }
    if (value && index != UCODE_REVISION) {
        log_item(LOG_UNIMP, "vCPU %u: MSR 0x%x = 0x%llx has no effect", cpu->vcpu->index, index,
                 (unsigned long long)value);
    }
    return true;
}

/* ---- the clock, the LAPIC, KVM's --------------------------------------------------------------- */

static bool has_kvm_clock(const struct soft_cpu *cpu, uint32_t index)
{
    switch (index) {
    case X86_MSR_KVM_WALL_CLOCK_OLD:
    case X86_MSR_KVM_SYSTEM_TIME_OLD:
        return cpu->features->kvm >> KVM_CLOCKSOURCE & 1;
    case X86_MSR_KVM_WALL_CLOCK:
    case X86_MSR_KVM_SYSTEM_TIME:
        return cpu->features->kvm >> KVM_CLOCKSOURCE2 & 1;
    default:
        return false;
    }
}

static bool is_lapic(const struct soft_cpu *cpu, uint32_t index)
{
    return cpu->vcpu->lapic && ((index >= X86_MSR_X2APIC_FIRST && index <= X86_MSR_X2APIC_LAST &&
                                 cpu->features->x2apic) ||
                                (index == X86_MSR_TSC_DEADLINE && cpu->features->tsc_deadline));
}

/* An end of interrupt may go to the IOAPIC, which is machine state: as any access to a device, that is
 * done outside of the guest. */
static bool write_lapic(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    struct vcpu_exit *exit = &cpu->vcpu->exit;
    bool ok;

    if (index == X2APIC_EOI) {
        exit->reason = VCPU_EXIT_MSR;
        exit->msr.index = index;
        exit->msr.value = value;
        exit->msr.is_write = true;
        soft_exit_inline(cpu);
        ok = !exit->msr.fault;
    } else {
        ok = lapic_write_msr(cpu->vcpu->lapic, index, value);
    }
    soft_lapic_written(cpu);
    return ok;
}

static bool set_apic_base(struct soft_cpu *cpu, uint64_t value)
{
    struct lapic *lapic = cpu->vcpu->lapic;

    if (!lapic || !cpu->features->apic ||
        (value & X86_APIC_BASE_X2APIC && !cpu->features->x2apic) || !lapic_set_base(lapic, value)) {
        return false;
    }
    soft_lapic_written(cpu);
    return true;
}

/* ---- reads and writes --------------------------------------------------------------------------- */

static bool read_msr(struct soft_cpu *cpu, uint32_t index, uint64_t *value)
{
    const uint64_t *place = place_of(cpu, index);

    if (place) {
        *value = *place;
        return true;
    }
    if (is_lapic(cpu, index)) {
        return lapic_read_msr(cpu->vcpu->lapic, index, value);
    }
    if (has_kvm_clock(cpu, index)) {
        *value = index == X86_MSR_KVM_SYSTEM_TIME || index == X86_MSR_KVM_SYSTEM_TIME_OLD
                     ? cpu->msrs->kvm_system_time
                     : cpu->msrs->kvm_wall_clock;
        return true;
    }
    switch (index) {
    case X86_MSR_TSC:
        *value = soft_rdtsc(cpu);
        return cpu->features->tsc;
    case X86_MSR_TSC_ADJUST:
        *value = cpu->msrs->tsc_adjust;
        return cpu->features->tsc_adjust;
    case X86_MSR_EFER:
        *value = cpu->efer;
        return true;
    case X86_MSR_APIC_BASE:
        *value = cpu->vcpu->lapic ? lapic_base(cpu->vcpu->lapic) : 0;
        return cpu->features->apic && cpu->vcpu->lapic;
    default:
        return read_constant(cpu, index, value);
    }
}

bool soft_read_msr(struct soft_cpu *cpu, uint32_t index, uint64_t *value)
{
    bool ok = read_msr(cpu, index, value);

    if (!ok) {
        log_item(LOG_UNIMP, "vCPU %u: read of MSR 0x%x", cpu->vcpu->index, index);
    }
    return ok;
}

static bool write_msr(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    uint64_t *place = place_of(cpu, index);

    if (place) {
        if (!accept(cpu, index, &value)) {
            return false;
        }
        store(cpu, index, place, value);
        return true;
    }
    if (is_lapic(cpu, index)) {
        return write_lapic(cpu, index, value);
    }
    if (has_kvm_clock(cpu, index)) {
        soft_pvclock_write(cpu, index, value);
        return true;
    }
    switch (index) {
    case X86_MSR_TSC:
        if (cpu->features->tsc) {
            soft_write_tsc(cpu, value);
        }
        return cpu->features->tsc;
    case X86_MSR_TSC_ADJUST:
        if (cpu->features->tsc_adjust) {
            soft_shift_tsc(cpu, value - cpu->msrs->tsc_adjust);
        }
        return cpu->features->tsc_adjust;
    case X86_MSR_EFER:
        soft_write_efer(cpu, value);
        return true;
    case X86_MSR_APIC_BASE:
        return set_apic_base(cpu, value);
    default:
        return ignore_write(cpu, index, value);
    }
}

bool soft_write_msr(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    bool ok = write_msr(cpu, index, value);

    if (!ok) {
        log_item(LOG_UNIMP, "vCPU %u: write of 0x%llx to MSR 0x%x", cpu->vcpu->index,
                 (unsigned long long)value, index);
    }
    return ok;
}

/* ---- the neutral state -------------------------------------------------------------------------- */

/* Beside MTRRs and machine check banks. The TSC is a time of its own, and the first. */
static const uint32_t state_msrs[] = {
    X86_MSR_TSC_ADJUST,
    X86_MSR_SYSENTER_CS,
    X86_MSR_SYSENTER_ESP,
    X86_MSR_SYSENTER_EIP,
    X86_MSR_MCG_STATUS,
    X86_MSR_MCG_CTL,
    X86_MSR_MISC_ENABLE,
    X86_MSR_MISC_FEATURES,
    X86_MSR_FEATURE_CONTROL,
    POWER_CTL,
    X86_MSR_DEBUGCTL,
    X86_MSR_PAT,
    X86_MSR_MTRR_DEF_TYPE,
    X86_MSR_MTRR_FIX64K_00000,
    X86_MSR_MTRR_FIX16K_80000,
    X86_MSR_MTRR_FIX16K_A0000,
    X86_MSR_TSC_DEADLINE,
    X86_MSR_XSS,
    X86_MSR_STAR,
    X86_MSR_LSTAR,
    X86_MSR_CSTAR,
    X86_MSR_FMASK,
    X86_MSR_KERNEL_GS_BASE,
    X86_MSR_TSC_AUX,
    X86_MSR_KVM_WALL_CLOCK,
    X86_MSR_KVM_SYSTEM_TIME,
    X86_MSR_KVM_POLL_CONTROL,
    AMD_HWCR,
};

static void add(struct soft_cpu *cpu, struct x86_state *state, uint32_t index)
{
    uint64_t value;

    if (state->msr_count < X86_MSR_MAX && read_msr(cpu, index, &value)) {
        state->msr[state->msr_count++] = (struct x86_msr){index, value};
    }
}

void soft_msrs_get(struct soft_cpu *cpu, struct x86_state *state)
{
    struct soft_msrs *m = cpu->msrs;

    m->tsc_given = soft_rdtsc(cpu);
    m->tsc_given_offset = cpu->tsc_offset;
    state->msr_count = 0;
    state->msr[state->msr_count++] = (struct x86_msr){X86_MSR_TSC, m->tsc_given};
    state->msr[state->msr_count++] = (struct x86_msr){X86_MSR_SMBASE, cpu->smbase};
    for (size_t i = 0; i < ARRAY_SIZE(state_msrs); i++) {
        add(cpu, state, state_msrs[i]);
    }
    for (unsigned i = 0; i < 8; i++) {
        add(cpu, state, X86_MSR_MTRR_FIX4K_C0000 + i);
    }
    for (unsigned i = 0; i < 2 * X86_MTRR_VARIABLE_COUNT; i++) {
        add(cpu, state, X86_MSR_MTRR_PHYS_BASE0 + i);
    }
    for (unsigned i = 0; i < 4 * X86_MCE_BANKS; i++) {
        add(cpu, state, X86_MSR_MC0_CTL + i);
    }
}

/* What a state does not name has its value after RESET. */
static void reset(struct soft_cpu *cpu)
{
    struct soft_msrs *m = cpu->msrs, *fresh = soft_msrs_new();

    fresh->tsc_given = m->tsc_given;
    fresh->tsc_given_offset = m->tsc_given_offset;
    fresh->pvclock_version = m->pvclock_version;
    memcpy(fresh->leaves, m->leaves, sizeof(fresh->leaves));
    fresh->leaf_count = m->leaf_count;
    *m = *fresh;
    free(fresh);
    cpu->smbase = SMBASE_RESET;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->star = cpu->lstar = cpu->cstar = cpu->fmask = 0;
    cpu->kernel_gs_base = cpu->tsc_aux = cpu->xss = 0;
}

static void load(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    uint64_t *place;

    switch (index) {
    case X86_MSR_TSC:     /* set already */
    case X86_MSR_FS_BASE: /* the segments have them */
    case X86_MSR_GS_BASE:
        return;
    case X86_MSR_TSC_ADJUST:
        cpu->msrs->tsc_adjust = value;
        return;
    case X86_MSR_SMBASE:
        cpu->smbase = (uint32_t)value;
        return;
    case X86_MSR_KVM_SYSTEM_TIME:
        cpu->msrs->kvm_system_time = value;
        return;
    case X86_MSR_KVM_WALL_CLOCK:
        cpu->msrs->kvm_wall_clock = value;
        return;
    case X86_MSR_TSC_DEADLINE:
        if (is_lapic(cpu, index)) {
            lapic_write_msr(cpu->vcpu->lapic, index, value);
        }
        return;
    default:
        break;
    }
    place = place_of(cpu, index);
    if (place) {
        *place = value;
    }
}

void soft_msrs_set(struct soft_cpu *cpu, const struct x86_state *state)
{
    unsigned count = MIN(state->msr_count, X86_MSR_MAX);

    reset(cpu);
    for (unsigned i = 0; i < count; i++) {
        if (state->msr[i].index == X86_MSR_TSC) {
            soft_load_tsc(cpu, state->msr[i].value);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        load(cpu, state->msr[i].index, state->msr[i].value);
    }
    soft_pvclock_update(cpu);
}
