/* SPDX-License-Identifier: MIT */
/* New images: qemu-img finds in them what it finds in those that it made itself. */
#include "tools.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/qcow2/format.h"

/* ---- as qemu-img's ---------------------------------------------------------------------------- */

/* The paths and the size on the host differ, and so may the map's offsets. */
static void drop_keys(json_t *json, const char *const *keys)
{
    for (size_t i = 0; keys[i]; i++) {
        json_object_del(json, keys[i]);
    }
}

static void compare_info(const char *what)
{
    static const char *const differ[] = {"filename", "actual-size", NULL};
    json_t *ours = tools_json("qemu-img info --output=json ours.qcow2");
    json_t *theirs = tools_json("qemu-img info --output=json theirs.qcow2");
    json_t *data = json_object_get(json_object_get(ours, "format-specific"), "data");

    if (json_object_get(data, "data-file")) {
        json_object_set_new(data, "data-file", json_string("theirs.raw"));
    }
    drop_keys(ours, differ);
    drop_keys(theirs, differ);
    tools_assert_same_json(ours, theirs, what);
    json_decref(ours);
    json_decref(theirs);
}

/* What is there, without offsets. Whether the host knows a preallocated cluster for zeroes is
 * up to its file system. */
static json_t *map_of(const char *image, bool zeroes)
{
    static const char *const differ[] = {"offset", "data", NULL};
    json_t *map = tools_json("qemu-img map --output=json %s", image), *extent;
    json_t *merged = json_array();
    size_t i;

    json_array_foreach(map, i, extent) {
        json_t *last = json_array_get(merged, json_array_size(merged) - 1);
        json_int_t start = json_integer_value(json_object_get(extent, "start"));
        json_int_t end = start + json_integer_value(json_object_get(extent, "length"));

        drop_keys(extent, differ);
        if (!zeroes) {
            json_object_del(extent, "zero");
        }
        json_object_del(extent, "length");
        if (last) {
            json_object_set(extent, "start", json_object_get(last, "start"));
            json_object_set(extent, "end", json_object_get(last, "end"));
        }
        if (!last || !json_equal(extent, last)) {
            json_object_set_new(extent, "start", json_integer(start));
            json_array_append(merged, last = extent);
        }
        json_object_set_new(last, "end", json_integer(end));
    }
    json_decref(map);
    return merged;
}

static void compare_map(const char *what)
{
    bool zeroes = !strstr(what, "preallocation=");
    json_t *ours = map_of("ours.qcow2", zeroes), *theirs = map_of("theirs.qcow2", zeroes);

    tools_assert_same_json(ours, theirs, what);
    json_decref(ours);
    json_decref(theirs);
}

static void compare(const char *options, const char *data_options)
{
    autofree char *ours =
        xasprintf("%s%s%s", options, *data_options ? ",data_file=ours.raw" : "", data_options);

    tools_create("ours.qcow2", ours);
    tools_must("qemu-img create -f qcow2 -o %s%s%s theirs.qcow2", options,
               *data_options ? ",data_file=theirs.raw" : "", data_options);
    tools_check("ours.qcow2", false);
    compare_info(options);
    /* A raw data file's clusters are all there, also where subclusters could say that they are
     * zeroes: who writes to the data file alone must see it in the image. */
    if (!strstr(options, "extended_l2=on") || !strstr(data_options, "raw=on")) {
        compare_map(options);
    }
    /* Their L1 table ends the file at any byte. */
    assert_in_range(kit_file_size("ours.qcow2"), 1, align_up(kit_file_size("theirs.qcow2"), 4096));
}

static void test_combinations(void **state)
{
    static const char *const clusters[] = {"512", "65536", "2097152"};
    static const char *const widths[] = {"1", "2", "4", "8", "16", "32", "64"};
    static const char *const others[] = {"", ",lazy_refcounts=on", ",compression_type=zstd",
                                         ",extended_l2=on", ",compat=0.10"};
    static const char *const sizes[] = {"0", "1000", "10M", "1G"};
    static const char *const preallocs[] = {"off", "metadata", "falloc", "full"};
    uint64_t seed = 1;

    if (!tools_have_qemu_img()) {
        skip();
    }
    for (size_t c = 0; c < ARRAY_SIZE(clusters); c++) {
        for (size_t o = 0; o < ARRAY_SIZE(others); o++) {
            bool v2 = strstr(others[o], "compat"), extended = strstr(others[o], "extended");
            uint64_t r = kit_random(&seed);
            const char *size = sizes[r % 4], *prealloc = preallocs[r / 4 % 4];
            const char *width = v2 ? "16" : widths[r / 16 % 7];

            if (extended && c == 0) {
                continue;
            }
            if (strcmp(size, "1G") == 0 && r / 4 % 4 >= 1) {
                size = "4M"; /* short of time, and of room */
            }
            autofree char *options =
                xasprintf("size=%s,cluster_size=%s,refcount_bits=%s,preallocation=%s%s", size,
                          clusters[c], width, prealloc, others[o]);
            if (v2 || r & 2048) {
                compare(options, "");
            } else {
                compare(options, r & 1024 ? ",data_file_raw=on" : ",data_file_raw=off");
            }
        }
    }
}

/* Many refcount blocks, more than one cluster of refcount table, an L1 table of many clusters. */
static void test_large(void **state)
{
    if (!tools_have_qemu_img()) {
        skip();
    }
    tools_create("ours.qcow2", "size=128G,cluster_size=512,refcount_bits=64");
    tools_check("ours.qcow2", false);                       /* qemu-img needs minutes to make one */
    tools_create("ours.qcow2", "size=64P,cluster_size=2M"); /* its map takes long */
    tools_must("qemu-img create -f qcow2 -o cluster_size=2M theirs.qcow2 64P");
    tools_check("ours.qcow2", false);
    compare_info("size=64P");
    compare("size=8M,cluster_size=512,refcount_bits=64,preallocation=metadata", "");
    compare("size=100G,cluster_size=64k,refcount_bits=16,preallocation=metadata", "");
}

static void test_backing(void **state)
{
    if (!tools_have_qemu_img()) {
        skip();
    }
    tools_create("base.qcow2", "size=5M");
    compare("backing_file=base.qcow2,backing_fmt=qcow2", "");
    compare("backing_file=base.qcow2,backing_fmt=qcow2,compat=0.10", "");
    compare("backing_file=base.qcow2,backing_fmt=qcow2,cluster_size=512", "");
    compare("backing_file=base.qcow2,backing_fmt=qcow2,extended_l2=on,preallocation=metadata", "");
}

/* Where opening looks for it. */
static void test_data_file_in_folder(void **state)
{
    tools_must("mkdir folder");
    tools_create("folder/image.qcow2", "size=3M,data_file=data.raw,data_file_raw=on");
    assert_int_equal(kit_file_size("folder/data.raw"), 3 * MiB);
    if (tools_have_qemu_img()) {
        tools_must("cd folder && qemu-img check image.qcow2");
    }
}

/* A file that is there is emptied, whatever was in it. */
static void test_over_old_one(void **state)
{
    kit_make_file("ours.qcow2", 3 * MiB);
    tools_create("ours.qcow2", "size=10M");
    assert_true(kit_file_size("ours.qcow2") <= 200704);
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
        tools_must("qemu-io -r -c 'read -P 0 0 10M' ours.qcow2");
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

/* An L1 table in a hole could not be written once the guest's data has filled the host. */
static void test_l1_has_space(void **state)
{
    uint8_t offset[8];

    tools_create("ours.qcow2", "size=1T");
    kit_read_file("ours.qcow2", QCOW2_H_L1_OFFSET, offset, sizeof(offset));
    off_t l1 = (off_t)load_be64(offset);
    int fd = open("ours.qcow2", O_RDONLY);
    assert_true(fd >= 0);
    assert_true(lseek(fd, l1, SEEK_HOLE) >= l1 + 2048 * 8); /* entries */
    close(fd);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *options, *message;
    } cases[] = {
        {"size=1M,cluster_size=1000", "Cluster size must be a power of two between 512 and 2048k"},
        {"size=1M,cluster_size=256", "Cluster size must be a power of two between 512 and 2048k"},
        {"size=1M,cluster_size=4M", "Cluster size must be a power of two between 512 and 2048k"},
        {"size=1M,cluster_size=0", "Cluster size must be a power of two between 512 and 2048k"},
        {"size=1M,refcount_bits=7",
         "Refcount width must be a power of two and may not exceed 64 bits"},
        {"size=1M,refcount_bits=128",
         "Refcount width must be a power of two and may not exceed 64 bits"},
        {"size=1M,refcount_bits=0",
         "Refcount width must be a power of two and may not exceed 64 bits"},
        {"size=1M,refcount_bits=x", "Parameter 'refcount_bits' expects a number, not 'x'"},
        {"size=1M,compat=0.10,refcount_bits=8",
         "Different refcount widths than 16 bits require compatibility level 1.1 or above (use "
         "version=v3 or greater)"},
        {"size=1M,compat=v2,lazy_refcounts=on",
         "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or "
         "greater)"},
        {"size=1M,compat=0.10,extended_l2=on",
         "Extended L2 entries are only supported with compatibility level 1.1 and above (use "
         "version=v3 or greater)"},
        {"size=1M,compat=0.10,data_file=d.raw",
         "External data files are only supported with compatibility level 1.1 and above (use "
         "version=v3 or greater)"},
        {"size=1M,compat=0.10,compression_type=zstd",
         "Non-zlib compression type is only supported with compatibility level 1.1 and above (use "
         "version=v3 or greater)"},
        {"size=1M,compat=0.9", "Parameter 'version' does not accept value '0.9'"},
        {"size=1M,extended_l2=on,cluster_size=8k",
         "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes"},
        {"size=1M,preallocation=some", "Parameter 'preallocation' does not accept value 'some'"},
        {"size=1M,compression_type=lzo",
         "Parameter 'compression-type' does not accept value 'lzo'"},
        {"size=1M,data_file_raw=on", "data-file-raw requires data-file"},
        {"size=2M,backing_file=base.qcow2,backing_fmt=qcow2,preallocation=full",
         "Backing file and preallocation can only be used at the same time if extended_l2 is on"},
        {"size=2M,backing_file=base.qcow2,backing_fmt=qcow2,data_file=d.raw,data_file_raw=on",
         "Backing file and data-file-raw cannot be used at the same time"},
        {"size=129G,cluster_size=512",
         "The image size is too large for file format 'qcow2' (try using a larger cluster size)"},
        {"size=3P",
         "The image size is too large for file format 'qcow2' (try using a larger cluster size)"},
    };

    tools_create("base.qcow2", "size=2M");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error *err = NULL;
        if (tools_try_create("no.qcow2", cases[i].options, &err)) {
            fail_msg("made: %s", cases[i].options);
        }
        assert_string_equal(error_message(err), cases[i].message);
        error_free(err);
        assert_int_not_equal(tools_run("test -e no.qcow2"), 0); /* what failed is removed */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_combinations, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_large, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_backing, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_data_file_in_folder, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_over_old_one, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_l1_has_space, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
