/* SPDX-License-Identifier: MIT */
/* The I/O APIC, and the wires that lead to it and to the PIC (gsi). */
#include "kit.h"

#include "hw/gsi.h"
#include "hw/ioapic.h"
#include "hw/pic.h"

#define MASKED     0x10000u
#define LEVEL      0x8000u
#define REMOTE_IRR 0x4000u

static struct device *ioapic;
static struct gsi_state *gsi;

static int setup(void **state)
{
    kit_setup(state);
    gsi = gsi_new(false, NULL);
    assert_non_null(gsi);
    ioapic = gsi->ioapic;
    return 0;
}

static uint32_t reg_read(uint8_t index)
{
    writel(IOAPIC_BASE, index);
    return readl(IOAPIC_BASE + 0x10);
}

static void reg_write(uint8_t index, uint32_t value)
{
    writel(IOAPIC_BASE, index);
    writel(IOAPIC_BASE + 0x10, value);
}

static void program(unsigned pin, uint32_t low, uint8_t destination)
{
    reg_write((uint8_t)(0x11 + pin * 2), (uint32_t)destination << 24);
    reg_write((uint8_t)(0x10 + pin * 2), low);
}

static void set(unsigned pin, int level)
{
    irq_set(&ioapic->gpio_in[pin], level);
}

static void test_registers(void **state)
{
    assert_int_equal(reg_read(1), 0x00170020);
    reg_write(0, 0xffffffff);
    assert_int_equal(reg_read(0), 0x0f000000);
    assert_int_equal(reg_read(2), 0x0f000000);
    for (unsigned i = 0; i < 24; i++) {
        assert_int_equal(reg_read((uint8_t)(0x10 + i * 2)), MASKED);
        reg_write((uint8_t)(0x10 + i * 2), 0xffffffff);
        reg_write((uint8_t)(0x11 + i * 2), 0xffffffff);
        assert_int_equal(reg_read((uint8_t)(0x10 + i * 2)), 0x1afff);
        assert_int_equal(reg_read((uint8_t)(0x11 + i * 2)), 0xff000000);
    }
    assert_int_equal(reg_read(0x10 + 48), 0); /* behind the table */
    reg_write(0x10 + 48, 0xffffffff);
    assert_int_equal(readl(IOAPIC_BASE), 0x10 + 48);
    assert_int_equal(kit.msi_count, 0);
}

static void test_edge(void **state)
{
    set(4, 1);
    set(4, 0); /* lost at a masked pin */
    program(4, 0x31, 2);
    assert_int_equal(kit.msi_count, 0);
    set(4, 1);
    set(4, 1);
    assert_int_equal(kit.msi_count, 1);
    assert_int_equal(kit.msi[0].address, 0xfee02000);
    assert_int_equal(kit.msi[0].data, 0x31);
    set(4, 0);
    set(4, 1);
    assert_int_equal(kit.msi_count, 2);
    assert_int_equal(reg_read(0x10 + 8) & REMOTE_IRR, 0);
    /* An EOI is nothing to an edge. */
    ioapic_eoi(ioapic, 0x31);
    assert_int_equal(kit.msi_count, 2);
}

static void test_logical_lowest_priority(void **state)
{
    program(7, 0x45 | 1 << 8 | 1 << 11, 0x0f);
    set(7, 1);
    assert_int_equal(kit.msi[0].address, 0xfee0f004);
    assert_int_equal(kit.msi[0].data, 0x145);
}

static void test_level(void **state)
{
    program(17, 0x51 | LEVEL, 0);
    set(17, 1);
    assert_int_equal(kit.msi_count, 1);
    assert_int_equal(kit.msi[0].data, 0x51 | LEVEL | 0x4000);
    assert_int_equal(reg_read(0x10 + 34) & REMOTE_IRR, REMOTE_IRR);
    set(17, 0);
    set(17, 1);
    assert_int_equal(kit.msi_count, 1); /* remote IRR holds it back */
    ioapic_eoi(ioapic, 0x52);
    assert_int_equal(kit.msi_count, 1);
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(kit.msi_count, 2); /* still high */
    set(17, 0);
    writel(IOAPIC_BASE + 0x40, 0x51); /* the EOI register */
    assert_int_equal(kit.msi_count, 2);
    assert_int_equal(reg_read(0x10 + 34) & REMOTE_IRR, 0);
}

static void test_level_while_masked(void **state)
{
    program(18, 0x61 | LEVEL | MASKED, 0);
    set(18, 1);
    assert_int_equal(kit.msi_count, 0);
    program(18, 0x61 | LEVEL, 0);
    assert_int_equal(kit.msi_count, 1);
    /* Masked with remote IRR set: the EOI comes, nothing is sent until it is unmasked. */
    program(18, 0x61 | LEVEL | MASKED, 0);
    assert_int_equal(reg_read(0x10 + 36) & REMOTE_IRR, REMOTE_IRR);
    ioapic_eoi(ioapic, 0x61);
    assert_int_equal(kit.msi_count, 1);
    program(18, 0x61 | LEVEL, 0);
    assert_int_equal(kit.msi_count, 2);
    /* Changing it to edge forgets remote IRR. */
    program(18, 0x61, 0);
    assert_int_equal(reg_read(0x10 + 36) & REMOTE_IRR, 0);
}

static void test_wires(void **state)
{
    static const unsigned pins[GSI_COUNT] = {2,  1,  99, 3,  4,  5,  6,  7,  8,  9,  10, 11,
                                             12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};

    for (unsigned i = 0; i < 24; i++) {
        program(i, 0x40 + i, 0);
    }
    for (unsigned i = 0; i < GSI_COUNT; i++) {
        kit.msi_count = 0;
        irq_pulse(&gsi->line[i]);
        assert_int_equal(kit.msi_count, pins[i] != 99);
        if (pins[i] != 99) {
            assert_int_equal(kit.msi[0].data, 0x40 + pins[i]);
        }
    }
    /* All of 0 to 15 but the cascade reached the PIC as well. */
    struct x86_pic s[2];
    pic_get_state(gsi->pic, s);
    assert_int_equal(s[0].irr & ~4, 0xfb);
    assert_int_equal(s[1].irr, 0xff);
}

/* Sources of one wire do not lower each other. */
static void test_wires_are_ored(void **state)
{
    program(9, 0x39 | LEVEL, 0);
    irq_set(&gsi->sci[9], 1);
    irq_set(&gsi->pirq[9], 1);
    irq_set(&gsi->line[9], 1);
    assert_int_equal(kit.msi_count, 1);
    irq_set(&gsi->pirq[9], 0);
    irq_set(&gsi->line[9], 0);
    ioapic_eoi(ioapic, 0x39);
    assert_int_equal(kit.msi_count, 2);
    irq_set(&gsi->sci[9], 0);
    ioapic_eoi(ioapic, 0x39);
    assert_int_equal(kit.msi_count, 2);
}

static void test_elcr(void **state)
{
    gsi_set_elcr(gsi, 0xffff);
    assert_int_equal(inb(0x4d0), 0xf8);
    assert_int_equal(inb(0x4d1), 0xde);
}

static void test_intercept(void **state)
{
    unsigned seen = 0;

    ioapic->gpio_in[5].intercept = kit.line[5].set;
    ioapic->gpio_in[5].intercept_n = 5;
    program(5, 0x35, 0);
    irq_set(&gsi->line[5], 1);
    seen = (unsigned)kit.level[5];
    assert_int_equal(seen, 1);
    assert_int_equal(kit.msi_count, 0);
}

/* ---- an engine that has, or wants to know, the chips ----------------------------------------- */

static struct {
    unsigned lines, gsi;
    int level;
    unsigned routes[24];
    bool valid[24];
    struct x86_pic pic[2];
    struct x86_ioapic ioapic;
    struct x86_pit pit;
} engine;

static void engine_irq_set(struct accel *accel, unsigned n, int level)
{
    engine.lines++;
    engine.gsi = n;
    engine.level = level;
}

static void engine_route(struct accel *accel, unsigned pin, const struct msi_message *msg)
{
    engine.routes[pin]++;
    engine.valid[pin] = msg != NULL;
}

static bool engine_get_pic(struct accel *accel, struct x86_pic pic[2])
{
    memcpy(pic, engine.pic, sizeof(engine.pic));
    return true;
}

static bool engine_set_pic(struct accel *accel, const struct x86_pic pic[2])
{
    memcpy(engine.pic, pic, sizeof(engine.pic));
    return true;
}

static bool engine_get_ioapic(struct accel *accel, struct x86_ioapic *s)
{
    *s = engine.ioapic;
    return true;
}

static bool engine_set_ioapic(struct accel *accel, const struct x86_ioapic *s)
{
    engine.ioapic = *s;
    return true;
}

static bool engine_get_pit(struct accel *accel, struct x86_pit *s)
{
    *s = engine.pit;
    return true;
}

static bool engine_set_pit(struct accel *accel, const struct x86_pit *s)
{
    engine.pit = *s;
    return true;
}

static const struct accel_ops engine_ops = {
    .name = "test",
    .irq_set = engine_irq_set,
    .route_ioapic_pin = engine_route,
    .get_pic = engine_get_pic,
    .set_pic = engine_set_pic,
    .get_ioapic = engine_get_ioapic,
    .set_ioapic = engine_set_ioapic,
    .get_pit = engine_get_pit,
    .set_pit = engine_set_pit,
};

static int setup_engine(void **state, enum irqchip_mode mode)
{
    static struct accel accel;

    kit_setup(state);
    memset(&engine, 0, sizeof(engine));
    accel = (struct accel){.ops = &engine_ops, .irqchip = mode};
    kit.accel = &accel;
    gsi = gsi_new(true, NULL);
    assert_non_null(gsi);
    ioapic = gsi->ioapic;
    return 0;
}

static int setup_on(void **state)
{
    return setup_engine(state, IRQCHIP_ON);
}

static int setup_split(void **state)
{
    return setup_engine(state, IRQCHIP_SPLIT);
}

static void test_engine_has_the_chips(void **state)
{
    assert_null(gsi->pic);
    assert_null(gsi->ioapic);
    irq_set(&gsi->line[20], 1);
    irq_set(&gsi->sci[20], 1);
    assert_int_equal(engine.lines, 1);
    assert_int_equal(engine.gsi, 20);
    irq_set(&gsi->line[20], 0);
    assert_int_equal(engine.lines, 1);
    irq_set(&gsi->line[0], 1);
    assert_int_equal(engine.gsi, 0);
    /* RESET reaches the engine's chips; wires stay as they are. */
    engine.pic[0].imr = 0xff;
    engine.ioapic.redirection[3] = 0x33;
    engine.pit.channel[0].mode = 2;
    device_reset(&gsi->dev);
    assert_int_equal(engine.pic[0].imr, 0);
    assert_int_equal(engine.pic[0].last_irr, 1);
    assert_int_equal(engine.ioapic.redirection[3], MASKED);
    assert_int_equal(engine.ioapic.irr, 1 << 20 | 1 << 2);
    assert_int_equal(engine.pit.channel[0].mode, 0xff);
    gsi_set_elcr(gsi, 0x0c20);
    assert_int_equal(engine.pic[0].elcr, 0x20);
    assert_int_equal(engine.pic[1].elcr, 0x0c);
    engine.ioapic.redirection[5] = 0x1234;
    engine.pit.channel[2].count = 77;
    kit_check_vmstate(&gsi->dev);
    assert_int_equal(engine.ioapic.redirection[5], 0x1234);
    assert_int_equal(engine.pit.channel[2].count, 77);
    assert_int_equal(engine.pic[0].elcr, 0x20);
}

static void test_split_tells_routes(void **state)
{
    assert_non_null(ioapic);
    assert_ptr_equal(kit.accel->extint_opaque, gsi->pic);
    assert_ptr_equal(kit.accel->eoi_opaque, gsi->ioapic);
    memset(engine.routes, 0, sizeof(engine.routes));
    program(10, 0x71 | LEVEL, 0);
    assert_int_equal(engine.routes[10], 1);
    assert_true(engine.valid[10]);
    set(10, 1); /* remote IRR is no change of what it sends */
    program(10, 0x71 | LEVEL, 0);
    assert_int_equal(engine.routes[10], 1);
    /* Masked before its EOI, as Linux does: that is told only while there is a route. */
    program(10, 0x71 | LEVEL | MASKED, 0);
    assert_int_equal(engine.routes[10], 1);
    assert_true(engine.valid[10]);
    program(10, 0x71 | LEVEL, 3);
    assert_int_equal(engine.routes[10], 2);
    device_reset(ioapic);
    assert_false(engine.valid[10]);
}

static void test_state(void **state)
{
    struct x86_ioapic s, again;

    program(3, 0x33, 1);
    program(17, 0x51 | LEVEL, 0);
    set(17, 1);
    reg_write(0, 5 << 24);
    ioapic_get_state(ioapic, &s);
    device_reset(ioapic);
    assert_int_equal(reg_read(0x10 + 34), MASKED);
    ioapic_set_state(ioapic, &s);
    ioapic_get_state(ioapic, &again);
    assert_memory_equal(&s, &again, sizeof(s));
    kit_check_vmstate(ioapic);
    kit_check_vmstate(&gsi->dev);
    assert_int_equal(reg_read(0), 5 << 24);
    kit.msi_count = 0;
    ioapic_eoi(ioapic, 0x51);
    assert_int_equal(kit.msi_count, 1);
}

static void test_hostile(void **state)
{
    uint64_t seed = 3;

    for (unsigned i = 0; i < 20000; i++) {
        uint32_t r = kit_random(&seed);
        switch (r % 4) {
        case 0:
            reg_write((uint8_t)(r >> 8), kit_random(&seed));
            break;
        case 1:
            irq_set(&gsi->line[(r >> 8) % GSI_COUNT], r >> 16 & 1);
            break;
        case 2:
            ioapic_eoi(ioapic, (uint8_t)(r >> 8));
            break;
        default:
            reg_read((uint8_t)(r >> 8));
        }
    }
    kit_hammer_memory(IOAPIC_BASE, IOAPIC_WINDOW_SIZE, 20000, 4);
    for (unsigned i = 0; i < 24; i++) {
        uint32_t low = reg_read((uint8_t)(0x10 + i * 2));
        assert_true(!(low & REMOTE_IRR) || low & LEVEL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, kit_teardown)
        TEST(test_registers),
        TEST(test_edge),
        TEST(test_logical_lowest_priority),
        TEST(test_level),
        TEST(test_level_while_masked),
        TEST(test_wires),
        TEST(test_wires_are_ored),
        TEST(test_elcr),
        TEST(test_intercept),
        cmocka_unit_test_setup_teardown(test_engine_has_the_chips, setup_on, kit_teardown),
        cmocka_unit_test_setup_teardown(test_split_tells_routes, setup_split, kit_teardown),
        TEST(test_state),
        TEST(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
