/* SPDX-License-Identifier: MIT */
/*
 * Requests of the virtio block device (virtio 1.2, 5.2.6): the loop's part.
 *
 *   doorbell -> virtio_blk_handle_queue() -> virtq_pop(), parse() -> batch -> merge
 *      -> backend_aio_preadv() ... request_done() -> status byte, virtq_push()
 *      -> virtio_blk_notify(), once for what completes in a round -> used index, interrupt;
 *         for a driver that polls, after a look for its next request (next_comes_at_once())
 *
 * Requests come from a pool of as many as the queue has entries: nothing is allocated on the way,
 * but for chains of more than 16 buffers and for odd layouts, which keep what they got.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "aio/clock.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/cpu.h"
#include "base/range.h"
#include "device/system.h"
#include "hw/virtio/virtio_blk.h"
#include "trace/trace.h"

#define SECTOR          512
#define HEADER_SIZE     sizeof(struct virtio_blk_outhdr)
#define MERGE_IOV_MAX   1024 /* IOV_MAX */
#define MERGE_BYTES_MAX (16 * MiB)
#define PASS_BYTES      (32 * MiB) /* of requests that are taken from the queue in one go */
#define LINGER_NS       1000
#define LINGER_TRUST    8
#define LINGER_REST     64

/* ---- the pool ------------------------------------------------------------------------------- */

static struct virtio_blk_request *take_request(struct virtio_blk *blk)
{
    struct virtio_blk_request *request = blk->free;

    blk->free = request->next;
    return request;
}

static void free_request(struct virtio_blk_request *request)
{
    request->next = request->blk->free;
    request->blk->free = request;
}

/* ---- completion ----------------------------------------------------------------------------- */

static struct virtq *vq_of(struct virtio_blk *blk)
{
    return &blk->queue[0].vq;
}

void virtio_blk_notify(void *opaque)
{
    struct virtio_blk *blk = opaque;

    blk->has_pushed = false;
    virtio_queue_notify(&blk->queue[0]);
}

/* The last request under way tells the driver at once; others wait for the end of the loop's round,
 * and go together. */
static void notify_soon(struct virtio_blk *blk)
{
    if (!blk->has_pushed || blk->is_popping) {
        return;
    }
    if (blk->in_flight) {
        bh_schedule(blk->notify_bh);
    } else {
        bh_cancel(blk->notify_bh);
        virtio_blk_notify(blk);
    }
}

static void finish_stop(struct virtio_blk *blk)
{
    if (blk->is_stopping && blk->in_flight == 0) {
        blk->is_stopping = false;
        bh_cancel(blk->notify_bh);
        virtio_blk_notify(blk);
        virtio_stopped(&blk->vdev);
    }
}

/* What the used ring may claim of a chain of which only the status is written, its last byte: a
 * driver may take all bytes up to there for the device's (2.7.8.2). */
static uint64_t written_with_status(const struct virtio_blk_request *request)
{
    return request->element.in_bytes == 1;
}

/* The request is done, with a status of VIRTIO_BLK_S_*. */
static void complete(struct virtio_blk_request *request, uint8_t status)
{
    struct virtio_blk *blk = request->blk;

    guest_store8(request->status, status);
    if (status != VIRTIO_BLK_S_OK) {
        request->written = written_with_status(request);
    }
    TRACE(virtio_blk_complete, request->element.id, status);
    virtq_push(vq_of(blk), &request->element, request->written);
    blk->has_pushed = true;
    free_request(request);
}

/* rerror=stop and the like: kept until the VM goes on, or the device is reset. */
static void park(struct virtio_blk_request *request)
{
    struct virtio_blk *blk = request->blk;

    request->next = NULL;
    *blk->parked_last = request;
    blk->parked_last = &request->next;
    TRACE(virtio_blk_park, request->element.id);
}

/* What is to be done about an error, by rerror and werror. The monitor and, if need be, the VM's state
 * hear of it. */
static enum block_error_action tell_error(struct virtio_blk *blk, bool is_read, int error)
{
    static const int actions[] = {
        [BLOCK_ERROR_REPORT] = SYSTEM_IO_REPORT,
        [BLOCK_ERROR_IGNORE] = SYSTEM_IO_IGNORE,
        [BLOCK_ERROR_STOP] = SYSTEM_IO_STOP,
    };
    struct block_backend *be = blk->conf.backend;
    enum block_error_action action = backend_error_action(be, is_read, error);

    if (action == BLOCK_ERROR_STOP) {
        backend_set_io_error(be, error); /* before the event: who hears it may ask */
    }
    system_io_error(&(struct system_io_error){
        .who = blk->conf.name,
        .drive = backend_name(be),
        .node = block_node_skip_implicit(backend_root(be))->name,
        .is_write = !is_read,
        .action = actions[action],
        .error = error,
        .has_io_status = backend_has_io_status(be),
    });
    return action;
}

static void finish(struct virtio_blk_request *request, int ret)
{
    if (ret < 0) {
        switch (tell_error(request->blk, request->type == VIRTIO_BLK_T_IN, -ret)) {
        case BLOCK_ERROR_STOP:
            park(request);
            return;
        case BLOCK_ERROR_IGNORE:
            request->written = written_with_status(request); /* of a read who knows what */
            break;
        case BLOCK_ERROR_REPORT:
            complete(request, ret == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
            return;
        }
    }
    complete(request, VIRTIO_BLK_S_OK);
}

/*
 * A driver that looks at the used ring by itself has its next request there long before an interrupt
 * would have reached it, and to interrupt it just then costs it more than the request. So while the
 * loop polls and nothing is under way, what was done is shown first, and if the next request comes at
 * once, that starts before the interrupt for both. Drivers that sleep never do that: after LINGER_TRUST
 * misses they are interrupted at once, but for one completion in LINGER_REST.
 */
static bool next_comes_at_once(struct virtio_blk *blk)
{
    struct virtio_queue *queue = &blk->queue[0];

    if (blk->in_flight || !blk->has_pushed || blk->is_popping || !blk->is_running ||
        !queue->is_polled || blk->has_lingered || blk->linger < 0) {
        blk->has_lingered = false;
        blk->linger += blk->linger < 0;
        return false;
    }
    int64_t end = clock_get_ns(AIO_CLOCK_RT) + LINGER_NS;
    virtq_publish(&queue->vq);
    do {
        if (virtq_has_work(&queue->vq)) {
            blk->linger = LINGER_TRUST;
            blk->has_lingered = true;
            return true;
        }
        cpu_relax();
    } while (clock_get_ns(AIO_CLOCK_RT) < end);
    blk->linger = blk->linger > 1 ? blk->linger - 1 : -LINGER_REST;
    return false;
}

/* The backend is done with a request and those merged with it. */
static void request_done(void *opaque, int ret)
{
    struct virtio_blk_request *request = opaque;
    struct virtio_blk *blk = request->blk;

    blk->in_flight--;
    while (request) {
        struct virtio_blk_request *next = request->merged;
        request->merged = NULL;
        finish(request, ret);
        request = next;
    }
    if (next_comes_at_once(blk)) {
        virtio_blk_handle_queue(&blk->queue[0]);
    }
    notify_soon(blk);
    finish_stop(blk);
}

/* ---- the write cache is switched off -------------------------------------------------------- */

/* Uncertain: writes do without the cache, but what was in it may still be there. The driver reads that
 * it is on, and is told to look. */
static void set_uncertain(struct virtio_blk *blk, bool is_uncertain)
{
    if (atomic_exchange(&blk->is_cache_uncertain, is_uncertain) != is_uncertain) {
        virtio_config_changed(&blk->vdev);
    }
}

static void cache_flushed(void *opaque, int ret)
{
    struct virtio_blk *blk = opaque;

    TRACE(virtio_blk_cache_flushed, ret);
    blk->in_flight--;
    if (ret == 0) {
        set_uncertain(blk, false);
    } else {
        switch (tell_error(blk, false, -ret)) {
        case BLOCK_ERROR_STOP:
            atomic_store(&blk->owes_flush, true);
            break;
        case BLOCK_ERROR_IGNORE:
            break;
        case BLOCK_ERROR_REPORT:
            set_uncertain(blk, true);
            break;
        }
    }
    finish_stop(blk);
}

void virtio_blk_flush_cache(void *opaque)
{
    struct virtio_blk *blk = opaque;

    if (!blk->is_running) {
        /* A VM stop flushes all disks, but nobody hears here whether that has worked. */
        atomic_store(&blk->owes_flush, true);
        return;
    }
    blk->in_flight++;
    backend_aio_flush(blk->conf.backend, 0, cache_flushed, blk);
}

/* The driver's own flush. */
static void flush_done(void *opaque, int ret)
{
    struct virtio_blk_request *request = opaque;

    if (ret == 0) {
        set_uncertain(request->blk, false);
    }
    request_done(request, ret);
}

/* ---- submission ----------------------------------------------------------------------------- */

static void submit(struct virtio_blk_request *request, const struct block_iov *iov)
{
    struct virtio_blk *blk = request->blk;
    struct block_backend *be = blk->conf.backend;
    uint64_t id = request->element.id;

    TRACE(virtio_blk_submit, id, request->type, request->offset, iov->size);
    blk->in_flight++;
    switch (request->type) {
    case VIRTIO_BLK_T_IN:
        backend_aio_preadv(be, request->offset, iov, 0, id, request_done, request);
        break;
    case VIRTIO_BLK_T_OUT:
        backend_aio_pwritev(be, request->offset, iov, 0, id, request_done, request);
        break;
    case VIRTIO_BLK_T_FLUSH:
        backend_aio_flush(be, id, flush_done, request);
        break;
    case VIRTIO_BLK_T_DISCARD:
        backend_aio_discard(be, request->offset, request->length, request_done, request);
        break;
    default:
        backend_aio_write_zeroes(be, request->offset, request->length, request->flags, request_done,
                                 request);
        break;
    }
}

static void submit_alone(struct virtio_blk_request *request)
{
    submit(request, &(struct block_iov){
                        .iov = request->data,
                        .niov = (int)request->data_count,
                        .size = request->data_count ? request->length : 0,
                    });
}

static struct iovec *reserve(struct virtio_blk_iov *list, unsigned count)
{
    if (count > list->capacity) {
        list->iov = xreallocarray(list->iov, count, sizeof(list->iov[0]));
        list->capacity = count;
    }
    return list->iov;
}

/* Neighbours on the disk, in order: one request of the backend. */
static void submit_merged(struct virtio_blk_request **requests, unsigned count, unsigned niov,
                          uint64_t size)
{
    struct virtio_blk_request *first = requests[0];

    if (count == 1) {
        submit_alone(first);
        return;
    }
    struct iovec *list = reserve(&first->joint, niov);
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(list + n, requests[i]->data, requests[i]->data_count * sizeof(*list));
        n += requests[i]->data_count;
        requests[i]->merged = i + 1 < count ? requests[i + 1] : NULL;
        if (i) {
            TRACE(virtio_blk_merge, requests[i]->element.id, first->element.id);
        }
    }
    submit(first, &(struct block_iov){.iov = list, .niov = (int)niov, .size = size});
}

static int compare_offset(const void *a, const void *b)
{
    const struct virtio_blk_request *x = *(struct virtio_blk_request *const *)a;
    const struct virtio_blk_request *y = *(struct virtio_blk_request *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool is_sorted(struct virtio_blk_request *const *requests, unsigned count)
{
    for (unsigned i = 1; i < count; i++) {
        if (requests[i]->offset < requests[i - 1]->offset) {
            return false;
        }
    }
    return true;
}

/* Requests of a batch are all reads or all writes; they are under way together, so their order is
 * free (5.2.6.2). */
static void submit_batch(struct virtio_blk *blk)
{
    struct virtio_blk_request **batch = blk->batch;
    unsigned count = blk->batch_count;

    blk->batch_count = 0;
    if (!is_sorted(batch, count)) {
        qsort(batch, count, sizeof(batch[0]), compare_offset);
    }
    for (unsigned i = 0; i < count;) {
        unsigned first = i;
        unsigned niov = batch[i]->data_count;
        uint64_t size = batch[i]->length;
        for (i++; i < count && batch[i]->offset == batch[first]->offset + size &&
                  niov + batch[i]->data_count <= MERGE_IOV_MAX &&
                  size + batch[i]->length <= MERGE_BYTES_MAX;
             i++) {
            niov += batch[i]->data_count;
            size += batch[i]->length;
        }
        submit_merged(batch + first, i - first, niov, size);
    }
}

static void add_to_batch(struct virtio_blk_request *request)
{
    struct virtio_blk *blk = request->blk;

    if (!blk->request_merging) {
        submit_alone(request);
        return;
    }
    if (blk->batch_count &&
        (blk->batch[0]->type != request->type || blk->batch_count == VIRTIO_BLK_BATCH)) {
        submit_batch(blk);
    }
    blk->batch[blk->batch_count++] = request;
}

/* ---- parsing -------------------------------------------------------------------------------- */

/* The request's data are `length` bytes of a list of buffers, from `skip` on. */
static void set_data(struct virtio_blk_request *request, const struct iovec *iov, unsigned count,
                     uint64_t skip, uint64_t length)
{
    while (count && skip >= iov->iov_len) {
        skip -= iov->iov_len;
        iov++;
        count--;
    }
    uint64_t left = length + skip;
    unsigned n = 0;
    while (n < count && left >= iov[n].iov_len) {
        left -= iov[n].iov_len;
        n++;
    }
    request->length = length;
    if (!skip && !left) {
        /* As all drivers lay it out: whole buffers. */
        request->data = iov;
        request->data_count = n;
        return;
    }
    n += left != 0;
    struct iovec *list = reserve(&request->odd, n);
    memcpy(list, iov, n * sizeof(*list));
    if (left) {
        list[n - 1].iov_len = left;
    }
    list[0].iov_base = (uint8_t *)list[0].iov_base + skip;
    list[0].iov_len -= skip;
    request->data = list;
    request->data_count = n;
}

static bool is_in_range(const struct virtio_blk *blk, uint64_t sector, uint64_t length)
{
    uint32_t block = blk->conf.logical_block_size;
    uint64_t capacity = backend_length(blk->conf.backend);

    return sector <= capacity / SECTOR && range_fits(sector * SECTOR, length, capacity) &&
           sector * SECTOR % block == 0 && length % block == 0;
}

static void start_read_write(struct virtio_blk_request *request, uint64_t sector)
{
    struct virtio_blk *blk = request->blk;
    const struct virtq_element *element = &request->element;
    bool is_read = request->type == VIRTIO_BLK_T_IN;

    if (is_read) {
        set_data(request, element->in, element->in_count, 0, element->in_bytes - 1);
        request->written = element->in_bytes;
    } else {
        set_data(request, element->out, element->out_count, HEADER_SIZE,
                 element->out_bytes - HEADER_SIZE);
    }
    if (!is_in_range(blk, sector, request->length) ||
        (!is_read && backend_is_readonly(blk->conf.backend))) {
        complete(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (request->length == 0) {
        complete(request, VIRTIO_BLK_S_OK);
        return;
    }
    request->offset = sector * SECTOR;
    add_to_batch(request);
}

static void start_get_id(struct virtio_blk_request *request)
{
    const struct virtio_blk *blk = request->blk;
    const struct virtq_element *element = &request->element;
    char id[VIRTIO_BLK_ID_BYTES] = {0};

    if (blk->serial) {
        memcpy(id, blk->serial, MIN(strlen(blk->serial), sizeof(id)));
    }
    /* All but the status byte, which is the last. */
    uint64_t n = virtq_iov_write(element->in, element->in_count, 0, id,
                                 MIN(sizeof(id), element->in_bytes - 1));
    /* Bytes up to the status count as written, and nothing of ours is in between. */
    request->written = n == element->in_bytes - 1 ? n + 1 : n;
    complete(request, VIRTIO_BLK_S_OK);
}

static uint8_t parse_segment(struct virtio_blk_request *request)
{
    const struct virtio_blk *blk = request->blk;
    const struct virtq_element *element = &request->element;
    bool is_discard = request->type == VIRTIO_BLK_T_DISCARD;
    uint64_t size = element->out_bytes - HEADER_SIZE;
    struct virtio_blk_discard_write_zeroes segment;

    if (!virtio_has_feature(&blk->vdev,
                            is_discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES) ||
        size > sizeof(segment)) { /* max_discard_seg is 1 */
        return VIRTIO_BLK_S_UNSUPP;
    }
    if (size < sizeof(segment)) {
        return VIRTIO_BLK_S_IOERR;
    }
    virtq_iov_read(element->out, element->out_count, HEADER_SIZE, &segment, sizeof(segment));
    uint64_t sector = le64toh(segment.sector);
    uint32_t sectors = le32toh(segment.num_sectors);
    uint32_t flags = le32toh(segment.flags);
    uint32_t max = is_discard ? blk->max_discard_sectors : blk->max_write_zeroes_sectors;
    /* 5.2.6.2: unmap is for write zeroes only, the other flags are for nobody. */
    if (flags & ~(is_discard ? 0u : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    if (sectors > max || !is_in_range(blk, sector, (uint64_t)sectors * SECTOR)) {
        return VIRTIO_BLK_S_IOERR;
    }
    request->offset = sector * SECTOR;
    request->length = (uint64_t)sectors * SECTOR;
    request->flags = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ? BLOCK_REQ_MAY_UNMAP : 0;
    return VIRTIO_BLK_S_OK;
}

static void start_discard_write_zeroes(struct virtio_blk_request *request)
{
    uint8_t status = parse_segment(request);

    if (status != VIRTIO_BLK_S_OK || request->length == 0) {
        complete(request, status);
        return;
    }
    submit_batch(request->blk);
    submit_alone(request);
}

/* False: the chain is no request at all. */
static bool start_request(struct virtio_blk_request *request)
{
    const struct virtq_element *element = &request->element;
    struct virtio_blk_outhdr header;

    if (element->out_bytes < HEADER_SIZE || element->in_bytes < 1) {
        return false;
    }
    virtq_iov_read(element->out, element->out_count, 0, &header, HEADER_SIZE);
    const struct iovec *last = &element->in[element->in_count - 1];
    request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    request->type = le32toh(header.type);
    request->offset = request->length = 0;
    request->flags = 0;
    request->written = written_with_status(request);
    request->data = NULL;
    request->data_count = 0;
    request->merged = NULL;

    switch (request->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT:
        start_read_write(request, le64toh(header.sector));
        break;
    case VIRTIO_BLK_T_FLUSH:
        submit_batch(request->blk);
        submit_alone(request);
        break;
    case VIRTIO_BLK_T_GET_ID:
        start_get_id(request);
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        start_discard_write_zeroes(request);
        break;
    default:
        complete(request, VIRTIO_BLK_S_UNSUPP);
        break;
    }
    return true;
}

/* ---- the queue ------------------------------------------------------------------------------ */

/* False: nothing is left. */
static bool spend(uint64_t *budget, uint64_t cost)
{
    *budget -= MIN(*budget, cost);
    return *budget;
}

/* At most a queue full of short requests at once, and no more looks than that at an index that the
 * driver turns back and forth: the loop's other handlers have their turn. Long ones count for more, as
 * there may be work on all their bytes before they wait. */
void virtio_blk_handle_queue(struct virtio_queue *queue)
{
    struct virtio_blk *blk = virtio_blk_of(queue->vdev);
    struct virtq *vq = &queue->vq;
    const uint64_t least = PASS_BYTES / vq->size;
    uint64_t budget = PASS_BYTES, cost;
    enum virtq_pop_result result;

    blk->is_popping = true;
    do {
        virtio_queue_begin(queue);
        do {
            struct virtio_blk_request *request = take_request(blk);
            result = virtq_pop(vq, &request->element);
            if (result != VIRTQ_POPPED) {
                free_request(request);
                break;
            }
            cost = MAX(request->element.out_bytes + request->element.in_bytes, least);
            if (!start_request(request)) {
                virtq_discard(vq, &request->element);
                free_request(request);
                virtq_break(vq, "a virtio-blk request without header or status");
                result = VIRTQ_BROKEN;
            }
        } while (result == VIRTQ_POPPED && spend(&budget, cost));
    } while (result == VIRTQ_EMPTY && virtio_queue_end(queue) && spend(&budget, least));
    submit_batch(blk);
    blk->is_popping = false;
    notify_soon(blk);
    if (result == VIRTQ_BROKEN) {
        virtio_break(&blk->vdev, vq->broken_why);
    } else if (!budget) {
        virtio_queue_kick(queue); /* the rest next time */
    }
}

/* ---- start and stop ------------------------------------------------------------------------- */

void virtio_blk_start(struct virtio_device *vdev)
{
    struct virtio_blk *blk = virtio_blk_of(vdev);
    struct virtio_blk_request *request = blk->parked;

    blk->is_running = true;
    blk->parked = NULL;
    blk->parked_last = &blk->parked;
    if (atomic_exchange(&blk->owes_flush, false)) {
        virtio_blk_flush_cache(blk);
    }
    while (request) {
        struct virtio_blk_request *next = request->next;
        submit_alone(request);
        request = next;
    }
}

void virtio_blk_stop(struct virtio_device *vdev)
{
    struct virtio_blk *blk = virtio_blk_of(vdev);

    blk->is_running = false;
    blk->is_stopping = true;
    finish_stop(blk);
}

void virtio_blk_drop_parked(struct virtio_blk *blk)
{
    while (blk->parked) {
        struct virtio_blk_request *request = blk->parked;
        blk->parked = request->next;
        virtq_discard(vq_of(blk), &request->element);
        free_request(request);
    }
    blk->parked_last = &blk->parked;
}
