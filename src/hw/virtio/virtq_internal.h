/* SPDX-License-Identifier: MIT */
/* What virtq.c and virtq_chain.c share. */
#ifndef FERRY_HW_VIRTIO_VIRTQ_INTERNAL_H
#define FERRY_HW_VIRTIO_VIRTQ_INTERNAL_H

#include "hw/virtio/virtq.h"

#define VIRTQ_DESC_SIZE 16

/* Follows the chain at head, copies and checks its descriptors, maps their buffers. False: the
 * queue is broken and nothing is mapped. */
bool virtq_chain_map(struct virtq *vq, struct virtq_element *element, uint16_t head);
/* Unmaps the buffers; the first `written` bytes of the writable ones were written. */
void virtq_chain_unmap(struct virtq_element *element, uint64_t written);

#endif
