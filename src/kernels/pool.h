/* Pooling over one row of output pixels, for one storage type. Included once a type with
     S        storage type       A       type to compute in        POOL(x)  x with the type's suffix
     READ/WRITE                  convert S to A and back
     LOWEST                      the value below all others        IS_NAN(v)
     POOL_AVERAGES               averages too                      POOL_SCATTERS  gradients too: the types that sum them
   Channels are taken in chunks when they lie side by side, one by one otherwise, so that both layouts stream. */

typedef S POOL(at) __attribute__((aligned(1), may_alias));
enum { POOL(chunk) = 64, POOL(few) = 64 }; /* values of a window up to which it is one running sum */
#define LOAD(p) READ(*(const POOL(at) *)(p))

/* `chunk` channels at a time, xc and yc bytes apart: constants where they lie side by side. */
static inline __attribute__((always_inline)) void POOL(max_chunks)(const fc_pool_row *r, const ptrdiff_t chunk,
                                                                   const ptrdiff_t xc, const ptrdiff_t yc) {
    for (ptrdiff_t c0 = 0; c0 < r->channels; c0 += chunk) {
        ptrdiff_t n = r->channels - c0 < chunk ? r->channels - c0 : chunk;
        for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
            A best[POOL(chunk)];
            int64_t where[POOL(chunk)];
            int found = 0;
            for (ptrdiff_t c = 0; c < n; c++) best[c] = LOWEST, where[c] = 0;
            for (ptrdiff_t i = 0; i < r->kernel_y; i++) {
                ptrdiff_t iy = r->y0 + i * r->dilation_y;
                if (iy < 0 || iy >= r->height) continue;
                for (ptrdiff_t j = 0; j < r->kernel_x; j++) {
                    ptrdiff_t ix = ox * r->stride_x - r->pad_x + j * r->dilation_x;
                    if (ix < 0 || ix >= r->width) continue;
                    const char *in = r->x + iy * r->xh + ix * r->xw + c0 * xc;
                    int64_t index = (int64_t)iy * r->width + ix;
                    if (!found)
                        for (ptrdiff_t c = 0; c < n; c++) best[c] = LOAD(in + c * xc), where[c] = index;
                    else if (!r->index)
                        for (ptrdiff_t c = 0; c < n; c++) {
                            A v = LOAD(in + c * xc);
                            best[c] = v > best[c] || IS_NAN(v) ? v : best[c];
                        }
                    else
                        for (ptrdiff_t c = 0; c < n; c++) {
                            A v = LOAD(in + c * xc);
                            if (v > best[c] || (IS_NAN(v) && !IS_NAN(best[c]))) best[c] = v, where[c] = index;
                        }
                    found = 1;
                }
            }
            char *out = r->y + ox * r->yw + c0 * yc;
            for (ptrdiff_t c = 0; c < n; c++) *(POOL(at) *)(out + c * yc) = (S)WRITE(best[c]);
            if (r->index)
                for (ptrdiff_t c = 0; c < n; c++)
                    *(int64_t *)(r->index + ox * r->iw + (c0 + c) * r->ic) = where[c];
        }
    }
}

static void POOL(max_row)(const fc_pool_row *r) {
    const ptrdiff_t size = sizeof(S);
    if (r->xc == size && r->yc == size) POOL(max_chunks)(r, POOL(chunk), size, size);
    else POOL(max_chunks)(r, r->xc == size ? POOL(chunk) : 1, r->xc, r->yc);
}

#if POOL_SCATTERS
/* *to += v; what that rounds off (Knuth's two-sum) goes `low` bytes behind, if it is to be kept. */
static inline __attribute__((always_inline)) void POOL(add_to)(char *to, const ptrdiff_t low, const A v) {
    const A before = *(POOL(at) *)to, after = before + v, added = after - before;
    *(POOL(at) *)to = after;
    if (low) *(POOL(at) *)(to + low) += (before - (after - added)) + (v - added);
}

static void POOL(max_scatter)(const fc_pool_row *r) {
    const ptrdiff_t low = r->low;
    for (ptrdiff_t ox = 0; ox < r->out_width; ox++)
        for (ptrdiff_t c = 0; c < r->channels; c++) {
            int64_t index = *(const int64_t *)(r->index + ox * r->iw + c * r->ic);
            POOL(add_to)(r->y + index / r->width * r->yh + index % r->width * r->yw + c * r->yc, low,
                         LOAD(r->x + ox * r->xw + c * r->xc));
        }
}
#endif

#if POOL_AVERAGES
/* The window of output pixel ox: its first and last+1 tap inside the input, and what the sum is divided by. */
static inline ptrdiff_t POOL(window)(const fc_pool_row *r, ptrdiff_t ox, ptrdiff_t *y0, ptrdiff_t *y1, ptrdiff_t *x0,
                                     ptrdiff_t *x1) {
    ptrdiff_t top = r->y0, left = ox * r->stride_x - r->pad_x;
    ptrdiff_t bottom = top + r->kernel_y, right = left + r->kernel_x;
    if (bottom > r->limit_y) bottom = r->limit_y;
    if (right > r->limit_x) right = r->limit_x;
    *y0 = top < 0 ? 0 : top, *x0 = left < 0 ? 0 : left;
    *y1 = bottom > r->height ? r->height : bottom, *x1 = right > r->width ? r->width : right;
    if (r->divisor) return r->divisor;
    if (r->count_include_pad) return (bottom - top) * (right - left);
    return *y1 > *y0 && *x1 > *x0 ? (*y1 - *y0) * (*x1 - *x0) : 1;
}

static inline __attribute__((always_inline)) void POOL(avg_chunks)(const fc_pool_row *r, const ptrdiff_t chunk,
                                                                   const ptrdiff_t xc, const ptrdiff_t yc) {
    ptrdiff_t y0, y1, x0, x1;
    for (ptrdiff_t c0 = 0; c0 < r->channels; c0 += chunk) {
        ptrdiff_t n = r->channels - c0 < chunk ? r->channels - c0 : chunk;
        for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
            A sum[POOL(chunk)];
            for (ptrdiff_t c = 0; c < n; c++) sum[c] = 0;
            A divisor = (A)POOL(window)(r, ox, &y0, &y1, &x0, &x1);
            for (ptrdiff_t iy = y0; iy < y1; iy++)
                for (ptrdiff_t ix = x0; ix < x1; ix++) {
                    const char *in = r->x + iy * r->xh + ix * r->xw + c0 * xc;
                    for (ptrdiff_t c = 0; c < n; c++) sum[c] += LOAD(in + c * xc);
                }
            char *out = r->y + ox * r->yw + c0 * yc;
            for (ptrdiff_t c = 0; c < n; c++) *(POOL(at) *)(out + c * yc) = (S)WRITE(sum[c] / divisor);
        }
    }
}

/* The same for windows of more than a few values: sums in double, those of double with what every addition rounds off
   (Knuth's two-sum), so that the error does not grow with the window. */
static inline __attribute__((always_inline)) void POOL(avg_large)(const fc_pool_row *r, const ptrdiff_t chunk,
                                                                  const ptrdiff_t xc, const ptrdiff_t yc) {
    ptrdiff_t y0, y1, x0, x1;
    for (ptrdiff_t c0 = 0; c0 < r->channels; c0 += chunk) {
        ptrdiff_t n = r->channels - c0 < chunk ? r->channels - c0 : chunk;
        for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
            double sum[POOL(chunk)], low[POOL(chunk)];
            for (ptrdiff_t c = 0; c < n; c++) sum[c] = low[c] = 0;
            const double divisor = (double)POOL(window)(r, ox, &y0, &y1, &x0, &x1);
            for (ptrdiff_t iy = y0; iy < y1; iy++)
                for (ptrdiff_t ix = x0; ix < x1; ix++) {
                    const char *in = r->x + iy * r->xh + ix * r->xw + c0 * xc;
                    if (sizeof(A) < sizeof(double))
                        for (ptrdiff_t c = 0; c < n; c++) sum[c] += LOAD(in + c * xc);
                    else
                        for (ptrdiff_t c = 0; c < n; c++) {
                            const double v = LOAD(in + c * xc), before = sum[c];
                            const double after = before + v, added = after - before;
                            sum[c] = after;
                            low[c] += (before - (after - added)) + (v - added);
                        }
                }
            char *out = r->y + ox * r->yw + c0 * yc;
            for (ptrdiff_t c = 0; c < n; c++) {
                const double both = sum[c] + low[c];
                const A mean = (A)((both != both ? sum[c] : both) / divisor); /* an infinite sum rounds off NaN */
                *(POOL(at) *)(out + c * yc) = (S)WRITE(mean);
            }
        }
    }
}

static __attribute__((noinline)) void POOL(avg_large_row)(const fc_pool_row *r) {
    const ptrdiff_t size = sizeof(S);
    if (r->xc == size && r->yc == size) POOL(avg_large)(r, POOL(chunk), size, size);
    else POOL(avg_large)(r, r->xc == size ? POOL(chunk) : 1, r->xc, r->yc);
}

static __attribute__((noinline)) void POOL(avg_small_row)(const fc_pool_row *r) {
    const ptrdiff_t size = sizeof(S);
    if (r->xc == size && r->yc == size) POOL(avg_chunks)(r, POOL(chunk), size, size);
    else POOL(avg_chunks)(r, r->xc == size ? POOL(chunk) : 1, r->xc, r->yc);
}

static void POOL(avg_row)(const fc_pool_row *r) {
    if (r->kernel_y * r->kernel_x > POOL(few)) POOL(avg_large_row)(r);
    else POOL(avg_small_row)(r);
}

#if POOL_SCATTERS
static void POOL(avg_scatter)(const fc_pool_row *r) {
    const ptrdiff_t low = r->low;
    ptrdiff_t y0, y1, x0, x1;
    for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
        A divisor = (A)POOL(window)(r, ox, &y0, &y1, &x0, &x1);
        for (ptrdiff_t iy = y0; iy < y1; iy++)
            for (ptrdiff_t ix = x0; ix < x1; ix++)
                for (ptrdiff_t c = 0; c < r->channels; c++)
                    POOL(add_to)(r->y + iy * r->yh + ix * r->yw + c * r->yc, low,
                                 LOAD(r->x + ox * r->xw + c * r->xc) / divisor);
    }
}
#endif
#endif

static const fc_pool_kernels POOL(kernels) = {
    .max_row = POOL(max_row),
#if POOL_AVERAGES
    .avg_row = POOL(avg_row),
#endif
#if POOL_SCATTERS
    .max_scatter = POOL(max_scatter),
#if POOL_AVERAGES
    .avg_scatter = POOL(avg_scatter),
#endif
#endif
};

#undef LOAD
#undef S
#undef A
#undef POOL
#undef LOWEST
