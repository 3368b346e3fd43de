/* Weighted sums of rows and their reductions. Included once a type with
     T  element type      ROWS(x)  x with the type's suffix      WIDE_SUM  whether a sum of T needs a second one
     INDEX  an integer as wide as T
   Loops run over elements side by side, so that the compiler makes vectors of them. Sums are made in double; those of
   double with what they round off beside them (Knuth's two-sum). */

/* to[i] = the sum over taps of weight[t] * from[t][i]. `to` is none of them. */
static void ROWS(blend)(void *restrict to_, const void *const *from, const void *weight, ptrdiff_t taps,
                        ptrdiff_t count) {
    T *restrict to = to_;
    const T *w = weight;
    ptrdiff_t t = 0;
    for (; t < taps; t += 4) {
        const T *a = from[t], wa = w[t], *b = a, *c = a, *d = a;
        T wb = 0, wc = 0, wd = 0;
        if (t + 1 < taps) b = from[t + 1], wb = w[t + 1];
        if (t + 2 < taps) c = from[t + 2], wc = w[t + 2];
        if (t + 3 < taps) d = from[t + 3], wd = w[t + 3];
        if (t == 0 && taps == 1)
            for (ptrdiff_t i = 0; i < count; i++) to[i] = wa * a[i];
        else if (t == 0 && taps == 2)
            for (ptrdiff_t i = 0; i < count; i++) to[i] = wa * a[i] + wb * b[i];
        else if (t == 0 && taps == 3)
            for (ptrdiff_t i = 0; i < count; i++) to[i] = wa * a[i] + wb * b[i] + wc * c[i];
        else if (t == 0)
            for (ptrdiff_t i = 0; i < count; i++) to[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
        else if (t + 4 <= taps)
            for (ptrdiff_t i = 0; i < count; i++) to[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
        else
            for (ptrdiff_t u = t; u < taps; u++) {
                const T *one = from[u];
                for (ptrdiff_t i = 0; i < count; i++) to[i] += w[u] * one[i];
            }
    }
}

/* to[i] = the sum over taps of weight[i * taps + t] * from[index[i * taps + t]]; `to_step` elements between results. */
static void ROWS(pick)(void *restrict to_, ptrdiff_t to_step, const void *restrict from_, const ptrdiff_t *index,
                       const void *weight, ptrdiff_t taps, ptrdiff_t count) {
    T *restrict to = to_;
    const T *from = from_, *w = weight;
    if (taps == 2)
        for (ptrdiff_t i = 0; i < count; i++)
            to[i * to_step] = w[2 * i] * from[index[2 * i]] + w[2 * i + 1] * from[index[2 * i + 1]];
    else
        for (ptrdiff_t i = 0; i < count; i++, index += taps, w += taps) {
            T sum = w[0] * from[index[0]];
            for (ptrdiff_t t = 1; t < taps; t++) sum += w[t] * from[index[t]];
            to[i * to_step] = sum;
        }
}

#if WIDE_SUM
#define JOIN_SUM(c, value)                                                                                           \
    {                                                                                                                \
        const double v = (value), s = acc[c] + v, z = s - acc[c];                                                    \
        low[c] += (acc[c] - (s - z)) + (v - z);                                                                      \
        acc[c] = s;                                                                                                  \
    }
#else
#define JOIN_SUM(c, value) acc[c] += (value);
#endif
/* Four rows are added in T first: what that rounds off does not grow with the rows. */
#define FOUR_ROWS(F)                                                                                                 \
    for (; r + 4 <= rows; r += 4, x += 4 * row_stride) {                                                             \
        const T *a = (const T *)x, *b = (const T *)(x + row_stride), *e = (const T *)(x + 2 * row_stride),           \
                *d = (const T *)(x + 3 * row_stride);                                                                \
        INDEPENDENT for (ptrdiff_t c = 0; c < count; c++)                                                            \
            acc[c] += (F(a[c]) + F(b[c])) + (F(e[c]) + F(d[c]));                                                     \
    }
#define SUM_ROWS(F)                                                                                                  \
    if (!WIDE_SUM) FOUR_ROWS(F)                                                                                      \
    for (; r < rows; r++, x += row_stride) {                                                                         \
        const T *a = (const T *)x;                                                                                   \
        INDEPENDENT for (ptrdiff_t c = 0; c < count; c++) JOIN_SUM(c, F((double)a[c]))                               \
    }                                                                                                                \
    break
#define MOST_ROWS(BEYOND)                                                                                            \
    for (; r < rows; r++, x += row_stride) {                                                                         \
        const T *a = (const T *)x;                                                                                   \
        INDEPENDENT for (ptrdiff_t c = 0; c < count; c++) most[c] = a[c] BEYOND most[c] || a[c] != a[c] ? a[c] : most[c]; \
    }                                                                                                                \
    break
#define ITSELF(v) (v)
#define SQUARED(v) ((double)(v) * (v))
#define MAGNITUDE(v) ((v) < 0 ? -(v) : (v))

/* sums[c] = what `how` makes of it and of x[r][c] over all rows. Sums are `count` doubles, of double twice as many;
   extremes are T. NaN is what an extreme becomes that meets one. */
static __attribute__((noinline)) void ROWS(join)(int how, const char *x, ptrdiff_t row_stride, ptrdiff_t rows,
                                                 ptrdiff_t count, void *sums) {
    double *restrict acc = sums, *restrict low = acc + count;
    T *restrict most = sums;
    ptrdiff_t r = 0;
    (void)low;
    switch (how) {
    case FC_JOIN_SUM: SUM_ROWS(ITSELF);
    case FC_JOIN_SQUARES: SUM_ROWS(SQUARED);
    case FC_JOIN_MAGNITUDES: SUM_ROWS(MAGNITUDE);
    case FC_JOIN_MAX: MOST_ROWS(>);
    default: MOST_ROWS(<);
    }
}

/* The same of `count` elements side by side, as columns of rows that are joined in their order. */
static void ROWS(join_line)(int how, const char *x, ptrdiff_t count, void *sums) {
    enum { MOST = 64 };
    double part[2 * MOST];
    T *most = (T *)part;
    const ptrdiff_t columns = count >= 8 * MOST ? MOST : 16, rows = count / columns, row = columns * sizeof(T);
    const int extreme = how == FC_JOIN_MAX || how == FC_JOIN_MIN;
#if !WIDE_SUM
    if (how == FC_JOIN_SUM && count < 2 * MOST) { /* short lines: no more than it takes */
        const T *a = (const T *)x, *end = a + count;
        double *acc = sums, eight[8] = {0};
        for (; end - a >= 32; a += 32)
            for (int c = 0; c < 8; c++) eight[c] += (a[c] + a[c + 8]) + (a[c + 16] + a[c + 24]);
        for (; end - a >= 8; a += 8)
            for (int c = 0; c < 8; c++) eight[c] += a[c];
        *acc += ((eight[0] + eight[4]) + (eight[1] + eight[5])) + ((eight[2] + eight[6]) + (eight[3] + eight[7]));
        for (; a < end; a++) *acc += *a;
        return;
    }
#endif
    if (rows > 0) {
        for (ptrdiff_t c = 0; c < 2 * columns; c++) part[c] = 0;
        if (extreme)
            for (ptrdiff_t c = 0; c < columns; c++) most[c] = *(T *)sums;
        ROWS(join)(how, x, row, rows, columns, part);
        if (extreme)
            ROWS(join)(how, (const char *)most, sizeof(T), columns, 1, sums);
        else {
            double *acc = sums, *low = acc + 1;
            (void)low;
#if WIDE_SUM
            for (ptrdiff_t c = 0; c < columns; c++) {
                JOIN_SUM(0, part[c])
                *low += part[columns + c];
            }
#else
            for (ptrdiff_t half = columns / 2; half > 0; half /= 2)
                for (ptrdiff_t c = 0; c < half; c++) part[c] += part[c + half];
            *acc += part[0];
#endif
        }
    }
    ROWS(join)(how, x + rows * row, sizeof(T), count - rows * columns, 1, sums);
}

#define FIRST(BEYOND)                                                                                                \
    for (; r < rows; r++, x += row_stride) {                                                                         \
        const T *a = (const T *)x;                                                                                   \
        INDEPENDENT for (ptrdiff_t c = 0; c < count; c++) {                                                          \
            const int take = (a[c] BEYOND most[c]) | ((a[c] != a[c]) & (most[c] == most[c]));                       \
            most[c] = take ? a[c] : most[c];                                                                         \
            at[c] = take ? r : at[c];                                                                                \
        }                                                                                                            \
    }                                                                                                                \
    break
#define LAST(BEYOND)                                                                                                 \
    for (; r < rows; r++, x += row_stride) {                                                                         \
        const T *a = (const T *)x;                                                                                   \
        INDEPENDENT for (ptrdiff_t c = 0; c < count; c++) {                                                          \
            const int take = (a[c] BEYOND most[c]) | (a[c] != a[c]);                                                 \
            most[c] = take ? a[c] : most[c];                                                                         \
            at[c] = take ? r : at[c];                                                                                \
        }                                                                                                            \
    }                                                                                                                \
    break

/* most[c] = the largest (or smallest) x[r][c] of at least one row, place[c] (as wide as T) its row: of equals the first or
   the last. NaN is beyond all. */
static void ROWS(place)(int how, int last, const char *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t count,
                        void *most_, void *place) {
    T *restrict most = most_;
    INDEX *restrict at = place;
    INDEX r = 1;
    for (ptrdiff_t c = 0; c < count; c++) most[c] = ((const T *)x)[c], at[c] = 0;
    x += row_stride;
    switch (2 * (how == FC_JOIN_MIN) + last) {
    case 0: FIRST(>);
    case 1: LAST(>=);
    case 2: FIRST(<);
    default: LAST(<=);
    }
}
#undef FIRST
#undef LAST

static const fc_row_kernels ROWS(kernels) = {ROWS(blend), ROWS(pick), ROWS(join), ROWS(join_line), ROWS(place)};
#undef JOIN_SUM
#undef FOUR_ROWS
#undef SUM_ROWS
#undef MOST_ROWS
#undef ITSELF
#undef SQUARED
#undef MAGNITUDE
#undef T
#undef ROWS
#undef WIDE_SUM
#undef INDEX
