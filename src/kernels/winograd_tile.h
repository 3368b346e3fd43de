/* Winograd's transforms of a tile of TILE x TILE outputs: those of winograd.h along columns, then along rows. Included
   once for every kind. */

WINOGRAD_PIXELS(KIND(winograd_input), KIND(winograd_output), KIND(winograd_input_along), KIND(winograd_input_along),
                KIND(winograd_output_along), KIND(winograd_output_along), ELEMENTS, EXTENT, EXTENT, TILE, TILE, ~0, ~0)

/* dst[f * element_stride + channel * width] = (G g G^T)[f] for one panel of weights g = src[tap * tap_stride + channel *
   width]. */
static void KIND(winograd_weights)(void *dst, ptrdiff_t element_stride, ptrdiff_t width, const void *src,
                                   ptrdiff_t tap_stride, ptrdiff_t channels) {
    for (ptrdiff_t i = 0; i < channels * width; i += LANES) {
        const T *in = (const T *)src + i;
        T *out = (T *)dst + i;
        vec_float half[WEIGHTS * TAPS], g[TAPS], o[WEIGHTS];
        UNROLL for (int k = 0; k < TAPS; k++) {
            UNROLL for (int r = 0; r < TAPS; r++) g[r] = *(const vec_float *)(in + (TAPS * r + k) * tap_stride);
            KIND(winograd_weights_along)(g, o);
            UNROLL for (int r = 0; r < WEIGHTS; r++) half[TAPS * r + k] = o[r];
        }
        UNROLL for (int r = 0; r < WEIGHTS; r++) {
            KIND(winograd_weights_along)(half + TAPS * r, o);
            UNROLL for (int k = 0; k < WEIGHTS; k++) *(vec_float *)(out + (WEIGHTS * r + k) * element_stride) = o[k];
        }
    }
}

#ifdef WITH_GRADIENT
/* D[i * element_row + j * element_stride + channel] = (A y A^T)[i][j] of one tile y of the output's gradient: the
   matrices of the convolution in transposed roles. */
static void KIND(winograd_gradient)(const void *src, ptrdiff_t row_stride, ptrdiff_t column_stride,
                                    ptrdiff_t channels, void *dst, ptrdiff_t element_row,
                                    ptrdiff_t element_stride) {
    winograd_input_tile(KIND(winograd_gradient_along), KIND(winograd_gradient_along), ELEMENTS, TILE, TILE, ~0, ~0, src,
                        row_stride, column_stride, channels, dst, element_row, element_stride);
}

/* dst[tap] = (G^T m G)[tap]: the nine weight gradients of one input channel and a panel of output channels. */
static void KIND(winograd_taps)(const void *src, ptrdiff_t element_stride, int vectors, void *dst,
                                ptrdiff_t tap_stride) {
    for (int v = 0; v < vectors; v++) {
        const T *in = (const T *)src + v * LANES;
        vec_float half[3 * EXTENT], m[EXTENT], o[3];
        UNROLL for (int j = 0; j < EXTENT; j++) {
            UNROLL for (int i = 0; i < EXTENT; i++)
                m[i] = *(const vec_float *)(in + (i * EXTENT + j) * element_stride);
            KIND(winograd_taps_along)(m, o);
            UNROLL for (int i = 0; i < 3; i++) half[i * EXTENT + j] = o[i];
        }
        UNROLL for (int i = 0; i < 3; i++) {
            KIND(winograd_taps_along)(half + i * EXTENT, o);
            UNROLL for (int j = 0; j < 3; j++) *(vec_float *)((T *)dst + (i * 3 + j) * tap_stride + v * LANES) = o[j];
        }
    }
}

#endif

#undef KIND
#undef TILE
#undef TAPS
#undef EXTENT
#undef ELEMENTS
#undef WEIGHTS
#undef WITH_GRADIENT
