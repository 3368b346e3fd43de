/* Winograd convolution along rows, for kernels of seven columns at stride 2: the even columns meet the even inputs as four
   taps do, F(4, 4), the odd ones those between, F(4, 3) of winograd.h: 7 + 6 products for 4 outputs and not 28. Vectors run
   along (row, channel) of the input, along channels of the output. Included where T is float.

   F(4, 4) on points 0, 1, -1, 2, -2, 1/2, infinity; its weights are transformed in Python. */

#ifndef FC_ROWS_H
#define FC_ROWS_H
/* A tile makes four outputs of a row, of seven taps at stride 2, from the
   products of its even columns and those of its odd ones. */
enum {
    FC_ROWS_TILE = 4, FC_ROWS_TAPS = 7, FC_ROWS_STRIDE = 2, FC_ROWS_EVEN = 7, FC_ROWS_ODD = 6,
    FC_ROWS_ELEMENTS = FC_ROWS_EVEN + FC_ROWS_ODD,
    FC_ROWS_EXTENT = (FC_ROWS_TILE - 1) * FC_ROWS_STRIDE + FC_ROWS_TAPS
};
typedef void (*fc_rows_input)(const void *src, ptrdiff_t column_stride, ptrdiff_t tiles, ptrdiff_t length, void *dst,
                              ptrdiff_t element_stride, ptrdiff_t tile_stride);
typedef int (*fc_rows_output)(const void *src, ptrdiff_t element_stride, ptrdiff_t tile_stride, int vectors, void *dst,
                              ptrdiff_t column_stride, ptrdiff_t columns, const void *bias, int relu);
typedef struct { fc_rows_input input; fc_rows_output output; } fc_rows;
#endif

#ifdef VECTOR_BYTES /* for a set; else for the driver */
static inline __attribute__((always_inline)) void winograd_rows_even(const vec_float *d, vec_float *o) {
    o[0] = d[5] - (T)2 * d[0] + (T)4 * d[1] + (T)2.5 * d[2] - (T)5 * d[3] - (T)0.5 * d[4];
    o[1] = d[5] + (T)2 * (d[1] - d[2]) - (T)4.5 * d[3] + (T)0.5 * d[4];
    o[2] = d[5] - (T)2 * d[1] + (T)6 * d[2] - (T)3.5 * d[3] - (T)1.5 * d[4];
    o[3] = d[5] + d[1] - (T)1.5 * (d[2] - d[4]) - (T)2 * d[3];
    o[4] = d[5] - d[1] + (T)2.5 * (d[2] - d[4]);
    o[5] = d[5] + (T)4 * d[1] - (T)5 * d[3];
    o[6] = d[6] - (T)2 * d[1] + (T)4 * d[2] + (T)2.5 * d[3] - (T)5 * d[4] - (T)0.5 * d[5];
}

static inline __attribute__((always_inline)) void winograd_rows_back(const vec_float *m, vec_float *o) {
    vec_float a = (T)(-1 / 3.) * m[1], b = (T)(1 / 9.) * m[2], c = (T)(1 / 36.) * m[3], d = (T)(-1 / 60.) * m[4];
    vec_float e = (T)(32 / 45.) * m[5];
    o[0] = (T)-0.5 * m[0] + (a + b) + (c + d) + e;
    o[1] = (a - b) + (T)2 * (c - d) + (T)0.5 * e;
    o[2] = (a + b) + (T)4 * (c + d) + (T)0.25 * e;
    o[3] = (a - b) + (T)8 * (c - d) + (T)0.125 * e + m[6];
}

/* V[element][tile][length] of tiles of 13 columns, 8 apart from the next; length is a multiple of the vector. */
static void winograd_rows_input(const void *src, ptrdiff_t column_stride, ptrdiff_t tiles, ptrdiff_t length, void *dst,
                                ptrdiff_t element_stride, ptrdiff_t tile_stride) {
    for (ptrdiff_t t = 0; t < tiles; t++)
        for (ptrdiff_t c = 0; c < length; c += LANES) {
            const T *in = (const T *)src + FC_ROWS_TILE * FC_ROWS_STRIDE * t * column_stride + c;
            T *out = (T *)dst + t * tile_stride + c;
            vec_float even[FC_ROWS_EVEN], odd[FC_ROWS_ODD], o[FC_ROWS_EVEN];
            UNROLL for (int j = 0; j < FC_ROWS_EVEN; j++) even[j] = *(const vec_float *)(in + 2 * j * column_stride);
            UNROLL for (int j = 0; j < FC_ROWS_ODD; j++) odd[j] = *(const vec_float *)(in + (2 * j + 1) * column_stride);
            winograd_rows_even(even, o);
            UNROLL for (int j = 0; j < FC_ROWS_EVEN; j++) *(vec_float *)(out + j * element_stride) = o[j];
            winograd_input_along_4(odd, o);
            UNROLL for (int j = 0; j < FC_ROWS_ODD; j++) *(vec_float *)(out + (FC_ROWS_EVEN + j) * element_stride) = o[j];
        }
}

/* A row of `columns` outputs from its tiles' products, + bias, relu where asked for; returns 0 when one is not finite. */
static int winograd_rows_output(const void *src, ptrdiff_t element_stride, ptrdiff_t tile_stride, int vectors, void *dst,
                                ptrdiff_t column_stride, ptrdiff_t columns, const void *bias, int relu) {
    vec_float bad = {0};
    for (ptrdiff_t x = 0; x < columns; x += FC_ROWS_TILE, src = (const T *)src + tile_stride)
        for (int v = 0; v < vectors; v++) {
            const T *in = (const T *)src + v * LANES;
            vec_float m[FC_ROWS_EVEN], even[FC_ROWS_TILE], odd[FC_ROWS_TILE], shift = {0};
            if (bias) shift = *(const vec_float *)((const T *)bias + v * LANES);
            UNROLL for (int j = 0; j < FC_ROWS_EVEN; j++) m[j] = *(const vec_float *)(in + j * element_stride);
            winograd_rows_back(m, even);
            UNROLL for (int j = 0; j < FC_ROWS_ODD; j++) m[j] = *(const vec_float *)(in + (FC_ROWS_EVEN + j) * element_stride);
            winograd_output_along_4(m, odd);
            UNROLL for (int i = 0; i < FC_ROWS_TILE; i++) {
                if (x + i >= columns) break;
                vec_float y = even[i] + odd[i];
                bad += y * 0;
                y += shift;
                if (relu) y = relu_float(y);
                *(vec_float *)((T *)dst + (x + i) * column_stride + v * LANES) = y;
            }
        }
    for (int l = 0; l < LANES; l++)
        if (bad[l] != 0) return 0;
    return 1;
}

static const fc_rows winograd_rows_kernels = {winograd_rows_input, winograd_rows_output};
#endif
