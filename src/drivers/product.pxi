# Products in register tiles: what the drivers share. A block of the reduction is a list of segments, runs of steps; its
# rows are pixels (or tiles, or channels), wherever they lie in the caller's region, and its columns the width of a panel.
# What follows a sum (bias, residual, relu or relu6) is done while it is in the registers: `Ends`.


cdef const void* extra(const fc_kernels* kernels, const char* name) noexcept nogil:
    """The table of a method that has kernels for itself; NULL where the type has none."""
    cdef const fc_extra* one = kernels.extras
    while one != NULL and one.name != NULL:
        if strcmp(one.name, name) == 0:
            return one.table
        one += 1
    return NULL


cdef void direct_block(const fc_kernels* kernels, const char* a, const size* a_row, const char* b, size vectors,
                       size width, const fc_segment* segments, size count, size pixels, char* c, const size* c_row,
                       const Ends* ends, bint first, bint last) noexcept nogil:
    """All pixels of the tile for one block of the reduction, the `first` or the `last` or one that adds to what is in c,
    in register tiles as equal as can be; `vectors` as `tile_vectors` says. They share out the fetching of as many weights as
    these, behind them in memory:
    packed weights are read from one end to the other."""
    cdef size begin, end, line = width * kernels.weight_size
    cdef fc_product product
    if pixels == 0:
        return
    begin = segments[0].b if count else 0
    end = segments[count - 1].b + segments[count - 1].k if count else 0
    product.a, product.a_row, product.step = a, a_row, 1
    product.b, product.ldb, product.segment, product.segments = b, width, segments, count
    product.c, product.c_row, product.accumulate = c, c_row, not first
    product.bias = ends.bias if last else NULL
    product.residual = ends.residual if last else NULL
    product.residual_row, product.relu = ends.residual_row, ends.relu if last else LINEAR
    product.requantise = ends.requantise if last else NULL
    product.multiplier, product.out, product.out_row = ends.multiplier, ends.out, ends.out_row
    product.columns, product.fetch, product.partial = ends.columns, first and ends.fetch, ends.partial if last else 0
    product.ahead = b + end * line
    product.ahead_step = min(<size>64, line // register_tiles(kernels, vectors, pixels))  # a cache line each at most
    run_product(kernels, &product, vectors, pixels, end - begin, ends.coming, ends.coming_bytes)


cdef inline size tile_vectors(const fc_kernels* kernels, size columns) noexcept nogil:
    """The vectors of a register tile for so many columns, by which its kernels are found: as many as hold them, and a
    number of its own where half of the last one would do."""
    cdef size vectors = (columns + kernels.lanes - 1) // kernels.lanes
    if 2 * (vectors * kernels.lanes - columns) >= kernels.lanes and kernels.rows[FC_MAX_VECTORS + vectors] > 0:
        return FC_MAX_VECTORS + vectors
    return vectors


cdef inline size register_tiles(const fc_kernels* kernels, size vectors, size rows) noexcept nogil:
    return (rows + kernels.rows[vectors] - 1) // kernels.rows[vectors]


cdef void run_product(const fc_kernels* kernels, fc_product* product, size vectors, size count,
                      size steps, const char* coming=NULL, size coming_bytes=0) noexcept nogil:
    """`count` rows of so many reduction steps, in register tiles as equal as can be. What is `coming` is fetched by the last
    of them, if the first can fetch all that is ahead, a line a step."""
    cdef size tiles = register_tiles(kernels, vectors, count), rows, longer, done = 0, end, own, near = tiles
    rows = (count + tiles - 1) // tiles
    longer = count - tiles * (rows - 1)
    if coming_bytes > 0 and steps > 0:
        near = (tiles * product.ahead_step + 63) // 64
        if near < tiles:
            product.ahead_step = 64
    while done < tiles:
        if done == near:
            product.ahead, product.ahead_step = coming, min(<size>64, (coming_bytes - 1) // ((tiles - near) * steps) + 1)
        end, own = (longer, rows) if done < longer else (tiles, rows - 1)
        if done < near < end:
            end = near
        kernels.micro[vectors][own](product, end - done)
        product.a_row += (end - done) * own
        product.c_row += (end - done) * own
        if product.residual != NULL:
            product.residual_row += (end - done) * own
        if product.requantise != NULL:
            product.out_row += (end - done) * own
        product.ahead += (end - done) * steps * product.ahead_step
        done = end


cdef inline bint in_elements(const View* view, const char* at, size element) noexcept nogil:
    """Whether channels lie side by side, and pixels a whole number of elements apart."""
    return (view.s[1] == element and view.s[2] % element == 0 and view.s[3] % element == 0 and view.s[4] % element == 0
            and <size>at % element == 0)


cdef void lay_out(size* at, size rows, size columns, size row_step, size pixel_step) noexcept nogil:
    """Elements to every pixel of a tile, row by row."""
    cdef size r, p, here
    for r in range(rows):
        here = r * row_step
        for p in range(columns):
            at[p] = here
            here += pixel_step
        at += columns


cdef void lay_out_tile(size* at, size images, size image_step, const size* shape, size plane_step, size row_step,
                       size pixel_step) noexcept nogil:
    """`lay_out` of every plane of every image of a tile, whose shape is planes, rows, columns."""
    lay_out(at, shape[1], shape[2], row_step, pixel_step)
    lay_out_again(at, shape[1] * shape[2], shape[0], plane_step)
    lay_out_again(at, volume(shape), images, image_step)


cdef void lay_out_again(size* at, size pixels, size times, size step) noexcept nogil:
    cdef size m, p
    for m in range(1, times):
        for p in range(pixels):
            at[m * pixels + p] = m * step + at[p]
