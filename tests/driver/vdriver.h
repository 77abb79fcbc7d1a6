/* SPDX-License-Identifier: MIT */
/*
 * A virtio-pci driver in the guest (virtio 1.2, 4.1 and 2.7), for tests: it does what Linux's does,
 * step by step, and lets a test do each step wrongly.
 */
#ifndef FERRY_TESTS_DRIVER_VDRIVER_H
#define FERRY_TESTS_DRIVER_VDRIVER_H

#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "rig.h"

#define VDRIVER_CONFIG_DATA 0x31 /* MSI-X data of the config vector */
#define VDRIVER_QUEUE_DATA  0x41 /* of the queue's */

struct vring_addresses {
    uint64_t desc, avail, used;
};

/* The driver's side of a split ring. */
struct vqueue {
    unsigned size;
    struct vring_addresses at;
    uint16_t avail_index; /* next to publish */
    uint16_t seen_used;   /* next to look at */
    uint16_t kicked;      /* avail index at the last kick */
    bool event_idx;
    bool keeps_used_event; /* vqueue_take_used() leaves used_event alone */
};

struct vdriver {
    uint8_t devfn;
    uint64_t common, isr, device, notify; /* addresses of the structures */
    uint32_t notify_multiplier;
    unsigned window; /* offset of the PCI configuration access capability */
    uint64_t msix_table, msix_pba;
    unsigned msix_capability, msix_vectors;
    uint64_t features; /* accepted */
    struct vqueue queue;
    uint64_t doorbell;
};

/* Finds the structures of the function in that slot and turns bus mastering on. */
void vdriver_probe(struct vdriver *d, uint8_t devfn);
/* Steps 1 to 8 of 3.1.1 in one: resets, negotiates (host features & wanted), MSI-X with a vector
 * for the config and one for queue 0 (if msix), queue of that size (0: the largest), DRIVER_OK. */
void vdriver_start(struct vdriver *d, uint64_t wanted, unsigned queue_size, bool msix);

/* The steps. */
uint8_t vdriver_status(struct vdriver *d);
void vdriver_set_status(struct vdriver *d, uint8_t status);
bool vdriver_reset(struct vdriver *d); /* waits until status is 0 */
uint64_t vdriver_host_features(struct vdriver *d);
void vdriver_set_features(struct vdriver *d, uint64_t features);
void vdriver_enable_msix(struct vdriver *d);
void vdriver_set_vector(struct vdriver *d, unsigned vector, uint64_t address, uint32_t data,
                        bool masked);
void vdriver_mask_vector(struct vdriver *d, unsigned vector, bool masked);
void vdriver_setup_queue(struct vdriver *d, unsigned size, bool msix);
uint64_t common_read(struct vdriver *d, unsigned offset, unsigned size);
void common_write(struct vdriver *d, unsigned offset, uint64_t value, unsigned size);

/* ---- the ring ------------------------------------------------------------------------------- */

struct buffer {
    uint64_t address;
    uint32_t length;
    bool is_write;
};

/* Fresh rings in RAM. */
void vqueue_alloc(struct vqueue *q, unsigned size);
void vqueue_set_desc(struct vqueue *q, unsigned index, uint64_t address, uint32_t length,
                     uint16_t flags, uint16_t next);
/* A chain from descriptor `head` on. */
void vqueue_set_chain(struct vqueue *q, unsigned head, const struct buffer *buffers,
                      unsigned count);
/* The same as an indirect table, with one descriptor at head. */
void vqueue_set_indirect(struct vqueue *q, unsigned head, const struct buffer *buffers,
                         unsigned count);
void vqueue_publish(struct vqueue *q, uint16_t head);
/* Sets the available index as it is; a publish without care. */
void vqueue_set_avail_index(struct vqueue *q, uint16_t index);
void vqueue_set_avail_flags(struct vqueue *q, uint16_t flags);
uint16_t vqueue_used_index(const struct vqueue *q);
uint16_t vqueue_used_flags(const struct vqueue *q);
uint16_t vqueue_avail_event(const struct vqueue *q);
void vqueue_set_used_event(struct vqueue *q, uint16_t index);
/* The next used entry: false if there is none. */
bool vqueue_take_used(struct vqueue *q, uint32_t *head, uint32_t *length);
bool vqueue_wants_kick(const struct vqueue *q);
void vdriver_kick(struct vdriver *d); /* always */
void vdriver_kick_if_wanted(struct vdriver *d);
/* Waits for the next used entry. */
bool vdriver_wait_used(struct vdriver *d, uint32_t *head, uint32_t *length);
bool vdriver_wait_status(struct vdriver *d, uint8_t bits);
bool vdriver_wait_interrupts(unsigned data, unsigned count);

#endif
