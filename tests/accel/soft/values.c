/* SPDX-License-Identifier: MIT */
#include "values.h"

#include <string.h>

#include "base/bytes.h"
#include "base/range.h"
#include "host_run.h"

uint64_t value_integer(struct random *r)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     3,
                                     7,
                                     8,
                                     15,
                                     16,
                                     31,
                                     32,
                                     33,
                                     63,
                                     64,
                                     0x7f,
                                     0x80,
                                     0x81,
                                     0xff,
                                     0x100,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x10000,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x100000000,
                                     INT64_MAX,
                                     UINT64_C(0x8000000000000000),
                                     UINT64_MAX,
                                     UINT64_MAX - 1,
                                     UINT64_C(0xffffffff80000000),
                                     UINT64_C(0xffffffffffff8000),
                                     UINT64_C(0xffffffffffffff80),
                                     UINT64_C(0x8080808080808080),
                                     UINT64_C(0x5555555555555555),
                                     UINT64_C(0x0123456789abcdef)};

    switch (random_below(r, 4)) {
    case 0:
        return edges[random_below(r, ARRAY_SIZE(edges))];
    case 1:
        return random_next(r) >> random_below(r, 64);
    default:
        return random_next(r);
    }
}

void value_vector(struct random *r, uint8_t *to, unsigned size)
{
    static const uint32_t singles[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                       0xff800000, 0x7fc00000, 0xffc12345, 0x7f812345, 0xff800001,
                                       0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
                                       0x4effffff, 0x4f000000, 0xcf000000, 0x5f000000, 0x3f000000,
                                       0x3fc00000, 0x40200000, 0xbf000000, 0x33800000, 0x4b000001,
                                       0x40490fdb, 0x7e800000, 0x1f000000};
    static const uint64_t doubles[] = {0,
                                       UINT64_C(0x8000000000000000),
                                       UINT64_C(0x3ff0000000000000),
                                       UINT64_C(0xbff0000000000000),
                                       UINT64_C(0x7ff0000000000000),
                                       UINT64_C(0xfff0000000000000),
                                       UINT64_C(0x7ff8000000000000),
                                       UINT64_C(0xfff8000012345678),
                                       UINT64_C(0x7ff0000012345678),
                                       UINT64_C(0xfff0000000000001),
                                       1,
                                       UINT64_C(0x800fffffffffffff),
                                       UINT64_C(0x0010000000000000),
                                       UINT64_C(0x7fefffffffffffff),
                                       UINT64_C(0xffefffffffffffff),
                                       UINT64_C(0x41dfffffffc00000),
                                       UINT64_C(0x41e0000000000000),
                                       UINT64_C(0xc1e0000000000000),
                                       UINT64_C(0x43e0000000000000),
                                       UINT64_C(0x3fe0000000000000),
                                       UINT64_C(0x3ff8000000000000),
                                       UINT64_C(0x4004000000000000),
                                       UINT64_C(0x36a0000000000000),
                                       UINT64_C(0x47efffffe0000000),
                                       UINT64_C(0x47f0000000000000),
                                       UINT64_C(0x400921fb54442d18),
                                       UINT64_C(0x4330000000000001),
                                       UINT64_C(0x3810000000000000)};
    static const uint8_t bytes[] = {0, 1, 0x7f, 0x80, 0xff, 0x81, 0x0f, 0x10};
    unsigned kind = random_below(r, 8);

    for (unsigned n = 0; n < size; n += 8) {
        uint64_t v = 0;

        switch (kind) {
        case 0:
        case 1:
            for (unsigned k = 0; k < 2; k++) {
                v = v << 32 | singles[random_below(r, ARRAY_SIZE(singles))];
            }
            break;
        case 2:
        case 3:
            v = doubles[random_below(r, ARRAY_SIZE(doubles))];
            break;
        case 4:
            for (unsigned k = 0; k < 8; k++) {
                v = v << 8 | bytes[random_below(r, ARRAY_SIZE(bytes))];
            }
            break;
        case 5: /* numbers near one, single or double */
            v = random_next(r) & 1
                    ? (random_next(r) & UINT64_C(0x807fffff807fffff)) + UINT64_C(0x3f8000003f000000)
                    : (random_next(r) & UINT64_C(0x801fffffffffffff)) +
                          UINT64_C(0x3fe0000000000000);
            break;
        case 6:
            v = value_integer(r);
            break;
        default:
            v = random_next(r);
            break;
        }
        memcpy(to + n, &v, size - n < 8 ? size - n : 8);
    }
}

void value_x87(struct random *r, uint8_t to[10])
{
    static const struct {
        uint16_t exponent;
        uint64_t mantissa;
    } edges[] = {
        {0, 0},                                 /* zero */
        {0x8000, 0},                            /* -0 */
        {0x3fff, UINT64_C(0x8000000000000000)}, /* 1 */
        {0xbfff, UINT64_C(0x8000000000000000)}, /* -1 */
        {0x3ffe, UINT64_C(0x8000000000000000)}, /* 0.5 */
        {0x4000, UINT64_C(0xc90fdaa22168c235)}, /* pi */
        {0x7fff, UINT64_C(0x8000000000000000)}, /* infinity */
        {0xffff, UINT64_C(0x8000000000000000)}, /* -infinity */
        {0x7fff, UINT64_C(0xc000000000000000)}, /* quiet NaN */
        {0xffff, UINT64_C(0xc000000000000000)}, /* indefinite */
        {0x7fff, UINT64_C(0x8000000000000001)}, /* signaling NaN */
        {0xffff, UINT64_C(0xe000000012345678)}, /* quiet NaN */
        {0x0000, 1},                            /* denormal */
        {0x8000, UINT64_C(0x7fffffffffffffff)}, /* denormal */
        {0x0000, UINT64_C(0x8000000000000000)}, /* pseudo-denormal */
        {0x0001, UINT64_C(0x8000000000000000)}, /* smallest normal */
        {0x7ffe, UINT64_C(0xffffffffffffffff)}, /* largest */
        {0x4000, UINT64_C(0x4000000000000000)}, /* unnormal */
        {0x7fff, UINT64_C(0x4000000000000000)}, /* pseudo-NaN */
        {0x7fff, 0},                            /* pseudo-infinity */
        {0x401e, UINT64_C(0x8000000000000000)}, /* 2^31 */
        {0xc03e, UINT64_C(0x8000000000000000)}, /* -2^63 */
        {0x403e, UINT64_C(0x8000000000000000)}, /* 2^63 */
        {0x3c00, UINT64_C(0xfffff00000000000)}, /* a double's denormal */
        {0x43ff, UINT64_C(0x8000000000000000)}, /* above doubles */
        {0x403a, UINT64_C(0xde0b6b3a763ffff0)}, /* 10^18 - 1: largest packed decimal */
    };
    uint16_t exponent;
    uint64_t mantissa;

    switch (random_below(r, 5)) {
    case 0:
    case 1: {
        unsigned i = random_below(r, ARRAY_SIZE(edges));
        exponent = edges[i].exponent;
        mantissa = edges[i].mantissa;
        break;
    }
    case 2: /* small integers and halves */
        exponent = (uint16_t)(0x3ffe + random_below(r, 8)) | (uint16_t)(random_next(r) & 0x8000);
        mantissa = UINT64_C(1) << 63 | (random_next(r) & UINT64_C(0x7f00000000000000));
        break;
    case 3: /* of ordinary size */
        exponent = (uint16_t)(0x3fff - 70 + (int)random_below(r, 140)) |
                   (uint16_t)(random_next(r) & 0x8000);
        mantissa = UINT64_C(1) << 63 | random_next(r);
        break;
    default:
        exponent = (uint16_t)random_next(r);
        mantissa = UINT64_C(1) << 63 | random_next(r);
        break;
    }
    store_le64(to, mantissa);
    store_le16(to + 8, exponent);
}

uint16_t value_selector(struct random *r)
{
    /* Null ones, Linux's and the test's user segments, kernel ones, holes, beyond the limit, LDT. */
    static const uint16_t selectors[] = {
        0,    3,    SELECTOR_DATA, SELECTOR_CODE32, SELECTOR_CODE64, 0x2b,
        0x2a, 0x10, 0x18,          0x53 - 0x10,     0x1003,          0xfffb,
        0x7,  0xf,  0x2b};

    return selectors[random_below(r, ARRAY_SIZE(selectors))];
}

void value_area(struct random *r, uint8_t area[AREA_SIZE])
{
    static const uint8_t tags[] = {0xff, 0xff, 0x00, 0xfe, 0x7f};
    uint16_t control = 0x37f, status;
    uint32_t mxcsr = 0x1f80;

    memset(area, 0, AREA_SIZE);
    /* Rounding and precision; 01 is a reserved precision. */
    if (random_below(r, 2)) {
        control = (uint16_t)(0x7f | random_below(r, 4) << 10 |
                             (uint16_t[]){0x300, 0x200, 0, 0x300}[random_below(r, 4)]);
    }
    if (random_below(r, 6) == 0) {
        control &= (uint16_t) ~(random_next(r) & 0x3f);
    }
    status = (uint16_t)(random_next(r) & 0x7f00);
    if (random_below(r, 6) == 0) {
        status |= (uint16_t)(random_next(r) & 0x7f);
    }
    if (status & ~control & 0x3f) {
        status |= 0x8080; /* ES, B */
    }
    store_le16(area + AREA_FCW, control);
    store_le16(area + AREA_FSW, status);
    area[AREA_FTW] =
        random_below(r, 6) ? tags[random_below(r, sizeof(tags))] : (uint8_t)random_next(r);
    /* AMD's processors load and store pointers only beside a pending exception (APM volume 2, 11.4.4). */
    uint64_t ip = random_next(r) & 0xffffffff;
    store_le64(area + AREA_FIP, host_is_intel() ? ip : 0);
    if (random_below(r, 2)) {
        mxcsr |= (uint32_t)(random_next(r) & 0xe040);
    }
    if (random_below(r, 6) == 0) {
        mxcsr &= ~(uint32_t)(random_next(r) & 0x1f80);
    }
    if (random_below(r, 4) == 0) {
        mxcsr |= (uint32_t)(random_next(r) & 0x3f);
    }
    store_le32(area + AREA_MXCSR, mxcsr);
    store_le32(area + AREA_MXCSR + 4, 0xffff);
    for (unsigned i = 0; i < 8; i++) {
        value_x87(r, area + AREA_ST + 16 * i);
    }
    for (unsigned i = 0; i < 16; i++) {
        value_vector(r, area + AREA_XMM + 16 * i, 16);
        value_vector(r, area + AREA_YMM + 16 * i, 16);
    }
    store_le64(area + AREA_BV, 7);
}
