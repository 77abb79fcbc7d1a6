/* SPDX-License-Identifier: MIT */
/*
 * What the loop does on kernels that lack something. The calls are wrapped; what the kernel gives
 * is asked for once in a process, so every case has its own.
 */
#include "kit.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "aio/uring.h"

static unsigned unknown_flags; /* of io_uring_setup() */
static int setup_error;        /* of io_uring_setup(), from the nth call on */
static int setup_error_after = -1;
static int setups;
static bool has_pwait2 = true;
static int pwait2_calls;

int __real_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params);
int __real_epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout,
                        const sigset_t *mask);
int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout,
                        const sigset_t *mask);

int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params)
{
    if (params->flags & unknown_flags) {
        return -EINVAL;
    }
    if (setup_error_after >= 0 && setups >= setup_error_after) {
        return setup_error;
    }
    setups++;
    return __real_io_uring_queue_init_params(entries, ring, params);
}

int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout,
                        const sigset_t *mask)
{
    pwait2_calls++;
    if (!has_pwait2) {
        errno = ENOSYS;
        return -1;
    }
    return __real_epoll_pwait2(fd, events, max, timeout, mask);
}

/* ---- what is to be tried again ---------------------------------------------------------------- */

static int fail_results[4], fail_count; /* of the next requests */
static atomic_int failed;               /* so far, by the loop or a worker */

ssize_t __real_preadv64(int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int niov, off_t offset);
int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
                                            unsigned count, struct __kernel_timespec *ts,
                                            sigset_t *mask);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
                                            unsigned count, struct __kernel_timespec *ts,
                                            sigset_t *mask);

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int niov, off_t offset)
{
    if (failed < fail_count) {
        errno = -fail_results[failed++];
        return -1;
    }
    return __real_preadv64(fd, iov, niov, offset);
}

/* io_uring_submit() is what makes room in a full ring. */
static bool refuses_submit;
static int submits_refused;
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

int __wrap_io_uring_submit(struct io_uring *ring)
{
    if (refuses_submit) {
        submits_refused++;
        return -EBUSY;
    }
    return __real_io_uring_submit(ring);
}

static atomic_int writes_seen, dsyncs_seen;

ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int niov, off_t offset, int flags);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int niov, off_t offset, int flags);

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int niov, off_t offset, int flags)
{
    writes_seen++;
    dsyncs_seen += flags == RWF_DSYNC;
    return __real_pwritev64v2(fd, iov, niov, offset, flags);
}

static void look_at_requests(struct io_uring *ring)
{
    for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
        struct io_uring_sqe *sqe = &ring->sq.sqes[i & *ring->sq.kring_mask];
        if (sqe->opcode == IORING_OP_WRITE) {
            writes_seen++;
            dsyncs_seen += sqe->rw_flags == RWF_DSYNC;
        }
    }
}

/* Changes the completions of reads. */
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
                                            unsigned count, struct __kernel_timespec *ts,
                                            sigset_t *mask)
{
    look_at_requests(ring);
    int ret = __real_io_uring_submit_and_wait_timeout(ring, cqe, count, ts, mask);
    unsigned head;
    struct io_uring_cqe *each;
    io_uring_for_each_cqe(ring, head, each)
    {
        if ((each->user_data & URING_TAG_MASK) == URING_TAG_IO && failed < fail_count) {
            each->res = fail_results[failed++];
        }
    }
    return ret;
}

struct retry {
    enum aio_io_engine engine;
    int done;
};

static void co_retry(void *opaque)
{
    struct retry *retry = opaque;
    char block[16];
    struct iovec iov = {.iov_base = block, .iov_len = sizeof(block)};
    struct aio_request r = {.op = AIO_OP_READ, .iov = &iov, .niov = 1};
    r.fd = open("/dev/zero", O_RDONLY);
    KIT_CHECK(co_aio_submit(retry->engine, &r) == sizeof(block));
    KIT_CHECK(failed == fail_count);
    close(r.fd);
    retry->done = 1;
}

static void retries(enum aio_io_engine engine)
{
    static const int cases[][4] = {
        {-EINTR, -EINTR, -EINTR},
        {-EAGAIN},          /* io_uring: again in a kernel worker */
        {-EAGAIN, -EAGAIN}, /* then in the pool */
        {-EINTR, -EAGAIN, -EINTR, -EAGAIN},
    };
    struct aio_loop *loop = kit_loop_new(AIO_LOOP_AUTO);
    aio_loop_bind(loop);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct retry retry = {.engine = engine};
        memcpy(fail_results, cases[i], sizeof(fail_results));
        fail_count = 0;
        atomic_store(&failed, 0);
        while (fail_count < 4 && fail_results[fail_count]) {
            fail_count++;
        }
        coroutine_enter(coroutine_new(co_retry, &retry));
        kit_poll_until(loop, &retry.done, 1);
    }
    aio_loop_unbind(loop);
    aio_loop_free(loop);
}

static void uring_retries(void)
{
    retries(AIO_IO_URING);
}

static void pool_retries(void)
{
    retries(AIO_IO_THREADS);
}

/* ---- FUA ------------------------------------------------------------------------------------ */

static void co_fua(void *opaque)
{
    enum aio_io_engine engine = *(enum aio_io_engine *)opaque;
    char block[16] = {0};
    struct iovec iov = {.iov_base = block, .iov_len = sizeof(block)};
    struct aio_request r = {.op = AIO_OP_WRITE, .iov = &iov, .niov = 1};
    r.fd = open("/dev/null", O_WRONLY);
    KIT_CHECK(co_aio_submit(engine, &r) == sizeof(block));
    KIT_CHECK(writes_seen == 1 && dsyncs_seen == 0);
    r.flags = AIO_IO_FUA;
    KIT_CHECK(co_aio_submit(engine, &r) == sizeof(block));
    KIT_CHECK(writes_seen == 2 && dsyncs_seen == 1);
    close(r.fd);
}

static void fua(enum aio_io_engine engine)
{
    struct aio_loop *loop = kit_loop_new(AIO_LOOP_AUTO);
    aio_loop_bind(loop);
    kit_run_co(loop, co_fua, &engine);
    aio_loop_unbind(loop);
    aio_loop_free(loop);
}

static void uring_fua(void)
{
    fua(AIO_IO_URING);
}

static void pool_fua(void)
{
    fua(AIO_IO_THREADS);
}

/* ---- a full ring that the kernel does not take ------------------------------------------------ */

struct crowd {
    int done;
};

static void co_reads(void *opaque)
{
    struct crowd *crowd = opaque;
    char block[16];
    struct iovec iov = {.iov_base = block, .iov_len = sizeof(block)};
    struct aio_request r = {.op = AIO_OP_READ, .iov = &iov, .niov = 1};
    r.fd = open("/dev/zero", O_RDONLY);
    KIT_CHECK(co_aio_submit(AIO_IO_URING, &r) == sizeof(block));
    close(r.fd);
    crowd->done++;
}

static void uring_is_full(void)
{
    enum { N = 700, HANDLERS = 300 };
    static struct event_notifier n[HANDLERS];
    struct aio_loop *loop = kit_loop_new(AIO_LOOP_URING);
    struct crowd crowd = {.done = 0};
    int count = 0;
    aio_loop_bind(loop);
    refuses_submit = true;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < HANDLERS; i++) {
            KIT_CHECK(event_notifier_init(&n[i], NULL));
            aio_set_notifier(loop, &n[i], kit_count, NULL, &count);
            event_notifier_set(&n[i]);
        }
        count = crowd.done = 0;
        for (int i = 0; i < N; i++) {
            coroutine_enter(coroutine_new(co_reads, &crowd));
        }
        kit_poll_until(loop, &crowd.done, N);
        kit_poll_until(loop, &count, HANDLERS);
        /* The ring is full again as the handlers go. */
        crowd.done = 0;
        for (int i = 0; i < N; i++) {
            coroutine_enter(coroutine_new(co_reads, &crowd));
        }
        for (int i = 0; i < HANDLERS; i++) {
            aio_set_notifier(loop, &n[i], NULL, NULL, NULL);
            event_notifier_cleanup(&n[i]);
        }
        kit_poll_until(loop, &crowd.done, N);
        KIT_CHECK(count == HANDLERS);
    }
    KIT_CHECK(submits_refused > 0);
    /* With requests in the backlog. */
    crowd.done = 0;
    for (int i = 0; i < N; i++) {
        coroutine_enter(coroutine_new(co_reads, &crowd));
    }
    aio_loop_unbind(loop);
    aio_loop_bind(loop);
    kit_poll_until(loop, &crowd.done, N);
    aio_loop_unbind(loop);
    aio_loop_free(loop);
}

/* ---- what has to work everywhere ------------------------------------------------------------ */

struct exercise {
    struct aio_loop *loop;
    enum aio_io_engine engine;
    int done;
};

static void co_exercise(void *opaque)
{
    struct exercise *e = opaque;
    char block[16];
    struct iovec iov = {.iov_base = block, .iov_len = sizeof(block)};
    struct aio_request r = {.op = AIO_OP_READ, .iov = &iov, .niov = 1};
    r.fd = open("/dev/zero", O_RDONLY);
    KIT_CHECK(co_aio_submit(e->engine, &r) == sizeof(block));
    close(r.fd);
    co_sleep(AIO_CLOCK_RT, 2 * NS_PER_MS);
    e->done++;
}

static void exercise(struct aio_loop *loop)
{
    struct exercise e = {.loop = loop};
    for (int i = 0; i < 20; i++) {
        e.engine = i % 2 ? AIO_IO_URING : AIO_IO_THREADS;
        coroutine_enter(coroutine_new(co_exercise, &e));
    }
    kit_poll_until(loop, &e.done, 20);

    struct event_notifier n;
    int count = 0;
    KIT_CHECK(event_notifier_init(&n, NULL));
    aio_set_notifier(loop, &n, kit_count, NULL, &count);
    for (int i = 1; i <= 20; i++) {
        event_notifier_set(&n);
        kit_poll_until(loop, &count, i);
    }
    aio_set_notifier(loop, &n, NULL, NULL, NULL);
    event_notifier_cleanup(&n);
}

static void exercise_new(enum aio_loop_engine engine, enum aio_loop_engine expected)
{
    struct aio_loop *loop = kit_loop_new(engine);
    KIT_CHECK(aio_loop_engine(loop) == expected);
    aio_loop_bind(loop);
    exercise(loop);
    aio_loop_unbind(loop);
    aio_loop_free(loop);
}

/* ---- kernels -------------------------------------------------------------------------------- */

static void as_5_19(void)
{
    unknown_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    exercise_new(AIO_LOOP_AUTO, AIO_LOOP_URING);
    exercise_new(AIO_LOOP_EPOLL, AIO_LOOP_EPOLL);
}

static void as_5_13(void)
{
    unknown_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL;
    exercise_new(AIO_LOOP_AUTO, AIO_LOOP_URING);
    exercise_new(AIO_LOOP_EPOLL, AIO_LOOP_EPOLL);
}

static void without_uring(void)
{
    struct error *err = NULL;
    setup_error = -EPERM;
    setup_error_after = 0;
    exercise_new(AIO_LOOP_AUTO, AIO_LOOP_EPOLL); /* io_uring requests go to the pool */

    KIT_CHECK(!aio_loop_new("refused", AIO_LOOP_URING, &err));
    KIT_CHECK(strstr(error_message(err), "io_uring is not available"));
    error_free(err);
    err = NULL;
    struct aio_loop *loop = kit_loop_new(AIO_LOOP_EPOLL);
    KIT_CHECK(aio_io_available(loop, AIO_IO_THREADS, &err));
    KIT_CHECK(!aio_io_available(loop, AIO_IO_URING, &err));
    KIT_CHECK(strstr(error_message(err), "io_uring is not available"));
    KIT_CHECK(strstr(error_hint(err), "aio=threads"));
    error_free(err);
    aio_loop_free(loop);
}

/* There was a ring when the kernel was asked, and none for the loop. */
static void uring_fails_at_bind(void)
{
    struct event_notifier n;
    int count = 0;
    setup_error = -ENOMEM;
    setup_error_after = 1;
    struct aio_loop *loop = kit_loop_new(AIO_LOOP_URING);
    KIT_CHECK(event_notifier_init(&n, NULL));
    aio_set_notifier(loop, &n, kit_count, NULL, &count);
    event_notifier_set(&n);
    aio_loop_bind(loop);
    KIT_CHECK(aio_loop_engine(loop) == AIO_LOOP_EPOLL);
    kit_poll_until(loop, &count, 1);
    exercise(loop);
    aio_set_notifier(loop, &n, NULL, NULL, NULL);
    event_notifier_cleanup(&n);
    aio_loop_unbind(loop);
    aio_loop_free(loop);
}

static void without_pwait2(void)
{
    has_pwait2 = false;
    exercise_new(AIO_LOOP_EPOLL, AIO_LOOP_EPOLL);
    KIT_CHECK(pwait2_calls == 1);
}

/* ---- */

static void in_a_process(void (*fn)(void), bool needs_uring)
{
    struct io_uring ring;
    if (needs_uring && io_uring_queue_init(4, &ring, 0) < 0) {
        print_message("no io_uring on this machine\n");
        skip();
    } else if (needs_uring) {
        io_uring_queue_exit(&ring);
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        fn();
        fflush(NULL);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_uring_retries(void **state)
{
    in_a_process(uring_retries, true);
}

static void test_pool_retries(void **state)
{
    in_a_process(pool_retries, false);
}

static void test_uring_fua(void **state)
{
    in_a_process(uring_fua, true);
}

static void test_pool_fua(void **state)
{
    in_a_process(pool_fua, false);
}

static void test_uring_is_full(void **state)
{
    in_a_process(uring_is_full, true);
}

static void test_kernel_5_19(void **state)
{
    in_a_process(as_5_19, true);
}

static void test_kernel_5_13(void **state)
{
    in_a_process(as_5_13, true);
}

static void test_without_uring(void **state)
{
    in_a_process(without_uring, false);
}

static void test_uring_fails_at_bind(void **state)
{
    in_a_process(uring_fails_at_bind, true);
}

static void test_without_pwait2(void **state)
{
    in_a_process(without_pwait2, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel_5_19),    cmocka_unit_test(test_kernel_5_13),
        cmocka_unit_test(test_without_uring),  cmocka_unit_test(test_uring_fails_at_bind),
        cmocka_unit_test(test_without_pwait2), cmocka_unit_test(test_uring_retries),
        cmocka_unit_test(test_pool_retries),   cmocka_unit_test(test_uring_fua),
        cmocka_unit_test(test_pool_fua),       cmocka_unit_test(test_uring_is_full),
    };
    return KIT_MAIN("fallback", tests);
}
