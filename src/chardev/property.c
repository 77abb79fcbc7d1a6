/* SPDX-License-Identifier: MIT */
/* The kind of property that names a character device. */
#include "chardev/property.h"

#include "base/alloc.h"

static bool parse(struct device *dev, const struct property *prop, void *field, const char *text,
                  struct error **errp)
{
    struct chardev *chr = chardev_find(text);
    if (!chr) {
        error_set(errp, "Property '%s' can't find value '%s'", prop->name, text);
        error_add_hint(errp, "Define it with -chardev BACKEND,id=%s.", text);
        return false;
    }
    *(struct chardev **)field = chr;
    return true;
}

static char *print(const struct device *dev, const struct property *prop, const void *field)
{
    const struct chardev *chr = *(struct chardev *const *)field;
    return chr ? xstrdup(chardev_id(chr)) : NULL;
}

const struct property_kind property_chardev = {
    .name = "str",
    .parse = parse,
    .print = print,
};
