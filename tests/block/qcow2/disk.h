/* SPDX-License-Identifier: MIT */
/*
 * A disk in memory that fails and crashes on demand: protocol driver "disk".
 *
 *   file "seed" --disk_load()--> memory <-- requests of the image under test, each noted with the
 *                                           time of its beginning and end
 *
 *   disk_crash(when): what may be on the disk if power failed then: all that was flushed, and of the
 *                     rest, sector by sector, anything
 *
 *   disk_prefix(n):   the disk if the first n changes, in the order in which requests saw them, had
 *                     reached it and nothing else
 *
 * There is one disk at a time, or two: the second, "driver=disk,disk=1", is for an image's data file.
 * Their requests are in one log; each disk's flush covers what that disk was given. Time is a counter
 * that moves with every event.
 */
#ifndef FERRY_TESTS_BLOCK_QCOW2_DISK_H
#define FERRY_TESTS_BLOCK_QCOW2_DISK_H

#include "block/node.h"

enum disk_op {
    DISK_WRITE,
    DISK_ZEROES,
    DISK_DISCARD,
    DISK_FLUSH,
    DISK_READ,
    DISK_TRUNCATE,
    DISK_OPS
};

/* Makes the driver known; the disk has what the file has. limit: bytes that it can grow to. */
void disk_load(const char *seed, uint64_t limit);
/* Follows disk_load(). What crashes leave of the second disk goes to the file that it came from. */
void disk_load_second(const char *seed);
void disk_unload(void);
/* Into a file: what the disk has now, or may have after a crash. */
void disk_save(const char *name);
void disk_crash(const char *name, uint64_t when, uint64_t random);
/* Changes in the log: all but flushes. */
size_t disk_changes(void);
/* Writes with FUA in the log that did not fail. */
unsigned disk_fua_writes(void);
/* Into a file: what the disk had at the log's beginning, and the first `count` changes. The last time
 * at which it had just that. Calls with a greater count add to what the last one left in the file,
 * which nobody else may change. */
uint64_t disk_prefix(const char *name, size_t count);
/* The time now; every call is later than the one before. Any thread. */
uint64_t disk_time(void);

/* From now on, the `first`-th request of the kind and those that follow, `count` of them, fail with
 * the errno; of a write, sectors may be written all the same. count 0: none. */
void disk_fail(enum disk_op op, unsigned first, unsigned count, int error);
/* The next reopen is refused. */
void disk_refuse_reopen(void);
/* Requests of the kind since disk_fail() was last called for it. */
unsigned disk_count(enum disk_op op);
/* Each request takes up to so long. */
void disk_set_delay(uint64_t ns);
/* Whether requests are noted (for disk_crash()). */
void disk_set_log(bool on);

#endif
