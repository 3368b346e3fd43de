# Pooling and its gradients. Threads take rows of outputs; the gradients scatter, so there threads take whole planes
# (image x channels), each written by one thread in one order. Averages of large windows are summed in double; gradients
# to which many windows add are asked for in double, with what their sums round off beside them (`low`).

cdef struct Pool:
    View x, y, index
    fc_pool_row row
    fc_pool_function function
    size chunk, chunks, stride_y, pad_y
    bint scatter, indexed


def pool(str kind, int code, int itemsize, x, y, index, tuple kernel, tuple stride, tuple padding, tuple dilation,
         tuple limit, bint count_include_pad, size divisor, int threads, size low=0):
    """kind 'max' or 'avg': pool x (N, C, H, W) into y; 'max_gradient' or 'avg_gradient': scatter x, the gradient of the
    output, into y, the zeroed gradient of the input. `index` (int64) holds the positions of the maxima or is None.
    `low`: so many bytes behind y lie zeros of the same strides, to which a gradient in double adds what it rounds off."""
    cdef Pool job
    cdef const fc_pool_kernels* kernels = isa.pool[code]
    cdef Arrays arrays = Arrays()
    cdef size tasks
    cdef bint scatter = kind.endswith("_gradient"), indexed = index is not None
    cdef View* plane
    try:
        arrays.view(x, &job.x, False)
        arrays.view(y, &job.y, True)
        job.row.index = NULL
        if index is not None:
            arrays.view(index, &job.index, not scatter)
        job.function = (kernels.max_row if kind == "max" else kernels.avg_row if kind == "avg"
                        else kernels.max_scatter if kind == "max_gradient" else kernels.avg_scatter)
        plane = &job.y if scatter else &job.x     # the side that windows slide over
        job.row.xh, job.row.xw, job.row.xc = job.x.s[2], job.x.s[3], job.x.s[1]
        job.row.yh, job.row.yw, job.row.yc = job.y.s[2], job.y.s[3], job.y.s[1]
        if index is not None:
            job.row.iw, job.row.ic = job.index.s[3], job.index.s[1]
        job.row.height, job.row.width = plane.n[2], plane.n[3]
        job.row.out_width = job.x.n[3] if scatter else job.y.n[3]
        job.row.kernel_y, job.row.kernel_x = kernel
        job.stride_y, job.row.stride_x = stride
        job.pad_y, job.row.pad_x = padding
        job.row.dilation_y, job.row.dilation_x = dilation
        job.row.limit_y, job.row.limit_x = limit
        job.row.count_include_pad, job.row.divisor, job.row.low = count_include_pad, divisor, low
        if job.x.n[0] * job.x.n[1] * job.y.n[2] * job.y.n[3] == 0 or job.x.n[2] * job.x.n[3] == 0:
            return
        job.chunk = 64 if plane.s[1] == itemsize else 1
        job.chunks = (plane.n[1] + job.chunk - 1) // job.chunk
        tasks = plane.n[0] * (job.chunks if scatter else job.y.n[2])
        job.scatter, job.indexed = scatter, indexed
        run_tasks(pool_task, &job, NULL, 0, tasks, threads, True)
    finally:
        arrays.release()


cdef void pool_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Pool* job = <const Pool*>job_
    cdef fc_pool_row row = job.row
    cdef size image, oy, first
    if not job.scatter:
        image, oy = task // job.y.n[2], task % job.y.n[2]
        row.x = job.x.p + image * job.x.s[0]
        row.y = job.y.p + image * job.y.s[0] + oy * job.y.s[2]
        if job.indexed:
            row.index = job.index.p + image * job.index.s[0] + oy * job.index.s[2]
        row.channels = job.x.n[1]
        row.y0 = oy * job.stride_y - job.pad_y
        job.function(&row)
        return
    image, first = task // job.chunks, task % job.chunks * job.chunk
    row.channels = min(job.chunk, job.y.n[1] - first)
    row.y = job.y.p + image * job.y.s[0] + first * job.y.s[1]
    for oy in range(job.x.n[2]):
        if fc_interrupted(watch):
            return
        row.x = job.x.p + image * job.x.s[0] + first * job.x.s[1] + oy * job.x.s[2]
        if job.indexed:
            row.index = job.index.p + image * job.index.s[0] + first * job.index.s[1] + oy * job.index.s[2]
        row.y0 = oy * job.stride_y - job.pad_y
        job.function(&row)
