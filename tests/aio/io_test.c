/* SPDX-License-Identifier: MIT */
/* Host I/O from coroutines: both engines of requests on both engines of loops. */
#include "kit.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>

#include "aio/fiber.h"

#define BLOCK 4096

struct io_case {
    struct kit *kit;
    enum aio_io_engine engine;
    int fd;
};

static int new_file(void)
{
    char name[] = "/tmp/aio-io-test-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    return fd;
}

/* Runs fn for both engines of requests, each with a new file. */
static void each_engine(void **state, coroutine_fn *fn)
{
    struct kit *kit = kit_of(state);
    for (int engine = AIO_IO_THREADS; engine <= AIO_IO_URING; engine++) {
        struct io_case c = {.kit = kit, .engine = (enum aio_io_engine)engine};
        if (!aio_io_available(kit->loop, c.engine, NULL)) {
            print_message("no io_uring on this machine\n");
            continue;
        }
        c.fd = new_file();
        kit_run_co(kit->loop, fn, &c);
        close(c.fd);
    }
}

static int64_t submit(struct io_case *c, enum aio_op op, void *buffer, size_t size, uint64_t offset,
                      unsigned flags)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = size};
    return co_aio_submit(
        c->engine,
        &(struct aio_request){
            .op = op, .fd = c->fd, .flags = flags, .iov = &iov, .niov = 1, .offset = offset});
}

static void fill(uint8_t *p, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        p[i] = (uint8_t)(seed + i * 31 + i / 251);
    }
}

/* ---- results -------------------------------------------------------------------------------- */

static void co_reads_and_writes(void *opaque)
{
    struct io_case *c = opaque;
    static uint8_t out[5 * BLOCK], in[5 * BLOCK + 100];
    fill(out, sizeof(out), 7);
    assert_int_equal(submit(c, AIO_OP_WRITE, out, sizeof(out), 3, 0), sizeof(out));
    assert_int_equal(submit(c, AIO_OP_READ, in, sizeof(out), 3, 0), sizeof(out));
    assert_memory_equal(in, out, sizeof(out));

    /* Short at the end of the file, then nothing. */
    assert_int_equal(submit(c, AIO_OP_READ, in, sizeof(in), 3 + BLOCK, 0), 4 * BLOCK);
    assert_memory_equal(in, out + BLOCK, 4 * BLOCK);
    assert_int_equal(submit(c, AIO_OP_READ, in, sizeof(in), 3 + sizeof(out), 0), 0);
    assert_int_equal(submit(c, AIO_OP_READ, in, 0, 0, 0), 0);

    /* Far beyond 4 GiB, leaving a hole. */
    uint64_t far = (UINT64_C(5) << 30) + 17;
    assert_int_equal(submit(c, AIO_OP_WRITE, out, 100, far, AIO_IO_FUA), 100);
    assert_int_equal(submit(c, AIO_OP_READ, in, 200, far - 100, 0), 200);
    assert_int_equal(in[0], 0);
    assert_memory_equal(in + 100, out, 100);

    /* What another descriptor sees. */
    uint8_t byte;
    assert_int_equal(pread(c->fd, &byte, 1, 3), 1);
    assert_int_equal(byte, out[0]);
}

static void test_reads_and_writes(void **state)
{
    each_engine(state, co_reads_and_writes);
}

static void co_vectors(void *opaque)
{
    struct io_case *c = opaque;
    static uint8_t out[IOV_MAX * 7], in[IOV_MAX * 7];
    static struct iovec iov[IOV_MAX];
    fill(out, sizeof(out), 3);
    for (int n = 0; n <= IOV_MAX; n = n ? n * 2 : 1) {
        size_t total = 0;
        for (int i = 0; i < n; i++) {
            size_t length = (size_t)i % 7; /* some are empty */
            iov[i] = (struct iovec){.iov_base = out + total, .iov_len = length};
            total += length;
        }
        struct aio_request r = {.op = AIO_OP_WRITE, .fd = c->fd, .iov = iov, .niov = n};
        assert_int_equal(co_aio_submit(c->engine, &r), total);
        memset(in, 0, sizeof(in));
        for (int i = 0; i < n; i++) {
            iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
        }
        r.op = AIO_OP_READ;
        assert_int_equal(co_aio_submit(c->engine, &r), total);
        assert_memory_equal(in, out, total);
    }
    struct aio_request r = {.op = AIO_OP_READ, .fd = c->fd, .iov = iov, .niov = IOV_MAX + 1};
    assert_int_equal(co_aio_submit(c->engine, &r), -EINVAL);
}

static void test_vectors(void **state)
{
    each_engine(state, co_vectors);
}

static void co_sync_and_fallocate(void *opaque)
{
    struct io_case *c = opaque;
    static uint8_t out[4 * BLOCK], in[4 * BLOCK];
    struct aio_request r = {.op = AIO_OP_FDATASYNC, .fd = c->fd};
    fill(out, sizeof(out), 11);
    assert_int_equal(submit(c, AIO_OP_WRITE, out, sizeof(out), 0, 0), sizeof(out));
    assert_int_equal(co_aio_submit(c->engine, &r), 0);

    r = (struct aio_request){.op = AIO_OP_FALLOCATE,
                             .fd = c->fd,
                             .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             .offset = BLOCK,
                             .length = 2 * BLOCK};
    int64_t ret = co_aio_submit(c->engine, &r);
    if (ret != -EOPNOTSUPP) {
        assert_int_equal(ret, 0);
        memset(out + BLOCK, 0, 2 * BLOCK);
        assert_int_equal(submit(c, AIO_OP_READ, in, sizeof(in), 0, 0), sizeof(in));
        assert_memory_equal(in, out, sizeof(in));
    }
    r.mode = 0;
    r.offset = 4 * BLOCK;
    r.length = BLOCK;
    ret = co_aio_submit(c->engine, &r);
    if (ret != -EOPNOTSUPP) {
        assert_int_equal(ret, 0);
        assert_int_equal(lseek(c->fd, 0, SEEK_END), 5 * BLOCK);
    }
}

static void test_sync_and_fallocate(void **state)
{
    each_engine(state, co_sync_and_fallocate);
}

/* ---- errors --------------------------------------------------------------------------------- */

static void co_errors(void *opaque)
{
    struct io_case *c = opaque;
    struct io_case bad = *c;
    uint8_t buffer[512] = {0};
    struct aio_request r = {.op = AIO_OP_FDATASYNC, .fd = -1};

    bad.fd = -1;
    assert_int_equal(submit(&bad, AIO_OP_READ, buffer, 512, 0, 0), -EBADF);
    assert_int_equal(submit(&bad, AIO_OP_WRITE, buffer, 512, 0, 0), -EBADF);
    assert_int_equal(co_aio_submit(c->engine, &r), -EBADF);
    r.op = AIO_OP_FALLOCATE;
    r.length = 1;
    assert_int_equal(co_aio_submit(c->engine, &r), -EBADF);

    bad.fd = open("/dev/full", O_RDWR);
    assert_int_equal(submit(&bad, AIO_OP_WRITE, buffer, 512, 0, 0), -ENOSPC);
    close(bad.fd);
    bad.fd = open("/", O_RDONLY | O_DIRECTORY);
    assert_int_equal(submit(&bad, AIO_OP_READ, buffer, 512, 0, 0), -EISDIR);
    close(bad.fd);
    bad.fd = open("/dev/zero", O_RDONLY);
    assert_int_equal(submit(&bad, AIO_OP_WRITE, buffer, 512, 0, 0), -EBADF);
    assert_int_equal(submit(&bad, AIO_OP_READ, buffer, 512, 0, 0), 512);
    close(bad.fd);

    void *nowhere = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(submit(c, AIO_OP_WRITE, nowhere, 512, 0, 0), -EFAULT);
    munmap(nowhere, BLOCK);

    /* No offset; -1 would mean the file's position to io_uring. */
    assert_int_equal(submit(c, AIO_OP_READ, buffer, 512, UINT64_MAX, 0), -EINVAL);
    assert_int_equal(submit(c, AIO_OP_WRITE, buffer, 512, UINT64_C(1) << 63, 0), -EINVAL);
    r.fd = c->fd;
    r.length = UINT64_MAX;
    assert_int_equal(co_aio_submit(c->engine, &r), -EINVAL);
    assert_int_equal(lseek(c->fd, 0, SEEK_END), 0);
}

static void test_errors(void **state)
{
    each_engine(state, co_errors);
}

/* ---- many at once --------------------------------------------------------------------------- */

/* TSan has few threads to give, and each coroutine is one to it. */
#define CROWD (FIBER_TSAN ? 700 : 6000)

struct crowd {
    struct io_case *c;
    int done, next;
};

static void co_one_of_many(void *opaque)
{
    struct crowd *crowd = opaque;
    uint32_t number = (uint32_t)crowd->next++, back = 0;
    int64_t ret =
        submit(crowd->c, AIO_OP_WRITE, &number, sizeof(number), number * sizeof(number), 0);
    assert_int_equal(ret, sizeof(number));
    ret = submit(crowd->c, AIO_OP_READ, &back, sizeof(back), number * sizeof(number), 0);
    assert_int_equal(ret, sizeof(back));
    assert_int_equal(back, number);
    crowd->done++;
}

/* More requests than either ring of io_uring holds. */
static void co_many(void *opaque)
{
    struct io_case *c = opaque;
    struct crowd crowd = {.c = c};
    for (int i = 0; i < CROWD; i++) {
        coroutine_enter(coroutine_new(co_one_of_many, &crowd));
    }
    while (crowd.done < CROWD) {
        co_sleep(AIO_CLOCK_RT, 0);
    }
}

static void test_many_requests(void **state)
{
    each_engine(state, co_many);
}

static void co_read_zeroes(void *opaque)
{
    struct crowd *crowd = opaque;
    char block[16];
    assert_int_equal(submit(crowd->c, AIO_OP_READ, block, sizeof(block), 0, 0), sizeof(block));
    crowd->done++;
}

/* Requests that complete as they are submitted, before the loop takes the first completion: the
 * completion ring overflows. */
static void co_many_at_once(void *opaque)
{
    struct io_case c = *(struct io_case *)opaque;
    struct crowd crowd = {.c = &c};
    c.fd = open("/dev/zero", O_RDONLY);
    for (int i = 0; i < CROWD; i++) {
        coroutine_enter(coroutine_new(co_read_zeroes, &crowd));
    }
    while (crowd.done < CROWD) {
        co_sleep(AIO_CLOCK_RT, 0);
    }
    close(c.fd);
}

static void test_completions_overflow(void **state)
{
    each_engine(state, co_many_at_once);
}

/* ---- several loops -------------------------------------------------------------------------- */

struct busy {
    struct io_case c;
    unsigned seed;
    atomic_int *running;
};

static void co_busy(void *opaque)
{
    struct busy *b = opaque;
    uint8_t out[512], in[512];
    uint64_t base = (uint64_t)b->seed * 65536;
    for (int i = 0; i < 100; i++) {
        fill(out, sizeof(out), b->seed + (unsigned)i);
        KIT_CHECK(submit(&b->c, AIO_OP_WRITE, out, 512, base + (uint64_t)i * 512, 0) == 512);
        KIT_CHECK(submit(&b->c, AIO_OP_READ, in, 512, base + (uint64_t)i * 512, 0) == 512);
        KIT_CHECK(memcmp(in, out, 512) == 0);
    }
    atomic_fetch_sub(b->running, 1);
}

static void test_loops_at_once(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread loops[3];
    struct busy busy[24];
    atomic_int running = 24;
    int fd = new_file();
    bool has_uring = aio_io_available(kit->loop, AIO_IO_URING, NULL);
    for (int i = 0; i < 3; i++) {
        kit_thread_start(&loops[i], kit->engine);
    }
    for (unsigned i = 0; i < 24; i++) {
        busy[i] = (struct busy){.c = {.fd = fd}, .seed = i, .running = &running};
        busy[i].c.engine = i % 2 && has_uring ? AIO_IO_URING : AIO_IO_THREADS;
        aio_call_co(loops[i % 3].loop, co_busy, &busy[i]);
    }
    while (atomic_load(&running) > 0) {
        kit_sleep_ms(1);
    }
    for (int i = 0; i < 3; i++) {
        kit_thread_stop(&loops[i]);
    }
    close(fd);
}

/* A loop loses its thread while requests are on their way; they end in the next thread. */
static void *poll_in_thread(void *opaque)
{
    struct crowd *crowd = opaque;
    aio_loop_bind(crowd->c->kit->loop);
    kit_poll_until(crowd->c->kit->loop, &crowd->done, 50);
    aio_loop_unbind(crowd->c->kit->loop);
    return NULL;
}

static void test_unbind_with_requests(void **state)
{
    struct kit *kit = kit_of(state);
    for (int engine = AIO_IO_THREADS; engine <= AIO_IO_URING; engine++) {
        if (!aio_io_available(kit->loop, (enum aio_io_engine)engine, NULL)) {
            continue;
        }
        struct io_case c = {.kit = kit, .engine = (enum aio_io_engine)engine};
        struct crowd crowd = {.c = &c};
        pthread_t thread;
        c.fd = new_file();
        for (int i = 0; i < 50; i++) {
            coroutine_enter(coroutine_new(co_one_of_many, &crowd));
        }
        aio_loop_unbind(kit->loop);
        assert_int_equal(crowd.done, 0);
        pthread_create(&thread, NULL, poll_in_thread, &crowd);
        pthread_join(thread, NULL);
        assert_int_equal(crowd.done, 50);
        close(c.fd);
        aio_loop_bind(kit->loop);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_ENGINES(test_reads_and_writes),   BOTH_ENGINES(test_vectors),
        BOTH_ENGINES(test_sync_and_fallocate), BOTH_ENGINES(test_errors),
        BOTH_ENGINES(test_many_requests),      BOTH_ENGINES(test_completions_overflow),
        BOTH_ENGINES(test_loops_at_once),      BOTH_ENGINES(test_unbind_with_requests),
    };
    return KIT_MAIN("io", tests);
}
