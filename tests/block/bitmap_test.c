/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps, against an array of bytes. */
#include "kit.h"

#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/bitmap.h"
#include "block/node.h"

#define SIZE (1 * MiB + 512)

static struct block_node *open_node(const char *extra)
{
    kit_make_file("disk.raw", SIZE);
    kit_drive("file=disk.raw,format=raw,if=none,id=d,node-name=disk%s", extra);
    return block_node_find("disk");
}

static struct block_bitmap *make(struct block_node *node, const char *name, uint32_t granularity)
{
    struct error *err = NULL;
    struct block_bitmap *bitmap = block_bitmap_new(node, name, granularity, &err);

    assert_non_null(bitmap);
    return bitmap;
}

/* The model has a byte per granule. */
static void compare(const struct block_bitmap *bitmap, const uint8_t *model)
{
    uint64_t granularity = bitmap->granularity, start, length, dirty = 0, found = 0;

    for (uint64_t at = 0; at < bitmap->length; at += granularity) {
        assert_int_equal(block_bitmap_get(bitmap, at), model[at / granularity]);
        dirty += model[at / granularity] ? MIN(granularity, bitmap->length - at) : 0;
    }
    for (uint64_t at = 0; block_bitmap_next_dirty(bitmap, at, &start, &length);
         at = start + length) {
        assert_true(length && start >= at && start + length <= bitmap->length);
        found += length;
    }
    assert_int_equal(found, dirty);
    assert_int_equal(block_bitmap_count(bitmap), dirty);
}

static void test_random(void **state)
{
    static const uint32_t granularities[] = {512, 4096, 65536};
    struct block_node *node = open_node("");
    uint64_t seed = 5;

    for (size_t g = 0; g < ARRAY_SIZE(granularities); g++) {
        uint64_t granularity = granularities[g], count = (SIZE + granularity - 1) / granularity;
        autofree uint8_t *model = xcalloc(1, count + 1);
        struct block_bitmap *bitmap = make(node, "b", (uint32_t)granularity);
        for (unsigned n = 0; n < 200; n++) {
            uint64_t offset = kit_random(&seed) % SIZE, length = kit_random(&seed) % (SIZE / 4) + 1;
            uint64_t end = MIN(offset + length, SIZE);
            bool set = kit_random(&seed) % 2;
            for (uint64_t i = offset / granularity; set && i * granularity < end; i++) {
                model[i] = 1;
            }
            for (uint64_t i = 0; !set && i < count; i++) {
                uint64_t at = i * granularity;
                if (at >= offset && MIN(at + granularity, SIZE) <= end) {
                    model[i] = 0;
                }
            }
            (set ? block_bitmap_set : block_bitmap_clear)(bitmap, offset, length);
            compare(bitmap, model);
        }
        block_bitmap_free(node, bitmap);
    }
}

/* Writes, zeroes and discards of the node, and nothing else. */
static void test_marks(void **state)
{
    struct block_node *node = open_node(",discard=unmap");
    struct block_backend *be = backend_find("d");
    struct block_bitmap *bitmap = make(node, "b", 4096), *off = make(node, "off", 0);
    uint8_t data[1024] = {0};

    off->enabled = false;
    assert_int_equal(kit_read(be, 0, data, sizeof(data)), 0);
    assert_int_equal(block_bitmap_count(bitmap), 0);
    assert_int_equal(kit_write(be, 4096 * 3 - 512, data, sizeof(data)), 0);
    assert_int_equal(kit_zero(be, 4096 * 10 + 1, 3, 0), 0);
    assert_int_equal(kit_zero(be, 4096 * 20, 8192, 0), 0);
    assert_int_equal(kit_discard(be, 4096 * 30, 4096), 0);
    for (uint64_t i = 0; i < 40; i++) {
        bool dirty = i == 2 || i == 3 || i == 10 || i == 20 || i == 21 || i == 30;
        assert_int_equal(block_bitmap_get(bitmap, i * 4096), dirty);
    }
    assert_int_equal(block_bitmap_count(off), 0);
}

static void test_merge(void **state)
{
    struct block_node *node = open_node("");
    struct block_bitmap *fine = make(node, "fine", 512), *coarse = make(node, "coarse", 65536);

    block_bitmap_set(fine, 70000, 1);
    block_bitmap_set(fine, SIZE - 1, 1);
    assert_true(block_bitmap_merge(coarse, fine, NULL));
    assert_int_equal(block_bitmap_count(coarse), 65536 + 512);
    assert_true(block_bitmap_merge(fine, coarse, NULL));
    assert_int_equal(block_bitmap_count(fine), 65536 + 512);
    coarse->inconsistent = true;
    struct error *err = NULL;
    assert_false(block_bitmap_merge(fine, coarse, &err));
    kit_assert_error(err, "Bitmap 'coarse' is inconsistent and cannot be used; remove it");
}

static void test_resize(void **state)
{
    struct block_node *node = open_node("");
    struct block_bitmap *bitmap = make(node, "b", 512);

    block_bitmap_set(bitmap, 0, SIZE);
    block_bitmaps_resize(node, 1000);
    assert_int_equal(block_bitmap_count(bitmap), 1000);
    block_bitmaps_resize(node, SIZE);
    assert_int_equal(block_bitmap_count(bitmap), 1024);
    assert_false(block_bitmap_get(bitmap, 1024));
}

static void test_refusals(void **state)
{
    struct block_node *node = open_node("");
    static const struct {
        const char *name;
        uint32_t granularity;
        const char *message;
    } cases[] = {
        {"", 512, "Bitmap name cannot be empty"},
        {"b", 512, "Bitmap already exists: b"},
        {"c", 1000, "Granularity must be power of 2, not 1000"},
        {"c", 256, "Granularity is under minimum (512 bytes)"},
    };

    make(node, "b", 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error *err = NULL;
        assert_null(block_bitmap_new(node, cases[i].name, cases[i].granularity, &err));
        kit_assert_error(err, cases[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_marks, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_merge, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_resize, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
