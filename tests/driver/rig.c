/* SPDX-License-Identifier: MIT */
#include "rig.h"

#include <linux/pci_regs.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend.h"
#include "device/iothread.h"
#include "device/throttle_object.h"
#include "fake_accel.h"
#include "hw/virtio/virtio_blk.h"
#include "mem/dma.h"
#include "mem/machine_lock.h"

#define WAIT_NS (20 * NS_PER_SEC)

struct rig rig;
static uint64_t next_alloc;
static struct error *last_error;

static const struct device_type *const types[] = {
    &iothread_type,
    &throttle_group_type,
    &virtio_blk_pci_type,
    &virtio_blk_pci_non_transitional_type,
    NULL,
};

static void fail(const char *what, struct error *err)
{
    fprintf(stderr, "rig: %s: %s\n", what, err ? error_message(err) : "failed");
    abort();
}

static unsigned map_irq(struct pci_bus *bus, uint8_t devfn, unsigned pin)
{
    return (PCI_SLOT(devfn) + pin) % RIG_IRQ_LINES;
}

static void set_irq(void *opaque, unsigned line, int level)
{
    if (!machine_lock_held()) {
        fail("an interrupt line changes without the machine lock", NULL);
    }
    if (level && !atomic_exchange(&rig.level[line], 1)) {
        atomic_fetch_add(&rig.raised[line], 1);
    } else if (!level) {
        atomic_store(&rig.level[line], 0);
    }
}

static const struct pci_bus_ops bus_ops = {.map_irq = map_irq, .set_irq = set_irq};

void rig_init(bool has_irqfd)
{
    struct error *err = NULL;

    memset(&rig, 0, sizeof(rig));
    rig_free_all();
    fake_accel_reset(has_irqfd);
    rig.loop = aio_loop_new("main", AIO_LOOP_AUTO, &err);
    if (!rig.loop) {
        fail("main loop", err);
    }
    aio_loop_bind(rig.loop);
    main_loop_set(rig.loop);
    mem_init();
    device_types_set(types);
    machine_lock();
    mem_transaction_begin();
    if (!mem_region_init_ram(&rig.ram, "ram", RIG_RAM_SIZE, false, &err) ||
        !mem_region_init_ram(&rig.high_ram, "high-ram", RIG_HIGH_SIZE, false, &err) ||
        !mem_region_init_rom(&rig.rom, "rom", RIG_ROM_SIZE, &err)) {
        fail("RAM", err);
    }
    mem_region_add(mem_root(), 0, &rig.ram);
    mem_region_add(mem_root(), RIG_HIGH_RAM, &rig.high_ram);
    mem_region_add(mem_root(), RIG_ROM, &rig.rom);
    pci_root_bus_init(&rig.bus, NULL, "pcie.0", true, mem_root(), io_root(), &bus_ops, NULL,
                      RIG_IRQ_LINES);
    rig.bus.first_slot = 1;
    pci_mechanism1_init(&rig.mechanism1, &rig.bus, io_root());
    pci_ecam_init(&rig.ecam, &rig.bus, 1);
    mem_region_add(mem_root(), RIG_ECAM, &rig.ecam.region);
    mem_transaction_commit();
    machine_unlock();
}

void rig_destroy(void)
{
    machine_lock();
    devices_free();
    machine_unlock();
    backends_close();
    if (fake_accel.attached) {
        fail("irqfds are left", NULL);
    }
    machine_lock();
    mem_transaction_begin();
    mem_region_remove(mem_root(), &rig.ram);
    mem_region_remove(mem_root(), &rig.high_ram);
    mem_region_remove(mem_root(), &rig.rom);
    mem_region_remove(mem_root(), &rig.ecam.region);
    mem_transaction_commit();
    pci_mechanism1_destroy(&rig.mechanism1, io_root());
    pci_ecam_destroy(&rig.ecam);
    mem_region_destroy(&rig.ram);
    mem_region_destroy(&rig.high_ram);
    mem_region_destroy(&rig.rom);
    bus_destroy(&rig.bus.bus);
    machine_unlock();
    mem_cleanup();
    while (aio_loop_poll(rig.loop, false)) {
    }
    aio_loop_unbind(rig.loop);
    aio_loop_free(rig.loop);
    error_free(last_error);
    last_error = NULL;
}

/* ---- devices -------------------------------------------------------------------------------- */

static struct device *add(const char *text, const char *key,
                          struct device *(*fn)(struct options *, struct error **),
                          struct error **errp)
{
    struct options *opts = options_parse(text, key, errp);

    if (!opts) {
        return NULL;
    }
    machine_lock();
    struct device *dev = fn(opts, errp);
    machine_unlock();
    options_free(opts);
    return dev;
}

struct device *rig_device(const char *text)
{
    struct error *err = NULL;
    struct device *dev = add(text, "driver", device_add, &err);

    if (!dev) {
        fail(text, err);
    }
    return dev;
}

struct device *rig_object(const char *text)
{
    struct error *err = NULL;
    struct device *dev = add(text, "qom-type", object_add, &err);

    if (!dev) {
        fail(text, err);
    }
    return dev;
}

const char *rig_device_error(const char *text)
{
    error_free(last_error);
    last_error = NULL;
    if (add(text, "driver", device_add, &last_error)) {
        fail(text, NULL);
    }
    return error_message(last_error);
}

void rig_assign(void)
{
    struct pci_assignment a = {
        .io_base = 0x1000,
        .io_end = 0x10000,
        .mem_base = RIG_BARS,
        .mem_end = RIG_BARS_END,
    };
    struct error *err = NULL;

    machine_lock();
    bool ok = pci_assign_resources(&rig.bus, &a, &err);
    machine_unlock();
    if (!ok) {
        fail("pci_assign_resources", err);
    }
}

/* ---- time ----------------------------------------------------------------------------------- */

void rig_run(void)
{
    if (aio_loop_current() == rig.loop) {
        aio_loop_poll(rig.loop, false);
    } else {
        sched_yield();
    }
    fake_accel_poll();
}

bool rig_wait(bool (*condition)(void *opaque), void *opaque)
{
    int64_t end = clock_get_ns(AIO_CLOCK_RT) + WAIT_NS;

    while (!condition(opaque)) {
        rig_run();
        if (clock_get_ns(AIO_CLOCK_RT) > end) {
            return false;
        }
    }
    return true;
}

/* ---- the guest's view ----------------------------------------------------------------------- */

uint64_t guest_read(uint64_t address, unsigned size)
{
    uint8_t bytes[8] = {0};

    address_space_read(address_space_memory, address, bytes, size);
    return load_le(bytes, size);
}

void guest_write(uint64_t address, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    store_le(bytes, size, value);
    address_space_write(address_space_memory, address, bytes, size);
}

uint32_t guest_config_read(uint8_t devfn, unsigned offset, unsigned size)
{
    return (uint32_t)guest_read(RIG_ECAM + devfn * UINT64_C(4096) + offset, size);
}

void guest_config_write(uint8_t devfn, unsigned offset, uint32_t value, unsigned size)
{
    guest_write(RIG_ECAM + devfn * UINT64_C(4096) + offset, value, size);
}

void *guest_ram(uint64_t address)
{
    if (address < RIG_RAM_SIZE) {
        return rig.ram.ram->host + address;
    }
    if (address >= RIG_HIGH_RAM && address < RIG_HIGH_RAM + RIG_HIGH_SIZE) {
        return rig.high_ram.ram->host + (address - RIG_HIGH_RAM);
    }
    fail("no RAM at this address", NULL);
    return NULL;
}

void rig_free_all(void)
{
    next_alloc = 64 * KiB;
}

uint64_t guest_alloc(uint64_t size, uint64_t alignment)
{
    uint64_t at = align_up(next_alloc, alignment);

    if (!range_fits(at, size, RIG_RAM_SIZE)) {
        fail("no RAM left", NULL);
    }
    next_alloc = at + size;
    for (uint64_t i = 0; i < size; i++) {
        guest_store8(guest_ram(at + i), 0); /* an old request may still be looked at */
    }
    return at;
}

unsigned guest_find_capability(uint8_t devfn, uint8_t id, unsigned after)
{
    unsigned at = guest_config_read(devfn, after ? after + 1 : PCI_CAPABILITY_LIST, 1);

    while (at && guest_config_read(devfn, at, 1) != id) {
        at = guest_config_read(devfn, at + 1, 1);
    }
    return at;
}

uint64_t guest_bar(uint8_t devfn, unsigned index)
{
    unsigned reg = PCI_BASE_ADDRESS_0 + index * 4;
    uint64_t bar = guest_config_read(devfn, reg, 4);

    if (bar & PCI_BASE_ADDRESS_SPACE_IO) {
        return bar & PCI_BASE_ADDRESS_IO_MASK;
    }
    if ((bar & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64) {
        bar |= (uint64_t)guest_config_read(devfn, reg + 4, 4) << 32;
    }
    return bar & ~UINT64_C(0xf);
}
