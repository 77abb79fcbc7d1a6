/* SPDX-License-Identifier: MIT */
/* Keyboard controller, keyboard and mouse, driven as operating systems do. */
#include "kit.h"

#include "hw/i8042.h"

static struct device *kbc;
static int a20;

static void set_a20(void *opaque, unsigned n, int level)
{
    a20 = level;
}

static int setup(void **state)
{
    kit_setup(state);
    kbc = i8042_new(kit.isa, NULL);
    assert_non_null(kbc);
    kbc->gpio_out[0] = irq_make(set_a20, NULL, 0);
    device_reset(kbc);
    memset(kit.rises, 0, sizeof(kit.rises));
    return 0;
}

static void command(uint8_t value)
{
    outb(0x64, value);
}

static uint8_t ask(uint8_t value)
{
    command(value);
    assert_int_equal(inb(0x64) & 1, 1);
    return inb(0x60);
}

static void write_ctr(uint8_t value)
{
    command(0x60);
    outb(0x60, value);
}

static void aux(uint8_t value)
{
    command(0xd4);
    outb(0x60, value);
}

static void expect(const char *bytes, unsigned count, bool from_mouse)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(inb(0x64) & 0x21, from_mouse ? 0x21 : 0x01);
        assert_int_equal(inb(0x60), (uint8_t)bytes[i]);
    }
    assert_int_equal(inb(0x64) & 1, 0);
}

#define EXPECT_KBD(s) expect(s, sizeof(s) - 1, false)
#define EXPECT_AUX(s) expect(s, sizeof(s) - 1, true)

/* What Linux's i8042 driver does. */
static void test_probe(void **state)
{
    assert_int_equal(inb(0x64) & 1, 0);
    uint8_t ctr = ask(0x20);
    write_ctr(ctr | 0x30);
    assert_int_equal(ask(0x20), ctr | 0x30);
    assert_int_equal(ask(0xaa), 0x55);
    assert_int_equal(inb(0x64) & 4, 4);
    assert_int_equal(ask(0xab), 0x00);
    assert_int_equal(ask(0xa9), 0x00);
    /* The mouse port is there if what is written to its buffer comes back as the mouse's. */
    command(0xd3);
    outb(0x60, 0x5a);
    EXPECT_AUX("\x5a");
    command(0xd2);
    outb(0x60, 0xa5);
    EXPECT_KBD("\xa5");
    command(0xa7);
    assert_int_equal(ask(0x20) & 0x20, 0x20);
    command(0xa8);
    assert_int_equal(ask(0x20) & 0x20, 0);
    command(0xad);
    assert_int_equal(ask(0x20) & 0x10, 0x10);
    command(0xae);
    assert_int_equal(ask(0x20) & 0x10, 0);
    command(0x65);
    outb(0x60, 0x77);
    assert_int_equal(ask(0x25), 0x77);
}

static void test_keyboard(void **state)
{
    outb(0x60, 0xff);
    EXPECT_KBD("\xfa\xaa");
    outb(0x60, 0xf2);
    EXPECT_KBD("\xfa\xab\x83");
    outb(0x60, 0xed);
    EXPECT_KBD("\xfa");
    outb(0x60, 0x07);
    EXPECT_KBD("\xfa");
    outb(0x60, 0xf3);
    outb(0x60, 0x00);
    EXPECT_KBD("\xfa\xfa");
    outb(0x60, 0xf0);
    outb(0x60, 0x00);
    EXPECT_KBD("\xfa\xfa\x02");
    outb(0x60, 0xf0);
    outb(0x60, 0x03);
    EXPECT_KBD("\xfa\xfa");
    outb(0x60, 0xf0);
    outb(0x60, 0x09);
    EXPECT_KBD("\xfa\xfe");
    outb(0x60, 0xee);
    EXPECT_KBD("\xee");
    outb(0x60, 0xfe);
    EXPECT_KBD("\xee");
    outb(0x60, 0x12); /* no command */
    EXPECT_KBD("\xfe");
    outb(0x60, 0xf5);
    EXPECT_KBD("\xfa");
    assert_false(kbd_put_scancode(kbc, 0x1c));
    outb(0x60, 0xf4);
    EXPECT_KBD("\xfa");
    assert_true(kbd_put_scancode(kbc, 0x1c));
    EXPECT_KBD("\x1c");
}

static void test_translation(void **state)
{
    write_ctr(0x45);
    kit.rises[1] = 0;
    static const uint8_t set2[] = {0x1c, 0xf0, 0x1c, 0xe0, 0x75, 0xe0, 0xf0, 0x75, 0x83};
    for (unsigned i = 0; i < sizeof(set2); i++) {
        assert_true(kbd_put_scancode(kbc, set2[i]));
    }
    EXPECT_KBD("\x1e\x9e\xe0\x48\xe0\xc8\x41");
    assert_int_equal(kit.rises[1], 7);
    outb(0x60, 0xf2);
    EXPECT_KBD("\xfa\xab\x41");
}

static void test_after_firmware(void **state)
{
    i8042_firmware_setup(kbc);
    assert_int_equal(inb(0x64) & 4, 4);
    assert_int_equal(ask(0x20), 0x65);
    kbd_put_scancode(kbc, 0x1c);
    assert_int_equal(kit.rises[1], 2); /* the answer of command 0x20, and the key */
    EXPECT_KBD("\x1e");
}

static void test_interrupts(void **state)
{
    write_ctr(0x03);
    kbd_put_scancode(kbc, 0x1c);
    kbd_put_scancode(kbc, 0x1d);
    assert_int_equal(kit.level[1], 1);
    assert_int_equal(inb(0x60), 0x1c);
    assert_int_equal(kit.rises[1], 2); /* an edge for each byte */
    assert_int_equal(inb(0x60), 0x1d);
    assert_int_equal(kit.level[1], 0);
    aux(0xf4);
    assert_int_equal(kit.level[12], 1);
    assert_int_equal(kit.level[1], 0);
    inb(0x60);
    assert_int_equal(kit.level[12], 0);
    write_ctr(0x00);
    kbd_put_scancode(kbc, 0x1c);
    assert_int_equal(kit.level[1], 0);
    write_ctr(0x01);
    assert_int_equal(kit.level[1], 1);
    /* The buffer in the keyboard is finite. */
    unsigned taken = 0;
    while (kbd_put_scancode(kbc, 1)) {
        assert_true(++taken < 100);
    }
    outb(0x60, 0xf4); /* its answer needs room: the queue is cleared */
    assert_int_equal(inb(0x60), 0x1c);
    EXPECT_KBD("\xfa");
}

static void test_mouse(void **state)
{
    aux(0xff);
    EXPECT_AUX("\xfa\xaa\x00");
    aux(0xf2);
    EXPECT_AUX("\xfa\x00");
    assert_false(mouse_put_event(kbc, 1, 1, 0, 0)); /* not yet enabled */
    aux(0xf4);
    EXPECT_AUX("\xfa");
    assert_true(mouse_put_event(kbc, 5, -3, 0, 1));
    EXPECT_AUX("\x29\x05\xfd");
    /* A long way goes in several packets. */
    mouse_put_event(kbc, 300, 0, 0, 0);
    mouse_put_event(kbc, 0, 0, 0, 0);
    EXPECT_AUX("\x08\xff\x00\x08\x2d\x00");
    aux(0xe9);
    EXPECT_AUX("\xfa\x20\x02\x64");
    /* The wheel's knock. */
    static const uint8_t rates[] = {200, 100, 80};
    for (unsigned i = 0; i < 3; i++) {
        aux(0xf3);
        aux(rates[i]);
        EXPECT_AUX("\xfa\xfa");
    }
    aux(0xf2);
    EXPECT_AUX("\xfa\x03");
    mouse_put_event(kbc, 0, 0, -1, 4);
    EXPECT_AUX("\x0c\x00\x00\xff");
    aux(0xf0); /* remote: only when asked */
    EXPECT_AUX("\xfa");
    assert_false(mouse_put_event(kbc, 1, 0, 0, 0));
    aux(0xeb);
    EXPECT_AUX("\xfa\x08\x00\x00\x00");
    aux(0xee); /* wrap */
    aux(0x42);
    EXPECT_AUX("\xfa\x42");
    aux(0xec);
    EXPECT_AUX("\xfa");
    aux(0x11);
    EXPECT_AUX("\xfe");
}

static void test_reset_and_a20(void **state)
{
    command(0xfe);
    assert_int_equal(kit.resets, 1);
    command(0xff); /* pulses nothing */
    assert_int_equal(kit.resets, 1);
    assert_int_equal(a20, 1);
    assert_int_equal(ask(0xd0) & 3, 3);
    command(0xd1);
    outb(0x60, 0x01);
    assert_int_equal(a20, 0);
    command(0xdf);
    assert_int_equal(a20, 1);
    command(0xdd);
    assert_int_equal(a20, 0);
    command(0xd1);
    outb(0x60, 0x02); /* bit 0 low: reset */
    assert_int_equal(kit.resets, 2);
}

static void test_state(void **state)
{
    write_ctr(0x43);
    kbd_put_scancode(kbc, 0x1c);
    kbd_put_scancode(kbc, 0xf0);
    kbd_put_scancode(kbc, 0x1c);
    aux(0xf3);
    command(0xd1);
    kit_check_vmstate(kbc);
    outb(0x60, 0x03);
    assert_int_equal(inb(0x60), 0x1e);
    assert_int_equal(inb(0x60), 0x9e);
    EXPECT_AUX("\xfa");
}

static void test_hostile(void **state)
{
    uint64_t seed = 31;

    for (unsigned i = 0; i < 60000; i++) {
        uint32_t r = kit_random(&seed);
        switch (r & 7) {
        case 0 ... 1:
            outb(0x64, (uint8_t)(r >> 8));
            break;
        case 2 ... 3:
            outb(0x60, (uint8_t)(r >> 8));
            break;
        case 4:
            aux((uint8_t)(r >> 8));
            break;
        case 5:
            inb(0x60);
            break;
        case 6:
            inb(0x64);
            break;
        default:
            kbd_put_scancode(kbc, (uint8_t)(r >> 8));
            mouse_put_event(kbc, (int)r, (int)(r << 7), INT32_MIN, r);
        }
    }
    kit_check_vmstate(kbc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, kit_teardown)
        TEST(test_probe),          TEST(test_keyboard),   TEST(test_translation),
        TEST(test_after_firmware), TEST(test_interrupts), TEST(test_mouse),
        TEST(test_reset_and_a20),  TEST(test_state),      TEST(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
