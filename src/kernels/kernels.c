/* All kernels of one instruction set. Compiled once for each with -DFASTCONV_ISA=<name> and its -m flags; what
   differs between sets is the numbers of vectors.h and the compiler's choice of instructions. A set that extends another
   has a file of its own with what it adds. */
#include <math.h>
#include <string.h>
#include "fastconv.h"
#include "half.h"

#include "vectors.h"

#define T float
#define FN(x) x##_float
#define BITS uint32_t
#define DOUBLE 0
#define LANES (VECTOR_BYTES / 4)
#include "functions.h"
#define T double
#define FN(x) x##_double
#define BITS uint64_t
#define DOUBLE 1
#define LANES (VECTOR_BYTES / 8)
#include "functions.h"

#define T float
#define DTYPE FC_F32
#define INDEX int32_t
#define NAME(x) x##_float
#define LANES (VECTOR_BYTES / 4)
#define IS_FLOAT 1
#define WITH_HALF
#include "compute.h"
#undef WITH_HALF

#define T double
#define DTYPE FC_F64
#define INDEX int64_t
#define NAME(x) x##_double
#define LANES (VECTOR_BYTES / 8)
#define IS_FLOAT 1
#include "compute.h"

#define T int32_t
#define DTYPE FC_I32
#define INDEX int32_t
#define NAME(x) x##_int32
#define LANES (VECTOR_BYTES / 4)
#define IS_FLOAT 0
#include "compute.h"

#define SUMS .add = add_int32, .store = {[FC_I32] = store_i32_int32, [FC_I64] = store_i64_int32},
#include "short_integers.h"
#undef SUMS

#define T int64_t
#define DTYPE FC_I64
#define INDEX int64_t
#define NAME(x) x##_int64
#define LANES (VECTOR_BYTES / 8)
#define IS_FLOAT 0
#define WIDE
#include "compute.h"

#define T float
#define LAYER(x) layer_##x##_f32
#define LAYER_SQRT sqrtf
#define LAYER_ABS fabsf
#define LAYER_ROUND rintf
#define LAYER_MAP map_float
#include "layers.h"
#define T double
#define LAYER(x) layer_##x##_f64
#define LAYER_SQRT sqrt
#define LAYER_ABS fabs
#define LAYER_ROUND rint
#define LAYER_MAP map_double
#include "layers.h"

#define T float
#define ROWS(x) rows_##x##_f32
#define WIDE_SUM 0
#define INDEX int32_t
#include "rows.h"
#define T double
#define ROWS(x) rows_##x##_f64
#define WIDE_SUM 1
#define INDEX int64_t
#include "rows.h"

#define T float
#define INTEGER int32_t
#define NORMS(x) norm_##x##_f32
#define MAP map_float
#define LANES (VECTOR_BYTES / 4)
#include "norms.h"
#define T double
#define INTEGER int64_t
#define NORMS(x) norm_##x##_f64
#define MAP map_double
#define LANES (VECTOR_BYTES / 8)
#include "norms.h"

#include "bytes.h"

#define PLAIN(x) (x)
#define POOL_AVERAGES 1
#define POOL_SCATTERS 1
#define IS_NAN(v) ((v) != (v))
#define READ PLAIN
#define WRITE PLAIN
#define S float
#define A float
#define POOL(x) pool_##x##_f32
#define LOWEST (-INFINITY)
#include "pool.h"
#define S double
#define A double
#define POOL(x) pool_##x##_f64
#define LOWEST (-INFINITY)
#include "pool.h"
#undef POOL_SCATTERS
#define POOL_SCATTERS 0
#define POOL_SHORT_FLOATS
#include "half.h"
#undef READ
#undef WRITE
#undef IS_NAN
#undef POOL_AVERAGES
#define POOL_AVERAGES 0
#define IS_NAN(v) 0
#define READ PLAIN
#define WRITE PLAIN
#define S int8_t
#define A int8_t
#define POOL(x) pool_##x##_i8
#define LOWEST INT8_MIN
#include "pool.h"
#define S uint8_t
#define A uint8_t
#define POOL(x) pool_##x##_u8
#define LOWEST 0
#include "pool.h"
#define S int16_t
#define A int16_t
#define POOL(x) pool_##x##_i16
#define LOWEST INT16_MIN
#include "pool.h"
#define S uint16_t
#define A uint16_t
#define POOL(x) pool_##x##_u16
#define LOWEST 0
#include "pool.h"
#define S int32_t
#define A int32_t
#define POOL(x) pool_##x##_i32
#define LOWEST INT32_MIN
#include "pool.h"
#define S uint32_t
#define A uint32_t
#define POOL(x) pool_##x##_u32
#define LOWEST 0
#include "pool.h"
#define S uint64_t
#define A uint64_t
#define POOL(x) pool_##x##_u64
#define LOWEST 0
#include "pool.h"
#undef POOL_SCATTERS
#define POOL_SCATTERS 1
#define S int64_t
#define A int64_t
#define POOL(x) pool_##x##_i64
#define LOWEST INT64_MIN
#include "pool.h"

#if defined(__aarch64__)
#define VECTOR_REGISTER "w"
#else
#define VECTOR_REGISTER "x"
#endif

/* Independent multiply-adds on registers alone: what this instruction set can do at best. */
static double fma_burst(long rounds) {
    enum { CHAINS = 10 };
    vec_float acc[CHAINS], scale = {0}, shift = {0};
    for (int j = 0; j < VECTOR_BYTES / 4; j++) scale[j] = 1.0000001f, shift[j] = 1e-9f;
    UNROLL for (int i = 0; i < CHAINS; i++) acc[i] = scale + (float)i;
    for (long r = 0; r < rounds; r++)
        UNROLL for (int i = 0; i < CHAINS; i++) {
            acc[i] = acc[i] * scale + shift;
            __asm__ volatile("" : "+" VECTOR_REGISTER(acc[i]));
        }
    float sum = 0;
    UNROLL for (int i = 0; i < CHAINS; i++) sum += acc[i][0];
    return sum == 0 ? 0 : 2.0 * rounds * CHAINS * (VECTOR_BYTES / 4);
}

#define POOL_TABLE(suffix, code, read, write) [code] = &pool_kernels_##suffix,
#define QUOTE_(x) #x
#define QUOTE(x) QUOTE_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
const fc_isa JOIN(fc_isa_, FASTCONV_ISA) = {
    .name = QUOTE(FASTCONV_ISA),
    .compute = {[FC_COMPUTE_F32] = &kernels_float, [FC_COMPUTE_F64] = &kernels_double,
                [FC_COMPUTE_I32] = &kernels_int32, [FC_COMPUTE_I64] = &kernels_int64,
                [FC_COMPUTE_I16] = &kernels_int16,
                [FC_COMPUTE_F32_F16] = &kernels_float_f16, [FC_COMPUTE_F32_BF16] = &kernels_float_bf16,
                [FC_COMPUTE_BF16] = &kernels_bf16, [FC_COMPUTE_ROUNDED] = &kernels_rounded},
    .pool = {[FC_F32] = &pool_kernels_f32, [FC_F64] = &pool_kernels_f64, SHORT_FLOATS(POOL_TABLE)
             [FC_I8] = &pool_kernels_i8, [FC_U8] = &pool_kernels_u8, [FC_I16] = &pool_kernels_i16,
             [FC_U16] = &pool_kernels_u16, [FC_I32] = &pool_kernels_i32, [FC_U32] = &pool_kernels_u32,
             [FC_I64] = &pool_kernels_i64, [FC_U64] = &pool_kernels_u64},
    .layers = {&layer_kernels_f32, &layer_kernels_f64},
    .rows = {&rows_kernels_f32, &rows_kernels_f64},
    .norms = {&norm_kernels_f32, &norm_kernels_f64},
    .bytes = &byte_kernels,
    .fma_burst = fma_burst,
};
