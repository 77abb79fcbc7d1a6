/* SPDX-License-Identifier: MIT */
/* The directory of bitmaps. See bitmap.h. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/bitmap.h"
#include "block/qcow2/bitmap.h"

#define ENTRY_SIZE 24u /* without extra data and name */

void qcow2_bitmap_free(struct qcow2_bitmap *bitmap)
{
    if (bitmap) {
        free(bitmap->name);
        free(bitmap->extra);
        free(bitmap);
    }
}

uint64_t qcow2_bitmap_entry_size(size_t name_length, uint32_t extra_size)
{
    return align_up(ENTRY_SIZE + (uint64_t)extra_size + name_length, 8);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* The entry at *at of a directory of `size` bytes; *at becomes where the next one is. */
static struct qcow2_bitmap *parse_entry(const uint8_t *dir, uint64_t size, uint64_t *at)
{
    if (!range_fits(*at, ENTRY_SIZE, size)) {
        return NULL;
    }
    const uint8_t *p = dir + *at;
    uint32_t extra_size = load_be32(p + 20);
    uint16_t name_size = load_be16(p + 18);
    if (!range_fits(*at, qcow2_bitmap_entry_size(name_size, extra_size), size) || !name_size ||
        name_size > BLOCK_BITMAP_NAME_MAX) {
        return NULL;
    }
    const char *name = (const char *)p + ENTRY_SIZE + extra_size;
    if (memchr(name, 0, name_size)) {
        return NULL;
    }
    struct qcow2_bitmap *bitmap = xnew(struct qcow2_bitmap);
    *bitmap = (struct qcow2_bitmap){
        .name = xstrndup(name, name_size),
        .table_offset = load_be64(p),
        .table_size = load_be32(p + 8),
        .flags = load_be32(p + 12),
        .type = p[16],
        .granularity_bits = p[17],
        .extra = extra_size ? xmemdup(p + ENTRY_SIZE, extra_size) : NULL,
        .extra_size = extra_size,
    };
    *at += qcow2_bitmap_entry_size(name_size, extra_size);
    return bitmap;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(struct qcow2_bitmap *const *)a)->name,
                  (*(struct qcow2_bitmap *const *)b)->name);
}

static const char *find_twin(struct qcow2_bitmap *const *list, uint32_t count)
{
    autofree struct qcow2_bitmap **sorted = xmemdup(list, count * sizeof(*list));

    qsort(sorted, count, sizeof(*sorted), compare_names);
    for (uint32_t i = 1; i < count; i++) {
        if (!strcmp(sorted[i - 1]->name, sorted[i]->name)) {
            return sorted[i]->name;
        }
    }
    return NULL;
}

static bool parse_dir(const struct qcow2_state *s, const uint8_t *dir, struct qcow2_bitmap **list,
                      struct error **errp)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < s->bitmap_count; i++) {
        uint64_t start = at;
        list[i] = parse_entry(dir, s->bitmap_dir_size, &at);
        if (!list[i]) {
            error_set(errp,
                      "Broken bitmap directory: entry %" PRIu32 " at offset %" PRIu64
                      " is impossible",
                      i, start);
            return false;
        }
    }
    if (at != s->bitmap_dir_size) {
        error_set(errp, "Broken bitmap directory: it has %" PRIu64 " bytes, its entries %" PRIu64,
                  s->bitmap_dir_size, at);
        return false;
    }
    const char *twin = find_twin(list, s->bitmap_count);
    if (twin) {
        error_set(errp, "Broken bitmap directory: there are two bitmaps '%s'", twin);
    }
    return !twin;
}

const char *qcow2_bitmap_fault(const struct qcow2_state *s, const struct qcow2_bitmap *b)
{
    if (b->flags & ~QCOW2_BITMAP_KNOWN_FLAGS) {
        return "has unknown flags";
    }
    if (b->type != QCOW2_BITMAP_TYPE_DIRTY) {
        return "is of an unknown type";
    }
    if (b->granularity_bits < QCOW2_BITMAP_MIN_BITS ||
        b->granularity_bits > QCOW2_BITMAP_MAX_BITS) {
        return "has an impossible granularity";
    }
    if (!b->table_offset || b->table_offset & (s->cluster_size - 1) || !b->table_size ||
        b->table_size > QCOW2_MAX_BITMAP_TABLE ||
        (!(b->flags & QCOW2_BITMAP_IN_USE) &&
         b->table_size != qcow2_bitmap_table_size(s, s->size, b->granularity_bits))) {
        return "has a table that does not fit";
    }
    if (!s->size && !(b->flags & QCOW2_BITMAP_IN_USE)) {
        return "belongs to a disk of 0 bytes";
    }
    return NULL;
}

void qcow2_free_bitmap_list(struct qcow2_bitmap **list, uint32_t count)
{
    for (uint32_t i = 0; list && i < count; i++) {
        qcow2_bitmap_free(list[i]);
    }
    free(list);
}

int co_qcow2_read_bitmap_dir(struct block_node *node, struct qcow2_bitmap ***list,
                             struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    autofree uint8_t *dir = malloc(s->bitmap_dir_size); /* bounded by header.c */

    if (!dir) {
        error_set_errno(errp, ENOMEM, "Could not read the bitmap directory of '%s'",
                        node->filename);
        return -ENOMEM;
    }
    int ret = co_qcow2_pread(node, s->bitmap_dir_offset, dir, s->bitmap_dir_size);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the bitmap directory of '%s'", node->filename);
        return ret;
    }
    *list = xcalloc(s->bitmap_count, sizeof(struct qcow2_bitmap *));
    if (!parse_dir(s, dir, *list, errp)) {
        qcow2_free_bitmap_list(*list, s->bitmap_count);
        *list = NULL;
        return -EINVAL;
    }
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

static uint8_t *encode_dir(struct qcow2_bitmap *const *list, uint32_t count, uint64_t *size)
{
    *size = 0;
    for (uint32_t i = 0; i < count; i++) {
        *size += qcow2_bitmap_entry_size(strlen(list[i]->name), list[i]->extra_size);
    }
    uint8_t *dir = xcalloc(1, *size), *p = dir;
    for (uint32_t i = 0; i < count; i++) {
        const struct qcow2_bitmap *b = list[i];
        size_t name_size = strlen(b->name);
        store_be64(p, b->table_offset);
        store_be32(p + 8, b->table_size);
        store_be32(p + 12, b->flags);
        p[16] = b->type;
        p[17] = b->granularity_bits;
        store_be16(p + 18, (uint16_t)name_size);
        store_be32(p + 20, b->extra_size);
        if (b->extra_size) {
            memcpy(p + ENTRY_SIZE, b->extra, b->extra_size);
        }
        memcpy(p + ENTRY_SIZE + b->extra_size, b->name, name_size);
        p += qcow2_bitmap_entry_size(name_size, b->extra_size);
    }
    return dir;
}

struct where {
    uint64_t offset, size;
    uint32_t count;
};

static struct where where_is(const struct qcow2_state *s)
{
    return (struct where){s->bitmap_dir_offset, s->bitmap_dir_size, s->bitmap_count};
}

static void set_where(struct qcow2_state *s, const struct where *to)
{
    s->bitmap_dir_offset = to->offset;
    s->bitmap_dir_size = to->size;
    s->bitmap_count = to->count;
    s->autoclear = to->count ? s->autoclear | QCOW2_AUTOCLEAR_BITMAPS
                             : s->autoclear & ~QCOW2_AUTOCLEAR_BITMAPS;
}

/* If the header cannot be written, nobody knows which directory it has: both stay. */
static int co_switch(struct block_node *node, const struct where *to)
{
    struct qcow2_state *s = qcow2_of(node);
    struct where was = where_is(s);

    set_where(s, to);
    int ret = co_qcow2_write_header(node, NULL);
    s->bitmap_dir_unsure = ret < 0;
    if (ret < 0) {
        set_where(s, &was);
        return ret;
    }
    co_mutex_lock(&s->lock);
    if (was.count) {
        qcow2_metadata_remove(s, QCOW2_OVERLAP_BITMAPS, was.offset, was.size);
        qcow2_free(node, was.offset, was.size, false);
    }
    qcow2_metadata_add(s, QCOW2_OVERLAP_BITMAPS, to->offset, to->size);
    co_mutex_unlock(&s->lock);
    return 0;
}

int co_qcow2_write_bitmap_dir(struct block_node *node, struct qcow2_bitmap **list, uint32_t count)
{
    struct qcow2_state *s = qcow2_of(node);
    struct where to = {.count = count};

    if (!count) {
        int ret = co_qcow2_mark_clean(node);
        return ret < 0 || !s->bitmap_count ? ret : co_switch(node, &to);
    }
    autofree uint8_t *dir = encode_dir(list, count, &to.size);
    co_mutex_lock(&s->lock);
    int64_t offset = co_qcow2_alloc_clusters(node, qcow2_align_cluster(s, to.size));
    int ret = offset < 0 ? (int)offset : qcow2_check_overlap(node, 0, (uint64_t)offset, to.size);
    co_mutex_unlock(&s->lock);
    if (ret < 0) {
        return ret;
    }
    to.offset = (uint64_t)offset;
    ret = co_qcow2_pwrite(node, to.offset, dir, to.size);
    if (ret == 0) {
        ret = co_qcow2_mark_clean(node); /* flushes data and refcounts */
    }
    if (ret < 0) {
        co_mutex_lock(&s->lock);
        co_qcow2_unref(node, to.offset, to.size, false);
        co_mutex_unlock(&s->lock);
        return ret;
    }
    return co_switch(node, &to);
}

int co_qcow2_rewrite_bitmap_dir(struct block_node *node, struct qcow2_bitmap **list, uint32_t count)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t size;

    autofree uint8_t *dir = encode_dir(list, count, &size);
    assert(size == s->bitmap_dir_size && count == s->bitmap_count && !s->bitmap_dir_unsure);
    co_mutex_lock(&s->lock);
    int ret = qcow2_check_overlap(node, QCOW2_OVERLAP_BITMAPS, s->bitmap_dir_offset, size);
    co_mutex_unlock(&s->lock);
    if (ret == 0) {
        ret = co_qcow2_mark_clean(node); /* flushes */
    }
    if (ret == 0) {
        ret = co_qcow2_pwrite(node, s->bitmap_dir_offset, dir, size);
    }
    return ret < 0 ? ret : block_co_flush(node->file, 0);
}
