/* SPDX-License-Identifier: MIT */
/*
 * Virtio devices, independent of their transport (virtio 1.2, chapters 2 and 3).
 *
 *   transport (virtio-pci) --- struct virtio_transport_ops ---> notify the driver, notifiers
 *        ^   |
 *        |   v  virtio_set_status(), virtio_set_features(), queue registers, config space
 *   struct virtio_device --- struct virtio_device_ops ---> blk, net
 *
 * Registers are machine state; queues belong to the loop from start (DRIVER_OK) to the end of stop.
 *
 *              DRIVER_OK                       reset, FAILED, VM stop
 *   STOPPED ------------------> STARTED --------------------------------> STOPPING
 *      ^    start_run()                         begin_stop()                 |
 *      |                                                                     | loop: requests done,
 *      +---------------------------------------------------------------------+ virtio_stopped();
 *                     main loop: finish_stop(), then reset or start again
 *
 * Invariants:
 *   1. Queue registers and features change only in STOPPED without DRIVER_OK; features only without
 *      FEATURES_OK. So what the loop took over at start is never changed behind its back.
 *   2. A reset is asynchronous: status reads non-zero until the loop has let go of the queues and
 *      all requests are back; meanwhile register writes are ignored.
 *   3. A driver that breaks the rules of a ring breaks the device: no ring is touched any more,
 *      NEEDS_RESET is raised by the main loop, and only a reset helps.
 */
#ifndef FERRY_HW_VIRTIO_VIRTIO_H
#define FERRY_HW_VIRTIO_VIRTIO_H

#include <stdatomic.h>

#include "aio/notifier.h"
#include "device/device.h"
#include "device/system.h"
#include "hw/virtio/virtq.h"

struct vmstate;
struct block_hurry;

#define VIRTIO_QUEUE_MAX 64
#define VIRTIO_NO_VECTOR 0xffff

/* Device status, 2.1. */
#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER      2
#define VIRTIO_STATUS_DRIVER_OK   4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED      128

/* Feature bits, chapter 6. */
#define VIRTIO_F_RING_INDIRECT_DESC 28
#define VIRTIO_F_RING_EVENT_IDX     29
#define VIRTIO_F_VERSION_1          32
#define VIRTIO_F_ACCESS_PLATFORM    33

/* ISR status, 4.1.4.5. */
#define VIRTIO_ISR_QUEUE  1
#define VIRTIO_ISR_CONFIG 2

struct virtio_device;

struct virtio_queue {
    /* constant after virtio_init() */
    struct virtio_device *vdev;
    unsigned index;
    uint16_t max_size;
    struct event_notifier doorbell;  /* host notifier: the driver rang */
    struct event_notifier interrupt; /* guest notifier: irqfd */
    /* machine state: registers */
    uint16_t size;
    bool enabled;
    uint64_t desc, avail, used;
    /* machine state, also read by the loop */
    _Atomic(uint16_t) vector;
    /* the loop, while started; machine state else */
    struct virtq vq;
    bool is_polled; /* the loop polls: doorbells stay off */
};

struct virtio_device_ops {
    const char *name;   /* "virtio-blk" */
    uint16_t device_id; /* chapter 5: 1 net, 2 block */
    uint32_t config_size;
    /* Machine lock held. */
    uint64_t (*features)(struct virtio_device *vdev); /* offered, without ring features */
    /* Is this combination fine? After it the features are fixed. */
    bool (*set_features)(struct virtio_device *vdev, uint64_t features);
    void (*get_config)(struct virtio_device *vdev, uint8_t *config);
    /* A driver's write to the device config, already in range: the whole config afterwards. */
    void (*set_config)(struct virtio_device *vdev, const uint8_t *config);
    void (*reset)(struct virtio_device *vdev); /* registers; stopped */
    /* In the loop: queues are the device's from now on. */
    void (*start)(struct virtio_device *vdev);
    /* In the loop: there may be work in a queue. */
    void (*handle_queue)(struct virtio_queue *queue);
    /* In the loop: finish all requests, then call virtio_stopped(). handle_queue is not called any
     * more. */
    void (*stop)(struct virtio_device *vdev);
    /* Or NULL. Main loop, without the machine lock: a stop has begun, what limits the rate of
     * requests is not to delay it. What is returned is given to end_hurry after the stop, which may
     * poll. */
    struct block_hurry *(*begin_hurry)(struct virtio_device *vdev);
    void (*end_hurry)(struct block_hurry *hurry);
};

struct virtio_transport_ops {
    /* The loop: interrupt of a queue. */
    void (*notify_queue)(struct virtio_queue *queue);
    /* Machine lock held: interrupt of a config change. */
    void (*notify_config)(struct virtio_device *vdev);
    /* Machine lock held: doorbells to ioeventfd, interrupts to irqfd, on and off. */
    void (*set_notifiers)(struct virtio_device *vdev, bool on);
    void (*reset)(
        struct virtio_device *vdev); /* registers of its own; machine lock held, stopped */
};

enum virtio_run { VIRTIO_STOPPED, VIRTIO_STARTED, VIRTIO_STOPPING };

struct virtio_device {
    /* constant after virtio_init() */
    const struct virtio_device_ops *ops;
    const struct virtio_transport_ops *transport;
    struct device *dev; /* the transport's device, for names */
    struct address_space *as;
    struct aio_loop *loop; /* main or an iothread's */
    struct virtio_queue *queues;
    unsigned queue_count;
    uint64_t allowed_features; /* ring features the user lets us offer */
    struct aio_bh *main_bh;    /* what the loop has for the main loop to do */
    struct vm_state_handler vm_state;
    struct block_hurry *hurry; /* main loop: during a stop */
    /* machine state */
    uint64_t host_features; /* offered */
    uint8_t status;
    uint64_t guest_features;
    uint8_t config_generation;
    enum virtio_run run;
    bool reset_pending; /* finish the reset when stopped */
    /* machine state, also read by others */
    _Atomic(uint16_t) config_vector;
    /* atomic */
    _Atomic(uint8_t) isr;        /* VIRTIO_ISR_* */
    _Atomic(bool) broken;        /* set by the loop; NEEDS_RESET is raised by the main loop */
    _Atomic(unsigned) main_work; /* for main_bh */
};

struct virtio_init {
    const struct virtio_device_ops *ops;
    const struct virtio_transport_ops *transport;
    struct device *dev;
    struct address_space *as;
    struct aio_loop *loop;
    struct virtio_queue *queues; /* the device's own, zeroed */
    unsigned queue_count;
    uint16_t queue_size;       /* power of 2, at most VIRTQ_SIZE_MAX */
    uint64_t allowed_features; /* of INDIRECT_DESC and EVENT_IDX */
};

/* Main thread. */
bool virtio_init(struct virtio_device *vdev, const struct virtio_init *init, struct error **errp);
/* Waits until the loop has let go; gives up the machine lock meanwhile, if it is held. Main
 * thread. */
void virtio_quiesce(struct virtio_device *vdev);
/* Stopped, or never initialised. */
void virtio_cleanup(struct virtio_device *vdev);

/* Transport registers; machine lock held. Writes that 2.1, 3.1 or 4.1.4.3 forbid are ignored. */
uint8_t virtio_status(const struct virtio_device *vdev);
void virtio_set_status(struct virtio_device *vdev, uint8_t status);
void virtio_set_features(struct virtio_device *vdev, uint64_t features);
void virtio_queue_set_size(struct virtio_queue *queue, uint16_t size);
enum virtio_ring { VIRTIO_RING_DESC, VIRTIO_RING_AVAIL, VIRTIO_RING_USED };
void virtio_queue_set_address(struct virtio_queue *queue, enum virtio_ring ring, bool high,
                              uint32_t value);
void virtio_queue_enable(struct virtio_queue *queue);
/* Is a reset under way? Then transports ignore writes to their own registers too. */
static inline bool virtio_is_resetting(const struct virtio_device *vdev)
{
    return vdev->reset_pending;
}
void virtio_config_read(struct virtio_device *vdev, uint32_t offset, void *to, unsigned size);
void virtio_config_write(struct virtio_device *vdev, uint32_t offset, const void *from,
                         unsigned size);
/* The machine's reset; as writing 0 to the status. */
void virtio_system_reset(struct virtio_device *vdev);

/* Any thread: the driver rang, and no ioeventfd heard it. */
void virtio_queue_kick(struct virtio_queue *queue);
/* Loop: publish what was pushed and interrupt the driver if it wants that. */
void virtio_queue_notify(struct virtio_queue *queue);
/* Loop: doorbells off while a queue is looked through; on again at its end: true if work came
 * meanwhile. */
void virtio_queue_begin(struct virtio_queue *queue);
bool virtio_queue_end(struct virtio_queue *queue);
/* Loop: the driver broke the rules; the device needs a reset. */
void virtio_break(struct virtio_device *vdev, const char *why);
/* Loop: end of ops->stop. */
void virtio_stopped(struct virtio_device *vdev);
/* Any thread: the device's config changed. */
void virtio_config_changed(struct virtio_device *vdev);
/* Features that the driver took; constant while started. */
static inline bool virtio_has_feature(const struct virtio_device *vdev, unsigned bit)
{
    return vdev->guest_features >> bit & 1;
}

extern const struct vmstate virtio_device_vmstate, virtio_queue_vmstate;

#endif
