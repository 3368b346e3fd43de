# Convolution at stride 1, and the phases of an input gradient, with few outputs: a lane a pixel. With a lane an output, as in
# drivers/direct.pxi, most lanes would be idle.
#
#   for image x band of rows of outputs                  threads take these
#     lay the input under the band as planes, in a border of zeros      second-level cache
#     for passes of the same taps
#       for block of pixels, the rows behind each other as one          its part of all planes: first-level cache
#         all outputs of these passes                     registers: the columns of a tile are pixels, its rows outputs
#       rows of outputs
#
# Every output is one sum in the order (tap y, tap x, channel), as in drivers/direct.pxi.

cdef enum:
    FEW_TAPS_BYTES = 256 << 10   # of the planes under a band
    FEW_TAPS_TASKS = 2           # of a thread
    FEW_TAPS_ROWS = 32           # outputs of passes that are computed together
    FEW_TAPS_FIRST = 20 << 10    # of the first-level cache, for the part of all planes that a tap meets

cdef struct FewTapsTogether:     # passes of the same taps
    size passes[FEW_TAPS_ROWS]
    size count, first            # of the passes; the first of their weights
    fc_shifted product           # of a block, whose pixels are its own


cdef struct FewTapsJob:
    const DirectPass* passes
    size count, channels, outputs
    size low[3]                  # the least tap of all passes,
    size span[3]
    size rows, columns           # outputs of the largest pass
    size band, bands             # rows of a task, tasks of an image
    size pitch, plane, sums      # elements from a row to the next, from a channel, and from an output
    size most                    # outputs that are computed together at most
    FewTapsTogether* together
    size groups


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
            or kernels.input_size != kernels.size or kernels.weight_size != kernels.size or kernels.shifted[1] == NULL):
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
    cdef size i, k, high, room, block = kernels.vectors * kernels.lanes
    cdef int axis
    job.passes, job.count, job.channels, job.outputs = passes, count, passes[0].channels, passes[0].outputs
    job.rows = job.columns = job.most = 0
    for i in range(count):
        job.most = max(job.most, few_taps_alike(passes, count, i, NULL) * job.outputs)
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


cdef inline size few_taps_vectors(const fc_kernels* kernels, size channels, size rows) noexcept nogil:
    """Vectors of a block of pixels: so many that what a tap meets of all planes stays in the first-level cache, and that
    their sums hide a product's latency."""
    cdef size vectors = kernels.vectors
    while vectors > 2 and rows > 2 and channels * (vectors + 1) * kernels.lanes * kernels.size > FEW_TAPS_FIRST:
        vectors -= 1
    return vectors


cdef size few_taps_alike(const DirectPass* passes, size count, size first, size* found) noexcept nogil:
    """How many passes from `first` on, and which, have its taps and are computed with it; 0 if it goes with one before."""
    cdef size i, n = 0, before = 0, most = max(<size>1, FEW_TAPS_ROWS // passes[0].outputs)
    for i in range(count):
        if not few_taps_same(&passes[i], &passes[first]):
            continue
        if i < first:
            before += 1
        elif before % most:
            return 0
        elif n < most:
            if found != NULL:
                found[n] = i
            n += 1
    return n


cdef bint few_taps_same(const DirectPass* a, const DirectPass* b) noexcept nogil:
    """Whether two passes have the same taps."""
    return (a.taps[1] == b.taps[1] and a.taps[2] == b.taps[2]
            and memcmp(a.tap[1], b.tap[1], a.taps[1] * sizeof(size)) == 0
            and memcmp(a.tap[2], b.tap[2], a.taps[2] * sizeof(size)) == 0)


cdef inline size few_taps_scratch(const FewTapsJob* job, const fc_kernels* kernels) noexcept nogil:
    """Of one thread: the planes under a band, and its sums."""
    return round_up((job.channels * job.plane + job.most * job.sums) * kernels.size, 64)


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
    cdef size i, macs = 0, images = run.passes[0].y.n[0]
    for i in range(run.count):
        macs += volume(run.passes[i].extent) * volume(run.passes[i].taps)
    macs *= images * run.passes[0].channels * run.passes[0].outputs
    threads = threads if 4 * macs >= PARALLEL_FROM_MACS else 1
    few_taps_numbers(job, run.passes, run.count, images, threads)
    job.together, job.groups = <FewTapsTogether*>work.own(run.count * sizeof(FewTapsTogether)), 0
    for i in range(run.count):
        job.together[job.groups].count = few_taps_alike(run.passes, run.count, i, job.together[job.groups].passes)
        if job.together[job.groups].count > 0:
            few_taps_together(work, job, &job.together[job.groups])
            job.groups += 1
    work.tasks = images * job.bands
    work.scratch_bytes = few_taps_scratch(job, kernels)
    work.task, work.job = few_taps_task, job
    return work.team(threads)


cdef int few_taps_together(Work work, const FewTapsJob* job, FewTapsTogether* own) except -1:
    """The weights of some passes as [tap][channel][pass][output], the bias for each of their outputs, and where the taps of
    a channel lie."""
    cdef const DirectPass* p = &job.passes[own.passes[0]]
    cdef const fc_kernels* kernels = p.kernels
    cdef size taps = p.taps[1] * p.taps[2], steps = taps * job.channels, rows = own.count * job.outputs, i, k, at
    cdef size unit = kernels.size, bytes = job.outputs * unit
    cdef char* a = <char*>work.own((steps + 1) * rows * unit)
    cdef char* bias = a + steps * rows * unit
    cdef const char* panel
    cdef Py_ssize_t* shift = <Py_ssize_t*>work.own(steps * sizeof(Py_ssize_t))
    for i in range(own.count):
        panel = packed_panel(&job.passes[own.passes[i]].weights, 0, 0)
        for k in range(steps):
            memcpy(a + (k * rows + i * job.outputs) * unit, panel + k * kernels.lanes * unit, bytes)
        if p.bias != NULL:
            memcpy(bias + i * bytes, p.bias, bytes)
    for k in range(taps):
        at = (p.tap[1][k // p.taps[2]] - job.low[1]) * job.pitch + p.tap[2][k % p.taps[2]] - job.low[2]
        for i in range(job.channels):
            shift[k * job.channels + i] = at + i * job.plane
    memset(&own.product, 0, sizeof(fc_shifted))
    own.product.a, own.product.bias, own.product.shift = a, bias if p.bias != NULL else NULL, shift
    own.product.steps, own.product.rows, own.product.width, own.product.c_row = steps, rows, rows, job.sums
    own.product.relu = p.activation if p.activation <= RELU6 else LINEAR
    return 0


cdef void few_taps_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A band of an image."""
    cdef const FewTapsJob* job = <const FewTapsJob*>job_
    cdef const fc_kernels* kernels = job.passes[0].kernels
    cdef const View* x = &job.passes[0].x
    cdef size image = task // job.bands, y = task % job.bands * job.band, r, i, at, unit = kernels.size
    cdef size left = max(0, -job.low[2]), first = max(0, job.low[2]), count = min(x.n[3] - first, job.pitch - left)
    cdef char* sums = scratch + job.channels * job.plane * unit
    cdef const FewTapsTogether* own
    memset(scratch, 0, job.channels * job.plane * unit)
    for r in range(job.band + job.span[1] - 1):
        at = y + job.low[1] + r
        if 0 <= at < x.n[2] and count > 0:
            kernels.pack[job.passes[0].x_code](
                scratch + (r * job.pitch + left) * unit, job.plane, job.channels, count,
                x.p + image * x.s[0] + at * x.s[2] + first * x.s[3], x.s[1], x.s[3])
    for i in range(job.groups):
        if fc_interrupted(watch):
            return
        own = &job.together[i]
        few_taps_sums(job, own, scratch, sums, y)
        for r in range(own.count):
            few_taps_store(job, &job.passes[own.passes[r]], sums + r * job.outputs * job.sums * unit, image, y)


cdef void few_taps_sums(const FewTapsJob* job, const FewTapsTogether* own, const char* planes, char* sums,
                        size y) noexcept nogil:
    """All outputs of some passes in a band."""
    cdef const fc_kernels* kernels = job.passes[0].kernels
    cdef fc_shifted product = own.product
    cdef size total, begin = 0, vectors, most = few_taps_vectors(kernels, job.channels, product.rows)
    total = (min(job.band, job.rows - y) - 1) * job.pitch + job.columns
    while begin < total:
        vectors = min(most, (total - begin + kernels.lanes - 1) // kernels.lanes)
        product.b, product.c = planes + begin * kernels.size, sums + begin * kernels.size
        kernels.shifted[vectors](&product)
        begin += vectors * kernels.lanes


cdef void few_taps_store(const FewTapsJob* job, const DirectPass* p, char* sums, size image, size y) noexcept nogil:
    """The rows of outputs of a pass in a band."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size rows = min(job.band, p.extent[1] - y), unit = kernels.size, r, o, k
    cdef char* from_
    cdef char* to
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
