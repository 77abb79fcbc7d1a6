/* SPDX-License-Identifier: MIT */
/*
 * vCPU threads and their loop.
 *
 *        main thread                            vCPU thread
 *   vcpus_create()     ----- pthread_create --> engine's vcpu_init; paused
 *   vcpus_resume()     -- clears PAUSE -------> loop: requests, interrupts, guest, exit
 *   vcpus_pause()      -- sets PAUSE, kicks --> completes its I/O; paused = true
 *   vcpu_call()        -- sets CALL, kicks ---> call(); call_done = true
 *   vcpus_destroy()    -- sets QUIT, kicks ---> ends; then the engine's vcpu_destroy
 *
 * `requests` is the mailbox. Whoever sets a bit wakes the thread: by the engine's kick if it is in
 * the guest, by `cond` if it waits (halted, or paused). `waiting` and `requests` are a pair: the
 * waiter sets waiting and then looks for news, the sender sets the bits and `news` and then looks
 * at waiting, both sequentially consistent, so one of them sees the other.
 */
#include "accel/vcpu.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "accel/cpu_model.h"
#include "accel/lapic.h"
#include "accel/vcpu_internal.h"
#include "base/alloc.h"
#include "base/log.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"
#include "trace/trace.h"

static struct vcpu **vcpus;
static unsigned vcpus_count;
static _Thread_local struct vcpu *current;

unsigned vcpu_count(void)
{
    return vcpus_count;
}

struct vcpu *vcpu_get(unsigned index)
{
    return index < vcpus_count ? vcpus[index] : NULL;
}

struct vcpu *vcpu_current(void)
{
    return current;
}

struct vcpu *vcpu_by_apic_id(uint32_t apic_id)
{
    for (unsigned i = 0; i < vcpus_count; i++) {
        if (vcpus[i]->apic_id == apic_id) {
            return vcpus[i];
        }
    }
    return NULL;
}

/* ---- the mailbox ----------------------------------------------------------------------------- */

static bool has_request(const struct vcpu *vcpu, uint32_t bits)
{
    return atomic_load(&vcpu->requests) & bits;
}

static void wake(struct vcpu *vcpu)
{
    atomic_store(&vcpu->news, true);
    if (vcpu == current) {
        return; /* it looks before it enters the guest or waits */
    }
    vcpu->accel->ops->vcpu_kick(vcpu);
    if (atomic_load(&vcpu->waiting)) {
        pthread_mutex_lock(&vcpu->lock);
        pthread_cond_broadcast(&vcpu->cond);
        pthread_mutex_unlock(&vcpu->lock);
    }
}

void vcpu_request(struct vcpu *vcpu, uint32_t requests)
{
    uint32_t old = atomic_fetch_or(&vcpu->requests, requests);

    /* Whoever set the bits that are set already wakes, or has woken, the vCPU. */
    if (requests & ~old) {
        wake(vcpu);
    }
}

/* Until somebody sends something. */
static void wait_for_news(struct vcpu *vcpu)
{
    atomic_store(&vcpu->waiting, true);
    pthread_mutex_lock(&vcpu->lock);
    while (!atomic_exchange(&vcpu->news, false)) {
        pthread_cond_wait(&vcpu->cond, &vcpu->lock);
    }
    pthread_mutex_unlock(&vcpu->lock);
    atomic_store(&vcpu->waiting, false);
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* The last exit's IN or MMIO read, which waits for the next entry, is carried to its end, so that
 * the state is that of an instruction boundary. */
static void complete_io(struct vcpu *vcpu)
{
    enum { MOST_FRAGMENTS = 16 }; /* an access has a few; a guest has no say in this */

    for (unsigned i = 0; i < MOST_FRAGMENTS; i++) {
        enum vcpu_exit_reason reason = vcpu->exit.reason;
        if (reason != VCPU_EXIT_IO && reason != VCPU_EXIT_MMIO && reason != VCPU_EXIT_MSR) {
            return;
        }
        vcpu->accel->ops->vcpu_complete_io(vcpu);
        if (!vcpu_handle_exit(vcpu)) {
            atomic_fetch_or(&vcpu->requests, VCPU_REQUEST_PAUSE);
        }
    }
}

static void run_call(struct vcpu *vcpu)
{
    complete_io(vcpu);
    pthread_mutex_lock(&vcpu->lock);
    atomic_fetch_and(&vcpu->requests, ~VCPU_REQUEST_CALL);
    if (vcpu->call && !vcpu->call_done) {
        void (*call)(struct vcpu *, void *) = vcpu->call;
        void *opaque = vcpu->call_opaque;

        pthread_mutex_unlock(&vcpu->lock);
        call(vcpu, opaque);
        pthread_mutex_lock(&vcpu->lock);
        vcpu->call_done = true;
        pthread_cond_broadcast(&vcpu->cond);
    }
    pthread_mutex_unlock(&vcpu->lock);
}

static void stay_paused(struct vcpu *vcpu)
{
    complete_io(vcpu);
    pthread_mutex_lock(&vcpu->lock);
    vcpu->paused = true;
    pthread_cond_broadcast(&vcpu->cond);
    pthread_mutex_unlock(&vcpu->lock);
    while (has_request(vcpu, VCPU_REQUEST_PAUSE) && !has_request(vcpu, VCPU_REQUEST_QUIT)) {
        if (has_request(vcpu, VCPU_REQUEST_CALL)) {
            run_call(vcpu);
        } else {
            wait_for_news(vcpu);
        }
    }
    pthread_mutex_lock(&vcpu->lock);
    vcpu->paused = false;
    pthread_mutex_unlock(&vcpu->lock);
}

static void count_exit(struct vcpu *vcpu)
{
    _Atomic(uint64_t) *counter = &vcpu->exits[vcpu->exit.reason];

    /* Written by this thread only: no locked addition. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

void vcpu_inline_exit(struct vcpu *vcpu)
{
    TRACE(vcpu_exit, vcpu->index, vcpu->exit.reason);
    count_exit(vcpu);
    vcpu_handle_exit(vcpu);
    vcpu->exit.reason = VCPU_EXIT_INTR;
    TRACE(vcpu_enter, vcpu->index);
}

static void vcpu_loop(struct vcpu *vcpu)
{
    while (!has_request(vcpu, VCPU_REQUEST_QUIT)) {
        if (has_request(vcpu, VCPU_REQUEST_PAUSE)) {
            stay_paused(vcpu);
        } else if (has_request(vcpu, VCPU_REQUEST_CALL)) {
            run_call(vcpu);
        } else if (!vcpu_deliver(vcpu)) {
            wait_for_news(vcpu);
        } else {
            TRACE(vcpu_enter, vcpu->index);
            vcpu->accel->ops->vcpu_run(vcpu);
            TRACE(vcpu_exit, vcpu->index, vcpu->exit.reason);
            count_exit(vcpu);
            if (!vcpu_handle_exit(vcpu)) {
                atomic_fetch_or(&vcpu->requests, VCPU_REQUEST_PAUSE);
            }
        }
    }
}

/* ---- threads -------------------------------------------------------------------------------- */

static void *vcpu_thread(void *opaque)
{
    struct vcpu *vcpu = opaque;
    struct error *err = NULL;
    char name[16];
    bool ok;

    current = vcpu;
    vcpu->thread_id = gettid(); /* others see it once the vCPU is created */
    snprintf(name, sizeof(name), "CPU %u", vcpu->index);
    pthread_setname_np(pthread_self(), name);
    mem_thread_register();
    vcpu->exit.reason = VCPU_EXIT_INTR;
    ok = vcpu->accel->ops->vcpu_init(vcpu, &err);

    pthread_mutex_lock(&vcpu->lock);
    vcpu->created = true;
    vcpu->init_error = err;
    pthread_cond_broadcast(&vcpu->cond);
    pthread_mutex_unlock(&vcpu->lock);

    if (ok) {
        vcpu_loop(vcpu);
    }
    mem_thread_unregister();
    return NULL;
}

static struct vcpu *vcpu_new(struct accel *accel, const struct cpu_model *model, unsigned index)
{
    struct vcpu *vcpu = xnew(struct vcpu);

    vcpu->index = index;
    vcpu->apic_id = model ? cpu_model_apic_id(model, index) : index;
    vcpu->accel = accel;
    vcpu->model = model;
    vcpu->mp_state = index ? X86_MP_UNINITIALIZED : X86_MP_RUNNABLE;
    atomic_init(&vcpu->requests, VCPU_REQUEST_PAUSE);
    pthread_mutex_init(&vcpu->lock, NULL);
    pthread_cond_init(&vcpu->cond, NULL);
    if (accel->irqchip == IRQCHIP_OFF) {
        vcpu->lapic = lapic_new(vcpu);
    }
    return vcpu;
}

/* Its thread has ended, and so has that of any other vCPU: nobody kicks it any more. */
static void vcpu_free(struct vcpu *vcpu)
{
    vcpu->accel->ops->vcpu_destroy(vcpu);
    if (vcpu->lapic) {
        lapic_free(vcpu->lapic);
    }
    error_free(vcpu->init_error);
    pthread_cond_destroy(&vcpu->cond);
    pthread_mutex_destroy(&vcpu->lock);
    free(vcpu);
}

static bool vcpu_start(struct vcpu *vcpu, struct error **errp)
{
    int ret = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);

    if (ret) {
        error_set_errno(errp, ret, "cannot make the thread of vCPU %u", vcpu->index);
        return false;
    }
    pthread_mutex_lock(&vcpu->lock);
    while (!vcpu->created) {
        pthread_cond_wait(&vcpu->cond, &vcpu->lock);
    }
    pthread_mutex_unlock(&vcpu->lock);
    if (vcpu->init_error) {
        pthread_join(vcpu->thread, NULL);
        error_propagate(errp, vcpu->init_error);
        vcpu->init_error = NULL;
        return false;
    }
    return true;
}

bool vcpus_create(struct accel *accel, const struct cpu_model *model, unsigned count,
                  struct error **errp)
{
    assert(!vcpus && count);
    vcpus = xcalloc(count, sizeof(*vcpus));
    if (accel->irqchip == IRQCHIP_OFF) {
        machine_lock();
        lapic_mmio_init();
        machine_unlock();
    }
    for (unsigned i = 0; i < count; i++) {
        struct vcpu *vcpu = vcpu_new(accel, model, i);

        if (!vcpu_start(vcpu, errp)) {
            vcpu_free(vcpu);
            vcpus_destroy();
            return false;
        }
        vcpus[vcpus_count++] = vcpu;
    }
    return true;
}

void vcpus_destroy(void)
{
    for (unsigned i = 0; i < vcpus_count; i++) {
        vcpu_request(vcpus[i], VCPU_REQUEST_QUIT);
    }
    for (unsigned i = 0; i < vcpus_count; i++) {
        pthread_join(vcpus[i]->thread, NULL);
    }
    unsigned count = vcpus_count;
    vcpus_count = 0;
    for (unsigned i = 0; i < count; i++) {
        vcpu_free(vcpus[i]);
    }
    free(vcpus);
    vcpus = NULL;
    machine_lock();
    lapic_mmio_cleanup();
    machine_unlock();
}

/* ---- all of them ----------------------------------------------------------------------------- */

void vcpus_pause(void)
{
    for (unsigned i = 0; i < vcpus_count; i++) {
        vcpu_request(vcpus[i], VCPU_REQUEST_PAUSE);
    }
    for (unsigned i = 0; i < vcpus_count; i++) {
        struct vcpu *vcpu = vcpus[i];
        pthread_mutex_lock(&vcpu->lock);
        while (!vcpu->paused) {
            pthread_cond_wait(&vcpu->cond, &vcpu->lock);
        }
        pthread_mutex_unlock(&vcpu->lock);
    }
}

void vcpus_resume(void)
{
    for (unsigned i = 0; i < vcpus_count; i++) {
        atomic_fetch_and(&vcpus[i]->requests, ~VCPU_REQUEST_PAUSE);
        wake(vcpus[i]);
    }
}

/* ---- calls ---------------------------------------------------------------------------------- */

void vcpu_call(struct vcpu *vcpu, void (*fn)(struct vcpu *vcpu, void *opaque), void *opaque)
{
    if (vcpu == current) {
        fn(vcpu, opaque);
        return;
    }
    pthread_mutex_lock(&vcpu->lock);
    while (vcpu->call) {
        pthread_cond_wait(&vcpu->cond, &vcpu->lock); /* another caller's */
    }
    vcpu->call = fn;
    vcpu->call_opaque = opaque;
    vcpu->call_done = false;
    pthread_mutex_unlock(&vcpu->lock);
    vcpu_request(vcpu, VCPU_REQUEST_CALL);
    pthread_mutex_lock(&vcpu->lock);
    while (!vcpu->call_done) {
        pthread_cond_wait(&vcpu->cond, &vcpu->lock);
    }
    vcpu->call = NULL;
    pthread_cond_broadcast(&vcpu->cond);
    pthread_mutex_unlock(&vcpu->lock);
}

struct state_call {
    struct x86_state *get;
    const struct x86_state *set;
    struct error *err;
    bool ok;
};

static void call_get_state(struct vcpu *vcpu, void *opaque)
{
    struct state_call *call = opaque;
    call->ok = vcpu->accel->ops->vcpu_get_state(vcpu, call->get, &call->err);
}

static void call_set_state(struct vcpu *vcpu, void *opaque)
{
    struct state_call *call = opaque;
    call->ok = vcpu->accel->ops->vcpu_set_state(vcpu, call->set, &call->err);
}

bool vcpu_get_state(struct vcpu *vcpu, struct x86_state *state, struct error **errp)
{
    struct state_call call = {.get = state};

    vcpu_call(vcpu, call_get_state, &call);
    error_propagate(errp, call.err);
    return call.ok;
}

bool vcpu_set_state(struct vcpu *vcpu, const struct x86_state *state, struct error **errp)
{
    struct state_call call = {.set = state};

    vcpu_call(vcpu, call_set_state, &call);
    error_propagate(errp, call.err);
    return call.ok;
}

static void call_reset(struct vcpu *vcpu, void *opaque)
{
    autofree struct x86_state *state = xnew(struct x86_state);
    struct error *err = NULL;
    bool is_bsp = vcpu->index == 0;

    if (log_mask & LOG_CPU_RESET && vcpu->accel->ops->vcpu_get_state(vcpu, state, NULL)) {
        autofree char *heading = xasprintf("CPU Reset (CPU %u)\n", vcpu->index);
        x86_state_log(state, LOG_CPU_RESET, heading);
    }
    /* What was on its way belongs to the time before. EXTINT is a level and stays. */
    atomic_fetch_and(&vcpu->requests, ~(VCPU_REQUEST_NMI | VCPU_REQUEST_INIT | VCPU_REQUEST_SIPI));
    vcpu->halted = false;
    vcpu->exit.reason = VCPU_EXIT_INTR;
    x86_state_reset(state, is_bsp, vcpu->apic_id);
    if (vcpu->model) {
        state->gpr[X86_RDX] = cpu_model_signature(vcpu->model); /* SDM 9.1.2 */
    }
    if (vcpu->lapic) {
        lapic_reset(vcpu->lapic, is_bsp);
        lapic_get_state(vcpu->lapic, &state->lapic);
    }
    if (!vcpu->accel->ops->vcpu_set_state(vcpu, state, &err)) {
        error_report(err);
    }
}

void vcpus_reset(void)
{
    for (unsigned i = 0; i < vcpus_count; i++) {
        vcpu_call(vcpus[i], call_reset, NULL);
    }
}
