/* SPDX-License-Identifier: MIT */
/* Lists of types and properties, in QEMU's form. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "device/internal.h"

static const char *const category_titles[DEVICE_CATEGORY_COUNT] = {
    [DEVICE_CATEGORY_BRIDGE] = "Controller/Bridge/Hub",
    [DEVICE_CATEGORY_USB] = "USB",
    [DEVICE_CATEGORY_STORAGE] = "Storage",
    [DEVICE_CATEGORY_NETWORK] = "Network",
    [DEVICE_CATEGORY_INPUT] = "Input",
    [DEVICE_CATEGORY_DISPLAY] = "Display",
    [DEVICE_CATEGORY_SOUND] = "Sound",
    [DEVICE_CATEGORY_MISC] = "Misc",
    [DEVICE_CATEGORY_CPU] = "CPU",
};

/* ---- types ---------------------------------------------------------------------------------- */

static int compare_types(const void *a, const void *b)
{
    const struct device_type *x = *(const struct device_type *const *)a;
    const struct device_type *y = *(const struct device_type *const *)b;

    return strcasecmp(x->name, y->name);
}

/* What a user can make, sorted by name; to be freed. */
static const struct device_type **user_types(bool objects, size_t *count)
{
    const struct device_type **list = NULL;
    size_t n = 0;

    for (const struct device_type *const *t = device_types(); *t; t++) {
        if ((*t)->abstract || (*t)->internal || (*t)->is_object != objects) {
            continue;
        }
        list = xreallocarray(list, n + 1, sizeof(list[0]));
        list[n++] = *t;
    }
    if (n) {
        qsort(list, n, sizeof(list[0]), compare_types);
    }
    *count = n;
    return list;
}

static void print_type(const struct device_type *type, FILE *to)
{
    const char *bus = device_type_bus(type);

    fprintf(to, "name \"%s\"", type->name);
    if (bus) {
        fprintf(to, ", bus %s", bus);
    }
    if (type->alias) {
        fprintf(to, ", alias \"%s\"", type->alias);
    }
    if (type->description) {
        fprintf(to, ", desc \"%s\"", type->description);
    }
    fputc('\n', to);
}

void device_print_types(FILE *to)
{
    size_t count;
    autofree const struct device_type **types = user_types(false, &count);
    bool first_section = true;

    for (int category = 0; category < DEVICE_CATEGORY_COUNT; category++) {
        bool titled = false;
        for (size_t i = 0; i < count; i++) {
            if ((int)types[i]->category != category) {
                continue;
            }
            if (!titled) {
                fprintf(to, "%s%s devices:\n", first_section ? "" : "\n",
                        category_titles[category]);
                titled = true;
                first_section = false;
            }
            print_type(types[i], to);
        }
    }
}

void object_print_types(FILE *to)
{
    size_t count;
    autofree const struct device_type **types = user_types(true, &count);

    fprintf(to, "List of user creatable objects:\n");
    for (size_t i = 0; i < count; i++) {
        fprintf(to, "  %s\n", types[i]->name);
    }
}

/* ---- properties ----------------------------------------------------------------------------- */

struct lines {
    char **list;
    size_t count;
};

/* The choices of an enum as "a/b/c", to be freed; NULL for other kinds. */
static char *choices_text(const struct property *prop)
{
    char *text = NULL;

    for (const char *const *n = prop->names; n && *n; n++) {
        char *longer = text ? xasprintf("%s/%s", text, *n) : xstrdup(*n);
        free(text);
        text = longer;
    }
    return text;
}

static char *description_text(const struct property *prop)
{
    autofree char *choices = choices_text(prop);
    const char *text = prop->description ? prop->description : "";

    if (!*text && prop->kind == &property_on_off_auto) {
        text = "on/off/auto";
    }
    if (!choices) {
        return xstrdup(text);
    }
    return *text ? xasprintf("%s, %s", text, choices) : xstrdup(choices);
}

/* The default as text, to be freed; NULL if there is none. */
static char *default_text(const struct property *prop)
{
    const struct property_kind *kind = prop->kind;

    if (kind == &property_bool || kind == &property_bit32 || kind == &property_bit64) {
        return xstrdup(prop->default_value ? "true" : "false");
    }
    if (kind == &property_enum) {
        return xasprintf("\"%s\"", prop->names[prop->default_value]);
    }
    if (kind == &property_on_off_auto) {
        int value = (int)prop->default_value;
        autofree char *name = kind->print(NULL, prop, &value);
        return xasprintf("\"%s\"", name);
    }
    if (kind == &property_int32 || kind == &property_pci_address) {
        return xasprintf("%" PRId32, (int32_t)prop->default_value);
    }
    if (kind == &property_uint8 || kind == &property_uint16 || kind == &property_uint32 ||
        kind == &property_uint64 || kind == &property_size32 || kind == &property_size) {
        return xasprintf("%" PRIu64, prop->default_value);
    }
    return prop->default_text ? xasprintf("\"%s\"", prop->default_text) : NULL;
}

static void add_line(const struct property *prop, void *opaque)
{
    struct lines *lines = opaque;
    autofree char *name = xasprintf("  %s=<%s>", prop->name, prop->kind->name);
    autofree char *description = description_text(prop);
    autofree char *value = default_text(prop);
    char *line;

    if (value) {
        line = xasprintf("%-24s - %s (default: %s)", name, description, value);
    } else if (*description) {
        line = xasprintf("%-24s - %s", name, description);
    } else {
        line = xstrdup(name);
    }
    lines->list = xreallocarray(lines->list, lines->count + 1, sizeof(lines->list[0]));
    lines->list[lines->count++] = line;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool device_print_properties(const char *name, FILE *to, struct error **errp)
{
    const struct device_type *type = device_type_find(name);
    struct lines lines = {NULL, 0};

    if (!type) {
        error_set_class(errp, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", name);
        device_type_hint(name, false, errp);
        return false;
    }
    if (type->abstract) {
        error_set(errp, "Parameter 'typename' expects a non-abstract device type");
        return false;
    }
    device_type_each_property(type, add_line, &lines);
    if (lines.count == 0) {
        fprintf(to, "There are no options for %s.\n", type->name);
        return true;
    }
    qsort(lines.list, lines.count, sizeof(lines.list[0]), compare_lines);
    fprintf(to, "%s options:\n", type->name);
    for (size_t i = 0; i < lines.count; i++) {
        fprintf(to, "%s\n", lines.list[i]);
        free(lines.list[i]);
    }
    free(lines.list);
    return true;
}
