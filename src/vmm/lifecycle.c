/* SPDX-License-Identifier: MIT */
#include "vmm/lifecycle.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "accel/vcpu.h"
#include "aio/clock.h"
#include "base/alloc.h"
#include "base/log.h"
#include "block/backend.h"
#include "block/event.h"
#include "block/interrupt.h"
#include "block/node.h"
#include "chardev/chardev.h"
#include "device/system.h"
#include "hw/pm.h"
#include "mem/machine_lock.h"
#include "monitor/monitor.h"

/* ---- requests: any thread ------------------------------------------------------------------- */

enum request {
    REQUEST_SHUTDOWN = 1 << 0,
    REQUEST_RESET = 1 << 1,
    REQUEST_PANIC = 1 << 2,
    REQUEST_INTERNAL_ERROR = 1 << 3,
    REQUEST_IO_ERROR = 1 << 4,
    REQUEST_DEBUG = 1 << 5,
};

/* Those that do no more than stop a VM that runs. */
#define REQUESTS_STOP (REQUEST_INTERNAL_ERROR | REQUEST_IO_ERROR | REQUEST_DEBUG)

/* Disk errors that may wait for the main loop: more than a queue of requests has. */
#define IO_ERRORS_MAX 4096

static struct {
    /* atomic */
    _Atomic(uint32_t) pending;
    _Atomic(int) shutdown_cause, reset_cause, exit_status;
    _Atomic(unsigned) io_errors; /* on their way to the main loop */
    /* main thread */
    struct aio_loop *loop;
    struct machine *machine;
    struct lifecycle_actions actions;
    const char *name, *uuid; /* or NULL */
    enum run_state state;
    int signal_fd;
    bool quit;
    int status;
} vm = {.signal_fd = -1};

static const char *const state_names[RUN_STATE_COUNT] = {
    [RUN_STATE_PRELAUNCH] = "prelaunch",
    [RUN_STATE_RUNNING] = "running",
    [RUN_STATE_PAUSED] = "paused",
    [RUN_STATE_SHUTDOWN] = "shutdown",
    [RUN_STATE_INTERNAL_ERROR] = "internal-error",
    [RUN_STATE_IO_ERROR] = "io-error",
    [RUN_STATE_GUEST_PANICKED] = "guest-panicked",
    [RUN_STATE_DEBUG] = "debug",
};

static const char *const cause_names[] = {
    [SYSTEM_CAUSE_NONE] = "none",
    [SYSTEM_CAUSE_HOST_ERROR] = "host-error",
    [SYSTEM_CAUSE_HOST_QMP_QUIT] = "host-qmp-quit",
    [SYSTEM_CAUSE_HOST_QMP_SYSTEM_RESET] = "host-qmp-system-reset",
    [SYSTEM_CAUSE_HOST_SIGNAL] = "host-signal",
    [SYSTEM_CAUSE_HOST_UI] = "host-ui",
    [SYSTEM_CAUSE_GUEST_SHUTDOWN] = "guest-shutdown",
    [SYSTEM_CAUSE_GUEST_RESET] = "guest-reset",
    [SYSTEM_CAUSE_GUEST_PANIC] = "guest-panic",
};

/* True: nobody has asked for it yet. */
static bool request(uint32_t what)
{
    uint32_t before = atomic_fetch_or(&vm.pending, what);

    aio_loop_wake(vm.loop);
    return !(before & what);
}

/* The first cause stands until the request has been carried out. */
static void request_with_cause(uint32_t what, _Atomic(int) *cause, int value)
{
    int none = SYSTEM_CAUSE_NONE;

    atomic_compare_exchange_strong(cause, &none, value);
    request(what);
}

static void on_shutdown(enum system_cause cause, int exit_status)
{
    int zero = 0;

    atomic_compare_exchange_strong(&vm.exit_status, &zero, exit_status);
    request_with_cause(REQUEST_SHUTDOWN, &vm.shutdown_cause, cause);
}

static void on_reset(enum system_cause cause)
{
    request_with_cause(REQUEST_RESET, &vm.reset_cause, cause);
}

static void on_panicked(const struct system_crash *crash)
{
    if (crash && crash->has_hyperv) {
        log_error("the guest crashed on vCPU %u: 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64
                  " 0x%" PRIx64 " 0x%" PRIx64,
                  crash->vcpu, crash->hyperv[0], crash->hyperv[1], crash->hyperv[2],
                  crash->hyperv[3], crash->hyperv[4]);
    } else {
        log_error("the guest crashed");
    }
    request(REQUEST_PANIC);
}

static void on_internal_error(unsigned vcpu)
{
    request(REQUEST_INTERNAL_ERROR);
}

static void on_debug(unsigned vcpu)
{
    request(REQUEST_DEBUG);
}

/* A disk error on its way to the main loop. */
struct io_error {
    char *who;
    json_t *data;
    bool is_write, stops;
};

static void stop_for_io_error(const char *who, bool is_write)
{
    /* All that is in flight may fail at once: a line for the first. */
    if (request(REQUEST_IO_ERROR)) {
        log_error("device '%s': %s error; the VM stops", who, is_write ? "write" : "read");
    }
}

/* Main loop. The event first: STOP follows it. */
static void carry_out_io_error(void *opaque)
{
    struct io_error *error = opaque;

    qmp_event("BLOCK_IO_ERROR", error->data);
    if (error->stops) {
        stop_for_io_error(error->who, error->is_write);
    }
    free(error->who);
    free(error);
}

static void carry_out_posted_io_error(void *opaque)
{
    atomic_fetch_sub(&vm.io_errors, 1);
    carry_out_io_error(opaque);
}

static json_t *io_error_data(const struct system_io_error *e)
{
    static const char *const actions[] = {
        [SYSTEM_IO_REPORT] = "report",
        [SYSTEM_IO_IGNORE] = "ignore",
        [SYSTEM_IO_STOP] = "stop",
    };
    json_t *data = json_pack("{s:s, s:s, s:s, s:s, s:s}", "device", e->drive, "node-name", e->node,
                             "operation", e->is_write ? "write" : "read", "action",
                             actions[e->action], "reason", strerror(e->error));

    if (e->has_io_status) {
        json_object_set_new(data, "nospace", json_boolean(e->error == ENOSPC));
    }
    return data;
}

static void on_io_error(const struct system_io_error *e)
{
    bool here = aio_loop_current() == vm.loop;

    /* A guest on an iothread must not fill our memory with errors that the main loop has no time
     * for. */
    if (!here && atomic_fetch_add(&vm.io_errors, 1) >= IO_ERRORS_MAX) {
        static _Atomic(bool) has_warned;
        atomic_fetch_sub(&vm.io_errors, 1);
        if (!atomic_exchange(&has_warned, true)) {
            log_warn("device '%s': more errors than can be told; BLOCK_IO_ERROR events are lost",
                     e->who);
        }
        if (e->action == SYSTEM_IO_STOP) {
            stop_for_io_error(e->who, e->is_write);
        }
        return;
    }

    struct io_error *error = xnew(struct io_error);
    *error = (struct io_error){
        .who = xstrdup(e->who),
        .data = io_error_data(e),
        .is_write = e->is_write,
        .stops = e->action == SYSTEM_IO_STOP,
    };
    if (here) {
        carry_out_io_error(error);
    } else {
        aio_call(vm.loop, carry_out_posted_io_error, error);
    }
}

/* An image's corruption on its way to the main loop. */
struct corruption {
    char *node;
    json_t *data;
};

/* Main loop, which knows who has the node. */
static void carry_out_corruption(void *opaque)
{
    struct corruption *corruption = opaque;
    const char *device = "";

    for (struct block_backend *be = backend_first(); be; be = backend_next(be)) {
        struct block_node *root = backend_root(be);
        if (root && !strcmp(block_node_skip_filters(root)->name, corruption->node)) {
            device = backend_name(be);
        }
    }
    json_object_set_new(corruption->data, "device", json_string(device));
    qmp_event("BLOCK_IMAGE_CORRUPTED", corruption->data);
    free(corruption->node);
    free(corruption);
}

static void on_corruption(const struct block_corruption *c)
{
    struct corruption *corruption = xnew(struct corruption);

    *corruption = (struct corruption){
        .node = xstrdup(c->node),
        .data = json_pack("{s:s, s:s, s:I, s:b}", "node-name", c->node, "msg", c->message, "offset",
                          (json_int_t)c->offset, "fatal", c->fatal),
    };
    if (c->length) {
        json_object_set_new(corruption->data, "size", json_integer((json_int_t)c->length));
    }
    aio_call(vm.loop, carry_out_corruption, corruption);
}

static const struct system_handlers handlers = {
    .shutdown = on_shutdown,
    .reset = on_reset,
    .panicked = on_panicked,
    .internal_error = on_internal_error,
    .debug = on_debug,
    .io_error = on_io_error,
};

/* ---- run state: main thread ----------------------------------------------------------------- */

enum run_state lifecycle_state(void)
{
    return vm.state;
}

const char *run_state_name(enum run_state state)
{
    return state_names[state];
}

bool vm_start(struct error **errp)
{
    if (vm.state == RUN_STATE_RUNNING) {
        return true;
    }
    if (vm.state == RUN_STATE_INTERNAL_ERROR || vm.state == RUN_STATE_SHUTDOWN ||
        vm.state == RUN_STATE_GUEST_PANICKED) {
        error_set(errp, "Resetting the Virtual Machine is required");
        return false;
    }
    backends_reset_io_status();
    clock_virtual_resume();
    timers_clock_changed(AIO_CLOCK_VIRTUAL);
    system_vm_state_changed(true);
    vm.state = RUN_STATE_RUNNING;
    qmp_event("RESUME", NULL);
    vcpus_resume();
    return true;
}

static void stop_vm(enum run_state state, bool tell)
{
    if (vm.state == RUN_STATE_RUNNING) {
        int ret;

        vcpus_pause();
        clock_virtual_pause();
        system_vm_state_changed(false);
        ret = backends_flush_all();
        if (ret < 0) {
            log_error("flushing the disks failed: %s", strerror(-ret));
        }
        assert(vm.state == RUN_STATE_RUNNING); /* nobody else has stopped or started it */
        if (tell) {
            qmp_event("STOP", NULL);
        }
    }
    vm.state = state;
}

void vm_stop(enum run_state state)
{
    stop_vm(state, true);
}

static bool vm_reset(void)
{
    struct error *err = NULL;
    bool was_running = vm.state == RUN_STATE_RUNNING;

    /* Devices let go of guest memory first: no DMA hits what the reset loads. */
    vcpus_pause();
    if (was_running) {
        system_vm_state_changed(false);
    }
    assert((vm.state == RUN_STATE_RUNNING) == was_running); /* as in stop_vm() */
    /* What vCPUs and disks asked for until they came to rest belongs to the time before: it must
     * not reset or stop the machine once more. */
    atomic_fetch_and(&vm.pending, ~(uint32_t)(REQUEST_RESET | REQUESTS_STOP));
    int cause = atomic_exchange(&vm.reset_cause, SYSTEM_CAUSE_NONE);
    if (!machine_reset(vm.machine, &err)) {
        error_prepend(&err, "reset failed: ");
        error_report(err);
        vm.status = 1;
        vm.quit = true;
        return false;
    }
    if (cause != SYSTEM_CAUSE_NONE) {
        qmp_event("RESET", json_pack("{s:b, s:s}", "guest", cause == SYSTEM_CAUSE_GUEST_RESET,
                                     "reason", cause_names[cause]));
    }
    if (was_running) {
        system_vm_state_changed(true);
        vcpus_resume();
    } else {
        vm.state = RUN_STATE_PRELAUNCH;
    }
    return true;
}

static void do_shutdown(void)
{
    int cause = atomic_exchange(&vm.shutdown_cause, SYSTEM_CAUSE_NONE);
    bool guest = cause == SYSTEM_CAUSE_GUEST_SHUTDOWN || cause == SYSTEM_CAUSE_GUEST_RESET ||
                 cause == SYSTEM_CAUSE_GUEST_PANIC;
    bool by_host = cause == SYSTEM_CAUSE_HOST_SIGNAL || cause == SYSTEM_CAUSE_HOST_QMP_QUIT ||
                   cause == SYSTEM_CAUSE_HOST_UI;

    qmp_event("SHUTDOWN", json_pack("{s:b, s:s}", "guest", guest, "reason", cause_names[cause]));
    if (vm.actions.shutdown == SHUTDOWN_PAUSE && !by_host && !atomic_load(&vm.exit_status)) {
        vm_stop(RUN_STATE_SHUTDOWN);
        return;
    }
    stop_vm(RUN_STATE_SHUTDOWN, false); /* SHUTDOWN was the last word */
    vm.status = atomic_load(&vm.exit_status);
    vm.quit = true;
}

static void do_reset(void)
{
    bool by_guest = atomic_load(&vm.reset_cause) == SYSTEM_CAUSE_GUEST_RESET;

    if (vm.actions.reboot == REBOOT_SHUTDOWN && by_guest) {
        atomic_store(&vm.reset_cause, SYSTEM_CAUSE_NONE);
        on_shutdown(SYSTEM_CAUSE_GUEST_RESET, 0);
    } else if (vm.actions.reboot == REBOOT_NONE && by_guest) {
        atomic_store(&vm.reset_cause, SYSTEM_CAUSE_NONE);
    } else {
        vm_reset();
    }
}

static void do_panic(void)
{
    static const char *const names[] = {
        [PANIC_SHUTDOWN] = "poweroff",
        [PANIC_PAUSE] = "pause",
        [PANIC_EXIT_FAILURE] = "poweroff",
        [PANIC_NONE] = "run",
    };

    qmp_event("GUEST_PANICKED", json_pack("{s:s}", "action", names[vm.actions.panic]));
    switch (vm.actions.panic) {
    case PANIC_NONE:
        break;
    case PANIC_PAUSE:
        vm_stop(RUN_STATE_GUEST_PANICKED);
        break;
    case PANIC_EXIT_FAILURE:
        on_shutdown(SYSTEM_CAUSE_GUEST_PANIC, 1);
        break;
    case PANIC_SHUTDOWN:
        on_shutdown(SYSTEM_CAUSE_GUEST_PANIC, 0);
        break;
    }
}

static void carry_out_stops(uint32_t requests)
{
    if (requests & REQUEST_INTERNAL_ERROR) {
        vm_stop(RUN_STATE_INTERNAL_ERROR);
    }
    /* A disk may still fail, or a vCPU come to a breakpoint, while the VM stops for another reason,
     * which stands: it may be one that only a reset helps against. */
    if (requests & REQUEST_IO_ERROR && vm.state == RUN_STATE_RUNNING) {
        vm_stop(RUN_STATE_IO_ERROR);
    }
    if (requests & REQUEST_DEBUG && vm.state == RUN_STATE_RUNNING) {
        vm_stop(RUN_STATE_DEBUG);
    }
}

static void carry_out(uint32_t requests)
{
    if (requests & REQUEST_PANIC) {
        do_panic();
    }
    carry_out_stops(requests);
    if (requests & REQUEST_RESET) {
        do_reset();
    }
    if (requests & REQUEST_SHUTDOWN) {
        do_shutdown();
    }
}

/* ---- signals -------------------------------------------------------------------------------- */

bool lifecycle_take_signal(void)
{
    struct signalfd_siginfo info;

    if (read(vm.signal_fd, &info, sizeof(info)) != sizeof(info)) {
        return false;
    }
    if (info.ssi_pid) {
        log_info("terminating on signal %u from pid %u", info.ssi_signo, info.ssi_pid);
    } else {
        log_info("terminating on signal %u", info.ssi_signo);
    }
    return true;
}

static void on_signal(void *opaque)
{
    if (lifecycle_take_signal()) {
        block_interrupt(); /* a blockdev-add may wait for a server */
        on_shutdown(SYSTEM_CAUSE_HOST_SIGNAL, 0);
    }
}

/* While the machine is made. The signal stays for whoever waits next, and for lifecycle_run(). */
static void on_early_signal(void *opaque)
{
    aio_set_fd(vm.loop, vm.signal_fd, NULL, NULL, NULL);
    block_interrupt();
}

/* Blocked here, before any other thread is made: they come by signalfd. */
static bool init_signals(struct error **errp)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    vm.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (vm.signal_fd < 0) {
        error_set_errno(errp, errno, "signalfd");
        return false;
    }
    aio_set_fd(vm.loop, vm.signal_fd, on_early_signal, NULL, NULL);
    chardev_set_interrupt_fd(vm.signal_fd);
    return true;
}

/* ---- the main loop -------------------------------------------------------------------------- */

int lifecycle_run(void)
{
    aio_set_fd(vm.loop, vm.signal_fd, on_signal, NULL, NULL);
    while (!vm.quit) {
        uint32_t requests = atomic_exchange(&vm.pending, 0);

        if (requests) {
            /* It polls. A command would find the VM half-way. */
            monitors_hold();
            carry_out(requests);
            monitors_release();
        }
        /* Also after requests: a guest that asks for one reset after the other keeps nobody out. */
        if (!vm.quit) {
            aio_loop_poll(vm.loop, !requests);
        }
    }
    return vm.status;
}

/* ---- monitor -------------------------------------------------------------------------------- */

static const char *op_status(void)
{
    return run_state_name(vm.state);
}

static bool op_is_running(void)
{
    return vm.state == RUN_STATE_RUNNING;
}

static bool op_stop(struct error **errp)
{
    if (vm.state == RUN_STATE_RUNNING) {
        vm_stop(RUN_STATE_PAUSED);
    }
    return true;
}

/* Who has heard of an error that stops the VM wants it to go on after that stop, which may not have
 * been carried out; nor shall errors that came during a stop stop it again, as they are cured by going
 * on. */
static bool op_cont(struct error **errp)
{
    uint32_t requests;

    do {
        requests = atomic_fetch_and(&vm.pending, ~(uint32_t)REQUESTS_STOP) & REQUESTS_STOP;
        carry_out_stops(requests);
    } while (requests);
    return vm_start(errp);
}

static void op_reset(void)
{
    on_reset(SYSTEM_CAUSE_HOST_QMP_SYSTEM_RESET);
}

static bool op_powerdown(struct error **errp)
{
    bool ok;

    machine_lock();
    ok = acpi_pm_power_button();
    machine_unlock();
    if (!ok) {
        error_set(errp, "the machine has no ACPI power button (-machine acpi=off)");
        return false;
    }
    qmp_event("POWERDOWN", NULL);
    return true;
}

static void op_quit(void)
{
    on_shutdown(SYSTEM_CAUSE_HOST_QMP_QUIT, 0);
}

static const char *op_uuid(void)
{
    return vm.uuid;
}

static const char *op_name(void)
{
    return vm.name;
}

static const struct monitor_vm_ops monitor_ops = {
    .status = op_status,
    .is_running = op_is_running,
    .stop = op_stop,
    .cont = op_cont,
    .system_reset = op_reset,
    .system_powerdown = op_powerdown,
    .quit = op_quit,
    .name = op_name,
    .uuid = op_uuid,
};

bool lifecycle_init(struct aio_loop *loop, struct machine *machine,
                    const struct lifecycle_actions *actions, const char *name, const char *uuid,
                    struct error **errp)
{
    vm.loop = loop;
    vm.machine = machine;
    vm.actions = *actions;
    vm.name = name;
    vm.uuid = uuid;
    vm.state = RUN_STATE_PRELAUNCH;
    system_set_handlers(&handlers);
    block_set_corruption_handler(on_corruption);
    monitor_set_vm_ops(&monitor_ops);
    return init_signals(errp);
}

void lifecycle_cleanup(void)
{
    if (vm.signal_fd >= 0) {
        chardev_set_interrupt_fd(-1);
        aio_set_fd(vm.loop, vm.signal_fd, NULL, NULL, NULL);
        close(vm.signal_fd);
        vm.signal_fd = -1;
    }
}
