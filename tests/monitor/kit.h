/* SPDX-License-Identifier: MIT */
/* cmocka's preamble for the tests of monitor/, and a peer that collects what a session says. */
#ifndef FERRY_TESTS_MONITOR_KIT_H
#define FERRY_TESTS_MONITOR_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/range.h"

struct peer {
    char *text;
    size_t size;
};

static inline void peer_output(void *opaque, const char *text, size_t size)
{
    struct peer *peer = opaque;

    peer->text = xrealloc(peer->text, peer->size + size + 1);
    memcpy(peer->text + peer->size, text, size);
    peer->size += size;
    peer->text[peer->size] = 0;
}

/* What has come since the last call, to be freed. */
static inline char *peer_take(struct peer *peer)
{
    char *text = peer->text ? peer->text : xstrdup("");

    *peer = (struct peer){0};
    return text;
}

#endif
