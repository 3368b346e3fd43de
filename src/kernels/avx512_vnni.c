/* What AVX-512 with VNNI adds to AVX-512: exact products of integers of 8 and 16 bits in one instruction, four and two
   steps of the reduction at a time. */
#include <cpuid.h>
#include <immintrin.h>
#include "fastconv.h"
#include "vectors.h"
#include "extend.h"

#define SUMS
#include "short_integers.h"
#include "four_bytes.h"

#define NAME(x) x##_64
#define VEC __m512i
#define REAL __m512
#define V(x) _mm512_##x
#define VF(x) _mm512_##x
#define _mm512_xor _mm512_xor_si512
#include "depthwise_bytes.h"
#define NAME(x) x##_32
#define VEC __m256i
#define REAL __m256
#define V(x) _mm256_##x
#define VF(x) _mm256_##x
#define _mm256_xor _mm256_xor_si256
#include "depthwise_bytes.h"
#define NAME(x) x##_16
#define VEC __m128i
#define REAL __m128
#define V(x) _mm_##x
#define VF(x) _mm_##x
#define _mm_xor _mm_xor_si128
#include "depthwise_bytes.h"

/* Tables in registers, where the processor can choose bytes from two of them (VBMI): Intel's Software Developer's Manual,
   volume 2, CPUID, leaf 7. */
static __attribute__((target("avx512vbmi"))) void look_up_bytes(uint8_t *to, const uint8_t *x, ptrdiff_t count,
                                                                const uint8_t *table) {
    __m512i t[4];
    UNROLL for (int i = 0; i < 4; i++) t[i] = _mm512_loadu_si512(table + 64 * i);
    for (; count > 0; count -= 64, to += 64, x += 64) {
        const __mmask64 mask = count >= 64 ? ~0ull : (1ull << count) - 1;
        const __m512i at = _mm512_maskz_loadu_epi8(mask, x);
        const __m512i low = _mm512_permutex2var_epi8(t[0], at, t[1]), high = _mm512_permutex2var_epi8(t[2], at, t[3]);
        _mm512_mask_storeu_epi8(to, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), low, high));
    }
}

static int chooses_bytes(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & 1u << 1);
}

void fc_extend_avx512_vnni(fc_isa *isa, fc_kernels compute[FC_COMPUTES]) {
    add_integers(isa, compute, FC_COMPUTE_I16, &kernels_int16);
    add_integers(isa, compute, FC_COMPUTE_U8, &kernels_uint8);
    static fc_byte_kernels bytes; /* this set extends one alone */
    bytes = *isa->bytes;
    bytes.groups = 1;
    if (chooses_bytes()) bytes.look_up = look_up_bytes;
    bytes.depthwise_four[0] = depthwise_64, bytes.depthwise_four[1] = depthwise_32, bytes.depthwise_four[2] = depthwise_16;
    isa->bytes = &bytes;
}
