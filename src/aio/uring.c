/* SPDX-License-Identifier: MIT */
/*
 * io_uring through liburing: making a ring with the best flags the kernel knows, getting requests
 * in and completions out. io_uring_setup(2), io_uring_enter(2).
 *
 * The submission ring may be full (then it is submitted at once), and the kernel may refuse more
 * requests while completions wait (then a request stays in the backlog). The completion ring may
 * overflow: the kernel keeps what did not fit and says so by IORING_SQ_CQ_OVERFLOW; the next
 * io_uring_enter() fetches it.
 */
#include "aio/uring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/alloc.h"

#define URING_SQ_ENTRIES 256
#define URING_CQ_ENTRIES 4096

/* Linux: the most bytes one read or write moves; more gives a short transfer anyway. */
#define URING_MAX_BYTES 0x7ffff000u

/*
 * Without these (Linux 5.13) io_uring is not used: completions are never dropped, a wait takes a
 * time-out, poll requests are multishot (which came together with resource tags).
 */
#define URING_NEEDED_FEATURES (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS)

/* ---- life ----------------------------------------------------------------------------------- */

/* From the newest kernel's best to what every kernel has. */
static const unsigned uring_flag_sets[] = {
    /* 6.1: completions are worked off when the loop asks, never by an interrupt of its code */
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_SUBMIT_ALL,
    /* 5.19: at its next system call */
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    0,
};

static int uring_setup(struct io_uring *ring, unsigned *features)
{
    int ret = -EINVAL;
    for (unsigned i = 0; i < ARRAY_SIZE(uring_flag_sets) && ret == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags = uring_flag_sets[i] | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
            .cq_entries = URING_CQ_ENTRIES,
        };
        ret = io_uring_queue_init_params(URING_SQ_ENTRIES, ring, &params);
        *features = params.features;
    }
    return ret;
}

static pthread_once_t probe_once = PTHREAD_ONCE_INIT;
static int probe_result; /* 0 or negative errno; constant after probe_once */

static void probe(void)
{
    struct io_uring ring;
    unsigned features = 0;
    probe_result = uring_setup(&ring, &features);
    if (probe_result == 0) {
        if ((features & URING_NEEDED_FEATURES) != URING_NEEDED_FEATURES) {
            probe_result = -ENOSYS;
        }
        io_uring_queue_exit(&ring);
    }
}

bool uring_probe(struct error **errp)
{
    pthread_once(&probe_once, probe);
    if (probe_result == 0) {
        return true;
    }
    if (probe_result == -ENOSYS) {
        error_set(errp, "io_uring is not available: the kernel lacks it (Linux 5.13 or later)");
    } else {
        error_set_errno(errp, -probe_result, "io_uring is not available");
        if (probe_result == -EPERM || probe_result == -EACCES) {
            error_add_hint(errp, "see /proc/sys/kernel/io_uring_disabled and the seccomp filter "
                                 "of the container");
        }
    }
    return false;
}

struct uring *uring_new(struct error **errp)
{
    if (!uring_probe(errp)) {
        return NULL;
    }
    struct uring *uring = xnew(struct uring);
    uring->backlog_last = &uring->backlog_first;
    unsigned features;
    int ret = uring_setup(&uring->ring, &features);
    if (ret < 0) {
        error_set_errno(errp, -ret, "cannot create an io_uring");
        free(uring);
        return NULL;
    }
    /* Saves looking up the descriptor in every call; without it, it just costs that. */
    io_uring_register_ring_fd(&uring->ring);
    return uring;
}

void uring_free(struct uring *uring)
{
    if (uring) {
        assert(uring->inflight == 0 && !uring->backlog_first);
        io_uring_queue_exit(&uring->ring);
        free(uring);
    }
}

/* ---- submission ----------------------------------------------------------------------------- */

struct io_uring_sqe *uring_get_sqe(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (!sqe) {
        /* On failure (the kernel wants completions to be taken first) the ring stays full. */
        io_uring_submit(&uring->ring);
        sqe = io_uring_get_sqe(&uring->ring);
    }
    return sqe;
}

static void prepare(struct io_uring_sqe *sqe, const struct aio_request *r)
{
    const struct iovec *iov = r->iov;
    switch (r->op) {
    case AIO_OP_READ:
        if (r->niov == 1) {
            io_uring_prep_read(sqe, r->fd, iov->iov_base,
                               (unsigned)MIN(iov->iov_len, URING_MAX_BYTES), r->offset);
        } else {
            io_uring_prep_readv(sqe, r->fd, iov, (unsigned)r->niov, r->offset);
        }
        break;
    case AIO_OP_WRITE:
        if (r->niov == 1) {
            io_uring_prep_write(sqe, r->fd, iov->iov_base,
                                (unsigned)MIN(iov->iov_len, URING_MAX_BYTES), r->offset);
        } else {
            io_uring_prep_writev(sqe, r->fd, iov, (unsigned)r->niov, r->offset);
        }
        if (r->flags & AIO_IO_FUA) {
            sqe->rw_flags = RWF_DSYNC;
        }
        break;
    case AIO_OP_FDATASYNC:
        io_uring_prep_fsync(sqe, r->fd, IORING_FSYNC_DATASYNC);
        break;
    case AIO_OP_FALLOCATE:
        io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, r->fd, NULL, (unsigned)r->mode, r->offset);
        sqe->addr = r->length;
        break;
    }
}

static bool try_submit_io(struct uring *uring, struct uring_io *io)
{
    struct io_uring_sqe *sqe = uring_get_sqe(uring);
    if (!sqe) {
        return false;
    }
    prepare(sqe, io->request);
    if (io->is_async) {
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
    io_uring_sqe_set_data64(sqe, (uintptr_t)io | URING_TAG_IO);
    uring->inflight++;
    return true;
}

/* EINTR: a signal. EBUSY, EAGAIN: the kernel cannot take more before completions are taken, which
 * the caller does next. ETIME: the time is over. Anything else is a mistake of ours. */
static void check_enter(int ret)
{
    assert(ret >= 0 || ret == -EINTR || ret == -EBUSY || ret == -EAGAIN || ret == -ETIME ||
           ret == -ENOMEM);
}

void uring_submit_io(struct uring *uring, struct uring_io *io, uint64_t max_batch)
{
    if (uring->backlog_first || !try_submit_io(uring, io)) {
        io->next = NULL;
        *uring->backlog_last = io;
        uring->backlog_last = &io->next;
    }
    if (max_batch && io_uring_sq_ready(&uring->ring) >= max_batch) {
        check_enter(io_uring_submit(&uring->ring));
    }
}

void uring_flush_backlog(struct uring *uring)
{
    while (uring->backlog_first && try_submit_io(uring, uring->backlog_first)) {
        uring->backlog_first = uring->backlog_first->next;
        if (!uring->backlog_first) {
            uring->backlog_last = &uring->backlog_first;
        }
    }
}

void uring_submit(struct uring *uring)
{
    if (uring->backlog_first) {
        uring_flush_backlog(uring);
    }
    if (io_uring_sq_ready(&uring->ring) > 0) {
        check_enter(io_uring_submit_and_get_events(&uring->ring));
    } else if (IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
               (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) {
        check_enter(io_uring_get_events(&uring->ring));
    }
}

void uring_wait(struct uring *uring, int64_t timeout_ns)
{
    if (uring->backlog_first) {
        uring_flush_backlog(uring);
    }
    struct __kernel_timespec ts = {
        .tv_sec = timeout_ns / NS_PER_SEC,
        .tv_nsec = timeout_ns % NS_PER_SEC,
    };
    struct io_uring_cqe *cqe;
    check_enter(io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1,
                                                 timeout_ns == NEVER ? NULL : &ts, NULL));
}

/* ---- completion ----------------------------------------------------------------------------- */

bool uring_process(struct aio_loop *loop, struct uring *uring)
{
    bool is_bound = atomic_load_explicit(&loop->is_bound, memory_order_relaxed);
    bool progress = false;
    struct io_uring_cqe *next;
    for (unsigned left = io_uring_cq_ready(&uring->ring); left > 0; left--) {
        if (io_uring_cq_ready(&uring->ring) == 0 || io_uring_peek_cqe(&uring->ring, &next) < 0) {
            break; /* a nested round took it */
        }
        /* Copied and given back first: what runs now may nest a round and take more. */
        uint64_t data = next->user_data;
        int result = next->res;
        unsigned flags = next->flags;
        io_uring_cq_advance(&uring->ring, 1);

        void *object = (void *)(uintptr_t)(data & ~(uint64_t)URING_TAG_MASK);
        switch ((enum uring_tag)(data & URING_TAG_MASK)) {
        case URING_TAG_IO:
            uring->inflight--;
            ((struct uring_io *)object)->result = result;
            if (is_bound) {
                coroutine_enter(((struct uring_io *)object)->co);
            } else {
                co_wake(((struct uring_io *)object)->co);
            }
            progress = true;
            break;
        case URING_TAG_HANDLER:
            progress |= is_bound && uring_handler_done(loop, object, result, flags);
            break;
        case URING_TAG_WAKE:
            loop->is_wake_armed = flags & IORING_CQE_F_MORE;
            break;
        default:
            break;
        }
    }
    return progress;
}

void uring_drain(struct aio_loop *loop, struct uring *uring)
{
    while (uring->inflight > 0 || uring->backlog_first) {
        uring_wait(uring, NEVER);
        uring_process(loop, uring);
    }
}
