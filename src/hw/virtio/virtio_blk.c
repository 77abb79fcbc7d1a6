/* SPDX-License-Identifier: MIT */
/* The virtio block device: properties, features, configuration space (virtio 1.2, 5.2). */
#include "hw/virtio/virtio_blk.h"

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/boot_order.h"
#include "device/iothread.h"

#define SECTOR          512
#define SEG_MAX_DEFAULT (128 - 2)
/* Secure erase, behind it, is not offered. */
#define CONFIG_SIZE offsetof(struct virtio_blk_config, max_secure_erase_sectors)

/* ---- features ------------------------------------------------------------------------------- */

static uint64_t blk_features(struct virtio_device *vdev)
{
    const struct virtio_blk *blk = virtio_blk_of(vdev);
    uint64_t features =
        BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_BLK_SIZE) | BIT64(VIRTIO_BLK_F_TOPOLOGY);
    bool readonly = backend_is_readonly(blk->conf.backend);

    if (blk->config_wce) {
        features |= BIT64(VIRTIO_BLK_F_CONFIG_WCE);
    }
    /* Who may switch the cache on must be able to flush it. */
    if (blk->config_wce || blk->original_write_cache) {
        features |= BIT64(VIRTIO_BLK_F_FLUSH);
    }
    if (readonly) {
        features |= BIT64(VIRTIO_BLK_F_RO);
    }
    if (blk->discard && !readonly) {
        features |= BIT64(VIRTIO_BLK_F_DISCARD);
    }
    if (blk->write_zeroes && !readonly) {
        features |= BIT64(VIRTIO_BLK_F_WRITE_ZEROES);
    }
    return features;
}

/* 5.2.5.2: a driver that can neither flush nor switch the cache must not have one. */
static bool blk_set_features(struct virtio_device *vdev, uint64_t features)
{
    struct virtio_blk *blk = virtio_blk_of(vdev);
    bool can_flush = features & (BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE));

    backend_set_write_cache(blk->conf.backend, blk->original_write_cache && can_flush);
    return true;
}

static void blk_reset(struct virtio_device *vdev)
{
    struct virtio_blk *blk = virtio_blk_of(vdev);

    virtio_blk_drop_parked(blk);
    atomic_store(&blk->owes_flush, false);
    atomic_store(&blk->is_cache_uncertain, false);
    backend_set_write_cache(blk->conf.backend, blk->original_write_cache);
}

/* ---- configuration space: 5.2.4 ------------------------------------------------------------- */

static uint32_t seg_max(const struct virtio_blk *blk)
{
    /* Without the header's and the status's descriptor. */
    return blk->seg_max_adjust ? blk->queue_size - 2u : SEG_MAX_DEFAULT;
}

static bool shown_wce(const struct virtio_blk *blk)
{
    return backend_write_cache(blk->conf.backend) || atomic_load(&blk->is_cache_uncertain);
}

#define PUT(bits, field, value)                                                                    \
    store_le##bits(config + offsetof(struct virtio_blk_config, field), (uint##bits##_t)(value))

static void blk_get_config(struct virtio_device *vdev, uint8_t *config)
{
    const struct virtio_blk *blk = virtio_blk_of(vdev);
    const struct block_conf *conf = &blk->conf;
    uint32_t block = conf->logical_block_size;

    PUT(64, capacity, backend_length(conf->backend) / SECTOR);
    PUT(32, seg_max, seg_max(blk));
    PUT(32, blk_size, block);
    config[offsetof(struct virtio_blk_config, physical_block_exp)] =
        (uint8_t)__builtin_ctz(conf->physical_block_size / block);
    PUT(16, min_io_size, conf->min_io_size / block);
    PUT(32, opt_io_size, conf->opt_io_size / block);
    config[offsetof(struct virtio_blk_config, wce)] = shown_wce(blk);
    PUT(16, num_queues, vdev->queue_count);
    PUT(32, max_discard_sectors, blk->max_discard_sectors);
    PUT(32, max_discard_seg, 1);
    PUT(32, discard_sector_alignment, conf->discard_granularity / SECTOR);
    PUT(32, max_write_zeroes_sectors, blk->max_write_zeroes_sectors);
    PUT(32, max_write_zeroes_seg, 1);
    config[offsetof(struct virtio_blk_config, write_zeroes_may_unmap)] = 1;
}

static void blk_set_config(struct virtio_device *vdev, const uint8_t *config)
{
    struct virtio_blk *blk = virtio_blk_of(vdev);
    bool on = config[offsetof(struct virtio_blk_config, wce)] & 1;

    /* Only the write cache can be written, by who negotiated that. */
    if (!virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE) ||
        !(vdev->status & VIRTIO_STATUS_FEATURES_OK) || on == shown_wce(blk)) {
        return;
    }
    atomic_store(&blk->is_cache_uncertain, false);
    backend_set_write_cache(blk->conf.backend, on);
    if (!on) {
        bh_schedule(blk->flush_bh);
    }
}

static struct block_hurry *blk_begin_hurry(struct virtio_device *vdev)
{
    return backend_hurry_begin(virtio_blk_of(vdev)->conf.backend);
}

static const struct virtio_device_ops blk_ops = {
    .name = "virtio-blk",
    .device_id = 2,
    .config_size = CONFIG_SIZE,
    .features = blk_features,
    .set_features = blk_set_features,
    .get_config = blk_get_config,
    .set_config = blk_set_config,
    .reset = blk_reset,
    .start = virtio_blk_start,
    .handle_queue = virtio_blk_handle_queue,
    .stop = virtio_blk_stop,
    .begin_hurry = blk_begin_hurry,
    .end_hurry = backend_hurry_end,
};

/* ---- life ----------------------------------------------------------------------------------- */

static bool check_properties(struct virtio_blk *blk, struct error **errp)
{
    if (blk->num_queues == 0) {
        error_set(errp, "num-queues property must be larger than 0");
    } else if (blk->num_queues != 1 && blk->num_queues != UINT16_MAX) {
        error_set(errp, "num-queues=%u: only one queue is supported; leave it out",
                  blk->num_queues);
    } else if (!is_power_of_2(blk->queue_size) || blk->queue_size > VIRTQ_SIZE_MAX) {
        error_set(errp, "invalid queue-size property (%u), must be a power of 2 (max %d)",
                  blk->queue_size, VIRTQ_SIZE_MAX);
    } else if (blk->queue_size <= 2) {
        error_set(errp, "invalid queue-size property (%u), must be > 2", blk->queue_size);
    } else if (!blk->max_discard_sectors || blk->max_discard_sectors > 0x3fffff) {
        error_set(errp,
                  "invalid max-discard-sectors property (%" PRIu32 "), must be between 1 and "
                  "%d",
                  blk->max_discard_sectors, 0x3fffff);
    } else if (!blk->max_write_zeroes_sectors || blk->max_write_zeroes_sectors > 0x3fffff) {
        error_set(errp,
                  "invalid max-write-zeroes-sectors property (%" PRIu32 "), must be between "
                  "1 and %d",
                  blk->max_write_zeroes_sectors, 0x3fffff);
    } else {
        return true;
    }
    return false;
}

static void make_requests(struct virtio_blk *blk)
{
    /* One more than can be in flight, to pop into. */
    blk->request_count = blk->queue_size + 1u;
    blk->requests = xcalloc(blk->request_count, sizeof(blk->requests[0]));
    for (unsigned i = 0; i < blk->request_count; i++) {
        struct virtio_blk_request *request = &blk->requests[i];
        virtq_element_init(&request->element);
        request->blk = blk;
        request->next = blk->free;
        blk->free = request;
    }
    blk->parked = NULL;
    blk->parked_last = &blk->parked;
}

static void free_requests(struct virtio_blk *blk)
{
    for (unsigned i = 0; i < blk->request_count; i++) {
        virtq_element_destroy(&blk->requests[i].element);
        free(blk->requests[i].odd.iov);
        free(blk->requests[i].joint.iov);
    }
    free(blk->requests);
    blk->requests = blk->free = NULL;
    blk->request_count = 0;
}

bool virtio_blk_init(struct virtio_blk *blk, const struct virtio_init *transport,
                     struct error **errp)
{
    struct virtio_init init = *transport;

    if (!check_properties(blk, errp) || !boot_order_add(init.dev, blk->conf.bootindex, errp)) {
        return false;
    }
    if (!block_conf_attach(&blk->conf, init.dev, errp)) {
        boot_order_remove(init.dev);
        return false;
    }
    blk->num_queues = ARRAY_SIZE(blk->queue);
    blk->original_write_cache = backend_write_cache(blk->conf.backend);
    make_requests(blk);
    init.ops = &blk_ops;
    init.loop = blk->iothread ? iothread_loop(blk->iothread) : main_loop();
    init.queues = blk->queue;
    init.queue_count = ARRAY_SIZE(blk->queue);
    init.queue_size = blk->queue_size;
    blk->notify_bh = bh_new(init.loop, virtio_blk_notify, blk);
    blk->flush_bh = bh_new(init.loop, virtio_blk_flush_cache, blk);
    if (!virtio_init(&blk->vdev, &init, errp)) {
        virtio_blk_destroy(blk);
        return false;
    }
    return true;
}

void virtio_blk_destroy(struct virtio_blk *blk)
{
    virtio_cleanup(&blk->vdev);
    bh_delete(blk->notify_bh);
    bh_delete(blk->flush_bh);
    blk->notify_bh = blk->flush_bh = NULL;
    virtio_blk_drop_parked(blk);
    free_requests(blk);
    block_conf_detach(&blk->conf);
    boot_order_remove(blk->vdev.dev);
}
