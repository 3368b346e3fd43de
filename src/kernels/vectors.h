/* What differs between instruction sets beside the compiler's choice of instructions. */
#ifndef FASTCONV_VECTORS_H
#define FASTCONV_VECTORS_H

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define VECTORS 4    /* 6 x 4 accumulators of 32 registers */
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define VECTORS 2    /* 6 x 2 accumulators of 16 registers */
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define VECTORS 4    /* 6 x 4 accumulators of 32 registers */
#else
#define VECTOR_BYTES 16
#define VECTORS 2
#endif

/* A value that no compiler fuses with what is done to it next: a product that is rounded for itself. */
#if defined(__aarch64__)
#define A_REGISTER "w"
#elif defined(__AVX512F__)
#define A_REGISTER "v"
#else
#define A_REGISTER "x"
#endif
#define ROUNDED(v) __asm__("" : "+" A_REGISTER(v))

/* Register tiles live in registers only if every loop over them is unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_LANES UNROLL
#define UNROLL_WINDOW UNROLL
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define UNROLL _Pragma("GCC unroll 12")
#define UNROLL_LANES _Pragma("GCC unroll 16")
#define UNROLL_WINDOW _Pragma("GCC unroll 20")
#define INDEPENDENT _Pragma("GCC ivdep") /* no iteration reads what another writes */
#endif

#define CHOSEN(a, relation, b)                                                                                       \
    (__extension__({                                                                                                 \
        __typeof__(a) a_ = (a), b_ = (b);                                                                            \
        __typeof__(a_ relation b_) mask_ = a_ relation b_;                                                           \
        (__typeof__(a_))(((__typeof__(mask_))a_ & mask_) | ((__typeof__(mask_))b_ & ~mask_));                        \
    }))

/* The larger and the smaller of two vectors, the second where one of them is NaN: an instruction each on x86, which GCC does
   not make of a comparison and a choice. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define LARGER_float _mm512_max_ps
#define SMALLER_float _mm512_min_ps
#define LARGER_double _mm512_max_pd
#define SMALLER_double _mm512_min_pd
#elif defined(__AVX__)
#include <immintrin.h>
#define LARGER_float _mm256_max_ps
#define SMALLER_float _mm256_min_ps
#define LARGER_double _mm256_max_pd
#define SMALLER_double _mm256_min_pd
#elif defined(__SSE2__)
#include <emmintrin.h>
#define LARGER_float _mm_max_ps
#define SMALLER_float _mm_min_ps
#define LARGER_double _mm_max_pd
#define SMALLER_double _mm_min_pd
#else
#define LARGER_float(a, b) CHOSEN(a, >, b)
#define SMALLER_float(a, b) CHOSEN(a, <, b)
#define LARGER_double LARGER_float
#define SMALLER_double SMALLER_float
#endif
#define LARGER_int32_t(a, b) CHOSEN(a, >, b)
#define SMALLER_int32_t(a, b) CHOSEN(a, <, b)
#define LARGER_int64_t(a, b) CHOSEN(a, >, b)
#define SMALLER_int64_t(a, b) CHOSEN(a, <, b)
#define LARGER_OF_(type) LARGER_##type
#define LARGER_OF(type) LARGER_OF_(type)
#define SMALLER_OF_(type) SMALLER_##type
#define SMALLER_OF(type) SMALLER_OF_(type)
#endif
