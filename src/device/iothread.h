/* SPDX-License-Identifier: MIT */
/*
 * iothread: an object that runs an event loop of its own, for the data plane of devices.
 *
 *   -object iothread,id=io0[,poll-max-ns=N][,poll-grow=N][,poll-shrink=N]
 *           [,aio-max-batch=N][,thread-pool-min=N][,thread-pool-max=N]
 *
 * The thread lives from realize to unrealize; users hold a reference meanwhile.
 */
#ifndef FERRY_DEVICE_IOTHREAD_H
#define FERRY_DEVICE_IOTHREAD_H

#include "device/device.h"

struct aio_loop;
struct iothread;

#define IOTHREAD_POLL_MAX_NS 32768 /* poll-max-ns, unless it is given; QEMU's */

extern const struct device_type iothread_type;

struct iothread *iothread_find(const char *id);
struct aio_loop *iothread_loop(struct iothread *iothread);
void iothread_ref(struct iothread *iothread);
void iothread_unref(struct iothread *iothread);
int iothread_thread_id(const struct iothread *iothread); /* host tid, for query-iothreads */

/* The main loop, set once by vmm before any device is made. */
void main_loop_set(struct aio_loop *loop);
struct aio_loop *main_loop(void);

/* Property kind: field is struct iothread *, text is its id. Takes a reference. */
extern const struct property_kind property_iothread;
#define PROPERTY_IOTHREAD(n, s, f)                                                                 \
    {                                                                                              \
        .name = n, .kind = &property_iothread, .offset = offsetof(s, f),                           \
        .description = "iothread that runs the data plane"                                         \
    }

#endif
