/* SPDX-License-Identifier: MIT */
/*
 * One KVM vCPU: entering the guest, what it left for, and making it leave.
 *
 * A kick is two steps: run->immediate_exit makes the next KVM_RUN return at once, a signal ends one
 * that is under way. in_guest tells whether the signal is needed:
 *
 *      kicker                              vCPU thread
 *      request bits |= …                   in_guest = true
 *      immediate_exit = 1                  (fence)
 *      (fence)                             KVM_RUN reads immediate_exit
 *      in_guest? signal                    in_guest = false; EINTR: immediate_exit = 0
 *                                          (fence) read request bits
 *
 * Either the kicker sees in_guest or KVM_RUN sees immediate_exit. The bits are set before
 * immediate_exit, and read after it is cleared: no request is lost.
 *
 * The gate (hold) keeps all vCPUs out of the guest while memory slots are replaced, which KVM can
 * do only by removing the old one first: an instruction fetch in between would fail.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "accel/kvm/kvm.h"
#include "accel/lapic.h"
#include "accel/x86_regs.h"
#include "base/alloc.h"
#include "base/range.h"

static struct kvm_vcpu *kvm_vcpu_of(struct vcpu *vcpu)
{
    return vcpu->engine;
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool map_run(struct kvm_vcpu *kv, struct error **errp)
{
    struct kvm_accel *kvm = kv->kvm;
    void *map = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, kv->fd, 0);

    if (map == MAP_FAILED) {
        error_set_errno(errp, errno, "-accel kvm: mapping vCPU %u", kv->vcpu->index);
        return false;
    }
    kv->run = map;
    if (kvm->coalesced_page) {
        /* One ring per VM; every vCPU's mapping shows it. The first one serves. */
        struct kvm_coalesced_mmio_ring *none = NULL;
        struct kvm_coalesced_mmio_ring *ring =
            (void *)((uint8_t *)map + kvm->coalesced_page * GUEST_PAGE_SIZE);
        atomic_compare_exchange_strong(&kvm->coalesced_ring, &none, ring);
    }
    return true;
}

static bool setup_mce(struct kvm_vcpu *kv, struct error **errp)
{
    uint64_t cap = (kv->kvm->mcg_cap & ~UINT64_C(0xff)) | kv->kvm->mce_banks;
    int ret;

    if (!kv->kvm->mce_banks) {
        return true;
    }
    ret = kvm_ioctl(kv->fd, KVM_X86_SETUP_MCE, &cap);
    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: KVM_X86_SETUP_MCE");
    }
    return ret >= 0;
}

bool kvm_vcpu_init(struct vcpu *vcpu, struct error **errp)
{
    struct kvm_accel *kvm = kvm_of(vcpu->accel);
    struct kvm_vcpu *kv = xnew(struct kvm_vcpu);

    kv->vcpu = vcpu;
    kv->kvm = kvm;
    vcpu->engine = kv;
    kv->fd = kvm_ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)vcpu->apic_id);
    if (kv->fd < 0) {
        error_set_errno(errp, -kv->fd, "-accel kvm: KVM_CREATE_VCPU of vCPU %u (APIC id %u)",
                        vcpu->index, vcpu->apic_id);
        return false;
    }
    return map_run(kv, errp) && setup_mce(kv, errp) && kvm_vcpu_set_cpuid(kv, errp);
}

void kvm_vcpu_destroy(struct vcpu *vcpu)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    if (!kv) {
        return;
    }
    if (kv->run) {
        struct kvm_accel *kvm = kv->kvm;
        struct kvm_coalesced_mmio_ring *ring =
            (void *)((uint8_t *)kv->run + kvm->coalesced_page * GUEST_PAGE_SIZE);
        atomic_compare_exchange_strong(&kvm->coalesced_ring, &ring, NULL);
        munmap(kv->run, kvm->run_size);
    }
    if (kv->fd >= 0) {
        close(kv->fd);
    }
    vcpu->engine = NULL;
    free(kv);
}

/* ---- kicks and the gate --------------------------------------------------------------------- */

static void kick_handler(int sig)
{
}

void kvm_install_kick_handler(void)
{
    /* Without SA_RESTART: the signal is there to interrupt. */
    struct sigaction action = {.sa_handler = kick_handler};

    sigemptyset(&action.sa_mask);
    sigaction(KVM_KICK_SIGNAL, &action, NULL);
}

static void kick(struct kvm_vcpu *kv)
{
    __atomic_store_n(&kv->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (atomic_load(&kv->in_guest)) {
        KVM_COUNT(kick_signals);
        pthread_kill(kv->vcpu->thread, KVM_KICK_SIGNAL);
    }
}

void kvm_vcpu_kick(struct vcpu *vcpu)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    if (kv && kv->run) {
        kick(kv);
    }
}

static void tell_holder(struct kvm_accel *kvm)
{
    pthread_mutex_lock(&kvm->hold_lock);
    pthread_cond_broadcast(&kvm->hold_cond);
    pthread_mutex_unlock(&kvm->hold_lock);
}

static void enter_gate(struct kvm_vcpu *kv)
{
    struct kvm_accel *kvm = kv->kvm;

    atomic_store(&kv->in_guest, true);
    while (atomic_load(&kvm->hold)) {
        atomic_store(&kv->in_guest, false);
        pthread_mutex_lock(&kvm->hold_lock);
        pthread_cond_broadcast(&kvm->hold_cond);
        while (atomic_load(&kvm->hold)) {
            pthread_cond_wait(&kvm->hold_cond, &kvm->hold_lock);
        }
        pthread_mutex_unlock(&kvm->hold_lock);
        atomic_store(&kv->in_guest, true);
    }
}

static void leave_gate(struct kvm_vcpu *kv)
{
    atomic_store(&kv->in_guest, false);
    if (atomic_load(&kv->kvm->hold)) {
        tell_holder(kv->kvm);
    }
}

void kvm_hold_vcpus(struct kvm_accel *kvm)
{
    unsigned count = vcpu_count();

    atomic_fetch_add(&kvm->hold, 1);
    for (unsigned i = 0; i < count; i++) {
        kvm_vcpu_kick(vcpu_get(i));
    }
    pthread_mutex_lock(&kvm->hold_lock);
    for (unsigned i = 0; i < count; i++) {
        struct kvm_vcpu *kv = kvm_vcpu_of(vcpu_get(i));
        while (kv && atomic_load(&kv->in_guest)) {
            pthread_cond_wait(&kvm->hold_cond, &kvm->hold_lock);
        }
    }
    pthread_mutex_unlock(&kvm->hold_lock);
}

void kvm_release_vcpus(struct kvm_accel *kvm)
{
    atomic_fetch_sub(&kvm->hold, 1);
    tell_holder(kvm);
}

/* ---- exits ---------------------------------------------------------------------------------- */

static void exit_system_event(struct kvm_vcpu *kv, struct vcpu_exit *exit)
{
    const struct kvm_run *run = kv->run;

    exit->reason = VCPU_EXIT_SYSTEM_EVENT;
    exit->system.known = true;
    exit->system.type_number = run->system_event.type;
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        exit->system.event = VCPU_EVENT_SHUTDOWN;
        break;
    case KVM_SYSTEM_EVENT_RESET:
        exit->system.event = VCPU_EVENT_RESET;
        break;
    case KVM_SYSTEM_EVENT_CRASH:
        exit->system.event = VCPU_EVENT_CRASH;
        exit->system.crash.has_hyperv = true;
        for (unsigned i = 0; i < 5; i++) {
            if (kvm_read_msr(kv, X86_MSR_HV_CRASH_P0 + i, &exit->system.crash.hyperv[i]) < 0) {
                exit->system.crash.has_hyperv = false;
                exit->system.crash.hyperv[i] = 0;
            }
        }
        break;
    default:
        exit->system.known = false;
    }
}

static void exit_msr(struct kvm_run *run, struct vcpu_exit *exit)
{
    exit->reason = VCPU_EXIT_MSR;
    exit->msr.index = run->msr.index;
    exit->msr.value = run->msr.data;
    exit->msr.is_write = run->exit_reason == KVM_EXIT_X86_WRMSR;
}

static void translate_exit(struct kvm_vcpu *kv, struct vcpu_exit *exit)
{
    struct kvm_run *run = kv->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        exit->reason = VCPU_EXIT_IO;
        exit->io.data = (uint8_t *)run + run->io.data_offset;
        exit->io.count = run->io.count;
        exit->io.port = run->io.port;
        exit->io.size = run->io.size;
        exit->io.is_write = run->io.direction == KVM_EXIT_IO_OUT;
        break;
    case KVM_EXIT_MMIO:
        exit->reason = VCPU_EXIT_MMIO;
        exit->mmio.data = run->mmio.data;
        exit->mmio.address = run->mmio.phys_addr;
        exit->mmio.length = run->mmio.len;
        exit->mmio.is_write = run->mmio.is_write;
        exit->mmio.is_smm = run->flags & KVM_RUN_X86_SMM;
        break;
    case KVM_EXIT_HLT:
        exit->reason = VCPU_EXIT_HLT;
        break;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        exit->reason = VCPU_EXIT_IRQ_WINDOW_OPEN;
        break;
    case KVM_EXIT_SET_TPR:
        exit->reason = VCPU_EXIT_SET_TPR;
        break;
    case KVM_EXIT_SHUTDOWN:
        exit->reason = VCPU_EXIT_SHUTDOWN;
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        exit_system_event(kv, exit);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        exit->reason = VCPU_EXIT_INTERNAL_ERROR;
        exit->internal.suberror = run->internal.suberror;
        exit->internal.ndata = MIN(run->internal.ndata, 16);
        memcpy(exit->internal.data, run->internal.data, sizeof(exit->internal.data));
        break;
    case KVM_EXIT_FAIL_ENTRY:
        exit->reason = VCPU_EXIT_FAIL_ENTRY;
        exit->fail_entry.reason = run->fail_entry.hardware_entry_failure_reason;
        exit->fail_entry.cpu = run->fail_entry.cpu;
        break;
    case KVM_EXIT_DEBUG:
        exit->reason = VCPU_EXIT_DEBUG;
        exit->debug.pc = run->debug.arch.pc;
        exit->debug.dr6 = run->debug.arch.dr6;
        exit->debug.dr7 = run->debug.arch.dr7;
        exit->debug.exception = run->debug.arch.exception;
        break;
    case KVM_EXIT_INTR:
        exit->reason = VCPU_EXIT_INTR;
        break;
    case KVM_EXIT_IOAPIC_EOI:
        exit->reason = VCPU_EXIT_IOAPIC_EOI;
        exit->eoi_vector = run->eoi.vector;
        break;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        exit_msr(run, exit);
        break;
    case KVM_EXIT_UNKNOWN:
        exit->reason = VCPU_EXIT_UNKNOWN;
        exit->hardware_reason = run->hw.hardware_exit_reason;
        break;
    default:
        exit->reason = VCPU_EXIT_UNKNOWN;
        exit->hardware_reason = run->exit_reason;
    }
}

/* ---- running -------------------------------------------------------------------------------- */

/* What the loop did with an MSR exit goes back to the kernel. */
static void finish_msr(struct kvm_vcpu *kv)
{
    struct kvm_run *run = kv->run;
    struct vcpu_exit *exit = &kv->vcpu->exit;

    if (exit->reason == VCPU_EXIT_MSR) {
        run->msr.error = exit->msr.fault;
        run->msr.data = exit->msr.value;
    }
}

/* With ferry's own LAPIC, CR8 and IA32_APIC_BASE are the kernel's and the LAPIC's at once. */
static void sync_from_guest(struct kvm_vcpu *kv)
{
    struct lapic *lapic = kv->vcpu->lapic;

    if (kv->run->cr8 != (uint64_t)lapic_tpr(lapic) >> 4) {
        lapic_set_tpr(lapic, (uint8_t)(kv->run->cr8 << 4));
    }
    if (kv->run->apic_base != lapic_base(lapic)) {
        lapic_set_base(lapic, kv->run->apic_base);
    }
}

void kvm_vcpu_run(struct vcpu *vcpu)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);
    struct kvm_run *run = kv->run;
    int error;

    finish_msr(kv);
    if (vcpu->lapic) {
        run->cr8 = lapic_tpr(vcpu->lapic) >> 4;
    }
    enter_gate(kv);
    error = ioctl(kv->fd, KVM_RUN, 0) < 0 ? errno : 0;
    leave_gate(kv);
    kv->injected = false;
    if (vcpu->lapic) {
        sync_from_guest(kv);
    }
    kvm_drain_coalesced(kv->kvm);

    if (!error) {
        translate_exit(kv, &vcpu->exit);
    } else if (error == EINTR || error == EAGAIN) {
        __atomic_store_n(&run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        vcpu->exit.reason = VCPU_EXIT_INTR;
    } else {
        vcpu->exit.reason = VCPU_EXIT_ERROR;
        vcpu->exit.error = -error;
    }
}

void kvm_vcpu_complete_io(struct vcpu *vcpu)
{
    __atomic_store_n(&kvm_vcpu_of(vcpu)->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    kvm_vcpu_run(vcpu);
}

/* ---- interrupts of ferry's own chips -------------------------------------------------------- */

bool kvm_vcpu_interrupt_ready(struct vcpu *vcpu)
{
    const struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    return kv->run->ready_for_interrupt_injection && kv->run->if_flag && !kv->injected;
}

void kvm_vcpu_inject(struct vcpu *vcpu, uint8_t vector)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);
    struct kvm_interrupt interrupt = {.irq = vector};

    KVM_COUNT(interrupt);
    kv->injected = true;
    kvm_ioctl(kv->fd, KVM_INTERRUPT, &interrupt);
}

void kvm_vcpu_request_window(struct vcpu *vcpu, bool on)
{
    kvm_vcpu_of(vcpu)->run->request_interrupt_window = on;
}

void kvm_vcpu_inject_nmi(struct vcpu *vcpu)
{
    kvm_ioctl(kvm_vcpu_of(vcpu)->fd, KVM_NMI, 0ul);
}

/* The kernel keeps it pending, and wakes a vCPU that it has halted. */
void kvm_vcpu_inject_smi(struct vcpu *vcpu)
{
    kvm_ioctl(kvm_vcpu_of(vcpu)->fd, KVM_SMI, 0ul); /* wakes it from the kernel's HLT */
}
