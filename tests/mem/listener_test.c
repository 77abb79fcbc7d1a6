/* SPDX-License-Identifier: MIT */
/* What listeners hear, and in which order; and the printed forms. */
#include "mem_fixture.h"

#include <inttypes.h>
#include <stdio.h>

#include "aio/notifier.h"

/* ---- a listener that writes down what it hears ---------------------------------------------- */

static char heard[4096];

struct scribe {
    struct mem_listener listener;
    const char *name;
};

static void __attribute__((format(printf, 2, 3))) note(struct mem_listener *l, const char *fmt, ...)
{
    size_t used = strlen(heard);
    va_list ap;

    used += (size_t)snprintf(heard + used, sizeof(heard) - used, "%s",
                             container_of(l, struct scribe, listener)->name);
    va_start(ap, fmt);
    used += (size_t)vsnprintf(heard + used, sizeof(heard) - used, fmt, ap);
    va_end(ap);
    snprintf(heard + used, sizeof(heard) - used, "; ");
}

static void on_begin(struct mem_listener *l)
{
    note(l, "begin");
}

static void on_commit(struct mem_listener *l)
{
    note(l, "commit");
}

static void on_add(struct mem_listener *l, const struct mem_section *s)
{
    note(l, "+%s@%" PRIx64, s->region->name, s->address);
}

static void on_del(struct mem_listener *l, const struct mem_section *s)
{
    note(l, "-%s@%" PRIx64, s->region->name, s->address);
}

static void on_log(struct mem_listener *l, const struct mem_section *s)
{
    note(l, "log %s %d", s->region->name, s->dirty_log);
}

static void on_sync(struct mem_listener *l, const struct mem_section *s)
{
    note(l, "sync %s@%" PRIx64, s->region->name, s->address);
}

static void on_eventfd_add(struct mem_listener *l, uint64_t address, const struct mem_eventfd *e)
{
    note(l, "+e%" PRIx64 "/%u=%d", address, e->size, e->datamatch ? (int)e->data : -1);
}

static void on_eventfd_del(struct mem_listener *l, uint64_t address, const struct mem_eventfd *e)
{
    note(l, "-e%" PRIx64 "/%u=%d", address, e->size, e->datamatch ? (int)e->data : -1);
}

static void on_coalesced_add(struct mem_listener *l, uint64_t address, uint64_t size)
{
    note(l, "+c%" PRIx64 "/%" PRIx64, address, size);
}

static void on_coalesced_del(struct mem_listener *l, uint64_t address, uint64_t size)
{
    note(l, "-c%" PRIx64 "/%" PRIx64, address, size);
}

static struct scribe scribe_make(const char *name, int priority)
{
    return (struct scribe){
        .name = name,
        .listener =
            {
                .begin = on_begin,
                .commit = on_commit,
                .region_add = on_add,
                .region_del = on_del,
                .log_changed = on_log,
                .log_sync = on_sync,
                .eventfd_add = on_eventfd_add,
                .eventfd_del = on_eventfd_del,
                .coalesced_add = on_coalesced_add,
                .coalesced_del = on_coalesced_del,
                .priority = priority,
            },
    };
}

#define ASSERT_HEARD(text)                                                                         \
    do {                                                                                           \
        assert_string_equal(heard, text);                                                          \
        heard[0] = 0;                                                                              \
    } while (0)

static const struct mem_region_ops no_ops;

/* ---- order ---------------------------------------------------------------------------------- */

static void test_order(void **state)
{
    struct scribe low = scribe_make("L", 1), high = scribe_make("H", 10);
    struct mem_region a, b;

    machine_lock();
    mem_region_init_io(&a, "a", 16, &no_ops, NULL);
    mem_region_init_io(&b, "b", 16, &no_ops, NULL);
    mem_region_add(mem_root(), 0x10, &a);
    /* A new listener hears of what is there. */
    address_space_add_listener(address_space_memory, &high.listener);
    ASSERT_HEARD("Hbegin; H+a@10; Hcommit; ");
    address_space_add_listener(address_space_memory, &low.listener);
    ASSERT_HEARD("Lbegin; L+a@10; Lcommit; ");

    mem_transaction_begin();
    mem_region_add(mem_root(), 0x40, &b);
    mem_region_remove(mem_root(), &a);
    assert_string_equal(heard, "");
    mem_transaction_commit();
    ASSERT_HEARD("Lbegin; Hbegin; H-a@10; L-a@10; L+b@40; H+b@40; Lcommit; Hcommit; ");

    /* Nested transactions: only the outer commit tells. */
    mem_transaction_begin();
    mem_transaction_begin();
    mem_region_set_offset(&b, 0x80);
    mem_transaction_commit();
    assert_string_equal(heard, "");
    mem_transaction_commit();
    ASSERT_HEARD("Lbegin; Hbegin; H-b@40; L-b@40; L+b@80; H+b@80; Lcommit; Hcommit; ");

    /* A transaction that changes nothing says nothing. */
    mem_transaction_begin();
    mem_transaction_commit();
    ASSERT_HEARD("");

    address_space_remove_listener(address_space_memory, &low.listener);
    ASSERT_HEARD("Lbegin; L-b@80; Lcommit; ");
    mem_region_remove(mem_root(), &b);
    ASSERT_HEARD("Hbegin; H-b@80; Hcommit; ");
    address_space_remove_listener(address_space_memory, &high.listener);
    heard[0] = 0;
    mem_region_destroy(&a);
    mem_region_destroy(&b);
    machine_unlock();
}

/* ---- eventfds and coalesced ranges ---------------------------------------------------------- */

static void test_extras(void **state)
{
    struct scribe s = scribe_make("", 0);
    struct event_notifier n, n2;
    struct mem_region bar, cover;
    struct mem_eventfd e1 = {.offset = 0, .size = 2, .notifier = &n};
    struct mem_eventfd e2 = {.offset = 4, .size = 2, .datamatch = true, .data = 1, .notifier = &n};
    struct mem_eventfd e3 = e2;

    assert_true(event_notifier_init(&n, NULL));
    assert_true(event_notifier_init(&n2, NULL));
    e3.notifier = &n2;
    machine_lock();
    mem_region_init_io(&bar, "bar", 0x100, &no_ops, NULL);
    mem_region_init_io(&cover, "cover", 0x10, &no_ops, NULL);
    mem_region_add(mem_root(), 0x1000, &bar);
    address_space_add_listener(address_space_memory, &s.listener);
    heard[0] = 0;

    mem_transaction_begin();
    mem_region_add_eventfd(&bar, &e2);
    mem_region_add_eventfd(&bar, &e1);
    mem_transaction_commit();
    ASSERT_HEARD("begin; +e1000/2=-1; +e1004/2=1; commit; ");

    /* The same place, another notifier. */
    mem_transaction_begin();
    mem_region_del_eventfd(&bar, &e2);
    mem_region_add_eventfd(&bar, &e3);
    mem_transaction_commit();
    ASSERT_HEARD("begin; -e1004/2=1; +e1004/2=1; commit; ");

    mem_region_set_coalesced(&bar, 0x20, 0x10);
    ASSERT_HEARD("begin; +c1020/10; commit; ");

    /* They move with the BAR. */
    mem_region_set_offset(&bar, 0x2000);
    ASSERT_HEARD("begin; -bar@1000; +bar@2000; -e1000/2=-1; -e1004/2=1; +e2000/2=-1; "
                 "+e2004/2=1; -c1020/10; +c2020/10; commit; ");

    /* What is hidden is not there; part of a coalesced range stays. */
    mem_region_add_overlap(mem_root(), 0x1ff8, &cover, 1);
    ASSERT_HEARD("begin; -bar@2000; +cover@1ff8; +bar@2008; -e2000/2=-1; -e2004/2=1; commit; ");
    mem_region_set_offset(&cover, 0x2028);
    ASSERT_HEARD("begin; -cover@1ff8; -bar@2008; +bar@2000; +cover@2028; +bar@2038; "
                 "+e2000/2=-1; +e2004/2=1; -c2020/10; +c2020/8; commit; ");

    mem_region_set_enabled(&bar, false);
    ASSERT_HEARD("begin; -bar@2000; -bar@2038; -e2000/2=-1; -e2004/2=1; -c2020/8; commit; ");
    /* Registered while nobody sees it. */
    mem_region_del_eventfd(&bar, &e1);
    ASSERT_HEARD("begin; commit; ");
    mem_region_set_enabled(&bar, true);
    ASSERT_HEARD("begin; +bar@2000; +bar@2038; +e2004/2=1; +c2020/8; commit; ");
    address_space_remove_listener(address_space_memory, &s.listener);
    ASSERT_HEARD("begin; -bar@2000; -cover@2028; -bar@2038; -e2004/2=1; -c2020/8; commit; ");

    mem_region_remove(mem_root(), &bar);
    mem_region_remove(mem_root(), &cover);
    mem_region_destroy(&bar);
    mem_region_destroy(&cover);
    machine_unlock();
    event_notifier_cleanup(&n);
    event_notifier_cleanup(&n2);
}

/* ---- dirty logging -------------------------------------------------------------------------- */

static void test_log(void **state)
{
    struct scribe s = scribe_make("", 0);
    struct mem_region ram, hole;

    machine_lock();
    assert_true(mem_region_init_ram(&ram, "ram", 0x10000, false, NULL));
    mem_region_init_io(&hole, "hole", 0x1000, &no_ops, NULL);
    mem_region_add(mem_root(), 0, &ram);
    mem_region_add_overlap(mem_root(), 0x4000, &hole, 1);
    address_space_add_listener(address_space_memory, &s.listener);
    heard[0] = 0;

    mem_region_set_dirty_log(&ram, true);
    ASSERT_HEARD("begin; log ram 1; log ram 1; commit; ");
    address_space_sync_dirty(address_space_memory, &ram);
    ASSERT_HEARD("sync ram@0; sync ram@5000; ");
    mem_region_set_dirty_log(&ram, false);
    ASSERT_HEARD("begin; log ram 0; log ram 0; commit; ");

    address_space_remove_listener(address_space_memory, &s.listener);
    heard[0] = 0;
    mem_region_remove(mem_root(), &ram);
    mem_region_remove(mem_root(), &hole);
    mem_region_destroy(&ram);
    mem_region_destroy(&hole);
    machine_unlock();
}

/* ---- printing ------------------------------------------------------------------------------- */

static void test_print(void **state)
{
    struct mem_region ram, window, pci, bar;
    char *text;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    machine_lock();
    assert_true(mem_region_init_ram(&ram, "pc.ram", 64 * KiB, false, NULL));
    mem_region_init_alias(&window, "ram-below-4g", &ram, 0x1000, 0x8000);
    mem_region_init_container(&pci, "pci", UINT64_MAX);
    mem_region_init_io(&bar, "bar", 0x1000, &no_ops, NULL);
    mem_transaction_begin();
    mem_region_add(mem_root(), 0, &window);
    mem_region_add_overlap(mem_root(), 0, &pci, -1);
    mem_region_add(&pci, 0x20000, &bar);
    mem_transaction_commit();

    address_space_print(address_space_memory, to);
    fflush(to);
    /* The view's number is any. */
    char *body = strchr(text, '\n') + 1;
    assert_memory_equal(text, "FlatView #", 10);
    assert_string_equal(body, " AS \"memory\", root: system\n"
                              " Root memory region: system\n"
                              "  0000000000000000-0000000000007fff (prio 0, ram): pc.ram "
                              "@0000000000001000\n"
                              "  0000000000020000-0000000000020fff (prio 0, i/o): bar\n"
                              "\n");
    rewind(to);

    mem_region_set_enabled(&pci, false);
    mem_region_print_tree(mem_root(), to);
    fflush(to);
    assert_string_equal(
        text, "  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n"
              "    0000000000000000-0000000000007fff (prio 0, ram): alias ram-below-4g @pc.ram "
              "0000000000001000-0000000000008fff\n"
              "    0000000000000000-ffffffffffffffff (prio -1, i/o): pci [disabled]\n"
              "      0000000000020000-0000000000020fff (prio 0, i/o): bar\n"
              "\n"
              "memory-region: pc.ram\n"
              "  0000000000000000-000000000000ffff (prio 0, ram): pc.ram\n"
              "\n");
    fclose(to);
    free(text);

    mem_region_remove(mem_root(), &window);
    mem_region_remove(mem_root(), &pci);
    mem_region_destroy(&pci);
    mem_region_destroy(&bar);
    mem_region_destroy(&window);
    mem_region_destroy(&ram);
    machine_unlock();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_extras),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_print),
    };

    return cmocka_run_group_tests(tests, mem_setup, mem_teardown);
}
