/* SPDX-License-Identifier: MIT */
/* Errors and what is written about them; allocation that must not fail. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/log.h"
#include "base/range.h"

/* ---- error objects -------------------------------------------------------------------------- */

static void a_message(void **state)
{
    struct error *err = NULL;
    error_set(&err, "-m: '%s' is too much; use at most %d", "5E", 7);
    assert_string_equal(error_message(err), "-m: '5E' is too much; use at most 7");
    assert_string_equal(error_hint(err), "");
    assert_int_equal(error_class(err), ERROR_GENERIC);
    assert_string_equal(error_class_name(err), "GenericError");
    error_free(err);
    error_free(NULL);
}

static void dropped(void **state)
{
    /* Nobody wants to know. */
    error_set(NULL, "x");
    error_set_errno(NULL, ENOENT, "x");
    error_set_class(NULL, ERROR_DEVICE_NOT_FOUND, "x");
    error_prepend(NULL, "x");
    error_add_hint(NULL, "x");
    struct error *err = NULL;
    error_prepend(&err, "x");
    error_add_hint(&err, "x");
    assert_null(err);
    error_report(NULL);
}

static void classes(void **state)
{
    static const struct {
        enum error_class class;
        const char *name;
    } names[] = {
        {ERROR_GENERIC, "GenericError"},
        {ERROR_COMMAND_NOT_FOUND, "CommandNotFound"},
        {ERROR_DEVICE_NOT_ACTIVE, "DeviceNotActive"},
        {ERROR_DEVICE_NOT_FOUND, "DeviceNotFound"},
        {ERROR_KVM_MISSING_CAP, "KVMMissingCap"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct error *err = NULL;
        error_set_class(&err, names[i].class, "x");
        assert_int_equal(error_class(err), names[i].class);
        assert_string_equal(error_class_name(err), names[i].name);
        error_free(err);
    }
}

static void with_errno(void **state)
{
    struct error *err = NULL;
    error_set_errno(&err, ENOENT, "cannot open '%s'", "a.img");
    assert_string_equal(error_message(err), "cannot open 'a.img': No such file or directory");
    error_free(err);
}

static void grown(void **state)
{
    struct error *err = NULL;
    error_set_class(&err, ERROR_DEVICE_NOT_FOUND, "no drive '%s'", "d0");
    error_prepend(&err, "-device %s: ", "ide-hd");
    error_add_hint(&err, "drives are: %s", "d1");
    error_add_hint(&err, "add one with -drive");
    assert_string_equal(error_message(err), "-device ide-hd: no drive 'd0'");
    assert_string_equal(error_hint(err), "drives are: d1\nadd one with -drive");
    assert_int_equal(error_class(err), ERROR_DEVICE_NOT_FOUND);

    struct error *mine = NULL;
    error_propagate(&mine, err);
    assert_ptr_equal(mine, err);
    error_propagate(NULL, err); /* frees it */
    error_propagate(NULL, NULL);
    mine = NULL;
    error_propagate(&mine, NULL);
    assert_null(mine);
}

/* ---- what is written ------------------------------------------------------------------------ */

/* Runs fn with stderr in a pipe and returns what it wrote (at most the pipe's 64 KiB). */
static char *stderr_of(void (*fn)(void))
{
    int fds[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(fds), 0);
    fflush(stderr);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    fn();
    dup2(saved, STDERR_FILENO);
    close(saved);

    size_t size = 0;
    char *text = xmalloc(1 << 16);
    for (ssize_t n; (n = read(fds[0], text + size, (1 << 16) - 1 - size)) > 0;)
        size += (size_t)n;
    text[size] = 0;
    close(fds[0]);
    return text;
}

static void expect_stderr(void (*fn)(void), const char *expected)
{
    autofree char *text = stderr_of(fn);
    assert_string_equal(text, expected);
}

static void report(void)
{
    struct error *err = NULL;
    error_set(&err, "no machine 'q36'");
    error_report(err);
}

static void report_with_hint(void)
{
    struct error *err = NULL;
    error_set(&err, "no machine 'a\nb'");
    error_add_hint(&err, "use -machine help");
    error_add_hint(&err, "or\tq35");
    error_report(err);
}

static void levels(void)
{
    errno = ENXIO;
    log_error("%d", 1);
    log_warn("%d", 2);
    log_info("%d\n", 3);
    assert_int_equal(errno, ENXIO);
}

static void with_name(void)
{
    log_set_heads(false, "a\nb");
    log_error("%d", 1);
    report_with_hint();
    log_mask = LOG_UNIMP;
    log_item(LOG_UNIMP, "2");
    log_mask = 0;
    log_set_heads(false, NULL);
    log_info("3");
}

static void nasty(void)
{
    log_error("guest said '%s'", "\x1b[2J\nferry: all is well\r\x7f\xc3\xa4");
}

static void written(void **state)
{
    expect_stderr(report, "ferry: no machine 'q36'\n");
    expect_stderr(report_with_hint, "ferry: no machine 'a?b'\nuse -machine help\nor?q35\n");
    expect_stderr(with_name,
                  "a?b ferry: 1\na?b ferry: no machine 'a?b'\nuse -machine help\nor?q35\n"
                  "ferry: 2\nferry: 3\n");
    expect_stderr(levels, "ferry: 1\nferry: warning: 2\nferry: 3\n");
    expect_stderr(nasty, "ferry: guest said '?[2J?ferry: all is well??\xc3\xa4'\n");
}

/* ---- items of -d ---------------------------------------------------------------------------- */

static void parse_items(void **state)
{
    uint32_t mask = 0;
    struct error *err = NULL;
    assert_true(log_parse_items("guest_errors", &mask, &err));
    assert_int_equal(mask, LOG_GUEST_ERRORS);
    assert_true(log_parse_items("cpu_reset,int,unimp", &mask, &err));
    assert_int_equal(mask, LOG_CPU_RESET | LOG_INT | LOG_UNIMP);

    assert_false(log_parse_items("int,gest_errors", &mask, &err));
    assert_string_equal(error_message(err), "-d: unknown log item 'gest_errors'; did you mean "
                                            "'guest_errors'?");
    error_free(err);
    err = NULL;
    assert_false(log_parse_items("", &mask, &err));
    assert_non_null(strstr(error_message(err), "-d help"));
    error_free(err);
    assert_false(log_parse_items("int,", &mask, NULL));
    assert_int_equal(mask, LOG_CPU_RESET | LOG_INT | LOG_UNIMP);
}

static void print_items(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    log_print_items(to);
    fclose(to);
    assert_ptr_equal(strstr(text, "Log items (comma separated):\nguest_errors    "), text);
    assert_non_null(strstr(text, "\ncpu_reset       "));
    free(text);
}

static void many_guest_errors(void)
{
    for (int i = 0; i < 100000; i++)
        log_guest_error("bad %d", i);
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;
    for (; (text = strchr(text, '\n')); text++)
        lines++;
    return lines;
}

static void off_by_default(void)
{
    log_mask = 0;
    log_guest_error("x");
    log_item(LOG_INT, "x");
}

static void bounded(void **state)
{
    expect_stderr(off_by_default, "");

    log_mask = LOG_GUEST_ERRORS;
    autofree char *text = stderr_of(many_guest_errors);
    size_t lines = count_lines(text);
    /* Ten each second, with a note on what was dropped; slow machines need some seconds. */
    assert_in_range(lines, 10, 110);
    assert_ptr_equal(strstr(text, "ferry: bad 0\nferry: bad 1\n"), text);

    usleep(1100 * 1000);
    autofree char *more = stderr_of(many_guest_errors);
    const char *note = "more lines were dropped)\nferry: bad 0\n";
    assert_non_null(strstr(more, note));
    log_mask = 0;
}

static void to_a_file(void **state)
{
    struct error *err = NULL;
    assert_false(log_set_file("/nonexistent/log", &err));
    assert_string_equal(error_message(err),
                        "-D: cannot open '/nonexistent/log': No such file or directory");
    error_free(err);

    char path[] = "/tmp/ferry-log-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(log_set_file(path, NULL));
    log_mask = LOG_INT | LOG_UNIMP;
    log_item(LOG_INT, "vector %d", 14);
    log_item(LOG_EXEC, "not asked for");
    log_item_block(LOG_INT, "RAX=0\nRBX=1\n");
    log_item_block(LOG_EXEC, "not asked for\n");
    for (int i = 0; i < 1000; i++)
        log_item(LOG_UNIMP, "again");
    log_mask = 0;

    char text[4096];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    assert_true(n > 0);
    text[n] = 0;
    assert_ptr_equal(strstr(text, "ferry: vector 14\nRAX=0\nRBX=1\nferry: again\n"), text);
    assert_null(strstr(text, "not asked for"));
    assert_in_range(count_lines(text), 13, 35);
    close(fd);
    unlink(path);
    /* Back to stderr, which the file of -D cannot be. */
    assert_true(log_set_file("/dev/null", NULL));
}

static void *chatter(void *opaque)
{
    for (int i = 0; i < 100; i++) {
        log_error("%s", (const char *)opaque);
        log_guest_error("x");
    }
    return NULL;
}

static void four_threads(void)
{
    pthread_t threads[4];
    static char texts[4][41];
    for (int i = 0; i < 4; i++) {
        memset(texts[i], 'a' + i, 40);
        pthread_create(&threads[i], NULL, chatter, texts[i]);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void lines_stay_whole(void **state)
{
    autofree char *text = stderr_of(four_threads);
    size_t lines = 0;
    for (char *p = text; *p; p += 48, lines++) {
        assert_memory_equal(p, "ferry: ", 7);
        char first = p[7];
        for (int i = 7; i < 47; i++)
            assert_int_equal(p[i], first);
        assert_int_equal(p[47], '\n');
    }
    assert_int_equal(lines, 400);
}

/* ---- allocation ----------------------------------------------------------------------------- */

static void allocation(void **state)
{
    char *p = xmalloc(0);
    p = xrealloc(p, 0);
    p = xrealloc(p, 10);
    free(p);
    int *zeroes = xcalloc(10, sizeof(int));
    for (int i = 0; i < 10; i++)
        assert_int_equal(zeroes[i], 0);
    zeroes = xreallocarray(zeroes, 20, sizeof(int));
    free(zeroes);
    free(xcalloc(0, 8));
    autofree char *s = xasprintf("%d-%s", 5, "x");
    assert_string_equal(s, "5-x");
    autofree char *n = xstrndup("abcdef", 3);
    assert_string_equal(n, "abc");
    autofree char *m = xmemdup("a\0b", 3);
    assert_memory_equal(m, "a\0b", 3);
    free(xmemdup(NULL, 0));
    for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        autofree void *aligned = xaligned_alloc(alignment, 100);
        assert_int_equal((uintptr_t)aligned % alignment, 0);
        memset(aligned, 1, 100);
    }
}

static void overflowing_array(void **state)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        volatile size_t count = SIZE_MAX / 2;
        free(xreallocarray(NULL, count, 4));
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message),
        cmocka_unit_test(dropped),
        cmocka_unit_test(classes),
        cmocka_unit_test(with_errno),
        cmocka_unit_test(grown),
        cmocka_unit_test(written),
        cmocka_unit_test(parse_items),
        cmocka_unit_test(print_items),
        cmocka_unit_test(bounded),
        cmocka_unit_test(to_a_file),
        cmocka_unit_test(lines_stay_whole),
        cmocka_unit_test(allocation),
        cmocka_unit_test(overflowing_array),
    };
    return cmocka_run_group_tests_name("base/error", tests, NULL, NULL);
}
