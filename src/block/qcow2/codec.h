/* SPDX-License-Identifier: MIT */
/*
 * Clusters deflated and inflated in memory: "zlib" (raw deflate, RFC 1951) and zstd (RFC 8878).
 *
 * Contexts are made once per thread and go with it. All functions block for as long as the work
 * takes; any thread.
 */
#ifndef FERRY_BLOCK_QCOW2_CODEC_H
#define FERRY_BLOCK_QCOW2_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "block/qcow2/format.h"

/* Bytes written to `to`; 0 if they would be more than `room`, or there is no memory. */
size_t qcow2_deflate(enum qcow2_compression how, const void *from, size_t size, void *to,
                     size_t room);
/* Exactly `size` bytes come out of a beginning of [from, from + length), or it is false. */
bool qcow2_inflate(enum qcow2_compression how, const void *from, size_t length, void *to,
                   size_t size);

#endif
