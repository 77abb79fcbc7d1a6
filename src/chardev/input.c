/* SPDX-License-Identifier: MIT */
/*
 * Input, and the news of opening and closing. Everything here is the loop's.
 *
 *   fd --> stage --> queue of the front end in focus --> can_read(), read()
 *             \--> keys of the mux
 *
 * The fd is read when the stage is empty; the stage empties into the queue as far as there is
 * room. So input is never lost, and keys of the mux are seen while the front end takes nothing.
 *
 * Callbacks may do anything: detach, delete, close. Hence after each one everything is looked up
 * again, and chardev_enter()/chardev_leave() keep chr allocated.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "chardev/internal.h"

/* ---- queues --------------------------------------------------------------------------------- */

static void queue_push(struct chardev_slot *slot, uint8_t c)
{
    assert(slot->count < CHARDEV_QUEUE_SIZE);
    slot->queue[(slot->head + slot->count) % CHARDEV_QUEUE_SIZE] = c;
    slot->count++;
}

static size_t queue_pop(struct chardev_slot *slot, uint8_t *buf, size_t len)
{
    len = MIN(len, slot->count);
    size_t first = MIN(len, CHARDEV_QUEUE_SIZE - slot->head);
    memcpy(buf, slot->queue + slot->head, first);
    memcpy(buf + first, slot->queue, len - first);
    slot->head = (slot->head + len) % CHARDEV_QUEUE_SIZE;
    slot->count -= len;
    return len;
}

static struct chardev_slot *focused(const struct chardev *chr)
{
    return chr->focus >= 0 ? chr->slots[chr->focus] : NULL;
}

static bool is_drained(const struct chardev *chr)
{
    if (chr->stage_count > 0)
        return false;
    for (int i = 0; i < CHARDEV_MUX_MAX; i++) {
        if (chr->slots[i]->count > 0 || chr->slots[i]->is_reading)
            return false;
    }
    return true;
}

void chardev_discard_input(struct chardev *chr)
{
    chr->stage_count = 0;
    chr->has_escape = false;
    for (int i = 0; i < CHARDEV_MUX_MAX; i++)
        chr->slots[i]->count = 0;
}

/* ---- callbacks ------------------------------------------------------------------------------ */

void chardev_tell(struct chardev_slot *slot, enum chardev_event event)
{
    struct chardev_frontend *fe = slot->fe;
    if (fe && fe->event)
        fe->event(fe->opaque, event);
}

static void tell_opened(struct chardev *chr)
{
    for (int i = 0; i < CHARDEV_MUX_MAX; i++) {
        struct chardev_slot *slot = chr->slots[i];
        if (!chr->is_open || !slot->fe || slot->is_told_open)
            continue;
        slot->is_told_open = true;
        chardev_tell(slot, CHARDEV_OPENED);
        if (chr->is_mux && chr->focus == i)
            chardev_tell(slot, CHARDEV_FOCUS_IN);
    }
}

static void tell_closed(struct chardev *chr)
{
    for (int i = 0; i < CHARDEV_MUX_MAX; i++) {
        struct chardev_slot *slot = chr->slots[i];
        if (!slot->is_told_open)
            continue;
        slot->is_told_open = false;
        if (!chr->is_deleted)
            chardev_tell(slot, CHARDEV_CLOSED);
    }
}

static void tell_writable(struct chardev *chr)
{
    for (int i = 0; i < CHARDEV_MUX_MAX; i++) {
        struct chardev_frontend *fe = chr->slots[i]->fe;
        if (fe && fe->writable && !chr->is_deleted)
            fe->writable(fe->opaque);
    }
}

/* ---- moving input on ------------------------------------------------------------------------ */

/* From the stage to queues, until the queue in focus is full. True if a byte moved. */
static bool distribute(struct chardev *chr)
{
    bool progress = false;
    while (chr->stage_count > 0) {
        struct chardev_slot *slot = focused(chr);
        if (!slot || slot->count == CHARDEV_QUEUE_SIZE)
            break;
        uint8_t c = chr->stage[chr->stage_head++];
        chr->stage_count--;
        progress = true;
        if (!chr->is_mux || !mux_filter(chr, &c))
            queue_push(slot, c);
    }
    return progress;
}

static void deliver(struct chardev_slot *slot)
{
    uint8_t buf[CHARDEV_STAGE_SIZE];
    while (slot->count > 0 && slot->is_told_open && !slot->is_reading) {
        struct chardev_frontend *fe = slot->fe;
        int room = fe->can_read(fe->opaque);
        if (room <= 0 || slot->fe != fe)
            return;
        size_t len = queue_pop(slot, buf, MIN((size_t)room, sizeof(buf)));
        slot->is_reading = true;
        fe->read(fe->opaque, buf, len);
        slot->is_reading = false;
    }
}

static void move_input(struct chardev *chr)
{
    do {
        for (int i = 0; i < CHARDEV_MUX_MAX; i++)
            deliver(chr->slots[i]);
    } while (distribute(chr));
}

/* ---- fds ------------------------------------------------------------------------------------ */

static void watch(struct chardev *chr);

static void on_readable(void *opaque)
{
    struct chardev *chr = opaque;
    if (chr->stage_count > 0 || chr->in_eof) {
        /* A callback runs the loop while it is served from the stage. */
        watch(chr);
        return;
    }
    ssize_t n = read(chr->in_fd, chr->stage, sizeof(chr->stage));
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n > 0) {
        chr->stage_head = 0;
        chr->stage_count = (size_t)n;
    } else {
        /* EIO of a terminal, ECONNRESET of a socket: also an end. */
        chr->in_eof = true;
        if (chr->backend->input_ending)
            chr->backend->input_ending(chr);
    }
    chardev_pump(chr);
}

static void on_writable(void *opaque)
{
    struct chardev *chr = opaque;
    chardev_enter(chr);
    if (output_flush(chr))
        tell_writable(chr);
    if (!chr->is_deleted)
        chardev_pump(chr);
    chardev_leave(chr);
}

static void watch(struct chardev *chr)
{
    struct chardev_slot *slot = focused(chr);
    bool wants_input = chr->in_fd >= 0 && !chr->in_eof && chr->stage_count == 0 && slot &&
                       slot->is_told_open && slot->count < CHARDEV_QUEUE_SIZE;
    aio_fn *read_fn = wants_input ? on_readable : NULL;
    aio_fn *write_fn = output_is_pending(chr) ? on_writable : NULL;

    if (chr->in_fd == chr->out_fd) {
        if (chr->in_fd >= 0)
            aio_set_fd(chr->loop, chr->in_fd, read_fn, write_fn, chr);
        return;
    }
    if (chr->in_fd >= 0)
        aio_set_fd(chr->loop, chr->in_fd, read_fn, NULL, chr);
    if (chr->out_fd >= 0)
        aio_set_fd(chr->loop, chr->out_fd, NULL, write_fn, chr);
}

void chardev_pump(struct chardev *chr)
{
    if (chr->is_deleted)
        return;
    chardev_enter(chr);
    tell_opened(chr);
    move_input(chr);
    if (chr->in_eof && is_drained(chr) && !chr->is_deleted) {
        chr->in_eof = false;
        chr->backend->input_ended(chr);
    }
    if (!chr->is_deleted)
        watch(chr);
    chardev_leave(chr);
}

void chardev_connect(struct chardev *chr, int in_fd, int out_fd)
{
    assert(chr->in_fd < 0 && chr->out_fd < 0);
    chr->in_fd = in_fd;
    chr->in_eof = false;
    output_set_fd(chr, out_fd);
    chr->is_open = true;
    bh_schedule(chr->bh);
}

void chardev_disconnect_input(struct chardev *chr)
{
    if (chr->in_fd >= 0)
        aio_set_fd(chr->loop, chr->in_fd, NULL, NULL, NULL);
    chr->in_fd = -1;
    chr->in_eof = false;
    chr->is_open = false;
    chardev_discard_input(chr);
    bh_schedule(chr->bh); /* watches out_fd again, if it was the same */
    chardev_enter(chr);
    tell_closed(chr);
    chardev_leave(chr);
}

void chardev_disconnect(struct chardev *chr)
{
    if (chr->out_fd >= 0)
        aio_set_fd(chr->loop, chr->out_fd, NULL, NULL, NULL);
    bool may_go_on = output_flush(chr); /* the peer may still read */
    output_set_fd(chr, -1);
    chardev_enter(chr);
    chardev_disconnect_input(chr);
    /* Nothing is in the way of writers any more: what they write is dropped. */
    if (output_flush(chr) || may_go_on)
        tell_writable(chr);
    chardev_leave(chr);
}

/* ---- front ends ----------------------------------------------------------------------------- */

bool chardev_attach(struct chardev *chr, struct chardev_frontend *fe, struct error **errp)
{
    int places = chr->is_mux ? CHARDEV_MUX_MAX : 1;
    int i = 0;
    while (i < places && chr->slots[i]->fe)
        i++;
    if (i == places) {
        if (chr->is_mux)
            error_set(errp, "chardev '%s' is in use by %d front ends already, which is the most",
                      chr->id, places);
        else
            error_set(errp, "chardev '%s' is in use; with mux=on several may share it", chr->id);
        return false;
    }
    struct chardev_slot *slot = chr->slots[i];
    slot->fe = fe;
    slot->is_told_open = false;
    slot->head = slot->count = 0;

    struct chardev_slot *old = focused(chr);
    if (!old)
        chr->focus = i;
    else if (old->fe->is_background && !fe->is_background && !old->is_told_open)
        chr->focus = i; /* before anyone could have typed */
    bh_schedule(chr->bh);
    return true;
}

void chardev_detach(struct chardev *chr, struct chardev_frontend *fe)
{
    chardev_enter(chr); /* the last one of a deleted chr frees it */
    for (int i = 0; i < CHARDEV_MUX_MAX; i++) {
        struct chardev_slot *slot = chr->slots[i];
        if (slot->fe != fe)
            continue;
        slot->fe = NULL;
        slot->is_told_open = false;
        slot->count = 0;
        if (chr->focus == i) {
            chr->focus = -1;
            mux_focus(chr, mux_default_focus(chr));
        }
        /* The fd stops to be watched if nobody is left. */
        bh_schedule(chr->bh);
        chardev_leave(chr);
        return;
    }
    assert(!"not attached");
}

void chardev_accept_input(struct chardev *chr)
{
    bh_schedule(chr->bh);
}

bool chardev_has_frontend(const struct chardev *chr)
{
    for (int i = 0; i < CHARDEV_MUX_MAX; i++) {
        if (chr->slots[i]->fe)
            return true;
    }
    return false;
}
