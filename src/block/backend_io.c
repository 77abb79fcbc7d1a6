/* SPDX-License-Identifier: MIT */
/*
 * Requests of backends: the coroutine functions, and their asynchronous form for devices.
 *
 * An asynchronous request is a coroutine, and its description lies on that coroutine's stack: the
 * way of a read allocates nothing but the pooled coroutine. It counts as in flight until its
 * done() has returned.
 */
#include <assert.h>
#include <errno.h>

#include "base/range.h"
#include "block/backend_int.h"
#include "block/node_int.h"
#include "trace/trace.h"

/* ---- within the gate ------------------------------------------------------------------------- */

static bool may_write(const struct block_backend *be)
{
    return be->link.claim != BLOCK_CLAIM_READ;
}

/* Without a write cache, a write is done when it is on stable storage. */
static unsigned write_flags(const struct block_backend *be, unsigned flags)
{
    return backend_write_cache(be) ? flags : flags | BLOCK_REQ_FUA;
}

enum request_type { REQUEST_READ, REQUEST_WRITE, REQUEST_FLUSH, REQUEST_DISCARD, REQUEST_ZEROES };

struct request {
    struct block_backend *be;
    enum request_type type;
    unsigned flags;
    uint64_t offset, length;
    struct block_iov iov;
    uint64_t id;
    backend_done_fn *done;
    void *opaque;
    bool *submitted; /* where the submitter tells that it has returned from the coroutine */
};

static int co_perform(const struct request *r)
{
    struct block_backend *be = r->be;
    struct block_node *root = be->link.node;

    if (__builtin_expect(r->type == REQUEST_READ, 1)) {
        return block_co_preadv(root, r->offset, &r->iov, r->flags, r->id);
    }
    if (r->type != REQUEST_FLUSH && !may_write(be)) {
        return -EROFS;
    }
    switch (r->type) {
    case REQUEST_WRITE:
        return block_co_pwritev(root, r->offset, &r->iov, write_flags(be, r->flags), r->id);
    case REQUEST_FLUSH:
        return block_co_flush(root, r->id);
    case REQUEST_DISCARD:
        return block_co_discard(root, r->offset, r->length);
    default:
        return block_co_write_zeroes(root, r->offset, r->length, write_flags(be, r->flags));
    }
}

static int co_enter_and_perform(const struct request *r)
{
    co_gate_enter(&r->be->gate);
    int ret = co_perform(r);
    gate_leave(&r->be->gate);
    return ret;
}

/* ---- in a coroutine of the caller ------------------------------------------------------------ */

int backend_co_preadv(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                      unsigned flags, uint64_t id)
{
    return co_enter_and_perform(&(struct request){
        .be = be, .type = REQUEST_READ, .offset = offset, .iov = *iov, .flags = flags, .id = id});
}

int backend_co_pwritev(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                       unsigned flags, uint64_t id)
{
    return co_enter_and_perform(&(struct request){
        .be = be, .type = REQUEST_WRITE, .offset = offset, .iov = *iov, .flags = flags, .id = id});
}

int backend_co_flush(struct block_backend *be, uint64_t id)
{
    return co_enter_and_perform(&(struct request){.be = be, .type = REQUEST_FLUSH, .id = id});
}

int backend_co_discard(struct block_backend *be, uint64_t offset, uint64_t length)
{
    return co_enter_and_perform(
        &(struct request){.be = be, .type = REQUEST_DISCARD, .offset = offset, .length = length});
}

int backend_co_write_zeroes(struct block_backend *be, uint64_t offset, uint64_t length,
                            unsigned flags)
{
    return co_enter_and_perform(&(struct request){
        .be = be, .type = REQUEST_ZEROES, .offset = offset, .length = length, .flags = flags});
}

int backend_co_status(struct block_backend *be, uint64_t offset, uint64_t *length, uint64_t *map,
                      struct block_node **owner, unsigned *depth)
{
    co_gate_enter(&be->gate);
    int ret = block_co_status_above(be->link.node, NULL, offset, length, map, owner, depth);
    gate_leave(&be->gate);
    return ret;
}

/* ---- asynchronous ---------------------------------------------------------------------------- */

static void co_request(void *opaque)
{
    struct request *submitted_request = opaque;
    struct request r = *submitted_request; /* the submitter's stack goes away */
    bool submitted = false;

    submitted_request->submitted = &submitted;
    co_gate_enter(&r.be->gate);
    int ret = co_perform(&r);
    if (__builtin_expect(!submitted, 0)) {
        /* Done without a wait: the submitter has not returned yet, and done() comes later. */
        co_wake(coroutine_self());
        coroutine_yield();
    }
    TRACE(block_aio_done, r.id, ret);
    r.done(r.opaque, ret);
    gate_leave(&r.be->gate);
}

static void submit(struct request *r)
{
    assert(aio_loop_current());
    coroutine_enter(coroutine_new(co_request, r));
    /* The coroutine waits, at the latest for this. */
    *r->submitted = true;
}

void backend_aio_preadv(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                        unsigned flags, uint64_t id, backend_done_fn *done, void *opaque)
{
    TRACE(block_aio_preadv, id, backend_name(be), offset, iov->size);
    submit(&(struct request){.be = be,
                             .type = REQUEST_READ,
                             .offset = offset,
                             .iov = *iov,
                             .flags = flags,
                             .id = id,
                             .done = done,
                             .opaque = opaque});
}

void backend_aio_pwritev(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                         unsigned flags, uint64_t id, backend_done_fn *done, void *opaque)
{
    TRACE(block_aio_pwritev, id, backend_name(be), offset, iov->size);
    submit(&(struct request){.be = be,
                             .type = REQUEST_WRITE,
                             .offset = offset,
                             .iov = *iov,
                             .flags = flags,
                             .id = id,
                             .done = done,
                             .opaque = opaque});
}

void backend_aio_flush(struct block_backend *be, uint64_t id, backend_done_fn *done, void *opaque)
{
    TRACE(block_aio_flush, id, backend_name(be));
    submit(&(
        struct request){.be = be, .type = REQUEST_FLUSH, .id = id, .done = done, .opaque = opaque});
}

void backend_aio_discard(struct block_backend *be, uint64_t offset, uint64_t length,
                         backend_done_fn *done, void *opaque)
{
    submit(&(struct request){.be = be,
                             .type = REQUEST_DISCARD,
                             .offset = offset,
                             .length = length,
                             .done = done,
                             .opaque = opaque});
}

void backend_aio_write_zeroes(struct block_backend *be, uint64_t offset, uint64_t length,
                              unsigned flags, backend_done_fn *done, void *opaque)
{
    submit(&(struct request){.be = be,
                             .type = REQUEST_ZEROES,
                             .offset = offset,
                             .length = length,
                             .flags = flags,
                             .done = done,
                             .opaque = opaque});
}

/* ---- drains ---------------------------------------------------------------------------------- */

static bool is_idle(void *opaque)
{
    return gate_is_idle(opaque);
}

void backend_drain(struct block_backend *be)
{
    gate_close(&be->gate);
    block_node_wait_idle(be->link.node, is_idle, &be->gate);
    gate_open(&be->gate);
}

struct block_hurry *backend_hurry_begin(struct block_backend *be)
{
    return block_hurry_begin(be->link.node);
}

void backend_hurry_end(struct block_hurry *hurry)
{
    block_hurry_end(hurry);
}

static int flush_root(void *opaque)
{
    return block_co_flush(opaque, 0);
}

int backends_flush_all(void)
{
    struct block_backend *be = backend_first();
    int first_error = 0;

    while (be) {
        be->refs++; /* polling runs handlers of all kinds */
        backend_drain(be);
        int ret = block_run(flush_root, be->link.node);
        if (ret < 0 && !first_error) {
            first_error = ret;
        }
        struct block_backend *next = backend_next(be);
        backend_unref(be);
        be = next;
    }
    return first_error;
}
