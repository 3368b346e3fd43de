/* A micro-kernel for every size of the register tile, from NAME(tiles)(rows, vectors, half, product, tiles); TILES puts them
   into a table, those whose last vector is a half one, where HALF says that there are, behind the others. With
   FEW_ROWS narrow tiles have no more rows than full ones: a third less code. */
#undef MICRO
#undef MICRO_6
#undef MICRO_8
#undef MICRO_NARROW
#undef ROW_6
#undef ROW_8
#undef ROW_NARROW
#undef NARROW
#undef TILES
#define MICRO(rows, vectors)                                                                                        \
    static void NAME(micro_##vectors##_##rows)(const fc_product *product, ptrdiff_t tiles) {                         \
        NAME(tiles)(rows, vectors, 0, product, tiles);                                                                 \
    }
#define MICRO_6(v) MICRO(1, v) MICRO(2, v) MICRO(3, v) MICRO(4, v) MICRO(5, v) MICRO(6, v)
#define MICRO_8(v) MICRO_6(v) MICRO(7, v) MICRO(8, v)
#define ROW_6(v)                                                                                                    \
    NAME(micro_##v##_1), NAME(micro_##v##_2), NAME(micro_##v##_3), NAME(micro_##v##_4), NAME(micro_##v##_5),         \
        NAME(micro_##v##_6)
#define ROW_8(v) ROW_6(v), NAME(micro_##v##_7), NAME(micro_##v##_8)
#ifdef FEW_ROWS
#define NARROW 6
#define MICRO_NARROW(v) MICRO_6(v)
#define ROW_NARROW(v) ROW_6(v)
#else
#define NARROW 8 /* rows are pointers in registers: more would be spilt */
#define MICRO_NARROW(v) MICRO_8(v)
#define ROW_NARROW(v) ROW_8(v)
#endif
#if VECTORS == 4
MICRO_NARROW(1) MICRO_NARROW(2) MICRO_6(3) MICRO_6(4)
#else
MICRO_NARROW(1) MICRO_6(2)
#endif

#undef HALF_ROWS
#undef HALF_TILES
#undef HALF_PARTIAL
#ifdef HALF
#define MICRO_HALF(rows, vectors)                                                                                   \
    static void NAME(micro_half_##vectors##_##rows)(const fc_product *product, ptrdiff_t tiles) {                    \
        NAME(tiles)(rows, vectors - 1, 1, product, tiles);                                                           \
    }
#define MICRO_HALF_6(v)                                                                                             \
    MICRO_HALF(1, v) MICRO_HALF(2, v) MICRO_HALF(3, v) MICRO_HALF(4, v) MICRO_HALF(5, v) MICRO_HALF(6, v)
#define HALF_ROW_6(v)                                                                                               \
    NAME(micro_half_##v##_1), NAME(micro_half_##v##_2), NAME(micro_half_##v##_3), NAME(micro_half_##v##_4),          \
        NAME(micro_half_##v##_5), NAME(micro_half_##v##_6)
#define HALF_ROW_8(v) HALF_ROW_6(v), NAME(micro_half_##v##_7), NAME(micro_half_##v##_8)
MICRO_HALF_6(1) MICRO_HALF(7, 1) MICRO_HALF(8, 1) MICRO_HALF_6(2) MICRO_HALF(7, 2) MICRO_HALF(8, 2)
MICRO_HALF_6(3) MICRO_HALF_6(4)
#define HALF_ROWS , 8, 8, 6, 6
#define HALF_TILES , {0, HALF_ROW_8(1)}, {0, HALF_ROW_8(2)}, {0, HALF_ROW_6(3)}, {0, HALF_ROW_6(4)}
#define HALF_PARTIAL 1
#else
#define HALF_ROWS
#define HALF_TILES
#define HALF_PARTIAL 0
#endif

#if VECTORS == 4
#define TILES                                                                                                       \
    .vectors = 4, .partial = HALF_PARTIAL, .rows = {0, NARROW, NARROW, 6, 6 HALF_ROWS},                                 \
    .micro = {{0}, {0, ROW_NARROW(1)}, {0, ROW_NARROW(2)}, {0, ROW_6(3)}, {0, ROW_6(4)} HALF_TILES}
#else
#define TILES .vectors = 2, .rows = {0, NARROW, 6}, .micro = {{0}, {0, ROW_NARROW(1)}, {0, ROW_6(2)}}
#endif
#undef FEW_ROWS
