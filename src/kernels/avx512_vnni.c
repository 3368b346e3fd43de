/* What AVX-512 with VNNI adds to AVX-512: exact products of integers of 8 and 16 bits, packed as int16 and summed in int32,
   two steps of the reduction in one instruction. */
#include <immintrin.h>
#include <string.h>
#include "fastconv.h"
#include "vectors.h"

#define T int16_t
#define NAME(x) x##_int16
enum { LANES = VECTOR_BYTES / sizeof(int32_t), TILE_K = 2 };

typedef int32_t vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(int32_t)), may_alias));
typedef int32_t pair __attribute__((aligned(sizeof(T)), may_alias)); /* two steps of a row */

/* ---- the register tile ------------------------------------------------------------------------------------- */

/* As in compute.h, two steps at a time. */
static inline __attribute__((always_inline)) void NAME(tiles)(const int rows, const int vectors,
                                                              const fc_product *product, ptrdiff_t tiles) {
    const fc_product p = *product;
    const T *a = p.a, *b = p.b;
    const int32_t *bias = p.bias, *residual = p.residual;
    int32_t *c = p.c;
    const ptrdiff_t *a_row = p.a_row, *c_row = p.c_row, *residual_row = p.residual_row;
    const char *ahead = p.ahead;
    for (; tiles > 0; tiles--, a_row += rows, c_row += rows) {
        vec acc[FC_MAX_ROWS][FC_MAX_VECTORS];
        const T *row[FC_MAX_ROWS];
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++)
                acc[i][j] = p.accumulate ? *(const vec *)(c + c_row[i] + j * LANES) : (vec){0};
        for (ptrdiff_t s = 0; s < p.segments; s++) {
            const T *panel = b + p.segment[s].b * p.ldb;
            UNROLL for (int i = 0; i < rows; i++) row[i] = a + a_row[i] + p.segment[s].a;
            ptrdiff_t at = 0;
            for (ptrdiff_t k = p.segment[s].k; k > 0; k -= TILE_K, at += TILE_K, panel += TILE_K * p.ldb) {
                __builtin_prefetch(ahead, 0, 2);
                ahead += TILE_K * p.ahead_step;
                __m512i w[FC_MAX_VECTORS];
                UNROLL for (int j = 0; j < vectors; j++) w[j] = _mm512_loadu_si512(panel + j * TILE_K * LANES);
                UNROLL for (int i = 0; i < rows; i++) {
                    const __m512i x = _mm512_set1_epi32(*(const pair *)(row[i] + at));
                    UNROLL for (int j = 0; j < vectors; j++)
                        acc[i][j] = (vec)_mm512_dpwssd_epi32((__m512i)acc[i][j], x, w[j]);
                }
            }
        }
        if (bias)
            UNROLL for (int j = 0; j < vectors; j++)
                UNROLL for (int i = 0; i < rows; i++) acc[i][j] += *(const vec *)(bias + j * LANES);
        if (residual) {
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++)
                    acc[i][j] += *(const vec *)(residual + residual_row[i] + j * LANES);
            residual_row += rows;
        }
        if (p.relu)
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] &= ~(vec)(acc[i][j] < 0);
        if (p.relu == FC_RELU6)
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++) {
                    const vec above = (vec)(acc[i][j] > 6);
                    acc[i][j] = (acc[i][j] & ~above) | (above & 6);
                }
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) *(vec *)(c + c_row[i] + j * LANES) = acc[i][j];
    }
}

#include "tiles.h"

/* ---- packing ----------------------------------------------------------------------------------------------- */

#define PACK_TRANSPOSED(S)
#include "pack.h"

/* [tap y][tap x][channel / 2][width][2], zeros behind an odd number of channels. */
#define PACK(suffix, S)                                                                                             \
    S_PACK_PIXELS(suffix, S, )                                                                                       \
    static int pack_panel_##suffix##_int16(void *dst, ptrdiff_t width, const char *src, ptrdiff_t taps_y,            \
                                           const ptrdiff_t *tap_y, ptrdiff_t taps_x, const ptrdiff_t *tap_x,         \
                                           ptrdiff_t channels, ptrdiff_t channel_stride, ptrdiff_t outputs,          \
                                           ptrdiff_t output_stride) {                                                \
        T *to = dst;                                                                                                 \
        for (ptrdiff_t i = 0; i < taps_y; i++)                                                                       \
            for (ptrdiff_t j = 0; j < taps_x; j++)                                                                   \
                for (ptrdiff_t c = 0; c < channels; c += TILE_K, to += TILE_K * width) {                             \
                    memset(to, 0, TILE_K * width * sizeof(T));                                                       \
                    for (ptrdiff_t k = 0; k < TILE_K && c + k < channels; k++) {                                     \
                        const char *in = src + tap_y[i] + tap_x[j] + (c + k) * channel_stride;                       \
                        for (ptrdiff_t o = 0; o < outputs; o++, in += output_stride)                                 \
                            to[TILE_K * o + k] = *(const src_##suffix##_int16 *)in;                                  \
                    }                                                                                                \
                }                                                                                                    \
        return 1;                                                                                                    \
    }
PACK(i8, int8_t)
PACK(u8, uint8_t)
PACK(i16, int16_t)

/* ---- the table --------------------------------------------------------------------------------------------- */

static const fc_kernels kernels_int16 = {
    .input = FC_I16, .weight = FC_I16, .sum = FC_I32, .input_size = sizeof(T), .weight_size = sizeof(T),
    .size = sizeof(int32_t), .tile_k = TILE_K, .lanes = LANES, TILES,
    .pack = {[FC_I8] = pack_i8_int16, [FC_U8] = pack_u8_int16, [FC_I16] = pack_i16_int16},
    .pack_panel = {[FC_I8] = pack_panel_i8_int16, [FC_U8] = pack_panel_u8_int16, [FC_I16] = pack_panel_i16_int16},
};

void fc_extend_avx512_vnni(fc_isa *isa, fc_kernels compute[FC_COMPUTES]) {
    fc_kernels *own = &compute[FC_COMPUTE_I16];
    *own = kernels_int16;
    own->add = compute[FC_COMPUTE_I32].add; /* sums and results are of int32 */
    memcpy(own->store, compute[FC_COMPUTE_I32].store, sizeof own->store);
    isa->compute[FC_COMPUTE_I16] = own;
}
