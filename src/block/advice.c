/* SPDX-License-Identifier: MIT */
/* See advice.h. */
#include <stdbool.h>

#include "base/error.h"
#include "block/advice.h"

static void vm_in_use(const char *filename, struct error **errp)
{
    (void)filename;
    error_add_hint(errp,
                   "Or another drive of this VM is. Devices that all have share-rw=on may use "
                   "it together.");
}

static const struct block_advice vm_advice = {
    .in_use = vm_in_use,
    .only_readable = "it can be read; use read-only=on to go without writing",
};

static const struct block_advice *advice = &vm_advice;

const struct block_advice *block_advice(void)
{
    return advice;
}

void block_set_advice(const struct block_advice *words)
{
    advice = words;
}
