/* SPDX-License-Identifier: MIT */
/* Saving and loading state tables; device/vmstate.h describes the format. */
#include "device/vmstate.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "aio/loop.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/internal.h"

/* Tables within tables go no deeper. */
#define NESTING_MAX 8

/* ---- saving --------------------------------------------------------------------------------- */

struct writer {
    uint8_t *data;
    size_t length, capacity;
};

static void write_bytes(struct writer *w, const void *bytes, size_t length)
{
    if (w->capacity - w->length < length) {
        w->capacity = (w->length + length) * 2;
        w->data = xrealloc(w->data, w->capacity);
    }
    if (length) {
        memcpy(w->data + w->length, bytes, length);
    }
    w->length += length;
}

static void write_number(struct writer *w, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    store_le(bytes, size, value);
    write_bytes(w, bytes, size);
}

static void write_name(struct writer *w, const char *name)
{
    size_t length = strlen(name);

    assert(length <= UINT8_MAX);
    write_number(w, length, 1);
    write_bytes(w, name, length);
}

static unsigned count_fields(const struct vmstate *table)
{
    unsigned n = 0;

    while (table->fields[n].name) {
        n++;
    }
    return n;
}

static void write_table(struct writer *w, const struct vmstate *table, void *object);

static void write_element(struct writer *w, const struct vmstate_field *field, void *element)
{
    switch (field->kind) {
    case VMSTATE_KIND_UINT:
        write_number(w, load_le(element, (unsigned)field->size), (unsigned)field->size);
        break;
    case VMSTATE_KIND_BOOL:
        write_number(w, *(bool *)element, 1);
        break;
    case VMSTATE_KIND_BYTES:
        write_bytes(w, element, field->size);
        break;
    case VMSTATE_KIND_STRUCT:
        write_table(w, field->sub, element);
        break;
    case VMSTATE_KIND_TIMER:
        write_number(w, (uint64_t)timer_expires(element), 8);
        break;
    }
}

static void write_table(struct writer *w, const struct vmstate *table, void *object)
{
    if (table->pre_save) {
        table->pre_save(object);
    }
    write_name(w, table->name);
    write_number(w, table->version, 4);
    write_number(w, count_fields(table), 4);
    for (const struct vmstate_field *f = table->fields; f->name; f++) {
        write_name(w, f->name);
        write_number(w, f->kind, 1);
        /* Sizes of structs are those of a build, not of the state. */
        bool has_size = f->kind == VMSTATE_KIND_UINT || f->kind == VMSTATE_KIND_BYTES;
        write_number(w, has_size ? f->size : 0, 4);
        write_number(w, f->count, 4);
        for (unsigned i = 0; i < f->count; i++) {
            write_element(w, f, (char *)object + f->offset + i * f->size);
        }
    }
}

uint8_t *vmstate_save(const struct vmstate *table, void *object, size_t *length)
{
    struct writer w = {NULL, 0, 0};

    write_table(&w, table, object);
    *length = w.length;
    return w.data;
}

/* ---- loading -------------------------------------------------------------------------------- */

struct reader {
    const uint8_t *data;
    size_t length, position;
    unsigned depth;
    bool apply; /* false: only checks */
    struct error **errp;
};

static bool read_bytes(struct reader *r, const uint8_t **bytes, size_t length)
{
    if (!range_fits(r->position, length, r->length)) {
        error_set(r->errp, "device state ends in the middle of a field");
        return false;
    }
    *bytes = r->data + r->position;
    r->position += length;
    return true;
}

static bool read_number(struct reader *r, uint64_t *value, unsigned size)
{
    const uint8_t *bytes;

    if (!read_bytes(r, &bytes, size)) {
        return false;
    }
    *value = load_le(bytes, size);
    return true;
}

/* Reads a name; *equal tells if it is the expected one. */
static bool read_name(struct reader *r, const char *expected, bool *equal)
{
    const uint8_t *bytes;
    uint64_t length;

    if (!read_number(r, &length, 1) || !read_bytes(r, &bytes, length)) {
        return false;
    }
    *equal = strlen(expected) == length && memcmp(bytes, expected, length) == 0;
    return true;
}

static bool read_table(struct reader *r, const struct vmstate *table, void *object);

static bool read_element(struct reader *r, const struct vmstate_field *field, void *element)
{
    const uint8_t *bytes;
    uint64_t value;

    switch (field->kind) {
    case VMSTATE_KIND_UINT:
    case VMSTATE_KIND_BYTES:
        if (!read_bytes(r, &bytes, field->size)) {
            return false;
        }
        if (r->apply) {
            memcpy(element, bytes, field->size);
        }
        return true;
    case VMSTATE_KIND_BOOL:
        if (!read_number(r, &value, 1)) {
            return false;
        }
        if (value > 1) {
            error_set(r->errp, "device state: field '%s' is no bool", field->name);
            return false;
        }
        if (r->apply) {
            *(bool *)element = value;
        }
        return true;
    case VMSTATE_KIND_STRUCT:
        return read_table(r, field->sub, element);
    case VMSTATE_KIND_TIMER:
        if (!read_number(r, &value, 8)) {
            return false;
        }
        if ((int64_t)value < -1) {
            error_set(r->errp, "device state: timer '%s' expires before time began", field->name);
            return false;
        }
        if (r->apply && (int64_t)value == -1) {
            timer_cancel(element);
        } else if (r->apply) {
            timer_set(element, (int64_t)value);
        }
        return true;
    }
    return false;
}

static bool read_field(struct reader *r, const struct vmstate *table,
                       const struct vmstate_field *field, void *object)
{
    bool has_size = field->kind == VMSTATE_KIND_UINT || field->kind == VMSTATE_KIND_BYTES;
    uint64_t kind, size, count;

    if (!read_number(r, &kind, 1) || !read_number(r, &size, 4) || !read_number(r, &count, 4)) {
        return false;
    }
    if (kind != field->kind || size != (has_size ? field->size : 0) || count != field->count) {
        error_set(r->errp, "device state: field '%s' of '%s' has another kind or size", field->name,
                  table->name);
        return false;
    }
    for (unsigned i = 0; i < field->count; i++) {
        if (!read_element(r, field, (char *)object + field->offset + i * field->size)) {
            return false;
        }
    }
    return true;
}

/* Fields come in the order of the table; an older version may lack some. */
static bool read_fields(struct reader *r, const struct vmstate *table, void *object, uint64_t count,
                        bool older)
{
    const struct vmstate_field *field = table->fields;

    while (count > 0) {
        size_t start = r->position;
        bool equal = false;
        for (; field->name && !equal; field++) {
            r->position = start;
            if (!read_name(r, field->name, &equal)) {
                return false;
            }
            if (!equal && !older) {
                error_set(r->errp, "device state: '%s' lacks field '%s'", table->name, field->name);
                return false;
            }
        }
        if (!equal) {
            error_set(r->errp, "device state: '%s' has a field that is not known here",
                      table->name);
            return false;
        }
        if (!read_field(r, table, field - 1, object)) {
            return false;
        }
        count--;
    }
    if (field->name && !older) {
        error_set(r->errp, "device state: '%s' lacks field '%s'", table->name, field->name);
        return false;
    }
    return true;
}

static bool read_table(struct reader *r, const struct vmstate *table, void *object)
{
    uint64_t version, count;
    bool equal;

    if (!read_name(r, table->name, &equal)) {
        return false;
    }
    if (!equal) {
        error_set(r->errp, "device state: expected that of '%s'", table->name);
        return false;
    }
    if (!read_number(r, &version, 4) || !read_number(r, &count, 4)) {
        return false;
    }
    if (version > table->version || version < table->minimum_version) {
        error_set(r->errp,
                  "device state: '%s' has version %" PRIu64 ", versions %u to %u are known",
                  table->name, version, table->minimum_version, table->version);
        return false;
    }
    assert(r->depth < NESTING_MAX);
    r->depth++;
    if (!read_fields(r, table, object, count, version < table->version)) {
        return false;
    }
    r->depth--;
    if (r->apply && table->post_load && !table->post_load(object, (unsigned)version)) {
        error_set(r->errp, "device state: '%s' refuses its values", table->name);
        return false;
    }
    return true;
}

/* The tables of a list one after the other, and nothing behind them. */
static bool load_tables(const struct vmstate *const *tables, unsigned table_count, void *object,
                        const uint8_t *data, size_t length, struct error **errp)
{
    for (int apply = 0; apply <= 1; apply++) {
        struct reader r = {.data = data, .length = length, .apply = apply, .errp = errp};
        for (unsigned i = 0; i < table_count; i++) {
            if (!read_table(&r, tables[i], object)) {
                return false;
            }
        }
        if (r.position != length) {
            error_set(errp, "device state: %zu bytes too many", length - r.position);
            return false;
        }
    }
    return true;
}

bool vmstate_load(const struct vmstate *table, void *object, const uint8_t *data, size_t length,
                  struct error **errp)
{
    return load_tables(&table, 1, object, data, length, errp);
}

/* ---- devices -------------------------------------------------------------------------------- */

static unsigned device_tables(const struct device *dev,
                              const struct vmstate *tables[TYPE_DEPTH_MAX])
{
    const struct device_type *chain[TYPE_DEPTH_MAX];
    unsigned depth = device_type_chain(dev->type, chain);
    unsigned n = 0;

    for (unsigned i = 0; i < depth; i++) {
        if (chain[i]->vmstate) {
            tables[n++] = chain[i]->vmstate;
        }
    }
    return n;
}

uint8_t *device_save_state(struct device *dev, size_t *length)
{
    const struct vmstate *tables[TYPE_DEPTH_MAX];
    unsigned count = device_tables(dev, tables);
    struct writer w = {NULL, 0, 0};

    for (unsigned i = 0; i < count; i++) {
        write_table(&w, tables[i], dev);
    }
    *length = w.length;
    return w.data;
}

bool device_load_state(struct device *dev, const uint8_t *data, size_t length, struct error **errp)
{
    const struct vmstate *tables[TYPE_DEPTH_MAX];
    unsigned count = device_tables(dev, tables);

    return load_tables(tables, count, dev, data, length, errp);
}
