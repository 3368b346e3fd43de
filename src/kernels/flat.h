/* Depthwise convolution of planes, a lane a pixel: the rows of a bordered plane lie one behind the other, so that an output
   lies where its first input does and a tap is a distance, whatever the row. Included by lanes.h. */

/* c[i] = sum over taps of a[tap + i] * w[tap] + bias, relu where asked for; whole vectors are read and written. */
static inline __attribute__((always_inline)) void NAME(flat_tile)(const int vectors, const T *a, const ptrdiff_t *tap,
                                                                  const T *w, ptrdiff_t taps, const T *bias, int relu,
                                                                  T *c) {
    NAME(vec) acc[8];
    UNROLL for (int i = 0; i < vectors; i++) acc[i] = (NAME(vec)){0};
    for (ptrdiff_t t = 0; t < taps; t++) {
        const T *in = a + tap[t], weight = w[t];
        UNROLL for (int i = 0; i < vectors; i++) acc[i] += *(const NAME(vec) *)(in + i * LANES) * weight;
    }
    if (bias) UNROLL for (int i = 0; i < vectors; i++) acc[i] += *bias;
    if (relu) UNROLL for (int i = 0; i < vectors; i++) acc[i] = NAME(relu)(acc[i]);
    if (relu == FC_RELU6) UNROLL for (int i = 0; i < vectors; i++) acc[i] = NAME(at_most_six)(acc[i]);
    UNROLL for (int i = 0; i < vectors; i++) *(NAME(vec) *)(c + i * LANES) = acc[i];
}

static void NAME(flat)(const void *a_, const ptrdiff_t *tap, const void *w, ptrdiff_t taps, const void *bias, int relu,
                       void *c_, ptrdiff_t count) {
    const T *a = a_;
    T *c = c_;
    for (; count > 4 * LANES; count -= 8 * LANES, a += 8 * LANES, c += 8 * LANES)
        NAME(flat_tile)(8, a, tap, w, taps, bias, relu, c);
    for (; count > LANES; count -= 4 * LANES, a += 4 * LANES, c += 4 * LANES)
        NAME(flat_tile)(4, a, tap, w, taps, bias, relu, c);
    if (count > 0) NAME(flat_tile)(1, a, tap, w, taps, bias, relu, c);
}

#define FLAT .flat = NAME(flat),
