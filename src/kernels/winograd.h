/* Winograd convolution F(m x m, 3x3) and its weight gradient F(3x3, m x m) (Lavin & Gray, arXiv 1509.09308): the
   transforms along one axis here, those of a tile in winograd_tile.h. Vectors run along channels. Included where T is
   float.

   input     B^T d, the inputs of a tile               output    A^T y, its m outputs
   weights   G g, the weights                          gradient  A y, the gradients of m outputs
   taps      G^T y, three weight gradients

   A row of G may be scaled if that of A is scaled back: so that the weights cost least, which are transformed for every
   block of tiles, theirs are 1 and a point's powers, and `output` has the factors. `gradient` and `taps`, the same
   matrices in other roles, have them where they cost least there. */

#define ALONG static inline __attribute__((always_inline)) void

enum { WINOGRAD_MOST = 9 };  /* elements, or inputs, along an axis */

/* ---- F(2, 3) on points 0, +-1, infinity: sums and halves alone -------------------------------------------- */

ALONG winograd_input_along_2(const vec_float *d, vec_float *o) {
    o[0] = d[0] - d[2], o[1] = d[1] + d[2], o[2] = d[2] - d[1], o[3] = d[3] - d[1];
}

ALONG winograd_output_along_2(const vec_float *m, vec_float *o) {
    o[0] = m[0] + (T)0.5 * (m[1] + m[2]), o[1] = (T)0.5 * (m[1] - m[2]) + m[3];
}

ALONG winograd_weights_along_2(const vec_float *g, vec_float *o) {
    vec_float s = g[0] + g[2];
    o[0] = g[0], o[1] = s + g[1], o[2] = s - g[1], o[3] = g[2];
}

ALONG winograd_gradient_along_2(const vec_float *y, vec_float *o) {
    o[0] = y[0], o[1] = y[0] + y[1], o[2] = y[0] - y[1], o[3] = y[1];
}

ALONG winograd_taps_along_2(const vec_float *m, vec_float *o) {
    vec_float s = (T)0.5 * (m[1] + m[2]);
    o[0] = m[0] + s, o[1] = (T)0.5 * (m[1] - m[2]), o[2] = s + m[3];
}

/* ---- F(4, 3) on points 0, +-sqrt(1/2), +-sqrt(2), infinity ------------------------------------------------- */

/* Points of the form -1/c, -c, c, 1/c after Alam et al., arXiv 2201.10369. For a = sqrt(1/2), b = sqrt(2):
   a^2 + b^2 = 5/2, a^2 b^2 = 1. */
static const T WINOGRAD_A = 0.70710678118654752440, WINOGRAD_B = 1.41421356237309504880;

ALONG winograd_input_along_4(const vec_float *d, vec_float *o) {
    o[0] = d[0] - (T)2.5 * d[2] + d[4];
    vec_float e = d[4] - (T)2 * d[2], f = WINOGRAD_A * (d[3] - (T)2 * d[1]);
    o[1] = e + f, o[2] = e - f;
    e = d[4] - (T)0.5 * d[2], f = WINOGRAD_B * (d[3] - (T)0.5 * d[1]);
    o[3] = e + f, o[4] = e - f;
    o[5] = d[1] - (T)2.5 * d[3] + d[5];
}

/* The points' own factors in G: 1 / (2 a^2 (a^2 - b^2)), and the same for b. */
static const T WINOGRAD_KA = -1 / 1.5, WINOGRAD_KB = 1 / 6.;

ALONG winograd_output_along_4(const vec_float *m, vec_float *o) {
    vec_float s = m[1] + m[2], d = m[1] - m[2], t = m[3] + m[4], e = m[3] - m[4];
    o[0] = m[0] + WINOGRAD_KA * s + WINOGRAD_KB * t;
    o[1] = WINOGRAD_A * WINOGRAD_KA * d + WINOGRAD_B * WINOGRAD_KB * e;
    o[2] = (T)0.5 * WINOGRAD_KA * s + (T)2 * WINOGRAD_KB * t;
    o[3] = m[5] + (T)0.5 * WINOGRAD_A * WINOGRAD_KA * d + (T)2 * WINOGRAD_B * WINOGRAD_KB * e;
}

ALONG winograd_weights_along_4(const vec_float *g, vec_float *o) {
    vec_float s = g[0] + (T)0.5 * g[2], t = g[0] + (T)2 * g[2];
    o[0] = g[0], o[1] = s + WINOGRAD_A * g[1], o[2] = s - WINOGRAD_A * g[1];
    o[3] = t + WINOGRAD_B * g[1], o[4] = t - WINOGRAD_B * g[1], o[5] = g[2];
}

ALONG winograd_gradient_along_4(const vec_float *y, vec_float *o) {
    o[0] = y[0];
    vec_float s = y[0] + (T)0.5 * y[2], d = WINOGRAD_A * (y[1] + (T)0.5 * y[3]);
    o[1] = s + d, o[2] = s - d;
    s = y[0] + (T)2 * y[2], d = WINOGRAD_B * (y[1] + (T)2 * y[3]);
    o[3] = s + d, o[4] = s - d;
    o[5] = y[3];
}

ALONG winograd_taps_along_4(const vec_float *m, vec_float *o) {
    vec_float s = (T)(-1 / 1.5) * (m[1] + m[2]), d = (T)(-1 / 1.5) * (m[1] - m[2]);
    vec_float t = (T)(1 / 6.) * (m[3] + m[4]), e = (T)(1 / 6.) * (m[3] - m[4]);
    o[0] = m[0] + s + t;
    o[1] = WINOGRAD_A * d + WINOGRAD_B * e;
    o[2] = (T)0.5 * s + (T)2 * t + m[5];
}

/* ---- F(2, 2) on points 0, 1, infinity ------------------------------------------------------------------------ */

ALONG winograd_input_along_two_taps(const vec_float *d, vec_float *o) {
    o[0] = d[0] - d[1], o[1] = d[1], o[2] = d[2] - d[1];
}

ALONG winograd_output_along_two_taps(const vec_float *m, vec_float *o) {
    o[0] = m[0] + m[1], o[1] = m[1] + m[2];
}

ALONG winograd_weights_along_two_taps(const vec_float *g, vec_float *o) {
    o[0] = g[0], o[1] = g[0] + g[1], o[2] = g[1];
}

/* ---- three taps at stride 2, in two phases -------------------------------------------------------------------- */

/* The outer taps meet every second input, F(2, 2); the middle one those between, an element for each output. */

ALONG winograd_input_along_strided(const vec_float *d, vec_float *o) {
    o[0] = d[0] - d[2], o[1] = d[2], o[2] = d[4] - d[2], o[3] = d[1], o[4] = d[3];
}

ALONG winograd_output_along_strided(const vec_float *m, vec_float *o) {
    o[0] = (m[0] + m[1]) + m[3], o[1] = (m[1] + m[2]) + m[4];
}

ALONG winograd_weights_along_strided(const vec_float *g, vec_float *o) {
    o[0] = g[0], o[1] = g[0] + g[2], o[2] = g[2], o[3] = g[1];
}

/* Four outputs of two taps, F(4, 2) on points 0, 1, -1, 2, infinity: of five inputs `apart` from each other, and of the
   first and the second tap. */
ALONG winograd_input_of_two(const vec_float *d, int apart, vec_float *o) {
    const vec_float b = d[apart], c = d[2 * apart], e = d[3 * apart], s = e - b;
    o[0] = s + (T)2 * (d[0] - c), o[1] = (e - c) - (T)2 * b, o[2] = e + (T)2 * b - (T)3 * c;
    o[3] = s, o[4] = (d[4 * apart] - c) - (T)2 * s;
}

ALONG winograd_output_of_two(const vec_float *m, int apart, vec_float *o) {
    vec_float h = (T)0.5 * m[1], p = (T)(1 / 6.) * m[2], q = (T)(1 / 6.) * m[3], s = p + h, t = p - h;
    o[0] = ((T)0.5 * m[0] - s) + q, o[apart] = t + (T)2 * q, o[2 * apart] = (T)4 * q - s;
    o[3 * apart] = (t + (T)8 * q) + m[4];
}

ALONG winograd_weights_of_two(vec_float first, vec_float second, vec_float *o) {
    o[0] = first, o[1] = first + second, o[2] = first - second, o[3] = first + (T)2 * second, o[4] = second;
}

/* The same for four outputs, and four elements for the middle tap. */

ALONG winograd_input_along_strided_4(const vec_float *d, vec_float *o) {
    winograd_input_of_two(d, 2, o);
    o[5] = d[1], o[6] = d[3], o[7] = d[5], o[8] = d[7];
}

ALONG winograd_output_along_strided_4(const vec_float *m, vec_float *o) {
    winograd_output_of_two(m, 1, o);
    for (int i = 0; i < 4; i++) o[i] += m[5 + i];
}

ALONG winograd_weights_along_strided_4(const vec_float *g, vec_float *o) {
    winograd_weights_of_two(g[0], g[2], o);
    o[5] = g[1];
}

/* ---- the input gradient of three taps at stride 2 -------------------------------------------------------------- */

/* Every second output meets the middle tap alone, an element for each; those between the outer taps, F(2, 2). */

ALONG winograd_input_along_phases(const vec_float *d, vec_float *o) {
    o[0] = d[0] - d[1], o[1] = d[1], o[2] = d[2] - d[1], o[3] = d[0], o[4] = d[1];
}

ALONG winograd_output_along_phases(const vec_float *m, vec_float *o) {
    o[0] = m[3], o[1] = m[0] + m[1], o[2] = m[4], o[3] = m[1] + m[2];
}

ALONG winograd_weights_along_phases(const vec_float *g, vec_float *o) {
    o[0] = g[2], o[1] = g[0] + g[2], o[2] = g[0], o[3] = g[1];
}

/* The same for four outputs of a phase. */

ALONG winograd_input_along_phases_4(const vec_float *d, vec_float *o) {
    winograd_input_of_two(d, 1, o);
    o[5] = d[0], o[6] = d[1], o[7] = d[2], o[8] = d[3];
}

ALONG winograd_output_along_phases_4(const vec_float *m, vec_float *o) {
    winograd_output_of_two(m, 2, o + 1);
    for (int i = 0; i < 4; i++) o[2 * i] = m[5 + i];
}

ALONG winograd_weights_along_phases_4(const vec_float *g, vec_float *o) {
    winograd_weights_of_two(g[2], g[0], o);
    o[5] = g[1];
}

/* ---- the last tiles of F(4, 3) --------------------------------------------------------------------------------- */

/* Beyond the border a tile has no outputs, and one or two need no more than F(1, 3) on points +-sqrt(1/2) and infinity,
   F(2, 3) on these and 0: products with some of the same transformed weights. Of all sets of these points that one errs
   least, and this least of those with both signs of a point, whose transforms share terms: in both axes
   0.25 and 0.45 times as much as F(4, 3) on random data (root of the mean square), on data of one sign 1.1 and 1.5
   to 1.8 times, half of what plain sums err. */

ALONG winograd_input_along_4_of_2(const vec_float *d, vec_float *o) {
    vec_float f = WINOGRAD_A * d[1];
    o[0] = d[0] - (T)2 * d[2], o[1] = d[2] + f, o[2] = d[2] - f, o[5] = d[3] - (T)0.5 * d[1];
}

ALONG winograd_output_along_4_of_2(const vec_float *m, vec_float *o) {
    o[0] = m[0] + (m[1] + m[2]), o[1] = WINOGRAD_A * (m[1] - m[2]) + m[5];
}

ALONG winograd_input_along_4_of_1(const vec_float *d, vec_float *o) {
    vec_float f = WINOGRAD_A * d[0];
    o[1] = d[1] + f, o[2] = d[1] - f, o[5] = d[2] - (T)0.5 * d[0];
}

ALONG winograd_output_along_4_of_1(const vec_float *m, vec_float *o) {
    o[0] = WINOGRAD_A * (m[1] - m[2]) + m[5];
}

/* The elements that these go without. */
enum { WINOGRAD_WITHOUT_2 = 1 << 3 | 1 << 4, WINOGRAD_WITHOUT_1 = WINOGRAD_WITHOUT_2 | 1 << 0 };

#undef ALONG

/* ---- of a tile ---------------------------------------------------------------------------------------------- */

typedef void (*winograd_along)(const vec_float *, vec_float *);

/* V[i * element_row + j * element_stride + channel] = (B^T d B)[i][j] of one tile d of high x wide inputs, for the elements
   whose row and column are in these sets; channels is a multiple of the vector. */
static inline __attribute__((always_inline)) void winograd_input_tile(
    const winograd_along down, const winograd_along across, const int elements, const int high, const int wide,
    const int rows, const int columns, const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t channels, void *dst, ptrdiff_t element_row, ptrdiff_t element_stride) {
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        vec_float half[WINOGRAD_MOST * WINOGRAD_MOST], d[WINOGRAD_MOST], o[WINOGRAD_MOST];
        const T *in = (const T *)src + c;
        T *out = (T *)dst + c;
        UNROLL for (int j = 0; j < wide; j++) {
            UNROLL for (int i = 0; i < high; i++)
                d[i] = *(const vec_float *)(in + i * row_stride + j * column_stride);
            down(d, o);
            UNROLL for (int i = 0; i < elements; i++)
                if (rows >> i & 1) half[i * wide + j] = o[i];
        }
        UNROLL for (int i = 0; i < elements; i++) {
            if (!(rows >> i & 1)) continue;
            across(half + i * wide, o);
            UNROLL for (int j = 0; j < elements; j++)
                if (columns >> j & 1) *(vec_float *)(out + i * element_row + j * element_stride) = o[j];
        }
    }
}

/* The rows x columns first of high x wide outputs A^T m A of one tile of such elements, plus bias, relu where asked for;
   returns 0 when one of them is not finite. */
static inline __attribute__((always_inline)) int winograd_output_tile(
    const winograd_along down, const winograd_along across, const int elements, const int high, const int wide,
    const int in_rows, const int in_columns, const void *src, ptrdiff_t element_stride, int vectors, void *dst,
    ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t rows, ptrdiff_t columns, const void *bias, int relu) {
    vec_float bad = {0};
    for (int v = 0; v < vectors; v++) {
        const T *in = (const T *)src + v * LANES;
        vec_float half[WINOGRAD_MOST * WINOGRAD_MOST], m[WINOGRAD_MOST], o[WINOGRAD_MOST], shift = {0};
        if (bias) shift = *(const vec_float *)((const T *)bias + v * LANES);
        UNROLL for (int j = 0; j < elements; j++) {
            if (!(in_columns >> j & 1)) continue;
            UNROLL for (int i = 0; i < elements; i++)
                if (in_rows >> i & 1) m[i] = *(const vec_float *)(in + (i * elements + j) * element_stride);
            down(m, o);
            UNROLL for (int i = 0; i < high; i++) half[i * elements + j] = o[i];
        }
        UNROLL for (int i = 0; i < high; i++) {
            if (i >= rows) break;
            across(half + i * elements, o);
            UNROLL for (int j = 0; j < wide; j++) {
                if (j >= columns) break;
                vec_float y = o[j] + shift;
                bad += y * 0;
                if (relu) y = relu_float(y);
                *(vec_float *)((T *)dst + i * row_stride + j * column_stride + v * LANES) = y;
            }
        }
    }
    for (int l = 0; l < LANES; l++)
        if (bad[l] != 0) return 0;
    return 1;
}

/* Both, of a kind of tile: transforms along the columns (down) and the rows (across), elements, inputs and outputs a side,
   and the sets of elements. */
#define WINOGRAD_PIXELS(input, output, in_down, in_across, out_down, out_across, elements, extent_high, extent_wide, high,    \
                        wide, rows_, columns_)                                                                       \
    static void input(const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t channels, void *dst, \
                      ptrdiff_t element_row, ptrdiff_t element_stride) {                                             \
        winograd_input_tile(in_down, in_across, elements, extent_high, extent_wide, rows_, columns_, src, row_stride,  \
                            column_stride, channels, dst, element_row, element_stride);                              \
    }                                                                                                                \
    static int output(const void *src, ptrdiff_t element_stride, int vectors, void *dst, ptrdiff_t row_stride,       \
                      ptrdiff_t column_stride, ptrdiff_t rows, ptrdiff_t columns, const void *bias, int relu) {      \
        return winograd_output_tile(out_down, out_across, elements, high, wide, rows_, columns_, src, element_stride, \
                                    vectors, dst, row_stride, column_stride, rows, columns, bias, relu);             \
    }

/* Short tiles of F(4, 3), of `high` x `wide` outputs. */
#define SHORT(down, across, high, wide, rows, columns)                                                               \
    WINOGRAD_PIXELS(winograd_input_4_of_##high##x##wide, winograd_output_4_of_##high##x##wide,                         \
                    winograd_input_along_##down, winograd_input_along_##across, winograd_output_along_##down,        \
                    winograd_output_along_##across, 6, high + 2, wide + 2, high, wide, ~(rows), ~(columns))
SHORT(4, 4_of_1, 4, 1, 0, WINOGRAD_WITHOUT_1)
SHORT(4, 4_of_2, 4, 2, 0, WINOGRAD_WITHOUT_2)
SHORT(4_of_1, 4, 1, 4, WINOGRAD_WITHOUT_1, 0)
SHORT(4_of_1, 4_of_1, 1, 1, WINOGRAD_WITHOUT_1, WINOGRAD_WITHOUT_1)
SHORT(4_of_1, 4_of_2, 1, 2, WINOGRAD_WITHOUT_1, WINOGRAD_WITHOUT_2)
SHORT(4_of_2, 4, 2, 4, WINOGRAD_WITHOUT_2, 0)
SHORT(4_of_2, 4_of_1, 2, 1, WINOGRAD_WITHOUT_2, WINOGRAD_WITHOUT_1)
SHORT(4_of_2, 4_of_2, 2, 2, WINOGRAD_WITHOUT_2, WINOGRAD_WITHOUT_2)
#undef SHORT

/* kind, outputs, taps, inputs, elements and transformed weights of a tile along an axis */
#define KIND(x) x##_2
#define TILE 2
#define TAPS 3
#define EXTENT 4
#define ELEMENTS 4
#define WEIGHTS 4
#define WITH_GRADIENT
#include "winograd_tile.h"
#define KIND(x) x##_4
#define TILE 4
#define TAPS 3
#define EXTENT 6
#define ELEMENTS 6
#define WEIGHTS 6
#define WITH_GRADIENT
#include "winograd_tile.h"
#define KIND(x) x##_two_taps
#define TILE 2
#define TAPS 2
#define EXTENT 3
#define ELEMENTS 3
#define WEIGHTS 3
#include "winograd_tile.h"
#define KIND(x) x##_strided
#define TILE 2
#define TAPS 3
#define EXTENT 5
#define ELEMENTS 5
#define WEIGHTS 4
#include "winograd_tile.h"
#define KIND(x) x##_strided_4
#define TILE 4
#define TAPS 3
#define EXTENT 9
#define ELEMENTS 9
#define WEIGHTS 6
#include "winograd_tile.h"
#define KIND(x) x##_phases
#define TILE 4
#define TAPS 3
#define EXTENT 3
#define ELEMENTS 5
#define WEIGHTS 4
#include "winograd_tile.h"
#define KIND(x) x##_phases_4
#define TILE 8
#define TAPS 3
#define EXTENT 5
#define ELEMENTS 9
#define WEIGHTS 6
#include "winograd_tile.h"

/* ---- what follows ------------------------------------------------------------------------------------------- */

/* The largest of every 2 x 2 outputs, the first of equal ones; NaN is larger than all. */
static void winograd_pool(const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t columns, int vectors,
                          void *dst, ptrdiff_t pixel_stride) {
    for (ptrdiff_t x = 0; x < columns; x++)
        for (int v = 0; v < vectors; v++) {
            const T *in = (const T *)src + 2 * x * column_stride + v * LANES;
            vec_float best = *(const vec_float *)in;
            UNROLL for (int i = 1; i < 4; i++) {
                vec_float y = *(const vec_float *)(in + i / 2 * row_stride + i % 2 * column_stride);
                __typeof__(y > best) larger = (y > best) | (y != y);
                best = (vec_float)(((__typeof__(larger))y & larger) | ((__typeof__(larger))best & ~larger));
            }
            *(vec_float *)((T *)dst + x * pixel_stride + v * LANES) = best;
        }
}

/* ---- few tiles --------------------------------------------------------------------------------------------- */

#if VECTORS == 4
/* M[row][j] (+)= sum over channels of V[row][j] (G g G^T)[row][j], the six elements of one row for four tiles and one
   vector of outputs: 24 accumulators. The weights g are transformed in registers, once for these four tiles, so that no
   more than the nine taps of a weight are ever read.

   V[j][tile][FC_WINOGRAD_CHANNELS]; tap (r, k) of a channel's weights lies at w + (3 r + k) * tap_stride, the next
   channel `width` after. */
static inline __attribute__((always_inline)) void winograd_row(
    const int row, const T *v, const T *w, ptrdiff_t tap_stride, ptrdiff_t width, ptrdiff_t channels, T *m,
    ptrdiff_t element_stride, ptrdiff_t tile_stride, int accumulate) {
    vec_float acc[6][FC_WINOGRAD_TILES];
    m += 6 * row * element_stride;
    UNROLL for (int j = 0; j < 6; j++)
        UNROLL for (int t = 0; t < FC_WINOGRAD_TILES; t++)
            acc[j][t] = accumulate ? *(vec_float *)(m + j * element_stride + t * tile_stride) : (vec_float){0};
    for (ptrdiff_t c = 0; c < channels; c++, w += width, v++) {
        vec_float g[3], half[3], o[6];
        /* the next slice of the channels, tap by tap: six rows fetch nine */
        __builtin_prefetch(w + FC_WINOGRAD_CHANNELS * width + row * tap_stride, 0, 2);
        if (row < 3) __builtin_prefetch(w + FC_WINOGRAD_CHANNELS * width + (row + 6) * tap_stride, 0, 2);
        UNROLL for (int k = 0; k < 3; k++) {
            UNROLL for (int r = 0; r < 3; r++) g[r] = *(const vec_float *)(w + (3 * r + k) * tap_stride);
            winograd_weights_along_4(g, o);
            half[k] = o[row];
        }
        winograd_weights_along_4(half, o);
        UNROLL for (int j = 0; j < 6; j++)
            UNROLL for (int t = 0; t < FC_WINOGRAD_TILES; t++)
                acc[j][t] += v[(j * FC_WINOGRAD_TILES + t) * FC_WINOGRAD_CHANNELS] * o[j];
    }
    UNROLL for (int j = 0; j < 6; j++)
        UNROLL for (int t = 0; t < FC_WINOGRAD_TILES; t++)
            *(vec_float *)(m + j * element_stride + t * tile_stride) = acc[j][t];
}

static void winograd_products_4(int row, const void *v, const void *w, ptrdiff_t tap_stride, ptrdiff_t width,
                                ptrdiff_t channels, void *m, ptrdiff_t element_stride, ptrdiff_t tile_stride,
                                int accumulate) {
#define ROW(i)                                                                                                       \
    case i: winograd_row(i, v, w, tap_stride, width, channels, m, element_stride, tile_stride, accumulate); return;
    switch (row) { ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) }
#undef ROW
}
#else
#define winograd_products_4 NULL
#endif

#define FORWARD(kind)                                                                                                \
    .input[0][0] = winograd_input_##kind, .output[0][0] = winograd_output_##kind,                                     \
    .transform = winograd_weights_##kind, .pool = winograd_pool
#define GRADIENT(kind) .gradient = winograd_gradient_##kind, .gradient_taps = winograd_taps_##kind
#define SHORT(function)                                                                                              \
    {{function##_4, function##_4_of_4x1, function##_4_of_4x2},                                                       \
     {function##_4_of_1x4, function##_4_of_1x1, function##_4_of_1x2},                                                \
     {function##_4_of_2x4, function##_4_of_2x1, function##_4_of_2x2}}
#define WINOGRAD_KINDS                                                                                               \
    {                                                                                                                \
        [FC_WINOGRAD_2] = {2, 2, 3, 4, 4, 4, 1 << 3, FORWARD(2), GRADIENT(2)},                                       \
        [FC_WINOGRAD_4] = {4, 4, 3, 6, 6, 6, 1 << 5, 2, {0, WINOGRAD_WITHOUT_1, WINOGRAD_WITHOUT_2},                 \
                           .input = SHORT(winograd_input), .output = SHORT(winograd_output),                         \
                           .transform = winograd_weights_4, .pool = winograd_pool, GRADIENT(4),                      \
                           .products = winograd_products_4},                                                         \
        [FC_WINOGRAD_TWO_TAPS] = {2, 2, 2, 3, 3, 3, 1 << 2, FORWARD(two_taps)},                                      \
        [FC_WINOGRAD_STRIDED] = {2, 4, 3, 5, 5, 4, 1 << 2 | 1 << 4, FORWARD(strided)},                               \
        [FC_WINOGRAD_STRIDED_4] = {4, 8, 3, 9, 9, 6, 1 << 4 | 1 << 8, FORWARD(strided_4)},                           \
        [FC_WINOGRAD_PHASES] = {4, 2, 3, 3, 5, 4, 1 << 2, FORWARD(phases)},                                          \
        [FC_WINOGRAD_PHASES_4] = {8, 4, 3, 5, 9, 6, 1 << 4, FORWARD(phases_4)},                                      \
    }
