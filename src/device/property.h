/* SPDX-License-Identifier: MIT */
/*
 * Properties: the fields of a device that the command line, QMP and -global set by name.
 *
 * A property names a field of the device struct, how text becomes its value, and its default. The
 * table is what -device NAME,help prints.
 *
 *   static const struct property serial_props[] = {
 *       PROPERTY_UINT32("iobase", struct serial, iobase, 0x3f8, 0, 0xffff, "first port"),
 *       PROPERTY_END,
 *   };
 *
 * Kinds that name things of later layers (chardev, netdev) are defined there; a kind is a struct.
 */
#ifndef FERRY_DEVICE_PROPERTY_H
#define FERRY_DEVICE_PROPERTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/options.h"

struct device;
struct property;

struct property_kind {
    const char *name;      /* as help prints it: "bool", "uint32", "str", "size", "on/off/auto" */
    enum option_type json; /* what it is in JSON; 0: a string */
    /* What a number in JSON stands for, as text, to be freed; NULL: json says whether there is one. */
    char *(*number_text)(const char *number);
    /* text becomes the field; field points into the device. What the field held before is
     * released by parse, if it succeeds. */
    bool (*parse)(struct device *dev, const struct property *prop, void *field, const char *text,
                  struct error **errp);
    /* The field as text, to be freed; NULL if it is unset. */
    char *(*print)(const struct device *dev, const struct property *prop, const void *field);
    void (*set_default)(const struct property *prop, void *field); /* NULL: the field stays zero */
    void (*release)(struct device *dev, const struct property *prop, void *field); /* or NULL */
};

struct property {
    const char *name;
    const struct property_kind *kind;
    size_t offset;
    uint64_t default_value;   /* numbers, bits, enum indices */
    const char *default_text; /* strings; NULL: none */
    uint64_t min, max;        /* of numbers; both 0: the kind's range */
    unsigned bit;             /* of PROPERTY_BIT */
    const char *const *names; /* of enums, NULL-terminated */
    const char *description;
};

extern const struct property_kind property_bool, property_bit32, property_bit64, property_uint8,
    property_uint16, property_uint32, property_uint64, property_int32, property_size32,
    property_size, property_string, property_enum, property_on_off_auto, property_pci_address;

enum on_off_auto { ON_OFF_AUTO_AUTO, ON_OFF_AUTO_ON, ON_OFF_AUTO_OFF };

#define PROPERTY_BOOL(n, s, f, d, desc)                                                            \
    {                                                                                              \
        .name = n, .kind = &property_bool, .offset = offsetof(s, f), .default_value = d,           \
        .description = desc                                                                        \
    }
/* One bit of a uint32_t or uint64_t field, e.g. a feature. */
#define PROPERTY_BIT32(n, s, f, b, d, desc)                                                        \
    {                                                                                              \
        .name = n, .kind = &property_bit32, .offset = offsetof(s, f), .bit = b,                    \
        .default_value = d, .description = desc                                                    \
    }
#define PROPERTY_BIT64(n, s, f, b, d, desc)                                                        \
    {                                                                                              \
        .name = n, .kind = &property_bit64, .offset = offsetof(s, f), .bit = b,                    \
        .default_value = d, .description = desc                                                    \
    }
#define PROPERTY_NUMBER(k, n, s, f, d, lo, hi, desc)                                               \
    {                                                                                              \
        .name = n, .kind = &k, .offset = offsetof(s, f), .default_value = d, .min = lo, .max = hi, \
        .description = desc                                                                        \
    }
#define PROPERTY_UINT8(n, s, f, d, lo, hi, desc)                                                   \
    PROPERTY_NUMBER(property_uint8, n, s, f, d, lo, hi, desc)
#define PROPERTY_UINT16(n, s, f, d, lo, hi, desc)                                                  \
    PROPERTY_NUMBER(property_uint16, n, s, f, d, lo, hi, desc)
#define PROPERTY_UINT32(n, s, f, d, lo, hi, desc)                                                  \
    PROPERTY_NUMBER(property_uint32, n, s, f, d, lo, hi, desc)
#define PROPERTY_UINT64(n, s, f, d, lo, hi, desc)                                                  \
    PROPERTY_NUMBER(property_uint64, n, s, f, d, lo, hi, desc)
#define PROPERTY_INT32(n, s, f, d, desc)                                                           \
    {                                                                                              \
        .name = n, .kind = &property_int32, .offset = offsetof(s, f),                              \
        .default_value = (uint64_t)(int64_t)(d), .description = desc                               \
    }
#define PROPERTY_SIZE32(n, s, f, d, lo, hi, desc)                                                  \
    PROPERTY_NUMBER(property_size32, n, s, f, d, lo, hi, desc)
#define PROPERTY_SIZE(n, s, f, d, lo, hi, desc)                                                    \
    PROPERTY_NUMBER(property_size, n, s, f, d, lo, hi, desc)
#define PROPERTY_STRING(n, s, f, d, desc)                                                          \
    {                                                                                              \
        .name = n, .kind = &property_string, .offset = offsetof(s, f), .default_text = d,          \
        .description = desc                                                                        \
    }
#define PROPERTY_ENUM(n, s, f, nm, d, desc)                                                        \
    {                                                                                              \
        .name = n, .kind = &property_enum, .offset = offsetof(s, f), .names = nm,                  \
        .default_value = d, .description = desc                                                    \
    }
#define PROPERTY_ON_OFF_AUTO(n, s, f, d, desc)                                                     \
    {                                                                                              \
        .name = n, .kind = &property_on_off_auto, .offset = offsetof(s, f), .default_value = d,    \
        .description = desc                                                                        \
    }
/* int32_t field: slot << 3 | function, -1 unset; text "5", "5.1", hexadecimal as QEMU. */
#define PROPERTY_PCI_ADDRESS(n, s, f, desc)                                                        \
    {                                                                                              \
        .name = n, .kind = &property_pci_address, .offset = offsetof(s, f),                        \
        .default_value = UINT64_MAX, .description = desc                                           \
    }
#define PROPERTY_END                                                                               \
    {                                                                                              \
        .name = NULL                                                                               \
    }

/* The errors of kinds, in QEMU's words. */
void property_error_value(const struct device *dev, const struct property *prop, const char *text,
                          struct error **errp);
/* "Parameter 'NAME' expects WHAT" */
void property_error_expects(const struct property *prop, const char *what, struct error **errp);

#endif
