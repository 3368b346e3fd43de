# The weight gradient as Winograd F(3x3, m x m): with the matrices of F(m x m, 3x3) in transposed roles,
# dW = G^T [ sum over tiles of (B^T X B) * (A dY A^T) ] G, so that the sum over all tiles is E = (m + 2)^2 matrix
# products. A dilation leaves the pixels of every phase to tiles of their own, as if to further images.
#
#   for part of the tiles x block of input channels x panel of output channels     threads take these
#     for group of tiles
#       V[E][tiles][channels], D[E][tiles][width] = transformed tiles              second-level cache
#       for each of the E elements: M += V^T D                                     micro-kernel: K = tiles
#   for block: add the parts in order, transform back E -> 9, store
#
# A kernel of several planes has an M for each of them. A group of tiles then goes through the planes of dY, and the V of
# the planes of x under them stay: each plane is transformed once for all planes of the kernel.
#
# The parts depend on shapes alone: the bits do not depend on threads. A part of many tiles is summed in blocks of
# TILE_BLOCK of them (drivers/totals.pxi).

cdef struct WinogradGradientJob:
    const fc_kernels* kernels
    const fc_winograd* transforms
    View x, dy, dw
    int x_code, dy_code, dw_code, mode
    size channels, outputs, pad_y, pad_x, dilation_y, dilation_x
    size phases_y, phases_x, tile, extent, elements
    size deep, stride_z, first_z     # planes of the kernel, between outputs, and where the first one lies
    size through                     # planes of dY that a group of tiles goes through
    size channel_block, group_tiles, parts
    size tile_rows, tile_columns, tiles, channel_blocks, panels, width, blocks
    Planes v_planes, d_planes
    size ldv, ldd, v_bytes, d_bytes, m_bytes, region_bytes, totals_bytes, scratch_bytes
    bint long_     # the sums of a part are made in blocks
    char* sums


cdef class WinogradGradient(Program):
    """The weight gradient of a convolution of 3 x 3 taps at stride 1, in tiles of a kind (fc_winograd_kind).

    `codes.weight` is the type of dY, `codes.result` that of dW; `extent` has `groups` (1), `channels`, `outputs`, `size`,
    `input_size` and `mode`, `p` is the pass of the convolution, and `blocking` has `channels`, `tiles`, `parts` and
    whether it is of all planes of the kernel, `together`, or of one.
    """
    cdef WinogradGradientJob job

    def __init__(self, codes, extent, p, blocking, int kind):
        cdef WinogradGradientJob* job = &self.job
        self.compute_with(codes)
        job.kernels = self.kernels
        job.transforms = &job.kernels.winograd[kind]
        job.tile, job.extent, job.elements = job.transforms.tile, job.transforms.extent, job.transforms.elements ** 2
        job.x_code, job.dy_code, job.dw_code, job.mode = self.input, self.weight, self.result, extent.mode
        job.channels, job.outputs = extent.channels, extent.outputs
        even_taps(p.taps[1], &job.pad_y, &job.dilation_y)
        even_taps(p.taps[2], &job.pad_x, &job.dilation_x)
        job.pad_y, job.pad_x = -job.pad_y, -job.pad_x
        job.channel_block = min(<size>blocking.channels, <size>FC_WINOGRAD_CHANNELS)
        job.group_tiles, job.parts = blocking.tiles, blocking.parts
        job.deep, job.stride_z, job.first_z = 1, 1, 0
        if blocking.together:
            job.deep, job.stride_z, job.first_z = len(p.taps[0]), p.stride[0], p.taps[0][0]

    def run(self, x, dy, dw, int threads):
        """Write dW (O, C, 3, 3), any strides, from x (N, C, H, W) and dY (N, O, OH, OW), or from as many planes of each;
        `together` dW (O, C, D, 3, 3) from volumes."""
        cdef WinogradGradientJob job = self.job
        cdef Arrays arrays = Arrays()
        cdef char* scratch = NULL
        cdef size tasks, team
        job.sums = NULL
        try:
            arrays.view(x, &job.x, False)
            arrays.view(dy, &job.dy, False)
            arrays.view(dw, &job.dw, True)
            winograd_gradient_prepare(&job)
            tasks = job.blocks * job.parts
            team = team_for(threads, tasks, job.scratch_bytes, job.deep * job.m_bytes * tasks if job.parts > 1 else 0)
            scratch = <char*>allocate(job.scratch_bytes * team)
            if job.parts > 1:
                job.sums = <char*>allocate(job.deep * job.m_bytes * tasks)
            run_tasks(winograd_gradient_task, &job, scratch, job.scratch_bytes, tasks, <int>team)
            if job.parts > 1:
                run_tasks(winograd_gradient_reduce, &job, scratch, job.scratch_bytes, job.blocks, <int>team)
        finally:
            fc_free(scratch)
            fc_free(job.sums)
            arrays.release()


cdef void winograd_gradient_prepare(WinogradGradientJob* job) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef size run
    job.width = kernels.vectors * kernels.lanes
    job.panels = (job.outputs + job.width - 1) // job.width
    job.channel_blocks = (job.channels + job.channel_block - 1) // job.channel_block
    job.blocks = job.channel_blocks * job.panels
    job.phases_y = min(job.dilation_y, job.dy.n[2])
    job.phases_x = min(job.dilation_x, job.dy.n[3])
    job.tile_rows = (job.dy.n[2] + job.tile * job.dilation_y - 1) // (job.tile * job.dilation_y)
    job.tile_columns = (job.dy.n[3] + job.tile * job.dilation_x - 1) // (job.tile * job.dilation_x)
    job.through = job.dy.n[4] if job.deep > 1 else 1
    job.tiles = job.dy.n[0] * (job.dy.n[4] // job.through) * job.phases_y * job.phases_x * job.tile_rows * job.tile_columns
    job.ldv = round_up(job.channel_block, kernels.lanes) + kernels.lanes
    job.ldd = job.width + kernels.lanes
    job.v_planes = plain_planes(job.extent, job.ldv, job.group_tiles * job.ldv)
    job.d_planes = plain_planes(job.extent, job.ldd, job.group_tiles * job.ldd)
    run = min(job.group_tiles, job.tile_columns)
    job.v_bytes = round_up(job.elements * job.group_tiles * job.ldv * kernels.size, 64)
    job.d_bytes = round_up(job.elements * job.group_tiles * job.ldd * kernels.size, 64)
    job.m_bytes = round_up(job.elements * job.channel_block * job.width * kernels.size, 64)
    job.region_bytes = round_up(job.extent * (job.tile * run + 2) * FC_WINOGRAD_CHANNELS * kernels.size, 64)
    job.region_bytes = max(job.region_bytes, round_up(9 * job.channel_block * job.width * kernels.size, 64))
    # the taps of a reduced block are laid out in the same scratch, from its beginning
    job.long_ = is_long(kernels, (job.tiles + job.parts - 1) // job.parts * job.through + job.parts)
    job.totals_bytes = 2 * job.deep * job.m_bytes if job.long_ else 0
    job.scratch_bytes = job.deep * (job.v_bytes + job.m_bytes) + job.d_bytes + job.region_bytes + job.totals_bytes


cdef struct TileGroup:      # of tiles that are transformed together
    size first, count


cdef void winograd_gradient_tiles(const WinogradGradientJob* job, const TileGroup* g, size channel, size channels,
                                  bint of_dy, size plane, char* region, char* to) noexcept nogil:
    """Transform the tiles of a group, of x or `of_dy`: of a kernel of several planes those of this plane."""
    cdef size t = 0, column, row, run, image, y, x_at, at = plane
    cdef View array = job.dy if of_dy else job.x
    cdef const char* begin = array.p
    while t < g.count:
        column = (g.first + t) % job.tile_columns
        row = (g.first + t) // job.tile_columns
        run = min(g.count - t, job.tile_columns - column)
        image = row // job.tile_rows     # and its phase
        y = row % job.tile_rows * job.tile * job.dilation_y + image // job.phases_x % job.phases_y
        x_at = column * job.tile * job.dilation_x + image % job.phases_x
        image //= job.phases_x * job.phases_y
        if job.deep == 1:
            at = image % job.dy.n[4]
            image //= job.dy.n[4]
        array.p = <char*>begin + at * array.s[4]
        if of_dy:
            winograd_transform_run(job.kernels, job.transforms.gradient, job.tile, job.tile, job.tile, &array,
                                   job.dy_code, FC_ZEROS, image, channel, channels, y, job.dilation_y,
                                   x_at, job.dilation_x, run, region, to, &job.d_planes, t)
        else:
            winograd_transform_run(job.kernels, job.transforms.input[0][0], job.extent, job.extent, job.tile,
                                   &array, job.x_code, job.mode, image, channel, channels, y - job.pad_y,
                                   job.dilation_y, x_at - job.pad_x, job.dilation_x, run, region, to, &job.v_planes, t)
        t += run


cdef void winograd_gradient_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const WinogradGradientJob* job = <const WinogradGradientJob*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef size block = task % job.blocks, part = task // job.blocks
    cdef size channel = block // job.panels * job.channel_block, panel = block % job.panels
    cdef size channels = min(job.channel_block, job.channels - channel)
    cdef size count = min(job.width, job.outputs - panel * job.width), width = round_up(count, kernels.lanes)
    cdef size last = (part + 1) * job.tiles // job.parts
    cdef size groups, plane, c, k, at, summed = 0, numbers = job.deep * job.m_bytes // kernels.size
    cdef bint begun = False
    cdef char* v = scratch
    cdef char* d = v + job.deep * job.v_bytes
    cdef char* m = d + job.d_bytes
    cdef char* region = m + job.deep * job.m_bytes
    cdef char* totals = region + job.region_bytes
    cdef size a_row[FC_WINOGRAD_CHANNELS]
    cdef size c_row[FC_WINOGRAD_CHANNELS]
    cdef TileGroup g
    if job.parts > 1:
        m = job.sums + task * job.deep * job.m_bytes
    for c in range(channels):
        a_row[c] = c
        c_row[c] = c * width
    g.first = part * job.tiles // job.parts
    if g.first == last or job.long_ or job.deep > 1:  # (sums of few channels or outputs leave gaps)
        memset(m, 0, job.deep * job.m_bytes)
        begun = job.deep > 1
    memset(totals, 0, job.totals_bytes)
    while g.first < last:
        groups = (last - g.first + job.group_tiles - 1) // job.group_tiles
        g.count = (last - g.first + groups - 1) // groups
        for plane in range(job.through):
            if fc_interrupted(watch):
                return
            if job.long_ and summed >= TILE_BLOCK:
                kernels.total_add(totals, m, numbers)
                begun, summed = job.deep > 1, 0
                if begun:
                    memset(m, 0, job.deep * job.m_bytes)
            winograd_gradient_tiles(job, &g, panel * job.width, count, True, plane, region, d)
            for k in range(job.deep):
                at = plane * job.stride_z + job.first_z + k
                if job.deep > 1 and not 0 <= at < job.x.n[4]:
                    continue
                # the planes under the last one of dY are there
                if plane == 0 or k + job.stride_z >= job.deep:
                    winograd_gradient_tiles(job, &g, channel, channels, False, at, region,
                                            v + (at - job.first_z) % job.deep * job.v_bytes)
                winograd_gradient_products(job, v + (at - job.first_z) % job.deep * job.v_bytes, d, m + k * job.m_bytes,
                                           a_row, c_row, channels, width, g.count, begun)
            summed += g.count
            begun = True
        g.first += g.count
    if job.long_:
        kernels.total_add(totals, m, numbers)
        kernels.total_end(m, totals, numbers)
    if job.parts == 1:
        winograd_gradient_store(job, block, m, region)


cdef void winograd_gradient_products(const WinogradGradientJob* job, const char* v, const char* d, char* m,
                                     const size* a_row, const size* c_row, size channels, size width, size tiles,
                                     bint accumulate) noexcept nogil:
    """M += V^T D, or =, of so many tiles, element by element."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size e
    cdef fc_segment segment
    cdef fc_product product
    product.step, product.ldb, product.segment, product.segments = job.ldv, job.ldd, &segment, 1
    product.bias = product.residual = NULL
    product.residual_row = NULL
    product.requantise = NULL
    product.fetch, product.partial = False, 0
    product.relu, product.ahead, product.ahead_step, product.accumulate = 0, v, 0, accumulate
    segment.a = 0
    segment.b = 0
    segment.k = tiles
    for e in range(job.elements):
        product.a, product.a_row = v + e * job.group_tiles * job.ldv * kernels.size, a_row
        product.b = d + e * job.group_tiles * job.ldd * kernels.size
        product.c, product.c_row = m + e * job.channel_block * width * kernels.size, c_row
        run_product(kernels, &product, width // kernels.lanes, channels, tiles)


cdef void winograd_gradient_store(const WinogradGradientJob* job, size block, const char* m, char* taps) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef size channel = block // job.panels * job.channel_block, panel = block % job.panels, c, tap, k
    cdef size channels = min(job.channel_block, job.channels - channel)
    cdef size count = min(job.width, job.outputs - panel * job.width), width = round_up(count, kernels.lanes)
    for k in range(job.deep):
        for c in range(channels):
            job.transforms.gradient_taps(m + k * job.m_bytes + c * width * kernels.size, job.channel_block * width,
                                         <int>(width // kernels.lanes), taps + c * width * kernels.size,
                                         job.channel_block * width)
        for tap in range(9):
            kernels.store[job.dw_code](taps + tap * job.channel_block * width * kernels.size, width, channels, count,
                                       job.dw.p + panel * job.width * job.dw.s[0] + channel * job.dw.s[1]
                                       + k * job.dw.s[4] + tap // 3 * job.dw.s[2] + tap % 3 * job.dw.s[3],
                                       job.dw.s[1], job.dw.s[0], NULL, 0, NULL, 0, 0)


cdef void winograd_gradient_reduce(void* job_, char* scratch, size block, fc_watch* watch) noexcept nogil:
    cdef const WinogradGradientJob* job = <const WinogradGradientJob*>job_
    cdef size part, bytes = job.deep * job.m_bytes
    cdef char* m = job.sums + block * bytes
    for part in range(1, job.parts):
        job.kernels.add(m, m + part * job.blocks * bytes, bytes // job.kernels.size)
    winograd_gradient_store(job, block, m, scratch)
