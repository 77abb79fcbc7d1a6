/* SPDX-License-Identifier: MIT */
/* Views and trees as text, in the form of QEMU's "info mtree -f" and "info mtree". */
#include <inttypes.h>

#include "base/alloc.h"
#include "mem/internal.h"
#include "mem/machine_lock.h"

#define ADDRESS "%016" PRIx64

static const char *kind_name(const struct mem_region *mr)
{
    while (mr->kind == MEM_REGION_ALIAS) {
        mr = mr->alias;
    }
    switch (mr->kind) {
    case MEM_REGION_RAM:
        return "ram";
    case MEM_REGION_ROM:
        return "rom";
    case MEM_REGION_ROM_DEVICE:
        return mr->rom_mode ? "romd" : "i/o";
    case MEM_REGION_CONTAINER:
    case MEM_REGION_IO:
    case MEM_REGION_ALIAS:
        break;
    }
    return "i/o";
}

/* ---- flat views ----------------------------------------------------------------------------- */

void address_space_print(struct address_space *as, FILE *to)
{
    const struct flat_view *view = as->view;

    assert(machine_lock_held());
    fprintf(to, "FlatView #%" PRIu64 "\n AS \"%s\", root: %s\n", view->id, as->name,
            as->root->name);
    fprintf(to, " Root memory region: %s\n", view->root ? view->root->name : "(none)");
    if (view->count == 0) {
        fprintf(to, "  No rendered FlatView\n");
    }
    for (unsigned i = 0; i < view->count; i++) {
        const struct flat_range *r = &view->ranges[i];
        const char *kind = r->readonly && !r->region->ops ? "rom" : kind_name(r->region);

        fprintf(to, "  " ADDRESS "-" ADDRESS " (prio %d, %s): %s", r->first, r->last,
                r->region->priority, kind, r->region->name);
        if (r->offset) {
            fprintf(to, " @" ADDRESS, r->offset);
        }
        fputc('\n', to);
    }
    fputc('\n', to);
}

void address_space_print_all(FILE *to)
{
    assert(machine_lock_held());
    for (struct address_space *as = address_spaces; as; as = as->next) {
        address_space_print(as, to);
    }
}

/* ---- trees ---------------------------------------------------------------------------------- */

/* Targets of aliases, each once. */
struct targets {
    const struct mem_region **list;
    unsigned count;
};

static void note_target(struct targets *targets, const struct mem_region *mr)
{
    for (unsigned i = 0; i < targets->count; i++) {
        if (targets->list[i] == mr) {
            return;
        }
    }
    targets->list = xreallocarray(targets->list, targets->count + 1, sizeof(targets->list[0]));
    targets->list[targets->count++] = mr;
}

static uint64_t last_offset(const struct mem_region *mr)
{
    return mr->size == UINT64_MAX ? UINT64_MAX : mr->size ? mr->size - 1 : 0;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct mem_region *x = *(const struct mem_region *const *)a;
    const struct mem_region *y = *(const struct mem_region *const *)b;

    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return x->priority > y->priority ? -1 : x->priority < y->priority;
}

static void print_tree(const struct mem_region *mr, uint64_t base, unsigned depth,
                       struct targets *targets, FILE *to)
{
    const struct mem_region **children = NULL;
    unsigned count = 0;

    fprintf(to, "%*s" ADDRESS "-" ADDRESS " (prio %d, %s): ", depth * 2, "", base,
            base + last_offset(mr), mr->priority, mr->readonly ? "rom" : kind_name(mr));
    if (mr->kind == MEM_REGION_ALIAS) {
        note_target(targets, mr->alias);
        fprintf(to, "alias %s @%s " ADDRESS "-" ADDRESS, mr->name, mr->alias->name,
                mr->alias_offset, mr->alias_offset + last_offset(mr));
    } else {
        fprintf(to, "%s", mr->name);
    }
    fprintf(to, "%s\n", mr->enabled ? "" : " [disabled]");

    for (struct mem_region *child = mr->first_child; child; child = child->next_sibling) {
        children = xreallocarray(children, count + 1, sizeof(children[0]));
        children[count++] = child;
    }
    if (count) {
        qsort(children, count, sizeof(children[0]), compare_offsets);
    }
    for (unsigned i = 0; i < count; i++) {
        print_tree(children[i], base + children[i]->offset, depth + 1, targets, to);
    }
    free(children);
}

/* What aliases name, one after the other; a target's own tree may name more. */
static void print_targets(struct targets *targets, FILE *to)
{
    for (unsigned i = 0; i < targets->count; i++) {
        const struct mem_region *mr = targets->list[i];
        fprintf(to, "memory-region: %s\n", mr->name);
        print_tree(mr, mr->offset, 1, targets, to);
        fputc('\n', to);
    }
    free(targets->list);
}

void mem_region_print_tree(const struct mem_region *root, FILE *to)
{
    struct targets targets = {NULL, 0};

    assert(machine_lock_held());
    print_tree(root, root->offset, 1, &targets, to);
    fputc('\n', to);
    print_targets(&targets, to);
}

void address_space_print_trees(FILE *to)
{
    struct targets targets = {NULL, 0};

    assert(machine_lock_held());
    for (struct address_space *as = address_spaces; as; as = as->next) {
        fprintf(to, "address-space: %s\n", as->name);
        print_tree(as->root, as->root->offset, 1, &targets, to);
        fputc('\n', to);
    }
    print_targets(&targets, to);
}
