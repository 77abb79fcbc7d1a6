/* SPDX-License-Identifier: MIT */
/* Inputs for a form: random and edge values, with addresses that lie where they should. */
#ifndef FERRY_TESTS_SOFT_INPUT_H
#define FERRY_TESTS_SOFT_INPUT_H

#include "form.h"
#include "machine_state.h"

/* Where a memory operand lies; input i takes place i % PLACES. */
enum input_place {
    PLACE_ALIGNED,
    PLACE_UNALIGNED,
    PLACE_STRADDLES, /* both pages of DATA */
    PLACE_ENDS,      /* with the last byte of DATA */
    PLACE_UNMAPPED,  /* begins in DATA and ends behind it */
    PLACE_READ_ONLY,
    PLACE_ALIGNED_2,
    PLACE_ALIGNED_3,
    PLACES,
};

/* The i-th input of a form; the same every time. */
void input_make(const struct form *form, const struct form_decoded *d, unsigned i,
                struct run_input *input);

#endif
