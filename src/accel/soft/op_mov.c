/* SPDX-License-Identifier: MIT */
/*
 * MOV, MOVZX, MOVSX, MOVSXD, LEA, BSWAP, MOVBE, CMOVcc, SETcc, MOVNTI (SDM volume 2). MOV with
 * segment, control and debug registers goes to those who know them, and decode.c keeps MOV with a
 * 64-bit offset in the instruction for itself.
 */
#include "accel/soft/integer.h"

/* ---- MOV ------------------------------------------------------------------------------------- */

#define MOV_HANDLERS(bits)                                                                         \
    SOFT_HANDLER(mov##bits##_rr)                                                                   \
    {                                                                                              \
        soft_set_reg##bits(cpu, op->dst, soft_reg##bits(cpu, op->src));                            \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(mov##bits##_ri)                                                                   \
    {                                                                                              \
        soft_set_reg##bits(cpu, op->dst, (uint##bits##_t)op->imm);                                 \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_READ_HANDLERS(mov##bits##_rm, bits, soft_set_reg##bits(cpu, op->dst, m);)                 \
    SOFT_WRITE_HANDLERS(mov##bits##_mr, bits, soft_reg##bits(cpu, op->src))                        \
    SOFT_WRITE_HANDLERS(mov##bits##_mi, bits, (uint##bits##_t)op->imm)
MOV_HANDLERS(8)
MOV_HANDLERS(16)
MOV_HANDLERS(32)
MOV_HANDLERS(64)

struct mov_forms {
    soft_op_fn *rr, *ri, *rm[KIND_COUNT], *mr[KIND_COUNT], *mi[KIND_COUNT];
};
#define MOV_FORMS(bits)                                                                            \
    {                                                                                              \
        .rr = mov##bits##_rr, .ri = mov##bits##_ri, .rm = SOFT_KINDS(mov##bits##_rm),              \
        .mr = SOFT_KINDS(mov##bits##_mr), .mi = SOFT_KINDS(mov##bits##_mi),                        \
    }
static const struct mov_forms mov_forms[SIZE_COUNT] = {MOV_FORMS(8), MOV_FORMS(16), MOV_FORMS(32),
                                                       MOV_FORMS(64)};

static bool lower_mov_special(struct soft_lower *l)
{
    for (unsigned i = 0; i < 2; i++) {
        const ZydisDecodedOperand *operand = soft_operand(l, i);

        if (!soft_is_register(operand)) {
            continue;
        }
        switch (ZydisRegisterGetClass(operand->reg.value)) {
        case ZYDIS_REGCLASS_SEGMENT:
            soft_lower_mov_segment(l);
            return true;
        case ZYDIS_REGCLASS_CONTROL:
        case ZYDIS_REGCLASS_DEBUG:
            soft_lower_mov_control(l);
            return true;
        case ZYDIS_REGCLASS_TEST: /* gone since the Pentium: #UD */
            return true;
        default:
            break;
        }
    }
    return false;
}

void soft_lower_mov(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0), *from = soft_operand(l, 1);
    struct soft_op *op = l->op;
    const struct mov_forms *forms;

    if (lower_mov_special(l)) {
        return;
    }
    forms = &mov_forms[soft_size_index(to->size)];
    if (soft_is_memory(to)) {
        unsigned kind = soft_address_kind(l);

        if (soft_is_immediate(from)) {
            op->imm = from->imm.value.u;
            op->fn = forms->mi[kind];
            return;
        }
        op->src = soft_operand_reg(l, 1);
        op->fn = forms->mr[kind];
        return;
    }
    op->dst = soft_operand_reg(l, 0);
    if (soft_is_immediate(from)) {
        op->imm = from->imm.value.u;
        op->fn = forms->ri;
    } else if (soft_is_register(from)) {
        op->src = soft_operand_reg(l, 1);
        op->fn = forms->rr;
    } else {
        op->fn = forms->rm[soft_address_kind(l)];
    }
}

/* A hint about caches: a plain store is right, and ordered more strictly. */
void soft_lower_movnti(struct soft_lower *l, uintptr_t arg)
{
    l->op->src = soft_operand_reg(l, 1);
    l->op->fn = mov_forms[soft_size_index(soft_operand(l, 0)->size)].mr[soft_address_kind(l)];
}

/* ---- MOVZX, MOVSX, MOVSXD -------------------------------------------------------------------- */

/* from bits of type (uint or int) to bits that are written. */
#define EXTEND_HANDLERS(name, type, from, to)                                                      \
    SOFT_HANDLER(name##from##_##to##_rr)                                                           \
    {                                                                                              \
        soft_set_reg##to(cpu, op->dst,                                                             \
                         (uint##to##_t)(type##from##_t)soft_reg##from(cpu, op->src));              \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_READ_HANDLERS(name##from##_##to, from,                                                    \
                       soft_set_reg##to(cpu, op->dst, (uint##to##_t)(type##from##_t)m);)
EXTEND_HANDLERS(movzx, uint, 8, 16)
EXTEND_HANDLERS(movzx, uint, 8, 64)
EXTEND_HANDLERS(movzx, uint, 16, 16)
EXTEND_HANDLERS(movzx, uint, 16, 64)
EXTEND_HANDLERS(movsx, int, 8, 16)
EXTEND_HANDLERS(movsx, int, 8, 32)
EXTEND_HANDLERS(movsx, int, 8, 64)
EXTEND_HANDLERS(movsx, int, 16, 32)
EXTEND_HANDLERS(movsx, int, 16, 64)
EXTEND_HANDLERS(movsx, int, 32, 64)
EXTEND_HANDLERS(movsx, int, 32, 16)

struct extend_forms {
    soft_op_fn *rr, *rm[KIND_COUNT];
};
#define EXTEND_FORMS(name)                                                                         \
    {                                                                                              \
        .rr = name##_rr, .rm = SOFT_KINDS(name),                                                   \
    }
/* [size of the destination][size of the source]. 32 bits clear the upper half as 64 zero-extended ones
 * do. MOVSXD without REX.W is a MOV. */
static const struct extend_forms movzx_forms[SIZE_COUNT][SIZE_COUNT] = {
    [SIZE16] = {[SIZE8] = EXTEND_FORMS(movzx8_16), [SIZE16] = EXTEND_FORMS(movzx16_16)},
    [SIZE32] = {[SIZE8] = EXTEND_FORMS(movzx8_64), [SIZE16] = EXTEND_FORMS(movzx16_64)},
    [SIZE64] = {[SIZE8] = EXTEND_FORMS(movzx8_64), [SIZE16] = EXTEND_FORMS(movzx16_64)},
};
static const struct extend_forms movsx_forms[SIZE_COUNT][SIZE_COUNT] = {
    [SIZE16] = {[SIZE8] = EXTEND_FORMS(movsx8_16),
                [SIZE16] = EXTEND_FORMS(movzx16_16),
                [SIZE32] = EXTEND_FORMS(movsx32_16)},
    [SIZE32] = {[SIZE8] = EXTEND_FORMS(movsx8_32),
                [SIZE16] = EXTEND_FORMS(movsx16_32),
                [SIZE32] = {mov32_rr, SOFT_KINDS(mov32_rm)}},
    [SIZE64] = {[SIZE8] = EXTEND_FORMS(movsx8_64),
                [SIZE16] = EXTEND_FORMS(movsx16_64),
                [SIZE32] = EXTEND_FORMS(movsx32_64)},
};

/* arg: 1 signed. */
void soft_lower_extend(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0), *from = soft_operand(l, 1);
    unsigned to_size = soft_size_index(to->size), from_size = soft_size_index(from->size);
    const struct extend_forms *forms =
        arg ? &movsx_forms[to_size][from_size] : &movzx_forms[to_size][from_size];

    /* MOVSXD r16: r/m32 on AMD's processors, of which the low half counts, r/m16 on Intel's. */
    if (to_size == SIZE16 && from_size == SIZE32 && l->features->is_intel) {
        forms = &movsx_forms[SIZE16][SIZE16];
    }
    l->op->dst = soft_operand_reg(l, 0);
    if (soft_is_memory(from)) {
        l->op->fn = forms->rm[soft_address_kind(l)];
    } else {
        l->op->src = soft_operand_reg(l, 1);
        l->op->fn = forms->rr;
    }
}

/* ---- LEA ------------------------------------------------------------------------------------- */

static inline uint64_t lea_truncated(const struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t address = soft_effective(cpu, op);

    return op->info & SOFT_OP_ADDR16   ? (uint16_t)address
           : op->info & SOFT_OP_ADDR32 ? (uint32_t)address
                                       : address;
}

#define LEA_HANDLERS(bits)                                                                         \
    SOFT_HANDLER(lea##bits##_b)                                                                    \
    {                                                                                              \
        soft_set_reg##bits(cpu, op->dst, (uint##bits##_t)soft_linear_base(cpu, op));               \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(lea##bits##_x)                                                                    \
    {                                                                                              \
        soft_set_reg##bits(cpu, op->dst, (uint##bits##_t)soft_effective(cpu, op));                 \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(lea##bits##_g)                                                                    \
    {                                                                                              \
        soft_set_reg##bits(cpu, op->dst, (uint##bits##_t)lea_truncated(cpu, op));                  \
        SOFT_NEXT(cpu, op);                                                                        \
    }
LEA_HANDLERS(16)
LEA_HANDLERS(32)
LEA_HANDLERS(64)

void soft_lower_lea(struct soft_lower *l, uintptr_t arg)
{
    static soft_op_fn *const forms[SIZE_COUNT][KIND_COUNT] = {
        [SIZE16] = SOFT_KINDS(lea16), [SIZE32] = SOFT_KINDS(lea32), [SIZE64] = SOFT_KINDS(lea64)};
    struct soft_op *op = l->op;
    unsigned size = soft_size_index(soft_operand(l, 0)->size);
    bool truncates = op->info & SOFT_OP_ADDR16 || (op->info & SOFT_OP_ADDR32 && size == SIZE64);

    op->dst = soft_operand_reg(l, 0);
    op->fn = forms[size][truncates                     ? KIND_GENERAL
                         : op->index == SOFT_SLOT_ZERO ? KIND_BASE
                                                       : KIND_INDEX];
}

/* ---- BSWAP, MOVBE ---------------------------------------------------------------------------- */

/* SDM calls BSWAP of 16 bits undefined; the host has an answer. */
SOFT_HANDLER(bswap16)
{
    uint32_t value = soft_reg16(cpu, op->dst);

    __asm__(".byte 0x66\n\tbswapl %0" : "+r"(value));
    soft_set_reg16(cpu, op->dst, (uint16_t)value);
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(bswap32)
{
    soft_set_reg32(cpu, op->dst, __builtin_bswap32(soft_reg32(cpu, op->dst)));
    SOFT_NEXT(cpu, op);
}
SOFT_HANDLER(bswap64)
{
    soft_set_reg64(cpu, op->dst, __builtin_bswap64(soft_reg64(cpu, op->dst)));
    SOFT_NEXT(cpu, op);
}

void soft_lower_bswap(struct soft_lower *l, uintptr_t arg)
{
    static soft_op_fn *const forms[SIZE_COUNT] = {NULL, bswap16, bswap32, bswap64};

    l->op->dst = soft_operand_reg(l, 0);
    l->op->fn = forms[soft_size_index(soft_operand(l, 0)->size)];
}

#define MOVBE_HANDLERS(bits)                                                                       \
    SOFT_READ_HANDLERS_X(movbe##bits##_rm, bits,                                                   \
                         soft_set_reg##bits(cpu, op->dst, __builtin_bswap##bits(m));)              \
    SOFT_WRITE_HANDLERS_X(movbe##bits##_mr, bits,                                                  \
                          __builtin_bswap##bits(soft_reg##bits(cpu, op->src)))
MOVBE_HANDLERS(16)
MOVBE_HANDLERS(32)
MOVBE_HANDLERS(64)

void soft_lower_movbe(struct soft_lower *l, uintptr_t arg)
{
    static soft_op_fn *const loads[SIZE_COUNT][KIND_COUNT] = {[SIZE16] = SOFT_KINDS_X(movbe16_rm),
                                                              [SIZE32] = SOFT_KINDS_X(movbe32_rm),
                                                              [SIZE64] = SOFT_KINDS_X(movbe64_rm)};
    static soft_op_fn *const stores[SIZE_COUNT][KIND_COUNT] = {[SIZE16] = SOFT_KINDS_X(movbe16_mr),
                                                               [SIZE32] = SOFT_KINDS_X(movbe32_mr),
                                                               [SIZE64] = SOFT_KINDS_X(movbe64_mr)};
    unsigned size = soft_size_index(soft_operand(l, 0)->size), kind = soft_address_kind(l);

    if (soft_is_memory(soft_operand(l, 0))) {
        l->op->src = soft_operand_reg(l, 1);
        l->op->fn = stores[size][kind];
    } else {
        l->op->dst = soft_operand_reg(l, 0);
        l->op->fn = loads[size][kind];
    }
}

/* ---- CMOVcc ---------------------------------------------------------------------------------- */

/* 32 bits clear the upper half whether the condition holds or not. */
#define CMOV_HANDLERS(name, cc)                                                                    \
    SOFT_HANDLER(cmov16_##name)                                                                    \
    {                                                                                              \
        uint16_t value = soft_reg16(cpu, op->src), old = soft_reg16(cpu, op->dst);                 \
        soft_set_reg16(cpu, op->dst, soft_cond_##name(cpu->status) ? value : old);                 \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(cmov32_##name)                                                                    \
    {                                                                                              \
        uint32_t value = soft_reg32(cpu, op->src), old = soft_reg32(cpu, op->dst);                 \
        soft_set_reg32(cpu, op->dst, soft_cond_##name(cpu->status) ? value : old);                 \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(cmov64_##name)                                                                    \
    {                                                                                              \
        uint64_t value = soft_reg64(cpu, op->src), old = soft_reg64(cpu, op->dst);                 \
        soft_set_reg64(cpu, op->dst, soft_cond_##name(cpu->status) ? value : old);                 \
        SOFT_NEXT(cpu, op);                                                                        \
    }
SOFT_EACH_COND(CMOV_HANDLERS)

/* Memory is read always (SDM volume 2, CMOVcc); op->aux is the condition. */
#define CMOV_MEMORY(bits)                                                                          \
    SOFT_READ_HANDLERS_X(cmov##bits##_rm, bits, uint##bits##_t old = soft_reg##bits(cpu, op->dst); \
                         soft_set_reg##bits(cpu, op->dst,                                          \
                                            soft_cond(cpu->status, op->aux) ? m : old);)
CMOV_MEMORY(16)
CMOV_MEMORY(32)
CMOV_MEMORY(64)

/* arg: the condition. */
void soft_lower_cmov(struct soft_lower *l, uintptr_t arg)
{
#define CMOV_ROW(name, cc) [cc] = {NULL, cmov16_##name, cmov32_##name, cmov64_##name},
    static soft_op_fn *const forms[16][SIZE_COUNT] = {SOFT_EACH_COND(CMOV_ROW)};
    static soft_op_fn *const loads[SIZE_COUNT][KIND_COUNT] = {[SIZE16] = SOFT_KINDS_X(cmov16_rm),
                                                              [SIZE32] = SOFT_KINDS_X(cmov32_rm),
                                                              [SIZE64] = SOFT_KINDS_X(cmov64_rm)};
    unsigned size = soft_size_index(soft_operand(l, 0)->size);

    l->op->dst = soft_operand_reg(l, 0);
    if (soft_is_memory(soft_operand(l, 1))) {
        l->op->aux = (uint16_t)arg;
        l->op->fn = loads[size][soft_address_kind(l)];
    } else {
        l->op->src = soft_operand_reg(l, 1);
        l->op->fn = forms[arg][size];
    }
}

/* ---- SETcc ----------------------------------------------------------------------------------- */

#define SETCC_HANDLERS(name, cc)                                                                   \
    SOFT_HANDLER(set_##name)                                                                       \
    {                                                                                              \
        soft_set_reg8(cpu, op->dst, soft_cond_##name(cpu->status));                                \
        SOFT_NEXT(cpu, op);                                                                        \
    }
SOFT_EACH_COND(SETCC_HANDLERS)
SOFT_WRITE_HANDLERS_X(set_m, 8, soft_cond(cpu->status, op->aux))

/* arg: the condition. */
void soft_lower_setcc(struct soft_lower *l, uintptr_t arg)
{
#define SETCC_ROW(name, cc) [cc] = set_##name,
    static soft_op_fn *const forms[16] = {SOFT_EACH_COND(SETCC_ROW)};
    static soft_op_fn *const stores[KIND_COUNT] = SOFT_KINDS_X(set_m);

    if (soft_is_memory(soft_operand(l, 0))) {
        l->op->aux = (uint16_t)arg;
        l->op->fn = stores[soft_address_kind(l)];
    } else {
        l->op->dst = soft_operand_reg(l, 0);
        l->op->fn = forms[arg];
    }
}
