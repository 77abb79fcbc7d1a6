/* SPDX-License-Identifier: MIT */
/*
 * The MSRs that make up a vCPU's state: those of ferry's list (x86_state_reset()) and some more
 * that the host's KVM says it keeps. Machine check banks and MTRRs are kept although
 * KVM_GET_MSR_INDEX_LIST does not name them.
 */
#include <errno.h>
#include <stdlib.h>

#include "accel/kvm/kvm.h"
#include "accel/x86_regs.h"
#include "base/alloc.h"
#include "base/range.h"

/* KVM_GET_MSRS and KVM_SET_MSRS stop at the first that fails and say how many went well. */
static struct kvm_msrs *batch_new(void)
{
    return xcalloc(1, sizeof(struct kvm_msrs) + X86_MSR_MAX * sizeof(struct kvm_msr_entry));
}

static bool is_variable_mtrr(uint32_t index)
{
    return index >= X86_MSR_MTRR_PHYS_BASE0 &&
           index < X86_MSR_MTRR_PHYS_BASE0 + 2 * X86_MTRR_VARIABLE_COUNT;
}

static bool is_mtrr(uint32_t index)
{
    return is_variable_mtrr(index) || index == X86_MSR_MTRR_DEF_TYPE ||
           index == X86_MSR_MTRR_FIX64K_00000 || index == X86_MSR_MTRR_FIX16K_80000 ||
           index == X86_MSR_MTRR_FIX16K_A0000 ||
           (index >= X86_MSR_MTRR_FIX4K_C0000 && index < X86_MSR_MTRR_FIX4K_C0000 + 8);
}

static bool is_machine_check(uint32_t index)
{
    return index >= X86_MSR_MC0_CTL && index < X86_MSR_MC0_CTL + 4 * X86_MCE_BANKS;
}

static bool in_list(const struct kvm_msr_list *list, uint32_t index)
{
    for (unsigned i = 0; i < list->nmsrs; i++) {
        if (list->indices[i] == index) {
            return true;
        }
    }
    return false;
}

static bool keeps(const struct kvm_accel *kvm, const struct kvm_msr_list *list, uint32_t index)
{
    if (is_machine_check(index)) {
        return (index - X86_MSR_MC0_CTL) / 4 < kvm->mce_banks;
    }
    if (index == X86_MSR_MCG_STATUS || index == X86_MSR_MCG_CTL) {
        return kvm->mce_banks > 0 && (index == X86_MSR_MCG_STATUS || kvm->mcg_cap & 1 << 8);
    }
    if (index == X86_MSR_TSC_DEADLINE && kvm->accel.irqchip == IRQCHIP_OFF) {
        return false;
    }
    return is_mtrr(index) || index == X86_MSR_PAT || in_list(list, index);
}

static struct kvm_msr_list *msr_index_list(struct kvm_accel *kvm)
{
    struct kvm_msr_list probe = {.nmsrs = 0}, *list;
    unsigned count;

    /* Fails with E2BIG and tells the number. */
    if (kvm_ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, &probe) != -E2BIG || probe.nmsrs > 4096) {
        return NULL;
    }
    count = probe.nmsrs;
    list = xcalloc(1, sizeof(*list) + count * sizeof(list->indices[0]));
    list->nmsrs = count;
    if (kvm_ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, list) < 0) {
        free(list);
        return NULL;
    }
    return list;
}

bool kvm_init_msrs(struct kvm_accel *kvm, struct error **errp)
{
    autofree struct kvm_msr_list *list = msr_index_list(kvm);
    autofree struct x86_state *reset = xnew(struct x86_state);

    if (!list) {
        error_set(errp, "-accel kvm: KVM_GET_MSR_INDEX_LIST failed");
        return false;
    }
    x86_state_reset(reset, true, 0);
    kvm->msrs = xcalloc(X86_MSR_MAX, sizeof(*kvm->msrs));
    for (unsigned i = 0; i < reset->msr_count; i++) {
        if (keeps(kvm, list, reset->msr[i].index)) {
            kvm->msrs[kvm->msr_count++] = reset->msr[i].index;
        }
    }
    return true;
}

/* ---- transfer -------------------------------------------------------------------------------- */

static bool covers(const struct kvm_accel *kvm, uint32_t index)
{
    for (unsigned i = 0; i < kvm->msr_count; i++) {
        if (kvm->msrs[i] == index) {
            return true;
        }
    }
    return false;
}

int kvm_get_msrs(struct kvm_vcpu *kv, struct x86_state *state)
{
    autofree struct kvm_msrs *batch = batch_new();
    unsigned next = 0;

    state->msr_count = 0;
    while (next < kv->kvm->msr_count) {
        unsigned count = kv->kvm->msr_count - next;
        int done;

        batch->nmsrs = count;
        for (unsigned i = 0; i < count; i++) {
            batch->entries[i] = (struct kvm_msr_entry){.index = kv->kvm->msrs[next + i]};
        }
        done = kvm_ioctl(kv->fd, KVM_GET_MSRS, batch);
        if (done < 0) {
            return done;
        }
        for (int i = 0; i < done; i++) {
            state->msr[state->msr_count++] =
                (struct x86_msr){batch->entries[i].index, batch->entries[i].data};
        }
        next += done + 1; /* the one that failed is not for this CPU model */
    }
    return 0;
}

int kvm_set_msrs(struct kvm_vcpu *kv, const struct x86_state *state, uint32_t *failed)
{
    autofree struct kvm_msrs *batch = batch_new();
    unsigned place[X86_MSR_MAX]; /* of a batch's entry in the state */
    unsigned next = 0;

    while (next < state->msr_count) {
        unsigned count = 0, bad;
        int done;

        for (unsigned i = next; i < state->msr_count; i++) {
            if (covers(kv->kvm, state->msr[i].index)) {
                place[count] = i;
                batch->entries[count++] = (struct kvm_msr_entry){.index = state->msr[i].index,
                                                                 .data = state->msr[i].value};
            }
        }
        batch->nmsrs = count;
        done = count ? kvm_ioctl(kv->fd, KVM_SET_MSRS, batch) : 0;
        if (done >= (int)count) {
            return 0;
        }
        bad = place[MAX(done, 0)];
        /* What the CPU model lacks may keep its reset value. */
        if (done < 0 || state->msr[bad].value > 1) {
            *failed = state->msr[bad].index;
            return -EINVAL;
        }
        next = bad + 1;
    }
    return 0;
}

int kvm_read_msr(struct kvm_vcpu *kv, uint32_t index, uint64_t *value)
{
    autofree struct kvm_msrs *one = batch_new();
    int done;

    one->nmsrs = 1;
    one->entries[0].index = index;
    done = kvm_ioctl(kv->fd, KVM_GET_MSRS, one);
    *value = one->entries[0].data;
    return done < 0 ? done : done == 1 ? 0 : -EINVAL;
}
