/* SPDX-License-Identifier: MIT */
/*
 * The snapshot table: from bytes to struct qcow2_snapshot and back ("Snapshots" in the
 * specification). Lists belong to the caller; snapshot_list_free() frees one.
 */
#ifndef FERRY_BLOCK_QCOW2_SNAPSHOT_TABLE_H
#define FERRY_BLOCK_QCOW2_SNAPSHOT_TABLE_H

#include "block/qcow2/qcow2.h"

enum snapshot_fault {
    SNAPSHOT_INCOMPLETE,    /* version 3, and no disk size: taken for the image's */
    SNAPSHOT_EXTRA_TOO_BIG, /* value: bytes; what is more than allowed is dropped */
    SNAPSHOT_TABLE_TOO_BIG, /* from this entry on they are dropped; value: how many */
};
/* Told of faults, it decides: true goes on as the enum says. */
typedef bool snapshot_fault_fn(void *opaque, enum snapshot_fault fault, uint32_t index,
                               uint64_t value);

struct snapshot_list {
    struct qcow2_snapshot *items;
    uint32_t count;
    uint64_t bytes; /* of the table */
};

/* Reads `count` entries at offset. fault NULL: incomplete entries pass, others are errors. In a
 * coroutine; 0 or negative errno and *errp. */
int co_snapshot_table_read(struct block_node *node, uint64_t offset, uint32_t count,
                           snapshot_fault_fn *fault, void *opaque, struct snapshot_list *list,
                           struct error **errp);
/* The bytes of a table; the caller frees them. NULL: more than QCOW2_MAX_SNAPSHOT_BYTES. */
uint8_t *snapshot_table_encode(const struct qcow2_snapshot *items, uint32_t count, size_t *size);

void qcow2_snapshot_copy(struct qcow2_snapshot *to, const struct qcow2_snapshot *from);
void qcow2_snapshot_clear(struct qcow2_snapshot *snapshot); /* what it points to */
void snapshot_list_free(struct qcow2_snapshot *items, uint32_t count);

#endif
