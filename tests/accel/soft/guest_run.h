/* SPDX-License-Identifier: MIT */
/*
 * Guests of tests/accel/soft/guests on any engine: each is loaded, run to its end, and asked what it
 * found (guests/guest.inc).
 *
 *     soft_guests ENGINE [GUEST…]       ENGINE: tcg, kvm
 */
#ifndef FERRY_TESTS_SOFT_GUEST_RUN_H
#define FERRY_TESTS_SOFT_GUEST_RUN_H

#include <stdint.h>

enum guest_end { ENDS_DONE, ENDS_SHUTDOWN }; /* by the port; by a triple fault */

struct guest {
    const char *name;
    const uint8_t *begin, *end;
    unsigned cpus;
    enum guest_end ends;
};

extern const struct guest guests[]; /* ended by a NULL name */

#endif
