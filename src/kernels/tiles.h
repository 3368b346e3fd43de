/* A micro-kernel for every size of the register tile, from NAME(tiles)(rows, vectors, product, tiles); TILES puts them into a
   table. With FEW_ROWS narrow tiles have no more rows than full ones: a third less code. */
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
        NAME(tiles)(rows, vectors, product, tiles);                                                                  \
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

#if VECTORS == 4
#define TILES                                                                                                       \
    .vectors = 4, .rows = {0, NARROW, NARROW, 6, 6},                                                                 \
    .micro = {{0}, {0, ROW_NARROW(1)}, {0, ROW_NARROW(2)}, {0, ROW_6(3)}, {0, ROW_6(4)}}
#else
#define TILES .vectors = 2, .rows = {0, NARROW, 6}, .micro = {{0}, {0, ROW_NARROW(1)}, {0, ROW_6(2)}}
#endif
#undef FEW_ROWS
