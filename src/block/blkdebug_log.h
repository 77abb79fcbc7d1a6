/* SPDX-License-Identifier: MIT */
/*
 * The write log of a blkdebug node (write-log=FILE): all that changes its child, for tests that
 * crash at any instant.
 *
 * The file is a header and records, little-endian, appended in the order of time:
 *
 *   header, 32 bytes              record, 40 bytes, then data
 *    0  magic "ferrylog"           0  u32 type   enum blkdebug_log_type
 *    8  u32 version, 1             4  u32 flags  BLOCK_REQ_FUA, BLOCK_REQ_MAY_UNMAP
 *   12  u32 size of the header     8  u64 number of the request
 *   16  u64 length of the child   16  u64 offset, bytes
 *   24  u64 0                     24  u64 length, bytes (TRUNCATE: the new one)
 *                                 32  i32 result (DONE), 36 u32 0
 *                                 40  WRITE: `length` bytes, and zeroes up to a multiple of 8
 *
 * A request has a record when it goes to the child and a record DONE when the child has answered. A
 * crash is a place in the log: who cut it there knows that
 *
 *   - what was written and then covered by a flush that began after its DONE and is DONE itself, or
 *     was written with FUA and is DONE, is on the disk;
 *   - of all else that has begun, any part may be on the disk, in any order, and of two that
 *     overlap either may be what is seen;
 *   - what begins later is not.
 *
 * blkdebug_log_load() works that out: places are numbers of records.
 */
#ifndef FERRY_BLOCK_BLKDEBUG_LOG_H
#define FERRY_BLOCK_BLKDEBUG_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "block/driver.h"

enum blkdebug_log_type {
    BLKDEBUG_LOG_WRITE = 1,
    BLKDEBUG_LOG_ZEROES,
    BLKDEBUG_LOG_DISCARD,
    BLKDEBUG_LOG_FLUSH,
    BLKDEBUG_LOG_TRUNCATE,
    BLKDEBUG_LOG_DONE
};

/* ---- reading ---------------------------------------------------------------------------------- */

#define BLKDEBUG_LOG_NEVER SIZE_MAX

struct blkdebug_log_entry {
    enum blkdebug_log_type type; /* not DONE */
    unsigned flags;
    int result; /* 0, negative errno; of one that is not done: 0 */
    uint64_t offset, length;
    const void *data; /* of WRITE; belongs to the log */
    /* Places: a log cut at place n has the records 0 … n - 1. The entry has begun if begin < n, is
     * done if done < n, and is on the disk for sure if durable < n. */
    size_t begin, done, durable;
};

struct blkdebug_log {
    uint64_t length; /* of the child, when the log began; bytes */
    size_t places;   /* number of records */
    size_t count;
    struct blkdebug_log_entry *entries; /* in the order of begin */
    void *map;
    size_t map_size;
};

/* Reads a log; a record that was cut off at the end is left out. Free it by blkdebug_log_free(). */
struct blkdebug_log *blkdebug_log_load(const char *filename, struct error **errp);
void blkdebug_log_free(struct blkdebug_log *log);
/* Does to a file what the entry says (FLUSH: nothing; DISCARD: the bytes become zeroes). 0 or
 * negative errno. */
int blkdebug_log_apply(const struct blkdebug_log_entry *entry, int fd);

/* ---- writing: for blkdebug.c ------------------------------------------------------------------ */

struct blkdebug_log_file;
struct blkdebug_log_file *blkdebug_log_create(const char *filename, uint64_t length,
                                              struct error **errp);
void blkdebug_log_close(struct blkdebug_log_file *file);
/* Appends; *number becomes what blkdebug_log_done() wants. 0 or negative errno. Any thread. */
int blkdebug_log_begin(struct blkdebug_log_file *file, enum blkdebug_log_type type, uint64_t offset,
                       uint64_t length, unsigned flags, const void *data, uint64_t *number);
int blkdebug_log_done(struct blkdebug_log_file *file, uint64_t number, int result);

#endif
