/* SPDX-License-Identifier: MIT */
/*
 * The soft CPU as an engine: making the VM and its vCPUs, and the operations of the accelerator seam
 * (accel/accel.h). Interrupt chips are ferry's own (kernel-irqchip=off).
 */
#include "accel/soft/soft.h"

#include <stdlib.h>
#include <string.h>

#include "accel/lapic.h"
#include "accel/soft/code.h"
#include "accel/soft/mailbox.h"
#include "accel/soft/system.h"
#include "accel/soft/tlb.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "mem/machine_lock.h"

#define TSC_HZ   UINT64_C(1000000000)
#define CODE_MIB 96 /* of one vCPU's blocks, where tb-size does not say */

static struct soft_accel *soft_of(struct accel *accel)
{
    return (struct soft_accel *)accel;
}

/* ---- the VM ----------------------------------------------------------------------------------- */

/*
 * QEMU's options of -accel tcg. thread=multi is how it is; tb-size (MiB) bounds the blocks of all vCPUs
 * together.
 */
static const char *const thread_names[] = {"multi", "single", NULL};

static bool soft_check_options(struct options *opts, struct error **errp)
{
    uint64_t size = 0;
    int thread = 0;

    if (!options_get_enum(opts, "thread", thread_names, &thread, errp) ||
        !options_get_uint(opts, "tb-size", 1, 65536, &size, errp)) {
        return false;
    }
    if (thread) {
        error_set(errp, "thread=single: every vCPU has a thread of its own; leave it out, or use "
                        "thread=multi");
        return false;
    }
    return true;
}

static struct accel *soft_create(const struct accel_config *config, struct error **errp)
{
    struct soft_accel *soft;
    bool held = machine_lock_held();
    uint64_t tb_size = 0;

    if (config->smp_max > SOFT_CPUS_MAX) {
        error_set(errp, "-smp %u: the soft CPU has at most %u vCPUs", config->smp_max,
                  SOFT_CPUS_MAX);
        return NULL;
    }
    soft = xnew(struct soft_accel);
    soft->accel.ops = &soft_ops;
    soft->accel.irqchip = IRQCHIP_OFF;
    soft->accel.has_smm = true;
    soft->count_max = config->smp_max;
    soft->tsc_hz = TSC_HZ;
    soft->code_bytes = CODE_MIB * MiB;
    if (options_get_uint(config->opts, "tb-size", 1, 65536, &tb_size, NULL) && tb_size) {
        soft->code_bytes = tb_size * MiB / MAX(config->smp_max, 1);
    }
    if (!held) {
        machine_lock();
    }
    soft_ram_init(soft);
    if (!held) {
        machine_unlock();
    }
    return &soft->accel;
}

static void soft_destroy(struct accel *accel)
{
    bool held = machine_lock_held();

    if (!held) {
        machine_lock();
    }
    soft_ram_cleanup(soft_of(accel));
    if (!held) {
        machine_unlock();
    }
    free(accel);
}

/* ---- vCPUs ------------------------------------------------------------------------------------ */

static bool soft_vcpu_init(struct vcpu *vcpu, struct error **errp)
{
    struct soft_cpu *cpu = xaligned_alloc(_Alignof(struct soft_cpu), sizeof(*cpu));
    struct x86_state *state = xnew(struct x86_state);
    bool ok;

    memset(cpu, 0, sizeof(*cpu));
    cpu->vcpu = vcpu;
    cpu->soft = soft_of(vcpu->accel);
    cpu->index = vcpu->index;
    cpu->page_wrap = SOFT_PAGE_WRAP;
    vcpu->engine = cpu;
    soft_tlb_create(cpu);
    soft_code_init(cpu);
    cpu->mailbox = soft_mailbox_new();
    cpu->features = soft_features_new(vcpu->model);
    cpu->msrs = soft_msrs_new();
    cpu->smbase = 0x30000;
    if (vcpu->lapic) {
        lapic_set_tsc_clock(vcpu->lapic, soft_tsc_ns_at);
    }
    x86_state_reset(state, vcpu->index == 0, vcpu->apic_id);
    ok = soft_set_state(vcpu, state, errp);
    free(state);
    if (ok) {
        soft_mailbox_register(cpu);
    }
    return ok;
}

static void soft_vcpu_destroy(struct vcpu *vcpu)
{
    struct soft_cpu *cpu = soft_cpu_of(vcpu);

    if (!cpu) {
        return;
    }
    vcpu->engine = NULL;
    soft_mailbox_unregister(cpu);
    soft_code_destroy(cpu);
    soft_mailbox_free(cpu->mailbox);
    free((void *)cpu->features);
    free(cpu->msrs);
    soft_tlb_destroy(cpu);
    free(cpu);
}

static void soft_vcpu_kick(struct vcpu *vcpu)
{
    soft_kick(soft_cpu_of(vcpu));
}

/* IO and MMIO are carried out where they happen. */
static void soft_vcpu_complete_io(struct vcpu *vcpu)
{
    vcpu->exit.reason = VCPU_EXIT_INTR;
}

/* ---- interrupts -------------------------------------------------------------------------------- */

static bool soft_vcpu_interrupt_ready(struct vcpu *vcpu)
{
    const struct soft_cpu *cpu = soft_cpu_of(vcpu);

    return cpu->rflags & X86_RFLAGS_IF && !cpu->shadow && !cpu->interrupt_pending &&
           !cpu->exception.pending;
}

static void soft_vcpu_inject(struct vcpu *vcpu, uint8_t vector)
{
    struct soft_cpu *cpu = soft_cpu_of(vcpu);

    cpu->interrupt_pending = true;
    cpu->interrupt_vector = vector;
}

static void soft_vcpu_request_window(struct vcpu *vcpu, bool on)
{
    soft_cpu_of(vcpu)->window_requested = on;
}

static void soft_vcpu_inject_nmi(struct vcpu *vcpu)
{
    soft_cpu_of(vcpu)->nmi_pending = true;
}

static void soft_vcpu_inject_smi(struct vcpu *vcpu)
{
    struct soft_cpu *cpu = soft_cpu_of(vcpu);

    cpu->smi_pending = true;
    atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
}

static bool soft_vcpu_has_event(struct vcpu *vcpu)
{
    const struct soft_cpu *cpu = soft_cpu_of(vcpu);

    return (cpu->smi_pending && !cpu->smm) || (cpu->nmi_pending && !cpu->nmi_masked);
}

static bool soft_vcpu_in_smm(struct vcpu *vcpu)
{
    return soft_cpu_of(vcpu)->smm;
}

/* ---- A20 --------------------------------------------------------------------------------------- */

static void soft_set_a20(struct accel *accel, bool open)
{
    atomic_store(&soft_of(accel)->a20_closed, !open);
    soft_flush_everybody();
}

const struct accel_ops soft_ops = {
    .name = "tcg",
    .alias = "soft",
    .description = "ferry's own CPU in software",
    .has_vcpus = true,
    .supports_irqchip = {false, false, true},
    .default_irqchip = IRQCHIP_OFF,
    .check_options = soft_check_options,
    .create = soft_create,
    .destroy = soft_destroy,
    .supported_cpuid = soft_supported_cpuid,
    .vcpu_init = soft_vcpu_init,
    .vcpu_destroy = soft_vcpu_destroy,
    .vcpu_run = soft_vcpu_run,
    .vcpu_kick = soft_vcpu_kick,
    .vcpu_complete_io = soft_vcpu_complete_io,
    .vcpu_get_state = soft_get_state,
    .vcpu_set_state = soft_set_state,
    .vcpu_interrupt_ready = soft_vcpu_interrupt_ready,
    .vcpu_inject = soft_vcpu_inject,
    .vcpu_request_window = soft_vcpu_request_window,
    .vcpu_inject_nmi = soft_vcpu_inject_nmi,
    .vcpu_inject_smi = soft_vcpu_inject_smi,
    .vcpu_has_event = soft_vcpu_has_event,
    .vcpu_in_smm = soft_vcpu_in_smm,
    .set_a20 = soft_set_a20,
};
