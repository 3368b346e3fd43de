# Direct convolution (after Zhang, Franchetti, Low, "High Performance Zero-Memory Overhead Direct Convolutions", ICML
# 2018, and the five loops of BLIS). One pass serves the forward convolution, each phase of the input gradient and of
# the transposed convolution, and each phase of the tiled one: they differ in tap offsets and strides alone.
#
#   for tile of output pixels x group x run of panels      threads take these      region: second-level cache
#     leave out the rows and columns of taps that meet padding alone
#     pack the region of the input under the tile
#     for panel of output channels                         packed by a plan, or now (drivers/weights.pxi)
#       for block of the reduction (taps, channels)        kc x width weights      first-level cache
#         for rows of the register tile                    micro-kernel            registers
#       epilogue: bias, residual, activation, layout, element type
#
# Every output is one sum in the order (tap y, tap x, channel), whatever the blocking, the threads and the batch; a long
# one is made of sums of `sum_block` terms each (drivers/totals.pxi). A tile may span several small images: its pixels are
# rows of the same register tiles.

cdef enum:
    IN_PLACE = 0   # one tap, no padding, channels side by side: the input is the region
    REGION = 1
    GATHER = 2     # enormous windows: pixels x kc elements at a time

cdef struct Direct:
    const fc_kernels* kernels
    View x, y, residual
    Weights weights
    int x_code, y_code, activation, mode, source
    bint has_residual
    bint streams                               # weights not packed before are packed block by block
    bint long_                                 # sums are made in blocks of so many terms
    size sum_block
    size groups, channels, outputs             # of one group: reduction and output channels
    size size_y, size_x                        # of the output of this pass
    size merge_y, merge_x, merged              # phases that lie beside each other in the panel, outputs of each
    size full_y, full_x                        # of y, which merged phases share
    size first_task, first_panel               # counted over all passes
    size stride_y, stride_x, taps_y, taps_x
    const size* tap_y                          # offset of every tap from output * stride
    const size* tap_x
    size min_y, min_x, span_y, span_x
    const char* bias
    size images                                # of a tile
    size tile_y, tile_x, tiles_y, tiles_x, kc
    size panels, panels_per_task, panel_chunks, width
    size row_step, column_step, step_y, step_x, region_columns, ld   # region geometry
    fc_segment* segments
    size* block                                # first segment of every reduction block
    size blocks
    bint merged_taps                           # the taps of a row and their channels are one run
    size panel_bytes, region_bytes, totals_bytes, scratch_bytes, max_segments


cdef struct DirectPasses:
    Direct* jobs
    size count


cdef struct HeldPanel:
    size number     # of the panel in a thread's scratch, counted over all passes and groups; -1 at first
    bint finite


cdef struct Met:               # taps of a tile that meet the input, rows first_y .. last_y - 1, and where their region begins
    size first_y, last_y, first_x, last_x
    size min_y, min_x, span_y, span_x
    bint all


cdef enum:
    PANEL_AT = 64    # bytes of a thread's scratch before its panel: HeldPanel


cdef class DirectPass:
    """One pass with every number resolved but the arrays: made once, run many times, by several threads at once.

    The output pixel (i, j) of `size` sums x[.., i*stride + tap_y[a], j*stride + tap_x[b]] over the taps, which are the
    rows x columns of the kernel; it lies at `phase` + (i, j) * `step` of y. With source IN_PLACE the taps lie inside the
    input, whose rows x columns are `extent`, and `usable` says whether an array can be read so. What `streams` packs the weights of a single run, all of
    them finite, for a block of the reduction at a time. A tile spans `images` of the batch. `merge` phases, rows x columns, share a pass: outputs
    [phase y][phase x][channel] of one panel, each at its own pixel of y.
    """
    cdef Direct job      # zeros at first, as every C attribute: what was not allocated is freed as NULL
    cdef size* numbers   # tap_y, tap_x, then rows and columns of the kernel
    cdef size phase_y, phase_x, step_y, step_x

    def __init__(self, int compute, size groups, size channels, size outputs, tuple size_, tuple extent, tuple tap_y, tuple tap_x,
                 tuple rows, tuple columns, tuple stride, tuple phase, tuple step, tuple merge, int mode, int source,
                 bint streams, size images, tuple tile, size kc, size panels_per_task):
        cdef Direct* job = &self.job
        cdef size i = 0
        job.kernels = isa.compute[compute]
        job.mode, job.source, job.kc = mode, source, kc
        job.groups, job.channels, job.outputs = groups, channels, outputs
        job.size_y, job.size_x = size_
        job.merge_y, job.merge_x = merge
        job.merged = outputs // (job.merge_y * job.merge_x)
        job.stride_y, job.stride_x = stride
        job.images, job.streams = images, streams
        job.tile_y, job.tile_x = tile
        self.phase_y, self.phase_x = phase
        self.step_y, self.step_x = step
        job.taps_y, job.taps_x = len(tap_y), len(tap_x)
        self.numbers = <size*>allocate(2 * (job.taps_y + job.taps_x) * sizeof(size))
        for numbers in (tap_y, tap_x, rows, columns):
            for number in numbers:
                self.numbers[i] = number
                i += 1
        job.tap_y, job.tap_x = self.numbers, self.numbers + job.taps_y
        direct_prepare(job, extent[0], extent[1], panels_per_task)

    def blocking(self):
        """(source, images of a tile, tile, reduction steps of a block, tasks of so many images)."""
        cdef const Direct* job = &self.job
        tasks = job.tiles_y * job.tiles_x * job.groups * job.panel_chunks
        return job.source, job.images, (job.tile_y, job.tile_x), job.kc, tasks

    def rows(self):
        """Rows of the outputs that the pass makes."""
        return self.job.size_y

    def streams(self):
        """Whether the weights of a single run are packed block by block."""
        return self.job.streams

    def scratch_bytes(self, bint packed):
        """Scratch of one thread: with weights packed before, or with room for a panel that it packs."""
        cdef Direct job = self.job
        job.weights.packed = <const char*>self.numbers if packed else NULL  # whether there are any is all that counts
        direct_scratch(&job)
        return job.scratch_bytes

    def __dealloc__(self):
        fc_free(self.numbers)
        fc_free(self.job.segments)
        fc_free(self.job.block)


cdef bint direct_usable(const fc_kernels* kernels, const View* x, int code) noexcept nogil:
    """Whether a pass that reads the input in place can read this array."""
    cdef size unit = kernels.size
    return (code == kernels.input and (x.n[1] == 1 or x.s[1] == unit) and x.s[0] % unit == 0
            and x.s[2] % unit == 0 and x.s[3] % unit == 0 and <size>x.p % unit == 0)


def direct(tuple passes, tuple in_place, x, int x_code, weight, int w_code, packed, bint finite, bint transposed, bias, y,
           int y_code, residual, int activation, bint channels_last, int threads):
    """y = activation(convolution(x, weight) + bias + residual), in passes that each write their phase of y.

    `in_place` holds, for every pass, None or the pass to run instead on an input that can be read as it lies. The
    weights are `packed` (with `finite` as `pack_weights` returned it) or, where that is None, packed on the way.
    `channels_last`: x, y, residual are (N, H, W, C) and weight (kH, kW, I, O), else (N, C, H, W) and (O, I, kH, kW).
    Raises MemoryError before anything is written.
    """
    cdef Arrays arrays = Arrays()
    cdef View vx, vy, vr, vp, vb, vw
    cdef DirectPass p, other
    cdef Direct* jobs = NULL
    cdef DirectPasses all_passes
    cdef char* scratch = NULL
    cdef size i, n, count = len(passes), tasks, panels = 0, macs = 0, scratch_bytes = 0
    try:
        arrays.activation(x, &vx, False, channels_last)
        arrays.activation(y, &vy, True, channels_last)
        arrays.weight(weight, &vw, channels_last)
        if residual is not None:
            arrays.activation(residual, &vr, False, channels_last)
        vp.p = vb.p = NULL
        if packed is not None:
            arrays.view(packed, &vp, False)
        if bias is not None:
            arrays.view(bias, &vb, False)
        if count == 0 or vy.n[0] * vy.n[1] * vy.n[2] * vy.n[3] == 0:
            return
        jobs = <Direct*>allocate(count * sizeof(Direct))
        n = 0
        for i in range(count):
            jobs[i].weights.offsets = NULL
        for i in range(count):
            p = passes[i]
            other = in_place[i]
            if other is not None and direct_usable(other.job.kernels, &vx, x_code):
                p = other
            jobs[i] = p.job
            jobs[i].x, jobs[i].x_code, jobs[i].y_code, jobs[i].activation = vx, x_code, y_code, activation
            jobs[i].full_y, jobs[i].full_x = vy.n[2], vy.n[3]
            jobs[i].bias = vb.p
            jobs[i].has_residual = residual is not None
            phase_view(&jobs[i].y, &vy, p.phase_y, p.phase_x, p.step_y, p.step_x)
            if jobs[i].has_residual:
                phase_view(&jobs[i].residual, &vr, p.phase_y, p.phase_x, p.step_y, p.step_x)
            bind_weights(&jobs[i].weights, jobs[i].kernels, &vw, w_code, vp.p, finite, jobs[i].groups, transposed,
                         jobs[i].taps_y, jobs[i].taps_x, p.numbers + jobs[i].taps_y + jobs[i].taps_x)
            n += jobs[i].size_y * jobs[i].size_x * jobs[i].taps_y * jobs[i].taps_x
            direct_scratch(&jobs[i])
            scratch_bytes = max(scratch_bytes, jobs[i].scratch_bytes)
        macs = vy.n[0] * vy.n[1] * jobs[0].channels * n
        tasks = 0
        for i in range(count):
            jobs[i].first_task, jobs[i].first_panel = tasks, panels
            panels += jobs[i].groups * jobs[i].panels
            tasks += direct_tiles(&jobs[i]) * jobs[i].panel_chunks
        threads = <int>team_for(threads if macs >= PARALLEL_FROM_MACS else 1, tasks, scratch_bytes)
        scratch = <char*>allocate(scratch_bytes * threads)
        for i in range(threads):
            (<HeldPanel*>(scratch + i * scratch_bytes)).number = -1
        all_passes.jobs, all_passes.count = jobs, count
        run_tasks(direct_any_task, &all_passes, scratch, scratch_bytes, tasks, threads)
    finally:
        fc_free(scratch)
        if jobs != NULL:
            for i in range(count):
                fc_free(jobs[i].weights.offsets)
        fc_free(jobs)
        arrays.release()


cdef inline size direct_tiles(const Direct* job) noexcept nogil:
    return (job.y.n[0] + job.images - 1) // job.images * job.tiles_y * job.tiles_x * job.groups


cdef void direct_any_task(void* passes, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Direct* jobs = (<DirectPasses*>passes).jobs
    cdef size i = (<DirectPasses*>passes).count - 1
    while jobs[i].first_task > task:
        i -= 1
    direct_task(jobs + i, scratch, task - jobs[i].first_task, watch)


cdef int direct_prepare(Direct* job, size rows, size columns, size panels_per_task) except -1:
    """Region geometry, reduction blocks and scratch size: everything that all tasks share."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size i, j, limit, run, runs, at, left, piece, filled, b
    cdef bint merged
    job.width = kernels.vectors * kernels.lanes
    job.long_ = is_long(kernels, job.taps_y * job.taps_x * job.channels)
    job.sum_block = block_terms(job.taps_y * job.taps_x, job.channels)
    if job.long_:
        job.kc = min(job.kc, job.sum_block)
    job.panels = (job.outputs + job.width - 1) // job.width
    job.panels_per_task = max(1, min(panels_per_task, job.panels))
    job.panel_chunks = (job.panels + job.panels_per_task - 1) // job.panels_per_task
    job.tiles_y = (job.size_y + job.tile_y - 1) // job.tile_y
    job.tiles_x = (job.size_x + job.tile_x - 1) // job.tile_x
    job.min_y = job.min_x = job.span_y = job.span_x = 0
    for i in range(job.taps_y):
        job.min_y = job.tap_y[i] if i == 0 else min(job.min_y, job.tap_y[i])
    for i in range(job.taps_x):
        job.min_x = job.tap_x[i] if i == 0 else min(job.min_x, job.tap_x[i])
    for i in range(job.taps_y):
        job.span_y = max(job.span_y, job.tap_y[i] - job.min_y + 1)
    for i in range(job.taps_x):
        job.span_x = max(job.span_x, job.tap_x[i] - job.min_x + 1)
    if job.mode == FC_ZEROS:   # taps that meet the input lie no farther apart
        job.span_y = min(job.span_y, rows + (job.tile_y - 1) * job.stride_y)
        job.span_x = min(job.span_x, columns + (job.tile_x - 1) * job.stride_x)
    # a single tap needs every stride-th row (column) alone
    job.row_step = job.stride_y if job.taps_y == 1 else 1
    job.column_step = job.stride_x if job.taps_x == 1 else 1
    job.step_y = job.stride_y // job.row_step
    job.step_x = job.stride_x // job.column_step
    job.region_columns = (job.tile_x - 1) * job.step_x + job.span_x
    # rows a power of two apart would share cache sets
    job.ld = job.channels
    if job.channels >= 64 and job.channels * kernels.size % 1024 == 0:
        job.ld += kernels.lanes
    merged = job.ld == job.channels
    for i in range(1, job.taps_x):
        merged = merged and job.tap_x[i] == job.tap_x[i - 1] + 1
    job.merged_taps = merged
    job.max_segments = 1
    if job.source == GATHER:
        job.blocks = 1
        job.max_segments = job.kc + 2
        job.region_bytes = job.tile_y * job.tile_x * job.kc * kernels.size
    else:
        runs = job.taps_y * (1 if merged else job.taps_x)
        run = job.channels * (job.taps_x if merged else 1)
        limit = runs * (run // job.kc + 2) + 1
        if job.long_:
            limit += runs * run // job.sum_block
        job.segments = <fc_segment*>allocate(limit * sizeof(fc_segment))
        job.block = <size*>allocate((limit + 1) * sizeof(size))
        job.max_segments = max(limit, job.taps_y * (1 if merged else job.taps_x))
        job.blocks = 0
        filled = job.kc
        b = 0
        at = 0
        for i in range(job.taps_y):
            for j in range(1 if merged else job.taps_x):
                left = run
                while left > 0:
                    if filled == job.kc or (job.long_ and at % job.sum_block == 0):
                        job.block[job.blocks] = b
                        job.blocks += 1
                        filled = 0
                    piece = min(left, job.kc - filled)
                    if job.long_:
                        piece = min(piece, job.sum_block - at % job.sum_block)
                    job.segments[b].a = region_offset(job, NULL, i, j) + (run - left)
                    job.segments[b].b = at
                    job.segments[b].k = piece
                    b += 1
                    at += piece
                    left -= piece
                    filled += piece
        if job.blocks == 0:   # nothing to sum: outputs are zeros plus bias
            job.block[0] = 0
            job.blocks = 1
        job.block[job.blocks] = b
        job.region_bytes = 0
        if job.source == REGION:
            job.region_bytes = job.images * image_region(job) * kernels.size
    job.region_bytes = round_up(job.region_bytes, 64)
    return 0


cdef inline size tile_pixels(const Direct* job) noexcept nogil:
    return job.images * job.tile_y * job.tile_x


cdef inline size image_region(const Direct* job) noexcept nogil:
    """Elements of the region under one image's part of a tile."""
    return ((job.tile_y - 1) * job.step_y + job.span_y) * job.region_columns * job.ld


cdef void direct_scratch(Direct* job) noexcept nogil:
    """Scratch of one thread: the panel that it packs, its region, the totals of long sums, its sums and offsets."""
    cdef const fc_kernels* kernels = job.kernels
    job.panel_bytes = 0
    if job.weights.packed == NULL:
        job.panel_bytes = round_up((job.kc if job.streams else job.taps_y * job.taps_x * job.channels)
                                   * min(job.width, round_up(job.outputs, kernels.lanes)) * kernels.size, 64)
    job.totals_bytes = totals_bytes(kernels, tile_pixels(job) * job.width) if job.long_ else 0
    job.scratch_bytes = (PANEL_AT + job.panel_bytes + job.region_bytes + job.totals_bytes
                         + round_up(tile_pixels(job) * job.width * kernels.size, 64)
                         + round_up(3 * tile_pixels(job) * sizeof(size), 64)
                         + round_up(job.max_segments * sizeof(fc_segment), 64))


cdef inline size region_offset(const Direct* job, const Met* met, size i, size j) noexcept nogil:
    """Element of tap (i, j) relative to its output pixel's origin in the region, of all taps or of those `met`."""
    if job.source == IN_PLACE:
        return 0
    return ((job.tap_y[i] - (job.min_y if met == NULL else met.min_y)) * job.region_columns
            + job.tap_x[j] - (job.min_x if met == NULL else met.min_x)) * job.ld


cdef bint taps_met(const size* tap, size taps, size stride, size first, size count, size extent, size* begin,
                   size* end, size* least, size* span) noexcept nogil:
    """The taps between the first and the last that meet an input of `extent` from one of `count` outputs; whether those
    are all."""
    cdef size i, low = -(first + count - 1) * stride, high = extent - 1 - first * stride, most
    begin[0], end[0] = 0, taps
    while begin[0] < end[0] and not low <= tap[begin[0]] <= high:
        begin[0] += 1
    while end[0] > begin[0] and not low <= tap[end[0] - 1] <= high:
        end[0] -= 1
    least[0], most = 0, -1
    if begin[0] < end[0]:
        least[0] = most = tap[begin[0]]
    for i in range(begin[0], end[0]):
        least[0], most = min(least[0], tap[i]), max(most, tap[i])
    span[0] = most - least[0] + 1
    return end[0] - begin[0] == taps


cdef void direct_met(const Direct* job, size oy, size ox, size rows, size columns, Met* met) noexcept nogil:
    cdef bint all_y, all_x
    if job.mode == FC_ZEROS and job.source != IN_PLACE:
        all_y = taps_met(job.tap_y, job.taps_y, job.stride_y, oy, rows, job.x.n[2], &met.first_y, &met.last_y,
                         &met.min_y, &met.span_y)
        all_x = taps_met(job.tap_x, job.taps_x, job.stride_x, ox, columns, job.x.n[3], &met.first_x, &met.last_x,
                         &met.min_x, &met.span_x)
        met.all = all_y and all_x
        return
    met.first_y, met.last_y, met.first_x, met.last_x = 0, job.taps_y, 0, job.taps_x
    met.min_y, met.min_x, met.span_y, met.span_x = job.min_y, job.min_x, job.span_y, job.span_x
    met.all = True


cdef const char* direct_panel(const Direct* job, char* scratch, size group, size panel, bint* finite) noexcept nogil:
    """The packed weights of one panel, and whether all are finite."""
    cdef HeldPanel* held = <HeldPanel*>scratch
    if job.weights.packed != NULL:
        finite[0] = job.weights.finite
        return packed_panel(&job.weights, group, panel)
    if job.streams:
        finite[0] = True
        return scratch + PANEL_AT
    cdef size number = job.first_panel + group * job.panels + panel
    if held.number != number:
        held.number = number
        held.finite = pack_panel(&job.weights, group, panel, 0, job.channels, scratch + PANEL_AT) != 0
    finite[0] = held.finite
    return scratch + PANEL_AT


cdef void direct_task(const Direct* job, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef size chunk = task // direct_tiles(job)
    cdef size group, image, images, oy, ox, rows, columns, pixels, m, r, panel, last, first, count, vectors, width
    cdef size i, laid, laid_before = 0
    cdef Met met
    cdef char* region = scratch + PANEL_AT + job.panel_bytes
    cdef char* totals = region + job.region_bytes
    cdef char* temporary = totals + job.totals_bytes
    cdef size* a_row
    cdef size* c_row
    cdef size* residual_row
    cdef fc_segment* spare
    cdef const char* a
    cdef const char* b
    cdef const char* bias
    cdef const char* residual
    cdef const char* add
    cdef char* to
    cdef char* c
    cdef Ends ends
    cdef bint in_output, skip, finite = True
    a_row = <size*>(temporary + round_up(tile_pixels(job) * job.width * kernels.size, 64))
    c_row = a_row + tile_pixels(job)
    residual_row = c_row + tile_pixels(job)
    spare = <fc_segment*>(<char*>a_row + round_up(3 * tile_pixels(job) * sizeof(size), 64))
    task = task % direct_tiles(job)
    ox = task % job.tiles_x * job.tile_x
    task = task // job.tiles_x
    oy = task % job.tiles_y * job.tile_y
    task = task // job.tiles_y
    group = task % job.groups
    image = task // job.groups * job.images
    images = min(job.images, job.y.n[0] - image)
    rows = min(job.tile_y, job.y.n[2] - oy)
    columns = min(job.tile_x, job.y.n[3] - ox)
    pixels = images * rows * columns
    direct_met(job, oy, ox, rows, columns, &met)

    a = region
    if job.source == REGION:
        for m in range(images if met.span_y > 0 and met.span_x > 0 and job.channels > 0 else 0):
            pack_region(kernels, job.x_code, &job.x, image + m, group * job.channels, job.channels,
                        oy * job.stride_y + met.min_y, job.row_step, (rows - 1) * job.step_y + met.span_y,
                        ox * job.stride_x + met.min_x, job.column_step, (columns - 1) * job.step_x + met.span_x,
                        job.region_columns, job.mode, job.ld, region + m * image_region(job) * kernels.size)
        lay_out_images(a_row, images, image_region(job), rows, columns, job.step_y * job.region_columns * job.ld,
                       job.step_x * job.ld)
    elif job.source == IN_PLACE:
        a = job.x.p + image * job.x.s[0] + group * job.channels * job.x.s[1] \
            + (oy * job.stride_y + job.min_y) * job.x.s[2] + (ox * job.stride_x + job.min_x) * job.x.s[3]
        lay_out_images(a_row, images, job.x.s[0] // kernels.size, rows, columns,
                       job.stride_y * job.x.s[2] // kernels.size, job.stride_x * job.x.s[3] // kernels.size)
    else:
        lay_out(a_row, 1, pixels, 0, job.kc)

    last = min((chunk + 1) * job.panels_per_task, job.panels)
    for panel in range(chunk * job.panels_per_task, last):
        if panel > chunk * job.panels_per_task and fc_interrupted(watch):
            return
        first = panel * job.width
        count = min(job.width, job.outputs - first)
        vectors = (count + kernels.lanes - 1) // kernels.lanes
        width = vectors * kernels.lanes
        b = direct_panel(job, scratch, group, panel, &finite)
        skip = not finite and job.mode == FC_ZEROS
        first += group * job.outputs
        to = job.y.p + image * job.y.s[0] + first * job.y.s[1] + oy * job.y.s[2] + ox * job.y.s[3]
        residual = NULL
        if job.has_residual:
            residual = (job.residual.p + image * job.residual.s[0] + first * job.residual.s[1]
                        + oy * job.residual.s[2] + ox * job.residual.s[3])
        # a full panel of a channels-last output of the computing type is summed where it will lie
        in_output = (width == count and job.merged == job.outputs and job.y_code == kernels.sum and not job.long_
                     and in_elements(&job.y, to, kernels.size)
                     and (residual == NULL or in_elements(&job.residual, residual, kernels.size))
                     and (images == 1 or (job.y.s[0] % kernels.size == 0
                                          and (residual == NULL or job.residual.s[0] % kernels.size == 0))))
        c = to if in_output else temporary
        laid = -1 if in_output else width
        if panel == chunk * job.panels_per_task or laid != laid_before:  # else as the last panel's did
            laid_before = laid
            if in_output:
                lay_out_images(c_row, images, job.y.s[0] // kernels.size, rows, columns, job.y.s[2] // kernels.size,
                               job.y.s[3] // kernels.size)
                if residual != NULL:
                    lay_out_images(residual_row, images, job.residual.s[0] // kernels.size, rows, columns,
                                   job.residual.s[2] // kernels.size, job.residual.s[3] // kernels.size)
            else:
                lay_out(c_row, 1, pixels, 0, width)
        bias = job.bias + first * kernels.size if job.bias != NULL else NULL
        ends.bias = ends.residual = NULL
        ends.residual_row, ends.relu = residual_row, in_output and job.activation == RELU
        if in_output:
            ends.bias, ends.residual = bias, residual
        if job.source == GATHER:
            direct_gather(job, &met, panel, region, b, vectors, width, image, group, oy, ox, columns, pixels, a_row, c,
                          c_row, &ends, skip, spare, totals, watch)
        elif skip:
            direct_skip(job, &met, a, b, vectors, width, oy, ox, rows, columns, pixels, a_row, c, c_row, &ends, spare,
                        totals)
        elif not met.all or streamed(job) or job.long_:
            direct_some_taps(job, &met, group, panel, a, b, vectors, width, pixels, a_row, c, c_row, &ends, spare,
                             totals)
        else:
            for i in range(job.blocks):
                direct_block(kernels, a, a_row, b, vectors, width, job.segments + job.block[i],
                             job.block[i + 1] - job.block[i], pixels, c, c_row, &ends, i == 0, i == job.blocks - 1)
        if in_output and (job.activation == LINEAR or job.activation == RELU):
            continue
        if job.merged < job.outputs:
            for m in range(images):
                direct_spread(job, temporary + m * rows * columns * width * kernels.size, width, oy, ox, rows, columns,
                              to + m * job.y.s[0])
            continue
        if in_output:
            bias = residual = NULL
        for m in range(images):
            for r in range(rows):
                add = residual
                if residual != NULL:
                    add += m * job.residual.s[0] + r * job.residual.s[2]
                kernels.store[job.y_code](
                    c + c_row[(m * rows + r) * columns] * kernels.size,
                    job.y.s[3] // kernels.size if in_output else width, columns, count,
                    to + m * job.y.s[0] + r * job.y.s[2], job.y.s[3], job.y.s[1], bias, job.activation, add,
                    job.residual.s[3] if job.has_residual else 0, job.residual.s[1] if job.has_residual else 0)


cdef void direct_spread(const Direct* job, const char* c, size width, size oy, size ox, size rows, size columns,
                        char* to) noexcept nogil:
    """The sums of merged phases, side by side in a panel, to their pixels of y: the last may lie outside."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size a, b, r, own_rows, own_columns, row_step = job.y.s[2] // job.merge_y, column_step
    column_step = job.y.s[3] // job.merge_x
    for a in range(job.merge_y):
        own_rows = min(rows, (job.full_y - a + job.merge_y - 1) // job.merge_y - oy)
        for b in range(job.merge_x):
            own_columns = min(columns, (job.full_x - b + job.merge_x - 1) // job.merge_x - ox)
            for r in range(own_rows if own_columns > 0 else 0):
                kernels.store[job.y_code](
                    c + (r * columns * width + (a * job.merge_x + b) * job.merged) * kernels.size, width, own_columns,
                    job.merged, to + a * row_step + b * column_step + r * job.y.s[2], job.y.s[3], job.y.s[1], job.bias,
                    job.activation, NULL, 0, 0)


cdef inline bint streamed(const Direct* job) noexcept nogil:
    return job.streams and job.weights.packed == NULL


cdef const char* direct_steps(const Direct* job, size group, size panel, const char* b, size first, size last,
                              size width) noexcept nogil:
    """Where step 0 of a panel would lie if it were packed whole: what streams packs the steps from `first` to `last` - 1
    into b."""
    if not streamed(job):
        return b
    pack_steps(&job.weights, group, panel, first, last, <char*>b)
    return b - first * width * job.kernels.size


cdef inline size block_end(const Direct* job, size at) noexcept nogil:
    """The step behind the block of the reduction that a step is in: of kc, within those whose sums are made apart."""
    cdef size sum_first = at - at % job.sum_block if job.long_ else 0
    cdef size end = sum_first + ((at - sum_first) // job.kc + 1) * job.kc
    return min(end, sum_first + job.sum_block) if job.long_ else end


cdef void direct_some_taps(const Direct* job, const Met* met, size group, size panel, const char* a, const char* b,
                           size vectors, size width, size pixels, const size* a_row, char* c, const size* c_row,
                           const Ends* ends, fc_segment* spare, char* totals) noexcept nogil:
    """The blocks of the reduction without the taps that meet padding alone; they begin at the same steps. The sums of
    those of a long one, from zero and side by side in c, are added up apart."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size i, j, left, at, piece, first, run, n = 0, end = 0
    cdef bint begun = False
    cdef const char* steps
    cdef size taps = 1 if job.merged_taps and met.last_x > met.first_x else met.last_x - met.first_x
    run = job.channels * ((met.last_x - met.first_x) if job.merged_taps else 1)
    if job.long_:
        memset(totals, 0, totals_bytes(kernels, pixels * width))
    for i in range(met.first_y, met.last_y):
        for j in range(met.first_x, met.first_x + taps):
            first = (i * job.taps_x + j) * job.channels
            left = run
            while left > 0:
                at = first + run - left
                if n and at >= end:
                    steps = direct_steps(job, group, panel, b, spare[0].b, spare[n - 1].b + spare[n - 1].k, width)
                    direct_block(kernels, a, a_row, steps, vectors, width, spare, n, pixels, c, c_row, ends, not begun,
                                 False)
                    begun = True
                    if job.long_ and at // job.sum_block != spare[0].b // job.sum_block:
                        kernels.total_add(totals, c, pixels * width)
                        begun = False
                    n = 0
                end = block_end(job, at)
                piece = min(left, end - at)
                spare[n].a = region_offset(job, met, i, j) + (run - left)
                spare[n].b = at
                spare[n].k = piece
                n += 1
                left -= piece
    steps = b
    if n:
        steps = direct_steps(job, group, panel, b, spare[0].b, spare[n - 1].b + spare[n - 1].k, width)
    direct_block(kernels, a, a_row, steps, vectors, width, spare, n, pixels, c, c_row, ends, not begun, not job.long_)
    if job.long_:
        kernels.total_add(totals, c, pixels * width)
        kernels.total_end(c, totals, pixels * width)


cdef void direct_skip(const Direct* job, const Met* met, const char* a, const char* b, size vectors, size width,
                      size oy, size ox, size rows, size columns, size pixels, const size* a_row, char* c,
                      const size* c_row, const Ends* ends, fc_segment* spare, char* totals) noexcept nogil:
    """Weights that are NaN or infinite must not meet the zeros of the padding: pixel by pixel, real taps alone."""
    cdef size p, i, j, iy, ix, n, left, at, piece, from_
    cdef Ends own = ends[0]
    for p in range(pixels):
        own.residual_row = ends.residual_row + p
        n = 0
        if job.long_:
            memset(totals, 0, totals_bytes(job.kernels, width))
        for i in range(job.taps_y):
            iy = (oy + p // columns % rows) * job.stride_y + job.tap_y[i]
            if iy < 0 or iy >= job.x.n[2]:
                continue
            for j in range(job.taps_x):
                ix = (ox + p % columns) * job.stride_x + job.tap_x[j]
                if ix < 0 or ix >= job.x.n[3]:
                    continue
                left, at = job.channels, (i * job.taps_x + j) * job.channels
                while left > 0:
                    if job.long_ and n > 0 and spare[0].b // job.sum_block != at // job.sum_block:  # it is complete
                        direct_block(job.kernels, a, a_row + p, b, vectors, width, spare, n, 1, c, c_row + p, &own,
                                     True, False)
                        job.kernels.total_add(totals, c + c_row[p] * job.kernels.size, width)
                        n = 0
                    piece = min(left, job.sum_block - at % job.sum_block) if job.long_ else left
                    from_ = region_offset(job, met, i, j) + job.channels - left
                    if n > 0 and spare[n - 1].b + spare[n - 1].k == at and spare[n - 1].a + spare[n - 1].k == from_:
                        spare[n - 1].k += piece
                    else:
                        spare[n].a = from_
                        spare[n].b = at
                        spare[n].k = piece
                        n += 1
                    at += piece
                    left -= piece
        direct_block(job.kernels, a, a_row + p, b, vectors, width, spare, n, 1, c, c_row + p, &own, True,
                     True)
        if job.long_:
            job.kernels.total_add(totals, c + c_row[p] * job.kernels.size, width)
            job.kernels.total_end(c + c_row[p] * job.kernels.size, totals, width)


cdef void direct_gather(const Direct* job, const Met* met, size panel, char* region, const char* b, size vectors,
                        size width, size image, size group, size oy, size ox, size columns, size pixels,
                        const size* a_row, char* c, const size* c_row, const Ends* ends, bint skip, fc_segment* spare,
                        char* totals,
                        fc_watch* watch) noexcept nogil:
    """The reduction in chunks of kc steps, gathered pixel by pixel: bounded memory for windows of any size."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size k0 = met.first_y * job.taps_x * job.channels, total = met.last_y * job.taps_x * job.channels
    cdef size k1, k, tap, channel, n, iy, ix, p, at, segments
    cdef bint begun = False
    cdef char* dst
    cdef Ends own = ends[0]
    cdef bint first, last, some = False
    if job.long_:
        memset(totals, 0, totals_bytes(kernels, pixels * width))
    while (k0 < total or not some) and not fc_interrupted(watch):
        k1 = min(total, block_end(job, k0))
        first, last, some = not begun, k1 == total and not job.long_, True
        for p in range(pixels):
            segments = 0
            k = k0
            while k < k1:
                tap = k // job.channels
                channel = k % job.channels
                n = min(job.channels - channel, k1 - k)
                at = k - k0
                iy = padded_index((oy + p // columns) * job.stride_y + job.tap_y[tap // job.taps_x], job.x.n[2],
                                  job.mode)
                ix = padded_index((ox + p % columns) * job.stride_x + job.tap_x[tap % job.taps_x], job.x.n[3],
                                  job.mode)
                dst = region + (p * job.kc + at) * kernels.size
                if iy >= 0 and ix >= 0:
                    kernels.pack[job.x_code](dst, n, 1, n, job.x.p + image * job.x.s[0]
                                             + (group * job.channels + channel) * job.x.s[1] + iy * job.x.s[2]
                                             + ix * job.x.s[3], 0, job.x.s[1])
                    if skip:
                        spare[segments].a = at
                        spare[segments].b = k
                        spare[segments].k = n
                        segments += 1
                elif not skip:
                    memset(dst, 0, n * kernels.size)
                k += n
            if skip:
                own.residual_row = ends.residual_row + p
                direct_block(kernels, region, a_row + p, b, vectors, width, spare, segments, 1, c, c_row + p, &own,
                             first, last)
        if not skip:
            spare[0].a = 0
            spare[0].b = k0
            spare[0].k = k1 - k0
            direct_block(kernels, region, a_row, direct_steps(job, group, panel, b, k0, k1, width), vectors, width, spare,
                         1, pixels, c, c_row, ends, first, last)
        begun = True
        if job.long_ and (k1 == total or k1 % job.sum_block == 0):
            kernels.total_add(totals, c, pixels * width)
            begun = False
        k0 = k1
    if job.long_:
        kernels.total_end(c, totals, pixels * width)
