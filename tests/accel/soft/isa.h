/* SPDX-License-Identifier: MIT */
/* Which CPUID bit an instruction set hangs on, and what the test makes of forms that are not compared
 * with the host. */
#ifndef FERRY_TESTS_SOFT_ISA_H
#define FERRY_TESTS_SOFT_ISA_H

#include "form.h"

/* Sets exclusion or expects_undefined of every form. host_lacks: forms that only the soft CPU has
 * are excluded, since there is nothing to compare with. */
void isa_classify(struct forms *forms);
/* A line for each CPUID bit that the vCPU offers: how many forms hang on it, or what tests it. False
 * if there is one without a form or a reason. tested: by index of forms->form. */
bool isa_print(const struct forms *forms, const uint8_t *tested);

#endif
