/* Vectors of packed weights of 16 bits as float. bfloat16 is the upper half of a float, and lies in pairs of steps: a mask
   and a shift widen them. Included where vec_float is. */
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef uint32_t halves_bits __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(uint32_t)), may_alias));

static inline __attribute__((always_inline)) vec_float widened_bf16(const uint16_t *pairs, int step) {
    const halves_bits both = *(const halves_bits *)pairs;
    if (step) return (vec_float)(both & 0xffff0000u);
    return (vec_float)(both << 16);
}

static inline __attribute__((always_inline)) vec_float widened_f16(const uint16_t *at) {
#if defined(__AVX512F__)
    return (vec_float)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at));
#elif defined(__F16C__)
    return (vec_float)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
#else /* half_to_float of half.h, in all lanes at once */
    typedef uint16_t narrow __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(uint16_t)), may_alias));
    typedef int32_t integers __attribute__((vector_size(VECTOR_BYTES)));
    const integers h = __builtin_convertvector(*(const narrow *)at, integers), magnitude = h & 0x7fff;
    const integers tiny = (integers)(__builtin_convertvector(magnitude, vec_float) * 0x1p-24f);
    const integers large = (integers)(magnitude > 0x7bff) & 0x7f800000, small = (integers)(magnitude < 0x400);
    const integers usual = ((magnitude << 13) + 0x38000000) | large;
    return (vec_float)((tiny & small) | (usual & ~small) | (h & 0x8000) << 16);
#endif
}
