/* SPDX-License-Identifier: MIT */
/* Persistent dirty bitmaps from image to image. Outside coroutines. */
#ifndef FERRY_TOOLS_IMG_BITMAPS_H
#define FERRY_TOOLS_IMG_BITMAPS_H

#include "block/backend.h"

/* Whether all bitmaps of the image can be copied. */
bool bitmaps_check(struct block_backend *source, bool skip_broken, struct error **errp);
/* Whether the target can keep them; false before anything is written. */
bool bitmaps_check_target(struct block_backend *source, struct block_backend *target,
                          struct error **errp);
/* Makes those of the source in the target, and keeps them there. */
bool bitmaps_copy(struct block_backend *source, struct block_backend *target, bool skip_broken,
                  bool quiet, struct error **errp);

#endif
