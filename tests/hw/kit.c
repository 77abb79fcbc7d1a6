/* SPDX-License-Identifier: MIT */
#include "kit.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "device/iothread.h"
#include "hw/isa.h"

struct kit kit;

/* ---- a bridge ------------------------------------------------------------------------------- */

struct test_bridge {
    struct device dev;
    struct isa_bus isa;
};

static bool bridge_realize(struct device *dev, struct error **errp)
{
    struct test_bridge *b = (struct test_bridge *)dev;

    isa_bus_init(&b->isa, dev, mem_root(), io_root(), kit.line);
    return true;
}

static void bridge_unrealize(struct device *dev)
{
    isa_bus_destroy(&((struct test_bridge *)dev)->isa);
}

static const struct device_type test_bridge_type = {
    .name = "test-bridge",
    .bus = "System",
    .size = sizeof(struct test_bridge),
    .internal = true,
    .realize = bridge_realize,
    .unrealize = bridge_unrealize,
};

static void record_line(void *opaque, unsigned n, int level)
{
    kit.rises[n] += level && !kit.level[n];
    kit.level[n] = level != 0;
}

/* ---- the machine and the engine ------------------------------------------------------------- */

static void on_shutdown(enum system_cause cause, int exit_status)
{
    kit.shutdowns++;
    kit.shutdown_cause = cause;
    kit.exit_status = exit_status;
}

static void on_reset(enum system_cause cause)
{
    assert_int_equal(cause, SYSTEM_CAUSE_GUEST_RESET);
    kit.resets++;
}

static const struct system_handlers handlers = {.shutdown = on_shutdown, .reset = on_reset};

void __wrap_accel_msi_send(const struct msi_message *msg);
void __wrap_accel_set_extint(int level);
struct accel *__wrap_accel_current(void);
bool __wrap_accel_has_irqfd(void);

bool __wrap_accel_has_irqfd(void)
{
    return false;
}

void __wrap_accel_msi_send(const struct msi_message *msg)
{
    if (kit.msi_count < KIT_MSI_MAX) {
        kit.msi[kit.msi_count] = *msg;
    }
    kit.msi_count++;
}

void __wrap_accel_set_extint(int level)
{
    kit.extint = level;
}

struct accel *__wrap_accel_current(void)
{
    return kit.accel;
}

/* ---- life ----------------------------------------------------------------------------------- */

int kit_setup_bare(void **state)
{
    static bool clock_is_manual;

    memset(&kit, 0, sizeof(kit));
    kit.loop = aio_loop_new("main", AIO_LOOP_EPOLL, NULL);
    assert_non_null(kit.loop);
    aio_loop_bind(kit.loop);
    main_loop_set(kit.loop);
    if (!clock_is_manual) {
        clock_virtual_set_manual();
        clock_is_manual = true;
    }
    mem_init();
    machine_lock();
    system_set_handlers(&handlers);
    for (unsigned i = 0; i < KIT_LINES; i++) {
        kit.line[i] = irq_make(record_line, NULL, i);
    }
    return 0;
}

int kit_setup(void **state)
{
    kit_setup_bare(state);
    struct device *bridge = device_new(&test_bridge_type);
    assert_true(device_realize(bridge, system_bus(), NULL));
    kit.isa = &((struct test_bridge *)bridge)->isa.bus;
    return 0;
}

int kit_teardown(void **state)
{
    devices_free();
    machine_unlock();
    mem_cleanup();
    main_loop_set(NULL);
    aio_loop_unbind(kit.loop);
    aio_loop_free(kit.loop);
    return 0;
}

int64_t kit_now(void)
{
    return clock_get_ns(AIO_CLOCK_VIRTUAL);
}

/* Stops at every timer on the way, as qtest's clock_step does. */
void kit_step(int64_t ns)
{
    int64_t end = kit_now() + ns;

    machine_unlock();
    for (;;) {
        int64_t next = timers_next_expiry(AIO_CLOCK_VIRTUAL);
        if (next < 0 || next > end) {
            break;
        }
        if (next > kit_now()) {
            clock_virtual_set(next);
        }
        timers_run(kit.loop, AIO_CLOCK_VIRTUAL);
    }
    clock_virtual_set(end);
    machine_lock();
}

/* ---- access --------------------------------------------------------------------------------- */

static uint32_t in(uint16_t port, unsigned size)
{
    uint8_t bytes[4];

    address_space_rw(address_space_io, port, bytes, size, false);
    return (uint32_t)load_le(bytes, size);
}

static void out(uint16_t port, unsigned size, uint32_t value)
{
    uint8_t bytes[4];

    store_le(bytes, size, value);
    address_space_rw(address_space_io, port, bytes, size, true);
}

uint8_t inb(uint16_t port)
{
    return (uint8_t)in(port, 1);
}

uint16_t inw(uint16_t port)
{
    return (uint16_t)in(port, 2);
}

uint32_t inl(uint16_t port)
{
    return in(port, 4);
}

void outb(uint16_t port, uint8_t value)
{
    out(port, 1, value);
}

void outw(uint16_t port, uint16_t value)
{
    out(port, 2, value);
}

void outl(uint16_t port, uint32_t value)
{
    out(port, 4, value);
}

uint32_t readl(uint64_t address)
{
    uint8_t bytes[4];

    address_space_read(address_space_memory, address, bytes, sizeof(bytes));
    return load_le32(bytes);
}

void writel(uint64_t address, uint32_t value)
{
    uint8_t bytes[4];

    store_le32(bytes, value);
    address_space_write(address_space_memory, address, bytes, sizeof(bytes));
}

/* ---- hostile guests ------------------------------------------------------------------------- */

uint32_t kit_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return (uint32_t)(*seed * UINT64_C(2685821657736338717) >> 32);
}

static void hammer(struct address_space *as, uint64_t first, uint64_t size, unsigned widest,
                   unsigned accesses, uint64_t seed)
{
    for (unsigned i = 0; i < accesses; i++) {
        uint8_t bytes[8];
        unsigned width = 1u << kit_random(&seed) % (widest + 1);
        uint64_t address = first + kit_random(&seed) % size;
        bool is_write = kit_random(&seed) & 1;

        store_le32(bytes, kit_random(&seed));
        store_le32(bytes + 4, kit_random(&seed));
        address_space_rw(as, address, bytes, width, is_write);
        if (kit_random(&seed) % 16 == 0) {
            kit_step(kit_random(&seed) % 2000000);
        }
    }
}

void kit_hammer_ports(uint16_t first, unsigned count, unsigned accesses, uint64_t seed)
{
    hammer(address_space_io, first, count, 2, accesses, seed);
}

void kit_hammer_memory(uint64_t first, uint64_t size, unsigned accesses, uint64_t seed)
{
    hammer(address_space_memory, first, size, 3, accesses, seed);
}

/* ---- state ---------------------------------------------------------------------------------- */

struct saved {
    uint8_t *data;
    size_t size;
};

static struct saved save(struct device *dev)
{
    struct saved s;

    s.data = device_save_state(dev, &s.size);
    return s;
}

static void load(struct device *dev, const struct saved *s)
{
    struct error *err = NULL;

    if (!device_load_state(dev, s->data, s->size, &err)) {
        fail_msg("%s: %s", dev->type->name, error_message(err));
    }
}

static void assert_same(struct device *dev, const struct saved *before)
{
    struct saved after = save(dev);

    assert_int_equal(before->size, after.size);
    for (size_t i = 0; i < after.size; i++) {
        if (before->data[i] != after.data[i]) {
            fail_msg("%s: byte %zu of its state differs", dev->type->name, i);
        }
    }
    free(after.data);
}

void kit_check_vmstate(struct device *dev)
{
    assert_non_null(dev->type->vmstate);
    struct saved before = save(dev);
    device_reset(dev);
    load(dev, &before);
    assert_same(dev, &before);
    free(before.data);
}

void kit_check_vmstate_all(void)
{
    struct saved before[32];
    unsigned n = 0;

    for (struct device *dev = device_first(); dev; dev = dev->next) {
        if (dev->type->vmstate || dev->type->parent) {
            assert_true(n < ARRAY_SIZE(before));
            before[n++] = save(dev);
        }
    }
    devices_reset();
    for (unsigned pass = 0, i = 0; pass < 2; pass++, i = 0) {
        for (struct device *dev = device_first(); dev; dev = dev->next) {
            if (!dev->type->vmstate && !dev->type->parent) {
                continue;
            }
            if (pass == 0) {
                load(dev, &before[i++]);
            } else {
                assert_same(dev, &before[i]);
                free(before[i++].data);
            }
        }
    }
}
