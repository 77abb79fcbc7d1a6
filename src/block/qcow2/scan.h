/* SPDX-License-Identifier: MIT */
/*
 * All references of an image, counted: what check reports and what rebuild.c makes new refcounts of.
 *
 *   roots (the active L1 table, those of snapshots) --> L2 tables --> data clusters
 *   bitmap directory --> bitmap tables --> bitmap data
 *
 * A table that many refer to is read once: whatever it refers to counts as often as it is referred
 * to itself. So neither snapshots that share tables, nor hostile tables that all point to one, cost
 * more time than the tables have bytes; and a table in a hole of the file is not read.
 *
 * In one coroutine of the main loop, the image drained and clean.
 */
#ifndef FERRY_BLOCK_QCOW2_SCAN_H
#define FERRY_BLOCK_QCOW2_SCAN_H

#include "block/image.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/refmap.h"

/* An L1 table. */
struct scan_root {
    uint64_t l1_offset; /* of the file, cluster aligned */
    uint32_t l1_size;   /* entries; at most QCOW2_MAX_L1_BYTES */
    uint64_t refs;      /* that shall exist: the active image, snapshots; may be 0 */
    bool is_active;     /* the active image's, as it shall be */
    bool is_old;        /* the image as it is refers to it */
    uint64_t moved_to;  /* rebuild.c */
};

/* An L2 table. */
struct scan_table {
    uint64_t offset;      /* of the file, cluster aligned, within the file; 0: empty slot */
    uint64_t refs;        /* entries that shall refer to it, as often as their tables are */
    uint32_t active_refs; /* those of the active L1 table */
    bool is_old;          /* the image as it is refers to it */
    bool is_done;
    uint64_t moved_to; /* rebuild.c */
};

typedef void scan_say_fn(void *opaque, const char *line);

struct qcow2_scan {
    /* constant after scan_init() */
    struct block_node *node;
    struct qcow2_state *s;
    uint64_t file_length;   /* bytes */
    uint64_t file_clusters; /* the last may be cut short */
    /* set before it begins */
    bool fix;           /* entries count as they are when entry_fix() is done with them */
    bool tables_move;   /* L1 and L2 tables are pinned, not counted: rebuild.c will place them */
    uint64_t count_end; /* references to clusters from here on are errors and not counted */
    /* what was found */
    struct refmap refs;
    struct scan_table *tables; /* open addressing by offset: table_slots, a power of 2 */
    size_t table_slots, table_count;
    struct qcow2_hash table_hash;
    struct block_check_result *result;
    uint64_t mended;    /* errors that a repair will not leave */
    uint64_t overflows; /* counts that refcount_bits cannot hold */
    /* Bitmaps have errors and stay: clusters that nothing refers to may be theirs. */
    bool bitmap_errors;
    scan_say_fn *say; /* or NULL */
    void *opaque;
    /* within a scan */
    uint64_t next_contiguous; /* where a table's next cluster would be no fragment; 0: any */
};

/* max: highest refcount; result: all 0, counts what is wrong. */
void scan_init(struct qcow2_scan *scan, struct block_node *node, uint64_t max,
               struct block_check_result *result, scan_say_fn *say, void *opaque);
void scan_destroy(struct qcow2_scan *scan);

/* A line of the report. */
void scan_say(struct qcow2_scan *scan, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* An error, counted `times`; the line begins with "ERROR", or "Repairing" if it will be mended. */
void scan_error(struct qcow2_scan *scan, bool is_mended, uint64_t times, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Counts references to bytes of the file, `times` each. False: they lie behind the file's end by a
 * cluster or more, which is an error (told and counted). size at most 2^40. */
bool scan_count(struct qcow2_scan *scan, uint64_t offset, uint64_t size, uint64_t times);
void scan_pin(struct qcow2_scan *scan, uint64_t offset, uint64_t size);

/* The table at offset, or NULL. */
struct scan_table *scan_find_table(struct qcow2_scan *scan, uint64_t offset);

/* Reads the L1 tables and all that they refer to; image-wide statistics are those of the active
 * one. 0, or negative errno: not all could be read. */
int co_scan_roots(struct qcow2_scan *scan, const struct scan_root *roots, size_t count);
/* The bitmap directory and what it refers to. */
int co_scan_bitmaps(struct qcow2_scan *scan);

#endif
