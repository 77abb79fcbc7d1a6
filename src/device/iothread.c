/* SPDX-License-Identifier: MIT */
/*
 * The iothread object: a thread and its event loop.
 *
 * Its thread starts in realize and ends in unrealize, which waits for it with the machine lock
 * held. That is safe since nothing in an iothread takes the machine lock.
 */
#include "device/iothread.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "aio/loop.h"
#include "base/alloc.h"
#include "mem/address_space.h"

#define THREAD_POOL_MAX 64 /* QEMU's default, and what the shared pool of aio/ has */

struct iothread {
    struct device dev;
    /* constant after realize */
    uint64_t poll_max_ns, poll_grow, poll_shrink;
    uint64_t aio_max_batch, thread_pool_min, thread_pool_max;
    struct aio_loop *loop;
    pthread_t thread;
    int tid;
    sem_t started;
    /* atomic */
    _Atomic(bool) stop;
};

/* ---- the main loop -------------------------------------------------------------------------- */

static struct aio_loop *the_main_loop;

void main_loop_set(struct aio_loop *loop)
{
    the_main_loop = loop;
}

struct aio_loop *main_loop(void)
{
    return the_main_loop;
}

/* ---- the thread ----------------------------------------------------------------------------- */

static void *iothread_run(void *opaque)
{
    struct iothread *iothread = opaque;

    mem_thread_register();
    aio_loop_bind(iothread->loop);
    iothread->tid = (int)syscall(SYS_gettid);
    sem_post(&iothread->started);

    while (!atomic_load_explicit(&iothread->stop, memory_order_acquire)) {
        aio_loop_poll(iothread->loop, true);
    }
    aio_loop_unbind(iothread->loop);
    mem_thread_unregister();
    return NULL;
}

/* Signals go to the main thread; a thread inherits its creator's mask. */
static int create_thread(struct iothread *iothread)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&iothread->thread, NULL, iothread_run, iothread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err;
}

static bool check_properties(const struct iothread *iothread, struct error **errp)
{
    uint64_t min = iothread->thread_pool_min, max = iothread->thread_pool_max;

    if (min > max || max == 0 || max > INT_MAX) {
        error_set(errp, "bad thread-pool-min/thread-pool-max values");
        error_add_hint(errp, "The minimum must not exceed the maximum, which is 1 at least.");
        return false;
    }
    return true;
}

/* With the defaults it uses the pool that all such loops share. */
static bool set_up_loop(struct iothread *iothread, struct error **errp)
{
    struct aio_loop *loop = iothread->loop;
    uint64_t min = iothread->thread_pool_min, max = iothread->thread_pool_max;

    aio_loop_set_poll(loop, (int64_t)iothread->poll_max_ns, (int64_t)iothread->poll_grow,
                      (int64_t)iothread->poll_shrink);
    aio_loop_set_batch(loop, iothread->aio_max_batch);
    return (min == 0 && max == THREAD_POOL_MAX) ||
           aio_loop_set_thread_pool(loop, (unsigned)min, (unsigned)max, errp);
}

static bool iothread_realize(struct device *dev, struct error **errp)
{
    struct iothread *iothread = (struct iothread *)dev;

    if (!check_properties(iothread, errp)) {
        return false;
    }

    /* Its thread gets the loop's name. */
    autofree char *name = xasprintf("IO %s", dev->id ? dev->id : "iothread");

    iothread->loop = aio_loop_new(name, AIO_LOOP_AUTO, errp);
    if (!iothread->loop) {
        return false;
    }
    if (!set_up_loop(iothread, errp)) {
        aio_loop_free(iothread->loop);
        iothread->loop = NULL;
        return false;
    }
    sem_init(&iothread->started, 0, 0);
    iothread->stop = false;
    int err = create_thread(iothread);
    if (err) {
        error_set_errno(errp, err, "cannot start the thread of iothread '%s'",
                        dev->id ? dev->id : "");
        sem_destroy(&iothread->started);
        aio_loop_free(iothread->loop);
        iothread->loop = NULL;
        return false;
    }
    while (sem_wait(&iothread->started) < 0) {
        /* interrupted by a signal */
    }
    return true;
}

static void iothread_unrealize(struct device *dev)
{
    struct iothread *iothread = (struct iothread *)dev;

    assert(!dev->users);
    atomic_store_explicit(&iothread->stop, true, memory_order_release);
    aio_loop_wake(iothread->loop);
    pthread_join(iothread->thread, NULL);
    sem_destroy(&iothread->started);
    aio_loop_free(iothread->loop);
    iothread->loop = NULL;
}

static const struct property iothread_props[] = {
    PROPERTY_UINT64("poll-max-ns", struct iothread, poll_max_ns, IOTHREAD_POLL_MAX_NS, 0, INT64_MAX,
                    "longest time to poll before waiting, in ns"),
    PROPERTY_UINT64("poll-grow", struct iothread, poll_grow, 0, 0, INT64_MAX,
                    "factor by which polling gets longer, 0 means 2"),
    PROPERTY_UINT64("poll-shrink", struct iothread, poll_shrink, 0, 0, INT64_MAX,
                    "divisor by which polling gets shorter, 0 means to stop after a few misses"),
    PROPERTY_UINT64("aio-max-batch", struct iothread, aio_max_batch, 0, 0, INT64_MAX,
                    "requests that are handed over together, 0 means no limit"),
    PROPERTY_UINT64("thread-pool-min", struct iothread, thread_pool_min, 0, 0, INT64_MAX,
                    "threads that the thread pool keeps"),
    PROPERTY_UINT64("thread-pool-max", struct iothread, thread_pool_max, THREAD_POOL_MAX, 0,
                    INT64_MAX, "threads that the thread pool has at most"),
    PROPERTY_END,
};

const struct device_type iothread_type = {
    .name = "iothread",
    .description = "thread with an event loop",
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct iothread),
    .is_object = true,
    .props = iothread_props,
    .realize = iothread_realize,
    .unrealize = iothread_unrealize,
};

/* ---- users ---------------------------------------------------------------------------------- */

struct iothread *iothread_find(const char *id)
{
    struct device *dev = object_find(id);

    return dev && device_is_a(dev, &iothread_type) ? (struct iothread *)dev : NULL;
}

struct aio_loop *iothread_loop(struct iothread *iothread)
{
    return iothread->loop;
}

void iothread_ref(struct iothread *iothread)
{
    iothread->dev.users++;
}

void iothread_unref(struct iothread *iothread)
{
    assert(iothread->dev.users);
    iothread->dev.users--;
}

int iothread_thread_id(const struct iothread *iothread)
{
    return iothread->tid;
}

/* ---- the property --------------------------------------------------------------------------- */

static void iothread_property_release(struct device *dev, const struct property *prop, void *field)
{
    struct iothread **iothread = field;

    if (*iothread) {
        iothread_unref(*iothread);
        *iothread = NULL;
    }
}

static bool iothread_property_parse(struct device *dev, const struct property *prop, void *field,
                                    const char *text, struct error **errp)
{
    struct iothread *iothread = iothread_find(text);

    if (!iothread) {
        error_set_class(errp, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", text);
        error_add_hint(errp, "Define it with -object iothread,id=%s.", text);
        return false;
    }
    iothread_ref(iothread);
    iothread_property_release(dev, prop, field);
    *(struct iothread **)field = iothread;
    return true;
}

static char *iothread_property_print(const struct device *dev, const struct property *prop,
                                     const void *field)
{
    const struct iothread *iothread = *(struct iothread *const *)field;

    return iothread && iothread->dev.id ? xstrdup(iothread->dev.id) : NULL;
}

const struct property_kind property_iothread = {
    .name = "link<iothread>",
    .parse = iothread_property_parse,
    .print = iothread_property_print,
    .release = iothread_property_release,
};
