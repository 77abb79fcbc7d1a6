/* SPDX-License-Identifier: MIT */
/*
 * MMX and SSE instructions of one shape: xmm op= xmm/m. Each list is expanded by the file that has the
 * handlers and by lower_sse.c, which makes rows of its table.
 */
#ifndef FERRY_ACCEL_SOFT_SSE_LIST_H
#define FERRY_ACCEL_SOFT_SSE_LIST_H

#include "accel/soft/sse.h"

/*
 * Integer instructions that are there for MMX and XMM registers (SDM volume 1, 9.4, 10.4.4, 11.4.2,
 * 12.6): X(name, mnemonic, SSE feature, MMX feature, MMX shape, bytes of MMX's memory operand).
 * Shapes: op_sse_integer.c.
 */
#define SSE_LIST_DUAL(X)                                                                           \
    X(packssdw, PACKSSDW, sse2, mmx, JOINED, 8)                                                    \
    X(packsswb, PACKSSWB, sse2, mmx, JOINED, 8)                                                    \
    X(packuswb, PACKUSWB, sse2, mmx, JOINED, 8)                                                    \
    X(paddb, PADDB, sse2, mmx, PLAIN, 8)                                                           \
    X(paddw, PADDW, sse2, mmx, PLAIN, 8)                                                           \
    X(paddd, PADDD, sse2, mmx, PLAIN, 8)                                                           \
    X(paddq, PADDQ, sse2, sse2, PLAIN, 8)                                                          \
    X(paddsb, PADDSB, sse2, mmx, PLAIN, 8)                                                         \
    X(paddsw, PADDSW, sse2, mmx, PLAIN, 8)                                                         \
    X(paddusb, PADDUSB, sse2, mmx, PLAIN, 8)                                                       \
    X(paddusw, PADDUSW, sse2, mmx, PLAIN, 8)                                                       \
    X(psubb, PSUBB, sse2, mmx, PLAIN, 8)                                                           \
    X(psubw, PSUBW, sse2, mmx, PLAIN, 8)                                                           \
    X(psubd, PSUBD, sse2, mmx, PLAIN, 8)                                                           \
    X(psubq, PSUBQ, sse2, sse2, PLAIN, 8)                                                          \
    X(psubsb, PSUBSB, sse2, mmx, PLAIN, 8)                                                         \
    X(psubsw, PSUBSW, sse2, mmx, PLAIN, 8)                                                         \
    X(psubusb, PSUBUSB, sse2, mmx, PLAIN, 8)                                                       \
    X(psubusw, PSUBUSW, sse2, mmx, PLAIN, 8)                                                       \
    X(pand, PAND, sse2, mmx, PLAIN, 8)                                                             \
    X(pandn, PANDN, sse2, mmx, PLAIN, 8)                                                           \
    X(por, POR, sse2, mmx, PLAIN, 8)                                                               \
    X(pxor, PXOR, sse2, mmx, PLAIN, 8)                                                             \
    X(pavgb, PAVGB, sse2, sse, PLAIN, 8)                                                           \
    X(pavgw, PAVGW, sse2, sse, PLAIN, 8)                                                           \
    X(pcmpeqb, PCMPEQB, sse2, mmx, PLAIN, 8)                                                       \
    X(pcmpeqw, PCMPEQW, sse2, mmx, PLAIN, 8)                                                       \
    X(pcmpeqd, PCMPEQD, sse2, mmx, PLAIN, 8)                                                       \
    X(pcmpgtb, PCMPGTB, sse2, mmx, PLAIN, 8)                                                       \
    X(pcmpgtw, PCMPGTW, sse2, mmx, PLAIN, 8)                                                       \
    X(pcmpgtd, PCMPGTD, sse2, mmx, PLAIN, 8)                                                       \
    X(pmaddwd, PMADDWD, sse2, mmx, PLAIN, 8)                                                       \
    X(pmaxsw, PMAXSW, sse2, sse, PLAIN, 8)                                                         \
    X(pmaxub, PMAXUB, sse2, sse, PLAIN, 8)                                                         \
    X(pminsw, PMINSW, sse2, sse, PLAIN, 8)                                                         \
    X(pminub, PMINUB, sse2, sse, PLAIN, 8)                                                         \
    X(pmulhuw, PMULHUW, sse2, sse, PLAIN, 8)                                                       \
    X(pmulhw, PMULHW, sse2, mmx, PLAIN, 8)                                                         \
    X(pmullw, PMULLW, sse2, mmx, PLAIN, 8)                                                         \
    X(pmuludq, PMULUDQ, sse2, sse2, PLAIN, 8)                                                      \
    X(psadbw, PSADBW, sse2, sse, PLAIN, 8)                                                         \
    X(punpckhbw, PUNPCKHBW, sse2, mmx, HIGH, 8)                                                    \
    X(punpckhwd, PUNPCKHWD, sse2, mmx, HIGH, 8)                                                    \
    X(punpckhdq, PUNPCKHDQ, sse2, mmx, HIGH, 8)                                                    \
    X(punpcklbw, PUNPCKLBW, sse2, mmx, PLAIN, 4)                                                   \
    X(punpcklwd, PUNPCKLWD, sse2, mmx, PLAIN, 4)                                                   \
    X(punpckldq, PUNPCKLDQ, sse2, mmx, PLAIN, 4)                                                   \
    X(pshufb, PSHUFB, ssse3, ssse3, INDEXED, 8)                                                    \
    X(phaddw, PHADDW, ssse3, ssse3, JOINED, 8)                                                     \
    X(phaddd, PHADDD, ssse3, ssse3, JOINED, 8)                                                     \
    X(phaddsw, PHADDSW, ssse3, ssse3, JOINED, 8)                                                   \
    X(phsubw, PHSUBW, ssse3, ssse3, JOINED, 8)                                                     \
    X(phsubd, PHSUBD, ssse3, ssse3, JOINED, 8)                                                     \
    X(phsubsw, PHSUBSW, ssse3, ssse3, JOINED, 8)                                                   \
    X(pmaddubsw, PMADDUBSW, ssse3, ssse3, PLAIN, 8)                                                \
    X(pmulhrsw, PMULHRSW, ssse3, ssse3, PLAIN, 8)                                                  \
    X(psignb, PSIGNB, ssse3, ssse3, PLAIN, 8)                                                      \
    X(psignw, PSIGNW, ssse3, ssse3, PLAIN, 8)                                                      \
    X(psignd, PSIGND, ssse3, ssse3, PLAIN, 8)                                                      \
    X(pabsb, PABSB, ssse3, ssse3, PLAIN, 8)                                                        \
    X(pabsw, PABSW, ssse3, ssse3, PLAIN, 8)                                                        \
    X(pabsd, PABSD, ssse3, ssse3, PLAIN, 8)

/* Shifts: the same, and with the count as an immediate byte. X(name, mnemonic) */
#define SSE_LIST_SHIFT(X)                                                                          \
    X(psllw, PSLLW)                                                                                \
    X(pslld, PSLLD)                                                                                \
    X(psllq, PSLLQ)                                                                                \
    X(psraw, PSRAW)                                                                                \
    X(psrad, PSRAD)                                                                                \
    X(psrlw, PSRLW)                                                                                \
    X(psrld, PSRLD)                                                                                \
    X(psrlq, PSRLQ)

/* XMM only, without exceptions: X(name, mnemonic, feature, bytes of the memory operand). One of 16
 * bytes must be aligned. */
#define SSE_LIST_INTEGER(X)                                                                        \
    X(andps, ANDPS, sse, 16)                                                                       \
    X(andnps, ANDNPS, sse, 16)                                                                     \
    X(orps, ORPS, sse, 16)                                                                         \
    X(xorps, XORPS, sse, 16)                                                                       \
    X(unpckhps, UNPCKHPS, sse, 16)                                                                 \
    X(unpcklps, UNPCKLPS, sse, 16)                                                                 \
    X(rcpps, RCPPS, sse, 16)                                                                       \
    X(rcpss, RCPSS, sse, 4)                                                                        \
    X(rsqrtps, RSQRTPS, sse, 16)                                                                   \
    X(rsqrtss, RSQRTSS, sse, 4)                                                                    \
    X(andpd, ANDPD, sse2, 16)                                                                      \
    X(andnpd, ANDNPD, sse2, 16)                                                                    \
    X(orpd, ORPD, sse2, 16)                                                                        \
    X(xorpd, XORPD, sse2, 16)                                                                      \
    X(unpckhpd, UNPCKHPD, sse2, 16)                                                                \
    X(unpcklpd, UNPCKLPD, sse2, 16)                                                                \
    X(punpckhqdq, PUNPCKHQDQ, sse2, 16)                                                            \
    X(punpcklqdq, PUNPCKLQDQ, sse2, 16)                                                            \
    X(cvtdq2pd, CVTDQ2PD, sse2, 8)                                                                 \
    X(movddup, MOVDDUP, sse3, 8)                                                                   \
    X(movshdup, MOVSHDUP, sse3, 16)                                                                \
    X(movsldup, MOVSLDUP, sse3, 16)                                                                \
    X(packusdw, PACKUSDW, sse4_1, 16)                                                              \
    X(pcmpeqq, PCMPEQQ, sse4_1, 16)                                                                \
    X(phminposuw, PHMINPOSUW, sse4_1, 16)                                                          \
    X(pmaxsb, PMAXSB, sse4_1, 16)                                                                  \
    X(pmaxsd, PMAXSD, sse4_1, 16)                                                                  \
    X(pmaxud, PMAXUD, sse4_1, 16)                                                                  \
    X(pmaxuw, PMAXUW, sse4_1, 16)                                                                  \
    X(pminsb, PMINSB, sse4_1, 16)                                                                  \
    X(pminsd, PMINSD, sse4_1, 16)                                                                  \
    X(pminud, PMINUD, sse4_1, 16)                                                                  \
    X(pminuw, PMINUW, sse4_1, 16)                                                                  \
    X(pmuldq, PMULDQ, sse4_1, 16)                                                                  \
    X(pmulld, PMULLD, sse4_1, 16)                                                                  \
    X(pmovsxbw, PMOVSXBW, sse4_1, 8)                                                               \
    X(pmovsxbd, PMOVSXBD, sse4_1, 4)                                                               \
    X(pmovsxbq, PMOVSXBQ, sse4_1, 2)                                                               \
    X(pmovsxwd, PMOVSXWD, sse4_1, 8)                                                               \
    X(pmovsxwq, PMOVSXWQ, sse4_1, 4)                                                               \
    X(pmovsxdq, PMOVSXDQ, sse4_1, 8)                                                               \
    X(pmovzxbw, PMOVZXBW, sse4_1, 8)                                                               \
    X(pmovzxbd, PMOVZXBD, sse4_1, 4)                                                               \
    X(pmovzxbq, PMOVZXBQ, sse4_1, 2)                                                               \
    X(pmovzxwd, PMOVZXWD, sse4_1, 8)                                                               \
    X(pmovzxwq, PMOVZXWQ, sse4_1, 4)                                                               \
    X(pmovzxdq, PMOVZXDQ, sse4_1, 8)                                                               \
    X(pcmpgtq, PCMPGTQ, sse4_2, 16)                                                                \
    X(aesenc, AESENC, aes, 16)                                                                     \
    X(aesenclast, AESENCLAST, aes, 16)                                                             \
    X(aesdec, AESDEC, aes, 16)                                                                     \
    X(aesdeclast, AESDECLAST, aes, 16)                                                             \
    X(aesimc, AESIMC, aes, 16)                                                                     \
    X(sha1msg1, SHA1MSG1, sha, 16)                                                                 \
    X(sha1msg2, SHA1MSG2, sha, 16)                                                                 \
    X(sha1nexte, SHA1NEXTE, sha, 16)                                                               \
    X(sha256msg1, SHA256MSG1, sha, 16)                                                             \
    X(sha256msg2, SHA256MSG2, sha, 16)

/* With XMM0 as a third operand. */
#define SSE_LIST_XMM0(X)                                                                           \
    X(blendvps, BLENDVPS, sse4_1, 16)                                                              \
    X(blendvpd, BLENDVPD, sse4_1, 16)                                                              \
    X(pblendvb, PBLENDVB, sse4_1, 16)                                                              \
    X(sha256rnds2, SHA256RNDS2, sha, 16)

/* With SIMD floating-point exceptions. */
#define SSE_LIST_FLOAT(X)                                                                          \
    X(addps, ADDPS, sse, 16)                                                                       \
    X(addss, ADDSS, sse, 4)                                                                        \
    X(subps, SUBPS, sse, 16)                                                                       \
    X(subss, SUBSS, sse, 4)                                                                        \
    X(mulps, MULPS, sse, 16)                                                                       \
    X(mulss, MULSS, sse, 4)                                                                        \
    X(divps, DIVPS, sse, 16)                                                                       \
    X(divss, DIVSS, sse, 4)                                                                        \
    X(maxps, MAXPS, sse, 16)                                                                       \
    X(maxss, MAXSS, sse, 4)                                                                        \
    X(minps, MINPS, sse, 16)                                                                       \
    X(minss, MINSS, sse, 4)                                                                        \
    X(sqrtps, SQRTPS, sse, 16)                                                                     \
    X(sqrtss, SQRTSS, sse, 4)                                                                      \
    X(addpd, ADDPD, sse2, 16)                                                                      \
    X(addsd, ADDSD, sse2, 8)                                                                       \
    X(subpd, SUBPD, sse2, 16)                                                                      \
    X(subsd, SUBSD, sse2, 8)                                                                       \
    X(mulpd, MULPD, sse2, 16)                                                                      \
    X(mulsd, MULSD, sse2, 8)                                                                       \
    X(divpd, DIVPD, sse2, 16)                                                                      \
    X(divsd, DIVSD, sse2, 8)                                                                       \
    X(maxpd, MAXPD, sse2, 16)                                                                      \
    X(maxsd, MAXSD, sse2, 8)                                                                       \
    X(minpd, MINPD, sse2, 16)                                                                      \
    X(minsd, MINSD, sse2, 8)                                                                       \
    X(sqrtpd, SQRTPD, sse2, 16)                                                                    \
    X(sqrtsd, SQRTSD, sse2, 8)                                                                     \
    X(cvtdq2ps, CVTDQ2PS, sse2, 16)                                                                \
    X(cvtps2dq, CVTPS2DQ, sse2, 16)                                                                \
    X(cvttps2dq, CVTTPS2DQ, sse2, 16)                                                              \
    X(cvtpd2dq, CVTPD2DQ, sse2, 16)                                                                \
    X(cvttpd2dq, CVTTPD2DQ, sse2, 16)                                                              \
    X(cvtpd2ps, CVTPD2PS, sse2, 16)                                                                \
    X(cvtps2pd, CVTPS2PD, sse2, 8)                                                                 \
    X(cvtsd2ss, CVTSD2SS, sse2, 8)                                                                 \
    X(cvtss2sd, CVTSS2SD, sse2, 4)                                                                 \
    X(addsubps, ADDSUBPS, sse3, 16)                                                                \
    X(addsubpd, ADDSUBPD, sse3, 16)                                                                \
    X(haddps, HADDPS, sse3, 16)                                                                    \
    X(haddpd, HADDPD, sse3, 16)                                                                    \
    X(hsubps, HSUBPS, sse3, 16)                                                                    \
    X(hsubpd, HSUBPD, sse3, 16)

/*
 * With an immediate byte, whose values have functions in sse_immediate.S:
 * X(name, mnemonic, feature, bytes, bits of the immediate that count, highest index, SSE_FLOAT or 0).
 */
#define SSE_LIST_IMMEDIATE(X)                                                                      \
    X(shufps, SHUFPS, sse, 16, 0xff, 0xff, 0)                                                      \
    X(cmpps, CMPPS, sse, 16, 7, 7, SSE_FLOAT)                                                      \
    X(cmpss, CMPSS, sse, 4, 7, 7, SSE_FLOAT)                                                       \
    X(shufpd, SHUFPD, sse2, 16, 3, 3, 0)                                                           \
    X(cmppd, CMPPD, sse2, 16, 7, 7, SSE_FLOAT)                                                     \
    X(cmpsd, CMPSD, sse2, 8, 7, 7, SSE_FLOAT)                                                      \
    X(pshufd, PSHUFD, sse2, 16, 0xff, 0xff, 0)                                                     \
    X(pshufhw, PSHUFHW, sse2, 16, 0xff, 0xff, 0)                                                   \
    X(pshuflw, PSHUFLW, sse2, 16, 0xff, 0xff, 0)                                                   \
    X(pslldq, PSLLDQ, sse2, 16, 0xff, 16, 0)                                                       \
    X(psrldq, PSRLDQ, sse2, 16, 0xff, 16, 0)                                                       \
    X(blendps, BLENDPS, sse4_1, 16, 15, 15, 0)                                                     \
    X(blendpd, BLENDPD, sse4_1, 16, 3, 3, 0)                                                       \
    X(pblendw, PBLENDW, sse4_1, 16, 0xff, 0xff, 0)                                                 \
    X(dpps, DPPS, sse4_1, 16, 0xff, 0xff, SSE_FLOAT)                                               \
    X(dppd, DPPD, sse4_1, 16, 0x33, 0x33, SSE_FLOAT)                                               \
    X(mpsadbw, MPSADBW, sse4_1, 16, 7, 7, 0)                                                       \
    X(roundps, ROUNDPS, sse4_1, 16, 15, 15, SSE_FLOAT)                                             \
    X(roundpd, ROUNDPD, sse4_1, 16, 15, 15, SSE_FLOAT)                                             \
    X(roundss, ROUNDSS, sse4_1, 4, 15, 15, SSE_FLOAT)                                              \
    X(roundsd, ROUNDSD, sse4_1, 8, 15, 15, SSE_FLOAT)                                              \
    X(pclmulqdq, PCLMULQDQ, pclmul, 16, 0x11, 0x11, 0)                                             \
    X(aeskeygenassist, AESKEYGENASSIST, aes, 16, 0xff, 0xff, 0)                                    \
    X(sha1rnds4, SHA1RNDS4, sha, 16, 3, 3, 0)

/* ---- what the files define --------------------------------------------------------------------- */

#define SSE_DECLARE_INSN(name, ...)  extern const struct soft_sse_insn soft_insn_##name;
#define SSE_DECLARE_SHIFT(name, ...) soft_op_fn soft_sse_##name##_ri;
#define SSE_DECLARE_TABLE(name, ...) extern const uint8_t soft_sse_##name##_table[];
SSE_LIST_DUAL(SSE_DECLARE_INSN)
SSE_LIST_SHIFT(SSE_DECLARE_INSN)
SSE_LIST_SHIFT(SSE_DECLARE_SHIFT) /* the count is op->src */
SSE_LIST_INTEGER(SSE_DECLARE_INSN)
SSE_LIST_XMM0(SSE_DECLARE_INSN)
SSE_LIST_FLOAT(SSE_DECLARE_INSN)
SSE_LIST_IMMEDIATE(SSE_DECLARE_TABLE)

#endif
