/* SPDX-License-Identifier: MIT */
/*
 * ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT (SDM volume 2). The host's
 * instruction of the same name computes result and flags.
 *
 * Forms: rr, ri: register with register, immediate; rm: register with memory; mr, mi: memory with
 * register, immediate. 8, 16 and 64 bits work on the register in struct soft_cpu; 32 bits have to
 * clear the register's upper half.
 */
#include "accel/soft/integer.h"

/* ---- the host's instruction ------------------------------------------------------------------ */

/* What comes before and after, and the status that EAX starts with. LOGIC: OF is zero, as AL is. */
#define BEFORE_ARITH ""
#define BEFORE_CARRY SOFT_CARRY_LOAD
#define BEFORE_LOGIC ""
#define AFTER_ARITH  SOFT_FLAGS_SAVE
#define AFTER_CARRY  SOFT_FLAGS_SAVE
#define AFTER_LOGIC  "\n\tlahf"
#define START_ARITH  0
#define START_CARRY  cpu->status
#define START_LOGIC  0

/* a: what is changed, an lvalue; where: "+r" or "+m". */
#define ALU_CHANGE(insn, class, bits, where, a, b)                                                 \
    do {                                                                                           \
        uint32_t status = START_##class;                                                           \
        __asm__(BEFORE_##class insn SOFT_SUFFIX_##bits " %[y], %[x]" AFTER_##class                 \
                : [x] where(a), "+&a"(status)                                                      \
                : [y] "r"((uint##bits##_t)(b))                                                     \
                : "cc");                                                                           \
        cpu->status = status;                                                                      \
    } while (0);
/* CMP, TEST. */
#define ALU_COMPARE(insn, class, bits, where, a, b)                                                \
    do {                                                                                           \
        uint32_t status = 0;                                                                       \
        __asm__(insn SOFT_SUFFIX_##bits " %[y], %[x]" AFTER_##class                                \
                : "+&a"(status)                                                                    \
                : [x] where(a), [y] "r"((uint##bits##_t)(b))                                       \
                : "cc");                                                                           \
        cpu->status = status;                                                                      \
    } while (0);
#define UNARY_CHANGE(insn, class, bits, where, a)                                                  \
    do {                                                                                           \
        uint32_t status = START_##class;                                                           \
        __asm__(BEFORE_##class insn SOFT_SUFFIX_##bits " %[x]" AFTER_##class                       \
                : [x] where(a), "+&a"(status)                                                      \
                :                                                                                  \
                : "cc");                                                                           \
        cpu->status = status;                                                                      \
    } while (0);
#define NOT_CHANGE(insn, class, bits, where, a)                                                    \
    do {                                                                                           \
        __asm__(insn SOFT_SUFFIX_##bits " %[x]" : [x] where(a));                                   \
    } while (0);

/* ---- two operands ---------------------------------------------------------------------------- */

#define ALU_HANDLERS(name, insn, class, bits)                                                      \
    SOFT_HANDLER(name##bits##_rr)                                                                  \
    {                                                                                              \
        SOFT_ON_REG_##bits(ALU_CHANGE, insn, class, SOFT_REG(bits, op->src)) SOFT_NEXT(cpu, op);   \
    }                                                                                              \
    SOFT_HANDLER(name##bits##_ri)                                                                  \
    {                                                                                              \
        SOFT_ON_REG_##bits(ALU_CHANGE, insn, class, op->imm) SOFT_NEXT(cpu, op);                   \
    }                                                                                              \
    SOFT_READ_HANDLERS(name##bits##_rm, bits, SOFT_ON_REG_##bits(ALU_CHANGE, insn, class, m))      \
    SOFT_RMW_HANDLERS(name##bits##_mr, bits,                                                       \
                      ALU_CHANGE(insn, class, bits, "+m", SOFT_MEM(bits, p),                       \
                                 SOFT_REG(bits, op->src)))                                         \
    SOFT_RMW_HANDLERS(name##bits##_mi, bits,                                                       \
                      ALU_CHANGE(insn, class, bits, "+m", SOFT_MEM(bits, p), op->imm))
#define ALU_SIZES(name, insn, class)                                                               \
    ALU_HANDLERS(name, insn, class, 8)                                                             \
    ALU_HANDLERS(name, insn, class, 16)                                                            \
    ALU_HANDLERS(name, insn, class, 32)                                                            \
    ALU_HANDLERS(name, insn, class, 64)

ALU_SIZES(add, "add", ARITH)
ALU_SIZES(or, "or", LOGIC)
ALU_SIZES(adc, "adc", CARRY)
ALU_SIZES(sbb, "sbb", CARRY)
ALU_SIZES(and, "and", LOGIC)
ALU_SIZES(sub, "sub", ARITH)
ALU_SIZES(xor, "xor", LOGIC)

/* XOR or SUB of a register with itself, 32 or 64 bits. */
SOFT_HANDLER(zero_r)
{
    soft_set_reg64(cpu, op->dst, 0);
    cpu->status = SOFT_ZF | SOFT_PF | 0x200;
    SOFT_NEXT(cpu, op);
}

struct alu_forms {
    soft_op_fn *rr, *ri, *rm[KIND_COUNT], *mr[KIND_COUNT], *mi[KIND_COUNT];
};
#define ALU_FORMS(name)                                                                            \
    {                                                                                              \
        .rr = name##_rr, .ri = name##_ri, .rm = SOFT_KINDS(name##_rm),                             \
        .mr = SOFT_KINDS(name##_mr), .mi = SOFT_KINDS(name##_mi),                                  \
    }
#define ALU_ROW(name)                                                                              \
    {                                                                                              \
        ALU_FORMS(name##8), ALU_FORMS(name##16), ALU_FORMS(name##32), ALU_FORMS(name##64),         \
    }
static const struct alu_forms alu_forms[ALU_COUNT][SIZE_COUNT] = {
    [ALU_ADD] = ALU_ROW(add), [ALU_OR] = ALU_ROW(or),   [ALU_ADC] = ALU_ROW(adc),
    [ALU_SBB] = ALU_ROW(sbb), [ALU_AND] = ALU_ROW(and), [ALU_SUB] = ALU_ROW(sub),
    [ALU_XOR] = ALU_ROW(xor),
};

/* arg: enum soft_alu below ALU_COUNT. */
void soft_lower_alu(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0), *from = soft_operand(l, 1);
    struct soft_op *op = l->op;
    unsigned size = soft_size_index(to->size);
    const struct alu_forms *forms = &alu_forms[arg][size];

    if (soft_is_immediate(from)) {
        op->imm = from->imm.value.u;
    }
    if (soft_is_memory(to)) {
        unsigned kind = soft_address_kind(l);

        if (soft_is_immediate(from)) {
            op->fn = soft_has_lock(l) ? soft_locked_handler(l, soft_locked_alu_mi[arg], size)
                                      : forms->mi[kind];
        } else {
            op->src = soft_operand_reg(l, 1);
            op->fn = soft_has_lock(l) ? soft_locked_handler(l, soft_locked_alu_mr[arg], size)
                                      : forms->mr[kind];
        }
        return;
    }
    op->dst = soft_operand_reg(l, 0);
    if (soft_is_memory(from)) {
        op->fn = forms->rm[soft_address_kind(l)];
    } else if (soft_is_immediate(from)) {
        op->fn = forms->ri;
    } else {
        op->src = soft_operand_reg(l, 1);
        op->fn = (arg == ALU_XOR || arg == ALU_SUB) && size >= SIZE32 && op->src == op->dst
                     ? zero_r
                     : forms->rr;
    }
}

/* ---- CMP, TEST ------------------------------------------------------------------------------- */

#define COMPARE_HANDLERS(name, insn, class, bits)                                                  \
    SOFT_HANDLER(name##bits##_rr)                                                                  \
    {                                                                                              \
        ALU_COMPARE(insn, class, bits, "m", SOFT_REG(bits, op->dst), SOFT_REG(bits, op->src))      \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(name##bits##_ri)                                                                  \
    {                                                                                              \
        ALU_COMPARE(insn, class, bits, "m", SOFT_REG(bits, op->dst), op->imm)                      \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_READ_HANDLERS(name##bits##_mr, bits,                                                      \
                       ALU_COMPARE(insn, class, bits, "r", m, SOFT_REG(bits, op->src)))            \
    SOFT_READ_HANDLERS(name##bits##_mi, bits, ALU_COMPARE(insn, class, bits, "r", m, op->imm))
#define COMPARE_SIZES(name, insn, class)                                                           \
    COMPARE_HANDLERS(name, insn, class, 8)                                                         \
    COMPARE_HANDLERS(name, insn, class, 16)                                                        \
    COMPARE_HANDLERS(name, insn, class, 32)                                                        \
    COMPARE_HANDLERS(name, insn, class, 64)

COMPARE_SIZES(cmp, "cmp", ARITH)
COMPARE_SIZES(test, "test", LOGIC)

/* CMP register with memory; TEST has no such form. */
#define COMPARE_REG_MEM(bits)                                                                      \
    SOFT_READ_HANDLERS(cmp##bits##_rm, bits,                                                       \
                       ALU_COMPARE("cmp", ARITH, bits, "m", SOFT_REG(bits, op->dst), m))
COMPARE_REG_MEM(8)
COMPARE_REG_MEM(16)
COMPARE_REG_MEM(32)
COMPARE_REG_MEM(64)

/* TEST of a register with itself. */
#define TEST_SELF(bits)                                                                            \
    SOFT_HANDLER(test##bits##_self)                                                                \
    {                                                                                              \
        uint##bits##_t a = soft_reg##bits(cpu, op->dst);                                           \
        ALU_COMPARE("test", LOGIC, bits, "r", a, a)                                                \
        SOFT_NEXT(cpu, op);                                                                        \
    }
TEST_SELF(8)
TEST_SELF(16)
TEST_SELF(32)
TEST_SELF(64)

struct compare_forms {
    soft_op_fn *rr, *ri, *self, *rm[KIND_COUNT], *mr[KIND_COUNT], *mi[KIND_COUNT];
};
#define CMP_FORMS(name)                                                                            \
    {                                                                                              \
        .rr = name##_rr, .ri = name##_ri, .self = name##_rr, .rm = SOFT_KINDS(name##_rm),          \
        .mr = SOFT_KINDS(name##_mr), .mi = SOFT_KINDS(name##_mi),                                  \
    }
#define TEST_FORMS(name)                                                                           \
    {                                                                                              \
        .rr = name##_rr, .ri = name##_ri, .self = name##_self, .rm = SOFT_KINDS(name##_mr),        \
        .mr = SOFT_KINDS(name##_mr), .mi = SOFT_KINDS(name##_mi),                                  \
    }
static const struct compare_forms cmp_forms[SIZE_COUNT] = {CMP_FORMS(cmp8), CMP_FORMS(cmp16),
                                                           CMP_FORMS(cmp32), CMP_FORMS(cmp64)};
static const struct compare_forms test_forms[SIZE_COUNT] = {TEST_FORMS(test8), TEST_FORMS(test16),
                                                            TEST_FORMS(test32), TEST_FORMS(test64)};

/* arg: ALU_CMP or ALU_TEST. */
void soft_lower_compare(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *a = soft_operand(l, 0), *b = soft_operand(l, 1);
    struct soft_op *op = l->op;
    unsigned size = soft_size_index(a->size);
    const struct compare_forms *forms = arg == ALU_CMP ? &cmp_forms[size] : &test_forms[size];

    if (soft_is_immediate(b)) {
        op->imm = b->imm.value.u;
    }
    if (soft_is_memory(a)) {
        unsigned kind = soft_address_kind(l);

        if (soft_is_immediate(b)) {
            op->fn = forms->mi[kind];
        } else {
            op->src = soft_operand_reg(l, 1);
            op->fn = forms->mr[kind];
        }
        return;
    }
    op->dst = soft_operand_reg(l, 0);
    if (soft_is_memory(b)) {
        if (arg == ALU_TEST) { /* the order of TEST's operands means nothing */
            op->src = op->dst;
        }
        op->fn = forms->rm[soft_address_kind(l)];
    } else if (soft_is_immediate(b)) {
        op->fn = forms->ri;
    } else {
        op->src = soft_operand_reg(l, 1);
        op->fn = op->src == op->dst ? forms->self : forms->rr;
    }
}

/* ---- INC, DEC, NEG, NOT ---------------------------------------------------------------------- */

#define UNARY_HANDLERS(name, CHANGE, insn, class, bits)                                            \
    SOFT_HANDLER(name##bits##_r)                                                                   \
    {                                                                                              \
        SOFT_ON_REG_##bits(CHANGE, insn, class) SOFT_NEXT(cpu, op);                                \
    }                                                                                              \
    SOFT_RMW_HANDLERS(name##bits##_m, bits, CHANGE(insn, class, bits, "+m", SOFT_MEM(bits, p)))
#define UNARY_SIZES(name, CHANGE, insn, class)                                                     \
    UNARY_HANDLERS(name, CHANGE, insn, class, 8)                                                   \
    UNARY_HANDLERS(name, CHANGE, insn, class, 16)                                                  \
    UNARY_HANDLERS(name, CHANGE, insn, class, 32)                                                  \
    UNARY_HANDLERS(name, CHANGE, insn, class, 64)

/* INC and DEC leave CF as it is: it is loaded first. */
UNARY_SIZES(inc, UNARY_CHANGE, "inc", CARRY)
UNARY_SIZES(dec, UNARY_CHANGE, "dec", CARRY)
UNARY_SIZES(neg, UNARY_CHANGE, "neg", ARITH)
UNARY_SIZES(not, NOT_CHANGE, "not", ARITH)

struct unary_forms {
    soft_op_fn *r, *m[KIND_COUNT];
};
#define UNARY_FORMS(name)                                                                          \
    {                                                                                              \
        .r = name##_r, .m = SOFT_KINDS(name##_m),                                                  \
    }
#define UNARY_ROW(name)                                                                            \
    {                                                                                              \
        UNARY_FORMS(name##8), UNARY_FORMS(name##16), UNARY_FORMS(name##32), UNARY_FORMS(name##64), \
    }
static const struct unary_forms unary_forms[UNARY_COUNT][SIZE_COUNT] = {
    [UNARY_INC] = UNARY_ROW(inc),
    [UNARY_DEC] = UNARY_ROW(dec),
    [UNARY_NEG] = UNARY_ROW(neg),
    [UNARY_NOT] = UNARY_ROW(not ),
};

/* arg: enum soft_unary. */
void soft_lower_unary(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0);
    unsigned size = soft_size_index(to->size);
    const struct unary_forms *forms = &unary_forms[arg][size];

    if (soft_is_memory(to)) {
        l->op->fn = soft_has_lock(l) ? soft_locked_handler(l, soft_locked_unary[arg], size)
                                     : forms->m[soft_address_kind(l)];
    } else {
        l->op->dst = soft_operand_reg(l, 0);
        l->op->fn = forms->r;
    }
}
