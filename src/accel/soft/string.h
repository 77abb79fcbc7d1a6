/* SPDX-License-Identifier: MIT */
/*
 * What string instructions share, those on memory (op_string.c) and those with ports (op_io.c): sizes,
 * registers, and how far one may go at a time.
 *
 *      rSI, rDI, rCX count by the address size; DF says which way.
 *      A chunk is a number of elements that lie in one page each way, do not wrap around the end of the
 *      address size, and pass the segment's limit: so the host can do them in one go.
 *
 * All: vCPU thread, cpu->rip at the instruction.
 */
#ifndef FERRY_ACCEL_SOFT_STRING_H
#define FERRY_ACCEL_SOFT_STRING_H

#include "accel/soft/code.h"
#include "accel/soft/integer.h"

/* op->aux: element's size in bytes, and the prefix. */
#define STRING_SIZE  0x0fu
#define STRING_REP   0x10u /* REP, REPE */
#define STRING_REPNE 0x20u /* CMPS and SCAS tell it from REPE */
#define STRING_ANY   (STRING_REP | STRING_REPNE)

static inline unsigned string_size(const struct soft_op *op)
{
    return op->aux & STRING_SIZE;
}

/* ---- registers ------------------------------------------------------------------------------- */

static inline uint64_t string_mask(const struct soft_op *op)
{
    return op->info & SOFT_OP_ADDR16   ? UINT16_MAX
           : op->info & SOFT_OP_ADDR32 ? UINT32_MAX
                                       : UINT64_MAX;
}

static inline void string_set(struct soft_cpu *cpu, enum x86_gpr reg, uint64_t value, uint64_t mask)
{
    cpu->gpr[reg] = mask == UINT16_MAX ? (cpu->gpr[reg] & ~mask) | (value & mask) : value & mask;
}

/* Moves rSI or rDI by a number of elements. */
static inline void string_advance(struct soft_cpu *cpu, const struct soft_op *op, enum x86_gpr reg,
                                  uint64_t elements)
{
    uint64_t bytes = elements * string_size(op);

    string_set(cpu, reg, cpu->gpr[reg] + (cpu->rflags & X86_RFLAGS_DF ? -bytes : bytes),
               string_mask(op));
}

/* Iterations to do before anybody may be heard: all there are, or one if each is trapped. */
static inline uint64_t string_limit(const struct soft_cpu *cpu, uint64_t count)
{
    return cpu->rflags & X86_RFLAGS_TF && count > 1 ? 1 : count;
}

/* Between chunks: shall the rest wait? Then the instruction is to be begun again with what is left; RF
 * keeps its breakpoint from being hit again (SDM volume 3, 17.3.1.1). */
static inline bool string_must_stop(struct soft_cpu *cpu)
{
    if (!soft_is_asked(cpu) && !(cpu->rflags & X86_RFLAGS_TF)) {
        return false;
    }
    cpu->rflags |= X86_RFLAGS_RF;
    return true;
}

/* REP with nothing to do. With 32-bit addresses in 64-bit mode Intel's processors clear upper halves all
 * the same: of RCX, and of the registers in `regs` (bits by number) where REP is a fast one. */
static inline void string_none(struct soft_cpu *cpu, const struct soft_op *op, unsigned regs)
{
    if (!(op->info & SOFT_OP_ADDR32) || !soft_is_64(cpu) || !cpu->features->is_intel) {
        return;
    }
    cpu->gpr[X86_RCX] = 0;
    if (regs & 1u << X86_RSI) {
        cpu->gpr[X86_RSI] = (uint32_t)cpu->gpr[X86_RSI];
    }
    if (regs & 1u << X86_RDI) {
        cpu->gpr[X86_RDI] = (uint32_t)cpu->gpr[X86_RDI];
    }
}

/* ---- addresses ------------------------------------------------------------------------------- */

/* One side of a string instruction: DS (or another) and rSI, or ES and rDI. */
struct string_side {
    enum x86_segment_register seg;
    uint64_t offset, linear;
};

/* Checks the element that is next. May raise. */
static inline struct string_side string_side_at(struct soft_cpu *cpu, const struct soft_op *op,
                                                enum x86_gpr reg, enum soft_access access)
{
    struct string_side side = {
        .seg = reg == X86_RSI ? (enum x86_segment_register)(op->info & SOFT_OP_SEGMENT) : X86_ES,
        .offset = cpu->gpr[reg] & string_mask(op),
    };

    side.linear = soft_segment_linear(cpu, side.seg, side.offset, string_size(op), access);
    return side;
}

/* Elements from here on that a chunk may have as far as this side is concerned; 0: the next one crosses
 * pages. */
uint64_t string_chunk(const struct soft_cpu *cpu, const struct soft_op *op,
                      const struct string_side *side, uint64_t count);

/* One element, by whichever way. May raise. */
uint64_t string_load(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear);
void string_store(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear, uint64_t value);

/* Fills in op->aux and, for rSI or the address size alone, the memory operand. size: bytes. */
void string_lower(struct soft_lower *l, unsigned size);

#endif
