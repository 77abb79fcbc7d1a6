/* SPDX-License-Identifier: MIT */
/*
 * The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE, PUSHF, POPF (SDM volume 2), and what far transfers
 * and others need of it (op.h, soft_stack_*).
 *
 * Two sizes matter: the operand's (how much is pushed: op->aux, bytes) and the stack's, of SS.B, or 64
 * bits (how much of RSP counts and changes; SDM volume 1, 6.2.3). Pushes of 8 bytes in 64-bit mode
 * have handlers of their own, everything else shares the general ones.
 */
#include "accel/soft/integer.h"
#include "accel/soft/mailbox.h"
#include "accel/soft/mmu.h"

/* ---- for everybody --------------------------------------------------------------------------- */

static inline uint64_t stack_mask(const struct soft_cpu *cpu)
{
    return soft_is_64(cpu) ? UINT64_MAX : cpu->mode & SOFT_MODE_STACK32 ? UINT32_MAX : UINT16_MAX;
}

/* RSP, ESP or SP (or another register) with the value; what the stack's size leaves out stays. */
static inline uint64_t with_low(uint64_t old, uint64_t value, uint64_t mask)
{
    return mask == UINT16_MAX ? (old & ~mask) | (value & mask) : value & mask;
}

/* Operand of size bytes in SS, at an offset that is cut to the stack's size. */
static uint64_t read_at(struct soft_cpu *cpu, uint64_t offset, unsigned size)
{
    uint64_t linear = soft_segment_linear(cpu, X86_SS, offset & stack_mask(cpu), size, SOFT_READ);
    const void *p = soft_read_pointer(cpu, linear, size);
    uint64_t value = 0;

    if (!p) {
        soft_load_at(cpu, cpu->tlb->data_mmu, SOFT_ACCESS_STACK, linear, &value, size);
        return value;
    }
    return size == 2 ? soft_host_load16(p) : size == 4 ? soft_host_load32(p) : soft_host_load64(p);
}

static void write_at(struct soft_cpu *cpu, uint64_t offset, uint64_t value, unsigned size)
{
    uint64_t linear = soft_segment_linear(cpu, X86_SS, offset & stack_mask(cpu), size, SOFT_WRITE);
    void *p = soft_write_pointer(cpu, linear, size);

    if (!p) {
        soft_store_at(cpu, cpu->tlb->data_mmu, SOFT_ACCESS_STACK, linear, &value, size);
    } else if (size == 2) {
        soft_host_store16(p, (uint16_t)value);
    } else if (size == 4) {
        soft_host_store32(p, (uint32_t)value);
    } else {
        soft_host_store64(p, value);
    }
}

uint64_t soft_stack_read(struct soft_cpu *cpu, int64_t offset, unsigned size)
{
    return read_at(cpu, cpu->gpr[X86_RSP] + (uint64_t)offset, size);
}

void soft_stack_write(struct soft_cpu *cpu, int64_t offset, uint64_t value, unsigned size)
{
    write_at(cpu, cpu->gpr[X86_RSP] + (uint64_t)offset, value, size);
}

static inline uint64_t adjusted(const struct soft_cpu *cpu, int64_t bytes)
{
    uint64_t rsp = cpu->gpr[X86_RSP];

    return with_low(rsp, rsp + (uint64_t)bytes, stack_mask(cpu));
}

void soft_stack_adjust(struct soft_cpu *cpu, int64_t bytes)
{
    cpu->gpr[X86_RSP] = adjusted(cpu, bytes);
}

/* ---- registers and memory by the operand's size ------------------------------------------------ */

static uint64_t get_reg(const struct soft_cpu *cpu, uint8_t offset, unsigned size)
{
    return size == 2   ? soft_reg16(cpu, offset)
           : size == 4 ? soft_reg32(cpu, offset)
                       : soft_reg64(cpu, offset);
}

static void set_reg(struct soft_cpu *cpu, uint8_t offset, uint64_t value, unsigned size)
{
    if (size == 2) {
        soft_set_reg16(cpu, offset, (uint16_t)value);
    } else if (size == 4) {
        soft_set_reg32(cpu, offset, (uint32_t)value);
    } else {
        soft_set_reg64(cpu, offset, value);
    }
}

static void push(struct soft_cpu *cpu, const struct soft_op *op, uint64_t value)
{
    soft_sync(cpu, op);
    soft_stack_write(cpu, -(int64_t)op->aux, value, op->aux);
    soft_stack_adjust(cpu, -(int64_t)op->aux);
}

/* ---- PUSH ------------------------------------------------------------------------------------ */

/* What is pushed is read first: it may be RSP. */
SOFT_APART_HANDLER(push_r)
{
    push(cpu, op, get_reg(cpu, op->src, op->aux));
    SOFT_NEXT(cpu, op);
}
SOFT_APART_HANDLER(push_i)
{
    push(cpu, op, op->imm);
    SOFT_NEXT(cpu, op);
}
SOFT_APART_HANDLER(push_m)
{
    uint64_t linear = soft_linear(cpu, op, op->aux, SOFT_READ);

    push(cpu, op,
         op->aux == 2   ? soft_load16(cpu, op, linear)
         : op->aux == 4 ? soft_load32(cpu, op, linear)
                        : soft_load64(cpu, op, linear));
    SOFT_NEXT(cpu, op);
}

SOFT_HANDLER(push64_r)
{
    uint64_t value = soft_reg64(cpu, op->src), rsp = cpu->gpr[X86_RSP] - 8;
    SOFT_FAST_POINTER(write, rsp, 64, push_r)

    soft_host_store64(p, value);
    cpu->gpr[X86_RSP] = rsp;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(push64_i)
{
    uint64_t rsp = cpu->gpr[X86_RSP] - 8;
    SOFT_FAST_POINTER(write, rsp, 64, push_i)

    soft_host_store64(p, op->imm);
    cpu->gpr[X86_RSP] = rsp;
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(push64_m)
{
    uint64_t rsp = cpu->gpr[X86_RSP] - 8;
    const void *from = soft_read_pointer(cpu, soft_linear_64(cpu, op), 8);
    SOFT_FAST_POINTER(write, rsp, 64, push_m)

    if (__builtin_expect(!from, 0)) {
        return push_m(cpu, op);
    }
    soft_host_store64(p, soft_host_load64(from));
    cpu->gpr[X86_RSP] = rsp;
    SOFT_NEXT(cpu, op);
}

static bool is_segment(const struct soft_lower *l)
{
    const ZydisDecodedOperand *operand = soft_operand(l, 0);

    return soft_is_register(operand) &&
           ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

void soft_lower_push(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *from = soft_operand(l, 0);
    struct soft_op *op = l->op;
    bool is_fast = l->width == 8;

    if (is_segment(l)) {
        soft_lower_mov_segment(l);
        return;
    }
    op->aux = (uint16_t)l->width;
    if (soft_is_immediate(from)) {
        op->imm = from->imm.value.u;
        op->fn = is_fast ? push64_i : push_i;
    } else if (soft_is_register(from)) {
        op->src = soft_operand_reg(l, 0);
        op->fn = is_fast ? push64_r : push_r;
    } else {
        op->fn = is_fast && soft_address_kind(l) != KIND_GENERAL ? push64_m : push_m;
    }
}

/* ---- POP ------------------------------------------------------------------------------------- */

/* POP of RSP gets the value, not the sum. */
SOFT_APART_HANDLER(pop_r)
{
    uint64_t value;

    soft_sync(cpu, op);
    value = soft_stack_read(cpu, 0, op->aux);
    soft_stack_adjust(cpu, op->aux);
    set_reg(cpu, op->dst, value, op->aux);
    SOFT_NEXT(cpu, op);
}

/* An address by RSP is that after the increment: such an operand's base is the temporary slot. */
SOFT_APART_HANDLER(pop_m)
{
    uint64_t value, linear;

    soft_sync(cpu, op);
    value = soft_stack_read(cpu, 0, op->aux);
    cpu->temp[0] = adjusted(cpu, op->aux);
    linear = soft_linear(cpu, op, op->aux, SOFT_WRITE);
    if (op->aux == 2) {
        soft_store16(cpu, op, linear, (uint16_t)value);
    } else if (op->aux == 4) {
        soft_store32(cpu, op, linear, (uint32_t)value);
    } else {
        soft_store64(cpu, op, linear, value);
    }
    soft_stack_adjust(cpu, op->aux);
    SOFT_NEXT(cpu, op);
}

SOFT_HANDLER(pop64_r)
{
    uint64_t rsp = cpu->gpr[X86_RSP];
    SOFT_FAST_POINTER(read, rsp, 64, pop_r)
    uint64_t value = soft_host_load64(p);

    cpu->gpr[X86_RSP] = rsp + 8;
    soft_set_reg64(cpu, op->dst, value);
    SOFT_NEXT(cpu, op);
}

void soft_lower_pop(struct soft_lower *l, uintptr_t arg)
{
    struct soft_op *op = l->op;

    if (is_segment(l)) {
        soft_lower_mov_segment(l);
        return;
    }
    op->aux = (uint16_t)l->width;
    if (soft_is_memory(soft_operand(l, 0))) {
        if (op->base == X86_RSP) {
            op->base = SOFT_SLOT_TEMP;
        }
        op->fn = pop_m;
    } else {
        op->dst = soft_operand_reg(l, 0);
        op->fn = l->width == 8 ? pop64_r : pop_r;
    }
}

/* ---- PUSHA, POPA: not in 64-bit mode ----------------------------------------------------------- */

static void pusha(struct soft_cpu *cpu, const struct soft_op *op)
{
    for (unsigned i = 0; i < 8; i++) { /* SP is pushed as it was */
        soft_stack_write(cpu, -(int64_t)op->aux * (i + 1), get_reg(cpu, (uint8_t)(i * 8), op->aux),
                         op->aux);
    }
    soft_stack_adjust(cpu, -(int64_t)op->aux * 8);
}

static void popa(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t value[8];

    for (unsigned i = 0; i < 8; i++) {
        value[7 - i] = soft_stack_read(cpu, (int64_t)op->aux * i, op->aux);
    }
    soft_stack_adjust(cpu, op->aux * 8);
    for (unsigned i = 0; i < 8; i++) {
        if (i != X86_RSP) {
            set_reg(cpu, (uint8_t)(i * 8), value[i], op->aux);
        }
    }
}

void soft_lower_pusha(struct soft_lower *l, uintptr_t arg)
{
    l->op->aux = (uint16_t)l->width;
    soft_lower_call(l, pusha);
}

void soft_lower_popa(struct soft_lower *l, uintptr_t arg)
{
    l->op->aux = (uint16_t)l->width;
    soft_lower_call(l, popa);
}

/* ---- ENTER, LEAVE ---------------------------------------------------------------------------- */

/* src: nesting level; disp: bytes to allocate. */
static void enter(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t mask = stack_mask(cpu), rbp = cpu->gpr[X86_RBP], frame;
    int64_t size = op->aux, at = -size;

    soft_stack_write(cpu, at, get_reg(cpu, X86_RBP * 8, op->aux), op->aux);
    frame = cpu->gpr[X86_RSP] + (uint64_t)at;
    if (op->src > 0) {
        for (unsigned i = 1; i < op->src; i++) {
            uint64_t outer = read_at(cpu, rbp - (uint64_t)size * i, op->aux);

            at -= size;
            soft_stack_write(cpu, at, outer, op->aux);
        }
        at -= size;
        soft_stack_write(cpu, at, frame & mask, op->aux);
    }
    at -= op->disp;
    /* The new top has to be writable: "ENTER—Make Stack Frame", #PF and #SS. */
    soft_probe_write(cpu,
                     soft_segment_linear(cpu, X86_SS, (cpu->gpr[X86_RSP] + (uint64_t)at) & mask,
                                         op->aux, SOFT_WRITE),
                     op->aux);
    cpu->gpr[X86_RBP] = with_low(rbp, frame, mask);
    soft_stack_adjust(cpu, at);
}

void soft_lower_enter(struct soft_lower *l, uintptr_t arg)
{
    l->op->aux = (uint16_t)l->width;
    l->op->disp = (uint16_t)soft_operand(l, 0)->imm.value.u;
    l->op->src = soft_operand(l, 1)->imm.value.u & 31;
    soft_lower_call(l, enter);
}

SOFT_APART_HANDLER(leave)
{
    uint64_t mask = stack_mask(cpu), rbp = cpu->gpr[X86_RBP], value;

    soft_sync(cpu, op);
    value = read_at(cpu, rbp, op->aux);
    cpu->gpr[X86_RSP] = with_low(cpu->gpr[X86_RSP], rbp + op->aux, mask);
    set_reg(cpu, X86_RBP * 8, value, op->aux);
    SOFT_NEXT(cpu, op);
}

SOFT_HANDLER(leave64)
{
    uint64_t rbp = cpu->gpr[X86_RBP];
    SOFT_FAST_POINTER(read, rbp, 64, leave)

    cpu->gpr[X86_RBP] = soft_host_load64(p);
    cpu->gpr[X86_RSP] = rbp + 8;
    SOFT_NEXT(cpu, op);
}

void soft_lower_leave(struct soft_lower *l, uintptr_t arg)
{
    l->op->aux = (uint16_t)l->width;
    l->op->fn = l->width == 8 ? leave64 : leave;
}

/* ---- PUSHF, POPF ----------------------------------------------------------------------------- */

/* In virtual-8086 mode with IOPL below 3 these fault, or with VME have 16-bit forms that see VIF in
 * place of IF. True: such a form. */
static bool is_virtual(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (!soft_is_v86(cpu) || (cpu->rflags & X86_RFLAGS_IOPL) == X86_RFLAGS_IOPL) {
        return false;
    }
    if (!(cpu->cr4 & X86_CR4_VME) || op->aux != 2) {
        soft_raise(cpu, EXC_GP, 0);
    }
    return true;
}

SOFT_APART_HANDLER(pushf)
{
    /* VM and RF read as zero. */
    uint64_t rflags =
        (cpu->rflags & ~(X86_RFLAGS_VM | X86_RFLAGS_RF)) | soft_status_to_rflags(cpu->status);

    soft_sync(cpu, op);
    if (is_virtual(cpu, op)) {
        rflags &= ~X86_RFLAGS_IF;
        rflags |= X86_RFLAGS_IOPL | (cpu->rflags & X86_RFLAGS_VIF ? X86_RFLAGS_IF : 0);
    }
    push(cpu, op, rflags);
    SOFT_NEXT(cpu, op);
}

void soft_lower_pushf(struct soft_lower *l, uintptr_t arg)
{
    l->op->aux = (uint16_t)l->width;
    l->op->fn = pushf;
}

/* What POPF may change (SDM volume 2, "POPF", table 4-16). RF is cleared. */
static uint64_t popf_mask(const struct soft_cpu *cpu, unsigned size)
{
    uint64_t mask = X86_RFLAGS_STATUS | X86_RFLAGS_TF | X86_RFLAGS_DF | X86_RFLAGS_NT;
    unsigned iopl = (unsigned)(cpu->rflags >> 12) & 3;

    if (size > 2) {
        mask |= X86_RFLAGS_AC | X86_RFLAGS_ID | X86_RFLAGS_RF;
    }
    if (cpu->cpl <= iopl) {
        mask |= X86_RFLAGS_IF;
    }
    if (cpu->cpl == 0) {
        mask |= X86_RFLAGS_IOPL;
    }
    return mask;
}

static uint64_t popf_virtual(struct soft_cpu *cpu, uint64_t value, uint64_t old)
{
    const uint64_t mask =
        X86_RFLAGS_STATUS | X86_RFLAGS_TF | X86_RFLAGS_DF | X86_RFLAGS_NT | X86_RFLAGS_VIF;

    if (value & X86_RFLAGS_TF || (value & X86_RFLAGS_IF && old & X86_RFLAGS_VIP)) {
        soft_raise(cpu, EXC_GP, 0);
    }
    value &= ~X86_RFLAGS_VIF;
    value |= value & X86_RFLAGS_IF ? X86_RFLAGS_VIF : 0;
    return (old & ~mask) | (value & mask);
}

/*
 * Where only flags change that neither decoding nor interrupts depend on, the block goes on: that is how
 * kernels restore flags.
 */
SOFT_APART_HANDLER(popf)
{
    uint64_t old = cpu->rflags | soft_status_to_rflags(cpu->status), value, changed;

    soft_sync(cpu, op);
    if (is_virtual(cpu, op)) {
        value = popf_virtual(cpu, soft_stack_read(cpu, 0, op->aux), old);
    } else {
        uint64_t mask = popf_mask(cpu, op->aux);

        value = (old & ~mask) | (soft_stack_read(cpu, 0, op->aux) & mask & ~X86_RFLAGS_RF);
    }
    soft_stack_adjust(cpu, op->aux);
    changed = value ^ old;
    soft_set_rflags(cpu, value);
    if (changed & (X86_RFLAGS_TF | X86_RFLAGS_AC) || changed & value & X86_RFLAGS_IF) {
        if (changed & X86_RFLAGS_TF) { /* the next instruction is a block of its own */
            atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
        }
        cpu->rip = soft_next_ip(cpu, op);
        SOFT_DISPATCH(cpu);
    }
    SOFT_NEXT(cpu, op);
}

void soft_lower_popf(struct soft_lower *l, uintptr_t arg)
{
    l->op->aux = (uint16_t)l->width;
    l->op->fn = popf;
}
