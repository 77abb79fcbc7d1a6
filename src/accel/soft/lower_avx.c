/* SPDX-License-Identifier: MIT */
/* Lowering of VEX-encoded vector instructions: AVX, AVX2, F16C, FMA, and the VEX forms of AES and
 * PCLMULQDQ. */
#include "accel/soft/avx.h"
#include "accel/soft/avx_list.h"

/* What the table knows of an instruction whose work avx_stubs.S does. */
struct avx_insn {
    soft_avx_fn *fn[2];      /* 128 and 256 bits; or a general operand of 32 and 64 */
    const uint8_t *table[2]; /* by immediate */
    uint8_t mask[2], last[2];
    bool is_float; /* can have SIMD floating-point exceptions */
    bool tests;    /* the result are status flags, the first operand is a */
    bool by_size;  /* fn[] by the general operand's size */
};

/* Moves that mean several things: loads and stores of a part, or parts of two registers. */
struct avx_move {
    soft_avx_fn *load, *store, *merge;
};

bool soft_avx_is_available(struct soft_lower *l)
{
    const struct soft_features *f = l->features;
    bool has;

    /* AVX-512 has the same names. */
    if (l->insn->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX) {
        return false;
    }
    switch (l->insn->meta.isa_set) {
    case ZYDIS_ISA_SET_AVX:
        has = l->insn->mnemonic != ZYDIS_MNEMONIC_VPCLMULQDQ || f->pclmul;
        break;
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
        has = f->avx2;
        break;
    case ZYDIS_ISA_SET_AVXAES:
        has = f->aes;
        break;
    case ZYDIS_ISA_SET_F16C:
        has = f->f16c;
        break;
    case ZYDIS_ISA_SET_FMA:
        has = f->fma;
        break;
    default: /* VAES, VPCLMULQDQ with 256 bits */
        has = false;
    }
    return f->avx && has && soft_lower_unit(l, SOFT_MODE_AVX);
}

/* ---- operands --------------------------------------------------------------------------------- */

static bool is_gpr(const ZydisDecodedOperand *operand)
{
    if (!soft_is_register(operand)) {
        return false;
    }
    switch (ZydisRegisterGetClass(operand->reg.value)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return true;
    default:
        return false;
    }
}

static void lower_size(struct soft_lower *l, const ZydisDecodedOperand *operand)
{
    l->op->aux |= (uint16_t)((unsigned)__builtin_ctz(operand->size / 8u) << AVX_SIZE_SHIFT);
}

static void lower_result(struct soft_lower *l, const ZydisDecodedOperand *operand)
{
    if (soft_is_memory(operand)) {
        l->op->aux |= AVX_TO_MEMORY;
        lower_size(l, operand);
    } else if (is_gpr(operand)) {
        l->op->aux |= AVX_TO_GPR;
        l->op->dst = soft_gpr_offset(operand->reg.value);
    } else {
        l->op->dst = soft_reg_number(operand->reg.value);
    }
}

static void lower_b(struct soft_lower *l, const ZydisDecodedOperand *operand)
{
    if (soft_is_memory(operand)) {
        l->op->aux |= AVX_SRC_MEMORY;
        lower_size(l, operand);
    } else if (is_gpr(operand)) {
        l->op->aux |= AVX_SRC_GPR;
        l->op->src = soft_gpr_offset(operand->reg.value);
    } else {
        l->op->src = soft_reg_number(operand->reg.value);
    }
}

/* Fills dst, src, aux; the immediate's value, or -1. */
static int lower_operands(struct soft_lower *l, bool tests)
{
    int imm = -1;

    for (unsigned i = 0; i < l->insn->operand_count_visible; i++) {
        const ZydisDecodedOperand *o = soft_operand(l, i);

        if (soft_is_immediate(o)) {
            imm = (int)(o->imm.value.u & 0xff);
        } else if (i == 0 && tests) {
            l->op->aux |= soft_reg_number(o->reg.value) | AVX_TO_FLAGS;
        } else if (i == 0) {
            lower_result(l, o);
        } else if (o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD) {
            l->op->aux |= soft_reg_number(o->reg.value);
        } else if (o->encoding == ZYDIS_OPERAND_ENCODING_IS4) {
            l->op->aux |= (uint16_t)(soft_reg_number(o->reg.value) << AVX_C_SHIFT);
        } else {
            lower_b(l, o);
        }
    }
    return imm;
}

/* The handler for what op->aux says. */
static soft_op_fn *handler(const struct soft_lower *l, bool is_float)
{
    unsigned aux = l->op->aux;

    if ((aux & AVX_RESULT) != AVX_TO_VECTOR || (aux & AVX_SRC_GPR)) {
        return soft_avx_any;
    }
    if (!(aux & AVX_SRC_MEMORY)) {
        return is_float ? soft_avx_rr_float : soft_avx_rr;
    }
    return l->is_general ? soft_avx_any : is_float ? soft_avx_rm_float : soft_avx_rm;
}

/* Is the general operand, which is the first one or b, 64 bits wide? */
static bool is_64_bit(const struct soft_lower *l)
{
    const ZydisDecodedOperand *first = soft_operand(l, 0);

    return is_gpr(first) ? first->size == 64
                         : soft_operand(l, l->insn->operand_count_visible - 1u)->size == 64;
}

static bool checks_no_alignment(const struct soft_lower *l)
{
    return l->features->is_intel && l->has_memory &&
           (l->insn->mnemonic == ZYDIS_MNEMONIC_VCVTPH2PS ||
            l->insn->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH);
}

/* VPINSRQ, VPEXTRQ outside of 64-bit mode: the doubleword forms on Intel's processors, nothing on AMD's. */
static bool is_refused(const struct soft_lower *l)
{
    return !l->features->is_intel && !(l->mode & SOFT_MODE_CODE64) && l->insn->raw.vex.W &&
           (l->insn->mnemonic == ZYDIS_MNEMONIC_VPINSRD ||
            l->insn->mnemonic == ZYDIS_MNEMONIC_VPEXTRD);
}

/* arg: a struct avx_insn. Zydis has refused what is not there in 256 or in 128 bits; of scalar
 * instructions VEX.L is ignored. */
static void lower_avx(struct soft_lower *l, uintptr_t arg)
{
    const struct avx_insn *insn = (const struct avx_insn *)arg;
    unsigned form = insn->by_size ? is_64_bit(l) : soft_avx_is_256(l);
    int imm;

    if (!soft_avx_is_available(l)) {
        return;
    }
    if (is_refused(l)) {
        soft_lower_raise(l, EXC_UD);
        return;
    }
    imm = lower_operands(l, insn->tests);
    if (imm >= 0 && (insn->table[0] || insn->table[1])) {
        unsigned i;

        form = insn->table[form] ? form : !form;
        i = (unsigned)imm & insn->mask[form];
        i = i < insn->last[form] ? i : insn->last[form];
        l->op->imm = (uintptr_t)(insn->table[form] + i * AVX_STUB);
    } else {
        l->op->imm = (uintptr_t)insn->fn[insn->fn[form] ? form : !form];
    }
    if (insn->is_float) {
        l->op->aux |= AVX_FLOAT;
    }
    l->op->fn = handler(l, insn->is_float);
    if (checks_no_alignment(l)) {
        l->op->fn = soft_avx_unchecked;
    }
}

/* arg: a struct avx_move. */
static void lower_part(struct soft_lower *l, uintptr_t arg)
{
    const struct avx_move *move = (const struct avx_move *)arg;
    bool merges = l->insn->operand_count_visible == 3 && !l->has_memory;
    soft_avx_fn *fn = soft_is_memory(soft_operand(l, 0)) ? move->store
                      : merges                           ? move->merge
                                                         : move->load;

    if (soft_avx_is_available(l) && fn) {
        lower_operands(l, false);
        l->op->imm = (uintptr_t)fn;
        l->op->fn = handler(l, false);
    }
}

/* Whole registers. arg: memory must be aligned. */
static void lower_move(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *dst = soft_operand(l, 0), *src = soft_operand(l, 1);
    bool is_256 = soft_avx_is_256(l);

    if (!soft_avx_is_available(l)) {
        return;
    }
    if (arg) {
        l->op->aux = is_256 ? 31 : 15;
    }
    if (soft_is_memory(dst)) {
        l->op->src = soft_reg_number(src->reg.value);
        l->op->fn = is_256 ? soft_avx_store32 : soft_avx_store16;
        return;
    }
    l->op->dst = soft_reg_number(dst->reg.value);
    if (soft_is_memory(src)) {
        l->op->fn = is_256 ? soft_avx_load32 : soft_avx_load16;
    } else {
        l->op->src = soft_reg_number(src->reg.value);
        l->op->fn = is_256 ? soft_avx_move32 : soft_avx_move16;
    }
}

/* arg: a soft_op_fn */
static void lower_zero(struct soft_lower *l, uintptr_t arg)
{
    if (soft_avx_is_available(l)) {
        l->op->fn = (soft_op_fn *)arg;
    }
}

/* ---- functions of avx_stubs.S, and what the table says of them --------------------------------- */

#define FN(name, w)    soft_avx_##name##_##w
#define TABLE(name, w) soft_avx_##name##_table_##w

#define BOTH(name, ...)                                                                            \
    extern soft_avx_fn FN(name, x), FN(name, y);                                                   \
    static const struct avx_insn insn_##name = {.fn = {FN(name, x), FN(name, y)}, __VA_ARGS__};
#define ONLY(name, i, w, ...)                                                                      \
    extern soft_avx_fn FN(name, w);                                                                \
    static const struct avx_insn insn_##name = {.fn = {[i] = FN(name, w)}, __VA_ARGS__};
#define BOTH_IMM(name, mask_, last_, mask256, last256, ...)                                        \
    extern const uint8_t TABLE(name, x)[], TABLE(name, y)[];                                       \
    static const struct avx_insn insn_##name = {.table = {TABLE(name, x), TABLE(name, y)},         \
                                                .mask = {mask_, mask256},                          \
                                                .last = {last_, last256},                          \
                                                __VA_ARGS__};
#define ONLY_IMM(name, i, w, mask_, last_, ...)                                                    \
    extern const uint8_t TABLE(name, w)[];                                                         \
    static const struct avx_insn insn_##name = {.table = {[i] = TABLE(name, w)},                   \
                                                .mask = {[i] = mask_},                             \
                                                .last = {[i] = last_},                             \
                                                __VA_ARGS__};

#define FLOAT .is_float = true

#define X(name, mnemonic) BOTH(name, )
AVX_LIST_THREE_BOTH(X)
AVX_LIST_TWO_BOTH(X)
AVX_LIST_BLEND(X)
AVX_LIST_TO_GPR(X)
#undef X
#define X(name, mnemonic) BOTH(name, FLOAT)
AVX_LIST_THREE_BOTH_FLOAT(X)
AVX_LIST_TWO_BOTH_FLOAT(X)
AVX_LIST_TWO_NARROW_FLOAT(X)
AVX_LIST_FMA_BOTH_FLOAT(X)
#undef X
#define X(name, mnemonic) ONLY(name, 1, y, )
AVX_LIST_THREE_256(X)
AVX_LIST_TWO_256(X)
#undef X
#define X(name, mnemonic) ONLY(name, 0, x, )
AVX_LIST_THREE_128(X)
AVX_LIST_TWO_128(X)
#undef X
#define X(name, mnemonic) ONLY(name, 0, x, FLOAT)
AVX_LIST_THREE_128_FLOAT(X)
AVX_LIST_FMA_128_FLOAT(X)
#undef X
#define X(name, mnemonic) BOTH(name, FLOAT, .by_size = true)
AVX_LIST_CONVERT_TO_GPR_FLOAT(X)
AVX_LIST_CONVERT_FROM_GPR_FLOAT(X)
#undef X
#define X(name, mnemonic) BOTH(name, .tests = true)
AVX_LIST_TEST(X)
#undef X
#define X(name, mnemonic) ONLY(name, 0, x, FLOAT, .tests = true)
AVX_LIST_COMPARE_FLOAT(X)
#undef X
#define X(name, mnemonic, ...) BOTH_IMM(name, __VA_ARGS__, )
AVX_LIST_THREE_IMM_BOTH(X)
AVX_LIST_TWO_IMM_BOTH(X)
AVX_LIST_REG_IMM_BOTH(X)
#undef X
#define X(name, mnemonic, ...) BOTH_IMM(name, __VA_ARGS__, FLOAT)
AVX_LIST_THREE_IMM_BOTH_FLOAT(X)
AVX_LIST_TWO_IMM_BOTH_FLOAT(X)
AVX_LIST_HALVES_FLOAT(X)
#undef X
#define X(name, mnemonic, ...) ONLY_IMM(name, 1, y, __VA_ARGS__, )
AVX_LIST_THREE_IMM_256(X)
AVX_LIST_TWO_IMM_256(X)
AVX_LIST_EXTRACT_256(X)
#undef X
#define X(name, mnemonic, ...) ONLY_IMM(name, 0, x, __VA_ARGS__, )
AVX_LIST_THREE_IMM_128(X)
AVX_LIST_TWO_IMM_128(X)
#undef X
#define X(name, mnemonic, ...) ONLY_IMM(name, 0, x, __VA_ARGS__, FLOAT)
AVX_LIST_THREE_IMM_128_FLOAT(X)
#undef X
#define X(name, mnemonic, ...)                                                                     \
    ONLY_IMM(name, 0, x, __VA_ARGS__, )                                                            \
    ONLY_IMM(name##_reg, 0, x, __VA_ARGS__, )
AVX_LIST_INSERT(X)
#undef X
#define X(name, mnemonic, mask, last, register) ONLY_IMM(name, 0, x, mask, last, )
AVX_LIST_EXTRACT(X)
#undef X
/* With an immediate or a third register. */
#define X(name, mnemonic, ...)                                                                     \
    extern soft_avx_fn FN(name, x), FN(name, y);                                                   \
    BOTH_IMM(name, __VA_ARGS__, .fn = {FN(name, x), FN(name, y)})
AVX_LIST_SHIFT(X)
AVX_LIST_PERMIL(X)
#undef X

extern soft_avx_fn FN(move4, x), FN(move8, x), FN(move_high, x), FN(merge4, x), FN(merge8, x),
    FN(merge_low, x), FN(merge_high, x), FN(high_to_low, x), FN(low_to_high, x);
static const struct avx_move move_ss = {FN(move4, x), FN(move4, x), FN(merge4, x)},
                             move_sd = {FN(move8, x), FN(move8, x), FN(merge8, x)},
                             move_d = {FN(move4, x), FN(move4, x), NULL},
                             move_q = {FN(move8, x), FN(move8, x), NULL},
                             move_low = {FN(merge_low, x), FN(move8, x), NULL},
                             move_high = {FN(merge_high, x), FN(move_high, x), NULL},
                             move_high_to_low = {NULL, NULL, FN(high_to_low, x)},
                             move_low_to_high = {NULL, NULL, FN(low_to_high, x)};

/* In memory the element is the operand itself. */
static void lower_insert(struct soft_lower *l, uintptr_t arg)
{
    (void)arg;
    lower_avx(l, (uintptr_t)(l->has_memory ? &insn_vinsertps : &insn_vinsertps_reg));
}

/* ---- the table -------------------------------------------------------------------------------- */

#define ROW(mnemonic, fn, arg)                                                                     \
    {                                                                                              \
        ZYDIS_MNEMONIC_##mnemonic, SOFT_IF(avx), fn, (uintptr_t)(arg)                              \
    }
#define X(name, mnemonic, ...) ROW(mnemonic, lower_avx, &insn_##name),

const struct soft_lowering soft_lowering_avx[] = {
    /* clang-format off */
    AVX_LIST_THREE_BOTH(X)
    AVX_LIST_THREE_BOTH_FLOAT(X)
    AVX_LIST_THREE_256(X)
    AVX_LIST_THREE_128(X)
    AVX_LIST_THREE_128_FLOAT(X)
    AVX_LIST_TWO_BOTH(X)
    AVX_LIST_TWO_BOTH_FLOAT(X)
    AVX_LIST_TWO_NARROW_FLOAT(X)
    AVX_LIST_TWO_256(X)
    AVX_LIST_TWO_128(X)
    AVX_LIST_BLEND(X)
    AVX_LIST_TO_GPR(X)
    AVX_LIST_CONVERT_TO_GPR_FLOAT(X)
    AVX_LIST_CONVERT_FROM_GPR_FLOAT(X)
    AVX_LIST_TEST(X)
    AVX_LIST_COMPARE_FLOAT(X)
    AVX_LIST_FMA_BOTH_FLOAT(X)
    AVX_LIST_FMA_128_FLOAT(X)
    AVX_LIST_THREE_IMM_BOTH(X)
    AVX_LIST_THREE_IMM_BOTH_FLOAT(X)
    AVX_LIST_THREE_IMM_256(X)
    AVX_LIST_THREE_IMM_128(X)
    AVX_LIST_THREE_IMM_128_FLOAT(X)
    AVX_LIST_TWO_IMM_BOTH(X)
    AVX_LIST_TWO_IMM_BOTH_FLOAT(X)
    AVX_LIST_TWO_IMM_256(X)
    AVX_LIST_TWO_IMM_128(X)
    AVX_LIST_REG_IMM_BOTH(X)
    AVX_LIST_EXTRACT_256(X)
    AVX_LIST_HALVES_FLOAT(X)
    AVX_LIST_EXTRACT(X)
    AVX_LIST_SHIFT(X)
    AVX_LIST_PERMIL(X)
    /* clang-format on */
    ROW(VINSERTPS, lower_insert, 0),

    ROW(VMOVUPS, lower_move, false),
    ROW(VMOVUPD, lower_move, false),
    ROW(VMOVDQU, lower_move, false),
    ROW(VLDDQU, lower_move, false),
    ROW(VMOVAPS, lower_move, true),
    ROW(VMOVAPD, lower_move, true),
    ROW(VMOVDQA, lower_move, true),
    ROW(VMOVNTPS, lower_move, true),
    ROW(VMOVNTPD, lower_move, true),
    ROW(VMOVNTDQ, lower_move, true),
    ROW(VMOVNTDQA, lower_move, true),

    ROW(VMOVSS, lower_part, &move_ss),
    ROW(VMOVSD, lower_part, &move_sd),
    ROW(VMOVD, lower_part, &move_d),
    ROW(VMOVQ, lower_part, &move_q),
    ROW(VMOVLPS, lower_part, &move_low),
    ROW(VMOVLPD, lower_part, &move_low),
    ROW(VMOVHPS, lower_part, &move_high),
    ROW(VMOVHPD, lower_part, &move_high),
    ROW(VMOVHLPS, lower_part, &move_high_to_low),
    ROW(VMOVLHPS, lower_part, &move_low_to_high),

    ROW(VZEROALL, lower_zero, soft_avx_vzeroall),
    ROW(VZEROUPPER, lower_zero, soft_avx_vzeroupper),

    /* log2 of the element's size, 4: 64-bit indices */
    ROW(VMASKMOVPS, soft_lower_avx_masked_move, 2),
    ROW(VMASKMOVPD, soft_lower_avx_masked_move, 3),
    ROW(VPMASKMOVD, soft_lower_avx_masked_move, 2),
    ROW(VPMASKMOVQ, soft_lower_avx_masked_move, 3),
    ROW(VMASKMOVDQU, soft_lower_avx_maskmovdqu, 0),
    ROW(VGATHERDPS, soft_lower_avx_gather, 2),
    ROW(VGATHERDPD, soft_lower_avx_gather, 3),
    ROW(VGATHERQPS, soft_lower_avx_gather, 2 | 4),
    ROW(VGATHERQPD, soft_lower_avx_gather, 3 | 4),
    ROW(VPGATHERDD, soft_lower_avx_gather, 2),
    ROW(VPGATHERDQ, soft_lower_avx_gather, 3),
    ROW(VPGATHERQD, soft_lower_avx_gather, 2 | 4),
    ROW(VPGATHERQQ, soft_lower_avx_gather, 3 | 4),
    ROW(VPCMPESTRI, soft_lower_avx_text, 0),
    ROW(VPCMPESTRM, soft_lower_avx_text, 0),
    ROW(VPCMPISTRI, soft_lower_avx_text, 0),
    ROW(VPCMPISTRM, soft_lower_avx_text, 0),
    {ZYDIS_MNEMONIC_INVALID},
};
