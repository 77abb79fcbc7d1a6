/* SPDX-License-Identifier: MIT */
/*
 * Accesses: sizes, splitting and widening against a bank of bytes; ROM, holes, ends; eventfds; the
 * machine lock; devices that try to re-enter themselves.
 */
#include "mem_fixture.h"

#include <errno.h>
#include <stdio.h>

#include "aio/notifier.h"
#include "mem/dma.h"

/* ---- a device that is a bank of bytes ------------------------------------------------------- */

#define BANK 64

struct bank {
    struct mem_region mr;
    struct mem_region_ops ops;
    uint8_t bytes[BANK];
    unsigned reads, writes;
};

static void check_call(const struct bank *b, uint64_t offset, unsigned size)
{
    const struct mem_region_ops *ops = &b->ops;
    unsigned min = ops->impl.min ? ops->impl.min : ops->valid.min ? ops->valid.min : 1;
    unsigned max = ops->impl.max ? ops->impl.max : ops->valid.max ? ops->valid.max : 8;

    assert_true(size == 1 || size == 2 || size == 4 || size == 8);
    assert_in_range(size, min, max);
    assert_true(ops->impl.unaligned || offset % size == 0);
    assert_true(offset + size <= BANK);
    assert_true(ops->lockless || machine_lock_held());
}

static uint64_t bank_read(void *opaque, uint64_t offset, unsigned size)
{
    struct bank *b = opaque;
    uint64_t v = 0;

    check_call(b, offset, size);
    b->reads++;
    for (unsigned i = 0; i < size; i++) {
        v |= (uint64_t)b->bytes[offset + i] << (8 * i);
    }
    /* Garbage above the size asked for must not get through. */
    return size < 8 ? v | UINT64_MAX << (8 * size) : v;
}

static void bank_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct bank *b = opaque;

    check_call(b, offset, size);
    b->writes++;
    assert_true(size == 8 || value >> (8 * size) == 0);
    for (unsigned i = 0; i < size; i++) {
        b->bytes[offset + i] = (uint8_t)(value >> (8 * i));
    }
}

static void bank_init(struct bank *b, struct mem_region_ops limits)
{
    memset(b, 0, sizeof(*b));
    b->ops = limits;
    b->ops.read = bank_read;
    b->ops.write = bank_write;
    for (unsigned i = 0; i < BANK; i++) {
        b->bytes[i] = (uint8_t)(i * 7 + 1);
    }
    mem_region_init_io(&b->mr, "bank", BANK, &b->ops, b);
}

static uint64_t ones(unsigned size)
{
    return size == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

static bool may(const struct mem_region_ops *ops, uint64_t offset, unsigned size)
{
    unsigned min = ops->valid.min ? ops->valid.min : 1;
    unsigned max = ops->valid.max ? ops->valid.max : 8;

    return size >= min && size <= max && (ops->valid.unaligned || offset % size == 0) &&
           offset + size <= BANK;
}

/* All sizes at all offsets, by mem_region_dispatch_*(). */
static void check_limits(struct mem_region_ops limits)
{
    static const unsigned sizes[] = {1, 2, 4, 8};
    struct bank b;

    bank_init(&b, limits);
    for (unsigned s = 0; s < 4; s++) {
        for (uint64_t offset = 0; offset <= BANK; offset++) {
            unsigned size = sizes[s];
            bool ok = may(&b.ops, offset, size);
            uint8_t before[BANK];
            uint64_t value = 0x1122334455667788;

            assert_int_equal(mem_region_dispatch_read(&b.mr, offset, &value, size),
                             ok ? MEM_OK : MEM_DEVICE_ERROR);
            uint64_t want = 0;
            for (unsigned i = 0; i < size && ok; i++) {
                want |= (uint64_t)b.bytes[offset + i] << (8 * i);
            }
            assert_int_equal(value, ok ? want : ones(size));

            memcpy(before, b.bytes, BANK);
            value = 0x0102030405060708 * (offset + 1);
            assert_int_equal(mem_region_dispatch_write(&b.mr, offset, value, size),
                             ok ? MEM_OK : MEM_DEVICE_ERROR);
            for (unsigned i = 0; i < BANK; i++) {
                bool hit = ok && i >= offset && i < offset + size;
                assert_int_equal(b.bytes[i],
                                 hit ? (uint8_t)(value >> (8 * (i - offset))) : before[i]);
            }
        }
    }
    mem_region_destroy(&b.mr);
}

static void test_sizes(void **state)
{
    static const unsigned sizes[] = {0, 1, 2, 4, 8};
    unsigned n = 0;

    for (unsigned c = 0; c < 5 * 5 * 5 * 5 * 4; c++) {
        struct mem_region_ops ops = {
            .valid = {sizes[c % 5], sizes[c / 5 % 5], c / 625 & 1},
            .impl = {sizes[c / 25 % 5], sizes[c / 125 % 5], c / 625 >> 1},
        };
        unsigned valid_max = ops.valid.max ? ops.valid.max : 8;
        unsigned valid_min = ops.valid.min ? ops.valid.min : 1;
        unsigned impl_min = ops.impl.min ? ops.impl.min : valid_min;
        unsigned impl_max = ops.impl.max ? ops.impl.max : valid_max;
        if (valid_min > valid_max || impl_min > impl_max) {
            continue;
        }
        check_limits(ops);
        n++;
    }
    assert_true(n > 300);
}

/* Wider accesses are split, and each register is touched once. */
static void test_call_counts(void **state)
{
    struct bank b;
    uint64_t value;

    bank_init(&b, (struct mem_region_ops){.impl = {1, 1, false}});
    mem_region_dispatch_read(&b.mr, 0, &value, 8);
    assert_int_equal(b.reads, 8);
    mem_region_dispatch_write(&b.mr, 8, 0, 4);
    assert_int_equal(b.writes, 4);
    assert_int_equal(b.reads, 8); /* no read before a write that is not widened */
    mem_region_destroy(&b.mr);

    bank_init(&b, (struct mem_region_ops){.impl = {4, 4, false}});
    mem_region_dispatch_write(&b.mr, 1, 0xab, 1);
    assert_int_equal(b.reads, 1);
    assert_int_equal(b.writes, 1);
    assert_int_equal(b.bytes[1], 0xab);
    mem_region_destroy(&b.mr);

    bank_init(&b, (struct mem_region_ops){.impl = {4, 4, false}});
    mem_region_dispatch_read(&b.mr, 0, &value, 8);
    assert_int_equal(b.reads, 2);
    mem_region_destroy(&b.mr);

    /* Who takes unaligned accesses gets them whole. */
    bank_init(&b, (struct mem_region_ops){.valid = {1, 8, true}, .impl = {1, 8, true}});
    mem_region_dispatch_read(&b.mr, 3, &value, 8);
    assert_int_equal(b.reads, 1);
    mem_region_destroy(&b.mr);
}

/* Sizes that no bus has are refused before any callback. */
static void test_odd_sizes(void **state)
{
    static const unsigned odd[] = {0, 3, 5, 6, 7, 9, 16, 255};
    struct bank b;

    bank_init(&b, (struct mem_region_ops){.valid = {.unaligned = true}});
    for (unsigned i = 0; i < ARRAY_SIZE(odd); i++) {
        uint64_t value = 0;
        assert_int_equal(mem_region_dispatch_read(&b.mr, 0, &value, odd[i]), MEM_DEVICE_ERROR);
        assert_int_equal(mem_region_dispatch_write(&b.mr, 0, 0, odd[i]), MEM_DEVICE_ERROR);
        assert_int_equal(value & 0xff, odd[i] ? 0xff : value & 0xff);
    }
    assert_int_equal(b.reads + b.writes, 0);
    mem_region_destroy(&b.mr);
}

/* ---- through an address space --------------------------------------------------------------- */

static void map(struct mem_region *root, uint64_t offset, struct mem_region *mr)
{
    machine_lock();
    mem_region_add(root, offset, mr);
    machine_unlock();
}

static void unmap(struct mem_region *root, struct mem_region *mr)
{
    machine_lock();
    mem_region_remove(root, mr);
    machine_unlock();
    mem_region_destroy(mr);
}

static void test_split_by_bus(void **state)
{
    struct bank b;
    uint8_t buf[32];

    /* A port device of single bytes: outl becomes four writes. */
    bank_init(&b, (struct mem_region_ops){.valid = {1, 1, false}});
    map(io_root(), 0x100, &b.mr);
    assert_int_equal(address_space_write(address_space_io, 0x104, "\x11\x22\x33\x44", 4), MEM_OK);
    assert_int_equal(b.writes, 4);
    assert_memory_equal(b.bytes + 4, "\x11\x22\x33\x44", 4);
    unmap(io_root(), &b.mr);

    /* Ports are never wider than 4, memory is. */
    bank_init(&b, (struct mem_region_ops){0});
    map(io_root(), 0x100, &b.mr);
    assert_int_equal(address_space_read(address_space_io, 0x100, buf, 8), MEM_OK);
    assert_int_equal(b.reads, 2);
    unmap(io_root(), &b.mr);
    bank_init(&b, (struct mem_region_ops){0});
    map(mem_root(), 0x100, &b.mr);
    assert_int_equal(address_space_read(address_space_memory, 0x100, buf, 8), MEM_OK);
    assert_int_equal(b.reads, 1);
    assert_memory_equal(buf, b.bytes, 8);
    /* Odd addresses and lengths come in aligned pieces: 1, 2, 4, 8, 8, 2. */
    b.reads = 0;
    assert_int_equal(address_space_read(address_space_memory, 0x101, buf, 25), MEM_OK);
    assert_int_equal(b.reads, 6);
    assert_memory_equal(buf, b.bytes + 1, 25);
    unmap(mem_root(), &b.mr);

    /* Too narrow for the device: all ones, and the rest is carried out. */
    bank_init(&b, (struct mem_region_ops){.valid = {4, 4, false}});
    map(mem_root(), 0x100, &b.mr);
    assert_int_equal(address_space_read(address_space_memory, 0x102, buf, 6), MEM_DEVICE_ERROR);
    assert_memory_equal(buf, "\xff\xff", 2);
    assert_memory_equal(buf + 2, b.bytes + 4, 4);
    unmap(mem_root(), &b.mr);
}

static void test_holes_and_ends(void **state)
{
    struct mem_region ram;
    uint8_t buf[64], pattern[64];

    assert_true(mem_region_init_ram(&ram, "ram", 4096, false, NULL));
    map(mem_root(), 0x1000, &ram);
    memset(pattern, 0x5a, sizeof(pattern));
    memset(buf, 0, sizeof(buf));
    assert_int_equal(address_space_read(address_space_memory, 0, buf, 8), MEM_DECODE_ERROR);
    assert_memory_equal(buf, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    assert_int_equal(address_space_write(address_space_memory, 0, buf, 8), MEM_DECODE_ERROR);

    /* Across the start and the end of RAM. */
    assert_int_equal(address_space_write(address_space_memory, 0xff0, pattern, 32),
                     MEM_DECODE_ERROR);
    assert_memory_equal(ram.ram->host, pattern, 16);
    assert_int_equal(ram.ram->host[16], 0);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(address_space_read(address_space_memory, 0xff8, buf, 16), MEM_DECODE_ERROR);
    assert_memory_equal(buf, "\xff\xff\xff\xff\xff\xff\xff\xff\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a",
                        16);
    assert_int_equal(address_space_write(address_space_memory, 0x1ff8, pattern, 8), MEM_OK);
    assert_int_equal(address_space_write(address_space_memory, 0x1ff9, pattern, 8),
                     MEM_DECODE_ERROR);

    /* Over the end of 2^64: nothing comes round to address 0. */
    machine_lock();
    mem_region_set_offset(&ram, 0);
    machine_unlock();
    memset(buf, 0, sizeof(buf));
    memset(ram.ram->host, 0x33, 64);
    assert_int_equal(address_space_read(address_space_memory, UINT64_MAX - 3, buf, 16),
                     MEM_DECODE_ERROR);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(buf[i], 0xff);
    }
    assert_int_equal(address_space_write(address_space_memory, UINT64_MAX - 3, pattern, 16),
                     MEM_DECODE_ERROR);
    assert_int_equal(address_space_write_rom(address_space_memory, UINT64_MAX - 3, pattern, 16),
                     MEM_DECODE_ERROR);
    assert_int_equal(ram.ram->host[0], 0x33);

    struct mem_region top;
    assert_true(mem_region_init_ram(&top, "top", 4096, false, NULL));
    map(mem_root(), UINT64_MAX - 4095, &top);
    assert_int_equal(address_space_read(address_space_memory, UINT64_MAX - 3, buf, 16),
                     MEM_DECODE_ERROR);
    assert_memory_equal(buf, "\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16);
    assert_int_equal(address_space_write(address_space_memory, UINT64_MAX - 3, pattern, 16),
                     MEM_DECODE_ERROR);
    assert_int_equal(address_space_write_rom(address_space_memory, UINT64_MAX - 3, pattern, 16),
                     MEM_DECODE_ERROR);
    assert_memory_equal(top.ram->host + 4092, pattern, 4);
    assert_int_equal(ram.ram->host[0], 0x33);
    uint64_t length = UINT64_MAX;
    void *host = dma_map(address_space_memory, UINT64_MAX - 3, &length, true);
    assert_int_equal(length, 4);
    dma_unmap(host, length, true, 4);
    unmap(mem_root(), &top);
    unmap(mem_root(), &ram);

    /* Ports end at 64 KiB. */
    assert_int_equal(address_space_read(address_space_io, 0x10000, buf, 4), MEM_DECODE_ERROR);
}

static void test_big_copies(void **state)
{
    struct mem_region ram;
    size_t size = 3 * MiB;
    uint8_t *from = xmalloc(size), *to = xmalloc(size);

    assert_true(mem_region_init_ram(&ram, "ram", 4 * MiB, false, NULL));
    map(mem_root(), 0, &ram);
    for (size_t i = 0; i < size; i++) {
        from[i] = (uint8_t)(i * 31 >> 3);
    }
    assert_int_equal(address_space_write(address_space_memory, 4099, from, size), MEM_OK);
    assert_int_equal(address_space_rw(address_space_memory, 4099, to, size, false), MEM_OK);
    assert_memory_equal(from, to, size);
    unmap(mem_root(), &ram);
    free(from);
    free(to);
}

static void test_rom(void **state)
{
    struct mem_region rom;
    struct bank b;
    uint8_t buf[4];
    struct mem_region device;

    assert_true(mem_region_init_rom(&rom, "rom", 4096, NULL));
    map(mem_root(), 0, &rom);
    assert_int_equal(address_space_write_rom(address_space_memory, 0, "boot", 4), MEM_OK);
    assert_int_equal(address_space_write(address_space_memory, 0, "evil", 4), MEM_OK);
    assert_int_equal(address_space_read(address_space_memory, 0, buf, 4), MEM_OK);
    assert_memory_equal(buf, "boot", 4);
    uint64_t length = 4;
    assert_null(dma_map(address_space_memory, 0, &length, true));
    void *host = dma_map(address_space_memory, 0, &length, false);
    assert_non_null(host);
    dma_unmap(host, length, false, 0);
    /* As PAM does: writable, and back. */
    machine_lock();
    mem_region_set_readonly(&rom, false);
    machine_unlock();
    assert_int_equal(address_space_write(address_space_memory, 0, "open", 4), MEM_OK);
    assert_memory_equal(rom.ram->host, "open", 4);
    unmap(mem_root(), &rom);

    /* Flash: reads as memory, writes are commands; then all are. */
    bank_init(&b, (struct mem_region_ops){0});
    assert_true(mem_region_init_rom_device(&device, "flash", BANK, &b.ops, &b, NULL));
    map(mem_root(), 0, &device);
    assert_int_equal(address_space_write_rom(address_space_memory, 0, "data", 4), MEM_OK);
    assert_int_equal(address_space_write(address_space_memory, 0, "\x70\0\0\0", 4), MEM_OK);
    assert_int_equal(b.writes, 1);
    assert_int_equal(b.bytes[0], 0x70);
    assert_int_equal(address_space_read(address_space_memory, 0, buf, 4), MEM_OK);
    assert_memory_equal(buf, "data", 4);
    assert_int_equal(b.reads, 0);
    machine_lock();
    mem_region_rom_device_set_mode(&device, false);
    machine_unlock();
    assert_int_equal(address_space_read(address_space_memory, 0, buf, 4), MEM_OK);
    assert_memory_equal(buf, "\x70\0\0\0", 4);
    unmap(mem_root(), &device);
    mem_region_destroy(&b.mr);
}

static void test_missing_callbacks(void **state)
{
    static const struct mem_region_ops none;
    struct mem_region mr;
    uint64_t value = 0;

    mem_region_init_io(&mr, "none", 8, &none, NULL);
    assert_int_equal(mem_region_dispatch_read(&mr, 0, &value, 4), MEM_DEVICE_ERROR);
    assert_int_equal(value, 0xffffffff);
    assert_int_equal(mem_region_dispatch_write(&mr, 0, 0, 4), MEM_DEVICE_ERROR);
    mem_region_destroy(&mr);
}

/* ---- eventfds ------------------------------------------------------------------------------- */

static void test_eventfds(void **state)
{
    struct event_notifier any, two, seven;
    struct bank b;

    assert_true(event_notifier_init(&any, NULL));
    assert_true(event_notifier_init(&two, NULL));
    assert_true(event_notifier_init(&seven, NULL));
    const struct mem_eventfd at_any = {.offset = 0, .size = 0, .notifier = &any};
    const struct mem_eventfd at_two = {.offset = 16, .size = 2, .notifier = &two};
    const struct mem_eventfd at_seven = {
        .offset = 32, .size = 2, .datamatch = true, .data = 7, .notifier = &seven};

    bank_init(&b, (struct mem_region_ops){0});
    machine_lock();
    mem_region_add(mem_root(), 0x100, &b.mr);
    mem_region_add_eventfd(&b.mr, &at_any);
    mem_region_add_eventfd(&b.mr, &at_two);
    mem_region_add_eventfd(&b.mr, &at_seven);
    machine_unlock();

    address_space_write(address_space_memory, 0x100, "\0\0\0\0", 4);
    assert_true(event_notifier_test_and_clear(&any));
    address_space_write(address_space_memory, 0x100, "\0\0", 2);
    assert_true(event_notifier_test_and_clear(&any));
    assert_int_equal(b.writes, 0);

    address_space_write(address_space_memory, 0x110, "\0\0\0\0", 4);
    assert_false(event_notifier_test_and_clear(&two));
    assert_int_equal(b.writes, 1);
    address_space_write(address_space_memory, 0x110, "\0\0", 2);
    assert_true(event_notifier_test_and_clear(&two));
    assert_int_equal(b.writes, 1);

    address_space_write(address_space_memory, 0x120, "\x06\0", 2);
    assert_false(event_notifier_test_and_clear(&seven));
    assert_int_equal(b.writes, 2);
    address_space_write(address_space_memory, 0x120, "\x07\0", 2);
    assert_true(event_notifier_test_and_clear(&seven));
    assert_int_equal(mem_region_dispatch_write(&b.mr, 32, 7, 2), MEM_OK);
    assert_true(event_notifier_test_and_clear(&seven));
    assert_int_equal(b.writes, 2);

    machine_lock();
    mem_region_del_eventfd(&b.mr, &at_seven);
    machine_unlock();
    address_space_write(address_space_memory, 0x120, "\x07\0", 2);
    assert_false(event_notifier_test_and_clear(&seven));
    assert_int_equal(b.writes, 3);

    unmap(mem_root(), &b.mr);
    event_notifier_cleanup(&any);
    event_notifier_cleanup(&two);
    event_notifier_cleanup(&seven);
}

/* ---- locks and re-entry --------------------------------------------------------------------- */

static void test_lock(void **state)
{
    struct bank b;
    uint8_t buf[8];

    /* bank_read() asserts that the lock is held. */
    bank_init(&b, (struct mem_region_ops){0});
    map(mem_root(), 0, &b.mr);
    address_space_read(address_space_memory, 0, buf, 8);
    assert_false(machine_lock_held());
    machine_lock();
    address_space_read(address_space_memory, 0, buf, 8);
    assert_true(machine_lock_held());
    machine_unlock();
    assert_int_equal(b.reads, 2);

    /* DMA to a device works only where the lock is held already: iothreads never take it. */
    assert_int_equal(dma_read(address_space_memory, 0, buf, 8), MEM_DECODE_ERROR);
    assert_memory_equal(buf, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    assert_int_equal(dma_write(address_space_memory, 0, buf, 8), MEM_DECODE_ERROR);
    machine_lock();
    assert_int_equal(dma_read(address_space_memory, 0, buf, 8), MEM_OK);
    machine_unlock();
    assert_int_equal(b.reads, 3);
    assert_int_equal(b.writes, 0);
    unmap(mem_root(), &b.mr);

    bank_init(&b, (struct mem_region_ops){.lockless = true});
    map(mem_root(), 0, &b.mr);
    assert_int_equal(dma_read(address_space_memory, 0, buf, 8), MEM_OK);
    assert_int_equal(b.reads, 1);
    unmap(mem_root(), &b.mr);
}

/* A device whose write makes it do DMA to an address of the guest's choice. */
struct looper {
    struct mem_region registers, doorbell;
    unsigned depth, writes;
    enum mem_result result;
};

static void looper_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct looper *l = opaque;

    l->writes++;
    assert_true(++l->depth < 4);
    l->result = dma_write(address_space_memory, value, "\0\0\0\0", 4);
    l->depth--;
}

static void test_no_reentry(void **state)
{
    static const struct mem_region_ops ops = {.write = looper_write};
    static const struct mem_region_ops lockless_ops = {.write = looper_write, .lockless = true};
    struct looper l = {.depth = 0};
    struct bank other;

    for (int lockless = 0; lockless <= 1; lockless++) {
        mem_region_init_io(&l.registers, "registers", 16, lockless ? &lockless_ops : &ops, &l);
        mem_region_init_io(&l.doorbell, "doorbell", 16, lockless ? &lockless_ops : &ops, &l);
        bank_init(&other, (struct mem_region_ops){.lockless = lockless});
        map(mem_root(), 0x1000, &l.registers);
        map(mem_root(), 0x2000, &l.doorbell);
        map(mem_root(), 0x3000, &other.mr);

        l.writes = 0;
        address_space_write(address_space_memory, 0x1000, "\0\x10\0\0", 4);
        assert_int_equal(l.result, MEM_DEVICE_ERROR);
        address_space_write(address_space_memory, 0x1000, "\0\x20\0\0", 4);
        assert_int_equal(l.result, MEM_DEVICE_ERROR);
        assert_int_equal(l.writes, 2);
        /* Another device may be reached, and the same one again later. */
        address_space_write(address_space_memory, 0x1000, "\0\x30\0\0", 4);
        assert_int_equal(l.result, MEM_OK);
        assert_int_equal(other.writes, 1);
        assert_int_equal(l.writes, 3);

        unmap(mem_root(), &l.registers);
        unmap(mem_root(), &l.doorbell);
        unmap(mem_root(), &other.mr);
    }
}

/* A callback may change the map: its own region may go while it runs. */
struct mover {
    struct mem_region mr;
    unsigned writes;
};

static void mover_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct mover *m = opaque;

    m->writes++;
    mem_region_set_enabled(&m->mr, false);
}

static void test_callback_changes_map(void **state)
{
    static const struct mem_region_ops ops = {.write = mover_write, .valid = {1, 4, false}};
    struct mover m = {.writes = 0};

    mem_region_init_io(&m.mr, "mover", 16, &ops, &m);
    map(mem_root(), 0, &m.mr);
    /* The second half of the write finds nobody. */
    assert_int_equal(address_space_write(address_space_memory, 0, "\0\0\0\0\0\0\0\0", 8),
                     MEM_DECODE_ERROR);
    assert_int_equal(m.writes, 1);
    unmap(mem_root(), &m.mr);
}

/* ---- DMA ------------------------------------------------------------------------------------ */

static void test_dma_map(void **state)
{
    struct mem_region ram, upper;
    uint64_t length;
    struct bank b;

    assert_true(mem_region_init_ram(&ram, "ram", 64 * KiB, false, NULL));
    mem_region_init_alias(&upper, "upper", &ram, 32 * KiB, 16 * KiB);
    bank_init(&b, (struct mem_region_ops){0});
    machine_lock();
    mem_region_add(mem_root(), 0, &ram);
    mem_region_add(mem_root(), 1 * MiB, &b.mr);
    machine_unlock();

    length = 1 * MiB;
    uint8_t *host = dma_map(address_space_memory, 100, &length, true);
    assert_ptr_equal(host, ram.ram->host + 100);
    assert_int_equal(length, 64 * KiB - 100);
    dma_unmap(host, length, true, length);

    length = 4;
    host = dma_map(address_space_memory, 64 * KiB - 1, &length, false);
    assert_int_equal(length, 1);
    dma_unmap(host, length, false, 0);

    length = 4;
    assert_null(dma_map(address_space_memory, 64 * KiB, &length, false));
    assert_null(dma_map(address_space_memory, 1 * MiB, &length, false));
    length = 0;
    assert_null(dma_map(address_space_memory, 0, &length, false));
    length = UINT64_MAX;
    assert_null(dma_map(address_space_memory, UINT64_MAX, &length, false));

    /* A read-only window cuts the view in three, but not the host's memory; for writing, it
     * does. */
    machine_lock();
    mem_region_set_readonly(&upper, true);
    mem_region_add_overlap(mem_root(), 32 * KiB, &upper, 1);
    machine_unlock();
    length = 64 * KiB;
    host = dma_map(address_space_memory, 0, &length, false);
    assert_int_equal(length, 64 * KiB);
    dma_unmap(host, length, false, 0);
    length = 64 * KiB;
    host = dma_map(address_space_memory, 0, &length, true);
    assert_int_equal(length, 32 * KiB);
    dma_unmap(host, length, true, 0);
    length = 64 * KiB;
    assert_null(dma_map(address_space_memory, 40 * KiB, &length, true));

    /* Two windows on what follows each other in the host, with a hole between them. */
    struct mem_region windows[2];
    for (unsigned i = 0; i < 2; i++) {
        mem_region_init_alias(&windows[i], "window", &ram, i * 4096, 4096);
        map(mem_root(), 2 * MiB + i * 8192, &windows[i]);
    }
    length = 64 * KiB;
    host = dma_map(address_space_memory, 2 * MiB, &length, true);
    assert_int_equal(length, 4096);
    dma_unmap(host, length, true, 0);
    unmap(mem_root(), &windows[0]);
    unmap(mem_root(), &windows[1]);

    unmap(mem_root(), &upper);
    unmap(mem_root(), &ram);
    unmap(mem_root(), &b.mr);
}

/* Mapped memory stays although its region goes. */
static void test_dma_outlives_region(void **state)
{
    struct mem_region ram;
    uint64_t length = 8192, second_length = 16;

    assert_true(mem_region_init_ram(&ram, "ram", 64 * KiB, false, NULL));
    map(mem_root(), 0, &ram);
    uint8_t *host = dma_map(address_space_memory, 4096, &length, true);
    uint8_t *second = dma_map(address_space_memory, 0, &second_length, false);
    struct ram_block *block = ram.ram;
    unmap(mem_root(), &ram);

    memset(host, 0xaa, length);
    assert_ptr_equal(ram_block_from_host(host, NULL), block);
    dma_unmap(host, length, true, length);
    assert_ptr_equal(ram_block_from_host(second, NULL), block);
    assert_int_equal(second[4096], 0xaa);
    dma_unmap(second, second_length, false, 0);
    assert_null(ram_block_from_host(second, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_call_counts),
        cmocka_unit_test(test_odd_sizes),
        cmocka_unit_test(test_split_by_bus),
        cmocka_unit_test(test_holes_and_ends),
        cmocka_unit_test(test_big_copies),
        cmocka_unit_test(test_rom),
        cmocka_unit_test(test_missing_callbacks),
        cmocka_unit_test(test_eventfds),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_no_reentry),
        cmocka_unit_test(test_callback_changes_map),
        cmocka_unit_test(test_dma_map),
        cmocka_unit_test(test_dma_outlives_region),
    };

    return cmocka_run_group_tests(tests, mem_setup, mem_teardown);
}
