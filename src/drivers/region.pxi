# The part of the input under a tile of outputs, packed [plane][row][column][channel] with padding filled in. Here, and
# only here, layouts, element types and borders are met; the micro-kernels see a plain block.


cdef void fill_padding(const fc_kernels* kernels, char* dst, size elements, int mode) noexcept nogil:
    """Padding that no element of the input stands for: zeros, or an integer of 8 or 16 bits (FC_FILL)."""
    cdef size i
    if mode < FC_FILL_FROM:
        memset(dst, 0, elements * kernels.input_size)
    elif kernels.input_size == 1:
        memset(dst, mode - FC_FILL, elements)
    else:
        for i in range(elements):
            (<short*>dst)[i] = <short>(mode - FC_FILL)


cdef void pack_region(const fc_kernels* kernels, int code, const View* x, size image, size channel, size channels,
                      size first_row, size row_step, size rows, size first_column, size column_step, size columns,
                      size pitch, int mode, size ld, char* dst) noexcept nogil:
    cdef size r, iy, j, ix, lo, hi
    cdef const char* plane = x.p + image * x.s[0] + channel * x.s[1]
    cdef const char* src
    # columns lo..hi-1 lie inside the input
    lo = 0 if first_column >= 0 else (-first_column + column_step - 1) // column_step
    lo = min(lo, columns)
    hi = 0 if first_column >= x.n[3] else (x.n[3] - 1 - first_column) // column_step + 1
    hi = max(min(hi, columns), lo)
    for r in range(rows):
        iy = padded_index(first_row + r * row_step, x.n[2], mode)
        if iy < 0:
            fill_padding(kernels, dst, columns * ld, mode)
        else:
            src = plane + iy * x.s[2]
            if hi > lo:
                kernels.pack[code](dst + lo * ld * kernels.input_size, ld, hi - lo, channels,
                                   src + (first_column + lo * column_step) * x.s[3], column_step * x.s[3], x.s[1])
            j = 0
            while j < columns:
                if j == lo and hi > lo:
                    j = hi
                    continue
                ix = padded_index(first_column + j * column_step, x.n[3], mode)
                if ix < 0:
                    fill_padding(kernels, dst + j * ld * kernels.input_size, channels, mode)
                else:
                    kernels.pack[code](dst + j * ld * kernels.input_size, ld, 1, channels, src + ix * x.s[3], x.s[3],
                                       x.s[1])
                j += 1
        dst += pitch * ld * kernels.input_size


cdef void pack_planes(const fc_kernels* kernels, int code, const View* x, size image, size channel, size channels,
                      const size* first, const size* step, const size* shape, size plane, size pitch, int mode, size ld,
                      char* dst) noexcept nogil:
    """`pack_region` of planes of the input, `plane` pixels apart: planes, rows and columns of the region are counted in
    threes."""
    cdef size r, iz
    cdef View one = x[0]
    for r in range(shape[0]):
        iz = padded_index(first[0] + r * step[0], x.n[4], mode)
        if iz < 0:
            fill_padding(kernels, dst, shape[1] * pitch * ld, mode)
        else:
            one.p = x.p + iz * x.s[4]
            pack_region(kernels, code, &one, image, channel, channels, first[1], step[1], shape[1], first[2], step[2],
                        shape[2], pitch, mode, ld, dst)
        dst += plane * ld * kernels.input_size
