# Where the tiles of the direct driver lie, which taps they meet, and the input under them (drivers/direct.pxi).


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
        if p.source == IN_PLACE and not lies_under_tiles(p, axis, input_size[axis]):
            raise ValueError("an input is read in place where all outputs of a tile meet the taps that it walks")
    p.region_rows, p.region_columns = p.reach[1], p.reach[2]
    # rows a power of two apart would share cache sets
    p.ld = p.steps
    if p.steps >= 64 and p.steps * kernels.input_size % 1024 == 0:
        p.ld += kernels.lanes
    p.merged_taps = p.ld == p.steps and p.source != IN_PLACE and adjacent_taps(p)   # else where the array is known
    if p.source == GATHER:
        p.blocks = 1
        p.max_segments = p.kc + 2
        p.region_bytes = volume(p.tile) * p.kc * kernels.input_size
    else:
        direct_blocks(p)
        p.region_bytes = p.images * image_region(p) * kernels.input_size if p.source == REGION else 0
    p.region_bytes = round_up(p.region_bytes, 64)
    return 0


cdef bint adjacent_taps(const DirectPass* p) noexcept nogil:
    """Whether the taps of a row follow each other."""
    cdef size i
    for i in range(1, p.taps[2]):
        if p.tap[2][i] != p.tap[2][i - 1] + 1:
            return False
    return True


cdef bint lies_under_tiles(const DirectPass* p, int axis, size extent) noexcept nogil:
    """Whether every tap that a tile walks along an axis meets the input from all of the tile's outputs."""
    cdef size k, i, begin, end, low, span
    for k in range(p.tiles[axis]):
        begin, end = 0, p.taps[axis]
        if p.mode == FC_ZEROS:
            taps_met(p.tap[axis], p.taps[axis], p.stride[axis], p.edge[axis][k], p.edge[axis][k + 1] - p.edge[axis][k],
                     extent, &begin, &end, &low, &span)
        for i in range(begin, end):
            if (p.edge[axis][k] * p.stride[axis] + p.tap[axis][i] < 0
                    or (p.edge[axis][k + 1] - 1) * p.stride[axis] + p.tap[axis][i] >= extent):
                return False
    return True


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
    if p.before.scale != NULL:
        p.region_bytes = round_up(tile_pixels(p) * p.ld * kernels.input_size, 64)
    p.totals_bytes = totals_bytes(kernels, tile_pixels(p) * p.width) if p.long_ else 0
    p.scratch_bytes = (PANEL_AT + p.panel_bytes + p.region_bytes + p.totals_bytes
                       + round_up(tile_pixels(p) * p.width * kernels.size, 64)
                       + round_up(3 * tile_pixels(p) * sizeof(size), 64)
                       + round_up(p.max_segments * sizeof(fc_segment), 64))


cdef inline size region_offset(const DirectPass* p, const size* low, size h, size i, size j) noexcept nogil:
    """Element of tap (h, i, j) relative to its output pixel's origin in a region, or an input, whose first taps are `low`."""
    if p.source == IN_PLACE:
        return ((p.tap[0][h] - low[0]) * p.x.s[4] + (p.tap[1][i] - low[1]) * p.x.s[2]
                + (p.tap[2][j] - low[2]) * p.x.s[3]) // p.kernels.input_size
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
        if p.mode == FC_ZEROS:
            if not taps_met(p.tap[axis], p.taps[axis], p.stride[axis], t.first[axis], t.shape[axis],
                            length(&p.x, axis), &met.first[axis], &met.last[axis], &met.low[axis], &met.span[axis]):
                met.all = False
        else:
            met.first[axis], met.last[axis] = 0, p.taps[axis]
            met.low[axis], met.span[axis] = p.low[axis], p.span[axis]


cdef const char* direct_panel(const DirectPass* p, char* scratch, size group, size panel, bint* finite) noexcept nogil:
    """The packed weights of one panel, and whether all are finite."""
    cdef Held* held = <Held*>scratch
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


cdef void direct_lay_out(const DirectPass* p, const Tile* t, size* a_row) noexcept nogil:
    """Where the part of every pixel of a tile begins in its input, as `direct_input` gives it."""
    cdef size element = p.kernels.input_size, plane = p.region_rows * p.region_columns
    if p.source == GATHER:
        lay_out(a_row, 1, t.pixels, 0, p.kc)
    elif p.before.scale != NULL:
        lay_out(a_row, 1, t.pixels, 0, p.ld)
    elif p.source == IN_PLACE:
        lay_out_tile(a_row, t.images, p.x.s[0] // element, t.shape, p.stride[0] * p.x.s[4] // element,
                     p.stride[1] * p.x.s[2] // element, p.stride[2] * p.x.s[3] // element)
    else:
        lay_out_tile(a_row, t.images, image_region(p), t.shape, p.step[0] * plane * p.ld,
                     p.step[1] * p.region_columns * p.ld, p.step[2] * p.ld)


cdef const char* direct_input(const DirectPass* p, const Tile* t, const Met* met, char* region) noexcept nogil:
    """The input under a tile, packed or as it lies."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size first[3]
    cdef size shape[3]
    cdef size m, plane, element = kernels.input_size
    cdef int axis
    if p.source == GATHER:
        return region
    if p.before.scale != NULL:
        direct_scale(p, t, region)
        return region
    if p.source == IN_PLACE:
        return (p.x.p + t.image * p.x.s[0] + t.group * p.channels * p.x.s[1]
                + (t.first[0] * p.stride[0] + met.low[0]) * p.x.s[4] + (t.first[1] * p.stride[1] + met.low[1]) * p.x.s[2]
                + (t.first[2] * p.stride[2] + met.low[2]) * p.x.s[3])
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
    return region


cdef void direct_scale(const DirectPass* p, const Tile* t, char* to) noexcept nogil:
    """The one tap of every pixel of a tile, scaled on its way."""
    cdef const Before* b = &p.before
    cdef size m, z, r, first = t.group * p.channels, element = p.kernels.input_size
    cdef const char* x
    cdef const char* scale = b.scale + first * element
    cdef const char* shift = b.shift + first * element if b.shift != NULL else NULL
    for m in range(t.image, t.image + t.images):
        for z in range(t.first[0], t.first[0] + t.shape[0]):
            for r in range(t.first[1], t.first[1] + t.shape[1]):
                x = (p.x.p + m * p.x.s[0] + first * element + (z * p.stride[0] + p.low[0]) * p.x.s[4]
                     + (r * p.stride[1] + p.low[1]) * p.x.s[2] + (t.first[2] * p.stride[2] + p.low[2]) * p.x.s[3])
                p.kernels.pack_scaled(to, p.ld, t.shape[2], p.channels, x, p.stride[2] * p.x.s[3], scale, shift, b.relu)
                to += t.shape[2] * p.ld * element
