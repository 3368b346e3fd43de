# The weights of Winograd along lines, transformed once.

cdef enum:
    LINE_WEIGHTS = 1 << 8   # of a tap, that a task transforms at least

cdef struct LinePanels:
    LinesJob shape
    char* u
    const char* w
    size channels, outputs, pieces    # of a panel
    size apart[3]


def winograd_lines_weights(int compute, kinds, packed, transformed, size channels, size outputs, taps, apart, blocking,
                           int threads):
    """Transform packed weights, panel by panel, into U[panel][element][plane][block of taps][channels][width], the elements
    a vector further apart than that (`lines_plane`). Packed `taps` of outer, row and column are so many taps `apart`."""
    cdef Arrays arrays = Arrays()
    cdef View w, u
    cdef LinePanels job
    lines_shape(&job.shape, isa.compute[compute], kinds, channels, taps, (1, 1, 1), blocking)
    three(apart, job.apart)
    try:
        arrays.view(packed, &w, False)
        arrays.view(transformed, &u, True)
        job.u, job.w, job.channels, job.outputs = u.p, w.p, channels, outputs
        panels = (outputs + job.shape.width - 1) // job.shape.width
        job.pieces = max(<size>1, min(channels, channels * min(outputs, job.shape.width) // LINE_WEIGHTS))
        run_tasks(lines_panel, &job, NULL, 0, panels * job.pieces, threads)
    finally:
        arrays.release()


cdef void lines_panel(void* panels, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const LinePanels* job = <const LinePanels*>panels
    cdef const LinesJob* shape = &job.shape
    cdef size size_ = shape.kernels.size, width = shape.width, panel = task // job.pieces, z
    cdef size elements = shape.row.elements * shape.column.elements
    cdef size columns = round_up(min(shape.width, job.outputs - panel * shape.width), shape.kernels.lanes)
    cdef size length = job.channels * columns
    cdef size first = task % job.pieces * job.channels // job.pieces * columns
    cdef size count = (task % job.pieces + 1) * job.channels // job.pieces * columns - first
    for z in range(shape.deep):
        shape.lines.weights(
            shape.row.line, shape.column.line,
            job.w + (panel * width * job.channels * shape.deep * shape.row.taps * shape.column.taps
                     + z * job.apart[0] * length + first) * size_,
            shape.row.taps, job.apart[1] * length, shape.column.taps, job.apart[2] * length, length, count,
            job.u + (panel * elements * lines_plane(shape, width)
                     + z * shape.row.blocks * shape.column.blocks * length + first) * size_,
            lines_plane(shape, columns))
