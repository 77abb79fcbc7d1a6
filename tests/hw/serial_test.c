/* SPDX-License-Identifier: MIT */
/* 16550A: the chip with a back end of this test, and isa-serial with a real one. */
#include "kit.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "chardev/chardev.h"
#include "hw/serial.h"
#include "hw/uart.h"

/* ---- a back end ------------------------------------------------------------------------------ */

static struct {
    uint8_t sent[256];
    unsigned count, room;
    unsigned readable, lines;
    int irq, is_break;
} end;

static struct uart uart;

static void end_set_irq(void *opaque, int level)
{
    end.irq = level;
}

static size_t end_write(void *opaque, const uint8_t *data, size_t length)
{
    size_t n = MIN(length, end.room);

    for (size_t i = 0; i < n && end.count < sizeof(end.sent); i++) {
        end.sent[end.count++] = data[i];
    }
    end.room -= (unsigned)n;
    return n;
}

static void end_readable(void *opaque)
{
    end.readable++;
}

static void end_break(void *opaque, bool on)
{
    end.is_break = on;
}

static void end_line(void *opaque)
{
    end.lines++;
}

static const struct uart_ops end_ops = {
    .set_irq = end_set_irq,
    .write = end_write,
    .readable = end_readable,
    .send_break = end_break,
    .line_changed = end_line,
};

static int setup(void **state)
{
    kit_setup(state);
    memset(&end, 0, sizeof(end));
    memset(&uart, 0, sizeof(uart));
    end.room = 1000;
    uart_init(&uart, &end_ops, NULL);
    uart_reset(&uart);
    return 0;
}

static int teardown(void **state)
{
    uart_destroy(&uart);
    return kit_teardown(state);
}

static uint8_t rd(unsigned reg)
{
    return uart_read(&uart, reg);
}

static void wr(unsigned reg, uint8_t value)
{
    uart_write(&uart, reg, value);
}

static void receive(const char *text)
{
    uart_receive(&uart, (const uint8_t *)text, strlen(text));
}

/* ---- transmitter ---------------------------------------------------------------------------- */

static void test_reset_values(void **state)
{
    assert_int_equal(rd(1), 0);
    assert_int_equal(rd(2), 0x01);
    assert_int_equal(rd(3), 0);
    assert_int_equal(rd(4), 0);
    assert_int_equal(rd(5), 0x60);
    assert_int_equal(rd(6), 0);
    assert_int_equal(end.irq, 0);
}

static void test_transmit(void **state)
{
    wr(0, 'a');
    assert_int_equal(end.count, 1);
    assert_int_equal(end.sent[0], 'a');
    assert_int_equal(rd(5), 0x60);
    wr(1, 0x02);
    assert_int_equal(end.irq, 1); /* empty already */
    assert_int_equal(rd(2), 0x02);
    assert_int_equal(end.irq, 0); /* reading IIR takes it away */
    assert_int_equal(rd(2), 0x01);
    wr(0, 'b');
    assert_int_equal(end.irq, 1);
    wr(1, 0);
    assert_int_equal(end.irq, 0);
}

static void test_back_pressure(void **state)
{
    end.room = 3;
    wr(2, 0x01);
    wr(1, 0x02);
    rd(2);
    for (unsigned i = 0; i < 16; i++) {
        wr(0, (uint8_t)('a' + i));
        if (i >= 3) {
            assert_int_equal(rd(5), 0);
            assert_int_equal(end.irq, 0);
        } else {
            assert_int_equal(rd(2), 0xc2);
        }
    }
    assert_int_equal(end.count, 3);
    for (unsigned i = 0; i < 20; i++) {
        wr(0, 'x'); /* 13 wait; 3 more fit, the others are dropped */
    }
    end.room = 10;
    uart_writable(&uart);
    assert_int_equal(end.count, 13);
    assert_int_equal(end.irq, 0);
    end.room = 1000;
    uart_writable(&uart);
    assert_int_equal(end.count, 19);
    assert_memory_equal(end.sent, "abcdefghijklmnopxxx", 19);
    assert_int_equal(rd(5), 0x60);
    assert_int_equal(end.irq, 1);
    /* Clearing the FIFO drops what waits. */
    end.room = 0;
    wr(0, 'y');
    assert_int_equal(rd(5), 0);
    wr(2, 0x05);
    assert_int_equal(rd(5), 0x60);
    end.room = 10;
    uart_writable(&uart);
    assert_int_equal(end.count, 19);
}

/* ---- receiver ------------------------------------------------------------------------------- */

static void test_receive_without_fifo(void **state)
{
    wr(1, 0x01);
    assert_int_equal(uart_room(&uart), 1);
    receive("a");
    assert_int_equal(uart_room(&uart), 0);
    assert_int_equal(end.irq, 1);
    assert_int_equal(rd(2), 0x04);
    assert_int_equal(rd(5), 0x61);
    unsigned before = end.readable;
    assert_int_equal(rd(0), 'a');
    assert_int_equal(end.readable, before + 1);
    assert_int_equal(end.irq, 0);
    assert_int_equal(rd(5), 0x60);
    receive("bc"); /* overrun: the register is overwritten */
    assert_int_equal(rd(5), 0x63);
    assert_int_equal(rd(5), 0x61);
    assert_int_equal(rd(0), 'c');
}

static void test_trigger_levels(void **state)
{
    static const unsigned levels[] = {1, 4, 8, 14};

    wr(1, 0x01);
    for (unsigned i = 0; i < 4; i++) {
        wr(2, (uint8_t)(i << 6 | 3));
        assert_int_equal(uart_room(&uart), 16);
        for (unsigned j = 1; j < levels[i]; j++) {
            receive("x");
            assert_int_equal(end.irq, 0);
        }
        receive("x");
        assert_int_equal(end.irq, 1);
        assert_int_equal(rd(2), 0xc4);
        rd(0);
        assert_int_equal(end.irq, 0);
        wr(2, (uint8_t)(i << 6 | 3));
        assert_int_equal(rd(5) & 1, 0);
    }
}

static void test_timeout(void **state)
{
    wr(3, 0x83);
    wr(0, 1); /* 115200 baud: 10 bits are 86.8 us */
    wr(3, 0x03);
    wr(1, 0x01);
    wr(2, 0xc1);
    receive("ab");
    kit_step(340 * NS_PER_US);
    assert_int_equal(end.irq, 0);
    kit_step(10 * NS_PER_US);
    assert_int_equal(end.irq, 1);
    assert_int_equal(rd(2), 0xcc);
    rd(0); /* takes it away, and counts anew for the rest */
    assert_int_equal(end.irq, 0);
    kit_step(350 * NS_PER_US);
    assert_int_equal(end.irq, 1);
    rd(0);
    kit_step(NS_PER_SEC);
    assert_int_equal(end.irq, 0);
    /* A byte in time puts it off. */
    receive("c");
    kit_step(300 * NS_PER_US);
    receive("d");
    kit_step(300 * NS_PER_US);
    assert_int_equal(end.irq, 0);
    kit_step(60 * NS_PER_US);
    assert_int_equal(end.irq, 1);
}

static void test_fifo_overrun(void **state)
{
    wr(2, 0x01);
    receive("0123456789abcdefgh");
    assert_int_equal(uart_room(&uart), 0);
    assert_int_equal(rd(5), 0x63);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(rd(0), "0123456789abcdef"[i]);
    }
    assert_int_equal(rd(5), 0x60);
    rd(0); /* empty: whatever, but no harm */
}

static void test_break(void **state)
{
    wr(2, 0x01);
    wr(1, 0x04);
    receive("a");
    assert_int_equal(end.irq, 0);
    uart_receive_break(&uart);
    assert_int_equal(rd(5), 0xe1); /* an error is in the FIFO, not at its top */
    assert_int_equal(rd(0), 'a');
    assert_int_equal(end.irq, 1);
    assert_int_equal(rd(2), 0xc6);
    assert_int_equal(rd(5), 0xf1);
    assert_int_equal(end.irq, 0);
    assert_int_equal(rd(5), 0x61);
    assert_int_equal(rd(0), 0);
    wr(3, 0x43);
    assert_int_equal(end.is_break, 1);
    wr(3, 0x03);
    assert_int_equal(end.is_break, 0);
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void test_loopback(void **state)
{
    wr(4, 0x1f);
    assert_int_equal(rd(6) & 0xf0, 0xf0);
    assert_int_equal(rd(6) & 0x0f, 0); /* deltas are cleared by reading */
    wr(4, 0x10);
    assert_int_equal(rd(6), 0x0f);
    assert_int_equal(uart_room(&uart), 0);
    receive("z"); /* from outside: not heard */
    assert_int_equal(rd(5) & 1, 0);
    wr(0, 'a');
    assert_int_equal(end.count, 0);
    assert_int_equal(rd(5), 0x61);
    assert_int_equal(rd(0), 'a');
    wr(2, 0x01);
    for (unsigned i = 0; i < 17; i++) {
        wr(0, (uint8_t)i);
    }
    assert_int_equal(rd(5), 0x63);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(rd(0), i);
    }
    /* Linux's probe: modem status in loopback. */
    wr(4, 0x1a);
    assert_int_equal(rd(6) & 0xf0, 0x90);
}

static void test_modem_status(void **state)
{
    wr(1, 0x08);
    uart_set_connected(&uart, true);
    assert_int_equal(end.irq, 1);
    assert_int_equal(rd(2), 0x00);
    assert_int_equal(rd(6), 0xbb);
    assert_int_equal(end.irq, 0);
    assert_int_equal(rd(6), 0xb0);
    uart_set_connected(&uart, false);
    assert_int_equal(rd(6), 0x0b);
}

static void test_priority(void **state)
{
    wr(2, 0x01);
    wr(1, 0x0f);
    uart_set_connected(&uart, true);
    receive("a");
    uart_receive_break(&uart);
    rd(0);
    assert_int_equal(rd(2), 0xc6);
    rd(5);
    assert_int_equal(rd(2), 0xc4);
    rd(0);
    assert_int_equal(rd(2), 0xc2);
    assert_int_equal(rd(2), 0xc0);
    rd(6);
    assert_int_equal(rd(2), 0xc1);
}

static void test_line_parameters(void **state)
{
    wr(3, 0x80);
    wr(0, 0x03);
    wr(1, 0x01);
    assert_int_equal(rd(0), 0x03);
    assert_int_equal(rd(1), 0x01);
    wr(3, 0x1e);
    struct uart_line line = uart_line(&uart);
    assert_int_equal(line.baud, 115200 / 0x103);
    assert_int_equal(line.data_bits, 7);
    assert_int_equal(line.stop_bits, 2);
    assert_int_equal(line.parity, 'E');
    wr(3, 0x80);
    wr(0, 0);
    wr(1, 0);
    assert_int_equal(uart_line(&uart).baud, 0);
    wr(3, 3);
    wr(2, 1);
    receive("a"); /* a time-out at 0 baud divides by nothing */
    wr(7, 0xa5);
    assert_int_equal(rd(7), 0xa5);
    assert_true(end.lines > 0);
}

static void test_hostile(void **state)
{
    uint64_t seed = 21;

    for (unsigned i = 0; i < 60000; i++) {
        uint32_t r = kit_random(&seed);
        uint8_t bytes[32];
        switch (r & 7) {
        case 0 ... 2:
            wr(r >> 8 & 7, (uint8_t)(r >> 16));
            break;
        case 3 ... 4:
            rd(r >> 8 & 7);
            break;
        case 5:
            memset(bytes, (int)r, sizeof(bytes));
            uart_receive(&uart, bytes, r >> 8 & 31);
            break;
        case 6:
            end.room = r >> 8 & 31;
            end.count = 0;
            uart_writable(&uart);
            break;
        default:
            if (r & 0x100) {
                uart_receive_break(&uart);
            } else {
                kit_step(r >> 12);
            }
        }
        assert_true(uart_room(&uart) <= 16);
    }
}

/* ---- isa-serial ------------------------------------------------------------------------------ */

static void poll_loop(void)
{
    machine_unlock();
    for (unsigned i = 0; i < 20; i++) {
        aio_loop_poll(kit.loop, false);
    }
    machine_lock();
}

static int peer;

static struct chardev *make_socket(const char *id)
{
    int fds[2];
    struct error *err = NULL;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    peer = fds[1];
    autofree char *text = xasprintf("socket,id=%s,fd=%d", id, fds[0]);
    struct options *opts = options_parse(text, "backend", &err);
    machine_unlock();
    struct chardev *chr = chardev_new_from_options(opts, &err);
    machine_lock();
    if (!chr) {
        fail_msg("%s", error_message(err));
    }
    options_free(opts);
    return chr;
}

static void drop_chardevs(struct device *dev)
{
    device_free(dev);
    machine_unlock();
    chardevs_cleanup();
    machine_lock();
    close(peer);
}

static void test_isa_serial(void **state)
{
    char text[64] = {0};

    make_socket("s0");
    struct device *dev = isa_serial_new(kit.isa, 0, "s0", NULL);
    assert_non_null(dev);
    poll_loop();
    outb(0x3f8 + 2, 0xc7);
    outb(0x3f8 + 1, 0x03);
    assert_int_equal(kit.level[4], 1);
    inb(0x3f8 + 2);
    assert_int_equal(kit.level[4], 0);
    for (const char *p = "hello"; *p; p++) {
        outb(0x3f8, (uint8_t)*p);
    }
    poll_loop();
    assert_int_equal(read(peer, text, sizeof(text)), 5);
    assert_string_equal(text, "hello");
    inb(0x3f8 + 2);
    /* More than the FIFO holds: nothing is lost. */
    char big[100];
    for (unsigned i = 0; i < sizeof(big); i++) {
        big[i] = (char)i;
    }
    assert_int_equal(write(peer, big, sizeof(big)), sizeof(big));
    unsigned got = 0;
    for (unsigned i = 0; i < 200 && got < sizeof(big); i++) {
        poll_loop();
        while (inb(0x3f8 + 5) & 1) {
            assert_int_equal(inb(0x3f8 + 5) & 2, 0);
            assert_int_equal(inb(0x3f8), got);
            got++;
        }
    }
    assert_int_equal(got, sizeof(big));
    outb(0x3f8 + 7, 0x5a);
    outb(0x3f8 + 4, 0x0b);
    kit_check_vmstate(dev);
    assert_int_equal(inb(0x3f8 + 7), 0x5a);
    kit_hammer_ports(0x3f8, 8, 20000, 17);
    kit_check_vmstate(dev);
    drop_chardevs(dev);
}

/* A peer that reads nothing: bytes wait in the UART, none is lost. */
static void test_isa_serial_back_pressure(void **state)
{
    unsigned sent = 0, got = 0;

    make_socket("s0");
    struct device *dev = isa_serial_new(kit.isa, 0, "s0", NULL);
    assert_non_null(dev);
    poll_loop();
    outb(0x3f8 + 2, 0x01);
    while (inb(0x3f8 + 5) & 0x20) {
        outb(0x3f8, (uint8_t)sent++);
        assert_true(sent < 16 * MiB);
    }
    for (unsigned i = 0; i < 15; i++) {
        outb(0x3f8, (uint8_t)sent++);
    }
    uint8_t *buf = xmalloc(1 << 20);
    for (unsigned idle = 0; idle < 5;) {
        poll_loop();
        ssize_t n = recv(peer, buf, 1 << 20, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != (uint8_t)got) {
                fail_msg("byte %u is %u", got, buf[i]);
            }
            got++;
        }
        idle = n > 0 ? 0 : idle + 1;
    }
    free(buf);
    assert_int_equal(got, sent);
    assert_int_equal(inb(0x3f8 + 5) & 0x60, 0x60);
    drop_chardevs(dev);
}

static void test_isa_serial_places(void **state)
{
    static const uint16_t ports[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    static const unsigned irqs[] = {4, 3, 4, 3};
    struct error *err = NULL;

    for (unsigned i = 0; i < 4; i++) {
        /* The index is the first that is free. */
        struct device *dev = device_new(&isa_serial_type);
        assert_true(device_realize(dev, kit.isa, NULL));
        outb(ports[i] + 7, (uint8_t)(0x10 + i));
        assert_int_equal(inb(ports[i] + 7), 0x10 + i);
        unsigned before = kit.rises[irqs[i]];
        outb(ports[i] + 1, 2);
        assert_int_equal(kit.rises[irqs[i]], before + 1);
        outb(ports[i] + 1, 0);
    }
    assert_null(isa_serial_new(kit.isa, 4, NULL, &err));
    assert_string_equal(error_message(err), "Max. supported number of ISA serial ports is 4.");
    error_free(err);
    err = NULL;
    struct device *dev = device_new(&isa_serial_type);
    assert_true(device_set(dev, "index", "0", NULL));
    assert_true(device_set(dev, "iobase", "0x3fc", NULL));
    assert_false(device_realize(dev, kit.isa, &err));
    assert_non_null(strstr(error_message(err), "0x3fc"));
    error_free(err);
    err = NULL;
    assert_true(device_set(dev, "iobase", "0xfffc", NULL));
    assert_false(device_realize(dev, kit.isa, &err));
    error_free(err);
    err = NULL;
    assert_true(device_set(dev, "iobase", "0x300", NULL));
    assert_true(device_set(dev, "irq", "16", NULL));
    assert_false(device_realize(dev, kit.isa, &err));
    assert_non_null(strstr(error_message(err), "irq 16"));
    error_free(err);
    err = NULL;
    assert_false(device_set(dev, "chardev", "nosuch", &err));
    assert_non_null(strstr(error_message(err), "nosuch"));
    error_free(err);
    device_free(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        TEST(test_reset_values),
        TEST(test_transmit),
        TEST(test_back_pressure),
        TEST(test_receive_without_fifo),
        TEST(test_trigger_levels),
        TEST(test_timeout),
        TEST(test_fifo_overrun),
        TEST(test_break),
        TEST(test_loopback),
        TEST(test_modem_status),
        TEST(test_priority),
        TEST(test_line_parameters),
        TEST(test_hostile),
        cmocka_unit_test_setup_teardown(test_isa_serial, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_isa_serial_back_pressure, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_isa_serial_places, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
