/* SPDX-License-Identifier: MIT */
#include "fake_disk.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/driver.h"
#include "block/node.h"
#include "mem/dma.h"

struct fake_disk fake_disk;

static bool fake_open(struct block_node *node, struct options *opts, struct error **errp)
{
    fake_disk.size = MiB;
    if (!options_get_size(opts, "size", 1, &fake_disk.size, errp)) {
        return false;
    }
    fake_disk.data = xcalloc(1, fake_disk.size);
    for (uint64_t i = 0; i < fake_disk.size; i++) {
        fake_disk.data[i] = (uint8_t)(i / 512 * 7 + i);
    }
    return true;
}

static void fake_close(struct block_node *node)
{
    free(fake_disk.data);
    fake_disk.data = NULL;
}

static int64_t fake_length(struct block_node *node)
{
    return (int64_t)fake_disk.size;
}

static int co_begin(enum fake_op op, uint64_t offset, uint64_t length, unsigned flags)
{
    atomic_fetch_add(&fake_disk.count[op], 1);
    if (op != FAKE_FLUSH) {
        atomic_store(&fake_disk.last_offset, offset);
        atomic_store(&fake_disk.last_length, length);
        atomic_store(&fake_disk.last_flags, flags);
    }
    if (atomic_load(&fake_disk.hold)) {
        atomic_fetch_add(&fake_disk.held, 1);
        while (atomic_load(&fake_disk.hold)) {
            co_sleep(AIO_CLOCK_RT, 200 * NS_PER_US);
        }
        atomic_fetch_sub(&fake_disk.held, 1);
    }
    return fake_disk.error[op];
}

/* Guest memory that the driver may be writing at the same time: as a kernel would copy it. */
static void copy_to_guest(const struct block_iov *iov, const uint8_t *from)
{
    for (int i = 0; i < iov->niov; i++) {
        guest_copy_to(iov->iov[i].iov_base, from, iov->iov[i].iov_len);
        from += iov->iov[i].iov_len;
    }
}

static void copy_from_guest(const struct block_iov *iov, uint8_t *to)
{
    for (int i = 0; i < iov->niov; i++) {
        guest_copy_from(to, iov->iov[i].iov_base, iov->iov[i].iov_len);
        to += iov->iov[i].iov_len;
    }
}

static int fake_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    int ret = co_begin(FAKE_READ, offset, iov->size, flags);

    if (ret == 0) {
        copy_to_guest(iov, fake_disk.data + offset);
    }
    return ret;
}

static int fake_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id)
{
    int ret = co_begin(FAKE_WRITE, offset, iov->size, flags);

    if (ret == 0) {
        copy_from_guest(iov, fake_disk.data + offset);
    }
    return ret;
}

static int fake_co_flush(struct block_node *node, uint64_t id)
{
    return co_begin(FAKE_FLUSH, 0, 0, 0);
}

static int fake_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    return co_begin(FAKE_DISCARD, offset, length, 0);
}

static int fake_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                                unsigned flags)
{
    int ret = co_begin(FAKE_ZEROES, offset, length, flags);

    if (ret == 0) {
        memset(fake_disk.data + offset, 0, length);
    }
    return ret;
}

static const struct block_driver fake_driver = {
    .name = "fake-disk",
    .is_protocol = true,
    .open = fake_open,
    .close = fake_close,
    .co_preadv = fake_co_preadv,
    .co_pwritev = fake_co_pwritev,
    .co_flush = fake_co_flush,
    .co_discard = fake_co_discard,
    .co_write_zeroes = fake_co_write_zeroes,
    .length = fake_length,
};

void fake_disk_reset(void)
{
    memset(&fake_disk, 0, sizeof(fake_disk));
    block_driver_set_test(&fake_driver);
}

void fake_disk_release(void)
{
    atomic_store(&fake_disk.hold, false);
}
