/* SPDX-License-Identifier: MIT */
/*
 * Copies that the host makes without the data's passing through us: copy_file_range(2), which shares
 * blocks on file systems that can, and copies in the kernel on others.
 *
 * Only between files under raw images: there a byte of the image is a byte of the file.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "aio/io.h"
#include "base/range.h"
#include "block/file.h"

struct copy_range {
    int from, to;
    uint64_t from_offset, to_offset, length;
};

/* In a worker. */
static int copy(void *opaque)
{
    struct copy_range *c = opaque;

    while (c->length) {
        off_t from = (off_t)c->from_offset, to = (off_t)c->to_offset;
        ssize_t n = copy_file_range(c->from, &from, c->to, &to, c->length, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EBADF ||
                           errno == EOPNOTSUPP || errno == ETXTBSY
                       ? -ENOTSUP
                       : -errno;
        }
        if (!n) {
            return -ENOTSUP; /* behind the end of the file: reading knows what is there */
        }
        c->from_offset += n;
        c->to_offset += n;
        c->length -= n;
    }
    return 0;
}

/* The file that has the bytes of the node at *offset, which becomes the offset there; NULL if it is
 * not simply a part of a regular file. */
static struct block_node *find_file(struct block_node *node, uint64_t *offset)
{
    if (strcmp(node->driver->name, "raw") != 0 || !node->file || node->flags & BLOCK_OPEN_PROBED) {
        return NULL;
    }
    uint64_t length = 1, map;
    int status = block_co_status(node, *offset, &length, &map);
    if (status < 0 || !(status & BLOCK_STATUS_OFFSET_VALID) ||
        strcmp(node->file->driver->name, "file") != 0) {
        return NULL;
    }
    *offset = map;
    return node->file;
}

int block_co_copy_range(struct block_node *from, uint64_t from_offset, struct block_node *to,
                        uint64_t to_offset, uint64_t length)
{
    if (!(to->flags & BLOCK_OPEN_RDWR)) {
        return -EROFS;
    }
    if (!range_fits(from_offset, length, block_length(from)) ||
        !range_fits(to_offset, length, block_length(to))) {
        return -EIO;
    }
    struct block_node *source = find_file(from, &from_offset);
    struct block_node *target = find_file(to, &to_offset);
    if (!source || !target || source == target || atomic_load(&to->bitmaps)) {
        return -ENOTSUP;
    }
    struct file_state *from_file = source->state, *to_file = target->state;
    if (!range_fits(to_offset, length, atomic_load(&to_file->eof))) {
        return -ENOTSUP; /* the file gets longer: file_co_pwritev() keeps count of that */
    }
    struct copy_range c = {from_file->fd, to_file->fd, from_offset, to_offset, length};
    int ret = co_thread_pool(copy, &c);
    atomic_store(&target->unflushed, true); /* a part may have been written */
    return ret;
}
