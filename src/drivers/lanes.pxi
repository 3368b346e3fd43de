# Depthwise and grouped convolution with few channels a group: every lane of a vector is an output channel with inputs of
# its own, so that vectors stay full whatever the size of a group.
#
#   for tile of output pixels x run of chunks (one or two vectors of output channels)        threads take these
#     chunk of whole vectors, one channel a group, channels side by side: read the input in place
#     else pack its region: the channels as they lie where the kernels pick the input of every lane,
#     or [row][column][channel of the group][lane]                                           second-level cache
#     for rectangle of output pixels that meet the same taps
#       for pixels of the register tile: taps innermost                                      micro-kernel, registers
#     epilogue: bias, residual, activation, layout, element type
#
# Rectangles are how padding is met: a tap over padded zeros is no tap of its rectangle, so that nothing is multiplied by
# a padded zero and the input needs no copy with a border. Every output is one sum in the order (tap y, channel, tap x),
# a long one made of sums of whole lines of taps, or of pieces of a line (drivers/totals.pxi).
# The input crosses the first-level cache once a row of taps; a row of the output is written once.

cdef enum:
    NEIGHBOUR_BYTES = 512   # channels of a pixel done together: its window of 10 x 3 pixels takes half a first level


cdef struct Run:
    size end, lo, hi   # outputs up to `end` meet the taps lo..hi-1


cdef struct LanesJob:
    const fc_kernels* kernels
    View x, y, residual
    int x_code, y_code, activation, mode
    bint has_residual, in_place, spread
    bint long_                                 # sums are made in blocks, of so many lines of taps or pieces of one
    size block_lines, block_columns
    size channels, outputs, total              # of one group: reduction and output channels; all output channels
    size stride_y, stride_x, taps_y, taps_x
    const size* tap_y                          # offset of every tap from output * stride, rising
    const size* tap_x
    size min_y, min_x, span_y, span_x, step_x  # step_x: columns between taps, 0 if they differ
    size first_row, first_column               # of the packed taps, of which these are a part
    size packed_rows, packed_columns
    const char* packed
    const char* bias
    size tile_y, tile_x, tiles_y, tiles_x, chunks, chunks_per_task, chunk_groups, width
    Run* runs_y
    Run* runs_x
    size region_bytes, row_bytes, totals_bytes, scratch_bytes
    bint may_lie                               # read in place where the arrays allow it
    Phase phase                                # the outputs that it writes
    bint picked                                # every lane picks its input from the vector read
    size next, group_step, pixel               # inputs between vectors; of every lane's group; of a packed pixel
    size* starts                               # the vector that holds channel c of the first lane's group
    char* picks                                # and where every lane finds it there: [channel][lane]


cdef struct LanesPasses:
    LanesJob* jobs
    size count


cdef struct Lines:
    size first, last, low, high   # taps of a block: lines (tap y, channel), and columns of them


# Where the lanes of one chunk read and write: offsets in elements from (row 0, column 0) of the input and the output.
cdef struct LanesAt:
    const char* a
    size a_y, a_x, a_channel, vectors
    size first, chunks                         # output channel and number of chunks done pixel by pixel
    const char* b                              # dY of the weight gradient
    size ldb
    char* c
    size c_y, c_x


cdef enum:
    STRIP_WIDTHS = 64


# Of the inputs from `offset` on, every `every`-th of an image (so many, `input`), output i of the pass sums
# x[i * stride + low + t * step] over its taps t. What is counted along an axis: [z, y, x].
cdef struct PatchPass:
    size taps[3]
    size low[3]
    size step[3]
    size offset[3]
    size every[3]
    size input[3]
    size first[3]                  # the outputs that it writes: from here on every `apart`-th, so many
    size apart[3]
    size outputs[3]
    size tap                       # where its taps begin among the packed ones
    const fc_patch* patch          # NULL: strips
    bint loose                     # of outputs that have columns of their own
    unsigned char widths[STRIP_WIDTHS]  # of the next strip, where so many outputs are left


cdef struct Patches:               # the passes of a depthwise convolution; none where there are no kernels for them
    const fc_kernels* kernels
    PatchPass* passes
    size count, total, macs        # passes; channels; of an image and channel
    size inputs                    # of the same
    size size[3]                   # of the output
    size stride[3]
    size places[3]                 # packed


cdef class Lanes(Program):
    """Passes over groups of few channels, with a lane for every output channel.

    `extent` has `groups`, `channels`, `outputs`, `size`, `input_size` and `mode`, every pass of `passes` one tap along the
    depth, and `blocking` has `tile`, `chunks_per_task` and whether scratch is `capped`. The weights are packed as one group
    of all output channels, in the order of the sums, for the rows and columns of the kernel that `places` says.

    Depthwise convolutions try patches first (drivers/patches.pxi).
    """
    cdef LanesJob* jobs
    cdef size count, taps, pixels    # of the pass with the most taps: outputs of an image and channel; packed taps
    cdef Patches patches_
    cdef bint capped                 # the scratch
    cdef readonly tuple rows, columns

    def __init__(self, codes, extent, tuple passes, blocking):
        cdef LanesJob* job
        cdef size most = 0, i
        self.compute_with(codes)
        self.capped = blocking.capped
        rows, self.rows = packed_places(passes, 1)
        columns, self.columns = packed_places(passes, 2)
        self.taps = len(self.rows) * len(self.columns)
        self.jobs = <LanesJob*>allocate(max(<size>1, <size>len(passes)) * sizeof(LanesJob))
        for p in passes:
            job = &self.jobs[self.count]
            job.kernels = self.kernels
            job.x_code, job.y_code = self.input, self.result
            job.first_row, job.first_column = rows[p.places[1]], columns[p.places[2]]
            job.packed_rows, job.packed_columns = len(self.rows), len(self.columns)
            read_phase(&job.phase, p, extent)
            if job.phase.size_y * job.phase.size_x == 0:
                continue
            lanes_numbers(job, extent, p, blocking.tile)
            self.count += 1
            if job.taps_y * job.taps_x > most:
                most, self.pixels = job.taps_y * job.taps_x, job.phase.size_y * job.phase.size_x
            job.may_lie = True
            lanes_prepare(job, blocking.chunks_per_task)
        patches_begin(&self.patches_, self.kernels, extent, passes)

    def __dealloc__(self):
        cdef size i
        for i in range(self.count):
            fc_free(<void*>self.jobs[i].tap_y)
            fc_free(self.jobs[i].runs_y)
        fc_free(self.jobs)
        fc_free(self.patches_.passes)

    def in_place(self, bint lies):
        """Whether the input is read as it lies, of arrays whose channels lie (`lies`) side by side in the computing type."""
        return bool(lies and self.jobs.in_place)

    def scratch_bytes(self, bint lies):
        """Scratch of one thread, for such arrays."""
        cdef LanesJob job
        cdef size i, most = 0
        for i in range(self.count):
            job = self.jobs[i]
            job.in_place = job.in_place and lies
            lane_scratch(&job)
            most = max(most, job.scratch_bytes)
        return most if lies else max(most, self.flat_bytes(), self.transposed())

    cpdef bint flat(self):
        """Whether arrays in which the pixels of a channel lie side by side are computed a lane a pixel."""
        return self.count == 1 and flat_fits(self.jobs)

    cpdef size flat_bytes(self):
        """Scratch of one thread where they are."""
        cdef FlatJob job
        if not self.flat():
            return 0
        flat_numbers(&job, self.jobs)
        return flat_scratch(&job)

    cpdef size transposed(self):
        """Scratch of one thread at most where such arrays are transposed for patches, as they leave lanes of pixels idle; 0
        where they are not."""
        cdef bint idle = 2 * self.patches_.size[2] <= <size>self.kernels.lanes
        return transposed_image(&self.patches_) if not self.capped and (idle or not self.flat()) else 0

    def patches(self, size images, int threads):
        """(rows and columns of a patch, tasks, threads, scratch of all, whether it packs) of the first pass over
        contiguous arrays, channels last; None where it is not computed in patches."""
        return patches_blocking(&self.patches_, images, threads)

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """By `packed.panels`, every element written that a pass reaches."""
        cdef Work work = Work()
        cdef LanesPasses* passes
        cdef LanesJob* job
        cdef Operands o, phase
        cdef View panels
        cdef size i, macs
        bind_operands(&o, work, x, bias, residual, y, activation, channels_last)
        work.view(packed.panels, &panels, False)
        work.keep = self
        if self.count == 0 or o.y.n[0] * o.y.n[1] == 0:
            return work
        if patches_bind(&self.patches_, self, &o, panels.p, threads, work):
            return work
        if self.transposed() and transposed_lie(&o):
            transposed_bind(&self.patches_, self, &o, panels.p, threads, False, work)
            return work
        if packed.finite and self.flat() and flat_bind(self.jobs, self, &o, panels.p, threads, work):
            return work
        passes = <LanesPasses*>work.own(sizeof(LanesPasses) + self.count * sizeof(LanesJob))
        passes.jobs, passes.count = <LanesJob*>(passes + 1), self.count
        for i in range(self.count):
            job = &passes.jobs[i]
            job[0] = self.jobs[i]
            phase = o
            bind_phase(&phase, &job.phase)
            job.x, job.y, job.residual, job.bias = phase.x, phase.y, phase.residual, phase.bias
            job.has_residual, job.activation, job.packed = o.has_residual, activation, panels.p
            lanes_arrays(job)
            places_of(work, &job.x, &job.y, &job.residual, job.has_residual)
            work.scratch_bytes = max(work.scratch_bytes, job.scratch_bytes)
            work.sites = max(work.sites, job.y.n[0] * job.tiles_y * job.tiles_x)
            work.tasks = max(work.tasks, job.y.n[0] * job.tiles_y * job.tiles_x * job.chunk_groups)
        # passes innermost: what one has read, the next finds in the cache
        work.tasks, work.sites = work.tasks * self.count, work.sites * self.count
        work.task, work.job = lanes_task, passes
        macs = o.y.n[0] * round_up(o.y.n[1], self.kernels.lanes) * self.pixels * self.jobs.channels * self.taps
        # bound by memory more than by arithmetic
        work.team(1 if 4 * macs < PARALLEL_FROM_MACS else threads)
        return work


cdef int lanes_numbers(LanesJob* job, extent, p, tile) except -1:
    """The numbers of one pass."""
    cdef size axes = len(tile)
    job.mode = extent.mode
    job.channels, job.outputs, job.total = extent.channels, extent.outputs, extent.groups * extent.outputs
    _, job.stride_y, job.stride_x = p.stride
    _, job.x.n[2], job.x.n[3] = extent.input_size
    job.y.n[2], job.y.n[3] = job.phase.size_y, job.phase.size_x
    job.tile_y, job.tile_x = tile[axes - 2], tile[axes - 1]
    return tap_offsets(job, p.taps[1], p.taps[2])


cdef int tap_offsets(LanesJob* job, tuple tap_y, tuple tap_x) except -1:
    """The taps as numbers (job.tap_y, to be freed by the caller) and room for the runs (job.runs_y)."""
    cdef size i, numbers
    cdef size* taps
    job.taps_y, job.taps_x = len(tap_y), len(tap_x)
    job.picked = lanes_pick(job.kernels, job.channels, job.outputs)
    numbers = job.taps_y + job.taps_x
    taps = <size*>allocate((numbers + (job.channels * (1 + job.kernels.lanes) if job.picked else 0)) * sizeof(size))
    job.starts, job.picks = taps + numbers, <char*>(taps + numbers + job.channels)
    for i in range(job.taps_y):
        taps[i] = tap_y[i]
    for i in range(job.taps_x):
        taps[job.taps_y + i] = tap_x[i]
    job.tap_y, job.tap_x = taps, taps + job.taps_y
    try:
        job.runs_y = <Run*>allocate((2 * (job.taps_y + job.taps_x) + 2) * sizeof(Run))
    except MemoryError:
        fc_free(taps)
        raise
    job.runs_x = job.runs_y + 2 * job.taps_y + 1
    return 0


cdef bint lanes_pick(const fc_kernels* kernels, size channels, size outputs) noexcept nogil:
    """Whether a vector of outputs finds the inputs of all its groups side by side in a vector, alike in all chunks."""
    if not kernels.picks or channels * outputs == 1:
        return False
    if kernels.lanes % outputs == 0:
        return channels <= outputs or outputs == kernels.lanes
    return outputs % (kernels.lane_vectors * kernels.lanes) == 0


def lanes_picked(int compute, size channels, size outputs):
    """Whether groups of so many channels and outputs need no copy of the input for every lane."""
    return bool(lanes_pick(isa.compute[compute], channels, outputs))


cdef inline size picked_inputs(const LanesJob* job) noexcept nogil:
    """The inputs of one vector of outputs, which another vector of the chunk follows or shares."""
    return job.channels * (1 if job.outputs > <size>job.kernels.lanes else job.kernels.lanes // job.outputs)


cdef void lane_layout(LanesJob* job) noexcept nogil:
    """What a pixel holds for the lanes, and whether they could read the input as it lies: by the sizes of a group."""
    cdef size lanes = job.kernels.lanes, span
    job.width = job.kernels.lane_vectors * lanes
    job.spread = job.channels > 1 or job.outputs > 1
    job.in_place, job.next, job.pixel = not job.spread, lanes, job.channels * job.width
    if job.picked:
        span = picked_inputs(job)
        job.next = 0 if job.outputs > lanes else span
        job.pixel = max(span, lanes) + (job.kernels.lane_vectors - 1) * job.next
        job.in_place = span >= lanes


cdef void lane_scratch(LanesJob* job) noexcept nogil:
    """Scratch of one thread: its region and what packs it, its sums and segments."""
    cdef const fc_kernels* kernels = job.kernels
    job.row_bytes = 0
    if job.spread and not job.picked:
        spread_bytes(kernels, job.channels, job.outputs, job.width, (job.tile_x - 1) * job.stride_x + job.span_x,
                     &job.row_bytes)
    job.region_bytes = 0
    if not job.in_place or job.total % kernels.lanes != 0:
        job.region_bytes = round_up(((job.tile_y - 1) * job.stride_y + job.span_y)
                                    * ((job.tile_x - 1) * job.stride_x + job.span_x) * job.pixel * kernels.size, 64)
    job.long_ = is_long(kernels, job.taps_y * job.taps_x * job.channels)
    job.block_columns = min(job.taps_x, block_terms(job.taps_y * job.taps_x, job.channels))
    job.block_lines = max(<size>1, block_terms(job.taps_y * job.taps_x, job.channels) // max(<size>1, job.taps_x))
    job.totals_bytes = totals_bytes(kernels, job.tile_y * job.tile_x * job.width) if job.long_ else 0
    job.scratch_bytes = (job.region_bytes + job.row_bytes + job.totals_bytes
                         + round_up(job.tile_y * job.tile_x * job.width * kernels.size, 64)
                         + round_up(job.taps_y * job.taps_x * job.channels * sizeof(fc_segment), 64))


cdef void prepare_picks(LanesJob* job) noexcept nogil:
    """Where every lane of a vector finds channel c of its group: a whole vector inside the inputs of these groups."""
    cdef size lanes = job.kernels.lanes, span = picked_inputs(job), c, l, place
    job.group_step = 0 if job.outputs > lanes else job.channels
    for c in range(job.channels):
        job.starts[c] = min(c // lanes * lanes, max(0, span - lanes))
        for l in range(lanes):
            place = l // job.outputs * job.group_step + c - job.starts[c]
            if job.kernels.size == 4:
                (<int*>job.picks)[c * lanes + l] = <int>place
            else:
                (<long long*>job.picks)[c * lanes + l] = place


cdef void tap_runs(Run* runs, const size* tap, size taps, size stride, size inputs, size outputs,
                   bint padded) noexcept nogil:
    """Runs of outputs that meet the same taps; with padding that is filled in (`padded`) all meet all."""
    cdef size at = 0, i, limit, cross
    while True:
        runs.lo, runs.hi, runs.end = 0, taps, outputs
        if not padded:
            while runs.lo < taps and at * stride + tap[runs.lo] < 0:
                runs.lo += 1
            while runs.hi > runs.lo and at * stride + tap[runs.hi - 1] >= inputs:
                runs.hi -= 1
            for i in range(2 * taps):  # the first output whose tap i comes to lie at 0, or at the end
                limit = (0 if i < taps else inputs) - tap[i % taps]
                cross = (limit + stride - 1) // stride if limit > 0 else 0
                if at < cross < runs.end:
                    runs.end = cross
        at = runs.end
        if at == outputs:
            return
        runs += 1


cdef inline bint lies_in_vectors(const fc_kernels* kernels, const View* v, bint same_type) noexcept nogil:
    """Whether channels lie side by side in the computing type, so that a vector of them is read as it lies."""
    return (same_type and side_by_side(v, kernels.size) and <size>v.p % kernels.size == 0
            and v.s[0] % kernels.size == 0 and v.s[2] % kernels.size == 0 and v.s[3] % kernels.size == 0
            and v.s[4] % kernels.size == 0)


cdef void lanes_prepare(LanesJob* job, size chunks_per_task) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef size i, plain
    lane_layout(job)
    job.chunks = (job.total + job.width - 1) // job.width
    job.chunks_per_task = max(1, min(chunks_per_task, job.chunks))
    job.chunk_groups = (job.chunks + job.chunks_per_task - 1) // job.chunks_per_task
    job.tiles_y = (job.y.n[2] + job.tile_y - 1) // job.tile_y
    job.tiles_x = (job.y.n[3] + job.tile_x - 1) // job.tile_x
    job.min_y, job.min_x = job.tap_y[0], job.tap_x[0]
    job.span_y = job.tap_y[job.taps_y - 1] - job.min_y + 1
    job.span_x = job.tap_x[job.taps_x - 1] - job.min_x + 1
    job.step_x = 1 if job.taps_x == 1 else job.tap_x[1] - job.tap_x[0]
    for i in range(2, job.taps_x):
        if job.tap_x[i] - job.tap_x[i - 1] != job.step_x:
            job.step_x = 0
    if job.picked:
        prepare_picks(job)
    job.in_place = job.in_place and job.may_lie and job.mode == FC_ZEROS
    tap_runs(job.runs_y, job.tap_y, job.taps_y, job.stride_y, job.x.n[2], job.y.n[2], job.mode != FC_ZEROS)
    tap_runs(job.runs_x, job.tap_x, job.taps_x, job.stride_x, job.x.n[3], job.y.n[3], job.mode != FC_ZEROS)


cdef void lanes_arrays(LanesJob* job) noexcept nogil:
    """What depends on how the arrays lie."""
    job.in_place = job.in_place and lies_in_vectors(job.kernels, &job.x, job.x_code == job.kernels.input)
    lane_scratch(job)


cdef void lanes_task(void* passes, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef size count = (<LanesPasses*>passes).count
    cdef const LanesJob* job = (<LanesPasses*>passes).jobs + task % count
    task = task // count
    cdef size tiles = job.y.n[0] * job.tiles_y * job.tiles_x
    cdef size chunk = task // tiles * job.chunks_per_task, last = min(chunk + job.chunks_per_task, job.chunks)
    cdef size image, oy, ox, rows, columns
    if chunk >= job.chunks:  # another pass has more tasks
        return
    task = task % tiles
    ox = task % job.tiles_x * job.tile_x
    oy = task // job.tiles_x % job.tiles_y * job.tile_y
    image = task // job.tiles_x // job.tiles_y
    rows = min(job.tile_y, job.y.n[2] - oy)
    columns = min(job.tile_x, job.y.n[3] - ox)
    while chunk < last and not fc_interrupted(watch):
        chunk += lanes_chunks(job, scratch, image, chunk, last, oy, ox, rows, columns)


cdef void lanes_in(const LanesJob* job, char* scratch, size image, size first, size count, size oy, size ox, size rows,
                   size columns, bint pack, LanesAt* at) noexcept nogil:
    """Where the outputs from `first` on find their inputs: the array itself, or its region in scratch (`pack`ed now)."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size width, region_columns, channel
    at.vectors = (count + kernels.lanes - 1) // kernels.lanes
    width = at.vectors * kernels.lanes
    if job.in_place and count == width:
        at.a = job.x.p + image * job.x.s[0] + first // job.outputs * job.channels * job.x.s[1]
        at.a_y, at.a_x = job.x.s[2] // kernels.size, job.x.s[3] // kernels.size
        at.a_channel = 0
        return
    region_columns = (columns - 1) * job.stride_x + job.span_x
    if pack and job.picked:
        channel = first // job.outputs * job.channels
        pack_region(kernels, job.x_code, &job.x, image, channel,
                    ((first + count - 1) // job.outputs + 1) * job.channels - channel,
                    oy * job.stride_y + job.min_y, 1, (rows - 1) * job.stride_y + job.span_y,
                    ox * job.stride_x + job.min_x, 1, region_columns, region_columns, job.mode, job.pixel, scratch)
    elif pack:
        pack_lanes(kernels, job.x_code, &job.x, image, job.channels, job.outputs, first, count, width,
                   oy * job.stride_y + job.min_y, (rows - 1) * job.stride_y + job.span_y,
                   ox * job.stride_x + job.min_x, region_columns, job.mode, scratch + job.region_bytes, scratch)
    at.a_x = job.pixel if job.picked else job.channels * width
    at.a_y = region_columns * at.a_x
    at.a_channel = width
    at.a = scratch - ((oy * job.stride_y + job.min_y) * at.a_y
                      + (ox * job.stride_x + job.min_x) * at.a_x) * kernels.size


cdef size lanes_chunks(const LanesJob* job, char* scratch, size image, size chunk, size last, size oy, size ox,
                           size rows, size columns) noexcept nogil:
    """Some of the chunks from `chunk` to `last` - 1 of one tile; returns how many."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size first = chunk * job.width, count = min(job.width, job.total - first), size_ = kernels.size
    cdef LanesAt at
    cdef char* totals = scratch + job.region_bytes + job.row_bytes
    cdef char* temporary = totals + job.totals_bytes
    cdef fc_segment* segments = <fc_segment*>(temporary + round_up(job.tile_y * job.tile_x * job.width * size_, 64))
    cdef char* to = job.y.p + image * job.y.s[0] + first * job.y.s[1] + oy * job.y.s[2] + ox * job.y.s[3]
    cdef const char* residual = NULL
    cdef const char* bias = job.bias + first * job.kernels.size if job.bias != NULL and job.long_ else NULL
    cdef Lines every
    cdef size r = 0, step, whole, beside = 1
    cdef bint in_output, epilogue
    cdef int activation
    lanes_in(job, scratch, image, first, count, oy, ox, rows, columns, True, &at)
    # whole vectors of a channels-last output of the computing type are summed where they will lie
    in_output = (count == at.vectors * kernels.lanes and not job.has_residual and not job.long_
                 and lies_in_vectors(kernels, &job.y, job.y_code == kernels.sum))
    at.first, at.chunks = first, 1
    at.c_y, at.c_x = columns * at.vectors * kernels.lanes, at.vectors * kernels.lanes
    at.c = temporary
    if in_output:
        at.c_y, at.c_x = job.y.s[2] // size_, job.y.s[3] // size_
        at.c = to
        if job.in_place and count == job.width and not job.picked:  # walk both arrays in the order of their memory
            at.chunks = min(min(last, job.total // job.width) - chunk, max(1, NEIGHBOUR_BYTES // (job.width * size_)))
            count = at.chunks * job.width
    at.c -= (oy * at.c_y + ox * at.c_x) * size_
    # the kernels add the bias; relu too, where no residual comes between; of a long sum they make blocks alone
    activation = LINEAR if kernel_relu(job) else job.activation
    every.first, every.last, every.low, every.high = 0, job.taps_y * job.channels, 0, job.taps_x
    epilogue = not in_output or activation != LINEAR
    # before an epilogue a few rows at a time, so that it finds them in the first-level cache; together, where they follow
    # each other in all arrays
    if (at.c_y == columns * at.c_x and job.y.s[2] == columns * job.y.s[3]
            and (not job.has_residual or job.residual.s[2] == columns * job.residual.s[3])):
        beside = rows
    while r < rows:
        step = min(rows - r, max(2, 128 // (columns * at.chunks))) if epilogue else rows
        if job.long_:
            lanes_blocks(job, &at, segments, totals, oy + r, oy + r + step, ox, columns)
        else:
            lanes_rows(job, &at, segments, &every, oy + r, oy + r + step, ox, ox + columns)
        while step > 0:
            whole = min(step, beside)
            if epilogue:
                if job.has_residual:
                    residual = (job.residual.p + image * job.residual.s[0] + first * job.residual.s[1]
                                + (oy + r) * job.residual.s[2] + ox * job.residual.s[3])
                kernels.store[job.y_code](
                    at.c + ((oy + r) * at.c_y + ox * at.c_x) * size_, at.c_x, whole * columns, count, to + r * job.y.s[2],
                    job.y.s[3], job.y.s[1], bias, activation, residual,
                    job.residual.s[3] if job.has_residual else 0,
                    job.residual.s[1] if job.has_residual else 0)
            r += whole
            step -= whole
    return at.chunks


cdef void lanes_blocks(const LanesJob* job, const LanesAt* at, fc_segment* segments, char* totals, size y0, size y1,
                           size ox, size columns) noexcept nogil:
    """Whole rows of a tile whose sums are long: block by block, from zero, added to totals."""
    cdef const fc_kernels* kernels = job.kernels
    cdef char* c = at.c + (y0 * at.c_y + ox * at.c_x) * kernels.size
    cdef size count = (y1 - y0) * at.c_y, lines = job.taps_y * job.channels
    cdef Lines block
    memset(totals, 0, totals_bytes(kernels, count))
    block.first = 0
    while block.first < lines:
        block.last = min(lines, block.first + job.block_lines)
        block.low = 0
        while block.low < job.taps_x:
            block.high = min(job.taps_x, block.low + job.block_columns)
            lanes_rows(job, at, segments, &block, y0, y1, ox, ox + columns)
            kernels.total_add(totals, c, count)
            block.low = block.high
        block.first = block.last
    kernels.total_end(c, totals, count)


cdef void lanes_rows(const LanesJob* job, const LanesAt* at, fc_segment* segments, const Lines* block, size y0,
                         size y1, size x0, size x1) noexcept nogil:
    """The outputs of rows y0..y1-1 and columns x0..x1-1, rectangle by rectangle: the sums of one block of taps."""
    cdef const Run* run_y = job.runs_y
    cdef const Run* run_x
    cdef size y, x, end_y, end_x
    y = y0
    while y < y1:
        while run_y.end <= y:
            run_y += 1
        end_y = min(y1, run_y.end)
        run_x = job.runs_x
        x = x0
        while x < x1:
            while run_x.end <= x:
                run_x += 1
            end_x = min(x1, run_x.end)
            lanes_rectangle(job, at, segments, block, run_y, run_x, y, end_y, x, end_x)
            x = end_x
        y = end_y


cdef void lanes_rectangle(const LanesJob* job, const LanesAt* at, fc_segment* segments, const Lines* block,
                              const Run* run_y, const Run* run_x, size y0, size y1, size x0, size x1) noexcept nogil:
    """Outputs that meet the same taps: windows of a row where a kernel has them, pixel by pixel for the rest."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size low = max(run_x.lo, block.low), taps = max(<size>0, min(run_x.hi, block.high) - low), count = 0
    cdef size i, j, channel, line, y, x = x0, n, q, ldb
    cdef size a_row[12]
    cdef size c_row[12]
    cdef const fc_lane_kernels* by_lane = &kernels.by_lane[job.picked]
    cdef const fc_window* window = NULL
    cdef bint relu = kernel_relu(job)
    cdef const char* a
    cdef const char* b
    cdef char* c
    # the taps of a row are one segment where they lie evenly
    for line in range(max(run_y.lo * job.channels, block.first), min(run_y.hi * job.channels, block.last)):
        i, channel = line // job.channels, line % job.channels
        for j in range(low, low + (min(taps, <size>1) if job.step_x > 0 else taps)):
            segments[count].a = job.tap_y[i] * at.a_y + job.tap_x[j] * at.a_x + channel_offset(job, at, channel)
            segments[count].pick = job.picks + channel * kernels.lanes * kernels.size
            segments[count].b = (((job.first_row + i) * job.channels + channel) * job.packed_columns
                                 + job.first_column + j)
            segments[count].k = taps if job.step_x > 0 else 1
            count += 1
    if (job.step_x == 1 and taps <= FC_MAX_WINDOW and job.stride_x <= 2
            and at.vectors == kernels.lane_vectors):
        window = <const fc_window*>by_lane.window[taps][job.stride_x]
    if window != NULL and window[0] != NULL:
        # down a strip of columns: a row of the input stays in the first-level cache for all windows that meet it
        while x1 - x >= 4:
            n = 8 if x1 - x >= 8 else 4
            for y in range(y0, y1):
                a = at.a + (y * job.stride_y * at.a_y + x * job.stride_x * at.a_x) * kernels.size
                c = at.c + (y * at.c_y + x * at.c_x) * kernels.size
                for q in range(at.chunks):
                    b = lane_weights(job, at.first + q * job.width, &ldb)
                    window[n // 4 - 1](a, at.a_x, job.next, b, ldb, segments, count, c, at.c_x,
                                       kernel_bias(job, at.first + q * job.width), relu)
                    a += job.width * kernels.size
                    c += job.width * kernels.size
            x += n
    x0 = x
    n = 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            a_row[n] = y * job.stride_y * at.a_y + x * job.stride_x * at.a_x
            c_row[n] = y * at.c_y + x * at.c_x
            n += 1
            if n == FC_MAX_ROWS or (y == y1 - 1 and x == x1 - 1):
                for q in range(at.chunks):
                    b = lane_weights(job, at.first + q * job.width, &ldb)
                    by_lane.lane[at.vectors][n](at.a + q * job.width * kernels.size, a_row, job.step_x * at.a_x,
                                                job.next, b, ldb, segments, count,
                                                at.c + q * job.width * kernels.size, c_row, 0,
                                                kernel_bias(job, at.first + q * job.width), relu)
                n = 0


cdef inline size channel_offset(const LanesJob* job, const LanesAt* at, size channel) noexcept nogil:
    """Elements from a pixel's first input to the vector that holds this channel of every lane's group."""
    return job.starts[channel] if job.picked else channel * at.a_channel


cdef inline const char* kernel_bias(const LanesJob* job, size first) noexcept nogil:
    """The bias that the kernels add: none where they make blocks of a sum."""
    return job.bias + first * job.kernels.size if job.bias != NULL and not job.long_ else NULL


cdef inline bint kernel_relu(const LanesJob* job) noexcept nogil:
    """Whether the kernels apply relu."""
    return job.activation == RELU and not job.has_residual and not job.long_


cdef inline const char* lane_weights(const LanesJob* job, size first, size* ldb) noexcept nogil:
    """The packed weights of the outputs from `first` on, and the elements between their taps."""
    cdef size full = job.kernels.vectors * job.kernels.lanes, panel = first - first % full
    ldb[0] = min(full, round_up(job.total - panel, job.kernels.lanes))
    return job.packed + (panel * job.packed_rows * job.packed_columns * job.channels + first - panel) * job.kernels.size


# ---- packing an input of its own for every lane --------------------------------------------------------------------


cdef size lane_channels(const fc_kernels* kernels, size channels, size outputs, size width) noexcept nogil:
    """Input channels under `width` outputs at most, and the vectors read beyond them."""
    return ((width - 1) // outputs + 2) * channels + 2 * kernels.lanes


cdef void spread_bytes(const fc_kernels* kernels, size channels, size outputs, size width, size columns,
                       size* bytes) noexcept nogil:
    """Scratch of `pack_lanes`: a row of the input as it lies, and where every lane reads it."""
    bytes[0] = 0
    if channels > 1 or outputs > 1:
        bytes[0] = (round_up((columns * lane_channels(kernels, channels, outputs, width) + 2 * kernels.lanes)
                             * kernels.size, 64)
                    + round_up(channels * width * kernels.size, 64)
                    + round_up(channels * (width // kernels.lanes) * sizeof(size), 64))


cdef void pack_lanes(const fc_kernels* kernels, int code, const View* x, size image, size channels, size outputs,
                     size first, size count, size width, size first_row, size rows, size first_column, size columns,
                     int mode, char* scratch, char* region) noexcept nogil:
    """The region under a tile as [row][column][channel of the group][lane], for the `count` outputs from `first` on."""
    cdef size group = first // outputs * channels, lds, r, c, v, l, o, low, high, n
    cdef char* index
    cdef size* begin
    if channels == 1 and outputs == 1:
        pack_region(kernels, code, x, image, first, count, first_row, 1, rows, first_column, 1, columns, columns, mode,
                    width, region)
        return
    lds = lane_channels(kernels, channels, outputs, width)
    index = scratch + round_up((columns * lds + 2 * kernels.lanes) * kernels.size, 64)
    begin = <size*>(index + round_up(channels * width * kernels.size, 64))
    n = width // kernels.lanes
    for c in range(channels):
        for v in range(n):
            o = first + v * kernels.lanes
            low = o // outputs * channels + c
            begin[c * n + v] = low - group
            for l in range(kernels.lanes):
                high = min(o + l, first + count - 1) // outputs * channels + c - low
                if kernels.size == 4:
                    (<int*>index)[(c * n + v) * kernels.lanes + l] = <int>high
                else:
                    (<long long*>index)[(c * n + v) * kernels.lanes + l] = high
    high = ((first + count - 1) // outputs + 1) * channels - group
    for r in range(rows):
        pack_region(kernels, code, x, image, group, high, first_row + r, 1, 1, first_column, 1, columns, columns, mode,
                    lds, scratch)
        kernels.spread(region, scratch, lds, columns, channels * n, begin, index)
        region += columns * channels * width * kernels.size
