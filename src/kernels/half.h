/* Types of 16 bits that numbers are stored in, IEEE 754 binary16 and bfloat16, <-> binary32 in integer arithmetic (round to
   nearest even), so that they need no instruction set extension. */
#ifndef FASTCONV_HALF_H
#define FASTCONV_HALF_H
#include <stdint.h>
#include <string.h>

/* suffix, fc_dtype, and how they are read and written */
#define SHORT_FLOATS(X) X(f16, FC_F16, half_to_float, float_to_half) X(bf16, FC_BF16, bfloat_to_float, float_to_bfloat)

static inline float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu, bits;
    float value;
    if (magnitude >= 0x7c00u) {                      /* infinity, NaN */
        bits = sign | 0x7f800000u | (magnitude & 0x3ffu) << 13;
        memcpy(&value, &bits, 4);
        return value;
    }
    if (magnitude < 0x400u) {                        /* zero, subnormal: magnitude * 2^-24 is exact */
        value = (float)magnitude * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | ((magnitude << 13) + 0x38000000u);  /* exponent bias 15 -> 127 */
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);    /* NaN */
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);   /* rounds to infinity from 65520 up */
    if (magnitude < 0x38800000u) {                                     /* subnormal: let the adder round */
        float tiny;
        memcpy(&tiny, &magnitude, 4);
        tiny += 0.5f;                                                  /* unit in the last place: 2^-24 */
        memcpy(&bits, &tiny, 4);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    return (uint16_t)(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

/* bfloat16: the upper half of binary32. */
static inline float bfloat_to_float(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint16_t float_to_bfloat(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16; /* beyond the largest: infinity */
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 31 << 15 | 0x7fc0u : rounded); /* NaN stays one */
}
#endif

/* Their pooling, where kernels.c asks for it. */
#ifdef POOL_SHORT_FLOATS
#undef READ
#undef WRITE
#define READ half_to_float
#define WRITE float_to_half
#define S uint16_t
#define A float
#define POOL(x) pool_##x##_f16
#define LOWEST (-INFINITY)
#include "pool.h"
#undef READ
#undef WRITE
#define READ bfloat_to_float
#define WRITE float_to_bfloat
#define S uint16_t
#define A float
#define POOL(x) pool_##x##_bf16
#define LOWEST (-INFINITY)
#include "pool.h"
#endif
