/* SPDX-License-Identifier: MIT */
/*
 * The soft CPU: x86-64 in software, for hosts without usable KVM. This header has its state; only
 * files of soft/ include it. docs/cpu.md tells the whole story.
 *
 *      guest bytes --decode.c, lower_*.c--> blocks of struct soft_op --run.c--> handlers (op_*.c)
 *                        Zydis                 code.c keeps them          |
 *                                                                         v
 *      memory: tlb.h (fast path: a compare and an add) --miss--> tlb.c --> walk.c, mem/
 *      faults: soft_raise() --longjmp--> run.c --> event.c delivers them as the guest's IDT says
 *
 * The handlers run on x86-64 hosts and let the host's own ALU, x87 and vector units compute results
 * and flags. A vCPU's state belongs to its thread. Others reach it by the mailbox only (mailbox.h).
 */
#ifndef FERRY_ACCEL_SOFT_SOFT_H
#define FERRY_ACCEL_SOFT_SOFT_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "accel/accel.h"
#include "accel/vcpu.h"
#include "accel/x86_regs.h"
#include "accel/x86_state.h"

struct soft_block;
struct soft_code;
struct soft_cpu;
struct soft_op;

/* ---- status flags ---------------------------------------------------------------------------- */

/*
 * CF PF AF ZF SF OF as `lahf; seto %al` leaves them in AX: AH is the low byte of EFLAGS (bit 1 is
 * one), AL is OF. They are always up to date: no lazy evaluation. Every other bit of RFLAGS is in
 * soft_cpu.rflags, where the six are zero.
 */
#define SOFT_OF 0x0001u
#define SOFT_CF 0x0100u
#define SOFT_PF 0x0400u
#define SOFT_AF 0x1000u
#define SOFT_ZF 0x4000u
#define SOFT_SF 0x8000u

#define X86_RFLAGS_STATUS UINT64_C(0x8d5) /* OF SF ZF AF PF CF */

/* ---- mode ------------------------------------------------------------------------------------ */

/*
 * What decoding depends on, and thus part of a block's key. soft_update_mode() computes it from the
 * registers; whoever changes one of CR0, CR4, EFER, XCR0, CS, SS, DS, ES, RFLAGS.TF/VM/AC, CPL, DR7 calls it.
 */
enum soft_mode {
    SOFT_MODE_CODE32 = 1 << 0,  /* CS.D = 1, or */
    SOFT_MODE_CODE64 = 1 << 1,  /* 64-bit mode; neither: 16 bits */
    SOFT_MODE_STACK32 = 1 << 2, /* SS.B = 1 (not in 64-bit mode) */
    SOFT_MODE_FLAT = 1 << 3, /* ES CS SS DS: base 0, limit 4 GiB, no check can fail; 64-bit mode */
    SOFT_MODE_PROTECTED = 1 << 4, /* CR0.PE and not virtual-8086 */
    SOFT_MODE_FPU = 1 << 5,       /* x87 and MMX instructions may run: CR0.EM = TS = 0 */
    SOFT_MODE_SSE = 1 << 6,       /* CR0.EM = 0, TS = 0, CR4.OSFXSR = 1 */
    SOFT_MODE_AVX = 1 << 7,       /* CR4.OSXSAVE, XCR0[2:1] = 3, TS = 0, protected mode */
    SOFT_MODE_SINGLE = 1 << 8, /* blocks of one instruction: TF, a shadow, breakpoints, -d exec */
    SOFT_MODE_LMA = 1 << 9,    /* EFER.LMA: IA-32e, 64-bit or compatibility */
    SOFT_MODE_TS = 1 << 10,    /* CR0.TS: what is missing above is #NM rather than #UD */
    SOFT_MODE_EM = 1 << 11,    /* CR0.EM */
};

/* ---- registers ------------------------------------------------------------------------------- */

/*
 * The first part of struct soft_cpu is an array of 64-bit slots. An operand of a pre-decoded
 * operation is a byte offset into it (0 to 255): slot * 8, plus 1 for AH, CH, DH, BH.
 */
enum soft_slot {
    /* 0 to 15: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8…R15 (enum x86_gpr) */
    SOFT_SLOT_ZERO = 16,      /* always 0: the absent base, index or segment base */
    SOFT_SLOT_PAGE_IP = 17,   /* IP of the first byte of the code's page: RIP-relative addresses */
    SOFT_SLOT_SEG = 18,       /* 18 to 23: bases of ES, CS, SS, DS, FS, GS as loaded */
    SOFT_SLOT_TEMP = 24,      /* for the handlers of one operation; nothing is kept in it */
    SOFT_SLOT_PAGE_WRAP = 26, /* always SOFT_PAGE_WRAP: RIP-relative displacements that overflow */
    SOFT_SLOT_COUNT = 27,
};

#define SOFT_PAGE_WRAP 8192

#define SOFT_TLB_CONTEXTS                                                                          \
    8u /* PCIDs whose translations a vCPU keeps; Linux uses 6, or 12 with PTI */

struct soft_vec { /* an YMM register; XMM is its low half. Little endian. */
    union {
        uint8_t b[32];
        uint16_t w[16];
        uint32_t d[8];
        uint64_t q[4];
        float s[8];
        double f[4];
    };
} __attribute__((aligned(32)));

struct soft_x87 { /* SDM volume 1, 8.1 */
    /* Physical registers R0 to R7; 80-bit values in 16-byte slots. ST(i) is reg[(top + i) & 7];
     * MMi is the low 64 bits of reg[i], whose upper 16 an MMX instruction sets to ones. */
    union {
        uint8_t b[16];
        uint64_t q[2];
    } reg[8] __attribute__((aligned(16)));
    uint16_t control; /* as the guest loaded it (bit 6 reads as one) */
    uint16_t status;  /* without TOP, B and ES, which are computed */
    uint8_t top;      /* 0 to 7 */
    uint8_t used;     /* bit i: R_i is not empty (the abridged tag word of FXSAVE) */
    uint16_t opcode;  /* FOP, 11 bits */
    uint64_t ip, dp;  /* FIP, FDP */
    uint16_t ip_selector, dp_selector;
};

/* An exception on its way: raised by soft_raise(), delivered by run.c. */
struct soft_exception {
    bool pending;
    bool has_error;
    uint8_t vector;
    uint32_t error;
    uint64_t cr2;     /* #PF: linear address; event.c writes it to CR2 */
    uint64_t dr6;     /* #DB: bits to set */
    bool is_software; /* INT3, INTO: a trap of an instruction (checks DPL) */
};

struct soft_cpu {
    /* ---- vCPU thread: registers ---- */
    union {
        uint64_t slot[SOFT_SLOT_COUNT];
        struct {
            uint64_t gpr[X86_GPR_COUNT];
            uint64_t zero, page_ip;
            uint64_t
                seg_base[6]; /* same as seg[].base; in 64-bit mode ES CS SS DS count as 0: decoding
                                   * uses SOFT_SLOT_ZERO for them */
            uint64_t temp[2];
            uint64_t page_wrap;
        };
    };
    uint32_t status; /* SOFT_CF … */
    uint32_t mode;   /* enum soft_mode */
    /* Offset in CS of the next instruction to run, zero-extended by code size. True at block
     * boundaries and in slow handlers (soft_sync()); within blocks op->offset tells. */
    uint64_t rip;
    uint64_t next_ip; /* slow handlers: where to go on; a jump changes it (op.h) */
    uint64_t rflags;  /* without the status flags; bit 1 is one */
    unsigned cpl;     /* 0 to 3; 0 in real mode, 3 in virtual-8086 mode */

    /* ---- vCPU thread: what the fast paths use ---- */
    struct soft_tlb_entry *data_tlb; /* of the present privilege (tlb.h) */
    /* Non-zero: leave the chain of blocks at the next boundary. Also set by others (atomic). */
    _Atomic(uint32_t) exit_request;
    uint64_t instructions; /* retired, counted by block */

    /* ---- vCPU thread: system registers (SDM volume 3, chapter 2) ---- */
    struct x86_segment seg[X86_SEGMENT_COUNT]; /* change by soft_set_segment() only */
    struct x86_table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0, xss;
    uint64_t dr[4], dr6, dr7;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t star, lstar, cstar, fmask, kernel_gs_base, tsc_aux;
    int64_t tsc_offset;     /* guest TSC = virtual ns scaled + this */
    struct soft_msrs *msrs; /* those without a field (msr.c) */
    uint64_t pdpte[4];      /* PAE paging: as CR3 was loaded (SDM 4.4.1) */

    /* ---- vCPU thread: x87, SSE, AVX ---- */
    struct soft_x87 x87;
    struct soft_vec vec[16];
    uint32_t
        mxcsr; /* as the guest sees it, but for flags that the host's register has gathered since
                     * the last soft_simd_sync() (simd.h) */
    bool simd_unmasked; /* mxcsr unmasks an exception: operations are checked one by one */

    /* ---- vCPU thread: events ---- */
    struct soft_exception exception;
    /* The event that is being delivered, so that a fault within becomes what SDM table 6-5 says
     * (event.c); 0: none. */
    uint8_t delivering, delivering_vector;
    uint8_t delivering_ext; /* EXT bit of error codes meanwhile (SDM volume 3, 6.13) */
    uint8_t shadow;         /* X86 interrupt shadow for the next instruction: 1 MOV SS, 2 STI */
    uint64_t pending_dr6;   /* #DB traps for the next boundary: DR6 bits */
    bool interrupt_pending; /* injected by the loop, to be delivered at the next entry */
    uint8_t interrupt_vector;
    bool nmi_pending, nmi_masked;
    bool smm, smi_pending;
    bool smm_inside_nmi; /* the SMI came while NMIs were masked; RSM masks them again */
    uint32_t smbase;
    bool window_requested; /* exit as soon as an interrupt could be taken */
    bool stepped_over;     /* the instruction lets TF cause no trap: INT n, and the like */
    bool leave;            /* vcpu_run returns; vcpu->exit says why */
    jmp_buf env;           /* soft_raise() goes there */

    /* ---- vCPU thread: parts with files of their own ---- */
    struct soft_tlb *tlb; /* tlb.h; of the present PCID: one of */
    struct soft_tlb *contexts[SOFT_TLB_CONTEXTS];
    uint64_t tlb_selections;
    struct soft_code *code; /* code.h */
    uint8_t scratch[64];    /* operands that have no host address (op.h, soft_rmw) */
    const struct soft_features *features;

    /* ---- constant ---- */
    struct vcpu *vcpu;
    struct soft_accel *soft;
    unsigned index;

    /* ---- mailbox: see mailbox.h ---- */
    struct soft_mailbox *mailbox;
};

/* What the CPU model offers, as questions that decoding asks (features.c, from CPUID). */
struct soft_features {
    bool x87, mmx, fxsr, sse, sse2, sse3, ssse3, sse4_1, sse4_2, popcnt, cx8, cx16, cmov, sep,
        syscall, lahf_lm, movbe, aes, pclmul, xsave, xsaveopt, xsavec, xgetbv1, xsaves, avx, avx2,
        f16c, fma, bmi1, bmi2, lzcnt, adx, rdrand, rdseed, fsgsbase, rdtscp, rdpid, sha, clflushopt,
        clwb, invpcid, pcid, smep, smap, umip, nx, pdpe1gb, pse, pae, pge, pat, mtrr, prefetchw,
        sse4a, la57, clzero, long_mode, x2apic, tsc_deadline, vme, de, apic, monitor, erms, tsc,
        msr, mce, mca, tsc_adjust, clflush;
    unsigned phys_bits, linear_bits;
    uint32_t kvm;    /* KVM's paravirtual features (leaf 0x40000001 EAX) */
    bool kvm_leaves; /* a KVM guest may call its hypervisor */
    bool is_intel;   /* the vendor's differences: SYSCALL in compatibility mode, far pointers… */
};

/* The VM. */
struct soft_accel {
    struct accel accel;
    /* constant */
    unsigned count_max;
    uint64_t code_bytes; /* most of one vCPU's blocks */
    uint64_t tsc_hz;     /* of every vCPU's TSC, from virtual time */
    /* atomic: TSCs (time.c). After RESET all vCPUs count from the same instant. */
    _Atomic(int64_t) tsc_offset; /* that all of them have */
    _Atomic(uint64_t) tsc_reset; /* bit i: vCPU i has had the present one from RESET */
    _Atomic(bool) tsc_differs;   /* but one has another: a guest wrote it */
    _Atomic(bool) a20_closed;    /* vCPUs look at it when they flush their TLBs */
};

extern const struct accel_ops soft_ops;

static inline struct soft_cpu *soft_cpu_of(const struct vcpu *vcpu)
{
    return vcpu->engine;
}

/* ---- faults (run.c) -------------------------------------------------------------------------- */

/*
 * Give up the present instruction: longjmp to the run loop, which delivers the exception. cpu->rip
 * must be that of the instruction (soft_sync() in op.h), nothing of it may have been committed.
 */
_Noreturn void soft_raise(struct soft_cpu *cpu, uint8_t vector, uint32_t error);
_Noreturn void soft_raise_no_error(struct soft_cpu *cpu, uint8_t vector);
_Noreturn void soft_raise_page_fault(struct soft_cpu *cpu, uint64_t linear, uint32_t error);
/* #DB as a fault (DR7 instruction breakpoint, GD) or trap: dr6 bits to set. */
_Noreturn void soft_raise_debug(struct soft_cpu *cpu, uint64_t dr6);

enum soft_vector {
    EXC_DE = 0,
    EXC_DB = 1,
    EXC_NMI = 2,
    EXC_BP = 3,
    EXC_OF = 4,
    EXC_BR = 5,
    EXC_UD = 6,
    EXC_NM = 7,
    EXC_DF = 8,
    EXC_TS = 10,
    EXC_NP = 11,
    EXC_SS = 12,
    EXC_GP = 13,
    EXC_PF = 14,
    EXC_MF = 16,
    EXC_AC = 17,
    EXC_MC = 18,
    EXC_XM = 19,
};

/* ---- registers (state.c, segment.c) ---------------------------------------------------------- */

uint64_t soft_get_rflags(const struct soft_cpu *cpu);
/* Sets all bits as given (callers keep what their instruction may not change); updates the mode. */
void soft_set_rflags(struct soft_cpu *cpu, uint64_t rflags);
/* Mode bits, privilege's TLB, host's control words, after a change of what they depend on. */
void soft_update_mode(struct soft_cpu *cpu);
/* Loads the hidden part; keeps seg_base, cpl and the mode in step. */
void soft_set_segment(struct soft_cpu *cpu, enum x86_segment_register reg,
                      const struct x86_segment *segment);

static inline bool soft_is_real(const struct soft_cpu *cpu)
{
    return !(cpu->cr0 & X86_CR0_PE);
}
static inline bool soft_is_v86(const struct soft_cpu *cpu)
{
    return cpu->rflags & X86_RFLAGS_VM;
}
static inline bool soft_is_protected(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_PROTECTED;
}
static inline bool soft_is_long(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_LMA;
}
static inline bool soft_is_64(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_CODE64;
}
static inline bool soft_is_canonical(const struct soft_cpu *cpu, uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear; /* 48 bits: LA57 is not offered */
}

/* run.c: accel_ops.vcpu_run. */
void soft_vcpu_run(struct vcpu *vcpu);

bool soft_get_state(struct vcpu *vcpu, struct x86_state *state, struct error **errp);
bool soft_set_state(struct vcpu *vcpu, const struct x86_state *state, struct error **errp);

#endif
