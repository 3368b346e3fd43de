/* The register tile: c[i][:] = relu(sum over k of a[row_i + k] * b[k][:] + bias[:] + residual[i][:]),
   NAME(tiles)(rows, vectors, product, tiles). Included where NAME, LANES and NAME(vec) are those of the sums, with
     SUM       element type of the sums, T unless said
     WEIGHTS   element type of packed weights
     TILE_K    steps of the reduction that lie side by side in them
     STEP_WEIGHTS(panel, j, step)   vector j of the weights of one of these steps, as sums
   and, where the instruction set multiplies and adds all of these steps at once,
     INPUTS    element type of packed inputs, SUM unless said
     STEP_INPUTS(at)                these steps of a row from `at` on, in every lane
     MULTIPLY(acc, x, w)            acc + x * w
   and, of sums that are exact in any order,
     PUT_BYTES(rows, vectors, acc, product, out_row)   what is done with them where the product says `requantise` */

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

/* NaN is not below 0 and passes through. */
static inline __attribute__((always_inline)) NAME(vec) NAME(relu)(NAME(vec) v) {
    __typeof__(v < 0) below = v < 0;
    return (NAME(vec))((__typeof__(below))v & ~below);
}

/* Not above 6; NaN is not and passes through. */
static inline __attribute__((always_inline)) NAME(vec) NAME(at_most_six)(NAME(vec) v) {
    const NAME(vec) six = (NAME(vec)){0} + 6;
    __typeof__(v > six) above = v > six;
    return (NAME(vec))(((__typeof__(above))v & ~above) | ((__typeof__(above))six & above));
}

static inline __attribute__((always_inline)) void NAME(tiles)(const int rows, const int vectors,
                                                              const fc_product *product, ptrdiff_t tiles) {
    const fc_product p = *product;
    const INPUTS *a = p.a;
    const WEIGHTS *b = p.b;
    const SUM *bias = p.bias, *residual = p.residual;
    SUM *c = p.c;
    const ptrdiff_t *a_row = p.a_row, *c_row = p.c_row, *residual_row = p.residual_row;
#ifdef PUT_BYTES
    const ptrdiff_t *out_row = p.out_row;
#endif
    const char *ahead = p.ahead;
    for (; tiles > 0; tiles--, a_row += rows, c_row += rows) {
        NAME(vec) acc[FC_MAX_ROWS][FC_MAX_VECTORS];
        const INPUTS *row[FC_MAX_ROWS];
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++)
                acc[i][j] = p.accumulate                ? *(const NAME(vec) *)(c + c_row[i] + j * LANES)
                            : BEGINS_WITH_BIAS && bias ? *(const NAME(vec) *)(bias + j * LANES)
                                                       : (NAME(vec)){0};
        UNROLL for (int i = 0; i < rows; i++) row[i] = a + a_row[i];
        for (ptrdiff_t s = 0; s < p.segments; s++) {
            const WEIGHTS *panel = b + p.segment[s].b * p.ldb;
            ptrdiff_t at = p.segment[s].a;
            for (ptrdiff_t k = p.segment[s].k; k > 0; k -= TILE_K, panel += TILE_K * p.ldb) {
                if (vectors > 1) /* the loads of narrow tiles are as many as their multiply-adds */
                    UNROLL for (int step = 0; step < TILE_K; step++, ahead += p.ahead_step)
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
                UNROLL for (int step = 0; step < TILE_K; step++, at += p.step) {
#if TILE_K > 1 && defined(__AVX512F__) /* what the steps share is read again: it would take registers */
                    __asm__ volatile("" : : : "memory");
#endif
                    NAME(vec) w[FC_MAX_VECTORS];
                    UNROLL for (int j = 0; j < vectors; j++) w[j] = STEP_WEIGHTS(panel, j, step);
                    UNROLL for (int i = 0; i < rows; i++) {
                        SUM x = row[i][at];
                        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += x * w[j];
                    }
                }
#endif
            }
        }
        if (bias && (p.accumulate || !BEGINS_WITH_BIAS))
            UNROLL for (int j = 0; j < vectors; j++) {
                NAME(vec) shift = *(const NAME(vec) *)(bias + j * LANES);
                UNROLL for (int i = 0; i < rows; i++) acc[i][j] += shift;
            }
#ifdef PUT_BYTES
        if (p.requantise) {
            PUT_BYTES(rows, vectors, acc, &p, out_row);
            out_row += rows;
            continue;
        }
#endif
        if (residual) {
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++)
                    acc[i][j] += *(const NAME(vec) *)(residual + residual_row[i] + j * LANES);
            residual_row += rows;
        }
        if (p.relu)
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = NAME(relu)(acc[i][j]);
        if (p.relu == FC_RELU6)
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = NAME(at_most_six)(acc[i][j]);
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) *(NAME(vec) *)(c + c_row[i] + j * LANES) = acc[i][j];
    }
}
#undef SUM
#undef INPUTS
#undef WEIGHTS
#undef BEGINS_WITH_BIAS
#undef STEP_WEIGHTS
#undef STEP_INPUTS
#undef MULTIPLY
#undef PUT_BYTES
#undef TILE_K
