/* SPDX-License-Identifier: MIT */
/*
 * What follows from the registers (flags as a word, the mode), and a vCPU's registers <-> the neutral
 * state. vCPU thread.
 */
#include <stdatomic.h>
#include <string.h>

#include "accel/cpu_model.h"
#include "accel/lapic.h"
#include "accel/soft/event.h"
#include "accel/soft/mailbox.h"
#include "accel/soft/system.h"
#include "accel/soft/tlb.h"
#include "base/log.h"
#include "base/range.h"

/* ---- RFLAGS ----------------------------------------------------------------------------------- */

#define RFLAGS_DEFINED                                                                             \
    (X86_RFLAGS_STATUS | X86_RFLAGS_FIXED | X86_RFLAGS_TF | X86_RFLAGS_IF | X86_RFLAGS_DF |        \
     X86_RFLAGS_IOPL | X86_RFLAGS_NT | X86_RFLAGS_RF | X86_RFLAGS_VM | X86_RFLAGS_AC |             \
     X86_RFLAGS_VIF | X86_RFLAGS_VIP | X86_RFLAGS_ID)
#define RFLAGS_LOW_STATUS UINT64_C(0xd5) /* SF ZF AF PF CF: AH of LAHF */
#define RFLAGS_OF_SHIFT   11
/* The flags that the mode, or the TLB in use, depends on. */
#define RFLAGS_MODE (X86_RFLAGS_TF | X86_RFLAGS_VM | X86_RFLAGS_AC)

uint64_t soft_get_rflags(const struct soft_cpu *cpu)
{
    return cpu->rflags | (cpu->status >> 8 & RFLAGS_LOW_STATUS) |
           (uint64_t)(cpu->status & SOFT_OF) << RFLAGS_OF_SHIFT;
}

void soft_set_rflags(struct soft_cpu *cpu, uint64_t rflags)
{
    uint64_t changed;

    cpu->status = (uint32_t)((rflags & RFLAGS_LOW_STATUS) | X86_RFLAGS_FIXED) << 8 |
                  (uint32_t)(rflags >> RFLAGS_OF_SHIFT & SOFT_OF);
    rflags = (rflags & RFLAGS_DEFINED & ~X86_RFLAGS_STATUS) | X86_RFLAGS_FIXED;
    changed = rflags ^ cpu->rflags;
    cpu->rflags = rflags;
    if (changed & RFLAGS_MODE) {
        soft_update_mode(cpu);
    }
    if (changed & rflags & X86_RFLAGS_IF && (cpu->window_requested || cpu->interrupt_pending)) {
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
}

/* ---- mode ------------------------------------------------------------------------------------- */

/* Type bits of a code or data segment (SDM 3.4.5.1). */
#define TYPE_CODE        0x8u
#define TYPE_EXPAND_DOWN 0x4u
#define TYPE_WRITABLE    0x2u /* code: readable */

/* No access below 4 GiB can fail, but writes by way of CS. */
static inline bool is_flat(const struct x86_segment *s, uint32_t checked, uint32_t wanted)
{
    return !s->base && s->limit == UINT32_MAX && (s->attributes & checked) == wanted;
}

static bool segments_are_flat(const struct soft_cpu *cpu)
{
    const uint32_t usable = X86_SEGMENT_UNUSABLE | X86_SEGMENT_P | X86_SEGMENT_S;
    const uint32_t good = X86_SEGMENT_P | X86_SEGMENT_S;
    const uint32_t data = usable | TYPE_CODE | TYPE_EXPAND_DOWN | TYPE_WRITABLE;
    const uint32_t code = usable | TYPE_CODE | TYPE_WRITABLE;

    return is_flat(&cpu->seg[X86_CS], code, good | TYPE_CODE | TYPE_WRITABLE) &&
           is_flat(&cpu->seg[X86_SS], data, good | TYPE_WRITABLE) &&
           is_flat(&cpu->seg[X86_DS], data, good | TYPE_WRITABLE) &&
           is_flat(&cpu->seg[X86_ES], data, good | TYPE_WRITABLE);
}

static uint32_t segment_mode(const struct soft_cpu *cpu)
{
    uint32_t code = cpu->seg[X86_CS].attributes, mode = 0;

    if (cpu->efer & X86_EFER_LMA && code & X86_SEGMENT_L) {
        return SOFT_MODE_CODE64 | SOFT_MODE_FLAT;
    }
    mode |= code & X86_SEGMENT_D ? SOFT_MODE_CODE32 : 0;
    mode |= cpu->seg[X86_SS].attributes & X86_SEGMENT_D ? SOFT_MODE_STACK32 : 0;
    if (cpu->cr0 & X86_CR0_PE && segments_are_flat(cpu)) {
        mode |= SOFT_MODE_FLAT;
    }
    return mode;
}

#define DR7_ENABLES UINT64_C(0xff)

void soft_update_tlb(struct soft_cpu *cpu)
{
    struct soft_tlb *tlb = cpu->tlb;
    bool ac = cpu->rflags & X86_RFLAGS_AC;

    if (cpu->cpl == 3) {
        tlb->data_mmu = tlb->code_mmu = SOFT_MMU_USER;
        tlb->check_alignment = ac && cpu->cr0 & X86_CR0_AM;
    } else {
        tlb->data_mmu = cpu->cr4 & X86_CR4_SMAP && !ac ? SOFT_MMU_KERNEL_SMAP : SOFT_MMU_KERNEL;
        tlb->code_mmu = SOFT_MMU_KERNEL;
        tlb->check_alignment = false;
    }
    cpu->data_tlb = tlb->check_alignment ? tlb->none : tlb->entry[tlb->data_mmu];
}

void soft_update_mode(struct soft_cpu *cpu)
{
    const uint64_t cr0 = cpu->cr0, cr4 = cpu->cr4;
    uint32_t mode = segment_mode(cpu);

    if (cr0 & X86_CR0_PE && !(cpu->rflags & X86_RFLAGS_VM)) {
        mode |= SOFT_MODE_PROTECTED;
    }
    mode |= cpu->efer & X86_EFER_LMA ? SOFT_MODE_LMA : 0;
    mode |= cr0 & X86_CR0_TS ? SOFT_MODE_TS : 0;
    mode |= cr0 & X86_CR0_EM ? SOFT_MODE_EM : 0;
    if (!(cr0 & (X86_CR0_TS | X86_CR0_EM))) {
        mode |= SOFT_MODE_FPU;
        mode |= cr4 & X86_CR4_OSFXSR ? SOFT_MODE_SSE : 0;
    }
    if (cr4 & X86_CR4_OSXSAVE && !(cr0 & X86_CR0_TS) && mode & SOFT_MODE_PROTECTED &&
        (~cpu->xcr0 & (X86_XCR0_SSE | X86_XCR0_AVX)) == 0) {
        mode |= SOFT_MODE_AVX;
    }
    if (__builtin_expect(cpu->rflags & X86_RFLAGS_TF, 0)) {
        mode |= SOFT_MODE_SINGLE;
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
    /* Breakpoints: before an instruction, or right behind its access. */
    if (__builtin_expect(log_mask & LOG_EXEC || cpu->dr7 & DR7_ENABLES, 0)) {
        mode |= SOFT_MODE_SINGLE;
    }
    cpu->mode = mode;
    cpu->simd_unmasked = (~cpu->mxcsr & 0x1f80) != 0;
    soft_update_tlb(cpu);
}

/* ---- the neutral state: get --------------------------------------------------------------------- */

#define AREA_SIZE     (512 + 64) /* legacy region and header */
#define AREA_SIZE_AVX (AREA_SIZE + 256)

static uint32_t area_size(const struct soft_cpu *cpu)
{
    return cpu->features->avx ? AREA_SIZE_AVX : AREA_SIZE;
}

static void get_registers(const struct soft_cpu *cpu, struct x86_state *s)
{
    memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
    s->rip = cpu->rip;
    s->rflags = soft_get_rflags(cpu);
    memcpy(s->segment, cpu->seg, sizeof(s->segment));
    s->gdt = cpu->gdt;
    s->idt = cpu->idt;
    s->cr0 = cpu->cr0;
    s->cr2 = cpu->cr2;
    s->cr3 = cpu->cr3;
    s->cr4 = cpu->cr4;
    s->efer = cpu->efer;
    s->xcr0 = cpu->xcr0;
    memcpy(s->dr, cpu->dr, sizeof(s->dr));
    s->dr6 = cpu->dr6;
    s->dr7 = cpu->dr7;
}

static void get_exception(const struct soft_cpu *cpu, struct x86_events *e)
{
    const struct soft_exception *from = &cpu->exception;

    if (from->pending) {
        e->exception_pending = true;
        e->exception_vector = from->vector;
        e->exception_has_error = from->has_error;
        e->exception_error = from->error;
        e->exception_has_payload = from->vector == EXC_PF || from->vector == EXC_DB;
        e->exception_payload = from->vector == EXC_PF   ? from->cr2
                               : from->vector == EXC_DB ? from->dr6
                                                        : 0;
    } else if (cpu->pending_dr6) {
        e->exception_pending = e->exception_has_payload = true;
        e->exception_vector = EXC_DB;
        e->exception_payload = cpu->pending_dr6;
    }
}

static void get_events(const struct soft_cpu *cpu, struct x86_events *e)
{
    *e = (struct x86_events){
        .interrupt_injected = cpu->interrupt_pending,
        .interrupt_vector = cpu->interrupt_vector,
        .interrupt_shadow = cpu->shadow,
        .nmi_pending = cpu->nmi_pending,
        .nmi_masked = cpu->nmi_masked,
        .sipi_vector = atomic_load(&cpu->vcpu->sipi_vector),
        .smm = cpu->smm,
        .smi_pending = cpu->smi_pending,
        .smm_inside_nmi = cpu->smm_inside_nmi,
    };
    get_exception(cpu, e);
}

static void get_lapic(const struct vcpu *vcpu, struct x86_state *s)
{
    s->mp_state = vcpu->halted ? X86_MP_HALTED : vcpu->mp_state;
    if (vcpu->lapic) {
        lapic_get_state(vcpu->lapic, &s->lapic);
        s->apic_base = lapic_base(vcpu->lapic);
        s->cr8 = lapic_tpr(vcpu->lapic) >> 4;
    }
}

bool soft_get_state(struct vcpu *vcpu, struct x86_state *s, struct error **errp)
{
    struct soft_cpu *cpu = soft_cpu_of(vcpu);

    memset(s, 0, sizeof(*s));
    get_registers(cpu, s);
    s->xsave_size = area_size(cpu);
    soft_save_area(cpu, s->xsave, s->xsave_size);
    get_lapic(vcpu, s);
    soft_msrs_get(cpu, s);
    get_events(cpu, &s->events);
    return true;
}

/* ---- set -------------------------------------------------------------------------------------- */

/* SS has the privilege in its DPL, as VMX has it. */
static unsigned cpl_of(const struct x86_state *s)
{
    if (!(s->cr0 & X86_CR0_PE)) {
        return 0;
    }
    return s->rflags & X86_RFLAGS_VM ? 3 : s->segment[X86_SS].attributes >> 5 & 3;
}

static void set_registers(struct soft_cpu *cpu, const struct x86_state *s)
{
    memcpy(cpu->gpr, s->gpr, sizeof(cpu->gpr));
    cpu->gdt = s->gdt;
    cpu->idt = s->idt;
    cpu->cr0 = s->cr0 | X86_CR0_ET;
    cpu->cr2 = s->cr2;
    cpu->cr3 = s->cr3 & (BIT64(cpu->features->phys_bits) - 1);
    cpu->cr4 = s->cr4;
    cpu->efer = s->efer;
    cpu->xcr0 = s->xcr0;
    memcpy(cpu->dr, s->dr, sizeof(cpu->dr));
    soft_set_rflags(cpu, s->rflags);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        soft_set_segment(cpu, i, &s->segment[i]);
    }
    soft_set_cpl(cpu, cpl_of(s));
    soft_write_dr(cpu, 6, (uint32_t)s->dr6);
    soft_write_dr(cpu, 7, (uint32_t)s->dr7); /* and the mode */
    cpu->rip = s->rip & soft_ip_mask(cpu);
    /* Without readable ones every access faults, as the guest deserves. */
    memset(cpu->pdpte, 0, sizeof(cpu->pdpte));
    if (s->cr0 & X86_CR0_PG && s->cr4 & X86_CR4_PAE && !(s->efer & X86_EFER_LMA)) {
        soft_load_pdptes(cpu, cpu->cr3);
    }
}

/* A software interrupt or exception that was on its way in another engine: there, too, the
 * instruction pointer is still at the instruction, which is simply run again. */
static bool is_software(const struct x86_events *e)
{
    return e->exception_vector == EXC_BP || e->exception_vector == EXC_OF;
}

static void set_exception(struct soft_cpu *cpu, const struct x86_state *s)
{
    const struct x86_events *e = &s->events;

    cpu->pending_dr6 = 0;
    cpu->exception = (struct soft_exception){.pending = false};
    if ((!e->exception_injected && !e->exception_pending) || is_software(e) ||
        e->exception_vector > 31) {
        return;
    }
    cpu->exception = (struct soft_exception){
        .pending = true,
        .vector = e->exception_vector,
        .has_error = e->exception_has_error,
        .error = e->exception_error,
        .cr2 = e->exception_has_payload ? e->exception_payload : s->cr2,
        .dr6 = e->exception_has_payload ? e->exception_payload : 0,
    };
}

static void set_events(struct soft_cpu *cpu, const struct x86_state *s)
{
    const struct x86_events *e = &s->events;

    set_exception(cpu, s);
    cpu->interrupt_pending = e->interrupt_injected && !e->interrupt_soft;
    cpu->interrupt_vector = e->interrupt_vector;
    cpu->shadow = e->interrupt_shadow & 3;
    cpu->nmi_pending = e->nmi_pending || e->nmi_injected;
    /* One that was on its way masks only those after it. */
    cpu->nmi_masked = e->nmi_masked && !e->nmi_injected;
    cpu->smm_inside_nmi = e->smm_inside_nmi;
    cpu->smi_pending = e->smi_pending;
    cpu->window_requested = false;
    /* Whatever was being delivered was the old state's. */
    cpu->delivering = cpu->delivering_ext = 0;
    atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
}

static void set_lapic(struct vcpu *vcpu, const struct x86_state *s)
{
    if (vcpu->lapic) {
        lapic_load_base(vcpu->lapic, s->apic_base);
        lapic_set_state(vcpu->lapic, &s->lapic);
    }
    vcpu->halted = s->mp_state == X86_MP_HALTED;
    vcpu->mp_state = vcpu->halted ? X86_MP_RUNNABLE : s->mp_state;
}

bool soft_set_state(struct vcpu *vcpu, const struct x86_state *s, struct error **errp)
{
    struct soft_cpu *cpu = soft_cpu_of(vcpu);
    const char *misfit = soft_check_control(cpu, s->cr0, s->cr4, s->efer, s->xcr0);

    if (misfit) {
        error_set(errp, "vCPU %u: the CPU model '%s' cannot have this value of %s", vcpu->index,
                  cpu_model_name(vcpu->model), misfit);
        return false;
    }
    cpu->smm = s->events.smm;
    soft_tlb_flush(cpu); /* what set_registers() reads of memory depends on it */
    set_registers(cpu, s);
    soft_load_area(cpu, s->xsave, MIN(s->xsave_size, (uint32_t)sizeof(s->xsave)));
    /* The deadline MSR needs the LAPIC's timer mode and the TSC. */
    set_lapic(vcpu, s);
    /* Others that hold all vCPUs look at the clock of this one (time.c). */
    soft_guest_enter(cpu);
    soft_msrs_set(cpu, s);
    soft_guest_leave(cpu);
    set_events(cpu, s);
    soft_tlb_flush(cpu);
    soft_update_mode(cpu);
    return true;
}
