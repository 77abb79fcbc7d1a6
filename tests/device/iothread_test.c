/* SPDX-License-Identifier: MIT */
/* The iothread object: its thread runs calls, users keep it, its end stops the thread. */
#include "device_fixture.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "aio/loop.h"
#include "device/iothread.h"

struct user {
    struct device dev;
    struct iothread *iothread;
};

static const struct property user_props[] = {
    PROPERTY_IOTHREAD("iothread", struct user, iothread),
    PROPERTY_END,
};
static const struct device_type user_type = {
    .name = "user", .size = sizeof(struct user), .props = user_props};
static const struct device_type *const types[] = {&user_type, &iothread_type, NULL};

static int setup(void **state)
{
    device_setup(state);
    device_types_set(types);
    return 0;
}

static struct {
    sem_t done;
    int tid;
    struct aio_loop *loop;
    char name[16];
    uint8_t guest_byte;
} seen;

static void look_around(void *opaque)
{
    seen.tid = (int)syscall(SYS_gettid);
    seen.loop = aio_loop_current();
    pthread_getname_np(pthread_self(), seen.name, sizeof(seen.name));
    /* It is registered: it may read guest memory. */
    address_space_read(address_space_memory, 0, &seen.guest_byte, 1);
    sem_post(&seen.done);
}

static void test_runs_calls(void **state)
{
    assert_non_null(add_object("iothread,id=io0,poll-max-ns=1000", NULL));
    struct iothread *io = iothread_find("io0");
    assert_non_null(io);
    assert_null(iothread_find("io1"));

    sem_init(&seen.done, 0, 0);
    aio_call(iothread_loop(io), look_around, NULL);
    sem_wait(&seen.done);
    assert_int_equal(seen.tid, iothread_thread_id(io));
    assert_true(seen.tid != (int)syscall(SYS_gettid));
    assert_ptr_equal(seen.loop, iothread_loop(io));
    assert_string_equal(seen.name, "IO io0");
    assert_int_equal(seen.guest_byte, 0xff);
    assert_true(object_del("io0", NULL));
    assert_null(iothread_find("io0"));
    sem_destroy(&seen.done);
}

static void test_users_keep_it(void **state)
{
    struct error *err = NULL;

    assert_non_null(add_object("iothread,id=io0", NULL));
    assert_non_null(add_object("iothread,id=io1", NULL));
    struct user *u = (struct user *)add("user,iothread=io0", NULL);
    assert_ptr_equal(u->iothread, iothread_find("io0"));
    char *text = device_get(&u->dev, "iothread");
    assert_string_equal(text, "io0");
    free(text);
    assert_false(object_del("io0", &err));
    ASSERT_ERROR(err, "object 'io0' is in use, can not be deleted");
    device_free(&u->dev);
    assert_true(object_del("io0", NULL));

    /* A property set twice lets go of the first. */
    assert_non_null(add_object("iothread,id=io0", NULL));
    struct device *dev = device_new(&user_type);
    assert_true(device_set(dev, "iothread", "io0", NULL));
    assert_true(device_set(dev, "iothread", "io0", NULL));
    assert_true(device_set(dev, "iothread", "io1", NULL));
    assert_true(object_del("io0", NULL));
    assert_false(object_del("io1", &err));
    error_free(err);
    device_free(dev);
    assert_true(object_del("io1", NULL));
}

static void test_properties(void **state)
{
    struct error *err = NULL;

    struct device *dev = add_object("iothread,id=io0", NULL);
    char *text = device_get(dev, "poll-max-ns");
    assert_string_equal(text, "32768");
    free(text);
    assert_true(object_del("io0", NULL));

    assert_null(add_object("iothread,id=io0,poll-max-ns=9223372036854775808", &err));
    ASSERT_ERROR(err, "Property iothread.poll-max-ns doesn't take value 9223372036854775808 "
                      "(minimum: 0, maximum: 9223372036854775807)");
    assert_null(add_object("iothread,id=io0,poll-max=5", &err));
    ASSERT_ERROR_HINT(err, "Property 'iothread.poll-max' not found", "");
    assert_null(add("user,iothread=io9", &err));
    ASSERT_ERROR_HINT(err, "Device 'io9' not found", "-object iothread,id=io9");
}

/* As QEMU's. */
static void test_pool_properties(void **state)
{
    static const struct {
        const char *options, *message;
    } cases[] = {
        {"aio-max-batch=9223372036854775808",
         "Property iothread.aio-max-batch doesn't take value 9223372036854775808 (minimum: 0, "
         "maximum: 9223372036854775807)"},
        {"aio-max-batch=-1", "Parameter 'aio-max-batch' expects integer"},
        {"thread-pool-max=0", "bad thread-pool-min/thread-pool-max values"},
        {"thread-pool-min=65", "bad thread-pool-min/thread-pool-max values"},
        {"thread-pool-max=2147483648", "bad thread-pool-min/thread-pool-max values"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[128];
        struct error *err = NULL;
        snprintf(text, sizeof(text), "iothread,id=io0,%s", cases[i].options);
        assert_null(add_object(text, &err));
        ASSERT_ERROR(err, cases[i].message);
    }
    assert_non_null(add_object("iothread,id=io0,aio-max-batch=0,thread-pool-min=0,"
                               "thread-pool-max=64",
                               NULL));
    assert_true(object_del("io0", NULL));
    assert_non_null(add_object("iothread,id=io0,aio-max-batch=3,thread-pool-min=2,"
                               "thread-pool-max=2",
                               NULL));
    assert_non_null(add_object("iothread,id=io1,thread-pool-max=2147483647", NULL));
    assert_true(object_del("io0", NULL));
    assert_true(object_del("io1", NULL));
}

static _Atomic(unsigned) calls;

static void count(void *opaque)
{
    atomic_fetch_add(&calls, 1);
}

/* Threads come and go while they are busy; each call that was made before has run. */
static void test_many_lives(void **state)
{
    for (unsigned i = 0; i < 30; i++) {
        sem_init(&seen.done, 0, 0);
        calls = 0;
        assert_non_null(add_object("iothread,id=io0", NULL));
        struct aio_loop *loop = iothread_loop(iothread_find("io0"));
        for (unsigned k = 0; k < 20; k++) {
            aio_call(loop, count, NULL);
        }
        aio_call(loop, look_around, NULL);
        sem_wait(&seen.done);
        assert_int_equal(calls, 20);
        assert_true(object_del("io0", NULL));
        sem_destroy(&seen.done);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_calls), cmocka_unit_test(test_users_keep_it),
        cmocka_unit_test(test_properties), cmocka_unit_test(test_pool_properties),
        cmocka_unit_test(test_many_lives),
    };

    return cmocka_run_group_tests(tests, setup, device_teardown);
}
