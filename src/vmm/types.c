/* SPDX-License-Identifier: MIT */
#include "vmm/types.h"

#include <stddef.h>

#include "device/iothread.h"
#include "device/throttle_object.h"
#include "device/tls_object.h"
#include "hw/gsi.h"
#include "hw/i440fx.h"
#include "hw/i8042.h"
#include "hw/ich9.h"
#include "hw/ioapic.h"
#include "hw/isa_misc.h"
#include "hw/pic.h"
#include "hw/piix.h"
#include "hw/pit.h"
#include "hw/q35.h"
#include "hw/rtc.h"
#include "hw/serial.h"
#include "hw/virtio/virtio_blk.h"
#include "machine/generic_loader.h"

const struct device_type *const ferry_types[] = {
    /* objects */
    &iothread_type,
    &throttle_group_type,
    &tls_creds_x509_type,
    &tls_creds_psk_type,
    /* chipset; made by a machine */
    &gsi_type,
    &i440fx_pcihost_type,
    &i440fx_type,
    &piix3_type,
    &piix4_pm_type,
    &q35_pcihost_type,
    &mch_type,
    &ich9_lpc_type,
    &pic_type,
    &ioapic_type,
    &pit_type,
    &rtc_type,
    &i8042_type,
    &pcspk_type,
    &port80_type,
    &port92_type,
    /* the user's */
    &isa_serial_type,
    &debug_exit_type,
    &debugcon_type,
    &pc_testdev_type,
    &pci_testdev_type,
    &generic_loader_type,
    &virtio_blk_pci_type,
    &virtio_blk_pci_non_transitional_type,
    NULL,
};
