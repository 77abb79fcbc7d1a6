/* SPDX-License-Identifier: MIT */
/*
 * The virtio block device (virtio 1.2, 5.2), over any transport, and over PCI.
 *
 *   virtio_blk.c      the device: properties, features, configuration space
 *   virtio_blk_req.c  requests: from the queue to the backend and back
 *   virtio_blk_pci.c  the PCI types
 */
#ifndef FERRY_HW_VIRTIO_VIRTIO_BLK_H
#define FERRY_HW_VIRTIO_VIRTIO_BLK_H

#include "device/iothread.h"
#include "hw/block_conf.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio_pci.h"

#define VIRTIO_BLK_BATCH 32 /* requests that are looked at together, to merge them */

/* Grows as needed and stays with its request for the next. */
struct virtio_blk_iov {
    struct iovec *iov;
    unsigned capacity;
};

struct virtio_blk_request {
    struct virtq_element element;
    struct virtio_blk *blk; /* constant */
    /* the loop */
    uint32_t type;            /* VIRTIO_BLK_T_* */
    uint64_t offset, length;  /* bytes of the disk */
    unsigned flags;           /* BLOCK_REQ_* */
    uint8_t *status;          /* in guest memory */
    uint64_t written;         /* bytes of the chain, from its beginning, if all goes well */
    const struct iovec *data; /* in element.iov or odd */
    unsigned data_count;
    struct virtio_blk_iov odd, joint;  /* lists of its own: of odd layouts, of merged requests */
    struct virtio_blk_request *merged; /* the next of those that went to the backend as one */
    struct virtio_blk_request *next;   /* of the free or the parked ones */
};

struct virtio_blk {
    struct virtio_device vdev;
    struct virtio_queue queue[1];
    /* properties */
    struct block_conf conf;
    char *serial;
    uint16_t num_queues, queue_size;
    bool seg_max_adjust, config_wce, request_merging, discard, write_zeroes;
    uint32_t max_discard_sectors, max_write_zeroes_sectors;
    struct iothread *iothread;
    /* constant after realize */
    bool original_write_cache;
    struct virtio_blk_request *requests; /* all of them */
    unsigned request_count;
    struct aio_bh *notify_bh, *flush_bh; /* of the device's loop */
    /* the loop, while started; machine state else */
    struct virtio_blk_request *free;
    struct virtio_blk_request *parked, **parked_last; /* failed, wait for the VM to go on */
    struct virtio_blk_request *batch[VIRTIO_BLK_BATCH];
    unsigned batch_count;
    unsigned in_flight; /* requests at the backend */
    bool is_running, is_popping, is_stopping;
    bool has_pushed;   /* what the driver was not told of yet */
    bool has_lingered; /* the interrupt has waited for a request already */
    int linger;        /* misses until it does no more; < 0: completions until it does once again */
    /* atomic */
    _Atomic(bool) owes_flush;         /* of a cache that was switched off: when it runs again */
    _Atomic(bool) is_cache_uncertain; /* that flush failed: the driver reads that the cache is on */
};

static inline struct virtio_blk *virtio_blk_of(struct virtio_device *vdev)
{
    return (struct virtio_blk *)vdev;
}

#define VIRTIO_BLK_PROPERTIES(s, f)                                                                \
    BLOCK_CONF_PROPERTIES(s, f.conf),                                                              \
        PROPERTY_STRING("serial", s, f.serial, NULL, "serial number, 20 characters at most"),      \
        PROPERTY_UINT16("num-queues", s, f.num_queues, UINT16_MAX, 0, 0, "number of queues"),      \
        PROPERTY_UINT16("queue-size", s, f.queue_size, 256, 0, 0, "entries of a queue"),           \
        PROPERTY_BOOL("seg-max-adjust", s, f.seg_max_adjust, true,                                 \
                      "segments of a request follow the queue size"),                              \
        PROPERTY_BOOL("config-wce", s, f.config_wce, true,                                         \
                      "the guest may switch the write cache"),                                     \
        PROPERTY_BOOL("request-merging", s, f.request_merging, true,                               \
                      "neighbouring requests go to the drive as one"),                             \
        PROPERTY_BOOL("discard", s, f.discard, true, "offer discards"),                            \
        PROPERTY_BOOL("write-zeroes", s, f.write_zeroes, true, "offer writing zeroes"),            \
        PROPERTY_UINT32("max-discard-sectors", s, f.max_discard_sectors, 0x3fffff, 0, 0,           \
                        "sectors of a discard"),                                                   \
        PROPERTY_UINT32("max-write-zeroes-sectors", s, f.max_write_zeroes_sectors, 0x3fffff, 0, 0, \
                        "sectors of a request to write zeroes"),                                   \
        PROPERTY_IOTHREAD("iothread", s, f.iothread)

/* Checks the properties, attaches the drive, makes the virtio device. */
bool virtio_blk_init(struct virtio_blk *blk, const struct virtio_init *transport,
                     struct error **errp);
void virtio_blk_destroy(struct virtio_blk *blk); /* stopped */

/* virtio_blk_req.c; in the loop. */
void virtio_blk_handle_queue(struct virtio_queue *queue);
void virtio_blk_start(struct virtio_device *vdev);
void virtio_blk_stop(struct virtio_device *vdev);
void virtio_blk_notify(void *opaque);      /* notify_bh */
void virtio_blk_flush_cache(void *opaque); /* flush_bh: the write cache was switched off */
/* Machine lock held, stopped: parked requests are dropped. */
void virtio_blk_drop_parked(struct virtio_blk *blk);

struct virtio_blk_pci {
    struct virtio_pci vpci;
    struct virtio_blk blk;
};

extern const struct device_type virtio_blk_pci_type;                  /* "virtio-blk-pci" */
extern const struct device_type virtio_blk_pci_non_transitional_type; /* the same by another name */

#endif
