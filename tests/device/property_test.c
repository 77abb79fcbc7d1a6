/* SPDX-License-Identifier: MIT */
/* Every kind of property: text in, text out, defaults, limits, errors; and the printed lists. */
#include "device_fixture.h"

#include "device/iothread.h"

static const char *const colours[] = {"red", "green", "blue", NULL};

struct many {
    struct device dev;
    bool b;
    uint32_t bits32;
    uint64_t bits64;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32, u32_limited;
    uint64_t u64;
    int32_t i32;
    uint32_t s32;
    uint64_t s64;
    char *str, *str_default;
    int colour, tri;
    int32_t addr;
    struct iothread *iothread;
};

static const struct property many_props[] = {
    PROPERTY_BOOL("b", struct many, b, false, "on/off"),
    PROPERTY_BIT32("bit5", struct many, bits32, 5, true, "on/off"),
    PROPERTY_BIT32("bit31", struct many, bits32, 31, false, "on/off"),
    PROPERTY_BIT64("bit63", struct many, bits64, 63, true, "on/off"),
    PROPERTY_UINT8("u8", struct many, u8, 200, 0, 0, NULL),
    PROPERTY_UINT16("u16", struct many, u16, 0xffff, 0, 0, NULL),
    PROPERTY_UINT32("u32", struct many, u32, UINT32_MAX, 0, 0, NULL),
    PROPERTY_UINT32("limited", struct many, u32_limited, 5, 2, 9, "between 2 and 9"),
    PROPERTY_UINT64("u64", struct many, u64, UINT64_MAX, 0, 0, NULL),
    PROPERTY_INT32("i32", struct many, i32, -7, NULL),
    PROPERTY_SIZE32("s32", struct many, s32, 512, 0, 0, NULL),
    PROPERTY_SIZE("s64", struct many, s64, 0, 0, 0, NULL),
    PROPERTY_STRING("str", struct many, str, NULL, "some text"),
    PROPERTY_STRING("str-default", struct many, str_default, "dflt", NULL),
    PROPERTY_ENUM("colour", struct many, colour, colours, 1, "what it looks like"),
    PROPERTY_ON_OFF_AUTO("tri", struct many, tri, ON_OFF_AUTO_AUTO, NULL),
    PROPERTY_PCI_ADDRESS("addr", struct many, addr,
                         "Slot and optional function number, example: 06.0 or 06"),
    PROPERTY_IOTHREAD("iothread", struct many, iothread),
    PROPERTY_END,
};

static const struct device_type many_type = {
    .name = "many",
    .alias = "lots",
    .description = "has a property of each kind",
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct many),
    .props = many_props,
};
static const struct device_type bare_type = {.name = "Bare",
                                             .category = DEVICE_CATEGORY_STORAGE,
                                             .bus = "ISA",
                                             .size = sizeof(struct device)};
static const struct device_type hidden_type = {.name = "hidden",
                                               .category = DEVICE_CATEGORY_STORAGE,
                                               .internal = true,
                                               .size = sizeof(struct device)};
static const struct device_type abstract_type = {.name = "abstract", .abstract = true};
static const struct device_type heir_type = {.name = "azure",
                                             .alias = "a",
                                             .category = DEVICE_CATEGORY_STORAGE,
                                             .parent = &bare_type,
                                             .size = sizeof(struct device)};
/* Another default for what an ancestor has. */
static const struct property override_props[] = {
    PROPERTY_UINT8("u8", struct many, u8, 9, 0, 0, NULL),
    PROPERTY_STRING("str-default", struct many, str_default, "other", NULL),
    PROPERTY_END,
};
static const struct device_type override_type = {.name = "override",
                                                 .internal = true,
                                                 .size = sizeof(struct many),
                                                 .parent = &many_type,
                                                 .props = override_props};
static const struct device_type *const types[] = {&override_type, &many_type,
                                                  &bare_type,     &hidden_type,
                                                  &abstract_type, &heir_type,
                                                  &iothread_type, NULL};

static int setup(void **state)
{
    device_setup(state);
    device_types_set(types);
    return 0;
}

/* ---- values --------------------------------------------------------------------------------- */

static void test_defaults(void **state)
{
    struct many *m = (struct many *)device_new(&many_type);

    assert_false(m->b);
    assert_int_equal(m->bits32, 1u << 5);
    assert_int_equal(m->bits64, UINT64_C(1) << 63);
    assert_int_equal(m->u8, 200);
    assert_int_equal(m->u16, 0xffff);
    assert_int_equal(m->u32, UINT32_MAX);
    assert_int_equal(m->u64, UINT64_MAX);
    assert_int_equal(m->i32, -7);
    assert_int_equal(m->s32, 512);
    assert_int_equal(m->s64, 0);
    assert_null(m->str);
    assert_string_equal(m->str_default, "dflt");
    assert_int_equal(m->colour, 1);
    assert_int_equal(m->tri, ON_OFF_AUTO_AUTO);
    assert_int_equal(m->addr, -1);
    assert_null(m->iothread);
    assert_null(device_get(&m->dev, "addr"));
    assert_null(device_get(&m->dev, "str"));
    assert_null(device_get(&m->dev, "iothread"));
    device_free(&m->dev);
}

static void test_values(void **state)
{
    /* What goes in, and what comes out. */
    static const struct {
        const char *name, *in, *out;
    } cases[] = {
        {"b", "on", "true"},
        {"b", "off", "false"},
        {"b", "true", "true"},
        {"bit31", "on", "true"},
        {"bit5", "off", "false"},
        {"bit63", "off", "false"},
        {"u8", "0", "0"},
        {"u8", "255", "255"},
        {"u8", "0x1f", "31"},
        {"u16", "65535", "65535"},
        {"u32", "4294967295", "4294967295"},
        {"u64", "18446744073709551615", "18446744073709551615"},
        {"limited", "2", "2"},
        {"limited", "9", "9"},
        {"i32", "-2147483648", "-2147483648"},
        {"i32", "2147483647", "2147483647"},
        {"i32", "-1", "-1"},
        {"s32", "4k", "4096"},
        {"s64", "1G", "1073741824"},
        {"s64", "3", "3"},
        {"str", "", ""},
        {"str", "a b=c", "a b=c"},
        {"colour", "blue", "blue"},
        {"tri", "on", "on"},
        {"tri", "off", "off"},
        {"tri", "auto", "auto"},
        {"addr", "5", "05.0"},
        {"addr", "5.1", "05.1"},
        {"addr", "1f.7", "1f.7"},
        {"addr", "0x1e.2", "1e.2"},
        {"addr", "06.0", "06.0"},
    };
    struct many *m = (struct many *)device_new(&many_type);

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error *err = NULL;
        assert_true(device_set(&m->dev, cases[i].name, cases[i].in, &err));
        char *out = device_get(&m->dev, cases[i].name);
        assert_string_equal(out, cases[i].out);
        free(out);
    }
    /* Printed text parses to the same. */
    for (const struct property *p = many_props; p->name; p++) {
        char *text = device_get(&m->dev, p->name);
        if (!text) {
            continue;
        }
        assert_true(device_set(&m->dev, p->name, text, NULL));
        char *again = device_get(&m->dev, p->name);
        assert_string_equal(text, again);
        free(text);
        free(again);
    }
    /* Bits leave their neighbours alone. */
    m->bits32 = 0;
    assert_true(device_set(&m->dev, "bit31", "on", NULL));
    assert_true(device_set(&m->dev, "bit5", "on", NULL));
    assert_true(device_set(&m->dev, "bit31", "off", NULL));
    assert_int_equal(m->bits32, 1u << 5);
    device_free(&m->dev);
}

static void test_refused(void **state)
{
    static const struct {
        const char *name, *in, *message;
    } cases[] = {
        {"b", "maybe", "Parameter 'b' expects 'on' or 'off'"},
        {"b", "", "Parameter 'b' expects 'on' or 'off'"},
        {"bit5", "2", "Parameter 'bit5' expects 'on' or 'off'"},
        {"u8", "256", "Parameter 'u8' expects uint8_t"},
        {"u8", "-1", "Parameter 'u8' expects integer"},
        {"u8", "", "Parameter 'u8' expects integer"},
        {"u8", "1x", "Parameter 'u8' expects integer"},
        {"u16", "65536", "Parameter 'u16' expects uint16_t"},
        {"u32", "99999999999", "Parameter 'u32' expects uint32_t"},
        {"u64", "18446744073709551616", "Parameter 'u64' expects integer"},
        {"i32", "2147483648", "Parameter 'i32' expects int32_t"},
        {"i32", "-2147483649", "Parameter 'i32' expects int32_t"},
        {"i32", "--1", "Parameter 'i32' expects integer"},
        {"limited", "1", "Property many.limited doesn't take value 1 (minimum: 2, maximum: 9)"},
        {"limited", "10", "Property many.limited doesn't take value 10 (minimum: 2, maximum: 9)"},
        {"s32", "4G", "Parameter 's32' expects uint32_t"},
        {"s64", "4x", "Parameter 's64' expects size"},
        {"s64", "16E", "Parameter 's64' expects size"},
        {"colour", "pink", "Parameter 'colour' does not accept value 'pink'"},
        {"colour", "re", "Parameter 'colour' does not accept value 're'"},
        {"tri", "maybe", "Parameter 'tri' does not accept value 'maybe'"},
        {"addr", "33", "Property 'many.addr' doesn't take value '33'"},
        {"addr", "20", "Property 'many.addr' doesn't take value '20'"},
        {"addr", "1.8", "Property 'many.addr' doesn't take value '1.8'"},
        {"addr", "1.", "Property 'many.addr' doesn't take value '1.'"},
        {"addr", ".1", "Property 'many.addr' doesn't take value '.1'"},
        {"addr", "1.0.0", "Property 'many.addr' doesn't take value '1.0.0'"},
        {"addr", "", "Property 'many.addr' doesn't take value ''"},
        {"addr", "-1", "Property 'many.addr' doesn't take value '-1'"},
        {"addr", "100", "Property 'many.addr' doesn't take value '100'"},
        {"iothread", "io0", "Device 'io0' not found"},
    };
    struct many *m = (struct many *)device_new(&many_type);

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error *err = NULL;
        char *before = device_get(&m->dev, cases[i].name);
        assert_false(device_set(&m->dev, cases[i].name, cases[i].in, &err));
        ASSERT_ERROR(err, cases[i].message);
        /* It keeps what it had. */
        char *after = device_get(&m->dev, cases[i].name);
        assert_true(before ? after && strcmp(before, after) == 0 : !after);
        free(before);
        free(after);
    }
    device_free(&m->dev);
}

static unsigned count_lines(const char *text, const char *start)
{
    unsigned n = 0;

    for (const char *p = text; (p = strstr(p, start)); p++) {
        n++;
    }
    return n;
}

static void test_override(void **state)
{
    struct many *m = (struct many *)device_new(&override_type);
    char *text;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    assert_int_equal(m->u8, 9);
    assert_int_equal(m->u16, 0xffff);
    assert_string_equal(m->str_default, "other");
    device_free(&m->dev);

    assert_true(device_print_properties("override", to, NULL));
    fclose(to);
    assert_int_equal(count_lines(text, "  u8="), 1);
    assert_int_equal(count_lines(text, "  u8=<uint8>             -  (default: 9)\n"), 1);
    assert_int_equal(count_lines(text, "  u16="), 1);
    free(text);
}

/* ---- lists ---------------------------------------------------------------------------------- */

static void assert_prints(void (*print)(FILE *to), const char *want)
{
    char *text;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    print(to);
    fclose(to);
    assert_string_equal(text, want);
    free(text);
}

static void print_many(FILE *to)
{
    assert_true(device_print_properties("lots", to, NULL));
}

static void print_bare(FILE *to)
{
    assert_true(device_print_properties("Bare", to, NULL));
}

static void test_lists(void **state)
{
    struct error *err = NULL;

    assert_prints(device_print_types, "Storage devices:\n"
                                      "name \"azure\", bus ISA, alias \"a\"\n"
                                      "name \"Bare\", bus ISA\n"
                                      "\n"
                                      "Misc devices:\n"
                                      "name \"many\", alias \"lots\", desc \"has a property of "
                                      "each kind\"\n");
    assert_prints(object_print_types, "List of user creatable objects:\n  iothread\n");
    assert_prints(print_bare, "There are no options for Bare.\n");
    assert_prints(print_many,
                  "many options:\n"
                  "  addr=<int32>           - Slot and optional function number, example: 06.0 or "
                  "06 (default: -1)\n"
                  "  b=<bool>               - on/off (default: false)\n"
                  "  bit31=<bool>           - on/off (default: false)\n"
                  "  bit5=<bool>            - on/off (default: true)\n"
                  "  bit63=<bool>           - on/off (default: true)\n"
                  "  colour=<str>           - what it looks like, red/green/blue (default: "
                  "\"green\")\n"
                  "  i32=<int32>            -  (default: -7)\n"
                  "  iothread=<link<iothread>> - iothread that runs the data plane\n"
                  "  limited=<uint32>       - between 2 and 9 (default: 5)\n"
                  "  s32=<size>             -  (default: 512)\n"
                  "  s64=<size>             -  (default: 0)\n"
                  "  str-default=<str>      -  (default: \"dflt\")\n"
                  "  str=<str>              - some text\n"
                  "  tri=<OnOffAuto>        - on/off/auto (default: \"auto\")\n"
                  "  u16=<uint16>           -  (default: 65535)\n"
                  "  u32=<uint32>           -  (default: 4294967295)\n"
                  "  u64=<uint64>           -  (default: 18446744073709551615)\n"
                  "  u8=<uint8>             -  (default: 200)\n");

    assert_false(device_print_properties("manny", stdout, &err));
    ASSERT_ERROR_HINT(err, "Device 'manny' not found", "Did you mean 'many'?");
    assert_false(device_print_properties("abstract", stdout, &err));
    ASSERT_ERROR(err, "Parameter 'typename' expects a non-abstract device type");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_values),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_override),
        cmocka_unit_test(test_lists),
    };

    return cmocka_run_group_tests(tests, setup, device_teardown);
}
