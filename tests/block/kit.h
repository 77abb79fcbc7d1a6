/* SPDX-License-Identifier: MIT */
/* What the tests of block/ share: loops, image files in a directory of their own, requests. */
#ifndef FERRY_TESTS_BLOCK_KIT_H
#define FERRY_TESTS_BLOCK_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "aio/coroutine.h"
#include "aio/loop.h"
#include "base/options.h"
#include "block/backend.h"

/* For coroutines and other threads, where cmocka's assertions cannot jump out. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* cmocka group fixtures: a directory for images, which is the working directory meanwhile. */
int kit_enter_directory(void **state);
int kit_leave_directory(void **state);

/* cmocka fixtures: the main loop, before and after each test; no node may be left. */
int kit_setup(void **state);
int kit_teardown(void **state);
void kit_main_loop(enum aio_loop_engine engine); /* instead of kit_setup() */
void kit_main_loop_end(void);
bool kit_has_uring(void);

/* A file of `size` bytes, filled by kit_pattern(). */
void kit_make_file(const char *name, size_t size);
uint8_t kit_pattern(uint64_t offset);
void kit_read_file(const char *name, uint64_t offset, void *to, size_t size);
uint64_t kit_file_size(const char *name);
/* True if files here can be opened with O_DIRECT. */
bool kit_has_direct(void);

/* What goes to stderr from now on, up to kit_captured(), which returns it (to be freed). Keep it
 * short: what a sanitizer says goes there as well. */
void kit_capture_stderr(void);
char *kit_captured(void);

/* -drive TEXT, which must work; kit_close() ends all drives and nodes. */
struct block_backend *kit_drive(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void kit_blockdev(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void kit_close(void);
/* The message (and, after " | ", the hint) that -drive TEXT or -blockdev TEXT fails with. */
void kit_drive_fails(const char *text, const char *message);
void kit_blockdev_fails(const char *text, const char *message);
void kit_assert_error(struct error *err, const char *message);

/* Requests from the main loop, finished on return. 0 or negative errno. */
int kit_read(struct block_backend *be, uint64_t offset, void *to, size_t size);
int kit_write(struct block_backend *be, uint64_t offset, const void *from, size_t size);
int kit_write_flags(struct block_backend *be, uint64_t offset, const void *from, size_t size,
                    unsigned flags);
int kit_flush(struct block_backend *be);
int kit_zero(struct block_backend *be, uint64_t offset, uint64_t length, unsigned flags);
int kit_discard(struct block_backend *be, uint64_t offset, uint64_t length);

/* A second loop, in a thread of its own. */
struct kit_thread;
struct kit_thread *kit_thread_start(enum aio_loop_engine engine);
struct aio_loop *kit_thread_loop(struct kit_thread *thread);
void kit_thread_stop(struct kit_thread *thread);

/* xorshift; state is not 0. */
uint64_t kit_random(uint64_t *state);

#endif
