/* SPDX-License-Identifier: MIT */
/*
 * Devices: their life and its order, buses, -device, -global and -object with their errors.
 *
 *   main-system-bus --- host --- toy.0 --- disk, disk, bridge --- br.0 --- disk
 */
#include "device_fixture.h"

/* ---- types that write down what happens to them --------------------------------------------- */

static char happened[2048];
static const char *fail_at; /* the call that fails */

static void note(const struct device *dev, const char *what)
{
    size_t used = strlen(happened);

    snprintf(happened + used, sizeof(happened) - used, "%s:%s ", dev->id ? dev->id : "-", what);
}

#define ASSERT_HAPPENED(text)                                                                      \
    do {                                                                                           \
        assert_string_equal(happened, text);                                                       \
        happened[0] = 0;                                                                           \
    } while (0)

#define CALLS(level)                                                                               \
    static void level##_init(struct device *dev)                                                   \
    {                                                                                              \
        note(dev, #level ".init");                                                                 \
    }                                                                                              \
    static bool level##_realize(struct device *dev, struct error **errp)                           \
    {                                                                                              \
        if (fail_at && strcmp(fail_at, #level) == 0) {                                             \
            error_set(errp, "%s failed", fail_at);                                                 \
            return false;                                                                          \
        }                                                                                          \
        note(dev, #level ".realize");                                                              \
        return true;                                                                               \
    }                                                                                              \
    static void level##_unrealize(struct device *dev)                                              \
    {                                                                                              \
        note(dev, #level ".unrealize");                                                            \
    }                                                                                              \
    static void level##_reset(struct device *dev)                                                  \
    {                                                                                              \
        note(dev, #level ".reset");                                                                \
    }

CALLS(base)
CALLS(mid)
CALLS(leaf)

#define CALLS_OF(level)                                                                            \
    .init = level##_init, .realize = level##_realize, .unrealize = level##_unrealize,              \
    .reset = level##_reset

struct toy {
    struct device dev;
    uint32_t size;
    bool flag;
    char *label;
    uint8_t leaf_only;
    struct bus bus; /* of host and bridge */
};

static const struct property base_props[] = {
    PROPERTY_UINT32("size", struct toy, size, 16, 1, 100, "how big"),
    PROPERTY_BOOL("flag", struct toy, flag, true, "a flag"),
    PROPERTY_END,
};

static const struct property leaf_props[] = {
    PROPERTY_STRING("label", struct toy, label, NULL, "text on it"),
    PROPERTY_UINT8("only", struct toy, leaf_only, 3, 0, 0, "of the leaf"),
    /* The leaf knows better. */
    PROPERTY_UINT32("size", struct toy, size, 32, 1, 1000, "how big"),
    PROPERTY_END,
};

static const struct device_type base_type = {
    .name = "toy-base", .abstract = true, .bus = "Toy", .props = base_props, CALLS_OF(base)};
static const struct device_type mid_type = {
    .name = "toy-mid", .abstract = true, .parent = &base_type, CALLS_OF(mid)};
static const struct device_type disk_type = {
    .name = "toy-disk",
    .alias = "tdisk",
    .parent = &mid_type,
    .category = DEVICE_CATEGORY_STORAGE,
    .size = sizeof(struct toy),
    .props = leaf_props,
    .hotpluggable = true,
    CALLS_OF(leaf),
};
static const struct device_type fixed_type = {
    .name = "toy-fixed",
    .parent = &base_type,
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct toy),
    .internal = true,
};
static const struct device_type cold_type = {
    .name = "toy-cold",
    .parent = &base_type,
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct toy),
};

static void toy_bus_reset(struct bus *bus)
{
    size_t used = strlen(happened);

    snprintf(happened + used, sizeof(happened) - used, "%s:bus.reset ", bus->name);
}

static const struct bus_type toy_bus = {.name = "Toy", .reset = toy_bus_reset, .hotplug = true};
static const struct bus_type other_bus = {.name = "Other"};

static bool host_realize(struct device *dev, struct error **errp)
{
    bus_init(&((struct toy *)dev)->bus, &toy_bus, dev, NULL);
    return true;
}

static void host_unrealize(struct device *dev)
{
    note(dev, "host.unrealize");
    bus_destroy(&((struct toy *)dev)->bus);
}

static const struct device_type host_type = {
    .name = "toy-host",
    .bus = "System",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct toy),
    .internal = true,
    .realize = host_realize,
    .unrealize = host_unrealize,
};
static const struct device_type bridge_type = {
    .name = "toy-bridge",
    .parent = &base_type,
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct toy),
    .realize = host_realize,
    .unrealize = host_unrealize,
};
static const struct device_type lone_type = {.name = "toy-lone",
                                             .size = sizeof(struct toy),
                                             .category = DEVICE_CATEGORY_MISC,
                                             CALLS_OF(leaf)};
static const struct device_type stray_type = {
    .name = "toy-stray", .size = sizeof(struct toy), .bus = "Nowhere"};
static const struct device_type object_type = {
    .name = "toy-object", .size = sizeof(struct toy), .is_object = true, .props = base_props};

static const struct device_type *const types[] = {
    &base_type,   &mid_type,  &disk_type,  &fixed_type,  &cold_type, &host_type,
    &bridge_type, &lone_type, &stray_type, &object_type, NULL,
};

static struct toy *host;

static void make_host(void)
{
    host = (struct toy *)device_new(&host_type);
    assert_true(device_realize(&host->dev, system_bus(), NULL));
    happened[0] = 0;
}

static int setup(void **state)
{
    device_setup(state);
    device_types_set(types);
    make_host();
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------- */

static void test_order(void **state)
{
    struct device *dev = device_new(&disk_type);

    assert_true(device_set_id(dev, "d", NULL));
    assert_int_equal((uintptr_t)dev % 64, 0);
    ASSERT_HAPPENED("-:base.init -:mid.init -:leaf.init ");
    assert_int_equal(dev->state, DEVICE_CREATED);
    assert_null(device_find("d"));

    assert_true(device_realize(dev, &host->bus, NULL));
    ASSERT_HAPPENED("d:base.realize d:mid.realize d:leaf.realize ");
    assert_ptr_equal(device_find("d"), dev);
    assert_ptr_equal(host->bus.first, dev);
    assert_true(device_is_a(dev, &base_type));
    assert_false(device_is_a(dev, &host_type));

    device_reset(dev);
    ASSERT_HAPPENED("d:base.reset d:mid.reset d:leaf.reset ");
    device_unrealize(dev);
    ASSERT_HAPPENED("d:leaf.unrealize d:mid.unrealize d:base.unrealize ");
    assert_null(device_find("d"));
    assert_null(host->bus.first);
    /* It may come to life again. */
    assert_true(device_realize(dev, &host->bus, NULL));
    happened[0] = 0;
    device_free(dev);
    ASSERT_HAPPENED("d:leaf.unrealize d:mid.unrealize d:base.unrealize ");
}

static void test_failure_is_undone(void **state)
{
    static const struct {
        const char *at, *happened;
    } cases[] = {
        {"base", ""},
        {"mid", "-:base.realize -:base.unrealize "},
        {"leaf", "-:base.realize -:mid.realize -:mid.unrealize -:base.unrealize "},
    };

    for (unsigned i = 0; i < 3; i++) {
        struct error *err = NULL;
        struct device *dev = device_new(&disk_type);
        happened[0] = 0;
        fail_at = cases[i].at;
        assert_false(device_realize(dev, &host->bus, &err));
        fail_at = NULL;
        assert_string_equal(happened, cases[i].happened);
        assert_int_equal(dev->state, DEVICE_CREATED);
        assert_null(dev->bus);
        assert_null(host->bus.first);
        error_free(err);
        device_free(dev);
    }
    happened[0] = 0;
}

static void test_reset_order(void **state)
{
    assert_non_null(add("toy-lone,id=lone", NULL));
    assert_non_null(add("toy-disk,id=a", NULL));
    assert_non_null(add("toy-bridge,id=br", NULL));
    assert_non_null(add("toy-disk,id=b,bus=br.0", NULL));
    assert_non_null(add("toy-disk,id=c,bus=toy.0", NULL));
    happened[0] = 0;
    devices_reset();
    ASSERT_HAPPENED("a:base.reset a:mid.reset a:leaf.reset "
                    "b:base.reset b:mid.reset b:leaf.reset br.0:bus.reset br:base.reset "
                    "c:base.reset c:mid.reset c:leaf.reset toy.0:bus.reset lone:leaf.reset ");

    /* What hangs below goes first. */
    device_free(device_find("br"));
    ASSERT_HAPPENED("b:leaf.unrealize b:mid.unrealize b:base.unrealize "
                    "br:host.unrealize br:base.unrealize ");
    assert_null(device_find("b"));
    devices_free();
    ASSERT_HAPPENED("c:leaf.unrealize c:mid.unrealize c:base.unrealize "
                    "a:leaf.unrealize a:mid.unrealize a:base.unrealize "
                    "lone:leaf.unrealize -:host.unrealize ");
    assert_null(device_first());
    make_host();
}

/* ---- properties ----------------------------------------------------------------------------- */

static void test_properties(void **state)
{
    struct error *err = NULL;
    struct toy *t = (struct toy *)device_new(&disk_type);

    assert_int_equal(t->size, 32); /* the leaf's default */
    assert_true(t->flag);
    assert_int_equal(t->leaf_only, 3);
    assert_null(t->label);
    assert_true(device_set(&t->dev, "size", "0x10", NULL));
    assert_true(device_set(&t->dev, "label", "one", NULL));
    assert_true(device_set(&t->dev, "label", "two", NULL));
    char *text = device_get(&t->dev, "label");
    assert_string_equal(text, "two");
    free(text);
    assert_null(device_get(&t->dev, "nothing"));

    assert_false(device_set(&t->dev, "lable", "x", &err));
    ASSERT_ERROR_HINT(err, "Property 'toy-disk.lable' not found", "Did you mean 'label'?");
    assert_false(device_set(&t->dev, "zzzzzzz", "x", &err));
    ASSERT_ERROR_HINT(err, "Property 'toy-disk.zzzzzzz' not found", "toy-disk,help");

    assert_true(device_set_id(&t->dev, "t", NULL));
    assert_true(device_realize(&t->dev, &host->bus, NULL));
    assert_false(device_set(&t->dev, "size", "5", &err));
    ASSERT_ERROR(err, "Attempt to set property 'size' on device 't' (type 'toy-disk') after it "
                      "was realized");
    device_free(&t->dev);
    happened[0] = 0;
}

/* ---- -device -------------------------------------------------------------------------------- */

static void test_device_add(void **state)
{
    struct toy *t = (struct toy *)add("tdisk,id=x,size=99,flag=off,label=a,,b", NULL);

    assert_non_null(t);
    assert_ptr_equal(t->dev.type, &disk_type);
    assert_string_equal(t->dev.id, "x");
    assert_int_equal(t->size, 99);
    assert_false(t->flag);
    assert_string_equal(t->label, "a,b");
    assert_ptr_equal(t->dev.bus, &host->bus);
    device_free(&t->dev);

    t = (struct toy *)add("{\"driver\":\"toy-disk\",\"id\":\"y\",\"size\":7,\"flag\":false}", NULL);
    assert_non_null(t);
    assert_int_equal(t->size, 7);
    assert_false(t->flag);
    device_free(&t->dev);
}

static void test_device_errors(void **state)
{
    static const struct {
        const char *text, *message, *hint;
    } cases[] = {
        {"id=x", "Parameter 'driver' is missing", ""},
        {"toy-dis", "'toy-dis' is not a valid device model name", "Did you mean 'toy-disk'?"},
        {"unheard-of", "'unheard-of' is not a valid device model name", "-device help"},
        {"toy-object,id=o", "'toy-object' is not a valid device model name", "-object toy-object"},
        {"toy-mid", "Parameter 'driver' expects a non-abstract device type", ""},
        {"toy-fixed", "Parameter 'driver' expects a pluggable device type", ""},
        {"toy-disk,bus=nope", "Bus 'nope' not found", ""},
        {"toy-disk,bus=toy.1", "Bus 'toy.1' not found", "Did you mean 'toy.0'?"},
        {"toy-disk,bus=other.0", "Device 'toy-disk' can't go on Other bus", ""},
        {"toy-lone,bus=toy.0", "Device 'toy-lone' can't go on Toy bus", ""},
        {"toy-stray", "No 'Nowhere' bus found for device 'toy-stray'", ""},
        {"toy-disk,id=1x", "Parameter 'id' expects an identifier", "starting with a letter"},
        {"toy-disk,id=dup", "Duplicate ID 'dup' for device", ""},
        {"toy-disk,foo=1", "Property 'toy-disk.foo' not found", ""},
        {"toy-disk,size=0",
         "Property toy-disk.size doesn't take value 0 (minimum: 1, maximum: "
         "1000)",
         ""},
        {"toy-disk,flag=maybe", "Parameter 'flag' expects 'on' or 'off'", ""},
    };
    struct bus other;

    bus_init(&other, &other_bus, &host->dev, NULL);
    assert_string_equal(other.name, "other.0");
    assert_non_null(add("toy-disk,id=dup", NULL));
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error *err = NULL;
        assert_null(add(cases[i].text, &err));
        ASSERT_ERROR_HINT(err, cases[i].message, cases[i].hint);
    }
    /* Nothing was left behind. */
    assert_null(device_find("x"));
    assert_ptr_equal(host->bus.first, device_find("dup"));
    assert_null(host->bus.first->next_sibling);
    bus_destroy(&other);
    device_free(device_find("dup"));
}

static void test_full_bus(void **state)
{
    struct error *err = NULL;

    assert_non_null(add("toy-bridge,id=br", NULL));
    host->bus.full = true;
    struct device *dev = add("toy-disk,id=d", NULL);
    assert_non_null(dev);
    assert_string_equal(dev->bus->name, "br.0");
    assert_null(add("toy-disk,bus=toy.0", &err));
    ASSERT_ERROR_HINT(err, "Toy: no slot available for toy-disk, bus 'toy.0' is full",
                      "Give a slot to toy-bridge, which adds a bus");
    bus_find("br.0")->full = true;
    assert_null(add("toy-disk,id=x", &err));
    ASSERT_ERROR_HINT(err, "Toy: no slot available for toy-disk,id=x, bus 'toy.0' is full",
                      "Give a slot to toy-bridge, which adds a bus");
    assert_null(add("toy-disk,bus=br.0", &err));
    ASSERT_ERROR(err, "Toy: no slot available for toy-disk, bus 'br.0' is full");
    /* A type without addresses has no place on a full bus, whatever is said. */
    assert_null(add("toy-disk,addr=3", &err));
    ASSERT_ERROR(err, "Toy: no slot available for toy-disk, bus 'toy.0' is full");
    host->bus.full = false;
    device_free(device_find("br"));
}

/* ---- -global -------------------------------------------------------------------------------- */

static void test_globals(void **state)
{
    struct error *err = NULL;
    static const char *const malformed[] = {"x", "toy-disk.size", "toy-disk=5", ".size=5",
                                            "toy-disk.=5"};

    for (unsigned i = 0; i < 5; i++) {
        assert_false(device_add_global(malformed[i], &err));
        assert_non_null(strstr(error_message(err), malformed[i]));
        error_free(err);
        err = NULL;
    }
    assert_false(device_add_global("driver=toy-disk,property=size", &err));
    ASSERT_ERROR(err, "-global driver=toy-disk,property=size: Parameter 'value' is missing");

    assert_true(device_add_global("toy-base.size=50", NULL));
    assert_true(device_add_global("toy-disk.label=a.b=c", NULL));
    assert_true(device_add_global("driver=toy-disk,property=only,value=9", NULL));
    /* A property that only some heirs have. */
    assert_true(device_add_global("toy-base.only=8", NULL));
    assert_true(device_check_globals(NULL));
    struct toy *t = (struct toy *)add("toy-disk,id=t", NULL);
    assert_int_equal(t->size, 50);
    assert_string_equal(t->label, "a.b=c");
    assert_int_equal(t->leaf_only, 8);
    device_free(&t->dev);
    /* -device has the last word. */
    t = (struct toy *)add("toy-disk,size=51", NULL);
    assert_int_equal(t->size, 51);
    device_free(&t->dev);
    /* A relative without it is left alone. */
    struct device *cold = device_new(&cold_type);
    assert_true(device_realize(cold, &host->bus, NULL));
    device_free(cold);

    assert_true(device_add_global("toy-disk.size=0", NULL));
    assert_null(add("toy-disk", &err));
    ASSERT_ERROR(err, "can't apply global toy-disk.size=0: Property toy-disk.size doesn't take "
                      "value 0 (minimum: 1, maximum: 1000)");

    assert_true(device_add_global("toy-dsk.size=1", NULL));
    assert_false(device_check_globals(&err));
    ASSERT_ERROR_HINT(err, "global toy-dsk.size has invalid class name", "toy-disk");
}

static void test_global_unknown_property(void **state)
{
    struct error *err = NULL;
    static const struct device_type dsk = {
        .name = "toy-dsk", .size = sizeof(struct toy), .props = base_props};
    static const struct device_type *const with_dsk[] = {&disk_type, &dsk, NULL};

    device_types_set(with_dsk);
    assert_true(device_check_globals(NULL));
    assert_true(device_add_global("toy-dsk.nothing=1", NULL));
    assert_false(device_check_globals(&err));
    ASSERT_ERROR(err, "can't apply global toy-dsk.nothing=1: Property 'toy-dsk.nothing' not found");
    device_types_set(types);
}

/* ---- -object -------------------------------------------------------------------------------- */

static void test_objects(void **state)
{
    static const struct {
        const char *text, *message, *hint;
    } cases[] = {
        {"id=x", "Parameter 'qom-type' is missing", ""},
        {"toy-object", "Parameter 'id' is missing", ""},
        {"toy-objekt,id=x", "Parameter 'qom-type' does not accept value 'toy-objekt'",
         "Did you mean 'toy-object'?"},
        {"toy-disk,id=x", "Parameter 'qom-type' does not accept value 'toy-disk'", "-object help"},
        {"toy-object,id=x,foo=1", "Property 'toy-object.foo' not found", ""},
        {"toy-object,id=o", "Duplicate ID 'o' for object", ""},
        {"toy-object,id=o!", "Parameter 'id' expects an identifier", ""},
    };
    struct error *err = NULL;

    struct device *o = add_object("toy-object,id=o,size=5", NULL);
    assert_non_null(o);
    assert_ptr_equal(object_find("o"), o);
    assert_null(device_find("o"));
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_null(add_object(cases[i].text, &err));
        ASSERT_ERROR_HINT(err, cases[i].message, cases[i].hint);
    }
    /* Devices have names of their own. */
    struct device *d = add("toy-disk,id=o", NULL);
    assert_non_null(d);
    device_free(d);

    o->users++;
    assert_false(object_del("o", &err));
    ASSERT_ERROR(err, "object 'o' is in use, can not be deleted");
    o->users--;
    assert_true(object_del("o", NULL));
    assert_false(object_del("o", &err));
    ASSERT_ERROR(err, "object 'o' not found");
}

/* ---- interrupt lines ------------------------------------------------------------------------ */

static unsigned last_line;
static int last_level;
static void *last_opaque;

static void on_line(void *opaque, unsigned n, int level)
{
    last_opaque = opaque;
    last_line = n;
    last_level = level;
}

static void test_gpio(void **state)
{
    struct device *dev = device_new(&disk_type);
    struct device *listener = device_new(&disk_type);

    device_init_gpio_out(dev, 2);
    device_init_gpio_in(listener, on_line, 4);
    irq_raise(&dev->gpio_out[1]); /* not connected: nothing */
    dev->gpio_out[1] = listener->gpio_in[3];
    irq_raise(&dev->gpio_out[1]);
    assert_ptr_equal(last_opaque, listener);
    assert_int_equal(last_line, 3);
    assert_int_equal(last_level, 1);
    irq_lower(&dev->gpio_out[1]);
    assert_int_equal(last_level, 0);

    /* Connected, not copied: an interception of the input is seen. */
    irq_connect(&dev->gpio_out[0], &listener->gpio_in[2]);
    irq_raise(&dev->gpio_out[0]);
    assert_int_equal(last_line, 2);
    listener->gpio_in[2].intercept = on_line;
    listener->gpio_in[2].intercept_n = 77;
    irq_lower(&dev->gpio_out[0]);
    assert_int_equal(last_line, 77);
    assert_int_equal(last_level, 0);
    device_free(dev);
    device_free(listener);
}

/* ---- hot plug ------------------------------------------------------------------------------- */

static void test_hotplug(void **state)
{
    static const struct bus_type cold_bus = {.name = "Toy"};
    struct error *err = NULL;
    struct bus cold;

    bus_init(&cold, &cold_bus, &host->dev, "cold.0");
    devices_cold_plug_done();
    device_free(add("toy-disk", &err));
    assert_null(err);
    assert_null(add("toy-cold", &err));
    ASSERT_ERROR(err, "Device 'toy-cold' does not support hotplugging");
    assert_null(add("toy-disk,bus=cold.0", &err));
    ASSERT_ERROR(err, "Bus 'cold.0' does not support hotplugging");
    bus_destroy(&cold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_failure_is_undone),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_device_add),
        cmocka_unit_test(test_device_errors),
        cmocka_unit_test(test_full_bus),
        cmocka_unit_test(test_reset_order),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_gpio),
        /* These leave something behind. */
        cmocka_unit_test(test_hotplug),
        cmocka_unit_test(test_globals),
        cmocka_unit_test(test_global_unknown_property),
    };

    return cmocka_run_group_tests(tests, setup, device_teardown);
}
