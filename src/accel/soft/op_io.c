/* SPDX-License-Identifier: MIT */
/*
 * IN, OUT, INS, OUTS (SDM volume 2). The access is an exit (VCPU_EXIT_IO) that soft_exit_inline() has
 * done at once. The block ends: a device may have changed memory, translations, or asked for the vCPU.
 *
 * op->disp: the port of the forms with an immediate, or -1: DX.
 */
#include <string.h>

#include "accel/soft/event.h"
#include "accel/soft/mmu.h"
#include "accel/soft/string.h"

#define DR7_ENABLES 0xffu

/* Items of one exit. */
static void exit_io(struct soft_cpu *cpu, uint16_t port, void *data, uint64_t count, unsigned size,
                    bool is_write)
{
    struct vcpu_exit *exit = &cpu->vcpu->exit;

    exit->reason = VCPU_EXIT_IO;
    exit->io.data = data;
    exit->io.count = (uint32_t)count;
    exit->io.port = port;
    exit->io.size = (uint8_t)size;
    exit->io.is_write = is_write;
    soft_exit_inline(cpu);
}

static uint16_t port_of(const struct soft_cpu *cpu, const struct soft_op *op)
{
    return op->disp < 0 ? (uint16_t)cpu->gpr[X86_RDX] : (uint16_t)op->disp;
}

/* ---- IN, OUT --------------------------------------------------------------------------------- */

static void in(struct soft_cpu *cpu, const struct soft_op *op)
{
    unsigned size = op->aux;
    uint16_t port = port_of(cpu, op);
    uint32_t value = UINT32_MAX;

    soft_check_io(cpu, port, size);
    exit_io(cpu, port, &value, 1, size, false);
    soft_watch_io(cpu, port, size);
    if (size == 1) {
        soft_set_reg8(cpu, X86_RAX * 8, (uint8_t)value);
    } else if (size == 2) {
        soft_set_reg16(cpu, X86_RAX * 8, (uint16_t)value);
    } else {
        soft_set_reg32(cpu, X86_RAX * 8, value);
    }
}

static void out(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint16_t port = port_of(cpu, op);
    uint32_t value = (uint32_t)cpu->gpr[X86_RAX];

    soft_check_io(cpu, port, op->aux);
    exit_io(cpu, port, &value, 1, op->aux, true);
    soft_watch_io(cpu, port, op->aux);
}

static void lower_port(struct soft_lower *l, const ZydisDecodedOperand *port,
                       const ZydisDecodedOperand *data, soft_slow_fn *fn)
{
    l->op->disp = soft_is_immediate(port) ? (uint8_t)port->imm.value.u : -1;
    l->op->aux = data->size / 8;
    soft_lower_call_end(l, fn);
}

void soft_lower_in(struct soft_lower *l, uintptr_t arg)
{
    lower_port(l, soft_operand(l, 1), soft_operand(l, 0), in);
}

void soft_lower_out(struct soft_lower *l, uintptr_t arg)
{
    lower_port(l, soft_operand(l, 0), soft_operand(l, 1), out);
}

/* ---- INS, OUTS ------------------------------------------------------------------------------- */

/*
 * A chunk of items by one exit, if its page is plain memory. That it can be written is made sure of
 * before the port is read, which cannot be undone.
 */
static uint64_t ins_chunk(struct soft_cpu *cpu, const struct soft_op *op, uint64_t count)
{
    struct string_side to = string_side_at(cpu, op, X86_RDI, SOFT_WRITE);
    unsigned size = string_size(op);
    uint64_t chunk = string_chunk(cpu, op, &to, count);
    uint8_t data[4096];

    soft_probe_write(cpu, to.linear, size);
    if (!chunk || cpu->rflags & X86_RFLAGS_DF || !soft_write_pointer(cpu, to.linear, 1)) {
        chunk = 1;
    }
    memset(data, 0xff, chunk * size);
    exit_io(cpu, (uint16_t)cpu->gpr[X86_RDX], data, chunk, size, false);
    /* Item by item: the translation may have gone meanwhile. */
    for (uint64_t i = 0; i < chunk; i++) {
        uint64_t value = 0;

        memcpy(&value, data + i * size, size);
        string_store(cpu, op, to.linear + i * size, value);
    }
    string_advance(cpu, op, X86_RDI, chunk);
    return chunk;
}

static uint64_t outs_chunk(struct soft_cpu *cpu, const struct soft_op *op, uint64_t count)
{
    struct string_side from = string_side_at(cpu, op, X86_RSI, SOFT_READ);
    unsigned size = string_size(op);
    uint64_t chunk = string_chunk(cpu, op, &from, count);
    uint8_t data[4096];

    if (!chunk || cpu->rflags & X86_RFLAGS_DF || !soft_read_pointer(cpu, from.linear, 1)) {
        chunk = 1;
    }
    for (uint64_t i = 0; i < chunk; i++) {
        uint64_t value = string_load(cpu, op, from.linear + i * size);

        memcpy(data + i * size, &value, size);
    }
    exit_io(cpu, (uint16_t)cpu->gpr[X86_RDX], data, chunk, size, true);
    string_advance(cpu, op, X86_RSI, chunk);
    return chunk;
}

/* One chunk; what is left begins the instruction again, after whoever asked was heard. */
static void run(struct soft_cpu *cpu, const struct soft_op *op,
                uint64_t (*chunk)(struct soft_cpu *cpu, const struct soft_op *op, uint64_t count))
{
    const uint64_t mask = string_mask(op);
    bool repeats = op->aux & STRING_ANY;
    uint64_t count = repeats ? cpu->gpr[X86_RCX] & mask : 1;

    /* Processors ask for the permission even if nothing is left to do. */
    soft_check_io(cpu, (uint16_t)cpu->gpr[X86_RDX], string_size(op));
    if (!count) {
        return;
    }
    /* Breakpoints trap behind each iteration. */
    count -= chunk(cpu, op, cpu->dr7 & DR7_ENABLES ? 1 : string_limit(cpu, count));
    soft_watch_io(cpu, (uint16_t)cpu->gpr[X86_RDX], string_size(op));
    if (repeats) {
        string_set(cpu, X86_RCX, count, mask);
        if (count) {
            cpu->rflags |= X86_RFLAGS_RF;
            cpu->next_ip = cpu->rip;
        }
    }
}

static void ins(struct soft_cpu *cpu, const struct soft_op *op)
{
    run(cpu, op, ins_chunk);
}

static void outs(struct soft_cpu *cpu, const struct soft_op *op)
{
    run(cpu, op, outs_chunk);
}

/* arg: bytes. */
void soft_lower_ins(struct soft_lower *l, uintptr_t arg)
{
    string_lower(l, (unsigned)arg);
    soft_lower_call_end(l, ins);
}

void soft_lower_outs(struct soft_lower *l, uintptr_t arg)
{
    string_lower(l, (unsigned)arg);
    soft_lower_call_end(l, outs);
}
