/* Winograd convolution F(m x m, 3x3) and its weight gradient F(3x3, m x m), m = TILE (Lavin & Gray, arXiv 1509.09308):
   the transforms along one axis here, those of a tile, the same for every m, in winograd_tile.h. Vectors run along
   channels. Included where T is float.

   input     B^T d, the m + 2 inputs of a tile         output    A^T y, its m outputs
   weights   G g, three weights, in double             gradient  A y, the gradients of m outputs
   taps      G^T y, three weight gradients */

typedef T half_of_vec __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(T)), may_alias));
typedef double vec_wide __attribute__((vector_size(VECTOR_BYTES)));

#define ALONG static inline __attribute__((always_inline)) void

/* ---- F(2, 3) on points 0, +-1, infinity: sums and halves alone -------------------------------------------- */

ALONG winograd_input_along_2(const vec_float *d, vec_float *o) {
    o[0] = d[0] - d[2], o[1] = d[1] + d[2], o[2] = d[2] - d[1], o[3] = d[3] - d[1];
}

ALONG winograd_output_along_2(const vec_float *m, vec_float *o) {
    o[0] = m[0] + (m[1] + m[2]), o[1] = (m[1] - m[2]) + m[3];
}

ALONG winograd_weights_along_2(vec_wide g0, vec_wide g1, vec_wide g2, vec_wide *o) {
    vec_wide s = 0.5 * (g0 + g2), d = 0.5 * g1;
    o[0] = g0, o[1] = s + d, o[2] = s - d, o[3] = g2;
}

ALONG winograd_gradient_along_2(const vec_float *y, vec_float *o) {
    o[0] = y[0], o[1] = y[0] + y[1], o[2] = y[0] - y[1], o[3] = y[1];
}

ALONG winograd_taps_along_2(const vec_float *m, vec_float *o) {
    vec_float s = (T)0.5 * (m[1] + m[2]);
    o[0] = m[0] + s, o[1] = (T)0.5 * (m[1] - m[2]), o[2] = s + m[3];
}

/* ---- F(4, 3) on points 0, +-sqrt(1/2), +-sqrt(2), infinity ------------------------------------------------- */

/* Points of the form -1/c, -c, c, 1/c after Alam et al., arXiv 2201.10369. For a = sqrt(1/2), b = sqrt(2):
   a^2 + b^2 = 5/2, a^2 b^2 = 1. */
static const T WINOGRAD_A = 0.70710678118654752440, WINOGRAD_B = 1.41421356237309504880;

ALONG winograd_input_along_4(const vec_float *d, vec_float *o) {
    o[0] = d[0] - (T)2.5 * d[2] + d[4];
    vec_float e = d[4] - (T)2 * d[2], f = WINOGRAD_A * (d[3] - (T)2 * d[1]);
    o[1] = e + f, o[2] = e - f;
    e = d[4] - (T)0.5 * d[2], f = WINOGRAD_B * (d[3] - (T)0.5 * d[1]);
    o[3] = e + f, o[4] = e - f;
    o[5] = d[1] - (T)2.5 * d[3] + d[5];
}

ALONG winograd_output_along_4(const vec_float *m, vec_float *o) {
    vec_float s = m[1] + m[2], d = m[1] - m[2], t = m[3] + m[4], e = m[3] - m[4];
    o[0] = m[0] + s + t;
    o[1] = WINOGRAD_A * d + WINOGRAD_B * e;
    o[2] = (T)0.5 * s + (T)2 * t;
    o[3] = (T)0.5 * WINOGRAD_A * d + (T)2 * WINOGRAD_B * e + m[5];
}

ALONG winograd_weights_along_4(vec_wide g0, vec_wide g1, vec_wide g2, vec_wide *o) {
    const double a = 0.70710678118654752440, b = 1.41421356237309504880;
    vec_wide s = (g0 + 0.5 * g2) * (-1 / 1.5), d = g1 * (-a / 1.5);
    vec_wide t = (g0 + 2. * g2) * (1 / 6.), e = g1 * (b / 6.);
    o[0] = g0, o[1] = s + d, o[2] = s - d, o[3] = t + e, o[4] = t - e, o[5] = g2;
}

ALONG winograd_gradient_along_4(const vec_float *y, vec_float *o) {
    o[0] = y[0];
    vec_float s = y[0] + (T)0.5 * y[2], d = WINOGRAD_A * (y[1] + (T)0.5 * y[3]);
    o[1] = s + d, o[2] = s - d;
    s = y[0] + (T)2 * y[2], d = WINOGRAD_B * (y[1] + (T)2 * y[3]);
    o[3] = s + d, o[4] = s - d;
    o[5] = y[3];
}

ALONG winograd_taps_along_4(const vec_float *m, vec_float *o) {
    vec_float s = (T)(-1 / 1.5) * (m[1] + m[2]), d = (T)(-1 / 1.5) * (m[1] - m[2]);
    vec_float t = (T)(1 / 6.) * (m[3] + m[4]), e = (T)(1 / 6.) * (m[3] - m[4]);
    o[0] = m[0] + s + t;
    o[1] = WINOGRAD_A * d + WINOGRAD_B * e;
    o[2] = (T)0.5 * s + (T)2 * t + m[5];
}

#undef ALONG

#define TILE 2
#define OF_TILE(name) name##_2
#include "winograd_tile.h"
#define TILE 4
#define OF_TILE(name) name##_4
#include "winograd_tile.h"

#define WINOGRAD_OF(m)                                                                                               \
    [m / 2] = {winograd_input_##m, winograd_output_##m, winograd_weights_##m, winograd_gradient_##m, winograd_taps_##m}
