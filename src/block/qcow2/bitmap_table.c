/* SPDX-License-Identifier: MIT */
/* Tables of bitmaps, and their data. See bitmap.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/bitmap.h"
#include "block/qcow2/bitmap.h"

#define CHUNK 8192u /* table entries in a buffer */

static uint64_t bitmap_bytes(uint64_t length, unsigned granularity_bits)
{
    uint64_t granularity = BIT64(granularity_bits);
    uint64_t bits = (length >> granularity_bits) + ((length & (granularity - 1)) != 0);

    return bits / 8 + (bits % 8 != 0);
}

uint64_t qcow2_bitmap_table_size(const struct qcow2_state *s, uint64_t length,
                                 unsigned granularity_bits)
{
    uint64_t bytes = bitmap_bytes(length, granularity_bits);

    return MAX(qcow2_align_cluster(s, bytes) >> s->cluster_bits, 1);
}

static bool entry_is_possible(const struct qcow2_state *s, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    return !(entry & QCOW2_BITMAP_TABLE_RESERVED) && !(offset & (s->cluster_size - 1)) &&
           !(offset && entry & QCOW2_BITMAP_TABLE_ONES);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* The bytes [at, at + size) of the bitmap. */
static int co_read_part(struct block_node *node, uint64_t entry, uint8_t *to, uint64_t size)
{
    if (!entry_is_possible(qcow2_of(node), entry)) {
        return -EINVAL;
    }
    if (entry & QCOW2_OFFSET_MASK) {
        return co_qcow2_pread(node, entry & QCOW2_OFFSET_MASK, to, size);
    }
    if (entry & QCOW2_BITMAP_TABLE_ONES) {
        memset(to, 0xff, size);
    }
    return 0;
}

/* Bits behind the end of the disk mean nothing. */
static void mask_tail(struct block_bitmap *bitmap, uint64_t bytes, unsigned granularity_bits)
{
    uint64_t granularity = bitmap->granularity;
    uint64_t bits =
        (bitmap->length >> granularity_bits) + ((bitmap->length & (granularity - 1)) != 0);

    if (bits % 8) {
        ((uint8_t *)bitmap->words)[bytes - 1] &= (uint8_t)(BIT(bits % 8) - 1);
    }
}

/* Nobody else looks at the bits yet: they are written as bytes, which hosts that ferry runs on have
 * in this order. */
int co_qcow2_read_bitmap_table(struct block_node *node, const struct qcow2_bitmap *from,
                               struct block_bitmap *bitmap)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t bytes = bitmap_bytes(bitmap->length, from->granularity_bits);
    uint64_t entries = qcow2_align_cluster(s, bytes) >> s->cluster_bits;
    autofree uint64_t *table = xcalloc(CHUNK, 8);
    int ret = 0;

    for (uint64_t i = 0; i < entries && ret == 0; i++) {
        if (i % CHUNK == 0) {
            ret = co_qcow2_pread(node, from->table_offset + i * 8, table,
                                 MIN(entries - i, CHUNK) * 8);
        }
        uint64_t at = i << s->cluster_bits;
        if (ret == 0) {
            ret = co_read_part(node, be64toh(table[i % CHUNK]), (uint8_t *)bitmap->words + at,
                               MIN(bytes - at, s->cluster_size));
        }
    }
    if (ret == 0 && bytes) {
        mask_tail(bitmap, bytes, from->granularity_bits);
    }
    return ret;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int64_t co_take(struct block_node *node, uint64_t bytes)
{
    struct qcow2_state *s = qcow2_of(node);

    co_mutex_lock(&s->lock);
    int64_t offset = co_qcow2_alloc_clusters(node, qcow2_align_cluster(s, bytes));
    if (offset >= 0 && qcow2_check_overlap(node, 0, (uint64_t)offset, bytes) < 0) {
        offset = -EIO;
    }
    co_mutex_unlock(&s->lock);
    return offset;
}

static void co_give_back(struct block_node *node, uint64_t offset, uint64_t length, bool was_linked)
{
    struct qcow2_state *s = qcow2_of(node);

    co_mutex_lock(&s->lock);
    if (was_linked) {
        qcow2_free(node, offset, length, false);
    } else {
        co_qcow2_unref(node, offset, length, false);
    }
    co_mutex_unlock(&s->lock);
}

static bool is_zero(const uint8_t *bytes, uint64_t size)
{
    return !bytes[0] && !memcmp(bytes, bytes + 1, size - 1);
}

/* A cluster of bits; *entry becomes the table's. */
static int co_write_part(struct block_node *node, const uint8_t *from, uint64_t size,
                         uint8_t *buffer, uint64_t *entry)
{
    uint32_t cluster_size = qcow2_of(node)->cluster_size;

    *entry = 0;
    memcpy(buffer, from, size);
    if (is_zero(buffer, size)) {
        return 0;
    }
    memset(buffer + size, 0, cluster_size - size);
    int64_t offset = co_take(node, cluster_size);
    if (offset < 0) {
        return (int)offset;
    }
    *entry = (uint64_t)offset;
    return co_qcow2_pwrite(node, *entry, buffer, cluster_size);
}

static void co_free_parts(struct block_node *node, const uint64_t *table, uint64_t entries)
{
    for (uint64_t i = 0; i < entries; i++) {
        if (table[i]) {
            co_give_back(node, be64toh(table[i]), qcow2_of(node)->cluster_size, false);
        }
    }
}

int co_qcow2_write_bitmap_table(struct block_node *node, const struct block_bitmap *bitmap,
                                struct qcow2_bitmap *to)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t bytes = bitmap_bytes(bitmap->length, to->granularity_bits);
    uint64_t entries = qcow2_bitmap_table_size(s, bitmap->length, to->granularity_bits);
    uint64_t size = qcow2_align_cluster(s, entries * 8), entry;
    autofree uint64_t *table = xcalloc(1, size); /* qcow2_can_keep_bitmap() has bounded it */
    autofree uint8_t *buffer = xaligned_alloc(4096, align_up(s->cluster_size, 4096));
    int ret = 0;

    for (uint64_t i = 0; i << s->cluster_bits < bytes && ret == 0; i++) {
        uint64_t at = i << s->cluster_bits;
        ret = co_write_part(node, (const uint8_t *)bitmap->words + at,
                            MIN(bytes - at, s->cluster_size), buffer, &entry);
        table[i] = htobe64(entry);
    }
    int64_t offset = ret == 0 ? co_take(node, size) : ret;
    if (offset >= 0) {
        ret = co_qcow2_pwrite(node, (uint64_t)offset, table, size);
        if (ret < 0) {
            co_give_back(node, (uint64_t)offset, size, false);
        }
    } else {
        ret = (int)offset;
    }
    if (ret < 0) {
        co_free_parts(node, table, entries);
        return ret;
    }
    to->table_offset = (uint64_t)offset;
    to->table_size = (uint32_t)entries;
    return 0;
}

/* ---- giving back ----------------------------------------------------------------------------- */

/* Only what is no other metadata: the image may say anything. */
static void co_free_data(struct block_node *node, uint64_t entry, bool was_linked)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (offset && entry_is_possible(s, entry) &&
        qcow2_check_overlap(node, 0, offset, s->cluster_size) == 0) {
        co_give_back(node, offset, s->cluster_size, was_linked);
    }
}

int co_qcow2_free_bitmap_table(struct block_node *node, const struct qcow2_bitmap *bitmap,
                               bool was_linked)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t bytes = (uint64_t)bitmap->table_size * 8;
    autofree uint64_t *table = xcalloc(CHUNK, 8);
    int ret = 0;

    if (bitmap->table_offset & (s->cluster_size - 1) || !bitmap->table_offset ||
        !range_fits(bitmap->table_offset, bytes,
                    qcow2_align_cluster(s, block_length(node->file)))) {
        return 0; /* there is no such table */
    }
    for (uint64_t i = 0; i < bitmap->table_size && ret == 0; i++) {
        if (i % CHUNK == 0) {
            ret = co_qcow2_pread(node, bitmap->table_offset + i * 8, table,
                                 MIN(bitmap->table_size - i, CHUNK) * 8);
        }
        if (ret == 0) {
            co_free_data(node, be64toh(table[i % CHUNK]), was_linked);
        }
    }
    if (bytes && qcow2_check_overlap(node, 0, bitmap->table_offset, bytes) == 0) {
        co_give_back(node, bitmap->table_offset, bytes, was_linked);
    }
    return ret;
}
