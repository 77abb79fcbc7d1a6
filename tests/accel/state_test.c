/* SPDX-License-Identifier: MIT */
/* The neutral state after RESET (SDM volume 3, table 9-1), its print, and the page table walk. */
#include "accel_fixture.h"

#include "accel/x86_state.h"
#include "accel/x86_walk.h"

static struct x86_state *reset_state(bool is_bsp, uint32_t apic_id)
{
    struct x86_state *state = xmalloc(sizeof(*state));

    memset(state, 0xa5, sizeof(*state));
    x86_state_reset(state, is_bsp, apic_id);
    return state;
}

static void test_reset_registers(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);

    assert_int_equal(s->rip, 0xfff0);
    assert_int_equal(s->rflags, 2);
    for (unsigned i = 0; i < X86_GPR_COUNT; i++) {
        assert_int_equal(s->gpr[i], i == X86_RDX ? 0x600 : 0);
    }
    assert_int_equal(s->segment[X86_CS].selector, 0xf000);
    assert_int_equal(s->segment[X86_CS].base, 0xffff0000);
    assert_int_equal(s->segment[X86_CS].limit, 0xffff);
    assert_int_equal(s->segment[X86_CS].attributes, 0x9b);
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        if (i != X86_CS) {
            assert_int_equal(s->segment[i].selector, 0);
            assert_int_equal(s->segment[i].base, 0);
            assert_int_equal(s->segment[i].limit, 0xffff);
            assert_int_equal(s->segment[i].attributes, 0x93);
        }
    }
    assert_int_equal(s->segment[X86_LDTR].attributes, 0x82);
    assert_int_equal(s->segment[X86_TR].attributes, 0x8b);
    assert_int_equal(s->gdt.base, 0);
    assert_int_equal(s->gdt.limit, 0xffff);
    assert_int_equal(s->idt.limit, 0xffff);
}

static void test_reset_control(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);

    assert_int_equal(s->cr0, 0x60000010);
    assert_int_equal(s->cr2 | s->cr3 | s->cr4 | s->cr8 | s->efer, 0);
    assert_int_equal(s->dr6, 0xffff0ff0);
    assert_int_equal(s->dr7, 0x400);
    assert_int_equal(s->xcr0, 1);
    assert_int_equal(load_le16(s->xsave), 0x37f);       /* FCW after FNINIT */
    assert_int_equal(load_le32(s->xsave + 24), 0x1f80); /* MXCSR */
    assert_int_equal(*x86_state_msr(s, X86_MSR_PAT), 0x0007040600070406);
    assert_int_equal(*x86_state_msr(s, X86_MSR_MTRR_DEF_TYPE), 0);
    assert_non_null(x86_state_msr(s, X86_MSR_MTRR_PHYS_BASE0 + 15));
    assert_null(x86_state_msr(s, 0xdeadbeef));
}

static void test_reset_processors(void **unused)
{
    autofree struct x86_state *bsp = reset_state(true, 0);
    autofree struct x86_state *ap = reset_state(false, 3);

    assert_int_equal(bsp->apic_base, 0xfee00900);
    assert_int_equal(ap->apic_base, 0xfee00800);
    assert_int_equal(bsp->mp_state, X86_MP_RUNNABLE);
    assert_int_equal(ap->mp_state, X86_MP_UNINITIALIZED);
    assert_int_equal(load_le32(ap->lapic.regs + 0x20), 3u << 24);
    assert_int_equal(load_le32(ap->lapic.regs + 0xe0), 0xffffffff);
    assert_int_equal(load_le32(ap->lapic.regs + 0xf0), 0xff);
    assert_int_equal(load_le32(ap->lapic.regs + 0x350), 0x10000);
    assert_int_equal(load_le32(bsp->lapic.regs + 0x350), 0x700); /* virtual wire */
}

/* No MSR twice, and room for all. */
static void test_msr_list(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);

    assert_true(s->msr_count > 40 && s->msr_count < X86_MSR_MAX);
    for (unsigned i = 0; i < s->msr_count; i++) {
        assert_ptr_equal(x86_state_msr(s, s->msr[i].index), &s->msr[i].value);
    }
}

static char *print(const struct x86_state *state)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    x86_state_print(state, to);
    fclose(to);
    return text;
}

static void test_print(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);
    autofree char *real = print(s);

    assert_contains(real, "EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000600\n");
    assert_contains(real, "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\n");
    assert_contains(real, "CS =f000 ffff0000 0000ffff 00009b00 DPL=0 CS16 [-RA]\n");
    assert_contains(real, "CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\n");
    assert_contains(real, "EFER=0000000000000000\n");

    s->efer = X86_EFER_LME | X86_EFER_LMA;
    s->segment[X86_CS].attributes = 0x29b | X86_SEGMENT_L | X86_SEGMENT_P;
    s->gpr[X86_R15] = 0x1234;
    s->rflags = 0x8d7;
    autofree char *wide = print(s);
    assert_contains(wide, "R15=0000000000001234\n");
    assert_contains(wide, "RFL=000008d7 [-OSZAPC]");
    assert_contains(wide, "CS64 [-RA]");
}

/* ---- page tables ----------------------------------------------------------------------------- */

#define TABLE_A 0x10000
#define TABLE_B 0x11000
#define TABLE_C 0x12000
#define TABLE_D 0x13000
#define TABLE_E 0x14000

static uint64_t translate(const struct x86_state *s, uint64_t linear)
{
    uint64_t physical = 0;
    return x86_translate(s, linear, &physical) ? physical : UINT64_MAX;
}

static void test_walk_off(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);

    assert_int_equal(translate(s, 0x1fffffff0), 0xfffffff0);
}

static void test_walk_32bit(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);

    s->cr0 |= X86_CR0_PE | X86_CR0_PG;
    s->cr3 = TABLE_A;
    s->cr4 = X86_CR4_PSE;
    memset(ram_at(TABLE_A), 0, 0x2000);
    store_le32(ram_at(TABLE_A + 4 * 1), TABLE_B | 1);
    store_le32(ram_at(TABLE_B + 4 * 2), 0x55000 | 1);
    store_le32(ram_at(TABLE_A + 4 * 3), 0x00c00000 | 0x2000 | 0x81); /* 4 MiB, bit 32 */
    assert_int_equal(translate(s, 0x00402abc), 0x55abc);
    assert_int_equal(translate(s, 0x00c12345), 0x100c12345);
    assert_int_equal(translate(s, 0x00403000), UINT64_MAX);
    assert_int_equal(translate(s, 0x80000000), UINT64_MAX);
}

static void test_walk_pae(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);

    s->cr0 |= X86_CR0_PE | X86_CR0_PG;
    s->cr3 = TABLE_A + 0x20;
    s->cr4 = X86_CR4_PAE;
    memset(ram_at(TABLE_A), 0, 0x3000);
    store_le64(ram_at(TABLE_A + 0x20 + 8 * 2), TABLE_B | 1);
    store_le64(ram_at(TABLE_B + 8 * 5), UINT64_C(0x140000000) | 0x81); /* 2 MiB */
    store_le64(ram_at(TABLE_B + 8 * 6), TABLE_C | 1);
    store_le64(ram_at(TABLE_C), UINT64_C(0x8000000000066000) | 1); /* NX */
    assert_int_equal(translate(s, 0x80a12345), 0x140012345);
    assert_int_equal(translate(s, 0x80c00fff), 0x66fff);
    assert_int_equal(translate(s, 0x40000000), UINT64_MAX);
}

static void test_walk_64bit(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);
    const uint64_t high = UINT64_C(0xffffffff80000000);

    s->cr0 |= X86_CR0_PE | X86_CR0_PG;
    s->cr3 = TABLE_A;
    s->cr4 = X86_CR4_PAE;
    s->efer = X86_EFER_LME | X86_EFER_LMA;
    memset(ram_at(TABLE_A), 0, 0x5000);
    store_le64(ram_at(TABLE_A + 8 * 511), TABLE_B | 1);
    store_le64(ram_at(TABLE_B + 8 * 510), TABLE_C | 1);
    store_le64(ram_at(TABLE_C), TABLE_D | 1);
    store_le64(ram_at(TABLE_D + 8 * 3), 0x77000 | 1);
    store_le64(ram_at(TABLE_B + 8 * 511), UINT64_C(0x80000000) | 0x81); /* 1 GiB */
    assert_int_equal(translate(s, high + 0x3010), 0x77010);
    assert_int_equal(translate(s, UINT64_C(0xffffffffc1234567)), 0x81234567);
    assert_int_equal(translate(s, 0), UINT64_MAX);

    s->cr4 |= X86_CR4_LA57;
    s->cr3 = TABLE_E;
    memset(ram_at(TABLE_E), 0, 0x1000);
    store_le64(ram_at(TABLE_E + 8 * 511), TABLE_A | 1);
    assert_int_equal(translate(s, high + 0x3010), 0x77010);
}

static void test_read_linear(void **unused)
{
    autofree struct x86_state *s = reset_state(true, 0);
    uint8_t bytes[64];

    /* A page that is not there ends the read, without an error. */
    s->cr0 |= X86_CR0_PE | X86_CR0_PG;
    s->cr3 = TABLE_A;
    memset(ram_at(TABLE_A), 0, 0x2000);
    store_le32(ram_at(TABLE_A), TABLE_B | 1);
    store_le32(ram_at(TABLE_B + 4 * 2), 0x55000 | 1);
    memset(ram_at(0x55000), 0x90, 0x1000);
    assert_int_equal(x86_read_linear(s, 0x2fe0, bytes, sizeof(bytes)), 0x20);
    assert_int_equal(bytes[0x1f], 0x90);
    assert_int_equal(x86_read_linear(s, 0x5000, bytes, sizeof(bytes)), 0);
    /* Tables outside of memory. */
    s->cr3 = 0xe0000000;
    assert_int_equal(x86_read_linear(s, 0x2fe0, bytes, sizeof(bytes)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_registers),
        cmocka_unit_test(test_reset_control),
        cmocka_unit_test(test_reset_processors),
        cmocka_unit_test(test_msr_list),
        cmocka_unit_test(test_print),
        cmocka_unit_test(test_walk_off),
        cmocka_unit_test(test_walk_32bit),
        cmocka_unit_test(test_walk_pae),
        cmocka_unit_test(test_walk_64bit),
        cmocka_unit_test(test_read_linear),
    };

    return cmocka_run_group_tests(tests, accel_group_setup, accel_group_teardown);
}
