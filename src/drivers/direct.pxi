# Direct convolution (after Zhang, Franchetti, Low, "High Performance Zero-Memory Overhead Direct Convolutions", ICML
# 2018, and the five loops of BLIS). One pass serves the forward convolution, each phase of the input gradient and of
# the transposed convolution, and each phase of the tiled one: they differ in tap offsets and strides alone.
#
#   for tile of output pixels x group x run of panels      threads take these      region: second-level cache
#     leave out the planes, rows and columns of taps that meet padding alone
#     pack the region of the input under the tile          or none: where all its outputs meet the same taps
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
    IN_PLACE = 0   # channels side by side, every output of a tile meets the same taps: the input is the region
    REGION = 1
    GATHER = 2     # enormous windows: pixels x kc elements at a time

cdef struct Before:        # what is done to the input while it is copied: x * scale + shift of each channel, then relu
    const char* scale      # NULL: nothing, the input is read as it lies
    const char* shift      # or NULL
    int relu


cdef struct DirectPass:                        # what is counted along an axis: [z, y, x]
    const fc_kernels* kernels
    View x, y, residual
    Weights weights
    int x_code, y_code, activation, mode, source
    Before before
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
    char** flags                               # of the images in which merged phases have a NaN; NULL where none merge
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
    # What is done with the bytes of y when all of a tile's panels are there: another byte for each, and bytes of the
    # residual added; NULL: neither.
    const unsigned char* byte_table
    const fc_byte_sum* byte_sum
    const fc_byte_kernels* byte_kernels
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
    char* flags


cdef struct Held:
    size number     # of the panel in a thread's scratch, counted over all passes and groups; -1 at first
    bint finite
    const DirectPass* laid      # whose offsets lie there: of tiles of this shape,
    size images
    size shape[3]
    size sums                   # and of their sums, side by side so far apart or, -1, in the output; 0 at first


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
    PANEL_AT = 64    # bytes of a thread's scratch before its panel: Held
    FETCH_BYTES = 4 << 20   # of an output, written a panel at a time, from which on its lines are fetched before: caches of
                            # the second level hold less, and the processor sees no stream. Gains 2 to 4 % at 5 and
                            # 6.5 MB, costs half a percent at 2 MB (Zen 4)
    FETCH_STEPS = 64        # of a sum at least


cdef class Direct(Program):
    """A convolution as passes of the direct driver, which each write their phase of the output.

    Direct(codes, extent, passes, blockings, in_place, transposed, line), of which it reads

    codes       `compute`, `input`, `weight`, `result`
    extent      `groups`, `channels` and `outputs` of one group (the reduction, and the width of the panels), `size` of the
                output (z, y, x), `input_size` (z, y, x), `mode` of the padding, `terms` of a sum where others are zeros,
                whether the scratch is `capped`
    passes      the output (i, j, k) of a pass sums x[.., i*stride[0] + taps[0][a], j*stride[1] + taps[1][b], ...] over its
                `taps`, which are the `places` of the kernel, and lies at `phase` + (i, j, k) * `step` of y. `merge`
                phases (z, y, x), from `phase` on, share a pass: outputs [phase z][phase y][phase x][channel] of one panel,
                each at its own pixel of y
    blockings   of every pass: `source`, `images` and `tile` (z, y, x) that a task takes at most, `edges` of the tiles
                along each axis (None: all are as large as can be), steps of a block of the `reduction`,
                `panels_per_task`, and whether it `streams`: packs the weights of a single run, all of them finite, for a
                block of the reduction at a time
    in_place    for every pass None or the blocking to take instead where the array can be read as it lies: in its tiles all
                outputs meet the same taps
    transposed  the weights' first axis is the reduction
    line        None or, where every output is of the pixel that lies where it does, the same of images as lines of all
                their pixels: tiles end anywhere, which shares small images out evenly
    """
    cdef Direct line
    cdef DirectPass* passes         # zeros at first, as every C attribute: what was not allocated is freed as NULL
    cdef DirectPass* alternatives   # that read the input in place; without kernels where there is none
    cdef size count
    cdef bint transposed, capped
    cdef size few_taps_bytes, shifted_bytes
    cdef object made_of

    def __init__(self, codes, extent, passes, blockings, in_place, bint transposed, Direct line=None):
        cdef size i
        self.line = line
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
        self.few_taps_bytes = 0 if self.capped else few_taps_bytes(self.passes, self.count)
        self.shifted_bytes = shifted_bytes(self.passes) if self.count == 1 and not self.capped else 0

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
        direct_edges(p, blocking.edges, input_size)
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
        if lies and self.line is not None:
            return self.line.blocking(i, True)
        tasks = p.tiles[0] * p.tiles[1] * p.tiles[2] * p.groups * p.panel_chunks
        edges = tuple([tuple([p.edge[axis][k] for k in range(p.tiles[axis] + 1)]) for axis in range(3)])
        return p.source, p.images, edges, p.kc, tasks

    cpdef size planes(self):
        """Scratch of one thread where arrays in which the pixels of a channel lie side by side are read and written as they
        lie; 0 where they are not."""
        if (self.count == 1 and not self.capped and self.alternatives[0].kernels != NULL
                and planes_fit(self.passes)):
            return planes_scratch(self.passes)
        return 0

    def few(self):
        """Whether channels-last arrays are computed with a lane a pixel, as there are few outputs."""
        return self.count == 1 and self.alternatives[0].kernels != NULL and few_fit(&self.alternatives[0])

    def point(self):
        """Whether weights are read as they lie where there is one image of one pixel, whose channels and outputs lie side by
        side, as do the weights of an output, and nothing is added."""
        return self.count == 1 and point_fit(&self.passes[0])

    def adds_in_place(self):
        """Whether a residual may lie where the result will: each value is read by whoever writes it, before, and what is
        there is never computed again."""
        cdef const DirectPass* p = self.passes
        return (self.count == 1 and p.merged == p.outputs and volume(p.apart) == 1 and self.few_taps_bytes == 0
                and (self.kernels.sum == FC_F32 or self.kernels.sum == FC_F64))

    cpdef size few_taps(self):
        """Scratch of one thread where packed weights of several taps and few outputs are met with a lane a pixel; 0 where
        they are not."""
        return self.few_taps_bytes

    cpdef size shifted(self, size images=1, int threads=1):
        """Scratch of one of so many threads where packed weights of several taps meet channels-first arrays with a lane a
        pixel; 0 where they do not."""
        cdef ShiftedJob job
        if self.shifted_bytes == 0:
            return 0
        shifted_numbers(&job, self.passes, images * self.passes.groups, threads)
        return shifted_scratch(&job)

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
        if lies and self.line is not None:
            most = self.line.scratch_bytes(packed, True)
        for i in range(self.count):
            p = self.chosen(i, lies)[0]
            p.weights.packed = <const char*>p.places if packed else NULL  # whether there are any is all that counts
            direct_scratch(&p)
            most = max(most, p.scratch_bytes)
        most = max(most, self.few_taps() if packed else 0)
        return most if lies else max(most, self.planes(), self.shifted() if packed else 0)

    def scales(self):
        """Whether `run_scaled` may be called, of channels-last inputs: one tap, which is read in place, a lane an output."""
        return (self.count == 1 and self.alternatives[0].kernels != NULL and volume(self.passes[0].taps) == 1
                and self.kernels.pack_scaled != NULL and not self.few())

    def run_scaled(self, x, scale, shift, bint relu, weight, packed, bias, residual, y, int activation, int threads):
        """`run` of x * scale + shift, not below 0 with `relu`, of channels-last arrays: `scale` has a value a channel, as has
        `shift`, which may be None."""
        return self.bind_scaled((scale, shift, relu), x, weight, packed, bias, residual, y, activation, True, threads).run()

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        return self.bind_scaled(None, x, weight, packed, bias, residual, y, activation, channels_last, threads)

    cdef Work bind_scaled(self, before, x, weight, packed, bias, residual, y, int activation, bint channels_last,
                          int threads):
        """The weights are `packed` (`panels` and `finite` of `pack_weights`; of several passes, one a pass) or, where that
        is None, packed on the way. Flags are a byte an image: 1 for one in which merged phases, whose weights are zero
        at taps of others, have a NaN."""
        cdef Work work = Work()
        cdef View vx, vy, vr, vb, vw, vm
        cdef DirectRun* run
        cdef fc_requantise* requantise = NULL
        cdef fc_byte_sum* byte_sum = NULL
        cdef unsigned char* byte_table = NULL
        cdef DirectPass* p
        cdef Direct of_ = self
        cdef size i, count = self.count
        work.activation(x, &vx, False, channels_last)
        work.activation(y, &vy, True, channels_last)
        work.weight(weight, &vw, channels_last)
        if residual is not None:
            work.activation(residual, &vr, False, channels_last)
        vb.p = vm.p = NULL
        if bias is not None and type(bias) is not ndarray and hasattr(bias, "multiplier"):
            requantise = direct_requantise(work, bias, self.result)
            work.view(bias.multiplier, &vm, False)
            if bias.table is not None:
                byte_table = direct_byte_table(work, bias.table)
            if residual is not None:
                byte_sum = direct_byte_sum(work, bias.added)
            if bias.table is not None and not side_by_side(&vy, 1) or (
                    residual is not None and not (side_by_side(&vy, 1) and side_by_side(&vr, 1))):
                raise ValueError("more is done with bytes where channels lie side by side alone")
            bias = bias.shift
        if bias is not None:
            work.view(bias, &vb, False)
        if count == 0 or elements(&vy) == 0:
            return work
        if (self.line is not None and direct_usable(self.kernels, &vx, self.input, self.passes[0].groups)
                and is_line(&vx) and is_line(&vy) and (residual is None or is_line(&vr))):
            of_ = self.line
            as_line(&vx)
            as_line(&vy)
            if residual is not None:
                as_line(&vr)
        work.keep = of_
        run = <DirectRun*>work.own(sizeof(DirectRun) + count * sizeof(DirectPass))
        run.passes, run.count = <DirectPass*>(run + 1), count
        for i in range(count):
            p = &run.passes[i]
            p[0] = of_.chosen(i, direct_usable(self.kernels, &vx, self.input, of_.passes[i].groups))[0]
            p.x, p.activation, p.bias = vx, activation, vb.p
            p.before.scale = NULL
            if before is not None:
                direct_before(work, p, before)
            if p.source == IN_PLACE:
                p.merged_taps = vx.s[3] == p.steps * self.kernels.input_size and adjacent_taps(p)
            p.requantise, p.multiplier = requantise, <const float*>vm.p
            p.byte_sum, p.byte_table, p.byte_kernels = byte_sum, byte_table, isa.bytes
            if p.merge[2] > 1 and vb.p != NULL:
                p.bias = direct_bias_beside(work, p, vb.p)
            elif self.kernels.partial and vb.p != NULL and p.outputs % self.kernels.lanes:
                p.bias = direct_whole_vectors(work, p, vb.p)
            p.has_residual, p.flags = residual is not None, NULL
            if p.merged < p.outputs and (self.kernels.sum == FC_F32 or self.kernels.sum == FC_F64):
                p.flags = work.flags = &run.flags
                work.flag_count = vy.n[0]
            direct_phase(p, &p.y, &vy)
            work.place(&p.x.p)
            work.place(&p.y.p)
            if p.has_residual:
                direct_phase(p, &p.residual, &vr)
                work.place(&p.residual.p)
            self.bind_pass(p, &vw, packed, i, work)
        if before is not None:
            direct_work(work, run, threads)
        elif of_.planes() and planes_usable(run.passes):
            planes_work(work, run.passes, threads)
        elif of_.shifted_bytes and shifted_usable(run.passes):
            shifted_work(work, run.passes, threads)
        elif count == 1 and few_usable(run.passes):
            few_work(work, run.passes, threads)
        elif count == 1 and point_usable(run.passes):
            point_work(work, run.passes, threads)
        elif of_.few_taps_bytes and few_taps_usable(run):
            few_taps_work(work, run, threads)
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


cdef int direct_before(Work work, DirectPass* p, before) except -1:
    """What is done to the input on its way."""
    scale, shift, p.before.relu = before
    if p.source != IN_PLACE or volume(p.taps) != 1 or p.kernels.pack_scaled == NULL:
        raise ValueError("an input is scaled on its way where one tap would read it in place")
    p.before.scale = direct_by_channel(work, p, scale)
    p.before.shift = direct_by_channel(work, p, shift) if shift is not None else NULL
    return 0


cdef const char* direct_by_channel(Work work, const DirectPass* p, array) except NULL:
    """Values of the input's type, a channel each, in the memory of a work."""
    cdef size bytes = p.x.n[1] * p.kernels.input_size
    cdef const unsigned char[::1] given = array.view("u1")
    cdef char* own
    if given.shape[0] != bytes:
        raise ValueError("a factor and a shift for every channel of the input")
    own = <char*>work.own(bytes)
    memcpy(own, &given[0], bytes)
    return own


cdef fc_requantise* direct_requantise(Work work, how, int result) except NULL:
    """How sums become bytes, in the memory of a work: `zero`, `low` and `high` of the result, and whether `wide`."""
    cdef fc_requantise* own = <fc_requantise*>work.own(sizeof(fc_requantise))
    own.zero, own.low, own.high, own.is_signed = how.zero, how.low, how.high, result == FC_I8
    own.wide = how.wide
    return own


cdef unsigned char* direct_byte_table(Work work, table) except NULL:
    """256 bytes in the memory of a work."""
    cdef unsigned char* own = <unsigned char*>work.own(256)
    cdef const unsigned char[::1] given = table
    if given.shape[0] != 256:
        raise ValueError("a table of bytes has 256")
    memcpy(own, &given[0], 256)
    return own


cdef fc_byte_sum* direct_byte_sum(Work work, how) except NULL:
    """What is added to bytes of a result, in the memory of a work: the scales and zeros of both and of the sum, its least
    and largest integer, whether all have a sign."""
    cdef fc_byte_sum* own = <fc_byte_sum*>work.own(sizeof(fc_byte_sum))
    cdef int flip = 0
    own.scale_a, own.zero_a, own.scale_b, own.zero_b, own.scale, own.zero, own.low, own.high, signed = how
    if signed:
        flip = 128
    own.zero_a, own.zero_b, own.zero = own.zero_a + flip, own.zero_b + flip, own.zero + flip
    own.low, own.high, own.flip = own.low + flip, own.high + flip, flip
    return own


cdef char* direct_whole_vectors(Work work, const DirectPass* p, const char* bias) except NULL:
    """The bias with room behind it for the rest of the last vector, in the memory of a work."""
    cdef size bytes = p.groups * p.outputs * p.kernels.size
    cdef char* own = <char*>work.own(bytes + p.kernels.lanes * p.kernels.size)
    memcpy(own, bias, bytes)
    memset(own + bytes, 0, p.kernels.lanes * p.kernels.size)
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


cdef int direct_edges(DirectPass* p, edges, const size* input_size) except -1:
    """Where the tiles of each axis begin, and where the last one ends, then their order, in one allocation."""
    cdef size count = 0, k, begin, end, low, span
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
        sizes = [[], [], []]   # of tiles, times the taps that they walk
        for axis in range(3):
            for k in range(p.tiles[axis]):
                begin, end = 0, p.taps[axis]
                if p.mode == FC_ZEROS:
                    taps_met(p.tap[axis], p.taps[axis], p.stride[axis], p.edge[axis][k],
                             p.edge[axis][k + 1] - p.edge[axis][k], input_size[axis], &begin, &end, &low, &span)
                sizes[axis].append((end - begin) * (p.edge[axis][k + 1] - p.edge[axis][k]))
        work = [z * y * x for z in sizes[0] for y in sizes[1] for x in sizes[2]]
        for k, number in enumerate(sorted(range(len(work)), key=work.__getitem__, reverse=True)):
            p.order[k] = number
    return 0


cdef void direct_phase(const DirectPass* p, View* out, const View* array) noexcept nogil:
    phase_view(out, array, p.phase[1], p.phase[2], p.apart[1], p.apart[2], p.phase[0], p.apart[0])


cdef bint direct_usable(const fc_kernels* kernels, const View* x, int code, size groups) noexcept nogil:
    """Whether a pass that reads the input in place can read this array."""
    cdef size unit = kernels.input_size
    return (code == kernels.input and x.n[1] // groups % kernels.tile_k == 0 and side_by_side(x, unit) and x.s[0] % unit == 0
            and x.s[2] % unit == 0 and x.s[3] % unit == 0 and x.s[4] % unit == 0 and <size>x.p % unit == 0)


cdef inline bint is_line(const View* array) noexcept nogil:
    """Whether the rows of an image follow each other, and its planes."""
    return ((array.n[2] == 1 or array.s[2] == array.n[3] * array.s[3])
            and (array.n[4] == 1 or array.s[4] == array.n[2] * array.n[3] * array.s[3]))


cdef inline void as_line(View* array) noexcept nogil:
    array.n[3] *= array.n[4] * array.n[2]
    array.n[4] = array.n[2] = 1


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
    # idle lanes take as long as others
    products *= passes[0].groups * round_up(passes[0].outputs, passes[0].kernels.lanes)
    products = worth_of(products * passes[0].y.n[0] * passes[0].channels, pixels)
    work.task, work.begin, work.job = direct_any_task, direct_begin, run
    work.sites = 1   # of several passes, and of tiles in the order of their work, every second one is a thread's
    if run.count == 1 and passes[0].order == NULL:
        work.sites = sites_of((passes[0].y.n[0] + passes[0].images - 1) // passes[0].images, passes[0].groups,
                              volume(passes[0].tiles))
    return work.team(threads if products >= PARALLEL_FROM_MACS else 1)


cdef void direct_begin(void* run, char* scratch, size scratch_bytes, int threads) noexcept nogil:
    cdef int i
    for i in range(threads):
        (<Held*>(scratch + i * scratch_bytes)).number = -1
        (<Held*>(scratch + i * scratch_bytes)).laid = NULL


cdef inline size direct_tiles(const DirectPass* p) noexcept nogil:
    return (p.y.n[0] + p.images - 1) // p.images * volume(p.tiles) * p.groups


cdef void direct_any_task(void* run, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const DirectPass* passes = (<DirectRun*>run).passes
    cdef size i = (<DirectRun*>run).count - 1
    while passes[i].first_task > task:
        i -= 1
    direct_task(passes + i, scratch, task - passes[i].first_task, watch)


cdef void direct_task(const DirectPass* p, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const fc_kernels* kernels = p.kernels
    cdef size chunk = task // direct_tiles(p)
    cdef Held* held = <Held*>scratch
    cdef size panel, last, first, count, vectors, width, filled, i, laid
    cdef size writes = p.y.n[0] * volume(p.extent) * p.groups * p.outputs * kernels.size
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
    # whether a panel that does not fill its vectors may be summed where it will lie
    cdef bint leaves = (kernels.partial and not p.has_residual and not p.long_ and p.blocks == 1 and p.source != GATHER
                        and not streamed(p))
    a_row = <size*>(temporary + round_up(tile_pixels(p) * p.width * kernels.size, 64))
    c_row = a_row + tile_pixels(p)
    residual_row = c_row + tile_pixels(p)
    spare = <fc_segment*>(<char*>a_row + round_up(3 * tile_pixels(p) * sizeof(size), 64))
    direct_tile(p, task % direct_tiles(p), &t)
    direct_met(p, &t, &met)
    if held.laid != p or held.images != t.images or memcmp(held.shape, t.shape, sizeof(t.shape)) != 0:
        held.laid, held.images, held.sums = p, t.images, 0
        memcpy(held.shape, t.shape, sizeof(t.shape))
        direct_lay_out(p, &t, a_row)
    a = direct_input(p, &t, &met, region)

    last = min((chunk + 1) * p.panels_per_task, p.panels)
    for panel in range(chunk * p.panels_per_task, last):
        if panel > chunk * p.panels_per_task and fc_interrupted(watch):
            return
        first = panel * p.width
        count = min(p.width, p.outputs - first)
        vectors = (count + kernels.lanes - 1) // kernels.lanes
        width = vectors * kernels.lanes
        filled = width
        if not p.long_ and p.merged == p.outputs:   # else all of the panel is read again
            vectors = tile_vectors(kernels, count)
            if vectors > FC_MAX_VECTORS:
                filled -= kernels.lanes // 2
        b = direct_panel(p, scratch, t.group, panel, &finite)
        skip = not finite and p.mode == FC_ZEROS
        first += t.group * p.outputs
        to = tile_origin(&p.y, &t, first)
        residual = tile_origin(&p.residual, &t, first) if p.has_residual and not to_bytes else NULL
        ends.partial = 0
        if filled > count:
            ends.partial = count - filled + (kernels.lanes // 2 if vectors > FC_MAX_VECTORS else kernels.lanes)
        # a panel of a channels-last output of the computing type is summed where it will lie
        in_output = (not to_bytes and (filled == count or (leaves and met.all and not skip))
                     and p.merged == p.outputs and p.y_code == kernels.sum and not p.long_
                     and in_elements(&p.y, to, kernels.size)
                     and (residual == NULL or in_elements(&p.residual, residual, kernels.size))
                     # parts of a sum must not lie where a residual still does
                     and (residual != to or (p.blocks == 1 and not skip and p.source != GATHER))
                     and (t.images == 1 or (p.y.s[0] % kernels.size == 0
                                            and (residual == NULL or p.residual.s[0] % kernels.size == 0))))
        if to_bytes and p.merged == p.outputs and p.y.s[1] == 1:   # bytes go where they will lie, whatever their number
            ends.requantise, ends.out, ends.out_row, ends.columns = p.requantise, to, residual_row, count
            if panel == chunk * p.panels_per_task:
                lay_out_view(residual_row, &t, &p.y, 1)
        else:
            ends.requantise = NULL
        ends.multiplier = p.multiplier + first if to_bytes else NULL
        if not in_output:
            ends.partial = 0
        c = to if in_output else temporary
        laid = -1 if in_output else width
        if in_output and residual != NULL and panel == chunk * p.panels_per_task:
            lay_out_view(residual_row, &t, &p.residual, kernels.size)
        if laid != held.sums:
            held.sums = laid
            if in_output:
                lay_out_view(c_row, &t, &p.y, kernels.size)
            else:
                lay_out(c_row, 1, t.pixels, 0, width)
        bias = p.bias + first * kernels.size if p.bias != NULL else NULL
        ends.fetch = in_output and p.panels > 1 and volume(p.taps) * p.steps >= FETCH_STEPS and writes >= FETCH_BYTES
        ends.bias = ends.residual = ends.coming = NULL
        ends.coming_bytes = 0
        ends.residual_row = residual_row
        ends.relu = p.activation if in_output and p.activation <= RELU6 else LINEAR
        if in_output or ends.requantise != NULL:
            ends.bias, ends.residual = bias, residual
        if p.source == GATHER:
            direct_gather(p, &met, &t, panel, region, b, vectors, width, a_row, c, c_row, &ends, skip, spare, totals,
                          watch)
        elif skip:
            direct_skip(p, &met, &t, a, b, vectors, width, a_row, c, c_row, &ends, spare, totals)
        elif not met.all or streamed(p) or p.long_ or p.source == IN_PLACE and volume(p.taps) > 1:
            direct_some_taps(p, &met, &t, panel, a, b, vectors, width, a_row, c, c_row, &ends, spare, totals)
        else:
            for i in range(p.blocks):
                direct_block(kernels, a, a_row, b, vectors, width, p.segments + p.block[i], p.block[i + 1] - p.block[i],
                             t.pixels, c, c_row, &ends, i == 0, i == p.blocks - 1)
        if in_output and p.activation <= RELU6 or ends.requantise != NULL:
            continue
        if p.merged < p.outputs:
            if p.flags != NULL and kernels.holds_nan(temporary, t.pixels * width):
                memset(p.flags[0] + t.image, 1, t.images)
            direct_spread(p, &t, temporary, width, to, residual)
        else:
            direct_store(p, &t, c, c_row, width, count, to, residual, bias, ends.multiplier, in_output)
    if p.byte_sum != NULL or p.byte_table != NULL:
        first = chunk * p.panels_per_task * p.width
        direct_end_bytes(p, &t, t.group * p.outputs + first, min(last * p.width, p.outputs) - first)


cdef void direct_end_bytes(const DirectPass* p, const Tile* t, size first, size channels) noexcept nogil:
    """What is done with the bytes of a tile, which are in the cache: row by row where channels lie side by side from pixel
    to pixel."""
    cdef size m, z, r, column, together = t.shape[2]
    cdef unsigned char* to
    cdef const unsigned char* add = NULL
    if p.y.s[3] != channels or (p.byte_sum != NULL and p.residual.s[3] != channels):
        together = 1
    for m in range(t.images):
        for z in range(t.shape[0]):
            for r in range(t.shape[1]):
                to = <unsigned char*>tile_origin(&p.y, t, first) + m * p.y.s[0] + z * p.y.s[4] + r * p.y.s[2]
                if p.byte_sum != NULL:
                    add = (<const unsigned char*>tile_origin(&p.residual, t, first) + m * p.residual.s[0]
                           + z * p.residual.s[4] + r * p.residual.s[2])
                for column in range(t.shape[2] // together):
                    if p.byte_table != NULL:
                        p.byte_kernels.look_up(to, to, together * channels, p.byte_table)
                    if p.byte_sum != NULL:
                        p.byte_kernels.add(to, to, add, together * channels, p.byte_sum)
                        add += p.residual.s[3]
                    to += p.y.s[3]


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
    """The epilogue of a tile, row by row, or rows together that follow each other; what was summed `in_output` has only its
    activation before it."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size m, z, r, row = 0, rows = 1
    cdef const char* add = NULL
    cdef size add_pixel = 0, add_channel = 0, pixel = p.y.s[3] // kernels.size if in_output else width
    if in_output:
        bias = residual = NULL
    if residual != NULL:
        add_pixel, add_channel = p.residual.s[3], p.residual.s[1]
    if (p.requantise == NULL and t.shape[1] > 1 and c_row[t.shape[2]] - c_row[0] == t.shape[2] * pixel
            and p.y.s[2] == t.shape[2] * p.y.s[3] and (residual == NULL or p.residual.s[2] == t.shape[2] * add_pixel)):
        rows = t.shape[1]
    for m in range(t.images):
        for z in range(t.shape[0]):
            r = 0
            while r < t.shape[1]:
                if p.requantise != NULL:
                    kernels.requantise(
                        c + c_row[row * t.shape[2]] * kernels.size, pixel, t.shape[2], count,
                        to + m * p.y.s[0] + z * p.y.s[4] + r * p.y.s[2], p.y.s[3], p.y.s[1], bias, p.requantise,
                        multiplier)
                    row += 1
                    r += 1
                    continue
                if residual != NULL:
                    add = residual + m * p.residual.s[0] + z * p.residual.s[4] + r * p.residual.s[2]
                p.kernels.store[p.y_code](
                    c + c_row[row * t.shape[2]] * kernels.size, pixel, rows * t.shape[2], count,
                    to + m * p.y.s[0] + z * p.y.s[4] + r * p.y.s[2], p.y.s[3], p.y.s[1], bias, p.activation, add,
                    add_pixel, add_channel)
                row += rows
                r += rows


cdef void direct_spread(const DirectPass* p, const Tile* t, const char* c, size width, char* to,
                        const char* residual) noexcept nogil:
    """The sums of merged phases, side by side in a panel, to their pixels of y: the last may lie outside. The pixels of a
    row are stored together where they lie side by side."""
    cdef size m, e, f, beside, z, r, planes, rows, whole = 0
    cdef const View* add = &p.residual
    cdef const char* added = NULL
    cdef bint lie = p.merge[2] > 1 and beside_another(p, &p.y) and (residual == NULL or beside_another(p, add))
    if lie:
        whole = min(t.shape[2], merged_count(p, 2, p.merge[2] - 1) - t.first[2])
    for m in range(t.images):
        for e in range(p.merge[0]):
            planes = min(t.shape[0], merged_count(p, 0, e) - t.first[0])
            for f in range(p.merge[1]):
                rows = min(t.shape[1], merged_count(p, 1, f) - t.first[1])
                for z in range(planes):
                    for r in range(rows):
                        beside = (e * p.merge[1] + f) * p.merge[2] * p.merged
                        beside += ((m * t.shape[0] + z) * t.shape[1] + r) * t.shape[2] * width
                        if residual != NULL:
                            added = residual + merged_row(p, add, m, e, f, z, r)
                        direct_spread_row(p, t, c + beside * p.kernels.size, width, whole,
                                          to + merged_row(p, &p.y, m, e, f, z, r), added)


cdef inline bint beside_another(const DirectPass* p, const View* array) noexcept nogil:
    """Whether the merged phases of a row are pixels side by side."""
    return array.s[3] == p.apart[2] * p.merged * merged_channel(p, array)


cdef inline size merged_channel(const DirectPass* p, const View* array) noexcept nogil:
    """How far the channels of a pixel lie apart; of a single one, the pixels."""
    return array.s[1] if p.merged > 1 else array.s[3] // p.apart[2]


cdef inline size merged_count(const DirectPass* p, int axis, size phase) noexcept nogil:
    """The outputs of one of the merged phases along an axis."""
    return (p.full[axis] - p.phase[axis] - phase + p.apart[axis] - 1) // p.apart[axis]


cdef inline size merged_row(const DirectPass* p, const View* array, size image, size phase_z, size phase_y, size plane,
                            size row) noexcept nogil:
    """How far from a tile's first pixel a row of two phases lies."""
    return (image * array.s[0] + phase_z * (array.s[4] // p.apart[0]) + phase_y * (array.s[2] // p.apart[1])
            + plane * array.s[4] + row * array.s[2])


cdef inline void direct_spread_row(const DirectPass* p, const Tile* t, const char* c, size width, size whole, char* to,
                                   const char* added) noexcept nogil:
    """The phases of a row of sums: of the first `whole` columns all together, then one after the other."""
    cdef size g, columns, skipped = max(<size>0, whole), pixel = 0, channel = 0, beside = merged_channel(p, &p.y)
    if added != NULL:
        pixel, channel = p.residual.s[3], merged_channel(p, &p.residual)
    if skipped > 0:
        p.kernels.store[p.y_code](c, width, skipped, p.merge[2] * p.merged, to, p.y.s[3], beside, p.bias,
                                  p.activation, added, pixel, channel)
    c += skipped * width * p.kernels.size
    to += skipped * p.y.s[3]
    if added != NULL:
        added += skipped * pixel
    for g in range(p.merge[2]):
        columns = min(t.shape[2], merged_count(p, 2, g) - t.first[2]) - skipped
        if columns > 0:
            p.kernels.store[p.y_code](c + g * p.merged * p.kernels.size, width, columns, p.merged,
                                      to + g * (p.y.s[3] // p.apart[2]), p.y.s[3], beside, p.bias, p.activation,
                                      added + g * (pixel // p.apart[2]) if added != NULL else NULL, pixel, channel)
