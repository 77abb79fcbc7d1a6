/* SPDX-License-Identifier: MIT */
/*
 * Output: sent at once by whoever writes, as far as the host takes it; the rest waits in a buffer
 * until the loop finds the fd writable.
 *
 * chr->lock orders writers of several threads. Nothing blocks under it but writes to regular
 * files.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"
#include "chardev/internal.h"

/* ---- the buffer ----------------------------------------------------------------------------- */

static void buffer_append(struct chardev_buffer *b, const uint8_t *p, size_t len)
{
    if (!len)
        return;
    if (b->head + b->count + len > b->capacity) {
        if (b->head) {
            memmove(b->data, b->data + b->head, b->count);
            b->head = 0;
        }
        if (b->count + len > b->capacity) {
            b->capacity = MAX(2 * b->capacity, MAX(b->count + len, (size_t)4096));
            b->data = xrealloc(b->data, b->capacity);
        }
    }
    memcpy(b->data + b->head + b->count, p, len);
    b->count += len;
}

static void buffer_drop(struct chardev_buffer *b, size_t len)
{
    b->head += len;
    b->count -= len;
    if (b->count > 0)
        return;
    b->head = 0;
    if (b->capacity > CHARDEV_OUT_LIMIT) {
        /* A long answer does not stay forever. */
        free(b->data);
        *b = (struct chardev_buffer){0};
    }
}

/* ---- under lock ----------------------------------------------------------------------------- */

/* What becomes of bytes that cannot be written. A peer that has gone is noticed by input. */
static void lost_locked(struct chardev *chr, int err)
{
    if (err == EPIPE || err == ECONNRESET || err == EIO || chr->has_warned)
        return;
    chr->has_warned = true;
    log_warn("chardev '%s': output is lost: %s", chr->id, strerror(err));
}

/* Bytes that the host took; all of them if they cannot be sent at all. */
static size_t send_locked(struct chardev *chr, const uint8_t *p, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = chr->out_is_socket
                        ? send(chr->out_fd, p + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : write(chr->out_fd, p + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n <= 0) {
            lost_locked(chr, n < 0 ? errno : ENOSPC);
            return len;
        }
        done += (size_t)n;
    }
    return done;
}

static void log_locked(struct chardev *chr, const uint8_t *p, size_t len)
{
    while (chr->log_fd >= 0 && len > 0) {
        ssize_t n = write(chr->log_fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            lost_locked(chr, n < 0 ? errno : ENOSPC);
            return;
        }
        p += n;
        len -= (size_t)n;
    }
}

static size_t write_locked(struct chardev *chr, const uint8_t *p, size_t len, size_t limit)
{
    size_t taken = len;
    if (chr->out_fd >= 0) {
        /* What came first leaves first. */
        taken = chr->out.count ? 0 : send_locked(chr, p, len);
        size_t room = chr->out.count < limit ? limit - chr->out.count : 0;
        size_t kept = MIN(len - taken, room);
        buffer_append(&chr->out, p + taken, kept);
        taken += kept;
        if (taken < len)
            chr->is_starved = true;
        if (chr->out.count > 0)
            bh_schedule(chr->bh); /* the loop watches out_fd */
    }
    log_locked(chr, p, taken);
    return taken;
}

/* ---- any thread ----------------------------------------------------------------------------- */

size_t chardev_write(struct chardev *chr, const void *buf, size_t len)
{
    pthread_mutex_lock(&chr->lock);
    size_t taken = write_locked(chr, buf, len, CHARDEV_OUT_LIMIT);
    pthread_mutex_unlock(&chr->lock);
    return taken;
}

void chardev_write_all(struct chardev *chr, const void *buf, size_t len)
{
    pthread_mutex_lock(&chr->lock);
    write_locked(chr, buf, len, SIZE_MAX);
    pthread_mutex_unlock(&chr->lock);
}

bool chardev_writable(struct chardev *chr)
{
    pthread_mutex_lock(&chr->lock);
    bool ok = chr->out.count < CHARDEV_OUT_LIMIT;
    if (!ok)
        chr->is_starved = true;
    pthread_mutex_unlock(&chr->lock);
    return ok;
}

size_t chardev_unsent(struct chardev *chr)
{
    pthread_mutex_lock(&chr->lock);
    size_t count = chr->out.count;
    pthread_mutex_unlock(&chr->lock);
    return count;
}

/* ---- loop ----------------------------------------------------------------------------------- */

static bool flush_locked(struct chardev *chr)
{
    if (chr->out_fd >= 0 && chr->out.count > 0)
        buffer_drop(&chr->out, send_locked(chr, chr->out.data + chr->out.head, chr->out.count));
    /* Half of the room, so that a slow peer does not make us go back and forth for each byte. */
    bool may_go_on = chr->is_starved && chr->out.count <= CHARDEV_OUT_LIMIT / 2;
    if (may_go_on)
        chr->is_starved = false;
    return may_go_on;
}

bool output_flush(struct chardev *chr)
{
    pthread_mutex_lock(&chr->lock);
    bool may_go_on = flush_locked(chr);
    pthread_mutex_unlock(&chr->lock);
    return may_go_on;
}

bool output_is_pending(struct chardev *chr)
{
    pthread_mutex_lock(&chr->lock);
    bool pending = chr->out_fd >= 0 && chr->out.count > 0;
    pthread_mutex_unlock(&chr->lock);
    return pending;
}

int output_pending_fd(struct chardev *chr)
{
    pthread_mutex_lock(&chr->lock);
    int fd = chr->out.count > 0 ? chr->out_fd : -1;
    pthread_mutex_unlock(&chr->lock);
    return fd;
}

void output_set_fd(struct chardev *chr, int fd)
{
    int type;
    socklen_t size = sizeof(type);
    pthread_mutex_lock(&chr->lock);
    chr->out_fd = fd;
    chr->out_is_socket = fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
    buffer_drop(&chr->out, chr->out.count);
    pthread_mutex_unlock(&chr->lock);
}
