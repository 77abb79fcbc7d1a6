/* SPDX-License-Identifier: MIT */
/* The drivers there are, for the table in drivers.c. */
#ifndef FERRY_BLOCK_DRIVERS_H
#define FERRY_BLOCK_DRIVERS_H

#include "block/driver.h"

/* raw_image.c; raw_check_prealloc(): a raw image has no metadata that could be there in advance. */
extern const struct block_image_ops raw_image_ops;
bool raw_check_prealloc(enum block_prealloc prealloc, struct error **errp);
extern const struct block_driver block_driver_raw;
extern const struct block_driver block_driver_file;
extern const struct block_driver block_driver_host_device;
extern const struct block_driver block_driver_null_co;
extern const struct block_driver block_driver_null_aio;
extern const struct block_driver block_driver_blkdebug;
extern const struct block_driver block_driver_qcow2;
extern const struct block_driver block_driver_throttle;
extern const struct block_driver block_driver_copy_on_read;
extern const struct block_driver block_driver_nbd;

#endif
