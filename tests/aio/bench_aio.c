/* SPDX-License-Identifier: MIT */
/*
 * What the primitives of aio/ cost. Not a test: prints a table, in which less is better but for the
 * column IOPS.
 *
 *   bench_aio [milliseconds per line, 300 if not given]
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "aio/coroutine.h"
#include "aio/io.h"
#include "aio/loop.h"
#include "aio/notifier.h"

#define BLOCK     4096
#define FILE_SIZE (64 << 20)
#define DEPTH_MAX 32

static int64_t line_ns = 300 * NS_PER_MS;
static struct aio_loop *loop;

static int64_t now(void)
{
    return clock_get_ns(AIO_CLOCK_RT);
}

static void report(const char *what, int64_t ns, uint64_t count)
{
    printf("%-44s %9.1f ns\n", what, (double)ns / (double)count);
}

/* ---- coroutines ----------------------------------------------------------------------------- */

static void yields_once(void *opaque)
{
    coroutine_yield();
}

static void yields_for_ever(void *opaque)
{
    bool *stop = opaque;
    while (!*stop) {
        coroutine_yield();
    }
}

static void bench_coroutines(void)
{
    uint64_t count = 0;
    int64_t start = now(), ns;
    do {
        for (int i = 0; i < 1000; i++) {
            struct coroutine *co = coroutine_new(yields_once, NULL);
            coroutine_enter(co);
            coroutine_enter(co);
        }
        count += 1000;
    } while ((ns = now() - start) < line_ns);
    report("coroutine: create, enter, yield, enter, end", ns, count);

    bool stop = false;
    struct coroutine *co = coroutine_new(yields_for_ever, &stop);
    count = 0;
    start = now();
    do {
        for (int i = 0; i < 1000; i++) {
            coroutine_enter(co);
        }
        count += 1000;
    } while ((ns = now() - start) < line_ns);
    report("coroutine: enter and yield", ns, count);
    stop = true;
    coroutine_enter(co);
}

struct contest {
    struct co_mutex mutex;
    uint64_t count;
};

static void lock_and_unlock(void *opaque)
{
    struct contest *contest = opaque;
    int64_t start = now(), ns;
    do {
        for (int i = 0; i < 1000; i++) {
            co_mutex_lock(&contest->mutex);
            co_mutex_unlock(&contest->mutex);
        }
        contest->count += 1000;
    } while ((ns = now() - start) < line_ns);
    report("co_mutex: lock and unlock, nobody else", ns, contest->count);
}

static void bench_mutex(void)
{
    struct contest contest = {.count = 0};
    co_mutex_init(&contest.mutex);
    coroutine_enter(coroutine_new(lock_and_unlock, &contest));
    co_mutex_destroy(&contest.mutex);
}

/* ---- the loop ------------------------------------------------------------------------------- */

struct other {
    struct aio_loop *loop;
    bool stop; /* its loop */
};

static void *run_other(void *opaque)
{
    struct other *other = opaque;
    aio_loop_bind(other->loop);
    while (!other->stop) {
        aio_loop_poll(other->loop, true);
    }
    aio_loop_unbind(other->loop);
    return NULL;
}

static void stop_other(void *opaque)
{
    ((struct other *)opaque)->stop = true;
}

static void count_call(void *opaque)
{
    ++*(uint64_t *)opaque;
}

static uint64_t pings;
static struct other other;

static void pong(void *opaque)
{
    pings++;
}

static void ping(void *opaque)
{
    aio_call(loop, pong, NULL);
}

static void bench_calls(enum aio_loop_engine engine)
{
    uint64_t count = 0, calls = 0;
    int64_t start = now(), ns;
    struct aio_bh *bh = bh_new(loop, count_call, &calls);
    do {
        for (int i = 0; i < 1000; i++) {
            bh_schedule(bh);
            aio_loop_poll(loop, false);
        }
        count += 1000;
    } while ((ns = now() - start) < line_ns);
    report("  bottom half in a non-blocking round", ns, count);
    bh_delete(bh);

    struct event_notifier notifier;
    bool ok = event_notifier_init(&notifier, NULL);
    assert(ok);
    aio_set_notifier(loop, &notifier, count_call, NULL, &calls);
    count = 0;
    start = now();
    do {
        for (int i = 0; i < 100; i++) {
            event_notifier_set(&notifier);
            for (uint64_t seen = calls; calls == seen;) {
                aio_loop_poll(loop, true);
            }
        }
        count += 100;
    } while ((ns = now() - start) < line_ns);
    report("  notifier: set, wait, handler", ns, count);
    aio_set_notifier(loop, &notifier, NULL, NULL, NULL);
    event_notifier_cleanup(&notifier);

    other = (struct other){.loop = aio_loop_new("other", engine, NULL)};
    pthread_t thread;
    pthread_create(&thread, NULL, run_other, &other);
    count = 0;
    pings = 0;
    start = now();
    do {
        aio_call(other.loop, ping, NULL);
        while (pings == count) {
            aio_loop_poll(loop, true);
        }
        count++;
    } while ((ns = now() - start) < line_ns);
    report("  aio_call to another loop and back", ns, count);

    count = 0;
    calls = 0;
    start = now();
    do {
        for (int i = 0; i < 1000; i++) {
            aio_call(other.loop, count_call, &calls);
        }
        count += 1000;
        aio_call_wait(other.loop, count_call, &calls);
    } while ((ns = now() - start) < line_ns);
    report("  aio_call to another loop, 1000 at once", ns, count);

    aio_call(other.loop, stop_other, &other);
    pthread_join(thread, NULL);
    aio_loop_free(other.loop);
}

/* ---- host I/O ------------------------------------------------------------------------------- */

static struct {
    enum aio_io_engine engine;
    int fd;
    bool stop;
    unsigned running;
    uint64_t count;
} io;

static void reads(void *opaque)
{
    unsigned seed = (unsigned)(uintptr_t)opaque;
    char *buffer = aligned_alloc(BLOCK, BLOCK);
    struct iovec iov = {.iov_base = buffer, .iov_len = BLOCK};
    while (!io.stop) {
        seed = seed * 1664525 + 1013904223;
        struct aio_request request = {
            .op = AIO_OP_READ,
            .fd = io.fd,
            .iov = &iov,
            .niov = 1,
            .offset = (uint64_t)(seed >> 8) % (FILE_SIZE / BLOCK) * BLOCK,
        };
        int64_t ret = co_aio_submit(io.engine, &request);
        assert(ret == BLOCK);
        (void)ret;
        io.count++;
    }
    free(buffer);
    io.running--;
}

static void bench_reads(const char *name, int fd, enum aio_io_engine engine, unsigned depth)
{
    if (!aio_io_available(loop, engine, NULL)) {
        return;
    }
    io.engine = engine;
    io.fd = fd;
    io.stop = false;
    io.count = 0;
    io.running = depth;
    int64_t start = now(), ns;
    for (unsigned i = 0; i < depth; i++) {
        coroutine_enter(coroutine_new(reads, (void *)(uintptr_t)(i + 1)));
    }
    while ((ns = now() - start) < line_ns) {
        aio_loop_poll(loop, true);
    }
    uint64_t count = io.count;
    io.stop = true;
    while (io.running > 0) {
        aio_loop_poll(loop, true);
    }
    printf("  read 4k %-10s %-9s depth %-2u %20.0f IOPS %9.1f ns\n", name,
           engine == AIO_IO_URING ? "io_uring" : "threads", depth, (double)count * 1e9 / (double)ns,
           (double)ns / (double)count);
}

static int make_file(void)
{
    int fd = memfd_create("bench", MFD_CLOEXEC); /* a file in a tmpfs */
    char block[BLOCK];
    memset(block, 0x5a, sizeof(block));
    for (off_t at = 0; fd >= 0 && at < FILE_SIZE; at += BLOCK) {
        if (pwrite(fd, block, sizeof(block), at) != BLOCK) {
            return -1;
        }
    }
    return fd;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum aio_loop_engine engine;
    } engines[] = {{"io_uring", AIO_LOOP_URING}, {"epoll", AIO_LOOP_EPOLL}};

    if (argc > 1) {
        line_ns = strtol(argv[1], NULL, 10) * NS_PER_MS;
    }
    int file = make_file(), zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (file < 0 || zero < 0) {
        perror("bench_aio");
        return 1;
    }
    loop = aio_loop_new("bench", AIO_LOOP_EPOLL, NULL);
    aio_loop_bind(loop);
    bench_coroutines();
    bench_mutex();
    aio_loop_unbind(loop);
    aio_loop_free(loop);

    for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
        struct error *err = NULL;
        loop = aio_loop_new("bench", engines[i].engine, &err);
        if (!loop) {
            error_report(err);
            continue;
        }
        printf("loop on %s\n", engines[i].name);
        aio_loop_bind(loop);
        bench_calls(engines[i].engine);
        for (int e = AIO_IO_THREADS; e <= AIO_IO_URING; e++) {
            for (unsigned depth = 1; depth <= DEPTH_MAX; depth *= 32) {
                bench_reads("tmpfs", file, (enum aio_io_engine)e, depth);
                bench_reads("/dev/zero", zero, (enum aio_io_engine)e, depth);
            }
        }
        aio_loop_unbind(loop);
        aio_loop_free(loop);
    }
    close(file);
    close(zero);
    return 0;
}
