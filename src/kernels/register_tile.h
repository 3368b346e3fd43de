/* The register tile: c[i][:] = relu(sum over k of a[row_i + k] * b[k][:] + bias[:] + residual[i][:]),
   NAME(tiles)(rows, vectors, half, product, tiles), behind the vectors, where `half`, a half one of type HALF, if that is
   defined. Included where NAME, LANES and NAME(vec) are those of the sums, with
     SUM       element type of the sums, T unless said
     WEIGHTS   element type of packed weights
     TILE_K    steps of the reduction that lie side by side in them
     STEP_WEIGHTS(panel, j, step)   vector j of the weights of one of these steps, as sums
   and, where the instruction set multiplies and adds all of these steps at once,
     INPUTS    element type of packed inputs, SUM unless said
     STEP_INPUTS(at)                these steps of a row from `at` on, in every lane
     MULTIPLY(acc, x, w)            acc + x * w
   and, of sums that are exact in any order,
     PUT_BYTES(rows, vectors, acc, product, out_row)   what is done with them where the product says `requantise`
   and, where a vector's first elements can be written alone,
     PUT_FIRST(to, vector, count), PUT_FIRST_HALF(to, half, count) */

#ifndef SUM
#define SUM T
#endif
#ifndef INPUTS
#define INPUTS SUM
#endif
#ifdef PUT_BYTES
#define BEGINS_WITH_BIAS 1 /* it saves adding it */
#else
#define BEGINS_WITH_BIAS 0
#endif

#ifdef HALF
#define WITH_HALF_VECTOR(...) if (half) UNROLL for (int i = 0; i < rows; i++) { __VA_ARGS__; }
#define HALF_AT(qualifier, p) (*(qualifier HALF *)((p) + vectors * LANES))
#else
#define WITH_HALF_VECTOR(...)
#endif

/* NaN is not below 0 and passes through. */
static inline __attribute__((always_inline)) NAME(vec) NAME(relu)(NAME(vec) v) {
    return LARGER_OF(SUM)((NAME(vec)){0}, v);
}

/* Not above 6; NaN is not and passes through. */
static inline __attribute__((always_inline)) NAME(vec) NAME(at_most_six)(NAME(vec) v) {
    return SMALLER_OF(SUM)((NAME(vec)){0} + 6, v);
}

#ifdef HALF
static inline __attribute__((always_inline)) HALF NAME(half_relu)(HALF v) {
    __typeof__(v < 0) below = v < 0;
    return (HALF)((__typeof__(below))v & ~below);
}

static inline __attribute__((always_inline)) HALF NAME(half_at_most_six)(HALF v) {
    const HALF six = (HALF){0} + 6;
    __typeof__(v > six) above = v > six;
    return (HALF)(((__typeof__(above))v & ~above) | ((__typeof__(above))six & above));
}
#endif

/* What tiles share is read from memory again for each tile of one vector, whose rows take all registers for numbers: GCC
   would keep the rest in vector registers, and moves from there wait behind the multiply-adds of the tile before (8 rows
   of 32 steps took 72 cycles beside their 256, now 12). */
#if defined(__AVX512F__) && !defined(IN_REGISTER)
/* What all rows of a tile of few multiply is loaded once: GCC would read it for each, across two cache lines where it is not
   aligned (drivers/few_taps.pxi). */
#define IN_REGISTER(x) __asm__("" : "+v"(x))
#endif
#if defined(__AVX512F__) && !defined(ADD_SPREAD)
/* acc + w * x of a number in memory, which the multiply-add spreads over its lanes. Where two vectors share it GCC would load
   it once, and on Zen 4 such loads take cycles from the multiply-adds: tiles of 8 x 2 vectors took 17 for 16, of 6 x 2 13.5
   for 12, of 5 x 2 12 for 10; those of 3 and 4 vectors take no more than they need. */
#define CAN_SPREAD(type) (__builtin_types_compatible_p(type, float) || __builtin_types_compatible_p(type, double))
#define ADD_SPREAD(type, acc, w, x)                                                                                     \
    do {                                                                                                                \
        if (sizeof(type) == sizeof(float))                                                                              \
            __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(x));                                    \
        else                                                                                                            \
            __asm__("vfmadd231pd %2%{1to8%}, %1, %0" : "+v"(acc) : "v"(w), "m"(x));                                     \
    } while (0)
#endif
#ifndef IN_MEMORY
#define IN_MEMORY(x) __asm__ volatile("" : "+m"(x))
#endif

/* Whether bias and relu, and relu6 or no limit, are done row by row: what waits for the last multiply-adds keeps those of
   the next tile from the scheduler. Between tiles of 6 x 4 vectors 36 cycles go by so (Zen 4), and 55 or, with relu6, 72
   where each is done for all rows before the next, which is as well where there are fewer. */
#define ROW_BY_ROW(rows, vectors, half) ((SUM)0.5 != 0 && !(half) && (rows) * (vectors) > 12)

static inline __attribute__((always_inline)) void NAME(tiles)(const int rows, const int vectors, const int half,
                                                              const fc_product *product, ptrdiff_t tiles) {
    struct {
        fc_product of;
        const fc_segment *segment;
        ptrdiff_t segments, tiles;
    } now = {*product, NULL, 0, tiles};
    const char *ahead = product->ahead;
    fc_product *const p = &now.of;
    for (; now.tiles > 0; now.tiles--, p->a_row += rows, p->c_row += rows) {
        if (vectors + half == 1) IN_MEMORY(now);
        const INPUTS *const a = p->a;
        SUM *const c = p->c;
        NAME(vec) acc[FC_MAX_ROWS][FC_MAX_VECTORS];
        const INPUTS *row[FC_MAX_ROWS];
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++)
                acc[i][j] = p->accumulate                  ? *(const NAME(vec) *)(c + p->c_row[i] + j * LANES)
                            : BEGINS_WITH_BIAS && p->bias ? *(const NAME(vec) *)((const SUM *)p->bias + j * LANES)
                                                          : (NAME(vec)){0};
#ifdef HALF
        HALF last[FC_MAX_ROWS];
#endif
        WITH_HALF_VECTOR(last[i] = p->accumulate ? HALF_AT(const, c + p->c_row[i]) : (HALF){0})
        UNROLL for (int i = 0; i < rows; i++) row[i] = a + p->a_row[i];
        if (vectors == VECTORS && p->fetch)
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++) __builtin_prefetch(c + p->c_row[i] + j * LANES, 1, 3);
        for (now.segment = p->segment, now.segments = p->segments; now.segments > 0; now.segments--, now.segment++) {
            if (vectors + half == 1) IN_MEMORY(now);
            const WEIGHTS *panel = (const WEIGHTS *)p->b + now.segment->b * p->ldb;
            ptrdiff_t at = now.segment->a;
            for (ptrdiff_t k = now.segment->k; k > 0; k -= TILE_K, panel += TILE_K * p->ldb) {
                if (vectors + half > 1) /* the loads of narrow tiles are as many as their multiply-adds */
                    UNROLL for (int step = 0; step < TILE_K; step++, ahead += p->ahead_step)
                        __builtin_prefetch(ahead, 0, 2);
#ifdef MULTIPLY
                NAME(vec) w[FC_MAX_VECTORS];
                UNROLL for (int j = 0; j < vectors; j++) w[j] = STEP_WEIGHTS(panel, j, 0);
                UNROLL for (int i = 0; i < rows; i++) {
                    const NAME(vec) x = STEP_INPUTS(row[i] + at);
                    UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = MULTIPLY(acc[i][j], x, w[j]);
                }
                at += TILE_K;
#else
                UNROLL for (int step = 0; step < TILE_K; step++, at += p->step) {
#if TILE_K > 1 && defined(__AVX512F__) /* what the steps share is read again: it would take registers */
                    __asm__ volatile("" : : : "memory");
#endif
                    NAME(vec) w[FC_MAX_VECTORS];
                    UNROLL for (int j = 0; j < vectors; j++) w[j] = STEP_WEIGHTS(panel, j, step);
#ifdef IN_REGISTER
                    if (rows <= 4 && vectors <= 2) UNROLL for (int j = 0; j < vectors; j++) IN_REGISTER(w[j]);
#endif
#ifdef ADD_SPREAD
                    if (vectors == 2 && CAN_SPREAD(SUM)) {
                        UNROLL for (int i = 0; i < rows; i++)
                            UNROLL for (int j = 0; j < vectors; j++) ADD_SPREAD(SUM, acc[i][j], w[j], row[i][at]);
                    } else
#endif
                    UNROLL for (int i = 0; i < rows; i++) {
                        SUM x = row[i][at];
                        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += x * w[j];
                    }
                    WITH_HALF_VECTOR(last[i] += row[i][at] * HALF_AT(const, panel))
                }
#endif
            }
        }
        if (vectors + half == 1) IN_MEMORY(now);
        if (ROW_BY_ROW(rows, vectors, half) && __builtin_expect(p->relu, 0) && p->bias && !p->residual && !p->partial) {
            SUM none = 0, most = (SUM)(p->relu == FC_RELU6 ? 6 : __builtin_inff());
            IN_MEMORY(none);
            IN_MEMORY(most);
            NAME(vec) shift[FC_MAX_VECTORS];
            UNROLL for (int j = 0; j < vectors; j++)
                shift[j] = *(const NAME(vec) *)((const SUM *)p->bias + j * LANES);
            const NAME(vec) zero = (NAME(vec)){0} + none, six = (NAME(vec)){0} + most;
            UNROLL for (int i = 0; i < rows; i++) {
                SUM *const to = (SUM *)p->c + p->c_row[i];
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = LARGER_OF(SUM)(zero, acc[i][j] + shift[j]);
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = SMALLER_OF(SUM)(six, acc[i][j]);
                UNROLL for (int j = 0; j < vectors; j++) *(NAME(vec) *)(to + j * LANES) = acc[i][j];
            }
            continue;
        }
        if (p->bias && (p->accumulate || !BEGINS_WITH_BIAS))
            UNROLL for (int j = 0; j < vectors; j++) {
                NAME(vec) shift = *(const NAME(vec) *)((const SUM *)p->bias + j * LANES);
                UNROLL for (int i = 0; i < rows; i++) acc[i][j] += shift;
            }
        if (p->bias && (p->accumulate || !BEGINS_WITH_BIAS)) {
            WITH_HALF_VECTOR(last[i] += HALF_AT(const, (const SUM *)p->bias))
        }
#ifdef PUT_BYTES
        if (p->requantise) {
            PUT_BYTES(rows, vectors, acc, p, p->out_row);
            p->out_row += rows;
            continue;
        }
#endif
        if (p->residual) {
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++)
                    acc[i][j] += *(const NAME(vec) *)((const SUM *)p->residual + p->residual_row[i] + j * LANES);
            WITH_HALF_VECTOR(last[i] += HALF_AT(const, (const SUM *)p->residual + p->residual_row[i]))
            p->residual_row += rows;
        }
        if (p->relu) {
            SUM none = 0;
            IN_MEMORY(none); /* constants get no register beside those of the sums in all of the tile */
            const NAME(vec) zero = (NAME(vec)){0} + none;
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = LARGER_OF(SUM)(zero, acc[i][j]);
        }
        if (p->relu == FC_RELU6) {
            SUM most = 6;
            IN_MEMORY(most);
            const NAME(vec) six = (NAME(vec)){0} + most;
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = SMALLER_OF(SUM)(six, acc[i][j]);
        }
#ifdef PUT_FIRST
        if (p->partial) { /* what lies behind in a row of c is left alone */
            UNROLL for (int i = 0; i < rows; i++) {
                SUM *const to = (SUM *)p->c + p->c_row[i];
                UNROLL for (int j = 0; j < vectors - !half; j++) *(NAME(vec) *)(to + j * LANES) = acc[i][j];
                if (half) {
                    if (p->relu) last[i] = NAME(half_relu)(last[i]);
                    if (p->relu == FC_RELU6) last[i] = NAME(half_at_most_six)(last[i]);
                    PUT_FIRST_HALF(to + vectors * LANES, last[i], p->partial);
                } else
                    PUT_FIRST(to + (vectors - 1) * LANES, acc[i][vectors - 1], p->partial);
            }
            continue;
        }
#endif
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) *(NAME(vec) *)((SUM *)p->c + p->c_row[i] + j * LANES) = acc[i][j];
#ifdef HALF
        if (p->relu) {
            WITH_HALF_VECTOR(last[i] = NAME(half_relu)(last[i]))
        }
        if (p->relu == FC_RELU6) {
            WITH_HALF_VECTOR(last[i] = NAME(half_at_most_six)(last[i]))
        }
#endif
        WITH_HALF_VECTOR(HALF_AT(, (SUM *)p->c + p->c_row[i]) = last[i])
    }
}
#undef SUM
#undef INPUTS
#undef WEIGHTS
#undef BEGINS_WITH_BIAS
#undef ROW_BY_ROW
#undef STEP_WEIGHTS
#undef STEP_INPUTS
#undef MULTIPLY
#undef PUT_BYTES
#undef PUT_FIRST
#undef PUT_FIRST_HALF
#undef TILE_K
#undef WITH_HALF_VECTOR
#undef HALF_AT
