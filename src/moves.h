/* Copies of planes, rows and columns of elements that lie any way: what needs no vectors of a certain length. */
#ifndef FASTCONV_MOVES_H
#define FASTCONV_MOVES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* One side of a plane: bytes from row to row and from column to column, or, of the source, tables of offsets. */
typedef struct {
    ptrdiff_t rows, columns, item;
    ptrdiff_t to_row, to_column, from_row, from_column;
    const ptrdiff_t *row_at, *column_at; /* NULL: none */
} fc_plane;

#define FC_RUNS(bytes)                                                                                               \
    for (ptrdiff_t r = 0; r < p->rows; r++)                                                                          \
        memcpy(to + r * p->to_row, from + (p->row_at ? p->row_at[r] : r * p->from_row), bytes);                      \
    break

/* Rows that are side by side on both sides; a call of memcpy costs more than some bytes. */
static inline void fc_move_runs(const fc_plane *p, char *to, const char *from) {
    const ptrdiff_t run = p->columns * p->item;
    switch (run) {
    case 1: FC_RUNS(1);
    case 2: FC_RUNS(2);
    case 4: FC_RUNS(4);
    case 8: FC_RUNS(8);
    case 12: FC_RUNS(12);
    case 16: FC_RUNS(16);
    case 32: FC_RUNS(32);
    case 64: FC_RUNS(64);
    default: FC_RUNS(run);
    }
}
#undef FC_RUNS

/* to = a[0], b[0], a[1], b[1] ... */
#define FC_INTERLEAVE(T)                                                                                             \
    {                                                                                                                \
        const T *x = a, *y = b;                                                                                      \
        T *z = to;                                                                                                   \
        for (ptrdiff_t i = 0; i < count; i++) z[2 * i] = x[i], z[2 * i + 1] = y[i];                                  \
        return;                                                                                                      \
    }
static inline void fc_interleave(ptrdiff_t item, void *restrict to, const void *restrict a, const void *restrict b,
                                 ptrdiff_t count) {
    switch (item) {
    case 1: FC_INTERLEAVE(uint8_t)
    case 2: FC_INTERLEAVE(uint16_t)
    case 4: FC_INTERLEAVE(uint32_t)
    default: FC_INTERLEAVE(uint64_t)
    }
}
#undef FC_INTERLEAVE

/* The rest, in blocks that keep both sides in the first level where one of them goes across. */
#define FC_MOVE(T)                                                                                                   \
    static inline void fc_move_##T(const fc_plane *p, char *to, const char *from) {                                  \
        const int across = !p->row_at && !p->column_at && p->from_row == (ptrdiff_t)sizeof(T);                       \
        const ptrdiff_t high = across ? p->columns < 8 ? 256 : 16 : 1, wide = across ? 16 : p->columns;              \
        for (ptrdiff_t r0 = 0; r0 < p->rows; r0 += high)                                                             \
            for (ptrdiff_t c0 = 0; c0 < p->columns; c0 += wide) {                                                    \
                const ptrdiff_t r1 = r0 + high < p->rows ? r0 + high : p->rows;                                      \
                const ptrdiff_t c1 = c0 + wide < p->columns ? c0 + wide : p->columns;                                \
                if (across) {                                                                                        \
                    for (ptrdiff_t c = c0; c < c1; c++) {                                                            \
                        char *at = to + c * p->to_column;                                                            \
                        const char *in = from + c * p->from_column;                                                  \
                        for (ptrdiff_t r = r0; r < r1; r++) memcpy(at + r * p->to_row, in + r * sizeof(T), sizeof(T)); \
                    }                                                                                                \
                    continue;                                                                                        \
                }                                                                                                    \
                const char *in = from + (p->row_at ? p->row_at[r0] : r0 * p->from_row);                              \
                char *at = to + r0 * p->to_row;                                                                      \
                if (p->column_at)                                                                                    \
                    for (ptrdiff_t c = 0; c < c1; c++) memcpy(at + c * p->to_column, in + p->column_at[c], sizeof(T)); \
                else if (p->from_column == 0 && p->to_column == (ptrdiff_t)sizeof(T)) {                              \
                    T value;                                                                                         \
                    memcpy(&value, in, sizeof(T));                                                                   \
                    for (ptrdiff_t c = 0; c < c1; c++) memcpy(at + c * sizeof(T), &value, sizeof(T));                \
                } else                                                                                               \
                    for (ptrdiff_t c = 0; c < c1; c++)                                                               \
                        memcpy(at + c * p->to_column, in + c * p->from_column, sizeof(T));                           \
            }                                                                                                        \
    }
FC_MOVE(uint8_t)
FC_MOVE(uint16_t)
FC_MOVE(uint32_t)
FC_MOVE(uint64_t)
#undef FC_MOVE

static inline void fc_move_plane(const fc_plane *p, char *to, const char *from) {
    if (!p->column_at && (p->columns == 1 || (p->to_column == p->item && p->from_column == p->item)))
        fc_move_runs(p, to, from);
    else if (p->item == 8)
        fc_move_uint64_t(p, to, from);
    else if (p->item == 4)
        fc_move_uint32_t(p, to, from);
    else if (p->item == 2)
        fc_move_uint16_t(p, to, from);
    else
        fc_move_uint8_t(p, to, from);
}

/* Conversions to and from float32: `code` is which. Truth is what is not zero. */
enum fc_cast {
    FC_U8_F32, FC_I8_F32, FC_I32_F32, FC_I64_F32, FC_F64_F32, FC_F32_TRUTH, FC_F32_I32, FC_F32_I64, FC_F32_F64,
    FC_I32_I64, FC_I64_I32, FC_CASTS
};
#define FC_CAST(A, B, value)                                                                                         \
    {                                                                                                                \
        const A *a = from;                                                                                           \
        B *b = to;                                                                                                   \
        for (ptrdiff_t i = 0; i < count; i++) b[i] = (B)(value);                                                     \
        return;                                                                                                      \
    }

static inline void fc_cast_line(int code, void *restrict to, const void *restrict from, ptrdiff_t count) {
    switch (code) {
    case FC_U8_F32: FC_CAST(uint8_t, float, a[i])
    case FC_I8_F32: FC_CAST(int8_t, float, a[i])
    case FC_I32_F32: FC_CAST(int32_t, float, a[i])
    case FC_I64_F32: FC_CAST(int64_t, float, a[i])
    case FC_F64_F32: FC_CAST(double, float, a[i])
    case FC_F32_TRUTH: FC_CAST(float, uint8_t, a[i] != 0)
    case FC_F32_I32: FC_CAST(float, int32_t, a[i])
    case FC_F32_I64: FC_CAST(float, int64_t, a[i])
    case FC_F32_F64: FC_CAST(float, double, a[i])
    case FC_I32_I64: FC_CAST(int32_t, int64_t, a[i])
    default: FC_CAST(int64_t, int32_t, a[i])
    }
}
#undef FC_CAST

#endif
