/* SPDX-License-Identifier: MIT */
/*
 * blkdebug: rules by event, kind, sector and state; limits; breakpoints; the write log; growth. What
 * rules do was compared with Debian's qemu-io.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/blkdebug_log.h"
#include "block/bounce.h"
#include "block/debug.h"
#include "block/iov.h"
#include "fault.h"
#include "kit.h"

static char buffer[64 * 1024];

static int setup(void **state)
{
    kit_setup(state);
    fault_reset();
    kit_make_file("image", MiB);
    return 0;
}

static struct block_backend *open_with(const char *rules)
{
    return kit_drive("if=none,id=d,driver=raw,discard=unmap,file.driver=blkdebug,"
                     "file.image.driver=file,file.image.filename=image%s%s",
                     *rules ? "," : "", rules);
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* ---- rules ------------------------------------------------------------------------------------ */

/* Once an event has made a rule active, it stays so for requests of all kinds. */
static void rule_stays_active(void **state)
{
    struct block_backend *be = open_with("file.inject-error.0.event=read_aio");

    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
    assert_int_equal(kit_read(be, 0, buffer, 512), -EIO);
    assert_int_equal(kit_write(be, 0, buffer, 512), -EIO);
    assert_int_equal(kit_flush(be), -EIO);
    assert_int_equal(kit_zero(be, 0, 512, 0), -EIO);
    assert_int_equal(kit_discard(be, 0, 4096), -EIO);
}

static void once(void **state)
{
    struct block_backend *be =
        open_with("file.inject-error.0.event=read_aio,file.inject-error.0.once=on,"
                  "file.inject-error.0.errno=28,file.inject-error.0.immediately=on");

    assert_int_equal(kit_read(be, 0, buffer, 512), -ENOSPC);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
}

static void by_kind_and_sector(void **state)
{
    struct block_backend *be =
        open_with("file.inject-error.0.event=none,file.inject-error.0.iotype=write,"
                  "file.inject-error.0.sector=2");

    assert_int_equal(kit_read(be, 1024, buffer, 512), 0);
    assert_int_equal(kit_write(be, 0, buffer, 1024), 0);
    assert_int_equal(kit_write(be, 1536, buffer, 512), 0);
    assert_int_equal(kit_write(be, 512, buffer, 1024), -EIO);
    kit_close();

    be = open_with("file.inject-error.0.event=none,file.inject-error.0.iotype=flush");
    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
    assert_int_equal(kit_flush(be), -EIO);
    kit_close();

    be = open_with("file.inject-error.0.event=none,file.inject-error.0.iotype=discard,"
                   "file.inject-error.1.event=none,file.inject-error.1.iotype=write-zeroes,"
                   "file.inject-error.1.errno=1");
    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
    assert_int_equal(kit_discard(be, 0, 4096), -EIO);
    assert_int_equal(kit_zero(be, 0, 4096, 0), -EPERM);
}

/* An event with rules of its own takes the place of what was active. */
static void rules_replace_each_other(void **state)
{
    struct block_backend *be =
        open_with("file.inject-error.0.event=read_aio,file.inject-error.1.event=write_aio,"
                  "file.inject-error.1.iotype=flush,file.inject-error.1.errno=5");

    assert_int_equal(kit_read(be, 0, buffer, 512), -EIO);
    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
    assert_int_equal(kit_flush(be), -EIO);
}

/* A transition counts from the next event on. */
static void states(void **state)
{
    struct block_backend *be = open_with(
        "file.set-state.0.event=read_aio,file.set-state.0.state=1,file.set-state.0.new_state=2,"
        "file.set-state.1.event=read_aio,file.set-state.1.state=2,file.set-state.1.new_state=3,"
        "file.inject-error.0.event=read_aio,file.inject-error.0.state=2,"
        "file.inject-error.0.once=on");

    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    assert_int_equal(kit_read(be, 0, buffer, 512), -EIO);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
}

static void flush_events(void **state)
{
    struct block_backend *be = open_with("file.inject-error.0.event=flush_to_disk,"
                                         "file.inject-error.0.once=on");

    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
    assert_int_equal(kit_flush(be), -EIO);
    assert_int_equal(kit_flush(be), 0);
}

static void delay(void **state)
{
    struct block_backend *be =
        open_with("file.inject-error.0.event=none,file.inject-error.0.errno=0,"
                  "file.inject-error.0.delay=30000000,file.inject-error.1.event=none,"
                  "file.inject-error.1.iotype=read,file.inject-error.1.delay=20000000");

    int64_t start = clock_get_ns(AIO_CLOCK_RT);
    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
    int64_t middle = clock_get_ns(AIO_CLOCK_RT);
    assert_int_equal(kit_read(be, 0, buffer, 512), -EIO);
    assert_true(middle - start >= 30000000);
    assert_true(clock_get_ns(AIO_CLOCK_RT) - middle >= 50000000);
}

static void config_file(void **state)
{
    write_text("rules", "# comment\n\n[inject-error]\nevent = \"read_aio\"\nerrno = \"28\"\n"
                        "once = \"on\"\n  [set-state \"name\"]\nevent=\"write_aio\"\n"
                        "new_state = \"2\"\n");
    struct block_backend *be = kit_drive("if=none,format=raw,file=blkdebug:rules:image");
    assert_int_equal(kit_read(be, 0, buffer, 512), -ENOSPC);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    kit_close();
    be = kit_drive("if=none,format=raw,file=blkdebug::image");
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
}

static void refusals(void **state)
{
#define D                                                                                          \
    "if=none,driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=image,"
    kit_drive_fails("if=none,driver=raw,file.driver=blkdebug",
                    "A block device must be specified for \"image\": image=NODE-NAME, or "
                    "image.driver=… and its options");
    kit_drive_fails(D "file.inject-error.0.errno=5",
                    "Missing event name for rule; give file.inject-error.0.event=");
    kit_drive_fails(D "file.inject-error.0.event=none,file.inject-error.0.foo=1",
                    "block driver 'blkdebug': unknown option 'inject-error.0.foo'");
    kit_drive_fails(D "file.inject-error.1.event=none",
                    "'inject-error.1.event' does not belong to a list; the first is "
                    "'inject-error.0.event', and no number is left out");
    kit_drive_fails(D "file.inject-error.0.event=none,file.inject-error.0.errno=5000",
                    "option 'file.inject-error.0.errno': '5000' is not a number from 0 to 4095");
    kit_drive_fails(D "file.align=3",
                    "Cannot meet constraints with align 3: it must be a power of 2 from 1 to "
                    "1073741824");
    kit_drive_fails(D "file.align=4k,file.max-transfer=512",
                    "Cannot meet constraints with max-transfer 512: it must be a multiple of 4096 "
                    "and at most 2147479552");
    kit_drive_fails(D "file.opt-write-zero=64k,file.max-write-zero=32k",
                    "Cannot meet constraints with max-write-zero 32768: it must be a multiple of "
                    "65536 and at most 9223372035781033984");
    kit_drive_fails(D "file.take-child-perms.0=write",
                    "blkdebug: take-child-perms is not supported: a node here claims to read or to "
                    "write, and has no other permissions; leave it out");
    kit_drive_fails(D "file.config=nowhere", "Could not read blkdebug config file 'nowhere': No "
                                             "such file or directory");
    kit_drive_fails(D "file.write-log=/nowhere/log", "Could not create write-log='/nowhere/log': "
                                                     "No such file or directory");
    kit_drive_fails("if=none,format=raw,file=blkdebug:image",
                    "blkdebug requires both config file and image path: blkdebug:CONFIG:IMAGE, not "
                    "'blkdebug:image'");
    write_text("rules", "[inject-eror]\n");
    kit_drive_fails(D "file.config=rules", "rules:1: There is no option group 'inject-eror'; use "
                                           "[inject-error] or [set-state]");
    write_text("rules", "\nevent = \"read_aio\"\n");
    kit_drive_fails(D "file.config=rules", "rules:2: no group defined; begin with [inject-error] "
                                           "or [set-state]");
    write_text("rules", "[inject-error]\nevent = read_aio\n");
    kit_drive_fails(D "file.config=rules", "rules:2: parse error: a line is KEY = \"VALUE\", not "
                                           "'event = read_aio'");
    write_text("rules", "[inject-error]\nerrno = \"5\"\n");
    kit_drive_fails(D "file.config=rules",
                    "rules: Missing event name for rule; give inject-error.0.event=");
}

/* ---- limits ----------------------------------------------------------------------------------- */

/* The fault driver looks at what it gets. */
static struct block_backend *over_fault(const char *options)
{
    return kit_drive("if=none,driver=blkdebug,discard=unmap,image.driver=fault,image.size=1M,%s",
                     options);
}

static void forget_counts(void)
{
    for (int op = 0; op < FAULT_OPS; op++) {
        atomic_store(&fault.count[op], 0);
    }
}

static void limits(void **state)
{
    struct block_backend *be = over_fault("align=4k,max-transfer=8k,opt-write-zero=64k,"
                                          "max-write-zero=128k,opt-discard=16k,max-discard=32k");

    assert_int_equal(kit_write(be, 0, buffer, 20 * KiB), 0);
    assert_int_equal(fault.count[FAULT_WRITE], 3);
    assert_int_equal(kit_write(be, 4096 + 512, buffer, 512), 0);
    assert_int_equal(fault.last_offset, 4096);
    assert_int_equal(fault.last_length, 4096);

    forget_counts();
    assert_int_equal(kit_zero(be, 64 * KiB, 256 * KiB, 0), 0);
    assert_int_equal(fault.count[FAULT_ZEROES], 2);
    assert_int_equal(fault.count[FAULT_WRITE], 0);
    assert_int_equal(kit_zero(be, 60 * KiB, 72 * KiB, 0), 0); /* 4k, 64k, 4k */
    assert_int_equal(fault.count[FAULT_ZEROES], 3);
    assert_int_equal(fault.count[FAULT_WRITE], 2);

    forget_counts();
    assert_int_equal(kit_discard(be, 8 * KiB, 64 * KiB), 0); /* 16k … 64k */
    assert_int_equal(fault.count[FAULT_DISCARD], 2);
}

/* The child ends in the middle of a block of align=. */
static void odd_end(void **state)
{
    char data[4096];

    kit_make_file("odd", 4096 + 512);
    struct block_backend *be = kit_drive("if=none,driver=blkdebug,align=4k,image.driver=file,"
                                         "image.filename=odd");
    assert_int_equal(kit_read(be, 4096, data, 512), 0);
    assert_int_equal((uint8_t)data[7], kit_pattern(4096 + 7));
    memset(data, 7, sizeof(data));
    assert_int_equal(kit_write(be, 4096 + 100, data, 100), 0);
    assert_int_equal(kit_file_size("odd"), 4096 + 512);
    kit_read_file("odd", 4096, data, 512);
    assert_int_equal((uint8_t)data[99], kit_pattern(4096 + 99));
    assert_int_equal(data[100], 7);
    assert_int_equal((uint8_t)data[200], kit_pattern(4096 + 200));
}

/* ---- breakpoints ------------------------------------------------------------------------------ */

static void count_done(void *opaque, int ret)
{
    CHECK(ret == 0);
    ++*(int *)opaque;
}

static void breakpoints(void **state)
{
    struct block_backend *be = open_with("");
    struct block_node *node = backend_root(be);
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, buffer, 512);
    int done = 0;

    assert_int_equal(block_debug_break(node, "no_such", "A"), -ENOENT);
    assert_int_equal(block_debug_resume(node, "A"), -ENOENT);
    assert_int_equal(block_debug_remove_break(node, "A"), -ENOENT);

    assert_int_equal(block_debug_break(node, "write_aio", "A"), 0);
    backend_aio_pwritev(be, 0, &iov, 0, 0, count_done, &done);
    assert_int_equal(block_debug_wait_break(node, "A"), 0);
    assert_int_equal(kit_write(be, 512, buffer, 512), 0); /* it holds only one */
    assert_int_equal(done, 0);
    assert_int_equal(block_debug_resume(node, "A"), 0);
    assert_false(block_debug_is_suspended(node, "A"));
    while (!done) {
        aio_loop_poll(aio_loop_current(), true);
    }

    assert_int_equal(block_debug_break(node, "write_aio", "B"), 0);
    backend_aio_pwritev(be, 0, &iov, 0, 0, count_done, &done);
    assert_true(block_debug_is_suspended(node, "B"));
    assert_int_equal(block_debug_break(node, "read_aio", "B"), 0);
    assert_int_equal(block_debug_remove_break(node, "B"), 0);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    while (done < 2) {
        aio_loop_poll(aio_loop_current(), true);
    }
    kit_close();

    be = kit_drive("if=none,driver=null-co");
    assert_int_equal(block_debug_break(backend_root(be), "write_aio", "A"), -ENOTSUP);
}

/* ---- write log -------------------------------------------------------------------------------- */

static struct blkdebug_log *load_log(void)
{
    struct error *err = NULL;
    struct blkdebug_log *log = blkdebug_log_load("log", &err);

    if (!log) {
        fail_msg("%s", error_message(err));
    }
    return log;
}

static void log_tells_all(void **state)
{
    struct block_backend *be = open_with("file.write-log=log");

    memset(buffer, 0x5a, sizeof(buffer));
    assert_int_equal(kit_write(be, 512, buffer, 1000), 0);
    assert_int_equal(kit_zero(be, 4096, 8192, 0), 0);
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(kit_write_flags(be, 8192, buffer, 512, BLOCK_REQ_FUA), 0);
    assert_int_equal(kit_discard(be, 65536, 4096), 0);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    kit_close();

    struct blkdebug_log *log = load_log();
    assert_int_equal(log->length, MiB);
    assert_int_equal(log->places, 12);
    assert_int_equal(log->count, 6); /* closing flushes */
    const struct blkdebug_log_entry *e = log->entries;
    assert_int_equal(e[0].type, BLKDEBUG_LOG_WRITE);
    assert_int_equal(e[0].offset, 512);
    assert_int_equal(e[0].length, 1000);
    assert_int_equal(((const char *)e[0].data)[999], 0x5a);
    assert_int_equal(e[0].done, 1);
    assert_int_equal(e[0].durable, 5);
    assert_int_equal(e[1].type, BLKDEBUG_LOG_ZEROES);
    assert_int_equal(e[1].durable, 5);
    assert_int_equal(e[2].type, BLKDEBUG_LOG_FLUSH);
    assert_int_equal(e[2].begin, 4);
    assert_int_equal(e[3].flags, BLOCK_REQ_FUA);
    assert_int_equal(e[3].durable, 7);
    assert_int_equal(e[4].type, BLKDEBUG_LOG_DISCARD);
    assert_int_equal(e[4].done, 9);
    assert_int_equal(e[4].durable, 11);
    blkdebug_log_free(log);
}

static void log_of_what_fails(void **state)
{
    struct block_backend *be = over_fault("write-log=log");

    fault.error[FAULT_WRITE] = -ENOSPC;
    assert_int_equal(kit_write(be, 0, buffer, 512), -ENOSPC);
    assert_int_equal(kit_flush(be), 0);
    kit_close();
    struct blkdebug_log *log = load_log();
    assert_int_equal(log->entries[0].result, -ENOSPC);
    assert_true(log->entries[0].durable == BLKDEBUG_LOG_NEVER);
    blkdebug_log_free(log);
}

/* Copies for the log keep to the budget of bounce buffers. */
static void log_has_a_budget(void **state)
{
    enum { COUNT = 8, LENGTH = 64 * KiB };
    static char data[LENGTH];
    struct iovec vec = {.iov_base = data, .iov_len = LENGTH};
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = LENGTH};
    struct block_backend *be = over_fault("write-log=log");
    size_t rest = 3 * LENGTH;
    void *others = bounce_alloc(4096, BOUNCE_BUDGET - rest);
    int done = 0;

    CHECK(others);
    fault.delay_ns = NS_PER_MS;
    for (unsigned i = 0; i < COUNT; i++) {
        backend_aio_pwritev(be, i * LENGTH, &iov, 0, 0, count_done, &done);
    }
    assert_int_equal(bounce_in_use(), BOUNCE_BUDGET);
    while (done < COUNT) {
        aio_loop_poll(aio_loop_current(), true);
    }
    assert_int_equal(bounce_in_use(), BOUNCE_BUDGET - rest);
    bounce_free(others, BOUNCE_BUDGET - rest);
}

/* The log makes the image again. */
static void log_replays(void **state)
{
    uint64_t random = 12345;
    static char image[MiB], replayed[MiB];

    struct block_backend *be = open_with("file.write-log=log");
    for (int i = 0; i < 300; i++) {
        uint64_t offset = kit_random(&random) % (MiB - sizeof(buffer));
        uint64_t size = 1 + kit_random(&random) % (sizeof(buffer) - 1);
        memset(buffer, (int)kit_random(&random), sizeof(buffer));
        switch (kit_random(&random) % 8) {
        case 0:
            assert_int_equal(kit_zero(be, offset, size, 0), 0);
            break;
        case 1:
            assert_int_equal(kit_flush(be), 0);
            break;
        default:
            assert_int_equal(kit_write(be, offset, buffer, size), 0);
        }
    }
    kit_close();

    kit_make_file("again", MiB);
    int fd = open("again", O_RDWR | O_CLOEXEC);
    struct blkdebug_log *log = load_log();
    size_t last_durable = 0;
    for (size_t i = 0; i < log->count; i++) {
        assert_int_equal(blkdebug_log_apply(&log->entries[i], fd), 0);
        assert_true(log->entries[i].begin < log->entries[i].done);
        assert_true(log->entries[i].done <= log->entries[i].durable);
        last_durable += log->entries[i].durable != BLKDEBUG_LOG_NEVER;
    }
    assert_int_equal(last_durable, log->count); /* closing flushes */
    close(fd);
    kit_read_file("image", 0, image, MiB);
    kit_read_file("again", 0, replayed, MiB);
    assert_memory_equal(image, replayed, MiB);
    blkdebug_log_free(log);
}

static void log_cut_anywhere(void **state)
{
    struct block_backend *be = open_with("file.write-log=log");

    assert_int_equal(kit_write(be, 0, buffer, 100), 0);
    assert_int_equal(kit_flush(be), 0);
    kit_close();
    uint64_t size = kit_file_size("log");
    for (uint64_t cut = size; cut >= 32; cut--) {
        assert_int_equal(truncate("log", (off_t)cut), 0);
        struct blkdebug_log *log = load_log();
        /* 32 header, 40 + 104 write, 40 done, 40 flush, 40 done */
        size_t places = (cut >= 176) + (cut >= 216) + (cut >= 256) + (cut >= 296);
        assert_int_equal(log->places, places);
        blkdebug_log_free(log);
    }
    assert_int_equal(truncate("log", 31), 0);
    struct error *err = NULL;
    assert_null(blkdebug_log_load("log", &err));
    kit_assert_error(err, "Could not read write log 'log': Invalid argument");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rule_stays_active, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(once, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(by_kind_and_sector, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(rules_replace_each_other, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(states, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(flush_events, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(delay, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(config_file, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(refusals, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(limits, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(odd_end, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(breakpoints, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(log_tells_all, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(log_of_what_fails, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(log_has_a_budget, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(log_replays, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(log_cut_anywhere, setup, kit_teardown),
    };
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
