/* SPDX-License-Identifier: MIT */
/* detect-zeroes=: the check for zeroes, and what writes become. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/range.h"
#include "block/node.h"
#include "block/zeroes.h"
#include "fault.h"
#include "kit.h"

static char buffer[64 * 1024];

static int setup(void **state)
{
    kit_setup(state);
    fault_reset();
    memset(buffer, 0, sizeof(buffer));
    return 0;
}

/* Every length, alignment and place of a byte that is not zero. */
static void bytes(void **state)
{
    static unsigned char data[1400];

    for (size_t start = 0; start < 16; start++) {
        for (size_t size = 0; size < 700; size += size < 300 ? 1 : 37) {
            memset(data, 1, sizeof(data));
            memset(data + start, 0, size);
            assert_true(block_bytes_are_zero(data + start, size));
            for (size_t i = 0; i < size; i += start ? 11 : 1) {
                data[start + i] = 0x80;
                assert_false(block_bytes_are_zero(data + start, size));
                data[start + i] = 0;
            }
        }
    }
}

static int co_is_zero(void *opaque)
{
    return co_block_iov_is_zero(opaque);
}

static bool iov_is_zero(struct block_iov *iov)
{
    return block_run(co_is_zero, iov);
}

static void lists(void **state)
{
    struct iovec vec[3] = {{buffer, 1000}, {NULL, 0}, {buffer + 2000, 7}};
    struct block_iov iov = {.iov = vec, .niov = 3, .size = 1007};

    assert_true(iov_is_zero(&iov));
    buffer[2006] = 1;
    assert_false(iov_is_zero(&iov));
    buffer[2006] = 0;
    buffer[2007] = 1;
    assert_true(iov_is_zero(&iov));
}

/* In several pieces, the first of which is short. */
static void long_lists(void **state)
{
    const size_t size = 3 * MiB + 12345;
    char *bytes = calloc(1, size);
    struct iovec vec[3] = {{bytes, 10}, {bytes + 10, size - 30}, {bytes + size - 20, 20}};
    struct block_iov iov = {.iov = vec, .niov = 3, .size = size};
    const size_t places[] = {0,         9,       10,          65535,           65536,
                             65546,     65547,   MiB + 65545, 2 * MiB + 70000, size - 21,
                             size - 20, size - 1};

    assert_true(iov_is_zero(&iov));
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        bytes[places[i]] = 1;
        assert_false(iov_is_zero(&iov));
        bytes[places[i]] = 0;
    }
    free(bytes);
}

static struct block_backend *open_with(const char *options)
{
    return kit_drive("driver=fault,size=4M,align=512,if=none,%s", options);
}

static void writes_become_zeroes(void **state)
{
    struct block_backend *be = open_with("detect-zeroes=on");

    memset(buffer, 1, 4096);
    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(fault.count[FAULT_WRITE], 1);
    memset(buffer, 0, 4096);
    assert_int_equal(kit_write_flags(be, 512, buffer, 1024, BLOCK_REQ_FUA), 0);
    assert_int_equal(fault.count[FAULT_ZEROES], 1);
    assert_int_equal(fault.count[FAULT_WRITE], 1);
    assert_int_equal(fault.count[FAULT_FLUSH], 1);
    assert_false(fault.last_flags & BLOCK_REQ_MAY_UNMAP);
    assert_int_equal(fault.data[511], 1);
    assert_int_equal(fault.data[512], 0);
    assert_int_equal(fault.data[1535], 0);
    assert_int_equal(fault.data[1536], 1);

    /* A part of a block, and a driver that cannot: as they are. */
    assert_int_equal(kit_write(be, 2049, buffer, 10), 0);
    assert_int_equal(fault.data[2048], 1);
    assert_int_equal(fault.data[2058], 0);
    assert_int_equal(fault.count[FAULT_WRITE], 2);
    fault.can_zero = false;
    assert_int_equal(kit_write(be, 4096, buffer, 4096), 0);
    assert_int_equal(fault.count[FAULT_WRITE], 3);
    assert_int_equal(kit_zero(be, 8192, 4096, 0), 0);
    assert_int_equal(fault.count[FAULT_WRITE], 4);
    fault.can_zero = true;
    fault.error[FAULT_ZEROES] = -ENOSPC;
    assert_int_equal(kit_write(be, 4096, buffer, 4096), -ENOSPC);
}

static void unmap(void **state)
{
    struct block_backend *be = open_with("detect-zeroes=unmap,discard=unmap");

    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(fault.count[FAULT_ZEROES], 1);
    assert_true(fault.last_flags & BLOCK_REQ_MAY_UNMAP);
}

static void off(void **state)
{
    struct block_backend *be = open_with("discard=unmap");

    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(fault.count[FAULT_ZEROES], 0);
    kit_close();
    /* Not for children, and once is enough. */
    be = kit_drive("if=none,driver=raw,detect-zeroes=on,iops=1000000,file.driver=fault,"
                   "file.size=1M");
    assert_false(backend_root(be)->flags & BLOCK_OPEN_DETECT_ZEROES);
    assert_true(backend_root(be)->file->flags & BLOCK_OPEN_DETECT_ZEROES);
    assert_false(backend_root(be)->file->file->flags & BLOCK_OPEN_DETECT_ZEROES);
    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(fault.count[FAULT_ZEROES], 1);
}

/* It can be switched on and off for a node that is open, and for no other. */
static void reopened(void **state)
{
    struct block_backend *be =
        kit_drive("if=none,driver=raw,discard=unmap,file.driver=fault,file.size=1M");
    struct block_node *root = backend_root(be);
    unsigned off = root->flags, below = root->file->flags;
    unsigned unmap = BLOCK_OPEN_DETECT_ZEROES | BLOCK_OPEN_DETECT_UNMAP;
    const struct {
        unsigned flags, zeroes;
    } steps[] = {{off | BLOCK_OPEN_DETECT_ZEROES, 1}, {off | unmap, 2}, {off, 2}};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        assert_true(block_node_reopen(root, steps[i].flags, NULL));
        assert_int_equal(root->flags, steps[i].flags);
        assert_int_equal(root->file->flags, below);
        assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
        assert_int_equal(fault.count[FAULT_ZEROES], steps[i].zeroes);
        assert_int_equal(!!(fault.last_flags & BLOCK_REQ_MAY_UNMAP), i == 1);
    }
    assert_int_equal(fault.count[FAULT_WRITE], 1);
}

/* A file gets its blocks back. */
static void file_shrinks(void **state)
{
    struct stat before, after;
    char back[4096];

    kit_make_file("image", MiB);
    struct block_backend *be =
        kit_drive("if=none,file=image,format=raw,detect-zeroes=unmap,discard=unmap");
    assert_int_equal(stat("image", &before), 0);
    for (size_t at = 0; at < MiB; at += sizeof(buffer)) {
        assert_int_equal(kit_write(be, at, buffer, sizeof(buffer)), 0);
    }
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(stat("image", &after), 0);
    assert_int_equal(after.st_size, MiB);
    assert_true(after.st_blocks < before.st_blocks);
    assert_int_equal(kit_read(be, 5000, back, sizeof(back)), 0);
    assert_true(block_bytes_are_zero(back, sizeof(back)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(lists, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(long_lists, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(writes_become_zeroes, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(unmap, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(off, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(reopened, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(file_shrinks, setup, kit_teardown),
    };
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
