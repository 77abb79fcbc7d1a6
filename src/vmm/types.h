/* SPDX-License-Identifier: MIT */
/* Every device and object type of ferry, in one array. */
#ifndef FERRY_VMM_TYPES_H
#define FERRY_VMM_TYPES_H

#include "device/device.h"

extern const struct device_type *const ferry_types[]; /* NULL-terminated */

#endif
