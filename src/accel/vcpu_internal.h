/* SPDX-License-Identifier: MIT */
/* Between the files of the vCPU loop. All run in the vCPU's thread. */
#ifndef FERRY_ACCEL_VCPU_INTERNAL_H
#define FERRY_ACCEL_VCPU_INTERNAL_H

#include "accel/vcpu.h"

/* vcpu_irq.c: takes INIT, SIPI and NMI, and injects an interrupt of ferry's own chips if the guest
 * can take one. True if the vCPU may enter the guest; false: it is halted or waits for SIPI. */
bool vcpu_deliver(struct vcpu *vcpu);

/* vcpu_error.c: the guest cannot go on; says why, prints its registers, stops the VM. */
void vcpu_fail(struct vcpu *vcpu, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void vcpu_internal_error(struct vcpu *vcpu);

const char *vcpu_exit_name(enum vcpu_exit_reason reason);

#endif
