/* SPDX-License-Identifier: MIT */
/*
 * The qtest protocol on a machine that is no more than 64 KiB of RAM, an I/O register and a device
 * with lines. Replies are those of QEMU 7.2, byte by byte, where it gives one.
 */
#include "kit.h"

#include <stdio.h>
#include <unistd.h>

#include "aio/clock.h"
#include "aio/loop.h"
#include "base/bytes.h"
#include "device/device.h"
#include "device/iothread.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"
#include "monitor/qtest.h"

#define RAM_SIZE 0x10000
#define MMIO     0x20000
#define PORT     0x500

/* ---- a machine ------------------------------------------------------------------------------ */

struct lines {
    struct device dev;
    unsigned set_count;
    int last_level;
    unsigned last_n;
};

static void on_line(void *opaque, unsigned n, int level)
{
    struct lines *lines = opaque;

    lines->set_count++;
    lines->last_level = level;
    lines->last_n = n;
}

static bool lines_realize(struct device *dev, struct error **errp)
{
    device_init_gpio_in(dev, on_line, 4);
    device_init_gpio_out(dev, 2);
    return true;
}

static const struct device_type lines_type = {
    .name = "test-lines",
    .size = sizeof(struct lines),
    .realize = lines_realize,
};

static const struct device_type *const types[] = {&lines_type, NULL};

struct rig {
    struct peer peer;
    struct qtest_session *session;
    struct aio_loop *loop;
    struct mem_region ram, io, mmio;
    struct lines *lines;
    uint64_t written;
    unsigned written_size;
};

static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
    return (UINT64_C(0xf8f7f6f5f4f3f2f1) >> offset * 8) &
           (size == 8 ? UINT64_MAX : BIT64(size * 8) - 1);
}

static void io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct rig *rig = opaque;

    rig->written = value;
    rig->written_size = size;
}

static const struct mem_region_ops io_ops = {
    .read = io_read,
    .write = io_write,
    .valid = {.min = 1, .max = 8, .unaligned = true},
};

static int setup(void **state)
{
    struct rig *rig = xnew(struct rig);

    rig->loop = aio_loop_new("main", AIO_LOOP_AUTO, NULL);
    aio_loop_bind(rig->loop);
    main_loop_set(rig->loop);
    mem_init();
    clock_virtual_set_manual();
    device_types_set(types);
    machine_lock();
    assert_true(mem_region_init_ram(&rig->ram, "ram", RAM_SIZE, false, NULL));
    mem_region_add(mem_root(), 0, &rig->ram);
    mem_region_init_io(&rig->mmio, "mmio", 8, &io_ops, rig);
    mem_region_add(mem_root(), MMIO, &rig->mmio);
    mem_region_init_io(&rig->io, "io", 8, &io_ops, rig);
    mem_region_add(io_root(), PORT, &rig->io);
    rig->lines = (struct lines *)device_new(&lines_type);
    assert_true(device_set_id(&rig->lines->dev, "l0", NULL));
    assert_true(device_realize(&rig->lines->dev, NULL, NULL));
    machine_unlock();
    rig->session = qtest_session_new(peer_output, &rig->peer, NULL);
    qtest_session_open(rig->session);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;

    qtest_session_free(rig->session);
    free(peer_take(&rig->peer));
    machine_lock();
    devices_free();
    mem_region_remove(mem_root(), &rig->ram);
    mem_region_remove(mem_root(), &rig->mmio);
    mem_region_remove(io_root(), &rig->io);
    machine_unlock();
    mem_region_destroy(&rig->ram);
    mem_region_destroy(&rig->mmio);
    mem_region_destroy(&rig->io);
    mem_cleanup();
    aio_loop_unbind(rig->loop);
    aio_loop_free(rig->loop);
    free(rig);
    return 0;
}

static void say(struct rig *rig, const char *text)
{
    qtest_session_input(rig->session, text, strlen(text));
}

static void ask(struct rig *rig, const char *request, const char *reply)
{
    autofree char *text = NULL;

    say(rig, request);
    say(rig, "\n");
    text = peer_take(&rig->peer);
    if (strncmp(text, reply, strlen(reply)) || strcmp(text + strlen(reply), "\n")) {
        fail_msg("%s: got '%s', expected '%s'", request, text, reply);
    }
}

/* ---- memory and ports ----------------------------------------------------------------------- */

static void test_ports(void **state)
{
    struct rig *rig = *state;

    ask(rig, "inb 0x500", "OK 0x00f1");
    ask(rig, "inw 0x501", "OK 0xf3f2");
    ask(rig, "inl 1280", "OK 0xf4f3f2f1");
    ask(rig, "inl 02400", "OK 0xf4f3f2f1"); /* octal */
    ask(rig, "inb 0x600", "OK 0x00ff");
    ask(rig, "inw 0x600", "OK 0xffff");
    ask(rig, "inl 0x600", "OK 0xffffffff");
    ask(rig, "outb 0x500 0x1234", "OK");
    assert_int_equal(rig->written, 0x34);
    assert_int_equal(rig->written_size, 1);
    ask(rig, "outw 0x500 0x123456", "OK");
    assert_int_equal(rig->written, 0x3456);
    assert_int_equal(rig->written_size, 2);
    ask(rig, "outl 0x500 0x89abcdef", "OK");
    assert_int_equal(rig->written, 0x89abcdef);
    assert_int_equal(rig->written_size, 4);
    ask(rig, "outl 0xfffe 1", "OK");
    ask(rig, "inl 0xfffe", "OK 0xffffffff");
}

static void test_memory(void **state)
{
    struct rig *rig = *state;

    ask(rig, "writeb 0x1000 0x12", "OK");
    ask(rig, "writew 0x1002 0x3412", "OK");
    ask(rig, "writel 0x1004 0x78563412", "OK");
    ask(rig, "writeq 0x1008 0x1122334455667788", "OK");
    ask(rig, "readb 0x1000", "OK 0x0000000000000012");
    ask(rig, "readw 0x1002", "OK 0x0000000000003412");
    ask(rig, "readl 0x1004", "OK 0x0000000078563412");
    ask(rig, "readq 0x1008", "OK 0x1122334455667788");
    ask(rig, "read 0x1000 0x10", "OK 0x12001234123456788877665544332211");
    ask(rig, "readl 0x20000", "OK 0x00000000f4f3f2f1");
    ask(rig, "readq 0x20000", "OK 0xf8f7f6f5f4f3f2f1");
    ask(rig, "writew 0x20002 0xffff1234", "OK");
    assert_int_equal(rig->written, 0x1234);
    assert_int_equal(rig->written_size, 2);
    /* Nothing there. */
    ask(rig, "readb 0x40000", "OK 0x00000000000000ff");
    ask(rig, "readq 0xfffffffffffffff8", "OK 0xffffffffffffffff");
    ask(rig, "writeq 0x40000 1", "OK");
}

static void test_bulk(void **state)
{
    struct rig *rig = *state;

    ask(rig, "write 0x2000 4 0x01020304", "OK");
    ask(rig, "read 0x2000 4", "OK 0x01020304");
    ask(rig, "write 0x2000 2 0xAbCd", "OK");
    ask(rig, "b64read 0x2000 4", "OK q80DBA==");
    ask(rig, "b64read 0x2000 5", "OK q80DBAA=");
    ask(rig, "b64write 0x2000 4 AAECAw==", "OK");
    ask(rig, "read 0x2000 4", "OK 0x00010203");
    ask(rig, "memset 0x3000 8 0x1a5", "OK");
    ask(rig, "read 0x2fff 10", "OK 0x00a5a5a5a5a5a5a5a500");
    ask(rig, "memset 0x3000 0 0x11", "OK");
    ask(rig, "read 0x3000 1", "OK 0xa5");
    /* Past the end of RAM. */
    ask(rig, "write 0xfffe 4 0x01020304", "OK");
    ask(rig, "read 0xfffe 4", "OK 0x0102ffff");
}

static void test_endianness(void **state)
{
    ask(*state, "endianness", "OK little");
}

/* ---- clock ---------------------------------------------------------------------------------- */

struct ticker {
    struct aio_timer timer;
    int64_t at[8], period;
    unsigned count, max;
};

static void tick(void *opaque)
{
    struct ticker *ticker = opaque;
    int64_t now = clock_get_ns(AIO_CLOCK_VIRTUAL);

    if (ticker->count < ARRAY_SIZE(ticker->at)) {
        ticker->at[ticker->count] = now;
    }
    if (++ticker->count < ticker->max) {
        timer_set(&ticker->timer, now + ticker->period);
    }
}

static void ask_clock(struct rig *rig, const char *request, int64_t now)
{
    autofree char *reply = xasprintf("OK %lld", (long long)now);

    ask(rig, request, reply);
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), now);
}

static void test_clock(void **state)
{
    struct rig *rig = *state;
    struct ticker ticker = {.period = 1000, .max = 4};
    int64_t start = clock_get_ns(AIO_CLOCK_VIRTUAL);
    autofree char *set = xasprintf("clock_set %lld", (long long)start + 500);

    ask_clock(rig, "clock_step", start); /* no timer: no step */
    ask_clock(rig, "clock_step 100", start + 100);
    ask_clock(rig, set, start + 500);
    ask_clock(rig, "clock_set 0", start + 500); /* never back */

    timer_init(&ticker.timer, rig->loop, AIO_CLOCK_VIRTUAL, tick, &ticker);
    timer_set(&ticker.timer, start + 1000);
    ask_clock(rig, "clock_step 499", start + 999);
    assert_int_equal(ticker.count, 0);
    ask_clock(rig, "clock_step", start + 1000);
    assert_int_equal(ticker.count, 1);
    /* Each runs at its own time, not at the end of the step. */
    ask_clock(rig, "clock_step 2500", start + 3500);
    assert_int_equal(ticker.count, 3);
    assert_int_equal(ticker.at[1], start + 2000);
    assert_int_equal(ticker.at[2], start + 3000);
    ask_clock(rig, "clock_step", start + 4000);
    ask_clock(rig, "clock_step", start + 4000);
    assert_int_equal(ticker.count, 4);
}

/* A timer that never gets past now does not hold up the clock. */
static void test_clock_restless_timer(void **state)
{
    struct rig *rig = *state;
    struct ticker ticker = {.period = 0, .max = UINT32_MAX};
    int64_t start = clock_get_ns(AIO_CLOCK_VIRTUAL);

    timer_init(&ticker.timer, rig->loop, AIO_CLOCK_VIRTUAL, tick, &ticker);
    timer_set(&ticker.timer, start + 10);
    ask_clock(rig, "clock_step 100", start + 100);
    assert_true(ticker.count > 1);
    timer_cancel(&ticker.timer);
}

/* ---- lines ---------------------------------------------------------------------------------- */

static void set_out(struct rig *rig, unsigned n, int level)
{
    machine_lock();
    irq_set(&rig->lines->dev.gpio_out[n], level);
    machine_unlock();
}

static void test_set_irq_in(void **state)
{
    struct rig *rig = *state;

    ask(rig, "set_irq_in l0 unnamed-gpio-in 2 1", "OK");
    assert_int_equal(rig->lines->set_count, 1);
    assert_int_equal(rig->lines->last_n, 2);
    assert_int_equal(rig->lines->last_level, 1);
    ask(rig, "set_irq_in /machine/peripheral/l0 unnamed-gpio-in 0 0", "OK");
    assert_int_equal(rig->lines->last_n, 0);
    ask(rig, "set_irq_in test-lines unnamed-gpio-in 1 1", "OK");
    assert_int_equal(rig->lines->set_count, 3);
    ask(rig, "set_irq_in nope unnamed-gpio-in 1 1", "FAIL Unknown device");
    ask(rig, "set_irq_in l0 sysbus 1 1", "FAIL Unknown line name");
    ask(rig, "set_irq_in l0 unnamed-gpio-in 4 1", "FAIL Unknown line number");
    ask(rig, "set_irq_in l0 unnamed-gpio-in -1 1", "FAIL Unknown line number");
    assert_int_equal(rig->lines->set_count, 3);
}

static void test_intercept_in(void **state)
{
    struct rig *rig = *state;

    ask(rig, "irq_intercept_in nope", "FAIL Unknown device");
    ask(rig, "irq_intercept_in l0", "OK");
    ask(rig, "irq_intercept_in l0", "OK");
    ask(rig, "irq_intercept_out l0", "FAIL IRQ intercept already enabled");
    ask(rig, "set_irq_in l0 unnamed-gpio-in 3 1", "IRQ raise 3\nOK");
    ask(rig, "set_irq_in l0 unnamed-gpio-in 3 1", "OK"); /* no change */
    ask(rig, "set_irq_in l0 unnamed-gpio-in 3 0", "IRQ lower 3\nOK");
    assert_int_equal(rig->lines->set_count, 0);

    /* The next client finds nothing intercepted. */
    ask(rig, "set_irq_in l0 unnamed-gpio-in 3 1", "IRQ raise 3\nOK");
    qtest_session_close(rig->session);
    qtest_session_open(rig->session);
    ask(rig, "set_irq_in l0 unnamed-gpio-in 3 0", "OK");
    assert_int_equal(rig->lines->set_count, 1);
    ask(rig, "irq_intercept_in l0", "OK");
    ask(rig, "set_irq_in l0 unnamed-gpio-in 3 1", "IRQ raise 3\nOK");
}

static void test_intercept_out(void **state)
{
    struct rig *rig = *state;
    autofree char *text = NULL;

    ask(rig, "irq_intercept_out test-lines", "OK");
    set_out(rig, 1, 1);
    set_out(rig, 1, 1);
    set_out(rig, 0, 1);
    set_out(rig, 1, 0);
    text = peer_take(&rig->peer);
    assert_string_equal(text, "IRQ raise 1\nIRQ raise 0\nIRQ lower 1\n");
}

/* ---- bad input ------------------------------------------------------------------------------ */

static void test_bad_lines(void **state)
{
    static const struct {
        const char *request, *reply;
    } cases[] = {
        {"foo", "FAIL Unknown command 'foo'"},
        {"INB 0x70", "FAIL Unknown command 'INB'"},
        {"inb", "FAIL inb needs 1 arguments"},
        {"inb zz", "FAIL Bad number"},
        {"inb 0x10000", "FAIL Bad number"},
        {"inb -1", "FAIL Bad number"},
        {"inb 5x", "FAIL Bad number"},
        {"inb 0x", "FAIL Bad number"},
        {"outb 1", "FAIL outb needs 2 arguments"},
        {"outb 1 z", "FAIL Bad number"},
        {"outb 1 99999999999999999999", "FAIL Bad number"},
        {"readb", "FAIL readb needs 1 arguments"},
        {"readq 0x1ffffffffffffffff", "FAIL Bad number"},
        {"writeq 0", "FAIL writeq needs 2 arguments"},
        {"read 0", "FAIL read needs 2 arguments"},
        {"read 0 0", "FAIL Length must not be 0"},
        {"read 0 0x1000001", "FAIL Length must be at most 16777216 bytes and end below 2^64"},
        {"read 0 0xffffffffffffffff",
         "FAIL Length must be at most 16777216 bytes and end below 2^64"},
        {"read 0xfffffffffffffff0 0x20",
         "FAIL Length must be at most 16777216 bytes and end below 2^64"},
        {"b64read 0 x", "FAIL Bad number"},
        {"write 0 4", "FAIL write needs 3 arguments"},
        {"write 0 4 0x0102", "FAIL Data is not 4 bytes"},
        {"write 0 4 0x0102030405", "FAIL Data is not 4 bytes"},
        {"write 0 4 01020304", "FAIL Data is not 4 bytes"},
        {"write 0 4 0x0102030g", "FAIL Data is not 4 bytes"},
        {"write 0 4 0x010203040", "FAIL Data is not 4 bytes"},
        {"b64write 0 4 AAEC", "FAIL Data is not 4 bytes"},
        {"b64write 0 4 A", "FAIL Data is not 4 bytes"},
        {"memset 0 4", "FAIL memset needs 3 arguments"},
        {"memset 0 4 z", "FAIL Bad number 'z'"},
        {"memset 0 0x7fffffffffffffff 0",
         "FAIL Length must be at most 16777216 bytes and end below 2^64"},
        {"clock_set", "FAIL clock_set needs 1 arguments"},
        {"clock_step x", "FAIL Bad number 'x'"},
        {"clock_step -5", "FAIL Bad number '-5'"},
        {"clock_step 0x7fffffffffffffff", "FAIL Bad number '0x7fffffffffffffff'"},
        {"clock_set 18446744073709551615", "FAIL Bad number '18446744073709551615'"},
        {"irq_intercept_in", "FAIL irq_intercept_in needs 1 arguments"},
        {"irq_intercept_in /", "FAIL Unknown device"},
        {"irq_intercept_in /machine", "FAIL Unknown device"},
        {"set_irq_in l0 unnamed-gpio-in 1", "FAIL set_irq_in needs 4 arguments"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask(*state, cases[i].request, cases[i].reply);
    }
}

static void test_lines(void **state)
{
    struct rig *rig = *state;
    autofree char *text = NULL;

    say(rig, "\n\r\n  \t \nendian");
    say(rig, "ness\r\n  inb   0x500\tmore words than there are places for ");
    say(rig, "in the list\nendianness");
    text = peer_take(&rig->peer);
    assert_string_equal(text, "OK little\nOK 0x00f1\n");
    qtest_session_close(rig->session);
    say(rig, "\n");
    qtest_session_open(rig->session);
    ask(rig, "inb 0x600", "OK 0x00ff"); /* the rest of the old line is gone */
}

static void test_long_line(void **state)
{
    struct rig *rig = *state;
    size_t size = 1 << 20;
    autofree char *text = xmalloc(size);

    memset(text, '7', size);
    for (unsigned i = 0; i < 65; i++) {
        qtest_session_input(rig->session, text, size);
    }
    ask(rig, "", "FAIL Line is longer than 67108863 bytes");
    ask(rig, "endianness", "OK little");
}

static void test_log(void **state)
{
    struct rig *rig = *state;
    struct peer peer = {0};
    autofree char *text = NULL;
    size_t size;
    FILE *log = open_memstream(&text, &size);
    struct qtest_session *session = qtest_session_new(peer_output, &peer, log);

    qtest_session_open(session);
    qtest_session_input(session, "inb 0x500\n", 10);
    qtest_session_free(session);
    fclose(log);
    free(peer_take(&peer));
    assert_non_null(strstr(text, "] OPENED\n"));
    assert_non_null(strstr(text, "] inb 0x500\n"));
    assert_non_null(strstr(text, "] OK 0x00f1\n"));
    assert_non_null(strstr(text, "] CLOSED\n"));
    assert_true(strstr(text, "inb") < strstr(text, "OK"));
    assert_non_null(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bulk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endianness, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_restless_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_irq_in, setup, teardown),
        cmocka_unit_test_setup_teardown(test_intercept_in, setup, teardown),
        cmocka_unit_test_setup_teardown(test_intercept_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
