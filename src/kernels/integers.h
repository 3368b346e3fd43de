/* Products of short integers, summed exactly in int32: operands are packed STEPS of the reduction side by side, of
   which one instruction multiplies and adds all. Included once a pair of operand types with
     T, TYPE      of packed inputs       NAME(x)   x with the type's suffix
     W, WEIGHT    of packed weights      STEPS     steps in the four bytes of a sum
     DOT(sum, x, w)                      sum + the products of STEPS steps, of vectors
     SUMS                                of the table: what int32's has, in which sums and results are
   What makes bytes of sums, fc_requantise, is here too. Everything is static, as in compute.h. */

typedef int32_t NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(int32_t)), may_alias));
typedef float NAME(real) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(float)), may_alias));
typedef int8_t NAME(bytes) __attribute__((vector_size(VECTOR_BYTES / 4), aligned(1), may_alias));
typedef int32_t NAME(group) __attribute__((aligned(1), may_alias)); /* STEPS steps of a row */
enum { NAME(lanes) = VECTOR_BYTES / sizeof(int32_t) };
#define LANES NAME(lanes)

/* ---- sums to bytes ----------------------------------------------------------------------------------------- */

/* Rounded to the nearest (even where two are as near), within the limits: the lowest byte of every lane is the result.
   Adding 1.5 * 2^23 leaves the integer in the lowest bits. */
static inline __attribute__((always_inline)) NAME(vec) NAME(nearest)(NAME(real) v, const fc_requantise *q) {
    const NAME(real) low = (NAME(real)){0} + (float)(q->low - q->zero),
                     high = (NAME(real)){0} + (float)(q->high - q->zero);
#if defined(__AVX512F__)
    v = (NAME(real))_mm512_min_ps(_mm512_max_ps((__m512)v, (__m512)low), (__m512)high);
#else
    const NAME(vec) below = (NAME(vec))(v < low);
    v = (NAME(real))(((NAME(vec))v & ~below) | ((NAME(vec))low & below));
    const NAME(vec) above = (NAME(vec))(v > high);
    v = (NAME(real))(((NAME(vec))v & ~above) | ((NAME(vec))high & above));
#endif
    v += 12582912.0f;
    return (NAME(vec))v + q->zero;
}

/* The same of sums * multiplier. */
static inline __attribute__((always_inline)) NAME(vec) NAME(rounded)(NAME(vec) sum, const float *multiplier,
                                                                     const fc_requantise *q) {
    return NAME(nearest)(__builtin_convertvector(sum, NAME(real)) * *(const NAME(real) *)multiplier, q);
}

/* The lowest bytes of a vector's first `count` lanes. */
static inline __attribute__((always_inline)) void NAME(put_bytes)(int8_t *to, NAME(vec) v, ptrdiff_t count) {
#if defined(__AVX512F__)
    _mm512_mask_cvtepi32_storeu_epi8(to, (__mmask16)(count >= LANES ? 0xFFFF : (1u << count) - 1), (__m512i)v);
#else
    const NAME(bytes) all = __builtin_convertvector(v, NAME(bytes));
    if (count >= LANES)
        *(NAME(bytes) *)to = all;
    else
        for (ptrdiff_t i = 0; i < count; i++) to[i] = all[i];
#endif
}

#if defined(__AVX512BW__)
#define WHOLE_LINES 1
/* What is done to whole lines of bytes, in registers: a store of bytes might change what it is read from. */
typedef struct {
    __m512i zero, high, low;
    int shifted, limited, is_signed; /* whether there is a zero point, and limits within those of the type */
} NAME(line_end);

static inline __attribute__((always_inline)) NAME(line_end) NAME(end_of)(const fc_requantise *q) {
    const int limited = q->is_signed ? q->low > -128 || q->high < 127 : q->low > 0 || q->high < 255;
    return (NAME(line_end)){_mm512_set1_epi16((short)q->zero), _mm512_set1_epi8((char)q->high),
                            _mm512_set1_epi8((char)q->low), q->zero != 0, limited, q->is_signed};
}

/* Up to four vectors of sums to one of bytes, by the instructions that narrow and saturate: no product may leave int32. */
static inline __attribute__((always_inline)) void NAME(put_line)(int8_t *to, const int vectors, const NAME(vec) *sum,
                                                                 const float *multiplier, const NAME(line_end) *end,
                                                                 ptrdiff_t count) {
    __m512i v[4];
    UNROLL for (int j = 0; j < 4; j++)
        v[j] = j < vectors ? _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sum[j]),
                                                              _mm512_loadu_ps(multiplier + j * LANES)))
                           : v[j - 1];
    __m512i a = _mm512_packs_epi32(v[0], v[1]), b = vectors > 2 ? _mm512_packs_epi32(v[2], v[3]) : a;
    if (end->shifted) a = _mm512_adds_epi16(a, end->zero), b = vectors > 2 ? _mm512_adds_epi16(b, end->zero) : a;
    __m512i line = end->is_signed ? _mm512_packs_epi16(a, b) : _mm512_packus_epi16(a, b);
    if (end->limited)
        line = end->is_signed ? _mm512_max_epi8(_mm512_min_epi8(line, end->high), end->low)
                              : _mm512_max_epu8(_mm512_min_epu8(line, end->high), end->low);
    line = _mm512_permutexvar_epi32( /* the instructions above narrow every 16 bytes by themselves */
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), line);
    if (count >= 64)
        _mm512_storeu_si512(to, line);
    else
        _mm512_mask_storeu_epi8(to, (1ull << count) - 1, line);
}
#else
#define WHOLE_LINES 0
#endif

/* A register tile of sums, as bytes. */
static inline __attribute__((always_inline)) void NAME(put_tile)(const int rows, const int vectors,
                                                                 NAME(vec) (*acc)[FC_MAX_VECTORS],
                                                                 const fc_product *p, const ptrdiff_t *out_row) {
    int8_t *const out = (int8_t *)p->out;
    const float *const multiplier = p->multiplier;
#if WHOLE_LINES
    if (vectors > 1 && !p->requantise->wide) {
        const NAME(line_end) end = NAME(end_of)(p->requantise);
        const ptrdiff_t columns = p->columns;
        UNROLL for (int i = 0; i < rows; i++)
            NAME(put_line)(out + out_row[i], vectors, acc[i], multiplier, &end, columns);
        return;
    }
#endif
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++)
            NAME(put_bytes)(out + out_row[i] + j * LANES,
                            NAME(rounded)(acc[i][j], multiplier + j * LANES, p->requantise), p->columns - j * LANES);
}

/* ---- the register tile ------------------------------------------------------------------------------------- */

#define SUM int32_t
#define TILE_K STEPS
#define INPUTS T
#define WEIGHTS W
#define STEP_INPUTS(at) ((NAME(vec)){0} + *(const NAME(group) *)(at))
#define STEP_WEIGHTS(panel, j, step) (*(const NAME(vec) *)((panel) + (j) * STEPS * LANES))
#define MULTIPLY DOT
#define PUT_BYTES NAME(put_tile)
#include "register_tile.h"
#include "tiles.h"

/* The same of sums in memory, to any layout. */
static void NAME(requantise)(const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t channels, char *dst,
                             ptrdiff_t pixel_stride, ptrdiff_t channel_stride, const void *bias,
                             const fc_requantise *q, const float *multiplier) {
    for (ptrdiff_t p = 0; p < pixels; p++, dst += pixel_stride) {
        const int32_t *sum = (const int32_t *)src + p * lds, *shift = bias;
        for (ptrdiff_t c = 0; c < channels; c += LANES) {
            const ptrdiff_t count = channels - c < LANES ? channels - c : LANES;
            NAME(vec) v = *(const NAME(vec) *)(sum + c);
            if (shift) v += *(const NAME(vec) *)(shift + c);
            v = NAME(rounded)(v, multiplier + c, q);
            if (channel_stride == 1)
                NAME(put_bytes)((int8_t *)dst + c, v, count);
            else
                for (ptrdiff_t i = 0; i < count; i++) dst[(c + i) * channel_stride] = (char)v[i];
        }
    }
}

/* ---- packing ----------------------------------------------------------------------------------------------- */

#ifndef FASTCONV_BYTE_BLOCKS
#define FASTCONV_BYTE_BLOCKS
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define BYTE_BLOCKS 1
#endif
#endif
#ifndef BYTE_BLOCKS
#define BYTE_BLOCKS 0 /* GCC before 12 */
#endif
#if BYTE_BLOCKS
typedef uint8_t sixteen __attribute__((vector_size(16), aligned(1), may_alias));

/* 16 x 16 bytes, transposed in registers as in transpose.h. */
static inline void transpose_sixteen(uint8_t *to, ptrdiff_t to_stride, const char *from, ptrdiff_t from_stride,
                                     uint8_t flip) {
    sixteen v[16], t[16];
    UNROLL_LANES for (int i = 0; i < 16; i++) v[i] = *(const sixteen *)(from + i * from_stride) ^ flip;
    UNROLL_LANES for (int stage = 1; stage < 16; stage *= 2) {
        UNROLL_LANES for (int i = 0; i < 8; i++) {
            t[2 * i] = __builtin_shufflevector(v[i], v[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            t[2 * i + 1] =
                __builtin_shufflevector(v[i], v[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        UNROLL_LANES for (int i = 0; i < 16; i++) v[i] = t[i];
    }
    UNROLL_LANES for (int i = 0; i < 16; i++) *(sixteen *)(to + i * to_stride) = v[i];
}

/* Three channels of pixels, colours, to pixels of four bytes, the last one 0: of how many pixels. Those lie behind each
   other, or every channel's by themselves. Nothing behind the pixels is read. */
static inline ptrdiff_t pack_colours(uint8_t *to, const char *src, ptrdiff_t channel_stride, ptrdiff_t pixels,
                                     uint8_t flip) {
    const sixteen none = {0};
    ptrdiff_t p = 0;
    if (channel_stride == 1)
        for (; p + 6 <= pixels; p += 4) {
            const sixteen v = *(const sixteen *)(src + 3 * p) ^ flip;
            *(sixteen *)(to + 4 * p) =
                __builtin_shufflevector(v, none, 0, 1, 2, 16, 3, 4, 5, 16, 6, 7, 8, 16, 9, 10, 11, 16);
        }
    else
        for (; p + 16 <= pixels; p += 16) {
            const char *at = src + p;
            const sixteen a = *(const sixteen *)at ^ flip, b = *(const sixteen *)(at + channel_stride) ^ flip,
                          c = *(const sixteen *)(at + 2 * channel_stride) ^ flip;
            const sixteen ab[2] = {
                __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)};
            const sixteen cn[2] = {
                __builtin_shufflevector(c, none, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                __builtin_shufflevector(c, none, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)};
            for (int i = 0; i < 2; i++) {
                *(sixteen *)(to + 4 * p + 32 * i) = __builtin_shufflevector(
                    ab[i], cn[i], 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
                *(sixteen *)(to + 4 * p + 32 * i + 16) = __builtin_shufflevector(
                    ab[i], cn[i], 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31);
            }
        }
    return p;
}

/* Whole blocks of pixels that lie side by side, and how many pixels and channels those are. */
static inline void transpose_bytes(uint8_t *to, ptrdiff_t ldd, const char *src, ptrdiff_t channel_stride,
                                   ptrdiff_t pixels, ptrdiff_t channels, uint8_t flip) {
    for (ptrdiff_t c = 0; c < channels; c += 16)
        for (ptrdiff_t p = 0; p < pixels; p += 16)
            transpose_sixteen(to + p * ldd + c, ldd, src + c * channel_stride + p, channel_stride, flip);
}
#endif
#endif

#if BYTE_BLOCKS
#define PACK_FEW(S)                                                                                                  \
    if (sizeof(T) == 1 && sizeof(S) == 1 && channels == 3 && ldd == 4 &&                                             \
        (channel_stride == 1 ? pixel_stride == 3 : pixel_stride == 1)) {                                             \
        const ptrdiff_t done = pack_colours((uint8_t *)out, src, channel_stride, pixels, (uint8_t)FLIP(S));           \
        pixels -= done, out += done * ldd, src += done * pixel_stride;                                               \
    }
/* Of bytes, what is left over of blocks of 16 goes one by one. */
#define PACK_TRANSPOSED(S)                                                                                           \
    if (sizeof(T) == 1 && sizeof(S) == 1 && pixel_stride == 1 && pixels >= 16 && channels >= 16) {                   \
        const ptrdiff_t whole = pixels & ~(ptrdiff_t)15, wide = channels & ~(ptrdiff_t)15;                           \
        transpose_bytes((uint8_t *)out, ldd, src, channel_stride, whole, wide, (uint8_t)FLIP(S));                    \
        for (ptrdiff_t c = 0; c < channels; c++)                                                                     \
            for (ptrdiff_t p = c < wide ? whole : 0; p < pixels; p++)                                                \
                out[p * ldd + c] = (T)((uint8_t)src[c * channel_stride + p] ^ (uint8_t)FLIP(S));                     \
        return;                                                                                                      \
    }
#else
#define PACK_TRANSPOSED(S)
#endif
#define FLIP(S) ((S)-1 < 0 && (T)-1 > 0 ? 0x80 : 0) /* a sign taken off (READ_SIGNED) */
#define PACK_LINES(S)
#include "pack.h"

/* [tap y][tap x][channel / STEPS][width][STEPS], zeros behind channels that are no multiple of it. */
#define PACK_PANEL(suffix, S)                                                                                        \
    typedef S NAME(own_##suffix) __attribute__((aligned(1), may_alias));                                              \
    static int NAME(pack_panel_##suffix)(void *dst, ptrdiff_t width, const char *src, ptrdiff_t taps_y,               \
                                         const ptrdiff_t *tap_y, ptrdiff_t taps_x, const ptrdiff_t *tap_x,            \
                                         ptrdiff_t channels, ptrdiff_t channel_stride, ptrdiff_t outputs,             \
                                         ptrdiff_t output_stride) {                                                   \
        const ptrdiff_t line = STEPS * width, tap = (channels + STEPS - 1) / STEPS * line;                           \
        for (ptrdiff_t c = 0; c < channels; c += STEPS) { /* the taps of a channel often lie side by side */          \
            W *to = (W *)dst + c / STEPS * line;                                                                     \
            for (ptrdiff_t i = 0; i < taps_y; i++)                                                                   \
                for (ptrdiff_t j = 0; j < taps_x; j++, to += tap) {                                                  \
                    const char *in = src + tap_y[i] + tap_x[j] + c * channel_stride;                                 \
                    if (c + STEPS <= channels && sizeof(S) == sizeof(W) && channel_stride == (ptrdiff_t)sizeof(S))   \
                        for (ptrdiff_t o = 0; o < outputs; o++, in += output_stride)                                 \
                            memcpy(to + STEPS * o, in, STEPS * sizeof(W)); /* one move of four bytes */               \
                    else if (c + STEPS <= channels)                                                                  \
                        for (ptrdiff_t o = 0; o < outputs; o++, in += output_stride)                                 \
                            UNROLL for (int k = 0; k < STEPS; k++)                                                   \
                                to[STEPS * o + k] = *(const NAME(own_##suffix) *)(in + k * channel_stride);           \
                    else                                                                                             \
                        for (ptrdiff_t o = 0; o < outputs; o++, in += output_stride)                                 \
                            UNROLL for (int k = 0; k < STEPS; k++)                                                   \
                                to[STEPS * o + k] =                                                                  \
                                    c + k < channels ? *(const NAME(own_##suffix) *)(in + k * channel_stride) : 0;    \
                    memset(to + STEPS * outputs, 0, STEPS * (width - outputs) * sizeof(W));                          \
                }                                                                                                    \
        }                                                                                                            \
        return 1;                                                                                                    \
    }
PACKS

/* ---- the table --------------------------------------------------------------------------------------------- */

static const fc_kernels NAME(kernels) = {
    .input = TYPE, .weight = WEIGHT, .sum = FC_I32, .input_size = sizeof(T), .weight_size = sizeof(W),
    .size = sizeof(int32_t), .tile_k = STEPS, .lanes = LANES, TILES, PACKED, .requantise = NAME(requantise), SUMS
};

#undef LANES
#undef WHOLE_LINES
#undef TILES
#undef MICRO
#undef MICRO_6
#undef MICRO_12
#undef ROW_6
#undef ROW_12
#undef PACK_LINES
#undef PACK_TRANSPOSED
#undef PACK_FEW
#undef FLIP
#undef PACK_PANEL
#undef S_PACK_PIXELS
#undef PACKS
#undef PACKED
#undef T
#undef TYPE
#undef W
#undef WEIGHT
#undef NAME
#undef STEPS
#undef DOT
