/* SPDX-License-Identifier: MIT */
/*
 * Signals that tools look at while they work.
 *
 * SIGINT, SIGTERM and SIGHUP end a process at once. A command that would leave something half-made
 * asks for them: then they only set a flag, which its coroutines look at between requests; a second
 * one ends the process as ever. SIGUSR1 asks for the progress (progress.h).
 */
#ifndef FERRY_TOOLS_COMMON_SIGNALS_H
#define FERRY_TOOLS_COMMON_SIGNALS_H

#include <stdbool.h>

/* From now on the signals that end the process set the flag. */
void signals_catch(void);
/* The number of the signal that came, or 0. */
int signals_caught(void);
/* They end the process again. */
void signals_release(void);

/* SIGUSR1: true once for those that came since the last call. The handler must be there. */
void signals_catch_usr1(void);
bool signals_take_usr1(void);

#endif
