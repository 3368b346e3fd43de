# Depthwise convolution of arrays whose channels lie side by side, read and written in place, along up to three axes.
#
#   for lines of one image: rows of its planes, or pieces of a single row           threads take these
#     for row of patches, or row of strips (drivers/strips.pxi)
#       for patch, for vector of channels: all taps                                 micro-kernel, registers
#     activation
#
# Both arrays are walked in the order of their memory, so that the processor reads ahead, and rows are a thread's own:
# with channels shared out instead, one thread reads ahead what another writes (a second thread gained nothing, Zen 5).
# A patch loads an input vector once for all outputs that meet it. Taps over padded zeros are skipped. Every output is
# one sum in the order (tap z, tap y, tap x), as in drivers/lanes.pxi, which takes all other arrays.
# Planes of a volume are done together, row by row, while the second-level cache holds the rows that they meet.
# Where pixels lie a multiple of PACKED_PITCH bytes apart, those of a channel share few lines of the first-level cache:
# so the input of a small image is copied together, a panel of channels after the other.
# Arrays that begin within a cache line, as NumPy's do, are walked in vectors that begin on one: the first of a pixel also has
# the last channels of the pixel before it, and the weights are turned for that. Where those two meet other taps, at the
# ends of a row or in phases, the first and the last channels are a vector each, one more, across lines. So it is done
# where such vectors are few enough. At a stride of 2 a shared vector puts its inputs together of two (`shared`).

cdef enum:
    PANELWISE_BELOW = 400          # pixels of an image: one panel of channels after the other
    PACKED_PITCH = 2048            # bytes: the pixels of a channel fall into two of the 64 sets, or one
    PACKED_BYTES = 32 << 10        # copied together at a time: it stays in the first level
    LINE_BYTES = 64                # of the caches
    # One vector more of how many costs as much, 1.8 / n of the time, as arrays across lines do: those took 30 to 80 % longer
    # at a stride, 8 % under 25 taps, 14 and more under fewer, whose sums are soon written, or under more, whose inputs the
    # first level does not hold (Zen 4).
    TURNED_STRIDE = 5
    TURNED_25 = 22
    TURNED_ELSE = 14
    LINE_TAPS = 3                  # of a line up to which each is read for itself: so memory is walked once, from end to end
    PATCHES_PARALLEL_FROM = 1 << 19  # multiply-adds and bytes of both arrays: 4 microseconds; a team costs 1 to 3


cdef struct PatchOut:
    char* y
    size y_z, y_y, y_x             # bytes between planes, rows and columns of a pass


cdef struct PatchFrom:             # where the input lies, or a copy of some of its channels
    const char* x
    size z, y, x_                  # bytes between planes, rows, columns


cdef struct PatchJob:
    const Patches* own
    const fc_kernels* kernels
    PatchFrom x
    size x_n, y_n                  # bytes between images
    size images, vectors           # whole vectors of channels
    const char* packed
    const char* bias
    const char* tail               # weights of the last vector of channels where others end before it, else NULL
    size ahead                     # channels before the first vector that begins on a cache line; 0: that is the first
    size turned_for                # and those that the weights and the bias are turned for; 0: none are
    void** turned                  # where they lie; NULL: not to be turned
    bint loads_cost                # turned, too, where the result begins elsewhere within a line
    size blocks                    # tasks of an image
    size cuts                      # pieces of a row, which are lines
    size together                  # vectors of channels done together
    size deep                      # planes of outputs done together, row after row
    size inside_bytes              # of a thread's scratch, before the copy
    int x_code, y_code, activation
    bint packs
    PatchOut* out


cdef int patches_begin(Patches* own, const fc_kernels* kernels, extent, tuple passes) except -1:
    """The passes of a depthwise convolution; none where there are no kernels for it. What is dilated is a pass for every
    residue of rows and columns, whose taps are neighbours."""
    own.kernels, own.passes, own.count = kernels, NULL, 0
    if kernels.strip_taps == 0 or extent.channels != 1 or extent.outputs != 1 or extent.mode != FC_ZEROS or not passes:
        return 0
    if any([is_long(kernels, len(q.taps[0]) * len(q.taps[1]) * len(q.taps[2])) for q in passes]):
        return 0
    begins = [packed_places(passes, axis)[0] for axis in range(3)]
    three(extent.size, own.size)
    for axis in range(3):
        own.stride[axis], own.places[axis] = passes[0].stride[axis], sum(map(len, begins[axis]))
    own.total, own.macs, own.inputs = extent.groups, 0, extent.input_size[0] * extent.input_size[1] * extent.input_size[2]
    every = [[1, residues(q, 1, extent), residues(q, 2, extent)] for q in passes]
    own.passes = <PatchPass*>allocate(sum([y * x for _, y, x in every]) * sizeof(PatchPass))
    for q, apart in zip(passes, every):
        for y in range(apart[1]):
            for x in range(apart[2]):
                patch_pass(own, extent, q, (0, y, x), apart, [begins[axis][q.places[axis]] for axis in range(3)])
    return 0


cdef residues(q, int axis, extent):
    """By how much the taps of a pass lie apart, where outputs so far apart are many enough to be neighbours; else 1."""
    taps = q.taps[axis]
    apart = taps[1] - taps[0] if len(taps) > 1 and q.stride[axis] == 1 else 1
    if axis == 2 and len(q.taps[1]) == 1 and len(taps) <= LINE_TAPS:
        return 1
    return apart if extent.size[axis] // q.step[axis] >= NEIGHBOURS_FROM * apart else 1


cdef int patch_pass(Patches* own, extent, q, residue, every, begins) except -1:
    """The pass of every `every`-th output of `q` from `residue` on."""
    cdef PatchPass* p = &own.passes[own.count]
    cdef int axis
    p.tap = 0
    for axis in range(3):
        p.tap = p.tap * own.places[axis] + <size>begins[axis]
        p.taps[axis], p.every[axis] = len(q.taps[axis]), every[axis]
        p.first[axis], p.apart[axis] = q.phase[axis] + residue[axis] * q.step[axis], q.step[axis] * p.every[axis]
        p.outputs[axis] = max(0, (<size>extent.size[axis] - p.first[axis] + p.apart[axis] - 1) // p.apart[axis])
        even_taps(q.taps[axis], &p.low[axis], &p.step[axis])
        p.offset[axis] = (q.taps[axis][0] + residue[axis]) % every[axis]
        p.low[axis] = (q.taps[axis][0] + residue[axis]) // every[axis]
        p.step[axis] //= p.every[axis]
        p.input[axis] = max(0, (<size>extent.input_size[axis] - p.offset[axis] + p.every[axis] - 1) // p.every[axis])
    if volume(p.outputs) == 0:
        return 0
    own.macs += volume(p.outputs) * volume(p.taps)
    p.patch = patch_for(own, p)
    if p.patch == NULL:
        strip_shape(own, p)
    own.count += 1
    return 0


cdef packed_places(tuple passes, int axis):
    """Where the places of each pass begin among the packed ones of an axis, and all of them."""
    begins = {}
    for p in passes:
        begins.setdefault(p.places[axis], sum(map(len, begins)))
    return begins, tuple([place for places in begins for place in places])


cdef const fc_patch* patch_for(const Patches* own, const PatchPass* p) noexcept nogil:
    """The patches that cover a row of outputs with the least excess; NULL: there are none, the row is short, or taps lie
    far out."""
    cdef const fc_patch* best = NULL
    cdef const fc_patch* patch
    cdef size i, stride = own.stride[2], columns = p.outputs[2]
    # beyond the right border lie fewer columns than taps
    if (own.stride[1] != stride or stride > 2 or p.step[1] != 1 or p.step[2] != 1
            or max(p.taps[1], p.taps[2]) > FC_MAX_WINDOW or -p.low[2] >= p.taps[2]
            or (columns - 1) * stride + p.low[2] >= p.input[2]):
        return NULL
    for i in range(2):
        patch = &own.kernels.patch[p.taps[1]][p.taps[2]][stride][i]
        if (0 < patch.columns <= columns
                and (best == NULL or round_up(columns, patch.columns) < round_up(columns, best.columns))):
            best = patch
    return best


cdef inline bint patches_fit(const Patches* own) noexcept nogil:
    """Whether there are kernels, and channels enough for a vector."""
    return own.count > 0 and own.total >= own.kernels.lanes


cdef patches_blocking(const Patches* own, size images, int threads):
    """As `Lanes.patches` says; None where the arrays are too small."""
    cdef PatchJob job
    cdef size scratch_bytes
    if not patches_fit(own) or images == 0:
        return None
    job.own, job.kernels, job.images, job.x.x_ = own, own.kernels, images, own.total * own.kernels.size
    threads = patch_team(&job, threads)
    scratch_bytes = patch_blocks(&job, threads)
    threads = <int>team_for(threads, images * job.blocks, scratch_bytes)
    scratch_bytes *= threads
    if own.total % own.kernels.lanes != 0:
        scratch_bytes += volume(own.places) * own.kernels.lanes * own.kernels.size
    rows, columns = 1, own.passes[0].widths[min(own.passes[0].outputs[2], STRIP_WIDTHS - 1)]
    if own.passes[0].patch != NULL:
        rows, columns = own.passes[0].patch.rows, own.passes[0].patch.columns
    return rows, columns, images * job.blocks, threads, scratch_bytes, bool(job.packs)


cdef bint patches_lie(const Patches* own, Program program, const Operands* o) noexcept nogil:
    """Whether the arrays lie as needed."""
    return (patches_fit(own) and not o.has_residual and o.x.n[1] == o.y.n[1]
            and lies_in_vectors(own.kernels, &o.x, program.input == own.kernels.input)
            and lies_in_vectors(own.kernels, &o.y, program.result == own.kernels.sum))


cdef bint patches_bind(const Patches* own, Program program, const Operands* o, const char* packed, int threads,
                       Work work) except -1:
    """As `Lanes.bind` without a residual; False, and nothing is done, where the arrays do not lie as needed."""
    cdef PatchJob* job
    cdef PatchOut* out
    cdef const PatchPass* p
    cdef size i
    if not patches_lie(own, program, o):
        return False
    job = <PatchJob*>work.own(sizeof(PatchJob) + own.count * sizeof(PatchOut))
    job.own, job.kernels, job.out = own, own.kernels, <PatchOut*>(job + 1)
    for i in range(own.count):
        p, out = &own.passes[i], &job.out[i]
        work.place(&out.y)
        out.y = o.y.p + p.first[0] * o.y.s[4] + p.first[1] * o.y.s[2] + p.first[2] * o.y.s[3]
        out.y_z, out.y_y, out.y_x = p.apart[0] * o.y.s[4], p.apart[1] * o.y.s[2], p.apart[2] * o.y.s[3]
    job.packed, job.bias, job.tail = packed, o.bias, NULL
    job.x_code, job.y_code, job.activation = program.input, program.result, o.activation
    job.images, job.x_n, job.y_n = o.x.n[0], o.x.s[0], o.y.s[0]
    job.x.x, job.x.z, job.x.y, job.x.x_ = o.x.p, o.x.s[4], o.x.s[2], o.x.s[3]
    work.place(<char**>&job.x.x)
    threads = patch_team(job, threads)
    work.scratch_bytes = patch_blocks(job, threads)
    work.task, work.job, work.tasks, work.even = patch_task, job, job.images * job.blocks, True
    work.team(threads)
    job.tail = patch_tail(job, work)
    job.ahead = job.turned_for = 0
    job.turned = &work.late if may_turn(job) else NULL
    work.begin = patch_begin
    return True


cdef int patch_team(const PatchJob* job, int threads) noexcept nogil:
    """The threads worth starting."""
    cdef size bytes = job.own.inputs, i
    for i in range(job.own.count):
        bytes += volume(job.own.passes[i].outputs)
    bytes *= job.kernels.size
    return threads if (job.own.macs + bytes) * job.images * job.own.total >= PATCHES_PARALLEL_FROM else 1


cdef size patch_blocks(PatchJob* job, size threads) noexcept nogil:
    """Cuts every image into lines so that threads share the work evenly; returns the scratch of a thread."""
    cdef const Patches* own = job.own
    cdef const PatchPass* p = &own.passes[0]
    cdef size image = 0, pitch = p.every[2] * job.x.x_, i
    for i in range(own.count):
        image = max(image, volume(own.passes[i].input) * job.kernels.lanes * job.kernels.size)
    job.vectors = own.total // job.kernels.lanes
    job.together, job.packs = job.vectors, False
    if p.patch == NULL:
        strip_blocks(job, p, pitch, image)
    elif volume(p.outputs) < PANELWISE_BELOW:
        job.together = job.kernels.vectors
        # 5 x 5 at stride 2 takes 0.7 to 0.9 of the time where it reads in place, 3 x 3 up to 2 times as long (Zen 4)
        job.packs = own.stride[2] == 1 or p.taps[2] <= 3
        job.packs = job.packs and pitch % PACKED_PITCH == 0 and own.total % job.kernels.lanes == 0
        job.packs = job.packs and 0 < image <= PACKED_BYTES
        if job.packs:
            job.together = min(PACKED_BYTES // image, job.together)
    strip_cuts(job, threads)
    job.deep = patch_deep(job, p)
    job.blocks = 1 if job.images % threads == 0 else min(threads, p.outputs[0] * p.outputs[1] * job.cuts)
    return job.inside_bytes + (round_up(image * job.together, 64) if job.packs else 0)


cdef size patch_deep(const PatchJob* job, const PatchPass* p) noexcept nogil:
    """The planes of outputs whose rows are done together, so that a row of the input is read once for all of them: as
    many as find the rows under them in the second-level cache."""
    cdef size row = p.input[2] * job.together * job.kernels.lanes * job.kernels.size
    cdef size rows = ((1 if p.patch == NULL else p.patch.rows) - 1) * job.own.stride[1] + (p.taps[1] - 1) * p.step[1] + 1
    cdef size planes = SIDE_BY_SIDE // max(1, row * rows) - (p.taps[0] - 1) * p.step[0]
    return max(1, (planes - 1) // job.own.stride[0] + 1) if job.cuts == 1 else 1


cdef char* patch_tail(const PatchJob* job, Work work) except? NULL:
    """The weights of the last channels as one vector, where no vector of a panel begins with them; else NULL."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size first = job.own.total - kernels.lanes, taps = volume(job.own.places), tap, lane, ldb
    cdef const char* b
    cdef char* tail
    if job.own.total % kernels.lanes == 0:
        return NULL
    tail = <char*>work.own(taps * kernels.lanes * kernels.size)
    for lane in range(kernels.lanes):
        b = panel_weights(job, job.packed, first + lane, &ldb)
        for tap in range(taps):
            memcpy(tail + (tap * kernels.lanes + lane) * kernels.size, b + tap * ldb * kernels.size, kernels.size)
    return tail


cdef bint may_turn(PatchJob* job) noexcept nogil:
    """Whether vectors may begin between those of the panels, and pay where arrays begin within a cache line."""
    cdef const Patches* own = job.own
    cdef const PatchPass* p
    cdef size pixel = own.total * job.kernels.size, vectors = 0, more = 0, taps = 0, i, x, width, apart, all_, share
    if (job.kernels.lanes * job.kernels.size != LINE_BYTES or own.total % job.kernels.lanes != 0 or job.packs
            or job.x.x_ != pixel or (job.x.z | job.x.y | job.x_n | job.y_n) % LINE_BYTES != 0
            or (job.activation > RELU6 and job.together < job.vectors)):   # which follows a block of channels
        return False
    for i in range(own.count):
        p = &own.passes[i]
        if job.out[i].y_x != p.apart[2] * pixel or (job.out[i].y_z | job.out[i].y_y) % LINE_BYTES != 0:
            return False
        width = p.patch.columns if p.patch != NULL else p.widths[min(p.outputs[2], STRIP_WIDTHS - 1)]
        x, apart, all_ = 0, 0, 0
        while x < p.outputs[2]:
            x = max(0, min(x, p.outputs[2] - width))
            apart, all_, x = apart + (not pixels_join(own, p, 0, x, width)), all_ + 1, x + width
        more += (apart + (apart < all_)) * volume(p.taps)
        vectors += all_ * job.vectors * volume(p.taps)
        taps = max(taps, volume(p.taps))
    share = TURNED_STRIDE if own.stride[2] > 1 else TURNED_25 if 9 < taps <= 25 else TURNED_ELSE
    job.loads_cost = own.stride[2] > 1 or taps > 25
    return more * share <= vectors


cdef size patch_ahead(const PatchJob* job) noexcept nogil:
    """The channels before the first vector of these arrays that begins on a cache line, where it pays to begin there."""
    cdef size within = <size>job.x.x % LINE_BYTES
    if job.turned == NULL or (not job.loads_cost and <size>job.out.y % LINE_BYTES != within):
        return 0
    return (LINE_BYTES - within) // job.kernels.size % job.kernels.lanes


cdef void patch_begin(void* job_, char* scratch, size scratch_bytes, int threads) noexcept nogil:
    """Before the tasks of a run, whose arrays may be others than those of the one before."""
    cdef PatchJob* job = <PatchJob*>job_
    cdef size bytes = (volume(job.own.places) + 1) * job.own.total * job.kernels.size
    job.ahead = patch_ahead(job)
    if job.ahead > 0 and job.turned[0] == NULL:
        job.turned[0] = fc_allocate(bytes)
        if job.turned[0] == NULL:
            job.ahead = 0
    if job.ahead > 0 and job.ahead != job.turned_for:
        job.turned_for = job.ahead
        turn(job, <char*>job.turned[0])


cdef void turn(const PatchJob* job, char* to) noexcept nogil:
    """Weights and bias of vectors of which the first one begins with the last channels, as many as are not ahead."""
    cdef size bytes = job.kernels.size, taps = volume(job.own.places), lanes = job.kernels.lanes, total = job.own.total
    cdef size ahead = job.ahead * bytes, back = lanes * bytes - ahead, v, tap, ldb, before_ldb
    cdef const char* b
    cdef const char* before = panel_weights(job, job.packed, total - lanes, &before_ldb)
    cdef char* panel
    for v in range(job.vectors):
        b = panel_weights(job, job.packed, v * lanes, &ldb)
        panel = to + (b - job.packed)
        for tap in range(taps):
            memcpy(panel + tap * ldb * bytes, before + tap * before_ldb * bytes + ahead, back)
            memcpy(panel + tap * ldb * bytes + back, b + tap * ldb * bytes, ahead)
        before, before_ldb = b, ldb
    if job.bias != NULL:
        to += taps * total * bytes
        memcpy(to, job.bias + total * bytes - back, back)
        memcpy(to + back, job.bias, total * bytes - back)


cdef inline const char* panel_weights(const PatchJob* job, const char* packed, size first, size* ldb) noexcept nogil:
    """The packed weights of the channels from `first` on, and the elements between their taps."""
    cdef size full = job.kernels.vectors * job.kernels.lanes, panel = first - first % full
    ldb[0] = min(full, round_up(job.own.total - panel, job.kernels.lanes))
    return packed + (panel * volume(job.own.places) + first - panel) * job.kernels.size


cdef void patch_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """Some lines of one image."""
    cdef const PatchJob* job = <const PatchJob*>job_
    cdef const PatchPass* p
    cdef size image = task // job.blocks, block = task % job.blocks, v = 0, last, i, lines, lo, hi
    while v < job.vectors:
        last = min(v + job.together, job.vectors)
        for i in range(job.own.count):
            p = &job.own.passes[i]
            lines = p.outputs[0] * p.outputs[1] * job.cuts
            lo, hi = block * lines // job.blocks, (block + 1) * lines // job.blocks
            if lo < hi:
                patch_lines(job, p, &job.out[i], scratch, image, v, last, lo, hi, watch)
        v = last


cdef void patch_lines(const PatchJob* job, const PatchPass* p, const PatchOut* out, char* scratch, size image, size v0,
                      size v1, size lo, size hi, fc_watch* watch) noexcept nogil:
    """Lines lo..hi-1 of the vectors v0..v1-1 of channels; with the last vector, of the channels that fill no other."""
    cdef size first = v0 * job.kernels.lanes * job.kernels.size, count = (v1 - v0) * job.kernels.lanes, z, y0, y1
    cdef size lines = p.outputs[1] * job.cuts, planes, step, i
    cdef PatchFrom x = job.x
    cdef char* y = out.y + image * job.y_n + first
    x.x += image * job.x_n + first + p.offset[0] * x.z + p.offset[1] * x.y + p.offset[2] * x.x_
    x.z, x.y, x.x_ = p.every[0] * x.z, p.every[1] * x.y, p.every[2] * x.x_
    if job.packs:
        patch_pack(job, p, scratch + job.inside_bytes, &x, count, lo // job.cuts, (hi - 1) // job.cuts)
    if v1 == job.vectors:
        count = job.own.total - v0 * job.kernels.lanes
    while lo < hi and not fc_interrupted(watch):
        z, y0, planes = lo // lines, lo % lines, 1
        y1 = min(lines, y0 + hi - lo)
        if y0 == 0:
            planes = max(1, min(job.deep, (hi - lo) // lines))
        lo += planes * (y1 - y0)
        while y0 < y1 and not fc_interrupted(watch):
            step = 1 if p.patch == NULL else p.patch.rows
            while step > y1 - y0:
                step //= 2
            for i in range(z, z + planes):
                if p.patch == NULL:
                    strip_line(job, p, out, &x, y + i * out.y_z, scratch, v0, v1, count, i, y0)
                else:
                    patch_row(job, p, out, &x, y + i * out.y_z, v0, v1, count, i, y0, step)
            y0 += step


cdef void patch_row(const PatchJob* job, const PatchPass* p, const PatchOut* out, const PatchFrom* x_, char* y_, size v0,
                    size v1, size count, size z, size y, size rows) noexcept nogil:
    """A row of patches, so many rows of outputs from `y` on in plane `z`."""
    cdef const Patches* own = job.own
    cdef size bytes = job.kernels.size, stride = own.stride[2], first, x = 0, next
    cdef const char* a
    cdef char* c = y_ + y * out.y_y
    cdef fc_patch_at at
    cdef bint joined, joins = False
    at.planes = taps_inside(own, p, 0, z, &first)
    at.a_z, at.a_y, at.a_x = p.step[0] * x_.z // bytes, x_.y // bytes, x_.x_ // bytes
    at.c_y, at.c_x = out.y_y // bytes, out.y_x // bytes
    at.activation = job.activation if job.activation <= RELU6 else LINEAR
    at.row_lo = -(y * stride + p.low[1])
    at.row_hi = at.row_lo + p.input[1]
    a = x_.x + (z * own.stride[0] + p.low[0] + first * p.step[0]) * x_.z - at.row_lo * x_.y
    first = p.tap + first * own.places[1] * own.places[2]
    while x < p.outputs[2]:
        x = min(x, p.outputs[2] - p.patch.columns)  # the last one computes some columns again
        at.col_lo = -(x * stride + p.low[2])
        at.col_hi = at.col_lo + p.input[2]
        joined, next = joins, min(x + p.patch.columns, p.outputs[2] - p.patch.columns)
        joins = next > x and pixels_join(own, p, 0, next, p.patch.columns)
        patch_channels(job, first, p.patch.run[rows], shared_run(own, p, rows, p.patch.columns), a - at.col_lo * x_.x_,
                       c + x * out.y_x, v0, v1, &at, joined, not (joined and joins))
        x += p.patch.columns
    for x in range(rows):
        patch_end(job, out, c + x * out.y_y, p.outputs[2], count)


cdef inline bint pixels_join(const Patches* own, const PatchPass* p, size x0, size x, size columns) noexcept nogil:
    """Whether outputs from `x` > x0 on, and those one pixel before them, meet all taps of a row: a vector may then begin
    with channels of one and end with those of another."""
    cdef size begin = x * own.stride[2] + p.low[2]
    if own.stride[2] > 1 and shared_run(own, p, 1, columns) == NULL:
        return False
    return (p.apart[2] == 1 and p.every[2] == 1 and x > x0 and begin >= own.stride[2]
            and begin + (columns - 1) * own.stride[2] + (p.taps[2] - 1) * p.step[2] < p.input[2])


cdef inline fc_patch_run shared_run(const Patches* own, const PatchPass* p, size rows, size columns) noexcept nogil:
    """What computes vectors that two pixels share where that is another kernel; else NULL."""
    if own.stride[2] != 2 or p.loose and p.patch == NULL:
        return NULL
    return p.patch.shared[rows] if p.patch != NULL else own.kernels.strip_shared[columns]


cdef inline size taps_inside(const Patches* own, const PatchPass* p, int axis, size output, size* first) noexcept nogil:
    """How many taps along an axis the input has for an output, and the first."""
    cdef size at = output * own.stride[axis] + p.low[axis]
    first[0] = up_to(-at, p.step[axis], p.taps[axis])
    return up_to(p.input[axis] - at, p.step[axis], p.taps[axis]) - first[0]


cdef inline size up_to(size distance, size step, size most) noexcept nogil:
    """How many multiples of `step` from 0 on lie below a distance, `most` at most."""
    return min(most, (distance + step - 1) // step) if distance > 0 else 0


cdef inline void patch_end(const PatchJob* job, const PatchOut* out, char* c, size columns, size count) noexcept nogil:
    """The activation that the kernels do not apply, of some outputs of a row."""
    cdef size bytes = job.kernels.size
    if job.activation > RELU6:
        job.kernels.store[job.y_code](c, out.y_x // bytes, columns, count, c, out.y_x, bytes, NULL, job.activation,
                                      NULL, 0, 0)


cdef inline void patch_channels(const PatchJob* job, size tap, fc_patch_run run, fc_patch_run shared, const char* a,
                                char* c, size v0, size v1, fc_patch_at* at, bint joined, bint closed) noexcept nogil:
    """One patch of all these channels, panel by panel of the weights, from a packed tap on; `a` and `c` begin with the
    first of them. Where the vectors of the pixels are turned: whether the first has channels of the pixel before
    (`joined`), and whether the last channels are left to the next patch, or are done here (`closed`)."""
    cdef size lanes = job.kernels.lanes, line = lanes * job.kernels.size
    if job.ahead == 0:
        patch_panels(job, job.packed, job.bias, tap, run, a, c, v0, v1, at)
        if job.tail != NULL and v1 == job.vectors:
            a += (v1 - v0) * line - (lanes - job.own.total % lanes) * job.kernels.size  # which ends with the last channel
            c += (v1 - v0) * line - (lanes - job.own.total % lanes) * job.kernels.size
            at.b_x = lanes
            taps_apart(job, at)
            run(a, job.tail + tap * line, c, patch_bias(job, job.bias, job.own.total - lanes), 1, at)
        return
    patch_turned(job, tap, run, shared, a - v0 * line, c - v0 * line, v0, v1, at, joined, closed)


cdef void patch_turned(const PatchJob* job, size tap, fc_patch_run run, fc_patch_run shared, const char* a, char* c,
                       size v0, size v1, fc_patch_at* at, bint joined, bint closed) noexcept nogil:
    """`a` and `c` begin with channel 0."""
    cdef size bytes = job.kernels.size, line = job.kernels.lanes * bytes, back = line - job.ahead * bytes, v = v0
    cdef size last = (job.vectors - 1) * line
    cdef const char* turned = <const char*>job.turned[0]
    cdef const char* bias = NULL
    if job.bias != NULL:
        bias = turned + volume(job.own.places) * job.own.total * bytes
    if v0 == 0 and not joined:
        patch_panels(job, job.packed, job.bias, tap, run, a, c, 0, 1, at)
        v = 1
    elif v0 == 0 and shared != NULL:
        at.before = job.kernels.lanes - job.ahead
        patch_panels(job, turned, bias, tap, shared, a - back, c - back, 0, 1, at)
        v = 1
    patch_panels(job, turned, bias, tap, run, a + v * line - back, c + v * line - back, v, v1, at)
    if v1 == job.vectors and closed:
        patch_panels(job, job.packed, job.bias, tap, run, a + last, c + last, v1 - 1, v1, at)


cdef inline void patch_panels(const PatchJob* job, const char* packed, const char* bias, size tap, fc_patch_run run,
                              const char* a, char* c, size v, size v1, fc_patch_at* at) noexcept nogil:
    """The vectors v..v1-1 of the panels."""
    cdef size lanes = job.kernels.lanes, bytes = job.kernels.size, panel = job.kernels.vectors, n
    cdef const char* b
    while v < v1:
        n = min(v1, (v // panel + 1) * panel) - v
        b = panel_weights(job, packed, v * lanes, &at.b_x)
        taps_apart(job, at)
        run(a, b + tap * at.b_x * bytes, c, patch_bias(job, bias, v * lanes), n, at)
        a += n * lanes * bytes
        c += n * lanes * bytes
        v += n


cdef inline void taps_apart(const PatchJob* job, fc_patch_at* at) noexcept nogil:
    at.b_y = job.own.places[2] * at.b_x
    at.b_z = job.own.places[1] * at.b_y


cdef inline const char* patch_bias(const PatchJob* job, const char* bias, size first) noexcept nogil:
    return bias + first * job.kernels.size if bias != NULL else NULL


cdef void patch_pack(const PatchJob* job, const PatchPass* p, char* scratch, PatchFrom* x, size count, size first,
                     size last) noexcept nogil:
    """Copies the rows under the rows `first`..`last` of outputs, `count` channels side by side, and says where row 0 lies."""
    cdef const Patches* own = job.own
    cdef size row = p.input[2] * count * job.kernels.size, z, y
    cdef size[2] planes
    cdef size[2] rows
    z, y = first // p.outputs[1], last // p.outputs[1]
    inputs_under(own, p, 0, z, y, planes)
    if z == y:
        inputs_under(own, p, 1, first % p.outputs[1], last % p.outputs[1], rows)
    else:
        inputs_under(own, p, 1, 0, p.outputs[1] - 1, rows)
    for z in range(planes[0], planes[1]):
        for y in range(rows[0], rows[1]):
            job.kernels.strip_copy(scratch + (z * p.input[1] + y) * row, x.x + z * x.z + y * x.y,
                                   x.x_ // job.kernels.size, p.input[2], count // job.kernels.lanes)
    x.x, x.z, x.y, x.x_ = scratch, p.input[1] * row, row, count * job.kernels.size


cdef inline void inputs_under(const Patches* own, const PatchPass* p, int axis, size first, size last,
                              size* inputs) noexcept nogil:
    """From where to where along an axis the inputs of these outputs lie."""
    inputs[0] = max(0, first * own.stride[axis] + p.low[axis])
    inputs[1] = min(p.input[axis], last * own.stride[axis] + p.low[axis] + (p.taps[axis] - 1) * p.step[axis] + 1)
