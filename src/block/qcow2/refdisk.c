/* SPDX-License-Identifier: MIT */
#include "block/qcow2/refdisk.h"

#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "block/qcow2/direct.h"

void refdisk_init(struct refdisk *disk, struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    *disk = (struct refdisk){.node = node, .s = s, .piece = MIN(s->cluster_size, QCOW2_SLICE)};
}

void refdisk_destroy(struct refdisk *disk)
{
    for (unsigned i = 0; i < REFDISK_WAYS; i++) {
        free(disk->data[i]);
    }
}

int refdisk_place(const struct qcow2_state *s, uint64_t cluster, uint64_t *block, uint64_t *index)
{
    uint64_t i = cluster >> s->refblock_bits;

    *index = cluster & (BIT64(s->refblock_bits) - 1);
    *block = i < s->reftable_size ? s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK : 0;
    return *block & (s->cluster_size - 1) ? -EIO : 0;
}

int co_refdisk_get(struct refdisk *disk, uint64_t cluster, uint64_t *count)
{
    struct qcow2_state *s = disk->s;
    uint64_t block, index;

    *count = 0;
    if (refdisk_place(s, cluster, &block, &index) < 0) {
        return -EIO;
    }
    if (!block) {
        return 0;
    }
    uint64_t byte = index << s->refcount_order >> 3;
    uint64_t offset = block + align_down(byte, disk->piece);
    unsigned way = (offset / disk->piece) % REFDISK_WAYS;
    if (!disk->data[way]) {
        disk->data[way] = xmalloc(disk->piece);
        disk->offset[way] = UINT64_MAX;
    }
    if (disk->offset[way] != offset) {
        disk->offset[way] = UINT64_MAX;
        int ret = co_direct_read(disk->node, offset, disk->data[way], disk->piece);
        if (ret < 0) {
            return ret;
        }
        disk->offset[way] = offset;
    }
    /* The piece holds whole refcounts: index within it. */
    uint64_t per_piece = (uint64_t)disk->piece * 8 >> s->refcount_order;
    *count = refcount_load(disk->data[way], s->refcount_order, index % per_piece);
    return 0;
}
