/* SPDX-License-Identifier: MIT */
/* Regions: making and destroying them, and changes of the tree (mem/region.h). */
#include "mem/region.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/internal.h"
#include "mem/machine_lock.h"

/* ---- initialisation ------------------------------------------------------------------------- */

static void init(struct mem_region *mr, const char *name, enum mem_region_kind kind, uint64_t size)
{
    memset(mr, 0, sizeof(*mr));
    mr->name = xstrdup(name);
    mr->kind = kind;
    mr->size = size;
    mr->enabled = true;
}

void mem_region_init_container(struct mem_region *mr, const char *name, uint64_t size)
{
    init(mr, name, MEM_REGION_CONTAINER, size);
}

static bool is_access_size(unsigned size)
{
    return size <= 8 && (size == 0 || is_power_of_2(size));
}

static void check_ops(const struct mem_region_ops *ops)
{
    assert(is_access_size(ops->valid.min) && is_access_size(ops->valid.max));
    assert(is_access_size(ops->impl.min) && is_access_size(ops->impl.max));
}

void mem_region_init_io(struct mem_region *mr, const char *name, uint64_t size,
                        const struct mem_region_ops *ops, void *opaque)
{
    check_ops(ops);
    /* Widened accesses stay within the region. */
    assert(size == UINT64_MAX || ops->impl.min == 0 || size % ops->impl.min == 0);
    init(mr, name, MEM_REGION_IO, size);
    mr->ops = ops;
    mr->opaque = opaque;
}

static bool init_memory(struct mem_region *mr, const char *name, enum mem_region_kind kind,
                        uint64_t size, bool shared, struct error **errp)
{
    memset(mr, 0, sizeof(*mr));
    struct ram_block *block = ram_block_new(name, size, shared, errp);
    if (!block) {
        return false;
    }
    init(mr, name, kind, size);
    mr->ram = block;
    mr->ram_owned = true;
    return true;
}

bool mem_region_init_ram(struct mem_region *mr, const char *name, uint64_t size, bool shared,
                         struct error **errp)
{
    return init_memory(mr, name, MEM_REGION_RAM, size, shared, errp);
}

void mem_region_init_ram_block(struct mem_region *mr, const char *name, struct ram_block *block)
{
    init(mr, name, MEM_REGION_RAM, block->size);
    mr->ram = block;
}

bool mem_region_init_rom(struct mem_region *mr, const char *name, uint64_t size,
                         struct error **errp)
{
    return init_memory(mr, name, MEM_REGION_ROM, size, false, errp);
}

bool mem_region_init_rom_device(struct mem_region *mr, const char *name, uint64_t size,
                                const struct mem_region_ops *ops, void *opaque, struct error **errp)
{
    check_ops(ops);
    if (!init_memory(mr, name, MEM_REGION_ROM_DEVICE, size, false, errp)) {
        return false;
    }
    mr->ops = ops;
    mr->opaque = opaque;
    mr->rom_mode = true;
    return true;
}

void mem_region_init_alias(struct mem_region *mr, const char *name, struct mem_region *target,
                           uint64_t target_offset, uint64_t size)
{
    init(mr, name, MEM_REGION_ALIAS, size);
    mr->alias = target;
    mr->alias_offset = target_offset;
}

void mem_region_destroy(struct mem_region *mr)
{
    if (!mr->name) {
        return;
    }
    assert(!mr->container && !mem_transaction_open());
    assert(!mem_region_is_running(mr));

    /* The commit that took the region out of the tree has waited for those who read views, so
     * only callbacks that began before are left. */
    while (atomic_load_explicit(&mr->running, memory_order_acquire)) {
        sched_yield();
    }
    while (mr->first_child) {
        struct mem_region *child = mr->first_child;
        mr->first_child = child->next_sibling;
        child->container = NULL;
        child->next_sibling = NULL;
    }
    if (mr->ram_owned) {
        ram_block_free(mr->ram);
    }
    free(mr->eventfds);
    free(mr->coalesced);
    free(mr->name);
    memset(mr, 0, sizeof(*mr));
}

/* ---- the tree ------------------------------------------------------------------------------- */

/* A change by itself is a transaction of its own. */
static void change_begin(void)
{
    assert(machine_lock_held());
    mem_transaction_begin();
}

static void change_end(void)
{
    mem_topology_changed();
    mem_transaction_commit();
}

static void link_child(struct mem_region *container, struct mem_region *mr)
{
    struct mem_region **p = &container->first_child;

    while (*p && (*p)->priority > mr->priority) {
        p = &(*p)->next_sibling;
    }
    mr->next_sibling = *p;
    *p = mr;
}

static void unlink_child(struct mem_region *container, struct mem_region *mr)
{
    for (struct mem_region **p = &container->first_child; *p; p = &(*p)->next_sibling) {
        if (*p == mr) {
            *p = mr->next_sibling;
            mr->next_sibling = NULL;
            return;
        }
    }
    assert(!"a child of its container");
}

void mem_region_add_overlap(struct mem_region *container, uint64_t offset, struct mem_region *mr,
                            int priority)
{
    assert(!mr->container && mr != container);
    change_begin();
    mr->container = container;
    mr->offset = offset;
    mr->priority = priority;
    link_child(container, mr);
    change_end();
}

void mem_region_add(struct mem_region *container, uint64_t offset, struct mem_region *mr)
{
    mem_region_add_overlap(container, offset, mr, 0);
}

void mem_region_remove(struct mem_region *container, struct mem_region *mr)
{
    assert(mr->container == container);
    change_begin();
    unlink_child(container, mr);
    mr->container = NULL;
    change_end();
}

void mem_region_set_enabled(struct mem_region *mr, bool enabled)
{
    if (mr->enabled != enabled) {
        change_begin();
        mr->enabled = enabled;
        change_end();
    }
}

void mem_region_set_offset(struct mem_region *mr, uint64_t offset)
{
    if (mr->offset == offset) {
        return;
    }
    change_begin();
    mr->offset = offset;
    if (mr->container) {
        /* Among equals it now counts as the one added last. */
        unlink_child(mr->container, mr);
        link_child(mr->container, mr);
    }
    change_end();
}

void mem_region_set_size(struct mem_region *mr, uint64_t size)
{
    assert(!mr->ram || size <= mr->ram->size);
    if (mr->size != size) {
        change_begin();
        __atomic_store_n(&mr->size, size, __ATOMIC_RELAXED);
        change_end();
    }
}

void mem_region_set_alias_offset(struct mem_region *mr, uint64_t offset)
{
    assert(mr->kind == MEM_REGION_ALIAS);
    if (mr->alias_offset != offset) {
        change_begin();
        mr->alias_offset = offset;
        change_end();
    }
}

void mem_region_set_readonly(struct mem_region *mr, bool readonly)
{
    enum mem_region_kind kind = readonly ? MEM_REGION_ROM : MEM_REGION_RAM;

    if (mr->kind == MEM_REGION_ALIAS) {
        if (mr->readonly != readonly) {
            change_begin();
            mr->readonly = readonly;
            change_end();
        }
        return;
    }
    assert(mr->kind == MEM_REGION_RAM || mr->kind == MEM_REGION_ROM);
    if (mr->kind != kind) {
        change_begin();
        mr->kind = kind;
        change_end();
    }
}

void mem_region_rom_device_set_mode(struct mem_region *mr, bool rom_mode)
{
    assert(mr->kind == MEM_REGION_ROM_DEVICE);
    if (mr->rom_mode != rom_mode) {
        change_begin();
        mr->rom_mode = rom_mode;
        change_end();
    }
}

void mem_region_set_dirty_log(struct mem_region *mr, bool on)
{
    assert(mr->ram);
    if (mr->dirty_log != on) {
        change_begin();
        mr->dirty_log = on;
        change_end();
    }
}

/* ---- eventfds and coalesced ranges ---------------------------------------------------------- */

static bool same_eventfd(const struct mem_eventfd *a, const struct mem_eventfd *b)
{
    return a->offset == b->offset && a->size == b->size && a->datamatch == b->datamatch &&
           (!a->datamatch || a->data == b->data) && a->notifier == b->notifier;
}

/* Publishes a table with one more entry, or with one less. */
static void replace_eventfds(struct mem_region *mr, const struct mem_eventfd *add,
                             const struct mem_eventfd *del)
{
    struct mem_eventfds *old = mr->eventfds;
    unsigned count = old ? old->count : 0;
    struct mem_eventfds *new = xmalloc(sizeof(*new) + (count + 1) * sizeof(new->entries[0]));

    assert(machine_lock_held());
    new->count = 0;
    for (unsigned i = 0; i < count; i++) {
        if (del && same_eventfd(&old->entries[i], del)) {
            del = NULL;
            continue;
        }
        new->entries[new->count++] = old->entries[i];
    }
    assert(!del);
    if (add) {
        new->entries[new->count++] = *add;
    }
    mem_transaction_begin();
    mem_rcu_store(mr->eventfds, new);
    if (old) {
        mem_free_later(old);
    }
    mem_extras_changed();
    mem_transaction_commit();
}

void mem_region_add_eventfd(struct mem_region *mr, const struct mem_eventfd *e)
{
    assert(is_access_size(e->size) && e->notifier);
    replace_eventfds(mr, e, NULL);
}

void mem_region_del_eventfd(struct mem_region *mr, const struct mem_eventfd *e)
{
    replace_eventfds(mr, NULL, e);
}

void mem_region_set_coalesced(struct mem_region *mr, uint64_t offset, uint64_t size)
{
    assert(size && range_fits(offset, size, mr->size));
    assert(machine_lock_held());
    mr->coalesced = xreallocarray(mr->coalesced, mr->coalesced_count + 1, sizeof(mr->coalesced[0]));
    mr->coalesced[mr->coalesced_count++] = (struct mem_range){.offset = offset, .size = size};
    mem_transaction_begin();
    mem_extras_changed();
    mem_transaction_commit();
}
