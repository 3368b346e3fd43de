# Depthwise convolution of arrays whose channels lie side by side, read and written in place, patch by patch of outputs.
#
#   for rows of one image                                          threads take these
#     for row of patches
#       for patch, for vector of channels: all taps               micro-kernel, registers
#     activation
#
# Both arrays are walked in the order of their memory, so that the processor reads ahead, and rows are a thread's own:
# with channels shared out instead, one thread reads ahead what another writes (a second thread gained nothing, Zen 5).
# A patch loads an input vector once for all outputs that meet it. Taps over padded zeros are skipped. Every output is
# one sum in the order (tap y, tap x), as in drivers/lanes.pxi, which takes all other arrays.
# Where pixels lie a multiple of PACKED_PITCH bytes apart, those of a channel share few lines of the first-level cache:
# so the input of a small image is copied together, a panel of channels after the other.

cdef enum:
    PANELWISE_BELOW = 400          # pixels of an image: one panel of channels after the other
    PACKED_PITCH = 2048            # bytes: the pixels of a channel fall into two of the 64 sets, or one
    PACKED_BYTES = 32 << 10        # copied together at a time: it stays in the first level
    PATCHES_PARALLEL_FROM = 1 << 19  # multiply-adds and bytes of both arrays: 4 microseconds; a team costs 1 to 3


cdef struct PatchPass:
    const fc_patch* patch
    char* y
    size y_y, y_x                  # bytes between rows and columns
    size rows, columns
    size taps_y, min_y, min_x
    size tap                       # where they begin among the packed ones


cdef struct PatchJob:
    const fc_kernels* kernels
    const char* x
    size x_n, x_y, x_x, y_n        # bytes between images, rows, columns
    size height, width, images     # of the input
    size total, vectors            # channels; whole vectors of them
    size stride, taps, tap_columns # taps packed, of a row of them
    const char* packed
    const char* bias
    const char* tail               # weights of the last vector of channels where others end before it, else NULL
    size row_blocks                # tasks of an image
    size together                  # vectors of channels done together
    size count
    int x_code, y_code, activation
    bint packs
    PatchPass passes[MOST_PASSES]


cdef void patches_begin(Patches* own, const LanesJob* job, size rows, size columns) noexcept nogil:
    """No passes yet, of those with strides as `job` has; rows x columns of taps are packed."""
    own.kernels, own.stride_y, own.stride = job.kernels, job.stride_y, job.stride_x
    own.rows, own.columns, own.count = rows, columns, 0


cdef bint patches_add(Patches* own, const LanesJob* job) noexcept nogil:
    """Add a pass; whether there are kernels for it."""
    cdef PatchTaps* p = &own.passes[own.count]
    if own.count == MOST_PASSES or own.stride_y != own.stride or own.stride > 2:
        return False
    p.taps_y, p.taps_x, p.min_y, p.min_x = job.taps_y, job.taps_x, job.tap_y[0], job.tap_x[0]
    p.phase, p.tap = job.phase, job.first_row * own.columns + job.first_column
    own.count += 1
    return (job.tap_y[p.taps_y - 1] - p.min_y < p.taps_y and job.tap_x[p.taps_x - 1] - p.min_x < p.taps_x
            and max(p.taps_y, p.taps_x) <= FC_MAX_WINDOW and -p.min_x < p.taps_x
            and own.kernels.patch[p.taps_y][p.taps_x][own.stride][0].columns > 0)


cdef patches_blocking(const Patches* own, const LanesJob* first, size images, int threads):
    """As `Lanes.patches` says; None where the arrays are too small."""
    cdef PatchJob job
    cdef size scratch_bytes, i
    job.kernels, job.images, job.total, job.stride = own.kernels, images, first.total, own.stride
    job.height, job.width = first.x.n[2], first.x.n[3]
    job.x_x = job.total * own.kernels.size
    job.passes[0].rows, job.passes[0].columns = first.phase.size_y, first.phase.size_x
    job.passes[0].patch = patch_for(own.kernels, &own.passes[0], own.stride, job.passes[0].columns, job.width)
    if job.total < own.kernels.lanes or job.passes[0].patch == NULL or images * job.passes[0].rows == 0:
        return None
    i = job.passes[0].rows * job.passes[0].columns  # outputs of a channel
    threads = patch_team(&job, i * own.rows * own.columns, i, threads)
    scratch_bytes = patch_blocks(&job, threads)
    threads = <int>team_for(threads, images * job.row_blocks, scratch_bytes)
    scratch_bytes *= threads
    if job.total % own.kernels.lanes != 0:
        scratch_bytes += own.rows * own.columns * own.kernels.lanes * own.kernels.size
    return (job.passes[0].patch.rows, job.passes[0].patch.columns, images * job.row_blocks, threads, scratch_bytes,
            bool(job.packs))


cdef bint patches_bind(const Patches* own, Program program, const Operands* o, const char* packed, int threads,
                       Work work) except -1:
    """As `Lanes.bind` without a residual; False, and nothing is done, where the arrays do not lie as needed."""
    cdef Operands phase
    cdef PatchJob* job
    cdef PatchPass* p
    cdef const fc_kernels* kernels = own.kernels
    cdef size i, macs = 0
    if (o.x.n[1] < kernels.lanes or o.x.n[1] != o.y.n[1]
            or not lies_in_vectors(kernels, &o.x, program.input == kernels.input)
            or not lies_in_vectors(kernels, &o.y, program.result == kernels.sum)):
        return False
    for i in range(own.count):
        phase = o[0]
        bind_phase(&phase, &own.passes[i].phase)
        if patch_for(kernels, &own.passes[i], own.stride, phase.y.n[3], o.x.n[3]) == NULL:
            return False
    job = <PatchJob*>work.own(sizeof(PatchJob))
    job.count = 0
    for i in range(own.count):
        phase = o[0]
        bind_phase(&phase, &own.passes[i].phase)
        p = &job.passes[job.count]
        work.place(&p.y)
        p.y, p.y_y, p.y_x, p.rows, p.columns = phase.y.p, phase.y.s[2], phase.y.s[3], phase.y.n[2], phase.y.n[3]
        p.taps_y, p.min_y, p.min_x = own.passes[i].taps_y, own.passes[i].min_y, own.passes[i].min_x
        p.tap = own.passes[i].tap
        p.patch = patch_for(kernels, &own.passes[i], own.stride, p.columns, o.x.n[3])
        macs += p.rows * p.columns * own.passes[i].taps_y * own.passes[i].taps_x
        job.count += 1
    job.kernels, job.x, job.packed, job.bias, job.tail = kernels, o.x.p, packed, o.bias, NULL
    job.x_code, job.y_code, job.activation = program.input, program.result, o.activation
    job.images, job.height, job.width, job.total = o.x.n[0], o.x.n[2], o.x.n[3], o.x.n[1]
    job.x_n, job.x_y, job.x_x, job.y_n = o.x.s[0], o.x.s[2], o.x.s[3], o.y.s[0]
    job.stride, job.taps, job.tap_columns = own.stride, own.rows * own.columns, own.columns
    work.place(<char**>&job.x)
    threads = patch_team(job, macs, o.y.n[2] * o.y.n[3], threads)
    work.scratch_bytes = patch_blocks(job, threads)
    work.task, work.job, work.tasks, work.even = patch_task, job, job.images * job.row_blocks, True
    work.team(threads)
    job.tail = patch_tail(job, work)
    return True


cdef const fc_patch* patch_for(const fc_kernels* kernels, const PatchTaps* taps, size stride, size columns,
                               size width) noexcept nogil:
    """The patches that cover a row of outputs with the least excess; NULL: the row is short, or taps lie far out."""
    cdef const fc_patch* best = NULL
    cdef const fc_patch* patch
    cdef size i
    # beyond the right border lie fewer columns than taps
    if (columns - 1) * stride + taps.min_x >= width:
        return NULL
    for i in range(2):
        patch = &kernels.patch[taps.taps_y][taps.taps_x][stride][i]
        if (0 < patch.columns <= columns
                and (best == NULL or round_up(columns, patch.columns) < round_up(columns, best.columns))):
            best = patch
    return best


cdef int patch_team(const PatchJob* job, size macs, size outputs, int threads) noexcept nogil:
    """The threads worth starting for so many multiply-adds and outputs of a channel and image."""
    cdef size bytes = (job.height * job.width + outputs) * job.kernels.size
    return threads if (macs + bytes) * job.images * job.total >= PATCHES_PARALLEL_FROM else 1


cdef size patch_blocks(PatchJob* job, size threads) noexcept nogil:
    """Cuts every image into rows so that threads share the work evenly; returns the scratch of a thread."""
    cdef size channels = job.kernels.lanes * job.kernels.size, image = job.height * job.width * channels
    job.vectors = job.total // job.kernels.lanes
    job.row_blocks = 1 if job.images % threads == 0 else min(threads, job.passes[0].rows)
    job.together, job.packs = job.vectors, False
    if job.passes[0].rows * job.passes[0].columns >= PANELWISE_BELOW:
        return 0
    job.together = job.kernels.vectors
    job.packs = job.x_x % PACKED_PITCH == 0 and job.total % job.kernels.lanes == 0 and image <= PACKED_BYTES
    if not job.packs:
        return 0
    job.together = min(PACKED_BYTES // image, job.together)
    return round_up(image * job.together, 64)


cdef char* patch_tail(const PatchJob* job, Work work) except? NULL:
    """The weights of the last channels as one vector, where no vector of a panel begins with them; else NULL."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size first = job.total - kernels.lanes, tap, lane, ldb
    cdef const char* b
    cdef char* tail
    if job.total % kernels.lanes == 0:
        return NULL
    tail = <char*>work.own(job.taps * kernels.lanes * kernels.size)
    for lane in range(kernels.lanes):
        b = patch_weights(job, first + lane, &ldb)
        for tap in range(job.taps):
            memcpy(tail + (tap * kernels.lanes + lane) * kernels.size, b + tap * ldb * kernels.size, kernels.size)
    return tail


cdef inline const char* patch_weights(const PatchJob* job, size first, size* ldb) noexcept nogil:
    """The packed weights of the channels from `first` on, and the elements between their taps."""
    cdef size full = job.kernels.vectors * job.kernels.lanes, panel = first - first % full
    ldb[0] = min(full, round_up(job.total - panel, job.kernels.lanes))
    return job.packed + (panel * job.taps + first - panel) * job.kernels.size


cdef void patch_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """Some rows of one image."""
    cdef const PatchJob* job = <const PatchJob*>job_
    cdef size image = task // job.row_blocks, block = task % job.row_blocks, v = 0, last, i
    while v < job.vectors:
        last = min(v + job.together, job.vectors)
        for i in range(job.count):
            patch_rows(job, &job.passes[i], scratch, image, v, last,
                       block * job.passes[i].rows // job.row_blocks,
                       (block + 1) * job.passes[i].rows // job.row_blocks, watch)
        v = last


cdef void patch_rows(const PatchJob* job, const PatchPass* p, char* scratch, size image, size v0, size v1, size y0,
                     size y1, fc_watch* watch) noexcept nogil:
    """Rows y0..y1-1 of the vectors v0..v1-1 of channels; with the last vector, of the channels that fill no other."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size bytes = kernels.size, first = v0 * kernels.lanes, count = (v1 - v0) * kernels.lanes, y = y0, rows, x, r
    cdef size x_y = job.x_y, x_x = job.x_x
    cdef bint in_registers = job.activation <= RELU6
    cdef const char* input = job.x + image * job.x_n + first * bytes
    cdef const char* a
    cdef char* c
    cdef fc_patch_at at
    if job.packs:
        input = pack_pixels(job, p, scratch, input, count, y0, y1)
        x_x = count * bytes
        x_y = job.width * x_x
    if v1 == job.vectors:
        count = job.total - first
    at.a_y, at.a_x = x_y // bytes, x_x // bytes
    at.c_y, at.c_x = p.y_y // bytes, p.y_x // bytes
    at.activation = job.activation if in_registers else LINEAR
    while y < y1 and not fc_interrupted(watch):
        rows = p.patch.rows
        while rows > y1 - y:
            rows //= 2
        at.row_lo = -(y * job.stride + p.min_y)
        at.row_hi = at.row_lo + job.height
        a = input - at.row_lo * x_y
        c = p.y + image * job.y_n + y * p.y_y + first * bytes
        x = 0
        while x < p.columns:
            x = min(x, p.columns - p.patch.columns)  # the last one computes some columns again
            at.col_lo = -(x * job.stride + p.min_x)
            at.col_hi = at.col_lo + job.width
            patch_channels(job, p, p.patch.run[rows], a - at.col_lo * x_x, c + x * p.y_x, v0, v1, &at)
            x += p.patch.columns
        for r in range(0 if in_registers else rows):
            kernels.store[job.y_code](c + r * p.y_y, at.c_x, p.columns, count, c + r * p.y_y, p.y_x, bytes, NULL,
                                      job.activation, NULL, 0, 0)
        y += rows


cdef inline void patch_channels(const PatchJob* job, const PatchPass* p, fc_patch_run run, const char* a, char* c,
                                size v0, size v1, fc_patch_at* at) noexcept nogil:
    """One patch of all these channels, panel by panel of the weights; `a` and `c` begin with the first of them."""
    cdef size lanes = job.kernels.lanes, bytes = job.kernels.size, panel = job.kernels.vectors, v = v0, n, back
    cdef const char* b
    while v < v1:
        n = min(v1, (v // panel + 1) * panel) - v
        b = patch_weights(job, v * lanes, &at.b_x)
        at.b_y = job.tap_columns * at.b_x
        run(a, b + p.tap * at.b_x * bytes, c, patch_bias(job, v * lanes), n, at)
        a += n * lanes * bytes
        c += n * lanes * bytes
        v += n
    if job.tail != NULL and v1 == job.vectors:
        back = (lanes - job.total % lanes) * bytes  # the last whole vector begins so much before the end of the others
        at.b_y, at.b_x = job.tap_columns * lanes, lanes
        run(a - back, job.tail + p.tap * lanes * bytes, c - back, patch_bias(job, job.total - lanes), 1, at)


cdef inline const char* patch_bias(const PatchJob* job, size first) noexcept nogil:
    return job.bias + first * job.kernels.size if job.bias != NULL else NULL


cdef const char* pack_pixels(const PatchJob* job, const PatchPass* p, char* scratch, const char* input, size count,
                             size y0, size y1) noexcept nogil:
    """Copies the rows under the outputs y0..y1-1 of `count` channels side by side; returns where row 0 would lie."""
    cdef size y = max(0, y0 * job.stride + p.min_y), row = job.width * count * job.kernels.size
    cdef size last = min(job.height, (y1 - 1) * job.stride + p.min_y + p.taps_y)
    while y < last:
        job.kernels.pack[job.x_code](scratch + y * row, count, job.width, count, input + y * job.x_y, job.x_x,
                                     job.kernels.size)
        y += 1
    return scratch
