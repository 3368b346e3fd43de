# Depthwise convolution of arrays whose channels do not lie side by side (NCHW), by the patches and strips of those whose
# channels do (drivers/patches.pxi, drivers/strips.pxi): on transposed copies, a vector of channels at a time.
#
#   for image x vector of channels x band of outputs: planes, rows and columns   threads take these
#     transpose the input under the band                       second-level cache
#     all passes                                               micro-kernel, registers
#     transpose the outputs; residual, other activations, element type
#
# Short rows leave most lanes of drivers/flat.pxi idle; here every vector is full. With rows of 7 it takes 0.55 to 0.9 of the
# time, with rows of 14 as long or longer (Zen 4). Volumes whose arrays do not lie as patches need are all done so: a plane
# of the kernel after the other took 1.8 to 5 times as long, and other sums. These are those of patches.

cdef enum:
    TRANSPOSED_BYTES = 128 << 10   # of a band and its outputs, of one pass over an image: an eighth of the second level
    TRANSPOSED_MOST = 512 << 10    # of volumes and several passes, whose bands share more of their inputs; and of the smallest
    TRANSPOSED_TASKS = 8           # of a thread, where rows are many enough
    TRANSPOSED_ROWS = 8            # of a band at least
    COLUMNS_COST = 4               # rows are cut where they are so many times as long, for their share of borders, as others


cdef struct TransposedJob:
    PatchJob patches           # on copies that begin at NULL
    View x, y, residual
    bint has_residual
    bint covers                # the passes write to all outputs
    int activation             # that the epilogue applies
    size chunks                # tasks of an image and band
    size bands[3]              # along the axes z, y, x
    size outputs[3]            # of the largest band, and inputs under one
    size inputs[3]
    size input_bytes, output_bytes


cdef inline void band_of(const TransposedJob* job, int axis, size band, size* outputs) noexcept nogil:
    """The first output of a band along an axis, and the one behind its last."""
    outputs[0] = band * job.patches.own.size[axis] // job.bands[axis]
    outputs[1] = (band + 1) * job.patches.own.size[axis] // job.bands[axis]


cdef inline void outputs_in(const PatchPass* p, int axis, const size* band, size* own) noexcept nogil:
    """Those of the pass that lie in a band of all outputs: the first one, and the one behind the last."""
    own[0] = max(<size>0, (band[0] - p.first[axis] + p.apart[axis] - 1) // p.apart[axis])
    own[1] = max(own[0], min(p.outputs[axis], (band[1] - p.first[axis] + p.apart[axis] - 1) // p.apart[axis]))


cdef void band_inputs(const Patches* own, int axis, const size* band, size* inputs) noexcept nogil:
    """From where to where along an axis lies what all passes read for a band of outputs."""
    cdef const PatchPass* p
    cdef size i
    cdef size[2] outputs
    cdef size[2] under
    inputs[0] = inputs[1] = -1
    for i in range(own.count):
        p = &own.passes[i]
        outputs_in(p, axis, band, outputs)
        if outputs[0] == outputs[1]:
            continue
        inputs_under(own, p, axis, outputs[0], outputs[1] - 1, under)
        if under[0] < under[1]:
            under[0] = p.offset[axis] + under[0] * p.every[axis]
            under[1] = p.offset[axis] + (under[1] - 1) * p.every[axis] + 1
            inputs[0] = under[0] if inputs[0] < 0 else min(inputs[0], under[0])
            inputs[1] = max(inputs[1], under[1])
    inputs[0], inputs[1] = max(<size>0, inputs[0]), max(<size>0, inputs[1])


cdef void cut_axis(TransposedJob* job, int axis, size bands) noexcept nogil:
    """Into so many bands, and the largest of them."""
    cdef size band
    cdef size[2] outputs
    cdef size[2] inputs
    job.bands[axis], job.outputs[axis], job.inputs[axis] = bands, 0, 0
    for band in range(bands):
        band_of(job, axis, band, outputs)
        band_inputs(job.patches.own, axis, outputs, inputs)
        job.outputs[axis] = max(job.outputs[axis], outputs[1] - outputs[0])
        job.inputs[axis] = max(job.inputs[axis], inputs[1] - inputs[0])


cdef int axis_to_cut(const TransposedJob* job, const size* least) noexcept nogil:
    """The axis along which bands are the longest for what neighbours share of their inputs; -1: none is to be cut."""
    cdef int axis, best = -1
    cdef size score, most = 0, shared
    for axis in range(3):
        if job.outputs[axis] >= 2 * least[axis]:
            shared = max(<size>0, job.inputs[axis] - job.outputs[axis] * job.patches.own.stride[axis])
            score = 16 * COLUMNS_COST * job.outputs[axis] // ((COLUMNS_COST if axis == 2 else 1) * (shared + 1))
            if score > most:
                best, most = axis, score
    return best


cdef void transposed_numbers(TransposedJob* job, const Patches* own, size images, int threads, bint capped) noexcept nogil:
    """The geometry of bands; those of `capped` scratch are the smallest."""
    cdef size line = own.kernels.lanes * own.kernels.size, most = 0, i, written = 0
    cdef size[3] least
    cdef int axis
    job.patches.own, job.patches.kernels, job.patches.images = own, own.kernels, images
    job.patches.vectors = job.chunks = own.total // own.kernels.lanes
    job.patches.together = job.patches.deep = 1
    strip_cuts(&job.patches, 1)
    line *= 1 if own.total % own.kernels.lanes == 0 else 2   # the channels that fill no vector are done with the last one
    least[0], least[1], least[2] = 1, 1, CUT_COLUMNS
    for i in range(own.count):
        written += volume(own.passes[i].outputs)
        least[2] = max(least[2], FC_WINDOW * own.passes[i].apart[2])
    job.covers = written == volume(own.size)
    if not capped:
        most = TRANSPOSED_BYTES if own.count == 1 and own.size[0] == 1 else TRANSPOSED_MOST
    for axis in range(3):
        cut_axis(job, axis, 1)
    while True:
        job.input_bytes, job.output_bytes = volume(job.inputs) * line, volume(job.outputs) * line
        if job.input_bytes + job.output_bytes <= most:
            if threads == 1 or images * job.chunks * volume(job.bands) >= TRANSPOSED_TASKS * threads:
                return
            least[0], least[1], least[2] = TRANSPOSED_ROWS, TRANSPOSED_ROWS, own.size[2]
        axis = axis_to_cut(job, least)
        if axis < 0:
            return
        cut_axis(job, axis, job.bands[axis] + max(<size>1, job.bands[axis] // 8))


cdef inline size transposed_scratch(const TransposedJob* job) noexcept nogil:
    """Of one thread: what a strip takes, and both copies."""
    return job.patches.inside_bytes + job.input_bytes + job.output_bytes


cdef size transposed_image(const Patches* own) noexcept nogil:
    """Scratch of one thread at most, of an image; 0 where copies take too much of it, or it is not written whole."""
    cdef TransposedJob job
    if not patches_fit(own):
        return 0
    transposed_numbers(&job, own, 1, 1, False)
    return transposed_scratch(&job) if job.covers and transposed_scratch(&job) <= TRANSPOSED_MOST else 0


cdef bint transposed_lie(const Operands* o) noexcept nogil:
    """Whether pixels lie nearer to each other than channels."""
    return ((o.x.n[3] == 1 or o.x.s[3] < o.x.s[1]) and (o.y.n[3] == 1 or o.y.s[3] < o.y.s[1]))


cdef int transposed_bind(const Patches* own, Program program, const Operands* o, const char* packed, int threads,
                         bint capped, Work work) except -1:
    """As `patches_bind`, of arrays that lie in any way, with a residual or not."""
    cdef TransposedJob* job = <TransposedJob*>work.own(sizeof(TransposedJob))
    job.x, job.y, job.residual, job.has_residual = o.x, o.y, o.residual, o.has_residual
    job.patches.own, job.patches.kernels, job.patches.images = own, own.kernels, o.x.n[0]
    threads = patch_team(&job.patches, threads)
    transposed_numbers(job, own, o.x.n[0], threads, capped)
    job.patches.ahead, job.patches.packs = 0, False
    job.patches.packed, job.patches.bias, job.activation = packed, o.bias, o.activation
    # the epilogue is another where a residual comes between
    job.patches.activation = LINEAR if o.has_residual or o.activation > RELU6 else o.activation
    if job.patches.activation != LINEAR:
        job.activation = LINEAR
    job.patches.x_code, job.patches.y_code = program.input, program.result
    job.patches.tail = patch_tail(&job.patches, work)
    work.scratch_bytes = transposed_scratch(job)
    work.task, work.job, work.tasks = transposed_task, job, o.x.n[0] * job.chunks * volume(job.bands)
    work.sites = sites_of(o.x.n[0], job.chunks, volume(job.bands))
    places_of(work, &job.x, &job.y, &job.residual, o.has_residual)
    return work.team(threads)


cdef struct Box:               # a band of channels, and the input under it
    size image, channel, count, ld
    size outputs[3][2]
    size inputs[3][2]


cdef void transposed_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A band of a vector of channels, or what is left of them."""
    cdef const TransposedJob* job = <const TransposedJob*>job_
    cdef const Patches* own = job.patches.own
    cdef size v, axis, i, lanes = own.kernels.lanes
    cdef Box box
    cdef char* input = scratch + job.patches.inside_bytes
    cdef char* output = input + job.input_bytes
    for i in range(3):
        axis = 2 - i
        band_of(job, <int>axis, task % job.bands[axis], box.outputs[axis])
        band_inputs(own, <int>axis, box.outputs[axis], box.inputs[axis])
        task = task // job.bands[axis]
    v, box.image = task % job.chunks, task // job.chunks
    box.channel = v * lanes
    box.count = lanes if v + 1 < job.chunks else own.total - box.channel
    box.ld = round_up(box.count, lanes)
    transposed_in(job, &box, input)
    if not job.covers:
        memset(output, 0, job.output_bytes)
    for i in range(own.count):
        transposed_pass(job, &box, &own.passes[i], input, output, scratch, v, watch)
    transposed_out(job, &box, output)


cdef void transposed_pass(const TransposedJob* job, const Box* box, const PatchPass* whole, const char* input, char* output,
                          char* scratch, size v, fc_watch* watch) noexcept nogil:
    """The outputs of a pass that lie in the box, as a pass of so many."""
    cdef const Patches* own = job.patches.own
    cdef PatchJob patches = job.patches
    cdef PatchPass p = whole[0]
    cdef PatchOut out
    cdef size pixel = box.ld * own.kernels.size, axis
    cdef size ahead = box.channel * own.kernels.size   # of the first channel of the image
    cdef size[3] first
    cdef size[2] inside
    for axis in range(3):
        outputs_in(whole, <int>axis, box.outputs[axis], inside)
        p.low[axis] += inside[0] * own.stride[axis]
        p.outputs[axis] = inside[1] - inside[0]
        first[axis] = p.first[axis] + inside[0] * p.apart[axis] - box.outputs[axis][0]
    if volume(p.outputs) == 0:
        return
    # patches count from the first pixel and channel of the image
    patches.x.x_ = pixel
    patches.x.y = (box.inputs[2][1] - box.inputs[2][0]) * patches.x.x_
    patches.x.z = (box.inputs[1][1] - box.inputs[1][0]) * patches.x.y
    patches.x.x = (input - box.inputs[0][0] * patches.x.z - box.inputs[1][0] * patches.x.y
                   - box.inputs[2][0] * patches.x.x_ - ahead)
    patches.x_n = patches.y_n = 0
    out.y_x = pixel
    out.y_y = (box.outputs[2][1] - box.outputs[2][0]) * out.y_x
    out.y_z = (box.outputs[1][1] - box.outputs[1][0]) * out.y_y
    out.y = output + first[0] * out.y_z + first[1] * out.y_y + first[2] * out.y_x - ahead
    out.y_z, out.y_y, out.y_x = p.apart[0] * out.y_z, p.apart[1] * out.y_y, p.apart[2] * out.y_x
    patch_lines(&patches, &p, &out, scratch, 0, v, v + 1, 0, p.outputs[0] * p.outputs[1], watch)


cdef void transposed_in(const TransposedJob* job, const Box* box, char* to) noexcept nogil:
    """Copy the input under a box."""
    cdef const fc_kernels* kernels = job.patches.kernels
    cdef const View* x = &job.x
    cdef size z, row, columns = box.inputs[2][1] - box.inputs[2][0], rows = 1
    if columns == x.n[3] and rows_follow(x):
        rows = box.inputs[1][1] - box.inputs[1][0]
    for z in range(box.inputs[0][0], box.inputs[0][1]):
        row = box.inputs[1][0]
        while row < box.inputs[1][1]:
            kernels.pack[job.patches.x_code](
                to, box.ld, rows * columns, box.count,
                x.p + box.image * x.s[0] + box.channel * x.s[1] + z * x.s[4] + row * x.s[2] + box.inputs[2][0] * x.s[3],
                x.s[3], x.s[1])
            to += rows * columns * box.ld * kernels.size
            row += rows


cdef void transposed_out(const TransposedJob* job, const Box* box, const char* from_) noexcept nogil:
    """Store the outputs of a box."""
    cdef const fc_kernels* kernels = job.patches.kernels
    cdef const View* y = &job.y
    cdef const View* add = &job.residual
    cdef const char* residual = NULL
    cdef size z, row, columns = box.outputs[2][1] - box.outputs[2][0], rows = 1
    if columns == y.n[3] and rows_follow(y) and (not job.has_residual or rows_follow(add)):
        rows = box.outputs[1][1] - box.outputs[1][0]
    for z in range(box.outputs[0][0], box.outputs[0][1]):
        row = box.outputs[1][0]
        while row < box.outputs[1][1]:
            if job.has_residual:
                residual = (add.p + box.image * add.s[0] + box.channel * add.s[1] + z * add.s[4] + row * add.s[2]
                            + box.outputs[2][0] * add.s[3])
            kernels.store[job.patches.y_code](
                from_, box.ld, rows * columns, box.count,
                y.p + box.image * y.s[0] + box.channel * y.s[1] + z * y.s[4] + row * y.s[2] + box.outputs[2][0] * y.s[3],
                y.s[3], y.s[1], NULL, job.activation,
                residual, add.s[3] if job.has_residual else 0, add.s[1] if job.has_residual else 0)
            from_ += rows * columns * box.ld * kernels.size
            row += rows
