/* SPDX-License-Identifier: MIT */
/*
 * Runs instructions on the host's CPU.
 *
 * A signal handler is the trampoline: it writes the input's registers to the context that
 * rt_sigreturn loads, the x87 and vector state with it, and the next signal brings what the
 * instruction left. Each run ends by an int3 behind the instruction or by the instruction's own
 * fault, whose vector, error code and address Linux hands over.
 */
#ifndef FERRY_TESTS_SOFT_HOST_RUN_H
#define FERRY_TESTS_SOFT_HOST_RUN_H

#include "machine_state.h"

/* Maps the pages, installs the handlers. The calling thread is the one that runs. */
bool host_run_init(void);
/* Takes the next signals back to how they were. */
void host_run_cleanup(void);
/* Else it is AMD's, or follows AMD's. Where the two differ, the soft CPU does as the vendor of its CPU
 * model, which is the host's here; what the soft CPU does not follow is an exception in compare.c. */
bool host_is_intel(void);
void host_run(const struct run_input *input, struct run_output *output, unsigned count);

#endif
