# Winograd's F(2x2, 3x3) on bytes that become bytes (kernels/winograd_bytes.h): 16 products for 36, of eight bits each, so
# that what comes out is near the exact sums and not these. Channels lie side by side, the stride is 1.
#
#   for block of tiles x run of panels                      threads take these
#     V[16][tiles][channels] = transformed tiles of inputs  second-level cache
#     for panel of output channels
#       M[16] = shift + V U                                 exact
#       2 x 2 outputs = A M A^T * factor, rounded to bytes
#
# Products, and what is made of them tile by tile, depend neither on blocks nor on threads.

cdef enum:
    BYTE_TILE = 2            # outputs a side
    BYTE_TILES_MOST = 24     # of a block: four full register tiles, as many weights are read once for


cdef struct TilesOfBytes:
    View x, y
    const fc_kernels* kernels
    const fc_byte_tiles* own
    const char* panels
    fc_requantise requantise
    size channels, outputs, steps, width, panel_bytes, panel_count, panels_per_task, chunks
    size tile_rows, tile_columns, tiles, block, origin_y, origin_x
    size ldv, plane_v, v_bytes, plane_m
    int flip, fill


cdef class WinogradBytes(Program):
    """WinogradBytes(codes, padding, fill): `padding` is (rows above, columns before), `fill` the byte of padding as it lies
    in the input. The packed weights are panels (of `panel_bytes`): factors (float32, [width]), shifts (int32, [16][width]),
    then the transformed weights, [16][step / 4][width][4]."""
    cdef size padding[2]
    cdef int fill

    def __init__(self, codes, padding, int fill):
        self.compute_with(codes)
        if extra(self.kernels, b"byte_tiles") == NULL:
            raise ValueError("this instruction set has no products of four bytes")
        self.padding[0], self.padding[1] = padding
        self.fill = fill

    def panel_bytes(self, size channels, size outputs):
        """Of a panel of so many outputs."""
        return byte_panel(channels, round_up(outputs, self.kernels.lanes))

    def scratch_bytes(self, size channels):
        """Of a thread."""
        cdef TilesOfBytes job
        job.kernels, job.own = self.kernels, <const fc_byte_tiles*>extra(self.kernels, b"byte_tiles")
        job.channels, job.block = channels, BYTE_TILES_MOST
        return byte_tiles_scratch(&job)

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """`bias` has `zero`, `low` and `high` of the result."""
        cdef Work work = Work()
        cdef View panels
        cdef size blocks, full, most
        cdef TilesOfBytes* job = <TilesOfBytes*>work.own(sizeof(TilesOfBytes))
        work.activation(x, &job.x, False, channels_last)
        work.activation(y, &job.y, True, channels_last)
        work.view(packed.panels, &panels, False)
        work.keep = self
        if elements(&job.y) == 0:
            return work
        if not (side_by_side(&job.x, 1) and side_by_side(&job.y, 1)) or job.x.n[4] * job.y.n[4] != 1:
            raise ValueError("channels must lie side by side")
        work.place(&job.x.p)
        work.place(&job.y.p)
        job.kernels, job.own = self.kernels, <const fc_byte_tiles*>extra(self.kernels, b"byte_tiles")
        job.channels, job.outputs, job.panels = job.x.n[1], job.y.n[1], panels.p
        job.width = job.kernels.vectors * job.kernels.lanes
        full = job.outputs // job.width
        job.panel_count = (job.outputs + job.width - 1) // job.width
        job.panel_bytes = byte_panel(job.channels, job.width)
        most = full * job.panel_bytes
        if job.panel_count > full:
            most += byte_panel(job.channels, round_up(job.outputs - full * job.width, job.kernels.lanes))
        if work.buffers[2].shape[0] != most:
            raise ValueError(f"{most} bytes of packed weights, not {work.buffers[2].shape[0]}")
        job.requantise.zero, job.requantise.low, job.requantise.high = bias.zero, bias.low, bias.high
        job.requantise.is_signed, job.requantise.wide = self.result == FC_I8, False
        job.flip, job.fill = 128 if self.input == FC_I8 else 0, self.fill
        job.origin_y, job.origin_x = -self.padding[0], -self.padding[1]
        job.tile_rows = (job.y.n[2] + BYTE_TILE - 1) // BYTE_TILE
        job.tile_columns = (job.y.n[3] + BYTE_TILE - 1) // BYTE_TILE
        job.tiles = job.x.n[0] * job.tile_rows * job.tile_columns
        blocks = (job.tiles + BYTE_TILES_MOST - 1) // BYTE_TILES_MOST
        job.block = (job.tiles + blocks - 1) // blocks
        blocks = (job.tiles + job.block - 1) // job.block
        # V is made again for every run of panels: only as many as keep the threads busy to the end
        job.chunks = min(job.panel_count, max(<size>1, (3 * threads + blocks - 1) // blocks if threads > 1 else 1))
        job.panels_per_task = (job.panel_count + job.chunks - 1) // job.chunks
        job.chunks = (job.panel_count + job.panels_per_task - 1) // job.panels_per_task
        work.tasks = blocks * job.chunks
        work.task, work.job, work.scratch_bytes = byte_tiles_task, job, byte_tiles_scratch(job)
        work.team(threads if 16 * job.tiles * job.channels * job.outputs >= PARALLEL_FROM_MACS else 1)
        return work


cdef inline size byte_panel(size channels, size width) noexcept nogil:
    return width * (4 + 16 * (4 + round_up(channels, 4)))


cdef size byte_tiles_scratch(TilesOfBytes* job) noexcept nogil:
    """Of one thread; and what lies where in it."""
    job.steps = round_up(job.channels, 4)
    job.width = job.kernels.vectors * job.kernels.lanes
    job.ldv = round_up(job.channels, job.own.channels)
    job.plane_v = job.block * job.ldv + 64   # planes a power of two apart would share cache sets
    job.v_bytes = round_up(16 * job.plane_v, 64)
    job.plane_m = job.block * job.width + 16
    return job.v_bytes + 16 * job.plane_m * 4 + round_up(2 * job.block * sizeof(size), 64) + round_up(job.channels, 64)


cdef void byte_tiles_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const TilesOfBytes* job = <const TilesOfBytes*>job_
    cdef size first = task // job.chunks * job.block, count = min(job.block, job.tiles - first)
    cdef size panel = task % job.chunks * job.panels_per_task, end = min(panel + job.panels_per_task, job.panel_count)
    cdef size t, e, width, vectors, outputs
    cdef char* m = scratch + job.v_bytes
    cdef size* v_row = <size*>(m + 16 * job.plane_m * 4)
    cdef size* m_row = v_row + job.block
    cdef const char* own
    cdef fc_product last
    cdef Ends ends = Ends(NULL, NULL, NULL, LINEAR, NULL, NULL, NULL, NULL, 0, False, 0, NULL, 0)
    cdef fc_segment segment
    segment.a, segment.b, segment.k = 0, 0, job.steps
    byte_tiles_in(job, first, count, scratch, <char*>v_row + round_up(2 * job.block * sizeof(size), 64))
    while panel < end:
        if fc_interrupted(watch):
            return
        outputs = min(job.width, job.outputs - panel * job.width)
        width = round_up(outputs, job.kernels.lanes)
        vectors = width // job.kernels.lanes
        own = job.panels + panel * job.panel_bytes
        last.multiplier, last.requantise, last.columns = <const float*>own, &job.requantise, outputs
        ends.bias = own + width * 4
        own += 17 * width * 4
        for t in range(count):
            v_row[t], m_row[t] = t * job.ldv, t * width
        for e in range(16):
            direct_block(job.kernels, scratch + e * job.plane_v, v_row, own + e * job.steps * width, vectors, width,
                         &segment, 1, count, m + e * job.plane_m * 4, m_row, &ends, True, True)
            ends.bias += width * 4
        byte_tiles_out(job, first, count, panel * job.width, width, m, &last)
        panel += 1


cdef void byte_tiles_in(const TilesOfBytes* job, size first, size count, char* v, char* fill) noexcept nogil:
    """V of some tiles; `fill` has room for the channels of a pixel of padding."""
    cdef const unsigned char* pixel[16]
    cdef const char* image
    cdef size t, i, j, y, x, row, column
    memset(fill, job.fill, job.channels)
    for t in range(count):
        column = (first + t) % job.tile_columns * BYTE_TILE + job.origin_x
        row = (first + t) // job.tile_columns % job.tile_rows * BYTE_TILE + job.origin_y
        image = job.x.p + (first + t) // job.tile_columns // job.tile_rows * job.x.s[0]
        for i in range(4):
            y = row + i
            for j in range(4):
                x = column + j
                pixel[4 * i + j] = <const unsigned char*>(
                    image + y * job.x.s[2] + x * job.x.s[3] if 0 <= y < job.x.n[2] and 0 <= x < job.x.n[3] else fill)
        job.own.input(pixel, job.channels, job.flip, <unsigned char*>v + t * job.ldv, job.plane_v)


cdef void byte_tiles_out(const TilesOfBytes* job, size first, size count, size channel, size width, const char* m,
                         fc_product* last) noexcept nogil:
    """The outputs of some tiles in a panel."""
    cdef size t, row, column, vectors = width // job.kernels.lanes
    for t in range(count):
        column = (first + t) % job.tile_columns * BYTE_TILE
        row = (first + t) // job.tile_columns % job.tile_rows * BYTE_TILE
        last.out = (job.y.p + (first + t) // job.tile_columns // job.tile_rows * job.y.s[0] + row * job.y.s[2]
                    + column * job.y.s[3] + channel)
        job.own.output[vectors](<const int*>m + t * width, job.plane_m, last, job.y.s[2], job.y.s[3],
                                min(<size>BYTE_TILE, job.y.n[2] - row), min(<size>BYTE_TILE, job.y.n[3] - column))
