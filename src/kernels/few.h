/* 1x1 convolution with few outputs of channels that lie side by side, a lane a pixel: blocks of as many pixels as lanes are
   transposed in registers, and meet one weight after the other. Included by compute.h. */

/* y[i][n] = relu(sum over c of x[i][c] * w[c][n] + bias[n]) for so many outputs n, in the order of the channels; weights of
   a channel lie `wide` apart. */
static inline __attribute__((always_inline)) void NAME(few)(const int outputs, const int wide, const fc_few *f) {
    const char *end = f->x + (f->pixels - 1) * f->x_pixel + f->channels * (ptrdiff_t)sizeof(T);
    const T *const weight = f->weight, *const bias = f->bias;
    /* Lines of long rows that are as far apart as these share a set of the cache, which does not keep them for a second read:
       channels up to the first whole line of each. */
    const ptrdiff_t line = LANES * sizeof(T), beyond = (ptrdiff_t)((uintptr_t)f->x % line);
    const ptrdiff_t lead = f->x_pixel % 1024 == 0 && beyond ? (line - beyond) / (ptrdiff_t)sizeof(T) : 0;
    for (ptrdiff_t first = 0; first < f->pixels; first += LANES) {
        const ptrdiff_t count = f->pixels - first < LANES ? f->pixels - first : LANES;
        NAME(vec) acc[FC_FEW];
        T sum[FC_FEW][LANES], *to = (T *)(f->y + first * f->y_pixel);
        UNROLL for (int n = 0; n < outputs; n++) acc[n] = (NAME(vec)){0};
        for (ptrdiff_t c = 0, left; c < f->channels; c += left) {
            const char *from = f->x + first * f->x_pixel + c * (ptrdiff_t)sizeof(T);
            const T *w = weight + c * wide;
            left = f->channels - c < LANES ? f->channels - c : LANES;
            if (wide == 1 && c == 0 && lead && left == LANES) left = lead;
            ptrdiff_t pixel = f->x_pixel;
            NAME(vec) v[LANES];
            T at_end[LANES * LANES];
            if (count < LANES || (wide == 1 && left < LANES) ||
                from + (LANES - 1) * pixel + LANES * (ptrdiff_t)sizeof(T) > end) {
                memset(at_end, 0, sizeof(at_end));
                for (ptrdiff_t i = 0; i < count; i++) memcpy(at_end + i * LANES, from + i * pixel, left * sizeof(T));
                from = (const char *)at_end, pixel = LANES * sizeof(T);
            }
            UNROLL_LANES for (int i = 0; i < LANES; i++) v[i] = *(const NAME(loose) *)(from + i * pixel);
            /* two blocks ahead: many lines at a time, which the processor does not see coming, other than long rows */
            if (wide > 1)
                UNROLL_LANES for (int i = 0; i < LANES; i++)
                    __builtin_prefetch(from + 2 * LANES * f->x_pixel + i * pixel, 0, 3);
            NAME(transpose_block)(v);
            if (left == LANES) {
                UNROLL_LANES for (int i = 0; i < LANES; i++)
                    UNROLL for (int n = 0; n < outputs; n++) acc[n] += v[i] * w[i * wide + n];
                continue;
            }
            UNROLL_LANES for (int i = 0; i < LANES; i++) *(NAME(vec) *)(at_end + i * LANES) = v[i];
            for (ptrdiff_t i = 0; i < left; i++)
                UNROLL for (int n = 0; n < outputs; n++)
                    acc[n] += *(const NAME(vec) *)(at_end + i * LANES) * w[i * wide + n];
        }
        if (bias) UNROLL for (int n = 0; n < outputs; n++) acc[n] += bias[n];
        if (f->relu) UNROLL for (int n = 0; n < outputs; n++) acc[n] = NAME(relu)(acc[n]);
        if (f->relu == FC_RELU6) UNROLL for (int n = 0; n < outputs; n++) acc[n] = NAME(at_most_six)(acc[n]);
        UNROLL for (int n = 0; n < outputs; n++) *(NAME(vec) *)sum[n] = acc[n];
        for (ptrdiff_t i = 0; i < count; i++, to = (T *)((char *)to + f->y_pixel))
            UNROLL for (int n = 0; n < outputs; n++) to[n] = sum[n][i];
    }
}

#ifndef FEW
#define FEW(n) static void NAME(few_##n)(const fc_few *f) { NAME(few)(n, LANES, f); }
#endif
static void NAME(few_point)(const fc_few *f) { NAME(few)(1, 1, f); }

FEW(1) FEW(2)
#if LANES >= 8
FEW(3) FEW(4)
#endif
#if LANES >= 16
FEW(5) FEW(6) FEW(7) FEW(8)
#endif

/* By the number of outputs, as long as half of the lanes would be idle otherwise. */
static const fc_few_kernels NAME(few_kernels) = {
    .point = NAME(shuffles) ? NAME(few_point) : NULL,
    .most = !NAME(shuffles) ? 0 : LANES / 2 < FC_FEW ? LANES / 2 : FC_FEW,
#if LANES >= 16
    .outputs = {NULL, NAME(few_1), NAME(few_2), NAME(few_3), NAME(few_4), NAME(few_5), NAME(few_6), NAME(few_7),
                NAME(few_8)},
#elif LANES >= 8
    .outputs = {NULL, NAME(few_1), NAME(few_2), NAME(few_3), NAME(few_4)},
#else
    .outputs = {NULL, NAME(few_1), NAME(few_2)},
#endif
};
