/* SPDX-License-Identifier: MIT */
/*
 * Random requests from two loops beside an array, on images of every shape; then neither qemu-img
 * nor ferry finds errors or leaks, and both see what the array has. FERRY_TEST_LONG=N makes it N times
 * as long, makes each image by ferry and by qemu-img, and adds every refcount width with small, usual
 * and large clusters.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "image_kit.h"
#include "qkit.h"
#include "tools.h"

struct model_case {
    const char *create; /* options of create */
    uint32_t cluster_size;
    uint64_t size;
    uint64_t base; /* bytes of a backing file, or 0 */
    const char *drive;
    bool compressed; /* the first half begins with compressed data, and some requests make more */
    bool snapshots;  /* one is made after each round */
};

static const struct model_case cases[] = {
    {"cluster_size=512", 512, 2 * MiB + 1536, 0, ""},
    {"cluster_size=512,refcount_bits=64", 512, 4 * MiB, 0, ""},
    {"cluster_size=512,refcount_bits=1", 512, MiB, MiB, ""},
    {"cluster_size=1k,refcount_bits=2", 1024, 2 * MiB, 3 * MiB, ""},
    {"cluster_size=4k,refcount_bits=4", 4096, 8 * MiB, 0,
     ",l2-cache-size=8k,refcount-cache-size=8k"},
    {"cluster_size=4k,refcount_bits=8,lazy_refcounts=on", 4096, 8 * MiB, 5 * MiB + 512, ""},
    {"cluster_size=2k", 2048, 4 * MiB, 3 * MiB, ""},
    {"cluster_size=8k,refcount_bits=1", 8192, 8 * MiB, 0, "", .compressed = true},
    {"cluster_size=16k,compression_type=zstd", 16384, 8 * MiB, 0, "", .compressed = true},
    {"cluster_size=64k", 65536, 16 * MiB, 0, ""},
    {"cluster_size=64k", 65536, 16 * MiB, 16 * MiB, ",cache=none"},
    {"cluster_size=64k", 65536, 16 * MiB, 7 * MiB + 512, ",cache=writethrough"},
    {"cluster_size=64k,refcount_bits=32,lazy_refcounts=on", 65536, 16 * MiB, 0, ",cache=unsafe"},
    {"cluster_size=256k", 256 * KiB, 8 * MiB, 0, "", .snapshots = true},
    {"cluster_size=512k,refcount_bits=4", 512 * KiB, 8 * MiB, 0, "", .compressed = true,
     .snapshots = true},
    {"cluster_size=1M", MiB, 8 * MiB, 5 * MiB + 512, ""},
    {"cluster_size=2M,refcount_bits=64", 2 * MiB, 16 * MiB, 0, ""},
    {"cluster_size=2M", 2 * MiB, 16 * MiB, 10 * MiB, ",l2-cache-entry-size=512"},
    {"compat=0.10", 65536, 16 * MiB, 0, ""},
    {"compat=0.10,cluster_size=4k", 4096, 8 * MiB, 6 * MiB, ""},
    {"extended_l2=on", 65536, 16 * MiB, 0, ""},
    {"extended_l2=on,cluster_size=16k", 16384, 8 * MiB, 9 * MiB, ""},
    {"extended_l2=on,cluster_size=2M", 2 * MiB, 16 * MiB, 10 * MiB, ""},
    {"extended_l2=on,cluster_size=128k,preallocation=metadata", 128 * 1024, 16 * MiB, 0, ""},
    {"cluster_size=64k,preallocation=falloc", 65536, 8 * MiB, 0, ""},
    {"cluster_size=64k,data_file=data.raw", 65536, 8 * MiB, 0, ""},
    {"cluster_size=64k,data_file=data.raw", 65536, 8 * MiB, 8 * MiB, ""},
    {"cluster_size=4k,data_file=data.raw,data_file_raw=on", 4096, 8 * MiB, 0, ""},
    {"cluster_size=64k", 65536, 8 * MiB, 0, "", .compressed = true, .snapshots = true},
    {"cluster_size=4k,compression_type=zstd", 4096, 4 * MiB, 3 * MiB, "", .compressed = true},
    {"cluster_size=32k,extended_l2=on", 32768, 8 * MiB, 0, "", .compressed = true,
     .snapshots = true},
    {"cluster_size=4k,extended_l2=off", 4096, 4 * MiB, 3 * MiB, "", .snapshots = true},
    {"cluster_size=512,refcount_bits=2", 512, MiB, MiB, "", .snapshots = true},
    {"compat=0.10,cluster_size=4k", 4096, 4 * MiB, 0, "", .snapshots = true},
    {"cluster_size=512,lazy_refcounts=on", 512, MiB, 0, "", .compressed = true, .snapshots = true},
};

/* Refcounts of each width count clusters of these sizes. */
static const struct {
    const char *name;
    uint32_t bytes;
    uint64_t size;
} counted[] = {{"512", 512, MiB}, {"64k", 65536, 8 * MiB}, {"2M", 2 * MiB, 24 * MiB}};

static struct block_backend *open_image(const struct model_case *c)
{
    return kit_drive("file=q,format=qcow2,if=none,discard=unmap%s", c->drive);
}

static void check_all(const struct model_case *c, struct block_backend *be, const uint8_t *expected)
{
    uint8_t *content = xmalloc(c->size);

    assert_int_equal(kit_read(be, 0, content, c->size), 0);
    assert_memory_equal(content, expected, c->size);
    free(content);
}

/* ---- images ------------------------------------------------------------------------------------ */

static void create_image(const struct model_case *c, bool by_ferry)
{
    autofree char *options = xasprintf("size=%llu,%s%s", (unsigned long long)c->size, c->create,
                                       c->base ? ",backing_file=base,backing_fmt=raw" : "");

    if (by_ferry) {
        tools_create("q", options);
    } else {
        qkit_run("qemu-img create -f qcow2 -o %s q", options);
    }
}

static uint64_t compressed_clusters(void)
{
    struct block_check_result result;

    assert_true(ferry_check("q", 0, &result, NULL, NULL));
    return result.compressed_clusters;
}

/* The first half of the image becomes compressed data. */
static void compress_half(const struct model_case *c, bool by_ferry, uint8_t *expected,
                          uint64_t seed)
{
    uint64_t half = align_down(c->size / 2, c->cluster_size);

    qkit_fill_half(expected, half, seed);
    if (by_ferry) {
        assert_int_equal(kit_write_flags(open_image(c), 0, expected, half, BLOCK_REQ_COMPRESSED),
                         0);
        kit_close();
    } else {
        qkit_write_file("half", expected, half);
        qkit_run("qemu-img convert -c -n -f raw -O qcow2 half q");
    }
    assert_int_equal(compressed_clusters(), half / c->cluster_size);
}

static void make_snapshot(bool by_ferry, unsigned round)
{
    if (by_ferry) {
        autofree char *name = xasprintf("s%u", round);
        struct block_backend *be = image_backend("q", true);

        snapshot_op(be, "create", name, NULL);
        image_backend_close(be);
    } else {
        qkit_run("qemu-img snapshot -c s%u q", round);
    }
    qkit_run("cp model model.s%u", round);
}

/* ---- rounds ------------------------------------------------------------------------------------ */

static void check_image(const struct model_case *c, const uint8_t *expected)
{
    qkit_check_clean("q");
    qkit_write_file("model", expected, c->size);
    qkit_run("qemu-img compare -f qcow2 -F raw q model%s",
             strstr(c->create, "data_file_raw") ? " && cmp data.raw model" : "");
}

static unsigned compressed_writes; /* of all loads */

static void run_case(const struct model_case *c, uint64_t seed)
{
    uint8_t *expected = xcalloc(1, c->size);
    bool old_with_base = strstr(c->create, "compat=0.10") && c->base, by_ferry = seed % 2;

    print_message("%s%s%s by %s, %llu bytes, base of %llu%s\n", c->create,
                  c->compressed ? ", compressed" : "", c->snapshots ? ", snapshots" : "",
                  by_ferry ? "ferry" : "qemu-img", (unsigned long long)c->size,
                  (unsigned long long)c->base, c->drive);
    qkit_run("rm -f q base data.raw");
    if (c->base) {
        kit_make_file("base", c->base);
        kit_read_file("base", 0, expected, MIN(c->base, c->size));
    }
    create_image(c, by_ferry);
    if (c->compressed) {
        compress_half(c, by_ferry, expected, seed);
    }
    for (unsigned round = 0; round < 2; round++) {
        struct qkit_load load = {
            .be = open_image(c),
            .expected = expected,
            .size = c->size,
            .cluster_size = c->cluster_size,
            .discards = !old_with_base,
            .compressed = c->compressed,
            .workers = 4,
            .requests = (c->cluster_size < 512 * KiB ? 60 : 30) * qkit_scale(),
            .max_length = MAX(3 * c->cluster_size, 128 * KiB),
            .seed = seed * 1000 + round,
        };
        check_all(c, load.be, expected);
        qkit_run_load(&load);
        /* Of few and long requests a load may have none, if others are always in the way. */
        assert_true(c->compressed || !load.compressed_count);
        compressed_writes += load.compressed_count;
        check_all(c, load.be, expected);
        kit_close();
        check_image(c, expected);
        if (c->snapshots) {
            make_snapshot(by_ferry, round);
        }
        for (unsigned i = 0; c->snapshots && i < round; i++) {
            qkit_run("qemu-img convert -f qcow2 -l s%u -O raw q old && cmp old model.s%u", i, i);
        }
    }
    free(expected);
}

static void random_requests(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        run_case(&cases[i], i + 1);
        if (qkit_scale() > 1) {
            run_case(&cases[i], 1000 + i); /* made by the other */
        }
    }
    assert_true(compressed_writes > 0);
}

/* Each size of clusters and each width of refcounts is in the table. */
static void every_shape(void **state)
{
    uint32_t widths = 0, clusters = 0;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *width = strstr(cases[i].create, "refcount_bits=");
        widths |= width ? (uint32_t)atoi(strchr(width, '=') + 1) : 16;
        clusters |= cases[i].cluster_size;
    }
    assert_int_equal(widths, 127);
    assert_int_equal(clusters, 2 * (2 * MiB) - 512); /* 512 to 2M */
}

/* Each width with each size: without snapshots and with them, which one bit cannot count. Compressed
 * clusters share a cluster of the file, which two bits cannot count with snapshots. */
static void every_width(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(counted); i++) {
        for (unsigned bits = 0; bits <= 6; bits++) {
            autofree char *create =
                xasprintf("cluster_size=%s,refcount_bits=%u", counted[i].name, 1u << bits);
            struct model_case c = {.create = create,
                                   .cluster_size = counted[i].bytes,
                                   .size = counted[i].size,
                                   .drive = ""};
            c.compressed = true;
            c.snapshots = bits >= 2;
            run_case(&c, 2000 + bits);
            c.compressed = false;
            c.snapshots = bits >= 1;
            run_case(&c, 2001 + bits);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape),
        cmocka_unit_test_setup_teardown(random_requests, kit_setup, kit_teardown),
    };
    const struct CMUnitTest long_tests[] = {
        cmocka_unit_test_setup_teardown(every_width, kit_setup, kit_teardown),
    };
    int failed = cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
    if (qkit_scale() > 1) {
        failed += cmocka_run_group_tests(long_tests, kit_enter_directory, kit_leave_directory);
    }
    return failed;
}
