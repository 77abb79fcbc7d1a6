/* SPDX-License-Identifier: MIT */
/* Event notifiers: eventfd(2). Their handlers are in loop.c. */
#include "aio/notifier.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool event_notifier_init(struct event_notifier *n, struct error **errp)
{
    n->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (n->fd < 0) {
        error_set_errno(errp, errno, "cannot create an eventfd");
        return false;
    }
    return true;
}

void event_notifier_cleanup(struct event_notifier *n)
{
    if (n->fd >= 0) {
        close(n->fd);
        n->fd = -1;
    }
}

void event_notifier_set(struct event_notifier *n)
{
    static const uint64_t one = 1;
    ssize_t ret;
    do {
        ret = write(n->fd, &one, sizeof(one));
    } while (ret < 0 && errno == EINTR);
    /* EAGAIN: the counter is at its end, so it is set already. */
}

bool event_notifier_test_and_clear(struct event_notifier *n)
{
    uint64_t count;
    ssize_t ret;
    do {
        ret = read(n->fd, &count, sizeof(count));
    } while (ret < 0 && errno == EINTR);
    return ret == (ssize_t)sizeof(count);
}
