/* SPDX-License-Identifier: MIT */
/* VEX-encoded instructions that access memory element by element, and string comparisons (SDM volume
 * 2): VMASKMOVPS…, VPMASKMOVD…, VMASKMOVDQU, VGATHERDPS…, VPGATHERDD…, VPCMPESTRI… */
#include <string.h>

#include "accel/soft/avx.h"
#include "accel/soft/sse.h"

/* op->aux of the elementwise instructions */
#define ELEMENT_SIZE(aux)  (1u << ((aux)&3))
#define ELEMENT_COUNT(aux) ((aux) >> 4 & 31)
#define ELEMENT_THIRD(aux) ((aux) >> 12 & 15) /* number of one more register */
#define ELEMENT_AUX(size_log2, count, third)                                                       \
    ((uint16_t)((size_log2) | (count) << 4 | (unsigned)(third) << 12))

/* Element i of a mask counts if its highest bit is set. */
static bool is_selected(const struct soft_vec *mask, unsigned size, unsigned i)
{
    return mask->b[size * i + size - 1] & 0x80;
}

/* ---- masked moves ----------------------------------------------------------------------------- */

/* Each element has an address of its own: what is masked out is not checked by segmentation either. */
static uint64_t element_linear(struct soft_cpu *cpu, const struct soft_op *op, unsigned size,
                               unsigned i, enum soft_access access)
{
    struct soft_op element = *op;

    if (!(op->info & SOFT_OP_GENERAL)) {
        return soft_linear_64(cpu, op) + size * i;
    }
    /* The displacement may wrap: it is sign-extended and the sum truncated to 32 bits at most. */
    element.disp = (int32_t)((uint32_t)op->disp + size * i);
    return soft_linear(cpu, &element, size, access);
}

/* dst: result, third: mask */
static void masked_load(struct soft_cpu *cpu, const struct soft_op *op)
{
    const struct soft_vec *mask = &cpu->vec[ELEMENT_THIRD(op->aux)];
    unsigned size = ELEMENT_SIZE(op->aux);
    struct soft_vec result = {.q = {0}};

    for (unsigned i = 0; i < ELEMENT_COUNT(op->aux); i++) {
        if (is_selected(mask, size, i)) {
            soft_load_bytes(cpu, op, element_linear(cpu, op, size, i, SOFT_READ),
                            result.b + size * i, size);
        }
    }
    cpu->vec[op->dst] = result;
}

/* src: data, third: mask. All faults come first. */
static void masked_store(struct soft_cpu *cpu, const struct soft_op *op)
{
    const struct soft_vec *mask = &cpu->vec[ELEMENT_THIRD(op->aux)];
    const struct soft_vec *data = &cpu->vec[op->src];
    unsigned size = ELEMENT_SIZE(op->aux), count = ELEMENT_COUNT(op->aux);
    uint64_t linear[16];

    for (unsigned i = 0; i < count; i++) {
        if (is_selected(mask, size, i)) {
            linear[i] = element_linear(cpu, op, size, i, SOFT_WRITE);
            if (!soft_write_pointer(cpu, linear[i], size)) {
                soft_probe_write(cpu, linear[i], size);
            }
        }
    }
    for (unsigned i = 0; i < count; i++) {
        if (is_selected(mask, size, i)) {
            soft_store_bytes(cpu, op, linear[i], data->b + size * i, size);
        }
    }
}

/* arg: log2 of the element's size */
void soft_lower_avx_masked_move(struct soft_lower *l, uintptr_t arg)
{
    unsigned count = (soft_avx_is_256(l) ? 32u : 16u) >> arg;

    if (!soft_avx_is_available(l)) {
        return;
    }
    /* The mask is VEX.vvvv in both forms. */
    l->op->aux = ELEMENT_AUX(arg, count, soft_reg_number(soft_operand(l, 1)->reg.value));
    if (soft_is_memory(soft_operand(l, 0))) {
        l->op->src = soft_reg_number(soft_operand(l, 2)->reg.value);
        soft_lower_call(l, masked_store);
    } else {
        l->op->dst = soft_reg_number(soft_operand(l, 0)->reg.value);
        soft_lower_call(l, masked_load);
    }
}

/* The memory operand is implicit: DS:rDI, with a segment override. */
void soft_lower_avx_maskmovdqu(struct soft_lower *l, uintptr_t arg)
{
    unsigned segment = X86_DS;

    (void)arg;
    if (!soft_avx_is_available(l)) {
        return;
    }
    for (unsigned i = 0; i < l->insn->operand_count; i++) {
        if (soft_is_memory(&l->operand[i])) {
            segment = soft_reg_number(l->operand[i].mem.segment);
        }
    }
    l->op->base = X86_RDI;
    l->op->index = SOFT_SLOT_ZERO;
    l->op->info = (uint8_t)segment;
    l->op->seg =
        (uint8_t)((l->mode & SOFT_MODE_CODE64) && segment < X86_FS ? SOFT_SLOT_ZERO
                                                                   : SOFT_SLOT_SEG + segment);
    if (l->insn->address_width != 64) {
        l->op->info |= SOFT_OP_GENERAL;
        l->op->info |= l->insn->address_width == 16 ? SOFT_OP_ADDR16 : SOFT_OP_ADDR32;
    }
    l->op->src = soft_reg_number(soft_operand(l, 0)->reg.value);
    l->op->aux = ELEMENT_AUX(0, 16, soft_reg_number(soft_operand(l, 1)->reg.value));
    soft_lower_call(l, masked_store);
}

/* ---- gathers ---------------------------------------------------------------------------------- */

#define GATHER_INDEX_64 0x08u /* op->aux: indices have 8 bytes, else 4 */

/* dst: result; src: indices; third: mask. An element that has been loaded is committed, and its mask
 * cleared, before the next one may fault: the instruction goes on from there. */
static void gather(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct soft_vec *dst = &cpu->vec[op->dst], *mask = &cpu->vec[ELEMENT_THIRD(op->aux)];
    const struct soft_vec *index = &cpu->vec[op->src];
    unsigned size = ELEMENT_SIZE(op->aux), count = ELEMENT_COUNT(op->aux);
    struct soft_op element = *op;
    bool check_alignment = cpu->tlb->check_alignment;
    bool is_256 = count * (op->aux & GATHER_INDEX_64 ? 8 : size) == 32;

    /* The mask's signs fill its elements first, also those that have no part. Nothing of that is taken
     * back by a fault. AMD's processors clear elements one by one only. */
    for (unsigned i = 0; cpu->features->is_intel && i < (is_256 ? 32 : 16) / size; i++) {
        memset(mask->b + size * i, is_selected(mask, size, i) ? 0xff : 0, size);
    }
    if (cpu->features->is_intel && !is_256) {
        memset(mask->b + 16, 0, 16);
    }
    /* SDM volume 2, exception type 12 has no #AC. A fault ends in another privilege or mode, where the
     * check is decided anew. */
    cpu->tlb->check_alignment = false;
    element.index = SOFT_SLOT_TEMP;
    for (unsigned i = 0; i < count; i++) {
        if (is_selected(mask, size, i)) {
            uint64_t linear;

            cpu->temp[0] =
                op->aux & GATHER_INDEX_64 ? index->q[i] : (uint64_t)(int64_t)(int32_t)index->d[i];
            linear = soft_linear(cpu, &element, size, SOFT_READ);
            if (size == 4) {
                dst->d[i] = soft_load32(cpu, op, linear);
            } else {
                dst->q[i] = soft_load64(cpu, op, linear);
            }
            if (!is_256 && cpu->features->is_intel) {
                memset(dst->b + 16, 0, 16); /* as by any write of a VEX.128 form */
            }
        }
        memset(mask->b + size * i, 0, size);
    }
    cpu->tlb->check_alignment = check_alignment;
    memset(mask, 0, sizeof(*mask));
    memset(dst->b + size * count, 0, sizeof(*dst) - size * count);
}

/* arg: log2 of the element's size, | 4 for 64-bit indices */
void soft_lower_avx_gather(struct soft_lower *l, uintptr_t arg)
{
    unsigned log2 = arg & 3, widest = arg & 4 || log2 == 3 ? 8 : 4;
    unsigned count = (soft_avx_is_256(l) ? 32 : 16) / widest;
    uint8_t dst, index, mask;

    if (!soft_avx_is_available(l)) {
        return;
    }
    dst = soft_reg_number(soft_operand(l, 0)->reg.value);
    index = soft_reg_number(soft_operand(l, 1)->mem.index);
    mask = soft_reg_number(soft_operand(l, 2)->reg.value);
    if (dst == index || dst == mask || index == mask) {
        soft_lower_raise(l, EXC_UD);
        return;
    }
    l->op->dst = dst;
    l->op->src = index;
    l->op->aux = ELEMENT_AUX(log2, count, mask) | (arg & 4 ? GATHER_INDEX_64 : 0);
    soft_lower_call(l, gather);
}

/* ---- string comparisons ------------------------------------------------------------------------ */

/* As in op_sse_string.c, whose functions they share; XMM0 as a result is extended by zeroes. */
typedef uint32_t text_fn(const void *a, const void *b, int32_t length_b, int32_t length_a,
                         void *result);
extern const uint8_t soft_sse_pcmpestri_table[], soft_sse_pcmpestrm_table[],
    soft_sse_pcmpistri_table[], soft_sse_pcmpistrm_table[];

#define TEXT_MASK   0x01u /* op->aux: the result is a mask in XMM0, not an index in ECX */
#define TEXT_LONG   0x02u /* lengths are RAX and RDX */
#define TEXT_MEMORY 0x04u

/* More than 16 in magnitude counts as 16. */
static int32_t text_length(const struct soft_cpu *cpu, const struct soft_op *op, enum x86_gpr reg)
{
    int64_t v = op->aux & TEXT_LONG ? (int64_t)cpu->gpr[reg] : (int32_t)cpu->gpr[reg];

    return v > 16 ? 16 : v < -16 ? -16 : (int32_t)v;
}

static __attribute__((noinline)) void text(struct soft_cpu *cpu, const struct soft_op *op)
{
    text_fn *fn = (text_fn *)(uintptr_t)op->imm;
    struct soft_vec a, b = cpu->vec[op->src], result = {.q = {0}};

    if (op->aux & TEXT_MEMORY) {
        soft_load_bytes(cpu, op, soft_linear(cpu, op, 16, SOFT_READ), &b, 16);
    }
    a = cpu->vec[op->dst];
    cpu->status =
        (uint16_t)fn(&a, &b, text_length(cpu, op, X86_RDX), text_length(cpu, op, X86_RAX), &result);
    if (op->aux & TEXT_MASK) {
        cpu->vec[0] = result;
    } else {
        cpu->gpr[X86_RCX] = result.q[0];
    }
}

static const struct soft_op *op_text(struct soft_cpu *cpu, const struct soft_op *op)
{
    text(cpu, op);
    SOFT_NEXT(cpu, op);
}

void soft_lower_avx_text(struct soft_lower *l, uintptr_t arg)
{
    const uint8_t *table;

    (void)arg;
    if (!soft_avx_is_available(l)) {
        return;
    }
    switch (l->insn->mnemonic) {
    case ZYDIS_MNEMONIC_VPCMPESTRI:
        table = soft_sse_pcmpestri_table;
        break;
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        table = soft_sse_pcmpestrm_table;
        l->op->aux |= TEXT_MASK;
        break;
    case ZYDIS_MNEMONIC_VPCMPISTRI:
        table = soft_sse_pcmpistri_table;
        break;
    default:
        table = soft_sse_pcmpistrm_table;
        l->op->aux |= TEXT_MASK;
    }
    if (l->insn->raw.vex.W && (l->mode & SOFT_MODE_CODE64)) {
        l->op->aux |= TEXT_LONG;
    }
    l->op->dst = soft_reg_number(soft_operand(l, 0)->reg.value);
    if (soft_is_memory(soft_operand(l, 1))) {
        l->op->aux |= TEXT_MEMORY;
    } else {
        l->op->src = soft_reg_number(soft_operand(l, 1)->reg.value);
    }
    l->op->imm = (uintptr_t)(table + (soft_operand(l, 2)->imm.value.u & 0x7f) * SSE_STUB);
    l->op->fn = op_text;
}
