/* SPDX-License-Identifier: MIT */
/* What virtio.c and virtio_queue.c share. */
#ifndef FERRY_HW_VIRTIO_VIRTIO_INTERNAL_H
#define FERRY_HW_VIRTIO_VIRTIO_INTERNAL_H

#include "hw/virtio/virtio.h"

#define VIRTIO_CONFIG_MAX 256 /* bytes of device configuration */

/* Machine lock held, stopped. */
void virtio_queue_prepare(struct virtio_device *vdev, unsigned index, uint16_t max_size);
void virtio_queue_reset(struct virtio_queue *queue);
/* Registers become the virtq, which is mapped. */
bool virtio_queue_map(struct virtio_queue *queue);

/* In the loop. opaque: struct virtio_device. */
void virtio_loop_start(void *opaque);
void virtio_loop_stop(void *opaque);

#endif
