/* SPDX-License-Identifier: MIT */
/*
 * The VM: opens /dev/kvm, asks what it can do, makes the VM in the irqchip mode that was chosen.
 *
 * Required capabilities are those without which the engine would be another program (user memory,
 * immediate exit, states); all have been in Linux since 4.15. Optional ones are looked up here once
 * and remembered in struct kvm_accel.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "accel/x86_regs.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "mem/machine_lock.h"

#define KVM_DEVICE "/dev/kvm"

/* Three pages for the task state segment that VMX without unrestricted guest needs, and one for an
 * identity page table; below the 16 MiB under 4 GiB that are left to firmware. */
#define KVM_TSS_ADDRESS      UINT64_C(0xfeffd000)
#define KVM_IDENTITY_ADDRESS UINT64_C(0xfeffc000)

struct kvm_stats kvm_stats;

int kvm_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    unsigned long arg = va_arg(ap, unsigned long);
    va_end(ap);

    int ret;
    do {
        ret = ioctl(fd, request, arg);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

int kvm_check(int fd, unsigned cap)
{
    int ret = kvm_ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)cap);
    return ret < 0 ? 0 : ret;
}

int kvm_enable_cap(int vm_fd, uint32_t cap, uint64_t arg)
{
    struct kvm_enable_cap enable = {.cap = cap, .args = {arg}};
    return kvm_ioctl(vm_fd, KVM_ENABLE_CAP, &enable);
}

/* ---- /dev/kvm ------------------------------------------------------------------------------- */

static int open_device(struct error **errp)
{
    int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        return fd;
    }
    switch (errno) {
    case ENOENT:
        error_set(errp, "-accel kvm: " KVM_DEVICE " does not exist; load the module kvm_intel or "
                        "kvm_amd, and if there is none that fits enable virtualization in the "
                        "firmware setup");
        break;
    case EACCES:
    case EPERM:
        error_set(errp, "-accel kvm: no permission to open " KVM_DEVICE "; add the user to the "
                        "group kvm (adduser USER kvm) and log in again");
        break;
    case ENODEV:
    case ENXIO:
        error_set(errp, "-accel kvm: " KVM_DEVICE " has no driver behind it; this host has no "
                        "VT-x or AMD-V, or they are disabled in the firmware setup");
        break;
    default:
        error_set_errno(errp, errno, "-accel kvm: cannot open " KVM_DEVICE);
    }
    return -1;
}

static bool check_api(int fd, struct error **errp)
{
    static const struct {
        unsigned cap;
        const char *name;
    } required[] = {
        {KVM_CAP_USER_MEMORY, "USER_MEMORY"},
        {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "DESTROY_MEMORY_REGION_WORKS"},
        {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, "JOIN_MEMORY_REGIONS_WORKS"},
        {KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR"},
        {KVM_CAP_SET_IDENTITY_MAP_ADDR, "SET_IDENTITY_MAP_ADDR"},
        {KVM_CAP_EXT_CPUID, "EXT_CPUID"},
        {KVM_CAP_MP_STATE, "MP_STATE"},
        {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
        {KVM_CAP_DEBUGREGS, "DEBUGREGS"},
        {KVM_CAP_XSAVE, "XSAVE"},
        {KVM_CAP_XCRS, "XCRS"},
        {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
        {KVM_CAP_INTERNAL_ERROR_DATA, "INTERNAL_ERROR_DATA"},
        {KVM_CAP_USER_NMI, "USER_NMI"},
    };
    int version = kvm_ioctl(fd, KVM_GET_API_VERSION, 0ul);

    if (version != KVM_API_VERSION) {
        error_set(errp, "-accel kvm: " KVM_DEVICE " speaks API version %d; ferry needs %d", version,
                  KVM_API_VERSION);
        return false;
    }
    for (size_t i = 0; i < ARRAY_SIZE(required); i++) {
        if (!kvm_check(fd, required[i].cap)) {
            error_set(errp,
                      "-accel kvm: the host's KVM lacks KVM_CAP_%s; Linux 4.15 or later has it",
                      required[i].name);
            return false;
        }
    }
    return true;
}

int kvm_create_vm(int fd, struct error **errp)
{
    int vm_fd = kvm_ioctl(fd, KVM_CREATE_VM, 0ul);

    switch (-vm_fd) {
    case EBUSY:
        error_set(errp, "-accel kvm: the processor's virtualization is in use by another "
                        "hypervisor (VirtualBox, VMware); end that one first");
        break;
    case ENOMEM:
        error_set(errp, "-accel kvm: the host is out of memory for a VM");
        break;
    default:
        if (vm_fd < 0) {
            error_set_errno(errp, -vm_fd, "-accel kvm: KVM_CREATE_VM");
        }
    }
    return vm_fd;
}

/* ---- capabilities --------------------------------------------------------------------------- */

static void read_capabilities(struct kvm_accel *kvm)
{
    int vm = kvm->vm_fd, n;

    n = kvm_check(vm, KVM_CAP_MAX_VCPUS);
    kvm->max_vcpus = n > 0 ? n : 4;
    n = kvm_check(vm, KVM_CAP_NR_MEMSLOTS);
    kvm->max_slots = n > 0 ? n : 32;
    n = kvm_check(vm, KVM_CAP_IRQ_ROUTING);
    kvm->max_routes = n > ACCEL_GSI_PINS ? n - ACCEL_GSI_PINS : 0;
    n = kvm_check(vm, KVM_CAP_XSAVE2);
    kvm->xsave_size = n > 0 ? MIN(n, X86_XSAVE_MAX) : sizeof(struct kvm_xsave);
    n = kvm_check(vm, KVM_CAP_COALESCED_MMIO);
    kvm->coalesced_page = n > 0 ? n : 0;
    kvm->has_coalesced_pio = kvm_check(vm, KVM_CAP_COALESCED_PIO);
    kvm->has_readonly_mem = kvm_check(vm, KVM_CAP_READONLY_MEM);
    kvm->has_any_length_ioeventfd = kvm_check(vm, KVM_CAP_IOEVENTFD_ANY_LENGTH);
    kvm->has_tsc_deadline = kvm_check(vm, KVM_CAP_TSC_DEADLINE_TIMER);
    kvm->has_kvmclock_ctrl = kvm_check(vm, KVM_CAP_KVMCLOCK_CTRL);
    kvm->has_smm = kvm_check(vm, KVM_CAP_X86_SMM);
    kvm->accel.has_ioeventfd = kvm_check(vm, KVM_CAP_IOEVENTFD);

    n = kvm_check(vm, KVM_CAP_MCE);
    kvm->mce_banks = MIN(n > 0 ? n : 0, X86_MCE_BANKS);
    if (kvm->mce_banks && kvm_ioctl(kvm->fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &kvm->mcg_cap) < 0) {
        kvm->mce_banks = 0;
    }
}

static void enable_capabilities(struct kvm_accel *kvm)
{
    /* With a LAPIC of ferry's own a vCPU's state could not be set to be in SMM, or out of it (state.c). */
    kvm->accel.has_smm = kvm->has_smm && kvm->accel.irqchip != IRQCHIP_OFF &&
                         kvm_check(kvm->vm_fd, KVM_CAP_MULTI_ADDRESS_SPACE) > 1;
    if (kvm_check(kvm->vm_fd, KVM_CAP_EXCEPTION_PAYLOAD) &&
        kvm_enable_cap(kvm->vm_fd, KVM_CAP_EXCEPTION_PAYLOAD, 1) == 0) {
        kvm->has_exception_payload = true;
    }
    if (kvm->accel.irqchip != IRQCHIP_OFF && kvm_check(kvm->vm_fd, KVM_CAP_X2APIC_API)) {
        kvm->has_x2apic_api = kvm_enable_cap(kvm->vm_fd, KVM_CAP_X2APIC_API,
                                             KVM_X2APIC_API_USE_32BIT_IDS |
                                                 KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK) == 0;
    }
}

static bool place_private_pages(struct kvm_accel *kvm, struct error **errp)
{
    uint64_t identity = KVM_IDENTITY_ADDRESS;
    int ret = kvm_ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);

    if (ret == 0) {
        ret = kvm_ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)KVM_TSS_ADDRESS);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: KVM_SET_TSS_ADDR");
        return false;
    }
    return true;
}

/* ---- life ----------------------------------------------------------------------------------- */

static void kvm_destroy(struct accel *accel)
{
    struct kvm_accel *kvm = kvm_of(accel);

    if (kvm->memory.kvm) {
        bool held = machine_lock_held();
        if (!held) {
            machine_lock();
        }
        kvm_cleanup_doorbells(kvm);
        kvm_cleanup_memory(kvm);
        if (!held) {
            machine_unlock();
        }
    }
    kvm_cleanup_clock(kvm);
    kvm_cleanup_pit(kvm);
    if (kvm->vm_fd >= 0) {
        close(kvm->vm_fd);
    }
    if (kvm->fd >= 0) {
        close(kvm->fd);
    }
    pthread_cond_destroy(&kvm->hold_cond);
    pthread_mutex_destroy(&kvm->hold_lock);
    free(kvm->routes);
    free(kvm->supported);
    free(kvm->msrs);
    free(kvm);
}

static bool kvm_set_up(struct kvm_accel *kvm, const struct accel_config *config,
                       struct error **errp)
{
    struct error *probe_error = NULL;
    bool force = false;
    int n;

    kvm->fd = open_device(errp);
    if (kvm->fd < 0 || !check_api(kvm->fd, errp)) {
        return false;
    }
    options_get_bool(config->opts, "force", &force, NULL); /* checked before */
    kvm_install_kick_handler();
    if (!kvm_probe(kvm->fd, &probe_error)) {
        if (!force) {
            error_propagate(errp, probe_error);
            return false;
        }
        error_free(probe_error);
    }
    n = kvm_ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0ul);
    kvm->vm_fd = n < 0 ? n : kvm_create_vm(kvm->fd, errp);
    if (kvm->vm_fd < 0) {
        return false;
    }
    kvm->run_size = n;
    read_capabilities(kvm);
    if (config->smp_max > kvm->max_vcpus) {
        error_set(errp, "-smp %u: the host's KVM takes at most %u vCPUs", config->smp_max,
                  kvm->max_vcpus);
        return false;
    }
    if (!place_private_pages(kvm, errp) || !kvm_init_irqchip(kvm, errp)) {
        return false;
    }
    enable_capabilities(kvm);
    n = kvm_ioctl(kvm->vm_fd, KVM_GET_TSC_KHZ, 0ul);
    kvm->tsc_khz = n > 0 ? n : 0;
    return kvm_init_cpuid(kvm, errp) && kvm_init_msrs(kvm, errp);
}

/* force=on: run although the probe says it cannot. */
static bool kvm_check_options(struct options *opts, struct error **errp)
{
    bool force;

    return options_get_bool(opts, "force", &force, errp);
}

static struct accel *kvm_create(const struct accel_config *config, struct error **errp)
{
    struct kvm_accel *kvm = xnew(struct kvm_accel);
    bool held = machine_lock_held();

    kvm->accel.ops = &kvm_ops;
    kvm->accel.irqchip = config->irqchip;
    kvm->fd = kvm->vm_fd = -1;
    pthread_mutex_init(&kvm->hold_lock, NULL);
    pthread_cond_init(&kvm->hold_cond, NULL);

    if (!kvm_set_up(kvm, config, errp)) {
        kvm_destroy(&kvm->accel);
        return NULL;
    }
    if (!held) {
        machine_lock();
    }
    kvm_init_memory(kvm);
    kvm_init_doorbells(kvm);
    if (!held) {
        machine_unlock();
    }
    kvm_init_clock(kvm);
    return &kvm->accel;
}

const struct accel_ops kvm_ops = {
    .name = "kvm",
    .description = "the host's processor, by Linux KVM",
    .has_vcpus = true,
    .supports_irqchip = {true, true, true},
    .default_irqchip = IRQCHIP_ON,
    .check_options = kvm_check_options,
    .create = kvm_create,
    .destroy = kvm_destroy,
    .supported_cpuid = kvm_supported_cpuid,
    .vcpu_init = kvm_vcpu_init,
    .vcpu_destroy = kvm_vcpu_destroy,
    .vcpu_run = kvm_vcpu_run,
    .vcpu_kick = kvm_vcpu_kick,
    .vcpu_complete_io = kvm_vcpu_complete_io,
    .vcpu_get_state = kvm_vcpu_get_state,
    .vcpu_set_state = kvm_vcpu_set_state,
    .vcpu_interrupt_ready = kvm_vcpu_interrupt_ready,
    .vcpu_inject = kvm_vcpu_inject,
    .vcpu_request_window = kvm_vcpu_request_window,
    .vcpu_inject_nmi = kvm_vcpu_inject_nmi,
    .vcpu_inject_smi = kvm_vcpu_inject_smi,
    .enable_smm = kvm_enable_smm,
    .irq_set = kvm_irq_set,
    .msi_send = kvm_msi_send,
    .route_add = kvm_route_add,
    .route_update = kvm_route_update,
    .route_remove = kvm_route_remove,
    .routes_commit = kvm_routes_commit,
    .route_ioapic_pin = kvm_route_ioapic_pin,
    .irqfd_add = kvm_irqfd_add,
    .irqfd_remove = kvm_irqfd_remove,
    .get_pic = kvm_get_pic,
    .set_pic = kvm_set_pic,
    .get_ioapic = kvm_get_ioapic,
    .set_ioapic = kvm_set_ioapic,
    .create_pit = kvm_create_pit,
    .get_pit = kvm_get_pit,
    .set_pit = kvm_set_pit,
};
