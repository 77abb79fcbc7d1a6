/* SPDX-License-Identifier: MIT */
/* Arithmetic on offsets and lengths that came from somebody else: nothing here overflows. */
#ifndef FERRY_BASE_RANGE_H
#define FERRY_BASE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define BIT(n)                          (UINT32_C(1) << (n))
#define BIT64(n)                        (UINT64_C(1) << (n))

/* True if [offset, offset + length) lies within [0, size). A length of 0 fits at size. */
static inline bool range_fits(uint64_t offset, uint64_t length, uint64_t size)
{
    return length <= size && offset <= size - length;
}

/* True if the ranges share a byte. Neither may wrap. */
static inline bool range_overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a_length && b_length && (a < b ? b - a < a_length : a - b < b_length);
}

static inline bool is_power_of_2(uint64_t v)
{
    return v && !(v & (v - 1));
}

/* alignment is a power of 2. align_up() of a value within alignment of 2^64 gives 0. */
static inline uint64_t align_down(uint64_t v, uint64_t alignment)
{
    return v & ~(alignment - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t alignment)
{
    return align_down(v + alignment - 1, alignment);
}

#endif
