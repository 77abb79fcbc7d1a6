/* SPDX-License-Identifier: MIT */
/* Requests with many parts where there are as many coroutines as there may be: one part at a time. */
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "qkit.h"
#include "tools.h"

#define CLUSTER  65536u
#define CLUSTERS 16u
#define SIZE     (CLUSTERS * CLUSTER)
#define DELAY_MS 20

/* Clusters that lie in the file the wrong way round, every other one in the backing file. */
static void make_images(void)
{
    uint8_t *data = xmalloc(SIZE);

    for (uint64_t i = 0; i < SIZE; i++) {
        data[i] = kit_pattern(i);
    }
    tools_create("base", "size=1M");
    tools_create("over", "size=1M,backing_file=base,backing_fmt=qcow2");
    for (unsigned odd = 0; odd < 2; odd++) {
        struct block_backend *be =
            kit_drive("if=none,id=d,format=qcow2,file=%s", odd ? "over" : "base");
        for (unsigned i = CLUSTERS; i-- > 0;) {
            if (i % 2 == odd) {
                assert_int_equal(kit_write(be, i * CLUSTER, data + i * CLUSTER, CLUSTER), 0);
            }
        }
        kit_close();
    }
    free(data);
}

static int64_t read_ms(struct block_backend *be)
{
    uint8_t *data = xmalloc(SIZE);

    int64_t begin = clock_get_ns(AIO_CLOCK_RT);
    assert_int_equal(kit_read(be, 0, data, SIZE), 0);
    int64_t ms = (clock_get_ns(AIO_CLOCK_RT) - begin) / NS_PER_MS;
    for (uint64_t i = 0; i < SIZE; i++) {
        assert_int_equal(data[i], kit_pattern(i));
    }
    free(data);
    return ms;
}

static void test_one_part_at_a_time(void **state)
{
    uint8_t *data = xmalloc(SIZE);

    make_images();
    struct block_backend *be = kit_drive(
        "if=none,id=d,driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
        "file.image.filename=over,file.inject-error.0.event=read_aio,file.inject-error.0.errno=0,"
        "file.inject-error.0.delay=%lld",
        (long long)(DELAY_MS * NS_PER_MS));
    read_ms(be);
    coroutine_set_plenty(1);
    /* As many delays as there are clusters in this file. */
    assert_true(read_ms(be) >= (int64_t)CLUSTERS / 2 * DELAY_MS);
    memset(data, 0x5a, SIZE);
    assert_int_equal(kit_write(be, 0, data, SIZE), 0);
    coroutine_set_plenty(0);
    kit_close();
    qkit_check_clean("over");
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_part_at_a_time, kit_setup, kit_teardown),
    };
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
