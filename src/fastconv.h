/* What the drivers (Cython) and the micro-kernels (C) agree on: element types, views, segments and the table of
   kernels that every instruction set fills in. Strides are in bytes, offsets inside packed buffers in elements. */
#ifndef FASTCONV_H
#define FASTCONV_H

#include <stddef.h>
#include <stdint.h>

/* Element types as they lie in the caller's arrays, and their names. */
#define FC_STORED(X)                                                                                                 \
    X(FC_F32, "float32") X(FC_F64, "float64") X(FC_F16, "float16") X(FC_I8, "int8") X(FC_U8, "uint8")                \
    X(FC_I16, "int16") X(FC_U16, "uint16") X(FC_I32, "int32") X(FC_U32, "uint32") X(FC_I64, "int64")                 \
    X(FC_U64, "uint64") X(FC_BF16, "bfloat16")
#define FC_CODE(code, name) code,
#define FC_NAME(code, name) name,
enum fc_dtype { FC_STORED(FC_CODE) FC_DTYPES };
static const char *const fc_dtype_names[] __attribute__((unused)) = {FC_STORED(FC_NAME)};

/* What the kernels compute in: packed inputs and weights of one type and sums of the same, but for FC_COMPUTE_I16, whose
   int16 operands are summed in int32, and FC_COMPUTE_U8, whose uint8 inputs times int8 weights are. An instruction set
   need not have the latter (fc_kernels). */
enum fc_compute {
    FC_COMPUTE_F32, FC_COMPUTE_F64, FC_COMPUTE_I32, FC_COMPUTE_I64, FC_COMPUTE_I16, FC_COMPUTE_U8,
    FC_COMPUTE_F32_F16,   /* float by weights that lie packed in 16 bits (kernels/float_halves.h) */
    FC_COMPUTE_F32_BF16,
    FC_COMPUTE_BF16,      /* bfloat16 by bfloat16, summed in float */
    FC_COMPUTE_ROUNDED,   /* float, of inputs that are rounded to bfloat16 */
    FC_COMPUTES
};

/* From FC_FUNCTIONS on: those of kernels/functions.h, a line of values at a time. */
enum fc_activation {
    FC_LINEAR, FC_RELU, FC_RELU6, FC_LEAKY_RELU, FC_HARDSWISH, FC_SILU, FC_SIGMOID, FC_TANH, FC_GELU, FC_GELU_TANH,
    FC_FUNCTIONS = FC_HARDSWISH
};

/* FC_FILL + n: padded with the integer n >= -32768, which is not skipped. */
enum fc_padding_mode { FC_ZEROS, FC_REFLECT, FC_REPLICATE, FC_CIRCULAR, FC_SYMMETRIC, FC_FILL = 1 << 17 };

enum { FC_MAX_VECTORS = 4, FC_MAX_ROWS = 12, FC_WINDOW = 8, FC_MAX_WINDOW = 5, FC_FLAT_TAPS = 7 };

/* Winograd of few tiles (fc_winograd.products): so many tiles together, and so many of their channels. */
enum { FC_WINOGRAD_TILES = 4, FC_WINOGRAD_CHANNELS = 64 };

/* A run of k reduction steps: it starts at element a of every row and at step b of the panel. `pick` is read by kernels
   that pick the input of every lane (kernels/lanes.h): its place in the vector read. */
typedef struct { ptrdiff_t a, b, k; const void *pick; } fc_segment;

/* How a sum of integers becomes a byte: sum * multiplier, in float, rounded to the nearest (even where two are as near),
   + zero, within low .. high, which are values of the byte's type. `wide`: products may leave int32. */
typedef struct { int zero, low, high, is_signed, wide; } fc_requantise;

/* c[i][:] (+)= sum over segments and k of a[row[i] + seg.a + k*step] * b[(seg.b + k)*ldb + :]; then + bias[:] +
   residual[i][:] where they are not NULL, and `relu`: FC_LINEAR, FC_RELU or FC_RELU6. `a_row`, `c_row` and
   `residual_row` hold the offset of every row. Every k fetches `ahead`, and moves it on by `ahead_step` bytes: what
   is to be read after this. Of short integers, where `requantise` is not NULL, bytes of the first
   `columns` sums of each row go to `out` and not to c; there are so many multipliers, and whole vectors of
   them may be read. */
typedef struct {
    const void *a;
    const ptrdiff_t *a_row;
    ptrdiff_t step;
    const void *b;
    ptrdiff_t ldb;
    const fc_segment *segment;
    ptrdiff_t segments;
    void *c;
    const ptrdiff_t *c_row;
    int accumulate, relu;
    const void *bias, *residual;
    const ptrdiff_t *residual_row;
    const char *ahead;
    ptrdiff_t ahead_step;
    const fc_requantise *requantise;
    const float *multiplier;
    void *out;
    const ptrdiff_t *out_row;
    ptrdiff_t columns;
    int fetch; /* the lines of c, before they are written */
    ptrdiff_t partial; /* where kernels are `partial`: columns of the last vector that are written; 0: all */
} fc_product;

/* That for so many register tiles, each the next rows x vectors of c. */
typedef void (*fc_micro_kernel)(const fc_product *product, ptrdiff_t tiles);

/* Copies pixels x channels from any layout and element type to rows of `ldd` computing elements. */
typedef void (*fc_pack)(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                        ptrdiff_t pixel_stride, ptrdiff_t channel_stride);

/* The same of the computing type, channels side by side, as x * scale + shift of each channel (`shift` may be NULL), each
   product rounded for itself as in a chain of steps, and not below 0 with `relu`. */
typedef void (*fc_pack_scaled)(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                               ptrdiff_t pixel_stride, const void *scale, const void *shift, int relu);

/* Packs one weight panel [tap y][tap x][channel][width]; returns 0 when a weight is NaN or infinite. */
typedef int (*fc_pack_panel)(void *dst, ptrdiff_t width, const char *src, ptrdiff_t taps_y, const ptrdiff_t *tap_y,
                             ptrdiff_t taps_x, const ptrdiff_t *tap_x, ptrdiff_t channels, ptrdiff_t channel_stride,
                             ptrdiff_t outputs, ptrdiff_t output_stride);

/* Writes `count` lines, from `first` on, of a tap of a packed panel as sums' type. */
typedef void (*fc_widen)(void *dst, const void *panel, ptrdiff_t first, ptrdiff_t count, ptrdiff_t width);

/* The epilogue: activation(src + bias + residual), converted and written in the caller's layout. */
typedef void (*fc_store)(const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t channels, char *dst,
                         ptrdiff_t pixel_stride, ptrdiff_t channel_stride, const void *bias, int activation,
                         const char *residual, ptrdiff_t residual_pixel_stride, ptrdiff_t residual_channel_stride);

/* The same of integers, as bytes. */
typedef void (*fc_requantised_store)(const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t channels, char *dst,
                                     ptrdiff_t pixel_stride, ptrdiff_t channel_stride, const void *bias,
                                     const fc_requantise *requantise, const float *multiplier);

typedef void (*fc_add)(void *dst, const void *src, ptrdiff_t count);
typedef int (*fc_holds_nan)(const void *src, ptrdiff_t count);

/* Totals of long sums (drivers/totals.pxi), twice as wide as the sums that they are made of. */
typedef void (*fc_total_add)(void *total, const void *src, ptrdiff_t count);
typedef void (*fc_total_end)(void *dst, const void *total, ptrdiff_t count);

typedef void (*fc_winograd_input)(const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t channels,
                                  void *dst, ptrdiff_t element_row, ptrdiff_t element_stride);
typedef int (*fc_winograd_output)(const void *src, ptrdiff_t element_stride, int vectors, void *dst,
                                  ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t rows, ptrdiff_t columns,
                                  const void *bias, int relu);
typedef void (*fc_winograd_taps)(const void *src, ptrdiff_t element_stride, int vectors, void *dst,
                                 ptrdiff_t tap_stride);
typedef void (*fc_winograd_weights)(void *dst, ptrdiff_t element_stride, ptrdiff_t width, const void *src,
                                    ptrdiff_t tap_stride, ptrdiff_t channels);

typedef void (*fc_winograd_products)(int row, const void *v, const void *w, ptrdiff_t tap_stride, ptrdiff_t width,
                                     ptrdiff_t channels, void *m, ptrdiff_t element_stride, ptrdiff_t tile_stride,
                                     int accumulate);

typedef void (*fc_winograd_pool)(const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t columns,
                                 int vectors, void *dst, ptrdiff_t pixel_stride);

/* The kinds of Winograd convolution: tiles of m x m outputs of 3 x 3 taps, of 3 x 3 taps at stride 2, of 2 x 2 taps, and of
   the input gradient of 3 x 3 taps at stride 2, m x m outputs in each of its phases. */
enum fc_winograd_kind {
    FC_WINOGRAD_STRIDED, FC_WINOGRAD_2, FC_WINOGRAD_4, FC_WINOGRAD_TWO_TAPS, FC_WINOGRAD_STRIDED_4, FC_WINOGRAD_PHASES,
    FC_WINOGRAD_PHASES_4, FC_WINOGRAD_KINDS
};

/* One of them, for one tile or panel; strides in elements. Along each axis a tile makes `tile` outputs of `extent` inputs,
   `step` apart from the next tile's, and has `elements` products, of which from number `weights` - 1 on all have the same
   transformed weight; those in the set `last` serve its last output alone.

   A short tile, which has at most `shorts` outputs along an axis, has transforms of its own: of as many inputs as they meet,
   into some of the elements, without those in the set `without`. The transforms are found by the outputs of a short tile
   along the rows' axis and the columns', 0 where it is not short. */
enum { FC_WINOGRAD_SHORTS = 2 };
typedef struct {
    int tile, step, taps, extent, elements, weights, last, shorts, without[FC_WINOGRAD_SHORTS + 1];
    fc_winograd_input input[FC_WINOGRAD_SHORTS + 1][FC_WINOGRAD_SHORTS + 1];
    fc_winograd_output output[FC_WINOGRAD_SHORTS + 1][FC_WINOGRAD_SHORTS + 1];
    fc_winograd_weights transform;
    fc_winograd_pool pool;          /* what may follow */
    fc_winograd_products products;  /* NULL where there are not registers enough */
    fc_winograd_input gradient;     /* the weight gradient F(3x3, m x m) where it exists */
    fc_winograd_taps gradient_taps;
} fc_winograd;

/* Depthwise convolution of planes, a lane a pixel: `count` outputs under taps at such distances, weights `ldw` apart. */
typedef void (*fc_flat)(const void *a, const ptrdiff_t *tap, const void *w, ptrdiff_t ldw, ptrdiff_t taps,
                        const void *bias, int relu, void *c, ptrdiff_t count);

/* Depthwise convolution of a plane as it lies (kernels/plane_windows.h): `rows` x `columns` outputs, the first tap of the
   first one at (first_y, first_x) of the input; in elements. */
typedef struct {
    const void *x;
    void *y;
    const void *w, *bias; /* weights `ldw` apart; no bias: NULL */
    ptrdiff_t x_row, y_row, ldw, height, width, rows, columns, first_y, first_x, dilation;
    int relu;
} fc_plane_window;
typedef void (*fc_plane_kernel)(const fc_plane_window *);

/* Convolution of planes of several taps (kernels/shifted.h): c[i][:] = relu(sum over k of a[k][i] * b[shift[k] + :] +
   bias[i]), i < rows; `a` is a packed panel so wide, rows of `c` are `c_row` elements apart. No bias: NULL; `fetch`: the
   lines of c before they are written. */
typedef struct {
    const void *a, *b, *bias;
    void *c;
    const ptrdiff_t *shift;
    ptrdiff_t steps, rows, width, c_row;
    int relu, fetch;
} fc_shifted;

/* A row of planes: of `channels`, `channel` elements apart, every `stride`-th of its `width` elements from `first` on, and
   from those behind it for further phases: `count` of each. Phases and in them channels are written `apart` elements apart.
   Nothing at or after `end` is read. */
typedef struct {
    const void *end;
    ptrdiff_t channel, channels, width, first, stride, phases, count, apart;
} fc_phases;

/* The kernels of a method that has them for itself, found by name: a table of a type of its own header. */
typedef struct { const char *name; const void *table; } fc_extra;

/* 1x1 convolution with few outputs, a lane a pixel (kernels/few.h, by the name "few"): `pixels` pixels, `x_pixel` and
   `y_pixel` bytes apart, by weights of a panel of one vector. */
enum { FC_FEW = 8 };
typedef struct {
    const char *x;
    char *y;
    const void *weight, *bias; /* no bias: NULL */
    ptrdiff_t x_pixel, y_pixel, channels, pixels;
    int relu; /* linear, relu or relu6 */
} fc_few;
typedef struct {
    ptrdiff_t most; /* outputs that it is for */
    void (*outputs[FC_FEW + 1])(const fc_few *few);
    void (*point)(const fc_few *few); /* one output, whose weights lie side by side; NULL where there is none */
} fc_few_kernels;

/* Winograd's tiles of bytes (kernels/winograd_bytes.h, by the name "byte_tiles"): 4 x 4 inputs to 16 elements, whole vectors
   of so many channels; and the products of those, `element` apart, to the `rows` x `columns` outputs that exist of 2 x 2, of
   [vectors] of channels, of which `columns` of the product exist. */
typedef struct {
    ptrdiff_t channels;
    void (*input)(const uint8_t *const *pixel, ptrdiff_t channels, int flip, uint8_t *to, ptrdiff_t element);
    void (*output[FC_MAX_VECTORS + 1])(const int32_t *m, ptrdiff_t element, const fc_product *end, ptrdiff_t row,
                                       ptrdiff_t column, ptrdiff_t rows, ptrdiff_t columns);
} fc_byte_tiles;

/* Depthwise and grouped convolution (kernels/lanes.h): a register tile in which every lane multiplies an input of
   its own, `pixels` outputs of a row under adjacent taps, and their weight gradient. The second vector of inputs lies
   `next` elements after the first. */
typedef void (*fc_lane)(const void *a, const ptrdiff_t *a_row, ptrdiff_t step, ptrdiff_t next, const void *b,
                        ptrdiff_t ldb, const fc_segment *segment, ptrdiff_t segments, void *c, const ptrdiff_t *c_row,
                        int accumulate, const void *bias, int relu);
typedef void (*fc_window)(const void *a, ptrdiff_t column, ptrdiff_t next, const void *b, ptrdiff_t ldb,
                          const fc_segment *segment, ptrdiff_t segments, void *c, ptrdiff_t c_column, const void *bias,
                          int relu);
typedef void (*fc_window_gradient)(const void *x, const ptrdiff_t *x_row, ptrdiff_t column, const void *dy,
                                   ptrdiff_t ldb, const fc_segment *segment, ptrdiff_t segments, void *sums,
                                   const ptrdiff_t *sums_row, ptrdiff_t tap);
typedef void (*fc_spread)(void *dst, const void *src, ptrdiff_t lds, ptrdiff_t pixels, ptrdiff_t count,
                          const ptrdiff_t *from, const void *index);

/* A patch of outputs, a lane a channel (kernels/lanes.h), or a strip (kernels/strips.h): distances in elements between
   planes, rows and columns of the input, of taps and of outputs. */
typedef struct {
    ptrdiff_t a_z, a_y, a_x, b_z, b_y, b_x, c_y, c_x;
    ptrdiff_t planes;  /* of taps, the first of which `a` and `b` begin with: those that exist */
    int activation;    /* FC_LINEAR, FC_RELU or FC_RELU6 */
    /* Of a patch: the rows and columns of the input that exist, counted from the first that it meets. */
    ptrdiff_t row_lo, row_hi, col_lo, col_hi;
    /* Of a strip: the rows of taps that exist, and taps of a row; how many of them are done together, and of each block
       which columns of the input exist. Of outputs apart: `a_p` between them, and of each tap for which its column does. */
    ptrdiff_t rows, taps, block, a_p;
    const uint32_t *inside;
    ptrdiff_t before;  /* of a vector that two pixels share: its lanes of the first, for whose inputs it looks so far ahead */
} fc_patch_at;
typedef void (*fc_patch_run)(const void *a, const void *b, void *c, const void *bias, ptrdiff_t vectors,
                             const fc_patch_at *at);
typedef struct {
    int rows, columns;    /* of the largest patch */
    fc_patch_run run[5];  /* [rows] */
    fc_patch_run shared[5];  /* the same at stride 2 of vectors that begin with channels of the pixel before; or NULL */
} fc_patch;

/* A lane an output channel. */
typedef struct {
    fc_lane lane[3][FC_MAX_ROWS + 1];                            /* [vectors][rows] */
    fc_window window[FC_MAX_WINDOW + 1][3][2];                   /* [taps][stride][4 or 8 pixels], lane_vectors wide */
    fc_window_gradient window_gradient[FC_MAX_WINDOW + 1][3][4]; /* [taps][stride][rows of taps], one vector wide */
} fc_lane_kernels;

/* The kernels of three types: packed inputs times packed weights make sums. Where `tile_k` is more than 1, so many steps
   of the reduction lie side by side in both, [step / tile_k][width][tile_k] in a panel, and every run of steps is rounded
   up to that with zeros. Such a table has the register tile and what packs and stores for it; the others, in which the
   three types are one, have what follows too. */
typedef struct {
    int input, weight, sum;               /* fc_dtype */
    int input_size, weight_size, size;    /* bytes of an element of each */
    int tile_k;
    int lanes;       /* sums of a vector */
    int vectors;     /* vectors of a full panel */
    /* Most rows of a register tile that is so many vectors wide or, FC_MAX_VECTORS more, whose last vector counts but by
       half (0 where there are none), and what computes it. */
    int rows[2 * FC_MAX_VECTORS + 1];
    fc_micro_kernel micro[2 * FC_MAX_VECTORS + 1][FC_MAX_ROWS + 1];
    int partial;     /* whether the first columns of the last vector can be written alone */
    fc_pack pack[FC_DTYPES];
    fc_pack_scaled pack_scaled; /* of floats; or NULL */
    fc_pack_panel pack_panel[FC_DTYPES];
    fc_widen widen;  /* of packed weights that are no sums' type */
    fc_store store[FC_DTYPES];
    fc_requantised_store requantise; /* of short integers */
    fc_add add;
    fc_holds_nan holds_nan; /* of floats */
    fc_total_add total_add;
    fc_total_end total_end;
    /* A lane an output channel, with inputs [0] as they lie or [1] picked from the vector read; `picks` says whether
       the latter exist. */
    int lane_vectors, picks;
    fc_lane_kernels by_lane[2];
    fc_patch patch[FC_MAX_WINDOW + 1][FC_MAX_WINDOW + 1][3][2];  /* [taps y][taps x][stride], of two widths at most */
    int strip_taps;                        /* the most that a block has; 0 where there are no strips */
    fc_patch_run strip[3][FC_WINDOW + 1];  /* [stride, or 0: apart][outputs] */
    fc_patch_run strip_shared[FC_WINDOW + 1]; /* as `shared` */
    void (*strip_copy)(void *dst, const void *src, ptrdiff_t pixel, ptrdiff_t pixels, ptrdiff_t vectors);
    /* A lane a pixel (kernels/flat.h), of any taps and of rows of so many side by side; NULL where there are none. */
    fc_flat flat, flat_window[FC_FLAT_TAPS + 1];
    fc_plane_kernel plane_window[FC_FLAT_TAPS + 1][3]; /* [taps of a side][stride, or 0: taps apart] */
    void (*flat_rows)(const void *src, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t count, const void *end, void *dst,
                      ptrdiff_t pitch);
    void (*flat_split)(const void *src, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t count, const void *end, void *first,
                       void *second, ptrdiff_t pitch);
    void (*flat_store)(const void *src, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t width, void *dst);
    void (*flat_fill)(const void *src, ptrdiff_t rows, ptrdiff_t width, void *dst);
    void (*shifted[FC_MAX_VECTORS + 1])(const fc_shifted *product); /* so many vectors of pixels */
    void (*phases)(const fc_phases *of, const void *row, void *to); /* a row that is NULL: zeros */
    fc_spread spread;
    fc_winograd winograd[FC_WINOGRAD_KINDS]; /* where the type has them */
    const fc_extra *extras;                  /* up to a name that is NULL; NULL where there are none */
} fc_kernels;

/* One spatial window pass: what pooling kernels need to know of a row of output pixels. */
typedef struct {
    const char *x; ptrdiff_t xd, xh, xw, xc;
    char *y; ptrdiff_t yd, yh, yw, yc;
    char *index; ptrdiff_t iw, ic;
    ptrdiff_t channels, depth, height, width, out_width;
    ptrdiff_t z0, y0, stride_x, pad_x, kernel_z, kernel_y, kernel_x, dilation_z, dilation_y, dilation_x;
    int count_include_pad; ptrdiff_t divisor, limit_z, limit_y, limit_x;  /* limits: end of the padded input */
    ptrdiff_t low;  /* of gradients in double: bytes from y to what its sums round off; 0 to leave that out */
} fc_pool_row;

typedef void (*fc_pool_function)(const fc_pool_row *);
typedef struct {
    fc_pool_function max_row, avg_row;
    /* x: gradient of the output, y: gradient of the input plane; for float, double and, of maxima, int64 */
    fc_pool_function max_scatter, avg_scatter;
} fc_pool_kernels;

/* The gradient of a max pooling of one image, for a chunk of its channels; `pixel` elements between pixels. */
typedef struct {
    void *dx; const void *x, *y, *dy;
    ptrdiff_t channels, pixel, height, width, out_height, out_width;
    ptrdiff_t kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x;
} fc_max_pool_gradient;

/* One step of a chain of elementwise functions: v becomes step(v, operand or `number`). */
enum fc_elementwise {
    FC_EW_ADD, FC_EW_SUB, FC_EW_SUB_FROM, FC_EW_MUL, FC_EW_DIV, FC_EW_DIV_BY, FC_EW_MAX, FC_EW_MIN,
    FC_EW_LEAKY, FC_EW_SQUARE, FC_EW_SQRT, FC_EW_ABS, FC_EW_NEGATE, FC_EW_ROUND, FC_EW_SIGMOID, FC_EW_SILU,
    FC_EW_HARDSWISH, FC_EW_MAX_NUMBER, /* MAX that takes the operand for NaN: integers have none */
    FC_EW_EXP, FC_EW_LOG, FC_EW_ERF, FC_EW_TANH, FC_EW_GELU, FC_EW_GELU_TANH, FC_EW_SOFTPLUS, FC_EW_MISH,
    FC_EW_ELU, FC_EW_CELU, FC_EW_THRESHOLD, FC_EW_SOFTSIGN, FC_EW_CUBE,
    FC_EW_CODES
};
typedef struct { int code; const void *operand; double number; } fc_step;

/* Beside convolution: training and elementwise functions (kernels/layers.h), for float and double. */
typedef struct {
    void (*elementwise)(void *values, const fc_step *step, ptrdiff_t steps, ptrdiff_t count);
    void (*relu_gradient)(void *dz, const void *dy, const void *y, double most, ptrdiff_t pixels, ptrdiff_t channels,
                          void *sum);
    void (*products)(const void *a, const void *shift_a, const void *b, const void *shift_b, ptrdiff_t pixels,
                     ptrdiff_t channels, void *sum, void *product);
    void (*sum)(const void *x, ptrdiff_t pixels, ptrdiff_t channels, void *sum);
    void (*affine)(void *out, const void *x, const void *a, const void *z, const void *b, const void *c, int relu,
                   ptrdiff_t pixels, ptrdiff_t channels);
    void (*sgd)(void *w, const void *g, void *v, double rate, double momentum, double keep, int nesterov,
                ptrdiff_t count);
    void (*adam)(void *w, const void *g, void *m, void *s, double rate, double beta_1, double beta_2, double epsilon,
                 double keep, ptrdiff_t count);
    void (*max_pool_gradient)(const fc_max_pool_gradient *);
    void (*dense)(const void *x, ptrdiff_t x_stride, ptrdiff_t samples, const void *w, ptrdiff_t inputs,
                  ptrdiff_t outputs, void *sum);
} fc_layer_kernels;

/* Rows that are weighted, summed and compared (kernels/rows.h), for float and double. */
enum fc_join { FC_JOIN_SUM, FC_JOIN_SQUARES, FC_JOIN_MAGNITUDES, FC_JOIN_MAX, FC_JOIN_MIN };
typedef struct {
    void (*blend)(void *to, const void *const *from, const void *weight, ptrdiff_t taps, ptrdiff_t count);
    void (*pick)(void *to, ptrdiff_t to_step, const void *from, const ptrdiff_t *index, const void *weight,
                 ptrdiff_t taps, ptrdiff_t count);
    void (*join)(int how, const char *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t count, void *sums);
    void (*join_line)(int how, const char *x, ptrdiff_t count, void *sums);
    void (*place)(int how, int last, const char *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t count, void *most,
                  void *place);
} fc_row_kernels;

/* Softmax, normalisations and recurrent cells (kernels/norms.h), for float and double: of a row, or of
   up to FC_MOST_COLUMNS columns. */
enum { FC_MOST_COLUMNS = 64 };
typedef struct {
    void (*softmax)(void *y, const void *x, ptrdiff_t count, int logarithm);
    void (*column_softmax)(void *y, const void *x, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns, int logarithm);
    void (*moments)(const void *x, ptrdiff_t count, int centre, double *moments);
    void (*column_moments)(const void *x, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns, double *mean,
                           double *square);
    void (*normalise)(void *y, const void *x, ptrdiff_t count, double mean, double factor, const void *scale,
                      const void *shift, double add);
    void (*column_normalise)(void *y, const void *x, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns,
                             const void *mean, const void *factor, const void *shift);
    void (*lstm)(void *gates, const void *peephole, void *cell, void *hidden, ptrdiff_t count, int coupled);
    void (*gru)(void *candidate, const void *z, void *hidden, ptrdiff_t count);
} fc_norm_kernels;

/* Bytes that stand for real numbers (kernels/bytes.h). */
enum { FC_BYTES_BLOCK = 64, FC_BYTES_OUTPUTS = 16 };  /* channels of a row that are computed together; outputs */
typedef struct {
    int zero_a, zero_b, zero, low, high, flip;
    float scale_a, scale_b, scale;
} fc_byte_sum;
/* A row of depthwise outputs of up to FC_BYTES_BLOCK channels. */
typedef struct {
    const char *const *row;    /* column 0 of every row of the kernel; NULL where that is padding */
    ptrdiff_t column;          /* bytes between columns, of which there are */
    ptrdiff_t columns;
    ptrdiff_t first;           /* column that the first tap of the first output meets */
    ptrdiff_t rows, taps, stride, dilation;
    ptrdiff_t channels;
    int flip, fill;            /* 0x80 to take a sign off; the byte of padding, without a sign */
    const void *weights;
    const int32_t *shift;
    const float *multiplier;
    const fc_requantise *requantise;
    char *out;
    ptrdiff_t out_column, outputs;
    void *scratch;             /* of FC_BYTES_OUTPUTS outputs' columns: 4 * FC_BYTES_BLOCK bytes for each four rows */
} fc_depthwise_row;
typedef struct {
    void (*add)(uint8_t *to, const uint8_t *a, const uint8_t *b, ptrdiff_t count, const fc_byte_sum *sum);
    void (*multiply)(uint8_t *to, const uint8_t *a, const float *b, ptrdiff_t count, const fc_byte_sum *how);
    void (*quantise)(uint8_t *to, const float *x, ptrdiff_t count, const fc_byte_sum *how);
    void (*dequantise)(float *to, const uint8_t *x, ptrdiff_t count, const fc_byte_sum *how);
    void (*look_up)(uint8_t *to, const uint8_t *x, ptrdiff_t count, const uint8_t *table);
    void (*sum)(int32_t *sums, const uint8_t *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t channels, int flip);
    void (*depthwise)(const fc_depthwise_row *row);
    fc_pack transpose; /* of pixels side by side */
    /* Where rows of the kernel are multiplied four at a time: of 64, 32 and 16 channels (kernels/depthwise_bytes.h). */
    int groups;
    void (*depthwise_four[3])(const fc_depthwise_row *row);
} fc_byte_kernels;

typedef double (*fc_burst)(long rounds); /* returns the floating-point operations done (float32) */

typedef struct {
    const char *name;
    const fc_kernels *compute[FC_COMPUTES];  /* NULL: it has none */
    const fc_pool_kernels *pool[FC_DTYPES];
    const fc_layer_kernels *layers[2];  /* float, double */
    const fc_row_kernels *rows[2];      /* the same */
    const fc_norm_kernels *norms[2];    /* the same */
    const fc_byte_kernels *bytes;
    fc_burst fma_burst;
} fc_isa;

/* What an instruction set that extends another adds or replaces, in a copy of that one's table and of its kernels; code of
   its own, called where the machine offers it. */
typedef void (*fc_extend)(fc_isa *isa, fc_kernels compute[FC_COMPUTES]);

/* dispatch.c */
const fc_isa *fc_isa_select(const char *name);  /* NULL: not built or not offered by this machine */
const fc_isa *fc_isa_best(void);                /* asked once, when the module is loaded */
const char *fc_isa_built(int index);            /* NULL past the last */

#endif
