/* SPDX-License-Identifier: MIT */
/* Intel 8254 against the virtual clock. */
#include "kit.h"

#include "hw/isa_misc.h"
#include "hw/pit.h"

#define COUNTER0 0x40
#define COUNTER2 0x42
#define CONTROL  0x43
#define SPEAKER  0x61

/* The time of n clock pulses, rounded up. */
static int64_t pulses(uint64_t n)
{
    return (int64_t)((n * NS_PER_SEC + PIT_FREQUENCY - 1) / PIT_FREQUENCY);
}

static struct device *make_pit(void)
{
    struct device *pit = pit_new(&kit.line[0], NULL);

    assert_non_null(pit);
    return pit;
}

static void program(unsigned channel, unsigned mode, uint16_t count)
{
    outb(CONTROL, (uint8_t)(channel << 6 | 3 << 4 | mode << 1));
    outb((uint16_t)(COUNTER0 + channel), (uint8_t)count);
    outb((uint16_t)(COUNTER0 + channel), (uint8_t)(count >> 8));
}

static uint16_t latched(unsigned channel)
{
    uint16_t port = (uint16_t)(COUNTER0 + channel);

    outb(CONTROL, (uint8_t)(channel << 6));
    uint16_t low = inb(port);
    return (uint16_t)(inb(port) << 8 | low);
}

static uint8_t status(unsigned channel)
{
    outb(CONTROL, (uint8_t)(0xe0 | 2 << channel));
    return inb((uint16_t)(COUNTER0 + channel));
}

static void test_mode0_interrupts_once(void **state)
{
    make_pit();
    program(0, 0, 1000);
    assert_int_equal(kit.level[0], 0);
    kit.rises[0] = 0;
    kit_step(pulses(999));
    assert_int_equal(kit.level[0], 0);
    kit_step(pulses(1));
    assert_int_equal(kit.level[0], 1);
    kit_step(NS_PER_SEC);
    assert_int_equal(kit.rises[0], 1);
    /* A new count lowers it and starts again. */
    outb(COUNTER0, 10);
    assert_int_equal(kit.level[0], 0);
    outb(COUNTER0, 0);
    kit_step(pulses(10));
    assert_int_equal(kit.rises[0], 2);
}

static void test_mode2_is_periodic(void **state)
{
    make_pit();
    program(0, 2, 11932); /* 100 Hz */
    assert_int_equal(kit.level[0], 1);
    unsigned before = kit.rises[0];
    kit_step(NS_PER_SEC);
    assert_in_range(kit.rises[0] - before, 99, 100);
}

static void test_mode3_is_a_square_wave(void **state)
{
    make_pit();
    program(0, 3, 1001);
    assert_int_equal(kit.level[0], 1);
    kit_step(pulses(500));
    assert_int_equal(kit.level[0], 1);
    kit_step(pulses(1)); /* (N + 1) / 2 are high */
    assert_int_equal(kit.level[0], 0);
    kit_step(pulses(500));
    assert_int_equal(kit.level[0], 1);
    unsigned before = kit.rises[0];
    kit_step(pulses(1001 * 50));
    assert_in_range(kit.rises[0] - before, 49, 51);
}

static void test_mode4_strobes(void **state)
{
    make_pit();
    program(0, 4, 100);
    assert_int_equal(kit.level[0], 1);
    unsigned before = kit.rises[0];
    kit_step(pulses(100));
    assert_int_equal(kit.level[0], 0);
    kit_step(pulses(1));
    assert_int_equal(kit.level[0], 1);
    kit_step(NS_PER_SEC);
    assert_int_equal(kit.rises[0], before + 1);
}

static void test_counts_down(void **state)
{
    make_pit();
    program(0, 2, 50000);
    kit_step(pulses(1234));
    assert_in_range(latched(0), 50000 - 1235, 50000 - 1234);
    kit_step(pulses(50000));
    assert_in_range(latched(0), 50000 - 1236, 50000 - 1234);
    program(0, 0, 0); /* 65536 */
    kit_step(pulses(6));
    assert_in_range(latched(0), 65529, 65530);
    /* Mode 3 counts by two. */
    program(0, 3, 1000);
    kit_step(pulses(100));
    assert_in_range(latched(0), 798, 800);
}

static void test_counts_in_bcd(void **state)
{
    make_pit();
    outb(CONTROL, 0 << 6 | 3 << 4 | 2 << 1 | 1);
    outb(COUNTER0, 0x34);
    outb(COUNTER0, 0x12);
    assert_int_equal(latched(0), 0x1234);
    kit_step(pulses(35));
    assert_in_range(latched(0), 0x1198, 0x1199);
}

static void test_latch_holds_until_read(void **state)
{
    make_pit();
    program(0, 2, 50000);
    outb(CONTROL, 0);
    kit_step(pulses(5000));
    outb(CONTROL, 0); /* a second latch changes nothing */
    uint16_t low = inb(COUNTER0);
    assert_int_equal(inb(COUNTER0) << 8 | low, 50000);
    assert_in_range(latched(0), 44998, 45000);
}

static void test_single_byte_access(void **state)
{
    make_pit();
    outb(CONTROL, 0 << 6 | 1 << 4 | 2 << 1); /* low byte only */
    outb(COUNTER0, 200);
    assert_int_equal(inb(COUNTER0), 200);
    outb(CONTROL, 0 << 6 | 2 << 4 | 2 << 1); /* high byte only */
    outb(COUNTER0, 0x30);
    assert_int_equal(inb(COUNTER0), 0x30);
    kit_step(pulses(0x1001));
    assert_in_range(inb(COUNTER0), 0x1f, 0x20);
}

static void test_read_back(void **state)
{
    make_pit();
    outb(CONTROL, 0 << 6 | 3 << 4 | 3 << 1);
    assert_int_equal(status(0), 0xc0 | 3 << 4 | 3 << 1); /* OUT high, no count yet */
    program(0, 3, 100);
    assert_int_equal(status(0), 0x80 | 3 << 4 | 3 << 1);
    /* Status first, then the count, when both are latched. */
    program(2, 0, 0x1234);
    outb(CONTROL, 0xc0 | 2 << 2);
    assert_int_equal(inb(COUNTER2), 3 << 4);
    assert_int_equal(inb(COUNTER2), 0x34);
    assert_int_equal(inb(COUNTER2), 0x12);
}

/* Kernels calibrate the TSC so. */
static void test_speaker_port_gates_counter2(void **state)
{
    struct device *pit = make_pit();

    assert_non_null(pcspk_new(kit.isa, pit, NULL));
    outb(SPEAKER, 0);
    program(2, 0, 1000);
    kit_step(pulses(5000));
    assert_int_equal(inb(SPEAKER) & 0x21, 0); /* the gate holds it */
    outb(SPEAKER, 1);
    kit_step(pulses(400));
    outb(SPEAKER, 0);
    kit_step(pulses(5000));
    assert_int_equal(inb(SPEAKER) & 0x20, 0);
    assert_in_range(latched(2), 599, 600);
    outb(SPEAKER, 1);
    kit_step(pulses(599));
    assert_int_equal(inb(SPEAKER) & 0x20, 0);
    kit_step(pulses(2));
    assert_int_equal(inb(SPEAKER) & 0x21, 0x21);
}

static void test_gate_triggers_mode1(void **state)
{
    struct device *pit = make_pit();

    pit_set_gate(pit, 2, false);
    program(2, 1, 100);
    kit_step(pulses(500));
    assert_true(pit_output(pit, 2));
    pit_set_gate(pit, 2, true);
    assert_false(pit_output(pit, 2));
    kit_step(pulses(99));
    assert_false(pit_output(pit, 2));
    pit_set_gate(pit, 2, false);
    pit_set_gate(pit, 2, true); /* again: retriggered */
    kit_step(pulses(50));
    assert_false(pit_output(pit, 2));
    kit_step(pulses(51));
    assert_true(pit_output(pit, 2));
}

static void test_gate_low_makes_mode3_high(void **state)
{
    struct device *pit = make_pit();

    pit_set_gate(pit, 2, true);
    program(2, 3, 100);
    kit_step(pulses(60));
    assert_false(pit_output(pit, 2));
    pit_set_gate(pit, 2, false);
    assert_true(pit_output(pit, 2));
    kit_step(pulses(1060));
    assert_true(pit_output(pit, 2));
    pit_set_gate(pit, 2, true);
    kit_step(pulses(60));
    assert_false(pit_output(pit, 2));
}

static void test_nothing_happens_before_programming(void **state)
{
    make_pit();
    kit_step(10 * NS_PER_SEC);
    assert_true(kit.rises[0] <= 1);
    outb(COUNTER0, 5); /* no control word: nowhere to put it */
    kit_step(NS_PER_SEC);
    assert_true(kit.rises[0] <= 1);
}

/* The host is not kept busy: at most one event each 100 us. */
static void test_shortest_period_is_bounded(void **state)
{
    make_pit();
    for (unsigned mode = 2; mode <= 3; mode++) {
        program(0, mode, 1);
        unsigned before = kit.rises[0];
        kit_step(100 * NS_PER_MS);
        assert_in_range(kit.rises[0] - before, 500, 1001);
    }
}

static void test_state(void **state)
{
    struct device *pit = make_pit();
    struct x86_pit s, again;

    program(0, 2, 11932);
    program(2, 3, 777);
    outb(CONTROL, 0xc0 | 2 << 0);
    kit_step(pulses(1234));
    pit_get_state(pit, &s);
    assert_int_equal(s.channel[0].count, 11932);
    uint16_t left = latched(2);
    program(0, 0, 1);
    program(2, 0, 1);
    pit_set_state(pit, &s);
    pit_get_state(pit, &again);
    assert_memory_equal(&s.channel[0], &again.channel[0], sizeof(s.channel[0]));
    assert_int_equal(latched(2), left);
    kit_check_vmstate(pit);
    unsigned before = kit.rises[0];
    kit_step(pulses(11932));
    assert_int_equal(kit.rises[0], before + 1);
    /* A state that no counter can have is not taken. */
    s.channel[0].count = 0;
    pit_set_state(pit, &s);
    pit_get_state(pit, &again);
    assert_int_equal(again.channel[0].count, 11932);
}

static void test_hostile(void **state)
{
    struct device *pit = make_pit();

    assert_non_null(pcspk_new(kit.isa, pit, NULL));
    kit_hammer_ports(0x40, 4, 20000, 1);
    kit_hammer_ports(0x3e, 8, 5000, 2);
    for (unsigned i = 0; i < 2000; i++) {
        kit_hammer_ports(0x40, 4, 5, i + 10);
        outb(SPEAKER, (uint8_t)i);
        inb(SPEAKER);
    }
    device_reset(pit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
        TEST(test_mode0_interrupts_once),
        TEST(test_mode2_is_periodic),
        TEST(test_mode3_is_a_square_wave),
        TEST(test_mode4_strobes),
        TEST(test_counts_down),
        TEST(test_counts_in_bcd),
        TEST(test_latch_holds_until_read),
        TEST(test_single_byte_access),
        TEST(test_read_back),
        TEST(test_speaker_port_gates_counter2),
        TEST(test_gate_triggers_mode1),
        TEST(test_gate_low_makes_mode3_high),
        TEST(test_nothing_happens_before_programming),
        TEST(test_shortest_period_is_bounded),
        TEST(test_state),
        TEST(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
