/* SPDX-License-Identifier: MIT */
/*
 * The rings of a split virtqueue: mapping, indices, notification suppression. Chains are in
 * virtq_chain.c.
 *
 * Guest memory is read and written by relaxed atomics, and by the following ordered accesses, each
 * with its partner in the driver (virtio 1.2, 2.7.13 and 2.7.14):
 *
 *   load-acquire avail->idx      pairs with the driver's write barrier between filling descriptors
 *                                and ring and updating avail->idx (2.7.13.3, 2.7.13.4)
 *   store-release used->idx      pairs with the driver's read barrier after seeing used->idx, so
 *                                that it sees entry and data (2.7.14)
 *   used->idx, then used_event   sequentially consistent; pairs with the driver's full barrier
 *                                between enabling interrupts and looking at used->idx once more
 *                                (2.7.7.1, 2.7.14): one of the two sees the other
 *   avail_event, then avail->idx sequentially consistent; pairs with the driver's full barrier
 *                                between updating avail->idx and reading avail_event or the flags
 *                                (2.7.10, 2.7.13.4.1)
 */
#include "hw/virtio/virtq.h"

#include <linux/virtio_ring.h>
#include <string.h>

#include "base/range.h"
#include "hw/virtio/virtq_internal.h"
#include "trace/trace.h"

/* Offsets within the rings, 2.7.6 and 2.7.8. */
#define RING_FLAGS 0
#define RING_INDEX 2
#define RING_START 4

static uint64_t desc_size(const struct virtq *vq)
{
    return (uint64_t)vq->size * VIRTQ_DESC_SIZE;
}

/* With the event index behind it. */
static uint64_t avail_size(const struct virtq *vq)
{
    return RING_START + 2 * (uint64_t)vq->size + 2;
}

static uint64_t used_size(const struct virtq *vq)
{
    return RING_START + 8 * (uint64_t)vq->size + 2;
}

static uint8_t *avail_entry(const struct virtq *vq, uint16_t index)
{
    return vq->avail + RING_START + 2 * (index & (vq->size - 1));
}

static uint8_t *used_entry(const struct virtq *vq, uint16_t index)
{
    return vq->used + RING_START + 8 * (index & (vq->size - 1));
}

static uint8_t *used_event(const struct virtq *vq)
{
    return vq->avail + RING_START + 2 * vq->size;
}

static uint8_t *avail_event(const struct virtq *vq)
{
    return vq->used + RING_START + 8 * vq->size;
}

static uint16_t load_acquire(const uint8_t *p)
{
    return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static uint16_t load_ordered(const uint8_t *p)
{
    return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_SEQ_CST);
}

static void store_ordered(uint8_t *p, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)p, value, __ATOMIC_SEQ_CST);
}

void virtq_break(struct virtq *vq, const char *why)
{
    if (!vq->broken) {
        vq->broken = true;
        vq->broken_why = why;
    }
}

/* ---- mapping -------------------------------------------------------------------------------- */

static bool fits(uint64_t address, uint64_t size, uint64_t alignment)
{
    return address % alignment == 0 && range_fits(address, size, UINT64_MAX);
}

bool virtq_is_sane(const struct virtq *vq)
{
    return is_power_of_2(vq->size) && vq->size <= VIRTQ_SIZE_MAX &&
           fits(vq->desc_address, desc_size(vq), 16) &&
           fits(vq->avail_address, avail_size(vq), 2) && fits(vq->used_address, used_size(vq), 4);
}

/* The whole range in one piece, or NULL. */
static void *map(struct virtq *vq, uint64_t address, uint64_t size, bool is_write)
{
    uint64_t length = size;
    void *host = dma_map(vq->as, address, &length, is_write);

    if (host && length < size) {
        dma_unmap(host, length, is_write, 0);
        return NULL;
    }
    return host;
}

static void unmap(struct virtq *vq)
{
    if (vq->desc) {
        dma_unmap((void *)vq->desc, desc_size(vq), false, 0);
    }
    if (vq->avail) {
        dma_unmap(vq->avail, avail_size(vq), false, 0);
    }
    if (vq->used) {
        dma_unmap(vq->used, used_size(vq), true, used_size(vq));
    }
    vq->desc = NULL;
    vq->avail = vq->used = NULL;
}

static bool map_rings(struct virtq *vq)
{
    /* Taken before the mapping: should the memory map change in between, it is done again. */
    vq->map_generation = address_space_generation(vq->as);
    vq->desc = map(vq, vq->desc_address, desc_size(vq), false);
    vq->avail = map(vq, vq->avail_address, avail_size(vq), false);
    vq->used = map(vq, vq->used_address, used_size(vq), true);
    if (!vq->desc || !vq->avail || !vq->used) {
        unmap(vq);
        return false;
    }
    vq->used_block = ram_block_from_host(vq->used, &vq->used_offset);
    return true;
}

/* False if the queue is broken, also because its rings are no longer in RAM. */
static bool is_usable(struct virtq *vq)
{
    if (vq->broken) {
        return false;
    }
    if (address_space_generation(vq->as) != vq->map_generation) {
        unmap(vq);
        if (!map_rings(vq)) {
            virtq_break(vq, "the rings are no longer in RAM, or bus mastering is off");
            return false;
        }
    }
    return true;
}

/*
 * The used ring stays mapped for long: what is written there is marked here, not at unmapping, after
 * the bytes and whenever the driver may look at them.
 *
 * This is done for every request, so it has to be cheap: under KVM it is a look at the dirty bitmaps
 * and at the code hook, none of which are there; on the soft CPU a fence and the bits of the ring's
 * pages are added, and the hook is called only if a guest has code there. So the entries need no call of
 * their own at virtq_push(): the one for the index covers the ring.
 */
static void used_written(struct virtq *vq, const uint8_t *from, uint64_t length)
{
    ram_written(vq->used_block, vq->used_offset + (uint64_t)(from - vq->used), length);
}

bool virtq_start(struct virtq *vq)
{
    return virtq_is_sane(vq) && map_rings(vq);
}

void virtq_stop(struct virtq *vq)
{
    unmap(vq);
}

void virtq_reset(struct virtq *vq)
{
    struct address_space *as = vq->as;

    memset(vq, 0, sizeof(*vq));
    vq->as = as;
}

/* ---- available ring ------------------------------------------------------------------------- */

bool virtq_has_work(const struct virtq *vq)
{
    return !vq->broken && vq->avail && guest_load16(vq->avail + RING_INDEX) != vq->last_avail;
}

enum virtq_pop_result virtq_pop(struct virtq *vq, struct virtq_element *element)
{
    if (!is_usable(vq)) {
        return VIRTQ_BROKEN;
    }
    uint16_t index = load_acquire(vq->avail + RING_INDEX);
    uint16_t ready = (uint16_t)(index - vq->last_avail);
    if (ready == 0) {
        return VIRTQ_EMPTY;
    }
    if (ready > vq->size) {
        virtq_break(vq, "the available index jumped by more than the queue size");
        return VIRTQ_BROKEN;
    }
    if (vq->in_flight >= vq->size) {
        virtq_break(vq, "more chains are available than there are descriptors");
        return VIRTQ_BROKEN;
    }
    uint16_t head = guest_load16(avail_entry(vq, vq->last_avail));
    if (!virtq_chain_map(vq, element, head)) {
        return VIRTQ_BROKEN;
    }
    vq->last_avail++;
    vq->in_flight++;
    element->head = head;
    element->id = trace_request_id();
    TRACE(virtq_pop, element->id, vq, head, element->out_bytes, element->in_bytes);
    return VIRTQ_POPPED;
}

static void doorbell_written(struct virtq *vq)
{
    used_written(vq, vq->event_idx ? avail_event(vq) : vq->used + RING_FLAGS, 2);
}

bool virtq_enable_doorbell(struct virtq *vq)
{
    if (!is_usable(vq)) {
        return false;
    }
    if (vq->event_idx) {
        store_ordered(avail_event(vq), vq->last_avail);
    } else {
        store_ordered(vq->used + RING_FLAGS, 0);
    }
    doorbell_written(vq);
    return load_ordered(vq->avail + RING_INDEX) != vq->last_avail;
}

void virtq_disable_doorbell(struct virtq *vq)
{
    if (!is_usable(vq)) {
        return;
    }
    if (vq->event_idx) {
        /* Behind the driver's index: it gets there again after 65535 more. */
        guest_store16(avail_event(vq), (uint16_t)(vq->last_avail - 1));
    } else {
        guest_store16(vq->used + RING_FLAGS, VRING_USED_F_NO_NOTIFY);
    }
    doorbell_written(vq);
}

/* ---- used ring ------------------------------------------------------------------------------ */

void virtq_push(struct virtq *vq, struct virtq_element *element, uint64_t written)
{
    virtq_chain_unmap(element, true);
    vq->in_flight--;
    if (!is_usable(vq)) {
        return;
    }
    uint8_t *entry = used_entry(vq, vq->used_index);
    guest_store32(entry, element->head);
    guest_store32(entry + 4, (uint32_t)MIN(written, UINT32_MAX));
    vq->used_index++;
    TRACE(virtq_push, element->id, vq, element->head, written);
}

void virtq_discard(struct virtq *vq, struct virtq_element *element)
{
    virtq_chain_unmap(element, true);
    vq->in_flight--;
}

/* True if a driver that asked to be told at `event` wants to hear of a step from old to new. */
static bool is_event_passed(uint16_t event, uint16_t old, uint16_t new)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

void virtq_publish(struct virtq *vq)
{
    if (vq->published != vq->used_index && is_usable(vq)) {
        vq->published = vq->used_index;
        /* Also releases the entries. */
        store_ordered(vq->used + RING_INDEX, vq->used_index);
        used_written(vq, vq->used, used_size(vq));
    }
}

bool virtq_flush(struct virtq *vq)
{
    virtq_publish(vq);
    if (vq->signalled_used == vq->used_index || !is_usable(vq)) {
        return false;
    }
    uint16_t old = vq->signalled_used;
    bool valid = vq->signalled_used_valid;
    vq->signalled_used = vq->used_index;
    if (!vq->event_idx) {
        return !(load_ordered(vq->avail + RING_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
    }
    vq->signalled_used_valid = true;
    return !valid || is_event_passed(load_ordered(used_event(vq)), old, vq->used_index);
}
