/* SPDX-License-Identifier: MIT */
#include "kit.h"

#include <string.h>

#include "aio/loop.h"
#include "base/bytes.h"
#include "base/options.h"
#include "base/range.h"
#include "device/iothread.h"
#include "fake_accel.h"
#include "mem/machine_lock.h"
#include "pci/msix.h"

struct kit kit;
static struct error *last_error;

/* ---- the function --------------------------------------------------------------------------- */

static uint64_t probe_read(void *opaque, uint64_t offset, unsigned size)
{
    return offset | UINT64_C(0xab000000);
}

static void probe_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mem_region_ops probe_ops = {
    .read = probe_read,
    .write = probe_write,
    .valid = {.min = 1, .max = 4},
};

static void probe_unrealize(struct device *dev)
{
    struct probe *probe = (struct probe *)dev;

    pci_unmap_bars(&probe->pci);
    msix_uninit(&probe->pci);
    msi_uninit(&probe->pci);
    mem_region_destroy(&probe->io);
    mem_region_destroy(&probe->mem);
    mem_region_destroy(&probe->mem64);
}

static bool probe_realize(struct device *dev, struct error **errp)
{
    struct probe *probe = (struct probe *)dev;
    struct pci_device *pci = &probe->pci;

    mem_region_init_io(&probe->io, "probe-io", 16, &probe_ops, probe);
    mem_region_init_io(&probe->mem, "probe-mem", 4 * KiB, &probe_ops, probe);
    mem_region_init_io(&probe->mem64, "probe-mem64", MiB, &probe_ops, probe);
    pci_register_bar(pci, 0, &probe->io, true, false, false);
    pci_register_bar(pci, 1, &probe->mem, false, false, false);
    pci_register_bar(pci, 2, &probe->mem64, false, true, true);
    pci_set_interrupt_pin(pci, 1);
    pcie_add_capability(pci);
    if ((probe->msi && !msi_init(pci, probe->msi, true, true, errp)) ||
        (probe->msix && !msix_init_exclusive_bar(pci, probe->msix, 4, errp))) {
        probe_unrealize(dev);
        return false;
    }
    return true;
}

static void config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    ((struct probe *)pci)->config_writes++;
}

static const struct property probe_props[] = {
    PROPERTY_UINT32("msi", struct probe, msi, 0, 0, 0, "MSI vectors"),
    PROPERTY_UINT32("msix", struct probe, msix, 0, 0, 0, "MSI-X vectors"),
    PROPERTY_END,
};

static const struct pci_device_class probe_class = {
    .vendor_id = 0x1234,
    .device_id = 0x5678,
    .revision = 9,
    .class_code = 0xff0102,
    .subsystem_vendor_id = 0xabcd,
    .subsystem_id = 0xef01,
    .is_express = true,
    .config_written = config_written,
};

const struct device_type probe_type = {
    .name = "pci-probe",
    .parent = &pci_device_type,
    .size = sizeof(struct probe),
    .props = probe_props,
    .class = &probe_class,
    .realize = probe_realize,
    .unrealize = probe_unrealize,
};

static const struct device_type *const types[] = {&probe_type, NULL};

/* ---- the bus -------------------------------------------------------------------------------- */

static unsigned map_irq(struct pci_bus *bus, uint8_t devfn, unsigned pin)
{
    return (PCI_SLOT(devfn) + pin) % KIT_LINES;
}

static void set_irq(void *opaque, unsigned line, int level)
{
    assert_int_not_equal(kit.level[line], level);
    kit.level[line] = level;
    kit.changes[line]++;
}

static const struct pci_bus_ops bus_ops = {.map_irq = map_irq, .set_irq = set_irq};

static int setup(bool is_express)
{
    struct error *err = NULL;

    memset(&kit, 0, sizeof(kit));
    fake_accel_reset(true);
    kit.loop = aio_loop_new("main", AIO_LOOP_AUTO, &err);
    aio_loop_bind(kit.loop);
    main_loop_set(kit.loop);
    mem_init();
    device_types_set(types);
    machine_lock();
    mem_transaction_begin();
    assert_true(mem_region_init_ram(&kit.ram, "ram", MiB, false, &err));
    mem_region_add(mem_root(), 0, &kit.ram);
    pci_root_bus_init(&kit.bus, NULL, "pci.0", is_express, mem_root(), io_root(), &bus_ops, NULL,
                      KIT_LINES);
    pci_mechanism1_init(&kit.mechanism1, &kit.bus, io_root());
    pci_ecam_init(&kit.ecam, &kit.bus, 2);
    mem_region_add(mem_root(), KIT_ECAM, &kit.ecam.region);
    mem_transaction_commit();
    machine_unlock();
    return 0;
}

int kit_setup(void **state)
{
    return setup(true);
}

int kit_setup_conventional(void **state)
{
    return setup(false);
}

int kit_teardown(void **state)
{
    machine_lock();
    devices_free();
    mem_transaction_begin();
    mem_region_remove(mem_root(), &kit.ram);
    mem_region_remove(mem_root(), &kit.ecam.region);
    mem_transaction_commit();
    pci_mechanism1_destroy(&kit.mechanism1, io_root());
    pci_ecam_destroy(&kit.ecam);
    mem_region_destroy(&kit.ram);
    bus_destroy(&kit.bus.bus);
    machine_unlock();
    mem_cleanup();
    aio_loop_unbind(kit.loop);
    aio_loop_free(kit.loop);
    error_free(last_error);
    last_error = NULL;
    return 0;
}

static struct device *add(const char *text, struct error **errp)
{
    struct options *opts = options_parse(text, "driver", errp);

    assert_non_null(opts);
    machine_lock();
    struct device *dev = device_add(opts, errp);
    machine_unlock();
    options_free(opts);
    return dev;
}

struct probe *kit_add(const char *text)
{
    struct error *err = NULL;
    struct device *dev = add(text, &err);

    if (!dev) {
        fail_msg("%s: %s", text, error_message(err));
    }
    return (struct probe *)dev;
}

const char *kit_add_error(const char *text)
{
    error_free(last_error);
    last_error = NULL;
    assert_null(add(text, &last_error));
    return error_message(last_error);
}

/* ---- accesses ------------------------------------------------------------------------------- */

static uint64_t read_space(struct address_space *as, uint64_t address, unsigned size)
{
    uint8_t bytes[8] = {0};

    address_space_read(as, address, bytes, size);
    return load_le(bytes, size);
}

static void write_space(struct address_space *as, uint64_t address, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    store_le(bytes, size, value);
    address_space_write(as, address, bytes, size);
}

uint64_t kit_mem(uint64_t address, unsigned size)
{
    return read_space(address_space_memory, address, size);
}

void kit_set_mem(uint64_t address, uint64_t value, unsigned size)
{
    write_space(address_space_memory, address, value, size);
}

uint64_t kit_io(uint16_t port, unsigned size)
{
    return read_space(address_space_io, port, size);
}

void kit_set_io(uint16_t port, uint64_t value, unsigned size)
{
    write_space(address_space_io, port, value, size);
}

uint32_t kit_read(uint8_t devfn, unsigned offset, unsigned size)
{
    return (uint32_t)kit_mem(KIT_ECAM + devfn * UINT64_C(4096) + offset, size);
}

void kit_write(uint8_t devfn, unsigned offset, uint32_t value, unsigned size)
{
    kit_set_mem(KIT_ECAM + devfn * UINT64_C(4096) + offset, value, size);
}
