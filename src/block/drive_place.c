/* SPDX-License-Identifier: MIT */
/* -drive: which bus and which place on it, and the name that follows from that. */
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend_int.h"

static const struct interface {
    const char *name;
    int units_per_bus;    /* 0: all on one bus */
    bool named_by_medium; /* generated ids are "ide0-hd0" rather than "virtio0" */
} interfaces[] = {
    {"none", 0, false},   {"ide", 2, true},     {"scsi", 7, true},
    {"floppy", 0, false}, {"pflash", 0, false}, {"mtd", 0, false},
    {"sd", 0, false},     {"virtio", 0, false}, {"xen", 0, false},
};

static bool place_taken(const struct drive_spec *spec)
{
    for (struct block_backend *be = backend_first(); be; be = backend_next(be)) {
        if (be->in_drive_list && !strcmp(be->interface, spec->interface) && be->bus == spec->bus &&
            be->unit == spec->unit) {
            return true;
        }
    }
    return false;
}

static bool get_number(struct options *opts, const char *key, int *value, struct error **errp)
{
    uint64_t v = 0;

    if (!options_get_uint(opts, key, 0, 65535, &v, errp)) {
        return false;
    }
    *value = options_has(opts, key) ? (int)v : -1;
    return true;
}

/* Where the drive goes on its bus; free places are given out in order. */
static bool find_place(const struct interface *interface, struct drive_spec *spec,
                       struct error **errp)
{
    int per_bus = interface->units_per_bus;
    bool search = spec->index < 0 && spec->unit < 0;

    if (spec->index >= 0 && (spec->bus >= 0 || spec->unit >= 0)) {
        error_set(errp, "index cannot be used with bus and unit");
        return false;
    }
    if (spec->index >= 0) {
        spec->bus = per_bus ? spec->index / per_bus : 0;
        spec->unit = per_bus ? spec->index % per_bus : spec->index;
    }
    spec->bus = MAX(spec->bus, 0);
    spec->unit = MAX(spec->unit, 0);
    if (per_bus && spec->unit >= per_bus) {
        error_set(errp, "unit %d too big (max is %d)", spec->unit, per_bus - 1);
        return false;
    }
    while (search && place_taken(spec)) {
        if (++spec->unit >= per_bus && per_bus) {
            spec->unit = 0;
            spec->bus++;
        }
    }
    if (place_taken(spec)) {
        error_set(errp, "drive with bus=%d, unit=%d (index=%d) exists", spec->bus, spec->unit,
                  spec->index >= 0 ? spec->index : spec->bus * per_bus + spec->unit);
        return false;
    }
    return true;
}

static const struct interface *find_interface(const char *name, struct error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(interfaces); i++) {
        if (!strcmp(name, interfaces[i].name)) {
            return &interfaces[i];
        }
    }
    error_set(errp,
              "unsupported bus type '%s'; if= takes none, virtio, ide, scsi, floppy, pflash, "
              "sd, mtd or xen",
              name);
    return NULL;
}

bool drive_find_place(struct options *opts, const char *default_interface, struct drive_spec *spec,
                      struct error **errp)
{
    const char *name = options_get(opts, "if");
    const struct interface *interface = find_interface(name ? name : default_interface, errp);

    if (!interface || !get_number(opts, "index", &spec->index, errp) ||
        !get_number(opts, "bus", &spec->bus, errp) ||
        !get_number(opts, "unit", &spec->unit, errp)) {
        return false;
    }
    strcpy(spec->interface, interface->name);
    return find_place(interface, spec, errp);
}

char *drive_make_id(struct options *opts, const struct drive_spec *spec)
{
    const struct interface *interface = find_interface(spec->interface, NULL);
    const char *id = options_get(opts, "id");
    const char *medium = !interface->named_by_medium ? "" : spec->is_cdrom ? "-cd" : "-hd";

    if (id) {
        return xstrdup(id);
    }
    return interface->units_per_bus
               ? xasprintf("%s%d%s%d", interface->name, spec->bus, medium, spec->unit)
               : xasprintf("%s%s%d", interface->name, medium, spec->unit);
}
