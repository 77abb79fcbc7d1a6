/* SPDX-License-Identifier: MIT */
/* The throttle-group object: the limits of a group of block/throttle_group.h, by -object. */
#ifndef FERRY_DEVICE_THROTTLE_OBJECT_H
#define FERRY_DEVICE_THROTTLE_OBJECT_H

#include "device/device.h"

extern const struct device_type throttle_group_type;

#endif
