/* SPDX-License-Identifier: MIT */
/*
 * Lowering: what Zydis says of an instruction becomes one struct soft_op (or a few).
 *
 * Families of instructions have a file lower_NAME.c or op_NAME.c each, with a table of struct
 * soft_lowering; decode.c merges the tables by mnemonic. An instruction whose feature the CPU does
 * not offer, or that no table has, raises #UD. The lowering function sees the decoded instruction
 * and fills l->op, which comes with offset, length and the memory operand (if there is one) filled
 * in, and everything else zero.
 */
#ifndef FERRY_ACCEL_SOFT_LOWER_H
#define FERRY_ACCEL_SOFT_LOWER_H

#include <Zydis/Zydis.h>

#include "accel/soft/op.h"

#define SOFT_BLOCK_OPS 64 /* most operations of a block */

struct soft_lower {
    const ZydisDecodedInstruction *insn;
    const ZydisDecodedOperand *operand; /* insn->operand_count of them, visible ones first */
    const struct soft_features *features;
    struct soft_cpu *cpu;
    uint32_t mode;      /* enum soft_mode */
    unsigned width;     /* operand size, bytes: 1, 2, 4, 8 (insn->operand_width / 8) */
    bool has_memory;    /* op has base, index, scale, disp, seg, info of the memory operand */
    bool is_general;    /* it needs soft_linear_general() */
    struct soft_op *op; /* to be filled */
    bool ends_block;    /* set by lowering: nothing follows in this block */
    uint8_t branch;     /* of the instruction: enum soft_branch (code.h) */
};

/* fn NULL in op afterwards means #UD. arg is the table's. */
typedef void soft_lower_fn(struct soft_lower *l, uintptr_t arg);

struct soft_lowering {
    uint16_t mnemonic; /* ZydisMnemonic */
    uint16_t feature;  /* offset of the bool in struct soft_features, or SOFT_ALWAYS */
    soft_lower_fn *fn;
    uintptr_t arg;
};
#define SOFT_ALWAYS     0xffffu
#define SOFT_IF(member) offsetof(struct soft_features, member)

/* Tables, each ended by mnemonic 0 (ZYDIS_MNEMONIC_INVALID). */
extern const struct soft_lowering
    soft_lowering_integer[], /* lower_integer.c: and the stack, flags */
    soft_lowering_string[],  /* op_string.c: and IN, OUT, INS, OUTS */
    soft_lowering_branch[],  /* op_branch.c: near ones */
    soft_lowering_far[],     /* lower_far.c: segments, descriptors, INT, IRET */
    soft_lowering_system[],  /* lower_system.c */
    soft_lowering_x87[],     /* lower_x87.c */
    soft_lowering_state[],   /* xsave.c: FXSAVE, XSAVE…, LDMXCSR, STMXCSR */
    soft_lowering_sse[],     /* lower_sse.c: MMX, SSE to SSE4.2, AES, PCLMUL, SHA */
    soft_lowering_avx[];     /* lower_avx.c: VEX-encoded vector instructions, F16C, FMA */

/* Forms of common mnemonics that belong to another family; the table's function hands them over. */
void soft_lower_far_branch(struct soft_lower *l);  /* JMP, CALL, RET far (meta.branch_type) */
void soft_lower_mov_segment(struct soft_lower *l); /* MOV, PUSH, POP with a segment register */
void soft_lower_mov_control(struct soft_lower *l); /* MOV with CRn or DRn */

/* ---- for the tables' functions (decode.c) ----------------------------------------------------- */

/* Byte offset of a general register (AL, AH, AX, EAX, RAX…) in struct soft_cpu. */
uint8_t soft_gpr_offset(ZydisRegister reg);
/* Number of a vector, MMX, x87, segment, control or debug register. */
uint8_t soft_reg_number(ZydisRegister reg);
/* Slow instruction: calls fn; the second one ends the block, too. op->imm is taken by it. */
void soft_lower_call(struct soft_lower *l, soft_slow_fn *fn);
void soft_lower_call_end(struct soft_lower *l, soft_slow_fn *fn);
/* The instruction raises: #UD, #NM, #GP(0). */
void soft_lower_raise(struct soft_lower *l, uint8_t vector);
/*
 * x87, MMX, SSE, AVX: true if the mode lets the instruction run; else lowers it to #UD or #NM as SDM
 * volume 3, 2.5 and 13.1 say. kind: SOFT_MODE_FPU, SSE, AVX. (WAIT/FWAIT differs: MP and TS.)
 */
bool soft_lower_unit(struct soft_lower *l, enum soft_mode kind);

static inline const ZydisDecodedOperand *soft_operand(const struct soft_lower *l, unsigned i)
{
    return &l->operand[i];
}
static inline bool soft_is_memory(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_MEMORY;
}
static inline bool soft_is_register(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER;
}
static inline bool soft_is_immediate(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}
static inline bool soft_has_lock(const struct soft_lower *l)
{
    return l->insn->attributes & ZYDIS_ATTRIB_HAS_LOCK;
}

#endif
