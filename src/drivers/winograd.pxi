# Winograd convolution F(m x m, 3x3) for tiles of m x m outputs, m = 2 or 4 (Lavin & Gray, arXiv 1509.09308):
# (m + 2)^2 multiplications in place of 9 m^2, so 16 for 36 and 36 for 144. Fused per block of tiles, so that
# transformed data never leaves the cache; E = (m + 2)^2:
#
#   for block of tiles x run of panels                      threads take these
#     V[E][tiles][channels] = transformed tiles of inputs   second-level cache
#     for panel of output channels
#       for slice of the channels                           one slice if a plan holds U
#         U[E][slice][width] = transformed weights          second-level cache
#         for each of the E elements: M += V * U            micro-kernel
#       m x m outputs = transformed M, bias, epilogue
#
# U is E / 9 times as large as the weights: where a block has tiles enough, transforming the weights again for every
# block costs less than reading U from memory.
#
# Each tile is computed alike whatever block it falls in: the bits depend neither on the threads nor on the batch. A row
# of tiles with an output that is not finite is reported, and the caller computes it directly, so that NaN and infinity
# reach exactly the outputs whose window holds them.

cdef enum:
    WINOGRAD_SLICE = 64    # channels packed at a time

cdef struct Winograd:
    const fc_kernels* kernels
    const fc_winograd* transforms
    View x, y, residual
    Weights weights
    int x_code, y_code, activation, mode
    bint has_residual
    size channels, outputs, origin_y, origin_x
    const char* transformed
    const char* bias
    char* flags
    size tile, extent, elements  # m outputs a side, m + 2 inputs, the latter squared
    size tile_rows, tile_columns, tiles, block, blocks, kc
    size panels, panels_per_task, panel_chunks, width
    size ldv, run_columns, slice
    size v_bytes, m_bytes, u_bytes, taps_bytes, region_bytes, output_bytes, scratch_bytes


cdef struct WinogradPanels:
    const fc_kernels* kernels
    char* u
    const char* w
    size channels, outputs, tile


def winograd_weights(int compute, size tile, packed, transformed, size channels, size outputs, int threads):
    """Transform weights packed for 3x3 taps, panel by panel, into U[panel][(tile + 2)^2][channels][width]."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    cdef Arrays arrays = Arrays()
    cdef View w, u
    cdef WinogradPanels job
    cdef size width = kernels.vectors * kernels.lanes, panels = (outputs + width - 1) // width
    try:
        arrays.view(packed, &w, False)
        arrays.view(transformed, &u, True)
        job.kernels, job.u, job.w, job.channels, job.outputs, job.tile = kernels, u.p, w.p, channels, outputs, tile
        run_tasks(winograd_panel, &job, NULL, 0, panels, threads)
    finally:
        arrays.release()


cdef void winograd_panel(void* panels, char* scratch, size panel, fc_watch* watch) noexcept nogil:
    cdef const WinogradPanels* job = <const WinogradPanels*>panels
    cdef size full = job.kernels.vectors * job.kernels.lanes, before = panel * full * job.channels * job.kernels.size
    cdef size width = round_up(min(full, job.outputs - panel * full), job.kernels.lanes)
    job.kernels.winograd[job.tile // 2].weights(
        job.u + before * (job.tile + 2) * (job.tile + 2), job.channels * width, width, job.w + before * 9,
        job.channels * width, job.channels)


def winograd(int compute, size tile, x, int x_code, weight, int w_code, packed, transformed, bint transposed, tuple rows,
             tuple columns, bias, y, int y_code, residual, int activation, size origin_y, size origin_x,
             int mode, flags, size block, size kc, size slice, size panels_per_task, int threads):
    """y = activation(convolution + bias + residual) for 3x3 taps at stride 1, in tiles of `tile` x `tile` outputs;
    tile (0, 0) reads x[origin_y:, origin_x:].

    The weights are `transformed`, or `packed`, or where both are None the array `weight`, as `direct` takes it; without
    `transformed` they are transformed on the way, `slice` channels at a time.

    flags (N, rows of tiles) of uint8, zeroed, receives 1 where an output is not finite.
    """
    cdef Winograd job
    cdef Arrays arrays = Arrays()
    cdef View view, array
    cdef char* scratch = NULL
    cdef size tasks
    cdef int team
    job.kernels = isa.compute[compute]
    job.transforms = &job.kernels.winograd[tile // 2]
    job.tile, job.extent, job.elements = tile, tile + 2, (tile + 2) * (tile + 2)
    job.weights.offsets = NULL
    try:
        arrays.view(x, &job.x, False)
        arrays.view(y, &job.y, True)
        arrays.view(weight, &array, False)
        view.p = NULL
        if packed is not None:
            arrays.view(packed, &view, False)
        bind_taps(&job.weights, job.kernels, &array, w_code, view.p, 1, transposed, rows, columns)
        job.transformed = NULL
        if transformed is not None:
            arrays.view(transformed, &view, False)
            job.transformed = view.p
        arrays.view(flags, &view, True)
        job.flags = view.p
        job.bias = NULL
        if bias is not None:
            arrays.view(bias, &view, False)
            job.bias = view.p
        job.has_residual = residual is not None
        if job.has_residual:
            arrays.view(residual, &job.residual, False)
        job.x_code, job.y_code, job.activation, job.mode = x_code, y_code, activation, mode
        job.channels, job.outputs, job.origin_y, job.origin_x = job.x.n[1], job.y.n[1], origin_y, origin_x
        job.block, job.kc = block, kc
        job.slice = job.channels if transformed is not None else max(1, min(slice, job.channels))
        winograd_prepare(&job, panels_per_task)
        tasks = job.blocks * job.panel_chunks
        team = <int>team_for(threads, tasks, job.scratch_bytes)
        scratch = <char*>allocate(job.scratch_bytes * team)
        run_tasks(winograd_task, &job, scratch, job.scratch_bytes, tasks, team)
    finally:
        fc_free(scratch)
        fc_free(job.weights.offsets)
        arrays.release()


cdef void winograd_prepare(Winograd* job, size panels_per_task) noexcept nogil:
    cdef const fc_kernels* kernels = job.kernels
    job.width = job.weights.width
    job.panels = job.weights.panels
    job.panels_per_task = max(1, min(panels_per_task, job.panels))
    job.panel_chunks = (job.panels + job.panels_per_task - 1) // job.panels_per_task
    job.tile_rows = (job.y.n[2] + job.tile - 1) // job.tile
    job.tile_columns = (job.y.n[3] + job.tile - 1) // job.tile
    job.tiles = job.y.n[0] * job.tile_rows * job.tile_columns
    job.blocks = (job.tiles + job.block - 1) // job.block
    job.ldv = round_up(job.channels, kernels.lanes) + kernels.lanes
    job.run_columns = job.tile * min(job.block, job.tile_columns) + 2
    job.v_bytes = round_up(job.elements * job.block * job.ldv * kernels.size, 64)
    job.m_bytes = round_up(job.elements * job.block * job.width * kernels.size, 64)
    job.region_bytes = round_up(job.extent * job.run_columns * min(WINOGRAD_SLICE, round_up(job.channels, kernels.lanes))
                                * kernels.size, 64)
    job.output_bytes = round_up(job.tile * job.tile * min(job.block, job.tile_columns) * job.width * kernels.size, 64)
    job.u_bytes = job.taps_bytes = 0
    if job.transformed == NULL:
        job.u_bytes = round_up(job.elements * (job.slice * job.width + kernels.lanes) * kernels.size, 64)
        job.taps_bytes = round_up(9 * job.slice * job.width * kernels.size, 64)
    job.scratch_bytes = (job.v_bytes + job.m_bytes + job.u_bytes + job.taps_bytes + job.region_bytes + job.output_bytes
                         + round_up(2 * job.block * sizeof(size), 64))


cdef void winograd_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Winograd* job = <const Winograd*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef size chunk = task // job.blocks, first = task % job.blocks * job.block
    cdef size count = min(job.block, job.tiles - first)
    cdef char* v = scratch
    cdef char* m = v + job.v_bytes
    cdef char* scratch_u = m + job.m_bytes
    cdef char* taps = scratch_u + job.u_bytes
    cdef char* region = taps + job.taps_bytes
    cdef char* output = region + job.region_bytes
    cdef size* v_row = <size*>(output + job.output_bytes)
    cdef size* m_row = v_row + job.block
    cdef size t, run, row, panel, width, vectors, e, k0, plane_v, plane_m, plane_u, c, n
    cdef const char* u
    cdef Ends ends = Ends(NULL, NULL, NULL, False)  # the transform back comes between
    cdef fc_segment segment
    for t in range(count):
        v_row[t] = t * job.ldv
    plane_v = job.block * job.ldv * kernels.size
    t = 0
    while t < count:                       # runs of neighbouring tiles
        run = min(count - t, job.tile_columns - (first + t) % job.tile_columns)
        row = (first + t) // job.tile_columns
        winograd_transform_run(kernels, job.transforms.input, job.extent, job.tile, &job.x, job.x_code, job.mode,
                               row // job.tile_rows, 0, job.channels, row % job.tile_rows * job.tile + job.origin_y, 1,
                               (first + t) % job.tile_columns * job.tile + job.origin_x, 1, run, region,
                               v + t * job.ldv * kernels.size, job.ldv, job.block * job.ldv)
        t += run
    for panel in range(chunk * job.panels_per_task, min((chunk + 1) * job.panels_per_task, job.panels)):
        width = round_up(min(job.width, job.outputs - panel * job.width), kernels.lanes)
        vectors = width // kernels.lanes
        plane_m = job.block * width * kernels.size
        for t in range(count):
            m_row[t] = t * width
        c = 0
        while c < job.channels:
            if fc_interrupted(watch):
                return
            n = min(job.slice, job.channels - c)
            if job.transformed != NULL:
                u = job.transformed + panel * job.width * job.elements * job.channels * kernels.size
                plane_u = job.channels * width
            else:
                u = scratch_u
                plane_u = n * width + kernels.lanes   # planes a power of two apart would share cache sets
                winograd_slice(job, panel, width, c, n, taps, scratch_u, plane_u)
            for e in range(job.elements):
                k0 = 0
                while k0 < n:
                    segment.a = c + k0
                    segment.b = k0
                    segment.k = min(job.kc, n - k0)
                    direct_block(kernels, v + e * plane_v, v_row, u + e * plane_u * kernels.size, vectors, width,
                                 &segment, 1, count, m + e * plane_m, m_row, &ends, c + k0 == 0, False)
                    k0 += job.kc
            c += n
        t = 0
        while t < count:
            run = min(count - t, job.tile_columns - (first + t) % job.tile_columns)
            winograd_output_run(job, first + t, run, panel, vectors, m + t * width * kernels.size,
                                job.block * width, output)
            t += run


cdef void winograd_slice(const Winograd* job, size panel, size width, size channel, size channels, char* taps, char* u,
                         size plane) noexcept nogil:
    """u[e * plane:] = the transformed weights of some channels of a panel."""
    cdef const char* w = taps
    cdef size tap_stride = channels * width
    if job.weights.packed != NULL:
        w = packed_panel(&job.weights, 0, panel) + channel * width * job.kernels.size
        tap_stride = job.channels * width
    else:
        pack_panel(&job.weights, 0, panel, channel, channels, taps)
    job.transforms.weights(u, plane, width, w, tap_stride, channels)


cdef void winograd_transform_run(const fc_kernels* kernels, fc_winograd_input transform, size extent, size tile,
                                 const View* x, int code, int mode, size image, size channel, size channels, size y,
                                 size row_step, size left, size column_step, size run, char* region, char* v, size ldv,
                                 size plane) noexcept nogil:
    """Transform `run` tiles side by side, extent x extent pixels each and `tile` apart, of every row_step-th row and
    column_step-th column, reading the array as it lies where that is possible; tile t goes to row t of every plane of
    v."""
    cdef size first = 0, last = run, reach = (extent - 1) * column_step, step = tile * column_step, t
    cdef const char* at
    # tiles first..last-1 lie inside the array
    if (code != FLOAT16 and x.s[1] == kernels.size and y >= 0 and y + (extent - 1) * row_step < x.n[2]
            and channels % kernels.lanes == 0 and x.s[0] % kernels.size == 0 and x.s[2] % kernels.size == 0
            and x.s[3] % kernels.size == 0 and <size>x.p % kernels.size == 0):
        if left < 0:
            first = min(run, (step - 1 - left) // step)
        last = first if left + reach >= x.n[3] else max(first, min(run, (x.n[3] - 1 - reach - left) // step + 1))
    else:
        last = 0
    if first > 0:
        winograd_pack_run(kernels, transform, extent, tile, x, code, mode, image, channel, channels, y, row_step, left,
                          column_step, first if last > first else run, region, v, ldv, plane)
        if last <= first:
            return
    at = x.p + image * x.s[0] + channel * x.s[1] + y * x.s[2] + left * x.s[3]
    for t in range(first, last):
        transform(at + t * step * x.s[3], x.s[2] // kernels.size * row_step, x.s[3] // kernels.size * column_step,
                  channels, v + t * ldv * kernels.size, plane)
    if last < run:
        winograd_pack_run(kernels, transform, extent, tile, x, code, mode, image, channel, channels, y, row_step,
                          left + step * last, column_step, run - last, region, v + last * ldv * kernels.size, ldv,
                          plane)


cdef void winograd_pack_run(const fc_kernels* kernels, fc_winograd_input transform, size extent, size tile,
                            const View* x, int code, int mode, size image, size channel, size channels, size y,
                            size row_step, size left, size column_step, size run, char* region, char* v, size ldv,
                            size plane) noexcept nogil:
    """The tiles that reach over a border, or an array that no vector can be loaded from: by way of a packed region."""
    cdef size columns = tile * (run - 1) + extent, c = 0, n, padded, t
    while c < channels:
        n = min(WINOGRAD_SLICE, channels - c)
        padded = round_up(n, kernels.lanes)
        if padded != n:
            memset(region, 0, extent * columns * padded * kernels.size)
        pack_region(kernels, code, x, image, channel + c, n, y, row_step, extent, left, column_step, columns, columns,
                    mode, padded, region)
        for t in range(run):
            transform(region + tile * t * padded * kernels.size, columns * padded, padded, padded,
                      v + (t * ldv + c) * kernels.size, plane)
        c += n


cdef void winograd_output_run(const Winograd* job, size tile, size run, size panel, size vectors, const char* m,
                              size plane, char* output) noexcept nogil:
    """Transform back `run` neighbouring tiles of one panel and store them."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size column = tile % job.tile_columns, row = tile // job.tile_columns % job.tile_rows
    cdef size image = tile // job.tile_columns // job.tile_rows, width = vectors * kernels.lanes
    cdef size tile_side = job.tile, y = row * tile_side, x = column * tile_side
    cdef size rows = min(tile_side, job.y.n[2] - y), columns = min(tile_side * run, job.y.n[3] - x)
    cdef size first = panel * job.width, count = min(job.width, job.outputs - first), t, r, row_step, column_step
    cdef const char* bias = NULL
    cdef const char* residual = NULL
    cdef char* to = job.y.p + image * job.y.s[0] + first * job.y.s[1] + y * job.y.s[2] + x * job.y.s[3]
    cdef char* c = output
    cdef int finite = 1
    cdef bint in_output = (width == count and job.y.s[1] == kernels.size and not job.has_residual
                           and job.y_code != FLOAT16 and job.y.s[2] % kernels.size == 0
                           and job.y.s[3] % kernels.size == 0 and <size>to % kernels.size == 0)
    if in_output:
        c, row_step, column_step = to, job.y.s[2] // kernels.size, job.y.s[3] // kernels.size
    else:
        row_step, column_step = columns * width, width
    if job.bias != NULL:
        bias = job.bias + first * kernels.size
    for t in range(run):
        finite &= job.transforms.output(m + t * width * kernels.size, plane, <int>vectors,
                                        c + tile_side * t * column_step * kernels.size, row_step, column_step, rows,
                                        min(tile_side, columns - tile_side * t), bias,
                                        in_output and job.activation == RELU)
    if not finite:
        fc_raise_flag(job.flags + image * job.tile_rows + row)
    if in_output and (job.activation == LINEAR or job.activation == RELU):
        return
    for r in range(rows):
        if job.has_residual:
            residual = (job.residual.p + image * job.residual.s[0] + first * job.residual.s[1]
                        + (y + r) * job.residual.s[2] + x * job.residual.s[3])
        kernels.store[job.y_code](c + r * row_step * kernels.size, column_step, columns, count, to + r * job.y.s[2],
                                  job.y.s[3], job.y.s[1], NULL, job.activation, residual,
                                  job.residual.s[3] if job.has_residual else 0,
                                  job.residual.s[1] if job.has_residual else 0)
