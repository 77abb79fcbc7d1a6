/* SPDX-License-Identifier: MIT */
/* Base64: the vectors of RFC 4648, all lengths there and back, and what is no base64. */
#include "kit.h"

#include "monitor/base64.h"

static void test_vectors(void **state)
{
    static const struct {
        const char *plain, *text;
    } cases[] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xbf", "+/+/"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t size = strlen(cases[i].plain);
        autofree char *text = base64_encode((const uint8_t *)cases[i].plain, size);
        uint8_t data[8];

        assert_string_equal(text, cases[i].text);
        assert_true(base64_decode(cases[i].text, data, size));
        assert_memory_equal(data, cases[i].plain, size);
        assert_false(base64_decode(cases[i].text, data, size + 1));
        assert_false(size && base64_decode(cases[i].text, data, size - 1));
    }
}

static void test_round_trip(void **state)
{
    uint8_t data[260], back[260];

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = i * 37 + 11;
    }
    for (size_t size = 0; size <= sizeof(data); size++) {
        autofree char *text = base64_encode(data, size);

        memset(back, 0, sizeof(back));
        assert_int_equal(strlen(text), (size + 2) / 3 * 4);
        assert_true(base64_decode(text, back, size));
        assert_memory_equal(back, data, size);
    }
}

static void test_refuses(void **state)
{
    static const struct {
        const char *text;
        size_t size;
    } cases[] = {
        {"Z", 0},
        {"Zg", 1},
        {"Zg=", 1},
        {"Zg==Zg==", 2},
        {"====", 0},
        {"=g==", 1},
        {"Z===", 1},
        {"Zm=v", 3},
        {"Zm 9", 3},
        {"Zm9\n", 3},
        {"Zm9v=", 3},
        {"Zm-_", 3},
        {"Zm9v====", 3},
        {"Zm\xff"
         "9",
         3},
    };
    uint8_t data[8];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (base64_decode(cases[i].text, data, cases[i].size)) {
            fail_msg("'%s' was taken", cases[i].text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
