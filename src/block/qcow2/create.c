/* SPDX-License-Identifier: MIT */
/*
 * New images. Everything is written before the header is, so that at no time a half-made image
 * looks like one; what a block device held before is overwritten first. See create.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/options.h"
#include "block/filename.h"
#include "block/iov.h"
#include "block/qcow2/create.h"

#define STREAM_SIZE MiB

/* ---- layout ---------------------------------------------------------------------------------- */

static uint64_t div_up(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

/* Refcount blocks count themselves and the table: more until it is enough. */
static void plan_refcounts(struct qcow2_layout *l, uint64_t other_clusters, unsigned order)
{
    uint64_t entries = (uint64_t)l->cluster_size * 8 >> order;
    uint64_t blocks = 1, table = 1, clusters;

    for (;;) {
        clusters = other_clusters + blocks + table;
        uint64_t need = div_up(clusters, entries);
        uint64_t need_table = div_up(need * 8, l->cluster_size);
        if (need <= blocks && need_table <= table) {
            break;
        }
        blocks = MAX(need, blocks);
        table = MAX(need_table, table);
    }
    l->refblocks = blocks;
    l->reftable_clusters = table;
    l->clusters = clusters;
}

bool qcow2_plan_layout(const struct qcow2_create_options *o, struct qcow2_layout *layout)
{
    struct qcow2_layout *l = layout;
    uint32_t cluster = 1u << o->cluster_bits;

    *l = (struct qcow2_layout){.cluster_size = cluster, .l2_entry_size = o->extended_l2 ? 16 : 8};
    l->l2_entries = cluster / l->l2_entry_size;
    l->l1_entries = div_up(o->size, l->l2_entries << o->cluster_bits);
    if (l->l1_entries > QCOW2_MAX_L1_BYTES / 8) {
        return false;
    }
    l->l1_clusters = div_up(l->l1_entries * 8, cluster);
    if (o->prealloc != BLOCK_PREALLOC_OFF) {
        l->l2_tables = l->l1_entries;
        l->data_clusters = o->data_file ? 0 : div_up(o->size, cluster);
    }
    plan_refcounts(l, 1 + l->l1_clusters + l->l2_tables + l->data_clusters, o->refcount_order);
    l->reftable_offset = cluster;
    l->refblock_offset = l->reftable_offset + (l->reftable_clusters << o->cluster_bits);
    l->l1_offset = l->refblock_offset + (l->refblocks << o->cluster_bits);
    l->l2_offset = l->l1_offset + (l->l1_clusters << o->cluster_bits);
    l->data_offset = l->l2_offset + (l->l2_tables << o->cluster_bits);
    l->end = l->data_offset + (l->data_clusters << o->cluster_bits);
    return true;
}

/* ---- tables, written one after the other ------------------------------------------------------- */

struct stream {
    struct block_node *node;
    uint64_t offset;
    uint8_t *buffer;
    size_t fill;
    int ret;
};

static void co_stream_flush(struct stream *stream)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, stream->buffer, stream->fill);

    if (stream->ret == 0 && stream->fill) {
        stream->ret = block_co_pwritev(stream->node, stream->offset, &iov, 0, 0);
    }
    stream->offset += stream->fill;
    stream->fill = 0;
}

/* A negative errno that came since the last seek. */
static int co_stream_end(struct stream *stream)
{
    co_stream_flush(stream);
    return stream->ret;
}

static uint8_t *co_stream_room(struct stream *stream, size_t size)
{
    if (stream->fill + size > STREAM_SIZE) {
        co_stream_flush(stream);
    }
    stream->fill += size;
    return stream->buffer + stream->fill - size;
}

static void co_stream_be64(struct stream *stream, uint64_t value)
{
    store_be64(co_stream_room(stream, 8), value);
}

static void co_stream_seek(struct stream *stream, uint64_t offset)
{
    co_stream_flush(stream);
    stream->offset = offset;
}

/* A cluster of refcounts of which the first `used` are 1. */
static void fill_refblock(uint8_t *block, uint32_t size, unsigned order, uint64_t used)
{
    memset(block, 0, size);
    if (order < 3) {
        static const uint8_t ones[] = {0xff, 0x55, 0x11};
        unsigned per_byte = 8u >> order;
        memset(block, ones[order], used / per_byte);
        if (used % per_byte) {
            block[used / per_byte] =
                ones[order] & (uint8_t)((1u << (used % per_byte << order)) - 1);
        }
        return;
    }
    unsigned bytes = 1u << (order - 3);
    for (uint64_t i = 0; i < used; i++) {
        block[(i + 1) * bytes - 1] = 1;
    }
}

static void co_write_refcounts(struct stream *stream, const struct qcow2_layout *l, unsigned order)
{
    uint64_t entries = (uint64_t)l->cluster_size * 8 >> order, left = l->clusters;

    co_stream_seek(stream, l->reftable_offset);
    for (uint64_t i = 0; i < l->refblocks; i++) {
        co_stream_be64(stream, l->refblock_offset + i * l->cluster_size);
    }
    co_stream_seek(stream, l->refblock_offset);
    for (uint64_t i = 0; i < l->refblocks && stream->ret == 0; i++) {
        uint64_t used = MIN(left, entries);
        co_stream_flush(stream); /* a refcount block may be as large as the buffer, or twice that */
        stream->buffer = xrealloc(stream->buffer, MAX(STREAM_SIZE, l->cluster_size));
        fill_refblock(stream->buffer, l->cluster_size, order, used);
        stream->fill = l->cluster_size;
        left -= used;
    }
    co_stream_flush(stream);
}

/* L1 and L2 of an image whose clusters are all there. In a data file they are where the guest has
 * them. Subclusters of extended L2 entries stay unallocated: the clusters only wait for them. */
static void co_write_maps(struct stream *stream, const struct qcow2_create_options *o,
                          const struct qcow2_layout *l)
{
    uint64_t clusters = div_up(o->size, l->cluster_size);

    co_stream_seek(stream, l->l1_offset);
    for (uint64_t i = 0; i < l->l1_entries; i++) {
        co_stream_be64(stream, (l->l2_offset + i * l->cluster_size) | QCOW2_COPIED);
    }
    co_stream_seek(stream, l->l2_offset);
    for (uint64_t i = 0; i < clusters && stream->ret == 0; i++) {
        co_stream_be64(stream,
                       (l->data_offset * !o->data_file + i * l->cluster_size) | QCOW2_COPIED);
        if (o->extended_l2) {
            co_stream_be64(stream, o->data_file_raw ? QCOW2_SUB_ALLOC : 0);
        }
    }
    co_stream_flush(stream);
}

/* An L1 table without entries, which has its space on the host nevertheless: data that fills that
 * must not keep us from saying where it is. */
static void co_write_empty_l1(struct stream *stream, const struct qcow2_layout *l)
{
    co_stream_seek(stream, l->l1_offset);
    for (uint64_t i = 0; i < l->l1_entries; i++) {
        co_stream_be64(stream, 0);
    }
    co_stream_flush(stream);
}

/* ---- the file -------------------------------------------------------------------------------- */

struct create {
    /* constant */
    struct block_node *file;
    const struct qcow2_create_options *o;
    const struct qcow2_layout *l;
    const uint8_t *header; /* a cluster */
    struct error **errp;
};

/* What is behind the last table and within the file belongs to nothing yet; its end is at a multiple
 * of what O_DIRECT may want. */
static uint64_t tables_end(const struct qcow2_layout *l)
{
    uint64_t l1_end = l->l1_offset + l->l1_entries * 8;

    return l->l2_tables ? l->data_offset : align_up(l1_end, MIN(l->cluster_size, 4096u));
}

static uint64_t file_end(const struct qcow2_layout *l)
{
    return l->data_clusters ? l->end : tables_end(l);
}

/* A file that has no bytes yet reads as zeroes; a block device has what it had. */
static int co_clear(const struct create *c)
{
    if (!block_length(c->file)) {
        return 0;
    }
    uint64_t end = file_end(c->l);
    int ret = block_co_write_zeroes(
        c->file, 0, c->file->grows ? MIN(end, block_length(c->file)) : end, BLOCK_REQ_MAY_UNMAP);
    return ret == 0 ? block_co_flush(c->file, 0) : ret;
}

static int co_set_length(const struct create *c)
{
    uint64_t tables = tables_end(c->l), end = file_end(c->l);
    int ret = 0;

    if (!c->file->grows) {
        return 0;
    }
    if (block_length(c->file) < tables) {
        ret = block_co_truncate(c->file, tables, BLOCK_PREALLOC_OFF, c->errp);
    }
    if (ret == 0 && block_length(c->file) < end) {
        ret = block_co_truncate(c->file, end, c->o->prealloc, c->errp);
    }
    return ret;
}

static int co_write_tables(const struct create *c)
{
    struct stream stream = {.node = c->file, .buffer = xmalloc(STREAM_SIZE)};

    co_write_refcounts(&stream, c->l, c->o->refcount_order);
    if (c->l->l2_tables) {
        co_write_maps(&stream, c->o, c->l);
    } else {
        co_write_empty_l1(&stream, c->l);
    }
    int ret = co_stream_end(&stream);
    free(stream.buffer);
    return ret;
}

static int co_write_new_header(const struct create *c)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, (void *)c->header, c->l->cluster_size);
    int ret = block_co_flush(c->file, 0);

    if (ret == 0) {
        ret = block_co_pwritev(c->file, 0, &iov, 0, 0);
    }
    return ret == 0 ? block_co_flush(c->file, 0) : ret;
}

static int co_create(void *opaque)
{
    const struct create *c = opaque;
    int ret = co_clear(c);

    if (ret == 0) {
        ret = co_write_tables(c);
    }
    if (ret == 0) {
        ret = co_set_length(c);
        if (ret < 0) {
            return ret; /* has said why */
        }
        ret = co_write_new_header(c);
    }
    if (ret < 0) {
        error_set_errno(c->errp, -ret, "Could not write qcow2 metadata to '%s'", c->file->filename);
    }
    return ret;
}

/* ---- data file ------------------------------------------------------------------------------- */

/* A relative name begins, like a backing file's, at the folder of the image. *made: its path, if it was
 * not there before. */
static bool create_data_file(const struct block_node *file, const struct qcow2_create_options *o,
                             char **made, struct error **errp)
{
    autofree char *path = block_image_data_path(file->filename, o->data_file, errp);
    autofree char *size = xasprintf("%" PRIu64, o->size);
    struct options *opts = path ? block_filename_parse(path, errp) : NULL;

    if (!opts) {
        return false;
    }
    autofree char *name = options_take(opts, "driver");
    const struct block_driver *driver = name ? block_driver_find(name) : NULL;
    bool ok = driver && driver->create;
    if (!ok) {
        error_set(errp, "Protocol driver '%s' does not support creating new images",
                  name ? name : path);
    } else {
        const char *filename = options_get(opts, "filename");
        autofree char *target = filename ? xstrdup(filename) : NULL;
        bool existed = !target || access(target, F_OK) == 0;
        options_set(opts, "size", size);
        options_set(opts, "preallocation", block_prealloc_names[o->prealloc]);
        ok = (!target || block_image_check_unused(target, errp)) && driver->create(opts, errp);
        if (!existed && access(target, F_OK) == 0) {
            *made = xstrdup(target);
        }
    }
    options_free(opts);
    return ok;
}

/* ---- all ------------------------------------------------------------------------------------- */

static int encode_header(const struct qcow2_create_options *o, const struct qcow2_layout *l,
                         void *cluster)
{
    const struct qcow2_state s = {
        .version = o->version,
        .cluster_bits = o->cluster_bits,
        .cluster_size = l->cluster_size,
        .refcount_order = o->refcount_order,
        .compression = o->compression,
        .size = o->size,
        .l1_offset = l->l1_offset,
        .l1_size = (uint32_t)l->l1_entries,
        .reftable_offset = l->reftable_offset,
        .reftable_size = (uint32_t)(l->reftable_clusters * l->cluster_size / 8),
        .backing_name = o->backing_file,
        .backing_format = o->backing_format,
        .data_file_name = o->data_file,
        .incompatible = (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                        (o->compression ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                        (o->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0),
        .compatible = o->lazy_refcounts ? QCOW2_COMPAT_LAZY : 0,
        .autoclear = o->data_file_raw ? QCOW2_AUTOCLEAR_DATA_RAW : 0,
    };

    return qcow2_encode_header(&s, cluster);
}

/* The header, a cluster, which the caller frees; NULL if there cannot be such an image. */
static uint8_t *plan_image(const struct qcow2_create_options *o, struct qcow2_layout *layout,
                           struct error **errp)
{
    if (!qcow2_plan_layout(o, layout) ||
        layout->reftable_clusters > QCOW2_MAX_REFTABLE_BYTES >> o->cluster_bits ||
        layout->clusters > QCOW2_MAX_OFFSET >> o->cluster_bits) {
        error_set(errp, "The image size is too large for file format 'qcow2' (try using a larger "
                        "cluster size)");
        return NULL;
    }
    uint8_t *header = xmalloc(layout->cluster_size);
    if (encode_header(o, layout, header) < 0) {
        error_set(errp,
                  "The names of the backing file and the data file do not fit into a cluster "
                  "of %" PRIu32 " bytes; use a larger cluster_size or shorter names",
                  layout->cluster_size);
        free(header);
        return NULL;
    }
    return header;
}

static bool create_image(struct block_node *file, const struct qcow2_create_options *o,
                         struct error **errp)
{
    struct qcow2_layout layout;
    autofree uint8_t *header = plan_image(o, &layout, errp);
    autofree char *made = NULL;

    if (!header) {
        return false;
    }
    uint64_t end = file_end(&layout);
    if (!file->grows && end > block_length(file)) {
        error_set_errno(errp, ENOSPC, "'%s' has %" PRIu64 " bytes, the image needs %" PRIu64,
                        file->filename, block_length(file), end);
        return false;
    }
    struct create create = {.file = file, .o = o, .l = &layout, .header = header, .errp = errp};
    bool ok = (!o->data_file || create_data_file(file, o, &made, errp)) &&
              block_run(co_create, &create) == 0;
    if (!ok && made) {
        unlink(made);
    }
    return ok;
}

bool qcow2_check_create(struct options *opts, struct error **errp)
{
    struct qcow2_create_options o;
    struct qcow2_layout layout;
    uint8_t *header =
        qcow2_parse_create_options(opts, &o, errp) ? plan_image(&o, &layout, errp) : NULL;
    bool ok = header;

    free(header);
    qcow2_create_options_free(&o);
    return ok;
}

bool qcow2_create(struct block_node *file, struct options *opts, struct error **errp)
{
    struct qcow2_create_options o;
    bool ok = qcow2_parse_create_options(opts, &o, errp) && create_image(file, &o, errp);

    qcow2_create_options_free(&o);
    return ok;
}
