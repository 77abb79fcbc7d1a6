/* SPDX-License-Identifier: MIT */
/*
 * Requests to the whole machine: a device or a vCPU asks, the main thread carries out.
 *
 * Any thread, with or without the machine lock; only the first request of a kind counts until it
 * has been carried out, unless it says otherwise.
 */
#ifndef FERRY_DEVICE_SYSTEM_H
#define FERRY_DEVICE_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>

/* As QMP's ShutdownCause. */
enum system_cause {
    SYSTEM_CAUSE_NONE,
    SYSTEM_CAUSE_HOST_ERROR,
    SYSTEM_CAUSE_HOST_QMP_QUIT,
    SYSTEM_CAUSE_HOST_QMP_SYSTEM_RESET,
    SYSTEM_CAUSE_HOST_SIGNAL,
    SYSTEM_CAUSE_HOST_UI,
    SYSTEM_CAUSE_GUEST_SHUTDOWN,
    SYSTEM_CAUSE_GUEST_RESET,
    SYSTEM_CAUSE_GUEST_PANIC,
};

/* What a guest said when it crashed (Hyper-V crash MSRs, pvpanic). */
struct system_crash {
    bool has_hyperv;
    uint64_t hyperv[5]; /* HV_X64_MSR_CRASH_P0..P4 */
    unsigned vcpu;
};

/* A disk's request that failed, and what became of it: QMP's BLOCK_IO_ERROR. The texts are valid
 * during the call. */
struct system_io_error {
    const char *who;   /* for messages: the drive, or the device */
    const char *drive; /* the drive's name, "" for a node that is no -drive */
    const char *node;  /* the node below the device */
    bool is_write;     /* all that is no read */
    enum { SYSTEM_IO_REPORT, SYSTEM_IO_IGNORE, SYSTEM_IO_STOP } action; /* STOP: the VM stops */
    int error;                                                          /* positive errno */
    bool has_io_status; /* query-block shows one for this drive */
};

struct system_handlers {
    void (*shutdown)(enum system_cause cause, int exit_status);
    void (*reset)(enum system_cause cause);
    void (*panicked)(const struct system_crash *crash);
    /* A vCPU cannot go on; its registers have been printed. The VM stops (run state
     * internal-error). */
    void (*internal_error)(unsigned vcpu);
    /* A breakpoint or watchpoint of the debugger. */
    void (*debug)(unsigned vcpu);
    /* A disk error. */
    void (*io_error)(const struct system_io_error *error);
};

void system_set_handlers(const struct system_handlers *handlers); /* once, by vmm */

/*
 * VM stop and cont: called on the main loop, without the machine lock, before vCPUs run again
 * (running true) and after they have stopped (false). A handler that stops returns when the loop
 * of its device has let go, polling the main loop. Register and unregister on the main thread.
 */
struct vm_state_handler {
    void (*changed)(void *opaque, bool running);
    void *opaque;
    struct vm_state_handler *next;
};

void system_add_vm_state_handler(struct vm_state_handler *handler);
void system_remove_vm_state_handler(struct vm_state_handler *handler);
void system_vm_state_changed(bool running);
bool system_vm_running(void); /* as the last change said; true before the first */

void system_shutdown_request(enum system_cause cause);
/* As isa-debug-exit: ferry ends with this status. */
void system_exit_request(int exit_status);
void system_reset_request(enum system_cause cause);
void system_guest_panicked(const struct system_crash *crash);
void system_internal_error(unsigned vcpu);
void system_debug_stop(unsigned vcpu);
/* Every one counts, also one after the other of the same disk. */
void system_io_error(const struct system_io_error *error);

#endif
