/* SPDX-License-Identifier: MIT */
/* The first frame of a stack, as stack_switch_aarch64.S resumes it. */
#include <stdint.h>
#include <string.h>

#include "aio/stack_switch.h"

void *stack_prepare(void *top, void (*fn)(void *opaque), void *opaque)
{
    uintptr_t *sp = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)15) - 20;
    memset(sp, 0, 20 * sizeof(*sp));
    sp[0] = (uintptr_t)opaque;       /* x19 */
    sp[1] = (uintptr_t)fn;           /* x20 */
    sp[11] = (uintptr_t)stack_start; /* x30 */
    return sp;
}
