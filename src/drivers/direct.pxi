# Direct convolution (after Zhang, Franchetti, Low, "High Performance Zero-Memory Overhead Direct Convolutions", ICML
# 2018, and the five loops of BLIS). One pass serves the forward convolution, each phase of the input gradient and of
# the transposed convolution, and each phase of the tiled one: they differ in tap offsets and strides alone.
#
#   for tile of output pixels x group x run of panels      threads take these      region: second-level cache
#     leave out the planes, rows and columns of taps that meet padding alone
#     pack the region of the input under the tile
#     for panel of output channels                         packed by a plan, or now (drivers/weights.pxi)
#       for block of the reduction (taps, channels)        kc x width weights      first-level cache
#         for rows of the register tile                    micro-kernel            registers
#       epilogue: bias, residual, activation, layout, element type
#
# There are three axes, planes, rows and columns (z, y, x), of size 1 where an array has fewer. Every output is one sum in
# the order (tap z, tap y, tap x, channel), whatever the blocking, the threads and the batch; a long one is made of sums
# of `sum_block` terms each (drivers/totals.pxi). A tile may span several small images: its pixels are rows of the same
# register tiles.

cdef enum:
    IN_PLACE = 0   # one tap, no padding, channels side by side: the input is the region
    REGION = 1
    GATHER = 2     # enormous windows: pixels x kc elements at a time

cdef struct DirectPass:                        # what is counted along an axis: [z, y, x]
    const fc_kernels* kernels
    View x, y, residual
    Weights weights
    int x_code, y_code, activation, mode, source
    bint has_residual
    bint streams                               # weights not packed before are packed block by block
    bint long_                                 # sums are made in blocks of so many terms
    size sum_block
    size groups, channels, outputs             # of one group: reduction and output channels
    size steps                                 # of the reduction that the channels of a tap take: whole tiles along k
    size extent[3]                             # outputs of this pass
    size phase[3]                              # where they lie in y: from here on,
    size apart[3]                              # every so many-th
    size merge[3]                              # phases that lie beside each other in the panel,
    size merged                                # outputs of each
    size full[3]                               # of y, which merged phases share
    size first_task, first_panel               # counted over all passes
    size stride[3]
    size taps[3]
    size* tap[3]                               # offset of every tap from output * stride
    size* places                               # of the kernel: planes, then rows, then columns that the taps belong to
    size low[3]                                # the least tap
    size span[3]
    const char* bias
    const fc_requantise* requantise            # how sums of integers become bytes of y, with multipliers as the bias; or NULL
    const float* multiplier
    size images                                # of a tile
    size tile[3]                               # the largest
    size tiles[3]
    size* edge[3]                              # where each begins, and where the last one ends
    size* order                                # numbers of the tiles of an image, the longest first: whoever is done first
                                               # takes a short one last; NULL where all are as long
    size kc
    size panels, panels_per_task, panel_chunks, width
    size pick[3]                               # region geometry: every so many-th of the input is in it,
    size step[3]                               # so many apart lie the origins of outputs,
    size reach[3]                              # inputs under a tile at most
    size region_rows, region_columns, ld       # rows of a plane, pixels of a row, elements of a pixel
    fc_segment* segments
    size* block                                # first segment of every reduction block
    size blocks
    bint merged_taps                           # the taps of a row and their channels are one run
    size panel_bytes, region_bytes, totals_bytes, scratch_bytes, max_segments


cdef struct DirectRun:
    DirectPass* passes
    size count


cdef struct HeldPanel:
    size number     # of the panel in a thread's scratch, counted over all passes and groups; -1 at first
    bint finite


cdef struct Met:               # taps of a tile that meet the input, first .. last - 1, and where their region begins
    size first[3]
    size last[3]
    size low[3]
    size span[3]
    bint all


cdef struct Tile:
    size group, image, images
    size first[3]              # output
    size shape[3]              # planes, rows and columns of an image
    size pixels                # of all images


cdef enum:
    PANEL_AT = 64    # bytes of a thread's scratch before its panel: HeldPanel


cdef class Direct(Program):
    """A convolution as passes of the direct driver, which each write their phase of the output.

    Direct(codes, extent, passes, blockings, in_place, transposed), of which it reads

    codes       `compute`, `input`, `weight`, `result`
    extent      `groups`, `channels` and `outputs` of one group (the reduction, and the width of the panels), `size` of the
                output (z, y, x), `input_size` (z, y, x), `mode` of the padding, `terms` of a sum where others are zeros,
                whether the scratch is `capped`
    passes      the output (i, j, k) of a pass sums x[.., i*stride[0] + taps[0][a], j*stride[1] + taps[1][b], ...] over its
                `taps`, which are the `places` of the kernel, and lies at `phase` + (i, j, k) * `step` of y. `merge`
                phases (z, y, x) share a pass: outputs [phase z][phase y][phase x][channel] of one panel, each at its own
                pixel of y
    blockings   of every pass: `source`, `images` and `tile` (z, y, x) that a task takes at most, `edges` of the tiles
                along each axis (None: all are as large as can be), steps of a block of the `reduction`, `panels_per_task`, and whether it `streams`: packs the weights of a single run, all of them
                finite, for a block of the reduction at a time
    in_place    for every pass None or, where its one tap lies inside the input, the blocking to take instead where the
                array can be read as it lies
    transposed  the weights' first axis is the reduction
    """
    cdef DirectPass* passes         # zeros at first, as every C attribute: what was not allocated is freed as NULL
    cdef DirectPass* alternatives   # that read the input in place; without kernels where there is none
    cdef size count
    cdef bint transposed, capped
    cdef object made_of

    def __init__(self, codes, extent, passes, blockings, in_place, bint transposed):
        cdef size i
        self.compute_with(codes)
        self.made_of = codes, extent, tuple(passes), tuple(blockings), tuple(in_place)
        self.transposed, self.capped = transposed, extent.capped
        self.count = len(passes)
        self.passes = <DirectPass*>allocate(2 * max(1, self.count) * sizeof(DirectPass))
        memset(self.passes, 0, 2 * self.count * sizeof(DirectPass))
        self.alternatives = self.passes + self.count
        for i in range(self.count):
            self.resolve(&self.passes[i], extent, passes[i], blockings[i])
            if in_place[i] is not None:
                self.resolve(&self.alternatives[i], extent, passes[i], in_place[i])

    cdef int resolve(self, DirectPass* p, extent, pass_, blocking) except -1:
        """Every number of one pass."""
        cdef size input_size[3]
        cdef int axis
        p.kernels, p.x_code, p.y_code = self.kernels, self.input, self.result
        p.groups, p.channels, p.outputs, p.mode = extent.groups, extent.channels, extent.outputs, extent.mode
        p.steps = round_up(p.channels, self.kernels.tile_k)
        three(extent.size, p.full)
        three(extent.input_size, input_size)
        three(pass_.stride, p.stride)
        three(pass_.phase, p.phase)
        three(pass_.step, p.apart)
        three(pass_.merge, p.merge)
        p.merged = p.outputs // (p.merge[0] * p.merge[1] * p.merge[2])
        taps = len(pass_.taps[0]) * len(pass_.taps[1]) * len(pass_.taps[2])
        p.long_ = is_long(p.kernels, taps * p.channels if extent.terms is None else extent.terms)
        for axis in range(3):
            p.extent[axis] = max(0, (p.full[axis] - p.phase[axis] + p.apart[axis] - 1) // p.apart[axis])
        direct_taps(p, pass_.taps, pass_.places)
        p.source, p.images, p.streams, p.kc = blocking.source, blocking.images, blocking.streams, blocking.reduction
        three(blocking.tile, p.tile)
        direct_edges(p, blocking.edges)
        return direct_prepare(p, input_size, blocking.panels_per_task)

    def alone(self, size i):
        """The program of pass i alone."""
        codes, extent, passes, blockings, in_place = self.made_of
        return Direct(codes, extent, passes[i : i + 1], blockings[i : i + 1], in_place[i : i + 1], self.transposed)

    cdef const DirectPass* chosen(self, size i, bint lies) noexcept:
        return &self.alternatives[i] if lies and self.alternatives[i].kernels != NULL else &self.passes[i]

    def blocking(self, size i=0, bint lies=False):
        """Of pass i: (source, images of a tile, edges of the tiles (z, y, x), reduction steps of a block, tasks of so many
        images).

        `lies`: of an input that may be read in place.
        """
        cdef const DirectPass* p = self.chosen(i, lies)
        cdef size k
        cdef int axis
        tasks = p.tiles[0] * p.tiles[1] * p.tiles[2] * p.groups * p.panel_chunks
        edges = tuple([tuple([p.edge[axis][k] for k in range(p.tiles[axis] + 1)]) for axis in range(3)])
        return p.source, p.images, edges, p.kc, tasks

    cpdef bint planes(self):
        """Whether arrays in which the pixels of a channel lie side by side may be read and written as they lie."""
        return (self.count == 1 and not self.capped and self.alternatives[0].kernels != NULL
                and planes_fit(self.passes))

    def shape(self, size i=0):
        """Planes, rows and columns of the outputs that pass i makes."""
        return self.passes[i].extent[0], self.passes[i].extent[1], self.passes[i].extent[2]

    def streams(self):
        """Whether the weights of a single run are packed block by block in every pass."""
        cdef size i
        for i in range(self.count):
            if not self.passes[i].streams:
                return False
        return self.count > 0

    def scratch_bytes(self, bint packed, bint lies=False):
        """Scratch of one thread: with weights packed before, or with room for a panel that it packs."""
        cdef DirectPass p
        cdef size i, most = 0
        for i in range(self.count):
            p = self.chosen(i, lies)[0]
            p.weights.packed = <const char*>p.places if packed else NULL  # whether there are any is all that counts
            direct_scratch(&p)
            most = max(most, p.scratch_bytes)
        return max(most, planes_scratch(self.passes)) if self.planes() and not lies else most

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """The weights are `packed` (`panels` and `finite` of `pack_weights`; of several passes, one a pass) or, where that
        is None, packed on the way."""
        cdef Work work = Work()
        cdef View vx, vy, vr, vb, vw, vm
        cdef DirectRun* run
        cdef fc_requantise* requantise = NULL
        cdef DirectPass* p
        cdef size i, count = self.count
        work.activation(x, &vx, False, channels_last)
        work.activation(y, &vy, True, channels_last)
        work.weight(weight, &vw, channels_last)
        if residual is not None:
            work.activation(residual, &vr, False, channels_last)
        vb.p = vm.p = NULL
        if hasattr(bias, "multiplier"):
            requantise = direct_requantise(work, bias, self.result)
            work.view(bias.multiplier, &vm, False)
            bias = bias.shift
        if bias is not None:
            work.view(bias, &vb, False)
        if count == 0 or elements(&vy) == 0:
            return work
        work.keep = self
        run = <DirectRun*>work.own(sizeof(DirectRun) + count * sizeof(DirectPass))
        run.passes, run.count = <DirectPass*>(run + 1), count
        for i in range(count):
            p = &run.passes[i]
            p[0] = self.chosen(i, direct_usable(self.kernels, &vx, self.input, self.passes[i].groups))[0]
            p.x, p.activation, p.bias = vx, activation, vb.p
            p.requantise, p.multiplier = requantise, <const float*>vm.p
            if p.merge[2] > 1 and vb.p != NULL:
                p.bias = direct_bias_beside(work, p, vb.p)
            p.has_residual = residual is not None
            direct_phase(p, &p.y, &vy)
            work.place(&p.x.p)
            work.place(&p.y.p)
            if p.has_residual:
                direct_phase(p, &p.residual, &vr)
                work.place(&p.residual.p)
            self.bind_pass(p, &vw, packed, i, work)
        if self.planes() and planes_usable(run.passes):
            planes_work(work, run.passes, threads)
        else:
            direct_work(work, run, threads)
        return work

    cdef int bind_pass(self, DirectPass* p, const View* weight, packed, size i, Work work) except -1:
        """The weights of pass i."""
        cdef View panels
        cdef Arrays own = work
        cdef bint finite = True
        panels.p = NULL
        if packed is None:
            work.fixed = True
        else:
            if not hasattr(packed, "panels"):
                packed, own = packed[i], Arrays()
                work.keep = work.keep, own
            own.view(packed.panels, &panels, False)
            finite = packed.finite
        return bind_weights(work, &p.weights, p.kernels, weight, self.weight, panels.p, finite, p.groups, self.transposed,
                            p.taps, p.places)

    def __dealloc__(self):
        cdef size i
        if self.passes != NULL:
            for i in range(2 * self.count):
                fc_free(self.passes[i].tap[0])
                fc_free(self.passes[i].edge[0])
                fc_free(self.passes[i].segments)
                fc_free(self.passes[i].block)
        fc_free(self.passes)


cdef fc_requantise* direct_requantise(Work work, how, int result) except NULL:
    """How sums become bytes, in the memory of a work: `zero`, `low` and `high` of the result, and whether `wide`."""
    cdef fc_requantise* own = <fc_requantise*>work.own(sizeof(fc_requantise))
    own.zero, own.low, own.high, own.is_signed = how.zero, how.low, how.high, result == FC_I8
    own.wide = how.wide
    return own


cdef char* direct_bias_beside(Work work, const DirectPass* p, const char* bias) except NULL:
    """The bias once for each phase of a row, in the memory of a work."""
    cdef size g, bytes = p.merged * p.kernels.size
    cdef char* own = <char*>work.own(p.merge[2] * bytes)
    for g in range(p.merge[2]):
        memcpy(own + g * bytes, bias, bytes)
    return own


cdef int direct_taps(DirectPass* p, taps, places) except -1:
    """The offsets of the taps along each axis, then the planes, rows and columns of the kernel, in one allocation."""
    cdef size i = 0
    cdef int axis
    for axis in range(3):
        p.taps[axis] = len(taps[axis])
    p.tap[0] = <size*>allocate(2 * (p.taps[0] + p.taps[1] + p.taps[2]) * sizeof(size))
    p.tap[1] = p.tap[0] + p.taps[0]
    p.tap[2] = p.tap[1] + p.taps[1]
    p.places = p.tap[2] + p.taps[2]
    for numbers in (*taps, *places):
        for number in numbers:
            p.tap[0][i] = number
            i += 1
    return 0


cdef int direct_edges(DirectPass* p, edges) except -1:
    """Where the tiles of each axis begin, and where the last one ends, then their order, in one allocation."""
    cdef size count = 0, k
    cdef int axis
    for axis in range(3):
        p.tiles[axis] = len(edges[axis]) - 1 if edges is not None else (p.extent[axis] + p.tile[axis] - 1) // p.tile[axis]
        count += p.tiles[axis] + 1
    p.edge[0] = <size*>allocate((count + (volume(p.tiles) if edges is not None else 0)) * sizeof(size))
    for axis in range(3):
        if axis > 0:
            p.edge[axis] = p.edge[axis - 1] + p.tiles[axis - 1] + 1
        for k in range(p.tiles[axis] + 1):
            p.edge[axis][k] = edges[axis][k] if edges is not None else min(k * p.tile[axis], p.extent[axis])
    p.order = NULL
    if edges is not None:
        p.order = p.edge[0] + count
        sizes = [[edge[i + 1] - edge[i] for i in range(len(edge) - 1)] for edge in edges]
        pixels = [z * y * x for z in sizes[0] for y in sizes[1] for x in sizes[2]]
        for k, number in enumerate(sorted(range(len(pixels)), key=pixels.__getitem__, reverse=True)):
            p.order[k] = number
    return 0


cdef void direct_phase(const DirectPass* p, View* out, const View* array) noexcept nogil:
    phase_view(out, array, p.phase[1], p.phase[2], p.apart[1], p.apart[2], p.phase[0], p.apart[0])


cdef bint direct_usable(const fc_kernels* kernels, const View* x, int code, size groups) noexcept nogil:
    """Whether a pass that reads the input in place can read this array."""
    cdef size unit = kernels.input_size
    return (code == kernels.input and x.n[1] // groups % kernels.tile_k == 0 and (x.n[1] == 1 or x.s[1] == unit) and x.s[0] % unit == 0
            and x.s[2] % unit == 0 and x.s[3] % unit == 0 and x.s[4] % unit == 0 and <size>x.p % unit == 0)


cdef int direct_work(Work work, DirectRun* run, int threads) except -1:
    """All passes as one list of tasks."""
    cdef DirectPass* passes = run.passes
    cdef size i, products = 0, panels = 0, pixels
    for i in range(run.count):
        products += volume(passes[i].extent) * volume(passes[i].taps)
        direct_scratch(&passes[i])
        work.scratch_bytes = max(work.scratch_bytes, passes[i].scratch_bytes)
        passes[i].first_task, passes[i].first_panel = work.tasks, panels
        panels += passes[i].groups * passes[i].panels
        work.tasks += direct_tiles(&passes[i]) * passes[i].panel_chunks
    pixels = passes[0].y.n[0] * volume(passes[0].extent)
    products = worth_of(products * passes[0].y.n[0] * passes[0].y.n[1] * passes[0].channels, pixels)
    work.task, work.begin, work.job = direct_any_task, direct_begin, run
    return work.team(threads if products >= PARALLEL_FROM_MACS else 1)


cdef void direct_begin(void* run, char* scratch, size scratch_bytes, int threads) noexcept nogil:
    cdef int i
    for i in range(threads):
        (<HeldPanel*>(scratch + i * scratch_bytes)).number = -1


cdef inline size direct_tiles(const DirectPass* p) noexcept nogil:
    return (p.y.n[0] + p.images - 1) // p.images * volume(p.tiles) * p.groups


cdef void direct_any_task(void* run, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const DirectPass* passes = (<DirectRun*>run).passes
    cdef size i = (<DirectRun*>run).count - 1
    while passes[i].first_task > task:
        i -= 1
    direct_task(passes + i, scratch, task - passes[i].first_task, watch)


cdef int direct_prepare(DirectPass* p, const size* input_size, size panels_per_task) except -1:
    """Region geometry, reduction blocks and scratch size: everything that all tasks share."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size i
    cdef int axis
    p.width = kernels.vectors * kernels.lanes
    p.sum_block = block_terms(volume(p.taps), p.channels)
    if p.long_:
        p.kc = min(p.kc, p.sum_block)
    p.kc -= p.kc % kernels.tile_k
    p.panels = (p.outputs + p.width - 1) // p.width
    p.panels_per_task = max(1, min(panels_per_task, p.panels))
    p.panel_chunks = (p.panels + p.panels_per_task - 1) // p.panels_per_task
    for axis in range(3):
        p.low[axis] = p.span[axis] = 0
        for i in range(p.taps[axis]):
            p.low[axis] = p.tap[axis][i] if i == 0 else min(p.low[axis], p.tap[axis][i])
        for i in range(p.taps[axis]):
            p.span[axis] = max(p.span[axis], p.tap[axis][i] - p.low[axis] + 1)
        if p.mode == FC_ZEROS:   # taps that meet the input lie no farther apart
            p.span[axis] = min(p.span[axis], input_size[axis] + (p.tile[axis] - 1) * p.stride[axis])
        # a single tap needs every stride-th plane (row, column) alone
        p.pick[axis] = p.stride[axis] if p.taps[axis] == 1 else 1
        p.step[axis] = p.stride[axis] // p.pick[axis]
    for axis in range(3):
        p.reach[axis] = (p.tile[axis] - 1) * p.step[axis] + p.span[axis]
        if p.mode == FC_ZEROS and p.source == REGION and p.taps[axis] > 0:
            p.reach[axis] = most_under_a_tile(p, axis, input_size[axis])
    p.region_rows, p.region_columns = p.reach[1], p.reach[2]
    # rows a power of two apart would share cache sets
    p.ld = p.steps
    if p.steps >= 64 and p.steps * kernels.input_size % 1024 == 0:
        p.ld += kernels.lanes
    p.merged_taps = p.ld == p.steps
    for i in range(1, p.taps[2]):
        p.merged_taps = p.merged_taps and p.tap[2][i] == p.tap[2][i - 1] + 1
    if p.source == GATHER:
        p.blocks = 1
        p.max_segments = p.kc + 2
        p.region_bytes = volume(p.tile) * p.kc * kernels.input_size
    else:
        direct_blocks(p)
        p.region_bytes = p.images * image_region(p) * kernels.input_size if p.source == REGION else 0
    p.region_bytes = round_up(p.region_bytes, 64)
    return 0


cdef size most_under_a_tile(const DirectPass* p, int axis, size extent) noexcept nogil:
    """Places of the region along an axis that a tile takes: from the first tap that it meets to the last."""
    cdef size k, begin, end, low, span, most = 0
    for k in range(p.tiles[axis]):
        taps_met(p.tap[axis], p.taps[axis], p.stride[axis], p.edge[axis][k], p.edge[axis][k + 1] - p.edge[axis][k], extent,
                 &begin, &end, &low, &span)
        most = max(most, (p.edge[axis][k + 1] - p.edge[axis][k] - 1) * p.step[axis] + span)
    return most


cdef int direct_blocks(DirectPass* p) except -1:
    """The blocks of the reduction of a tile whose taps all meet the input."""
    cdef size i, j, limit, run, runs, left, piece, filled = p.kc, b = 0, at = 0
    runs = p.taps[0] * p.taps[1] * (1 if p.merged_taps else p.taps[2])
    run = p.steps * (p.taps[2] if p.merged_taps else 1)
    limit = runs * (run // p.kc + 2) + 1
    if p.long_:
        limit += runs * run // p.sum_block
    p.segments = <fc_segment*>allocate(limit * sizeof(fc_segment))
    p.block = <size*>allocate((limit + 1) * sizeof(size))
    p.max_segments = max(limit, runs)
    p.blocks = 0
    for i in range(p.taps[0] * p.taps[1]):
        for j in range(1 if p.merged_taps else p.taps[2]):
            left = run
            while left > 0:
                if filled == p.kc or (p.long_ and at % p.sum_block == 0):
                    p.block[p.blocks] = b
                    p.blocks += 1
                    filled = 0
                piece = min(left, p.kc - filled)
                if p.long_:
                    piece = min(piece, p.sum_block - at % p.sum_block)
                p.segments[b].a = region_offset(p, p.low, i // p.taps[1], i % p.taps[1], j) + (run - left)
                p.segments[b].b = at
                p.segments[b].k = piece
                b += 1
                at += piece
                left -= piece
                filled += piece
    if p.blocks == 0:   # nothing to sum: outputs are zeros plus bias
        p.block[0] = 0
        p.blocks = 1
    p.block[p.blocks] = b
    return 0


cdef inline size tile_pixels(const DirectPass* p) noexcept nogil:
    return p.images * volume(p.tile)


cdef inline size image_region(const DirectPass* p) noexcept nogil:
    """Elements of the region under one image's part of a tile."""
    return p.reach[0] * p.region_rows * p.region_columns * p.ld


cdef void direct_scratch(DirectPass* p) noexcept nogil:
    """Scratch of one thread: the panel that it packs, its region, the totals of long sums, its sums and offsets."""
    cdef const fc_kernels* kernels = p.kernels
    p.panel_bytes = 0
    if p.weights.packed == NULL:
        p.panel_bytes = round_up((p.kc if p.streams else volume(p.taps) * p.steps)
                                 * min(p.width, round_up(p.outputs, kernels.lanes)) * kernels.weight_size, 64)
    p.totals_bytes = totals_bytes(kernels, tile_pixels(p) * p.width) if p.long_ else 0
    p.scratch_bytes = (PANEL_AT + p.panel_bytes + p.region_bytes + p.totals_bytes
                       + round_up(tile_pixels(p) * p.width * kernels.size, 64)
                       + round_up(3 * tile_pixels(p) * sizeof(size), 64)
                       + round_up(p.max_segments * sizeof(fc_segment), 64))


cdef inline size region_offset(const DirectPass* p, const size* low, size h, size i, size j) noexcept nogil:
    """Element of tap (h, i, j) relative to its output pixel's origin in a region whose first taps are `low`."""
    if p.source == IN_PLACE:
        return 0
    return (((p.tap[0][h] - low[0]) * p.region_rows + p.tap[1][i] - low[1]) * p.region_columns
            + p.tap[2][j] - low[2]) * p.ld


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


cdef void direct_met(const DirectPass* p, const Tile* t, Met* met) noexcept nogil:
    cdef int axis
    met.all = True
    for axis in range(3):
        if p.mode == FC_ZEROS and p.source != IN_PLACE:
            if not taps_met(p.tap[axis], p.taps[axis], p.stride[axis], t.first[axis], t.shape[axis],
                            length(&p.x, axis), &met.first[axis], &met.last[axis], &met.low[axis], &met.span[axis]):
                met.all = False
        else:
            met.first[axis], met.last[axis] = 0, p.taps[axis]
            met.low[axis], met.span[axis] = p.low[axis], p.span[axis]


cdef const char* direct_panel(const DirectPass* p, char* scratch, size group, size panel, bint* finite) noexcept nogil:
    """The packed weights of one panel, and whether all are finite."""
    cdef HeldPanel* held = <HeldPanel*>scratch
    if p.weights.packed != NULL:
        finite[0] = p.weights.finite
        return packed_panel(&p.weights, group, panel)
    if p.streams:
        finite[0] = True
        return scratch + PANEL_AT
    cdef size number = p.first_panel + group * p.panels + panel
    if held.number != number:
        held.number = number
        held.finite = pack_panel(&p.weights, group, panel, 0, p.channels, scratch + PANEL_AT) != 0
    finite[0] = held.finite
    return scratch + PANEL_AT


cdef void direct_tile(const DirectPass* p, size task, Tile* t) noexcept nogil:
    """The tile of a task: columns first, then rows, planes, groups, images."""
    cdef size number = task % volume(p.tiles)
    cdef int axis
    cdef const size* edge
    task = task // volume(p.tiles)
    if p.order != NULL:
        number = p.order[number]
    for axis in range(2, -1, -1):
        edge = p.edge[axis] + number % p.tiles[axis]
        t.first[axis], t.shape[axis] = edge[0], edge[1] - edge[0]
        number = number // p.tiles[axis]
    t.group = task % p.groups
    t.image = task // p.groups * p.images
    t.images = min(p.images, p.y.n[0] - t.image)
    t.pixels = t.images * volume(t.shape)


cdef const char* direct_input(const DirectPass* p, const Tile* t, const Met* met, char* region,
                              size* a_row) noexcept nogil:
    """The input under a tile, packed or as it lies, and where every pixel's part of it begins."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size first[3]
    cdef size shape[3]
    cdef size m, plane, element = kernels.input_size
    cdef int axis
    if p.source == GATHER:
        lay_out(a_row, 1, t.pixels, 0, p.kc)
        return region
    if p.source == IN_PLACE:
        lay_out_tile(a_row, t.images, p.x.s[0] // element, t.shape, p.stride[0] * p.x.s[4] // element,
                     p.stride[1] * p.x.s[2] // element, p.stride[2] * p.x.s[3] // element)
        return (p.x.p + t.image * p.x.s[0] + t.group * p.channels * p.x.s[1]
                + (t.first[0] * p.stride[0] + p.low[0]) * p.x.s[4] + (t.first[1] * p.stride[1] + p.low[1]) * p.x.s[2]
                + (t.first[2] * p.stride[2] + p.low[2]) * p.x.s[3])
    plane = p.region_rows * p.region_columns
    for axis in range(3):
        first[axis] = t.first[axis] * p.stride[axis] + met.low[axis]
        shape[axis] = (t.shape[axis] - 1) * p.step[axis] + met.span[axis]
    if p.steps > p.channels:   # what lies behind the channels of a pixel meets weights that are zero
        memset(region, 0, t.images * image_region(p) * element)
    if met.span[0] > 0 and met.span[1] > 0 and met.span[2] > 0 and p.channels > 0:
        for m in range(t.images):
            pack_planes(kernels, p.x_code, &p.x, t.image + m, t.group * p.channels, p.channels, first, p.pick, shape,
                        plane, p.region_columns, p.mode, p.ld, region + m * image_region(p) * element)
    lay_out_tile(a_row, t.images, image_region(p), t.shape, p.step[0] * plane * p.ld,
                 p.step[1] * p.region_columns * p.ld, p.step[2] * p.ld)
    return region


cdef void direct_task(const DirectPass* p, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const fc_kernels* kernels = p.kernels
    cdef size chunk = task // direct_tiles(p)
    cdef size panel, last, first, count, vectors, width, i, laid, laid_before = 0
    cdef Met met
    cdef Tile t
    cdef char* region = scratch + PANEL_AT + p.panel_bytes
    cdef char* totals = region + p.region_bytes
    cdef char* temporary = totals + p.totals_bytes
    cdef size* a_row
    cdef size* c_row
    cdef size* residual_row
    cdef fc_segment* spare
    cdef const char* a
    cdef const char* b
    cdef const char* bias
    cdef const char* residual
    cdef char* to
    cdef char* c
    cdef Ends ends
    cdef bint in_output, skip, finite = True, to_bytes = p.requantise != NULL
    a_row = <size*>(temporary + round_up(tile_pixels(p) * p.width * kernels.size, 64))
    c_row = a_row + tile_pixels(p)
    residual_row = c_row + tile_pixels(p)
    spare = <fc_segment*>(<char*>a_row + round_up(3 * tile_pixels(p) * sizeof(size), 64))
    direct_tile(p, task % direct_tiles(p), &t)
    direct_met(p, &t, &met)
    a = direct_input(p, &t, &met, region, a_row)

    last = min((chunk + 1) * p.panels_per_task, p.panels)
    for panel in range(chunk * p.panels_per_task, last):
        if panel > chunk * p.panels_per_task and fc_interrupted(watch):
            return
        first = panel * p.width
        count = min(p.width, p.outputs - first)
        vectors = (count + kernels.lanes - 1) // kernels.lanes
        width = vectors * kernels.lanes
        b = direct_panel(p, scratch, t.group, panel, &finite)
        skip = not finite and p.mode == FC_ZEROS
        first += t.group * p.outputs
        to = tile_origin(&p.y, &t, first)
        residual = tile_origin(&p.residual, &t, first) if p.has_residual else NULL
        # a full panel of a channels-last output of the computing type is summed where it will lie
        in_output = (not to_bytes and width == count and p.merged == p.outputs and p.y_code == kernels.sum
                     and not p.long_ and in_elements(&p.y, to, kernels.size)
                     and (residual == NULL or in_elements(&p.residual, residual, kernels.size))
                     and (t.images == 1 or (p.y.s[0] % kernels.size == 0
                                            and (residual == NULL or p.residual.s[0] % kernels.size == 0))))
        if to_bytes and p.merged == p.outputs and p.y.s[1] == 1:   # bytes go where they will lie, whatever their number
            ends.requantise, ends.out, ends.out_row, ends.columns = p.requantise, to, residual_row, count
            if panel == chunk * p.panels_per_task:
                lay_out_view(residual_row, &t, &p.y, 1)
        else:
            ends.requantise = NULL
        ends.multiplier = p.multiplier + first if to_bytes else NULL
        c = to if in_output else temporary
        laid = -1 if in_output else width
        if panel == chunk * p.panels_per_task or laid != laid_before:  # else as the last panel's did
            laid_before = laid
            if in_output:
                lay_out_view(c_row, &t, &p.y, kernels.size)
                if residual != NULL:
                    lay_out_view(residual_row, &t, &p.residual, kernels.size)
            else:
                lay_out(c_row, 1, t.pixels, 0, width)
        bias = p.bias + first * kernels.size if p.bias != NULL else NULL
        ends.bias = ends.residual = NULL
        ends.residual_row = residual_row
        ends.relu = p.activation if in_output and p.activation <= RELU6 else LINEAR
        if in_output or ends.requantise != NULL:
            ends.bias, ends.residual = bias, residual
        if p.source == GATHER:
            direct_gather(p, &met, &t, panel, region, b, vectors, width, a_row, c, c_row, &ends, skip, spare, totals,
                          watch)
        elif skip:
            direct_skip(p, &met, &t, a, b, vectors, width, a_row, c, c_row, &ends, spare, totals)
        elif not met.all or streamed(p) or p.long_:
            direct_some_taps(p, &met, &t, panel, a, b, vectors, width, a_row, c, c_row, &ends, spare, totals)
        else:
            for i in range(p.blocks):
                direct_block(kernels, a, a_row, b, vectors, width, p.segments + p.block[i], p.block[i + 1] - p.block[i],
                             t.pixels, c, c_row, &ends, i == 0, i == p.blocks - 1)
        if in_output and p.activation <= RELU6 or ends.requantise != NULL:
            continue
        if p.merged < p.outputs:
            direct_spread(p, &t, temporary, width, to)
        else:
            direct_store(p, &t, c, c_row, width, count, to, residual, bias, ends.multiplier, in_output)


cdef inline char* tile_origin(const View* array, const Tile* t, size channel) noexcept nogil:
    return (array.p + t.image * array.s[0] + channel * array.s[1] + t.first[0] * array.s[4] + t.first[1] * array.s[2]
            + t.first[2] * array.s[3])


cdef void lay_out_view(size* at, const Tile* t, const View* array, size element) noexcept nogil:
    """Where the pixels of a tile lie in an array, in elements."""
    lay_out_tile(at, t.images, array.s[0] // element, t.shape, array.s[4] // element, array.s[2] // element,
                 array.s[3] // element)


cdef void direct_store(const DirectPass* p, const Tile* t, const char* c, const size* c_row, size width, size count,
                       char* to, const char* residual, const char* bias, const float* multiplier,
                       bint in_output) noexcept nogil:
    """The epilogue of a tile, row by row; what was summed `in_output` has only its activation before it."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size m, z, r, row = 0
    cdef const char* add = NULL
    cdef size add_pixel = 0, add_channel = 0, pixel = p.y.s[3] // kernels.size if in_output else width
    if in_output:
        bias = residual = NULL
    if residual != NULL:
        add_pixel, add_channel = p.residual.s[3], p.residual.s[1]
    for m in range(t.images):
        for z in range(t.shape[0]):
            for r in range(t.shape[1]):
                if p.requantise != NULL:
                    kernels.requantise(
                        c + c_row[row * t.shape[2]] * kernels.size, pixel, t.shape[2], count,
                        to + m * p.y.s[0] + z * p.y.s[4] + r * p.y.s[2], p.y.s[3], p.y.s[1], bias, p.requantise,
                        multiplier)
                    row += 1
                    continue
                if residual != NULL:
                    add = residual + m * p.residual.s[0] + z * p.residual.s[4] + r * p.residual.s[2]
                p.kernels.store[p.y_code](
                    c + c_row[row * t.shape[2]] * kernels.size, pixel, t.shape[2], count,
                    to + m * p.y.s[0] + z * p.y.s[4] + r * p.y.s[2], p.y.s[3], p.y.s[1], bias, p.activation, add,
                    add_pixel, add_channel)
                row += 1


cdef void direct_spread(const DirectPass* p, const Tile* t, const char* c, size width, char* to) noexcept nogil:
    """The sums of merged phases, side by side in a panel, to their pixels of y: the last may lie outside. The pixels of a
    row are stored together where they lie side by side."""
    cdef size m, e, f, g, beside, z, r, planes, rows, whole = 0, count, columns
    cdef bint lie = (p.y.s[3] == p.merge[2] * p.merged * p.y.s[1] and p.merge[2] > 1)
    if lie:
        whole = min(t.shape[2], p.full[2] // p.merge[2] - t.first[2])
    for m in range(t.images):
        for e in range(p.merge[0]):
            planes = min(t.shape[0], (p.full[0] - e + p.merge[0] - 1) // p.merge[0] - t.first[0])
            for f in range(p.merge[1]):
                rows = min(t.shape[1], (p.full[1] - f + p.merge[1] - 1) // p.merge[1] - t.first[1])
                for z in range(planes):
                    for r in range(rows):
                        beside = (e * p.merge[1] + f) * p.merge[2] * p.merged
                        beside += ((m * t.shape[0] + z) * t.shape[1] + r) * t.shape[2] * width
                        direct_spread_row(
                            p, t, c + beside * p.kernels.size, width, whole,
                            to + m * p.y.s[0] + e * (p.y.s[4] // p.merge[0]) + f * (p.y.s[2] // p.merge[1])
                            + z * p.y.s[4] + r * p.y.s[2])


cdef inline void direct_spread_row(const DirectPass* p, const Tile* t, const char* c, size width, size whole,
                                   char* to) noexcept nogil:
    """The phases of a row of sums: of the first `whole` columns all together, then one after the other."""
    cdef size g, columns, skipped = max(<size>0, whole)
    if skipped > 0:
        p.kernels.store[p.y_code](c, width, skipped, p.merge[2] * p.merged, to, p.y.s[3], p.y.s[1], p.bias,
                                  p.activation, NULL, 0, 0)
    c += skipped * width * p.kernels.size
    to += skipped * p.y.s[3]
    for g in range(p.merge[2]):
        columns = min(t.shape[2], (p.full[2] - g + p.merge[2] - 1) // p.merge[2] - t.first[2]) - skipped
        if columns > 0:
            p.kernels.store[p.y_code](c + g * p.merged * p.kernels.size, width, columns, p.merged,
                                      to + g * (p.y.s[3] // p.merge[2]), p.y.s[3], p.y.s[1], p.bias, p.activation, NULL,
                                      0, 0)


cdef inline bint streamed(const DirectPass* p) noexcept nogil:
    return p.streams and p.weights.packed == NULL


cdef const char* direct_steps(const DirectPass* p, size group, size panel, const char* b, size first, size last,
                              size width) noexcept nogil:
    """Where step 0 of a panel would lie if it were packed whole: what streams packs the steps from `first` to `last` - 1
    into b."""
    if not streamed(p):
        return b
    pack_steps(&p.weights, group, panel, first, last, <char*>b)
    return b - first * width * p.kernels.weight_size


cdef inline size block_end(const DirectPass* p, size at) noexcept nogil:
    """The step behind the block of the reduction that a step is in: of kc, within those whose sums are made apart."""
    cdef size sum_first = at - at % p.sum_block if p.long_ else 0
    cdef size end = sum_first + ((at - sum_first) // p.kc + 1) * p.kc
    return min(end, sum_first + p.sum_block) if p.long_ else end


cdef void direct_some_taps(const DirectPass* p, const Met* met, const Tile* t, size panel, const char* a, const char* b,
                           size vectors, size width, const size* a_row, char* c, const size* c_row, const Ends* ends,
                           fc_segment* spare, char* totals) noexcept nogil:
    """The blocks of the reduction without the taps that meet padding alone; they begin at the same steps. The sums of
    those of a long one, from zero and side by side in c, are added up apart."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size h, i, j, left, at, piece, first, run, n = 0, end = 0
    cdef bint begun = False
    cdef const char* steps
    cdef size taps = 1 if p.merged_taps and met.last[2] > met.first[2] else met.last[2] - met.first[2]
    run = p.steps * ((met.last[2] - met.first[2]) if p.merged_taps else 1)
    if p.long_:
        memset(totals, 0, totals_bytes(kernels, t.pixels * width))
    for h in range(met.first[0], met.last[0]):
        for i in range(met.first[1], met.last[1]):
            for j in range(met.first[2], met.first[2] + taps):
                first = ((h * p.taps[1] + i) * p.taps[2] + j) * p.steps
                left = run
                while left > 0:
                    at = first + run - left
                    if n and at >= end:
                        steps = direct_steps(p, t.group, panel, b, spare[0].b, spare[n - 1].b + spare[n - 1].k, width)
                        direct_block(kernels, a, a_row, steps, vectors, width, spare, n, t.pixels, c, c_row, ends,
                                     not begun, False)
                        begun = True
                        if p.long_ and at // p.sum_block != spare[0].b // p.sum_block:
                            kernels.total_add(totals, c, t.pixels * width)
                            begun = False
                        n = 0
                    end = block_end(p, at)
                    piece = min(left, end - at)
                    spare[n].a = region_offset(p, met.low, h, i, j) + (run - left)
                    spare[n].b = at
                    spare[n].k = piece
                    n += 1
                    left -= piece
    steps = b
    if n:
        steps = direct_steps(p, t.group, panel, b, spare[0].b, spare[n - 1].b + spare[n - 1].k, width)
    direct_block(kernels, a, a_row, steps, vectors, width, spare, n, t.pixels, c, c_row, ends, not begun, not p.long_)
    if p.long_:
        kernels.total_add(totals, c, t.pixels * width)
        kernels.total_end(c, totals, t.pixels * width)


cdef void pixel_origin(const DirectPass* p, const Tile* t, size pixel, size* origin) noexcept nogil:
    """Where in the input a tap of offset 0 of a tile's pixel lies."""
    cdef int axis
    for axis in range(2, -1, -1):
        origin[axis] = (t.first[axis] + pixel % t.shape[axis]) * p.stride[axis]
        pixel = pixel // t.shape[axis]


cdef void direct_skip(const DirectPass* p, const Met* met, const Tile* t, const char* a, const char* b, size vectors,
                      size width, const size* a_row, char* c, const size* c_row, const Ends* ends, fc_segment* spare,
                      char* totals) noexcept nogil:
    """Weights that are NaN or infinite must not meet the zeros of the padding: pixel by pixel, real taps alone."""
    cdef size pixel, h, i, j, n
    cdef size origin[3]
    cdef Ends own = ends[0]
    for pixel in range(t.pixels):
        own.residual_row = ends.residual_row + pixel
        n = 0
        if p.long_:
            memset(totals, 0, totals_bytes(p.kernels, width))
        pixel_origin(p, t, pixel, origin)
        for h in range(p.taps[0]):
            if not 0 <= origin[0] + p.tap[0][h] < p.x.n[4]:
                continue
            for i in range(p.taps[1]):
                if not 0 <= origin[1] + p.tap[1][i] < p.x.n[2]:
                    continue
                for j in range(p.taps[2]):
                    if 0 <= origin[2] + p.tap[2][j] < p.x.n[3]:
                        n = direct_one_tap(p, region_offset(p, met.low, h, i, j),
                                           ((h * p.taps[1] + i) * p.taps[2] + j) * p.steps, a, b, vectors, width,
                                           a_row + pixel, c, c_row + pixel, &own, spare, n, totals)
        direct_block(p.kernels, a, a_row + pixel, b, vectors, width, spare, n, 1, c, c_row + pixel, &own, True, True)
        if p.long_:
            p.kernels.total_add(totals, c + c_row[pixel] * p.kernels.size, width)
            p.kernels.total_end(c + c_row[pixel] * p.kernels.size, totals, width)


cdef size direct_one_tap(const DirectPass* p, size from_, size at, const char* a, const char* b, size vectors,
                         size width, const size* a_row, char* c, const size* c_row, const Ends* ends, fc_segment* spare,
                         size n, char* totals) noexcept nogil:
    """Add the channels of one tap of one pixel to its segments, of which there are `n`, and return how many there are
    then; a block of a long sum that is complete goes to the totals."""
    cdef size left = p.steps, piece
    while left > 0:
        if p.long_ and n > 0 and spare[0].b // p.sum_block != at // p.sum_block:  # it is complete
            direct_block(p.kernels, a, a_row, b, vectors, width, spare, n, 1, c, c_row, ends, True, False)
            p.kernels.total_add(totals, c + c_row[0] * p.kernels.size, width)
            n = 0
        piece = min(left, p.sum_block - at % p.sum_block) if p.long_ else left
        if n > 0 and spare[n - 1].b + spare[n - 1].k == at and spare[n - 1].a + spare[n - 1].k == from_:
            spare[n - 1].k += piece
        else:
            spare[n].a = from_
            spare[n].b = at
            spare[n].k = piece
            n += 1
        at += piece
        from_ += piece
        left -= piece
    return n


cdef void direct_gather(const DirectPass* p, const Met* met, const Tile* t, size panel, char* region, const char* b,
                        size vectors, size width, const size* a_row, char* c, const size* c_row, const Ends* ends,
                        bint skip, fc_segment* spare, char* totals, fc_watch* watch) noexcept nogil:
    """The reduction in chunks of kc steps, gathered pixel by pixel: bounded memory for windows of any size."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size row = p.taps[2] * p.steps, plane = p.taps[1] * row
    cdef size h = met.first[0], k0 = h * plane + met.first[1] * row, end = h * plane + met.last[1] * row
    cdef size k1, pixel, segments
    cdef bint begun = False, done
    cdef Ends own = ends[0]
    if met.first[0] >= met.last[0]:   # the planes of all taps are padding
        end = k0
    if p.long_:
        memset(totals, 0, totals_bytes(kernels, t.pixels * width))
    while not fc_interrupted(watch):
        k1 = min(end, block_end(p, k0))
        done = k1 == end and h + 1 >= met.last[0]
        for pixel in range(t.pixels):
            segments = direct_gather_pixel(p, t, pixel, k0, k1, skip, region + pixel * p.kc * kernels.input_size, spare)
            if skip:
                own.residual_row = ends.residual_row + pixel
                direct_block(kernels, region, a_row + pixel, b, vectors, width, spare, segments, 1, c, c_row + pixel,
                             &own, not begun, done and not p.long_)
        if not skip:
            spare[0].a = 0
            spare[0].b = k0
            spare[0].k = k1 - k0
            direct_block(kernels, region, a_row, direct_steps(p, t.group, panel, b, k0, k1, width), vectors, width,
                         spare, 1, t.pixels, c, c_row, ends, not begun, done and not p.long_)
        begun = True
        if k1 == end and not done:   # the rows of the next plane of taps
            h += 1
            k0, end = h * plane + met.first[1] * row, h * plane + met.last[1] * row
        else:
            k0 = k1
        if p.long_ and (done or k0 // p.sum_block != (k1 - 1) // p.sum_block):
            kernels.total_add(totals, c, t.pixels * width)
            begun = False
        if done:
            break
    if p.long_:
        kernels.total_end(c, totals, t.pixels * width)


cdef size direct_gather_pixel(const DirectPass* p, const Tile* t, size pixel, size k0, size k1, bint skip, char* dst,
                              fc_segment* spare) noexcept nogil:
    """The steps k0 .. k1 - 1 of one pixel of a tile; to `skip` what is padding, the segments of the others."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size k = k0, tap, channel, n, real, iz, iy, ix, segments = 0
    cdef size origin[3]
    pixel_origin(p, t, pixel, origin)
    while k < k1:
        tap = k // p.steps
        channel = k % p.steps
        n = min(p.steps - channel, k1 - k)
        real = min(n, p.channels - channel)   # a tile along k may be filled up with zeros
        ix = padded_index(origin[2] + p.tap[2][tap % p.taps[2]], p.x.n[3], p.mode)
        tap = tap // p.taps[2]
        iy = padded_index(origin[1] + p.tap[1][tap % p.taps[1]], p.x.n[2], p.mode)
        iz = padded_index(origin[0] + p.tap[0][tap // p.taps[1]], p.x.n[4], p.mode)
        if iz >= 0 and iy >= 0 and ix >= 0:
            kernels.pack[p.x_code](dst, n, 1, real, p.x.p + t.image * p.x.s[0]
                                   + (t.group * p.channels + channel) * p.x.s[1] + iz * p.x.s[4] + iy * p.x.s[2]
                                   + ix * p.x.s[3], 0, p.x.s[1])
            if skip:
                spare[segments].a = k - k0
                spare[segments].b = k
                spare[segments].k = n
                segments += 1
        elif not skip:
            fill_padding(kernels, dst, real, p.mode)
        if real < n:
            memset(dst + real * kernels.input_size, 0, (n - real) * kernels.input_size)
        dst += n * kernels.input_size
        k += n
    return segments
