# What training needs beside convolution and pooling. Arrays are C-contiguous rows (pixels, channels) of float32 or
# float64. Elementwise work is split by threads; sums over pixels are cut into parts by shape alone, and the parts are
# added in their order, so that no bit depends on the number of threads.

cdef enum:
    PART_PIXELS = 256       # of a part of a sum: few enough that float32 loses little, many enough to be worth a task
    ROW_PARTS = 512         # most parts
    CHANNEL_CHUNK = 64      # channels that a task of the pooling gradient takes
    DENSE_SAMPLES = 8       # that one pass over the weights of a dense layer serves
    DENSE_PARTS = 16        # most parts of its sums
    DENSE_WEIGHTS = 65536   # least weights of a part
    UPDATE_CHUNK = 65536    # weights that a task of an optimiser takes: four such arrays stay in the second level
    PASS_CHUNK = 1 << 20    # values that a task of an elementwise pass takes, at most: some hundred microseconds


cdef int layer_code(size itemsize) except -1:
    if itemsize not in (4, 8):
        raise ValueError("rows must be float32 or float64")
    return 0 if itemsize == 4 else 1


cdef inline size sum_parts(size pixels) noexcept nogil:
    return max(<size>1, min(<size>ROW_PARTS, (pixels + PART_PIXELS - 1) // PART_PIXELS))


cdef void add_parts(size itemsize, const char* parts, size count, size step, size channels, char* out) noexcept nogil:
    """out = the sum of a few rows of `channels`, `step` bytes apart, in their order."""
    cdef size part, c
    cdef const char* row
    memset(out, 0, channels * itemsize)
    for part in range(count):
        row = parts + part * step
        if itemsize == 4:
            for c in range(channels):
                (<float*>out)[c] += (<const float*>row)[c]
        else:
            for c in range(channels):
                (<double*>out)[c] += (<const double*>row)[c]


cdef struct Rows:
    const fc_layer_kernels* kernels
    const fc_kernels* totals
    bint long_               # sums are made in blocks of ROW_BLOCK pixels (drivers/totals.pxi)
    size item, pixels, channels
    size parts, chunk        # tasks, and the pixels of one
    size row                 # bytes of one row of sums, and of all that a part has: one or two, and their totals
    size part
    char* sums
    View out, x, y, z, a, b, c
    double most
    bint relu


cdef int cut_rows(Rows* job, size item, const View* array, size parts) except -1:
    """Take (pixels, channels) of an array, in so many parts at most."""
    job.item, job.pixels, job.channels = item, array.n[2], array.n[3]
    job.kernels = isa.layers[layer_code(item)]
    job.chunk = (job.pixels + parts - 1) // parts
    job.parts = parts
    job.row = round_up(job.channels * item, 64)
    job.totals = isa.compute[layer_code(item)]
    return 0


cdef int sums_of_rows(Rows* job, size rows) except -1:
    """Room for so many rows of sums in every part, and for their totals."""
    job.long_ = is_long(job.totals, job.pixels)
    job.part = rows * job.row * (3 if job.long_ else 1)
    job.sums = <char*>allocate(job.parts * job.part)
    return 0


cdef size begin_block(const Rows* job, char* sums, size rows, size done, size pixels) noexcept nogil:
    """The pixels of the next block of a part, of which `done` are; sums of the block before join the totals."""
    cdef size values = rows * job.row // job.item
    if done == 0:
        memset(sums, 0, job.part)
    elif job.long_:
        job.totals.total_add(sums + rows * job.row, sums, values)
        memset(sums, 0, rows * job.row)
        if done >= pixels:
            job.totals.total_end(sums, sums + rows * job.row, values)
    return min(<size>ROW_BLOCK, pixels - done) if job.long_ else pixels - done


cdef void end_rows(const Rows* job, size number, char* out) noexcept nogil:
    """out = row `number` of the sums of all parts."""
    cdef size part
    cdef char* sums = job.sums + number * job.row
    cdef char* totals = job.sums + job.part // 3   # the first part's are no longer needed
    if not job.long_:
        add_parts(job.item, sums, job.parts, job.part, job.channels, out)
        return
    memset(totals, 0, 2 * job.channels * job.item)
    for part in range(job.parts):
        job.totals.total_add(totals, sums + part * job.part, job.channels)
    job.totals.total_end(out, totals, job.channels)


cdef inline size pixels_of(const Rows* job, size task) noexcept nogil:
    return max(<size>0, min(job.chunk, job.pixels - task * job.chunk))


cdef inline char* part_of(const Rows* job, const View* array, size task, size done=0) noexcept nogil:
    """Where a task's pixels begin, or those after the `done` ones; NULL for an array that is not there."""
    return NULL if array.p == NULL else array.p + (task * job.chunk + done) * job.channels * job.item


cdef void relu_gradient_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef Rows* job = <Rows*>job_
    cdef char* sums = job.sums + task * job.part
    cdef size done = 0, pixels = pixels_of(job, task), block = begin_block(job, sums, 1, 0, pixels)
    while block > 0:
        job.kernels.relu_gradient(part_of(job, &job.out, task, done), part_of(job, &job.x, task, done),
                                  part_of(job, &job.y, task, done), job.most, block, job.channels, sums)
        done += block
        block = begin_block(job, sums, 1, done, pixels)


def relu_gradient(dz, dy, y, double most, total, int threads):
    """dz = dy where 0 < y < most, else 0; total (C,) = the sum of dz over pixels."""
    cdef Arrays arrays = Arrays()
    cdef Rows job
    job.sums = NULL
    try:
        arrays.view(dz, &job.out, True)
        arrays.view(dy, &job.x, False)
        arrays.view(y, &job.y, False)
        arrays.view(total, &job.a, True)
        job.most = most
        cut_rows(&job, arrays.buffers[0].itemsize, &job.out, sum_parts(job.out.n[2]))
        sums_of_rows(&job, 1)
        run_tasks(relu_gradient_task, &job, NULL, 0, job.parts, threads, True)
        end_rows(&job, 0, job.a.p)
    finally:
        fc_free(job.sums)
        arrays.release()


cdef void sums_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef Rows* job = <Rows*>job_
    cdef char* sums = job.sums + task * job.part
    cdef size done = 0, pixels = pixels_of(job, task), block = begin_block(job, sums, 1, 0, pixels)
    while block > 0:
        job.kernels.sum(part_of(job, &job.x, task, done), block, job.channels, sums)
        done += block
        block = begin_block(job, sums, 1, done, pixels)


def channel_sums(x, total, int threads):
    """total (C,) = the sum of x over pixels."""
    cdef Arrays arrays = Arrays()
    cdef Rows job
    job.sums = NULL
    try:
        arrays.view(x, &job.x, False)
        arrays.view(total, &job.a, True)
        cut_rows(&job, arrays.buffers[0].itemsize, &job.x, sum_parts(job.x.n[2]))
        sums_of_rows(&job, 1)
        run_tasks(sums_task, &job, NULL, 0, job.parts, threads, True)
        end_rows(&job, 0, job.a.p)
    finally:
        fc_free(job.sums)
        arrays.release()


cdef void products_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef Rows* job = <Rows*>job_
    cdef char* sums = job.sums + task * job.part
    cdef size done = 0, pixels = pixels_of(job, task), block = begin_block(job, sums, 2, 0, pixels)
    while block > 0:
        job.kernels.products(part_of(job, &job.x, task, done), job.a.p, part_of(job, &job.y, task, done), job.b.p,
                             block, job.channels, sums, sums + job.row)
        done += block
        block = begin_block(job, sums, 2, done, pixels)


def channel_products(a, shift_a, b, shift_b, total, product, int threads):
    """total (C,) = the sum of a over pixels, product (C,) = that of (a - shift_a) * (b - shift_b)."""
    cdef Arrays arrays = Arrays()
    cdef Rows job
    job.sums = NULL
    try:
        arrays.view(a, &job.x, False)
        arrays.view(shift_a, &job.a, False)
        arrays.view(b, &job.y, False)
        arrays.view(shift_b, &job.b, False)
        arrays.view(total, &job.c, True)
        arrays.view(product, &job.out, True)
        cut_rows(&job, arrays.buffers[0].itemsize, &job.x, sum_parts(job.x.n[2]))
        sums_of_rows(&job, 2)
        run_tasks(products_task, &job, NULL, 0, job.parts, threads, True)
        end_rows(&job, 0, job.c.p)
        end_rows(&job, 1, job.out.p)
    finally:
        fc_free(job.sums)
        arrays.release()


cdef void affine_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef Rows* job = <Rows*>job_
    if pixels_of(job, task):
        job.kernels.affine(part_of(job, &job.out, task), part_of(job, &job.x, task), job.a.p,
                           part_of(job, &job.z, task), job.b.p, job.c.p, job.relu, pixels_of(job, task), job.channels)


def affine(out, x, a, z, b, c, bint relu, int threads):
    """out = x * a + z * b + c by channels, z and b None to leave them out; with `relu` (and no z) not below 0."""
    cdef Arrays arrays = Arrays()
    cdef Rows job
    cdef size parts
    job.z.p = job.b.p = NULL
    job.relu = relu
    try:
        arrays.view(out, &job.out, True)
        arrays.view(x, &job.x, False)
        arrays.view(a, &job.a, False)
        if z is not None:
            arrays.view(z, &job.z, False)
            arrays.view(b, &job.b, False)
        arrays.view(c, &job.c, False)
        # a run of parts for every thread, each so short that a signal between two of them is soon seen
        parts = threads * ((job.out.n[2] * job.out.n[3] // threads + PASS_CHUNK - 1) // PASS_CHUNK)
        cut_rows(&job, arrays.buffers[0].itemsize, &job.out, max(<size>1, min(job.out.n[2], parts)))
        run_tasks(affine_task, &job, NULL, 0, job.parts, threads, True)
    finally:
        arrays.release()


cdef struct Update:
    const fc_layer_kernels* kernels
    size item, count
    View w, g, m, s          # the velocity of gradient descent is m; NULL for none
    double rate, momentum, keep, beta_1, beta_2, epsilon
    bint nesterov


cdef void sgd_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Update* job = <const Update*>job_
    cdef size at = task * UPDATE_CHUNK * job.item
    job.kernels.sgd(job.w.p + at, job.g.p + at, NULL if job.m.p == NULL else job.m.p + at, job.rate, job.momentum,
                    job.keep, job.nesterov, min(<size>UPDATE_CHUNK, job.count - task * UPDATE_CHUNK))


cdef void adam_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const Update* job = <const Update*>job_
    cdef size at = task * UPDATE_CHUNK * job.item
    job.kernels.adam(job.w.p + at, job.g.p + at, job.m.p + at, job.s.p + at, job.rate, job.beta_1, job.beta_2,
                     job.epsilon, job.keep, min(<size>UPDATE_CHUNK, job.count - task * UPDATE_CHUNK))


cdef int update(Update* job, size item, fc_task task, int threads) except -1:
    job.item, job.count = item, job.w.n[3]
    job.kernels = isa.layers[layer_code(item)]
    return run_tasks(task, job, NULL, 0, (job.count + UPDATE_CHUNK - 1) // UPDATE_CHUNK, threads, True)


def sgd(w, g, v, double rate, double momentum, double keep, bint nesterov, int threads):
    """One step of stochastic gradient descent on flat arrays; v is the velocity or None."""
    cdef Arrays arrays = Arrays()
    cdef Update job
    job.m.p = NULL
    job.rate, job.momentum, job.keep, job.nesterov = rate, momentum, keep, nesterov
    try:
        arrays.view(w, &job.w, True)
        arrays.view(g, &job.g, False)
        if v is not None:
            arrays.view(v, &job.m, True)
        update(&job, arrays.buffers[0].itemsize, sgd_task, threads)
    finally:
        arrays.release()


def adam(w, g, m, s, double rate, double beta_1, double beta_2, double epsilon, double keep, int threads):
    """One step of Adam on flat arrays; m and s are the moments."""
    cdef Arrays arrays = Arrays()
    cdef Update job
    job.rate, job.beta_1, job.beta_2, job.epsilon, job.keep = rate, beta_1, beta_2, epsilon, keep
    try:
        arrays.view(w, &job.w, True)
        arrays.view(g, &job.g, False)
        arrays.view(m, &job.m, True)
        arrays.view(s, &job.s, True)
        update(&job, arrays.buffers[0].itemsize, adam_task, threads)
    finally:
        arrays.release()


cdef struct MaxPoolGradient:
    const fc_layer_kernels* kernels
    fc_max_pool_gradient part
    View dx, x, y, dy
    size item, chunks


cdef void max_pool_gradient_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """CHANNEL_CHUNK channels of one image."""
    cdef const MaxPoolGradient* job = <const MaxPoolGradient*>job_
    cdef fc_max_pool_gradient part = job.part
    cdef size image = task // job.chunks, first = task % job.chunks * CHANNEL_CHUNK
    part.channels = min(<size>CHANNEL_CHUNK, part.pixel - first)
    part.dx = job.dx.p + image * job.dx.s[0] + first * job.item
    part.x = job.x.p + image * job.x.s[0] + first * job.item
    part.y = job.y.p + image * job.y.s[0] + first * job.item
    part.dy = job.dy.p + image * job.dy.s[0] + first * job.item
    job.kernels.max_pool_gradient(&part)


def max_pool_gradient(dx, x, y, dy, tuple kernel, tuple stride, tuple padding, int threads):
    """dx = the gradient of a max pooling of x (N, H, W, C) to y; each dy goes to the first maximum of its window."""
    cdef Arrays arrays = Arrays()
    cdef MaxPoolGradient job
    try:
        arrays.view(dx, &job.dx, True)
        arrays.view(x, &job.x, False)
        arrays.view(y, &job.y, False)
        arrays.view(dy, &job.dy, False)
        job.item = arrays.buffers[0].itemsize
        job.kernels = isa.layers[layer_code(job.item)]
        job.part.height, job.part.width = job.x.n[1], job.x.n[2]
        job.part.out_height, job.part.out_width = job.y.n[1], job.y.n[2]
        job.part.kernel_y, job.part.kernel_x = kernel
        job.part.stride_y, job.part.stride_x = stride
        job.part.pad_y, job.part.pad_x = padding
        job.part.pixel = job.x.n[3]
        job.chunks = (job.x.n[3] + CHANNEL_CHUNK - 1) // CHANNEL_CHUNK
        run_tasks(max_pool_gradient_task, &job, NULL, 0, job.x.n[0] * job.chunks, threads, True)
    finally:
        arrays.release()


cdef struct Dense:
    const fc_layer_kernels* kernels
    View x, w, out
    size item, inputs, outputs
    size first, count        # samples of this pass over the weights
    size chunk, row          # inputs of a part, bytes of its sums and, where they are long, of their totals
    const fc_kernels* totals
    bint long_               # the sums of a part are made in blocks of INPUT_BLOCK inputs (drivers/totals.pxi)
    size parts
    char* sums


cdef void dense_task(void* job_, char* scratch, size part, fc_watch* watch) noexcept nogil:
    cdef Dense* job = <Dense*>job_
    cdef size begin = part * job.chunk, end = min(begin + job.chunk, job.inputs), values = job.count * job.outputs, block
    cdef char* sums = job.sums + part * job.row
    cdef char* totals = sums + job.row // 3
    memset(sums, 0, values * job.item)
    if job.long_:
        memset(totals, 0, 2 * values * job.item)
    while begin < end:
        block = min(<size>INPUT_BLOCK, end - begin) if job.long_ else end - begin
        job.kernels.dense(job.x.p + (job.first * job.inputs + begin) * job.item, job.inputs, job.count,
                          job.w.p + begin * job.outputs * job.item, block, job.outputs, sums)
        begin += block
        if job.long_:
            job.totals.total_add(totals, sums, values)
            memset(sums, 0, values * job.item)
    if job.long_:
        job.totals.total_end(sums, totals, values)


cdef void dense_end(void* job_, char* scratch, size part, fc_watch* watch) noexcept nogil:
    cdef Dense* job = <Dense*>job_
    add_parts(job.item, job.sums, job.parts, job.row, job.count * job.outputs,
              job.out.p + job.first * job.outputs * job.item)


def dense(x, w, out, int threads):
    """out (N, outputs) = x (N, inputs) @ w (inputs, outputs). The sums are cut by shape, the batch changes no bit."""
    cdef size first = 0, samples = len(x)
    while first < samples:
        dense_samples(x, w, out, first, min(<size>DENSE_SAMPLES, samples - first), threads)
        first += DENSE_SAMPLES
        handle_signals()   # a pass is too short for its threads to look


cdef int dense_samples(x, w, out, size first, size count, int threads) except -1:
    """So many samples of `dense`: the parts of the sums, then their sum."""
    cdef Work parts = Work(), end = Work()
    cdef Dense* job = <Dense*>parts.own(sizeof(Dense))
    parts.view(x, &job.x, False)
    parts.view(w, &job.w, False)
    parts.view(out, &job.out, True)
    job.item, job.inputs, job.outputs = parts.buffers[0].itemsize, job.x.n[3], job.w.n[3]
    job.kernels = isa.layers[layer_code(job.item)]
    job.parts = max(<size>1, min(<size>DENSE_PARTS, job.inputs * job.outputs // DENSE_WEIGHTS))
    job.chunk = round_up((job.inputs + job.parts - 1) // job.parts, 4)
    job.totals = isa.compute[layer_code(job.item)]
    job.long_ = is_long(job.totals, job.chunk + job.parts)
    job.row = round_up(DENSE_SAMPLES * job.outputs * job.item, 64) * (3 if job.long_ else 1)
    job.sums = <char*>parts.own(job.parts * job.row)
    job.first, job.count = first, count
    parts.place(&job.x.p)
    parts.task, parts.job, parts.tasks, parts.even = dense_task, job, job.parts, True
    parts.team(threads)
    end.place(&job.out.p)
    end.task, end.job, end.tasks, end.keep = dense_end, job, 1, parts
    end.team(1)
    parts.run()
    end.run()
    return 0
