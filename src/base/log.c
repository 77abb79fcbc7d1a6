/* SPDX-License-Identifier: MIT */
/*
 * Messages on stderr or in the file of -D.
 *
 * Each message is put together first and leaves by one write(), so that lines of several threads
 * do not mix. Texts may quote what a guest, a peer or a user supplied, so control characters
 * become '?': no terminal obeys them, and no message looks like two.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"

uint32_t log_mask;

static const char *program = "ferry"; /* set at start-up */
static int item_fd = STDERR_FILENO;   /* where items of -d go; set at start-up */
static bool timestamps;               /* set at start-up, like the name */
static char *guest_name;              /* or NULL */

static const struct {
    const char *name;
    enum log_item item;
    const char *help;
} items[] = {
    {"guest_errors", LOG_GUEST_ERRORS, "the guest uses a device in a way it does not allow"},
    {"unimp", LOG_UNIMP, "the guest uses a function that ferry lacks"},
    {"cpu_reset", LOG_CPU_RESET, "registers of a CPU before each reset"},
    {"int", LOG_INT, "interrupts and exceptions (soft CPU)"},
    {"in_asm", LOG_IN_ASM, "guest code as it is decoded (soft CPU)"},
    {"exec", LOG_EXEC, "each guest instruction that is run (soft CPU)"},
};

/* ---- output --------------------------------------------------------------------------------- */

static void write_all(int fd, const char *p, size_t left)
{
    while (left > 0) {
        ssize_t n = write(fd, p, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody can be told */
        p += n;
        left -= (size_t)n;
    }
}

/* Replaces control characters, but not those in `keep`. */
static void defuse(char *s, char keep)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < ' ' || c == 0x7f) && *s != keep)
            *s = '?';
    }
}

void log_set_program(const char *name)
{
    program = name;
}

void log_set_heads(bool with_timestamps, const char *name)
{
    timestamps = with_timestamps;
    free(guest_name);
    guest_name = name ? xstrdup(name) : NULL;
    if (guest_name)
        defuse(guest_name, 0);
}

/* What stands before a message: "2026-11-29T08:40:20.123456Z NAME ", or parts of it. */
static char *make_head(void)
{
    char stamp[64] = "";
    if (timestamps) {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        size_t n = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(stamp + n, sizeof(stamp) - n, ".%06ldZ ", now.tv_nsec / 1000);
    }
    return xasprintf("%s%s%s", stamp, guest_name ? guest_name : "", guest_name ? " " : "");
}

/* kind: NULL for a line of -d, which has no head. */
static void __attribute__((format(printf, 3, 0)))
put_line(int fd, const char *kind, const char *fmt, va_list ap)
{
    int saved = errno;
    autofree char *text = xvasprintf(fmt, ap);
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '\n')
        text[--length] = 0;
    defuse(text, 0);
    autofree char *head = kind ? make_head() : xstrdup("");
    autofree char *line = xasprintf("%s%s: %s%s\n", head, program, kind ? kind : "", text);
    write_all(fd, line, strlen(line));
    errno = saved; /* a message between a failure and its test changes nothing */
}

void log_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put_line(STDERR_FILENO, "", fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put_line(STDERR_FILENO, "warning: ", fmt, ap);
    va_end(ap);
}

void log_info(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put_line(STDERR_FILENO, "", fmt, ap);
    va_end(ap);
}

void log_error_with_hint(const char *message, const char *hint)
{
    autofree char *text = xasprintf("%s", message);
    autofree char *lines = xasprintf("%s", hint);
    defuse(text, 0);
    defuse(lines, '\n');
    autofree char *head = make_head();
    autofree char *all =
        xasprintf("%s%s: %s\n%s%s", head, program, text, lines, *lines ? "\n" : "");
    write_all(STDERR_FILENO, all, strlen(all));
}

/* ---- items of -d ---------------------------------------------------------------------------- */

#define LINES_PER_SECOND 10

/* Lines that a guest causes at will. */
struct bounded {
    pthread_mutex_t lock;
    /* under lock */
    time_t second;
    unsigned lines;   /* in this second */
    uint64_t dropped; /* since the last line */
};

static struct bounded guest_errors = {.lock = PTHREAD_MUTEX_INITIALIZER};
static struct bounded unimp = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* False if this line must be dropped; else *dropped tells how many were before it. */
static bool admit(struct bounded *b, uint64_t *dropped)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);

    pthread_mutex_lock(&b->lock);
    if (b->second != now.tv_sec) {
        b->second = now.tv_sec;
        b->lines = 0;
    }
    bool ok = b->lines < LINES_PER_SECOND;
    if (ok) {
        b->lines++;
        *dropped = b->dropped;
        b->dropped = 0;
    } else {
        b->dropped++;
    }
    pthread_mutex_unlock(&b->lock);
    return ok;
}

static void __attribute__((format(printf, 2, 0)))
put_bounded(struct bounded *b, const char *fmt, va_list ap)
{
    uint64_t dropped;
    if (!admit(b, &dropped))
        return;
    if (dropped) {
        autofree char *note =
            xasprintf("%s: (%llu more lines were dropped)\n", program, (unsigned long long)dropped);
        write_all(item_fd, note, strlen(note));
    }
    put_line(item_fd, NULL, fmt, ap);
}

void log_guest_error(const char *fmt, ...)
{
    if (!(log_mask & LOG_GUEST_ERRORS))
        return;
    va_list ap;
    va_start(ap, fmt);
    put_bounded(&guest_errors, fmt, ap);
    va_end(ap);
}

void log_item(enum log_item item, const char *fmt, ...)
{
    if (!(log_mask & item))
        return;
    va_list ap;
    va_start(ap, fmt);
    if (item == LOG_GUEST_ERRORS)
        put_bounded(&guest_errors, fmt, ap);
    else if (item == LOG_UNIMP)
        put_bounded(&unimp, fmt, ap);
    else
        put_line(item_fd, NULL, fmt, ap);
    va_end(ap);
}

void log_item_block(enum log_item item, const char *lines)
{
    if (log_mask & item) {
        int saved = errno;
        write_all(item_fd, lines, strlen(lines));
        errno = saved;
    }
}

static bool find_item(const char *name, uint32_t *mask)
{
    for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
        if (strcmp(items[i].name, name) == 0) {
            *mask |= items[i].item;
            return true;
        }
    }
    return false;
}

bool log_parse_items(const char *text, uint32_t *mask, struct error **errp)
{
    uint32_t result = 0;
    autofree char *copy = xstrdup(text);
    char *rest = copy;
    for (char *name; (name = strsep(&rest, ","));) {
        if (find_item(name, &result))
            continue;
        const char *names[ARRAY_SIZE(items)];
        for (size_t i = 0; i < ARRAY_SIZE(items); i++)
            names[i] = items[i].name;
        const char *near = nearest_name(name, names, ARRAY_SIZE(names));
        if (near)
            error_set(errp, "-d: unknown log item '%s'; did you mean '%s'?", name, near);
        else
            error_set(errp, "-d: unknown log item '%s'; -d help lists them", name);
        return false;
    }
    *mask = result;
    return true;
}

void log_print_items(FILE *to)
{
    fprintf(to, "Log items (comma separated):\n");
    for (size_t i = 0; i < ARRAY_SIZE(items); i++)
        fprintf(to, "%-15s %s\n", items[i].name, items[i].help);
}

bool log_set_file(const char *path, struct error **errp)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        error_set_errno(errp, errno, "-D: cannot open '%s'", path);
        return false;
    }
    if (item_fd != STDERR_FILENO)
        close(item_fd);
    item_fd = fd;
    return true;
}
