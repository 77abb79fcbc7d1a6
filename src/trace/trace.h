/* SPDX-License-Identifier: MIT */
/*
 * Tracepoints and request ids.
 *
 * TRACE(name, args…) marks a place on the way of an I/O. With <sys/sdt.h> it is a USDT probe
 * ferry:name (up to 8 integer or pointer arguments; `perf probe`, `bpftrace -e 'usdt:…'`); when
 * nobody listens it is one nop. The names in use are listed in docs/io-path.md.
 *
 * A request gets its id from trace_request_id() when it is popped from a virtqueue, and carries it
 * through the block layer to the host I/O and back to the used ring.
 */
#ifndef FERRY_TRACE_TRACE_H
#define FERRY_TRACE_TRACE_H

#include <stdint.h>

#include "config.h"

#ifdef HAVE_SDT
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define TRACE(name, ...) STAP_PROBEV(ferry, name, ##__VA_ARGS__)
#else
#define TRACE(name, ...) trace_ignore(0, ##__VA_ARGS__)
static inline void trace_ignore(int first, ...)
{
    (void)first;
}
#endif

/* A fresh id, never 0, unique in this process. Any thread; no shared write per call (each thread
 * takes ids in blocks). */
uint64_t trace_request_id(void);

#endif
