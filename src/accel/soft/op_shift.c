/* SPDX-License-Identifier: MIT */
/*
 * SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD, and SHLX, SHRX, SARX, RORX of BMI2 (SDM volume 2).
 *
 * A count of zero, after masking, leaves the flags as they are, and rotates leave most of them: the
 * guest's flags are loaded first then. Only shifts by an immediate, which lowering knows not to be zero,
 * do without.
 */
#include "accel/soft/integer.h"

/* ---- shifts and rotates ---------------------------------------------------------------------- */

/* KNOWN: sets all flags. KEEPS: some or all may stay. */
#define BEFORE_KNOWN ""
#define BEFORE_KEEPS SOFT_FLAGS_LOAD
#define START_KNOWN  0
#define START_KEEPS  cpu->status

#define SHIFT_CHANGE(insn, class, bits, where, a, count)                                           \
    do {                                                                                           \
        uint32_t status = START_##class;                                                           \
        __asm__(BEFORE_##class insn SOFT_SUFFIX_##bits " %%cl, %[x]" SOFT_FLAGS_SAVE               \
                : [x] where(a), "+&a"(status)                                                      \
                : "c"((uint8_t)(count))                                                            \
                : "cc");                                                                           \
        cpu->status = status;                                                                      \
    } while (0);

/* _ri, _mi: count in op->aux; _rc, _mc: in CL. */
#define SHIFT_HANDLERS(name, insn, class, bits)                                                    \
    SOFT_HANDLER(name##bits##_ri)                                                                  \
    {                                                                                              \
        SOFT_ON_REG_##bits(SHIFT_CHANGE, insn, class, op->aux) SOFT_NEXT(cpu, op);                 \
    }                                                                                              \
    SOFT_HANDLER(name##bits##_rc)                                                                  \
    {                                                                                              \
        SOFT_ON_REG_##bits(SHIFT_CHANGE, insn, KEEPS, cpu->gpr[X86_RCX]) SOFT_NEXT(cpu, op);       \
    }                                                                                              \
    SOFT_RMW_HANDLERS_X(name##bits##_mi, rmw, bits,                                                \
                        SHIFT_CHANGE(insn, class, bits, "+m", SOFT_MEM(bits, p), op->aux))         \
    SOFT_RMW_HANDLERS_X(name##bits##_mc, rmw, bits,                                                \
                        SHIFT_CHANGE(insn, KEEPS, bits, "+m", SOFT_MEM(bits, p),                   \
                                     cpu->gpr[X86_RCX]))
#define SHIFT_SIZES(name, insn, class)                                                             \
    SHIFT_HANDLERS(name, insn, class, 8)                                                           \
    SHIFT_HANDLERS(name, insn, class, 16)                                                          \
    SHIFT_HANDLERS(name, insn, class, 32)                                                          \
    SHIFT_HANDLERS(name, insn, class, 64)

SHIFT_SIZES(rol, "rol", KEEPS)
SHIFT_SIZES(ror, "ror", KEEPS)
SHIFT_SIZES(rcl, "rcl", KEEPS)
SHIFT_SIZES(rcr, "rcr", KEEPS)
SHIFT_SIZES(shl, "shl", KNOWN)
SHIFT_SIZES(shr, "shr", KNOWN)
SHIFT_SIZES(sar, "sar", KNOWN)

struct shift_forms {
    soft_op_fn *ri, *rc, *mi[KIND_COUNT], *mc[KIND_COUNT];
};
#define SHIFT_FORMS(name)                                                                          \
    {                                                                                              \
        .ri = name##_ri, .rc = name##_rc, .mi = SOFT_KINDS_X(name##_mi),                           \
        .mc = SOFT_KINDS_X(name##_mc),                                                             \
    }
#define SHIFT_ROW(name)                                                                            \
    {                                                                                              \
        SHIFT_FORMS(name##8), SHIFT_FORMS(name##16), SHIFT_FORMS(name##32), SHIFT_FORMS(name##64), \
    }
static const struct shift_forms shift_forms[SHIFT_COUNT][SIZE_COUNT] = {
    [SHIFT_ROL] = SHIFT_ROW(rol), [SHIFT_ROR] = SHIFT_ROW(ror), [SHIFT_RCL] = SHIFT_ROW(rcl),
    [SHIFT_RCR] = SHIFT_ROW(rcr), [SHIFT_SHL] = SHIFT_ROW(shl), [SHIFT_SHR] = SHIFT_ROW(shr),
    [SHIFT_SAR] = SHIFT_ROW(sar),
};

static unsigned masked_count(const ZydisDecodedOperand *count, unsigned bits)
{
    return (unsigned)count->imm.value.u & (bits == 64 ? 63 : 31);
}

/* arg: enum soft_shift. */
void soft_lower_shift(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0), *count = soft_operand(l, 1);
    unsigned size = soft_size_index(to->size), kind = soft_address_kind(l);
    bool is_immediate = soft_is_immediate(count);
    const struct shift_forms *forms;

    if (is_immediate) {
        l->op->aux = (uint16_t)masked_count(count, to->size);
        if (l->op->aux == 0) {
            /* Nothing changes but the upper half of a 32-bit register: a rotate by none does that. */
            arg = SHIFT_ROL;
        }
    }
    forms = &shift_forms[arg][size];
    if (soft_is_memory(to)) {
        l->op->fn = is_immediate ? forms->mi[kind] : forms->mc[kind];
    } else {
        l->op->dst = soft_operand_reg(l, 0);
        l->op->fn = is_immediate ? forms->ri : forms->rc;
    }
}

/* ---- SHLD, SHRD ------------------------------------------------------------------------------ */

#define DOUBLE_CHANGE(insn, class, bits, where, a, count)                                          \
    do {                                                                                           \
        uint32_t status = cpu->status;                                                             \
        __asm__(SOFT_FLAGS_LOAD insn SOFT_SUFFIX_##bits " %%cl, %[y], %[x]" SOFT_FLAGS_SAVE        \
                : [x] where(a), "+&a"(status)                                                      \
                : [y] "r"(soft_reg##bits(cpu, op->src)), "c"((uint8_t)(count))                     \
                : "cc");                                                                           \
        cpu->status = status;                                                                      \
    } while (0);
#define DOUBLE_HANDLERS(name, insn, bits)                                                          \
    SOFT_HANDLER(name##bits##_ri)                                                                  \
    {                                                                                              \
        SOFT_ON_REG_##bits(DOUBLE_CHANGE, insn, KEEPS, op->aux) SOFT_NEXT(cpu, op);                \
    }                                                                                              \
    SOFT_HANDLER(name##bits##_rc)                                                                  \
    {                                                                                              \
        SOFT_ON_REG_##bits(DOUBLE_CHANGE, insn, KEEPS, cpu->gpr[X86_RCX]) SOFT_NEXT(cpu, op);      \
    }                                                                                              \
    SOFT_RMW_HANDLERS_X(name##bits##_mi, rmw, bits,                                                \
                        DOUBLE_CHANGE(insn, KEEPS, bits, "+m", SOFT_MEM(bits, p), op->aux))        \
    SOFT_RMW_HANDLERS_X(name##bits##_mc, rmw, bits,                                                \
                        DOUBLE_CHANGE(insn, KEEPS, bits, "+m", SOFT_MEM(bits, p),                  \
                                      cpu->gpr[X86_RCX]))
DOUBLE_HANDLERS(shld, "shld", 16)
DOUBLE_HANDLERS(shld, "shld", 32)
DOUBLE_HANDLERS(shld, "shld", 64)
DOUBLE_HANDLERS(shrd, "shrd", 16)
DOUBLE_HANDLERS(shrd, "shrd", 32)
DOUBLE_HANDLERS(shrd, "shrd", 64)

/* arg: 0 SHLD, 1 SHRD. */
void soft_lower_double_shift(struct soft_lower *l, uintptr_t arg)
{
    static const struct shift_forms forms[2][SIZE_COUNT] = {
        {[SIZE16] = SHIFT_FORMS(shld16),
         [SIZE32] = SHIFT_FORMS(shld32),
         [SIZE64] = SHIFT_FORMS(shld64)},
        {[SIZE16] = SHIFT_FORMS(shrd16),
         [SIZE32] = SHIFT_FORMS(shrd32),
         [SIZE64] = SHIFT_FORMS(shrd64)},
    };
    const ZydisDecodedOperand *to = soft_operand(l, 0), *count = soft_operand(l, 2);
    const struct shift_forms *form = &forms[arg][soft_size_index(to->size)];
    unsigned kind = soft_address_kind(l);
    bool is_immediate = soft_is_immediate(count);

    l->op->src = soft_operand_reg(l, 1);
    if (is_immediate) {
        l->op->aux = (uint16_t)masked_count(count, to->size);
    }
    if (soft_is_memory(to)) {
        l->op->fn = is_immediate ? form->mi[kind] : form->mc[kind];
    } else {
        l->op->dst = soft_operand_reg(l, 0);
        l->op->fn = is_immediate ? form->ri : form->rc;
    }
}

/* ---- SHLX, SHRX, SARX, RORX: no flags -------------------------------------------------------- */

/* op->aux: the register with the count, or RORX's immediate. */
#define BMI2_SHIFT(name, bits, expression)                                                         \
    SOFT_HANDLER(name##bits##_r)                                                                   \
    {                                                                                              \
        uint##bits##_t m = soft_reg##bits(cpu, op->src);                                           \
        unsigned count = (unsigned)soft_reg##bits(cpu, (uint8_t)op->aux) & (bits - 1);             \
                                                                                                   \
        soft_set_reg##bits(cpu, op->dst, expression);                                              \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(name##bits##_m, bits,                                                     \
                         unsigned count =                                                          \
                             (unsigned)soft_reg##bits(cpu, (uint8_t)op->aux) & (bits - 1);         \
                         soft_set_reg##bits(cpu, op->dst, expression);)
#define ROTATE(bits)                                                                               \
    SOFT_HANDLER(rorx##bits##_r)                                                                   \
    {                                                                                              \
        uint##bits##_t m = soft_reg##bits(cpu, op->src);                                           \
                                                                                                   \
        soft_set_reg##bits(cpu, op->dst, m >> op->aux | m << (-op->aux & (bits - 1)));             \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(rorx##bits##_m, bits,                                                     \
                         soft_set_reg##bits(cpu, op->dst,                                          \
                                            m >> op->aux | m << (-op->aux & (bits - 1)));)
BMI2_SHIFT(shlx, 32, m << count)
BMI2_SHIFT(shlx, 64, m << count)
BMI2_SHIFT(shrx, 32, m >> count)
BMI2_SHIFT(shrx, 64, m >> count)
BMI2_SHIFT(sarx, 32, (uint32_t)((int32_t)m >> count))
BMI2_SHIFT(sarx, 64, (uint64_t)((int64_t)m >> count))
ROTATE(32)
ROTATE(64)

/* arg: enum soft_shift; SHIFT_ROR is RORX. */
void soft_lower_shift_bmi2(struct soft_lower *l, uintptr_t arg)
{
    struct forms {
        soft_op_fn *r, *m[KIND_COUNT];
    };
#define BMI2_FORMS(name)                                                                           \
    {                                                                                              \
        {name##32_r, SOFT_KINDS_X(name##32_m)},                                                    \
        {                                                                                          \
            name##64_r, SOFT_KINDS_X(name##64_m)                                                   \
        }                                                                                          \
    }
    static const struct forms forms[SHIFT_COUNT][2] = {
        [SHIFT_SHL] = BMI2_FORMS(shlx),
        [SHIFT_SHR] = BMI2_FORMS(shrx),
        [SHIFT_SAR] = BMI2_FORMS(sarx),
        [SHIFT_ROR] = BMI2_FORMS(rorx),
    };
    const ZydisDecodedOperand *from = soft_operand(l, 1), *count = soft_operand(l, 2);
    const struct forms *form = &forms[arg][from->size == 64];

    l->op->dst = soft_operand_reg(l, 0);
    l->op->aux = soft_is_immediate(count) ? (uint16_t)masked_count(count, from->size)
                                          : soft_operand_reg(l, 2);
    if (soft_is_memory(from)) {
        l->op->fn = form->m[soft_address_kind(l)];
    } else {
        l->op->src = soft_operand_reg(l, 1);
        l->op->fn = form->r;
    }
}
