/* SPDX-License-Identifier: MIT */
/* A loop, a front end that remembers what it was told, and time limits. */
#ifndef FERRY_TESTS_CHARDEV_KIT_H
#define FERRY_TESTS_CHARDEV_KIT_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "aio/loop.h"
#include "base/alloc.h"
#include "base/range.h"
#include "chardev/chardev.h"

#define PATIENCE_NS (20 * NS_PER_SEC)

static enum aio_loop_engine kit_engine = AIO_LOOP_AUTO;
static struct aio_loop *loop;
static char kit_dir[64];

static int kit_setup(void **state)
{
    loop = aio_loop_new("test", kit_engine, NULL);
    assert_non_null(loop);
    aio_loop_bind(loop);
    strcpy(kit_dir, "/tmp/ferry-chardev-XXXXXX");
    assert_non_null(mkdtemp(kit_dir));
    return 0;
}

static int kit_teardown(void **state)
{
    chardevs_cleanup();
    /* Deleted handlers and bottom halves are freed by the loop. */
    while (aio_loop_poll(loop, false))
        ;
    aio_loop_unbind(loop);
    aio_loop_free(loop);
    char command[100];
    snprintf(command, sizeof(command), "rm -r %s", kit_dir);
    return system(command);
}

/* Runs the loop until the condition holds. */
#define until(condition)                                                                           \
    do {                                                                                           \
        int64_t deadline_ = clock_get_ns(AIO_CLOCK_RT) + PATIENCE_NS;                              \
        while (!(condition)) {                                                                     \
            if (!aio_loop_poll(loop, false))                                                       \
                usleep(200);                                                                       \
            if (clock_get_ns(AIO_CLOCK_RT) > deadline_)                                            \
                fail_msg("line %d: it never came that %s", __LINE__, #condition);                  \
        }                                                                                          \
    } while (0)

/* Runs the loop for a while, to see that something does not happen. */
static inline void linger(void)
{
    for (int i = 0; i < 50; i++) {
        aio_loop_poll(loop, false);
        usleep(200);
    }
}

/* ---- front end ------------------------------------------------------------------------------ */

struct fake {
    struct chardev_frontend fe;
    struct chardev *chr;
    int room; /* what can_read says; read() takes from it */
    uint8_t data[1 << 18];
    size_t count;
    char events[64]; /* O C B I(focus in) F(focus out), in order */
    unsigned writable;
    void (*on_read)(struct fake *f);
    void (*on_event)(struct fake *f, enum chardev_event event);
};

static int fake_can_read(void *opaque)
{
    struct fake *f = opaque;
    return f->room;
}

static void fake_read(void *opaque, const uint8_t *buf, size_t len)
{
    struct fake *f = opaque;
    assert_true(len > 0 && len <= (size_t)f->room);
    assert_true(f->count + len <= sizeof(f->data));
    memcpy(f->data + f->count, buf, len);
    f->count += len;
    f->room -= (int)len;
    if (f->on_read)
        f->on_read(f);
}

static void fake_event(void *opaque, enum chardev_event event)
{
    struct fake *f = opaque;
    size_t n = strlen(f->events);
    assert_true(n + 1 < sizeof(f->events));
    f->events[n] = "OCBIF"[event];
    f->events[n + 1] = 0;
    if (f->on_event)
        f->on_event(f, event);
}

static void fake_writable(void *opaque)
{
    struct fake *f = opaque;
    f->writable++;
}

static inline struct fake *fake_new(int room)
{
    struct fake *f = xnew(struct fake);
    f->room = room;
    f->fe = (struct chardev_frontend){
        .can_read = fake_can_read,
        .read = fake_read,
        .event = fake_event,
        .writable = fake_writable,
        .opaque = f,
    };
    return f;
}

/* Attached, and told so if the chardev is open. */
static inline struct fake *fake_attach(struct chardev *chr, int room)
{
    struct fake *f = fake_new(room);
    f->chr = chr;
    assert_true(chardev_attach(chr, &f->fe, NULL));
    if (chardev_is_open(chr))
        until(f->events[0] == 'O');
    return f;
}

static inline void fake_free(struct fake *f)
{
    if (f->chr)
        chardev_detach(f->chr, &f->fe);
    free(f);
}

static inline bool fake_got(const struct fake *f, const char *text)
{
    return f->count == strlen(text) && memcmp(f->data, text, f->count) == 0;
}

/* ---- chardevs and sockets ------------------------------------------------------------------- */

/* A chardev from the text of -chardev; fails the test if it is refused. */
static inline struct chardev *make(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline struct chardev *make(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);
    struct error *err = NULL;
    struct options *opts = options_parse(text, "backend", &err);
    struct chardev *chr = opts ? chardev_new_from_options(opts, &err) : NULL;
    if (!chr)
        fail_msg("%s: %s", text, error_message(err));
    options_free(opts);
    return chr;
}

/* The text must be refused with a message that has `part` in it. */
static inline void refuse(const char *part, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static inline void refuse(const char *part, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);
    struct error *err = NULL;
    struct options *opts = options_parse(text, "backend", NULL);
    assert_non_null(opts);
    if (chardev_new_from_options(opts, &err))
        fail_msg("'%s' was taken", text);
    if (!strstr(error_message(err), part))
        fail_msg("'%s': error '%s' lacks '%s'", text, error_message(err), part);
    error_free(err);
    options_free(opts);
}

/* A chardev whose other end is *peer, a non-blocking socket. */
static inline struct chardev *make_pair(const char *options, int *peer)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    *peer = fds[1];
    return make("socket,id=c,fd=%d%s", fds[0], options);
}

static inline void send_text(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* Runs the loop until exactly this has come from fd. */
static inline void expect_text(int fd, const char *text)
{
    char got[4096];
    size_t count = 0, expected = strlen(text);
    int64_t deadline = clock_get_ns(AIO_CLOCK_RT) + PATIENCE_NS;
    while (count < expected) {
        aio_loop_poll(loop, false);
        ssize_t n = read(fd, got + count, MIN(expected - count, sizeof(got) - 1 - count));
        if (n > 0)
            count += (size_t)n;
        else
            usleep(200);
        got[count] = 0;
        if (n == 0 || clock_get_ns(AIO_CLOCK_RT) > deadline)
            fail_msg("'%s' came instead of '%s'", got, text);
    }
    assert_memory_equal(got, text, expected);
}

/* Runs the group with each engine. */
#define kit_run(name, tests)                                                                       \
    (kit_engine = AIO_LOOP_EPOLL,                                                                  \
     cmocka_run_group_tests_name(name " (epoll)", tests, NULL, NULL) +                             \
         (kit_engine = AIO_LOOP_AUTO,                                                              \
          cmocka_run_group_tests_name(name " (auto)", tests, NULL, NULL)))

#define kit_test(fn) cmocka_unit_test_setup_teardown(fn, kit_setup, kit_teardown)

#endif
