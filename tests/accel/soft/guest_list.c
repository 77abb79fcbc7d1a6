/* SPDX-License-Identifier: MIT */
#include <stddef.h>

#include "guest_run.h"

#define GUEST(name, cpus, ends)                                                                    \
    {                                                                                              \
#name, guest_##name##_begin, guest_##name##_end, cpus, ends                                \
    }
#define DECLARE(name) extern const uint8_t guest_##name##_begin[], guest_##name##_end[];

DECLARE(paging)
DECLARE(except)
DECLARE(triple)
DECLARE(debug)
DECLARE(syscall)
DECLARE(smc)
DECLARE(fpu)
DECLARE(xsave)
DECLARE(system)
DECLARE(v86)
DECLARE(segment)
DECLARE(task)
DECLARE(modes)
DECLARE(paging32)
DECLARE(smp)

const struct guest guests[] = {
    GUEST(paging, 1, ENDS_DONE),     GUEST(except, 1, ENDS_DONE),
    GUEST(triple, 1, ENDS_SHUTDOWN), GUEST(debug, 1, ENDS_DONE),
    GUEST(syscall, 1, ENDS_DONE),    GUEST(smc, 1, ENDS_DONE),
    GUEST(fpu, 1, ENDS_DONE),        GUEST(xsave, 1, ENDS_DONE),
    GUEST(system, 1, ENDS_DONE),     GUEST(v86, 1, ENDS_DONE),
    GUEST(segment, 1, ENDS_DONE),    GUEST(task, 1, ENDS_DONE),
    GUEST(modes, 1, ENDS_DONE),      GUEST(paging32, 1, ENDS_DONE),
    GUEST(smp, 4, ENDS_DONE),        {0},
};
