/* SPDX-License-Identifier: MIT */
/* Intel 8259A, the pair of a PC. */
#include "kit.h"

#include "hw/pic.h"

#define MASTER 0x20
#define SLAVE  0xa0
#define ELCR0  0x4d0
#define ELCR1  0x4d1
#define BASE0  0x20
#define BASE1  0x28

static struct device *pic;

static void init_chip(uint16_t port, uint8_t base, uint8_t icw3, uint8_t icw4)
{
    outb(port, 0x11);
    outb(port + 1, base);
    outb(port + 1, icw3);
    outb(port + 1, icw4);
}

static void init_pair(uint8_t icw4)
{
    init_chip(MASTER, BASE0, 4, icw4);
    init_chip(SLAVE, BASE1, 2, icw4);
}

static int setup(void **state)
{
    kit_setup(state);
    pic = pic_new(NULL);
    assert_non_null(pic);
    init_pair(0x01);
    return 0;
}

static void set(unsigned n, int level)
{
    irq_set(&pic->gpio_in[n], level);
}

static void pulse(unsigned n)
{
    set(n, 1);
    set(n, 0);
}

static uint8_t isr(uint16_t port)
{
    outb(port, 0x0b);
    return inb(port);
}

static uint8_t irr(uint16_t port)
{
    outb(port, 0x0a);
    return inb(port);
}

static void test_edge(void **state)
{
    assert_int_equal(kit.extint, 0);
    pulse(3);
    assert_int_equal(kit.extint, 1);
    assert_int_equal(irr(MASTER), 8);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    assert_int_equal(kit.extint, 0);
    assert_int_equal(irr(MASTER), 0);
    assert_int_equal(isr(MASTER), 8);
    /* While in service it does not interrupt again; after the EOI it does. */
    pulse(3);
    assert_int_equal(kit.extint, 0);
    outb(MASTER, 0x20);
    assert_int_equal(kit.extint, 1);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    outb(MASTER, 0x63); /* specific EOI */
    assert_int_equal(isr(MASTER), 0);
    /* A level that stays is one edge. */
    set(3, 1);
    set(3, 1);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    outb(MASTER, 0x20);
    assert_int_equal(kit.extint, 0);
    set(3, 0);
}

static void test_level(void **state)
{
    outb(ELCR0, 0xff);
    outb(ELCR1, 0xff);
    assert_int_equal(inb(ELCR0), 0xf8); /* 0, 1, 2, 8 and 13 are edges */
    assert_int_equal(inb(ELCR1), 0xde);
    set(5, 1);
    assert_int_equal(pic_ack(pic), BASE0 + 5);
    outb(MASTER, 0x20);
    assert_int_equal(kit.extint, 1); /* still high */
    set(5, 0);
    assert_int_equal(kit.extint, 0);
    assert_int_equal(irr(MASTER), 0);
    /* A wire that was high when it became a level input asks at once. */
    outb(ELCR0, 0);
    set(6, 1);
    assert_int_equal(pic_ack(pic), BASE0 + 6);
    outb(MASTER, 0x20);
    assert_int_equal(kit.extint, 0);
    outb(ELCR0, 0x40);
    assert_int_equal(kit.extint, 1);
}

static void test_priorities(void **state)
{
    pulse(6);
    pulse(4);
    assert_int_equal(pic_ack(pic), BASE0 + 4);
    assert_int_equal(kit.extint, 0); /* 6 is lower than 4 in service */
    pulse(1);
    assert_int_equal(pic_ack(pic), BASE0 + 1);
    assert_int_equal(isr(MASTER), 0x12);
    outb(MASTER, 0x20); /* ends 1 */
    assert_int_equal(isr(MASTER), 0x10);
    outb(MASTER, 0x20);
    assert_int_equal(pic_ack(pic), BASE0 + 6);
}

static void test_rotation(void **state)
{
    pulse(2 + 1);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    outb(MASTER, 0xa0); /* rotate on EOI: 3 is the lowest now */
    pulse(3);
    pulse(4);
    pulse(1);
    assert_int_equal(pic_ack(pic), BASE0 + 4);
    outb(MASTER, 0x20);
    assert_int_equal(pic_ack(pic), BASE0 + 1);
    outb(MASTER, 0x20);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    outb(MASTER, 0x20);
    outb(MASTER, 0xc0 | 5); /* set priority: 5 is the lowest, 6 the highest */
    pulse(0);
    pulse(6);
    assert_int_equal(pic_ack(pic), BASE0 + 6);
    outb(MASTER, 0xe0 | 6); /* specific EOI, rotate: 7 the highest */
    pulse(7);
    assert_int_equal(pic_ack(pic), BASE0 + 7);
}

static void test_mask(void **state)
{
    outb(MASTER + 1, 0x08);
    assert_int_equal(inb(MASTER + 1), 0x08);
    pulse(3);
    assert_int_equal(kit.extint, 0);
    assert_int_equal(irr(MASTER), 8);
    outb(MASTER + 1, 0);
    assert_int_equal(kit.extint, 1);
}

static void test_special_mask(void **state)
{
    pulse(3);
    pic_ack(pic);
    outb(MASTER, 0x68); /* special mask mode */
    outb(MASTER + 1, 0x08);
    pulse(6);
    assert_int_equal(pic_ack(pic), BASE0 + 6); /* lower than 3, which is masked */
    outb(MASTER, 0x20);
    assert_int_equal(isr(MASTER), 8); /* a masked one is not ended by non-specific EOI */
    outb(MASTER, 0x20);
    assert_int_equal(isr(MASTER), 8);
    outb(MASTER, 0x63);
    assert_int_equal(isr(MASTER), 0);
    outb(MASTER, 0x48); /* off */
    outb(MASTER + 1, 0);
    pulse(3);
    pic_ack(pic);
    pulse(6);
    assert_int_equal(kit.extint, 0);
}

static void test_auto_eoi(void **state)
{
    init_pair(0x03);
    pulse(3);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    assert_int_equal(isr(MASTER), 0);
    pulse(6);
    assert_int_equal(pic_ack(pic), BASE0 + 6);
    /* From the slave: several that wait come one after the other. */
    pulse(9);
    pulse(10);
    assert_int_equal(pic_ack(pic), BASE1 + 1);
    assert_int_equal(kit.extint, 1);
    assert_int_equal(pic_ack(pic), BASE1 + 2);
    assert_int_equal(kit.extint, 0);
    outb(MASTER, 0x80); /* rotate in AEOI mode */
    pulse(3);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    pulse(3);
    pulse(5);
    assert_int_equal(pic_ack(pic), BASE0 + 5);
    assert_int_equal(pic_ack(pic), BASE0 + 3);
    outb(MASTER, 0x00);
}

static void test_cascade(void **state)
{
    pulse(12);
    assert_int_equal(kit.extint, 1);
    assert_int_equal(pic_ack(pic), BASE1 + 4);
    assert_int_equal(isr(MASTER), 4);
    assert_int_equal(isr(SLAVE), 0x10);
    /* A higher one of the slave waits for the master's EOI, unless fully nested specially. */
    pulse(8);
    assert_int_equal(kit.extint, 0);
    outb(MASTER, 0x20);
    assert_int_equal(kit.extint, 1);
    assert_int_equal(pic_ack(pic), BASE1);
    outb(SLAVE, 0x20);
    outb(MASTER, 0x20);
    outb(SLAVE, 0x20);
    assert_int_equal(isr(SLAVE), 0);
    assert_int_equal(kit.extint, 0);
    init_chip(MASTER, BASE0, 4, 0x11);
    pulse(12);
    assert_int_equal(pic_ack(pic), BASE1 + 4);
    pulse(8);
    assert_int_equal(pic_ack(pic), BASE1);
}

static void test_spurious(void **state)
{
    /* Edge requests stay, but a level may go before INTA. */
    outb(ELCR0, 0x20);
    set(5, 1);
    set(5, 0);
    assert_int_equal(pic_ack(pic), BASE0 + 7);
    assert_int_equal(isr(MASTER), 0);
    /* The slave's request is masked between INT and INTA. */
    pulse(9);
    outb(SLAVE + 1, 0x02);
    assert_int_equal(kit.extint, 0);
    assert_int_equal(pic_ack(pic), BASE0 + 7);
}

static void test_poll(void **state)
{
    outb(MASTER, 0x0c);
    assert_int_equal(inb(MASTER), 0);
    pulse(4);
    outb(MASTER, 0x0c);
    assert_int_equal(inb(MASTER), 0x84);
    assert_int_equal(kit.extint, 0);
    assert_int_equal(isr(MASTER), 0x10);
    outb(MASTER, 0x20);
    pulse(10);
    outb(MASTER, 0x0c);
    assert_int_equal(inb(MASTER), 0x82);
    outb(SLAVE, 0x0c);
    assert_int_equal(inb(SLAVE), 0x82);
}

static void test_initialisation(void **state)
{
    pulse(3);
    outb(MASTER + 1, 0xff);
    outb(MASTER, 0x11); /* ICW1 clears mask, edges and priorities */
    assert_int_equal(irr(MASTER), 0);
    outb(MASTER + 1, 0x47); /* the lower three bits are not the guest's */
    outb(MASTER + 1, 4);
    outb(MASTER + 1, 1);
    assert_int_equal(inb(MASTER + 1), 0);
    pulse(0);
    assert_int_equal(pic_ack(pic), 0x40);
    /* Single and without ICW4: only ICW2 follows. */
    outb(MASTER, 0x12);
    outb(MASTER + 1, 0x50);
    outb(MASTER + 1, 0xaa);
    assert_int_equal(inb(MASTER + 1), 0xaa);
}

static void test_state(void **state)
{
    struct x86_pic s[2], again[2];

    outb(ELCR0, 0x20);
    set(5, 1);
    pulse(12);
    pulse(3);
    pic_ack(pic);
    outb(SLAVE + 1, 0x81);
    outb(MASTER, 0xc3);
    outb(SLAVE, 0x11); /* in the middle of its initialisation */
    pic_get_state(pic, s);
    assert_int_equal(s[0].irq_base, BASE0);
    assert_int_equal(s[1].init_state, 1);
    device_reset(pic);
    assert_int_equal(kit.extint, 0);
    pic_set_state(pic, s);
    pic_get_state(pic, again);
    assert_memory_equal(s, again, sizeof(s));
    kit_check_vmstate(pic);
    assert_int_equal(kit.extint, 1);
}

/* Wires that are high over a reset are no edges after it. */
static void test_reset_keeps_wires(void **state)
{
    set(4, 1);
    device_reset(pic);
    init_pair(1);
    assert_int_equal(kit.extint, 0);
    set(4, 0);
    set(4, 1);
    assert_int_equal(kit.extint, 1);
}

static void test_hostile(void **state)
{
    uint64_t seed = 7;
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};

    for (unsigned i = 0; i < 60000; i++) {
        uint32_t r = kit_random(&seed);
        uint16_t port = ports[r % 6];
        switch (r >> 8 & 3) {
        case 0:
            outb(port, (uint8_t)(r >> 16));
            break;
        case 1:
            inb(port);
            break;
        case 2:
            set(r >> 16 & 15, r >> 24 & 1);
            break;
        default:
            if (kit.extint) {
                assert_in_range(pic_ack(pic), 0, 255);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, kit_teardown)
        TEST(test_edge),
        TEST(test_level),
        TEST(test_priorities),
        TEST(test_rotation),
        TEST(test_mask),
        TEST(test_special_mask),
        TEST(test_auto_eoi),
        TEST(test_cascade),
        TEST(test_spurious),
        TEST(test_poll),
        TEST(test_initialisation),
        TEST(test_state),
        TEST(test_reset_keeps_wires),
        TEST(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
