/* SPDX-License-Identifier: MIT */
/* x87 control instructions: words, environment and whole state in memory (SDM volume 1, 8.1.8 to
 * 8.1.11; volume 2 for each). None of them touches the host's unit. */
#include "accel/soft/x87.h"

#include <string.h>

#include "base/bytes.h"

/* ---- words ----------------------------------------------------------------------------------- */

void soft_x87_fwait(struct soft_cpu *cpu, const struct soft_op *op)
{
    /* CR0.MP tells whether WAIT looks at TS (SDM volume 3, table 2-2). */
    if ((cpu->mode & SOFT_MODE_TS) && (cpu->cr0 & X86_CR0_MP)) {
        soft_op_raise_no_error(cpu, op, EXC_NM);
    }
    soft_x87_wait(cpu, op);
}

void soft_x87_init(struct soft_cpu *cpu)
{
    struct soft_x87 *x = &cpu->x87;

    x->control = X87_CONTROL_INIT;
    x->status = 0;
    x->top = 0;
    x->used = 0;
    x->opcode = 0;
    x->ip = x->dp = 0;
    x->ip_selector = x->dp_selector = 0;
}

void soft_x87_fninit(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    soft_x87_init(cpu);
}

void soft_x87_fnclex(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)op;
    cpu->x87.status &= ~(X87_EXCEPTIONS | X87_SF);
}

void soft_x87_fldcw(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_x87_wait(cpu, op);
    soft_x87_set_control(cpu, soft_load16(cpu, op, soft_linear(cpu, op, 2, SOFT_READ)));
}

void soft_x87_fnstcw(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_store16(cpu, op, soft_linear(cpu, op, 2, SOFT_WRITE), cpu->x87.control);
}

void soft_x87_fnstsw(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_store16(cpu, op, soft_linear(cpu, op, 2, SOFT_WRITE), soft_x87_status(cpu));
}

const struct soft_op *soft_op_x87_fnstsw_ax(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_set_reg16(cpu, X86_RAX * 8, soft_x87_status(cpu));
    SOFT_NEXT(cpu, op);
}

/* FENI, FDISI (8087) and FSETPM (80287) do nothing since the 80387. */
void soft_x87_nothing(struct soft_cpu *cpu, const struct soft_op *op)
{
    (void)cpu;
    (void)op;
}

/* ---- environment ----------------------------------------------------------------------------- */

enum {
    ENV16 = 14,
    ENV32 = 28,
    STATE_REGISTERS = 80,
};

/* The full tag word (SDM volume 1, 8.1.7). */
static uint16_t x87_tag_word(const struct soft_x87 *x)
{
    uint16_t tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        uint64_t significand = x->reg[i].q[0];
        unsigned exponent = x->reg[i].q[1] & 0x7fff;
        unsigned tag = 0; /* valid */

        if (!(x->used >> i & 1)) {
            tag = 3;
        } else if (exponent == 0 && significand == 0) {
            tag = 1;
        } else if (exponent == 0 || exponent == 0x7fff || !(significand >> 63)) {
            tag = 2; /* NaN, infinity, denormal, not supported */
        }
        tags |= (uint16_t)(tag << 2 * i);
    }
    return tags;
}

/* Figures 8-9 to 8-12: 16 or 32 bits, protected mode or the real-address form with linear addresses,
 * which virtual-8086 mode has, too. What is reserved is written as ones. */
static void x87_write_env(const struct soft_cpu *cpu, uint8_t *buf, unsigned size)
{
    const struct soft_x87 *x = &cpu->x87;
    uint16_t word[3] = {x->control, soft_x87_status(cpu), x87_tag_word(x)};
    uint32_t ip = (uint32_t)x->ip, dp = (uint32_t)x->dp;

    if (!soft_is_protected(cpu)) {
        ip += (uint32_t)x->ip_selector << 4;
        dp += (uint32_t)x->dp_selector << 4;
    }
    if (size == ENV32) {
        for (unsigned i = 0; i < 3; i++) {
            store_le32(buf + 4 * i, 0xffff0000 | word[i]);
        }
        if (soft_is_protected(cpu)) {
            store_le32(buf + 12, ip);
            store_le32(buf + 16, x->ip_selector | (uint32_t)x->opcode << 16);
            store_le32(buf + 20, dp);
            store_le32(buf + 24, 0xffff0000 | x->dp_selector);
        } else {
            store_le32(buf + 12, 0xffff0000 | (ip & 0xffff));
            store_le32(buf + 16, ip >> 16 << 12 | x->opcode);
            store_le32(buf + 20, 0xffff0000 | (dp & 0xffff));
            store_le32(buf + 24, dp >> 16 << 12);
        }
    } else {
        for (unsigned i = 0; i < 3; i++) {
            store_le16(buf + 2 * i, word[i]);
        }
        store_le16(buf + 6, (uint16_t)ip);
        store_le16(buf + 10, (uint16_t)dp);
        if (soft_is_protected(cpu)) {
            store_le16(buf + 8, x->ip_selector);
            store_le16(buf + 12, x->dp_selector);
        } else {
            store_le16(buf + 8, (uint16_t)((ip >> 16 & 0xf) << 12 | x->opcode));
            store_le16(buf + 12, (uint16_t)((dp >> 16 & 0xf) << 12));
        }
    }
}

static void x87_read_env(struct soft_cpu *cpu, const uint8_t *buf, unsigned size)
{
    struct soft_x87 *x = &cpu->x87;
    uint16_t tags;

    x->ip_selector = x->dp_selector = 0;
    if (size == ENV32) {
        uint32_t high = load_le32(buf + 16);

        soft_x87_set_control(cpu, load_le16(buf));
        soft_x87_set_status(cpu, load_le16(buf + 4));
        tags = load_le16(buf + 8);
        if (soft_is_protected(cpu)) {
            x->ip = load_le32(buf + 12);
            x->ip_selector = (uint16_t)high;
            x->opcode = high >> 16 & 0x7ff;
            x->dp = load_le32(buf + 20);
            x->dp_selector = load_le16(buf + 24);
        } else {
            x->ip = load_le16(buf + 12) | (high >> 12 & 0xffff) << 16;
            x->opcode = high & 0x7ff;
            x->dp = load_le16(buf + 20) | (load_le32(buf + 24) >> 12 & 0xffff) << 16;
        }
    } else {
        uint16_t high = load_le16(buf + 8);

        soft_x87_set_control(cpu, load_le16(buf));
        soft_x87_set_status(cpu, load_le16(buf + 2));
        tags = load_le16(buf + 4);
        x->ip = load_le16(buf + 6);
        x->dp = load_le16(buf + 10);
        if (soft_is_protected(cpu)) { /* this form has no opcode */
            x->ip_selector = high;
            x->dp_selector = load_le16(buf + 12);
        } else {
            x->ip |= (uint64_t)(high >> 12) << 16;
            x->opcode = high & 0x7ff;
            x->dp |= (uint64_t)(load_le16(buf + 12) >> 12) << 16;
        }
    }
    x->used = 0;
    for (unsigned i = 0; i < 8; i++) {
        x->used |= (tags >> 2 * i & 3) != 3 ? 1 << i : 0;
    }
}

void soft_x87_fnstenv(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t buf[ENV32];
    uint64_t linear = soft_linear(cpu, op, op->dst, SOFT_WRITE);

    x87_write_env(cpu, buf, op->dst);
    soft_store_bytes(cpu, op, linear, buf, op->dst);
    cpu->x87.control |= X87_EXCEPTIONS; /* masks all */
}

void soft_x87_fldenv(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t buf[ENV32];

    soft_x87_wait(cpu, op);
    soft_load_bytes(cpu, op, soft_linear(cpu, op, op->dst, SOFT_READ), buf, op->dst);
    x87_read_env(cpu, buf, op->dst);
}

/* ---- the whole state ------------------------------------------------------------------------- */

/* Loads and stores take 64 bytes at most. Linear addresses wrap at 4 GiB outside of 64-bit mode. */
static uint64_t x87_piece(const struct soft_cpu *cpu, uint64_t linear, unsigned offset)
{
    return soft_is_64(cpu) ? linear + offset : (uint32_t)(linear + offset);
}

static void x87_load_area(struct soft_cpu *cpu, const struct soft_op *op, uint8_t *buf)
{
    uint64_t linear = soft_linear(cpu, op, op->dst, SOFT_READ);

    for (unsigned i = 0; i < op->dst; i += 64) {
        soft_load_bytes(cpu, op, x87_piece(cpu, linear, i), buf + i,
                        op->dst - i < 64 ? op->dst - i : 64);
    }
}

static void x87_store_area(struct soft_cpu *cpu, const struct soft_op *op, const uint8_t *buf)
{
    uint64_t linear = soft_linear(cpu, op, op->dst, SOFT_WRITE);

    for (unsigned i = 0; i < op->dst; i += 64) {
        soft_probe_write(cpu, x87_piece(cpu, linear, i), op->dst - i < 64 ? op->dst - i : 64);
    }
    for (unsigned i = 0; i < op->dst; i += 64) {
        soft_store_bytes(cpu, op, x87_piece(cpu, linear, i), buf + i,
                         op->dst - i < 64 ? op->dst - i : 64);
    }
}

void soft_x87_fnsave(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t buf[ENV32 + STATE_REGISTERS];
    unsigned env = op->dst - STATE_REGISTERS;

    x87_write_env(cpu, buf, env);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(buf + env + 10 * i, cpu->x87.reg[(cpu->x87.top + i) & 7].b, 10);
    }
    x87_store_area(cpu, op, buf);
    soft_x87_init(cpu);
}

void soft_x87_frstor(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint8_t buf[ENV32 + STATE_REGISTERS];
    unsigned env = op->dst - STATE_REGISTERS;

    soft_x87_wait(cpu, op);
    x87_load_area(cpu, op, buf);
    x87_read_env(cpu, buf, env);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(cpu->x87.reg[(cpu->x87.top + i) & 7].b, buf + env + 10 * i, 10);
    }
}
