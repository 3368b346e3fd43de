# Convolution of planes (NCHW) with several taps and few channels: first layers. Packed weights, a lane a pixel: what
# drivers/direct.pxi spends on turning inputs and outputs into channels-last ones and back takes as long as their sums.
#
#   for image x group x band of rows of outputs          threads take these
#     copy the planes under the band into a border of zeros, the phases of the strides apart    second-level cache
#     for panel of outputs
#       for row, or all rows as one where nothing lies between them
#         for block of pixels                                  its part of all planes: first-level cache
#           for rows of the register tile                      registers: its columns are pixels, its rows outputs
#
# Every output is one sum in the order (tap y, tap x, channel), as in drivers/direct.pxi. The last block of a row ends where
# the row does, and computes some pixels again.

cdef enum:
    SHIFTED_CHANNELS = 8         # of a group: of more, whole vectors are turned at once
    SHIFTED_STEPS = 1024         # of a sum
    SHIFTED_BAND_BYTES = 128 << 10    # of the planes under a band
    SHIFTED_TASKS = 4            # of a thread

cdef struct ShiftedJob:
    const fc_kernels* kernels
    View x, y
    Weights weights
    const char* bias
    int y_code, activation
    fc_shifted all               # of a block: its operands are its own
    fc_phases phases
    size groups, channels, outputs, steps    # of one group; of a sum
    size rows, columns           # of outputs
    size stride_y, stride_x, low_y, low_x, reach_y, reach_x   # the least taps; rows and columns of a phase beyond outputs
    size phases_y, phases_x
    size pitch, plane            # elements from a row of a phase to the next, and from a plane
    size band, bands             # rows of the largest, of an image


cdef void shifted_numbers(ShiftedJob* job, const DirectPass* p, size tasks, int threads) noexcept nogil:
    """The geometry of bands; of `tasks` images and groups, on so many threads."""
    cdef size i, rows, high_y, high_x, lanes = p.kernels.lanes
    job.kernels, job.channels, job.outputs, job.groups = p.kernels, p.channels, p.outputs, p.groups
    job.steps = volume(p.taps) * p.channels
    job.rows, job.columns, job.stride_y, job.stride_x = p.extent[1], p.extent[2], p.stride[1], p.stride[2]
    job.low_y, job.low_x = high_y, high_x = p.tap[1][0], p.tap[2][0]
    for i in range(p.taps[1]):
        job.low_y, high_y = min(job.low_y, p.tap[1][i]), max(high_y, p.tap[1][i])
    for i in range(p.taps[2]):
        job.low_x, high_x = min(job.low_x, p.tap[2][i]), max(high_x, p.tap[2][i])
    job.reach_y, job.reach_x = (high_y - job.low_y) // job.stride_y, (high_x - job.low_x) // job.stride_x
    job.phases_y = min(job.stride_y, high_y - job.low_y + 1)
    job.phases_x = min(job.stride_x, high_x - job.low_x + 1)
    # rows begin on a vector, unless nothing lies between them
    job.pitch = round_up(job.columns + job.reach_x, lanes) if job.reach_x else job.columns
    rows = SHIFTED_BAND_BYTES // (job.phases_y * job.phases_x * job.channels * job.pitch * p.kernels.size) - job.reach_y
    job.band = max(<size>1, min(job.rows, rows))
    job.bands = (job.rows + job.band - 1) // job.band
    if threads > 1 and tasks < SHIFTED_TASKS * threads:   # as many for each thread
        rows = (SHIFTED_TASKS * threads + tasks - 1) // tasks
        job.bands = min(job.rows, round_up(max(job.bands, rows), threads))
        job.band = (job.rows + job.bands - 1) // job.bands
    job.plane = round_up((job.band + job.reach_y) * job.pitch + lanes, lanes)
    if job.plane * p.kernels.size // 64 % 2 == 0:   # an odd number of cache lines: planes fall into all sets alike
        job.plane += 64 // p.kernels.size


cdef inline size shifted_scratch(const ShiftedJob* job) noexcept nogil:
    """Of one thread."""
    return round_up(job.phases_y * job.phases_x * job.channels * job.plane * job.kernels.size, 64)


cdef size shifted_bytes(const DirectPass* p) noexcept nogil:
    """Scratch of one thread; 0 unless a pass is of that kind and fills vectors of pixels."""
    cdef const fc_kernels* kernels = p.kernels
    cdef ShiftedJob own
    cdef size bytes
    if (p.mode != FC_ZEROS or p.long_ or p.merged != p.outputs or kernels.tile_k != 1 or kernels.shifted[1] == NULL
            or p.y_code != kernels.sum or kernels.input_size != kernels.size or kernels.weight_size != kernels.size
            or not 0 < p.channels <= SHIFTED_CHANNELS or p.outputs == 0 or p.extent[0] != 1 or p.extent[1] < 1
            or p.extent[2] < kernels.lanes
            or p.apart[1] != 1 or p.apart[2] != 1 or p.taps[0] != 1 or p.tap[0][0] != 0
            or not 1 < p.taps[1] * p.taps[2] <= SHIFTED_STEPS // p.channels):
        return 0
    shifted_numbers(&own, p, 1, 1)
    if own.pitch > own.columns and 8 * round_up(own.columns, kernels.lanes) > 9 * own.columns:
        return 0
    bytes = shifted_scratch(&own)
    return bytes if bytes <= 2 * SHIFTED_BAND_BYTES else 0


cdef bint shifted_usable(const DirectPass* p) noexcept nogil:
    """Whether the arrays of such a pass are planes, and its weights may meet the zeros of the padding."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size unit = kernels.size
    return (p.weights.packed != NULL and p.weights.finite and not p.has_residual and p.requantise == NULL
            and p.x_code == kernels.input and p.x.n[4] == 1 and p.y.n[4] == 1 and length(&p.y, 1) == p.extent[1]
            and length(&p.y, 2) == p.extent[2] and planes_lie(&p.y, unit) and planes_lie(&p.x, unit))


cdef int shifted_work(Work work, const DirectPass* p, int threads) except -1:
    """The tasks of a pass."""
    cdef const fc_kernels* kernels = p.kernels
    cdef ShiftedJob* job = <ShiftedJob*>work.own(sizeof(ShiftedJob))
    cdef size i, j, c, y, x, k = 0, images = p.y.n[0], unit = kernels.size, pixels = images * volume(p.extent)
    cdef size* shift = <size*>work.own(volume(p.taps) * p.channels * sizeof(size))
    threads = threads if pixels * p.groups * p.outputs * volume(p.taps) * p.channels >= PARALLEL_FROM_MACS else 1
    shifted_numbers(job, p, images * p.groups, threads)
    job.x, job.y, job.weights, job.bias, job.y_code, job.activation = p.x, p.y, p.weights, p.bias, p.y_code, p.activation
    for i in range(p.taps[1]):
        for j in range(p.taps[2]):
            y, x = p.tap[1][i] - job.low_y, p.tap[2][j] - job.low_x
            for c in range(p.channels):
                shift[k] = ((y % job.stride_y * job.phases_x + x % job.stride_x) * job.channels + c) * job.plane
                shift[k] += y // job.stride_y * job.pitch + x // job.stride_x
                k += 1
    memset(&job.all, 0, sizeof(fc_shifted))
    job.all.shift, job.all.steps, job.all.c_row = <const Py_ssize_t*>shift, job.steps, p.y.s[1] // unit
    job.all.relu = p.activation if p.activation <= RELU6 else LINEAR
    job.all.fetch = pixels * p.groups * p.outputs * unit >= FETCH_BYTES
    job.phases.channel, job.phases.channels, job.phases.width = p.x.s[1] // unit, p.channels, p.x.n[3]
    job.phases.first, job.phases.stride, job.phases.phases = job.low_x, job.stride_x, job.phases_x
    job.phases.count, job.phases.apart = job.columns + job.reach_x, job.plane
    work.tasks = images * job.groups * job.bands
    work.scratch_bytes = shifted_scratch(job)
    work.task, work.job = shifted_task, job
    work.place(&job.x.p)
    work.place(&job.y.p)
    return work.team(threads)


cdef void shifted_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A band of an image and group."""
    cdef const ShiftedJob* job = <const ShiftedJob*>job_
    cdef size band = task % job.bands, group, image, q, r, full = job.weights.width, unit = job.kernels.size, channel
    cdef size y = band * job.rows // job.bands, rows = (band + 1) * job.rows // job.bands - y, pixels
    cdef fc_shifted product = job.all
    task = task // job.bands
    group, image = task % job.groups, task // job.groups
    shifted_in(job, scratch, image, group, y, rows)
    for q in range(job.weights.panels):
        if fc_interrupted(watch):
            return
        channel = group * job.outputs + q * full
        product.rows, product.width = min(full, job.outputs - q * full), panel_vectors(&job.weights, q) * job.kernels.lanes
        product.a = packed_panel(&job.weights, group, q)
        product.bias = job.bias + channel * unit if job.bias != NULL else NULL
        product.b, product.c = scratch, job.y.p + image * job.y.s[0] + channel * job.y.s[1] + y * job.columns * unit
        pixels = rows * job.columns
        if job.pitch == job.columns:
            shifted_row(job.kernels, &product, pixels)
        else:
            for r in range(rows):
                shifted_row(job.kernels, &product, job.columns)
                product.b = <const char*>product.b + job.pitch * unit
                product.c = <char*>product.c + job.columns * unit
        for r in range(product.rows if job.activation > RELU6 else 0):
            product.c = job.y.p + image * job.y.s[0] + (channel + r) * job.y.s[1] + y * job.columns * unit
            job.kernels.store[job.y_code](<char*>product.c, 0, 1, pixels, <char*>product.c, 0, unit, NULL, job.activation,
                                          NULL, 0, 0)


cdef void shifted_in(const ShiftedJob* job, char* planes, size image, size group, size y, size rows) noexcept nogil:
    """Copy what lies under a band."""
    cdef size i, r, at, unit = job.kernels.size
    cdef const View* x = &job.x
    cdef const char* first = x.p + image * x.s[0] + group * job.channels * x.s[1]
    cdef fc_phases phases = job.phases
    phases.end = first + (job.channels - 1) * x.s[1] + x.n[2] * x.n[3] * unit
    for r in range(rows + job.reach_y):
        for i in range(job.phases_y):
            at = (y + r) * job.stride_y + job.low_y + i
            job.kernels.phases(&phases, first + at * x.s[2] if 0 <= at < x.n[2] else NULL,
                               planes + (i * job.phases_x * job.channels * job.plane + r * job.pitch) * unit)


cdef void shifted_row(const fc_kernels* kernels, fc_shifted* product, size count) noexcept nogil:
    """So many pixels, of which there are as many as lanes at least, in blocks as equal as can be."""
    cdef size vectors = (count + kernels.lanes - 1) // kernels.lanes, blocks, t, at, own
    cdef const char* b = <const char*>product.b
    cdef char* c = <char*>product.c
    blocks = (vectors + kernels.vectors - 1) // kernels.vectors
    for t in range(blocks):
        at, own = t * vectors // blocks, (t + 1) * vectors // blocks - t * vectors // blocks
        at *= kernels.lanes
        if at + own * kernels.lanes > count:   # the last one
            if blocks == 1:   # would begin before the row: all whole vectors, then the last
                product.b, product.c = b, c
                kernels.shifted[own - 1](product)
                own = 1
            at = count - own * kernels.lanes
        product.b, product.c = b + at * kernels.size, c + at * kernels.size
        kernels.shifted[own](product)
    product.b, product.c = b, c
