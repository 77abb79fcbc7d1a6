/* SPDX-License-Identifier: MIT */
/*
 * Telling listeners what differs between two states of an address space.
 *
 * Both states are sorted, so each kind of thing (ranges, eventfds, coalesced ranges) takes two
 * walks over both: the first tells what goes, the second what comes.
 */
#include "mem/internal.h"

/* ---- calls ---------------------------------------------------------------------------------- */

typedef void listener_call(struct mem_listener *listener, const void *what);

static void call_rising(struct mem_listener *listener, listener_call *call, const void *what)
{
    for (; listener; listener = listener->next) {
        call(listener, what);
    }
}

static void call_falling(struct mem_listener *listener, listener_call *call, const void *what)
{
    if (listener) {
        call_falling(listener->next, call, what);
        call(listener, what);
    }
}

static void call_begin(struct mem_listener *l, const void *what)
{
    if (l->begin) {
        l->begin(l);
    }
}

static void call_commit(struct mem_listener *l, const void *what)
{
    if (l->commit) {
        l->commit(l);
    }
}

static void call_region_add(struct mem_listener *l, const void *what)
{
    if (l->region_add) {
        l->region_add(l, what);
    }
}

static void call_region_del(struct mem_listener *l, const void *what)
{
    if (l->region_del) {
        l->region_del(l, what);
    }
}

static void call_log_changed(struct mem_listener *l, const void *what)
{
    if (l->log_changed) {
        l->log_changed(l, what);
    }
}

static void call_eventfd_add(struct mem_listener *l, const void *what)
{
    const struct flat_eventfd *e = what;

    if (l->eventfd_add) {
        l->eventfd_add(l, e->address, &e->e);
    }
}

static void call_eventfd_del(struct mem_listener *l, const void *what)
{
    const struct flat_eventfd *e = what;

    if (l->eventfd_del) {
        l->eventfd_del(l, e->address, &e->e);
    }
}

static void call_coalesced_add(struct mem_listener *l, const void *what)
{
    const struct flat_coalesced *c = what;

    if (l->coalesced_add) {
        l->coalesced_add(l, c->address, c->size);
    }
}

static void call_coalesced_del(struct mem_listener *l, const void *what)
{
    const struct flat_coalesced *c = what;

    if (l->coalesced_del) {
        l->coalesced_del(l, c->address, c->size);
    }
}

/* ---- differences ---------------------------------------------------------------------------- */

static bool same_but_log(const struct flat_range *a, const struct flat_range *b)
{
    return a->first == b->first && a->last == b->last && a->region == b->region &&
           a->offset == b->offset && a->is_ram == b->is_ram && a->readonly == b->readonly;
}

static void tell_ranges(struct mem_listener *to, const struct flat_view *old,
                        const struct flat_view *new, bool coming)
{
    unsigned i = 0, k = 0;

    while (i < old->count || k < new->count) {
        const struct flat_range *o = i < old->count ? &old->ranges[i] : NULL;
        const struct flat_range *n = k < new->count ? &new->ranges[k] : NULL;
        struct mem_section section;

        if (o && n && same_but_log(o, n)) {
            if (coming && o->dirty_log != n->dirty_log) {
                section = flat_range_section(n);
                call_rising(to, call_log_changed, &section);
            }
            i++;
            k++;
        } else if (o && (!n || o->first <= n->first)) {
            if (!coming) {
                section = flat_range_section(o);
                call_falling(to, call_region_del, &section);
            }
            i++;
        } else {
            if (coming) {
                section = flat_range_section(n);
                call_rising(to, call_region_add, &section);
            }
            k++;
        }
    }
}

static void tell_eventfds(struct mem_listener *to, const struct mem_state *old,
                          const struct mem_state *new, bool coming)
{
    unsigned i = 0, k = 0;

    while (i < old->eventfd_count || k < new->eventfd_count) {
        int order = i == old->eventfd_count ? 1
                    : k == new->eventfd_count
                        ? -1
                        : flat_eventfd_compare(&old->eventfds[i], &new->eventfds[k]);
        if (order < 0 && !coming) {
            call_falling(to, call_eventfd_del, &old->eventfds[i]);
        }
        if (order > 0 && coming) {
            call_rising(to, call_eventfd_add, &new->eventfds[k]);
        }
        i += order <= 0;
        k += order >= 0;
    }
}

static void tell_coalesced(struct mem_listener *to, const struct mem_state *old,
                           const struct mem_state *new, bool coming)
{
    unsigned i = 0, k = 0;

    while (i < old->coalesced_count || k < new->coalesced_count) {
        int order = i == old->coalesced_count ? 1
                    : k == new->coalesced_count
                        ? -1
                        : flat_coalesced_compare(&old->coalesced[i], &new->coalesced[k]);
        if (order < 0 && !coming) {
            call_falling(to, call_coalesced_del, &old->coalesced[i]);
        }
        if (order > 0 && coming) {
            call_rising(to, call_coalesced_add, &new->coalesced[k]);
        }
        i += order <= 0;
        k += order >= 0;
    }
}

void mem_listeners_tell(struct mem_listener *to, const struct mem_state *old,
                        const struct mem_state *new)
{
    call_rising(to, call_begin, NULL);
    tell_ranges(to, old->view, new->view, false);
    tell_ranges(to, old->view, new->view, true);
    tell_eventfds(to, old, new, false);
    tell_eventfds(to, old, new, true);
    tell_coalesced(to, old, new, false);
    tell_coalesced(to, old, new, true);
    call_rising(to, call_commit, NULL);
}
