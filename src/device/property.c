/* SPDX-License-Identifier: MIT */
/* The kinds of properties: text to field and back, with the errors that QEMU gives. */
#include "device/property.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "device/device.h"

/* ---- errors --------------------------------------------------------------------------------- */

void property_error_value(const struct device *dev, const struct property *prop, const char *text,
                          struct error **errp)
{
    error_set(errp, "Property '%s.%s' doesn't take value '%s'", dev->type->name, prop->name, text);
}

void property_error_expects(const struct property *prop, const char *what, struct error **errp)
{
    error_set(errp, "Parameter '%s' expects %s", prop->name, what);
}

static bool in_range(const struct device *dev, const struct property *prop, uint64_t value,
                     struct error **errp)
{
    if ((prop->min == 0 && prop->max == 0) || (value >= prop->min && value <= prop->max)) {
        return true;
    }
    error_set(errp,
              "Property %s.%s doesn't take value %" PRIu64 " (minimum: %" PRIu64
              ", maximum: %" PRIu64 ")",
              dev->type->name, prop->name, value, prop->min, prop->max);
    return false;
}

/* ---- bool and bits -------------------------------------------------------------------------- */

static bool parse_on_off(const struct property *prop, const char *text, bool *value,
                         struct error **errp)
{
    if (!parse_bool(text, value)) {
        property_error_expects(prop, "'on' or 'off'", errp);
        return false;
    }
    return true;
}

static bool bool_parse(struct device *dev, const struct property *prop, void *field,
                       const char *text, struct error **errp)
{
    return parse_on_off(prop, text, field, errp);
}

static char *bool_print(const struct device *dev, const struct property *prop, const void *field)
{
    return xstrdup(*(const bool *)field ? "true" : "false");
}

static void bool_default(const struct property *prop, void *field)
{
    *(bool *)field = prop->default_value != 0;
}

const struct property_kind property_bool = {
    .name = "bool",
    .json = OPTION_BOOL,
    .parse = bool_parse,
    .print = bool_print,
    .set_default = bool_default,
};

#define BIT_KIND(bits)                                                                             \
    static void bit##bits##_set(const struct property *prop, void *field, bool value)              \
    {                                                                                              \
        uint##bits##_t mask = (uint##bits##_t)1 << prop->bit;                                      \
        uint##bits##_t *word = field;                                                              \
        *word = value ? *word | mask : *word & ~mask;                                              \
    }                                                                                              \
    static bool bit##bits##_parse(struct device *dev, const struct property *prop, void *field,    \
                                  const char *text, struct error **errp)                           \
    {                                                                                              \
        bool value;                                                                                \
        if (!parse_on_off(prop, text, &value, errp)) {                                             \
            return false;                                                                          \
        }                                                                                          \
        bit##bits##_set(prop, field, value);                                                       \
        return true;                                                                               \
    }                                                                                              \
    static char *bit##bits##_print(const struct device *dev, const struct property *prop,          \
                                   const void *field)                                              \
    {                                                                                              \
        return xstrdup(*(const uint##bits##_t *)field >> prop->bit & 1 ? "true" : "false");        \
    }                                                                                              \
    static void bit##bits##_default(const struct property *prop, void *field)                      \
    {                                                                                              \
        bit##bits##_set(prop, field, prop->default_value != 0);                                    \
    }                                                                                              \
    const struct property_kind property_bit##bits = {                                              \
        .name = "bool",                                                                            \
        .json = OPTION_BOOL,                                                                       \
        .parse = bit##bits##_parse,                                                                \
        .print = bit##bits##_print,                                                                \
        .set_default = bit##bits##_default,                                                        \
    };

BIT_KIND(32)
BIT_KIND(64)

/* ---- numbers -------------------------------------------------------------------------------- */

static bool parse_number(const struct device *dev, const struct property *prop, const char *text,
                         uint64_t type_max, const char *type_name, uint64_t *value,
                         struct error **errp)
{
    if (!parse_uint(text, value)) {
        property_error_expects(prop, "integer", errp);
        return false;
    }
    if (*value > type_max) {
        property_error_expects(prop, type_name, errp);
        return false;
    }
    return in_range(dev, prop, *value, errp);
}

static bool parse_bytes(const struct device *dev, const struct property *prop, const char *text,
                        uint64_t type_max, const char *type_name, uint64_t *value,
                        struct error **errp)
{
    if (!parse_size(text, 1, value)) {
        property_error_expects(prop, "size", errp);
        error_add_hint(errp, "A number of bytes, or with suffix k, M, G or T.");
        return false;
    }
    if (*value > type_max) {
        property_error_expects(prop, type_name, errp);
        return false;
    }
    return in_range(dev, prop, *value, errp);
}

#define NUMBER_KIND(kind, type, type_max, parser, help_name)                                       \
    static bool kind##_parse(struct device *dev, const struct property *prop, void *field,         \
                             const char *text, struct error **errp)                                \
    {                                                                                              \
        uint64_t value;                                                                            \
        if (!parser(dev, prop, text, type_max, #type, &value, errp)) {                             \
            return false;                                                                          \
        }                                                                                          \
        *(type *)field = (type)value;                                                              \
        return true;                                                                               \
    }                                                                                              \
    static char *kind##_print(const struct device *dev, const struct property *prop,               \
                              const void *field)                                                   \
    {                                                                                              \
        return xasprintf("%" PRIu64, (uint64_t) * (const type *)field);                            \
    }                                                                                              \
    static void kind##_default(const struct property *prop, void *field)                           \
    {                                                                                              \
        *(type *)field = (type)prop->default_value;                                                \
    }                                                                                              \
    const struct property_kind property_##kind = {                                                 \
        .name = help_name,                                                                         \
        .json = OPTION_INTEGER,                                                                    \
        .parse = kind##_parse,                                                                     \
        .print = kind##_print,                                                                     \
        .set_default = kind##_default,                                                             \
    };

NUMBER_KIND(uint8, uint8_t, UINT8_MAX, parse_number, "uint8")
NUMBER_KIND(uint16, uint16_t, UINT16_MAX, parse_number, "uint16")
NUMBER_KIND(uint32, uint32_t, UINT32_MAX, parse_number, "uint32")
NUMBER_KIND(uint64, uint64_t, UINT64_MAX, parse_number, "uint64")
NUMBER_KIND(size32, uint32_t, UINT32_MAX, parse_bytes, "size")
NUMBER_KIND(size, uint64_t, UINT64_MAX, parse_bytes, "size")

static bool int32_parse(struct device *dev, const struct property *prop, void *field,
                        const char *text, struct error **errp)
{
    bool negative = text[0] == '-';
    uint64_t magnitude;

    if (!parse_uint(text + negative, &magnitude)) {
        property_error_expects(prop, "integer", errp);
        return false;
    }
    if (magnitude > (uint64_t)INT32_MAX + negative) {
        property_error_expects(prop, "int32_t", errp);
        return false;
    }
    *(int32_t *)field = (int32_t)(negative ? -(int64_t)magnitude : (int64_t)magnitude);
    return true;
}

static char *int32_print(const struct device *dev, const struct property *prop, const void *field)
{
    return xasprintf("%" PRId32, *(const int32_t *)field);
}

static void int32_default(const struct property *prop, void *field)
{
    *(int32_t *)field = (int32_t)prop->default_value;
}

const struct property_kind property_int32 = {
    .name = "int32",
    .json = OPTION_INTEGER,
    .parse = int32_parse,
    .print = int32_print,
    .set_default = int32_default,
};

/* ---- strings -------------------------------------------------------------------------------- */

static bool string_parse(struct device *dev, const struct property *prop, void *field,
                         const char *text, struct error **errp)
{
    char **string = field;

    free(*string);
    *string = xstrdup(text);
    return true;
}

static char *string_print(const struct device *dev, const struct property *prop, const void *field)
{
    const char *string = *(char *const *)field;

    return string ? xstrdup(string) : NULL;
}

static void string_default(const struct property *prop, void *field)
{
    *(char **)field = prop->default_text ? xstrdup(prop->default_text) : NULL;
}

static void string_release(struct device *dev, const struct property *prop, void *field)
{
    free(*(char **)field);
    *(char **)field = NULL;
}

const struct property_kind property_string = {
    .name = "str",
    .parse = string_parse,
    .print = string_print,
    .set_default = string_default,
    .release = string_release,
};

/* ---- choices -------------------------------------------------------------------------------- */

static bool parse_choice(const struct property *prop, const char *const *names, const char *text,
                         int *field, struct error **errp)
{
    autofree char *list = xstrdup("");

    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *field = i;
            return true;
        }
        char *longer = xasprintf("%s%s%s", list, i ? ", " : "", names[i]);
        free(list);
        list = longer;
    }
    error_set(errp, "Parameter '%s' does not accept value '%s'", prop->name, text);
    error_add_hint(errp, "Valid values: %s.", list);
    return false;
}

static bool enum_parse(struct device *dev, const struct property *prop, void *field,
                       const char *text, struct error **errp)
{
    return parse_choice(prop, prop->names, text, field, errp);
}

static char *enum_print(const struct device *dev, const struct property *prop, const void *field)
{
    return xstrdup(prop->names[*(const int *)field]);
}

static void enum_default(const struct property *prop, void *field)
{
    *(int *)field = (int)prop->default_value;
}

const struct property_kind property_enum = {
    .name = "str",
    .parse = enum_parse,
    .print = enum_print,
    .set_default = enum_default,
};

/* In the order of enum on_off_auto. */
static const char *const on_off_auto_names[] = {"auto", "on", "off", NULL};

static bool on_off_auto_parse(struct device *dev, const struct property *prop, void *field,
                              const char *text, struct error **errp)
{
    return parse_choice(prop, on_off_auto_names, text, field, errp);
}

static char *on_off_auto_print(const struct device *dev, const struct property *prop,
                               const void *field)
{
    return xstrdup(on_off_auto_names[*(const int *)field]);
}

const struct property_kind property_on_off_auto = {
    .name = "OnOffAuto",
    .parse = on_off_auto_parse,
    .print = on_off_auto_print,
    .set_default = enum_default,
};

/* ---- PCI addresses -------------------------------------------------------------------------- */

static bool parse_hex_digits(const char *text, size_t length, unsigned *value)
{
    if (length == 0 || length > 2 || strspn(text, "0123456789abcdefABCDEF") < length) {
        return false;
    }
    *value = (unsigned)strtoul(text, NULL, 16);
    return true;
}

static bool pci_address_parse(struct device *dev, const struct property *prop, void *field,
                              const char *text, struct error **errp)
{
    const char *number = strncmp(text, "0x", 2) == 0 ? text + 2 : text;
    size_t slot_length = strcspn(number, ".");
    const char *dot = number + slot_length;
    unsigned slot, function = 0;

    if (!parse_hex_digits(number, slot_length, &slot) || slot > 31 ||
        (*dot && (!parse_hex_digits(dot + 1, strlen(dot + 1), &function) || function > 7))) {
        property_error_value(dev, prop, text, errp);
        error_add_hint(errp, "Slot 0 to 1f and function 0 to 7, for example 06.0 or 06.");
        return false;
    }
    *(int32_t *)field = (int32_t)(slot << 3 | function);
    return true;
}

static char *pci_address_print(const struct device *dev, const struct property *prop,
                               const void *field)
{
    int32_t address = *(const int32_t *)field;

    return address < 0 ? NULL : xasprintf("%02x.%x", address >> 3, address & 7);
}

/* In JSON a number has the slot and the function in it: 9 is 01.1. */
static char *devfn_text(const char *number)
{
    uint64_t devfn;

    return parse_uint(number, &devfn) && devfn < 256
               ? xasprintf("%02x.%x", (unsigned)devfn >> 3, (unsigned)devfn & 7)
               : xstrdup(number);
}

const struct property_kind property_pci_address = {
    .name = "int32",
    .number_text = devfn_text,
    .parse = pci_address_parse,
    .print = pci_address_print,
    .set_default = int32_default,
};
