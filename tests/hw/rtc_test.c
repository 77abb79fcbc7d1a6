/* SPDX-License-Identifier: MIT */
/* MC146818A, its time on the virtual clock (clock=vm). */
#include "kit.h"

#include "hw/rtc.h"
#include "hw/rtc_time.h"

#define IRQ 8

static uint8_t cmos_read(uint8_t index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void cmos_write(uint8_t index, uint8_t value)
{
    outb(0x70, index);
    outb(0x71, value);
}

static struct device *make_rtc(const char *base)
{
    struct error *err = NULL;
    struct device *rtc = rtc_new(kit.isa, base, "vm", &err);

    if (!rtc) {
        fail_msg("%s", error_message(err));
    }
    device_reset(rtc);
    return rtc;
}

static void assert_time(unsigned hour, unsigned minute, unsigned second)
{
    assert_int_equal(cmos_read(RTC_HOURS), hour);
    assert_int_equal(cmos_read(RTC_MINUTES), minute);
    assert_int_equal(cmos_read(RTC_SECONDS), second);
}

static void test_time_goes_on(void **state)
{
    make_rtc("2024-02-28T23:59:58");
    assert_time(0x23, 0x59, 0x58);
    kit_step(NS_PER_SEC);
    assert_time(0x23, 0x59, 0x59);
    kit_step(NS_PER_SEC);
    assert_time(0, 0, 0);
    assert_int_equal(cmos_read(RTC_DAY_OF_MONTH), 0x29);
    assert_int_equal(cmos_read(RTC_MONTH), 2);
    assert_int_equal(cmos_read(RTC_YEAR), 0x24);
    assert_int_equal(cmos_read(RTC_CMOS_CENTURY), 0x20);
    assert_int_equal(cmos_read(RTC_DAY_OF_WEEK), 5); /* a Thursday */
    assert_int_equal(cmos_read(RTC_REG_D), 0x80);
}

static void test_formats(void **state)
{
    make_rtc("2021-12-31T13:45:30");
    cmos_write(RTC_REG_B, 0x06); /* binary, 24 hours */
    assert_time(13, 45, 30);
    assert_int_equal(cmos_read(RTC_DAY_OF_MONTH), 31);
    cmos_write(RTC_REG_B, 0x04); /* binary, 12 hours */
    assert_int_equal(cmos_read(RTC_HOURS), 0x80 | 1);
    cmos_write(RTC_REG_B, 0x00); /* BCD, 12 hours */
    assert_int_equal(cmos_read(RTC_HOURS), 0x81);
    assert_int_equal(cmos_read(RTC_MINUTES), 0x45);
    cmos_write(RTC_HOURS, 0x12); /* twelve at night */
    cmos_write(RTC_REG_B, 0x02);
    assert_int_equal(cmos_read(RTC_HOURS), 0);
}

static void test_set(void **state)
{
    make_rtc("2021-12-31T13:45:30");
    cmos_write(RTC_REG_B, 0x82); /* SET */
    kit_step(10 * NS_PER_SEC);
    assert_time(0x13, 0x45, 0x30); /* it stands still */
    cmos_write(RTC_SECONDS, 0x59);
    cmos_write(RTC_MINUTES, 0x01);
    cmos_write(RTC_HOURS, 0x02);
    cmos_write(RTC_DAY_OF_MONTH, 0x28);
    cmos_write(RTC_MONTH, 0x02);
    cmos_write(RTC_YEAR, 0x99);
    cmos_write(RTC_CMOS_CENTURY, 0x19);
    assert_int_equal(cmos_read(RTC_SECONDS), 0x59);
    cmos_write(RTC_REG_B, 0x02);
    assert_time(0x02, 0x01, 0x59);
    kit_step(NS_PER_SEC);
    assert_time(0x02, 0x02, 0x00);
    assert_int_equal(cmos_read(RTC_YEAR), 0x99);
    assert_int_equal(cmos_read(RTC_CMOS_CENTURY), 0x19);
    /* Without SET a single register can be written while time goes on. */
    kit_step(NS_PER_SEC / 2);
    cmos_write(RTC_MINUTES, 0x30);
    kit_step(NS_PER_SEC / 2);
    assert_time(0x02, 0x30, 0x01);
}

static void test_update_in_progress(void **state)
{
    make_rtc("2021-12-31T13:45:30");
    assert_int_equal(cmos_read(RTC_REG_A), 0x26);
    kit_step(NS_PER_SEC - 244 * NS_PER_US - 1);
    assert_int_equal(cmos_read(RTC_REG_A) & 0x80, 0);
    kit_step(1);
    assert_int_equal(cmos_read(RTC_REG_A) & 0x80, 0x80);
    assert_int_equal(cmos_read(RTC_SECONDS), 0x30);
    kit_step(244 * NS_PER_US);
    assert_int_equal(cmos_read(RTC_REG_A) & 0x80, 0);
    assert_int_equal(cmos_read(RTC_SECONDS), 0x31);
}

static void test_update_interrupt(void **state)
{
    make_rtc("2021-12-31T13:45:30");
    kit_step(NS_PER_SEC);
    assert_int_equal(kit.rises[IRQ], 0);
    assert_int_equal(cmos_read(RTC_REG_C) & 0xb0, 0x10); /* the flag without the interrupt */
    assert_int_equal(cmos_read(RTC_REG_C) & 0xb0, 0x00);
    cmos_write(RTC_REG_B, 0x12);
    kit_step(NS_PER_SEC);
    assert_int_equal(kit.level[IRQ], 1);
    kit_step(5 * NS_PER_SEC);
    assert_int_equal(kit.rises[IRQ], 1); /* until C is read */
    assert_int_equal(cmos_read(RTC_REG_C) & 0xb0, 0x90);
    assert_int_equal(kit.level[IRQ], 0);
    for (unsigned i = 0; i < 3; i++) {
        kit_step(NS_PER_SEC);
        assert_int_equal(cmos_read(RTC_REG_C) & 0xb0, 0x90);
    }
    assert_int_equal(kit.rises[IRQ], 4);
}

static void test_alarm(void **state)
{
    make_rtc("2021-12-31T13:45:30");
    cmos_write(RTC_HOURS_ALARM, 0x14);
    cmos_write(RTC_MINUTES_ALARM, 0x02);
    cmos_write(RTC_SECONDS_ALARM, 0x03);
    cmos_write(RTC_REG_B, 0x22);
    kit_step((16 * 60 + 32) * NS_PER_SEC);
    assert_int_equal(kit.rises[IRQ], 0);
    kit_step(NS_PER_SEC);
    assert_int_equal(kit.rises[IRQ], 1);
    assert_time(0x14, 0x02, 0x03);
    assert_int_equal(cmos_read(RTC_REG_C) & 0xb0, 0xb0);
    /* The next day again. */
    kit_step(86399 * NS_PER_SEC);
    assert_int_equal(kit.rises[IRQ], 1);
    kit_step(NS_PER_SEC);
    assert_int_equal(kit.rises[IRQ], 2);
    cmos_read(RTC_REG_C);
    /* Each minute at :30. */
    cmos_write(RTC_HOURS_ALARM, 0xff);
    cmos_write(RTC_MINUTES_ALARM, 0xc0);
    cmos_write(RTC_SECONDS_ALARM, 0x30);
    for (unsigned i = 0; i < 3; i++) {
        kit_step(60 * NS_PER_SEC);
        assert_int_equal(cmos_read(RTC_REG_C) & 0x20, 0x20);
        assert_int_equal(kit.rises[IRQ], 3 + i);
    }
    /* Never. */
    cmos_write(RTC_SECONDS_ALARM, 0x77);
    kit_step(2 * 86400 * NS_PER_SEC);
    assert_int_equal(cmos_read(RTC_REG_C) & 0x20, 0);
}

static void test_periodic(void **state)
{
    make_rtc("2021-12-31T13:45:30");
    cmos_write(RTC_REG_B, 0x42); /* 1024 Hz */
    unsigned served = 0;
    for (unsigned i = 0; i < 1000; i++) {
        kit_step(NS_PER_MS);
        if (kit.level[IRQ]) {
            assert_int_equal(cmos_read(RTC_REG_C) & 0xc0, 0xc0);
            served++;
        }
    }
    assert_in_range(served, 976, 1000);
    cmos_write(RTC_REG_A, 0x2f); /* 2 Hz */
    cmos_read(RTC_REG_C);
    kit.rises[IRQ] = 0;
    for (unsigned i = 0; i < 100; i++) {
        kit_step(100 * NS_PER_MS);
        if (kit.level[IRQ]) {
            cmos_read(RTC_REG_C);
        }
    }
    assert_in_range(kit.rises[IRQ], 19, 20);
    cmos_write(RTC_REG_A, 0x20); /* none */
    cmos_read(RTC_REG_C);
    kit_step(NS_PER_SEC);
    assert_int_equal(cmos_read(RTC_REG_C) & 0x40, 0);
}

/* Leaving the divider's reset, the first update is half a second away. */
static void test_divider(void **state)
{
    make_rtc("2021-12-31T13:45:30");
    cmos_write(RTC_REG_A, 0x66);
    kit_step(10 * NS_PER_SEC);
    assert_time(0x13, 0x45, 0x30);
    cmos_write(RTC_REG_A, 0x26);
    kit_step(NS_PER_SEC / 2 - 1);
    assert_time(0x13, 0x45, 0x30);
    kit_step(1);
    assert_time(0x13, 0x45, 0x31);
}

static void test_memory(void **state)
{
    struct device *rtc = make_rtc(NULL);

    for (unsigned i = 0x0e; i < 0x80; i++) {
        if (i != RTC_CMOS_CENTURY) {
            cmos_write((uint8_t)i, (uint8_t)(i ^ 0x5a));
        }
    }
    device_reset(rtc);
    for (unsigned i = 0x0e; i < 0x80; i++) {
        if (i != RTC_CMOS_CENTURY) {
            assert_int_equal(cmos_read((uint8_t)(i | 0x80)), i ^ 0x5a);
        }
    }
    for (unsigned i = 0; i < 128; i++) {
        outb(0x72, (uint8_t)i);
        outb(0x73, (uint8_t)~i);
    }
    outb(0x72, 0x85);
    assert_int_equal(inb(0x72), 0x05);
    assert_int_equal(inb(0x73), 0xfa);
    assert_int_equal(cmos_read(0x10), 0x10 ^ 0x5a);
    rtc_set_memory(rtc, UINT64_C(0xc0000000), 5 * GiB);
    assert_int_equal(cmos_read(0x15) | cmos_read(0x16) << 8, 640);
    assert_int_equal(cmos_read(0x17) | cmos_read(0x18) << 8, 0xffff);
    assert_int_equal(cmos_read(0x34) | cmos_read(0x35) << 8, (0xc0000000 - 0x1000000) >> 16);
    assert_int_equal(cmos_read(0x5b) | cmos_read(0x5c) << 8 | cmos_read(0x5d) << 16, 5 << 14);
    rtc_set_cmos(rtc, RTC_CMOS_CPU_COUNT, 3);
    assert_int_equal(rtc_get_cmos(rtc, RTC_CMOS_CPU_COUNT), 3);
    rtc_set_cmos(rtc, RTC_REG_B, 0xff); /* not the machine's */
    assert_int_equal(rtc_get_cmos(rtc, RTC_REG_B), 0x02);
}

static void test_base_errors(void **state)
{
    static const char *const bad[] = {
        "tomorrow",         "2021-13-01", "2021-02-29",           "2021-02-28T24:00:00",
        "2021-02-28T1:2:3", "",           "2021-02-28T10:00:00Z", "2021-02-0a",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error *err = NULL;
        assert_null(rtc_new(kit.isa, bad[i], NULL, &err));
        assert_non_null(strstr(error_message(err), "datetime"));
        error_free(err);
    }
    assert_non_null(rtc_new(kit.isa, "localtime", "host", NULL));
}

static void test_calendar(void **state)
{
    uint64_t seed = 5;
    uint8_t cmos[128] = {0};

    for (unsigned i = 0; i < 20000; i++) {
        struct rtc_format format = {i & 1, i & 2};
        int64_t t = (int64_t)((uint64_t)kit_random(&seed) << 32 | kit_random(&seed)) %
                    (INT64_C(8000) * 365 * 86400);
        t = t < 0 ? -t / 5 : t; /* years 0 to 9969 */
        rtc_time_encode(t, format, cmos);
        assert_int_equal(rtc_time_decode(format, cmos), t);
    }
}

static void test_state(void **state)
{
    struct device *rtc = make_rtc("2021-12-31T13:45:30");

    cmos_write(RTC_SECONDS_ALARM, 0x31);
    cmos_write(RTC_MINUTES_ALARM, 0xff);
    cmos_write(RTC_HOURS_ALARM, 0xff);
    cmos_write(RTC_REG_B, 0x32);
    cmos_write(0x40, 0x77);
    kit_check_vmstate(rtc);
    kit_step(NS_PER_SEC);
    assert_int_equal(kit.rises[IRQ], 1);
    assert_int_equal(cmos_read(RTC_REG_C) & 0xb0, 0xb0);
    assert_int_equal(cmos_read(0x40), 0x77);
}

static void test_hostile(void **state)
{
    struct device *rtc = make_rtc("2021-12-31T13:45:30");
    uint64_t seed = 11;

    for (unsigned i = 0; i < 20000; i++) {
        uint32_t r = kit_random(&seed);
        uint8_t index = r & 1 ? r >> 8 & 0xff : (r >> 8) % 14;
        if (r & 2) {
            cmos_write(index, (uint8_t)(r >> 16));
        } else {
            cmos_read(index);
        }
        if (r >> 24 == 0) {
            kit_step(kit_random(&seed));
        }
    }
    kit_hammer_ports(0x70, 4, 10000, 12);
    kit_check_vmstate(rtc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
        TEST(test_time_goes_on),
        TEST(test_formats),
        TEST(test_set),
        TEST(test_update_in_progress),
        TEST(test_update_interrupt),
        TEST(test_alarm),
        TEST(test_periodic),
        TEST(test_divider),
        TEST(test_memory),
        TEST(test_base_errors),
        TEST(test_calendar),
        TEST(test_state),
        TEST(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
