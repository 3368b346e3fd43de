/* What AVX-512 with BF16 adds to AVX-512: products of bfloat16 summed in float, two steps of the reduction in one
   instruction. VDPBF16PS takes subnormal operands as zeros, flushes subnormal sums, and rounds to nearest whatever the
   mode is. Weights are packed as kernels/float_halves.h packs them. */
#include <immintrin.h>
#include <string.h>
#include "fastconv.h"
#include "half.h"
#include "vectors.h"

#define T float
#define NAME(x) x##_pairs
enum { LANES = VECTOR_BYTES / sizeof(float), PIXELS = 32, CHANNELS = 128 /* packed together, by way of float */ };

typedef float vec_pairs __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(float)), may_alias));
typedef int32_t pair __attribute__((aligned(sizeof(uint16_t)), may_alias)); /* two steps of a row */

#define INPUTS uint16_t
#define WEIGHTS uint16_t
#define TILE_K 2
#define STEP_INPUTS(at) (vec_pairs)_mm512_set1_epi32(*(const pair *)(at))
#define STEP_WEIGHTS(panel, j, step) (*(const vec_pairs *)((panel) + 2 * (j) * LANES))
#define MULTIPLY(acc, x, w) (vec_pairs)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(x), (__m512bh)(w))
#define FEW_ROWS
#include "register_tile.h"
#include "tiles.h"

/* ---- packing ----------------------------------------------------------------------------------------------- */

static fc_pack as_float[FC_DTYPES]; /* the parent's, which reads any layout; set when the module is loaded */

static void narrow(uint16_t *to, const float *from, ptrdiff_t count) {
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m512i bits = _mm512_loadu_si512(from + i), one = _mm512_set1_epi32(1);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
        const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const __mmask16 nan = _mm512_cmp_ps_mask((__m512)bits, (__m512)bits, _CMP_UNORD_Q);
        const __m512i rounded = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000)); /* stays NaN */
        _mm256_storeu_si256((__m256i *)(to + i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
    }
    for (; i < count; i++) to[i] = float_to_bfloat(from[i]);
}

static void pack_by_float(int code, uint16_t *to, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                          ptrdiff_t pixel_stride, ptrdiff_t channel_stride) {
    float block[PIXELS * CHANNELS];
    for (ptrdiff_t p = 0; p < pixels; p += PIXELS)
        for (ptrdiff_t c = 0; c < channels; c += CHANNELS) {
            const ptrdiff_t rows = pixels - p < PIXELS ? pixels - p : PIXELS;
            const ptrdiff_t columns = channels - c < CHANNELS ? channels - c : CHANNELS;
            as_float[code](block, columns, rows, columns, src + p * pixel_stride + c * channel_stride, pixel_stride,
                           channel_stride);
            for (ptrdiff_t i = 0; i < rows; i++) narrow(to + (p + i) * ldd + c, block + i * columns, columns);
        }
}

static void pack_f32(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                     ptrdiff_t pixel_stride, ptrdiff_t channel_stride) {
    if (channel_stride != (ptrdiff_t)sizeof(float)) {
        pack_by_float(FC_F32, dst, ldd, pixels, channels, src, pixel_stride, channel_stride);
        return;
    }
    for (ptrdiff_t p = 0; p < pixels; p++)
        narrow((uint16_t *)dst + p * ldd, (const float *)(src + p * pixel_stride), channels);
}

static void pack_f16(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                     ptrdiff_t pixel_stride, ptrdiff_t channel_stride) {
    pack_by_float(FC_F16, dst, ldd, pixels, channels, src, pixel_stride, channel_stride);
}

static void pack_bf16(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                      ptrdiff_t pixel_stride, ptrdiff_t channel_stride) {
    if (channel_stride == (ptrdiff_t)sizeof(uint16_t))
        for (ptrdiff_t p = 0; p < pixels; p++)
            memcpy((uint16_t *)dst + p * ldd, src + p * pixel_stride, channels * sizeof(uint16_t));
    else
        pack_by_float(FC_BF16, dst, ldd, pixels, channels, src, pixel_stride, channel_stride);
}

/* ---- the table --------------------------------------------------------------------------------------------- */

static const fc_kernels kernels_pairs = {
    .input = FC_BF16, .weight = FC_BF16, .sum = FC_F32, .input_size = sizeof(uint16_t),
    .weight_size = sizeof(uint16_t), .size = sizeof(float), .tile_k = 2, .lanes = LANES, TILES,
    .pack = {[FC_F32] = pack_f32, [FC_F16] = pack_f16, [FC_BF16] = pack_bf16},
};

void fc_extend_avx512_bf16(fc_isa *isa, fc_kernels compute[FC_COMPUTES]) {
    fc_kernels *own = &compute[FC_COMPUTE_BF16], parent = *own; /* which rounds, and multiplies in float */
    *own = kernels_pairs;
    memcpy(own->pack_panel, parent.pack_panel, sizeof own->pack_panel);
    memcpy(own->store, parent.store, sizeof own->store);
    own->widen = parent.widen, own->add = parent.add, own->holds_nan = parent.holds_nan;
    own->total_add = parent.total_add, own->total_end = parent.total_end;
    memcpy(as_float, compute[FC_COMPUTE_F32].pack, sizeof as_float);
    isa->compute[FC_COMPUTE_BF16] = own;
}
