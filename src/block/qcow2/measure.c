/* SPDX-License-Identifier: MIT */
/*
 * What an image would take, in qemu-img's numbers: all clusters of metadata as if the disk was full,
 * and the clusters that have data.
 */
#include <errno.h>
#include <string.h>

#include "base/options.h"
#include "block/bitmap.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/create.h"

struct counting {
    struct block_node *source;
    uint32_t cluster_size;
    uint64_t bytes; /* clusters that have data */
};

/* Data counts to the end of its cluster; where the next extent begins within that, it is looked at
 * from the next cluster on. */
static int co_count(void *opaque)
{
    struct counting *c = opaque;
    uint64_t size = block_length(c->source), length, map;

    for (uint64_t at = 0; at < size; at += length) {
        length = size - at;
        int status = block_co_status_above(c->source, NULL, at, &length, &map, NULL, NULL);
        if (status < 0) {
            return status;
        }
        if (status & BLOCK_STATUS_ZERO) {
            continue;
        }
        uint64_t start = align_down(at, c->cluster_size);
        uint64_t end = align_up(at + length, c->cluster_size);
        c->bytes += end - start;
        length = end - at;
    }
    return 0;
}

/* Of the source's persistent bitmaps that can be copied. */
static uint64_t bitmaps_size(struct block_node *source, const struct qcow2_layout *l)
{
    const struct qcow2_state target = {.cluster_bits = (unsigned)__builtin_ctz(l->cluster_size),
                                       .cluster_size = l->cluster_size};
    uint64_t bytes = 0, dir = 0;

    for (struct block_bitmap *b = source->bitmaps; b; b = b->next) {
        if (!b->persistent || b->inconsistent) {
            continue;
        }
        uint64_t data =
            qcow2_bitmap_table_size(&target, b->length, (unsigned)__builtin_ctz(b->granularity));
        bytes += data * l->cluster_size + align_up(data * 8, l->cluster_size);
        dir += qcow2_bitmap_entry_size(strlen(b->name), 0);
    }
    return bytes + align_up(dir, l->cluster_size);
}

static bool keeps_bitmaps(const struct block_node *source)
{
    return source->driver->image == &qcow2_image_ops &&
           ((const struct qcow2_state *)source->state)->version >= 3;
}

static bool measure(const struct qcow2_create_options *o, struct block_node *source,
                    struct block_measure *m, struct error **errp)
{
    struct qcow2_create_options full = *o;
    struct qcow2_layout l;
    struct counting count = {.source = source, .cluster_size = UINT32_C(1) << o->cluster_bits};

    full.prealloc = BLOCK_PREALLOC_METADATA;
    full.data_file = NULL;
    if (!qcow2_plan_layout(&full, &l)) {
        error_set(errp, "The image size is too large (try using a larger cluster size)");
        return false;
    }
    uint64_t metadata = (l.clusters - l.data_clusters) * l.cluster_size;
    uint64_t all = l.data_clusters * l.cluster_size;
    if (source && o->backing_file) {
        count.bytes = all; /* how much of the chain they would share is not known */
    } else if (source) {
        int ret = block_run(co_count, &count);
        if (ret < 0) {
            error_set_errno(errp, -ret, "Unable to get block status of '%s'", source->filename);
            return false;
        }
    }
    bool preallocates = o->prealloc == BLOCK_PREALLOC_FALLOC || o->prealloc == BLOCK_PREALLOC_FULL;
    m->fully_allocated = metadata + all;
    m->required = metadata + (preallocates ? all : count.bytes);
    struct block_node *format = source ? block_node_skip_filters(source) : NULL;
    m->has_bitmaps = format && o->version >= 3 && keeps_bitmaps(format);
    m->bitmaps = m->has_bitmaps ? bitmaps_size(format, &l) : 0;
    return true;
}

bool qcow2_measure(struct options *opts, struct block_node *source, uint64_t size,
                   struct block_measure *m, struct error **errp)
{
    struct qcow2_create_options o;
    bool ok = qcow2_parse_create_options(opts, &o, errp);

    o.size = align_up(source ? block_length(source) : size, 512);
    ok = ok && measure(&o, source, m, errp);
    qcow2_create_options_free(&o);
    return ok;
}
