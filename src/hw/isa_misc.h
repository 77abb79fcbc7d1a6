/* SPDX-License-Identifier: MIT */
/*
 * The single ports of a PC: 0x61 (speaker and counter 2's gate), 0x80 (power-on self-test code),
 * 0x92 (A20 gate and fast reset), and the devices that tests use.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_ISA_MISC_H
#define FERRY_HW_ISA_MISC_H

#include "device/device.h"

extern const struct device_type pcspk_type;       /* "isa-pcspk": port 0x61 */
extern const struct device_type port80_type;      /* "isa-post": port 0x80 */
extern const struct device_type port92_type;      /* "port92"; gpio_out[0]: A20 gate */
extern const struct device_type debug_exit_type;  /* "isa-debug-exit" */
extern const struct device_type debugcon_type;    /* "isa-debugcon" */
extern const struct device_type pc_testdev_type;  /* "pc-testdev" */
extern const struct device_type pci_testdev_type; /* "pci-testdev" */

/* pit NULL: there is none of ferry's; then port 0x61 shows a counter that stands still. Do not make
 * it at all when the engine has the PIT: port 0x61 belongs to it then. */
struct device *pcspk_new(struct bus *isa, struct device *pit, struct error **errp);
struct device *port80_new(struct bus *isa, struct error **errp);
uint8_t port80_last(struct device *port80); /* the last code written */
struct device *port92_new(struct bus *isa, struct error **errp);

#endif
