/* SPDX-License-Identifier: MIT */
/* The command line: what is taken, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/range.h"
#include "vmm/cmdline.h"
#include "vmm/configure.h"

static enum cmdline_result parse(struct cmdline *cmdline, struct error **errp, const char *a,
                                 const char *b, const char *c, const char *d)
{
    char *argv[] = {(char *)"ferry", (char *)a, (char *)b, (char *)c, (char *)d, NULL};
    int argc = 1;

    while (argv[argc]) {
        argc++;
    }
    return cmdline_parse(cmdline, argc, argv, errp);
}

/* The texts of an option that is given once, or several times. */
#define TEXTS(...)                                                                                 \
    ((struct text_list){.text = (const char *[]){__VA_ARGS__},                                     \
                        .count = sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *)})
#define TEXT(t) TEXTS(t)

static void expect_error(struct error *err, const char *text)
{
    assert_non_null(err);
    if (!strstr(error_message(err), text)) {
        fail_msg("'%s' lacks '%s'", error_message(err), text);
    }
    error_free(err);
}

static void test_takes_options(void **state)
{
    struct cmdline c;

    assert_int_equal(parse(&c, NULL, "-m", "512", "--S", "-nographic"), CMDLINE_RUN);
    assert_int_equal(c.memory.count, 1);
    assert_string_equal(c.memory.text[0], "512");
    assert_true(c.stopped);
    assert_true(c.nographic);
    cmdline_free(&c);
    assert_int_equal(parse(&c, NULL, "-device", "a", "-device", "b"), CMDLINE_RUN);
    assert_int_equal(c.device.count, 2);
    assert_string_equal(c.device.text[1], "b");
    cmdline_free(&c);
    assert_int_equal(parse(&c, NULL, "-display", "none", "-M", "q35"), CMDLINE_RUN);
    assert_int_equal(c.machine.count, 1);
    cmdline_free(&c);
}

static void test_refuses_by_name(void **state)
{
    static const struct {
        const char *a, *b, *error;
    } cases[] = {
        {"-kernal", "x", "-kernal: invalid option; did you mean '-kernel'?"},
        {"-zzzzzzzzzzz", NULL, "-zzzzzzzzzzz: invalid option"},
        {"disk.img", NULL, "'disk.img' is no option; give a disk image as -drive file=disk.img"},
        {"-m", NULL, "-m: requires an argument"},
        {"-display", "gtk", "-display gtk: this build has only '-display none'"},
        {"-vga", "std", "this build has only '-vga none'"},
        {"-hda", "x", "IDE disks are not in this build"},
        {"-hdc", "x", "-hdc: IDE disks are not in this build"},
        {"-set", "drive.d.file=x", "-set: give the property to the -device"},
        {"-usbdevice", "tablet", "-usbdevice: USB is not in this build"},
        {"-", NULL, "'-' is no option"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct cmdline c;
        struct error *err = NULL;

        assert_int_equal(parse(&c, &err, cases[i].a, cases[i].b, NULL, NULL), CMDLINE_ERROR);
        expect_error(err, cases[i].error);
        cmdline_free(&c);
    }
}

static void test_memory(void **state)
{
    static const struct {
        const char *text;
        uint64_t size;
        const char *error;
    } cases[] = {
        {"512", 512 * MiB, NULL},
        {"5G", 5 * GiB, NULL},
        {"size=64k", 64 * KiB, NULL},
        {"1M", MiB, NULL},
        {"0", 0, "-m 0: the guest needs some RAM"},
        {"x", 0, "-m: "},
        {"-1", 0, "-m: "},
        {"99999999999999999999", 0, "-m: "},
        {"512,slots=2,maxmem=4G", 0, "memory hot-plug"},
        {"512,sixe=3", 0, "sixe"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct machine *machine = machine_new(machine_types[0]);
        struct error *err = NULL;
        bool ok = config_memory(machine, &TEXT(cases[i].text), &err);

        if (cases[i].error) {
            assert_false(ok);
            expect_error(err, cases[i].error);
        } else {
            assert_true(ok);
            assert_int_equal(machine->ram_size, cases[i].size);
        }
        machine_free(machine);
    }
}

static void test_smp(void **state)
{
    static const struct {
        const char *text;
        unsigned cpus, sockets, cores, threads;
        const char *error;
    } cases[] = {
        {"4", 4, 1, 4, 1, NULL},
        {"4,sockets=2", 4, 2, 2, 1, NULL},
        {"cpus=8,cores=2,threads=2", 8, 2, 2, 2, NULL},
        {"sockets=2,cores=3", 6, 2, 3, 1, NULL},
        {"0", 0, 0, 0, 0, "must be greater than zero"},
        {"99999", 0, 0, 0, 0, "-smp: "},
        {"4096", 0, 0, 0, 0, "The max CPUs supported by machine"},
        {"4,dies=1,clusters=1", 4, 1, 4, 1, NULL},
        {"4,clusters=2", 0, 0, 0, 0, "clusters not supported"},
        {"3,sockets=2", 0, 0, 0, 0, "Invalid CPU topology"},
        {"2,maxcpus=4", 0, 0, 0, 0, "hot-plug"},
        {"4,maxcpus=2", 0, 0, 0, 0, "-smp: "},
        {"2,kores=2", 0, 0, 0, 0, "kores"},
        {"sockets=65535,cores=65535,threads=65535,dies=65535", 0, 0, 0, 0, "-smp: "},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct machine *machine = machine_new(machine_types[0]);
        struct error *err = NULL;
        bool ok = config_smp(machine, &TEXT(cases[i].text), &err);

        if (cases[i].error) {
            assert_false(ok);
            expect_error(err, cases[i].error);
        } else {
            assert_true(ok);
            assert_int_equal(machine->smp.cpus, cases[i].cpus);
            assert_int_equal(machine->smp.sockets, cases[i].sockets);
            assert_int_equal(machine->smp.cores, cases[i].cores);
            assert_int_equal(machine->smp.threads, cases[i].threads);
        }
        machine_free(machine);
    }
}

/* Keys of several lists are those of one; the last of a key counts. */
static void test_merge(void **state)
{
    struct machine *machine = machine_new(machine_types[0]);
    struct error *err = NULL;
    char *name;

    assert_true(config_smp(machine, &TEXTS("4", "sockets=2"), NULL));
    assert_int_equal(machine->smp.cpus, 4);
    assert_int_equal(machine->smp.sockets, 2);
    assert_true(config_smp(machine, &TEXTS("4,sockets=4", "8,sockets=2", "threads=2"), NULL));
    assert_int_equal(machine->smp.cpus, 8);
    assert_int_equal(machine->smp.sockets, 2);
    assert_int_equal(machine->smp.threads, 2);
    assert_false(config_smp(machine, &TEXTS("2", "nokores", "sockets=2"), &err));
    expect_error(err, "'nokores'");
    err = NULL;
    assert_false(config_smp(machine, &TEXTS("2", "=3"), &err));
    expect_error(err, "-smp: ");
    assert_true(config_memory(machine, &TEXTS("1G", "size=64", "256"), NULL));
    assert_int_equal(machine->ram_size, 256 * MiB);
    assert_true(config_rtc(machine, &TEXTS("base=2001-02-03", "clock=vm"), NULL));
    assert_string_equal(machine->rtc_base, "2001-02-03");
    assert_string_equal(machine->rtc_clock, "vm");
    assert_true(config_name(&TEXTS("foo", "debug-threads=on"), &name, NULL));
    assert_string_equal(name, "foo");
    free(name);
    machine_free(machine);
}

static void test_accepted_or_refused(void **state)
{
    static bool (*const functions[])(const struct text_list *list, struct error **errp) = {
        config_boot,
        config_overcommit,
    };
    static const struct {
        unsigned function;
        const char *first, *second, *error;
    } cases[] = {
        {0, "strict=on", "menu=off", NULL},
        {0, "order=c", "menu=off", "-boot order=c: there is no fw_cfg"},
        {0, "strict=on", "dc", "-boot order=dc: there is no fw_cfg"},
        {0, "menu=on", "strict=on", "-boot menu=on: there is no fw_cfg"},
        {0, "strict=on", "strct=on", "did you mean 'strict'?"},
        {1, "mem-lock=off", "cpu-pm=off", NULL},
        {1, "mem-lock=on", "mem-lock=off", "-overcommit: mem-lock=on is not in this build"},
        {1, "mem-lock=off", "cpu-pm=on", "-overcommit: cpu-pm=on is not in this build"},
        {1, "mem-lock=off", "cpu-mp=off", "did you mean 'cpu-pm'?"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error *err = NULL;
        bool ok = functions[cases[i].function](&TEXTS(cases[i].first, cases[i].second), &err);

        assert_int_equal(ok, !cases[i].error);
        if (cases[i].error) {
            expect_error(err, cases[i].error);
        }
    }
}

static void test_uuid(void **state)
{
    static const char *const wrong[] = {
        "",
        "x",
        "01234567-89ab-cdef-0123-456789abcde",
        "01234567-89ab-cdef-0123-456789abcdef0",
        "01234567089ab-cdef-0123-456789abcdef",
        "01234567-89ab-cdeg-0123-456789abcdef",
    };
    char *uuid;

    assert_true(config_uuid(NULL, &uuid, NULL));
    assert_null(uuid);
    assert_true(config_uuid("01234567-89aB-CDEF-0123-456789abcdef", &uuid, NULL));
    assert_string_equal(uuid, "01234567-89ab-cdef-0123-456789abcdef");
    free(uuid);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct error *err = NULL;

        assert_false(config_uuid(wrong[i], &uuid, &err));
        assert_null(uuid);
        expect_error(err, "hexadecimal digits");
    }
}

static void test_machine(void **state)
{
    static const struct {
        const char *text, *type, *error;
    } cases[] = {
        {"q35", "pc-q35-7.2", NULL},
        {"pc,accel=kvm:tcg,kernel-irqchip=split", "pc-i440fx-7.2", NULL},
        {"type=q35,acpi=off,hpet=off", "pc-q35-7.2", NULL},
        {"q53", NULL, "unsupported machine type 'q53'; did you mean 'q35'?"},
        {"q35,hpet=on", NULL, "this build has only hpet=off"},
        {"q35,apci=off", NULL,
         "Property 'pc-q35-7.2-machine.apci' not found; did you mean 'acpi'?"},
        {"q35,acpi=maybe", NULL, "needs 'on', 'off' or 'auto'"},
        {"q35,pit=maybe", NULL, "needs 'on' or 'off'"},
        {"q35,max-ram-below-4g=3", NULL, "needs a size"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct cmdline c;
        struct error *err = NULL;
        struct machine *machine;

        assert_int_equal(parse(&c, NULL, "-machine", cases[i].text, NULL, NULL), CMDLINE_RUN);
        machine = config_machine(&c, &err);
        if (cases[i].error) {
            assert_null(machine);
            expect_error(err, cases[i].error);
        } else {
            assert_non_null(machine);
            assert_string_equal(machine->type->name, cases[i].type);
            machine_free(machine);
        }
        cmdline_free(&c);
    }
}

/* Short options count as what they stand for, in their place. */
static void test_shorts(void **state)
{
    char *argv[] = {(char *)"ferry",   (char *)"-M",          (char *)"q35,accel=tcg,kernel=k0",
                    (char *)"-kernel", (char *)"a,b",         (char *)"-enable-kvm",
                    (char *)"-append", (char *)"x,,y",        (char *)"-M",
                    (char *)"acpi=on", (char *)"-no-acpi",    (char *)"-initrd",
                    (char *)"i",       (char *)"-bios",       (char *)"b",
                    (char *)"-M",      (char *)"initrd=last", NULL};
    struct machine *machine;
    struct cmdline c;

    assert_int_equal(cmdline_parse(&c, ARRAY_SIZE(argv) - 1, argv, NULL), CMDLINE_RUN);
    machine = config_machine(&c, NULL);
    assert_non_null(machine);
    assert_string_equal(machine->accel, "kvm");
    assert_string_equal(machine->kernel, "a,b");
    assert_string_equal(machine->append, "x,,y");
    assert_string_equal(machine->initrd, "last");
    assert_string_equal(machine->bios, "b");
    assert_false(machine->acpi);
    machine_free(machine);
    cmdline_free(&c);

    parse(&c, NULL, "-no-acpi", "-M", "acpi=auto", NULL);
    machine = config_machine(&c, NULL);
    assert_true(machine->acpi);
    machine_free(machine);
    cmdline_free(&c);
}

static void test_actions(void **state)
{
    struct lifecycle_actions actions;
    struct error *err = NULL;
    struct cmdline c;

    parse(&c, NULL, "-no-reboot", "-action", "panic=exit-failure,shutdown=pause", NULL);
    assert_true(config_actions(&c, &actions, NULL));
    assert_int_equal(actions.reboot, REBOOT_SHUTDOWN);
    assert_int_equal(actions.shutdown, SHUTDOWN_PAUSE);
    assert_int_equal(actions.panic, PANIC_EXIT_FAILURE);
    cmdline_free(&c);
    parse(&c, NULL, "-no-reboot", "-action", "reboot=none", NULL);
    assert_true(config_actions(&c, &actions, NULL));
    assert_int_equal(actions.reboot, REBOOT_NONE);
    cmdline_free(&c);
    parse(&c, NULL, "-action", "reboot=none", "-no-reboot", NULL);
    assert_true(config_actions(&c, &actions, NULL));
    assert_int_equal(actions.reboot, REBOOT_SHUTDOWN);
    cmdline_free(&c);
    parse(&c, NULL, "-action", "panic=explode", NULL, NULL);
    assert_false(config_actions(&c, &actions, &err));
    expect_error(err, "-action: ");
    cmdline_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_options), cmocka_unit_test(test_refuses_by_name),
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_smp),
        cmocka_unit_test(test_machine),       cmocka_unit_test(test_actions),
        cmocka_unit_test(test_shorts),        cmocka_unit_test(test_accepted_or_refused),
        cmocka_unit_test(test_uuid),          cmocka_unit_test(test_merge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
