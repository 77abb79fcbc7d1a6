/* SPDX-License-Identifier: MIT */
/*
 * What the tests of nbd/ share: a server in this process, and clients that speak the protocol byte by
 * byte in threads of their own while the main loop runs.
 */
#ifndef FERRY_TESTS_NBD_KIT_H
#define FERRY_TESTS_NBD_KIT_H

#include "../block/kit.h"
#include "base/bytes.h"
#include "base/range.h"
#include "nbd/connection.h"

#define IMAGE_SIZE (4u << 20)

struct kit_server {
    struct nbd_server *server;
    struct block_backend *be;
    unsigned closed; /* connections that have ended */
};

/* cmocka fixture: as kit_setup(), but the main loop has no io_uring. */
int setup_epoll(void **state);

/* Exports "" (writable), "ro" and "other" over an image of IMAGE_SIZE bytes: kit_pattern() in its first
 * half, a hole in the second. */
void server_start(struct kit_server *s, const struct nbd_server_config *config);
void server_stop(struct kit_server *s);

typedef void client_fn(int fd, void *opaque);
/* Runs fn in a thread with a connection to the server; returns when both it and the connection have
 * ended. */
void client_run(struct kit_server *s, client_fn *fn, void *opaque);
/* Several at once, all by fn. */
void clients_run(struct kit_server *s, client_fn *fn, void **opaques, unsigned count);

/* In clients: each waits some seconds at most, and fails the test then. */
void put(int fd, const void *data, size_t size);
void get(int fd, void *data, size_t size);
bool try_put(int fd, const void *data, size_t size); /* false: the server has gone */
bool try_get(int fd, void *data, size_t size);
void expect_end(int fd); /* the server closes the connection */

void greet(int fd, uint32_t client_flags);
void option_put(int fd, uint32_t option, const void *data, uint32_t size);
/* A reply: its type; data (up to max bytes) and size. */
uint32_t option_get(int fd, uint32_t option, void *data, uint32_t max, uint32_t *size);
void option_expect(int fd, uint32_t option, uint32_t type); /* whatever its data */
void structured(int fd);
/* NBD_OPT_GO to the end; the export's size. */
uint64_t go(int fd, const char *name, uint16_t *flags);
/* Length and text into `to`; how many bytes. */
size_t string_put(uint8_t *to, const char *text);

void request_put(int fd, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
                 uint32_t length);
/* A simple reply: its error. */
uint32_t simple_get(int fd, uint64_t cookie);
struct chunk {
    uint16_t flags, type;
    uint64_t cookie;
    uint32_t length;
    uint8_t *data; /* to be freed */
};
struct chunk chunk_get(int fd);
/* The error of a reply that has no data, of either kind. */
uint32_t error_get(int fd, uint64_t cookie);

#endif
