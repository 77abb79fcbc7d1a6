/* SPDX-License-Identifier: MIT */
#include "monitor/qtest.h"

#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "aio/loop.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/options.h"
#include "base/range.h"
#include "device/device.h"
#include "device/iothread.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"
#include "monitor/base64.h"
#include "monitor/qmp_commands.h"

#define LINE_MAX_SIZE (64u * 1024 * 1024)
#define TRANSFER_MAX  (16u * 1024 * 1024) /* bytes of one read, write or memset */
#define WORDS_MAX     8
#define SAME_TIME_MAX 10000 /* rounds of timers without the clock moving */

struct qtest_session {
    void (*output)(void *opaque, const char *text, size_t size);
    void *opaque;
    FILE *log;
    int64_t opened_ns;
    bool open;
    char *line;
    size_t size, capacity;
    bool too_long;
    struct device *intercepted;
    bool intercepted_out;
    int level[512]; /* of the intercepted lines */
};

static void log_line(struct qtest_session *session, char direction, const char *text)
{
    int64_t ns = clock_get_ns(AIO_CLOCK_RT) - session->opened_ns;

    if (session->log) {
        fprintf(session->log, "[%c +%" PRId64 ".%06" PRId64 "] %s\n", direction, ns / NS_PER_SEC,
                ns % NS_PER_SEC / 1000, text);
        fflush(session->log);
    }
}

__attribute__((format(printf, 2, 3))) static void send(struct qtest_session *session,
                                                       const char *fmt, ...)
{
    autofree char *text = NULL;
    autofree char *line = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = xvasprintf(fmt, ap);
    va_end(ap);
    log_line(session, 'S', text);
    line = xasprintf("%s\n", text);
    session->output(session->opaque, line, strlen(line));
}

/* ---- interrupts ----------------------------------------------------------------------------- */

static struct qtest_session *interceptor; /* who called irq_intercept_*; one at a time */

static void on_irq(void *opaque, unsigned n, int level)
{
    struct qtest_session *session = opaque;

    if (n < ARRAY_SIZE(session->level) && session->level[n] != level) {
        session->level[n] = level;
        send(session, "IRQ %s %u", level ? "raise" : "lower", n);
    }
}

/* A device by its path (monitor/qmp_object.c) or id, or the first of a type by the type's name,
 * which may end a path as in QEMU's "/machine/q35/ioapic". */
static struct device *find_device(const char *path)
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    struct device *dev = qom_find_device(path);

    if (dev) {
        return dev;
    }
    for (dev = device_first(); dev; dev = dev->next) {
        if ((dev->id && !strcmp(dev->id, name)) || !strcmp(dev->type->name, name)) {
            return dev;
        }
    }
    return NULL;
}

static void set_interception(struct qtest_session *session, struct device *dev, bool out, bool on)
{
    struct irq *lines = out ? dev->gpio_out : dev->gpio_in;
    unsigned count = out ? dev->gpio_out_count : dev->gpio_in_count;

    for (unsigned i = 0; i < count; i++) {
        lines[i].intercept = on ? on_irq : NULL;
        lines[i].intercept_opaque = session;
        lines[i].intercept_n = i;
    }
}

static void cmd_irq_intercept(struct qtest_session *session, char **word, unsigned count)
{
    bool out = !strcmp(word[0], "irq_intercept_out");
    struct device *dev = find_device(word[1]);

    if (!dev) {
        send(session, "FAIL Unknown device");
    } else if (interceptor && (session->intercepted != dev || session->intercepted_out != out)) {
        send(session, "FAIL IRQ intercept already enabled");
    } else {
        machine_lock();
        set_interception(session, dev, out, true);
        machine_unlock();
        interceptor = session;
        session->intercepted = dev;
        session->intercepted_out = out;
        send(session, "OK");
    }
}

static void cmd_set_irq_in(struct qtest_session *session, char **word, unsigned count)
{
    struct device *dev = find_device(word[1]);
    uint64_t n, level;

    if (!dev) {
        send(session, "FAIL Unknown device");
    } else if (strcmp(word[2], "unnamed-gpio-in")) {
        send(session, "FAIL Unknown line name");
    } else if (!parse_uint(word[3], &n) || n >= dev->gpio_in_count ||
               !parse_uint(word[4], &level)) {
        send(session, "FAIL Unknown line number");
    } else {
        machine_lock();
        irq_set(&dev->gpio_in[n], level != 0);
        machine_unlock();
        send(session, "OK");
    }
}

/* ---- clock ---------------------------------------------------------------------------------- */

/* Moves the clock from timer to timer, so that each runs at its time. A timer that keeps setting
 * itself to the past does not hold it up for ever. */
static void clock_advance(int64_t to)
{
    for (unsigned rounds = 0; rounds < SAME_TIME_MAX; rounds++) {
        int64_t next = timers_next_expiry(AIO_CLOCK_VIRTUAL);

        if (next < 0 || next > to) {
            break;
        }
        if (next > clock_get_ns(AIO_CLOCK_VIRTUAL)) {
            clock_virtual_set(next);
            rounds = 0;
        }
        if (!timers_run(main_loop(), AIO_CLOCK_VIRTUAL)) {
            sched_yield(); /* another loop's: it has been woken */
        }
    }
    clock_virtual_set(to);
    timers_run(main_loop(), AIO_CLOCK_VIRTUAL);
}

static void cmd_clock(struct qtest_session *session, char **word, unsigned count)
{
    int64_t now = clock_get_ns(AIO_CLOCK_VIRTUAL);
    const struct accel *accel = accel_current();
    uint64_t value = 0;

    if (accel && accel->ops->has_vcpus) { /* then the clock goes by itself */
        send(session, "FAIL Unknown command '%s'", word[0]);
        return;
    }
    if (count > 1 && (!parse_uint(word[1], &value) || value > INT64_MAX / 2)) {
        send(session, "FAIL Bad number '%s'", word[1]);
        return;
    }
    if (!strcmp(word[0], "clock_set")) {
        clock_advance(MAX((int64_t)value, now));
    } else if (count > 1) {
        clock_advance(now + (int64_t)value);
    } else {
        int64_t next = timers_next_expiry(AIO_CLOCK_VIRTUAL);
        clock_advance(next > now ? next : now);
    }
    send(session, "OK %" PRId64, clock_get_ns(AIO_CLOCK_VIRTUAL));
}

/* ---- buses ---------------------------------------------------------------------------------- */

static unsigned size_of_suffix(char suffix)
{
    switch (suffix) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'l':
        return 4;
    default:
        return 8;
    }
}

static void cmd_port(struct qtest_session *session, char **word, unsigned count)
{
    bool is_write = word[0][0] == 'o';
    unsigned size = size_of_suffix(word[0][strlen(word[0]) - 1]);
    uint64_t port, value = 0;
    uint8_t bytes[8];

    if (!parse_uint(word[1], &port) || port > 0xffff ||
        (is_write && (count < 3 || !parse_uint(word[2], &value)))) {
        send(session, "FAIL Bad number");
        return;
    }
    store_le64(bytes, value);
    address_space_rw(address_space_io, port, bytes, size, is_write);
    if (is_write) {
        send(session, "OK");
    } else {
        send(session, "OK 0x%04" PRIx64, load_le(bytes, size));
    }
}

static void cmd_memory(struct qtest_session *session, char **word, unsigned count)
{
    bool is_write = word[0][0] == 'w';
    unsigned size = size_of_suffix(word[0][strlen(word[0]) - 1]);
    uint64_t address, value = 0;
    uint8_t bytes[8];

    if (!parse_uint(word[1], &address) ||
        (is_write && (count < 3 || !parse_uint(word[2], &value)))) {
        send(session, "FAIL Bad number");
        return;
    }
    store_le64(bytes, value);
    address_space_rw(address_space_memory, address, bytes, size, is_write);
    if (is_write) {
        send(session, "OK");
    } else {
        send(session, "OK 0x%016" PRIx64, load_le(bytes, size));
    }
}

/* Address and length of a bulk command; false and a reply if they are no good. */
static bool bulk_range(struct qtest_session *session, char **word, uint64_t *address,
                       uint64_t *length)
{
    if (!parse_uint(word[1], address) || !parse_uint(word[2], length)) {
        send(session, "FAIL Bad number");
        return false;
    }
    if (*length > TRANSFER_MAX || (*length && *address + *length - 1 < *address)) {
        send(session, "FAIL Length must be at most %u bytes and end below 2^64", TRANSFER_MAX);
        return false;
    }
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool hex_decode(const char *text, uint8_t *data, size_t size)
{
    if (strncmp(text, "0x", 2) || strlen(text) != 2 + size * 2) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(text[2 + i * 2]), low = hex_digit(text[3 + i * 2]);
        if (high < 0 || low < 0) {
            return false;
        }
        data[i] = high << 4 | low;
    }
    return true;
}

static char *hex_encode(const uint8_t *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    char *text = xmalloc(size * 2 + 3), *p = text;

    *p++ = '0';
    *p++ = 'x';
    for (size_t i = 0; i < size; i++) {
        *p++ = digits[data[i] >> 4];
        *p++ = digits[data[i] & 15];
    }
    *p = 0;
    return text;
}

static void cmd_bulk_read(struct qtest_session *session, char **word, unsigned count)
{
    autofree uint8_t *data = NULL;
    autofree char *text = NULL;
    uint64_t address, length;

    if (!bulk_range(session, word, &address, &length)) {
        return;
    }
    if (length == 0) {
        send(session, "FAIL Length must not be 0");
        return;
    }
    data = xmalloc(length);
    address_space_read(address_space_memory, address, data, length);
    text = word[0][0] == 'b' ? base64_encode(data, length) : hex_encode(data, length);
    send(session, "OK %s", text);
}

static void cmd_bulk_write(struct qtest_session *session, char **word, unsigned count)
{
    autofree uint8_t *data = NULL;
    uint64_t address, length;
    bool ok;

    if (!bulk_range(session, word, &address, &length)) {
        return;
    }
    data = xmalloc(length + 1);
    ok = word[0][0] == 'b' ? base64_decode(word[3], data, length)
                           : hex_decode(word[3], data, length);
    if (!ok) {
        send(session, "FAIL Data is not %" PRIu64 " bytes", length);
        return;
    }
    address_space_write(address_space_memory, address, data, length);
    send(session, "OK");
}

static void cmd_memset(struct qtest_session *session, char **word, unsigned count)
{
    autofree uint8_t *data = NULL;
    uint64_t address, length, value;

    if (!bulk_range(session, word, &address, &length)) {
        return;
    }
    if (!parse_uint(word[3], &value)) {
        send(session, "FAIL Bad number '%s'", word[3]);
        return;
    }
    data = xmalloc(length + 1);
    memset(data, value, length);
    address_space_write(address_space_memory, address, data, length);
    send(session, "OK");
}

static void cmd_endianness(struct qtest_session *session, char **word, unsigned count)
{
    send(session, "OK little");
}

static const struct command {
    const char *name;
    unsigned words; /* at least, with the name */
    void (*run)(struct qtest_session *session, char **word, unsigned count);
} commands[] = {
    {"irq_intercept_in", 2, cmd_irq_intercept},
    {"irq_intercept_out", 2, cmd_irq_intercept},
    {"set_irq_in", 5, cmd_set_irq_in},
    {"clock_step", 1, cmd_clock},
    {"clock_set", 2, cmd_clock},
    {"outb", 3, cmd_port},
    {"outw", 3, cmd_port},
    {"outl", 3, cmd_port},
    {"inb", 2, cmd_port},
    {"inw", 2, cmd_port},
    {"inl", 2, cmd_port},
    {"writeb", 3, cmd_memory},
    {"writew", 3, cmd_memory},
    {"writel", 3, cmd_memory},
    {"writeq", 3, cmd_memory},
    {"readb", 2, cmd_memory},
    {"readw", 2, cmd_memory},
    {"readl", 2, cmd_memory},
    {"readq", 2, cmd_memory},
    {"read", 3, cmd_bulk_read},
    {"write", 4, cmd_bulk_write},
    {"b64read", 3, cmd_bulk_read},
    {"b64write", 4, cmd_bulk_write},
    {"memset", 4, cmd_memset},
    {"endianness", 1, cmd_endianness},
};

static void handle_line(struct qtest_session *session, char *line)
{
    char *word[WORDS_MAX], *save;
    unsigned count = 0;

    log_line(session, 'R', line);
    for (char *w = strtok_r(line, " \t\r", &save); w && count < WORDS_MAX;
         w = strtok_r(NULL, " \t\r", &save)) {
        word[count++] = w;
    }
    if (count == 0) {
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (!strcmp(commands[i].name, word[0])) {
            if (count < commands[i].words) {
                send(session, "FAIL %s needs %u arguments", word[0], commands[i].words - 1);
            } else {
                commands[i].run(session, word, count);
            }
            return;
        }
    }
    send(session, "FAIL Unknown command '%s'", word[0]);
}

void qtest_session_input(struct qtest_session *session, const char *data, size_t size)
{
    for (size_t i = 0; i < size && session->open; i++) {
        if (session->size == session->capacity) {
            session->capacity = session->capacity ? session->capacity * 2 : 256;
            session->line = xrealloc(session->line, session->capacity);
        }
        if (data[i] != '\n') {
            session->too_long |= session->size + 1 == LINE_MAX_SIZE;
            if (!session->too_long) {
                session->line[session->size++] = data[i];
            }
            continue;
        }
        session->line[session->size] = 0;
        session->size = 0;
        if (session->too_long) {
            session->too_long = false;
            send(session, "FAIL Line is longer than %u bytes", LINE_MAX_SIZE - 1);
        } else {
            handle_line(session, session->line);
        }
    }
}

void qtest_session_open(struct qtest_session *session)
{
    session->open = true;
    session->too_long = false;
    session->size = 0;
    memset(session->level, 0, sizeof(session->level));
    session->opened_ns = clock_get_ns(AIO_CLOCK_RT);
    if (session->log) {
        fprintf(session->log, "[I %" PRId64 "] OPENED\n", session->opened_ns);
        fflush(session->log);
    }
}

void qtest_session_close(struct qtest_session *session)
{
    if (session->intercepted) {
        machine_lock();
        set_interception(session, session->intercepted, session->intercepted_out, false);
        machine_unlock();
        session->intercepted = NULL;
        interceptor = NULL;
    }
    if (session->open && session->log) {
        fprintf(session->log, "[I +%" PRId64 "] CLOSED\n",
                clock_get_ns(AIO_CLOCK_RT) - session->opened_ns);
        fflush(session->log);
    }
    session->open = false;
}

struct qtest_session *qtest_session_new(void (*output)(void *opaque, const char *text, size_t size),
                                        void *opaque, FILE *log)
{
    struct qtest_session *session = xnew(struct qtest_session);

    session->output = output;
    session->opaque = opaque;
    session->log = log;
    return session;
}

void qtest_session_free(struct qtest_session *session)
{
    qtest_session_close(session);
    free(session->line);
    free(session);
}
