/* SPDX-License-Identifier: MIT */
/*
 * From the command line to a machine that is ready to run, and back to nothing.
 *
 *   help lists -> logs -> loop, memory -> machine type -> character devices -> objects -> disks
 *     -> accelerator -> machine -> vCPUs -> devices -> loaders, reset -> monitors
 *
 * Main thread.
 */
#ifndef FERRY_VMM_SETUP_H
#define FERRY_VMM_SETUP_H

#include "vmm/cmdline.h"

/* help.c: prints what a "help" value among the options asks for. True if there was one. *ok false: what it was
 * asked of does not exist. */
bool setup_help(const struct cmdline *cmdline, bool *ok, struct error **errp);
bool setup(const struct cmdline *cmdline, struct error **errp);
/* Undoes what setup() did, also where it failed. */
void setup_cleanup(void);

#endif
