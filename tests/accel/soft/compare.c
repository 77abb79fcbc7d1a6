/* SPDX-License-Identifier: MIT */
#include "compare.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "host_run.h"

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* RFLAGS that CPL 3 sees; bit 1 is one, IF is set on both sides. */
#define FLAGS UINT64_C(0x254dd5)

struct difference {
    bool any;
    FILE *to;
};

static void number(struct difference *d, const char *name, uint64_t host, uint64_t soft)
{
    if (host != soft) {
        d->any = true;
        if (d->to) {
            fprintf(d->to, "        %-7s host %016" PRIx64 "  soft %016" PRIx64 "\n", name, host,
                    soft);
        }
    }
}

static void print_bytes(FILE *to, const uint8_t *bytes, unsigned size)
{
    for (unsigned i = size; i-- > 0;) {
        fprintf(to, "%02x%s", bytes[i], i && i % 8 == 0 ? "_" : "");
    }
}

static void bytes(struct difference *d, const char *name, unsigned index, const uint8_t *host,
                  const uint8_t *soft, unsigned size)
{
    if (!memcmp(host, soft, size)) {
        return;
    }
    d->any = true;
    if (d->to) {
        fprintf(d->to, "        %s%-3u host ", name, index);
        print_bytes(d->to, host, size);
        fprintf(d->to, "\n        %*s soft ", (int)strlen(name) + 3, "");
        print_bytes(d->to, soft, size);
        fprintf(d->to, "\n");
    }
}

/* ---- what differs between CPUs, too ----------------------------------------------------------- */

/* A null selector's RPL is lost when Linux returns to CPL 3. */
static uint16_t selector(uint16_t value)
{
    return value & 0xfffc ? value : 0;
}

/* Accesses of several parts: which one faults first is not architectural, the page is. */
static bool has_parts(const struct form_decoded *d)
{
    switch (d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return true;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
        return d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    default:
        return d->insn.meta.category == ZYDIS_CATEGORY_XSAVE ||
               d->insn.meta.category == ZYDIS_CATEGORY_XSAVEOPT;
    }
}

/* An MMX instruction that faults may have set TOP and the tags. */
static bool has_mmx(const struct form_decoded *d)
{
    for (unsigned i = 0; i < d->insn.operand_count; i++) {
        if (d->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(d->operand[i].reg.value) == ZYDIS_REGCLASS_MMX) {
            return true;
        }
    }
    return false;
}

/* Whether operands of 16 bytes and more that need no alignment are checked with EFLAGS.AC is up to the
 * CPU (SDM volume 3, 6.15, #AC; volume 2, MOVUPS), and whether FXSAVE raises #AC or #GP. */
static bool is_free_to_check(const struct form_decoded *d, const struct run_output *host,
                             const struct run_output *soft)
{
    if (host->vector != 17 && soft->vector != 17) {
        return false;
    }
    for (unsigned i = 0; i < d->insn.operand_count; i++) {
        if (d->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY && d->operand[i].size >= 128) {
            return true;
        }
    }
    return false;
}

/*
 * What a faulting instruction of several accesses has already done is up to the CPU: registers popped
 * (SDM volume 3, 6.6), the first eight of ten bytes stored (9.1.1: what is wider than a quadword may be
 * several accesses, some of which complete while another faults), addresses cut to 32 bits; and which
 * operand of two is read first.
 */
enum freedom {
    FREE_GPRS = 1 << 0,
    FREE_IMAGE = 1 << 1,
    FREE_UPPER = 1 << 2, /* bits 63 to 32 of RSI, RDI */
    FREE_CR2 = 1 << 3,
    FREE_LAR = 1 << 4, /* bits 19 to 16 are undefined (SDM volume 2, LAR) */
    FREE_MXCSR = 1 << 5,
    FREE_AREA = 1 << 6,
    FREE_ORDER = 1 << 7, /* which of two faults comes first */
    FREE_RIP = 1 << 8,
};

/* With #XM for an unmasked underflow or overflow, PE is that of a result with unbounded exponent (SDM
 * volume 1, 4.9.1.5), which some CPUs set and some not. */
static uint32_t mxcsr_mask(const struct run_output *host, unsigned free)
{
    return ~(uint32_t)((host->vector == 19 ? 0x20 : 0) | (free & FREE_MXCSR ? 0x3f : 0));
}

static unsigned freedoms(const struct form_decoded *d, bool is_fault)
{
    unsigned free = 0;

    switch (d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LAR:
        return FREE_LAR;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        free = FREE_GPRS;
        break;
    case ZYDIS_MNEMONIC_FSTP:
    case ZYDIS_MNEMONIC_FBSTP:
        free = FREE_IMAGE;
        break;
    case ZYDIS_MNEMONIC_CALL: /* to where no code can be: the return address may have been written */
        free = FREE_IMAGE | FREE_ORDER;
        break;
    case ZYDIS_MNEMONIC_BOUND: /* two bounds, read one after the other or together */
        free = FREE_ORDER;
        break;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: /* x87 before MXCSR is found to be wrong */
        free = FREE_AREA;
        break;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        free = FREE_CR2;
        break;
    case ZYDIS_MNEMONIC_DPPS:
    case ZYDIS_MNEMONIC_DPPD:
    case ZYDIS_MNEMONIC_VDPPS:
    case ZYDIS_MNEMONIC_VDPPD: /* "separately for each add and multiply": which came before */
        free = FREE_MXCSR;
        break;
    case ZYDIS_MNEMONIC_RET: /* AMD's processors read all of the frame before they look at the selector */
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        free = host_is_intel() ? 0 : FREE_ORDER;
        break;
    case ZYDIS_MNEMONIC_INT1: /* #DB of a prefixed one under SVM has the instruction's own RIP */
        return d->insn.length > 1 && !host_is_intel() ? FREE_RIP : 0;
    case ZYDIS_MNEMONIC_VCVTPS2PH: /* computed before the store faults */
        free = FREE_MXCSR;
        break;
    default:
        if (d->insn.meta.category == ZYDIS_CATEGORY_STRINGOP) {
            free = FREE_CR2 | FREE_ORDER | (d->insn.address_width == 32 ? FREE_UPPER : 0);
        }
        break;
    }
    if (has_parts(d) && d->insn.address_width == 16) {
        free |= FREE_CR2; /* no page is there */
    }
    return is_fault ? free : 0;
}

/* AMD's processors take any address for the memory operands of SHA instructions, though APM volume 4
 * asks for 16 bytes' alignment. */
static bool is_unaligned_sha(const struct form_decoded *d, const struct run_output *host,
                             const struct run_output *soft)
{
    return d->insn.meta.isa_set == ZYDIS_ISA_SET_SHA && !host_is_intel() && soft->vector == 13 &&
           host->vector != 13;
}

/* Legacy masked moves with a mask of zeros may fault or not (SDM volume 2, MASKMOVQ). */
static bool is_masked_move(const struct form_decoded *d)
{
    return d->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
           d->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           d->insn.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

/* ---- the parts of the state --------------------------------------------------------------------- */

static void registers(struct difference *d, const struct machine_state *h,
                      const struct machine_state *s, uint64_t flags, unsigned free)
{
    for (unsigned i = 0; i < 16 && !(free & FREE_GPRS); i++) {
        uint64_t mask = UINT64_MAX;
        if (free & FREE_UPPER && (i == RSI || i == RDI)) {
            mask = UINT32_MAX;
        } else if (free & FREE_LAR) {
            mask = ~UINT64_C(0xf0000);
        }
        number(d, gpr_names[i], h->gpr[i] & mask, s->gpr[i] & mask);
    }
    if (!(free & FREE_RIP)) {
        number(d, "rip", h->rip, s->rip);
    }
    number(d, "rflags", h->rflags & flags, s->rflags & flags);
    number(d, "cs", h->cs, s->cs);
    number(d, "ss", h->ss, s->ss);
    number(d, "ds", selector(h->ds), selector(s->ds));
    number(d, "es", selector(h->es), selector(s->es));
    number(d, "fs", selector(h->fs), selector(s->fs));
    number(d, "gs", selector(h->gs), selector(s->gs));
    number(d, "fs_base", h->fs_base, s->fs_base);
    number(d, "gs_base", h->gs_base, s->gs_base);
}

/* FOP and FDP follow unmasked exceptions only on newer CPUs (FDP_EXCPTN_ONLY, SDM volume 1, 8.1.9),
 * and FIP stays under most virtual machines' saves; they are not compared here. */
static void area(struct difference *d, const uint8_t *h, const uint8_t *s, uint32_t mxcsr)
{
    number(d, "fcw", load_le16(h + AREA_FCW), load_le16(s + AREA_FCW));
    number(d, "fsw", load_le16(h + AREA_FSW), load_le16(s + AREA_FSW));
    number(d, "ftw", h[AREA_FTW], s[AREA_FTW]);
    number(d, "mxcsr", load_le32(h + AREA_MXCSR) & mxcsr, load_le32(s + AREA_MXCSR) & mxcsr);
    for (unsigned i = 0; i < 8; i++) {
        bytes(d, "st", i, h + AREA_ST + 16 * i, s + AREA_ST + 16 * i, 10);
    }
    for (unsigned i = 0; i < 16; i++) {
        bytes(d, "xmm", i, h + AREA_XMM + 16 * i, s + AREA_XMM + 16 * i, 16);
        bytes(d, "ymmh", i, h + AREA_YMM + 16 * i, s + AREA_YMM + 16 * i, 16);
    }
}

static uint64_t address_in_image(unsigned at)
{
    return at < IMAGE_RO      ? DATA_AT + at
           : at < IMAGE_STACK ? RO_AT + (at - IMAGE_RO)
                              : STACK_AT + (at - IMAGE_STACK);
}

/* MXCSR_MASK in an area that has been saved, 28 bytes behind a multiple of 16: AMD's processors have
 * bit 17 (misaligned exception mask), which the soft CPU does not offer. */
static bool is_mxcsr_mask(const uint8_t *h, const uint8_t *s, unsigned at)
{
    unsigned first = at & ~3u;

    return first % 16 == 12 && load_le32(h + first) == 0x2ffff && load_le32(s + first) == 0xffff;
}

static void image(struct difference *d, const uint8_t *h, const uint8_t *s)
{
    unsigned shown = 0;

    if (!memcmp(h, s, IMAGE_SIZE)) {
        return;
    }
    for (unsigned i = 0; i < IMAGE_SIZE && shown < 3; i++) {
        if (h[i] != s[i] && !is_mxcsr_mask(h, s, i)) {
            d->any = true;
            if (!d->to) {
                return;
            }
            unsigned size = IMAGE_SIZE - i < 16 ? IMAGE_SIZE - i : 16;
            fprintf(d->to, "        [%08" PRIx64 "] host ", address_in_image(i));
            print_bytes(d->to, h + i, size);
            fprintf(d->to, "\n                   soft ");
            print_bytes(d->to, s + i, size);
            fprintf(d->to, "\n");
            i += 15;
            shown++;
        }
    }
}

static uint64_t flags_of(const struct form *form, bool strict)
{
    struct form_decoded d;

    if (strict || !form_decode(form, &d) || !d.insn.cpu_flags) {
        return FLAGS;
    }
    return FLAGS & ~(uint64_t)d.insn.cpu_flags->undefined;
}

static bool is_ours(uint64_t address)
{
    return (address >= CODE_AT && address < CODE_AT + 2 * PAGE) ||
           (address >= DATA_AT && address < DATA_AT + 2 * PAGE) ||
           (address >= RO_AT && address < RO_AT + PAGE) ||
           (address >= STACK_AT && address < STACK_AT + 2 * PAGE);
}

/* AddressSanitizer has its shadow where a wild address may point: there the host does not fault. */
#ifdef __SANITIZE_ADDRESS__
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifndef HAS_ASAN
#define HAS_ASAN 0
#endif

static bool meets_shadow(const struct run_output *host, const struct run_output *soft)
{
    return HAS_ASAN && soft->vector == 14 && host->vector != 14 && !is_ours(soft->cr2);
}

bool compare_outputs(const struct form *form, const struct run_output *host,
                     const struct run_output *soft, bool strict, FILE *to)
{
    struct difference d = {.to = to};
    struct form_decoded f;
    bool is_fault = host->vector != 3;
    uint64_t cr2_mask = UINT64_MAX;
    uint32_t error_mask;
    unsigned free;

    if (meets_shadow(host, soft)) {
        return true;
    }
    bool has_stopped = host->vector == VECTOR_TIMEOUT || soft->vector == VECTOR_TIMEOUT ||
                       soft->vector == VECTOR_ENGINE;

    /* No freedom covers a side that came to no end. */
    if (form_decode(form, &f) && !has_stopped && is_free_to_check(&f, host, soft)) {
        return true;
    }
    if (!has_stopped && is_unaligned_sha(&f, host, soft)) {
        return true;
    }
    if (!has_stopped && is_masked_move(&f) && host->vector != soft->vector) {
        return true;
    }
    free = freedoms(&f, is_fault);
    if (!has_stopped && free & FREE_ORDER && soft->vector != 3 && host->vector != soft->vector) {
        return true;
    }
    /* A fetch from elsewhere may meet a page of the test program or of Linux, present but not for
     * running. */
    error_mask =
        host->vector == 14 && host->error & 16 && !is_ours(host->cr2) ? ~UINT32_C(1) : UINT32_MAX;
    number(&d, "vector", host->vector, soft->vector);
    number(&d, "error", host->error & error_mask, soft->error & error_mask);
    if (host->vector == VECTOR_TIMEOUT) {
        number(&d, "timeout", host->state.rip, 0);
    }
    if (soft->vector == VECTOR_TIMEOUT || soft->vector == VECTOR_ENGINE) {
        number(&d, "rip", host->state.rip, soft->state.rip);
        return false;
    }
    if (has_parts(&f) && host->cr2 != host->state.rip) {
        cr2_mask = ~UINT64_C(0xfff);
    }
    if (free & FREE_CR2) {
        cr2_mask = 0;
    }
    number(&d, "cr2", host->cr2 & cr2_mask, soft->cr2 & cr2_mask);
    /* Nothing is undefined after a fault. */
    registers(&d, &host->state, &soft->state, flags_of(form, strict || is_fault), free);
    if (!(free & FREE_AREA) && (!is_fault || !has_mmx(&f))) {
        area(&d, host->state.area, soft->state.area, mxcsr_mask(host, free));
    }
    if (!(free & FREE_IMAGE)) {
        image(&d, host->image, soft->image);
    }
    return !d.any;
}

bool compare_undefined(const struct run_input *input, const struct run_output *soft, FILE *to)
{
    struct difference d = {.to = to};

    number(&d, "vector", 6, soft->vector);
    if (soft->vector == 6) {
        registers(&d, &input->state, &soft->state, FLAGS & ~UINT64_C(0x10000), 0);
        area(&d, input->state.area, soft->state.area, UINT32_MAX);
    }
    return !d.any;
}

void compare_print_input(const struct form *form, const struct run_input *input, FILE *to)
{
    const struct machine_state *s = &input->state;
    uint32_t gprs = 0, vectors = 0;
    bool has_x87 = false;
    struct form_decoded d;

    fprintf(to, "    in: rip %08" PRIx64 " rflags %06" PRIx64, s->rip, s->rflags);
    if (form_decode(form, &d)) {
        for (unsigned i = 0; i < d.insn.operand_count; i++) {
            const ZydisDecodedOperand *o = &d.operand[i];
            ZydisRegister regs[3] = {ZYDIS_REGISTER_NONE};

            if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
                regs[0] = o->reg.value;
            } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
                regs[1] = o->mem.base;
                regs[2] = o->mem.index;
            }
            for (unsigned k = 0; k < 3; k++) {
                ZydisRegister reg =
                    ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, regs[k]);
                switch (ZydisRegisterGetClass(regs[k])) {
                case ZYDIS_REGCLASS_GPR8:
                case ZYDIS_REGCLASS_GPR16:
                case ZYDIS_REGCLASS_GPR32:
                case ZYDIS_REGCLASS_GPR64:
                    gprs |= 1u << ZydisRegisterGetId(reg);
                    break;
                case ZYDIS_REGCLASS_XMM:
                case ZYDIS_REGCLASS_YMM:
                    vectors |= 1u << (ZydisRegisterGetId(regs[k]) & 15);
                    break;
                case ZYDIS_REGCLASS_X87:
                case ZYDIS_REGCLASS_MMX:
                    has_x87 = true;
                    break;
                default:
                    break;
                }
            }
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        if (gprs >> i & 1) {
            fprintf(to, " %s %" PRIx64, gpr_names[i], s->gpr[i]);
        }
    }
    if (vectors) {
        fprintf(to, " mxcsr %04x", load_le32(s->area + AREA_MXCSR));
    }
    if (has_x87) {
        fprintf(to, " fcw %04x fsw %04x ftw %02x", load_le16(s->area + AREA_FCW),
                load_le16(s->area + AREA_FSW), s->area[AREA_FTW]);
    }
    fprintf(to, "\n");
    for (unsigned i = 0; i < 16; i++) {
        if (vectors >> i & 1) {
            fprintf(to, "        ymm%u ", i);
            print_bytes(to, s->area + AREA_YMM + 16 * i, 16);
            fprintf(to, "_");
            print_bytes(to, s->area + AREA_XMM + 16 * i, 16);
            fprintf(to, "\n");
        }
    }
    for (unsigned i = 0; has_x87 && i < 8; i++) {
        fprintf(to, "        st%u ", i);
        print_bytes(to, s->area + AREA_ST + 16 * i, 10);
        fprintf(to, "%s", i & 1 ? "\n" : "");
    }
}
