/* Packing, for every type that what is packed may lie in: PACK_LINES(S) is tried first where channels lie side by side,
   PACK_TRANSPOSED(S) where pixels do, PACK_FEW(S) before everything. */
#ifndef PACK_FEW
#define PACK_FEW(S)
#endif
#define S_PACK_PIXELS(suffix, S, READ)                                                                                     \
    typedef S NAME(src_##suffix) __attribute__((aligned(1), may_alias));                                             \
    static void NAME(pack_##suffix)(void *dst, ptrdiff_t ldd, ptrdiff_t pixels, ptrdiff_t channels, const char *src, \
                                    ptrdiff_t pixel_stride, ptrdiff_t channel_stride) {                              \
        T *out = dst;                                                                                                \
        PACK_FEW(S)                                                                                                  \
        if (channel_stride == (ptrdiff_t)sizeof(S)) {                                                                \
            if (pixel_stride == channels * channel_stride && ldd == channels) channels *= pixels, pixels = 1;        \
            PACK_LINES(S)                                                                                            \
            for (ptrdiff_t p = 0; p < pixels; p++, out += ldd, src += pixel_stride) {                                \
                const NAME(src_##suffix) *in = (const NAME(src_##suffix) *)src;                                      \
                for (ptrdiff_t c = 0; c < channels; c++) out[c] = (T)READ(in[c]);                                    \
            }                                                                                                        \
            return;                                                                                                  \
        }                                                                                                            \
        PACK_TRANSPOSED(S)                                                                                           \
        /* a transpose: blocks of 16 x 16 keep both sides in the first-level cache */                                \
        for (ptrdiff_t p0 = 0; p0 < pixels; p0 += 16)                                                                \
            for (ptrdiff_t c0 = 0; c0 < channels; c0 += 16) {                                                        \
                ptrdiff_t p1 = p0 + 16 < pixels ? p0 + 16 : pixels, c1 = c0 + 16 < channels ? c0 + 16 : channels;    \
                for (ptrdiff_t c = c0; c < c1; c++) {                                                                \
                    const char *in = src + c * channel_stride + p0 * pixel_stride;                                   \
                    for (ptrdiff_t p = p0; p < p1; p++, in += pixel_stride)                                          \
                        out[p * ldd + c] = (T)READ(*(const NAME(src_##suffix) *)in);                                 \
                }                                                                                                    \
            }                                                                                                        \
    }
