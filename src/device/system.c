/* SPDX-License-Identifier: MIT */
/* Requests to the whole machine, handed on to vmm (device/system.h). */
#include "device/system.h"

#include <stdatomic.h>
#include <stddef.h>

static const struct system_handlers *handlers;

void system_set_handlers(const struct system_handlers *h)
{
    handlers = h;
}

void system_shutdown_request(enum system_cause cause)
{
    if (handlers && handlers->shutdown) {
        handlers->shutdown(cause, 0);
    }
}

void system_exit_request(int exit_status)
{
    if (handlers && handlers->shutdown) {
        handlers->shutdown(SYSTEM_CAUSE_GUEST_SHUTDOWN, exit_status);
    }
}

void system_reset_request(enum system_cause cause)
{
    if (handlers && handlers->reset) {
        handlers->reset(cause);
    }
}

void system_guest_panicked(const struct system_crash *crash)
{
    if (handlers && handlers->panicked) {
        handlers->panicked(crash);
    }
}

void system_internal_error(unsigned vcpu)
{
    if (handlers && handlers->internal_error) {
        handlers->internal_error(vcpu);
    }
}

void system_debug_stop(unsigned vcpu)
{
    if (handlers && handlers->debug) {
        handlers->debug(vcpu);
    }
}

void system_io_error(const struct system_io_error *error)
{
    if (handlers && handlers->io_error) {
        handlers->io_error(error);
    }
}

/* ---- stop and cont -------------------------------------------------------------------------- */

static struct vm_state_handler *state_handlers;
static _Atomic(bool) vm_running = true;

/* Where a walk over the handlers goes on: a handler polls the main loop, where anything may be
 * removed meanwhile, also the handler itself. */
struct walk {
    struct vm_state_handler *next;
    struct walk *outer;
};
static struct walk *walks;

void system_add_vm_state_handler(struct vm_state_handler *handler)
{
    handler->next = state_handlers;
    state_handlers = handler;
}

void system_remove_vm_state_handler(struct vm_state_handler *handler)
{
    struct vm_state_handler **at = &state_handlers;

    while (*at && *at != handler) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = handler->next;
    }
    for (struct walk *walk = walks; walk; walk = walk->outer) {
        if (walk->next == handler) {
            walk->next = handler->next;
        }
    }
}

void system_vm_state_changed(bool running)
{
    struct walk walk = {.next = state_handlers, .outer = walks};

    atomic_store(&vm_running, running);
    walks = &walk;
    while (walk.next) {
        struct vm_state_handler *handler = walk.next;
        walk.next = handler->next;
        handler->changed(handler->opaque, running);
    }
    walks = walk.outer;
}

bool system_vm_running(void)
{
    return atomic_load(&vm_running);
}
