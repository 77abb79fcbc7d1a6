/* SPDX-License-Identifier: MIT */
/* Writing the header: all of it from the state, or feature bits alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/qcow2.h"

#define SECTOR 512u

/* What lies behind the first sector goes first, and only if it differs: then one write of a sector
 * switches to the new header. */
int co_qcow2_write_header(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    autofree uint8_t *cluster = xaligned_alloc(4096, align_up(s->cluster_size, 4096));
    autofree uint8_t *old = xaligned_alloc(4096, align_up(s->cluster_size, 4096));
    uint32_t rest = s->cluster_size - SECTOR;

    int ret = qcow2_encode_header(s, cluster);
    if (ret == 0 && rest) {
        ret = co_qcow2_pread(node, 0, old, s->cluster_size);
    }
    if (ret == 0 && rest && memcmp(cluster + SECTOR, old + SECTOR, rest)) {
        ret = co_qcow2_pwrite(node, SECTOR, cluster + SECTOR, rest);
        if (ret == 0) {
            ret = block_co_flush(node->file, 0);
        }
    }
    if (ret == 0) {
        ret = co_qcow2_pwrite(node, 0, cluster, SECTOR);
    }
    if (ret == 0) {
        ret = block_co_flush(node->file, 0);
    }
    if (ret == 0 && s->version >= 3) {
        s->header_length = load_be32(cluster + QCOW2_H_HEADER_LENGTH);
    }
    return ret;
}

static int co_write_feature(struct block_node *node, unsigned field, uint64_t value)
{
    uint8_t bytes[8];

    if (qcow2_of(node)->version < 3) {
        return -ENOTSUP;
    }
    store_be64(bytes, value);
    int ret = co_qcow2_pwrite(node, field, bytes, sizeof(bytes));
    return ret == 0 ? block_co_flush(node->file, 0) : ret;
}

int co_qcow2_set_incompatible(struct block_node *node, uint64_t set, uint64_t clear)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t value = (s->incompatible | set) & ~clear;

    if (value == s->incompatible) {
        return 0;
    }
    int ret = co_write_feature(node, QCOW2_H_INCOMPATIBLE, value);
    if (ret == 0) {
        s->incompatible = value;
        atomic_store(&s->dirty_bit, value & QCOW2_INCOMPAT_DIRTY);
    }
    return ret;
}

int co_qcow2_set_autoclear(struct block_node *node, uint64_t set, uint64_t clear)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t value = (s->autoclear | set) & ~clear;

    if (value == s->autoclear) {
        return 0;
    }
    int ret = co_write_feature(node, QCOW2_H_AUTOCLEAR, value);
    if (ret == 0) {
        s->autoclear = value;
    }
    return ret;
}
