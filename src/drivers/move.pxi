# Copies between arrays of one shape and any strides, and conversions: transposes, joins, cuts, repetitions, and, where an
# axis of the source has a table of places, gathers. Axes that lie side by side in both arrays are one; they are ordered by
# the result's.
#   for every task, a run of planes or of pieces of them:
#     for every plane: the two axes that the result's and the source's elements lie along, so that both sides are read and
#     written by whole cache lines (moves.h; a transpose of 1, 4 or 8 bytes in registers: kernels/transpose.h)

cdef enum:
    MOST_AXES = 64          # of NumPy's arrays
    MOST_MOVED = 8          # of those that are left when neighbours are one
    MOVE_BYTES = 1 << 16    # that a task moves, or a little more
    MOVE_TASKS = 1 << 10    # at most
    ALONE_BYTES = 1 << 17   # below this no team is started
    CAST_CHUNK = 1 << 14    # elements that a task converts

cdef extern from "moves.h" nogil:
    ctypedef struct fc_plane:
        Py_ssize_t rows, columns, item
        Py_ssize_t to_row, to_column, from_row, from_column
        const Py_ssize_t* row_at
        const Py_ssize_t* column_at
    void fc_move_plane(const fc_plane*, char*, const char*)
    enum:
        FC_U8_F32, FC_I8_F32, FC_I32_F32, FC_I64_F32, FC_F64_F32, FC_F32_TRUTH, FC_F32_I32, FC_F32_I64, FC_F32_F64
        FC_I32_I64, FC_I64_I32
    void fc_cast_line(int, void*, const void*, Py_ssize_t)

cdef struct MovedAxis:
    size n, to, source       # bytes from one to the next
    const size* table        # of the source's offsets in place of that; NULL: none

cdef struct Move:
    char* y
    char* x
    MovedAxis axes[MOST_MOVED]
    int count                # of the axes outside the plane, which come first
    MovedAxis rows, columns
    size item, pieces, piece_size, tasks, units
    bint cut_columns         # the pieces of a plane are of its columns
    fc_pack transpose        # NULL: the plane is none, or of elements that have no kernels


def move(out, x, tuple places, int threads):
    """out = x, arrays of one shape and element type, any strides; `places` holds for every axis None or an int64 array:
    which elements of x along it, in place of all."""
    cdef Work work = Work()
    cdef Move* job = <Move*>work.own(sizeof(Move))
    cdef MovedAxis axes[MOST_AXES]
    cdef const Py_buffer* to = work.hold(out, True)
    cdef const Py_buffer* source = work.hold(x, False)
    cdef MovedAxis axis
    cdef int i, count = 0
    cdef size total
    if to.ndim != source.ndim or to.itemsize != source.itemsize or to.ndim >= MOST_AXES or len(places) > to.ndim:
        raise ValueError("arrays of different axes or element types")
    job.y, job.x, total = <char*>to.buf, <char*>source.buf, to.itemsize
    for i in range(to.ndim):
        axis.n, axis.to, axis.source, axis.table = to.shape[i], to.strides[i], source.strides[i], NULL
        total *= axis.n
        if i < len(places) and places[i] is not None:
            axis.table = move_table(work, places[i], axis.n, source.shape[i], axis.source)
        elif source.shape[i] != axis.n:
            raise ValueError("arrays of different shapes")
        if axis.n == 1:
            job.x += axis.table[0] if axis.table != NULL else 0
        else:
            axes[count] = axis
            count += 1
    work.place(&job.y)
    work.place(&job.x)
    if total > 0:
        job.item = to.itemsize
        count = move_elements(job, axes, count)
        count = move_merged(job, axes, count)
        if count > MOST_MOVED:
            raise ValueError("too many axes that do not lie side by side")
        move_plane(job, axes, count)
        move_cut(job, total)
        work.task, work.job, work.even, work.tasks = move_task, job, True, job.tasks
        work.team(threads if total >= ALONE_BYTES else 1)
    work.run()


cdef const size* move_table(Work work, places, size n, size length, size stride) except NULL:
    """The offsets of the elements of an axis of `length` that are read."""
    cdef Arrays arrays = Arrays()
    cdef View view
    cdef size* table
    cdef size i
    try:
        arrays.view(places, &view, False)
        if view.n[3] != n or view.n[2] != 1 or arrays.buffers[0].itemsize != sizeof(size):
            raise ValueError("places must be as many int64 as the result is long")
        table = <size*>work.own(max(1, n) * sizeof(size))
        for i in range(n):
            table[i] = (<size*>(view.p + i * view.s[3]))[0]
            if not 0 <= table[i] < length:
                raise IndexError(f"place {table[i]} is outside an axis of {length}")
            table[i] *= stride
        return table
    finally:
        arrays.release()


cdef int move_elements(Move* job, MovedAxis* axes, int count) noexcept:
    """Elements that are no 1, 2, 4 or 8 bytes are axes themselves."""
    cdef size unit
    if job.item not in (1, 2, 4, 8):
        unit = 8 if job.item % 8 == 0 else 1
        axes[count].n, axes[count].to, axes[count].source, axes[count].table = job.item // unit, unit, unit, NULL
        job.item = unit
        return count + 1
    return count


cdef int move_merged(Move* job, MovedAxis* axes, int count) noexcept:
    """Axes in the order of the result's memory, forwards, neighbours that lie side by side in both as one."""
    cdef int i, j, kept = 0
    cdef MovedAxis axis
    for i in range(count):
        axis = axes[i]
        if axis.to < 0 and axis.table == NULL:
            job.y += (axis.n - 1) * axis.to
            job.x += (axis.n - 1) * axis.source
            axis.to, axis.source = -axis.to, -axis.source
        j = i
        while j > 0 and (axes[j - 1].to if axes[j - 1].to > 0 else -axes[j - 1].to) < (
                axis.to if axis.to > 0 else -axis.to):
            axes[j] = axes[j - 1]
            j -= 1
        axes[j] = axis
    for i in range(count):
        axis = axes[i]
        if kept and axis.table == NULL and axes[kept - 1].table == NULL and (
                axes[kept - 1].to == axis.n * axis.to and axes[kept - 1].source == axis.n * axis.source):
            axes[kept - 1].n *= axis.n
            axes[kept - 1].to, axes[kept - 1].source = axis.to, axis.source
        else:
            axes[kept] = axis
            kept += 1
    return kept


cdef void move_plane(Move* job, MovedAxis* axes, int count) noexcept:
    """Which two axes are the plane: the result's last and, where the source does not lie along it, the one that it does."""
    cdef MovedAxis one
    cdef int i, rows = count - 2
    one.n, one.to, one.source, one.table = 1, 0, 0, NULL
    job.columns = axes[count - 1] if count else one
    job.transpose = NULL
    if count > 1 and job.columns.table == NULL and job.columns.source != job.item:
        for i in range(count - 1):
            if axes[i].table == NULL and axes[i].source == job.item:
                rows = i
    job.rows = axes[rows] if count > 1 else one
    job.count = 0
    for i in range(count - 1):
        if i != rows:
            job.axes[job.count] = axes[i]
            job.count += 1
    if (count > 1 and job.rows.table == NULL and job.columns.table == NULL and job.rows.source == job.item
            and job.columns.to == job.item and job.rows.to % job.item == 0 and job.columns.source > 0
            and <size>job.y % job.item == 0 and move_outside_even(job)):
        if job.item == 4:
            job.transpose = isa.compute[<int>FC_COMPUTE_F32].pack[<int>FC_F32]
        elif job.item == 8:
            job.transpose = isa.compute[<int>FC_COMPUTE_F64].pack[<int>FC_F64]
        elif job.item == 1:
            job.transpose = isa.bytes.transpose


cdef bint move_outside_even(const Move* job) noexcept:
    """Whether every plane of the result begins at a whole number of elements."""
    cdef int i
    for i in range(job.count):
        if job.axes[i].to % job.item:
            return False
    return True


cdef void move_cut(Move* job, size total) noexcept:
    """Pieces of planes, so many that the tasks are small enough, and whole cache lines where they can be."""
    cdef size planes = 1, wanted = max(<size>1, min(<size>MOVE_TASKS, total // MOVE_BYTES)), length, pieces
    cdef int i
    for i in range(job.count):
        planes *= job.axes[i].n
    job.cut_columns = job.columns.n > job.rows.n
    length = job.columns.n if job.cut_columns else job.rows.n
    pieces = max(<size>1, min(length, (wanted + planes - 1) // planes))
    job.piece_size = round_up((length + pieces - 1) // pieces, 64 if job.cut_columns or job.transpose != NULL else 1)
    job.pieces = (length + job.piece_size - 1) // job.piece_size
    job.units = planes * job.pieces
    job.tasks = min(job.units, wanted)


cdef inline size moved_to(const MovedAxis* axis, size at) noexcept nogil:
    return axis.table[at] if axis.table != NULL else at * axis.source


cdef void move_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Move* job = <const Move*>job_
    cdef size unit = job.units * task // job.tasks, end = job.units * (task + 1) // job.tasks, rest, piece
    cdef size at[MOST_MOVED]
    cdef char* to
    cdef const char* source
    cdef int i, planes = 0
    rest = unit // job.pieces
    piece = unit % job.pieces
    for i in range(job.count - 1, -1, -1):
        at[i] = rest % job.axes[i].n
        rest = rest // job.axes[i].n
    while unit < end:
        planes += 1
        if planes % 16 == 0 and fc_interrupted(watch):   # most are too short for a look each
            return
        to, source = job.y, job.x
        for i in range(job.count):
            to += at[i] * job.axes[i].to
            source += moved_to(&job.axes[i], at[i])
        while piece < job.pieces and unit < end:
            move_piece(job, to, source, piece)
            piece += 1
            unit += 1
        piece, i = 0, job.count - 1
        while i >= 0:   # the next plane
            at[i] += 1
            if at[i] < job.axes[i].n:
                break
            at[i] = 0
            i -= 1


cdef void move_piece(const Move* job, char* to, const char* source, size piece) noexcept nogil:
    cdef fc_plane plane
    cdef size first = piece * job.piece_size
    plane.rows, plane.columns, plane.item = job.rows.n, job.columns.n, job.item
    plane.to_row, plane.to_column = job.rows.to, job.columns.to
    plane.from_row, plane.from_column = job.rows.source, job.columns.source
    plane.row_at, plane.column_at = job.rows.table, job.columns.table
    if job.cut_columns:
        plane.columns = min(job.piece_size, job.columns.n - first)
        to += first * job.columns.to
        if plane.column_at != NULL:
            plane.column_at += first
        else:
            source += first * job.columns.source
    else:
        plane.rows = min(job.piece_size, job.rows.n - first)
        to += first * job.rows.to
        if plane.row_at != NULL:
            plane.row_at += first
        else:
            source += first * job.rows.source
    if job.transpose != NULL and plane.columns >= 8 and plane.rows >= 8:
        job.transpose(to, plane.to_row // job.item, plane.rows, plane.columns, source, plane.from_row,
                      plane.from_column)
    else:
        fc_move_plane(&plane, to, source)


# Which conversions there are: from and to by NumPy's names, the number, and the bytes of an element of both.
CASTS = {
    ("uint8", "float32"): (FC_U8_F32, 1, 4), ("bool", "float32"): (FC_U8_F32, 1, 4),
    ("int8", "float32"): (FC_I8_F32, 1, 4), ("int32", "float32"): (FC_I32_F32, 4, 4),
    ("int64", "float32"): (FC_I64_F32, 8, 4), ("float64", "float32"): (FC_F64_F32, 8, 4),
    ("float32", "bool"): (FC_F32_TRUTH, 4, 1), ("float32", "int32"): (FC_F32_I32, 4, 4),
    ("float32", "int64"): (FC_F32_I64, 4, 8), ("float32", "float64"): (FC_F32_F64, 4, 8),
    ("int32", "int64"): (FC_I32_I64, 4, 8), ("int64", "int32"): (FC_I64_I32, 8, 4),
}

cdef extern from "moves.h" nogil:
    void fc_interleave(size item, void* to, const void* a, const void* b, size count)

cdef struct Interleave:
    View y, a, b
    size item, tasks


def interleave(out, a, b, int threads):
    """out (N, H, W, 2 C) = the channels of a and b (N, H, W, C) in turns. Channels lie side by side, in elements of one, two,
    four or eight bytes."""
    cdef Work work = Work()
    cdef Interleave* job = <Interleave*>work.own(sizeof(Interleave))
    cdef int i
    work.activation(out, &job.y, True, True)
    work.activation(a, &job.a, False, True)
    work.activation(b, &job.b, False, True)
    job.item = work.buffers[0].itemsize
    for i in range(5):
        if job.a.n[i] != job.b.n[i] or job.y.n[i] != job.a.n[i] * (2 if i == 1 else 1):
            raise ValueError("arrays of other shapes")
    if (job.item not in (1, 2, 4, 8) or work.buffers[1].itemsize != job.item or work.buffers[2].itemsize != job.item
            or job.y.s[1] != job.item or (job.a.n[1] > 1 and (job.a.s[1] != job.item or job.b.s[1] != job.item))):
        raise ValueError("arrays that do not lie as they should")
    work.place(&job.y.p)
    work.place(&job.a.p)
    work.place(&job.b.p)
    job.tasks = min(job.y.n[0] * job.y.n[4] * job.y.n[2], max(<size>1, elements(&job.y) * job.item // MOVE_BYTES))
    work.task, work.job, work.even, work.tasks = interleave_task, job, True, job.tasks
    work.team(threads)
    work.run()


cdef void interleave_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """Some rows, pixel by pixel or, where pixels follow each other, at once."""
    cdef const Interleave* job = <const Interleave*>job_
    cdef const View* y = &job.y
    cdef size rows = y.n[0] * y.n[4] * y.n[2], row = rows * task // job.tasks, end = rows * (task + 1) // job.tasks
    cdef size image, plane, line, pixel, together = 1, channels = job.a.n[1]
    if (y.s[3] == 2 * channels * job.item and job.a.s[3] == channels * job.item and job.b.s[3] == channels * job.item):
        together = y.n[3]
    for row in range(row, end):
        if fc_interrupted(watch):
            return
        line, plane, image = row % y.n[2], row // y.n[2] % y.n[4], row // (y.n[2] * y.n[4])
        pixel = 0
        while pixel < y.n[3]:
            fc_interleave(job.item, y.p + interleaved_at(y, image, plane, line, pixel),
                          job.a.p + interleaved_at(&job.a, image, plane, line, pixel),
                          job.b.p + interleaved_at(&job.b, image, plane, line, pixel), together * channels)
            pixel += together


cdef inline size interleaved_at(const View* x, size image, size plane, size line, size pixel) noexcept nogil:
    return image * x.s[0] + plane * x.s[4] + line * x.s[2] + pixel * x.s[3]


cdef struct Cast:
    View x, y
    int code
    size item, to_item, count


def cast(out, x, tuple how, int threads):
    """out = x in another type, both flat and side by side in memory; `how` of CASTS."""
    cdef Work work = Work()
    cdef Cast* job = <Cast*>work.own(sizeof(Cast))
    job.code, job.item, job.to_item = how
    work.view(out, &job.y, True)
    work.view(x, &job.x, False)
    job.count = job.y.n[3]
    if (elements(&job.x) != job.count or elements(&job.y) != job.count or job.x.n[3] != job.count
            or work.buffers[0].itemsize != job.to_item or work.buffers[1].itemsize != job.item
            or (job.count > 1 and (job.x.s[3] != job.item or job.y.s[3] != job.to_item))):
        raise ValueError("arrays that are not flat, equally long and of these types")
    work.place(&job.x.p)
    work.place(&job.y.p)
    work.task, work.job, work.even = cast_task, job, True
    work.tasks = (job.count + CAST_CHUNK - 1) // CAST_CHUNK
    work.team(threads if job.count * (job.item + job.to_item) >= ALONE_BYTES else 1)
    work.run()


cdef void cast_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Cast* job = <const Cast*>job_
    cdef size first = task * CAST_CHUNK
    fc_cast_line(job.code, job.y.p + first * job.to_item, job.x.p + first * job.item,
                 min(<size>CAST_CHUNK, job.count - first))
