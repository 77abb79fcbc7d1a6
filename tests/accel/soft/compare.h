/* SPDX-License-Identifier: MIT */
/* Do the host and the soft CPU agree? */
#ifndef FERRY_TESTS_SOFT_COMPARE_H
#define FERRY_TESTS_SOFT_COMPARE_H

#include <stdio.h>

#include "form.h"
#include "machine_state.h"

/* Flags that the SDM leaves undefined are compared only if strict. to: differences, one line each
 * (NULL: not wanted). */
bool compare_outputs(const struct form *form, const struct run_output *host,
                     const struct run_output *soft, bool strict, FILE *to);
/* #UD with nothing changed. */
bool compare_undefined(const struct run_input *input, const struct run_output *soft, FILE *to);
/* The registers that an instruction uses, as they were before. */
void compare_print_input(const struct form *form, const struct run_input *input, FILE *to);

#endif
