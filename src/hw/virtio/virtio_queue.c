/* SPDX-License-Identifier: MIT */
/* Queues of a virtio device: their registers, and their life in the loop. */
#include <assert.h>
#include <string.h>

#include "base/range.h"
#include "device/vmstate.h"
#include "hw/virtio/virtio_internal.h"
#include "trace/trace.h"

/* ---- registers: machine lock held ----------------------------------------------------------- */

/* Invariant 1: nobody changes what the loop has, or is about to have. */
static bool is_writable(const struct virtio_queue *queue)
{
    const struct virtio_device *vdev = queue->vdev;

    return vdev->run == VIRTIO_STOPPED && !vdev->reset_pending &&
           !(vdev->status & VIRTIO_STATUS_DRIVER_OK) && !queue->enabled;
}

void virtio_queue_set_size(struct virtio_queue *queue, uint16_t size)
{
    if (is_writable(queue) && size <= queue->max_size && (size == 0 || is_power_of_2(size))) {
        queue->size = size;
    }
}

void virtio_queue_set_address(struct virtio_queue *queue, enum virtio_ring ring, bool high,
                              uint32_t value)
{
    uint64_t *address = ring == VIRTIO_RING_DESC    ? &queue->desc
                        : ring == VIRTIO_RING_AVAIL ? &queue->avail
                                                    : &queue->used;

    if (!is_writable(queue)) {
        return;
    }
    if (high) {
        *address = (*address & UINT32_MAX) | (uint64_t)value << 32;
    } else {
        *address = (*address & ~(uint64_t)UINT32_MAX) | value;
    }
}

static void set_virtq(struct virtio_queue *queue)
{
    struct virtq *vq = &queue->vq;

    vq->as = queue->vdev->as;
    vq->size = queue->size;
    vq->desc_address = queue->desc;
    vq->avail_address = queue->avail;
    vq->used_address = queue->used;
    vq->event_idx = virtio_has_feature(queue->vdev, VIRTIO_F_RING_EVENT_IDX);
    vq->indirect = virtio_has_feature(queue->vdev, VIRTIO_F_RING_INDIRECT_DESC);
}

void virtio_queue_enable(struct virtio_queue *queue)
{
    if (!is_writable(queue)) {
        return;
    }
    set_virtq(queue);
    queue->enabled = virtq_is_sane(&queue->vq);
}

void virtio_queue_reset(struct virtio_queue *queue)
{
    queue->size = queue->max_size;
    queue->enabled = false;
    queue->desc = queue->avail = queue->used = 0;
    atomic_store(&queue->vector, VIRTIO_NO_VECTOR);
    virtq_reset(&queue->vq);
}

void virtio_queue_prepare(struct virtio_device *vdev, unsigned index, uint16_t max_size)
{
    struct virtio_queue *queue = &vdev->queues[index];

    *queue = (struct virtio_queue){
        .vdev = vdev,
        .index = index,
        .max_size = max_size,
        .doorbell.fd = -1,
        .interrupt.fd = -1,
    };
}

bool virtio_queue_map(struct virtio_queue *queue)
{
    set_virtq(queue);
    return virtq_start(&queue->vq);
}

void virtio_queue_kick(struct virtio_queue *queue)
{
    event_notifier_set(&queue->doorbell);
}

/* ---- in the loop ---------------------------------------------------------------------------- */

static bool is_broken(struct virtio_device *vdev)
{
    return atomic_load_explicit(&vdev->broken, memory_order_relaxed);
}

static void handle_doorbell(void *opaque)
{
    struct virtio_queue *queue = opaque;

    TRACE(virtio_queue_doorbell, queue->vdev, queue->index);
    if (!is_broken(queue->vdev)) {
        queue->vdev->ops->handle_queue(queue);
    }
}

static bool poll_queue(void *opaque)
{
    struct virtio_queue *queue = opaque;

    return !is_broken(queue->vdev) && virtq_has_work(&queue->vq);
}

static void poll_begin(void *opaque)
{
    struct virtio_queue *queue = opaque;

    queue->is_polled = true;
    virtq_disable_doorbell(&queue->vq);
}

static void poll_end(void *opaque)
{
    struct virtio_queue *queue = opaque;

    queue->is_polled = false;
    /* The loop asks poll_queue() once more. */
    virtq_enable_doorbell(&queue->vq);
}

void virtio_queue_begin(struct virtio_queue *queue)
{
    if (!queue->is_polled) {
        virtq_disable_doorbell(&queue->vq);
    }
}

bool virtio_queue_end(struct virtio_queue *queue)
{
    if (queue->is_polled) {
        return virtq_has_work(&queue->vq);
    }
    return virtq_enable_doorbell(&queue->vq);
}

void virtio_queue_notify(struct virtio_queue *queue)
{
    if (virtq_flush(&queue->vq)) {
        TRACE(virtio_queue_interrupt, queue->vdev, queue->index);
        queue->vdev->transport->notify_queue(queue);
    }
    if (queue->vq.broken) {
        virtio_break(queue->vdev, queue->vq.broken_why);
    }
}

void virtio_loop_start(void *opaque)
{
    struct virtio_device *vdev = opaque;

    vdev->ops->start(vdev);
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        struct virtio_queue *queue = &vdev->queues[i];
        if (!queue->enabled) {
            continue;
        }
        aio_set_notifier_poll(vdev->loop, &queue->doorbell, handle_doorbell, poll_queue, poll_begin,
                              poll_end, queue);
        /* Doorbells were not wanted, or not heard, until now: look at what is there. */
        event_notifier_set(&queue->doorbell);
    }
}

void virtio_loop_stop(void *opaque)
{
    struct virtio_device *vdev = opaque;

    for (unsigned i = 0; i < vdev->queue_count; i++) {
        struct virtio_queue *queue = &vdev->queues[i];
        if (queue->enabled) {
            aio_set_notifier(vdev->loop, &queue->doorbell, NULL, NULL, NULL);
        }
    }
    vdev->ops->stop(vdev);
}

/* ---- state ---------------------------------------------------------------------------------- */

static bool post_load(void *opaque, unsigned version)
{
    struct virtio_queue *queue = opaque;

    if (queue->size > queue->max_size || (queue->size && !is_power_of_2(queue->size))) {
        return false;
    }
    queue->vq.published = queue->vq.signalled_used = queue->vq.used_index;
    queue->vq.signalled_used_valid = false;
    return true;
}

static const struct vmstate_field fields[] = {
    VMSTATE_UINT(struct virtio_queue, size),
    VMSTATE_BOOL(struct virtio_queue, enabled),
    VMSTATE_UINT(struct virtio_queue, desc),
    VMSTATE_UINT(struct virtio_queue, avail),
    VMSTATE_UINT(struct virtio_queue, used),
    VMSTATE_UINT(struct virtio_queue, vector),
    VMSTATE_UINT(struct virtio_queue, vq.last_avail),
    VMSTATE_UINT(struct virtio_queue, vq.used_index),
    VMSTATE_END,
};

const struct vmstate virtio_queue_vmstate = {
    .name = "virtio-queue",
    .version = 1,
    .minimum_version = 1,
    .fields = fields,
    .post_load = post_load,
};
