/* SPDX-License-Identifier: MIT */
/* Loops for connections, each in a thread of its own. */
#include <stdlib.h>

#include "base/alloc.h"
#include "nbd/connection.h"

struct nbd_thread {
    struct aio_loop *loop;
    pthread_t thread;
    bool is_stopping; /* its loop */
};

static void *run(void *opaque)
{
    struct nbd_thread *thread = opaque;

    aio_loop_bind(thread->loop);
    while (!thread->is_stopping) {
        aio_loop_poll(thread->loop, true);
    }
    aio_loop_unbind(thread->loop);
    return NULL;
}

struct nbd_thread *nbd_thread_start(unsigned number, struct error **errp)
{
    struct nbd_thread *thread = xnew(struct nbd_thread);
    autofree char *name = xasprintf("nbd%u", number);

    thread->loop = aio_loop_new(name, AIO_LOOP_AUTO, errp);
    if (!thread->loop) {
        free(thread);
        return NULL;
    }
    int ret = pthread_create(&thread->thread, NULL, run, thread);
    if (ret) {
        error_set_errno(errp, ret, "Cannot start a thread for NBD clients");
        aio_loop_free(thread->loop);
        free(thread);
        return NULL;
    }
    return thread;
}

struct aio_loop *nbd_thread_loop(struct nbd_thread *thread)
{
    return thread->loop;
}

static void stop(void *opaque)
{
    ((struct nbd_thread *)opaque)->is_stopping = true;
}

void nbd_thread_stop(struct nbd_thread *thread)
{
    aio_call(thread->loop, stop, thread);
    pthread_join(thread->thread, NULL);
    aio_loop_free(thread->loop);
    free(thread);
}
