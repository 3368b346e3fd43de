# Softmax and normalisations over C-contiguous arrays of float32 or float64, seen as (rows, length) or as (outer, length,
# columns). Sums are cut by shape alone: no bit depends on the number of threads.

cdef enum:
    ROW_VALUES = 16384      # of a task of rows, at least: some ten microseconds
    ROW_PART = 65536        # values of a row whose moments are of one task
    COLUMN_PIXELS = 1024    # the same of columns

cdef struct RowJob:
    const fc_norm_kernels* kernels
    View y, x, scale, shift, sums, found
    size item, outer, length, columns       # columns 0: rows
    size parts, segments, groups            # of a row or of columns; of a row with a scale each; of columns
    size step                               # rows of a task
    double epsilon
    bint centre, flag


cdef RowJob* row_job(Work work, y, x, size outer, size length, size columns) except NULL:
    """Arrays as they lie in memory, in one row each."""
    cdef RowJob* job = <RowJob*>work.own(sizeof(RowJob))
    memset(job, 0, sizeof(RowJob))
    if y is not None:
        work.view(y, &job.y, True)
        work.place(&job.y.p)
    work.view(x, &job.x, False)
    work.place(&job.x.p)
    job.item = work.buffers[0].itemsize
    job.kernels = isa.norms[layer_code(job.item)]
    job.outer, job.length, job.columns, job.parts = outer, length, columns, 1
    if elements(&job.x) != outer * length * max(<size>1, columns):
        raise ValueError("the shape is not the array's")
    return job


cdef int row_operand(Work work, array, View* view, bint writable) except -1:
    if array is not None:
        work.view(array, view, writable)
        work.place(&view.p)
    return 0


cdef int row_tasks(Work work, RowJob* job, fc_task task, size tasks, int threads) except -1:
    work.task, work.job, work.tasks = task, job, tasks if elements(&job.x) > 0 else 0
    work.team(threads)
    work.run()
    return 0


# ---- softmax ---------------------------------------------------------------------------------------------------

def softmax(y, x, tuple shape, bint logarithm, int threads):
    """y = softmax of x seen as (outer, length, inner), along the second axis, or its logarithm; y may be x."""
    cdef Work work = Work()
    cdef size outer = shape[0], length = shape[1], inner = shape[2]
    cdef RowJob* job = row_job(work, y, x, outer, length, 0 if inner == 1 else inner)
    job.flag = logarithm
    if inner == 1:
        job.step = max(<size>1, ROW_VALUES // max(<size>1, length))
        row_tasks(work, job, softmax_rows_task, (outer + job.step - 1) // job.step, threads)
    else:
        job.parts = (inner + FC_MOST_COLUMNS - 1) // FC_MOST_COLUMNS
        row_tasks(work, job, softmax_columns_task, outer * job.parts, threads)


cdef void softmax_rows_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const RowJob* job = <const RowJob*>job_
    cdef size row, bytes = job.length * job.item
    for row in range(task * job.step, min(job.outer, (task + 1) * job.step)):
        job.kernels.softmax(job.y.p + row * bytes, job.x.p + row * bytes, job.length, job.flag)


cdef void softmax_columns_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const RowJob* job = <const RowJob*>job_
    cdef size first = task % job.parts * FC_MOST_COLUMNS
    cdef size at = (task // job.parts * job.length * job.columns + first) * job.item
    job.kernels.column_softmax(job.y.p + at, job.x.p + at, job.columns, job.length,
                               min(<size>FC_MOST_COLUMNS, job.columns - first), job.flag)


# ---- rows of their own mean and deviation ----------------------------------------------------------------------

def normalise_rows(y, x, size rows, size length, scale, shift, size segments, sums, double epsilon, bint centre,
                   int threads):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + shift for every row; without `centre` by the mean square.

    `segments` 0: scale and shift (or None) have a value for each of a row's, or for the first ones, and then begin anew;
    else a row has so many segments of one scale and shift, which repeat behind the last. `sums` (float64) has
    room for two numbers for each of the `row_parts` of every row; y may be x.
    """
    cdef Work work = Work()
    cdef RowJob* job
    cdef size parts = row_parts(length)
    if parts > 1:
        job = row_job(work, None, x, rows, length, 0)
        row_operand(work, sums, &job.sums, True)
        job.parts, job.centre = parts, centre
        row_tasks(work, job, moments_task, rows * parts, threads)
        work = Work()
    job = row_job(work, y, x, rows, length, 0)
    row_operand(work, scale, &job.scale, False)
    row_operand(work, shift, &job.shift, False)
    row_operand(work, sums if parts > 1 else None, &job.sums, False)
    job.parts, job.centre, job.segments, job.epsilon = parts, centre, segments, epsilon
    job.step = max(<size>1, ROW_VALUES // max(<size>1, length))
    row_tasks(work, job, normalise_rows_task, (rows + job.step - 1) // job.step if parts == 1 else rows * parts, threads)


cpdef size row_parts(size length):
    """The parts that the moments of a row of so many values are made of."""
    return max(<size>1, (length + ROW_PART - 1) // ROW_PART)


cdef void moments_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const RowJob* job = <const RowJob*>job_
    cdef size first = task % job.parts * ROW_PART
    job.kernels.moments(job.x.p + (task // job.parts * job.length + first) * job.item,
                        min(<size>ROW_PART, job.length - first), job.centre, <double*>job.sums.p + 2 * task)


cdef void merge(double* moments, double count, const double* more, double others, bint centre) noexcept nogil:
    """Moments of `count` values and those of others (Chan, Golub and LeVeque 1979)."""
    cdef double apart = more[0] - moments[0], total = count + others
    if centre:
        moments[0] += apart * (others / total)
        moments[1] += apart * apart * (count * others / total)
    moments[1] += more[1]


cdef void normalise_rows_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const RowJob* job = <const RowJob*>job_
    cdef size row, part, first
    cdef double moments[2]
    if job.parts == 1:
        for row in range(task * job.step, min(job.outer, (task + 1) * job.step)):
            job.kernels.moments(job.x.p + row * job.length * job.item, job.length, job.centre, moments)
            normalise_part(job, row, 0, job.length, moments)
        return
    row = task // job.parts
    moments[0] = moments[1] = 0
    for part in range(job.parts):
        first = part * ROW_PART
        merge(moments, first, <double*>job.sums.p + 2 * (row * job.parts + part),
              min(<size>ROW_PART, job.length - first), job.centre)
    first = task % job.parts * ROW_PART
    normalise_part(job, row, first, min(job.length, first + ROW_PART), moments)


cdef double number_at(const View* view, size at, size item, double otherwise) noexcept nogil:
    """An element of a vector that may not be there."""
    if view.p == NULL:
        return otherwise
    return (<const float*>view.p)[at] if item == 4 else (<const double*>view.p)[at]


cdef void normalise_part(const RowJob* job, size row, size begin, size end, const double* moments) noexcept nogil:
    """The values from `begin` to `end` of a row."""
    cdef double factor = 1 / sqrt(moments[1] / job.length + job.epsilon)
    cdef size offset = row * job.length, item = job.item, each, segment, vector, until, scale = 0, shift = 0
    cdef char* y = job.y.p + offset * item
    cdef const char* x = job.x.p + offset * item
    while job.segments == 0 and begin < end:
        until = end
        if job.scale.p != NULL:
            scale = begin % job.scale.n[3]
            until = min(until, begin + job.scale.n[3] - scale)
        if job.shift.p != NULL:
            shift = begin % job.shift.n[3]
            until = min(until, begin + job.shift.n[3] - shift)
        job.kernels.normalise(y + begin * item, x + begin * item, until - begin, moments[0], factor,
                              NULL if job.scale.p == NULL else job.scale.p + scale * item,
                              NULL if job.shift.p == NULL else job.shift.p + shift * item, 0)
        begin = until
    if job.segments == 0:
        return
    each = job.length // job.segments
    while begin < end:
        segment = begin // each
        until = min(end, (segment + 1) * each)
        vector = (row * job.segments + segment) % job.scale.n[3]
        job.kernels.normalise(y + begin * item, x + begin * item, until - begin, moments[0],
                              factor * number_at(&job.scale, vector, item, 1), NULL, NULL,
                              number_at(&job.shift, vector, item, 0))
        begin = until


# ---- columns, or groups of them, of their own mean and deviation -----------------------------------------------

def normalise_columns(y, x, tuple shape, scale, shift, size groups, sums, found, double epsilon, int threads):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + shift of x (images, pixels, channels), for every image and
    group of channels; scale and shift have a value a channel.

    `sums` (float64) has room for (images, column_parts, 2, channels), `found` (x's type) for (images, 3, channels).
    """
    cdef size images = shape[0], pixels = shape[1], channels = shape[2], parts = column_parts(pixels)
    cdef size chunks = (channels + FC_MOST_COLUMNS - 1) // FC_MOST_COLUMNS
    cdef RowJob* job
    cdef int stage
    for stage in range(3):
        work = Work()
        job = row_job(work, y if stage == 2 else None, x, images, pixels, channels)
        row_operand(work, scale if stage == 1 else None, &job.scale, False)
        row_operand(work, shift if stage == 1 else None, &job.shift, False)
        row_operand(work, sums if stage < 2 else None, &job.sums, stage == 0)
        row_operand(work, found if stage else None, &job.found, stage == 1)
        job.parts, job.groups, job.epsilon, job.step = parts, groups, epsilon, chunks
        if stage == 1:
            row_tasks(work, job, column_factors_task, images * groups, 1)
        else:
            row_tasks(work, job, normalise_columns_task if stage else column_moments_task, images * parts * chunks,
                      threads)


cpdef size column_parts(size pixels):
    """The parts that the moments of columns of so many pixels are made of."""
    return max(<size>1, (pixels + COLUMN_PIXELS - 1) // COLUMN_PIXELS)


cdef void column_moments_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const RowJob* job = <const RowJob*>job_
    cdef size first = task % job.step * FC_MOST_COLUMNS, place = task // job.step, pixel = place % job.parts * COLUMN_PIXELS
    cdef size at = (place // job.parts * job.length + pixel) * job.columns + first
    cdef double* mean = <double*>job.sums.p + 2 * place * job.columns + first
    job.kernels.column_moments(job.x.p + at * job.item, job.columns, min(<size>COLUMN_PIXELS, job.length - pixel),
                               min(<size>FC_MOST_COLUMNS, job.columns - first), mean, mean + job.columns)


cdef void column_factors_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """Mean, factor and shift of every channel of a group."""
    cdef const RowJob* job = <const RowJob*>job_
    cdef size image = task // job.groups, channels = job.columns // job.groups, first = task % job.groups * channels
    cdef size channel, part
    cdef double count = 0, pixels, factor
    cdef double moments[2]
    cdef double more[2]
    cdef double* sums = <double*>job.sums.p + 2 * image * job.parts * job.columns
    moments[0] = moments[1] = 0
    for channel in range(first, first + channels):
        for part in range(job.parts):
            pixels = min(<size>COLUMN_PIXELS, job.length - part * COLUMN_PIXELS)
            more[0], more[1] = sums[2 * part * job.columns + channel], sums[(2 * part + 1) * job.columns + channel]
            merge(moments, count, more, pixels, True)
            count += pixels
    factor = 1 / sqrt(moments[1] / count + job.epsilon)
    for channel in range(first, first + channels):
        put(job, image, 0, channel, moments[0])
        put(job, image, 1, channel, factor * number_at(&job.scale, channel, job.item, 1))
        put(job, image, 2, channel, number_at(&job.shift, channel, job.item, 0))


cdef void put(const RowJob* job, size image, size row, size channel, double value) noexcept nogil:
    cdef size at = (3 * image + row) * job.columns + channel
    if job.item == 4:
        (<float*>job.found.p)[at] = <float>value
    else:
        (<double*>job.found.p)[at] = value


cdef void normalise_columns_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const RowJob* job = <const RowJob*>job_
    cdef size first = task % job.step * FC_MOST_COLUMNS, place = task // job.step, pixel = place % job.parts * COLUMN_PIXELS
    cdef size image = place // job.parts, row = job.columns * job.item
    cdef size at = (image * job.length + pixel) * row + first * job.item
    cdef const char* found = job.found.p + 3 * image * row + first * job.item
    job.kernels.column_normalise(job.y.p + at, job.x.p + at, job.columns, min(<size>COLUMN_PIXELS, job.length - pixel),
                                 min(<size>FC_MOST_COLUMNS, job.columns - first), found, found + row, found + 2 * row)
