/* SPDX-License-Identifier: MIT */
/*
 * Address spaces and transactions.
 *
 * The last commit of a transaction builds new views, tells the listeners of each address space
 * what differs, publishes the views, waits for the readers of the old ones and frees those. All of
 * it runs in the committing thread with the machine lock held.
 */
#include "mem/address_space.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/internal.h"
#include "mem/machine_lock.h"

struct address_space *address_spaces;
struct address_space *address_space_memory, *address_space_smm, *address_space_io;

static struct mem_region memory_root, io_ports_root;
/* What a CPU in SMM sees: SMRAM over system memory. */
static struct mem_region smm_root, smm_system, smram;

static struct mem_state state_of(const struct address_space *as)
{
    return (struct mem_state){as->view, as->eventfds, as->eventfd_count, as->coalesced,
                              as->coalesced_count};
}

static const struct flat_view no_ranges;
static const struct mem_state nothing = {.view = &no_ranges};

/* ---- transactions --------------------------------------------------------------------------- */

/* Machine lock. */
static struct {
    unsigned depth;
    bool committing;
    bool topology; /* regions changed */
    bool extras;   /* eventfds or coalesced ranges changed */
    /* To be freed after the next grace period. */
    void **garbage;
    unsigned garbage_count;
} transaction;

void mem_topology_changed(void)
{
    transaction.topology = true;
}

void mem_extras_changed(void)
{
    transaction.extras = true;
}

bool mem_transaction_open(void)
{
    return transaction.depth > 0;
}

void mem_free_later(void *p)
{
    assert(machine_lock_held());
    transaction.garbage = xreallocarray(transaction.garbage, transaction.garbage_count + 1,
                                        sizeof(transaction.garbage[0]));
    transaction.garbage[transaction.garbage_count++] = p;
}

static void free_garbage(void)
{
    if (!transaction.garbage_count) {
        return;
    }
    mem_rcu_synchronize();
    for (unsigned i = 0; i < transaction.garbage_count; i++) {
        free(transaction.garbage[i]);
    }
    free(transaction.garbage);
    transaction.garbage = NULL;
    transaction.garbage_count = 0;
}

static void view_unref(struct flat_view *view)
{
    if (--view->refs == 0) {
        mem_free_later(view);
    }
}

/* The new view of an address space; shared with those before it in the list that have the same
 * root. Bus masters mostly see system memory as it is. */
static struct flat_view *new_view(struct address_space *as)
{
    struct mem_region *root = flat_view_root(as->root);

    for (struct address_space *other = address_spaces; other != as; other = other->next) {
        if (other->view->root == root) {
            other->view->refs++;
            return other->view;
        }
    }
    return flat_view_new(root);
}

static void publish(struct address_space *as, struct flat_view *view)
{
    mem_rcu_store(as->view, view);
    /* After the view: who reads the new number finds the new view. */
    __atomic_store_n(&as->generation, view->id, __ATOMIC_RELEASE);
}

static void update(struct address_space *as)
{
    struct mem_state old = state_of(as);
    struct flat_view *old_view = as->view;
    struct flat_view *view = old_view;

    if (transaction.topology) {
        view = new_view(as);
        if (view == old_view) {
            view->refs--;
        } else if (view->refs == 1 && view->root == old_view->root &&
                   flat_view_same(view, old_view)) {
            /* Nobody has seen it. */
            free(view);
            view = old_view;
        }
    }
    struct mem_state new = {.view = view};
    struct flat_eventfd *eventfds = flat_view_eventfds(view, &new.eventfd_count);
    struct flat_coalesced *coalesced = flat_view_coalesced(view, &new.coalesced_count);
    new.eventfds = eventfds;
    new.coalesced = coalesced;

    /* Readers go to the new view before memory disappears from an engine's slots. */
    if (view != old_view) {
        publish(as, view);
    }
    mem_listeners_tell(as->listeners, &old, &new);
    if (view != old_view) {
        view_unref(old_view);
    }
    free(as->eventfds);
    free(as->coalesced);
    as->eventfds = eventfds;
    as->eventfd_count = new.eventfd_count;
    as->coalesced = coalesced;
    as->coalesced_count = new.coalesced_count;
}

void mem_transaction_begin(void)
{
    assert(machine_lock_held() && !transaction.committing);
    transaction.depth++;
}

void mem_transaction_commit(void)
{
    assert(machine_lock_held() && transaction.depth);
    if (transaction.depth > 1) {
        transaction.depth--;
        return;
    }
    if (transaction.topology || transaction.extras) {
        transaction.committing = true;
        for (struct address_space *as = address_spaces; as; as = as->next) {
            update(as);
        }
        transaction.committing = false;
        transaction.topology = false;
        transaction.extras = false;
    }
    free_garbage();
    transaction.depth = 0;
}

/* ---- address spaces ------------------------------------------------------------------------- */

/* Takes the machine lock unless this thread has it. */
static bool lock_machine(void)
{
    bool take = !machine_lock_held();

    if (take) {
        machine_lock();
    }
    return take;
}

static void unlock_machine(bool taken)
{
    if (taken) {
        machine_unlock();
    }
}

struct address_space *address_space_new(const char *name, struct mem_region *root)
{
    struct address_space *as = xnew(struct address_space);
    bool taken = lock_machine();

    as->name = xstrdup(name);
    as->root = root;
    /* At the end of the list: new_view() looks at those before. */
    struct address_space **p = &address_spaces;
    while (*p) {
        p = &(*p)->next;
    }
    *p = as;
    publish(as, new_view(as));
    as->eventfds = flat_view_eventfds(as->view, &as->eventfd_count);
    as->coalesced = flat_view_coalesced(as->view, &as->coalesced_count);
    unlock_machine(taken);
    return as;
}

void address_space_free(struct address_space *as)
{
    if (!as) {
        return;
    }
    bool taken = lock_machine();
    assert(!transaction.depth);
    while (as->listeners) {
        address_space_remove_listener(as, as->listeners);
    }
    struct address_space **p = &address_spaces;
    while (*p != as) {
        p = &(*p)->next;
    }
    *p = as->next;
    view_unref(as->view);
    mem_free_later(as);
    free(as->eventfds);
    free(as->coalesced);
    free(as->name);
    free_garbage();
    unlock_machine(taken);
}

void address_space_add_listener(struct address_space *as, struct mem_listener *listener)
{
    struct mem_listener **p = &as->listeners;
    struct mem_state now = state_of(as);

    assert(machine_lock_held() && !transaction.committing);
    listener->next = NULL;
    mem_listeners_tell(listener, &nothing, &now);
    while (*p && (*p)->priority <= listener->priority) {
        p = &(*p)->next;
    }
    listener->next = *p;
    *p = listener;
}

void address_space_remove_listener(struct address_space *as, struct mem_listener *listener)
{
    struct mem_state now = state_of(as);

    assert(machine_lock_held() && !transaction.committing);
    for (struct mem_listener **p = &as->listeners; *p; p = &(*p)->next) {
        if (*p == listener) {
            *p = listener->next;
            listener->next = NULL;
            mem_listeners_tell(listener, &now, &nothing);
            return;
        }
    }
}

void address_space_sync_dirty(struct address_space *as, struct mem_region *mr)
{
    assert(machine_lock_held());
    for (unsigned i = 0; i < as->view->count; i++) {
        if (as->view->ranges[i].region == mr) {
            struct mem_section section = flat_range_section(&as->view->ranges[i]);
            for (struct mem_listener *l = as->listeners; l; l = l->next) {
                if (l->log_sync) {
                    l->log_sync(l, &section);
                }
            }
        }
    }
}

uint64_t address_space_generation(const struct address_space *as)
{
    return __atomic_load_n(&as->generation, __ATOMIC_ACQUIRE);
}

/* ---- the machine's own ---------------------------------------------------------------------- */

struct mem_region *mem_root(void)
{
    return &memory_root;
}

struct mem_region *mem_smram(void)
{
    return &smram;
}

struct mem_region *io_root(void)
{
    return &io_ports_root;
}

void mem_init(void)
{
    mem_thread_register();
    mem_region_init_container(&memory_root, "system", UINT64_MAX);
    mem_region_init_container(&io_ports_root, "io", 64 * KiB);
    mem_region_init_container(&smm_root, "smm", UINT64_MAX);
    mem_region_init_alias(&smm_system, "smm-system", &memory_root, 0, UINT64_MAX);
    mem_region_init_container(&smram, "smram", 4 * GiB);
    address_space_memory = address_space_new("memory", &memory_root);
    machine_lock();
    mem_region_set_enabled(&smram, false);
    mem_region_add_overlap(&smm_root, 0, &smm_system, 0);
    mem_region_add_overlap(&smm_root, 0, &smram, 1);
    machine_unlock();
    address_space_smm = address_space_new("smm", &smm_root);
    address_space_io = address_space_new("I/O", &io_ports_root);
}

void mem_cleanup(void)
{
    address_space_free(address_space_io);
    address_space_free(address_space_smm);
    machine_lock();
    mem_region_remove(&smm_root, &smram);
    mem_region_remove(&smm_root, &smm_system);
    machine_unlock();
    mem_region_destroy(&smram);
    mem_region_destroy(&smm_system);
    mem_region_destroy(&smm_root);
    address_space_free(address_space_memory);
    address_space_smm = NULL;
    address_space_memory = NULL;
    address_space_io = NULL;
    mem_region_destroy(&io_ports_root);
    mem_region_destroy(&memory_root);
    mem_thread_unregister();
}
