/* Fourier transforms of real tiles, two at a time: one is the real, one the imaginary part of complex numbers, which a
   real kernel keeps apart, so that no half of a spectrum is ever put together.

   A line holds a vector of real and a vector of imaginary parts: the lanes are transforms of their own. A tile lies as
   columns of lines, [x / LANES][y][re, im][LANES], so that the transform along y runs in the first-level cache and
   without shuffles; for that along x, LANES rows at a time are transposed to [x][re, im][LANES], transformed, multiplied
   by the kernel's spectrum, transformed back and put back.

   Forward the radix-4 passes decimate in frequency, back they decimate in time, in the opposite order: what lies between
   has its frequencies in an order of digits reversed, which is the spectrum's own, and nothing is sorted. */

#ifndef FC_FOURIER_H
#define FC_FOURIER_H
typedef struct {
    /* So many lines in place; `turns`: cos, -sin of 2 pi k / length for every k. `length` is a power of two from 8 on. */
    void (*forward)(void *lines, ptrdiff_t length, const void *turns);
    void (*back)(void *lines, ptrdiff_t length, const void *turns);
    /* A row of two images, so many elements (a multiple of the vector), to line y of columns `column` elements apart. */
    void (*row_in)(const void *re, const void *im, ptrdiff_t count, void *tile, ptrdiff_t column, ptrdiff_t y);
    /* The opposite, + bias; returns 0 when one of the first `counts` elements of either is not finite. */
    int (*row_out)(const void *tile, ptrdiff_t column, ptrdiff_t y, const ptrdiff_t *counts, const void *bias, void *re,
                   void *im);
    /* Rows y ... y + LANES - 1 of a tile to lines of [x], and back. */
    void (*turn)(const void *tile, ptrdiff_t column, ptrdiff_t y, ptrdiff_t count, void *lines);
    void (*turn_back)(const void *lines, ptrdiff_t count, void *tile, ptrdiff_t column, ptrdiff_t y);
    /* sums (+)= lines * spectrum, of complex numbers. */
    void (*multiply)(const void *lines, const void *spectrum, ptrdiff_t length, void *sums, int add);
    /* What `forward`, `multiply` and `back` do one after the other. */
    void (*filter)(void *lines, const void *spectrum, ptrdiff_t length, const void *turns);
} fc_fourier;
#endif

#ifdef VECTOR_BYTES /* for a set; else for the driver */
typedef struct { NAME(vec) re, im; } NAME(line);

static inline __attribute__((always_inline)) NAME(line) NAME(plus)(NAME(line) a, NAME(line) b) {
    return (NAME(line)){a.re + b.re, a.im + b.im};
}

static inline __attribute__((always_inline)) NAME(line) NAME(minus)(NAME(line) a, NAME(line) b) {
    return (NAME(line)){a.re - b.re, a.im - b.im};
}

/* a * (c + is), or by its conjugate */
static inline __attribute__((always_inline)) NAME(line) NAME(turned)(NAME(line) a, T c, T s, const int back) {
    return back ? (NAME(line)){a.re * c + a.im * s, a.im * c - a.re * s}
                : (NAME(line)){a.re * c - a.im * s, a.im * c + a.re * s};
}

/* a * -i forward, a * i back */
static inline __attribute__((always_inline)) NAME(line) NAME(quarter)(NAME(line) a, const int back) {
    return back ? (NAME(line)){-a.im, a.re} : (NAME(line)){a.im, -a.re};
}

/* The transform of four: v[q] becomes sum over k of v[k] w^(qk). */
static inline __attribute__((always_inline)) void NAME(four)(NAME(line) *v, const int back) {
    NAME(line) a = NAME(plus)(v[0], v[2]), b = NAME(minus)(v[0], v[2]);
    NAME(line) c = NAME(plus)(v[1], v[3]), d = NAME(quarter)(NAME(minus)(v[1], v[3]), back);
    v[0] = NAME(plus)(a, c), v[1] = NAME(plus)(b, d), v[2] = NAME(minus)(a, c), v[3] = NAME(minus)(b, d);
}

/* Of eight, in the order 0, 4, 2, 6, 1, 5, 3, 7 of frequencies; back from that order. */
static inline __attribute__((always_inline)) void NAME(eight)(NAME(line) *v, const int back) {
    const T half = (T)0.70710678118654752440;
    NAME(line) even[4], odd[4];
    if (!back)
        UNROLL for (int i = 0; i < 4; i++) even[i] = NAME(plus)(v[i], v[i + 4]), odd[i] = NAME(minus)(v[i], v[i + 4]);
    else
        UNROLL for (int i = 0; i < 4; i++) even[i] = v[i], odd[i] = v[i + 4];
    if (back) {
        NAME(four)(even, 1), NAME(four)(odd, 1);
    }
    odd[1] = NAME(turned)(odd[1], half, -half, back);
    odd[2] = NAME(quarter)(odd[2], back);
    odd[3] = NAME(turned)(odd[3], -half, -half, back);
    if (!back) {
        NAME(four)(even, 0), NAME(four)(odd, 0);
        UNROLL for (int i = 0; i < 4; i++) v[i] = even[i], v[i + 4] = odd[i];
    } else
        UNROLL for (int i = 0; i < 4; i++) v[i] = NAME(plus)(even[i], odd[i]), v[i + 4] = NAME(minus)(even[i], odd[i]);
}

/* One pass of radix 4 over transforms of `own` lines each. */
static inline __attribute__((always_inline)) void NAME(pass)(T *lines, ptrdiff_t length, ptrdiff_t own, const T *turns,
                                                             const int back) {
    NAME(line) *x = (NAME(line) *)lines;
    const ptrdiff_t part = own / 4, step = 2 * (length / own);
    for (ptrdiff_t j = 0; j < part; j++) {
        const T *w1 = turns + j * step, *w2 = w1 + j * step, *w3 = w2 + j * step;
        const T c1 = w1[0], s1 = w1[1], c2 = w2[0], s2 = w2[1], c3 = w3[0], s3 = w3[1];
        for (NAME(line) *at = x + j; at < x + length; at += own) {
            NAME(line) v[4];
            UNROLL for (int k = 0; k < 4; k++) v[k] = at[k * part];
            if (!back) NAME(four)(v, 0);
            v[1] = NAME(turned)(v[1], c1, s1, back);
            v[2] = NAME(turned)(v[2], c2, s2, back);
            v[3] = NAME(turned)(v[3], c3, s3, back);
            if (back) NAME(four)(v, 1);
            UNROLL for (int k = 0; k < 4; k++) at[k * part] = v[k];
        }
    }
}

/* The shortest transforms, of four or eight lines, which have no turns: `last` of them all. */
static inline __attribute__((always_inline)) ptrdiff_t NAME(shortest)(ptrdiff_t length) {
    while (length > 8) length /= 4;
    return length;
}

static inline __attribute__((always_inline)) void NAME(ends)(T *lines, ptrdiff_t length, const int count, const T *by,
                                                             const int forward, const int back) {
    NAME(line) *x = (NAME(line) *)lines;
    const NAME(line) *w = (const NAME(line) *)by;
    for (ptrdiff_t i = 0; i < length; i += count) {
        NAME(line) v[8];
        UNROLL for (int k = 0; k < count; k++) v[k] = x[i + k];
        if (forward && count == 4) NAME(four)(v, 0);
        if (forward && count == 8) NAME(eight)(v, 0);
        if (by)
            UNROLL for (int k = 0; k < count; k++) {
                NAME(line) s = w[i + k];
                v[k] = (NAME(line)){v[k].re * s.re - v[k].im * s.im, v[k].re * s.im + v[k].im * s.re};
            }
        if (back && count == 4) NAME(four)(v, 1);
        if (back && count == 8) NAME(eight)(v, 1);
        UNROLL for (int k = 0; k < count; k++) x[i + k] = v[k];
    }
}

static void NAME(fourier_passes)(T *lines, ptrdiff_t length, const T *turns) {
    for (ptrdiff_t own = length; own > 8; own /= 4) NAME(pass)(lines, length, own, turns, 0);
}

static void NAME(fourier_passes_back)(T *lines, ptrdiff_t length, const T *turns) {
    for (ptrdiff_t own = 4 * NAME(shortest)(length); own <= length; own *= 4)
        NAME(pass)(lines, length, own, turns, 1);
}

static void NAME(fourier_forward)(void *lines, ptrdiff_t length, const void *turns) {
    NAME(fourier_passes)(lines, length, turns);
    if (NAME(shortest)(length) == 4)
        NAME(ends)(lines, length, 4, NULL, 1, 0);
    else
        NAME(ends)(lines, length, 8, NULL, 1, 0);
}

static void NAME(fourier_back)(void *lines, ptrdiff_t length, const void *turns) {
    if (NAME(shortest)(length) == 4)
        NAME(ends)(lines, length, 4, NULL, 0, 1);
    else
        NAME(ends)(lines, length, 8, NULL, 0, 1);
    NAME(fourier_passes_back)(lines, length, turns);
}

static void NAME(fourier_filter)(void *lines, const void *spectrum, ptrdiff_t length, const void *turns) {
    NAME(fourier_passes)(lines, length, turns);
    if (NAME(shortest)(length) == 4)
        NAME(ends)(lines, length, 4, spectrum, 1, 1);
    else
        NAME(ends)(lines, length, 8, spectrum, 1, 1);
    NAME(fourier_passes_back)(lines, length, turns);
}

static void NAME(fourier_multiply)(const void *lines, const void *spectrum, ptrdiff_t length, void *sums, int add) {
    const NAME(line) *x = lines, *w = spectrum;
    NAME(line) *to = sums;
    for (ptrdiff_t i = 0; i < length; i++) {
        NAME(line) v = {x[i].re * w[i].re - x[i].im * w[i].im, x[i].re * w[i].im + x[i].im * w[i].re};
        to[i] = add ? NAME(plus)(to[i], v) : v;
    }
}

static void NAME(fourier_row_in)(const void *re, const void *im, ptrdiff_t count, void *tile, ptrdiff_t column,
                                 ptrdiff_t y) {
    const T *a = re, *b = im;
    T *to = (T *)tile + y * 2 * LANES;
    for (ptrdiff_t i = 0; i < count; i += LANES, to += column) {
        *(NAME(vec) *)to = *(const NAME(vec) *)(a + i);
        *(NAME(vec) *)(to + LANES) = *(const NAME(vec) *)(b + i);
    }
}

static int NAME(fourier_row_out)(const void *tile, ptrdiff_t column, ptrdiff_t y, const ptrdiff_t *counts,
                                 const void *bias, void *re, void *im) {
    const T *from = (const T *)tile + y * 2 * LANES, shift = bias ? *(const T *)bias : 0;
    for (int part = 0; part < 2; part++, from += LANES) {
        T *to = part ? im : re;
        NAME(vec) bad = {0};
        for (ptrdiff_t i = 0; i < counts[part]; i += LANES) {
            NAME(vec) v = *(const NAME(vec) *)(from + i / LANES * column);
            bad += v * 0; /* 0 of what is finite, else NaN */
            *(NAME(vec) *)(to + i) = v + shift;
        }
        for (int l = 0; l < LANES; l++)
            if (bad[l] != 0) return 0;
    }
    return 1;
}

static void NAME(fourier_turn)(const void *tile, ptrdiff_t column, ptrdiff_t y, ptrdiff_t count, void *lines) {
    const T *from = (const T *)tile + y * 2 * LANES;
    T *to = lines;
    for (ptrdiff_t x = 0; x < count; x += LANES, from += column, to += LANES * 2 * LANES)
        for (int part = 0; part < 2 * LANES; part += LANES) {
            NAME(vec) v[LANES];
            UNROLL_LANES for (int i = 0; i < LANES; i++) v[i] = *(const NAME(vec) *)(from + i * 2 * LANES + part);
            NAME(transpose_block)(v);
            UNROLL_LANES for (int i = 0; i < LANES; i++) *(NAME(vec) *)(to + i * 2 * LANES + part) = v[i];
        }
}

static void NAME(fourier_turn_back)(const void *lines, ptrdiff_t count, void *tile, ptrdiff_t column, ptrdiff_t y) {
    const T *from = lines;
    T *to = (T *)tile + y * 2 * LANES;
    for (ptrdiff_t x = 0; x < count; x += LANES, to += column, from += LANES * 2 * LANES)
        for (int part = 0; part < 2 * LANES; part += LANES) {
            NAME(vec) v[LANES];
            UNROLL_LANES for (int i = 0; i < LANES; i++) v[i] = *(const NAME(vec) *)(from + i * 2 * LANES + part);
            NAME(transpose_block)(v);
            UNROLL_LANES for (int i = 0; i < LANES; i++) *(NAME(vec) *)(to + i * 2 * LANES + part) = v[i];
        }
}

static const fc_fourier NAME(fourier_kernels) = {
    NAME(fourier_forward), NAME(fourier_back), NAME(fourier_row_in), NAME(fourier_row_out), NAME(fourier_turn),
    NAME(fourier_turn_back), NAME(fourier_multiply), NAME(fourier_filter)
};
#endif
