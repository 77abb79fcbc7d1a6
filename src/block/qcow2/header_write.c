/* SPDX-License-Identifier: MIT */
/* Writing the header: all of it from the state, or feature bits alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/qcow2.h"

#define SECTOR 512u

/*
 * A new header is switched to by one write of the first sector. So all that the old header points to
 * behind that sector stays as it is until then: extensions are kept within the sector (the names of
 * features, which are optional, are left out first), and a backing name that does not fit there goes
 * to a place that the old header does not use:
 *
 *   | header, extensions      |      old name     |  new name   |           |
 *   0                       512    [from,     to)
 *
 * What the old one used is cleared afterwards. Two things make that impossible: extensions that do
 * not fit into a sector (a data file's name of more than some 300 bytes), and clusters without room
 * for two names. There the rest of the cluster is written first.
 */

/* Bytes behind the first sector that a header uses. */
struct tail {
    uint32_t from, to;
};

/* Where a header's extensions end. The header was valid when the image was opened. */
static uint32_t extensions_end(const uint8_t *h, uint32_t cluster_size)
{
    bool is_v2 = load_be32(h + QCOW2_H_VERSION) < 3;
    uint64_t at = is_v2 ? QCOW2_H_V2_LENGTH : load_be32(h + QCOW2_H_HEADER_LENGTH);

    while (at + 8 <= cluster_size) {
        uint32_t type = load_be32(h + at), length = load_be32(h + at + 4);
        at += 8 + align_up(length, 8);
        if (type == QCOW2_EXT_END) {
            break;
        }
    }
    return (uint32_t)MIN(at, cluster_size);
}

static struct tail tail_of(const uint8_t *h, uint32_t cluster_size)
{
    uint64_t name = load_be64(h + QCOW2_H_BACKING_OFFSET);
    uint64_t name_end = name ? MIN(name + load_be32(h + QCOW2_H_BACKING_SIZE), cluster_size) : 0;
    uint32_t end = name ? MIN((uint32_t)MIN(name, cluster_size), extensions_end(h, cluster_size))
                        : extensions_end(h, cluster_size);

    if (end > SECTOR) {
        return (struct tail){SECTOR, MAX(end, (uint32_t)name_end)};
    }
    return name_end > SECTOR ? (struct tail){MAX((uint32_t)name, SECTOR), (uint32_t)name_end}
                             : (struct tail){SECTOR, SECTOR};
}

/* Puts the backing name where the old header has nothing; false if there is no such place. */
static bool place_name(const struct qcow2_state *s, const uint8_t *old, uint8_t *cluster,
                       uint32_t end)
{
    struct tail tail = tail_of(old, s->cluster_size);
    uint32_t length = s->backing_name ? (uint32_t)strlen(s->backing_name) : 0;
    uint64_t name = load_be64(old + QCOW2_H_BACKING_OFFSET);

    if (end > SECTOR) {
        return false;
    }
    if (!length) {
        return true;
    }
    if (end + length <= SECTOR) {
        return qcow2_encode_backing_name(s, cluster, end) == 0;
    }
    if (name >= SECTOR && load_be32(old + QCOW2_H_BACKING_SIZE) == length &&
        range_fits(name, length, s->cluster_size) && !memcmp(old + name, s->backing_name, length)) {
        return qcow2_encode_backing_name(s, cluster, (uint32_t)name) == 0; /* it is there */
    }
    if (SECTOR + length <= tail.from || tail.from == tail.to) {
        return qcow2_encode_backing_name(s, cluster, SECTOR) == 0;
    }
    return qcow2_encode_backing_name(s, cluster, (uint32_t)align_up(tail.to, 8)) == 0;
}

/* What of the new header lies behind its first sector, where the old one has nothing or the same. */
static int co_write_name(struct block_node *node, const uint8_t *cluster)
{
    struct tail tail = tail_of(cluster, qcow2_of(node)->cluster_size);

    if (tail.from == tail.to) {
        return 0;
    }
    int ret = co_qcow2_pwrite(node, tail.from, cluster + tail.from, tail.to - tail.from);
    return ret == 0 ? block_co_flush(node->file, 0) : ret;
}

static int co_write_rest(struct block_node *node, const uint8_t *old, const uint8_t *cluster)
{
    uint32_t rest = qcow2_of(node)->cluster_size - SECTOR;

    return rest && memcmp(cluster + SECTOR, old + SECTOR, rest)
               ? co_qcow2_pwrite(node, SECTOR, cluster + SECTOR, rest)
               : 0;
}

static int co_switch_header(struct block_node *node, const uint8_t *cluster)
{
    int ret = co_qcow2_pwrite(node, 0, cluster, SECTOR);

    return ret == 0 ? block_co_flush(node->file, 0) : ret;
}

int co_qcow2_write_header(struct block_node *node, bool *unsure)
{
    struct qcow2_state *s = qcow2_of(node);
    autofree uint8_t *cluster = xaligned_alloc(4096, align_up(s->cluster_size, 4096));
    autofree uint8_t *old = xaligned_alloc(4096, align_up(s->cluster_size, 4096));
    uint32_t end = 0;
    bool dummy = false;

    unsure = unsure ? unsure : &dummy;
    *unsure = false;
    int ret = co_qcow2_pread(node, 0, old, s->cluster_size);
    if (ret == 0) {
        ret = qcow2_encode_header_fields(s, cluster, &end);
    }
    if (ret < 0) {
        return ret;
    }
    if (place_name(s, old, cluster, end)) {
        ret = co_write_name(node, cluster);
        if (ret == 0) {
            *unsure = true;
            ret = co_switch_header(node, cluster);
        }
        if (ret == 0) {
            co_write_rest(node, old, cluster); /* only clears what nothing points to any more */
        }
    } else {
        ret = qcow2_encode_header(s, cluster);
        if (ret == 0) {
            *unsure = true;
            ret = co_write_rest(node, old, cluster);
        }
        if (ret == 0) {
            ret = block_co_flush(node->file, 0);
        }
        if (ret == 0) {
            ret = co_switch_header(node, cluster);
        }
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
    if (ret < 0 && clear & QCOW2_INCOMPAT_DIRTY) {
        value = s->incompatible & ~QCOW2_INCOMPAT_DIRTY; /* perhaps: then it is to be set again */
    }
    if (ret == 0 || clear & QCOW2_INCOMPAT_DIRTY) {
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
