/* Winograd transforms F(4x4, 3x3) on points 0, +-sqrt(1/2), +-sqrt(2), infinity (Lavin & Gray, arXiv 1509.09308; points
   of the form -1/c, -c, c, 1/c after Alam et al., arXiv 2201.10369). Vectors run along channels. For a = sqrt(1/2),
   b = sqrt(2): a^2 + b^2 = 5/2, a^2 b^2 = 1. Included where T is float. */

static const T WINOGRAD_A = 0.70710678118654752440, WINOGRAD_B = 1.41421356237309504880;

static inline __attribute__((always_inline)) void winograd_input_1d(const vec_float *d, ptrdiff_t step,
                                                                    vec_float *o) {
    vec_float d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    o[0] = d0 - (T)2.5 * d2 + d4;
    vec_float e = d4 - (T)2 * d2, f = WINOGRAD_A * (d3 - (T)2 * d1);
    o[1] = e + f, o[2] = e - f;
    e = d4 - (T)0.5 * d2, f = WINOGRAD_B * (d3 - (T)0.5 * d1);
    o[3] = e + f, o[4] = e - f;
    o[5] = d1 - (T)2.5 * d3 + d5;
}

/* V[f][channel] = (B^T d B)[f] of one 6x6 tile d; channels is a multiple of the vector. */
static void winograd_input(const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t channels,
                           void *dst, ptrdiff_t element_stride) {
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        vec_float half[36], column[6];
        const T *in = (const T *)src + c;
        T *out = (T *)dst + c;
        UNROLL for (int j = 0; j < 6; j++) {
            vec_float d[6];
            UNROLL for (int i = 0; i < 6; i++) d[i] = *(const vec_float *)(in + i * row_stride + j * column_stride);
            winograd_input_1d(d, 1, column);
            UNROLL for (int i = 0; i < 6; i++) half[i * 6 + j] = column[i];
        }
        UNROLL for (int i = 0; i < 6; i++) {
            winograd_input_1d(half + i * 6, 1, column);
            UNROLL for (int j = 0; j < 6; j++) *(vec_float *)(out + (i * 6 + j) * element_stride) = column[j];
        }
    }
}

static inline __attribute__((always_inline)) void winograd_output_1d(const vec_float *m, vec_float *o) {
    vec_float s = m[1] + m[2], d = m[1] - m[2], t = m[3] + m[4], e = m[3] - m[4];
    o[0] = m[0] + s + t;
    o[1] = WINOGRAD_A * d + WINOGRAD_B * e;
    o[2] = (T)0.5 * s + (T)2 * t;
    o[3] = (T)0.5 * WINOGRAD_A * d + (T)2 * WINOGRAD_B * e + m[5];
}

/* The rows x columns first outputs A^T m A of one tile, plus bias, relu where asked for; returns 0 when one of them is not finite. */
static int winograd_output(const void *src, ptrdiff_t element_stride, int vectors, void *dst, ptrdiff_t row_stride,
                           ptrdiff_t column_stride, ptrdiff_t rows, ptrdiff_t columns, const void *bias, int relu) {
    vec_float bad = {0};
    for (int v = 0; v < vectors; v++) {
        const T *in = (const T *)src + v * LANES;
        vec_float half[24], o[4], shift = {0};
        if (bias) shift = *(const vec_float *)((const T *)bias + v * LANES);
        UNROLL for (int j = 0; j < 6; j++) {
            vec_float m[6];
            UNROLL for (int i = 0; i < 6; i++) m[i] = *(const vec_float *)(in + (i * 6 + j) * element_stride);
            winograd_output_1d(m, o);
            UNROLL for (int i = 0; i < 4; i++) half[i * 6 + j] = o[i];
        }
        UNROLL for (int i = 0; i < 4; i++) {
            if (i >= rows) break;
            winograd_output_1d(half + i * 6, o);
            UNROLL for (int j = 0; j < 4; j++) {
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

typedef T half_of_vec __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(T)), may_alias));
typedef double vec_wide __attribute__((vector_size(VECTOR_BYTES)));

static inline __attribute__((always_inline)) void winograd_weights_1d(vec_wide g0, vec_wide g1, vec_wide g2,
                                                                      vec_wide *o) {
    const double a = 0.70710678118654752440, b = 1.41421356237309504880;
    vec_wide s = (g0 + 0.5 * g2) * (-1 / 1.5), d = g1 * (-a / 1.5);
    vec_wide t = (g0 + 2. * g2) * (1 / 6.), e = g1 * (b / 6.);
    o[0] = g0, o[1] = s + d, o[2] = s - d, o[3] = t + e, o[4] = t - e, o[5] = g2;
}

/* dst[f * element_stride + channel * width] = (G g G^T)[f] for one panel of weights g = src[tap * tap_stride + channel *
   width], in double and rounded once. */
static void winograd_weights(void *dst, ptrdiff_t element_stride, ptrdiff_t width, const void *src,
                             ptrdiff_t tap_stride, ptrdiff_t channels) {
    for (ptrdiff_t i = 0; i < channels * width; i += LANES / 2) {
        const T *in = (const T *)src + i;
        T *out = (T *)dst + i;
        vec_wide column[3][6], g[3], o[6];
        UNROLL for (int k = 0; k < 3; k++) {
            UNROLL for (int r = 0; r < 3; r++)
                g[r] = __builtin_convertvector(*(const half_of_vec *)(in + (3 * r + k) * tap_stride), vec_wide);
            winograd_weights_1d(g[0], g[1], g[2], column[k]);
        }
        UNROLL for (int r = 0; r < 6; r++) {
            winograd_weights_1d(column[0][r], column[1][r], column[2][r], o);
            UNROLL for (int k = 0; k < 6; k++)
                *(half_of_vec *)(out + (6 * r + k) * element_stride) = __builtin_convertvector(o[k], half_of_vec);
        }
    }
}

static inline __attribute__((always_inline)) void winograd_gradient_1d(const vec_float *y, ptrdiff_t step,
                                                                       vec_float *o) {
    vec_float y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    o[0] = y0;
    vec_float s = y0 + (T)0.5 * y2, d = WINOGRAD_A * (y1 + (T)0.5 * y3);
    o[1] = s + d, o[2] = s - d;
    s = y0 + (T)2 * y2, d = WINOGRAD_B * (y1 + (T)2 * y3);
    o[3] = s + d, o[4] = s - d;
    o[5] = y3;
}

/* D[f][channel] = (A y A^T)[f] of one 4x4 tile y of the output's gradient, for F(3x3, 4x4): the same matrices as the
   convolution, in the transposed roles. */
static void winograd_gradient(const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t channels,
                              void *dst, ptrdiff_t element_stride) {
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        vec_float half[24], o[6];
        const T *in = (const T *)src + c;
        T *out = (T *)dst + c;
        UNROLL for (int j = 0; j < 4; j++) {
            vec_float y[4];
            UNROLL for (int i = 0; i < 4; i++) y[i] = *(const vec_float *)(in + i * row_stride + j * column_stride);
            winograd_gradient_1d(y, 1, o);
            UNROLL for (int i = 0; i < 6; i++) half[i * 4 + j] = o[i];
        }
        UNROLL for (int i = 0; i < 6; i++) {
            winograd_gradient_1d(half + i * 4, 1, o);
            UNROLL for (int j = 0; j < 6; j++) *(vec_float *)(out + (i * 6 + j) * element_stride) = o[j];
        }
    }
}

static inline __attribute__((always_inline)) void winograd_taps_1d(const vec_float *m, vec_float *o) {
    vec_float s = (T)(-1 / 1.5) * (m[1] + m[2]), d = (T)(-1 / 1.5) * (m[1] - m[2]);
    vec_float t = (T)(1 / 6.) * (m[3] + m[4]), e = (T)(1 / 6.) * (m[3] - m[4]);
    o[0] = m[0] + s + t;
    o[1] = WINOGRAD_A * d + WINOGRAD_B * e;
    o[2] = (T)0.5 * s + (T)2 * t + m[5];
}

/* dst[tap] = (G^T m G)[tap]: the nine weight gradients of one input channel and a panel of output channels. */
static void winograd_taps(const void *src, ptrdiff_t element_stride, int vectors, void *dst, ptrdiff_t tap_stride) {
    for (int v = 0; v < vectors; v++) {
        const T *in = (const T *)src + v * LANES;
        vec_float half[18], o[3];
        UNROLL for (int j = 0; j < 6; j++) {
            vec_float m[6];
            UNROLL for (int i = 0; i < 6; i++) m[i] = *(const vec_float *)(in + (i * 6 + j) * element_stride);
            winograd_taps_1d(m, o);
            UNROLL for (int i = 0; i < 3; i++) half[i * 6 + j] = o[i];
        }
        UNROLL for (int i = 0; i < 3; i++) {
            winograd_taps_1d(half + i * 6, o);
            UNROLL for (int j = 0; j < 3; j++) *(vec_float *)((T *)dst + (i * 3 + j) * tap_stride + v * LANES) = o[j];
        }
    }
}
