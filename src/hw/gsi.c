/* SPDX-License-Identifier: MIT */
#include "hw/gsi.h"

#include <string.h>

#include "accel/accel.h"
#include "aio/clock.h"
#include "hw/chip_state.h"
#include "hw/ioapic.h"
#include "hw/pic.h"
#include "mem/machine_lock.h"

enum gsi_source { GSI_SOURCE_LINE, GSI_SOURCE_PIRQ, GSI_SOURCE_SCI };

#define GSI_CASCADE     2
#define IOAPIC_PIN_IRQ0 2

static const struct accel *engine(const struct gsi_state *gsi)
{
    return gsi->pic ? NULL : accel_current();
}

/* ---- wires ---------------------------------------------------------------------------------- */

static void gsi_drive(struct gsi_state *gsi, unsigned n, int level)
{
    if (!gsi->pic) {
        struct accel *accel = accel_current();
        accel->ops->irq_set(accel, n, level);
        return;
    }
    if (n < GSI_ISA_COUNT && n != GSI_CASCADE) {
        irq_set(&gsi->pic->gpio_in[n], level);
    }
    if (n == 0) {
        irq_set(&gsi->ioapic->gpio_in[IOAPIC_PIN_IRQ0], level);
    } else if (n != GSI_CASCADE) {
        irq_set(&gsi->ioapic->gpio_in[n], level);
    }
}

static void gsi_set(void *opaque, unsigned n, int level)
{
    struct gsi_state *gsi = opaque;
    unsigned wire = n % GSI_COUNT;
    uint8_t source = (uint8_t)(1u << (n / GSI_COUNT));
    uint8_t old = gsi->level[wire];

    gsi->level[wire] = level ? old | source : (uint8_t)(old & ~source);
    if (!old != !gsi->level[wire]) {
        gsi_drive(gsi, wire, gsi->level[wire] != 0);
    }
}

/* ---- chips of the engine -------------------------------------------------------------------- */

static uint32_t gsi_wires(const struct gsi_state *gsi)
{
    uint32_t wires = 0;

    for (unsigned i = 0; i < GSI_COUNT; i++) {
        wires |= gsi->level[i] ? 1u << i : 0;
    }
    return wires;
}

static bool engine_load(struct gsi_state *gsi)
{
    struct accel *accel = accel_current();
    const struct accel_ops *ops = accel->ops;

    return (!ops->set_pic || ops->set_pic(accel, gsi->engine_pic)) &&
           (!ops->set_ioapic || ops->set_ioapic(accel, &gsi->engine_ioapic)) &&
           (!gsi->engine_has_pit || !ops->set_pit || ops->set_pit(accel, &gsi->engine_pit));
}

static void gsi_reset(struct device *dev)
{
    struct gsi_state *gsi = (struct gsi_state *)dev;

    if (!engine(gsi)) {
        return; /* PIC and IOAPIC are devices of their own */
    }
    uint32_t wires = gsi_wires(gsi);
    gsi->engine_pic[0].last_irr = (uint8_t)wires;
    gsi->engine_pic[1].last_irr = (uint8_t)(wires >> 8);
    gsi->engine_ioapic.irr = (wires & ~7u) | (wires & 2) | (wires & 1) << IOAPIC_PIN_IRQ0;
    x86_pic_reset(gsi->engine_pic);
    x86_ioapic_reset(&gsi->engine_ioapic);
    x86_pit_reset(&gsi->engine_pit, clock_get_ns(AIO_CLOCK_VIRTUAL));
    engine_load(gsi);
}

static void gsi_pre_save(void *device)
{
    struct gsi_state *gsi = device;
    struct accel *accel = accel_current();

    if (!engine(gsi)) {
        return;
    }
    if (accel->ops->get_pic) {
        accel->ops->get_pic(accel, gsi->engine_pic);
    }
    if (accel->ops->get_ioapic) {
        accel->ops->get_ioapic(accel, &gsi->engine_ioapic);
    }
    if (gsi->engine_has_pit && accel->ops->get_pit) {
        accel->ops->get_pit(accel, &gsi->engine_pit);
    }
}

static bool gsi_post_load(void *device, unsigned version)
{
    struct gsi_state *gsi = device;

    for (unsigned i = 0; i < GSI_COUNT; i++) {
        if (gsi->level[i] >> (GSI_SOURCE_SCI + 1)) {
            return false;
        }
    }
    return !engine(gsi) || engine_load(gsi);
}

void gsi_set_elcr(struct gsi_state *gsi, uint16_t elcr)
{
    struct accel *accel = accel_current();
    struct x86_pic pic[2];

    if (gsi->pic) {
        pic_get_state(gsi->pic, pic);
    } else if (!accel->ops->get_pic || !accel->ops->get_pic(accel, pic)) {
        return;
    }
    pic[0].elcr = (uint8_t)elcr & pic[0].elcr_mask;
    pic[1].elcr = (uint8_t)(elcr >> 8) & pic[1].elcr_mask;
    if (gsi->pic) {
        pic_set_state(gsi->pic, pic);
    } else if (accel->ops->set_pic) {
        accel->ops->set_pic(accel, pic);
    }
}

/* ---- device --------------------------------------------------------------------------------- */

static const struct vmstate_field gsi_fields[] = {
    VMSTATE_ARRAY(struct gsi_state, level),
    VMSTATE_SUB(struct gsi_state, engine_pic, x86_pic_vmstate, 2),
    VMSTATE_SUB(struct gsi_state, engine_ioapic, x86_ioapic_vmstate, 1),
    VMSTATE_SUB(struct gsi_state, engine_pit, x86_pit_vmstate, 1),
    VMSTATE_END,
};

static const struct vmstate gsi_vmstate = {
    .name = "gsi",
    .version = 1,
    .minimum_version = 1,
    .fields = gsi_fields,
    .pre_save = gsi_pre_save,
    .post_load = gsi_post_load,
};

static void gsi_init(struct device *dev)
{
    struct gsi_state *gsi = (struct gsi_state *)dev;

    for (unsigned i = 0; i < GSI_COUNT; i++) {
        gsi->line[i] = irq_make(gsi_set, gsi, GSI_SOURCE_LINE * GSI_COUNT + i);
        gsi->pirq[i] = irq_make(gsi_set, gsi, GSI_SOURCE_PIRQ * GSI_COUNT + i);
        gsi->sci[i] = irq_make(gsi_set, gsi, GSI_SOURCE_SCI * GSI_COUNT + i);
    }
}

const struct device_type gsi_type = {
    .name = "gsi",
    .description = "Wires to the interrupt chips",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "System",
    .size = sizeof(struct gsi_state),
    .internal = true,
    .init = gsi_init,
    .reset = gsi_reset,
    .vmstate = &gsi_vmstate,
};

struct gsi_state *gsi_new(bool has_pit, struct error **errp)
{
    struct accel *accel = accel_current();
    struct gsi_state *gsi = (struct gsi_state *)device_new(&gsi_type);

    gsi->engine_has_pit = has_pit;
    x86_pic_reset(gsi->engine_pic);
    x86_ioapic_reset(&gsi->engine_ioapic);
    x86_pit_reset(&gsi->engine_pit, 0);
    if (!accel || accel->irqchip != IRQCHIP_ON) {
        /* They come first, so that they are reset first. */
        gsi->pic = pic_new(errp);
        gsi->ioapic = gsi->pic ? ioapic_new(errp) : NULL;
        if (!gsi->ioapic) {
            device_free(&gsi->dev);
            return NULL;
        }
        if (accel) {
            accel->extint_ack = pic_ack;
            accel->extint_opaque = gsi->pic;
            accel->eoi_broadcast = ioapic_eoi;
            accel->eoi_opaque = gsi->ioapic;
        }
    }
    if (!device_realize(&gsi->dev, system_bus(), errp)) {
        device_free(&gsi->dev);
        return NULL;
    }
    return gsi;
}
