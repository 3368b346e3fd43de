# Depthwise convolution of planes at stride 1: arrays in which the pixels of a channel lie side by side (NCHW), a lane a pixel.
#
#   for image x run of channels                                   threads take these
#     for band of rows of outputs
#       for channel
#         copy the rows under the band into a border of zeros     first-level cache
#         the rows behind each other as one: all taps             micro-kernel, registers
#         rows of outputs, activation
#
# Every output is one sum in the order (tap y, tap x), as in drivers/lanes.pxi, and the zeros of the border change no sum of
# finite weights. With larger strides the copies cost more than the lanes of drivers/lanes.pxi.

cdef enum:
    FLAT_BYTES = 24 << 10       # of a band and its sums
    FLAT_TASKS = 8              # of a thread


cdef struct FlatJob:
    const fc_kernels* kernels
    View x, y
    const char* packed
    const char* bias
    int y_code, activation
    size total, taps, min_y, min_x
    size pitch, under           # columns of a row with its border; rows under a band beyond its own
    size band, plane            # rows of outputs done together; elements of all rows under them
    size parts                  # tasks of an image
    size* tap


cdef void flat_numbers(FlatJob* job, const LanesJob* of_) noexcept nogil:
    """The geometry of bands."""
    cdef size row
    job.kernels, job.total, job.taps = of_.kernels, of_.total, of_.taps_y * of_.taps_x
    job.min_y, job.min_x, job.under = of_.min_y, of_.min_x, of_.span_y - 1
    job.pitch = of_.phase.size_x - 1 + of_.span_x
    row = job.pitch * of_.kernels.size
    job.band = max(<size>1, min(of_.phase.size_y, (<size>FLAT_BYTES // row - job.under) // 2))
    job.plane = round_up((job.band + job.under) * job.pitch + FLAT_VECTORS * job.kernels.lanes, job.kernels.lanes)


cdef size flat_scratch(const FlatJob* job) noexcept nogil:
    """Of one thread: the rows under a band, its sums, the weights of a channel."""
    return round_up((2 * job.plane + job.taps) * job.kernels.size, 64)


cdef bint flat_fits(const LanesJob* job) noexcept nogil:
    """Whether a pass could be computed so, and half of its lanes or more are outputs."""
    cdef FlatJob own
    if (job.kernels.flat == NULL or job.channels != 1 or job.outputs != 1 or job.mode != FC_ZEROS
            or is_long(job.kernels, job.taps_y * job.taps_x)
            or job.stride_y != 1 or job.stride_x != 1 or job.phase.step_y != 1 or job.phase.step_x != 1):
        return False
    flat_numbers(&own, job)
    return (2 * job.phase.size_x >= own.pitch and job.phase.size_x * job.phase.size_y >= job.kernels.lanes
            and flat_scratch(&own) <= 2 * FLAT_BYTES)


cdef bint flat_bind(const LanesJob* first, Program program, const Operands* o, const char* packed, int threads,
                    Work work) except -1:
    """As `Lanes.bind`; False, and nothing is done, where the arrays are no planes."""
    cdef FlatJob* job
    cdef size unit = first.kernels.size, i, j, images = o.x.n[0], each
    if (o.has_residual or program.input != first.kernels.input or program.result != first.kernels.sum
            or not planes_lie(&o.x, unit) or not planes_lie(&o.y, unit)):
        return False
    job = <FlatJob*>work.own(sizeof(FlatJob))
    flat_numbers(job, first)
    job.x, job.y, job.packed, job.bias = o.x, o.y, packed, o.bias
    job.y_code, job.activation = program.result, o.activation
    job.tap = <size*>work.own(job.taps * sizeof(size))
    for i in range(first.taps_y):
        for j in range(first.taps_x):
            job.tap[i * first.taps_x + j] = (first.tap_y[i] - job.min_y) * job.pitch + first.tap_x[j] - job.min_x
    threads = threads if 4 * images * job.total * job.taps * o.y.n[2] * o.y.n[3] >= PARALLEL_FROM_MACS else 1
    each = max(<size>1, images * job.total // (FLAT_TASKS * threads)) if threads > 1 else job.total
    job.parts = (job.total + each - 1) // each
    work.scratch_bytes = flat_scratch(job)
    work.task, work.job, work.tasks = flat_task, job, images * job.parts
    work.place(&job.x.p)
    work.place(&job.y.p)
    work.team(threads)
    return True


cdef void flat_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """Some channels of an image, band by band: the border of a band is zeros for all of them."""
    cdef const FlatJob* job = <const FlatJob*>job_
    cdef size image = task // job.parts, part = task % job.parts, c, y = 0
    while y < job.y.n[2]:
        memset(scratch, 0, job.plane * job.kernels.size)
        for c in range(part * job.total // job.parts, (part + 1) * job.total // job.parts):
            if fc_interrupted(watch):
                return
            flat_weights(job, c, scratch + 2 * job.plane * job.kernels.size)
            flat_band(job, scratch, image, c, y, min(job.band, job.y.n[2] - y))
        y += job.band


cdef void flat_weights(const FlatJob* job, size c, char* to) noexcept nogil:
    """The weights of a channel side by side."""
    cdef size unit = job.kernels.size, full = job.kernels.vectors * job.kernels.lanes, panel = c - c % full, t
    cdef size ldb = min(full, round_up(job.total - panel, job.kernels.lanes))
    cdef const char* from_ = job.packed + (panel * job.taps + c - panel) * unit
    for t in range(job.taps):
        memcpy(to + t * unit, from_ + t * ldb * unit, unit)


cdef void flat_band(const FlatJob* job, char* scratch, size image, size c, size y, size rows) noexcept nogil:
    """Some rows of outputs of a channel."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size unit = kernels.size, width = job.y.n[3], r
    cdef size left = max(0, -job.min_x), first = max(0, job.min_x), count = min(job.x.n[3] - first, job.pitch - left)
    cdef size top = y + job.min_y, begin = max(0, -top), end = min(rows + job.under, job.x.n[2] - top)
    cdef const char* from_ = job.x.p + image * job.x.s[0] + c * job.x.s[1] + first * unit
    cdef char* to = job.y.p + image * job.y.s[0] + c * job.y.s[1] + y * job.y.s[2]
    cdef char* sums = scratch + job.plane * unit
    for r in range(begin, end if count > 0 else begin):
        memcpy(scratch + (r * job.pitch + left) * unit, from_ + (top + r) * job.x.s[2], count * unit)
    kernels.flat(scratch, <const Py_ssize_t*>job.tap, sums + job.plane * unit, job.taps,
                 job.bias + c * unit if job.bias != NULL else NULL,
                 job.activation if job.activation <= RELU6 else LINEAR, sums, rows * job.pitch - (job.pitch - width))
    for r in range(rows):
        if job.activation <= RELU6:
            memcpy(to + r * job.y.s[2], sums + r * job.pitch * unit, width * unit)
        else:
            kernels.store[job.y_code](sums + r * job.pitch * unit, 0, 1, width, to + r * job.y.s[2], 0, unit, NULL,
                                      job.activation, NULL, 0, 0)
