/* SPDX-License-Identifier: MIT */
/* Requests and replies: what is right, and what is refused without ending the connection. */
#include "kit.h"

#include <string.h>

#define BOTH (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
#define HALF (IMAGE_SIZE / 2)

static void run(client_fn *fn, unsigned threads)
{
    struct kit_server s;

    server_start(&s, &(struct nbd_server_config){.threads = threads});
    client_run(&s, fn, NULL);
    server_stop(&s);
}

static void run_all_loops(client_fn *fn)
{
    run(fn, 0);
    run(fn, 2);
}

static bool is_pattern(const uint8_t *data, uint64_t offset, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] != (offset + i < HALF ? kit_pattern(offset + i) : 0)) {
            return false;
        }
    }
    return true;
}

/* ---- simple replies -------------------------------------------------------------------------- */

static void write_and_read(int fd)
{
    static uint8_t data[65536], back[65536];

    memset(data, 0x5a, sizeof(data));
    request_put(fd, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 1, 1000, sizeof(data));
    put(fd, data, sizeof(data));
    CHECK(error_get(fd, 1) == 0);
    request_put(fd, 0, NBD_CMD_READ, 2, 1000, sizeof(back));
    CHECK(simple_get(fd, 2) == 0);
    get(fd, back, sizeof(back));
    CHECK(!memcmp(data, back, sizeof(data)));
}

static void simple(int fd, void *opaque)
{
    uint8_t data[1024];
    uint16_t flags;

    greet(fd, BOTH);
    CHECK(go(fd, "", &flags) == IMAGE_SIZE);
    CHECK(flags == (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                    NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN |
                    NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO));
    request_put(fd, 0, NBD_CMD_READ, 1, HALF - 512, 1024);
    CHECK(simple_get(fd, 1) == 0);
    get(fd, data, sizeof(data));
    CHECK(is_pattern(data, HALF - 512, sizeof(data)));
    write_and_read(fd);
    request_put(fd, 0, NBD_CMD_READ, 3, 0, 0);
    CHECK(simple_get(fd, 3) == 0);
    request_put(fd, 0, NBD_CMD_FLUSH, 4, 0, 0);
    CHECK(simple_get(fd, 4) == 0);
    request_put(fd, NBD_CMD_FLAG_FUA, NBD_CMD_TRIM, 5, 0, 65536);
    CHECK(simple_get(fd, 5) == 0);
    request_put(fd, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA, NBD_CMD_WRITE_ZEROES, 6, 513, 1022);
    CHECK(simple_get(fd, 6) == 0);
    request_put(fd, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES, 7, 1 << 20, 65536);
    uint32_t error = simple_get(fd, 7);
    CHECK(error == 0 || error == NBD_ENOTSUP);
    request_put(fd, 0, NBD_CMD_CACHE, 8, 0, IMAGE_SIZE);
    CHECK(simple_get(fd, 8) == 0);
    request_put(fd, 0, NBD_CMD_READ, 9, 513, 512);
    CHECK(simple_get(fd, 9) == 0);
    get(fd, data, 512);
    for (int i = 0; i < 512; i++) {
        CHECK(data[i] == 0);
    }
    request_put(fd, 0, NBD_CMD_DISC, 10, 0, 0);
    expect_end(fd);
}

static void test_simple(void **state)
{
    run_all_loops(simple);
}

/* ---- structured replies ---------------------------------------------------------------------- */

/* A read of all of [offset, offset + length) by whatever chunks; how many bytes were holes. */
static uint64_t read_chunks(int fd, uint16_t flags, uint64_t offset, uint32_t length,
                            unsigned *chunks)
{
    uint64_t covered = 0, holes = 0;
    struct chunk chunk;

    *chunks = 0;
    request_put(fd, flags, NBD_CMD_READ, 77, offset, length);
    do {
        chunk = chunk_get(fd);
        CHECK(chunk.cookie == 77);
        ++*chunks;
        if (chunk.type == NBD_CHUNK_OFFSET_DATA) {
            CHECK(chunk.length > 8);
            CHECK(is_pattern(chunk.data + 8, load_be64(chunk.data), chunk.length - 8));
            covered += chunk.length - 8;
        } else if (chunk.type == NBD_CHUNK_OFFSET_HOLE) {
            CHECK(chunk.length == 12);
            CHECK(load_be64(chunk.data) >= HALF);
            covered += load_be32(chunk.data + 8);
            holes += load_be32(chunk.data + 8);
        } else {
            CHECK(chunk.type == NBD_CHUNK_NONE);
        }
        free(chunk.data);
    } while (!(chunk.flags & NBD_CHUNK_DONE));
    CHECK(covered == length);
    return holes;
}

static void reads_structured(int fd, void *opaque)
{
    unsigned chunks;
    uint16_t flags;

    greet(fd, BOTH);
    structured(fd);
    go(fd, "ro", &flags);
    CHECK(flags ==
          (NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
           NBD_FLAG_SEND_DF | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE));
    CHECK(read_chunks(fd, 0, 0, 4096, &chunks) == 0 && chunks == 1);
    CHECK(read_chunks(fd, 0, HALF - MiB, 2 * MiB, &chunks) == MiB && chunks == 2);
    CHECK(read_chunks(fd, NBD_CMD_FLAG_DF, HALF - MiB, 2 * MiB, &chunks) == 0 && chunks == 1);
    CHECK(read_chunks(fd, 0, HALF, HALF, &chunks) == HALF && chunks == 1);
    CHECK(read_chunks(fd, 0, 5, 0, &chunks) == 0 && chunks == 1);
}

static void test_structured(void **state)
{
    run_all_loops(reads_structured);
}

/* ---- block status ---------------------------------------------------------------------------- */

static void choose(int fd, const char *query)
{
    uint8_t data[128];
    size_t n = string_put(data, "");

    store_be32(data + n, 1);
    n += 4;
    n += string_put(data + n, query);
    option_put(fd, NBD_OPT_SET_META_CONTEXT, data, (uint32_t)n);
    option_expect(fd, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT);
    option_expect(fd, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
}

static void expect_extents(int fd, uint16_t flags, uint64_t offset, uint32_t length, unsigned count,
                           const uint32_t *extents)
{
    request_put(fd, flags, NBD_CMD_BLOCK_STATUS, 6, offset, length);
    struct chunk chunk = chunk_get(fd);
    CHECK(chunk.type == NBD_CHUNK_BLOCK_STATUS && chunk.flags == NBD_CHUNK_DONE);
    CHECK(chunk.length == 4 + 8 * count);
    for (unsigned i = 0; i < 2 * count; i++) {
        CHECK(load_be32(chunk.data + 4 + 4 * i) == extents[i]);
    }
    free(chunk.data);
}

static void asks_status(int fd, void *opaque)
{
    const uint32_t all[] = {HALF, 0, HALF, NBD_STATE_HOLE | NBD_STATE_ZERO};
    const uint32_t part[] = {4096, 0};

    greet(fd, BOTH);
    structured(fd);
    choose(fd, "base:allocation");
    go(fd, "", NULL);
    expect_extents(fd, 0, 0, IMAGE_SIZE, 2, all);
    expect_extents(fd, NBD_CMD_FLAG_REQ_ONE, 0, IMAGE_SIZE, 1, all);
    expect_extents(fd, 0, 0, 4096, 1, part);
    request_put(fd, 0, NBD_CMD_BLOCK_STATUS, 9, 0, 0);
    CHECK(error_get(fd, 9) == NBD_EINVAL);
    request_put(fd, 0, NBD_CMD_BLOCK_STATUS, 9, 1, IMAGE_SIZE);
    CHECK(error_get(fd, 9) == NBD_EINVAL);
}

static void test_block_status(void **state)
{
    run_all_loops(asks_status);
}

/* ---- refused --------------------------------------------------------------------------------- */

static const struct refused {
    const char *export;
    uint16_t type, flags;
    uint64_t offset;
    uint32_t length, error;
} refused[] = {
    {"", 8, 0, 0, 0, NBD_EINVAL}, /* NBD_CMD_RESIZE */
    {"", 0xffff, 0, 0, 512, NBD_EINVAL},
    {"", NBD_CMD_READ, NBD_CMD_FLAG_REQ_ONE, 0, 512, NBD_EINVAL},
    {"", NBD_CMD_READ, 0x8000, 0, 512, NBD_EINVAL},
    {"", NBD_CMD_READ, 0, IMAGE_SIZE, 1, NBD_EINVAL},
    {"", NBD_CMD_READ, 0, UINT64_MAX, 512, NBD_EINVAL},
    {"", NBD_CMD_READ, 0, UINT64_MAX - 511, 512, NBD_EINVAL},
    {"", NBD_CMD_READ, 0, 0, NBD_MAX_PAYLOAD + 1, NBD_EINVAL},
    {"", NBD_CMD_READ, 0, 0, UINT32_MAX, NBD_EINVAL},
    {"", NBD_CMD_WRITE, 0, IMAGE_SIZE - 1, 512, NBD_ENOSPC},
    {"", NBD_CMD_WRITE, 0, UINT64_MAX, 512, NBD_ENOSPC},
    {"", NBD_CMD_WRITE, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL},
    {"", NBD_CMD_WRITE, 0, IMAGE_SIZE, NBD_MAX_PAYLOAD, NBD_ENOSPC},
    {"", NBD_CMD_WRITE_ZEROES, 0, 1, UINT32_MAX, NBD_ENOSPC},
    {"", NBD_CMD_TRIM, 0, 0, IMAGE_SIZE + 1, NBD_EINVAL},
    {"", NBD_CMD_TRIM, NBD_CMD_FLAG_FAST_ZERO, 0, 512, NBD_EINVAL},
    {"", NBD_CMD_CACHE, 0, IMAGE_SIZE, 1, NBD_EINVAL},
    {"", NBD_CMD_BLOCK_STATUS, 0, 0, 512, NBD_EINVAL},
    {"ro", NBD_CMD_WRITE, 0, 0, 4096, NBD_EPERM},
    {"ro", NBD_CMD_WRITE_ZEROES, 0, 0, 4096, NBD_EPERM},
    {"ro", NBD_CMD_TRIM, 0, 0, 4096, NBD_EPERM},
};

/* Each is answered, and what follows it is understood. */
static void asks_wrong(int fd, const char *export)
{
    uint8_t *payload = calloc(1, NBD_MAX_PAYLOAD);

    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        const struct refused *r = &refused[i];
        if (strcmp(r->export, export) != 0) {
            continue;
        }
        request_put(fd, r->flags, r->type, i, r->offset, r->length);
        if (r->type == NBD_CMD_WRITE) {
            put(fd, payload, r->length);
        }
        uint32_t error = error_get(fd, i);
        if (error != r->error) {
            fprintf(stderr, "case %zu: error %u instead of %u\n", i, error, r->error);
        }
        CHECK(error == r->error);
        request_put(fd, 0, NBD_CMD_FLUSH, 999, 0, 0);
        CHECK(error_get(fd, 999) == 0);
    }
    free(payload);
}

static void wrong_simple(int fd, void *opaque)
{
    greet(fd, BOTH);
    go(fd, opaque, NULL);
    asks_wrong(fd, opaque);
}

static void wrong_structured(int fd, void *opaque)
{
    greet(fd, BOTH);
    structured(fd);
    go(fd, opaque, NULL);
    asks_wrong(fd, opaque);
}

static void test_refused(void **state)
{
    struct kit_server s;

    server_start(&s, &(struct nbd_server_config){0});
    client_run(&s, wrong_simple, (void *)"");
    client_run(&s, wrong_simple, (void *)"ro");
    client_run(&s, wrong_structured, (void *)"");
    client_run(&s, wrong_structured, (void *)"ro");
    server_stop(&s);
}

static void wrong_magic(int fd, void *opaque)
{
    uint8_t head[NBD_REQUEST_SIZE] = {1};

    greet(fd, BOTH);
    go(fd, "", NULL);
    put(fd, head, sizeof(head));
    expect_end(fd);
}

static void writes_too_much(int fd, void *opaque)
{
    greet(fd, BOTH);
    go(fd, "", NULL);
    request_put(fd, 0, NBD_CMD_WRITE, 1, 0, NBD_MAX_PAYLOAD + 1);
    expect_end(fd);
}

static void test_ends(void **state)
{
    run_all_loops(wrong_magic);
    run_all_loops(writes_too_much);
}

/* ---- many at once ---------------------------------------------------------------------------- */

#define MANY 1000

static void many(int fd, void *opaque)
{
    uint8_t *requests = calloc(MANY, NBD_REQUEST_SIZE);
    bool seen[MANY] = {false};
    uint8_t head[NBD_SIMPLE_SIZE], data[512];

    greet(fd, BOTH);
    go(fd, "ro", NULL);
    for (unsigned i = 0; i < MANY; i++) {
        uint8_t *at = requests + i * NBD_REQUEST_SIZE;
        store_be32(at, NBD_REQUEST_MAGIC);
        store_be16(at + 6, NBD_CMD_READ);
        store_be64(at + 8, i);
        store_be64(at + 16, i * 1000);
        store_be32(at + 24, sizeof(data));
    }
    put(fd, requests, (size_t)MANY * NBD_REQUEST_SIZE);
    free(requests);
    for (unsigned i = 0; i < MANY; i++) {
        get(fd, head, sizeof(head));
        uint64_t cookie = load_be64(head + 8);
        CHECK(load_be32(head) == NBD_SIMPLE_MAGIC && !load_be32(head + 4) && cookie < MANY &&
              !seen[cookie]);
        seen[cookie] = true;
        get(fd, data, sizeof(data));
        CHECK(is_pattern(data, cookie * 1000, sizeof(data)));
    }
}

static void test_many(void **state)
{
    struct kit_server s;

    for (unsigned threads = 0; threads <= 2; threads += 2) {
        server_start(&s, &(struct nbd_server_config){.threads = threads});
        clients_run(&s, many, NULL, 4);
        server_stop(&s);
    }
}

/* A server that stops: what was begun is answered, then the connection ends. */
static void is_stopped(int fd, void *opaque)
{
    greet(fd, BOTH);
    go(fd, "", NULL);
    *(_Atomic(bool) *)opaque = true;
    expect_end(fd);
}

struct stopping {
    struct kit_server *s;
    _Atomic(bool) is_in;
    struct aio_timer timer;
};

static void stop_when_in(void *opaque)
{
    struct stopping *stopping = opaque;

    if (atomic_load(&stopping->is_in)) {
        nbd_server_stop(stopping->s->server);
    } else {
        timer_set(&stopping->timer, clock_get_ns(AIO_CLOCK_RT) + NS_PER_MS);
    }
}

static void test_stop(void **state)
{
    for (unsigned threads = 0; threads <= 1; threads++) {
        struct stopping stopping = {0};
        struct kit_server s;

        server_start(&s, &(struct nbd_server_config){.threads = threads});
        stopping.s = &s;
        timer_init(&stopping.timer, aio_loop_current(), AIO_CLOCK_RT, stop_when_in, &stopping);
        timer_set(&stopping.timer, 0);
        client_run(&s, is_stopped, &stopping.is_in);
        server_stop(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_simple, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_structured, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_block_status, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_refused, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_ends, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_many, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_stop, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_simple, setup_epoll, kit_teardown),
        cmocka_unit_test_setup_teardown(test_structured, setup_epoll, kit_teardown),
        cmocka_unit_test_setup_teardown(test_many, setup_epoll, kit_teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup_epoll, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
