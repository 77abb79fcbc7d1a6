/* SPDX-License-Identifier: MIT */
/* Instructions that look at descriptors or load the system segments: rows of lower_far.c's table. */
#ifndef FERRY_ACCEL_SOFT_LOWER_SELECTOR_H
#define FERRY_ACCEL_SOFT_LOWER_SELECTOR_H

#include "accel/soft/event_internal.h"
#include "accel/soft/lower.h"

enum soft_selector_instruction { SOFT_LAR, SOFT_LSL, SOFT_VERR, SOFT_VERW, SOFT_LLDT, SOFT_LTR };

void soft_lower_selector(struct soft_lower *l, uintptr_t which);
void soft_lower_store_selector(struct soft_lower *l, uintptr_t reg); /* SLDT, STR */
void soft_lower_arpl(struct soft_lower *l, uintptr_t arg);

/* Selector operand of an instruction: a register (src), or 16 bits of memory. */
static inline uint16_t soft_read_selector(struct soft_cpu *cpu, const struct soft_op *op,
                                          bool is_memory)
{
    return is_memory ? soft_load16(cpu, op, soft_linear(cpu, op, 2, SOFT_READ))
                     : soft_reg16(cpu, op->src);
}

#endif
