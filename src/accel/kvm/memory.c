/* SPDX-License-Identifier: MIT */
/*
 * Memory slots: what of the flat view the guest reaches without an exit.
 *
 *   region_del, region_add, …    collected
 *   commit                       slots that go, then slots that come
 *
 * A section that is RAM, ROM or a rom-device in ROM mode becomes a slot, cut to whole pages; the
 * parts of pages that are left over are reached by MMIO exits. KVM cannot change a slot's range in
 * place. If one commit takes a range away and gives (part of) it back, vCPUs are held outside of
 * the guest in between.
 *
 * Machine lock held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/kvm/kvm.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"
#include "device/system.h"

static struct kvm_memory *memory_from(struct mem_listener *listener)
{
    return container_of(listener, struct kvm_memory, listener);
}

/* Of KVM's numbers the upper half is the address space's. */
static uint32_t slot_number(const struct kvm_memory *memory, const struct kvm_slot *slot)
{
    return (uint32_t)(slot - memory->slots) | memory->id << 16;
}

/* ---- slots ---------------------------------------------------------------------------------- */

static struct kvm_slot *slot_at(struct kvm_memory *memory, uint64_t address)
{
    for (unsigned i = 0; i < memory->slot_count; i++) {
        if (memory->slots[i].used && memory->slots[i].address == address) {
            return &memory->slots[i];
        }
    }
    return NULL;
}

static struct kvm_slot *slot_new(struct kvm_memory *memory)
{
    for (unsigned i = 0; i < memory->slot_count; i++) {
        if (!memory->slots[i].used) {
            return &memory->slots[i];
        }
    }
    unsigned count = MIN(memory->slot_count ? 2 * memory->slot_count : 16, memory->kvm->max_slots);
    if (count == memory->slot_count) {
        return NULL;
    }
    memory->slots = xreallocarray(memory->slots, count, sizeof(*memory->slots));
    memset(memory->slots + memory->slot_count, 0,
           (count - memory->slot_count) * sizeof(*memory->slots));
    struct kvm_slot *slot = &memory->slots[memory->slot_count];
    memory->slot_count = count;
    return slot;
}

static int slot_commit(struct kvm_memory *memory, const struct kvm_slot *slot, uint64_t size)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot_number(memory, slot),
        .flags = size ? slot->flags : 0,
        .guest_phys_addr = slot->address,
        .memory_size = size,
        .userspace_addr = (uintptr_t)slot->host,
    };

    KVM_COUNT(set_memory_region);
    return kvm_ioctl(memory->kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Without the slot the guest would go on without its memory: the VM stops instead. */
static void slot_failed(const struct kvm_slot *slot, const char *reason)
{
    log_error("-accel kvm: the memory slot at 0x%llx, %llu bytes, cannot be set: %s",
              (unsigned long long)slot->address, (unsigned long long)slot->size, reason);
    system_internal_error(0);
}

/* ---- dirty log ------------------------------------------------------------------------------- */

static void slot_sync(struct kvm_memory *memory, const struct kvm_slot *slot)
{
    uint64_t pages = slot->size / GUEST_PAGE_SIZE;
    size_t words = (pages + 63) / 64;
    autofree uint64_t *bitmap = xcalloc(words, sizeof(*bitmap));
    struct kvm_dirty_log log = {.slot = slot_number(memory, slot), .dirty_bitmap = bitmap};

    KVM_COUNT(get_dirty_log);
    if (kvm_ioctl(memory->kvm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0) {
        /* Nothing is known: everything may have been written. */
        ram_set_dirty(slot->ram, slot->ram_offset, slot->size);
        return;
    }
    for (size_t i = 0; i < words; i++) {
        for (uint64_t bits = bitmap[i]; bits; bits &= bits - 1) {
            uint64_t page = i * 64 + __builtin_ctzll(bits);
            ram_set_dirty(slot->ram, slot->ram_offset + page * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
        }
    }
}

/* ---- sections -> slots ----------------------------------------------------------------------- */

/* The whole pages of a section; false: none, or it is no memory. */
static bool section_slot(const struct kvm_accel *kvm, const struct mem_section *section,
                         struct kvm_slot *slot)
{
    uint64_t skip = align_up(section->address, GUEST_PAGE_SIZE) - section->address;
    uint64_t size;

    if (!section->is_ram || !section->region->ram || skip >= section->size) {
        return false;
    }
    size = align_down(section->size - skip, GUEST_PAGE_SIZE);
    if (!size || (section->offset + skip) % GUEST_PAGE_SIZE ||
        (section->readonly && !kvm->has_readonly_mem)) {
        return false;
    }
    *slot = (struct kvm_slot){
        .used = true,
        .address = section->address + skip,
        .size = size,
        .host = section->region->ram->host + section->offset + skip,
        .ram = section->region->ram,
        .ram_offset = section->offset + skip,
        .flags = (section->readonly ? KVM_MEM_READONLY : 0) |
                 (section->dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0),
    };
    return true;
}

static void remove_section(struct kvm_memory *memory, const struct mem_section *section)
{
    struct kvm_slot wanted, *slot;

    if (!section_slot(memory->kvm, section, &wanted)) {
        return;
    }
    slot = slot_at(memory, wanted.address);
    if (!slot) {
        return;
    }
    if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
        slot_sync(memory, slot);
    }
    slot_commit(memory, slot, 0);
    slot->used = false;
}

static void add_section(struct kvm_memory *memory, const struct mem_section *section)
{
    struct kvm_slot wanted, *slot;
    int ret;

    if (!section_slot(memory->kvm, section, &wanted)) {
        return;
    }
    slot = slot_new(memory);
    if (!slot) {
        slot_failed(&wanted, "the host's KVM has no more slots");
        return;
    }
    *slot = wanted;
    ret = slot_commit(memory, slot, slot->size);
    if (ret < 0) {
        slot_failed(slot, strerror(-ret));
        slot->used = false;
    }
}

/* ---- listener ------------------------------------------------------------------------------- */

static void collect(struct mem_section **list, unsigned *count, unsigned *size,
                    const struct mem_section *section)
{
    if (*count == *size) {
        *size = *size ? 2 * *size : 16;
        *list = xreallocarray(*list, *size, sizeof(**list));
    }
    (*list)[(*count)++] = *section;
}

static void on_region_del(struct mem_listener *listener, const struct mem_section *section)
{
    struct kvm_memory *memory = memory_from(listener);
    collect(&memory->removed, &memory->removed_count, &memory->removed_size, section);
}

static void on_region_add(struct mem_listener *listener, const struct mem_section *section)
{
    struct kvm_memory *memory = memory_from(listener);
    collect(&memory->added, &memory->added_count, &memory->added_size, section);
}

static bool replaces_memory(const struct kvm_memory *memory)
{
    for (unsigned i = 0; i < memory->removed_count; i++) {
        const struct mem_section *gone = &memory->removed[i];
        for (unsigned k = 0; gone->is_ram && k < memory->added_count; k++) {
            const struct mem_section *come = &memory->added[k];
            if (come->is_ram &&
                range_overlaps(gone->address, gone->size, come->address, come->size)) {
                return true;
            }
        }
    }
    return false;
}

static void on_commit(struct mem_listener *listener)
{
    struct kvm_memory *memory = memory_from(listener);
    bool hold = replaces_memory(memory);

    if (hold) {
        kvm_hold_vcpus(memory->kvm);
    }
    for (unsigned i = 0; i < memory->removed_count; i++) {
        remove_section(memory, &memory->removed[i]);
    }
    for (unsigned i = 0; i < memory->added_count; i++) {
        add_section(memory, &memory->added[i]);
    }
    memory->removed_count = memory->added_count = 0;
    if (hold) {
        kvm_release_vcpus(memory->kvm);
    }
}

static struct kvm_slot *slot_of_section(struct kvm_memory *memory,
                                        const struct mem_section *section)
{
    struct kvm_slot wanted;

    return section_slot(memory->kvm, section, &wanted) ? slot_at(memory, wanted.address) : NULL;
}

static void on_log_changed(struct mem_listener *listener, const struct mem_section *section)
{
    struct kvm_memory *memory = memory_from(listener);
    struct kvm_slot *slot = slot_of_section(memory, section);
    int ret;

    if (!slot) {
        return;
    }
    if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
        slot_sync(memory, slot);
    }
    slot->flags &= ~KVM_MEM_LOG_DIRTY_PAGES;
    slot->flags |= section->dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    ret = slot_commit(memory, slot, slot->size);
    if (ret < 0) {
        slot_failed(slot, strerror(-ret));
    }
}

static void on_log_sync(struct mem_listener *listener, const struct mem_section *section)
{
    struct kvm_memory *memory = memory_from(listener);
    struct kvm_slot *slot = slot_of_section(memory, section);

    if (slot && slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
        slot_sync(memory, slot);
    }
}

static void listen(struct kvm_memory *memory, struct kvm_accel *kvm, struct address_space *space,
                   unsigned id)
{
    *memory = (struct kvm_memory){
        .kvm = kvm,
        .space = space,
        .id = id,
        .listener =
            {
                .region_add = on_region_add,
                .region_del = on_region_del,
                .commit = on_commit,
                .log_changed = on_log_changed,
                .log_sync = on_log_sync,
                .priority = 10,
            },
    };
    address_space_add_listener(space, &memory->listener);
}

void kvm_init_memory(struct kvm_accel *kvm)
{
    listen(&kvm->memory, kvm, address_space_memory, 0);
}

void kvm_enable_smm(struct accel *accel)
{
    struct kvm_accel *kvm = kvm_of(accel);

    listen(&kvm->smm_memory, kvm, address_space_smm, 1);
}

static void forget(struct kvm_memory *memory)
{
    if (memory->kvm) {
        address_space_remove_listener(memory->space, &memory->listener);
    }
    free(memory->removed);
    free(memory->added);
    free(memory->slots);
}

void kvm_cleanup_memory(struct kvm_accel *kvm)
{
    forget(&kvm->smm_memory);
    forget(&kvm->memory);
}
