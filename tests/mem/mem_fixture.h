/* SPDX-License-Identifier: MIT */
/* What the tests of mem/ share: cmocka's preamble, set-up, and random numbers that repeat. */
#ifndef FERRY_TESTS_MEM_FIXTURE_H
#define FERRY_TESTS_MEM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

static inline int mem_setup(void **state)
{
    mem_init();
    return 0;
}

static inline int mem_teardown(void **state)
{
    mem_cleanup();
    return 0;
}

/* xorshift64*; the same numbers each run. */
static inline uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

static inline unsigned random_below(uint64_t *seed, unsigned n)
{
    return (unsigned)((random_next(seed) >> 32) % n);
}

#endif
