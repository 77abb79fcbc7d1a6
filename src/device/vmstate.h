/* SPDX-License-Identifier: MIT */
/*
 * Versioned state tables: what of a device a snapshot or migration carries. Every device has one
 * from the first day.
 *
 * vmstate_save() writes a table's fields into a buffer, vmstate_load() reads them back:
 *
 *   table:  name, version, number of fields
 *   field:  name, kind, size of an element, number of elements, the elements
 *
 * Numbers are little-endian; an element of kind STRUCT is a table. What is loaded is as hostile as
 * any file: names, kinds, sizes and versions must match, and nothing is stored before all of that
 * has been checked. A field that an older version lacks keeps its value; post_load sees to it.
 */
#ifndef FERRY_DEVICE_VMSTATE_H
#define FERRY_DEVICE_VMSTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum vmstate_kind {
    VMSTATE_KIND_UINT, /* size 1, 2, 4, 8 */
    VMSTATE_KIND_BOOL,
    VMSTATE_KIND_BYTES,
    VMSTATE_KIND_STRUCT, /* sub: its own table */
    VMSTATE_KIND_TIMER,  /* struct aio_timer: its expiry */
};

struct vmstate;

struct vmstate_field {
    const char *name;
    enum vmstate_kind kind;
    size_t offset;
    size_t size;    /* of one element */
    unsigned count; /* elements, 1 unless an array */
    const struct vmstate *sub;
};

struct vmstate {
    const char *name;
    unsigned version, minimum_version;
    const struct vmstate_field *fields; /* ends with a NULL name */
    void (*pre_save)(void *device);
    /* Validates what came in; false refuses it. */
    bool (*post_load)(void *device, unsigned version);
};

#define VMSTATE_UINT(s, f)                                                                         \
    {                                                                                              \
        .name = #f, .kind = VMSTATE_KIND_UINT, .offset = offsetof(s, f),                           \
        .size = sizeof(((s *)0)->f), .count = 1                                                    \
    }
#define VMSTATE_BOOL(s, f)                                                                         \
    {                                                                                              \
        .name = #f, .kind = VMSTATE_KIND_BOOL, .offset = offsetof(s, f), .size = 1, .count = 1     \
    }
#define VMSTATE_ARRAY(s, f)                                                                        \
    {                                                                                              \
        .name = #f, .kind = VMSTATE_KIND_UINT, .offset = offsetof(s, f),                           \
        .size = sizeof(((s *)0)->f[0]), .count = sizeof(((s *)0)->f) / sizeof(((s *)0)->f[0])      \
    }
#define VMSTATE_BYTES(s, f)                                                                        \
    {                                                                                              \
        .name = #f, .kind = VMSTATE_KIND_BYTES, .offset = offsetof(s, f),                          \
        .size = sizeof(((s *)0)->f), .count = 1                                                    \
    }
#define VMSTATE_TIMER(s, f)                                                                        \
    {                                                                                              \
        .name = #f, .kind = VMSTATE_KIND_TIMER, .offset = offsetof(s, f),                          \
        .size = sizeof(((s *)0)->f), .count = 1                                                    \
    }
#define VMSTATE_SUB(s, f, table, n)                                                                \
    {                                                                                              \
        .name = #f, .kind = VMSTATE_KIND_STRUCT, .offset = offsetof(s, f),                         \
        .size = sizeof(((s *)0)->f) / (n), .count = n, .sub = &table                               \
    }
#define VMSTATE_END                                                                                \
    {                                                                                              \
        .name = NULL                                                                               \
    }

/* The state as bytes, to be freed. Machine lock held. */
uint8_t *vmstate_save(const struct vmstate *table, void *object, size_t *length);
/* False if the bytes are malformed (then object is unchanged) or post_load refuses them (then it
 * wants a reset). Machine lock held. */
bool vmstate_load(const struct vmstate *table, void *object, const uint8_t *data, size_t length,
                  struct error **errp);

/* The tables of a device's type and all its ancestors. */
struct device;
uint8_t *device_save_state(struct device *dev, size_t *length);
bool device_load_state(struct device *dev, const uint8_t *data, size_t length, struct error **errp);

#endif
