# Winograd convolution F(m x m, r x r) for tiles of m x m outputs (Lavin & Gray, arXiv 1509.09308), E multiplications in
# place of m^2 r^2: 36 for 144 with m = 4 and 3 x 3 taps, 16 for 36 with m = 2, 9 for 16 with m = 2 and 2 x 2 taps; and
# of 3 x 3 taps at stride 2, whose outer taps meet the even inputs as two taps do and whose middle one the odd ones: 25
# for 36; and the input gradient of that, all phases of which meet the same inputs: 25 for 36 again. Fused per block of
# tiles, so that transformed data never leaves the cache:
#
#   for block of tiles x run of panels                      threads take these
#     V[E][tiles][channels] = transformed tiles of inputs   second-level cache
#     for panel of output channels
#       for slice of the channels                           one slice if a plan holds U; weights of 16 bits are widened
#         U[E][slice][width] = transformed weights          second-level cache
#         for each of the E elements: M += V * U            micro-kernel
#       m x m outputs = transformed M, bias, epilogue
#
# U is up to 4 times as large as the weights: where a block has tiles enough, transforming the weights again for every
# block costs less than reading U from memory. A few tiles of 4 x 4 outputs (`few`) do not earn storing U: there a
# micro-kernel transforms the weights in registers, for four tiles at a time, and reads no more than they are.
#
# Each tile is computed alike whatever block it falls in: the bits depend neither on the threads nor on the batch. What
# serves only the last row or column of a tile is left out where that lies beyond the border; a last tile of one or two
# rows or columns out of four is `short`, computed by F(1, 3) or F(2, 3) from some of the same transformed weights. (Which
# one it is, the size of the map tells; pieces of a map that begin at whole tiles, Method.grain, have the same last tiles.)
# A row of tiles with an output that is not finite is reported, and the caller computes it directly, so that NaN and
# infinity reach exactly the outputs whose window holds them.

cdef struct Planes:        # where the transforms of tiles lie; strides in elements
    size element_row, element   # element (i, j)
    size tile, four             # the next tile, the next four
    size slice                  # the next FC_WINOGRAD_CHANNELS channels; those of one lie side by side


cdef inline size planes_at(const Planes* planes, size tile, size channel) noexcept nogil:
    return (tile // FC_WINOGRAD_TILES * planes.four + tile % FC_WINOGRAD_TILES * planes.tile
            + channel // FC_WINOGRAD_CHANNELS * planes.slice + channel % FC_WINOGRAD_CHANNELS)


cdef Planes plain_planes(size elements, size ld, size plane) noexcept nogil:
    """V[e][tile][channel]: tiles `ld` apart, elements `plane`."""
    cdef Planes planes
    planes.element_row, planes.element = elements * plane, plane
    planes.tile, planes.four, planes.slice = ld, FC_WINOGRAD_TILES * ld, FC_WINOGRAD_CHANNELS
    return planes


cdef struct TileAxis:      # an axis of the outputs in tiles
    size tiles, whole        # all, and those with all their outputs
    size short               # outputs of a last one that is short, or 0
    size extent              # its inputs
    int without              # the elements that one goes without which is not whole


cdef TileAxis tile_axis(const fc_winograd* transforms, size outputs) noexcept nogil:
    cdef TileAxis axis
    cdef size rest = outputs % transforms.tile
    axis.whole = outputs // transforms.tile
    axis.tiles = axis.whole + (rest > 0)
    axis.short, axis.extent, axis.without = 0, transforms.extent, transforms.last
    if 0 < rest <= transforms.shorts:
        axis.short, axis.extent, axis.without = rest, rest + transforms.taps - 1, transforms.without[rest]
    return axis


cdef inline size short_at(const TileAxis* axis, size tile) noexcept nogil:
    """The outputs of a tile if it is short, or 0."""
    return axis.short if tile >= axis.whole else 0


cdef struct WinogradJob:
    const fc_kernels* kernels
    const fc_winograd* transforms
    View x, y, residual
    Weights weights
    int x_code, y_code, activation, mode
    bint has_residual, few, pool
    size channels, outputs, origin_y, origin_x   # channels: of all planes under a tap, one after the other
    size plane_channels, deep, origin_z   # of one plane; taps along the depth, the first,
    size stride_z                         # from one output to the next
    size levels, depth, level_chunks    # planes of outputs of a block, of y, and their chunks
    const char* transformed
    const char* bias
    char* flags
    size size_y, size_x          # of the convolution's output, which may be pooled
    size tile, elements          # outputs a side, E
    TileAxis rows, columns       # of tiles
    size tile_rows, tile_columns, tiles, across, block, blocks, kc   # tiles of one plane of all images, of a block too
    size lacking                 # fewer tiles that the first block has
    size panels, panels_per_task, panel_chunks, width
    size ldv, slice
    Planes planes
    size v_bytes, m_bytes, u_bytes, taps_bytes, region_bytes, output_bytes, scratch_bytes


cdef struct WinogradPanels:
    const fc_kernels* kernels
    char* u
    const char* w
    const fc_winograd* transforms
    size channels, outputs


def winograd_weights(int compute, int kind, packed, transformed, size channels, size outputs, int threads):
    """Transform packed weights, panel by panel, into U[panel][element][channels][width]."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    cdef Arrays arrays = Arrays()
    cdef View w, u
    cdef WinogradPanels job
    cdef size width = kernels.vectors * kernels.lanes, panels = (outputs + width - 1) // width
    try:
        arrays.view(packed, &w, False)
        arrays.view(transformed, &u, True)
        job.kernels, job.u, job.w, job.channels, job.outputs = kernels, u.p, w.p, channels, outputs
        job.transforms = &kernels.winograd[kind]
        run_tasks(winograd_panel, &job, NULL, 0, panels, threads)
    finally:
        arrays.release()


cdef void winograd_panel(void* panels, char* scratch, size panel, fc_watch* watch) noexcept nogil:
    cdef const WinogradPanels* job = <const WinogradPanels*>panels
    cdef size full = job.kernels.vectors * job.kernels.lanes, before = panel * full * job.channels * job.kernels.size
    cdef size width = round_up(min(full, job.outputs - panel * full), job.kernels.lanes)
    job.transforms.transform(
        job.u + before * job.transforms.weights * job.transforms.weights, job.channels * width, width,
        job.w + before * job.transforms.taps * job.transforms.taps, job.channels * width, job.channels)


def winograd_scratch_bytes(int compute, int kind, size channels, size deep, size stride, blocking, size columns, bint held):
    """Scratch of one thread for a `blocking` of so many channels of a plane and taps along the depth, at most `columns`
    tiles in a row, whose weights are transformed on the way, or `held` transformed."""
    cdef WinogradJob job
    winograd_kind(&job, isa.compute[compute], kind)
    winograd_depth(&job, channels, deep, stride, blocking)
    winograd_scratch(&job, columns, held)
    return job.scratch_bytes


cdef void winograd_kind(WinogradJob* job, const fc_kernels* kernels, int kind) noexcept nogil:
    job.kernels = kernels
    job.transforms = &kernels.winograd[kind]
    job.tile, job.elements = job.transforms.tile, job.transforms.elements * job.transforms.elements
    job.width = kernels.vectors * kernels.lanes


cdef int winograd_depth(WinogradJob* job, size channels, size deep, size stride, blocking) except -1:
    """Channels, taps along the depth and the loop sizes that depend on them."""
    job.plane_channels, job.deep, job.stride_z, job.channels = channels, deep, stride, channels * deep
    job.levels, job.slice, job.few = blocking.planes, blocking.slice, blocking.few
    job.across = max(<size>1, <size>blocking.tiles // job.levels)
    job.block = job.across * job.levels
    return 0


cdef inline size winograd_planes(const WinogradJob* job, size levels) noexcept nogil:
    """Planes of the input under so many planes of outputs."""
    return (levels - 1) * job.stride_z + job.deep


cdef void winograd_scratch(WinogradJob* job, size columns, bint held) noexcept nogil:
    """Scratch of one thread: transformed inputs, products, weights, the region and the outputs of a row of tiles, offsets."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size slots = job.block, run = min(job.across, columns), pieces = 0
    cdef size extent = job.transforms.extent, weights = job.transforms.weights, taps = job.transforms.taps
    if job.few:
        slots = round_up(job.block, FC_WINOGRAD_TILES)
        job.slice = FC_WINOGRAD_CHANNELS
        job.ldv = round_up(job.channels, FC_WINOGRAD_CHANNELS)
        job.planes.tile = FC_WINOGRAD_CHANNELS
        job.planes.element = FC_WINOGRAD_TILES * FC_WINOGRAD_CHANNELS
        job.planes.slice = job.transforms.elements * job.planes.element
        job.planes.element_row = job.ldv // FC_WINOGRAD_CHANNELS * job.planes.slice
        job.planes.four = job.transforms.elements * job.planes.element_row
    else:
        job.slice = job.channels if held else max(1, min(job.slice, job.channels))
        job.ldv = round_up(winograd_planes(job, job.levels) * job.plane_channels, kernels.lanes) + kernels.lanes
        job.planes = plain_planes(job.transforms.elements, job.ldv, job.across * job.ldv)
    job.v_bytes = piece(&pieces, job.elements * slots // job.levels * job.ldv * kernels.size)
    job.m_bytes = piece(&pieces, job.elements * slots * job.width * kernels.size)
    job.u_bytes = job.taps_bytes = 0
    if not held and not job.few:
        job.u_bytes = piece(&pieces, weights * weights * (job.slice * job.width + kernels.lanes) * kernels.size)
    if not held or job.few:
        job.taps_bytes = piece(&pieces, taps * taps * job.slice * job.width * kernels.size)
    job.region_bytes = piece(&pieces, extent * (extent + job.transforms.step * run) * min(<size>FC_WINOGRAD_CHANNELS, job.ldv)
                             * kernels.size)
    job.output_bytes = piece(&pieces, job.tile * job.tile * run * job.width * kernels.size)
    job.scratch_bytes = 8 * 64 + pieces + 8 * job.block * sizeof(size)


cdef class Winograd(Program):
    """A convolution in tiles of a kind (fc_winograd_kind) whose taps are equally spaced along both axes.

    `extent` has `groups` (1), `channels`, `outputs`, `size`, `input_size` and `mode`; the taps of `p` lie s apart and its
    stride is s times that of the kind, where s is 1 but for padding with zeros: a phase of the dilation, which reads
    every s-th pixel. `blocking` has `tiles`, `reduction`, `slice`, `panels_per_task` and whether tiles are `few`.
    `transposed` weights are those of an input gradient. With `pool`, y receives the largest of every 2 x 2 outputs: an
    even number of rows and columns, channels last in whole vectors, no residual, no activation but relu.
    """
    cdef WinogradJob job
    cdef const fc_kernels* held      # of packed weights
    cdef Phase phase
    cdef bint transposed
    cdef size tile_columns
    cdef size first_y, first_x, apart_y, apart_x   # of the pixels that are read
    cdef size[3] taps                              # planes (one), rows and columns
    cdef size[7] places                            # of the kernel that they belong to

    def __init__(self, codes, extent, p, blocking, int kind, bint transposed=False, bint pool=False):
        cdef WinogradJob* job = &self.job
        cdef size i, taps
        self.compute_with(codes)
        self.held = isa.compute[<int>codes.held]
        winograd_kind(job, self.kernels, kind)
        self.transposed = transposed
        job.x_code, job.y_code, job.mode, job.pool = self.input, self.result, extent.mode, pool
        job.outputs, job.kc = extent.outputs, blocking.reduction
        winograd_depth(job, extent.channels, len(p.taps[0]), p.stride[0], blocking)
        read_phase(&self.phase, p, extent)
        taps = job.transforms.taps
        if len(p.taps[1]) != taps or len(p.taps[2]) != taps:
            raise ValueError(f"this kind of Winograd has {taps} x {taps} taps")
        even_taps(p.taps[0], &job.origin_z, &i)
        if i != 1 or p.step[0] != 1 or (job.few and job.deep > 1):
            raise ValueError("taps along the depth lie side by side, as outputs do")
        even_taps(p.taps[1], &job.origin_y, &self.apart_y)
        even_taps(p.taps[2], &job.origin_x, &self.apart_x)
        i = max(<size>1, <size>(job.transforms.step // job.transforms.tile))
        if p.stride[1] != i * self.apart_y or p.stride[2] != i * self.apart_x:
            raise ValueError(f"this kind of Winograd has a stride of {i} in the spacing of its taps")
        self.first_y = (job.origin_y % self.apart_y + self.apart_y) % self.apart_y
        self.first_x = (job.origin_x % self.apart_x + self.apart_x) % self.apart_x
        job.origin_y = (job.origin_y - self.first_y) // self.apart_y
        job.origin_x = (job.origin_x - self.first_x) // self.apart_x
        self.taps[0], self.taps[1], self.taps[2], self.places[0] = 1, taps, taps, 0
        for i in range(taps):
            self.places[1 + i], self.places[1 + taps + i] = p.places[1][i], p.places[2][i]
        job.panels = (job.outputs + job.width - 1) // job.width
        job.panels_per_task = max(<size>1, min(<size>blocking.panels_per_task, job.panels))
        job.panel_chunks = (job.panels + job.panels_per_task - 1) // job.panels_per_task
        self.tile_columns = (self.phase.size_x + job.tile - 1) // job.tile

    def scratch_bytes(self, bint held):
        """Scratch of one thread, of a plan that has `held` transformed weights or of one that has none."""
        cdef WinogradJob job = self.job
        winograd_scratch(&job, self.tile_columns, held)
        return job.scratch_bytes

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """The weights are `packed.transformed`, or `packed.panels`, or the array `weight`, which are transformed on the way.
        Flags are (N, rows of tiles), 1 for a row of tiles with an output that is not finite."""
        cdef Work work = Work()
        cdef WinogradJob* job = <WinogradJob*>work.own(sizeof(WinogradJob))
        cdef Operands o
        cdef View view, array
        job[0] = self.job
        bind_operands(&o, work, x, bias, residual, y, activation, channels_last)
        bind_phase(&o, &self.phase)
        job.y, job.residual, job.bias = o.y, o.residual, o.bias
        job.has_residual, job.activation = o.has_residual, activation
        phase_view(&job.x, &o.x, self.first_y, self.first_x, self.apart_y, self.apart_x)
        work.weight(weight, &array, channels_last)
        view.p = NULL
        work.fixed = packed is None
        if packed is not None:
            work.view(packed.panels, &view, False)
        bind_weights(work, &job.weights, job.kernels if view.p == NULL else self.held, &array, self.weight, view.p, True, 1,
                     self.transposed, self.taps, self.places)
        job.weights.channels = job.channels   # packed, of all planes of the kernel one after the other
        job.weights.steps = round_up(job.channels, job.weights.kernels.tile_k)
        job.weights.group_elements = packed_elements(job.weights.kernels, volume(self.taps), job.channels, job.outputs)
        job.transformed = transformed_weights(work, None if job.few else packed)
        winograd_arrays(job)
        places_of(work, &job.x, &job.y, &job.residual, job.has_residual)
        work.task, work.job, work.flags, work.keep = winograd_task, job, &job.flags, self
        work.flag_count, work.scratch_bytes = job.y.n[0] * job.depth * job.tile_rows, job.scratch_bytes
        work.tasks, work.sites = job.blocks * job.panel_chunks, job.blocks
        work.team(threads)
        return work


cdef void winograd_arrays(WinogradJob* job) noexcept nogil:
    """What depends on how many images there are, and on whether the weights come transformed."""
    job.size_y, job.size_x = job.y.n[2] << job.pool, job.y.n[3] << job.pool
    job.rows, job.columns = tile_axis(job.transforms, job.size_y), tile_axis(job.transforms, job.size_x)
    job.tile_rows, job.tile_columns = job.rows.tiles, job.columns.tiles
    job.depth = job.y.n[4]
    job.tiles = job.y.n[0] * job.tile_rows * job.tile_columns
    job.level_chunks = (job.depth + job.levels - 1) // job.levels
    job.blocks = (job.tiles + job.across - 1) // job.across
    # the last block has what is left, or where last tiles have fewer products than others the first one
    job.lacking = 0
    if job.rows.tiles > job.rows.whole or job.columns.tiles > job.columns.whole:
        job.lacking = job.blocks * job.across - job.tiles
    job.blocks *= job.level_chunks
    winograd_scratch(job, job.tile_columns, job.transformed != NULL)


cdef void winograd_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const WinogradJob* job = <const WinogradJob*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef size chunk = task // job.blocks, block = task % job.blocks // job.level_chunks
    cdef size first = max(<size>0, block * job.across - job.lacking)
    cdef size level = task % job.blocks % job.level_chunks * job.levels, levels = min(job.levels, job.depth - level)
    cdef size count = min((block + 1) * job.across - job.lacking, job.tiles) - first   # of a plane
    cdef char* v = scratch
    cdef char* m = v + job.v_bytes
    cdef char* u = m + job.m_bytes
    cdef char* taps = u + job.u_bytes
    cdef char* region = taps + job.taps_bytes
    cdef char* output = region + job.region_bytes
    cdef size* v_row = <size*>(output + job.output_bytes)
    cdef size* m_row = v_row + 4 * job.block
    cdef size counts[4]
    cdef size slots = round_up(count, FC_WINOGRAD_TILES) if job.few else job.block
    cdef size t, run, panel, width, z, line_bytes = 0
    cdef const char* lines = winograd_whole_rows(job, first, count, &line_bytes)
    if job.few and slots > count:
        memset(v + planes_at(&job.planes, slots - FC_WINOGRAD_TILES, 0) * kernels.size, 0, job.planes.four * kernels.size)
    for z in range(winograd_planes(job, levels)):   # upwards: the last vector of a plane may reach into the next
        winograd_plane(job, first, count, padded_index(level * job.stride_z + job.origin_z + z, job.x.n[4], job.mode),
                       region, v + z * job.plane_channels * kernels.size)
    for panel in range(chunk * job.panels_per_task, min((chunk + 1) * job.panels_per_task, job.panels)):
        width = round_up(min(job.width, job.outputs - panel * job.width), kernels.lanes)
        if job.few:
            winograd_few_products(job, panel, width, slots, v, m, taps, watch)
        else:
            winograd_places(job, first, count, levels, width, v_row, m_row, counts)
            winograd_products(job, panel, width, counts, v, v_row, m, m_row, u, taps, lines, line_bytes, watch)
        if fc_interrupted(watch):
            return
        for z in range(levels):
            t = 0
            while t < count:
                run = min(count - t, job.tile_columns - (first + t) % job.tile_columns)
                winograd_output_run(job, level + z, first + t, run, panel, width // kernels.lanes,
                                    m + (z * count + t) * width * kernels.size, slots * width, output)
                t += run


cdef void winograd_plane(const WinogradJob* job, size first, size count, size z, char* region, char* v) noexcept nogil:
    """Transform the tiles of plane z of the input, or of a plane of padded zeros (-1)."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size t = 0, e, run, row, column, high, wide, step = job.transforms.step, extent = job.transforms.extent
    cdef View x = job.x
    if z < 0:
        for e in range(job.elements):
            for t in range(count):
                memset(v + (e * job.planes.element + t * job.planes.tile) * kernels.size, 0,
                       round_up(job.plane_channels, kernels.lanes) * kernels.size)
        return
    x.p += z * x.s[4]
    while t < count:                       # runs of neighbouring tiles that are alike
        column, row = (first + t) % job.tile_columns, (first + t) // job.tile_columns
        run = min(count - t, job.tile_columns - column)
        if job.columns.short and column < job.columns.whole:
            run = min(run, job.columns.whole - column)
        high, wide = short_at(&job.rows, row % job.tile_rows), short_at(&job.columns, column)
        winograd_transform_run(kernels, job.transforms.input[high][wide], job.rows.extent if high else extent,
                               job.columns.extent if wide else extent, step, &x, job.x_code, job.mode,
                               row // job.tile_rows, 0, job.plane_channels, row % job.tile_rows * step + job.origin_y, 1,
                               column * step + job.origin_x, 1, run, region, v, &job.planes, t)
        if job.few and (high or wide):
            winograd_without(job, high, wide, run, v, t)
        t += run


cdef void winograd_without(const WinogradJob* job, size high, size wide, size run, char* v, size at_tile) noexcept nogil:
    """Zeros for the elements that `run` short tiles go without, where all are multiplied."""
    cdef size side = job.transforms.elements, e, t, c
    for e in range(job.elements):
        if ((high and job.rows.without >> (e // side) & 1) or (wide and job.columns.without >> (e % side) & 1)):
            for t in range(at_tile, at_tile + run):
                for c in range(job.ldv // FC_WINOGRAD_CHANNELS):
                    memset(v + (planes_at(&job.planes, t, 0) + c * job.planes.slice + e // side * job.planes.element_row
                                + e % side * job.planes.element) * job.kernels.size, 0,
                           FC_WINOGRAD_CHANNELS * job.kernels.size)


cdef void winograd_places(const WinogradJob* job, size first, size count, size levels, size width, size* v_row,
                          size* m_row, size* counts) noexcept nogil:
    """Where V and M hold the tiles of a block, plane after plane: all, those with all rows, with all columns, with both.

    The channels of the planes under a tile lie side by side in V, and so those of the next one begin a plane later.
    """
    cdef size t, z, needs, at, row, column
    for needs in range(4):
        at = needs * job.block
        counts[needs] = 0
        for z in range(levels):
            for t in range(count):
                column, row = (first + t) % job.tile_columns, (first + t) // job.tile_columns % job.tile_rows
                if (needs & 1 and row >= job.rows.whole) or (needs & 2 and column >= job.columns.whole):
                    continue
                v_row[at + counts[needs]] = t * job.ldv + z * job.stride_z * job.plane_channels
                m_row[at + counts[needs]] = (z * count + t) * width
                counts[needs] += 1


cdef const char* winograd_whole_rows(const WinogradJob* job, size first, size count, size* bytes) noexcept nogil:
    """The outputs of the whole rows of tiles of a block, where those of a single image lie one after the other."""
    cdef size row = (first + job.tile_columns - 1) // job.tile_columns, end = (first + count) // job.tile_columns
    bytes[0] = 0
    if (job.panels > 1 or job.y.n[0] * job.depth > 1 or row >= end or job.y.s[1] != job.kernels.size
            or job.y.s[3] != job.outputs * job.kernels.size or job.y.s[2] != job.y.n[3] * job.y.s[3]):
        return NULL
    row, end = row * job.tile >> job.pool, min(end * job.tile >> job.pool, job.y.n[2])
    bytes[0] = (end - row) * job.y.s[2]
    return job.y.p + row * job.y.s[2]


cdef void winograd_products(const WinogradJob* job, size panel, size width, const size* counts, const char* v,
                            const size* v_row, char* m, const size* m_row, char* scratch_u, char* taps,
                            const char* lines, size line_bytes, fc_watch* watch) noexcept nogil:
    """M[e] = V[e] U[e] of one panel: an ordinary matrix product for every element, each of which fetches its share of the
    lines of outputs."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size plane_v = job.planes.element * kernels.size, plane_m = job.block * width * kernels.size
    cdef size vectors = width // kernels.lanes, c = 0, n, e, k0, plane_u, i, j, needs
    cdef size side = job.transforms.elements, weights = job.transforms.weights
    cdef const char* u
    cdef const char* plane
    # the transform back comes between
    cdef Ends ends = Ends(NULL, NULL, NULL, LINEAR, NULL, NULL, NULL, NULL, 0, False, 0, NULL, 0)
    cdef fc_segment segment
    while c < job.channels:
        if fc_interrupted(watch):
            return
        n = min(job.slice, job.channels - c)
        if job.transformed != NULL:
            u = job.transformed + panel * job.width * weights * weights * job.channels * kernels.size
            plane_u = job.channels * width
        else:
            u = scratch_u
            plane_u = n * width + kernels.lanes   # planes a power of two apart would share cache sets
            winograd_slice(job, panel, width, c, n, taps, scratch_u, plane_u)
        for e in range(job.elements):
            i, j = e // side, e % side
            if c == 0 and lines != NULL:
                ends.coming_bytes = line_bytes // job.elements
                ends.coming = lines + e * ends.coming_bytes
            needs = (job.rows.without >> i & 1) + 2 * (job.columns.without >> j & 1)
            if counts[needs] == 0:
                continue
            plane = u + (min(i, weights - 1) * weights + min(j, weights - 1)) * plane_u * kernels.size
            k0 = 0
            while k0 < n:
                segment.a = c + k0
                segment.b = k0
                segment.k = min(job.kc, n - k0)
                direct_block(kernels, v + e * plane_v, v_row + needs * job.block, plane, vectors, width, &segment, 1,
                             counts[needs], m + e * plane_m, m_row + needs * job.block, &ends, c + k0 == 0, False)
                k0 += job.kc
        c += n


cdef void winograd_few_products(const WinogradJob* job, size panel, size width, size slots, const char* v, char* m,
                                char* taps, fc_watch* watch) noexcept nogil:
    """The same, four tiles and one vector of outputs at a time, from weights as they are."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size c = 0, n, tap_stride, vector, four, row, i
    cdef const char* w
    while c < job.channels:
        if fc_interrupted(watch):
            return
        n = min(<size>FC_WINOGRAD_CHANNELS, job.channels - c)
        w = winograd_taps(job, panel, width, c, n, taps, &tap_stride)
        for vector in range(width // kernels.lanes):
            i = vector * kernels.lanes
            for four in range(slots // FC_WINOGRAD_TILES):
                for row in range(job.transforms.elements):
                    job.transforms.products(
                        <int>row, v + (planes_at(&job.planes, four * FC_WINOGRAD_TILES, c) + row * job.planes.element_row)
                        * kernels.size, w + i * kernels.size, tap_stride, width, n,
                        m + (four * FC_WINOGRAD_TILES * width + i) * kernels.size, slots * width, width, c > 0)
        c += n


cdef const char* winograd_taps(const WinogradJob* job, size panel, size width, size channel, size channels, char* taps,
                               size* tap_stride) noexcept nogil:
    """Where the weights of some channels of a panel lie, their taps `tap_stride` apart: in `taps` if not packed, or in 16
    bits."""
    cdef const Weights* w = &job.weights
    cdef size tap
    if w.packed != NULL and w.kernels.widen == NULL:
        tap_stride[0] = job.channels * width
        return packed_panel(w, 0, panel) + channel * width * job.kernels.size
    tap_stride[0] = channels * width
    if w.packed == NULL:
        pack_panel(w, 0, panel, channel, channels, taps)
        return taps
    for tap in range(volume(w.taps)):
        w.kernels.widen(taps + tap * channels * width * job.kernels.size,
                        packed_panel(w, 0, panel) + tap * w.steps * width * w.kernels.weight_size, channel, channels, width)
    return taps


cdef void winograd_slice(const WinogradJob* job, size panel, size width, size channel, size channels, char* taps, char* u,
                         size plane) noexcept nogil:
    """u[e * plane:] = the transformed weights of some channels of a panel."""
    cdef size tap_stride
    cdef const char* w = winograd_taps(job, panel, width, channel, channels, taps, &tap_stride)
    job.transforms.transform(u, plane, width, w, tap_stride, channels)


cdef void winograd_transform_run(const fc_kernels* kernels, fc_winograd_input transform, size high, size wide, size apart,
                                 const View* x, int code, int mode, size image, size channel, size channels, size y,
                                 size row_step, size left, size column_step, size run, char* region, char* v,
                                 const Planes* planes, size at_tile) noexcept nogil:
    """Transform `run` tiles side by side, high x wide pixels each and `apart` from the next, of every row_step-th row and
    column_step-th column, reading the array as it lies where that is possible; the first goes to v as `at_tile`."""
    cdef size first = 0, last = run, reach = (wide - 1) * column_step, step = apart * column_step, t, c, n
    cdef const char* at
    # tiles first..last-1 lie inside the array
    if (code == kernels.input and x.s[1] == kernels.size and y >= 0 and y + (high - 1) * row_step < x.n[2]
            and channels % kernels.lanes == 0 and x.s[0] % kernels.size == 0 and x.s[2] % kernels.size == 0
            and x.s[3] % kernels.size == 0 and <size>x.p % kernels.size == 0):
        if left < 0:
            first = min(run, (step - 1 - left) // step)
        last = first if left + reach >= x.n[3] else max(first, min(run, (x.n[3] - 1 - reach - left) // step + 1))
    else:
        last = 0
    if first > 0:
        winograd_pack_run(kernels, transform, high, wide, apart, x, code, mode, image, channel, channels, y, row_step, left,
                          column_step, first if last > first else run, region, v, planes, at_tile)
        if last <= first:
            return
    at = x.p + image * x.s[0] + channel * x.s[1] + y * x.s[2] + left * x.s[3]
    for t in range(first, last):
        c = 0
        while c < channels:
            n = channels if planes.slice == FC_WINOGRAD_CHANNELS else min(<size>FC_WINOGRAD_CHANNELS, channels - c)
            transform(at + t * step * x.s[3] + c * kernels.size, x.s[2] // kernels.size * row_step,
                      x.s[3] // kernels.size * column_step, n, v + planes_at(planes, at_tile + t, c) * kernels.size,
                      planes.element_row, planes.element)
            c += n
    if last < run:
        winograd_pack_run(kernels, transform, high, wide, apart, x, code, mode, image, channel, channels, y, row_step,
                          left + step * last, column_step, run - last, region, v, planes, at_tile + last)


cdef void winograd_pack_run(const fc_kernels* kernels, fc_winograd_input transform, size high, size wide, size apart,
                            const View* x, int code, int mode, size image, size channel, size channels, size y,
                            size row_step, size left, size column_step, size run, char* region, char* v,
                            const Planes* planes, size at_tile) noexcept nogil:
    """The tiles that reach over a border, or an array that no vector can be loaded from: by way of a packed region."""
    cdef size columns = apart * (run - 1) + wide, c = 0, n, padded, t
    while c < channels:
        n = min(FC_WINOGRAD_CHANNELS, channels - c)
        padded = round_up(n, kernels.lanes)
        if padded != n:
            memset(region, 0, high * columns * padded * kernels.size)
        pack_region(kernels, code, x, image, channel + c, n, y, row_step, high, left, column_step, columns, columns,
                    mode, padded, region)
        for t in range(run):
            transform(region + apart * t * padded * kernels.size, columns * padded, padded, padded,
                      v + planes_at(planes, at_tile + t, c) * kernels.size, planes.element_row, planes.element)
        c += n


cdef void winograd_output_run(const WinogradJob* job, size level, size tile, size run, size panel, size vectors,
                              const char* m, size plane, char* output) noexcept nogil:
    """Transform back `run` neighbouring tiles of one panel and plane, and store them."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size column = tile % job.tile_columns, row = tile // job.tile_columns % job.tile_rows
    cdef size image = tile // job.tile_columns // job.tile_rows, width = vectors * kernels.lanes
    cdef size tile_side = job.tile, y = row * tile_side, x = column * tile_side
    cdef size rows = min(tile_side, job.size_y - y), columns = min(tile_side * run, job.size_x - x)
    cdef size first = panel * job.width, count = min(job.width, job.outputs - first), t, r, row_step, column_step
    cdef const char* bias = NULL
    cdef const char* residual = NULL
    cdef char* to = (job.y.p + image * job.y.s[0] + level * job.y.s[4] + first * job.y.s[1]
                     + (y >> job.pool) * job.y.s[2] + (x >> job.pool) * job.y.s[3])
    cdef char* c = output
    cdef int finite = 1
    cdef fc_winograd_output back
    cdef bint in_output = (not job.pool and width == count and job.y.s[1] == kernels.size and not job.has_residual
                           and job.y_code == kernels.sum and job.y.s[2] % kernels.size == 0
                           and job.y.s[3] % kernels.size == 0 and <size>to % kernels.size == 0)
    if in_output:
        c, row_step, column_step = to, job.y.s[2] // kernels.size, job.y.s[3] // kernels.size
    else:
        row_step, column_step = columns * width, width
    if job.bias != NULL:
        bias = job.bias + first * kernels.size
    for t in range(run):
        back = job.transforms.output[short_at(&job.rows, row)][short_at(&job.columns, column + t)]
        finite &= back(m + t * width * kernels.size, plane, <int>vectors,
                                        c + tile_side * t * column_step * kernels.size, row_step, column_step, rows,
                                        min(tile_side, columns - tile_side * t), bias,
                                        (in_output or job.pool) and job.activation == RELU)
    if not finite:
        fc_raise_flag(job.flags + (image * job.depth + level) * job.tile_rows + row)
    if job.pool:
        for r in range(rows // 2):
            job.transforms.pool(c + 2 * r * row_step * kernels.size, row_step, column_step, columns // 2, <int>vectors,
                                to + r * job.y.s[2], job.y.s[3] // kernels.size)
        return
    if in_output and (job.activation == LINEAR or job.activation == RELU):
        return
    if (row_step == columns * column_step and job.y.s[2] == columns * job.y.s[3]
            and (not job.has_residual or job.residual.s[2] == columns * job.residual.s[3])):
        columns, rows = rows * columns, 1   # rows that follow each other
    for r in range(rows):
        if job.has_residual:
            residual = (job.residual.p + image * job.residual.s[0] + level * job.residual.s[4]
                        + first * job.residual.s[1] + (y + r) * job.residual.s[2] + x * job.residual.s[3])
        kernels.store[job.y_code](c + r * row_step * kernels.size, column_step, columns, count, to + r * job.y.s[2],
                                  job.y.s[3], job.y.s[1], NULL, job.activation, residual,
                                  job.residual.s[3] if job.has_residual else 0,
                                  job.residual.s[1] if job.has_residual else 0)
