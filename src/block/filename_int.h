/* SPDX-License-Identifier: MIT */
/* What the parts of filename.c share. */
#ifndef FERRY_BLOCK_FILENAME_INT_H
#define FERRY_BLOCK_FILENAME_INT_H

#include "base/options.h"

/* A name that begins with "nbd". */
struct options *filename_parse_nbd(const char *filename, struct error **errp);

#endif
