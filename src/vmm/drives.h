/* SPDX-License-Identifier: MIT */
/*
 * -drive options: each opens a backend; those with if=virtio get a virtio-blk-pci once the machine
 * has a PCI bus. Main thread.
 */
#ifndef FERRY_VMM_DRIVES_H
#define FERRY_VMM_DRIVES_H

#include "vmm/cmdline.h"

/* snapshot: -snapshot, the default of snapshot=. */
bool drives_open(const struct text_list *drives, bool snapshot, struct error **errp);
bool drives_add_devices(struct error **errp);
void drives_close(void);

#endif
