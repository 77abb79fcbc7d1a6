/* SPDX-License-Identifier: MIT */
/*
 * Images of which some bytes are other ones: a short walk of what `./dev fuzz qcow2` does for hours,
 * the same every time. Headers, tables, refcounts, snapshots and bitmaps are hit as often as each
 * other, with numbers that mean something where they land.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/format.h"
#include "image_kit.h"
#include "qcow2_try.h"
#include "qkit.h"
#include "tools.h"

#define ROUNDS 250u /* for each image */

static const char *const recipes[] = {
    /* Small clusters: much metadata in few bytes. */
    "qemu-img create -q -f qcow2 -o cluster_size=512 i 256k && qemu-io -c 'write -q 0 40k' i && "
    "qemu-img snapshot -c a i && qemu-io -c 'write -q 8k 8k' -c 'write -q -z 100k 4k' i",
    "qemu-img create -q -f qcow2 -o cluster_size=4k,refcount_bits=1 i 8M && qemu-io -c 'write -q "
    "0 20k' -c 'write -q 5M 4k' i",
    "qemu-img create -q -f qcow2 -o cluster_size=16k,extended_l2=on i 4M && qemu-io -c 'write -q "
    "1k 50k' -c 'write -q -z 2M 3k' i && qemu-img snapshot -c a i && qemu-img snapshot -c b i",
    "qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=1k i 1M && qemu-io -c 'write -q 0 "
    "30k' i && qemu-img snapshot -c old i",
    "qemu-img create -q -f raw r 512k && qemu-io -f raw -c 'write -q -P 3 0 200k' r && qemu-img "
    "convert -c -O qcow2 -o cluster_size=4k r i && qemu-img bitmap --add -g 4k i b && qemu-io -c "
    "'write -q 4k 8k' i",
    "qemu-img create -q -f raw r 512k && qemu-io -f raw -c 'write -q -P 3 0 200k' r && qemu-img "
    "convert -c -O qcow2 -o compression_type=zstd r i",
};

static uint64_t random_state;

static uint64_t below(uint64_t limit)
{
    return kit_random(&random_state) % limit;
}

struct bytes {
    uint8_t *data;
    size_t size;
};

static uint64_t get64(const struct bytes *b, uint64_t offset)
{
    return range_fits(offset, 8, b->size) ? load_be64(b->data + offset) : 0;
}

/* Where to hit: somewhere in a structure, each as likely. */
static uint64_t place(const struct bytes *b)
{
    uint32_t cluster = UINT32_C(1) << (load_be32(b->data + QCOW2_H_CLUSTER_BITS) & 31);
    uint64_t l1 = get64(b, QCOW2_H_L1_OFFSET), reftable = get64(b, QCOW2_H_REFTABLE_OFFSET);
    uint64_t snapshots = get64(b, QCOW2_H_SNAPSHOTS_OFFSET), base = 0, span = cluster;

    switch (below(8)) {
    case 0:
    case 1:
        span = 256;
        break;
    case 2:
        base = l1;
        span = 64;
        break;
    case 3:
        base = get64(b, l1 + 8 * below(4)) & QCOW2_OFFSET_MASK;
        span = MIN(cluster, 512);
        break;
    case 4:
        base = reftable;
        span = 32;
        break;
    case 5:
        base = get64(b, reftable) & QCOW2_OFFSET_MASK;
        span = 64;
        break;
    case 6:
        base = below(2) ? snapshots : get64(b, snapshots) & QCOW2_OFFSET_MASK;
        span = 96;
        break;
    default:
        span = b->size;
    }
    return base + below(span);
}

static uint64_t number(const struct bytes *b, uint64_t old)
{
    switch (below(9)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return old ^ BIT64(below(64));
    case 3:
        return old + 512;
    case 4: /* a cluster of the file */
        return (below(2) ? QCOW2_COPIED : 0) | align_down(below(b->size), 512);
    case 5: /* just behind it */
        return QCOW2_COPIED | align_down(b->size + below(64 * KiB), 512);
    case 6:
        return QCOW2_COMPRESSED | below(BIT64(62));
    case 7:
        return BIT64(below(64)) - 1;
    default:
        return kit_random(&random_state);
    }
}

static void mutate(struct bytes *b)
{
    for (uint64_t n = 1 + below(3); n; n--) {
        uint64_t at = below(4) ? align_down(place(b), 4) : place(b);
        unsigned size = below(3) ? 8 : below(2) ? 4 : 1;
        uint8_t raw[8];
        if (!range_fits(at, 8, b->size)) {
            continue;
        }
        store_be64(raw, number(b, load_be64(b->data + at)));
        memcpy(b->data + at, raw + 8 - size, size);
    }
    if (!below(20)) {
        b->size = MAX(below(b->size), 512); /* cut short */
    }
}

static struct bytes read_whole(const char *name)
{
    struct bytes b = {.size = kit_file_size(name)};

    b.data = xmalloc(b.size);
    kit_read_file(name, 0, b.data, b.size);
    return b;
}

static void mutations(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(recipes); i++) {
        run("rm -f i r && %s", recipes[i]);
        struct bytes seed = read_whole("i");
        random_state = 88172645463325252u + i;
        qcow2_try(seed.data, seed.size, false);
        for (unsigned n = 0; n < ROUNDS * qkit_scale(); n++) {
            struct bytes b = {.data = xmemdup(seed.data, seed.size), .size = seed.size};
            mutate(&b);
            qcow2_try(b.data, b.size, n % 8 == 0);
            free(b.data);
        }
        free(seed.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mutations, kit_setup, kit_teardown),
    };

    if (!tools_have_qemu_img()) {
        puts("needs qemu-img (package qemu-utils)");
        return 77;
    }
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
