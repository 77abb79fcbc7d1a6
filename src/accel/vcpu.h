/* SPDX-License-Identifier: MIT */
/*
 * vCPUs: one host thread each, one loop for every engine.
 *
 *   thread: vcpu_init -> while (!quit) { paused? wait : requests; interrupts; vcpu_run; exit }
 *
 * Others reach a vCPU only through its mailbox: they set a bit in `requests` (or the LAPIC's
 * pending bits) and kick. A kick makes vcpu_run return soon, and a halted vCPU wake.
 */
#ifndef FERRY_ACCEL_VCPU_H
#define FERRY_ACCEL_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "accel/accel.h"

struct lapic;

enum vcpu_exit_reason {
    VCPU_EXIT_IO,
    VCPU_EXIT_MMIO,
    VCPU_EXIT_HLT,
    VCPU_EXIT_IRQ_WINDOW_OPEN,
    VCPU_EXIT_SHUTDOWN, /* triple fault */
    VCPU_EXIT_SYSTEM_EVENT,
    VCPU_EXIT_INTERNAL_ERROR,
    VCPU_EXIT_FAIL_ENTRY,
    VCPU_EXIT_UNKNOWN,
    VCPU_EXIT_DEBUG,
    VCPU_EXIT_INTR,
    VCPU_EXIT_IOAPIC_EOI,
    VCPU_EXIT_SET_TPR,
    VCPU_EXIT_MSR,
    VCPU_EXIT_ERROR, /* the engine itself failed: -errno in .error */
    VCPU_EXIT_COUNT,
};

enum vcpu_system_event { VCPU_EVENT_SHUTDOWN, VCPU_EVENT_RESET, VCPU_EVENT_CRASH };

struct vcpu_exit {
    enum vcpu_exit_reason reason;
    union {
        struct {
            uint8_t *data; /* count items of size bytes, in the engine's memory */
            uint32_t count;
            uint16_t port;
            uint8_t size; /* 1, 2, 4 */
            bool is_write;
        } io;
        struct {
            uint8_t *data; /* in the engine's memory */
            uint64_t address;
            uint32_t length; /* 1 to 8 */
            bool is_write;
            bool is_smm; /* by a CPU in system management mode: to address_space_smm */
        } mmio;
        struct {
            enum vcpu_system_event event;
            bool known; /* false: type_number is none of ours */
            uint32_t type_number;
            struct {
                bool has_hyperv;
                uint64_t hyperv[5];
            } crash;
        } system;
        struct {
            uint32_t suberror;
            unsigned ndata;
            uint64_t data[16];
        } internal;
        struct {
            uint64_t reason;
            uint32_t cpu;
        } fail_entry;
        uint64_t hardware_reason;
        struct {
            uint64_t pc, dr6, dr7;
            uint32_t exception;
        } debug;
        uint8_t eoi_vector;
        struct {
            uint32_t index;
            uint64_t value;
            bool is_write;
            bool fault; /* set by the loop: the guest gets #GP */
        } msr;
        int error;
    };
};

enum vcpu_request {
    VCPU_REQUEST_PAUSE = 1 << 0,
    VCPU_REQUEST_QUIT = 1 << 1,
    VCPU_REQUEST_CALL = 1 << 2, /* run vcpu->call in the vCPU's thread */
    VCPU_REQUEST_NMI = 1 << 3,
    VCPU_REQUEST_INIT = 1 << 4,
    VCPU_REQUEST_SIPI = 1 << 5,
    VCPU_REQUEST_EXTINT = 1 << 6, /* the PIC's output is high (vCPU 0) */
    VCPU_REQUEST_APIC = 1 << 7,   /* the LAPIC's mailbox has something */
    VCPU_REQUEST_SMI = 1 << 8,
};

struct vcpu {
    /* constant */
    unsigned index;
    uint32_t apic_id;
    struct accel *accel;
    const struct cpu_model *model;
    pthread_t thread;
    int thread_id;       /* host tid, for query-cpus-fast */
    struct lapic *lapic; /* ferry's own, or NULL: in the engine */
    void *engine;        /* the engine's own struct */

    /* vCPU thread */
    struct vcpu_exit exit;
    bool halted;                /* HLT with ferry's own LAPIC: waits for an interrupt */
    enum x86_mp_state mp_state; /* with ferry's own LAPIC */

    /* atomic */
    _Atomic(uint32_t) requests; /* enum vcpu_request */
    _Atomic(uint8_t) sipi_vector;
    _Atomic(bool) news;                       /* something was sent since the thread last looked */
    _Atomic(bool) waiting;                    /* the thread waits for cond, or is about to */
    _Atomic(uint64_t) exits[VCPU_EXIT_COUNT]; /* written by the vCPU thread only */

    /* under lock; cond signals every change */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool created, paused;
    struct error *init_error;
    void (*call)(struct vcpu *vcpu, void *opaque);
    void *call_opaque;
    bool call_done;
};

/* Makes count vCPUs, each with its thread; they start paused. Main thread, without the machine
 * lock. */
bool vcpus_create(struct accel *accel, const struct cpu_model *model, unsigned count,
                  struct error **errp);
void vcpus_destroy(void);
unsigned vcpu_count(void);
struct vcpu *vcpu_get(unsigned index);
struct vcpu *vcpu_current(void); /* this thread's vCPU, or NULL */
struct vcpu *vcpu_by_apic_id(uint32_t apic_id);

/* Run and stop all. pause returns when none is in the guest or in an exit's handling. Main thread,
 * without the machine lock. */
void vcpus_pause(void);
void vcpus_resume(void);
/* All to their state after RESET. Paused. */
void vcpus_reset(void);

/* Sets request bits and kicks. Any thread. */
void vcpu_request(struct vcpu *vcpu, uint32_t requests);
/* Runs fn in the vCPU's thread, between two entries, and waits. Any other thread, without the
 * machine lock; also while paused. */
void vcpu_call(struct vcpu *vcpu, void (*fn)(struct vcpu *vcpu, void *opaque), void *opaque);

/* Get and set the whole state; waits for the vCPU's thread. Without the machine lock. */
bool vcpu_get_state(struct vcpu *vcpu, struct x86_state *state, struct error **errp);
bool vcpu_set_state(struct vcpu *vcpu, const struct x86_state *state, struct error **errp);

/* Handles vcpu->exit; false: the vCPU stops running (the VM has been told). Exposed for the tests
 * of exits that no host can cause. vCPU thread. */
bool vcpu_handle_exit(struct vcpu *vcpu);

/* For engines that carry out an instruction's accesses (IO, MMIO) before vcpu_run returns: counts,
 * traces and handles vcpu->exit like the loop. vCPU thread. */
void vcpu_inline_exit(struct vcpu *vcpu);

#endif
