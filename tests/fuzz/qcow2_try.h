/* SPDX-License-Identifier: MIT */
/*
 * Everything that can be done with a qcow2 image, done to one that may be anything.
 *
 * Bytes in memory are the file, in a protocol driver of its own, which checks that what only reads
 * writes nothing. Aborts if something is not as it must be; finds crashes under the sanitizers.
 *
 * Main loop, which the caller has bound to the thread.
 */
#ifndef FERRY_TESTS_FUZZ_QCOW2_TRY_H
#define FERRY_TESTS_FUZZ_QCOW2_TRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* is_long: behind the bytes comes a hole of 256 MiB. */
void qcow2_try(const uint8_t *bytes, size_t size, bool is_long);

#endif
