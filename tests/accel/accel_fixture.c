/* SPDX-License-Identifier: MIT */
#include "accel_fixture.h"

#include <fcntl.h>

struct system_record system_record;
struct aio_loop *test_loop;
struct mem_region test_ram;

static void on_shutdown(enum system_cause cause, int exit_status)
{
    atomic_store(&system_record.cause, cause);
    atomic_fetch_add(&system_record.shutdowns, 1);
}

static void on_reset(enum system_cause cause)
{
    atomic_store(&system_record.cause, cause);
    atomic_fetch_add(&system_record.resets, 1);
}

static void on_panicked(const struct system_crash *crash)
{
    system_record.crash = *crash;
    atomic_fetch_add(&system_record.crashes, 1);
}

static void on_internal_error(unsigned vcpu)
{
    atomic_fetch_add(&system_record.internal_errors, 1);
}

static void on_debug(unsigned vcpu)
{
    atomic_fetch_add(&system_record.debugs, 1);
}

static const struct system_handlers handlers = {
    .shutdown = on_shutdown,
    .reset = on_reset,
    .panicked = on_panicked,
    .internal_error = on_internal_error,
    .debug = on_debug,
};

void system_record_clear(void)
{
    atomic_store(&system_record.shutdowns, 0);
    atomic_store(&system_record.resets, 0);
    atomic_store(&system_record.crashes, 0);
    atomic_store(&system_record.internal_errors, 0);
    atomic_store(&system_record.debugs, 0);
    atomic_store(&system_record.cause, SYSTEM_CAUSE_NONE);
}

int accel_group_setup(void **state)
{
    struct error *err = NULL;

    test_loop = aio_loop_new("main", AIO_LOOP_EPOLL, &err);
    if (!test_loop) {
        error_report(err);
        return -1;
    }
    aio_loop_bind(test_loop);
    main_loop_set(test_loop);
    mem_init();
    system_set_handlers(&handlers);
    machine_lock();
    if (!mem_region_init_ram(&test_ram, "ram", RAM_SIZE, false, &err)) {
        error_report(err);
        return -1;
    }
    mem_region_add(mem_root(), 0, &test_ram);
    machine_unlock();
    return 0;
}

int accel_group_teardown(void **state)
{
    machine_lock();
    mem_region_remove(mem_root(), &test_ram);
    machine_unlock();
    mem_region_destroy(&test_ram);
    mem_cleanup();
    main_loop_set(NULL);
    aio_loop_unbind(test_loop);
    aio_loop_free(test_loop);
    return 0;
}

uint8_t *ram_at(uint64_t address)
{
    return test_ram.ram->host + address;
}

char *capture_stderr(void (*fn)(void *opaque), void *opaque)
{
    char path[] = "/tmp/ferry-accel-XXXXXX", *text;
    int saved, file = mkstemp(path);
    off_t size;

    assert_true(file >= 0);
    unlink(path);
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    dup2(file, STDERR_FILENO);
    fn(opaque);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    size = lseek(file, 0, SEEK_END);
    text = xcalloc(1, (size_t)size + 1);
    assert_int_equal(pread(file, text, (size_t)size, 0), size);
    close(file);
    return text;
}

const char *take_error(struct error **err)
{
    static char text[1024];

    snprintf(text, sizeof(text), "%s", *err ? error_message(*err) : "(no error)");
    error_free(*err);
    *err = NULL;
    return text;
}

void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("\"%s\" is not in \"%s\"", part, text);
    }
}
