# Resizing: along two axes at most, every result a weighted sum of some of the source's elements.
#   for every task, a run of rows of results:
#     the rows of the source under a row of results are blended into one that stays in the first or second level;
#     along that, every result blends pixels of several channels
# Elements of one channel are picked one by one, which costs more than blending rows: that is done once for every row of the
# source, and the rows are held while rows of results that are near each other need them.

cdef enum:
    RESIZE_TASK = 1 << 14       # results of a task, or a little more
    RESIZE_ALONE = 1 << 15      # results below which no team is started
    HELD_BYTES = 1 << 19        # of rows that are picked once

cdef struct Taps:
    const size* index           # of every result and tap; NULL: the axis stays as it is
    const char* weight
    size count                  # of taps

cdef struct Resize:
    const fc_row_kernels* kernels
    View x, y                   # (outer, rows, columns, channels): axes 0 to 3
    Taps rows, columns
    size item, tasks, row_bytes
    size held                   # rows whose columns are resized first: as many as one of results may need; 0: none


def resize(out, x, rows, columns, int threads):
    """out (outer, rows, columns, channels) from x, of which columns and channels lie side by side. `rows` and `columns`
    are None, where the axis stays, or the taps of every result: int64 places and weights of the arrays' type, both
    (results, taps)."""
    cdef Work work = Work()
    cdef Resize* job = <Resize*>work.own(sizeof(Resize))
    cdef size results
    work.view(out, &job.y, True)
    work.view(x, &job.x, False)
    job.item = work.buffers[0].itemsize
    if work.buffers[1].itemsize != job.item or job.x.n[0] != job.y.n[0] or job.x.n[3] != job.y.n[3] or (
            not lies_in_rows(&job.x, job.item) or (job.y.n[3] > 1 and job.y.s[3] != job.item)
            or job.y.s[2] % job.item or job.x.n[4] * job.y.n[4] != 1):
        raise ValueError("arrays that do not lie as rows of pixels")
    job.kernels = isa.rows[layer_code(job.item)]
    bind_taps_of(work, &job.rows, rows, job.y.n[1], job.x.n[1], job.item)
    bind_taps_of(work, &job.columns, columns, job.y.n[2], job.x.n[2], job.item)
    work.place(&job.y.p)
    work.place(&job.x.p)
    results = elements(&job.y)
    if results > 0:
        job.row_bytes = round_up(job.x.n[2] * job.x.n[3] * job.item, 64)
        job.held = rows_needed(job)
        job.tasks = min(job.y.n[0] * job.y.n[1], max(<size>1, results // RESIZE_TASK))
        work.task, work.job, work.even, work.tasks = resize_task, job, True, job.tasks
        work.scratch_bytes = max(<size>1, job.held) * job.row_bytes + round_up(
            (max(job.rows.count, job.columns.count) + job.held) * sizeof(void*), 64)
        work.team(threads if results >= RESIZE_ALONE else 1)
    work.run()


cdef size rows_needed(Resize* job) noexcept:
    """How many rows of the source those of one row of results span, if they are to be held; then a row in scratch is one of
    results."""
    cdef size row, t, low, high, most = 0, bytes = round_up(job.y.n[2] * job.item, 64)
    cdef const size* index = job.rows.index
    if index == NULL or job.columns.index == NULL or job.y.n[3] != 1 or job.y.s[2] != job.item:
        return 0
    for row in range(job.y.n[1]):
        low = high = index[0]
        for t in range(job.rows.count):
            low, high = min(low, index[t]), max(high, index[t])
        most = max(most, high - low + 1)
        index += job.rows.count
    if most * bytes > HELD_BYTES:
        return 0
    job.row_bytes = bytes
    return most


cdef bint lies_in_rows(const View* x, size item) noexcept:
    return (x.n[3] == 1 or x.s[3] == item) and (x.n[2] == 1 or x.s[2] == x.n[3] * item)


cdef int bind_taps_of(Work work, Taps* taps, given, size results, size length, size item) except -1:
    """The taps along an axis of `length`, in memory of the work."""
    cdef Arrays arrays = Arrays()
    cdef View index, weight
    cdef size* places
    cdef size i
    taps.index, taps.count = NULL, 0
    if given is None:
        if results != length:
            raise ValueError("an axis without taps has another length")
        return 0
    try:
        arrays.view(given[0], &index, False)
        arrays.view(given[1], &weight, False)
        taps.count = index.n[3]
        if (index.n[2] != results or weight.n[2] != results or weight.n[3] != taps.count or taps.count < 1
                or arrays.buffers[0].itemsize != sizeof(size) or arrays.buffers[1].itemsize != item):
            raise ValueError("places and weights must be arrays (results, taps)")
        places = <size*>work.own(max(1, results * taps.count) * sizeof(size))
        taps.weight = <char*>work.own(max(1, results * taps.count) * item)
        taps.index = places
        for i in range(results * taps.count):
            places[i] = (<size*>(index.p + i // taps.count * index.s[2] + i % taps.count * index.s[3]))[0]
            if not 0 <= places[i] < length:
                raise IndexError(f"place {places[i]} is outside an axis of {length}")
            memcpy(<char*>taps.weight + i * item, weight.p + i // taps.count * weight.s[2] + i % taps.count * weight.s[3],
                   item)
        return 0
    finally:
        arrays.release()


cdef void resize_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Resize* job = <const Resize*>job_
    cdef size total = job.y.n[0] * job.y.n[1], unit = total * task // job.tasks, end = total * (task + 1) // job.tasks
    cdef size outer, row, t
    cdef const void** source = <const void**>(scratch + max(<size>1, job.held) * job.row_bytes)
    cdef size* holds = <size*>(source + max(job.rows.count, job.columns.count))
    cdef const char* x
    cdef char* y
    for t in range(job.held):
        holds[t] = -1
    for unit in range(unit, end):
        if fc_interrupted(watch):
            return
        outer, row = unit // job.y.n[1], unit % job.y.n[1]
        x = job.x.p + outer * job.x.s[0]
        y = job.y.p + outer * job.y.s[0] + row * job.y.s[1]
        if job.rows.index == NULL:
            resize_columns(job, y, x + row * job.x.s[1], source)
            continue
        if job.held:
            for t in range(job.rows.count):
                source[t] = held_row(job, outer, job.rows.index[row * job.rows.count + t], scratch, holds)
            job.kernels.blend(y, source, job.rows.weight + row * job.rows.count * job.item, job.rows.count, job.y.n[2])
            continue
        for t in range(job.rows.count):
            source[t] = x + job.rows.index[row * job.rows.count + t] * job.x.s[1]
        if job.columns.index == NULL:
            resize_rows(job, y, source, row)
        else:
            job.kernels.blend(scratch, source, job.rows.weight + row * job.rows.count * job.item, job.rows.count,
                              job.x.n[2] * job.x.n[3])
            resize_columns(job, y, scratch, source)


cdef const char* held_row(const Resize* job, size outer, size row, char* scratch, size* holds) noexcept nogil:
    """A row of the source with its columns resized; rows that one row of results needs lie in places of their own."""
    cdef size place = row % job.held
    cdef char* to = scratch + place * job.row_bytes
    if holds[place] != outer * job.x.n[1] + row:
        holds[place] = outer * job.x.n[1] + row
        job.kernels.pick(to, 1, job.x.p + outer * job.x.s[0] + row * job.x.s[1], job.columns.index, job.columns.weight,
                         job.columns.count, job.y.n[2])
    return to


cdef void resize_rows(const Resize* job, char* y, const void** source, size row) noexcept nogil:
    """A row of results whose columns stay: at once where they lie side by side, else pixel by pixel."""
    cdef const char* weight = job.rows.weight + row * job.rows.count * job.item
    cdef size pixel = job.x.n[3] * job.item, column, t
    if job.y.s[2] == pixel or job.y.n[2] == 1:
        job.kernels.blend(y, source, weight, job.rows.count, job.x.n[2] * job.x.n[3])
        return
    for column in range(job.y.n[2]):
        job.kernels.blend(y + column * job.y.s[2], source, weight, job.rows.count, job.x.n[3])
        for t in range(job.rows.count):
            source[t] = <const char*>source[t] + pixel


cdef void resize_columns(const Resize* job, char* y, const char* x, const void** source) noexcept nogil:
    cdef size column, t, pixel = job.x.n[3] * job.item
    cdef const size* index = job.columns.index
    if index == NULL:
        for column in range(job.y.n[2]):
            memcpy(y + column * job.y.s[2], x + column * pixel, pixel)
        return
    if job.y.n[3] == 1:
        job.kernels.pick(y, job.y.s[2] // job.item, x, index, job.columns.weight, job.columns.count, job.y.n[2])
        return
    for column in range(job.y.n[2]):
        for t in range(job.columns.count):
            source[t] = x + index[t] * pixel
        job.kernels.blend(y + column * job.y.s[2], source, job.columns.weight + column * job.columns.count * job.item,
                          job.columns.count, job.y.n[3])
        index += job.columns.count
