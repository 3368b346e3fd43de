/* Kernels of one computing type. Included once a type with
     T       element type            NAME(x)   x with the type's suffix
     LANES   elements of a vector    VECTORS   vectors of a full panel
     IS_FLOAT                        1 for float and double
     WIDE                            defined for int64, in which operands of 32 bits and more are summed, too
   Everything is static: nothing compiled for one instruction set may leak into another. */

typedef T NAME(vec) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));

/* Whether operands may be of the computing type: int32 holds sums alone (result_dtype in fastconv/_core/arrays.py). */
#if IS_FLOAT || defined(WIDE)
#define OPERANDS 1
#else
#define OPERANDS 0
#endif

/* ---- the register tile ------------------------------------------------------------------------------------- */

#define WEIGHTS T
#define STEP_WEIGHTS(panel, j, step) (*(const NAME(vec) *)((panel) + (j) * LANES))
#define TILE_K 1
#if defined(WITH_HALF) && defined(__AVX512F__) /* half of the time where these vectors go through the processor in two parts */
typedef T NAME(half) __attribute__((vector_size(LANES / 2 * sizeof(T)), aligned(sizeof(T)), may_alias));
#define HALF NAME(half)
#define PUT_FIRST(to, v, count) _mm512_mask_storeu_ps(to, (__mmask16)((1u << (count)) - 1), (__m512)(v))
#define PUT_FIRST_HALF(to, v, count) _mm256_mask_storeu_ps(to, (__mmask8)((1u << (count)) - 1), (__m256)(v))
#endif
#include "register_tile.h"
#include "tiles.h"
#undef HALF

/* ---- packing ----------------------------------------------------------------------------------------------- */

#include "transpose.h"

#if OPERANDS
/* Lines of one panel of weights, line (tap y, tap x) * channels + channel, for weights of the computing type whose taps
   lie side by side in memory, as in OIHW, or whose channels do; -1 where neither holds. */
static int NAME(pack_panel_transposed)(T *dst, ptrdiff_t width, const char *src, ptrdiff_t taps_y,
                                       const ptrdiff_t *tap_y, ptrdiff_t taps_x, const ptrdiff_t *tap_x,
                                       ptrdiff_t channels, ptrdiff_t channel_stride, ptrdiff_t outputs,
                                       ptrdiff_t output_stride) {
    enum { LONGEST = 128 };
    const ptrdiff_t element = sizeof(T), whole = channel_stride < output_stride ? channel_stride : output_stride;
    ptrdiff_t line[LONGEST], period = whole / element;
    int finite = 1;
    if (channel_stride == element && output_stride > 0) {
        for (ptrdiff_t i = 0; i < taps_y; i++)
            for (ptrdiff_t j = 0; j < taps_x; j++) {
                line[0] = (i * taps_x + j) * channels;
                finite &= NAME(transpose_lines)(dst, width, src + tap_y[i] + tap_x[j], output_stride, outputs, channels,
                                                line, 1);
            }
        return finite;
    }
    if (whole <= 0 || whole % element || period > LONGEST) return -1;
    for (ptrdiff_t k = 0; k < period; k++) line[k] = -1;
    ptrdiff_t first = tap_y[0] + tap_x[0], last = 0;
    for (ptrdiff_t i = 0; i < taps_y; i++)
        for (ptrdiff_t j = 0; j < taps_x; j++) {
            ptrdiff_t at = tap_y[i] + tap_x[j];
            if (at < 0 || at % element || at >= whole || line[at / element] >= 0) return -1; /* or two taps in one place */
            line[at / element] = (i * taps_x + j) * channels;
            first = at < first ? at : first, last = at > last ? at : last;
        }
    if (channel_stride == whole) /* taps and channels follow one another: (I, kH, kW) of every output */
        if (first == 0 && last == whole - element)
            return NAME(transpose_lines)(dst, width, src, output_stride, outputs, channels * period, line, period);
    for (ptrdiff_t c = 0; c < channels; c++)
        finite &= NAME(transpose_lines)(dst + c * width, width, src + c * channel_stride + first, output_stride,
                                        outputs, (last - first) / element + 1, line + first / element, period);
    return finite;
}

/* The same for weights whose outputs lie side by side, as in HWIO. */
static int NAME(pack_panel_copied)(T *to, ptrdiff_t width, const char *src, ptrdiff_t taps_y, const ptrdiff_t *tap_y,
                                   ptrdiff_t taps_x, const ptrdiff_t *tap_x, ptrdiff_t channels,
                                   ptrdiff_t channel_stride, ptrdiff_t outputs) {
    NAME(vec) bad = {0};
    for (ptrdiff_t i = 0; i < taps_y; i++)
        for (ptrdiff_t j = 0; j < taps_x; j++) {
            const char *in = src + tap_y[i] + tap_x[j];
            for (ptrdiff_t c = 0; c < channels; c++, in += channel_stride, to += width)
                for (ptrdiff_t o = 0; o < width; o += LANES) {
                    NAME(vec) v = {0};
                    if (o + LANES <= outputs)
                        v = *(const NAME(loose) *)(in + o * sizeof(T));
                    else if (o < outputs)
                        memcpy(&v, in + o * sizeof(T), (outputs - o) * sizeof(T));
                    *(NAME(vec) *)(to + o) = v;
                    bad += v * 0;
                }
        }
    for (int i = 0; i < LANES; i++)
        if (bad[i] != 0) return 0;
    return 1;
}

/* Where the elements of the source are of the computing type, packing copies whole vectors, the last over the one before, or
   is a transpose in registers. */
#define PACK_LINES(S)                                                                                               \
    if (__builtin_types_compatible_p(S, T) && channels >= LANES) {                                                   \
        for (ptrdiff_t p = 0; p < pixels; p++, out += ldd, src += pixel_stride) {                                    \
            const char *in = src;                                                                                    \
            for (ptrdiff_t c = 0; c <= channels - LANES; c += LANES)                                                 \
                *(NAME(vec) *)(out + c) = *(const NAME(loose) *)(in + c * sizeof(T));                                \
            if (channels % LANES)                                                                                    \
                *(NAME(vec) *)(out + channels - LANES) =                                                             \
                    *(const NAME(loose) *)(in + (channels - LANES) * sizeof(T));                                     \
        }                                                                                                            \
        return;                                                                                                      \
    }
#define PACK_TRANSPOSED(S)                                                                                          \
    if (__builtin_types_compatible_p(S, T) && pixel_stride == (ptrdiff_t)sizeof(S) && channel_stride > 0 &&          \
        channels >= LANES / 2 && pixels >= LANES / 4) {                                                              \
        NAME(transpose)(out, ldd, src, channel_stride, channels, pixels);                                            \
        return;                                                                                                      \
    }                                                                                                                \
    PACK_THREE(S)
#if THREE_TOGETHER
#define PACK_THREE(S)                                                                                                \
    if (__builtin_types_compatible_p(S, T) && pixel_stride == (ptrdiff_t)sizeof(S) && channels == 3 && ldd == 3) {   \
        NAME(three_together)(out, src, channel_stride, pixels);                                                      \
        return;                                                                                                      \
    }
#else
#define PACK_THREE(S)
#endif
#define PACK_PANEL_AS_IT_LIES(S)                                                                                    \
    if (__builtin_types_compatible_p(S, T) && output_stride == (ptrdiff_t)sizeof(S))                                 \
        return NAME(pack_panel_copied)(dst, width, src, taps_y, tap_y, taps_x, tap_x, channels, channel_stride,      \
                                       outputs);                                                                     \
    if (__builtin_types_compatible_p(S, T)) {                                                                        \
        int finite = NAME(pack_panel_transposed)(dst, width, src, taps_y, tap_y, taps_x, tap_x, channels,            \
                                                 channel_stride, outputs, output_stride);                            \
        if (finite >= 0) return finite;                                                                              \
    }
#else
#define PACK_LINES(S)
#define PACK_TRANSPOSED(S)
#define PACK_PANEL_AS_IT_LIES(S)
#endif

#include "pack.h"

#define S_PACK(suffix, S, READ)                                                                                     \
    S_PACK_PIXELS(suffix, S, READ)                                                                                   \
    static int NAME(pack_panel_##suffix)(void *dst, ptrdiff_t width, const char *src, ptrdiff_t taps_y,              \
                                         const ptrdiff_t *tap_y, ptrdiff_t taps_x, const ptrdiff_t *tap_x,           \
                                         ptrdiff_t channels, ptrdiff_t channel_stride, ptrdiff_t outputs,            \
                                         ptrdiff_t output_stride) {                                                  \
        T *to = dst;                                                                                                 \
        T bad[FC_MAX_VECTORS * LANES] = {0}; /* x*0 is 0 for finite x and NaN otherwise */                           \
        if (taps_y * taps_x * channels == 0) return 1;                                                               \
        PACK_PANEL_AS_IT_LIES(S)                                                                                     \
        for (ptrdiff_t i = 0; i < taps_y; i++)                                                                       \
            for (ptrdiff_t j = 0; j < taps_x; j++) {                                                                 \
                const char *line = src + tap_y[i] + tap_x[j];                                                        \
                for (ptrdiff_t c = 0; c < channels; c++, line += channel_stride, to += width) {                      \
                    const char *in = line;                                                                           \
                    if (outputs < LANES / 2) { /* one vector, most of it zeros */                                    \
                        *(NAME(vec) *)to = (NAME(vec)){0};                                                           \
                        for (ptrdiff_t o = 0; o < outputs; o++, in += output_stride) {                               \
                            to[o] = (T)READ(*(const NAME(src_##suffix) *)in);                                        \
                            bad[o] += to[o] * 0;                                                                     \
                        }                                                                                            \
                        continue;                                                                                    \
                    }                                                                                                \
                    if (output_stride == (ptrdiff_t)sizeof(S))                                                       \
                        for (ptrdiff_t o = 0; o < outputs; o++) to[o] = (T)READ(((const NAME(src_##suffix) *)in)[o]);\
                    else                                                                                             \
                        for (ptrdiff_t o = 0; o < outputs; o++, in += output_stride)                                 \
                            to[o] = (T)READ(*(const NAME(src_##suffix) *)in);                                        \
                    for (ptrdiff_t o = outputs; o < width; o++) to[o] = 0;                                           \
                    for (ptrdiff_t o = 0; o < width; o++) bad[o] += to[o] * 0;                                       \
                }                                                                                                    \
            }                                                                                                        \
        for (ptrdiff_t o = 0; o < width; o++)                                                                        \
            if (bad[o] != 0) return 0;                                                                               \
        return 1;                                                                                                    \
    }
#define READ_PLAIN(x) (x)

/* ---- the epilogue ------------------------------------------------------------------------------------------ */

#if IS_FLOAT
static inline __attribute__((always_inline)) T NAME(activate)(T v, const int activation) {
    switch (activation) { /* comparisons are written so that NaN passes through */
    case FC_RELU: return v < 0 ? 0 : v;
    case FC_RELU6: return v < 0 ? 0 : v > 6 ? 6 : v;
    case FC_LEAKY_RELU: return v < 0 ? v * (T)0.01 : v;
    default: return v;
    }
}
#else
static inline __attribute__((always_inline)) T NAME(activate)(T v, const int activation) {
    if (activation == FC_LINEAR) return v;
    return v < 0 ? 0 : activation == FC_RELU6 && v > 6 ? 6 : v;
}
#endif

/* Channels are whole lines, pixels side by side or two places `apart`, and no type changes: blocks of as many pixels and
   channels as lanes are transposed in registers, where a line stays. As many channels as lanes to their end, in whole
   cache lines where all channels begin alike: lines a power of two apart share a set, and one that is written in two
   halves would be gone in between. */
static void NAME(store_columns)(const T *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t channels, char *dst,
                                ptrdiff_t apart, ptrdiff_t channel_stride, const T *shift, int activation,
                                const char *residual, ptrdiff_t residual_channel_stride) {
    const char *end = (const char *)(src + (pixels - 1) * lds + channels);
    const ptrdiff_t line = LANES * sizeof(T);
    const int lines = apart == 1 && channel_stride % line == 0 && (uintptr_t)dst % sizeof(T) == 0;
    for (ptrdiff_t c0 = 0; c0 < channels; c0 += LANES)
        for (ptrdiff_t p0 = 0, wide; p0 < pixels; p0 += wide) {
            const ptrdiff_t most = channels - c0;
            const T *b = shift ? shift + c0 : NULL;
            char *to = dst + c0 * channel_stride + p0 * apart * (ptrdiff_t)sizeof(T);
            const char *add = residual ? residual + c0 * residual_channel_stride + p0 * (ptrdiff_t)sizeof(T) : NULL;
            NAME(vec) v[LANES];
            wide = lines ? LANES - (ptrdiff_t)((uintptr_t)to % line / sizeof(T)) : LANES;
            if (wide > pixels - p0) wide = pixels - p0;
            NAME(load_rows)(v, (const char *)(src + p0 * lds + c0), lds * sizeof(T), wide, most, end);
            NAME(transpose_block)(v);
            UNROLL_LANES for (int c = 0; c < LANES; c++) {
                if (c >= most) continue;
                if (b) v[c] += b[c];
                if (add) v[c] += NAME(load_first)(add + c * residual_channel_stride, wide);
                if (activation != FC_LINEAR) v[c] = NAME(relu)(v[c]);
                if (activation == FC_RELU6) v[c] = NAME(at_most_six)(v[c]);
#if STORES_APART
                if (apart == 2) NAME(store_apart)(to + c * channel_stride, v[c], wide);
                else
#endif
                if (wide == LANES) *(NAME(loose) *)(to + c * channel_stride) = v[c];
                else NAME(store_first)(to + c * channel_stride, v[c], wide);
            }
        }
}

/* So many channels of a line together, as long as there are as many. */
#define S_STORE_PIECES(n, activation)                                                                                \
    for (; c + (n) <= channels; c += (n)) {                                                                          \
        typedef T piece __attribute__((vector_size((n) * sizeof(T)), aligned(1), may_alias));                        \
        piece v = *(const piece *)(in + c);                                                                          \
        if (bias) v += *(const piece *)(shift + c);                                                                  \
        typedef __typeof__(v < 0) mask;                                                                              \
        const mask below = v < 0, above = v > 6;                                                                     \
        if ((activation) != FC_LINEAR) v = (piece)((mask)v & ~below);                                                \
        if ((activation) == FC_RELU6) v = (piece)(((mask)v & ~above) | ((mask)((piece){0} + 6) & above));            \
        *(piece *)(to + c) = v;                                                                                      \
    }

#define S_STORE_LINES(suffix, S, READ, WRITE, activation)                                                            \
    for (ptrdiff_t p = 0; p < pixels; p++) {                                                                         \
        const T *in = (const T *)src + p * lds;                                                                      \
        NAME(src_##suffix) *to = (NAME(src_##suffix) *)(dst + p * pixel_stride);                                     \
        const NAME(src_##suffix) *add = (const NAME(src_##suffix) *)(residual + p * residual_pixel_stride);          \
        if (__builtin_types_compatible_p(S, T) && (activation) <= FC_RELU6 && !residual) {                           \
            ptrdiff_t c = 0;                                                                                         \
            S_STORE_PIECES(LANES, activation) S_STORE_PIECES(8, activation) S_STORE_PIECES(4, activation)            \
            for (; c < channels; c++)                                                                                \
                to[c] = (S)WRITE(NAME(activate)(bias ? in[c] + shift[c] : in[c], activation));                       \
        } else if (!bias && !residual)                                                                               \
            for (ptrdiff_t c = 0; c < channels; c++) to[c] = (S)WRITE(NAME(activate)(in[c], activation));            \
        else if (!residual)                                                                                          \
            for (ptrdiff_t c = 0; c < channels; c++)                                                                 \
                to[c] = (S)WRITE(NAME(activate)(in[c] + shift[c], activation));                                      \
        else                                                                                                         \
            for (ptrdiff_t c = 0; c < channels; c++)                                                                 \
                to[c] = (S)WRITE(                                                                                    \
                    NAME(activate)(bias ? in[c] + shift[c] + READ(add[c]) : in[c] + READ(add[c]), activation));      \
    }

#define S_STORE_COLUMNS(suffix, S, READ, WRITE, ...) /* channels are whole lines, pixels side by side */             \
    if (__builtin_types_compatible_p(S, T))                                                                          \
        for (ptrdiff_t p0 = 0; p0 < pixels; p0 += LANES)                                                             \
            for (ptrdiff_t c0 = 0; c0 < channels; c0 += LANES) {                                                     \
                ptrdiff_t wide = pixels - p0 < LANES ? pixels - p0 : LANES;                                          \
                ptrdiff_t most = channels - c0 < LANES ? channels - c0 : LANES;                                      \
                NAME(vec) v[LANES];                                                                                  \
                NAME(load_rows)(v, (const char *)((const T *)src + p0 * lds + c0), lds * sizeof(T), wide, most,      \
                                (const char *)((const T *)src + (pixels - 1) * lds + channels));                     \
                NAME(transpose_block)(v);                                                                            \
                for (ptrdiff_t c = 0; c < most; c++) {                                                               \
                    NAME(src_##suffix) *to = (NAME(src_##suffix) *)(dst + (c0 + c) * channel_stride) + p0;           \
                    const NAME(src_##suffix) *add =                                                                  \
                        (const NAME(src_##suffix) *)(residual + (c0 + c) * residual_channel_stride) + p0;            \
                    T line[LANES], b = bias ? shift[c0 + c] : 0;                                                     \
                    memcpy(line, &v[c], sizeof line);                                                                \
                    if (bias)                                                                                        \
                        for (int i = 0; i < LANES; i++) line[i] += b;                                                \
                    if (residual)                                                                                    \
                        for (ptrdiff_t i = 0; i < wide; i++) line[i] += READ(add[i]);                                \
                    __VA_ARGS__;                                                                                     \
                    if (wide == LANES)                                                                               \
                        for (int i = 0; i < LANES; i++) to[i] = (S)WRITE(line[i]);                                   \
                    else                                                                                             \
                        for (ptrdiff_t i = 0; i < wide; i++) to[i] = (S)WRITE(line[i]);                              \
                }                                                                                                    \
            }

#define S_STORE_AS(suffix, S, READ, WRITE, activation)                                                              \
    if (in_lines)                                                                                                    \
        S_STORE_LINES(suffix, S, READ, WRITE, activation)                                                            \
    else                                                                                                             \
        S_STORE_COLUMNS(suffix, S, READ, WRITE,                                                                      \
                        for (int i = 0; i < LANES; i++) line[i] = NAME(activate)(line[i], activation))

/* Functions of functions.h: where the values lie if nothing else is done to them, else in lines of several pixels, as many
   as whole vectors of them serve well. */
#if IS_FLOAT
enum { NAME(MAPPED) = 256 };
#define S_STORE_MAPPED(suffix, S, READ, WRITE)                                                                       \
    if (in_lines && src == dst && !bias && !residual && pixel_stride == lds * (ptrdiff_t)sizeof(T))                  \
        NAME(map_rows)(function_of[activation], 0, (T *)dst, lds, pixels, channels);                                 \
    else if (in_lines)                                                                                               \
        for (ptrdiff_t c = 0; c < channels; c += NAME(MAPPED)) {                                                     \
            const ptrdiff_t most = channels - c < NAME(MAPPED) ? channels - c : NAME(MAPPED);                        \
            for (ptrdiff_t p = 0, n; p < pixels; p += n) {                                                           \
                T line[NAME(MAPPED)], *at = line;                                                                    \
                n = pixels - p < NAME(MAPPED) / most ? pixels - p : NAME(MAPPED) / most;                             \
                for (ptrdiff_t q = p; q < p + n; q++, at += most) {                                                  \
                    const T *in = (const T *)src + q * lds + c;                                                      \
                    const NAME(src_##suffix) *add =                                                                  \
                        (const NAME(src_##suffix) *)(residual + q * residual_pixel_stride) + c;                      \
                    if (bias)                                                                                        \
                        for (ptrdiff_t i = 0; i < most; i++) at[i] = in[i] + shift[c + i];                           \
                    else                                                                                             \
                        for (ptrdiff_t i = 0; i < most; i++) at[i] = in[i];                                          \
                    if (residual)                                                                                    \
                        for (ptrdiff_t i = 0; i < most; i++) at[i] += READ(add[i]);                                  \
                }                                                                                                    \
                NAME(map)(function_of[activation], 0, line, n * most);                                               \
                at = line;                                                                                           \
                for (ptrdiff_t q = p; q < p + n; q++, at += most) {                                                  \
                    NAME(src_##suffix) *to = (NAME(src_##suffix) *)(dst + q * pixel_stride) + c;                     \
                    for (ptrdiff_t i = 0; i < most; i++) to[i] = (S)WRITE(at[i]);                                    \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
    else                                                                                                             \
        S_STORE_COLUMNS(suffix, S, READ, WRITE, NAME(map)(function_of[activation], 0, line, LANES))
#define S_ACTIVATE_LINE(values, count)                                                                               \
    if (activation >= FC_FUNCTIONS)                                                                                  \
        NAME(map)(function_of[activation], 0, values, count);                                                        \
    else                                                                                                             \
        for (ptrdiff_t i = 0; i < count; i++) values[i] = NAME(activate)(values[i], activation)
#else
#define S_ACTIVATE_LINE(values, count)                                                                               \
    for (ptrdiff_t i = 0; i < count; i++) values[i] = NAME(activate)(values[i], activation)
#endif

/* Any other layout. */
#define S_STORE_ANY(suffix, S, READ, WRITE)                                                                          \
    for (ptrdiff_t p0 = 0; p0 < pixels; p0 += 64)                                                                    \
        for (ptrdiff_t c = 0; c < channels; c++) {                                                                   \
            const ptrdiff_t count = pixels - p0 < 64 ? pixels - p0 : 64;                                             \
            const T b = bias ? shift[c] : 0;                                                                         \
            T line[64];                                                                                              \
            for (ptrdiff_t i = 0; i < count; i++) {                                                                  \
                line[i] = ((const T *)src)[(p0 + i) * lds + c];                                                      \
                if (bias) line[i] += b;                                                                              \
                if (residual)                                                                                        \
                    line[i] += READ(*(const NAME(src_##suffix) *)(residual + (p0 + i) * residual_pixel_stride +      \
                                                                  c * residual_channel_stride));                     \
            }                                                                                                        \
            S_ACTIVATE_LINE(line, count);                                                                            \
            for (ptrdiff_t i = 0; i < count; i++)                                                                    \
                *(NAME(src_##suffix) *)(dst + (p0 + i) * pixel_stride + c * channel_stride) = (S)WRITE(line[i]);     \
        }

/* A loop for each activation: one that asks in its middle makes no vectors. */
#if IS_FLOAT
#define S_STORE_OTHERS(suffix, S, READ, WRITE)                                                                       \
    if (activation == FC_RELU6) {                                                                                    \
        S_STORE_AS(suffix, S, READ, WRITE, FC_RELU6)                                                                 \
    } else if (activation == FC_LEAKY_RELU) {                                                                        \
        S_STORE_AS(suffix, S, READ, WRITE, FC_LEAKY_RELU)                                                            \
    } else {                                                                                                         \
        S_STORE_MAPPED(suffix, S, READ, WRITE)                                                                       \
    }
#else
#define S_STORE_OTHERS(suffix, S, READ, WRITE)                                                                       \
    {                                                                                                                \
        S_STORE_AS(suffix, S, READ, WRITE, FC_RELU6)                                                                 \
    }
#endif

#define S_STORE(suffix, S, READ, WRITE)                                                                             \
    static void NAME(store_##suffix)(const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t channels,           \
                                     char *dst, ptrdiff_t pixel_stride, ptrdiff_t channel_stride, const void *bias,  \
                                     int activation, const char *residual, ptrdiff_t residual_pixel_stride,          \
                                     ptrdiff_t residual_channel_stride) {                                            \
        const T *shift = bias;                                                                                       \
        const int in_lines = channel_stride == (ptrdiff_t)sizeof(S) &&                                               \
                             (!residual || residual_channel_stride == (ptrdiff_t)sizeof(S));                         \
        const int in_columns = __builtin_types_compatible_p(S, T) && pixel_stride == (ptrdiff_t)sizeof(S) &&         \
                               pixels >= LANES / 2 && channels >= LANES / 2 &&                                       \
                               (!residual || residual_pixel_stride == (ptrdiff_t)sizeof(S));                         \
        const int apart = STORES_APART && __builtin_types_compatible_p(S, T) && !residual &&                         \
                          pixel_stride == 2 * (ptrdiff_t)sizeof(S) && pixels >= LANES / 4 && channels >= LANES / 4;  \
        if (!in_lines && (in_columns || apart) && activation <= FC_RELU6) {                                          \
            NAME(store_columns)(src, lds, pixels, channels, dst, 1 + apart, channel_stride, shift, activation,       \
                                residual, residual_channel_stride);                                                  \
        } else if (!in_lines && !in_columns) {                                                                       \
            S_STORE_ANY(suffix, S, READ, WRITE)                                                                      \
        } else if (activation == FC_LINEAR) {                                                                        \
            S_STORE_AS(suffix, S, READ, WRITE, FC_LINEAR)                                                            \
        } else if (activation == FC_RELU) {                                                                          \
            S_STORE_AS(suffix, S, READ, WRITE, FC_RELU)                                                              \
        } else S_STORE_OTHERS(suffix, S, READ, WRITE)                                                                \
    }

#if IS_FLOAT
static inline NAME(vec) NAME(scaled)(NAME(vec) v, NAME(vec) scale, const T *shift, int relu) {
    v *= scale;
    if (shift) {
        ROUNDED(v);
        v += *(const NAME(loose) *)shift;
    }
    return relu ? (NAME(vec))LARGER_OF(T)((NAME(vec)){0}, v) : v; /* NaN passes through */
}

/* fc_pack_scaled: the channels of a few pixels at a time, whose factors are read once. */
static void NAME(pack_scaled)(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                              ptrdiff_t pixel_stride, const void *scale_, const void *shift_, int relu) {
    enum { TOGETHER = 4 };
    const T *scale = scale_, *shift = shift_;
    T *out = dst, first[3][LANES] = {{0}};
    if (channels < LANES) {
        memcpy(first[0], scale, channels * sizeof(T));
        if (shift) memcpy(first[1], shift, channels * sizeof(T)), shift = first[1];
        for (ptrdiff_t p = 0; p < pixels; p++, out += ldd, src += pixel_stride) {
            memcpy(first[2], src, channels * sizeof(T));
            *(NAME(vec) *)first[2] = NAME(scaled)(*(NAME(vec) *)first[2], *(NAME(vec) *)first[0], shift, relu);
            memcpy(out, first[2], channels * sizeof(T));
        }
        return;
    }
    for (ptrdiff_t p = 0, n; p < pixels; p += n, out += n * ldd, src += n * pixel_stride) {
        n = pixels - p < TOGETHER ? 1 : TOGETHER;
        for (ptrdiff_t at = 0; at < channels; at += LANES) {
            const ptrdiff_t c = at + LANES <= channels ? at : channels - LANES; /* the last over the one before */
            const NAME(vec) factor = *(const NAME(loose) *)(scale + c);
            const T *add = shift ? shift + c : NULL;
            const char *in = src + c * sizeof(T);
            if (n == 1)
                *(NAME(vec) *)(out + c) = NAME(scaled)(*(const NAME(loose) *)in, factor, add, relu);
            else
                UNROLL for (int i = 0; i < TOGETHER; i++) {
                    __builtin_prefetch(in + (i + TOGETHER) * pixel_stride); /* short rows: no processor sees a stream */
                    *(NAME(vec) *)(out + i * ldd + c) =
                        NAME(scaled)(*(const NAME(loose) *)(in + i * pixel_stride), factor, add, relu);
                }
        }
    }
}
#define SCALED .pack_scaled = NAME(pack_scaled),
#else
#define SCALED
#endif

static void NAME(add)(void *dst, const void *src, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) ((T *)dst)[i] += ((const T *)src)[i];
}

static int NAME(holds_nan)(const void *src, ptrdiff_t count) {
    const T *v = src;
    int held = 0;
    for (ptrdiff_t i = 0; i < count; i++) held |= v[i] != v[i];
    return held;
}

/* Totals of long sums take twice the room of what is added, and have about twice its precision: their error does not
   grow with the number of additions. float adds in double; double keeps what every addition rounds off beside the sum
   (Knuth's two-sum). Totals begin as zeros; `total_end` makes sums of them. */
static void NAME(total_add)(void *restrict total, const void *restrict src, ptrdiff_t count) {
    const T *v = src;
#if IS_FLOAT && defined(WITH_HALF)
    double *sum = total;
    for (ptrdiff_t i = 0; i < count; i++) sum[i] += v[i];
#elif IS_FLOAT
    T *high = total, *low = high + count;
    INDEPENDENT for (ptrdiff_t i = 0; i < count; i++) {
        const T before = high[i], after = before + v[i], added = after - before;
        high[i] = after;
        low[i] += (before - (after - added)) + (v[i] - added);
    }
#else
    NAME(add)(total, v, count);
#endif
}

static void NAME(total_end)(void *restrict dst, const void *restrict total, ptrdiff_t count) {
    T *sum = dst;
#if IS_FLOAT && defined(WITH_HALF)
    const double *from = total;
    for (ptrdiff_t i = 0; i < count; i++) sum[i] = (T)from[i];
#elif IS_FLOAT
    const T *high = total, *low = high + count;
    for (ptrdiff_t i = 0; i < count; i++) {
        const T both = high[i] + low[i];
        sum[i] = both != both ? high[i] : both; /* what an infinite sum rounds off is NaN */
    }
#else
    memcpy(sum, total, count * sizeof(T));
#endif
}

#if IS_FLOAT == 1 && defined(WITH_HALF)
S_PACK(f32, float, READ_PLAIN)
#define PACK_SHORT(suffix, code, READ, WRITE) S_PACK(suffix, uint16_t, READ)
SHORT_FLOATS(PACK_SHORT)
#undef PACK_SHORT
S_STORE(f32, float, READ_PLAIN, READ_PLAIN)

/* Types of 16 bits: a line at a time by way of single. */
#define STORE_BY_SINGLE(suffix, code, READ, WRITE)                                                                   \
    static void store_##suffix##_float(const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t channels,          \
                                       char *dst, ptrdiff_t pixel_stride, ptrdiff_t channel_stride,                   \
                                       const void *bias, int activation, const char *residual,                        \
                                       ptrdiff_t residual_pixel_stride, ptrdiff_t residual_channel_stride) {          \
        enum { LINE = 64 };                                                                                          \
        float line[LINE], added[LINE];                                                                               \
        for (ptrdiff_t p = 0; p < pixels; p++)                                                                       \
            for (ptrdiff_t c = 0; c < channels; c += LINE) {                                                         \
                const ptrdiff_t n = channels - c < LINE ? channels - c : LINE;                                       \
                const char *add = residual + (p * residual_pixel_stride + c * residual_channel_stride);              \
                char *to = dst + p * pixel_stride + c * channel_stride;                                              \
                if (residual && residual_channel_stride == 2)                                                        \
                    for (ptrdiff_t i = 0; i < n; i++) added[i] = READ(((const src_##suffix##_float *)add)[i]);       \
                else if (residual)                                                                                   \
                    for (ptrdiff_t i = 0; i < n; i++)                                                                \
                        added[i] = READ(*(const src_##suffix##_float *)(add + i * residual_channel_stride));         \
                store_f32_float((const float *)src + p * lds + c, 0, 1, n, (char *)line, 0, sizeof(float),           \
                                bias ? (const float *)bias + c : NULL, activation,                                   \
                                residual ? (const char *)added : NULL, 0, sizeof(float));                            \
                if (channel_stride == 2)                                                                             \
                    for (ptrdiff_t i = 0; i < n; i++) ((src_##suffix##_float *)to)[i] = WRITE(line[i]);              \
                else                                                                                                 \
                    for (ptrdiff_t i = 0; i < n; i++)                                                                \
                        *(src_##suffix##_float *)(to + i * channel_stride) = WRITE(line[i]);                         \
            }                                                                                                        \
    }
SHORT_FLOATS(STORE_BY_SINGLE)
#undef STORE_BY_SINGLE
#define SHORT_PACK(suffix, code, READ, WRITE) [code] = pack_##suffix##_float,
#define SHORT_PACK_PANEL(suffix, code, READ, WRITE) [code] = pack_panel_##suffix##_float,
#define SHORT_STORE(suffix, code, READ, WRITE) [code] = store_##suffix##_float,
#define PACKING .pack = {[FC_F32] = pack_f32_float, SHORT_FLOATS(SHORT_PACK)},                                       \
    .pack_panel = {[FC_F32] = pack_panel_f32_float, SHORT_FLOATS(SHORT_PACK_PANEL)}
#define STORES .store = {[FC_F32] = store_f32_float, SHORT_FLOATS(SHORT_STORE)}
#elif IS_FLOAT
S_PACK(f64, double, READ_PLAIN)
S_STORE(f64, double, READ_PLAIN, READ_PLAIN)
#define PACKS(p) .p = {[FC_F64] = NAME(p##_f64)}
#define STORES .store = {[FC_F64] = NAME(store_f64)}
#else
S_PACK(i8, int8_t, READ_PLAIN)
S_PACK(u8, uint8_t, READ_PLAIN)
S_PACK(i16, int16_t, READ_PLAIN)
S_PACK(u16, uint16_t, READ_PLAIN)
#ifdef WIDE
S_PACK(i32, int32_t, READ_PLAIN)
S_PACK(u32, uint32_t, READ_PLAIN)
S_PACK(i64, int64_t, READ_PLAIN)
S_PACK(u64, uint64_t, READ_PLAIN)
S_STORE(i64, int64_t, READ_PLAIN, READ_PLAIN)
#define PACKS(p)                                                                                                    \
    .p = {[FC_I8] = NAME(p##_i8), [FC_U8] = NAME(p##_u8), [FC_I16] = NAME(p##_i16), [FC_U16] = NAME(p##_u16),        \
          [FC_I32] = NAME(p##_i32), [FC_U32] = NAME(p##_u32), [FC_I64] = NAME(p##_i64), [FC_U64] = NAME(p##_u64)}
#define STORES .store = {[FC_I64] = NAME(store_i64)}
#else
typedef int32_t NAME(src_i32) __attribute__((aligned(1), may_alias));
typedef int64_t NAME(src_i64) __attribute__((aligned(1), may_alias));
S_STORE(i32, int32_t, READ_PLAIN, READ_PLAIN)
S_STORE(i64, int64_t, READ_PLAIN, READ_PLAIN)
#define PACKS(p)                                                                                                    \
    .p = {[FC_I8] = NAME(p##_i8), [FC_U8] = NAME(p##_u8), [FC_I16] = NAME(p##_i16), [FC_U16] = NAME(p##_u16)}
#define STORES .store = {[FC_I32] = NAME(store_i32), [FC_I64] = NAME(store_i64)}
#endif
#endif

#ifndef PACKING
#define PACKING PACKS(pack), PACKS(pack_panel)
#endif

#if IS_FLOAT
#include "fourier.h"
#include "few.h"
#endif
#ifdef WITH_HALF
#include "winograd.h"
#include "strassen.h"
#include "winograd_rows.h"
#include "winograd_lines.h"
static const fc_extra NAME(extra_kernels)[] = {
    {"strassen", strassen_kernels}, {"winograd rows", &winograd_rows_kernels}, {"winograd lines", &lines_kernels},
    {"fourier", &NAME(fourier_kernels)}, {"few", &NAME(few_kernels)},
    {NULL, NULL}
};
#define FAST , .winograd = WINOGRAD_KINDS, .extras = NAME(extra_kernels)
#elif IS_FLOAT
#include "axis.h"
static const fc_extra NAME(extra_kernels)[] = {
    {"fourier", &NAME(fourier_kernels)}, {"few", &NAME(few_kernels)}, {"axis", &axis_kernels}, {NULL, NULL}
};
#define FAST , .extras = NAME(extra_kernels)
#else
#define FAST
#endif

#include "lanes.h"

#define TABLE(type, ...)                                                                                             \
    {.input = type, .weight = DTYPE, .sum = DTYPE, .input_size = sizeof(T), .weight_size = sizeof(T),                \
     .size = sizeof(T), .tile_k = 1, .lanes = LANES, TILES, __VA_ARGS__, STORES, BY_LANE                             \
     .add = NAME(add), .holds_nan = NAME(holds_nan), .total_add = NAME(total_add),                 \
     .total_end = NAME(total_end) FAST}
static const fc_kernels NAME(kernels) = TABLE(DTYPE, SCALED PACKING);

#ifdef WITH_HALF
#include "float_halves.h"
#endif

#undef TABLE
#undef FAST
#undef SCALED
#undef BY_LANE
#undef LANE
#undef LANE_6
#undef LANE_12
#undef LANE_ROW_6
#undef LANE_ROW_12
#undef LANES_TABLE
#undef LANES_12
#undef PICKS
#undef PICKING
#undef PICK_OF
#undef READ_LANES
#undef WINDOW
#undef WINDOW_PAIR
#undef WINDOW_ENTRY
#undef WINDOW_GRADIENT
#undef WINDOW_VECTORS
#undef GRADIENT_ENTRY_2
#undef GRADIENT_ENTRY_3
#undef GRADIENT_TRIPLE
#undef GRADIENT_PIXELS
#undef WINDOWS
#undef PATCH
#undef PATCH_2
#undef PATCH_3
#undef PATCH_5
#undef PATCH_ENTRY_2
#undef PATCH_ENTRY_3
#undef PATCH_ENTRY_5
#undef PATCHES
#undef STRIP
#undef STRIPS
#undef STRIP_ROW
#undef STRIP_TABLE
#undef STRIPS_SHARED
#undef PATCHES_SHARED
#undef SHARES
#undef LANES_BEFORE
#undef SHARED_OF
#undef LANE_MASK
#undef FLAT
#undef FEW
#undef FLAT_CASE
#undef FLAT_WINDOW
#undef FLAT_WINDOW_TABLE
#undef PACKS
#undef PACKING
#undef SHORT_PACK
#undef SHORT_PACK_PANEL
#undef SHORT_STORE
#undef STORES
#undef PACK_LINES
#undef PACK_TRANSPOSED
#undef PACK_FEW
#undef PACK_THREE
#undef THREE_TOGETHER
#undef PACK_PANEL_AS_IT_LIES
#undef OPERANDS
#undef S_PACK
#undef S_PACK_PIXELS
#undef S_STORE
#undef S_STORE_AS
#undef S_STORE_LINES
#undef S_STORE_PIECES
#undef S_STORE_COLUMNS
#undef STORES_APART
#undef S_STORE_MAPPED
#undef S_ACTIVATE_LINE
#undef S_STORE_ANY
#undef S_STORE_OTHERS
#undef READ_PLAIN
#undef T
#undef NAME
#undef LANES
#undef IS_FLOAT
#undef DTYPE
#undef INDEX
