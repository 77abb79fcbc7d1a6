/* SPDX-License-Identifier: MIT */
#include "block/qcow2/direct.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/qcow2/qcow2.h"

static struct block_iov iov_of(struct iovec *vec, void *data, size_t size)
{
    *vec = (struct iovec){.iov_base = data, .iov_len = size};
    return (struct block_iov){.iov = vec, .niov = 1, .size = size};
}

int co_direct_read(struct block_node *node, uint64_t offset, void *to, size_t size)
{
    uint64_t length = block_length(node->file);
    size_t there = offset < length ? MIN(size, length - offset) : 0;
    struct iovec vec;

    memset((uint8_t *)to + there, 0, size - there);
    struct block_iov iov = iov_of(&vec, to, there);
    return there ? block_co_preadv(node->file, offset, &iov, 0, 0) : 0;
}

/* Whatever comes of it, and of the whole operation: the clusters are not fresh any more. */
int co_direct_write(struct block_node *node, uint64_t offset, const void *from, size_t size)
{
    struct qcow2_state *s = qcow2_of(node);
    struct iovec vec;
    struct block_iov iov = iov_of(&vec, (void *)(uintptr_t)from, size);

    s->fresh_from = MAX(s->fresh_from, qcow2_align_cluster(s, offset + size));
    return block_co_pwritev(node->file, offset, &iov, 0, 0);
}

int co_direct_flush(struct block_node *node)
{
    return block_co_flush(node->file, 0);
}

bool co_direct_is_hole(struct block_node *node, uint64_t offset, uint64_t size)
{
    uint64_t end = MIN(offset + size, block_length(node->file));

    while (offset < end) {
        uint64_t length = end - offset, map;
        int status = block_co_status(node->file, offset, &length, &map);
        if (status < 0 || !(status & BLOCK_STATUS_ZERO) || !length) {
            return false;
        }
        offset += length;
    }
    return true;
}

/* ---- piece by piece -------------------------------------------------------------------------- */

void direct_reader_init(struct direct_reader *reader, struct block_node *node, uint64_t offset,
                        uint64_t size)
{
    *reader = (struct direct_reader){
        .node = node, .offset = offset, .end = offset + size, .buffer = xmalloc(DIRECT_BUFFER)};
}

void direct_reader_free(struct direct_reader *reader)
{
    free(reader->buffer);
}

int co_direct_take(struct direct_reader *reader, void *to, size_t size)
{
    uint8_t *p = to;

    if (size > reader->end - reader->offset) {
        return -EFBIG;
    }
    while (size) {
        if (reader->used == reader->have) {
            size_t n = MIN((uint64_t)DIRECT_BUFFER, reader->end - reader->offset);
            int ret = co_direct_read(reader->node, reader->offset, reader->buffer, n);
            if (ret < 0) {
                return ret;
            }
            reader->have = n;
            reader->used = 0;
        }
        size_t n = MIN(size, reader->have - reader->used);
        memcpy(p, reader->buffer + reader->used, n);
        reader->used += n;
        reader->offset += n;
        p += n;
        size -= n;
    }
    return 0;
}

int direct_skip(struct direct_reader *reader, uint64_t size)
{
    if (size > reader->end - reader->offset) {
        return -EFBIG;
    }
    if (size <= reader->have - reader->used) {
        reader->used += size;
    } else {
        reader->have = reader->used = 0;
    }
    reader->offset += size;
    return 0;
}
