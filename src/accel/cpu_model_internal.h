/* SPDX-License-Identifier: MIT */
/* Between the files of CPU models. */
#ifndef FERRY_ACCEL_CPU_MODEL_INTERNAL_H
#define FERRY_ACCEL_CPU_MODEL_INTERNAL_H

#include "accel/cpu_feature.h"
#include "accel/cpu_model.h"

#define CPU_VENDOR_INTEL "GenuineIntel"
#define CPU_VENDOR_AMD   "AuthenticAMD"
#define CPU_BRAND_SIZE   48

/* A row of the list of models. */
struct cpu_definition {
    const char *name, *description;
    bool is_host; /* what the engine has; the rest of the row is unused */
    const char *vendor;
    unsigned family, model, stepping;
    const char *brand;
    const char *features; /* names separated by spaces */
};

extern const struct cpu_definition cpu_definitions[]; /* ends with a NULL name */

struct cpu_model {
    /* constant after cpu_model_new() */
    const struct cpu_definition *definition;
    struct accel *accel;
    uint32_t words[CPU_WORD_COUNT];
    char vendor[13];
    char brand[CPU_BRAND_SIZE + 1];
    unsigned family, model, stepping, phys_bits, linear_bits;
    bool has_kvm_leaves;
    uint32_t tsc_khz, bus_khz; /* 0: not known, or it may change */
    /* constant after cpu_model_set_topology() */
    struct cpu_topology topology;
};

bool cpu_model_is_intel(const struct cpu_model *model);
bool cpu_model_has_bit(const struct cpu_model *model, enum cpu_word word, unsigned bit);

/* Widths of an APIC id's fields: bits below the core, the die and the socket number. */
struct cpu_shifts {
    unsigned core, die, socket;
};
struct cpu_shifts cpu_model_shifts(const struct cpu_model *model);

#endif
