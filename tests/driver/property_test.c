/* SPDX-License-Identifier: MIT */
/* What users write after -device virtio-blk-pci: what it does, and the errors for what it cannot. */
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "blkdriver.h"
#include "cm.h"
#include "device/boot_order.h"
#include "fake_accel.h"
#include "fake_disk.h"
#include "hw/virtio/virtio.h"
#include "mem/machine_lock.h"

static struct vdriver driver;

static int setup(void **state)
{
    rig_init(true);
    blk_add_fake_disk("");
    return 0;
}

static int teardown(void **state)
{
    rig_destroy();
    return 0;
}

static void test_errors(void **state)
{
    static const struct {
        const char *options, *error;
    } cases[] = {
        {"", "virtio-blk-pci: drive property not set"},
        {",drive=nowhere", "Cannot find device='nowhere'"},
        {",drive=disk,num-queues=0", "num-queues property must be larger than 0"},
        {",drive=disk,num-queues=2", "num-queues=2: only one queue is supported"},
        {",drive=disk,queue-size=100",
         "invalid queue-size property (100), must be a power of 2 (max 1024)"},
        {",drive=disk,queue-size=2048",
         "invalid queue-size property (2048), must be a power of 2 (max 1024)"},
        {",drive=disk,queue-size=2", "invalid queue-size property (2), must be > 2"},
        {",drive=disk,logical_block_size=1000", "it's not a power of 2"},
        {",drive=disk,logical_block_size=256",
         "Property virtio-blk-pci.logical_block_size doesn't take value 256 (minimum: 512"},
        {",drive=disk,logical_block_size=4096,physical_block_size=512",
         "logical_block_size > physical_block_size not supported"},
        {",drive=disk,logical_block_size=4096,min_io_size=512",
         "min_io_size must be a multiple of logical_block_size"},
        {",drive=disk,opt_io_size=513", "opt_io_size must be a multiple of logical_block_size"},
        {",drive=disk,discard_granularity=100",
         "discard_granularity must be a multiple of logical_block_size"},
        {",drive=disk,max-discard-sectors=0", "invalid max-discard-sectors property (0)"},
        {",drive=disk,max-write-zeroes-sectors=4194304",
         "invalid max-write-zeroes-sectors property (4194304)"},
        {",drive=disk,rerror=enospc", "'enospc' invalid read error action"},
        {",drive=disk,werror=maybe", "'maybe' invalid write error action"},
        {",drive=disk,disable-modern=on", "disable-modern=on is not possible"},
        {",drive=disk,disable-legacy=off", "disable-legacy=off is not possible"},
        {",drive=disk,iommu_platform=on", "iommu_platform=on needs an IOMMU"},
        {",drive=disk,ats=on", "ats=on needs an IOMMU"},
        {",drive=disk,packed=on", "packed=on is not possible"},
        {",drive=disk,modern-pio-notify=on", "modern-pio-notify=on is not supported"},
        {",drive=disk,vectors=66", "vectors=66 is too much"},
        {",drive=disk,iothread=none", "Device 'none' not found"},
        {",drive=disk,romfile=/nonexistent", "failed to find romfile \"/nonexistent\""},
        {",drive=disk,sreial=1", "Property 'virtio-blk-pci.sreial' not found"},
        {",drive=disk,ioeventfd=maybe", "Parameter 'ioeventfd' expects 'on' or 'off'"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        autofree char *text = xasprintf("virtio-blk-pci,addr=3%s", cases[i].options);
        const char *error = rig_device_error(text);
        if (!strstr(error, cases[i].error)) {
            fail_msg("%s: %s", cases[i].options, error);
        }
        assert_null(strchr(error, '\n'));
    }
    /* None of them has left anything behind. */
    blk_add_device(&driver, "");
    vdriver_start(&driver, 0, 0, true);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
}

static void test_one_disk_twice(void **state)
{
    blk_add_device(&driver, "");
    assert_non_null(
        strstr(rig_device_error("virtio-blk-pci,drive=disk"), "'disk' is already in use by 'vd'"));
    assert_string_equal(rig_device_error("virtio-blk-pci,drive=disk,addr=3,id=b"),
                        "PCI: slot 3 function 0 not available for virtio-blk-pci, in use by "
                        "virtio-blk-pci,id=vd");
}

/* share-rw=on: two devices write to one node and see each other's data. */
static void test_shared_disk(void **state)
{
    struct vdriver other;

    rig_device("virtio-blk-pci,id=b,addr=4,drive=disk,share-rw=on");
    assert_non_null(
        strstr(rig_device_error("virtio-blk-pci,drive=disk,addr=5"),
               "node 'disk' is already in use by 'b', so 'virtio-blk-pci' cannot write"));
    blk_add_device(&driver, ",share-rw=on");
    vdriver_start(&driver, 0, 0, true);
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 7, 512);
    memset(guest_ram(w.data), 0x5a, 512);
    assert_int_equal(blk_perform(&driver, &w), VIRTIO_BLK_S_OK);
    assert_true(vdriver_reset(&driver));

    vdriver_probe(&other, PCI_DEVFN(4, 0));
    vdriver_start(&other, 0, 0, true);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&other, &r), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(r.data), guest_ram(w.data), 512);
    memset(guest_ram(w.data), 0x33, 512);
    assert_int_equal(blk_perform(&other, &w), VIRTIO_BLK_S_OK);
    assert_int_equal(fake_disk.data[7 * 512], 0x33);
}

static void remove_device(const char *id)
{
    machine_lock();
    device_free(device_find(id));
    machine_unlock();
}

static void check_boot_order(const char *ids)
{
    char got[64] = "";

    for (const struct boot_device *b = boot_order_first(); b; b = b->next) {
        size_t used = strlen(got);
        snprintf(got + used, sizeof(got) - used, "%s=%d ", b->dev->id, b->index);
    }
    assert_string_equal(got, ids);
}

static void test_boot_order(void **state)
{
    blk_add_node("driver=null-co,node-name=n,read-only=on");
    rig_device("virtio-blk-pci,id=a,drive=n,bootindex=5");
    rig_device("virtio-blk-pci,id=none,drive=n");
    rig_device("virtio-blk-pci,id=b,drive=n,bootindex=0");
    rig_device("virtio-blk-pci,id=minus,drive=n,bootindex=-5");
    rig_device("virtio-blk-pci,id=c,drive=n,bootindex=2147483647");
    rig_device("virtio-blk-pci,id=d,drive=n,bootindex=3");
    check_boot_order("b=0 d=3 a=5 c=2147483647 ");
    assert_string_equal(rig_device_error("virtio-blk-pci,drive=n,bootindex=5"),
                        "The bootindex 5 has already been used");
    assert_string_equal(rig_device_error("virtio-blk-pci,drive=n,bootindex=2147483648"),
                        "Parameter 'bootindex' expects int32_t");
    /* A device that could not be made leaves no place taken. */
    rig_device_error("virtio-blk-pci,drive=nowhere,bootindex=4");
    rig_device_error("virtio-blk-pci,drive=n,bootindex=4,vectors=66");
    check_boot_order("b=0 d=3 a=5 c=2147483647 ");
    remove_device("a");
    remove_device("b");
    rig_device("virtio-blk-pci,id=e,drive=n,bootindex=5");
    check_boot_order("d=3 e=5 c=2147483647 ");
    for (const char *ids = "cde"; *ids; ids++) {
        remove_device((char[2]){*ids});
    }
    check_boot_order("");
}

static void test_identity(void **state)
{
    blk_add_device(&driver, "");
    assert_int_equal(guest_config_read(BLK_DEVFN, 0, 4), 0x10421af4);
    assert_int_equal(guest_config_read(BLK_DEVFN, PCI_CLASS_REVISION, 4), 0x01000001);
    assert_int_equal(guest_config_read(BLK_DEVFN, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
    assert_int_equal(guest_config_read(BLK_DEVFN, PCI_INTERRUPT_PIN, 1), 1);
    /* BAR 1: MSI-X, 4 KiB; BAR 4: 64-bit, prefetchable, 16 KiB. */
    assert_int_equal(guest_config_read(BLK_DEVFN, 0x14, 4) & 0xf, 0);
    assert_int_equal(guest_config_read(BLK_DEVFN, 0x20, 4) & 0xf, 0xc);
    guest_config_write(BLK_DEVFN, 0x14, UINT32_MAX, 4);
    assert_int_equal(guest_config_read(BLK_DEVFN, 0x14, 4), 0xfffff000);
    guest_config_write(BLK_DEVFN, 0x20, UINT32_MAX, 4);
    assert_int_equal(guest_config_read(BLK_DEVFN, 0x20, 4), 0xffffc00c);
    assert_int_equal(driver.msix_vectors, 2);
    assert_int_equal(driver.isr - driver.common, 0x1000);
    assert_int_equal(driver.device - driver.common, 0x2000);
    assert_int_equal(driver.notify - driver.common, 0x3000);
    assert_int_equal(driver.notify_multiplier, 4);
}

static void works(bool msix)
{
    vdriver_start(&driver, UINT64_MAX & ~BIT64(VIRTIO_F_RING_EVENT_IDX), 0, msix);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&r, 7 * 512));
}

static void test_no_vectors(void **state)
{
    blk_add_device(&driver, ",vectors=0");
    assert_int_equal(driver.msix_capability, 0);
    works(false);
}

static void test_page_per_vq(void **state)
{
    blk_add_device(&driver, ",page-per-vq=on");
    assert_int_equal(driver.notify_multiplier, 4096);
    works(true);
}

static void test_features_off(void **state)
{
    blk_add_device(&driver, ",event_idx=off,indirect_desc=off,discard=off,write-zeroes=off,"
                            "config-wce=off,disable-legacy=on,iommu_platform=off");
    uint64_t features = vdriver_host_features(&driver);
    assert_false(features & (BIT64(VIRTIO_F_RING_EVENT_IDX) | BIT64(VIRTIO_F_RING_INDIRECT_DESC) |
                             BIT64(VIRTIO_BLK_F_DISCARD) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES) |
                             BIT64(VIRTIO_BLK_F_CONFIG_WCE)));
    assert_true(features & BIT64(VIRTIO_BLK_F_FLUSH));
    works(true);
}

static void test_queue_size(void **state)
{
    blk_add_device(&driver, ",queue-size=1024");
    works(true);
    assert_int_equal(driver.queue.size, 1024);
    assert_int_equal(guest_read(driver.device + 12, 4), 1022);
    machine_lock();
    device_free(device_find("vd"));
    machine_unlock();
    blk_add_device(&driver, ",queue-size=4,seg-max-adjust=off");
    works(true);
    assert_int_equal(driver.queue.size, 4);
    assert_int_equal(guest_read(driver.device + 12, 4), 126);
}

static void test_aliases(void **state)
{
    rig_device("virtio-blk,addr=3,drive=disk,id=a");
    machine_lock();
    device_free(device_find("a"));
    machine_unlock();
    rig_device("virtio-blk-pci-non-transitional,addr=3,drive=disk");
    rig_assign();
    vdriver_probe(&driver, BLK_DEVFN);
    works(true);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),     TEST(test_one_disk_twice), TEST(test_identity),
        TEST(test_no_vectors), TEST(test_page_per_vq),    TEST(test_features_off),
        TEST(test_queue_size), TEST(test_aliases),        TEST(test_shared_disk),
        TEST(test_boot_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
