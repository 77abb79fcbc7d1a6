/* SPDX-License-Identifier: MIT */
/* What the tests of block/ share. See kit.h. */
#include "kit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* ---- directory ------------------------------------------------------------------------------- */

static char directory[64];

int kit_enter_directory(void **state)
{
    snprintf(directory, sizeof(directory), "block-test-XXXXXX");
    return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

int kit_leave_directory(void **state)
{
    char command[128];

    if (chdir("..") < 0) {
        return -1;
    }
    snprintf(command, sizeof(command), "rm -rf ./%s", directory);
    return system(command);
}

/* ---- loops ----------------------------------------------------------------------------------- */

static struct aio_loop *loop;

void kit_main_loop(enum aio_loop_engine engine)
{
    struct error *err = NULL;

    loop = aio_loop_new("main", engine, &err);
    if (!loop) {
        fail_msg("%s", error_message(err));
    }
    aio_loop_bind(loop);
}

void kit_main_loop_end(void)
{
    kit_close();
    while (aio_loop_poll(loop, false)) {
    }
    aio_loop_unbind(loop);
    aio_loop_free(loop);
    loop = NULL;
}

int kit_setup(void **state)
{
    kit_main_loop(AIO_LOOP_AUTO);
    return 0;
}

int kit_teardown(void **state)
{
    kit_main_loop_end();
    return 0;
}

bool kit_has_uring(void)
{
    struct aio_loop *probe = aio_loop_new("probe", AIO_LOOP_URING, NULL);

    if (probe) {
        aio_loop_free(probe);
    }
    return probe;
}

struct kit_thread {
    struct aio_loop *loop;
    pthread_t thread;
    _Atomic(bool) stop;
};

static void *run_thread(void *opaque)
{
    struct kit_thread *thread = opaque;

    aio_loop_bind(thread->loop);
    while (!atomic_load(&thread->stop)) {
        aio_loop_poll(thread->loop, true);
    }
    while (aio_loop_poll(thread->loop, false)) {
    }
    aio_loop_unbind(thread->loop);
    return NULL;
}

struct kit_thread *kit_thread_start(enum aio_loop_engine engine)
{
    struct kit_thread *thread = xnew(struct kit_thread);

    thread->loop = aio_loop_new("second", engine, NULL);
    assert_non_null(thread->loop);
    assert_int_equal(pthread_create(&thread->thread, NULL, run_thread, thread), 0);
    return thread;
}

struct aio_loop *kit_thread_loop(struct kit_thread *thread)
{
    return thread->loop;
}

void kit_thread_stop(struct kit_thread *thread)
{
    atomic_store(&thread->stop, true);
    aio_loop_wake(thread->loop);
    pthread_join(thread->thread, NULL);
    aio_loop_free(thread->loop);
    free(thread);
}

/* ---- files ----------------------------------------------------------------------------------- */

uint8_t kit_pattern(uint64_t offset)
{
    return (uint8_t)(offset * 7 + (offset >> 9) * 13 + 1);
}

void kit_make_file(const char *name, size_t size)
{
    FILE *f = fopen(name, "wb");

    assert_non_null(f);
    for (size_t i = 0; i < size; i++) {
        putc(kit_pattern(i), f);
    }
    assert_int_equal(fclose(f), 0);
}

void kit_read_file(const char *name, uint64_t offset, void *to, size_t size)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, to, size, (off_t)offset), size);
    close(fd);
}

uint64_t kit_file_size(const char *name)
{
    struct stat st;

    assert_int_equal(stat(name, &st), 0);
    return st.st_size;
}

bool kit_has_direct(void)
{
    kit_make_file("direct-probe", 4096);
    int fd = open("direct-probe", O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

static int real_stderr = -1;

void kit_capture_stderr(void)
{
    int fd = open("stderr", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    real_stderr = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

char *kit_captured(void)
{
    uint64_t size = kit_file_size("stderr");
    char *text = xcalloc(1, size + 1);

    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    kit_read_file("stderr", 0, text, size);
    return text;
}

/* ---- drives ---------------------------------------------------------------------------------- */

static struct options *parse(const char *text, const char *implied)
{
    struct error *err = NULL;
    struct options *opts = options_parse(text, implied, &err);

    if (!opts) {
        fail_msg("%s: %s", text, error_message(err));
    }
    return opts;
}

struct block_backend *kit_drive(const char *fmt, ...)
{
    struct error *err = NULL;
    struct drive_spec spec;
    va_list ap;

    va_start(ap, fmt);
    char *text = xvasprintf(fmt, ap);
    va_end(ap);
    struct options *opts = parse(text, NULL);
    if (!drive_new(opts, "ide", &spec, &err)) {
        fail_msg("-drive %s: %s", text, error_message(err));
    }
    options_free(opts);
    free(text);
    free(spec.serial);
    return spec.backend;
}

void kit_blockdev(const char *fmt, ...)
{
    struct error *err = NULL;
    va_list ap;

    va_start(ap, fmt);
    char *text = xvasprintf(fmt, ap);
    va_end(ap);
    struct options *opts = parse(text, "driver");
    if (!blockdev_add(opts, &err)) {
        fail_msg("-blockdev %s: %s", text, error_message(err));
    }
    options_free(opts);
    free(text);
}

void kit_close(void)
{
    backends_close();
    assert_null(block_node_first());
    assert_null(backend_first());
}

void kit_assert_error(struct error *err, const char *message)
{
    assert_non_null(err);
    char *text =
        xasprintf("%s%s%s", error_message(err), *error_hint(err) ? " | " : "", error_hint(err));
    assert_string_equal(text, message);
    free(text);
    error_free(err);
}

void kit_drive_fails(const char *text, const char *message)
{
    struct options *opts = parse(text, NULL);
    struct error *err = NULL;
    struct drive_spec spec;

    if (drive_new(opts, "ide", &spec, &err)) {
        fail_msg("-drive %s: should have been refused", text);
    }
    options_free(opts);
    kit_assert_error(err, message);
}

void kit_blockdev_fails(const char *text, const char *message)
{
    struct options *opts = parse(text, "driver");
    struct error *err = NULL;

    if (blockdev_add(opts, &err)) {
        fail_msg("-blockdev %s: should have been refused", text);
    }
    options_free(opts);
    kit_assert_error(err, message);
}

/* ---- requests -------------------------------------------------------------------------------- */

enum op { READ, WRITE, FLUSH, ZERO, DISCARD };

struct request {
    struct block_backend *be;
    enum op op;
    uint64_t offset, size;
    void *buffer;
    unsigned flags;
};

static int co_request(void *opaque)
{
    struct request *r = opaque;
    struct iovec vec = {.iov_base = r->buffer, .iov_len = r->size};
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = r->size};

    switch (r->op) {
    case READ:
        return backend_co_preadv(r->be, r->offset, &iov, r->flags, 0);
    case WRITE:
        return backend_co_pwritev(r->be, r->offset, &iov, r->flags, 0);
    case FLUSH:
        return backend_co_flush(r->be, 0);
    case ZERO:
        return backend_co_write_zeroes(r->be, r->offset, r->size, r->flags);
    case DISCARD:
        return backend_co_discard(r->be, r->offset, r->size);
    }
    return -EINVAL;
}

int kit_read(struct block_backend *be, uint64_t offset, void *to, size_t size)
{
    struct request r = {be, READ, offset, size, to, 0};
    return block_run(co_request, &r);
}

int kit_write_flags(struct block_backend *be, uint64_t offset, const void *from, size_t size,
                    unsigned flags)
{
    struct request r = {be, WRITE, offset, size, (void *)(uintptr_t)from, flags};
    return block_run(co_request, &r);
}

int kit_write(struct block_backend *be, uint64_t offset, const void *from, size_t size)
{
    return kit_write_flags(be, offset, from, size, 0);
}

int kit_flush(struct block_backend *be)
{
    struct request r = {.be = be, .op = FLUSH};
    return block_run(co_request, &r);
}

int kit_zero(struct block_backend *be, uint64_t offset, uint64_t length, unsigned flags)
{
    struct request r = {be, ZERO, offset, length, NULL, flags};
    return block_run(co_request, &r);
}

int kit_discard(struct block_backend *be, uint64_t offset, uint64_t length)
{
    struct request r = {be, DISCARD, offset, length, NULL, 0};
    return block_run(co_request, &r);
}

uint64_t kit_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}
