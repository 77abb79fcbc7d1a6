/* SPDX-License-Identifier: MIT */
/*
 * The kernel's PIT <-> the neutral state. It counts host time, also while the VM stands still, and keeps
 * the ticks that the guest did not take: what it is when the VM stops is set again when the VM goes on,
 * which starts its timer and forgets those. Main thread, vCPUs paused.
 */
#include <stdlib.h>
#include <time.h>

#include "accel/kvm/kvm.h"
#include "aio/clock.h"
#include "base/alloc.h"
#include "device/system.h"

struct kvm_pit_keeper {
    struct vm_state_handler handler;
    struct kvm_accel *kvm;
    bool runs, has_state; /* the VM; of a VM that stands still */
    struct x86_pit state;
};

/* ---- state ------------------------------------------------------------------------------------ */

/* The kernel counts from host time, the neutral state from virtual time. */
static int64_t host_minus_virtual(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec - clock_get_ns(AIO_CLOCK_VIRTUAL);
}

bool kvm_get_pit(struct accel *accel, struct x86_pit *pit)
{
    int64_t offset = host_minus_virtual();
    struct kvm_pit_state2 state;

    if (kvm_ioctl(kvm_of(accel)->vm_fd, KVM_GET_PIT2, &state) < 0) {
        return false;
    }
    *pit = (struct x86_pit){
        .speaker_data_on = state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON,
        .hpet_legacy = state.flags & KVM_PIT_FLAGS_HPET_LEGACY,
    };
    for (unsigned i = 0; i < 3; i++) {
        const struct kvm_pit_channel_state *c = &state.channels[i];

        pit->channel[i] = (struct x86_pit_channel){
            .count = c->count,
            .latched_count = c->latched_count,
            .count_latched = c->count_latched,
            .status_latched = c->status_latched,
            .status = c->status,
            .read_state = c->read_state,
            .write_state = c->write_state,
            .write_latch = c->write_latch,
            .rw_mode = c->rw_mode,
            .mode = c->mode,
            .bcd = c->bcd,
            .gate = c->gate,
            .count_load_ns = c->count_load_time - offset,
        };
    }
    return true;
}

static bool load(struct kvm_accel *kvm, const struct x86_pit *pit)
{
    int64_t offset = host_minus_virtual();
    struct kvm_pit_state2 state = {
        .flags = (pit->speaker_data_on ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0) |
                 (pit->hpet_legacy ? KVM_PIT_FLAGS_HPET_LEGACY : 0),
    };

    for (unsigned i = 0; i < 3; i++) {
        const struct x86_pit_channel *c = &pit->channel[i];

        state.channels[i] = (struct kvm_pit_channel_state){
            .count = c->count,
            .latched_count = c->latched_count,
            .count_latched = c->count_latched,
            .status_latched = c->status_latched,
            .status = c->status,
            .read_state = c->read_state,
            .write_state = c->write_state,
            .write_latch = c->write_latch,
            .rw_mode = c->rw_mode,
            .mode = c->mode,
            .bcd = c->bcd,
            .gate = c->gate,
            .count_load_time = c->count_load_ns + offset,
        };
    }
    return kvm_ioctl(kvm->vm_fd, KVM_SET_PIT2, &state) == 0;
}

bool kvm_set_pit(struct accel *accel, const struct x86_pit *pit)
{
    struct kvm_pit_keeper *keeper = kvm_of(accel)->pit;

    if (keeper && !keeper->runs) { /* a reset: that is what the VM goes on with */
        keeper->state = *pit;
        keeper->has_state = true;
    }
    return load(kvm_of(accel), pit);
}

/* ---- stop and go ------------------------------------------------------------------------------ */

static void on_vm_state(void *opaque, bool running)
{
    struct kvm_pit_keeper *keeper = opaque;

    keeper->runs = running;
    if (!running) {
        keeper->has_state = kvm_get_pit(&keeper->kvm->accel, &keeper->state);
    } else if (keeper->has_state) {
        load(keeper->kvm, &keeper->state);
        keeper->has_state = false;
    }
}

bool kvm_create_pit(struct accel *accel, struct error **errp)
{
    struct kvm_accel *kvm = kvm_of(accel);
    /* Without HPET or sound: port 0x61, which gates and shows counter 2, is the kernel's too. */
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int ret = kvm_ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit);

    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: KVM_CREATE_PIT2");
        return false;
    }
    kvm->pit = xnew(struct kvm_pit_keeper);
    kvm->pit->kvm = kvm;
    kvm->pit->handler = (struct vm_state_handler){.changed = on_vm_state, .opaque = kvm->pit};
    system_add_vm_state_handler(&kvm->pit->handler);
    return true;
}

void kvm_cleanup_pit(struct kvm_accel *kvm)
{
    if (kvm->pit) {
        system_remove_vm_state_handler(&kvm->pit->handler);
        free(kvm->pit);
        kvm->pit = NULL;
    }
}
