/* What training and networks need beside convolution and pooling, over rows of channels. Included once a type with
     T  element type      LAYER(x)  x with the type's suffix
   Loops run over channels side by side, so that the compiler makes vectors of them. */

/* dz = dy where 0 < y < most, else 0; sum[c] += dz: the gradient of a clipped activation and of the bias.
   dz may be dy. */
static void LAYER(relu_gradient)(void *dz_, const void *dy_, const void *restrict y_, double most_, ptrdiff_t pixels,
                                 ptrdiff_t channels, void *restrict sum_) {
    T *dz = dz_, *restrict sum = sum_;
    const T *dy = dy_, *restrict y = y_;
    const T most = (T)most_;
    for (ptrdiff_t p = 0; p < pixels; p++, dz += channels, dy += channels, y += channels)
        INDEPENDENT for (ptrdiff_t c = 0; c < channels; c++) {
            T v = y[c] > 0 && y[c] < most ? dy[c] : 0;
            dz[c] = v;
            sum[c] += v;
        }
}

/* sum[c] += a, product[c] += (a - shift_a) * (b - shift_b). */
static void LAYER(products)(const void *a_, const void *shift_a_, const void *b_, const void *shift_b_,
                            ptrdiff_t pixels, ptrdiff_t channels, void *restrict sum_, void *restrict product_) {
    const T *a = a_, *b = b_, *shift_a = shift_a_, *shift_b = shift_b_;
    T *restrict sum = sum_, *restrict product = product_;
    for (ptrdiff_t p = 0; p < pixels; p++, a += channels, b += channels)
        for (ptrdiff_t c = 0; c < channels; c++) {
            sum[c] += a[c];
            product[c] += (a[c] - shift_a[c]) * (b[c] - shift_b[c]);
        }
}

/* sum[c] += x. */
static void LAYER(sum)(const void *x_, ptrdiff_t pixels, ptrdiff_t channels, void *restrict sum_) {
    const T *restrict x = x_;
    T *restrict sum = sum_;
    for (ptrdiff_t p = 0; p < pixels; p++, x += channels)
        for (ptrdiff_t c = 0; c < channels; c++) sum[c] += x[c];
}

/* out = x * a + z * b + c (z may be NULL), not below 0 with `relu`; out may be x. */
static void LAYER(affine)(void *out_, const void *x_, const void *a_, const void *z_, const void *b_, const void *c_,
                          int relu, ptrdiff_t pixels, ptrdiff_t channels) {
    T *out = out_;
    const T *x = x_, *a = a_, *z = z_, *b = b_, *shift = c_;
    for (ptrdiff_t p = 0; p < pixels; p++, out += channels, x += channels) {
        if (z) {
            INDEPENDENT for (ptrdiff_t c = 0; c < channels; c++) out[c] = x[c] * a[c] + z[c] * b[c] + shift[c];
            z += channels;
        } else if (relu) {
            INDEPENDENT for (ptrdiff_t c = 0; c < channels; c++) {
                T v = x[c] * a[c] + shift[c];
                out[c] = v < 0 ? 0 : v; /* NaN passes through */
            }
        } else {
            INDEPENDENT for (ptrdiff_t c = 0; c < channels; c++) out[c] = x[c] * a[c] + shift[c];
        }
    }
}

/* Momentum v = momentum v - rate g (none without `v`), w = keep w + v, or keep w + momentum v - rate g by Nesterov. */
static void LAYER(sgd)(void *restrict w_, const void *restrict g_, void *restrict v_, double rate_, double momentum_,
                       double keep_, int nesterov, ptrdiff_t count) {
    T *restrict w = w_, *restrict v = v_;
    const T *restrict g = g_;
    const T rate = (T)rate_, momentum = (T)momentum_, keep = (T)keep_;
    if (!v)
        for (ptrdiff_t i = 0; i < count; i++) w[i] = w[i] * keep - rate * g[i];
    else if (!nesterov)
        for (ptrdiff_t i = 0; i < count; i++) {
            v[i] = momentum * v[i] - rate * g[i];
            w[i] = w[i] * keep + v[i];
        }
    else
        for (ptrdiff_t i = 0; i < count; i++) {
            T step = rate * g[i];
            v[i] = momentum * v[i] - step;
            w[i] = w[i] * keep + (momentum * v[i] - step);
        }
}

/* Adam: moments m and s, then w = keep w - rate m / (sqrt(s) + epsilon); the bias correction is in `rate`. */
static void LAYER(adam)(void *restrict w_, const void *restrict g_, void *restrict m_, void *restrict s_, double rate_,
                        double beta_1_, double beta_2_, double epsilon_, double keep_, ptrdiff_t count) {
    T *restrict w = w_, *restrict m = m_, *restrict s = s_;
    const T *restrict g = g_;
    const T rate = (T)rate_, rest_1 = (T)(1 - beta_1_), rest_2 = (T)(1 - beta_2_);
    const T epsilon = (T)epsilon_, keep = (T)keep_;
    for (ptrdiff_t i = 0; i < count; i++) {
        m[i] += (g[i] - m[i]) * rest_1;
        s[i] += (g[i] * g[i] - s[i]) * rest_2;
        w[i] = w[i] * keep - rate * m[i] / (LAYER_SQRT(s[i]) + epsilon);
    }
}

/* sum[m][:] += x[m][k] * w[k][:] over k, for up to 8 rows of x: a pass over the weights in their order, four rows at a
   time, which serves all samples. Strides in elements. */
static void LAYER(dense)(const void *x_, ptrdiff_t x_stride, ptrdiff_t samples, const void *w_, ptrdiff_t inputs,
                         ptrdiff_t outputs, void *restrict sum_) {
    enum { CHUNK = 256 }; /* outputs: four rows of them stay in the first level */
    const T *restrict x = x_, *restrict w = w_;
    T *restrict sum = sum_;
    ptrdiff_t k = 0;
    for (; k + 4 <= inputs; k += 4, w += 4 * outputs)
        for (ptrdiff_t n0 = 0; n0 < outputs; n0 += CHUNK) {
            const ptrdiff_t n1 = n0 + CHUNK < outputs ? n0 + CHUNK : outputs;
            for (ptrdiff_t m = 0; m < samples; m++) {
                const T *restrict at = x + m * x_stride + k;
                const T a = at[0], b = at[1], c = at[2], d = at[3];
                T *restrict to = sum + m * outputs;
                for (ptrdiff_t n = n0; n < n1; n++)
                    to[n] += (a * w[n] + b * w[n + outputs]) + (c * w[n + 2 * outputs] + d * w[n + 3 * outputs]);
            }
        }
    for (; k < inputs; k++, w += outputs)
        for (ptrdiff_t m = 0; m < samples; m++)
            for (ptrdiff_t n = 0; n < outputs; n++) sum[m * outputs + n] += x[m * x_stride + k] * w[n];
}

/* The gradient of a max pooling for up to 64 channels of one image: every dy is added to the first element of its
   window that equals the maximum (or is NaN, where that is). Offsets and strides in elements. */
static void LAYER(max_pool_gradient)(const fc_max_pool_gradient *r) {
    enum { CHUNK = 64 };
    const ptrdiff_t n = r->channels;
    T *dx = r->dx;
    const T *x = r->x, *y = r->y, *dy = r->dy;
    for (ptrdiff_t i = 0; i < r->height * r->width; i++) memset(dx + i * r->pixel, 0, n * sizeof(T));
    for (ptrdiff_t oy = 0; oy < r->out_height; oy++)
        for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
            T left[CHUNK]; /* what is still to be given away */
            const ptrdiff_t at = (oy * r->out_width + ox) * r->pixel;
            const T *most = y + at, *grad = dy + at;
            for (ptrdiff_t c = 0; c < n; c++) left[c] = grad[c];
            for (ptrdiff_t i = 0; i < r->kernel_y; i++) {
                const ptrdiff_t iy = oy * r->stride_y - r->pad_y + i;
                if (iy < 0 || iy >= r->height) continue;
                for (ptrdiff_t j = 0; j < r->kernel_x; j++) {
                    const ptrdiff_t ix = ox * r->stride_x - r->pad_x + j;
                    if (ix < 0 || ix >= r->width) continue;
                    const ptrdiff_t place = (iy * r->width + ix) * r->pixel;
                    const T *in = x + place;
                    T *to = dx + place;
                    for (ptrdiff_t c = 0; c < n; c++) {
                        int here = in[c] == most[c] || (in[c] != in[c] && most[c] != most[c]);
                        to[c] += here ? left[c] : 0;
                        left[c] = here ? 0 : left[c];
                    }
                }
            }
        }
}

#define EACH(...)                                                                                                    \
    for (ptrdiff_t i = 0; i < count; i++) {                                                                          \
        const T v = values[i];                                                                                       \
        values[i] = __VA_ARGS__;                                                                                     \
    }                                                                                                                \
    break
#define EACH_WITH(...)                                                                                               \
    if (operand)                                                                                                     \
        for (ptrdiff_t i = 0; i < count; i++) {                                                                      \
            const T v = values[i], b = operand[i];                                                                   \
            values[i] = __VA_ARGS__;                                                                                 \
        }                                                                                                            \
    else                                                                                                             \
        for (ptrdiff_t i = 0; i < count; i++) {                                                                      \
            const T v = values[i], b = number;                                                                       \
            values[i] = __VA_ARGS__;                                                                                 \
        }                                                                                                            \
    break

/* A chain of steps on values that stay in the first level; comparisons are written so that NaN passes through. An
   operand may be `values` themselves. */
static void LAYER(elementwise)(void *values_, const fc_step *step, ptrdiff_t steps, ptrdiff_t count) {
    T *values = values_;
    for (ptrdiff_t s = 0; s < steps; s++) {
        const T *operand = step[s].operand;
        const T number = (T)step[s].number;
        switch (step[s].code) {
        case FC_EW_ADD: EACH_WITH(v + b);
        case FC_EW_SUB: EACH_WITH(v - b);
        case FC_EW_SUB_FROM: EACH_WITH(b - v);
        case FC_EW_MUL: EACH_WITH(v * b);
        case FC_EW_DIV: EACH_WITH(v / b);
        case FC_EW_DIV_BY: EACH_WITH(b / v);
        case FC_EW_MAX: EACH_WITH(v < b ? b : v);
        case FC_EW_MIN: EACH_WITH(v > b ? b : v);
        case FC_EW_LEAKY: EACH_WITH(v < 0 ? v * b : v);
        case FC_EW_MAX_NUMBER: EACH_WITH(v > b ? v : b);
        case FC_EW_SQUARE: EACH(v * v);
        case FC_EW_SQRT: EACH(LAYER_SQRT(v));
        case FC_EW_ABS: EACH(LAYER_ABS(v));
        case FC_EW_NEGATE: EACH(-v);
        case FC_EW_ROUND: EACH(LAYER_ROUND(v));
        case FC_EW_THRESHOLD: EACH_WITH(v > b ? v : 0);
        case FC_EW_SOFTSIGN: EACH(v / (1 + LAYER_ABS(v)));
        case FC_EW_CUBE: EACH(v * v * v);
        default: LAYER_MAP(step[s].code, step[s].number, values, count);
        }
    }
}
#undef EACH
#undef EACH_WITH

static const fc_layer_kernels LAYER(kernels) = {
    LAYER(elementwise),
    LAYER(relu_gradient), LAYER(products), LAYER(sum), LAYER(affine), LAYER(sgd), LAYER(adam), LAYER(max_pool_gradient),
    LAYER(dense),
};
#undef T
#undef LAYER
#undef LAYER_SQRT
#undef LAYER_ABS
#undef LAYER_ROUND
#undef LAYER_MAP
