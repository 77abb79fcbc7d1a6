/* SPDX-License-Identifier: MIT */
/* Single values: numbers, sizes, ids, names nearly right, ranges, byte order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/id.h"
#include "base/options.h"
#include "base/range.h"
#include "base/utf8.h"

static void bools(void **state)
{
    static const char *const on[] = {"on", "yes", "true", "y"};
    static const char *const off[] = {"off", "no", "false", "n"};
    static const char *const bad[] = {"", "ON", "1", "0", "on ", " on", "onn", "o", "tru"};
    bool v;
    for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
        v = false;
        assert_true(parse_bool(on[i], &v));
        assert_true(v);
        assert_true(parse_bool(off[i], &v));
        assert_false(v);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(parse_bool(bad[i], &v));
}

static void uints(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {
        {"0", 0},
        {"00", 0},
        {"7", 7},
        {"010", 8},
        {"0x0", 0},
        {"0xfF", 255},
        {"0X10", 16},
        {"4294967296", UINT64_C(1) << 32},
        {"18446744073709551615", UINT64_MAX},
        {"0xffffffffffffffff", UINT64_MAX},
        {"01777777777777777777777", UINT64_MAX},
    };
    static const char *const bad[] = {
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1k",
        "0x",
        "0xg",
        "08",
        "1.0",
        "1e3",
        "x",
        "00x1",
        "18446744073709551616",
        "0x10000000000000000",
        "02000000000000000000000",
        "99999999999999999999999999999999999999",
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t v = 99;
        if (!parse_uint(good[i].text, &v) || v != good[i].value)
            fail_msg("'%s' gave %llu", good[i].text, (unsigned long long)v);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t v = 99;
        if (parse_uint(bad[i], &v) || v != 99)
            fail_msg("'%s' gave %llu", bad[i], (unsigned long long)v);
    }
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t unit, value;
    } good[] = {
        {"0", 1, 0},
        {"512", 1, 512},
        {"512", MiB, 512 * MiB},
        {"512b", MiB, 512},
        {"512B", MiB, 512},
        {"4k", 1, 4 * KiB},
        {"4K", MiB, 4 * KiB},
        {"3m", 1, 3 * MiB},
        {"3M", 1, 3 * MiB},
        {"5g", 1, 5 * GiB},
        {"5G", 1, 5 * GiB},
        {"2T", 1, 2 * TiB},
        {"2t", 1, 2 * TiB},
        {"1P", 1, 1024 * TiB},
        {"1p", 1, 1024 * TiB},
        {"15E", 1, 15 * 1024 * 1024 * TiB},
        {"1e", 1, 1024 * 1024 * TiB},
        {"0x200", MiB, 512 * MiB},
        {"0x10k", 1, 16 * KiB},
        {"010", 1, 10}, /* sizes are never octal */
        {"1.5G", 1, GiB + 512 * MiB},
        {"0.5k", 1, 512},
        {"1.25M", GiB, MiB + 256 * KiB},
        {"0.3k", 1, 307},
        {"0.000000000000000001E", 1, 1},
        {"0.99999999999999999999999999999999999k", 1, 1024}, /* to the nearest byte */
        {"1.1M", 1, 1153434},
        {"1.0001k", 1, 1024},
        {"1.k", 1, 1024},
        {"1.", 512, 512},
        {"18446744073709551615", 1, UINT64_MAX},
        {"15.999E", 1, UINT64_C(18445591152204944769)},
    };
    static const char *const bad[] = {
        "",
        "k",
        "-1k",
        "+1k",
        " 1k",
        "1k ",
        "1kk",
        "1kB",
        "1KiB",
        "1Q",
        "1.5",
        "1.5b",
        ".5k",
        "1.5.5k",
        "0x1.8k",
        "0x",
        "1,5k",
        "16E",
        "17179869184G",
        "18446744073709551616",
        "0xffffffffffffffffk",
        "15.5.E",
        "99999999999999999999999999.5k",
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t v = 99;
        bool ok = parse_size(good[i].text, good[i].unit, &v);
        if (!ok || v != good[i].value)
            fail_msg("'%s' gave %llu", good[i].text, (unsigned long long)v);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t v = 99;
        if (parse_size(bad[i], 1, &v) || v != 99)
            fail_msg("'%s' gave %llu", bad[i], (unsigned long long)v);
    }
    /* The default unit overflows as well. */
    uint64_t v = 99;
    assert_false(parse_size("17592186044416", MiB, &v));
    assert_true(parse_size("17592186044415", MiB, &v));
    assert_true(v == UINT64_C(17592186044415) << 20);
}

static void ids(void **state)
{
    static const char *const good[] = {"a", "Z", "disk0", "d-0.x_Y9", "aaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const bad[] = {"",   "0",  "_a",  "-a",       ".a",        "#a", "a b",
                                      "a,", "a/", "a\n", "\xc3\xa4", "a\xc3\xa4", "a="};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(id_is_wellformed(good[i]));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(id_is_wellformed(bad[i]));
}

static void expect_near(const char *word, const char *expected)
{
    static const char *const names[] = {
        "drive", "serial",     "num-queues",         "on", "q35", "pc-i440fx", "io", "ioeventfd",
        "",      "queue-size", "physical_block_size"};
    const char *near = nearest_name(word, names, ARRAY_SIZE(names));
    if (!expected)
        assert_null(near);
    else if (!near)
        fail_msg("nothing is near '%s'", word);
    else
        assert_string_equal(near, expected);
}

static void nearest(void **state)
{
    expect_near("drvie", "drive");  /* swapped */
    expect_near("driv", "drive");   /* left out */
    expect_near("drivee", "drive"); /* added */
    expect_near("drove", "drive");  /* replaced */
    expect_near("Drive", "drive");  /* case */
    expect_near("SERIAL", "serial");
    expect_near("numqueues", "num-queues");
    expect_near("q36", "q35");
    expect_near("physical-block-size", "physical_block_size");
    expect_near("drawn", NULL); /* two of five are too many */
    expect_near("banana", NULL);
    expect_near("x", NULL);
    expect_near("", NULL);
    /* The nearest of several, not the first. */
    expect_near("ioeventf", "ioeventfd");
    assert_null(nearest_name("a", NULL, 0));
}

static void nearest_of_long_words(void **state)
{
    char *word = xmalloc(1000001);
    memset(word, 'a', 1000000);
    word[1000000] = 0;
    const char *candidates[] = {word, "aaaa"};
    assert_null(nearest_name(word, candidates, 2));
    assert_string_equal(nearest_name("aaab", candidates, 2), "aaaa");
    /* 64 is the longest that is compared. */
    char longest[66];
    memset(longest, 'b', 65);
    longest[64] = 0;
    const char *one[] = {longest};
    char typed[65];
    memcpy(typed, longest, 65);
    typed[10] = 'c';
    assert_ptr_equal(nearest_name(typed, one, 1), longest);
    longest[64] = 'b';
    longest[65] = 0;
    assert_null(nearest_name(typed, one, 1));
    free(word);
}

static void ranges(void **state)
{
    assert_true(range_fits(0, 0, 0));
    assert_true(range_fits(10, 0, 10));
    assert_true(range_fits(0, 10, 10));
    assert_false(range_fits(1, 10, 10));
    assert_false(range_fits(11, 0, 10));
    assert_false(range_fits(UINT64_MAX, 2, 10));
    assert_false(range_fits(2, UINT64_MAX, 10));
    assert_true(range_fits(0, UINT64_MAX, UINT64_MAX));

    assert_true(range_overlaps(0, 10, 9, 1));
    assert_false(range_overlaps(0, 10, 10, 1));
    assert_false(range_overlaps(10, 1, 0, 10));
    assert_true(range_overlaps(5, 1, 0, 10));
    assert_false(range_overlaps(5, 0, 0, 10));
    assert_false(range_overlaps(0, 10, 5, 0));
    assert_true(range_overlaps(UINT64_MAX - 1, 1, UINT64_MAX - 1, 1));

    assert_true(is_power_of_2(1));
    assert_true(is_power_of_2(UINT64_C(1) << 63));
    assert_false(is_power_of_2(0));
    assert_false(is_power_of_2(3));
    assert_int_equal(align_down(4097, 4096), 4096);
    assert_int_equal(align_up(4097, 4096), 8192);
    assert_int_equal(align_up(4096, 4096), 4096);
    assert_int_equal(align_up(UINT64_MAX, 4096), 0);
}

static void bytes(void **state)
{
    uint8_t b[10] = {0};
    store_le32(b + 1, 0x11223344);
    assert_int_equal(b[1], 0x44);
    assert_int_equal(b[4], 0x11);
    assert_int_equal(load_le32(b + 1), 0x11223344);
    assert_int_equal(load_be32(b + 1), 0x44332211);
    store_be64(b + 1, UINT64_C(0x0102030405060708));
    assert_int_equal(b[1], 1);
    assert_int_equal(b[8], 8);
    assert_int_equal(b[9], 0);
    assert_int_equal(load_le(b + 1, 3), 0x030201);
    store_le(b, 3, 0xaabbcc);
    assert_int_equal(b[2], 0xaa);
    assert_int_equal(b[3], 3);
    store_be16(b, 0x1234);
    assert_int_equal(load_le16(b), 0x3412);
}

#define NO_CHARACTER "\xEF\xBF\xBD"

static void utf8(void **state)
{
    static const struct {
        const char *text, *repaired;
    } cases[] = {
        {"", ""},
        {"a\x7F\n", "a\x7F\n"},
        {"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80"},
        {"\x80\x80z", NO_CHARACTER NO_CHARACTER "z"},        /* in the middle of nothing */
        {"\xFF\xFE", NO_CHARACTER NO_CHARACTER},             /* never in UTF-8 */
        {"\xE2\x82", NO_CHARACTER},                          /* cut off by the end */
        {"\xE2\x82z\xC3", NO_CHARACTER "z" NO_CHARACTER},    /* or by what follows */
        {"\xC0\xAF\xE0\x80\xAF", NO_CHARACTER NO_CHARACTER}, /* overlong */
        {"\xED\xA0\x80", NO_CHARACTER},                      /* a surrogate */
        {"\xEF\xBF\xBE\xEF\xB7\x90", NO_CHARACTER NO_CHARACTER},
        {"\xF4\x8F\xBF\xBD\xF4\x90\x80\x80", "\xF4\x8F\xBF\xBD" NO_CHARACTER},
        {"\xFC\x84\x80\x80\x80\x80", NO_CHARACTER},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        autofree char *repaired = utf8_repair(cases[i].text);
        assert_string_equal(repaired, cases[i].repaired);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bools),   cmocka_unit_test(uints),
        cmocka_unit_test(sizes),   cmocka_unit_test(ids),
        cmocka_unit_test(nearest), cmocka_unit_test(nearest_of_long_words),
        cmocka_unit_test(ranges),  cmocka_unit_test(bytes),
        cmocka_unit_test(utf8),
    };
    return cmocka_run_group_tests_name("base/values", tests, NULL, NULL);
}
