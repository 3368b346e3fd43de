# Products of two values: C = A B for every matrix of a batch, in register tiles (drivers/product.pxi).
#   for every task, a run of batch x panels of B's columns x blocks of A's rows:
#     for every block of the reduction: pack B's panel (and A's rows where their elements do not lie side by side), multiply
# B is read as it lies where few rows of A would not pay for packing, its last panel up to the row from which on a whole
# panel would reach beyond its end. Whatever the cut, a sum is one running sum in the order
# of k, or, where it is long, totals of blocks (drivers/totals.pxi): bits depend on the length of the sum alone.

cdef enum:
    MOST_BATCH = 6          # axes of matrices
    MATMUL_STEPS = 512      # of the reduction that a packed panel holds: 128 KB of the second level, and that of A's rows
    MATMUL_ROWS = 192       # of a block of A
    UNPACKED_ROWS = 12      # for so few B is read as it lies
    MATMUL_MACS = 1 << 16   # of a task, or a little more

cdef struct MatMul:
    const fc_kernels* kernels
    int code, batch_axes
    size batch[MOST_BATCH]
    size a_batch[MOST_BATCH]
    size b_batch[MOST_BATCH]
    size c_batch[MOST_BATCH]
    char* a
    char* b
    char* c
    size m, n, k                                # rows, columns, terms
    size a_row, a_step, b_step, b_column, c_row, c_column    # bytes
    size width, panels, blocks, block, units, tasks
    size steps, panel_bytes, rows_bytes, tile_bytes
    bint packs_a, packs_b, long_


def matmul(out, a, b, int threads):
    """out (..., M, N) = a (..., M, K) @ b (..., K, N), all float32 or float64 with as many axes, any strides that are whole
    elements; a batch is repeated by strides of zero."""
    cdef Work work = Work()
    cdef MatMul* job = <MatMul*>work.own(sizeof(MatMul))
    cdef const Py_buffer* c = work.hold(out, True)
    cdef const Py_buffer* left = work.hold(a, False)
    cdef const Py_buffer* right = work.hold(b, False)
    cdef size batch = 1, item = c.itemsize
    cdef int i
    if (c.ndim < 2 or c.ndim > MOST_BATCH + 2 or left.ndim != c.ndim or right.ndim != c.ndim or left.itemsize != item
            or right.itemsize != item):
        raise ValueError("matrices of different axes or element types")
    job.code = FC_F32 if layer_code(item) == 0 else FC_F64
    job.kernels = isa.compute[layer_code(item)]
    job.batch_axes = c.ndim - 2
    for i in range(c.ndim):
        if left.strides[i] % item or right.strides[i] % item or c.strides[i] % item:
            raise ValueError("strides that are no whole elements")
    for i in range(job.batch_axes):
        if left.shape[i] != c.shape[i] or right.shape[i] != c.shape[i]:
            raise ValueError("batches of different shapes")
        job.batch[i], job.c_batch[i] = c.shape[i], c.strides[i]
        job.a_batch[i], job.b_batch[i] = left.strides[i], right.strides[i]
        batch *= c.shape[i]
    i = job.batch_axes
    job.m, job.n, job.k = c.shape[i], c.shape[i + 1], left.shape[i + 1]
    if left.shape[i] != job.m or right.shape[i] != job.k or right.shape[i + 1] != job.n:
        raise ValueError("matrices that have no product")
    job.a, job.b, job.c = <char*>left.buf, <char*>right.buf, <char*>c.buf
    job.a_row, job.a_step = left.strides[i], left.strides[i + 1]
    job.b_step, job.b_column = right.strides[i], right.strides[i + 1]
    job.c_row, job.c_column = c.strides[i], c.strides[i + 1]
    work.place(&job.a)
    work.place(&job.b)
    work.place(&job.c)
    if batch * job.m * job.n > 0:
        if job.n < job.kernels.lanes and job.n < job.m:
            matmul_turned(job)
        matmul_cut(job, batch)
        work.task, work.job, work.even, work.tasks = matmul_task, job, False, job.tasks
        work.scratch_bytes = matmul_scratch(job)
        work.team(threads_for(batch * job.m * job.n * max(<size>1, job.k), threads))
    work.run()


cdef void matmul_turned(MatMul* job) noexcept:
    """Few columns fill no vector: the transposed product has them as rows."""
    cdef int i
    for i in range(job.batch_axes):
        job.a_batch[i], job.b_batch[i] = job.b_batch[i], job.a_batch[i]
    # which array a pointer lies in does not matter to those who move it
    job.a, job.b = job.b, job.a
    job.m, job.n = job.n, job.m
    job.a_row, job.a_step, job.b_step, job.b_column = job.b_column, job.b_step, job.a_step, job.a_row
    job.c_row, job.c_column = job.c_column, job.c_row


cdef void matmul_cut(MatMul* job, size batch) noexcept:
    """Panels, blocks of rows and tasks."""
    cdef size item = job.kernels.size
    job.width = job.kernels.vectors * job.kernels.lanes
    job.panels = (job.n + job.width - 1) // job.width
    job.blocks = (job.m + MATMUL_ROWS - 1) // MATMUL_ROWS
    job.block = (job.m + job.blocks - 1) // job.blocks
    job.long_ = is_long(job.kernels, job.k)
    job.steps = min(max(<size>1, job.k), block_terms(1, job.k) if job.long_ else <size>MATMUL_STEPS)
    job.packs_a = job.a_step != item and job.m > 1
    job.packs_b = (job.b_column != item or job.b_step < job.n * item
                   or (job.block > UNPACKED_ROWS and job.b_step != job.width * item))
    job.units = batch * job.panels * job.blocks
    job.tasks = min(job.units, max(<size>1, batch * job.m * job.n * max(<size>1, job.k) // MATMUL_MACS))


cdef size matmul_scratch(MatMul* job) noexcept:
    """A panel of B, rows of A, a tile of C with its totals, and the offsets of rows of both."""
    cdef size item = job.kernels.size, total = 0
    job.panel_bytes = piece(&total, job.steps * job.width * item)
    job.rows_bytes = piece(&total, job.block * job.steps * item if job.packs_a else 0)
    job.tile_bytes = piece(&total, job.block * job.width * item)
    return total + 64 * 5 + 2 * job.block * sizeof(size) + (totals_bytes(job.kernels, job.block * job.width) if job.long_
                                                           else 0)


cdef void matmul_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const MatMul* job = <const MatMul*>job_
    cdef size unit = job.units * task // job.tasks, end = job.units * (task + 1) // job.tasks, rest, at
    cdef char* a
    cdef char* b
    cdef char* c
    cdef int i
    for unit in range(unit, end):
        if fc_interrupted(watch):
            return
        a, b, c = job.a, job.b, job.c
        rest = unit // (job.panels * job.blocks)
        for i in range(job.batch_axes - 1, -1, -1):
            at = rest % job.batch[i]
            rest = rest // job.batch[i]
            a += at * job.a_batch[i]
            b += at * job.b_batch[i]
            c += at * job.c_batch[i]
        matmul_block(job, a, b, c, unit // job.blocks % job.panels, unit % job.blocks * job.block, scratch)


cdef void matmul_block(const MatMul* job, const char* a, const char* b, char* c, size panel, size row,
                       char* scratch) noexcept nogil:
    """Rows of one panel of one matrix, block of the reduction by block."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size item = kernels.size, first = panel * job.width, rows = min(job.block, job.m - row), done = 0, i
    cdef size count = min(job.width, job.n - first), vectors = (count + kernels.lanes - 1) // kernels.lanes
    cdef size width = vectors * kernels.lanes
    cdef char* tile = scratch + job.panel_bytes + job.rows_bytes
    cdef size* a_row = <size*>(tile + job.tile_bytes)
    cdef size* c_row = a_row + job.block
    cdef char* totals = tile + job.tile_bytes + round_up(2 * job.block * sizeof(size), 64)
    cdef size unpacked, beyond = 0   # rows at the end of B whose panel would be read beyond it
    cdef bint in_place = job.c_column == item and count == width and not job.long_
    cdef fc_product product
    cdef fc_segment segment
    if width > count and not job.packs_b:
        beyond = min(job.k, ((width - count) * item + job.b_step - 1) // job.b_step)
    a += row * job.a_row
    b += first * job.b_column
    c += row * job.c_row + first * job.c_column
    product.c = c if in_place else tile
    for i in range(rows):
        c_row[i] = i * job.c_row // item if in_place else i * width
    if job.long_:
        memset(totals, 0, totals_bytes(kernels, rows * width))
    segment.a = segment.b = 0
    while done < job.k or done == 0:
        segment.k = min(job.steps, job.k - done)
        if not job.packs_b and not job.long_:   # what can be read in place, then the rest; blocks of a long sum stay
            unpacked = max(<size>0, job.k - beyond - done)
            segment.k = min(segment.k, unpacked) if unpacked else segment.k
        matmul_operands(job, &product, a + done * job.a_step, b + done * job.b_step, segment.k, rows, count, width,
                        job.packs_b or done + segment.k > job.k - beyond, a_row, scratch)
        product.segment, product.segments, product.a_row, product.c_row = &segment, 1, a_row, c_row
        product.accumulate = done > 0 and not job.long_
        product.relu, product.bias, product.residual, product.residual_row = False, NULL, NULL, NULL
        product.requantise = NULL
        product.fetch, product.partial = False, 0
        product.ahead, product.ahead_step = <const char*>product.b, 0
        run_product(kernels, &product, vectors, rows, segment.k)
        if job.long_:
            kernels.total_add(totals, tile, rows * width)
        done += max(<size>1, segment.k)
    if job.long_:
        kernels.total_end(tile, totals, rows * width)
    if not in_place:
        kernels.store[job.code](tile, width, rows, count, c, job.c_row, job.c_column, NULL, LINEAR, NULL, 0, 0)


cdef void matmul_operands(const MatMul* job, fc_product* product, const char* a, const char* b, size steps, size rows,
                          size count, size width, bint packs_b, size* a_row, char* scratch) noexcept nogil:
    """A block of the reduction of both, packed or as they lie."""
    cdef const fc_kernels* kernels = job.kernels
    cdef size item = kernels.size, i, row = job.a_row // item, zero = 0
    product.a, product.step = a, 1
    if job.packs_a:
        product.a, row = scratch + job.panel_bytes, job.steps
        kernels.pack[job.code](<char*>product.a, row, rows, steps, a, job.a_row, job.a_step)
    elif job.a_step != item:    # a single row
        product.step = job.a_step // item
    for i in range(rows):
        a_row[i] = i * row
    product.b, product.ldb = b, job.b_step // item
    if packs_b:
        product.b, product.ldb = scratch, width
        kernels.pack_panel[job.code](scratch, width, b, 1, &zero, 1, &zero, steps, job.b_step, count, job.b_column)
