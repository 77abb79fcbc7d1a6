/* SPDX-License-Identifier: MIT */
/*
 * Image formats by their first bytes.
 *
 * Used only when the user gave no format, and then on what may have been written by a guest: a
 * guest that owns a raw image could put a header of another format into it and have the host
 * follow the file names in there after the next start. So probing only tells raw from not raw, and
 * a raw image that was probed never gets such a header (raw.c).
 */
#ifndef FERRY_BLOCK_PROBE_H
#define FERRY_BLOCK_PROBE_H

#include <stddef.h>

#define PROBE_SIZE 512 /* bytes looked at */

/* Of PROBE_SIZE bytes: "raw" if nothing else fits. */
const char *block_probe_format(const void *data);

#endif
