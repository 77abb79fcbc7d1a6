/* SPDX-License-Identifier: MIT */
/*
 * The state of an x86 vCPU after RESET (Intel SDM volume 3, table 9-1) and its MSR list.
 *
 * The list names every MSR that a reset gives a value, so that a guest that reboots finds what it
 * found the first time. An engine skips those that it lacks, as long as their value is zero.
 */
#include "accel/x86_state.h"

#include <stddef.h>
#include <string.h>

#include "accel/x86_regs.h"
#include "base/bytes.h"
#include "base/range.h"

/* Type 3 or 11 (accessed), S, P. */
#define ATTRIBUTES_DATA 0x93u
#define ATTRIBUTES_CODE 0x9bu
#define ATTRIBUTES_LDT  0x82u
#define ATTRIBUTES_TSS  0x8bu

static const struct x86_msr msr_reset[] = {
    {X86_MSR_TSC, 0},
    {X86_MSR_TSC_ADJUST, 0},
    {X86_MSR_SPEC_CTRL, 0},
    {X86_MSR_MISC_FEATURES, 0},
    {X86_MSR_SYSENTER_CS, 0},
    {X86_MSR_SYSENTER_ESP, 0},
    {X86_MSR_SYSENTER_EIP, 0},
    {X86_MSR_MCG_STATUS, 0},
    {X86_MSR_MCG_CTL, 0},
    {X86_MSR_MISC_ENABLE, 1}, /* fast strings */
    {X86_MSR_DEBUGCTL, 0},
    {X86_MSR_MTRR_FIX64K_00000, 0},
    {X86_MSR_MTRR_FIX16K_80000, 0},
    {X86_MSR_MTRR_FIX16K_A0000, 0},
    {X86_MSR_PAT, UINT64_C(0x0007040600070406)},
    {X86_MSR_MTRR_DEF_TYPE, 0},
    {X86_MSR_TSC_DEADLINE, 0},
    {X86_MSR_XSS, 0},
    {X86_MSR_STAR, 0},
    {X86_MSR_LSTAR, 0},
    {X86_MSR_CSTAR, 0},
    {X86_MSR_FMASK, 0},
    {X86_MSR_KERNEL_GS_BASE, 0},
    {X86_MSR_TSC_AUX, 0},
    {X86_MSR_KVM_WALL_CLOCK, 0},
    {X86_MSR_KVM_SYSTEM_TIME, 0},
    {X86_MSR_KVM_ASYNC_PF_EN, 0},
    {X86_MSR_KVM_ASYNC_PF_INT, 0},
    {X86_MSR_KVM_STEAL_TIME, 0},
    {X86_MSR_KVM_PV_EOI_EN, 0},
    {X86_MSR_KVM_POLL_CONTROL, 1},
    {X86_MSR_HV_GUEST_OS_ID, 0},
    {X86_MSR_HV_HYPERCALL, 0},
};

static void add_msr(struct x86_state *state, uint32_t index, uint64_t value)
{
    if (state->msr_count < X86_MSR_MAX) {
        state->msr[state->msr_count++] = (struct x86_msr){index, value};
    }
}

static void reset_msrs(struct x86_state *state)
{
    for (size_t i = 0; i < ARRAY_SIZE(msr_reset); i++) {
        add_msr(state, msr_reset[i].index, msr_reset[i].value);
    }
    for (unsigned i = 0; i < 8; i++) {
        add_msr(state, X86_MSR_MTRR_FIX4K_C0000 + i, 0);
    }
    for (unsigned i = 0; i < 2 * X86_MTRR_VARIABLE_COUNT; i++) {
        add_msr(state, X86_MSR_MTRR_PHYS_BASE0 + i, 0);
    }
    for (unsigned i = 0; i < X86_MCE_BANKS; i++) {
        add_msr(state, X86_MSR_MC0_CTL + 4 * i, UINT64_MAX);
        for (unsigned k = 1; k < 4; k++) { /* STATUS, ADDR, MISC */
            add_msr(state, X86_MSR_MC0_CTL + 4 * i + k, 0);
        }
    }
}

static struct x86_segment segment(uint16_t selector, uint64_t base, uint32_t attributes)
{
    return (struct x86_segment){
        .selector = selector, .base = base, .limit = 0xffff, .attributes = attributes};
}

/* SDM 10.4.7.1. LINT0 of the boot processor is the exception: there comes the 8259A's interrupt,
 * as firmware leaves it (virtual wire, MultiProcessor Specification 3.6.2.2), for kernels that are
 * started without one. */
static void reset_lapic(struct x86_lapic *lapic, bool is_bsp, uint32_t apic_id)
{
    enum {
        ID = 0x20,
        VERSION = 0x30,
        DFR = 0xe0,
        SPURIOUS = 0xf0,
        LVT_CMCI = 0x2f0,
        LVT_TIMER = 0x320,
        LVT_LINT0 = 0x350,
        LVT_ERROR = 0x370
    };
    const uint32_t masked = 1u << 16, extint = 7u << 8;

    store_le32(lapic->regs + ID, apic_id << 24);
    store_le32(lapic->regs + VERSION, 0x14 | 5u << 16); /* integrated, 6 LVT entries */
    store_le32(lapic->regs + DFR, UINT32_MAX);
    store_le32(lapic->regs + SPURIOUS, 0xff);
    store_le32(lapic->regs + LVT_CMCI, masked);
    for (unsigned offset = LVT_TIMER; offset <= LVT_ERROR; offset += 0x10) {
        store_le32(lapic->regs + offset, masked);
    }
    if (is_bsp) {
        store_le32(lapic->regs + LVT_LINT0, extint);
    }
    lapic->timer_expires_ns = -1;
}

void x86_state_reset(struct x86_state *state, bool is_bsp, uint32_t apic_id)
{
    memset(state, 0, sizeof(*state));

    state->rip = 0xfff0;
    state->rflags = X86_RFLAGS_FIXED;
    state->gpr[X86_RDX] = 0x600; /* family 6; engines may put the whole signature there */

    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        state->segment[i] = segment(0, 0, ATTRIBUTES_DATA);
    }
    state->segment[X86_CS] = segment(0xf000, 0xffff0000, ATTRIBUTES_CODE);
    state->segment[X86_LDTR] = segment(0, 0, ATTRIBUTES_LDT);
    state->segment[X86_TR] = segment(0, 0, ATTRIBUTES_TSS);
    state->gdt.limit = state->idt.limit = 0xffff;

    state->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
    state->apic_base =
        X86_APIC_BASE_DEFAULT | X86_APIC_BASE_ENABLE | (is_bsp ? X86_APIC_BASE_BSP : 0);
    state->dr6 = 0xffff0ff0;
    state->dr7 = 0x400;

    /* XSAVE area: legacy region, header; state after FNINIT and MXCSR's value after RESET. XSTATE_BV
     * says that x87 and SSE are in the area. */
    state->xcr0 = 1;
    state->xsave_size = 512 + 64;
    store_le16(state->xsave + 0, 0x37f);
    store_le32(state->xsave + 24, 0x1f80);
    store_le64(state->xsave + 512, 3);

    reset_msrs(state);
    reset_lapic(&state->lapic, is_bsp, apic_id);
    state->mp_state = is_bsp ? X86_MP_RUNNABLE : X86_MP_UNINITIALIZED;
}

uint64_t *x86_state_msr(struct x86_state *state, uint32_t index)
{
    for (unsigned i = 0; i < state->msr_count; i++) {
        if (state->msr[i].index == index) {
            return &state->msr[i].value;
        }
    }
    return NULL;
}
