/* SPDX-License-Identifier: MIT */
/*
 * The machine lock guards machine state: device registers, the region tree, interrupt wiring, bus
 * topology. A vCPU takes it for the access it exits with; main loop handlers that touch machine
 * state take it themselves. Iothreads and workers never take it. It is not recursive, and nobody
 * waits for a loop, a coroutine or the guest while holding it, but for the start and the end of an
 * iothread's thread. It comes before every other lock (docs/threads.md).
 */
#ifndef FERRY_MEM_MACHINE_LOCK_H
#define FERRY_MEM_MACHINE_LOCK_H

#include <stdbool.h>

void machine_lock(void);
void machine_unlock(void);
bool machine_lock_held(void); /* by this thread */

#endif
