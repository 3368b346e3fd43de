/* Depthwise convolution of planes, a lane a pixel: the rows of a bordered plane lie one behind the other, so that an output
   lies where its first input does and a tap is a distance, whatever the row. With a stride of two the even and the odd
   rows and columns are planes of their own. Included by lanes.h. */

typedef INDEX NAME(flat_index) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));

#ifndef FLAT_SHUFFLES
#if defined(__GNUC__) && !defined(__clang__)
#define FLAT_SHUFFLES 1
#else
#define FLAT_SHUFFLES 0
#endif
/* A load that lies across two cache lines takes as long as two; two neighbours in registers give what lies between. */
#define FLAT_WINDOWS (FLAT_SHUFFLES && VECTORS == 4 && VECTOR_BYTES == 64)
#endif

static inline __attribute__((always_inline)) NAME(flat_index) NAME(flat_count)(void) {
    NAME(flat_index) number;
    UNROLL_LANES for (int i = 0; i < LANES; i++) number[i] = i;
    return number;
}

static inline __attribute__((always_inline)) void NAME(flat_put)(const int vectors, NAME(vec) *acc, const T *bias,
                                                                 int relu, T *c) {
    if (bias) UNROLL for (int i = 0; i < vectors; i++) acc[i] += *bias;
    if (relu) UNROLL for (int i = 0; i < vectors; i++) acc[i] = NAME(relu)(acc[i]);
    if (relu == FC_RELU6) UNROLL for (int i = 0; i < vectors; i++) acc[i] = NAME(at_most_six)(acc[i]);
    UNROLL for (int i = 0; i < vectors; i++) *(NAME(vec) *)(c + i * LANES) = acc[i];
}

/* c[i] = sum over taps of a[tap + i] * w[tap] + bias, relu where asked for; whole vectors are read and written. */
static inline __attribute__((always_inline)) void NAME(flat_tile)(const int vectors, const T *a, const ptrdiff_t *tap,
                                                                  const T *w, ptrdiff_t ldw, ptrdiff_t taps,
                                                                  const T *bias, int relu, T *c) {
    NAME(vec) acc[8];
    UNROLL for (int i = 0; i < vectors; i++) acc[i] = (NAME(vec)){0};
    for (ptrdiff_t t = 0; t < taps; t++, w += ldw) {
        const T *in = a + tap[t], weight = *w;
        UNROLL for (int i = 0; i < vectors; i++) acc[i] += *(const NAME(vec) *)(in + i * LANES) * weight;
    }
    NAME(flat_put)(vectors, acc, bias, relu, c);
}

static void NAME(flat)(const void *a_, const ptrdiff_t *tap, const void *w, ptrdiff_t ldw, ptrdiff_t taps,
                       const void *bias, int relu, void *c_, ptrdiff_t count) {
    const T *a = a_;
    T *c = c_;
    for (; count > 4 * LANES; count -= 8 * LANES, a += 8 * LANES, c += 8 * LANES)
        NAME(flat_tile)(8, a, tap, w, ldw, taps, bias, relu, c);
    for (; count > LANES; count -= 4 * LANES, a += 4 * LANES, c += 4 * LANES)
        NAME(flat_tile)(4, a, tap, w, ldw, taps, bias, relu, c);
    if (count > 0) NAME(flat_tile)(1, a, tap, w, ldw, taps, bias, relu, c);
}

#if FLAT_WINDOWS
/* Elements n .. n + LANES - 1 of two neighbours. The general permutation, which compilers take, is half as fast. */
static inline __attribute__((always_inline)) NAME(vec) NAME(flat_between)(NAME(vec) low, NAME(vec) high, const int n) {
    NAME(vec) between;
#define FLAT_ALIGN(n)                                                                                                \
    case n:                                                                                                          \
        if (sizeof(T) == 4) __asm__("valignd $" #n ", %1, %2, %0" : "=v"(between) : "v"(low), "v"(high));            \
        else __asm__("valignq $" #n ", %1, %2, %0" : "=v"(between) : "v"(low), "v"(high));                           \
        break;
    switch (n) {
        FLAT_ALIGN(1) FLAT_ALIGN(2) FLAT_ALIGN(4) FLAT_ALIGN(6)
    default: __builtin_unreachable();
    }
#undef FLAT_ALIGN
    return between;
}

/* The same for rows of `across` taps side by side. Every second vector of inputs is loaded, the others come from
   neighbours, so that neither loads nor shuffles are as many as multiply-adds. */
static inline __attribute__((always_inline)) void NAME(flat_window_tile)(const int vectors, const int across, const T *a,
                                                                         const ptrdiff_t *tap, const T *w,
                                                                         ptrdiff_t ldw, ptrdiff_t taps, const T *bias,
                                                                         int relu, T *c) {
    NAME(vec) acc[8], x[9];
    UNROLL for (int i = 0; i < vectors; i++) acc[i] = (NAME(vec)){0};
    for (ptrdiff_t t = 0; t < taps; t += across) {
        const T *in = a + tap[t];
        UNROLL for (int i = 0; i <= vectors; i++) x[i] = *(const NAME(vec) *)(in + i * LANES);
        UNROLL for (int j = 0; j < across; j++, w += ldw) {
            const T weight = *w;
            UNROLL for (int i = 0; i < vectors; i++)
                acc[i] += (j % 2   ? *(const NAME(vec) *)(in + i * LANES + j)
                           : j > 0 ? NAME(flat_between)(x[i], x[i + 1], j)
                                   : x[i]) * weight;
        }
    }
    NAME(flat_put)(vectors, acc, bias, relu, c);
}

#define FLAT_CASE(n, across)                                                                                         \
    case n: NAME(flat_window_tile)(n, across, a, tap, w, ldw, taps, bias, relu, c); break;
#define FLAT_WINDOW(across)                                                                                          \
    static void NAME(flat_##across)(const void *a_, const ptrdiff_t *tap, const void *w, ptrdiff_t ldw,              \
                                    ptrdiff_t taps, const void *bias, int relu, void *c_, ptrdiff_t count) {         \
        const T *a = a_;                                                                                             \
        T *c = c_;                                                                                                   \
        for (; count > 7 * LANES; count -= 8 * LANES, a += 8 * LANES, c += 8 * LANES)                                \
            NAME(flat_window_tile)(8, across, a, tap, w, ldw, taps, bias, relu, c);                                  \
        switch ((count + LANES - 1) / LANES) {                                                                       \
            FLAT_CASE(1, across) FLAT_CASE(2, across) FLAT_CASE(3, across) FLAT_CASE(4, across)                      \
            FLAT_CASE(5, across) FLAT_CASE(6, across) FLAT_CASE(7, across)                                           \
        }                                                                                                            \
    }
FLAT_WINDOW(3) FLAT_WINDOW(5) FLAT_WINDOW(7)
#define FLAT_WINDOW_TABLE .flat_window = {[3] = NAME(flat_3), [5] = NAME(flat_5), [7] = NAME(flat_7)},
#else
#define FLAT_CASE(n, across)
#define FLAT_WINDOW(across)
#define FLAT_WINDOW_TABLE
#endif

/* The first n elements, or a vector of them, and zeros; nothing at or after `end` is read. */
static inline __attribute__((always_inline)) NAME(vec) NAME(flat_head)(const T *in, ptrdiff_t n, const T *end) {
    NAME(vec) v = {0};
    if (n >= LANES) return *(const NAME(vec) *)in;
    if (n <= 0) return v;
    if (in + LANES <= end) {
        const NAME(flat_index) most = (NAME(flat_index)){0} + (INDEX)n;
        return (NAME(vec))(*(const NAME(flat_index) *)in & (NAME(flat_count)() < most));
    }
    memcpy(&v, in, n * sizeof(T));
    return v;
}

/* Rows of `count` elements, `row` apart, to rows `pitch` apart; zeros fill the last vector of each. */
static void NAME(flat_rows)(const void *src, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t count, const void *end, void *dst,
                            ptrdiff_t pitch) {
    const T *in = src;
    T *to = dst;
    for (; rows > 0; rows--, in += row, to += pitch)
        for (ptrdiff_t c = 0; c < count; c += LANES)
            *(NAME(vec) *)(to + c) = NAME(flat_head)(in + c, count - c, end);
}

/* Likewise the first, third, ... element of every row to `first`, the others to `second`. */
static void NAME(flat_split)(const void *src, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t count, const void *end,
                             void *first, void *second, ptrdiff_t pitch) {
    const T *in = src;
    T *a = first, *b = second;
    for (; rows > 0; rows--, in += row, a += pitch, b += pitch) {
#if FLAT_SHUFFLES
        const NAME(flat_index) even = 2 * NAME(flat_count)();
        for (ptrdiff_t c = 0; c < count; c += 2 * LANES) {
            NAME(vec) v = NAME(flat_head)(in + c, count - c, end);
            NAME(vec) w = NAME(flat_head)(in + c + LANES, count - c - LANES, end);
            *(NAME(vec) *)(a + c / 2) = __builtin_shuffle(v, w, even);
            *(NAME(vec) *)(b + c / 2) = __builtin_shuffle(v, w, even + 1);
        }
#else
        for (ptrdiff_t c = 0; c < count; c++) (c % 2 ? b : a)[c / 2] = in[c];
#endif
    }
}

/* Rows of `width` elements, `pitch` apart, one behind the other. */
static void NAME(flat_store)(const void *src, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t width, void *dst) {
    const T *in = src;
    T *to = dst, *end = to + rows * width;
    for (; rows > 0; rows--, in += pitch, to += width)
        for (ptrdiff_t c = 0; c < width; c += LANES) {
            if (to + c + LANES <= end) /* what it writes beyond the row the next one writes over */
                *(NAME(vec) *)(to + c) = *(const NAME(vec) *)(in + c);
            else
                memcpy(to + c, in + c, (width - c) * sizeof(T));
        }
}

/* Rows of `width` equal elements, a multiple of the vector, one row for each of `rows` numbers. */
static void NAME(flat_fill)(const void *src, ptrdiff_t rows, ptrdiff_t width, void *dst) {
    const T *from = src;
    T *to = dst;
    for (ptrdiff_t r = 0; r < rows; r++, to += width) {
        const NAME(vec) v = (NAME(vec)){0} + from[r];
        for (ptrdiff_t c = 0; c < width; c += LANES) *(NAME(vec) *)(to + c) = v;
    }
}

#undef PLANE_WINDOWS
#if FLAT_WINDOWS && LANES == 16
#include "plane_windows.h"
#else
#define PLANE_WINDOWS
#endif

#define FLAT                                                                                                        \
    .flat = NAME(flat), FLAT_WINDOW_TABLE .flat_rows = NAME(flat_rows), .flat_split = NAME(flat_split),              \
    .flat_store = NAME(flat_store), .flat_fill = NAME(flat_fill), PLANE_WINDOWS
