/* SPDX-License-Identifier: MIT */
/* Device types: the list of all, inheritance, their properties. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "device/internal.h"

static const struct device_type *const no_types[] = {NULL};
static const struct device_type *const *all_types = no_types;

void device_types_set(const struct device_type *const *types)
{
    all_types = types ? types : no_types;
}

const struct device_type *const *device_types(void)
{
    return all_types;
}

const struct device_type *device_type_find(const char *name_or_alias)
{
    for (const struct device_type *const *t = all_types; *t; t++) {
        if (strcmp((*t)->name, name_or_alias) == 0) {
            return *t;
        }
    }
    for (const struct device_type *const *t = all_types; *t; t++) {
        if ((*t)->alias && strcmp((*t)->alias, name_or_alias) == 0) {
            return *t;
        }
    }
    return NULL;
}

bool device_type_is_a(const struct device_type *type, const struct device_type *ancestor)
{
    while (type && type != ancestor) {
        type = type->parent;
    }
    return type != NULL;
}

unsigned device_type_chain(const struct device_type *type,
                           const struct device_type *chain[TYPE_DEPTH_MAX])
{
    unsigned depth = 0;

    for (const struct device_type *t = type; t; t = t->parent) {
        depth++;
    }
    assert(depth <= TYPE_DEPTH_MAX);
    unsigned i = depth;
    for (const struct device_type *t = type; t; t = t->parent) {
        chain[--i] = t;
    }
    return depth;
}

const char *device_type_bus(const struct device_type *type)
{
    while (type && !type->bus) {
        type = type->parent;
    }
    return type ? type->bus : NULL;
}

const struct property *device_type_property(const struct device_type *type, const char *name)
{
    for (; type; type = type->parent) {
        for (const struct property *p = type->props; p && p->name; p++) {
            if (strcmp(p->name, name) == 0) {
                return p;
            }
        }
    }
    return NULL;
}

void device_type_each_property(const struct device_type *type,
                               void (*fn)(const struct property *prop, void *opaque), void *opaque)
{
    const struct device_type *chain[TYPE_DEPTH_MAX];
    unsigned depth = device_type_chain(type, chain);

    for (unsigned i = 0; i < depth; i++) {
        for (const struct property *p = chain[i]->props; p && p->name; p++) {
            if (device_type_property(type, p->name) == p) {
                fn(p, opaque);
            }
        }
    }
}

void device_type_hint(const char *name, bool objects, struct error **errp)
{
    size_t count = 0;

    while (all_types[count]) {
        count++;
    }
    autofree const char **names = xcalloc(2 * count + 1, sizeof(*names));
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const struct device_type *t = all_types[i];
        if (t->abstract || t->internal || t->is_object != objects) {
            continue;
        }
        names[n++] = t->name;
        if (t->alias) {
            names[n++] = t->alias;
        }
    }
    const char *near = nearest_name(name, names, n);
    if (near) {
        error_add_hint(errp, "Did you mean '%s'?", near);
    } else {
        error_add_hint(errp, "Use %s help to list the valid ones.",
                       objects ? "-object" : "-device");
    }
}
