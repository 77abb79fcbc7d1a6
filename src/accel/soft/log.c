/* SPDX-License-Identifier: MIT */
/* -d in_asm and exec: guest code as it is decoded and run. */
#include <inttypes.h>

#include "accel/soft/code.h"
#include "accel/soft/lower.h"
#include "base/log.h"

static ZydisMachineMode machine_mode(uint32_t mode, ZydisStackWidth *width)
{
    if (mode & SOFT_MODE_CODE64) {
        *width = ZYDIS_STACK_WIDTH_64;
        return ZYDIS_MACHINE_MODE_LONG_64;
    }
    if (mode & SOFT_MODE_CODE32) {
        *width = ZYDIS_STACK_WIDTH_32;
        return ZYDIS_MACHINE_MODE_LONG_COMPAT_32;
    }
    *width = ZYDIS_STACK_WIDTH_16;
    return mode & SOFT_MODE_PROTECTED ? ZYDIS_MACHINE_MODE_LONG_COMPAT_16
                                      : ZYDIS_MACHINE_MODE_REAL_16;
}

void soft_log_block(struct soft_cpu *cpu, uint64_t linear, const uint8_t *bytes,
                    const struct soft_block *block)
{
    unsigned size = block->last - block->first + block->last2;
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisStackWidth width;

    if (!(log_mask & LOG_IN_ASM)) {
        return;
    }
    ZydisMachineMode mode = machine_mode(block->mode, &width);
    ZydisDecoderInit(&decoder, mode, width);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
    log_item(LOG_IN_ASM, "vCPU %u: block of %u bytes, mode 0x%x", cpu->index, size, block->mode);
    for (unsigned at = 0; at < size;) {
        ZydisDecodedInstruction insn;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        char text[128] = "(bad)";
        unsigned length = 1;

        if (ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(&decoder, bytes + at, size - at, &insn, operands))) {
            length = insn.length;
            ZydisFormatterFormatInstruction(&formatter, &insn, operands, insn.operand_count_visible,
                                            text, sizeof(text), linear + at, NULL);
        }
        log_item(LOG_IN_ASM, "0x%08" PRIx64 ": %s", linear + at, text);
        at += length;
    }
}

void soft_log_exec(struct soft_cpu *cpu, const struct soft_block *block)
{
    log_item(LOG_EXEC, "Trace %u: %04x:%016" PRIx64 " mode 0x%x RSP=%016" PRIx64, cpu->index,
             cpu->seg[X86_CS].selector, cpu->rip, block->mode, cpu->gpr[X86_RSP]);
}
