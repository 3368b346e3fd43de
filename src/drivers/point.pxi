# One pixel under a kernel of one tap, with weights that are used this once: a product of a matrix and a vector, bound by the
# memory of the weights, which are read as they lie. A lane is an output, as in drivers/direct.pxi; where the weights of an
# output lie side by side, blocks of as many outputs as lanes are transposed in registers (kernels/few.h).
#
#   for run of outputs                                    threads take these
#     for block of as many outputs as lanes
#       for block of a long sum
#         for channels                                    registers
#
# Every output is one sum in the order of the channels, or of blocks, as in drivers/direct.pxi.

cdef enum:
    POINT_OUTPUTS = 64   # of a task

cdef struct PointJob:
    fc_few all                     # of a block: `x`, `weight`, `y`, `channels` and `pixels` are its own
    void (*kernel)(const fc_few*) noexcept nogil
    const fc_kernels* kernels
    char* x
    char* y
    const char* weight
    size channels, outputs, row, block
    bint long_


cdef bint point_fit(const DirectPass* p) noexcept nogil:
    """Whether a pass is of that kind."""
    cdef const fc_kernels* kernels = p.kernels
    cdef const fc_few_kernels* few = <const fc_few_kernels*>extra(kernels, "few")
    return (few != NULL and few.point != NULL and kernels.tile_k == 1 and kernels.input == kernels.sum
            and kernels.weight == kernels.sum and p.x_code == kernels.sum and p.y_code == kernels.sum
            and p.groups == 1 and p.merged == p.outputs and volume(p.extent) == 1 and volume(p.taps) == 1
            and volume(p.full) == 1 and p.channels >= kernels.lanes and p.outputs >= kernels.lanes)


cdef bint point_usable(const DirectPass* p) noexcept nogil:
    """Whether the arrays of such a pass, and its weights, are as they must be."""
    cdef size unit = p.kernels.size
    cdef int axis
    for axis in range(3):
        if length(&p.x, axis) != 1:
            return False
    return (point_fit(p) and p.tap[0][0] == 0 and p.tap[1][0] == 0 and p.tap[2][0] == 0 and p.y.n[0] == 1
            and p.weights.packed == NULL and p.weights.code == p.kernels.sum and p.bias == NULL and not p.has_residual
            and p.requantise == NULL and p.activation == LINEAR
            and p.weights.channel_stride == unit and p.weights.output_stride >= p.channels * unit
            and p.x.s[1] == unit and p.y.s[1] == unit and <size>p.x.p % unit == 0 and <size>p.y.p % unit == 0
            and p.weights.output_stride % unit == 0 and <size>p.weights.array.p % unit == 0)


cdef int point_work(Work work, const DirectPass* p, int threads) except -1:
    """The tasks of a pass."""
    cdef PointJob* job = <PointJob*>work.own(sizeof(PointJob))
    job.kernels, job.kernel = p.kernels, (<const fc_few_kernels*>extra(p.kernels, "few")).point
    job.x, job.y, job.channels, job.outputs = p.x.p, p.y.p, p.channels, p.outputs
    job.weight = p.weights.array.p + p.weights.offsets[0] + p.weights.offsets[1] + p.weights.offsets[2]
    job.row, job.long_ = p.weights.output_stride, p.long_
    job.block = p.sum_block if p.long_ else p.channels
    job.all.relu, job.all.bias, job.all.x_pixel, job.all.y_pixel = LINEAR, NULL, job.row, p.kernels.size
    work.task, work.job = point_task, job
    work.tasks = (p.outputs + POINT_OUTPUTS - 1) // POINT_OUTPUTS
    work.place(&job.x)
    work.place(&job.y)
    return work.team(threads if worth_of(p.channels * p.outputs, 1) >= PARALLEL_FROM_MACS else 1)


cdef void point_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """Some outputs."""
    cdef const PointJob* job = <const PointJob*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef fc_few f = job.all
    cdef double totals[2 * POINT_OUTPUTS]    # of as many sums as a vector has lanes
    cdef double sums[POINT_OUTPUTS]
    cdef size unit = kernels.size, first = task * POINT_OUTPUTS, end = min(first + POINT_OUTPUTS, job.outputs), at
    while first < end:
        f.pixels = min(<size>kernels.lanes, end - first)
        f.channels, f.x, f.weight = job.channels, job.weight + first * job.row, job.x
        f.y = job.y + first * unit
        if not job.long_:
            job.kernel(&f)
        else:
            memset(totals, 0, sizeof(totals))
            f.y, at = <char*>sums, 0
            while at < job.channels:
                f.channels = min(job.block, job.channels - at)
                f.x, f.weight = job.weight + first * job.row + at * unit, job.x + at * unit
                job.kernel(&f)
                kernels.total_add(totals, sums, f.pixels)
                at += job.block
            kernels.total_end(job.y + first * unit, totals, f.pixels)
        first += kernels.lanes
