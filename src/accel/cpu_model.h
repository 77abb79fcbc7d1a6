/* SPDX-License-Identifier: MIT */
/*
 * CPU models: -cpu NAME[,+feature|-feature|feature=on|off]…
 *
 * A model is a list of features and a family, model and stepping; what a vCPU offers is the model
 * (host, max: everything), plus and minus the user's features, within what engine and ferry
 * support. A feature asked for by name that the engine lacks is a warning, as in QEMU, or an error
 * with enforce=on.
 */
#ifndef FERRY_ACCEL_CPU_MODEL_H
#define FERRY_ACCEL_CPU_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct accel;
struct cpu_model;

/* text NULL: the engine's default (host where there is a host's processor to hand on, else qemu64). */
struct cpu_model *cpu_model_new(const char *text, struct accel *accel, unsigned smp,
                                struct error **errp);
void cpu_model_free(struct cpu_model *model);
const char *cpu_model_name(const struct cpu_model *model);
void cpu_models_print(FILE *to); /* -cpu help */

/*
 * Topology of -smp, before vCPUs are made; without it, all are cores of one socket. The APIC id of a
 * vCPU has its thread, core, die and socket numbers in fields of whole bits (SDM 8.9.1).
 */
struct cpu_topology {
    unsigned sockets, dies, cores, threads;
};
void cpu_model_set_topology(struct cpu_model *model, const struct cpu_topology *topology);
uint32_t cpu_model_apic_id(const struct cpu_model *model, unsigned index);

/* Pseudo leaf of accel_ops.supported_cpuid(): EAX: frequency of an invariant TSC, kHz; EBX: of the
 * LAPIC timer, kHz. */
#define CPUID_LEAF_TSC_KHZ 0xffff0001u
/* Pseudo leaf that only an engine in software has: its processor is nobody's, so a model keeps its own
 * vendor, and there is no 'host'. */
#define CPUID_LEAF_EMULATED 0xffff0002u

struct cpuid_entry {
    uint32_t leaf, subleaf;
    bool has_subleaf;
    uint32_t eax, ebx, ecx, edx;
};

#define CPUID_MAX 100
/* The leaves for a vCPU (APIC id and topology filled in); the number written to entries. */
unsigned cpu_model_cpuid(const struct cpu_model *model, uint32_t apic_id,
                         struct cpuid_entry entries[CPUID_MAX]);
bool cpu_model_has(const struct cpu_model *model, const char *feature);
/* CPUID.1:EAX, which is also in EDX after RESET. */
uint32_t cpu_model_signature(const struct cpu_model *model);
unsigned cpu_model_phys_bits(const struct cpu_model *model);

#endif
