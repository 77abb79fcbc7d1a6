/* SPDX-License-Identifier: MIT */
#include "machine/machine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/cpu_model.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "machine/acpi_tables.h"
#include "machine/boot.h"
#include "machine/generic_loader.h"
#include "machine/loader.h"
#include "machine/pc.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

struct machine *machine_current;

const struct machine_type *const machine_types[] = {
    &pc_machine_type,
    &q35_machine_type,
    NULL,
};

const struct machine_type *machine_type_find(const char *name)
{
    for (unsigned i = 0; machine_types[i]; i++) {
        const struct machine_type *type = machine_types[i];
        if (!strcmp(type->name, name) || (type->alias && !strcmp(type->alias, name))) {
            return type;
        }
    }
    return NULL;
}

void machine_types_print(FILE *to)
{
    fprintf(to, "Supported machines are:\n");
    for (unsigned i = 0; machine_types[i]; i++) {
        const struct machine_type *type = machine_types[i];
        if (type->alias) {
            fprintf(to, "%-20s %s (alias of %s)\n", type->alias, type->description, type->name);
        }
        fprintf(to, "%-20s %s%s\n", type->name, type->description,
                type->is_default ? " (default)" : "");
    }
}

struct machine *machine_new(const struct machine_type *type)
{
    struct machine *machine = xnew(struct machine);

    machine->type = type;
    machine->ram_size = 128 * MiB;
    machine->smp.cpus = machine->smp.max_cpus = 1;
    machine->smp.sockets = machine->smp.dies = machine->smp.cores = machine->smp.threads = 1;
    machine->acpi = machine->i8042 = machine->pit = true;
    machine_current = machine;
    return machine;
}

/* ---- properties ----------------------------------------------------------------------------- */

enum value_kind {
    VALUE_TEXT,        /* char * at offset, to be freed */
    VALUE_ON_OFF,      /* bool at offset */
    VALUE_ON_OFF_AUTO, /* the same; "auto" is on */
    VALUE_FIXED,       /* only the value `fixed` is there; QEMU has more */
};

struct machine_property {
    const char *name, *type, *description;
    enum value_kind kind;
    size_t offset;
    const char *fixed;
};

#define FIELD(f) .offset = offsetof(struct machine, f)

static const struct machine_property properties[] = {
    {"accel", "string", "Accelerator list", VALUE_TEXT, FIELD(accel)},
    {"kernel-irqchip", "on|off|split", "Configure KVM in-kernel irqchip", VALUE_TEXT,
     FIELD(kernel_irqchip)},
    {"kernel", "string", "Linux kernel image file", VALUE_TEXT, FIELD(kernel)},
    {"initrd", "string", "Linux initial ramdisk file", VALUE_TEXT, FIELD(initrd)},
    {"append", "string", "Linux kernel command line", VALUE_TEXT, FIELD(append)},
    {"firmware", "string", "Firmware image", VALUE_TEXT, FIELD(bios)},
    {"acpi", "OnOffAuto", "Enable ACPI", VALUE_ON_OFF_AUTO, FIELD(acpi)},
    {"i8042", "bool", "Enable the keyboard controller", VALUE_ON_OFF, FIELD(i8042)},
    {"pit", "bool", "Enable the interval timer", VALUE_ON_OFF, FIELD(pit)},
    {"smm", "OnOffAuto", "Enable SMM", VALUE_TEXT, FIELD(smm_option)},
    {"hpet", "bool", "HPET timer (not in this build)", VALUE_FIXED, .fixed = "off"},
    {"usb", "bool", "USB controller (not in this build)", VALUE_FIXED, .fixed = "off"},
    {"vmport", "OnOffAuto", "vmport (not in this build)", VALUE_FIXED, .fixed = "off"},
    {"graphics", "bool", "Graphics (not in this build)", VALUE_FIXED, .fixed = "off"},
    {"dump-guest-core", "bool", "Guest memory in core dumps (not in this build)", VALUE_FIXED,
     .fixed = "off"},
    {"mem-merge", "bool", "Kernel same-page merging (not in this build)", VALUE_FIXED,
     .fixed = "off"},
    {"nvdimm", "bool", "NVDIMM (not in this build)", VALUE_FIXED, .fixed = "off"},
    {"sata", "bool", "AHCI controller (not in this build)", VALUE_FIXED, .fixed = "off"},
    {"smbus", "bool", "SMBus controller (not in this build)", VALUE_FIXED, .fixed = "off"},
};

void machine_properties_print(const struct machine_type *type, FILE *to)
{
    fprintf(to, "%s-machine options:\n", type->name);
    for (size_t i = 0; i < ARRAY_SIZE(properties); i++) {
        fprintf(to, "  %s=<%s> - %s\n", properties[i].name, properties[i].type,
                properties[i].description);
    }
    fprintf(to, "  max-ram-below-4g=<size> - Maximum ram below the 4G boundary (32bit boundary)\n");
}

static bool set_below_4g(struct machine *machine, const char *value, struct error **errp)
{
    uint64_t size;

    if (!parse_size(value, 1, &size) || size < MiB || size > 4 * GiB || size % MiB) {
        error_set(errp, "-machine max-ram-below-4g=%s: needs a size of whole MiB from 1M to 4G",
                  value);
        return false;
    }
    machine->max_ram_below_4g = size;
    return true;
}

static bool set_on_off(const struct machine_property *p, bool *field, const char *value,
                       struct error **errp)
{
    if (p->kind == VALUE_ON_OFF_AUTO && !strcmp(value, "auto")) {
        *field = true;
        return true;
    }
    if (!parse_bool(value, field)) {
        error_set(errp, "-machine %s=%s: needs %s", p->name, value,
                  p->kind == VALUE_ON_OFF_AUTO ? "'on', 'off' or 'auto'" : "'on' or 'off'");
        return false;
    }
    return true;
}

static bool set_property(struct machine *machine, const struct machine_property *p,
                         const char *value, struct error **errp)
{
    void *field = (char *)machine + p->offset;
    bool on;

    switch (p->kind) {
    case VALUE_ON_OFF:
    case VALUE_ON_OFF_AUTO:
        return set_on_off(p, field, value, errp);
    case VALUE_FIXED:
        if (strcmp(value, p->fixed) && strcmp(value, "auto")) {
            error_set(errp, "-machine %s=%s: this build has only %s=%s", p->name, value, p->name,
                      p->fixed);
            return false;
        }
        return true;
    default:
        if (!strcmp(p->name, "smm") && strcmp(value, "auto") && !parse_bool(value, &on)) {
            error_set(errp, "-machine smm=%s: needs 'on', 'off' or 'auto'", value);
            return false;
        }
        free(*(char **)field);
        *(char **)field = xstrdup(value);
        return true;
    }
}

bool machine_set(struct machine *machine, const char *name, const char *value, struct error **errp)
{
    const char *names[ARRAY_SIZE(properties) + 1];
    const char *near;

    if (!strcmp(name, "max-ram-below-4g")) {
        return set_below_4g(machine, value, errp);
    }
    for (size_t i = 0; i < ARRAY_SIZE(properties); i++) {
        if (!strcmp(properties[i].name, name)) {
            return set_property(machine, &properties[i], value, errp);
        }
        names[i] = properties[i].name;
    }
    names[ARRAY_SIZE(properties)] = "max-ram-below-4g";
    near = nearest_name(name, names, ARRAY_SIZE(names));
    error_set(errp, "-machine: Property '%s-machine.%s' not found%s%s%s", machine->type->name, name,
              near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return false;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* -machine smm=: on, off, or (auto) whether the accelerator has it. */
static bool choose_smm(struct machine *machine, struct error **errp)
{
    const char *option = machine->smm_option ? machine->smm_option : "auto";

    if (!strcmp(option, "auto")) {
        machine->smm = accel_has_smm();
        return true;
    }
    parse_bool(option, &machine->smm); /* machine_set() has seen that it is one */
    if (machine->smm && !accel_has_smm()) {
        error_set(errp,
                  "-machine smm=on: the accelerator has no system management mode; leave it out "
                  "or say smm=auto");
        return false;
    }
    return true;
}

bool machine_init(struct machine *machine, struct error **errp)
{
    bool ok;

    if (!choose_smm(machine, errp)) {
        return false;
    }
    if (machine->ram_size < 2 * MiB) {
        error_set(errp, "-m: %" PRIu64 " KiB of RAM are too few; the machine '%s' needs 2 MiB",
                  machine->ram_size / KiB, machine->type->name);
        return false;
    }
    machine_lock();
    mem_transaction_begin();
    if (machine->smm) {
        mem_region_set_enabled(mem_smram(), true);
        accel_enable_smm();
    }
    ok = machine->type->init(machine, errp);
    mem_transaction_commit();
    machine_unlock();
    return ok;
}

bool machine_ready(struct machine *machine, struct error **errp)
{
    const struct pc_chipset *chipset = pc_chipset(machine);

    if (!machine->kernel && (machine->initrd || machine->append)) {
        error_set(errp, "-initrd and -append need -kernel");
        return false;
    }
    machine_build_e820(machine);
    if (machine->has_firmware) {
        if (machine->kernel) {
            error_set(errp,
                      "-kernel and -bios do not go together in this build: without fw_cfg the "
                      "firmware cannot see the kernel; leave one out");
            return false;
        }
        return true;
    }
    if (machine->acpi && !acpi_tables_build(machine, chipset->dsdt, chipset->dsdt_size, errp)) {
        return false;
    }
    return !machine->kernel || boot_load(machine, errp);
}

/* What each vCPU finds after reset beyond the processor's own state. */
static bool reset_vcpus(struct machine *machine, struct error **errp)
{
    autofree struct x86_state *state = NULL;

    vcpus_reset();
    state = xnew(struct x86_state);
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *vcpu = vcpu_get(i);
        uint64_t rip;
        bool loader_entry = generic_loader_entry(i, &rip);

        if (machine->has_firmware && !loader_entry) {
            continue;
        }

        if (!vcpu_get_state(vcpu, state, errp)) {
            return false;
        }
        if (!machine->has_firmware) {
            pc_set_mtrrs(machine, state, cpu_model_phys_bits(vcpu->model));
        }
        if (loader_entry) {
            state->rip = rip;
            state->mp_state = X86_MP_RUNNABLE;
        } else if (i == 0 && machine->set_entry) {
            machine->set_entry(machine, state);
        }
        if (!vcpu_set_state(vcpu, state, errp)) {
            return false;
        }
    }
    return true;
}

bool machine_reset(struct machine *machine, struct error **errp)
{
    bool ok = true;

    machine_lock();
    mem_transaction_begin();
    devices_reset();
    mem_transaction_commit();
    if (!machine->has_firmware) {
        ok = pc_firmware_setup(machine, errp);
    }
    ok = ok && loader_write_all(errp);
    machine_unlock();
    return ok && reset_vcpus(machine, errp);
}

/* Takes the machine's own regions out of the tree and destroys them, whatever init() came to. */
static void free_regions(struct machine *machine)
{
    struct mem_region *const regions[] = {
        /* what shows others goes first */
        &machine->rom_isa,  &machine->rom,        &machine->ram_low,
        &machine->ram_high, &machine->pci_memory, &machine->ram,
    };

    if (!machine->ram.name) {
        return; /* machine_init() has not been called: there may not even be an address space */
    }
    machine_lock();
    mem_transaction_begin();
    for (size_t i = 0; i < ARRAY_SIZE(regions); i++) {
        if (regions[i]->container) {
            mem_region_remove(regions[i]->container, regions[i]);
        }
    }
    mem_transaction_commit();
    machine_unlock();
    for (size_t i = 0; i < ARRAY_SIZE(regions); i++) {
        mem_region_destroy(regions[i]);
    }
}

void machine_free(struct machine *machine)
{
    if (!machine) {
        return;
    }
    loader_cleanup();
    free_regions(machine);
    free(machine->accel);
    free(machine->kernel_irqchip);
    free(machine->smm_option);
    free(machine->kernel);
    free(machine->initrd);
    free(machine->append);
    free(machine->bios);
    free(machine->rtc_base);
    free(machine->rtc_clock);
    for (size_t i = 0; i < ARRAY_SIZE(machine->serial); i++) {
        free(machine->serial[i]);
    }
    machine_current = NULL;
    free(machine);
}
