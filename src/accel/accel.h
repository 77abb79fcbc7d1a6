/* SPDX-License-Identifier: MIT */
/*
 * The accelerator seam: all that the machine knows of a CPU engine.
 *
 *      machine, devices                     accel core                    engine (kvm, soft, qtest)
 *   irq line of a GSI ---- kernel irqchip ------------------------------> irq_set
 *                     \--- own PIC, IOAPIC --> accel_msi_send ---------->  msi_send | lapics
 *   MSI-X table -------- accel_msi_send, or route + irqfd -------------->  route_*, irqfd_*
 *   regions ------------ flat view listener (slots, ioeventfds) --------> engine's own listener
 *   vcpu loop <--------- struct vcpu_exit <------------------------------ vcpu_run
 *
 * Engines are listed in accel_engines[]. The engine of the running VM is accel_current().
 * Nothing outside accel/ names KVM or the soft CPU.
 */
#ifndef FERRY_ACCEL_ACCEL_H
#define FERRY_ACCEL_ACCEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "accel/x86_state.h"
#include "base/error.h"

struct accel;
struct cpu_model;
struct event_notifier;
struct options;
struct vcpu;

/* Who emulates the interrupt chips. */
enum irqchip_mode {
    IRQCHIP_ON,    /* engine: PIC, IOAPIC, LAPIC, PIT (if the machine has one) */
    IRQCHIP_SPLIT, /* engine: LAPIC; ferry: the others */
    IRQCHIP_OFF,   /* ferry: all */
};

struct accel_config {
    enum irqchip_mode irqchip;
    unsigned smp_max;
    struct options *opts; /* what the user wrote after the engine's name */
};

struct msi_message {
    uint64_t address;
    uint32_t data;
};

#define ACCEL_GSI_PINS 24 /* GSIs of the IOAPIC; MSI routes get numbers from here on */

struct accel_ops {
    const char *name;        /* "kvm" */
    const char *alias;       /* "soft" for "tcg", or NULL */
    const char *description; /* for -accel help */
    bool has_vcpus;          /* false: qtest */
    bool supports_irqchip[3];
    enum irqchip_mode default_irqchip;

    /* Checks the options of -accel that are the engine's own. NULL: there are none. */
    bool (*check_options)(struct options *opts, struct error **errp);
    /* Makes the VM: probes the engine, says in one line why it cannot be used. Main thread. */
    struct accel *(*create)(const struct accel_config *config, struct error **errp);
    void (*destroy)(struct accel *accel);

    /* CPUID that the engine and ferry can offer (before the CPU model takes its part). Returns
     * false if the leaf has none. */
    bool (*supported_cpuid)(struct accel *accel, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);

    /* ---- vCPU: in its thread, but for vcpu_destroy and vcpu_kick ---- */
    bool (*vcpu_init)(struct vcpu *vcpu, struct error **errp);
    /* After the threads of all vCPUs have ended; also after a failed vcpu_init. */
    void (*vcpu_destroy)(struct vcpu *vcpu);
    /* Runs the guest until an exit and fills vcpu->exit. Also completes the last IO or MMIO read,
     * whose data the loop has filled in. */
    void (*vcpu_run)(struct vcpu *vcpu);
    /* Makes a running or the next vcpu_run return VCPU_EXIT_INTR. Any thread. */
    void (*vcpu_kick)(struct vcpu *vcpu);
    /* Completes a pending IO or MMIO without running the guest, so that state can be taken. */
    void (*vcpu_complete_io)(struct vcpu *vcpu);
    bool (*vcpu_get_state)(struct vcpu *vcpu, struct x86_state *state, struct error **errp);
    bool (*vcpu_set_state)(struct vcpu *vcpu, const struct x86_state *state, struct error **errp);
    /* Interrupts of ferry's own LAPIC or PIC. inject: only when ready. window: exit with
     * VCPU_EXIT_IRQ_WINDOW_OPEN as soon as it is. */
    bool (*vcpu_interrupt_ready)(struct vcpu *vcpu);
    void (*vcpu_inject)(struct vcpu *vcpu, uint8_t vector);
    void (*vcpu_request_window)(struct vcpu *vcpu, bool on);
    void (*vcpu_inject_nmi)(struct vcpu *vcpu);
    void (*vcpu_inject_smi)(struct vcpu *vcpu);
    /* The engine has an SMI (where accel.has_smm) or NMI that the vCPU takes when it runs, halted or not; NULL: it keeps none.
     * vCPU thread. */
    bool (*vcpu_has_event)(struct vcpu *vcpu);
    /* It is in SMM, where INIT waits for RSM; who leaves it comes back from vcpu_run. NULL: never, or the
     * engine sees to that. vCPU thread. */
    bool (*vcpu_in_smm)(struct vcpu *vcpu);
    /* The machine has SMM: address_space_smm counts from now on. Before vCPUs run, once. NULL: it always
     * does. Machine lock held. */
    void (*enable_smm)(struct accel *accel);

    /* The A20 gate, where the engine can mask address bit 20, else NULL. Machine lock held. */
    void (*set_a20)(struct accel *accel, bool open);

    /* ---- interrupts; any thread ---- */
    void (*irq_set)(struct accel *accel, unsigned gsi, int level);
    void (*msi_send)(struct accel *accel, const struct msi_message *msg);
    /* Routes: add gives a GSI or -errno; nothing reaches the kernel before commit, and commit only
     * if something changed. Machine lock held. NULL where the engine has none. */
    int (*route_add)(struct accel *accel, const struct msi_message *msg);
    void (*route_update)(struct accel *accel, int gsi, const struct msi_message *msg);
    void (*route_remove)(struct accel *accel, int gsi);
    void (*routes_commit)(struct accel *accel);
    /* IRQCHIP_SPLIT: what the IOAPIC's pin sends, so that the engine reports its EOI. NULL msg:
     * masked. */
    void (*route_ioapic_pin)(struct accel *accel, unsigned pin, const struct msi_message *msg);
    /* trigger set by anybody injects gsi; resample (or NULL) is set when a level GSI is EOIed. */
    int (*irqfd_add)(struct accel *accel, int gsi, struct event_notifier *trigger,
                     struct event_notifier *resample);
    void (*irqfd_remove)(struct accel *accel, int gsi, struct event_notifier *trigger);

    /* ---- chips inside the engine (irqchip on); machine lock held, vCPUs paused ---- */
    bool (*get_pic)(struct accel *accel, struct x86_pic pic[2]);
    bool (*set_pic)(struct accel *accel, const struct x86_pic pic[2]);
    bool (*get_ioapic)(struct accel *accel, struct x86_ioapic *ioapic);
    bool (*set_ioapic)(struct accel *accel, const struct x86_ioapic *ioapic);
    /* The machine has a PIT: with port 0x61. Once, before there are vCPUs. NULL: there always is. */
    bool (*create_pit)(struct accel *accel, struct error **errp);
    bool (*get_pit)(struct accel *accel, struct x86_pit *pit);
    bool (*set_pit)(struct accel *accel, const struct x86_pit *pit);
};

/* Embedded first in the engine's own struct. */
struct accel {
    /* constant */
    const struct accel_ops *ops;
    enum irqchip_mode irqchip;
    bool has_ioeventfd, has_irqfd;
    bool has_smm; /* system management mode, with memory of its own (address_space_smm) */
    /* set before vCPUs run */
    bool smm_enabled; /* the machine has it too: accel_enable_smm() */
    /* the same; called with the machine lock held */
    int (*extint_ack)(void *opaque); /* PIC: vector, the INTA cycle */
    void *extint_opaque;
    void (*eoi_broadcast)(void *opaque, uint8_t vector); /* IOAPIC: a LAPIC's EOI of a level IRQ */
    void *eoi_opaque;
    /* machine lock */
    bool a20_closed;
};

extern const struct accel_ops *const accel_engines[]; /* NULL-terminated, in order of default */

/* The -accel and -machine accel= lists in order of preference; each entry "kvm,prop=…". Without
 * entries the default order. Says on stderr which was taken and why if it was not the first.
 * machine_irqchip: from -machine kernel-irqchip=, may be NULL. */
struct accel *accel_init(const char *const *entries, size_t count, const char *machine_irqchip,
                         unsigned smp_max, struct error **errp);
void accel_cleanup(void);
struct accel *accel_current(void);  /* NULL before accel_init() */
void accel_print_engines(FILE *to); /* -accel help */

/* ---- what devices and machines call ---------------------------------------------------------- */

/* An MSI write by a device: to the engine, or to ferry's LAPICs. Any thread, no lock needed. */
void accel_msi_send(const struct msi_message *msg);
/* Level of the PIC's INT output, for vCPU 0 (irqchip split and off). */
void accel_set_extint(int level);
bool accel_has_irqfd(void);
/* The A20 gate opens or closes: physical addresses lose bit 20 where the engine can do that. KVM
 * cannot, and its guests find the gate always open. Machine lock held. */
void accel_set_a20(bool open);
bool accel_a20(void); /* as the guest finds it */
/* The chipset's SMI# for the vCPU whose access this is part of, or for the first one: a vCPU takes it
 * before its next instruction. Only where accel_has_smm(). Machine lock held. */
void accel_raise_smi(void);
bool accel_has_smm(void);
/* By the machine that has it, before vCPUs run. Machine lock held. */
void accel_enable_smm(void);

#endif
