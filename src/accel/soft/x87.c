/* SPDX-License-Identifier: MIT */
/*
 * Any x87 instruction, by the host's unit with the guest's whole state in it.
 *
 * A table has one piece of code for each of the 512 register forms and the 64 memory forms of
 * D8 to DF: the instruction itself (the memory operand at (%rdi)) and a return. Control instructions,
 * which would touch the host's environment, and what is not defined are never reached: lowering
 * comes here only with what Zydis knows and x87_env.c does not do.
 */
#include "accel/soft/x87.h"

#include <string.h>

/* What FNSAVE writes in 64-bit mode: the 32-bit protected-mode form (SDM volume 1, 8.1.10). */
struct x87_image {
    uint32_t control, status, tag, ip, cs_opcode, dp, ds;
    uint8_t st[8][10];
};
_Static_assert(sizeof(struct x87_image) == 108, "FNSAVE's image");

/*
 * Loads image, runs code with memory in RDI and the guest's status flags (soft.h), which FCMOVcc reads
 * and FCOMI writes, and saves image.
 */
void soft_x87_host(struct x87_image *image, const void *code, void *memory, uint32_t *flags);
extern const uint8_t soft_x87_memory_forms[64][4], soft_x87_register_forms[512][4];

__asm__(".pushsection .text\n"
        ".globl soft_x87_host\n"
        ".hidden soft_x87_host\n"
        ".type soft_x87_host, @function\n"
        ".p2align 4\n"
        "soft_x87_host:\n"
        "    mov %rdi, %r8\n"
        "    mov %rdx, %rdi\n"
        "    mov (%rcx), %eax\n"
        "    add $0x7f, %al\n" /* OF, from AL = 1 */
        "    sahf\n"
        "    frstor (%r8)\n"
        "    call *%rsi\n"
        "    fnsave (%r8)\n"
        "    lahf\n"
        "    seto %al\n"
        "    movzwl %ax, %eax\n"
        "    mov %eax, (%rcx)\n"
        "    ret\n"
        ".size soft_x87_host, . - soft_x87_host\n"
        ".p2align 4\n"
        ".globl soft_x87_memory_forms\n"
        ".hidden soft_x87_memory_forms\n"
        "soft_x87_memory_forms:\n"
        ".set x87_i, 0\n"
        ".rept 64\n"
        "    .byte 0xd8 + x87_i / 8, (x87_i % 8) * 8 + 7, 0xc3, 0x90\n"
        "    .set x87_i, x87_i + 1\n"
        ".endr\n"
        ".globl soft_x87_register_forms\n"
        ".hidden soft_x87_register_forms\n"
        "soft_x87_register_forms:\n"
        ".set x87_i, 0\n"
        ".rept 512\n"
        "    .byte 0xd8 + x87_i / 64, 0xc0 + x87_i % 64, 0xc3, 0x90\n"
        "    .set x87_i, x87_i + 1\n"
        ".endr\n"
        ".popsection\n");

static void x87_to_image(const struct soft_cpu *cpu, struct x87_image *image)
{
    const struct soft_x87 *x = &cpu->x87;

    *image = (struct x87_image){
        .control = x->control,
        .status = x->status | (uint32_t)x->top << X87_TOP_SHIFT,
    };
    /* Valid, zero or special: FRSTOR finds out itself. */
    for (unsigned i = 0; i < 8; i++) {
        image->tag |= x->used >> i & 1 ? 0 : 3u << 2 * i;
        memcpy(image->st[i], x->reg[(x->top + i) & 7].b, 10);
    }
}

static void x87_from_image(struct soft_cpu *cpu, const struct x87_image *image)
{
    struct soft_x87 *x = &cpu->x87;

    soft_x87_set_status(cpu, (uint16_t)image->status);
    x->used = 0;
    for (unsigned i = 0; i < 8; i++) {
        x->used |= (image->tag >> 2 * i & 3) != 3 ? 1 << i : 0;
        memcpy(x->reg[(x->top + i) & 7].b, image->st[i], 10);
    }
}

/* Code for the instruction whose FOP is given. */
static const void *x87_code(uint16_t fop, bool is_memory)
{
    unsigned opcode = fop >> 8 & 7, modrm = fop & 0xff;

    return is_memory ? soft_x87_memory_forms[opcode * 8 + (modrm >> 3 & 7)]
                     : soft_x87_register_forms[opcode * 64 + (modrm & 0x3f)];
}

void soft_x87_generic(struct soft_cpu *cpu, const struct soft_op *op)
{
    struct x87_image image;
    uint8_t operand[16] = {0};
    uint64_t linear = 0;
    uint32_t flags = cpu->status;
    bool stores = op->dst && op->src == X87_STORE;
    unsigned raised;

    soft_x87_wait(cpu, op);
    if (op->dst) {
        linear = soft_linear(cpu, op, op->dst, stores ? SOFT_WRITE : SOFT_READ);
        if (!stores) {
            soft_load_bytes(cpu, op, linear, operand, op->dst);
        } else if (!cpu->features->is_intel && !soft_write_pointer(cpu, linear, op->dst)) {
            /* AMD's processors look at the memory even if an unmasked exception then keeps the store
             * from being done. */
            soft_sync(cpu, op);
            soft_probe_write(cpu, linear, op->dst);
        }
    }
    x87_to_image(cpu, &image);
    soft_x87_host(&image, x87_code(op->aux, op->dst != 0), operand, &flags);
    /* None was pending before, so what is unmasked and set is new. Then nothing has been stored,
     * unless it was inexactness alone (SDM volume 1, 8.5). */
    raised = image.status & ~cpu->x87.control & X87_EXCEPTIONS;
    if (stores && !(raised & ~(unsigned)X87_PE)) {
        soft_store_bytes(cpu, op, linear, operand, op->dst);
    }
    x87_from_image(cpu, &image);
    cpu->status = flags;
    if (op->dst) {
        soft_x87_note_memory(cpu, op);
    } else {
        soft_x87_note(cpu, op);
    }
}

const struct soft_op *soft_op_x87_generic(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_x87_generic(cpu, op);
    SOFT_NEXT(cpu, op);
}
