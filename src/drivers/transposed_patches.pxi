# Depthwise convolution of arrays in which the pixels of a channel lie side by side (NCHW), by the patches and strips of
# those whose channels do (drivers/patches.pxi, drivers/strips.pxi): on transposed copies, a vector of channels at a time.
#
#   for image x vector of channels x band of rows of outputs   threads take these
#     transpose the input under the band                       first- or second-level cache
#     all passes                                               micro-kernel, registers
#     transpose the outputs; residual, other activations, element type
#
# Short rows leave most lanes of drivers/flat.pxi idle; here every vector is full. With rows of 7 it takes 0.55 to 0.9 of the
# time, with rows of 14 as long or longer (Zen 4). The sums are the same.

cdef enum:
    TRANSPOSED_BYTES = 128 << 10   # of a band and its outputs: an eighth of the second level
    TRANSPOSED_MOST = 512 << 10    # of an image that is one band
    TRANSPOSED_TASKS = 8           # of a thread, where rows are many enough
    TRANSPOSED_ROWS = 8            # of a band at least


cdef struct TransposedJob:
    PatchJob patches           # on copies that begin at NULL
    View x, y, residual
    bint has_residual
    int activation             # that the epilogue applies
    bint single                # one pass over one plane, which may be cut into bands
    size chunks, bands         # tasks of an image
    size input_bytes, output_bytes


cdef void transposed_numbers(TransposedJob* job, const Patches* own, size images, int threads) noexcept nogil:
    """The geometry of bands: one alone where several passes write to the same rows, or planes share their inputs."""
    cdef const PatchPass* p = &own.passes[0]
    cdef size line = own.kernels.lanes * own.kernels.size, rows = p.outputs[1], inputs = own.inputs, most, under
    cdef size outputs = volume(own.size)
    job.patches.own, job.patches.kernels, job.patches.images = own, own.kernels, images
    job.patches.vectors = job.chunks = own.total // own.kernels.lanes
    job.patches.together = job.patches.deep = 1
    strip_cuts(&job.patches, 1)
    job.bands, job.single = 1, own.count == 1 and own.size[0] == 1 and p.input[0] == 1
    if job.single:
        under = (p.taps[1] - 1) * p.step[1] + 1 - own.stride[1]   # rows of input under a band beyond its own
        most = (<size>TRANSPOSED_BYTES // line - under * p.input[2]) // (own.stride[1] * p.input[2] + p.outputs[2])
        job.bands = (rows + max(<size>1, most) - 1) // max(<size>1, most)
        if threads > 1:
            most = TRANSPOSED_TASKS * threads // max(<size>1, images * job.chunks)
            job.bands = max(job.bands, min(most, rows // TRANSPOSED_ROWS))
        rows = (rows + job.bands - 1) // job.bands
        inputs = min(p.input[1], rows * own.stride[1] + under) * p.input[2]
        outputs = rows * p.outputs[2]
    line *= 1 if own.total % own.kernels.lanes == 0 else 2   # the channels that fill no vector are done with the last one
    job.input_bytes, job.output_bytes = inputs * line, outputs * line


cdef inline size transposed_scratch(const TransposedJob* job) noexcept nogil:
    """Of one thread: what a strip takes, and both copies."""
    return job.patches.inside_bytes + job.input_bytes + job.output_bytes


cdef size transposed_bytes(const Patches* own) noexcept nogil:
    """Scratch of one thread at most; 0 where copies take too much of it, or are not for such passes."""
    cdef TransposedJob job
    cdef size i, written = 0
    if own.count == 0 or own.total < own.kernels.lanes:
        return 0
    for i in range(own.count):
        written += volume(own.passes[i].outputs)
    transposed_numbers(&job, own, 1, 1)
    return transposed_scratch(&job) if written == volume(own.size) and transposed_scratch(&job) <= TRANSPOSED_MOST else 0


cdef bint transposed_lie(const Operands* o) noexcept nogil:
    """Whether pixels lie nearer to each other than channels."""
    return ((o.x.n[3] == 1 or o.x.s[3] < o.x.s[1]) and (o.y.n[3] == 1 or o.y.s[3] < o.y.s[1]))


cdef int transposed_bind(const Patches* own, Program program, const Operands* o, const char* packed, int threads,
                         Work work) except -1:
    """As `patches_bind`, of arrays that `transposed_lie`."""
    cdef TransposedJob* job
    cdef PatchOut* out
    cdef const PatchPass* p
    cdef size i, line = own.kernels.lanes * own.kernels.size
    job = <TransposedJob*>work.own(sizeof(TransposedJob) + own.count * sizeof(PatchOut))
    job.x, job.y, job.residual, job.has_residual = o.x, o.y, o.residual, o.has_residual
    job.patches.own, job.patches.kernels, job.patches.images = own, own.kernels, o.x.n[0]
    threads = patch_team(&job.patches, threads)
    transposed_numbers(job, own, o.x.n[0], threads)
    job.patches.out, job.patches.ahead, job.patches.packs = <PatchOut*>(job + 1), 0, False
    job.patches.packed, job.patches.bias, job.activation = packed, o.bias, o.activation
    # the epilogue is another where a residual comes between
    job.patches.activation = LINEAR if o.has_residual or o.activation > RELU6 else o.activation
    if job.patches.activation != LINEAR:
        job.activation = LINEAR
    job.patches.x_code, job.patches.y_code = program.input, program.result
    job.patches.tail = patch_tail(&job.patches, work)
    for i in range(own.count):
        p, out = &own.passes[i], &job.patches.out[i]
        out.y_x, out.y_y = p.apart[2], p.apart[1] * own.size[2]
        out.y_z = p.apart[0] * own.size[1] * own.size[2]
        out.y = <char*>0 + ((p.first[0] * own.size[1] + p.first[1]) * own.size[2] + p.first[2])  # in pixels, as all of these
    work.scratch_bytes = transposed_scratch(job)
    work.task, work.job, work.tasks = transposed_task, job, o.x.n[0] * job.chunks * job.bands
    work.sites = sites_of(o.x.n[0], job.chunks, job.bands)
    places_of(work, &job.x, &job.y, &job.residual, o.has_residual)
    return work.team(threads)


cdef void transposed_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A band of a vector of channels, or what is left of them."""
    cdef const TransposedJob* job = <const TransposedJob*>job_
    cdef const Patches* own = job.patches.own
    cdef const fc_kernels* kernels = own.kernels
    cdef const PatchPass* p
    cdef PatchJob patches = job.patches
    cdef PatchOut out
    cdef size band = task % job.bands, v, image, i, lo, hi, unit = kernels.size, ld, first, count, row = 0
    cdef size[2] rows
    cdef char* input = scratch + job.patches.inside_bytes
    cdef char* output = input + job.input_bytes
    task = task // job.bands
    v, image = task % job.chunks, task // job.chunks
    first, count = v * kernels.lanes, kernels.lanes
    if v + 1 == job.chunks:
        count = own.total - first
    ld = round_up(count, kernels.lanes)
    lo, hi = 0, own.size[1]
    rows[0], rows[1] = 0, job.x.n[2]
    if job.single:
        p = &own.passes[0]
        lo, hi = band * hi // job.bands, (band + 1) * hi // job.bands
        inputs_under(own, p, 1, lo, hi - 1, rows)
    transposed_in(job, input, image, first, count, ld, rows[0], rows[1])
    # patches count from the first row and channel of the image
    patches.x.x_, patches.x.y = ld * unit, job.x.n[3] * ld * unit
    patches.x.z = job.x.n[2] * patches.x.y
    patches.x.x = input - rows[0] * patches.x.y - first * unit
    patches.x_n = patches.y_n = 0
    for i in range(own.count):
        p = &own.passes[i]
        out = job.patches.out[i]
        out.y_z, out.y_y, out.y_x = out.y_z * ld * unit, out.y_y * ld * unit, out.y_x * ld * unit
        out.y = output + (<size>out.y - lo * own.size[2]) * ld * unit - first * unit
        if job.single:
            patch_lines(&patches, p, &out, scratch, 0, v, v + 1, lo, hi, watch)
        else:
            patch_lines(&patches, p, &out, scratch, 0, v, v + 1, 0, p.outputs[0] * p.outputs[1], watch)
    transposed_out(job, output, image, first, count, ld, lo, hi)


cdef void transposed_in(const TransposedJob* job, char* to, size image, size first, size count, size ld, size lo,
                        size hi) noexcept nogil:
    """Copy rows lo..hi-1 of all planes."""
    cdef const fc_kernels* kernels = job.patches.kernels
    cdef const View* x = &job.x
    cdef size z, row, rows = hi - lo if rows_follow(x) else 1
    for z in range(x.n[4]):
        row = lo
        while row < hi:
            kernels.pack[job.patches.x_code](
                to, ld, rows * x.n[3], count,
                x.p + image * x.s[0] + first * x.s[1] + z * x.s[4] + row * x.s[2], x.s[3], x.s[1])
            to += rows * x.n[3] * ld * kernels.size
            row += rows


cdef void transposed_out(const TransposedJob* job, const char* from_, size image, size first, size count, size ld, size lo,
                         size hi) noexcept nogil:
    """Store rows lo..hi-1 of all planes."""
    cdef const fc_kernels* kernels = job.patches.kernels
    cdef const View* y = &job.y
    cdef const View* add = &job.residual
    cdef const char* residual = NULL
    cdef size z, row, rows = 1
    if rows_follow(y) and (not job.has_residual or rows_follow(add)):
        rows = hi - lo
    for z in range(y.n[4]):
        row = lo
        while row < hi:
            if job.has_residual:
                residual = add.p + image * add.s[0] + first * add.s[1] + z * add.s[4] + row * add.s[2]
            kernels.store[job.patches.y_code](
                from_, ld, rows * y.n[3], count,
                y.p + image * y.s[0] + first * y.s[1] + z * y.s[4] + row * y.s[2], y.s[3], y.s[1], NULL, job.activation,
                residual, add.s[3] if job.has_residual else 0, add.s[1] if job.has_residual else 0)
            from_ += rows * y.n[3] * ld * kernels.size
            row += rows
