/* Softmax and normalisations. Included once a type with
     T        element type           NORMS(x)  x with the type's suffix
     INTEGER  integer of its size    MAP      its functions.h
     LANES    elements of a vector
   A row lies side by side in memory; columns are several beside each other, whose rows lie `stride` elements apart.
   Sums are made of at most PIECE terms a lane or column before they join others in double, so that no error grows with
   their length; the sums of squares are those about the mean of a piece, and are put together by Chan, Golub and LeVeque
   (1979). */
typedef T NORMS(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
typedef INTEGER NORMS(bits) __attribute__((vector_size(VECTOR_BYTES)));

#ifndef FASTCONV_NORMS_H
#define FASTCONV_NORMS_H
enum { PIECE = 64 };

static inline void merge_moments(double *mean, double *square, double count, double m, double s, double more) {
    const double apart = m - *mean, total = count + more;
    *mean += apart * (more / total);
    *square += s + apart * apart * (count * more / total);
}
#endif

static T NORMS(largest)(const T *x, ptrdiff_t count) {
    T most = -(T)INFINITY;
    ptrdiff_t i = 0;
    if (count >= LANES) {
        NORMS(vec) found = *(const NORMS(vec) *)x;
        for (i = LANES; i + LANES <= count; i += LANES) {
            const NORMS(vec) v = *(const NORMS(vec) *)(x + i);
            const NORMS(bits) larger = (NORMS(bits))(v > found);
            found = (NORMS(vec))(((NORMS(bits))v & larger) | ((NORMS(bits))found & ~larger));
        }
        for (int j = 0; j < LANES; j++) most = found[j] > most ? found[j] : most;
    }
    for (; i < count; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* The sum of up to PIECE vectors; of x - mean and of its squares where there is a place for those. */
static double NORMS(piece)(const T *x, ptrdiff_t count, T mean, double *square) {
    NORMS(vec) sum = {0}, squares = {0};
    double total = 0, total_squares = 0;
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const NORMS(vec) v = *(const NORMS(vec) *)(x + i) - mean;
        sum += v;
        if (square) squares += v * v;
    }
    for (int j = 0; j < LANES; j++) total += sum[j], total_squares += squares[j];
    for (; i < count; i++) {
        const T v = x[i] - mean;
        total += v, total_squares += v * v;
    }
    if (square) *square = total_squares;
    return total;
}

/* y = exp(x) / sum(exp(x)), or its logarithm; y may be x. */
static void NORMS(softmax)(void *y_, const void *x_, ptrdiff_t count, int logarithm) {
    enum { STEP = PIECE * LANES };
    T *y = y_, buffer[STEP];
    const T *x = x_, most = NORMS(largest)(x, count);
    double sum = 0;
    for (ptrdiff_t begin = 0; begin < count; begin += STEP) {
        const ptrdiff_t n = count - begin < STEP ? count - begin : STEP;
        T *to = logarithm ? buffer : y + begin;
        for (ptrdiff_t i = 0; i < n; i++) to[i] = x[begin + i] - most;
        MAP(FC_EW_EXP, 0, to, n);
        sum += NORMS(piece)(to, n, 0, NULL);
    }
    const T factor = (T)(1 / sum), shift = (T)log(sum);
    if (logarithm)
        for (ptrdiff_t i = 0; i < count; i++) y[i] = (x[i] - most) - shift;
    else
        for (ptrdiff_t i = 0; i < count; i++) y[i] *= factor;
}

/* The same of every one of up to FC_MOST_COLUMNS columns. */
static void NORMS(column_softmax)(void *y_, const void *x_, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns,
                                 int logarithm) {
    T *const y = y_, most[FC_MOST_COLUMNS], sum[FC_MOST_COLUMNS], line[FC_MOST_COLUMNS];
    const T *const x = x_;
    double total[FC_MOST_COLUMNS] = {0};
    for (ptrdiff_t c = 0; c < columns; c++) most[c] = -(T)INFINITY;
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c++) most[c] = x[r * stride + c] > most[c] ? x[r * stride + c] : most[c];
    for (ptrdiff_t begin = 0; begin < rows; begin += PIECE) {
        const ptrdiff_t end = begin + PIECE < rows ? begin + PIECE : rows;
        for (ptrdiff_t c = 0; c < columns; c++) sum[c] = 0;
        for (ptrdiff_t r = begin; r < end; r++) {
            T *to = logarithm ? line : y + r * stride;
            for (ptrdiff_t c = 0; c < columns; c++) to[c] = x[r * stride + c] - most[c];
            MAP(FC_EW_EXP, 0, to, columns);
            for (ptrdiff_t c = 0; c < columns; c++) sum[c] += to[c];
        }
        for (ptrdiff_t c = 0; c < columns; c++) total[c] += sum[c];
    }
    for (ptrdiff_t c = 0; c < columns; c++) sum[c] = logarithm ? (T)log(total[c]) : (T)(1 / total[c]);
    for (ptrdiff_t r = 0; r < rows; r++)
        if (logarithm)
            for (ptrdiff_t c = 0; c < columns; c++) y[r * stride + c] = (x[r * stride + c] - most[c]) - sum[c];
        else
            for (ptrdiff_t c = 0; c < columns; c++) y[r * stride + c] *= sum[c];
}

/* The mean and the sum of squares about it; without `centre` 0 and the sum of squares. */
static void NORMS(moments)(const void *x_, ptrdiff_t count, int centre, double *moments) {
    enum { STEP = PIECE * LANES };
    const T *x = x_;
    double mean = 0, square = 0, origin = 0; /* means are counted from the first, so that merging rounds off little */
    for (ptrdiff_t begin = 0; begin < count; begin += STEP) {
        const ptrdiff_t n = count - begin < STEP ? count - begin : STEP;
        double own = 0, rest;
        const T about = centre ? (T)(NORMS(piece)(x + begin, n, 0, NULL) / n) : 0;
        rest = NORMS(piece)(x + begin, n, about, &own) / n; /* what `about` was rounded by */
        origin = begin ? origin : about;
        if (centre)
            merge_moments(&mean, &square, begin, (about - origin) + rest, own - rest * rest * n, n);
        else
            square += own;
    }
    moments[0] = origin + mean, moments[1] = square;
}

static void NORMS(column_moments)(const void *x_, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns, double *mean,
                                 double *square) {
    const T *x = x_;
    T origin[FC_MOST_COLUMNS], about[FC_MOST_COLUMNS], sum[FC_MOST_COLUMNS], squares[FC_MOST_COLUMNS];
    for (ptrdiff_t c = 0; c < columns; c++) mean[c] = square[c] = 0;
    for (ptrdiff_t begin = 0; begin < rows; begin += PIECE, x += PIECE * stride) {
        const ptrdiff_t n = rows - begin < PIECE ? rows - begin : PIECE;
        for (ptrdiff_t c = 0; c < columns; c++) about[c] = sum[c] = squares[c] = 0;
        for (ptrdiff_t r = 0; r < n; r++)
            for (ptrdiff_t c = 0; c < columns; c++) about[c] += x[r * stride + c];
        for (ptrdiff_t c = 0; c < columns; c++) about[c] /= (T)n;
        if (!begin) memcpy(origin, about, columns * sizeof(T));
        for (ptrdiff_t r = 0; r < n; r++)
            for (ptrdiff_t c = 0; c < columns; c++) {
                const T v = x[r * stride + c] - about[c];
                sum[c] += v;
                squares[c] += v * v;
            }
        for (ptrdiff_t c = 0; c < columns; c++) {
            const double rest = (double)sum[c] / n;
            merge_moments(mean + c, square + c, begin, ((double)about[c] - origin[c]) + rest,
                          squares[c] - rest * rest * n, n);
        }
    }
    for (ptrdiff_t c = 0; rows > 0 && c < columns; c++) mean[c] += origin[c];
}

/* y = (x - mean) * factor * scale + shift, where there are such vectors, or * factor + add; y may be x. */
static void NORMS(normalise)(void *y_, const void *x_, ptrdiff_t count, double mean_, double factor_, const void *scale_,
                            const void *shift_, double add_) {
    T *y = y_;
    const T *x = x_, *restrict scale = scale_, *restrict shift = shift_;
    const T mean = (T)mean_, factor = (T)factor_, add = (T)add_;
    if (scale && shift)
        INDEPENDENT for (ptrdiff_t i = 0; i < count; i++) y[i] = (x[i] - mean) * factor * scale[i] + shift[i];
    else if (scale)
        INDEPENDENT for (ptrdiff_t i = 0; i < count; i++) y[i] = (x[i] - mean) * factor * scale[i];
    else
        INDEPENDENT for (ptrdiff_t i = 0; i < count; i++) y[i] = (x[i] - mean) * factor + add;
}

static void NORMS(column_normalise)(void *y_, const void *x_, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t columns,
                                   const void *mean_, const void *factor_, const void *shift_) {
    T *y = y_;
    const T *x = x_, *restrict mean = mean_, *restrict factor = factor_, *restrict shift = shift_;
    for (ptrdiff_t r = 0; r < rows; r++, x += stride, y += stride)
        INDEPENDENT for (ptrdiff_t c = 0; c < columns; c++) y[c] = (x[c] - mean[c]) * factor[c] + shift[c];
}

/* A step of an LSTM cell from what goes into its gates i, o, f and g, which is used up (Gers, Schraudolph and Schmidhuber
   2002 with `peephole` for i, o, f): cell = f cell + i g, hidden = o tanh(cell); f = 1 - i where they are coupled. */
static void NORMS(lstm)(void *gates, const void *peephole, void *cell_, void *hidden_, ptrdiff_t count, int coupled) {
    T *i = gates, *o = i + count, *f = o + count, *g = f + count, *cell = cell_, *hidden = hidden_;
    const T *p = peephole;
    if (p)
        INDEPENDENT for (ptrdiff_t k = 0; k < count; k++) i[k] += p[k] * cell[k], f[k] += p[2 * count + k] * cell[k];
    MAP(FC_EW_SIGMOID, 0, i, p ? count : 2 * count);
    MAP(FC_EW_SIGMOID, 0, f, count);
    MAP(FC_EW_TANH, 0, g, count);
    if (coupled)
        INDEPENDENT for (ptrdiff_t k = 0; k < count; k++) f[k] = 1 - i[k];
    INDEPENDENT for (ptrdiff_t k = 0; k < count; k++) {
        const T kept = f[k] * cell[k], more = i[k] * g[k];
        hidden[k] = cell[k] = kept + more;
    }
    if (p) {
        INDEPENDENT for (ptrdiff_t k = 0; k < count; k++) o[k] += p[count + k] * cell[k];
        MAP(FC_EW_SIGMOID, 0, o, count);
    }
    MAP(FC_EW_TANH, 0, hidden, count);
    INDEPENDENT for (ptrdiff_t k = 0; k < count; k++) hidden[k] *= o[k];
}

/* hidden = (1 - z) tanh(candidate) + z hidden: the end of a step of a GRU; the candidate is used up. */
static void NORMS(gru)(void *candidate_, const void *z_, void *hidden_, ptrdiff_t count) {
    T *candidate = candidate_, *hidden = hidden_;
    const T *z = z_;
    MAP(FC_EW_TANH, 0, candidate, count);
    INDEPENDENT for (ptrdiff_t k = 0; k < count; k++) hidden[k] = (1 - z[k]) * candidate[k] + z[k] * hidden[k];
}

static const fc_norm_kernels NORMS(kernels) = {
    NORMS(softmax), NORMS(column_softmax), NORMS(moments), NORMS(column_moments), NORMS(normalise), NORMS(column_normalise),
    NORMS(lstm), NORMS(gru),
};
#undef T
#undef NORMS
#undef INTEGER
#undef MAP
#undef LANES
