/* SPDX-License-Identifier: MIT */
/*
 * One access to an I/O region.
 *
 * ops->valid says what the guest may do; ops->impl what the callbacks take. An access in between
 * is carried out piece by piece, at each position with the largest size that fits: the rest of the
 * access, the alignment, and the limits of impl. A piece below impl.min is part of a wider one that
 * is read, and for a write changed and written back.
 */
#include <stdatomic.h>

#include "aio/notifier.h"
#include "base/range.h"
#include "mem/internal.h"
#include "mem/machine_lock.h"

/* ---- callbacks that run in this thread ------------------------------------------------------ */

struct frame {
    const struct mem_region *mr;
    const struct frame *outer;
};
static _Thread_local const struct frame *innermost;

bool mem_region_is_running(const struct mem_region *mr)
{
    const struct frame *f = innermost;

    while (f && f->mr != mr) {
        f = f->outer;
    }
    return f != NULL;
}

bool mem_region_is_entered(const struct mem_region *mr)
{
    for (const struct frame *f = innermost; f; f = f->outer) {
        /* Another region of the same device would re-enter it as well. */
        if (f->mr == mr || (mr->opaque && f->mr->opaque == mr->opaque)) {
            return true;
        }
    }
    return false;
}

/* ---- rules ---------------------------------------------------------------------------------- */

static uint64_t all_ones(unsigned size)
{
    return UINT64_MAX >> (64 - size * 8);
}

unsigned mem_ops_valid_max(const struct mem_region_ops *ops)
{
    return ops->valid.max ? ops->valid.max : 8;
}

static unsigned valid_min(const struct mem_region_ops *ops)
{
    return ops->valid.min ? ops->valid.min : 1;
}

static unsigned impl_max(const struct mem_region_ops *ops)
{
    return ops->impl.max ? ops->impl.max : mem_ops_valid_max(ops);
}

static unsigned impl_min(const struct mem_region_ops *ops)
{
    return ops->impl.min ? ops->impl.min : valid_min(ops);
}

static bool is_valid(const struct mem_region *mr, uint64_t offset, unsigned size)
{
    const struct mem_region_ops *ops = mr->ops;

    return size && is_power_of_2(size) && size >= valid_min(ops) &&
           size <= mem_ops_valid_max(ops) && (ops->valid.unaligned || offset % size == 0) &&
           range_fits(offset, size, __atomic_load_n(&mr->size, __ATOMIC_RELAXED));
}

/* A piece of [position, end): the callback gets `size` bytes at `offset`. */
struct piece {
    uint64_t offset;
    unsigned size;
    unsigned shift;   /* of position within the callback's value, bits */
    unsigned covered; /* bytes from position on */
};

static struct piece next_piece(const struct mem_region_ops *ops, uint64_t position,
                               unsigned remaining)
{
    unsigned min = impl_min(ops);
    unsigned size = MIN(impl_max(ops), 8);

    while (size > remaining || (!ops->impl.unaligned && position % size)) {
        size /= 2;
    }
    if (size >= min) {
        return (struct piece){position, size, 0, size};
    }
    uint64_t start = align_down(position, min);
    unsigned skipped = (unsigned)(position - start);
    return (struct piece){start, min, skipped * 8, MIN(min - skipped, remaining)};
}

static uint64_t call_read(struct mem_region *mr, const struct piece *p)
{
    return mr->ops->read(mr->opaque, p->offset, p->size) & all_ones(p->size);
}

/* ---- callbacks ------------------------------------------------------------------------------ */

enum mem_result mem_region_call_read(struct mem_region *mr, uint64_t offset, uint64_t *value,
                                     unsigned size)
{
    const struct mem_region_ops *ops = mr->ops;

    if (!is_valid(mr, offset, size) || !ops->read) {
        *value = size && size <= 8 ? all_ones(size) : UINT64_MAX;
        return MEM_DEVICE_ERROR;
    }
    struct frame frame = {mr, innermost};
    innermost = &frame;
    *value = 0;
    for (unsigned done = 0; done < size;) {
        struct piece p = next_piece(ops, offset + done, size - done);
        uint64_t v = (call_read(mr, &p) >> p.shift) & all_ones(p.covered);
        *value |= v << (done * 8);
        done += p.covered;
    }
    innermost = frame.outer;
    return MEM_OK;
}

enum mem_result mem_region_call_write(struct mem_region *mr, uint64_t offset, uint64_t value,
                                      unsigned size)
{
    const struct mem_region_ops *ops = mr->ops;

    if (!is_valid(mr, offset, size) || !ops->write) {
        return MEM_DEVICE_ERROR;
    }
    struct frame frame = {mr, innermost};
    innermost = &frame;
    for (unsigned done = 0; done < size;) {
        struct piece p = next_piece(ops, offset + done, size - done);
        uint64_t v = (value >> (done * 8)) & all_ones(p.covered);
        if (p.covered < p.size) {
            uint64_t mask = all_ones(p.covered) << p.shift;
            uint64_t old = ops->read ? call_read(mr, &p) : 0;
            v = (old & ~mask) | (v << p.shift);
        }
        ops->write(mr->opaque, p.offset, v, p.size);
        done += p.covered;
    }
    innermost = frame.outer;
    return MEM_OK;
}

bool mem_region_signal_eventfd(struct mem_region *mr, uint64_t offset, uint64_t value,
                               unsigned size)
{
    const struct mem_eventfds *eventfds = mem_rcu_load(mr->eventfds);

    if (!eventfds) {
        return false;
    }
    for (unsigned i = 0; i < eventfds->count; i++) {
        const struct mem_eventfd *e = &eventfds->entries[i];
        if (e->offset == offset && (e->size == 0 || e->size == size) &&
            (!e->datamatch || ((e->data ^ value) & all_ones(size)) == 0)) {
            event_notifier_set(e->notifier);
            return true;
        }
    }
    return false;
}

/* ---- with the lock -------------------------------------------------------------------------- */

enum mem_result mem_region_dispatch_read(struct mem_region *mr, uint64_t offset, uint64_t *value,
                                         unsigned size)
{
    bool take = !mr->ops->lockless && !machine_lock_held();

    if (take) {
        machine_lock();
    }
    enum mem_result result = mem_region_call_read(mr, offset, value, size);
    if (take) {
        machine_unlock();
    }
    return result;
}

enum mem_result mem_region_dispatch_write(struct mem_region *mr, uint64_t offset, uint64_t value,
                                          unsigned size)
{
    bool take = !mr->ops->lockless && !machine_lock_held();

    if (size == 0 || size > 8) {
        return MEM_DEVICE_ERROR;
    }
    mem_read_begin();
    bool signalled = mem_region_signal_eventfd(mr, offset, value, size);
    mem_read_end();
    if (signalled) {
        return MEM_OK;
    }
    if (take) {
        machine_lock();
    }
    enum mem_result result = mem_region_call_write(mr, offset, value, size);
    if (take) {
        machine_unlock();
    }
    return result;
}
