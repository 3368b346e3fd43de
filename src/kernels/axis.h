/* Sums along one axis of an array (outer, n, inner), and running means: what filters of images come down to.

   Everything is done in double precision and in SciPy's order, each product and each sum rounded for itself, so that
   results have its bits: of a symmetric kernel the pairs from the outermost on, after the middle. Lanes are elements that
   lie side by side: of `inner`, or neighbours of one line. Included where T is double. */

#ifndef FC_AXIS_H
#define FC_AXIS_H
typedef struct {
    const char *x;          /* contiguous, as y is, which does not overlap it */
    char *y;
    int x_code, y_code;     /* fc_dtype; no types of 16 bits */
    int x_size, y_size;
    ptrdiff_t outer, samples, n, inner, taps; /* samples of x and n of y along the axis */
    const ptrdiff_t *place; /* where the n + taps - 1 samples of an extended line lie in x; -1: `beyond` */
    double beyond;
    const double *weight;   /* NULL: the running mean of so many taps */
    int symmetric;          /* 1, -1 for its negative, 0 */
} fc_axis;
enum { FC_AXIS_COLUMNS = 128, FC_AXIS_ROWS = 64, FC_AXIS_CHUNK = 1024, FC_AXIS_LINES = 8, FC_AXIS_PART = 128 };
typedef struct {
    /* All return 0 when an integer type does not hold a result. Scratch is in doubles, see drivers/axis.pxi.
       Some columns of `inner`, at most FC_AXIS_COLUMNS; rows first ... first + count - 1, of a mean all. */
    int (*across)(const fc_axis *a, ptrdiff_t outer, ptrdiff_t column, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t count,
                  double *scratch);
    /* Elements first ... first + count - 1 of a line of n * inner. */
    int (*along)(const fc_axis *a, ptrdiff_t outer, ptrdiff_t first, ptrdiff_t count, double *scratch);
    /* Means of `lines` lines, at most FC_AXIS_LINES, where inner is 1. */
    int (*means)(const fc_axis *a, ptrdiff_t outer, ptrdiff_t lines, double *scratch);
} fc_axis_kernels;
#endif

#ifdef VECTOR_BYTES /* for a set; else for the driver */
/* Code, type, and the numbers between which what is cut to it lies. */
#define AXIS_TYPES(X)                                                                                                \
    X(FC_I8, int8_t, -129., 128.) X(FC_U8, uint8_t, -1., 256.) X(FC_I16, int16_t, -32769., 32768.)                   \
    X(FC_U16, uint16_t, -1., 65536.) X(FC_I32, int32_t, -2147483649., 2147483648.)                                   \
    X(FC_U32, uint32_t, -1., 4294967296.) X(FC_I64, int64_t, -0x1.0000000000001p63, 0x1p63)                          \
    X(FC_U64, uint64_t, -1., 0x1p64)

static void axis_read(double *to, const char *from, int code, ptrdiff_t count) {
#define AXIS_READ(c, S, below, beyond)                                                                               \
    case c:                                                                                                          \
        for (ptrdiff_t i = 0; i < count; i++) to[i] = (double)((const S *)from)[i];                                  \
        return;
    switch (code) {
        AXIS_TYPES(AXIS_READ)
        AXIS_READ(FC_F32, float, 0, 0)
    default: memcpy(to, from, count * sizeof(double));
    }
#undef AXIS_READ
}

static int axis_write(char *to, const double *from, int code, ptrdiff_t count) {
    int bad = 0;
#define AXIS_WRITE(c, S, below, beyond)                                                                              \
    case c:                                                                                                          \
        for (ptrdiff_t i = 0; i < count; i++) {                                                                      \
            int fits = (from[i] > below) & (from[i] < beyond);                                                       \
            bad |= !fits;                                                                                            \
            ((S *)to)[i] = fits ? (S)from[i] : 0;                                                                    \
        }                                                                                                            \
        return !bad;
    switch (code) {
        AXIS_TYPES(AXIS_WRITE)
    case FC_F32:
        for (ptrdiff_t i = 0; i < count; i++) ((float *)to)[i] = (float)from[i];
        return 1;
    default: memcpy(to, from, count * sizeof(double)); return 1;
    }
#undef AXIS_WRITE
}

/* to[i] = sum over the taps of weight[k] * from[k][at + i], of so many vectors or, of one, `left` elements. */
static inline __attribute__((always_inline)) void axis_sum(double *to, const double *const *from, ptrdiff_t at,
                                                           const fc_axis *a, const int vectors, ptrdiff_t left) {
    const ptrdiff_t taps = a->taps, middle = taps / 2;
    const int symmetric = a->symmetric;
    NAME(vec) sum[8], one;
#define AXIS_LOAD(k, j)                                                                                              \
    ({                                                                                                               \
        NAME(vec) loaded = {0};                                                                                      \
        if (left >= LANES) loaded = *(const NAME(vec) *)(from[k] + at + (j) * LANES);                                \
        else memcpy(&loaded, from[k] + at, left * sizeof(double));                                                   \
        loaded;                                                                                                      \
    })
    const ptrdiff_t first = symmetric ? middle : taps - 1; /* the tap that a sum begins with */
    UNROLL for (int j = 0; j < vectors; j++) sum[j] = AXIS_LOAD(first, j) * a->weight[first];
    UNROLL for (int j = 0; j < vectors; j++) ROUNDED(sum[j]);
    if (symmetric)
        for (ptrdiff_t k = 0; k < middle; k++) {
            const double w = a->weight[k];
            UNROLL for (int j = 0; j < vectors; j++) {
                NAME(vec) p = AXIS_LOAD(k, j), q = AXIS_LOAD(taps - 1 - k, j);
                one = (symmetric > 0 ? p + q : p - q) * w;
                ROUNDED(one);
                sum[j] += one;
            }
        }
    else
        for (ptrdiff_t k = 0; k < taps - 1; k++) {
            const double w = a->weight[k];
            UNROLL for (int j = 0; j < vectors; j++) {
                one = AXIS_LOAD(k, j) * w;
                ROUNDED(one);
                sum[j] += one;
            }
        }
#undef AXIS_LOAD
    UNROLL for (int j = 0; j < vectors; j++) *(NAME(vec) *)(to + j * LANES) = sum[j];
}

/* `to` has room for whole vectors; `from` is read no further than count. */
static void axis_sums(double *to, const double *const *from, const fc_axis *a, ptrdiff_t count) {
    ptrdiff_t i = 0;
    for (; i + 8 * LANES <= count; i += 8 * LANES) axis_sum(to + i, from, i, a, 8, LANES);
    for (; i + 2 * LANES <= count; i += 2 * LANES) axis_sum(to + i, from, i, a, 2, LANES);
    for (; i < count; i += LANES) axis_sum(to + i, from, i, a, 1, count - i);
}

/* Sample `at` of the extended axis, of some columns. */
static inline const char *axis_source(const fc_axis *a, ptrdiff_t outer, ptrdiff_t at, ptrdiff_t column) {
    return a->x + ((outer * a->samples + a->place[at]) * a->inner + column) * a->x_size;
}

static void axis_samples(const fc_axis *a, ptrdiff_t outer, ptrdiff_t at, ptrdiff_t column, ptrdiff_t columns,
                         double *to) {
    if (a->place[at] < 0)
        for (ptrdiff_t i = 0; i < columns; i++) to[i] = a->beyond;
    else
        axis_read(to, axis_source(a, outer, at, column), a->x_code, columns);
}

static int axis_means_across(const fc_axis *a, ptrdiff_t outer, ptrdiff_t column, ptrdiff_t columns, double *scratch) {
    double *sum = scratch, *gone = sum + FC_AXIS_COLUMNS, *come = gone + FC_AXIS_COLUMNS;
    const double taps = (double)a->taps;
    int good = 1;
    for (ptrdiff_t i = 0; i < columns; i++) sum[i] = 0;
    for (ptrdiff_t k = 0; k < a->taps; k++) {
        axis_samples(a, outer, k, column, columns, come);
        for (ptrdiff_t i = 0; i < columns; i++) sum[i] += come[i];
    }
    for (ptrdiff_t row = 0; row < a->n; row++) {
        if (row > 0) {
            axis_samples(a, outer, row - 1, column, columns, gone);
            axis_samples(a, outer, row + a->taps - 1, column, columns, come);
            for (ptrdiff_t i = 0; i < columns; i++) sum[i] += come[i] - gone[i];
        }
        for (ptrdiff_t i = 0; i < columns; i++) come[i] = sum[i] / taps;
        good &= axis_write(a->y + ((outer * a->n + row) * a->inner + column) * a->y_size, come, a->y_code, columns);
    }
    return good;
}

static int axis_across(const fc_axis *a, ptrdiff_t outer, ptrdiff_t column, ptrdiff_t columns, ptrdiff_t first,
                       ptrdiff_t count, double *scratch) {
    if (!a->weight) return axis_means_across(a, outer, column, columns, scratch);
    double *beyond = scratch, *line = beyond + FC_AXIS_COLUMNS, *samples = line + FC_AXIS_COLUMNS;
    const double **rows = (const double **)(samples + (FC_AXIS_ROWS + a->taps - 1) * FC_AXIS_COLUMNS);
    int good = 1;
    for (ptrdiff_t i = 0; i < columns; i++) beyond[i] = a->beyond;
    for (ptrdiff_t k = 0; k < count + a->taps - 1; k++) {
        double *own = samples + k * FC_AXIS_COLUMNS;
        if (a->place[first + k] < 0)
            rows[k] = beyond;
        else if (a->x_code == FC_F64)
            rows[k] = (const double *)axis_source(a, outer, first + k, column);
        else
            axis_read(own, axis_source(a, outer, first + k, column), a->x_code, columns), rows[k] = own;
    }
    for (ptrdiff_t row = 0; row < count; row++) {
        axis_sums(line, rows + row, a, columns);
        good &= axis_write(a->y + ((outer * a->n + first + row) * a->inner + column) * a->y_size, line, a->y_code,
                           columns);
    }
    return good;
}

/* Samples first ... of one line where `inner` lie side by side: runs that follow one another are read at once. */
static void axis_line(const fc_axis *a, ptrdiff_t outer, ptrdiff_t first, ptrdiff_t count, double *to) {
    for (ptrdiff_t k = 0, run; k < count; k += run) {
        const ptrdiff_t *place = a->place + first + k;
        for (run = 1; k + run < count && *place >= 0 && place[run] == *place + run; run++) {}
        axis_samples(a, outer, first + k, 0, run * a->inner, to + k * a->inner);
    }
}

static int axis_along(const fc_axis *a, ptrdiff_t outer, ptrdiff_t first, ptrdiff_t count, double *scratch) {
    const ptrdiff_t begin = first / a->inner, end = (first + count - 1) / a->inner + 1;
    double *line = scratch, *samples = line + FC_AXIS_CHUNK + LANES;
    const double **from = (const double **)(samples + FC_AXIS_CHUNK + (a->taps + 1) * a->inner);
    axis_line(a, outer, begin, end - begin + a->taps - 1, samples);
    for (ptrdiff_t k = 0; k < a->taps; k++) from[k] = samples + first - begin * a->inner + k * a->inner;
    axis_sums(line, from, a, count);
    return axis_write(a->y + (outer * a->n * a->inner + first) * a->y_size, line, a->y_code, count);
}

/* to[i][line] = from[line][i], and back */
static inline void axis_turn(const double *from, double *to, ptrdiff_t count, const int back) {
    for (ptrdiff_t l = 0; l < FC_AXIS_LINES; l += LANES)
        for (ptrdiff_t i = 0; i < count; i += LANES) {
            NAME(vec) v[LANES];
            const double *in = back ? from + i * FC_AXIS_LINES + l : from + l * FC_AXIS_PART + i;
            double *out = back ? to + l * FC_AXIS_PART + i : to + i * FC_AXIS_LINES + l;
            const ptrdiff_t row = back ? FC_AXIS_LINES : FC_AXIS_PART, turned = back ? FC_AXIS_PART : FC_AXIS_LINES;
            UNROLL_LANES for (int j = 0; j < LANES; j++) v[j] = *(const NAME(vec) *)(in + j * row);
            NAME(transpose_block)(v);
            UNROLL_LANES for (int j = 0; j < LANES; j++) *(NAME(vec) *)(out + j * turned) = v[j];
        }
}

static void axis_lines(const fc_axis *a, ptrdiff_t outer, ptrdiff_t lines, ptrdiff_t first, ptrdiff_t count, double *line,
                       double *to) {
    for (ptrdiff_t l = 0; l < lines; l++) axis_line(a, outer + l, first, count, line + l * FC_AXIS_PART);
    axis_turn(line, to, count, 0);
}

static int axis_means(const fc_axis *a, ptrdiff_t outer, ptrdiff_t lines, double *scratch) {
    enum { BLOCK = FC_AXIS_PART * FC_AXIS_LINES, VECTORS_A_STEP = FC_AXIS_LINES / LANES };
    double *line = scratch, *gone = line + BLOCK, *come = gone + BLOCK;
    const double taps = (double)a->taps;
    NAME(vec) sum[VECTORS_A_STEP] = {0};
    int good = 1;
    memset(line, 0, BLOCK * sizeof(double)); /* lines that there are not */
    for (ptrdiff_t k = 0; k < a->taps; k += FC_AXIS_PART) {
        ptrdiff_t count = a->taps - k < FC_AXIS_PART ? a->taps - k : FC_AXIS_PART;
        axis_lines(a, outer, lines, k, count, line, come);
        for (ptrdiff_t i = 0; i < count; i++)
            UNROLL for (int v = 0; v < VECTORS_A_STEP; v++)
                sum[v] += *(NAME(vec) *)(come + i * FC_AXIS_LINES + v * LANES);
    }
    /* the first output from nothing that went or came */
    for (ptrdiff_t first = 0, skip = 1; first < a->n; first += FC_AXIS_PART, skip = 0) {
        const ptrdiff_t count = a->n - first < FC_AXIS_PART ? a->n - first : FC_AXIS_PART;
        axis_lines(a, outer, lines, first - 1 + skip, count - skip, line, gone + skip * FC_AXIS_LINES);
        axis_lines(a, outer, lines, first + a->taps - 1 + skip, count - skip, line, come + skip * FC_AXIS_LINES);
        if (skip) memset(gone, 0, FC_AXIS_LINES * sizeof(double)), memset(come, 0, FC_AXIS_LINES * sizeof(double));
        for (ptrdiff_t i = 0; i < count; i++)
            UNROLL for (int v = 0; v < VECTORS_A_STEP; v++) {
                NAME(vec) *to = (NAME(vec) *)(gone + i * FC_AXIS_LINES + v * LANES);
                sum[v] += *(NAME(vec) *)(come + i * FC_AXIS_LINES + v * LANES) - *to;
                *to = sum[v] / taps;
            }
        axis_turn(gone, line, count, 1);
        for (ptrdiff_t l = 0; l < lines; l++)
            good &= axis_write(a->y + ((outer + l) * a->n + first) * a->y_size, line + l * FC_AXIS_PART, a->y_code, count);
    }
    return good;
}

static const fc_axis_kernels axis_kernels = {axis_across, axis_along, axis_means};
#undef AXIS_TYPES
#endif
