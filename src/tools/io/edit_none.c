/* SPDX-License-Identifier: MIT */
/* A build without libedit: terminals are read as other files are. */
#include "tools/io/io_tool.h"

bool io_edit_available(void)
{
    return false;
}

void io_edit_start(bool (*line)(void *opaque, const char *text), void *opaque)
{
}

void io_edit_read(void)
{
}

void io_edit_stop(void)
{
}
