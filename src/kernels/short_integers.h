/* Pairs of int16, in whatever the instruction set multiplies and adds them with: integers.h of 8 and 16 bits. */
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define T int16_t
#define TYPE FC_I16
#define W int16_t
#define WEIGHT FC_I16
#define NAME(x) x##_int16
#define STEPS 2
#if defined(__AVX512VNNI__)
#define DOT(sum, x, w) (vec_int16)_mm512_dpwssd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w))
#elif defined(VNNI_256)
#define DOT(sum, x, w) (vec_int16)VNNI_256(dpwssd, sum, x, w)
#elif defined(__AVX512BW__)
#define DOT(sum, x, w) ((sum) + (vec_int16)_mm512_madd_epi16((__m512i)(x), (__m512i)(w)))
#elif defined(__AVX2__)
#define DOT(sum, x, w) ((sum) + (vec_int16)_mm256_madd_epi16((__m256i)(x), (__m256i)(w)))
#elif defined(__x86_64__)
#define DOT(sum, x, w) ((sum) + (vec_int16)_mm_madd_epi16((__m128i)(x), (__m128i)(w)))
#elif defined(__aarch64__)
#define DOT(sum, x, w)                                                                                               \
    ((sum) + (vec_int16)vpaddq_s32(vmull_s16(vget_low_s16((int16x8_t)(x)), vget_low_s16((int16x8_t)(w))),            \
                                   vmull_high_s16((int16x8_t)(x), (int16x8_t)(w))))
#else
#define DOT(sum, x, w) ((sum) + (((x) << 16) >> 16) * (((w) << 16) >> 16) + ((x) >> 16) * ((w) >> 16))
#endif
#define PACKS                                                                                                        \
    S_PACK_PIXELS(i8, int8_t, ) S_PACK_PIXELS(u8, uint8_t, ) S_PACK_PIXELS(i16, int16_t, )                            \
    PACK_PANEL(i8, int8_t) PACK_PANEL(u8, uint8_t) PACK_PANEL(i16, int16_t)
#define PACKED                                                                                                       \
    .pack = {[FC_I8] = pack_i8_int16, [FC_U8] = pack_u8_int16, [FC_I16] = pack_i16_int16},                            \
    .pack_panel = {[FC_I8] = pack_panel_i8_int16, [FC_U8] = pack_panel_u8_int16, [FC_I16] = pack_panel_i16_int16}
#include "integers.h"
