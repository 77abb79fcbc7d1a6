/* SPDX-License-Identifier: MIT */
/*
 * Corruption found at run time; and what is metadata in the file, so that no write hits it.
 *
 * The map has, for each cluster with metadata of the active tables and with L1 tables of snapshots,
 * of which kind it is: a hash table with open addressing. Changes come with the image's lock; others
 * look without any: words change from 0 to a cluster once, and then only its kinds do. A table that
 * gets too full is replaced, and the old one kept until the end, as somebody may still look at it; as
 * each is twice as large as the one before, all together are at most twice the last.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/range.h"
#include "block/event.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/hash.h"
#include "block/qcow2/qcow2.h"

#define KIND_BITS   12u /* of a word: kinds below, the cluster above */
#define OFFSET_BITS 56u
#define KIND_MASK   ((UINT64_C(1) << KIND_BITS) - 1)

#define MAX_INACTIVE_L1 (UINT64_C(1) << 18) /* clusters of L1 tables of snapshots in the map */

struct qcow2_metadata_map {
    /* constant */
    unsigned bits; /* 1 << bits words */
    struct qcow2_hash hash;
    struct qcow2_metadata_map *older;
    /* under the image's lock */
    size_t used; /* words that are not 0 */
    /* atomic */
    _Atomic(uint64_t) words[];
};

/* ---- the map ---------------------------------------------------------------------------------- */

static struct qcow2_metadata_map *map_new(unsigned bits, struct qcow2_metadata_map *older)
{
    struct qcow2_metadata_map *map =
        xcalloc(1, sizeof(*map) + ((size_t)1 << bits) * sizeof(map->words[0]));

    map->bits = bits;
    map->older = older;
    qcow2_hash_init(&map->hash);
    return map;
}

static size_t slot_of(const struct qcow2_metadata_map *map, uint64_t cluster)
{
    return qcow2_hash(&map->hash, cluster, map->bits);
}

static unsigned kinds_at(struct qcow2_metadata_map *map, uint64_t cluster)
{
    size_t mask = ((size_t)1 << map->bits) - 1;

    for (size_t i = slot_of(map, cluster);; i = (i + 1) & mask) {
        uint64_t word = atomic_load_explicit(&map->words[i], memory_order_relaxed);
        if (!word) {
            return 0;
        }
        if (word >> KIND_BITS == cluster + 1) {
            return word & KIND_MASK;
        }
    }
}

/* clusters are stored plus 1, so that no word is 0. */
static void change_word(struct qcow2_metadata_map *map, uint64_t cluster, unsigned set,
                        unsigned clear)
{
    size_t mask = ((size_t)1 << map->bits) - 1;

    for (size_t i = slot_of(map, cluster);; i = (i + 1) & mask) {
        uint64_t word = atomic_load_explicit(&map->words[i], memory_order_relaxed);
        if (!word && !set) {
            return;
        }
        if (!word) {
            word = (cluster + 1) << KIND_BITS;
            map->used++;
        }
        if (word >> KIND_BITS == cluster + 1) {
            atomic_store_explicit(&map->words[i], (word | set) & ~(uint64_t)clear,
                                  memory_order_relaxed);
            return;
        }
    }
}

static struct qcow2_metadata_map *grown(struct qcow2_metadata_map *map)
{
    size_t size = (size_t)1 << map->bits, live = 0;

    if (map->used < size / 2) {
        return map;
    }
    for (size_t i = 0; i < size; i++) {
        live += (map->words[i] & KIND_MASK) != 0;
    }
    struct qcow2_metadata_map *larger = map_new(map->bits + (live > size / 4 ? 2 : 1), map);
    for (size_t i = 0; i < size; i++) {
        uint64_t word = map->words[i];
        if (word & KIND_MASK) {
            change_word(larger, (word >> KIND_BITS) - 1, word & KIND_MASK, 0);
        }
    }
    return larger;
}

/* Behind the last cluster of a range. Entries have 56 bits for an offset: behind those nothing is
 * ever written, and words have no room for what lies there. */
static uint64_t end_of(const struct qcow2_state *s, uint64_t offset, uint64_t length)
{
    uint64_t end = length ? ((offset + length - 1) >> s->cluster_bits) + 1 : 0;

    return MIN(end, UINT64_C(1) << (OFFSET_BITS - s->cluster_bits));
}

void qcow2_metadata_add(struct qcow2_state *s, unsigned kind, uint64_t offset, uint64_t length)
{
    uint64_t end = end_of(s, offset, length);

    for (uint64_t cluster = offset >> s->cluster_bits; cluster < end; cluster++) {
        struct qcow2_metadata_map *map = grown(s->metadata);
        change_word(map, cluster, kind, 0);
        atomic_store(&s->metadata, map);
    }
}

void qcow2_metadata_remove(struct qcow2_state *s, unsigned kind, uint64_t offset, uint64_t length)
{
    uint64_t end = end_of(s, offset, length);

    for (uint64_t cluster = offset >> s->cluster_bits; cluster < end; cluster++) {
        change_word(s->metadata, cluster, 0, kind);
    }
}

void qcow2_metadata_free(struct qcow2_state *s)
{
    struct qcow2_metadata_map *map = s->metadata;

    while (map) {
        struct qcow2_metadata_map *older = map->older;
        free(map);
        map = older;
    }
    s->metadata = NULL;
}

static const char *kind_name(unsigned kinds)
{
    static const char *const names[] = {
        "qcow2_header",      "active L1 table",   "active L2 table",
        "refcount table",    "refcount block",    "snapshot table",
        "inactive L1 table", "inactive L2 table", "bitmap directory",
    };

    return kinds ? names[__builtin_ctz(kinds)] : "";
}

/* A table that has a cluster of its own. */
static void add_table(struct block_node *node, unsigned kind, uint64_t offset)
{
    struct qcow2_state *s = qcow2_of(node);
    unsigned there = kinds_at(s->metadata, offset >> s->cluster_bits);

    if (there && !(node->flags & BLOCK_OPEN_CHECK)) {
        qcow2_signal_corruption(node, true, offset, s->cluster_size, "%s is also %s",
                                kind_name(kind), kind_name(there));
    }
    qcow2_metadata_add(s, kind, offset, s->cluster_size);
}

/* L1 tables of snapshots, as many as MAX_INACTIVE_L1 allows: hostile ones may be of any size. What
 * they share with other tables is no matter of opening. */
static void add_inactive_l1(struct qcow2_state *s)
{
    uint64_t left = MAX_INACTIVE_L1;
    uint32_t i;

    for (i = 0; s->snapshots && i < s->snapshot_count; i++) {
        const struct qcow2_snapshot *snapshot = &s->snapshots[i];
        uint64_t size = (uint64_t)snapshot->l1_size * 8;
        uint64_t clusters = (size >> s->cluster_bits) + 2;
        if (clusters > left) {
            break;
        }
        left -= clusters;
        qcow2_metadata_add(s, QCOW2_OVERLAP_INACT_L1, snapshot->l1_offset, size);
    }
    s->mapped_snapshots = i;
}

static void rebuild_map(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    qcow2_metadata_free(s);
    s->metadata = map_new(6, NULL);
    qcow2_metadata_add(s, QCOW2_OVERLAP_HEADER, 0, s->cluster_size);
    qcow2_metadata_add(s, QCOW2_OVERLAP_L1, s->l1_offset, (uint64_t)s->l1_size * 8);
    qcow2_metadata_add(s, QCOW2_OVERLAP_REFTABLE, s->reftable_offset,
                       (uint64_t)s->reftable_size * 8);
    qcow2_metadata_add(s, QCOW2_OVERLAP_SNAPSHOTS, s->snapshots_offset, s->snapshots_size);
    qcow2_metadata_add(s, QCOW2_OVERLAP_BITMAPS, s->bitmap_dir_offset, s->bitmap_dir_size);
    for (uint32_t i = 0; i < s->l1_size; i++) {
        uint64_t offset = s->l1[i] & QCOW2_OFFSET_MASK;
        if (offset) {
            add_table(node, QCOW2_OVERLAP_L2, offset);
        }
    }
    for (uint32_t i = 0; i < s->reftable_size; i++) {
        uint64_t offset = s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;
        if (offset && offset < QCOW2_MAX_OFFSET) {
            add_table(node, QCOW2_OVERLAP_REFBLOCK, offset);
        }
    }
    add_inactive_l1(s);
}

static int co_load_inactive_l1(struct block_node *node, const struct qcow2_snapshot *snapshot)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t bytes = (uint64_t)snapshot->l1_size * 8;
    autofree uint8_t *buffer = xmalloc(DIRECT_BUFFER);
    int ret = 0;

    for (uint64_t at = 0; at < bytes && ret == 0; at += DIRECT_BUFFER) {
        size_t size = MIN((uint64_t)DIRECT_BUFFER, bytes - at);
        if (co_direct_is_hole(node, snapshot->l1_offset + at, size)) {
            continue;
        }
        ret = co_direct_read(node, snapshot->l1_offset + at, buffer, size);
        for (size_t i = 0; i < size && ret == 0; i += 8) {
            uint64_t offset = load_be64(buffer + i) & QCOW2_OFFSET_MASK;
            if (offset) {
                qcow2_metadata_add(s, QCOW2_OVERLAP_INACT_L2, offset, s->cluster_size);
            }
        }
    }
    return ret;
}

/* Each table is the image's own, so all of them together are not larger than the file, as for a
 * check: else hostile ones that lie in each other would be read again and again. */
static int co_load_inactive(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t limit = block_length(node->file) + QCOW2_MAX_L1_BYTES, bytes = 0;
    int ret = 0;

    for (uint32_t i = 0; s->snapshots && i < s->snapshot_count && ret == 0; i++) {
        const struct qcow2_snapshot *snapshot = &s->snapshots[i];
        uint64_t size = (uint64_t)snapshot->l1_size * 8;
        bytes += size;
        if (size > QCOW2_MAX_L1_BYTES || bytes > limit ||
            !range_fits(snapshot->l1_offset, size, INT64_MAX)) {
            return -EFBIG;
        }
        ret = co_load_inactive_l1(node, snapshot);
    }
    return ret;
}

int co_qcow2_metadata_rebuild(struct block_node *node)
{
    bool writes = node->flags & BLOCK_OPEN_RDWR && !(node->flags & BLOCK_OPEN_CHECK);

    rebuild_map(node);
    return writes && qcow2_of(node)->overlap_checks & QCOW2_OVERLAP_INACT_L2
               ? co_load_inactive(node)
               : 0;
}

/* ---- checks ----------------------------------------------------------------------------------- */

/* Those that the map has no room for, of which a sane image has hardly any. */
static unsigned inactive_l1_at(const struct qcow2_state *s, uint64_t offset, uint64_t length)
{
    for (uint32_t i = s->mapped_snapshots; s->snapshots && i < s->snapshot_count; i++) {
        const struct qcow2_snapshot *snapshot = &s->snapshots[i];
        if (range_overlaps(offset, length, snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8)) {
            return QCOW2_OVERLAP_INACT_L1;
        }
    }
    return 0;
}

/* What of the kinds there is in a range; 0: nothing. */
static unsigned kinds_in(const struct qcow2_state *s, unsigned wanted, uint64_t offset,
                         uint64_t length)
{
    unsigned hit = 0;

    if (!wanted || !length) {
        return 0;
    }
    struct qcow2_metadata_map *map = s->metadata;
    uint64_t last = (offset + length - 1) >> s->cluster_bits;
    for (uint64_t cluster = offset >> s->cluster_bits; cluster <= last && !hit; cluster++) {
        hit = kinds_at(map, cluster) & wanted;
    }
    if (!hit && wanted & QCOW2_OVERLAP_INACT_L1) {
        hit = inactive_l1_at(s, offset, length);
    }
    return hit;
}

int qcow2_check_overlap(struct block_node *node, unsigned ignore, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(node);
    unsigned hit = kinds_in(s, s->overlap_checks & ~ignore, offset, length);

    if (!hit) {
        return 0;
    }
    qcow2_signal_corruption(node, true, offset, length,
                            "Preventing invalid write on metadata (overlaps with %s)",
                            kind_name(hit));
    return -EIO;
}

int qcow2_check_free(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(node);
    /* A table that is a snapshot's, too, stays there. */
    unsigned kinds = s->overlap_checks & ~(QCOW2_OVERLAP_INACT_L1 | QCOW2_OVERLAP_INACT_L2);
    unsigned hit = kinds_in(s, kinds, offset, length);

    if (!hit) {
        return 0;
    }
    qcow2_signal_corruption(node, true, offset, length,
                            "Preventing invalid free of metadata (overlaps with %s)",
                            kind_name(hit));
    return -EIO;
}

int qcow2_not_free(struct block_node *node, uint64_t offset)
{
    qcow2_signal_corruption(node, true, offset, qcow2_of(node)->cluster_size,
                            "A new table would lie in one that is in use");
    return -EIO;
}

/* ---- signals ---------------------------------------------------------------------------------- */

void qcow2_signal_corruption(struct block_node *node, bool fatal, uint64_t offset, uint64_t length,
                             const char *fmt, ...)
{
    struct qcow2_state *s = qcow2_of(node);
    va_list ap;

    fatal = fatal && node->flags & BLOCK_OPEN_RDWR;
    if (fatal ? atomic_exchange(&s->corrupt, true) : atomic_exchange(&s->has_told, true)) {
        return;
    }
    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);
    block_tell_corruption(&(struct block_corruption){
        .node = node->name,
        .message = text,
        .offset = offset,
        .length = length,
        .fatal = fatal,
    });
    autofree char *where =
        length ? xasprintf(" (offset 0x%" PRIx64 ", size 0x%" PRIx64 ")", offset, length)
               : xasprintf(" (offset 0x%" PRIx64 ")", offset);
    if (fatal) {
        log_error("qcow2: '%s': Marking image as corrupt: %s%s; further corruption events will be "
                  "suppressed",
                  node->filename, text, where);
    } else {
        log_error(
            "qcow2: '%s': Image is corrupt: %s%s; further non-fatal corruption events will be "
            "suppressed",
            node->filename, text, where);
    }
}

void co_qcow2_mark_corrupt(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    if (!(node->flags & BLOCK_OPEN_RDWR) || s->version < 3) {
        return;
    }
    co_mutex_lock(&s->lock);
    if (!(s->incompatible & QCOW2_INCOMPAT_CORRUPT)) {
        co_qcow2_set_incompatible(node, QCOW2_INCOMPAT_CORRUPT, 0);
    }
    co_mutex_unlock(&s->lock);
}
