/* SPDX-License-Identifier: MIT */
/* State tables of the neutral chip structs, shared by the chips and by gsi (engines' chips). */
#ifndef FERRY_HW_CHIP_STATE_H
#define FERRY_HW_CHIP_STATE_H

#include "device/vmstate.h"

extern const struct vmstate x86_pic_vmstate, x86_ioapic_vmstate, x86_pit_channel_vmstate,
    x86_pit_vmstate;

#endif
