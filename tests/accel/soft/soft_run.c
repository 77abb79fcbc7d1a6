/* SPDX-License-Identifier: MIT */
#include "soft_run.h"

#include "../accel_fixture.h"

#include <time.h>

#include "accel/cpu_model.h"
#include "accel/soft/lower.h"
#include "accel/soft/soft.h"
#include "base/error.h"

/* ---- guest physical memory --------------------------------------------------------------------- */

#define KERNEL UINT64_C(0xffff800000000000) /* the first 2 MiB, for CPL 0 */

enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    HANDLERS = 0x4000, /* 16 bytes apart */
    STACK_TOP = 0x8000,
    TABLES = 0x10000,
    PAGES = 0x100000, /* of the test: never one behind the other */
};

#define CR4_FSGSBASE (UINT64_C(1) << 16)
#define CR4_OSXSAVE  (UINT64_C(1) << 18)
#define CR0_AM       (UINT64_C(1) << 18)

enum test_page {
    PAGE_CODE,
    PAGE_CODE_2,
    PAGE_DATA,
    PAGE_DATA_2,
    PAGE_RO,
    PAGE_STACK,
    PAGE_STACK_2
};

static const struct {
    uint64_t linear;
    bool is_writable;
} pages[] = {
    [PAGE_CODE] = {CODE_AT, false},
    [PAGE_CODE_2] = {CODE_AT + PAGE, false},
    [PAGE_DATA] = {DATA_AT, true},
    [PAGE_DATA_2] = {DATA_AT + PAGE, true},
    [PAGE_RO] = {RO_AT, false},
    [PAGE_STACK] = {STACK_AT, true},
    [PAGE_STACK_2] = {STACK_AT + PAGE, true},
};

static uint64_t physical(enum test_page page)
{
    return PAGES + 2 * PAGE * (uint64_t)page;
}

static struct {
    struct accel *accel;
    struct cpu_model *model;
    struct vcpu *vcpu;
    struct x86_state *state; /* the one that runs start from */
    struct x86_state *got;
    struct cpuid_entry cpuid[CPUID_MAX];
    unsigned cpuid_count;
    uint64_t code_at; /* where the last instruction lies, 0: nowhere */
    unsigned code_length;
    /* The watchdog. */
    pthread_t watchdog;
    _Atomic(unsigned) runs; /* odd: one is going on */
    _Atomic(bool) timed_out, quit;
} soft;

static uint64_t new_table(void)
{
    static uint64_t next = TABLES;

    next += PAGE;
    return next - PAGE;
}

static uint64_t entry_table(uint64_t table, unsigned index, bool is_user)
{
    uint8_t *entry = ram_at(table + 8 * index);

    if (!load_le64(entry)) {
        store_le64(entry, new_table() | 3 | (is_user ? 4 : 0));
    }
    return load_le64(entry) & ~UINT64_C(0xfff);
}

static void make_tables(void)
{
    uint64_t root = new_table(), table;

    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        uint64_t a = pages[i].linear;

        table = entry_table(root, a >> 39 & 511, true);
        table = entry_table(table, a >> 30 & 511, true);
        table = entry_table(table, a >> 21 & 511, true);
        store_le64(ram_at(table + 8 * (a >> 12 & 511)),
                   physical(i) | 5 | (pages[i].is_writable ? 2 : 0));
    }
    table = entry_table(root, KERNEL >> 39 & 511, false);
    table = entry_table(table, 0, false);
    store_le64(ram_at(table), 0x83);
}

static void make_descriptors(void)
{
    /* Linux's GDT, since LAR and LSL show it. */
    static const struct {
        uint16_t selector;
        uint64_t descriptor;
    } gdt[] = {
        {0x08, UINT64_C(0x00cf9b000000ffff)}, {0x10, UINT64_C(0x00af9b000000ffff)},
        {0x18, UINT64_C(0x00cf93000000ffff)}, {0x20, UINT64_C(0x00cffb000000ffff)},
        {0x28, UINT64_C(0x00cff3000000ffff)}, {0x30, UINT64_C(0x00affb000000ffff)},
        {0x78, UINT64_C(0x0040f50000000001)},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(gdt); i++) {
        store_le64(ram_at(GDT + gdt[i].selector), gdt[i].descriptor);
    }
    store_le64(ram_at(GDT + 0x40), 0x67 | (uint64_t)TSS << 16 | UINT64_C(0x8b) << 40);
    store_le64(ram_at(GDT + 0x48), KERNEL >> 32);
    store_le64(ram_at(TSS + 4), KERNEL + STACK_TOP);
    store_le16(ram_at(TSS + 102), 0x68); /* no I/O bitmap */
    for (unsigned v = 0; v < 256; v++) {
        uint64_t handler = KERNEL + HANDLERS + 16 * v;
        uint8_t *gate = ram_at(IDT + 16 * v);
        bool is_user = v == 3 || v == 4 || v == 0x80;

        store_le64(gate, (handler & 0xffff) | UINT64_C(0x10) << 16 |
                             (UINT64_C(0x8e00) | (is_user ? 0x6000 : 0)) << 32 |
                             (handler >> 16 & 0xffff) << 48);
        store_le64(gate + 8, handler >> 32);
        *ram_at(HANDLERS + 16 * v) = 0xf4;
    }
}

static struct x86_segment segment(uint16_t selector)
{
    const uint8_t *d = ram_at(GDT + (selector & 0xfff8));

    if (!(selector & 0xfffc)) {
        return (struct x86_segment){.selector = selector, .attributes = X86_SEGMENT_UNUSABLE};
    }
    return (struct x86_segment){
        .selector = selector, .limit = UINT32_MAX, .attributes = load_le16(d + 5) & 0xf0ffu};
}

static void make_state(struct x86_state *s)
{
    s->gdt = (struct x86_table){KERNEL + GDT, 0x7f};
    s->idt = (struct x86_table){KERNEL + IDT, 0xfff};
    s->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | CR0_AM | X86_CR0_PG;
    s->cr3 = TABLES;
    s->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    if (soft_run_cpuid(1, 0, 2, 26)) {
        s->cr4 |= CR4_OSXSAVE;
    }
    if (soft_run_cpuid(7, 0, 1, 0)) {
        s->cr4 |= CR4_FSGSBASE;
    }
    s->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    s->xcr0 = soft_run_cpuid(1, 0, 2, 28) ? 7 : soft_run_cpuid(1, 0, 2, 26) ? 3 : 1;
    s->segment[X86_TR] = (struct x86_segment){
        .base = KERNEL + TSS, .limit = 0x67, .attributes = 0x8b, .selector = 0x40};
    s->segment[X86_LDTR] = (struct x86_segment){.attributes = X86_SEGMENT_UNUSABLE | 0x82};
    s->mp_state = X86_MP_RUNNABLE;
    s->xsave_size = AREA_SIZE;
}

/* ---- one run ------------------------------------------------------------------------------------ */

static uint64_t page_of(uint64_t linear)
{
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        if (pages[i].linear == (linear & ~(uint64_t)(PAGE - 1))) {
            return physical(i) + (linear & (PAGE - 1));
        }
    }
    return 0;
}

/* As a device would write it, so that the soft CPU drops what it has decoded there. */
static void write_code(uint64_t linear, const uint8_t *bytes, unsigned length)
{
    unsigned first = PAGE - (linear & (PAGE - 1));

    first = first < length ? first : length;
    address_space_write(address_space_memory, page_of(linear), bytes, first);
    if (first < length) {
        address_space_write(address_space_memory, page_of(linear + first), bytes + first,
                            length - first);
    }
}

static void put_code(const struct run_input *input)
{
    uint8_t none[15];

    memset(none, 0xcc, sizeof(none));
    if (soft.code_at) {
        write_code(soft.code_at, none, soft.code_length);
    }
    write_code(input->state.rip, input->bytes, input->length);
    soft.code_at = input->state.rip;
    soft.code_length = input->length;
}

static const struct {
    enum test_page page;
    unsigned at;
} image_pages[] = {{PAGE_DATA, IMAGE_DATA},
                   {PAGE_DATA_2, IMAGE_DATA + PAGE},
                   {PAGE_STACK, IMAGE_STACK},
                   {PAGE_STACK_2, IMAGE_STACK + PAGE}};

static void put_state(const struct machine_state *m, struct x86_state *s)
{
    memcpy(s->gpr, m->gpr, sizeof(s->gpr));
    s->rip = m->rip;
    s->rflags = m->rflags;
    s->segment[X86_CS] = segment(m->cs);
    s->segment[X86_SS] = segment(m->ss);
    s->segment[X86_DS] = segment(m->ds);
    s->segment[X86_ES] = segment(m->es);
    s->segment[X86_FS] = segment(m->fs);
    s->segment[X86_GS] = segment(m->gs);
    s->segment[X86_FS].base = m->fs_base;
    s->segment[X86_GS].base = m->gs_base;
    memcpy(s->xsave, m->area, AREA_SIZE);
    s->xsave[AREA_BV] = (uint8_t)s->xcr0 & 7;
    s->events = (struct x86_events){0};
    s->cr2 = 0;
}

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

static void get_output(const struct x86_state *s, struct run_output *output)
{
    struct machine_state *m = &output->state;
    const uint8_t *frame = ram_at(s->gpr[X86_RSP] - KERNEL);
    uint64_t present = load_le64(s->xsave + AREA_BV);

    memset(output, 0, offsetof(struct run_output, image));
    output->vector = (uint8_t)((s->rip - KERNEL - HANDLERS) / 16);
    if (has_error_code(output->vector)) {
        output->error = (uint32_t)load_le64(frame);
        frame += 8;
    }
    output->cr2 = output->vector == EXC_PF ? s->cr2 : 0;
    memcpy(m->gpr, s->gpr, sizeof(m->gpr));
    m->rip = load_le64(frame);
    m->cs = load_le16(frame + 8);
    m->rflags = load_le64(frame + 16);
    m->gpr[X86_RSP] = load_le64(frame + 24);
    m->ss = load_le16(frame + 32);
    m->ds = s->segment[X86_DS].selector;
    m->es = s->segment[X86_ES].selector;
    m->fs = s->segment[X86_FS].selector;
    m->gs = s->segment[X86_GS].selector;
    m->fs_base = s->segment[X86_FS].base;
    m->gs_base = s->segment[X86_GS].base;
    memcpy(m->area + AREA_MXCSR, s->xsave + AREA_MXCSR, 4);
    if (present & 1) {
        memcpy(m->area, s->xsave, AREA_MXCSR);
        memcpy(m->area + AREA_ST, s->xsave + AREA_ST, 128);
    } else {
        store_le16(m->area + AREA_FCW, 0x37f);
    }
    if (present & 2) {
        memcpy(m->area + AREA_XMM, s->xsave + AREA_XMM, 256);
    }
    if (present & 4) {
        memcpy(m->area + AREA_YMM, s->xsave + AREA_YMM, 256);
    }
}

static bool is_handler(const struct x86_state *s)
{
    uint64_t offset = s->rip - KERNEL - HANDLERS, sp = s->gpr[X86_RSP] - KERNEL;

    return offset < 16 * 256 && (offset & 15) == 1 && sp < STACK_TOP && sp >= STACK_TOP - 48;
}

static void run_one(struct vcpu *vcpu, const struct run_input *input, struct run_output *output)
{
    const struct accel_ops *ops = vcpu->accel->ops;
    struct error *err = NULL;

    put_code(input);
    for (unsigned i = 0; i < ARRAY_SIZE(image_pages); i++) {
        memcpy(ram_at(physical(image_pages[i].page)), input->image + image_pages[i].at, PAGE);
    }
    put_state(&input->state, soft.state);
    memset(output, 0, offsetof(struct run_output, image));
    output->vector = VECTOR_ENGINE;
    output->error = VCPU_EXIT_ERROR;
    if (!ops->vcpu_set_state(vcpu, soft.state, &err)) {
        error_report(err);
        return;
    }
    atomic_store(&soft.timed_out, false);
    atomic_fetch_add(&soft.runs, 1);
    do {
        vcpu->exit.reason = VCPU_EXIT_INTR;
        ops->vcpu_run(vcpu);
    } while (vcpu->exit.reason == VCPU_EXIT_INTR && !atomic_load(&soft.timed_out));
    atomic_fetch_add(&soft.runs, 1);
    if (!ops->vcpu_get_state(vcpu, soft.got, &err)) {
        error_report(err);
        return;
    }
    if (vcpu->exit.reason == VCPU_EXIT_HLT && is_handler(soft.got)) {
        get_output(soft.got, output);
    } else {
        output->vector = vcpu->exit.reason == VCPU_EXIT_INTR ? VECTOR_TIMEOUT : VECTOR_ENGINE;
        output->error = vcpu->exit.reason;
        output->state.rip = soft.got->rip;
        if (vcpu->exit.reason == VCPU_EXIT_IO || vcpu->exit.reason == VCPU_EXIT_MMIO) {
            ops->vcpu_complete_io(vcpu);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(image_pages); i++) {
        memcpy(output->image + image_pages[i].at, ram_at(physical(image_pages[i].page)), PAGE);
    }
    memcpy(output->image + IMAGE_RO, ram_at(physical(PAGE_RO)), PAGE);
}

struct batch {
    const struct run_input *input;
    struct run_output *output;
    unsigned count;
};

static void run_batch(struct vcpu *vcpu, void *opaque)
{
    struct batch *batch = opaque;

    for (unsigned i = 0; i < batch->count; i++) {
        run_one(vcpu, &batch->input[i], &batch->output[i]);
    }
}

void soft_run(const struct run_input *input, struct run_output *output, unsigned count)
{
    vcpu_call(soft.vcpu, run_batch,
              &(struct batch){.input = input, .output = output, .count = count});
}

/* A run that goes on for two looks, half a second apart, is kicked. */
static void *watch(void *opaque)
{
    unsigned last = 0;

    while (!atomic_load(&soft.quit)) {
        unsigned now;

        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
        now = atomic_load(&soft.runs);
        if (now & 1 && now == last) {
            atomic_store(&soft.timed_out, true);
            soft.vcpu->accel->ops->vcpu_kick(soft.vcpu);
        }
        last = now;
    }
    return NULL;
}

/* ---- interface ---------------------------------------------------------------------------------- */

bool soft_run_cpuid(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
    for (unsigned i = 0; i < soft.cpuid_count; i++) {
        const struct cpuid_entry *e = &soft.cpuid[i];

        if (e->leaf == leaf && (!e->has_subleaf || e->subleaf == subleaf)) {
            const uint32_t regs[4] = {e->eax, e->ebx, e->ecx, e->edx};
            return regs[reg] >> bit & 1;
        }
    }
    return false;
}

const char *soft_run_family(unsigned mnemonic)
{
    static const struct {
        const char *name;
        const struct soft_lowering *table;
    } families[] = {
        {"integer", soft_lowering_integer}, {"string", soft_lowering_string},
        {"branch", soft_lowering_branch},   {"far", soft_lowering_far},
        {"system", soft_lowering_system},   {"x87", soft_lowering_x87},
        {"state", soft_lowering_state},     {"sse", soft_lowering_sse},
        {"avx", soft_lowering_avx},
    };

    for (unsigned f = 0; f < ARRAY_SIZE(families); f++) {
        for (const struct soft_lowering *l = families[f].table; l->mnemonic; l++) {
            if (l->mnemonic == mnemonic) {
                return families[f].name;
            }
        }
    }
    return NULL;
}

bool soft_run_init(const char *cpu_model)
{
    const char *entries[] = {"tcg"};
    struct error *err = NULL;
    uint8_t none[PAGE];

    if (accel_group_setup(NULL)) {
        return false;
    }
    soft.accel = accel_init(entries, 1, NULL, 1, &err);
    if (soft.accel) {
        soft.model = cpu_model_new(cpu_model, soft.accel, 1, &err);
    }
    if (!soft.model || !vcpus_create(soft.accel, soft.model, 1, &err)) {
        error_report(err);
        return false;
    }
    vcpus_reset();
    soft.vcpu = vcpu_get(0);
    soft.cpuid_count = cpu_model_cpuid(soft.model, 0, soft.cpuid);
    make_tables();
    make_descriptors();
    memset(none, 0xcc, sizeof(none));
    memcpy(ram_at(physical(PAGE_CODE)), none, PAGE);
    memcpy(ram_at(physical(PAGE_CODE_2)), none, PAGE);
    for (unsigned i = 0; i < PAGE; i++) {
        *ram_at(physical(PAGE_RO) + i) = (uint8_t)(i * 7 + (i >> 8));
    }
    soft.state = xnew(struct x86_state);
    soft.got = xnew(struct x86_state);
    if (!vcpu_get_state(soft.vcpu, soft.state, &err)) {
        error_report(err);
        return false;
    }
    make_state(soft.state);
    return pthread_create(&soft.watchdog, NULL, watch, NULL) == 0;
}

void soft_run_cleanup(void)
{
    atomic_store(&soft.quit, true);
    pthread_join(soft.watchdog, NULL);
    vcpus_destroy();
    accel_cleanup();
    cpu_model_free(soft.model);
    free(soft.state);
    free(soft.got);
    accel_group_teardown(NULL);
}
