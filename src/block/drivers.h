/* SPDX-License-Identifier: MIT */
/* The drivers there are, for the table in drivers.c. */
#ifndef FERRY_BLOCK_DRIVERS_H
#define FERRY_BLOCK_DRIVERS_H

#include "block/driver.h"

extern const struct block_image_ops raw_image_ops; /* raw_image.c */
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
