# 1x1 convolution with few outputs: channels-last arrays whose pixels are evenly apart, a lane a pixel (kernels/few.h). With a
# lane an output, as in drivers/direct.pxi, most lanes would be idle.
#
#   for image x group x run of pixels                    threads take these
#     for block of as many pixels as lanes
#       for block of channels                            transposed in registers
#         for outputs                                    registers
#
# Every output is one sum in the order of the channels, as in drivers/direct.pxi.

cdef enum:
    FEW_PIXELS_OF_A_TASK = 512

cdef struct FewJob:
    fc_few all                     # of a task: `x`, `y`, `weight`, `bias` and `pixels` are its own
    void (*kernel)(const fc_few*) noexcept nogil
    const fc_kernels* kernels
    View x, y
    Weights weights
    const char* bias
    int y_code, activation
    size groups, channels, outputs # of one group
    size parts                     # tasks of an image and group


cdef bint few_fit(const DirectPass* p) noexcept nogil:
    """Whether a pass that could read channels-last arrays in place has so few outputs, and vectors of pixels to fill."""
    cdef const fc_few_kernels* few = <const fc_few_kernels*>extra(p.kernels, "few")
    return few != NULL and planes_fit(p) and p.outputs <= few.most and p.channels >= p.kernels.lanes


cdef bint few_usable(const DirectPass* p) noexcept nogil:
    """Whether the arrays of such a pass are as they must be."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size unit = kernels.input_size
    cdef int axis
    for axis in range(3):
        if length(&p.x, axis) != p.extent[axis] or length(&p.y, axis) != p.extent[axis]:
            return False
    return (p.source == IN_PLACE and few_fit(p) and not p.has_residual and p.requantise == NULL
            and (p.weights.packed != NULL or not p.streams) and few_lie(&p.x, unit) and few_lie(&p.y, unit))


cdef inline bint few_lie(const View* array, size unit) noexcept nogil:
    """Whether the channels of a pixel lie side by side, and all pixels as far apart."""
    cdef size pixel = few_pixel(array)
    return (array.s[1] == unit and pixel > 0 and pixel % unit == 0 and array.s[0] % unit == 0 and <size>array.p % unit == 0
            and (array.n[3] == 1 or array.s[3] == pixel)
            and (array.n[2] == 1 or array.s[2] == array.n[3] * pixel)
            and (array.n[4] == 1 or array.s[4] == array.n[2] * array.n[3] * pixel))


cdef inline size few_pixel(const View* array) noexcept nogil:
    """Bytes from a pixel to the next."""
    return array.s[3] if array.n[3] > 1 else array.s[2] if array.n[2] > 1 else array.s[4]


cdef int few_work(Work work, const DirectPass* p, int threads) except -1:
    """The tasks of a pass."""
    cdef const fc_kernels* kernels = p.kernels
    cdef FewJob* job = <FewJob*>work.own(sizeof(FewJob))
    cdef size pixels = volume(p.extent), images = p.y.n[0], macs
    job.kernels, job.x, job.y, job.weights, job.bias = kernels, p.x, p.y, p.weights, p.bias
    job.y_code, job.activation = p.y_code, p.activation
    job.groups, job.channels, job.outputs = p.groups, p.channels, p.outputs
    job.kernel = (<const fc_few_kernels*>extra(kernels, "few")).outputs[p.outputs]
    job.all.x_pixel, job.all.y_pixel, job.all.channels = few_pixel(&p.x), few_pixel(&p.y), p.channels
    job.all.relu = p.activation if p.activation <= RELU6 else LINEAR
    macs = pixels * images * p.groups * p.channels * kernels.lanes   # as long as a vector of outputs takes
    threads = threads if macs >= PARALLEL_FROM_MACS else 1
    job.parts = (pixels + FEW_PIXELS_OF_A_TASK - 1) // FEW_PIXELS_OF_A_TASK
    work.tasks, work.sites = images * p.groups * job.parts, sites_of(images, p.groups, job.parts)
    work.scratch_bytes = 0 if p.weights.packed != NULL else few_scratch(p)
    work.task, work.job = few_task, job
    work.place(&job.x.p)
    work.place(&job.y.p)
    return work.team(threads)


cdef inline size few_scratch(const DirectPass* p) noexcept nogil:
    """Of one thread: the weights of a group, where no plan holds them."""
    return round_up(p.channels * p.kernels.lanes * p.kernels.size, 64)


cdef void few_task(void* job_, char* scratch, size task, fc_watch* watch) noexcept nogil:
    """A run of pixels of an image and group."""
    cdef const FewJob* job = <const FewJob*>job_
    cdef const fc_kernels* kernels = job.kernels
    cdef fc_few f = job.all
    cdef size part = task % job.parts, pixels = volume(&job.y.n[2]), first = part * FEW_PIXELS_OF_A_TASK, group, image
    task = task // job.parts
    group, image = task % job.groups, task // job.groups
    if job.weights.packed != NULL:
        f.weight = packed_panel(&job.weights, group, 0)
    else:
        pack_panel(&job.weights, group, 0, 0, job.channels, scratch)
        f.weight = scratch
    f.pixels = min(<size>FEW_PIXELS_OF_A_TASK, pixels - first)
    f.x = job.x.p + image * job.x.s[0] + group * job.channels * job.x.s[1] + first * f.x_pixel
    f.y = job.y.p + image * job.y.s[0] + group * job.outputs * job.y.s[1] + first * f.y_pixel
    f.bias = job.bias + group * job.outputs * kernels.size if job.bias != NULL else NULL
    job.kernel(&f)
    if job.activation > RELU6:
        kernels.store[job.y_code](f.y, f.y_pixel // kernels.size, f.pixels, job.outputs, f.y, f.y_pixel, kernels.size, NULL,
                                  job.activation, NULL, 0, 0)
