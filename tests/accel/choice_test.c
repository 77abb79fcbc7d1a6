/* SPDX-License-Identifier: MIT */
/* -accel: names, order of preference, options; on the engine that every host has, qtest. */
#include "accel_fixture.h"

struct attempt {
    const char *entries[4];
    size_t count;
    const char *irqchip;
    struct accel *accel;
    struct error *err;
};

static void try_init(void *opaque)
{
    struct attempt *a = opaque;
    a->accel = accel_init(a->entries, a->count, a->irqchip, 1, &a->err);
}

static struct attempt attempt(const char *first, const char *second, const char *irqchip)
{
    return (struct attempt){.entries = {first, second},
                            .count = (first != NULL) + (second != NULL),
                            .irqchip = irqchip};
}

/* Must fail, and leave it to the caller to say so. */
static void assert_refused(struct attempt a, const char *message)
{
    autofree char *text = capture_stderr(try_init, &a);

    assert_null(a.accel);
    assert_null(accel_current());
    assert_string_equal(text, "");
    assert_contains(take_error(&a.err), message);
}

static void test_unknown(void **unused)
{
    assert_refused(attempt("kvmm", NULL, NULL),
                   "-accel kvmm: invalid accelerator; did you mean 'kvm'?");
    assert_refused(attempt("nothing-like-it", NULL, NULL),
                   "-accel nothing-like-it: invalid accelerator");
    assert_refused(attempt("", NULL, NULL), "needs the name of an accelerator");
}

static void test_absent(void **unused)
{
    assert_refused(attempt("xen", NULL, NULL), "-accel xen: Xen is not in this build");
}

static void test_options(void **unused)
{
    assert_refused(attempt("qtest,speed=11", NULL, NULL), "-accel qtest: unknown option 'speed'");
    assert_refused(attempt("qtest,force=on", NULL, NULL), "unknown option 'force'");
    assert_refused(attempt("kvm,kernel-irqchp=off", NULL, NULL), "did you mean 'kernel-irqchip'?");
    assert_refused(attempt("kvm,kernel-irqchip=maybe", NULL, NULL),
                   "-accel kvm,kernel-irqchip=maybe: needs 'on', 'off' or 'split'");
    assert_refused(attempt("kvm,force=7", NULL, NULL), "-accel kvm: ");
    assert_refused(
        attempt("qtest,kernel-irqchip=on", NULL, NULL),
        "-accel qtest,kernel-irqchip=on: the accelerator 'qtest' has no interrupt chips");
    assert_refused(attempt("tcg,kernel-irqchip=split", NULL, NULL),
                   "-accel tcg,kernel-irqchip=split: the accelerator 'tcg' has no interrupt chips");
    assert_refused(attempt("tcg,thread=single", NULL, NULL), "-accel tcg: thread=single");
    assert_refused(attempt("soft,tb-size=0", NULL, NULL), "-accel soft: ");
    assert_refused(attempt("qtest", NULL, "nonsense"), "needs 'on', 'off' or 'split'");
}

/* What is unknown does not keep another from being used, but is told. */
static void test_unknown_beside_known(void **unused)
{
    struct attempt first = attempt("kvmm", "qtest", NULL), last = attempt("qtest", "kvmm", NULL);
    autofree char *text = capture_stderr(try_init, &first);
    autofree char *later = NULL;

    assert_non_null(first.accel);
    assert_contains(text, "warning: -accel kvmm: invalid accelerator; did you mean 'kvm'?");
    assert_contains(text, "using the accelerator 'qtest'");
    accel_cleanup();
    later = capture_stderr(try_init, &last);
    assert_non_null(last.accel);
    assert_string_equal(later, "ferry: warning: -accel kvmm: invalid accelerator; did you mean "
                               "'kvm'?\n");
    accel_cleanup();
}

/* The first that works; those before it are told about. */
static void test_fallback(void **unused)
{
    struct attempt a = attempt("xen", "qtest", "on");
    autofree char *text = capture_stderr(try_init, &a);

    assert_non_null(a.accel);
    assert_ptr_equal(accel_current(), a.accel);
    assert_string_equal(a.accel->ops->name, "qtest");
    assert_int_equal(a.accel->irqchip, IRQCHIP_OFF);
    assert_false(accel_has_irqfd());
    assert_contains(text, "warning: -accel xen: Xen is not in this build");
    assert_contains(text, "-machine kernel-irqchip=on has no effect: the accelerator 'qtest'");
    assert_contains(text, "using the accelerator 'qtest'");
    accel_cleanup();
    assert_null(accel_current());
}

static void test_qtest(void **unused)
{
    struct attempt a = attempt("qtest", NULL, "off");
    struct msi_message interrupt = {.address = 0xfee00000, .data = 0x41};
    struct msi_message memory = {.address = 0x3000, .data = 0x12345678};
    autofree char *text = capture_stderr(try_init, &a);

    assert_non_null(a.accel);
    assert_string_equal(text, "");
    assert_false(a.accel->ops->has_vcpus);
    assert_int_equal(vcpu_count(), 0);
    /* An interrupt goes nowhere; a message to memory is a write (libqos waits for it). */
    accel_msi_send(&interrupt);
    accel_msi_send(&memory);
    assert_int_equal(load_le32(ram_at(0x3000)), 0x12345678);
    accel_set_extint(1); /* no vCPU: nothing happens */
    accel_cleanup();
}

static void test_help(void **unused)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    accel_print_engines(to);
    fclose(to);
    assert_string_equal(text, "Accelerators supported in QEMU binary:\nkvm\ntcg\nqtest\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown),  cmocka_unit_test(test_unknown_beside_known),
        cmocka_unit_test(test_absent),   cmocka_unit_test(test_options),
        cmocka_unit_test(test_fallback), cmocka_unit_test(test_qtest),
        cmocka_unit_test(test_help),
    };

    return cmocka_run_group_tests(tests, accel_group_setup, accel_group_teardown);
}
