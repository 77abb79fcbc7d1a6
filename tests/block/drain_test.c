/* SPDX-License-Identifier: MIT */
/* Drains: nobody is below a drained node, in whichever loop; all go on afterwards. */
#include <stdatomic.h>
#include <time.h>

#include "fault.h"
#include "kit.h"

#define STREAMS 8

static struct block_backend *be;

/* A stream submits its next request when the last is done, like a guest with a queue. */
struct stream {
    struct iovec vec;
    char buffer[1024];
    _Atomic(bool) stop;
    _Atomic(bool) stopped;
    _Atomic(unsigned) done;
    bool is_write;
};

static struct stream streams[STREAMS];

static void stream_next(void *opaque);

static void stream_done(void *opaque, int ret)
{
    struct stream *s = opaque;

    CHECK(ret == 0);
    atomic_fetch_add(&s->done, 1);
    if (atomic_load(&s->stop)) {
        atomic_store(&s->stopped, true);
    } else {
        stream_next(s);
    }
}

static void stream_next(void *opaque)
{
    struct stream *s = opaque;
    struct block_iov iov = {.iov = &s->vec, .niov = 1, .size = s->vec.iov_len};
    uint64_t offset = (uint64_t)(s - streams) * 4096 + 100; /* not aligned: several steps */

    s->vec = (struct iovec){.iov_base = s->buffer, .iov_len = sizeof(s->buffer)};
    if (s->is_write) {
        backend_aio_pwritev(be, offset, &iov, 0, 0, stream_done, s);
    } else {
        backend_aio_preadv(be, offset, &iov, 0, 0, stream_done, s);
    }
}

static void start_streams(struct kit_thread *second)
{
    for (int i = 0; i < STREAMS; i++) {
        atomic_store(&streams[i].stop, false);
        atomic_store(&streams[i].stopped, false);
        atomic_store(&streams[i].done, 0);
        streams[i].is_write = i & 1;
        aio_call(i < STREAMS / 2 ? aio_loop_current() : kit_thread_loop(second), stream_next,
                 &streams[i]);
    }
}

static void wait_for_progress(void)
{
    for (int i = 0; i < STREAMS; i++) {
        unsigned before = atomic_load(&streams[i].done);
        while (atomic_load(&streams[i].done) < before + 3) {
            aio_loop_poll(aio_loop_current(), false);
        }
    }
}

static void stop_streams(void)
{
    for (int i = 0; i < STREAMS; i++) {
        atomic_store(&streams[i].stop, true);
    }
    for (int i = 0; i < STREAMS; i++) {
        while (!atomic_load(&streams[i].stopped)) {
            aio_loop_poll(aio_loop_current(), false);
        }
    }
}

static unsigned total_done(void)
{
    unsigned total = 0;

    for (int i = 0; i < STREAMS; i++) {
        total += atomic_load(&streams[i].done);
    }
    return total;
}

/* Nothing runs now, and nothing starts, though the loops do. */
static void assert_quiet(void)
{
    assert_int_equal(atomic_load(&fault.running), 0);
    unsigned reads = atomic_load(&fault.count[FAULT_READ]);
    unsigned writes = atomic_load(&fault.count[FAULT_WRITE]);
    unsigned done = total_done();
    for (int i = 0; i < 20; i++) {
        aio_loop_poll(aio_loop_current(), false);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    assert_int_equal(atomic_load(&fault.running), 0);
    assert_int_equal(atomic_load(&fault.count[FAULT_READ]), reads);
    assert_int_equal(atomic_load(&fault.count[FAULT_WRITE]), writes);
    assert_int_equal(total_done(), done);
}

static struct kit_thread *begin(uint64_t delay_ns)
{
    fault_reset();
    kit_blockdev("driver=raw,node-name=top,file.driver=raw,file.node-name=mid,"
                 "file.file.driver=fault,file.file.node-name=bottom,file.file.align=512");
    be = backend_attach("top", "disk", true, false, NULL);
    assert_non_null(be);
    fault.delay_ns = delay_ns;
    struct kit_thread *second = kit_thread_start(AIO_LOOP_AUTO);
    start_streams(second);
    wait_for_progress();
    return second;
}

static void end(struct kit_thread *second)
{
    stop_streams();
    backend_detach(be);
    kit_thread_stop(second);
}

static void drain_node(const char *name, uint64_t delay_ns)
{
    struct kit_thread *second = begin(delay_ns);
    struct block_node *node = block_node_find(name);

    for (int i = 0; i < 5; i++) {
        block_node_drain_begin(node);
        assert_quiet();
        block_node_drain_end(node);
        wait_for_progress();
    }
    end(second);
}

static void drain_the_root(void **state)
{
    drain_node("top", 200000);
}

static void drain_the_bottom(void **state)
{
    drain_node("bottom", 200000);
}

/* Requests that never wait, so that drains meet them everywhere. */
static void drain_fast_requests(void **state)
{
    drain_node("mid", 0);
}

/* The requests that were held back come after what a driver does at the end of a drain. */
static void drain_end_comes_first(void **state)
{
    struct kit_thread *second = begin(100000);
    struct block_node *mid = block_node_find("mid"), *bottom = block_node_find("bottom");

    for (int i = 0; i < 5; i++) {
        block_node_drain_begin(bottom);
        fault.on_drain_end = assert_quiet;
        block_node_drain_begin(mid);
        block_node_drain_end(mid);
        block_node_drain_end(bottom);
        fault.on_drain_end = NULL;
        wait_for_progress();
    }
    end(second);
}

static void nested_drains(void **state)
{
    struct kit_thread *second = begin(100000);
    struct block_node *top = block_node_find("top"), *bottom = block_node_find("bottom");

    block_node_drain_begin(bottom);
    block_node_drain_begin(top);
    assert_quiet();
    block_node_drain_end(bottom);
    assert_quiet();
    block_node_drain_begin(bottom);
    block_node_drain_end(top);
    assert_quiet();
    block_node_drain_end(bottom);
    assert_int_equal(top->drained, 0);
    wait_for_progress();
    end(second);
}

/* A user that comes in the middle of a drain waits, too; one that goes takes its share along. */
static void graph_changes_while_drained(void **state)
{
    struct block_node *node;

    fault_reset();
    kit_blockdev("driver=fault,node-name=bottom");
    node = block_node_find("bottom");
    block_node_drain_begin(node);
    kit_blockdev("driver=raw,node-name=top,file=bottom");
    struct block_node *top = block_node_find("top");
    assert_int_equal(top->drained, 1);
    be = backend_attach("top", "disk", true, false, NULL);
    struct stream *s = &streams[0];
    atomic_store(&s->stop, true);
    atomic_store(&s->stopped, false);
    stream_next(s);
    assert_quiet();
    assert_false(atomic_load(&s->stopped));
    block_node_drain_end(node);
    assert_int_equal(top->drained, 0);
    while (!atomic_load(&s->stopped)) {
        aio_loop_poll(aio_loop_current(), true);
    }
    block_node_drain_begin(node);
    backend_detach(be);
    assert_true(blockdev_del("top", NULL));
    block_node_drain_end(node);
    assert_int_equal(node->drained, 0);
}

static void backend_drain_waits_for_done(void **state)
{
    struct kit_thread *second = begin(200000);

    for (int i = 0; i < STREAMS; i++) {
        atomic_store(&streams[i].stop, true);
    }
    backend_drain(be);
    assert_int_equal(atomic_load(&fault.running), 0);
    stop_streams(); /* those that waited at the gate */
    backend_drain(be);
    for (int i = 0; i < STREAMS; i++) {
        assert_true(atomic_load(&streams[i].stopped));
    }
    assert_int_equal(backends_flush_all(), 0);
    assert_int_equal(fault.count[FAULT_FLUSH], 1);
    end(second);
}

/* Detach with requests in flight, as when a device is pulled out: it waits for them. */
static void detach_waits(void **state)
{
    struct kit_thread *second = begin(200000);

    for (int i = 0; i < STREAMS; i++) {
        atomic_store(&streams[i].stop, true);
    }
    backend_detach(be);
    for (int i = 0; i < STREAMS; i++) {
        assert_true(atomic_load(&streams[i].stopped));
    }
    assert_null(backend_first());
    kit_thread_stop(second);
}

/* A request that a drain held back is woken and has not run yet: detach waits for it, too. */
static void detach_right_after_a_drain(void **state)
{
    fault_reset();
    kit_blockdev("driver=fault,node-name=bottom");
    be = backend_attach("bottom", "disk", true, false, NULL);
    struct stream *s = &streams[0];
    atomic_store(&s->stop, true);
    atomic_store(&s->stopped, false);
    block_node_drain_begin(block_node_find("bottom"));
    stream_next(s);
    block_node_drain_end(block_node_find("bottom"));
    assert_false(atomic_load(&s->stopped));
    backend_detach(be);
    assert_true(atomic_load(&s->stopped));
}

static void flush_error_at_stop(void **state)
{
    char buffer[512] = "";

    fault_reset();
    be = kit_drive("driver=fault,if=none");
    kit_write(be, 0, buffer, sizeof(buffer));
    fault.error[FAULT_FLUSH] = -5;
    assert_int_equal(backends_flush_all(), -5);
    fault.error[FAULT_FLUSH] = 0;
    assert_int_equal(backends_flush_all(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(drain_the_root, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drain_the_bottom, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drain_fast_requests, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drain_end_comes_first, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(nested_drains, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(graph_changes_while_drained, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(backend_drain_waits_for_done, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(detach_waits, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(detach_right_after_a_drain, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(flush_error_at_stop, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
