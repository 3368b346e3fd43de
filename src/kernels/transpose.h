/* Transposes in registers, for what lies channels-first in the caller's arrays: activations in NCHW, weights in OIHW.
   Included by compute.h for every computing type. The perfect shuffle of log2(LANES) stages, each of which interleaves
   the first half of the rows with the second, leaves the transpose; sixteen lanes go by quarters. */

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
#define UNPACK(a, b, i, j)                                                                                          \
    __builtin_shufflevector(a, b, i, 16 + i, j, 16 + j, 4 + i, 20 + i, 4 + j, 20 + j, 8 + i, 24 + i, 8 + j, 24 + j,  \
                            12 + i, 28 + i, 12 + j, 28 + j)
typedef double NAME(halves) __attribute__((vector_size(LANES * sizeof(T)))); /* of two elements each */
#define PAIRS(a, b, i)                                                                                              \
    (NAME(vec))__builtin_shufflevector((NAME(halves))a, (NAME(halves))b, i, 8 + i, 2 + i, 10 + i, 4 + i, 12 + i,     \
                                       6 + i, 14 + i)
#define QUARTERS(a, b, i)                                                                                           \
    __builtin_shufflevector(a, b, 4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3, 4 * i + 8, 4 * i + 9, 4 * i + 10,          \
                            4 * i + 11, 4 * i + 16, 4 * i + 17, 4 * i + 18, 4 * i + 19, 4 * i + 24, 4 * i + 25,      \
                            4 * i + 26, 4 * i + 27)
#endif

static inline __attribute__((always_inline)) void NAME(transpose_block)(NAME(vec) *v) {
#if SHUFFLES && LANES == 16
    /* Within quarters of vectors, which takes fewer cycles than permuting whole ones, then quarters: the rows of four become
       t[4 * of the rows + column], of which a quarter each is in a column four apart. */
    NAME(vec) t[LANES];
    UNROLL_LANES for (int i = 0; i < LANES; i += 4) {
        const NAME(vec) a = UNPACK(v[i], v[i + 1], 0, 1), b = UNPACK(v[i], v[i + 1], 2, 3);
        const NAME(vec) c = UNPACK(v[i + 2], v[i + 3], 0, 1), d = UNPACK(v[i + 2], v[i + 3], 2, 3);
        t[i] = PAIRS(a, c, 0), t[i + 1] = PAIRS(a, c, 1), t[i + 2] = PAIRS(b, d, 0), t[i + 3] = PAIRS(b, d, 1);
    }
    UNROLL_LANES for (int i = 0; i < 4; i++) {
        const NAME(vec) a = QUARTERS(t[i], t[4 + i], 0), b = QUARTERS(t[i], t[4 + i], 1);
        const NAME(vec) c = QUARTERS(t[8 + i], t[12 + i], 0), d = QUARTERS(t[8 + i], t[12 + i], 1);
        v[i] = QUARTERS(a, c, 0), v[8 + i] = QUARTERS(a, c, 1), v[4 + i] = QUARTERS(b, d, 0), v[12 + i] = QUARTERS(b, d, 1);
    }
#elif SHUFFLES
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

/* The first `count` elements, 0 to a vector of them, and zeros; not a byte of others is read or written. */
#if VECTOR_BYTES == 64
#define MASKED(operation, result, ...)                                                                              \
    if (sizeof(T) == 4) __asm__("vmovups " operation : result : __VA_ARGS__);                                        \
    else __asm__("vmovupd " operation : result : __VA_ARGS__)
static inline __attribute__((always_inline)) NAME(vec) NAME(load_first)(const char *from, ptrdiff_t count) {
    NAME(vec) v;
    const uint16_t mask = (uint16_t)((1u << count) - 1);
    MASKED("%1, %0%{%2%}%{z%}", "=v"(v), "m"(*(const NAME(loose) *)from), "Yk"(mask));
    return v;
}
static inline __attribute__((always_inline)) void NAME(store_bits)(char *to, NAME(vec) v, uint16_t mask) {
    MASKED("%1, %0%{%2%}", "+m"(*(NAME(loose) *)to), "v"(v), "Yk"(mask));
}
static inline __attribute__((always_inline)) void NAME(store_first)(char *to, NAME(vec) v, ptrdiff_t count) {
    NAME(store_bits)(to, v, (uint16_t)((1u << count) - 1));
}
#undef MASKED
#if SHUFFLES
#define STORES_APART 1
/* The same to every second place in memory. */
static inline __attribute__((always_inline)) void NAME(store_apart)(char *to, NAME(vec) v, ptrdiff_t count) {
    const uint32_t bits = (uint32_t)(0x55555555 & ((1ull << 2 * count) - 1));
#if LANES == 16
    const NAME(vec) low = __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const NAME(vec) high = __builtin_shufflevector(v, v, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
#else
    const NAME(vec) low = __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3);
    const NAME(vec) high = __builtin_shufflevector(v, v, 4, 4, 5, 5, 6, 6, 7, 7);
#endif
    NAME(store_bits)(to, low, (uint16_t)(bits & ((1u << LANES) - 1)));
    NAME(store_bits)(to + LANES * sizeof(T), high, (uint16_t)(bits >> LANES));
}
#endif
#else
static inline __attribute__((always_inline)) NAME(vec) NAME(load_first)(const char *from, ptrdiff_t count) {
    NAME(vec) v = {0};
    if (count == LANES) return *(const NAME(loose) *)from;
    memcpy(&v, from, count * sizeof(T));
    return v;
}
static inline __attribute__((always_inline)) void NAME(store_first)(char *to, NAME(vec) v, ptrdiff_t count) {
    if (count == LANES) *(NAME(loose) *)to = v;
    else memcpy(to, &v, count * sizeof(T));
}
#endif

/* v[i] = elements [0, columns) of row i and whatever follows; zeros for rows beyond `rows`. Not a byte at or after
   `end` is read. */
static inline __attribute__((always_inline)) void NAME(load_rows)(NAME(vec) *v, const char *src, ptrdiff_t row_stride,
                                                                  ptrdiff_t rows, ptrdiff_t columns,
                                                                  const char *end) {
    if (rows >= LANES && src + (LANES - 1) * row_stride + LANES * (ptrdiff_t)sizeof(T) <= end) {
        UNROLL_LANES for (int i = 0; i < LANES; i++) v[i] = *(const NAME(loose) *)(src + i * row_stride);
        return;
    }
    UNROLL_LANES for (int i = 0; i < LANES; i++)
        v[i] = i < rows ? NAME(load_first)(src + i * row_stride, columns < LANES ? columns : LANES) : (NAME(vec)){0};
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
            /* numbers of registers known to the compiler, even where some are left out: else all go by way of memory */
            if (most == LANES && count >= LANES)
                UNROLL_LANES for (int j = 0; j < LANES; j++) *(NAME(vec) *)(to + j * ldd) = v[j];
            else if (count >= LANES)
                UNROLL_LANES for (int j = 0; j < LANES; j++) {
                    if (j < most) *(NAME(vec) *)(to + j * ldd) = v[j];
                }
            else
                UNROLL_LANES for (int j = 0; j < LANES; j++) {
                    if (j < most) NAME(store_first)((char *)(to + j * ldd), v[j], count);
                }
        }
}

#if LANES >= 8 && defined(__GNUC__) && !defined(__clang__) /* which has no shuffle by a vector of numbers */
#define THREE_TOGETHER 1
/* dst[3 * j + i] = element j of row i, of three rows: pictures, whose colours lie in planes. */
static void NAME(three_together)(T *dst, const char *src, ptrdiff_t row_stride, ptrdiff_t columns) {
    __typeof__((NAME(vec)){0} < 0) two[3], three[3];
    UNROLL for (int k = 0; k < 3; k++)
        UNROLL_LANES for (int i = 0; i < LANES; i++) {
            const int column = (k * LANES + i) / 3, row = (k * LANES + i) % 3;
            two[k][i] = row == 1 ? LANES + column : column;
            three[k][i] = row == 2 ? LANES + column : i;
        }
    for (; columns >= LANES; columns -= LANES, dst += 3 * LANES, src += LANES * sizeof(T)) {
        const NAME(vec) a = *(const NAME(loose) *)src, b = *(const NAME(loose) *)(src + row_stride);
        const NAME(vec) c = *(const NAME(loose) *)(src + 2 * row_stride);
        UNROLL for (int k = 0; k < 3; k++)
            *(NAME(loose) *)(dst + k * LANES) = __builtin_shuffle(__builtin_shuffle(a, b, two[k]), c, three[k]);
    }
    for (; columns > 0; columns--, dst += 3, src += sizeof(T))
        UNROLL for (int i = 0; i < 3; i++) memcpy(dst + i, src + i * row_stride, sizeof(T));
}
#else
#define THREE_TOGETHER 0
#endif

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

enum { NAME(shuffles) = SHUFFLES }; /* whether blocks are transposed in registers */

#ifndef STORES_APART
#define STORES_APART 0
#endif

#undef LOW
#undef HIGH
#undef UNPACK
#undef PAIRS
#undef QUARTERS
#undef SHUFFLES
