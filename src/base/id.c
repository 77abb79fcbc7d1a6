/* SPDX-License-Identifier: MIT */
/* Ids that users give to objects (id=disk0). ASCII, whatever the locale. */
#include "base/id.h"

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool id_is_wellformed(const char *id)
{
    if (!is_letter(*id))
        return false;
    for (id++; *id; id++) {
        if (!is_letter(*id) && !(*id >= '0' && *id <= '9') && *id != '-' && *id != '.' &&
            *id != '_')
            return false;
    }
    return true;
}
