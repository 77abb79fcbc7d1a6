/* SPDX-License-Identifier: MIT */
/* Zeroes among data: for detect-zeroes=, and for tools that leave them out. */
#ifndef FERRY_BLOCK_ZEROES_H
#define FERRY_BLOCK_ZEROES_H

#include "block/driver.h"

/* Looks at a few places first, so data that is not zero costs little. */
bool block_bytes_are_zero(const void *data, size_t size);
/* In turns with the loop's other work. */
bool co_block_iov_is_zero(const struct block_iov *iov);

#endif
