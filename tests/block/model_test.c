/* SPDX-License-Identifier: MIT */
/*
 * The block layer against a flat array: random requests of all kinds, at any offset, into buffers
 * of any alignment, from several coroutines in two loops.
 *
 * The image is cut into stripes of odd lengths, dealt out to the coroutines in turn. Each changes
 * only its own, so the expected content is always known, while neighbours share blocks and must
 * not undo each other's read-modify-write cycles.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/iov.h"
#include "fault.h"
#include "kit.h"

#define IMAGE_SIZE  (3 * MiB)
#define WORKERS     6
#define MAX_STRIPES 4096
#define MAX_IOV     40

static struct stripe {
    uint64_t offset, size;
} stripes[MAX_STRIPES];
static int stripe_count;
static uint8_t *expected; /* each byte belongs to the owner of its stripe */

struct worker {
    struct block_backend *be;
    int index, requests;
    uint64_t random;
};

static _Atomic(int) running;

static void cut_into_stripes(uint64_t random)
{
    uint64_t offset = 0;

    for (stripe_count = 0; offset < IMAGE_SIZE; stripe_count++) {
        uint64_t kind = kit_random(&random) % 64;
        uint64_t size = kind == 0 ? 400000 + kit_random(&random) % 5000
                                  : 1 + kit_random(&random) % (kind < 8 ? 20000 : 3000);
        CHECK(stripe_count < MAX_STRIPES);
        stripes[stripe_count] = (struct stripe){offset, MIN(size, IMAGE_SIZE - offset)};
        offset += stripes[stripe_count].size;
    }
}

/* A buffer of `size` bytes as a list, with gaps, odd addresses and empty entries. */
struct buffer {
    uint8_t *memory;
    struct iovec vec[MAX_IOV];
    struct block_iov iov;
};

static void buffer_init(struct buffer *b, uint64_t size, uint64_t *random)
{
    bool aligned = kit_random(random) % 3 == 0;
    uint64_t done = 0;
    size_t at = 0;
    int n = 0;

    b->memory = xaligned_alloc(4096, align_up(size + 4096 * (MAX_IOV + 1), 4096));
    while (done < size) {
        uint64_t rest = size - done;
        uint64_t part = n == MAX_IOV - 1 || aligned ? rest : kit_random(random) % (rest + 1);
        at += aligned ? 0 : kit_random(random) % 4096;
        b->vec[n++] = (struct iovec){.iov_base = b->memory + at, .iov_len = part};
        done += part;
        at += part;
    }
    b->iov = (struct block_iov){.iov = b->vec, .niov = n, .size = size};
}

static void co_one_request(struct worker *w)
{
    int mine = (int)(kit_random(&w->random) % (stripe_count / WORKERS)) * WORKERS + w->index;
    const struct stripe *stripe = &stripes[mine];
    uint64_t skip = kit_random(&w->random) % stripe->size;
    uint64_t size = 1 + kit_random(&w->random) % (stripe->size - skip);
    uint64_t offset = stripe->offset + skip;
    uint64_t kind = kit_random(&w->random) % 16;
    uint8_t *model = expected + offset;
    struct buffer b;

    if (kind == 0) {
        CHECK(backend_co_flush(w->be, 0) == 0);
    } else if (kind == 1) {
        unsigned flags = kit_random(&w->random) % 2 ? BLOCK_REQ_MAY_UNMAP : 0;
        CHECK(backend_co_write_zeroes(w->be, offset, size, flags) == 0);
        memset(model, 0, size);
    } else if (kind < 9) {
        buffer_init(&b, size, &w->random);
        for (uint64_t i = 0; i < size; i++) {
            model[i] = (uint8_t)kit_random(&w->random);
        }
        block_iov_write(&b.iov, 0, model, size);
        unsigned flags = kind == 2 ? BLOCK_REQ_FUA : 0;
        CHECK(backend_co_pwritev(w->be, offset, &b.iov, flags, 0) == 0);
        free(b.memory);
    } else {
        uint8_t *got = xmalloc(size);
        buffer_init(&b, size, &w->random);
        CHECK(backend_co_preadv(w->be, offset, &b.iov, 0, 0) == 0);
        block_iov_read(&b.iov, 0, got, size);
        CHECK(!memcmp(got, model, size));
        free(got);
        free(b.memory);
    }
}

static void co_work(void *opaque)
{
    struct worker *w = opaque;

    while (w->requests--) {
        co_one_request(w);
    }
    atomic_fetch_sub(&running, 1);
}

static void run_model(struct block_backend *be, enum aio_loop_engine engine, int requests)
{
    static uint64_t seed = 0x9e3779b97f4a7c15;
    struct kit_thread *second = kit_thread_start(engine);
    struct worker workers[WORKERS];

    cut_into_stripes(seed);
    expected = xcalloc(1, IMAGE_SIZE);
    assert_int_equal(kit_zero(be, 0, IMAGE_SIZE, 0), 0);
    atomic_store(&running, WORKERS);
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){be, i, requests, kit_random(&seed)};
        aio_call_co(i % 2 ? kit_thread_loop(second) : aio_loop_current(), co_work, &workers[i]);
    }
    while (atomic_load(&running)) {
        aio_loop_poll(aio_loop_current(), false);
    }

    uint8_t *content = xmalloc(IMAGE_SIZE);
    assert_int_equal(kit_read(be, 0, content, IMAGE_SIZE), 0);
    assert_memory_equal(content, expected, IMAGE_SIZE);
    free(content);
    free(expected);
    kit_thread_stop(second);
}

static void on_file(enum aio_loop_engine engine, const char *aio, const char *cache)
{
    if (engine == AIO_LOOP_URING && !kit_has_uring()) {
        print_message("skipped: io_uring is not available here\n");
        skip();
    }
    kit_main_loop(engine);
    struct error *err = NULL;
    if (!strcmp(aio, "io_uring") && !kit_has_uring()) {
        error_free(err);
        kit_main_loop_end();
        skip();
    }
    if ((!strcmp(cache, "none") || !strcmp(cache, "directsync")) && !kit_has_direct()) {
        print_message("skipped: the build directory's file system does not know O_DIRECT\n");
        kit_main_loop_end();
        skip();
    }
    kit_make_file("model", IMAGE_SIZE);
    run_model(kit_drive("file=model,format=raw,if=none,discard=unmap,cache=%s,aio=%s", cache, aio),
              engine, 150);
    kit_main_loop_end();
}

static void epoll_threads_buffered(void **state)
{
    on_file(AIO_LOOP_EPOLL, "threads", "writeback");
}

static void epoll_threads_direct(void **state)
{
    on_file(AIO_LOOP_EPOLL, "threads", "none");
}

static void uring_threads_direct(void **state)
{
    on_file(AIO_LOOP_URING, "threads", "none");
}

static void uring_uring_buffered(void **state)
{
    on_file(AIO_LOOP_URING, "io_uring", "unsafe");
}

static void uring_uring_direct(void **state)
{
    on_file(AIO_LOOP_URING, "io_uring", "none");
}

static void uring_uring_directsync(void **state)
{
    on_file(AIO_LOOP_URING, "io_uring", "directsync");
}

static void epoll_uring_writethrough(void **state)
{
    on_file(AIO_LOOP_EPOLL, "io_uring", "writethrough");
}

/* A probed image, whose first sector is watched. */
static void probed_image(void **state)
{
    kit_main_loop(AIO_LOOP_AUTO);
    kit_make_file("model", IMAGE_SIZE);
    kit_capture_stderr();
    struct block_backend *be = kit_drive("file=model,if=none");
    free(kit_captured());
    run_model(be, AIO_LOOP_AUTO, 150);
    kit_main_loop_end();
}

/* In memory, with delays and limits that no file here has. */
static void on_fault_driver(struct block_limits limits, const char *options, uint64_t delay_ns,
                            int requests)
{
    kit_main_loop(AIO_LOOP_AUTO);
    fault_reset();
    fault.limits = limits;
    struct block_backend *be = kit_drive("driver=fault,size=3M,if=none,%s", options);
    fault.delay_ns = delay_ns;
    run_model(be, AIO_LOOP_AUTO, requests);
    if (delay_ns) {
        assert_true(fault.most_running > 1);
    }
    kit_main_loop_end();
}

static void blocks_of_4096(void **state)
{
    on_fault_driver((struct block_limits){.memory_alignment = 512}, "align=4096", 100000, 100);
}

static void blocks_of_64k(void **state)
{
    on_fault_driver((struct block_limits){0}, "align=64k", 100000, 60);
}

static void blocks_of_512k(void **state)
{
    on_fault_driver((struct block_limits){0}, "align=512k", 0, 60);
}

static void short_transfers(void **state)
{
    on_fault_driver(
        (struct block_limits){
            .max_transfer = 8192, .max_iov = 3, .max_write_zeroes = 4096, .memory_alignment = 64},
        "align=512", 20000, 60);
}

static void bytes_but_few_buffers(void **state)
{
    on_fault_driver((struct block_limits){.max_transfer = 1000, .max_iov = 2}, "align=1", 0, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epoll_threads_buffered),   cmocka_unit_test(epoll_threads_direct),
        cmocka_unit_test(uring_threads_direct),     cmocka_unit_test(uring_uring_buffered),
        cmocka_unit_test(uring_uring_direct),       cmocka_unit_test(uring_uring_directsync),
        cmocka_unit_test(epoll_uring_writethrough), cmocka_unit_test(probed_image),
        cmocka_unit_test(blocks_of_4096),           cmocka_unit_test(blocks_of_64k),
        cmocka_unit_test(blocks_of_512k),           cmocka_unit_test(short_transfers),
        cmocka_unit_test(bytes_but_few_buffers),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
