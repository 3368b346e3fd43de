/* Convolution of planes of several taps, a lane a pixel: the product whose columns are pixels, and the planes under it, for
   every phase of the stride one of its own, in which a tap is a distance. Included by lanes.h. */

static inline __attribute__((always_inline)) void NAME(shifted_tile)(const int rows, const int vectors, const fc_shifted *p,
                                                                     ptrdiff_t first) {
    NAME(vec) acc[6][FC_MAX_VECTORS];
    const T *a = (const T *)p->a + first, *b = p->b, *bias = p->bias;
    T *c = (T *)p->c + first * p->c_row;
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
    if (vectors == VECTORS && p->fetch)
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) __builtin_prefetch(c + i * p->c_row + j * LANES, 1, 3);
    const ptrdiff_t *shift = p->shift;
    for (ptrdiff_t k = p->steps; k > 0; k--, a += p->width) {
        const T *in = b + *shift++;
        NAME(vec) x[FC_MAX_VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) x[j] = *(const NAME(vec) *)(in + j * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            const T w = a[i];
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += x[j] * w;
        }
    }
    if (bias)
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += bias[first + i];
    if (p->relu)
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = NAME(relu)(acc[i][j]);
    if (p->relu == FC_RELU6)
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = NAME(at_most_six)(acc[i][j]);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) *(NAME(vec) *)(c + i * p->c_row + j * LANES) = acc[i][j];
}

#define SHIFTED_CASE(rows, vectors)                                                                                  \
    case rows: NAME(shifted_tile)(rows, vectors, p, first); break;
#define SHIFTED(vectors)                                                                                             \
    static void NAME(shifted_##vectors)(const fc_shifted *p) { /* tiles of rows as equal as can be */               \
        const ptrdiff_t tiles = (p->rows + 5) / 6;                                                                   \
        for (ptrdiff_t t = 0, first = 0, next; t < tiles; t++, first = next) {                                       \
            next = (t + 1) * p->rows / tiles;                                                                        \
            switch (next - first) {                                                                                  \
                SHIFTED_CASE(1, vectors) SHIFTED_CASE(2, vectors) SHIFTED_CASE(3, vectors)                           \
                SHIFTED_CASE(4, vectors) SHIFTED_CASE(5, vectors) SHIFTED_CASE(6, vectors)                           \
            }                                                                                                        \
        }                                                                                                            \
    }
SHIFTED(1) SHIFTED(2)
#if VECTORS == 4
SHIFTED(3) SHIFTED(4)
#define SHIFTED_TABLE .shifted = {NULL, NAME(shifted_1), NAME(shifted_2), NAME(shifted_3), NAME(shifted_4)},
#else
#define SHIFTED_TABLE .shifted = {NULL, NAME(shifted_1), NAME(shifted_2)},
#endif

/* A vector of elements `stride` apart, of which `reach` from the first to the last are wanted; nothing at or after `end` is
   read. */
static inline __attribute__((always_inline)) NAME(vec) NAME(phase_vector)(const int stride, const T *in, ptrdiff_t reach,
                                                                          const T *end) {
    NAME(vec) v = NAME(flat_head)(in, reach, end);
#if FLAT_SHUFFLES
    UNROLL for (int j = 1; j < stride; j++) { /* those that lie in vector j to their places, the others stay in theirs */
        NAME(flat_index) from;
        UNROLL_LANES for (int i = 0; i < LANES; i++)
            from[i] = i * stride / LANES == j ? LANES + i * stride % LANES : j == 1 && i * stride < LANES ? i * stride : i;
        v = __builtin_shuffle(v, NAME(flat_head)(in + j * LANES, reach - j * LANES, end), from);
    }
#else
    if (stride > 1)
        for (int i = 0; i < LANES; i++) v[i] = i * stride < reach ? in[i * stride] : 0;
#endif
    return v;
}

/* A row of every phase and channel, zeros for what lies outside the plane; whole vectors are written. */
static inline __attribute__((always_inline)) void NAME(phases_of)(const int known, const fc_phases *p, const T *row, T *to) {
    const ptrdiff_t stride = known ? known : p->stride;
    for (ptrdiff_t j = 0; j < p->phases; j++) {
        const ptrdiff_t x = p->first + j;
        ptrdiff_t low = x < 0 ? (-x + stride - 1) / stride : 0, high = x < p->width ? (p->width - 1 - x) / stride + 1 : 0;
        high = high < p->count ? high : p->count;
        if (low >= high || !row) low = high = 0;
        const T *in = low < high ? row + x + low * stride : (const T *)p->end;
        const ptrdiff_t most = (high - low) / LANES;
        for (ptrdiff_t c = 0; c < p->channels; c++, in += p->channel, to += p->apart) {
            const ptrdiff_t lie = ((const T *)p->end - in) / (LANES * stride), whole = most < lie ? most : lie;
            ptrdiff_t k = 0;
            for (; k < low; k += LANES) *(NAME(vec) *)(to + k) = (NAME(vec)){0};
            k = low;
            if (known) {
                for (; k < low + whole * LANES; k += LANES)
                    *(NAME(vec) *)(to + k) = NAME(phase_vector)(known, in + (k - low) * known, LANES * known, p->end);
                for (; k < high; k += LANES)
                    *(NAME(vec) *)(to + k) =
                        NAME(phase_vector)(known, in + (k - low) * known, (high - k - 1) * known + 1, p->end);
            } else {
                for (; k < high; k++) to[k] = in[(k - low) * stride];
            }
            for (k = high; k < p->count; k += LANES) *(NAME(vec) *)(to + k) = (NAME(vec)){0};
        }
    }
}

static void NAME(phases)(const fc_phases *p, const void *row, void *to) {
    switch (p->stride) {
    case 1: NAME(phases_of)(1, p, row, to); break;
    case 2: NAME(phases_of)(2, p, row, to); break;
    case 3: NAME(phases_of)(3, p, row, to); break;
    case 4: NAME(phases_of)(4, p, row, to); break;
    default: NAME(phases_of)(0, p, row, to);
    }
}
