/* SPDX-License-Identifier: MIT */
/* RAM blocks: allocation and its limits, looking them up, dirty and code bitmaps. */
#include "mem_fixture.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "mem/dma.h"

/* ---- allocation ----------------------------------------------------------------------------- */

static void test_alloc(void **state)
{
    struct error *err = NULL;
    struct ram_block *block = ram_block_new("a", 5 * MiB + 1, false, &err);

    assert_non_null(block);
    assert_int_equal(block->size, 5 * MiB + 4096);
    assert_int_equal((uintptr_t)block->host % (2 * MiB), 0);
    assert_int_equal(block->fd, -1);
    assert_int_equal(block->host[0], 0);
    block->host[block->size - 1] = 1;
    ram_block_free(block);

    assert_null(ram_block_new("none", 0, false, &err));
    assert_string_equal(error_message(err), "guest RAM 'none' has no size");
    error_free(err);
}

/* Far more than the host has is refused with one line; sizes near 2^64 do not wrap. */
static void test_too_much(void **state)
{
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 4095, INT64_MAX, 1024 * TiB};

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (int shared = 0; shared <= 1; shared++) {
            struct error *err = NULL;
            assert_null(ram_block_new("pc.ram", sizes[i], shared, &err));
            const char *message = error_message(err);
            assert_non_null(strstr(message, "cannot allocate "));
            assert_non_null(strstr(message, " MiB of guest RAM 'pc.ram': "));
            assert_non_null(strstr(message, "; the host has "));
            assert_null(strchr(message, '\n'));
            error_free(err);
        }
    }
}

/* The limit is a multiple of memory and swap. */
static void test_limit(void **state)
{
    struct error *err = NULL;
    struct sysinfo info;

    assert_int_equal(sysinfo(&info), 0);
    uint64_t host = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
    assert_null(ram_block_new("big", host * (RAM_OVERCOMMIT + 1), false, &err));
    assert_non_null(strstr(error_message(err), "far more than this host's memory"));
    error_free(err);
}

/* What is not touched costs nothing: twice the host's memory is fine. */
static void test_lazy(void **state)
{
    uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    struct error *err = NULL;
    struct ram_block *block = ram_block_new("big", host * 2, false, &err);

    if (err) {
        /* vm.overcommit_memory=2 */
        error_free(err);
        skip();
    }
    block->host[0] = 1;
    block->host[block->size - 1] = 1;
    ram_block_free(block);
}

static void test_shared(void **state)
{
    struct ram_block *block = ram_block_new("shared", 1 * MiB, true, NULL);

    assert_non_null(block);
    assert_true(block->fd >= 0);
    uint8_t *other = mmap(NULL, block->size, PROT_READ, MAP_SHARED, block->fd, 0);
    assert_true(other != MAP_FAILED);
    block->host[12345] = 77;
    assert_int_equal(other[12345], 77);
    munmap(other, block->size);
    ram_block_free(block);
}

static void test_from_host(void **state)
{
    struct ram_block *blocks[9];
    uint64_t offset;

    for (unsigned i = 0; i < 9; i++) {
        blocks[i] = ram_block_new("b", (i + 1) * 8192, i % 2, NULL);
    }
    for (unsigned i = 0; i < 9; i++) {
        struct ram_block *b = blocks[i];
        assert_ptr_equal(ram_block_from_host(b->host, &offset), b);
        assert_int_equal(offset, 0);
        assert_ptr_equal(ram_block_from_host(b->host + b->size - 1, &offset), b);
        assert_int_equal(offset, b->size - 1);
        /* Behind a block lies a page that belongs to none. */
        assert_null(ram_block_from_host(b->host + b->size, &offset));
    }
    assert_null(ram_block_from_host(blocks, &offset));
    assert_null(ram_block_from_host(NULL, &offset));
    for (unsigned i = 0; i < 9; i++) {
        ram_block_free(blocks[(i * 4) % 9]);
    }
}

/* ---- dirty bitmaps -------------------------------------------------------------------------- */

#define PAGES 333

static void test_dirty(void **state)
{
    struct ram_block *block = ram_block_new("ram", PAGES * GUEST_PAGE_SIZE, false, NULL);
    bool model[DIRTY_COUNT][PAGES] = {0};
    bool logging[DIRTY_COUNT] = {0};
    uint64_t seed = 7;

    for (unsigned round = 0; round < 4000; round++) {
        enum dirty_client client = random_below(&seed, DIRTY_COUNT);
        unsigned first = random_below(&seed, PAGES);
        unsigned count = 1 + random_below(&seed, random_below(&seed, 8) ? 4 : PAGES - first);
        uint64_t bitmap[PAGES / 64 + 1];

        count = MIN(count, PAGES - first);
        switch (random_below(&seed, 12)) {
        case 0:
            ram_dirty_log_start(block, client);
            logging[client] = true;
            break;
        case 1:
            if (random_below(&seed, 8) == 0) {
                ram_dirty_log_stop(block, client);
                logging[client] = false;
                memset(model[client], 0, sizeof(model[client]));
            }
            break;
        case 2:
        case 3:
        case 4: {
            bool any = false;
            memset(bitmap, 0xee, sizeof(bitmap));
            bool got = ram_dirty_fetch(block, client, first * GUEST_PAGE_SIZE,
                                       count * GUEST_PAGE_SIZE, bitmap);
            for (unsigned i = 0; i < count; i++) {
                assert_int_equal(bitmap[i / 64] >> (i % 64) & 1, model[client][first + i]);
                any |= model[client][first + i];
                model[client][first + i] = false;
            }
            for (unsigned i = count; i < (count + 63) / 64 * 64; i++) {
                assert_int_equal(bitmap[i / 64] >> (i % 64) & 1, 0);
            }
            assert_int_equal(got, any);
            break;
        }
        default: {
            uint64_t from = first * GUEST_PAGE_SIZE + random_below(&seed, GUEST_PAGE_SIZE);
            uint64_t length = 1 + random_below(&seed, count * GUEST_PAGE_SIZE);
            length = MIN(length, block->size - from);
            ram_set_dirty(block, from, length);
            for (int c = 0; c < DIRTY_COUNT; c++) {
                for (uint64_t p = from / GUEST_PAGE_SIZE;
                     logging[c] && p <= (from + length - 1) / GUEST_PAGE_SIZE; p++) {
                    model[c][p] = true;
                }
            }
            break;
        }
        }
    }
    /* Out of the block: nothing happens. */
    ram_set_dirty(block, block->size, 1);
    ram_set_dirty(block, UINT64_MAX, 2);
    ram_set_dirty(block, 0, block->size + 1);
    ram_set_dirty(block, 0, 0);
    ram_block_free(block);
}

static bool page_dirty(struct ram_block *block, unsigned page)
{
    uint64_t bitmap;

    return ram_dirty_fetch(block, DIRTY_MIGRATION, page * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE,
                           &bitmap);
}

/* Every way of writing marks. */
static void test_writes_mark(void **state)
{
    struct mem_region ram;

    assert_true(mem_region_init_ram(&ram, "ram", 64 * KiB, false, NULL));
    machine_lock();
    mem_region_add(mem_root(), 0, &ram);
    machine_unlock();
    ram_dirty_log_start(ram.ram, DIRTY_MIGRATION);

    address_space_write(address_space_memory, 4095, "ab", 2);
    assert_true(page_dirty(ram.ram, 0));
    assert_true(page_dirty(ram.ram, 1));
    assert_false(page_dirty(ram.ram, 2));
    address_space_write_rom(address_space_memory, 2 * 4096, "a", 1);
    assert_true(page_dirty(ram.ram, 2));
    dma_write(address_space_memory, 3 * 4096, "a", 1);
    assert_true(page_dirty(ram.ram, 3));

    uint64_t length = 3 * 4096;
    void *host = dma_map(address_space_memory, 4 * 4096, &length, true);
    dma_unmap(host, length, true, 4097);
    assert_true(page_dirty(ram.ram, 4));
    assert_true(page_dirty(ram.ram, 5));
    assert_false(page_dirty(ram.ram, 6));
    host = dma_map(address_space_memory, 4 * 4096, &length, true);
    dma_unmap(host, length, true, 0);
    assert_false(page_dirty(ram.ram, 4));
    host = dma_map(address_space_memory, 4 * 4096, &length, false);
    dma_unmap(host, length, false, length);
    assert_false(page_dirty(ram.ram, 4));

    machine_lock();
    mem_region_remove(mem_root(), &ram);
    machine_unlock();
    mem_region_destroy(&ram);
}

/* ---- code pages ----------------------------------------------------------------------------- */

static uint64_t hook_offset, hook_length;
static unsigned hook_calls;

static void on_code_write(struct ram_block *block, uint64_t offset, uint64_t length)
{
    hook_calls++;
    hook_offset = offset;
    hook_length = length;
}

static void test_code(void **state)
{
    struct mem_region ram;

    assert_true(mem_region_init_ram(&ram, "ram", 1 * MiB, false, NULL));
    machine_lock();
    mem_region_add(mem_root(), 0, &ram);
    machine_unlock();
    ram_set_code_hook(on_code_write);
    hook_calls = 0;

    address_space_write(address_space_memory, 0x5000, "a", 1);
    assert_int_equal(hook_calls, 0);
    ram_code_set(ram.ram, 0x5123);
    address_space_write(address_space_memory, 0x4fff, "a", 1);
    address_space_write(address_space_memory, 0x6000, "a", 1);
    assert_int_equal(hook_calls, 0);
    address_space_write(address_space_memory, 0x4fff, "ab", 2);
    assert_int_equal(hook_calls, 1);
    assert_int_equal(hook_offset, 0x4fff);
    assert_int_equal(hook_length, 2);

    uint64_t length = 0x8000;
    void *host = dma_map(address_space_memory, 0, &length, true);
    dma_unmap(host, length, true, 0x5000);
    assert_int_equal(hook_calls, 1);
    host = dma_map(address_space_memory, 0, &length, true);
    dma_unmap(host, length, true, 0x5001);
    assert_int_equal(hook_calls, 2);

    ram_code_clear(ram.ram, 0x5000);
    address_space_write(address_space_memory, 0x5000, "a", 1);
    assert_int_equal(hook_calls, 2);
    ram_set_code_hook(NULL);
    machine_lock();
    mem_region_remove(mem_root(), &ram);
    machine_unlock();
    mem_region_destroy(&ram);
}

/* Copies keep every byte at every alignment. */
static void test_guest_copy(void **state)
{
    uint8_t from[64], to[64];

    for (unsigned i = 0; i < sizeof(from); i++) {
        from[i] = (uint8_t)(i + 1);
    }
    for (unsigned length = 0; length <= 24; length++) {
        for (unsigned a = 0; a < 9; a++) {
            for (unsigned b = 0; b < 9; b++) {
                memset(to, 0, sizeof(to));
                guest_copy_from(to + b, from + a, length);
                assert_memory_equal(to + b, from + a, length);
                assert_int_equal(to[b + length], 0);
                memset(to, 0, sizeof(to));
                guest_copy_to(to + b, from + a, length);
                assert_memory_equal(to + b, from + a, length);
                assert_int_equal(to[b + length], 0);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc),  cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_limit),  cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_shared), cmocka_unit_test(test_from_host),
        cmocka_unit_test(test_dirty),  cmocka_unit_test(test_writes_mark),
        cmocka_unit_test(test_code),   cmocka_unit_test(test_guest_copy),
    };

    return cmocka_run_group_tests(tests, mem_setup, mem_teardown);
}
