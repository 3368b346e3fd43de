# Sums of the direct driver of which some taps are left out, or that are gathered pixel by pixel (drivers/direct.pxi).


cdef inline bint streamed(const DirectPass* p) noexcept nogil:
    return p.streams and p.weights.packed == NULL


cdef const char* direct_steps(const DirectPass* p, size group, size panel, const char* b, size first, size last,
                              size width) noexcept nogil:
    """Where step 0 of a panel would lie if it were packed whole: what streams packs the steps from `first` to `last` - 1
    into b."""
    if not streamed(p):
        return b
    pack_steps(&p.weights, group, panel, first, last, <char*>b)
    return b - first * width * p.kernels.weight_size


cdef inline size block_end(const DirectPass* p, size at) noexcept nogil:
    """The step behind the block of the reduction that a step is in: of kc, within those whose sums are made apart."""
    cdef size sum_first = at - at % p.sum_block if p.long_ else 0
    cdef size end = sum_first + ((at - sum_first) // p.kc + 1) * p.kc
    return min(end, sum_first + p.sum_block) if p.long_ else end


cdef void direct_some_taps(const DirectPass* p, const Met* met, const Tile* t, size panel, const char* a, const char* b,
                           size vectors, size width, const size* a_row, char* c, const size* c_row, const Ends* ends,
                           fc_segment* spare, char* totals) noexcept nogil:
    """The blocks of the reduction without the taps that meet padding alone; they begin at the same steps. The sums of
    those of a long one, from zero and side by side in c, are added up apart."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size h, i, j, left, at, piece, first, run, n = 0, end = 0
    cdef bint begun = False
    cdef const char* steps
    cdef size taps = 1 if p.merged_taps and met.last[2] > met.first[2] else met.last[2] - met.first[2]
    run = p.steps * ((met.last[2] - met.first[2]) if p.merged_taps else 1)
    if p.long_:
        memset(totals, 0, totals_bytes(kernels, t.pixels * width))
    for h in range(met.first[0], met.last[0]):
        for i in range(met.first[1], met.last[1]):
            for j in range(met.first[2], met.first[2] + taps):
                first = ((h * p.taps[1] + i) * p.taps[2] + j) * p.steps
                left = run
                while left > 0:
                    at = first + run - left
                    if n and at >= end:
                        steps = direct_steps(p, t.group, panel, b, spare[0].b, spare[n - 1].b + spare[n - 1].k, width)
                        direct_block(kernels, a, a_row, steps, vectors, width, spare, n, t.pixels, c, c_row, ends,
                                     not begun, False)
                        begun = True
                        if p.long_ and at // p.sum_block != spare[0].b // p.sum_block:
                            kernels.total_add(totals, c, t.pixels * width)
                            begun = False
                        n = 0
                    end = block_end(p, at)
                    piece = min(left, end - at)
                    spare[n].a = region_offset(p, met.low, h, i, j) + (run - left)
                    spare[n].b = at
                    spare[n].k = piece
                    n += 1
                    left -= piece
    steps = b
    if n:
        steps = direct_steps(p, t.group, panel, b, spare[0].b, spare[n - 1].b + spare[n - 1].k, width)
    direct_block(kernels, a, a_row, steps, vectors, width, spare, n, t.pixels, c, c_row, ends, not begun, not p.long_)
    if p.long_:
        kernels.total_add(totals, c, t.pixels * width)
        kernels.total_end(c, totals, t.pixels * width)


cdef void pixel_origin(const DirectPass* p, const Tile* t, size pixel, size* origin) noexcept nogil:
    """Where in the input a tap of offset 0 of a tile's pixel lies."""
    cdef int axis
    for axis in range(2, -1, -1):
        origin[axis] = (t.first[axis] + pixel % t.shape[axis]) * p.stride[axis]
        pixel = pixel // t.shape[axis]


cdef void direct_skip(const DirectPass* p, const Met* met, const Tile* t, const char* a, const char* b, size vectors,
                      size width, const size* a_row, char* c, const size* c_row, const Ends* ends, fc_segment* spare,
                      char* totals) noexcept nogil:
    """Weights that are NaN or infinite must not meet the zeros of the padding: pixel by pixel, real taps alone."""
    cdef size pixel, h, i, j, n
    cdef size origin[3]
    cdef Ends own = ends[0]
    for pixel in range(t.pixels):
        own.residual_row = ends.residual_row + pixel
        n = 0
        if p.long_:
            memset(totals, 0, totals_bytes(p.kernels, width))
        pixel_origin(p, t, pixel, origin)
        for h in range(p.taps[0]):
            if not 0 <= origin[0] + p.tap[0][h] < p.x.n[4]:
                continue
            for i in range(p.taps[1]):
                if not 0 <= origin[1] + p.tap[1][i] < p.x.n[2]:
                    continue
                for j in range(p.taps[2]):
                    if 0 <= origin[2] + p.tap[2][j] < p.x.n[3]:
                        n = direct_one_tap(p, region_offset(p, met.low, h, i, j),
                                           ((h * p.taps[1] + i) * p.taps[2] + j) * p.steps, a, b, vectors, width,
                                           a_row + pixel, c, c_row + pixel, &own, spare, n, totals)
        direct_block(p.kernels, a, a_row + pixel, b, vectors, width, spare, n, 1, c, c_row + pixel, &own, True, True)
        if p.long_:
            p.kernels.total_add(totals, c + c_row[pixel] * p.kernels.size, width)
            p.kernels.total_end(c + c_row[pixel] * p.kernels.size, totals, width)


cdef size direct_one_tap(const DirectPass* p, size from_, size at, const char* a, const char* b, size vectors,
                         size width, const size* a_row, char* c, const size* c_row, const Ends* ends, fc_segment* spare,
                         size n, char* totals) noexcept nogil:
    """Add the channels of one tap of one pixel to its segments, of which there are `n`, and return how many there are
    then; a block of a long sum that is complete goes to the totals."""
    cdef size left = p.steps, piece
    while left > 0:
        if p.long_ and n > 0 and spare[0].b // p.sum_block != at // p.sum_block:  # it is complete
            direct_block(p.kernels, a, a_row, b, vectors, width, spare, n, 1, c, c_row, ends, True, False)
            p.kernels.total_add(totals, c + c_row[0] * p.kernels.size, width)
            n = 0
        piece = min(left, p.sum_block - at % p.sum_block) if p.long_ else left
        if n > 0 and spare[n - 1].b + spare[n - 1].k == at and spare[n - 1].a + spare[n - 1].k == from_:
            spare[n - 1].k += piece
        else:
            spare[n].a = from_
            spare[n].b = at
            spare[n].k = piece
            n += 1
        at += piece
        from_ += piece
        left -= piece
    return n


cdef void direct_gather(const DirectPass* p, const Met* met, const Tile* t, size panel, char* region, const char* b,
                        size vectors, size width, const size* a_row, char* c, const size* c_row, const Ends* ends,
                        bint skip, fc_segment* spare, char* totals, fc_watch* watch) noexcept nogil:
    """The reduction in chunks of kc steps, gathered pixel by pixel: bounded memory for windows of any size."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size row = p.taps[2] * p.steps, plane = p.taps[1] * row
    cdef size h = met.first[0], k0 = h * plane + met.first[1] * row, end = h * plane + met.last[1] * row
    cdef size k1, pixel, segments
    cdef bint begun = False, done
    cdef Ends own = ends[0]
    if met.first[0] >= met.last[0]:   # the planes of all taps are padding
        end = k0
    if p.long_:
        memset(totals, 0, totals_bytes(kernels, t.pixels * width))
    while not fc_interrupted(watch):
        k1 = min(end, block_end(p, k0))
        done = k1 == end and h + 1 >= met.last[0]
        for pixel in range(t.pixels):
            segments = direct_gather_pixel(p, t, pixel, k0, k1, skip, region + pixel * p.kc * kernels.input_size, spare)
            if skip:
                own.residual_row = ends.residual_row + pixel
                direct_block(kernels, region, a_row + pixel, b, vectors, width, spare, segments, 1, c, c_row + pixel,
                             &own, not begun, done and not p.long_)
        if not skip:
            spare[0].a = 0
            spare[0].b = k0
            spare[0].k = k1 - k0
            direct_block(kernels, region, a_row, direct_steps(p, t.group, panel, b, k0, k1, width), vectors, width,
                         spare, 1, t.pixels, c, c_row, ends, not begun, done and not p.long_)
        begun = True
        if k1 == end and not done:   # the rows of the next plane of taps
            h += 1
            k0, end = h * plane + met.first[1] * row, h * plane + met.last[1] * row
        else:
            k0 = k1
        if p.long_ and (done or k0 // p.sum_block != (k1 - 1) // p.sum_block):
            kernels.total_add(totals, c, t.pixels * width)
            begun = False
        if done:
            break
    if p.long_:
        kernels.total_end(c, totals, t.pixels * width)


cdef size direct_gather_pixel(const DirectPass* p, const Tile* t, size pixel, size k0, size k1, bint skip, char* dst,
                              fc_segment* spare) noexcept nogil:
    """The steps k0 .. k1 - 1 of one pixel of a tile; to `skip` what is padding, the segments of the others."""
    cdef const fc_kernels* kernels = p.kernels
    cdef size k = k0, tap, channel, n, real, iz, iy, ix, segments = 0
    cdef size origin[3]
    pixel_origin(p, t, pixel, origin)
    while k < k1:
        tap = k // p.steps
        channel = k % p.steps
        n = min(p.steps - channel, k1 - k)
        real = min(n, p.channels - channel)   # a tile along k may be filled up with zeros
        ix = padded_index(origin[2] + p.tap[2][tap % p.taps[2]], p.x.n[3], p.mode)
        tap = tap // p.taps[2]
        iy = padded_index(origin[1] + p.tap[1][tap % p.taps[1]], p.x.n[2], p.mode)
        iz = padded_index(origin[0] + p.tap[0][tap // p.taps[1]], p.x.n[4], p.mode)
        if iz >= 0 and iy >= 0 and ix >= 0:
            kernels.pack[p.x_code](dst, n, 1, real, p.x.p + t.image * p.x.s[0]
                                   + (t.group * p.channels + channel) * p.x.s[1] + iz * p.x.s[4] + iy * p.x.s[2]
                                   + ix * p.x.s[3], 0, p.x.s[1])
            if skip:
                spare[segments].a = k - k0
                spare[segments].b = k
                spare[segments].k = n
                segments += 1
        elif not skip:
            fill_padding(kernels, dst, real, p.mode)
        if real < n:
            memset(dst + real * kernels.input_size, 0, (n - real) * kernels.input_size)
        dst += n * kernels.input_size
        k += n
    return segments
