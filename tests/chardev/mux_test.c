/* SPDX-License-Identifier: MIT */
/* Front ends that share a back end: focus, keys, and keys when nobody reads. */
#include "kit.h"

static unsigned exits;

static void count_exit(void)
{
    exits++;
}

static void focus_by_key(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    assert_true(chardev_is_mux(chr));
    struct fake *serial = fake_attach(chr, 1000), *monitor = fake_attach(chr, 1000);
    assert_string_equal(serial->events, "OI");
    assert_string_equal(monitor->events, "O");
    send_text(peer, "a\001cb\001cc");
    until(fake_got(serial, "ac"));
    assert_true(fake_got(monitor, "b"));
    assert_string_equal(serial->events, "OIFI");
    assert_string_equal(monitor->events, "OIF");

    /* Output of both goes out. */
    chardev_write(chr, "12", 2);
    chardev_write(chr, "34", 2);
    expect_text(peer, "1234");

    /* The one that leaves gives the focus back. */
    send_text(peer, "\001cx");
    until(fake_got(monitor, "bx"));
    fake_free(monitor);
    send_text(peer, "d\001ce");
    until(fake_got(serial, "acde"));

    close(peer);
    until(strchr(serial->events, 'C'));
    fake_free(serial);
}

static void monitors_stay_in_the_background(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *monitor = fake_new(1000), *serial = fake_new(1000);
    monitor->fe.is_background = true;
    assert_true(chardev_attach(chr, &monitor->fe, NULL));
    assert_true(chardev_attach(chr, &serial->fe, NULL));
    until(serial->events[0] && monitor->events[0]);
    assert_string_equal(monitor->events, "O");
    assert_string_equal(serial->events, "OI");
    send_text(peer, "x");
    until(fake_got(serial, "x"));

    chardev_take_focus(chr, &monitor->fe);
    assert_string_equal(serial->events, "OIF");
    send_text(peer, "y");
    until(fake_got(monitor, "y"));

    chardev_detach(chr, &serial->fe);
    chardev_detach(chr, &monitor->fe);
    free(serial);
    free(monitor);
    close(peer);
}

static void a_lonely_monitor_has_the_focus(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *monitor = fake_new(1000);
    monitor->fe.is_background = true;
    monitor->chr = chr;
    assert_true(chardev_attach(chr, &monitor->fe, NULL));
    send_text(peer, "y");
    until(fake_got(monitor, "y"));
    assert_string_equal(monitor->events, "OI");
    fake_free(monitor);
    close(peer);
}

static void at_most_four(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *f[CHARDEV_MUX_MAX];
    for (int i = 0; i < CHARDEV_MUX_MAX; i++)
        f[i] = fake_attach(chr, 100);
    struct fake *more = fake_new(1);
    struct error *err = NULL;
    assert_false(chardev_attach(chr, &more->fe, &err));
    assert_non_null(strstr(error_message(err), "in use by 4 front ends"));
    error_free(err);
    /* Around in the order in which they came. */
    send_text(peer, "0\001c1\001c2\001c3\001c0");
    until(fake_got(f[0], "00"));
    assert_true(fake_got(f[1], "1") && fake_got(f[2], "2") && fake_got(f[3], "3"));
    free(more);
    for (int i = 0; i < CHARDEV_MUX_MAX; i++)
        fake_free(f[i]);
    close(peer);
}

static void keys(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *f = fake_attach(chr, 1000);
    /* The escape character itself; a key that means nothing. */
    send_text(peer, "<\001\001\001a\001z>");
    until(fake_got(f, "<\001\001>"));

    send_text(peer, "\001b");
    until(strcmp(f->events, "OIB") == 0);

    /* A key that comes much later than its escape. */
    send_text(peer, "\001");
    linger();
    send_text(peer, "b");
    until(strcmp(f->events, "OIBB") == 0);

    send_text(peer, "\001h");
    expect_text(peer, "\r\nC-a h      show these keys\r\n");

    close(peer);
    fake_free(f);
}

static void exit_by_key(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *f = fake_attach(chr, 1000);
    exits = 0;
    chardev_set_exit_handler(NULL);
    send_text(peer, "\001x");
    expect_text(peer, "\r\nferry: cannot be ended from here\r\n");
    chardev_set_exit_handler(count_exit);
    send_text(peer, "\001x");
    expect_text(peer, "\r\nferry: terminated\r\n");
    assert_int_equal(exits, 1);
    assert_int_equal(f->count, 0);
    close(peer);
    fake_free(f);
}

/* Without mux there are no keys. */
static void no_keys_without_mux(void **state)
{
    int peer;
    struct chardev *chr = make_pair("", &peer);
    assert_false(chardev_is_mux(chr));
    struct fake *f = fake_attach(chr, 1000);
    assert_string_equal(f->events, "O");
    send_text(peer, "\001x\001h");
    until(fake_got(f, "\001x\001h"));
    close(peer);
    fake_free(f);
}

static void another_escape(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *f = fake_attach(chr, 1000);
    chardev_set_escape(0x14);
    send_text(peer, "\001\024\024\024a\024b");
    until(strcmp(f->events, "OIB") == 0);
    assert_true(fake_got(f, "\001\024\024"));
    send_text(peer, "\024h");
    expect_text(peer, "\r\nC-t h      show these keys\r\n");
    chardev_set_escape(1);
    close(peer);
    fake_free(f);
}

/* A guest that hangs does not keep anyone from ending it, and loses no input. */
static void keys_while_nobody_reads(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *f = fake_attach(chr, 0);
    exits = 0;
    chardev_set_exit_handler(count_exit);
    char typed[10001];
    memset(typed, 'k', 10000);
    typed[10000] = 0;
    send_text(peer, typed);
    send_text(peer, "\001x");
    until(exits == 1);
    assert_int_equal(f->count, 0);

    /* Somebody else may take the focus and read. */
    struct fake *monitor = fake_attach(chr, 100);
    send_text(peer, "\001cq");
    until(fake_got(monitor, "q"));

    f->room = 100000;
    chardev_accept_input(chr);
    until(f->count == 10000);
    assert_memory_equal(f->data, typed, 10000);
    close(peer);
    fake_free(f);
    fake_free(monitor);
}

/* Far more than the queue: the peer is held up, nothing is lost. */
static void a_flood(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *f = fake_attach(chr, 0);
    size_t sent = 0;
    for (int i = 0; i < 2000; i++) {
        ssize_t n = write(peer, "0123456789", 10);
        sent += n > 0 ? (size_t)n : 0;
        aio_loop_poll(loop, false);
    }
    f->room = 1 << 20;
    chardev_accept_input(chr);
    until(f->count == sent);
    for (size_t i = 0; i < sent; i++)
        assert_int_equal(f->data[i], '0' + i % 10);
    close(peer);
    fake_free(f);
}

static void detach_other_in_focus_event(struct fake *f, enum chardev_event event)
{
    if (event == CHARDEV_FOCUS_OUT && f->chr) {
        chardev_detach(f->chr, &f->fe);
        f->chr = NULL;
    }
}

static void detaching_when_focus_goes(void **state)
{
    int peer;
    struct chardev *chr = make_pair(",mux=on", &peer);
    struct fake *a = fake_attach(chr, 1000), *b = fake_attach(chr, 1000);
    a->on_event = detach_other_in_focus_event;
    send_text(peer, "1");
    until(fake_got(a, "1"));
    send_text(peer, "\001c2\001c3");
    until(fake_got(b, "23"));
    assert_string_equal(a->events, "OIF");
    fake_free(a);
    fake_free(b);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(focus_by_key),
        kit_test(monitors_stay_in_the_background),
        kit_test(a_lonely_monitor_has_the_focus),
        kit_test(at_most_four),
        kit_test(keys),
        kit_test(exit_by_key),
        kit_test(no_keys_without_mux),
        kit_test(another_escape),
        kit_test(keys_while_nobody_reads),
        kit_test(a_flood),
        kit_test(detaching_when_focus_goes),
    };
    return kit_run("chardev/mux", tests);
}
