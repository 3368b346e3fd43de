/* A matrix product of blocks in 7 multiplications of 8 (Strassen, "Gaussian elimination is not optimal", Numerische
   Mathematik 13, 1969), once or twice: the sums of blocks before and after. Vectors run along the columns of a block.
   Included where T is float.

   Winograd's variant has 15 additions in place of 18 but a larger error bound (Higham, "Accuracy and Stability of Numerical
   Algorithms", chapter 23). */

#ifndef FC_STRASSEN_H
#define FC_STRASSEN_H
/* Strassen's product of a tile of 2 (4) pixels with the weights of 2 (4) times as many outputs as a panel has, in 7 (49)
   products of panels. */
typedef void (*fc_strassen_input)(const void *src, const ptrdiff_t *row, ptrdiff_t pixels, ptrdiff_t channels,
                                  void *dst, ptrdiff_t element_stride, ptrdiff_t tile_stride, int in_place);
typedef void (*fc_strassen_weights)(const void *src, ptrdiff_t block_row, ptrdiff_t block_column, ptrdiff_t count,
                                    void *dst, ptrdiff_t element_stride);
typedef void (*fc_strassen_fold)(const void *src, ptrdiff_t count, void *dst, ptrdiff_t element_stride);
typedef int (*fc_strassen_output)(const void *src, ptrdiff_t element_stride, ptrdiff_t tile_stride, int vectors,
                                  void *dst, const ptrdiff_t *row, ptrdiff_t pixels, ptrdiff_t block, const void *bias,
                                  const void *residual, const ptrdiff_t *residual_row, int relu);
typedef struct {
    fc_strassen_input input;
    fc_strassen_weights weights;
    fc_strassen_fold fold;
    fc_strassen_output output;
} fc_strassen;
#endif

#ifdef VECTOR_BYTES /* for a set; else for the driver */
#define SUMS static inline __attribute__((always_inline)) void

/* Blocks of four: upper left, upper right, lower left, lower right. */
SUMS strassen_left(const vec_float *a, vec_float *o) {
    o[0] = a[0] + a[3], o[1] = a[2] + a[3], o[2] = a[0], o[3] = a[3], o[4] = a[0] + a[1], o[5] = a[2] - a[0];
    o[6] = a[1] - a[3];
}

SUMS strassen_right(const vec_float *b, vec_float *o) {
    o[0] = b[0] + b[3], o[1] = b[0], o[2] = b[1] - b[3], o[3] = b[2] - b[0], o[4] = b[3], o[5] = b[0] + b[1];
    o[6] = b[2] + b[3];
}

SUMS strassen_back(const vec_float *m, vec_float *c) {
    c[0] = (m[0] - m[4]) + (m[3] + m[6]), c[1] = m[2] + m[4], c[2] = m[1] + m[3], c[3] = (m[0] - m[1]) + (m[2] + m[5]);
}

/* Block (row, column) of a side x side matrix, as the `inner` of the four blocks that the `outer` of four consists of. */
#define ROW_OF(outer, inner) ((outer) / 2 * 2 + (inner) / 2)
#define COLUMN_OF(outer, inner) ((outer) % 2 * 2 + (inner) % 2)

/* The products' factors of the blocks that `BLOCK(row, column)` reads: factor f goes to out + f * element_stride. */
#define FACTORS(levels, sums, stored)                                                                                \
    if (levels == 1) {                                                                                               \
        vec_float of[4] = {BLOCK(0, 0), BLOCK(0, 1), BLOCK(1, 0), BLOCK(1, 1)}, o[7];                                \
        sums(of, o);                                                                                                 \
        UNROLL for (int f = 0; f < 7; f++)                                                                           \
            if (stored) *(vec_float *)(out + f * element_stride) = o[f];                                             \
    } else {                                                                                                         \
        vec_float half[4][7];                                                                                        \
        UNROLL for (int i = 0; i < 4; i++) {                                                                         \
            vec_float of[4];                                                                                         \
            UNROLL for (int k = 0; k < 4; k++) of[k] = BLOCK(ROW_OF(k, i), COLUMN_OF(k, i));                         \
            sums(of, half[i]);                                                                                       \
        }                                                                                                            \
        UNROLL for (int e = 0; e < 7; e++) {                                                                         \
            vec_float of[4] = {half[0][e], half[1][e], half[2][e], half[3][e]}, o[7];                                \
            sums(of, o);                                                                                             \
            UNROLL for (int f = 0; f < 7; f++) *(vec_float *)(out + (7 * e + f) * element_stride) = o[f];            \
        }                                                                                                            \
    }

/* The left factors of tiles `tile_stride` apart: every two (four) of `pixels` pixels at src + row[], of side x `channels`
   channels each. With `in_place`, the two of seven that are blocks as they lie are not stored. */
SUMS strassen_input(const int levels, const void *src, const ptrdiff_t *row, ptrdiff_t pixels, ptrdiff_t channels,
                    void *dst, ptrdiff_t element_stride, ptrdiff_t tile_stride, int in_place) {
    for (ptrdiff_t p = 0; p < pixels; p += 2 * levels, dst = (T *)dst + tile_stride)
        for (ptrdiff_t c = 0; c < channels; c += LANES) {
            const T *in = (const T *)src + c;
            T *out = (T *)dst + c;
#define BLOCK(r, q) (*(const vec_float *)(in + row[p + (r)] + (q) * channels))
            FACTORS(levels, strassen_left, !in_place || (f != 2 && f != 3))
#undef BLOCK
        }
}

/* The right factors of one panel: `count` elements of every block; blocks lie `block_row`, `block_column` apart. */
SUMS strassen_weights(const int levels, const void *src, ptrdiff_t block_row, ptrdiff_t block_column, ptrdiff_t count,
                      void *dst, ptrdiff_t element_stride) {
    for (ptrdiff_t c = 0; c < count; c += LANES) {
        const T *in = (const T *)src + c;
        T *out = (T *)dst + c;
#define BLOCK(r, q) (*(const vec_float *)(in + (r) * block_row + (q) * block_column))
        FACTORS(levels, strassen_right, 1)
#undef BLOCK
    }
}

/* Four blocks from seven products, `count` elements of each: the inner level of two. */
static void strassen_fold(const void *src, ptrdiff_t count, void *dst, ptrdiff_t element_stride) {
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        vec_float m[7], c[4];
        UNROLL for (int f = 0; f < 7; f++) m[f] = *(const vec_float *)((const T *)src + f * element_stride + i);
        strassen_back(m, c);
        UNROLL for (int k = 0; k < 4; k++) *(vec_float *)((T *)dst + k * element_stride + i) = c[k];
    }
}

/* The outputs of tiles from their products, of two levels from seven times four folded ones: `pixels` pixels at
   dst + row[], their blocks `block` apart, + bias + residual, relu where asked for; returns 0 when a sum is not finite. */
static inline __attribute__((always_inline)) int strassen_output(
    const int levels, const void *src, ptrdiff_t element_stride, ptrdiff_t tile_stride, int vectors, void *dst,
    const ptrdiff_t *row, ptrdiff_t pixels, ptrdiff_t block, const void *bias, const void *residual,
    const ptrdiff_t *residual_row, int relu) {
    vec_float bad = {0};
    for (ptrdiff_t p = 0; p < pixels; p += 2 * levels, src = (const T *)src + tile_stride)
        for (int v = 0; v < vectors; v++) {
            const T *in = (const T *)src + v * LANES;
            vec_float c[16], m[7];
            UNROLL for (int i = 0; i < levels * levels; i++) {
                vec_float o[4];
                UNROLL for (int f = 0; f < 7; f++)
                    m[f] = *(const vec_float *)(in + (levels * levels * f + i) * element_stride);
                strassen_back(m, o);
                UNROLL for (int k = 0; k < 4; k++)
                    c[levels == 1 ? k : 4 * ROW_OF(k, i) + COLUMN_OF(k, i)] = o[k];
            }
            UNROLL for (int r = 0; r < 2 * levels; r++) {
                if (p + r >= pixels) break;
                UNROLL for (int q = 0; q < 2 * levels; q++) {
                    const ptrdiff_t at = q * block + v * LANES;
                    vec_float y = c[2 * levels * r + q];
                    bad += y * 0;
                    if (bias) y += *(const vec_float *)((const T *)bias + at);
                    if (residual) y += *(const vec_float *)((const T *)residual + residual_row[p + r] + at);
                    if (relu) y = relu_float(y);
                    *(vec_float *)((T *)dst + row[p + r] + at) = y;
                }
            }
        }
    for (int l = 0; l < LANES; l++)
        if (bad[l] != 0) return 0;
    return 1;
}

#define STRASSEN(levels)                                                                                             \
    static void strassen_input_##levels(const void *src, const ptrdiff_t *row, ptrdiff_t pixels, ptrdiff_t channels,  \
                                        void *dst, ptrdiff_t element_stride, ptrdiff_t tile_stride, int in_place) {  \
        strassen_input(levels, src, row, pixels, channels, dst, element_stride, tile_stride, in_place);              \
    }                                                                                                                \
    static void strassen_weights_##levels(const void *src, ptrdiff_t block_row, ptrdiff_t block_column,               \
                                          ptrdiff_t count, void *dst, ptrdiff_t element_stride) {                    \
        strassen_weights(levels, src, block_row, block_column, count, dst, element_stride);                          \
    }                                                                                                                \
    static int strassen_output_##levels(const void *src, ptrdiff_t element_stride, ptrdiff_t tile_stride,             \
                                        int vectors, void *dst, const ptrdiff_t *row, ptrdiff_t pixels,              \
                                        ptrdiff_t block, const void *bias, const void *residual,                     \
                                        const ptrdiff_t *residual_row, int relu) {                                   \
        return strassen_output(levels, src, element_stride, tile_stride, vectors, dst, row, pixels, block, bias,     \
                               residual, residual_row, relu);                                                        \
    }
STRASSEN(1)
STRASSEN(2)
#undef STRASSEN
#undef SUMS
#undef FACTORS
#undef ROW_OF
#undef COLUMN_OF

#define STRASSEN_LEVEL(levels) {strassen_input_##levels, strassen_weights_##levels, strassen_fold, strassen_output_##levels}
static const fc_strassen strassen_kernels[2] = {STRASSEN_LEVEL(1), STRASSEN_LEVEL(2)}; /* [levels - 1] */
#endif
