/* SPDX-License-Identifier: MIT */
/*
 * Streams of instructions: half of them from a list of those that do most to a processor, half by
 * opcode maps and prefixes at random.
 */
#include "hostile.h"

struct out {
    struct random *r;
    uint8_t *at, *end;
    unsigned width;
    uint64_t address; /* of `at` */
};

static void put8(struct out *o, unsigned value)
{
    if (o->at < o->end) {
        *o->at++ = (uint8_t)value;
        o->address++;
    }
}

static void put(struct out *o, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        put8(o, (uint8_t)(value >> (8 * i)));
    }
}

static void put_random(struct out *o, unsigned size)
{
    put(o, random_one_in(o->r, 3) ? random_u64(o->r) : random_value(o->r), size);
}

/* ---- operands -------------------------------------------------------------------------------- */

/* A ModRM byte with this register field (8: any), SIB and displacement as they go with it. */
static void modrm(struct out *o, unsigned reg, bool only_memory)
{
    unsigned mod = random_below(o->r, only_memory ? 3 : 4), rm = random_below(o->r, 8);
    bool is_16 = o->width == 2;

    if (reg > 7) {
        reg = random_below(o->r, 8);
    }
    put8(o, mod << 6 | reg << 3 | rm);
    if (mod == 3) {
        return;
    }
    if (!is_16 && rm == 4) {
        unsigned sib = random_below(o->r, 256);
        put8(o, sib);
        if (mod == 0 && (sib & 7) == 5) {
            put(o, random_address(o->r), 4);
        }
    }
    if (mod == 1) {
        put_random(o, 1);
    } else if (mod == 2) {
        put(o, random_one_in(o->r, 2) ? random_below(o->r, 256) : random_u64(o->r), is_16 ? 2 : 4);
    } else if (mod == 0 && is_16 && rm == 6) {
        put(o, random_address(o->r), 2);
    } else if (mod == 0 && !is_16 && rm == 5) {
        /* Absolute, or relative to the next instruction: code that writes itself. */
        put(o,
            o->width == 8 ? (uint64_t)(int64_t)(int)random_below(o->r, 64) : random_address(o->r),
            4);
    }
}

static void prefixes(struct out *o)
{
    static const uint8_t known[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x26,
                                    0x2e, 0x36, 0x3e, 0x64, 0x65};

    while (random_one_in(o->r, 5)) {
        put8(o, known[random_below(o->r, sizeof(known))]);
    }
    if (o->width == 8 && random_one_in(o->r, 2)) {
        put8(o, 0x40 | random_below(o->r, 16));
    }
}

/* ---- instructions ---------------------------------------------------------------------------- */

/* Opcode, register field of ModRM (8: any; 9: no ModRM), bytes of immediate (9: of the code's width). */
static const struct form {
    uint8_t length, opcode[4], reg, immediate;
} forms[] = {
    {2, {0x0f, 0x20}, 8, 0}, /* MOV r, CR */
    {2, {0x0f, 0x22}, 8, 0}, /* MOV CR, r */
    {2, {0x0f, 0x21}, 8, 0}, /* MOV r, DR */
    {2, {0x0f, 0x23}, 8, 0}, /* MOV DR, r */
    {1, {0x8e}, 8, 0},       /* MOV Sreg */
    {1, {0x8c}, 8, 0},       /* MOV from Sreg */
    {1, {0x07}, 9, 0},       /* POP ES */
    {1, {0x17}, 9, 0},       /* POP SS */
    {1, {0x1f}, 9, 0},       /* POP DS */
    {2, {0x0f, 0xa1}, 9, 0}, /* POP FS */
    {2, {0x0f, 0xa9}, 9, 0}, /* POP GS */
    {2, {0x0f, 0xb2}, 8, 0}, /* LSS */
    {2, {0x0f, 0xb5}, 8, 0}, /* LGS */
    {1, {0xc4}, 8, 0},       /* LES, VEX */
    {1, {0xc5}, 8, 0},       /* LDS, VEX */
    {2, {0x0f, 0x00}, 8, 0}, /* SLDT … VERW */
    {2, {0x0f, 0x01}, 8, 0}, /* SGDT … INVLPG, MONITOR … */
    {2, {0x0f, 0x02}, 8, 0}, /* LAR */
    {2, {0x0f, 0x03}, 8, 0}, /* LSL */
    {1, {0xcf}, 9, 0},       /* IRET */
    {2, {0x48, 0xcf}, 9, 0}, /* IRETQ */
    {1, {0xcb}, 9, 0},       /* RETF */
    {1, {0xca}, 9, 2},       /* RETF n */
    {1, {0xc3}, 9, 0},       /* RET */
    {1, {0xc2}, 9, 2},       /* RET n */
    {1, {0xff}, 3, 0},       /* CALL far */
    {1, {0xff}, 5, 0},       /* JMP far */
    {1, {0xff}, 8, 0},       /* … */
    {1, {0xcd}, 9, 1},       /* INT n */
    {1, {0xcc}, 9, 0},       /* INT3 */
    {1, {0xce}, 9, 0},       /* INTO */
    {1, {0xf1}, 9, 0},       /* INT1 */
    {1, {0x6c}, 9, 0},       /* INS, OUTS, and the other string instructions */
    {1, {0x6d}, 9, 0},
    {1, {0x6e}, 9, 0},
    {1, {0x6f}, 9, 0},
    {1, {0xa4}, 9, 0},
    {1, {0xa5}, 9, 0},
    {1, {0xa6}, 9, 0},
    {1, {0xa7}, 9, 0},
    {1, {0xaa}, 9, 0},
    {1, {0xab}, 9, 0},
    {1, {0xac}, 9, 0},
    {1, {0xae}, 9, 0},
    {2, {0xf3, 0xa4}, 9, 0},
    {2, {0xf3, 0xa5}, 9, 0},
    {2, {0xf3, 0xaa}, 9, 0},
    {2, {0xf3, 0xab}, 9, 0},
    {2, {0xf3, 0x6c}, 9, 0},
    {2, {0xf3, 0x6d}, 9, 0},
    {2, {0xf3, 0x6f}, 9, 0},
    {2, {0xf3, 0xa7}, 9, 0},
    {2, {0xf2, 0xae}, 9, 0},
    {1, {0xe4}, 9, 1}, /* IN, OUT */
    {1, {0xec}, 9, 0},
    {1, {0xef}, 9, 0},
    {2, {0x0f, 0xae}, 8, 0}, /* FXSAVE … XSAVE, XRSTOR */
    {3, {0x48, 0x0f, 0xae}, 8, 0},
    {2, {0x0f, 0xc7}, 8, 0},       /* CMPXCHG8B, XSAVEC, XSAVES, XRSTORS, RDRAND */
    {3, {0xf0, 0x0f, 0xc7}, 1, 0}, /* LOCK CMPXCHG8B */
    {4, {0xf0, 0x48, 0x0f, 0xc7}, 1, 0},
    {2, {0xf0, 0x01}, 8, 0}, /* LOCK ADD and so on */
    {2, {0xf0, 0x11}, 8, 0},
    {2, {0xf0, 0xff}, 0, 0},
    {2, {0xf0, 0x81}, 8, 9},
    {3, {0xf0, 0x0f, 0xb1}, 8, 0},
    {3, {0xf0, 0x0f, 0xc1}, 8, 0},
    {3, {0xf0, 0x0f, 0xab}, 8, 0}, /* LOCK BTS */
    {2, {0x0f, 0xab}, 8, 0},
    {1, {0x87}, 8, 0}, /* XCHG */
    {1, {0xc8}, 9, 3}, /* ENTER */
    {1, {0xc9}, 9, 0}, /* LEAVE */
    {1, {0x60}, 9, 0}, /* PUSHA, POPA */
    {1, {0x61}, 9, 0},
    {1, {0x9c}, 9, 0}, /* PUSHF, POPF */
    {1, {0x9d}, 9, 0},
    {1, {0x9a}, 9, 6}, /* CALL, JMP far */
    {1, {0xea}, 9, 6},
    {1, {0x62}, 8, 0},       /* BOUND, EVEX */
    {2, {0x0f, 0x05}, 9, 0}, /* SYSCALL, SYSRET, SYSENTER, SYSEXIT */
    {2, {0x0f, 0x07}, 9, 0},
    {3, {0x48, 0x0f, 0x07}, 9, 0},
    {2, {0x0f, 0x34}, 9, 0},
    {2, {0x0f, 0x35}, 9, 0},
    {2, {0x0f, 0xaa}, 9, 0}, /* RSM */
    {2, {0x0f, 0xa2}, 9, 0}, /* CPUID */
    {2, {0x0f, 0x30}, 9, 0}, /* WRMSR, RDMSR, RDTSC, RDPMC */
    {2, {0x0f, 0x32}, 9, 0},
    {2, {0x0f, 0x31}, 9, 0},
    {2, {0x0f, 0x33}, 9, 0},
    {3, {0x0f, 0x01, 0xf8}, 9, 0}, /* SWAPGS */
    {3, {0x0f, 0x01, 0xd0}, 9, 0}, /* XGETBV, XSETBV */
    {3, {0x0f, 0x01, 0xd1}, 9, 0},
    {3, {0x0f, 0x01, 0xc1}, 9, 0}, /* VMCALL, VMMCALL */
    {3, {0x0f, 0x01, 0xd9}, 9, 0},
    {3, {0x0f, 0x01, 0xca}, 9, 0}, /* CLAC, STAC */
    {3, {0x0f, 0x01, 0xcb}, 9, 0},
    {2, {0x0f, 0x06}, 9, 0}, /* CLTS */
    {2, {0x0f, 0x08}, 9, 0}, /* INVD, WBINVD */
    {2, {0x0f, 0x09}, 9, 0},
    {4, {0x66, 0x0f, 0x38, 0x82}, 8, 0}, /* INVPCID */
    {1, {0xf4}, 9, 0},                   /* HLT */
    {1, {0xfa}, 9, 0},                   /* CLI, STI */
    {1, {0xfb}, 9, 0},
    {1, {0xfd}, 9, 0}, /* STD, CLD */
    {1, {0xfc}, 9, 0},
    {2, {0x0f, 0x0b}, 9, 0},       /* UD2 */
    {3, {0xf3, 0x0f, 0xae}, 8, 0}, /* WRFSBASE and so on */
    {1, {0xd9}, 8, 0},             /* x87 */
    {1, {0xdb}, 8, 0},
    {1, {0xdd}, 8, 0},
    {1, {0xdf}, 8, 0},
    {1, {0x89}, 8, 0}, /* MOV */
    {1, {0x8b}, 8, 0},
    {1, {0xc7}, 0, 9},
    {1, {0xc6}, 0, 1},
    {1, {0xe2}, 9, 1}, /* LOOP */
    {1, {0xeb}, 9, 1}, /* JMP */
    {1, {0x74}, 9, 1},
    {1, {0xe8}, 9, 9}, /* CALL */
    {1, {0x50}, 9, 0}, /* PUSH */
    {1, {0x68}, 9, 9},
    {1, {0x6a}, 9, 1},
    {1, {0x0e}, 9, 0},
    {1, {0x5c}, 9, 0}, /* POP SP */
};

static void known(struct out *o)
{
    const struct form *f = &forms[random_below(o->r, ARRAY_SIZE(forms))];

    if (random_one_in(o->r, 6)) {
        prefixes(o);
    }
    for (unsigned i = 0; i < f->length; i++) {
        put8(o, f->opcode[i]);
    }
    if (f->reg != 9) {
        modrm(o, f->reg, f->opcode[0] == 0xf0);
    }
    if (f->opcode[0] == 0x9a || f->opcode[0] == 0xea) {
        put(o, random_address(o->r), o->width == 2 ? 2 : 4);
        put(o, random_below(o->r, 32) * 8 + random_below(o->r, 4), 2);
    } else if (f->immediate) {
        put_random(o, f->immediate == 9 ? MIN(o->width, 4) : f->immediate);
    }
}

static void any(struct out *o)
{
    unsigned map = random_below(o->r, 8), opcode = random_below(o->r, 256);

    prefixes(o);
    if (map == 0 && o->width == 8) { /* VEX: R X B, map; W vvvv L pp */
        put8(o, 0xc4);
        put8(o, random_below(o->r, 8) << 5 | (1 + random_below(o->r, 3)));
        put8(o, random_below(o->r, 256));
    } else if (map == 1 && o->width != 2) {
        put8(o, 0xc5);
        put8(o, random_below(o->r, 256) | 0xc0);
    } else if (map < 5) {
        put8(o, 0x0f);
        if (map == 2) {
            put8(o, 0x38);
        } else if (map == 3) {
            put8(o, 0x3a);
        }
    }
    put8(o, opcode);
    modrm(o, 8, false);
    if (random_one_in(o->r, 3)) {
        put_random(o, 1);
    }
}

/* VEX prefix, opcode, operands. In 16 and 32 bits ModRM-like bits tell it from LES and LDS. */
static void vector(struct out *o)
{
    unsigned vvvv = random_one_in(o->r, 2) ? 15 : random_below(o->r, 16);
    unsigned last = vvvv << 3 | random_below(o->r, 8); /* L, pp */
    unsigned map = 1 + random_below(o->r, 3);

    if (map == 1) {
        put8(o, 0xc5);
        put8(o, last | (o->width == 8 ? random_below(o->r, 2) << 7 : 0xc0));
    } else {
        put8(o, 0xc4);
        put8(o, (o->width == 8 ? random_below(o->r, 8) : 7) << 5 | map);
        put8(o, last | random_below(o->r, 2) << 7);
    }
    if (map == 2 && random_one_in(o->r, 4)) { /* masked moves and gathers */
        static const uint8_t opcodes[] = {0x2c, 0x2d, 0x2e, 0x2f, 0x8c,
                                          0x8e, 0x90, 0x91, 0x92, 0x93};
        put8(o, opcodes[random_below(o->r, sizeof(opcodes))]);
        modrm(o, 8, true);
    } else {
        put8(o, random_below(o->r, 256));
        modrm(o, 8, false);
    }
    if (map == 3) {
        put8(o, random_below(o->r, 256));
    }
}

/* A register gets a value. */
static void load(struct out *o)
{
    unsigned reg = random_below(o->r, 8);
    uint64_t value = random_one_in(o->r, 2) ? random_address(o->r) : random_value(o->r);

    if (o->width == 8 && random_one_in(o->r, 2)) {
        put8(o, 0x48);
        put8(o, 0xb8 | reg);
        put(o, value, 8);
    } else {
        put8(o, 0xb8 | reg);
        put(o, value, MIN(o->width, 4));
    }
}

static uint32_t random_msr(struct random *r)
{
    static const uint32_t known_msrs[] = {
        0x10,       0x11,       0x12,       0x1b,       0x3a,       0x3b,       0x48,
        0x8b,       0x9e,       0xfe,       0x122,      0x140,      0x174,      0x175,
        0x176,      0x179,      0x17a,      0x17b,      0x1a0,      0x1d9,      0x200,
        0x20f,      0x250,      0x258,      0x268,      0x26f,      0x277,      0x2ff,
        0x400,      0x403,      0x6e0,      0x802,      0x808,      0x80b,      0x80f,
        0x830,      0x832,      0x838,      0x83e,      0x83f,      0xda0,      0xc0000080,
        0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102,
        0xc0000103, 0xc0010015, 0xc0010111, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03,
        0x4b564d04, 0x40000000, 0x40000001, 0x40000105,
    };

    return random_one_in(r, 5) ? (uint32_t)random_value(r)
                               : known_msrs[random_below(r, ARRAY_SIZE(known_msrs))];
}

/* MOV ECX, msr; MOV EAX, value; WRMSR or RDMSR. */
static void msr(struct out *o)
{
    for (unsigned i = 0; i < 2; i++) {
        if (o->width == 2) {
            put8(o, 0x66);
        }
        put8(o, i ? 0xb8 : 0xb9);
        put(o, i ? random_value(o->r) : random_msr(o->r), 4);
    }
    put8(o, 0x0f);
    put8(o, random_one_in(o->r, 4) ? 0x32 : 0x30);
}

/* MOV [local APIC's register], value. */
static void apic(struct out *o)
{
    static const uint16_t registers[] = {0x80,  0xb0,  0xd0,  0xe0,  0xf0,  0x280, 0x300, 0x300,
                                         0x300, 0x310, 0x320, 0x350, 0x360, 0x380, 0x3e0};

    if (o->width == 2) {
        put8(o, 0x66);
        put8(o, 0x67);
    }
    put8(o, 0xc7);
    put8(o, o->width == 8 ? 0x04 : 0x05);
    if (o->width == 8) {
        put8(o, 0x25);
    }
    put(o, UINT64_C(0xfee00000) + registers[random_below(o->r, ARRAY_SIZE(registers))], 4);
    put(o, random_one_in(o->r, 2) ? random_u64(o->r) & 0xcffff : random_value(o->r), 4);
}

void hostile_code(struct random *r, uint8_t *at, unsigned size, unsigned width, uint64_t address)
{
    struct out o = {.r = r, .at = at, .end = at + size, .width = width, .address = address};

    while (o.at < o.end) {
        switch (random_below(r, 16)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
            known(&o);
            break;
        case 6:
        case 7:
        case 8:
        case 9:
            any(&o);
            break;
        case 10:
            vector(&o);
            break;
        case 11:
        case 12:
            load(&o);
            break;
        case 13:
            msr(&o);
            break;
        case 14:
            if (random_one_in(r, 4)) {
                apic(&o);
            }
            break;
        default:
            put8(&o, random_below(r, 256));
        }
    }
}
