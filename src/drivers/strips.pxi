# Rows of depthwise outputs strip by strip (kernels/strips.h), where drivers/patches.pxi has no patch: any number of taps,
# stride and dilation.
#
#   for strip, for vector of channels: all taps                                       micro-kernel, registers
#
# With a stride that leaves no input to share, or taps too far apart, each output of a strip has columns of its own.

cdef enum:
    STRIP_OVERHEAD = 2       # outputs that a strip takes the time of, beside its own
    NEIGHBOURS_FROM = 4      # outputs of a residue
    CUT_COLUMNS = 64         # of a piece of a row at least
    SIDE_BY_SIDE = 256 << 10 # bytes of rows of input that are in use together: a part of the second level
    WEIGHTS_TOGETHER = 128 << 10  # bytes of weights, likewise
    WAYS = 8                 # lines of each of the 64 sets of the first level


cdef void strip_shape(const Patches* own, PatchPass* p) noexcept nogil:
    """Whether outputs lie apart, and the widths of strips that cover so many of them cheapest."""
    cdef size cost[STRIP_WIDTHS]
    cdef size left, width, now
    cdef size[3] widths
    widths[0], widths[1], widths[2] = 4, 7, 8
    p.loose = own.stride[2] > 2 or p.step[2] > 1
    cost[0], p.widths[0] = 0, 0
    for left in range(1, STRIP_WIDTHS):
        for width in widths:
            now = cost[max(0, left - width)] + width + STRIP_OVERHEAD
            if width == 4 or now <= cost[left]:
                cost[left], p.widths[left] = now, <unsigned char>width


cdef void strip_blocks(PatchJob* job, const PatchPass* p, size pitch, size image) noexcept nogil:
    """As `patch_blocks`: the channels done together, and whether their input is copied."""
    cdef size vector = job.kernels.lanes * job.kernels.size, sets = 64, columns = p.input[2] + 2
    if p.taps[0] * p.taps[1] == 1:   # no row is met again: those under a strip alone are in use
        columns = min(columns, FC_WINDOW + p.taps[2] - 1)
    job.together = max(1, min(job.vectors, WEIGHTS_TOGETHER // (volume(p.taps) * vector)))
    if job.together > <size>job.kernels.vectors:
        job.together -= job.together % job.kernels.vectors
    while sets > 1 and pitch % (64 * (64 // sets) * 2) == 0:  # of the first level, which pixels so far apart fall into
        sets //= 2
    job.packs = columns > sets * WAYS and job.own.total % job.kernels.lanes == 0
    job.packs = job.packs and 0 < image <= SIDE_BY_SIDE
    if job.packs:
        job.together = min(SIDE_BY_SIDE // image, min(job.together, <size>job.kernels.vectors))


cdef void strip_cuts(PatchJob* job, size threads) noexcept nogil:
    """Into how many pieces rows are cut where they are few, and the scratch of a strip."""
    cdef const PatchPass* p
    cdef size i
    job.cuts, job.inside_bytes = threads, 0
    for i in range(job.own.count):
        p = &job.own.passes[i]
        if p.patch == NULL:
            job.inside_bytes = max(job.inside_bytes, round_up(p.taps[2] * sizeof(unsigned int), 64))
        if p.patch != NULL or p.outputs[0] * p.outputs[1] >= 4 * threads:
            job.cuts = 1
        job.cuts = max(1, min(job.cuts, p.outputs[2] // CUT_COLUMNS))


cdef void strip_line(const PatchJob* job, const PatchPass* p, const PatchOut* out, const PatchFrom* from_, char* y_,
                     char* scratch, size v0, size v1, size count, size z, size line) noexcept nogil:
    """One line of plane `z`: a row of outputs, or a piece of it."""
    cdef const Patches* own = job.own
    cdef size cut = line % job.cuts, y = line // job.cuts
    cdef size x0 = cut * p.outputs[2] // job.cuts, x1 = (cut + 1) * p.outputs[2] // job.cuts
    cdef size bytes = job.kernels.size, x, width, first_z, first_y, next, further
    cdef bint joined, joins
    cdef const fc_patch_run* run = job.kernels.strip[0 if p.loose else own.stride[2]]
    cdef const char* a
    cdef char* c = y_ + y * out.y_y
    cdef fc_patch_at at
    at.planes = taps_inside(own, p, 0, z, &first_z)
    at.rows = taps_inside(own, p, 1, y, &first_y)
    a = (from_.x + (z * own.stride[0] + p.low[0] + first_z * p.step[0]) * from_.z
         + (y * own.stride[1] + p.low[1] + first_y * p.step[1]) * from_.y)
    at.a_z, at.a_y, at.a_x = p.step[0] * from_.z // bytes, p.step[1] * from_.y // bytes, p.step[2] * from_.x_ // bytes
    at.a_p, at.c_x = own.stride[2] * from_.x_ // bytes, out.y_x // bytes
    at.activation = job.activation if job.activation <= RELU6 else LINEAR
    x, joins = x0, False
    width = strip_width(p, run, x0, &x, x1)
    while x < x1:
        next, joined = x + width, joins
        further = strip_width(p, run, x0, &next, x1)
        joins = next < x1 and pixels_join(own, p, x0, next, further)
        strip(job, p, run[width], a, c + x * out.y_x, from_.x_, <unsigned int*>scratch,
              p.tap + (first_z * own.places[1] + first_y) * own.places[2], x, width, v0, v1, &at, joined,
              not (joined and joins))
        x, width = next, further
    patch_end(job, out, c + x0 * out.y_x, x1 - x0, count)


cdef inline size strip_width(const PatchPass* p, const fc_patch_run* run, size x0, size* x, size x1) noexcept nogil:
    """The outputs of the next strip, which begins at x or, where it would end behind x1, before."""
    cdef size width
    if x[0] >= x1:
        return 0
    width = p.widths[min(x1 - x[0], STRIP_WIDTHS - 1)]
    while width > x1 - x0 or run[width] == NULL:
        width -= 1
    x[0] = min(x[0], x1 - width)  # the last one computes some columns again
    return width


cdef inline void strip(const PatchJob* job, const PatchPass* p, fc_patch_run run, const char* a, char* c, size a_x,
                       unsigned int* inside, size tap, size x, size width, size v0, size v1,
                       fc_patch_at* at, bint joined, bint closed) noexcept nogil:
    """One strip, from the first tap of a row on that the input has for an output of it."""
    cdef const Patches* own = job.own
    cdef size begin = x * own.stride[2] + p.low[2], step = p.step[2], stride = own.stride[2], span, low, high, first
    cdef size last, t, i
    if p.loose:
        span = (width - 1) * stride   # from the first output to the last
        first, last = up_to(-begin - span, step, p.taps[2]), up_to(p.input[2] - begin, step, p.taps[2])
        at.block = 1
        for t in range(first, last):
            low = begin + t * step
            inside[t - first] = bits(up_to(-low, stride, width), up_to(p.input[2] - low, stride, width))
    else:
        span = (width - 1) * stride + p.taps[2]   # columns
        low, high = up_to(-begin, step, span), up_to(p.input[2] - begin, step, span)
        first, last = max(0, low - (width - 1) * stride), min(p.taps[2], high)
        at.block = even_block(last - first, job.kernels.strip_taps)
        t, i = first, 0
        while t < last:
            inside[i] = bits(max(0, low - t), max(0, high - t))
            t += at.block
            i += 1
    at.taps, at.inside = max(0, last - first), inside
    patch_channels(job, tap + first, run, shared_run(own, p, 1, width), a + (begin + first * step) * a_x, c, v0, v1, at,
                   joined, closed)


cdef inline unsigned int bits(size low, size high) noexcept nogil:
    """Bits low..high-1 of the 32."""
    return <unsigned int>(((<unsigned long long>1 << min(32, high)) - 1) & ~((<unsigned long long>1 << min(32, low)) - 1))


cdef inline size even_block(size taps, size most) noexcept nogil:
    """Into how large blocks to cut taps so that none is much smaller."""
    cdef size blocks = max(1, (taps + most - 1) // most)
    return max(1, (taps + blocks - 1) // blocks)


cdef class Depthwise(Program):
    """A depthwise convolution along up to three axes, where it `fits`: in place where the arrays allow it, else on transposed
    copies (drivers/transposed_patches.pxi), with the same sums.

    `extent` is as in `Lanes`, and `capped` scratch as little as can be. The weights are packed as one group of all
    channels, for the planes, rows and columns of the kernel that `places` says.
    """
    cdef Patches patches_
    cdef bint capped
    cdef readonly tuple places

    def __init__(self, codes, extent, tuple passes, bint capped):
        self.compute_with(codes)
        self.capped = capped
        self.places = tuple([packed_places(passes, axis)[1] for axis in range(3)])
        patches_begin(&self.patches_, self.kernels, extent, passes)

    def __dealloc__(self):
        fc_free(self.patches_.passes)

    def fits(self):
        """Whether there are kernels for it."""
        return bool(patches_fit(&self.patches_))

    def takes(self, x, residual, y, bint channels_last):
        """Whether the arrays lie so that they are read and written in place."""
        cdef Arrays arrays = Arrays()
        cdef Operands o
        bind_operands(&o, arrays, x, None, residual, y, LINEAR, channels_last)
        return bool(patches_lie(&self.patches_, self, &o))

    def patches(self, size images, int threads):
        """As `Lanes.patches`."""
        return patches_blocking(&self.patches_, images, threads)

    def transposed(self, size images, int threads):
        """(planes, rows and columns of a band, tasks, threads, scratch of all) where arrays are transposed."""
        cdef TransposedJob job
        cdef size scratch
        job.patches.own, job.patches.kernels, job.patches.images = &self.patches_, self.kernels, images
        threads = patch_team(&job.patches, threads)
        transposed_numbers(&job, &self.patches_, images, threads, self.capped)
        scratch = transposed_scratch(&job)
        tasks = images * job.chunks * volume(job.bands)
        threads = team_for(threads, tasks, scratch)
        return job.outputs[0], job.outputs[1], job.outputs[2], tasks, threads, scratch * threads

    cdef Work bind(self, x, weight, packed, bias, residual, y, int activation, bint channels_last, int threads):
        cdef Work work = Work()
        cdef Operands o
        cdef View panels
        bind_operands(&o, work, x, bias, residual, y, activation, channels_last)
        work.view(packed.panels, &panels, False)
        work.keep = self
        if o.y.n[0] * o.y.n[1] > 0 and not patches_bind(&self.patches_, self, &o, panels.p, threads, work):
            transposed_bind(&self.patches_, self, &o, panels.p, threads, self.capped, work)
        return work
