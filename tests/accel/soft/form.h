/* SPDX-License-Identifier: MIT */
/*
 * Instruction forms: every shape of instruction that the decoder knows, one encoding each.
 *
 * Opcode maps, prefixes and ModRM shapes are enumerated and decoded; what decodes to a form that is
 * already there is dropped. Two encodings are one form if mnemonic, opcode, operand kinds and sizes,
 * vector length, address width and LOCK/REP are the same, whatever registers they name. Each form
 * comes in up to three variants of registers: different low ones, one register twice, R8 and above.
 */
#ifndef FERRY_TESTS_SOFT_FORM_H
#define FERRY_TESTS_SOFT_FORM_H

#include <stdbool.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

enum form_variant { FORM_LOW, FORM_SAME, FORM_HIGH, FORM_VARIANTS };

struct form {
    uint8_t bytes[15];
    uint8_t length;
    bool is_compat;         /* 32-bit code of compatibility mode */
    uint8_t variant;        /* enum form_variant */
    uint16_t mnemonic;      /* ZydisMnemonic */
    uint16_t isa_set;       /* ZydisISASet */
    uint32_t number;        /* of the form; variants share it */
    uint64_t hash;          /* of the form, for random inputs that stay the same from run to run */
    const char *exclusion;  /* why it is not run, or NULL */
    bool expects_undefined; /* not offered: #UD whatever the host does */
};

struct forms {
    struct form *form;
    unsigned count;  /* with variants */
    unsigned number; /* of forms */
    /* Byte sequences that the decoder refuses, a sample per opcode. */
    struct form *refused;
    unsigned refused_count;
};

/* A form decoded again. */
struct form_decoded {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};

void forms_enumerate(struct forms *forms);
void forms_free(struct forms *forms);
bool form_decode(const struct form *form, struct form_decoded *to);
/* Intel syntax, in a static buffer. */
const char *form_text(const struct form *form, const uint8_t *bytes, uint64_t address);

#endif
