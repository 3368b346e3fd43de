/* Kernels in which every lane is an output channel with inputs of its own: depthwise and grouped convolution. Included
   by compute.h once a type. The sums of all of them run in the order of the segments, so their bits agree.

   A multiply-add of these kernels takes one vector of input where the direct register tile takes one number: loads, not
   multiply-adds, are the limit, twice so where NumPy's arrays lie across cache lines. So the window kernels keep a row
   of input vectors in use for all taps that meet it.

   With `picked`, a group's channels are picked out of the vector read, by a permutation a channel: groups share a vector,
   or are whole vectors, and the input is neither spread nor copied for every lane. */

#if IS_FLOAT && defined(__AVX2__) && !defined(__clang__)
#define PICKS 1
typedef INDEX NAME(indices) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
#define PICK_OF(segment) NAME(indices) pick = picked ? *(const NAME(indices) *)(segment).pick : (NAME(indices)){0}
#define READ_LANES(p) (picked ? __builtin_shuffle(*(const NAME(vec) *)(p), pick) : *(const NAME(vec) *)(p))
#else
#define PICKS 0
#define PICK_OF(segment) (void)picked
#define READ_LANES(p) (*(const NAME(vec) *)(p))
#endif

/* c[i][:] (+)= sum over segments and k of a[row[i] + seg.a + k*step + :] * b[(seg.b + k)*ldb + :], then + bias[:] where it
   is not NULL, and relu where asked for. */
static inline __attribute__((always_inline)) void NAME(lane_tile)(
    const int rows, const int vectors, const int picked, const T *a, const ptrdiff_t *a_row, ptrdiff_t step,
    ptrdiff_t next, const T *b, ptrdiff_t ldb, const fc_segment *segment, ptrdiff_t segments, T *c,
    const ptrdiff_t *c_row, int accumulate, const T *bias, int relu) {
    NAME(vec) acc[FC_MAX_ROWS][FC_MAX_VECTORS];
    const T *row[FC_MAX_ROWS];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++)
            acc[i][j] = accumulate ? *(const NAME(vec) *)(c + c_row[i] + j * LANES) : (NAME(vec)){0};
    for (ptrdiff_t s = 0; s < segments; s++) {
        const T *panel = b + segment[s].b * ldb;
        PICK_OF(segment[s]);
        UNROLL for (int i = 0; i < rows; i++) row[i] = a + a_row[i] + segment[s].a;
        ptrdiff_t at = 0;
        for (ptrdiff_t k = segment[s].k; k > 0; k--, at += step, panel += ldb) {
            NAME(vec) w[FC_MAX_VECTORS];
            UNROLL for (int j = 0; j < vectors; j++) w[j] = *(const NAME(vec) *)(panel + j * LANES);
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++)
                    acc[i][j] += READ_LANES(row[i] + at + j * next) * w[j];
        }
    }
    UNROLL for (int j = 0; j < vectors; j++) {
        NAME(vec) shift = bias ? *(const NAME(vec) *)(bias + j * LANES) : (NAME(vec)){0};
        UNROLL for (int i = 0; i < rows; i++) {
            if (bias) acc[i][j] += shift;
            *(NAME(vec) *)(c + c_row[i] + j * LANES) = relu ? NAME(relu)(acc[i][j]) : acc[i][j];
        }
    }
}

#define LANE(kind, picked, rows, vectors)                                                                            \
    static void NAME(kind##_##vectors##_##rows)(const void *a, const ptrdiff_t *a_row, ptrdiff_t step,               \
                                                ptrdiff_t next, const void *b, ptrdiff_t ldb,                        \
                                                const fc_segment *segment, ptrdiff_t segments, void *c,              \
                                                const ptrdiff_t *c_row, int accumulate, const void *bias,            \
                                                int relu) {                                                          \
        NAME(lane_tile)(rows, vectors, picked, a, a_row, step, next, b, ldb, segment, segments, c, c_row,            \
                        accumulate, bias, relu);                                                                     \
    }
#define LANE_6(k, p, v) LANE(k, p, 1, v) LANE(k, p, 2, v) LANE(k, p, 3, v) LANE(k, p, 4, v) LANE(k, p, 5, v)         \
    LANE(k, p, 6, v)
#define LANE_12(k, p, v) LANE_6(k, p, v) LANE(k, p, 7, v) LANE(k, p, 8, v) LANE(k, p, 9, v) LANE(k, p, 10, v)        \
    LANE(k, p, 11, v) LANE(k, p, 12, v)
#define LANE_ROW_6(k, v)                                                                                            \
    NAME(k##_##v##_1), NAME(k##_##v##_2), NAME(k##_##v##_3), NAME(k##_##v##_4), NAME(k##_##v##_5), NAME(k##_##v##_6)
#define LANE_ROW_12(k, v)                                                                                           \
    LANE_ROW_6(k, v), NAME(k##_##v##_7), NAME(k##_##v##_8), NAME(k##_##v##_9), NAME(k##_##v##_10),                   \
        NAME(k##_##v##_11), NAME(k##_##v##_12)

/* The `pixels` outputs of a row, `taps` adjacent taps a segment: every input vector is loaded once a segment. */
static inline __attribute__((always_inline)) void NAME(window_tile)(
    const int pixels, const int taps, const int stride, const int vectors, const int picked, const T *a,
    ptrdiff_t column, ptrdiff_t next, const T *b, ptrdiff_t ldb, const fc_segment *segment, ptrdiff_t segments, T *c,
    ptrdiff_t c_column, const T *bias, int relu) {
    NAME(vec) acc[FC_WINDOW][2];
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int j = 0; j < vectors; j++)
            acc[p][j] = (NAME(vec)){0};
    for (ptrdiff_t s = 0; s < segments; s++) {
        const T *in = a + segment[s].a, *panel = b + segment[s].b * ldb;
        NAME(vec) w[5][2];
        PICK_OF(segment[s]);
        UNROLL for (int t = 0; t < taps; t++)
            UNROLL for (int j = 0; j < vectors; j++) w[t][j] = *(const NAME(vec) *)(panel + t * ldb + j * LANES);
        UNROLL_WINDOW for (int u = 0; u < (pixels - 1) * stride + taps; u++, in += column)
            UNROLL for (int j = 0; j < vectors; j++) {
                NAME(vec) x = READ_LANES(in + j * next);
                UNROLL for (int t = 0; t < taps; t++)
                    if (u >= t && (u - t) % stride == 0 && (u - t) / stride < pixels)
                        acc[(u - t) / stride][j] += x * w[t][j];
            }
    }
    UNROLL for (int j = 0; j < vectors; j++) {
        NAME(vec) shift = bias ? *(const NAME(vec) *)(bias + j * LANES) : (NAME(vec)){0};
        UNROLL for (int p = 0; p < pixels; p++) {
            if (bias) acc[p][j] += shift;
            *(NAME(vec) *)(c + p * c_column + j * LANES) = relu ? NAME(relu)(acc[p][j]) : acc[p][j];
        }
    }
}

/* Of a vector that begins with channels of the pixel before, at stride 2: an output finds their inputs two pixels before its
   others', which is the vector before the one that has those. */
#if IS_FLOAT && defined(__AVX512F__)
#define SHARES 1
#define LANES_BEFORE(at) _mm512_movm_epi8((1ull << (at)->before * sizeof(T)) - 1)
#define SHARED_OF(lanes, before, x) (NAME(vec))_mm512_ternarylogic_epi32(lanes, (__m512i)(before), (__m512i)(x), 0xca)
#define LANE_MASK __m512i
#else
#define SHARES 0
#define LANES_BEFORE(at) 0
#define SHARED_OF(lanes, before, x) ((void)(lanes), (void)(before), (x))
#define LANE_MASK int
#endif

/* A patch of rows x columns outputs under at->planes of taps_y x taps_x adjacent taps, for `vectors` vectors of channels,
   one after the other: every input vector is loaded once a patch. Rows and columns of the input outside row_lo ..
   row_hi - 1 and col_lo .. col_hi - 1 are padding: their taps are skipped. No columns but the first and last taps_x - 1
   may be so. */
static inline __attribute__((always_inline)) void NAME(patch_tile)(
    const int rows, const int columns, const int taps_y, const int taps_x, const int stride, const int shared, const T *a,
    const T *b, T *c, const T *bias, ptrdiff_t vectors, const fc_patch_at *at) {
    enum { HELD = VECTORS == 4 ? 9 : 6 }; /* weights that registers hold beside a patch */
    const ptrdiff_t a_y = at->a_y, a_x = at->a_x, c_y = at->c_y, c_x = at->c_x, b_y = at->b_y, b_x = at->b_x;
    const ptrdiff_t row_lo = at->row_lo, row_hi = at->row_hi, col_lo = at->col_lo, col_hi = at->col_hi;
    const int across = (columns - 1) * stride + taps_x, down = (rows - 1) * stride + taps_y;
    const LANE_MASK lanes_before = shared ? LANES_BEFORE(at) : (LANE_MASK){0};
    for (; vectors > 0; vectors--, a += LANES, b += LANES, c += LANES) {
        NAME(vec) acc[4][FC_WINDOW], w[25];
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int p = 0; p < columns; p++)
                acc[r][p] = (NAME(vec)){0};
        const T *plane = a, *panel = b;
        for (ptrdiff_t z = at->planes; z > 0; z--, plane += at->a_z, panel += at->b_z) {
            if (taps_y * taps_x <= HELD)
                UNROLL for (int t = 0; t < taps_y * taps_x; t++)
                    w[t] = *(const NAME(vec) *)(panel + t / taps_x * b_y + t % taps_x * b_x);
            const T *row = plane;
            UNROLL for (int i = 0; i < down; i++, row += a_y) {
                if (i < row_lo || i >= row_hi) continue;
                const T *in = row;
                if (taps_y * taps_x > HELD)
                    UNROLL for (int r = 0; r < rows; r++)
                        if (i - r * stride >= 0 && i - r * stride < taps_y)
                            UNROLL for (int t = 0; t < taps_x; t++)
                                w[(i - r * stride) * taps_x + t] =
                                    *(const NAME(vec) *)(panel + (i - r * stride) * b_y + t * b_x);
                NAME(vec) last = (NAME(vec)){0};
                if (shared) last = *(const NAME(vec) *)(in - a_x);
                UNROLL_WINDOW for (int u = 0; u < across; u++, in += a_x) {
                    if (!shared && u < taps_x - 1 && u < col_lo) continue;
                    if (!shared && u > across - taps_x && u >= col_hi) continue;
                    NAME(vec) x = *(const NAME(vec) *)in;
                    if (shared) {
                        NAME(vec) own = x;
                        x = SHARED_OF(lanes_before, last, own);
                        last = own;
                    }
                    UNROLL for (int r = 0; r < rows; r++)
                        UNROLL for (int t = 0; t < taps_x; t++)
                            if (i - r * stride >= 0 && i - r * stride < taps_y && u >= t && (u - t) % stride == 0 &&
                                (u - t) / stride < columns)
                                acc[r][(u - t) / stride] += x * w[(i - r * stride) * taps_x + t];
                }
            }
        }
        if (bias) {
            NAME(vec) shift = *(const NAME(vec) *)bias;
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int p = 0; p < columns; p++) acc[r][p] += shift;
            bias += LANES;
        }
        if (at->activation != FC_LINEAR)
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int p = 0; p < columns; p++) acc[r][p] = NAME(relu)(acc[r][p]);
        if (at->activation == FC_RELU6)
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int p = 0; p < columns; p++) acc[r][p] = NAME(at_most_six)(acc[r][p]);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int p = 0; p < columns; p++) *(NAME(vec) *)(c + r * c_y + p * c_x) = acc[r][p];
    }
}

#define PATCH(rows, columns, taps_y, taps_x, stride)                                                                 \
    static void NAME(patch_##taps_y##taps_x##_##stride##_##rows##_##columns)(                                         \
        const void *a, const void *b, void *c, const void *bias, ptrdiff_t vectors, const fc_patch_at *at) {         \
        NAME(patch_tile)(rows, columns, taps_y, taps_x, stride, 0, a, b, c, bias, vectors, at);                      \
    }
#if SHARES
#define SHARED(rows, columns, taps_y, taps_x, stride)                                                                \
    static void NAME(shared_##taps_y##taps_x##_##stride##_##rows##_##columns)(                                        \
        const void *a, const void *b, void *c, const void *bias, ptrdiff_t vectors, const fc_patch_at *at) {         \
        NAME(patch_tile)(rows, columns, taps_y, taps_x, stride, 1, a, b, c, bias, vectors, at);                      \
    }
SHARED(1, 4, 3, 3, 2) SHARED(2, 4, 3, 3, 2) SHARED(4, 4, 3, 3, 2) SHARED(1, 7, 3, 3, 2) SHARED(2, 7, 3, 3, 2)
SHARED(1, 8, 5, 5, 2) SHARED(2, 8, 5, 5, 2) SHARED(1, 7, 5, 5, 2) SHARED(2, 7, 5, 5, 2)
#undef SHARED
#define PATCHES_SHARED                                                                                              \
    .patch[3][3][2][0].shared = {0, NAME(shared_33_2_1_4), NAME(shared_33_2_2_4), 0, NAME(shared_33_2_4_4)},          \
    .patch[3][3][2][1].shared = {0, NAME(shared_33_2_1_7), NAME(shared_33_2_2_7)},                                    \
    .patch[5][5][2][0].shared = {0, NAME(shared_55_2_1_8), NAME(shared_55_2_2_8)},                                    \
    .patch[5][5][2][1].shared = {0, NAME(shared_55_2_1_7), NAME(shared_55_2_2_7)},
#else
#define PATCHES_SHARED
#endif
#define PATCH_2(columns, y, x, s) PATCH(1, columns, y, x, s) PATCH(2, columns, y, x, s)
#define PATCH_ENTRY_2(n, y, x, s)                                                                                   \
    {.columns = n, .rows = 2, .run = {0, NAME(patch_##y##x##_##s##_1_##n), NAME(patch_##y##x##_##s##_2_##n)}}
#if VECTORS == 4 /* 16 sums and 9 weights of 32 registers; 14 or 16 sums and the weights of two rows */
#define PATCH_3(y, x, s) PATCH_2(4, y, x, s) PATCH(4, 4, y, x, s) PATCH_2(7, y, x, s)
#define PATCH_ENTRY_3(y, x, s)                                                                                      \
    {{.columns = 4, .rows = 4, .run = {0, NAME(patch_##y##x##_##s##_1_4), NAME(patch_##y##x##_##s##_2_4), 0,          \
                                       NAME(patch_##y##x##_##s##_4_4)}},                                             \
     PATCH_ENTRY_2(7, y, x, s)}
#define PATCH_5(s) PATCH_2(7, 5, 5, s) PATCH_2(8, 5, 5, s)
#define PATCH_ENTRY_5(s) {PATCH_ENTRY_2(8, 5, 5, s), PATCH_ENTRY_2(7, 5, 5, s)}
#else
#define PATCH_3(y, x, s) PATCH_2(4, y, x, s)
#define PATCH_ENTRY_3(y, x, s) {PATCH_ENTRY_2(4, y, x, s)}
#define PATCH_5(s) PATCH_2(4, 5, 5, s)
#define PATCH_ENTRY_5(s) {PATCH_ENTRY_2(4, 5, 5, s)}
#endif

/* sums[i][t][:] += sum over segments and k of x[row[i] + seg.a + (k*stride + t)*column + :] * dy[(seg.b + k)*ldb + :],
   the weight gradients of tap_rows x taps adjacent taps, `pixels` gradients of the output at a time. */
static inline __attribute__((always_inline)) void NAME(window_gradient_tile)(
    const int tap_rows, const int taps, const int stride, const int pixels, const int picked, const T *x,
    const ptrdiff_t *x_row, ptrdiff_t column, const T *dy, ptrdiff_t ldb, const fc_segment *segment,
    ptrdiff_t segments, T *sums, const ptrdiff_t *sums_row, ptrdiff_t tap) {
    NAME(vec) acc[3][5];
    PICK_OF(segment[0]);
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
                    NAME(vec) v = READ_LANES(in[i] + next);
                    UNROLL for (int t = 0; t < taps; t++)
                        if (u >= t && (u - t) % stride == 0 && (u - t) / stride < pixels)
                            acc[i][t] += v * d[(u - t) / stride];
                }
            at += pixels * stride * column;
        }
        for (; k > 0; k--, g += ldb, at += stride * column) {
            NAME(vec) d = *(const NAME(vec) *)g;
            UNROLL for (int i = 0; i < tap_rows; i++)
                UNROLL for (int t = 0; t < taps; t++) acc[i][t] += READ_LANES(in[i] + at + t * column) * d;
        }
    }
    UNROLL for (int i = 0; i < tap_rows; i++)
        UNROLL for (int t = 0; t < taps; t++) *(NAME(vec) *)(sums + sums_row[i] + t * tap) = acc[i][t];
}

#define WINDOW(kind, picked, pixels, taps, stride)                                                                   \
    static void NAME(kind##_##taps##_##stride##_##pixels)(                                                           \
        const void *a, ptrdiff_t column, ptrdiff_t next, const void *b, ptrdiff_t ldb, const fc_segment *segment,    \
        ptrdiff_t segments, void *c, ptrdiff_t c_column, const void *bias, int relu) {                               \
        NAME(window_tile)(pixels, taps, stride, WINDOW_VECTORS, picked, a, column, next, b, ldb, segment, segments,  \
                          c, c_column, bias, relu);                                                                  \
    }
#define WINDOW_GRADIENT(kind, picked, tap_rows, taps, stride)                                                       \
    static void NAME(kind##_##taps##_##stride##_##tap_rows)(                                                         \
        const void *x, const ptrdiff_t *x_row, ptrdiff_t column, const void *dy, ptrdiff_t ldb,                      \
        const fc_segment *segment, ptrdiff_t segments, void *sums, const ptrdiff_t *sums_row, ptrdiff_t tap) {       \
        NAME(window_gradient_tile)(tap_rows, taps, stride, GRADIENT_PIXELS, picked, x, x_row, column, dy, ldb,       \
                                   segment, segments, sums, sums_row, tap);                                          \
    }
#if VECTORS == 4
#define LANES_12(k, p) LANE_12(k, p, 1) LANE_12(k, p, 2)
#define LANES_TABLE(k) .lane = {{0}, {0, LANE_ROW_12(k, 1)}, {0, LANE_ROW_12(k, 2)}}
#define WINDOW_VECTORS 2
#define GRADIENT_PIXELS 8
#else
#define LANES_12(k, p) LANE_12(k, p, 1)
#define LANES_TABLE(k) .lane = {{0}, {0, LANE_ROW_12(k, 1)}}
#define WINDOW_VECTORS 1
#define GRADIENT_PIXELS 4
#endif
#define WINDOW_PAIR(k, p, taps, stride) WINDOW(k, p, 8, taps, stride) WINDOW(k, p, 4, taps, stride)
#define WINDOW_ENTRY(k, taps, stride) {NAME(k##_##taps##_##stride##_4), NAME(k##_##taps##_##stride##_8)}
#define GRADIENT_TRIPLE(k, p, taps, stride)                                                                         \
    WINDOW_GRADIENT(k, p, 1, taps, stride) WINDOW_GRADIENT(k, p, 2, taps, stride)                                    \
    WINDOW_GRADIENT(k, p, 3, taps, stride)
#define GRADIENT_ENTRY_2(k, taps, stride)                                                                           \
    {0, NAME(k##_##taps##_##stride##_1), NAME(k##_##taps##_##stride##_2)}
#define GRADIENT_ENTRY_3(k, taps, stride)                                                                           \
    {0, NAME(k##_##taps##_##stride##_1), NAME(k##_##taps##_##stride##_2), NAME(k##_##taps##_##stride##_3)}

LANES_12(lane, 0)
#if IS_FLOAT
#include "strips.h"
#include "flat.h"
#include "shifted.h"
WINDOW_PAIR(window, 0, 2, 1) WINDOW_PAIR(window, 0, 3, 1) WINDOW_PAIR(window, 0, 3, 2)
WINDOW_PAIR(window, 0, 5, 1) WINDOW_PAIR(window, 0, 5, 2)
PATCH_3(3, 3, 1) PATCH_3(3, 3, 2) PATCH_5(1) PATCH_5(2)
/* the phases of an input gradient at stride 2 */
PATCH_3(1, 1, 1) PATCH_3(1, 2, 1) PATCH_3(2, 1, 1) PATCH_3(2, 2, 1) PATCH_3(2, 3, 1) PATCH_3(3, 2, 1)
#define PATCHES                                                                                                     \
    .patch = {[1] = {[1] = {[1] = PATCH_ENTRY_3(1, 1, 1)}, [2] = {[1] = PATCH_ENTRY_3(1, 2, 1)}},                    \
              [2] = {[1] = {[1] = PATCH_ENTRY_3(2, 1, 1)}, [2] = {[1] = PATCH_ENTRY_3(2, 2, 1)},                     \
                     [3] = {[1] = PATCH_ENTRY_3(2, 3, 1)}},                                                          \
              [3] = {[2] = {[1] = PATCH_ENTRY_3(3, 2, 1)}, [3] = {[1] = PATCH_ENTRY_3(3, 3, 1),                      \
                                                                 [2] = PATCH_ENTRY_3(3, 3, 2)}},                     \
              [5] = {[5] = {[1] = PATCH_ENTRY_5(1), [2] = PATCH_ENTRY_5(2)}}},                                       \
    PATCHES_SHARED STRIP_TABLE FLAT SHIFTED_TABLE .phases = NAME(phases),
GRADIENT_TRIPLE(gradient, 0, 3, 1) GRADIENT_TRIPLE(gradient, 0, 3, 2)
WINDOW_GRADIENT(gradient, 0, 1, 5, 1) WINDOW_GRADIENT(gradient, 0, 2, 5, 1)
WINDOW_GRADIENT(gradient, 0, 1, 5, 2) WINDOW_GRADIENT(gradient, 0, 2, 5, 2)
#define WINDOWS                                                                                                     \
    , .window = {[2] = {{0}, WINDOW_ENTRY(window, 2, 1)},                                                            \
                 [3] = {{0}, WINDOW_ENTRY(window, 3, 1), WINDOW_ENTRY(window, 3, 2)},                                \
                 [5] = {{0}, WINDOW_ENTRY(window, 5, 1), WINDOW_ENTRY(window, 5, 2)}},                               \
    .window_gradient = {[3] = {{0}, GRADIENT_ENTRY_3(gradient, 3, 1), GRADIENT_ENTRY_3(gradient, 3, 2)},             \
                        [5] = {{0}, GRADIENT_ENTRY_2(gradient, 5, 1), GRADIENT_ENTRY_2(gradient, 5, 2)}}
#else
#define WINDOWS
#define PATCHES
#endif
#if PICKS
LANES_12(pick_lane, 1)
WINDOW_PAIR(pick_window, 1, 2, 1) WINDOW_PAIR(pick_window, 1, 3, 1) WINDOW_PAIR(pick_window, 1, 3, 2)
GRADIENT_TRIPLE(pick_gradient, 1, 3, 1) GRADIENT_TRIPLE(pick_gradient, 1, 3, 2)
GRADIENT_TRIPLE(pick_gradient, 1, 2, 1) GRADIENT_TRIPLE(pick_gradient, 1, 2, 2)
#define PICKING                                                                                                     \
    , {LANES_TABLE(pick_lane),                                                                                       \
       .window = {[2] = {{0}, WINDOW_ENTRY(pick_window, 2, 1)},                                                      \
                  [3] = {{0}, WINDOW_ENTRY(pick_window, 3, 1), WINDOW_ENTRY(pick_window, 3, 2)}},                    \
       .window_gradient = {                                                                                          \
           [2] = {{0}, GRADIENT_ENTRY_3(pick_gradient, 2, 1), GRADIENT_ENTRY_3(pick_gradient, 2, 2)},                \
           [3] = {{0}, GRADIENT_ENTRY_3(pick_gradient, 3, 1), GRADIENT_ENTRY_3(pick_gradient, 3, 2)}}}
#else
#define PICKING
#endif

/* dst[p][i][:] = src[p][from[i] + index[i][:]]: the inputs of every lane, where groups share a vector. A vector whose
   lanes read from more than two vectors is gathered one by one. */
static void NAME(spread)(void *dst, const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t count,
                         const ptrdiff_t *from, const void *index) {
    for (ptrdiff_t i = 0; i < count; i++) {
        const INDEX *lane = (const INDEX *)index + i * LANES;
        const T *in = (const T *)src + from[i];
        T *out = (T *)dst + i * LANES;
#if defined(__GNUC__) && !defined(__clang__)
        typedef INDEX NAME(spread_indices)
            __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
        INDEX most = 0;
        for (int l = 0; l < LANES; l++) most = lane[l] > most ? lane[l] : most;
        if (most < 2 * LANES) {
            NAME(spread_indices) pick = *(const NAME(spread_indices) *)lane;
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

#define BY_LANE                                                                                                   \
    .lane_vectors = WINDOW_VECTORS, .picks = PICKS, .by_lane = {{LANES_TABLE(lane) WINDOWS} PICKING},                \
    PATCHES .spread = NAME(spread),
