/* SPDX-License-Identifier: MIT */
/*
 * Choosing the engine: -accel and -machine accel= give names in order of preference; the first that
 * can be used is taken. What keeps one from being used is told, so that nobody wonders why a guest
 * is slow.
 */
#include "accel/accel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "accel/lapic.h"
#include "accel/vcpu.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "mem/dma.h"

extern const struct accel_ops kvm_ops, soft_ops, qtest_ops;

const struct accel_ops *const accel_engines[] = {&kvm_ops, &soft_ops, &qtest_ops, NULL};

/* Names of QEMU's command line that users type and this build has not. */
static const struct {
    const char *name, *what;
} absent[] = {
    {"xen", "Xen"},
    {"hax", "HAXM"},
    {"hvf", "the Hypervisor framework"},
    {"nvmm", "NVMM"},
    {"whpx", "the Windows Hypervisor Platform"},
};

static struct accel *current;

struct accel *accel_current(void)
{
    return current;
}

void accel_print_engines(FILE *to)
{
    fprintf(to, "Accelerators supported in QEMU binary:\n");
    for (unsigned i = 0; accel_engines[i]; i++) {
        fprintf(to, "%s\n", accel_engines[i]->name);
    }
}

/* ---- what the user asks for ------------------------------------------------------------------ */

static const struct accel_ops *find_engine(const char *name)
{
    for (unsigned i = 0; accel_engines[i]; i++) {
        const struct accel_ops *ops = accel_engines[i];
        if (!strcmp(ops->name, name) || (ops->alias && !strcmp(ops->alias, name))) {
            return ops;
        }
    }
    return NULL;
}

/* What this build lacks, or NULL if nobody has heard of the name. */
static const char *find_absent(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
        if (!strcmp(absent[i].name, name)) {
            return absent[i].what;
        }
    }
    return NULL;
}

static void refuse_unknown(const char *name, struct error **errp)
{
    const char *names[16], *near;
    unsigned count = 0;

    for (unsigned i = 0; accel_engines[i] && count < ARRAY_SIZE(names); i++) {
        names[count++] = accel_engines[i]->name;
    }
    near = nearest_name(name, names, count);
    error_set(errp, "-accel %s: invalid accelerator%s%s%s", name, near ? "; did you mean '" : "",
              near ? near : "", near ? "'?" : "");
}

static const char *const irqchip_names[] = {"on", "split", "off", NULL};

static bool parse_irqchip(const struct accel_ops *ops, const char *where, const char *text,
                          bool is_demand, struct accel_config *config, struct error **errp)
{
    for (int i = 0; irqchip_names[i]; i++) {
        if (strcmp(irqchip_names[i], text)) {
            continue;
        }
        if (!ops->supports_irqchip[i] && !is_demand) {
            /* -machine's belongs to KVM; with a list of engines it may have been meant for that. */
            log_warn("%s=%s has no effect: the accelerator '%s' has no interrupt chips of its own",
                     where, text, ops->name);
            return true;
        }
        if (!ops->supports_irqchip[i]) {
            error_set(errp, "%s=%s: the accelerator '%s' has no interrupt chips of its own", where,
                      text, ops->name);
            return false;
        }
        config->irqchip = i;
        return true;
    }
    error_set(errp, "%s=%s: needs 'on', 'off' or 'split'", where, text);
    return false;
}

struct choice {
    const struct accel_ops *ops; /* NULL: not in this build, or (absent_what NULL) unknown */
    const char *absent_what;
    char *name;
    struct accel_config config;
};

static bool parse_options(struct choice *choice, const char *machine_irqchip, struct error **errp)
{
    struct options *opts = choice->config.opts;
    const char *irqchip = options_get(opts, "kernel-irqchip");
    autofree char *where = xasprintf("-accel %s", choice->name);
    autofree char *where_irqchip = xasprintf("%s,kernel-irqchip", where);

    choice->config.irqchip = choice->ops->default_irqchip;
    if (machine_irqchip && !parse_irqchip(choice->ops, "-machine kernel-irqchip", machine_irqchip,
                                          false, &choice->config, errp)) {
        return false;
    }
    if (irqchip &&
        !parse_irqchip(choice->ops, where_irqchip, irqchip, true, &choice->config, errp)) {
        return false;
    }
    if (choice->ops->check_options && !choice->ops->check_options(opts, errp)) {
        error_prepend(errp, "%s: ", where);
        return false;
    }
    return options_check_used(opts, where, errp);
}

static bool parse_entry(struct choice *choice, const char *entry, const char *machine_irqchip,
                        unsigned smp_max, struct error **errp)
{
    struct options *opts = options_parse(entry, "accel", errp);
    const char *name;

    choice->config = (struct accel_config){.smp_max = smp_max, .opts = opts};
    if (!opts) {
        return false;
    }
    name = options_get(opts, "accel");
    if (!name || !*name) {
        error_set(errp, "-accel %s: needs the name of an accelerator; see -accel help", entry);
        return false;
    }
    choice->name = xstrdup(name);
    choice->ops = find_engine(name);
    if (choice->ops) {
        return parse_options(choice, machine_irqchip, errp);
    }
    choice->absent_what = find_absent(name);
    return true;
}

/* ---- taking one ------------------------------------------------------------------------------ */

/* The engines that somebody who names none would take. */
static size_t default_entries(const char *entries[], size_t max)
{
    size_t count = 0;

    for (unsigned i = 0; accel_engines[i] && count < max; i++) {
        if (accel_engines[i]->has_vcpus) {
            entries[count++] = accel_engines[i]->name;
        }
    }
    return count;
}

static struct accel *take(const struct choice *choice, struct error **errp)
{
    if (!choice->ops && !choice->absent_what) {
        refuse_unknown(choice->name, errp);
        return NULL;
    }
    if (!choice->ops) {
        error_set(errp, "-accel %s: %s is not in this build; use -accel kvm or -accel tcg",
                  choice->name, choice->absent_what);
        return NULL;
    }
    return choice->ops->create(&choice->config, errp);
}

/* A wrong name that is not needed is not kept back either. */
static void warn_of_unknown(const struct choice *choices, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!choices[i].ops && !choices[i].absent_what) {
            struct error *err = NULL;

            refuse_unknown(choices[i].name, &err);
            log_warn("%s", error_message(err));
            error_free(err);
        }
    }
}

/* Says why each but the last failed; the last one's reason is the caller's error. */
static struct accel *take_first(const struct choice *choices, size_t count, struct error **errp)
{
    for (size_t i = 0; i < count; i++) {
        struct error *err = NULL;
        struct accel *accel = take(&choices[i], &err);

        if (accel) {
            if (i > 0) {
                log_info("using the accelerator '%s'", choices[i].name);
            }
            warn_of_unknown(choices + i + 1, count - i - 1);
            return accel;
        }
        if (i + 1 == count) {
            error_propagate(errp, err);
        } else {
            log_warn("%s", error_message(err));
            error_free(err);
        }
    }
    return NULL;
}

struct accel *accel_init(const char *const *entries, size_t count, const char *machine_irqchip,
                         unsigned smp_max, struct error **errp)
{
    const char *defaults[8];
    struct choice *choices;
    bool ok = true;

    assert(!current);
    if (!count) {
        count = default_entries(defaults, ARRAY_SIZE(defaults));
        entries = defaults;
    }
    choices = xcalloc(count, sizeof(*choices));
    for (size_t i = 0; i < count && ok; i++) {
        ok = parse_entry(&choices[i], entries[i], machine_irqchip, smp_max, errp);
    }
    if (ok) {
        current = take_first(choices, count, errp);
    }
    for (size_t i = 0; i < count; i++) {
        options_free(choices[i].config.opts);
        free(choices[i].name);
    }
    free(choices);
    return current;
}

void accel_cleanup(void)
{
    struct accel *accel = current;

    if (accel) {
        accel->ops->destroy(accel);
        current = NULL;
    }
}

/* ---- interrupts ----------------------------------------------------------------------------- */

/* Messages to this window are interrupts (SDM 10.11.1); a device may write elsewhere, too. Bits 63:40
 * extend the destination beyond 8 bits. */
static bool is_interrupt(const struct msi_message *msg)
{
    return (msg->address & UINT64_C(0xfffff00000)) == 0xfee00000;
}

void accel_msi_send(const struct msi_message *msg)
{
    struct accel *accel = current;

    if (!accel || !is_interrupt(msg)) {
        uint8_t data[4];
        store_le32(data, msg->data);
        dma_write(address_space_memory, msg->address, data, sizeof(data));
    } else if (accel->irqchip == IRQCHIP_OFF && accel->ops->has_vcpus) {
        lapic_send_msi(msg);
    } else {
        accel->ops->msi_send(accel, msg);
    }
}

void accel_set_extint(int level)
{
    struct vcpu *vcpu = vcpu_get(0);

    if (!vcpu) {
        return;
    }
    if (level) {
        vcpu_request(vcpu, VCPU_REQUEST_EXTINT);
    } else {
        atomic_fetch_and(&vcpu->requests, ~VCPU_REQUEST_EXTINT);
    }
}

bool accel_has_irqfd(void)
{
    return current && current->has_irqfd;
}

/* ---- A20, SMI ------------------------------------------------------------------------------- */

void accel_set_a20(bool open)
{
    struct accel *accel = current;

    if (accel && accel->ops->set_a20 && accel->a20_closed == open) {
        accel->a20_closed = !open;
        accel->ops->set_a20(accel, open);
    }
}

bool accel_a20(void)
{
    return !current || !current->a20_closed;
}

void accel_raise_smi(void)
{
    struct vcpu *vcpu = vcpu_current() ? vcpu_current() : vcpu_get(0);

    if (!vcpu || !accel_has_smm()) {
        return;
    }
    if (vcpu == vcpu_current()) {
        vcpu->accel->ops->vcpu_inject_smi(vcpu);
    } else {
        vcpu_request(vcpu, VCPU_REQUEST_SMI);
    }
}

bool accel_has_smm(void)
{
    return current && current->has_smm;
}

void accel_enable_smm(void)
{
    assert(accel_has_smm());
    current->smm_enabled = true;
    if (current->ops->enable_smm) {
        current->ops->enable_smm(current);
    }
}
