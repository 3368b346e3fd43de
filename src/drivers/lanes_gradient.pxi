# The weight gradient of depthwise and small-group convolution, a lane an output channel as in lanes.pxi:
# dW[tap, channel of the group, lane] = sum over images and output pixels of dY[lane] * X[pixel's tap, channel, lane].
#
#   for part of the pixels x chunk of output channels            threads take these
#     for tile of output pixels of that part
#       chunk of whole vectors, channels side by side: read X and dY in place, else pack them
#       for rectangle of output pixels that meet the same taps
#         for taps, as many as registers hold sums               micro-kernel: the sum runs over the pixels
#   for chunk: add the parts in order, store
#
# The parts depend on shapes alone: the bits do not depend on threads. A part of many pixels is summed in blocks of tiles
# (drivers/totals.pxi).

cdef enum:
    GRADIENT_ROWS = 4      # pixels added to the sums of one chunk at a time: neighbouring chunks find their lines of
    STORE_TOGETHER_BYTES = 1 << 17  # fewer sums are not worth sharing out
    GRADIENT_COLUMNS = 28  # X and dY in the cache


cdef struct LanesGradientJob:
    LanesJob pass_   # its output is dY
    View dw
    int dw_code
    bint long_        # the sums of a part are made in blocks
    size parts, sums_bytes, totals
    char* sums


cdef class LanesGradient(Program):
    """The weight gradient of groups of few channels, with a lane for every output channel.

    `codes.weight` is the type of dY, `codes.result` that of dW; `extent` has `groups`, `channels`, `outputs`, `size`,
    `input_size` and `mode`, `p` is the pass of the convolution, and `blocking` has `tile` and `parts`.
    """
    cdef LanesGradientJob job

    def __init__(self, codes, extent, p, blocking):
        cdef LanesGradientJob* job = &self.job
        cdef LanesJob* pass_ = &job.pass_
        self.compute_with(codes)
        job.dw_code, job.parts = self.result, blocking.parts
        pass_.kernels = self.kernels
        pass_.x_code, pass_.y_code = self.input, self.weight
        read_phase(&pass_.phase, p, extent)
        lanes_numbers(pass_, extent, p, blocking.tile)
        pass_.may_lie = not pass_.picked
        lanes_prepare(pass_, NEIGHBOUR_BYTES // (self.kernels.lane_vectors * self.kernels.lanes * self.kernels.size))
        job.sums_bytes = round_up(pass_.taps_y * pass_.taps_x * pass_.channels * pass_.width * pass_.kernels.size, 64)

    def __dealloc__(self):
        fc_free(<void*>self.job.pass_.tap_y)
        fc_free(self.job.pass_.runs_y)

    def run(self, x, dy, dw, int threads):
        """Write dW, shaped (O, C/groups, kH, kW) with any strides, from x (N, C, H, W) and dY (N, O, OH, OW), or from as
        many planes of each."""
        cdef LanesGradientJob job = self.job
        cdef LanesJob* pass_ = &job.pass_
        cdef Arrays arrays = Arrays()
        cdef char* scratch = NULL
        cdef size tasks, rows, macs, sums_bytes = job.sums_bytes * pass_.chunks * job.parts
        job.sums = NULL
        try:
            arrays.view(x, &pass_.x, False)
            arrays.view(dy, &pass_.y, False)
            arrays.view(dw, &job.dw, True)
            lanes_arrays(pass_)
            pass_.scratch_bytes += round_up(pass_.tile_y * sizeof(fc_segment), 64)  # a segment a row here
            job.totals = pass_.scratch_bytes  # where they begin in a thread's scratch: twice its chunks' sums
            rows = pass_.y.n[0] * pass_.y.n[4] * pass_.y.n[2]
            job.long_ = is_long(pass_.kernels, (rows + job.parts - 1) // job.parts * pass_.y.n[3] + job.parts)
            if job.long_:
                pass_.scratch_bytes += 2 * job.sums_bytes * pass_.chunks_per_task
            tasks = pass_.chunk_groups * job.parts
            macs = rows * pass_.y.n[1] * pass_.y.n[3] * pass_.channels * pass_.taps_y * pass_.taps_x
            if 4 * macs < PARALLEL_FROM_MACS:
                threads = 1
            threads = <int>team_for(threads, tasks, pass_.scratch_bytes, sums_bytes)
            scratch = <char*>allocate(pass_.scratch_bytes * threads)
            job.sums = <char*>allocate(sums_bytes)
            run_tasks(lanes_gradient_task, &job, scratch, pass_.scratch_bytes, tasks, threads)
            if sums_bytes < STORE_TOGETHER_BYTES:
                threads = 1
            run_tasks(lanes_gradient_store, &job, NULL, 0, pass_.chunks, threads)
        finally:
            fc_free(scratch)
            fc_free(job.sums)
            arrays.release()


cdef void lanes_gradient_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """The sums of one part of the pixels for a few neighbouring chunks."""
    cdef LanesGradientJob own = (<const LanesGradientJob*>job_)[0]  # of one plane after the other
    cdef const LanesGradientJob* job = &own
    cdef LanesJob* p = &own.pass_
    cdef View x = p.x, dy = p.y
    cdef size group = task % p.chunk_groups * p.chunks_per_task, part = task // p.chunk_groups
    cdef size chunk, last_chunk = min(group + p.chunks_per_task, p.chunks)
    cdef size lines = p.y.n[0] * p.y.n[4] * p.y.n[2], row = part * lines // job.parts
    cdef size last = (part + 1) * lines // job.parts
    cdef size image, oy, ox, rows, columns, summed = 0, bytes = (last_chunk - group) * job.sums_bytes
    cdef bint in_place = p.in_place and last_chunk * p.width <= p.total and gradient_in_place(p)
    cdef char* sums = job.sums + (part * p.chunks + group) * job.sums_bytes
    cdef char* totals = scratch + job.totals
    memset(sums, 0, bytes)
    if job.long_:
        memset(totals, 0, 2 * bytes)
    while row < last and not fc_interrupted(watch):
        image, oy = row // p.y.n[2], row % p.y.n[2]
        p.x.p, p.y.p = x.p + image % dy.n[4] * x.s[4], dy.p + image % dy.n[4] * dy.s[4]
        image //= dy.n[4]
        rows = min(min(p.tile_y, p.y.n[2] - oy), last - row)
        ox = 0
        while ox < p.y.n[3]:
            columns = min(p.tile_x, p.y.n[3] - ox)
            if job.long_:
                if summed > 0 and summed + rows * columns > PIXEL_BLOCK:
                    p.kernels.total_add(totals, sums, bytes // p.kernels.size)
                    memset(sums, 0, bytes)
                    summed = 0
                summed += rows * columns
            # in both orders a chunk meets its pixels in the same blocks, so that its bits agree
            if in_place:
                gradient_blocks(job, scratch, part, group, last_chunk, image, oy, ox, rows, columns)
            else:
                for chunk in range(group, last_chunk):
                    gradient_blocks(job, scratch, part, chunk, chunk + 1, image, oy, ox, rows, columns)
            ox += columns
        row += rows
    if job.long_:
        p.kernels.total_add(totals, sums, bytes // p.kernels.size)
        p.kernels.total_end(sums, totals, bytes // p.kernels.size)


cdef bint gradient_in_place(const LanesJob* job) noexcept nogil:
    """Whether dY is read as it lies: channels side by side, rows a whole number of pixels apart."""
    return (job.may_lie and lies_in_vectors(job.kernels, &job.y, job.y_code == job.kernels.input)
            and job.y.s[3] > 0
            and job.y.s[2] % job.y.s[3] == 0)


cdef void gradient_blocks(const LanesGradientJob* job, char* scratch, size part, size chunk, size last, size image,
                          size oy, size ox, size rows, size columns) noexcept nogil:
    """All pixels of one tile for the chunks from `chunk` to `last` - 1."""
    cdef size r = oy, x, each
    while r < oy + rows:
        x = ox
        while x < ox + columns:
            for each in range(chunk, last):
                gradient_block(job, scratch, part, each, image, oy, ox, rows, columns, r, x)
            x += GRADIENT_COLUMNS
        r += GRADIENT_ROWS


cdef void gradient_block(const LanesGradientJob* job, char* scratch, size part, size chunk, size image, size oy,
                         size ox, size rows, size columns, size r, size x) noexcept nogil:
    """Adds a block of pixels of a tile, from row r and column x on; the first of a tile packs what must be packed."""
    cdef const LanesJob* p = &job.pass_
    cdef const fc_kernels* kernels = p.kernels
    cdef size first = chunk * p.width, count = min(p.width, p.total - first)
    cdef size width = round_up(count, kernels.lanes), i
    cdef char* gradient = scratch + p.region_bytes + p.row_bytes
    cdef fc_segment* segments = <fc_segment*>(gradient + round_up(p.tile_y * p.tile_x * p.width * kernels.size, 64))
    cdef const char* dy = p.y.p + image * p.y.s[0] + first * p.y.s[1]
    cdef bint begins = r == oy and x == ox
    cdef LanesAt at
    at.c = job.sums + (part * p.chunks + chunk) * job.sums_bytes
    lanes_in(p, scratch, image, first, count, oy, ox, rows, columns, begins, &at)
    at.c_x = width
    if count == width and gradient_in_place(p):
        at.b = dy
        at.ldb = p.y.s[3] // kernels.size
        at.c_y = p.y.s[2] // p.y.s[3]
    else:
        for i in range(rows if begins else 0):
            kernels.pack[p.y_code](gradient + i * columns * width * kernels.size, width, columns, count,
                                   dy + (oy + i) * p.y.s[2] + ox * p.y.s[3], p.y.s[3], p.y.s[1])
        at.ldb = width
        at.c_y = columns
        at.b = gradient - (oy * columns + ox) * width * kernels.size
    lanes_gradient_rows(p, &at, segments, r, min(r + GRADIENT_ROWS, oy + rows), x,
                            min(x + GRADIENT_COLUMNS, ox + columns))


cdef void lanes_gradient_rows(const LanesJob* job, const LanesAt* at, fc_segment* segments, size y0, size y1,
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
            lanes_gradient_rectangle(job, at, segments, end_y - y, run_y, run_x)
            x = end_x
        y = end_y


cdef void lanes_gradient_rectangle(const LanesJob* job, const LanesAt* at, fc_segment* segments, size rows,
                                       const Run* run_y, const Run* run_x) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    cdef size i, j, c, v, at_v, n, rows_of_taps, taps = run_x.hi - run_x.lo
    cdef size x_row[12]
    cdef size sums_row[12]
    cdef const fc_lane_kernels* by_lane = &kernels.by_lane[job.picked]
    cdef const fc_window_gradient* window = NULL
    if job.step_x == 1 and taps <= FC_MAX_WINDOW and job.stride_x <= 2:
        window = <const fc_window_gradient*>by_lane.window_gradient[taps][job.stride_x]
    if window != NULL and window[1] != NULL:
        i = run_y.lo
        while i < run_y.hi:
            rows_of_taps = 0
            while rows_of_taps < 3 and i + rows_of_taps < run_y.hi and window[rows_of_taps + 1] != NULL:
                rows_of_taps += 1
            for c in range(job.channels):
                segments[0].pick = job.picks + c * kernels.lanes * kernels.size
                for n in range(rows_of_taps):
                    x_row[n] = job.tap_y[i + n] * at.a_y + job.tap_x[run_x.lo] * at.a_x + channel_offset(job, at, c)
                    sums_row[n] = (((i + n) * job.taps_x + run_x.lo) * job.channels + c) * at.c_x
                for v in range(at.vectors):
                    at_v = v * kernels.lanes * kernels.size
                    window[rows_of_taps](at.a + v * job.next * kernels.size, x_row, at.a_x, at.b + at_v, at.ldb, segments,
                                         rows, at.c + at_v, sums_row, job.channels * at.c_x)
            i += rows_of_taps
        return
    n = 0
    for c in range(job.channels):
        for n in range(rows if job.picked else 0):
            segments[n].pick = job.picks + c * kernels.lanes * kernels.size
        n = 0
        for i in range(run_y.lo, run_y.hi):
            for j in range(run_x.lo, run_x.hi):
                x_row[n] = job.tap_y[i] * at.a_y + job.tap_x[j] * at.a_x + channel_offset(job, at, c)
                sums_row[n] = ((i * job.taps_x + j) * job.channels + c) * at.c_x
                n += 1
                if n == FC_MAX_ROWS or (i == run_y.hi - 1 and j == run_x.hi - 1):
                    by_lane.lane[at.vectors][n](at.a, x_row, job.stride_x * at.a_x, job.next, at.b, at.ldb, segments,
                                                rows, at.c, sums_row, 1, NULL, 0)
                    n = 0


cdef void lanes_gradient_store(void* job_, char* scratch, size chunk, fc_watch* watch) noexcept nogil:
    cdef const LanesGradientJob* job = <const LanesGradientJob*>job_
    cdef const LanesJob* p = &job.pass_
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
