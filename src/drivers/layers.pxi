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


cdef int layer_code(size itemsize) except -1:
    if itemsize not in (4, 8):
        raise ValueError("rows must be float32 or float64")
    return 0 if itemsize == 4 else 1


cdef inline size sum_parts(size pixels) noexcept nogil:
    return max(<size>1, min(<size>ROW_PARTS, (pixels + PART_PIXELS - 1) // PART_PIXELS))


cdef void add_parts(size itemsize, const char* parts, size count, size step, size channels, char* out) noexcept nogil:
    """out = the sum of `count` rows of `channels`, `step` bytes apart, in their order."""
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


def relu_gradient(dz, dy, y, double most, total, int threads):
    """dz = dy where 0 < y < most, else 0; total (C,) = the sum of dz over pixels."""
    cdef Arrays arrays = Arrays()
    cdef View vz, vdy, vy, vt
    cdef size item, pixels, channels, part, parts, chunk, row
    cdef char* sums
    cdef const fc_layer_kernels* kernels
    try:
        arrays.view(dz, &vz, True)
        arrays.view(dy, &vdy, False)
        arrays.view(y, &vy, False)
        arrays.view(total, &vt, True)
        item, pixels, channels = arrays.buffers[0].itemsize, vz.n[2], vz.n[3]
        kernels = isa.layers[layer_code(item)]
        parts = sum_parts(pixels)
        chunk = (pixels + parts - 1) // parts
        row = round_up(channels * item, 64)
        sums = <char*>allocate(parts * row)
        with nogil:
            memset(sums, 0, parts * row)
            for part in prange(parts, schedule='static', num_threads=max(1, min(threads, parts))):
                if part * chunk < pixels:
                    kernels.relu_gradient(
                        vz.p + part * chunk * channels * item, vdy.p + part * chunk * channels * item,
                        vy.p + part * chunk * channels * item, most, min(chunk, pixels - part * chunk), channels,
                        sums + part * row)
            add_parts(item, sums, parts, row, channels, vt.p)
        free(sums)
    finally:
        arrays.release()


def channel_sums(x, total, int threads):
    """total (C,) = the sum of x over pixels."""
    cdef Arrays arrays = Arrays()
    cdef View vx, vt
    cdef size item, pixels, channels, part, parts, chunk, row
    cdef char* sums
    cdef const fc_layer_kernels* kernels
    try:
        arrays.view(x, &vx, False)
        arrays.view(total, &vt, True)
        item, pixels, channels = arrays.buffers[0].itemsize, vx.n[2], vx.n[3]
        kernels = isa.layers[layer_code(item)]
        parts = sum_parts(pixels)
        chunk = (pixels + parts - 1) // parts
        row = round_up(channels * item, 64)
        sums = <char*>allocate(parts * row)
        with nogil:
            memset(sums, 0, parts * row)
            for part in prange(parts, schedule='static', num_threads=max(1, min(threads, parts))):
                if part * chunk < pixels:
                    kernels.sum(vx.p + part * chunk * channels * item, min(chunk, pixels - part * chunk), channels,
                                sums + part * row)
            add_parts(item, sums, parts, row, channels, vt.p)
        free(sums)
    finally:
        arrays.release()


def channel_products(a, shift_a, b, shift_b, total, product, int threads):
    """total (C,) = the sum of a over pixels, product (C,) = that of (a - shift_a) * (b - shift_b)."""
    cdef Arrays arrays = Arrays()
    cdef View va, vsa, vb, vsb, vt, vp
    cdef size item, pixels, channels, part, parts, chunk, row
    cdef char* sums
    cdef const fc_layer_kernels* kernels
    try:
        arrays.view(a, &va, False)
        arrays.view(shift_a, &vsa, False)
        arrays.view(b, &vb, False)
        arrays.view(shift_b, &vsb, False)
        arrays.view(total, &vt, True)
        arrays.view(product, &vp, True)
        item, pixels, channels = arrays.buffers[0].itemsize, va.n[2], va.n[3]
        kernels = isa.layers[layer_code(item)]
        parts = sum_parts(pixels)
        chunk = (pixels + parts - 1) // parts
        row = round_up(channels * item, 64)
        sums = <char*>allocate(2 * parts * row)
        with nogil:
            memset(sums, 0, 2 * parts * row)
            for part in prange(parts, schedule='static', num_threads=max(1, min(threads, parts))):
                if part * chunk < pixels:
                    kernels.products(
                        va.p + part * chunk * channels * item, vsa.p, vb.p + part * chunk * channels * item, vsb.p,
                        min(chunk, pixels - part * chunk), channels, sums + 2 * part * row, sums + (2 * part + 1) * row)
            add_parts(item, sums, parts, 2 * row, channels, vt.p)
            add_parts(item, sums + row, parts, 2 * row, channels, vp.p)
        free(sums)
    finally:
        arrays.release()


def affine(out, x, a, z, b, c, bint relu, int threads):
    """out = x * a + z * b + c by channels, z and b None to leave them out; with `relu` (and no z) not below 0."""
    cdef Arrays arrays = Arrays()
    cdef View vo, vx, va, vz, vb, vc
    cdef size item, pixels, channels, part, parts, chunk
    cdef const fc_layer_kernels* kernels
    vz.p = vb.p = NULL
    try:
        arrays.view(out, &vo, True)
        arrays.view(x, &vx, False)
        arrays.view(a, &va, False)
        if z is not None:
            arrays.view(z, &vz, False)
            arrays.view(b, &vb, False)
        arrays.view(c, &vc, False)
        item, pixels, channels = arrays.buffers[0].itemsize, vo.n[2], vo.n[3]
        kernels = isa.layers[layer_code(item)]
        parts = max(1, min(pixels, threads))
        chunk = (pixels + parts - 1) // parts
        with nogil:
            for part in prange(parts, schedule='static', num_threads=parts):
                if part * chunk < pixels:
                    kernels.affine(
                        vo.p + part * chunk * channels * item, vx.p + part * chunk * channels * item, va.p,
                        NULL if vz.p == NULL else vz.p + part * chunk * channels * item, vb.p, vc.p, relu,
                        min(chunk, pixels - part * chunk), channels)
    finally:
        arrays.release()


def sgd(w, g, v, double rate, double momentum, double keep, bint nesterov, int threads):
    """One step of stochastic gradient descent on flat arrays; v is the velocity or None."""
    cdef Arrays arrays = Arrays()
    cdef View vw, vg, vv
    cdef size item, count, task, tasks, at
    cdef const fc_layer_kernels* kernels
    vv.p = NULL
    try:
        arrays.view(w, &vw, True)
        arrays.view(g, &vg, False)
        if v is not None:
            arrays.view(v, &vv, True)
        item, count = arrays.buffers[0].itemsize, vw.n[3]
        kernels = isa.layers[layer_code(item)]
        tasks = (count + UPDATE_CHUNK - 1) // UPDATE_CHUNK
        with nogil:
            for task in prange(tasks, schedule='static', num_threads=max(1, min(threads, tasks))):
                at = task * UPDATE_CHUNK * item
                kernels.sgd(vw.p + at, vg.p + at, NULL if vv.p == NULL else vv.p + at, rate, momentum, keep, nesterov,
                            min(<size>UPDATE_CHUNK, count - task * UPDATE_CHUNK))
    finally:
        arrays.release()


def adam(w, g, m, s, double rate, double beta_1, double beta_2, double epsilon, double keep, int threads):
    """One step of Adam on flat arrays; m and s are the moments."""
    cdef Arrays arrays = Arrays()
    cdef View vw, vg, vm, vs
    cdef size item, count, task, tasks, at
    cdef const fc_layer_kernels* kernels
    try:
        arrays.view(w, &vw, True)
        arrays.view(g, &vg, False)
        arrays.view(m, &vm, True)
        arrays.view(s, &vs, True)
        item, count = arrays.buffers[0].itemsize, vw.n[3]
        kernels = isa.layers[layer_code(item)]
        tasks = (count + UPDATE_CHUNK - 1) // UPDATE_CHUNK
        with nogil:
            for task in prange(tasks, schedule='static', num_threads=max(1, min(threads, tasks))):
                at = task * UPDATE_CHUNK * item
                kernels.adam(vw.p + at, vg.p + at, vm.p + at, vs.p + at, rate, beta_1, beta_2, epsilon, keep,
                             min(<size>UPDATE_CHUNK, count - task * UPDATE_CHUNK))
    finally:
        arrays.release()


def max_pool_gradient(dx, x, y, dy, tuple kernel, tuple stride, tuple padding, int threads):
    """dx = the gradient of a max pooling of x (N, H, W, C) to y; each dy goes to the first maximum of its window."""
    cdef Arrays arrays = Arrays()
    cdef View vdx, vx, vy, vdy
    cdef fc_max_pool_gradient job
    cdef size task, tasks, chunks
    cdef int item
    cdef const fc_layer_kernels* kernels
    try:
        arrays.view(dx, &vdx, True)
        arrays.view(x, &vx, False)
        arrays.view(y, &vy, False)
        arrays.view(dy, &vdy, False)
        item = arrays.buffers[0].itemsize
        kernels = isa.layers[layer_code(item)]
        job.height, job.width, job.out_height, job.out_width = vx.n[1], vx.n[2], vy.n[1], vy.n[2]
        job.kernel_y, job.kernel_x = kernel
        job.stride_y, job.stride_x = stride
        job.pad_y, job.pad_x = padding
        job.pixel = vx.n[3]
        chunks = (vx.n[3] + CHANNEL_CHUNK - 1) // CHANNEL_CHUNK
        tasks = vx.n[0] * chunks
        with nogil:
            for task in prange(tasks, schedule='static', num_threads=max(1, min(threads, tasks))):
                max_pool_gradient_task(kernels, job, vdx, vx, vy, vdy, item, task // chunks, task % chunks)
    finally:
        arrays.release()


cdef void max_pool_gradient_task(const fc_layer_kernels* kernels, fc_max_pool_gradient job, View dx, View x, View y,
                                 View dy, int item, size image, size chunk) noexcept nogil:
    cdef size first = chunk * CHANNEL_CHUNK
    job.channels = min(<size>CHANNEL_CHUNK, job.pixel - first)
    job.dx = dx.p + image * dx.s[0] + first * item
    job.x = x.p + image * x.s[0] + first * item
    job.y = y.p + image * y.s[0] + first * item
    job.dy = dy.p + image * dy.s[0] + first * item
    kernels.max_pool_gradient(&job)


def dense(x, w, out, int threads):
    """out (N, outputs) = x (N, inputs) @ w (inputs, outputs). The sums are cut by shape, the batch changes no bit."""
    cdef Arrays arrays = Arrays()
    cdef View vx, vw, vo
    cdef size item, samples, inputs, outputs, first, count, part, parts, chunk, row
    cdef char* sums
    cdef const fc_layer_kernels* kernels
    try:
        arrays.view(x, &vx, False)
        arrays.view(w, &vw, False)
        arrays.view(out, &vo, True)
        item, samples, inputs, outputs = arrays.buffers[0].itemsize, vx.n[2], vx.n[3], vw.n[3]
        kernels = isa.layers[layer_code(item)]
        parts = max(<size>1, min(<size>DENSE_PARTS, inputs * outputs // DENSE_WEIGHTS))
        chunk = round_up((inputs + parts - 1) // parts, 4)
        row = round_up(DENSE_SAMPLES * outputs * item, 64)
        sums = <char*>allocate(parts * row)
        with nogil:
            first = 0
            while first < samples:
                count = min(<size>DENSE_SAMPLES, samples - first)
                for part in prange(parts, schedule='static', num_threads=max(1, min(threads, parts))):
                    memset(sums + part * row, 0, count * outputs * item)
                    if part * chunk < inputs:
                        kernels.dense(
                            vx.p + (first * inputs + part * chunk) * item, inputs, count,
                            vw.p + part * chunk * outputs * item, min(chunk, inputs - part * chunk), outputs,
                            sums + part * row)
                add_parts(item, sums, parts, row, count * outputs, vo.p + first * outputs * item)
                first += count
        free(sums)
    finally:
        arrays.release()
