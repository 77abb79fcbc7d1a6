/* SPDX-License-Identifier: MIT */
/* VM state handlers that are removed while the change is told. */
#include <errno.h>

#include "device_fixture.h"

#include "device/system.h"

static struct vm_state_handler handlers[4];
static unsigned called[4];
static int remove_in[4]; /* index to remove when called, or -1 */

static void on_change(void *opaque, bool running)
{
    size_t i = (size_t)(uintptr_t)opaque;

    called[i]++;
    assert_int_equal(system_vm_running(), running);
    if (remove_in[i] >= 0) {
        system_remove_vm_state_handler(&handlers[remove_in[i]]);
        memset(&handlers[remove_in[i]], 0xee, sizeof(handlers[0]));
        remove_in[i] = -1;
    }
}

static void add_all(void)
{
    for (size_t i = 4; i-- > 0;) {
        handlers[i] = (struct vm_state_handler){.changed = on_change, .opaque = (void *)i};
        system_add_vm_state_handler(&handlers[i]);
        called[i] = 0;
        remove_in[i] = -1;
    }
}

static void remove_but(int gone)
{
    for (int i = 0; i < 4; i++) {
        if (i != gone) {
            system_remove_vm_state_handler(&handlers[i]);
        }
    }
}

/* Handlers run from 0 to 3. */
static void test_removal(void **state)
{
    for (int remover = 0; remover < 4; remover++) {
        for (int victim = 0; victim < 4; victim++) {
            add_all();
            remove_in[remover] = victim;
            system_vm_state_changed(false);
            assert_false(system_vm_running());
            for (int i = 0; i < 4; i++) {
                assert_int_equal(called[i], i != victim || victim <= remover);
            }
            system_vm_state_changed(true);
            for (int i = 0; i < 4; i++) {
                assert_int_equal(called[i], (i != victim) * 2 + (i == victim && i <= remover));
            }
            remove_but(victim);
        }
    }
    memset(called, 0, sizeof(called));
    system_vm_state_changed(true);
    assert_int_equal(called[0] + called[1] + called[2] + called[3], 0);
}

/* Without handlers of vmm, requests go nowhere. */
static void test_no_handlers(void **state)
{
    system_set_handlers(NULL);
    system_shutdown_request(SYSTEM_CAUSE_GUEST_SHUTDOWN);
    system_exit_request(3);
    system_reset_request(SYSTEM_CAUSE_GUEST_RESET);
    system_guest_panicked(NULL);
    system_internal_error(0);
    system_debug_stop(0);
    system_io_error(&(struct system_io_error){.who = "d", .drive = "d", .node = "n", .error = EIO});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_removal),
        cmocka_unit_test(test_no_handlers),
    };

    return cmocka_run_group_tests(tests, device_setup, device_teardown);
}
