/* SPDX-License-Identifier: MIT */
/*
 * A pseudo-terminal: we hold the master, somebody opens the slave (screen, minicom).
 *
 *   closed --(once a second: no hangup any more)--> open --(read gives EIO)--> closed
 *
 * While nobody has the slave open the master reports a hangup all the time, so it is looked at
 * by a timer instead of being watched.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "chardev/internal.h"

#define LOOK_INTERVAL_NS NS_PER_SEC

struct pty {
    int fd;
    char path[64]; /* of the slave */
    struct aio_timer timer;
};

static const struct chardev_option options[] = {{NULL}};

static bool pty_parse(struct chardev *chr, struct options *opts, struct error **errp)
{
    struct pty *p = xnew(struct pty);
    chr->state = p;
    p->fd = -1;
    return true;
}

static void look(void *opaque)
{
    struct chardev *chr = opaque;
    struct pty *p = chr->state;
    struct pollfd look_at = {.fd = p->fd, .events = POLLOUT};
    if (poll(&look_at, 1, 0) >= 0 && !(look_at.revents & POLLHUP))
        chardev_connect(chr, p->fd, p->fd);
    else
        timer_set(&p->timer, clock_get_ns(AIO_CLOCK_RT) + LOOK_INTERVAL_NS);
}

static void pty_input_ended(struct chardev *chr)
{
    struct pty *p = chr->state;
    chardev_disconnect(chr);
    if (!chr->is_deleted) /* by a callback */
        timer_set(&p->timer, clock_get_ns(AIO_CLOCK_RT) + LOOK_INTERVAL_NS);
}

/* No echo, no line editing: the guest does that. */
static bool make_raw(const char *path)
{
    struct termios t;
    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = tcgetattr(fd, &t) == 0;
    if (ok) {
        cfmakeraw(&t);
        ok = tcsetattr(fd, TCSANOW, &t) == 0;
    }
    int saved = errno;
    close(fd); /* now the master sees a hangup, until somebody opens the slave */
    errno = saved;
    return ok;
}

static bool pty_open(struct chardev *chr, struct error **errp)
{
    struct pty *p = chr->state;
    p->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (p->fd < 0 || grantpt(p->fd) != 0 || unlockpt(p->fd) != 0 ||
        ptsname_r(p->fd, p->path, sizeof(p->path)) != 0 || !make_raw(p->path)) {
        error_set_errno(errp, errno, "cannot make a pseudo-terminal");
        return false;
    }
    fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
    log_info("char device redirected to %s (label %s)", p->path, chr->id);
    timer_init(&p->timer, chr->loop, AIO_CLOCK_RT, look, chr);
    look(chr);
    return true;
}

static void pty_close(struct chardev *chr)
{
    struct pty *p = chr->state;
    if (p->timer.fn)
        timer_cancel(&p->timer);
    chardev_disconnect(chr);
    if (p->fd >= 0)
        close(p->fd);
    free(p);
}

static char *pty_filename(const struct chardev *chr)
{
    const struct pty *p = chr->state;
    return xasprintf("pty:%s", p->path);
}

const struct chardev_backend chardev_pty = {
    .name = "pty",
    .options = options,
    .parse = pty_parse,
    .open = pty_open,
    .close = pty_close,
    .input_ended = pty_input_ended,
    .filename = pty_filename,
};
