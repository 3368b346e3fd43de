# 1 x 1 convolution as a matrix product in fewer multiplications (Strassen 1969; kernels/strassen.h): the pixels, the
# channels and the outputs are cut in two (once) or four (twice), a tile being that many neighbouring pixels of an
# image, and 7 (49) products of blocks make up 8 (64). Fused per block of tiles, so that factors and products never leave
# the cache:
#
#   for block of tiles x run of panels                      threads take these
#     V[E][tiles][channels / side] = sums of blocks       second-level cache
#     for panel of a block of the outputs
#       for part of the tiles                               M: first-level cache
#         for each of the E products: M = V * U             micro-kernel
#         side x side outputs = sums of M, bias, residual   as they lie, or stored by the epilogue
#
# Each tile is computed alike whatever block it falls in: the bits depend neither on the threads nor on the batch. An
# image with an output that is not finite is reported, and the caller computes it directly, so that NaN and infinity
# reach exactly the outputs whose pixel holds them.
cdef extern from "strassen.h" nogil:
    ctypedef void (*fc_strassen_input)(const void*, const Py_ssize_t*, Py_ssize_t, Py_ssize_t, void*, Py_ssize_t,
                                       Py_ssize_t, int) noexcept nogil
    ctypedef void (*fc_strassen_weights)(const void*, Py_ssize_t, Py_ssize_t, Py_ssize_t, void*,
                                         Py_ssize_t) noexcept nogil
    ctypedef void (*fc_strassen_fold)(const void*, Py_ssize_t, void*, Py_ssize_t) noexcept nogil
    ctypedef int (*fc_strassen_output)(const void*, Py_ssize_t, Py_ssize_t, int, void*, const Py_ssize_t*, Py_ssize_t,
                                       Py_ssize_t, const void*, const void*, const Py_ssize_t*, int) noexcept nogil
    ctypedef struct fc_strassen:
        fc_strassen_input input
        fc_strassen_weights weights
        fc_strassen_fold fold
        fc_strassen_output output


cdef enum:
    STRASSEN_PIXELS = 16   # packed together where they cannot be read as they lie

cdef struct StrassenJob:
    const fc_kernels* kernels
    const fc_strassen* sums
    View x, y, residual
    View at                               # the input at the pixels of the output
    int x_code, y_code, activation, mode
    bint has_residual, readable, in_place, in_output
    size channels, outputs, stride_y, stride_x, origin_y, origin_x
    const char* transformed
    const char* bias
    char* flags
    size side, products                   # blocks along an axis, E
    size tiles, image_tiles, pixels, block, blocks, kc
    size panels, panels_per_task, panel_chunks, width
    size depth, breadth                   # channels and outputs of a block
    size ldv, part
    size v_bytes, m_bytes, region_bytes, output_bytes, scratch_bytes


cdef struct TileRows:                     # elements from an array's first
    size* v                               # to the factors of every tile of a part
    size* m                               # its products
    size* upper                           # blocks that are factors as they lie, of every tile of a block
    size* lower
    size* x                               # pixels
    size* y
    size* residual


cdef struct StrassenPanels:
    const fc_kernels* kernels
    const fc_strassen* sums
    const char* w
    char* u
    size depth, breadth, products, width


cdef void strassen_panel(void* panels, char* scratch, size panel, fc_watch* watch) noexcept nogil:
    cdef const StrassenPanels* job = <const StrassenPanels*>panels
    cdef size line = job.width * job.kernels.size, side = 2 if job.products == 7 else 4
    job.sums.weights(job.w + panel * side * job.depth * line, job.depth * job.width, side * job.depth * job.breadth,
                     job.depth * job.width, job.u + panel * job.products * job.depth * line, job.depth * job.width)


def strassen_weights(int compute, int levels, packed, transformed, size channels, size outputs, int threads):
    """Transform packed weights into U[panel][product][channels / side][width]; outputs / side is whole panels."""
    cdef StrassenPanels job
    cdef Arrays arrays = Arrays()
    cdef View w, u
    try:
        arrays.view(packed, &w, False)
        arrays.view(transformed, &u, True)
        job.kernels = isa.compute[compute]
        job.sums = (<const fc_strassen*>extra(job.kernels, "strassen")) + levels - 1
        job.w, job.u, job.products = w.p, u.p, 7 if levels == 1 else 49
        job.depth, job.breadth = channels >> levels, outputs >> levels
        job.width = job.kernels.vectors * job.kernels.lanes
        run_tasks(strassen_panel, &job, NULL, 0, job.breadth // job.width, threads)
    finally:
        arrays.release()


def strassen_scratch_bytes(int compute, int levels, size channels, size tiles, size part):
    """Scratch of one thread for blocks of so many tiles, multiplied `part` at a time."""
    cdef StrassenJob job
    strassen_kind(&job, isa.compute[compute], levels)
    job.channels, job.block, job.part = channels, tiles, part
    strassen_scratch(&job)
    return job.scratch_bytes


cdef void strassen_kind(StrassenJob* job, const fc_kernels* kernels, int levels) noexcept nogil:
    job.kernels = kernels
    job.sums = (<const fc_strassen*>extra(kernels, "strassen")) + levels - 1
    job.side, job.products = 1 << levels, 7 if levels == 1 else 49


cdef void strassen_scratch(StrassenJob* job) noexcept nogil:
    """Scratch of one thread: factors, products, pixels that cannot be read as they lie, outputs of a tile, offsets."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size pieces = 0
    job.width = kernels.vectors * kernels.lanes
    job.depth = job.channels // job.side
    job.ldv = job.depth + kernels.lanes   # rows a power of two apart would share cache sets
    job.v_bytes = piece(&pieces, job.products * job.block * job.ldv * kernels.size)
    job.m_bytes = piece(&pieces, (7 if job.side == 2 else 35) * job.part * job.width * kernels.size)
    job.region_bytes = piece(&pieces, STRASSEN_PIXELS * job.channels * kernels.size)
    job.output_bytes = piece(&pieces, job.side * job.side * job.width * kernels.size)
    job.scratch_bytes = 4 * 64 + pieces + (2 * job.part + (2 + 3 * job.side) * job.block) * sizeof(size)


cdef class Strassen(Program):
    """A 1 x 1 convolution in `levels` of halves; output (i, j) reads x[taps + (i, j) * stride].

    `extent` has `groups` (1), `channels`, `outputs`, `size`, `input_size` and `mode`, `p` one tap along every axis, and
    `blocking` has `tiles`, `part`, `reduction` and `panels_per_task`.
    """
    cdef StrassenJob job
    cdef Phase phase

    def __init__(self, codes, extent, p, blocking, int levels):
        cdef StrassenJob* job = &self.job
        self.compute_with(codes)
        strassen_kind(job, self.kernels, levels)
        job.x_code, job.y_code, job.mode = self.input, self.result, extent.mode
        job.channels, job.outputs = extent.channels, extent.outputs
        _, job.stride_y, job.stride_x = p.stride
        _, job.origin_y, job.origin_x = [taps[0] for taps in p.taps]
        job.block, job.part, job.kc = blocking.tiles, blocking.part, blocking.reduction
        read_phase(&self.phase, p, extent)
        strassen_prepare(job, blocking.panels_per_task)

    def scratch_bytes(self):
        """Scratch of one thread."""
        return self.job.scratch_bytes

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """By `packed.transformed`. Flags are a byte for every image, 1 for one with an output that is not finite."""
        cdef Work work = Work()
        cdef StrassenJob* job = <StrassenJob*>work.own(sizeof(StrassenJob))
        cdef Operands o
        job[0] = self.job
        bind_operands(&o, work, x, bias, residual, y, activation, channels_last)
        bind_phase(&o, &self.phase)
        job.x, job.y, job.residual, job.bias = o.x, o.y, o.residual, o.bias
        job.has_residual, job.activation = o.has_residual, activation
        job.transformed = transformed_weights(work, packed)
        strassen_arrays(job)
        places_of(work, &job.x, &job.y, &job.residual, job.has_residual)
        work.place(&job.at.p)
        work.task, work.job, work.flags, work.keep = strassen_task, job, &job.flags, self
        work.flag_count, work.scratch_bytes, work.tasks = job.y.n[0], job.scratch_bytes, job.blocks * job.panel_chunks
        work.sites = job.blocks
        work.team(threads)
        return work


cdef void strassen_prepare(StrassenJob* job, size panels_per_task) noexcept nogil:
    strassen_scratch(job)
    job.breadth = job.outputs // job.side
    job.panels = job.breadth // job.width
    job.panels_per_task = max(1, min(panels_per_task, job.panels))
    job.panel_chunks = (job.panels + job.panels_per_task - 1) // job.panels_per_task


cdef void strassen_arrays(StrassenJob* job) noexcept nogil:
    """What depends on how many images there are, and on how the arrays lie."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size last_y = job.origin_y + (job.y.n[2] - 1) * job.stride_y
    cdef size last_x = job.origin_x + (job.y.n[3] - 1) * job.stride_x
    job.pixels = job.y.n[2] * job.y.n[3]
    job.image_tiles = (job.pixels + job.side - 1) // job.side
    job.tiles = job.y.n[0] * job.image_tiles
    job.blocks = (job.tiles + job.block - 1) // job.block
    job.readable = (job.x_code == kernels.input and job.x.s[1] == kernels.size and job.x.s[0] % kernels.size == 0
                    and job.x.s[2] % kernels.size == 0 and job.x.s[3] % kernels.size == 0
                    and <size>job.x.p % kernels.size == 0 and job.origin_y >= 0 and job.origin_x >= 0
                    and last_y < job.x.n[2] and last_x < job.x.n[3])
    job.in_place = job.readable and job.side == 2
    job.at = job.x
    job.at.p += job.origin_y * job.x.s[2] + job.origin_x * job.x.s[3]
    job.at.n[2], job.at.n[3] = job.y.n[2], job.y.n[3]
    job.at.s[2], job.at.s[3] = job.stride_y * job.x.s[2], job.stride_x * job.x.s[3]
    job.in_output = (job.y_code == kernels.sum and job.y.s[0] % kernels.size == 0
                     and in_elements(&job.y, job.y.p, kernels.size)
                     and (not job.has_residual or (job.residual.s[0] % kernels.size == 0
                                                   and in_elements(&job.residual, job.residual.p, kernels.size))))


cdef void strassen_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const StrassenJob* job = <const StrassenJob*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef size chunk = task // job.blocks, first = task % job.blocks * job.block
    cdef size count = min(job.block, job.tiles - first)
    cdef char* v = scratch
    cdef char* m = v + job.v_bytes
    cdef char* folded = m + 7 * job.part * job.width * kernels.size
    cdef char* region = m + job.m_bytes
    cdef char* output = region + job.region_bytes
    cdef TileRows rows
    cdef size t, run, panel, part, parts = (count + job.part - 1) // job.part, tiles, end, image, pixel, pixels
    cdef const char* u
    rows.v = <size*>(output + job.output_bytes)
    rows.m = rows.v + job.part
    rows.upper = rows.m + job.part
    rows.lower = rows.upper + job.block
    rows.x = rows.lower + job.block
    rows.y = rows.x + job.side * job.block
    rows.residual = rows.y + job.side * job.block
    lay_out(rows.v, 1, min(count, job.part), 0, job.ldv)
    lay_out(rows.m, 1, min(count, job.part), 0, job.width)
    t = 0
    while t < count:                             # tiles of one image
        image, pixel = (first + t) // job.image_tiles, (first + t) % job.image_tiles * job.side
        run = min(count - t, job.image_tiles - (first + t) % job.image_tiles)
        pixels = min(run * job.side, job.pixels - pixel)
        strassen_factors(job, image, pixel, pixels, region, v + t * job.ldv * kernels.size, rows.x + t * job.side)
        if job.in_output:
            pixel_offsets(&job.y, image, pixel, pixels, kernels.size, rows.y + t * job.side)
            if job.has_residual:
                pixel_offsets(&job.residual, image, pixel, pixels, kernels.size, rows.residual + t * job.side)
        t += run
    if job.in_place:
        for t in range(count):
            rows.upper[t], rows.lower[t] = rows.x[2 * t], rows.x[2 * t + 1] + job.depth
    for panel in range(chunk * job.panels_per_task, min((chunk + 1) * job.panels_per_task, job.panels)):
        if fc_interrupted(watch):
            return
        u = job.transformed + panel * job.products * job.depth * job.width * kernels.size
        for part in range(parts):
            t = count * part // parts
            tiles = count * (part + 1) // parts - t
            strassen_products(job, v + t * job.ldv * kernels.size, &rows, t, tiles, u, m, folded)
            end = t + tiles
            while t < end:
                pixel = (first + t) % job.image_tiles * job.side
                run = min(end - t, job.image_tiles - (first + t) % job.image_tiles)
                strassen_outputs(
                    job, (first + t) // job.image_tiles, pixel, min(run * job.side, job.pixels - pixel), panel,
                    (m if job.side == 2 else folded) + (t - (end - tiles)) * job.width * kernels.size, &rows,
                    t * job.side, output)
                t += run


cdef void strassen_products(const StrassenJob* job, const char* v, const TileRows* rows, size tile, size tiles,
                            const char* u, char* m, char* folded) noexcept nogil:
    """The products of some tiles and a panel: M[7], or of two levels folded[7][4]."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size e, k0, plane = job.part * job.width * kernels.size, plane_u = job.depth * job.width * kernels.size
    cdef size plane_v = job.block * job.ldv * kernels.size
    cdef const char* a
    cdef const size* a_row
    cdef Ends ends = Ends(NULL, NULL, NULL, LINEAR, NULL, NULL, NULL, NULL, 0, False, 0, NULL, 0)  # the sums come between
    cdef fc_segment segment
    for e in range(job.products):
        a, a_row = v + e * plane_v, rows.v
        if job.in_place and (e == 2 or e == 3):
            a, a_row = job.at.p, (rows.upper if e == 2 else rows.lower) + tile
        k0 = 0
        while k0 < job.depth:
            segment.a, segment.b, segment.k = k0, k0, min(job.kc, job.depth - k0)
            direct_block(kernels, a, a_row, u + e * plane_u, kernels.vectors, job.width, &segment, 1, tiles,
                         m + e % 7 * plane, rows.m, &ends, k0 == 0, False)
            k0 += job.kc
        if job.side == 4 and e % 7 == 6:
            job.sums.fold(m, tiles * job.width, folded + e // 7 * 4 * plane, job.part * job.width)


cdef void pixel_offsets(const View* array, size image, size pixel, size count, size element, size* at) noexcept nogil:
    """Elements from the first of an array to so many pixels of an image, from `pixel` on."""
    cdef size i, y = pixel // array.n[3], x = pixel % array.n[3]
    cdef size row_step = array.s[2] // element, pixel_step = array.s[3] // element
    for i in range(count):
        at[i] = image * (array.s[0] // element) + y * row_step + x * pixel_step
        x += 1
        if x == array.n[3]:
            y, x = y + 1, 0


cdef void strassen_factors(const StrassenJob* job, size image, size pixel, size pixels, char* region, char* v,
                           size* row) noexcept nogil:
    """V of the tiles that some pixels of an image make up, and where they lie if they can be read there. What the last
    tile lacks is its last pixel again: no output is stored for it."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size plane = job.block * job.ldv, whole = round_up(pixels, job.side), p, r, y, x, run, count
    cdef size own_row[STRASSEN_PIXELS]
    if job.readable:
        pixel_offsets(&job.at, image, pixel, pixels, kernels.size, row)
        for p in range(pixels, whole):
            row[p] = row[pixels - 1]
        job.sums.input(job.at.p, row, whole, job.depth, v, plane, job.ldv, job.in_place)
        return
    p = 0
    while p < pixels:
        count = min(<size>STRASSEN_PIXELS, pixels - p)
        r = 0
        while r < count:                         # runs of pixels in a row of the output
            y, x = (pixel + p + r) // job.y.n[3], (pixel + p + r) % job.y.n[3]
            run = min(count - r, job.y.n[3] - x)
            pack_region(kernels, job.x_code, &job.x, image, 0, job.channels, job.origin_y + y * job.stride_y, 1, 1,
                        job.origin_x + x * job.stride_x, job.stride_x, run, run, job.mode, job.channels,
                        region + r * job.channels * kernels.size)
            r += run
        for r in range(STRASSEN_PIXELS):
            own_row[r] = min(r, count - 1) * job.channels
        job.sums.input(region, own_row, round_up(count, job.side), job.depth,
                       v + p // job.side * job.ldv * kernels.size, plane, job.ldv, False)
        p += STRASSEN_PIXELS


cdef void strassen_outputs(const StrassenJob* job, size image, size pixel, size pixels, size panel, const char* m,
                           const TileRows* all_rows, size at_row, char* output) noexcept nogil:
    """The outputs of some pixels of an image and a panel from their products."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size first = panel * job.width, p = 0, rows, r, q, y, x, step = job.side, plane = job.part * job.width
    cdef size own_row[4]
    cdef char* to = job.y.p + first * job.y.s[1]
    cdef char* at
    cdef const char* bias = NULL
    cdef const char* residual = NULL
    cdef const char* added
    if job.has_residual:
        residual = job.residual.p + first * job.residual.s[1]
    if job.in_output:
        if job.bias != NULL:
            bias = job.bias + first * kernels.size
        if not job.sums.output(m, plane, job.width, kernels.vectors, to, all_rows.y + at_row, pixels, job.breadth,
                               bias, residual, all_rows.residual + at_row, job.activation == RELU):
            fc_raise_flag(job.flags + image)
        if job.activation == LINEAR or job.activation == RELU:
            return
    lay_out(own_row, 1, job.side, 0, job.side * job.width)
    while p < pixels:                            # tile by tile
        rows = min(step, pixels - p)
        if not job.in_output and not job.sums.output(
                m + p // step * job.width * kernels.size, plane, job.width, kernels.vectors, output, own_row, rows,
                job.width, NULL, NULL, NULL, False):
            fc_raise_flag(job.flags + image)
        for r in range(rows):
            y, x = (pixel + p + r) // job.y.n[3], (pixel + p + r) % job.y.n[3]
            for q in range(job.side):
                at = to + image * job.y.s[0] + q * job.breadth * job.y.s[1] + y * job.y.s[2] + x * job.y.s[3]
                added = bias = NULL
                if not job.in_output and job.bias != NULL:
                    bias = job.bias + (first + q * job.breadth) * kernels.size
                if not job.in_output and residual != NULL:
                    added = (residual + image * job.residual.s[0] + q * job.breadth * job.residual.s[1]
                             + y * job.residual.s[2] + x * job.residual.s[3])
                kernels.store[job.y_code](
                    at if job.in_output else output + (r * job.side + q) * job.width * kernels.size, 0, 1, job.width,
                    at, job.y.s[3], job.y.s[1], bias, job.activation, added, 0,
                    job.residual.s[1] if added != NULL else 0)
        p += rows
