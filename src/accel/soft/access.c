/* SPDX-License-Identifier: MIT */
/*
 * Loads and stores that the fast paths of tlb.h do not take: across pages, to devices and ROM, to
 * pages with code, with data breakpoints or alignment checks.
 *
 *      check everything --> one or two pieces --> host memory, or an exit of at most 8 bytes each
 *
 * All that can fault comes before the first byte is moved. An exit leaves the guest; the memory map
 * may be another one afterwards, but what the guest's tables said still holds for this access: what is
 * left of it goes by physical address.
 */
#include <string.h>

#include "accel/soft/mailbox.h"
#include "accel/soft/mmu.h"

#define DR7_ENABLES 0xffu

/* ---- checks ------------------------------------------------------------------------------------ */

/* SDM volume 3, table 6-7: the alignment that an operand of a size is checked for. Of vectors, where
 * the processor may choose, 8 bytes. */
static unsigned alignment_of(unsigned size)
{
    switch (size) {
    case 6:  /* 48-bit far pointer */
    case 28: /* FLDENV, FSTENV */
        return 4;
    case 10: /* m80fp */
        return 8;
    case 14: /* FLDENV, FSTENV with 16-bit operands */
        return 2;
    default:
        return size >= 8 ? 8 : size & -size;
    }
}

static bool is_wide(const struct soft_cpu *cpu, unsigned flags)
{
    return flags & SOFT_ACCESS_IMPLICIT ? (cpu->efer & X86_EFER_LMA) != 0 : soft_is_64(cpu);
}

static uint64_t check_address(struct soft_cpu *cpu, unsigned flags, uint64_t linear, unsigned size)
{
    if (!is_wide(cpu, flags)) {
        linear = (uint32_t)linear;
    }
    /* Before the page is looked at, as Intel's processors do. */
    if (cpu->tlb->check_alignment && !(flags & SOFT_ACCESS_IMPLICIT) &&
        linear % alignment_of(size)) {
        soft_raise(cpu, EXC_AC, 0);
    }
    if (is_wide(cpu, flags) &&
        (!soft_is_canonical(cpu, linear) || !soft_is_canonical(cpu, linear + size - 1))) {
        soft_raise(cpu, flags & SOFT_ACCESS_STACK ? EXC_SS : EXC_GP, 0);
    }
    return linear;
}

/* ---- pieces ------------------------------------------------------------------------------------ */

static struct soft_piece piece_of(struct soft_cpu *cpu, enum soft_mmu mmu, uint64_t linear,
                                  unsigned size, uint32_t access)
{
    const struct soft_tlb_entry *e = soft_tlb_get(cpu, mmu, linear, access);
    const struct soft_tlb_info *info = soft_tlb_info_of(cpu, mmu, linear);
    uint64_t tag = access == SOFT_PF_WRITE ? e->write : e->read;
    bool is_direct = !(tag & (SOFT_TLB_IO | SOFT_TLB_ROM));

    return (struct soft_piece){
        .phys = info->phys | (linear & 4095),
        .host = is_direct ? (uint8_t *)(uintptr_t)(linear + e->addend) : NULL,
        .ram = info->ram,
        .ram_page = info->ram_page,
        .size = size,
        .dirty_log = tag & SOFT_TLB_LOG,
        .fast = is_direct && !(tag & (SOFT_TLB_CODE | SOFT_TLB_LOG)),
    };
}

unsigned soft_pieces(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                     unsigned size, uint32_t access, struct soft_piece piece[2])
{
    linear = check_address(cpu, flags, linear, size);

    unsigned here = MIN(size, 4096 - (unsigned)(linear & 4095));
    uint64_t next = linear + here;

    piece[0] = piece_of(cpu, mmu, linear, here, access);
    if (here == size) {
        return 1;
    }
    if (!is_wide(cpu, flags)) {
        next = (uint32_t)next;
    }
    piece[1] = piece_of(cpu, mmu, next, size - here, access);
    return 2;
}

uint8_t *soft_direct(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                     unsigned size, uint32_t access)
{
    const struct soft_tlb_entry *e;
    uint64_t tag;

    linear = check_address(cpu, flags, linear, size);
    if ((linear & 4095) + size > 4096) {
        return NULL;
    }
    e = soft_tlb_get(cpu, mmu, linear, access);
    tag = access == SOFT_PF_WRITE ? e->write : e->read;
    return tag == (linear & SOFT_PAGE_MASK) ? (uint8_t *)(uintptr_t)(linear + e->addend) : NULL;
}

struct soft_piece soft_piece_at(struct soft_cpu *cpu, uint64_t phys, unsigned size, uint32_t access)
{
    struct soft_host_page page = soft_host_page(cpu, phys);
    bool is_direct = page.host && !(access == SOFT_PF_WRITE && page.readonly);

    return (struct soft_piece){
        .phys = phys,
        .host = is_direct ? page.host + (phys & 4095) : NULL,
        .ram = page.ram,
        .ram_page = page.ram_page,
        .size = size,
        .dirty_log = page.dirty_log,
    };
}

static void exit_for(struct soft_cpu *cpu, uint64_t phys, uint8_t *data, unsigned size,
                     bool is_write)
{
    struct vcpu_exit *exit = &cpu->vcpu->exit;

    exit->reason = VCPU_EXIT_MMIO;
    exit->mmio.address = phys;
    exit->mmio.data = data;
    exit->mmio.length = size;
    exit->mmio.is_write = is_write;
    exit->mmio.is_smm = cpu->smm;
    soft_exit_inline(cpu);
}

/* At most 8 bytes at a time; the address space splits them as the device wants. */
static void move_by_exits(struct soft_cpu *cpu, uint64_t phys, uint8_t *buf, unsigned size,
                          bool is_write)
{
    uint8_t data[8];

    for (unsigned done = 0; done < size; done += sizeof(data)) {
        unsigned n = MIN(size - done, (unsigned)sizeof(data));

        memset(data, 0, sizeof(data));
        if (is_write) {
            memcpy(data, buf + done, n);
        }
        exit_for(cpu, phys + done, data, n, is_write);
        if (!is_write) {
            memcpy(buf + done, data, n);
        }
    }
}

bool soft_piece_load(struct soft_cpu *cpu, const struct soft_piece *piece, void *buf)
{
    if (piece->host) {
        soft_copy_from_guest(buf, piece->host, piece->size);
        return false;
    }
    move_by_exits(cpu, piece->phys, buf, piece->size, false);
    return true;
}

bool soft_piece_store(struct soft_cpu *cpu, const struct soft_piece *piece, const void *buf)
{
    if (!piece->host) {
        move_by_exits(cpu, piece->phys, (uint8_t *)buf, piece->size, true);
        return true;
    }
    soft_copy_to_guest(piece->host, buf, piece->size);
    if (!piece->fast) {
        soft_after_write(cpu, piece->ram, piece->ram_page, piece->phys & 4095, piece->size,
                         piece->dirty_log);
    }
    return false;
}

/* ---- data breakpoints -------------------------------------------------------------------------- */

void soft_watch(struct soft_cpu *cpu, uint64_t linear, unsigned size, bool is_write)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4}; /* DR7.LENn; the address is aligned to it */
    uint64_t hits = 0;

    for (unsigned i = 0; i < 4; i++) {
        unsigned control = cpu->dr7 >> (16 + 4 * i) & 15;
        unsigned length = lengths[control >> 2], type = control & 3;

        if ((cpu->dr7 >> (2 * i) & 3) && (type == 3 || (type == 1 && is_write)) &&
            range_overlaps(align_down(cpu->dr[i], length), length, linear, size)) {
            hits |= BIT64(i);
        }
    }
    if (hits) {
        cpu->pending_dr6 |= hits;
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
}

void soft_watch_io(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    uint64_t hits = 0;

    if (!(cpu->dr7 & DR7_ENABLES) || !(cpu->cr4 & X86_CR4_DE)) {
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        unsigned control = cpu->dr7 >> (16 + 4 * i) & 15, length = lengths[control >> 2];

        if ((cpu->dr7 >> (2 * i) & 3) && (control & 3) == 2 &&
            range_overlaps(align_down(cpu->dr[i], length), length, port, size)) {
            hits |= BIT64(i);
        }
    }
    if (hits) {
        cpu->pending_dr6 |= hits;
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
}

static void watch(struct soft_cpu *cpu, uint64_t linear, unsigned size, bool is_write)
{
    if (__builtin_expect(cpu->dr7 & DR7_ENABLES, 0)) {
        soft_watch(cpu, linear, size, is_write);
    }
}

/* ---- loads and stores -------------------------------------------------------------------------- */

void soft_load_at(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                  void *buf, unsigned size)
{
    const uint8_t *host = soft_direct(cpu, mmu, flags, linear, size, SOFT_PF_READ);
    struct soft_piece piece[2];

    if (host) {
        soft_copy_from_guest(buf, host, size);
        return;
    }
    unsigned count = soft_pieces(cpu, mmu, flags, linear, size, SOFT_PF_READ, piece);
    if (soft_piece_load(cpu, &piece[0], buf) && count == 2) {
        piece[1] = soft_piece_at(cpu, piece[1].phys, piece[1].size, SOFT_PF_READ);
    }
    if (count == 2) {
        soft_piece_load(cpu, &piece[1], (uint8_t *)buf + piece[0].size);
    }
    watch(cpu, linear, size, false);
}

void soft_store_at(struct soft_cpu *cpu, enum soft_mmu mmu, unsigned flags, uint64_t linear,
                   const void *buf, unsigned size)
{
    uint8_t *host = soft_direct(cpu, mmu, flags, linear, size, SOFT_PF_WRITE);
    struct soft_piece piece[2];

    if (host) {
        soft_copy_to_guest(host, buf, size);
        return;
    }
    unsigned count = soft_pieces(cpu, mmu, flags, linear, size, SOFT_PF_WRITE, piece);
    if (soft_piece_store(cpu, &piece[0], buf) && count == 2) {
        piece[1] = soft_piece_at(cpu, piece[1].phys, piece[1].size, SOFT_PF_WRITE);
    }
    if (count == 2) {
        soft_piece_store(cpu, &piece[1], (const uint8_t *)buf + piece[0].size);
    }
    watch(cpu, linear, size, true);
}

void soft_load_slow(struct soft_cpu *cpu, uint64_t linear, void *buf, unsigned size)
{
    soft_load_at(cpu, cpu->tlb->data_mmu, 0, linear, buf, size);
}

void soft_store_slow(struct soft_cpu *cpu, uint64_t linear, const void *buf, unsigned size)
{
    soft_store_at(cpu, cpu->tlb->data_mmu, 0, linear, buf, size);
}

void soft_probe_write(struct soft_cpu *cpu, uint64_t linear, unsigned size)
{
    struct soft_piece piece[2];

    soft_pieces(cpu, cpu->tlb->data_mmu, 0, linear, size, SOFT_PF_WRITE, piece);
}

void *soft_rmw_pointer(struct soft_cpu *cpu, uint64_t linear, unsigned size)
{
    uint8_t *host = soft_direct(cpu, cpu->tlb->data_mmu, 0, linear, size, SOFT_PF_WRITE);
    struct soft_piece piece[2];

    if (host) {
        return host;
    }
    unsigned count = soft_pieces(cpu, cpu->tlb->data_mmu, 0, linear, size, SOFT_PF_WRITE, piece);
    if (count == 2 || !piece[0].fast) {
        return NULL;
    }
    watch(cpu, linear, size, true);
    return piece[0].host;
}

/* ---- implicit accesses ------------------------------------------------------------------------- */

/* With SMAP, implicit accesses to user pages are refused whatever EFLAGS.AC is (SDM volume 3,
 * 4.6.1). */
static enum soft_mmu system_mmu(const struct soft_cpu *cpu, bool user)
{
    if (user) {
        return SOFT_MMU_USER;
    }
    return cpu->cr4 & X86_CR4_SMAP ? SOFT_MMU_KERNEL_SMAP : SOFT_MMU_KERNEL;
}

void soft_system_load(struct soft_cpu *cpu, uint64_t linear, void *buf, unsigned size, bool user)
{
    soft_load_at(cpu, system_mmu(cpu, user), SOFT_ACCESS_IMPLICIT, linear, buf, size);
}

void soft_system_store(struct soft_cpu *cpu, uint64_t linear, const void *buf, unsigned size,
                       bool user)
{
    soft_store_at(cpu, system_mmu(cpu, user), SOFT_ACCESS_IMPLICIT, linear, buf, size);
}

void soft_system_push(struct soft_cpu *cpu, uint64_t linear, const void *buf, unsigned size,
                      unsigned item, bool user)
{
    struct soft_piece piece[2];

    soft_pieces(cpu, system_mmu(cpu, user), SOFT_ACCESS_IMPLICIT, linear + size - item, item,
                SOFT_PF_WRITE, piece);
    soft_system_store(cpu, linear, buf, size, user);
}

/* ---- code outside of memory -------------------------------------------------------------------- */

void soft_fetch_bytes(struct soft_cpu *cpu, uint64_t linear, uint8_t *buf, unsigned size)
{
    while (size) {
        unsigned n = MIN(size, 4096 - (unsigned)(linear & 4095));
        struct soft_tlb_info info;
        const uint8_t *host = soft_fetch_pointer(cpu, linear, &info);

        if (host) {
            soft_copy_from_guest(buf, host, n);
        } else {
            move_by_exits(cpu, info.phys | (linear & 4095), buf, n, false);
        }
        buf += n;
        size -= n;
        linear += n;
    }
}
