/* Bytes that stand for real numbers, between convolutions: real = scale * (byte - zero). Bytes with a sign are read and
   written through `flip`, 0x80, as the bytes without one that are 128 higher; every `zero` here is of those.

   Depthwise convolution: a lane a channel, for which there is no reduction over channels. */

enum { BYTES_TOGETHER = 256 };

/* to = rint(v / scale) + zero, within the limits. The quotient is a product with the inverse where that cannot round
   otherwise: of 256 values one is so near to a half in one of twenty. (Inlined, GCC 12 does not vectorise it.) */
static __attribute__((noinline)) void bytes_rounded(uint8_t *restrict to, const float *restrict v, ptrdiff_t count,
                                                    const fc_byte_sum *s) {
    const float low = (float)(s->low - s->zero), high = (float)(s->high - s->zero), inverse = 1.0f / s->scale;
    const uint8_t flip = (uint8_t)s->flip;
    const int zero = s->zero;
    int near = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        float q = v[i] * inverse;
        q = q >= low - 1 ? q : low - 1;
        q = q > high + 1 ? high + 1 : q;
        const float rounded = (q + 12582912.0f) - 12582912.0f;
        near |= fabsf(q - rounded) > 0.4999f;
        float r = rounded < low ? low : rounded;
        r = r > high ? high : r;
        to[i] = (uint8_t)((int)r + zero) ^ flip;
    }
    if (near || !(inverse < 1e30f))
        for (ptrdiff_t i = 0; i < count; i++) {
            float q = v[i] / s->scale;
            q = q >= low ? q : low;
            q = q > high ? high : q;
            to[i] = (uint8_t)((int)((q + 12582912.0f) - 12582912.0f) + s->zero) ^ flip;
        }
}

/* rint(((a - za) * sa + (b - zb) * sb) / sy) + zy, within the limits. */
#if defined(__AVX512BW__)
typedef struct {
    __m512i zero_a, zero_b, zero, low, high;
    __m512 scale_a, scale_b, scale, inverse, near;
    int divide;
} bytes_sum_numbers;

/* What 16 bytes stand for, each product rounded by itself. */
static inline __attribute__((always_inline)) __m512 bytes_real(__m128i x, const int is_signed, __m512i zero,
                                                               __m512 scale) {
    const __m512i wide = is_signed ? _mm512_cvtepi8_epi32(x) : _mm512_cvtepu8_epi32(x);
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(wide, zero)), scale);
    __asm__("" : "+v"(v)); /* or the compiler would fuse it with the sum */
    return v;
}

/* 64 bytes. The quotient is a product with the inverse where that is far from a half, as in bytes_rounded. */
static inline __attribute__((always_inline)) __m512i bytes_sum_of(__m512i a, __m512i b, const int is_signed,
                                                                  const bytes_sum_numbers *s) {
    __m512 sum[4];
    __m512i v[4];
    __mmask16 near = s->divide;
    UNROLL for (int i = 0; i < 4; i++) {
        const __m128i x = i == 0 ? _mm512_castsi512_si128(a) : _mm512_extracti32x4_epi32(a, i),
                      y = i == 0 ? _mm512_castsi512_si128(b) : _mm512_extracti32x4_epi32(b, i);
        sum[i] = _mm512_add_ps(bytes_real(x, is_signed, s->zero_a, s->scale_a),
                               bytes_real(y, is_signed, s->zero_b, s->scale_b));
        const __m512 q = _mm512_mul_ps(sum[i], s->inverse);
        v[i] = _mm512_cvtps_epi32(q);
        near |= _mm512_cmp_ps_mask(_mm512_abs_ps(_mm512_sub_ps(q, _mm512_cvtepi32_ps(v[i]))), s->near, _CMP_GT_OQ);
    }
    if (near)
        UNROLL for (int i = 0; i < 4; i++) v[i] = _mm512_cvtps_epi32(_mm512_div_ps(sum[i], s->scale));
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(v[0], v[1]), s->zero),
                  high = _mm512_adds_epi16(_mm512_packs_epi32(v[2], v[3]), s->zero);
    const __m512i line = is_signed
        ? _mm512_max_epi8(_mm512_min_epi8(_mm512_packs_epi16(low, high), s->high), s->low)
        : _mm512_max_epu8(_mm512_min_epu8(_mm512_packus_epi16(low, high), s->high), s->low);
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), line);
}

static inline __attribute__((always_inline)) void bytes_add_lines(uint8_t *to, const uint8_t *a, const uint8_t *b,
                                                                  ptrdiff_t count, const fc_byte_sum *s,
                                                                  const int is_signed) {
    const int flip = s->flip;
    const bytes_sum_numbers own = {
        _mm512_set1_epi32(s->zero_a - flip), _mm512_set1_epi32(s->zero_b - flip), _mm512_set1_epi16((short)(s->zero - flip)),
        _mm512_set1_epi8((char)(s->low - flip)), _mm512_set1_epi8((char)(s->high - flip)), _mm512_set1_ps(s->scale_a),
        _mm512_set1_ps(s->scale_b), _mm512_set1_ps(s->scale), _mm512_set1_ps(1.0f / s->scale), _mm512_set1_ps(0.4999f),
        !(1.0f / s->scale < 1e30f)};
    for (; count >= 64; count -= 64, to += 64, a += 64, b += 64)
        _mm512_storeu_si512(to, bytes_sum_of(_mm512_loadu_si512(a), _mm512_loadu_si512(b), is_signed, &own));
    if (count) {
        const __mmask64 mask = (1ull << count) - 1;
        _mm512_mask_storeu_epi8(to, mask, bytes_sum_of(_mm512_maskz_loadu_epi8(mask, a), _mm512_maskz_loadu_epi8(mask, b),
                                                       is_signed, &own));
    }
}

static void bytes_add_any(uint8_t *to, const uint8_t *a, const uint8_t *b, ptrdiff_t count, const fc_byte_sum *s);

/* In registers, where an int32 holds every quotient: 255 steps of either value. */
static void bytes_add(uint8_t *to, const uint8_t *a, const uint8_t *b, ptrdiff_t count, const fc_byte_sum *s) {
    if (!(255 * (fabsf(s->scale_a) + fabsf(s->scale_b)) < 1e9f * s->scale))
        bytes_add_any(to, a, b, count, s);
    else if (s->flip)
        bytes_add_lines(to, a, b, count, s, 1);
    else
        bytes_add_lines(to, a, b, count, s, 0);
}
#else
#define bytes_add_any bytes_add
#endif

static void bytes_add_any(uint8_t *to, const uint8_t *a, const uint8_t *b, ptrdiff_t count, const fc_byte_sum *s) {
    const uint8_t flip = (uint8_t)s->flip;
    for (; count > 0; count -= BYTES_TOGETHER, to += BYTES_TOGETHER, a += BYTES_TOGETHER, b += BYTES_TOGETHER) {
        const ptrdiff_t n = count < BYTES_TOGETHER ? count : BYTES_TOGETHER;
        float v[BYTES_TOGETHER], w[BYTES_TOGETHER];
        for (ptrdiff_t i = 0; i < n; i++) { /* each product is rounded, as the standard's is: none is fused with the sum */
            v[i] = (float)((int)(uint8_t)(a[i] ^ flip) - s->zero_a) * s->scale_a;
            w[i] = (float)((int)(uint8_t)(b[i] ^ flip) - s->zero_b) * s->scale_b;
        }
        __asm__ volatile("" : "+m"(v), "+m"(w));
        for (ptrdiff_t i = 0; i < n; i++) v[i] += w[i];
        bytes_rounded(to, v, n, s);
    }
}
#undef bytes_add_any

/* rint((a - za) * sa * b / sy) + zy, within the limits. */
static void bytes_multiply(uint8_t *to, const uint8_t *a, const float *b, ptrdiff_t count, const fc_byte_sum *s) {
    const uint8_t flip = (uint8_t)s->flip;
    for (; count > 0; count -= BYTES_TOGETHER, to += BYTES_TOGETHER, a += BYTES_TOGETHER, b += BYTES_TOGETHER) {
        const ptrdiff_t n = count < BYTES_TOGETHER ? count : BYTES_TOGETHER;
        float v[BYTES_TOGETHER];
        for (ptrdiff_t i = 0; i < n; i++) v[i] = (float)((int)(uint8_t)(a[i] ^ flip) - s->zero_a) * s->scale_a * b[i];
        bytes_rounded(to, v, n, s);
    }
}

/* rint(x / scale) + zero, within the limits; NaN becomes the least. */
static void bytes_quantise(uint8_t *restrict to, const float *restrict x, ptrdiff_t count, const fc_byte_sum *s) {
    const float low = (float)(s->low - s->zero), high = (float)(s->high - s->zero), scale = s->scale;
    const uint8_t flip = (uint8_t)s->flip;
    const int zero = s->zero;
    for (ptrdiff_t i = 0; i < count; i++) {
        float q = x[i] / scale;
        q = q >= low ? q : low;
        q = q > high ? high : q;
        to[i] = (uint8_t)((int)((q + 12582912.0f) - 12582912.0f) + zero) ^ flip;
    }
}

static void bytes_dequantise(float *restrict to, const uint8_t *restrict x, ptrdiff_t count, const fc_byte_sum *s) {
    const uint8_t flip = (uint8_t)s->flip;
    const int zero = s->zero;
    const float scale = s->scale;
    for (ptrdiff_t i = 0; i < count; i++) to[i] = (float)((int)(uint8_t)(x[i] ^ flip) - zero) * scale;
}

static void bytes_look_up(uint8_t *to, const uint8_t *x, ptrdiff_t count, const uint8_t *table) {
    for (ptrdiff_t i = 0; i < count; i++) to[i] = table[x[i]];
}

/* sums[c] += what the bytes of rows of channels stand for, less zeros. */
static void bytes_sum(int32_t *restrict sums, const uint8_t *restrict x, ptrdiff_t row_stride, ptrdiff_t rows,
                      ptrdiff_t channels, int flip) {
    for (ptrdiff_t r = 0; r < rows; r++, x += row_stride)
        for (ptrdiff_t c = 0; c < channels; c++) sums[c] += (uint8_t)(x[c] ^ (uint8_t)flip);
}

/* A row of depthwise outputs, in plain code: weights int16 [row][tap][FC_BYTES_BLOCK]. */
static void bytes_depthwise(const fc_depthwise_row *p) {
    const uint8_t flip = (uint8_t)p->flip;
    const float low = (float)(p->requantise->low - p->requantise->zero),
                high = (float)(p->requantise->high - p->requantise->zero);
    for (ptrdiff_t o = 0; o < p->outputs; o++) {
        int32_t sum[FC_BYTES_BLOCK];
        memcpy(sum, p->shift, sizeof sum);
        for (ptrdiff_t k = 0; k < p->rows; k++)
            for (ptrdiff_t t = 0; t < p->taps; t++) {
                const int16_t *w = (const int16_t *)p->weights + (k * p->taps + t) * FC_BYTES_BLOCK;
                const ptrdiff_t at = p->first + o * p->stride + t * p->dilation;
                if (p->row[k] && at >= 0 && at < p->columns) {
                    const uint8_t *x = (const uint8_t *)p->row[k] + at * p->column;
                    for (ptrdiff_t c = 0; c < p->channels; c++) sum[c] += (uint8_t)(x[c] ^ flip) * w[c];
                } else
                    for (ptrdiff_t c = 0; c < p->channels; c++) sum[c] += p->fill * w[c];
            }
        uint8_t *out = (uint8_t *)p->out + o * p->out_column;
        for (ptrdiff_t c = 0; c < p->channels; c++) {
            float v = (float)sum[c] * p->multiplier[c];
            v = v < low ? low : v;
            v = v > high ? high : v;
            out[c] = (uint8_t)((int)((v + 12582912.0f) - 12582912.0f) + p->requantise->zero);
        }
    }
}

/* A transpose, as fc_pack: to rows of `ldd` bytes, a pixel each, from channels whose pixels lie side by side. */
static void bytes_transpose(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src,
                            ptrdiff_t pixel_stride, ptrdiff_t channel_stride) {
    uint8_t *to = dst;
    ptrdiff_t whole = 0, wide = 0;
#if BYTE_BLOCKS
    whole = pixels & ~(ptrdiff_t)15, wide = channels & ~(ptrdiff_t)15;
    transpose_bytes(to, ldd, src, channel_stride, whole, wide, 0);
#endif
    for (ptrdiff_t c = 0; c < channels; c++)
        for (ptrdiff_t p = c < wide ? whole : 0; p < pixels; p++)
            to[p * ldd + c] = (uint8_t)src[c * channel_stride + p * pixel_stride];
}

static const fc_byte_kernels byte_kernels = {
    .add = bytes_add, .multiply = bytes_multiply, .quantise = bytes_quantise, .dequantise = bytes_dequantise,
    .look_up = bytes_look_up, .sum = bytes_sum, .depthwise = bytes_depthwise, .transpose = bytes_transpose,
};
