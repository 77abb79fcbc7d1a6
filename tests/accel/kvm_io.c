/* SPDX-License-Identifier: MIT */
/* KVM: ports, MMIO, doorbells, memory slots, kicks. */
#include "kvm_fixture.h"

#include "aio/notifier.h"

/* ---- IO and MMIO ---------------------------------------------------------------------------- */

static void test_io_string(void **unused)
{
    start_vm("on");
    LOAD(string);
    memcpy(ram_at(GUEST_BUFFER), "ferry", 5);
    vcpus_resume();
    WAIT(reports.count, 1);
    vcpus_pause();
    assert_int_equal(strings.count, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_logged(&strings, i, STRING, (uint8_t) "ferry"[i], 1);
    }
    assert_int_equal(load_le64(ram_at(GUEST_BUFFER + 16)), UINT64_C(0x0044004300420041));
    /* KVM hands over strings in pieces, not one by one. */
    assert_true(exits(VCPU_EXIT_IO) >= 3);
}

static void test_mmio(void **unused)
{
    start_vm("on");
    LOAD(mmio);
    vcpus_resume();
    WAIT(reports.count, 2);
    vcpus_pause();
    assert_int_equal(mmio_writes.count, 3);
    assert_logged(&mmio_writes, 0, 0, 0x44332211, 4);
    assert_logged(&mmio_writes, 1, 4, 0x2211, 2);
    assert_logged(&mmio_writes, 2, 7, 0x11, 1);
    assert_int_equal(reports.value[0], 0xa0b0c0d8);
    assert_int_equal(reports.value[1], 0xdc);
    assert_int_equal(exits(VCPU_EXIT_MMIO), 5);
}

static void pause_from_device(void)
{
    vcpu_request(vcpu_current(), VCPU_REQUEST_PAUSE);
}

/* A pause between an IN's exit and its completion: the state is that after the instruction. */
static void test_io_completed(void **unused)
{
    autofree struct x86_state *state = xnew(struct x86_state);

    start_vm("on");
    LOAD(in);
    on_counter_read = pause_from_device;
    vcpus_resume();
    WAIT(counter_reads, 1);
    vcpus_pause();
    assert_true(vcpu_get_state(vcpu_get(0), state, NULL));
    assert_int_equal(state->gpr[X86_RAX], 0x41);
    assert_int_equal(state->rip, GUEST_CODE + 5);
    assert_int_equal(counter_reads, 1);
}

/* ---- doorbells ------------------------------------------------------------------------------ */

static void test_ioeventfd(void **unused)
{
    struct event_notifier n[5];
    struct mem_eventfd e[5] = {
        {.offset = BELL, .size = 2, .datamatch = true, .data = 1},
        {.offset = BELL + 2, .size = 2},
        {.offset = 0x10, .size = 2, .datamatch = true, .data = 1},
        {.offset = 0x12, .size = 2},
        {.offset = 0x20, .size = 0},
    };
    uint64_t before;

    start_vm("on");
    LOAD(doorbells);
    before = kvm_stats.ioeventfd;
    machine_lock();
    mem_transaction_begin();
    for (unsigned i = 0; i < 5; i++) {
        assert_true(event_notifier_init(&n[i], NULL));
        e[i].notifier = &n[i];
        mem_region_add_eventfd(i < 2 ? &ports : &mmio, &e[i]);
    }
    mem_transaction_commit();
    machine_unlock();
    assert_int_equal(kvm_stats.ioeventfd - before, 5);

    vcpus_resume();
    WAIT(reports.count, 1);
    vcpus_pause();
    for (unsigned i = 0; i < 5; i++) {
        assert_true(event_notifier_test_and_clear(&n[i]));
    }
    /* What matched left no exit; what did not came to the device. */
    assert_int_equal(bells.count, 2);
    assert_logged(&bells, 0, BELL, 2, 2);
    assert_logged(&bells, 1, BELL + 2, 2, 1);
    assert_int_equal(mmio_writes.count, 1);
    assert_logged(&mmio_writes, 0, 0x10, 2, 2);
    assert_int_equal(exits(VCPU_EXIT_IO), 3); /* and the report */
    assert_int_equal(exits(VCPU_EXIT_MMIO), 1);

    /* Gone: all writes are the device's again. */
    machine_lock();
    mem_transaction_begin();
    for (unsigned i = 0; i < 5; i++) {
        mem_region_del_eventfd(i < 2 ? &ports : &mmio, &e[i]);
    }
    mem_transaction_commit();
    machine_unlock();
    assert_int_equal(kvm_stats.ioeventfd - before, 10);
    set_flat_state(vcpu_get(0));
    vcpus_resume();
    WAIT(reports.count, 2);
    vcpus_pause();
    assert_int_equal(bells.count, 2 + 4);
    assert_int_equal(mmio_writes.count, 1 + 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_false(event_notifier_test_and_clear(&n[i]));
        event_notifier_cleanup(&n[i]);
    }
}

static struct event_notifier any_bell, one_bell;

static const struct mem_eventfd any_value = {.offset = 0x30, .size = 4, .notifier = &any_bell};
static const struct mem_eventfd one_value = {
    .offset = 0x30, .size = 4, .datamatch = true, .data = 7, .notifier = &one_bell};

static void add_colliding_bells(void *unused)
{
    machine_lock();
    for (unsigned i = 0; i < 2; i++) {
        mem_region_add_eventfd(&mmio, &any_value);
        mem_region_add_eventfd(&mmio, &one_value);
        mem_region_del_eventfd(&mmio, &one_value);
        mem_region_del_eventfd(&mmio, &any_value);
    }
    machine_unlock();
}

/* What the kernel does not take: one warning. */
static void test_ioeventfd_refused(void **unused)
{
    const char *warning = "does not take an ioeventfd (File exists)";

    start_vm("on");
    assert_true(event_notifier_init(&any_bell, NULL));
    assert_true(event_notifier_init(&one_bell, NULL));
    autofree char *text = capture_stderr(add_colliding_bells, NULL);

    assert_contains(text, warning);
    assert_null(strstr(strstr(text, warning) + 1, warning));
    event_notifier_cleanup(&any_bell);
    event_notifier_cleanup(&one_bell);
}

static void test_coalesced(void **unused)
{
    uint64_t before;

    start_vm("on");
    if (!kvm_of(accel)->coalesced_page) {
        print_message("skipped: KVM_CAP_COALESCED_MMIO is missing\n");
        skip();
    }
    machine_lock();
    mem_region_set_coalesced(&mmio, 0x100, 0x100);
    machine_unlock();
    LOAD(coalesced);
    before = kvm_stats.coalesced_writes;
    vcpus_resume();
    WAIT(reports.count, 1);
    vcpus_pause();
    /* All ten came before the OUT that came after them, without an exit of their own. */
    assert_int_equal(mmio_writes.count, 10);
    for (unsigned i = 0; i < 10; i++) {
        assert_logged(&mmio_writes, i, 0x100, i, 4);
    }
    assert_int_equal(exits(VCPU_EXIT_MMIO), 0);
    assert_int_equal(kvm_stats.coalesced_writes - before, 10);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void test_dirty_log(void **unused)
{
    struct mem_region vram;
    uint64_t bitmap[1] = {0};

    assert_true(mem_region_init_ram(&vram, "vram", 0x10000, false, NULL));
    machine_lock();
    mem_region_add_overlap(mem_root(), DIRTY_BASE, &vram, 1);
    machine_unlock();
    start_vm("on");
    LOAD(dirty);
    machine_lock();
    ram_dirty_log_start(vram.ram, DIRTY_VGA);
    mem_region_set_dirty_log(&vram, true);
    address_space_sync_dirty(address_space_memory, &vram);
    ram_dirty_fetch(vram.ram, DIRTY_VGA, 0, 0x10000, bitmap);
    machine_unlock();
    vcpus_resume();
    WAIT(reports.count, 1);
    vcpus_pause();

    machine_lock();
    bitmap[0] = 0;
    address_space_sync_dirty(address_space_memory, &vram);
    assert_true(ram_dirty_fetch(vram.ram, DIRTY_VGA, 0, 0x10000, bitmap));
    assert_int_equal(bitmap[0], 1 << 1 | 1 << 3); /* written, not read */
    bitmap[0] = 0;
    address_space_sync_dirty(address_space_memory, &vram);
    assert_false(ram_dirty_fetch(vram.ram, DIRTY_VGA, 0, 0x10000, bitmap));
    machine_unlock();

    /* What was written before the region goes away is not lost. */
    set_flat_state(vcpu_get(0));
    vcpus_resume();
    WAIT(reports.count, 2);
    vcpus_pause();
    machine_lock();
    mem_region_remove(mem_root(), &vram);
    bitmap[0] = 0;
    ram_dirty_fetch(vram.ram, DIRTY_VGA, 0, 0x10000, bitmap);
    assert_int_equal(bitmap[0], 1 << 1 | 1 << 3);
    ram_dirty_log_stop(vram.ram, DIRTY_VGA);
    machine_unlock();
    mem_region_destroy(&vram);
}

static void test_rom(void **unused)
{
    struct mem_region rom;

    assert_true(mem_region_init_rom(&rom, "rom", 0x1000, NULL));
    store_le32(rom.ram->host, 0x12345678);
    machine_lock();
    mem_region_add_overlap(mem_root(), ROM_BASE, &rom, 1);
    machine_unlock();
    start_vm("on");
    LOAD(rom);
    vcpus_resume();
    WAIT(reports.count, 2);
    vcpus_pause();
    assert_int_equal(reports.value[0], 0x12345678);
    assert_int_equal(reports.value[1], 0x12345678);
    assert_int_equal(exits(VCPU_EXIT_MMIO), 1); /* the write; reads are the slot's */
    machine_lock();
    mem_region_remove(mem_root(), &rom);
    machine_unlock();
    mem_region_destroy(&rom);
}

/* A rom-device: reads as memory, writes to its callbacks; then both. */
static void test_rom_device(void **unused)
{
    struct mem_region flash;

    assert_true(mem_region_init_rom_device(&flash, "flash", 0x1000, &mmio_ops, NULL, NULL));
    store_le32(flash.ram->host, 0x12345678);
    machine_lock();
    mem_region_add_overlap(mem_root(), ROM_BASE, &flash, 1);
    machine_unlock();
    start_vm("on");
    LOAD(rom);
    vcpus_resume();
    WAIT(reports.count, 2);
    vcpus_pause();
    assert_int_equal(reports.value[1], 0x12345678);
    assert_int_equal(mmio_writes.count, 1);
    assert_logged(&mmio_writes, 0, 0, 0x55555555, 4);

    machine_lock();
    mem_region_rom_device_set_mode(&flash, false);
    machine_unlock();
    set_flat_state(vcpu_get(0));
    vcpus_resume();
    WAIT(reports.count, 4);
    vcpus_pause();
    assert_int_equal(reports.value[2], 0xa0b0c0d0);
    machine_lock();
    mem_region_remove(mem_root(), &flash);
    machine_unlock();
    mem_region_destroy(&flash);
}

/* The slot that holds the code is split and joined while a guest runs there. */
static void test_replace_memory(void **unused)
{
    struct mem_region hole;
    uint32_t before;

    mem_region_init_io(&hole, "hole", 0x1000, &mmio_ops, NULL);
    start_vm("on");
    LOAD(count);
    vcpus_resume();
    WAIT(reports.count, 1);
    before = __atomic_load_n((uint32_t *)ram_at(GUEST_BUFFER), __ATOMIC_RELAXED);
    for (unsigned i = 0; i < 100; i++) {
        machine_lock();
        mem_region_add_overlap(mem_root(), 0x100000, &hole, 1);
        machine_unlock();
        machine_lock();
        mem_region_remove(mem_root(), &hole);
        machine_unlock();
    }
    for (unsigned i = 0; i < 5000; i++) {
        if (__atomic_load_n((uint32_t *)ram_at(GUEST_BUFFER), __ATOMIC_RELAXED) != before) {
            break;
        }
        usleep(1000);
    }
    assert_int_not_equal(__atomic_load_n((uint32_t *)ram_at(GUEST_BUFFER), __ATOMIC_RELAXED),
                         before);
    assert_int_equal(system_record.internal_errors, 0);
    vcpus_pause();
    mem_region_destroy(&hole);
}

/* More pieces of memory than the kernel has slots: the VM stops, and says why. */
static void add_pages(void *pages)
{
    struct mem_region *page = pages;

    machine_lock();
    mem_transaction_begin();
    for (unsigned i = 0; i < 24; i++) {
        assert_true(mem_region_init_ram(&page[i], "page", GUEST_PAGE_SIZE, false, NULL));
        mem_region_add(mem_root(), GiB + i * 2 * GUEST_PAGE_SIZE, &page[i]);
    }
    mem_transaction_commit();
    machine_unlock();
}

static void test_too_many_slots(void **unused)
{
    struct mem_region pages[24] = {0};

    start_vm("on");
    kvm_of(accel)->max_slots = kvm_of(accel)->memory.slot_count;
    autofree char *text = capture_stderr(add_pages, pages);

    assert_contains(text, "4096 bytes");
    assert_contains(text, "cannot be set: the host's KVM has no more slots");
    assert_true(system_record.internal_errors > 0);
    machine_lock();
    mem_transaction_begin();
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        mem_region_remove(mem_root(), &pages[i]);
    }
    mem_transaction_commit();
    machine_unlock();
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        mem_region_destroy(&pages[i]);
    }
}

/* ---- kicks ---------------------------------------------------------------------------------- */

static void test_kick(void **unused)
{
    start_vm("on");
    LOAD(spin);
    vcpus_resume();
    WAIT(reports.count, 1);
    for (unsigned i = 0; i < 300; i++) {
        vcpus_pause();
        vcpus_resume();
    }
    vcpus_pause();
    assert_true(exits(VCPU_EXIT_INTR) > 0);
    assert_int_equal(system_record.internal_errors, 0);
}

/* A kick while nobody is in the guest sends no signal and ends the next entry. */
static void count_nothing(struct vcpu *vcpu, void *opaque)
{
}

static void test_kick_outside(void **unused)
{
    uint64_t before;

    start_vm("on");
    LOAD(spin);
    before = kvm_stats.kick_signals;
    for (unsigned i = 0; i < 100; i++) {
        vcpu_call(vcpu_get(0), count_nothing, NULL);
    }
    assert_int_equal(kvm_stats.kick_signals, before);
    vcpus_resume();
    WAIT(reports.count, 1);
    vcpu_call(vcpu_get(0), count_nothing, NULL);
    vcpus_pause();
    assert_true(kvm_stats.kick_signals > before);
}

int kvm_io_tests(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_io_string),         TEST(test_mmio),
        TEST(test_io_completed),      TEST(test_ioeventfd),
        TEST(test_ioeventfd_refused), TEST(test_coalesced),
        TEST(test_dirty_log),         TEST(test_rom),
        TEST(test_rom_device),        TEST(test_replace_memory),
        TEST(test_too_many_slots),    TEST(test_kick),
        TEST(test_kick_outside),
    };

    return cmocka_run_group_tests_name("kvm io", tests, kvm_group_setup, kvm_group_teardown);
}
