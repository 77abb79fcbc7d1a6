/* SPDX-License-Identifier: MIT */
/*
 * Clients that send anything at any time. The server must not crash, hang or hold more memory than it
 * says (the sanitizers look on), and a good client beside them must be served.
 *
 *   nbd_hostile [ROUNDS [SEED]]
 */
#include "kit.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BOTH (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

static unsigned rounds = 300;
static uint64_t seed = 1;

/* ---- garbage --------------------------------------------------------------------------------- */

/* A whole conversation, of which bytes are changed, left out or sent twice. */
#define TALK_MAX 8192

static void add(uint8_t *talk, size_t *n, const void *data, size_t size)
{
    if (size) {
        memcpy(talk + *n, data, size);
    }
    *n += size;
}

static void add_option(uint8_t *talk, size_t *n, uint32_t option, const void *data, uint32_t size)
{
    uint8_t head[NBD_OPTION_HEAD_SIZE];

    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, option);
    store_be32(head + 12, size);
    add(talk, n, head, sizeof(head));
    add(talk, n, data, size);
}

static size_t make_talk(uint8_t *talk, uint64_t *random)
{
    static const uint16_t types[] = {NBD_CMD_READ,         NBD_CMD_WRITE,       NBD_CMD_FLUSH,
                                     NBD_CMD_TRIM,         NBD_CMD_CACHE,       NBD_CMD_READ,
                                     NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS};
    uint8_t data[256];
    size_t n = 0;

    store_be32(data, BOTH);
    add(talk, &n, data, 4);
    add_option(talk, &n, NBD_OPT_LIST, NULL, 0);
    add_option(talk, &n, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    size_t size = string_put(data, "");
    store_be32(data + size, 2);
    size += 4;
    size += string_put(data + size, "base:allocation");
    size += string_put(data + size, "qemu:allocation-depth");
    add_option(talk, &n, NBD_OPT_SET_META_CONTEXT, data, (uint32_t)size);
    size = string_put(data, "");
    store_be16(data + size, 1);
    store_be16(data + size + 2, NBD_INFO_BLOCK_SIZE);
    add_option(talk, &n, NBD_OPT_INFO, data, (uint32_t)size + 4);
    add_option(talk, &n, NBD_OPT_GO, data, (uint32_t)size + 4);
    for (unsigned i = 0; i < 40; i++) {
        uint16_t type = types[kit_random(random) % ARRAY_SIZE(types)];
        uint32_t length = type == NBD_CMD_WRITE ? 100 : kit_random(random) % 300000;
        store_be32(data, NBD_REQUEST_MAGIC);
        store_be16(data + 4, 0);
        store_be16(data + 6, type);
        store_be64(data + 8, i);
        store_be64(data + 16, kit_random(random) % IMAGE_SIZE);
        store_be32(data + 24, length);
        add(talk, &n, data, NBD_REQUEST_SIZE + (type == NBD_CMD_WRITE ? length : 0));
    }
    CHECK(n <= TALK_MAX);
    return n;
}

static void spoil(uint8_t *talk, size_t *size, uint64_t *random)
{
    static const uint32_t values[] = {0,          1,          0x7fffffff,      0x80000000,
                                      0xffffffff, 0x02000000, 0x02000001,      0x00010000,
                                      4096,       0xfffffff0, NBD_CMD_FLAG_DF, 7};
    unsigned times = kit_random(random) % 4;

    for (unsigned i = 0; i < times; i++) {
        size_t at = kit_random(random) % *size;
        switch (kit_random(random) % 4) {
        case 0:
            talk[at] ^= (uint8_t)(1u << kit_random(random) % 8);
            break;
        case 1:
            at = MIN(at, *size - 4);
            store_be32(talk + at, values[kit_random(random) % ARRAY_SIZE(values)]);
            break;
        case 2: /* some bytes are missing */
            memmove(talk + at, talk + MIN(at + 5, *size), *size - MIN(at + 5, *size));
            *size -= MIN(5, *size - at);
            break;
        case 3: /* it ends */
            *size = MAX(at, 1);
            break;
        }
    }
}

/* Takes what comes without waiting, or not at all. */
static void take(int fd, bool reads)
{
    static _Thread_local char sink[65536];

    while (reads && recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0) {
    }
}

static void babbles(int fd, void *opaque)
{
    uint64_t random = *(uint64_t *)opaque;
    uint8_t talk[TALK_MAX + 64];
    size_t size = make_talk(talk, &random);
    bool reads = kit_random(&random) % 4;

    spoil(talk, &size, &random);
    for (size_t done = 0; done < size;) {
        size_t n = MIN(size - done, 1 + kit_random(&random) % (kit_random(&random) % 2 ? 2000 : 9));
        ssize_t ret = send(fd, talk + done, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        take(fd, reads);
        if (ret < 0 && errno != EAGAIN) {
            return; /* the server has had enough */
        }
        if (ret < 0 && !reads) {
            return; /* so have we */
        }
        done += ret > 0 ? (size_t)ret : 0;
    }
    switch (kit_random(&random) % 3) {
    case 0:
        return; /* gone in the middle */
    case 1:
        shutdown(fd, SHUT_WR);
        for (int i = 0; i < 20; i++) {
            usleep(100);
            take(fd, reads);
        }
        return;
    default:
        usleep(kit_random(&random) % 3000);
        take(fd, reads);
    }
}

static void behaves(int fd, void *opaque)
{
    uint8_t data[4096];

    greet(fd, BOTH);
    CHECK(go(fd, "ro", NULL) == IMAGE_SIZE);
    for (uint64_t i = 0; i < 20; i++) {
        request_put(fd, 0, NBD_CMD_READ, i, i * 4096, sizeof(data));
        CHECK(simple_get(fd, i) == 0);
        get(fd, data, sizeof(data));
    }
}

static void either(int fd, void *opaque)
{
    if (opaque) {
        babbles(fd, opaque);
    } else {
        behaves(fd, opaque);
    }
}

#define AT_ONCE 6

static void test_garbage(void **state)
{
    uint64_t random = seed;

    for (unsigned threads = 0; threads <= 2; threads += 2) {
        struct kit_server s;

        server_start(&s, &(struct nbd_server_config){.threads = threads});
        for (unsigned i = 0; i < rounds / AT_ONCE; i++) {
            uint64_t seeds[AT_ONCE];
            void *opaques[AT_ONCE];
            for (unsigned k = 0; k < AT_ONCE; k++) {
                seeds[k] = kit_random(&random);
                opaques[k] = k ? &seeds[k] : NULL; /* the first one behaves */
            }
            clients_run(&s, either, opaques, AT_ONCE);
        }
        server_stop(&s);
    }
}

/* ---- clients that take nothing --------------------------------------------------------------- */

struct greedy {
    struct kit_server *s;
    _Atomic(bool) is_full, is_over;
};

/* Asks for as much as the server lets it, and takes nothing until another client has been served. */
static void greedy_client(int fd, struct greedy *greedy)
{
    uint8_t head[NBD_REQUEST_SIZE];

    greet(fd, BOTH);
    go(fd, "", NULL);
    store_be32(head, NBD_REQUEST_MAGIC);
    store_be16(head + 4, 0);
    store_be16(head + 6, NBD_CMD_READ);
    store_be64(head + 8, 1);
    store_be64(head + 16, 0);
    store_be32(head + 24, IMAGE_SIZE);
    for (unsigned stalls = 0; stalls < 100;) {
        ssize_t n = send(fd, head, sizeof(head), MSG_DONTWAIT | MSG_NOSIGNAL);
        CHECK(n == sizeof(head) || (n < 0 && errno == EAGAIN));
        if (n < 0) {
            stalls++;
            usleep(1000);
        }
    }
    atomic_store(&greedy->is_full, true);
    while (!atomic_load(&greedy->is_over)) {
        usleep(1000);
    }
}

static void modest_client(int fd, struct greedy *greedy)
{
    while (!atomic_load(&greedy->is_full)) {
        usleep(1000);
    }
    behaves(fd, NULL);
    atomic_store(&greedy->is_over, true);
}

static void greedy_or_modest(int fd, void *opaque)
{
    static _Atomic(unsigned) number;

    if (atomic_fetch_add(&number, 1) % 2 == 0) {
        greedy_client(fd, opaque);
    } else {
        modest_client(fd, opaque);
    }
}

struct watch {
    struct greedy greedy;
    struct aio_timer timer;
    unsigned looks;
    uint64_t most_in_flight, most_kept; /* bytes of buffers, seen at once */
};

/* Bytes of the buffers of a list of requests. */
static uint64_t buffers_of(const struct nbd_request *r)
{
    uint64_t bytes = 0;

    for (; r; r = r->next) {
        bytes += r->capacity;
    }
    return bytes;
}

/* What clients cost, again and again. */
static void look(void *opaque)
{
    struct watch *watch = opaque;
    struct nbd_connection *conn = watch->greedy.s->server->connections;

    for (; conn; conn = conn->next) {
        uint64_t kept = buffers_of(conn->free_requests), queued = buffers_of(conn->first_reply);
        CHECK(conn->in_flight <= NBD_IN_FLIGHT_REQUESTS);
        CHECK(conn->bytes_in_flight <= NBD_IN_FLIGHT_BYTES);
        CHECK(conn->kept_bytes <= NBD_KEPT_BYTES);
        CHECK(kept == conn->kept_bytes);
        CHECK(queued <= conn->bytes_in_flight);
        watch->most_in_flight = MAX(watch->most_in_flight, queued);
        watch->most_kept = MAX(watch->most_kept, kept);
    }
    watch->looks++;
    timer_set(&watch->timer, clock_get_ns(AIO_CLOCK_RT) + 2 * NS_PER_MS);
}

static void run_watched(struct watch *watch, client_fn *fn, unsigned count)
{
    void *opaques[2] = {&watch->greedy, &watch->greedy};
    struct kit_server s;

    server_start(&s, &(struct nbd_server_config){0});
    watch->greedy.s = &s;
    timer_init(&watch->timer, aio_loop_current(), AIO_CLOCK_RT, look, watch);
    timer_set(&watch->timer, 0);
    clients_run(&s, fn, opaques, count);
    timer_cancel(&watch->timer);
    assert_true(watch->looks > 1);
    server_stop(&s);
}

static void test_takes_nothing(void **state)
{
    struct watch watch = {0};

    run_watched(&watch, greedy_or_modest, 2);
}

/* ---- clients that hoard ---------------------------------------------------------------------- */

/* The next reply; its data is dropped. True if it was a read's, of which the cookies are odd. */
static bool reply_take(int fd)
{
    static uint8_t sink[NBD_REQUEST_KEEP];
    uint8_t head[NBD_SIMPLE_SIZE];
    bool is_read;

    get(fd, head, sizeof(head));
    CHECK(load_be32(head) == NBD_SIMPLE_MAGIC);
    is_read = load_be64(head + 8) % 2;
    CHECK(load_be32(head + 4) == (is_read ? 0 : load_be64(head + 8)));
    if (is_read) {
        get(fd, sink, sizeof(sink));
    }
    return is_read;
}

#define AT_A_TIME (NBD_KEPT_BYTES / NBD_REQUEST_KEEP)

/* Makes the server keep buffers, and then hand them to requests that need none and whose replies
 * wait behind those that are not taken: done ones, and some that are not valid (their cookie is the
 * error). */
static void hoards(int fd, void *opaque)
{
    greet(fd, BOTH);
    go(fd, "", NULL);
    for (unsigned i = 0; i < NBD_IN_FLIGHT_BYTES / NBD_REQUEST_KEEP; i++) {
        request_put(fd, 0, NBD_CMD_READ, 1, 0, NBD_REQUEST_KEEP);
    }
    for (unsigned round = 0; round < 8; round++) {
        usleep(20000); /* they are done, and looked at */
        for (unsigned taken = 0; taken < AT_A_TIME;) {
            taken += reply_take(fd);
        }
        usleep(5000); /* their buffers are kept */
        for (unsigned i = 0; i < AT_A_TIME; i++) {
            bool is_valid = (i + round) % 2;
            request_put(fd, 0, is_valid ? NBD_CMD_TRIM : NBD_CMD_BLOCK_STATUS,
                        is_valid ? 0 : NBD_EINVAL, 0, 0);
        }
        for (unsigned i = 0; i < AT_A_TIME; i++) {
            request_put(fd, 0, NBD_CMD_READ, 1, 0, NBD_REQUEST_KEEP);
        }
    }
    usleep(20000);
}

static void test_hoards(void **state)
{
    struct watch watch = {0};

    run_watched(&watch, hoards, 1);
    assert_true(watch.most_in_flight > NBD_IN_FLIGHT_BYTES / 2);
    assert_true(watch.most_kept >= NBD_KEPT_BYTES / 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_garbage, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_takes_nothing, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_hoards, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup_epoll, kit_teardown),
        cmocka_unit_test_setup_teardown(test_takes_nothing, setup_epoll, kit_teardown),
        cmocka_unit_test_setup_teardown(test_hoards, setup_epoll, kit_teardown),
    };

    if (argc > 1) {
        rounds = (unsigned)atoi(argv[1]);
    }
    if (argc > 2) {
        seed = strtoull(argv[2], NULL, 0);
    }
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
