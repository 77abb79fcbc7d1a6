/* SPDX-License-Identifier: MIT */
/* Lists of buffers: copying, cutting pieces out. All functions trust offset + length <= size. */
#ifndef FERRY_BLOCK_IOV_H
#define FERRY_BLOCK_IOV_H

#include <stddef.h>
#include <stdint.h>

#include "block/driver.h"

#define BLOCK_SHORT 65536 /* bytes that may be worked on without co_share() */

/* `iov` becomes the list of one buffer. */
static inline struct block_iov block_iov_of(struct iovec *iov, void *buffer, size_t size)
{
    *iov = (struct iovec){.iov_base = buffer, .iov_len = size};
    return (struct block_iov){.iov = iov, .niov = 1, .size = size};
}

void block_iov_read(const struct block_iov *iov, uint64_t offset, void *to, size_t length);
void block_iov_write(const struct block_iov *iov, uint64_t offset, const void *from, size_t length);
void block_iov_zero(const struct block_iov *iov, uint64_t offset, uint64_t length);
/* The same in a coroutine, for what may be long: in turns with the loop's other work. */
void co_block_iov_zero(const struct block_iov *iov, uint64_t offset, uint64_t length);

/* Fills `out` with at most max_iov buffers that cover a beginning of [offset, offset + length);
 * returns how many bytes they cover. */
uint64_t block_iov_slice(const struct block_iov *iov, uint64_t offset, uint64_t length,
                         struct iovec *out, int max_iov, int *niov);

#endif
