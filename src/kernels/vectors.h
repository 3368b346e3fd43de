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
#endif
