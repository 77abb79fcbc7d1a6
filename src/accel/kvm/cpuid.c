/* SPDX-License-Identifier: MIT */
/*
 * CPUID: what the host's KVM can give (KVM_GET_SUPPORTED_CPUID and the capabilities that go with
 * it), and handing a vCPU the leaves that its CPU model made of that.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/cpu_model.h"
#include "accel/kvm/kvm.h"
#include "base/alloc.h"
#include "base/range.h"

#define ECX1_X2APIC       BIT(21)
#define ECX1_TSC_DEADLINE BIT(24)
#define ECX1_HYPERVISOR   BIT(31)
#define EAX6_ARAT         BIT(2)
#define EDX87_INVTSC      BIT(8)
#define KVM_FEATURES_LEAF 0x40000001
/* KVM_FEATURE_*: those that need the LAPIC in the kernel. */
#define EAXKVM_IN_KERNEL_APIC                                                                      \
    (BIT(4) /* async pf */ | BIT(6) /* pv eoi */ | BIT(7) /* pv unhalt */ |                        \
     BIT(10) /* async pf vmexit */ | BIT(11) /* pv ipi */ | BIT(13) /* sched yield */ |            \
     BIT(14) /* async pf int */)
/* Pseudo leaf for the few parts of Hyper-V's interface that ferry offers. */
#define HYPERV_LEAF 0x40000003

bool kvm_init_cpuid(struct kvm_accel *kvm, struct error **errp)
{
    int ret = -E2BIG;

    for (unsigned size = 128; ret == -E2BIG && size <= 2048; size *= 2) {
        free(kvm->supported);
        kvm->supported =
            xcalloc(1, sizeof(struct kvm_cpuid2) + size * sizeof(struct kvm_cpuid_entry2));
        kvm->supported->nent = size;
        ret = kvm_ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, kvm->supported);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "-accel kvm: KVM_GET_SUPPORTED_CPUID");
    }
    return ret >= 0;
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_accel *kvm, uint32_t leaf,
                                           uint32_t subleaf)
{
    for (unsigned i = 0; i < kvm->supported->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &kvm->supported->entries[i];
        if (e->function == leaf &&
            (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == subleaf)) {
            return e;
        }
    }
    return NULL;
}

static bool host_has_invariant_tsc(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(0x80000007, &a, &b, &c, &d) && d & EDX87_INVTSC;
}

/* The leaf that says at which frequency the TSC counts: only if it is known and never changes. */
static bool tsc_leaf(const struct kvm_accel *kvm, uint32_t regs[4])
{
    if (!kvm->tsc_khz || !host_has_invariant_tsc()) {
        return false;
    }
    regs[0] = kvm->tsc_khz;
    regs[1] = 1000000; /* the LAPIC timer's bus: 1 GHz, in kHz */
    regs[2] = regs[3] = 0;
    return true;
}

bool kvm_supported_cpuid(struct accel *accel, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    const struct kvm_accel *kvm = kvm_of(accel);
    const struct kvm_cpuid_entry2 *e;
    bool has_apic = accel->irqchip != IRQCHIP_OFF;

    if (leaf == CPUID_LEAF_TSC_KHZ) {
        return tsc_leaf(kvm, regs);
    }
    e = find(kvm, leaf, subleaf);
    memset(regs, 0, 4 * sizeof(regs[0]));
    if (e) {
        regs[0] = e->eax;
        regs[1] = e->ebx;
        regs[2] = e->ecx;
        regs[3] = e->edx;
    }
    switch (leaf) {
    case 1:
        regs[2] |= ECX1_HYPERVISOR;
        regs[2] &= ~(ECX1_X2APIC | ECX1_TSC_DEADLINE);
        /* Neither is reported in every kernel, and both need the LAPIC in the kernel. */
        regs[2] |= has_apic ? ECX1_X2APIC : 0;
        regs[2] |= has_apic && kvm->has_tsc_deadline ? ECX1_TSC_DEADLINE : 0;
        break;
    case 6:
        regs[0] = EAX6_ARAT; /* a LAPIC timer in software never stops */
        return true;
    case 0x80000007:
        if (host_has_invariant_tsc()) {
            regs[3] |= EDX87_INVTSC;
        }
        break;
    case KVM_FEATURES_LEAF:
        regs[0] &= has_apic ? UINT32_MAX : ~EAXKVM_IN_KERNEL_APIC;
        break;
    case HYPERV_LEAF:
        regs[0] = BIT(5) | BIT(7); /* hypercall MSRs, reset MSR */
        regs[3] = BIT(10);         /* crash MSRs */
        return kvm_check(kvm->vm_fd, KVM_CAP_HYPERV) > 0;
    }
    return e != NULL;
}

bool kvm_vcpu_set_cpuid(struct kvm_vcpu *kv, struct error **errp)
{
    struct cpuid_entry entries[CPUID_MAX];
    unsigned count = cpu_model_cpuid(kv->vcpu->model, kv->vcpu->apic_id, entries);
    autofree struct kvm_cpuid2 *cpuid =
        xcalloc(1, sizeof(*cpuid) + count * sizeof(cpuid->entries[0]));
    int ret;

    for (unsigned i = 0; i < count; i++) {
        cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
            .function = entries[i].leaf,
            .index = entries[i].subleaf,
            .flags = entries[i].has_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = entries[i].eax,
            .ebx = entries[i].ebx,
            .ecx = entries[i].ecx,
            .edx = entries[i].edx,
        };
    }
    ret = kvm_ioctl(kv->fd, KVM_SET_CPUID2, cpuid);
    if (ret < 0) {
        error_set_errno(errp, -ret, "-cpu %s: the host's KVM does not take its CPUID leaves",
                        cpu_model_name(kv->vcpu->model));
    }
    return ret >= 0;
}
