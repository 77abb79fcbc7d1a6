/* SPDX-License-Identifier: MIT */
/*
 * A block driver for tests, "fault": an image in memory that counts what it is asked, takes its
 * time, and fails when told. One node at a time.
 *
 *   -blockdev driver=fault,node-name=n,size=1M,align=4096
 */
#ifndef FERRY_TESTS_BLOCK_FAULT_H
#define FERRY_TESTS_BLOCK_FAULT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "block/driver.h"

enum fault_op { FAULT_READ, FAULT_WRITE, FAULT_FLUSH, FAULT_DISCARD, FAULT_ZEROES, FAULT_OPS };

struct fault {
    /* set by the test while no request is in flight */
    uint64_t delay_ns;       /* a request takes up to twice that */
    int error[FAULT_OPS];    /* negative errno, of all requests of this kind, or 0 */
    int error_at[FAULT_OPS]; /* only of this one, counted from 1; 0: of all */
    struct block_limits limits;
    bool can_zero;              /* false: co_write_zeroes says -ENOTSUP */
    void (*on_drain_end)(void); /* or NULL */
    /* atomic */
    _Atomic(bool) hold_zeroes; /* with can_zero false: -ENOTSUP comes when this is false */
    _Atomic(unsigned) count[FAULT_OPS];
    _Atomic(unsigned) running, most_running;
    _Atomic(uint64_t) last_offset, last_length; /* of any */
    _Atomic(unsigned) last_flags;
    /* under lock */
    pthread_mutex_t lock;
    uint8_t *data;
    uint64_t size;
    uint64_t random;
};

extern struct fault fault;

/* Puts everything back to: no faults, no delay, counters 0. Registers the driver. */
void fault_reset(void);

#endif
