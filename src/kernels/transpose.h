/* Transposes in registers, for what lies channels-first in the caller's arrays: activations in NCHW, weights in OIHW.
   Included by compute.h for every computing type. The perfect shuffle of log2(LANES) stages, each of which interleaves
   the first half of the rows with the second, leaves the transpose. */

typedef T NAME(loose) __attribute__((vector_size(LANES * sizeof(T)), aligned(1), may_alias));

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES 1
#endif
#endif
#ifndef SHUFFLES
#define SHUFFLES 0 /* GCC before 12 */
#endif

#if LANES == 2
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 2)
#define HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#elif LANES == 4
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#elif LANES == 8
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#endif

static inline __attribute__((always_inline)) void NAME(transpose_block)(NAME(vec) *v) {
#if SHUFFLES
    UNROLL_LANES for (int stage = 1; stage < LANES; stage *= 2) {
        NAME(vec) t[LANES];
        UNROLL_LANES for (int i = 0; i < LANES / 2; i++)
            t[2 * i] = LOW(v[i], v[i + LANES / 2]), t[2 * i + 1] = HIGH(v[i], v[i + LANES / 2]);
        UNROLL_LANES for (int i = 0; i < LANES; i++) v[i] = t[i];
    }
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            T swap = v[i][j];
            v[i][j] = v[j][i], v[j][i] = swap;
        }
#endif
}

/* v[i] = elements [0, columns) of row i and whatever follows; zeros for rows beyond `rows`. Not a byte at or after
   `end` is read. */
static inline __attribute__((always_inline)) void NAME(load_rows)(NAME(vec) *v, const char *src, ptrdiff_t row_stride,
                                                                  ptrdiff_t rows, ptrdiff_t columns,
                                                                  const char *end) {
    if (rows >= LANES && src + (LANES - 1) * row_stride + LANES * (ptrdiff_t)sizeof(T) <= end) {
        UNROLL_LANES for (int i = 0; i < LANES; i++) v[i] = *(const NAME(loose) *)(src + i * row_stride);
        return;
    }
    for (int i = 0; i < LANES; i++) {
        const char *row = src + i * row_stride;
        v[i] = (NAME(vec)){0};
        if (i < rows && row + LANES * (ptrdiff_t)sizeof(T) <= end)
            v[i] = *(const NAME(loose) *)row;
        else if (i < rows)
            memcpy(&v[i], row, (columns < LANES ? columns : LANES) * sizeof(T));
    }
}

#if OPERANDS
/* Columns of the next block from `src` on: up to a multiple of the vector's bytes first, so that every cache line is read
   once, whole: rows a power of two apart share a set, and a line read in two halves would be gone in between. */
static inline __attribute__((always_inline)) ptrdiff_t NAME(block_columns)(const char *src, ptrdiff_t left) {
    ptrdiff_t most = LANES - (ptrdiff_t)((uintptr_t)src % (LANES * sizeof(T)) / sizeof(T));
    return left < most ? left : most;
}

/* dst[j * ldd + i] = element j of row i; rows lie row_stride > 0 bytes apart, their elements side by side. */
static void NAME(transpose)(T *dst, ptrdiff_t ldd, const char *src, ptrdiff_t row_stride, ptrdiff_t rows,
                            ptrdiff_t columns) {
    const char *end = src + (rows - 1) * row_stride + columns * sizeof(T);
    for (ptrdiff_t i0 = 0; i0 < rows; i0 += LANES) /* as many streams as lanes, read to their end */
        for (ptrdiff_t j0 = 0, most; j0 < columns; j0 += most) {
            NAME(vec) v[LANES];
            ptrdiff_t count = rows - i0;
            most = NAME(block_columns)(src + i0 * row_stride + j0 * sizeof(T), columns - j0);
            T *to = dst + j0 * ldd + i0;
            NAME(load_rows)(v, src + i0 * row_stride + j0 * sizeof(T), row_stride, count, most, end);
            NAME(transpose_block)(v);
            if (most == LANES && count >= LANES)
                UNROLL_LANES for (int j = 0; j < LANES; j++) *(NAME(vec) *)(to + j * ldd) = v[j];
            else if (count >= LANES)
                for (ptrdiff_t j = 0; j < most; j++) *(NAME(vec) *)(to + j * ldd) = v[j];
            else
                for (ptrdiff_t j = 0; j < most; j++) memcpy(to + j * ldd, &v[j], count * sizeof(T));
        }
}

/* The weights of `rows` output channels as lines of `width` elements (a multiple of LANES, filled up with zeros): line
   `line[j % period]` + j / period of dst receives element j of every row; lines below 0 are left out. Returns 0 when a
   weight that was read is NaN or infinite. */
static int NAME(transpose_lines)(T *dst, ptrdiff_t width, const char *src, ptrdiff_t row_stride, ptrdiff_t rows,
                                 ptrdiff_t columns, const ptrdiff_t *line, ptrdiff_t period) {
    const char *end = src + (rows - 1) * row_stride + columns * sizeof(T);
    NAME(vec) bad = {0}; /* x*0 is 0 for finite x and NaN otherwise */
    for (ptrdiff_t i0 = 0; i0 < width; i0 += LANES) {
        ptrdiff_t phase = 0, base = 0;
        for (ptrdiff_t j0 = 0, most; j0 < columns; j0 += most) {
            NAME(vec) v[LANES];
            most = NAME(block_columns)(src + i0 * row_stride + j0 * sizeof(T), columns - j0);
            NAME(load_rows)(v, src + i0 * row_stride + j0 * sizeof(T), row_stride, rows - i0, most, end);
            NAME(transpose_block)(v);
            if (period == 1 && most == LANES) {
                T *to = dst + (line[0] + j0) * width + i0;
                UNROLL_LANES for (int j = 0; j < LANES; j++) *(NAME(vec) *)(to + j * width) = v[j], bad += v[j] * 0;
                base += LANES;
                continue;
            }
            for (ptrdiff_t j = 0; j < most; j++) {
                if (line[phase] >= 0) {
                    *(NAME(vec) *)(dst + (line[phase] + base) * width + i0) = v[j];
                    bad += v[j] * 0;
                }
                if (++phase == period) phase = 0, base++;
            }
        }
    }
    for (int i = 0; i < LANES; i++)
        if (bad[i] != 0) return 0;
    return 1;
}
#endif

#undef LOW
#undef HIGH
#undef SHUFFLES
