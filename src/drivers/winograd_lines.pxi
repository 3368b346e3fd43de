# Winograd convolution along lines (kernels/winograd_lines.h): kernels of any size at stride 1, along one axis or two, and
# what else a kernel has summed as channels are.
#
#   for block of tiles x run of panels                          threads take these
#     V[element][plane][tile][channel] = transformed inputs     those under the block and, for further taps, beyond it
#     for panel of output channels
#       for each element: M = sum over planes, blocks of taps and channels of V * U      micro-kernel
#       outputs = M transformed back, bias, epilogue            as they lie, or stored by the epilogue
#
# Of the three axes one is `outer`: its taps are planes of the input. Along `row` and `column` a tile makes FC_LINE_TILE
# outputs, or a single one where that axis is not transformed (its taps are then blocks of one, and any stride is a step).
# Each tile is computed alike whatever block it falls in. What has an output that is not finite is reported, and the caller
# computes it directly.
cdef extern from "winograd_lines.h" nogil:
    enum:
        FC_LINE_THREE, FC_LINE_FOUR, FC_LINE_FIVE, FC_LINE_SEVEN, FC_LINE_TILE
    ctypedef void (*fc_line_input)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*, Py_ssize_t,
                                   Py_ssize_t) noexcept nogil
    ctypedef int (*fc_line_output)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, int, void*, Py_ssize_t, Py_ssize_t,
                                   Py_ssize_t, Py_ssize_t, const void*, int) noexcept nogil
    ctypedef struct fc_line:
        int taps, elements
        fc_line_input input
        fc_line_output output
    ctypedef void (*fc_line_weights)(const fc_line*, const fc_line*, const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                                     Py_ssize_t, Py_ssize_t, Py_ssize_t, void*, Py_ssize_t) noexcept nogil
    Py_ssize_t lines_blocks(const fc_line*, Py_ssize_t)
    ctypedef struct fc_lines:
        fc_line line[4]
        fc_line_weights weights

LINE_TILE = FC_LINE_TILE


def winograd_line_kinds():
    """The transforms by name: (number, taps of a block, products)."""
    cdef const fc_lines* lines = <const fc_lines*>extra(isa.compute[<int>FC_COMPUTE_F32], "winograd lines")
    return {name: (number, lines.line[<int>number].taps, lines.line[<int>number].elements)
            for name, number in (("three", FC_LINE_THREE), ("four", FC_LINE_FOUR), ("five", FC_LINE_FIVE),
                                 ("seven", FC_LINE_SEVEN))}


cdef struct LineAxis:        # how an axis is cut into tiles
    const fc_line* line      # NULL: it is not transformed
    size tile, elements      # outputs and products
    size taps, blocks, step  # of the kernel, and their blocks; inputs from one tile to the next, in tiles
    size origin              # of the first tap
    size count               # tiles of a block


cdef inline size under(const LineAxis* axis, size tiles) noexcept nogil:
    """Transformed inputs under so many tiles."""
    return (tiles - 1) * axis.step + axis.blocks


cdef struct LinesJob:
    const fc_kernels* kernels
    const fc_lines* lines
    LineAxis row, column
    View x, y, residual
    int x_code, y_code, activation, mode
    bint has_residual, turned       # turned: the planes of the arrays are no outer ones
    size channels, outputs, deep, origin_z, stride_z
    size tile_rows, tile_columns, row_chunks, column_chunks, blocks, depth, planes
    size panels, panels_per_task, panel_chunks, width, kc, ld
    size v_plane, m_plane, weights           # an element of V, of M; taps of a panel's weights in every element
    const char* transformed
    const char* bias
    char* flags
    size v_bytes, m_bytes, region_bytes, half_bytes, back_bytes, output_bytes, scratch_bytes


cdef int line_axis(LineAxis* axis, const fc_lines* lines, int kind, size taps, size step, size count) except -1:
    """`kind` is -1 for an axis that is not transformed."""
    axis.line, axis.tile, axis.elements, axis.taps, axis.count = NULL, 1, 1, taps, count
    axis.step, axis.origin = step, 0
    if kind >= 0:
        axis.line = &lines.line[kind]
        axis.tile, axis.elements, axis.step = FC_LINE_TILE, axis.line.elements, 1
    axis.blocks = lines_blocks(axis.line, taps)
    return 0


cdef int lines_shape(LinesJob* job, const fc_kernels* kernels, kinds, size channels, taps, strides, blocking) except -1:
    """Everything that does not depend on the size of the image; `kinds` of row and column, `taps` and `strides` (in their
    spacing) of outer, row and column."""
    job.kernels = kernels
    job.lines = <const fc_lines*>extra(kernels, "winograd lines")
    job.channels, job.deep, job.stride_z = channels, taps[0], strides[0]
    job.width = kernels.vectors * kernels.lanes
    job.kc, job.panels_per_task = blocking.reduction, blocking.panels_per_task
    line_axis(&job.row, job.lines, kinds[0], taps[1], strides[1], blocking.rows)
    line_axis(&job.column, job.lines, kinds[1], taps[2], strides[2], blocking.columns)
    job.weights = job.deep * job.row.blocks * job.column.blocks
    lines_scratch(job)
    return 0


cdef inline size lines_plane(const LinesJob* job, size width) noexcept nogil:
    """Numbers from an element of a panel's transformed weights to the next: elements a power of two apart would share cache
    sets, and each writes a line to all of them (five times as long with 7 x 7 taps of 128 channels)."""
    return job.weights * job.channels * width + job.kernels.lanes


cdef void lines_scratch(LinesJob* job) noexcept nogil:
    """Scratch of one thread: V, M, a region, it and M half transformed, outputs of a row of tiles, offsets, segments."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size pieces = 0, elements = job.row.elements * job.column.elements, tiles = job.row.count * job.column.count
    cdef size rows = under(&job.row, job.row.count), columns = under(&job.column, job.column.count)
    cdef bint both = job.row.line != NULL and job.column.line != NULL
    cdef size region = (columns - 1) * job.column.tile + job.column.elements
    job.ld = round_up(job.channels, kernels.lanes) + kernels.lanes   # no power of two
    job.v_plane = job.deep * rows * columns * job.ld
    job.m_plane = tiles * job.width
    job.v_bytes = piece(&pieces, elements * job.v_plane * kernels.size)
    job.m_bytes = piece(&pieces, elements * job.m_plane * kernels.size)
    job.region_bytes = piece(&pieces, job.row.elements * region * FC_WINOGRAD_CHANNELS * kernels.size)
    job.half_bytes = job.back_bytes = 0
    if both:
        job.half_bytes = piece(&pieces, elements * columns * FC_WINOGRAD_CHANNELS * kernels.size)
        job.back_bytes = piece(&pieces, job.row.tile * job.column.elements * job.column.count * job.width * kernels.size)
    job.output_bytes = piece(&pieces, job.row.tile * job.column.tile * job.column.count * job.width * kernels.size)
    job.scratch_bytes = 8 * 64 + pieces + 2 * tiles * sizeof(size) + (job.weights + 1) * sizeof(fc_segment)


def winograd_lines_scratch_bytes(int compute, kinds, size channels, taps, strides, blocking):
    """Scratch of one thread."""
    cdef LinesJob job
    lines_shape(&job, isa.compute[compute], kinds, channels, taps, strides, blocking)
    return job.scratch_bytes


cdef class WinogradLines(Program):
    """A convolution at stride 1 along the axes that are transformed, whose taps are equally spaced.

    `order` has the axes of `p` in the order outer, row, column; `kinds` how row and column are transformed (fc_line_kind, or
    -1). Taps lie s apart along row and column and the stride is s times their own, where s is 1 but for a phase of the
    dilation. `blocking` has `rows` and `columns` of tiles, `reduction` and `panels_per_task`.
    """
    cdef LinesJob job
    cdef Phase phase
    cdef size first_y, first_x, apart_y, apart_x
    cdef int axes[3]            # of the arrays: outer, row, column

    def __init__(self, codes, extent, p, blocking, order, kinds):
        cdef LinesJob* job = &self.job
        cdef size apart
        cdef int i
        self.compute_with(codes)
        for i in range(3):
            self.axes[i] = view_axis(order[i])
        read_phase(&self.phase, p, extent)
        taps = [p.taps[axis] for axis in order]
        even_taps(taps[0], &job.origin_z, &apart)
        if apart != 1:
            raise ValueError("taps along the outer axis lie side by side")
        even_taps(taps[1], &job.row.origin, &self.apart_y)
        even_taps(taps[2], &job.column.origin, &self.apart_x)
        if order != (0, 1, 2) and (self.apart_y != 1 or self.apart_x != 1):
            raise ValueError("the kernel is dilated along an axis that is no row and no column")
        origin_y, origin_x = job.row.origin, job.column.origin
        stride = [p.stride[axis] for axis in order]
        lines_shape(job, self.kernels, kinds, extent.channels, [len(one) for one in taps],
                    (stride[0], stride[1] // self.apart_y, stride[2] // self.apart_x), blocking)
        self.first_y = (origin_y % self.apart_y + self.apart_y) % self.apart_y
        self.first_x = (origin_x % self.apart_x + self.apart_x) % self.apart_x
        job.row.origin = (origin_y - self.first_y) // self.apart_y
        job.column.origin = (origin_x - self.first_x) // self.apart_x
        job.turned = self.axes[0] != 4
        job.x_code, job.y_code, job.mode = self.input, self.result, extent.mode
        job.outputs = extent.outputs
        job.panels = (job.outputs + job.width - 1) // job.width
        job.panels_per_task = max(<size>1, min(job.panels_per_task, job.panels))
        job.panel_chunks = (job.panels + job.panels_per_task - 1) // job.panels_per_task

    def scratch_bytes(self):
        """Scratch of one thread."""
        return self.job.scratch_bytes

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """By `packed.transformed`. Flags are a byte for every image, plane and row of tiles, or (`turned`) image and plane: 1
        for one with an output that is not finite."""
        cdef Work work = Work()
        cdef LinesJob* job = <LinesJob*>work.own(sizeof(LinesJob))
        cdef Operands o
        job[0] = self.job
        bind_operands(&o, work, x, bias, residual, y, activation, channels_last)
        bind_phase(&o, &self.phase)
        job.planes = o.y.n[4]
        phase_view(&o.x, &o.x, self.first_y, self.first_x, self.apart_y, self.apart_x)
        turned_view(&job.x, &o.x, self.axes)
        turned_view(&job.y, &o.y, self.axes)
        job.has_residual, job.activation, job.bias = o.has_residual, activation, o.bias
        if o.has_residual:
            turned_view(&job.residual, &o.residual, self.axes)
        job.transformed = transformed_weights(work, packed)
        job.tile_rows = (job.y.n[2] + job.row.tile - 1) // job.row.tile
        job.tile_columns = (job.y.n[3] + job.column.tile - 1) // job.column.tile
        job.row_chunks = (job.tile_rows + job.row.count - 1) // job.row.count
        job.column_chunks = (job.tile_columns + job.column.count - 1) // job.column.count
        job.depth = job.y.n[4]
        job.blocks = job.y.n[0] * job.depth * job.row_chunks * job.column_chunks
        places_of(work, &job.x, &job.y, &job.residual, job.has_residual)
        work.task, work.job, work.flags, work.keep = lines_task, job, &job.flags, self
        work.flag_count = job.y.n[0] * (job.planes if job.turned else job.depth * job.tile_rows)
        work.scratch_bytes, work.tasks = job.scratch_bytes, job.blocks * job.panel_chunks
        work.sites = job.blocks
        work.team(threads)
        return work


cdef inline int view_axis(int axis) noexcept nogil:
    """Where a view has depth, rows and columns."""
    return axis + 1 if axis else 4


cdef void turned_view(View* out, const View* array, const int* axes) noexcept nogil:
    """The array with the axes outer, row and column in the places of depth, rows and columns."""
    cdef int i
    out[0] = array[0]
    for i in range(3):
        out.n[view_axis(i)], out.s[view_axis(i)] = array.n[axes[i]], array.s[axes[i]]


cdef struct LineBlock:       # of tiles: the first, how many, and transformed inputs in a row
    size image, plane, row, column, rows, columns, inputs


cdef void lines_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const LinesJob* job = <const LinesJob*>job_
    cdef size chunk = task // job.blocks, at = task % job.blocks, z, iz, r, panel, width, i = 0, t, k
    cdef LineBlock block
    cdef char* v = scratch
    cdef char* m = v + job.v_bytes
    cdef char* region = m + job.m_bytes
    cdef char* back = region + job.region_bytes + job.half_bytes
    cdef size* v_row = <size*>(back + job.back_bytes + job.output_bytes)
    cdef size* m_row = v_row + job.row.count * job.column.count
    cdef fc_segment* segments = <fc_segment*>(m_row + job.row.count * job.column.count)
    block.column, at = at % job.column_chunks * job.column.count, at // job.column_chunks
    block.row, at = at % job.row_chunks * job.row.count, at // job.row_chunks
    block.plane, block.image = at % job.depth, at // job.depth
    block.rows = min(job.row.count, job.tile_rows - block.row)
    block.columns = min(job.column.count, job.tile_columns - block.column)
    block.inputs = under(&job.column, block.columns)
    for z in range(job.deep):
        iz = padded_index(block.plane * job.stride_z + job.origin_z + z, job.x.n[4], job.mode)
        if iz < 0:
            continue
        for r in range(under(&job.row, block.rows)):
            lines_input_row(job, &block, iz, r, region,
                            v + (z * under(&job.row, block.rows) + r) * block.inputs * job.ld * job.kernels.size)
            if fc_interrupted(watch):
                return
    for panel in range(chunk * job.panels_per_task, min((chunk + 1) * job.panels_per_task, job.panels)):
        width = round_up(min(job.width, job.outputs - panel * job.width), job.kernels.lanes)
        for t in range(block.rows * block.columns):
            v_row[t] = (t // block.columns * job.row.step * block.inputs + t % block.columns * job.column.step) * job.ld
            m_row[t] = t * width
        lines_products(job, &block, panel, width, v, v_row, m, m_row, segments)
        if fc_interrupted(watch):
            return
        for r in range(block.rows):
            lines_output_row(job, &block, r, panel, width, m + r * block.columns * width * job.kernels.size, back)


cdef void lines_input_row(const LinesJob* job, const LineBlock* block, size plane, size row, char* region,
                          char* v) noexcept nogil:
    """Transform a row of tiles of a plane of the input."""
    cdef const fc_kernels* kernels = job.kernels
    cdef const LineAxis* y = &job.row
    cdef const LineAxis* x = &job.column
    cdef char* half = region + job.region_bytes
    cdef size columns = (block.inputs - 1) * x.tile + x.elements, size_ = kernels.size, c = 0, n, padded, r, f
    cdef size top = y.origin + (block.row * y.step + row) * y.tile, left = x.origin + block.column * x.step * x.tile
    cdef View view = job.x
    view.p += plane * view.s[4]
    while c < job.channels:
        n = min(<size>FC_WINOGRAD_CHANNELS, job.channels - c)
        padded = round_up(n, kernels.lanes)
        if padded != n:
            memset(region, 0, y.elements * columns * padded * size_)
        pack_region(kernels, job.x_code, &view, block.image, c, n, top, 1, y.elements, left, 1, columns, columns, job.mode,
                    padded, region)
        if y.line == NULL:
            x.line.input(region, padded, x.tile * padded, block.inputs, padded, v, job.v_plane, job.ld)
        elif x.line == NULL:
            y.line.input(region, columns * padded, padded, block.inputs, padded, v, job.v_plane, job.ld)
        else:
            for r in range(y.elements):
                x.line.input(region + r * columns * padded * size_, padded, x.tile * padded, block.inputs, padded,
                             half + r * x.elements * block.inputs * padded * size_, block.inputs * padded, padded)
            for f in range(x.elements):
                y.line.input(half + f * block.inputs * padded * size_, x.elements * block.inputs * padded, padded,
                             block.inputs, padded, v + f * job.v_plane * size_, x.elements * job.v_plane, job.ld)
        v += n * size_
        c += n


cdef void lines_products(const LinesJob* job, const LineBlock* block, size panel, size width, const char* v,
                         const size* v_row, char* m, const size* m_row, fc_segment* segments) noexcept nogil:
    """M[e] = V[e] U[e] of one panel: a matrix product for every element, a slice of its sum after the other."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size elements = job.row.elements * job.column.elements, tiles = block.rows * block.columns
    cdef size e, at, c, n = 0, steps = 0, z, k, a, part, last = job.weights - 1
    cdef size rows = under(&job.row, block.rows), own = job.row.blocks * job.column.blocks
    cdef const char* u = job.transformed + panel * elements * lines_plane(job, job.width) * kernels.size
    # the transform back comes between
    cdef Ends ends = Ends(NULL, NULL, NULL, LINEAR, NULL, NULL, NULL, NULL, 0, False, 0, NULL, 0)
    cdef bint begun
    for e in range(elements):
        begun, n, steps = False, 0, 0
        for at in range(job.weights):
            z, part = at // own, at % own
            c = 0
            if padded_index(block.plane * job.stride_z + job.origin_z + z, job.x.n[4], job.mode) < 0:
                c = job.channels
            a = ((z * rows + part // job.column.blocks) * block.inputs + part % job.column.blocks) * job.ld
            while c < job.channels or at == last:
                if c < job.channels:
                    k = min(job.channels - c, job.kc - steps)
                    segments[n].a, segments[n].b, segments[n].k = a + c, at * job.channels + c, k
                    n, steps, c = n + 1, steps + k, c + k
                if n and (steps == job.kc or (at == last and c == job.channels)):
                    direct_block(kernels, v, v_row, u, width // kernels.lanes, width, segments, n, tiles, m, m_row, &ends,
                                 not begun, False)
                    begun, n, steps = True, 0, 0
                if c == job.channels:
                    break
        if not begun:      # under padding alone
            memset(m, 0, tiles * width * kernels.size)
        u += lines_plane(job, width) * kernels.size
        v += job.v_plane * kernels.size
        m += job.m_plane * kernels.size


cdef void lines_output_row(const LinesJob* job, const LineBlock* block, size row, size panel, size width, const char* m,
                           char* back) noexcept nogil:
    """Transform back a row of tiles of one panel, and store them."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size y = (block.row + row) * job.row.tile, x = block.column * job.column.tile, r, row_step, column_step
    cdef size rows = min(job.row.tile, job.y.n[2] - y), columns = min(job.column.tile * block.columns, job.y.n[3] - x)
    cdef size first = panel * job.width, count = min(job.width, job.outputs - first)
    cdef const char* bias = NULL
    cdef const char* residual = NULL
    cdef char* to = (job.y.p + block.image * job.y.s[0] + block.plane * job.y.s[4] + first * job.y.s[1] + y * job.y.s[2]
                     + x * job.y.s[3])
    cdef char* c = back + job.back_bytes
    cdef bint in_output = (width == count and job.y.s[1] == kernels.size and not job.has_residual
                           and job.y_code == kernels.sum and job.y.s[2] % kernels.size == 0
                           and job.y.s[3] % kernels.size == 0 and <size>to % kernels.size == 0)
    row_step, column_step = columns * width, width
    if in_output:
        c, row_step, column_step = to, job.y.s[2] // kernels.size, job.y.s[3] // kernels.size
    if job.bias != NULL:
        bias = job.bias + first * kernels.size
    if not lines_back(job, block, width, m, back, c, row_step, column_step, rows, columns, bias,
                      in_output and job.activation == RELU):
        lines_flag(job, block, y, rows, row)
    if in_output and (job.activation == LINEAR or job.activation == RELU):
        return
    for r in range(rows):
        if job.has_residual:
            residual = (job.residual.p + block.image * job.residual.s[0] + block.plane * job.residual.s[4]
                        + first * job.residual.s[1] + (y + r) * job.residual.s[2] + x * job.residual.s[3])
        kernels.store[job.y_code](c + r * row_step * kernels.size, column_step, columns, count, to + r * job.y.s[2],
                                  job.y.s[3], job.y.s[1], NULL, job.activation, residual,
                                  job.residual.s[3] if job.has_residual else 0,
                                  job.residual.s[1] if job.has_residual else 0)


cdef int lines_back(const LinesJob* job, const LineBlock* block, size width, const char* m, char* back, char* c,
                    size row_step, size column_step, size rows, size columns, const char* bias, bint relu) noexcept nogil:
    """Outputs of a row of tiles from their products; 0 where one of them is not finite."""
    cdef const LineAxis* y = &job.row
    cdef const LineAxis* x = &job.column
    cdef size size_ = job.kernels.size, line = block.columns * width, f, r
    cdef int vectors = <int>(width // job.kernels.lanes), finite = 1
    if y.line == NULL:
        return x.line.output(m, job.m_plane, width, block.columns, vectors, c, column_step, x.tile * column_step, columns,
                             x.tile, bias, relu)
    if x.line == NULL:
        return y.line.output(m, job.m_plane, width, block.columns, vectors, c, row_step, column_step, rows, 0, bias, relu)
    for f in range(x.elements):
        y.line.output(m + f * job.m_plane * size_, x.elements * job.m_plane, width, block.columns, vectors,
                      back + f * line * size_, x.elements * line, width, rows, 0, NULL, 0)
    for r in range(rows):
        finite &= x.line.output(back + r * x.elements * line * size_, line, width, block.columns, vectors,
                                c + r * row_step * size_, column_step, x.tile * column_step, columns, x.tile, bias, relu)
    return finite


cdef void lines_flag(const LinesJob* job, const LineBlock* block, size y, size rows, size row) noexcept nogil:
    """Report a row of tiles; planes of the arrays that are rows or columns here, as a whole."""
    cdef size z, first = y, last = y + rows
    if not job.turned:
        fc_raise_flag(job.flags + (block.image * job.depth + block.plane) * job.tile_rows + block.row + row)
        return
    for z in range(first, last):
        fc_raise_flag(job.flags + block.image * job.planes + z)
