/* SPDX-License-Identifier: MIT */
/*
 * From the text of -cpu to the features of a vCPU:
 *
 *     model's features  | what every guest of this engine gets (hypervisor bit, paravirtual clock)
 *       feature=on|off  in the order given
 *       +feature        then
 *       -feature        last
 *     & what the engine has & what ferry supports, less what lacks what it needs
 */
#include "accel/cpu_model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/cpu_model_internal.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"

#define DEFAULT_PHYS_BITS 40

/* ---- what the engine has --------------------------------------------------------------------- */

static bool engine_cpuid(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                         uint32_t regs[4])
{
    memset(regs, 0, 4 * sizeof(regs[0]));
    return model->accel->ops->supported_cpuid(model->accel, leaf, subleaf, regs);
}

static void engine_words(const struct cpu_model *model, uint32_t words[CPU_WORD_COUNT])
{
    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        const struct cpu_word_info *info = &cpu_words[w];
        uint32_t regs[4];

        words[w] = 0;
        if (!engine_cpuid(model, info->leaf, info->subleaf, regs)) {
            continue;
        }
        words[w] = info->supported & regs[info->reg];
        if (w == CPU_WORD_HYPERV) {
            words[w] = (regs[3] & BIT(10) ? BIT(HYPERV_CRASH) : 0) |
                       (regs[0] & BIT(7) ? BIT(HYPERV_RESET) : 0);
        }
    }
}

static void take_engine_identity(struct cpu_model *model)
{
    uint32_t regs[4], signature;

    engine_cpuid(model, 0, 0, regs);
    memcpy(model->vendor, &regs[1], 4);
    memcpy(model->vendor + 4, &regs[3], 4);
    memcpy(model->vendor + 8, &regs[2], 4);
    engine_cpuid(model, 1, 0, regs);
    signature = regs[0];
    model->family = signature >> 8 & 15;
    model->model = (signature >> 4 & 15) | (signature >> 12 & 0xf0);
    model->stepping = signature & 15;
    if (model->family == 15) {
        model->family += signature >> 20 & 0xff;
    }
    for (unsigned i = 0; i < 3; i++) {
        if (!engine_cpuid(model, 0x80000002 + i, 0, regs)) {
            strcpy(model->brand, "ferry virtual CPU");
            return;
        }
        memcpy(model->brand + 16 * i, regs, 16);
    }
}

static bool is_emulated(const struct cpu_model *model)
{
    uint32_t regs[4];

    return engine_cpuid(model, CPUID_LEAF_EMULATED, 0, regs);
}

static void take_definition(struct cpu_model *model, const struct cpu_definition *definition)
{
    if (is_emulated(model)) {
        snprintf(model->vendor, sizeof(model->vendor), "%s", definition->vendor);
    }
    model->family = definition->family;
    model->model = definition->model;
    model->stepping = definition->stepping;
    snprintf(model->brand, sizeof(model->brand), "%s", definition->brand);
    cpu_features_add(model->words, definition->features);
}

/* What costs a guest nothing and helps it, unless the user takes it away. */
static void add_defaults(struct cpu_model *model, const uint32_t engine[CPU_WORD_COUNT])
{
    uint32_t defaults[CPU_WORD_COUNT] = {0};

    cpu_features_add(defaults, "hypervisor x2apic arat kvmclock kvmclock2 kvmclock-stable-bit "
                               "kvm-nopiodelay kvm-pv-eoi kvm-pv-unhalt");
    if (is_emulated(model)) {
        /* The same wherever the VM goes; and nothing left to calibrate. */
        cpu_features_add(defaults, "invtsc tsc-deadline");
    }
    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        model->words[w] |= defaults[w] & engine[w];
    }
}

static void start_from(struct cpu_model *model, const uint32_t engine[CPU_WORD_COUNT])
{
    uint32_t regs[4];

    take_engine_identity(model);
    model->has_kvm_leaves = engine[CPU_WORD_KVM] != 0;
    if (model->definition->is_host) {
        memcpy(model->words, engine, sizeof(model->words));
        model->words[CPU_WORD_KVM] = 0; /* of these, only the defaults */
        model->words[CPU_WORD_HYPERV] = 0;
    } else {
        /* The vendor stays the host's, if there is one: SYSENTER and SYSCALL behave as its
         * processors do. */
        take_definition(model, model->definition);
    }
    add_defaults(model, engine);
    model->phys_bits = DEFAULT_PHYS_BITS;
    if (engine_cpuid(model, 0x80000008, 0, regs) && (regs[0] & 0xff) >= 32) {
        model->phys_bits = regs[0] & 0xff;
    }
}

/* ---- what the user wants --------------------------------------------------------------------- */

enum check { CHECK_NAMED, CHECK_ALL, CHECK_NONE, CHECK_ENFORCE };

struct request {
    struct cpu_model *model;
    uint32_t named[CPU_WORD_COUNT]; /* asked for by name */
    enum check check;
};

static const char *const property_names[] = {
    "check",    "enforce",   "family", "host-phys-bits", "kvm",    "migratable", "model",
    "model-id", "phys-bits", "pmu",    "stepping",       "vendor",
};

static bool wrong_value(const char *key, const char *value, const char *needs, struct error **errp)
{
    error_set(errp, "%s=%s: needs %s", key, value, needs);
    return false;
}

static bool set_number(const char *key, const char *value, uint64_t min, uint64_t max,
                       unsigned *number, struct error **errp)
{
    uint64_t n;

    if (!parse_uint(value, &n) || n < min || n > max) {
        autofree char *needs = xasprintf("a number from %llu to %llu", (unsigned long long)min,
                                         (unsigned long long)max);
        return wrong_value(key, value, needs, errp);
    }
    *number = (unsigned)n;
    return true;
}

static bool set_vendor(struct cpu_model *model, const char *value, struct error **errp)
{
    if (strlen(value) != 12) {
        return wrong_value("vendor", value, "12 characters", errp);
    }
    memcpy(model->vendor, value, 12);
    return true;
}

/* *known: it is a property, and not a feature. */
static bool set_property(struct request *request, const char *key, const char *value, bool *known,
                         struct error **errp)
{
    struct cpu_model *model = request->model;
    unsigned host_bits = model->phys_bits;
    bool on = false, is_bool = parse_bool(value, &on);

    *known = true;
    if (!strcmp(key, "vendor")) {
        return set_vendor(model, value, errp);
    } else if (!strcmp(key, "model-id")) {
        memset(model->brand, 0, sizeof(model->brand));
        strncpy(model->brand, value, CPU_BRAND_SIZE);
        return true;
    } else if (!strcmp(key, "family")) {
        return set_number(key, value, 0, 0xf + 0xff, &model->family, errp);
    } else if (!strcmp(key, "model")) {
        return set_number(key, value, 0, 0xff, &model->model, errp);
    } else if (!strcmp(key, "stepping")) {
        return set_number(key, value, 0, 0xf, &model->stepping, errp);
    } else if (!strcmp(key, "phys-bits")) {
        return !strcmp(value, "0") ||
               set_number(key, value, 32, host_bits, &model->phys_bits, errp);
    }
    for (size_t i = 0; i < ARRAY_SIZE(property_names); i++) {
        if (!strcmp(property_names[i], key) && !is_bool) {
            return wrong_value(key, value, "'on' or 'off'", errp);
        }
    }
    if (!strcmp(key, "check")) {
        request->check = on ? CHECK_ALL : CHECK_NONE;
    } else if (!strcmp(key, "enforce")) {
        request->check = on ? CHECK_ENFORCE : request->check;
    } else if (!strcmp(key, "kvm")) {
        model->has_kvm_leaves = model->has_kvm_leaves && on;
    } else if (!strcmp(key, "migratable")) {
        if (on) {
            model->words[CPU_WORD_8000_0007_EDX] &= ~BIT(8); /* the other host counts otherwise */
        }
    } else if (!strcmp(key, "host-phys-bits")) {
        /* Always: the guest sees as many as the host has, unless phys-bits says less. */
    } else if (!strcmp(key, "pmu")) {
        if (on) {
            error_set(errp, "pmu=on: ferry has no performance counters for guests");
        }
        return !on;
    } else {
        *known = false;
    }
    return true;
}

static bool refuse_unknown(const char *key, struct error **errp)
{
    const char *near = cpu_feature_nearest(key);

    if (!near) {
        near = nearest_name(key, property_names, ARRAY_SIZE(property_names));
    }
    error_set(errp, "Property '%s' not found%s%s%s", key, near ? "; did you mean '" : "",
              near ? near : "", near ? "'?" : "");
    return false;
}

static bool set_feature(struct request *request, const char *name, bool on, struct error **errp)
{
    enum cpu_word word;
    unsigned bit;

    if (!cpu_feature_find(name, &word, &bit)) {
        return refuse_unknown(name, errp);
    }
    if (on) {
        request->model->words[word] |= BIT(bit);
        request->named[word] |= BIT(bit);
    } else {
        request->model->words[word] &= ~BIT(bit);
        request->named[word] &= ~BIT(bit);
    }
    return true;
}

static bool apply_item(struct request *request, const char *item, struct error **errp)
{
    const char *equals = strchr(item, '=');
    autofree char *key = xstrndup(item, equals ? (size_t)(equals - item) : strlen(item));
    const char *value = equals ? equals + 1 : "on";
    bool known, on;

    if (!set_property(request, key, value, &known, errp)) {
        return false;
    }
    if (known) {
        return true;
    }
    if (!parse_bool(value, &on)) {
        enum cpu_word word;
        unsigned bit;
        return cpu_feature_find(key, &word, &bit) ? wrong_value(key, value, "'on' or 'off'", errp)
                                                  : refuse_unknown(key, errp);
    }
    return set_feature(request, key, on, errp);
}

/* items: all after the model's name. */
static bool apply_items(struct request *request, const char *items, struct error **errp)
{
    static const char passes[] = {0, '+', '-'};

    for (size_t pass = 0; pass < ARRAY_SIZE(passes); pass++) {
        autofree char *copy = xstrdup(items);
        char *rest = NULL;

        for (char *item = strtok_r(copy, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
            char sign = *item == '+' || *item == '-' ? *item : 0;
            if (sign != passes[pass]) {
                continue;
            }
            if (sign ? !set_feature(request, item + 1, sign == '+', errp)
                     : !apply_item(request, item, errp)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- what comes of it ------------------------------------------------------------------------ */

static char *list_missing(const uint32_t missing[CPU_WORD_COUNT])
{
    char *list = NULL;

    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        for (unsigned b = 0; b < 32; b++) {
            if (missing[w] >> b & 1 && cpu_words[w].names[b]) {
                char *longer =
                    xasprintf("%s%s%s (CPUID.%s bit %u)", list ? list : "", list ? ", " : "",
                              cpu_words[w].names[b], cpu_words[w].leaf_text, b);
                free(list);
                list = longer;
            }
        }
    }
    return list;
}

static bool filter(struct request *request, const uint32_t engine[CPU_WORD_COUNT],
                   struct error **errp)
{
    struct cpu_model *model = request->model;
    uint32_t missing[CPU_WORD_COUNT];

    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        missing[w] = model->words[w] & ~engine[w];
        if (request->check == CHECK_NAMED) {
            missing[w] &= request->named[w];
        } else if (request->check == CHECK_NONE) {
            missing[w] = 0;
        }
        model->words[w] &= engine[w];
    }
    cpu_features_close(model->words);

    autofree char *list = list_missing(missing);
    if (list && request->check == CHECK_ENFORCE) {
        error_set(errp, "the accelerator '%s' does not have %s; leave it out or use enforce=off",
                  model->accel->ops->name, list);
        return false;
    }
    if (list) {
        log_warn("-cpu %s: the accelerator '%s' does not have %s", model->definition->name,
                 model->accel->ops->name, list);
    }
    return true;
}

static const struct cpu_definition *find_definition(const struct cpu_model *model, const char *name,
                                                    struct error **errp)
{
    const char *names[64];
    size_t count = 0;
    const char *near;

    for (const struct cpu_definition *d = cpu_definitions; d->name; d++) {
        if (!strcmp(d->name, "host") && is_emulated(model)) {
            if (!strcmp(name, "host")) {
                error_set(errp, "-cpu host: CPU model 'host' requires KVM");
                return NULL;
            }
            continue;
        }
        if (!strcmp(d->name, name)) {
            return d;
        }
        assert(count < ARRAY_SIZE(names));
        names[count++] = d->name;
    }
    near = nearest_name(name, names, count);
    error_set(errp, "-cpu %s: unable to find CPU model '%s'%s%s%s", name, name,
              near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "; see -cpu help");
    return NULL;
}

static void take_tsc(struct cpu_model *model)
{
    uint32_t regs[4];

    if (cpu_model_has_bit(model, CPU_WORD_8000_0007_EDX, 8) &&
        engine_cpuid(model, CPUID_LEAF_TSC_KHZ, 0, regs)) {
        model->tsc_khz = regs[0];
        model->bus_khz = regs[1];
    }
}

struct cpu_model *cpu_model_new(const char *text, struct accel *accel, unsigned smp,
                                struct error **errp)
{
    uint32_t engine[CPU_WORD_COUNT], regs[4];
    struct cpu_model *model = xnew(struct cpu_model);
    struct request request = {.model = model};

    model->accel = accel;
    if (!text) {
        text = engine_cpuid(model, 0, 0, regs) && !is_emulated(model) ? "host" : "qemu64";
    }
    autofree char *name = xstrndup(text, strcspn(text, ","));
    model->definition = find_definition(model, name, errp);
    if (!model->definition) {
        free(model);
        return NULL;
    }
    model->topology = (struct cpu_topology){1, 1, smp, 1};
    engine_words(model, engine);
    start_from(model, engine);
    if (!apply_items(&request, text + strlen(name), errp) || !filter(&request, engine, errp)) {
        error_prepend(errp, "-cpu %s: ", name);
        free(model);
        return NULL;
    }
    model->linear_bits = cpu_model_has(model, "la57") ? 57 : 48;
    take_tsc(model);
    return model;
}

void cpu_model_free(struct cpu_model *model)
{
    free(model);
}

void cpu_model_set_topology(struct cpu_model *model, const struct cpu_topology *topology)
{
    model->topology = *topology;
}

/* ---- questions ------------------------------------------------------------------------------ */

const char *cpu_model_name(const struct cpu_model *model)
{
    return model->definition->name;
}

bool cpu_model_is_intel(const struct cpu_model *model)
{
    return strcmp(model->vendor, CPU_VENDOR_AMD) && strcmp(model->vendor, "HygonGenuine");
}

bool cpu_model_has_bit(const struct cpu_model *model, enum cpu_word word, unsigned bit)
{
    return cpu_words_have(model->words, word, bit);
}

bool cpu_model_has(const struct cpu_model *model, const char *feature)
{
    enum cpu_word word;
    unsigned bit;

    return cpu_feature_find(feature, &word, &bit) && cpu_words_have(model->words, word, bit);
}

unsigned cpu_model_phys_bits(const struct cpu_model *model)
{
    return model->phys_bits;
}

uint32_t cpu_model_signature(const struct cpu_model *model)
{
    unsigned family = MIN(model->family, 15);

    return model->stepping | (model->model & 15) << 4 | family << 8 | (model->model >> 4) << 16 |
           (model->family - family) << 20;
}
