/* SPDX-License-Identifier: MIT */
/*
 * Random requests from two loops beside an array, on images of every shape; then qemu-img finds
 * neither errors nor leaks, and sees what the array has. FERRY_TEST_LONG=N makes it N times as long.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "qkit.h"

static struct model_case {
    const char *create; /* options of qemu-img create */
    uint32_t cluster_size;
    uint64_t size;
    uint64_t base; /* bytes of a backing file, or 0 */
    const char *drive;
    bool compressed; /* the image begins with random data, compressed */
    bool snapshots;  /* one is made after each round */
} cases[] = {
    {"cluster_size=512", 512, 2 * MiB + 1536, 0, ""},
    {"cluster_size=512,refcount_bits=64", 512, 4 * MiB, 0, ""},
    {"cluster_size=512,refcount_bits=1", 512, MiB, MiB, ""},
    {"cluster_size=1k,refcount_bits=2", 1024, 2 * MiB, 3 * MiB, ""},
    {"cluster_size=4k,refcount_bits=4", 4096, 8 * MiB, 0,
     ",l2-cache-size=8k,refcount-cache-size=8k"},
    {"cluster_size=4k,refcount_bits=8,lazy_refcounts=on", 4096, 8 * MiB, 5 * MiB + 512, ""},
    {"cluster_size=64k", 65536, 16 * MiB, 0, ""},
    {"cluster_size=64k", 65536, 16 * MiB, 16 * MiB, ",cache=none"},
    {"cluster_size=64k", 65536, 16 * MiB, 7 * MiB + 512, ",cache=writethrough"},
    {"cluster_size=64k,refcount_bits=32,lazy_refcounts=on", 65536, 16 * MiB, 0, ",cache=unsafe"},
    {"cluster_size=2M", 2 * MiB, 32 * MiB, 0, ""},
    {"cluster_size=2M", 2 * MiB, 32 * MiB, 20 * MiB, ",l2-cache-entry-size=512"},
    {"compat=0.10", 65536, 16 * MiB, 0, ""},
    {"compat=0.10,cluster_size=4k", 4096, 8 * MiB, 6 * MiB, ""},
    {"extended_l2=on", 65536, 16 * MiB, 0, ""},
    {"extended_l2=on,cluster_size=16k", 16384, 8 * MiB, 9 * MiB, ""},
    {"extended_l2=on,cluster_size=2M", 2 * MiB, 32 * MiB, 10 * MiB, ""},
    {"extended_l2=on,cluster_size=128k,preallocation=metadata", 128 * 1024, 16 * MiB, 0, ""},
    {"cluster_size=64k,preallocation=falloc", 65536, 8 * MiB, 0, ""},
    {"cluster_size=64k,data_file=data.raw", 65536, 8 * MiB, 0, ""},
    {"cluster_size=64k,data_file=data.raw", 65536, 8 * MiB, 8 * MiB, ""},
    {"cluster_size=4k,data_file=data.raw,data_file_raw=on", 4096, 8 * MiB, 0, ""},
    {"cluster_size=64k", 65536, 8 * MiB, 0, "", .compressed = true, .snapshots = true},
    {"cluster_size=4k,compression_type=zstd", 4096, 4 * MiB, 0, "", .compressed = true},
    {"cluster_size=32k,extended_l2=on", 32768, 8 * MiB, 0, "", .compressed = true,
     .snapshots = true},
    {"cluster_size=4k,extended_l2=off", 4096, 4 * MiB, 3 * MiB, "", .snapshots = true},
    {"cluster_size=512,refcount_bits=2", 512, MiB, MiB, "", .snapshots = true},
    {"compat=0.10,cluster_size=4k", 4096, 4 * MiB, 0, "", .snapshots = true},
    {"cluster_size=512,lazy_refcounts=on", 512, MiB, 0, "", .compressed = true, .snapshots = true},
};

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

static void run_case(const struct model_case *c, uint64_t seed)
{
    uint8_t *expected = xcalloc(1, c->size);
    bool old_with_base = strstr(c->create, "compat=0.10") && c->base;

    print_message("%s, %llu bytes, base of %llu%s\n", c->create, (unsigned long long)c->size,
                  (unsigned long long)c->base, c->drive);
    qkit_run("rm -f q base data.raw");
    if (c->base) {
        kit_make_file("base", c->base);
        kit_read_file("base", 0, expected, MIN(c->base, c->size));
    }
    qkit_run("qemu-img create -f qcow2 -o %s %s q %llu", c->create, c->base ? "-b base -F raw" : "",
             (unsigned long long)c->size);
    for (unsigned round = 0; round < 2; round++) {
        struct qkit_load load = {
            .be = open_image(c),
            .expected = expected,
            .size = c->size,
            .cluster_size = c->cluster_size,
            .discards = !old_with_base,
            .workers = 4,
            .requests = 60 * qkit_scale(),
            .max_length = MAX(3 * c->cluster_size, 128 * KiB),
            .seed = seed * 1000 + round,
        };
        check_all(c, load.be, expected);
        qkit_run_load(&load);
        check_all(c, load.be, expected);
        kit_close();
        qkit_check_clean("q");
        qkit_write_file("model", expected, c->size);
        qkit_run("qemu-img compare -f qcow2 -F raw q model");
        if (c->snapshots) {
            qkit_run("qemu-img snapshot -c s%u q && cp model model.s%u", round, round);
        }
        for (unsigned i = 0; c->snapshots && i < round; i++) {
            qkit_run("qemu-img convert -f qcow2 -l s%u -O raw q old && cmp old model.s%u", i, i);
        }
        if (strstr(c->create, "data_file_raw")) {
            qkit_run("cmp data.raw model");
        }
    }
    free(expected);
}

static void random_requests(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        run_case(&cases[i], i + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_requests, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
