/* SPDX-License-Identifier: MIT */
/*
 * The generic loader: -device loader puts bytes into guest memory at every reset.
 *
 *   -device loader,addr=ADDR,data=VALUE,data-len=1..8[,data-be=on]
 *   -device loader,file=FILE[,addr=ADDR][,force-raw=on][,cpu-num=N]
 *
 * A file is loaded as ELF by its own addresses, unless force-raw is on or it is none: then it needs
 * addr. With cpu-num, that vCPU starts at the ELF entry, or at addr.
 */
#ifndef FERRY_MACHINE_GENERIC_LOADER_H
#define FERRY_MACHINE_GENERIC_LOADER_H

#include "accel/x86_state.h"
#include "device/device.h"

extern const struct device_type generic_loader_type;

/* Whether a -device loader has been realized. */
bool generic_loader_exists(void);
/* Where a loader wants vCPU index to start; false if none does. */
bool generic_loader_entry(unsigned index, uint64_t *rip);

#endif
