# Depthwise convolution of planes: arrays in which the pixels of a channel lie side by side (NCHW), a lane a pixel.
#
#   for image x run of channels                                   threads take these
#     for band of rows of outputs
#       for channel
#         copy the rows under the band into a border of zeros;    first-level cache
#         of stride two the even and the odd ones apart
#         the rows behind each other as one: all taps             micro-kernel, registers
#         rows of outputs, activation
#
# Where there are kernels for a square kernel that read planes as they lie (kernels/plane_windows.h), nothing is copied:
#
#   for image x run of channels
#     for channel: all of its plane                             micro-kernel, registers
#
# Every output is one sum in the order (tap y, tap x), as in drivers/lanes.pxi, and the zeros of the border change no sum of
# finite weights. Larger strides are left to the lanes of drivers/lanes.pxi.

cdef enum:
    FLAT_BYTES = 24 << 10       # of a band and its sums
    FLAT_TASKS = 8              # of a thread
    FLAT_ROUNDED = 6            # a row may grow by one part in so many


cdef struct FlatJob:
    const fc_kernels* kernels
    View x, y
    const char* packed
    const char* bias
    int y_code, activation
    fc_flat multiply
    fc_plane_kernel whole       # of a channel; NULL: bands
    size total, taps, min_y, min_x
    size stride_y, stride_x, span_y, across   # rows and columns of the input under one row of outputs
    size pitch, under           # of a plane, one for each phase of the strides: columns of a row with its border; rows
                                # under a band beyond its own
    size dilation               # of kernels that read planes as they lie
    size band, plane            # rows of outputs done together; elements of all rows of a plane under them
    size parts                  # tasks of an image
    size* tap


cdef void flat_numbers(FlatJob* job, const LanesJob* of_) noexcept nogil:
    """The geometry of bands."""
    cdef size row, phases = of_.stride_y * of_.stride_x
    job.kernels, job.total, job.taps = of_.kernels, of_.total, of_.taps_y * of_.taps_x
    job.min_y, job.min_x, job.stride_y, job.stride_x = of_.min_y, of_.min_x, of_.stride_y, of_.stride_x
    job.span_y, job.across = of_.span_y, (of_.phase.size_x - 1) * of_.stride_x + of_.span_x
    job.under = (of_.span_y - 1) // of_.stride_y
    job.pitch = of_.phase.size_x + (of_.span_x - 1) // of_.stride_x
    # a row that begins on a vector is read without crossing cache lines, unless too many lanes would be border
    row = round_up(job.pitch, of_.kernels.lanes)
    if FLAT_ROUNDED * (row - job.pitch) <= job.pitch:
        job.pitch = row
    row = job.pitch * of_.kernels.size
    job.band = max(<size>1, min(of_.phase.size_y, (<size>FLAT_BYTES // row - phases * job.under) // (phases + 1)))
    job.multiply = NULL
    if of_.stride_x == 1 and of_.step_x == 1 and of_.taps_x <= FC_FLAT_TAPS:
        job.multiply = of_.kernels.flat_window[of_.taps_x]
    if job.multiply == NULL:
        job.multiply = of_.kernels.flat
    job.whole, job.dilation = NULL, of_.step_x
    if (of_.taps_y == of_.taps_x <= FC_FLAT_TAPS and of_.stride_y == of_.stride_x and of_.span_y == of_.taps_y
            and of_.span_x == of_.taps_x):
        job.whole = of_.kernels.plane_window[of_.taps_x][of_.stride_x]
    elif flat_apart(of_):
        job.whole = of_.kernels.plane_window[of_.taps_x][0]
    job.plane = round_up((job.band + job.under) * job.pitch + FLAT_VECTORS * job.kernels.lanes, job.kernels.lanes)


cdef bint flat_apart(const LanesJob* of_) noexcept nogil:
    """Whether a square kernel is dilated alike along both axes, at stride 1."""
    cdef size i
    if not (of_.taps_y == of_.taps_x <= FC_FLAT_TAPS and of_.stride_y == of_.stride_x == 1 and of_.step_x > 1):
        return False
    for i in range(of_.taps_y):
        if of_.tap_y[i] != of_.min_y + i * of_.step_x:
            return False
    return True


cdef size flat_scratch(const FlatJob* job) noexcept nogil:
    """Of one thread: the planes under a band, and its sums."""
    return 0 if job.whole != NULL else round_up((job.stride_y * job.stride_x + 1) * job.plane * job.kernels.size, 64)


cdef bint flat_fits(const LanesJob* job) noexcept nogil:
    """Whether a pass could be computed so, and half of its lanes or more are outputs."""
    cdef FlatJob own
    if (job.kernels.flat == NULL or job.channels != 1 or job.outputs != 1 or job.mode != FC_ZEROS
            or is_long(job.kernels, job.taps_y * job.taps_x)
            or job.stride_y > 2 or job.stride_x > 2 or job.phase.step_y != 1 or job.phase.step_x != 1):
        return False
    flat_numbers(&own, job)
    if own.whole != NULL:
        return True
    return (2 * job.phase.size_x >= own.pitch and job.phase.size_x * job.phase.size_y >= job.kernels.lanes
            and flat_scratch(&own) <= 2 * FLAT_BYTES)


cdef bint flat_bind(const LanesJob* first, Program program, const Operands* o, const char* packed, int threads,
                    Work work) except -1:
    """As `Lanes.bind`; False, and nothing is done, where the arrays are no planes."""
    cdef FlatJob* job
    cdef size unit = first.kernels.size, i, j, y, x, images = o.x.n[0], each
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
            y, x = first.tap_y[i] - job.min_y, first.tap_x[j] - job.min_x
            job.tap[i * first.taps_x + j] = ((y % job.stride_y * job.stride_x + x % job.stride_x) * job.plane
                                             + y // job.stride_y * job.pitch + x // job.stride_x)
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
    if job.whole != NULL:
        for c in range(part * job.total // job.parts, (part + 1) * job.total // job.parts):
            if fc_interrupted(watch):
                return
            flat_whole(job, image, c)
        return
    while y < job.y.n[2]:
        memset(scratch, 0, job.stride_y * job.stride_x * job.plane * job.kernels.size)
        for c in range(part * job.total // job.parts, (part + 1) * job.total // job.parts):
            if fc_interrupted(watch):
                return
            flat_band(job, scratch, image, c, y, min(job.band, job.y.n[2] - y))
        y += job.band


cdef const char* flat_weights(const FlatJob* job, size c, size* apart) noexcept nogil:
    """The weights of a channel, and the elements between them."""
    cdef size full = job.kernels.vectors * job.kernels.lanes, panel = c - c % full
    apart[0] = min(full, round_up(job.total - panel, job.kernels.lanes))
    return job.packed + (panel * job.taps + c - panel) * job.kernels.size


cdef void flat_whole(const FlatJob* job, size image, size c) noexcept nogil:
    """All outputs of a channel, from its plane as it lies."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size unit = kernels.size, pixels = job.y.n[2] * job.y.n[3]
    cdef char* to = job.y.p + image * job.y.s[0] + c * job.y.s[1]
    cdef fc_plane_window p
    p.x, p.y = job.x.p + image * job.x.s[0] + c * job.x.s[1], to
    p.w = flat_weights(job, c, &p.ldw)
    p.bias = job.bias + c * unit if job.bias != NULL else NULL
    p.height, p.width, p.rows, p.columns = job.x.n[2], job.x.n[3], job.y.n[2], job.y.n[3]
    p.x_row, p.y_row, p.first_y, p.first_x, p.dilation = p.width, p.columns, job.min_y, job.min_x, job.dilation
    p.relu = job.activation if job.activation <= RELU6 else LINEAR
    job.whole(&p)
    if job.activation > RELU6:
        kernels.store[job.y_code](to, 0, 1, pixels, to, 0, unit, NULL, job.activation, NULL, 0, 0)


cdef void flat_in(const FlatJob* job, char* planes, size image, size c, size y, size rows) noexcept nogil:
    """Copy what lies inside the input under some rows of outputs."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size unit = kernels.size, left = max(0, -job.min_x), first = max(0, job.min_x), row = job.x.s[2] // unit
    cdef size count = min(job.x.n[3] - first, job.across - left), top = y * job.stride_y + job.min_y, r, n, at
    cdef size begin = max(0, -top), end = min((rows - 1) * job.stride_y + job.span_y, job.x.n[2] - top)
    cdef const char* last = (job.x.p + (job.x.n[0] - 1) * job.x.s[0] + (job.x.n[1] - 1) * job.x.s[1]
                             + job.x.n[2] * job.x.n[3] * unit)
    cdef const char* from_
    if count <= 0:
        return
    for r in range(begin, min(end, begin + job.stride_y)):
        from_ = job.x.p + image * job.x.s[0] + c * job.x.s[1] + (top + r) * job.x.s[2] + first * unit
        n = (end - r + job.stride_y - 1) // job.stride_y
        at = r % job.stride_y * job.stride_x * job.plane + r // job.stride_y * job.pitch
        if job.stride_x == 1:
            kernels.flat_rows(from_, job.stride_y * row, n, count, last, planes + (at + left) * unit, job.pitch)
        else:
            kernels.flat_split(from_, job.stride_y * row, n, count, last,
                               planes + (at + left % 2 * job.plane + left // 2) * unit,
                               planes + (at + (left + 1) % 2 * job.plane + (left + 1) // 2) * unit, job.pitch)


cdef void flat_band(const FlatJob* job, char* scratch, size image, size c, size y, size rows) noexcept nogil:
    """Some rows of outputs of a channel."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size unit = kernels.size, width = job.y.n[3], r, apart
    cdef char* to = job.y.p + image * job.y.s[0] + c * job.y.s[1] + y * job.y.s[2]
    cdef char* sums = scratch + job.stride_y * job.stride_x * job.plane * unit
    cdef const char* weights = flat_weights(job, c, &apart)
    flat_in(job, scratch, image, c, y, rows)
    job.multiply(scratch, <const Py_ssize_t*>job.tap, weights, apart, job.taps,
                 job.bias + c * unit if job.bias != NULL else NULL,
                 job.activation if job.activation <= RELU6 else LINEAR, sums, rows * job.pitch - (job.pitch - width))
    if job.activation <= RELU6:
        kernels.flat_store(sums, job.pitch, rows, width, to)
        return
    for r in range(rows):
        kernels.store[job.y_code](sums + r * job.pitch * unit, 0, 1, width, to + r * job.y.s[2], 0, unit, NULL,
                                  job.activation, NULL, 0, 0)
