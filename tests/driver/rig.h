/* SPDX-License-Identifier: MIT */
/*
 * A machine in a test process: RAM, a PCI bus with ECAM, the main loop, the fake engine.
 *
 *   0          16M            2G           0xb0000000        0xc0000000       4G        4G + 4M
 *   |== RAM ===|  (hole)      |= ROM =|    | ECAM, 1 bus |   | BARs      |    |== RAM ==|
 *
 * The thread that makes the rig is the main thread. Registers are reached by address_space_rw(),
 * RAM by host pointers with atomics, as a guest's CPU would. rig_wait() runs the main loop in the
 * main thread and yields in others.
 */
#ifndef FERRY_TESTS_DRIVER_RIG_H
#define FERRY_TESTS_DRIVER_RIG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aio/loop.h"
#include "mem/region.h"
#include "pci/pci.h"

#define RIG_RAM_SIZE  (16 * UINT64_C(1048576))
#define RIG_ROM       UINT64_C(0x80000000)
#define RIG_ROM_SIZE  UINT64_C(0x10000)
#define RIG_ECAM      UINT64_C(0xb0000000)
#define RIG_BARS      UINT64_C(0xc0000000)
#define RIG_BARS_END  UINT64_C(0xd0000000)
#define RIG_HIGH_RAM  UINT64_C(0x100000000)
#define RIG_HIGH_SIZE UINT64_C(0x400000)
#define RIG_IRQ_LINES 4

struct rig {
    struct aio_loop *loop;
    struct mem_region ram, high_ram, rom;
    struct pci_bus bus;
    struct pci_ecam ecam;
    struct pci_mechanism1 mechanism1;
    _Atomic(unsigned) level[RIG_IRQ_LINES];  /* of the root bus's lines */
    _Atomic(unsigned) raised[RIG_IRQ_LINES]; /* how often each rose */
};

extern struct rig rig;

void rig_init(bool has_irqfd);
/* All devices, then the machine; what is left over fails the test. */
void rig_destroy(void);

/* -device, -object; aborts on an error. */
struct device *rig_device(const char *text);
struct device *rig_object(const char *text);
/* Expects it to fail; the message is valid until the next call. */
const char *rig_device_error(const char *text);
/* Places BARs and turns decoding on, as firmware does. */
void rig_assign(void);

/* Runs until condition(opaque); false after some seconds. */
bool rig_wait(bool (*condition)(void *opaque), void *opaque);
/* Runs what is ready in the main loop (main thread), or gives it time. */
void rig_run(void);

/* ---- the guest's view ----------------------------------------------------------------------- */

uint64_t guest_read(uint64_t address, unsigned size);
void guest_write(uint64_t address, uint64_t value, unsigned size);
uint32_t guest_config_read(uint8_t devfn, unsigned offset, unsigned size);
void guest_config_write(uint8_t devfn, unsigned offset, uint32_t value, unsigned size);
/* Host pointer of guest RAM. */
void *guest_ram(uint64_t address);
/* RAM that nobody else has, zeroed, aligned to a power of 2. */
uint64_t guest_alloc(uint64_t size, uint64_t alignment);
/* Forgets all allocations. */
void rig_free_all(void);
/* Offset of a capability, from the one after `after` (0: the first); 0 if there is none. */
unsigned guest_find_capability(uint8_t devfn, uint8_t id, unsigned after);
uint64_t guest_bar(uint8_t devfn, unsigned index);

#endif
