/* SPDX-License-Identifier: MIT */
/*
 * The engine of -accel qtest: no CPU at all. A test drives the machine from outside by the qtest
 * protocol, and moves the virtual clock by hand. Interrupts end in ferry's own chips, where the
 * test intercepts them; messages that would go to a LAPIC are dropped.
 */
#include "accel/accel.h"
#include "aio/clock.h"
#include "base/alloc.h"

extern const struct accel_ops qtest_ops;

static struct accel *qtest_create(const struct accel_config *config, struct error **errp)
{
    struct accel *accel = xnew(struct accel);

    accel->ops = &qtest_ops;
    accel->irqchip = config->irqchip;
    accel->has_smm = true; /* nobody enters it, but the chipset is as with an engine that has */
    clock_virtual_set_manual();
    return accel;
}

static void qtest_destroy(struct accel *accel)
{
    free(accel);
}

static bool qtest_supported_cpuid(struct accel *accel, uint32_t leaf, uint32_t subleaf,
                                  uint32_t regs[4])
{
    return false;
}

static void qtest_irq_set(struct accel *accel, unsigned gsi, int level)
{
}

static void qtest_msi_send(struct accel *accel, const struct msi_message *msg)
{
}

const struct accel_ops qtest_ops = {
    .name = "qtest",
    .description = "no CPU; the machine is driven by the qtest protocol",
    .supports_irqchip = {[IRQCHIP_OFF] = true},
    .default_irqchip = IRQCHIP_OFF,
    .create = qtest_create,
    .destroy = qtest_destroy,
    .supported_cpuid = qtest_supported_cpuid,
    .irq_set = qtest_irq_set,
    .msi_send = qtest_msi_send,
};
