/* Products of four bytes in one instruction: integers.h of inputs without a sign and weights with one. Inputs with a sign
   are packed 128 higher (READ_SIGNED), which whoever asks for that takes off again by the sums of the weights. */
#include <immintrin.h>

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
#endif
#define READ_SIGNED(v) ((v) ^ 0x80)
#define PACKS                                                                                                        \
    S_PACK_PIXELS(u8, uint8_t, ) S_PACK_PIXELS(i8, int8_t, READ_SIGNED) PACK_PANEL(i8, int8_t)
#define PACKED .pack = {[FC_U8] = pack_u8_uint8, [FC_I8] = pack_i8_uint8}, .pack_panel = {[FC_I8] = pack_panel_i8_uint8}
#include "integers.h"
