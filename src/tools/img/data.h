/* SPDX-License-Identifier: MIT */
/* Bytes of images: which are zero, and coroutines that work on an image together. */
#ifndef FERRY_TOOLS_IMG_DATA_H
#define FERRY_TOOLS_IMG_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/backend.h"

bool data_is_zero(const void *data, size_t size);

/* How far the beginning of `data` is alike: returns the length of the run, and whether it is zeroes.
 * Looks at whole units (a power of 2, counted from `offset`, which is data's place in the image); zero
 * runs shorter than min_zero count as data. */
size_t data_run(const void *data, size_t size, uint64_t offset, size_t unit, size_t min_zero,
                bool *is_zero);

/* The first byte that differs, or size. */
size_t data_first_difference(const void *a, const void *b, size_t size);

/* One buffer. */
int data_co_read(struct block_backend *be, uint64_t offset, void *to, size_t size);
int data_co_write(struct block_backend *be, uint64_t offset, const void *from, size_t size,
                  unsigned flags);
/* As data_co_read(), from an image that may be shorter: zeroes follow it. */
int data_co_read_padded(struct block_backend *be, uint64_t offset, void *to, size_t size);

/* Runs co_fn(opaque) in `count` coroutines and waits for all of them. Main loop, outside
 * coroutines. */
void data_run_workers(unsigned count, void (*co_fn)(void *opaque), void *opaque);

/* A rate of bytes per second, 0: none. */
struct data_rate {
    uint64_t limit;
    int64_t started_ns;
    uint64_t sent;
};
/* Yields until `bytes` more are within the rate, or a signal came (signals_caught()). */
void data_co_wait(struct data_rate *rate, uint64_t bytes);

#endif
