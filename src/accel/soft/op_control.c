/* SPDX-License-Identifier: MIT */
/* Handlers of control and debug registers, descriptor-table registers, TLB invalidation, XCR0 (SDM
 * volume 2, by instruction). */
#include "accel/lapic.h"
#include "accel/soft/op_system.h"
#include "accel/soft/system.h"
#include "base/bytes.h"

#define DR6_BD    (UINT64_C(1) << 13)
#define DR7_GD    (UINT64_C(1) << 13)
#define LMSW_BITS (X86_CR0_MP | X86_CR0_EM | X86_CR0_TS)

/* #GP(0) under UMIP outside of CPL 0. */
static void check_umip(struct soft_cpu *cpu)
{
    if (cpu->cr4 & X86_CR4_UMIP) {
        soft_require_cpl0(cpu);
    }
}

/* A register operand of control register moves: 64 bits in 64-bit mode, 32 elsewhere. */
static uint64_t whole_register(const struct soft_cpu *cpu, uint8_t offset)
{
    return soft_is_64(cpu) ? soft_reg64(cpu, offset) : soft_reg32(cpu, offset);
}

static void set_whole_register(struct soft_cpu *cpu, uint8_t offset, uint64_t value)
{
    soft_set_reg64(cpu, offset, soft_is_64(cpu) ? value : (uint32_t)value);
}

/* ---- MOV with CRn and DRn ---------------------------------------------------------------------- */

static uint64_t read_cr(const struct soft_cpu *cpu, unsigned reg)
{
    switch (reg) {
    case 0:
        return cpu->cr0;
    case 2:
        return cpu->cr2;
    case 3:
        return cpu->cr3;
    case 4:
        return cpu->cr4;
    default: /* 8 */
        return cpu->vcpu->lapic ? lapic_tpr(cpu->vcpu->lapic) >> 4 : 0;
    }
}

static void write_cr8(struct soft_cpu *cpu, uint64_t value)
{
    if (value > 15) {
        soft_raise(cpu, EXC_GP, 0);
    }
    if (cpu->vcpu->lapic) {
        lapic_set_tpr(cpu->vcpu->lapic, (uint8_t)(value << 4));
        soft_lapic_written(cpu);
    }
}

void soft_mov_from_cr(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_require_cpl0(cpu);
    set_whole_register(cpu, op->dst, read_cr(cpu, op->aux));
}

void soft_mov_to_cr(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value = whole_register(cpu, op->dst);

    soft_require_cpl0(cpu);
    switch (op->aux) {
    case 0:
        soft_write_cr0(cpu, value);
        break;
    case 2:
        cpu->cr2 = value;
        break;
    case 3:
        soft_write_cr3(cpu, value);
        break;
    case 4:
        soft_write_cr4(cpu, value);
        break;
    default:
        write_cr8(cpu, value);
        break;
    }
}

/* #UD for DR4 and DR5 comes first, then privilege, then GD (17.2.4). */
static void check_debug(struct soft_cpu *cpu, unsigned reg)
{
    if ((reg == 4 || reg == 5) && cpu->cr4 & X86_CR4_DE) {
        soft_raise_no_error(cpu, EXC_UD);
    }
    soft_require_cpl0(cpu);
    if (cpu->dr7 & DR7_GD) {
        soft_raise_debug(cpu, DR6_BD);
    }
}

void soft_mov_from_dr(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_debug(cpu, op->aux);
    set_whole_register(cpu, op->dst, soft_read_dr(cpu, op->aux));
}

void soft_mov_to_dr(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_debug(cpu, op->aux);
    soft_write_dr(cpu, op->aux, whole_register(cpu, op->dst));
}

/* ---- CLTS, LMSW, SMSW -------------------------------------------------------------------------- */

void soft_clts(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_require_cpl0(cpu);
    cpu->cr0 &= ~X86_CR0_TS;
    soft_update_mode(cpu);
}

/* LMSW sets PE but does not clear it. */
static void load_msw(struct soft_cpu *cpu, uint16_t value)
{
    uint64_t keep = cpu->cr0 & ~LMSW_BITS;

    soft_write_cr0(cpu, keep | (value & (LMSW_BITS | X86_CR0_PE)));
}

void soft_lmsw_register(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_require_cpl0(cpu);
    load_msw(cpu, soft_reg16(cpu, op->dst));
}

void soft_lmsw_memory(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_require_cpl0(cpu);
    load_msw(cpu, soft_load16(cpu, op, soft_linear(cpu, op, 2, SOFT_READ)));
}

void soft_smsw_register(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_umip(cpu);
    if (op->aux == 2) {
        soft_set_reg16(cpu, op->dst, (uint16_t)cpu->cr0);
    } else {
        soft_set_reg64(cpu, op->dst, cpu->cr0);
    }
}

void soft_smsw_memory(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_umip(cpu);
    soft_store16(cpu, op, soft_linear(cpu, op, 2, SOFT_WRITE), (uint16_t)cpu->cr0);
}

/* ---- LGDT, LIDT, SGDT, SIDT --------------------------------------------------------------------- */

static struct x86_table *table_of(struct soft_cpu *cpu, const struct soft_op *op)
{
    return op->dst ? &cpu->idt : &cpu->gdt;
}

static unsigned table_size(const struct soft_cpu *cpu)
{
    return soft_is_64(cpu) ? 10 : 6;
}

void soft_load_table(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned size = table_size(cpu);
    uint8_t bytes[10] = {0};
    uint64_t base;

    soft_require_cpl0(cpu);
    soft_load_bytes(cpu, op, soft_linear(cpu, op, size, SOFT_READ), bytes, size);
    base = load_le64(bytes + 2);
    if (op->aux == 2 && !soft_is_64(cpu)) {
        base &= 0xffffff; /* 16-bit operand size: 24 bits */
    }
    if (!soft_is_canonical(cpu, base)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    *table_of(cpu, op) = (struct x86_table){.base = base, .limit = load_le16(bytes)};
}

void soft_store_table(struct soft_cpu *cpu, const struct soft_op *op)
{
    const struct x86_table *table = table_of(cpu, op);
    unsigned size = table_size(cpu);
    uint8_t bytes[10];

    check_umip(cpu);
    store_le16(bytes, table->limit);
    store_le64(bytes + 2, table->base);
    soft_store_bytes(cpu, op, soft_linear(cpu, op, size, SOFT_WRITE), bytes, size);
}

/* ---- translations and caches -------------------------------------------------------------------- */

/* No access: neither limit nor canonical form is checked; what is not canonical is in no TLB. */
void soft_invlpg(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = soft_effective(cpu, op);

    soft_require_cpl0(cpu);
    if (op->info & SOFT_OP_ADDR16) {
        linear = (uint16_t)linear;
    } else if (op->info & SOFT_OP_ADDR32) {
        linear = (uint32_t)linear;
    }
    linear += cpu->slot[op->seg];
    soft_tlb_flush_page(cpu, soft_is_64(cpu) ? linear : (uint32_t)linear);
}

void soft_invpcid(struct soft_cpu *cpu, const struct soft_op *op)
{
    enum { ADDRESS, CONTEXT, ALL_WITH_GLOBAL, ALL };
    uint64_t type = whole_register(cpu, op->dst);
    uint64_t pcid, linear;
    uint8_t bytes[16];

    soft_require_cpl0(cpu);
    soft_load_bytes(cpu, op, soft_linear(cpu, op, sizeof(bytes), SOFT_READ), bytes, sizeof(bytes));
    pcid = load_le64(bytes);
    linear = load_le64(bytes + 8);
    if (type > ALL || pcid >> 12 || (type <= CONTEXT && pcid && !(cpu->cr4 & X86_CR4_PCIDE)) ||
        (type == ADDRESS && !soft_is_canonical(cpu, linear))) {
        soft_raise(cpu, EXC_GP, 0);
    }
    if (type == ADDRESS) {
        soft_tlb_flush_page(cpu, linear);
    } else if (type == CONTEXT) {
        soft_tlb_flush_pcid(cpu, (unsigned)pcid);
    } else {
        soft_tlb_flush(cpu);
    }
}

/* INVD and WBINVD (WBNOINVD is decoded as that): there is no cache. */
void soft_privileged_nothing(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_require_cpl0(cpu);
}

/* ---- XCR0 -------------------------------------------------------------------------------------- */

static void check_osxsave(struct soft_cpu *cpu)
{
    if (!(cpu->cr4 & X86_CR4_OSXSAVE)) {
        soft_raise_no_error(cpu, EXC_UD);
    }
}

/* SDM volume 1, 13.6: x87 may always be said to be in use. */
static uint64_t components_in_use(const struct soft_cpu *cpu)
{
    uint64_t low = 0, high = 0;

    for (unsigned i = 0; i < 16; i++) {
        low |= cpu->vec[i].q[0] | cpu->vec[i].q[1];
        high |= cpu->vec[i].q[2] | cpu->vec[i].q[3];
    }
    return X86_XCR0_X87 | (low ? X86_XCR0_SSE : 0) | (high ? X86_XCR0_AVX : 0);
}

void soft_xgetbv(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t reg = (uint32_t)cpu->gpr[X86_RCX];
    uint64_t value = cpu->xcr0;

    check_osxsave(cpu);
    if (reg > 1 || (reg == 1 && !cpu->features->xgetbv1)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    if (reg == 1) {
        value &= components_in_use(cpu);
    }
    cpu->gpr[X86_RAX] = (uint32_t)value;
    cpu->gpr[X86_RDX] = value >> 32;
}

void soft_xsetbv(struct soft_cpu *cpu, const struct soft_op *op)
{
    check_osxsave(cpu);
    soft_require_cpl0(cpu);
    if ((uint32_t)cpu->gpr[X86_RCX] != 0) {
        soft_raise(cpu, EXC_GP, 0);
    }
    soft_write_xcr0(cpu, cpu->gpr[X86_RDX] << 32 | (uint32_t)cpu->gpr[X86_RAX]);
}
