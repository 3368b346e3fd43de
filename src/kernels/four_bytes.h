/* Products of four bytes in one instruction: integers.h of inputs without a sign and weights with one. Inputs with a sign
   are packed 128 higher (READ_SIGNED), which whoever asks for that takes off again by the sums of the weights. */
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define T uint8_t
#define TYPE FC_U8
#define W int8_t
#define WEIGHT FC_I8
#define NAME(x) x##_uint8
#define STEPS 4
#if defined(__AVX512VNNI__)
#define DOT(sum, x, w) (vec_uint8)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w))
#elif defined(VNNI_256)
#define DOT(sum, x, w) (vec_uint8)VNNI_256(dpbusd, sum, x, w)
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#define DOT(sum, x, w) (vec_uint8)vusdotq_s32((int32x4_t)(sum), (uint8x16_t)(x), (int8x16_t)(w))
#elif defined(__ARM_FEATURE_DOTPROD) /* both with a sign: x is 128 + (x - 128), the former alike in every row of a tile */
#define DOT(sum, x, w)                                                                                               \
    (vec_uint8)vsubq_s32(vdotq_s32((int32x4_t)(sum), vreinterpretq_s8_u8(veorq_u8((uint8x16_t)(x), vdupq_n_u8(128))), \
                                   (int8x16_t)(w)),                                                                  \
                         vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), (int8x16_t)(w)))
#endif
static const fc_extra byte_extras[2];
#define READ_SIGNED(v) ((v) ^ 0x80)
#define PACKS                                                                                                        \
    S_PACK_PIXELS(u8, uint8_t, ) S_PACK_PIXELS(i8, int8_t, READ_SIGNED) PACK_PANEL(i8, int8_t)
#define PACKED                                                                                                       \
    .pack = {[FC_U8] = pack_u8_uint8, [FC_I8] = pack_i8_uint8}, .pack_panel = {[FC_I8] = pack_panel_i8_uint8}, \
    .extras = byte_extras
#include "integers.h"

#include "winograd_bytes.h"
static const fc_extra byte_extras[2] = {{"byte_tiles", &byte_tiles}};
