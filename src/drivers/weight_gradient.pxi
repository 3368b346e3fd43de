# The gradient with respect to the weights: dW[o, c, h, i, j] = sum over images and output pixels of
# dY[n, o, z, y, x] * X[n, c, z*stride + h*dilation - pad, y*stride + i*dilation - pad, x*stride + j*dilation - pad].
#
#   for part of the pixels x group x block of taps, input channels and panels      threads take these
#     for tile of output pixels of that part
#       pack the input region under the tile, and dY's panel                       second- and first-level cache
#       or, where few products would meet each of their vectors, read them as they lie
#       for tap: the runs of pixels whose tap lies inside the input
#         for rows of the register tile (input channels)                           micro-kernel: K = pixels
#   for block: add the parts in order, store
#
# Taps over padding have no pixels, so nothing is ever multiplied by a padded zero. The parts depend on shapes alone:
# the bits do not depend on threads. A part of many pixels is summed in blocks of tiles (drivers/totals.pxi).

cdef enum:
    FEW_VECTORS = 16   # products that a vector of the input meets, up to which copying it costs more than a twentieth
    FEW_LINES = 128    # likewise a vector of dY, which a copy keeps in the first level
    PIECES = 16        # that parts are added up in, of all blocks; each has so many lines
    PIECE_LINES = 8

WEIGHT_GRADIENT_FEW = (FEW_VECTORS, FEW_LINES)

cdef struct Weighing:      # what is counted along an axis: [z, y, x]
    const fc_kernels* kernels
    View x, dy, dw
    int x_code, dy_code, dw_code, mode
    size groups, channels, outputs
    size extent[3]         # of dY
    size stride[3]
    size dilation[3]
    size pad[3]
    size taps[3]
    size block_taps[3]
    size channel_block, panel_block
    size tile[3]
    size tiles[3]
    size chunk_rows, parts
    size tap_blocks[3]
    size channel_blocks, panel_blocks, panels, width
    size blocks, block_bytes
    size pick[3]           # every so many-th of the input is in the region,
    size step[3]           # so many apart lie the origins of outputs
    size region_rows, region_columns
    size ld                # elements between the pixels of a region
    bint merged, long_     # long_: the sums of a part are made in blocks
    bint in_result         # sums are made where they will lie
    size pieces            # of a block, when its parts are added up
    bint x_lies, dy_lies   # read as they lie
    size apart[3]          # elements between the inputs of neighbouring outputs,
    size tap_apart[3]      # of neighbouring taps
    size region_bytes, panel_bytes, totals_bytes, scratch_bytes
    char* sums


cdef struct WeightBlock:
    size group, channel, channels, panel, panels
    size first[3]          # tap
    size taps[3]


cdef struct WeightTile:
    size first[3]          # output
    size shape[3]


cdef struct WeightRows:    # of a tile, counted through its planes, and the plane and row of the first
    size first, last, plane, row


cdef class WeightGradient(Program):
    """The weight gradient of a convolution.

    WeightGradient(codes, extent, p, blocking), of which it reads

    codes     `compute`, `input` (of x), `weight` (of dy), `result` (of dw)
    extent    `groups`, `channels` and `outputs` of one group, `size` of dy (z, y, x), `mode` of the padding
    p         the pass of the convolution: `taps`, evenly spaced, and `stride`
    blocking  `taps` (z, y, x), `channels` and `panels` of a block of sums, the `tile` (z, y, x) of dy that is summed at a
              time, `chunk_rows` of it that stay in the first level, `parts` that the pixels are cut into
    """
    cdef Weighing job

    def __init__(self, codes, extent, p, blocking):
        cdef Weighing* job = &self.job
        cdef int axis
        self.compute_with(codes)
        job.kernels, job.x_code, job.dy_code, job.dw_code = self.kernels, self.input, self.weight, self.result
        job.groups, job.channels, job.outputs, job.mode = extent.groups, extent.channels, extent.outputs, extent.mode
        three(extent.size, job.extent)
        three(p.stride, job.stride)
        for axis, taps in enumerate(p.taps):
            job.taps[axis] = len(taps)
            job.pad[axis] = -taps[0] if taps else 0
            job.dilation[axis] = taps[1] - taps[0] if len(taps) > 1 else 1
        three(blocking.taps, job.block_taps)
        three(blocking.tile, job.tile)
        job.channel_block, job.panel_block = blocking.channels, blocking.panels
        job.chunk_rows, job.parts = blocking.chunk_rows, blocking.parts
        weight_gradient_prepare(job)

    def scratch_bytes(self, size images):
        """Scratch of one thread; sums of several parts lie beside it."""
        cdef Weighing job = self.job
        weight_gradient_scratch(&job, images)
        return job.scratch_bytes

    def run(self, x, dy, dw, int threads):
        """Write dW, shaped (O, C/groups, [[kD,] kH,] kW) with any strides, from x (N, C, ...) and dy (N, O, ...)."""
        cdef Weighing job = self.job
        cdef Arrays arrays = Arrays()
        cdef char* scratch = NULL
        cdef size tasks, team
        job.sums = NULL
        try:
            arrays.view(x, &job.x, False)
            arrays.view(dy, &job.dy, False)
            arrays.view(dw, &job.dw, True)
            if elements(&job.dw) == 0:
                return
            weight_gradient_arrays(&job)
            weight_gradient_scratch(&job, job.dy.n[0])
            job.in_result = weight_gradient_in_result(&job)
            tasks = job.blocks * job.parts
            team = team_for(threads, tasks, job.scratch_bytes, job.block_bytes * tasks if job.parts > 1 else 0)
            # one part is summed in the thread's own scratch and stored at once. One piece of memory: of two, the C library
            # gives what is free at the end back to the system, and every run takes page faults again
            scratch = <char*>allocate(job.scratch_bytes * team + (job.block_bytes * tasks if job.parts > 1 else 0))
            if job.parts > 1:
                job.sums = scratch + job.scratch_bytes * team
            run_tasks(weight_gradient_task, &job, scratch, job.scratch_bytes, tasks, team)
            if job.parts > 1:
                run_tasks(weight_gradient_reduce, &job, NULL, 0, job.blocks * job.pieces, team)
        finally:
            fc_free(scratch)
            arrays.release()


cdef void weight_gradient_prepare(Weighing* job) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef int axis
    job.width = kernels.vectors * kernels.lanes
    job.panels = (job.outputs + job.width - 1) // job.width
    for axis in range(3):
        job.tiles[axis] = (job.extent[axis] + job.tile[axis] - 1) // job.tile[axis]
        job.tap_blocks[axis] = (job.taps[axis] + job.block_taps[axis] - 1) // job.block_taps[axis]
        # a single tap needs every stride-th plane (row, column) alone
        job.pick[axis] = job.stride[axis] if job.block_taps[axis] == 1 else 1
        job.step[axis] = job.stride[axis] // job.pick[axis]
    job.channel_blocks = (job.channels + job.channel_block - 1) // job.channel_block
    job.panel_blocks = (job.panels + job.panel_block - 1) // job.panel_block
    job.blocks = job.groups * volume(job.tap_blocks) * job.channel_blocks * job.panel_blocks
    job.block_bytes = round_up(volume(job.block_taps) * job.channel_block * job.panel_block * job.width * kernels.size,
                               64)
    job.region_rows = region_extent(job, 1, job.tile[1], job.block_taps[1])
    job.region_columns = region_extent(job, 2, job.tile[2], job.block_taps[2])
    # register tiles walk down the pixels: those a power of two apart would share cache sets
    job.ld = job.channel_block
    if job.ld * kernels.size % 256 == 0:
        job.ld += kernels.lanes
    job.merged = job.channel_block < kernels.rows[kernels.vectors] and job.block_taps[2] > 1
    job.pieces = max(<size>1, min(PIECES // job.blocks, job.channel_block // PIECE_LINES))
    job.region_bytes = round_up(region_extent(job, 0, job.tile[0], job.block_taps[0]) * job.region_rows
                                * job.region_columns * job.ld * kernels.size, 64)
    job.panel_bytes = round_up(volume(job.tile) * job.width * kernels.size, 64)


cdef void weight_gradient_arrays(Weighing* job) noexcept nogil:
    """What depends on how the arrays lie. The sums are the same, in the same order, wherever their terms are read."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size unit = kernels.size, panels = min(job.panel_block, job.panels), vectors, between
    cdef int axis
    vectors = min(panels * kernels.vectors, (job.outputs + kernels.lanes - 1) // kernels.lanes)
    job.x_lies = (job.x_code == kernels.input and kernels.input_size == unit and job.mode == FC_ZEROS
                  and volume(job.block_taps) * vectors <= FEW_VECTORS and in_elements(&job.x, job.x.p, unit)
                  and spread_over_sets(job.stride[2] * job.x.s[3])
                  and job.x.s[0] % unit == 0)
    job.dy_lies = (job.dy_code == kernels.input and kernels.input_size == unit and job.outputs % kernels.lanes == 0
                   and volume(job.block_taps) * job.channel_block <= FEW_LINES and in_elements(&job.dy, job.dy.p, unit)
                   and spread_over_sets(job.dy.s[3]) and job.dy.s[0] % unit == 0 and rows_follow(&job.dy))
    job.apart[2], job.tap_apart[2] = job.step[2] * job.ld, job.dilation[2] * job.ld
    job.apart[1], job.tap_apart[1] = job.step[1] * job.ld * job.region_columns, job.dilation[1] * job.ld * job.region_columns
    job.apart[0] = job.step[0] * job.ld * job.region_columns * job.region_rows
    job.tap_apart[0] = job.dilation[0] * job.ld * job.region_columns * job.region_rows
    for axis in range(3 if job.x_lies else 0):
        between = job.x.s[4 if axis == 0 else axis + 1] // unit
        job.apart[axis], job.tap_apart[axis] = job.stride[axis] * between, job.dilation[axis] * between


cdef inline bint weight_gradient_in_result(const Weighing* job) noexcept nogil:
    """Whether whole vectors of sums can be made in dW: no more is then done with them, or they are few."""
    cdef size unit = job.kernels.size
    return (job.parts == 1 and not job.long_ and not job.merged and job.dw_code == job.kernels.sum
            and job.dy.n[0] * volume(job.tiles) > 0
            and job.outputs % job.kernels.lanes == 0 and job.dw.s[0] == unit and job.dw.s[1] % unit == 0
            and job.dw.s[2] % unit == 0 and job.dw.s[3] % unit == 0 and job.dw.s[4] % unit == 0
            and <size>job.dw.p % unit == 0)


cdef inline bint spread_over_sets(size pitch) noexcept nogil:
    """Whether pixels so many bytes apart fall into sets enough of the first-level cache; else copies are read faster."""
    return -2048 < pitch < 2048 or pitch % 1024 != 0


cdef inline bint rows_follow(const View* array) noexcept nogil:
    """Whether rows and planes lie one behind the other, as pixels of one line."""
    return ((array.n[2] == 1 or array.s[2] == array.n[3] * array.s[3])
            and (array.n[4] == 1 or array.s[4] == array.n[2] * array.n[3] * array.s[3]))


cdef inline size region_extent(const Weighing* job, int axis, size outputs, size taps) noexcept nogil:
    """Planes, rows or columns of the input under so many outputs and taps."""
    return (outputs - 1) * job.step[axis] + (taps - 1) * job.dilation[axis] + 1


cdef void weight_gradient_scratch(Weighing* job, size images) noexcept nogil:
    job.long_ = is_long(job.kernels, (images * volume(job.tiles) + job.parts - 1) // job.parts * volume(job.tile)
                        + job.parts)
    job.totals_bytes = 2 * job.block_bytes if job.long_ else 0
    job.scratch_bytes = (job.region_bytes + job.panel_bytes + job.block_bytes + job.totals_bytes
                         + round_up(job.tile[0] * job.tile[1] * sizeof(fc_segment), 64))


cdef WeightBlock weight_block(const Weighing* job, size block) noexcept nogil:
    cdef WeightBlock b
    cdef int axis
    b.panel = block % job.panel_blocks * job.panel_block
    b.panels = min(job.panel_block, job.panels - b.panel)
    block = block // job.panel_blocks
    b.channel = block % job.channel_blocks * job.channel_block
    b.channels = min(job.channel_block, job.channels - b.channel)
    block = block // job.channel_blocks
    for axis in range(2, -1, -1):
        b.first[axis] = block % job.tap_blocks[axis] * job.block_taps[axis]
        b.taps[axis] = min(job.block_taps[axis], job.taps[axis] - b.first[axis])
        block = block // job.tap_blocks[axis]
    b.group = block
    return b


cdef void weight_gradient_region(const Weighing* job, const WeightBlock* block, const WeightTile* t, size image,
                                 char* region) noexcept nogil:
    """The input that the taps of a block meet from a tile."""
    cdef size first[3]
    cdef size shape[3]
    cdef int axis
    for axis in range(3):
        first[axis] = (t.first[axis] * job.stride[axis] + block.first[axis] * job.dilation[axis] - job.pad[axis])
        shape[axis] = region_extent(job, axis, t.shape[axis], block.taps[axis])
    pack_planes(job.kernels, job.x_code, &job.x, image, block.group * job.channels + block.channel, block.channels,
                first, job.pick, shape, job.region_rows * job.region_columns, job.region_columns, job.mode, job.ld,
                region)


cdef inline char* weight_gradient_origin(const Weighing* job, const WeightBlock* block, const WeightTile* t,
                                         size image) noexcept nogil:
    """Where the first tap of a block meets the first output of a tile, which may be padding, in the input itself."""
    cdef char* at = <char*>job.x.p + image * job.x.s[0] + (block.group * job.channels + block.channel) * job.x.s[1]
    cdef int axis
    for axis in range(3):
        at += ((t.first[axis] * job.stride[axis] + block.first[axis] * job.dilation[axis] - job.pad[axis])
               * job.x.s[4 if axis == 0 else axis + 1])
    return at


cdef inline const char* weight_gradient_outputs(const Weighing* job, const WeightBlock* block, size image,
                                                size panel) noexcept nogil:
    """The channels of a panel at the first pixel of an image of dY."""
    return job.dy.p + image * job.dy.s[0] + (block.group * job.outputs + panel * job.width) * job.dy.s[1]


cdef void weight_gradient_panel(const Weighing* job, const WeightBlock* block, const WeightTile* t, size image,
                                size panel, char* to) noexcept nogil:
    """One panel of dY under a tile, pixel by pixel."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size count = min(job.width, job.outputs - panel * job.width), width = round_up(count, kernels.lanes), z, r
    cdef const char* src = (job.dy.p + image * job.dy.s[0]
                            + (block.group * job.outputs + panel * job.width) * job.dy.s[1]
                            + t.first[0] * job.dy.s[4] + t.first[1] * job.dy.s[2] + t.first[2] * job.dy.s[3])
    if width > count:
        memset(to, 0, volume(t.shape) * width * kernels.size)
    for z in range(t.shape[0]):
        for r in range(t.shape[1]):
            kernels.pack[job.dy_code](to, width, t.shape[2], count, src + z * job.dy.s[4] + r * job.dy.s[2],
                                      job.dy.s[3], job.dy.s[1])
            to += t.shape[2] * width * kernels.size


cdef void weight_gradient_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Weighing* job = <const Weighing*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef WeightBlock block = weight_block(job, task % job.blocks)
    cdef WeightTile t
    cdef size part = task // job.blocks, tiles = job.dy.n[0] * volume(job.tiles), tile, at, panel, width, r, rows
    cdef size summed = 0, numbers = job.block_bytes // kernels.size
    cdef bint begun = job.merged or job.long_    # else the first products of a sum begin it
    cdef int axis
    cdef char* region = scratch
    cdef char* panel_pixels = scratch + job.region_bytes
    cdef const char* pixels
    cdef char* totals = panel_pixels + job.panel_bytes
    cdef char* sums = totals + job.totals_bytes
    cdef fc_segment* segments = <fc_segment*>(sums + job.block_bytes)
    cdef char* panel_sums
    if job.parts > 1:
        sums = job.sums + task * job.block_bytes
    if begun or part * tiles // job.parts == (part + 1) * tiles // job.parts:
        memset(sums, 0, job.block_bytes)
    memset(totals, 0, job.totals_bytes)
    for tile in range(part * tiles // job.parts, (part + 1) * tiles // job.parts):
        if fc_interrupted(watch):
            return
        at = tile
        for axis in range(2, -1, -1):
            t.first[axis] = at % job.tiles[axis] * job.tile[axis]
            t.shape[axis] = min(job.tile[axis], job.extent[axis] - t.first[axis])
            at = at // job.tiles[axis]
        if job.long_:
            if summed > 0 and summed + volume(t.shape) > PIXEL_BLOCK:
                kernels.total_add(totals, sums, numbers)
                memset(sums, 0, job.block_bytes)
                summed = 0
            summed += volume(t.shape)
        if job.x_lies:
            region = weight_gradient_origin(job, &block, &t, at)
        else:
            weight_gradient_region(job, &block, &t, at, region)
        panel_sums = sums
        rows = t.shape[0] * t.shape[1]
        for panel in range(block.panel, block.panel + block.panels):
            width = round_up(min(job.width, job.outputs - panel * job.width), kernels.lanes)
            if job.dy_lies:
                pixels = weight_gradient_outputs(job, &block, at, panel)
            else:
                weight_gradient_panel(job, &block, &t, at, panel, panel_pixels)
                pixels = panel_pixels
            r = 0
            while r < rows:
                weight_gradient_chunk(job, &block, &t, region, pixels, panel, panel_sums, segments, r,
                                      min(rows, r + job.chunk_rows), width, begun or r > 0)
                r += job.chunk_rows
            panel_sums += volume(block.taps) * block.channels * job.width * kernels.size
        begun = True
    if job.long_:
        kernels.total_add(totals, sums, numbers)
        kernels.total_end(sums, totals, numbers)
    if job.parts == 1 and not job.in_result:
        weight_gradient_store(job, &block, sums, 0, block.channels)


cdef void weight_gradient_chunk(const Weighing* job, const WeightBlock* block, const WeightTile* t, const char* region,
                                const char* panel_pixels, size panel, char* sums, fc_segment* segments, size first,
                                size last, size width, bint begun) noexcept nogil:
    """All taps and input channels of the block for rows first..last-1 of the tile, counted through its planes, and one
    panel, added to its sums where these are `begun`."""
    cdef WeightRows chunk
    cdef size h, i, j, lo, hi
    cdef size offsets[FC_MAX_ROWS]
    chunk.first, chunk.last = first, last
    chunk.plane, chunk.row = first // t.shape[1], first % t.shape[1]
    for j in range(FC_MAX_ROWS):
        offsets[j] = j
    for h in range(block.taps[0]):
        for i in range(block.taps[1]):
            if job.merged:
                weight_gradient_merged(job, block, t, region, panel_pixels, sums, segments, &chunk, width, h, i)
                sums += block.taps[2] * block.channels * width * job.kernels.size
                continue
            for j in range(block.taps[2]):
                tap_columns(job, block.first[2] + j, t, &lo, &hi)
                if job.in_result:
                    sums = weight_gradient_tap(job, block, panel, h, i, j)
                weight_gradient_rows(job, block, t, region, panel_pixels, sums, segments, &chunk, width, h, i, j, lo,
                                     hi, offsets, block.channels, begun)
                sums += block.channels * width * job.kernels.size


cdef void weight_gradient_merged(const Weighing* job, const WeightBlock* block, const WeightTile* t, const char* region,
                                 const char* panel_pixels, char* sums, fc_segment* segments, const WeightRows* chunk,
                                 size width, size h, size i) noexcept nogil:
    """Of few channels the taps of a row share register tiles: each over the columns that all of its taps meet inside the
    input, then those of fewer taps."""
    cdef size most = job.kernels.rows[width // job.kernels.lanes], lines = block.taps[2] * block.channels, line = 0
    cdef size tiles = (lines + most - 1) // most, count, first, taps, j, at, to, begin, end, r, at_tap, c
    cdef size lo[FC_MAX_ROWS]
    cdef size hi[FC_MAX_ROWS]
    cdef size offsets[FC_MAX_ROWS]
    while line < lines:
        count = (lines - line + tiles - 1) // tiles   # as equal as can be
        tiles -= 1
        first = line // block.channels
        taps = (line + count - 1) // block.channels - first + 1
        at = t.shape[2]
        for j in range(taps):
            tap_columns(job, block.first[2] + first + j, t, &lo[j], &hi[j])
            at = min(at, lo[j])
        while at < t.shape[2]:
            begin, end, to = taps, 0, t.shape[2]   # the taps that meet column `at`, and up to where the same ones do
            for j in range(taps):
                if lo[j] <= at < hi[j]:
                    begin, end, to = min(begin, j), j + 1, min(to, hi[j])
                elif at < lo[j] < hi[j]:
                    to = min(to, lo[j])
            if begin < end:
                begin += first
                r = max(line, begin * block.channels)
                end = min(line + count, (first + end) * block.channels)
                at_tap, c = r // block.channels, r % block.channels
                for j in range(end - r):   # without a division each, which would be a tenth of short tiles
                    offsets[j] = (at_tap - begin) * job.tap_apart[2] + c
                    c += 1
                    if c == block.channels:
                        at_tap, c = at_tap + 1, 0
                weight_gradient_rows(job, block, t, region, panel_pixels, sums + r * width * job.kernels.size, segments,
                                     chunk, width, h, i, begin, at, to, offsets, end - r, True)
            at = to
        line += count


cdef inline void tap_columns(const Weighing* job, size tap, const WeightTile* t, size* lo, size* hi) noexcept nogil:
    """The columns of the tile whose tap lies inside the input."""
    cdef size ix = t.first[2] * job.stride[2] + tap * job.dilation[2] - job.pad[2], columns = t.shape[2]
    lo[0], hi[0] = 0, columns
    if job.mode == FC_ZEROS:
        if ix < 0:
            lo[0] = min(columns, (-ix + job.stride[2] - 1) // job.stride[2])
        hi[0] = 0 if ix >= job.x.n[3] else min(columns, (job.x.n[3] - 1 - ix) // job.stride[2] + 1)


cdef size weight_gradient_segments(const Weighing* job, const WeightBlock* block, const WeightTile* t,
                                   fc_segment* segments, const WeightRows* chunk, size h, size i, size j, size lo,
                                   size hi) noexcept nogil:
    """The runs of pixels of some rows that tap (h, i, j) of the block meets inside the input; how many."""
    cdef size n = 0, at = chunk.first, end, z = chunk.plane, r = chunk.row, iz, iy, from_, to
    while at < chunk.last:
        end = min(chunk.last, at + t.shape[1] - r)   # of this plane
        iz = (t.first[0] + z) * job.stride[0] + (block.first[0] + h) * job.dilation[0] - job.pad[0]
        iy = (t.first[1] + r) * job.stride[1] + (block.first[1] + i) * job.dilation[1] - job.pad[1]
        from_ = (z * job.apart[0] + h * job.tap_apart[0] + r * job.apart[1] + i * job.tap_apart[1] + lo * job.apart[2]
                 + j * job.tap_apart[2])
        to = at * t.shape[2] + lo
        if job.dy_lies:
            to = ((t.first[0] + z) * job.extent[1] + t.first[1] + r) * job.extent[2] + t.first[2] + lo
        if job.mode == FC_ZEROS and not 0 <= iz < job.x.n[4]:
            at = end
        while at < end:
            if job.mode != FC_ZEROS or 0 <= iy < job.x.n[2]:
                if (n > 0 and segments[n - 1].a + segments[n - 1].k * job.apart[2] == from_
                        and segments[n - 1].b + segments[n - 1].k == to):
                    segments[n - 1].k += hi - lo   # rows that follow each other are one
                else:
                    segments[n].a, segments[n].b, segments[n].k = from_, to, hi - lo
                    n += 1
            from_ += job.apart[1]
            to += job.extent[2] if job.dy_lies else t.shape[2]
            iy += job.stride[1]
            at += 1
        z, r = z + 1, 0
    return n


cdef void weight_gradient_rows(const Weighing* job, const WeightBlock* block, const WeightTile* t, const char* region,
                               const char* panel_pixels, char* sums, fc_segment* segments, const WeightRows* chunk,
                               size width, size h, size i, size j, size lo, size hi, const size* offsets,
                               size count, bint begun) noexcept nogil:
    """Add the columns lo..hi-1 of some rows to `count` lines of sums, which read the region at tap (h, i, j) and their
    offset, of more than a register tile those of its first: these columns alone are sums that are not `begun`."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size vectors = width // kernels.lanes, most = kernels.rows[vectors], tiles, c, rows, n = 0
    cdef size line = job.dw.s[1] // kernels.size if job.in_result else width
    cdef size c_row[FC_MAX_ROWS]
    cdef fc_product product
    if hi > lo:
        n = weight_gradient_segments(job, block, t, segments, chunk, h, i, j, lo, hi)
    if n == 0:
        for c in range(0 if begun else count):
            memset(sums + c * line * kernels.size, 0, width * kernels.size)
        return
    for c in range(FC_MAX_ROWS):
        c_row[c] = c * line
    product.step, product.b, product.ldb = job.apart[2], panel_pixels, width
    if job.dy_lies:
        product.ldb = job.dy.s[3] // kernels.size
    product.segment, product.segments, product.c_row, product.accumulate, product.relu = segments, n, c_row, begun, 0
    product.bias = product.residual = NULL
    product.residual_row = NULL
    product.requantise = NULL
    product.fetch, product.partial = job.in_result, 0
    product.ahead, product.ahead_step = region, 0
    c = 0
    tiles = (count + most - 1) // most
    while c < count:
        rows = (count - c + tiles - 1) // tiles   # as equal as can be
        tiles -= 1
        product.a, product.a_row = region + c * kernels.size, offsets
        product.c = sums + c * line * kernels.size
        kernels.micro[vectors][rows](&product, 1)
        c += rows


cdef inline char* weight_gradient_tap(const Weighing* job, const WeightBlock* block, size panel, size h, size i,
                                      size j) noexcept nogil:
    """Where the sums of a panel and tap (h, i, j) of a block lie in dW."""
    return (job.dw.p + (block.group * job.outputs + panel * job.width) * job.dw.s[0] + block.channel * job.dw.s[1]
            + (block.first[0] + h) * job.dw.s[4] + (block.first[1] + i) * job.dw.s[2]
            + (block.first[2] + j) * job.dw.s[3])


cdef void weight_gradient_store(const Weighing* job, const WeightBlock* block, char* sums, size first,
                                size last) noexcept nogil:
    """The sums of the channels from `first` to `last` - 1 of a block; of several parts all added up before."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size panel, h, i, j, count, width, numbers, part
    cdef char* at
    for panel in range(block.panels):
        at = sums + panel * volume(block.taps) * block.channels * job.width * kernels.size
        count = min(job.width, job.outputs - (block.panel + panel) * job.width)
        width = round_up(count, kernels.lanes)
        numbers = (last - first) * width
        at += first * width * kernels.size
        for h in range(block.taps[0]):
            for i in range(block.taps[1]):
                for j in range(block.taps[2]):
                    for part in range(1, job.parts):
                        kernels.add(at, at + part * job.blocks * job.block_bytes, numbers)
                    kernels.store[job.dw_code](
                        at, width, last - first, count,
                        weight_gradient_tap(job, block, block.panel + panel, h, i, j) + first * job.dw.s[1],
                        job.dw.s[1], job.dw.s[0], NULL, 0, NULL, 0, 0)
                    at += block.channels * width * kernels.size


cdef void weight_gradient_reduce(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Weighing* job = <const Weighing*>job_
    cdef size piece = task % job.pieces
    cdef WeightBlock block = weight_block(job, task // job.pieces)
    weight_gradient_store(job, &block, job.sums + task // job.pieces * job.block_bytes,
                          piece * block.channels // job.pieces, (piece + 1) * block.channels // job.pieces)


cdef struct BiasGradient:
    const fc_kernels* kernels
    View dy
    int dy_code
    size parts, bytes
    char* sums
    char* totals   # of every part, twice as wide


def bias_gradient(int compute, dy, int dy_code, out, int out_code, size parts, int threads):
    """Sum dy (N, C, ...) over all but the channels into out (C,); parts, cut by shape, are added in order."""
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
    cdef size parts = job.parts, rows = v.n[0] * v.n[4] * v.n[2], row, last = (part + 1) * rows // parts, c, n, x, m, p
    cdef const char* at
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
        at = (v.p + row // v.n[2] // v.n[4] * v.s[0] + row // v.n[2] % v.n[4] * v.s[4] + row % v.n[2] * v.s[2])
        c = 0
        while c < v.n[1]:
            n = min(64, v.n[1] - c)
            x = 0
            while x < v.n[3]:
                m = min(16, v.n[3] - x)
                kernels.pack[job.dy_code](pixels, n, m, n, at + c * v.s[1] + x * v.s[3], v.s[3], v.s[1])
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
