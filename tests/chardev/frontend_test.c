/* SPDX-License-Identifier: MIT */
/* Front ends on a socket pair: input as they can take it, output to slow peers, threads, and
 * callbacks that pull the rug away. */
#include <pthread.h>

#include "kit.h"

static void input_and_output(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    assert_ptr_equal(chardev_find("c"), chr);
    assert_string_equal(chardev_id(chr), "c");
    assert_true(chardev_is_open(chr));
    assert_false(chardev_has_frontend(chr));

    struct fake *f = fake_attach(chr, 100);
    assert_string_equal(f->events, "O");
    assert_true(chardev_has_frontend(chr));
    send_text(peer, "hello");
    until(fake_got(f, "hello"));
    assert_int_equal(chardev_write(chr, "world", 5), 5);
    expect_text(peer, "world");
    chardev_write_all(chr, "all", 3);
    expect_text(peer, "all");
    assert_int_equal(chardev_write(chr, "", 0), 0);

    close(peer);
    until(strcmp(f->events, "OC") == 0);
    assert_false(chardev_is_open(chr));
    /* Nobody listens: dropped, but taken. */
    assert_int_equal(chardev_write(chr, "x", 1), 1);
    assert_true(chardev_writable(chr));
    fake_free(f);
}

static void attaching(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_new(10), *other = fake_new(10);
    assert_true(chardev_attach(chr, &f->fe, NULL));
    /* No callback comes from within attach. */
    assert_string_equal(f->events, "");
    struct error *err = NULL;
    assert_false(chardev_attach(chr, &other->fe, &err));
    assert_string_equal(error_message(err),
                        "chardev 'c' is in use; with mux=on several may share it");
    error_free(err);
    err = NULL;
    assert_false(chardev_delete(chr, &err));
    assert_string_equal(error_message(err), "Chardev 'c' is busy");
    error_free(err);

    /* Gone before the loop came to tell: nothing is told. */
    chardev_detach(chr, &f->fe);
    linger();
    assert_string_equal(f->events, "");
    /* What comes while nobody is there is not lost. */
    send_text(peer, "early");
    linger();
    assert_true(chardev_attach(chr, &other->fe, NULL));
    until(fake_got(other, "early"));
    assert_string_equal(other->events, "O");
    chardev_detach(chr, &other->fe);
    send_text(peer, "late");
    linger();
    assert_int_equal(other->count, 5);

    assert_true(chardev_delete(chr, NULL));
    assert_null(chardev_find("c"));
    linger();
    char c;
    assert_true(read(peer, &c, 1) == -1 && errno == ECONNRESET); /* "late" was not read */
    close(peer);
    free(f);
    free(other);
}

static void a_full_front_end(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 0);
    send_text(peer, "abcdefghij");
    linger();
    assert_int_equal(f->count, 0);
    f->room = 3;
    linger();
    assert_int_equal(f->count, 0); /* nobody said that there is room */
    chardev_accept_input(chr);
    until(fake_got(f, "abc"));
    linger();
    assert_int_equal(f->count, 3);
    f->room = 1000;
    chardev_accept_input(chr);
    until(fake_got(f, "abcdefghij"));
    close(peer);
    fake_free(f);
}

/* A front end that takes one byte at a time from a peer that never stops. */
static void backpressure(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 0);
    size_t sent = 0, size = 200000;
    int64_t deadline = clock_get_ns(AIO_CLOCK_RT) + PATIENCE_NS;
    while (f->count < size) {
        uint8_t chunk[3000];
        size_t n = MIN(sizeof(chunk), size - sent);
        for (size_t i = 0; i < n; i++)
            chunk[i] = (uint8_t)((sent + i) * 7 >> 3);
        ssize_t written = n ? write(peer, chunk, n) : 0;
        if (written > 0)
            sent += (size_t)written;
        f->room = 1 + (int)(f->count % 5000);
        chardev_accept_input(chr);
        aio_loop_poll(loop, false);
        assert_true(clock_get_ns(AIO_CLOCK_RT) < deadline);
    }
    for (size_t i = 0; i < size; i++)
        assert_int_equal(f->data[i], (uint8_t)(i * 7 >> 3));
    close(peer);
    fake_free(f);
}

/* The peer sends and leaves; the front end takes its time, and hears of the end after the data. */
static void the_end_comes_last(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 0);
    send_text(peer, "farewell");
    close(peer);
    linger();
    assert_string_equal(f->events, "O");
    assert_true(chardev_is_open(chr));
    f->room = 4;
    chardev_accept_input(chr);
    until(fake_got(f, "fare"));
    linger();
    assert_string_equal(f->events, "O");
    f->room = 100;
    chardev_accept_input(chr);
    until(strcmp(f->events, "OC") == 0);
    assert_true(fake_got(f, "farewell"));
    fake_free(f);
}

/* ---- output --------------------------------------------------------------------------------- */

static size_t read_all(int fd, uint8_t *to, size_t size)
{
    size_t count = 0;
    int64_t deadline = clock_get_ns(AIO_CLOCK_RT) + PATIENCE_NS;
    while (count < size && clock_get_ns(AIO_CLOCK_RT) < deadline) {
        aio_loop_poll(loop, false);
        ssize_t n = read(fd, to + count, size - count);
        if (n > 0)
            count += (size_t)n;
    }
    return count;
}

static void a_slow_peer(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 0);
    uint8_t chunk[1000];
    size_t taken = 0;
    for (;;) {
        for (size_t i = 0; i < sizeof(chunk); i++)
            chunk[i] = (uint8_t)((taken + i) * 5 >> 2);
        size_t n = chardev_write(chr, chunk, sizeof(chunk));
        taken += n;
        if (n < sizeof(chunk))
            break;
        assert_true(taken < (64 << 20)); /* bounded */
    }
    assert_true(taken >= 65536);
    assert_false(chardev_writable(chr));
    assert_int_equal(chardev_write(chr, "x", 1), 0);
    linger();
    assert_int_equal(f->writable, 0);

    uint8_t *got = xmalloc(taken + 1);
    assert_int_equal(read_all(peer, got, taken), taken);
    for (size_t i = 0; i < taken; i++)
        assert_int_equal(got[i], (uint8_t)(i * 5 >> 2));
    until(f->writable == 1);
    assert_true(chardev_writable(chr));
    assert_int_equal(chardev_write(chr, "y", 1), 1);
    expect_text(peer, "y");
    linger();
    assert_int_equal(f->writable, 1);
    free(got);
    close(peer);
    fake_free(f);
}

static void write_all_takes_all(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 0);
    size_t size = 8 << 20;
    uint8_t *text = xmalloc(size), *got = xmalloc(size);
    for (size_t i = 0; i < size; i++)
        text[i] = (uint8_t)(i * 11 >> 4);
    chardev_write_all(chr, text, size);
    assert_false(chardev_writable(chr));
    assert_int_equal(read_all(peer, got, size), size);
    assert_memory_equal(got, text, size);
    until(f->writable == 1);
    free(text);
    free(got);
    close(peer);
    fake_free(f);
}

/* Whoever waits to go on is told so when the peer leaves for good. */
static void a_slow_peer_leaves(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 0);
    static uint8_t chunk[65536];
    while (chardev_write(chr, chunk, sizeof(chunk)) == sizeof(chunk))
        ;
    close(peer);
    until(f->writable > 0);
    until(strcmp(f->events, "OC") == 0);
    assert_int_equal(chardev_write(chr, chunk, sizeof(chunk)), sizeof(chunk));
    fake_free(f);
}

static void *write_lines(void *opaque)
{
    struct chardev *chr = chardev_find("c");
    char line[32];
    memset(line, *(char *)opaque, sizeof(line));
    line[sizeof(line) - 1] = '\n';
    for (int i = 0; i < 2000;) {
        /* All or nothing, because the limit is a multiple of the length; then try again. */
        if (chardev_write(chr, line, sizeof(line)) > 0)
            i++;
        else
            usleep(100);
        chardev_accept_input(chr);
        chardev_writable(chr);
    }
    return NULL;
}

static void writers_in_threads(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 100);
    pthread_t threads[3];
    char letters[] = "abc";
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, write_lines, &letters[i]);
    send_text(peer, "input meanwhile");
    size_t size = 3 * 2000 * 32;
    uint8_t *got = xmalloc(size);
    assert_int_equal(read_all(peer, got, size), size);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    unsigned lines[3] = {0};
    size_t whole = 0;
    for (size_t i = 0; i < size; i += 32) {
        int who = got[i] - 'a';
        if (who < 0 || who > 2)
            continue;
        lines[who]++;
        whole += memcmp(got + i, got + i + 1, 30) == 0 && got[i + 31] == '\n';
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(lines[i], 2000);
    assert_int_equal(whole, 6000);
    until(fake_got(f, "input meanwhile"));
    free(got);
    close(peer);
    fake_free(f);
}

/* ---- callbacks ------------------------------------------------------------------------------ */

static void detach_in_read(struct fake *f)
{
    chardev_detach(f->chr, &f->fe);
    f->chr = NULL;
}

static void detaching_in_read(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 2);
    f->on_read = detach_in_read;
    send_text(peer, "abcd");
    until(f->count == 2);
    linger();
    assert_int_equal(f->count, 2);
    close(peer);
    fake_free(f);
}

static void delete_in_read(struct fake *f)
{
    struct chardev *chr = f->chr;
    detach_in_read(f);
    assert_true(chardev_delete(chr, NULL));
}

static void delete_in_event(struct fake *f, enum chardev_event event)
{
    if (event == CHARDEV_CLOSED)
        delete_in_read(f);
}

static void deleting_in_callbacks(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 100);
    f->on_read = delete_in_read;
    send_text(peer, "abcd");
    until(f->count == 4);
    assert_null(chardev_find("c"));
    linger();
    close(peer);
    fake_free(f);

    chr = make_pair("", &peer);
    f = fake_attach(chr, 100);
    f->on_event = delete_in_event;
    close(peer);
    until(strcmp(f->events, "OC") == 0);
    assert_null(chardev_find("c"));
    linger();
    fake_free(f);
}

static unsigned nesting, deepest;

/* As a command that waits for something: it runs the loop. */
static void poll_in_read(struct fake *f)
{
    nesting++;
    deepest = MAX(deepest, nesting);
    for (int i = 0; i < 20; i++)
        aio_loop_poll(loop, false);
    nesting--;
}

static void the_loop_in_read(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 1000000);
    f->on_read = poll_in_read;
    nesting = deepest = 0;
    char text[501];
    for (int i = 0; i < 500; i++)
        text[i] = (char)('0' + i % 10);
    text[500] = 0;
    for (int i = 0; i < 50; i++)
        send_text(peer, text + i * 10);
    close(peer);
    until(strcmp(f->events, "OC") == 0);
    assert_int_equal(deepest, 1);
    size_t expected = 0;
    for (int i = 0; i < 50; i++)
        expected += 500 - (size_t)i * 10;
    assert_int_equal(f->count, expected);
    fake_free(f);
}

/* Cleaning up does not wait for front ends, and output that was on its way arrives. */
static void cleanup(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    struct fake *f = fake_attach(chr, 0);
    chardev_write_all(chr, "last words", 10);
    chardevs_cleanup();
    assert_null(chardev_first());
    expect_text(peer, "last words");
    assert_string_equal(f->events, "O");
    /* Whoever is late to leave does no harm. */
    assert_int_equal(chardev_write(chr, "x", 1), 1);
    assert_true(chardev_writable(chr));
    chardev_accept_input(chr);
    linger();
    assert_string_equal(f->events, "O");
    fake_free(f);
    close(peer);
}

static int64_t time_of_cleanup(void)
{
    int64_t start = clock_get_ns(AIO_CLOCK_RT);

    chardevs_cleanup();
    assert_null(chardev_first());
    return clock_get_ns(AIO_CLOCK_RT) - start;
}

/* As make_pair(), for several; the peer's end waits for what it reads. */
static struct chardev *make_one_of(unsigned n, int *peer)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *peer = fds[1];
    return make("socket,id=c%u,fd=%d", n, fds[0]);
}

struct late_reader {
    int fd;
    size_t count;
};

static void *read_later(void *opaque)
{
    struct late_reader *reader = opaque;
    char text[4096];
    ssize_t n;

    usleep(100000);
    while ((n = read(reader->fd, text, sizeof(text))) > 0)
        reader->count += (size_t)n;
    return NULL;
}

/* Peers that do not read hold the end up for half a second, all of them together, and one that reads
 * late gets all. */
static void cleanup_with_slow_peers(void **state)
{
    static uint8_t much[1 << 20];
    struct late_reader late = {0};
    int peers[5];
    pthread_t thread;

    for (unsigned i = 0; i < 5; i++)
        chardev_write_all(make_one_of(i, &peers[i]), much, sizeof(much));
    late.fd = peers[4];
    assert_int_equal(pthread_create(&thread, NULL, read_later, &late), 0);
    assert_in_range(time_of_cleanup(), 400 * NS_PER_MS, 700 * NS_PER_MS);
    pthread_join(thread, NULL);
    assert_int_equal(late.count, sizeof(much));
    for (unsigned i = 0; i < 5; i++)
        close(peers[i]);

    /* Nothing is waited for where nothing is buffered, or nobody is there any more. */
    make_one_of(0, &peers[0]);
    chardev_write_all(make_one_of(1, &peers[1]), "x", 1);
    chardev_write_all(make_one_of(2, &peers[2]), much, sizeof(much));
    close(peers[2]);
    assert_in_range(time_of_cleanup(), 0, 300 * NS_PER_MS);
    close(peers[0]);
    close(peers[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(input_and_output),
        kit_test(attaching),
        kit_test(a_full_front_end),
        kit_test(backpressure),
        kit_test(the_end_comes_last),
        kit_test(a_slow_peer),
        kit_test(write_all_takes_all),
        kit_test(a_slow_peer_leaves),
        kit_test(writers_in_threads),
        kit_test(detaching_in_read),
        kit_test(deleting_in_callbacks),
        kit_test(the_loop_in_read),
        kit_test(cleanup),
        kit_test(cleanup_with_slow_peers),
    };
    return kit_run("chardev/frontend", tests);
}
