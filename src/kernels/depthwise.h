/* Kernels in which every lane is an output channel with inputs of its own: depthwise and grouped convolution. Included
   by compute.h once a type. The sums of all of them run in the order of the segments, so their bits agree.

   A multiply-add of these kernels takes one vector of input where the direct register tile takes one number: loads, not
   multiply-adds, are the limit, twice so where NumPy's arrays lie across cache lines. So the window kernels keep a row
   of input vectors in use for all taps that meet it. */

/* c[i][:] (+)= sum over segments and k of a[row[i] + seg.a + k*step + :] * b[(seg.b + k)*ldb + :]. */
static inline __attribute__((always_inline)) void NAME(lane_tile)(
    const int rows, const int vectors, const T *a, const ptrdiff_t *a_row, ptrdiff_t step, const T *b, ptrdiff_t ldb,
    const fc_segment *segment, ptrdiff_t segments, T *c, const ptrdiff_t *c_row, int accumulate) {
    NAME(vec) acc[FC_MAX_ROWS][FC_MAX_VECTORS];
    const T *row[FC_MAX_ROWS];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++)
            acc[i][j] = accumulate ? *(const NAME(vec) *)(c + c_row[i] + j * LANES) : (NAME(vec)){0};
    for (ptrdiff_t s = 0; s < segments; s++) {
        const T *panel = b + segment[s].b * ldb;
        UNROLL for (int i = 0; i < rows; i++) row[i] = a + a_row[i] + segment[s].a;
        ptrdiff_t at = 0;
        for (ptrdiff_t k = segment[s].k; k > 0; k--, at += step, panel += ldb) {
            NAME(vec) w[FC_MAX_VECTORS];
            UNROLL for (int j = 0; j < vectors; j++) w[j] = *(const NAME(vec) *)(panel + j * LANES);
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++)
                    acc[i][j] += *(const NAME(vec) *)(row[i] + at + j * LANES) * w[j];
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) *(NAME(vec) *)(c + c_row[i] + j * LANES) = acc[i][j];
}

#define LANE(rows, vectors)                                                                                         \
    static void NAME(lane_##vectors##_##rows)(const void *a, const ptrdiff_t *a_row, ptrdiff_t step, const void *b,  \
                                              ptrdiff_t ldb, const fc_segment *segment, ptrdiff_t segments, void *c, \
                                              const ptrdiff_t *c_row, int accumulate) {                              \
        NAME(lane_tile)(rows, vectors, a, a_row, step, b, ldb, segment, segments, c, c_row, accumulate);             \
    }
#define LANE_6(v) LANE(1, v) LANE(2, v) LANE(3, v) LANE(4, v) LANE(5, v) LANE(6, v)
#define LANE_12(v) LANE_6(v) LANE(7, v) LANE(8, v) LANE(9, v) LANE(10, v) LANE(11, v) LANE(12, v)
#define LANE_ROW_6(v)                                                                                               \
    NAME(lane_##v##_1), NAME(lane_##v##_2), NAME(lane_##v##_3), NAME(lane_##v##_4), NAME(lane_##v##_5),              \
        NAME(lane_##v##_6)
#define LANE_ROW_12(v)                                                                                              \
    LANE_ROW_6(v), NAME(lane_##v##_7), NAME(lane_##v##_8), NAME(lane_##v##_9), NAME(lane_##v##_10),                  \
        NAME(lane_##v##_11), NAME(lane_##v##_12)

#define UNROLL_WINDOW _Pragma("GCC unroll 20")

/* The `pixels` outputs of a row, `taps` adjacent taps a segment: every input vector is loaded once a segment. */
static inline __attribute__((always_inline)) void NAME(window_tile)(
    const int pixels, const int taps, const int stride, const int vectors, const T *a, ptrdiff_t column, const T *b,
    ptrdiff_t ldb, const fc_segment *segment, ptrdiff_t segments, T *c, ptrdiff_t c_column) {
    NAME(vec) acc[FC_WINDOW][2];
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int j = 0; j < vectors; j++) acc[p][j] = (NAME(vec)){0};
    for (ptrdiff_t s = 0; s < segments; s++) {
        const T *in = a + segment[s].a, *panel = b + segment[s].b * ldb;
        NAME(vec) w[5][2];
        UNROLL for (int t = 0; t < taps; t++)
            UNROLL for (int j = 0; j < vectors; j++) w[t][j] = *(const NAME(vec) *)(panel + t * ldb + j * LANES);
        UNROLL_WINDOW for (int u = 0; u < (pixels - 1) * stride + taps; u++, in += column)
            UNROLL for (int j = 0; j < vectors; j++) {
                NAME(vec) x = *(const NAME(vec) *)(in + j * LANES);
                UNROLL for (int t = 0; t < taps; t++)
                    if (u >= t && (u - t) % stride == 0 && (u - t) / stride < pixels)
                        acc[(u - t) / stride][j] += x * w[t][j];
            }
    }
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int j = 0; j < vectors; j++) *(NAME(vec) *)(c + p * c_column + j * LANES) = acc[p][j];
}

/* sums[i][t][:] += sum over segments and k of x[row[i] + seg.a + (k*stride + t)*column + :] * dy[(seg.b + k)*ldb + :],
   the weight gradients of tap_rows x taps adjacent taps, `pixels` gradients of the output at a time. */
static inline __attribute__((always_inline)) void NAME(window_gradient_tile)(
    const int tap_rows, const int taps, const int stride, const int pixels, const T *x, const ptrdiff_t *x_row,
    ptrdiff_t column, const T *dy, ptrdiff_t ldb, const fc_segment *segment, ptrdiff_t segments, T *sums,
    const ptrdiff_t *sums_row, ptrdiff_t tap) {
    NAME(vec) acc[3][5];
    UNROLL for (int i = 0; i < tap_rows; i++)
        UNROLL for (int t = 0; t < taps; t++) acc[i][t] = *(const NAME(vec) *)(sums + sums_row[i] + t * tap);
    for (ptrdiff_t s = 0; s < segments; s++) {
        const T *in[3], *g = dy + segment[s].b * ldb;
        UNROLL for (int i = 0; i < tap_rows; i++) in[i] = x + x_row[i] + segment[s].a;
        ptrdiff_t k = segment[s].k, at = 0;
        for (; k >= pixels; k -= pixels, g += pixels * ldb) {
            NAME(vec) d[FC_WINDOW];
            UNROLL for (int p = 0; p < pixels; p++) d[p] = *(const NAME(vec) *)(g + p * ldb);
            ptrdiff_t next = at;
            UNROLL_WINDOW for (int u = 0; u < (pixels - 1) * stride + taps; u++, next += column)
                UNROLL for (int i = 0; i < tap_rows; i++) {
                    NAME(vec) v = *(const NAME(vec) *)(in[i] + next);
                    UNROLL for (int t = 0; t < taps; t++)
                        if (u >= t && (u - t) % stride == 0 && (u - t) / stride < pixels)
                            acc[i][t] += v * d[(u - t) / stride];
                }
            at += pixels * stride * column;
        }
        for (; k > 0; k--, g += ldb, at += stride * column) {
            NAME(vec) d = *(const NAME(vec) *)g;
            UNROLL for (int i = 0; i < tap_rows; i++)
                UNROLL for (int t = 0; t < taps; t++) acc[i][t] += *(const NAME(vec) *)(in[i] + at + t * column) * d;
        }
    }
    UNROLL for (int i = 0; i < tap_rows; i++)
        UNROLL for (int t = 0; t < taps; t++) *(NAME(vec) *)(sums + sums_row[i] + t * tap) = acc[i][t];
}

#define WINDOW(pixels, taps, stride, vectors)                                                                       \
    static void NAME(window_##taps##_##stride##_##pixels)(                                                           \
        const void *a, ptrdiff_t column, const void *b, ptrdiff_t ldb, const fc_segment *segment,                    \
        ptrdiff_t segments, void *c, ptrdiff_t c_column) {                                                           \
        NAME(window_tile)(pixels, taps, stride, vectors, a, column, b, ldb, segment, segments, c, c_column);         \
    }
#define WINDOW_GRADIENT(tap_rows, taps, stride, pixels)                                                             \
    static void NAME(gradient_##taps##_##stride##_##tap_rows)(                                                       \
        const void *x, const ptrdiff_t *x_row, ptrdiff_t column, const void *dy, ptrdiff_t ldb,                      \
        const fc_segment *segment, ptrdiff_t segments, void *sums, const ptrdiff_t *sums_row, ptrdiff_t tap) {       \
        NAME(window_gradient_tile)(tap_rows, taps, stride, pixels, x, x_row, column, dy, ldb, segment, segments,     \
                                   sums, sums_row, tap);                                                             \
    }
#if VECTORS == 4
LANE_12(1) LANE_12(2)
#define LANES_TABLE {{0}, {0, LANE_ROW_12(1)}, {0, LANE_ROW_12(2)}}
#define WINDOW_VECTORS 2
#define GRADIENT_PIXELS 8
#else
LANE_12(1)
#define LANES_TABLE {{0}, {0, LANE_ROW_12(1)}}
#define WINDOW_VECTORS 1
#define GRADIENT_PIXELS 4
#endif

#if IS_FLOAT
#define WINDOW_PAIR(taps, stride) WINDOW(8, taps, stride, WINDOW_VECTORS) WINDOW(4, taps, stride, WINDOW_VECTORS)
WINDOW_PAIR(2, 1) WINDOW_PAIR(3, 1) WINDOW_PAIR(3, 2) WINDOW_PAIR(5, 1) WINDOW_PAIR(5, 2)
WINDOW_GRADIENT(1, 3, 1, GRADIENT_PIXELS) WINDOW_GRADIENT(2, 3, 1, GRADIENT_PIXELS)
WINDOW_GRADIENT(3, 3, 1, GRADIENT_PIXELS) WINDOW_GRADIENT(1, 3, 2, GRADIENT_PIXELS)
WINDOW_GRADIENT(2, 3, 2, GRADIENT_PIXELS) WINDOW_GRADIENT(3, 3, 2, GRADIENT_PIXELS)
WINDOW_GRADIENT(1, 5, 1, GRADIENT_PIXELS) WINDOW_GRADIENT(2, 5, 1, GRADIENT_PIXELS)
WINDOW_GRADIENT(1, 5, 2, GRADIENT_PIXELS) WINDOW_GRADIENT(2, 5, 2, GRADIENT_PIXELS)
#define WINDOW_ENTRY(taps, stride) {NAME(window_##taps##_##stride##_4), NAME(window_##taps##_##stride##_8)}
#define GRADIENT_ENTRY(taps, stride) {0, NAME(gradient_##taps##_##stride##_1), NAME(gradient_##taps##_##stride##_2)}
#define WINDOWS                                                                                                     \
    .window = {[2] = {{0}, WINDOW_ENTRY(2, 1)},                                                                      \
               [3] = {{0}, WINDOW_ENTRY(3, 1), WINDOW_ENTRY(3, 2)},                                                  \
               [5] = {{0}, WINDOW_ENTRY(5, 1), WINDOW_ENTRY(5, 2)}},                                                 \
    .window_gradient = {                                                                                             \
        [3] = {{0},                                                                                                  \
               {0, NAME(gradient_3_1_1), NAME(gradient_3_1_2), NAME(gradient_3_1_3)},                                \
               {0, NAME(gradient_3_2_1), NAME(gradient_3_2_2), NAME(gradient_3_2_3)}},                               \
        [5] = {{0}, GRADIENT_ENTRY(5, 1), GRADIENT_ENTRY(5, 2)}},
#else
#define WINDOWS
#endif

/* dst[p][i][:] = src[p][from[i] + index[i][:]]: the inputs of every lane, where groups share a vector. A vector whose
   lanes read from more than two vectors is gathered one by one. */
static void NAME(spread)(void *dst, const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t count,
                         const ptrdiff_t *from, const void *index) {
    typedef INDEX NAME(indices) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
    for (ptrdiff_t i = 0; i < count; i++) {
        const INDEX *lane = (const INDEX *)index + i * LANES;
        const T *in = (const T *)src + from[i];
        T *out = (T *)dst + i * LANES;
#if defined(__GNUC__) && !defined(__clang__)
        INDEX most = 0;
        for (int l = 0; l < LANES; l++) most = lane[l] > most ? lane[l] : most;
        if (most < 2 * LANES) {
            NAME(indices) pick = *(const NAME(indices) *)lane;
            if (most < LANES)
                for (ptrdiff_t p = 0; p < pixels; p++, in += lds, out += count * LANES)
                    *(NAME(vec) *)out = __builtin_shuffle(*(const NAME(vec) *)in, pick);
            else
                for (ptrdiff_t p = 0; p < pixels; p++, in += lds, out += count * LANES)
                    *(NAME(vec) *)out = __builtin_shuffle(*(const NAME(vec) *)in, *(const NAME(vec) *)(in + LANES), pick);
            continue;
        }
#endif
        for (ptrdiff_t p = 0; p < pixels; p++, in += lds, out += count * LANES)
            for (int l = 0; l < LANES; l++) out[l] = in[lane[l]];
    }
}

#define DEPTHWISE .lane_vectors = WINDOW_VECTORS, .lane = LANES_TABLE, WINDOWS .spread = NAME(spread),
