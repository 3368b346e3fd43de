/* Pooling over one row of output pixels, for one storage type. Included once a type with
     S        storage type       A       type to compute in        POOL(x)  x with the type's suffix
     READ/WRITE                  convert S to A and back
     LOWEST                      the value below all others        IS_NAN(v)
     POOL_AVERAGES               averages too                      POOL_SCATTERS  gradients too: the types that sum them
   Channels are taken in chunks when they lie side by side, one by one otherwise, so that both layouts stream. */

typedef S POOL(at) __attribute__((aligned(1), may_alias));
enum { POOL(chunk) = 64, POOL(few) = 64 }; /* values of a window up to which it is one running sum */
#define LOAD(p) READ(*(const POOL(at) *)(p))

/* A part of an axis, first .. last - 1; `all` counts what of it lies over padding too. */
typedef struct { ptrdiff_t first, last, all; } POOL(run);

/* The taps from position `first` on, so far apart, that lie inside an axis of so many elements. */
static inline __attribute__((always_inline)) POOL(run) POOL(taps)(ptrdiff_t first, ptrdiff_t taps, ptrdiff_t dilation,
                                                                  ptrdiff_t size) {
    POOL(run) run = {0, taps, taps};
    while (run.first < taps && first + run.first * dilation < 0) run.first++;
    while (run.last > run.first && first + (run.last - 1) * dilation >= size) run.last--;
    return run;
}

/* `chunk` channels at a time, xc and yc bytes apart: constants where they lie side by side. */
static inline __attribute__((always_inline)) void POOL(max_chunks)(const fc_pool_row *r, const ptrdiff_t chunk,
                                                                   const ptrdiff_t xc, const ptrdiff_t yc) {
    const POOL(run) z = POOL(taps)(r->z0, r->kernel_z, r->dilation_z, r->depth);
    const POOL(run) y = POOL(taps)(r->y0, r->kernel_y, r->dilation_y, r->height);
    const ptrdiff_t step = r->dilation_x * r->xw;
    for (ptrdiff_t c0 = 0; c0 < r->channels; c0 += chunk) {
        const ptrdiff_t n = chunk == 1 || r->channels - c0 >= chunk ? chunk : r->channels - c0;
        for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
            A best[POOL(chunk)];
            int64_t where[POOL(chunk)];
            const ptrdiff_t left = ox * r->stride_x - r->pad_x;
            const POOL(run) x = POOL(taps)(left, r->kernel_x, r->dilation_x, r->width);
            const char *plane = r->x + left * r->xw + c0 * xc;
            const int some = z.first < z.last && y.first < y.last && x.first < x.last;
            const ptrdiff_t z0 = r->z0 + z.first * r->dilation_z, y0 = r->y0 + y.first * r->dilation_y;
            const char *first = plane + z0 * r->xd + y0 * r->xh + x.first * step;
            const int64_t at = ((int64_t)z0 * r->height + y0) * r->width + left + x.first * r->dilation_x;
            if (some)
                for (ptrdiff_t c = 0; c < n; c++) best[c] = LOAD(first + c * xc), where[c] = at;
            else
                for (ptrdiff_t c = 0; c < n; c++) best[c] = LOWEST, where[c] = 0;
            ptrdiff_t from = x.first + 1; /* of the first row */
            for (ptrdiff_t h = z.first; h < z.last; h++)
                for (ptrdiff_t i = y.first; i < y.last; i++) {
                    const ptrdiff_t iz = r->z0 + h * r->dilation_z, iy = r->y0 + i * r->dilation_y;
                    const char *in = plane + iz * r->xd + iy * r->xh + from * step;
                    int64_t index = ((int64_t)iz * r->height + iy) * r->width + left + from * r->dilation_x;
                    for (ptrdiff_t j = from; j < x.last; j++, in += step, index += r->dilation_x) {
                        if (!r->index)
                            for (ptrdiff_t c = 0; c < n; c++) {
                                const A v = LOAD(in + c * xc), more = v > best[c] ? v : best[c]; /* no jump */
                                best[c] = IS_NAN(v) ? v : more;
                            }
                        else
                            for (ptrdiff_t c = 0; c < n; c++) {
                                const A v = LOAD(in + c * xc);
                                const int more = !(v <= best[c]) & !IS_NAN(best[c]);
                                where[c] = more ? index : where[c];
                                best[c] = more ? v : best[c];
                            }
                    }
                    from = x.first;
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
    else if (r->xc == size) POOL(max_chunks)(r, POOL(chunk), size, r->yc);
    else POOL(max_chunks)(r, 1, r->xc, r->yc);
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
            const int64_t row = index / r->width;
            const ptrdiff_t to = r->depth == 1 ? row * r->yh : row / r->height * r->yd + row % r->height * r->yh;
            POOL(add_to)(r->y + to + index % r->width * r->yw + c * r->yc, low,
                         LOAD(r->x + ox * r->xw + c * r->xc));
        }
}
#endif

#if POOL_AVERAGES
/* The elements of a window along an axis. */
static inline __attribute__((always_inline)) POOL(run) POOL(along)(ptrdiff_t first, ptrdiff_t kernel, ptrdiff_t limit,
                                                                   ptrdiff_t size) {
    const ptrdiff_t end = first + kernel > limit ? limit : first + kernel;
    return (POOL(run)){first < 0 ? 0 : first, end > size ? size : end, end - first};
}

/* The planes and the rows of a window are those of all output pixels of the row. */
typedef struct { POOL(run) z, y; ptrdiff_t rows, all; } POOL(window);

static inline POOL(window) POOL(window_of)(const fc_pool_row *r) {
    POOL(window) w = {POOL(along)(r->z0, r->kernel_z, r->limit_z, r->depth),
                      POOL(along)(r->y0, r->kernel_y, r->limit_y, r->height), 0, 0};
    w.all = w.z.all * w.y.all;
    w.rows = w.z.last > w.z.first && w.y.last > w.y.first ? (w.z.last - w.z.first) * (w.y.last - w.y.first) : 0;
    return w;
}

/* What a sum is divided by. */
static inline __attribute__((always_inline)) ptrdiff_t POOL(divisor)(const fc_pool_row *r, const POOL(window) *w,
                                                                     POOL(run) x) {
    if (r->divisor) return r->divisor;
    if (r->count_include_pad) return w->all * x.all;
    return w->rows && x.last > x.first ? w->rows * (x.last - x.first) : 1;
}

#define COLUMNS(r, ox) POOL(along)((ox) * (r)->stride_x - (r)->pad_x, (r)->kernel_x, (r)->limit_x, (r)->width)

static inline __attribute__((always_inline)) void POOL(avg_chunks)(const fc_pool_row *r, const ptrdiff_t chunk,
                                                                   const ptrdiff_t xc, const ptrdiff_t yc) {
    const POOL(window) w = POOL(window_of)(r);
    for (ptrdiff_t c0 = 0; c0 < r->channels; c0 += chunk) {
        const ptrdiff_t n = chunk == 1 || r->channels - c0 >= chunk ? chunk : r->channels - c0;
        for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
            A sum[POOL(chunk)];
            for (ptrdiff_t c = 0; c < n; c++) sum[c] = 0;
            const POOL(run) x = COLUMNS(r, ox);
            A divisor = (A)POOL(divisor)(r, &w, x);
            for (ptrdiff_t iz = w.z.first; iz < w.z.last; iz++)
                for (ptrdiff_t iy = w.y.first; iy < w.y.last; iy++)
                    for (ptrdiff_t ix = x.first; ix < x.last; ix++) {
                        const char *in = r->x + iz * r->xd + iy * r->xh + ix * r->xw + c0 * xc;
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
    const POOL(window) w = POOL(window_of)(r);
    for (ptrdiff_t c0 = 0; c0 < r->channels; c0 += chunk) {
        const ptrdiff_t n = chunk == 1 || r->channels - c0 >= chunk ? chunk : r->channels - c0;
        for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
            double sum[POOL(chunk)], low[POOL(chunk)];
            for (ptrdiff_t c = 0; c < n; c++) sum[c] = low[c] = 0;
            const POOL(run) x = COLUMNS(r, ox);
            const double divisor = (double)POOL(divisor)(r, &w, x);
            for (ptrdiff_t iz = w.z.first; iz < w.z.last; iz++)
                for (ptrdiff_t iy = w.y.first; iy < w.y.last; iy++)
                    for (ptrdiff_t ix = x.first; ix < x.last; ix++) {
                        const char *in = r->x + iz * r->xd + iy * r->xh + ix * r->xw + c0 * xc;
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
    else if (r->xc == size) POOL(avg_large)(r, POOL(chunk), size, r->yc);
    else POOL(avg_large)(r, 1, r->xc, r->yc);
}

static __attribute__((noinline)) void POOL(avg_small_row)(const fc_pool_row *r) {
    const ptrdiff_t size = sizeof(S);
    if (r->xc == size && r->yc == size) POOL(avg_chunks)(r, POOL(chunk), size, size);
    else if (r->xc == size) POOL(avg_chunks)(r, POOL(chunk), size, r->yc);
    else POOL(avg_chunks)(r, 1, r->xc, r->yc);
}

static void POOL(avg_row)(const fc_pool_row *r) {
    if (r->kernel_z * r->kernel_y * r->kernel_x > POOL(few)) POOL(avg_large_row)(r);
    else POOL(avg_small_row)(r);
}

#if POOL_SCATTERS
static void POOL(avg_scatter)(const fc_pool_row *r) {
    const ptrdiff_t low = r->low;
    const POOL(window) w = POOL(window_of)(r);
    for (ptrdiff_t ox = 0; ox < r->out_width; ox++) {
        const POOL(run) x = COLUMNS(r, ox);
        A divisor = (A)POOL(divisor)(r, &w, x);
        for (ptrdiff_t iz = w.z.first; iz < w.z.last; iz++)
            for (ptrdiff_t iy = w.y.first; iy < w.y.last; iy++)
                for (ptrdiff_t ix = x.first; ix < x.last; ix++)
                    for (ptrdiff_t c = 0; c < r->channels; c++)
                        POOL(add_to)(r->y + iz * r->yd + iy * r->yh + ix * r->yw + c * r->yc, low,
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

#undef COLUMNS
#undef LOAD
#undef S
#undef A
#undef POOL
#undef LOWEST
