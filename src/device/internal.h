/* SPDX-License-Identifier: MIT */
/* What the files of device/ share among themselves. */
#ifndef FERRY_DEVICE_INTERNAL_H
#define FERRY_DEVICE_INTERNAL_H

#include "device/device.h"

/* No type inherits deeper. */
#define TYPE_DEPTH_MAX 8

/* The type and its ancestors, the root first; returns how many. */
unsigned device_type_chain(const struct device_type *type,
                           const struct device_type *chain[TYPE_DEPTH_MAX]);

/* Calls fn for each property of the type, those of the root first. A property that a descendant
 * defines again is only seen there. */
void device_type_each_property(const struct device_type *type,
                               void (*fn)(const struct property *prop, void *opaque), void *opaque);

/* Adds a hint to a "not found" error if a name is near. Objects or devices, as asked for. */
void device_type_hint(const char *name, bool objects, struct error **errp);

/* Applies -global to a new device; an error goes to dev->global_error. */
void device_apply_globals(struct device *dev);

/* First bus of that kind, full or not. */
struct bus *bus_find_first(const char *kind);

/* Names of buses, for hints: a list to be freed (not the names). */
const char **bus_names(size_t *count);

#endif
