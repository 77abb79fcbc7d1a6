/* SPDX-License-Identifier: MIT */
#include "device/boot_order.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"

static struct boot_device *first; /* machine state */

bool boot_order_add(struct device *dev, int32_t index, struct error **errp)
{
    struct boot_device **at = &first, *entry;

    if (index < 0) {
        return true;
    }
    while (*at && (*at)->index < index) {
        at = &(*at)->next;
    }
    if (*at && (*at)->index == index) {
        const struct device *other = (*at)->dev;
        error_set(errp, "The bootindex %" PRId32 " has already been used", index);
        error_add_hint(errp, "By %s%s%s.", other->type->name, other->id ? ",id=" : "",
                       other->id ? other->id : "");
        return false;
    }
    entry = xnew(struct boot_device);
    *entry = (struct boot_device){.index = index, .dev = dev, .next = *at};
    *at = entry;
    return true;
}

void boot_order_remove(const struct device *dev)
{
    struct boot_device **at = &first;

    while (*at && (*at)->dev != dev) {
        at = &(*at)->next;
    }
    if (*at) {
        struct boot_device *entry = *at;
        *at = entry->next;
        free(entry);
    }
}

const struct boot_device *boot_order_first(void)
{
    return first;
}
