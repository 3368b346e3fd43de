/* Winograd's F(2x2, 3x3) on bytes: what surrounds its 16 products, which are those of four_bytes.h.

   The transform of 4 x 4 inputs has ten bits, of which the eight highest are multiplied. In all elements but one inputs
   meet as many that are subtracted, so that their zero point drops out: v / 4 + 128. Element (1, 1) is the sum of four: a
   quarter of it. Who packs the weights knows what that adds (_core/methods/winograd_bytes.py). */
enum { BYTE_TILE_CHANNELS = VECTOR_BYTES / 2 };
typedef int16_t tile_shorts __attribute__((vector_size(VECTOR_BYTES), aligned(2), may_alias));
typedef uint8_t tile_bytes __attribute__((vector_size(VECTOR_BYTES / 2), aligned(1), may_alias));

/* One tile: `pixel` are the 16 of the input, row by row; whole vectors of channels are written to every element. */
static void byte_tiles_input(const uint8_t *const *pixel, ptrdiff_t channels, int flip, uint8_t *to, ptrdiff_t element) {
    for (ptrdiff_t c = 0; c < channels; c += BYTE_TILE_CHANNELS) {
        tile_shorts d[16];
        uint8_t rest[16][BYTE_TILE_CHANNELS];
        if (c + BYTE_TILE_CHANNELS > channels) {
            memset(rest, 0, sizeof rest);
            for (int i = 0; i < 16; i++) memcpy(rest[i], pixel[i] + c, channels - c);
            UNROLL_LANES for (int i = 0; i < 16; i++)
                d[i] = __builtin_convertvector(*(const tile_bytes *)rest[i] ^ (uint8_t)flip, tile_shorts);
        } else
            UNROLL_LANES for (int i = 0; i < 16; i++)
                d[i] = __builtin_convertvector(*(const tile_bytes *)(pixel[i] + c) ^ (uint8_t)flip, tile_shorts);
        UNROLL for (int i = 0; i < 16; i += 4) {
            const tile_shorts p = d[i], q = d[i + 1], r = d[i + 2], s = d[i + 3];
            d[i] = p - r, d[i + 1] = q + r, d[i + 2] = r - q, d[i + 3] = q - s;
        }
        UNROLL for (int j = 0; j < 4; j++) {
            const tile_shorts p = d[j], q = d[4 + j], r = d[8 + j], s = d[12 + j];
            d[j] = p - r, d[4 + j] = q + r, d[8 + j] = r - q, d[12 + j] = q - s;
        }
        UNROLL_LANES for (int e = 0; e < 16; e++) {
            const tile_shorts v = e == 5 ? (d[e] + 2) >> 2 : ((d[e] + 1) >> 2) + 128;
            *(tile_bytes *)(to + e * element + c) = __builtin_convertvector(v, tile_bytes);
        }
    }
}

/* The outputs of a tile from its products, of so many vectors: sums that a factor a channel makes steps of the result. */
static inline __attribute__((always_inline)) void byte_tiles_sums(const int32_t *m, ptrdiff_t element, const int vectors,
                                                                  vec_uint8 (*y)[FC_MAX_VECTORS]) {
    UNROLL for (int v = 0; v < vectors; v++) {
        vec_uint8 t[4][2];
        UNROLL for (int i = 0; i < 4; i++) {
            const int32_t *at = m + 4 * i * element + v * lanes_uint8;
            const vec_uint8 p = *(const vec_uint8 *)at, q = *(const vec_uint8 *)(at + element),
                            r = *(const vec_uint8 *)(at + 2 * element), s = *(const vec_uint8 *)(at + 3 * element);
            t[i][0] = p + q + r, t[i][1] = q - r - s;
        }
        UNROLL for (int k = 0; k < 2; k++) {
            y[k][v] = t[0][k] + t[1][k] + t[2][k];
            y[2 + k][v] = t[1][k] - t[2][k] - t[3][k];
        }
    }
}

#define BYTE_TILES_OUTPUT(vectors)                                                                                   \
    static void byte_tiles_output_##vectors(const int32_t *m, ptrdiff_t element, const fc_product *p, ptrdiff_t row,  \
                                            ptrdiff_t column, ptrdiff_t rows, ptrdiff_t columns) {                    \
        const ptrdiff_t at[4] = {0, column, row, row + column};                                                      \
        vec_uint8 y[4][FC_MAX_VECTORS];                                                                              \
        byte_tiles_sums(m, element, vectors, y);                                                                     \
        if (rows == 2 && columns == 2)                                                                               \
            put_tile_uint8(4, vectors, y, p, at);                                                                    \
        else                                                                                                         \
            for (int i = 0; i < 2 * rows; i++)                                                                       \
                if (i % 2 < columns) put_tile_uint8(1, vectors, y + i, p, at + i);                                    \
    }
BYTE_TILES_OUTPUT(1)
BYTE_TILES_OUTPUT(2)
#if VECTORS > 2
BYTE_TILES_OUTPUT(3)
BYTE_TILES_OUTPUT(4)
#endif

static const fc_byte_tiles byte_tiles = {
    BYTE_TILE_CHANNELS, byte_tiles_input, {NULL, byte_tiles_output_1, byte_tiles_output_2,
#if VECTORS > 2
    byte_tiles_output_3, byte_tiles_output_4
#endif
}};
