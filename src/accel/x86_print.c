/* SPDX-License-Identifier: MIT */
/*
 * Registers for people, in the order and form that "info registers" has in QEMU, so that scripts
 * and eyes that know it find their way.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "accel/accel.h"
#include "accel/x86_regs.h"
#include "accel/x86_state.h"
#include "base/bytes.h"
#include "base/range.h"

static bool is_64bit(const struct x86_state *s)
{
    return s->efer & X86_EFER_LMA && s->segment[X86_CS].attributes & X86_SEGMENT_L;
}

static void print_gprs(const struct x86_state *s, FILE *to)
{
    static const struct {
        const char *name64, *name32;
        enum x86_gpr reg;
    } order[] = {
        {"RAX", "EAX", X86_RAX}, {"RBX", "EBX", X86_RBX}, {"RCX", "ECX", X86_RCX},
        {"RDX", "EDX", X86_RDX}, {"RSI", "ESI", X86_RSI}, {"RDI", "EDI", X86_RDI},
        {"RBP", "EBP", X86_RBP}, {"RSP", "ESP", X86_RSP}, {"R8 ", NULL, X86_R8},
        {"R9 ", NULL, X86_R9},   {"R10", NULL, X86_R10},  {"R11", NULL, X86_R11},
        {"R12", NULL, X86_R12},  {"R13", NULL, X86_R13},  {"R14", NULL, X86_R14},
        {"R15", NULL, X86_R15},
    };
    bool wide = is_64bit(s);

    for (unsigned i = 0; i < (wide ? 16 : 8); i++) {
        const char *end = i % 4 == 3 ? "\n" : " ";
        uint64_t value = s->gpr[order[i].reg];
        if (wide) {
            fprintf(to, "%s=%016" PRIx64 "%s", order[i].name64, value, end);
        } else {
            fprintf(to, "%s=%08" PRIx32 "%s", order[i].name32, (uint32_t)value, end);
        }
    }
}

static void print_flags(const struct x86_state *s, FILE *to)
{
    /* Direction, overflow, sign, zero, auxiliary, parity, carry. */
    static const struct {
        char letter;
        unsigned bit;
    } flags[] = {{'D', 10}, {'O', 11}, {'S', 7}, {'Z', 6}, {'A', 4}, {'P', 2}, {'C', 0}};
    char text[ARRAY_SIZE(flags) + 1] = {0};

    for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
        text[i] = s->rflags >> flags[i].bit & 1 ? flags[i].letter : '-';
    }
    unsigned cpl = s->segment[X86_SS].attributes >> 5 & 3;
    if (is_64bit(s)) {
        fprintf(to, "RIP=%016" PRIx64 " RFL=%08" PRIx32, s->rip, (uint32_t)s->rflags);
    } else {
        fprintf(to, "EIP=%08" PRIx32 " EFL=%08" PRIx32, (uint32_t)s->rip, (uint32_t)s->rflags);
    }
    fprintf(to, " [%s] CPL=%u II=%u A20=%u SMM=%u HLT=%u\n", text, cpl,
            s->events.interrupt_shadow != 0, accel_a20(), s->events.smm,
            s->mp_state == X86_MP_HALTED);
}

static const char *segment_kind(const struct x86_state *s, uint32_t attributes, char text[16])
{
    static const char *const system[16] = {
        "Reserved",   "TSS16-avl",  "LDT",       "TSS16-busy", "CallGate16", "TaskGate",
        "IntGate16",  "TrapGate16", "Reserved",  "TSS32-avl",  "Reserved",   "TSS32-busy",
        "CallGate32", "Reserved",   "IntGate32", "TrapGate32",
    };
    static const char *const system64[16] = {
        [2] = "LDT",         [9] = "TSS64-avl",  [11] = "TSS64-busy",
        [12] = "CallGate64", [14] = "IntGate64", [15] = "TrapGate64",
    };
    unsigned type = attributes & 15;

    if (!(attributes & X86_SEGMENT_S)) {
        const char *name = s->efer & X86_EFER_LMA ? system64[type] : system[type];
        return name ? name : "Reserved";
    }
    if (type & 8) {
        snprintf(text, 16, "%s [%c%c%c]",
                 attributes & X86_SEGMENT_L   ? "CS64"
                 : attributes & X86_SEGMENT_D ? "CS32"
                                              : "CS16",
                 type & 4 ? 'C' : '-', type & 2 ? 'R' : '-', type & 1 ? 'A' : '-');
    } else {
        snprintf(text, 16, "%s [%c%c%c]", attributes & X86_SEGMENT_D ? "DS  " : "DS16",
                 type & 4 ? 'E' : '-', type & 2 ? 'W' : '-', type & 1 ? 'A' : '-');
    }
    return text;
}

static void print_segments(const struct x86_state *s, FILE *to)
{
    static const char *const names[X86_SEGMENT_COUNT] = {
        [X86_ES] = "ES ", [X86_CS] = "CS ", [X86_SS] = "SS ",   [X86_DS] = "DS ",
        [X86_FS] = "FS ", [X86_GS] = "GS ", [X86_LDTR] = "LDT", [X86_TR] = "TR ",
    };
    int width = s->efer & X86_EFER_LMA ? 16 : 8;

    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        const struct x86_segment *segment = &s->segment[i];
        uint32_t attributes = segment->attributes;
        char text[16];

        fprintf(to, "%s=%04x %0*" PRIx64 " %08x %08x", names[i], segment->selector, width,
                segment->base, segment->limit, attributes << 8 & 0x00ffff00);
        if (attributes & X86_SEGMENT_P && !(attributes & X86_SEGMENT_UNUSABLE)) {
            fprintf(to, " DPL=%u %s", attributes >> 5 & 3, segment_kind(s, attributes, text));
        }
        fputc('\n', to);
    }
    fprintf(to, "GDT=     %0*" PRIx64 " %08x\n", width, s->gdt.base, s->gdt.limit);
    fprintf(to, "IDT=     %0*" PRIx64 " %08x\n", width, s->idt.base, s->idt.limit);
}

static void print_control(const struct x86_state *s, FILE *to)
{
    int width = s->efer & X86_EFER_LMA ? 16 : 8;

    fprintf(to, "CR0=%08" PRIx64 " CR2=%0*" PRIx64 " CR3=%0*" PRIx64 " CR4=%08" PRIx64 "\n", s->cr0,
            width, s->cr2, width, s->cr3, s->cr4);
    for (unsigned i = 0; i < 4; i++) {
        fprintf(to, "DR%u=%016" PRIx64 "%s", i, s->dr[i], i == 3 ? "\n" : " ");
    }
    fprintf(to, "DR6=%016" PRIx64 " DR7=%016" PRIx64 "\n", s->dr6, s->dr7);
    fprintf(to, "EFER=%016" PRIx64 "\n", s->efer);
}

/* FXSAVE's layout, SDM table 10-2. */
static void print_fpu(const struct x86_state *s, FILE *to)
{
    const uint8_t *area = s->xsave;
    unsigned registers = is_64bit(s) ? 16 : 8;

    fprintf(to, "FCW=%04x FSW=%04x [ST=%u] FTW=%02x MXCSR=%08x\n", load_le16(area),
            load_le16(area + 2), load_le16(area + 2) >> 11 & 7u, area[4], load_le32(area + 24));
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *reg = area + 32 + 16 * i;
        fprintf(to, "FPR%u=%016" PRIx64 " %04x%s", i, load_le64(reg), load_le16(reg + 8),
                i % 2 ? "\n" : " ");
    }
    for (unsigned i = 0; i < registers; i++) {
        const uint8_t *reg = area + 160 + 16 * i;
        fprintf(to, "XMM%02u=%016" PRIx64 " %016" PRIx64 "%s", i, load_le64(reg + 8),
                load_le64(reg), i % 2 ? "\n" : " ");
    }
}

void x86_state_print(const struct x86_state *state, FILE *to)
{
    print_gprs(state, to);
    print_flags(state, to);
    print_segments(state, to);
    print_control(state, to);
    print_fpu(state, to);
}

/* One write, so that vCPUs that are reset at the same time do not mix their lines. */
void x86_state_log(const struct x86_state *state, enum log_item item, const char *heading)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);

    if (to) {
        fputs(heading, to);
        x86_state_print(state, to);
        if (fclose(to) == 0) {
            log_item_block(item, text);
        }
        free(text);
    }
}
