/* SPDX-License-Identifier: MIT */
/* L1 and L2 tables. See scan.h. */
#include "block/qcow2/scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/entry.h"

#define FIRST_TABLES 256u

void scan_init(struct qcow2_scan *scan, struct block_node *node, uint64_t max,
               struct block_check_result *result, scan_say_fn *say, void *opaque)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t length = block_length(node->file);

    *scan = (struct qcow2_scan){
        .node = node,
        .s = s,
        .file_length = length,
        .file_clusters = (length >> s->cluster_bits) + !!(length & (s->cluster_size - 1)),
        .tables = xcalloc(FIRST_TABLES, sizeof(*scan->tables)),
        .table_slots = FIRST_TABLES,
        .result = result,
        .say = say,
        .opaque = opaque,
    };
    scan->count_end = scan->file_clusters;
    qcow2_hash_init(&scan->table_hash);
    refmap_init(&scan->refs, max);
}

void scan_destroy(struct qcow2_scan *scan)
{
    refmap_destroy(&scan->refs);
    free(scan->tables);
}

/* ---- telling --------------------------------------------------------------------------------- */

static void say_v(struct qcow2_scan *scan, const char *begin, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

static void say_v(struct qcow2_scan *scan, const char *begin, const char *fmt, va_list ap)
{
    char *text = xvasprintf(fmt, ap);
    char *line = xasprintf("%s%s", begin, text);

    scan->say(scan->opaque, line);
    free(line);
    free(text);
}

void scan_say(struct qcow2_scan *scan, const char *fmt, ...)
{
    va_list ap;

    if (scan->say) {
        va_start(ap, fmt);
        say_v(scan, "", fmt, ap);
        va_end(ap);
    }
}

void scan_error(struct qcow2_scan *scan, bool is_mended, uint64_t times, const char *fmt, ...)
{
    va_list ap;

    scan->result->corruptions += times;
    scan->mended += is_mended ? times : 0;
    if (scan->say) {
        va_start(ap, fmt);
        say_v(scan, is_mended ? "Repairing" : "ERROR", fmt, ap);
        va_end(ap);
    }
}

/* ---- counting -------------------------------------------------------------------------------- */

bool scan_count(struct qcow2_scan *scan, uint64_t offset, uint64_t size, uint64_t times)
{
    unsigned bits = scan->s->cluster_bits;
    bool fits = true;

    if (!size || !times) {
        return true;
    }
    /* The last cluster may be cut short where nothing was written yet. */
    if (!range_fits(offset, size, scan->file_length + scan->s->cluster_size - 1)) {
        scan_error(scan, false, times,
                   ": counting reference for region exceeding the end of the file by one cluster "
                   "or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
                   offset, size);
        fits = false;
    }
    for (uint64_t c = offset >> bits; c <= (offset + size - 1) >> bits; c++) {
        if (c >= scan->count_end || (!fits && scan->count_end == scan->file_clusters)) {
            return fits;
        }
        uint64_t excess = refmap_add(&scan->refs, c, times);
        if (excess) {
            scan->overflows += excess;
            scan_error(scan, false, excess, ": overflow cluster offset=0x%" PRIx64, c << bits);
            scan_say(scan, "Use ferry-img amend to increase the refcount entry width or ferry-img "
                           "convert to create a clean copy if the image cannot be opened for "
                           "writing");
        }
    }
    return fits;
}

void scan_pin(struct qcow2_scan *scan, uint64_t offset, uint64_t size)
{
    unsigned bits = scan->s->cluster_bits;

    for (uint64_t c = offset >> bits; size && c <= (offset + size - 1) >> bits; c++) {
        if (c >= scan->count_end) {
            return;
        }
        refmap_pin(&scan->refs, c);
    }
}

/* ---- the set of L2 tables -------------------------------------------------------------------- */

static struct scan_table *find_slot(const struct qcow2_scan *scan, uint64_t offset)
{
    unsigned bits = (unsigned)__builtin_ctzll(scan->table_slots);
    size_t i = qcow2_hash(&scan->table_hash, offset >> scan->s->cluster_bits, bits);

    while (scan->tables[i].offset && scan->tables[i].offset != offset) {
        i = (i + 1) & (scan->table_slots - 1);
    }
    return &scan->tables[i];
}

struct scan_table *scan_find_table(struct qcow2_scan *scan, uint64_t offset)
{
    struct scan_table *table = find_slot(scan, offset);

    return table->offset ? table : NULL;
}

static void grow_tables(struct qcow2_scan *scan)
{
    struct scan_table *old = scan->tables;
    size_t slots = scan->table_slots;

    scan->table_slots = slots * 2;
    scan->tables = xcalloc(scan->table_slots, sizeof(*old));
    for (size_t i = 0; i < slots; i++) {
        if (old[i].offset) {
            *find_slot(scan, old[i].offset) = old[i];
        }
    }
    free(old);
}

static struct scan_table *get_table(struct qcow2_scan *scan, uint64_t offset)
{
    struct scan_table *table = find_slot(scan, offset);

    if (table->offset) {
        return table;
    }
    if (scan->table_count >= scan->table_slots / 4 * 3) {
        grow_tables(scan);
        table = find_slot(scan, offset);
    }
    table->offset = offset;
    scan->table_count++;
    return table;
}

/* ---- L1 tables ------------------------------------------------------------------------------- */

/* An entry of an L1 table says where an L2 table is. */
static void see_l1_entry(struct qcow2_scan *scan, const struct scan_root *root, uint64_t entry)
{
    struct qcow2_state *s = scan->s;
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (!offset && entry & QCOW2_COPIED && root->refs) {
        scan_error(scan, scan->fix, root->refs,
                   " found L1 entry with a flag but no table: %" PRIx64, entry);
    }
    if (entry & QCOW2_L1_RESERVED && root->refs) {
        scan_error(scan, scan->fix, root->refs, " found L1 entry with reserved bits set: %" PRIx64,
                   entry);
    }
    if (!offset) {
        return;
    }
    if (offset & (s->cluster_size - 1)) {
        if (root->refs) {
            scan_error(scan, false, root->refs,
                       " l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry corrupted",
                       offset);
        }
        scan_count(scan, offset, s->cluster_size, root->refs);
        scan_pin(scan, offset, s->cluster_size);
        return;
    }
    if (!range_fits(offset, s->cluster_size, scan->file_length + s->cluster_size - 1)) {
        scan_count(scan, offset, s->cluster_size, root->refs);
        scan_pin(scan, offset, s->cluster_size);
        return;
    }
    if (!scan->tables_move) {
        scan_count(scan, offset, s->cluster_size, root->refs);
    }
    struct scan_table *table = get_table(scan, offset);
    table->refs += root->refs;
    table->active_refs += root->is_active;
    table->is_old |= root->is_old;
}

/* Calls see() for all entries. */
static int co_each_l1_entry(struct qcow2_scan *scan, const struct scan_root *root,
                            int (*co_see)(struct qcow2_scan *scan, const struct scan_root *root,
                                          uint64_t entry, void *opaque),
                            void *opaque)
{
    uint64_t end = root->l1_offset + (uint64_t)root->l1_size * 8;
    uint8_t *buffer = xmalloc(DIRECT_BUFFER);
    int ret = 0;

    for (uint64_t at = root->l1_offset; at < end && ret == 0; at += DIRECT_BUFFER) {
        size_t size = MIN((uint64_t)DIRECT_BUFFER, end - at);
        if (co_direct_is_hole(scan->node, at, size)) {
            continue;
        }
        ret = co_direct_read(scan->node, at, buffer, size);
        for (size_t i = 0; i < size && ret == 0; i += 8) {
            ret = co_see(scan, root, load_be64(buffer + i), opaque);
        }
    }
    free(buffer);
    return ret;
}

static int co_register_entry(struct qcow2_scan *scan, const struct scan_root *root, uint64_t entry,
                             void *opaque)
{
    see_l1_entry(scan, root, entry);
    return 0;
}

/* ---- L2 tables ------------------------------------------------------------------------------- */

static void tell_faults(struct qcow2_scan *scan, const struct scan_table *table, uint64_t word,
                        const struct entry_view *view, uint64_t index)
{
    for (unsigned faults = view->faults; faults; faults &= faults - 1) {
        unsigned fault = faults & -faults;
        char *text = entry_fault_text(fault, word, view, index);
        scan_error(scan, scan->fix && !(fault & ENTRY_FAULT_UNFIXABLE), table->refs, "%s", text);
        free(text);
    }
}

static void see_l2_entry(struct qcow2_scan *scan, const struct scan_table *table, uint64_t word,
                         uint64_t bitmap, uint64_t index)
{
    struct qcow2_state *s = scan->s;
    struct block_check_result *result = scan->result;
    struct entry_view view;

    entry_look(s, word, bitmap, &view);
    if (view.faults) {
        if (table->refs) {
            tell_faults(scan, table, word, &view, index);
        }
        if (scan->fix && entry_fix(s, &word, &bitmap)) {
            entry_look(s, word, bitmap, &view);
        }
        if (view.faults & ENTRY_FAULT_COMPRESSED_DATA_FILE) {
            return;
        }
    }
    if (view.kind == ENTRY_NOTHING) {
        return;
    }
    if (table->active_refs) {
        result->allocated_clusters += table->active_refs;
        if (view.kind == ENTRY_COMPRESSED) {
            result->compressed_clusters += table->active_refs;
            result->fragmented_clusters += table->active_refs; /* by nature */
        } else {
            if (scan->next_contiguous && view.offset != scan->next_contiguous) {
                result->fragmented_clusters += table->active_refs;
            }
            scan->next_contiguous = view.offset + s->cluster_size;
        }
    }
    if (!s->has_data_file) {
        scan_count(scan, view.offset, view.size, table->refs);
        if (table->is_old) {
            scan_pin(scan, view.offset, view.size);
        }
    }
}

static int co_see_table(struct qcow2_scan *scan, struct scan_table *table, uint8_t *buffer)
{
    struct qcow2_state *s = scan->s;

    table->is_done = true;
    scan->next_contiguous = 0;
    if (scan->tables_move && table->is_old) {
        scan_pin(scan, table->offset, s->cluster_size);
    }
    if (co_direct_is_hole(scan->node, table->offset, s->cluster_size)) {
        return 0;
    }
    int ret = co_direct_read(scan->node, table->offset, buffer, s->cluster_size);
    for (uint32_t at = 0; at < s->cluster_size && ret == 0; at += s->l2_entry_size) {
        uint64_t word = load_be64(buffer + at);
        uint64_t bitmap = s->extended_l2 ? load_be64(buffer + at + 8) : 0;
        if (word | bitmap) {
            see_l2_entry(scan, table, word, bitmap, at / s->l2_entry_size);
        }
    }
    return ret;
}

/* In the order of the guest's disk, to tell fragments. */
static int co_see_active_entry(struct qcow2_scan *scan, const struct scan_root *root,
                               uint64_t entry, void *buffer)
{
    struct scan_table *table = scan_find_table(scan, entry & QCOW2_OFFSET_MASK);

    return table && !table->is_done ? co_see_table(scan, table, buffer) : 0;
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = (*(struct scan_table *const *)a)->offset;
    uint64_t y = (*(struct scan_table *const *)b)->offset;

    return x < y ? -1 : x > y;
}

/* The others, in the order of the file. */
static int co_see_other_tables(struct qcow2_scan *scan, uint8_t *buffer)
{
    struct scan_table **left = xcalloc(scan->table_count + 1, sizeof(*left));
    size_t n = 0;
    int ret = 0;

    for (size_t i = 0; i < scan->table_slots; i++) {
        if (scan->tables[i].offset && !scan->tables[i].is_done) {
            left[n++] = &scan->tables[i];
        }
    }
    qsort(left, n, sizeof(*left), compare_offsets);
    for (size_t i = 0; i < n && ret == 0; i++) {
        ret = co_see_table(scan, left[i], buffer);
    }
    free(left);
    return ret;
}

int co_scan_roots(struct qcow2_scan *scan, const struct scan_root *roots, size_t count)
{
    uint8_t *buffer = xmalloc(scan->s->cluster_size);
    int ret = 0;

    for (size_t i = 0; i < count && ret == 0; i++) {
        uint64_t bytes = (uint64_t)roots[i].l1_size * 8;
        if (!scan->tables_move && !scan_count(scan, roots[i].l1_offset, bytes, roots[i].refs)) {
            continue;
        }
        if (scan->tables_move && roots[i].is_old) {
            scan_pin(scan, roots[i].l1_offset, bytes);
        }
        ret = co_each_l1_entry(scan, &roots[i], co_register_entry, NULL);
    }
    for (size_t i = 0; i < count && ret == 0; i++) {
        if (roots[i].is_active) {
            ret = co_each_l1_entry(scan, &roots[i], co_see_active_entry, buffer);
        }
    }
    if (ret == 0) {
        ret = co_see_other_tables(scan, buffer);
    }
    free(buffer);
    return ret;
}
