/* SPDX-License-Identifier: MIT */
/* CPU models on an engine whose processor is made up: what -cpu's text makes of it. */
#include "accel_fixture.h"

#include "accel/cpu_feature.h"
#include "accel/cpu_model.h"

/* ---- the engine: everything, or less --------------------------------------------------------- */

static struct {
    bool amd;
    uint32_t without[CPU_WORD_COUNT];
    uint32_t tsc_khz;
    unsigned phys_bits;
} host;

static bool fake_cpuid(struct accel *accel, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    const char *vendor = host.amd ? "AuthenticAMD" : "GenuineIntel";
    bool known = false;

    memset(regs, 0, 16);
    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        const struct cpu_word_info *info = &cpu_words[w];
        if (w != CPU_WORD_HYPERV && info->leaf == leaf && info->subleaf == subleaf) {
            regs[info->reg] = ~host.without[w];
            known = true;
        }
    }
    switch (leaf) {
    case 0:
        regs[0] = 0x1f;
        regs[1] = load_le32(vendor);
        regs[3] = load_le32(vendor + 4);
        regs[2] = load_le32(vendor + 8);
        return true;
    case 1:
        regs[0] = 0x00050657;
        return true;
    case 0xd:
        if (subleaf == 0) {
            regs[0] = 0xe7;
            regs[0] |= 1 << 9;
            return true;
        }
        switch (subleaf) {
        case 2:
            regs[0] = 256;
            regs[1] = 576;
            return true;
        case 5:
        case 6:
        case 7:
            regs[0] = 512;
            regs[1] = 1088 + 512 * (subleaf - 5);
            return true;
        case 9:
            regs[0] = 8;
            regs[1] = 2688;
            return true;
        }
        return known;
    case 0x40000003:
        regs[0] = BIT(7);
        regs[3] = BIT(10);
        return true;
    case 0x80000008:
        regs[0] = host.phys_bits;
        return true;
    case CPUID_LEAF_TSC_KHZ:
        regs[0] = host.tsc_khz;
        regs[1] = 1000000;
        return host.tsc_khz != 0;
    }
    return known;
}

static const struct accel_ops ops = {.name = "fake", .supported_cpuid = fake_cpuid};
static struct accel accel = {.ops = &ops};

static int setup(void **state)
{
    memset(&host, 0, sizeof(host));
    host.phys_bits = 46;
    host.tsc_khz = 2500000;
    return 0;
}

static void host_lacks(const char *name)
{
    enum cpu_word word;
    unsigned bit;

    assert_true(cpu_feature_find(name, &word, &bit));
    host.without[word] |= BIT(bit);
}

static struct cpu_model *model(const char *text)
{
    struct error *err = NULL;
    struct cpu_model *m = cpu_model_new(text, &accel, 1, &err);

    if (!m) {
        fail_msg("%s: %s", text, take_error(&err));
    }
    return m;
}

static const char *refused(const char *text)
{
    struct error *err = NULL;

    assert_null(cpu_model_new(text, &accel, 1, &err));
    return take_error(&err);
}

static bool has(const char *text, const char *feature)
{
    struct cpu_model *m = model(text);
    bool yes = cpu_model_has(m, feature);

    cpu_model_free(m);
    return yes;
}

static const struct cpuid_entry *leaf(const struct cpuid_entry *entries, unsigned count,
                                      uint32_t number, uint32_t subleaf)
{
    for (unsigned i = 0; i < count; i++) {
        if (entries[i].leaf == number && entries[i].subleaf == subleaf) {
            return &entries[i];
        }
    }
    return NULL;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void test_features(void **unused)
{
    assert_true(has("EPYC", "avx2"));
    assert_false(has("EPYC,-avx2", "avx2"));
    assert_false(has("EPYC,avx2=off", "avx2"));
    assert_true(has("qemu64,+avx,+xsave", "avx"));
    assert_true(has("qemu64,sse4_2,aes=on", "sse4.2"));
    assert_false(has("qemu64", "sse4.2"));
    /* - wins over +, + over =off, wherever they stand. */
    assert_false(has("EPYC,-aes,+aes", "aes"));
    assert_true(has("EPYC,+aes,aes=off", "aes"));
    assert_true(has("EPYC,aes=off,aes=on", "aes"));
    /* What stands on what is taken away goes, too. */
    assert_false(has("EPYC,-xsave", "avx2"));
    assert_false(has("EPYC,-avx", "fma"));
    assert_false(has("host,-avx2", "avx512f"));
    assert_false(has("host,-avx512f", "avx512vnni"));
    /* Never offered: ferry does not carry the state. */
    assert_false(has("host", "vmx"));
    assert_false(has("host", "svm"));
    assert_false(has("host", "amx-tile"));
    assert_true(has("host", "hypervisor"));
    assert_true(has("qemu64", "kvmclock"));
    assert_false(has("host", "kvm-steal-time"));
    assert_true(has("host,+kvm-steal-time", "kvm-steal-time"));
    assert_false(has("host,migratable=on", "invtsc"));
    assert_true(has("host", "invtsc"));
}

static void test_refusals(void **unused)
{
    assert_contains(refused("EPYC,+avx51f"), "-cpu EPYC: Property 'avx51f' not found");
    assert_contains(refused("EPYC,+avx51f"), "did you mean 'avx512f'?");
    assert_contains(refused("host,phys-bit=40"), "did you mean 'phys-bits'?");
    assert_contains(refused("EPIC"), "unable to find CPU model 'EPIC'; did you mean 'EPYC'?");
    assert_contains(refused("EPYC,avx2=maybe"), "avx2=maybe: needs 'on' or 'off'");
    assert_contains(refused("EPYC,nothing=maybe"), "Property 'nothing' not found");
    assert_contains(refused("host,phys-bits=47"), "phys-bits=47: needs a number from 32 to 46");
    assert_contains(refused("host,vendor=me"), "needs 12 characters");
    assert_contains(refused("host,check=7"), "check=7: needs 'on' or 'off'");
    assert_contains(refused("host,pmu=on"), "performance counters");
    assert_contains(refused(""), "unable to find CPU model ''");
    assert_contains(refused("host,+"), "Property '' not found");
}

static void make_model(void *text)
{
    cpu_model_free(model(text));
}

static void test_missing(void **unused)
{
    host_lacks("avx2");
    host_lacks("rdseed");
    /* Asked for by name: a warning; as part of a model: only if check=on. */
    autofree char *named = capture_stderr(make_model, (char *)"EPYC,+avx2");
    assert_contains(named, "warning: -cpu EPYC: the accelerator 'fake' does not have avx2 "
                           "(CPUID.07H.EBX bit 5)\n");
    autofree char *quiet = capture_stderr(make_model, (char *)"EPYC");
    assert_string_equal(quiet, "");
    autofree char *all = capture_stderr(make_model, (char *)"EPYC,check");
    assert_contains(all, "avx2 (CPUID.07H.EBX bit 5), rdseed");
    autofree char *none = capture_stderr(make_model, (char *)"EPYC,+avx2,check=off");
    assert_string_equal(none, "");
    assert_contains(refused("EPYC,enforce"),
                    "-cpu EPYC: the accelerator 'fake' does not have avx2");
    assert_contains(refused("qemu64,+vmx,enforce"), "does not have vmx");
    assert_false(has("EPYC", "avx2"));
}

static void test_identity(void **unused)
{
    struct cpuid_entry e[CPUID_MAX];
    struct cpu_model *m = model("EPYC");
    unsigned n = cpu_model_cpuid(m, 0, e);

    /* The host's vendor with the model's family: syscall instructions are the host's. */
    assert_int_equal(leaf(e, n, 0, 0)->ebx, 0x756e6547); /* "Genu" */
    assert_int_equal(leaf(e, n, 1, 0)->eax, 0x00800f12);
    assert_int_equal(cpu_model_signature(m), 0x00800f12);
    assert_memory_equal(&leaf(e, n, 0x80000002, 0)->eax, "AMD EPYC Process", 16);
    cpu_model_free(m);

    m = model("EPYC,vendor=AuthenticAMD,family=25,model=0x11,stepping=3,model-id=Some CPU");
    n = cpu_model_cpuid(m, 0, e);
    assert_int_equal(leaf(e, n, 0, 0)->edx, 0x69746e65); /* "enti" */
    assert_int_equal(leaf(e, n, 1, 0)->eax, 0x00a10f13);
    assert_memory_equal(&leaf(e, n, 0x80000002, 0)->eax, "Some CPU\0\0\0\0\0\0\0", 16);
    /* AMD repeats leaf 1's EDX. */
    assert_true(leaf(e, n, 0x80000001, 0)->edx & 1);
    cpu_model_free(m);

    m = model("host");
    assert_int_equal(cpu_model_signature(m), 0x00050657);
    assert_int_equal(cpu_model_phys_bits(m), 46);
    n = cpu_model_cpuid(m, 0, e);
    assert_int_equal(leaf(e, n, 0x80000008, 0)->eax, 57 << 8 | 46); /* la57 */
    cpu_model_free(m);
    m = model("host,-la57,phys-bits=40");
    n = cpu_model_cpuid(m, 0, e);
    assert_int_equal(leaf(e, n, 0x80000008, 0)->eax, 48 << 8 | 40);
    cpu_model_free(m);
}

static void test_xsave(void **unused)
{
    struct cpuid_entry e[CPUID_MAX];
    struct cpu_model *m = model("host");
    unsigned n = cpu_model_cpuid(m, 0, e);

    assert_int_equal(leaf(e, n, 0xd, 0)->eax, 0x2e7);
    assert_int_equal(leaf(e, n, 0xd, 0)->ecx, 2696);
    assert_int_equal(leaf(e, n, 0xd, 7)->ebx, 2112);
    cpu_model_free(m);

    m = model("EPYC");
    n = cpu_model_cpuid(m, 0, e);
    assert_int_equal(leaf(e, n, 0xd, 0)->eax, 7);
    assert_int_equal(leaf(e, n, 0xd, 0)->ecx, 832);
    assert_null(leaf(e, n, 0xd, 5));
    cpu_model_free(m);

    m = model("EPYC,-xsave");
    n = cpu_model_cpuid(m, 0, e);
    assert_null(leaf(e, n, 0xd, 0));
    cpu_model_free(m);
}

/* 2 sockets of 3 cores of 2 threads: widths 1, 2, so a socket takes 8 APIC ids. */
static void test_topology(void **unused)
{
    struct cpu_topology topology = {.sockets = 2, .dies = 1, .cores = 3, .threads = 2};
    struct cpuid_entry e[CPUID_MAX];
    struct cpu_model *m = model("host");
    unsigned n;

    cpu_model_set_topology(m, &topology);
    assert_int_equal(cpu_model_apic_id(m, 0), 0);
    assert_int_equal(cpu_model_apic_id(m, 5), 5);
    assert_int_equal(cpu_model_apic_id(m, 6), 8);
    assert_int_equal(cpu_model_apic_id(m, 11), 13);

    n = cpu_model_cpuid(m, 13, e);
    assert_int_equal(leaf(e, n, 1, 0)->ebx >> 24, 13);
    assert_int_equal(leaf(e, n, 1, 0)->ebx >> 16 & 0xff, 8);
    assert_true(leaf(e, n, 1, 0)->edx & BIT(28));
    assert_int_equal(leaf(e, n, 0xb, 0)->eax, 1);
    assert_int_equal(leaf(e, n, 0xb, 0)->ebx, 2);
    assert_int_equal(leaf(e, n, 0xb, 0)->ecx, 0x100);
    assert_int_equal(leaf(e, n, 0xb, 1)->eax, 3);
    assert_int_equal(leaf(e, n, 0xb, 1)->ebx, 6);
    assert_int_equal(leaf(e, n, 0xb, 1)->ecx, 0x201);
    assert_int_equal(leaf(e, n, 0xb, 2)->ecx, 2);
    assert_int_equal(leaf(e, n, 0xb, 2)->edx, 13);
    /* Leaf 4: L1 for a core, L3 for the socket; 4 ids of cores. */
    assert_int_equal(leaf(e, n, 4, 0)->eax >> 14 & 0xfff, 1);
    assert_int_equal(leaf(e, n, 4, 3)->eax >> 14 & 0xfff, 7);
    assert_int_equal(leaf(e, n, 4, 0)->eax >> 26, 3);
    cpu_model_free(m);
}

static void test_topology_dies(void **unused)
{
    struct cpu_topology topology = {.sockets = 1, .dies = 2, .cores = 2, .threads = 1};
    struct cpuid_entry e[CPUID_MAX];
    struct cpu_model *m = model("host");
    unsigned n;

    cpu_model_set_topology(m, &topology);
    n = cpu_model_cpuid(m, 3, e);
    assert_int_equal(leaf(e, n, 0, 0)->eax, 0x1f);
    assert_int_equal(leaf(e, n, 0x1f, 1)->eax, 1);
    assert_int_equal(leaf(e, n, 0x1f, 2)->eax, 2);
    assert_int_equal(leaf(e, n, 0x1f, 2)->ecx, 0x502);
    assert_int_equal(leaf(e, n, 0x1f, 3)->ecx, 3);
    cpu_model_free(m);
}

static void test_topology_amd(void **unused)
{
    struct cpu_topology topology = {.sockets = 1, .dies = 1, .cores = 2, .threads = 2};
    struct cpuid_entry e[CPUID_MAX];
    struct cpu_model *m;
    unsigned n;

    host.amd = true;
    m = model("EPYC");
    cpu_model_set_topology(m, &topology);
    n = cpu_model_cpuid(m, 3, e);
    assert_null(leaf(e, n, 4, 0));
    assert_int_equal(leaf(e, n, 0x80000008, 0)->ecx, 3 | 2 << 12);
    assert_int_equal(leaf(e, n, 0x8000001e, 0)->eax, 3);
    assert_int_equal(leaf(e, n, 0x8000001e, 0)->ebx, 1 | 1 << 8);
    assert_int_equal(leaf(e, n, 0x8000001d, 3)->eax >> 14 & 0xfff, 3);
    assert_true(leaf(e, n, 0x80000001, 0)->ecx & BIT(1));
    cpu_model_free(m);
}

/* What a guest makes of leaf 0x15, or 0 if there is none. */
static uint64_t tsc_khz_of(uint32_t khz)
{
    struct cpuid_entry e[CPUID_MAX];
    const struct cpuid_entry *x;
    struct cpu_model *m;

    host.tsc_khz = khz;
    m = model("host");
    x = leaf(e, cpu_model_cpuid(m, 0, e), 0x15, 0);
    cpu_model_free(m);
    if (!x) {
        return 0;
    }
    assert_int_equal(x->ecx, 1000000000);
    /* As Linux computes it, in 32 bits. */
    assert_true((uint64_t)(x->ecx / 1000) * x->ebx <= UINT32_MAX);
    return x->ecx / 1000 * x->ebx / x->eax;
}

static void test_tsc(void **unused)
{
    struct cpuid_entry e[CPUID_MAX];
    struct cpu_model *m;
    unsigned n, given = 0, asked = 0;

    /* Within 1 ppm (and 1 kHz of rounding), or no promise. */
    for (uint32_t khz = 800000; khz < 6000000; khz += 13331) {
        uint64_t told = tsc_khz_of(khz);
        int64_t error = (int64_t)told - khz;

        asked++;
        given += told != 0;
        assert_true(!told || (error >= -7 && error <= 7));
    }
    assert_true(given * 10 > asked * 9);
    assert_int_equal(tsc_khz_of(2500000), 2500000);
    assert_int_equal(tsc_khz_of(800000), 800000);
    assert_int_equal(tsc_khz_of(2500150), 0); /* in the gap next to 5/2 */
    host.tsc_khz = 2500000;
    m = model("host");
    n = cpu_model_cpuid(m, 0, e);
    assert_int_equal(leaf(e, n, 0x16, 0)->eax, 2500);
    assert_int_equal(leaf(e, n, 0x40000010, 0)->eax, 2500000);
    assert_int_equal(leaf(e, n, 0x40000010, 0)->ebx, 1000000);
    cpu_model_free(m);
    /* Without an invariant TSC nothing is promised. */
    m = model("host,-invtsc");
    n = cpu_model_cpuid(m, 0, e);
    assert_null(leaf(e, n, 0x15, 0));
    assert_null(leaf(e, n, 0x40000010, 0));
    cpu_model_free(m);
}

static void test_hypervisor_leaves(void **unused)
{
    struct cpuid_entry e[CPUID_MAX];
    struct cpu_model *m = model("host");
    unsigned n = cpu_model_cpuid(m, 0, e);

    assert_memory_equal(&leaf(e, n, 0x40000000, 0)->ebx, "KVMKVMKVM\0\0\0", 12);
    assert_true(leaf(e, n, 0x40000001, 0)->eax & 1);
    assert_null(leaf(e, n, 0x40000003, 0));
    cpu_model_free(m);

    m = model("host,hv-crash=on,hv_reset");
    n = cpu_model_cpuid(m, 0, e);
    assert_memory_equal(&leaf(e, n, 0x40000000, 0)->ebx, "Microsoft Hv", 12);
    assert_int_equal(leaf(e, n, 0x40000001, 0)->eax, 0x31237648);
    assert_true(leaf(e, n, 0x40000003, 0)->eax & BIT(7));
    assert_true(leaf(e, n, 0x40000003, 0)->edx & BIT(10));
    assert_memory_equal(&leaf(e, n, 0x40000100, 0)->ebx, "KVMKVMKVM\0\0\0", 12);
    cpu_model_free(m);

    m = model("host,kvm=off");
    n = cpu_model_cpuid(m, 0, e);
    assert_null(leaf(e, n, 0x40000000, 0));
    cpu_model_free(m);
    m = model("host,-hypervisor");
    n = cpu_model_cpuid(m, 0, e);
    assert_null(leaf(e, n, 0x40000000, 0));
    assert_false(leaf(e, n, 1, 0)->ecx & BIT(31));
    cpu_model_free(m);
}

/* Every model makes leaves: their names are in the table, and they fit. */
static void test_all_models(void **unused)
{
    static const char *const names[] = {"host",
                                        "max",
                                        "qemu64",
                                        "kvm64",
                                        "Nehalem",
                                        "Westmere",
                                        "SandyBridge",
                                        "Haswell",
                                        "Haswell-noTSX",
                                        "Skylake-Server",
                                        "Skylake-Server-noTSX-IBRS",
                                        "EPYC",
                                        "EPYC-Rome",
                                        "EPYC-Milan"};
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    cpu_models_print(to);
    fclose(to);
    assert_contains(text, "Available CPUs:\nx86 host ");
    assert_contains(text, "\nRecognized CPUID flags:\n  fpu vme ");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct cpuid_entry e[CPUID_MAX];
        struct cpu_model *m = model(names[i]);
        autofree char *line = xasprintf("\nx86 %s ", names[i]);

        assert_true(cpu_model_cpuid(m, 0, e) < CPUID_MAX);
        assert_true(cpu_model_has(m, "lm") && cpu_model_has(m, "sse2"));
        assert_string_equal(cpu_model_name(m), names[i]);
        assert_contains(text, line);
        cpu_model_free(m);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_features, setup),
        cmocka_unit_test_setup(test_refusals, setup),
        cmocka_unit_test_setup(test_missing, setup),
        cmocka_unit_test_setup(test_identity, setup),
        cmocka_unit_test_setup(test_xsave, setup),
        cmocka_unit_test_setup(test_topology, setup),
        cmocka_unit_test_setup(test_topology_dies, setup),
        cmocka_unit_test_setup(test_topology_amd, setup),
        cmocka_unit_test_setup(test_tsc, setup),
        cmocka_unit_test_setup(test_hypervisor_leaves, setup),
        cmocka_unit_test_setup(test_all_models, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
