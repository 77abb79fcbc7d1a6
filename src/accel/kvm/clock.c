/* SPDX-License-Identifier: MIT */
/*
 * The guest's paravirtual clock (kvmclock) stands still while the VM does: its value is taken when
 * the VM stops and set when it goes on. KVM_KVMCLOCK_CTRL tells each vCPU that it was paused, so
 * that its soft-lockup watchdog does not bark.
 */
#include <stdlib.h>

#include "accel/kvm/kvm.h"
#include "base/alloc.h"
#include "device/system.h"

struct kvm_clock_keeper {
    struct vm_state_handler handler;
    struct kvm_accel *kvm;
    bool taken;
    uint64_t clock; /* ns */
};

static void tell_paused(struct vcpu *vcpu, void *opaque)
{
    struct kvm_vcpu *kv = vcpu->engine;

    kvm_ioctl(kv->fd, KVM_KVMCLOCK_CTRL, 0ul); /* EINVAL: the guest does not use the clock */
}

static void on_vm_state(void *opaque, bool running)
{
    struct kvm_clock_keeper *keeper = opaque;
    struct kvm_clock_data data = {0};

    if (!running) {
        keeper->taken = kvm_ioctl(keeper->kvm->vm_fd, KVM_GET_CLOCK, &data) == 0;
        keeper->clock = data.clock;
        return;
    }
    if (!keeper->taken) {
        return;
    }
    data.clock = keeper->clock;
    kvm_ioctl(keeper->kvm->vm_fd, KVM_SET_CLOCK, &data);
    keeper->taken = false;
    for (unsigned i = 0; keeper->kvm->has_kvmclock_ctrl && i < vcpu_count(); i++) {
        vcpu_call(vcpu_get(i), tell_paused, NULL);
    }
}

void kvm_init_clock(struct kvm_accel *kvm)
{
    struct kvm_clock_keeper *keeper = xnew(struct kvm_clock_keeper);

    keeper->kvm = kvm;
    keeper->handler = (struct vm_state_handler){.changed = on_vm_state, .opaque = keeper};
    system_add_vm_state_handler(&keeper->handler);
    kvm->clock = keeper;
}

void kvm_cleanup_clock(struct kvm_accel *kvm)
{
    if (kvm->clock) {
        system_remove_vm_state_handler(&kvm->clock->handler);
        free(kvm->clock);
        kvm->clock = NULL;
    }
}
