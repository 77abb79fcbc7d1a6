/* SPDX-License-Identifier: MIT */
/* PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM; MASKMOVDQU, MASKMOVQ; EMMS. */
#include <string.h>

#include "accel/soft/sse.h"

/* ---- PCMPxSTRx (SDM volume 2, 4.1) --------------------------------------------------------------- */

/* sse_immediate.S; by the low 7 bits of the immediate */
typedef uint32_t text_fn(const void *a, const void *b, int32_t length_b, int32_t length_a,
                         void *result);
extern const uint8_t soft_sse_pcmpestri_table[], soft_sse_pcmpestrm_table[],
    soft_sse_pcmpistri_table[], soft_sse_pcmpistrm_table[];

#define TEXT_MASK   0x01u /* op->aux: the result is a mask in XMM0, not an index in ECX */
#define TEXT_LONG   0x02u /* lengths are RAX and RDX */
#define TEXT_MEMORY 0x04u

/* The magnitude counts, and no more than 16 of it: what fits into the host's short form. */
static int32_t length(struct soft_cpu *cpu, const struct soft_op *op, enum x86_gpr reg)
{
    int64_t v = op->aux & TEXT_LONG ? (int64_t)cpu->gpr[reg] : (int32_t)cpu->gpr[reg];

    return v > 16 ? 16 : v < -16 ? -16 : (int32_t)v;
}

static __attribute__((noinline)) void text(struct soft_cpu *cpu, const struct soft_op *op)
{
    text_fn *fn = (text_fn *)(uintptr_t)op->imm;
    const void *b = &cpu->vec[op->src];
    uint8_t result[16] __attribute__((aligned(16)));

    if (op->aux & TEXT_MEMORY) {
        /* Of any alignment. */
        soft_load_bytes(cpu, op, soft_linear(cpu, op, 16, SOFT_READ), cpu->temp, 16);
        b = cpu->temp;
    }
    cpu->status = (uint16_t)fn(&cpu->vec[op->dst], b, length(cpu, op, X86_RDX),
                               length(cpu, op, X86_RAX), result);
    if (op->aux & TEXT_MASK) {
        memcpy(&cpu->vec[0], result, 16);
    } else {
        memcpy(&cpu->gpr[X86_RCX], result, 8);
    }
}

static const struct soft_op *soft_sse_text(struct soft_cpu *cpu, const struct soft_op *op)
{
    text(cpu, op);
    SOFT_NEXT(cpu, op);
}

void soft_lower_sse_text(struct soft_lower *l, uintptr_t arg)
{
    const uint8_t *table;

    if (!l->features->sse4_2 || !soft_lower_unit(l, SOFT_MODE_SSE)) {
        return;
    }
    switch (l->insn->mnemonic) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
        table = soft_sse_pcmpestri_table;
        break;
    case ZYDIS_MNEMONIC_PCMPESTRM:
        table = soft_sse_pcmpestrm_table;
        l->op->aux |= TEXT_MASK;
        break;
    case ZYDIS_MNEMONIC_PCMPISTRI:
        table = soft_sse_pcmpistri_table;
        break;
    default:
        table = soft_sse_pcmpistrm_table;
        l->op->aux |= TEXT_MASK;
    }
    if (l->insn->attributes & ZYDIS_ATTRIB_HAS_REX && l->insn->raw.rex.W) {
        l->op->aux |= TEXT_LONG;
    }
    l->op->dst = soft_reg_number(l->operand[0].reg.value);
    if (soft_is_memory(&l->operand[1])) {
        l->op->aux |= TEXT_MEMORY;
    } else {
        l->op->src = soft_reg_number(l->operand[1].reg.value);
    }
    l->op->imm = (uint64_t)(uintptr_t)(table + (l->operand[2].imm.value.u & 0x7f) * SSE_STUB);
    l->op->fn = soft_sse_text;
}

/* ---- MASKMOVDQU, MASKMOVQ: bytes whose mask's sign is set, to DS:[rDI] ---------------------------- */

/* op->aux: segment, address size in bytes << 4 */
static void masked_move(struct soft_cpu *cpu, const struct soft_op *op, const uint8_t *data,
                        const uint8_t *mask, unsigned size)
{
    uint64_t limit = op->aux >> 4 == 2 ? UINT16_MAX : op->aux >> 4 == 4 ? UINT32_MAX : UINT64_MAX;
    enum x86_segment_register segment = op->aux & 7;
    unsigned first = size, last = 0;
    uint64_t linear;

    for (unsigned i = 0; i < size; i++) {
        if (mask[i] & 0x80) {
            first = first < i ? first : i;
            last = i;
        }
    }
    /* A mask of zero touches nothing. */
    if (first == size) {
        return;
    }
    linear = soft_segment_linear(cpu, segment, (cpu->gpr[X86_RDI] + first) & limit,
                                 last - first + 1, SOFT_WRITE);
    soft_probe_write(cpu, linear, last - first + 1);
    for (unsigned i = first; i <= last; i++) {
        uint64_t at = linear + (i - first);

        if (mask[i] & 0x80) {
            soft_store8(cpu, op, soft_is_64(cpu) ? at : (uint32_t)at, data[i]);
        }
    }
}

static void maskmovdqu(struct soft_cpu *cpu, const struct soft_op *op)
{
    masked_move(cpu, op, cpu->vec[op->dst].b, cpu->vec[op->src].b, 16);
}

static void maskmovq(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_x87_wait(cpu, op);
    masked_move(cpu, op, cpu->x87.reg[op->dst].b, cpu->x87.reg[op->src].b, 8);
    soft_mmx_enter_state(cpu);
}

void soft_lower_masked_move(struct soft_lower *l, uintptr_t arg)
{
    bool is_mmx = l->insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
    unsigned segment = X86_DS;

    if (!(is_mmx ? l->features->sse : l->features->sse2) ||
        !soft_lower_unit(l, is_mmx ? SOFT_MODE_FPU : SOFT_MODE_SSE)) {
        return;
    }
    for (unsigned i = 0; i < l->insn->operand_count; i++) {
        if (soft_is_memory(&l->operand[i])) {
            segment = soft_reg_number(l->operand[i].mem.segment);
        }
    }
    l->op->dst = soft_reg_number(l->operand[0].reg.value);
    l->op->src = soft_reg_number(l->operand[1].reg.value);
    l->op->aux = (uint16_t)(segment | l->insn->address_width / 8u << 4);
    soft_lower_call(l, is_mmx ? maskmovq : maskmovdqu);
}

/* ---- EMMS ------------------------------------------------------------------------------------ */

/* SDM volume 3, table 12-1 */
const struct soft_op *soft_mmx_emms(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_x87_wait(cpu, op);
    cpu->x87.top = 0;
    cpu->x87.used = 0;
    SOFT_NEXT(cpu, op);
}
