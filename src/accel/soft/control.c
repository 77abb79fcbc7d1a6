/* SPDX-License-Identifier: MIT */
/*
 * Writes of control and debug registers (SDM volume 3, 2.5, 4.1, 10.8.5 and 17.2; volume 2, MOV).
 *
 * All checks come before the first change. Whatever changes translations flushes the TLB; what is said to
 * be global goes, too, which the architecture allows (4.10.4.1).
 */
#include <string.h>

#include "accel/soft/system.h"
#include "accel/soft/tlb.h"
#include "base/bytes.h"
#include "base/range.h"
#include "mem/dma.h"

#define CR0_DEFINED                                                                                \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |    \
     X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
/* Which changes reach cached translations. */
#define CR0_TRANSLATION (X86_CR0_PE | X86_CR0_WP | X86_CR0_PG)
#define CR4_TRANSLATION                                                                            \
    (X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP)
/* Which changes load the PDPTEs again (4.4.1). */
#define CR0_PDPTES (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)
#define CR4_PDPTES (X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_SMEP)

#define CR3_NO_FLUSH    (UINT64_C(1) << 63) /* with PCIDE; not kept */
#define CR3_PCID        UINT64_C(0xfff)
#define CR3_PDPTES_BASE UINT64_C(0xffffffe0)
#define PDPTE_PRESENT   UINT64_C(1)
#define PDPTE_RESERVED  UINT64_C(0x1e6) /* 8:5 and 2:1; and those above the physical address */

#define TSS_TYPE_16 1u /* available; busy has bit 1, too */

#define DR6_SETTABLE UINT64_C(0xe00f)
#define DR6_ONES     UINT64_C(0xffff0ff0)
#define DR7_SETTABLE UINT64_C(0xffff23ff)
#define DR7_ONES     UINT64_C(0x400)

static _Noreturn void refuse(struct soft_cpu *cpu)
{
    soft_raise(cpu, EXC_GP, 0);
}

/* ---- what the CPU model has ------------------------------------------------------------------- */

static uint64_t cr4_allowed(const struct soft_features *f)
{
    return (f->vme ? X86_CR4_VME | X86_CR4_PVI : 0) | (f->tsc ? X86_CR4_TSD : 0) |
           (f->de ? X86_CR4_DE : 0) | (f->pse ? X86_CR4_PSE : 0) | (f->pae ? X86_CR4_PAE : 0) |
           (f->mce ? X86_CR4_MCE : 0) | (f->pge ? X86_CR4_PGE : 0) | X86_CR4_PCE |
           (f->fxsr ? X86_CR4_OSFXSR : 0) | (f->sse ? X86_CR4_OSXMMEXCPT : 0) |
           (f->umip ? X86_CR4_UMIP : 0) | (f->fsgsbase ? X86_CR4_FSGSBASE : 0) |
           (f->pcid ? X86_CR4_PCIDE : 0) | (f->xsave ? X86_CR4_OSXSAVE : 0) |
           (f->smep ? X86_CR4_SMEP : 0) | (f->smap ? X86_CR4_SMAP : 0);
}

static uint64_t efer_allowed(const struct soft_features *f)
{
    return (f->syscall ? X86_EFER_SCE : 0) | (f->long_mode ? X86_EFER_LME | X86_EFER_LMA : 0) |
           (f->nx ? X86_EFER_NXE : 0);
}

static bool is_xcr0_valid(const struct soft_features *f, uint64_t xcr0)
{
    uint64_t allowed = X86_XCR0_X87 | X86_XCR0_SSE | (f->avx ? X86_XCR0_AVX : 0);

    return xcr0 & X86_XCR0_X87 && !(xcr0 & ~allowed) &&
           (!(xcr0 & X86_XCR0_AVX) || xcr0 & X86_XCR0_SSE);
}

const char *soft_check_control(const struct soft_cpu *cpu, uint64_t cr0, uint64_t cr4,
                               uint64_t efer, uint64_t xcr0)
{
    const struct soft_features *f = cpu->features;
    bool is_long = cr0 & X86_CR0_PG && efer & X86_EFER_LME;

    if (cr0 >> 32 || (cr0 & X86_CR0_PG && !(cr0 & X86_CR0_PE)) ||
        (cr0 & X86_CR0_NW && !(cr0 & X86_CR0_CD))) {
        return "CR0";
    }
    if (cr4 & ~cr4_allowed(f) || (is_long && !(cr4 & X86_CR4_PAE)) ||
        (cr4 & X86_CR4_PCIDE && !is_long)) {
        return "CR4";
    }
    if (efer & ~efer_allowed(f) || !!(efer & X86_EFER_LMA) != is_long) {
        return "EFER";
    }
    return is_xcr0_valid(f, xcr0) ? NULL : "XCR0";
}

/* ---- CR3 -------------------------------------------------------------------------------------- */

static bool is_pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return cr0 & X86_CR0_PG && cr4 & X86_CR4_PAE && !(efer & X86_EFER_LMA);
}

bool soft_load_pdptes(struct soft_cpu *cpu, uint64_t cr3)
{
    uint64_t reserved = PDPTE_RESERVED | ~(BIT64(cpu->features->phys_bits) - 1);
    uint8_t bytes[4 * sizeof(uint64_t)];
    uint64_t pdpte[4];

    /* DMA never waits: a vCPU in the guest must not. */
    if (dma_read_ram(cpu->tlb->space, cr3 & CR3_PDPTES_BASE & cpu->tlb->phys_mask, bytes,
                     sizeof(bytes)) != MEM_OK) {
        memset(bytes, 0xff, sizeof(bytes));
    }
    for (unsigned i = 0; i < 4; i++) {
        pdpte[i] = load_le64(bytes + 8 * i);
        if (pdpte[i] & PDPTE_PRESENT && pdpte[i] & reserved) {
            return false;
        }
    }
    memcpy(cpu->pdpte, pdpte, sizeof(pdpte));
    return true;
}

void soft_write_cr3(struct soft_cpu *cpu, uint64_t value)
{
    bool has_pcid = cpu->cr4 & X86_CR4_PCIDE;
    bool keeps = has_pcid && value & CR3_NO_FLUSH;

    if (has_pcid) {
        value &= ~CR3_NO_FLUSH;
    }
    if (cpu->efer & X86_EFER_LMA && value >> cpu->features->phys_bits) {
        refuse(cpu);
    }
    if (is_pae_paging(cpu->cr0, cpu->cr4, cpu->efer) && !soft_load_pdptes(cpu, value)) {
        refuse(cpu);
    }
    cpu->cr3 = value;
    if (!has_pcid) {
        soft_tlb_flush(cpu);
        return;
    }
    soft_tlb_select(cpu, value & CR3_PCID);
    if (!keeps) {
        soft_tlb_flush_pcid(cpu, value & CR3_PCID);
    }
}

/* ---- CR0 -------------------------------------------------------------------------------------- */

/* EFER for paging switched on or off (10.8.5). */
static uint64_t switch_paging(struct soft_cpu *cpu, bool on)
{
    bool is_code_64 = cpu->seg[X86_CS].attributes & X86_SEGMENT_L;
    unsigned tss_type = cpu->seg[X86_TR].attributes & 0xf;

    if (!on) {
        if (cpu->cr4 & X86_CR4_PCIDE || (cpu->efer & X86_EFER_LMA && is_code_64)) {
            refuse(cpu);
        }
        return cpu->efer & ~X86_EFER_LMA;
    }
    if (!(cpu->efer & X86_EFER_LME)) {
        return cpu->efer;
    }
    if (!(cpu->cr4 & X86_CR4_PAE) || is_code_64 || (tss_type & ~2u) == TSS_TYPE_16) {
        refuse(cpu);
    }
    return cpu->efer | X86_EFER_LMA;
}

void soft_write_cr0(struct soft_cpu *cpu, uint64_t value)
{
    uint64_t efer = cpu->efer, changed;

    if (value >> 32 || (value & X86_CR0_PG && !(value & X86_CR0_PE)) ||
        (value & X86_CR0_NW && !(value & X86_CR0_CD))) {
        refuse(cpu);
    }
    value = (value & CR0_DEFINED) | X86_CR0_ET;
    changed = value ^ cpu->cr0;
    if (changed & X86_CR0_PG) {
        efer = switch_paging(cpu, value & X86_CR0_PG);
    }
    if (changed & CR0_PDPTES && is_pae_paging(value, cpu->cr4, efer) &&
        !soft_load_pdptes(cpu, cpu->cr3)) {
        refuse(cpu);
    }
    cpu->cr0 = value;
    cpu->efer = efer;
    if (changed & CR0_TRANSLATION) {
        soft_tlb_flush(cpu);
    }
    soft_update_mode(cpu);
}

/* ---- CR4, EFER, XCR0 ---------------------------------------------------------------------------- */

void soft_write_cr4(struct soft_cpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr4;
    bool is_long = cpu->efer & X86_EFER_LMA;

    if (value & ~cr4_allowed(cpu->features) || (is_long && !(value & X86_CR4_PAE))) {
        refuse(cpu);
    }
    if (changed & value & X86_CR4_PCIDE && (!is_long || cpu->cr3 & CR3_PCID)) {
        refuse(cpu);
    }
    if (changed & CR4_PDPTES && is_pae_paging(cpu->cr0, value, cpu->efer) &&
        !soft_load_pdptes(cpu, cpu->cr3)) {
        refuse(cpu);
    }
    cpu->cr4 = value;
    if (changed & CR4_TRANSLATION) {
        soft_tlb_flush(cpu);
    }
    soft_update_mode(cpu);
}

/* LMA follows CR0.PG and LME; what is written to it has no effect. */
void soft_write_efer(struct soft_cpu *cpu, uint64_t value)
{
    uint64_t changed;

    value = (value & ~X86_EFER_LMA) | (cpu->efer & X86_EFER_LMA);
    changed = value ^ cpu->efer;
    if (value & ~efer_allowed(cpu->features) || (changed & X86_EFER_LME && cpu->cr0 & X86_CR0_PG)) {
        refuse(cpu);
    }
    cpu->efer = value;
    if (changed & X86_EFER_NXE) {
        soft_tlb_flush(cpu);
    }
    soft_update_mode(cpu);
}

void soft_write_xcr0(struct soft_cpu *cpu, uint64_t value)
{
    if (!is_xcr0_valid(cpu->features, value)) {
        refuse(cpu);
    }
    cpu->xcr0 = value;
    soft_update_mode(cpu);
}

/* ---- debug registers ------------------------------------------------------------------------- */

/* DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE (17.2.2). */
static unsigned debug_register(struct soft_cpu *cpu, unsigned reg)
{
    if (reg != 4 && reg != 5) {
        return reg;
    }
    if (cpu->cr4 & X86_CR4_DE) {
        soft_raise_no_error(cpu, EXC_UD);
    }
    return reg + 2;
}

uint64_t soft_read_dr(struct soft_cpu *cpu, unsigned reg)
{
    reg = debug_register(cpu, reg);
    return reg == 6 ? cpu->dr6 : reg == 7 ? cpu->dr7 : cpu->dr[reg & 3];
}

void soft_write_dr(struct soft_cpu *cpu, unsigned reg, uint64_t value)
{
    reg = debug_register(cpu, reg);
    if (reg >= 6 && value >> 32) {
        refuse(cpu);
    }
    if (reg == 6) {
        cpu->dr6 = (value & DR6_SETTABLE) | DR6_ONES;
        return;
    }
    if (reg == 7) {
        cpu->dr7 = (value & DR7_SETTABLE) | DR7_ONES;
    } else {
        cpu->dr[reg & 3] = value;
    }
    /* Watched pages are flagged when they are filled. */
    soft_tlb_flush(cpu);
    soft_update_mode(cpu);
}
