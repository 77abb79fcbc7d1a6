/* SPDX-License-Identifier: MIT */
/*
 * Runs instructions on the soft CPU: a VM with one vCPU at CPL 3, whose page tables show the pages of
 * machine_state.h and whose interrupt handlers are one HLT each, so that RIP tells the vector.
 */
#ifndef FERRY_TESTS_SOFT_SOFT_RUN_H
#define FERRY_TESTS_SOFT_SOFT_RUN_H

#include "machine_state.h"

bool soft_run_init(const char *cpu_model);
void soft_run_cleanup(void);
void soft_run(const struct run_input *input, struct run_output *output, unsigned count);

/* Does the vCPU's CPUID have this bit? reg: 0 to 3, EAX to EDX. */
bool soft_run_cpuid(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit);
/* The table of struct soft_lowering that has an instruction ("integer", "sse"…), or NULL. */
const char *soft_run_family(unsigned mnemonic);

#endif
