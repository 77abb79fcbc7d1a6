/* SPDX-License-Identifier: MIT */
/* Request ids are unique over threads; tracepoints take up to 8 arguments. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "trace/trace.h"

#define THREADS 4
#define IDS     5000

static void *take(void *opaque)
{
    uint64_t *ids = opaque;
    for (int i = 0; i < IDS; i++)
        ids[i] = trace_request_id();
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void unique_ids(void **state)
{
    static uint64_t ids[THREADS * IDS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take, ids + i * IDS), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);

    qsort(ids, THREADS * IDS, sizeof(*ids), compare);
    assert_true(ids[0] != 0);
    for (int i = 1; i < THREADS * IDS; i++)
        assert_true(ids[i - 1] < ids[i]);
}

static void tracepoints(void **state)
{
    int evaluated = 0;
    TRACE(test_none);
    TRACE(test_one, ++evaluated);
    TRACE(test_eight, 1, 2u, (uint64_t)3, (void *)state, 5, 6, 7, 8);
    assert_int_equal(evaluated, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unique_ids),
        cmocka_unit_test(tracepoints),
    };
    return cmocka_run_group_tests_name("base/trace", tests, NULL, NULL);
}
