# The weight gradient of depthwise and small-group convolution, a lane an output channel as in depthwise.pxi:
# dW[tap, channel of the group, lane] = sum over images and output pixels of dY[lane] * X[pixel's tap, channel, lane].
#
#   for part of the pixels x chunk of output channels            threads take these
#     for tile of output pixels of that part
#       chunk of whole vectors, channels side by side: read X and dY in place, else pack them
#       for rectangle of output pixels that meet the same taps
#         for taps, as many as registers hold sums               micro-kernel: the sum runs over the pixels
#   for chunk: add the parts in order, store
#
# The parts depend on shapes alone: the bits do not depend on threads.

cdef struct DepthwiseGradient:
    Depthwise pass_   # its output is dY
    View dw
    int dw_code
    size parts, sums_bytes
    char* sums


def depthwise_weight_gradient(int compute, x, int x_code, dy, int dy_code, dw, int dw_code, size groups, tuple tap_y,
                              tuple tap_x, size stride_y, size stride_x, int mode, size tile_y, size tile_x,
                              size parts, int threads):
    """Write dW, shaped (O, C/groups, kH, kW) with any strides, from x (N, C, H, W) and dy (N, O, OH, OW)."""
    cdef DepthwiseGradient job
    cdef Arrays arrays = Arrays()
    cdef char* scratch = NULL
    cdef size task, tasks, team
    job.pass_.kernels = isa.compute[compute]
    job.pass_.runs_y = NULL
    job.pass_.tap_y = NULL
    job.sums = NULL
    try:
        arrays.view(x, &job.pass_.x, False)
        arrays.view(dy, &job.pass_.y, False)
        arrays.view(dw, &job.dw, True)
        job.dw_code, job.parts = dw_code, parts
        job.pass_.x_code, job.pass_.y_code, job.pass_.mode = x_code, dy_code, mode
        job.pass_.total = job.dw.n[0]
        job.pass_.channels, job.pass_.outputs = job.dw.n[1], job.dw.n[0] // groups
        job.pass_.stride_y, job.pass_.stride_x = stride_y, stride_x
        job.pass_.tile_y, job.pass_.tile_x = tile_y, tile_x
        tap_offsets(&job.pass_, tap_y, tap_x)
        depthwise_prepare(&job.pass_, 1)
        job.sums_bytes = round_up(job.pass_.taps_y * job.pass_.taps_x * job.pass_.channels * job.pass_.width
                                  * job.pass_.kernels.size, 64)
        # a segment a row here
        job.pass_.scratch_bytes += round_up(tile_y * sizeof(fc_segment), 64)
        tasks = job.pass_.chunks * parts
        team = max(1, min(threads, tasks))
        scratch = <char*>allocate(job.pass_.scratch_bytes * team)
        job.sums = <char*>allocate(job.sums_bytes * tasks)
        with nogil:
            if team == 1:
                for task in range(tasks):
                    depthwise_gradient_task(&job, scratch, task)
            else:
                for task in prange(tasks, schedule='static', num_threads=team):
                    depthwise_gradient_task(&job, scratch + threadid() * job.pass_.scratch_bytes, task)
            for task in range(job.pass_.chunks):
                depthwise_gradient_store(&job, task)
    finally:
        free(scratch)
        free(<void*>job.pass_.tap_y)
        free(job.pass_.runs_y)
        free(job.sums)
        arrays.release()


cdef void depthwise_gradient_task(const DepthwiseGradient* job, char* scratch, size task) noexcept nogil:
    cdef const Depthwise* p = &job.pass_
    cdef const fc_kernels* kernels = p.kernels
    cdef size first = task % p.chunks * p.width, count = min(p.width, p.total - first)
    cdef size part = task // p.chunks, tiles = p.y.n[0] * p.tiles_y * p.tiles_x
    cdef size tile, last = (part + 1) * tiles // job.parts
    cdef size image, oy, ox, rows, columns, r, width
    cdef char* gradient = scratch + p.region_bytes + p.row_bytes
    cdef char* sums = job.sums + task * job.sums_bytes
    cdef fc_segment* segments = <fc_segment*>(gradient + round_up(p.tile_y * p.tile_x * p.width * kernels.size, 64))
    cdef const char* dy
    cdef Lanes at
    memset(sums, 0, job.sums_bytes)
    at.c = sums
    for tile in range(part * tiles // job.parts, last):
        ox = tile % p.tiles_x * p.tile_x
        oy = tile // p.tiles_x % p.tiles_y * p.tile_y
        image = tile // p.tiles_x // p.tiles_y
        rows = min(p.tile_y, p.y.n[2] - oy)
        columns = min(p.tile_x, p.y.n[3] - ox)
        lanes_in(p, scratch, image, first, count, oy, ox, rows, columns, &at)
        width = at.vectors * kernels.lanes
        dy = p.y.p + image * p.y.s[0] + first * p.y.s[1]
        if (count == width and lies_in_vectors(kernels, &p.y, computes_in(p.y_code, kernels)) and p.y.s[3] > 0
                and p.y.s[2] % p.y.s[3] == 0):
            at.b = dy
            at.ldb = p.y.s[3] // kernels.size
            at.c_y = p.y.s[2] // p.y.s[3]
        else:
            for r in range(rows):
                kernels.pack[p.y_code](gradient + r * columns * width * kernels.size, width, columns, count,
                                       dy + (oy + r) * p.y.s[2] + ox * p.y.s[3], p.y.s[3], p.y.s[1])
            at.ldb = width
            at.c_y = columns
            at.b = gradient - (oy * columns + ox) * width * kernels.size
        at.c_x = width
        depthwise_gradient_rows(p, &at, segments, oy, oy + rows, ox, ox + columns)


cdef void depthwise_gradient_rows(const Depthwise* job, const Lanes* at, fc_segment* segments, size y0, size y1,
                                  size x0, size x1) noexcept nogil:
    """Adds the pixels of rows y0..y1-1 and columns x0..x1-1 to the sums at.c, rectangle by rectangle.

    Here at.b, at.ldb is dY, whose rows lie at.c_y pixels apart; sums of taps and channels lie at.c_x apart.
    """
    cdef const Run* run_y = job.runs_y
    cdef const Run* run_x
    cdef size y, x, end_y, end_x, row
    y = y0
    while y < y1:
        while run_y.end <= y:
            run_y += 1
        end_y = min(y1, run_y.end)
        run_x = job.runs_x
        x = x0
        while x < x1:
            while run_x.end <= x:
                run_x += 1
            end_x = min(x1, run_x.end)
            for row in range(y, end_y):
                segments[row - y].a = row * job.stride_y * at.a_y + x * job.stride_x * at.a_x
                segments[row - y].b = row * at.c_y + x
                segments[row - y].k = end_x - x
            depthwise_gradient_rectangle(job, at, segments, end_y - y, run_y, run_x)
            x = end_x
        y = end_y


cdef void depthwise_gradient_rectangle(const Depthwise* job, const Lanes* at, const fc_segment* segments, size rows,
                                       const Run* run_y, const Run* run_x) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef size i, j, c, v, n, taps = run_x.hi - run_x.lo
    cdef size x_row[12]
    cdef size sums_row[12]
    cdef fc_window_gradient* window = NULL
    if at.k == 1 and job.step_x == 1 and taps <= FC_MAX_WINDOW and job.stride_x <= 2:
        window = <fc_window_gradient*>kernels.window_gradient[taps][job.stride_x]
    if window != NULL and window[1] != NULL:
        i = run_y.lo
        while i < run_y.hi:
            n = 0
            while n < 3 and i + n < run_y.hi and window[n + 1] != NULL:
                x_row[n] = job.tap_y[i + n] * at.a_y + job.tap_x[run_x.lo] * at.a_x
                sums_row[n] = ((i + n) * job.taps_x + run_x.lo) * at.c_x
                n += 1
            for v in range(at.vectors):
                window[n](at.a + v * kernels.lanes * kernels.size, x_row, at.a_x,
                          at.b + v * kernels.lanes * kernels.size, at.ldb, segments, rows,
                          at.c + v * kernels.lanes * kernels.size, sums_row, at.c_x)
            i += n
        return
    n = 0
    for i in range(run_y.lo, run_y.hi):
        for j in range(run_x.lo, run_x.hi):
            for c in range(at.k):
                x_row[n] = job.tap_y[i] * at.a_y + job.tap_x[j] * at.a_x + c * at.c_x
                sums_row[n] = ((i * job.taps_x + j) * at.k + c) * at.c_x
                n += 1
                if n == FC_MAX_ROWS:
                    kernels.lane[at.vectors][n](at.a, x_row, job.stride_x * at.a_x, at.b, at.ldb, segments, rows,
                                                at.c, sums_row, 1)
                    n = 0
    if n > 0:
        kernels.lane[at.vectors][n](at.a, x_row, job.stride_x * at.a_x, at.b, at.ldb, segments, rows, at.c, sums_row,
                                    1)


cdef void depthwise_gradient_store(const DepthwiseGradient* job, size chunk) noexcept nogil:
    cdef const Depthwise* p = &job.pass_
    cdef const fc_kernels* kernels = p.kernels
    cdef size first = chunk * p.width, count = min(p.width, p.total - first), part, i, j
    cdef size width = round_up(count, kernels.lanes)
    cdef char* sums = job.sums + chunk * job.sums_bytes
    for part in range(1, job.parts):
        kernels.add(sums, sums + part * p.chunks * job.sums_bytes, job.sums_bytes // kernels.size)
    for i in range(p.taps_y):
        for j in range(p.taps_x):
            kernels.store[job.dw_code](sums + (i * p.taps_x + j) * p.channels * width * kernels.size, width, p.channels,
                                       count, job.dw.p + first * job.dw.s[0] + i * job.dw.s[2] + j * job.dw.s[3],
                                       job.dw.s[1], job.dw.s[0], NULL, 0, NULL, 0, 0)
