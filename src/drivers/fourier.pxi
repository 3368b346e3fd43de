# Convolution of few channels with large kernels by fast Fourier transforms of tiles (kernels/fourier.h): overlap-save.
#
#   for image x group x row of tiles x pair of tiles beside each other            threads take these
#     for input channel
#       for row: the samples of both tiles, padding filled in, side by side       one line of each
#       for column of lines: transform along y                                    first-level cache
#     for LANES rows of frequencies
#       transposed, transformed along x, times the kernel's spectrum, summed over channels, back      first level
#     for output channel
#       for column of lines: transform back along y
#       for row: bias, then the store of the epilogue
#
# Where the kernel has one row nothing is transformed along y, and the rows of a tile are as many rows of the image as a
# vector has lanes, or as many pairs of one row that follow one another: with the same bits.
#
# Whole numbers under a kernel of whole numbers have whole sums, to which their outputs are rounded where the bound of the
# error allows it; where it does not, they are reported.
#
# What is not under a window of an output that exists is zero. A row of tiles with an output that is not finite is reported,
# and the caller computes it directly.
cdef extern from "fourier.h" nogil:
    ctypedef struct fc_fourier:
        void (*forward)(void*, Py_ssize_t, const void*) noexcept nogil
        void (*back)(void*, Py_ssize_t, const void*) noexcept nogil
        void (*row_in)(const void*, const void*, Py_ssize_t, void*, Py_ssize_t, Py_ssize_t) noexcept nogil
        int (*row_out)(const void*, Py_ssize_t, Py_ssize_t, const Py_ssize_t*, const void*, void*, void*) noexcept nogil
        void (*turn)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*) noexcept nogil
        void (*turn_back)(const void*, Py_ssize_t, void*, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*multiply)(const void*, const void*, Py_ssize_t, void*, int) noexcept nogil
        void (*filter)(void*, const void*, Py_ssize_t, const void*) noexcept nogil


cdef enum:
    FOURIER_HEAD = 64    # bytes before the turns


cdef struct Whole:       # of a pair of tiles
    bint[2] part         # each has whole numbers alone
    double most          # the largest of both


cdef struct FourierJob:
    const fc_kernels* kernels
    const fc_fourier* transforms
    View x, y, residual
    int x_code, y_code, activation, mode
    bint has_residual, along_y, pieces     # pieces: rows of a tile are parts of one line
    size channels, outputs, groups         # channels and outputs of one group
    size low_y, low_x, span_y, span_x      # of the taps
    size rows, columns                     # samples of a tile; rows that are not transformed as many as lanes
    size tile_y, tile_x                    # outputs of a tile
    size tiles_y, pairs                    # rows of tiles, and pairs in one
    size column, tile_bytes, lines_bytes, row_bytes, scratch_bytes
    const char* bias
    double error               # of a kernel of whole numbers: the bound of the error, times the largest sample; else 0
    const char* turns_y
    const char* turns_x
    const char* spectra                    # [group][output][channel][rows / LANES][columns][re, im][LANES]
    char* flags
    Phase phase


def fourier_lanes(int compute):
    """Transforms that run side by side: the rows of a tile are a multiple."""
    return isa.compute[compute].lanes


def fourier_spectrum(z, turns_y, turns_x, out):
    """`out` [rows / LANES][columns][re, im][LANES] of a float64 array (rows, columns), transformed along x and, unless
    `turns_y` is None, along y; all of float64, on this thread."""
    cdef Arrays arrays = Arrays()
    cdef View view
    cdef View spectrum
    cdef View[2] turns
    cdef const fc_kernels* kernels = isa.compute[<int>FC_COMPUTE_F64]
    cdef const fc_fourier* f = <const fc_fourier*>extra(kernels, "fourier")
    cdef size row, block, rows, columns, column, lanes = kernels.lanes
    cdef char* tile = NULL
    try:
        arrays.view(z, &view, False)
        arrays.view(out, &spectrum, True)
        arrays.view(turns_x, &turns[1], False)
        if turns_y is not None:
            arrays.view(turns_y, &turns[0], False)
        rows, columns = view.n[2], view.n[3]
        column = tile_column(kernels, rows)
        tile = <char*>allocate(columns // lanes * column * kernels.size + columns * kernels.size)
        memset(tile, 0, columns * kernels.size)   # the imaginary parts
        for row in range(rows):
            f.row_in(view.p + row * view.s[2], tile, columns, tile + columns * kernels.size, column, row)
        if turns_y is not None:
            for block in range(columns // lanes):
                f.forward(tile + (columns + block * column) * kernels.size, rows, turns[0].p)
        for block in range(rows // lanes):
            f.turn(tile + columns * kernels.size, column, block * lanes, columns,
                   spectrum.p + block * columns * 2 * lanes * kernels.size)
            f.forward(spectrum.p + block * columns * 2 * lanes * kernels.size, columns, turns[1].p)
    finally:
        fc_free(tile)
        arrays.release()


cdef inline size tile_column(const fc_kernels* kernels, size rows) noexcept nogil:
    """Elements from one column of lines to the next: not a power of two, whose rows would share a set of the cache."""
    return (rows + 1) * 2 * kernels.lanes


cdef class Fourier(Program):
    """A pass at stride 1 of few channels, by tiles of `blocking.samples` rows and columns.

    `extent` has `groups`, `channels`, `outputs`, `size`, `input_size` and `mode`, `p` one tap along the depth, and
    `blocking` has `samples` (0 rows: nothing is transformed along y), `outputs` of a tile and `pieces`.
    """
    cdef FourierJob job

    def __init__(self, codes, extent, p, blocking):
        cdef FourierJob* job = &self.job
        cdef const fc_kernels* kernels
        cdef size lines
        self.compute_with(codes)
        kernels = job.kernels = self.kernels
        job.transforms = <const fc_fourier*>extra(kernels, "fourier")
        job.x_code, job.y_code, job.mode = self.input, self.result, extent.mode
        job.channels, job.outputs, job.groups = extent.channels, extent.outputs, extent.groups
        job.low_y, job.low_x = min(p.taps[1]), min(p.taps[2])
        job.span_y, job.span_x = max(p.taps[1]) - job.low_y + 1, max(p.taps[2]) - job.low_x + 1
        job.rows, job.columns = blocking.samples
        job.tile_y, job.tile_x = blocking.outputs
        job.along_y, job.pieces = job.rows > 0, blocking.pieces
        job.rows = job.rows or kernels.lanes
        read_phase(&job.phase, p, extent)
        if job.pieces:
            job.tiles_y = job.phase.size_y
            job.pairs = (job.phase.size_x + 2 * job.rows * job.tile_x - 1) // (2 * job.rows * job.tile_x)
        else:
            job.tiles_y = (job.phase.size_y + job.tile_y - 1) // job.tile_y
            job.pairs = (job.phase.size_x + 2 * job.tile_x - 1) // (2 * job.tile_x)
        job.column = tile_column(kernels, job.rows)
        job.tile_bytes = round_up(job.columns // kernels.lanes * job.column * kernels.size, 64)
        job.lines_bytes = round_up(job.columns * 2 * kernels.lanes * kernels.size, 64)
        job.row_bytes = round_up(job.columns * kernels.size, 64)
        lines = 1 if job.channels * job.outputs == 1 else job.channels + 1
        job.scratch_bytes = (max(job.channels, job.outputs) * job.tile_bytes + lines * job.lines_bytes
                             + 2 * job.row_bytes)

    def scratch_bytes(self):
        """Scratch of one thread."""
        return self.job.scratch_bytes

    def tasks(self):
        """Of one image."""
        return self.job.groups * self.job.tiles_y * self.job.pairs

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """By `packed.transformed`: FOURIER_HEAD bytes whose first double is `error`, the turns along y and x, then the
        spectra. Flags are a byte for every row of tiles of
        every image, 1 for one with an output that is not finite."""
        cdef Work work = Work()
        cdef FourierJob* job = <FourierJob*>work.own(sizeof(FourierJob))
        cdef const fc_kernels* kernels = self.job.kernels
        cdef Operands o
        job[0] = self.job
        bind_operands(&o, work, x, bias, residual, y, activation, channels_last)
        bind_phase(&o, &job.phase)
        job.x, job.y, job.residual, job.bias = o.x, o.y, o.residual, o.bias
        job.has_residual, job.activation = o.has_residual, activation
        job.turns_y = transformed_weights(work, packed) + FOURIER_HEAD
        job.error = (<const double*>(job.turns_y - FOURIER_HEAD))[0]
        job.turns_x = job.turns_y + (2 * job.rows * kernels.size if job.along_y else 0)
        job.spectra = job.turns_x + 2 * job.columns * kernels.size
        places_of(work, &job.x, &job.y, &job.residual, job.has_residual)
        work.task, work.job, work.flags, work.keep = fourier_task, job, &job.flags, self
        work.flag_count, work.scratch_bytes = job.y.n[0] * job.tiles_y, job.scratch_bytes
        work.tasks = job.y.n[0] * job.groups * job.tiles_y * job.pairs
        work.team(threads)
        return work


cdef void fourier_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const FourierJob* job = <const FourierJob*>job_
    cdef const fc_fourier* f = job.transforms
    cdef size pair = task % job.pairs, row = task // job.pairs % job.tiles_y
    cdef size group = task // (job.pairs * job.tiles_y) % job.groups
    cdef size image = task // (job.pairs * job.tiles_y * job.groups), c, o, b
    cdef size step = job.column * job.kernels.size, lanes = job.kernels.lanes
    cdef char* lines = scratch + max(job.channels, job.outputs) * job.tile_bytes
    cdef char* ends = lines + (1 if job.channels * job.outputs == 1 else job.channels + 1) * job.lines_bytes
    cdef Whole whole
    whole.part[0] = whole.part[1] = job.error > 0
    whole.most = 0
    for c in range(job.channels):
        if fc_interrupted(watch):
            return
        fourier_rows(job, image, group * job.channels + c, row, pair, ends, scratch + c * job.tile_bytes, &whole)
        if job.along_y:
            for b in range(job.columns // lanes):
                f.forward(scratch + c * job.tile_bytes + b * step, job.rows, job.turns_y)
    for b in range(job.rows // lanes):
        fourier_lines(job, group, b, scratch, lines)
    for o in range(job.outputs):
        if job.along_y:
            for b in range(job.columns // lanes):
                f.back(scratch + o * job.tile_bytes + b * step, job.rows, job.turns_y)
        fourier_outputs(job, image, group * job.outputs + o, row, pair, ends, scratch + o * job.tile_bytes, &whole)


cdef void fourier_lines(const FourierJob* job, size group, size block, char* tiles, char* lines) noexcept nogil:
    """Some rows of frequencies of every channel, from input channels to output channels in place."""
    cdef const fc_fourier* f = job.transforms
    cdef size lanes = job.kernels.lanes, c, o, one = job.columns * 2 * lanes * job.kernels.size
    cdef size row = block * lanes, own = job.rows // lanes * one   # bytes of a spectrum
    cdef const char* spectrum = job.spectra + group * job.outputs * job.channels * own + block * one
    cdef char* sums = lines + job.channels * job.lines_bytes
    if job.channels * job.outputs == 1:
        f.turn(tiles, job.column, row, job.columns, lines)
        f.filter(lines, spectrum, job.columns, job.turns_x)
        f.turn_back(lines, job.columns, tiles, job.column, row)
        return
    for c in range(job.channels):
        f.turn(tiles + c * job.tile_bytes, job.column, row, job.columns, lines + c * job.lines_bytes)
        f.forward(lines + c * job.lines_bytes, job.columns, job.turns_x)
    for o in range(job.outputs):
        for c in range(job.channels):
            f.multiply(lines + c * job.lines_bytes, spectrum + (o * job.channels + c) * own, job.columns, sums, c > 0)
        f.back(sums, job.columns, job.turns_x)
        f.turn_back(sums, job.columns, tiles + o * job.tile_bytes, job.column, row)


cdef inline size fourier_first(const FourierJob* job, size row, size pair, size part, size r, size* y) noexcept nogil:
    """The first output of row r of the first or second tile of a pair: its row, and the column that is returned."""
    if job.pieces:
        y[0] = row
        return (2 * (pair * job.rows + r) + part) * job.tile_x
    y[0] = row * job.tile_y + r
    return (2 * pair + part) * job.tile_x


cdef void fourier_rows(const FourierJob* job, size image, size channel, size row, size pair, char* ends,
                       char* tile, Whole* whole) noexcept nogil:
    """The samples of a pair of tiles."""
    cdef size r, part, x, y, end_y, count
    cdef char* to
    # beyond, no output has a window
    end_y = job.rows if job.pieces else min(job.tile_y, job.y.n[2] - row * job.tile_y) + job.span_y - 1
    for r in range(job.rows):
        for part in range(2):
            x = fourier_first(job, row, pair, part, r, &y)
            count = min(job.tile_x, job.y.n[3] - x)
            count = count + job.span_x - 1 if count > 0 and r < end_y else 0
            to = ends + part * job.row_bytes
            if count > 0:
                fourier_row(job, image, channel, y + job.low_y, x + job.low_x, count, to)
            memset(to + count * job.kernels.size, 0, (job.columns - count) * job.kernels.size)
            if whole.part[part]:
                if job.kernels.size == 4:
                    whole.part[part] = all_whole(<const float*>to, count, &whole.most)
                else:
                    whole.part[part] = all_whole(<const double*>to, count, &whole.most)
        job.transforms.row_in(ends, ends + job.row_bytes, job.columns, tile, job.column, r)


ctypedef fused real:
    float
    double


cdef bint all_whole(const real* values, size count, double* most) noexcept nogil:
    """Whether all are whole numbers that have a neighbour which is none; `most`: their largest magnitude, and others'."""
    cdef double limit = (1 << 24) if real is float else <double>(1LL << 53), large = most[0]
    cdef size i
    for i in range(count):
        if values[i] != rint(values[i]) or not -limit < values[i] < limit:
            return False
        large = max(large, fabs(values[i]))
    most[0] = large
    return True


cdef void rounded(real* values, size count, const char* bias) noexcept nogil:
    cdef real shift = (<const real*>bias)[0] if bias != NULL else 0
    cdef size i
    for i in range(count):
        values[i] = <real>rint(values[i]) + shift


cdef void fourier_row(const FourierJob* job, size image, size channel, size y, size x, size count,
                      char* to) noexcept nogil:
    """So many samples of a row of the padded image."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size iy = padded_index(y, job.x.n[2], job.mode), ix, j = 0
    cdef size lo = min(max(<size>0, -x), count), hi = max(min(count, job.x.n[3] - x), lo)   # inside the image
    cdef const char* src = job.x.p + image * job.x.s[0] + channel * job.x.s[1] + iy * job.x.s[2]
    if iy < 0:
        memset(to, 0, count * kernels.size)
        return
    while j < count:
        if j == lo and hi > lo:   # elements of one row as the channels of one pixel
            kernels.pack[job.x_code](to + lo * kernels.size, hi - lo, 1, hi - lo, src + (x + lo) * job.x.s[3], 0,
                                     job.x.s[3])
            j = hi
            continue
        ix = padded_index(x + j, job.x.n[3], job.mode)
        if ix < 0:
            memset(to + j * kernels.size, 0, kernels.size)
        else:
            kernels.pack[job.x_code](to + j * kernels.size, 1, 1, 1, src + ix * job.x.s[3], 0, job.x.s[3])
        j += 1


cdef void fourier_outputs(const FourierJob* job, size image, size channel, size row, size pair, char* ends,
                          const char* tile, const Whole* whole) noexcept nogil:
    """The outputs of a pair of tiles."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size r, part, y, rows = job.rows if job.pieces else min(job.tile_y, job.y.n[2] - row * job.tile_y)
    cdef size[2] x
    cdef size[2] counts
    cdef const char* residual = NULL
    cdef const char* bias = NULL
    cdef const char* shift = NULL   # which follows the rounding
    cdef char* to
    cdef bint exact = whole.part[0] and whole.part[1] and job.error * whole.most < 0.25
    if job.bias != NULL:
        bias = job.bias + channel * kernels.size
    if (whole.part[0] or whole.part[1]) and not exact:
        fc_raise_flag(job.flags + image * job.tiles_y + row)
        return
    if not exact:
        shift = bias
    for r in range(rows):
        for part in range(2):
            x[part] = fourier_first(job, row, pair, part, r, &y)
            counts[part] = max(<size>0, min(job.tile_x, job.y.n[3] - x[part]))
        if not job.transforms.row_out(tile, job.column, r, counts, shift, ends, ends + job.row_bytes):
            fc_raise_flag(job.flags + image * job.tiles_y + row)
        for part in range(2):
            if counts[part] == 0:
                continue
            if exact and kernels.size == 4:
                rounded(<float*>(ends + part * job.row_bytes), counts[part], bias)
            elif exact:
                rounded(<double*>(ends + part * job.row_bytes), counts[part], bias)
            to = job.y.p + image * job.y.s[0] + channel * job.y.s[1] + y * job.y.s[2] + x[part] * job.y.s[3]
            if job.has_residual:
                residual = (job.residual.p + image * job.residual.s[0] + channel * job.residual.s[1]
                            + y * job.residual.s[2] + x[part] * job.residual.s[3])
            kernels.store[job.y_code](ends + part * job.row_bytes, counts[part], 1, counts[part], to, 0, job.y.s[3],
                                      NULL, job.activation, residual, 0,
                                      job.residual.s[3] if job.has_residual else 0)
