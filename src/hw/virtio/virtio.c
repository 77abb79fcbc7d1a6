/* SPDX-License-Identifier: MIT */
/*
 * The life of a virtio device: status, features, start, stop, reset. virtio.h draws the states;
 * virtio_queue.c has queue registers and what the loop does.
 */
#include "hw/virtio/virtio.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "base/range.h"
#include "device/iothread.h"
#include "device/vmstate.h"
#include "hw/virtio/virtio_internal.h"
#include "mem/machine_lock.h"
#include "trace/trace.h"

#define RING_FEATURES (BIT64(VIRTIO_F_RING_INDIRECT_DESC) | BIT64(VIRTIO_F_RING_EVENT_IDX))

/* For main_work. */
#define WORK_STOPPED 1u
#define WORK_BROKEN  2u
#define WORK_CONFIG  4u
#define WORK_HURRY   8u

static void log_misuse(const struct virtio_device *vdev, const char *what)
{
    log_guest_error("%s%s%s: %s", vdev->dev->type->name, vdev->dev->id ? " " : "",
                    vdev->dev->id ? vdev->dev->id : "", what);
}

static void begin_stop(struct virtio_device *vdev);
static void post_main_work(struct virtio_device *vdev, unsigned work);

/* ---- start and stop: machine lock held ------------------------------------------------------ */

static void set_needs_reset(struct virtio_device *vdev)
{
    atomic_store(&vdev->broken, true);
    vdev->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (vdev->status & VIRTIO_STATUS_DRIVER_OK) {
        /* 2.1.2: the driver is told by a configuration change. */
        atomic_fetch_or(&vdev->isr, VIRTIO_ISR_CONFIG);
        vdev->transport->notify_config(vdev);
    }
}

static bool map_queues(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        struct virtio_queue *queue = &vdev->queues[i];
        if (queue->enabled && !virtio_queue_map(queue)) {
            log_misuse(vdev, "the rings of a queue are not in RAM, or bus mastering is off");
            return false;
        }
    }
    return true;
}

static void unmap_queues(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        virtq_stop(&vdev->queues[i].vq);
    }
}

/* Hands the queues to the loop, if everybody wants that. */
static void start_run(struct virtio_device *vdev)
{
    if (vdev->run != VIRTIO_STOPPED || !(vdev->status & VIRTIO_STATUS_DRIVER_OK) ||
        vdev->status & (VIRTIO_STATUS_FAILED | VIRTIO_STATUS_NEEDS_RESET)) {
        return;
    }
    if (!system_vm_running()) {
        return; /* vm_state_changed() comes back */
    }
    if (!map_queues(vdev)) {
        unmap_queues(vdev);
        set_needs_reset(vdev);
        return;
    }
    TRACE(virtio_start, vdev);
    vdev->run = VIRTIO_STARTED;
    vdev->transport->set_notifiers(vdev, true);
    aio_call(vdev->loop, virtio_loop_start, vdev);
}

static void begin_stop(struct virtio_device *vdev)
{
    assert(vdev->run == VIRTIO_STARTED);
    TRACE(virtio_stop, vdev);
    vdev->run = VIRTIO_STOPPING;
    if (vdev->ops->begin_hurry) {
        post_main_work(vdev, WORK_HURRY); /* never later than the WORK_STOPPED of this stop */
    }
    aio_call(vdev->loop, virtio_loop_stop, vdev);
}

static void finish_reset(struct virtio_device *vdev)
{
    TRACE(virtio_reset, vdev);
    vdev->reset_pending = false;
    vdev->status = 0;
    vdev->guest_features = 0;
    atomic_store(&vdev->config_vector, VIRTIO_NO_VECTOR);
    atomic_store(&vdev->isr, 0);
    atomic_store(&vdev->broken, false);
    vdev->ops->reset(vdev);
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        virtio_queue_reset(&vdev->queues[i]);
    }
    vdev->transport->reset(vdev);
    vdev->host_features = vdev->ops->features(vdev) | BIT64(VIRTIO_F_VERSION_1) |
                          (vdev->allowed_features & RING_FEATURES);
}

static void begin_reset(struct virtio_device *vdev)
{
    vdev->reset_pending = true;
    if (vdev->run == VIRTIO_STARTED) {
        begin_stop(vdev);
    } else if (vdev->run == VIRTIO_STOPPED) {
        finish_reset(vdev);
    }
}

/* The loop has let go. */
static void finish_stop(struct virtio_device *vdev)
{
    assert(vdev->run == VIRTIO_STOPPING);
    vdev->transport->set_notifiers(vdev, false);
    unmap_queues(vdev);
    vdev->run = VIRTIO_STOPPED;
    if (vdev->reset_pending) {
        finish_reset(vdev);
    } else {
        start_run(vdev);
    }
}

/* Main loop: what the device's loop left to do. */
static void main_work(void *opaque)
{
    struct virtio_device *vdev = opaque;
    const struct virtio_device_ops *ops = vdev->ops;
    unsigned work = atomic_exchange(&vdev->main_work, 0);
    struct block_hurry *hurry = NULL;

    /* Both are of the same stop: the next one begins after finish_stop(). */
    if (work & WORK_HURRY && !(work & WORK_STOPPED)) {
        assert(!vdev->hurry);
        vdev->hurry = ops->begin_hurry(vdev);
    }
    machine_lock();
    /* Ahead of the end of a stop, which may be that of a reset. */
    if (work & WORK_BROKEN && vdev->run != VIRTIO_STOPPED && !vdev->reset_pending) {
        set_needs_reset(vdev);
    }
    if (work & WORK_CONFIG) {
        vdev->config_generation++;
        if (vdev->status & VIRTIO_STATUS_DRIVER_OK) {
            atomic_fetch_or(&vdev->isr, VIRTIO_ISR_CONFIG);
            vdev->transport->notify_config(vdev);
        }
    }
    if (work & WORK_STOPPED) {
        hurry = vdev->hurry;
        vdev->hurry = NULL;
        finish_stop(vdev);
    }
    machine_unlock();
    if (hurry) {
        ops->end_hurry(hurry); /* polls: the device may be gone afterwards */
    }
}

static void post_main_work(struct virtio_device *vdev, unsigned work)
{
    atomic_fetch_or(&vdev->main_work, work);
    bh_schedule(vdev->main_bh);
}

void virtio_stopped(struct virtio_device *vdev)
{
    post_main_work(vdev, WORK_STOPPED);
}

void virtio_config_changed(struct virtio_device *vdev)
{
    post_main_work(vdev, WORK_CONFIG);
}

void virtio_break(struct virtio_device *vdev, const char *why)
{
    if (!atomic_exchange(&vdev->broken, true)) {
        TRACE(virtio_broken, vdev, why);
        log_misuse(vdev, why);
        post_main_work(vdev, WORK_BROKEN);
    }
}

/* ---- registers: machine lock held ----------------------------------------------------------- */

uint8_t virtio_status(const struct virtio_device *vdev)
{
    return vdev->status;
}

static bool accept_features(struct virtio_device *vdev)
{
    if (vdev->guest_features & ~vdev->host_features) {
        log_misuse(vdev, "the driver wants features that are not offered");
        return false;
    }
    if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
        log_misuse(vdev, "the driver does not take VIRTIO_F_VERSION_1; legacy drivers are not "
                         "supported");
        return false;
    }
    return vdev->ops->set_features(vdev, vdev->guest_features);
}

void virtio_set_status(struct virtio_device *vdev, uint8_t status)
{
    if (vdev->reset_pending) {
        return;
    }
    TRACE(virtio_set_status, vdev, vdev->status, status);
    if (status == 0) {
        begin_reset(vdev);
        return;
    }
    /* 2.1.1: only a reset clears bits. NEEDS_RESET is the device's. */
    uint8_t added = status & (uint8_t) ~(vdev->status | VIRTIO_STATUS_NEEDS_RESET);

    if (added & VIRTIO_STATUS_FEATURES_OK && !accept_features(vdev)) {
        added &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
    }
    if (added & VIRTIO_STATUS_DRIVER_OK && !((vdev->status | added) & VIRTIO_STATUS_FEATURES_OK)) {
        log_misuse(vdev, "DRIVER_OK without FEATURES_OK");
        added &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
    }
    vdev->status |= added;
    if (added & VIRTIO_STATUS_FAILED && vdev->run == VIRTIO_STARTED) {
        begin_stop(vdev);
    }
    if (added & VIRTIO_STATUS_DRIVER_OK) {
        start_run(vdev);
    }
}

void virtio_set_features(struct virtio_device *vdev, uint64_t features)
{
    if (vdev->reset_pending || vdev->status & VIRTIO_STATUS_FEATURES_OK) {
        return;
    }
    vdev->guest_features = features;
}

void virtio_config_read(struct virtio_device *vdev, uint32_t offset, void *to, unsigned size)
{
    uint8_t config[VIRTIO_CONFIG_MAX] = {0};

    if (!range_fits(offset, size, vdev->ops->config_size)) {
        memset(to, 0xff, size);
        return;
    }
    vdev->ops->get_config(vdev, config);
    memcpy(to, config + offset, size);
}

void virtio_config_write(struct virtio_device *vdev, uint32_t offset, const void *from,
                         unsigned size)
{
    uint8_t config[VIRTIO_CONFIG_MAX] = {0};

    if (vdev->reset_pending || !range_fits(offset, size, vdev->ops->config_size) ||
        !vdev->ops->set_config) {
        return;
    }
    vdev->ops->get_config(vdev, config);
    memcpy(config + offset, from, size);
    vdev->ops->set_config(vdev, config);
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool is_stopped(struct virtio_device *vdev)
{
    machine_lock();
    bool stopped = vdev->run == VIRTIO_STOPPED;
    machine_unlock();
    return stopped;
}

/* Without the machine lock. */
static void wait_stopped(struct virtio_device *vdev)
{
    while (!is_stopped(vdev)) {
        aio_loop_poll(main_loop(), true);
    }
}

static void vm_state_changed(void *opaque, bool running)
{
    struct virtio_device *vdev = opaque;

    machine_lock();
    if (running) {
        start_run(vdev);
    } else if (vdev->run == VIRTIO_STARTED) {
        begin_stop(vdev);
    }
    machine_unlock();
    if (!running) {
        wait_stopped(vdev);
    }
}

void virtio_quiesce(struct virtio_device *vdev)
{
    bool held = machine_lock_held();

    if (!held) {
        machine_lock();
    }
    if (vdev->run != VIRTIO_STOPPED) {
        begin_reset(vdev);
    }
    machine_unlock();
    wait_stopped(vdev);
    if (held) {
        machine_lock();
    }
}

void virtio_system_reset(struct virtio_device *vdev)
{
    begin_reset(vdev);
}

bool virtio_init(struct virtio_device *vdev, const struct virtio_init *init, struct error **errp)
{
    assert(init->queue_count <= VIRTIO_QUEUE_MAX && init->ops->config_size <= VIRTIO_CONFIG_MAX);
    vdev->ops = init->ops;
    vdev->transport = init->transport;
    vdev->dev = init->dev;
    vdev->as = init->as;
    vdev->loop = init->loop;
    vdev->allowed_features = init->allowed_features;
    vdev->run = VIRTIO_STOPPED;
    vdev->queue_count = init->queue_count;
    vdev->queues = init->queues;
    for (unsigned i = 0; i < init->queue_count; i++) {
        virtio_queue_prepare(vdev, i, init->queue_size);
    }
    for (unsigned i = 0; i < init->queue_count; i++) {
        if (!event_notifier_init(&vdev->queues[i].doorbell, errp) ||
            !event_notifier_init(&vdev->queues[i].interrupt, errp)) {
            virtio_cleanup(vdev);
            return false;
        }
    }
    vdev->main_bh = bh_new(main_loop(), main_work, vdev);
    vdev->vm_state = (struct vm_state_handler){.changed = vm_state_changed, .opaque = vdev};
    system_add_vm_state_handler(&vdev->vm_state);
    finish_reset(vdev);
    return true;
}

void virtio_cleanup(struct virtio_device *vdev)
{
    assert(!vdev->hurry);
    if (!vdev->queues) {
        return;
    }
    assert(vdev->run == VIRTIO_STOPPED);
    system_remove_vm_state_handler(&vdev->vm_state);
    bh_delete(vdev->main_bh);
    vdev->main_bh = NULL;
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        event_notifier_cleanup(&vdev->queues[i].doorbell);
        event_notifier_cleanup(&vdev->queues[i].interrupt);
    }
    vdev->queues = NULL;
}

/* ---- state ---------------------------------------------------------------------------------- */

static bool post_load(void *device, unsigned version)
{
    struct virtio_device *vdev = device;

    /* Loaded while the VM is stopped: the loop takes over when it runs. */
    return !(vdev->guest_features & ~vdev->host_features) && vdev->run == VIRTIO_STOPPED;
}

static const struct vmstate_field fields[] = {
    VMSTATE_UINT(struct virtio_device, status),
    VMSTATE_UINT(struct virtio_device, guest_features),
    VMSTATE_UINT(struct virtio_device, config_generation),
    VMSTATE_UINT(struct virtio_device, config_vector),
    VMSTATE_UINT(struct virtio_device, isr),
    VMSTATE_END,
};

const struct vmstate virtio_device_vmstate = {
    .name = "virtio-device",
    .version = 1,
    .minimum_version = 1,
    .fields = fields,
    .post_load = post_load,
};
