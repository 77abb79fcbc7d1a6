/* SPDX-License-Identifier: MIT */
/* cmocka's preamble for the tests of device/, and set-up. */
#ifndef FERRY_TESTS_DEVICE_FIXTURE_H
#define FERRY_TESTS_DEVICE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/options.h"
#include "device/device.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

static inline int device_setup(void **state)
{
    mem_init();
    machine_lock();
    return 0;
}

static inline int device_teardown(void **state)
{
    devices_free();
    machine_unlock();
    mem_cleanup();
    return 0;
}

/* The error is there and reads so; frees it. */
#define ASSERT_ERROR(err, text)                                                                    \
    do {                                                                                           \
        assert_non_null(err);                                                                      \
        assert_string_equal(error_message(err), text);                                             \
        error_free(err);                                                                           \
        (err) = NULL;                                                                              \
    } while (0)

#define ASSERT_ERROR_HINT(err, text, hint)                                                         \
    do {                                                                                           \
        assert_non_null(err);                                                                      \
        assert_non_null(strstr(error_hint(err), hint));                                            \
        ASSERT_ERROR(err, text);                                                                   \
    } while (0)

/* device_add() of a command line's text. */
static inline struct device *add(const char *text, struct error **errp)
{
    struct options *opts = options_parse(text, "driver", errp);
    struct device *dev = opts ? device_add(opts, errp) : NULL;

    options_free(opts);
    return dev;
}

static inline struct device *add_object(const char *text, struct error **errp)
{
    struct options *opts = options_parse(text, "qom-type", errp);
    struct device *dev = opts ? object_add(opts, errp) : NULL;

    options_free(opts);
    return dev;
}

#endif
