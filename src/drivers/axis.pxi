# Sums and running means along one axis of an array, in double precision (kernels/axis.h): filters of images.
#
#   where many elements lie side by side beyond the axis:
#     for outer x columns x rows                       threads take these
#       for row: sum over the rows under its window    lanes are columns; the samples stay in the second-level cache
#   else for line x piece of it:                       lanes are neighbours on the line
#   means: for outer x columns, or for a few lines     each a sum that one sample joins and one leaves
cdef extern from "axis.h" nogil:
    enum:
        FC_AXIS_COLUMNS, FC_AXIS_ROWS, FC_AXIS_CHUNK, FC_AXIS_LINES, FC_AXIS_PART
    ctypedef struct fc_axis:
        const char* x
        char* y
        int x_code, y_code, x_size, y_size
        Py_ssize_t outer, samples, n, inner, taps
        const Py_ssize_t* place
        double beyond
        const double* weight
        int symmetric
    ctypedef struct fc_axis_kernels:
        int (*across)(const fc_axis*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        int (*along)(const fc_axis*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        int (*means)(const fc_axis*, Py_ssize_t, Py_ssize_t, double*) noexcept nogil

cdef enum:
    ACROSS_FROM = 16   # elements side by side, from which on they are the lanes


cdef struct AxisJob:
    fc_axis a
    const fc_axis_kernels* kernels
    bint across
    size columns, rows, pieces      # runs of columns and of rows; of a line
    char* flags


def axis_scratch_bytes(size taps, size inner):
    """Scratch of one thread of `axis_sums` with weights."""
    return axis_scratch(taps, inner, False)


cdef size axis_scratch(size taps, size inner, bint means) noexcept nogil:
    cdef size samples, pointers = sizeof(void*)
    if means:   # a line more: the first output of a line is made of none that goes, and the others lie one further on
        return 8 * (3 * FC_AXIS_PART * FC_AXIS_LINES + FC_AXIS_LINES if inner == 1 else 3 * FC_AXIS_COLUMNS)
    if inner >= ACROSS_FROM:
        samples = FC_AXIS_ROWS + taps - 1
        return round_up(8 * FC_AXIS_COLUMNS * (2 + samples) + pointers * samples, 64)
    return round_up(8 * (2 * FC_AXIS_CHUNK + 64 + (taps + 1) * inner) + pointers * taps, 64)


def axis_sums(x, y, places, weight, double beyond, int symmetric, size taps, int threads):
    """y = sums of x, both C-contiguous (outer, samples or n, inner), over `taps` samples from each on along the extended
    axis.

    `places`: where its n + taps - 1 samples lie in x, int64, -1 for `beyond`. `weight`: float64, `symmetric` 1, -1 (its
    negative) or 0; None for running means. Returns False where an integer type does not hold a result, which is 0 there.
    """
    cdef Work work = Work()
    cdef AxisJob* job = <AxisJob*>work.own(sizeof(AxisJob))
    cdef View view
    work.view(x, &view, False)
    job.a.x, job.a.outer, job.a.samples, job.a.inner = view.p, view.n[0], view.n[1], view.n[3]
    work.view(y, &view, True)
    job.a.y, job.a.n = view.p, view.n[1]
    work.view(places, &view, False)
    job.a.place = <const size*>view.p
    job.a.weight = NULL
    if weight is not None:
        work.view(weight, &view, False)
        job.a.weight = <const double*>view.p
    job.a.x_code, job.a.y_code = DTYPES[x.dtype.name], DTYPES[y.dtype.name]
    job.a.x_size, job.a.y_size = x.itemsize, y.itemsize
    job.a.taps, job.a.beyond, job.a.symmetric = taps, beyond, symmetric
    job.kernels = <const fc_axis_kernels*>extra(isa.compute[<int>FC_COMPUTE_F64], "axis")
    job.across = job.a.inner >= ACROSS_FROM or (job.a.weight == NULL and job.a.inner > 1)
    job.columns = (job.a.inner + FC_AXIS_COLUMNS - 1) // FC_AXIS_COLUMNS
    job.rows = 1 if job.a.weight == NULL else (job.a.n + FC_AXIS_ROWS - 1) // FC_AXIS_ROWS
    job.pieces = (job.a.n * job.a.inner + FC_AXIS_CHUNK - 1) // FC_AXIS_CHUNK
    if job.a.outer * job.a.n * job.a.inner == 0:
        return True
    if job.across:
        work.tasks = job.a.outer * job.columns * job.rows
    elif job.a.weight == NULL:
        work.tasks = (job.a.outer + FC_AXIS_LINES - 1) // FC_AXIS_LINES
    else:
        work.tasks = job.a.outer * job.pieces
    work.task, work.job, work.flags, work.flag_count = axis_task, job, &job.flags, 1
    work.scratch_bytes = axis_scratch(taps, job.a.inner, job.a.weight == NULL)
    work.team(threads if job.a.outer * job.a.n * job.a.inner * (8 if weight is None else taps) >= PARALLEL_FROM_MACS else 1)
    return work.run() is None


cdef void axis_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const AxisJob* job = <const AxisJob*>job_
    cdef const fc_axis* a = &job.a
    cdef double* numbers = <double*>scratch
    cdef size column, row, good
    if fc_interrupted(watch):
        return
    if job.across:
        column, row = task % job.columns * FC_AXIS_COLUMNS, task // job.columns % job.rows * FC_AXIS_ROWS
        good = job.kernels.across(a, task // (job.columns * job.rows), column, min(<size>FC_AXIS_COLUMNS, a.inner - column),
                                  row, min(<size>FC_AXIS_ROWS, a.n - row), numbers)
    elif a.weight == NULL:
        row = task * FC_AXIS_LINES
        good = job.kernels.means(a, row, min(<size>FC_AXIS_LINES, a.outer - row), numbers)
    else:
        column = task % job.pieces * FC_AXIS_CHUNK
        good = job.kernels.along(a, task // job.pieces, column, min(<size>FC_AXIS_CHUNK, a.n * a.inner - column), numbers)
    if not good:
        fc_raise_flag(job.flags)
