/* SPDX-License-Identifier: MIT */
/*
 * Memory operands (op.h): their addresses by the rules of segmentation, and what the inline fast paths
 * leave over.
 */
#include "accel/soft/mailbox.h"
#include "accel/soft/mmu.h"

/* ---- addresses --------------------------------------------------------------------------------- */

/* Attributes as in struct x86_segment (SDM volume 3, 3.4.5.1). */
#define TYPE_CODE        (1u << 3)
#define TYPE_EXPAND_DOWN (1u << 2) /* of data */
#define TYPE_WRITABLE    (1u << 1) /* of data */
#define TYPE_READABLE    (1u << 1) /* of code */

static bool type_allows(uint32_t attributes, enum soft_access access)
{
    if (attributes & TYPE_CODE) {
        return access == SOFT_READ && attributes & TYPE_READABLE;
    }
    return access == SOFT_READ || attributes & TYPE_WRITABLE;
}

/* SDM volume 3, 5.3. With a limit of 4 GiB - 1 an operand may wrap, as it may on a processor. */
static bool within_limit(const struct x86_segment *s, uint32_t offset, unsigned size)
{
    uint64_t last = (uint64_t)offset + size - 1;

    if ((s->attributes & (TYPE_CODE | TYPE_EXPAND_DOWN)) == TYPE_EXPAND_DOWN) {
        uint32_t top = s->attributes & X86_SEGMENT_D ? UINT32_MAX : UINT16_MAX;
        return offset > s->limit && last <= top;
    }
    return last <= s->limit || s->limit == UINT32_MAX;
}

/* Outside of 64-bit mode: may the segment be used so (SDM volume 3, 5.3 to 5.5)? */
static bool segment_allows(const struct soft_cpu *cpu, const struct x86_segment *s, uint64_t offset,
                           unsigned size, enum soft_access access)
{
    /* Types count in protected mode only; real and virtual-8086 mode have limits alone. */
    if (soft_is_protected(cpu) &&
        (s->attributes & X86_SEGMENT_UNUSABLE || !type_allows(s->attributes, access))) {
        return false;
    }
    return within_limit(s, (uint32_t)offset, size);
}

static uint64_t linear_of(const struct soft_cpu *cpu, enum x86_segment_register seg,
                          uint64_t offset)
{
    if (soft_is_64(cpu)) {
        return seg == X86_FS || seg == X86_GS ? offset + cpu->seg_base[seg] : offset;
    }
    return (uint32_t)(cpu->seg_base[seg] + offset);
}

static uint8_t segment_fault(enum x86_segment_register seg)
{
    return seg == X86_SS ? EXC_SS : EXC_GP;
}

uint64_t soft_segment_linear(struct soft_cpu *cpu, enum x86_segment_register seg, uint64_t offset,
                             unsigned size, enum soft_access access)
{
    if (!soft_is_64(cpu) && !segment_allows(cpu, &cpu->seg[seg], offset, size, access)) {
        soft_raise(cpu, segment_fault(seg), 0);
    }
    return linear_of(cpu, seg, offset);
}

uint64_t soft_linear_general(struct soft_cpu *cpu, const struct soft_op *op, unsigned size,
                             enum soft_access access)
{
    enum x86_segment_register seg = op->info & SOFT_OP_SEGMENT;
    uint64_t offset = soft_effective(cpu, op);

    if (op->info & SOFT_OP_ADDR16) {
        offset = (uint16_t)offset;
    } else if (op->info & SOFT_OP_ADDR32) {
        offset = (uint32_t)offset;
    }
    if (!soft_is_64(cpu) && !segment_allows(cpu, &cpu->seg[seg], offset, size, access)) {
        soft_op_raise(cpu, op, segment_fault(seg), 0);
    }
    return linear_of(cpu, seg, offset);
}

/* ---- loads and stores -------------------------------------------------------------------------- */

static unsigned flags_of(const struct soft_op *op)
{
    return (op->info & SOFT_OP_SEGMENT) == X86_SS ? SOFT_ACCESS_STACK : 0;
}

#define SOFT_MISS(bits)                                                                            \
    uint##bits##_t soft_load##bits##_miss(struct soft_cpu *cpu, const struct soft_op *op,          \
                                          uint64_t linear)                                         \
    {                                                                                              \
        uint##bits##_t v = 0;                                                                      \
                                                                                                   \
        soft_sync(cpu, op);                                                                        \
        soft_load_at(cpu, cpu->tlb->data_mmu, flags_of(op), linear, &v, bits / 8);                 \
        return v;                                                                                  \
    }                                                                                              \
    void soft_store##bits##_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,  \
                                 uint##bits##_t v)                                                 \
    {                                                                                              \
        soft_sync(cpu, op);                                                                        \
        soft_store_at(cpu, cpu->tlb->data_mmu, flags_of(op), linear, &v, bits / 8);                \
    }
SOFT_MISS(8)
SOFT_MISS(16)
SOFT_MISS(32)
SOFT_MISS(64)

void soft_load_bytes(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear, void *buf,
                     unsigned size)
{
    const uint8_t *p = soft_read_pointer(cpu, linear, size);

    if (__builtin_expect(!p, 0)) {
        soft_sync(cpu, op);
        soft_load_at(cpu, cpu->tlb->data_mmu, flags_of(op), linear, buf, size);
    } else if (size == 16) {
        soft_host_load128(buf, p);
    } else if (size == 32) {
        soft_host_load128(buf, p);
        soft_host_load128((uint8_t *)buf + 16, p + 16);
    } else {
        soft_copy_from_guest(buf, p, size);
    }
}

void soft_store_bytes(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                      const void *buf, unsigned size)
{
    uint8_t *p = soft_write_pointer(cpu, linear, size);

    if (__builtin_expect(!p, 0)) {
        soft_sync(cpu, op);
        soft_store_at(cpu, cpu->tlb->data_mmu, flags_of(op), linear, buf, size);
    } else if (size == 16) {
        soft_host_store128(p, buf);
    } else if (size == 32) {
        soft_host_store128(p, buf);
        soft_host_store128(p + 16, (const uint8_t *)buf + 16);
    } else {
        soft_copy_to_guest(p, buf, size);
    }
}

/* ---- read-modify-write ------------------------------------------------------------------------- */

/*
 * What has no single host address is copied to cpu->scratch and back. Where to is kept as physical
 * addresses: the copy back must not fault, and the map may change while a device is read.
 */

static void note_pieces(struct soft_rmw *rmw, const struct soft_piece piece[2], unsigned count)
{
    *rmw = (struct soft_rmw){.phys = {piece[0].phys}, .size = {piece[0].size}};
    if (count == 2) {
        rmw->phys[1] = piece[1].phys;
        rmw->size[1] = piece[1].size;
    }
}

static struct soft_piece rmw_piece(struct soft_cpu *cpu, unsigned i, uint32_t access)
{
    const struct soft_rmw *rmw = &cpu->tlb->rmw;

    if (!rmw->exclusive) {
        return soft_piece_at(cpu, rmw->phys[i], rmw->size[i], access);
    }
    return (struct soft_piece){
        .phys = rmw->phys[i],
        .host = rmw->memory[i].host,
        .ram = rmw->memory[i].ram,
        .ram_page = rmw->memory[i].ram_page,
        .size = rmw->size[i],
        .dirty_log = rmw->memory[i].dirty_log,
    };
}

static void load_scratch(struct soft_cpu *cpu)
{
    const struct soft_rmw *rmw = &cpu->tlb->rmw;
    uint8_t *to = cpu->scratch;

    for (unsigned i = 0; i < 2 && rmw->size[i]; i++) {
        struct soft_piece piece = rmw_piece(cpu, i, SOFT_PF_READ);
        soft_piece_load(cpu, &piece, to);
        to += rmw->size[i];
    }
}

static void store_scratch(struct soft_cpu *cpu)
{
    const struct soft_rmw *rmw = &cpu->tlb->rmw;
    const uint8_t *from = cpu->scratch;

    for (unsigned i = 0; i < 2 && rmw->size[i]; i++) {
        struct soft_piece piece = rmw_piece(cpu, i, SOFT_PF_WRITE);
        soft_piece_store(cpu, &piece, from);
        from += rmw->size[i];
    }
}

/* All of it is memory that may be written: notes where. */
static bool find_memory(struct soft_cpu *cpu)
{
    struct soft_rmw *rmw = &cpu->tlb->rmw;

    for (unsigned i = 0; i < 2 && rmw->size[i]; i++) {
        struct soft_piece piece = soft_piece_at(cpu, rmw->phys[i], rmw->size[i], SOFT_PF_WRITE);

        if (!piece.host) {
            return false;
        }
        rmw->memory[i].host = piece.host;
        rmw->memory[i].ram = piece.ram;
        rmw->memory[i].ram_page = piece.ram_page;
        rmw->memory[i].dirty_log = piece.dirty_log;
    }
    return true;
}

/* Host pointer, or NULL with tlb->rmw filled in. */
static void *begin(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear, unsigned size)
{
    enum soft_mmu mmu = cpu->tlb->data_mmu;
    struct soft_piece piece[2];
    unsigned count;
    uint8_t *host;

    soft_sync(cpu, op);
    host = soft_direct(cpu, mmu, flags_of(op), linear, size, SOFT_PF_WRITE);
    if (host) {
        return host;
    }
    count = soft_pieces(cpu, mmu, flags_of(op), linear, size, SOFT_PF_WRITE, piece);
    if (cpu->dr7 & 0xff) {
        soft_watch(cpu, linear, size, true);
    }
    if (count == 1 && piece[0].fast) {
        return piece[0].host;
    }
    note_pieces(&cpu->tlb->rmw, piece, count);
    return NULL;
}

void *soft_rmw_begin_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                          unsigned size)
{
    void *p = begin(cpu, op, linear, size);

    if (p) {
        return p;
    }
    load_scratch(cpu);
    return cpu->scratch;
}

void soft_rmw_end_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                       unsigned size)
{
    store_scratch(cpu);
}

void *soft_locked_begin_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                             unsigned size)
{
    struct soft_rmw *rmw = &cpu->tlb->rmw;
    void *p = begin(cpu, op, linear, size);

    if (p) {
        return p;
    }
    /* Not for devices: while one is called, whoever holds the machine lock may be waiting to hold
     * all vCPUs. */
    if (cpu->soft->count_max > 1 && find_memory(cpu)) {
        soft_exclusive_begin(cpu);
        rmw->exclusive = find_memory(cpu);
        if (!rmw->exclusive) { /* the map has changed meanwhile */
            soft_exclusive_end(cpu);
        }
    }
    load_scratch(cpu);
    return cpu->scratch;
}

void soft_locked_end_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                          unsigned size)
{
    struct soft_rmw *rmw = &cpu->tlb->rmw;

    store_scratch(cpu);
    if (rmw->exclusive) {
        rmw->exclusive = false;
        soft_exclusive_end(cpu);
    }
}
