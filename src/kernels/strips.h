/* Strips: outputs of a row of a depthwise convolution under any number of taps, a lane a channel. All sums stay in
   registers for all taps, in the order (tap z, tap y, tap x); taps over padding are skipped. Included by lanes.h. */

#ifndef STRIP_TAPS
#define STRIP_TAPS (VECTORS == 4 ? 8 : 5) /* weights that registers hold beside the sums */
#define WALKED(p) __asm__("" : "+r"(p))   /* one address after the other: all of a block at once take registers */
#if defined(__clang__)
#define UNROLL_STRIP UNROLL
#else
#define UNROLL_STRIP _Pragma("GCC unroll 24")
#endif
#endif

/* Adjacent taps of a row: every input vector is loaded once for all outputs that meet it. */
static inline __attribute__((always_inline)) void NAME(strip_block)(
    const int outputs, const int stride, const int taps, const int shared, const LANE_MASK lanes_before, const T *in,
    ptrdiff_t a_x, const T *b, ptrdiff_t b_x, uint32_t inside, NAME(vec) *acc) {
    NAME(vec) w[STRIP_TAPS];
    UNROLL for (int t = 0; t < taps; t++, b += b_x) {
        WALKED(b);
        w[t] = *(const NAME(vec) *)b;
    }
    NAME(vec) last = (NAME(vec)){0};
    if (shared) last = *(const NAME(vec) *)(in - a_x);
    UNROLL_STRIP for (int u = 0; u < (outputs - 1) * stride + taps; u++, in += a_x) {
        WALKED(in);
        if (!shared && !(inside >> u & 1)) continue;
        NAME(vec) x = *(const NAME(vec) *)in;
        if (shared) {
            NAME(vec) own = x;
            x = SHARED_OF(lanes_before, last, own);
            last = own;
        }
        UNROLL for (int t = 0; t < taps; t++)
            if (u >= t && (u - t) % stride == 0 && (u - t) / stride < outputs) acc[(u - t) / stride] += x * w[t];
    }
}

/* A tap of outputs whose columns lie apart. */
static inline __attribute__((always_inline)) void NAME(strip_tap)(const int outputs, const T *in, ptrdiff_t a_p,
                                                                  const T *b, uint32_t inside, NAME(vec) *acc) {
    const NAME(vec) w = *(const NAME(vec) *)b;
    if (inside == (1u << outputs) - 1) {
        UNROLL for (int p = 0; p < outputs; p++) acc[p] += *(const NAME(vec) *)(in + p * a_p) * w;
        return;
    }
    UNROLL for (int p = 0; p < outputs; p++)
        if (inside >> p & 1) acc[p] += *(const NAME(vec) *)(in + p * a_p) * w;
}

/* `stride` 0: apart. */
static inline __attribute__((always_inline)) void NAME(strip_tile)(
    const int outputs, const int stride, const int shared, const T *a, const T *b, T *c, const T *bias,
    ptrdiff_t vectors, const fc_patch_at *at) {
    const ptrdiff_t a_x = at->a_x, b_x = at->b_x, block = at->block;
    const LANE_MASK lanes_before = shared ? LANES_BEFORE(at) : (LANE_MASK){0};
    for (; vectors > 0; vectors--, a += LANES, b += LANES, c += LANES) {
        NAME(vec) acc[FC_WINDOW];
        UNROLL for (int p = 0; p < outputs; p++) acc[p] = (NAME(vec)){0};
        for (ptrdiff_t z = 0; z < at->planes; z++)
            for (ptrdiff_t y = 0; y < at->rows; y++) {
                const T *in = a + z * at->a_z + y * at->a_y, *w = b + z * at->b_z + y * at->b_y;
                const uint32_t *inside = at->inside;
                for (ptrdiff_t left = at->taps; left > 0; inside++) {
                    if (stride == 0) {
                        NAME(strip_tap)(outputs, in, at->a_p, w, *inside, acc);
                        in += a_x, w += b_x, left--;
                        continue;
                    }
#define STRIP_CASE(taps)                                                                                             \
    case taps:                                                                                                       \
        NAME(strip_block)(outputs, stride ? stride : 1, taps, shared, lanes_before, in, a_x, w, b_x, *inside, acc);  \
        break;
                    switch (left < block ? left : block) {
                        STRIP_CASE(1) STRIP_CASE(2) STRIP_CASE(3) STRIP_CASE(4) STRIP_CASE(5)
#if VECTORS == 4
                        STRIP_CASE(6) STRIP_CASE(7) STRIP_CASE(8)
#endif
                    default: __builtin_unreachable();
                    }
#undef STRIP_CASE
                    in += block * a_x, w += block * b_x, left -= block;
                }
            }
        if (bias) {
            NAME(vec) shift = *(const NAME(vec) *)bias;
            UNROLL for (int p = 0; p < outputs; p++) acc[p] += shift;
            bias += LANES;
        }
        if (at->activation != FC_LINEAR)
            UNROLL for (int p = 0; p < outputs; p++) acc[p] = NAME(relu)(acc[p]);
        if (at->activation == FC_RELU6)
            UNROLL for (int p = 0; p < outputs; p++) acc[p] = NAME(at_most_six)(acc[p]);
        UNROLL for (int p = 0; p < outputs; p++) *(NAME(vec) *)(c + p * at->c_x) = acc[p];
    }
}

/* Copies whole vectors of the channels of pixels that lie `pixel` elements apart. */
static void NAME(strip_copy)(void *dst, const void *src, ptrdiff_t pixel, ptrdiff_t pixels, ptrdiff_t vectors) {
    T *to = dst;
    const T *from = src;
    for (; pixels > 0; pixels--, from += pixel)
        for (ptrdiff_t v = 0; v < vectors; v++, to += LANES)
            *(NAME(vec) *)to = *(const NAME(vec) *)(from + v * LANES);
}

#define STRIP(outputs, stride)                                                                                       \
    static void NAME(strip_##stride##_##outputs)(const void *a, const void *b, void *c, const void *bias,            \
                                                 ptrdiff_t vectors, const fc_patch_at *at) {                         \
        NAME(strip_tile)(outputs, stride, 0, a, b, c, bias, vectors, at);                                            \
    }
#if SHARES
#define STRIP_SHARED(outputs)                                                                                        \
    static void NAME(strip_shared_##outputs)(const void *a, const void *b, void *c, const void *bias,                \
                                             ptrdiff_t vectors, const fc_patch_at *at) {                             \
        NAME(strip_tile)(outputs, 2, 1, a, b, c, bias, vectors, at);                                                 \
    }
STRIP_SHARED(4) STRIP_SHARED(7) STRIP_SHARED(8)
#undef STRIP_SHARED
#define STRIPS_SHARED                                                                                               \
    .strip_shared = {[4] = NAME(strip_shared_4), [7] = NAME(strip_shared_7), [8] = NAME(strip_shared_8)},
#else
#define STRIPS_SHARED
#endif
#define STRIPS(stride) STRIP(1, stride) STRIP(2, stride) STRIP(4, stride) STRIP(7, stride) STRIP(8, stride)
#define STRIP_ROW(stride)                                                                                            \
    {[1] = NAME(strip_##stride##_1), [2] = NAME(strip_##stride##_2), [4] = NAME(strip_##stride##_4),                 \
     [7] = NAME(strip_##stride##_7), [8] = NAME(strip_##stride##_8)}
STRIPS(0) STRIPS(1) STRIPS(2)
#define STRIP_TABLE                                                                                                  \
    STRIPS_SHARED .strip_taps = STRIP_TAPS, .strip = {STRIP_ROW(0), STRIP_ROW(1), STRIP_ROW(2)},                      \
    .strip_copy = NAME(strip_copy),
