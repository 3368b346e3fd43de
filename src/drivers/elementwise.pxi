# Chains of elementwise functions over (batch, pixels, channels), in one pass over memory.
#   for every task (a part of an image's pixels), for every tile of pixels that fits the first level beside its operands:
#     copy the input into the result (or into scratch where the result's pixels lie apart), run all steps on it there
# Operands that repeat over pixels are spread over a tile once a task. A chain without steps copies, in parallel.

cdef enum:
    TILE_VALUES = 1024      # of a tile: with three operands 16 KB of float32, half of the smallest first level
    MOST_STEPS = 48         # of a chain
    MOST_OPERANDS = 6       # beside input and result: what `Arrays` holds

cdef struct Elementwise:
    View x, y
    View operands[MOST_OPERANDS]
    size operand_count
    fc_step steps[MOST_STEPS]
    int place[MOST_STEPS]   # which operand a step takes, -1 for its number
    size step_count
    size item, rows, parts, tile_bytes
    const fc_layer_kernels* kernels


def elementwise(out, x, tuple operands, tuple shape, tuple strides, tuple steps, int threads):
    """out = the steps on x, one after the other; out may be x.

    All arrays are seen as `shape` (N, P, C) with `strides` in bytes, a triple for out, x and each operand; operands
    have stride 0 where they repeat. A step is (code, operand or -1, number).
    """
    cdef Work work = Work()
    cdef Elementwise* job = <Elementwise*>work.own(sizeof(Elementwise))
    cdef size i, pixels, channels
    if len(operands) > MOST_OPERANDS or len(steps) > MOST_STEPS or len(strides) != len(operands) + 2:
        raise ValueError("too many operands or steps")
    work.view(out, &job.y, True)
    reshape(&job.y, shape, strides[0])
    work.view(x, &job.x, False)
    reshape(&job.x, shape, strides[1])
    work.place(&job.y.p)
    work.place(&job.x.p)
    for i in range(len(operands)):
        work.view(operands[i], &job.operands[i], False)
        reshape(&job.operands[i], shape, strides[2 + i])
        work.place(&job.operands[i].p)
    for i in range(len(steps)):
        job.steps[i].code, job.place[i], job.steps[i].number = steps[i]
        job.steps[i].operand = NULL
    job.operand_count, job.step_count = len(operands), len(steps)
    job.item, pixels, channels = work.buffers[0].itemsize, job.y.n[2], job.y.n[3]
    if job.y.n[1] * pixels * channels > 0:
        job.kernels = isa.layers[layer_code(job.item)]
        job.rows = min(pixels, max(1, TILE_VALUES // channels))
        job.parts = min((threads + job.y.n[1] - 1) // job.y.n[1], pixels)
        job.tile_bytes = round_up(job.rows * channels * job.item, 64)
        work.task, work.job, work.even, work.tasks = elementwise_task, job, True, job.y.n[1] * job.parts
        work.scratch_bytes = (1 + job.operand_count) * job.tile_bytes
        work.team(threads)
    work.run()


cdef int reshape(View* view, tuple shape, tuple strides) except -1:
    """See an array under three other axes."""
    view.n[1], view.n[2], view.n[3] = shape
    view.s[1], view.s[2], view.s[3] = strides
    return 0


cdef void copy_rows(char* to, size to_pixel, size to_channel, const char* source, size pixel, size channel, size rows,
                    size channels, size item) noexcept nogil:
    """Copy rows x channels from any strides to any others."""
    cdef size row, c
    if to_channel == item and channel == item and (to_pixel == pixel == channels * item or rows == 1):
        memcpy(to, source, rows * channels * item)
        return
    for row in range(rows):
        if to_channel == item and channel == item:
            memcpy(to + row * to_pixel, source + row * pixel, channels * item)
        elif item == 4:
            for c in range(channels):
                (<float*>(to + row * to_pixel + c * to_channel))[0] = (
                    <const float*>(source + row * pixel + c * channel))[0]
        else:
            for c in range(channels):
                (<double*>(to + row * to_pixel + c * to_channel))[0] = (
                    <const double*>(source + row * pixel + c * channel))[0]


cdef void elementwise_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Elementwise* job = <const Elementwise*>job_
    cdef size image = task // job.parts, part = task % job.parts
    cdef size channels = job.y.n[3], item = job.item, row_bytes = channels * item
    cdef size chunk = (job.y.n[2] + job.parts - 1) // job.parts
    cdef size row = part * chunk, end = min((part + 1) * chunk, job.y.n[2]), rows, i
    cdef char* y = job.y.p + image * job.y.s[1]
    cdef const char* x = job.x.p + image * job.x.s[1]
    cdef char* values
    cdef const char* operand
    cdef const char* at[MOST_OPERANDS]
    cdef fc_step steps[MOST_STEPS]
    cdef const View* o
    cdef bint direct = job.y.s[3] == item and job.y.s[2] == row_bytes
    if row >= end:
        return
    for i in range(job.operand_count):
        o = &job.operands[i]
        if o.s[2] == 0:  # the same for every pixel
            at[i] = scratch + (1 + i) * job.tile_bytes
            copy_rows(<char*>at[i], row_bytes, item, o.p + image * o.s[1], 0, o.s[3], min(job.rows, end - row),
                      channels, item)
    for i in range(job.step_count):
        steps[i] = job.steps[i]
    while row < end:
        rows = min(job.rows, end - row)
        values = y + row * job.y.s[2] if direct else scratch
        if values != x + row * job.x.s[2]:
            copy_rows(values, row_bytes, item, x + row * job.x.s[2], job.x.s[2], job.x.s[3], rows, channels, item)
        for i in range(job.operand_count):
            o = &job.operands[i]
            if o.s[2] == 0:
                continue
            operand = o.p + image * o.s[1] + row * o.s[2]
            at[i] = operand
            if o.s[3] != item or o.s[2] != row_bytes:
                at[i] = scratch + (1 + i) * job.tile_bytes
                copy_rows(<char*>at[i], row_bytes, item, operand, o.s[2], o.s[3], rows, channels, item)
        for i in range(job.step_count):
            if job.place[i] >= 0:
                steps[i].operand = at[job.place[i]]
        if job.step_count:
            job.kernels.elementwise(values, steps, job.step_count, rows * channels)
        if not direct:
            copy_rows(y + row * job.y.s[2], job.y.s[2], job.y.s[3], values, row_bytes, item, rows, channels, item)
        row += rows
