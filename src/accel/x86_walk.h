/* SPDX-License-Identifier: MIT */
/* The guest's page tables, walked as a debugger does: no permission checks, no accessed bits. */
#ifndef FERRY_ACCEL_X86_WALK_H
#define FERRY_ACCEL_X86_WALK_H

#include "accel/x86_state.h"

/* The physical address of a linear one, by the state's CR0, CR3, CR4 and EFER (SDM 4.3 to 4.5).
 * False if it is not mapped. Any thread that is registered with mem/. */
bool x86_translate(const struct x86_state *state, uint64_t linear, uint64_t *physical);
/* Reads guest memory at a linear address; the number of bytes that could be read. */
unsigned x86_read_linear(const struct x86_state *state, uint64_t linear, void *buf, unsigned size);

#endif
