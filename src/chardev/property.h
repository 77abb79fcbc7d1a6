/* SPDX-License-Identifier: MIT */
/* The property "chardev=ID" of devices: a `struct chardev *` field. */
#ifndef FERRY_CHARDEV_PROPERTY_H
#define FERRY_CHARDEV_PROPERTY_H

#include "chardev/chardev.h"
#include "device/property.h"

extern const struct property_kind property_chardev;

#define PROPERTY_CHARDEV(n, s, f)                                                                  \
    {                                                                                              \
        .name = n, .kind = &property_chardev, .offset = offsetof(s, f),                            \
        .description = "ID of a chardev to use as a backend"                                       \
    }

#endif
