// SPDX-License-Identifier: MIT
/*
 * A client that keeps an NBD server busy: random requests of one size, a number of them at a time, for
 * some time. Prints requests per second.
 *
 *   nbd_load URI read|write DEPTH SECONDS [BYTES]
 */
#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct nbd_handle *nbd;
static uint64_t blocks, state = 88172645463325252, done;
static size_t bytes = 4096;
static bool writes, is_over;
static unsigned in_flight;

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void check(bool ok)
{
    if (!ok) {
        fprintf(stderr, "nbd_load: %s\n", nbd_get_error());
        exit(1);
    }
}

static uint64_t next_offset(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % blocks * bytes;
}

/* Buffers whose requests are done: libnbd takes no new request in a callback. */
static void *idle[1024];
static unsigned idle_count;

static int completed(void *buffer, int *error)
{
    if (*error) {
        fprintf(stderr, "nbd_load: %s\n", strerror(*error));
        exit(1);
    }
    done++;
    in_flight--;
    idle[idle_count++] = buffer;
    return 1;
}

static void submit(void *buffer)
{
    nbd_completion_callback callback = {.callback = completed, .user_data = buffer};
    uint64_t offset = next_offset();
    in_flight++;
    check((writes ? nbd_aio_pwrite(nbd, buffer, bytes, offset, callback, 0)
                  : nbd_aio_pread(nbd, buffer, bytes, offset, callback, 0)) >= 0);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        return 2;
    }
    unsigned depth = (unsigned)atoi(argv[3]);
    double seconds = atof(argv[4]);
    writes = !strcmp(argv[2], "write");
    if (argc > 5) {
        bytes = (size_t)atol(argv[5]);
    }
    check((nbd = nbd_create()) != NULL);
    check(nbd_set_pread_initialize(nbd, false) >= 0);
    check(nbd_connect_uri(nbd, argv[1]) >= 0);
    blocks = (uint64_t)nbd_get_size(nbd) / bytes;

    state ^= (uint64_t)time(NULL) * 2654435761u ^ (uint64_t)(uintptr_t)&depth;
    double begin = now();
    for (unsigned i = 0; i < depth && i < 1024; i++) {
        idle[idle_count++] = calloc(1, bytes);
    }
    while (in_flight || !is_over) {
        while (idle_count && !is_over) {
            submit(idle[--idle_count]);
        }
        check(nbd_poll(nbd, -1) >= 0);
        is_over = is_over || now() - begin >= seconds;
    }
    printf("%.0f\n", (double)done / (now() - begin));
    nbd_shutdown(nbd, 0);
    nbd_close(nbd);
    return 0;
}
