/* SPDX-License-Identifier: MIT */
/*
 * The reset control register at port 0xcf9 of PIIX3 and ICH9 (82371SB 4.3; ICH9 13.7.5): bit 1
 * chooses a hard reset, and setting bit 2 resets; bit 3 asks for a full reset.
 *
 * It lies within the doubleword of the PCI configuration address at 0xcf8. So its region covers
 * that doubleword, above the host bridge's: a byte at 0xcf9 is ours, and all else goes to the host
 * bridge.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_RESET_CONTROL_H
#define FERRY_HW_RESET_CONTROL_H

#include "mem/region.h"

#define RESET_CONTROL_PORT 0xcf9

/* Embedded in the south bridge. */
struct reset_control {
    /* constant */
    struct mem_region region;
    struct mem_region *io, *config_address;
    /* machine state */
    uint8_t value;
};

/* config_address: the host bridge's region at 0xcf8. */
void reset_control_init(struct reset_control *rc, struct mem_region *io,
                        struct mem_region *config_address);
void reset_control_destroy(struct reset_control *rc);

#endif
