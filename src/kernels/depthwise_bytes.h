/* A row of depthwise outputs by an instruction that adds the products of four bytes: the four are rows of the kernel, which
   are interleaved once and met by every column. Included once a width with
     WIDTH    channels (bytes)          NAME(x)   x with the width's suffix
     V(x)     an intrinsic of it        VEC       its integers        REAL, VF(x)   and floats
   The unpacking instructions work within 16 bytes, so that channels lie in another order: 4 * j + i of every 16 in vector
   j, and the narrowing ones put them back. Weights: [tap][four rows][vector][channel][4]. */

#ifndef MASK
#define MASK(p) ((p)->channels >= 64 ? ~0ull : (1ull << (p)->channels) - 1)
#endif

/* Four rows of the kernel at one column of the input; the fourth is met by weights that are zero if there are `three`. */
static inline __attribute__((always_inline)) void NAME(column)(const char *const *row, ptrdiff_t at,
                                                               const ptrdiff_t *step, uint64_t mask, VEC flip, VEC *to,
                                                               const int three, const int flips) {
    VEC x[4];
    UNROLL for (int i = 0; i < 4; i++) {
        x[i] = i == 3 && three ? x[2] : V(maskz_loadu_epi8)(mask, row[i] + at * step[i]);
        if (flips && !(i == 3 && three)) x[i] = V(xor)(x[i], flip);
    }
    const VEC ab = V(unpacklo_epi8)(x[0], x[1]), cd = V(unpacklo_epi8)(x[2], x[3]),
              ab_high = V(unpackhi_epi8)(x[0], x[1]), cd_high = V(unpackhi_epi8)(x[2], x[3]);
    to[0] = V(unpacklo_epi16)(ab, cd), to[1] = V(unpackhi_epi16)(ab, cd);
    to[2] = V(unpacklo_epi16)(ab_high, cd_high), to[3] = V(unpackhi_epi16)(ab_high, cd_high);
}

static inline __attribute__((always_inline)) void NAME(columns)(const fc_depthwise_row *p, const char *const *row,
                                                                const ptrdiff_t *step, ptrdiff_t count, VEC *to,
                                                                ptrdiff_t apart, const int three, const int flips) {
    const VEC flip = V(set1_epi8)((char)p->flip);
    for (ptrdiff_t i = 0; i < count; i++, to += apart) NAME(column)(row, i, step, MASK(p), flip, to, three, flips);
}

/* Where the `rows` of the kernel from number k on meet a column; padding is a line that all columns share. */
static inline void NAME(rows)(const fc_depthwise_row *p, ptrdiff_t k, ptrdiff_t column, const char *padding,
                              const char **row, ptrdiff_t *step) {
    const ptrdiff_t last = p->rows - k < 4 ? p->rows - 1 : k + 3;
    for (ptrdiff_t i = 0; i < 4; i++) {
        const char *at = p->row[k + i < last ? k + i : last];
        row[i] = at ? at + column * p->column : padding;
        step[i] = at ? p->column : 0;
    }
}

/* The columns from `first` to `last` - 1 of a row's windows: [column][four rows][vector]. */
static inline void NAME(interleave)(const fc_depthwise_row *p, ptrdiff_t first, ptrdiff_t last, VEC *to) {
    const ptrdiff_t groups = (p->rows + 3) / 4, apart = 4 * groups;
    ptrdiff_t begin = first < 0 ? 0 : first, end = last > p->columns ? p->columns : last;
    if (begin > last) begin = last;
    if (end < begin) end = begin;
    char padding[FC_BYTES_BLOCK];
    memset(padding, p->fill ^ p->flip, sizeof padding);
    const VEC fill = V(set1_epi8)((char)p->fill);
    for (ptrdiff_t g = 0; g < groups; g++) {
        const char *row[4];
        ptrdiff_t step[4];
        NAME(rows)(p, 4 * g, begin, padding, row, step);
        VEC *out = to + 4 * g;
        for (ptrdiff_t i = first; i < begin; i++, out += apart) out[0] = out[1] = out[2] = out[3] = fill;
        if (p->flip)
            NAME(columns)(p, row, step, end - begin, out, apart, 0, 1);
        else if (p->rows - 4 * g == 3)
            NAME(columns)(p, row, step, end - begin, out, apart, 1, 0);
        else
            NAME(columns)(p, row, step, end - begin, out, apart, 0, 0);
        out += (end - begin) * apart;
        for (ptrdiff_t i = end > begin ? end : begin; i < last; i++, out += apart)
            out[0] = out[1] = out[2] = out[3] = fill;
    }
}

/* What follows the sums, held in registers: whoever packs sees to it that no product leaves int32. */
typedef struct { VEC zero, low, high; const REAL *multiplier; uint64_t mask; int is_signed; } NAME(ends);

static inline __attribute__((always_inline)) NAME(ends) NAME(ends_of)(const fc_depthwise_row *p) {
    const fc_requantise *q = p->requantise;
    return (NAME(ends)){V(set1_epi16)((short)q->zero), V(set1_epi8)((char)q->low), V(set1_epi8)((char)q->high),
                        (const REAL *)p->multiplier, MASK(p), q->is_signed};
}

/* Sums of some outputs side by side, [output][vector], to bytes. */
static inline __attribute__((always_inline)) void NAME(put)(const NAME(ends) *e, VEC (*acc)[4], const int count,
                                                            char *out, ptrdiff_t out_column) {
    UNROLL for (int j = 0; j < 4; j++) {
        const REAL m = e->multiplier[j];
        UNROLL for (int o = 0; o < count; o++)
            acc[o][j] = VF(cvtps_epi32)(VF(mul_ps)(VF(cvtepi32_ps)(acc[o][j]), m));
    }
    UNROLL for (int o = 0; o < count; o++) {
        const VEC a = V(adds_epi16)(V(packs_epi32)(acc[o][0], acc[o][1]), e->zero),
                  b = V(adds_epi16)(V(packs_epi32)(acc[o][2], acc[o][3]), e->zero);
        const VEC line = e->is_signed ? V(max_epi8)(V(min_epi8)(V(packs_epi16)(a, b), e->high), e->low)
                                      : V(max_epu8)(V(min_epu8)(V(packus_epi16)(a, b), e->high), e->low);
        V(mask_storeu_epi8)(out + o * out_column, e->mask, line);
    }
}

static inline __attribute__((always_inline)) void NAME(outputs)(const fc_depthwise_row *p, const VEC *x,
                                                                const int count, char *out) {
    const VEC *w = p->weights;
    const ptrdiff_t groups = (p->rows + 3) / 4;
    const VEC *from[4];
    UNROLL for (int o = 0; o < count; o++) from[o] = x + o * p->stride * groups * 4;
    const ptrdiff_t next = (p->dilation - 1) * groups * 4;
    VEC acc[4][4];
    UNROLL for (int j = 0; j < 4; j++)
        UNROLL for (int o = 0; o < count; o++) acc[o][j] = ((const VEC *)p->shift)[j];
    for (ptrdiff_t t = 0; t < p->taps; t++)
        for (ptrdiff_t g = 0; g < groups; g++, w += 4)
            UNROLL for (int o = 0; o < count; o++) {
                UNROLL for (int j = 0; j < 4; j++) acc[o][j] = V(dpbusd_epi32)(acc[o][j], from[o][j], w[j]);
                from[o] += 4 + (g + 1 == groups ? next : 0);
            }
    const NAME(ends) ends = NAME(ends_of)(p);
    NAME(put)(&ends, acc, count, out, p->out_column);
}

/* Three taps side by side, on at most three rows, over columns that exist: what was interleaved stays in registers, and
   two outputs share the weights. */
static inline __attribute__((always_inline)) void NAME(three_taps)(const fc_depthwise_row *p, ptrdiff_t o, ptrdiff_t end,
                                                                   const int stride, const int three, const int flips) {
    const VEC *w = p->weights, *shift = (const VEC *)p->shift, flip = V(set1_epi8)((char)p->flip);
    const NAME(ends) ends = NAME(ends_of)(p);
    const ptrdiff_t out_column = p->out_column;
    const char *row[4];
    ptrdiff_t step[4];
    char padding[FC_BYTES_BLOCK], *out = p->out + o * out_column;
    memset(padding, p->fill ^ p->flip, sizeof padding);
    NAME(rows)(p, 0, p->first + o * stride, padding, row, step);
    const char *r0 = row[0], *r1 = row[1], *r2 = row[2], *r3 = row[3];
    const ptrdiff_t s0 = step[0], s1 = step[1], s2 = step[2], s3 = step[3];
#define NEXT_COLUMN(to)                                                                                             \
    do {                                                                                                            \
        NAME(column)((const char *const[]){r0, r1, r2, r3}, 0, step, ends.mask, flip, to, three, flips);            \
        r0 += s0, r1 += s1, r2 += s2, r3 += s3;                                                                     \
    } while (0)
    VEC x[4][4] = {{{0}}}; /* the last for what a single output does not use */
    UNROLL for (int t = 0; t < 3 - stride; t++) NEXT_COLUMN(x[t]);
    const int pairs = stride == 1; /* twice the columns of more would not stay in registers */
    for (; o < end; o += 1 + pairs, out += (1 + pairs) * out_column) {
        const int both = pairs && o + 1 < end;
        VEC acc[2][4];
        UNROLL for (int t = 3 - stride; t < 3; t++) NEXT_COLUMN(x[t]);
        if (both) NEXT_COLUMN(x[3]);
        UNROLL for (int j = 0; j < 4; j++) acc[0][j] = acc[1][j] = shift[j];
        UNROLL for (int t = 0; t < 3; t++)
            UNROLL for (int j = 0; j < 4; j++) {
                const VEC one = w[4 * t + j];
                acc[0][j] = V(dpbusd_epi32)(acc[0][j], x[t][j], one);
                if (pairs) acc[1][j] = V(dpbusd_epi32)(acc[1][j], x[t + 1][j], one);
            }
        if (both)
            NAME(put)(&ends, acc, 2, out, out_column);
        else
            NAME(put)(&ends, acc, 1, out, out_column);
        UNROLL for (int t = 0; t < 3 - stride; t++)
            UNROLL for (int j = 0; j < 4; j++) x[t][j] = x[t + 2][j];
    }
#undef NEXT_COLUMN
}

static void NAME(any_taps)(const fc_depthwise_row *p, ptrdiff_t o, ptrdiff_t last) {
    VEC *region = p->scratch;
    const ptrdiff_t groups = (p->rows + 3) / 4;
    for (; o < last; o += FC_BYTES_OUTPUTS) {
        const ptrdiff_t end = o + FC_BYTES_OUTPUTS < last ? o + FC_BYTES_OUTPUTS : last;
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

static void NAME(depthwise)(const fc_depthwise_row *p) {
    if (p->rows > 3 || p->taps != 3 || p->dilation != 1 || p->stride > 2) {
        NAME(any_taps)(p, 0, p->outputs);
        return;
    }
    /* outputs whose columns all exist */
    ptrdiff_t begin = p->first < 0 ? (p->stride - 1 - p->first) / p->stride : 0;
    ptrdiff_t end = p->columns - 3 - p->first < 0 ? 0 : (p->columns - 3 - p->first) / p->stride + 1;
    begin = begin < p->outputs ? begin : p->outputs;
    end = end < begin ? begin : end < p->outputs ? end : p->outputs;
    NAME(any_taps)(p, 0, begin);
    if (begin < end) {
        if (p->stride == 1 && !p->flip)
            NAME(three_taps)(p, begin, end, 1, 1, 0);
        else if (p->stride == 1)
            NAME(three_taps)(p, begin, end, 1, 1, 1);
        else if (!p->flip)
            NAME(three_taps)(p, begin, end, 2, 1, 0);
        else
            NAME(three_taps)(p, begin, end, 2, 1, 1);
    }
    NAME(any_taps)(p, end, p->outputs);
}

#undef WIDTH
#undef NAME
#undef V
#undef VF
#undef VEC
#undef REAL
