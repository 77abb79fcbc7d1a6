/* SPDX-License-Identifier: MIT */
/*
 * What the block layer costs: reads of 4 KiB, by the asynchronous interface that devices use. Not
 * a test. The figures of `qemu-img bench -c 1000000 -d DEPTH -s 4096` are to be compared with.
 *
 *   bench_block [-drive text, null-co if not given] [depth, 32] [seconds, 1]
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/backend.h"

#define BLOCK 4096

struct slot {
    struct iovec vec;
};

static struct block_backend *be;
static uint64_t blocks, next, done;
static unsigned in_flight;
static bool stop;

static void submit(struct slot *slot);

static void slot_done(void *opaque, int ret)
{
    if (ret < 0) {
        fprintf(stderr, "error %d\n", ret);
        exit(1);
    }
    done++;
    in_flight--;
    if (!stop) {
        submit(opaque);
    }
}

static void submit(struct slot *slot)
{
    struct block_iov iov = {.iov = &slot->vec, .niov = 1, .size = BLOCK};

    in_flight++;
    next = (next + 1) % blocks;
    backend_aio_preadv(be, next * BLOCK, &iov, 0, 0, slot_done, slot);
}

static void open_drive(const char *text)
{
    struct error *err = NULL;
    struct drive_spec spec;
    struct options *opts = options_parse(text, NULL, &err);

    if (!opts || !drive_new(opts, "none", &spec, &err)) {
        error_report(err);
        exit(1);
    }
    options_free(opts);
    free(spec.serial);
    be = spec.backend;
    blocks = backend_length(be) / BLOCK;
}

int main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : "file=null-co://,format=raw";
    int depth = argc > 2 ? atoi(argv[2]) : 32;
    int64_t seconds = argc > 3 ? atoi(argv[3]) : 1;
    struct aio_loop *loop = aio_loop_new("main", AIO_LOOP_AUTO, NULL);
    struct slot *slots = xcalloc(depth, sizeof(*slots));

    if (!loop) {
        return 1;
    }
    aio_loop_bind(loop);
    open_drive(text);
    for (int i = 0; i < depth; i++) {
        slots[i].vec = (struct iovec){.iov_base = xaligned_alloc(4096, BLOCK), .iov_len = BLOCK};
        submit(&slots[i]);
    }
    int64_t start = clock_get_ns(AIO_CLOCK_RT), now = start;
    while (now - start < seconds * NS_PER_SEC) {
        aio_loop_poll(loop, true);
        now = clock_get_ns(AIO_CLOCK_RT);
    }
    printf("%-50s depth %3d: %9.0f IOPS\n", text, depth,
           (double)done * NS_PER_SEC / (double)(now - start));
    stop = true;
    while (in_flight) {
        aio_loop_poll(loop, true);
    }
    for (int i = 0; i < depth; i++) {
        free(slots[i].vec.iov_base);
    }
    free(slots);
    backends_close();
    aio_loop_unbind(loop);
    aio_loop_free(loop);
    return 0;
}
