# Pooling and its gradients. Threads take rows of outputs; the gradients scatter, so there threads take whole images
# (of some channels), each written by one thread in one order. Averages of large windows are summed in double; gradients
# to which many windows add are asked for in double, with what their sums round off beside them (`low`).

cdef struct Pool:
    View x, y, index
    fc_pool_row row
    fc_pool_function function
    size chunk, chunks, stride_z, stride_y, pad_z, pad_y
    bint scatter, indexed


def pool(str kind, int code, x, y, index, window, int threads, size low=0):
    """kind 'max' or 'avg': pool x (N, C, ...) into y; 'max_gradient' or 'avg_gradient': scatter x, the gradient of the
    output, into y, the zeroed gradient of the input. `index` (int64) holds the positions of the maxima, counted through
    the rows and planes of an image, or is None. Of `window` are read `kernel`, `stride`, `padding` (before), `dilation` and
    `limit` (the end of the padded input), three numbers each (z, y, x), `include_pad` and `divisor` (0: counted).
    `low`: so many bytes behind y lie zeros of the same strides, to which a gradient in double adds what it rounds off."""
    cdef Work work = Work()
    cdef Pool* job = <Pool*>work.own(sizeof(Pool))
    cdef const fc_pool_kernels* kernels = isa.pool[code]
    cdef bint scatter = kind.endswith("_gradient")
    cdef View* whole
    cdef View* windows
    job.scatter, job.indexed, job.row.index, job.row.low = scatter, index is not None, NULL, low
    pool_window(job, window)
    work.view(x, &job.x, False)
    work.view(y, &job.y, True)
    work.place(&job.x.p)
    work.place(&job.y.p)
    if index is not None:
        work.view(index, &job.index, not scatter)
        work.place(&job.index.p)
        job.row.iw, job.row.ic = job.index.s[3], job.index.s[1]
    job.function = (kernels.max_row if kind == "max" else kernels.avg_row if kind == "avg"
                    else kernels.max_scatter if kind == "max_gradient" else kernels.avg_scatter)
    whole = &job.y if scatter else &job.x     # the side that windows slide over
    windows = &job.x if scatter else &job.y
    job.row.xd, job.row.xh, job.row.xw, job.row.xc = job.x.s[4], job.x.s[2], job.x.s[3], job.x.s[1]
    job.row.yd, job.row.yh, job.row.yw, job.row.yc = job.y.s[4], job.y.s[2], job.y.s[3], job.y.s[1]
    job.row.depth, job.row.height, job.row.width = whole.n[4], whole.n[2], whole.n[3]
    job.row.out_width = windows.n[3]
    if elements(&job.x) > 0 and elements(&job.y) > 0:
        job.chunk = 64 if whole.s[1] == <size>work.buffers[0].itemsize else 1
        job.chunks = (whole.n[1] + job.chunk - 1) // job.chunk
        work.task, work.job, work.even = pool_task, job, True
        work.tasks = whole.n[0] * (job.chunks if scatter else job.y.n[4] * job.y.n[2])
        work.team(threads)
    work.run()


cdef int pool_window(Pool* job, window) except -1:
    cdef size kernel[3]
    cdef size stride[3]
    cdef size padding[3]
    cdef size dilation[3]
    cdef size limit[3]
    three(window.kernel, kernel)
    three(window.stride, stride)
    three(window.padding, padding)
    three(window.dilation, dilation)
    three(window.limit, limit)
    job.row.kernel_z, job.row.kernel_y, job.row.kernel_x = kernel[0], kernel[1], kernel[2]
    job.stride_z, job.stride_y, job.row.stride_x = stride[0], stride[1], stride[2]
    job.pad_z, job.pad_y, job.row.pad_x = padding[0], padding[1], padding[2]
    job.row.dilation_z, job.row.dilation_y, job.row.dilation_x = dilation[0], dilation[1], dilation[2]
    job.row.limit_z, job.row.limit_y, job.row.limit_x = limit[0], limit[1], limit[2]
    job.row.count_include_pad, job.row.divisor = window.include_pad, window.divisor
    return 0


cdef void pool_row(const Pool* job, fc_pool_row* row, const View* windows, size image, size channel,
                   size at) noexcept nogil:
    """One row of windows, counted through their planes."""
    cdef size oz = at // windows.n[2], oy = at % windows.n[2]
    row.x = job.x.p + image * job.x.s[0] + channel * job.x.s[1]
    row.y = job.y.p + image * job.y.s[0] + channel * job.y.s[1]
    if job.scatter:
        row.x += oz * job.x.s[4] + oy * job.x.s[2]
    else:
        row.y += oz * job.y.s[4] + oy * job.y.s[2]
    if job.indexed:
        row.index = (job.index.p + image * job.index.s[0] + channel * job.index.s[1] + oz * job.index.s[4]
                     + oy * job.index.s[2])
    row.z0 = oz * job.stride_z - job.pad_z
    row.y0 = oy * job.stride_y - job.pad_y
    job.function(row)


cdef void pool_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Pool* job = <const Pool*>job_
    cdef fc_pool_row row = job.row
    cdef size at, first, rows = job.y.n[4] * job.y.n[2]
    if not job.scatter:
        row.channels = job.x.n[1]
        pool_row(job, &row, &job.y, task // rows, 0, task % rows)
        return
    first = task % job.chunks * job.chunk
    row.channels = min(job.chunk, job.y.n[1] - first)
    for at in range(job.x.n[4] * job.x.n[2]):
        if fc_interrupted(watch):
            return
        pool_row(job, &row, &job.x, task // job.chunks, first, at)
