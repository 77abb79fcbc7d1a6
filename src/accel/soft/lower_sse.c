/* SPDX-License-Identifier: MIT */
/* MMX and SSE instructions, legacy encodings: which operation does what Zydis has decoded; sse.h. */
#include "accel/soft/lower.h"

#include "accel/soft/sse.h"
#include "accel/soft/sse_list.h"

/* ---- parts ----------------------------------------------------------------------------------- */

static bool has_feature(const struct soft_lower *l, uint16_t feature)
{
    return *(const bool *)((const uint8_t *)l->features + feature);
}

static bool is_mmx(const ZydisDecodedOperand *operand)
{
    return soft_is_register(operand) &&
           ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_MMX;
}
static bool is_gpr(const ZydisDecodedOperand *operand)
{
    if (!soft_is_register(operand)) {
        return false;
    }
    switch (ZydisRegisterGetClass(operand->reg.value)) {
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return true;
    default:
        return false;
    }
}

/* An XMM or MMX register's number, a general register's offset. */
static uint8_t register_of(const ZydisDecodedOperand *operand)
{
    return is_gpr(operand) ? soft_gpr_offset(operand->reg.value)
                           : soft_reg_number(operand->reg.value);
}

/* The feature and the units that op->aux needs; else the instruction raises. */
static bool is_available(struct soft_lower *l, uint16_t feature, bool uses_xmm)
{
    return has_feature(l, feature) && (!uses_xmm || soft_lower_unit(l, SOFT_MODE_SSE)) &&
           (!(l->op->aux & SSE_MMX) || soft_lower_unit(l, SOFT_MODE_FPU));
}

static soft_sse_fn *from_table(const uint8_t *table, uint64_t imm, uint8_t mask, uint8_t max)
{
    uint64_t index = imm & mask;

    return (soft_sse_fn *)(uintptr_t)(table + (index < max ? index : max) * SSE_STUB);
}

/* Handlers once op->aux and op->imm are known. */
static void set_handler(struct soft_lower *l, soft_op_fn *rr, soft_op_fn *rm)
{
    struct soft_op *op = l->op;
    const ZydisDecodedOperand *dst = &l->operand[0], *src = &l->operand[1];

    if (soft_is_memory(dst)) {
        op->src = register_of(src);
        op->fn = soft_sse_mr;
        return;
    }
    op->dst = register_of(dst);
    if (soft_is_memory(src)) {
        op->fn = rm && !l->is_general ? rm : soft_sse_rm;
        return;
    }
    if (soft_is_register(src)) {
        op->src = register_of(src);
    }
    op->fn = rr ? rr : soft_sse_rr;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static void lower_mmx(struct soft_lower *l, const struct soft_sse_insn *insn)
{
    soft_sse_fn *fn = insn->mmx;

    l->op->aux = insn->mmx_operands;
    if (insn->mmx_table) {
        fn = from_table(insn->mmx_table, l->operand[2].imm.value.u, insn->mmx_imm_mask,
                        insn->mmx_imm_max);
    }
    if (fn && is_available(l, insn->mmx_feature, false)) {
        l->op->imm = (uint64_t)(uintptr_t)fn;
        set_handler(l, NULL, NULL);
    }
}

static void lower_xmm(struct soft_lower *l, const struct soft_sse_insn *insn)
{
    soft_op_fn *rr = insn->rr, *rm = insn->rm;
    soft_sse_fn *fn = insn->fn;
    uint16_t special = SSE_FLOAT | SSE_MMX | SSE_DST_GPR | SSE_SRC_GPR;

    l->op->aux = insn->operands;
    if (insn->table) {
        unsigned last = l->insn->operand_count_visible - 1u;

        fn = from_table(insn->table, l->operand[last].imm.value.u, insn->imm_mask, insn->imm_max);
        if (!(insn->operands & special)) {
            rr = soft_sse_call_rr;
            rm = insn->operands & SSE_ALIGNED ? soft_sse_call_rm16 : NULL;
        }
    }
    if (fn && is_available(l, insn->feature, true)) {
        l->op->imm = (uint64_t)(uintptr_t)fn;
        set_handler(l, rr, rm);
    }
}

/* arg: struct soft_sse_insn. MMX or XMM registers. */
static void lower_insn(struct soft_lower *l, uintptr_t arg)
{
    const struct soft_sse_insn *insn = (const struct soft_sse_insn *)arg;

    if ((insn->mmx || insn->mmx_table) && (is_mmx(&l->operand[0]) || is_mmx(&l->operand[1]))) {
        lower_mmx(l, insn);
    } else {
        lower_xmm(l, insn);
    }
}

/* arg: CVTPI2PS, CVTPI2PD. From memory they do nothing to x87 (SDM volume 2, CVTPI2PD; processors do
 * the same for CVTPI2PS, whose description has no such words). */
static void lower_cvtpi(struct soft_lower *l, uintptr_t arg)
{
    struct soft_sse_insn insn = *(const struct soft_sse_insn *)arg;

    if (l->has_memory) {
        insn.operands &= (uint16_t)~SSE_SRC_MMX;
    }
    lower_xmm(l, &insn);
}

/* arg: two of them, for general registers (or memory) of 32 and 64 bits. */
static void lower_sized(struct soft_lower *l, uintptr_t arg)
{
    const struct soft_sse_insn *insn = (const struct soft_sse_insn *)arg;
    bool is_to_gpr = insn->operands & SSE_DST_GPR;

    lower_insn(l, (uintptr_t)&insn[l->operand[is_to_gpr ? 0 : 1].size == 64]);
}

/* arg: the handler of a shift by an immediate; its other forms are insn's. */
static void lower_shift(struct soft_lower *l, const struct soft_sse_insn *insn, soft_op_fn *ri)
{
    struct soft_op *op = l->op;

    if (!soft_is_immediate(&l->operand[1])) {
        lower_insn(l, (uintptr_t)insn);
        return;
    }
    if (is_mmx(&l->operand[0])) {
        op->aux = SSE_DST_MMX;
        if (!is_available(l, insn->mmx_feature, false)) {
            return;
        }
        op->imm = (uint64_t)(uintptr_t)insn->mmx;
        op->fn = soft_mmx_shift;
    } else {
        if (!is_available(l, insn->feature, true)) {
            return;
        }
        op->fn = ri;
    }
    op->dst = soft_reg_number(l->operand[0].reg.value);
    op->src = (uint8_t)l->operand[1].imm.value.u;
}

#define LOWER_SHIFT(name, mnemonic)                                                                \
    static void lower_##name(struct soft_lower *l, uintptr_t arg)                                  \
    {                                                                                              \
        lower_shift(l, &soft_insn_##name, soft_sse_##name##_ri);                                   \
    }
SSE_LIST_SHIFT(LOWER_SHIFT)

/* arg: struct soft_sse_pair */
static void lower_pair(struct soft_lower *l, uintptr_t arg)
{
    const struct soft_sse_pair *pair = (const struct soft_sse_pair *)arg;

    if (!is_available(l, pair->feature, true)) {
        return;
    }
    l->op->dst = register_of(&l->operand[0]);
    if (soft_is_memory(&l->operand[1])) {
        l->op->fn = pair->rm;
    } else {
        l->op->src = register_of(&l->operand[1]);
        l->op->fn = pair->rr;
    }
}

/* ---- moves ----------------------------------------------------------------------------------- */

/* arg: struct soft_sse_move */
static void lower_move(struct soft_lower *l, uintptr_t arg)
{
    const struct soft_sse_move *move = (const struct soft_sse_move *)arg;
    struct soft_op *op = l->op;
    soft_sse_fn *fn;

    op->aux = move->operands;
    if (!is_available(l, move->feature, true)) {
        return;
    }
    if (soft_is_memory(&l->operand[0])) {
        fn = move->store.fn;
        op->src = register_of(&l->operand[1]);
        op->fn = l->is_general ? soft_sse_mr : move->store.fast;
    } else if (soft_is_memory(&l->operand[1])) {
        fn = move->load.fn;
        op->dst = register_of(&l->operand[0]);
        op->fn = l->is_general ? soft_sse_rm : move->load.fast;
    } else {
        fn = move->rr.fn;
        op->dst = register_of(&l->operand[0]);
        op->src = register_of(&l->operand[1]);
        op->fn = move->rr.fast;
    }
    op->imm = (uint64_t)(uintptr_t)fn;
    if (!fn) {
        op->fn = NULL;
    }
}

/* MOVD of either register file: operand 0 or 1 is general or memory. */
static void lower_movd(struct soft_lower *l, uintptr_t arg)
{
    bool is_to = soft_is_memory(&l->operand[0]) || is_gpr(&l->operand[0]);
    unsigned wide = l->operand[is_to ? 0 : 1].size == 64;

    if (!is_to) {
        lower_insn(l, (uintptr_t)&soft_insn_movd_from_gpr[wide]);
    } else if (soft_is_memory(&l->operand[0]) && !is_mmx(&l->operand[1])) {
        lower_move(l, (uintptr_t)(wide ? &soft_move_movq : &soft_move_movd));
    } else {
        lower_insn(l, (uintptr_t)&soft_insn_movd_to_gpr[wide]);
    }
}

/* MOVQ mm, mm/m64 and back; MOVNTQ */
static const struct soft_sse_insn mmx_move = {
    .mmx = soft_sse_copy8,
    .mmx_operands = 8 | SSE_DST_MMX | SSE_SRC_MMX,
    .mmx_feature = SOFT_IF(mmx),
};
static const struct soft_sse_insn mmx_nontemporal = {
    .mmx = soft_sse_copy8,
    .mmx_operands = 8 | SSE_SRC_MMX,
    .mmx_feature = SOFT_IF(sse),
};

/* The name of three instructions: with a general register it is MOVD. */
static void lower_movq(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *a = &l->operand[0], *b = &l->operand[1];

    if (is_gpr(a) || is_gpr(b)) {
        lower_movd(l, arg);
    } else if (is_mmx(a) || is_mmx(b)) {
        lower_insn(l, (uintptr_t)&mmx_move);
    } else {
        lower_move(l, (uintptr_t)&soft_move_movq);
    }
}

static void lower_emms(struct soft_lower *l, uintptr_t arg)
{
    if (soft_lower_unit(l, SOFT_MODE_FPU)) {
        l->op->fn = soft_mmx_emms;
    }
}

/* ---- elements: PEXTR, PINSR and what else has an immediate ------------------------------------- */

extern const uint8_t soft_sse_palignr_table[], soft_sse_palignr_mmx_table[],
    soft_sse_pshufw_table[], soft_sse_insertps_table[], soft_sse_pinsrb_table[],
    soft_sse_pinsrw_table[], soft_sse_pinsrd_table[], soft_sse_pinsrq_table[],
    soft_sse_pinsrw_mmx_table[], soft_sse_pextrb_table[], soft_sse_pextrw_table[],
    soft_sse_pextrd_table[], soft_sse_pextrq_table[], soft_sse_pextrw_mmx_table[];

#define IMMEDIATE(name, mnemonic, feature_, bytes, mask, max, flags)                               \
    static const struct soft_sse_insn insn_##name = {                                              \
        .table = soft_sse_##name##_table,                                                          \
        .imm_mask = mask,                                                                          \
        .imm_max = max,                                                                            \
        .operands = bytes | (bytes == 16 ? SSE_ALIGNED : 0) | flags,                               \
        .feature = SOFT_IF(feature_),                                                              \
    };
SSE_LIST_IMMEDIATE(IMMEDIATE)
IMMEDIATE(pinsrb, PINSRB, sse4_1, 1, 15, 15, SSE_SRC_GPR)
IMMEDIATE(pinsrd, PINSRD, sse4_1, 4, 3, 3, SSE_SRC_GPR)
IMMEDIATE(pinsrq, PINSRQ, sse4_1, 8, 1, 1, SSE_SRC_GPR)
IMMEDIATE(pextrb, PEXTRB, sse4_1, 1, 15, 15, SSE_DST_GPR)
IMMEDIATE(pextrd, PEXTRD, sse4_1, 4, 3, 3, SSE_DST_GPR)
IMMEDIATE(pextrq, PEXTRQ, sse4_1, 8, 1, 1, SSE_DST_GPR)

static const struct soft_sse_insn insn_palignr = {
    .table = soft_sse_palignr_table,
    .imm_mask = 0xff,
    .imm_max = 32,
    .operands = 16 | SSE_ALIGNED,
    .feature = SOFT_IF(ssse3),
    .mmx_table = soft_sse_palignr_mmx_table,
    .mmx_imm_mask = 0xff,
    .mmx_imm_max = 16,
    .mmx_operands = 8 | SSE_DST_MMX | SSE_SRC_MMX,
    .mmx_feature = SOFT_IF(ssse3),
};
static const struct soft_sse_insn insn_pshufw = {
    .mmx_table = soft_sse_pshufw_table,
    .mmx_imm_mask = 0xff,
    .mmx_imm_max = 0xff,
    .mmx_operands = 8 | SSE_DST_MMX | SSE_SRC_MMX,
    .mmx_feature = SOFT_IF(sse),
};
static const struct soft_sse_insn insn_pinsrw = {
    .table = soft_sse_pinsrw_table,
    .imm_mask = 7,
    .imm_max = 7,
    .operands = 2 | SSE_SRC_GPR,
    .feature = SOFT_IF(sse2),
    .mmx_table = soft_sse_pinsrw_mmx_table,
    .mmx_imm_mask = 3,
    .mmx_imm_max = 3,
    .mmx_operands = 2 | SSE_SRC_GPR | SSE_DST_MMX,
    .mmx_feature = SOFT_IF(sse),
};
static const struct soft_sse_insn insn_pextrw = {
    .table = soft_sse_pextrw_table,
    .imm_mask = 7,
    .imm_max = 7,
    .operands = 2 | SSE_DST_GPR,
    .feature = SOFT_IF(sse2),
    .mmx_table = soft_sse_pextrw_mmx_table,
    .mmx_imm_mask = 3,
    .mmx_imm_max = 3,
    .mmx_operands = 8 | SSE_SRC_MMX | SSE_DST_GPR,
    .mmx_feature = SOFT_IF(sse),
};

/* SSE2's form has a register; the one of SSE4.1 has memory, too. */
static void lower_pextrw(struct soft_lower *l, uintptr_t arg)
{
    struct soft_sse_insn insn = insn_pextrw;

    if (l->insn->opcode_map == ZYDIS_OPCODE_MAP_0F3A) {
        insn.feature = SOFT_IF(sse4_1);
    }
    lower_insn(l, (uintptr_t)&insn);
}

/* From memory it is always the dword there: bits 7:6 do not count. */
static void lower_insertps(struct soft_lower *l, uintptr_t arg)
{
    struct soft_sse_insn insn = {
        .table = soft_sse_insertps_table,
        .imm_mask = soft_is_memory(&l->operand[1]) ? 0x3f : 0xff,
        .imm_max = 0xff,
        .operands = 4,
        .feature = SOFT_IF(sse4_1),
    };

    lower_xmm(l, &insn);
}

/* ---- the table ------------------------------------------------------------------------------- */

#define ROW(mnemonic, fn, arg)                                                                     \
    {                                                                                              \
        ZYDIS_MNEMONIC_##mnemonic, SOFT_ALWAYS, fn, arg                                            \
    }
#define INSN(name, mnemonic)  ROW(mnemonic, lower_insn, (uintptr_t)&soft_insn_##name)
#define TABLE(name, mnemonic) ROW(mnemonic, lower_insn, (uintptr_t)&insn_##name)
#define PAIR(name, mnemonic)  ROW(mnemonic, lower_pair, (uintptr_t)&soft_pair_##name)
#define SIZED(name, mnemonic) ROW(mnemonic, lower_sized, (uintptr_t)soft_insn_##name)
#define MOVE(mnemonic, move)  ROW(mnemonic, lower_move, (uintptr_t)&soft_move_##move)

/* Rows of the lists. */
#define ROW_INSN(name, mnemonic, ...)  INSN(name, mnemonic),
#define ROW_TABLE(name, mnemonic, ...) TABLE(name, mnemonic),
#define ROW_SHIFT(name, mnemonic)      ROW(mnemonic, lower_##name, 0),

const struct soft_lowering soft_lowering_sse[] = {
    /* clang-format off */
    SSE_LIST_DUAL(ROW_INSN)
    SSE_LIST_SHIFT(ROW_SHIFT)
    SSE_LIST_INTEGER(ROW_INSN)
    SSE_LIST_XMM0(ROW_INSN)
    SSE_LIST_FLOAT(ROW_INSN)
    SSE_LIST_IMMEDIATE(ROW_TABLE)
    /* clang-format on */
    TABLE(pinsrb, PINSRB),
    TABLE(pinsrw, PINSRW),
    TABLE(pinsrd, PINSRD),
    TABLE(pinsrq, PINSRQ),
    TABLE(pextrb, PEXTRB),
    TABLE(pextrd, PEXTRD),
    TABLE(pextrq, PEXTRQ),
    TABLE(pextrd, EXTRACTPS),
    TABLE(palignr, PALIGNR),
    TABLE(pshufw, PSHUFW),
    ROW(PEXTRW, lower_pextrw, 0),
    ROW(INSERTPS, lower_insertps, 0),

    MOVE(MOVAPS, aligned[0]),
    MOVE(MOVAPD, aligned[1]),
    MOVE(MOVDQA, aligned[2]),
    MOVE(MOVUPS, unaligned[0]),
    MOVE(MOVUPD, unaligned[1]),
    MOVE(MOVDQU, unaligned[2]),
    MOVE(LDDQU, lddqu),
    MOVE(MOVNTDQA, movntdqa),
    MOVE(MOVNTPS, nontemporal[0]),
    MOVE(MOVNTPD, nontemporal[1]),
    MOVE(MOVNTDQ, nontemporal[1]),
    MOVE(MOVSS, movss),
    MOVE(MOVSD, movsd),
    MOVE(MOVLPS, movlps[0]),
    MOVE(MOVLPD, movlps[1]),
    MOVE(MOVHPS, movhps[0]),
    MOVE(MOVHPD, movhps[1]),
    MOVE(MOVHLPS, movhlps),
    MOVE(MOVLHPS, movlhps),
    ROW(MOVD, lower_movd, 0),
    ROW(MOVQ, lower_movq, 0),
    ROW(MOVNTQ, lower_insn, (uintptr_t)&mmx_nontemporal),
    INSN(movq2dq, MOVQ2DQ),
    INSN(movdq2q, MOVDQ2Q),
    ROW(MASKMOVDQU, soft_lower_masked_move, 0),
    ROW(MASKMOVQ, soft_lower_masked_move, 0),
    {ZYDIS_MNEMONIC_EMMS, SOFT_IF(mmx), lower_emms, 0},

    PAIR(comiss, COMISS),
    PAIR(comisd, COMISD),
    PAIR(ucomiss, UCOMISS),
    PAIR(ucomisd, UCOMISD),
    PAIR(ptest, PTEST),
    SIZED(cvtsi2ss, CVTSI2SS),
    SIZED(cvtsi2sd, CVTSI2SD),
    SIZED(cvtss2si, CVTSS2SI),
    SIZED(cvtsd2si, CVTSD2SI),
    SIZED(cvttss2si, CVTTSS2SI),
    SIZED(cvttsd2si, CVTTSD2SI),
    INSN(movmskps, MOVMSKPS),
    INSN(movmskpd, MOVMSKPD),
    INSN(pmovmskb, PMOVMSKB),
    ROW(CVTPI2PS, lower_cvtpi, (uintptr_t)&soft_insn_cvtpi2ps),
    ROW(CVTPI2PD, lower_cvtpi, (uintptr_t)&soft_insn_cvtpi2pd),
    INSN(cvtps2pi, CVTPS2PI),
    INSN(cvttps2pi, CVTTPS2PI),
    INSN(cvtpd2pi, CVTPD2PI),
    INSN(cvttpd2pi, CVTTPD2PI),
    ROW(PCMPESTRI, soft_lower_sse_text, 0),
    ROW(PCMPESTRM, soft_lower_sse_text, 0),
    ROW(PCMPISTRI, soft_lower_sse_text, 0),
    ROW(PCMPISTRM, soft_lower_sse_text, 0),
    {0},
};
