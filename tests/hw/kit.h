/* SPDX-License-Identifier: MIT */
/*
 * What the tests of hw/ share: a machine without CPU and engine, whose ports and memory a test
 * drives as a guest would, with a virtual clock that it steps.
 *
 *   kit_setup(): loop, memory, a bridge with "isa.0" whose 24 lines are recorded here
 *   kit_step():  moves the virtual clock and runs what is due
 *
 * The machine lock is held by the test, but while kit_step() runs timers. Calls to the engine
 * (accel_msi_send(), accel_set_extint(), accel_current()) come here, by the linker's --wrap.
 */
#ifndef FERRY_TESTS_HW_KIT_H
#define FERRY_TESTS_HW_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "accel/accel.h"
#include "aio/loop.h"
#include "base/range.h"
#include "device/device.h"
#include "device/system.h"
#include "device/vmstate.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

#define KIT_LINES   24
#define KIT_MSI_MAX 256

struct kit {
    struct aio_loop *loop;
    struct bus *isa;            /* "isa.0" of a bridge of the kit */
    struct irq line[KIT_LINES]; /* what its devices raise */
    int level[KIT_LINES];
    unsigned rises[KIT_LINES]; /* how often each went from 0 to 1 */
    /* what went to the engine */
    struct msi_message msi[KIT_MSI_MAX];
    unsigned msi_count; /* may exceed KIT_MSI_MAX: the rest is not kept */
    int extint;
    struct accel *accel; /* what accel_current() gives; NULL */
    /* requests to the machine */
    unsigned resets, shutdowns;
    enum system_cause shutdown_cause;
    int exit_status;
};

extern struct kit kit;

int kit_setup(void **state);
int kit_setup_bare(void **state); /* without the bridge and its bus */
int kit_teardown(void **state);

void kit_step(int64_t ns);
int64_t kit_now(void);

uint8_t inb(uint16_t port);
uint16_t inw(uint16_t port);
uint32_t inl(uint16_t port);
void outb(uint16_t port, uint8_t value);
void outw(uint16_t port, uint16_t value);
void outl(uint16_t port, uint32_t value);
uint32_t readl(uint64_t address);
void writel(uint64_t address, uint32_t value);

/* The same numbers each run. */
uint32_t kit_random(uint64_t *seed);
/* Random accesses of random sizes to [first, first + count) of the ports. */
void kit_hammer_ports(uint16_t first, unsigned count, unsigned accesses, uint64_t seed);
void kit_hammer_memory(uint64_t first, uint64_t size, unsigned accesses, uint64_t seed);

/* Saves, resets, loads and saves again: both must be the same bytes. */
void kit_check_vmstate(struct device *dev);
/* The same for all devices together, with the wires between them. */
void kit_check_vmstate_all(void);

#endif
