/* SPDX-License-Identifier: MIT */
/*
 * What to do about an image that cannot be opened: hints below errors, in the words of the program. A
 * VM's user has options of devices, a tool's user those of its command line.
 */
#ifndef FERRY_BLOCK_ADVICE_H
#define FERRY_BLOCK_ADVICE_H

#include <stdbool.h>

struct error;

struct block_advice {
    /* Another process, or another node of this one, has a lock on the image that is in the way. */
    void (*in_use)(const char *filename, struct error **errp);
    /* Permissions or the file system let it be read, but not written. */
    const char *only_readable;
};

/* Those of a VM, unless the program sets its own, for good, before it opens anything. Main loop. */
const struct block_advice *block_advice(void);
void block_set_advice(const struct block_advice *advice);

#endif
