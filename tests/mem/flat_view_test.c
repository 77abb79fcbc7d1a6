/* SPDX-License-Identifier: MIT */
/*
 * Flat views and listener differences against a model that knows nothing of flattening.
 *
 * The model keeps its own description of each region and resolves one address at a time, by
 * walking down from the root. Trees are small (4 KiB) so that every address is compared. A
 * listener replays what it is told into a map of its own, which must agree with the view after
 * every commit.
 */
#include "mem_fixture.h"

#define SPACE  1024
#define NODES  24
#define ROUNDS 1500

static uint64_t null_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void null_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mem_region_ops null_ops = {.read = null_read, .write = null_write};

/* ---- the model ------------------------------------------------------------------------------ */

struct node {
    struct mem_region mr;
    enum mem_region_kind kind;
    int64_t size;
    bool enabled;
    bool readonly; /* RAM: is ROM now; alias: shows RAM as ROM */
    bool rom_mode;
    bool log;
    struct node *target; /* of an alias */
    int64_t target_offset;
    struct node *parent;
    int64_t offset;
    int priority;
    unsigned added; /* rises with each addition */
};

struct world {
    struct node nodes[NODES]; /* 0 is the root */
    unsigned additions;
    struct address_space *as;
};

struct answer {
    struct node *node; /* NULL: nobody */
    int64_t offset;
    bool readonly, is_ram, log;
};

static void answer_leaf(const struct node *n, int64_t at, bool readonly, struct answer *answer)
{
    *answer = (struct answer){.node = (struct node *)n, .offset = at};
    if (n->kind == MEM_REGION_RAM) {
        answer->is_ram = true;
        answer->readonly = readonly || n->readonly;
    } else if (n->kind == MEM_REGION_ROM_DEVICE) {
        answer->is_ram = n->rom_mode;
        answer->readonly = n->rom_mode;
    }
    answer->log = answer->is_ram && n->log;
}

/* Who answers at `at` of n, as seen through an alias that may be readonly. */
static bool resolve(struct world *w, const struct node *n, int64_t at, bool readonly,
                    struct answer *answer)
{
    if (!n->enabled || at < 0 || at >= n->size) {
        return false;
    }
    if (n->kind == MEM_REGION_ALIAS) {
        return resolve(w, n->target, at + n->target_offset, readonly || n->readonly, answer);
    }
    /* Children from the strongest on: a selection without sorting. */
    int64_t below_priority = INT64_MAX;
    unsigned below_added = UINT32_MAX;
    for (;;) {
        const struct node *best = NULL;
        for (unsigned i = 1; i < NODES; i++) {
            const struct node *c = &w->nodes[i];
            if (c->parent != n || c->priority > below_priority ||
                (c->priority == below_priority && c->added >= below_added)) {
                continue;
            }
            if (!best || c->priority > best->priority ||
                (c->priority == best->priority && c->added > best->added)) {
                best = c;
            }
        }
        if (!best) {
            break;
        }
        if (resolve(w, best, at - best->offset, readonly, answer)) {
            return true;
        }
        below_priority = best->priority;
        below_added = best->added;
    }
    if (n->kind == MEM_REGION_CONTAINER) {
        return false;
    }
    answer_leaf(n, at, readonly, answer);
    return true;
}

/* ---- the listener's map --------------------------------------------------------------------- */

struct mirror {
    struct mem_listener listener;
    struct mem_section at[SPACE]; /* the section that covers it; size 0: nobody */
    struct mem_section removed[SPACE];
    unsigned removed_count;
    bool adding; /* no del may follow */
    bool open;
};

static struct mirror *mirror_of(struct mem_listener *l)
{
    return container_of(l, struct mirror, listener);
}

static bool same_section(const struct mem_section *a, const struct mem_section *b)
{
    return a->address == b->address && a->size == b->size && a->region == b->region &&
           a->offset == b->offset && a->readonly == b->readonly && a->is_ram == b->is_ram &&
           a->dirty_log == b->dirty_log;
}

static void mirror_begin(struct mem_listener *l)
{
    struct mirror *m = mirror_of(l);

    assert_false(m->open);
    m->open = true;
    m->adding = false;
    m->removed_count = 0;
}

static void mirror_commit(struct mem_listener *l)
{
    struct mirror *m = mirror_of(l);

    assert_true(m->open);
    m->open = false;
}

static void mirror_del(struct mem_listener *l, const struct mem_section *s)
{
    struct mirror *m = mirror_of(l);

    assert_true(m->open && !m->adding);
    assert_true(s->size > 0 && s->address + s->size <= SPACE);
    for (uint64_t a = s->address; a < s->address + s->size; a++) {
        assert_true(same_section(&m->at[a], s));
        m->at[a].size = 0;
    }
    m->removed[m->removed_count++] = *s;
}

static void mirror_add(struct mem_listener *l, const struct mem_section *s)
{
    struct mirror *m = mirror_of(l);

    m->adding = true;
    assert_true(m->open && s->size > 0 && s->address + s->size <= SPACE);
    for (unsigned i = 0; i < m->removed_count; i++) {
        struct mem_section r = m->removed[i];
        r.dirty_log = s->dirty_log;
        assert_false(same_section(&r, s)); /* it stayed as it was */
    }
    for (uint64_t a = s->address; a < s->address + s->size; a++) {
        assert_int_equal(m->at[a].size, 0);
        m->at[a] = *s;
    }
}

static void mirror_log(struct mem_listener *l, const struct mem_section *s)
{
    struct mirror *m = mirror_of(l);
    struct mem_section before = *s;

    before.dirty_log = !s->dirty_log;
    for (uint64_t a = s->address; a < s->address + s->size; a++) {
        assert_true(same_section(&m->at[a], &before));
        m->at[a] = *s;
    }
}

static void mirror_init(struct mirror *m)
{
    memset(m, 0, sizeof(*m));
    m->listener = (struct mem_listener){
        .begin = mirror_begin,
        .commit = mirror_commit,
        .region_add = mirror_add,
        .region_del = mirror_del,
        .log_changed = mirror_log,
    };
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void check(struct world *w, struct mirror *m)
{
    struct mem_section previous = {0};

    for (int64_t a = 0; a < SPACE; a++) {
        struct answer want = {0};
        struct mem_section got;
        bool found = address_space_find(w->as, (uint64_t)a, &got);

        assert_int_equal(found, resolve(w, &w->nodes[0], a, false, &want));
        assert_int_equal(found, m->at[a].size != 0);
        if (!found) {
            previous.size = 0;
            continue;
        }
        assert_ptr_equal(got.region, &want.node->mr);
        assert_int_equal(got.address, a);
        assert_int_equal(got.offset, want.offset);
        assert_int_equal(got.readonly, want.readonly);
        assert_int_equal(got.is_ram, want.is_ram);
        assert_int_equal(got.dirty_log, want.log);

        const struct mem_section *s = &m->at[a];
        assert_ptr_equal(s->region, got.region);
        assert_int_equal(s->offset + ((uint64_t)a - s->address), got.offset);
        assert_int_equal(s->address + s->size, got.address + got.size);
        /* Neighbours that continue each other are one section. */
        if (previous.size && s->address == (uint64_t)a) {
            bool continues = previous.region == s->region &&
                             previous.offset + previous.size == s->offset &&
                             previous.readonly == s->readonly && previous.is_ram == s->is_ram &&
                             previous.dirty_log == s->dirty_log;
            assert_false(continues);
        }
        previous = *s;
    }
}

/* ---- random worlds -------------------------------------------------------------------------- */

static bool is_below(const struct node *n, const struct node *above)
{
    for (; n; n = n->parent) {
        if (n == above) {
            return true;
        }
    }
    return false;
}

/* True if looking at n can end up at `goal`, through children and aliases. */
static bool reaches(struct world *w, const struct node *n, const struct node *goal)
{
    if (n == goal) {
        return true;
    }
    if (n->kind == MEM_REGION_ALIAS && n->target && reaches(w, n->target, goal)) {
        return true;
    }
    for (unsigned i = 1; i < NODES; i++) {
        if (w->nodes[i].parent == n && reaches(w, &w->nodes[i], goal)) {
            return true;
        }
    }
    return false;
}

static void make_node(struct world *w, unsigned i, uint64_t *seed)
{
    struct node *n = &w->nodes[i];
    char name[16];

    memset(n, 0, sizeof(*n));
    n->size = 1 + random_below(seed, SPACE / 2);
    n->enabled = true;
    snprintf(name, sizeof(name), "n%u", i);
    switch (random_below(seed, 8)) {
    case 0:
    case 1:
        n->kind = MEM_REGION_CONTAINER;
        n->size *= 2;
        mem_region_init_container(&n->mr, name, (uint64_t)n->size);
        break;
    case 2:
    case 3:
        n->kind = MEM_REGION_IO;
        mem_region_init_io(&n->mr, name, (uint64_t)n->size, &null_ops, NULL);
        break;
    case 4:
        n->kind = MEM_REGION_ROM_DEVICE;
        n->rom_mode = true;
        assert_true(
            mem_region_init_rom_device(&n->mr, name, (uint64_t)n->size, &null_ops, NULL, NULL));
        break;
    case 5:
    case 6:
        n->kind = MEM_REGION_RAM;
        assert_true(mem_region_init_ram(&n->mr, name, (uint64_t)n->size, false, NULL));
        break;
    default:
        n->kind = MEM_REGION_ALIAS;
        n->target = &w->nodes[random_below(seed, i)];
        n->target_offset = random_below(seed, 3) ? random_below(seed, SPACE / 2) : 0;
        mem_region_init_alias(&n->mr, name, &n->target->mr, (uint64_t)n->target_offset,
                              (uint64_t)n->size);
        break;
    }
}

static void plug(struct world *w, struct node *n, uint64_t *seed)
{
    struct node *parent = &w->nodes[random_below(seed, NODES)];

    /* Mostly containers have children, but others may. */
    if (parent->kind == MEM_REGION_ALIAS ||
        (parent->kind != MEM_REGION_CONTAINER && random_below(seed, 4))) {
        parent = &w->nodes[0];
    }
    if (is_below(parent, n) || reaches(w, n, parent)) {
        return;
    }
    n->parent = parent;
    n->offset = random_below(seed, SPACE);
    n->priority = (int)random_below(seed, 4) - 1;
    n->added = ++w->additions;
    mem_region_add_overlap(&parent->mr, (uint64_t)n->offset, &n->mr, n->priority);
}

static void change(struct world *w, uint64_t *seed)
{
    struct node *n = &w->nodes[1 + random_below(seed, NODES - 1)];

    switch (random_below(seed, 9)) {
    case 0:
    case 1:
        if (n->parent) {
            mem_region_remove(&n->parent->mr, &n->mr);
            n->parent = NULL;
        } else {
            plug(w, n, seed);
        }
        break;
    case 2:
        n->enabled = !n->enabled;
        mem_region_set_enabled(&n->mr, n->enabled);
        break;
    case 3:
        if (n->parent) {
            int64_t offset = random_below(seed, SPACE);
            if (offset != n->offset) {
                n->offset = offset;
                n->added = ++w->additions;
            }
            mem_region_set_offset(&n->mr, (uint64_t)offset);
        }
        break;
    case 4:
        if (n->kind == MEM_REGION_CONTAINER || n->kind == MEM_REGION_IO) {
            n->size = 1 + random_below(seed, SPACE / 2);
            mem_region_set_size(&n->mr, (uint64_t)n->size);
        }
        break;
    case 5:
        if (n->kind == MEM_REGION_ALIAS) {
            n->target_offset = random_below(seed, SPACE / 2);
            mem_region_set_alias_offset(&n->mr, (uint64_t)n->target_offset);
        }
        break;
    case 6:
        if (n->kind == MEM_REGION_RAM || n->kind == MEM_REGION_ALIAS) {
            n->readonly = !n->readonly;
            mem_region_set_readonly(&n->mr, n->readonly);
        }
        break;
    case 7:
        if (n->kind == MEM_REGION_ROM_DEVICE) {
            n->rom_mode = !n->rom_mode;
            mem_region_rom_device_set_mode(&n->mr, n->rom_mode);
        }
        break;
    default:
        if (n->kind == MEM_REGION_RAM) {
            n->log = !n->log;
            mem_region_set_dirty_log(&n->mr, n->log);
        }
        break;
    }
}

static void test_random_trees(void **state)
{
    uint64_t seed = 88172645463325252;

    for (unsigned world = 0; world < 6; world++) {
        struct world *w = xnew(struct world);
        struct mirror *m = xnew(struct mirror);

        machine_lock();
        w->nodes[0] = (struct node){.kind = MEM_REGION_CONTAINER, .size = SPACE, .enabled = true};
        mem_region_init_container(&w->nodes[0].mr, "root", SPACE);
        for (unsigned i = 1; i < NODES; i++) {
            make_node(w, i, &seed);
        }
        w->as = address_space_new("test", &w->nodes[0].mr);
        mirror_init(m);
        address_space_add_listener(w->as, &m->listener);
        for (unsigned round = 0; round < ROUNDS / 6; round++) {
            mem_transaction_begin();
            for (unsigned n = random_below(&seed, 4); n-- > 0;) {
                change(w, &seed);
            }
            mem_transaction_commit();
            check(w, m);
        }
        address_space_remove_listener(w->as, &m->listener);
        for (unsigned a = 0; a < SPACE; a++) {
            assert_int_equal(m->at[a].size, 0);
        }
        address_space_free(w->as);
        for (unsigned i = 1; i < NODES; i++) {
            if (w->nodes[i].parent) {
                mem_region_remove(&w->nodes[i].parent->mr, &w->nodes[i].mr);
            }
        }
        for (unsigned i = 0; i < NODES; i++) {
            mem_region_destroy(&w->nodes[i].mr);
        }
        machine_unlock();
        free(m);
        free(w);
    }
}

/* ---- single cases --------------------------------------------------------------------------- */

/* A region of 2^64 bytes with a hole at neither end. */
static void test_whole_space(void **state)
{
    struct mem_region all, top;
    struct mem_section s;

    machine_lock();
    mem_region_init_io(&all, "all", UINT64_MAX, &null_ops, NULL);
    mem_region_add_overlap(mem_root(), 0, &all, -1);
    assert_true(address_space_find(address_space_memory, 0, &s));
    assert_int_equal(s.size, UINT64_MAX);
    assert_true(address_space_find(address_space_memory, UINT64_MAX, &s));
    assert_int_equal(s.size, 1);
    assert_int_equal(s.offset, UINT64_MAX);

    mem_region_init_io(&top, "top", 4096, &null_ops, NULL);
    mem_region_add(mem_root(), UINT64_MAX - 4095, &top);
    assert_true(address_space_find(address_space_memory, UINT64_MAX, &s));
    assert_ptr_equal(s.region, &top);
    assert_int_equal(s.offset, 4095);
    assert_true(address_space_find(address_space_memory, 5, &s));
    assert_ptr_equal(s.region, &all);
    assert_int_equal(s.size, UINT64_MAX - 4095 - 5);

    mem_region_remove(mem_root(), &top);
    mem_region_remove(mem_root(), &all);
    mem_region_destroy(&top);
    mem_region_destroy(&all);
    machine_unlock();
}

/* A window into the middle of a region that itself lies high: its start is below zero. */
static void test_alias_below_zero(void **state)
{
    struct mem_region ram, window;
    struct mem_section s;

    machine_lock();
    assert_true(mem_region_init_ram(&ram, "ram", 64 * KiB, false, NULL));
    mem_region_init_alias(&window, "window", &ram, 0xf000, 0x1000);
    mem_region_add(mem_root(), 0x100, &window);
    assert_false(address_space_find(address_space_memory, 0xff, &s));
    assert_true(address_space_find(address_space_memory, 0x100, &s));
    assert_int_equal(s.offset, 0xf000);
    assert_int_equal(s.size, 0x1000);
    mem_region_remove(mem_root(), &window);
    mem_region_destroy(&window);
    mem_region_destroy(&ram);
    machine_unlock();
}

/* A view grows a new number only if something it shows has changed. */
static void test_generation(void **state)
{
    struct mem_region io;

    machine_lock();
    mem_region_init_io(&io, "io", 16, &null_ops, NULL);
    uint64_t before = address_space_generation(address_space_memory);
    uint64_t before_io = address_space_generation(address_space_io);
    mem_transaction_begin();
    mem_region_add(mem_root(), 0, &io);
    assert_int_equal(address_space_generation(address_space_memory), before);
    mem_transaction_commit();
    assert_true(address_space_generation(address_space_memory) > before);
    assert_int_equal(address_space_generation(address_space_io), before_io);

    before = address_space_generation(address_space_memory);
    mem_transaction_begin();
    mem_region_set_offset(&io, 32);
    mem_region_set_offset(&io, 0);
    mem_transaction_commit();
    assert_int_equal(address_space_generation(address_space_memory), before);
    mem_region_remove(mem_root(), &io);
    mem_region_destroy(&io);
    machine_unlock();
}

/* Bus masters see system memory through an alias that is switched on and off. */
static void test_bus_master(void **state)
{
    struct mem_region ram, master_root, master;
    struct address_space *as;
    struct mem_section s;

    machine_lock();
    assert_true(mem_region_init_ram(&ram, "ram", 64 * KiB, false, NULL));
    mem_region_add(mem_root(), 0, &ram);
    mem_region_init_container(&master_root, "bus master container", UINT64_MAX);
    mem_region_init_alias(&master, "bus master", mem_root(), 0, UINT64_MAX);
    mem_region_set_enabled(&master, false);
    mem_region_add(&master_root, 0, &master);
    as = address_space_new("device", &master_root);
    assert_false(address_space_find(as, 0, &s));

    mem_region_set_enabled(&master, true);
    assert_true(address_space_find(as, 0, &s));
    assert_ptr_equal(s.region, &ram);
    assert_int_equal(address_space_generation(as), address_space_generation(address_space_memory));

    mem_region_set_offset(&ram, 4096);
    assert_false(address_space_find(as, 0, &s));
    assert_true(address_space_find(as, 4096, &s));

    mem_region_set_enabled(&master, false);
    assert_false(address_space_find(as, 4096, &s));
    assert_true(address_space_find(address_space_memory, 4096, &s));

    address_space_free(as);
    mem_region_remove(&master_root, &master);
    mem_region_remove(mem_root(), &ram);
    mem_region_destroy(&master);
    mem_region_destroy(&master_root);
    mem_region_destroy(&ram);
    machine_unlock();
}

/* As PAM shows RAM read-only: the pieces follow each other in the region, but are not one. */
static void test_readonly_window(void **state)
{
    struct mem_region ram, window;
    struct mem_section s;

    machine_lock();
    assert_true(mem_region_init_ram(&ram, "ram", 64 * KiB, false, NULL));
    mem_region_init_alias(&window, "window", &ram, 0x4000, 0x1000);
    mem_region_set_readonly(&window, true);
    mem_region_add(mem_root(), 0, &ram);
    mem_region_add_overlap(mem_root(), 0x4000, &window, 1);
    assert_true(address_space_find(address_space_memory, 0, &s));
    assert_int_equal(s.size, 0x4000);
    assert_false(s.readonly);
    assert_true(address_space_find(address_space_memory, 0x4000, &s));
    assert_int_equal(s.size, 0x1000);
    assert_int_equal(s.offset, 0x4000);
    assert_true(s.readonly && s.is_ram);
    assert_true(address_space_find(address_space_memory, 0x5000, &s));
    assert_false(s.readonly);

    mem_region_set_readonly(&window, false);
    assert_true(address_space_find(address_space_memory, 0, &s));
    assert_int_equal(s.size, 64 * KiB);
    mem_region_remove(mem_root(), &window);
    mem_region_remove(mem_root(), &ram);
    mem_region_destroy(&window);
    mem_region_destroy(&ram);
    machine_unlock();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_trees),     cmocka_unit_test(test_whole_space),
        cmocka_unit_test(test_alias_below_zero), cmocka_unit_test(test_generation),
        cmocka_unit_test(test_bus_master),       cmocka_unit_test(test_readonly_window),
    };

    return cmocka_run_group_tests(tests, mem_setup, mem_teardown);
}
