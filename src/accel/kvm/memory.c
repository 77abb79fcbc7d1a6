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

static struct kvm_accel *kvm_from(struct mem_listener *listener)
{
    return container_of(listener, struct kvm_listener, listener)->kvm;
}

/* ---- slots ---------------------------------------------------------------------------------- */

static struct kvm_slot *slot_at(struct kvm_accel *kvm, uint64_t address)
{
    for (unsigned i = 0; i < kvm->slot_count; i++) {
        if (kvm->slots[i].used && kvm->slots[i].address == address) {
            return &kvm->slots[i];
        }
    }
    return NULL;
}

static struct kvm_slot *slot_new(struct kvm_accel *kvm)
{
    for (unsigned i = 0; i < kvm->slot_count; i++) {
        if (!kvm->slots[i].used) {
            return &kvm->slots[i];
        }
    }
    unsigned count = MIN(kvm->slot_count ? 2 * kvm->slot_count : 16, kvm->max_slots);
    if (count == kvm->slot_count) {
        return NULL;
    }
    kvm->slots = xreallocarray(kvm->slots, count, sizeof(*kvm->slots));
    memset(kvm->slots + kvm->slot_count, 0, (count - kvm->slot_count) * sizeof(*kvm->slots));
    struct kvm_slot *slot = &kvm->slots[kvm->slot_count];
    kvm->slot_count = count;
    return slot;
}

static int slot_commit(struct kvm_accel *kvm, const struct kvm_slot *slot, uint64_t size)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot - kvm->slots,
        .flags = size ? slot->flags : 0,
        .guest_phys_addr = slot->address,
        .memory_size = size,
        .userspace_addr = (uintptr_t)slot->host,
    };

    KVM_COUNT(set_memory_region);
    return kvm_ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Without the slot the guest would go on without its memory: the VM stops instead. */
static void slot_failed(const struct kvm_slot *slot, const char *reason)
{
    log_error("-accel kvm: the memory slot at 0x%llx, %llu bytes, cannot be set: %s",
              (unsigned long long)slot->address, (unsigned long long)slot->size, reason);
    system_internal_error(0);
}

/* ---- dirty log ------------------------------------------------------------------------------- */

static void slot_sync(struct kvm_accel *kvm, const struct kvm_slot *slot)
{
    uint64_t pages = slot->size / GUEST_PAGE_SIZE;
    size_t words = (pages + 63) / 64;
    autofree uint64_t *bitmap = xcalloc(words, sizeof(*bitmap));
    struct kvm_dirty_log log = {.slot = slot - kvm->slots, .dirty_bitmap = bitmap};

    KVM_COUNT(get_dirty_log);
    if (kvm_ioctl(kvm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0) {
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

static void remove_section(struct kvm_accel *kvm, const struct mem_section *section)
{
    struct kvm_slot wanted, *slot;

    if (!section_slot(kvm, section, &wanted)) {
        return;
    }
    slot = slot_at(kvm, wanted.address);
    if (!slot) {
        return;
    }
    if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
        slot_sync(kvm, slot);
    }
    slot_commit(kvm, slot, 0);
    slot->used = false;
}

static void add_section(struct kvm_accel *kvm, const struct mem_section *section)
{
    struct kvm_slot wanted, *slot;
    int ret;

    if (!section_slot(kvm, section, &wanted)) {
        return;
    }
    slot = slot_new(kvm);
    if (!slot) {
        slot_failed(&wanted, "the host's KVM has no more slots");
        return;
    }
    *slot = wanted;
    ret = slot_commit(kvm, slot, slot->size);
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
    struct kvm_accel *kvm = kvm_from(listener);
    collect(&kvm->removed, &kvm->removed_count, &kvm->removed_size, section);
}

static void on_region_add(struct mem_listener *listener, const struct mem_section *section)
{
    struct kvm_accel *kvm = kvm_from(listener);
    collect(&kvm->added, &kvm->added_count, &kvm->added_size, section);
}

static bool replaces_memory(const struct kvm_accel *kvm)
{
    for (unsigned i = 0; i < kvm->removed_count; i++) {
        const struct mem_section *gone = &kvm->removed[i];
        for (unsigned k = 0; gone->is_ram && k < kvm->added_count; k++) {
            const struct mem_section *come = &kvm->added[k];
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
    struct kvm_accel *kvm = kvm_from(listener);
    bool hold = replaces_memory(kvm);

    if (hold) {
        kvm_hold_vcpus(kvm);
    }
    for (unsigned i = 0; i < kvm->removed_count; i++) {
        remove_section(kvm, &kvm->removed[i]);
    }
    for (unsigned i = 0; i < kvm->added_count; i++) {
        add_section(kvm, &kvm->added[i]);
    }
    kvm->removed_count = kvm->added_count = 0;
    if (hold) {
        kvm_release_vcpus(kvm);
    }
}

static struct kvm_slot *slot_of_section(struct kvm_accel *kvm, const struct mem_section *section)
{
    struct kvm_slot wanted;

    return section_slot(kvm, section, &wanted) ? slot_at(kvm, wanted.address) : NULL;
}

static void on_log_changed(struct mem_listener *listener, const struct mem_section *section)
{
    struct kvm_accel *kvm = kvm_from(listener);
    struct kvm_slot *slot = slot_of_section(kvm, section);
    int ret;

    if (!slot) {
        return;
    }
    if (slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
        slot_sync(kvm, slot);
    }
    slot->flags &= ~KVM_MEM_LOG_DIRTY_PAGES;
    slot->flags |= section->dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    ret = slot_commit(kvm, slot, slot->size);
    if (ret < 0) {
        slot_failed(slot, strerror(-ret));
    }
}

static void on_log_sync(struct mem_listener *listener, const struct mem_section *section)
{
    struct kvm_accel *kvm = kvm_from(listener);
    struct kvm_slot *slot = slot_of_section(kvm, section);

    if (slot && slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
        slot_sync(kvm, slot);
    }
}

void kvm_init_memory(struct kvm_accel *kvm)
{
    kvm->memory_listener = (struct kvm_listener){
        .kvm = kvm,
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
    address_space_add_listener(address_space_memory, &kvm->memory_listener.listener);
}

void kvm_cleanup_memory(struct kvm_accel *kvm)
{
    address_space_remove_listener(address_space_memory, &kvm->memory_listener.listener);
}
