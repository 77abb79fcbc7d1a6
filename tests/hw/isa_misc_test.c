/* SPDX-License-Identifier: MIT */
/* The single ports of a PC, ACPI power management, and the devices for tests. */
#include "kit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chardev/chardev.h"
#include "hw/isa_misc.h"
#include "hw/pm.h"
#include "mem/dma.h"

static struct device *add(const struct device_type *type, const char *name, const char *value)
{
    struct device *dev = device_new(type);
    struct error *err = NULL;

    if ((name && !device_set(dev, name, value, &err)) || !device_realize(dev, kit.isa, &err)) {
        fail_msg("%s", error_message(err));
    }
    return dev;
}

/* ---- ports ---------------------------------------------------------------------------------- */

static void test_port80(void **state)
{
    struct device *dev = port80_new(kit.isa, NULL);

    outb(0x80, 0x42);
    assert_int_equal(port80_last(dev), 0x42);
    assert_int_equal(inb(0x80), 0xff);
    kit_check_vmstate(dev);
    device_reset(dev);
    assert_int_equal(port80_last(dev), 0);
}

static void test_port92(void **state)
{
    struct device *dev = port92_new(kit.isa, NULL);

    dev->gpio_out[0] = kit.line[20];
    device_reset(dev);
    assert_int_equal(kit.level[20], 1);
    assert_int_equal(inb(0x92), 2);
    outb(0x92, 0);
    assert_int_equal(kit.level[20], 0);
    assert_int_equal(kit.resets, 0);
    outb(0x92, 3);
    assert_int_equal(kit.level[20], 1);
    assert_int_equal(kit.resets, 1);
    outb(0x92, 3); /* only a rising bit resets */
    assert_int_equal(kit.resets, 1);
    kit_check_vmstate(dev);
    kit_hammer_ports(0x92, 1, 1000, 1);
}

static void test_pcspk_without_pit(void **state)
{
    struct device *dev = pcspk_new(kit.isa, NULL, NULL);
    unsigned changes = 0, last = inb(0x61) & 0x10;

    outb(0x61, 0xff);
    assert_int_equal(inb(0x61) & 0xef, 0x0f);
    for (unsigned i = 0; i < 1000; i++) {
        kit_step(NS_PER_US);
        unsigned now = inb(0x61) & 0x10;
        changes += now != last;
        last = now;
    }
    assert_in_range(changes, 64, 68); /* refresh: every 15 us */
    kit_check_vmstate(dev);
}

/* ---- ACPI ----------------------------------------------------------------------------------- */

static struct acpi_pm pm;
static struct mem_region block;
static int sci;

static void set_sci(void *opaque, int level)
{
    sci = level;
}

static int pm_setup(void **state)
{
    kit_setup(state);
    struct acpi_pm_config config = {
        .set_sci = set_sci,
        .io = io_root(),
        .enable_command = ICH9_ACPI_ENABLE,
        .disable_command = ICH9_ACPI_DISABLE,
        .gpe_length = ICH9_GPE0_LENGTH,
    };
    memset(&pm, 0, sizeof(pm));
    memset(&block, 0, sizeof(block));
    mem_region_init_container(&block, "pm", 128);
    acpi_pm_init(&pm, &config);
    acpi_pm_add_registers(&pm, &block);
    mem_region_add(&block, ICH9_GPE0_OFFSET, &pm.gpe);
    mem_region_add(io_root(), 0x600, &block);
    acpi_pm_reset(&pm);
    sci = 0;
    return 0;
}

static int pm_teardown(void **state)
{
    mem_region_remove(io_root(), &block);
    mem_region_remove(&block, &pm.gpe);
    acpi_pm_destroy(&pm, &block);
    mem_region_destroy(&block);
    return kit_teardown(state);
}

static void test_acpi_enable(void **state)
{
    assert_int_equal(inw(0x604) & 1, 0);
    outb(0xb2, ICH9_ACPI_ENABLE);
    assert_int_equal(inw(0x604) & 1, 1);
    assert_int_equal(inb(0xb2), ICH9_ACPI_ENABLE);
    outb(0xb3, 0x12);
    assert_int_equal(inb(0xb3), 0x12);
    outb(0xb2, ICH9_ACPI_DISABLE);
    assert_int_equal(inw(0x604) & 1, 0);
}

static void test_power_button(void **state)
{
    assert_true(acpi_pm_power_button());
    assert_int_equal(inw(0x600), 0x100);
    assert_int_equal(sci, 0);
    outw(0x602, 0x0120);
    assert_int_equal(sci, 0); /* ACPI is not on yet */
    outb(0xb2, ICH9_ACPI_ENABLE);
    assert_int_equal(sci, 1);
    outw(0x600, 0x0020); /* clears others */
    assert_int_equal(sci, 1);
    outw(0x600, 0x0100);
    assert_int_equal(sci, 0);
    assert_int_equal(inl(0x600), 0x01200000);
    /* The bytes, one at a time. */
    outb(0x603, 0xff);
    assert_int_equal(inw(0x602), 0x0720);
    outb(0x602, 0);
    assert_int_equal(inb(0x603), 0x07);
    assert_int_equal(inb(0x602), 0);
}

static void test_pm_timer(void **state)
{
    uint32_t before = inl(0x608);

    kit_step(NS_PER_SEC);
    assert_in_range((inl(0x608) - before) & 0xffffff, 3579545, 3579546);
    outl(0x608, 0xffffffff); /* read-only */
    assert_int_equal(inl(0x608) >> 24, 0);
    /* Its top bit changes every 2.34 s: status, and SCI if enabled. */
    outw(0x600, 0xffff);
    outw(0x602, 0x0001);
    outb(0xb2, ICH9_ACPI_ENABLE);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t top = inl(0x608) & 0x800000;
        while (!sci) {
            kit_step(10 * NS_PER_MS);
        }
        assert_int_not_equal(inl(0x608) & 0x800000, top);
        assert_int_equal(inw(0x600) & 1, 1);
        outw(0x600, 1);
        assert_int_equal(sci, 0);
    }
}

static void test_sleep(void **state)
{
    outw(0x604, 1 | ACPI_SLP_TYPE_S5 << 10);
    assert_int_equal(kit.shutdowns, 0);
    outw(0x604, 1 | 5 << 10 | 1 << 13); /* a type that is not offered: wakes at once */
    assert_int_equal(kit.shutdowns, 0);
    assert_int_equal(inw(0x600) & 0x8000, 0x8000);
    outw(0x604, 1 | ACPI_SLP_TYPE_S5 << 10 | 1 << 13);
    assert_int_equal(kit.shutdowns, 1);
    assert_int_equal(kit.shutdown_cause, SYSTEM_CAUSE_GUEST_SHUTDOWN);
    assert_int_equal(inw(0x604) & 0x2000, 0); /* SLP_EN reads 0 */
}

static void test_gpe(void **state)
{
    outb(0xb2, ICH9_ACPI_ENABLE);
    acpi_pm_gpe(&pm, 9);
    assert_int_equal(inb(0x621), 2);
    assert_int_equal(sci, 0);
    outb(0x629, 2);
    assert_int_equal(sci, 1);
    outb(0x621, 2);
    assert_int_equal(sci, 0);
    acpi_pm_gpe(&pm, 64); /* there is none */
    acpi_pm_gpe(&pm, 9);
    assert_int_equal(sci, 1);
    outl(0x628, 0);
    assert_int_equal(sci, 0);
}

static void test_pm_hostile(void **state)
{
    kit_hammer_ports(0x600, 128, 20000, 41);
    kit_hammer_ports(0xb2, 2, 1000, 42);
}

/* ---- devices for tests ----------------------------------------------------------------------- */

static void test_debug_exit(void **state)
{
    struct device *dev = add(&debug_exit_type, "iobase", "0xf4");

    outb(0xf4, 0x10);
    assert_int_equal(kit.shutdowns, 1);
    assert_int_equal(kit.exit_status, 0x21);
    outw(0xf4, 0);
    assert_int_equal(kit.exit_status, 1);
    assert_int_equal(inb(0xf4), 0);
    kit_check_vmstate(dev);
    device_free(dev);
    outb(0xf4, 1);
    assert_int_equal(kit.shutdowns, 2);
    /* The default place, two ports. */
    add(&debug_exit_type, NULL, NULL);
    outl(0x4ff, 0);
    assert_int_equal(kit.shutdowns, 3);
    dev = device_new(&debug_exit_type);
    assert_false(device_set(dev, "iobase", "0x10000", NULL));
    assert_true(device_set(dev, "iobase", "0xffff", NULL));
    assert_false(device_realize(dev, kit.isa, NULL));
    device_free(dev);
}

static void test_debugcon(void **state)
{
    struct error *err = NULL;
    char path[] = "/tmp/ferry-debugcon-XXXXXX", text[8] = {0};
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    struct device *dev = device_new(&debugcon_type);
    assert_false(device_realize(dev, kit.isa, &err));
    assert_string_equal(error_message(err), "Can't create debugcon device, empty char device");
    error_free(err);
    err = NULL;
    char legacy[64];
    snprintf(legacy, sizeof(legacy), "file:%s", path);
    machine_unlock();
    struct chardev *chr = chardev_new_from_legacy(legacy, "d0", &err);
    machine_lock();
    assert_non_null(chr);
    assert_true(device_set(dev, "chardev", "d0", NULL));
    assert_true(device_realize(dev, kit.isa, NULL));
    assert_int_equal(inb(0xe9), 0xe9);
    outb(0xe9, 'o');
    outb(0xe9, 'k');
    assert_int_equal(pread(fd, text, sizeof(text), 0), 2);
    assert_string_equal(text, "ok");
    device_free(dev);
    machine_unlock();
    chardevs_cleanup();
    machine_lock();
    close(fd);
    unlink(path);
}

static void test_pc_testdev(void **state)
{
    struct device *dev = add(&pc_testdev_type, NULL, NULL);

    outl(0xe0, 0x12345678);
    assert_int_equal(inb(0xe0), 0x78);
    assert_int_equal(inw(0xe2), 0x1234);
    assert_int_equal(inl(0xe8), 0x12345678);
    outb(0xe9, 0xaa);
    assert_int_equal(inl(0xe0), 0x1234aa78);
    outb(0x2005, 1);
    assert_int_equal(kit.level[5], 1);
    outb(0x2005, 0);
    assert_int_equal(kit.level[5], 0);
    outb(0x2017, 1); /* an ISA bus has 16 */
    writel(0xff000ffc, 0xcafebabe);
    assert_int_equal(readl(0xff000ffc), 0xcafebabe);
    kit_check_vmstate(dev);
    assert_int_equal(readl(0xff000ffc), 0xcafebabe);
    outl(0xe4, 0x1000); /* no RAM there */
    kit_hammer_ports(0xe0, 12, 5000, 51);
    kit_hammer_ports(0x1ff8, 40, 5000, 52);
    kit_hammer_memory(0xfeffff00, 0x10200, 5000, 53);
}

static void test_pc_testdev_flush(void **state)
{
    struct mem_region ram;
    uint8_t byte = 0x5a;

    memset(&ram, 0, sizeof(ram));
    assert_true(mem_region_init_ram(&ram, "ram", 16 * 4096, false, NULL));
    mem_region_add(mem_root(), 0, &ram);
    struct device *dev = add(&pc_testdev_type, NULL, NULL);
    address_space_write(address_space_memory, 0x3004, &byte, 1);
    outl(0xe4, 0x3004);
    byte = 0;
    address_space_read(address_space_memory, 0x3004, &byte, 1);
    assert_int_equal(byte, 0x5a);
    address_space_write(address_space_memory, 0x3004, &byte, 1); /* still writable */
    device_free(dev);
    mem_region_remove(mem_root(), &ram);
    mem_region_destroy(&ram);
}

static struct {
    _Atomic(bool) stop;
    _Atomic(uint8_t) *page;
} writer;

/* Another vCPU of the soft CPU: stores to the host's page. */
static void *write_page(void *opaque)
{
    while (!writer.stop) {
        for (unsigned i = 8; i < 4096; i++) { /* the kernel has the first ones */
            writer.page[i] = (uint8_t)i;
        }
    }
    return NULL;
}

/* The page can be written all the time, by vCPUs and by the kernel for them. */
static void test_pc_testdev_flush_written_page(void **state)
{
    struct mem_region ram;
    pthread_t thread;
    int zero = open("/dev/zero", O_RDONLY);

    memset(&ram, 0, sizeof(ram));
    assert_true(mem_region_init_ram(&ram, "ram", 16 * 4096, false, NULL));
    mem_region_add(mem_root(), 0, &ram);
    struct device *dev = add(&pc_testdev_type, NULL, NULL);
    writer.page = (void *)(ram.ram->host + 0x3000);
    writer.stop = false;
    pthread_create(&thread, NULL, write_page, NULL);
    for (unsigned i = 0; i < 20000; i++) {
        outl(0xe4, 0x3000);
        assert_int_equal(read(zero, ram.ram->host + 0x3000, 8), 8);
    }
    writer.stop = true;
    pthread_join(thread, NULL);
    close(zero);
    device_free(dev);
    mem_region_remove(mem_root(), &ram);
    mem_region_destroy(&ram);
}

/* Ports of two devices do not overlap unnoticed. */
static void test_port_conflict(void **state)
{
    struct error *err = NULL;

    port80_new(kit.isa, NULL);
    struct device *dev = device_new(&debug_exit_type);
    assert_true(device_set(dev, "iobase", "0x7f", NULL));
    assert_false(device_realize(dev, kit.isa, &err));
    assert_string_equal(error_message(err), "isa-debug-exit: port 0x80 belongs to isa-post "
                                            "(0x80-0x80); choose another iobase");
    error_free(err);
    device_free(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f)    cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
#define PM_TEST(f) cmocka_unit_test_setup_teardown(f, pm_setup, pm_teardown)
        TEST(test_port80),
        TEST(test_port92),
        TEST(test_pcspk_without_pit),
        PM_TEST(test_acpi_enable),
        PM_TEST(test_power_button),
        PM_TEST(test_pm_timer),
        PM_TEST(test_sleep),
        PM_TEST(test_gpe),
        PM_TEST(test_pm_hostile),
        TEST(test_debug_exit),
        TEST(test_debugcon),
        TEST(test_pc_testdev),
        TEST(test_pc_testdev_flush),
        TEST(test_pc_testdev_flush_written_page),
        TEST(test_port_conflict),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
