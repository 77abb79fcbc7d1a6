/* SPDX-License-Identifier: MIT */
/*
 * VEX-encoded vector instructions by shape, as X(name, MNEMONIC). avx_stubs.S makes a function of
 * each, lower_avx.c a row of its table. In the names of lists: BOTH has 128- and 256-bit forms; FLOAT
 * can have SIMD floating-point exceptions. Included by C and by assembly.
 */
#ifndef FERRY_ACCEL_SOFT_AVX_LIST_H
#define FERRY_ACCEL_SOFT_AVX_LIST_H

/* dst = a op b; for shifts by a register, b is 128 bits wide in any case. */
#define AVX_LIST_THREE_BOTH(X)                                                                     \
    X(vpacksswb, VPACKSSWB)                                                                        \
    X(vpackssdw, VPACKSSDW)                                                                        \
    X(vpackuswb, VPACKUSWB)                                                                        \
    X(vpackusdw, VPACKUSDW)                                                                        \
    X(vpaddb, VPADDB)                                                                              \
    X(vpaddw, VPADDW)                                                                              \
    X(vpaddd, VPADDD)                                                                              \
    X(vpaddq, VPADDQ)                                                                              \
    X(vpaddsb, VPADDSB)                                                                            \
    X(vpaddsw, VPADDSW)                                                                            \
    X(vpaddusb, VPADDUSB)                                                                          \
    X(vpaddusw, VPADDUSW)                                                                          \
    X(vpsubb, VPSUBB)                                                                              \
    X(vpsubw, VPSUBW)                                                                              \
    X(vpsubd, VPSUBD)                                                                              \
    X(vpsubq, VPSUBQ)                                                                              \
    X(vpsubsb, VPSUBSB)                                                                            \
    X(vpsubsw, VPSUBSW)                                                                            \
    X(vpsubusb, VPSUBUSB)                                                                          \
    X(vpsubusw, VPSUBUSW)                                                                          \
    X(vpand, VPAND)                                                                                \
    X(vpandn, VPANDN)                                                                              \
    X(vpor, VPOR)                                                                                  \
    X(vpxor, VPXOR)                                                                                \
    X(vpavgb, VPAVGB)                                                                              \
    X(vpavgw, VPAVGW)                                                                              \
    X(vpcmpeqb, VPCMPEQB)                                                                          \
    X(vpcmpeqw, VPCMPEQW)                                                                          \
    X(vpcmpeqd, VPCMPEQD)                                                                          \
    X(vpcmpeqq, VPCMPEQQ)                                                                          \
    X(vpcmpgtb, VPCMPGTB)                                                                          \
    X(vpcmpgtw, VPCMPGTW)                                                                          \
    X(vpcmpgtd, VPCMPGTD)                                                                          \
    X(vpcmpgtq, VPCMPGTQ)                                                                          \
    X(vphaddw, VPHADDW)                                                                            \
    X(vphaddd, VPHADDD)                                                                            \
    X(vphaddsw, VPHADDSW)                                                                          \
    X(vphsubw, VPHSUBW)                                                                            \
    X(vphsubd, VPHSUBD)                                                                            \
    X(vphsubsw, VPHSUBSW)                                                                          \
    X(vpmaddubsw, VPMADDUBSW)                                                                      \
    X(vpmaddwd, VPMADDWD)                                                                          \
    X(vpmaxsb, VPMAXSB)                                                                            \
    X(vpmaxsw, VPMAXSW)                                                                            \
    X(vpmaxsd, VPMAXSD)                                                                            \
    X(vpmaxub, VPMAXUB)                                                                            \
    X(vpmaxuw, VPMAXUW)                                                                            \
    X(vpmaxud, VPMAXUD)                                                                            \
    X(vpminsb, VPMINSB)                                                                            \
    X(vpminsw, VPMINSW)                                                                            \
    X(vpminsd, VPMINSD)                                                                            \
    X(vpminub, VPMINUB)                                                                            \
    X(vpminuw, VPMINUW)                                                                            \
    X(vpminud, VPMINUD)                                                                            \
    X(vpmuldq, VPMULDQ)                                                                            \
    X(vpmuludq, VPMULUDQ)                                                                          \
    X(vpmulhrsw, VPMULHRSW)                                                                        \
    X(vpmulhuw, VPMULHUW)                                                                          \
    X(vpmulhw, VPMULHW)                                                                            \
    X(vpmulld, VPMULLD)                                                                            \
    X(vpmullw, VPMULLW)                                                                            \
    X(vpsadbw, VPSADBW)                                                                            \
    X(vpshufb, VPSHUFB)                                                                            \
    X(vpsignb, VPSIGNB)                                                                            \
    X(vpsignw, VPSIGNW)                                                                            \
    X(vpsignd, VPSIGND)                                                                            \
    X(vpunpcklbw, VPUNPCKLBW)                                                                      \
    X(vpunpcklwd, VPUNPCKLWD)                                                                      \
    X(vpunpckldq, VPUNPCKLDQ)                                                                      \
    X(vpunpcklqdq, VPUNPCKLQDQ)                                                                    \
    X(vpunpckhbw, VPUNPCKHBW)                                                                      \
    X(vpunpckhwd, VPUNPCKHWD)                                                                      \
    X(vpunpckhdq, VPUNPCKHDQ)                                                                      \
    X(vpunpckhqdq, VPUNPCKHQDQ)                                                                    \
    X(vpsllvd, VPSLLVD)                                                                            \
    X(vpsllvq, VPSLLVQ)                                                                            \
    X(vpsrlvd, VPSRLVD)                                                                            \
    X(vpsrlvq, VPSRLVQ)                                                                            \
    X(vpsravd, VPSRAVD)                                                                            \
    X(vandps, VANDPS)                                                                              \
    X(vandpd, VANDPD)                                                                              \
    X(vandnps, VANDNPS)                                                                            \
    X(vandnpd, VANDNPD)                                                                            \
    X(vorps, VORPS)                                                                                \
    X(vorpd, VORPD)                                                                                \
    X(vxorps, VXORPS)                                                                              \
    X(vxorpd, VXORPD)                                                                              \
    X(vunpcklps, VUNPCKLPS)                                                                        \
    X(vunpcklpd, VUNPCKLPD)                                                                        \
    X(vunpckhps, VUNPCKHPS)                                                                        \
    X(vunpckhpd, VUNPCKHPD)

#define AVX_LIST_THREE_BOTH_FLOAT(X)                                                               \
    X(vaddps, VADDPS)                                                                              \
    X(vaddpd, VADDPD)                                                                              \
    X(vsubps, VSUBPS)                                                                              \
    X(vsubpd, VSUBPD)                                                                              \
    X(vmulps, VMULPS)                                                                              \
    X(vmulpd, VMULPD)                                                                              \
    X(vdivps, VDIVPS)                                                                              \
    X(vdivpd, VDIVPD)                                                                              \
    X(vmaxps, VMAXPS)                                                                              \
    X(vmaxpd, VMAXPD)                                                                              \
    X(vminps, VMINPS)                                                                              \
    X(vminpd, VMINPD)                                                                              \
    X(vaddsubps, VADDSUBPS)                                                                        \
    X(vaddsubpd, VADDSUBPD)                                                                        \
    X(vhaddps, VHADDPS)                                                                            \
    X(vhaddpd, VHADDPD)                                                                            \
    X(vhsubps, VHSUBPS)                                                                            \
    X(vhsubpd, VHSUBPD)

#define AVX_LIST_THREE_256(X)                                                                      \
    X(vpermd, VPERMD)                                                                              \
    X(vpermps, VPERMPS)

#define AVX_LIST_THREE_128(X)                                                                      \
    X(vaesenc, VAESENC)                                                                            \
    X(vaesenclast, VAESENCLAST)                                                                    \
    X(vaesdec, VAESDEC)                                                                            \
    X(vaesdeclast, VAESDECLAST)                                                                    \
    X(vrcpss, VRCPSS)                                                                              \
    X(vrsqrtss, VRSQRTSS)

#define AVX_LIST_THREE_128_FLOAT(X)                                                                \
    X(vaddss, VADDSS)                                                                              \
    X(vaddsd, VADDSD)                                                                              \
    X(vsubss, VSUBSS)                                                                              \
    X(vsubsd, VSUBSD)                                                                              \
    X(vmulss, VMULSS)                                                                              \
    X(vmulsd, VMULSD)                                                                              \
    X(vdivss, VDIVSS)                                                                              \
    X(vdivsd, VDIVSD)                                                                              \
    X(vmaxss, VMAXSS)                                                                              \
    X(vmaxsd, VMAXSD)                                                                              \
    X(vminss, VMINSS)                                                                              \
    X(vminsd, VMINSD)                                                                              \
    X(vsqrtss, VSQRTSS)                                                                            \
    X(vsqrtsd, VSQRTSD)                                                                            \
    X(vcvtss2sd, VCVTSS2SD)                                                                        \
    X(vcvtsd2ss, VCVTSD2SS)

/* dst = op b */
#define AVX_LIST_TWO_BOTH(X)                                                                       \
    X(vpabsb, VPABSB)                                                                              \
    X(vpabsw, VPABSW)                                                                              \
    X(vpabsd, VPABSD)                                                                              \
    X(vpmovsxbw, VPMOVSXBW)                                                                        \
    X(vpmovsxbd, VPMOVSXBD)                                                                        \
    X(vpmovsxbq, VPMOVSXBQ)                                                                        \
    X(vpmovsxwd, VPMOVSXWD)                                                                        \
    X(vpmovsxwq, VPMOVSXWQ)                                                                        \
    X(vpmovsxdq, VPMOVSXDQ)                                                                        \
    X(vpmovzxbw, VPMOVZXBW)                                                                        \
    X(vpmovzxbd, VPMOVZXBD)                                                                        \
    X(vpmovzxbq, VPMOVZXBQ)                                                                        \
    X(vpmovzxwd, VPMOVZXWD)                                                                        \
    X(vpmovzxwq, VPMOVZXWQ)                                                                        \
    X(vpmovzxdq, VPMOVZXDQ)                                                                        \
    X(vmovddup, VMOVDDUP)                                                                          \
    X(vmovshdup, VMOVSHDUP)                                                                        \
    X(vmovsldup, VMOVSLDUP)                                                                        \
    X(vrcpps, VRCPPS)                                                                              \
    X(vrsqrtps, VRSQRTPS)                                                                          \
    X(vbroadcastss, VBROADCASTSS)                                                                  \
    X(vpbroadcastb, VPBROADCASTB)                                                                  \
    X(vpbroadcastw, VPBROADCASTW)                                                                  \
    X(vpbroadcastd, VPBROADCASTD)                                                                  \
    X(vpbroadcastq, VPBROADCASTQ)                                                                  \
    X(vcvtdq2pd, VCVTDQ2PD)

#define AVX_LIST_TWO_BOTH_FLOAT(X)                                                                 \
    X(vsqrtps, VSQRTPS)                                                                            \
    X(vsqrtpd, VSQRTPD)                                                                            \
    X(vcvtdq2ps, VCVTDQ2PS)                                                                        \
    X(vcvtps2dq, VCVTPS2DQ)                                                                        \
    X(vcvttps2dq, VCVTTPS2DQ)                                                                      \
    X(vcvtps2pd, VCVTPS2PD)                                                                        \
    X(vcvtph2ps, VCVTPH2PS)

/* The assembler wants the size of what is narrowed. */
#define AVX_LIST_TWO_NARROW_FLOAT(X)                                                               \
    X(vcvtpd2ps, VCVTPD2PS)                                                                        \
    X(vcvtpd2dq, VCVTPD2DQ)                                                                        \
    X(vcvttpd2dq, VCVTTPD2DQ)

#define AVX_LIST_TWO_256(X)                                                                        \
    X(vbroadcastsd, VBROADCASTSD)                                                                  \
    X(vbroadcastf128, VBROADCASTF128)                                                              \
    X(vbroadcasti128, VBROADCASTI128)

#define AVX_LIST_TWO_128(X)                                                                        \
    X(vphminposuw, VPHMINPOSUW)                                                                    \
    X(vaesimc, VAESIMC)

/* dst = b by c ? b : a */
#define AVX_LIST_BLEND(X)                                                                          \
    X(vblendvps, VBLENDVPS)                                                                        \
    X(vblendvpd, VBLENDVPD)                                                                        \
    X(vpblendvb, VPBLENDVB)

/* A general register = b; 32 and 64 bits for the conversions. */
#define AVX_LIST_TO_GPR(X)                                                                         \
    X(vpmovmskb, VPMOVMSKB)                                                                        \
    X(vmovmskps, VMOVMSKPS)                                                                        \
    X(vmovmskpd, VMOVMSKPD)
#define AVX_LIST_CONVERT_TO_GPR_FLOAT(X)                                                           \
    X(vcvtss2si, VCVTSS2SI)                                                                        \
    X(vcvtsd2si, VCVTSD2SI)                                                                        \
    X(vcvttss2si, VCVTTSS2SI)                                                                      \
    X(vcvttsd2si, VCVTTSD2SI)
#define AVX_LIST_CONVERT_FROM_GPR_FLOAT(X)                                                         \
    X(vcvtsi2ss, VCVTSI2SS)                                                                        \
    X(vcvtsi2sd, VCVTSI2SD)

/* Status flags = a ? b */
#define AVX_LIST_TEST(X)                                                                           \
    X(vptest, VPTEST)                                                                              \
    X(vtestps, VTESTPS)                                                                            \
    X(vtestpd, VTESTPD)
#define AVX_LIST_COMPARE_FLOAT(X)                                                                  \
    X(vcomiss, VCOMISS)                                                                            \
    X(vcomisd, VCOMISD)                                                                            \
    X(vucomiss, VUCOMISS)                                                                          \
    X(vucomisd, VUCOMISD)

/* FMA: dst is an operand, too. X(name, MNEMONIC), from what comes before and behind 132, 213, 231. */
#define AVX_FMA_ORDERS(X, name, NAME, type, TYPE)                                                  \
    X(name##132##type, NAME##132##TYPE)                                                            \
    X(name##213##type, NAME##213##TYPE)                                                            \
    X(name##231##type, NAME##231##TYPE)
#define AVX_FMA_PACKED(X, name, NAME)                                                              \
    AVX_FMA_ORDERS(X, name, NAME, ps, PS)                                                          \
    AVX_FMA_ORDERS(X, name, NAME, pd, PD)
#define AVX_FMA_SCALAR(X, name, NAME)                                                              \
    AVX_FMA_ORDERS(X, name, NAME, ss, SS)                                                          \
    AVX_FMA_ORDERS(X, name, NAME, sd, SD)
#define AVX_LIST_FMA_BOTH_FLOAT(X)                                                                 \
    AVX_FMA_PACKED(X, vfmadd, VFMADD)                                                              \
    AVX_FMA_PACKED(X, vfmsub, VFMSUB)                                                              \
    AVX_FMA_PACKED(X, vfnmadd, VFNMADD)                                                            \
    AVX_FMA_PACKED(X, vfnmsub, VFNMSUB)                                                            \
    AVX_FMA_PACKED(X, vfmaddsub, VFMADDSUB)                                                        \
    AVX_FMA_PACKED(X, vfmsubadd, VFMSUBADD)
#define AVX_LIST_FMA_128_FLOAT(X)                                                                  \
    AVX_FMA_SCALAR(X, vfmadd, VFMADD)                                                              \
    AVX_FMA_SCALAR(X, vfmsub, VFMSUB)                                                              \
    AVX_FMA_SCALAR(X, vfnmadd, VFNMADD)                                                            \
    AVX_FMA_SCALAR(X, vfnmsub, VFNMSUB)

/*
 * With an immediate: X(name, MNEMONIC, mask, last), and for those with both forms X(name, MNEMONIC,
 * mask, last, mask256, last256). The function is number min(imm & mask, last) of its table.
 */
/* dst = a op b */
#define AVX_LIST_THREE_IMM_BOTH(X)                                                                 \
    X(vshufps, VSHUFPS, 0xff, 255, 0xff, 255)                                                      \
    X(vshufpd, VSHUFPD, 3, 3, 15, 15)                                                              \
    X(vpalignr, VPALIGNR, 0xff, 32, 0xff, 32)                                                      \
    X(vblendps, VBLENDPS, 15, 15, 0xff, 255)                                                       \
    X(vblendpd, VBLENDPD, 3, 3, 15, 15)                                                            \
    X(vpblendw, VPBLENDW, 0xff, 255, 0xff, 255)                                                    \
    X(vpblendd, VPBLENDD, 15, 15, 0xff, 255)                                                       \
    X(vmpsadbw, VMPSADBW, 7, 7, 0x3f, 63)
#define AVX_LIST_THREE_IMM_BOTH_FLOAT(X)                                                           \
    X(vdpps, VDPPS, 0xff, 255, 0xff, 255)                                                          \
    X(vcmpps, VCMPPS, 31, 31, 31, 31)                                                              \
    X(vcmppd, VCMPPD, 31, 31, 31, 31)
#define AVX_LIST_THREE_IMM_256(X)                                                                  \
    X(vperm2f128, VPERM2F128, 0xbb, 0xbb)                                                          \
    X(vperm2i128, VPERM2I128, 0xbb, 0xbb)                                                          \
    X(vinsertf128, VINSERTF128, 1, 1)                                                              \
    X(vinserti128, VINSERTI128, 1, 1)
#define AVX_LIST_THREE_IMM_128(X)                                                                  \
    X(vpclmulqdq, VPCLMULQDQ, 0x11, 0x11)                                                          \
    X(vpinsrb, VPINSRB, 15, 15)                                                                    \
    X(vpinsrw, VPINSRW, 7, 7)                                                                      \
    X(vpinsrd, VPINSRD, 3, 3)                                                                      \
    X(vpinsrq, VPINSRQ, 1, 1)
#define AVX_LIST_THREE_IMM_128_FLOAT(X)                                                            \
    X(vcmpss, VCMPSS, 31, 31)                                                                      \
    X(vcmpsd, VCMPSD, 31, 31)                                                                      \
    X(vroundss, VROUNDSS, 15, 15)                                                                  \
    X(vroundsd, VROUNDSD, 15, 15)                                                                  \
    X(vdppd, VDPPD, 0x33, 0x33)
/* dst = op b */
#define AVX_LIST_TWO_IMM_BOTH(X)                                                                   \
    X(vpshufd, VPSHUFD, 0xff, 255, 0xff, 255)                                                      \
    X(vpshufhw, VPSHUFHW, 0xff, 255, 0xff, 255)                                                    \
    X(vpshuflw, VPSHUFLW, 0xff, 255, 0xff, 255)
#define AVX_LIST_TWO_IMM_BOTH_FLOAT(X)                                                             \
    X(vroundps, VROUNDPS, 15, 15, 15, 15)                                                          \
    X(vroundpd, VROUNDPD, 15, 15, 15, 15)
#define AVX_LIST_TWO_IMM_256(X)                                                                    \
    X(vpermq, VPERMQ, 0xff, 255)                                                                   \
    X(vpermpd, VPERMPD, 0xff, 255)
#define AVX_LIST_TWO_IMM_128(X) X(vaeskeygenassist, VAESKEYGENASSIST, 0xff, 255)
/* b is a register in every form. */
#define AVX_LIST_REG_IMM_BOTH(X)                                                                   \
    X(vpslldq, VPSLLDQ, 0xff, 16, 0xff, 16)                                                        \
    X(vpsrldq, VPSRLDQ, 0xff, 16, 0xff, 16)
/* dst = a with an element of b: the immediate chooses the element if b is a register. */
#define AVX_LIST_INSERT(X) X(vinsertps, VINSERTPS, 0xff, 255)
/* The other operand is a register or memory, 16 bytes of the first. */
#define AVX_LIST_EXTRACT_256(X)                                                                    \
    X(vextractf128, VEXTRACTF128, 1, 1)                                                            \
    X(vextracti128, VEXTRACTI128, 1, 1)
#define AVX_LIST_HALVES_FLOAT(X) X(vcvtps2ph, VCVTPS2PH, 7, 7, 7, 7)
/* A general register or memory = element of b: X(name, MNEMONIC, mask, last, register). */
#define AVX_LIST_EXTRACT(X)                                                                        \
    X(vpextrb, VPEXTRB, 15, 15, eax)                                                               \
    X(vpextrw, VPEXTRW, 7, 7, eax)                                                                 \
    X(vpextrd, VPEXTRD, 3, 3, eax)                                                                 \
    X(vpextrq, VPEXTRQ, 1, 1, rax)                                                                 \
    X(vextractps, VEXTRACTPS, 3, 3, eax)
/* A form with an immediate and b in a register, and one like AVX_LIST_THREE_BOTH. */
#define AVX_LIST_SHIFT(X)                                                                          \
    X(vpsllw, VPSLLW, 0xff, 16, 0xff, 16)                                                          \
    X(vpslld, VPSLLD, 0xff, 32, 0xff, 32)                                                          \
    X(vpsllq, VPSLLQ, 0xff, 64, 0xff, 64)                                                          \
    X(vpsrlw, VPSRLW, 0xff, 16, 0xff, 16)                                                          \
    X(vpsrld, VPSRLD, 0xff, 32, 0xff, 32)                                                          \
    X(vpsrlq, VPSRLQ, 0xff, 64, 0xff, 64)                                                          \
    X(vpsraw, VPSRAW, 0xff, 16, 0xff, 16)                                                          \
    X(vpsrad, VPSRAD, 0xff, 32, 0xff, 32)
/* A form with an immediate like AVX_LIST_TWO_IMM_BOTH, and one like AVX_LIST_THREE_BOTH. */
#define AVX_LIST_PERMIL(X)                                                                         \
    X(vpermilps, VPERMILPS, 0xff, 255, 0xff, 255)                                                  \
    X(vpermilpd, VPERMILPD, 3, 3, 15, 15)

#endif
