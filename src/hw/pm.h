/* SPDX-License-Identifier: MIT */
/*
 * ACPI power management registers (ACPI 6.4, 4.8), shared by PIIX4 and ICH9:
 *
 *   base + 0   PM1a event: status (write 1 to clear), enable       16 bits each
 *   base + 4   PM1a control: SCI_EN, SLP_TYP, SLP_EN
 *   base + 8   PM timer: 24 bits at 3.579545 MHz (FADT.TMR_VAL_EXT clear)
 *   GPE0       status and enable bytes
 *   0xb2, 0xb3 SMI command and status (APM): the FADT's enable and disable values move SCI_EN at once,
 *              as no SMI handler has to; any other command is the chip's, which may send an SMI
 *
 *   SLP_EN with the S5 type --> system_shutdown_request(GUEST_SHUTDOWN)
 *   power button --> PM1 status PWRBTN --> SCI (if enabled)
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_PM_H
#define FERRY_HW_PM_H

#include "aio/loop.h"
#include "device/irq.h"
#include "device/vmstate.h"
#include "mem/region.h"

#define ACPI_PM_TIMER_FREQUENCY 3579545 /* Hz */

#define ACPI_PM1_EVENT_OFFSET   0x00
#define ACPI_PM1_CONTROL_OFFSET 0x04
#define ACPI_PM_TIMER_OFFSET    0x08

#define ACPI_SMI_COMMAND_PORT 0xb2
#define ACPI_SLP_TYPE_S5      0 /* as the DSDT's \_S5 says: Package () { 0, 0, 0, 0 } */
#define ACPI_SLP_TYPE_S3      1
#define ACPI_GPE_MAX          16 /* bytes of status and enable */

/* For the FADT. */
#define PIIX4_ACPI_ENABLE  0xf1
#define PIIX4_ACPI_DISABLE 0xf0
#define PIIX4_GPE0_BASE    0xafe0
#define PIIX4_GPE0_LENGTH  4
#define ICH9_ACPI_ENABLE   0x02
#define ICH9_ACPI_DISABLE  0x03
#define ICH9_GPE0_OFFSET   0x20 /* from the PM base */
#define ICH9_GPE0_LENGTH   16

struct acpi_pm_config {
    void (*set_sci)(void *opaque, int level);
    void (*smi_command)(void *opaque); /* written, and none of the two below; may be NULL */
    void *opaque;
    struct mem_region *io; /* I/O ports: io_root() */
    uint8_t enable_command, disable_command;
    uint8_t gpe_length; /* bytes: half status, half enable */
};

/* Embedded in PIIX4's PM function or the ICH9 LPC bridge. */
struct acpi_pm {
    /* constant after acpi_pm_init() */
    struct acpi_pm_config config;
    struct mem_region event, control, timer_region, gpe, smi; /* only smi maps itself */
    struct aio_timer timer; /* next change of the PM timer's top bit */
    /* machine state */
    uint16_t pm1_status, pm1_enable, pm1_control;
    uint8_t gpe_registers[ACPI_GPE_MAX];
    uint8_t smi_command, smi_status;
    uint64_t timer_halves; /* changes of the timer's top bit that are in pm1_status */
    uint8_t sci_level;
};

extern const struct vmstate acpi_pm_vmstate;

/* Maps the SMI command port. */
void acpi_pm_init(struct acpi_pm *pm, const struct acpi_pm_config *config);
/* Adds PM1 event, control and timer to a container; gpe is the caller's to add. */
void acpi_pm_add_registers(struct acpi_pm *pm, struct mem_region *container);
/* Takes out of container what acpi_pm_add_registers() added. */
void acpi_pm_destroy(struct acpi_pm *pm, struct mem_region *container);
void acpi_pm_reset(struct acpi_pm *pm);
/* Works out SCI and timer anew (after a load). */
void acpi_pm_update(struct acpi_pm *pm);
/* A general purpose event: sets status bit n. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n);

/* The button of the machine (QMP system_powerdown). False: the machine has no ACPI. */
bool acpi_pm_power_button(void);
/* -machine acpi=off where the registers are part of a chip: without tables no guest looks at them, so
 * the machine has no button. */
void acpi_pm_remove_power_button(void);

#endif
