/* Winograd convolution of kernels of any size, transformed along lines: along an axis F(4, r) with r = 3, 4, 5 or 7 taps,
   or not at all. A longer kernel is cut into blocks of four taps, the last of at most r, and the block that begins 4 b taps
   further on meets the transform of the tile b tiles further on: sums over blocks are sums in the transform, as those over
   channels are. Vectors run along channels. Included where T is float.

   Four and five taps: points 0, +-1/2, +-1, +-2, the latter with infinity. Three: those of winograd.h. Seven, along a
   single axis, where its error is still small: 0, +-1/2, +-3/4, +-4/3, +-2, infinity. */

#ifndef FC_LINES_H
#define FC_LINES_H
enum fc_line_kind { FC_LINE_THREE, FC_LINE_FOUR, FC_LINE_FIVE, FC_LINE_SEVEN, FC_LINE_KINDS };
/* Along a line a tile makes FC_LINE_TILE outputs of a block of taps by so many products. */
enum { FC_LINE_TILE = 4, FC_LINE_MOST = 10, FC_LINE_TAPS = 7 };

/* `count` tiles that begin `src_next` apart, inputs (products) `src_step`, the same of what is written; strides in elements.
   Of tile t the first `outputs` - t * `advance` outputs are written, plus bias, relu where asked for; 0 is returned when
   one of these is not finite. */
typedef void (*fc_line_input)(const void *src, ptrdiff_t src_step, ptrdiff_t src_next, ptrdiff_t count,
                              ptrdiff_t channels, void *dst, ptrdiff_t dst_step, ptrdiff_t dst_next);
typedef int (*fc_line_output)(const void *src, ptrdiff_t src_step, ptrdiff_t src_next, ptrdiff_t count, int vectors,
                              void *dst, ptrdiff_t dst_step, ptrdiff_t dst_next, ptrdiff_t outputs, ptrdiff_t advance,
                              const void *bias, int relu);
typedef struct { int taps, elements; fc_line_input input; fc_line_output output; } fc_line;

/* Blocks of so many taps; of one each where the axis is not transformed (NULL). */
static inline ptrdiff_t lines_blocks(const fc_line *line, ptrdiff_t taps) {
    return !line ? taps : taps <= line->taps ? 1 : 1 + (taps - line->taps + FC_LINE_TILE - 1) / FC_LINE_TILE;
}

/* dst[(e * elements_x + f) * element_stride + block * length + i] = `count` transformed weights of a panel of so many, from
   src[y * tap_y + x * tap_x + i]; made in double. A NULL line: that axis is not transformed, a block is a tap. */
typedef void (*fc_line_weights)(const fc_line *lines_y, const fc_line *lines_x, const void *src, ptrdiff_t taps_y,
                                ptrdiff_t tap_y, ptrdiff_t taps_x, ptrdiff_t tap_x, ptrdiff_t length, ptrdiff_t count,
                                void *dst, ptrdiff_t element_stride);
typedef struct { fc_line line[FC_LINE_KINDS]; fc_line_weights weights; } fc_lines;
#endif

#ifdef VECTOR_BYTES /* for a set; else for the driver */
static inline __attribute__((always_inline)) void lines_input_along_four(const vec_float *d, vec_float *o) {
    o[0] = (d[6] - d[0]) + (T)5.25 * (d[2] - d[4]);
    vec_float e = d[6] + d[2] - (T)4.25 * d[4], f = d[5] + d[1] - (T)4.25 * d[3];
    o[1] = e + f, o[2] = e - f;
    e = d[6] + (T)4 * d[2] - (T)5 * d[4], f = (T)0.5 * d[5] + (T)2 * d[1] - (T)2.5 * d[3];
    o[3] = e + f, o[4] = e - f;
    e = d[6] + (T)0.25 * d[2] - (T)1.25 * d[4], f = (T)2 * d[5] + (T)0.5 * d[1] - (T)2.5 * d[3];
    o[5] = e + f, o[6] = e - f;
}

static inline __attribute__((always_inline)) void lines_input_along_five(const vec_float *d, vec_float *o) {
    lines_input_along_four(d, o);
    o[7] = (d[7] - d[1]) + (T)5.25 * (d[3] - d[5]);
}

static inline __attribute__((always_inline)) void lines_output_along_four(const vec_float *m, vec_float *o) {
    const T one = -2 / 9., half = 32 / 45., two = 1 / 90.;
    vec_float s = one * (m[1] + m[2]), d = one * (m[1] - m[2]), t = half * (m[3] + m[4]), e = half * (m[3] - m[4]);
    vec_float u = two * (m[5] + m[6]), f = two * (m[5] - m[6]);
    o[0] = (s + t) + (u - m[0]);
    o[1] = d + ((T)0.5 * e + (T)2 * f);
    o[2] = s + ((T)0.25 * t + (T)4 * u);
    o[3] = d + ((T)0.125 * e + (T)8 * f);
}

static inline __attribute__((always_inline)) void lines_output_along_five(const vec_float *m, vec_float *o) {
    lines_output_along_four(m, o);
    o[3] += m[7];
}

/* The points p, -p and 1/p, -1/p lie beside two such pairs more, of r and 1/r, with t = r^2 + 1/r^2. */
static inline __attribute__((always_inline)) void lines_input_pair(const double p, const double t, const vec_float *d,
                                                                   vec_float *o) {
    const double a = p * p;
    const T c = t + 1 / a, b = 1 + t / a, z = 1 / a;
    vec_float e = (d[8] - c * d[6]) + (b * d[4] - z * d[2]), f = (T)p * ((d[7] - c * d[5]) + (b * d[3] - z * d[1]));
    o[0] = e + f, o[1] = e - f;
}

#define SQUARES(p) ((p) * (p) + 1 / ((p) * (p)))
static inline __attribute__((always_inline)) void lines_input_along_seven(const vec_float *d, vec_float *o) {
    const double s = SQUARES(0.5), t = SQUARES(0.75);
    const T c = s + t, b = 2 + s * t;
    o[0] = (d[0] + d[8]) + (b * d[4] - c * (d[2] + d[6]));
    lines_input_pair(0.5, t, d, o + 1), lines_input_pair(2, t, d, o + 3);
    lines_input_pair(0.75, s, d, o + 5), lines_input_pair(1 / 0.75, s, d, o + 7);
    o[9] = (d[1] + d[9]) + (b * d[5] - c * (d[3] + d[7]));
}

static inline __attribute__((always_inline)) void lines_output_pair(const double p, const double t, const vec_float *m,
                                                                    vec_float *o) {
    const double a = p * p, k = 1 / (2 * a * (a - 1 / a) * (a * a - t * a + 1));
    vec_float s = (T)k * (m[0] + m[1]), d = (T)(k * p) * (m[0] - m[1]);
    o[0] += s, o[1] += d, o[2] += (T)a * s, o[3] += (T)a * d;
}

static inline __attribute__((always_inline)) void lines_output_along_seven(const vec_float *m, vec_float *o) {
    const double s = SQUARES(0.5), t = SQUARES(0.75);
    o[0] = m[0], o[1] = o[2] = (vec_float){0}, o[3] = m[9];
    lines_output_pair(0.75, s, m + 5, o), lines_output_pair(0.5, t, m + 1, o);
    lines_output_pair(1 / 0.75, s, m + 7, o), lines_output_pair(2, t, m + 3, o);
}
#undef SQUARES

#define LINE(name, inputs, along_input, along_output)                                                                 \
    static void lines_input_##name(const void *src, ptrdiff_t src_step, ptrdiff_t src_next, ptrdiff_t count,           \
                                   ptrdiff_t channels, void *dst, ptrdiff_t dst_step, ptrdiff_t dst_next) {            \
        for (ptrdiff_t t = 0; t < count; t++)                                                                         \
            for (ptrdiff_t c = 0; c < channels; c += LANES) {                                                         \
                const T *in = (const T *)src + t * src_next + c;                                                      \
                T *out = (T *)dst + t * dst_next + c;                                                                 \
                vec_float d[inputs], o[inputs];                                                                       \
                UNROLL for (int j = 0; j < inputs; j++) d[j] = *(const vec_float *)(in + j * src_step);               \
                along_input(d, o);                                                                                    \
                UNROLL for (int j = 0; j < inputs; j++) *(vec_float *)(out + j * dst_step) = o[j];                    \
            }                                                                                                         \
    }                                                                                                                 \
    static int lines_output_##name(const void *src, ptrdiff_t src_step, ptrdiff_t src_next, ptrdiff_t count,           \
                                   int vectors, void *dst, ptrdiff_t dst_step, ptrdiff_t dst_next, ptrdiff_t outputs, \
                                   ptrdiff_t advance, const void *bias, int relu) {                                   \
        vec_float bad = {0};                                                                                          \
        for (ptrdiff_t t = 0; t < count; t++, outputs -= advance)                                                     \
            for (int v = 0; v < vectors; v++) {                                                                       \
                const T *in = (const T *)src + t * src_next + v * LANES;                                              \
                T *out = (T *)dst + t * dst_next + v * LANES;                                                         \
                vec_float m[inputs], o[FC_LINE_TILE], shift = {0};                                                    \
                if (bias) shift = *(const vec_float *)((const T *)bias + v * LANES);                                  \
                UNROLL for (int j = 0; j < inputs; j++) m[j] = *(const vec_float *)(in + j * src_step);               \
                along_output(m, o);                                                                                   \
                UNROLL for (int j = 0; j < FC_LINE_TILE; j++) {                                                       \
                    if (j >= outputs) break;                                                                          \
                    vec_float y = o[j] + shift;                                                                       \
                    bad += y * 0;                                                                                     \
                    if (relu) y = relu_float(y);                                                                      \
                    *(vec_float *)(out + j * dst_step) = y;                                                           \
                }                                                                                                     \
            }                                                                                                         \
        for (int l = 0; l < LANES; l++)                                                                               \
            if (bad[l] != 0) return 0;                                                                                \
        return 1;                                                                                                     \
    }
LINE(three, 6, winograd_input_along_4, winograd_output_along_4)
LINE(four, 7, lines_input_along_four, lines_output_along_four)
LINE(five, 8, lines_input_along_five, lines_output_along_five)
LINE(seven, 10, lines_input_along_seven, lines_output_along_seven)
#undef LINE

/* Transformed weights of a block along an axis, in double: powers of the points, the last tap alone at infinity. Half a
   vector of the type fills one of doubles. */
typedef double vec_wide __attribute__((vector_size(LANES / 2 * sizeof(double)), aligned(sizeof(double))));
typedef T vec_narrow __attribute__((vector_size(LANES / 2 * sizeof(T)), aligned(sizeof(T)), may_alias));

static inline __attribute__((always_inline)) void lines_weights_along(const int taps, const int pairs,
                                                                      const double *points, const vec_wide *g,
                                                                      vec_wide *o) {
    o[0] = g[0];
    UNROLL for (int i = 0; i < pairs; i++) {
        const double p = points[i], q = p * p;
        vec_wide even = g[0] + q * g[2], odd = g[1];
        if (taps > 3) odd += q * g[3];
        if (taps > 4) even += q * q * g[4];
        if (taps > 5) odd += q * q * g[5], even += q * q * q * g[6];
        o[2 * i + 1] = even + p * odd, o[2 * i + 2] = even - p * odd;
    }
    o[2 * pairs + 1] = g[taps - 1];
}

/* Along columns of taps from the type to doubles, along rows back: of `count` lines `src_next` apart, whose taps, of which
   there are `taps`, lie `src_step` apart. */
typedef void (*lines_weights_pass)(const void *src, ptrdiff_t src_step, ptrdiff_t src_next, ptrdiff_t taps,
                                   ptrdiff_t count, void *dst, ptrdiff_t dst_step, ptrdiff_t dst_next);
#define LINE_WEIGHTS_PASS(name, most, pairs, elements, S, S_vec, D, D_vec)                                             \
    static void lines_weights_##name(const void *src, ptrdiff_t src_step, ptrdiff_t src_next, ptrdiff_t taps,          \
                                     ptrdiff_t count, void *dst, ptrdiff_t dst_step, ptrdiff_t dst_next) {             \
        for (ptrdiff_t k = 0; k < count; k++) {                                                                       \
            const S *in = (const S *)src + k * src_next;                                                              \
            D *out = (D *)dst + k * dst_next;                                                                         \
            vec_wide g[most], o[2 * pairs + 2];                                                                       \
            UNROLL for (int r = 0; r < most; r++)                                                                     \
                g[r] = r < taps ? __builtin_convertvector(*(const S_vec *)(in + r * src_step), vec_wide)               \
                                : (vec_wide){0};                                                                      \
            lines_weights_along(most, pairs, lines_points_##elements, g, o);                                          \
            UNROLL for (int e = 0; e < elements; e++)                                                                 \
                *(D_vec *)(out + e * dst_step) = __builtin_convertvector(o[e], D_vec);                                \
        }                                                                                                             \
    }
#define LINE_WEIGHTS(name, most, pairs, elements)                                                                     \
    LINE_WEIGHTS_PASS(name##_columns, most, pairs, elements, T, vec_narrow, double, vec_wide)                         \
    LINE_WEIGHTS_PASS(name##_rows, most, pairs, elements, double, vec_wide, T, vec_narrow)
static const double lines_points_1[] = {0}, lines_points_6[] = {0.70710678118654752440, 1.41421356237309504880};
static const double lines_points_7[] = {1, 0.5, 2}, lines_points_8[] = {1, 0.5, 2};
static const double lines_points_10[] = {0.5, 2, 0.75, 1 / 0.75};
LINE_WEIGHTS(none, 1, 0, 1)
LINE_WEIGHTS(three, 3, 2, 6)
LINE_WEIGHTS(four, 4, 3, 7)
LINE_WEIGHTS(five, 5, 3, 8)
LINE_WEIGHTS(seven, 7, 4, 10)
#undef LINE_WEIGHTS
#undef LINE_WEIGHTS_PASS

static const lines_weights_pass lines_weights_passes[][2] = {
    {lines_weights_none_columns, lines_weights_none_rows},
    {lines_weights_three_columns, lines_weights_three_rows},
    {lines_weights_four_columns, lines_weights_four_rows},
    {lines_weights_five_columns, lines_weights_five_rows},
    {lines_weights_seven_columns, lines_weights_seven_rows},
};

static int lines_weights_kind(const fc_line *line) {
    if (!line) return 0;
    return line->taps == 7 ? 4 : line->taps - 2;
}

static void lines_weights(const fc_line *lines_y, const fc_line *lines_x, const void *src, ptrdiff_t taps_y,
                          ptrdiff_t tap_y, ptrdiff_t taps_x, ptrdiff_t tap_x, ptrdiff_t length, ptrdiff_t count,
                          void *dst, ptrdiff_t element_stride) {
    const lines_weights_pass down = lines_weights_passes[lines_weights_kind(lines_y)][0];
    const lines_weights_pass along = lines_weights_passes[lines_weights_kind(lines_x)][1];
    const ptrdiff_t ny = lines_y ? lines_y->elements : 1, nx = lines_x ? lines_x->elements : 1;
    const ptrdiff_t step_y = lines_y ? FC_LINE_TILE : 1, step_x = lines_x ? FC_LINE_TILE : 1;
    const ptrdiff_t blocks_y = lines_blocks(lines_y, taps_y), blocks_x = lines_blocks(lines_x, taps_x);
    enum { HALF_LANES = LANES / 2, LINE = FC_LINE_TAPS * HALF_LANES };
    double half[FC_LINE_MOST * LINE] __attribute__((aligned(64)));
    for (ptrdiff_t block = 0; block < blocks_y * blocks_x; block++) {
        const ptrdiff_t y = block / blocks_x * step_y, x = block % blocks_x * step_x;
        const ptrdiff_t rows = block / blocks_x + 1 < blocks_y ? step_y : taps_y - y;
        const ptrdiff_t columns = block % blocks_x + 1 < blocks_x ? step_x : taps_x - x;
        const T *in = (const T *)src + y * tap_y + x * tap_x;
        T *out = (T *)dst + block * length;
        for (ptrdiff_t i = 0; i < count; i += HALF_LANES) {
            down(in + i, tap_y, tap_x, rows, columns, half, LINE, HALF_LANES);
            along(half, HALF_LANES, LINE, columns, ny, out + i, element_stride, nx * element_stride);
        }
    }
}

static const fc_lines lines_kernels = {
    {[FC_LINE_THREE] = {3, 6, lines_input_three, lines_output_three},
     [FC_LINE_FOUR] = {4, 7, lines_input_four, lines_output_four},
     [FC_LINE_FIVE] = {5, 8, lines_input_five, lines_output_five},
     [FC_LINE_SEVEN] = {7, 10, lines_input_seven, lines_output_seven}},
    lines_weights};
#endif
