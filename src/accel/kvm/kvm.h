/* SPDX-License-Identifier: MIT */
/*
 * The KVM engine: Linux's KVM API (Documentation/virt/kvm/api.rst) behind struct accel_ops.
 *
 *   kvm.c      /dev/kvm, capabilities, the VM, irqchip mode
 *   probe.c    does it run 64-bit ring-0 code at all?
 *   vcpu.c     KVM_RUN, exits, kicks
 *   state.c    registers <-> neutral state;  msrs.c  its MSR list
 *   cpuid.c    what may be offered to a guest
 *   memory.c   flat view -> memory slots, dirty log
 *   doorbell.c flat view -> ioeventfds, coalesced MMIO
 *   irq.c      lines, MSIs, GSI routes, irqfds
 *   chips.c    PIC and IOAPIC in the kernel <-> neutral state;  pit.c  the PIT
 *   clock.c    kvmclock stands still while the VM does
 */
#ifndef FERRY_ACCEL_KVM_KVM_H
#define FERRY_ACCEL_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "accel/accel.h"
#include "accel/vcpu.h"
#include "mem/address_space.h"

struct kvm_slot {
    bool used;
    uint64_t address, size; /* guest, page aligned */
    uint8_t *host;
    struct ram_block *ram;
    uint64_t ram_offset;
    uint32_t flags; /* KVM_MEM_* */
};

/* Listeners are embedded: container_of() finds the VM. */
struct kvm_listener {
    struct mem_listener listener;
    struct kvm_accel *kvm;
    bool is_pio;
};

/* What a CPU sees, or what it sees in SMM: KVM's address spaces 0 and 1 (KVM_CAP_MULTI_ADDRESS_SPACE). */
struct kvm_memory {
    struct mem_listener listener;
    struct kvm_accel *kvm; /* NULL: not in use */
    struct address_space *space;
    unsigned id;
    struct mem_section *removed, *added; /* of the transaction that is being told */
    unsigned removed_count, added_count, removed_size, added_size;
    struct kvm_slot *slots;
    unsigned slot_count; /* allocated */
};

/* An MSI route; its GSI is ACCEL_GSI_PINS + its index. Pins of a split irqchip have theirs. */
struct kvm_route {
    bool used, in_kernel;
    struct msi_message msg, kernel_msg;
};

struct kvm_accel {
    struct accel accel;

    /* constant */
    int fd, vm_fd;
    size_t run_size;
    uint32_t coalesced_page; /* page of the ring within a vCPU's mapping; 0: no coalesced MMIO */
    bool has_coalesced_pio, has_readonly_mem, has_any_length_ioeventfd;
    bool has_x2apic_api, has_tsc_deadline, has_smm, has_kvmclock_ctrl, has_exception_payload;
    unsigned max_vcpus, max_slots, max_routes, xsave_size, mce_banks;
    uint64_t mcg_cap;
    uint32_t tsc_khz; /* 0: not known */
    struct kvm_cpuid2 *supported;
    uint32_t *msrs; /* what state get and set covers */
    unsigned msr_count;

    /* machine lock */
    struct kvm_memory memory, smm_memory;
    struct kvm_listener mmio_listener, pio_listener;
    bool doorbell_warned;
    struct kvm_route *routes;
    unsigned route_count;                  /* allocated */
    struct kvm_route pins[ACCEL_GSI_PINS]; /* split */

    /* atomic */
    struct kvm_coalesced_mmio_ring *_Atomic coalesced_ring;
    _Atomic(unsigned) hold; /* >0: vCPUs stay out of the guest while slots are replaced */

    /* under hold_lock */
    pthread_mutex_t hold_lock;
    pthread_cond_t hold_cond; /* hold became 0, or a vCPU left the guest */

    /* vm_state handler, main thread: the paravirtual clock stands still while the VM does */
    struct kvm_clock_keeper *clock;
    struct kvm_pit_keeper *pit; /* the same for the kernel's PIT, if there is one */
};

struct kvm_vcpu {
    /* constant */
    struct vcpu *vcpu;
    struct kvm_accel *kvm;
    int fd;
    struct kvm_run *run;
    /* atomic */
    _Atomic(bool) in_guest; /* or about to be: a kick must send a signal */
    /* vCPU thread */
    bool injected; /* one interrupt per entry */
};

/* How often ferry asked the kernel; for tests and for `info` commands. Atomic. */
struct kvm_stats {
    _Atomic(uint64_t) set_memory_region, get_dirty_log, ioeventfd, irqfd, set_gsi_routing,
        signal_msi, irq_line, interrupt, kick_signals, coalesced_writes;
};
extern struct kvm_stats kvm_stats;

#define KVM_COUNT(field) atomic_fetch_add_explicit(&kvm_stats.field, 1, memory_order_relaxed)

static inline struct kvm_accel *kvm_of(struct accel *accel)
{
    return (struct kvm_accel *)accel;
}

extern const struct accel_ops kvm_ops;

/* ioctl() again after EINTR; the result, or -errno. arg is what that ioctl takes. */
int kvm_ioctl(int fd, unsigned long request, ...);
/* KVM_CHECK_EXTENSION; 0: no. */
int kvm_check(int fd, unsigned cap);
int kvm_enable_cap(int vm_fd, uint32_t cap, uint64_t arg);
/* KVM_CREATE_VM; negative: failed, errp says why in the user's terms. */
int kvm_create_vm(int fd, struct error **errp);

/* probe.c. False: /dev/kvm does not run kernels natively; errp says what it does instead. */
bool kvm_probe(int fd, struct error **errp);
/* The signal that makes KVM_RUN return; its handler does nothing. */
#define KVM_KICK_SIGNAL SIGUSR1
void kvm_install_kick_handler(void);

/* vcpu.c */
bool kvm_vcpu_init(struct vcpu *vcpu, struct error **errp);
void kvm_vcpu_destroy(struct vcpu *vcpu);
void kvm_vcpu_run(struct vcpu *vcpu);
void kvm_vcpu_kick(struct vcpu *vcpu);
void kvm_vcpu_complete_io(struct vcpu *vcpu);
bool kvm_vcpu_interrupt_ready(struct vcpu *vcpu);
void kvm_vcpu_inject(struct vcpu *vcpu, uint8_t vector);
void kvm_vcpu_request_window(struct vcpu *vcpu, bool on);
void kvm_vcpu_inject_nmi(struct vcpu *vcpu);
void kvm_vcpu_inject_smi(struct vcpu *vcpu);
/* No vCPU is in the guest between the two. Machine lock held; not a vCPU that is in the guest. */
void kvm_hold_vcpus(struct kvm_accel *kvm);
void kvm_release_vcpus(struct kvm_accel *kvm);

/* state.c, msrs.c */
bool kvm_vcpu_get_state(struct vcpu *vcpu, struct x86_state *state, struct error **errp);
bool kvm_vcpu_set_state(struct vcpu *vcpu, const struct x86_state *state, struct error **errp);
bool kvm_init_msrs(struct kvm_accel *kvm, struct error **errp);
int kvm_get_msrs(struct kvm_vcpu *kv, struct x86_state *state);
int kvm_set_msrs(struct kvm_vcpu *kv, const struct x86_state *state, uint32_t *failed);
int kvm_read_msr(struct kvm_vcpu *kv, uint32_t index, uint64_t *value);

/* cpuid.c */
bool kvm_init_cpuid(struct kvm_accel *kvm, struct error **errp);
bool kvm_supported_cpuid(struct accel *accel, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
bool kvm_vcpu_set_cpuid(struct kvm_vcpu *kv, struct error **errp);

/* memory.c, doorbell.c. Machine lock held. */
void kvm_init_memory(struct kvm_accel *kvm);
void kvm_cleanup_memory(struct kvm_accel *kvm);
/* accel_ops.enable_smm: SMRAM, too. */
void kvm_enable_smm(struct accel *accel);
void kvm_init_doorbells(struct kvm_accel *kvm);
void kvm_cleanup_doorbells(struct kvm_accel *kvm);
/* Carries out the writes that the kernel has kept back. vCPU thread, without the machine lock. */
void kvm_drain_coalesced(struct kvm_accel *kvm);

/* irq.c */
bool kvm_init_irqchip(struct kvm_accel *kvm, struct error **errp);
void kvm_irq_set(struct accel *accel, unsigned gsi, int level);
void kvm_msi_send(struct accel *accel, const struct msi_message *msg);
int kvm_route_add(struct accel *accel, const struct msi_message *msg);
void kvm_route_update(struct accel *accel, int gsi, const struct msi_message *msg);
void kvm_route_remove(struct accel *accel, int gsi);
void kvm_routes_commit(struct accel *accel);
void kvm_route_ioapic_pin(struct accel *accel, unsigned pin, const struct msi_message *msg);
int kvm_irqfd_add(struct accel *accel, int gsi, struct event_notifier *trigger,
                  struct event_notifier *resample);
void kvm_irqfd_remove(struct accel *accel, int gsi, struct event_notifier *trigger);

/* chips.c */
bool kvm_get_pic(struct accel *accel, struct x86_pic pic[2]);
bool kvm_set_pic(struct accel *accel, const struct x86_pic pic[2]);
bool kvm_get_ioapic(struct accel *accel, struct x86_ioapic *ioapic);
bool kvm_set_ioapic(struct accel *accel, const struct x86_ioapic *ioapic);
bool kvm_create_pit(struct accel *accel, struct error **errp);
bool kvm_get_pit(struct accel *accel, struct x86_pit *pit);
bool kvm_set_pit(struct accel *accel, const struct x86_pit *pit);
void kvm_cleanup_pit(struct kvm_accel *kvm);

/* clock.c: stop and go of the guest's paravirtual clock with the VM. Main thread. */
void kvm_init_clock(struct kvm_accel *kvm);
void kvm_cleanup_clock(struct kvm_accel *kvm);

#endif
