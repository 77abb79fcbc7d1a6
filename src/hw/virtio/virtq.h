/* SPDX-License-Identifier: MIT */
/*
 * Split virtqueues, device side (virtio 1.2, 2.7). Knows nothing of PCI or of any device.
 *
 *   driver                              guest memory                        device
 *   fills descriptors  ->  desc table [addr len flags next] ...
 *   publishes heads    ->  avail ring [flags idx ring[] used_event]  -> virtq_pop(): copies,
 *                                                                       validates, maps
 *   sees completions   <-  used ring  [flags idx ring[] avail_event] <- virtq_push(), _flush()
 *
 * Everything a driver wrote is hostile: each field is fetched once, copied, and checked; chains
 * are bounded. A violation breaks the queue: virtq_pop() gives VIRTQ_BROKEN, the ring is not
 * touched any more, and the device sets DEVICE_NEEDS_RESET.
 *
 * Loop state: owned by the device's loop while the device runs; set up and torn down by the
 * transport while it does not.
 */
#ifndef FERRY_HW_VIRTIO_VIRTQ_H
#define FERRY_HW_VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mem/dma.h"

#define VIRTQ_SIZE_MAX   1024
#define VIRTQ_IOV_MAX    1024 /* buffers of a chain, after splitting at region ends */
#define VIRTQ_INLINE_IOV 16   /* buffers of a chain that need no allocation */

/* A chain that was popped: device-readable buffers, then device-writable ones. A device's request
 * embeds it; the memory for long chains stays with the element for the next request. */
struct virtq_element {
    /* set by virtq_pop() */
    uint64_t id; /* request id for tracing */
    uint16_t head;
    unsigned out_count, in_count; /* buffers readable, writable */
    uint64_t out_bytes, in_bytes; /* their sums */
    const struct iovec *out, *in; /* mapped */
    /* virtq.c */
    struct iovec *iov; /* all of them */
    unsigned capacity;
    struct iovec inline_iov[VIRTQ_INLINE_IOV];
};

void virtq_element_init(struct virtq_element *element);
void virtq_element_destroy(struct virtq_element *element);

enum virtq_pop_result { VIRTQ_EMPTY, VIRTQ_POPPED, VIRTQ_BROKEN };

struct virtq {
    /* constant while the device runs */
    struct address_space *as;
    unsigned size; /* entries, power of 2 */
    bool event_idx, indirect;
    uint64_t desc_address, avail_address, used_address;
    /* the loop */
    const uint8_t *desc; /* mapped, or NULL */
    uint8_t *avail, *used;
    struct ram_block *used_block;
    uint64_t used_offset; /* in used_block */
    uint64_t map_generation;
    uint16_t last_avail;     /* next head to pop */
    uint16_t used_index;     /* next used entry to write */
    uint16_t published;      /* what the driver sees of used_index */
    uint16_t signalled_used; /* used_index at the last flush, which was an interrupt if wanted */
    bool signalled_used_valid;
    uint16_t in_flight; /* popped and not pushed */
    bool broken;
    const char *broken_why;
};

/* The addresses are aligned as 2.7 demands, and nothing wraps; size is a power of 2 up to
 * VIRTQ_SIZE_MAX. */
bool virtq_is_sane(const struct virtq *vq);
/* Maps the rings. False: not sane, or not in RAM that can be written where that is needed. Indices
 * stay what they are; virtq_reset() makes them 0. */
bool virtq_start(struct virtq *vq);
void virtq_stop(struct virtq *vq);  /* unmaps */
void virtq_reset(struct virtq *vq); /* stopped: forgets everything but `as` */

enum virtq_pop_result virtq_pop(struct virtq *vq, struct virtq_element *element);
/* True if there is a head to pop. For polling; cheap. */
bool virtq_has_work(const struct virtq *vq);
/* Puts the element into the used ring with the bytes written, which the driver is told of, and unmaps
 * its buffers, the writable ones as written. Not yet visible. */
void virtq_push(struct virtq *vq, struct virtq_element *element, uint64_t written);
/* What was pushed becomes visible, without an interrupt so far: a flush follows. */
void virtq_publish(struct virtq *vq);
/* Publishes what was pushed; true if the driver wants an interrupt for what was since the last. */
bool virtq_flush(struct virtq *vq);
/* Drops an element without completing it (device reset). */
void virtq_discard(struct virtq *vq, struct virtq_element *element);
/* Doorbells wanted or not (avail_event or the used flags); enabling returns true if work came
 * meanwhile. */
bool virtq_enable_doorbell(struct virtq *vq);
void virtq_disable_doorbell(struct virtq *vq);
/* A device found something in an element that no driver may do. why: a constant string. */
void virtq_break(struct virtq *vq, const char *why);

/* Copies between an iovec of guest memory and a buffer; bytes copied (short at the end). */
uint64_t virtq_iov_read(const struct iovec *iov, unsigned count, uint64_t offset, void *buf,
                        uint64_t length);
uint64_t virtq_iov_write(const struct iovec *iov, unsigned count, uint64_t offset, const void *buf,
                         uint64_t length);

#endif
