/* SPDX-License-Identifier: MIT */
/* State tables: save and load again, versions, and bytes that somebody has damaged. */
#include "device_fixture.h"

#include "aio/loop.h"
#include "device/vmstate.h"

struct channel {
    uint16_t count;
    bool gate;
};

struct chip {
    struct device dev;
    uint8_t a;
    uint16_t b;
    uint32_t c;
    uint64_t d;
    bool flag;
    uint32_t regs[5];
    uint8_t fifo[16];
    struct channel channels[3];
    struct aio_timer timer;
    int untouched;
    bool saved, refuse;
    unsigned loaded_version;
};

static const struct vmstate_field channel_fields[] = {
    VMSTATE_UINT(struct channel, count),
    VMSTATE_BOOL(struct channel, gate),
    VMSTATE_END,
};
static const struct vmstate channel_state = {
    .name = "channel", .version = 1, .minimum_version = 1, .fields = channel_fields};

static void chip_pre_save(void *opaque)
{
    ((struct chip *)opaque)->saved = true;
}

static bool chip_post_load(void *opaque, unsigned version)
{
    struct chip *chip = opaque;

    chip->loaded_version = version;
    return !chip->refuse;
}

static const struct vmstate_field chip_fields[] = {
    VMSTATE_UINT(struct chip, a),      VMSTATE_UINT(struct chip, b),
    VMSTATE_UINT(struct chip, c),      VMSTATE_UINT(struct chip, d),
    VMSTATE_BOOL(struct chip, flag),   VMSTATE_ARRAY(struct chip, regs),
    VMSTATE_BYTES(struct chip, fifo),  VMSTATE_SUB(struct chip, channels, channel_state, 3),
    VMSTATE_TIMER(struct chip, timer), VMSTATE_END,
};
static const struct vmstate chip_state = {
    .name = "chip",
    .version = 3,
    .minimum_version = 2,
    .fields = chip_fields,
    .pre_save = chip_pre_save,
    .post_load = chip_post_load,
};

/* Version 2 lacked b and the timer, version 1 is too old. */
static const struct vmstate_field chip_fields_2[] = {
    VMSTATE_UINT(struct chip, a),
    VMSTATE_UINT(struct chip, c),
    VMSTATE_UINT(struct chip, d),
    VMSTATE_BOOL(struct chip, flag),
    VMSTATE_ARRAY(struct chip, regs),
    VMSTATE_BYTES(struct chip, fifo),
    VMSTATE_SUB(struct chip, channels, channel_state, 3),
    VMSTATE_END,
};

static void chip_reset(struct device *dev)
{
    struct chip *chip = (struct chip *)dev;

    chip->a = 0;
    chip->b = 0;
    chip->c = 0;
    chip->d = 0;
    chip->flag = false;
    memset(chip->regs, 0, sizeof(chip->regs));
    memset(chip->fifo, 0, sizeof(chip->fifo));
    memset(chip->channels, 0, sizeof(chip->channels));
    timer_cancel(&chip->timer);
}

static const struct vmstate_field parent_fields[] = {
    VMSTATE_UINT(struct chip, untouched),
    VMSTATE_END,
};
static const struct vmstate parent_state = {
    .name = "parent", .version = 1, .minimum_version = 1, .fields = parent_fields};
static const struct device_type parent_type = {
    .name = "parent", .abstract = true, .vmstate = &parent_state};
static const struct device_type chip_type = {
    .name = "chip",
    .parent = &parent_type,
    .size = sizeof(struct chip),
    .reset = chip_reset,
    .vmstate = &chip_state,
};

static struct aio_loop *loop;

static int setup(void **state)
{
    device_setup(state);
    loop = aio_loop_new("test", AIO_LOOP_EPOLL, NULL);
    aio_loop_bind(loop);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    aio_loop_unbind(loop);
    aio_loop_free(loop);
    return device_teardown(state);
}

static void on_timer(void *opaque)
{
}

static struct chip *chip_new(void)
{
    struct chip *chip = (struct chip *)device_new(&chip_type);

    timer_init(&chip->timer, loop, AIO_CLOCK_VIRTUAL, on_timer, chip);
    return chip;
}

static void fill(struct chip *chip)
{
    chip->a = 0xa1;
    chip->b = 0xb1b2;
    chip->c = 0xc1c2c3c4;
    chip->d = 0xd1d2d3d4d5d6d7d8;
    chip->flag = true;
    for (unsigned i = 0; i < 5; i++) {
        chip->regs[i] = 0x1000 + i;
    }
    memcpy(chip->fifo, "0123456789abcdef", 16);
    for (unsigned i = 0; i < 3; i++) {
        chip->channels[i] = (struct channel){(uint16_t)(i + 100), i == 1};
    }
    chip->untouched = 42;
    timer_set(&chip->timer, 1000 * NS_PER_SEC);
}

static void chip_done(struct chip *chip)
{
    timer_cancel(&chip->timer);
    device_free(&chip->dev);
}

static void assert_same(const struct chip *x, const struct chip *y)
{
    assert_int_equal(x->a, y->a);
    assert_int_equal(x->b, y->b);
    assert_int_equal(x->c, y->c);
    assert_int_equal(x->d, y->d);
    assert_int_equal(x->flag, y->flag);
    assert_memory_equal(x->regs, y->regs, sizeof(x->regs));
    assert_memory_equal(x->fifo, y->fifo, sizeof(x->fifo));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(x->channels[i].count, y->channels[i].count);
        assert_int_equal(x->channels[i].gate, y->channels[i].gate);
    }
    assert_int_equal(timer_expires(&x->timer), timer_expires(&y->timer));
}

/* ---- there and back ------------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
    struct chip *chip = chip_new(), *other = chip_new();
    struct error *err = NULL;
    size_t length, again_length;

    fill(chip);
    fill(other);
    uint8_t *data = device_save_state(&chip->dev, &length);
    assert_true(chip->saved);
    device_reset(&chip->dev);
    chip->untouched = 0;
    assert_int_equal(timer_expires(&chip->timer), -1);
    assert_true(device_load_state(&chip->dev, data, length, &err));
    assert_same(chip, other);
    assert_int_equal(chip->untouched, 42);
    assert_int_equal(chip->loaded_version, 3);
    uint8_t *again = device_save_state(&chip->dev, &again_length);
    assert_int_equal(length, again_length);
    assert_memory_equal(data, again, length);

    /* A timer that was not set is not set. */
    device_reset(&other->dev);
    free(again);
    again = device_save_state(&other->dev, &again_length);
    assert_true(device_load_state(&chip->dev, again, again_length, &err));
    assert_int_equal(timer_expires(&chip->timer), -1);
    free(data);
    free(again);
    chip_done(chip);
    chip_done(other);
}

static void test_versions(void **state)
{
    struct vmstate older = {
        .name = "chip", .version = 2, .minimum_version = 2, .fields = chip_fields_2};
    struct chip *chip = chip_new();
    struct error *err = NULL;
    size_t length;

    fill(chip);
    uint8_t *data = vmstate_save(&older, chip, &length);
    chip_reset(&chip->dev);
    chip->b = 77;
    assert_true(vmstate_load(&chip_state, chip, data, length, &err));
    assert_int_equal(chip->loaded_version, 2);
    assert_int_equal(chip->a, 0xa1);
    assert_int_equal(chip->b, 77); /* it had none */
    assert_int_equal(chip->regs[4], 0x1004);
    free(data);

    /* Of the same version a field may not be missing. */
    older.version = 3;
    data = vmstate_save(&older, chip, &length);
    assert_false(vmstate_load(&chip_state, chip, data, length, &err));
    ASSERT_ERROR(err, "device state: 'chip' lacks field 'b'");
    free(data);
    older.version = 1;
    data = vmstate_save(&older, chip, &length);
    assert_false(vmstate_load(&chip_state, chip, data, length, &err));
    ASSERT_ERROR(err, "device state: 'chip' has version 1, versions 2 to 3 are known");
    free(data);
    older.version = 4;
    data = vmstate_save(&older, chip, &length);
    assert_false(vmstate_load(&chip_state, chip, data, length, &err));
    ASSERT_ERROR(err, "device state: 'chip' has version 4, versions 2 to 3 are known");
    free(data);
    /* More than is known here. */
    data = vmstate_save(&chip_state, chip, &length);
    older.version = 3;
    assert_false(vmstate_load(&older, chip, data, length, &err));
    error_free(err);
    err = NULL;
    free(data);

    chip->refuse = true;
    data = vmstate_save(&chip_state, chip, &length);
    assert_false(vmstate_load(&chip_state, chip, data, length, &err));
    ASSERT_ERROR(err, "device state: 'chip' refuses its values");
    free(data);
    chip_done(chip);
}

/* ---- damage --------------------------------------------------------------------------------- */

/* Cut anywhere, longer, or with a byte changed: refused without a change, or a valid state. */
static void test_damaged(void **state)
{
    struct chip *chip = chip_new(), *before = chip_new();
    size_t length;

    fill(chip);
    uint8_t *data = vmstate_save(&chip_state, chip, &length);
    uint8_t *copy = xmalloc(length + 1);

    chip_reset(&chip->dev);
    for (size_t cut = 0; cut < length; cut++) {
        /* A buffer of that size, so that the sanitizer sees what reads beyond. */
        uint8_t *piece = xmalloc(cut ? cut : 1);
        struct error *err = NULL;
        memcpy(piece, data, cut);
        assert_false(vmstate_load(&chip_state, chip, piece, cut, &err));
        assert_non_null(err);
        error_free(err);
        assert_same(chip, before);
        free(piece);
    }
    memcpy(copy, data, length);
    copy[length] = 0;
    struct error *err = NULL;
    assert_false(vmstate_load(&chip_state, chip, copy, length + 1, &err));
    ASSERT_ERROR(err, "device state: 1 bytes too many");
    assert_same(chip, before);

    unsigned refused = 0;
    for (size_t at = 0; at < length; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(copy, data, length);
            copy[at] ^= (uint8_t)(1u << bit);
            chip_reset(&chip->dev);
            if (!vmstate_load(&chip_state, chip, copy, length, NULL)) {
                assert_same(chip, before);
                refused++;
            }
            assert_true(chip->flag == 0 || chip->flag == 1);
        }
    }
    assert_true(refused > length);
    free(copy);
    free(data);
    chip_done(chip);
    chip_done(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
