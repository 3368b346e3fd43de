# Convolution at stride 1, and the phases of an input gradient, with few outputs: a lane a pixel. With a lane an output, as in
# drivers/direct.pxi, most lanes would be idle.
#
#   for image x band of rows of outputs                  threads take these
#     lay the input under the band as planes, in a border of zeros      second-level cache
#     for pass
#       for block of pixels, the rows behind each other as one          its part of all planes: first-level cache
#         for tap                                         a distance, whatever the row
#           channels                                      micro-kernel: its columns are pixels, its rows outputs
#       rows of outputs
#
# Every output is one sum in the order (tap y, tap x, channel), as in drivers/direct.pxi.

cdef enum:
    FEW_TAPS_BYTES = 256 << 10   # of the planes under a band
    FEW_TAPS_TASKS = 2           # of a thread

cdef struct FewTapsJob:
    const DirectPass* passes
    size count, channels, outputs
    size low[3]                  # the least tap of all passes,
    size span[3]
    size rows, columns           # outputs of the largest pass
    size band, bands             # rows of a task, tasks of an image
    size pitch, plane, sums      # elements from a row to the next, from a channel, and from an output
    const char* shift            # the bias of every output, once for each pixel of a block; NULL
    size a_row[FC_FEW]
    size shift_row[FC_FEW]


cdef size few_taps_bytes(const DirectPass* passes, size count) noexcept nogil:
    """Scratch of one thread; 0 unless all passes are of that kind, with channels and columns enough to fill vectors."""
    cdef const fc_kernels* kernels
    cdef const DirectPass* p
    cdef FewTapsJob own
    cdef size i, taps = 0, bytes
    if count == 0:
        return 0
    kernels = passes[0].kernels
    if (kernels.tile_k != 1 or kernels.flat == NULL or extra(kernels, "few") == NULL
            or kernels.input_size != kernels.size or kernels.weight_size != kernels.size):
        return 0
    for i in range(count):
        p = &passes[i]
        if (p.mode != FC_ZEROS or p.long_ or p.groups != 1 or p.merged != p.outputs or p.outputs == 0
                or 4 * p.outputs > kernels.lanes or p.channels < kernels.lanes or p.y_code != kernels.sum
                or p.stride[1] != 1 or p.stride[2] != 1 or p.extent[0] != 1 or p.extent[1] < 1
                or p.extent[2] < kernels.lanes or p.taps[0] != 1 or p.tap[0][0] != 0 or p.taps[1] * p.taps[2] == 0):
            return 0
        taps += p.taps[1] * p.taps[2]
    few_taps_numbers(&own, passes, count, 1, 1)
    bytes = few_taps_scratch(&own, kernels)
    return bytes if taps > count and bytes <= 2 * FEW_TAPS_BYTES else 0


cdef void few_taps_numbers(FewTapsJob* job, const DirectPass* passes, size count, size images, int threads) noexcept nogil:
    """The geometry of bands."""
    cdef const fc_kernels* kernels = passes[0].kernels
    cdef size i, k, high, room, block = few_taps_vectors(kernels, passes[0].outputs) * kernels.lanes
    cdef int axis
    job.passes, job.count, job.channels, job.outputs = passes, count, passes[0].channels, passes[0].outputs
    job.rows = job.columns = 0
    for i in range(count):
        job.rows, job.columns = max(job.rows, passes[i].extent[1]), max(job.columns, passes[i].extent[2])
    for axis in range(1, 3):
        job.low[axis] = high = passes[0].tap[axis][0]
        for i in range(count):
            for k in range(passes[i].taps[axis]):
                job.low[axis], high = min(job.low[axis], passes[i].tap[axis][k]), max(high, passes[i].tap[axis][k])
        job.span[axis] = high - job.low[axis] + 1
    job.pitch = job.columns + job.span[2] - 1
    room = <size>FEW_TAPS_BYTES // (job.pitch * job.channels * kernels.size)
    if threads > 1:
        room = min(room, (images * job.rows + FEW_TAPS_TASKS * threads - 1) // (FEW_TAPS_TASKS * threads) + job.span[1] - 1)
    job.band = max(<size>1, min(job.rows, room - job.span[1] + 1))
    job.bands = (job.rows + job.band - 1) // job.band
    job.plane = round_up((job.band + job.span[1] - 1) * job.pitch + block, kernels.lanes)
    if job.plane * kernels.size // 64 % 2 == 0:   # an odd number of cache lines: planes fall into all sets alike
        job.plane += 64 // kernels.size
    job.sums = round_up(job.band * job.pitch + block, kernels.lanes)


cdef inline size few_taps_vectors(const fc_kernels* kernels, size outputs) noexcept nogil:
    """Vectors of a block of pixels: as many sums as hide a product's latency, and no more, so that the part of all planes
    under a block stays in the first-level cache."""
    return kernels.vectors if outputs == 1 else 2


cdef inline size few_taps_scratch(const FewTapsJob* job, const fc_kernels* kernels) noexcept nogil:
    """Of one thread: the planes under a band, and its sums."""
    return round_up((job.channels * job.plane + job.outputs * job.sums) * kernels.size, 64)


cdef bint few_taps_usable(const DirectRun* run) noexcept nogil:
    """Whether the arrays of such passes, and their weights, are as they must be."""
    cdef const fc_kernels* kernels = run.passes[0].kernels
    cdef const DirectPass* p
    cdef size i
    for i in range(run.count):
        p = &run.passes[i]
        if (p.has_residual or p.requantise != NULL or p.x_code != kernels.input
                or p.weights.packed == NULL or not p.weights.finite or p.x.n[4] != 1 or p.y.n[4] != 1
                or length(&p.y, 1) != p.extent[1] or length(&p.y, 2) != p.extent[2]):
            return False
    return True


cdef int few_taps_work(Work work, const DirectRun* run, int threads) except -1:
    """The tasks of all passes."""
    cdef const fc_kernels* kernels = run.passes[0].kernels
    cdef FewTapsJob* job = <FewTapsJob*>work.own(sizeof(FewTapsJob))
    cdef size i, unit = kernels.size, block, macs = 0, images = run.passes[0].y.n[0]
    for i in range(run.count):
        macs += volume(run.passes[i].extent) * volume(run.passes[i].taps)
    macs *= images * run.passes[0].channels * run.passes[0].outputs
    threads = threads if 4 * macs >= PARALLEL_FROM_MACS else 1
    few_taps_numbers(job, run.passes, run.count, images, threads)
    job.shift, block = NULL, few_taps_vectors(kernels, job.outputs) * kernels.lanes
    for i in range(job.outputs):
        job.a_row[i], job.shift_row[i] = i, i * block
    if run.passes[0].bias != NULL:
        job.shift = <char*>work.own(job.outputs * block * unit)
        kernels.flat_fill(run.passes[0].bias, job.outputs, block, <char*>job.shift)
    work.tasks = images * job.bands
    work.scratch_bytes = few_taps_scratch(job, kernels)
    work.task, work.job = few_taps_task, job
    return work.team(threads)


cdef void few_taps_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A band of an image."""
    cdef const FewTapsJob* job = <const FewTapsJob*>job_
    cdef const fc_kernels* kernels = job.passes[0].kernels
    cdef const View* x = &job.passes[0].x
    cdef size image = task // job.bands, y = task % job.bands * job.band, r, i, at, unit = kernels.size
    cdef size left = max(0, -job.low[2]), first = max(0, job.low[2]), count = min(x.n[3] - first, job.pitch - left)
    cdef char* sums = scratch + job.channels * job.plane * unit
    memset(scratch, 0, job.channels * job.plane * unit)
    for r in range(job.band + job.span[1] - 1):
        at = y + job.low[1] + r
        if 0 <= at < x.n[2] and count > 0:
            kernels.pack[job.passes[0].x_code](
                scratch + (r * job.pitch + left) * unit, job.plane, job.channels, count,
                x.p + image * x.s[0] + at * x.s[2] + first * x.s[3], x.s[1], x.s[3])
    for i in range(job.count):
        if fc_interrupted(watch):
            return
        few_taps_pass(job, &job.passes[i], scratch, sums, image, y)


cdef void few_taps_pass(const FewTapsJob* job, const DirectPass* p, const char* planes, char* sums, size image,
                        size y) noexcept nogil:
    """The outputs of a pass in a band."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size rows = min(job.band, p.extent[1] - y), unit = kernels.size, total, begin = 0, vectors, most, i, j, r, o, k
    cdef size taps = p.taps[1] * p.taps[2]
    cdef size c_row[FC_FEW]
    cdef const char* weights = packed_panel(&p.weights, 0, 0)
    cdef char* from_
    cdef char* to
    cdef fc_segment segment
    cdef fc_product product
    if rows <= 0:
        return
    memset(&product, 0, sizeof(product))
    segment.a, segment.b, segment.k = 0, 0, p.channels
    for o in range(job.outputs):
        c_row[o] = o * job.sums
    product.step, product.ldb, product.segment, product.segments = kernels.lanes, job.plane, &segment, 1
    product.a_row, product.c_row, product.ahead, product.ahead_step = <const size*>&job.a_row[0], c_row, planes, 0
    product.residual_row = <const size*>&job.shift_row[0]
    total, most = (rows - 1) * job.pitch + p.extent[2], few_taps_vectors(kernels, job.outputs)
    while begin < total:
        vectors = min(most, (total - begin + kernels.lanes - 1) // kernels.lanes)
        product.c, product.relu, product.residual = sums + begin * unit, LINEAR, NULL
        for k in range(taps):
            i, j = k // p.taps[2], k % p.taps[2]
            product.a = weights + k * p.channels * kernels.lanes * unit
            product.b = planes + ((p.tap[1][i] - job.low[1]) * job.pitch + p.tap[2][j] - job.low[2] + begin) * unit
            product.accumulate = k > 0
            if k == taps - 1:
                product.residual, product.relu = job.shift, p.activation if p.activation <= RELU6 else LINEAR
            run_product(kernels, &product, vectors, job.outputs, p.channels)
        begin += vectors * kernels.lanes
    for r in range(rows):
        to = p.y.p + image * p.y.s[0] + (y + r) * p.y.s[2]
        for o in range(job.outputs):
            from_ = sums + (o * job.sums + r * job.pitch) * unit
            if p.activation > RELU6:
                kernels.store[p.y_code](from_, 0, 1, p.extent[2], from_, 0, unit, NULL, p.activation, NULL, 0, 0)
            if unit == sizeof(float):
                for k in range(p.extent[2]):
                    (<float*>(to + o * p.y.s[1] + k * p.y.s[3]))[0] = (<const float*>from_)[k]
            else:
                for k in range(p.extent[2]):
                    (<double*>(to + o * p.y.s[1] + k * p.y.s[3]))[0] = (<const double*>from_)[k]
