# Bytes that stand for real numbers, real = scale * (byte - zero): depthwise convolution, and what lies between convolutions.
#
# Depthwise (kernels/depthwise_bytes.h), a lane a channel:
#   for image x block of rows of outputs x block of channels       threads take these
#     for row of outputs
#       the rows of the input under it, or NULL where they are padding
#       for run of outputs: columns interleaved once              first-level cache
#         sums, multiplier, rounding, bytes                       registers

cdef enum:
    BYTES_TASK = 1 << 14        # elements of a task
    BYTES_ALONE = 1 << 15       # up to so many no team is started
    BYTE_ROWS = 4               # rows of outputs of a task


# ---- elements -----------------------------------------------------------------------------------------------------

cdef struct ByteLine:
    const fc_byte_kernels* kernels
    fc_byte_sum how
    const char* a
    const char* b
    char* to
    const char* table
    size rows, count, item_a, item_to               # elements of a row
    size row_a, row_b, row_to                       # bytes between rows
    size pieces, together                           # tasks of a row, or rows of a task
    int kind


cdef enum:
    BYTES_ADD, BYTES_QUANTISE, BYTES_DEQUANTISE, BYTES_LOOK_UP


cdef char* line_of(Work work, array, bint writable, size* rows, size* count, size* step) except? NULL:
    """An array of one axis, or of two: rows of elements side by side, `step` bytes apart; of so many rows and elements,
    unless these are negative, and says so."""
    cdef View view
    cdef Py_buffer* buffer = &work.buffers[work.count]
    cdef size own
    work.view(array, &view, writable)
    if not 1 <= buffer.ndim <= 2:
        raise ValueError("rows of elements that lie side by side have one axis or two")
    own = buffer.shape[0] if buffer.ndim == 2 else 1
    step[0] = buffer.strides[0] if buffer.ndim == 2 else 0
    if rows[0] < 0:
        rows[0], count[0] = own, buffer.shape[buffer.ndim - 1]
    if rows[0] != own or count[0] != buffer.shape[buffer.ndim - 1] or (
            count[0] > 1 and buffer.strides[buffer.ndim - 1] != buffer.itemsize):
        raise ValueError("rows of another length, or that do not lie side by side")
    return view.p


cdef int bytes_run(Work work, ByteLine* job, out, a, b, int threads) except -1:
    """All rows; long ones in pieces, short ones together."""
    job.rows = job.count = -1
    job.to = line_of(work, out, True, &job.rows, &job.count, &job.row_to)
    job.item_to = work.buffers[0].itemsize
    job.a = line_of(work, a, False, &job.rows, &job.count, &job.row_a)
    job.item_a, job.kernels = work.buffers[1].itemsize, isa.bytes
    work.place(&job.to)
    work.place(<char**>&job.a)
    if b is not None:
        job.b = line_of(work, b, False, &job.rows, &job.count, &job.row_b)
        work.place(<char**>&job.b)
    if job.rows * job.count:
        job.pieces = (job.count + BYTES_TASK - 1) // BYTES_TASK
        job.together = max(<size>1, BYTES_TASK // job.count)
        work.task, work.job, work.even = bytes_task, job, True
        work.tasks = (job.rows + job.together - 1) // job.together * job.pieces
        work.team(threads if job.rows * job.count > BYTES_ALONE else 1)
    work.run()
    return 0


cdef void bytes_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const ByteLine* job = <const ByteLine*>job_
    cdef size row = task // job.pieces * job.together, end = min(row + job.together, job.rows)
    cdef size first = task % job.pieces * BYTES_TASK
    for row in range(row, end):
        bytes_piece(job, row, first, min(<size>BYTES_TASK, job.count - first))


cdef void bytes_piece(const ByteLine* job, size row, size first, size count) noexcept nogil:
    cdef char* to = job.to + row * job.row_to + first * job.item_to
    cdef const char* a = job.a + row * job.row_a + first * job.item_a
    if job.kind == BYTES_ADD:
        job.kernels.add(<unsigned char*>to, <const unsigned char*>a,
                        <const unsigned char*>job.b + row * job.row_b + first, count, &job.how)
    elif job.kind == BYTES_QUANTISE:
        job.kernels.quantise(<unsigned char*>to, <const float*>a, count, &job.how)
    elif job.kind == BYTES_DEQUANTISE:
        job.kernels.dequantise(<float*>to, <const unsigned char*>a, count, &job.how)
    else:
        job.kernels.look_up(<unsigned char*>to, <const unsigned char*>a, count, <const unsigned char*>job.table)


def bytes_add(out, a, b, float scale_a, int zero_a, float scale_b, int zero_b, float scale, int zero, int low, int high,
              bint is_signed, int threads):
    """out = rint((scale_a (a - zero_a) + scale_b (b - zero_b)) / scale) + zero, within low .. high."""
    cdef Work work = Work()
    cdef ByteLine* job = <ByteLine*>work.own(sizeof(ByteLine))
    cdef int flip = 128 if is_signed else 0
    job.kind = BYTES_ADD
    job.how = fc_byte_sum(zero_a + flip, zero_b + flip, zero + flip, low + flip, high + flip, flip, scale_a, scale_b,
                          scale)
    bytes_run(work, job, out, a, b, threads)


def bytes_quantise(out, x, float scale, int zero, int low, int high, bint is_signed, int threads):
    """Bytes of float32: rint(x / scale) + zero, within low .. high."""
    cdef Work work = Work()
    cdef ByteLine* job = <ByteLine*>work.own(sizeof(ByteLine))
    cdef int flip = 128 if is_signed else 0
    job.kind = BYTES_QUANTISE
    job.how = fc_byte_sum(0, 0, zero + flip, low + flip, high + flip, flip, 0, 0, scale)
    bytes_run(work, job, out, x, None, threads)


def bytes_dequantise(out, x, float scale, int zero, bint is_signed, int threads):
    """float32 of bytes: (x - zero) * scale."""
    cdef Work work = Work()
    cdef ByteLine* job = <ByteLine*>work.own(sizeof(ByteLine))
    cdef int flip = 128 if is_signed else 0
    job.kind = BYTES_DEQUANTISE
    job.how = fc_byte_sum(0, 0, zero + flip, 0, 0, flip, 0, 0, scale)
    bytes_run(work, job, out, x, None, threads)


def bytes_look_up(out, x, table, int threads):
    """out = table[x], of 256 bytes by the bits of x."""
    cdef Work work = Work()
    cdef ByteLine* job = <ByteLine*>work.own(sizeof(ByteLine))
    cdef Work other = Work()
    cdef char* own = <char*>work.own(256)
    cdef size rows = 1, count = 256, step
    memcpy(own, line_of(other, table, False, &rows, &count, &step), 256)
    job.kind, job.table = BYTES_LOOK_UP, own
    bytes_run(work, job, out, x, None, threads)


# ---- products with a factor a channel -----------------------------------------------------------------------------

cdef struct ByteScale:
    const fc_byte_kernels* kernels
    View x, y, b                # x, y: (N, rows, channels), axes 0, 2 and 3; b: (N, channels), axes 2 and 3
    fc_byte_sum how, factors
    size rows, blocks           # of a task; tasks of an image


def bytes_scale(out, x, b, float scale_a, int zero_a, float scale_b, int zero_b, float scale, int zero, int low, int high,
                bint is_signed, int threads):
    """out (N, 1, rows, C) = rint(scale_a (x - zero_a) * scale_b (b - zero_b) / scale) + zero, of b (N, C)."""
    cdef Work work = Work()
    cdef ByteScale* job = <ByteScale*>work.own(sizeof(ByteScale))
    cdef int flip = 128 if is_signed else 0
    cdef size channels
    work.view(out, &job.y, True)
    work.view(x, &job.x, False)
    work.view(b, &job.b, False)
    channels = job.x.n[3]
    if (job.y.n[0] != job.x.n[0] or job.y.n[2] != job.x.n[2] or job.y.n[3] != channels or job.b.n[3] != channels
            or job.b.n[2] != job.x.n[0] or job.x.n[1] * job.y.n[1] * job.b.n[0] != 1
            or (channels > 1 and (job.x.s[3] != 1 or job.y.s[3] != 1 or job.b.s[3] != 1))):
        raise ValueError("arrays that do not lie as rows of channels")
    job.kernels = isa.bytes
    job.how = fc_byte_sum(zero_a + flip, 0, zero + flip, low + flip, high + flip, flip, scale_a, 0, scale)
    job.factors = fc_byte_sum(0, 0, zero_b + flip, 0, 0, flip, 0, 0, scale_b)
    job.rows = max(<size>1, BYTES_TASK // max(<size>1, channels))
    job.blocks = (job.x.n[2] + job.rows - 1) // job.rows
    work.place(&job.y.p)
    work.place(&job.x.p)
    work.place(&job.b.p)
    if elements(&job.x):
        work.task, work.job, work.tasks = bytes_scale_task, job, job.x.n[0] * job.blocks
        work.scratch_bytes = round_up(channels * 4, 64)
        work.team(threads if elements(&job.x) > BYTES_ALONE else 1)
    work.run()


cdef void bytes_scale_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const ByteScale* job = <const ByteScale*>job_
    cdef size image = task // job.blocks, row = task % job.blocks * job.rows, channels = job.x.n[3]
    cdef size end = min(row + job.rows, job.x.n[2])
    job.kernels.dequantise(<float*>scratch, <const unsigned char*>(job.b.p + image * job.b.s[2]), channels, &job.factors)
    for row in range(row, end):
        job.kernels.multiply(<unsigned char*>(job.y.p + image * job.y.s[0] + row * job.y.s[2]),
                             <const unsigned char*>(job.x.p + image * job.x.s[0] + row * job.x.s[2]),
                             <const float*>scratch, channels, &job.how)


# ---- means --------------------------------------------------------------------------------------------------------

cdef struct ByteMean:
    const fc_byte_kernels* kernels
    const fc_kernels* sums
    View x                      # (N, rows, channels): axes 0, 2 and 3
    char* to
    fc_requantise how
    float* multiplier
    int* shift
    int flip


def bytes_mean(out, x, float factor, int x_zero, int zero, int low, int high, bint x_signed, bint is_signed, int threads):
    """out (N, C) bytes of x (N, 1, rows, C), channels side by side: rint(sum of (x - x_zero) * factor) + zero, within
    low .. high."""
    cdef Work work = Work()
    cdef ByteMean* job = <ByteMean*>work.own(sizeof(ByteMean))
    cdef View to
    cdef size i, channels, wide
    work.view(out, &to, True)
    work.view(x, &job.x, False)
    channels = job.x.n[3]
    if (to.n[2] != job.x.n[0] or to.n[3] != channels or (channels > 1 and (to.s[3] != 1 or job.x.s[3] != 1))
            or to.n[0] * to.n[1] != 1 or job.x.n[1] * job.x.n[4] != 1 or (to.n[2] > 1 and to.s[2] != channels)):
        raise ValueError("arrays that do not lie as rows of channels")
    job.kernels, job.sums, job.to = isa.bytes, isa.compute[FC_COMPUTE_I16], to.p
    job.flip = 128 if x_signed else 0
    wide = round_up(channels, 16)
    job.multiplier, job.shift = <float*>work.own(wide * 4), <int*>work.own(wide * 4)
    for i in range(wide):
        job.multiplier[i], job.shift[i] = factor, <int>(-job.x.n[2] * (x_zero + job.flip))
    job.how = fc_requantise(zero, low, high, is_signed, True)
    work.place(&job.x.p)
    work.place(&job.to)
    if channels and job.x.n[0]:
        work.task, work.job, work.tasks, work.scratch_bytes = bytes_mean_task, job, job.x.n[0], round_up(wide * 4, 64)
        work.team(threads if elements(&job.x) > BYTES_ALONE else 1)
    work.run()


cdef void bytes_mean_task(void* job_, char* scratch, size image, fc_watch* watch) noexcept nogil:
    cdef const ByteMean* job = <const ByteMean*>job_
    cdef size channels = job.x.n[3]
    memset(scratch, 0, round_up(channels, 16) * 4)
    job.kernels.sum(<int*>scratch, <const unsigned char*>(job.x.p + image * job.x.s[0]), job.x.s[2], job.x.n[2], channels,
                    job.flip)
    job.sums.requantise(scratch, 0, 1, channels, job.to + image * channels, 0, 1, job.shift, &job.how, job.multiplier)


# ---- depthwise ----------------------------------------------------------------------------------------------------

cdef struct DepthwiseBlock:
    fc_depthwise_row row            # without what an output row has for itself
    void (*run)(const fc_depthwise_row*) noexcept nogil
    size first                      # channel


cdef struct DepthwiseBytes_:
    View x, y
    DepthwiseBlock* block
    size blocks, row_blocks, kernel_rows, stride, dilation, origin
    fc_requantise requantise


cdef class DepthwiseBytes(Program):
    """A depthwise convolution of bytes, channels last, on rows and columns.

    DepthwiseBytes(codes, kernel, stride, dilation, origin, fill, four): sizes are (rows, columns), `origin` the place of the
    first tap under the first output, `fill` the byte of padding, without a sign; with `four`, rows of the kernel are
    multiplied four at a time. The packed weights are blocks (of `block_bytes`): FC_BYTES_BLOCK shifts (int32) and
    multipliers (float32), then the weights, all in the order of `depthwise_order`.
    """
    cdef size kernel[2]
    cdef size stride[2]
    cdef size dilation[2]
    cdef size origin[2]
    cdef int fill
    cdef bint four

    def __init__(self, codes, kernel, stride, dilation, origin, int fill, bint four):
        cdef int i
        self.compute_with(codes)
        if four and not isa.bytes.groups:
            raise ValueError("this instruction set has no products of four bytes")
        for i in range(2):
            self.kernel[i], self.stride[i] = kernel[i], stride[i]
            self.dilation[i], self.origin[i] = dilation[i], origin[i]
        self.fill, self.four = fill, four

    def block_bytes(self):
        """Of a block of packed weights."""
        return 8 * FC_BYTES_BLOCK + depthwise_weights(self.kernel[0], self.kernel[1], self.four)

    def scratch_bytes(self):
        """Of a thread."""
        return self.scratch()

    cdef size scratch(self) noexcept:
        cdef size columns = ((FC_BYTES_OUTPUTS - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] + 1)
        cdef size rows = round_up(self.kernel[0] * sizeof(void*), 64)
        return rows + (columns * ((self.kernel[0] + 3) // 4) * 4 * FC_BYTES_BLOCK if self.four else 0)

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        """`bias` has `zero`, `low` and `high` of the result."""
        cdef Work work = Work()
        cdef View panels
        cdef size i, channels, total, at = 0, step = self.block_bytes()
        cdef DepthwiseBytes_* job = <DepthwiseBytes_*>work.own(sizeof(DepthwiseBytes_))
        cdef DepthwiseBlock* block
        work.activation(x, &job.x, False, channels_last)
        work.activation(y, &job.y, True, channels_last)
        work.view(packed.panels, &panels, False)
        work.keep = self
        total = job.x.n[1]
        if elements(&job.y) == 0:
            return work
        if not (side_by_side(&job.x, 1) and side_by_side(&job.y, 1)) or job.x.n[4] * job.y.n[4] != 1:
            raise ValueError("channels must lie side by side")
        work.place(&job.x.p)
        work.place(&job.y.p)
        job.requantise.zero, job.requantise.low, job.requantise.high = bias.zero, bias.low, bias.high
        job.requantise.is_signed, job.requantise.wide = self.result == FC_I8, False
        job.kernel_rows, job.stride, job.dilation, job.origin = (
            self.kernel[0], self.stride[0], self.dilation[0], self.origin[0])
        job.blocks = (total + FC_BYTES_BLOCK - 1) // FC_BYTES_BLOCK
        if work.buffers[2].shape[0] != job.blocks * step:
            raise ValueError(f"{job.blocks * step} bytes of packed weights, not {work.buffers[2].shape[0]}")
        job.block = <DepthwiseBlock*>work.own(job.blocks * sizeof(DepthwiseBlock))
        for i in range(job.blocks):
            block = &job.block[i]
            channels = min(<size>FC_BYTES_BLOCK, total - i * FC_BYTES_BLOCK)
            block.first = i * FC_BYTES_BLOCK
            block.row.shift = <const int*>(panels.p + i * step)
            block.row.multiplier = <const float*>(panels.p + i * step + 4 * FC_BYTES_BLOCK)
            block.row.weights = panels.p + i * step + 8 * FC_BYTES_BLOCK
            block.row.column, block.row.columns, block.row.first = job.x.s[3], job.x.n[3], self.origin[1]
            block.row.rows, block.row.taps = self.kernel[0], self.kernel[1]
            block.row.stride, block.row.dilation = self.stride[1], self.dilation[1]
            block.row.channels, block.row.flip, block.row.fill = channels, 128 if self.input == FC_I8 else 0, self.fill
            block.row.requantise = &job.requantise
            block.row.out_column, block.row.outputs = job.y.s[3], job.y.n[3]
            block.run = isa.bytes.depthwise
            if self.four:
                block.run = isa.bytes.depthwise_four[depthwise_width(channels)]
        job.row_blocks = (job.y.n[2] + BYTE_ROWS - 1) // BYTE_ROWS
        work.tasks = job.y.n[0] * job.row_blocks * job.blocks
        work.task, work.job, work.scratch_bytes = depthwise_bytes_task, job, self.scratch()
        work.team(threads if elements(&job.y) * self.kernel[0] * self.kernel[1] >= PARALLEL_FROM_MACS // 4 else 1)
        return work


cdef inline size depthwise_weights(size rows, size taps, bint four) noexcept nogil:
    return (taps * ((rows + 3) // 4) * 4 if four else 2 * rows * taps) * FC_BYTES_BLOCK


cdef inline int depthwise_width(size channels) noexcept nogil:
    return 0 if channels > FC_BYTES_BLOCK // 2 else 1 if channels > FC_BYTES_BLOCK // 4 else 2


def depthwise_order(size channels, bint four):
    """(width, order) of a block of so many channels: how many its vectors hold, and which lies at each place."""
    cdef size width = FC_BYTES_BLOCK >> depthwise_width(channels) if four else FC_BYTES_BLOCK, v, at, i
    if not four:
        return width, list(range(width))
    return width, [16 * at + 4 * v + i for v in range(4) for at in range(width // 16) for i in range(4)]


cdef void depthwise_bytes_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    cdef const DepthwiseBytes_* job = <const DepthwiseBytes_*>job_
    cdef const DepthwiseBlock* block = &job.block[task % job.blocks]
    cdef size first = task // job.blocks % job.row_blocks * BYTE_ROWS, image = task // job.blocks // job.row_blocks
    cdef size row, k, at, end = min(first + BYTE_ROWS, job.y.n[2])
    cdef const char** rows = <const char**>scratch
    cdef const char* x = job.x.p + image * job.x.s[0] + block.first
    cdef fc_depthwise_row one = block.row
    one.row, one.scratch = rows, scratch + round_up(job.kernel_rows * sizeof(void*), 64)
    for row in range(first, end):
        for k in range(job.kernel_rows):
            at = row * job.stride + job.origin + k * job.dilation
            rows[k] = x + at * job.x.s[2] if 0 <= at < job.x.n[2] else NULL
        one.out = job.y.p + image * job.y.s[0] + row * job.y.s[2] + block.first
        block.run(&one)
