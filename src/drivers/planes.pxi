# 1x1 convolution of planes: arrays in which the pixels of a channel lie side by side (NCHW), read and written as they lie.
# The operands of the register tile change places: its columns are pixels, its rows output channels.
#
#   for panel of pixels x group x image x run of panels of outputs   threads take these
#     copy the panel: its pixels of every channel                    second-level cache
#     for panel of outputs                                           packed by a plan, or the array
#       for block of the reduction (channels)
#         for rows of the register tile                              micro-kernel, registers
#
# Every output is one sum in the order of the channels, as in drivers/direct.pxi. What it takes is what that calls in place:
# one tap, nothing padded.

cdef struct PlanesJob:
    const fc_kernels* kernels
    View x, y
    Weights weights
    const char* bias
    int x_code, y_code, activation
    size groups, channels, outputs # of one group
    size pixels, panels            # of an image; panels of pixels
    size chunks, kc
    size panel_bytes
    const Py_ssize_t* shift        # of so many vectors of pixels, the channels of a panel; NULL where sums are made in blocks
    size a_row[FC_MAX_VECTORS * 16]   # as many outputs as a panel of weights has at most


cdef bint planes_fit(const DirectPass* p) noexcept nogil:
    """Whether a pass that could read channels-last arrays in place has vectors of pixels to fill: hardly any lane idle, or
    copies in which a lane is an output cost less."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size pixels = volume(p.extent)
    cdef int axis
    for axis in range(3):
        if p.taps[axis] != 1 or p.stride[axis] != 1 or p.tap[axis][0] != 0 or p.apart[axis] != 1:
            return False
    return (not p.long_ and p.merged == p.outputs and kernels.tile_k == 1 and kernels.flat != NULL
            and p.channels > 0 and p.outputs > 0
            and p.y_code == kernels.sum and kernels.input_size == kernels.size and kernels.weight_size == kernels.size
            and pixels >= kernels.lanes and 8 * round_up(pixels, kernels.lanes) <= 9 * pixels)


cdef inline size planes_scratch(const DirectPass* p) noexcept nogil:
    """Of one thread: a panel of pixels, the sums of one that lies across the end of an image, and the bias of every
    output channel, once for each pixel."""
    cdef size width = p.kernels.vectors * p.kernels.lanes
    return round_up((p.channels + 2 * width) * width * p.kernels.size, 64)


cdef bint planes_usable(const DirectPass* p) noexcept nogil:
    """Whether the arrays of such a pass are planes."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size unit = kernels.input_size
    cdef int axis
    for axis in range(3):
        if length(&p.x, axis) != p.extent[axis] or length(&p.y, axis) != p.extent[axis]:
            return False
    if (p.has_residual or p.requantise != NULL or p.x_code != kernels.input or not planes_lie(&p.y, unit)
            or not planes_lie(&p.x, unit)):
        return False
    return p.weights.packed != NULL or (
        p.weights.code == kernels.input and p.weights.output_stride % unit == 0 and p.weights.channel_stride % unit == 0
        and <size>p.weights.array.p % unit == 0)


cdef inline bint planes_lie(const View* array, size unit) noexcept nogil:
    """Whether the pixels of a channel lie side by side."""
    return (array.s[3] == unit and array.s[1] % unit == 0 and array.s[0] % unit == 0 and <size>array.p % unit == 0
            and (array.n[2] == 1 or array.s[2] == array.n[3] * unit)
            and (array.n[4] == 1 or array.s[4] == array.n[2] * array.n[3] * unit))


cdef int planes_work(Work work, const DirectPass* p, int threads) except -1:
    """The tasks of a pass."""
    cdef const fc_kernels* kernels = p.kernels
    cdef PlanesJob* job = <PlanesJob*>work.own(sizeof(PlanesJob))
    cdef size vectors, i, width = p.weights.width, unit = kernels.size
    job.kernels, job.x, job.y, job.weights, job.bias = kernels, p.x, p.y, p.weights, p.bias
    job.x_code, job.y_code, job.activation = p.x_code, p.y_code, p.activation
    job.groups, job.channels, job.outputs, job.kc = p.groups, p.channels, p.outputs, p.kc
    job.pixels = volume(p.extent)
    vectors = (job.pixels + kernels.lanes - 1) // kernels.lanes
    job.panels = (vectors + kernels.vectors - 1) // kernels.vectors
    for i in range(width):
        job.a_row[i] = i if p.weights.packed != NULL else i * (p.weights.output_stride // unit)
    work.tasks, work.sites = p.y.n[0] * job.groups * job.panels, sites_of(p.y.n[0], job.groups, job.panels)
    threads = threads if job.pixels * p.y.n[0] * job.groups * job.outputs * job.channels >= PARALLEL_FROM_MACS else 1
    job.chunks = max(<size>1, min(p.weights.panels, 4 * threads // max(<size>1, work.tasks))) if threads > 1 else 1
    work.tasks *= job.chunks
    job.panel_bytes = job.channels * kernels.vectors * kernels.lanes * unit
    job.shift = planes_shift(work, p) if p.weights.packed != NULL and job.channels <= job.kc else NULL
    work.scratch_bytes = planes_scratch(p)
    work.task, work.job = planes_task, job
    work.place(&job.x.p)
    work.place(&job.y.p)
    return work.team(threads)


cdef const Py_ssize_t* planes_shift(Work work, const DirectPass* p) except NULL:
    """Where the channels of a panel lie, of one vector of pixels, of two ..."""
    cdef Py_ssize_t* shift = <Py_ssize_t*>work.own(p.kernels.vectors * p.channels * sizeof(Py_ssize_t))
    cdef size v, k
    for v in range(p.kernels.vectors):
        for k in range(p.channels):
            shift[v * p.channels + k] = k * (v + 1) * p.kernels.lanes
    return shift


cdef void planes_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A panel of pixels of an image and group, and some panels of outputs."""
    cdef const PlanesJob* job = <const PlanesJob*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef size panel = task % job.panels, group, image, chunk, q, last
    cdef size vectors = (job.pixels + kernels.lanes - 1) // kernels.lanes
    cdef size begin = panel * vectors // job.panels, width, first, count
    task = task // job.panels
    group, task = task % job.groups, task // job.groups
    image, chunk = task % job.y.n[0], task // job.y.n[0]
    first = begin * kernels.lanes
    vectors = (panel + 1) * vectors // job.panels - begin
    width = vectors * kernels.lanes
    count = min(width, job.pixels - first)
    if count < width:
        memset(scratch, 0, job.channels * width * kernels.size)
    kernels.pack[job.x_code](
        scratch, width, job.channels, count,
        job.x.p + image * job.x.s[0] + group * job.channels * job.x.s[1] + first * job.x.s[3], job.x.s[1], job.x.s[3])
    last = (chunk + 1) * job.weights.panels // job.chunks
    for q in range(chunk * job.weights.panels // job.chunks, last):
        if fc_interrupted(watch):
            return
        planes_outputs(job, scratch, image, group, q, first, count, vectors)


cdef void planes_outputs(const PlanesJob* job, char* scratch, size image, size group, size q, size first, size count,
                         size vectors) noexcept nogil:
    """A panel of outputs for a panel of pixels: in the output itself, if it has room for whole vectors."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size unit = kernels.size, width = vectors * kernels.lanes, full = job.weights.width, k = 0, r
    cdef size channel = group * job.outputs + q * full, rows = min(full, job.outputs - q * full)
    cdef size c_row[FC_MAX_VECTORS * 16]
    cdef size shift_row[FC_MAX_VECTORS * 16]
    cdef char* shift = scratch + job.panel_bytes + full * full * unit
    cdef char* to = job.y.p + image * job.y.s[0] + channel * job.y.s[1] + first * unit
    cdef bint in_output = count == width, in_registers = job.activation <= RELU6
    cdef fc_segment segment
    cdef fc_product product
    if job.shift != NULL:
        planes_whole(job, scratch, group, q, vectors, channel, rows, to if in_output else scratch + job.panel_bytes,
                     job.y.s[1] // unit if in_output else width)
        for r in range(rows if not (in_output and in_registers) else 0):
            kernels.store[job.y_code](
                to + r * job.y.s[1] if in_output else scratch + job.panel_bytes + r * width * unit, 0, 1, count,
                to + r * job.y.s[1], 0, unit, NULL, LINEAR if in_registers else job.activation, NULL, 0, 0)
        return
    memset(&product, 0, sizeof(product))
    for r in range(rows):
        c_row[r] = r * (job.y.s[1] // unit if in_output else width)
        shift_row[r] = r * width
    if job.bias != NULL:
        kernels.flat_fill(job.bias + channel * unit, rows, width, shift)
    if job.weights.packed != NULL:
        product.a = packed_panel(&job.weights, group, q)
        product.step = panel_vectors(&job.weights, q) * kernels.lanes
    else:
        product.a = (job.weights.array.p + group * (job.weights.array.n[0] // job.groups) * job.weights.array.s[0]
                     + q * full * job.weights.output_stride
                     + job.weights.offsets[0] + job.weights.offsets[1] + job.weights.offsets[2])  # one tap an axis
        product.step = job.weights.channel_stride // unit
    product.b, product.ldb, product.segment, product.segments = scratch, width, &segment, 1
    product.c = to if in_output else scratch + job.panel_bytes
    while k < job.channels:
        segment.a, segment.b, segment.k = k * product.step, k, min(job.kc, job.channels - k)
        product.a_row, product.c_row, product.accumulate = <const size*>&job.a_row[0], c_row, k > 0
        product.ahead, product.ahead_step = scratch, 0
        k += segment.k
        if k == job.channels:
            product.residual = shift if job.bias != NULL else NULL
            product.residual_row = shift_row
            product.relu = job.activation if in_registers else LINEAR
        run_product(kernels, &product, vectors, rows, segment.k)
    for r in range(rows if not (in_output and in_registers) else 0):
        kernels.store[job.y_code](
            <const char*>product.c + c_row[r] * unit, 0, 1, count, to + r * job.y.s[1], 0, unit, NULL,
            LINEAR if in_registers else job.activation, NULL, 0, 0)


cdef void planes_whole(const PlanesJob* job, const char* panel, size group, size q, size vectors, size channel, size rows,
                       char* to, size row) noexcept nogil:
    """The same of packed weights, where a sum is one block."""
    cdef fc_shifted product
    product.a, product.width = packed_panel(&job.weights, group, q), panel_vectors(&job.weights, q) * job.kernels.lanes
    product.b, product.shift, product.steps = panel, job.shift + (vectors - 1) * job.channels, job.channels
    product.bias = job.bias + channel * job.kernels.size if job.bias != NULL else NULL
    product.c, product.c_row, product.rows, product.fetch = to, row, rows, False
    product.relu = job.activation if job.activation <= RELU6 else LINEAR
    job.kernels.shifted[vectors](&product)
