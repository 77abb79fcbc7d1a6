/* SPDX-License-Identifier: MIT */
/* The hostile guests' machine, memory and registers (hostile.h). */
#include "hostile.h"

static struct mem_region rom, mmio, ports, hole, overlay;

/* What is written to memory at the end, as devices write: what was decoded of the last guest is
 * forgotten, and others may be reading. */
static uint8_t image[AT_SMM];

static uint8_t *image_at(uint64_t address)
{
    return image + address;
}

/* ---- random numbers ---------------------------------------------------------------------------- */

uint64_t random_u64(struct random *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t random_value(struct random *r)
{
    switch (random_below(r, 8)) {
    case 0:
        return random_below(r, 16);
    case 1:
        return UINT64_C(1) << random_below(r, 64);
    case 2:
        return (UINT64_C(1) << random_below(r, 64)) - 1;
    case 3:
        return ~(uint64_t)random_below(r, 16);
    case 4:
        return random_u64(r);
    case 5:
        return random_below(r, 0x10000);
    default:
        return random_address(r);
    }
}

uint64_t random_address(struct random *r)
{
    static const uint32_t places[] = {AT_GDT, AT_IDT,  AT_TSS, AT_CODE, AT_DATA,    AT_TABLES,
                                      AT_SMM, AT_MMIO, AT_ROM, AT_HOLE, AT_OVERLAY, RAM_SIZE};
    uint64_t a = places[random_below(r, ARRAY_SIZE(places))];

    switch (random_below(r, 8)) {
    case 0:
        return a - random_below(r, 64);
    case 1:
        return a + PAGE * random_below(r, 16) - random_below(r, 64);
    case 2:
        return random_u64(r);
    case 3:
        return random_one_in(r, 2) ? UINT64_C(0xfffff000) + random_below(r, 2 * PAGE)
                                   : UINT64_C(0xfee00000) + random_below(r, PAGE);
    case 4: /* the ends of what is canonical */
        return (random_one_in(r, 2) ? UINT64_C(0x0000800000000000) : UINT64_C(0xffff800000000000)) -
               32 + random_below(r, 64);
    case 5:
        return AT_CODE + random_below(r, CODE_SIZE);
    default:
        return a + random_below(r, 0x8000);
    }
}

/* ---- devices ------------------------------------------------------------------------------------ */

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    static _Atomic(uint64_t) n;

    return atomic_fetch_add(&n, 1) * UINT64_C(0x9e3779b97f4a7c15) ^ offset;
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mem_region_ops locked_ops = {.read = device_read, .write = device_write};
static const struct mem_region_ops lockless_ops = {
    .read = device_read, .write = device_write, .lockless = true};

bool world_init(void)
{
    struct error *err = NULL;

    machine_lock();
    mem_region_init_io(&mmio, "mmio", 0x10000, &locked_ops, NULL);
    mem_region_init_io(&hole, "hole", PAGE, &lockless_ops, NULL);
    mem_region_init_io(&ports, "ports", 0x10000, &locked_ops, NULL);
    if (!mem_region_init_rom(&rom, "rom", 0x10000, &err) ||
        !mem_region_init_ram(&overlay, "overlay", OVERLAY_SIZE, false, &err)) {
        machine_unlock();
        error_report(err);
        return false;
    }
    mem_region_add_overlap(mem_root(), AT_MMIO, &mmio, 1);
    mem_region_add_overlap(mem_root(), AT_ROM, &rom, 1);
    mem_region_add_overlap(mem_root(), AT_HOLE, &hole, 1);
    mem_region_add_overlap(mem_root(), AT_OVERLAY, &overlay, 1);
    mem_region_add(io_root(), 0, &ports);
    machine_unlock();
    return true;
}

void world_cleanup(void)
{
    machine_lock();
    mem_region_remove(mem_root(), &mmio);
    mem_region_remove(mem_root(), &rom);
    mem_region_remove(mem_root(), &hole);
    mem_region_remove(mem_root(), &overlay);
    mem_region_remove(io_root(), &ports);
    machine_unlock();
    mem_region_destroy(&mmio);
    mem_region_destroy(&rom);
    mem_region_destroy(&hole);
    mem_region_destroy(&overlay);
    mem_region_destroy(&ports);
}

/* ---- tables ------------------------------------------------------------------------------------- */

static uint64_t code_or_any(struct random *r)
{
    return random_one_in(r, 12) ? random_address(r) : AT_CODE + random_below(r, CODE_SIZE);
}

/* A segment descriptor, or the first half of a system descriptor. */
static uint64_t descriptor(struct random *r, unsigned type)
{
    bool is_system = !(type & 0x10);
    uint64_t base = is_system ? AT_TSS + PAGE * random_below(r, 3) : 0;
    uint64_t limit = is_system ? 0x67 + random_below(r, 0x100) : 0xfffff;
    uint64_t dpl = random_one_in(r, 2) ? 0 : random_below(r, 4);
    uint64_t flags = is_system ? 0 : 0x8 | (random_one_in(r, 3) ? random_below(r, 16) : 0x4);

    if (random_one_in(r, 10)) {
        base = random_address(r);
    }
    if (random_one_in(r, 10)) {
        limit = random_value(r);
    }
    return (limit & 0xffff) | (base & 0xffffff) << 16 |
           (uint64_t)(type | dpl << 5 | (random_one_in(r, 16) ? 0 : 0x80)) << 40 |
           (limit >> 16 & 15) << 48 | flags << 52 | (base >> 24 & 0xff) << 56;
}

/* Of a call, interrupt, trap or task gate. */
static void gate(struct random *r, uint8_t *at, unsigned type)
{
    uint64_t offset = code_or_any(r), dpl = random_one_in(r, 2) ? 3 : random_below(r, 4);
    uint64_t selector = random_one_in(r, 10) ? random_u64(r) & 0xffff : random_below(r, 8) * 8;

    store_le64(at, (offset & 0xffff) | (selector & 0xffff) << 16 |
                       (uint64_t)(random_one_in(r, 6) ? random_below(r, 32) : 0) << 32 |
                       (uint64_t)(type | dpl << 5 | (random_one_in(r, 16) ? 0 : 0x80)) << 40 |
                       (offset >> 16 & 0xffff) << 48);
}

/* Selectors 0x08 and 0x10: code of 32 and 64 bits; 0x18: data; then anything. */
static void fill_descriptors(struct random *r, uint64_t at)
{
    store_le64(image_at(at + 0x08), UINT64_C(0x00cf9b000000ffff));
    store_le64(image_at(at + 0x10), UINT64_C(0x00af9b000000ffff));
    store_le64(image_at(at + 0x18), UINT64_C(0x00cf93000000ffff));
    store_le64(image_at(at + 0x20), UINT64_C(0x00cffb000000ffff));
    store_le64(image_at(at + 0x28), UINT64_C(0x00cff3000000ffff));
    store_le64(image_at(at + 0x30), UINT64_C(0x00affb000000ffff));
    store_le64(image_at(at + 0x38), UINT64_C(0x000f9b000000ffff));
    for (unsigned i = 8; i < 512; i++) {
        static const uint8_t system_types[] = {1, 2, 3, 9, 11, 4, 5, 12};
        uint8_t *entry = image_at(at + 8 * i);
        unsigned kind = random_below(r, 8);

        if (kind < 3) {
            store_le64(entry, descriptor(r, 0x10 | random_below(r, 16)));
        } else if (kind < 5) {
            store_le64(entry,
                       descriptor(r, system_types[random_below(r, ARRAY_SIZE(system_types))]));
        } else if (kind < 7) {
            gate(r, entry, random_one_in(r, 2) ? 12 : 4 + random_below(r, 12));
        } else {
            store_le64(entry, random_one_in(r, 2) ? 0 : random_u64(r));
        }
    }
}

static void fill_idt(struct random *r, unsigned step)
{
    static const uint8_t types[] = {14, 15, 6, 7, 5, 14, 15, 14};
    bool is_good = !random_one_in(r, 3); /* so that guests live longer */

    for (unsigned i = 0; i < 256 && i * step < PAGE; i++) {
        uint8_t *entry = image_at(AT_IDT + step * i);

        if (is_good && !random_one_in(r, 50)) {
            uint64_t offset = AT_CODE + random_below(r, CODE_SIZE);
            store_le64(entry, offset | (step == 16 ? 0x100000 : 0x80000) | UINT64_C(0xee) << 40);
            if (step == 16) {
                store_le64(entry + 8, 0);
            }
            continue;
        }
        gate(r, entry,
             random_one_in(r, 16) ? random_below(r, 32)
                                  : types[random_below(r, ARRAY_SIZE(types))]);
        if (step == 16) {
            store_le64(entry + 8, random_one_in(r, 16) ? random_u64(r) : 0);
        }
    }
}

/* Something that may be a selector of code or data. */
static uint16_t some_selector(struct random *r, bool is_code)
{
    static const uint8_t code[] = {0x08, 0x10, 0x23, 0x33, 0x38}, data[] = {0x18, 0x18, 0x2b};

    if (random_one_in(r, 12)) {
        return (uint16_t)random_value(r);
    }
    return is_code ? code[random_below(r, sizeof(code))] : data[random_below(r, sizeof(data))];
}

static uint64_t some_stack(struct random *r)
{
    return random_one_in(r, 12) ? random_value(r) : AT_DATA + random_below(r, DATA_SIZE);
}

static uint64_t some_flags(struct random *r)
{
    return X86_RFLAGS_FIXED | (random_one_in(r, 3) ? random_u64(r) & 0x3f7fd5 : X86_RFLAGS_IF);
}

/* Task states that a switch may get through with (SDM volume 3, 7.2.1 and 7.7). */
static void fill_good_tss(struct random *r, uint64_t at)
{
    if (random_one_in(r, 2)) {
        for (unsigned i = 0; i < 11; i++) { /* RSP0 to RSP2, IST1 to IST7 */
            store_le64(image_at(at + 4 + 8 * i), i == 3 ? 0 : some_stack(r));
        }
        return;
    }
    store_le32(image_at(at + 0x1c), AT_TABLES + 0x6000);
    store_le32(image_at(at + 0x20), (uint32_t)code_or_any(r));
    store_le32(image_at(at + 0x24), (uint32_t)some_flags(r));
    store_le32(image_at(at + 0x60), 0x40);
    for (unsigned i = 0; i < 6; i++) {
        store_le32(image_at(at + 0x48 + 4 * i), some_selector(r, i == 1));
    }
    for (unsigned i = 0; i < 3; i++) {
        store_le32(image_at(at + 4 + 8 * i), (uint32_t)some_stack(r));
        store_le32(image_at(at + 8 + 8 * i), some_selector(r, false));
    }
}

static void fill_tss(struct random *r)
{
    for (unsigned i = 0; i < 3 * PAGE; i += 4) {
        uint64_t value =
            random_one_in(r, 3) ? random_value(r) : AT_DATA + random_below(r, DATA_SIZE);

        if (random_one_in(r, 4)) {
            value = random_below(r, 64) * 8;
        }
        store_le32(image_at(AT_TSS + i), (uint32_t)value);
    }
    for (unsigned i = 0; i < 3; i++) {
        if (!random_one_in(r, 4)) {
            fill_good_tss(r, AT_TSS + i * PAGE);
        }
    }
}

/* What IRET and far returns pop, of 2, 4 or 8 bytes each. */
static unsigned put_frame(struct random *r, uint8_t *at)
{
    unsigned size = 2u << random_below(r, 3);
    uint64_t frame[9] = {code_or_any(r), some_selector(r, true), some_flags(r), some_stack(r),
                         some_selector(r, false)};

    if (random_one_in(r, 3)) { /* of a far return */
        frame[2] = frame[3];
        frame[3] = frame[4];
    }
    for (unsigned i = 5; i < 9; i++) {
        frame[i] = some_selector(r, false);
    }
    for (unsigned i = 0; i < 9; i++) {
        memcpy(at + size * i, &frame[i], size);
    }
    return 9 * size;
}

static uint64_t entry_bits(struct random *r)
{
    return 0x67 & ~(random_one_in(r, 30) ? random_u64(r) & 0x67 : 0);
}

static uint64_t maybe_junk(struct random *r, uint64_t entry)
{
    if (random_one_in(r, 100)) {
        return random_u64(r);
    }
    if (random_one_in(r, 60)) {
        return entry ^ UINT64_C(1) << random_below(r, 64);
    }
    if (random_one_in(r, 60)) { /* two linear addresses of one page; large pages of anywhere */
        return (random_address(r) & UINT64_C(0x000ffffffffff000)) | entry_bits(r) |
               (random_one_in(r, 2) ? 0x80 : 0);
    }
    return entry;
}

/* Linear addresses are physical ones, from 0 and from 0xffff800000000000, with mishaps. */
static void fill_page_tables(struct random *r)
{
    const uint64_t pml4 = AT_TABLES, pdpt = AT_TABLES + 0x1000, pd = AT_TABLES + 0x2000,
                   pt = AT_TABLES + 0x3000, pae = AT_TABLES + 0x5000, pd32 = AT_TABLES + 0x6000,
                   pt32 = AT_TABLES + 0x7000;

    memset(image_at(AT_TABLES), 0, 0x10000);
    for (unsigned i = 0; i < 512; i += 256) {
        store_le64(image_at(pml4 + 8 * i), maybe_junk(r, pdpt | 7));
    }
    for (unsigned i = 0; i < 4; i++) {
        store_le64(image_at(pdpt + 8 * i), maybe_junk(r, pd | 7));
        store_le64(image_at(pae + 8 * i), random_one_in(r, 50) ? random_u64(r) : pd | 1);
    }
    for (unsigned i = 0; i < 512; i++) {
        store_le64(image_at(pd + 8 * i),
                   maybe_junk(r, i < 2 ? (pt + PAGE * i) | 7 : (uint64_t)i << 21 | 0xe7));
    }
    for (unsigned i = 0; i < 1024; i++) {
        store_le64(image_at(pt + 8 * i), maybe_junk(r, (uint64_t)i << 12 | entry_bits(r)));
        store_le32(image_at(pd32 + 4 * i),
                   (uint32_t)maybe_junk(r, i < 1 ? pt32 | 7 : (uint64_t)i << 22 | 0xe7));
        store_le32(image_at(pt32 + 4 * i),
                   (uint32_t)maybe_junk(r, (uint64_t)i << 12 | entry_bits(r)));
    }
}

/* ---- memory ------------------------------------------------------------------------------------- */

static const uint8_t widths[] = {2, 4, 8};

static void fill_code(struct random *r)
{
    uint8_t *code = xmalloc(CODE_SIZE);
    unsigned width = widths[random_below(r, 3)];

    for (unsigned i = 0; i < CODE_SIZE; i += 1024) {
        if (random_one_in(r, 3)) {
            width = widths[random_below(r, 3)];
        }
        hostile_code(r, code + i, 1024, width, AT_CODE + i);
    }
    memcpy(image_at(AT_CODE), code, CODE_SIZE);
    if (random_one_in(r, 4)) {
        address_space_write_rom(address_space_memory, AT_ROM, code, PAGE);
        address_space_write(address_space_memory, AT_SMM + 0x8000, code, 256);
        address_space_write(address_space_memory, AT_HOLE - PAGE, code, PAGE);
    }
    free(code);
}

void world_fill(struct random *r)
{
    for (unsigned i = 0; i < 256; i++) {
        store_le32(image_at(AT_IVT + 4 * i), random_one_in(r, 10)
                                                 ? (uint32_t)random_u64(r)
                                                 : AT_CODE / 16 << 16 | random_below(r, CODE_SIZE));
    }
    fill_descriptors(r, AT_GDT);
    fill_descriptors(r, AT_LDT);
    fill_idt(r, random_one_in(r, 2) ? 16 : 8);
    fill_tss(r);
    fill_page_tables(r);
    for (unsigned i = 0; i < DATA_SIZE; i += 8) {
        unsigned kind = random_below(r, 4);
        store_le64(image_at(AT_DATA + i), kind == 0   ? code_or_any(r)
                                          : kind == 1 ? random_below(r, 16) * 8
                                                      : random_value(r));
    }
    for (unsigned i = 0; i + 80 < DATA_SIZE; i += 2 * random_below(r, 32)) {
        i += put_frame(r, image_at(AT_DATA + i));
    }
    fill_code(r);
    address_space_write(address_space_memory, 0, image, sizeof(image));
}

/* ---- registers ---------------------------------------------------------------------------------- */

enum mode {
    REAL,
    REAL_BIG,
    PROTECTED_16,
    PROTECTED_32,
    PAGED_32,
    PAGED_PAE,
    VIRTUAL_86,
    COMPATIBLE,
    LONG,
    MODES
};

static void set_segment(struct random *r, struct x86_segment *s, uint16_t selector,
                        uint32_t attributes, uint64_t base, uint32_t limit)
{
    *s = (struct x86_segment){
        .base = base, .limit = limit, .attributes = attributes, .selector = selector};
    if (random_one_in(r, 40)) {
        s->base = random_value(r);
        s->limit = (uint32_t)random_value(r);
    }
    if (random_one_in(r, 40)) {
        s->attributes = (uint32_t)random_u64(r) & 0x1f0ff;
    }
}

static void set_segments(struct random *r, struct x86_state *s, enum mode mode)
{
    bool is_real = mode <= REAL_BIG || mode == VIRTUAL_86;
    unsigned cpl = is_real || random_one_in(r, 2) ? 0 : 3;
    uint32_t dpl = mode == VIRTUAL_86 ? 0x60 : cpl << 5, code = 0x9b, data = 0x93;
    uint32_t limit = is_real && mode != REAL_BIG ? 0xffff : UINT32_MAX;

    if (mode == LONG) {
        code |= 0xa000;
    } else if (mode == PROTECTED_32 || mode == PAGED_32 || mode == PAGED_PAE ||
               mode == COMPATIBLE) {
        code |= 0xc000;
    }
    if (!is_real) {
        data |= random_one_in(r, 4) ? 0x8000 : 0xc000;
    }
    if (mode == VIRTUAL_86) {
        code = data = 0x93;
    }
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        uint16_t selector =
            (uint16_t)(is_real ? AT_DATA / 16 - 0x200 * random_below(r, 4) : 0x18 | cpl);
        set_segment(r, &s->segment[i], selector, data | dpl, is_real ? selector * 16u : 0, limit);
    }
    set_segment(r, &s->segment[X86_CS],
                (uint16_t)(is_real ? AT_CODE / 16 : (mode == LONG ? 0x10 : 0x08) | cpl), code | dpl,
                is_real ? AT_CODE : 0, limit);
    set_segment(r, &s->segment[X86_LDTR], 0x40, 0x82, AT_LDT, 0xfff);
    set_segment(r, &s->segment[X86_TR], 0x48,
                mode >= COMPATIBLE || random_one_in(r, 2) ? 0x8b : 0x83, AT_TSS, 0x2fff);
    s->rip = (is_real ? 0 : AT_CODE) + random_below(r, CODE_SIZE);
    if (mode == LONG && random_one_in(r, 4)) {
        s->rip |= UINT64_C(0xffff800000000000);
    }
}

static void set_control(struct random *r, struct x86_state *s, enum mode mode)
{
    static const uint64_t extra[] = {X86_CR4_VME, X86_CR4_PVI, X86_CR4_TSD,
                                     X86_CR4_DE,  X86_CR4_PSE, X86_CR4_PGE,
                                     X86_CR4_MCE, X86_CR4_PCE, X86_CR4_OSXMMEXCPT};

    s->cr0 = X86_CR0_ET | (mode > REAL_BIG ? X86_CR0_PE : 0) | (mode >= PAGED_32 ? X86_CR0_PG : 0);
    s->cr0 |= random_u64(r) & (X86_CR0_MP | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM);
    s->cr0 |= random_one_in(r, 16) ? random_u64(r) & (X86_CR0_EM | X86_CR0_TS) : 0;
    s->cr4 = random_one_in(r, 8) ? 0 : X86_CR4_OSFXSR;
    for (unsigned i = 0; i < ARRAY_SIZE(extra); i++) {
        s->cr4 |= random_one_in(r, 4) ? extra[i] : 0;
    }
    if (random_one_in(r, 2)) {
        s->cr4 |= X86_CR4_OSXSAVE;
        s->xcr0 = 7;
    }
    if (random_one_in(r, 4)) {
        s->cr4 |= random_u64(r) & (X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_FSGSBASE | X86_CR4_UMIP);
    }
    s->efer = random_one_in(r, 4) ? 0 : X86_EFER_SCE | X86_EFER_NXE;
    if (mode >= COMPATIBLE) {
        s->cr4 |= X86_CR4_PAE;
        s->efer |= X86_EFER_LME | X86_EFER_LMA;
        s->cr3 = AT_TABLES;
    } else if (mode == PAGED_PAE) {
        s->cr4 |= X86_CR4_PAE;
        s->cr3 = AT_TABLES + 0x5000;
    } else {
        s->cr3 = AT_TABLES + 0x6000;
    }
    if (random_one_in(r, 20)) {
        s->cr3 = random_address(r) & UINT64_C(0xfffffffff000);
    }
    for (unsigned i = 0; i < 4; i++) {
        s->dr[i] = random_address(r);
    }
    s->dr7 = random_one_in(r, 12) ? random_u64(r) & 0xffff23ff : 0x400;
    s->dr6 = 0xffff0ff0;
}

static void set_events(struct random *r, struct x86_events *e)
{
    memset(e, 0, sizeof(*e));
    if (random_one_in(r, 8)) {
        for (unsigned i = 0; i < sizeof(*e); i++) {
            ((uint8_t *)e)[i] = random_one_in(r, 3) ? 0 : 1;
        }
        e->exception_vector = (uint8_t)random_u64(r);
        e->exception_error = (uint32_t)random_value(r);
        e->exception_payload = random_value(r);
        e->interrupt_vector = (uint8_t)random_u64(r);
        e->interrupt_shadow = (uint8_t)random_u64(r);
        e->sipi_vector = (uint32_t)random_u64(r);
    }
    e->smi_pending = random_one_in(r, 30);
    e->nmi_pending = random_one_in(r, 30);
}

static void set_system_calls(struct random *r, struct x86_state *s)
{
    const struct x86_msr msrs[] = {
        {X86_MSR_STAR, (uint64_t)some_selector(r, false) << 48 | UINT64_C(8) << 32 | AT_CODE},
        {X86_MSR_LSTAR, code_or_any(r)},
        {X86_MSR_CSTAR, code_or_any(r)},
        {X86_MSR_SYSENTER_CS, some_selector(r, true)},
        {X86_MSR_SYSENTER_EIP, code_or_any(r)},
        {X86_MSR_SYSENTER_ESP, some_stack(r)},
    };

    s->msr_count = ARRAY_SIZE(msrs);
    memcpy(s->msr, msrs, sizeof(msrs));
}

void world_state(struct random *r, struct x86_state *s)
{
    enum mode mode = random_below(r, MODES);

    for (unsigned i = 0; i < X86_GPR_COUNT; i++) {
        s->gpr[i] = random_one_in(r, 3) ? random_value(r) : random_address(r);
    }
    s->gpr[X86_RCX] = random_one_in(r, 2) ? random_value(r) : random_below(r, 8192);
    s->gpr[X86_RSP] = random_one_in(r, 8) ? random_value(r) : AT_DATA + random_below(r, DATA_SIZE);
    s->rflags = X86_RFLAGS_FIXED | (random_u64(r) & (X86_RFLAGS_IOPL | X86_RFLAGS_DF));
    if (random_one_in(r, 2)) {
        s->rflags |= random_u64(r) & (X86_RFLAGS_IF | X86_RFLAGS_AC | X86_RFLAGS_NT);
    }
    s->rflags |= random_one_in(r, 16) ? X86_RFLAGS_TF : 0;
    s->rflags |= mode == VIRTUAL_86 ? X86_RFLAGS_VM : 0;
    set_segments(r, s, mode);
    set_control(r, s, mode == VIRTUAL_86 && random_one_in(r, 2) ? PAGED_32 : mode);
    s->cr0 |= mode == VIRTUAL_86 ? X86_CR0_PE : 0;
    s->gdt = (struct x86_table){AT_GDT, (uint16_t)(random_one_in(r, 10) ? random_u64(r) : 0xfff)};
    s->idt = (struct x86_table){mode <= REAL_BIG ? AT_IVT : AT_IDT,
                                (uint16_t)(random_one_in(r, 10) ? random_u64(r) : 0xfff)};
    if (random_one_in(r, 50)) {
        s->idt.base = random_address(r);
    }
    set_events(r, &s->events);
    s->mp_state = X86_MP_RUNNABLE;
    set_system_calls(r, s);
    if (random_one_in(r, 4)) {
        for (unsigned i = 0; i < 1024; i++) {
            s->xsave[i] = (uint8_t)random_u64(r);
        }
        s->xsave_size = random_one_in(r, 4) ? (uint32_t)random_value(r) : 832;
        s->msr_count = random_below(r, 8);
        for (unsigned i = 0; i < s->msr_count; i++) {
            s->msr[i] = (struct x86_msr){0xc0000080 + random_below(r, 6), random_value(r)};
        }
    }
}

void world_tame(struct x86_state *s, unsigned how)
{
    s->cr4 &= X86_CR4_PAE | X86_CR4_PSE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_DE |
              (how == 0 ? X86_CR4_OSXSAVE : 0);
    s->xcr0 = how == 0 ? s->xcr0 : 1;
}

/* ---- from outside ------------------------------------------------------------------------------- */

void world_disturb_map(struct random *r)
{
    machine_lock();
    switch (random_below(r, 3)) {
    case 0:
        mem_region_set_enabled(&overlay, !overlay.enabled);
        break;
    case 1:
        mem_transaction_begin();
        mem_region_set_offset(&overlay, AT_OVERLAY - (random_one_in(r, 2) ? 0 : PAGE));
        mem_region_set_readonly(&overlay, random_one_in(r, 2));
        mem_transaction_commit();
        break;
    default:
        mem_region_set_dirty_log(&test_ram, random_one_in(r, 2));
        mem_region_set_enabled(&mmio, !mmio.enabled);
    }
    machine_unlock();
}

void world_disturb(struct random *r)
{
    uint8_t bytes[256];
    unsigned size = 1 + random_below(r, sizeof(bytes));

    switch (random_below(r, 8)) {
    case 0:
    case 1:
    case 2:
        world_disturb_map(r);
        break;
    case 3:
        address_space_read(address_space_memory, AT_DATA + random_below(r, DATA_SIZE), bytes, size);
        break;
    case 4:
        for (unsigned i = 0; i + 8 <= sizeof(bytes); i += 8) {
            store_le64(bytes + i, maybe_junk(r, AT_CODE | 7));
        }
        address_space_write(address_space_memory, AT_TABLES + random_below(r, 0x8000), bytes, size);
        break;
    default:
        hostile_code(r, bytes, size, widths[random_below(r, 3)], 0);
        address_space_write(address_space_memory, AT_CODE + random_below(r, CODE_SIZE - 256), bytes,
                            size);
        break;
    }
}
