/* SPDX-License-Identifier: MIT */
/* What the tests of the qcow2 driver share. */
#ifndef FERRY_TESTS_BLOCK_QCOW2_QKIT_H
#define FERRY_TESTS_BLOCK_QCOW2_QKIT_H

#include "block/node.h"
#include "kit.h"

/* Runs a command of the shell; fails the test if that fails. Its output goes to the file "out", and is
 * shown then. Not from coroutines. */
void qkit_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* As qkit_run(), but only says whether it succeeded. */
bool qkit_try(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Neither qemu-img check nor ferry's has anything to say about the image. */
void qkit_check_clean(const char *image);
/* qemu-img check has nothing to say, or at most leaks. False: there are errors; the text is in "out". */
bool qkit_has_no_errors(const char *image);
void qkit_check_no_errors(const char *image); /* the same; fails the test */

void qkit_write_file(const char *name, const void *data, size_t size);
/* Changes bytes of a file. */
void qkit_poke(const char *name, uint64_t offset, const void *data, size_t size);
/* Bytes that get a bit more than half as long when they are compressed. */
void qkit_fill_half(uint8_t *data, uint64_t size, uint64_t seed);

/* Random requests from two loops beside `expected`, of the backend's whole length. */
struct qkit_load {
    struct block_backend *be;
    uint8_t *expected;
    uint64_t size;
    uint32_t cluster_size; /* what discards are aligned to */
    bool discards;         /* they make zeroes */
    bool compressed;       /* some writes of whole clusters are */
    unsigned workers;      /* in each loop */
    unsigned requests;     /* of each worker */
    uint64_t max_length;   /* bytes of a request */
    uint64_t seed;
    bool may_fail; /* requests; what they wrote is then unknown and read back */
    /* afterwards: writes and discards that failed, compressed writes */
    _Atomic(unsigned) failed_count, compressed_count;
};
void qkit_run_load(struct qkit_load *load);

/* The length of tests: 1, or more with --long (FERRY_TEST_LONG=1 in the environment). */
unsigned qkit_scale(void);

#endif
