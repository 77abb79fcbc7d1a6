/* SPDX-License-Identifier: MIT */
/* The bridges of pc and q35, configured as firmware does, with functions behind them. */
#include "kit.h"

#include "base/bytes.h"
#include "hw/gsi.h"
#include "hw/i440fx.h"
#include "hw/ich9.h"
#include "hw/ioapic.h"
#include "hw/isa.h"
#include "hw/isa_misc.h"
#include "hw/pam.h"
#include "hw/pic.h"
#include "hw/piix.h"
#include "hw/pm.h"
#include "hw/q35.h"

#define RAM_SIZE (32 * MiB)

static struct mem_region ram, ram_low, pci_memory, bios;
static struct gsi_state *gsi;
static struct pci_bus *bus;
static struct pci_device *host, *south, *pm;
static bool is_q35;

/* ---- a machine ------------------------------------------------------------------------------ */

static void make_memory(void)
{
    memset(&ram, 0, sizeof(ram));
    memset(&bios, 0, sizeof(bios));
    assert_true(mem_region_init_ram(&ram, "ram", RAM_SIZE, false, NULL));
    assert_true(mem_region_init_rom(&bios, "bios", 128 * KiB, NULL));
    mem_region_init_alias(&ram_low, "ram-low", &ram, 0, RAM_SIZE);
    mem_region_init_container(&pci_memory, "pci", UINT64_MAX);
    mem_transaction_begin();
    mem_region_add(mem_root(), 0, &ram_low);
    mem_region_add_overlap(mem_root(), 0, &pci_memory, -1);
    mem_region_add_overlap(&pci_memory, 0xe0000, &bios, 1);
    mem_transaction_commit();
    uint8_t pattern[4] = {0xb1, 0x05, 0xb1, 0x05};
    for (uint64_t a = 0xe0000; a < 0x100000; a += 0x4000) {
        address_space_write_rom(address_space_memory, a, pattern, 4);
        memcpy(bios.ram->host + (a - 0xe0000), pattern, 4);
    }
    memset(ram.ram->host, 0, MiB);
}

static int setup(void **state, bool q35, bool has_smm)
{
    struct mem_region *smm = has_smm ? mem_smram() : NULL;

    kit_setup_bare(state);
    is_q35 = q35;
    device_types_set(NULL);
    make_memory();
    gsi = gsi_new(false, NULL);
    if (q35) {
        struct q35_config config = {mem_root(), io_root(), &ram, &pci_memory, RAM_SIZE, smm};
        host = q35_new(&config, &bus, NULL);
        south = ich9_lpc_new(bus, mem_root(), gsi, has_smm, NULL);
        pm = south;
    } else {
        struct i440fx_config config = {mem_root(), io_root(), &ram, &pci_memory, smm};
        host = i440fx_new(&config, &bus, NULL);
        south = piix3_new(bus, gsi, NULL);
        pm = piix4_pm_new(bus, gsi, has_smm, NULL);
    }
    assert_non_null(host);
    assert_non_null(south);
    assert_non_null(pm);
    devices_reset();
    return 0;
}

static int setup_pc(void **state)
{
    return setup(state, false, false);
}

static int setup_pc_smm(void **state)
{
    return setup(state, false, true);
}

static int setup_q35(void **state)
{
    return setup(state, true, false);
}

static int setup_q35_smm(void **state)
{
    return setup(state, true, true);
}

static int teardown(void **state)
{
    devices_free();
    mem_transaction_begin();
    mem_region_set_enabled(mem_smram(), false);
    mem_region_remove(mem_root(), &ram_low);
    mem_region_remove(mem_root(), &pci_memory);
    mem_region_remove(&pci_memory, &bios);
    mem_transaction_commit();
    mem_region_destroy(&ram_low);
    mem_region_destroy(&pci_memory);
    mem_region_destroy(&bios);
    mem_region_destroy(&ram);
    return kit_teardown(state);
}

/* ---- configuration -------------------------------------------------------------------------- */

static void config_select(unsigned devfn, unsigned offset)
{
    outl(0xcf8, 0x80000000 | devfn << 8 | (offset & 0xfc));
}

static uint8_t config8(unsigned devfn, unsigned offset)
{
    config_select(devfn, offset);
    return inb((uint16_t)(0xcfc + (offset & 3)));
}

static uint16_t config16(unsigned devfn, unsigned offset)
{
    config_select(devfn, offset);
    return inw((uint16_t)(0xcfc + (offset & 3)));
}

static uint32_t config32(unsigned devfn, unsigned offset)
{
    config_select(devfn, offset);
    return inl(0xcfc);
}

static void set8(unsigned devfn, unsigned offset, uint8_t value)
{
    config_select(devfn, offset);
    outb((uint16_t)(0xcfc + (offset & 3)), value);
}

static void set32(unsigned devfn, unsigned offset, uint32_t value)
{
    config_select(devfn, offset);
    outl(0xcfc, value);
}

static unsigned south_devfn(void)
{
    return is_q35 ? PCI_DEVFN(31, 0) : PCI_DEVFN(1, 0);
}

static void test_identity(void **state)
{
    if (is_q35) {
        assert_int_equal(config32(0, 0), 0x29c08086);
        assert_int_equal(config32(PCI_DEVFN(31, 0), 0), 0x29188086);
        assert_int_equal(config32(PCI_DEVFN(31, 0), 8) >> 8, 0x060100);
        assert_int_equal(config8(PCI_DEVFN(31, 0), 0x0e), 0x80);
        assert_string_equal(bus->bus.name, "pcie.0");
    } else {
        assert_int_equal(config32(0, 0), 0x12378086);
        assert_int_equal(config32(PCI_DEVFN(1, 0), 0), 0x70008086);
        assert_int_equal(config8(PCI_DEVFN(1, 0), 0x0e), 0x80);
        assert_int_equal(config32(PCI_DEVFN(1, 3), 0), 0x71138086);
        assert_int_equal(config32(PCI_DEVFN(1, 3), 8) >> 8, 0x068000);
        assert_string_equal(bus->bus.name, "pci.0");
    }
    assert_int_equal(config32(0, 8) >> 8, 0x060000);
    assert_int_equal(config32(0, 0x2c), 0x11001af4);
    assert_int_equal(config32(PCI_DEVFN(5, 0), 0), 0xffffffff);
    assert_ptr_equal(bus_find("isa.0"), is_q35 ? ich9_isa_bus(south) : piix3_isa_bus(south));
}

static void test_reset_control(void **state)
{
    config_select(south_devfn(), 0x60);
    uint32_t address = inl(0xcf8);
    outb(0xcf9, 0x02);
    assert_int_equal(inb(0xcf9), 0x02);
    assert_int_equal(kit.resets, 0);
    assert_int_equal(inl(0xcf8), address); /* a byte does not reach the address */
    outb(0xcf9, 0x06);
    assert_int_equal(kit.resets, 1);
    outl(0xcf8, 0x80000600); /* and a doubleword does not reset */
    assert_int_equal(kit.resets, 1);
    assert_int_equal(inl(0xcf8), 0x80000600);
}

/* ---- shadow RAM ------------------------------------------------------------------------------ */

static void test_pam(void **state)
{
    unsigned base = is_q35 ? Q35_PAM : I440FX_PAM;

    /* After RESET all reads are the ROM's, and writes go nowhere. */
    assert_int_equal(readl(0xf0000), 0x05b105b1);
    writel(0xf0000, 0x11111111);
    assert_int_equal(readl(0xf0000), 0x05b105b1);
    assert_int_equal(readl(0xc0000), 0xffffffff);
    for (unsigned i = 0; i < 13; i++) {
        uint64_t address = i == 12 ? 0xf0000 : 0xc0000 + i * 0x4000;
        uint64_t last = i == 12 ? 0xffffc : address + 0x3ffc;
        unsigned reg = i == 12 ? base : base + 1 + i / 2, shift = i == 12 || i % 2 ? 4 : 0;
        uint32_t rom = readl(address);

        set8(0, reg, (uint8_t)(2 << shift)); /* writes to RAM, reads from PCI */
        writel(address, 0x1000 + i);
        writel(last, 0x2000 + i);
        assert_int_equal(readl(address), rom);
        set8(0, reg, (uint8_t)(1 << shift)); /* reads from RAM */
        assert_int_equal(readl(address), 0x1000 + i);
        assert_int_equal(readl(last), 0x2000 + i);
        writel(address, 0xdead);
        assert_int_equal(readl(address), 0x1000 + i);
        set8(0, reg, (uint8_t)(3 << shift));
        writel(address, 0x3000 + i);
        assert_int_equal(readl(address), 0x3000 + i);
        set8(0, reg, 0);
        assert_int_equal(readl(address), rom);
    }
    set8(0, base, 0xff);
    assert_int_equal(config8(0, base), 0x30);
    set8(0, base + 6, 0xff);
    assert_int_equal(config8(0, base + 6), 0x33);
    kit_check_vmstate(&host->dev);
    assert_int_equal(readl(0xf0000), 0x300c);
    device_reset(&host->dev);
    assert_int_equal(readl(0xf0000), 0x05b105b1);
}

static void test_smram(void **state)
{
    unsigned reg = is_q35 ? Q35_SMRAM : I440FX_SMRAM;

    assert_int_equal(config8(0, reg), 0x02);
    writel(0xa0000, 0x12345678);
    assert_int_equal(readl(0xa0000), 0xffffffff); /* PCI: nobody */
    set8(0, reg, 0x48);
    writel(0xa0000, 0x12345678);
    assert_int_equal(readl(0xa0000), 0x12345678);
    set8(0, reg, 0x58); /* locked: closed, for good */
    assert_int_equal(readl(0xa0000), 0xffffffff);
    set8(0, reg, 0x48);
    assert_int_equal(config8(0, reg), 0x1a);
    assert_int_equal(readl(0xa0000), 0xffffffff);
    kit_check_vmstate(&host->dev);
    device_reset(&host->dev);
    assert_int_equal(config8(0, reg), 0x02);
}

static void test_tseg(void **state)
{
    writel(RAM_SIZE - 4, 0x55aa55aa);
    writel(RAM_SIZE - 8 * MiB, 0x77777777);
    set8(0, Q35_SMRAM, 0x08);
    set8(0, Q35_ESMRAMC, 0x05); /* 8 MiB */
    assert_int_equal(config8(0, Q35_ESMRAMC), 0x3d);
    assert_int_equal(readl(RAM_SIZE - 4), 0xffffffff);
    assert_int_equal(readl(RAM_SIZE - 8 * MiB), 0xffffffff);
    set8(0, Q35_ESMRAMC, 0x01); /* 1 MiB */
    assert_int_equal(readl(RAM_SIZE - 8 * MiB), 0x77777777);
    config_select(0, 0x50);
    outw(0xcfc, 0xffff);
    assert_int_equal(config16(0, 0x50), 16);
    set8(0, Q35_ESMRAMC, 0x07);
    assert_int_equal(readl(RAM_SIZE - 16 * MiB), 0xffffffff);
    assert_int_equal(readl(RAM_SIZE - 16 * MiB - 4), 0);
    set8(0, Q35_SMRAM, 0x18); /* lock */
    set8(0, Q35_ESMRAMC, 0x00);
    assert_int_equal(config8(0, Q35_ESMRAMC), 0x3f);
    device_reset(&host->dev);
    assert_int_equal(readl(RAM_SIZE - 4), 0x55aa55aa);
}

static void test_ecam(void **state)
{
    assert_int_equal(readl(0xb0000000), 0xffffffff);
    set32(0, Q35_PCIEXBAR + 4, 0);
    set32(0, Q35_PCIEXBAR, 0xb0000001);
    assert_int_equal(readl(0xb0000000), 0x29c08086);
    assert_int_equal(readl(0xb0000000 + (31 << 15)), 0x29188086);
    assert_int_equal(readl(0xb0000000 + (1 << 20)), 0xffffffff);
    writel(0xb0000000 + Q35_PAM, 0x33333330);
    assert_int_equal(config32(0, Q35_PAM), 0x33333330);
    kit_check_vmstate(&host->dev);
    assert_int_equal(readl(0xb0000000), 0x29c08086);
    set32(0, Q35_PCIEXBAR, 0xe0000000 | 2 << 1 | 1); /* 64 buses, elsewhere */
    assert_int_equal(readl(0xb0000000), 0xffffffff);
    assert_int_equal(readl(0xe0000000), 0x29c08086);
    set32(0, Q35_PCIEXBAR + 4, 0x8); /* above 4 GiB */
    assert_int_equal(readl(UINT64_C(0x8e0000000)), 0x29c08086);
    set32(0, Q35_PCIEXBAR, 0);
    assert_int_equal(readl(UINT64_C(0x8e0000000)), 0xffffffff);
    set32(0, Q35_PCIEXBAR, 3 << 1 | 1); /* a length that is reserved */
    assert_int_equal(readl(UINT64_C(0x800000000)), 0xffffffff);
}

/* ---- interrupts ----------------------------------------------------------------------------- */

static struct pci_device *add_function(unsigned slot)
{
    struct pci_device *pci = pci_device(device_new(&pci_testdev_type));

    pci->addr = (int32_t)PCI_DEVFN(slot, 0);
    assert_true(device_realize(&pci->dev, &bus->bus, NULL));
    pci_set_interrupt_pin(pci, 1);
    return pci;
}

static uint8_t irr_of(unsigned chip)
{
    outb(chip ? 0xa0 : 0x20, 0x0a);
    return inb(chip ? 0xa0 : 0x20);
}

static void test_pirq_pc(void **state)
{
    struct pci_device *a = add_function(3), *b = add_function(7);
    unsigned pirq = piix3_pirq_of(3, 0);

    assert_int_equal(pirq, piix3_pirq_of(7, 0));
    assert_int_equal(piix3_pirq_of(3, 1), (pirq + 1) % 4);
    gsi_set_elcr(gsi, 1 << 11 | 1 << 10);
    pci_set_irq(a, 1); /* routed nowhere */
    assert_int_equal(irr_of(1), 0);
    set8(PCI_DEVFN(1, 0), PIIX3_PIRQ_ROUTE + pirq, 11);
    assert_int_equal(irr_of(1), 1 << 3);
    pci_set_irq(b, 1); /* the same line */
    pci_set_irq(a, 0);
    assert_int_equal(irr_of(1), 1 << 3);
    set8(PCI_DEVFN(1, 0), PIIX3_PIRQ_ROUTE + pirq, 10);
    assert_int_equal(irr_of(1), 1 << 2);
    /* The SCI shares an interrupt and is not lowered with it. */
    kit_check_vmstate_all();
    assert_int_equal(irr_of(1), 1 << 2);
    set8(PCI_DEVFN(1, 0), PIIX3_PIRQ_ROUTE + pirq, 0x80);
    assert_int_equal(irr_of(1), 0);
    pci_set_irq(b, 0);
}

static void program_pin(unsigned pin, uint32_t low)
{
    writel(IOAPIC_BASE, 0x10 + pin * 2);
    writel(IOAPIC_BASE + 0x10, low);
}

static void test_pirq_q35(void **state)
{
    struct pci_device *a = add_function(3), *b = add_function(29);

    assert_int_equal(ich9_pirq_of(3, 0), 7);
    assert_int_equal(ich9_pirq_of(4, 0), 4);
    assert_int_equal(ich9_pirq_of(29, 2), 2);
    for (unsigned i = 16; i < 24; i++) {
        program_pin(i, 0x8040 + i);
    }
    pci_set_irq(a, 1);
    assert_int_equal(kit.msi_count, 1);
    assert_int_equal(kit.msi[0].data & 0xff, 0x40 + 23);
    pci_set_irq(b, 1);
    assert_int_equal(kit.msi[1].data & 0xff, 0x40 + 16);
    /* And to the PIC by the route registers. */
    assert_int_equal(irr_of(1), 0);
    gsi_set_elcr(gsi, 1 << 10 | 1 << 11);
    set8(PCI_DEVFN(31, 0), ICH9_PIRQE_ROUTE + 3, 10);
    set8(PCI_DEVFN(31, 0), ICH9_PIRQA_ROUTE, 11);
    assert_int_equal(irr_of(1), 0x0c);
    pci_set_irq(a, 0);
    assert_int_equal(irr_of(1), 0x08);
    kit_check_vmstate_all();
    pci_set_irq(b, 0);
    assert_int_equal(irr_of(1), 0);
    /* RCBA: slot 29's pin A becomes PIRQ C. */
    set32(PCI_DEVFN(31, 0), ICH9_RCBA, 0xfed1c001);
    assert_int_equal(readl(0xfed1c000 + 0x3410) & 0x20, 0x20);
    assert_int_equal(readl(0xfed1c000 + 0x3144) & 0xffff, 0x3210);
    writel(0xfed1c000 + 0x3144, 0x32103212);
    assert_int_equal(readl(0xfed1c000 + 0x3144), 0x32103212);
    kit.msi_count = 0;
    ioapic_eoi(gsi->ioapic, 0x40 + 16);
    ioapic_eoi(gsi->ioapic, 0x40 + 18);
    pci_set_irq(b, 1);
    assert_int_equal(kit.msi[0].data & 0xff, 0x40 + 18);
    pci_set_irq(b, 0);
}

/* ---- power management ------------------------------------------------------------------------ */

static void enable_pm(uint16_t base)
{
    if (is_q35) {
        set32(PCI_DEVFN(31, 0), ICH9_PMBASE, base | 1);
        set8(PCI_DEVFN(31, 0), ICH9_ACPI_CNTL, 0x80);
    } else {
        set32(PCI_DEVFN(1, 3), PIIX4_PMBASE, base | 1);
        set8(PCI_DEVFN(1, 3), PIIX4_PMREGMISC, 1);
    }
}

static void test_pm(void **state)
{
    assert_int_equal(inl(0x608), 0xffffffff);
    enable_pm(0x600);
    assert_int_equal(inl(0x608) >> 24, 0);
    enable_pm(0xb000);
    assert_int_equal(inl(0x608), 0xffffffff);
    assert_int_equal(inl(0xb008) >> 24, 0);
    outb(0xb2, is_q35 ? ICH9_ACPI_ENABLE : PIIX4_ACPI_ENABLE);
    assert_int_equal(inw(0xb004), 1);
    gsi_set_elcr(gsi, 1 << 9);
    outw(0xb002, 0x100);
    assert_true(acpi_pm_power_button());
    assert_int_equal(irr_of(1), 2);
    kit_check_vmstate_all();
    assert_int_equal(inw(0xb004), 1);
    assert_int_equal(irr_of(1), 2);
    uint16_t gpe = is_q35 ? 0xb000 + ICH9_GPE0_OFFSET : PIIX4_GPE0_BASE;
    outb(gpe + (is_q35 ? ICH9_GPE0_LENGTH : PIIX4_GPE0_LENGTH) / 2, 0x5a);
    assert_int_equal(inb(gpe + (is_q35 ? ICH9_GPE0_LENGTH : PIIX4_GPE0_LENGTH) / 2), 0x5a);
    outw(0xb004, 0x2001);
    assert_int_equal(kit.shutdowns, 1);
    devices_reset();
    assert_int_equal(irr_of(1), 0);
    assert_int_equal(inl(0xb008), 0xffffffff);
}

/* What a CPU reads in SMM. */
static uint32_t smm_readl(uint64_t address)
{
    uint8_t bytes[4];

    address_space_read(address_space_smm, address, bytes, sizeof(bytes));
    return load_le32(bytes);
}

static void test_smm_smram(void **state)
{
    unsigned reg = is_q35 ? Q35_SMRAM : I440FX_SMRAM;

    mem_region_set_enabled(mem_smram(), true);
    store_le32(ram.ram->host + 0xa0000, 0x600d600d);
    assert_int_equal(smm_readl(0xa0000), 0xffffffff);
    set8(0, reg, 0x08); /* enabled, closed */
    assert_int_equal(smm_readl(0xa0000), 0x600d600d);
    assert_int_equal(readl(0xa0000), 0xffffffff);
    assert_int_equal(smm_readl(0x1000), readl(0x1000));
    set8(0, reg, 0x48); /* open */
    assert_int_equal(readl(0xa0000), 0x600d600d);
    set8(0, reg, 0x18); /* locked */
    set8(0, reg, 0x00);
    assert_int_equal(smm_readl(0xa0000), 0x600d600d);
    assert_int_equal(readl(0xa0000), 0xffffffff);
    devices_reset();
    assert_int_equal(smm_readl(0xa0000), 0xffffffff);
}

static void test_smm_tseg(void **state)
{
    mem_region_set_enabled(mem_smram(), true);
    store_le32(ram.ram->host + RAM_SIZE - MiB, 0x600d600d);
    store_le32(ram.ram->host + 0xa0000, 0x51515151);
    set8(0, Q35_SMRAM, 0x08);
    set8(0, Q35_ESMRAMC, 0x01); /* 1 MiB */
    assert_int_equal(readl(RAM_SIZE - MiB), 0xffffffff);
    assert_int_equal(smm_readl(RAM_SIZE - MiB), 0x600d600d);
    set8(0, Q35_ESMRAMC, 0x80); /* H_SMRAME */
    assert_int_equal(readl(RAM_SIZE - MiB), 0x600d600d);
    assert_int_equal(smm_readl(0xa0000), 0xffffffff);
    assert_int_equal(smm_readl(0xfeda0000), 0x51515151);
    assert_int_equal(readl(0xfeda0000), 0xffffffff);
    set8(0, Q35_SMRAM, 0x48);
    assert_int_equal(readl(0xfeda0000), 0x51515151);
    assert_int_equal(readl(0xa0000), 0xffffffff);
}

/* With SMM firmware finds nothing set up, and may lock what it has set up. */
static void test_smm_enable(void **state)
{
    if (!is_q35) {
        assert_int_equal(config8(PCI_DEVFN(1, 3), 0x5b) & 2, 0);
        enable_pm(0x600);
        outl(0x628, 0x1);
        assert_int_equal(inl(0x628), 0x10001);
        set8(PCI_DEVFN(1, 3), 0x5b, 2);
        outb(0xb2, 0x55);
        assert_int_equal(inw(0x618) & 0x20, 0x20);
        outw(0x618, 0x20);
        assert_int_equal(inw(0x618), 0);
        outb(0xb2, PIIX4_ACPI_ENABLE); /* ACPI's commands send none */
        assert_int_equal(inw(0x618), 0);
        return;
    }
    enable_pm(0x600);
    assert_int_equal(inl(0x630), 0x02);
    outl(0x630, 0x20);
    outb(0xb2, 0x55);
    assert_int_equal(inl(0x634), 0); /* GBL_SMI_EN is clear */
    outl(0x630, 0x21);
    outb(0xb2, 0x55);
    assert_int_equal(inl(0x634), 0x20);
    outl(0x634, 0x20);
    assert_int_equal(inl(0x634), 0);
    set8(PCI_DEVFN(31, 0), 0xa0, 0x10); /* SMI_LOCK */
    set8(PCI_DEVFN(31, 0), 0xa0, 0x00);
    assert_int_equal(config8(PCI_DEVFN(31, 0), 0xa0), 0x10);
    outl(0x630, 0x00);
    assert_int_equal(inl(0x630), 0x03);
    devices_reset();
    assert_int_equal(config8(PCI_DEVFN(31, 0), 0xa0), 0x00);
}

/* Firmware that finds this set does not set up SMM. */
static void test_smi_enable(void **state)
{
    if (is_q35) {
        enable_pm(0x600);
        assert_int_equal(inl(0x630) & 0x20, 0x20);
        outl(0x630, 0x01);
        assert_int_equal(inl(0x630), 0x01);
    } else {
        assert_int_equal(config8(PCI_DEVFN(1, 3), 0x5b) & 2, 2);
    }
}

static void test_sci_select(void **state)
{
    enable_pm(0x600);
    outb(0xb2, ICH9_ACPI_ENABLE);
    outw(0x602, 0x100);
    program_pin(20, 0x8050);
    assert_true(acpi_pm_power_button());
    assert_int_equal(kit.msi_count, 0);
    set8(PCI_DEVFN(31, 0), ICH9_ACPI_CNTL, 0x84); /* GSI 20 */
    assert_int_equal(kit.msi_count, 1);
    assert_int_equal(irr_of(1) & 2, 2); /* the edge was seen; the wire is low again */
    outw(0x600, 0x100);
    ioapic_eoi(gsi->ioapic, 0x50);
    assert_int_equal(kit.msi_count, 1);
}

/* ---- devices of the user on isa.0, and hostile guests ---------------------------------------- */

static void test_isa_device(void **state)
{
    struct device *dev = device_new(&debug_exit_type);

    assert_true(device_set(dev, "iobase", "0xf4", NULL));
    assert_true(device_realize(dev, bus_find("isa.0"), NULL));
    outb(0xf4, 3);
    assert_int_equal(kit.exit_status, 7);
    device_free(dev);
    dev = device_new(&pc_testdev_type);
    assert_true(device_realize(dev, bus_find("isa.0"), NULL));
    outb(0x2003, 1);
    assert_int_equal(irr_of(0) & 8, 8);
}

static void test_hostile(void **state)
{
    static const unsigned pc_devfns[] = {0, PCI_DEVFN(1, 0), PCI_DEVFN(1, 3)};
    static const unsigned q35_devfns[] = {0, PCI_DEVFN(31, 0), PCI_DEVFN(3, 0)};
    uint64_t seed = is_q35 ? 61 : 62;

    add_function(3);
    for (unsigned i = 0; i < 3000; i++) {
        unsigned devfn = (is_q35 ? q35_devfns : pc_devfns)[kit_random(&seed) % 3];
        set32(devfn, kit_random(&seed) & 0xfc, kit_random(&seed));
        set8(devfn, kit_random(&seed) & 0xff, (uint8_t)kit_random(&seed));
        config32(devfn, kit_random(&seed) & 0xfc);
        if (i % 8 == 0) {
            readl(kit_random(&seed));
            writel(kit_random(&seed), kit_random(&seed));
            inl((uint16_t)kit_random(&seed));
            outl((uint16_t)kit_random(&seed), kit_random(&seed));
        }
    }
    kit_check_vmstate_all();
    devices_reset();
    test_identity(state);
}

/* ---- pci-testdev ----------------------------------------------------------------------------- */

static void test_pci_testdev(void **state)
{
    unsigned devfn = PCI_DEVFN(3, 0);
    struct pci_device *pci = add_function(3);
    char name[32];

    assert_int_equal(config32(devfn, 0), 0x00051b36);
    set32(devfn, 0x10, 0xd0000000);
    set32(devfn, 0x14, 0xc000);
    set32(devfn, 4, 3);
    assert_int_equal(readl(0xd0000000), 0); /* no test runs */
    for (unsigned test = 0; test < 3; test++) {
        uint8_t byte = (uint8_t)test;
        address_space_write(address_space_memory, 0xd0000000, &byte, 1);
        assert_int_equal(readl(0xd0000000) & 0xffff, 0x100 | test);
        uint32_t offset = readl(0xd0000004);
        uint8_t data = (uint8_t)readl(0xd0000008);
        assert_int_equal(readl(0xd000000c), 0);
        address_space_read(address_space_memory, 0xd0000010, name, sizeof(name));
        assert_memory_equal(name, "mmio-", 5);
        for (unsigned i = 0; i < 3; i++) {
            address_space_write(address_space_memory, 0xd0000000 + offset, &data, 1);
            assert_int_equal(readl(0xd000000c), i + 1);
        }
        data ^= 1;
        address_space_write(address_space_memory, 0xd0000000 + offset, &data, 1);
        assert_int_equal(readl(0xd000000c), test == 1 ? 4 : 3);
        outb(0xc000, (uint8_t)test);
        outb((uint16_t)(0xc000 + inl(0xc004)), inb(0xc008));
        assert_int_equal(inl(0xc00c), 1);
        assert_int_equal(inb(0xc010), 'p');
    }
    outb(0xc000, 3); /* there is no such test */
    assert_int_equal(inb(0xc001), 0);
    outb(0xc000, 1);
    kit_check_vmstate(&pci->dev);
    kit_hammer_memory(0xd0000000, 4096, 5000, 71);
    kit_hammer_ports(0xc000, 256, 5000, 72);
    device_free(&pci->dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define PC(f)  cmocka_unit_test_setup_teardown(f, setup_pc, teardown)
#define Q35(f) cmocka_unit_test_setup_teardown(f, setup_q35, teardown)
        PC(test_identity),
        PC(test_reset_control),
        PC(test_pam),
        PC(test_smram),
        PC(test_pirq_pc),
        PC(test_pm),
        PC(test_smi_enable),
        PC(test_isa_device),
        PC(test_pci_testdev),
        PC(test_hostile),
        Q35(test_identity),
        Q35(test_reset_control),
        Q35(test_pam),
        Q35(test_smram),
        Q35(test_tseg),
        Q35(test_ecam),
        Q35(test_pirq_q35),
        Q35(test_pm),
        Q35(test_smi_enable),
        Q35(test_sci_select),
        Q35(test_isa_device),
        Q35(test_pci_testdev),
        Q35(test_hostile),
#define SMM(f, setup) cmocka_unit_test_setup_teardown(f, setup, teardown)
        SMM(test_smm_smram, setup_pc_smm),
        SMM(test_smm_smram, setup_q35_smm),
        SMM(test_smm_tseg, setup_q35_smm),
        SMM(test_smm_enable, setup_pc_smm),
        SMM(test_smm_enable, setup_q35_smm),
        SMM(test_hostile, setup_q35_smm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
