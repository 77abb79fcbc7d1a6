/* SPDX-License-Identifier: MIT */
/*
 * The process is to end: what is being opened need not wait for its server any longer, and fails. What
 * is open already, and must be flushed, goes on as before. Main loop.
 *
 *   signal --> block_interrupt() --> the descriptor becomes readable: connecting ends
 *                               \--> driver->interrupt() of nodes that nobody uses yet
 */
#ifndef FERRY_BLOCK_INTERRUPT_H
#define FERRY_BLOCK_INTERRUPT_H

#include <stdbool.h>

void block_interrupt(void); /* for good */
bool block_is_interrupted(void);
/* Readable from block_interrupt() on, for poll() in a worker; -1 if there are no descriptors left. */
int block_interrupt_fd(void);

#endif
