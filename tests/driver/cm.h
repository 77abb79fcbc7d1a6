/* SPDX-License-Identifier: MIT */
/* cmocka and what it wants before it. */
#ifndef FERRY_TESTS_DRIVER_CM_H
#define FERRY_TESTS_DRIVER_CM_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#endif
