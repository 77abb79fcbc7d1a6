/* SPDX-License-Identifier: MIT */
/* Configuration space: header, masks, BARs, decode bits, INTx, capabilities, both ways to it. */
#include "kit.h"

#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/dma.h"
#include "mem/machine_lock.h"

#define DEVFN  PCI_DEVFN(3, 0)
#define IO     PCI_COMMAND_IO
#define MEMORY PCI_COMMAND_MEMORY
#define MASTER PCI_COMMAND_MASTER

static void set_command(uint16_t command)
{
    kit_write(DEVFN, PCI_COMMAND, command, 2);
}

static void test_header(void **state)
{
    kit_add("pci-probe,addr=3");
    assert_int_equal(kit_read(DEVFN, 0, 4), 0x56781234);
    assert_int_equal(kit_read(DEVFN, PCI_CLASS_REVISION, 4), 0xff010209);
    assert_int_equal(kit_read(DEVFN, PCI_SUBSYSTEM_VENDOR_ID, 4), 0xef01abcd);
    assert_int_equal(kit_read(DEVFN, PCI_HEADER_TYPE, 1), 0);
    assert_int_equal(kit_read(DEVFN, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(kit_read(PCI_DEVFN(4, 0), 0, 4), UINT32_MAX);
    assert_int_equal(kit_read(PCI_DEVFN(3, 1), 0, 4), UINT32_MAX);
    /* Another bus. */
    assert_int_equal(kit_mem(KIT_ECAM + MiB + DEVFN * 4096, 4), UINT32_MAX);
}

static void test_masks(void **state)
{
    struct probe *probe = kit_add("pci-probe,addr=3");
    static const uint8_t readonly[] = {0,  1,  2,    3,    8,    9,    10,   11,
                                       13, 14, 0x2c, 0x2e, 0x34, 0x3d, 0x3e, 0x3f};

    for (unsigned i = 0; i < ARRAY_SIZE(readonly); i++) {
        uint8_t before = (uint8_t)kit_read(DEVFN, readonly[i], 1);
        kit_write(DEVFN, readonly[i], (uint8_t)~before, 1);
        assert_int_equal(kit_read(DEVFN, readonly[i], 1), before);
    }
    assert_int_equal(probe->config_writes, ARRAY_SIZE(readonly));
    kit_write(DEVFN, PCI_INTERRUPT_LINE, 0x5a, 1);
    assert_int_equal(kit_read(DEVFN, PCI_INTERRUPT_LINE, 1), 0x5a);
    /* Reserved bits of the command stay 0. */
    set_command(0xffff);
    assert_int_equal(kit_read(DEVFN, PCI_COMMAND, 2), 0x547);
    /* Status bits are cleared by ones. */
    probe->pci.config[PCI_STATUS + 1] |= 0xf9;
    kit_write(DEVFN, PCI_STATUS, 0x4000, 2);
    assert_int_equal(kit_read(DEVFN, PCI_STATUS + 1, 1), 0xb9);
    kit_write(DEVFN, PCI_STATUS, 0x0000, 2);
    assert_int_equal(kit_read(DEVFN, PCI_STATUS + 1, 1), 0xb9);
    kit_write(DEVFN, PCI_STATUS, 0xffff, 2);
    assert_int_equal(kit_read(DEVFN, PCI_STATUS + 1, 1), 0x00);
}

/* ---- BARs ----------------------------------------------------------------------------------- */

static void test_bar_sizing(void **state)
{
    kit_add("pci-probe,addr=3");
    static const struct {
        unsigned reg;
        uint32_t sized;
    } cases[] = {
        {0x10, 0xfffffff1}, {0x14, 0xfffff000}, {0x18, 0xfff0000c}, {0x1c, 0xffffffff},
        {0x20, 0},          {0x24, 0},          {0x30, 0},
    };
    set_command(IO | MEMORY);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        kit_write(DEVFN, cases[i].reg, UINT32_MAX, 4);
        assert_int_equal(kit_read(DEVFN, cases[i].reg, 4), cases[i].sized);
    }
}

static void test_bar_mapping(void **state)
{
    kit_add("pci-probe,addr=3");
    kit_write(DEVFN, 0x10, 0xc000, 4);
    kit_write(DEVFN, 0x14, 0xe0000000, 4);
    kit_write(DEVFN, 0x18, 0x00000000, 4);
    kit_write(DEVFN, 0x1c, 0x00000080, 4);
    assert_int_equal(kit_mem(0xe0000010, 4), UINT32_MAX);
    set_command(MEMORY);
    assert_int_equal(kit_mem(0xe0000010, 4), 0xab000010);
    assert_true(kit_mem(UINT64_C(0x8000000100), 4) == 0xab000100); /* above 4 GiB */
    assert_int_equal(kit_io(0xc004, 4), UINT32_MAX);
    set_command(IO);
    assert_int_equal(kit_io(0xc004, 4), 0xab000004);
    assert_int_equal(kit_mem(0xe0000010, 4), UINT32_MAX);
    /* It moves while it decodes. */
    set_command(IO | MEMORY);
    kit_write(DEVFN, 0x14, 0xe1000000, 4);
    assert_int_equal(kit_mem(0xe0000010, 4), UINT32_MAX);
    assert_int_equal(kit_mem(0xe1000010, 4), 0xab000010);
    /* Byte by byte, too. */
    kit_write(DEVFN, 0x17, 0xe2, 1);
    assert_int_equal(kit_mem(0xe2000010, 4), 0xab000010);
}

/* Places where a BAR is nowhere: 0, the top (which is what sizing writes), I/O above 64 KiB. */
static void test_bar_nowhere(void **state)
{
    struct probe *probe = kit_add("pci-probe,addr=3");

    set_command(IO | MEMORY);
    static const uint32_t nowhere[] = {0, 0xfffff000, UINT32_MAX};
    for (unsigned i = 0; i < ARRAY_SIZE(nowhere); i++) {
        kit_write(DEVFN, 0x14, nowhere[i], 4);
        assert_true(probe->pci.bar[1].address == PCI_BAR_UNMAPPED);
    }
    kit_write(DEVFN, 0x10, 0xfff0, 4);
    assert_true(probe->pci.bar[0].address == PCI_BAR_UNMAPPED);
    kit_write(DEVFN, 0x10, 0x1c000, 4);
    assert_true(probe->pci.bar[0].address == PCI_BAR_UNMAPPED);
    kit_write(DEVFN, 0x10, 0xffe0, 4);
    assert_int_equal(probe->pci.bar[0].address, 0xffe0);
    kit_write(DEVFN, 0x18, UINT32_MAX, 4);
    kit_write(DEVFN, 0x1c, UINT32_MAX, 4);
    assert_true(probe->pci.bar[2].address == PCI_BAR_UNMAPPED);
}

/* BARs on top of each other, of RAM and of ECAM break nothing. */
static void test_bar_overlap(void **state)
{
    struct probe *a = kit_add("pci-probe,addr=3");
    struct probe *b = kit_add("pci-probe,addr=4");

    for (unsigned slot = 3; slot <= 4; slot++) {
        kit_write(PCI_DEVFN(slot, 0), 0x14, 0xe0000000, 4);
        kit_write(PCI_DEVFN(slot, 0), PCI_COMMAND, MEMORY, 2);
    }
    assert_int_equal(a->pci.bar[1].address, 0xe0000000);
    assert_int_equal(b->pci.bar[1].address, 0xe0000000);
    assert_int_equal(kit_mem(0xe0000010, 4), 0xab000010);
    kit_write(PCI_DEVFN(4, 0), 0x14, 0xe1000000, 4);
    assert_int_equal(kit_mem(0xe0000010, 4), 0xab000010);
    kit_write(PCI_DEVFN(4, 0), 0x14, 0x1000, 4);
    kit_write(PCI_DEVFN(4, 0), 0x14, 0xe1000000, 4);
    kit_set_mem(0x1010, 0x12345678, 4);
    assert_int_equal(kit_mem(0x1010, 4), 0x12345678);
}

static void test_bus_master(void **state)
{
    struct probe *probe = kit_add("pci-probe,addr=3");
    uint32_t value;

    kit_set_mem(0x2000, 0xcafebabe, 4);
    assert_int_not_equal(dma_read(probe->pci.dma_space, 0x2000, &value, 4), MEM_OK);
    assert_false(pci_bus_master_enabled(&probe->pci));
    set_command(MASTER);
    assert_int_equal(dma_read(probe->pci.dma_space, 0x2000, &value, 4), MEM_OK);
    assert_int_equal(value, 0xcafebabe);
    set_command(0);
    assert_int_not_equal(dma_write(probe->pci.dma_space, 0x2000, &value, 4), MEM_OK);
}

static void test_rom(void **state)
{
    char path[] = "ferry-rom-test-XXXXXX";
    uint8_t image[3000];
    int fd = mkstemp(path);

    for (unsigned i = 0; i < sizeof(image); i++) {
        image[i] = (uint8_t)(i * 3);
    }
    assert_int_equal(write(fd, image, sizeof(image)), sizeof(image));
    close(fd);
    autofree char *text = xasprintf("pci-probe,addr=3,romfile=%s", path);
    kit_add(text);
    unlink(path);
    kit_write(DEVFN, PCI_ROM_ADDRESS, UINT32_MAX, 4);
    assert_int_equal(kit_read(DEVFN, PCI_ROM_ADDRESS, 4), 0xfffff001);
    kit_write(DEVFN, PCI_ROM_ADDRESS, 0xe0000000, 4);
    set_command(MEMORY);
    assert_int_equal(kit_mem(0xe0000010, 1), 0xff); /* not enabled */
    kit_write(DEVFN, PCI_ROM_ADDRESS, 0xe0000001, 4);
    assert_int_equal(kit_mem(0xe0000010, 1), 0x30);
    kit_set_mem(0xe0000010, 0, 1);
    assert_int_equal(kit_mem(0xe0000010, 1), 0x30);
    assert_string_equal(kit_add_error("pci-probe,romfile=/nonexistent/rom"),
                        "failed to find romfile \"/nonexistent/rom\": No such file or directory");
    assert_non_null(strstr(kit_add_error("pci-probe,romfile=/dev/null"), "is empty or no file"));
    assert_non_null(strstr(kit_add_error("pci-probe,romfile=x,rombar=0"), "rombar=0"));
    /* An empty name is no ROM. */
    kit_add("pci-probe,addr=4,romfile=");
    assert_int_equal(kit_read(PCI_DEVFN(4, 0), PCI_ROM_ADDRESS, 4), 0);
}

/* ---- INTx ----------------------------------------------------------------------------------- */

static void set_irq(struct probe *probe, int level)
{
    machine_lock();
    pci_set_irq(&probe->pci, level);
    machine_unlock();
}

static void test_intx(void **state)
{
    struct probe *a = kit_add("pci-probe,addr=3");
    struct probe *b = kit_add("pci-probe,addr=7"); /* the same line */

    set_irq(a, 1);
    assert_int_equal(kit.level[3], 1);
    assert_true(kit_read(DEVFN, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    set_irq(b, 1);
    set_irq(b, 1);
    assert_int_equal(kit.changes[3], 1);
    set_irq(a, 0);
    assert_false(kit_read(DEVFN, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    assert_int_equal(kit.level[3], 1); /* b still asserts it */
    /* With interrupts disabled the status bit tells, but the line is let go. */
    kit_write(PCI_DEVFN(7, 0), PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
    assert_int_equal(kit.level[3], 0);
    assert_true(kit_read(PCI_DEVFN(7, 0), PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    kit_write(PCI_DEVFN(7, 0), PCI_COMMAND, 0, 2);
    assert_int_equal(kit.level[3], 1);
    /* A device that goes takes its interrupt along. */
    machine_lock();
    device_free(&b->pci.dev);
    machine_unlock();
    assert_int_equal(kit.level[3], 0);
    set_irq(a, 1);
    machine_lock();
    device_reset(&a->pci.dev);
    machine_unlock();
    assert_int_equal(kit.level[3], 0);
}

/* ---- capabilities --------------------------------------------------------------------------- */

static unsigned find_capability(uint8_t id)
{
    unsigned at = kit_read(DEVFN, PCI_CAPABILITY_LIST, 1);

    for (unsigned n = 0; at && n < 48; n++) {
        if (kit_read(DEVFN, at, 1) == id) {
            return at;
        }
        at = kit_read(DEVFN, at + 1, 1);
    }
    return 0;
}

static void test_capabilities(void **state)
{
    kit_add("pci-probe,addr=3,msi=4,msix=3");
    assert_true(kit_read(DEVFN, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
    unsigned express = find_capability(PCI_CAP_ID_EXP);
    assert_int_not_equal(express, 0);
    /* Version 2, root complex integrated endpoint. */
    assert_int_equal(kit_read(DEVFN, express + PCI_EXP_FLAGS, 2), 0x92);
    assert_int_not_equal(find_capability(PCI_CAP_ID_MSI), 0);
    unsigned msix = find_capability(PCI_CAP_ID_MSIX);
    assert_int_equal(kit_read(DEVFN, msix + PCI_MSIX_FLAGS, 2), 2);
    assert_int_equal(kit_read(DEVFN, msix + PCI_MSIX_TABLE, 4), 4);
    assert_int_equal(kit_read(DEVFN, msix + PCI_MSIX_PBA, 4), 0x804);
    /* Behind 256 bytes: no extended capabilities. */
    assert_int_equal(kit_read(DEVFN, 0x100, 4), 0);
    assert_non_null(strstr(kit_add_error("pci-probe,msix=2049"), "MSI-X vectors"));
    assert_non_null(strstr(kit_add_error("pci-probe,msi=3"), "MSI vectors"));
}

/* On a conventional bus there is no PCIe capability, and no space beyond 256 bytes. */
static void test_conventional(void **state)
{
    kit_add("pci-probe,addr=3,msi=4");
    assert_int_equal(find_capability(PCI_CAP_ID_EXP), 0);
    assert_int_not_equal(find_capability(PCI_CAP_ID_MSI), 0);
    assert_int_equal(kit_read(DEVFN, 0xfc, 4), 0);
    assert_int_equal(kit_read(DEVFN, 0x100, 4), UINT32_MAX);
    kit_write(DEVFN, 0x100, 0, 4);
}

/* ---- mechanism 1 ---------------------------------------------------------------------------- */

static void select_register(unsigned offset)
{
    kit_set_io(0xcf8, 0x80000000 | DEVFN << 8 | offset, 4);
}

static void test_mechanism1(void **state)
{
    kit_add("pci-probe,addr=3");
    select_register(0);
    assert_int_equal(kit_io(0xcf8, 4), 0x80001800);
    assert_int_equal(kit_io(0xcfc, 4), 0x56781234);
    assert_int_equal(kit_io(0xcfc, 2), 0x1234);
    assert_int_equal(kit_io(0xcfe, 2), 0x5678);
    assert_int_equal(kit_io(0xcfd, 1), 0x12);
    assert_int_equal(kit_io(0xcfd, 2), 0x7812);
    assert_int_equal(kit_io(0xcff, 1), 0x56);
    select_register(PCI_COMMAND);
    kit_set_io(0xcfc, 0x0007, 2);
    assert_int_equal(kit_read(DEVFN, PCI_COMMAND, 2), 7);
    kit_set_io(0xcfc, 0, 1);
    assert_int_equal(kit_read(DEVFN, PCI_COMMAND, 2), 0);
    select_register(PCI_INTERRUPT_LINE);
    kit_set_io(0xcfc, 0x7b, 1);
    assert_int_equal(kit_read(DEVFN, PCI_INTERRUPT_LINE, 1), 0x7b);
    assert_int_equal(kit_io(0xcfd, 1), 1);
    /* The low two bits and the reserved ones do not exist. */
    kit_set_io(0xcf8, 0xff001803, 4);
    assert_int_equal(kit_io(0xcf8, 4), 0x80001800);
    /* Narrow writes go by. */
    kit_set_io(0xcf8, 0, 1);
    kit_set_io(0xcfa, 0, 2);
    assert_int_equal(kit_io(0xcf8, 4), 0x80001800);
    assert_int_equal(kit_io(0xcf9, 1), 0xff);
    /* Disabled, or a function that is not there. */
    kit_set_io(0xcf8, DEVFN << 8, 4);
    assert_int_equal(kit_io(0xcfc, 4), UINT32_MAX);
    kit_set_io(0xcf8, 0x80000000 | 5 << 11, 4);
    assert_int_equal(kit_io(0xcfc, 4), UINT32_MAX);
    kit_set_io(0xcfc, 0, 4);
    kit_set_io(0xcf8, 0x80010000 | DEVFN << 8, 4); /* bus 1 */
    assert_int_equal(kit_io(0xcfc, 4), UINT32_MAX);
}

static void test_ecam(void **state)
{
    kit_add("pci-probe,addr=3");
    uint64_t base = KIT_ECAM + DEVFN * 4096;

    assert_int_equal(kit_mem(base + 1, 1), 0x12);
    assert_int_equal(kit_mem(base + 2, 2), 0x5678);
    assert_true(kit_mem(base, 8) == UINT64_C(0x0010000056781234));
    kit_set_mem(base + PCI_INTERRUPT_LINE, 0x11, 1);
    assert_int_equal(kit_mem(base + PCI_INTERRUPT_LINE, 1), 0x11);
}

/* ---- reset ---------------------------------------------------------------------------------- */

static void test_reset(void **state)
{
    struct probe *probe = kit_add("pci-probe,addr=3");

    kit_write(DEVFN, 0x10, 0xc000, 4);
    kit_write(DEVFN, 0x14, 0xe0000000, 4);
    kit_write(DEVFN, 0x1c, 1, 4);
    kit_write(DEVFN, PCI_INTERRUPT_LINE, 11, 1);
    set_command(IO | MEMORY | MASTER);
    machine_lock();
    devices_reset();
    machine_unlock();
    assert_int_equal(kit_read(DEVFN, PCI_COMMAND, 2), 0);
    assert_int_equal(kit_read(DEVFN, PCI_INTERRUPT_LINE, 1), 0);
    assert_int_equal(kit_read(DEVFN, 0x10, 4), 1);
    assert_int_equal(kit_read(DEVFN, 0x14, 4), 0);
    assert_int_equal(kit_read(DEVFN, 0x18, 4), 0xc);
    assert_int_equal(kit_read(DEVFN, 0x1c, 4), 0);
    assert_int_equal(kit_read(DEVFN, 0, 4), 0x56781234);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(probe->pci.bar[i].address == PCI_BAR_UNMAPPED);
    }
    assert_int_equal(kit_mem(0xe0000010, 4), UINT32_MAX);
    uint32_t value;
    assert_int_not_equal(dma_read(probe->pci.dma_space, 0x2000, &value, 4), MEM_OK);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_header),
        TEST(test_masks),
        TEST(test_bar_sizing),
        TEST(test_bar_mapping),
        TEST(test_bar_nowhere),
        TEST(test_bar_overlap),
        TEST(test_bus_master),
        TEST(test_rom),
        TEST(test_intx),
        TEST(test_capabilities),
        cmocka_unit_test_setup_teardown(test_conventional, kit_setup_conventional, kit_teardown),
        TEST(test_mechanism1),
        TEST(test_ecam),
        TEST(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
