# Weights packed for the register tile: panels of `vectors * lanes` output channels, inside a panel
# [tap z][tap y][tap x][input channel][output lane]. The last panel is as many vectors wide as it needs.
#
# A plan packs all panels once. A single call gives the drivers the array as it lies, and every task packs the panel it
# is about to use into its own scratch: a few percent of the task's arithmetic, and no memory as large as the weights.

cdef inline size packed_elements(const fc_kernels* kernels, size taps, size channels, size outputs) noexcept nogil:
    return taps * round_up(channels, kernels.tile_k) * round_up(outputs, kernels.lanes)


def packed_bytes(int compute, size groups, size taps, size channels, size outputs):
    """Bytes that `pack_weights` fills: channels and outputs are those of one group."""
    cdef const fc_kernels* kernels = isa.compute[compute]
    return groups * packed_elements(kernels, taps, channels, outputs) * kernels.weight_size


cdef int bind_weights(Work work, Weights* w, const fc_kernels* kernels, const View* array, int code, const char* packed,
                      bint finite, size groups, bint transposed, const size* taps, const size* places) except -1:
    """Weights (O, I/groups, [[kD,] kH,] kW), any strides, for so many `taps` along each axis, which are the `places` of
    the kernel: planes, then rows, then columns.

    `transposed` swaps the roles of input and output channels, as the input gradient needs. `work` owns the offsets.
    """
    cdef size i, at = 0
    cdef int axis
    w.kernels, w.array, w.code, w.packed, w.finite, w.groups = kernels, array[0], code, packed, finite, groups
    w.outputs, w.output_stride = array.n[0] // groups, array.s[0]
    w.channels, w.channel_stride = array.n[1], array.s[1]
    if transposed:
        w.outputs, w.output_stride, w.channels, w.channel_stride = (
            w.channels, w.channel_stride, w.outputs, w.output_stride)
    w.width = kernels.vectors * kernels.lanes
    w.panels = (w.outputs + w.width - 1) // w.width
    w.steps = round_up(w.channels, kernels.tile_k)
    w.group_elements = packed_elements(kernels, volume(taps), w.channels, w.outputs)
    w.offsets = <size*>work.own((taps[0] + taps[1] + taps[2]) * sizeof(size))
    for axis in range(3):
        w.taps[axis] = taps[axis]
        for i in range(taps[axis]):
            w.offsets[at] = places[at] * (array.s[4] if axis == 0 else array.s[axis + 1])
            at += 1
    return 0


cdef int bind_taps(Work work, Weights* w, const fc_kernels* kernels, const View* array, int code, const char* packed,
                   size groups, bint transposed, tuple rows, tuple columns, tuple planes=(0,)) except -1:
    """`bind_weights` with the planes, rows and columns of the kernel as tuples."""
    cdef size i = 0
    cdef size taps[3]
    cdef size* places
    taps[0], taps[1], taps[2] = len(planes), len(rows), len(columns)
    places = <size*>allocate((taps[0] + taps[1] + taps[2]) * sizeof(size))
    try:
        for place in (*planes, *rows, *columns):
            places[i] = place
            i += 1
        return bind_weights(work, w, kernels, array, code, packed, True, groups, transposed, taps, places)
    finally:
        fc_free(places)


cdef inline size panel_vectors(const Weights* w, size panel) noexcept nogil:
    return (min(w.width, w.outputs - panel * w.width) + w.kernels.lanes - 1) // w.kernels.lanes


cdef inline int pack_panel(const Weights* w, size group, size panel, size channel, size channels, char* dst) noexcept nogil:
    """Pack some channels of one panel as [tap][channel][width], or in tiles along k as fastconv.h says; 0 when a weight is
    NaN or infinite."""
    return pack_rows(w, group, panel, channel, channels, 0, w.taps[0] * w.taps[1], dst)


cdef int pack_rows(const Weights* w, size group, size panel, size channel, size channels, size row, size end,
                   char* dst) noexcept nogil:
    """The rows of taps from `row` on, counted through the planes, up to `end`."""
    cdef size first = panel * w.width, count = min(w.width, w.outputs - first), z, y, together
    cdef size width = panel_vectors(w, panel) * w.kernels.lanes
    cdef size row_bytes = w.taps[2] * round_up(channels, w.kernels.tile_k) * width * w.kernels.weight_size
    cdef bint finite = True
    cdef const size* rows = w.offsets + w.taps[0]
    cdef const char* src = (w.array.p + group * (w.array.n[0] // w.groups) * w.array.s[0] + channel * w.channel_stride
                            + first * w.output_stride)
    while row < end:
        z, y = row // w.taps[1], row % w.taps[1]
        together = min(w.taps[1] - y, end - row)
        if not w.kernels.pack_panel[w.code](dst + row * row_bytes, width, src + w.offsets[z], together, rows + y, w.taps[2],
                                            rows + w.taps[1], channels, w.channel_stride, count, w.output_stride):
            finite = False
        row += together
    return finite


cdef void pack_steps(const Weights* w, size group, size panel, size first, size last, char* dst) noexcept nogil:
    """Steps first .. last - 1 of a panel, counted [tap z][tap y][tap x][channel]: whole taps of a row together."""
    cdef size width = panel_vectors(w, panel) * w.kernels.lanes, column = panel * w.width
    cdef size count = min(w.width, w.outputs - column), row, x, channel, taps, steps
    cdef const size* rows = w.offsets + w.taps[0]
    cdef const char* src = (w.array.p + group * (w.array.n[0] // w.groups) * w.array.s[0]
                            + column * w.output_stride)
    while first < last:
        channel, x = first % w.steps, first // w.steps % w.taps[2]
        row = first // w.steps // w.taps[2]
        taps = 0 if channel else min(w.taps[2] - x, (last - first) // w.steps)
        steps = w.steps if taps else min(w.steps - channel, last - first)
        taps = max(1, taps)
        w.kernels.pack_panel[w.code](dst, width, src + channel * w.channel_stride + w.offsets[row // w.taps[1]], 1,
                                     rows + row % w.taps[1], taps, rows + w.taps[1] + x,
                                     min(steps, w.channels - channel), w.channel_stride, count, w.output_stride)
        dst += taps * steps * width * w.kernels.weight_size
        first += taps * steps


cdef inline const char* packed_panel(const Weights* w, size group, size panel) noexcept nogil:
    return w.packed + (group * w.group_elements + panel * w.width * volume(w.taps) * w.steps) * w.kernels.weight_size


def pack_lane_weights(int compute, weight, int code, packed, size groups, tuple rows, tuple columns, int threads):
    """Pack `weight` for the input gradient of the depthwise driver: a lane for every input channel of the convolution.

    As `pack_weights` of one group whose lines are [tap y][output channel of the group][tap x].
    """
    cdef LanePanels job
    cdef Arrays arrays = Arrays()
    cdef View to
    cdef size i, width
    job.rows, job.columns, job.groups, job.code = len(rows), len(columns), groups, code
    job.kernels = isa.compute[compute]
    job.taps = <size*>allocate((job.rows + job.columns) * sizeof(size))
    try:
        arrays.view(packed, &to, True)
        arrays.view(weight, &job.array, False)
        job.packed = to.p
        for i in range(job.rows + job.columns):
            job.taps[i] = rows[i] if i < job.rows else columns[i - job.rows]
        width = job.kernels.vectors * job.kernels.lanes
        run_tasks(pack_lane_task, &job, NULL, 0, (job.array.n[1] * groups + width - 1) // width, threads)
    finally:
        fc_free(job.taps)
        arrays.release()


cdef struct LanePanels:
    const fc_kernels* kernels
    View array
    char* packed
    size groups, rows, columns
    size* taps               # rows, then columns of the kernel
    int code


cdef void pack_lane_task(void* job_, char* scratch, size panel, fc_watch* watch) noexcept nogil:
    cdef LanePanels* job = <LanePanels*>job_
    pack_lane_panel(job.kernels, &job.array, job.code, job.packed, job.groups, panel, job.rows, job.taps, job.columns,
                    job.taps + job.rows)


cdef void pack_lane_panel(const fc_kernels* kernels, const View* array, int code, char* packed, size groups,
                          size panel, size rows, const size* row, size columns, const size* column) noexcept nogil:
    """One panel of `pack_lane_weights`, a group (or the part of it inside the panel) at a time."""
    cdef size channels = array.n[0] // groups, outputs = array.n[1], full = kernels.vectors * kernels.lanes
    cdef size first = panel * full, last = min(first + full, outputs * groups), width, group, low, high, i, j
    width = round_up(last - first, kernels.lanes)
    packed += first * rows * columns * channels * kernels.size
    if width > last - first:
        memset(packed, 0, rows * columns * channels * width * kernels.size)
    for group in range(first // outputs, (last - 1) // outputs + 1):
        low, high = max(first, group * outputs), min(last, (group + 1) * outputs)
        for i in range(rows):
            for j in range(columns):
                kernels.pack[code](
                    packed + ((i * channels * columns + j) * width + low - first) * kernels.size, columns * width,
                    channels, high - low, array.p + group * channels * array.s[0] + (low - group * outputs) * array.s[1]
                    + row[i] * array.s[2] + column[j] * array.s[3], array.s[0], array.s[1])


def pack_weights(int compute, weight, int code, packed, size groups, bint transposed, tuple places, int threads):
    """Pack `weight` (O, I/groups, [[kD,] kH,] kW), any strides, for the taps at these `places` of the kernel: [[planes,]
    rows,] columns.

    Returns False when a weight is NaN or infinite: padded taps must then be skipped instead of multiplied by zero.
    """
    cdef Panels job
    cdef View to, array
    cdef Work work = Work()     # that owns what describes the weights
    job.special = 0
    work.view(packed, &to, True)
    work.view(weight, &array, False)
    planes, rows, columns = (3 - len(places)) * ((0,),) + places
    bind_taps(work, &job.w, isa.compute[compute], &array, code, to.p, groups, transposed, rows, columns, planes)
    job.pieces = 1
    if (groups * job.w.panels < 2 * threads
            and (job.w.channel_stride == job.w.kernels.size or job.w.output_stride == job.w.kernels.size)):
        job.pieces = max(<size>1, job.w.taps[0] * job.w.taps[1])   # taps lie apart: their rows may come one by one
    run_tasks(pack_task, &job, NULL, 0, groups * job.w.panels * job.pieces, threads)
    return not job.special


def sum_bytes(weight, sums):
    """The sums of the int8 weights (O, I/groups, [[kD,] kH,] kW) of each output, in any layout, into int32 side by side."""
    cdef Arrays arrays = Arrays()
    cdef View w, to
    cdef size channel, z, y
    try:
        arrays.view(weight, &w, False)
        arrays.view(sums, &to, True)
        with nogil:
            memset(to.p, 0, w.n[0] * sizeof(int))
            if (w.s[3] == 1 and w.s[2] == w.n[3] and w.s[1] == w.n[2] * w.s[2] and w.n[4] == 1
                    and w.n[1] * w.s[1] < 1 << 24):   # a row of all: it fits into the sums of bytes
                w.n[3], w.n[1], w.n[2] = w.n[1] * w.s[1], 1, 1
            for channel in range(w.n[1]):
                for z in range(w.n[4]):
                    for y in range(w.n[2]):
                        sum_row(&w, w.p + channel * w.s[1] + z * w.s[4] + y * w.s[2], <int*>to.p)
    finally:
        arrays.release()


cdef void sum_row(const View* w, const char* row, int* sums) noexcept nogil:
    """Add the taps of a row of every output; outputs innermost, and taps where those lie side by side."""
    cdef size o, x
    cdef const signed char* line
    cdef int sum
    if w.s[3] == 1 or w.n[3] == 1 and w.s[0] != 1:
        for o in range(w.n[0]):
            line, sum = <const signed char*>(row + o * w.s[0]), 0
            for x in range(w.n[3]):
                sum += line[x]
            sums[o] += sum
        return
    for x in range(w.n[3]):
        line = <const signed char*>(row + x * w.s[3])
        for o in range(w.n[0]):
            sums[o] += line[o * w.s[0]]


cdef struct Panels:
    Weights w
    size pieces              # of a panel: 1, or rows of taps
    char special             # raised when a weight is NaN or infinite


cdef void pack_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef Panels* job = <Panels*>job_
    cdef Weights* w = &job.w
    cdef size piece = task % job.pieces, panel = task // job.pieces % w.panels, group = task // job.pieces // w.panels
    if not pack_rows(w, group, panel, 0, w.channels, piece * w.taps[0] * w.taps[1] // job.pieces,
                     (piece + 1) * w.taps[0] * w.taps[1] // job.pieces, <char*>packed_panel(w, group, panel)):
        fc_raise_flag(&job.special)
