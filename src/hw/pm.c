/* SPDX-License-Identifier: MIT */
#include "hw/pm.h"

#include <string.h>

#include "base/log.h"
#include "base/range.h"
#include "device/iothread.h"
#include "device/system.h"
#include "mem/machine_lock.h"

#define PM1_TMR    0x0001
#define PM1_GBL    0x0020
#define PM1_PWRBTN 0x0100
#define PM1_SLPBTN 0x0200
#define PM1_RTC    0x0400
#define PM1_WAK    0x8000
#define PM1_EVENTS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)

#define CNT_SCI_EN    0x0001
#define CNT_BM_RLD    0x0002
#define CNT_SLP_TYP   0x1c00
#define CNT_SLP_SHIFT 10
#define CNT_SLP_EN    0x2000
#define CNT_KEPT      (CNT_SCI_EN | CNT_BM_RLD | CNT_SLP_TYP)

#define TIMER_BITS 24

static struct acpi_pm *the_pm; /* of the machine; for the power button. Machine lock. */

/* ---- PM timer ------------------------------------------------------------------------------- */

static uint64_t timer_ticks(void)
{
    return (uint64_t)((unsigned __int128)clock_get_ns(AIO_CLOCK_VIRTUAL) * ACPI_PM_TIMER_FREQUENCY /
                      (uint64_t)NS_PER_SEC);
}

/* The top bit has changed that often since the clock began. */
static uint64_t timer_halves(void)
{
    return timer_ticks() >> (TIMER_BITS - 1);
}

static int64_t half_ns(uint64_t half)
{
    unsigned __int128 ticks = (unsigned __int128)half << (TIMER_BITS - 1);

    return (int64_t)((ticks * NS_PER_SEC + ACPI_PM_TIMER_FREQUENCY - 1) / ACPI_PM_TIMER_FREQUENCY);
}

/* A pure function of the clock: needs no lock. */
static uint64_t timer_read(void *opaque, uint64_t offset, unsigned size)
{
    return (timer_ticks() & (BIT(TIMER_BITS) - 1)) >> (offset * 8);
}

static void write_nothing(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mem_region_ops timer_ops = {
    .read = timer_read,
    .write = write_nothing,
    .valid = {.min = 1, .max = 4},
    .lockless = true,
};

/* ---- SCI ------------------------------------------------------------------------------------ */

static bool gpe_pending(const struct acpi_pm *pm)
{
    unsigned half = pm->config.gpe_length / 2;

    for (unsigned i = 0; i < half; i++) {
        if (pm->gpe_registers[i] & pm->gpe_registers[half + i]) {
            return true;
        }
    }
    return false;
}

void acpi_pm_update(struct acpi_pm *pm)
{
    uint64_t halves = timer_halves();

    if (halves > pm->timer_halves) {
        pm->pm1_status |= PM1_TMR;
    }
    pm->timer_halves = halves;

    uint8_t level = pm->pm1_control & CNT_SCI_EN &&
                    (pm->pm1_status & pm->pm1_enable & PM1_EVENTS || gpe_pending(pm));
    if (level != pm->sci_level) {
        pm->sci_level = level;
        pm->config.set_sci(pm->config.opaque, level);
    }
    if (pm->pm1_enable & PM1_TMR && !(pm->pm1_status & PM1_TMR)) {
        timer_set(&pm->timer, half_ns(halves + 1));
    } else {
        timer_cancel(&pm->timer);
    }
}

static void timer_fired(void *opaque)
{
    machine_lock();
    acpi_pm_update(opaque);
    machine_unlock();
}

/* ---- PM1 event: status at 0, enable at 2 ---------------------------------------------------- */

static uint64_t event_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;

    acpi_pm_update(pm);
    uint32_t registers = pm->pm1_status | (uint32_t)pm->pm1_enable << 16;
    return registers >> (offset * 8);
}

static void event_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct acpi_pm *pm = opaque;
    uint32_t mask = (uint32_t)(UINT64_MAX >> (64 - size * 8) << (offset * 8));
    uint32_t bits = (uint32_t)(value << (offset * 8)) & mask;

    acpi_pm_update(pm);
    pm->pm1_status &= (uint16_t)~bits; /* ones clear */
    pm->pm1_enable = (uint16_t)((pm->pm1_enable & ~(mask >> 16)) | (bits >> 16)) & PM1_EVENTS;
    acpi_pm_update(pm);
}

static const struct mem_region_ops event_ops = {
    .read = event_read,
    .write = event_write,
    .valid = {.min = 1, .max = 4},
};

/* ---- PM1 control ---------------------------------------------------------------------------- */

static void enter_sleep(struct acpi_pm *pm)
{
    unsigned type = (pm->pm1_control & CNT_SLP_TYP) >> CNT_SLP_SHIFT;

    if (type == ACPI_SLP_TYPE_S5) {
        system_shutdown_request(SYSTEM_CAUSE_GUEST_SHUTDOWN);
    } else {
        /* The DSDT offers no other state: the guest wakes at once. */
        log_guest_error("ACPI: sleep type %u is not one that the machine offers", type);
        pm->pm1_status |= PM1_WAK;
    }
}

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;

    return pm->pm1_control >> (offset * 8);
}

static void control_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct acpi_pm *pm = opaque;
    uint16_t mask = (uint16_t)((size == 2 ? 0xffff : 0xff) << (offset * 8));
    uint16_t bits = (uint16_t)(value << (offset * 8)) & mask;

    pm->pm1_control = ((pm->pm1_control & (uint16_t)~mask) | bits) & CNT_KEPT;
    if (bits & CNT_SLP_EN) {
        enter_sleep(pm);
    }
    acpi_pm_update(pm);
}

static const struct mem_region_ops control_ops = {
    .read = control_read,
    .write = control_write,
    .valid = {.min = 1, .max = 2},
};

/* ---- GPE0: status bytes, then enable bytes -------------------------------------------------- */

static uint64_t gpe_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;

    return pm->gpe_registers[offset];
}

static void gpe_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct acpi_pm *pm = opaque;

    if (offset < pm->config.gpe_length / 2) {
        pm->gpe_registers[offset] &= (uint8_t)~value;
    } else {
        pm->gpe_registers[offset] = (uint8_t)value;
    }
    acpi_pm_update(pm);
}

static const struct mem_region_ops gpe_ops = {
    .read = gpe_read,
    .write = gpe_write,
    .valid = {.min = 1, .max = 4},
    .impl = {.min = 1, .max = 1},
};

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
    if (n < pm->config.gpe_length / 2 * 8u) {
        pm->gpe_registers[n / 8] |= (uint8_t)(1u << n % 8);
        acpi_pm_update(pm);
    }
}

/* ---- SMI command ---------------------------------------------------------------------------- */

static uint64_t smi_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;

    return offset == 0 ? pm->smi_command : pm->smi_status;
}

/* The FADT's commands are for firmware in SMM; there may be none, so the chip does what it would. */
static void smi_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct acpi_pm *pm = opaque;

    if (offset != 0) {
        pm->smi_status = (uint8_t)value;
        return;
    }
    pm->smi_command = (uint8_t)value;
    if (value == pm->config.enable_command) {
        pm->pm1_control |= CNT_SCI_EN;
    } else if (value == pm->config.disable_command) {
        pm->pm1_control &= (uint16_t)~CNT_SCI_EN;
    } else if (pm->config.smi_command) {
        pm->config.smi_command(pm->config.opaque);
    }
    acpi_pm_update(pm);
}

static const struct mem_region_ops smi_ops = {
    .read = smi_read,
    .write = smi_write,
    .valid = {.min = 1, .max = 1},
};

/* ---- life ----------------------------------------------------------------------------------- */

void acpi_pm_init(struct acpi_pm *pm, const struct acpi_pm_config *config)
{
    pm->config = *config;
    timer_init(&pm->timer, main_loop(), AIO_CLOCK_VIRTUAL, timer_fired, pm);
    mem_region_init_io(&pm->event, "acpi-evt", 4, &event_ops, pm);
    mem_region_init_io(&pm->control, "acpi-cnt", 2, &control_ops, pm);
    mem_region_init_io(&pm->timer_region, "acpi-tmr", 4, &timer_ops, pm);
    mem_region_init_io(&pm->gpe, "acpi-gpe0", config->gpe_length, &gpe_ops, pm);
    mem_region_init_io(&pm->smi, "apm-io", 2, &smi_ops, pm);
    mem_region_add(config->io, ACPI_SMI_COMMAND_PORT, &pm->smi);
    the_pm = pm;
}

void acpi_pm_add_registers(struct acpi_pm *pm, struct mem_region *container)
{
    mem_region_add(container, ACPI_PM1_EVENT_OFFSET, &pm->event);
    mem_region_add(container, ACPI_PM1_CONTROL_OFFSET, &pm->control);
    mem_region_add(container, ACPI_PM_TIMER_OFFSET, &pm->timer_region);
}

void acpi_pm_destroy(struct acpi_pm *pm, struct mem_region *container)
{
    struct mem_region *registers[] = {&pm->event, &pm->control, &pm->timer_region};

    timer_cancel(&pm->timer);
    the_pm = the_pm == pm ? NULL : the_pm;
    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
        mem_region_remove(container, registers[i]);
        mem_region_destroy(registers[i]);
    }
    mem_region_remove(pm->config.io, &pm->smi);
    mem_region_destroy(&pm->smi);
    mem_region_destroy(&pm->gpe);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
    pm->pm1_status = pm->pm1_enable = pm->pm1_control = 0;
    memset(pm->gpe_registers, 0, sizeof(pm->gpe_registers));
    pm->smi_command = pm->smi_status = 0;
    pm->timer_halves = timer_halves();
    acpi_pm_update(pm);
}

bool acpi_pm_power_button(void)
{
    struct acpi_pm *pm = the_pm;

    if (!pm) {
        return false;
    }
    pm->pm1_status |= PM1_PWRBTN;
    acpi_pm_update(pm);
    return true;
}

void acpi_pm_remove_power_button(void)
{
    the_pm = NULL;
}

static bool pm_post_load(void *object, unsigned version)
{
    struct acpi_pm *pm = object;

    pm->pm1_enable &= PM1_EVENTS;
    pm->pm1_control &= CNT_KEPT;
    pm->sci_level = pm->sci_level != 0;
    return true;
}

static const struct vmstate_field pm_fields[] = {
    VMSTATE_UINT(struct acpi_pm, pm1_status),   VMSTATE_UINT(struct acpi_pm, pm1_enable),
    VMSTATE_UINT(struct acpi_pm, pm1_control),  VMSTATE_BYTES(struct acpi_pm, gpe_registers),
    VMSTATE_UINT(struct acpi_pm, smi_command),  VMSTATE_UINT(struct acpi_pm, smi_status),
    VMSTATE_UINT(struct acpi_pm, timer_halves), VMSTATE_UINT(struct acpi_pm, sci_level),
    VMSTATE_TIMER(struct acpi_pm, timer),       VMSTATE_END,
};

const struct vmstate acpi_pm_vmstate = {
    .name = "acpi-pm",
    .version = 1,
    .minimum_version = 1,
    .fields = pm_fields,
    .post_load = pm_post_load,
};
