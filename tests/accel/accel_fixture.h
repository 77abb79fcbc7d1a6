/* SPDX-License-Identifier: MIT */
/* What the tests of accel/ share: cmocka's preamble, address spaces with a main loop, RAM, and a
 * record of what vCPUs asked of the machine. */
#ifndef FERRY_TESTS_ACCEL_FIXTURE_H
#define FERRY_TESTS_ACCEL_FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "accel/accel.h"
#include "accel/vcpu.h"
#include "accel/x86_regs.h"
#include "aio/loop.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/iothread.h"
#include "device/system.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

/* Requests that came by device/system.h. Atomic; the rest of crash before crashes is raised. */
struct system_record {
    _Atomic(unsigned) shutdowns, resets, crashes, internal_errors, debugs;
    _Atomic(int) cause;
    struct system_crash crash;
};
extern struct system_record system_record;

extern struct aio_loop *test_loop;
extern struct mem_region test_ram; /* RAM_SIZE bytes at 0 */
#define RAM_SIZE (4 * MiB)

/* Group set-up and tear-down for cmocka. */
int accel_group_setup(void **state);
int accel_group_teardown(void **state);
void system_record_clear(void);

uint8_t *ram_at(uint64_t address);

/* Runs fn with stderr going to a buffer; the caller frees it. */
char *capture_stderr(void (*fn)(void *opaque), void *opaque);

/* What went wrong, as one string in a static buffer; frees err. */
const char *take_error(struct error **err);
void assert_contains(const char *text, const char *part);

#endif
