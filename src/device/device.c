/* SPDX-License-Identifier: MIT */
/* The life of a device: new, properties, realize, reset, unrealize, free (device/device.h). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/id.h"
#include "base/options.h"
#include "device/internal.h"

/* Realized devices in order of realization, linked by next. */
static struct device *devices;

struct device *device_first(void)
{
    return devices;
}

bool device_is_a(const struct device *dev, const struct device_type *type)
{
    return device_type_is_a(dev->type, type);
}

static struct device *find_id(const char *id, bool object)
{
    for (struct device *dev = devices; dev; dev = dev->next) {
        if (dev->id && dev->type->is_object == object && strcmp(dev->id, id) == 0) {
            return dev;
        }
    }
    return NULL;
}

struct device *device_find(const char *id)
{
    return find_id(id, false);
}

struct device *object_find(const char *id)
{
    return find_id(id, true);
}

/* ---- new and free --------------------------------------------------------------------------- */

static void *field_of(struct device *dev, const struct property *prop)
{
    return (char *)dev + prop->offset;
}

static void set_default(const struct property *prop, void *opaque)
{
    if (prop->kind->set_default) {
        prop->kind->set_default(prop, field_of(opaque, prop));
    }
}

static void release(const struct property *prop, void *opaque)
{
    if (prop->kind->release) {
        prop->kind->release(opaque, prop, field_of(opaque, prop));
    }
}

struct device *device_new(const struct device_type *type)
{
    const struct device_type *chain[TYPE_DEPTH_MAX];
    unsigned depth = device_type_chain(type, chain);

    assert(!type->abstract && type->size >= sizeof(struct device));
    struct device *dev = xaligned_alloc(64, (type->size + 63) / 64 * 64);
    memset(dev, 0, type->size);
    dev->type = type;
    dev->state = DEVICE_CREATED;
    device_type_each_property(type, set_default, dev);
    for (unsigned i = 0; i < depth; i++) {
        if (chain[i]->init) {
            chain[i]->init(dev);
        }
    }
    device_apply_globals(dev);
    return dev;
}

void device_free(struct device *dev)
{
    if (!dev) {
        return;
    }
    if (dev->state == DEVICE_REALIZED) {
        device_unrealize(dev);
    }
    while (dev->first_child_bus) {
        bus_destroy(dev->first_child_bus);
    }
    device_type_each_property(dev->type, release, dev);
    error_free(dev->global_error);
    free(dev->gpio_in);
    free(dev->gpio_out);
    free(dev->id);
    free(dev);
}

void devices_free(void)
{
    while (devices) {
        struct device *last = devices;
        while (last->next) {
            last = last->next;
        }
        device_free(last);
    }
}

/* ---- properties ----------------------------------------------------------------------------- */

struct property_names {
    const char **list;
    size_t count;
};

static void collect_name(const struct property *prop, void *opaque)
{
    struct property_names *names = opaque;

    names->list = xreallocarray(names->list, names->count + 1, sizeof(names->list[0]));
    names->list[names->count++] = prop->name;
}

static void set_not_found(const struct device *dev, const char *name, struct error **errp)
{
    struct property_names names = {NULL, 0};

    device_type_each_property(dev->type, collect_name, &names);
    const char *near = nearest_name(name, names.list, names.count);
    error_set(errp, "Property '%s.%s' not found", dev->type->name, name);
    if (near) {
        error_add_hint(errp, "Did you mean '%s'?", near);
    } else {
        error_add_hint(errp, "Use %s %s,help to list its properties.",
                       dev->type->is_object ? "-object" : "-device", dev->type->name);
    }
    free(names.list);
}

bool device_set(struct device *dev, const char *name, const char *value, struct error **errp)
{
    const struct property *prop = device_type_property(dev->type, name);

    if (!prop) {
        set_not_found(dev, name, errp);
        return false;
    }
    if (dev->state == DEVICE_REALIZED) {
        error_set(errp,
                  "Attempt to set property '%s' on device '%s' (type '%s') after it was realized",
                  name, dev->id ? dev->id : "", dev->type->name);
        return false;
    }
    return prop->kind->parse(dev, prop, field_of(dev, prop), value, errp);
}

char *device_get(struct device *dev, const char *name)
{
    const struct property *prop = device_type_property(dev->type, name);

    return prop && prop->kind->print ? prop->kind->print(dev, prop, field_of(dev, prop)) : NULL;
}

bool device_set_id(struct device *dev, const char *id, struct error **errp)
{
    assert(dev->state == DEVICE_CREATED);
    if (!id_is_wellformed(id)) {
        error_set(errp, "Parameter 'id' expects an identifier");
        error_add_hint(errp, "Identifiers consist of letters, digits, '-', '.', '_', "
                             "starting with a letter.");
        return false;
    }
    if (find_id(id, dev->type->is_object)) {
        error_set(errp, "Duplicate ID '%s' for %s", id, dev->type->is_object ? "object" : "device");
        return false;
    }
    free(dev->id);
    dev->id = xstrdup(id);
    return true;
}

/* ---- realize and unrealize ------------------------------------------------------------------ */

static void append_sibling(struct bus *bus, struct device *dev)
{
    struct device **p = &bus->first;

    while (*p) {
        p = &(*p)->next_sibling;
    }
    *p = dev;
}

static void append_device(struct device *dev)
{
    struct device **p = &devices;

    while (*p) {
        p = &(*p)->next;
    }
    *p = dev;
}

static void unlink_device(struct device *dev)
{
    struct device **p = &devices;

    while (*p != dev) {
        p = &(*p)->next;
    }
    *p = dev->next;
    dev->next = NULL;
    if (!dev->bus) {
        return;
    }
    p = &dev->bus->first;
    while (*p != dev) {
        p = &(*p)->next_sibling;
    }
    *p = dev->next_sibling;
    dev->next_sibling = NULL;
}

static void free_children(struct device *dev)
{
    for (struct bus *bus = dev->first_child_bus; bus; bus = bus->next) {
        while (bus->first) {
            struct device *last = bus->first;
            while (last->next_sibling) {
                last = last->next_sibling;
            }
            device_free(last);
        }
    }
}

/* Undoes the first `count` types of a chain. */
static void undo_realize(struct device *dev, const struct device_type **chain, unsigned count)
{
    while (count-- > 0) {
        if (chain[count]->unrealize) {
            chain[count]->unrealize(dev);
        }
    }
}

bool device_realize(struct device *dev, struct bus *bus, struct error **errp)
{
    const struct device_type *chain[TYPE_DEPTH_MAX];
    unsigned depth = device_type_chain(dev->type, chain);
    const char *kind = device_type_bus(dev->type);

    assert(dev->state == DEVICE_CREATED);
    /* A machine puts its devices where they belong; device_add() has checked. */
    assert(bus ? kind && strcmp(kind, bus->type->name) == 0 : !kind);
    if (dev->global_error) {
        error_propagate(errp, dev->global_error);
        dev->global_error = NULL;
        return false;
    }
    dev->bus = bus;
    for (unsigned i = 0; i < depth; i++) {
        if (chain[i]->realize && !chain[i]->realize(dev, errp)) {
            free_children(dev);
            undo_realize(dev, chain, i);
            dev->bus = NULL;
            return false;
        }
    }
    if (bus) {
        append_sibling(bus, dev);
    }
    append_device(dev);
    dev->state = DEVICE_REALIZED;
    return true;
}

void device_unrealize(struct device *dev)
{
    const struct device_type *chain[TYPE_DEPTH_MAX];
    unsigned depth = device_type_chain(dev->type, chain);

    assert(dev->state == DEVICE_REALIZED);
    free_children(dev);
    undo_realize(dev, chain, depth);
    unlink_device(dev);
    dev->bus = NULL;
    dev->state = DEVICE_CREATED;
}

/* ---- reset ---------------------------------------------------------------------------------- */

void device_reset(struct device *dev)
{
    const struct device_type *chain[TYPE_DEPTH_MAX];
    unsigned depth = device_type_chain(dev->type, chain);

    for (struct bus *bus = dev->first_child_bus; bus; bus = bus->next) {
        bus_reset(bus);
    }
    for (unsigned i = 0; i < depth; i++) {
        if (chain[i]->reset) {
            chain[i]->reset(dev);
        }
    }
}

/* ---- interrupt lines ------------------------------------------------------------------------ */

void device_init_gpio_in(struct device *dev, irq_fn *fn, unsigned count)
{
    assert(!dev->gpio_in);
    dev->gpio_in = xcalloc(count, sizeof(dev->gpio_in[0]));
    dev->gpio_in_count = count;
    for (unsigned i = 0; i < count; i++) {
        dev->gpio_in[i] = irq_make(fn, dev, i);
    }
}

void device_init_gpio_out(struct device *dev, unsigned count)
{
    assert(!dev->gpio_out);
    dev->gpio_out = xcalloc(count, sizeof(dev->gpio_out[0]));
    dev->gpio_out_count = count;
}
