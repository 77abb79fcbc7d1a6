/* SPDX-License-Identifier: MIT */
/* Places on a bus, the errors for those that are taken, and what firmware does with what it finds. */
#include "kit.h"

#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/machine_lock.h"

static void test_free_slots(void **state)
{
    assert_int_equal(kit_add("pci-probe")->pci.devfn, PCI_DEVFN(0, 0));
    assert_int_equal(kit_add("pci-probe,addr=1")->pci.devfn, PCI_DEVFN(1, 0));
    assert_int_equal(kit_add("pci-probe")->pci.devfn, PCI_DEVFN(2, 0));
    kit.bus.first_slot = 5;
    struct probe *probe = kit_add("pci-probe");
    assert_int_equal(probe->pci.devfn, PCI_DEVFN(5, 0));
    autofree char *address = pci_address_text(&probe->pci.dev);
    assert_string_equal(address, "0000:00:05.0");
    /* A slot that was given back. */
    machine_lock();
    device_free(&probe->pci.dev);
    machine_unlock();
    assert_int_equal(kit_read(PCI_DEVFN(5, 0), 0, 4), UINT32_MAX);
    assert_int_equal(kit_add("pci-probe")->pci.devfn, PCI_DEVFN(5, 0));
}

static void test_taken_slots(void **state)
{
    kit_add("pci-probe,addr=3,id=first");
    assert_string_equal(kit_add_error("pci-probe,addr=3,id=second"),
                        "PCI: slot 3 function 0 not available for pci-probe, in use by "
                        "pci-probe,id=first");
    /* The first is as it was. */
    assert_int_equal(kit_read(PCI_DEVFN(3, 0), 0, 4), 0x56781234);
    assert_string_equal(kit_add_error("pci-probe,addr=3.1"),
                        "PCI: single function device can't be populated in function 3.1");
    kit_add("pci-probe,addr=4.2");
    assert_string_equal(kit_add_error("pci-probe,addr=4"),
                        "PCI: 4.0 indicates single function, but 4.2 is already populated.");
    kit_add("pci-probe,addr=4,multifunction=on");
    kit_add("pci-probe,addr=4.7");
    assert_int_equal(kit_read(PCI_DEVFN(4, 0), PCI_HEADER_TYPE, 1), 0x80);
    assert_int_equal(kit_read(PCI_DEVFN(4, 7), 0, 4), 0x56781234);
}

static void test_full_bus(void **state)
{
    for (unsigned i = 0; i < 32; i++) {
        assert_false(kit.bus.bus.full);
        kit_add("pci-probe");
    }
    assert_true(kit.bus.bus.full);
    assert_string_equal(kit_add_error("pci-probe"),
                        "PCI: no slot available for pci-probe, bus 'pci.0' is full");
}

/* ---- pci_assign_resources() ------------------------------------------------------------------ */

static uint8_t interrupt_line(void *opaque, struct pci_device *pci, unsigned pin)
{
    assert_int_equal(pin, 1);
    return (uint8_t)(10 + PCI_SLOT(pci->devfn) % 2);
}

static bool assign(const struct pci_assignment *a, struct error **errp)
{
    machine_lock();
    bool ok = pci_assign_resources(&kit.bus, a, errp);
    machine_unlock();
    return ok;
}

static void check_no_overlap(struct probe *const *probes, unsigned count)
{
    for (unsigned i = 0; i < count * 3; i++) {
        for (unsigned j = 0; j < i; j++) {
            const struct pci_bar *a = &probes[i / 3]->pci.bar[i % 3];
            const struct pci_bar *b = &probes[j / 3]->pci.bar[j % 3];
            assert_int_equal(a->address % a->size, 0);
            assert_false(a->is_io == b->is_io &&
                         range_overlaps(a->address, a->size, b->address, b->size));
        }
    }
}

static void test_assign(void **state)
{
    struct probe *probes[8];
    const struct pci_assignment a = {
        .io_base = 0xc000,
        .io_end = 0x10000,
        .mem_base = 0xe0000000,
        .mem_end = 0xe0100000,
        .mem64_base = UINT64_C(0x100000000) + 4096, /* not aligned to the largest BAR */
        .mem64_end = UINT64_C(0x200000000),
        .interrupt_line = interrupt_line,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(probes); i++) {
        probes[i] = kit_add("pci-probe");
    }
    assert_true(assign(&a, NULL));
    check_no_overlap(probes, ARRAY_SIZE(probes));
    for (unsigned i = 0; i < ARRAY_SIZE(probes); i++) {
        const struct pci_bar *bar = probes[i]->pci.bar;
        assert_true(bar[0].address >= a.io_base && bar[0].address + 16 <= a.io_end);
        assert_true(bar[1].address >= a.mem_base && bar[1].address + 4096 <= a.mem_end);
        assert_true(bar[2].address >= a.mem64_base && bar[2].address + MiB <= a.mem64_end);
        assert_int_equal(kit_mem(bar[2].address + 8, 4), 0xab000008);
        assert_int_equal(kit_read((uint8_t)(i << 3), PCI_INTERRUPT_LINE, 1), 10 + i % 2);
        assert_int_equal(kit_read((uint8_t)(i << 3), PCI_COMMAND, 2), 3);
    }
    /* Again, as after a reset of the machine. */
    assert_true(assign(&a, NULL));
    check_no_overlap(probes, ARRAY_SIZE(probes));
}

/* Without a window above 4 GiB, or with one that is full, 64-bit BARs go below. */
static void test_assign_low(void **state)
{
    struct probe *probes[2] = {kit_add("pci-probe"), kit_add("pci-probe")};
    struct pci_assignment a = {
        .io_base = 0xc000,
        .io_end = 0x10000,
        .mem_base = 0xe0000000,
        .mem_end = 0xe1000000,
    };

    assert_true(assign(&a, NULL));
    check_no_overlap(probes, 2);
    assert_true(probes[0]->pci.bar[2].address < UINT32_MAX);
    a.mem64_base = UINT64_C(0x100000000);
    a.mem64_end = a.mem64_base + MiB;
    assert_true(assign(&a, NULL));
    check_no_overlap(probes, 2);
    assert_true((probes[0]->pci.bar[2].address < UINT32_MAX) !=
                (probes[1]->pci.bar[2].address < UINT32_MAX));
}

static void test_assign_no_room(void **state)
{
    struct error *err = NULL;
    const struct pci_assignment a = {
        .io_base = 0xc000,
        .io_end = 0xc010,
        .mem_base = 0xe0000000,
        .mem_end = 0xe1000000,
    };

    kit_add("pci-probe");
    kit_add("pci-probe");
    assert_false(assign(&a, &err));
    assert_non_null(strstr(error_message(err), "no room for BAR 0"));
    error_free(err);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_free_slots), TEST(test_taken_slots), TEST(test_full_bus),
        TEST(test_assign),     TEST(test_assign_low),  TEST(test_assign_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
