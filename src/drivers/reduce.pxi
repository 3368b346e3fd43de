# Sums, means and extremes along an axis of (outer, reduced, inner), whose innermost elements lie side by side.
#   for every task, a run of outer x chunks of inner x parts of reduced: one pass over its rows into sums that stay in the
#   first level; where an axis has several parts, a second work adds them in their order
# Parts follow from `reduced` and `inner` alone, so that bits depend neither on threads nor on the batch. Sums are made
# in double, of doubles with what they round off (kernels/rows.h).

cdef enum:
    REDUCE_CHUNK = 1024         # elements side by side whose sums a task holds
    REDUCE_PART = 1 << 15       # elements of a part, or a little more
    REDUCE_PARTS = 16           # at most
    REDUCE_TASK = 1 << 14       # elements of a task, or a little more
    REDUCE_ALONE = 1 << 16      # elements below which no team is started
    LOOKS = 16                  # units of a task between two looks for signals: most are too short for one each

cdef extern from "math.h" nogil:
    double sqrt(double)
    double INFINITY

cdef struct Reduce:
    const fc_row_kernels* kernels
    View x, y                   # outer, reduced (of y: 1), inner: axes 1 to 3
    size item, chunk, chunks, parts, part_rows, sums_bytes, units, tasks
    int how
    bint mean, root, last       # the last of equal extremes is the one whose place is asked for
    char* sums                  # of all parts, where there are several


def reduce(str how, out, x, int threads):
    """out (outer, 1, inner) = `how` of x (outer, reduced, inner) along the middle axis: sum, mean, squares (their sum),
    norm (its root), magnitudes (their sum), max or min. Float32 or float64; of nothing a sum is 0, a mean NaN."""
    cdef Work work = Work(), end = Work()
    cdef Reduce* job = <Reduce*>work.own(sizeof(Reduce))
    cdef size terms
    job.how = {"sum": FC_JOIN_SUM, "mean": FC_JOIN_SUM, "squares": FC_JOIN_SQUARES, "norm": FC_JOIN_SQUARES,
               "magnitudes": FC_JOIN_MAGNITUDES, "max": FC_JOIN_MAX, "min": FC_JOIN_MIN}[how]
    job.mean, job.root = how == "mean", how == "norm"
    work.view(out, &job.y, True)
    lay_three(&job.y)
    if work.buffers[0].itemsize != x.itemsize:
        raise ValueError("arrays of several types")
    work.view(x, &job.x, False)
    lay_three(&job.x)
    job.item = work.buffers[0].itemsize
    job.kernels = isa.rows[layer_code(job.item)]
    if job.x.n[1] != job.y.n[1] or job.x.n[3] != job.y.n[3] or job.y.n[2] != 1 or (
            job.x.n[3] > 1 and job.x.s[3] != job.item):
        raise ValueError("arrays that do not lie as rows")
    work.place(&job.x.p)
    job.chunk = min(job.x.n[3], <size>REDUCE_CHUNK)
    terms = job.x.n[2] * job.chunk
    job.parts = max(<size>1, min(<size>REDUCE_PARTS, min(terms // REDUCE_PART, job.x.n[2])))
    job.part_rows = (job.x.n[2] + job.parts - 1) // job.parts
    job.sums_bytes = round_up(16 * job.chunk, 64)
    if job.x.n[1] * job.x.n[3] > 0:
        job.chunks = (job.x.n[3] + job.chunk - 1) // job.chunk
        job.units = job.x.n[1] * job.chunks * job.parts
        job.tasks = min(job.units, max(<size>1, elements(&job.x) // REDUCE_TASK))
        job.sums = NULL
        if job.parts > 1:
            job.sums = <char*>work.own(job.units * job.sums_bytes)
        work.task, work.job, work.even, work.tasks = reduce_task, job, True, job.tasks
        work.scratch_bytes = job.sums_bytes
        work.team(threads if elements(&job.x) >= REDUCE_ALONE else 1)
    if job.parts == 1 or job.tasks == 0:
        work.place(&job.y.p)
        work.run()
        return
    end.keep = work
    end.view(out, &job.y, True)
    lay_three(&job.y)
    end.place(&job.y.p)
    end.task, end.job, end.tasks, end.even = reduce_end, job, job.x.n[1] * job.chunks, True
    end.team(threads if end.tasks * job.chunk * job.parts >= REDUCE_ALONE else 1)
    work.run()
    end.run()


cdef void lay_three(View* view) noexcept:
    """The three axes of an array, which has them as N, C and W, as the axes 1 to 3."""
    view.n[1], view.n[2], view.n[3] = view.n[0], view.n[1], view.n[3]
    view.s[1], view.s[2], view.s[3] = view.s[0], view.s[1], view.s[3]
    view.n[0], view.s[0] = 1, 0


cdef void reduce_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Reduce* job = <const Reduce*>job_
    cdef size unit = job.units * task // job.tasks, end = job.units * (task + 1) // job.tasks
    cdef size part, piece, first, rows, count
    cdef char* sums
    cdef const char* x
    for unit in range(unit, end):
        if unit % LOOKS == 0 and fc_interrupted(watch):
            return
        part, piece = unit % job.parts, unit // job.parts
        first = piece % job.chunks * job.chunk
        count = min(job.chunk, job.x.n[3] - first)
        rows = max(<size>0, min(job.part_rows, job.x.n[2] - part * job.part_rows))
        sums = scratch if job.parts == 1 else job.sums + unit * job.sums_bytes
        x = (job.x.p + piece // job.chunks * job.x.s[1] + part * job.part_rows * job.x.s[2] + first * job.x.s[3])
        reduce_begin(job, sums, count)
        if count == 1 and job.x.s[2] == job.item:
            job.kernels.join_line(job.how, x, rows, sums)
        else:
            job.kernels.join(job.how, x, job.x.s[2], rows, count, sums)
        if job.parts == 1:
            reduce_store(job, piece, sums)


cdef void reduce_begin(const Reduce* job, char* sums, size count) noexcept nogil:
    """Sums of nothing."""
    cdef size c
    cdef double worst = -INFINITY if job.how == FC_JOIN_MAX else INFINITY
    if job.how not in (FC_JOIN_MAX, FC_JOIN_MIN):
        memset(sums, 0, 16 * count)
    elif job.item == 4:
        for c in range(count):
            (<float*>sums)[c] = <float>worst
    else:
        for c in range(count):
            (<double*>sums)[c] = worst


cdef void reduce_end(void* job_, char* scratch, size piece, fc_watch* watch) noexcept nogil:
    """The parts of one chunk, in their order, joined in the first one's place."""
    cdef const Reduce* job = <const Reduce*>job_
    cdef size part, c, count = min(job.chunk, job.x.n[3] - piece % job.chunks * job.chunk)
    cdef char* sums = job.sums + piece * job.parts * job.sums_bytes
    cdef double* total = <double*>sums
    cdef const double* one
    cdef double after, added
    for part in range(1, job.parts):
        one = <const double*>(sums + part * job.sums_bytes)
        if job.how in (FC_JOIN_MAX, FC_JOIN_MIN):
            job.kernels.join(job.how, <const char*>one, 0, 1, count, sums)
            continue
        for c in range(count):
            after = total[c] + one[c]
            added = after - total[c]
            if job.item == 8:
                total[count + c] += (total[c] - (after - added)) + (one[c] - added) + one[count + c]
            total[c] = after
    reduce_store(job, piece, sums)


cdef void reduce_store(const Reduce* job, size piece, const char* sums) noexcept nogil:
    """The sums of one chunk as results."""
    cdef size first = piece % job.chunks * job.chunk, count = min(job.chunk, job.x.n[3] - first), c
    cdef char* y = job.y.p + piece // job.chunks * job.y.s[1] + first * job.y.s[3]
    cdef const double* total = <const double*>sums
    cdef double value, both
    for c in range(count):
        if job.how in (FC_JOIN_MAX, FC_JOIN_MIN):
            memcpy(y + c * job.y.s[3], sums + c * job.item, job.item)
            continue
        value = total[c]
        if job.item == 8:
            both = value + total[count + c]
            value = both if both == both else value   # what an infinite sum rounds off is NaN
        if job.mean:
            value /= <double>job.x.n[2]
        if job.root:
            value = sqrt(value)
        if job.item == 4:
            (<float*>(y + c * job.y.s[3]))[0] = <float>value
        else:
            (<double*>(y + c * job.y.s[3]))[0] = value


def extreme_places(str how, bint last, out, x, int threads):
    """out (outer, 1, inner), int64 = where along the middle axis of x (outer, reduced, inner) the largest ('max') or smallest
    ('min') element is, of equals the first or the `last`; NaN is beyond all. Float32 or float64."""
    cdef Work work = Work()
    cdef Reduce* job = <Reduce*>work.own(sizeof(Reduce))
    job.how = {"max": FC_JOIN_MAX, "min": FC_JOIN_MIN}[how]
    job.last = last
    work.view(out, &job.y, True)
    lay_three(&job.y)
    if work.buffers[0].itemsize != sizeof(size):
        raise ValueError("places are int64")
    work.view(x, &job.x, False)
    lay_three(&job.x)
    job.item = work.buffers[1].itemsize
    job.kernels = isa.rows[layer_code(job.item)]
    if (job.x.n[1] != job.y.n[1] or job.x.n[3] != job.y.n[3] or job.y.n[2] != 1 or not 0 < job.x.n[2] < 1 << 31
            or (job.x.n[3] > 1 and job.x.s[3] != job.item)):
        raise ValueError("arrays that do not lie as rows")
    work.place(&job.x.p)
    work.place(&job.y.p)
    job.chunk = min(job.x.n[3], <size>REDUCE_CHUNK)
    job.sums_bytes = round_up(job.chunk * job.item, 64)
    if job.x.n[1] * job.x.n[3] > 0:
        job.chunks = (job.x.n[3] + job.chunk - 1) // job.chunk
        job.units = job.x.n[1] * job.chunks
        job.tasks = min(job.units, max(<size>1, elements(&job.x) // REDUCE_TASK))
        work.task, work.job, work.even, work.tasks = places_task, job, True, job.tasks
        work.scratch_bytes = 2 * job.sums_bytes
        work.team(threads if elements(&job.x) >= REDUCE_ALONE else 1)
    work.run()


cdef void places_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Reduce* job = <const Reduce*>job_
    cdef size unit = job.units * task // job.tasks, end = job.units * (task + 1) // job.tasks, outer, first, count, c
    cdef char* found = scratch + job.sums_bytes
    cdef char* y
    for unit in range(unit, end):
        if fc_interrupted(watch):
            return
        outer, first = unit // job.chunks, unit % job.chunks * job.chunk
        count = min(job.chunk, job.x.n[3] - first)
        job.kernels.place(job.how, job.last, job.x.p + outer * job.x.s[1] + first * job.x.s[3], job.x.s[2], job.x.n[2],
                          count, scratch, found)
        y = job.y.p + outer * job.y.s[1] + first * job.y.s[3]
        for c in range(count):
            (<size*>(y + c * job.y.s[3]))[0] = (<int*>found)[c] if job.item == 4 else (<size*>found)[c]
