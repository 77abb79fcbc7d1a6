/* SPDX-License-Identifier: MIT */
/*
 * The boot order: devices with bootindex=N, N >= 0, the smallest first. Each N is given once.
 * Nothing tells a firmware of it yet (fw_cfg "bootorder"); direct kernel boot (-kernel) does not
 * look at it.
 *
 * A device that may be booted from adds itself in realize and removes itself in unrealize. Main
 * thread, machine lock held.
 */
#ifndef FERRY_DEVICE_BOOT_ORDER_H
#define FERRY_DEVICE_BOOT_ORDER_H

#include "device/device.h"

struct boot_device {
    int32_t index;
    struct device *dev;
    struct boot_device *next; /* in order */
};

/* A negative index is no place in the order: nothing is added. An error if another device has the
 * index. */
bool boot_order_add(struct device *dev, int32_t index, struct error **errp);
void boot_order_remove(const struct device *dev); /* also one that is not in it */
const struct boot_device *boot_order_first(void); /* or NULL; the rest by ->next */

#endif
