/* SPDX-License-Identifier: MIT */
/*
 * A PCI bus with mechanism 1 and ECAM, and a function to put on it, "pci-probe":
 *
 *   BAR 0  I/O, 16 bytes      BAR 1  32-bit memory, 4 KiB
 *   BAR 2  64-bit memory, prefetchable, 1 MiB
 *   INTA; MSI (msi=N) or MSI-X in BAR 4 (msix=N); registers read their own offset
 *
 * The engine is tests/driver/fake_accel.
 */
#ifndef FERRY_TESTS_PCI_KIT_H
#define FERRY_TESTS_PCI_KIT_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "pci/pci.h"

#define KIT_ECAM  UINT64_C(0xb0000000)
#define KIT_LINES 4

struct kit {
    struct aio_loop *loop;
    struct mem_region ram;
    struct pci_bus bus;
    struct pci_mechanism1 mechanism1;
    struct pci_ecam ecam;
    int level[KIT_LINES];
    unsigned changes[KIT_LINES];
};

struct probe {
    struct pci_device pci;
    uint32_t msi, msix;
    struct mem_region io, mem, mem64;
    unsigned config_writes;
};

extern struct kit kit;
extern const struct device_type probe_type; /* "pci-probe" */

int kit_setup(void **state); /* an express bus */
int kit_setup_conventional(void **state);
int kit_teardown(void **state);

/* -device; fails the test on an error. */
struct probe *kit_add(const char *text);
/* Expects an error, and returns its text until the next call. */
const char *kit_add_error(const char *text);

uint32_t kit_read(uint8_t devfn, unsigned offset, unsigned size); /* by ECAM */
void kit_write(uint8_t devfn, unsigned offset, uint32_t value, unsigned size);
uint64_t kit_mem(uint64_t address, unsigned size);
void kit_set_mem(uint64_t address, uint64_t value, unsigned size);
uint64_t kit_io(uint16_t port, unsigned size);
void kit_set_io(uint16_t port, uint64_t value, unsigned size);

#endif
