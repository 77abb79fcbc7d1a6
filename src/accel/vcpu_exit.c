/* SPDX-License-Identifier: MIT */
/*
 * What a vCPU left the guest for. Accesses go to the address spaces, which take the machine lock
 * for devices that need it; requests to the whole machine go to device/system.h; a vCPU that cannot
 * go on says why.
 */
#include <string.h>

#include "accel/lapic.h"
#include "accel/vcpu_internal.h"
#include "base/log.h"
#include "device/system.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"
#include "trace/trace.h"

const char *vcpu_exit_name(enum vcpu_exit_reason reason)
{
    static const char *const names[VCPU_EXIT_COUNT] = {
        [VCPU_EXIT_IO] = "IO",
        [VCPU_EXIT_MMIO] = "MMIO",
        [VCPU_EXIT_HLT] = "HLT",
        [VCPU_EXIT_IRQ_WINDOW_OPEN] = "IRQ_WINDOW_OPEN",
        [VCPU_EXIT_SHUTDOWN] = "SHUTDOWN",
        [VCPU_EXIT_SYSTEM_EVENT] = "SYSTEM_EVENT",
        [VCPU_EXIT_INTERNAL_ERROR] = "INTERNAL_ERROR",
        [VCPU_EXIT_FAIL_ENTRY] = "FAIL_ENTRY",
        [VCPU_EXIT_UNKNOWN] = "UNKNOWN",
        [VCPU_EXIT_DEBUG] = "DEBUG",
        [VCPU_EXIT_INTR] = "INTR",
        [VCPU_EXIT_IOAPIC_EOI] = "IOAPIC_EOI",
        [VCPU_EXIT_SET_TPR] = "SET_TPR",
        [VCPU_EXIT_MSR] = "MSR",
        [VCPU_EXIT_ERROR] = "ERROR",
    };

    return reason < VCPU_EXIT_COUNT ? names[reason] : "?";
}

/* One IN or OUT, or the items of a string instruction, in order. */
static void handle_io(const struct vcpu *vcpu)
{
    const struct vcpu_exit *exit = &vcpu->exit;
    uint8_t *item = exit->io.data;

    TRACE(vcpu_io, vcpu->index, exit->io.port, exit->io.size, exit->io.count, exit->io.is_write);
    for (uint32_t i = 0; i < exit->io.count; i++) {
        address_space_rw(address_space_io, exit->io.port, item, exit->io.size, exit->io.is_write);
        item += exit->io.size;
    }
}

static void handle_mmio(const struct vcpu *vcpu)
{
    const struct vcpu_exit *exit = &vcpu->exit;

    TRACE(vcpu_mmio, vcpu->index, exit->mmio.address, exit->mmio.length, exit->mmio.is_write);
    address_space_rw(exit->mmio.is_smm ? address_space_smm : address_space_memory,
                     exit->mmio.address, exit->mmio.data, exit->mmio.length, exit->mmio.is_write);
}

static bool handle_system_event(struct vcpu *vcpu)
{
    const struct vcpu_exit *exit = &vcpu->exit;

    if (!exit->system.known) {
        vcpu_fail(vcpu, "unknown system event %u", exit->system.type_number);
        return false;
    }
    switch (exit->system.event) {
    case VCPU_EVENT_SHUTDOWN:
        system_shutdown_request(SYSTEM_CAUSE_GUEST_SHUTDOWN);
        return false;
    case VCPU_EVENT_RESET:
        system_reset_request(SYSTEM_CAUSE_GUEST_RESET);
        return false;
    case VCPU_EVENT_CRASH: {
        struct system_crash crash = {.has_hyperv = exit->system.crash.has_hyperv,
                                     .vcpu = vcpu->index};
        memcpy(crash.hyperv, exit->system.crash.hyperv, sizeof(crash.hyperv));
        /* What becomes of the VM is -action panic='s; until that stops it, the guest goes on. */
        system_guest_panicked(&crash);
        return true;
    }
    }
    return false;
}

/* MSRs that the engine leaves to ferry: those of its own LAPIC. */
static void handle_msr(struct vcpu *vcpu)
{
    struct vcpu_exit *exit = &vcpu->exit;
    bool ok = false;

    if (vcpu->lapic) {
        ok = exit->msr.is_write ? lapic_write_msr(vcpu->lapic, exit->msr.index, exit->msr.value)
                                : lapic_read_msr(vcpu->lapic, exit->msr.index, &exit->msr.value);
    }
    if (!ok) {
        log_item(LOG_UNIMP, "vCPU %u: %s of MSR 0x%x", vcpu->index,
                 exit->msr.is_write ? "write" : "read", exit->msr.index);
    }
    exit->msr.fault = !ok;
}

/* A LAPIC inside the engine was told the end of an interrupt that ferry's IOAPIC sent. */
static void handle_eoi(struct vcpu *vcpu)
{
    struct accel *accel = vcpu->accel;

    if (accel->eoi_broadcast) {
        machine_lock();
        accel->eoi_broadcast(accel->eoi_opaque, vcpu->exit.eoi_vector);
        machine_unlock();
    }
}

bool vcpu_handle_exit(struct vcpu *vcpu)
{
    const struct vcpu_exit *exit = &vcpu->exit;

    switch (exit->reason) {
    case VCPU_EXIT_IO:
        handle_io(vcpu);
        return true;
    case VCPU_EXIT_MMIO:
        handle_mmio(vcpu);
        return true;
    case VCPU_EXIT_INTR:            /* a kick: the loop looks at the requests */
    case VCPU_EXIT_IRQ_WINDOW_OPEN: /* the loop injects what waited for it */
    case VCPU_EXIT_SET_TPR:         /* the engine has told the LAPIC */
        return true;
    case VCPU_EXIT_HLT:
        /* With a LAPIC in the engine the wait is there, too. */
        vcpu->halted = vcpu->lapic != NULL;
        return true;
    case VCPU_EXIT_MSR:
        handle_msr(vcpu);
        return true;
    case VCPU_EXIT_IOAPIC_EOI:
        handle_eoi(vcpu);
        return true;
    case VCPU_EXIT_SHUTDOWN:
        log_item(LOG_CPU_RESET, "vCPU %u: triple fault", vcpu->index);
        system_reset_request(SYSTEM_CAUSE_GUEST_RESET);
        return false;
    case VCPU_EXIT_SYSTEM_EVENT:
        return handle_system_event(vcpu);
    case VCPU_EXIT_DEBUG:
        system_debug_stop(vcpu->index);
        return false;
    case VCPU_EXIT_INTERNAL_ERROR:
        vcpu_internal_error(vcpu);
        return false;
    case VCPU_EXIT_FAIL_ENTRY:
        vcpu_fail(vcpu, "entering the guest failed, hardware reason 0x%llx, on host CPU %u",
                  (unsigned long long)exit->fail_entry.reason, exit->fail_entry.cpu);
        return false;
    case VCPU_EXIT_ERROR:
        vcpu_fail(vcpu, "running the guest failed: %s", strerror(-exit->error));
        return false;
    case VCPU_EXIT_UNKNOWN:
    default:
        vcpu_fail(vcpu, "unknown exit, hardware reason 0x%llx",
                  (unsigned long long)exit->hardware_reason);
        return false;
    }
}
