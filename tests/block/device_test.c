/* SPDX-License-Identifier: MIT */
/*
 * host_device, on a loop device over a file here: with blocks of 512 and of 4096 bytes, through
 * the page cache and with O_DIRECT. Needs root and loop devices; skipped without.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/range.h"
#include "kit.h"

#define SIZE (4 * MiB)

static char device[64];
static int device_fd = -1;

/* A free loop device may be taken by somebody else before we have it: a few tries. */
static bool attach_loop(unsigned block_size)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int file = open("backing", O_RDWR | O_CLOEXEC);

    assert_true(file >= 0);
    for (int i = 0; control >= 0 && device_fd < 0 && i < 5; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        struct loop_config config = {.fd = file, .block_size = block_size};
        snprintf(device, sizeof(device), "/dev/loop%d", number);
        device_fd = open(device, O_RDWR | O_CLOEXEC);
        if (device_fd >= 0 && ioctl(device_fd, LOOP_CONFIGURE, &config) < 0) {
            close(device_fd);
            device_fd = -1;
        }
    }
    close(file);
    if (control >= 0) {
        close(control);
    }
    return device_fd >= 0;
}

static void detach_loop(void)
{
    ioctl(device_fd, LOOP_CLR_FD, 0);
    close(device_fd);
    device_fd = -1;
}

static int teardown(void **state)
{
    int ret = kit_teardown(state);

    if (device_fd >= 0) {
        detach_loop();
    }
    return ret;
}

static void need_loop(unsigned block_size)
{
    kit_make_file("backing", SIZE);
    if (!attach_loop(block_size)) {
        print_message("skipped: no loop device can be had (%s)\n", strerror(errno));
        skip();
    }
}

static void use_device(const char *cache, const char *aio, unsigned block_size)
{
    static uint8_t buffer[SIZE], expected[SIZE];

    struct block_backend *be =
        kit_drive("file=%s,format=raw,if=none,discard=unmap,cache=%s,aio=%s", device, cache, aio);
    struct block_node *node = backend_root(be)->file;
    assert_string_equal(node->driver->name, "host_device");
    assert_int_equal(backend_length(be), SIZE);
    if (!strcmp(cache, "none")) {
        assert_int_equal(node->limits.request_alignment, block_size);
    }
    for (size_t i = 0; i < SIZE; i++) {
        expected[i] = kit_pattern(i);
    }
    assert_int_equal(kit_write(be, 0, expected, SIZE), 0);
    memset(expected + 1024, 0x5a, 512);
    assert_int_equal(kit_write(be, 1024, expected + 1024, 512), 0);
    memset(expected + 10000, 0xa5, 333);
    assert_int_equal(kit_write_flags(be, 10000, expected + 10000, 333, BLOCK_REQ_FUA), 0);
    memset(expected + MiB - 512, 0, 64 * KiB + 1024);
    assert_int_equal(kit_zero(be, MiB - 512, 64 * KiB + 1024, 0), 0);
    memset(expected + 2 * MiB, 0, 64 * KiB);
    assert_int_equal(kit_zero(be, 2 * MiB, 64 * KiB, BLOCK_REQ_MAY_UNMAP), 0);
    assert_int_equal(kit_read(be, 0, buffer, SIZE), 0);
    assert_memory_equal(buffer, expected, SIZE);
    /* Discarded sectors of a loop device read as zeroes; block_size decides how much goes. */
    assert_int_equal(kit_discard(be, 3 * MiB, 64 * KiB), 0);
    memset(expected + 3 * MiB, 0, 64 * KiB);
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(kit_read(be, 1, buffer, SIZE - 1), 0);
    assert_memory_equal(buffer, expected + 1, SIZE - 1);
    assert_int_equal(kit_write(be, SIZE, buffer, 512), -EIO);
    kit_close();
    kit_read_file("backing", 0, buffer, SIZE);
    assert_memory_equal(buffer, expected, SIZE);
}

static void use_all_ways(unsigned block_size)
{
    need_loop(block_size);
    use_device("writeback", "threads", block_size);
    use_device("none", "threads", block_size);
    if (kit_has_uring()) {
        use_device("writeback", "io_uring", block_size);
        use_device("none", "io_uring", block_size);
    }
}

static void blocks_of_512(void **state)
{
    use_all_ways(512);
}

static void blocks_of_4096(void **state)
{
    use_all_ways(4096);
}

static void refusals(void **state)
{
    char text[128], message[256];

    need_loop(512);
    snprintf(text, sizeof(text), "driver=file,filename=%s", device);
    snprintf(message, sizeof(message),
             "'file' driver requires '%s' to be a regular file; use driver 'host_device' for a "
             "block device",
             device);
    kit_drive_fails(text, message);

    struct block_backend *be = kit_drive("file=%s,format=raw,if=none,id=d0", device);
    assert_ptr_equal(backend_attach("d0", "disk", true, false, NULL), be);
    kit_drive("file=%s,format=raw,if=none,id=d1", device);
    snprintf(
        message, sizeof(message),
        "Failed to get \"write\" lock: another process is using '%s' | Or another drive of this "
        "VM is. Devices that all have share-rw=on may use it together.",
        device);
    struct error *err = NULL;
    assert_null(backend_attach("d1", "other", true, false, &err));
    kit_assert_error(err, message);
    backend_detach(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(blocks_of_512, kit_setup, teardown),
        cmocka_unit_test_setup_teardown(blocks_of_4096, kit_setup, teardown),
        cmocka_unit_test_setup_teardown(refusals, kit_setup, teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
