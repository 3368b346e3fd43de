/* A row of depthwise outputs by an instruction that adds the products of four bytes: the four are rows of the kernel, which
   are interleaved once and met by every column. Included once a width with
     WIDTH    channels (bytes)          NAME(x)   x with the width's suffix
     V(x)     an intrinsic of it        VEC       its integers        REAL, VF(x)   and floats
   The unpacking instructions work within 16 bytes, so that channels lie in another order: 4 * j + i of every 16 in vector
   j, and the narrowing ones put them back. Weights: [tap][four rows][vector][channel][4]. */

/* The columns from `first` to `last` - 1 of a row's windows: [column][four rows][vector]. */
static inline void NAME(interleave)(const fc_depthwise_row *p, ptrdiff_t first, ptrdiff_t last, VEC *to) {
    const VEC fill = V(set1_epi8)((char)p->fill), flip = V(set1_epi8)((char)p->flip), zero = {0};
    const uint64_t mask = p->channels >= 64 ? ~0ull : (1ull << p->channels) - 1;
    for (ptrdiff_t at = first; at < last; at++)
        for (ptrdiff_t k = 0; k < p->rows; k += 4, to += 4) {
            VEC x[4];
            for (ptrdiff_t i = 0; i < 4; i++)
                if (k + i >= p->rows)
                    x[i] = zero;
                else if (!p->row[k + i] || at < 0 || at >= p->columns)
                    x[i] = fill;
                else
                    x[i] = V(xor)(V(maskz_loadu_epi8)(mask, p->row[k + i] + at * p->column), flip);
            const VEC ab = V(unpacklo_epi8)(x[0], x[1]), cd = V(unpacklo_epi8)(x[2], x[3]),
                      ab_high = V(unpackhi_epi8)(x[0], x[1]), cd_high = V(unpackhi_epi8)(x[2], x[3]);
            to[0] = V(unpacklo_epi16)(ab, cd), to[1] = V(unpackhi_epi16)(ab, cd);
            to[2] = V(unpacklo_epi16)(ab_high, cd_high), to[3] = V(unpackhi_epi16)(ab_high, cd_high);
        }
}

static inline __attribute__((always_inline)) void NAME(outputs)(const fc_depthwise_row *p, const VEC *x,
                                                                const int count, char *out) {
    const fc_requantise *q = p->requantise;
    const VEC *w = p->weights;
    const ptrdiff_t groups = (p->rows + 3) / 4;
    const uint64_t mask = p->channels >= 64 ? ~0ull : (1ull << p->channels) - 1;
    VEC acc[4][4];
    UNROLL for (int j = 0; j < 4; j++)
        UNROLL for (int o = 0; o < count; o++) acc[o][j] = ((const VEC *)p->shift)[j];
    for (ptrdiff_t t = 0; t < p->taps; t++)
        for (ptrdiff_t g = 0; g < groups; g++, w += 4)
            UNROLL for (int o = 0; o < count; o++)
                UNROLL for (int j = 0; j < 4; j++)
                    acc[o][j] = V(dpbusd_epi32)(acc[o][j], x[((o * p->stride + t * p->dilation) * groups + g) * 4 + j],
                                                w[j]);
    const VEC zero = V(set1_epi16)((short)q->zero);
    const REAL most = VF(set1_ps)(1e6f); /* beyond all limits; what is larger would become negative */
    UNROLL for (int o = 0; o < count; o++) {
        UNROLL for (int j = 0; j < 4; j++)
            acc[o][j] = VF(cvtps_epi32)(VF(min_ps)(
                VF(mul_ps)(VF(cvtepi32_ps)(acc[o][j]), ((const REAL *)p->multiplier)[j]), most));
        const VEC a = V(adds_epi16)(V(packs_epi32)(acc[o][0], acc[o][1]), zero),
                  b = V(adds_epi16)(V(packs_epi32)(acc[o][2], acc[o][3]), zero);
        const VEC high = V(set1_epi8)((char)q->high), low = V(set1_epi8)((char)q->low);
        const VEC line = q->is_signed ? V(max_epi8)(V(min_epi8)(V(packs_epi16)(a, b), high), low)
                                      : V(max_epu8)(V(min_epu8)(V(packus_epi16)(a, b), high), low);
        V(mask_storeu_epi8)(out + o * p->out_column, mask, line);
    }
}

static void NAME(depthwise)(const fc_depthwise_row *p) {
    VEC *region = p->scratch;
    const ptrdiff_t groups = (p->rows + 3) / 4;
    for (ptrdiff_t o = 0; o < p->outputs; o += FC_BYTES_OUTPUTS) {
        const ptrdiff_t end = o + FC_BYTES_OUTPUTS < p->outputs ? o + FC_BYTES_OUTPUTS : p->outputs;
        const ptrdiff_t first = p->first + o * p->stride;
        NAME(interleave)(p, first, p->first + (end - 1) * p->stride + (p->taps - 1) * p->dilation + 1, region);
        for (ptrdiff_t i = o; i < end;) {
            const VEC *x = region + (i - o) * p->stride * groups * 4;
            char *out = p->out + i * p->out_column;
            if (end - i >= 4)
                NAME(outputs)(p, x, 4, out), i += 4;
            else if (end - i >= 2)
                NAME(outputs)(p, x, 2, out), i += 2;
            else
                NAME(outputs)(p, x, 1, out), i += 1;
        }
    }
}

#undef WIDTH
#undef NAME
#undef V
#undef VF
#undef VEC
#undef REAL
