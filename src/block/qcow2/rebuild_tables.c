/* SPDX-License-Identifier: MIT */
/*
 * L2 tables, L1 tables, the snapshot table: kept where they are, or written anew. See rebuild.h.
 *
 * Refcounts of data clusters are settled before this begins. So it is known which entries shall have
 * the "copied" flag, whatever becomes of the tables.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/entry.h"
#include "block/qcow2/rebuild_int.h"
#include "block/qcow2/snapshot_table.h"

static int fail(struct rebuild *r, int ret, const char *what, struct error **errp)
{
    if (ret == -EINVAL) {
        error_set(errp, "%d (Invalid argument)", ret);
        error_add_hint(errp,
                       "refcounts of %u bits are too small for that; make them larger by ferry-img "
                       "amend -o refcount_bits=16",
                       1u << r->plan->refcount_order);
    } else {
        error_set_errno(errp, -ret, "Could not write %s of '%s'", what, r->node->filename);
    }
    return ret;
}

/* ---- keep or move ---------------------------------------------------------------------------- */

/* A table can stay if nothing else is in its clusters, and the file has all of them. */
static bool can_stay(struct rebuild *r, uint64_t offset, uint64_t bytes)
{
    unsigned bits = r->s->cluster_bits;

    if (!range_fits(offset, bytes, r->scan.file_clusters << bits)) {
        return false;
    }
    for (uint64_t c = offset >> bits; bytes && c <= (offset + bytes - 1) >> bits; c++) {
        if (refmap_get(&r->scan.refs, c)) {
            return false;
        }
    }
    return true;
}

/* Stays, with so many references. -EINVAL: more than a refcount can count. */
static int stay(struct rebuild *r, uint64_t offset, uint64_t bytes, uint64_t refs)
{
    unsigned bits = r->s->cluster_bits;

    if (refs > r->scan.refs.max) {
        return -EINVAL;
    }
    for (uint64_t c = offset >> bits; bytes && c <= (offset + bytes - 1) >> bits; c++) {
        refmap_set(&r->scan.refs, c, refs);
    }
    return 0;
}

/* Writes a table to new clusters, the last of them filled up with zeroes. */
static int co_move(struct rebuild *r, const void *table, uint64_t bytes, uint64_t refs,
                   uint64_t *offset)
{
    uint64_t padding = qcow2_align_cluster(r->s, bytes) - bytes;
    int64_t to = refs > r->scan.refs.max ? -EINVAL : rebuild_alloc(r, bytes, refs);

    if (to < 0) {
        return (int)to;
    }
    *offset = (uint64_t)to;
    int ret = co_direct_write(r->node, *offset, table, bytes);
    if (ret == 0 && padding) {
        void *zeroes = xcalloc(1, padding);
        ret = co_direct_write(r->node, *offset + bytes, zeroes, padding);
        free(zeroes);
    }
    return ret;
}

/* ---- L2 tables ------------------------------------------------------------------------------- */

/* Sets or clears "copied" of a cluster's entry. Clusters of a data file are the image's alone. */
static uint64_t with_copied(struct rebuild *r, uint64_t word, const struct entry_view *view)
{
    bool copied =
        r->s->has_data_file || refmap_get(&r->scan.refs, view->offset >> r->s->cluster_bits) == 1;

    return copied ? word | QCOW2_COPIED : word & ~QCOW2_COPIED;
}

/* Makes the table's entries what they shall be; true if one changed. */
static bool correct_l2(struct rebuild *r, const struct scan_table *table, uint8_t *data)
{
    struct qcow2_state *s = r->s;
    bool changed = false;

    for (uint32_t at = 0; at < s->cluster_size; at += s->l2_entry_size) {
        uint64_t was = load_be64(data + at), word = was;
        uint64_t bitmap = s->extended_l2 ? load_be64(data + at + 8) : 0, bitmap_was = bitmap;
        struct entry_view view;
        if (!(word | bitmap)) {
            continue;
        }
        if (r->plan->repair) {
            changed |= entry_fix(s, &word, &bitmap);
        }
        entry_look(s, word, bitmap, &view);
        if (table->active_refs && view.kind == ENTRY_CLUSTER) {
            word = with_copied(r, word, &view);
        }
        if (word != was) {
            store_be64(data + at, word);
            changed = true;
        }
        if (bitmap != bitmap_was) {
            store_be64(data + at + 8, bitmap);
            changed = true;
        }
    }
    return changed;
}

static int co_place_l2(struct rebuild *r, struct scan_table *table, uint8_t *data)
{
    struct qcow2_state *s = r->s;
    bool is_hole = co_direct_is_hole(r->node, table->offset, s->cluster_size);
    int ret = co_direct_read(r->node, table->offset, data, s->cluster_size);

    if (ret < 0) {
        return ret;
    }
    bool changed = !is_hole && correct_l2(r, table, data);
    if (!changed && can_stay(r, table->offset, s->cluster_size)) {
        return stay(r, table->offset, s->cluster_size, table->refs);
    }
    return co_move(r, data, s->cluster_size, table->refs, &table->moved_to);
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = (*(struct scan_table *const *)a)->offset;
    uint64_t y = (*(struct scan_table *const *)b)->offset;

    return x < y ? -1 : x > y;
}

static int co_place_l2_tables(struct rebuild *r)
{
    struct scan_table **tables = xcalloc(r->scan.table_count + 1, sizeof(*tables));
    uint8_t *data = xmalloc(r->s->cluster_size);
    size_t n = 0;
    int ret = 0;

    for (size_t i = 0; i < r->scan.table_slots; i++) {
        if (r->scan.tables[i].offset && r->scan.tables[i].refs) {
            tables[n++] = &r->scan.tables[i];
        }
    }
    qsort(tables, n, sizeof(*tables), compare_offsets);
    for (size_t i = 0; i < n && ret == 0; i++) {
        ret = co_place_l2(r, tables[i], data);
    }
    free(data);
    free(tables);
    return ret;
}

/* ---- L1 tables ------------------------------------------------------------------------------- */

static uint64_t correct_l1_entry(struct rebuild *r, const struct scan_root *root, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (r->plan->repair) {
        entry &= ~QCOW2_L1_RESERVED;
    }
    if (!offset) {
        return r->plan->repair ? entry & ~QCOW2_COPIED : entry;
    }
    struct scan_table *table = scan_find_table(&r->scan, offset);
    if (table && table->moved_to) {
        offset = table->moved_to;
        entry = (entry & ~QCOW2_OFFSET_MASK) | offset;
    }
    if (refmap_get(&r->scan.refs, offset >> r->s->cluster_bits) != 1) {
        return entry & ~QCOW2_COPIED;
    }
    return root->is_active ? entry | QCOW2_COPIED : entry;
}

/* The active one is kept, in host order. */
static int co_place_l1(struct rebuild *r, struct scan_root *root, uint32_t size)
{
    uint64_t bytes = (uint64_t)size * 8;
    uint64_t *table = xcalloc(size + 1, sizeof(*table));
    bool changed = size != root->l1_size;
    int ret =
        co_direct_read(r->node, root->l1_offset, table, (uint64_t)MIN(size, root->l1_size) * 8);

    for (uint32_t i = 0; i < size && ret == 0; i++) {
        uint64_t entry = load_be64(&table[i]);
        uint64_t corrected = entry ? correct_l1_entry(r, root, entry) : 0;
        if (corrected != entry) {
            store_be64(&table[i], corrected);
            changed = true;
        }
    }
    root->moved_to = root->l1_offset;
    if (ret == 0) {
        ret = !changed && can_stay(r, root->l1_offset, bytes)
                  ? stay(r, root->l1_offset, bytes, root->refs)
                  : co_move(r, table, bytes, root->refs, &root->moved_to);
    }
    if (ret == 0 && root->is_active) {
        for (uint32_t i = 0; i < size; i++) {
            table[i] = load_be64(&table[i]);
        }
        r->l1 = table;
        r->l1_offset = root->moved_to;
        return 0;
    }
    free(table);
    return ret;
}

static int co_place_l1_tables(struct rebuild *r)
{
    int ret = co_place_l1(r, &r->roots[0], r->plan->l1_size);

    for (size_t i = 1; i < r->root_count && ret == 0; i++) {
        if (r->roots[i].refs && r->roots[i].l1_size) {
            ret = co_place_l1(r, &r->roots[i], r->roots[i].l1_size);
        }
    }
    return ret;
}

/* ---- the snapshot table ---------------------------------------------------------------------- */

static int co_place_snapshots(struct rebuild *r, struct error **errp)
{
    struct qcow2_plan *plan = r->plan;
    size_t size;
    int ret;

    if (!plan->snapshot_count) {
        return 0;
    }
    for (uint32_t i = 0; i < plan->snapshot_count; i++) {
        struct qcow2_snapshot *snapshot = &plan->snapshots[i];
        struct scan_root *root = rebuild_find_root(r, snapshot->l1_offset, snapshot->l1_size);
        if (root && root->moved_to) {
            snapshot->l1_offset = root->moved_to;
        }
        snapshot->is_incomplete = false;
    }
    uint8_t *table = snapshot_table_encode(plan->snapshots, plan->snapshot_count, &size);
    if (!table) {
        error_set(errp, "%d (%s)", -EFBIG, "File too large");
        error_add_hint(errp, "the snapshot table of '%s' would have more than %llu bytes",
                       r->node->filename, (unsigned long long)QCOW2_MAX_SNAPSHOT_BYTES);
        return -EFBIG;
    }
    ret = co_move(r, table, size, 1, &r->snapshots_offset);
    r->snapshots_size = (uint32_t)size;
    free(table);
    return ret < 0 ? fail(r, ret, "the snapshot table", errp) : 0;
}

int co_rebuild_tables(struct rebuild *r, struct error **errp)
{
    int ret = co_place_l2_tables(r);

    if (ret < 0) {
        return fail(r, ret, "an L2 table", errp);
    }
    ret = co_place_l1_tables(r);
    if (ret < 0) {
        return fail(r, ret, "an L1 table", errp);
    }
    return co_place_snapshots(r, errp);
}
