/* SPDX-License-Identifier: MIT */
/* Random numbers and edge values of every kind of register. */
#ifndef FERRY_TESTS_SOFT_VALUES_H
#define FERRY_TESTS_SOFT_VALUES_H

#include <stdint.h>

#include "machine_state.h"

struct random {
    uint64_t s;
};

static inline uint64_t random_next(struct random *r) /* splitmix64 */
{
    uint64_t z = (r->s += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 to n - 1 */
static inline unsigned random_below(struct random *r, unsigned n)
{
    return (unsigned)((random_next(r) >> 32) * n >> 32);
}

uint64_t value_integer(struct random *r);
/* Bytes of vector registers and memory: lanes of one kind of number. */
void value_vector(struct random *r, uint8_t *to, unsigned size);
void value_x87(struct random *r, uint8_t to[10]);
uint16_t value_selector(struct random *r);
/* x87, SSE and AVX registers and their control words. */
void value_area(struct random *r, uint8_t area[AREA_SIZE]);

#endif
