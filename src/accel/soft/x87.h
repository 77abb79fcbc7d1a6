/* SPDX-License-Identifier: MIT */
/*
 * The x87 unit (SDM volume 1, chapter 8). The host's x87 computes, in one of two ways:
 *
 *      op_x87.c   frequent instructions, while every exception is masked and the registers they use
 *                 are as they should be: operands are pushed, the host operates, flags are merged
 *      x87.c      everything else: the whole guest unit is put into the host's (FRSTOR), the guest's
 *                 own instruction runs there, and the whole unit is taken back (FNSAVE). So stack
 *                 faults, unmasked exceptions, biased results and C0 to C3 are the hardware's.
 *
 * Invariants, outside of these functions:
 *  1. The host's unit is empty, with control word 0x37f (the process's default): the C library and
 *     the handlers of other units never see the guest's.
 *  2. cpu->x87.status has the flags and C0 to C3 only; ES, B and TOP are computed.
 *  3. The host never raises #MF: FNSAVE does not wait, and it leaves an initialised unit.
 *
 * vCPU thread.
 */
#ifndef FERRY_ACCEL_SOFT_X87_H
#define FERRY_ACCEL_SOFT_X87_H

#include "accel/soft/op.h"

enum soft_x87_bits {
    /* status word; the low six are the masks of the control word, too */
    X87_IE = 1 << 0,
    X87_DE = 1 << 1,
    X87_ZE = 1 << 2,
    X87_OE = 1 << 3,
    X87_UE = 1 << 4,
    X87_PE = 1 << 5,
    X87_SF = 1 << 6,
    X87_ES = 1 << 7,
    X87_C0 = 1 << 8,
    X87_C1 = 1 << 9,
    X87_C2 = 1 << 10,
    X87_C3 = 1 << 14,
    X87_B = 1 << 15,
    X87_EXCEPTIONS = 0x3f,
    X87_STATUS = X87_EXCEPTIONS | X87_SF | X87_C0 | X87_C1 | X87_C2 | X87_C3, /* what is kept */
    X87_TOP_SHIFT = 11,

    X87_CONTROL_KEPT = 0x1f3f, /* bits of the control word that can be changed */
    X87_CONTROL_ONE = 0x40,    /* and the one that is always set */
    X87_CONTROL_INIT = 0x37f,
};

/* ---- for other families ----------------------------------------------------------------------- */

/* Exceptions that the next waiting instruction reports (SDM volume 1, 8.7). */
static inline unsigned soft_x87_pending(const struct soft_cpu *cpu)
{
    return cpu->x87.status & ~cpu->x87.control & X87_EXCEPTIONS;
}
/* The status word as the guest sees it. */
static inline uint16_t soft_x87_status(const struct soft_cpu *cpu)
{
    return (uint16_t)(cpu->x87.status | cpu->x87.top << X87_TOP_SHIFT |
                      (soft_x87_pending(cpu) ? X87_ES | X87_B : 0));
}
static inline void soft_x87_set_status(struct soft_cpu *cpu, uint16_t status)
{
    cpu->x87.status = status & X87_STATUS;
    cpu->x87.top = status >> X87_TOP_SHIFT & 7;
}
static inline void soft_x87_set_control(struct soft_cpu *cpu, uint16_t control)
{
    cpu->x87.control = (control & X87_CONTROL_KEPT) | X87_CONTROL_ONE;
}
/* FNINIT (SDM volume 2): the registers' contents stay, but all are empty. */
void soft_x87_init(struct soft_cpu *cpu);

/*
 * What every waiting x87 instruction, WAIT/FWAIT and every MMX instruction begins with (SDM volume 1,
 * 8.6 and 8.7; volume 3, 2.5, CR0.NE): raises #MF, with op as the faulting instruction, if an earlier
 * instruction left an unmasked exception pending. Nothing changes.
 *
 * CR0.NE = 0 asks for the way of the PC/AT: FERR# to IRQ 13 by external logic, frozen until IGNNE#.
 * FERR# is not wired on ferry's machines, so #MF is raised then, too.
 */
static inline void soft_x87_wait(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (__builtin_expect(soft_x87_pending(cpu) != 0, 0)) {
        soft_op_raise_no_error(cpu, op, EXC_MF);
    }
}

/* ---- within the family ------------------------------------------------------------------------ */

/*
 * How lowering fills an operation of an instruction that is no control instruction:
 *      aux     FOP: the low 3 bits of the first opcode byte, then ModR/M
 *      dst     size of the memory operand in bytes, 0: none
 *      src     enum soft_x87_memory; or i of ST(i)
 */
enum soft_x87_memory { X87_LOAD, X87_STORE };

/* Carries out any of them (x87.c). */
void soft_x87_generic(struct soft_cpu *cpu, const struct soft_op *op);
soft_op_fn soft_op_x87_generic;
/* A faster handler for it, or NULL; may fill op->imm (op_x87.c). */
soft_op_fn *soft_x87_fast(struct soft_op *op, bool is_memory);

/* FIP, FCS, FOP, and FDP and FDS if there is a memory operand (SDM volume 1, 8.1.8): commits. */
static inline void soft_x87_note(struct soft_cpu *cpu, const struct soft_op *op)
{
    cpu->x87.ip = (cpu->page_ip + op->offset) & soft_ip_mask(cpu);
    cpu->x87.ip_selector = cpu->seg[X86_CS].selector;
    cpu->x87.opcode = op->aux;
}
static inline void soft_x87_note_memory(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t offset = soft_effective(cpu, op);

    cpu->x87.dp = op->info & SOFT_OP_ADDR16   ? (uint16_t)offset
                  : op->info & SOFT_OP_ADDR32 ? (uint32_t)offset
                                              : offset;
    cpu->x87.dp_selector = cpu->seg[op->info & SOFT_OP_SEGMENT].selector;
    soft_x87_note(cpu, op);
}

/* Control instructions (x87_env.c). FNSTENV, FLDENV, FNSAVE, FRSTOR: op->dst is the image's size,
 * which tells its form. */
soft_slow_fn soft_x87_fwait, soft_x87_fninit, soft_x87_fnclex, soft_x87_fldcw, soft_x87_fnstcw,
    soft_x87_fnstsw, soft_x87_fnstenv, soft_x87_fldenv, soft_x87_fnsave, soft_x87_frstor,
    soft_x87_nothing;
soft_op_fn soft_op_x87_fnstsw_ax;

#endif
