/* SPDX-License-Identifier: MIT */
/*
 * A block driver for tests, "fake-disk": an image in memory that holds requests back, fails when
 * told, and remembers what it was asked.
 *
 *   -blockdev driver=fake-disk,node-name=disk[,size=1M]
 */
#ifndef FERRY_TESTS_DRIVER_FAKE_DISK_H
#define FERRY_TESTS_DRIVER_FAKE_DISK_H

#include <stdbool.h>
#include <stdint.h>

enum fake_op { FAKE_READ, FAKE_WRITE, FAKE_FLUSH, FAKE_DISCARD, FAKE_ZEROES, FAKE_OPS };

struct fake_disk {
    /* constant while requests run */
    uint8_t *data;
    uint64_t size;
    int error[FAKE_OPS]; /* negative errno, or 0 */
    /* atomic */
    _Atomic(bool) hold;     /* requests wait for fake_disk_release() */
    _Atomic(unsigned) held; /* how many wait */
    _Atomic(unsigned) count[FAKE_OPS];
    _Atomic(uint64_t) last_offset, last_length; /* of what is no flush */
    _Atomic(unsigned) last_flags;
};

extern struct fake_disk fake_disk;

/* Registers the driver; no faults, nothing held, counters 0. */
void fake_disk_reset(void);
/* Any thread. */
void fake_disk_release(void);

#endif
