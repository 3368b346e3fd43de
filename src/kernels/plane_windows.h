/* Depthwise convolution of planes as they lie, a lane a pixel: rows of outputs together, so that a vector of inputs is
   loaded once for all rows of taps that meet it, and nothing is copied. What lies beyond the ends of a row is masked, so
   that no byte of it is read, and rows beyond the plane are skipped. Sums are in the order (tap y, tap x) of flat.h.
   Included by lanes.h for sets with masks. */

#define PLANE_UNROLL _Pragma("GCC unroll 25")
enum { PLANE_HELD = 5 }; /* taps a side whose weights registers hold, all lanes alike */

/* Elements whose bits are set, zeros for the others. */
static inline __attribute__((always_inline)) NAME(vec) NAME(plane_load)(const T *from, uint16_t mask) {
    NAME(vec) v;
    __asm__("vmovups %1, %0%{%2%}%{z%}" : "=v"(v) : "m"(*(const NAME(vec) *)from), "Yk"(mask));
    return v;
}

static inline __attribute__((always_inline)) void NAME(plane_put)(T *to, NAME(vec) v, uint16_t mask) {
    __asm__("vmovups %1, %0%{%2%}" : "+m"(*(NAME(vec) *)to) : "v"(v), "Yk"(mask));
}

/* The bits of the elements from `column` on that lie in a row of so many. */
static inline uint16_t NAME(plane_mask)(ptrdiff_t column, ptrdiff_t width) {
    const ptrdiff_t low = column < 0 ? -column : 0, high = width - column < LANES ? width - column : LANES;
    return low >= high ? 0 : (uint16_t)(((1u << high) - 1) & ~((1u << low) - 1));
}

/* A row of inputs under a vector of outputs, for each column of taps. With a stride of two it is loaded once, but for the
   elements behind it that the last lanes meet, and shuffled: `mask` is of the first vector, the second and what follows. */
static inline __attribute__((always_inline)) void NAME(plane_inputs)(const int taps, const int stride, const T *in,
                                                                     const uint16_t *mask, NAME(vec) *v) {
    if (stride == 1) {
        UNROLL for (int j = 0; j < taps; j++) v[j] = NAME(plane_load)(in + j, mask[j]);
        return;
    }
    const NAME(flat_index) even = 2 * NAME(flat_count)();
    const NAME(vec) a = NAME(plane_load)(in, mask[0]), b = NAME(plane_load)(in + LANES, mask[1]);
    NAME(vec) behind;
    __asm__("vmovups %1, %x0%{%2%}%{z%}" : "=v"(behind) : "m"(*(const T(*)[4])(in + 2 * LANES)), "Yk"(mask[2]));
    v[0] = __builtin_shuffle(a, b, even), v[1] = __builtin_shuffle(a, b, even + 1);
    const NAME(vec) more = taps > 3 ? __builtin_shuffle(behind, even) : behind;
    v[2] = NAME(flat_between)(v[0], more, 1);
    if (taps > 3) {
        v[3] = NAME(flat_between)(v[1], __builtin_shuffle(behind, even + 1), 1);
        v[4] = NAME(flat_between)(v[0], more, 2);
    }
}

/* So many rows of a vector of outputs. `first` and `last` of the rows of inputs under them lie in the plane. */
static inline __attribute__((always_inline)) void NAME(plane_tile)(
    const int rows, const int taps, const int stride, const T *in, ptrdiff_t x_row, ptrdiff_t first, ptrdiff_t last,
    const uint16_t *mask, const NAME(vec) *held, const T *w, const T *bias, int relu, T *to, ptrdiff_t y_row, uint16_t put) {
    NAME(vec) acc[4], v[FC_FLAT_TAPS + 1];
    UNROLL for (int r = 0; r < rows; r++) acc[r] = (NAME(vec)){0};
    UNROLL for (int i = 0; i < (rows - 1) * stride + taps; i++) {
        if (i < first || i >= last) continue;
        NAME(plane_inputs)(taps, stride, in + i * x_row, mask, v);
        UNROLL for (int j = 0; j < taps; j++)
            UNROLL for (int r = 0; r < rows; r++)
                if (i >= r * stride && i - r * stride < taps) {
                    const int t = (i - r * stride) * taps + j;
                    if (taps <= PLANE_HELD) acc[r] += v[j] * held[t];
                    else acc[r] += v[j] * w[t];
                }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        if (bias) acc[r] += *bias;
        if (relu) acc[r] = NAME(relu)(acc[r]);
        if (relu == FC_RELU6) acc[r] = NAME(at_most_six)(acc[r]);
        NAME(plane_put)(to + r * y_row, acc[r], put);
    }
}

static inline __attribute__((always_inline)) void NAME(plane_window)(const int taps, const int stride,
                                                                     const fc_plane_window *p) {
    enum { ROWS = 4 };
    NAME(vec) held[PLANE_HELD * PLANE_HELD];
    T w[FC_FLAT_TAPS * FC_FLAT_TAPS];
    PLANE_UNROLL for (int t = 0; t < taps * taps; t++) {
        w[t] = ((const T *)p->w)[t * p->ldw];
        if (taps <= PLANE_HELD) held[t] = w[t] - (NAME(vec)){0};
    }
    for (ptrdiff_t c = 0; c < p->columns; c += LANES) {
        if (c + LANES > p->columns && c > 0) c = p->columns - LANES; /* the last one computes some columns again */
        const uint16_t put = NAME(plane_mask)(c, p->columns);
        const ptrdiff_t column = c * stride + p->first_x;
        uint16_t mask[FC_FLAT_TAPS];
        for (int j = 0; j < (stride == 1 ? taps : 3); j++)
            mask[j] = NAME(plane_mask)(column + (stride == 1 ? j : j * LANES), p->width);
        for (ptrdiff_t y = 0; y < p->rows; y += p->rows < ROWS ? 1 : ROWS) {
            if (y + ROWS > p->rows && p->rows >= ROWS) y = p->rows - ROWS;
            const ptrdiff_t row = y * stride + p->first_y;
            const T *in = (const T *)p->x + row * p->x_row + column;
            T *to = (T *)p->y + y * p->y_row + c;
            if (p->rows < ROWS)
                NAME(plane_tile)(1, taps, stride, in, p->x_row, -row, p->height - row, mask, held, w, p->bias, p->relu, to,
                                 p->y_row, put);
            else
                NAME(plane_tile)(ROWS, taps, stride, in, p->x_row, -row, p->height - row, mask, held, w, p->bias, p->relu, to,
                                 p->y_row, put);
        }
    }
}

/* The same of taps that lie apart, at stride 1: every vector of inputs is loaded for the one output that it meets. */
static inline __attribute__((always_inline)) void NAME(plane_apart_tile)(const int rows, const int taps, const T *in,
                                                                         ptrdiff_t row, const fc_plane_window *p,
                                                                         const uint16_t *mask, const NAME(vec) *held,
                                                                         T *to, uint16_t put) {
    const ptrdiff_t apart = p->dilation, x_row = p->x_row;
    NAME(vec) acc[4];
    UNROLL for (int r = 0; r < rows; r++) acc[r] = (NAME(vec)){0};
    UNROLL for (int i = 0; i < taps; i++)
        UNROLL for (int r = 0; r < rows; r++) {
            if (row + i * apart + r < 0 || row + i * apart + r >= p->height) continue;
            const T *from = in + (i * apart + r) * x_row;
            UNROLL for (int j = 0; j < taps; j++, from += apart)
                acc[r] += NAME(plane_load)(from, mask[j]) * held[i * taps + j];
        }
    UNROLL for (int r = 0; r < rows; r++) {
        if (p->bias) acc[r] += *(const T *)p->bias;
        if (p->relu) acc[r] = NAME(relu)(acc[r]);
        if (p->relu == FC_RELU6) acc[r] = NAME(at_most_six)(acc[r]);
        NAME(plane_put)(to + r * p->y_row, acc[r], put);
    }
}

static inline __attribute__((always_inline)) void NAME(plane_apart)(const int taps, const fc_plane_window *p) {
    enum { ROWS = 4 };
    NAME(vec) held[PLANE_HELD * PLANE_HELD];
    PLANE_UNROLL for (int t = 0; t < taps * taps; t++) held[t] = ((const T *)p->w)[t * p->ldw] - (NAME(vec)){0};
    for (ptrdiff_t c = 0; c < p->columns; c += LANES) {
        if (c + LANES > p->columns && c > 0) c = p->columns - LANES; /* the last one computes some columns again */
        const uint16_t put = NAME(plane_mask)(c, p->columns);
        uint16_t mask[PLANE_HELD];
        for (int j = 0; j < taps; j++) mask[j] = NAME(plane_mask)(c + p->first_x + j * p->dilation, p->width);
        for (ptrdiff_t y = 0; y < p->rows; y += p->rows < ROWS ? 1 : ROWS) {
            if (y + ROWS > p->rows && p->rows >= ROWS) y = p->rows - ROWS;
            const ptrdiff_t row = y + p->first_y;
            const T *in = (const T *)p->x + row * p->x_row + c + p->first_x;
            T *to = (T *)p->y + y * p->y_row + c;
            if (p->rows < ROWS) NAME(plane_apart_tile)(1, taps, in, row, p, mask, held, to, put);
            else NAME(plane_apart_tile)(ROWS, taps, in, row, p, mask, held, to, put);
        }
    }
}
static void NAME(plane_window_3_0)(const fc_plane_window *p) { NAME(plane_apart)(3, p); }
static void NAME(plane_window_5_0)(const fc_plane_window *p) { NAME(plane_apart)(5, p); }

#define PLANE_WINDOW(taps, stride)                                                                                   \
    static void NAME(plane_window_##taps##_##stride)(const fc_plane_window *p) {                                     \
        NAME(plane_window)(taps, stride, p);                                                                         \
    }
PLANE_WINDOW(3, 1) PLANE_WINDOW(5, 1) PLANE_WINDOW(7, 1) PLANE_WINDOW(3, 2) PLANE_WINDOW(5, 2)
#define PLANE_WINDOWS                                                                                               \
    .plane_window = {[3] = {NAME(plane_window_3_0), NAME(plane_window_3_1), NAME(plane_window_3_2)},                \
                     [5] = {NAME(plane_window_5_0), NAME(plane_window_5_1), NAME(plane_window_5_2)},                \
                     [7] = {0, NAME(plane_window_7_1)}},
