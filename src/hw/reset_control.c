/* SPDX-License-Identifier: MIT */
#include "hw/reset_control.h"

#include "device/system.h"

#define CONFIG_ADDRESS_PORT 0xcf8
#define OFFSET              (RESET_CONTROL_PORT - CONFIG_ADDRESS_PORT)
#define BIT_HARD            0x02
#define BIT_RESET           0x04
#define BIT_FULL            0x08

static uint64_t reset_control_read(void *opaque, uint64_t offset, unsigned size)
{
    struct reset_control *rc = opaque;
    uint64_t value;

    if (offset == OFFSET && size == 1) {
        return rc->value;
    }
    mem_region_dispatch_read(rc->config_address, offset, &value, size);
    return value;
}

static void reset_control_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct reset_control *rc = opaque;

    if (offset != OFFSET || size != 1) {
        mem_region_dispatch_write(rc->config_address, offset, value, size);
        return;
    }
    rc->value = value & (BIT_HARD | BIT_FULL);
    if (value & BIT_RESET) {
        system_reset_request(SYSTEM_CAUSE_GUEST_RESET);
    }
}

static const struct mem_region_ops reset_control_ops = {
    .read = reset_control_read,
    .write = reset_control_write,
    .valid = {.min = 1, .max = 4},
};

void reset_control_init(struct reset_control *rc, struct mem_region *io,
                        struct mem_region *config_address)
{
    rc->io = io;
    rc->config_address = config_address;
    rc->value = 0;
    mem_region_init_io(&rc->region, "reset-control", 4, &reset_control_ops, rc);
    mem_region_add_overlap(io, CONFIG_ADDRESS_PORT, &rc->region, 1);
}

void reset_control_destroy(struct reset_control *rc)
{
    if (rc->io) {
        mem_region_remove(rc->io, &rc->region);
        mem_region_destroy(&rc->region);
        rc->io = NULL;
    }
}
