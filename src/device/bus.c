/* SPDX-License-Identifier: MIT */
/*
 * Buses: the tree that devices hang in.
 *
 *   main-system-bus --- host bridge --- pcie.0 --- LPC bridge --- isa.0 --- serial
 */
#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "device/internal.h"

static const struct bus_type system_bus_type = {.name = "System"};

static struct bus main_system_bus = {
    .type = &system_bus_type,
    .name = (char *)"main-system-bus",
};

/* Buses without a parent, linked by next. */
static struct bus *root_buses = &main_system_bus;

struct bus *system_bus(void)
{
    return &main_system_bus;
}

/* ---- walking the tree ----------------------------------------------------------------------- */

typedef bool bus_match(const struct bus *bus, void *opaque);

static struct bus *find_below(struct bus *first, bus_match *match, void *opaque)
{
    for (struct bus *bus = first; bus; bus = bus->next) {
        if (match(bus, opaque)) {
            return bus;
        }
        for (struct device *dev = bus->first; dev; dev = dev->next_sibling) {
            struct bus *found = find_below(dev->first_child_bus, match, opaque);
            if (found) {
                return found;
            }
        }
    }
    return NULL;
}

/* Depth first from the roots, then below devices that are on no bus. */
static struct bus *find(bus_match *match, void *opaque)
{
    struct bus *found = find_below(root_buses, match, opaque);

    for (struct device *dev = device_first(); dev && !found; dev = dev->next) {
        if (!dev->bus) {
            found = find_below(dev->first_child_bus, match, opaque);
        }
    }
    return found;
}

static bool match_name(const struct bus *bus, void *opaque)
{
    return strcmp(bus->name, opaque) == 0;
}

struct bus *bus_find(const char *name)
{
    return find(match_name, (void *)name);
}

static bool match_free_kind(const struct bus *bus, void *opaque)
{
    return !bus->full && strcmp(bus->type->name, opaque) == 0;
}

struct bus *bus_find_kind(const char *kind)
{
    return find(match_free_kind, (void *)kind);
}

static bool match_kind(const struct bus *bus, void *opaque)
{
    return strcmp(bus->type->name, opaque) == 0;
}

struct bus *bus_find_first(const char *kind)
{
    return find(match_kind, (void *)kind);
}

struct names {
    const char **list;
    size_t count;
};

static bool collect_name(const struct bus *bus, void *opaque)
{
    struct names *names = opaque;

    names->list = xreallocarray(names->list, names->count + 1, sizeof(names->list[0]));
    names->list[names->count++] = bus->name;
    return false;
}

const char **bus_names(size_t *count)
{
    struct names names = {NULL, 0};

    find(collect_name, &names);
    *count = names.count;
    return names.list;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* Numbers buses of each type whose parent has no id. */
static unsigned next_number(const struct bus_type *type)
{
    static struct {
        const struct bus_type *type;
        unsigned next;
    } * counters;
    static unsigned count;

    for (unsigned i = 0; i < count; i++) {
        if (counters[i].type == type) {
            return counters[i].next++;
        }
    }
    counters = xreallocarray(counters, count + 1, sizeof(counters[0]));
    counters[count].type = type;
    counters[count].next = 1;
    count++;
    return 0;
}

static char *default_name(const struct bus_type *type, const struct device *parent)
{
    if (parent && parent->id) {
        unsigned n = 0;
        for (const struct bus *b = parent->first_child_bus; b; b = b->next) {
            n++;
        }
        return xasprintf("%s.%u", parent->id, n);
    }
    char *name = xasprintf("%s.%u", type->name, next_number(type));
    for (char *p = name; *p; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
    return name;
}

void bus_init(struct bus *bus, const struct bus_type *type, struct device *parent, const char *name)
{
    struct bus **p = parent ? &parent->first_child_bus : &root_buses;

    memset(bus, 0, sizeof(*bus));
    bus->type = type;
    bus->name = name ? xstrdup(name) : default_name(type, parent);
    bus->parent = parent;
    while (*p) {
        p = &(*p)->next;
    }
    *p = bus;
}

static struct device *last_child(const struct bus *bus)
{
    struct device *dev = bus->first;

    while (dev && dev->next_sibling) {
        dev = dev->next_sibling;
    }
    return dev;
}

void bus_destroy(struct bus *bus)
{
    struct bus **p = bus->parent ? &bus->parent->first_child_bus : &root_buses;
    struct device *dev;

    if (!bus->name) {
        return;
    }
    while ((dev = last_child(bus))) {
        device_free(dev);
    }
    while (*p && *p != bus) {
        p = &(*p)->next;
    }
    assert(*p);
    *p = bus->next;
    free(bus->name);
    memset(bus, 0, sizeof(*bus));
}

/* ---- reset ---------------------------------------------------------------------------------- */

void bus_reset(struct bus *bus)
{
    for (struct device *dev = bus->first; dev; dev = dev->next_sibling) {
        device_reset(dev);
    }
    if (bus->type->reset) {
        bus->type->reset(bus);
    }
}

void devices_reset(void)
{
    for (struct bus *bus = root_buses; bus; bus = bus->next) {
        bus_reset(bus);
    }
    for (struct device *dev = device_first(); dev; dev = dev->next) {
        if (!dev->bus) {
            device_reset(dev);
        }
    }
}
