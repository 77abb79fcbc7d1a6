/* SPDX-License-Identifier: MIT */
/* Lists of buffers. See iov.h. */
#include "block/iov.h"

#include <string.h>

#include "aio/coroutine.h"
#include "base/range.h"

/* Where `offset` lies: the index of its buffer; *skip: the bytes of that buffer before it. */
static int find(const struct block_iov *iov, uint64_t offset, size_t *skip)
{
    int i = 0;

    while (i < iov->niov && offset >= iov->iov[i].iov_len) {
        offset -= iov->iov[i++].iov_len;
    }
    *skip = offset;
    return i;
}

void block_iov_read(const struct block_iov *iov, uint64_t offset, void *to, size_t length)
{
    size_t skip;
    char *p = to;

    for (int i = find(iov, offset, &skip); length && i < iov->niov; i++, skip = 0) {
        size_t n = MIN(length, iov->iov[i].iov_len - skip);
        if (!n) {
            continue; /* an empty buffer may have no address */
        }
        memcpy(p, (char *)iov->iov[i].iov_base + skip, n);
        p += n;
        length -= n;
    }
}

void block_iov_write(const struct block_iov *iov, uint64_t offset, const void *from, size_t length)
{
    size_t skip;
    const char *p = from;

    for (int i = find(iov, offset, &skip); length && i < iov->niov; i++, skip = 0) {
        size_t n = MIN(length, iov->iov[i].iov_len - skip);
        if (!n) {
            continue;
        }
        memcpy((char *)iov->iov[i].iov_base + skip, p, n);
        p += n;
        length -= n;
    }
}

void block_iov_zero(const struct block_iov *iov, uint64_t offset, uint64_t length)
{
    size_t skip;

    for (int i = find(iov, offset, &skip); length && i < iov->niov; i++, skip = 0) {
        size_t n = MIN(length, iov->iov[i].iov_len - skip);
        if (!n) {
            continue;
        }
        memset((char *)iov->iov[i].iov_base + skip, 0, n);
        length -= n;
    }
}

void co_block_iov_zero(const struct block_iov *iov, uint64_t offset, uint64_t length)
{
    if (length <= BLOCK_SHORT) {
        block_iov_zero(iov, offset, length);
        return;
    }
    while (length) {
        uint64_t n = MIN(length, CO_SHARE_PIECE);
        co_share(n);
        block_iov_zero(iov, offset, n);
        offset += n;
        length -= n;
    }
}

uint64_t block_iov_slice(const struct block_iov *iov, uint64_t offset, uint64_t length,
                         struct iovec *out, int max_iov, int *niov)
{
    size_t skip;
    uint64_t covered = 0;
    int n = 0;

    for (int i = find(iov, offset, &skip); covered < length && i < iov->niov && n < max_iov;
         i++, skip = 0) {
        size_t part = MIN(length - covered, iov->iov[i].iov_len - skip);
        if (!part) {
            continue;
        }
        out[n++] = (struct iovec){
            .iov_base = (char *)iov->iov[i].iov_base + skip,
            .iov_len = part,
        };
        covered += part;
    }
    *niov = n;
    return covered;
}
