# Products of every pixel and all taps, laid over each other: what is left of an input gradient at a stride
# (fastconv/_core/methods/direct_scattered.py).
#
#   for row of outputs x columns of it              threads take these
#     for row of taps that meets a row of pixels
#       for pixel: its products, of a row of taps   side by side in both
#
# An output's sum runs over the pixels, from the first to the last, whatever the task, and however many pixels come at a time.

cdef enum:
    LAID_BYTES = 16 << 10    # of outputs of a task

cdef struct Laying:
    const fc_kernels* kernels
    View products, out
    bint begun               # what lies in `out` is added to
    size kernel[3]
    size step[3]
    size pad[3]
    size columns, chunks     # of a task; of a row


def lay_over(int compute, products, out, kernel, step, pad, bint begun, int threads):
    """out (N, C, *size) = the sum of what pixels and taps lay there, or with that in it, if it is `begun`: `products`
    (N, taps * C, *size), both with channels side by side, and `out` with pixels of a row, too. Pixel i and tap k of an axis
    lie at i * step + k - pad."""
    cdef Laying job
    cdef Arrays arrays = Arrays()
    job.kernels, job.begun = isa.compute[compute], begun
    three(kernel, job.kernel)
    three(step, job.step)
    three(pad, job.pad)
    try:
        arrays.view(products, &job.products, False)
        arrays.view(out, &job.out, True)
        unit = job.kernels.size * job.out.n[1]
        if not (side_by_side(&job.products, job.kernels.size) and side_by_side(&job.out, job.kernels.size)
                and (job.out.n[3] == 1 or job.out.s[3] == unit)):
            raise ValueError("channels and pixels of a row lie side by side")
        job.columns = max(<size>1, LAID_BYTES // unit)
        job.chunks = (job.out.n[3] + job.columns - 1) // job.columns
        run_tasks(lay_task, &job, NULL, 0, job.out.n[0] * job.out.n[4] * job.out.n[2] * job.chunks, threads)
    finally:
        arrays.release()


cdef inline size laid_by(const Laying* job, int axis, size at, size tap, size count) noexcept nogil:
    """The pixel whose tap lies at an output, of `count` along an axis; -1 where there is none."""
    cdef size from_ = at + job.pad[axis] - tap
    if from_ < 0 or from_ % job.step[axis] or from_ // job.step[axis] >= count:
        return -1
    return from_ // job.step[axis]


cdef void lay_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Laying* job = <const Laying*>job_
    cdef const View* of_ = &job.products
    cdef size first = task % job.chunks * job.columns, y = task // job.chunks, z, n, h, i, iz, iy
    cdef size last = min(first + job.columns, job.out.n[3]), unit = job.kernels.size * job.out.n[1]
    cdef char* row
    y, z, n = y % job.out.n[2], y // job.out.n[2] % job.out.n[4], y // job.out.n[2] // job.out.n[4]
    row = job.out.p + n * job.out.s[0] + z * job.out.s[4] + y * job.out.s[2]
    if not job.begun:
        memset(row + first * unit, 0, (last - first) * unit)
    for h in range(job.kernel[0] - 1, -1, -1):
        iz = laid_by(job, 0, z, h, of_.n[4])
        for i in range(job.kernel[1] - 1 if iz >= 0 else -1, -1, -1):
            iy = laid_by(job, 1, y, i, of_.n[2])
            if iy >= 0:
                lay_row(job, row, first, last, of_.p + n * of_.s[0] + iz * of_.s[4] + iy * of_.s[2]
                        + (h * job.kernel[1] + i) * job.kernel[2] * unit)


cdef void lay_row(const Laying* job, char* row, size first, size last, const char* products) noexcept nogil:
    """The columns first .. last - 1 of a row, from a row of pixels and taps."""
    cdef size unit = job.kernels.size * job.out.n[1], step = job.step[2], taps = job.kernel[2], x, at, low, high
    cdef size begin = max(<size>0, (first + job.pad[2] - taps) // step)
    for x in range(begin, min(job.products.n[3], (last - 1 + job.pad[2]) // step + 1)):
        at = x * step - job.pad[2]
        low, high = max(<size>0, first - at), min(taps, last - at)
        if low < high:
            job.kernels.add(row + (at + low) * unit, products + x * job.products.s[3] + low * unit,
                            (high - low) * job.out.n[1])
