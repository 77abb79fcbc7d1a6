/* SPDX-License-Identifier: MIT */
/*
 * MUL, IMUL (one, two, three operands), MULX, DIV, IDIV (SDM volume 2). RAX and RDX go through the
 * host's instruction as a whole, which knows what of them each size writes. A quotient that does not
 * fit is found before the host divides: it would fault.
 */
#include "accel/soft/integer.h"

/* ---- MUL, IMUL with RDX:RAX ------------------------------------------------------------------ */

#define MULTIPLY(insn, bits, value)                                                                \
    do {                                                                                           \
        uint64_t rax = cpu->gpr[X86_RAX], rdx = cpu->gpr[X86_RDX], low;                            \
        __asm__(insn SOFT_SUFFIX_##bits " %[y]\n\tmov %%rax, %[low]" SOFT_FLAGS_SAVE               \
                : "+&a"(rax), "+&d"(rdx), [low] "=&r"(low)                                         \
                : [y] "r"((uint##bits##_t)(value))                                                 \
                : "cc");                                                                           \
        cpu->gpr[X86_RAX] = low;                                                                   \
        cpu->gpr[X86_RDX] = rdx;                                                                   \
        cpu->status = (uint16_t)rax;                                                               \
    } while (0);
#define MULTIPLY_HANDLERS(name, insn, bits)                                                        \
    SOFT_HANDLER(name##bits##_r)                                                                   \
    {                                                                                              \
        MULTIPLY(insn, bits, soft_reg##bits(cpu, op->src)) SOFT_NEXT(cpu, op);                     \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(name##bits##_m, bits, MULTIPLY(insn, bits, m))
#define MULTIPLY_SIZES(name, insn)                                                                 \
    MULTIPLY_HANDLERS(name, insn, 8)                                                               \
    MULTIPLY_HANDLERS(name, insn, 16)                                                              \
    MULTIPLY_HANDLERS(name, insn, 32)                                                              \
    MULTIPLY_HANDLERS(name, insn, 64)
MULTIPLY_SIZES(mul, "mul")
MULTIPLY_SIZES(imul, "imul")

/* ---- DIV, IDIV ------------------------------------------------------------------------------- */

/* high:low / divisor fits iff high < divisor. */
static inline bool fits_unsigned(uint64_t high, uint64_t divisor)
{
    return high < divisor;
}

/*
 * |dividend| / |divisor|, cut to an integer, fits b bits with sign iff it is at most 2^(b-1) - 1, or
 * 2^(b-1) where the quotient is negative, that is: |dividend| < |divisor| * 2^(b-1), or
 * |divisor| * (2^(b-1) + 1). A divisor of zero never fits.
 */
static inline bool fits_signed(__int128 dividend, int64_t divisor, unsigned bits)
{
    bool is_negative = (dividend < 0) != (divisor < 0);
    unsigned __int128 n = dividend < 0 ? -(unsigned __int128)dividend : (unsigned __int128)dividend;
    unsigned __int128 d =
        divisor < 0 ? -(unsigned __int128)(__int128)divisor : (unsigned __int128)divisor;

    return n < (d << (bits - 1)) + (is_negative ? d : 0);
}

/* Apart, so that the handlers touch no stack. */
SOFT_APART_HANDLER(divide_error)
{
    soft_op_raise_no_error(cpu, op, EXC_DE);
}

#define DIVIDE(insn, bits, fits, value)                                                            \
    do {                                                                                           \
        uint##bits##_t divisor = (value);                                                          \
        uint64_t rax = cpu->status, rdx = cpu->gpr[X86_RDX], low = cpu->gpr[X86_RAX];              \
        if (__builtin_expect(!(fits), 0)) {                                                        \
            return divide_error(cpu, op);                                                          \
        }                                                                                          \
        __asm__(SOFT_FLAGS_LOAD "mov %[low], %%rax\n\t" insn SOFT_SUFFIX_##bits                    \
                " %[y]\n\tmov %%rax, %[low]" SOFT_FLAGS_SAVE                                       \
                : "+&a"(rax), "+&d"(rdx), [low] "+&r"(low)                                         \
                : [y] "r"(divisor)                                                                 \
                : "cc");                                                                           \
        cpu->gpr[X86_RAX] = low;                                                                   \
        cpu->gpr[X86_RDX] = rdx;                                                                   \
        cpu->status = (uint16_t)rax;                                                               \
    } while (0);

/* The halves of the dividend. */
#define UNSIGNED_FITS_8  fits_unsigned((uint8_t)(low >> 8), divisor)
#define UNSIGNED_FITS_16 fits_unsigned((uint16_t)rdx, divisor)
#define UNSIGNED_FITS_32 fits_unsigned((uint32_t)rdx, divisor)
#define UNSIGNED_FITS_64 fits_unsigned(rdx, divisor)
#define SIGNED_FITS_8    fits_signed((int16_t)low, (int8_t)divisor, 8)
#define SIGNED_FITS_16                                                                             \
    fits_signed((int32_t)((uint32_t)rdx << 16 | (uint16_t)low), (int16_t)divisor, 16)
#define SIGNED_FITS_32 fits_signed((int64_t)(rdx << 32 | (uint32_t)low), (int32_t)divisor, 32)
#define SIGNED_FITS_64                                                                             \
    fits_signed((__int128)((unsigned __int128)rdx << 64 | low), (int64_t)divisor, 64)

#define DIVIDE_HANDLERS(name, insn, sign, bits)                                                    \
    SOFT_HANDLER(name##bits##_r)                                                                   \
    {                                                                                              \
        DIVIDE(insn, bits, sign##_FITS_##bits, soft_reg##bits(cpu, op->src)) SOFT_NEXT(cpu, op);   \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(name##bits##_m, bits, DIVIDE(insn, bits, sign##_FITS_##bits, m))
#define DIVIDE_SIZES(name, insn, sign)                                                             \
    DIVIDE_HANDLERS(name, insn, sign, 8)                                                           \
    DIVIDE_HANDLERS(name, insn, sign, 16)                                                          \
    DIVIDE_HANDLERS(name, insn, sign, 32)                                                          \
    DIVIDE_HANDLERS(name, insn, sign, 64)
DIVIDE_SIZES(div, "div", UNSIGNED)
DIVIDE_SIZES(idiv, "idiv", SIGNED)

/* ---- lowering of those with one operand ------------------------------------------------------- */

struct one_form {
    soft_op_fn *r, *m[KIND_COUNT];
};
#define ONE_FORM(name)                                                                             \
    {                                                                                              \
        name##_r, SOFT_KINDS_X(name##_m)                                                           \
    }
#define ONE_ROW(name)                                                                              \
    {                                                                                              \
        ONE_FORM(name##8), ONE_FORM(name##16), ONE_FORM(name##32), ONE_FORM(name##64)              \
    }

static void lower_one(struct soft_lower *l, const struct one_form *forms)
{
    const struct one_form *form = &forms[soft_size_index(soft_operand(l, 0)->size)];

    if (soft_is_memory(soft_operand(l, 0))) {
        l->op->fn = form->m[soft_address_kind(l)];
    } else {
        l->op->src = soft_operand_reg(l, 0);
        l->op->fn = form->r;
    }
}

static const struct one_form mul_forms[2][SIZE_COUNT] = {ONE_ROW(mul), ONE_ROW(imul)};
static const struct one_form div_forms[2][SIZE_COUNT] = {ONE_ROW(div), ONE_ROW(idiv)};

void soft_lower_mul(struct soft_lower *l, uintptr_t arg)
{
    lower_one(l, mul_forms[0]);
}

/* arg: 1 signed. */
void soft_lower_div(struct soft_lower *l, uintptr_t arg)
{
    lower_one(l, div_forms[arg]);
}

/* ---- IMUL with two and three operands ---------------------------------------------------------- */

/* dst = a * b */
#define IMUL(bits, a, b)                                                                           \
    do {                                                                                           \
        uint##bits##_t product = (a);                                                              \
        uint32_t status = 0;                                                                       \
        __asm__("imul" SOFT_SUFFIX_##bits " %[y], %[x]" SOFT_FLAGS_SAVE                            \
                : [x] "+r"(product), "+&a"(status)                                                 \
                : [y] "r"((uint##bits##_t)(b))                                                     \
                : "cc");                                                                           \
        soft_set_reg##bits(cpu, op->dst, product);                                                 \
        cpu->status = status;                                                                      \
    } while (0);
#define IMUL_HANDLERS(bits)                                                                        \
    SOFT_HANDLER(imul##bits##_rr)                                                                  \
    {                                                                                              \
        IMUL(bits, soft_reg##bits(cpu, op->dst), soft_reg##bits(cpu, op->src)) SOFT_NEXT(cpu, op); \
    }                                                                                              \
    SOFT_HANDLER(imul##bits##_rri)                                                                 \
    {                                                                                              \
        IMUL(bits, soft_reg##bits(cpu, op->src), op->imm) SOFT_NEXT(cpu, op);                      \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(imul##bits##_rm, bits, IMUL(bits, soft_reg##bits(cpu, op->dst), m))       \
    SOFT_READ_HANDLERS_X(imul##bits##_rmi, bits, IMUL(bits, m, op->imm))
IMUL_HANDLERS(16)
IMUL_HANDLERS(32)
IMUL_HANDLERS(64)

void soft_lower_imul(struct soft_lower *l, uintptr_t arg)
{
    struct forms {
        soft_op_fn *rr, *rri, *rm[KIND_COUNT], *rmi[KIND_COUNT];
    };
#define IMUL_FORMS(bits)                                                                           \
    {                                                                                              \
        imul##bits##_rr, imul##bits##_rri, SOFT_KINDS_X(imul##bits##_rm),                          \
            SOFT_KINDS_X(imul##bits##_rmi)                                                         \
    }
    static const struct forms forms[SIZE_COUNT] = {
        [SIZE16] = IMUL_FORMS(16), [SIZE32] = IMUL_FORMS(32), [SIZE64] = IMUL_FORMS(64)};
    const struct forms *form = &forms[soft_size_index(soft_operand(l, 0)->size)];
    bool has_immediate;

    /* F6 /5 and F7 /5 have one; 0F AF two; 69 and 6B three. */
    if (l->insn->opcode == 0xf6 || l->insn->opcode == 0xf7) {
        lower_one(l, mul_forms[1]);
        return;
    }
    has_immediate = l->insn->opcode != 0xaf;
    l->op->dst = soft_operand_reg(l, 0);
    if (has_immediate) {
        l->op->imm = soft_operand(l, 2)->imm.value.u;
    }
    if (soft_is_memory(soft_operand(l, 1))) {
        unsigned kind = soft_address_kind(l);

        l->op->fn = has_immediate ? form->rmi[kind] : form->rm[kind];
    } else {
        l->op->src = soft_operand_reg(l, 1);
        l->op->fn = has_immediate ? form->rri : form->rr;
    }
}

/* ---- MULX ------------------------------------------------------------------------------------ */

/* dst: the upper half, written last, since it wins where both are one register; aux: the lower. */
#define MULX32(m)                                                                                  \
    do {                                                                                           \
        uint64_t product = (uint64_t)(m) * (uint32_t)cpu->gpr[X86_RDX];                            \
        soft_set_reg32(cpu, (uint8_t)op->aux, (uint32_t)product);                                  \
        soft_set_reg32(cpu, op->dst, (uint32_t)(product >> 32));                                   \
    } while (0);
#define MULX64(m)                                                                                  \
    do {                                                                                           \
        unsigned __int128 product = (unsigned __int128)(m)*cpu->gpr[X86_RDX];                      \
        soft_set_reg64(cpu, (uint8_t)op->aux, (uint64_t)product);                                  \
        soft_set_reg64(cpu, op->dst, (uint64_t)(product >> 64));                                   \
    } while (0);
#define MULX_HANDLERS(bits)                                                                        \
    SOFT_HANDLER(mulx##bits##_r)                                                                   \
    {                                                                                              \
        MULX##bits(soft_reg##bits(cpu, op->src)) SOFT_NEXT(cpu, op);                               \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(mulx##bits##_m, bits, MULX##bits(m))
MULX_HANDLERS(32)
MULX_HANDLERS(64)

void soft_lower_mulx(struct soft_lower *l, uintptr_t arg)
{
    static const struct one_form forms[2] = {ONE_FORM(mulx32), ONE_FORM(mulx64)};
    const ZydisDecodedOperand *from = soft_operand(l, 2);
    const struct one_form *form = &forms[from->size == 64];

    l->op->dst = soft_operand_reg(l, 0);
    l->op->aux = soft_operand_reg(l, 1);
    if (soft_is_memory(from)) {
        l->op->fn = form->m[soft_address_kind(l)];
    } else {
        l->op->src = soft_operand_reg(l, 2);
        l->op->fn = form->r;
    }
}
