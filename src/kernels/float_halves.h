/* Products of float with packed weights of 16 bits, which the register tile widens as it loads them: exactly, so that
   results have the bits of the same weights in float. And inputs that are rounded to bfloat16 while they are packed.
   Included by compute.h where T is float.

   float16 lies as float does, [step][width]. bfloat16 is the upper half of a float, and lies in pairs of steps,
   [step / 2][width][2], as instructions that multiply bfloat16 take it: a shift and a mask widen them. */
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

enum { HALF_LINES = 32 }; /* packed together, by way of float */
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

/* ---- packing ----------------------------------------------------------------------------------------------- */

/* Lines of one panel by way of float; `from` packs these. */
#define PACK_HALVES(format, TILE_K, WRITE)                                                                           \
    static int pack_panel_halves_##format(fc_pack_panel from, void *dst, ptrdiff_t width, const char *src,           \
                                          ptrdiff_t taps_y, const ptrdiff_t *tap_y, ptrdiff_t taps_x,                \
                                          const ptrdiff_t *tap_x, ptrdiff_t channels, ptrdiff_t channel_stride,      \
                                          ptrdiff_t outputs, ptrdiff_t output_stride) {                              \
        vec_float buffer[(HALF_LINES + 1) * FC_MAX_VECTORS];                                                         \
        float *lines = (float *)buffer;                                                                              \
        uint16_t *to = dst;                                                                                          \
        int finite = 1;                                                                                              \
        for (ptrdiff_t i = 0; i < taps_y; i++)                                                                       \
            for (ptrdiff_t j = 0; j < taps_x; j++)                                                                   \
                for (ptrdiff_t c = 0; c < channels; c += HALF_LINES) {                                               \
                    const ptrdiff_t n = channels - c < HALF_LINES ? channels - c : HALF_LINES;                       \
                    finite &= from(lines, width, src + c * channel_stride, 1, tap_y + i, 1, tap_x + j, n,            \
                                   channel_stride, outputs, output_stride);                                          \
                    memset(lines + n * width, 0, width * sizeof(float)); /* what fills up a pair */                  \
                    for (ptrdiff_t k = 0; k < n; k += TILE_K, to += TILE_K * width)                                  \
                        for (ptrdiff_t o = 0; o < width; o++)                                                        \
                            for (int t = 0; t < TILE_K; t++) to[TILE_K * o + t] = WRITE(lines[(k + t) * width + o]); \
                }                                                                                                    \
        return finite;                                                                                               \
    }
PACK_HALVES(f16, 1, float_to_half)
PACK_HALVES(bf16, 2, float_to_bfloat)
#undef PACK_HALVES

#define PACK_PANEL_HALVES(format, source)                                                                            \
    static int pack_panel_##source##_##format(void *dst, ptrdiff_t width, const char *src, ptrdiff_t taps_y,         \
                                              const ptrdiff_t *tap_y, ptrdiff_t taps_x, const ptrdiff_t *tap_x,      \
                                              ptrdiff_t channels, ptrdiff_t channel_stride, ptrdiff_t outputs,       \
                                              ptrdiff_t output_stride) {                                             \
        return pack_panel_halves_##format(pack_panel_##source##_float, dst, width, src, taps_y, tap_y, taps_x,       \
                                          tap_x, channels, channel_stride, outputs, output_stride);                  \
    }
#define PACK_PANELS_HALVES(format)                                                                                   \
    PACK_PANEL_HALVES(format, f32) PACK_PANEL_HALVES(format, f16) PACK_PANEL_HALVES(format, bf16)
PACK_PANELS_HALVES(f16)
PACK_PANELS_HALVES(bf16)
#undef PACK_PANELS_HALVES
#undef PACK_PANEL_HALVES

/* dst[line][width] = `count` lines, from `first` on, of a tap of a packed panel. */
static void widen_f16(void *dst, const void *panel, ptrdiff_t first, ptrdiff_t count, ptrdiff_t width) {
    const uint16_t *from = (const uint16_t *)panel + first * width;
    for (ptrdiff_t i = 0; i < count * width; i += LANES) *(vec_float *)((float *)dst + i) = widened_f16(from + i);
}

static void widen_bf16(void *dst, const void *panel, ptrdiff_t first, ptrdiff_t count, ptrdiff_t width) {
    float *to = dst;
    for (ptrdiff_t k = first; k < first + count; k++, to += width) {
        const uint16_t *from = (const uint16_t *)panel + k / 2 * 2 * width;
        for (ptrdiff_t i = 0; i < width; i += LANES) *(vec_float *)(to + i) = widened_bf16(from + 2 * i, k % 2);
    }
}

/* Inputs rounded to bfloat16, in float. */
#define PACK_ROUNDED(source)                                                                                         \
    static void pack_rounded_##source(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels,                \
                                      const char *src, ptrdiff_t pixel_stride, ptrdiff_t channel_stride) {           \
        pack_##source##_float(dst, ldd, pixels, channels, src, pixel_stride, channel_stride);                        \
        for (ptrdiff_t p = 0; p < pixels; p++) {                                                                     \
            float *row = (float *)dst + p * ldd;                                                                     \
            for (ptrdiff_t c = 0; c < channels; c++) row[c] = bfloat_to_float(float_to_bfloat(row[c]));              \
        }                                                                                                            \
    }
PACK_ROUNDED(f32)
PACK_ROUNDED(f16)
#undef PACK_ROUNDED

/* ---- the tables -------------------------------------------------------------------------------------------- */

#define AS_FLOAT                                                                                                     \
    .pack_scaled = pack_scaled_float,                                                                                \
    .pack = {[FC_F32] = pack_f32_float, [FC_F16] = pack_f16_float, [FC_BF16] = pack_bf16_float}
#define ROUND_PACKS .pack = {[FC_F32] = pack_rounded_f32, [FC_F16] = pack_rounded_f16, [FC_BF16] = pack_bf16_float}
#define PANELS_OF(format)                                                                                            \
    .pack_panel = {[FC_F32] = pack_panel_f32_##format, [FC_F16] = pack_panel_f16_##format,                           \
                   [FC_BF16] = pack_panel_bf16_##format},                                                            \
    .widen = widen_##format
#define HALVES                                                                                                       \
    .sum = FC_F32, .input_size = sizeof(float), .weight_size = sizeof(uint16_t), .size = sizeof(float),              \
    .lanes = LANES, STORES, .add = add_float, .holds_nan = holds_nan_float,                              \
    .total_add = total_add_float, .total_end = total_end_float, TILES

/* No array is of the type that rounded inputs have: all are packed. Of the methods that have no such product. */
static const fc_kernels kernels_rounded =
    TABLE(FC_DTYPES, ROUND_PACKS, .pack_panel = {[FC_F32] = pack_panel_f32_float, SHORT_FLOATS(SHORT_PACK_PANEL)});

#undef NAME
#define FEW_ROWS /* of narrow panels, which are the last of a plan */
#define NAME(x) x##_float_f16
typedef vec_float vec_float_f16;
#define WEIGHTS uint16_t
#define TILE_K 1
#define STEP_WEIGHTS(panel, j, step) widened_f16((panel) + (j) * LANES)
#include "register_tile.h"
#include "tiles.h"
static const fc_kernels kernels_float_f16 = {
    .input = FC_F32, .weight = FC_F16, .tile_k = 1, HALVES, AS_FLOAT, PANELS_OF(f16)
};

#undef NAME
#define FEW_ROWS
#define NAME(x) x##_float_bf16
typedef vec_float vec_float_bf16;
#define WEIGHTS uint16_t
#define TILE_K 2
#define STEP_WEIGHTS(panel, j, step) widened_bf16((panel) + 2 * (j) * LANES, step)
#include "register_tile.h"
#include "tiles.h"
static const fc_kernels kernels_float_bf16 = {
    .input = FC_F32, .weight = FC_BF16, .tile_k = 2, HALVES, AS_FLOAT, PANELS_OF(bf16)
};
/* Where nothing multiplies bfloat16 itself. */
static const fc_kernels kernels_bf16 = {
    .input = FC_DTYPES, .weight = FC_BF16, .tile_k = 2, HALVES, ROUND_PACKS, PANELS_OF(bf16)
};

#undef NAME
#define NAME(x) x##_float
#undef AS_FLOAT
#undef ROUND_PACKS
#undef PANELS_OF
#undef HALVES
