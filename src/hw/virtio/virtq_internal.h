/* SPDX-License-Identifier: MIT */
/* What virtq.c and virtq_chain.c share. */
#ifndef FERRY_HW_VIRTIO_VIRTQ_INTERNAL_H
#define FERRY_HW_VIRTIO_VIRTQ_INTERNAL_H

#include "hw/virtio/virtq.h"

#define VIRTQ_DESC_SIZE 16

/* Follows the chain at head, copies and checks its descriptors, maps their buffers. False: the
 * queue is broken and nothing is mapped. */
bool virtq_chain_map(struct virtq *vq, struct virtq_element *element, uint16_t head);
/* Unmaps the buffers. is_written: the writable ones count as written, all of them. A device may have
 * written elsewhere than at their beginning (a status is the last byte, behind what it left alone), and
 * before it failed. */
void virtq_chain_unmap(struct virtq_element *element, bool is_written);

#endif
