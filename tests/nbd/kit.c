/* SPDX-License-Identifier: MIT */
#include "kit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

#define TIMEOUT_SECONDS 20

/* ---- the server ------------------------------------------------------------------------------ */

int setup_epoll(void **state)
{
    kit_main_loop(AIO_LOOP_EPOLL);
    return 0;
}

static void closed(void *opaque, bool had_export, unsigned left)
{
    ((struct kit_server *)opaque)->closed++;
}

static void add(struct kit_server *s, const char *name, bool writable)
{
    struct error *err = NULL;
    struct nbd_export_config config = {.name = name,
                                       .description = *name ? "a description" : NULL,
                                       .be = s->be,
                                       .writable = writable,
                                       .allocation_depth = writable};

    if (!nbd_server_add_export(s->server, &config, &err)) {
        fail_msg("%s", error_message(err));
    }
}

void server_start(struct kit_server *s, const struct nbd_server_config *config)
{
    struct nbd_server_config all = *config;

    *s = (struct kit_server){0};
    kit_make_file("image", IMAGE_SIZE / 2);
    assert_int_equal(truncate("image", IMAGE_SIZE), 0);
    s->be = kit_drive("file=image,format=raw,if=none,discard=unmap");
    all.closed = closed;
    all.opaque = s;
    s->server = nbd_server_new(&all, NULL);
    assert_non_null(s->server);
    add(s, "", true);
    add(s, "ro", false);
    add(s, "other", true);
}

void server_stop(struct kit_server *s)
{
    nbd_server_free(s->server);
    kit_close();
}

/* ---- clients --------------------------------------------------------------------------------- */

struct client {
    pthread_t thread;
    client_fn *fn;
    void *opaque;
    int fd;
    struct aio_loop *loop;
    _Atomic(bool) is_done;
};

static void *client_thread(void *opaque)
{
    struct client *client = opaque;

    client->fn(client->fd, client->opaque);
    close(client->fd);
    atomic_store(&client->is_done, true);
    aio_loop_wake(client->loop);
    return NULL;
}

static void client_start(struct kit_server *s, struct client *client, client_fn *fn, void *opaque)
{
    struct timeval timeout = {.tv_sec = TIMEOUT_SECONDS};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    client->fn = fn;
    client->opaque = opaque;
    client->fd = fds[0];
    client->loop = aio_loop_current();
    nbd_server_add_client(s->server, fds[1]);
    assert_int_equal(pthread_create(&client->thread, NULL, client_thread, client), 0);
}

void clients_run(struct kit_server *s, client_fn *fn, void **opaques, unsigned count)
{
    struct client *clients = xcalloc(count, sizeof(*clients));

    for (unsigned i = 0; i < count; i++) {
        client_start(s, &clients[i], fn, opaques ? opaques[i] : NULL);
    }
    for (unsigned i = 0; i < count; i++) {
        while (!atomic_load(&clients[i].is_done)) {
            aio_loop_poll(aio_loop_current(), true);
        }
        pthread_join(clients[i].thread, NULL);
    }
    while (s->server->connection_count) {
        aio_loop_poll(aio_loop_current(), true);
    }
    free(clients);
}

void client_run(struct kit_server *s, client_fn *fn, void *opaque)
{
    clients_run(s, fn, &opaque, 1);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

bool try_put(int fd, const void *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0) {
            CHECK(errno != EAGAIN);
            return false;
        }
        data = (const char *)data + n;
        size -= (size_t)n;
    }
    return true;
}

bool try_get(int fd, void *data, size_t size)
{
    while (size) {
        ssize_t n = recv(fd, data, size, 0);
        if (n <= 0) {
            CHECK(n == 0 || errno != EAGAIN);
            return false;
        }
        data = (char *)data + n;
        size -= (size_t)n;
    }
    return true;
}

void put(int fd, const void *data, size_t size)
{
    CHECK(try_put(fd, data, size));
}

void get(int fd, void *data, size_t size)
{
    CHECK(try_get(fd, data, size));
}

void expect_end(int fd)
{
    char byte;

    CHECK(!try_get(fd, &byte, 1));
}

/* ---- negotiation ----------------------------------------------------------------------------- */

void greet(int fd, uint32_t client_flags)
{
    uint8_t greeting[NBD_GREETING_SIZE], flags[4];

    get(fd, greeting, sizeof(greeting));
    CHECK(load_be64(greeting) == NBD_MAGIC && load_be64(greeting + 8) == NBD_OPTION_MAGIC);
    CHECK(load_be16(greeting + 16) == (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
    store_be32(flags, client_flags);
    put(fd, flags, sizeof(flags));
}

void option_put(int fd, uint32_t option, const void *data, uint32_t size)
{
    uint8_t head[NBD_OPTION_HEAD_SIZE];

    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, option);
    store_be32(head + 12, size);
    put(fd, head, sizeof(head));
    if (size && data) {
        put(fd, data, size);
    }
}

uint32_t option_get(int fd, uint32_t option, void *data, uint32_t max, uint32_t *size)
{
    uint8_t head[NBD_REPLY_HEAD_SIZE], rest;

    get(fd, head, sizeof(head));
    CHECK(load_be64(head) == NBD_REPLY_MAGIC);
    CHECK(load_be32(head + 8) == option);
    *size = load_be32(head + 16);
    CHECK(*size <= 70000);
    for (uint32_t i = 0; i < *size; i++) {
        get(fd, i < max ? (uint8_t *)data + i : &rest, 1);
    }
    return load_be32(head + 12);
}

void option_expect(int fd, uint32_t option, uint32_t type)
{
    uint32_t size, got = option_get(fd, option, NULL, 0, &size);

    if (got != type) {
        fprintf(stderr, "option %u: reply 0x%x, wanted 0x%x\n", option, got, type);
    }
    CHECK(got == type);
}

void structured(int fd)
{
    option_put(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    option_expect(fd, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
}

size_t string_put(uint8_t *to, const char *text)
{
    store_be32(to, (uint32_t)strlen(text));
    memcpy(to + 4, text, strlen(text));
    return 4 + strlen(text);
}

uint64_t go(int fd, const char *name, uint16_t *flags)
{
    uint8_t data[512], info[64];
    size_t n = string_put(data, name);
    uint32_t size, type;
    uint64_t length = 0;

    store_be16(data + n, 0);
    option_put(fd, NBD_OPT_GO, data, (uint32_t)n + 2);
    while ((type = option_get(fd, NBD_OPT_GO, info, sizeof(info), &size)) == NBD_REP_INFO) {
        if (load_be16(info) == NBD_INFO_EXPORT) {
            CHECK(size == 12);
            length = load_be64(info + 2);
            if (flags) {
                *flags = load_be16(info + 10);
            }
        }
    }
    CHECK(type == NBD_REP_ACK);
    return length;
}

/* ---- transmission ---------------------------------------------------------------------------- */

void request_put(int fd, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
                 uint32_t length)
{
    uint8_t head[NBD_REQUEST_SIZE];

    store_be32(head, NBD_REQUEST_MAGIC);
    store_be16(head + 4, flags);
    store_be16(head + 6, type);
    store_be64(head + 8, cookie);
    store_be64(head + 16, offset);
    store_be32(head + 24, length);
    put(fd, head, sizeof(head));
}

uint32_t simple_get(int fd, uint64_t cookie)
{
    uint8_t head[NBD_SIMPLE_SIZE];

    get(fd, head, sizeof(head));
    CHECK(load_be32(head) == NBD_SIMPLE_MAGIC);
    CHECK(load_be64(head + 8) == cookie);
    return load_be32(head + 4);
}

static struct chunk chunk_rest(int fd, const uint8_t *head)
{
    struct chunk chunk = {
        .flags = load_be16(head + 4),
        .type = load_be16(head + 6),
        .cookie = load_be64(head + 8),
        .length = load_be32(head + 16),
    };

    CHECK(load_be32(head) == NBD_STRUCTURED_MAGIC);
    CHECK(chunk.length <= NBD_MAX_PAYLOAD + 8);
    chunk.data = xmalloc(chunk.length + 1);
    get(fd, chunk.data, chunk.length);
    return chunk;
}

struct chunk chunk_get(int fd)
{
    uint8_t head[NBD_CHUNK_SIZE];

    get(fd, head, sizeof(head));
    return chunk_rest(fd, head);
}

uint32_t error_get(int fd, uint64_t cookie)
{
    uint8_t head[NBD_CHUNK_SIZE];

    get(fd, head, NBD_SIMPLE_SIZE);
    CHECK(load_be64(head + 8) == cookie);
    if (load_be32(head) == NBD_SIMPLE_MAGIC) {
        return load_be32(head + 4);
    }
    get(fd, head + NBD_SIMPLE_SIZE, NBD_CHUNK_SIZE - NBD_SIMPLE_SIZE);
    struct chunk chunk = chunk_rest(fd, head);
    CHECK(chunk.flags & NBD_CHUNK_DONE);
    uint32_t error = 0;
    if (chunk.type == NBD_CHUNK_ERROR) {
        CHECK(chunk.length >= 6);
        CHECK(chunk.length == 6u + load_be16(chunk.data + 4));
        error = load_be32(chunk.data);
        CHECK(error != 0);
    } else {
        CHECK(chunk.type == NBD_CHUNK_NONE && !chunk.length);
    }
    free(chunk.data);
    return error;
}
