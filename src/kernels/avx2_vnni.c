/* What AVX-VNNI adds to AVX2 (Intel from Alder Lake on, AMD from Zen 5): exact products of integers of 8 and 16 bits in
   one instruction, as in avx512_vnni.c, of half as wide vectors.

   With FASTCONV_EVEX_VNNI the same instructions are spelt as AVX-512 spells them, which machines without AVX-VNNI have:
   so that these kernels are tested there, too (make avx-vnni). */
#include <immintrin.h>
#include "fastconv.h"
#include "vectors.h"
#include "extend.h"

#ifdef FASTCONV_EVEX_VNNI
#define VNNI_256(name, sum, x, w)                                                                                    \
    ({                                                                                                               \
        __m256i total = (__m256i)(sum);                                                                              \
        __asm__("%{evex%} vp" #name " %2, %1, %0" : "+x"(total) : "x"((__m256i)(x)), "x"((__m256i)(w)));                \
        total;                                                                                                       \
    })
#else
#define VNNI_256(name, sum, x, w) _mm256_##name##_avx_epi32((__m256i)(sum), (__m256i)(x), (__m256i)(w))
#endif
#define SUMS
#include "short_integers.h"
#include "four_bytes.h"

void fc_extend_avx2_vnni(fc_isa *isa, fc_kernels compute[FC_COMPUTES]) {
    add_integers(isa, compute, FC_COMPUTE_I16, &kernels_int16);
    add_integers(isa, compute, FC_COMPUTE_U8, &kernels_uint8);
}
