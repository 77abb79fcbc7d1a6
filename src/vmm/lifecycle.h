/* SPDX-License-Identifier: MIT */
/*
 * The VM's life: run states, stop and cont, reset, shutdown, panic, and the main loop that carries
 * out what devices, vCPUs, signals and monitors ask for.
 *
 *                 cont                      stop
 *   prelaunch ------------> running <------------------> paused
 *                            | |  \ guest off, -no-shutdown -> shutdown
 *                     reset -+ |   \ vCPU cannot go on ------> internal-error
 *                              |    \ werror=stop -----------> io-error
 *                              |     \ crash ----------------> guest-panicked
 *                              +--> end of the process
 *
 * Requests (device/system.h) come from any thread: they set atomic fields and wake the main loop.
 * Everything else is for the main thread.
 */
#ifndef FERRY_VMM_LIFECYCLE_H
#define FERRY_VMM_LIFECYCLE_H

#include <stdbool.h>

#include "aio/loop.h"
#include "base/error.h"
#include "machine/machine.h"

enum run_state {
    RUN_STATE_PRELAUNCH,
    RUN_STATE_RUNNING,
    RUN_STATE_PAUSED,
    RUN_STATE_SHUTDOWN,
    RUN_STATE_INTERNAL_ERROR,
    RUN_STATE_IO_ERROR,
    RUN_STATE_GUEST_PANICKED,
    RUN_STATE_DEBUG,
    RUN_STATE_COUNT,
};

/* -action, -no-reboot, -no-shutdown. */
struct lifecycle_actions {
    enum { REBOOT_RESET, REBOOT_SHUTDOWN, REBOOT_NONE } reboot;
    enum { SHUTDOWN_POWEROFF, SHUTDOWN_PAUSE } shutdown;
    enum { PANIC_SHUTDOWN, PANIC_PAUSE, PANIC_EXIT_FAILURE, PANIC_NONE } panic;
};

/* Installs the request handlers, the signal handlers and the monitor's operations. */
bool lifecycle_init(struct aio_loop *loop, struct machine *machine,
                    const struct lifecycle_actions *actions, const char *name, const char *uuid,
                    struct error **errp);
void lifecycle_cleanup(void);

enum run_state lifecycle_state(void);
const char *run_state_name(enum run_state state);

/* Starts vCPUs and the virtual clock. Fails where only a reset helps. */
bool vm_start(struct error **errp);
/* Stops vCPUs and devices, drains and flushes the disks. */
void vm_stop(enum run_state state);

/* For a setup that waits (for a client of a socket): whether a signal has come that ends ferry; says
 * so. */
bool lifecycle_take_signal(void);

/* The main loop: until shutdown or quit; the process's exit status. */
int lifecycle_run(void);

#endif
