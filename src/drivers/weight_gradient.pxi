# The gradient with respect to the weights: dW[o, c, i, j] = sum over images and output pixels of
# dY[n, o, y, x] * X[n, c, y*stride + i*dilation - pad, x*stride + j*dilation - pad].
#
#   for part of the pixels x group x block of taps, input channels and panels      threads take these
#     for tile of output pixels of that part
#       pack the input region under the tile, and dY's panel                       second- and first-level cache
#       for tap: the runs of pixels whose tap lies inside the input
#         for rows of the register tile (input channels)                           micro-kernel: K = pixels
#   for block: add the parts in order, store
#
# Taps over padding have no pixels, so nothing is ever multiplied by a padded zero. The parts depend on shapes alone:
# the bits do not depend on threads. A part of many pixels is summed in blocks of tiles (drivers/totals.pxi).

cdef enum:
    MERGED_ROWS = 64   # lines of sums, of several taps of a row, that share register tiles where channels are few

cdef struct WeightGradient:
    const fc_kernels* kernels
    View x, dy, dw
    int x_code, dy_code, dw_code, mode
    size groups, channels, outputs
    size stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x
    size taps_y, taps_x, tap_rows, tap_columns, channel_block, panel_block
    size tile_y, tile_x, chunk_rows, tiles_y, tiles_x, parts
    size tap_blocks_y, tap_blocks_x, channel_blocks, panel_blocks, panels, width
    size blocks, block_bytes
    size row_step, column_step, step_y, step_x, gap_y, gap_x, region_columns
    size ld                # elements between the pixels of a region
    bint merged, long_     # long_: the sums of a part are made in blocks
    size region_bytes, panel_bytes, totals_bytes, scratch_bytes
    char* sums


cdef struct WeightBlock:
    size group, row, column, taps_y, taps_x, channel, channels, panel, panels


def weight_gradient(int compute, x, int x_code, dy, int dy_code, dw, int dw_code, size groups, size stride_y,
                    size stride_x, size dilation_y, size dilation_x, size pad_y, size pad_x, int mode, size tap_rows,
                    size tap_columns, size channel_block, size panel_block, size tile_y, size tile_x, size chunk_rows,
                    size parts, int threads):
    """Write dW, shaped (O, C/groups, kH, kW) with any strides, from x (N, C, H, W) and dy (N, O, OH, OW)."""
    cdef WeightGradient job
    cdef Arrays arrays = Arrays()
    cdef char* scratch = NULL
    cdef size tasks, team
    job.kernels = isa.compute[compute]
    job.sums = NULL
    try:
        arrays.view(x, &job.x, False)
        arrays.view(dy, &job.dy, False)
        arrays.view(dw, &job.dw, True)
        job.x_code, job.dy_code, job.dw_code, job.mode, job.groups = x_code, dy_code, dw_code, mode, groups
        job.channels, job.outputs = job.dw.n[1], job.dw.n[0] // groups
        job.taps_y, job.taps_x = job.dw.n[2], job.dw.n[3]
        job.stride_y, job.stride_x, job.dilation_y, job.dilation_x = stride_y, stride_x, dilation_y, dilation_x
        job.pad_y, job.pad_x, job.tap_rows, job.tap_columns = pad_y, pad_x, tap_rows, tap_columns
        job.channel_block, job.panel_block, job.tile_y, job.tile_x = channel_block, panel_block, tile_y, tile_x
        job.chunk_rows, job.parts = chunk_rows, parts
        if job.dw.n[0] * job.dw.n[1] * job.dw.n[2] * job.dw.n[3] == 0:
            return
        weight_gradient_prepare(&job)
        tasks = job.blocks * parts
        team = team_for(threads, tasks, job.scratch_bytes, job.block_bytes * tasks if parts > 1 else 0)
        scratch = <char*>allocate(job.scratch_bytes * team)
        # one part is summed in the thread's own scratch and stored at once
        if parts > 1:
            job.sums = <char*>allocate(job.block_bytes * tasks)
        run_tasks(weight_gradient_task, &job, scratch, job.scratch_bytes, tasks, team)
        if parts > 1:
            run_tasks(weight_gradient_reduce, &job, NULL, 0, job.blocks, team)
    finally:
        fc_free(scratch)
        fc_free(job.sums)
        arrays.release()


cdef void weight_gradient_prepare(WeightGradient* job) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    job.width = kernels.vectors * kernels.lanes
    job.panels = (job.outputs + job.width - 1) // job.width
    job.tiles_y = (job.dy.n[2] + job.tile_y - 1) // job.tile_y
    job.tiles_x = (job.dy.n[3] + job.tile_x - 1) // job.tile_x
    job.tap_blocks_y = (job.taps_y + job.tap_rows - 1) // job.tap_rows
    job.tap_blocks_x = (job.taps_x + job.tap_columns - 1) // job.tap_columns
    job.channel_blocks = (job.channels + job.channel_block - 1) // job.channel_block
    job.panel_blocks = (job.panels + job.panel_block - 1) // job.panel_block
    job.blocks = job.groups * job.tap_blocks_y * job.tap_blocks_x * job.channel_blocks * job.panel_blocks
    job.block_bytes = round_up(job.tap_rows * job.tap_columns * job.channel_block * job.panel_block * job.width
                               * kernels.size, 64)
    # a single tap needs every stride-th row (column) alone
    job.row_step = job.stride_y if job.tap_rows == 1 else 1
    job.column_step = job.stride_x if job.tap_columns == 1 else 1
    job.step_y = job.stride_y // job.row_step
    job.step_x = job.stride_x // job.column_step
    job.region_columns = (job.tile_x - 1) * job.step_x + (job.tap_columns - 1) * job.dilation_x + 1
    # register tiles walk down the pixels: those a power of two apart would share cache sets
    job.ld = job.channel_block
    if job.ld * kernels.size % 256 == 0:
        job.ld += kernels.lanes
    job.merged = (job.channel_block < kernels.rows[kernels.vectors]
                  and job.tap_columns * job.channel_block <= MERGED_ROWS)
    job.region_bytes = round_up(((job.tile_y - 1) * job.step_y + (job.tap_rows - 1) * job.dilation_y + 1)
                                * job.region_columns * job.ld * kernels.size, 64)
    job.panel_bytes = round_up(job.tile_y * job.tile_x * job.width * kernels.size, 64)
    job.long_ = is_long(kernels, (job.dy.n[0] * job.tiles_y * job.tiles_x + job.parts - 1) // job.parts
                        * job.tile_y * job.tile_x + job.parts)
    job.totals_bytes = 2 * job.block_bytes if job.long_ else 0
    job.scratch_bytes = (job.region_bytes + job.panel_bytes + job.block_bytes + job.totals_bytes
                         + round_up(job.tile_y * sizeof(fc_segment), 64))


cdef WeightBlock weight_block(const WeightGradient* job, size block) noexcept nogil:
    cdef WeightBlock b
    b.panel = block % job.panel_blocks * job.panel_block
    b.panels = min(job.panel_block, job.panels - b.panel)
    block = block // job.panel_blocks
    b.channel = block % job.channel_blocks * job.channel_block
    b.channels = min(job.channel_block, job.channels - b.channel)
    block = block // job.channel_blocks
    b.column = block % job.tap_blocks_x * job.tap_columns
    b.taps_x = min(job.tap_columns, job.taps_x - b.column)
    block = block // job.tap_blocks_x
    b.row = block % job.tap_blocks_y * job.tap_rows
    b.taps_y = min(job.tap_rows, job.taps_y - b.row)
    b.group = block // job.tap_blocks_y
    return b


cdef void weight_gradient_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const WeightGradient* job = <const WeightGradient*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef WeightBlock block = weight_block(job, task % job.blocks)
    cdef size part = task // job.blocks
    cdef size tiles = job.dy.n[0] * job.tiles_y * job.tiles_x
    cdef size tile, last = (part + 1) * tiles // job.parts
    cdef size image, oy, ox, rows, columns, panel, count, width, r, summed = 0, numbers = job.block_bytes // kernels.size
    cdef char* region = scratch
    cdef char* panel_pixels = scratch + job.region_bytes
    cdef char* totals = panel_pixels + job.panel_bytes
    cdef char* sums = totals + job.totals_bytes
    cdef fc_segment* segments = <fc_segment*>(sums + job.block_bytes)
    cdef char* panel_sums
    if job.parts > 1:
        sums = job.sums + task * job.block_bytes
    memset(sums, 0, job.block_bytes)
    memset(totals, 0, job.totals_bytes)
    for tile in range(part * tiles // job.parts, last):
        if fc_interrupted(watch):
            return
        ox = tile % job.tiles_x * job.tile_x
        oy = tile // job.tiles_x % job.tiles_y * job.tile_y
        image = tile // job.tiles_x // job.tiles_y
        rows = min(job.tile_y, job.dy.n[2] - oy)
        columns = min(job.tile_x, job.dy.n[3] - ox)
        if job.long_:
            if summed > 0 and summed + rows * columns > PIXEL_BLOCK:
                kernels.total_add(totals, sums, numbers)
                memset(sums, 0, job.block_bytes)
                summed = 0
            summed += rows * columns
        pack_region(kernels, job.x_code, &job.x, image, block.group * job.channels + block.channel, block.channels,
                    oy * job.stride_y + block.row * job.dilation_y - job.pad_y, job.row_step,
                    (rows - 1) * job.step_y + (block.taps_y - 1) * job.dilation_y + 1,
                    ox * job.stride_x + block.column * job.dilation_x - job.pad_x, job.column_step,
                    (columns - 1) * job.step_x + (block.taps_x - 1) * job.dilation_x + 1, job.region_columns,
                    job.mode, job.ld, region)
        panel_sums = sums
        for panel in range(block.panel, block.panel + block.panels):
            count = min(job.width, job.outputs - panel * job.width)
            width = round_up(count, kernels.lanes)
            if width > count:
                memset(panel_pixels, 0, rows * columns * width * kernels.size)
            for r in range(rows):
                kernels.pack[job.dy_code](
                    panel_pixels + r * columns * width * kernels.size, width, columns, count,
                    job.dy.p + image * job.dy.s[0] + (block.group * job.outputs + panel * job.width) * job.dy.s[1]
                    + (oy + r) * job.dy.s[2] + ox * job.dy.s[3], job.dy.s[3], job.dy.s[1])
            r = 0
            while r < rows:
                weight_gradient_chunk(job, &block, region, panel_pixels, panel_sums, segments, oy, ox, r,
                                      min(rows, r + job.chunk_rows), columns, width)
                r += job.chunk_rows
            panel_sums += block.taps_y * block.taps_x * block.channels * job.width * kernels.size
    if job.long_:
        kernels.total_add(totals, sums, numbers)
        kernels.total_end(sums, totals, numbers)
    if job.parts == 1:
        weight_gradient_store(job, &block, sums)


cdef void weight_gradient_chunk(const WeightGradient* job, const WeightBlock* block, const char* region,
                                const char* panel_pixels, char* sums, fc_segment* segments, size oy, size ox,
                                size first, size last, size columns, size width) noexcept nogil:
    """All taps and input channels of the block for rows first..last-1 of the tile and one panel."""
    cdef size i, j, c, lo, hi, low = 0, high = columns, rows = block.channels
    cdef size offsets[MERGED_ROWS]
    cdef bint merged = job.merged and block.taps_x > 1
    if merged:
        # few channels: the taps of a row share a register tile, over the pixels that all of them reach
        rows = block.taps_x * block.channels
        for j in range(block.taps_x):
            tap_columns(job, block.column + j, ox, columns, &lo, &hi)
            low, high = max(low, lo), min(high, hi)
            for c in range(block.channels):
                offsets[j * block.channels + c] = j * job.dilation_x * job.ld + c
        high = max(low, high)
    else:
        for c in range(min(rows, MERGED_ROWS)):
            offsets[c] = c
    for i in range(block.taps_y):
        if merged:
            weight_gradient_rows(job, block, region, panel_pixels, sums, segments, oy, first, last, columns, width, i, 0,
                                 low, high, offsets, rows)
        for j in range(block.taps_x):
            tap_columns(job, block.column + j, ox, columns, &lo, &hi)
            if merged:
                weight_gradient_rows(job, block, region, panel_pixels, sums, segments, oy, first, last, columns, width,
                                     i, j, lo, min(low, hi), offsets, block.channels)
                lo = max(lo, high)
            weight_gradient_rows(job, block, region, panel_pixels, sums, segments, oy, first, last, columns, width, i, j,
                                 lo, hi, offsets, block.channels)
            sums += block.channels * width * job.kernels.size


cdef inline void tap_columns(const WeightGradient* job, size tap, size ox, size columns, size* lo,
                             size* hi) noexcept nogil:
    """The columns of the tile whose tap lies inside the input."""
    cdef size ix = ox * job.stride_x + tap * job.dilation_x - job.pad_x
    lo[0], hi[0] = 0, columns
    if job.mode == FC_ZEROS:
        if ix < 0:
            lo[0] = min(columns, (-ix + job.stride_x - 1) // job.stride_x)
        hi[0] = 0 if ix >= job.x.n[3] else min(columns, (job.x.n[3] - 1 - ix) // job.stride_x + 1)


cdef void weight_gradient_rows(const WeightGradient* job, const WeightBlock* block, const char* region,
                               const char* panel_pixels, char* sums, fc_segment* segments, size oy, size first,
                               size last, size columns, size width, size i, size j, size lo, size hi,
                               const size* offsets, size count) noexcept nogil:
    """Add the columns lo..hi-1 to `count` lines of sums, which read the region at tap (i, j) and their offset."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size vectors = width // kernels.lanes, most = kernels.rows[vectors], n = 0, r, iy, c, rows
    cdef size c_row[12]
    cdef fc_product product
    if hi <= lo:
        return
    for r in range(first, last):
        iy = (oy + r) * job.stride_y + (block.row + i) * job.dilation_y - job.pad_y
        if job.mode == FC_ZEROS and (iy < 0 or iy >= job.x.n[2]):
            continue
        segments[n].a = ((r * job.step_y + i * job.dilation_y) * job.region_columns + lo * job.step_x
                         + j * job.dilation_x) * job.ld
        segments[n].b = r * columns + lo
        segments[n].k = hi - lo
        n += 1
    if n == 0:
        return
    for c in range(12):
        c_row[c] = c * width
    product.step, product.b, product.ldb = job.step_x * job.ld, panel_pixels, width
    product.segment, product.segments, product.c_row, product.accumulate, product.relu = segments, n, c_row, 1, 0
    product.bias = product.residual = NULL
    product.residual_row = NULL
    product.ahead, product.ahead_step = region, 0
    c = 0
    while c < count:
        rows = min(most, count - c)
        # beyond MERGED_ROWS there are channels alone, one after the other
        product.a = region + (0 if c + rows <= MERGED_ROWS else c) * kernels.size
        product.a_row = offsets + (c if c + rows <= MERGED_ROWS else 0)
        product.c = sums + c * width * kernels.size
        kernels.micro[vectors][rows](&product, 1)
        c += rows


cdef void weight_gradient_store(const WeightGradient* job, const WeightBlock* block, char* sums) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef size panel, i, j, count, width
    cdef char* at
    cdef char* to
    for panel in range(block.panels):
        at = sums + panel * block.taps_y * block.taps_x * block.channels * job.width * kernels.size
        count = min(job.width, job.outputs - (block.panel + panel) * job.width)
        width = round_up(count, kernels.lanes)
        for i in range(block.taps_y):
            for j in range(block.taps_x):
                to = (job.dw.p + (block.group * job.outputs + (block.panel + panel) * job.width) * job.dw.s[0]
                      + block.channel * job.dw.s[1] + (block.row + i) * job.dw.s[2] + (block.column + j) * job.dw.s[3])
                kernels.store[job.dw_code](at, width, block.channels, count, to, job.dw.s[1], job.dw.s[0], NULL, 0,
                                           NULL, 0, 0)
                at += block.channels * width * kernels.size


cdef void weight_gradient_reduce(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const WeightGradient* job = <const WeightGradient*>job_
    cdef WeightBlock block = weight_block(job, task)
    cdef char* sums = job.sums + task * job.block_bytes
    cdef size part
    for part in range(1, job.parts):
        job.kernels.add(sums, sums + part * job.blocks * job.block_bytes, job.block_bytes // job.kernels.size)
    weight_gradient_store(job, &block, sums)


cdef struct BiasGradient:
    const fc_kernels* kernels
    View dy
    int dy_code
    size parts, bytes
    char* sums
    char* totals   # of every part, twice as wide


def bias_gradient(int compute, dy, int dy_code, out, int out_code, size parts, int threads):
    """Sum dy (N, C, H, W) over all but the channels into out (C,); parts, cut by shape, are added in order."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    cdef Arrays arrays = Arrays()
    cdef View to
    cdef BiasGradient job
    cdef char* sums = NULL
    cdef size part, channels, bytes
    try:
        arrays.view(dy, &job.dy, False)
        arrays.view(out, &to, True)
        channels = job.dy.n[1]
        if channels == 0:
            return
        bytes = round_up(channels * kernels.size, 64)
        sums = <char*>allocate(3 * bytes * parts)
        job.kernels, job.dy_code, job.parts, job.bytes, job.sums = kernels, dy_code, parts, bytes, sums
        job.totals = sums + bytes * parts
        run_tasks(bias_gradient_part, &job, NULL, 0, parts, threads)
        with nogil:
            for part in range(1, parts):
                kernels.add(sums, sums + part * bytes, channels)
            kernels.store[out_code](sums, channels, 1, channels, to.p, 0, to.s[3], NULL, 0, NULL, 0, 0)
    finally:
        fc_free(sums)
        arrays.release()


cdef void bias_gradient_part(void* job_, char* scratch, size part, fc_watch* watch) noexcept nogil:
    cdef const BiasGradient* job = <const BiasGradient*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef const View* v = &job.dy
    cdef size parts = job.parts, rows = v.n[0] * v.n[2], row, last = (part + 1) * rows // parts, c, n, x, m, p
    cdef char* sums = job.sums + part * job.bytes
    cdef char pixels[16 * 64 * 8]
    # a long sum's pixels come sixteen at a time, which are added to totals
    cdef bint long_ = is_long(kernels, rows * v.n[3])
    cdef char* totals = job.totals + part * 2 * job.bytes
    memset(sums, 0, v.n[1] * kernels.size)
    if long_:
        memset(totals, 0, 2 * job.bytes)
    for row in range(part * rows // parts, last):
        if fc_interrupted(watch):
            return
        c = 0
        while c < v.n[1]:
            n = min(64, v.n[1] - c)
            x = 0
            while x < v.n[3]:
                m = min(16, v.n[3] - x)
                kernels.pack[job.dy_code](pixels, n, m, n, v.p + row // v.n[2] * v.s[0] + c * v.s[1]
                                   + row % v.n[2] * v.s[2] + x * v.s[3], v.s[3], v.s[1])
                if long_:
                    for p in range(1, m):
                        kernels.add(pixels, pixels + p * n * kernels.size, n)
                    kernels.total_add(totals + 2 * c * kernels.size, pixels, n)
                else:
                    for p in range(m):
                        kernels.add(sums + c * kernels.size, pixels + p * n * kernels.size, n)
                x += m
            c += n
    c = 0
    while long_ and c < v.n[1]:
        n = min(64, v.n[1] - c)
        kernels.total_end(sums + c * kernels.size, totals + 2 * c * kernels.size, n)
        c += n
