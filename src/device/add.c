/* SPDX-License-Identifier: MIT */
/* Devices and objects from option strings: -device, -object, -global, and QMP's device_add. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "device/internal.h"

static bool cold_plug_done;

void devices_cold_plug_done(void)
{
    cold_plug_done = true;
}

/* ---- -global -------------------------------------------------------------------------------- */

struct global {
    char *driver, *property, *value;
};

static struct global *globals;
static size_t global_count;

static void add_global(char *driver, char *property, char *value)
{
    globals = xreallocarray(globals, global_count + 1, sizeof(globals[0]));
    globals[global_count++] = (struct global){driver, property, value};
}

/* driver=D,property=P,value=V: for drivers with a dot in their name. */
static bool add_global_long(const char *text, struct error **errp)
{
    static const char *const keys[] = {"driver", "property", "value"};
    char *parts[3] = {NULL};
    bool ok = true;
    struct options *opts = options_parse(text, NULL, errp);

    if (!opts) {
        return false;
    }
    for (int i = 0; i < 3 && ok; i++) {
        parts[i] = options_take(opts, keys[i]);
        if (!parts[i]) {
            error_set(errp, "-global %s: Parameter '%s' is missing", text, keys[i]);
            ok = false;
        }
    }
    ok = ok && options_check_used(opts, "-global", errp);
    options_free(opts);
    if (ok) {
        add_global(parts[0], parts[1], parts[2]);
        return true;
    }
    for (int i = 0; i < 3; i++) {
        free(parts[i]);
    }
    return false;
}

bool device_add_global(const char *text, struct error **errp)
{
    const char *equals = strchr(text, '=');
    const char *dot = equals ? memrchr(text, '.', (size_t)(equals - text)) : NULL;

    if (strncmp(text, "driver=", strlen("driver=")) == 0) {
        return add_global_long(text, errp);
    }
    if (!dot || dot == text || dot + 1 == equals) {
        error_set(errp, "-global %s: expects DRIVER.PROPERTY=VALUE", text);
        return false;
    }
    add_global(xstrndup(text, (size_t)(dot - text)), xstrndup(dot + 1, (size_t)(equals - dot - 1)),
               xstrdup(equals + 1));
    return true;
}

static bool type_or_heir_has(const struct device_type *type, const char *property)
{
    for (const struct device_type *const *t = device_types(); *t; t++) {
        if (device_type_is_a(*t, type) && device_type_property(*t, property)) {
            return true;
        }
    }
    return device_type_property(type, property) != NULL;
}

/* A type by name, also one that only others inherit from. */
static const struct device_type *type_or_ancestor(const char *name)
{
    const struct device_type *type = device_type_find(name);

    for (const struct device_type *const *t = device_types(); !type && *t; t++) {
        for (const struct device_type *p = (*t)->parent; p && !type; p = p->parent) {
            type = strcmp(p->name, name) == 0 ? p : NULL;
        }
    }
    return type;
}

bool device_check_globals(struct error **errp)
{
    for (size_t i = 0; i < global_count; i++) {
        const struct global *g = &globals[i];
        const struct device_type *type = type_or_ancestor(g->driver);

        if (!type) {
            error_set(errp, "global %s.%s has invalid class name", g->driver, g->property);
            device_type_hint(g->driver, false, errp);
            return false;
        }
        if (!type_or_heir_has(type, g->property)) {
            error_set(errp, "can't apply global %s.%s=%s: Property '%s.%s' not found", g->driver,
                      g->property, g->value, g->driver, g->property);
            return false;
        }
    }
    return true;
}

void device_apply_globals(struct device *dev)
{
    for (size_t i = 0; i < global_count && !dev->global_error; i++) {
        const struct global *g = &globals[i];
        const struct device_type *type = type_or_ancestor(g->driver);

        /* A type may define what its siblings do not have. */
        if (!type || !device_type_is_a(dev->type, type) ||
            !device_type_property(dev->type, g->property)) {
            continue;
        }
        if (!device_set(dev, g->property, g->value, &dev->global_error)) {
            error_prepend(&dev->global_error, "can't apply global %s.%s=%s: ", g->driver,
                          g->property, g->value);
        }
    }
}

/* ---- -device -------------------------------------------------------------------------------- */

static const struct device_type *find_device_type(const char *driver, struct error **errp)
{
    if (!driver || !*driver) {
        error_set(errp, "Parameter 'driver' is missing");
        return NULL;
    }
    const struct device_type *type = device_type_find(driver);
    if (!type || type->is_object) {
        error_set(errp, "'%s' is not a valid device model name", driver);
        if (type) {
            error_add_hint(errp, "It is an object: use -object %s,id=ID.", driver);
        } else {
            device_type_hint(driver, false, errp);
        }
        return NULL;
    }
    if (type->abstract) {
        error_set(errp, "Parameter 'driver' expects a non-abstract device type");
        return NULL;
    }
    if (type->internal) {
        error_set(errp, "Parameter 'driver' expects a pluggable device type");
        return NULL;
    }
    return type;
}

/* A bridge that the user can add to a bus of this kind, or NULL. */
static const struct device_type *find_bridge(const char *kind)
{
    for (const struct device_type *const *t = device_types(); *t; t++) {
        const char *bus = device_type_bus(*t);
        if ((*t)->category == DEVICE_CATEGORY_BRIDGE && !(*t)->abstract && !(*t)->internal && bus &&
            !strcmp(bus, kind)) {
            return *t;
        }
    }
    return NULL;
}

static void set_bus_full(const struct device_type *type, const char *id, const struct bus *bus,
                         struct error **errp)
{
    const struct device_type *bridge = find_bridge(bus->type->name);
    bool has_functions =
        device_type_property(type, "addr") && device_type_property(type, "multifunction");

    error_set(errp, "%s: no slot available for %s%s%s, bus '%s' is full", bus->type->name,
              type->name, id ? ",id=" : "", id ? id : "", bus->name);
    autofree char *new_bus =
        bridge
            ? xasprintf("Give a slot to %s, which adds a bus: id=ID, and bus=ID.0 for what is to "
                        "go there.",
                        bridge->name)
            : xstrdup("");
    if (has_functions || bridge) {
        error_add_hint(errp, "%s%s%s",
                       has_functions ? "Devices can share a slot: multifunction=on for the first "
                                       "of them, addr=SLOT.FUNCTION for the others."
                                     : "",
                       has_functions && bridge ? " " : "", new_bus);
    }
}

static bool find_named_bus(const struct device_type *type, const char *name, struct bus **bus,
                           struct error **errp)
{
    const char *kind = device_type_bus(type);

    *bus = bus_find(name);
    if (!*bus) {
        size_t count;
        autofree const char **names = bus_names(&count);
        const char *near = nearest_name(name, names, count);
        error_set(errp, "Bus '%s' not found", name);
        if (near) {
            error_add_hint(errp, "Did you mean '%s'?", near);
        }
        return false;
    }
    if (!kind || strcmp(kind, (*bus)->type->name) != 0) {
        error_set(errp, "Device '%s' can't go on %s bus", type->name, (*bus)->type->name);
        return false;
    }
    return true;
}

/* The bus that bus= names, else the first of the right kind that has room. A full bus may still have
 * a place at an address that the user gives. */
static bool find_bus(const struct device_type *type, struct options *opts, struct bus **bus,
                     struct error **errp)
{
    const char *kind = device_type_bus(type), *name = options_get(opts, "bus");
    bool has_addr = options_has(opts, "addr") && device_type_property(type, "addr");

    *bus = NULL;
    if (name) {
        if (!find_named_bus(type, name, bus, errp)) {
            return false;
        }
    } else if (kind) {
        *bus = has_addr ? NULL : bus_find_kind(kind);
        *bus = *bus ? *bus : bus_find_first(kind);
        if (!*bus) {
            error_set(errp, "No '%s' bus found for device '%s'", kind, type->name);
            return false;
        }
    }
    if (*bus && (*bus)->full && !has_addr) {
        set_bus_full(type, options_get(opts, "id"), *bus, errp);
        return false;
    }
    if (cold_plug_done && *bus && !(*bus)->type->hotplug) {
        error_set(errp, "Bus '%s' does not support hotplugging", (*bus)->name);
        return false;
    }
    if (cold_plug_done && !type->hotpluggable) {
        error_set(errp, "Device '%s' does not support hotplugging", type->name);
        return false;
    }
    return true;
}

/* A property from item `index`. */
static bool set_property(struct device *dev, const struct options *opts, size_t index,
                         struct error **errp)
{
    const char *key = options_key(opts, index), *value = options_value(opts, index);
    const struct property *prop = device_type_property(dev->type, key);

    if (prop && prop->kind->number_text && options_type(opts, index) == OPTION_INTEGER) {
        autofree char *text = prop->kind->number_text(value);
        return device_set(dev, key, text, errp);
    }
    enum option_type json = prop && prop->kind->json ? prop->kind->json : OPTION_STRING;
    return (!prop || options_check_type(opts, key, json, errp)) &&
           device_set(dev, key, value, errp);
}

/* All keys but those of the framing are properties. */
static bool set_properties(struct device *dev, struct options *opts, const char *const *framing,
                           struct error **errp)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        const char *key = options_key(opts, i);
        bool skip = false;
        for (const char *const *f = framing; *f; f++) {
            skip |= strcmp(key, *f) == 0;
        }
        if (!skip && !set_property(dev, opts, i, errp)) {
            return false;
        }
    }
    return true;
}

struct device *device_add(struct options *opts, struct error **errp)
{
    static const char *const framing[] = {"driver", "bus", "id", NULL};
    const char *id = options_get(opts, "id");
    struct bus *bus;
    const struct device_type *type = find_device_type(options_get(opts, "driver"), errp);

    if (!type || !find_bus(type, opts, &bus, errp)) {
        return NULL;
    }
    struct device *dev = device_new(type);
    dev->is_peripheral = true;
    if ((id && !device_set_id(dev, id, errp)) || !set_properties(dev, opts, framing, errp) ||
        !device_realize(dev, bus, errp)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}

/* ---- -object -------------------------------------------------------------------------------- */

struct device *object_add(struct options *opts, struct error **errp)
{
    static const char *const framing[] = {"qom-type", "id", NULL};
    const char *name = options_get(opts, "qom-type");
    const char *id = options_get(opts, "id");

    if (!name || !*name) {
        error_set(errp, "Parameter 'qom-type' is missing");
        return NULL;
    }
    const struct device_type *type = device_type_find(name);
    if (!type || !type->is_object || type->abstract) {
        error_set(errp, "Parameter 'qom-type' does not accept value '%s'", name);
        device_type_hint(name, true, errp);
        return NULL;
    }
    if (!id) {
        error_set(errp, "Parameter 'id' is missing");
        return NULL;
    }
    struct device *dev = device_new(type);
    if (!device_set_id(dev, id, errp) || !set_properties(dev, opts, framing, errp) ||
        !device_realize(dev, NULL, errp)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}

bool object_del(const char *id, struct error **errp)
{
    struct device *dev = object_find(id);

    if (!dev) {
        error_set(errp, "object '%s' not found", id);
        return false;
    }
    if (dev->users) {
        error_set(errp, "object '%s' is in use, can not be deleted", id);
        return false;
    }
    device_free(dev);
    return true;
}
