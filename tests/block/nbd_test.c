/* SPDX-License-Identifier: MIT */
/*
 * The nbd driver against nbdkit and qemu-nbd over unix sockets, and against servers in this process
 * that do as they like.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/bounce.h"
#include "block/iov.h"
#include "block/nbd_creds.h"
#include "kit.h"
#include "nbd_server.h"

#define SIZE (8 * MiB)

static char buffer[SIZE], other[SIZE];

static int setup(void **state)
{
    return kit_setup(state);
}

static int teardown(void **state)
{
    kit_teardown(state);
    nbd_server_stop();
    return 0;
}

static struct block_backend *connect_with(const char *options)
{
    return kit_drive("if=none,driver=nbd,discard=unmap,server.type=unix,server.path=sock%s",
                     options);
}

/* ---- requests --------------------------------------------------------------------------------- */

/* Random requests beside an array. */
static void compare_with_array(struct block_backend *be, unsigned count)
{
    static char array[SIZE];
    uint64_t random = 4711;

    assert_int_equal(backend_length(be), SIZE);
    assert_int_equal(kit_read(be, 0, array, SIZE), 0);
    for (unsigned i = 0; i < count; i++) {
        uint64_t size = 1 + kit_random(&random) % (i % 10 ? 20000 : 3 * MiB);
        uint64_t offset = kit_random(&random) % (SIZE - size);

        switch (kit_random(&random) % 6) {
        case 0:
            assert_int_equal(kit_zero(be, offset, size, i & 1 ? BLOCK_REQ_MAY_UNMAP : 0), 0);
            memset(array + offset, 0, size);
            break;
        case 1:
        case 2:
            memset(buffer, (int)kit_random(&random), size);
            assert_int_equal(kit_write_flags(be, offset, buffer, size, i % 3 ? 0 : BLOCK_REQ_FUA),
                             0);
            memcpy(array + offset, buffer, size);
            break;
        case 3:
            assert_int_equal(kit_flush(be), 0);
            break;
        default:
            assert_int_equal(kit_read(be, offset, buffer, size), 0);
            assert_memory_equal(buffer, array + offset, size);
        }
    }
    assert_int_equal(kit_read(be, 0, buffer, SIZE), 0);
    assert_memory_equal(buffer, array, SIZE);
}

static void requests(void **state)
{
    nbdkit("memory 8M");
    compare_with_array(connect_with(""), 300);
}

static void requests_of_qemu_nbd(void **state)
{
    if (!nbd_server_has("qemu-nbd")) {
        skip();
    }
    kit_make_file("image", SIZE);
    nbd_server_start("qemu-nbd -k $PWD/sock -f raw -t -e 5 -x name --discard=unmap image");
    struct block_backend *be = connect_with(",export=name");
    assert_int_equal(kit_read(be, 0, buffer, SIZE), 0);
    for (size_t i = 0; i < SIZE; i += 4097) {
        assert_int_equal((uint8_t)buffer[i], kit_pattern(i));
    }
    compare_with_array(be, 200);
    kit_close();
    kit_read_file("image", 0, other, SIZE);
    assert_memory_equal(other, buffer, SIZE);
}

/* Servers that can do less. */
static void poor_servers(void **state)
{
    static const char *const arguments[] = {
        "--filter=nozero --filter=noextents memory 8M",
        "--no-sr memory 8M",
        ("--filter=blocksize-policy memory 8M blocksize-minimum=4096 blocksize-maximum=64K "
         "blocksize-error-policy=error"),
    };

    for (size_t i = 0; i < ARRAY_SIZE(arguments); i++) {
        nbdkit(arguments[i]);
        compare_with_array(connect_with(""), 100);
        kit_close();
        nbd_server_stop();
    }
}

/* A server without FUA is flushed after such a write. */
static void no_fua(void **state)
{
    kit_make_file("image", MiB);
    nbdkit("eval get_size='echo 1048576' can_write='exit 0' can_flush='exit 0' "
           "can_fua='echo none' flush='echo x >>$PWD/flushes' "
           "pread=\"dd if=$PWD/image iflag=skip_bytes,count_bytes skip=\\$4 count=\\$3\" "
           "pwrite=\"dd of=$PWD/image oflag=seek_bytes conv=notrunc seek=\\$4\" 2>nbdkit.log");
    struct block_backend *be = connect_with("");
    unlink("flushes");
    memset(buffer, 9, 1000);
    assert_int_equal(kit_write(be, 5000, buffer, 1000), 0);
    assert_int_equal(access("flushes", F_OK), -1);
    assert_int_equal(kit_write_flags(be, 6000, buffer, 1000, BLOCK_REQ_FUA), 0);
    assert_int_equal(kit_file_size("flushes"), 2);
    assert_int_equal(kit_read(be, 4999, other, 2002), 0);
    assert_int_equal((uint8_t)other[0], kit_pattern(4999));
    assert_int_equal(other[1], 9);
    assert_int_equal(other[2000], 9);
    assert_int_equal((uint8_t)other[2001], kit_pattern(7000));
}

struct list {
    uint64_t offset;
    struct block_iov iov;
};

static int co_write_list(void *opaque)
{
    struct list *list = opaque;

    return backend_co_pwritev(backend_first(), list->offset, &list->iov, 0, 0);
}

static int co_read_list(void *opaque)
{
    struct list *list = opaque;

    return backend_co_preadv(backend_first(), list->offset, &list->iov, 0, 0);
}

static void many_buffers(void **state)
{
    struct iovec vec[100];
    struct list list = {.offset = 3, .iov = {.iov = vec, .niov = 100}};

    nbdkit("memory 8M");
    connect_with("");
    for (int i = 0; i < 100; i++) {
        vec[i] = (struct iovec){buffer + 1000 * i, (size_t)(i + 1)};
        memset(buffer + 1000 * i, i + 1, (size_t)(i + 1));
        list.iov.size += (size_t)(i + 1);
    }
    assert_int_equal(block_run(co_write_list, &list), 0);
    memset(buffer, 0, sizeof(buffer));
    assert_int_equal(block_run(co_read_list, &list), 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(buffer[1000 * i], i + 1);
        assert_int_equal(buffer[1000 * i + i], i + 1);
        assert_int_equal(buffer[1000 * i + i + 1], 0);
    }
}

struct status {
    struct block_node *node;
    uint64_t offset, length, map;
};

static int co_status(void *opaque)
{
    struct status *status = opaque;

    return block_co_status(status->node, status->offset, &status->length, &status->map);
}

static void assert_status(struct block_backend *be, uint64_t offset, uint64_t length, int flags)
{
    struct status status = {backend_root(be), offset, SIZE, 0};

    assert_int_equal(block_run(co_status, &status),
                     flags | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET_VALID);
    assert_int_equal(status.length, length);
    assert_int_equal(status.map, offset);
}

static void block_status(void **state)
{
    nbdkit("memory 8M");
    struct block_backend *be = connect_with("");
    assert_status(be, 0, SIZE, BLOCK_STATUS_ZERO);
    memset(buffer, 1, 64 * KiB);
    assert_int_equal(kit_write(be, MiB, buffer, 64 * KiB), 0);
    assert_status(be, 100, MiB - 100, BLOCK_STATUS_ZERO);
    assert_status(be, MiB, 64 * KiB, BLOCK_STATUS_DATA);
    assert_int_equal(kit_discard(be, MiB, 64 * KiB), 0);
    assert_status(be, 0, SIZE, BLOCK_STATUS_ZERO);
    kit_close();
    nbd_server_stop();

    nbdkit("--filter=noextents memory 8M");
    be = connect_with("");
    assert_status(be, 5, SIZE - 5, BLOCK_STATUS_DATA);
}

static void errors_of_the_server(void **state)
{
    nbdkit("--filter=error memory 8M error=ENOSPC error-pwrite-rate=100%");
    struct block_backend *be = connect_with("");
    assert_int_equal(kit_write(be, 0, buffer, 512), -ENOSPC);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    kit_close();
    nbd_server_stop();
    nbdkit("--filter=error memory 8M error=EPERM error-rate=100%");
    be = connect_with("");
    assert_int_equal(kit_read(be, 0, buffer, 512), -EPERM);
    assert_int_equal(kit_flush(be), 0); /* nothing was written */
    assert_int_equal(kit_zero(be, 0, 512, 0), -EPERM);
    assert_int_equal(kit_write(be, 0, buffer, 512), -EPERM);
}

static void read_only(void **state)
{
    nbdkit("-r memory 8M");
    kit_drive_fails("if=none,driver=nbd,server.type=unix,server.path=sock",
                    "'nbd+unix://?socket=sock': the server's export is read-only; give "
                    "read-only=on");
    struct block_backend *be = connect_with(",auto-read-only=on");
    assert_true(backend_is_readonly(be));
    assert_int_equal(kit_write(be, 0, buffer, 512), -EROFS);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    struct error *err = NULL;
    assert_false(block_node_reopen(backend_root(be), BLOCK_OPEN_RDWR, &err));
    kit_assert_error(err, "'nbd+unix://?socket=sock': the server's export is read-only");
}

/* ---- loops ------------------------------------------------------------------------------------ */

struct worker {
    struct block_backend *be;
    unsigned index, count;
    _Atomic(bool) done;
};

static void co_work(void *opaque)
{
    struct worker *w = opaque;
    char mine[4096], back[4096];
    struct iovec vec, back_vec;
    struct block_iov iov = block_iov_of(&vec, mine, sizeof(mine));
    struct block_iov back_iov = block_iov_of(&back_vec, back, sizeof(back));

    for (unsigned i = 0; i < w->count; i++) {
        uint64_t offset = (i * 16 + w->index) * 4096 % SIZE;

        memset(mine, (int)(i + w->index), sizeof(mine));
        CHECK(backend_co_pwritev(w->be, offset, &iov, 0, 0) == 0);
        CHECK(backend_co_preadv(w->be, offset, &back_iov, 0, 0) == 0);
        CHECK(!memcmp(mine, back, sizeof(mine)));
    }
    atomic_store(&w->done, true);
}

static struct worker workers[16];

static void start_workers(struct block_backend *be, struct aio_loop **loops, unsigned count,
                          unsigned requests)
{
    for (unsigned i = 0; i < 16; i++) {
        workers[i] = (struct worker){.be = be, .index = i, .count = requests};
        aio_call_co(loops[i % count], co_work, &workers[i]);
    }
}

static bool workers_are_done(void)
{
    for (unsigned i = 0; i < 16; i++) {
        if (!atomic_load(&workers[i].done)) {
            return false;
        }
    }
    return true;
}

static void wait_for_workers(void)
{
    int64_t deadline = clock_get_ns(AIO_CLOCK_RT) + 60 * NS_PER_SEC;

    while (!workers_are_done()) {
        CHECK(clock_get_ns(AIO_CLOCK_RT) < deadline);
        aio_loop_poll(aio_loop_current(), false);
        usleep(50);
    }
}

static void run_workers(struct block_backend *be, struct aio_loop **loops, unsigned count,
                        unsigned requests)
{
    start_workers(be, loops, count, requests);
    wait_for_workers();
}

static void several_loops(void **state)
{
    nbdkit("memory 8M");
    struct block_backend *be = connect_with("");
    struct kit_thread *one = kit_thread_start(AIO_LOOP_AUTO);
    struct kit_thread *two = kit_thread_start(AIO_LOOP_EPOLL);
    struct aio_loop *loops[] = {aio_loop_current(), kit_thread_loop(one), kit_thread_loop(two)};

    run_workers(be, loops, 3, 100);
    run_workers(be, loops + 1, 1, 50); /* moves the connection */
    backend_drain(be);
    kit_thread_stop(one);
    run_workers(be, loops + 2, 1, 50);
    run_workers(be, loops, 1, 20);
    run_workers(be, loops + 2, 1, 20);
    backend_drain(be);
    kit_thread_stop(two);
    assert_int_equal(kit_read(be, 0, buffer, SIZE), 0);
}

/* A disk in a second loop, whose requests take a while. */
struct disk {
    struct block_backend *be;
    struct kit_thread *thread;
    struct iovec vec;
    char buffer[4096];
    _Atomic(bool) done;
};

static void read_done(void *opaque, int ret)
{
    struct disk *disk = opaque;

    CHECK(ret == 0);
    atomic_store(&disk->done, true);
}

static void read_begin(void *opaque)
{
    struct disk *disk = opaque;
    struct block_iov iov = block_iov_of(&disk->vec, disk->buffer, sizeof(disk->buffer));

    backend_aio_preadv(disk->be, 0, &iov, 0, 0, read_done, disk);
}

static void come_and_go(const char *node)
{
    struct block_backend *be = backend_attach(node, "another", false, true, NULL);

    assert_non_null(be);
    backend_detach(be);
}

static void second_is_refused(void)
{
    struct error *err = NULL;

    assert_null(backend_attach("n", "another", true, false, &err));
    kit_assert_error(err, "Block node is read-only: 'n', which 'another' wants to write");
}

static void second_comes_and_goes(void)
{
    come_and_go("n");
}

static void second_above_comes_and_goes(void)
{
    kit_blockdev("driver=raw,node-name=top,read-only=on,file=n");
    come_and_go("top");
    assert_true(blockdev_del("top", NULL));
}

static void second_above_is_drained(void)
{
    kit_blockdev("driver=raw,node-name=top,read-only=on,file=n");
    block_node_drain_begin(block_node_find("top"));
    block_node_drain_end(block_node_find("top"));
    assert_true(blockdev_del("top", NULL));
}

/* An action while the disk reads. Whether the read went on behind its end. */
static bool act_during_read(void (*action)(void))
{
    struct disk disk = {.be = backend_attach("n", "disk", false, true, NULL)};

    assert_non_null(disk.be);
    disk.thread = kit_thread_start(AIO_LOOP_AUTO);
    aio_call_wait(kit_thread_loop(disk.thread), read_begin, &disk);
    action();
    bool goes_on = !atomic_load(&disk.done);
    for (int ms = 0; !atomic_load(&disk.done); ms++) {
        CHECK(ms < 20000);
        aio_loop_poll(aio_loop_current(), false);
        usleep(1000);
    }
    backend_detach(disk.be);
    kit_thread_stop(disk.thread);
    return goes_on;
}

/* Another user of the node goes, or is drained, which does not wait for the disk's request: its reply
 * is read nevertheless. Then the disk's loop may end. */
static void drains_of_others(void **state)
{
    static void (*const actions[])(void) = {second_is_refused, second_comes_and_goes,
                                            second_above_comes_and_goes, second_above_is_drained};

    nbdkit("--filter=delay memory 8M rdelay=200ms");
    kit_blockdev("driver=nbd,node-name=n,read-only=on,server.type=unix,server.path=sock");
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        unsigned attempts = 1;
        /* A busy machine may be slower than the server. */
        while (!act_during_read(actions[i])) {
            assert_true(attempts++ < 8);
        }
    }
}

/* The same while requests of two loops come and go. */
static void many_drains_of_others(void **state)
{
    nbdkit("--filter=delay memory 8M rdelay=2ms wdelay=2ms");
    kit_blockdev("driver=nbd,node-name=n,server.type=unix,server.path=sock");
    struct block_backend *be = backend_attach("n", "disk", true, true, NULL);
    struct kit_thread *one = kit_thread_start(AIO_LOOP_AUTO);
    struct kit_thread *two = kit_thread_start(AIO_LOOP_EPOLL);
    struct aio_loop *loops[] = {kit_thread_loop(one), kit_thread_loop(two)};

    start_workers(be, loops, 2, 100);
    for (int i = 0; i < 300; i++) {
        come_and_go("n");
        if (i % 10 == 0) {
            block_node_drain_begin(block_node_find("n"));
            block_node_drain_end(block_node_find("n"));
        }
        usleep(500);
    }
    wait_for_workers();
    backend_detach(be);
    kit_thread_stop(one);
    kit_thread_stop(two);
}

/* ---- servers that go and come ----------------------------------------------------------------- */

static void dead_server(void **state)
{
    nbdkit("memory 8M");
    struct block_backend *be = connect_with("");
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    nbd_server_stop();
    kit_capture_stderr();
    int64_t begin = clock_get_ns(AIO_CLOCK_RT);
    int first = kit_read(be, 0, buffer, 512), second = kit_write(be, 0, buffer, 512);
    int64_t took = clock_get_ns(AIO_CLOCK_RT) - begin;
    char *said = kit_captured();
    assert_int_equal(first, -EIO);
    assert_int_equal(second, -EIO);
    assert_true(took < 2 * NS_PER_SEC);
    assert_non_null(strstr(said, "lost the connection to 'nbd+unix://?socket=sock'"));
    free(said);
}

static void server_comes_back(void **state)
{
    kit_make_file("image", SIZE);
    nbdkit("--filter=delay file image rdelay=50ms");
    struct block_backend *be = connect_with(",reconnect-delay=30");
    struct kit_thread *thread = kit_thread_start(AIO_LOOP_AUTO);
    struct worker worker = {.be = be, .count = 20};
    aio_call_co(kit_thread_loop(thread), co_work, &worker);

    kit_capture_stderr();
    for (int i = 0; i < 4; i++) {
        usleep(120000); /* a request is under way */
        nbd_server_stop();
        nbdkit("--filter=delay file image rdelay=20ms");
    }
    while (!atomic_load(&worker.done)) {
        aio_loop_poll(aio_loop_current(), false);
        usleep(100);
    }
    char *said = kit_captured();
    assert_non_null(strstr(said, "connected to 'nbd+unix://?socket=sock' again"));
    free(said);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    backend_drain(be);
    kit_thread_stop(thread);
}

static void other_size_after_reconnect(void **state)
{
    nbdkit("memory 8M");
    struct block_backend *be = connect_with(",reconnect-delay=1");
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    nbd_server_stop();
    nbdkit("memory 4M");
    kit_capture_stderr();
    int ret = kit_read(be, 0, buffer, 512);
    char *said = kit_captured();
    assert_int_equal(ret, -EIO);
    assert_non_null(strstr(said, "after reconnecting, the export has another size"));
    free(said);
}

static void open_timeout(void **state)
{
    unlink("sock");
    kit_drive_fails("if=none,driver=nbd,server.type=unix,server.path=sock",
                    "Failed to connect to 'nbd+unix://?socket=sock': connect: No such file or "
                    "directory");
    nbd_server_launch("sleep 0.7; exec nbdkit -f -U sock memory 8M");
    struct block_backend *be = connect_with(",open-timeout=20");
    assert_int_equal(backend_length(be), SIZE);
}

/* ---- hostile servers -------------------------------------------------------------------------- */

struct hostile {
    int listener;
    unsigned kind;
};

static void send_all(int fd, const void *data, size_t size)
{
    if (send(fd, data, size, MSG_NOSIGNAL) < 0) {
        return;
    }
}

/* Takes connections until it is shut down, and says to each something else. */
static void *be_hostile(void *opaque)
{
    struct hostile *h = opaque;
    int fds[64], count = 0, fd;
    uint64_t random = 99 + h->kind;

    while (count < 64 && (fd = accept(h->listener, NULL, NULL)) >= 0) {
        char junk[4096];
        size_t at = 0;

        for (size_t i = 0; i < sizeof(junk); i++) {
            junk[i] = (char)kit_random(&random);
        }
        if (h->kind & 1) {
            memcpy(junk, "NBDMAGICIHAVEOPT\0\3", 18); /* then junk */
            at = 18;
        }
        if (h->kind & 2) {
            memcpy(junk, "NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53", 16); /* oldstyle, odd size */
            at = 16 + 8 + 4 + 124;
        }
        if (h->kind & 4) {
            send_all(fd, junk, at ? at : 8);
        } else if (!(h->kind & 8)) {
            send_all(fd, junk, sizeof(junk));
        } /* else: nothing */
        if (h->kind & 16) {
            close(fd);
        } else {
            fds[count++] = fd;
        }
    }
    while (count) {
        close(fds[--count]);
    }
    return NULL;
}

static void hostile_servers(void **state)
{
    /* A silent one costs a second. */
    static const unsigned kinds[] = {1, 5, 8, 16, 17, 18, 19, 20, 21, 22, 23, 24};

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        unsigned kind = kinds[i];
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
        struct hostile h = {.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                            .kind = kind};
        struct error *err = NULL;
        struct drive_spec spec = {0};
        pthread_t thread;

        unlink("sock");
        assert_int_equal(bind(h.listener, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(h.listener, 5), 0);
        assert_int_equal(pthread_create(&thread, NULL, be_hostile, &h), 0);
        struct options *opts =
            options_parse("if=none,driver=nbd,path=sock,read-only=on", NULL, NULL);
        if (kind < 16) {
            options_set(opts, "open-timeout", "1");
        }
        int64_t begin = clock_get_ns(AIO_CLOCK_RT);
        if (drive_new(opts, "ide", &spec, &err)) {
            /* An oldstyle server may have said a size. */
            kit_capture_stderr();
            assert_int_not_equal(kit_read(spec.backend, 0, buffer, 512), 0);
            kit_close();
            free(kit_captured());
        } else {
            assert_non_null(strstr(error_message(err), "Failed to connect to"));
            error_free(err);
        }
        assert_true(clock_get_ns(AIO_CLOCK_RT) - begin < 10 * NS_PER_SEC);
        options_free(opts);
        shutdown(h.listener, SHUT_RDWR);
        pthread_join(thread, NULL);
        close(h.listener);
    }
}

/* ---- replies that say less than they should ----------------------------------------------------- */

static bool receive(int fd, void *to, size_t size)
{
    return recv(fd, to, size, MSG_WAITALL) == (ssize_t)size;
}

static void put_be(uint8_t *to, unsigned bytes, uint64_t value)
{
    while (bytes--) {
        to[bytes] = (uint8_t)value;
        value >>= 8;
    }
}

static uint64_t get_be(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;

    while (bytes--) {
        value = value << 8 | *from++;
    }
    return value;
}

static void reply_option(int fd, uint32_t option, uint32_t type, const void *data, uint32_t size)
{
    uint8_t header[20];

    put_be(header, 8, UINT64_C(0x3e889045565a9));
    put_be(header + 8, 4, option);
    put_be(header + 12, 4, type);
    put_be(header + 16, 4, size);
    send_all(fd, header, sizeof(header));
    send_all(fd, data, size);
}

/* Up to transmission: structured replies, no contexts, 8 MiB. */
static bool negotiate(int fd)
{
    uint8_t client_flags[4], head[16], info[12], data[256];
    uint32_t option = 0;

    send_all(fd, "NBDMAGICIHAVEOPT\0\3", 18);
    if (!receive(fd, client_flags, sizeof(client_flags))) {
        return false;
    }
    while (option != 7 && receive(fd, head, sizeof(head))) { /* NBD_OPT_GO */
        option = (uint32_t)get_be(head + 8, 4);
        uint64_t size = get_be(head + 12, 4);
        if (size > sizeof(data) || (size && !receive(fd, data, size))) {
            return false;
        }
        if (option == 7) {
            put_be(info, 2, 0); /* NBD_INFO_EXPORT */
            put_be(info + 2, 8, SIZE);
            put_be(info + 10, 2, 1);
            reply_option(fd, option, 3, info, sizeof(info));
        }
        /* NBD_OPT_STRUCTURED_REPLY is the other known one. */
        bool is_known = option == 7 || option == 8;
        reply_option(fd, option, is_known ? 1 : UINT32_C(0x80000001), NULL, 0);
    }
    return option == 7;
}

/* Answers the first read with `sent` of its bytes, and the second one with all. */
struct partial {
    int listener;
    uint32_t sent;
};

static void send_chunk(int fd, const uint8_t *request, uint16_t type, const void *data,
                       uint32_t size)
{
    uint8_t chunk[20];

    put_be(chunk, 4, 0x668e33ef);
    put_be(chunk + 4, 2, 1); /* NBD_REPLY_FLAG_DONE */
    put_be(chunk + 6, 2, type);
    memcpy(chunk + 8, request + 8, 8);
    put_be(chunk + 16, 4, size);
    send_all(fd, chunk, sizeof(chunk));
    send_all(fd, data, size);
}

static void *be_partial(void *opaque)
{
    struct partial *p = opaque;
    int fd = accept(p->listener, NULL, NULL);
    uint8_t request[28], data[8 + 4096];

    if (negotiate(fd)) {
        while (receive(fd, request, sizeof(request)) && get_be(request + 4, 4) == 0) {
            memset(data, 5, sizeof(data));
            memcpy(data, request + 16, 8);
            send_chunk(fd, request, p->sent ? 1 : 0, data, p->sent ? 8 + p->sent : 0);
            p->sent = 4096;
        }
    }
    close(fd);
    return NULL;
}

/* A server that says a read is done without having sent all of it: what was not sent is neither data
 * nor what memory had. */
static void partial_reads(void **state)
{
    for (uint32_t sent = 0; sent <= 2048; sent += 2048) {
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
        struct partial p = {.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                            .sent = sent};
        pthread_t thread;

        unlink("sock");
        assert_int_equal(bind(p.listener, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(p.listener, 5), 0);
        assert_int_equal(pthread_create(&thread, NULL, be_partial, &p), 0);
        struct block_backend *be = connect_with("");
        memset(buffer, 1, 4096);
        assert_int_equal(kit_read(be, 0, buffer, 4096), -EIO);
        assert_int_equal(kit_read(be, 0, buffer, 4096), 0);
        for (unsigned i = 0; i < 4096; i++) {
            assert_int_equal(buffer[i], 5);
        }
        kit_close();
        pthread_join(thread, NULL);
        close(p.listener);
    }
}

/* ---- a server that takes its time --------------------------------------------------------------- */

/* Answers nothing before it is let go; then reads and writes of `disk`. */
struct slow {
    int listener;
    sem_t go;
    unsigned commands;
    uint8_t disk[SIZE];
};

static void *be_slow(void *opaque)
{
    struct slow *slow = opaque;
    int fd = accept(slow->listener, NULL, NULL);
    uint8_t request[28], *data = xmalloc(8 + SIZE);

    CHECK(negotiate(fd));
    while (sem_wait(&slow->go) < 0) {
    }
    while (receive(fd, request, sizeof(request)) && get_be(request + 6, 2) < 2) {
        uint64_t offset = get_be(request + 16, 8), length = get_be(request + 24, 4);
        bool is_read = get_be(request + 6, 2) == 0;

        CHECK(range_fits(offset, length, SIZE));
        slow->commands++;
        if (is_read) {
            memcpy(data, request + 16, 8);
            memcpy(data + 8, slow->disk + offset, length);
        } else {
            CHECK(receive(fd, slow->disk + offset, length));
        }
        send_chunk(fd, request, is_read, data, is_read ? (uint32_t)(8 + length) : 0);
    }
    free(data);
    close(fd);
    return NULL;
}

struct tally {
    unsigned done, failed;
};

static void count_done(void *opaque, int ret)
{
    struct tally *tally = opaque;

    tally->done++;
    tally->failed += ret < 0;
}

#define LARGE (4 * MiB)
#define LISTS (SIZE / LARGE) /* of LARGE, which together have all of `buffer` */
#define TIMES 8              /* each list, more than the budget */

/* An odd one begins with small buffers, an even one with a large one. */
static void make_list(unsigned i, struct iovec *vec, struct block_iov *iov)
{
    char *at = buffer + i * LARGE;

    *iov = (struct block_iov){.iov = vec, .size = LARGE};
    for (uint64_t left = LARGE, n; left; left -= n, at += n) {
        n = i & 1 ? (left > LARGE / 2 ? 3001 : left) : (left == LARGE ? LARGE / 2 : 4096);
        n = MIN(n, left);
        vec[iov->niov++] = (struct iovec){at, n};
    }
}

/* Requests of several buffers that the server lets wait: what they are copied to is bounded. */
static void copies_are_bounded(bool writes)
{
    static struct iovec vec[LISTS][1024];
    static struct slow slow;
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
    struct block_iov iov[LISTS];
    struct tally tally = {0};
    size_t most = BOUNCE_BUDGET + LISTS * TIMES * BOUNCE_SMALL, peak = 0;
    pthread_t thread;

    slow.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    slow.commands = 0;
    sem_init(&slow.go, 0, 0);
    for (size_t i = 0; i < SIZE; i++) {
        buffer[i] = (char)kit_pattern(writes ? i : i + 1);
        slow.disk[i] = kit_pattern(writes ? i + 1 : i);
    }
    unlink("sock");
    assert_int_equal(bind(slow.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(slow.listener, 5), 0);
    assert_int_equal(pthread_create(&thread, NULL, be_slow, &slow), 0);
    struct block_backend *be = connect_with("");
    for (unsigned i = 0; i < LISTS * TIMES; i++) {
        unsigned list = i % LISTS;
        make_list(list, vec[list], &iov[list]);
        (writes ? backend_aio_pwritev : backend_aio_preadv)(be, list * LARGE, &iov[list], 0, i,
                                                            count_done, &tally);
    }
    size_t begun = bounce_in_use();
    sem_post(&slow.go);
    while (tally.done < LISTS * TIMES) {
        aio_loop_poll(aio_loop_current(), true);
        peak = MAX(peak, bounce_in_use());
    }
    kit_close();
    pthread_join(thread, NULL);
    close(slow.listener);
    sem_destroy(&slow.go);
    assert_int_equal(tally.failed, 0);
    assert_in_range(begun, BOUNCE_BUDGET, most);
    assert_in_range(peak, 1, most + LARGE);
    assert_int_equal(bounce_in_use(), 0);
    assert_true(slow.commands > LISTS * TIMES);
    assert_memory_equal(buffer, slow.disk, SIZE);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal((uint8_t)buffer[i], kit_pattern(i));
    }
}

/* The budget is spent, and the server's blocks are larger than small pieces. */
static void copies_of_whole_blocks(void **state)
{
    struct iovec vec[200];
    struct list list = {.iov = {.iov = vec, .niov = 200, .size = 512 * KiB}};
    size_t size = list.iov.size;

    nbdkit("--filter=blocksize-policy memory 8M blocksize-minimum=32K blocksize-preferred=32K "
           "blocksize-maximum=512K blocksize-error-policy=error");
    struct block_backend *be = connect_with("");
    void *all = bounce_alloc(4096, BOUNCE_BUDGET);
    CHECK(all);
    for (size_t i = 0, at = 0; i < 200; i++) {
        size_t n = i < 199 ? (i == 100 ? 100000 : 1009) : size - at;
        vec[i] = (struct iovec){buffer + at, n};
        at += n;
    }
    for (size_t i = 0; i < size; i++) {
        buffer[i] = (char)kit_pattern(i);
    }
    assert_int_equal(block_run(co_write_list, &list), 0);
    assert_int_equal(kit_read(be, 0, other, size), 0);
    assert_memory_equal(other, buffer, size);
    memset(buffer, 0, size);
    assert_int_equal(block_run(co_read_list, &list), 0);
    assert_memory_equal(other, buffer, size);
    bounce_free(all, BOUNCE_BUDGET);
}

static void copies_of_reads(void **state)
{
    copies_are_bounded(false);
}

static void copies_of_writes(void **state)
{
    copies_are_bounded(true);
}

/* ---- TLS -------------------------------------------------------------------------------------- */

static void tls_psk(void **state)
{
    struct options *opts = options_parse("id=creds,dir=.,username=alice", NULL, NULL);
    FILE *f = fopen("keys.psk", "w");

    fputs("alice:b2c4e1f0a98d76543210b2c4e1f0a98d76543210b2c4e1f0a98d76543210aabb\n", f);
    fclose(f);
    assert_true(nbd_creds_add("tls-creds-psk", opts, NULL));
    options_free(opts);
    nbdkit("--tls=require --tls-psk=keys.psk memory 8M");
    compare_with_array(connect_with(",tls-creds=creds"), 100);
    kit_close();
    struct options *plain = options_parse("if=none,driver=nbd,path=sock", NULL, NULL);
    struct drive_spec spec = {0};
    struct error *err = NULL;
    assert_false(drive_new(plain, "ide", &spec, &err));
    assert_non_null(strstr(error_message(err), "Failed to connect to"));
    error_free(err);
    options_free(plain);
    nbd_creds_remove("creds");
}

/* ---- options ---------------------------------------------------------------------------------- */

#define UNCHECKED                                                                                  \
    "nbd: this libnbd checks no certificates over unix sockets; give server.host, or tls-creds "   \
    "with verify-peer=off"

static void add_x509(const char *id, const char *more)
{
    autofree char *text = xasprintf("id=%s,dir=.,endpoint=client%s", id, more);

    kit_make_file("ca-cert.pem", 1);
    struct options *opts = options_parse(text, NULL, NULL);

    assert_true(nbd_creds_add("tls-creds-x509", opts, NULL));
    options_free(opts);
}

/* What cannot be read is said at the object. */
static void credentials_that_are_not_there(void **state)
{
    static const struct {
        const char *type, *dir, *message;
    } cases[] = {
        {"tls-creds-x509", "/nosuch",
         "Unable to access credentials /nosuch/ca-cert.pem: No such file or directory"},
        {"tls-creds-psk", "/nosuch",
         "Unable to access credentials /nosuch/keys.psk: No such file or directory"},
        {"tls-creds-x509", "/dev/null",
         "Unable to access credentials /dev/null/ca-cert.pem: Not a directory"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        autofree char *text = xasprintf("id=creds,dir=%s", cases[i].dir);
        struct options *opts = options_parse(text, NULL, NULL);
        struct error *err = NULL;
        assert_false(nbd_creds_add(cases[i].type, opts, &err));
        kit_assert_error(err, cases[i].message);
        assert_null(nbd_creds_find("creds"));
        options_free(opts);
    }
}

static void refusals(void **state)
{
#define N "if=none,driver=nbd,"
    kit_drive_fails("if=none,driver=nbd",
                    "one of path and host must be specified: server.type=unix,server.path=… or "
                    "server.type=inet,server.host=…");
    kit_drive_fails(N "path=a,host=b", "path and host may not be used at the same time");
    kit_drive_fails(N "path=a,port=3", "port may not be used without host");
    kit_drive_fails(N "server.type=vsock,server.cid=3",
                    "nbd: server.type=vsock is not supported; use inet or unix");
    kit_drive_fails(N "server.type=unix,server.host=x", "nbd: server.type=unix needs server.path");
    kit_drive_fails(N "server.type=unix,server.path=x,server.pat=y",
                    "block driver 'nbd': unknown option 'server.pat'; did you mean 'server.path'?");
    /* It does not connect first. */
    kit_drive_fails(N "server.type=unix,server.path=/nosuch,foo=1",
                    "block driver 'nbd': unknown option 'foo'");
    kit_drive_fails("if=none,format=raw,file=nbd:unix:/nosuch,foo=1",
                    "block driver 'raw': unknown option 'foo'");
    kit_drive_fails(N "server.type=inet,server.host=localhost,server.ipv4=on",
                    "nbd: server.host=localhost has to be a number for server.ipv4=on: this libnbd "
                    "takes whatever address a name has");
    kit_drive_fails(N "server.type=inet,server.host=127.0.0.1,server.ipv4=off",
                    "nbd: server.host=127.0.0.1 is no IPv6 address");
    kit_drive_fails(N "server.type=inet,server.host=::1,server.ipv4=off,server.ipv6=off",
                    "Cannot disable IPv4 and IPv6 at same time");
    kit_drive_fails(N "path=x,tls-creds=none", "No TLS credentials with id 'none'");
    kit_drive_fails(N "host=x,tls=on,tls-hostname=y",
                    "tls-hostname=y is not supported by this libnbd, which checks the name that it "
                    "connects to; give server.host=y");
    /* Nobody would check the certificate. */
    kit_drive_fails(N "path=x,tls=on", UNCHECKED);
    kit_drive_fails("if=none,format=raw,file=nbds+unix://?socket=x", UNCHECKED);
    add_x509("creds", "");
    kit_drive_fails(N "path=x,tls-creds=creds", UNCHECKED);
    kit_drive_fails(N "path=x,tls-creds=creds,tls-hostname=y", UNCHECKED);
    nbd_creds_remove("creds");
    add_x509("creds", ",verify-peer=off");
    kit_drive_fails(N "path=x,tls-creds=creds",
                    "Failed to connect to 'nbds+unix://?socket=x': connect: No such file or "
                    "directory");
    nbd_creds_remove("creds");
    kit_drive_fails(N "server.type=inet,server.host=127.0.0.1,server.port=1,server.ipv4=on,"
                      "server.ipv6=off",
                    "Failed to connect to 'nbd://127.0.0.1:1': connect: 127.0.0.1:1: could not "
                    "connect to remote host: Connection refused");
    kit_drive_fails(N "host=127.0.0.1,port=1,export=e",
                    "Failed to connect to 'nbd://127.0.0.1:1/e': connect: 127.0.0.1:1: could not "
                    "connect to remote host: Connection refused");
}

static void by_name(void **state)
{
    nbdkit("-e ex memory 8M");
    static const char *const names[] = {
        "nbd+unix:///ex?socket=sock",
        "nbd:unix:sock:exportname=ex",
        "nbd+unix:///%65x?socket=s%6fck",
        ("json:{\"driver\":\"nbd\",\"export\":\"ex\",\"server\":{\"type\":\"unix\","
         "\"path\":\"sock\"}}"),
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct options *opts = options_new();
        struct error *err = NULL;
        struct drive_spec spec;

        options_set(opts, "file", names[i]);
        options_set(opts, "format", "raw");
        options_set(opts, "if", "none");
        if (!drive_new(opts, "ide", &spec, &err)) {
            fail_msg("%s: %s", names[i], error_message(err));
        }
        options_free(opts);
        assert_int_equal(backend_length(spec.backend), SIZE);
        assert_string_equal(backend_root(spec.backend)->file->filename,
                            "nbd+unix:///ex?socket=sock");
        kit_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_of_qemu_nbd, setup, teardown),
        cmocka_unit_test_setup_teardown(poor_servers, setup, teardown),
        cmocka_unit_test_setup_teardown(no_fua, setup, teardown),
        cmocka_unit_test_setup_teardown(many_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(block_status, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_of_the_server, setup, teardown),
        cmocka_unit_test_setup_teardown(read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(several_loops, setup, teardown),
        cmocka_unit_test_setup_teardown(drains_of_others, setup, teardown),
        cmocka_unit_test_setup_teardown(many_drains_of_others, setup, teardown),
        cmocka_unit_test_setup_teardown(dead_server, setup, teardown),
        cmocka_unit_test_setup_teardown(server_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(other_size_after_reconnect, setup, teardown),
        cmocka_unit_test_setup_teardown(open_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_servers, setup, teardown),
        cmocka_unit_test_setup_teardown(partial_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_of_whole_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_of_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_of_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(tls_psk, setup, teardown),
        cmocka_unit_test_setup_teardown(credentials_that_are_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(by_name, setup, teardown),
    };
    if (!nbd_server_has("nbdkit")) {
        puts("nbdkit is not installed (apt install nbdkit)");
        return 77;
    }
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
