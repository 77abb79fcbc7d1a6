/* SPDX-License-Identifier: MIT */
/*
 * From guest offsets to what is there: L1 entry, L2 entry, extents. The way that most requests take
 * (the slice is in the cache) is one look under the cache's mutex.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2/qcow2.h"

/* ---- entries --------------------------------------------------------------------------------- */

/* "Standard Cluster Descriptor", "Extended L2 Entries" of the specification. */
enum qcow2_kind qcow2_entry_kind(const struct qcow2_state *s, uint64_t entry, uint64_t bitmap,
                                 unsigned subcluster)
{
    if (entry & QCOW2_COMPRESSED) {
        return s->has_data_file ? QCOW2_INVALID : QCOW2_COMPRESSED_DATA;
    }
    bool has_cluster = qcow2_has_cluster(s, entry);
    if ((entry & QCOW2_OFFSET_MASK) & (s->cluster_size - 1)) {
        return QCOW2_INVALID;
    }
    if (!s->extended_l2) {
        if (entry & QCOW2_ZERO) {
            return s->version < 3 ? QCOW2_INVALID
                   : has_cluster  ? QCOW2_ZERO_ALLOC
                                  : QCOW2_ZERO_PLAIN;
        }
        return has_cluster ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
    }
    bool allocated = bitmap >> subcluster & 1, zero = bitmap >> (32 + subcluster) & 1;
    if (allocated) {
        return zero || !has_cluster ? QCOW2_INVALID : QCOW2_NORMAL;
    }
    if (zero) {
        return has_cluster ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    return QCOW2_UNALLOCATED;
}

/* ---- a slice's extents ----------------------------------------------------------------------- */

struct place {
    uint32_t l1_index;
    uint64_t table; /* host offset of the L2 table, 0: none */
    uint64_t slice; /* host offset of the slice */
    unsigned index; /* of the entry in the slice */
    unsigned count; /* entries from there to the end of the slice */
};

/* Finds the L2 table of a guest offset. */
static int find_place(struct block_node *node, const _Atomic(uint64_t) *l1, uint32_t l1_size,
                      uint64_t offset, struct place *place)
{
    const struct qcow2_state *s = qcow2_of(node);
    uint64_t cluster = offset >> s->cluster_bits, l1_index = cluster >> s->l2_bits;

    *place = (struct place){0};
    unsigned in_table = cluster & ((UINT64_C(1) << s->l2_bits) - 1);
    if (l1_index >= l1_size) {
        place->count = 1;
        return 0;
    }
    place->l1_index = (uint32_t)l1_index;
    uint64_t entry = atomic_load_explicit(&l1[l1_index], memory_order_acquire);
    place->table = entry & QCOW2_OFFSET_MASK;
    if (!place->table) {
        place->count = (1u << s->l2_bits) - in_table;
        return 0;
    }
    if (place->table & (s->cluster_size - 1)) {
        qcow2_signal_corruption(node, true, place->table, 0,
                                "L2 table offset 0x%" PRIx64 " unaligned (L1 index: 0x%" PRIx64 ")",
                                place->table, l1_index);
        return -EIO;
    }
    unsigned per_slice = s->l2_cache.slice_size / s->l2_entry_size;
    place->index = in_table % per_slice;
    place->count = per_slice - place->index;
    place->slice = place->table + (uint64_t)(in_table - place->index) * s->l2_entry_size;
    return 0;
}

static int invalid_entry(struct block_node *node, const struct place *place, unsigned index,
                         uint64_t entry, uint64_t bitmap)
{
    const struct qcow2_state *s = qcow2_of(node);
    uint64_t at = place->slice + (uint64_t)index * s->l2_entry_size;

    if (entry & QCOW2_COMPRESSED) {
        qcow2_signal_corruption(
            node, true, at, 0,
            "Compressed cluster in an image with a data file (L2 entry 0x%" PRIx64 ")", entry);
    } else if ((entry & QCOW2_OFFSET_MASK) & (s->cluster_size - 1)) {
        qcow2_signal_corruption(node, true, at, 0,
                                "Cluster allocation offset 0x%" PRIx64
                                " unaligned (L2 offset: 0x%" PRIx64 ", L2 index: 0x%x)",
                                (uint64_t)(entry & QCOW2_OFFSET_MASK), place->table, index);
    } else {
        qcow2_signal_corruption(node, true, at, 0,
                                "Invalid L2 entry 0x%" PRIx64 ", bitmap 0x%" PRIx64, entry, bitmap);
    }
    return -EIO;
}

/* The first extent of [offset, …) in the slice's entries. False: an entry is impossible; *bad says
 * which. An impossible entry behind a good extent only ends that. */
static bool look(const struct qcow2_state *s, const struct place *place, const void *slice,
                 uint64_t offset, uint64_t length, struct qcow2_extent *extent, unsigned *bad)
{
    unsigned index = place->index, end = place->index + place->count;
    uint64_t in_cluster = offset & (s->cluster_size - 1), bitmap;
    uint64_t entry = qcow2_l2_entry(s, slice, index, &bitmap);
    unsigned sub = (unsigned)(in_cluster / s->subcluster_size);
    uint64_t host = entry & QCOW2_OFFSET_MASK;

    *extent = (struct qcow2_extent){
        .kind = qcow2_entry_kind(s, entry, bitmap, sub),
        .copied = entry & QCOW2_COPIED && !(entry & QCOW2_COMPRESSED),
        .host = host + in_cluster,
        .entry = entry,
    };
    *bad = index;
    if (extent->kind == QCOW2_INVALID) {
        return false;
    }
    if (extent->kind == QCOW2_COMPRESSED_DATA) {
        extent->length = MIN(length, s->cluster_size - in_cluster);
        return true;
    }
    bool has_host = extent->kind == QCOW2_NORMAL || extent->kind == QCOW2_ZERO_ALLOC;
    uint64_t done = s->subcluster_size - in_cluster % s->subcluster_size;
    for (sub++; done < length; sub++) {
        if (sub == s->subclusters) {
            sub = 0;
            if (++index == end) {
                break;
            }
            entry = qcow2_l2_entry(s, slice, index, &bitmap);
            host += s->cluster_size;
            if (entry & QCOW2_COMPRESSED || (bool)(entry & QCOW2_COPIED) != extent->copied ||
                (has_host && (entry & QCOW2_OFFSET_MASK) != host)) {
                break;
            }
        }
        if (qcow2_entry_kind(s, entry, bitmap, sub) != extent->kind) {
            break;
        }
        done += s->subcluster_size;
    }
    extent->length = MIN(length, done);
    return true;
}

/* There is no L2 table. */
static void no_table(const struct qcow2_state *s, const struct place *place, uint64_t offset,
                     uint64_t length, struct qcow2_extent *extent)
{
    uint64_t there = ((uint64_t)place->count << s->cluster_bits) - (offset & (s->cluster_size - 1));

    *extent = (struct qcow2_extent){.kind = QCOW2_UNALLOCATED, .length = MIN(length, there)};
}

/* ---- the active tables ----------------------------------------------------------------------- */

enum look_result { LOOK_MISS, LOOK_FOUND, LOOK_BAD };

static enum look_result look_cached(struct qcow2_state *s, const struct place *place,
                                    uint64_t offset, uint64_t length, struct qcow2_extent *extent,
                                    unsigned *bad)
{
    enum look_result result = LOOK_MISS;

    if (!place->table) {
        no_table(s, place, offset, length, extent);
        return LOOK_FOUND;
    }
    pthread_mutex_lock(&s->l2_cache.mutex);
    struct qcow2_slice *slice = cache_peek_locked(&s->l2_cache, place->slice);
    if (slice) {
        result = look(s, place, slice->data, offset, length, extent, bad) ? LOOK_FOUND : LOOK_BAD;
    }
    pthread_mutex_unlock(&s->l2_cache.mutex);
    return result;
}

bool qcow2_map_cached(struct block_node *node, uint64_t offset, uint64_t length,
                      struct qcow2_extent *extent)
{
    struct qcow2_state *s = qcow2_of(node);
    struct place place;
    unsigned bad;

    return find_place(node, s->l1, s->l1_size, offset, &place) == 0 &&
           look_cached(s, &place, offset, length, extent, &bad) == LOOK_FOUND;
}

int co_qcow2_map(struct block_node *node, uint64_t offset, uint64_t length,
                 struct qcow2_extent *extent)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_slice *slice;
    struct place place;
    uint64_t bitmap;
    unsigned bad;

    int ret = find_place(node, s->l1, s->l1_size, offset, &place);
    if (ret < 0) {
        return ret;
    }
    enum look_result result = look_cached(s, &place, offset, length, extent, &bad);
    if (result == LOOK_FOUND) {
        return 0;
    }
    ret = co_cache_get(&s->l2_cache, place.slice, &slice);
    if (ret < 0) {
        return ret;
    }
    pthread_mutex_lock(&s->l2_cache.mutex);
    bool ok = look(s, &place, slice->data, offset, length, extent, &bad);
    uint64_t entry = qcow2_l2_entry(s, slice->data, bad, &bitmap);
    pthread_mutex_unlock(&s->l2_cache.mutex);
    cache_put(&s->l2_cache, slice);
    return ok ? 0 : invalid_entry(node, &place, bad, entry, bitmap);
}

/* ---- any tables ------------------------------------------------------------------------------ */

int co_qcow2_map_l1(struct block_node *node, const uint64_t *l1, uint32_t l1_size, uint64_t offset,
                    uint64_t length, struct qcow2_extent *extent)
{
    const struct qcow2_state *s = qcow2_of(node);
    _Alignas(8) uint8_t slice[QCOW2_SLICE];
    struct place place;
    uint64_t bitmap;
    unsigned bad;

    int ret = find_place(node, (const _Atomic(uint64_t) *)l1, l1_size, offset, &place);
    if (ret < 0) {
        return ret;
    }
    if (!place.table) {
        no_table(s, &place, offset, length, extent);
        return 0;
    }
    /* Slices of our own size: those of the cache may be larger than what we have here. */
    uint64_t at = place.slice + (uint64_t)place.index * s->l2_entry_size;
    place.slice = align_down(at, MIN(s->l2_cache.slice_size, QCOW2_SLICE));
    unsigned per_slice = MIN(s->l2_cache.slice_size, QCOW2_SLICE) / s->l2_entry_size;
    place.index = (unsigned)((at - place.slice) / s->l2_entry_size);
    place.count = per_slice - place.index;
    ret = co_qcow2_pread(node, place.slice, slice, (size_t)per_slice * s->l2_entry_size);
    if (ret < 0) {
        return ret;
    }
    if (!look(s, &place, slice, offset, length, extent, &bad)) {
        uint64_t entry = qcow2_l2_entry(s, slice, bad, &bitmap);
        return invalid_entry(node, &place, bad, entry, bitmap);
    }
    return 0;
}

/* ---- changing -------------------------------------------------------------------------------- */

/* A table of this image's alone, with the contents of the one that it shares, or empty. */
static int co_make_table(struct block_node *node, struct place *place)
{
    struct qcow2_state *s = qcow2_of(node);
    uint32_t slice_size = s->l2_cache.slice_size;
    uint64_t old = place->table;

    int64_t table = co_qcow2_alloc_clusters(node, s->cluster_size);
    if (table < 0) {
        return (int)table;
    }
    int ret = qcow2_check_overlap(node, 0, table, s->cluster_size);
    for (uint32_t done = 0; done < s->cluster_size && ret == 0; done += slice_size) {
        struct qcow2_slice *from = NULL;
        if (old) {
            ret = co_cache_get(&s->l2_cache, old + done, &from);
        }
        if (ret < 0) {
            break;
        }
        struct qcow2_slice *to = cache_new(&s->l2_cache, table + done);
        if (!to) {
            ret = qcow2_not_free(node, table);
        } else if (from) {
            cache_change_begin(&s->l2_cache);
            memcpy(to->data, from->data, slice_size);
            cache_change_end(&s->l2_cache, to);
        }
        if (from) {
            cache_put(&s->l2_cache, from);
        }
        if (to) {
            cache_put(&s->l2_cache, to);
        }
    }
    if (ret == 0) {
        ret = co_qcow2_reserve(node, (uint64_t)table, s->cluster_size);
    }
    if (ret < 0) {
        cache_drop(&s->l2_cache, table, s->cluster_size);
        co_qcow2_unref(node, table, s->cluster_size, false);
        return ret;
    }
    qcow2_metadata_add(s, QCOW2_OVERLAP_L2, table, s->cluster_size);
    qcow2_set_l1(s, place->l1_index, (uint64_t)table | QCOW2_COPIED);
    s->any_links = true;
    if (old) {
        /* A snapshot has it, still. */
        qcow2_metadata_remove(s, QCOW2_OVERLAP_L2, old, s->cluster_size);
        qcow2_free(node, old, s->cluster_size, false);
    }
    return 0;
}

int co_qcow2_l2_slice(struct block_node *node, uint64_t offset, bool make,
                      struct qcow2_slice **slice, unsigned *index)
{
    struct qcow2_state *s = qcow2_of(node);
    struct place place;

    *slice = NULL;
    int ret = find_place(node, s->l1, s->l1_size, offset, &place);
    if (ret == 0 && make && offset >> (s->cluster_bits + s->l2_bits) >= s->l1_size) {
        return -EIO;
    }
    if (ret == 0 && make && !(place.table && s->l1[place.l1_index] & QCOW2_COPIED)) {
        ret = co_make_table(node, &place);
        if (ret == 0) {
            ret = find_place(node, s->l1, s->l1_size, offset, &place);
        }
    }
    if (ret < 0 || !place.table) {
        return ret;
    }
    *index = place.index;
    return co_cache_get(&s->l2_cache, place.slice, slice);
}

void qcow2_l2_set(struct block_node *node, struct qcow2_slice *slice, unsigned index,
                  uint64_t entry, uint64_t bitmap)
{
    struct qcow2_state *s = qcow2_of(node);
    uint8_t *p = (uint8_t *)slice->data + (size_t)index * s->l2_entry_size;

    /* Before anybody can see the entry: who writes through to its cluster must commit it, too. */
    s->generation++;
    atomic_store(&s->unstable, true);
    cache_change_begin(&s->l2_cache);
    store_be64(p, entry);
    if (s->extended_l2) {
        store_be64(p + 8, bitmap);
    }
    cache_change_end(&s->l2_cache, slice);
    s->any_links |= entry & QCOW2_COMPRESSED || qcow2_has_cluster(s, entry);
}
