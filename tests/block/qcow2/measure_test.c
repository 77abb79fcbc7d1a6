/* SPDX-License-Identifier: MIT */
/* What an image would take: qemu-img's numbers. */
#include "tools.h"

#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/image.h"

static json_t *our_numbers(const char *options, const char *source, const char *size)
{
    const struct block_driver *qcow2 = block_driver_find("qcow2");
    struct block_measure m = {0};
    struct block_node *node = NULL;
    struct error *err = NULL;
    uint64_t bytes = 0;

    struct options *opts = options_parse(options, NULL, NULL);
    assert_non_null(opts);
    if (source) {
        const struct block_image_how how = {.filename = source, .user = "test"};
        node = block_image_open_node(&how, &err);
        assert_non_null(node);
    } else {
        assert_true(parse_size(size, 1, &bytes));
    }
    if (!qcow2->image->measure(opts, node, bytes, &m, &err)) {
        fail_msg("%s", error_message(err));
    }
    options_free(opts);
    if (node) {
        block_node_unref(node);
    }
    json_t *numbers = json_pack("{s:I, s:I}", "required", (json_int_t)m.required, "fully-allocated",
                                (json_int_t)m.fully_allocated);
    if (m.has_bitmaps) {
        json_object_set_new(numbers, "bitmaps", json_integer((json_int_t)m.bitmaps));
    }
    return numbers;
}

static void compare(const char *options, const char *source, const char *size)
{
    autofree char *what =
        xasprintf("-o '%s' %s%s", options, source ? source : "--size ", source ? "" : size);
    json_t *ours = our_numbers(options, source, size);
    json_t *theirs =
        tools_json("qemu-img measure --output=json -O qcow2 %s%s %s%s", *options ? "-o " : "",
                   options, source ? "" : "--size ", source ? source : size);

    tools_assert_same_json(ours, theirs, what);
    json_decref(ours);
    json_decref(theirs);
}

static void test_sizes(void **state)
{
    static const char *const options[] = {
        "",
        "cluster_size=512",
        "cluster_size=2M,refcount_bits=1",
        "extended_l2=on",
        "preallocation=full,refcount_bits=64",
        "data_file=x,preallocation=falloc",
        "compat=0.10",
    };
    static const char *const sizes[] = {"0", "1000", "64k", "1G", "100G"};

    if (!tools_have_qemu_img()) {
        skip();
    }
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        for (size_t n = i % 2; n < ARRAY_SIZE(sizes); n += 1 + i % 2) {
            compare(options[i], NULL, sizes[n]);
        }
    }
}

static void test_images(void **state)
{
    static const char *const options[] = {
        "",
        "cluster_size=512",
        "cluster_size=2M",
        "compat=0.10",
        "backing_file=base.qcow2,backing_fmt=qcow2",
        "preallocation=full",
    };

    if (!tools_have_qemu_img()) {
        skip();
    }
    tools_must("qemu-img create -f qcow2 base.qcow2 9M");
    tools_must("qemu-io -c 'write 1M 5k' -c 'write 8M 600k' base.qcow2");
    tools_must("qemu-img create -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k top.qcow2");
    tools_must("qemu-io -c 'write 3M 1k' -c 'write 6000k 100k' -c 'write -z 8M 64k' top.qcow2");
    tools_must("qemu-img bitmap --add top.qcow2 b0");
    tools_must("qemu-img bitmap --add -g 2M top.qcow2 another");
    tools_must("qemu-img convert -O raw top.qcow2 top.raw");
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        compare(options[i], "top.qcow2", NULL);
    }
    compare("", "base.qcow2", NULL);
    compare("cluster_size=4k", "top.raw", NULL);
}

static void test_refused(void **state)
{
    const struct block_driver *qcow2 = block_driver_find("qcow2");
    struct block_measure m;
    struct error *err = NULL;

    struct options *opts = options_parse("cluster_size=512", NULL, NULL);
    assert_false(qcow2->image->measure(opts, NULL, TiB, &m, &err));
    kit_assert_error(err, "The image size is too large (try using a larger cluster size)");
    options_free(opts);
    opts = options_parse("encrypt.format=luks", NULL, NULL);
    err = NULL;
    assert_false(qcow2->image->measure(opts, NULL, TiB, &m, &err));
    kit_assert_error(err, "Encrypted qcow2 images are not supported; leave out encrypt.format");
    options_free(opts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sizes, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_images, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_refused, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
