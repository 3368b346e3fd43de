# Winograd convolution along rows (kernels/winograd_rows.h) for first layers: kernels of seven columns at stride 2 with few
# channels, 13 products for 4 outputs of a row in place of 28.
#
#   for block of rows of the output                         threads take these
#     region[column][row][channel]                          first-level cache
#     V[13][tile][row][channel] = transformed columns       second-level cache
#     for panel of output channels
#       for each of the 13 products: M = V * U              micro-kernel; the rows of the kernel lie side by side in V
#       rows of outputs = M transformed back, bias, relu    as they lie, or stored by the epilogue
#
# Each tile is computed alike whatever block it falls in. An image with an output that is not finite is reported, and the
# caller computes it directly.
cdef extern from "winograd_rows.h" nogil:
    enum:
        FC_ROWS_TILE, FC_ROWS_TAPS, FC_ROWS_STRIDE, FC_ROWS_ELEMENTS, FC_ROWS_EXTENT
    ctypedef void (*fc_rows_input)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*, Py_ssize_t,
                                   Py_ssize_t) noexcept nogil
    ctypedef int (*fc_rows_output)(const void*, Py_ssize_t, Py_ssize_t, int, void*, Py_ssize_t, Py_ssize_t,
                                   const void*, int) noexcept nogil
    ctypedef struct fc_rows:
        fc_rows_input input
        fc_rows_output output

ROWS_TILE, ROWS_TAPS, ROWS_STRIDE, ROWS_ELEMENTS = FC_ROWS_TILE, FC_ROWS_TAPS, FC_ROWS_STRIDE, FC_ROWS_ELEMENTS


cdef struct RowsJob:
    const fc_kernels* kernels
    const fc_rows* transforms
    View x, y, residual
    int x_code, y_code, activation
    bint has_residual, in_output
    size channels, outputs, taps, stride_y, origin_y, origin_x, block, blocks
    size tiles, rows, columns, length        # of the region: input rows, columns, padded elements of a column
    size panels, width
    const char* transformed
    const char* bias
    char* flags
    size u_bytes, region_bytes, v_bytes, m_bytes, output_bytes, scratch_bytes


def winograd_rows_scratch_bytes(int compute, size channels, size taps, size stride, size columns, size rows):
    """Scratch of one thread for blocks of so many rows of `columns` outputs, under kernels of so many rows of `taps`."""
    cdef RowsJob job
    job.kernels = isa.compute[compute]
    job.transforms = <const fc_rows*>extra(job.kernels, "winograd rows")
    job.channels, job.taps, job.stride_y, job.block = channels, taps, stride, rows
    rows_scratch(&job, columns)
    return job.scratch_bytes


cdef void rows_scratch(RowsJob* job, size columns) noexcept nogil:
    """Scratch of one thread: region, transformed columns, products, a row of outputs, offsets."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size pieces = 0
    job.width = kernels.vectors * kernels.lanes
    job.tiles = (columns + FC_ROWS_TILE - 1) // FC_ROWS_TILE
    job.rows = (job.block - 1) * job.stride_y + job.taps
    job.columns = FC_ROWS_TILE * FC_ROWS_STRIDE * (job.tiles - 1) + FC_ROWS_EXTENT
    job.length = round_up(job.rows * job.channels, kernels.lanes)
    job.region_bytes = piece(&pieces, job.columns * job.length * kernels.size)
    job.v_bytes = piece(&pieces, FC_ROWS_ELEMENTS * job.tiles * job.length * kernels.size)
    job.m_bytes = piece(&pieces, FC_ROWS_ELEMENTS * job.block * job.tiles * job.width * kernels.size)
    job.output_bytes = piece(&pieces, FC_ROWS_TILE * job.tiles * job.width * kernels.size)
    job.scratch_bytes = 5 * 64 + pieces + 2 * job.block * job.tiles * sizeof(size)


cdef class WinogradRows(Program):
    """A convolution by kernels of FC_ROWS_TAPS columns side by side, at stride FC_ROWS_STRIDE along a row.

    `extent` has `groups` (1), `channels`, `outputs`, `size`, `input_size` and `mode` (zeros), `p` one tap along the depth
    and rows of taps side by side, and `blocking` has `rows`.
    """
    cdef RowsJob job

    def __init__(self, codes, extent, p, blocking):
        cdef RowsJob* job = &self.job
        cdef const fc_kernels* kernels
        self.compute_with(codes)
        kernels = job.kernels = self.kernels
        job.transforms = <const fc_rows*>extra(kernels, "winograd rows")
        job.x_code, job.y_code = self.input, self.result
        job.channels, job.outputs, job.taps = extent.channels, extent.outputs, len(p.taps[1])
        _, job.stride_y, _ = p.stride
        _, job.origin_y, job.origin_x = [taps[0] for taps in p.taps]
        job.block = blocking.rows
        rows_scratch(job, extent.size[2])
        job.panels = (job.outputs + job.width - 1) // job.width
        job.u_bytes = packed_elements(kernels, job.taps, job.channels, job.outputs) * kernels.size

    def scratch_bytes(self):
        """Scratch of one thread."""
        return self.job.scratch_bytes

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """By `packed.transformed`, the packed weights of the elements one after the other. Flags are a byte for every image,
        1 for one with an output that is not finite."""
        cdef Work work = Work()
        cdef RowsJob* job = <RowsJob*>work.own(sizeof(RowsJob))
        cdef const fc_kernels* kernels = self.job.kernels
        cdef Operands o
        job[0] = self.job
        bind_operands(&o, work, x, bias, residual, y, activation, channels_last)
        job.x, job.y, job.residual, job.bias = o.x, o.y, o.residual, o.bias
        job.has_residual, job.activation = o.has_residual, activation
        job.transformed = transformed_weights(work, packed)
        job.blocks = (job.y.n[2] + job.block - 1) // job.block
        job.in_output = (job.y_code == kernels.sum and not job.has_residual and job.y.s[0] % kernels.size == 0
                         and in_elements(&job.y, job.y.p, kernels.size) and job.outputs % kernels.lanes == 0)
        places_of(work, &job.x, &job.y, &job.residual, job.has_residual)
        work.task, work.job, work.flags, work.keep = rows_task, job, &job.flags, self
        work.flag_count, work.scratch_bytes, work.tasks = job.y.n[0], job.scratch_bytes, job.y.n[0] * job.blocks
        work.team(threads)
        return work


cdef void rows_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const RowsJob* job = <const RowsJob*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef size image = task // job.blocks, first = task % job.blocks * job.block
    cdef size rows = min(job.block, job.y.n[2] - first), r, t, e, panel, count, width, plane
    cdef char* region = scratch
    cdef char* v = region + job.region_bytes
    cdef char* m = v + job.v_bytes
    cdef char* output = m + job.m_bytes
    cdef size* v_row = <size*>(output + job.output_bytes)
    cdef size* m_row = v_row + job.block * job.tiles
    cdef const char* u
    # the transform back comes between
    cdef Ends ends = Ends(NULL, NULL, NULL, LINEAR, NULL, NULL, NULL, NULL, 0, False, 0, NULL, 0)
    cdef fc_segment segment
    rows_region(job, image, first, rows, region)
    job.transforms.input(region, job.length, job.tiles, job.length, v, job.tiles * job.length, job.length)
    segment.a, segment.b, segment.k = 0, 0, job.taps * job.channels
    for panel in range(job.panels):
        if fc_interrupted(watch):
            return
        count = min(job.width, job.outputs - panel * job.width)
        width = round_up(count, kernels.lanes)
        for r in range(rows):
            for t in range(job.tiles):
                v_row[r * job.tiles + t] = t * job.length + r * job.stride_y * job.channels
                m_row[r * job.tiles + t] = (r * job.tiles + t) * width
        plane = job.block * job.tiles * width
        for e in range(FC_ROWS_ELEMENTS):
            if job.panels == 1 and job.in_output:   # the outputs' lines, a share with each product
                ends.coming_bytes = rows * job.y.s[2] // FC_ROWS_ELEMENTS
                ends.coming = job.y.p + image * job.y.s[0] + first * job.y.s[2] + e * ends.coming_bytes
            u = job.transformed + e * job.u_bytes + panel * job.width * job.taps * job.channels * kernels.size
            direct_block(kernels, v + e * job.tiles * job.length * kernels.size, v_row, u, width // kernels.lanes, width,
                         &segment, 1, rows * job.tiles, m + e * plane * kernels.size, m_row, &ends, True, False)
        for r in range(rows):
            rows_outputs(job, image, first + r, panel, count, width, m + r * job.tiles * width * kernels.size, plane,
                         output)


cdef void rows_region(const RowsJob* job, size image, size first, size rows, char* region) noexcept nogil:
    """The input under some rows of the output, [column][row][channel], zeros where there is none."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size last = (rows - 1) * job.stride_y + job.taps, r, iy, lo = max(0, -job.origin_x)
    cdef size hi = min(job.columns, job.x.n[3] - job.origin_x)
    memset(region, 0, job.region_bytes)
    for r in range(last):
        iy = job.origin_y + first * job.stride_y + r
        if 0 <= iy < job.x.n[2] and hi > lo:
            kernels.pack[job.x_code](region + (lo * job.length + r * job.channels) * kernels.size, job.length, hi - lo,
                                     job.channels, job.x.p + image * job.x.s[0] + iy * job.x.s[2]
                                     + (job.origin_x + lo) * job.x.s[3], job.x.s[3], job.x.s[1])


cdef void rows_outputs(const RowsJob* job, size image, size row, size panel, size count, size width, const char* m,
                       size plane, char* output) noexcept nogil:
    """One row of outputs of a panel from its products."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size first = panel * job.width
    cdef char* to = job.y.p + image * job.y.s[0] + first * job.y.s[1] + row * job.y.s[2]
    cdef char* c = to if job.in_output else output
    cdef size step = job.y.s[3] // kernels.size if job.in_output else width
    cdef const char* bias = NULL
    cdef const char* residual = NULL
    cdef bint relu = job.in_output and job.activation == RELU
    if job.bias != NULL:
        bias = job.bias + first * kernels.size
    if not job.transforms.output(m, plane, width, <int>(width // kernels.lanes), c, step, job.y.n[3],
                               bias if job.in_output else NULL, relu):
        fc_raise_flag(job.flags + image)
    if job.in_output and (job.activation == LINEAR or job.activation == RELU):
        return
    if job.in_output:
        bias = NULL
    if job.has_residual:
        residual = (job.residual.p + image * job.residual.s[0] + first * job.residual.s[1] + row * job.residual.s[2])
    kernels.store[job.y_code](c, step, job.y.n[3], count, to, job.y.s[3], job.y.s[1], bias, job.activation, residual,
                              job.residual.s[3] if job.has_residual else 0,
                              job.residual.s[1] if job.has_residual else 0)
