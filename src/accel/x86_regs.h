/* SPDX-License-Identifier: MIT */
/* Bits and numbers of x86 registers (Intel SDM volumes 3 and 4), for those who read or build a
 * vCPU's state. */
#ifndef FERRY_ACCEL_X86_REGS_H
#define FERRY_ACCEL_X86_REGS_H

#define X86_CR0_PE (UINT64_C(1) << 0)
#define X86_CR0_MP (UINT64_C(1) << 1)
#define X86_CR0_EM (UINT64_C(1) << 2)
#define X86_CR0_TS (UINT64_C(1) << 3)
#define X86_CR0_ET (UINT64_C(1) << 4)
#define X86_CR0_NE (UINT64_C(1) << 5)
#define X86_CR0_WP (UINT64_C(1) << 16)
#define X86_CR0_AM (UINT64_C(1) << 18)
#define X86_CR0_NW (UINT64_C(1) << 29)
#define X86_CR0_CD (UINT64_C(1) << 30)
#define X86_CR0_PG (UINT64_C(1) << 31)

#define X86_CR4_VME        (UINT64_C(1) << 0)
#define X86_CR4_PVI        (UINT64_C(1) << 1)
#define X86_CR4_TSD        (UINT64_C(1) << 2)
#define X86_CR4_DE         (UINT64_C(1) << 3)
#define X86_CR4_PSE        (UINT64_C(1) << 4)
#define X86_CR4_PAE        (UINT64_C(1) << 5)
#define X86_CR4_MCE        (UINT64_C(1) << 6)
#define X86_CR4_PGE        (UINT64_C(1) << 7)
#define X86_CR4_PCE        (UINT64_C(1) << 8)
#define X86_CR4_OSFXSR     (UINT64_C(1) << 9)
#define X86_CR4_OSXMMEXCPT (UINT64_C(1) << 10)
#define X86_CR4_UMIP       (UINT64_C(1) << 11)
#define X86_CR4_LA57       (UINT64_C(1) << 12)
#define X86_CR4_FSGSBASE   (UINT64_C(1) << 16)
#define X86_CR4_PCIDE      (UINT64_C(1) << 17)
#define X86_CR4_OSXSAVE    (UINT64_C(1) << 18)
#define X86_CR4_SMEP       (UINT64_C(1) << 20)
#define X86_CR4_SMAP       (UINT64_C(1) << 21)

#define X86_XCR0_X87 (UINT64_C(1) << 0)
#define X86_XCR0_SSE (UINT64_C(1) << 1)
#define X86_XCR0_AVX (UINT64_C(1) << 2)

#define X86_EFER_SCE (UINT64_C(1) << 0)
#define X86_EFER_LME (UINT64_C(1) << 8)
#define X86_EFER_LMA (UINT64_C(1) << 10)
#define X86_EFER_NXE (UINT64_C(1) << 11)

#define X86_RFLAGS_CF    (UINT64_C(1) << 0)
#define X86_RFLAGS_FIXED (UINT64_C(1) << 1)
#define X86_RFLAGS_PF    (UINT64_C(1) << 2)
#define X86_RFLAGS_AF    (UINT64_C(1) << 4)
#define X86_RFLAGS_ZF    (UINT64_C(1) << 6)
#define X86_RFLAGS_SF    (UINT64_C(1) << 7)
#define X86_RFLAGS_TF    (UINT64_C(1) << 8)
#define X86_RFLAGS_IF    (UINT64_C(1) << 9)
#define X86_RFLAGS_DF    (UINT64_C(1) << 10)
#define X86_RFLAGS_OF    (UINT64_C(1) << 11)
#define X86_RFLAGS_IOPL  (UINT64_C(3) << 12)
#define X86_RFLAGS_NT    (UINT64_C(1) << 14)
#define X86_RFLAGS_RF    (UINT64_C(1) << 16)
#define X86_RFLAGS_VM    (UINT64_C(1) << 17)
#define X86_RFLAGS_AC    (UINT64_C(1) << 18)
#define X86_RFLAGS_VIF   (UINT64_C(1) << 19)
#define X86_RFLAGS_VIP   (UINT64_C(1) << 20)
#define X86_RFLAGS_ID    (UINT64_C(1) << 21)

#define X86_APIC_BASE_BSP     (UINT64_C(1) << 8)
#define X86_APIC_BASE_X2APIC  (UINT64_C(1) << 10)
#define X86_APIC_BASE_ENABLE  (UINT64_C(1) << 11)
#define X86_APIC_BASE_DEFAULT UINT64_C(0xfee00000)

/* Descriptor attributes as in struct x86_segment. */
#define X86_SEGMENT_S (1u << 4)
#define X86_SEGMENT_P (1u << 7)
#define X86_SEGMENT_L (1u << 13)
#define X86_SEGMENT_D (1u << 14)
#define X86_SEGMENT_G (1u << 15)

#define X86_MSR_TSC               0x10
#define X86_MSR_APIC_BASE         0x1b
#define X86_MSR_FEATURE_CONTROL   0x3a
#define X86_MSR_TSC_ADJUST        0x3b
#define X86_MSR_SPEC_CTRL         0x48
#define X86_MSR_SMBASE            0x9e
#define X86_MSR_MTRR_CAP          0xfe
#define X86_MSR_TSX_CTRL          0x122
#define X86_MSR_MISC_FEATURES     0x140
#define X86_MSR_SYSENTER_CS       0x174
#define X86_MSR_SYSENTER_ESP      0x175
#define X86_MSR_SYSENTER_EIP      0x176
#define X86_MSR_MCG_STATUS        0x17a
#define X86_MSR_MCG_CTL           0x17b
#define X86_MSR_MISC_ENABLE       0x1a0
#define X86_MSR_DEBUGCTL          0x1d9
#define X86_MSR_MTRR_PHYS_BASE0   0x200
#define X86_MSR_MTRR_FIX64K_00000 0x250
#define X86_MSR_MTRR_FIX16K_80000 0x258
#define X86_MSR_MTRR_FIX16K_A0000 0x259
#define X86_MSR_MTRR_FIX4K_C0000  0x268
#define X86_MSR_PAT               0x277
#define X86_MSR_MTRR_DEF_TYPE     0x2ff
#define X86_MSR_MC0_CTL           0x400
#define X86_MSR_TSC_DEADLINE      0x6e0
#define X86_MSR_X2APIC_FIRST      0x800
#define X86_MSR_X2APIC_LAST       0x8ff
#define X86_MSR_XSS               0xda0
#define X86_MSR_EFER              0xc0000080
#define X86_MSR_STAR              0xc0000081
#define X86_MSR_LSTAR             0xc0000082
#define X86_MSR_CSTAR             0xc0000083
#define X86_MSR_FMASK             0xc0000084
#define X86_MSR_FS_BASE           0xc0000100
#define X86_MSR_GS_BASE           0xc0000101
#define X86_MSR_KERNEL_GS_BASE    0xc0000102
#define X86_MSR_TSC_AUX           0xc0000103
/* KVM's paravirtual MSRs (Linux, Documentation/virt/kvm/x86/msr.rst). */
#define X86_MSR_KVM_WALL_CLOCK_OLD  0x11
#define X86_MSR_KVM_SYSTEM_TIME_OLD 0x12
#define X86_MSR_KVM_WALL_CLOCK      0x4b564d00
#define X86_MSR_KVM_SYSTEM_TIME     0x4b564d01
#define X86_MSR_KVM_ASYNC_PF_EN     0x4b564d02
#define X86_MSR_KVM_STEAL_TIME      0x4b564d03
#define X86_MSR_KVM_PV_EOI_EN       0x4b564d04
#define X86_MSR_KVM_POLL_CONTROL    0x4b564d05
#define X86_MSR_KVM_ASYNC_PF_INT    0x4b564d06
/* Hyper-V's (TLFS, appendix). */
#define X86_MSR_HV_GUEST_OS_ID 0x40000000
#define X86_MSR_HV_HYPERCALL   0x40000001
#define X86_MSR_HV_CRASH_P0    0x40000100
#define X86_MSR_HV_CRASH_CTL   0x40000105

#define X86_MTRR_VARIABLE_COUNT 8
#define X86_MCE_BANKS           10

#endif
